/**
 * Archive columns: the rows of a chunk of usage_events, made in the order of the log, sorted as the table is and turned into
 * ClickHouse's Native format. The same rows, the same token: only how they are handed over differs. Works in a thread of its own
 * (archive-pool.ts), since half a million rows take a tenth of a second.
 *
 * Measured, ClickHouse's CPU ns a row of one insert of 500,000: rows in the order of the log 980, sorted 690, columns 690, sorted
 * columns 280; made here for 140.
 *
 * Memory: the rows, 30 bytes for each and the columns of a block, in an instance of the kernel that lives as long as the thread.
 */
import { randomBytes } from 'node:crypto'
import { assert } from '../assert.js'
import { type KernelConstant, type KernelMemory, openKernel } from '../kernel.js'

interface Exports {
  readonly memory: KernelMemory
  readonly ARCHIVE_COLUMNS: KernelConstant
  readonly ARCHIVE_ROWS: KernelConstant
  archiveLayOut(seed: bigint, bytes: number, rows: number): void
  archiveSort(): number
  archiveBlock(first: number, rowsMax: number, bytesMax: number): number
}

export interface ArchiveRows {
  readonly rows: number
  /** RowBinary of usage_events. */
  readonly pieces: readonly Uint8Array[]
}

/** As in sql/clickhouse, in that order; text for `metric`, which ClickHouse takes for its dictionary. */
const COLUMNS = [
  ['tenant', 'String'],
  ['source', 'String'],
  ['id', 'String'],
  ['metric', 'String'],
  ['metric_version', 'UInt32'],
  ['subject', 'String'],
  ['event_time', "DateTime64(3, 'UTC')"],
  ['value', 'Decimal(38, 9)'],
  ['dims', 'String'],
  ['member', 'String'],
  ['kind', 'Int8'],
  ['received_at', "DateTime64(3, 'UTC')"],
  ['position', 'UInt64'],
  ['stream', 'UInt16'],
  ['epoch', 'UInt64'],
  ['chunk', 'UInt16'],
] as const

const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)])
const text = (value: string): Buffer => Buffer.concat([Buffer.from(varint(value.length)), Buffer.from(value)])
const HEADS = COLUMNS.map(([name, type]) => Buffer.concat([text(name), text(type)]))

const BLOCK_ROWS = 65_536
const BLOCK_BYTES = 8 * 1024 * 1024

let kernel: Exports | null | undefined

/**
 * Blocks of the Native format, or null when the kernel was not built. The rows are read and sorted at once, each block is made when it
 * is asked for; so all are taken before the next chunk comes.
 */
export function archiveColumns({ rows, pieces }: ArchiveRows): Iterable<Uint8Array> | null {
  kernel ??= openKernel<Exports>()
  if (kernel === null) return null
  const at = kernel.ARCHIVE_ROWS.value
  let length = 0
  for (const piece of pieces) length += piece.length
  kernel.archiveLayOut(randomBytes(8).readBigInt64LE(), length, rows)
  const bytes = new Uint8Array(kernel.memory.buffer)
  let to = at
  for (const piece of pieces) {
    bytes.set(piece, to)
    to += piece.length
  }
  assert(kernel.archiveSort() !== 0, `${length} bytes are not ${rows} rows of the archive`)
  return blocksOf(kernel, rows)
}

function* blocksOf(kernel: Exports, rows: number): Generator<Uint8Array> {
  for (let first = 0; first < rows; ) {
    const count = kernel.archiveBlock(first, BLOCK_ROWS, BLOCK_BYTES)
    const bytes = new Uint8Array(kernel.memory.buffer)
    const places = new Uint32Array(kernel.memory.buffer, kernel.ARCHIVE_COLUMNS.value, 2 * COLUMNS.length)
    const parts: Uint8Array[] = [Buffer.from([...varint(COLUMNS.length), ...varint(count)])]
    HEADS.forEach((head, i) => {
      parts.push(head, bytes.subarray(places[2 * i], places[2 * i + 1]))
    })
    yield joined(parts)
    first += count
  }
}

/** A copy: a socket may still read it while the kernel makes the next one. */
function joined(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const all = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
