/**
 * Archive rows in WASM: rows of usage_events in the order of the log become columns in the order of the table, so that ClickHouse
 * neither parses row by row nor sorts. src/rollup/archive-columns.ts calls this; src/rollup/archive.ts says what a row is.
 *
 * Memory, after a fixed part with counters and the places of the columns:
 *
 *      | rows | start u32 | group u32 | time u64 | order u32, twice | slots u32 | groups u32, four times | columns of one block |
 *
 * A group is a (tenant, metric). Groups are ranked by comparing texts, rows by radix: by time, then by rank. That is stable, and
 * rows come in the order of their positions, so that this is the order (tenant, metric, event_time, position).
 */
import { copy, equal, hashBytes, hashEnd, hashStart, SLACK, setSeed } from './bytes.as'

const COUNTERS: usize = 1_024
const DIGIT_BITS: u64 = 11
const DIGIT_MASK: u64 = (1 << 11) - 1
/** For each of the columns: u32 from, u32 to. */
export const ARCHIVE_COLUMNS: usize = COUNTERS + (4 << 11)
const COLUMNS: usize = 16
/** Where the rows begin. */
export const ARCHIVE_ROWS: usize = 65_536

let count: u32 = 0
let end: usize = 0
let starts: usize = 0
let groupOf: usize = 0
let times: usize = 0
let order: usize = 0
let other: usize = 0
let slots: usize = 0
let slotMask: u32 = 0
let groups: u32 = 0
let groupAt: usize = 0
let rankOf: usize = 0
let ranked: usize = 0
let spare: usize = 0
let blocks: usize = 0

function room(to: usize): void {
  const pages = ((to + 0xffff) >> 16) as i32
  if (pages > memory.size()) memory.grow(pages - memory.size())
}

/** Room for so many rows. They are written to ARCHIVE_ROWS by the host. */
export function archiveLayOut(seed: u64, bytes: u32, rows: u32): void {
  setSeed(seed)
  count = rows
  end = ARCHIVE_ROWS + (bytes as usize)
  const words = (rows as usize) << 2
  starts = (end + SLACK + 7) & ~7
  groupOf = starts + words + 8
  times = (groupOf + words + 7) & ~7
  order = times + (words << 1)
  other = order + words
  slots = other + words
  slotMask = 1
  while (slotMask < 2 * rows) slotMask <<= 1
  groupAt = slots + ((slotMask as usize) << 2)
  rankOf = groupAt + words
  ranked = rankOf + words
  spare = ranked + words
  blocks = (spare + words + 15) & ~15
  room(blocks)
  memory.fill(slots, 0, (slotMask as usize) << 2)
  slotMask -= 1
  groups = 0
}

let textAt: usize = 0
let textLength: usize = 0

/** Reads the length of the text at `at`; answers where the text ends. */
function text(at: usize): usize {
  let length: usize = load<u8>(at)
  at += 1
  if (length > 127) {
    length &= 127
    for (let shift: usize = 7; ; shift += 7) {
      const byte: usize = load<u8>(at)
      at += 1
      length |= (byte & 127) << shift
      if (byte < 128) break
    }
  }
  textAt = at
  textLength = length
  return at + length
}

/** Finds the group of a row, or makes it; `row`: where the row begins, with its tenant. */
function group(row: usize, tenant: usize, tenantLength: usize, metric: usize, metricLength: usize): u32 {
  const hash = hashBytes(
    hashBytes(hashStart(tenantLength as u32, metricLength as u32), tenant, tenantLength),
    metric,
    metricLength,
  )
  for (let slot = hashEnd(hash) & slotMask; ; slot = (slot + 1) & slotMask) {
    const at = slots + ((slot as usize) << 2)
    const known = load<u32>(at)
    if (known === 0) {
      store<u32>(groupAt + ((groups as usize) << 2), row as u32)
      groups += 1
      store<u32>(at, groups)
      return groups - 1
    }
    if (isGroup(known - 1, tenant, tenantLength, metric, metricLength)) return known - 1
  }
  return 0
}

function isGroup(one: u32, tenant: usize, tenantLength: usize, metric: usize, metricLength: usize): bool {
  const next = text(load<u32>(groupAt + ((one as usize) << 2)) as usize)
  if (textLength !== tenantLength || !equal(textAt, tenant, tenantLength)) return false
  toMetric(next)
  return textLength === metricLength && equal(textAt, metric, metricLength)
}

/** Reads the metric; `at`: behind the tenant. Answers where it ends. */
function toMetric(at: usize): usize {
  return text(text(text(at)))
}

function compareText(a: usize, aLength: usize, b: usize, bLength: usize): i32 {
  const least = min(aLength, bLength)
  for (let i: usize = 0; i < least; i += 1) {
    const difference = (load<u8>(a + i) as i32) - (load<u8>(b + i) as i32)
    if (difference !== 0) return difference
  }
  return (aLength as i32) - (bLength as i32)
}

function isBefore(one: u32, two: u32): bool {
  const oneNext = text(load<u32>(groupAt + ((one as usize) << 2)) as usize)
  const oneAt = textAt
  const oneLength = textLength
  const twoNext = text(load<u32>(groupAt + ((two as usize) << 2)) as usize)
  const byTenant = compareText(oneAt, oneLength, textAt, textLength)
  if (byTenant !== 0) return byTenant < 0
  toMetric(oneNext)
  const metricAt = textAt
  const metricLength = textLength
  toMetric(twoNext)
  return compareText(metricAt, metricLength, textAt, textLength) < 0
}

/** Merges runs of groups, twice as long each time. */
function rank(): void {
  let from = ranked
  let to = spare
  for (let i: u32 = 0; i < groups; i += 1) store<u32>(from + ((i as usize) << 2), i)
  for (let width: u32 = 1; width < groups; width <<= 1) {
    for (let low: u32 = 0; low < groups; low += 2 * width) {
      const middle = min(low + width, groups)
      const high = min(low + 2 * width, groups)
      let left = low
      let right = middle
      for (let i = low; i < high; i += 1) {
        const takeRight =
          left === middle ||
          (right < high &&
            isBefore(load<u32>(from + ((right as usize) << 2)), load<u32>(from + ((left as usize) << 2))))
        const taken = takeRight ? right : left
        if (takeRight) right += 1
        else left += 1
        store<u32>(to + ((i as usize) << 2), load<u32>(from + ((taken as usize) << 2)))
      }
    }
    const swap = from
    from = to
    to = swap
  }
  for (let i: u32 = 0; i < groups; i += 1) {
    store<u32>(rankOf + ((load<u32>(from + ((i as usize) << 2)) as usize) << 2), i)
  }
}

/** One pass over a digit of the time (`ofTime`) or of the rank. */
function pass(ofTime: bool, shift: u64): void {
  memory.fill(COUNTERS, 0, 4 << 11)
  for (let i: u32 = 0; i < count; i += 1) {
    const counter = COUNTERS + digit(i, ofTime, shift)
    store<u32>(counter, load<u32>(counter) + 1)
  }
  let sum: u32 = 0
  for (let at = COUNTERS; at < ARCHIVE_COLUMNS; at += 4) {
    const some = load<u32>(at)
    store<u32>(at, sum)
    sum += some
  }
  const last = order + ((count as usize) << 2)
  for (let at = order; at < last; at += 4) {
    const row = load<u32>(at)
    const counter = COUNTERS + digit(row, ofTime, shift)
    const place = load<u32>(counter)
    store<u32>(counter, place + 1)
    store<u32>(other + ((place as usize) << 2), row)
  }
  const swap = order
  order = other
  other = swap
}

/** Four times the digit. */
function digit(row: u32, ofTime: bool, shift: u64): usize {
  const key: u64 = ofTime
    ? load<u64>(times + ((row as usize) << 3))
    : (load<u32>(rankOf + ((load<u32>(groupOf + ((row as usize) << 2)) as usize) << 2)) as u64)
  return (((key >> shift) & DIGIT_MASK) as usize) << 2
}

/** Puts the rows in order. False when they are not as many bytes as was said. */
export function archiveSort(): bool {
  let at = ARCHIVE_ROWS
  let least = i64.MAX_VALUE
  let most = i64.MIN_VALUE
  for (let i: u32 = 0; i < count; i += 1) {
    const row = at
    if (at >= end) return false
    store<u32>(starts + ((i as usize) << 2), row as u32)
    at = text(at)
    const tenant = textAt
    const tenantLength = textLength
    at = toMetric(at)
    store<u32>(groupOf + ((i as usize) << 2), group(row, tenant, tenantLength, textAt, textLength))
    at = text(at + 4)
    const time = load<i64>(at)
    store<i64>(times + ((i as usize) << 3), time)
    least = min(least, time)
    most = max(most, time)
    // Time and value; dims and member; kind, received_at, position, stream, epoch, chunk.
    at = text(text(at + 24)) + 29
  }
  store<u32>(starts + ((count as usize) << 2), at as u32)
  if (at !== end) return false
  for (let i: u32 = 0; i < count; i += 1) {
    const place = times + ((i as usize) << 3)
    store<i64>(place, load<i64>(place) - least)
    store<u32>(order + ((i as usize) << 2), i)
  }
  rank()
  const range = (most - least) as u64
  for (let shift: u64 = 0; shift < 64 && range >> shift !== 0; shift += DIGIT_BITS) pass(true, shift)
  for (let shift: u64 = 0; ((groups - 1) as u64) >> shift !== 0; shift += DIGIT_BITS) pass(false, shift)
  return true
}

function isText(column: usize): bool {
  return column < 4 || column === 5 || column === 8 || column === 9
}

function column(number: usize): usize {
  return load<u32>(ARCHIVE_COLUMNS + (number << 3)) as usize
}

function ends(number: usize, at: usize): void {
  store<u32>(ARCHIVE_COLUMNS + (number << 3), at as u32, 4)
}

/** Copies a text with its length; answers where the next one goes. */
function put(target: usize, from: usize, to: usize): usize {
  const length = to - from
  v128.store(target, v128.load(from))
  if (length > 16) copy(target + 16, from + 16, length - 16)
  return target + length
}

/** Rows lie anywhere: so many are touched before they are read, so that the waits for memory overlap. */
const AHEAD: u32 = 32
let touched: u64 = 0

/** Read by nobody: without a reader the compiler would leave out the loads. */
export function archiveTouched(): u64 {
  return touched
}

function touch(from: u32, to: u32): void {
  let sum: u64 = 0
  for (let i = from; i < to; i += 1) {
    const row = load<u32>(starts + ((load<u32>(order + ((i as usize) << 2)) as usize) << 2)) as usize
    sum += load<u64>(row) + load<u64>(row + 64) + load<u64>(row + 128)
  }
  touched += sum
}

/** Columns of the sorted rows from `first` on, at most so many rows and about so many bytes. Answers the rows. */
export function archiveBlock(first: u32, rowsMax: u32, bytesMax: u32): u32 {
  let bytes: usize = 0
  let rows: u32 = 0
  while (rows < rowsMax && first + rows < count && bytes < (bytesMax as usize)) {
    const row = starts + ((load<u32>(order + (((first + rows) as usize) << 2)) as usize) << 2)
    bytes += load<u32>(row, 4) - load<u32>(row)
    rows += 1
  }
  let at = blocks
  for (let i: usize = 0; i < COLUMNS; i += 1) {
    store<u32>(ARCHIVE_COLUMNS + (i << 3), at as u32)
    // No text column is longer than the rows.
    at += isText(i) ? bytes + SLACK : ((rows as usize) << 4) + SLACK
  }
  room(at)
  let tenant = column(0)
  let source = column(1)
  let id = column(2)
  let metric = column(3)
  let version = column(4)
  let subject = column(5)
  let time = column(6)
  let value = column(7)
  let dims = column(8)
  let member = column(9)
  let kind = column(10)
  let received = column(11)
  let position = column(12)
  let stream = column(13)
  let epoch = column(14)
  let chunk = column(15)
  for (let i: u32 = 0; i < rows; i += 1) {
    if ((i & (AHEAD - 1)) === 0) touch(first + i, min(first + i + AHEAD, count))
    let from = load<u32>(starts + ((load<u32>(order + (((first + i) as usize) << 2)) as usize) << 2)) as usize
    let to = text(from)
    tenant = put(tenant, from, to)
    from = text(to)
    source = put(source, to, from)
    to = text(from)
    id = put(id, from, to)
    from = text(to)
    metric = put(metric, to, from)
    store<u32>(version, load<u32>(from))
    version += 4
    to = text(from + 4)
    subject = put(subject, from + 4, to)
    store<u64>(time, load<u64>(to))
    time += 8
    v128.store(value, v128.load(to + 8))
    value += 16
    from = text(to + 24)
    dims = put(dims, to + 24, from)
    to = text(from)
    member = put(member, from, to)
    store<u8>(kind, load<u8>(to))
    kind += 1
    store<u64>(received, load<u64>(to + 1))
    received += 8
    store<u64>(position, load<u64>(to + 9))
    position += 8
    store<u16>(stream, load<u16>(to + 17))
    stream += 2
    store<u64>(epoch, load<u64>(to + 19))
    epoch += 8
    store<u16>(chunk, load<u16>(to + 27))
    chunk += 2
  }
  ends(0, tenant)
  ends(1, source)
  ends(2, id)
  ends(3, metric)
  ends(4, version)
  ends(5, subject)
  ends(6, time)
  ends(7, value)
  ends(8, dims)
  ends(9, member)
  ends(10, kind)
  ends(11, received)
  ends(12, position)
  ends(13, stream)
  ends(14, epoch)
  ends(15, chunk)
  return rows
}
