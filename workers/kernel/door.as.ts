/**
 * The door in WASM: a native-JSON body to frames, without an object or a string for an event. src/ingest/kernel-door.ts calls
 * it; src/ingest/ingest.ts is the oracle: same verdicts, same indices, same frame bytes (src/frame.ts has the layout).
 *
 *   begin(body) -> run() -> DONE            every event is stored: frameBytes() and writeFrame() for each stream
 *                        -> EVENT           the event at eventAt() is not for the kernel: the host judges it, push()es it when it
 *                                           is sound, and resume()s behind it
 *                        -> BODY            the whole body is for the plain path
 *
 * The kernel stores an event only when it is certain that the oracle stores the same one. It never refuses: escapes, unknown
 * names, bad values, anything unexpected is EVENT or BODY, and then the oracle's words are the answer.
 *
 * Bounds: SLACK zero bytes stand behind the body and zero is no byte of JSON outside of a broken one, so each loop over bytes
 * ends there at the latest; no loop goes back. Look-ups give up after PROBES_MAX steps (BODY), so time is linear in the body
 * even for names that are made to meet in a table.
 *
 * Memory, from the bottom; the host places everything from `layOut` on and grows the memory before it calls:
 *
 *      0        nothing
 *      POWERS   10^0 .. 10^18, i64
 *      NO_DIMS  «{}»
 *      PAIRS    dimensions of the event in hand: name at, name length, value at, value length, 1 when quoted; 20 bytes each
 *      PLACES   the pair of each dimension's slot + 1, u32
 *      STREAMS  one record a stream: counts, byte counts, heads and tails of its lists
 *      EVENTS   one record of 64 bytes a stored event
 *      SERIES, ORIGINS, METRICS    one record for each one seen in this body
 *      the slots of their three tables: record + 1 in the low 14 bits, hash above; 0 is empty
 *      FIXED_BYTES
 *      tenants  records, slots, metrics with their dimensions, texts: the catalogue      <- layOut, addTenant, addMetric
 *      body     its bytes, SLACK zeroes
 *      texts    canonical dimensions that are not as they stand in the body, texts of pushed events
 *      frame    written by writeFrame, then the indices
 */
import { copy, equal, hashBytes, hashEnd, hashStart, SLACK, setSeed } from './bytes.as'

// What run() and resume() answer.
const DONE: i32 = 0
const EVENT: i32 = 1
const BODY: i32 = 2

/** Events of one body; limits.batchEventsMax is at most this. */
const EVENTS_MAX: u32 = 10_000
export const STREAMS_MAX: u32 = 1_024
const PAIRS_MAX: u32 = 32
const ID_BYTES_MAX: u32 = 256
const NAME_BYTES_MAX: u32 = 256
const PROBES_MAX: u32 = 128
const NONE: u32 = 0xffff_ffff

const POWERS: usize = 1_024
const NO_DIMS: usize = 1_536
const PAIRS: usize = 2_048
const PAIR_BYTES: usize = 20
/** 16 dimensions: the host leaves metrics with more to the plain path. */
const PLACES: usize = 4_096
const STREAMS: usize = 8_192
const STREAM_BYTES: usize = 80
const EVENTS: usize = STREAMS + (STREAMS_MAX as usize) * STREAM_BYTES
const EVENT_BYTES: usize = 64
const SERIES: usize = EVENTS + (EVENTS_MAX as usize) * EVENT_BYTES
const SERIES_BYTES: usize = 48
const ORIGINS: usize = SERIES + (EVENTS_MAX as usize) * SERIES_BYTES
const ORIGIN_BYTES: usize = 40
const METRICS: usize = ORIGINS + (EVENTS_MAX as usize) * ORIGIN_BYTES
const METRIC_BYTES: usize = 24
const TABLE_SLOTS: u32 = 32_768
const SERIES_SLOTS: usize = METRICS + (EVENTS_MAX as usize) * METRIC_BYTES
const ORIGIN_SLOTS: usize = SERIES_SLOTS + 4 * (TABLE_SLOTS as usize)
const METRIC_SLOTS: usize = ORIGIN_SLOTS + 4 * (TABLE_SLOTS as usize)
export const FIXED_BYTES: usize = METRIC_SLOTS + 4 * (TABLE_SLOTS as usize)

// Low 14 bits of a slot: the record + 1. EVENTS_MAX fits.
const SLOT_RECORD: u32 = 0x3fff

// A stream's record.
const S_EVENTS: usize = 0
const S_FIRST_EVENT: usize = 4
const S_LAST_EVENT: usize = 8
const S_METRICS: usize = 12
const S_ORIGINS: usize = 16
const S_SERIES: usize = 20
const S_METRIC_BYTES: usize = 24
const S_ORIGIN_BYTES: usize = 28
const S_SERIES_BYTES: usize = 32
const S_ID_BYTES: usize = 36
const S_MEMBER_BYTES: usize = 40
const S_FIRST_SERIES: usize = 44
const S_LAST_SERIES: usize = 48
const S_FIRST_ORIGIN: usize = 52
const S_LAST_ORIGIN: usize = 56
const S_FIRST_METRIC: usize = 60
const S_LAST_METRIC: usize = 64

// An event's record: f64 time, i64 value, u32 series, u32 origin (both within the stream), id, member, index, kind, next.
const E_TIME: usize = 0
const E_VALUE: usize = 8
const E_SERIES: usize = 16
const E_ORIGIN: usize = 20
const E_ID: usize = 24
const E_ID_LENGTH: usize = 28
const E_MEMBER: usize = 32
const E_MEMBER_LENGTH: usize = 36
const E_INDEX: usize = 40
const E_KIND: usize = 44
const E_NEXT: usize = 48

// Records of what a body has seen: slot, what it is, its number within its stream, the next one of the stream.
const X_SLOT: usize = 0
const X_TENANT: usize = 4
const X_TEXT: usize = 8
const X_TEXT_LENGTH: usize = 12
const X_NUMBER: usize = 16
const X_NEXT: usize = 20
/** Series only: metric, dims, and the metric's number within the stream. */
const X_METRIC: usize = 24
const X_DIMS: usize = 28
const X_DIMS_LENGTH: usize = 32
const X_METRIC_NUMBER: usize = 36

// A tenant's record: text, hash, stream, and its last origin in the body with this stamp.
const TENANT_BYTES: usize = 32
const T_TEXT: usize = 0
const T_LENGTH: usize = 4
const T_HASH: usize = 8
const T_STREAM: usize = 12
const T_STAMP: usize = 16
const T_ORIGIN: usize = 20

// A catalogue metric's record.
const M_BYTES: usize = 80
const M_TEXT: usize = 0
const M_LENGTH: usize = 4
const M_HASH: usize = 8
/** The row of the frame's metric table, as it is written there. */
const M_ROW: usize = 12
const M_ROW_LENGTH: usize = 16
const M_SCALE: usize = 20
const M_FLAGS: usize = 24
const M_DIMS: usize = 28
const M_DIM_COUNT: usize = 32
const M_MEMBER: usize = 36
const M_MEMBER_LENGTH: usize = 40
const FLAG_ARCHIVE: u32 = 1
const FLAG_COUNTS_VALUE: u32 = 2
const FLAG_UNIQUE_SUBJECT: u32 = 4
const FLAG_UNIQUE_DIM: u32 = 8
/** A dimension: its name, and `"name":` as JSON. */
const D_BYTES: usize = 16

const KIND_VOID: u32 = 1
const KIND_UNTIMED: u32 = 2

// Names with their closing quote, as little-endian numbers.
const MASK_24: u64 = 0xff_ffff
const MASK_40: u64 = 0xff_ffff_ffff
const MASK_48: u64 = 0xffff_ffff_ffff
const MASK_56: u64 = 0xff_ffff_ffff_ffff
const NAME_ID: u64 = 0x22_64_69
const NAME_TENANT: u64 = 0x22_74_6e_61_6e_65_74
const NAME_SOURCE: u64 = 0x22_65_63_72_75_6f_73
const NAME_METRIC: u64 = 0x22_63_69_72_74_65_6d
const NAME_SUBJECT: u64 = 0x22_74_63_65_6a_62_75_73
const NAME_TIME: u64 = 0x22_65_6d_69_74
const NAME_VALUE: u64 = 0x22_65_75_6c_61_76
const NAME_DIMS: u64 = 0x22_73_6d_69_64
const NAME_KIND: u64 = 0x22_64_6e_69_6b

const QUOTE: u32 = 0x22

// The catalogue.
let tenants: usize = 0
let tenantCount: u32 = 0
let tenantSlots: usize = 0
let tenantMask: u32 = 0
let metrics: usize = 0
let metricCount: u32 = 0
let metricSlots: usize = 0
let metricMask: u32 = 0
let streams: u32 = 0

// The body.
let at: usize = 0
let end: usize = 0
let isArray: bool = false
let count: u32 = 0
let stored: u32 = 0
let eventsMax: u32 = 0
let boundTenant: u32 = NONE
let receivedAt: f64 = 0
let floorTime: f64 = 0
let latestTime: f64 = 0
let stamp: u32 = 0
let texts: usize = 0
let textsEnd: usize = 0
let seriesCount: u32 = 0
let originCount: u32 = 0
let metricsSeen: u32 = 0
/** A table gave up: the event in hand, and with it the body, is for the plain path. */
let exhausted: bool = false

// Second results.
let parsedValue: i64 = 0
let parsedTime: f64 = 0
let pairCount: u32 = 0
/** No blanks, strings only: canonical when the names are in order as well. */
let dimsTight: bool = false
let lastDate: u64 = 0
let lastDateDay: u32 = 0
let lastDateDays: i64 = 0

/** Begins an empty catalogue. Records and slots are zero and lie where the host says; a slot count is a power of two. */
export function layOut(
  hashSeed: u64,
  streamCount: u32,
  tenantsAt: usize,
  tenantSlotsAt: usize,
  tenantSlotCount: u32,
  metricsAt: usize,
  metricSlotsAt: usize,
  metricSlotCount: u32,
): void {
  setSeed(hashSeed)
  let power: i64 = 1
  for (let i: usize = 0; i < 19; i += 1) {
    store<i64>(POWERS + (i << 3), power)
    power *= 10
  }
  store<u16>(NO_DIMS, 0x7d7b)
  streams = streamCount
  tenants = tenantsAt
  tenantSlots = tenantSlotsAt
  tenantMask = tenantSlotCount - 1
  tenantCount = 0
  metrics = metricsAt
  metricSlots = metricSlotsAt
  metricMask = metricSlotCount - 1
  metricCount = 0
}

/** Records are added to the catalogue in their order; false when the table has no near place, and then the tenant is unknown. */
export function addTenant(text: usize, length: u32, stream: u32): bool {
  const hash = hashEnd(hashBytes(hashStart(1, 0), text, length))
  let slot = hash & tenantMask
  let probes: u32 = 0
  while (load<u32>(tenantSlots + ((slot as usize) << 2)) !== 0) {
    slot = (slot + 1) & tenantMask
    probes += 1
    if (probes === PROBES_MAX) return false
  }
  const record = tenants + (tenantCount as usize) * TENANT_BYTES
  store<u32>(record, text as u32, T_TEXT)
  store<u32>(record, length, T_LENGTH)
  store<u32>(record, hash, T_HASH)
  store<u32>(record, stream, T_STREAM)
  store<u32>(record, 0, T_STAMP)
  tenantCount += 1
  store<u32>(tenantSlots + ((slot as usize) << 2), tenantCount)
  return true
}

export function addMetric(
  text: usize,
  length: u32,
  row: usize,
  rowLength: u32,
  scale: u32,
  flags: u32,
  dimsAt: usize,
  member: usize,
  memberLength: u32,
): bool {
  const hash = hashEnd(hashBytes(hashStart(2, 0), text, length))
  let slot = hash & metricMask
  let probes: u32 = 0
  while (load<u32>(metricSlots + ((slot as usize) << 2)) !== 0) {
    slot = (slot + 1) & metricMask
    probes += 1
    if (probes === PROBES_MAX) return false
  }
  const record = metrics + (metricCount as usize) * M_BYTES
  store<u32>(record, text as u32, M_TEXT)
  store<u32>(record, length, M_LENGTH)
  store<u32>(record, hash, M_HASH)
  store<u32>(record, row as u32, M_ROW)
  store<u32>(record, rowLength, M_ROW_LENGTH)
  store<u32>(record, scale, M_SCALE)
  store<u32>(record, flags, M_FLAGS)
  store<u32>(record, dimsAt as u32, M_DIMS)
  store<u32>(record, 0, M_DIM_COUNT)
  store<u32>(record, member as u32, M_MEMBER)
  store<u32>(record, memberLength, M_MEMBER_LENGTH)
  metricCount += 1
  store<u32>(metricSlots + ((slot as usize) << 2), metricCount)
  return true
}

/** A dimension of the metric added last, in canonical order. */
export function addDim(name: usize, nameLength: u32, label: usize, labelLength: u32): void {
  const record = metrics + ((metricCount - 1) as usize) * M_BYTES
  const number = load<u32>(record, M_DIM_COUNT)
  const dim = (load<u32>(record, M_DIMS) as usize) + (number as usize) * D_BYTES
  store<u32>(dim, name as u32)
  store<u32>(dim, nameLength, 4)
  store<u32>(dim, label as u32, 8)
  store<u32>(dim, labelLength, 12)
  store<u32>(record, number + 1, M_DIM_COUNT)
}

/** Number of a tenant, or NONE. */
export function findTenant(text: usize, length: u32): u32 {
  const hash = hashEnd(hashBytes(hashStart(1, 0), text, length))
  let slot = hash & tenantMask
  for (let probes: u32 = 0; probes < PROBES_MAX; probes += 1) {
    const number = load<u32>(tenantSlots + ((slot as usize) << 2))
    if (number === 0) return NONE
    const record = tenants + ((number - 1) as usize) * TENANT_BYTES
    if (
      load<u32>(record, T_HASH) === hash &&
      load<u32>(record, T_LENGTH) === length &&
      equal(load<u32>(record, T_TEXT) as usize, text, length)
    ) {
      return number - 1
    }
    slot = (slot + 1) & tenantMask
  }
  return NONE
}

function findMetric(text: usize, length: u32): u32 {
  const hash = hashEnd(hashBytes(hashStart(2, 0), text, length))
  let slot = hash & metricMask
  for (let probes: u32 = 0; probes < PROBES_MAX; probes += 1) {
    const number = load<u32>(metricSlots + ((slot as usize) << 2))
    if (number === 0) return NONE
    const record = metrics + ((number - 1) as usize) * M_BYTES
    if (
      load<u32>(record, M_HASH) === hash &&
      load<u32>(record, M_LENGTH) === length &&
      equal(load<u32>(record, M_TEXT) as usize, text, length)
    ) {
      return number - 1
    }
    slot = (slot + 1) & metricMask
  }
  return NONE
}

/**
 * Starts on the body at [bodyAt, bodyAt + length), with SLACK zeroes behind it; canonical texts go to [textsAt, textsTo).
 * `tenant` is the number of the key's tenant, NONE for a key of the whole platform. False: the body is for the plain path.
 */
export function begin(
  bodyAt: usize,
  length: u32,
  textsAt: usize,
  textsTo: usize,
  tenant: u32,
  received: f64,
  floor: f64,
  ahead: f64,
  max: u32,
): bool {
  forget(SERIES, SERIES_BYTES, seriesCount, SERIES_SLOTS)
  forget(ORIGINS, ORIGIN_BYTES, originCount, ORIGIN_SLOTS)
  forget(METRICS, METRIC_BYTES, metricsSeen, METRIC_SLOTS)
  memory.fill(STREAMS, 0, (streams as usize) * STREAM_BYTES)
  seriesCount = 0
  originCount = 0
  metricsSeen = 0
  count = 0
  stored = 0
  exhausted = false
  eventsMax = max
  texts = textsAt
  textsEnd = textsTo
  boundTenant = tenant
  receivedAt = received
  floorTime = floor
  latestTime = received + ahead
  stamp += 1
  if (stamp === 0) {
    for (let i: u32 = 0; i < tenantCount; i += 1) store<u32>(tenants + (i as usize) * TENANT_BYTES, 0, T_STAMP)
    stamp = 1
  }
  end = bodyAt + length
  at = blanks(bodyAt)
  const first = load<u8>(at) as u32
  isArray = first === 0x5b
  return isArray || first === 0x7b
}

/**
 * Goes on with another body behind those before, for the same frames: `received` counts on. Its key may be of another tenant.
 * Nothing of the bodies before is undone when this one is for the plain path: then the host judges each alone.
 */
export function beginNext(bodyAt: usize, length: u32, tenant: u32): bool {
  boundTenant = tenant
  end = bodyAt + length
  at = blanks(bodyAt)
  const first = load<u8>(at) as u32
  isArray = first === 0x5b
  return isArray || first === 0x7b
}

/** Empties the slots that the last body filled. */
function forget(records: usize, bytes: usize, used: u32, slots: usize): void {
  for (let i: u32 = 0; i < used; i += 1) {
    store<u32>(slots + ((load<u32>(records + (i as usize) * bytes, X_SLOT) as usize) << 2), 0)
  }
}

/** Reads events until the body ends or something is not for the kernel. */
export function run(): i32 {
  if (!isArray) {
    const next = scanEvent(at)
    if (exhausted) return BODY
    if (next === 0) return EVENT
    return resume(next)
  }
  at = blanks(at + 1)
  if (load<u8>(at) === 0x5d) return finish(at + 1)
  return scanEvents()
}

/** The host has judged the event at eventAt(), which ends at `next`. */
export function resume(next: usize): i32 {
  count += 1
  if (!isArray) return finish(next)
  at = blanks(next)
  const byte = load<u8>(at) as u32
  if (byte === 0x5d) return finish(at + 1)
  if (byte !== 0x2c) return BODY
  at = blanks(at + 1)
  if (load<u8>(at) === 0x5d) return BODY
  return scanEvents()
}

function finish(behind: usize): i32 {
  return blanks(behind) === end ? DONE : BODY
}

/** Stands on the first byte of an element. */
function scanEvents(): i32 {
  for (;;) {
    if (count === eventsMax) return BODY
    const next = scanEvent(at)
    if (exhausted) return BODY
    if (next === 0) return EVENT
    count += 1
    at = blanks(next)
    const byte = load<u8>(at) as u32
    if (byte === 0x2c) {
      at = blanks(at + 1)
      if (load<u8>(at) === 0x5d) return BODY
    } else {
      return byte === 0x5d ? finish(at + 1) : BODY
    }
  }
  return BODY
}

export function eventAt(): usize {
  return at
}

/** Events read, whatever became of them. */
export function received(): u32 {
  return count
}

function blanks(from: usize): usize {
  let byte = load<u8>(from) as u32
  while (byte <= 0x20 && (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09)) {
    from += 1
    byte = load<u8>(from) as u32
  }
  return from
}

/**
 * The closing quote of a string whose first byte is here; 0 when it has an escape, a control character or invalid UTF-8, or
 * does not end.
 */
function stringEnd(from: usize): usize {
  for (;;) {
    const bytes = v128.load(from)
    // One more, signed: 0x7f and everything above wraps below zero, and with the control characters below 0x21.
    const odd = i8x16.lt_s(i8x16.add(bytes, i8x16.splat(1)), i8x16.splat(0x21))
    const stops = v128.or(odd, v128.or(i8x16.eq(bytes, i8x16.splat(0x22)), i8x16.eq(bytes, i8x16.splat(0x5c))))
    const mask = i8x16.bitmask(stops)
    if (mask !== 0) {
      from += ctz(mask)
      const byte = load<u8>(from) as u32
      if (byte === QUOTE) return from
      return byte >= 0x80 ? unicodeEnd(from) : 0
    }
    from += 16
  }
  return 0
}

/** stringEnd() from a byte above 0x7f on: checks UTF-8, and refuses the control characters U+0080 to U+009F. */
function unicodeEnd(from: usize): usize {
  for (;;) {
    const a = load<u8>(from) as u32
    if (a < 0x80) {
      if (a === QUOTE) return from
      if (a < 0x20 || a === 0x5c || a === 0x7f) return 0
      from += 1
      continue
    }
    const b = load<u8>(from, 1) as u32
    if ((b & 0xc0) !== 0x80) return 0
    if (a < 0xe0) {
      if (a < 0xc2 || (a === 0xc2 && b < 0xa0)) return 0
      from += 2
      continue
    }
    if ((load<u8>(from, 2) & 0xc0) !== 0x80) return 0
    if (a < 0xf0) {
      if ((a === 0xe0 && b < 0xa0) || (a === 0xed && b > 0x9f)) return 0
      from += 3
      continue
    }
    if ((load<u8>(from, 3) & 0xc0) !== 0x80) return 0
    if (a > 0xf4 || (a === 0xf0 && b < 0x90) || (a === 0xf4 && b > 0x8f)) return 0
    from += 4
  }
  return 0
}

function isDigit(byte: u32): bool {
  return byte - 0x30 < 10
}

/** The byte behind a number by the grammar of JSON; 0 when it is none. */
function numberEnd(from: usize): usize {
  let byte = load<u8>(from) as u32
  if (byte === 0x2d) {
    from += 1
    byte = load<u8>(from) as u32
  }
  if (!isDigit(byte)) return 0
  if (byte === 0x30) from += 1
  else while (isDigit(load<u8>(from))) from += 1
  if (load<u8>(from) === 0x2e) {
    from += 1
    if (!isDigit(load<u8>(from))) return 0
    while (isDigit(load<u8>(from))) from += 1
  }
  if ((load<u8>(from) | 0x20) === 0x65) {
    from += 1
    byte = load<u8>(from) as u32
    if (byte === 0x2b || byte === 0x2d) from += 1
    if (!isDigit(load<u8>(from))) return 0
    while (isDigit(load<u8>(from))) from += 1
  }
  return from
}

/**
 * Decimal text to a scaled integer in parsedValue. False when it is not sure: an exponent, more decimals than the scale, more
 * than 18 digits once scaled. The count of digits is checked before the scaling; nothing can wrap unseen.
 */
function parseDecimal(from: usize, to: usize, scale: u32): bool {
  if (to - from > 20) return false
  let byte = load<u8>(from) as u32
  const isNegative = byte === 0x2d
  if (isNegative) {
    from += 1
    byte = load<u8>(from) as u32
  }
  let value: i64 = 0
  let whole: u32 = 0
  let decimals: u32 = 0
  if (byte === 0x30 && isDigit(load<u8>(from, 1))) return false
  while (from < to && isDigit(byte)) {
    value = value * 10 + ((byte - 0x30) as i64)
    whole += 1
    from += 1
    byte = load<u8>(from) as u32
  }
  if (whole === 0) return false
  if (from < to && byte === 0x2e) {
    from += 1
    byte = load<u8>(from) as u32
    while (from < to && isDigit(byte)) {
      value = value * 10 + ((byte - 0x30) as i64)
      decimals += 1
      from += 1
      byte = load<u8>(from) as u32
    }
    if (decimals === 0) return false
  }
  if (from !== to || decimals > scale || whole + scale > 18) return false
  value *= load<i64>(POWERS + (((scale - decimals) as usize) << 3))
  parsedValue = isNegative ? -value : value
  return true
}

function two(from: usize): u32 {
  const tens = (load<u8>(from) as u32) - 0x30
  const ones = (load<u8>(from, 1) as u32) - 0x30
  return tens < 10 && ones < 10 ? tens * 10 + ones : NONE
}

/** Days since 1970 of a date, or a number too small for any. */
function daysOf(from: usize): i64 {
  const century = two(from)
  const ofCentury = two(from + 2)
  const month = two(from + 5)
  const day = two(from + 8)
  if (century === NONE || ofCentury === NONE || month - 1 > 11 || day - 1 > 30) return i64.MIN_VALUE
  if (load<u8>(from, 4) !== 0x2d || load<u8>(from, 7) !== 0x2d) return i64.MIN_VALUE
  const year = century * 100 + ofCentury
  // Before 1970 is before any floor that a door has; the oracle has the words for it.
  if (year < 1970) return i64.MIN_VALUE
  const isLeap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0
  const monthDays: u32 =
    month === 2 ? (isLeap ? 29 : 28) : month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31
  if (day > monthDays) return i64.MIN_VALUE
  // March is the first month here, so that a leap day is the last one of its year.
  const y = month <= 2 ? year - 1 : year
  const m = month <= 2 ? month + 9 : month - 3
  const days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1
  return (days as i64) - 719_468
}

/** RFC 3339 text to parsedTime. False when it is not sure: also for a leap second. */
function parseTime(from: usize, to: usize): bool {
  const length = (to - from) as u32
  if (length < 20 || length > 35) return false
  // Neighbours mostly share their day.
  const date = load<u64>(from)
  const day = load<u16>(from, 8) as u32
  let days: i64
  if (date === lastDate && day === lastDateDay) days = lastDateDays
  else {
    days = daysOf(from)
    if (days === i64.MIN_VALUE) return false
    lastDate = date
    lastDateDay = day
    lastDateDays = days
  }
  const hour = two(from + 11)
  const minute = two(from + 14)
  const second = two(from + 17)
  if (hour > 23 || minute > 59 || second > 59) return false
  if ((load<u8>(from, 10) | 0x20) !== 0x74 || load<u8>(from, 13) !== 0x3a || load<u8>(from, 16) !== 0x3a) return false
  let p = from + 19
  let ms: u32 = 0
  if (load<u8>(p) === 0x2e) {
    p += 1
    const start = p
    let byte = load<u8>(p) as u32
    while (p < to && isDigit(byte)) {
      if (p - start < 3) ms = ms * 10 + (byte - 0x30)
      p += 1
      byte = load<u8>(p) as u32
    }
    const decimals = (p - start) as u32
    if (decimals === 0 || decimals > 9) return false
    if (decimals === 1) ms *= 100
    else if (decimals === 2) ms *= 10
  }
  if (p >= to) return false
  let offset: i64 = 0
  const zone = load<u8>(p) as u32
  if ((zone | 0x20) === 0x7a) {
    if (p + 1 !== to) return false
  } else if (zone === 0x2b || zone === 0x2d) {
    if (p + 6 !== to || load<u8>(p, 3) !== 0x3a) return false
    const hours = two(p + 1)
    const minutes = two(p + 4)
    if (hours > 23 || minutes > 59) return false
    offset = ((hours * 60 + minutes) as i64) * (zone === 0x2b ? 60_000 : -60_000)
  } else return false
  const time = days * 86_400_000 + ((((hour * 60 + minute) * 60 + second) * 1_000 + ms) as i64) - offset
  parsedTime = time as f64
  return true
}

/** Whole epoch milliseconds to parsedTime; false when it is not sure. */
function parseMillis(from: usize, to: usize): bool {
  if (to - from > 15) return false
  let time: i64 = 0
  for (; from < to; from += 1) {
    const byte = load<u8>(from) as u32
    if (!isDigit(byte)) return false
    time = time * 10 + ((byte - 0x30) as i64)
  }
  parsedTime = time as f64
  return true
}

/** Reads `dims` into PAIRS, standing on its brace. Returns the byte behind it, or 0. */
function scanDims(from: usize): usize {
  pairCount = 0
  let p = blanks(from + 1)
  if (load<u8>(p) === 0x7d) {
    dimsTight = p === from + 1
    return p + 1
  }
  let tight = p === from + 1
  for (;;) {
    if (load<u8>(p) !== QUOTE || pairCount === PAIRS_MAX) return 0
    const nameEnd = stringEnd(p + 1)
    if (nameEnd === 0) return 0
    const pair = PAIRS + (pairCount as usize) * PAIR_BYTES
    store<u32>(pair, (p + 1) as u32)
    store<u32>(pair, (nameEnd - p - 1) as u32, 4)
    p = nameEnd + 1
    if (load<u8>(p) !== 0x3a) {
      p = blanks(p)
      tight = false
      if (load<u8>(p) !== 0x3a) return 0
    }
    p += 1
    if (load<u8>(p) <= 0x20) {
      p = blanks(p)
      tight = false
    }
    const first = load<u8>(p) as u32
    let valueEnd: usize
    if (first === QUOTE) {
      p += 1
      valueEnd = stringEnd(p)
      if (valueEnd === 0) return 0
      store<u32>(pair, p as u32, 8)
      store<u32>(pair, (valueEnd - p) as u32, 12)
      p = valueEnd + 1
    } else {
      tight = false
      if (first === 0x2d || isDigit(first)) valueEnd = numberEnd(p)
      else if (load<u32>(p) === 0x65757274) valueEnd = p + 4
      else if (first === 0x66 && load<u32>(p, 1) === 0x65736c61) valueEnd = p + 5
      else valueEnd = 0
      if (valueEnd === 0) return 0
      store<u32>(pair, p as u32, 8)
      store<u32>(pair, (valueEnd - p) as u32, 12)
      p = valueEnd
    }
    pairCount += 1
    let byte = load<u8>(p) as u32
    if (byte <= 0x20) {
      p = blanks(p)
      tight = false
      byte = load<u8>(p) as u32
    }
    if (byte === 0x7d) {
      dimsTight = tight
      return p + 1
    }
    if (byte !== 0x2c) return 0
    p += 1
    if (load<u8>(p) <= 0x20) {
      p = blanks(p)
      tight = false
    }
  }
  return 0
}

/** Reads the event at `from` and stores it. Returns the byte behind it, or 0 when it is for the oracle. */
function scanEvent(from: usize): usize {
  if (load<u8>(from) !== 0x7b) return 0
  let seen: u32 = 0
  let idAt: usize = 0
  let idEnd: usize = 0
  let tenantAt: usize = 0
  let tenantEnd: usize = 0
  let sourceAt: usize = 0
  let sourceEnd: usize = 0
  let metricAt: usize = 0
  let metricEnd: usize = 0
  let subjectAt: usize = 0
  let subjectEnd: usize = 0
  let valueAt: usize = 0
  let valueEnd: usize = 0
  let dimsAt: usize = 0
  let dimsEnd: usize = 0
  let time: f64 = receivedAt
  let kind: u32 = KIND_UNTIMED
  pairCount = 0
  let p = blanks(from + 1)
  for (;;) {
    if (load<u8>(p) !== QUOTE) return 0
    const name = load<u64>(p, 1)
    let bit: u32
    if ((name & MASK_24) === NAME_ID) {
      bit = 1
      p += 4
    } else if ((name & MASK_40) === NAME_TIME) {
      bit = 32
      p += 6
    } else if (name === NAME_SUBJECT) {
      bit = 16
      p += 9
    } else if ((name & MASK_48) === NAME_VALUE) {
      bit = 64
      p += 7
    } else if ((name & MASK_56) === NAME_METRIC) {
      bit = 8
      p += 8
    } else if ((name & MASK_56) === NAME_TENANT) {
      bit = 2
      p += 8
    } else if ((name & MASK_40) === NAME_DIMS) {
      bit = 128
      p += 6
    } else if ((name & MASK_56) === NAME_SOURCE) {
      bit = 4
      p += 8
    } else if ((name & MASK_40) === NAME_KIND) {
      bit = 256
      p += 6
    } else return 0
    if ((seen & bit) !== 0) return 0
    seen |= bit
    if (load<u8>(p) !== 0x3a) {
      p = blanks(p)
      if (load<u8>(p) !== 0x3a) return 0
    }
    p += 1
    if (load<u8>(p) <= 0x20) p = blanks(p)

    if (bit === 128) {
      if (load<u8>(p) !== 0x7b) return 0
      dimsAt = p
      p = scanDims(p)
      if (p === 0) return 0
      dimsEnd = p
    } else if (load<u8>(p) === QUOTE) {
      p += 1
      const stop = stringEnd(p)
      if (stop === 0) return 0
      if (bit === 1) {
        idAt = p
        idEnd = stop
      } else if (bit === 2) {
        tenantAt = p
        tenantEnd = stop
      } else if (bit === 8) {
        metricAt = p
        metricEnd = stop
      } else if (bit === 16) {
        subjectAt = p
        subjectEnd = stop
      } else if (bit === 32) {
        if (!parseTime(p, stop)) return 0
        time = parsedTime
        kind &= ~KIND_UNTIMED
      } else if (bit === 64) {
        valueAt = p
        valueEnd = stop
      } else if (bit === 4) {
        sourceAt = p
        sourceEnd = stop
      } else if (stop - p === 4 && load<u32>(p) === 0x64696f76) {
        kind |= KIND_VOID
      } else if (stop - p !== 5 || load<u32>(p) !== 0x67617375 || load<u8>(p, 4) !== 0x65) return 0
      p = stop + 1
    } else if (bit === 64 || bit === 32) {
      const stop = numberEnd(p)
      if (stop === 0) return 0
      if (bit === 64) {
        valueAt = p
        valueEnd = stop
      } else {
        if (!parseMillis(p, stop)) return 0
        time = parsedTime
        kind &= ~KIND_UNTIMED
      }
      p = stop
    } else return 0

    let byte = load<u8>(p) as u32
    if (byte <= 0x20) {
      p = blanks(p)
      byte = load<u8>(p) as u32
    }
    if (byte === 0x2c) {
      p += 1
      if (load<u8>(p) <= 0x20) p = blanks(p)
    } else if (byte === 0x7d) break
    else return 0
  }

  // What follows is vouch() of the oracle; the order does not matter, for nothing is refused here.
  if ((seen & 9) !== 9) return 0
  let tenant = boundTenant
  if ((seen & 2) !== 0) {
    if (tenant === NONE) tenant = findTenant(tenantAt, (tenantEnd - tenantAt) as u32)
    else {
      const record = tenants + (tenant as usize) * TENANT_BYTES
      if ((load<u32>(record, T_LENGTH) as usize) !== tenantEnd - tenantAt) return 0
      if (!equal(load<u32>(record, T_TEXT) as usize, tenantAt, tenantEnd - tenantAt)) return 0
    }
  }
  if (tenant === NONE) return 0
  const idLength = (idEnd - idAt) as u32
  if (idLength === 0 || idLength > ID_BYTES_MAX) return 0
  if (sourceEnd - sourceAt > (NAME_BYTES_MAX as usize) || subjectEnd - subjectAt > (NAME_BYTES_MAX as usize)) return 0
  const metric = findMetric(metricAt, (metricEnd - metricAt) as u32)
  if (metric === NONE) return 0
  const record = metrics + (metric as usize) * M_BYTES
  const flags = load<u32>(record, M_FLAGS)
  if ((kind & KIND_VOID) !== 0 && ((flags & FLAG_ARCHIVE) === 0 || (kind & KIND_UNTIMED) !== 0)) return 0
  if ((kind & KIND_UNTIMED) === 0 && (time < floorTime || time > latestTime)) return 0

  let member: usize = 0
  let memberLength: u32 = 0
  if ((flags & FLAG_UNIQUE_SUBJECT) !== 0) {
    member = subjectAt
    memberLength = (subjectEnd - subjectAt) as u32
  }
  // The texts grow only when the series is new.
  const textsBefore = texts
  let dims: usize
  let dimsLength: u32
  if (pairCount === 0) {
    dims = NO_DIMS
    dimsLength = 2
  } else {
    let inOrder = dimsTight
    let lastSlot: i32 = -1
    const dimCount = load<u32>(record, M_DIM_COUNT)
    const dimRecords = load<u32>(record, M_DIMS) as usize
    for (let slot: u32 = 0; slot < dimCount; slot += 1) store<u32>(PLACES + ((slot as usize) << 2), 0)
    for (let i: u32 = 0; i < pairCount; i += 1) {
      const pair = PAIRS + (i as usize) * PAIR_BYTES
      const nameAt = load<u32>(pair) as usize
      const nameLength = load<u32>(pair, 4)
      if (load<u32>(pair, 12) > NAME_BYTES_MAX) return 0
      let slot: u32 = 0
      for (; slot < dimCount; slot += 1) {
        const dim = dimRecords + (slot as usize) * D_BYTES
        if (load<u32>(dim, 4) === nameLength && equal(load<u32>(dim) as usize, nameAt, nameLength)) break
      }
      if (slot < dimCount) {
        if (load<u32>(PLACES + ((slot as usize) << 2)) !== 0) return 0
        store<u32>(PLACES + ((slot as usize) << 2), i + 1)
        if ((slot as i32) <= lastSlot) inOrder = false
        lastSlot = slot as i32
      } else {
        if ((flags & FLAG_UNIQUE_DIM) === 0 || member !== 0) return 0
        if (load<u32>(record, M_MEMBER_LENGTH) !== nameLength) return 0
        if (!equal(load<u32>(record, M_MEMBER) as usize, nameAt, nameLength)) return 0
        member = load<u32>(pair, 8) as usize
        memberLength = load<u32>(pair, 12)
        inOrder = false
      }
    }
    if (inOrder) {
      dims = dimsAt
      dimsLength = (dimsEnd - dimsAt) as u32
    } else {
      // Labels are at most six times their name (a host's matter), values at most NAME_BYTES_MAX; checked one by one.
      dims = texts
      let p = texts
      for (let slot: u32 = 0; slot < dimCount; slot += 1) {
        const place = load<u32>(PLACES + ((slot as usize) << 2))
        if (place === 0) continue
        const pair = PAIRS + ((place - 1) as usize) * PAIR_BYTES
        const dim = dimRecords + (slot as usize) * D_BYTES
        const labelLength = load<u32>(dim, 12)
        const length = load<u32>(pair, 12)
        if (p + (labelLength as usize) + (length as usize) + 4 + SLACK > textsEnd) return giveUp()
        store<u8>(p, p === texts ? 0x7b : 0x2c)
        copy(p + 1, load<u32>(dim, 8) as usize, labelLength)
        p += 1 + (labelLength as usize)
        store<u8>(p, 0x22)
        copy(p + 1, load<u32>(pair, 8) as usize, length)
        p += 1 + (length as usize)
        store<u8>(p, 0x22)
        p += 1
      }
      if (p === texts) {
        // Only a member: there is room, or the loop above has given up; nothing was written.
        if (p + 2 + SLACK > textsEnd) return giveUp()
        store<u8>(p, 0x7b)
        p += 1
      }
      store<u8>(p, 0x7d)
      p += 1
      dimsLength = (p - texts) as u32
      texts = p
    }
  }
  if ((flags & (FLAG_UNIQUE_SUBJECT | FLAG_UNIQUE_DIM)) !== 0 && memberLength === 0) {
    texts = textsBefore
    return 0
  }

  const scale = load<u32>(record, M_SCALE)
  let value = load<i64>(POWERS + ((scale as usize) << 3))
  if ((seen & 64) !== 0) {
    if ((flags & FLAG_COUNTS_VALUE) !== 0) {
      if (!parseDecimal(valueAt, valueEnd, scale)) {
        texts = textsBefore
        return 0
      }
      value = parsedValue
    } else if (!parseDecimal(valueAt, valueEnd, 9)) {
      texts = textsBefore
      return 0
    }
  }

  const isKept = keep(
    tenant,
    sourceAt,
    (sourceEnd - sourceAt) as u32,
    idAt,
    idLength,
    metric,
    subjectAt,
    (subjectEnd - subjectAt) as u32,
    dims,
    dimsLength,
    member,
    memberLength,
    time,
    value,
    kind,
  )
  if (isKept === KEPT_OLD) texts = textsBefore
  return isKept === KEPT_NOT ? 0 : p + 1
}

function giveUp(): usize {
  exhausted = true
  return 0
}

const KEPT_NOT: i32 = 0
const KEPT_OLD: i32 = 1
const KEPT_NEW: i32 = 2

/**
 * An event that the oracle has judged as sound; its texts are in kernel memory. False: a table gave up, the body is for the
 * plain path. `dims` is canonical; `tenant` and `metric` are numbers of the catalogue.
 */
export function push(
  tenant: u32,
  source: usize,
  sourceLength: u32,
  id: usize,
  idLength: u32,
  metric: u32,
  subject: usize,
  subjectLength: u32,
  dims: usize,
  dimsLength: u32,
  member: usize,
  memberLength: u32,
  time: f64,
  value: i64,
  kind: u32,
  textsFrom: usize,
): bool {
  texts = textsFrom
  return (
    keep(
      tenant,
      source,
      sourceLength,
      id,
      idLength,
      metric,
      subject,
      subjectLength,
      dims,
      dimsLength,
      member,
      memberLength,
      time,
      value,
      kind,
    ) !== KEPT_NOT
  )
}

/** Where texts may be written next: push() takes the first byte behind what the host wrote. */
export function textsAt(): usize {
  return texts
}

function keep(
  tenant: u32,
  source: usize,
  sourceLength: u32,
  id: usize,
  idLength: u32,
  metric: u32,
  subject: usize,
  subjectLength: u32,
  dims: usize,
  dimsLength: u32,
  member: usize,
  memberLength: u32,
  time: f64,
  value: i64,
  kind: u32,
): i32 {
  if (stored === EVENTS_MAX) {
    exhausted = true
    return KEPT_NOT
  }
  const tenantRecord = tenants + (tenant as usize) * TENANT_BYTES
  const stream = load<u32>(tenantRecord, T_STREAM)
  const streamRecord = STREAMS + (stream as usize) * STREAM_BYTES

  // Origin: mostly the tenant's last one.
  let origin: u32 = NONE
  if (load<u32>(tenantRecord, T_STAMP) === stamp) {
    const last = load<u32>(tenantRecord, T_ORIGIN)
    const known = ORIGINS + (last as usize) * ORIGIN_BYTES
    if (
      load<u32>(known, X_TEXT_LENGTH) === sourceLength &&
      equal(load<u32>(known, X_TEXT) as usize, source, sourceLength)
    ) {
      origin = last
    }
  }
  if (origin === NONE) {
    origin = internOrigin(tenant, source, sourceLength, streamRecord, load<u32>(tenantRecord, T_LENGTH))
    if (origin === NONE) return KEPT_NOT
    store<u32>(tenantRecord, stamp, T_STAMP)
    store<u32>(tenantRecord, origin, T_ORIGIN)
  }

  // Series.
  const hash = hashEnd(hashBytes(hashBytes(hashStart(tenant, metric), subject, subjectLength), dims, dimsLength))
  let slot = hash & (TABLE_SLOTS - 1)
  let series: u32 = NONE
  let isNew = false
  for (let probes: u32 = 0; ; probes += 1) {
    const entry = load<u32>(SERIES_SLOTS + ((slot as usize) << 2))
    if (entry === 0) break
    if (((entry ^ hash) & ~SLOT_RECORD) === 0) {
      const number = (entry & SLOT_RECORD) - 1
      const known = SERIES + (number as usize) * SERIES_BYTES
      if (
        load<u32>(known, X_TENANT) === tenant &&
        load<u32>(known, X_METRIC) === metric &&
        load<u32>(known, X_TEXT_LENGTH) === subjectLength &&
        load<u32>(known, X_DIMS_LENGTH) === dimsLength &&
        equal(load<u32>(known, X_TEXT) as usize, subject, subjectLength) &&
        equal(load<u32>(known, X_DIMS) as usize, dims, dimsLength)
      ) {
        series = number
        break
      }
    }
    if (probes === PROBES_MAX) {
      exhausted = true
      return KEPT_NOT
    }
    slot = (slot + 1) & (TABLE_SLOTS - 1)
  }
  if (series === NONE) {
    const metricNumber = internMetric(metric, stream, streamRecord)
    if (metricNumber === NONE) return KEPT_NOT
    isNew = true
    series = seriesCount
    seriesCount += 1
    store<u32>(SERIES_SLOTS + ((slot as usize) << 2), (hash & ~SLOT_RECORD) | (series + 1))
    const record = SERIES + (series as usize) * SERIES_BYTES
    store<u32>(record, slot, X_SLOT)
    store<u32>(record, tenant, X_TENANT)
    store<u32>(record, subject as u32, X_TEXT)
    store<u32>(record, subjectLength, X_TEXT_LENGTH)
    store<u32>(record, metric, X_METRIC)
    store<u32>(record, dims as u32, X_DIMS)
    store<u32>(record, dimsLength, X_DIMS_LENGTH)
    store<u32>(record, metricNumber, X_METRIC_NUMBER)
    append(streamRecord, record, series, S_SERIES, S_FIRST_SERIES, S_LAST_SERIES, SERIES, SERIES_BYTES)
    store<u32>(
      streamRecord,
      load<u32>(streamRecord, S_SERIES_BYTES) + 12 + load<u32>(tenantRecord, T_LENGTH) + subjectLength + dimsLength,
      S_SERIES_BYTES,
    )
  }

  const event = EVENTS + (stored as usize) * EVENT_BYTES
  store<f64>(event, time, E_TIME)
  store<i64>(event, value, E_VALUE)
  store<u32>(event, load<u32>(SERIES + (series as usize) * SERIES_BYTES, X_NUMBER), E_SERIES)
  store<u32>(event, load<u32>(ORIGINS + (origin as usize) * ORIGIN_BYTES, X_NUMBER), E_ORIGIN)
  store<u32>(event, id as u32, E_ID)
  store<u32>(event, idLength, E_ID_LENGTH)
  store<u32>(event, member as u32, E_MEMBER)
  store<u32>(event, memberLength, E_MEMBER_LENGTH)
  store<u32>(event, count, E_INDEX)
  store<u32>(event, kind, E_KIND)
  const events = load<u32>(streamRecord, S_EVENTS)
  if (events === 0) store<u32>(streamRecord, stored, S_FIRST_EVENT)
  else store<u32>(EVENTS + (load<u32>(streamRecord, S_LAST_EVENT) as usize) * EVENT_BYTES, stored, E_NEXT)
  store<u32>(streamRecord, stored, S_LAST_EVENT)
  store<u32>(streamRecord, events + 1, S_EVENTS)
  store<u32>(streamRecord, load<u32>(streamRecord, S_ID_BYTES) + idLength, S_ID_BYTES)
  store<u32>(streamRecord, load<u32>(streamRecord, S_MEMBER_BYTES) + memberLength, S_MEMBER_BYTES)
  stored += 1
  return isNew ? KEPT_NEW : KEPT_OLD
}

/** Puts a new record behind the last one of its stream and gives it its number there. */
function append(
  streamRecord: usize,
  record: usize,
  number: u32,
  countAt: usize,
  firstAt: usize,
  lastAt: usize,
  records: usize,
  bytes: usize,
): u32 {
  const before = load<u32>(streamRecord + countAt)
  store<u32>(record, before, X_NUMBER)
  if (before === 0) store<u32>(streamRecord + firstAt, number)
  else store<u32>(records + (load<u32>(streamRecord + lastAt) as usize) * bytes, number, X_NEXT)
  store<u32>(streamRecord + lastAt, number)
  store<u32>(streamRecord + countAt, before + 1)
  return before
}

function internOrigin(tenant: u32, source: usize, length: u32, streamRecord: usize, tenantLength: u32): u32 {
  const hash = hashEnd(hashBytes(hashStart(tenant, NONE), source, length))
  let slot = hash & (TABLE_SLOTS - 1)
  for (let probes: u32 = 0; ; probes += 1) {
    const entry = load<u32>(ORIGIN_SLOTS + ((slot as usize) << 2))
    if (entry === 0) break
    if (((entry ^ hash) & ~SLOT_RECORD) === 0) {
      const number = (entry & SLOT_RECORD) - 1
      const known = ORIGINS + (number as usize) * ORIGIN_BYTES
      if (
        load<u32>(known, X_TENANT) === tenant &&
        load<u32>(known, X_TEXT_LENGTH) === length &&
        equal(load<u32>(known, X_TEXT) as usize, source, length)
      ) {
        return number
      }
    }
    if (probes === PROBES_MAX) {
      exhausted = true
      return NONE
    }
    slot = (slot + 1) & (TABLE_SLOTS - 1)
  }
  const origin = originCount
  originCount += 1
  store<u32>(ORIGIN_SLOTS + ((slot as usize) << 2), (hash & ~SLOT_RECORD) | (origin + 1))
  const record = ORIGINS + (origin as usize) * ORIGIN_BYTES
  store<u32>(record, slot, X_SLOT)
  store<u32>(record, tenant, X_TENANT)
  store<u32>(record, source as u32, X_TEXT)
  store<u32>(record, length, X_TEXT_LENGTH)
  append(streamRecord, record, origin, S_ORIGINS, S_FIRST_ORIGIN, S_LAST_ORIGIN, ORIGINS, ORIGIN_BYTES)
  store<u32>(streamRecord, load<u32>(streamRecord, S_ORIGIN_BYTES) + 4 + tenantLength + length, S_ORIGIN_BYTES)
  return origin
}

/** The number of a catalogue metric within a stream's frame. */
function internMetric(metric: u32, stream: u32, streamRecord: usize): u32 {
  const hash = hashEnd(hashStart(metric, stream))
  let slot = hash & (TABLE_SLOTS - 1)
  for (let probes: u32 = 0; ; probes += 1) {
    const entry = load<u32>(METRIC_SLOTS + ((slot as usize) << 2))
    if (entry === 0) break
    if (((entry ^ hash) & ~SLOT_RECORD) === 0) {
      const known = METRICS + (((entry & SLOT_RECORD) - 1) as usize) * METRIC_BYTES
      if (load<u32>(known, X_TEXT) === metric && load<u32>(known, X_TENANT) === stream)
        return load<u32>(known, X_NUMBER)
    }
    if (probes === PROBES_MAX) {
      exhausted = true
      return NONE
    }
    slot = (slot + 1) & (TABLE_SLOTS - 1)
  }
  const number = metricsSeen
  metricsSeen += 1
  store<u32>(METRIC_SLOTS + ((slot as usize) << 2), (hash & ~SLOT_RECORD) | (number + 1))
  const record = METRICS + (number as usize) * METRIC_BYTES
  store<u32>(record, slot, X_SLOT)
  store<u32>(record, metric, X_TEXT)
  store<u32>(record, stream, X_TENANT)
  store<u32>(
    streamRecord,
    load<u32>(streamRecord, S_METRIC_BYTES) + load<u32>(metrics + (metric as usize) * M_BYTES, M_ROW_LENGTH),
    S_METRIC_BYTES,
  )
  return append(streamRecord, record, number, S_METRICS, S_FIRST_METRIC, S_LAST_METRIC, METRICS, METRIC_BYTES)
}

const HEADER_BYTES: usize = 72

function pad8(n: usize): usize {
  return (n + 7) & ~7
}

/** Stored events of a stream. */
export function streamEvents(stream: u32): u32 {
  return load<u32>(STREAMS + (stream as usize) * STREAM_BYTES, S_EVENTS)
}

/** Where the refusals of a stream's frame begin: its bytes without them. */
export function refusalsAt(stream: u32): usize {
  const record = STREAMS + (stream as usize) * STREAM_BYTES
  const n = load<u32>(record, S_EVENTS) as usize
  return (
    HEADER_BYTES +
    pad8(load<u32>(record, S_METRIC_BYTES)) +
    pad8(load<u32>(record, S_ORIGIN_BYTES)) +
    pad8(load<u32>(record, S_SERIES_BYTES)) +
    16 * n +
    4 * pad8(4 * n) +
    pad8(n) +
    pad8(load<u32>(record, S_ID_BYTES)) +
    pad8(load<u32>(record, S_MEMBER_BYTES))
  )
}

/** Memory that writeFrame needs behind `target`: the frame, the indices, and slack for the copies. */
export function frameBytes(stream: u32): usize {
  return refusalsAt(stream) + 4 * (streamEvents(stream) as usize) + SLACK
}

/** Writes a stream's frame without refusals, and behind it the indices of its events, u32 each. `target` is a multiple of 8. */
export function writeFrame(stream: u32, target: usize, catalogVersion: u32): void {
  const record = STREAMS + (stream as usize) * STREAM_BYTES
  const n = load<u32>(record, S_EVENTS)
  const words = pad8(4 * (n as usize))
  const metricBytes = load<u32>(record, S_METRIC_BYTES)
  const originBytes = load<u32>(record, S_ORIGIN_BYTES)
  const seriesBytes = load<u32>(record, S_SERIES_BYTES)
  const idBytes = load<u32>(record, S_ID_BYTES)
  const memberBytes = load<u32>(record, S_MEMBER_BYTES)
  memory.fill(target, 0, HEADER_BYTES)
  store<u32>(target, 0x314d5246)
  store<u32>(target, n, 4)
  store<u32>(target, load<u32>(record, S_METRICS), 8)
  store<u32>(target, load<u32>(record, S_ORIGINS), 12)
  store<u32>(target, load<u32>(record, S_SERIES), 16)
  store<u32>(target, metricBytes, 20)
  store<u32>(target, originBytes, 24)
  store<u32>(target, seriesBytes, 28)
  store<u32>(target, idBytes, 32)
  store<u32>(target, memberBytes, 36)
  store<u32>(target, catalogVersion, 48)
  store<f64>(target, receivedAt, 56)
  store<f64>(target, floorTime, 64)

  // A copy writes up to 15 bytes too many; the sections are written in their order, so the next one mends it, and padding is
  // zeroed behind each.
  let p = target + HEADER_BYTES
  let next = load<u32>(record, S_FIRST_METRIC)
  for (let i: u32 = 0, to = load<u32>(record, S_METRICS); i < to; i += 1) {
    const seen = METRICS + (next as usize) * METRIC_BYTES
    const metric = metrics + (load<u32>(seen, X_TEXT) as usize) * M_BYTES
    const length = load<u32>(metric, M_ROW_LENGTH)
    copy(p, load<u32>(metric, M_ROW) as usize, length)
    p += length
    next = load<u32>(seen, X_NEXT)
  }
  store<u64>(p, 0)
  p = target + HEADER_BYTES + pad8(metricBytes)
  const originsAt = p
  next = load<u32>(record, S_FIRST_ORIGIN)
  for (let i: u32 = 0, to = load<u32>(record, S_ORIGINS); i < to; i += 1) {
    const origin = ORIGINS + (next as usize) * ORIGIN_BYTES
    const tenant = tenants + (load<u32>(origin, X_TENANT) as usize) * TENANT_BYTES
    p = text16(p, load<u32>(tenant, T_TEXT) as usize, load<u32>(tenant, T_LENGTH))
    p = text16(p, load<u32>(origin, X_TEXT) as usize, load<u32>(origin, X_TEXT_LENGTH))
    next = load<u32>(origin, X_NEXT)
  }
  store<u64>(p, 0)
  p = originsAt + pad8(originBytes)
  const seriesAt = p
  next = load<u32>(record, S_FIRST_SERIES)
  for (let i: u32 = 0, to = load<u32>(record, S_SERIES); i < to; i += 1) {
    const series = SERIES + (next as usize) * SERIES_BYTES
    const tenant = tenants + (load<u32>(series, X_TENANT) as usize) * TENANT_BYTES
    store<u32>(p, load<u32>(series, X_METRIC_NUMBER))
    p = text16(p + 4, load<u32>(tenant, T_TEXT) as usize, load<u32>(tenant, T_LENGTH))
    p = text16(p, load<u32>(series, X_TEXT) as usize, load<u32>(series, X_TEXT_LENGTH))
    const length = load<u32>(series, X_DIMS_LENGTH)
    store<u32>(p, length)
    copy(p + 4, load<u32>(series, X_DIMS) as usize, length)
    p += 4 + (length as usize)
    next = load<u32>(series, X_NEXT)
  }
  store<u64>(p, 0)

  const times = seriesAt + pad8(seriesBytes)
  const values = times + 8 * (n as usize)
  const seriesOf = values + 8 * (n as usize)
  const originOf = seriesOf + words
  const idEnds = originOf + words
  const memberEnds = idEnds + words
  const kinds = memberEnds + words
  const ids = kinds + pad8(n)
  const members = ids + pad8(idBytes)
  const behind = members + pad8(memberBytes)
  if ((n & 1) !== 0) {
    store<u32>(originOf - 4, 0)
    store<u32>(idEnds - 4, 0)
    store<u32>(memberEnds - 4, 0)
    store<u32>(kinds - 4, 0)
  }
  if (n > 0) store<u64>(ids - 8, 0)
  let idEnd: u32 = 0
  next = load<u32>(record, S_FIRST_EVENT)
  for (let i: usize = 0; i < (n as usize); i += 1) {
    const event = EVENTS + (next as usize) * EVENT_BYTES
    store<f64>(times + (i << 3), load<f64>(event, E_TIME))
    store<i64>(values + (i << 3), load<i64>(event, E_VALUE))
    store<u32>(seriesOf + (i << 2), load<u32>(event, E_SERIES))
    store<u32>(originOf + (i << 2), load<u32>(event, E_ORIGIN))
    const length = load<u32>(event, E_ID_LENGTH)
    copy(ids + (idEnd as usize), load<u32>(event, E_ID) as usize, length)
    idEnd += length
    store<u32>(idEnds + (i << 2), idEnd)
    store<u8>(kinds + i, load<u32>(event, E_KIND) as u8)
    next = load<u32>(event, E_NEXT)
  }
  if (idBytes > 0) store<u64>(ids + (idEnd as usize), 0)

  // Members stand behind the ids, and the copies of ids reach into them: so they come after.
  let memberEnd: u32 = 0
  next = load<u32>(record, S_FIRST_EVENT)
  for (let i: usize = 0; i < (n as usize); i += 1) {
    const event = EVENTS + (next as usize) * EVENT_BYTES
    const length = load<u32>(event, E_MEMBER_LENGTH)
    if (length > 0) {
      copy(members + (memberEnd as usize), load<u32>(event, E_MEMBER) as usize, length)
      memberEnd += length
    }
    store<u32>(memberEnds + (i << 2), memberEnd)
    next = load<u32>(event, E_NEXT)
  }
  if (memberBytes > 0) store<u64>(members + (memberEnd as usize), 0)

  next = load<u32>(record, S_FIRST_EVENT)
  for (let i: usize = 0; i < (n as usize); i += 1) {
    const event = EVENTS + (next as usize) * EVENT_BYTES
    store<u32>(behind + (i << 2), load<u32>(event, E_INDEX))
    next = load<u32>(event, E_NEXT)
  }
}

function text16(p: usize, text: usize, length: u32): usize {
  store<u16>(p, length as u16)
  copy(p + 2, text, length)
  return p + 2 + (length as usize)
}
