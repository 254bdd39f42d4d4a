/**
 * The open epoch in WASM: accepted events into minute rows, member rows and archive rows, and all of them as RowBinary. The twin
 * of src/aggregate/aggregate.ts, src/rollup/archive.ts and chunks.ts: same rows in the same order, same chunks, same bytes.
 * src/rollup/kernel-epoch.ts calls it; refusals and conflicts, which are rare, are encoded there.
 *
 * Memory, from the bottom:
 *
 *      MEMBER_KEY, CONTENT_KEY   the purpose keys «member» and «content»
 *      POWERS       10^0 .. 10^9
 *      WRITERS      three: archive, minutes, members
 *      SCRATCH      names of one series as the host reads them; the hash of a member
 *      METRIC_AT, ORIGIN_AT, SERIES_AT   where each row of the frame's tables begins, u32
 *      METRIC_HASH  of the frame's metrics, u64
 *      SERIES_HASH, SERIES_LENGTH   of the frame's series: hash, and bytes behind the number of its metric, u32
 *      SERIES_KEYS  content keys of the frame's series, 16 bytes each
 *      SERIES_OF    the epoch's series of each series of the frame; 0 when it has none before the first accepted event
 *      slots        of series, minute rows and member rows: u32 address, u32 hash; 0 is empty
 *      FRAME        the frame, SLACK, its verdicts; limits.recordBytesMax bounds it
 *      blocks       1 MiB each, chained; taken from a free list or from the end of memory
 *
 * A block: u32 next, u32 end of what was written, u32 chunk, u32 0; then its bytes. Records and rows never cross a block. Chains
 * of series, minute rows and member rows live until the epoch is drained; output is freed when the host has copied it.
 *
 * 128-bit numbers are two words, low first; bounds are those of row.ts, far below 2^127.
 *
 * Most of the time is waiting for memory, so that is asked for ahead: for the slots of all series of a frame, then for the series,
 * then for the rows of a few events at a time, each in a loop of its own whose loads do not wait for each other. Slots begin small
 * and grow, so that those in use lie together.
 */
import { copy, equal, hashBytes, hashEnd, hashStart, SLACK, setSeed } from './bytes.as'
import { contentHead, contentKey } from './content.as'
import * as frame from './frame.as'
import { sip } from './sip.as'

const MEMBER_KEY: usize = 1_024
const CONTENT_KEY: usize = 1_040
const POWERS: usize = 1_088
const WRITERS: usize = 1_280
const WRITER_BYTES: usize = 64
const SCRATCH: usize = 4_096
const SCRATCH_BYTES: usize = 5 * 65_536
const METRIC_AT: usize = SCRATCH + SCRATCH_BYTES
const ORIGIN_AT: usize = METRIC_AT + 4 * (frame.FRAME_EVENTS_MAX as usize)
const SERIES_AT: usize = ORIGIN_AT + 4 * (frame.FRAME_EVENTS_MAX as usize)
const METRIC_HASH: usize = SERIES_AT + 4 * (frame.FRAME_EVENTS_MAX as usize)
const SERIES_HASH: usize = METRIC_HASH + 8 * (frame.FRAME_EVENTS_MAX as usize)
const SERIES_LENGTH: usize = SERIES_HASH + 4 * (frame.FRAME_EVENTS_MAX as usize)
const SERIES_KEYS: usize = SERIES_LENGTH + 4 * (frame.FRAME_EVENTS_MAX as usize)
const SERIES_OF: usize = SERIES_KEYS + 16 * (frame.FRAME_EVENTS_MAX as usize)
const SLOTS_LEAST: u32 = 1 << 12
const SERIES_SLOTS_MOST: u32 = 1 << 19
const ROW_SLOTS_MOST: u32 = 1 << 20
const SERIES_SLOTS: usize = SERIES_OF + 4 * (frame.FRAME_EVENTS_MAX as usize)
const ROW_SLOTS: usize = SERIES_SLOTS + 8 * (SERIES_SLOTS_MOST as usize)
const MEMBER_SLOTS: usize = ROW_SLOTS + 8 * (ROW_SLOTS_MOST as usize)
const FRAME: usize = MEMBER_SLOTS + 8 * (ROW_SLOTS_MOST as usize)
const FRAME_BYTES: usize = 26 << 20
const BLOCKS: usize = FRAME + FRAME_BYTES

export const EPOCH_MEMBER_KEY: usize = MEMBER_KEY
export const EPOCH_CONTENT_KEY: usize = CONTENT_KEY
export const EPOCH_SERIES_KEYS: usize = SERIES_KEYS
export const EPOCH_FRAME: usize = FRAME
export const EPOCH_FRAME_BYTES: usize = FRAME_BYTES
export const EPOCH_BLOCKS: usize = BLOCKS
/** Half of the slots: the host seals before there are more. */
export const EPOCH_SERIES_MAX: u32 = SERIES_SLOTS_MOST / 2
export const EPOCH_ROWS_MAX: u32 = ROW_SLOTS_MOST / 2 + ROW_SLOTS_MOST / 8

const BLOCK_BYTES: usize = 1 << 20
const BLOCK_HEAD: usize = 16

// A writer: its blocks, its place, and what it has written.
const W_FIRST: usize = 0
const W_LAST: usize = 4
const W_AT: usize = 8
const W_END: usize = 12
const W_ROWS: usize = 16
const W_CHUNK: usize = 20
const W_BYTES: usize = 24
const W_TOTAL: usize = 32
const ARCHIVE: usize = WRITERS
const MINUTES: usize = WRITERS + WRITER_BYTES
const MEMBERS: usize = WRITERS + 2 * WRITER_BYTES

// A series: u32 bytes of its metric, u32 hash, i64 minute of its last row, u32 last row, u32 bytes as in the frame, u32 next, u32 1
// when the member key of its tenant is there, 16 bytes member key, 16 bytes content key, u32 the version of the metric that this one is of, u32 0; then the metric, and the
// rest as it stands in the frame.
const S_METRIC_LENGTH: usize = 0
const S_HASH: usize = 4
const S_MINUTE: usize = 8
const S_ROW: usize = 16
const S_LENGTH: usize = 20
const S_NEXT: usize = 24
const S_HAS_KEY: usize = 28
const S_KEY: usize = 32
const S_CONTENT: usize = 48
const S_VERSION: usize = 64
const SERIES_HEAD: usize = 72
// A minute row: u32 hash, u32 series, i64 minute, i64 count, i64 samples, i64 lastTime, i64 lastPosition, then five 128-bit
// numbers, then u32 next, u32 1 when it must be recomputed, u32 the next one of those.
const R_MINUTE: usize = 8
const R_COUNT: usize = 16
const R_SAMPLES: usize = 24
const R_LAST_TIME: usize = 32
const R_LAST_POSITION: usize = 40
const R_SUM: usize = 48
const R_MIN: usize = 64
const R_MAX: usize = 80
const R_LAST: usize = 96
const R_SUM_VT: usize = 112
const R_NEXT: usize = 128
const R_OVERRIDE: usize = 132
const R_NEXT_OVERRIDE: usize = 136
const ROW_BYTES: usize = 144
// A member row: 16 bytes hash, u32 hash of it all, u32 series, i64 bucket, i64 n, u32 next.
const MEMBER_BYTES: usize = 48

const ACCEPTED: u32 = 0
const DUPLICATE: u32 = 1
const UNIQUE: u32 = 2
const MAX: u32 = 3
const LATEST: u32 = 5

/** Events whose rows are touched before they are counted. */
const AHEAD: usize = 64

let touched: u64 = 0
let seriesMask: u32 = SLOTS_LEAST - 1
let rowMask: u32 = SLOTS_LEAST - 1
let memberMask: u32 = SLOTS_LEAST - 1

let stream: u32 = 0
let epoch: i64 = 0
let rowsMax: u32 = 0
let freeBlocks: usize = 0
let blocksEnd: usize = BLOCKS

// Arenas: the block in use and the chain of all.
let seriesBlocks: usize = 0
let seriesAt: usize = 0
let seriesLimit: usize = 0
let rowBlocks: usize = 0
let rowAt: usize = 0
let rowLimit: usize = 0
let memberBlocks: usize = 0
let memberAt: usize = 0
let memberLimit: usize = 0

let seriesCount: u32 = 0
let firstSeries: usize = 0
let lastSeries: usize = 0
let rowCount: u32 = 0
let firstRow: usize = 0
let lastRow: usize = 0
let leastMinute: i64 = i64.MAX_VALUE
let mostMinute: i64 = i64.MIN_VALUE
let memberCount: u32 = 0
let firstMember: usize = 0
let lastMember: usize = 0
let firstOverride: usize = 0
let lastOverride: usize = 0

// Of the last frame.
let accepted: u32 = 0
let duplicates: u32 = 0
let voids: u32 = 0
let archived: u32 = 0

// Second results of 128-bit arithmetic.
let low: u64 = 0
let high: i64 = 0

/** Before anything else. */
export function epochLayOut(hashSeed: u64, streamNumber: u32, chunkRowsMax: u32): void {
  setSeed(hashSeed)
  stream = streamNumber
  rowsMax = chunkRowsMax
  let power: i64 = 1
  for (let i: usize = 0; i < 10; i += 1) {
    store<i64>(POWERS + (i << 3), power)
    power *= 10
  }
}

/** Read by nobody: without a reader the compiler would leave out the loads that touch the memory ahead. */
export function epochTouched(): u64 {
  return touched
}

/** Rows from now on carry this epoch. */
export function epochOpen(number: f64): void {
  epoch = number as i64
}

export function epochSeries(): u32 {
  return seriesCount
}

export function epochMinutes(): u32 {
  return rowCount
}

export function epochMembers(): u32 {
  return memberCount
}

/** Earliest and latest minute of the minute rows; they say nothing when there are none. */
export function epochLeastMinute(): f64 {
  return leastMinute as f64
}

export function epochMostMinute(): f64 {
  return mostMinute as f64
}

export function epochAccepted(): u32 {
  return accepted
}

export function epochDuplicates(): u32 {
  return duplicates
}

export function epochVoids(): u32 {
  return voids
}

export function epochArchived(): u32 {
  return archived
}

function takeBlock(): usize {
  if (freeBlocks !== 0) {
    const block = freeBlocks
    freeBlocks = load<u32>(block) as usize
    store<u32>(block, 0)
    return block
  }
  const block = blocksEnd
  blocksEnd += BLOCK_BYTES
  const missing = (((blocksEnd + SLACK + 65_535) >> 16) as i32) - memory.size()
  if (missing > 0 && memory.grow(missing) < 0) unreachable()
  store<u32>(block, 0)
  return block
}

function freeBlock(block: usize): void {
  store<u32>(block, freeBlocks as u32)
  freeBlocks = block
}

function freeChain(block: usize): void {
  while (block !== 0) {
    const next = load<u32>(block) as usize
    freeBlock(block)
    block = next
  }
}

// Arithmetic.

/** value × 10^(9 − scale) into high:low. */
function scaleUp(value: i64, factor: i64): void {
  const upper = (value >> 32) * factor
  const lower = ((value & 0xffff_ffff) * factor) as u64
  low = ((upper as u64) << 32) + lower
  high = (upper >> 32) + ((low < lower ? 1 : 0) as i64)
}

function addTo(at: usize, l: u64, h: i64): void {
  const sum = load<u64>(at) + l
  store<u64>(at, sum)
  store<i64>(at, load<i64>(at, 8) + h + ((sum < l ? 1 : 0) as i64), 8)
}

function takeFrom(at: usize, l: u64, h: i64): void {
  const before = load<u64>(at)
  store<u64>(at, before - l)
  store<i64>(at, load<i64>(at, 8) - h - ((before < l ? 1 : 0) as i64), 8)
}

function set(at: usize, l: u64, h: i64): void {
  store<u64>(at, l)
  store<i64>(at, h, 8)
}

/** Whether h:l is below the number at `at`. */
function isBelow(l: u64, h: i64, at: usize): bool {
  const other = load<i64>(at, 8)
  return h < other || (h === other && l < load<u64>(at))
}

function isAbove(l: u64, h: i64, at: usize): bool {
  const other = load<i64>(at, 8)
  return h > other || (h === other && l > load<u64>(at))
}

/** h:l × n, n below 2^16, into high:low. */
function times(l: u64, h: i64, n: u64): void {
  const lower = (l & 0xffff_ffff) * n
  const upper = (l >> 32) * n + (lower >> 32)
  low = (upper << 32) | (lower & 0xffff_ffff)
  high = h * (n as i64) + ((upper >> 32) as i64)
}

// RowBinary.

function varint(at: usize, value: u32): usize {
  while (value > 0x7f) {
    store<u8>(at, (value & 0x7f) | 0x80)
    at += 1
    value >>= 7
  }
  store<u8>(at, value)
  return at + 1
}

function text(at: usize, from: usize, length: u32): usize {
  at = varint(at, length)
  copy(at, from, length as usize)
  return at + (length as usize)
}

/** A String from a text with its length in front. */
function text16(at: usize, from: usize): usize {
  return text(at, from + 2, load<u16>(from))
}

/** The place of the next row, of at most `need` bytes with the last three columns and the slack of copies. */
function beginRow(writer: usize, need: usize): usize {
  let at = load<u32>(writer, W_AT) as usize
  const isFull = load<u32>(writer, W_ROWS) === rowsMax
  if (!isFull && at !== 0 && at + need <= (load<u32>(writer, W_END) as usize)) return at
  if (need > BLOCK_BYTES - BLOCK_HEAD) unreachable()
  if (isFull) {
    store<u32>(writer, load<u32>(writer, W_CHUNK) + 1, W_CHUNK)
    store<u32>(writer, 0, W_ROWS)
  }
  const block = takeBlock()
  const last = load<u32>(writer, W_LAST) as usize
  if (last === 0) store<u32>(writer, block as u32, W_FIRST)
  else store<u32>(last, block as u32)
  store<u32>(block, load<u32>(writer, W_CHUNK), 8)
  store<u32>(writer, block as u32, W_LAST)
  store<u32>(writer, (block + BLOCK_BYTES) as u32, W_END)
  at = block + BLOCK_HEAD
  store<u32>(writer, at as u32, W_AT)
  return at
}

/** Closes a row with stream, epoch and chunk. */
function endRow(writer: usize, at: usize): void {
  store<u16>(at, stream as u16)
  store<i64>(at, epoch, 2)
  store<u16>(at, load<u32>(writer, W_CHUNK) as u16, 10)
  at += 12
  store<u32>(load<u32>(writer, W_LAST) as usize, at as u32, 4)
  store<f64>(writer, load<f64>(writer, W_BYTES) + ((at - (load<u32>(writer, W_AT) as usize)) as f64), W_BYTES)
  store<u32>(writer, at as u32, W_AT)
  store<u32>(writer, load<u32>(writer, W_ROWS) + 1, W_ROWS)
  store<f64>(writer, load<f64>(writer, W_TOTAL) + 1, W_TOTAL)
}

function writerOf(table: u32): usize {
  return WRITERS + (table as usize) * WRITER_BYTES
}

/** The first block that the host has not taken, 0 when there is none. `table`: 0 archive, 1 minutes, 2 members. */
export function epochFirstBlock(table: u32): usize {
  return load<u32>(writerOf(table), W_FIRST) as usize
}

/** The chunk that the next row belongs to, unless it is full. */
export function epochChunk(table: u32): u32 {
  return load<u32>(writerOf(table), W_CHUNK)
}

/** Rows in that chunk. */
export function epochChunkRows(table: u32): u32 {
  return load<u32>(writerOf(table), W_ROWS)
}

/** Bytes and rows since the last drain. */
export function epochBytes(table: u32): f64 {
  return load<f64>(writerOf(table), W_BYTES)
}

export function epochRows(table: u32): f64 {
  return load<f64>(writerOf(table), W_TOTAL)
}

/** Gives back the first block, which the host has copied. */
export function epochFreeBlock(table: u32): void {
  const writer = writerOf(table)
  const block = load<u32>(writer, W_FIRST) as usize
  const next = load<u32>(block)
  store<u32>(writer, next, W_FIRST)
  if (next === 0) {
    store<u32>(writer, 0, W_LAST)
    store<u32>(writer, 0, W_AT)
  }
  freeBlock(block)
}

// The frame's tables.

/** False when a table is not what the head says. */
function index(): bool {
  let p = frame.metricsAt
  for (let i: u32 = 0; i < frame.metricCount; i += 1) {
    if (p + 10 > frame.metricsEnd || !frame.fits16(p + 8, frame.metricsEnd)) return false
    if (load<u8>(p) > 9) return false
    store<u32>(METRIC_AT + ((i as usize) << 2), p as u32)
    const length = load<u16>(p, 8) as usize
    store<u64>(METRIC_HASH + ((i as usize) << 3), hashBytes(hashStart(0, 0), p + 10, length))
    p += 10 + length
  }
  p = frame.originsAt
  for (let i: u32 = 0; i < frame.originCount; i += 1) {
    store<u32>(ORIGIN_AT + ((i as usize) << 2), p as u32)
    for (let j = 0; j < 2; j += 1) {
      if (!frame.fits16(p, frame.originsEnd)) return false
      p += 2 + (load<u16>(p) as usize)
    }
  }
  p = frame.seriesAt
  for (let i: u32 = 0; i < frame.seriesCount; i += 1) {
    store<u32>(SERIES_AT + ((i as usize) << 2), p as u32)
    if (p + 4 > frame.seriesEnd) return false
    const metric = load<u32>(p)
    if (metric >= frame.metricCount) return false
    p += 4
    const from = p
    for (let j = 0; j < 2; j += 1) {
      if (!frame.fits16(p, frame.seriesEnd)) return false
      p += 2 + (load<u16>(p) as usize)
    }
    if (!frame.fits32(p, frame.seriesEnd) || load<u32>(p) > 65_536) return false
    p += 4 + (load<u32>(p) as usize)
    const hash = hashEnd(hashBytes(load<u64>(METRIC_HASH + ((metric as usize) << 3)), from, p - from))
    store<u32>(SERIES_HASH + ((i as usize) << 2), hash)
    store<u32>(SERIES_LENGTH + ((i as usize) << 2), (p - from) as u32)
  }
  let idFrom: u32 = 0
  let memberFrom: u32 = 0
  for (let i: usize = 0; i < (frame.events as usize); i += 1) {
    const idTo = load<u32>(frame.idEnds + (i << 2))
    const memberTo = load<u32>(frame.memberEnds + (i << 2))
    if (idTo < idFrom || idTo > frame.idBytes || memberTo < memberFrom || memberTo > frame.memberBytes) return false
    if (idTo - idFrom > 65_536 || memberTo - memberFrom > 65_536) return false
    idFrom = idTo
    memberFrom = memberTo
    if (load<u32>(frame.originOf + (i << 2)) >= frame.originCount) return false
    if (load<u32>(frame.seriesOf + (i << 2)) >= frame.seriesCount) return false
  }
  return true
}

/** Whether this series of the epoch is number `i` of the frame. */
function isSeries(series: usize, i: usize): bool {
  const row = load<u32>(SERIES_AT + (i << 2)) as usize
  const metric = load<u32>(METRIC_AT + ((load<u32>(row) as usize) << 2)) as usize
  const metricLength = load<u16>(metric, 8) as u32
  const length = load<u32>(SERIES_LENGTH + (i << 2))
  return (
    load<u32>(series, S_LENGTH) === length &&
    load<u32>(series, S_METRIC_LENGTH) === metricLength &&
    equal(series + SERIES_HEAD + (metricLength as usize), row + 4, length as usize) &&
    equal(series + SERIES_HEAD, metric + 10, metricLength as usize)
  )
}

/** Fills SERIES_OF with those series of the frame that the epoch has, as far as one look finds them. */
function findKnown(): void {
  const bytes = (frame.seriesCount as usize) << 2
  for (let i: usize = 0; i < bytes; i += 4) {
    const hash = load<u32>(SERIES_HASH + i)
    const slot = load<u64>(SERIES_SLOTS + (((hash & seriesMask) as usize) << 3))
    store<u32>(SERIES_OF + i, slot >> 32 === (hash as u64) ? (slot as u32) : 0)
  }
  let sum: u64 = 0
  for (let i: usize = 0; i < bytes; i += 4) {
    const series = load<u32>(SERIES_OF + i) as usize
    sum += load<u64>(series) + load<u64>(series, 64) + load<u64>(series, SERIES_HEAD + 48)
  }
  touched += sum
  for (let i: usize = 0; i < bytes; i += 4) {
    const series = load<u32>(SERIES_OF + i) as usize
    if (series !== 0 && !isSeries(series, i >> 2)) store<u32>(SERIES_OF + i, 0)
  }
}

/** Asks for the rows that the events [from, to) will mostly be counted in. */
function touchRows(from: u32, to: u32): void {
  let sum: u64 = 0
  for (let i = from; i < to; i += 1) {
    const number = load<u32>(frame.seriesOf + ((i as usize) << 2)) as usize
    const row = load<u32>((load<u32>(SERIES_OF + (number << 2)) as usize) + S_ROW) as usize
    sum += load<u64>(row) + load<u64>(row, 64) + load<u64>(row, ROW_BYTES - 8)
  }
  touched += sum
}

/** The epoch's series for number `i` of the frame, made when it is not there. */
function seriesFor(i: usize): usize {
  const hash = load<u32>(SERIES_HASH + (i << 2))
  let slot = hash & seriesMask
  for (;;) {
    const entry = load<u64>(SERIES_SLOTS + ((slot as usize) << 3))
    if (entry === 0) break
    if (entry >> 32 === (hash as u64) && isSeries(entry as u32 as usize, i)) return entry as u32 as usize
    slot = (slot + 1) & seriesMask
  }
  const row = load<u32>(SERIES_AT + (i << 2)) as usize
  const metric = load<u32>(METRIC_AT + ((load<u32>(row) as usize) << 2)) as usize
  const metricLength = load<u16>(metric, 8) as usize
  const length = load<u32>(SERIES_LENGTH + (i << 2)) as usize
  const bytes = SERIES_HEAD + metricLength + length
  if (seriesAt + bytes + SLACK > seriesLimit) {
    const block = takeBlock()
    store<u32>(block, seriesBlocks as u32)
    seriesBlocks = block
    seriesAt = block + BLOCK_HEAD
    seriesLimit = block + BLOCK_BYTES
  }
  const series = seriesAt
  seriesAt += (bytes + 15) & ~15
  memory.fill(series, 0, SERIES_HEAD)
  store<u32>(series, metricLength as u32, S_METRIC_LENGTH)
  store<u32>(series, hash, S_HASH)
  store<u32>(series, length as u32, S_LENGTH)
  v128.store(series, v128.load(SERIES_KEYS + (i << 4)), S_CONTENT)
  store<u32>(series, load<u32>(metric, 4), S_VERSION)
  copy(series + SERIES_HEAD, metric + 10, metricLength)
  copy(series + SERIES_HEAD + metricLength, row + 4, length)
  if (lastSeries === 0) firstSeries = series
  else store<u32>(lastSeries, series as u32, S_NEXT)
  lastSeries = series
  seriesCount += 1
  if (seriesCount > (seriesMask + 1) >> 1) seriesMask = enlarge(SERIES_SLOTS, seriesMask, firstSeries, S_HASH, S_NEXT)
  else enter(SERIES_SLOTS, seriesMask, slot, hash, series)
  return series
}

function enter(slots: usize, mask: u32, slot: u32, hash: u32, at: usize): void {
  while (load<u64>(slots + ((slot as usize) << 3)) !== 0) slot = (slot + 1) & mask
  store<u64>(slots + ((slot as usize) << 3), (at as u64) | ((hash as u64) << 32))
}

/** Twice the slots, filled from the chain that begins with `first`; the new mask. */
function enlarge(slots: usize, mask: u32, first: usize, hashAt: usize, nextAt: usize): u32 {
  const more = ((mask + 1) << 1) - 1
  memory.fill(slots, 0, ((mask + 1) as usize) << 3)
  for (let p = first; p !== 0; p = load<u32>(p + nextAt) as usize) {
    const hash = load<u32>(p + hashAt)
    enter(slots, more, hash & more, hash, p)
  }
  return more
}

/** Empty slots, as many as `count` entries need. */
function emptied(slots: usize, mask: u32, count: u32): u32 {
  memory.fill(slots, 0, ((mask + 1) as usize) << 3)
  let least = SLOTS_LEAST
  while (least <= mask && least < count << 1) least <<= 1
  return least - 1
}

/** The row of a series and a minute, made when it is not there. */
function rowOf(series: usize, minute: i64): usize {
  const recent = load<u32>(series, S_ROW) as usize
  if (recent !== 0 && load<i64>(series, S_MINUTE) === minute) return recent
  const hash = hashEnd((hashStart(series as u32, 1) ^ (minute as u64)) * 0xd6e8feb86659fd93)
  let slot = hash & rowMask
  let row: usize = 0
  for (;;) {
    const entry = load<u64>(ROW_SLOTS + ((slot as usize) << 3))
    row = entry as u32 as usize
    if (row === 0) break
    if (entry >> 32 === (hash as u64) && (load<u32>(row, 4) as usize) === series && load<i64>(row, R_MINUTE) === minute)
      break
    slot = (slot + 1) & rowMask
  }
  if (row === 0) {
    if (rowAt + ROW_BYTES > rowLimit) {
      const block = takeBlock()
      store<u32>(block, rowBlocks as u32)
      rowBlocks = block
      rowAt = block + BLOCK_HEAD
      rowLimit = block + BLOCK_BYTES
    }
    row = rowAt
    rowAt += ROW_BYTES
    memory.fill(row, 0, ROW_BYTES)
    store<u32>(row, hash)
    store<u32>(row, series as u32, 4)
    store<i64>(row, minute, R_MINUTE)
    if (minute < leastMinute) leastMinute = minute
    if (minute > mostMinute) mostMinute = minute
    if (lastRow === 0) firstRow = row
    else store<u32>(lastRow, row as u32, R_NEXT)
    lastRow = row
    rowCount += 1
    // At the most slots there are EPOCH_ROWS_MAX rows, and room for them.
    if (rowCount > (rowMask + 1) >> 1 && rowMask + 1 < ROW_SLOTS_MOST)
      rowMask = enlarge(ROW_SLOTS, rowMask, firstRow, 0, R_NEXT)
    else enter(ROW_SLOTS, rowMask, slot, hash, row)
  }
  store<i64>(series, minute, S_MINUTE)
  store<u32>(series, row as u32, S_ROW)
  return row
}

function countMember(series: usize, tenant: usize, member: usize, length: u32, bucket: i64, n: i64): void {
  if (load<u32>(series, S_HAS_KEY) === 0) {
    sip(MEMBER_KEY, tenant + 2, load<u16>(tenant), series + S_KEY)
    store<u32>(series, 1, S_HAS_KEY)
  }
  sip(series + S_KEY, member, length, SCRATCH)
  const a = load<u64>(SCRATCH)
  const b = load<u64>(SCRATCH, 8)
  const hash = hashEnd((hashStart(series as u32, 2) ^ (bucket as u64) ^ a) * 0xd6e8feb86659fd93)
  let slot = hash & memberMask
  let row: usize = 0
  for (;;) {
    const entry = load<u64>(MEMBER_SLOTS + ((slot as usize) << 3))
    row = entry as u32 as usize
    if (row === 0) break
    if (
      entry >> 32 === (hash as u64) &&
      load<u64>(row) === a &&
      load<u64>(row, 8) === b &&
      (load<u32>(row, 20) as usize) === series &&
      load<i64>(row, 24) === bucket
    ) {
      store<i64>(row, load<i64>(row, 32) + n, 32)
      return
    }
    slot = (slot + 1) & memberMask
  }
  if (memberAt + MEMBER_BYTES > memberLimit) {
    const block = takeBlock()
    store<u32>(block, memberBlocks as u32)
    memberBlocks = block
    memberAt = block + BLOCK_HEAD
    memberLimit = block + BLOCK_BYTES
  }
  row = memberAt
  memberAt += MEMBER_BYTES
  store<u64>(row, a)
  store<u64>(row, b, 8)
  store<u32>(row, hash, 16)
  store<u32>(row, series as u32, 20)
  store<i64>(row, bucket, 24)
  store<i64>(row, n, 32)
  store<u32>(row, 0, 40)
  if (lastMember === 0) firstMember = row
  else store<u32>(lastMember, row as u32, 40)
  lastMember = row
  memberCount += 1
  if (memberCount > (memberMask + 1) >> 1 && memberMask + 1 < ROW_SLOTS_MOST)
    memberMask = enlarge(MEMBER_SLOTS, memberMask, firstMember, 16, 40)
  else enter(MEMBER_SLOTS, memberMask, slot, hash, row)
}

/** The four names of a series as RowBinary; the place behind them. */
function names(at: usize, series: usize): usize {
  const metricLength = load<u32>(series, S_METRIC_LENGTH)
  const metric = series + SERIES_HEAD
  const tenant = metric + (metricLength as usize)
  const subject = tenant + 2 + (load<u16>(tenant) as usize)
  const dims = subject + 2 + (load<u16>(subject) as usize)
  at = text16(at, tenant)
  at = text(at, metric, metricLength)
  at = text16(at, subject)
  return text(at, dims + 4, load<u32>(dims))
}

/** At most the bytes of them. */
function namesLength(series: usize): usize {
  return (load<u32>(series, S_METRIC_LENGTH) as usize) + (load<u32>(series, S_LENGTH) as usize) + 8
}

/**
 * Reads the tables of the frame at FRAME, which has so many bytes, and fills SERIES_KEYS: a series that the epoch has brings its key
 * along. False: not a frame.
 */
export function epochPrepare(length: usize): u32 {
  if (!frame.open(FRAME, length) || !index()) return 0
  findKnown()
  for (let i: usize = 0; i < (frame.seriesCount as usize); i += 1) {
    const key = SERIES_KEYS + (i << 4)
    const series = load<u32>(SERIES_OF + (i << 2)) as usize
    const row = load<u32>(SERIES_AT + (i << 2)) as usize
    const metric = load<u32>(METRIC_AT + ((load<u32>(row) as usize) << 2)) as usize
    if (series !== 0 && load<u32>(series, S_VERSION) === load<u32>(metric, 4)) {
      v128.store(key, v128.load(series, S_CONTENT))
    } else {
      const subject = row + 6 + (load<u16>(row, 4) as usize)
      contentKey(CONTENT_KEY, SCRATCH, contentHead(SCRATCH, metric), subject, key)
    }
  }
  return 1
}

/** Series of the frame that was prepared. */
export function epochFrameSeries(): u32 {
  return frame.seriesCount
}

/**
 * Adds the accepted events of the frame that epochPrepare() has read; its verdicts stand at `verdicts`. The host has made sure that
 * its rows and series fit.
 */
export function epochApply(verdicts: usize, sequence: f64): void {
  accepted = 0
  duplicates = 0
  voids = 0
  archived = 0
  const received = frame.receivedAt as i64
  const position = (sequence as i64) * 16_384
  let idFrom: u32 = 0
  let memberFrom: u32 = 0
  for (let i: usize = 0; i < (frame.events as usize); i += 1) {
    if (i % AHEAD === 0) touchRows(i as u32, min(i + AHEAD, frame.events as usize) as u32)
    const idTo = load<u32>(frame.idEnds + (i << 2))
    const memberTo = load<u32>(frame.memberEnds + (i << 2))
    const idAt = frame.ids + (idFrom as usize)
    const idLength = idTo - idFrom
    const memberText = frame.members + (memberFrom as usize)
    const memberLength = memberTo - memberFrom
    idFrom = idTo
    memberFrom = memberTo
    const verdict = load<u8>(verdicts + i) as u32
    if (verdict !== ACCEPTED) {
      if (verdict === DUPLICATE) duplicates += 1
      continue
    }
    accepted += 1
    const number = load<u32>(frame.seriesOf + (i << 2)) as usize
    const named = load<u32>(SERIES_AT + (number << 2)) as usize
    const metric = load<u32>(METRIC_AT + ((load<u32>(named) as usize) << 2)) as usize
    let series = load<u32>(SERIES_OF + (number << 2)) as usize
    if (series === 0) {
      series = seriesFor(number)
      store<u32>(SERIES_OF + (number << 2), series as u32)
    }
    const aggregation = load<u8>(metric, 1) as u32
    const time = load<f64>(frame.times + (i << 3))
    const whole = time as i64
    const minute = floor(time / 60_000)
    const row = rowOf(series, minute as i64)
    scaleUp(load<i64>(frame.values + (i << 3)), load<i64>(POWERS + (((9 - (load<u8>(metric) as u32)) as usize) << 3)))
    const l = low
    const h = high
    times(l, h, (time - minute * 60_000) as u64)
    const isVoid = (load<u8>(frame.kinds + i) & 1) !== 0
    if (isVoid) {
      voids += 1
      takeFrom(row + R_SUM, l, h)
      takeFrom(row + R_SUM_VT, low, high)
      store<i64>(row, load<i64>(row, R_COUNT) - 1, R_COUNT)
      if (aggregation >= MAX && aggregation <= LATEST && load<u32>(row, R_OVERRIDE) === 0) {
        store<u32>(row, 1, R_OVERRIDE)
        if (lastOverride === 0) firstOverride = row
        else store<u32>(lastOverride, row as u32, R_NEXT_OVERRIDE)
        lastOverride = row
      }
    } else {
      addTo(row + R_SUM, l, h)
      addTo(row + R_SUM_VT, low, high)
      store<i64>(row, load<i64>(row, R_COUNT) + 1, R_COUNT)
      const samples = load<i64>(row, R_SAMPLES)
      const place = position + (i as i64)
      const lastTime = load<i64>(row, R_LAST_TIME)
      if (samples === 0 || isBelow(l, h, row + R_MIN)) set(row + R_MIN, l, h)
      if (samples === 0 || isAbove(l, h, row + R_MAX)) set(row + R_MAX, l, h)
      if (samples === 0 || whole > lastTime || (whole === lastTime && place > load<i64>(row, R_LAST_POSITION))) {
        set(row + R_LAST, l, h)
        store<i64>(row, whole, R_LAST_TIME)
        store<i64>(row, place, R_LAST_POSITION)
      }
      store<i64>(row, samples + 1, R_SAMPLES)
    }
    if (aggregation === UNIQUE) {
      const bucket = (floor(time / 900_000) as i64) * 900_000
      countMember(series, named + 4, memberText, memberLength, bucket, isVoid ? -1 : 1)
    }
    if (load<u8>(metric, 2) === 0) continue

    archived += 1
    const origin = load<u32>(ORIGIN_AT + ((load<u32>(frame.originOf + (i << 2)) as usize) << 2)) as usize
    const source = origin + 2 + (load<u16>(origin) as usize)
    const subject = named + 6 + (load<u16>(named, 4) as usize)
    const dims = subject + 2 + (load<u16>(subject) as usize)
    const need =
      (load<u16>(origin) as usize) +
      (load<u16>(source) as usize) +
      (idLength as usize) +
      (load<u16>(metric, 8) as usize) +
      (load<u16>(subject) as usize) +
      (load<u32>(dims) as usize) +
      (memberLength as usize) +
      256
    let p = beginRow(ARCHIVE, need)
    p = text16(p, origin)
    p = text16(p, source)
    p = text(p, idAt, idLength)
    p = text16(p, metric + 8)
    store<u32>(p, load<u32>(metric, 4))
    p = text16(p + 4, subject)
    store<i64>(p, whole)
    store<u64>(p, l, 8)
    store<i64>(p, h, 16)
    p = text(p + 24, dims + 4, load<u32>(dims))
    p = text(p, memberText, memberLength)
    store<u8>(p, isVoid ? 0xff : 1)
    store<i64>(p, received, 1)
    store<i64>(p, position + (i as i64), 9)
    endRow(ARCHIVE, p + 17)
  }
}

// The end of the epoch.

/** Encodes the minute rows and the member rows; the host takes all output, then calls epochClear(). */
export function epochEncode(): void {
  for (let row = firstRow; row !== 0; row = load<u32>(row, R_NEXT) as usize) {
    const series = load<u32>(row, 4) as usize
    let p = names(beginRow(MINUTES, namesLength(series) + 256), series)
    store<u32>(p, (load<i64>(row, R_MINUTE) * 60) as u32)
    p += 4
    store<u64>(p, load<u64>(row, R_SUM))
    store<u64>(p, load<u64>(row, R_SUM + 8), 8)
    store<i64>(p, load<i64>(row, R_COUNT), 16)
    store<i64>(p, load<i64>(row, R_SAMPLES), 24)
    memory.copy(p + 32, row + R_MIN, 48)
    store<i64>(p, load<i64>(row, R_LAST_TIME), 80)
    store<i64>(p, load<i64>(row, R_LAST_POSITION), 88)
    memory.copy(p + 96, row + R_SUM_VT, 16)
    store<u8>(p, 0, 112)
    endRow(MINUTES, p + 113)
  }
  for (let row = firstMember; row !== 0; row = load<u32>(row, 40) as usize) {
    const series = load<u32>(row, 20) as usize
    const p = names(beginRow(MEMBERS, namesLength(series) + 256), series)
    store<u64>(p, load<u64>(row))
    store<u64>(p, load<u64>(row, 8), 8)
    store<u32>(p, (load<i64>(row, 24) / 1_000) as u32, 16)
    store<i64>(p, load<i64>(row, 32), 20)
    endRow(MEMBERS, p + 28)
  }
}

/** Minute rows whose min, max and last must be recomputed, one after the other; 0 is the end. */
export function epochFirstOverride(): usize {
  return firstOverride
}

export function epochNextOverride(row: usize): usize {
  return load<u32>(row, R_NEXT_OVERRIDE) as usize
}

/** Where the names of a row's series stand until the next call: four Strings of RowBinary. */
export function epochNames(row: usize): usize {
  names(SCRATCH, load<u32>(row, 4) as usize)
  return SCRATCH
}

export function epochMinute(row: usize): f64 {
  return load<i64>(row, R_MINUTE) as f64
}

/** Begins an empty epoch; all output has been taken. */
export function epochClear(): void {
  seriesMask = emptied(SERIES_SLOTS, seriesMask, seriesCount)
  rowMask = emptied(ROW_SLOTS, rowMask, rowCount)
  memberMask = emptied(MEMBER_SLOTS, memberMask, memberCount)
  freeChain(seriesBlocks)
  freeChain(rowBlocks)
  freeChain(memberBlocks)
  for (let table: u32 = 0; table < 3; table += 1) {
    const writer = writerOf(table)
    freeChain(load<u32>(writer, W_FIRST) as usize)
    memory.fill(writer, 0, WRITER_BYTES)
  }
  seriesBlocks = 0
  seriesAt = 0
  seriesLimit = 0
  rowBlocks = 0
  rowAt = 0
  rowLimit = 0
  memberBlocks = 0
  memberAt = 0
  memberLimit = 0
  seriesCount = 0
  firstSeries = 0
  lastSeries = 0
  rowCount = 0
  firstRow = 0
  lastRow = 0
  leastMinute = i64.MAX_VALUE
  mostMinute = i64.MIN_VALUE
  memberCount = 0
  firstMember = 0
  lastMember = 0
  firstOverride = 0
  lastOverride = 0
}
