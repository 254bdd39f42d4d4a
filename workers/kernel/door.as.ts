/**
 * The door in WASM: events to frames, without an object or a string for one of them. A scanner (json.as.ts, msgpack.as.ts,
 * columnar.as.ts) reads the body and puts one event after the other into HAND; here it is judged, kept, and written into the
 * frames. src/ingest/kernel-door.ts calls it; src/ingest/ingest.ts is the oracle: same verdicts, same indices, same frame bytes
 * (src/frame.ts has the layout).
 *
 *   begin(body) -> run() -> DONE            every event is stored: frameBytes() and writeFrame() for each stream
 *                        -> EVENT           the event at eventAt() is not for the kernel: the host judges it, push()es it when it
 *                                           is sound, and resume()s behind it
 *                        -> BODY            the whole body is for the plain path
 *
 * The kernel stores an event only when it is certain that the oracle stores the same one. It never refuses: escapes, unknown
 * names, bad values, anything unexpected is EVENT or BODY, and then the oracle's words are the answer.
 *
 * Bounds: SLACK zero bytes stand behind the body and zero is no byte of JSON outside of a broken one, so each loop over text
 * ends there at the latest; a binary scanner compares with `end` before each read. No loop goes back. Look-ups give up after
 * PROBES_MAX steps (BODY), so time is linear in the body even for names that are made to meet in a table. A body that says more
 * than it is long (a text named over and over) spends from what it may be as JSON, and is BODY when nothing is left.
 *
 * Memory, from the bottom; the host places everything from `layOut` on and grows the memory before it calls:
 *
 *      0        nothing
 *      POWERS   of text.as.ts
 *      NO_DIMS  «{}»
 *      HAND     the event in hand
 *      PAIRS    its dimensions: name at, name length, value at, value length; 16 bytes each
 *      PLACES   the pair of each dimension's slot + 1, u32
 *      STREAMS  one record a stream: counts, byte counts, heads and tails of its lists
 *      EVENTS   one record of 64 bytes a stored event
 *      SERIES, ORIGINS, METRICS    one record for each one seen in this body
 *      the slots of their three tables: record + 1 in the low 14 bits, hash above; 0 is empty
 *      SCRATCH  of the scanner
 *      FIXED_BYTES
 *      tenants  records, slots, metrics with their dimensions, texts: the catalogue      <- layOut, addTenant, addMetric
 *      body     its bytes, SLACK zeroes
 *      texts    canonical dimensions that are not as they stand in the body, texts of pushed events
 *      frame    written by writeFrame, then the indices
 */
import { copy, equal, hashBytes, hashEnd, hashStart, SLACK, setSeed } from './bytes.as'
import { layOutText, parseDecimal, parsedValue, power, scaleDouble, scaleFixed } from './text.as'

// What run() and resume() answer.
export const DONE: i32 = 0
export const EVENT: i32 = 1
export const BODY: i32 = 2

/** Events of one body; limits.batchEventsMax is at most this. */
export const EVENTS_MAX: u32 = 10_000
export const STREAMS_MAX: u32 = 1_024
export const PAIRS_MAX: u32 = 32
const ID_BYTES_MAX: u32 = 256
export const NAME_BYTES_MAX: u32 = 256
const PROBES_MAX: u32 = 128
const NONE: u32 = 0xffff_ffff

const NO_DIMS: usize = 1_536
export const HAND: usize = 1_600
export const PAIRS: usize = 2_048
export const PAIR_BYTES: usize = 16
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
// What an event of the same tenant, metric, source, subject and dimensions need not be asked again: a row of 48 bytes.
const ROW_METRIC: usize = 0
const ROW_STREAM: usize = 4
const ROW_SERIES: usize = 8
const ROW_ORIGIN: usize = 12
const ROW_MEMBER: usize = 16
const ROW_MEMBER_LENGTH: usize = 20
export const ROW_BYTES: usize = 48

/** Of the scanners: records of msgpack, rows of the columnar frame. */
export const SCRATCH: usize = METRIC_SLOTS + 4 * (TABLE_SLOTS as usize)
export const FIXED_BYTES: usize = SCRATCH + (EVENTS_MAX as usize) * ROW_BYTES + 32_768

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

export const KIND_VOID: u32 = 1
export const KIND_UNTIMED: u32 = 2

// The event in hand: where its texts stand and how long they are, 0 for what was not said.
export const H_ID: usize = 0
export const H_ID_LENGTH: usize = 4
export const H_TENANT: usize = 8
export const H_TENANT_LENGTH: usize = 12
export const H_SOURCE: usize = 16
export const H_SOURCE_LENGTH: usize = 20
export const H_METRIC: usize = 24
export const H_METRIC_LENGTH: usize = 28
export const H_SUBJECT: usize = 32
export const H_SUBJECT_LENGTH: usize = 36
/** The dimensions as they stand in the body, when that is their canonical form but for the order; 0 else. */
export const H_DIMS: usize = 40
export const H_DIMS_LENGTH: usize = 44
export const H_VALUE: usize = 48
export const H_VALUE_LENGTH: usize = 52
export const H_VALUE_WAY: usize = 56
export const H_DECIMALS: usize = 60
/** i64 or f64, as the way says. */
export const H_NUMBER: usize = 64
export const H_TIME: usize = 72
export const H_KIND: usize = 80
/** Dimensions in PAIRS. */
export const H_PAIRS: usize = 84
/** 1: a pair that the metric does not name is no concern of ours. */
export const H_LENIENT: usize = 88
/** The tenant and the metric as numbers of the catalogue + 1: 0 until settle() has found them, or given by the scanner. */
export const H_TENANT_NUMBER: usize = 92
export const H_METRIC_NUMBER: usize = 96

// How the value in hand is given.
const VALUE_NONE: u32 = 0
export const VALUE_TEXT: u32 = 1
export const VALUE_FIXED: u32 = 2
export const VALUE_DOUBLE: u32 = 3
export const DECIMALS_ABSENT: u32 = 254

// The catalogue.
let tenants: usize = 0
let tenantCount: u32 = 0
let tenantSlots: usize = 0
let tenantMask: u32 = 0
let metrics: usize = 0
let metricCount: u32 = 0
let metricSlots: usize = 0
let metricMask: u32 = 0
let lastMetric: u32 = 0
let streams: u32 = 0

// The body.
export let end: usize = 0
export let count: u32 = 0
export let eventsMax: u32 = 0
export let receivedAt: f64 = 0
/** A table gave up: the event in hand, and with it the body, is for the plain path. */
export let exhausted: bool = false
let at: usize = 0
let stored: u32 = 0
let boundTenant: u32 = NONE
let floorTime: f64 = 0
let latestTime: f64 = 0
let jsonLeft: i64 = 0
let stamp: u32 = 0
let texts: usize = 0
let textsEnd: usize = 0
let seriesCount: u32 = 0
/** Of the slots in use, in each of the three tables. */
let slotMask: u32 = 0
let originCount: u32 = 0
let metricsSeen: u32 = 0

// Second results of settle(), for the event that it has kept.
let settledMetric: usize = 0
let settledMember: usize = 0
let settledMemberLength: u32 = 0
let keptStream: usize = 0
let keptSeries: u32 = 0
let keptOrigin: u32 = 0
let dimsAt: usize = 0
let dimsLength: u32 = 0

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
  layOutText()
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
  // Neighbours mostly share it.
  if (lastMetric < metricCount) {
    const record = metrics + (lastMetric as usize) * M_BYTES
    if (load<u32>(record, M_LENGTH) === length && equal(load<u32>(record, M_TEXT) as usize, text, length))
      return lastMetric
  }
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
      lastMetric = number - 1
      return number - 1
    }
    slot = (slot + 1) & metricMask
  }
  return NONE
}

/**
 * Starts on the body at [bodyAt, bodyAt + length), with SLACK zeroes behind it; canonical texts go to [textsAt, textsTo). `bytes`:
 * of all bodies until the next begin(); tables have as many slots as that needs, so that small bodies touch little memory.
 * `tenant` is the number of the key's tenant, NONE for a key of the whole platform. Behind it a scanner runs.
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
  jsonMax: u32,
  bytes: u32,
): void {
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
  let slots: u32 = 256
  while (slots < bytes >> 4 && slots < TABLE_SLOTS) slots <<= 1
  slotMask = slots - 1
  jsonLeft = jsonMax as i64
  end = bodyAt + length
  at = bodyAt
}

/**
 * Goes on with another body behind those before, for the same frames: `received` counts on. Its key may be of another tenant.
 * Nothing of the bodies before is undone when this one is for the plain path: then the host judges each alone.
 */
export function beginNext(bodyAt: usize, length: u32, tenant: u32): void {
  boundTenant = tenant
  end = bodyAt + length
  at = bodyAt
}

/** Empties the slots that the last body filled. */
function forget(records: usize, bytes: usize, used: u32, slots: usize): void {
  for (let i: u32 = 0; i < used; i += 1) {
    store<u32>(slots + ((load<u32>(records + (i as usize) * bytes, X_SLOT) as usize) << 2), 0)
  }
}

/** Where the scanner stands: on an event while it is read, and on the one for the host. */
export function eventAt(): usize {
  return at
}

export function moveTo(next: usize): void {
  at = next
}

export function countOne(): void {
  count += 1
}

/** Takes bytes off what the body may have as JSON; false when that is more than it may, and then the plain path says so. */
export function spendJson(bytes: u32): bool {
  jsonLeft -= bytes as i64
  return jsonLeft >= 0
}

/** Events read, whatever became of them. */
export function received(): u32 {
  return count
}

export function giveUp(): bool {
  exhausted = true
  return false
}

/** Empties the event in hand: nothing was said, and it came without a time. */
export function newHand(): void {
  const zero = i64x2.splat(0)
  v128.store(HAND, zero)
  v128.store(HAND, zero, 16)
  v128.store(HAND, zero, 32)
  v128.store(HAND, zero, 48)
  v128.store(HAND, zero, 64)
  v128.store(HAND, zero, 80)
  v128.store(HAND, zero, 96)
  store<f64>(HAND, receivedAt, H_TIME)
  store<u32>(HAND, KIND_UNTIMED, H_KIND)
}

export function setPair(number: u32, name: usize, nameLength: u32, value: usize, valueLength: u32): void {
  const pair = PAIRS + (number as usize) * PAIR_BYTES
  store<u32>(pair, name as u32)
  store<u32>(pair, nameLength, 4)
  store<u32>(pair, value as u32, 8)
  store<u32>(pair, valueLength, 12)
}

/** Keeps the event in hand when it is certainly sound: vouch() of the oracle, which says the same in more words. */
export function settle(): bool {
  const tenantAt = load<u32>(HAND, H_TENANT) as usize
  const tenantLength = load<u32>(HAND, H_TENANT_LENGTH)
  let tenant = boundTenant
  // Names of the catalogue are no longer than this; a table may name one long text over and over.
  if (tenantLength > NAME_BYTES_MAX || load<u32>(HAND, H_METRIC_LENGTH) > NAME_BYTES_MAX) return false
  if (tenantAt !== 0) {
    if (tenant === NONE) {
      const known = load<u32>(HAND, H_TENANT_NUMBER)
      tenant = known !== 0 ? known - 1 : findTenant(tenantAt, tenantLength)
    } else {
      const record = tenants + (tenant as usize) * TENANT_BYTES
      if (load<u32>(record, T_LENGTH) !== tenantLength) return false
      if (!equal(load<u32>(record, T_TEXT) as usize, tenantAt, tenantLength)) return false
    }
  }
  if (tenant === NONE) return false
  const idLength = load<u32>(HAND, H_ID_LENGTH)
  if (idLength === 0 || idLength > ID_BYTES_MAX) return false
  if (load<u32>(HAND, H_SOURCE_LENGTH) > NAME_BYTES_MAX || load<u32>(HAND, H_SUBJECT_LENGTH) > NAME_BYTES_MAX)
    return false
  const metricAt = load<u32>(HAND, H_METRIC) as usize
  if (metricAt === 0) return false
  const knownMetric = load<u32>(HAND, H_METRIC_NUMBER)
  const metric = knownMetric !== 0 ? knownMetric - 1 : findMetric(metricAt, load<u32>(HAND, H_METRIC_LENGTH))
  if (metric === NONE) return false
  store<u32>(HAND, tenant + 1, H_TENANT_NUMBER)
  store<u32>(HAND, metric + 1, H_METRIC_NUMBER)
  const record = metrics + (metric as usize) * M_BYTES
  const kind = load<u32>(HAND, H_KIND)
  const time = load<f64>(HAND, H_TIME)
  if (!isTimely(record, kind, time)) return false
  const way = load<u32>(HAND, H_VALUE_WAY)
  let value: i64
  if (way === VALUE_NONE) value = power(load<u32>(record, M_SCALE))
  else if (!measure(record, way)) return false
  else value = parsedValue

  // The texts grow only when the series is new.
  const textsBefore = texts
  if (!placeDims(record)) {
    texts = textsBefore
    return false
  }
  const kept = keep(
    tenant,
    load<u32>(HAND, H_SOURCE) as usize,
    load<u32>(HAND, H_SOURCE_LENGTH),
    load<u32>(HAND, H_ID) as usize,
    idLength,
    metric,
    load<u32>(HAND, H_SUBJECT) as usize,
    load<u32>(HAND, H_SUBJECT_LENGTH),
    dimsAt,
    dimsLength,
    settledMember,
    settledMemberLength,
    time,
    value,
    kind,
  )
  if (kept !== KEPT_NEW) texts = textsBefore
  settledMetric = record
  return kept !== KEPT_NOT
}

/** Whether the metric takes an event of this kind, and the door one of this time. */
function isTimely(metric: usize, kind: u32, time: f64): bool {
  if ((kind & KIND_UNTIMED) === 0) {
    if (!(time >= floorTime && time <= latestTime)) return false
  } else if ((kind & KIND_VOID) !== 0) return false
  return (kind & KIND_VOID) === 0 || (load<u32>(metric, M_FLAGS) & FLAG_ARCHIVE) !== 0
}

/** The value in hand to parsedValue, at the metric's scale; 1 where the value means nothing, but is a number. */
function measure(metric: usize, way: u32): bool {
  const countsValue = (load<u32>(metric, M_FLAGS) & FLAG_COUNTS_VALUE) !== 0
  const scale = load<u32>(metric, M_SCALE)
  if (way === VALUE_TEXT) {
    const from = load<u32>(HAND, H_VALUE) as usize
    if (!parseDecimal(from, from + (load<u32>(HAND, H_VALUE_LENGTH) as usize), countsValue ? scale : 9)) return false
  } else if (way === VALUE_FIXED) {
    if (countsValue && !scaleFixed(load<i64>(HAND, H_NUMBER), load<u32>(HAND, H_DECIMALS), scale)) return false
  } else {
    const value = load<f64>(HAND, H_NUMBER)
    // From 2^53 on a double does not know its last digits; NaN fails too.
    if (!(abs(value) < 9_007_199_254_740_992)) return false
    if (countsValue && !scaleDouble(value, scale)) return false
  }
  if (!countsValue) one(scale)
  return true
}

function one(scale: u32): void {
  scaleFixed(1, 0, scale)
}

/** Canonical dimensions to dimsAt, and the member that a unique metric counts. */
function placeDims(metric: usize): bool {
  const flags = load<u32>(metric, M_FLAGS)
  let member: usize = 0
  let memberLength: u32 = 0
  if ((flags & FLAG_UNIQUE_SUBJECT) !== 0) {
    member = load<u32>(HAND, H_SUBJECT) as usize
    memberLength = load<u32>(HAND, H_SUBJECT_LENGTH)
  }
  const pairCount = load<u32>(HAND, H_PAIRS)
  if (pairCount === 0) {
    dimsAt = NO_DIMS
    dimsLength = 2
  } else {
    const tight = load<u32>(HAND, H_DIMS) as usize
    const isLenient = load<u32>(HAND, H_LENIENT) !== 0
    let inOrder = tight !== 0
    let lastSlot: i32 = -1
    const dimCount = load<u32>(metric, M_DIM_COUNT)
    const dimRecords = load<u32>(metric, M_DIMS) as usize
    for (let slot: u32 = 0; slot < dimCount; slot += 1) store<u32>(PLACES + ((slot as usize) << 2), 0)
    for (let i: u32 = 0; i < pairCount; i += 1) {
      const pair = PAIRS + (i as usize) * PAIR_BYTES
      const nameAt = load<u32>(pair) as usize
      const nameLength = load<u32>(pair, 4)
      if (load<u32>(pair, 12) > NAME_BYTES_MAX) return false
      let slot: u32 = 0
      for (; slot < dimCount; slot += 1) {
        const dim = dimRecords + (slot as usize) * D_BYTES
        if (load<u32>(dim, 4) === nameLength && equal(load<u32>(dim) as usize, nameAt, nameLength)) break
      }
      if (slot < dimCount) {
        if (load<u32>(PLACES + ((slot as usize) << 2)) !== 0) return false
        store<u32>(PLACES + ((slot as usize) << 2), i + 1)
        if ((slot as i32) <= lastSlot) inOrder = false
        lastSlot = slot as i32
      } else if (
        (flags & FLAG_UNIQUE_DIM) !== 0 &&
        load<u32>(metric, M_MEMBER_LENGTH) === nameLength &&
        equal(load<u32>(metric, M_MEMBER) as usize, nameAt, nameLength)
      ) {
        if (member !== 0) return false
        member = load<u32>(pair, 8) as usize
        memberLength = load<u32>(pair, 12)
        inOrder = false
      } else if (!isLenient || isNamedBefore(i, nameAt, nameLength)) return false
    }
    if (inOrder) {
      dimsAt = tight
      dimsLength = load<u32>(HAND, H_DIMS_LENGTH)
    } else {
      writeDims(dimCount, dimRecords)
      if (exhausted) return false
    }
  }
  settledMember = member
  settledMemberLength = memberLength
  return (flags & (FLAG_UNIQUE_SUBJECT | FLAG_UNIQUE_DIM)) === 0 || memberLength !== 0
}

/** Whether one of the pairs before this one has its name; there are at most PAIRS_MAX. */
function isNamedBefore(number: u32, nameAt: usize, nameLength: u32): bool {
  for (let i: u32 = 0; i < number; i += 1) {
    const pair = PAIRS + (i as usize) * PAIR_BYTES
    if (load<u32>(pair, 4) === nameLength && equal(load<u32>(pair) as usize, nameAt, nameLength)) return true
  }
  return false
}

/** Writes the placed pairs as JSON behind the texts. Labels are at most six times their name, values at most NAME_BYTES_MAX. */
function writeDims(dimCount: u32, dimRecords: usize): void {
  let p = texts
  for (let slot: u32 = 0; slot < dimCount; slot += 1) {
    const place = load<u32>(PLACES + ((slot as usize) << 2))
    if (place === 0) continue
    const pair = PAIRS + ((place - 1) as usize) * PAIR_BYTES
    const dim = dimRecords + (slot as usize) * D_BYTES
    const labelLength = load<u32>(dim, 12)
    const length = load<u32>(pair, 12)
    if (p + (labelLength as usize) + (length as usize) + 4 + SLACK > textsEnd) {
      giveUp()
      return
    }
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
    if (p + 2 + SLACK > textsEnd) {
      giveUp()
      return
    }
    store<u8>(p, 0x7b)
    p += 1
  }
  store<u8>(p, 0x7d)
  p += 1
  dimsAt = texts
  dimsLength = (p - texts) as u32
  texts = p
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
  let slot = hash & slotMask
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
    slot = (slot + 1) & slotMask
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

  keptStream = streamRecord
  keptSeries = load<u32>(SERIES + (series as usize) * SERIES_BYTES, X_NUMBER)
  keptOrigin = load<u32>(ORIGINS + (origin as usize) * ORIGIN_BYTES, X_NUMBER)
  keepEvent(streamRecord, keptSeries, keptOrigin, id, idLength, member, memberLength, time, value, kind)
  return isNew ? KEPT_NEW : KEPT_OLD
}

/** `series` and `origin` are numbers within the stream. */
function keepEvent(
  streamRecord: usize,
  series: u32,
  origin: u32,
  id: usize,
  idLength: u32,
  member: usize,
  memberLength: u32,
  time: f64,
  value: i64,
  kind: u32,
): void {
  const event = EVENTS + (stored as usize) * EVENT_BYTES
  store<f64>(event, time, E_TIME)
  store<i64>(event, value, E_VALUE)
  store<u32>(event, series, E_SERIES)
  store<u32>(event, origin, E_ORIGIN)
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
}

/** Remembers what settle() has found. */
export function fillRow(row: usize): void {
  store<u32>(row, settledMetric as u32, ROW_METRIC)
  store<u32>(row, keptStream as u32, ROW_STREAM)
  store<u32>(row, keptSeries, ROW_SERIES)
  store<u32>(row, keptOrigin, ROW_ORIGIN)
  store<u32>(row, settledMember as u32, ROW_MEMBER)
  store<u32>(row, settledMemberLength, ROW_MEMBER_LENGTH)
}

export function isFilled(row: usize): bool {
  return load<u32>(row, ROW_METRIC) !== 0
}

/** settle() for another event of a row that is filled; without a value `decimals` is DECIMALS_ABSENT. */
export function settleRow(
  row: usize,
  id: usize,
  idLength: u32,
  time: f64,
  kind: u32,
  mantissa: i64,
  decimals: u32,
): bool {
  const metric = load<u32>(row, ROW_METRIC) as usize
  if (idLength - 1 >= ID_BYTES_MAX || stored === EVENTS_MAX) return false
  if (!isTimely(metric, kind, time)) return false
  const scale = load<u32>(metric, M_SCALE)
  let value = power(scale)
  if (decimals !== DECIMALS_ABSENT && (load<u32>(metric, M_FLAGS) & FLAG_COUNTS_VALUE) !== 0) {
    if (!scaleFixed(mantissa, decimals, scale)) return false
    value = parsedValue
  }
  keepEvent(
    load<u32>(row, ROW_STREAM) as usize,
    load<u32>(row, ROW_SERIES),
    load<u32>(row, ROW_ORIGIN),
    id,
    idLength,
    load<u32>(row, ROW_MEMBER) as usize,
    load<u32>(row, ROW_MEMBER_LENGTH),
    time,
    value,
    kind,
  )
  return true
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
  let slot = hash & slotMask
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
    slot = (slot + 1) & slotMask
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
  let slot = hash & slotMask
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
    slot = (slot + 1) & slotMask
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
