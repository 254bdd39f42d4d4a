/**
 * Dedupe: the same event twice counts once. One instance per stream, inside the shard's thread; synchronous, no clock, no I/O.
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
import { crossBarrier, type DedupeState, type Generation } from './generations.js'
import { type IdStore, PlainStore } from './id-store.js'
import { openKernelStore } from './kernel-store.js'
import { decodeKeyBlock, ENTRY_WORDS, encodeKeyBlock } from './key-block.js'

export interface DedupeOptions {
  readonly stream: number
  /** 16 bytes, created once for the whole installation and never changed: the key files depend on it. */
  readonly secret: Uint8Array
  /** Ids held at most. @default limits.dedupeIdsMax */
  readonly idsMax?: number
  /** Length of a generation by receivedAt, milliseconds. @default limits.generationMs */
  readonly generationMs?: number
  /** F, the door's bound on eventTime − receivedAt, milliseconds. @default limits.aheadMs */
  readonly aheadMs?: number
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

export interface DedupeStats {
  /** Ids held. */
  readonly entries: number
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

/** A generation's byte in the table: a ring, 0 stands for an empty slot. */
const byteOf = (generation: number): number => (generation % 255) + 1

export class Dedupe {
  readonly #stream: number
  readonly #bounds: { idsMax: number; generationMs: number; aheadMs: number }
  readonly #frameEventsMax: number
  readonly #store: IdStore
  /** Of the last barrier; −1 before the first one. */
  #epoch = -1
  /** As they were at the last barrier, the current one last; null before the first frame. */
  #generations: readonly Generation[] | null = null
  #announcedFloor: number | null = null
  #windowFrom: number | null = null
  #forgottenTime: number | null = null
  /** The current generation, and what it holds by now. Its ids are counted in the table. */
  #number = 1
  #byte = byteOf(1)
  #lastEventTime = 0
  #voidCount = 0
  /** Ids of all generations. */
  #entries = 0
  #behindWindow = 0
  /** Between beginRestore() and endRestore(): the state to reach, and the voids that came per generation. */
  #restoring: { readonly state: DedupeState; readonly voids: Map<number, number> } | null = null

  constructor(options: DedupeOptions) {
    this.#stream = options.stream
    this.#frameEventsMax = options.frameEventsMax ?? limits.batchEventsMax
    this.#bounds = {
      idsMax: options.idsMax ?? limits.dedupeIdsMax,
      generationMs: options.generationMs ?? limits.generationMs,
      aheadMs: options.aheadMs ?? limits.aheadMs,
    }
    const { idsMax } = this.#bounds
    if (idsMax < 16 * this.#frameEventsMax) {
      throw new Error(`cannot work with room for ${idsMax} ids: 16 frames of ${this.#frameEventsMax} events must fit`)
    }
    const { secret, plain = false } = options
    this.#store = (plain ? null : openKernelStore(secret, idsMax)) ?? new PlainStore(secret, idsMax)
  }

  /** Whether the next frame might not fit. The caller then seals the epoch and, if it stays so after the barrier, stops. */
  get full(): boolean {
    return this.#entries + this.#frameEventsMax > this.#bounds.idsMax
  }

  /**
   * Writes one ShardVerdict per event into verdicts[0, frame.events), and keeps the first of every identity. Call it in log
   * order, and never while `full`.
   *
   * Usage: unknown id → accepted; known with the same content → duplicate; with another content → conflict.
   * Void: known id, same content, not voided → accepted; voided already → duplicate; unknown or another content → conflict.
   */
  judge(frame: Frame, verdicts: Uint8Array): void {
    const n = frame.events
    assert(this.#restoring === null, 'dedupe judges before it is restored')
    assert(!this.full, 'dedupe is full')
    assert(n <= this.#frameEventsMax && n <= verdicts.length, `a frame of ${n} events`)
    if (this.#generations === null) this.#begin(frame.receivedAt)
    const forgotten = this.#forgottenTime ?? Number.NEGATIVE_INFINITY
    const { accepted, voided, behind, lastTime } = this.#store.judge(frame, verdicts, this.#byte, forgotten)
    this.#entries += accepted
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
      entries: this.#store.count(this.#byte),
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
    for (const number of dropped) {
      this.#entries -= this.#store.count(byteOf(number))
      this.#store.drop(byteOf(number))
    }
    const number = state.generations.at(-1)!.number
    if (number !== this.#number) this.#store.open(byteOf(number))
    this.#adopt(state)
    return { state, dropped }
  }

  /**
   * Takes the place of the run that ended with this state. `blocks` are those of its generations up to state.epoch, in the
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
    this.#restoring = { state, voids: new Map() }
  }

  restoreBlock(bytes: Uint8Array): void {
    assert(this.#restoring !== null, 'a key block outside of a restore')
    const { state, voids } = this.#restoring
    const block = decodeKeyBlock(bytes)
    if (block === null || block.stream !== this.#stream || block.epoch > state.epoch) {
      throw new Error(`FATAL: a key block that does not belong to stream ${this.#stream} up to epoch ${state.epoch}`)
    }
    const { generation, epoch, keyWords, voidWords } = block
    if (!state.generations.some(({ number }) => number === generation)) {
      throw new Error(
        `FATAL: the key block of epoch ${epoch} is of generation ${generation}, which the state does not have`,
      )
    }
    for (let at = 0; at < keyWords.length; at += ENTRY_WORDS) {
      if (!this.#store.add(keyWords, at, byteOf(generation))) {
        throw new Error(`FATAL: the key block of epoch ${epoch} holds an id twice or was given twice`)
      }
      this.#entries += 1
    }
    // An id that is not found was voided in its time and has gone with its generation since.
    for (let at = 0; at < voidWords.length; at += ENTRY_WORDS) this.#store.markVoided(voidWords, at)
    voids.set(generation, (voids.get(generation) ?? 0) + block.voids)
  }

  endRestore(): void {
    assert(this.#restoring !== null, 'the end of a restore that did not begin')
    const { state, voids } = this.#restoring
    for (const generation of state.generations) {
      const { number } = generation
      const [foundKeys, foundVoids] = [this.#store.count(byteOf(number)), voids.get(number) ?? 0]
      if (foundKeys !== generation.entries || foundVoids !== generation.voids) {
        throw new Error(
          `FATAL: generation ${number} of stream ${this.#stream} has ${foundKeys} ids and ${foundVoids} voids instead of ` +
            `${generation.entries} and ${generation.voids}`,
        )
      }
    }
    this.#restoring = null
    this.#adopt(state)
  }

  /** Whether the plain store works because the kernel's could not be had. */
  get isPlain(): boolean {
    return this.#store instanceof PlainStore
  }

  stats(): DedupeStats {
    return {
      entries: this.#entries,
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
    this.#voidCount = current.voids
  }
}

/** A Dedupe for one stream. Throws when the bounds contradict each other. */
export function openDedupe(options: DedupeOptions): Dedupe {
  return new Dedupe(options)
}
