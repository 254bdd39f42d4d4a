/**
 * Chunks: what one epoch inserts into one table, cut into fixed pieces of limits.chunkRowsMax rows. A chunk's number, rows and
 * bytes depend on the epoch's rows and their order alone, so after a crash the same chunk is made again and its insert token
 * (stream/epoch/table/chunk) lets ClickHouse drop the double. The columns stream, epoch and chunk close every row.
 *
 * It encodes; it does not send.
 */
import { createHash } from 'node:crypto'
import type { MemberRow, MinuteRow } from '../aggregate/row.js'
import { limits } from '../limits.js'
import { RowBinary } from './row-binary.js'

export const ChunkTable = ['usage_minute', 'usage_members', 'usage_events', 'ingest_rejects'] as const
export type ChunkTable = (typeof ChunkTable)[number]

export interface Chunk {
  readonly table: ChunkTable
  /** From 0 within its table and epoch. */
  readonly chunk: number
  readonly rows: number
  /**
   * RowBinary in the column order of sql/clickhouse, in pieces. Each fills its ArrayBuffer, so it can be transferred, or lies at the
   * front of a shared one of limits.archiveBlockBytes, which the shard wants back (Epoch.giveBack).
   */
  readonly pieces: readonly Uint8Array[]
  /** SHA-256 of the bytes, hex. */
  readonly digest: string
}

/** Whose rows they are. */
export interface EpochId {
  /** Below 65,536. */
  readonly stream: number
  readonly epoch: number
}

/** Takes rows of one table, one after the other, and cuts them into chunks. */
export class ChunkWriter {
  readonly #table: ChunkTable
  readonly #rowsMax: number
  readonly #row = new RowBinary()
  #rows = 0
  #chunks: Chunk[] = []
  #sealedRows = 0
  #sealedBytes = 0

  constructor(table: ChunkTable, rowsMax: number = limits.chunkRowsMax) {
    this.#table = table
    this.#rowsMax = rowsMax
  }

  /** Rows since the last `drain`. */
  get rows(): number {
    return this.#sealedRows + this.#rows
  }

  /** Bytes since the last `drain`. */
  get bytes(): number {
    return this.#sealedBytes + this.#row.length
  }

  /** The writer for the next row. The caller writes every column but the last three and then calls `end`. */
  begin(): RowBinary {
    if (this.#rows === this.#rowsMax) this.#seal()
    return this.#row
  }

  end({ stream, epoch }: EpochId): void {
    const row = this.#row
    row.u16(stream)
    row.i64(epoch)
    row.u16(this.#chunks.length)
    this.#rows += 1
  }

  /** All chunks, and an empty writer. No rows, no chunks. */
  drain(): Chunk[] {
    if (this.#rows > 0) this.#seal()
    const chunks = this.#chunks
    this.#chunks = []
    this.#sealedRows = 0
    this.#sealedBytes = 0
    return chunks
  }

  #seal(): void {
    const bytes = this.#row.take()
    const digest = createHash('sha256').update(bytes).digest('hex')
    this.#chunks.push({ table: this.#table, chunk: this.#chunks.length, rows: this.#rows, pieces: [bytes], digest })
    this.#sealedRows += this.#rows
    this.#sealedBytes += bytes.length
    this.#rows = 0
  }
}

/** Rows of usage_minute. Recomputed rows (override 1) go behind the others, in the order of the epoch's overrides. */
export function encodeMinutes(rows: readonly MinuteRow[], id: EpochId, rowsMax?: number): Chunk[] {
  const chunks = new ChunkWriter('usage_minute', rowsMax)
  for (const minute of rows) {
    const { series } = minute
    const row = chunks.begin()
    row.string(series.tenant)
    row.string(series.metric)
    row.string(series.subject)
    row.string(series.dims)
    row.seconds(minute.window)
    row.decimal(minute.sum)
    row.i64(minute.count)
    row.i64(minute.samples)
    row.decimal(minute.min)
    row.decimal(minute.max)
    row.decimal(minute.last)
    row.i64(minute.lastTime)
    row.i64(minute.lastPosition)
    row.decimal(minute.sumVt)
    row.u8(minute.override)
    chunks.end(id)
  }
  return chunks.drain()
}

/** Rows of usage_members. */
export function encodeMembers(rows: readonly MemberRow[], id: EpochId, rowsMax?: number): Chunk[] {
  const chunks = new ChunkWriter('usage_members', rowsMax)
  for (const { series, member, bucket, n } of rows) {
    const row = chunks.begin()
    row.string(series.tenant)
    row.string(series.metric)
    row.string(series.subject)
    row.string(series.dims)
    row.latin1(member)
    row.seconds(bucket)
    row.i64(n)
    chunks.end(id)
  }
  return chunks.drain()
}
