/**
 * The open epoch in WASM memory (workers/kernel/epoch.as.ts): the fast side of Epoch, byte for byte like the plain one. A frame is
 * copied in once; series, rows and RowBinary are made there without an object for an event, and chunks are copied out.
 *
 * Memory: about 24 MiB of addresses for the largest frame and 11 MiB of slots, touched as they are used, and blocks of 1 MiB for
 * rows, which are used again by the next epochs. limits.epochSeriesMax and epochBytesMax bound them.
 *
 * Rows of the archive are most of an epoch's bytes, and leave in blocks of shared memory: the archive's thread reads them where they
 * lie, the main thread only knows of them, and they come back when the rows have landed. As many are kept as the last epoch took.
 */
import { createHash, randomBytes } from 'node:crypto'
import type { Override } from '../aggregate/aggregate.js'
import { assert } from '../assert.js'
import type { Frame } from '../frame.js'
import { growTo, type KernelConstant, type KernelMemory, openKernel } from '../kernel.js'
import { limits } from '../limits.js'
import { MINUTE_MS, type Period } from '../period.js'
import type { Chunk, ChunkTable } from './chunks.js'
import type { DrainedEpoch, Epoch, FrameBooks } from './epoch.js'
import { Rejects } from './rejects.js'

interface Exports {
  readonly memory: KernelMemory
  readonly EPOCH_BLOCKS: KernelConstant
  readonly EPOCH_CONTENT_KEY: KernelConstant
  readonly EPOCH_FRAME: KernelConstant
  readonly EPOCH_FRAME_BYTES: KernelConstant
  readonly EPOCH_MEMBER_KEY: KernelConstant
  readonly EPOCH_ROWS_MAX: KernelConstant
  readonly EPOCH_SERIES_KEYS: KernelConstant
  readonly EPOCH_SERIES_MAX: KernelConstant
  epochLayOut(seed: bigint, stream: number, rowsMax: number): void
  epochOpen(epoch: number): void
  epochPrepare(length: number): number
  epochFrameSeries(): number
  epochApply(verdicts: number, sequence: number): void
  epochSeries(): number
  epochMinutes(): number
  epochMembers(): number
  epochLeastMinute(): number
  epochMostMinute(): number
  epochAccepted(): number
  epochDuplicates(): number
  epochVoids(): number
  epochArchived(): number
  epochFirstBlock(table: number): number
  epochChunk(table: number): number
  epochChunkRows(table: number): number
  epochBytes(table: number): number
  epochRows(table: number): number
  epochFreeBlock(table: number): void
  epochEncode(): void
  epochFirstOverride(): number
  epochNextOverride(row: number): number
  epochNames(row: number): number
  epochMinute(row: number): number
  epochClear(): void
}

/** Of the largest epoch, and one that is not full. */
const BLOCKS_KEPT_MAX = limits.epochBytesMax / limits.archiveBlockBytes + 1
const SLACK = 64
const BLOCK_HEAD = 16
/** Writers of the kernel, by number. */
const TABLES = ['usage_events', 'usage_minute', 'usage_members'] as const satisfies ChunkTable[]
const EVENTS = 0
const MINUTES = 1
const MEMBERS = 2

/** Chunks of one table as they leave the kernel, block by block. */
class Taking {
  readonly table: number
  readonly chunks: Chunk[] = []
  #pieces: Uint8Array[] = []
  #hash = createHash('sha256')

  constructor(table: number) {
    this.table = table
  }

  /** `bytes` are the kernel's: `copy` of them is kept. */
  add(bytes: Uint8Array, copy: Uint8Array): void {
    this.#hash.update(bytes)
    this.#pieces.push(copy)
  }

  close(rows: number): void {
    const [table, digest] = [TABLES[this.table]!, this.#hash.digest('hex')]
    this.chunks.push({ table, chunk: this.chunks.length, rows, pieces: this.#pieces, digest })
    this.#pieces = []
    this.#hash = createHash('sha256')
  }
}

/** Purpose keys (dedupe/identity.ts), 16 bytes each. */
export interface EpochKeys {
  readonly member: Uint8Array
  readonly content: Uint8Array
}

const spanOf = (least: number, most: number): Period => ({ from: least * MINUTE_MS, to: (most + 1) * MINUTE_MS })

export class KernelEpoch implements Epoch {
  readonly #kernel: Exports
  readonly #stream: number
  readonly #rowsMax: number
  readonly #rejects: Rejects
  #events = new Taking(EVENTS)
  #epoch = -1
  #bytes: Uint8Array
  /** Shared blocks that nobody reads. */
  #free: SharedArrayBuffer[] = []
  /** Shared blocks that the open epoch has taken. */
  #taken = 0

  /** Whose tables the kernel has read. */
  #prepared: Frame | null = null

  constructor(kernel: Exports, stream: number, keys: EpochKeys, rowsMax: number) {
    this.#kernel = kernel
    this.#stream = stream
    this.#rowsMax = rowsMax
    this.#rejects = new Rejects(rowsMax)
    for (const key of [keys.member, keys.content]) assert(key.length === 16, `a key of ${key.length} bytes`)
    growTo(kernel.memory, kernel.EPOCH_BLOCKS.value)
    this.#bytes = new Uint8Array(kernel.memory.buffer)
    kernel.epochLayOut(randomBytes(8).readBigInt64LE(), stream, rowsMax)
    this.#bytes.set(keys.member, kernel.EPOCH_MEMBER_KEY.value)
    this.#bytes.set(keys.content, kernel.EPOCH_CONTENT_KEY.value)
  }

  get seriesTouched(): number {
    return this.#kernel.epochSeries()
  }

  get bytes(): number {
    return this.#kernel.epochBytes(EVENTS) + this.#rejects.bytes
  }

  open(epoch: number): void {
    assert(this.#kernel.epochRows(EVENTS) + this.#rejects.rows === 0, `epoch ${epoch} opens with rows of another`)
    this.#epoch = epoch
    this.#kernel.epochOpen(epoch)
  }

  seriesKeys(frame: Frame): Uint8Array {
    this.#prepare(frame)
    const at = this.#kernel.EPOCH_SERIES_KEYS.value
    return this.#bytes.subarray(at, at + 16 * this.#kernel.epochFrameSeries())
  }

  #prepare(frame: Frame): void {
    const { bytes } = frame
    const at = this.#kernel.EPOCH_FRAME.value
    assert(
      bytes.length + SLACK + frame.events <= this.#kernel.EPOCH_FRAME_BYTES.value,
      `a frame of ${bytes.length} bytes`,
    )
    this.#refresh()
    this.#bytes.set(bytes, at)
    assert(this.#kernel.epochPrepare(bytes.length) !== 0, 'the tables of a frame have another length')
    this.#prepared = frame
  }

  apply(frame: Frame, sequence: number, verdicts: Uint8Array): FrameBooks {
    const { events, bytes } = frame
    const kernel = this.#kernel
    assert(verdicts.length === events, `${verdicts.length} verdicts for ${events} events`)
    assert(this.#epoch >= 0, 'a frame reached the epoch outside of one')
    const verdictsAt = kernel.EPOCH_FRAME.value + bytes.length + SLACK
    assert(kernel.epochSeries() + events <= kernel.EPOCH_SERIES_MAX.value, 'an epoch was not sealed at its series')
    assert(kernel.epochMinutes() + events <= kernel.EPOCH_ROWS_MAX.value, 'an epoch was not sealed at its rows')
    assert(kernel.epochMembers() + events <= kernel.EPOCH_ROWS_MAX.value, 'an epoch was not sealed at its members')
    if (this.#prepared !== frame) this.#prepare(frame)
    this.#prepared = null
    this.#bytes.set(verdicts, verdictsAt)
    kernel.epochApply(verdictsAt, sequence)
    this.#refresh()
    const accepted = kernel.epochAccepted()
    const duplicate = kernel.epochDuplicates()
    const conflict = events - accepted - duplicate
    if (conflict > 0 || frame.refusals > 0) {
      this.#rejects.apply({ stream: this.#stream, epoch: this.#epoch }, frame, sequence, verdicts)
    }
    // As they fill up, so that copy and digest of all of them are not one long pause at the seal.
    this.#takeBlocks(this.#events, true)
    return { accepted, duplicate, conflict, voids: kernel.epochVoids(), archived: kernel.epochArchived() }
  }

  drain(): DrainedEpoch {
    const kernel = this.#kernel
    kernel.epochEncode()
    this.#refresh()
    const minutes = this.#takeAll(new Taking(MINUTES))
    const members = this.#takeAll(new Taking(MEMBERS))
    const events = this.#takeAll(this.#events)
    const overrides = this.#overrides()
    const isEmpty = kernel.epochMinutes() === 0
    const windows = isEmpty ? null : spanOf(kernel.epochLeastMinute(), kernel.epochMostMinute())
    this.#events = new Taking(EVENTS)
    this.#epoch = -1
    this.#prepared = null
    kernel.epochClear()
    this.#free.length = Math.min(this.#free.length, this.#taken)
    this.#taken = 0
    return { chunks: [...minutes, ...members, ...events, ...this.#rejects.drain()], overrides, windows }
  }

  #takeAll(taking: Taking): Chunk[] {
    const rows = this.#kernel.epochRows(taking.table)
    if (rows === 0) return []
    this.#takeBlocks(taking, false)
    taking.close(rows - taking.chunks.length * this.#rowsMax)
    return taking.chunks
  }

  /** Copies blocks out and gives them back; `onlyFull`: those to which no row will be added. */
  #takeBlocks(taking: Taking, onlyFull: boolean): void {
    const kernel = this.#kernel
    const view = new DataView(this.#bytes.buffer)
    const { table } = taking
    for (let block = kernel.epochFirstBlock(table); block !== 0; block = kernel.epochFirstBlock(table)) {
      if (onlyFull && view.getUint32(block, true) === 0) return
      if (view.getUint32(block + 8, true) !== taking.chunks.length) taking.close(this.#rowsMax)
      const bytes = this.#bytes.subarray(block + BLOCK_HEAD, view.getUint32(block + 4, true))
      taking.add(bytes, table === EVENTS ? this.#shared(bytes) : bytes.slice())
      kernel.epochFreeBlock(table)
    }
  }

  #shared(bytes: Uint8Array): Uint8Array {
    const copy = new Uint8Array(this.#free.pop() ?? new SharedArrayBuffer(limits.archiveBlockBytes), 0, bytes.length)
    copy.set(bytes)
    this.#taken += 1
    return copy
  }

  giveBack(blocks: readonly SharedArrayBuffer[]): void {
    for (const block of blocks) if (this.#free.length < BLOCKS_KEPT_MAX) this.#free.push(block)
  }

  #overrides(): Override[] {
    const kernel = this.#kernel
    const overrides: Override[] = []
    for (let row = kernel.epochFirstOverride(); row !== 0; row = kernel.epochNextOverride(row)) {
      let at = kernel.epochNames(row)
      const text = (): string => {
        let length = 0
        for (let shift = 0; ; shift += 7, at += 1) {
          const byte = this.#bytes[at]!
          length |= (byte & 0x7f) << shift
          if (byte < 0x80) break
        }
        at += 1 + length
        return Buffer.from(this.#bytes.buffer, at - length, length).toString()
      }
      const series = { tenant: text(), metric: text(), subject: text(), dims: text() }
      overrides.push({ series, window: kernel.epochMinute(row) * MINUTE_MS })
    }
    return overrides
  }

  /** The kernel takes memory for its blocks itself. */
  #refresh(): void {
    if (this.#bytes.buffer !== this.#kernel.memory.buffer) this.#bytes = new Uint8Array(this.#kernel.memory.buffer)
  }
}

/** A KernelEpoch, or null when the kernel was not built. */
export function openKernelEpoch(
  stream: number,
  keys: EpochKeys,
  rowsMax: number = limits.chunkRowsMax,
): KernelEpoch | null {
  const kernel = openKernel<Exports>()
  return kernel === null ? null : new KernelEpoch(kernel, stream, keys, rowsMax)
}
