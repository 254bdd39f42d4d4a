/**
 * The columnar frame (src/ingest/columnar.md): rows are looked up once, and an event of a known row costs its id, its time and
 * its value. Part of the kernel; the fast side of src/ingest/columnar.ts, which is the oracle.
 *
 * Everything that the oracle checks of the body is checked before the first event, one pass over each section; what does not add
 * up is BODY, and the oracle says what it was. So the events below read within the body, whatever it is.
 */
import {
  BODY,
  count,
  countOne,
  DECIMALS_ABSENT,
  DONE,
  EVENT,
  EVENTS_MAX,
  end,
  eventAt,
  eventsMax,
  exhausted,
  fillRow,
  H_DECIMALS,
  H_ID,
  H_ID_LENGTH,
  H_KIND,
  H_METRIC,
  H_METRIC_LENGTH,
  H_METRIC_NUMBER,
  H_NUMBER,
  H_PAIRS,
  H_SOURCE,
  H_SOURCE_LENGTH,
  H_SUBJECT,
  H_SUBJECT_LENGTH,
  H_TENANT,
  H_TENANT_LENGTH,
  H_TENANT_NUMBER,
  H_TIME,
  H_VALUE_WAY,
  HAND,
  isFilled,
  KIND_UNTIMED,
  KIND_VOID,
  NAME_BYTES_MAX,
  newHand,
  PAIRS_MAX,
  ROW_BYTES,
  receivedAt,
  SCRATCH,
  setPair,
  settle,
  settleRow,
  spendJson,
  VALUE_FIXED,
} from './door.as'
import { isClean } from './text.as'

// A row of SCRATCH, behind what the door keeps in it: its first pair, its pairs, and its bytes as JSON.
const ROWS: usize = SCRATCH
const ROW_PAIRS: usize = 24
const ROW_PAIR_COUNT: usize = 28
const ROW_JSON: usize = 32
/** By the number of a text: the tenant and the metric of the catalogue that have it as their name, + 1. */
const KNOWN: usize = SCRATCH + (EVENTS_MAX as usize) * ROW_BYTES
const KNOWN_MAX: u32 = 4_096

/** Of an event as JSON, beside its texts: names, punctuation, time and value. Generous: it only decides who judges. */
const JSON_OVERHEAD: u32 = 200
const JSON_PAIR_OVERHEAD: u32 = 8
const DECIMALS_MAX: u32 = 18

let events: u32 = 0
let texts: u32 = 0
let rows: u32 = 0
let times: usize = 0
let values: usize = 0
let rowOf: usize = 0
let textEnds: usize = 0
let rowWords: usize = 0
let pairWords: usize = 0
let idLengths: usize = 0
let decimals: usize = 0
let kinds: usize = 0
let textBytes: usize = 0
/** Where the id of the event in hand begins. */
let id: usize = 0
/** Of the text asked for last. */
let textAt: usize = 0
let textLength: u32 = 0
let areIdsClean: bool = false
let areTextsClean: bool = false

function pad8(n: u64): u64 {
  return (n + 7) & ~(7 as u64)
}

/** The body of `begin`, on a multiple of 8. */
export function runColumnar(): i32 {
  return open() ? scanEvents() : BODY
}

/** The host has judged the event whose number is the count, and which has so many bytes as JSON. */
export function resumeColumnar(jsonBytes: u32): i32 {
  if (!spendJson(jsonBytes)) return BODY
  id += load<u16>(idLengths + ((count as usize) << 1)) as usize
  countOne()
  return scanEvents()
}

function open(): bool {
  const at = eventAt()
  const length = (end - at) as u64
  if (length < 32 || load<u32>(at) !== 0x4c4f4352 || load<u32>(at, 4) !== 1) return false
  events = load<u32>(at, 8)
  texts = load<u32>(at, 12)
  const textTotal = load<u32>(at, 16)
  rows = load<u32>(at, 20)
  const pairs = load<u32>(at, 24)
  const idTotal = load<u32>(at, 28)
  if (events > eventsMax || rows > events) return false
  const n = events as u64
  // In 64 bits: no sum can wrap, and when the whole is right every part is inside.
  const rowBytes = pad8(20 * (rows as u64))
  const whole =
    32 +
    16 * n +
    pad8(4 * n) +
    pad8(4 * (texts as u64)) +
    rowBytes +
    8 * (pairs as u64) +
    pad8(2 * n) +
    2 * pad8(n) +
    pad8(textTotal as u64) +
    pad8(idTotal as u64)
  if (whole !== length) return false
  times = at + 32
  values = times + 8 * (events as usize)
  rowOf = values + 8 * (events as usize)
  textEnds = rowOf + (pad8(4 * n) as usize)
  rowWords = textEnds + (pad8(4 * (texts as u64)) as usize)
  pairWords = rowWords + (rowBytes as usize)
  idLengths = pairWords + 8 * (pairs as usize)
  decimals = idLengths + (pad8(2 * n) as usize)
  kinds = decimals + (pad8(n) as usize)
  textBytes = kinds + (pad8(n) as usize)
  id = textBytes + (pad8(textTotal as u64) as usize)

  let before: u32 = 0
  for (let p = textEnds, to = p + ((texts as usize) << 2); p < to; p += 4) {
    const next = load<u32>(p)
    if (next < before || next > textTotal) return false
    before = next
  }
  if (before !== textTotal) return false
  let pair: u32 = 0
  for (let i: usize = 0, p = rowWords; i < (rows as usize); i += 1, p += 20) {
    if (load<u32>(p) > texts || load<u32>(p, 4) > texts || load<u32>(p, 8) > texts || load<u32>(p, 12) > texts)
      return false
    const row = ROWS + i * ROW_BYTES
    v128.store(row, i64x2.splat(0))
    v128.store(row, i64x2.splat(0), 16)
    store<u32>(row, pair, ROW_PAIRS)
    const more = load<u32>(p, 16)
    store<u32>(row, more, ROW_PAIR_COUNT)
    if (more > pairs - pair) return false
    pair += more
  }
  if (pair !== pairs) return false
  for (let p = pairWords, to = p + ((pairs as usize) << 3); p < to; p += 4) {
    // 0 becomes the largest number.
    if (load<u32>(p) - 1 >= texts) return false
  }
  let ids: u64 = 0
  for (let i: usize = 0; i < (events as usize); i += 1) {
    if (load<u32>(rowOf + (i << 2)) >= rows) return false
    ids += load<u16>(idLengths + (i << 1)) as u64
  }
  if (ids !== (idTotal as u64)) return false
  areIdsClean = areAllClean(id, id + (idTotal as usize))
  areTextsClean = areAllClean(textBytes, textBytes + (textTotal as usize))
  memory.fill(KNOWN, 0, (min(texts + 1, KNOWN_MAX) as usize) << 3)
  return true
}

/** Whether all of them are plain, seen at once; when one of them is not they are looked at one by one. */
function areAllClean(from: usize, to: usize): bool {
  let odd = i8x16.splat(0)
  for (; from + 16 <= to; from += 16) {
    const bytes = v128.load(from)
    odd = v128.or(odd, i8x16.lt_s(i8x16.add(bytes, i8x16.splat(1)), i8x16.splat(0x21)))
    odd = v128.or(odd, v128.or(i8x16.eq(bytes, i8x16.splat(0x22)), i8x16.eq(bytes, i8x16.splat(0x5c))))
  }
  // A character in two texts is none in either of them, so only ASCII can be judged as a whole.
  for (let p = from; p < to; p += 1) if (load<u8>(p) >= 0x80) return false
  return !v128.any_true(odd) && isClean(from, to)
}

function scanEvents(): i32 {
  while (count < events) {
    const i = count as usize
    const length = load<u16>(idLengths + (i << 1)) as u32
    const row = ROWS + (load<u32>(rowOf + (i << 2)) as usize) * ROW_BYTES
    if (!areIdsClean && !isClean(id, id + (length as usize))) return EVENT
    if (!scanEvent(i, row, length)) return exhausted ? BODY : EVENT
    if (!spendJson(load<u32>(row, ROW_JSON) + length)) return BODY
    id += length as usize
    countOne()
  }
  return DONE
}

function scanEvent(i: usize, row: usize, idLength: u32): bool {
  const kind = load<u8>(kinds + i) as u32
  if (kind > (KIND_VOID | KIND_UNTIMED)) return false
  // Adding 0 makes one zero of the two.
  const time = (kind & KIND_UNTIMED) !== 0 ? receivedAt : load<f64>(times + (i << 3)) + 0
  if (floor(time) !== time) return false
  const digits = load<u8>(decimals + i) as u32
  if (digits > DECIMALS_MAX && digits !== DECIMALS_ABSENT) return false
  const mantissa = load<i64>(values + (i << 3))
  if (isFilled(row)) return settleRow(row, id, idLength, time, kind, mantissa, digits)

  newHand()
  store<u32>(HAND, id as u32, H_ID)
  store<u32>(HAND, idLength, H_ID_LENGTH)
  const words = rowWords + ((row - ROWS) / ROW_BYTES) * 20
  const tenant = load<u32>(words)
  const metric = load<u32>(words, 8)
  if (!put(H_TENANT, tenant) || !put(H_SOURCE, load<u32>(words, 4))) return false
  if (!put(H_METRIC, metric) || !put(H_SUBJECT, load<u32>(words, 12))) return false
  if (tenant < KNOWN_MAX) store<u32>(HAND, load<u32>(KNOWN + ((tenant as usize) << 3)), H_TENANT_NUMBER)
  if (metric < KNOWN_MAX) store<u32>(HAND, load<u32>(KNOWN + ((metric as usize) << 3), 4), H_METRIC_NUMBER)
  let json =
    load<u32>(HAND, H_TENANT_LENGTH) +
    load<u32>(HAND, H_SOURCE_LENGTH) +
    load<u32>(HAND, H_METRIC_LENGTH) +
    load<u32>(HAND, H_SUBJECT_LENGTH)
  const pairs = load<u32>(row, ROW_PAIR_COUNT)
  if (pairs > PAIRS_MAX) return false
  let at = pairWords + ((load<u32>(row, ROW_PAIRS) as usize) << 3)
  for (let pair: u32 = 0; pair < pairs; pair += 1, at += 8) {
    if (!findText(load<u32>(at))) return false
    const name = textAt
    const nameLength = textLength
    if (!findText(load<u32>(at, 4))) return false
    setPair(pair, name, nameLength, textAt, textLength)
    json += nameLength + textLength + JSON_PAIR_OVERHEAD
  }
  store<u32>(HAND, pairs, H_PAIRS)
  store<f64>(HAND, time, H_TIME)
  store<u32>(HAND, kind, H_KIND)
  if (digits !== DECIMALS_ABSENT) {
    store<u32>(HAND, VALUE_FIXED, H_VALUE_WAY)
    store<i64>(HAND, mantissa, H_NUMBER)
    store<u32>(HAND, digits, H_DECIMALS)
  }
  if (!settle()) return false
  fillRow(row)
  store<u32>(row, json + JSON_OVERHEAD, ROW_JSON)
  if (tenant < KNOWN_MAX) store<u32>(KNOWN + ((tenant as usize) << 3), load<u32>(HAND, H_TENANT_NUMBER))
  if (metric < KNOWN_MAX) store<u32>(KNOWN + ((metric as usize) << 3), load<u32>(HAND, H_METRIC_NUMBER), 4)
  return true
}

/** A text of the table into a field of the event in hand; 0 is none. */
function put(field: usize, number: u32): bool {
  if (number === 0) return true
  if (!findText(number)) return false
  store<u32>(HAND + field, textAt as u32)
  store<u32>(HAND + field, textLength, 4)
  return true
}

/** False for a text that is too long for a name, or unusual. */
function findText(number: u32): bool {
  const ends = textEnds + ((number as usize) << 2)
  const from = number === 1 ? 0 : load<u32>(ends - 8)
  textAt = textBytes + (from as usize)
  textLength = load<u32>(ends - 4) - from
  return textLength <= NAME_BYTES_MAX && (areTextsClean || isClean(textAt, textAt + (textLength as usize)))
}
