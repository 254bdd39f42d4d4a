/**
 * The ids of a stream in WASM memory (workers/kernel/dedupe.as.ts): the fast side of IdStore, exact like the plain one. A frame's
 * bytes are copied in once and judged without an object or a string for an event.
 *
 * The memory is laid out for idsMax at once: addresses only, and what no id has touched takes no memory. A key and its slot are
 * 16 bytes, and a table between half and 85 % full, so 19 to 32 bytes an id; 1,024 partitions keep each rebuild short (1 ms with
 * 64 million ids).
 */
import { assert } from '../assert.js'
import type { Frame } from '../frame.js'
import { growTo, type KernelConstant, type KernelMemory, openKernel } from '../kernel.js'
import type { FrameCounts, IdStore } from './id-store.js'
import { purposeKey } from './identity.js'
import { blockEntriesMax, ENTRY_WORDS } from './key-block.js'

interface Exports {
  readonly memory: KernelMemory
  readonly DEDUPE_FIXED_BYTES: KernelConstant
  readonly DEDUPE_KEYS: KernelConstant
  readonly DEDUPE_PARTITIONS_MAX: KernelConstant
  dedupeLayOut(
    keys: number,
    voids: number,
    partitions: number,
    count: number,
    slots: number,
    atBound: number,
    most: number,
  ): void
  dedupeJudge(at: number, length: number, verdicts: number, generation: number, forgotten: number): number
  dedupeAccepted(): number
  dedupeVoided(): number
  dedupeBehind(): number
  dedupeLastTime(): number
  dedupeAdd(key: number, generation: number): number
  dedupeVoid(key: number): number
  dedupeCount(generation: number): number
  dedupeDrop(generation: number): number
  dedupeIsDead(generation: number): number
  dedupeSweep(partitions: number): void
  dedupeCapacity(): number
  dedupeKeys(): number
  dedupeVoids(): number
  dedupeClear(): void
}

const SLOT_BYTES = 16
const ENTRY_BYTES = 16
const PARTITION_IDS_MIN = 4_096
const SLOTS_MIN = 256
const SLACK = 64
/** As in table.ts: five percent for the unevenness of the partitions at a load of 0.85; then room that no hash can need. */
const UNEVENNESS = 1.05
const LOAD_MAX = 0.85
const STRIDE = 1.3
/** Addresses of the kernel are 32 bits; a frame of the largest size must find room behind the table. */
const BYTES_MAX = 2 ** 32 - 2 ** 27

const pad = (bytes: number, to = 8): number => Math.ceil(bytes / to) * to

export class KernelStore implements IdStore {
  readonly #kernel: Exports
  readonly #keysAt: number
  readonly #voidsAt: number
  readonly #frameAt: number
  readonly #partitions: number
  #bytes: Uint8Array

  /** Throws when there is no memory for so many ids. */
  constructor(kernel: Exports, secret: Uint8Array, idsMax: number) {
    this.#kernel = kernel
    let partitions = 1
    while (partitions < kernel.DEDUPE_PARTITIONS_MAX.value && idsMax >= 2 * partitions * PARTITION_IDS_MIN)
      partitions *= 2
    const atBound = Math.max(SLOTS_MIN, Math.ceil((UNEVENNESS * idsMax) / partitions / LOAD_MAX))
    // At least one growth above the smallest partition.
    const most = Math.max(2 * SLOTS_MIN, Math.ceil(STRIDE * atBound))
    const entries = blockEntriesMax * ENTRY_BYTES
    this.#keysAt = pad(kernel.DEDUPE_FIXED_BYTES.value, 64)
    this.#voidsAt = pad(this.#keysAt + entries)
    const table = pad(this.#voidsAt + entries, 64)
    const end = table + (partitions + 1) * most * SLOT_BYTES
    if (end > BYTES_MAX) throw new Error(`cannot hold ${idsMax} ids in one kernel`)
    this.#frameAt = end
    this.#partitions = partitions
    growTo(kernel.memory, end)
    this.#bytes = new Uint8Array(kernel.memory.buffer)
    kernel.dedupeLayOut(this.#keysAt, this.#voidsAt, table, partitions, SLOTS_MIN, atBound, most)
    const keys = kernel.DEDUPE_KEYS.value
    for (const [i, purpose] of (['identity', 'content'] as const).entries()) {
      this.#bytes.set(new Uint8Array(purposeKey(secret, purpose).buffer), keys + 16 * i)
    }
  }

  get capacity(): number {
    return this.#kernel.dedupeCapacity()
  }

  get bytes(): number {
    return SLOT_BYTES * this.capacity
  }

  judge(frame: Frame, verdicts: Uint8Array, generation: number, forgottenTime: number): FrameCounts {
    const kernel = this.#kernel
    kernel.dedupeSweep(1)
    const { bytes, events } = frame
    assert(kernel.dedupeKeys() + events <= blockEntriesMax, 'an epoch was not sealed at its bound')
    assert(kernel.dedupeVoids() + events <= blockEntriesMax, 'an epoch was not sealed at its bound')
    const at = this.#frameAt
    const verdictsAt = at + pad(bytes.length + SLACK)
    if (growTo(kernel.memory, verdictsAt + events)) this.#bytes = new Uint8Array(kernel.memory.buffer)
    this.#bytes.set(bytes, at)
    const isFrame = kernel.dedupeJudge(at, bytes.length, verdictsAt, generation, forgottenTime) !== 0
    assert(isFrame, 'the tables of a frame have another length')
    verdicts.set(this.#bytes.subarray(verdictsAt, verdictsAt + events))
    return {
      accepted: kernel.dedupeAccepted(),
      voided: kernel.dedupeVoided(),
      behind: kernel.dedupeBehind(),
      lastTime: kernel.dedupeLastTime(),
    }
  }

  add(words: Int32Array, at: number, generation: number): boolean {
    return this.#kernel.dedupeAdd(this.#place(words, at), generation) !== 0
  }

  markVoided(words: Int32Array, at: number): boolean {
    return this.#kernel.dedupeVoid(this.#place(words, at)) !== 0
  }

  count(generation: number): number {
    return this.#kernel.dedupeCount(generation)
  }

  drop(generation: number): void {
    assert(generation > 0 && this.#kernel.dedupeDrop(generation) !== 0, `generation ${generation} cannot be dropped`)
  }

  open(generation: number): void {
    if (this.#kernel.dedupeIsDead(generation) !== 0) this.#kernel.dedupeSweep(this.#partitions)
    assert(this.count(generation) === 0, `generation ${generation} is still in the table`)
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

  /** An entry where the kernel can read it: the place of frames is free between two of them. */
  #place(words: Int32Array, at: number): number {
    if (growTo(this.#kernel.memory, this.#frameAt + ENTRY_BYTES))
      this.#bytes = new Uint8Array(this.#kernel.memory.buffer)
    new Int32Array(this.#bytes.buffer, this.#frameAt, ENTRY_WORDS).set(words.subarray(at, at + ENTRY_WORDS))
    return this.#frameAt
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
