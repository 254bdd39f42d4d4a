/**
 * One segment: a preallocated file of records, named by its first sequence.
 *
 *      0        64              4096     4160
 *      | header | zeros …       | header | record | record | … | zeros or leftovers of an earlier life |
 *
 * The header stands twice, in two pages, because without the segment's id none of its records can be told from noise:
 *
 *      0          8            16       20        24      32              40           48      60
 *      | RLVLOG1\n | segment id | stream | version | first | previousFirst | receivedAt | zeros | crc |
 *
 * `previousFirst` names the segment before this one (0: none), so that a missing file is noticed at opening; `receivedAt` is
 * the highest one before this segment. A file gets its .log name only after its headers are on disk and everything before
 * `first` is synced: the mere existence of segment F says that F − 1 is on disk. A segment ends where the next one begins:
 * records behind that are leftovers of a crash, and are not read.
 *
 * Scanning knows only bytes: it finds the runs of valid records and says nothing about what a gap between them means.
 */
import { randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { type Disk, errnoOf, type LogFile } from './disk.js'
import {
  type DecodedRecord,
  decodeRecord,
  peekLength,
  readU64,
  recordBytes,
  recordHeaderBytes,
  type SegmentId,
  segmentIdFrom,
  writeU64,
} from './record.js'

const magic = Buffer.from('RLVLOG1\n', 'latin1')
const version = 1
const headerBytes = 64
const copyAt = 4096
/** Where the first record begins. */
export const dataStart = copyAt + headerBytes

/** A remembered position every so many bytes: a read that begins anywhere walks at most this far. */
const markBytes = 64 * 1024
const windowBytes = 4 * 1024 * 1024
const pageBytes = 4096
const zeros = Buffer.alloc(1024 * 1024)

export interface SegmentHeader {
  readonly id: SegmentId
  readonly stream: number
  readonly first: number
  readonly previousFirst: number
  readonly receivedAt: number
}

/** Records that follow each other without a gap, in sequence and in bytes. */
export interface Run {
  first: number
  last: number
  offset: number
  end: number
  /** Ascending; the first one is the run's beginning. */
  readonly markSequences: number[]
  readonly markOffsets: number[]
}

export interface Scan {
  readonly runs: Run[]
  /** The highest syncedSequence of any valid record; first − 1 when there is none. */
  readonly syncedSequence: number
  /** The highest receivedAt of any valid record; 0 when there is none. */
  readonly receivedAt: number
}

/** A segment as a stream holds it in memory. */
export interface Segment {
  readonly first: number
  readonly path: string
  /** Undefined when both copies are damaged: then no record of it can be read. */
  readonly header: SegmentHeader | undefined
  /** Disk that the file takes. */
  fileBytes: number
  /** Undefined until a read needs them; then the valid records, in order. */
  runs: Run[] | undefined
  /** Reads going on; the file is closed, and may be used again, only at 0. */
  readers: number
  file: Promise<LogFile> | undefined
}

export function segmentName(first: number): string {
  return `${String(first).padStart(16, '0')}.log`
}

/** The first sequence that a file name states, or undefined for any other file. */
export function parseSegmentName(name: string): number | undefined {
  return /^\d{16}\.log$/.test(name) ? Number(name.slice(0, 16)) : undefined
}

export function newSegmentId(): SegmentId {
  return segmentIdFrom(randomBytes(8))
}

function encodeHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(headerBytes)
  magic.copy(bytes, 0)
  header.id.bytes.copy(bytes, 8)
  bytes.writeUInt32LE(header.stream, 16)
  bytes.writeUInt32LE(version, 20)
  writeU64(bytes, header.first, 24)
  writeU64(bytes, header.previousFirst, 32)
  writeU64(bytes, header.receivedAt, 40)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 60)), 60)
  return bytes
}

/** Writes both copies of the header. Not synced. */
export async function writeHeader(file: LogFile, header: SegmentHeader): Promise<void> {
  const bytes = encodeHeader(header)
  await file.writev([bytes, zeros.subarray(0, copyAt - headerBytes), bytes], 0)
}

/** The header of a segment file, from whichever copy is whole, or undefined when both are damaged or are of another segment. */
export async function readHeader(file: LogFile, stream: number, first: number): Promise<SegmentHeader | undefined> {
  const bytes = await readPages(file, 0, dataStart)
  for (const at of [0, copyAt]) {
    const copy = bytes.subarray(at, at + headerBytes)
    if (copy.length < headerBytes || !copy.subarray(0, 8).equals(magic)) continue
    if (crc32(copy.subarray(0, 60)) !== copy.readUInt32LE(60)) continue
    if (copy.readUInt32LE(20) !== version) {
      throw new Error(`cannot read a log segment of version ${copy.readUInt32LE(20)}: this release reads ${version}`)
    }
    if (copy.readUInt32LE(16) !== stream || readU64(copy, 24) !== first) continue
    return {
      id: segmentIdFrom(Buffer.from(copy.subarray(8, 16))),
      stream,
      first,
      previousFirst: readU64(copy, 32),
      receivedAt: readU64(copy, 40),
    }
  }
  return undefined
}

/**
 * Makes `file` at least `bytes` long with zeros on disk, so that a later data sync has no block to allocate and no size to
 * write. In pieces, because appends of the same disk go on meanwhile. Stops early when `stopped` says so.
 */
export async function preallocate(file: LogFile, from: number, bytes: number, stopped: () => boolean): Promise<void> {
  for (let at = from; at < bytes && !stopped(); at += zeros.length) {
    await file.writev([zeros.subarray(0, Math.min(zeros.length, bytes - at))], at)
  }
  await file.sync()
}

export function newRun(first: number, offset: number): Run {
  return { first, last: first - 1, offset, end: offset, markSequences: [], markOffsets: [] }
}

/** Adds one record, which begins where the run ends. */
export function extendRun(run: Run, end: number): void {
  const last = run.markOffsets.at(-1)
  if (last === undefined || run.end - last >= markBytes) {
    run.markSequences.push(run.last + 1)
    run.markOffsets.push(run.end)
  }
  run.last += 1
  run.end = end
}

/**
 * Finds every valid record of a segment up to sequence `through`, resuming after damaged bytes at the next place where id,
 * checksum and sequence agree. Reads the file once, in windows.
 */
export async function scanSegment(file: LogFile, header: SegmentHeader, through: number, bytes: number): Promise<Scan> {
  const runs: Run[] = []
  const window = new Window(file, header.id, bytes)
  let syncedSequence = header.first - 1
  let receivedAt = 0
  let expected = header.first
  let run: Run | undefined
  let position = dataStart
  while (true) {
    const record = await window.record(position)
    if (record === undefined || record.sequence < expected) {
      run = undefined
      position = await window.find(position + 8)
      if (position < 0) break
      continue
    }
    if (record.sequence > through) break
    if (run === undefined || record.sequence !== expected) {
      run = newRun(record.sequence, position)
      runs.push(run)
    }
    position += recordBytes(record.payload.length)
    extendRun(run, position)
    expected = record.sequence + 1
    syncedSequence = Math.max(syncedSequence, record.syncedSequence)
    receivedAt = Math.max(receivedAt, record.receivedAt)
  }
  return { runs, syncedSequence, receivedAt }
}

/** What is missing between the runs of a segment that must hold [first, through]. */
export function gapsOf(runs: readonly Run[], first: number, through: number): { from: number; to: number }[] {
  const gaps: { from: number; to: number }[] = []
  let expected = first
  for (const run of runs) {
    if (run.first > expected) gaps.push({ from: expected, to: run.first - 1 })
    expected = run.last + 1
  }
  if (expected <= through) gaps.push({ from: expected, to: through })
  return gaps
}

/** A moving piece of a file, large enough for whatever record is looked at. */
class Window {
  readonly #file: LogFile
  readonly #id: SegmentId
  readonly #bytes: number
  #buffer: Buffer = Buffer.alloc(0)
  #base = 0

  constructor(file: LogFile, id: SegmentId, bytes: number) {
    this.#file = file
    this.#id = id
    this.#bytes = bytes
  }

  async record(position: number): Promise<DecodedRecord | undefined> {
    if (position + recordHeaderBytes > this.#bytes) return undefined
    await this.#hold(position, recordHeaderBytes)
    if (position - this.#base + recordHeaderBytes > this.#buffer.length) return undefined
    const length = peekLength(this.#buffer, position - this.#base, this.#id)
    if (length < 0 || position + recordHeaderBytes + length > this.#bytes) return undefined
    await this.#hold(position, recordHeaderBytes + length)
    return decodeRecord(this.#buffer, position - this.#base, this.#id)
  }

  /** The next place at or after `position` where the id stands at a multiple of 8, or -1. */
  async find(position: number): Promise<number> {
    let from = position
    while (from + recordHeaderBytes <= this.#bytes) {
      await this.#hold(from, this.#id.bytes.length)
      const index = this.#buffer.indexOf(this.#id.bytes, from - this.#base)
      if (index >= 0) {
        const found = this.#base + index
        if (found % 8 === 0) return found
        from = found + 1
        continue
      }
      const next = this.#base + this.#buffer.length - (this.#id.bytes.length - 1)
      if (next <= from) break
      from = next
    }
    return -1
  }

  async #hold(position: number, bytes: number): Promise<void> {
    if (position >= this.#base && position + bytes <= this.#base + this.#buffer.length) return
    this.#base = position
    this.#buffer = await readPages(this.#file, position, Math.min(Math.max(bytes, windowBytes), this.#bytes - position))
  }
}

/** Reads as far as the file reaches; a page that the disk cannot give back reads as zeros, which no checksum accepts. */
async function readPages(file: LogFile, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(bytes)
  try {
    return buffer.subarray(0, await file.read(buffer, position))
  } catch (error) {
    if (errnoOf(error) !== 'EIO') throw error
  }
  let at = 0
  while (at < bytes) {
    const piece = buffer.subarray(at, Math.min(bytes, at + pageBytes - ((position + at) % pageBytes)))
    try {
      const read = await file.read(piece, position + at)
      if (read < piece.length) return buffer.subarray(0, at + read)
    } catch (error) {
      if (errnoOf(error) !== 'EIO') throw error
      piece.fill(0)
    }
    at += piece.length
  }
  return buffer
}

export interface RunRecord {
  readonly sequence: number
  readonly receivedAt: number
  readonly payload: Buffer
}

/**
 * Records of a run from `from` on, in one read, until about `bytesMax` and at least one; they are views over one buffer, each
 * beginning at a multiple of 8. Undefined when the bytes are not those that were scanned or written: the segment is damaged.
 */
export async function readRun(
  file: LogFile,
  id: SegmentId,
  run: Run,
  from: number,
  through: number,
  bytesMax: number,
): Promise<RunRecord[] | undefined> {
  const mark = floorIndex(run.markSequences, from)
  const offset = run.markOffsets[mark]!
  let sequence = run.markSequences[mark]!
  let bytes = Math.min(run.end - offset, bytesMax + (sequence === from ? 0 : markBytes))
  bytes = Math.max(bytes, Math.min(run.end - offset, recordHeaderBytes))
  let buffer = await readOrNothing(file, offset, bytes)
  const records: RunRecord[] = []
  let at = 0
  let taken = 0
  while (sequence <= through && taken < bytesMax) {
    if (at + recordHeaderBytes > buffer.length) {
      if (records.length > 0) break
      const more = await grow(at + recordHeaderBytes)
      if (!more) return undefined
    }
    const length = peekLength(buffer, at, id)
    if (length < 0) return undefined
    if (at + recordHeaderBytes + length > buffer.length) {
      if (records.length > 0) break
      const more = await grow(at + recordHeaderBytes + length)
      if (!more) return undefined
    }
    const record = decodeRecord(buffer, at, id)
    if (record === undefined || record.sequence !== sequence) return undefined
    if (sequence >= from) {
      records.push({ sequence, receivedAt: record.receivedAt, payload: record.payload })
      taken += record.next - at
    }
    at = record.next
    sequence += 1
  }
  return records

  // Only for the first record wanted: a record larger than bytesMax is read on its own.
  async function grow(needed: number): Promise<boolean> {
    if (offset + needed > run.end) return false
    buffer = await readOrNothing(file, offset, needed)
    return buffer.length === needed
  }
}

async function readOrNothing(file: LogFile, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(bytes)
  try {
    return buffer.subarray(0, await file.read(buffer, position))
  } catch (error) {
    if (errnoOf(error) === 'EIO') return buffer.subarray(0, 0)
    throw error
  }
}

/** Index of the last element <= value; the first element must be. */
export function floorIndex(ascending: readonly number[], value: number): number {
  let low = 0
  let high = ascending.length - 1
  while (low < high) {
    const middle = (low + high + 1) >>> 1
    if (ascending[middle]! <= value) low = middle
    else high = middle - 1
  }
  return low
}

/** Opens a file for as long as `use` takes. */
export async function withFile<Result>(
  disk: Disk,
  path: string,
  use: (file: LogFile) => Promise<Result>,
): Promise<Result> {
  const file = await disk.open(path, 'read')
  try {
    return await use(file)
  } finally {
    await file.close()
  }
}
