/**
 * Dedupe: the same event twice counts once. One instance per stream, inside the shard's thread; synchronous, no clock, no I/O but
 * for pages of runs.
 *
 * The newest ids are in memory, older generations in runs on disk (runs.ts) once these are built. Where an id lies changes no
 * verdict: a generation is known or forgotten as a whole, by the state alone.
 *
 * For each epoch the shard calls judge() for its records in log order, then takeBlock(), then barrier(). Block and state leave
 * for the flush; the state belongs into the epoch's checkpoint. After a crash, restore() with the state of the last
 * checkpoint and the key blocks up to it, then the log again, give the verdicts that an uninterrupted run gives.
 *
 * Nothing is ever forgotten in silence: when ids do not fit any more, `full` is raised and judge() refuses to work.
 */
import { assert } from '../assert.js'
import type { Frame } from '../frame.js'
import { limits } from '../limits.js'
import { crossBarrier, type DedupeState, firstOf, type Generation, type GenerationLimits } from './generations.js'
import { type IdStore, PlainStore } from './id-store.js'
import { openKernelStore } from './kernel-store.js'
import { decodeKeyBlock, ENTRY_WORDS, encodeKeyBlock } from './key-block.js'
import { type RunStats, Runs } from './runs.js'

export interface DedupeOptions {
  readonly stream: number
  /** 16 bytes, created once for the whole installation and never changed: the key files depend on it. */
  readonly secret: Uint8Array
  /** Ids, and voids, in memory at most. @default limits.dedupeIdsMax */
  readonly idsMax?: number
  /** The same on disk, beyond those in memory. Whoever asks for it builds runs and attaches them. @default 0 */
  readonly diskIdsMax?: number
  /** Length of a generation by receivedAt, milliseconds. @default limits.generationMs */
  readonly generationMs?: number
  /** F, the door's bound on eventTime − receivedAt, milliseconds. @default limits.aheadMs */
  readonly aheadMs?: number
  /** L + F, milliseconds. @default limits.lateMs + limits.aheadMs */
  readonly windowMs?: number
  /** Events of one frame at most; so much room is always kept free. @default limits.batchEventsMax */
  readonly frameEventsMax?: number
  /** The plain store even where the kernel could be used. @default false */
  readonly plain?: boolean
}

/** The end of an epoch, as its last record says it. */
export interface EpochBarrier {
  readonly epoch: number
  readonly receivedAt: number
  readonly floorTime: number
}

export interface DedupeStats extends RunStats {
  /** Ids known, in memory and on disk. */
  readonly entries: number
  /** Entries in memory: ids and voids. */
  readonly memoryEntries: number
  /** Slots of the table. */
  readonly capacity: number
  /** Memory of the table. */
  readonly bytes: number
  readonly generations: number
  /** receivedAt after which every id is remembered; null while nothing was ever forgotten. */
  readonly windowFrom: number | null
  readonly announcedFloor: number | null
  /** Unknown ids whose eventTime lay behind what was forgotten, answered with `conflict` since the start. 0 if the door works. */
  readonly behindWindow: number
}

interface Taking {
  readonly epoch: number
  readonly byte: number
  readonly keyWords: Int32Array
  readonly voidWords: Int32Array
}

/** A page holds 256 slots: behind this part of the table, four ids a page have come, and all but one page in fifty are in. */
const UNTOUCHED_SHARE = 64

/** A generation's byte in the table: a ring, 0 stands for an empty slot. */
const byteOf = (generation: number): number => (generation % 255) + 1
/** Generations in memory at most, so that their bytes differ. */
const RING_MAX = 250

export class Dedupe {
  readonly #stream: number
  readonly #bounds: GenerationLimits
  readonly #frameEventsMax: number
  readonly #store: IdStore
  readonly #runs: Runs
  /** Of the last barrier; −1 before the first one. */
  #epoch = -1
  /** As they were at the last barrier, the current one last; null before the first frame. */
  #generations: readonly Generation[] | null = null
  #announcedFloor: number | null = null
  #windowFrom: number | null = null
  #forgottenTime: number | null = null
  /** The current generation, and what it holds by now. */
  #number = 1
  #byte = byteOf(1)
  #lastEventTime = 0
  #idCount = 0
  #voidCount = 0
  /** Generations from this one on are in memory, older ones in runs. */
  #memoryFrom = 1
  /** Ids and voids of all generations. */
  #ids = 0
  #voids = 0
  #behindWindow = 0
  /** Between beginRestore() and endRestore(): the state to reach, and what came per generation of it. */
  #restoring: { readonly state: DedupeState; readonly found: Map<number, { ids: number; voids: number }> } | null = null

  /** What is left of the key block that is being taken in. */
  #taking: Taking | null = null

  constructor(options: DedupeOptions) {
    this.#stream = options.stream
    this.#frameEventsMax = options.frameEventsMax ?? limits.batchEventsMax
    this.#bounds = {
      idsMax: options.idsMax ?? limits.dedupeIdsMax,
      diskIdsMax: options.diskIdsMax ?? 0,
      generationMs: options.generationMs ?? limits.generationMs,
      aheadMs: options.aheadMs ?? limits.aheadMs,
      windowMs: options.windowMs ?? limits.lateMs + limits.aheadMs,
    }
    const { idsMax } = this.#bounds
    if (idsMax < 16 * this.#frameEventsMax) {
      throw new Error(`cannot work with room for ${idsMax} ids: 16 frames of ${this.#frameEventsMax} events must fit`)
    }
    const { secret, plain = false } = options
    this.#store = (plain ? null : openKernelStore(secret, idsMax)) ?? new PlainStore(secret, idsMax)
    this.#runs = new Runs(options.stream, !plain)
  }

  /** Whether the next frame might not fit. The caller then seals the epoch and, if it stays so after the barrier, stops. */
  get full(): boolean {
    const { idsMax, diskIdsMax } = this.#bounds
    const more = this.#frameEventsMax
    return (
      this.#store.held + more > idsMax ||
      this.#ids + this.#voids + more > idsMax + diskIdsMax ||
      this.#number - this.#memoryFrom > RING_MAX
    )
  }

  /**
   * Writes one ShardVerdict per event into verdicts[0, frame.events), and keeps the first of every identity. Call it in log
   * order, and never while `full`.
   *
   * Usage: unknown id → accepted; known with the same content → duplicate; with another content → conflict.
   * Void: known id, same content, not voided → accepted; voided already → duplicate; unknown or another content → conflict.
   *
   * `seriesKeys`: the content keys of the frame's series (identity.ts), 16 bytes each, when they are known; they are right or verdicts
   * are wrong. Without them they are made.
   */
  judge(frame: Frame, verdicts: Uint8Array, seriesKeys: Uint8Array | null = null): void {
    const n = frame.events
    assert(this.#restoring === null, 'dedupe judges before it is restored')
    assert(!this.full, 'dedupe is full')
    assert(n <= this.#frameEventsMax && n <= verdicts.length, `a frame of ${n} events`)
    if (this.#generations === null) this.#begin(frame.receivedAt)
    const forgotten = this.#forgottenTime ?? Number.NEGATIVE_INFINITY
    const { accepted, voided, behind, lastTime } = this.#store.judge(
      frame,
      verdicts,
      this.#byte,
      forgotten,
      this.#runs,
      seriesKeys,
    )
    this.#ids += accepted
    this.#voids += voided
    this.#idCount += accepted
    this.#voidCount += voided
    this.#behindWindow += behind
    if (lastTime > this.#lastEventTime) this.#lastEventTime = lastTime
  }

  /** The epoch's key block, in a buffer of its own, or null when the epoch added nothing. Once per epoch, before barrier(). */
  takeBlock(epoch: number): Uint8Array | null {
    assert(epoch > this.#epoch, `the block of epoch ${epoch} after epoch ${this.#epoch}`)
    const { keys, voids } = this.#store.entries()
    if (keys.length === 0 && voids.length === 0) return null
    const block = encodeKeyBlock({ stream: this.#stream, epoch, generation: this.#number }, keys, voids)
    this.#store.clear()
    return block
  }

  /**
   * Ends an epoch; call it for every epoch, also for one that added nothing. The files of `dropped` generations may be
   * deleted once the checkpoint with this state is committed, not before.
   */
  barrier(barrier: EpochBarrier): { state: DedupeState; dropped: number[] } {
    assert(barrier.epoch > this.#epoch, `the barrier of epoch ${barrier.epoch} after epoch ${this.#epoch}`)
    const { keys, voids } = this.#store.entries()
    assert(keys.length === 0 && voids.length === 0, 'a barrier before the block was taken')
    if (this.#generations === null) this.#begin(barrier.receivedAt)
    const generations = this.#generations!
    const current = {
      ...generations.at(-1)!,
      lastEventTime: this.#lastEventTime,
      entries: this.#idCount,
      voids: this.#voidCount,
    }
    const { state, dropped } = crossBarrier(
      {
        generations: [...generations.slice(0, -1), current],
        announcedFloor: this.#announcedFloor,
        windowFrom: this.#windowFrom,
        forgottenTime: this.#forgottenTime,
      },
      barrier,
      this.#bounds,
    )
    for (const dead of generations.filter(({ number }) => dropped.includes(number))) {
      this.#ids -= dead.entries
      this.#voids -= dead.voids
      this.#leaveMemory(dead.number)
      this.#runs.dropThrough(dead.number)
    }
    const number = state.generations.at(-1)!.number
    if (number !== this.#number) this.#store.open(byteOf(number))
    this.#adopt(state)
    return { state, dropped }
  }

  /**
   * Takes the place of the Dedupe that ended with this state. `blocks` are those of its generations up to state.epoch, in the
   * order in which they were taken. Throws «FATAL:» when they are not exactly what the state counts. Only before any other call.
   */
  restore(state: DedupeState, blocks: Iterable<Uint8Array>): void {
    this.beginRestore(state)
    for (const block of blocks) this.restoreBlock(block)
    this.endRestore()
  }

  /** restore() in steps, for blocks that arrive one by one. */
  beginRestore(state: DedupeState): void {
    assert(this.#epoch === -1 && this.#generations === null && this.#restoring === null, 'dedupe is restored too late')
    this.#restoring = { state, found: new Map() }
    this.#memoryFrom = firstOf(state.generations[0]!)
  }

  restoreBlock(bytes: Uint8Array): void {
    this.beginBlock(bytes)
    while (!this.takeSlice());
  }

  /** restoreBlock() in steps, so that nobody waits for long: then takeSlice() until it answers true. */
  beginBlock(bytes: Uint8Array): void {
    assert(this.#restoring !== null, 'a key block outside of a restore')
    assert(this.#taking === null, 'a key block before the last one was taken in')
    const { state } = this.#restoring
    const block = decodeKeyBlock(bytes)
    if (block === null || block.stream !== this.#stream || block.epoch > state.epoch) {
      throw new Error(`FATAL: a key block that does not belong to stream ${this.#stream} up to epoch ${state.epoch}`)
    }
    const { generation, epoch, keyWords, voidWords } = block
    if (generation < this.#memoryFrom || !this.#tally(generation, generation, block.keys, block.voids)) {
      throw new Error(
        `FATAL: the key block of epoch ${epoch} is of generation ${generation}, which the state does not have`,
      )
    }
    const { idsMax } = this.#bounds
    if (this.#store.held === 0) this.#store.reserve(this.#heldFrom(state, this.#memoryFrom))
    if (this.#store.held + block.keys + block.voids > idsMax) {
      throw new Error(
        `cannot hold the ids of stream ${this.#stream} in memory: room for ${idsMax} is less than there was, raise RELEVE_DEDUPE_IDS`,
      )
    }
    this.#taking = { epoch, byte: byteOf(generation), keyWords, voidWords }
  }

  /** Takes in some of the ids of the block; true when it is in. */
  takeSlice(): boolean {
    assert(this.#taking !== null, 'a slice of no key block')
    const { epoch, byte, keyWords, voidWords } = this.#taking
    const isTouched = this.#store.held > this.#store.capacity / UNTOUCHED_SHARE
    const words = ENTRY_WORDS * (isTouched ? limits.restoreSliceIds : limits.restoreFirstSliceIds)
    const keys = keyWords.subarray(0, words)
    if (this.#store.addKeys(keys, byte) !== keys.length / ENTRY_WORDS) {
      throw new Error(`FATAL: the key block of epoch ${epoch} holds an id twice or was given twice`)
    }
    const voids = voidWords.subarray(0, words - keys.length)
    this.#store.addVoids(voids, byte)
    const rest = { keyWords: keyWords.subarray(keys.length), voidWords: voidWords.subarray(voids.length) }
    const isIn = rest.keyWords.length + rest.voidWords.length === 0
    this.#taking = isIn ? null : { epoch, byte, ...rest }
    return isIn
  }

  /** Entries of the generations from this one on. */
  #heldFrom(state: DedupeState, number: number): number {
    const generations = state.generations.filter((one) => one.number >= number)
    return generations.reduce((sum, { entries, voids }) => sum + entries + voids, 0)
  }

  /** Counts what a restore brings for the generation of the state that reaches from first to last; false when there is none. */
  #tally(first: number, last: number, ids: number, voids: number): boolean {
    const { state, found } = this.#restoring!
    const of = state.generations.find((one) => firstOf(one) <= first && last <= one.number)
    if (of === undefined) return false
    const sum = found.get(of.number) ?? { ids: 0, voids: 0 }
    found.set(of.number, { ids: sum.ids + ids, voids: sum.voids + voids })
    return true
  }

  endRestore(): void {
    assert(this.#restoring !== null && this.#taking === null, 'the end of a restore that did not begin or is not done')
    const { state, found } = this.#restoring
    for (const { number, entries, voids } of state.generations) {
      const there = found.get(number) ?? { ids: 0, voids: 0 }
      if (there.ids !== entries || there.voids !== voids) {
        throw new Error(
          `FATAL: generation ${number} of stream ${this.#stream} has ${there.ids} ids and ${there.voids} voids instead of ` +
            `${entries} and ${voids}`,
        )
      }
      this.#ids += entries
      this.#voids += voids
    }
    this.#restoring = null
    this.#adopt(state)
  }

  /**
   * Takes in the run of some generations, the oldest in memory or runs that are in already, which it replaces. One slice of the
   * work at a time, so that nobody waits for long: call it until it answers true. During a restore as well, before the blocks.
   * A run whose generations were forgotten meanwhile is not kept.
   */
  attachRun(path: string): boolean {
    const run = this.#runs.load(path)
    if (run === null) return false
    const { first, last } = run.head
    const generations = this.#restoring?.state.generations ?? this.#generations ?? []
    const of = generations.find((one) => firstOf(one) <= first && last <= one.number)
    if (of === undefined) {
      this.#runs.discard(run)
      return true
    }
    if (this.#restoring !== null) this.#tally(first, last, run.head.ids, run.head.voids)
    assert(first <= this.#memoryFrom, `the run of generations ${first} to ${last} leaves a gap`)
    this.#runs.adopt(run)
    this.#leaveMemory(last)
    return true
  }

  /** Memory forgets generations up to this one. */
  #leaveMemory(last: number): void {
    for (; this.#memoryFrom <= last; this.#memoryFrom += 1) {
      if (this.#restoring === null) this.#store.drop(byteOf(this.#memoryFrom))
    }
  }

  close(): void {
    this.#runs.close()
  }

  /** Whether the plain store works because the kernel's could not be had. */
  get isPlain(): boolean {
    return this.#store instanceof PlainStore
  }

  stats(): DedupeStats {
    return {
      entries: this.#ids,
      memoryEntries: this.#store.held,
      ...this.#runs.stats(),
      capacity: this.#store.capacity,
      bytes: this.#store.bytes,
      generations: this.#generations?.length ?? 0,
      windowFrom: this.#windowFrom,
      announcedFloor: this.#announcedFloor,
      behindWindow: this.#behindWindow,
    }
  }

  #begin(receivedAt: number): void {
    this.#generations = [
      {
        number: this.#number,
        fromReceivedAt: receivedAt,
        toReceivedAt: receivedAt,
        lastEventTime: 0,
        entries: 0,
        voids: 0,
      },
    ]
  }

  #adopt(state: DedupeState): void {
    const current = state.generations.at(-1)!
    this.#epoch = state.epoch
    this.#generations = state.generations
    this.#announcedFloor = state.announcedFloor
    this.#windowFrom = state.windowFrom
    this.#forgottenTime = state.forgottenTime
    this.#number = current.number
    this.#byte = byteOf(current.number)
    this.#lastEventTime = current.lastEventTime
    this.#idCount = current.entries
    this.#voidCount = current.voids
  }
}

/** A Dedupe for one stream. Throws when the bounds contradict each other. */
export function openDedupe(options: DedupeOptions): Dedupe {
  return new Dedupe(options)
}
