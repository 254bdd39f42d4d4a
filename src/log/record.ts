/**
 * The bytes of one record. All numbers are little-endian; a record begins at a multiple of 8, so that a reader may lay typed
 * arrays over the columns of a frame.
 *
 *      0         8          16           24                 32       36     40
 *      | segment | sequence | receivedAt | syncedSequence   | length | crc  | payload … | zeros up to a multiple of 8
 *      | id u64  | u64      | u64 ms     | u64              | u32    | u32  |
 *
 * The magic of a record is the random id of its segment: what an earlier life of a recycled file left behind is not even a
 * candidate, and a payload, whoever wrote it, cannot contain a record, because nobody outside knows the id. The checksum covers
 * header and payload. `syncedSequence` is the last sequence that was known on disk when this record was written: after a crash
 * it tells a torn tail, which may be cut, from damage to something that was acknowledged.
 */
import { crc32 } from 'node:zlib'
import { limits } from '../limits.js'

export const recordHeaderBytes = 40
const crcAt = 36
const HIGH = 2 ** 32

/** The random id of a segment, as bytes for searching and as two words for comparing. */
export interface SegmentId {
  readonly bytes: Buffer
  readonly low: number
  readonly high: number
}

export function segmentIdFrom(bytes: Buffer): SegmentId {
  return { bytes, low: bytes.readUInt32LE(0), high: bytes.readUInt32LE(4) }
}

/** Bytes that a payload of this size takes in a segment, header and padding included. */
export function recordBytes(payloadBytes: number): number {
  return Math.ceil((recordHeaderBytes + payloadBytes) / 8) * 8
}

export function writeU64(target: Buffer, value: number, at: number): void {
  target.writeUInt32LE(value % HIGH, at)
  target.writeUInt32LE(Math.floor(value / HIGH), at + 4)
}

export function readU64(source: Buffer, at: number): number {
  return source.readUInt32LE(at + 4) * HIGH + source.readUInt32LE(at)
}

/** Writes the header of a record at `at`. The numbers are safe integers >= 0 and the payload fits the limit: not checked here. */
export function encodeRecordHeader(
  target: Buffer,
  at: number,
  id: SegmentId,
  sequence: number,
  receivedAt: number,
  syncedSequence: number,
  payload: Uint8Array,
): void {
  target.writeUInt32LE(id.low, at)
  target.writeUInt32LE(id.high, at + 4)
  writeU64(target, sequence, at + 8)
  writeU64(target, receivedAt, at + 16)
  writeU64(target, syncedSequence, at + 24)
  target.writeUInt32LE(payload.byteLength, at + 32)
  target.writeUInt32LE(crc32(payload, crc32(target.subarray(at, at + crcAt))), at + crcAt)
}

export interface DecodedRecord {
  readonly sequence: number
  readonly receivedAt: number
  readonly syncedSequence: number
  /** A view, not a copy. */
  readonly payload: Buffer
  /** Where the next record begins. */
  readonly next: number
}

/**
 * The payload length that stands at `at`, or -1 when no header of this segment begins there. The length is not yet vouched for
 * by the checksum. `at + recordHeaderBytes` must lie within the source.
 */
export function peekLength(source: Buffer, at: number, id: SegmentId): number {
  if (source.readUInt32LE(at) !== id.low || source.readUInt32LE(at + 4) !== id.high) return -1
  const length = source.readUInt32LE(at + 32)
  return length <= limits.recordBytesMax ? length : -1
}

/** The record at `at`, or undefined when there is none that is whole and matches its checksum. */
export function decodeRecord(source: Buffer, at: number, id: SegmentId): DecodedRecord | undefined {
  if (at + recordHeaderBytes > source.length) return undefined
  const length = peekLength(source, at, id)
  if (length < 0 || at + recordHeaderBytes + length > source.length) return undefined
  const payload = source.subarray(at + recordHeaderBytes, at + recordHeaderBytes + length)
  if (crc32(payload, crc32(source.subarray(at, at + crcAt))) !== source.readUInt32LE(at + crcAt)) return undefined
  return {
    sequence: readU64(source, at + 8),
    receivedAt: readU64(source, at + 16),
    syncedSequence: readU64(source, at + 24),
    payload,
    next: at + recordBytes(length),
  }
}
