/**
 * The ids of a stream in WASM memory (workers/kernel/dedupe.as.ts): the fast side of IdStore, exact like the plain one. A frame's
 * bytes are copied in once and judged without an object or a string for an event.
 *
 * The memory is laid out for idsMax at once: addresses only, and what no id has touched takes no memory. An entry is 16 bytes, and
 * a table between 81 and 93 % full, so 17.2 to 20 bytes an id, 18.4 on average since partitions grow at different times; 17.5
 * at the bound. 1,024 partitions keep each rebuild short (1 ms with 100 million ids).
 */
import { assert } from '../assert.js'
import type { Frame } from '../frame.js'
import { growTo, type KernelConstant, type KernelMemory, openKernel } from '../kernel.js'
import type { FrameCounts, IdRuns, IdStore } from './id-store.js'
import { purposeKey } from './identity.js'
import { blockEntriesMax, ENTRY_WORDS } from './key-block.js'

interface Exports {
  readonly memory: KernelMemory
  readonly DEDUPE_FIXED_BYTES: KernelConstant
  readonly DEDUPE_KEYS: KernelConstant
  readonly DEDUPE_KNOWN: KernelConstant
  readonly DEDUPE_KNOWN_TAGS: KernelConstant
  readonly DEDUPE_PARTITIONS: KernelConstant
  readonly DEDUPE_PENDING: KernelConstant
  readonly DEDUPE_PENDING_OF: KernelConstant
  readonly DEDUPE_PIECE_GROUPS: KernelConstant
  readonly DEDUPE_SERIES_KEYS: KernelConstant
  dedupeLayOut(keys: number, voids: number, partitions: number, atBound: number, most: number): void
  dedupeReserve(entries: number): void
  dedupeHash(at: number, length: number, given: number): number
  dedupeFind(): number
  dedupeJudge(verdicts: number, generation: number, forgotten: number, hasRuns: number): void
  dedupeAccepted(): number
  dedupeVoided(): number
  dedupeBehind(): number
  dedupeLastTime(): number
  dedupeAddAll(at: number, count: number, generation: number): number
  dedupeAddVoids(at: number, count: number, generation: number): void
  dedupeCount(generation: number): number
  dedupeDrop(generation: number): number
  dedupeIsDead(generation: number): number
  dedupeSweep(partitions: number): void
  dedupeCapacity(): number
  dedupeHeld(): number
  dedupeKeys(): number
  dedupeVoids(): number
  dedupeClear(): void
}

const GROUP_BYTES = 256
const PAGE_BYTES = 4_096
const KEY_BYTES = 16
const GROUP_SLOTS = 16
const ENTRY_BYTES = 4 * ENTRY_WORDS
const SLACK = 64
/** As in the kernel. */
const LOAD_MAX = 0.93
/** Addresses beyond what the bound needs; the hash spreads the ids so that none is ever reached. */
const STRIDE = 1.25
/** Addresses of the kernel are 32 bits; a frame of the largest size must find room behind the table. */
const BYTES_MAX = 2 ** 32 - 2 ** 27
/** A partition is swept after so many events, so that single events do not pay for it each time. */
const SWEEP_EVENTS = 2_000

const pad = (bytes: number, to = 8): number => Math.ceil(bytes / to) * to

export class KernelStore implements IdStore {
  readonly #kernel: Exports
  readonly #keysAt: number
  readonly #voidsAt: number
  readonly #frameAt: number
  #sweepIn = SWEEP_EVENTS
  #bytes: Uint8Array
  #known = new Uint8Array(0)
  #knownTags = new Int32Array(0)

  /** Throws when there is no memory for so many ids. */
  constructor(kernel: Exports, secret: Uint8Array, idsMax: number) {
    this.#kernel = kernel
    const partitions = kernel.DEDUPE_PARTITIONS.value
    const mean = idsMax / partitions
    // Six standard deviations, and a little for the smallest.
    const atBound = Math.ceil((mean + 6 * Math.sqrt(mean) + GROUP_SLOTS) / LOAD_MAX / GROUP_SLOTS)
    const most = pad(Math.ceil(STRIDE * atBound) + 2, kernel.DEDUPE_PIECE_GROUPS.value)
    const entries = blockEntriesMax * ENTRY_BYTES
    this.#keysAt = pad(kernel.DEDUPE_FIXED_BYTES.value, 64)
    this.#voidsAt = pad(this.#keysAt + entries)
    const table = pad(this.#voidsAt + entries, PAGE_BYTES)
    const end = pad(table + (partitions + 1) * most * GROUP_BYTES + most, 64)
    if (end > BYTES_MAX) throw new Error(`cannot hold ${idsMax} ids in one kernel`)
    this.#frameAt = end
    growTo(kernel.memory, end)
    this.#bytes = new Uint8Array(kernel.memory.buffer)
    kernel.dedupeLayOut(this.#keysAt, this.#voidsAt, table, atBound, most)
    const keys = kernel.DEDUPE_KEYS.value
    for (const [i, purpose] of (['identity', 'content'] as const).entries()) {
      this.#bytes.set(new Uint8Array(purposeKey(secret, purpose).buffer), keys + 16 * i)
    }
  }

  get capacity(): number {
    return this.#kernel.dedupeCapacity()
  }

  get bytes(): number {
    return (GROUP_BYTES / GROUP_SLOTS) * this.capacity
  }

  get held(): number {
    return this.#kernel.dedupeHeld()
  }

  judge(
    frame: Frame,
    verdicts: Uint8Array,
    generation: number,
    forgottenTime: number,
    runs: IdRuns,
    seriesKeys: Uint8Array | null,
  ): FrameCounts {
    const kernel = this.#kernel
    const { bytes, events } = frame
    this.#sweepIn -= events
    if (this.#sweepIn <= 0) {
      kernel.dedupeSweep(Math.ceil((1 - this.#sweepIn) / SWEEP_EVENTS))
      this.#sweepIn = SWEEP_EVENTS
    }
    assert(kernel.dedupeKeys() + events <= blockEntriesMax, 'an epoch was not sealed at its bound')
    assert(kernel.dedupeVoids() + events <= blockEntriesMax, 'an epoch was not sealed at its bound')
    const at = this.#frameAt
    const verdictsAt = at + pad(bytes.length + SLACK)
    this.#reach(verdictsAt + events)
    this.#bytes.set(bytes, at)
    const given = (seriesKeys?.length ?? 0) / KEY_BYTES
    if (seriesKeys !== null) this.#bytes.set(seriesKeys, kernel.DEDUPE_SERIES_KEYS.value)
    assert(kernel.dedupeHash(at, bytes.length, given) !== 0, 'the tables of a frame have another length')
    if (runs.length > 0) this.#askRuns(runs)
    kernel.dedupeJudge(verdictsAt, generation, forgottenTime, runs.length > 0 ? 1 : 0)
    verdicts.set(this.#bytes.subarray(verdictsAt, verdictsAt + events))
    return {
      accepted: kernel.dedupeAccepted(),
      voided: kernel.dedupeVoided(),
      behind: kernel.dedupeBehind(),
      lastTime: kernel.dedupeLastTime(),
    }
  }

  /** What memory does not know is looked for on disk, before the frame is judged. */
  #askRuns(runs: IdRuns): void {
    const kernel = this.#kernel
    const count = kernel.dedupeFind()
    if (count === 0) return
    if (this.#known.length < count) {
      this.#known = new Uint8Array(count)
      this.#knownTags = new Int32Array(count)
    }
    const { buffer } = this.#bytes
    runs.find(
      new Int32Array(buffer, kernel.DEDUPE_PENDING.value, ENTRY_WORDS * count),
      count,
      this.#known,
      this.#knownTags,
    )
    const of = new Uint32Array(buffer, kernel.DEDUPE_PENDING_OF.value, count)
    const tags = new Int32Array(buffer, kernel.DEDUPE_KNOWN_TAGS.value)
    for (let i = 0; i < count; i += 1) {
      if (this.#known[i] === 0) continue
      this.#bytes[kernel.DEDUPE_KNOWN.value + of[i]!] = this.#known[i]!
      tags[of[i]!] = this.#knownTags[i]!
    }
  }

  reserve(entries: number): void {
    const mean = entries / this.#kernel.DEDUPE_PARTITIONS.value
    this.#kernel.dedupeReserve(Math.ceil(mean + 3 * Math.sqrt(mean)))
  }

  addKeys(words: Int32Array, generation: number): number {
    return this.#kernel.dedupeAddAll(this.#place(words), words.length / ENTRY_WORDS, generation)
  }

  addVoids(words: Int32Array, generation: number): void {
    this.#kernel.dedupeAddVoids(this.#place(words), words.length / ENTRY_WORDS, generation)
  }

  drop(generation: number): void {
    assert(generation > 0 && this.#kernel.dedupeDrop(generation) !== 0, `generation ${generation} cannot be dropped`)
  }

  open(generation: number): void {
    if (this.#kernel.dedupeIsDead(generation) !== 0) this.#kernel.dedupeSweep(this.#kernel.DEDUPE_PARTITIONS.value)
    assert(this.#kernel.dedupeCount(generation) === 0, `generation ${generation} is still in the table`)
  }

  entries(): { keys: Int32Array; voids: Int32Array } {
    const kernel = this.#kernel
    const { buffer } = this.#bytes
    return {
      keys: new Int32Array(buffer, this.#keysAt, ENTRY_WORDS * kernel.dedupeKeys()),
      voids: new Int32Array(buffer, this.#voidsAt, ENTRY_WORDS * kernel.dedupeVoids()),
    }
  }

  clear(): void {
    this.#kernel.dedupeClear()
  }

  /** Entries where the kernel can read them: the place of frames is free between two of them. */
  #place(words: Int32Array): number {
    this.#reach(this.#frameAt + words.byteLength)
    new Int32Array(this.#bytes.buffer, this.#frameAt, words.length).set(words)
    return this.#frameAt
  }

  #reach(end: number): void {
    if (growTo(this.#kernel.memory, end)) this.#bytes = new Uint8Array(this.#kernel.memory.buffer)
  }
}

/** A KernelStore, or null when the kernel was not built or cannot have the memory for so many ids. */
export function openKernelStore(secret: Uint8Array, idsMax: number): KernelStore | null {
  const kernel = openKernel<Exports>()
  if (kernel === null) return null
  try {
    return new KernelStore(kernel, secret, idsMax)
  } catch (error) {
    if (error instanceof RangeError || (error as Error).message.startsWith('cannot hold')) return null
    throw error
  }
}
