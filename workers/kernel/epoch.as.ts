/**
 * The open epoch in WASM: accepted events into minute rows, member rows and archive rows, and all of them as RowBinary. The twin
 * of src/aggregate/aggregate.ts, src/rollup/archive.ts and chunks.ts: same rows in the same order, same chunks, same bytes.
 * src/rollup/kernel-epoch.ts calls it; refusals and conflicts, which are rare, are encoded there.
 *
 * Memory, from the bottom:
 *
 *      MEMBER_KEY   the purpose key «member»
 *      POWERS       10^0 .. 10^9
 *      WRITERS      three: archive, minutes, members
 *      SCRATCH      names of one series as they stand in front of its rows
 *      METRIC_AT, ORIGIN_AT, SERIES_AT   where each row of the frame's tables begins, u32
 *      SERIES_OF    the epoch's series of each series of the frame, 0 before its first accepted event
 *      slots        of series, minute rows and member rows: an address, 0 is empty
 *      FRAME        the frame, SLACK, its verdicts; limits.recordBytesMax bounds it
 *      blocks       1 MiB each, chained; taken from a free list or from the end of memory
 *
 * A block: u32 next, u32 end of what was written, u32 chunk, u32 0; then its bytes. Records and rows never cross a block. Chains
 * of series, minute rows and member rows live until the epoch is drained; output is freed when the host has copied it.
 *
 * 128-bit numbers are two words, low first; bounds are those of row.ts, far below 2^127.
 */
import { copy, equal, hashBytes, hashEnd, hashStart, SLACK, setSeed } from './bytes.as'
import * as frame from './frame.as'
import { sip } from './sip.as'

const MEMBER_KEY: usize = 1_024
const POWERS: usize = 1_088
const WRITERS: usize = 1_280
const WRITER_BYTES: usize = 64
const SCRATCH: usize = 4_096
const SCRATCH_BYTES: usize = 5 * 65_536
const METRIC_AT: usize = SCRATCH + SCRATCH_BYTES
const ORIGIN_AT: usize = METRIC_AT + 4 * (frame.FRAME_EVENTS_MAX as usize)
const SERIES_AT: usize = ORIGIN_AT + 4 * (frame.FRAME_EVENTS_MAX as usize)
const SERIES_OF: usize = SERIES_AT + 4 * (frame.FRAME_EVENTS_MAX as usize)
const SERIES_SLOTS_COUNT: u32 = 1 << 19
const ROW_SLOTS_COUNT: u32 = 1 << 20
const SERIES_SLOTS: usize = SERIES_OF + 4 * (frame.FRAME_EVENTS_MAX as usize)
const ROW_SLOTS: usize = SERIES_SLOTS + 4 * (SERIES_SLOTS_COUNT as usize)
const MEMBER_SLOTS: usize = ROW_SLOTS + 4 * (ROW_SLOTS_COUNT as usize)
const FRAME: usize = MEMBER_SLOTS + 4 * (ROW_SLOTS_COUNT as usize)
const FRAME_BYTES: usize = 26 << 20
const BLOCKS: usize = FRAME + FRAME_BYTES

export const EPOCH_MEMBER_KEY: usize = MEMBER_KEY
export const EPOCH_FRAME: usize = FRAME
export const EPOCH_FRAME_BYTES: usize = FRAME_BYTES
export const EPOCH_BLOCKS: usize = BLOCKS
/** Half of the slots: the host seals before there are more. */
export const EPOCH_SERIES_MAX: u32 = SERIES_SLOTS_COUNT / 2
export const EPOCH_ROWS_MAX: u32 = ROW_SLOTS_COUNT / 2 + ROW_SLOTS_COUNT / 8

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

// A series: u32 slot, u32 hash, i64 minute of its last row, u32 last row, u32 length of its names, u32 next, u32 1 when the member
// key of its tenant is there, 16 bytes member key, names.
const SERIES_HEAD: usize = 48
// A minute row: u32 slot, u32 series, i64 minute, i64 count, i64 samples, i64 lastTime, i64 lastPosition, then five 128-bit
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
// A member row: 16 bytes hash, u32 slot, u32 series, i64 bucket, i64 n, u32 next.
const MEMBER_BYTES: usize = 48

const ACCEPTED: u32 = 0
const DUPLICATE: u32 = 1
const UNIQUE: u32 = 2
const MAX: u32 = 3
const LATEST: u32 = 5

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
    p += 10 + (load<u16>(p, 8) as usize)
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
    if (p + 4 > frame.seriesEnd || load<u32>(p) >= frame.metricCount) return false
    p += 4
    for (let j = 0; j < 2; j += 1) {
      if (!frame.fits16(p, frame.seriesEnd)) return false
      p += 2 + (load<u16>(p) as usize)
    }
    if (!frame.fits32(p, frame.seriesEnd) || load<u32>(p) > 65_536) return false
    p += 4 + (load<u32>(p) as usize)
  }
  memory.fill(SERIES_OF, 0, (frame.seriesCount as usize) << 2)
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

/** The epoch's series for a row of the frame's series table. */
function findSeries(row: usize, metric: usize): usize {
  const tenant = row + 4
  const subject = tenant + 2 + (load<u16>(tenant) as usize)
  const dims = subject + 2 + (load<u16>(subject) as usize)
  let at = text16(SCRATCH, tenant)
  at = text16(at, metric + 8)
  at = text16(at, subject)
  at = text(at, dims + 4, load<u32>(dims))
  const length = at - SCRATCH
  const hash = hashEnd(hashBytes(hashStart(0, 0), SCRATCH, length))
  let slot = hash & (SERIES_SLOTS_COUNT - 1)
  for (;;) {
    const known = load<u32>(SERIES_SLOTS + ((slot as usize) << 2)) as usize
    if (known === 0) break
    if (
      load<u32>(known, 4) === hash &&
      (load<u32>(known, 20) as usize) === length &&
      equal(known + SERIES_HEAD, SCRATCH, length)
    ) {
      return known
    }
    slot = (slot + 1) & (SERIES_SLOTS_COUNT - 1)
  }
  const bytes = (SERIES_HEAD + length + SLACK + 15) & ~15
  if (seriesAt + bytes > seriesLimit) {
    const block = takeBlock()
    store<u32>(block, seriesBlocks as u32)
    seriesBlocks = block
    seriesAt = block + BLOCK_HEAD
    seriesLimit = block + BLOCK_BYTES
  }
  const series = seriesAt
  seriesAt += (SERIES_HEAD + length + 15) & ~15
  store<u32>(series, slot)
  store<u32>(series, hash, 4)
  store<i64>(series, 0, 8)
  store<u32>(series, 0, 16)
  store<u32>(series, length as u32, 20)
  store<u32>(series, 0, 24)
  store<u32>(series, 0, 28)
  copy(series + SERIES_HEAD, SCRATCH, length)
  store<u32>(SERIES_SLOTS + ((slot as usize) << 2), series as u32)
  if (lastSeries === 0) firstSeries = series
  else store<u32>(lastSeries, series as u32, 24)
  lastSeries = series
  seriesCount += 1
  return series
}

/** The row of a series and a minute, made when it is not there. */
function rowOf(series: usize, minute: i64): usize {
  const recent = load<u32>(series, 16) as usize
  if (recent !== 0 && load<i64>(series, 8) === minute) return recent
  const hash = hashEnd((hashStart(series as u32, 1) ^ (minute as u64)) * 0xd6e8feb86659fd93)
  let slot = hash & (ROW_SLOTS_COUNT - 1)
  let row: usize = 0
  for (;;) {
    row = load<u32>(ROW_SLOTS + ((slot as usize) << 2)) as usize
    if (row === 0 || ((load<u32>(row, 4) as usize) === series && load<i64>(row, R_MINUTE) === minute)) break
    slot = (slot + 1) & (ROW_SLOTS_COUNT - 1)
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
    store<u32>(row, slot)
    store<u32>(row, series as u32, 4)
    store<i64>(row, minute, R_MINUTE)
    store<u32>(ROW_SLOTS + ((slot as usize) << 2), row as u32)
    if (lastRow === 0) firstRow = row
    else store<u32>(lastRow, row as u32, R_NEXT)
    lastRow = row
    rowCount += 1
  }
  store<i64>(series, minute, 8)
  store<u32>(series, row as u32, 16)
  return row
}

function countMember(series: usize, tenant: usize, member: usize, length: u32, bucket: i64, n: i64): void {
  if (load<u32>(series, 28) === 0) {
    sip(MEMBER_KEY, tenant + 2, load<u16>(tenant), series + 32)
    store<u32>(series, 1, 28)
  }
  sip(series + 32, member, length, SCRATCH)
  const a = load<u64>(SCRATCH)
  const b = load<u64>(SCRATCH, 8)
  const hash = hashEnd((hashStart(series as u32, 2) ^ (bucket as u64) ^ a) * 0xd6e8feb86659fd93)
  let slot = hash & (ROW_SLOTS_COUNT - 1)
  let row: usize = 0
  for (;;) {
    row = load<u32>(MEMBER_SLOTS + ((slot as usize) << 2)) as usize
    if (row === 0) break
    if (
      load<u64>(row) === a &&
      load<u64>(row, 8) === b &&
      (load<u32>(row, 20) as usize) === series &&
      load<i64>(row, 24) === bucket
    ) {
      store<i64>(row, load<i64>(row, 32) + n, 32)
      return
    }
    slot = (slot + 1) & (ROW_SLOTS_COUNT - 1)
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
  store<u32>(row, slot, 16)
  store<u32>(row, series as u32, 20)
  store<i64>(row, bucket, 24)
  store<i64>(row, n, 32)
  store<u32>(row, 0, 40)
  store<u32>(MEMBER_SLOTS + ((slot as usize) << 2), row as u32)
  if (lastMember === 0) firstMember = row
  else store<u32>(lastMember, row as u32, 40)
  lastMember = row
  memberCount += 1
}

/**
 * Adds the accepted events of the frame at FRAME, which has so many bytes; its verdicts stand at `verdicts`. False: not a frame;
 * nothing has changed then. The host has made sure that its rows and series fit.
 */
export function epochApply(length: usize, verdicts: usize, sequence: f64): bool {
  if (!frame.open(FRAME, length) || !index()) return false
  accepted = 0
  duplicates = 0
  voids = 0
  archived = 0
  const received = frame.receivedAt as i64
  const position = (sequence as i64) * 16_384
  let idFrom: u32 = 0
  let memberFrom: u32 = 0
  for (let i: usize = 0; i < (frame.events as usize); i += 1) {
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
    const names = load<u32>(SERIES_AT + (number << 2)) as usize
    const metric = load<u32>(METRIC_AT + ((load<u32>(names) as usize) << 2)) as usize
    let series = load<u32>(SERIES_OF + (number << 2)) as usize
    if (series === 0) {
      series = findSeries(names, metric)
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
      countMember(series, names + 4, memberText, memberLength, bucket, isVoid ? -1 : 1)
    }
    if (load<u8>(metric, 2) === 0) continue

    archived += 1
    const origin = load<u32>(ORIGIN_AT + ((load<u32>(frame.originOf + (i << 2)) as usize) << 2)) as usize
    const source = origin + 2 + (load<u16>(origin) as usize)
    const subject = names + 6 + (load<u16>(names, 4) as usize)
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
  return true
}

// The end of the epoch.

/** Encodes the minute rows and the member rows; the host takes all output, then calls epochClear(). */
export function epochEncode(): void {
  for (let row = firstRow; row !== 0; row = load<u32>(row, R_NEXT) as usize) {
    const series = load<u32>(row, 4) as usize
    const length = load<u32>(series, 20) as usize
    let p = beginRow(MINUTES, length + 256)
    copy(p, series + SERIES_HEAD, length)
    p += length
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
    const length = load<u32>(series, 20) as usize
    let p = beginRow(MEMBERS, length + 256)
    copy(p, series + SERIES_HEAD, length)
    p += length
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

/** Where the names of a row's series stand: four Strings of RowBinary. */
export function epochNames(row: usize): usize {
  return (load<u32>(row, 4) as usize) + SERIES_HEAD
}

export function epochMinute(row: usize): f64 {
  return load<i64>(row, R_MINUTE) as f64
}

/** Begins an empty epoch; all output has been taken. */
export function epochClear(): void {
  for (let p = firstSeries; p !== 0; p = load<u32>(p, 24) as usize) {
    store<u32>(SERIES_SLOTS + ((load<u32>(p) as usize) << 2), 0)
  }
  for (let p = firstRow; p !== 0; p = load<u32>(p, R_NEXT) as usize) {
    store<u32>(ROW_SLOTS + ((load<u32>(p) as usize) << 2), 0)
  }
  for (let p = firstMember; p !== 0; p = load<u32>(p, 40) as usize) {
    store<u32>(MEMBER_SLOTS + ((load<u32>(p, 16) as usize) << 2), 0)
  }
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
  memberCount = 0
  firstMember = 0
  lastMember = 0
  firstOverride = 0
  lastOverride = 0
}
