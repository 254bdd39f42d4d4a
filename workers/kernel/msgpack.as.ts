/**
 * msgpack: the native event as a map, or as a record of msgpackr; one, an array of them, or several values one after the other.
 * Part of the kernel; the fast side of src/ingest/msgpack.ts, which is the oracle and has the rules.
 *
 * Every byte is a valid beginning of something here, so nothing ends a loop by itself: each read is compared with `end` first.
 * A record's names are read where they were defined, at each use; names that no event has, and values of another kind than
 * usual (a number as a dimension, a float of single precision with decimals), are EVENT.
 */
import {
  BODY,
  count,
  countOne,
  DONE,
  EVENT,
  end,
  eventAt,
  eventsMax,
  exhausted,
  giveUp,
  H_DECIMALS,
  H_ID,
  H_KIND,
  H_METRIC,
  H_NUMBER,
  H_PAIRS,
  H_SOURCE,
  H_SUBJECT,
  H_TENANT,
  H_TIME,
  H_VALUE,
  H_VALUE_WAY,
  HAND,
  KIND_UNTIMED,
  KIND_VOID,
  moveTo,
  newHand,
  PAIRS_MAX,
  SCRATCH,
  setPair,
  settle,
  spendJson,
  VALUE_DOUBLE,
  VALUE_FIXED,
  VALUE_TEXT,
} from './door.as'
import { isClean, parsedTime, parseTime } from './text.as'

// SCRATCH: for each of the 64 records where its array of names begins, its first name, and how many; 0 when it is not defined.
// Behind that the fields of its first 16 names, a byte each.
const RECORDS: usize = SCRATCH
const RECORD_BYTES: usize = 32
const RECORD_FIELDS: usize = 16
const FIELDS_MAX: u32 = 16
/** Records as they were before the event in hand defined them anew: number, then the record. */
const UNDO: usize = RECORDS + 64 * RECORD_BYTES
const UNDO_BYTES: usize = 48
const UNDO_MAX: u32 = 16

// Names as little-endian numbers; their lengths are compared first.
const NAME_ID: u64 = 0x64_69
const NAME_TENANT: u64 = 0x74_6e_61_6e_65_74
const NAME_SOURCE: u64 = 0x65_63_72_75_6f_73
const NAME_METRIC: u64 = 0x63_69_72_74_65_6d
const NAME_SUBJECT: u64 = 0x74_63_65_6a_62_75_73
const NAME_TIME: u64 = 0x65_6d_69_74
const NAME_VALUE: u64 = 0x65_75_6c_61_76
const NAME_DIMS: u64 = 0x73_6d_69_64
const NAME_KIND: u64 = 0x64_6e_69_6b
const MASK_16: u64 = 0xffff
const MASK_32: u64 = 0xffff_ffff
const MASK_40: u64 = 0xff_ffff_ffff
const MASK_48: u64 = 0xffff_ffff_ffff
const MASK_56: u64 = 0xff_ffff_ffff_ffff

/** A time beyond this, both signs, is none. */
const TIME_MAX: i64 = 1_000_000_000_000_000
const DOUBLE_MAX: f64 = 9_007_199_254_740_992

/** Elements of the array in hand that are still to come. */
let elementsLeft: u32 = 0
let undos: u32 = 0
/** Bytes of names that the event in hand has as JSON and not in the body. */
let nameBytes: u32 = 0

// Second results.
let textAt: usize = 0
let textEnd: usize = 0
/** Of the map or record just entered: its members, and where its names are when it is a record. */
let members: u32 = 0
let names: usize = 0
let fieldsAt: usize = 0
let integer: i64 = 0
let double: f64 = 0

/** The body of `begin`. */
export function runMsgpack(): i32 {
  memory.fill(RECORDS, 0, 64 * RECORD_BYTES)
  elementsLeft = 0
  return scanValues(eventAt())
}

/** The host has judged the event at eventAt(), which ends at `next` and has so many bytes as JSON. */
export function resumeMsgpack(next: usize, jsonBytes: u32): i32 {
  if (!spendJson(jsonBytes)) return BODY
  countOne()
  elementsLeft -= 1
  return scanValues(next)
}

/** Where the array of names of a record (64 to 127) begins; 0 when it is not defined. */
export function recordAt(number: u32): usize {
  return load<u32>(recordOf(number)) as usize
}

/** What the host has read: false when the kernel cannot, and then the body is for the plain path. */
export function defineRecord(number: u32, at: usize): bool {
  undos = 0
  return define(number, at) !== 0
}

function recordOf(number: u32): usize {
  return RECORDS + ((number - 64) as usize) * RECORD_BYTES
}

function scanValues(from: usize): i32 {
  let p = from
  for (;;) {
    while (elementsLeft === 0) {
      if (p >= end) return DONE
      const next = enterArray(p)
      if (next === 0) {
        // A value of its own, or an array that is cut: the scan of an event knows neither.
        members = 1
      } else p = next
      elementsLeft = members
    }
    if (count === eventsMax) return BODY
    moveTo(p)
    const next = scanEvent(p)
    if (next === 0) {
      while (undos > 0) undo()
      return exhausted ? BODY : EVENT
    }
    // A number of n bytes has at most 4 n as JSON, a name and a value of one byte each have quotes, a colon and a comma.
    if (!spendJson(4 * ((next - p) as u32) + nameBytes + 16)) return BODY
    countOne()
    elementsLeft -= 1
    p = next
  }
  return BODY
}

/** Behind the head of an array, with its elements in `members`; 0 when none is here. */
function enterArray(p: usize): usize {
  if (p >= end) return 0
  const first = load<u8>(p) as u32
  if ((first & 0xf0) === 0x90) {
    members = first & 15
    return p + 1
  }
  if (first === 0xdc && p + 3 <= end) {
    members = bswap<u16>(load<u16>(p, 1)) as u32
    return p + 3
  }
  if (first === 0xdd && p + 5 <= end) {
    members = bswap<u32>(load<u32>(p, 1))
    return p + 5
  }
  return 0
}

/** A text to textAt and textEnd; returns the byte behind it, or 0 when none is here as a whole. */
function readText(p: usize): usize {
  if (p >= end) return 0
  const first = load<u8>(p) as u32
  let length: usize
  if ((first & 0xe0) === 0xa0) {
    length = (first & 31) as usize
    p += 1
  } else if (first === 0xd9) {
    if (p + 2 > end) return 0
    length = load<u8>(p, 1) as usize
    p += 2
  } else if (first === 0xda) {
    if (p + 3 > end) return 0
    length = bswap<u16>(load<u16>(p, 1)) as usize
    p += 3
  } else if (first === 0xdb) {
    if (p + 5 > end) return 0
    length = bswap<u32>(load<u32>(p, 1)) as usize
    p += 5
  } else return 0
  if (length > end - p) return 0
  const to = p + length
  textAt = p
  textEnd = to
  return to
}

// Members of an event; a bit each of those that were seen.
const ID: u32 = 1
const TENANT: u32 = 2
const SOURCE: u32 = 3
const METRIC: u32 = 4
const SUBJECT: u32 = 5
const TIME: u32 = 6
const VALUE: u32 = 7
const DIMS: u32 = 8
const KIND: u32 = 9
const NEEDED: u32 = (1 << ID) | (1 << METRIC)

/** The member whose name was read last; 0 when no event has it. */
function fieldOf(): u32 {
  const length = textEnd - textAt
  const name = load<u64>(textAt)
  if (length === 2) return (name & MASK_16) === NAME_ID ? ID : 0
  if (length === 4) {
    if ((name & MASK_32) === NAME_TIME) return TIME
    if ((name & MASK_32) === NAME_DIMS) return DIMS
    return (name & MASK_32) === NAME_KIND ? KIND : 0
  }
  if (length === 6) {
    if ((name & MASK_48) === NAME_METRIC) return METRIC
    if ((name & MASK_48) === NAME_TENANT) return TENANT
    return (name & MASK_48) === NAME_SOURCE ? SOURCE : 0
  }
  if (length === 7) return (name & MASK_56) === NAME_SUBJECT ? SUBJECT : 0
  return length === 5 && (name & MASK_40) === NAME_VALUE ? VALUE : 0
}

/** The array of names at `p` becomes a record. Returns the byte behind it, or 0. */
function define(number: u32, p: usize): usize {
  const first = enterArray(p)
  if (first === 0) return 0
  const count = members
  if (undos === UNDO_MAX) {
    giveUp()
    return 0
  }
  const record = recordOf(number)
  const entry = UNDO + (undos as usize) * UNDO_BYTES
  store<u32>(entry, number)
  v128.store(entry, v128.load(record), 16)
  v128.store(entry, v128.load(record, 16), 32)
  undos += 1
  let next = first
  for (let i: u32 = 0; i < count; i += 1) {
    next = readText(next)
    if (next === 0) return 0
    if (i < FIELDS_MAX) store<u8>(record + (i as usize), fieldOf() as u8, RECORD_FIELDS)
  }
  store<u32>(record, p as u32)
  store<u32>(record, first as u32, 4)
  store<u32>(record, count, 8)
  return next
}

function undo(): void {
  undos -= 1
  const entry = UNDO + (undos as usize) * UNDO_BYTES
  const record = recordOf(load<u32>(entry))
  v128.store(record, v128.load(entry, 16))
  v128.store(record, v128.load(entry, 32), 16)
}

/** Enters a map or a record; returns its first byte, or 0 when it is something else. */
function enterMap(p: usize): usize {
  if (p >= end) return 0
  const first = load<u8>(p) as u32
  names = 0
  if ((first & 0xf0) === 0x80) {
    members = first & 15
    return p + 1
  }
  let number = first
  let next = p + 1
  if (first === 0xd4) {
    if (p + 3 > end || load<u8>(p, 1) !== 0x72) return 0
    number = load<u8>(p, 2) as u32
    if (number - 64 >= 64) return 0
    next = define(number, p + 3)
    if (next === 0) return 0
  } else if (first === 0xde) {
    if (p + 3 > end) return 0
    members = bswap<u16>(load<u16>(p, 1)) as u32
    return p + 3
  } else if (first === 0xdf) {
    if (p + 5 > end) return 0
    members = bswap<u32>(load<u32>(p, 1))
    return p + 5
  } else if (first - 64 >= 64) return 0
  const record = recordOf(number)
  if (load<u32>(record) === 0) return 0
  names = load<u32>(record, 4) as usize
  members = load<u32>(record, 8)
  fieldsAt = record + RECORD_FIELDS
  return next
}

/** Whether an `undefined` stands here: a member that is absent. */
function isUndefined(p: usize): bool {
  return p + 2 < end && load<u16>(p) === 0x00d4
}

/** Keeps the event at `from`. Returns the byte behind it, or 0 when it is for the oracle. */
function scanEvent(from: usize): usize {
  undos = 0
  nameBytes = 0
  let p = enterMap(from)
  if (p === 0) return 0
  newHand()
  let nameAt = names
  const isRecord = nameAt !== 0
  const isKnown = isRecord && members <= FIELDS_MAX
  let fields = fieldsAt
  if (isRecord) nameBytes = 12 * members
  let kind: u32 = KIND_UNTIMED
  let seen: u32 = 0
  for (let left = members; left > 0; left -= 1) {
    let field: u32
    if (isKnown) {
      field = load<u8>(fields) as u32
      fields += 1
    } else {
      if (isRecord) {
        // Read once when it was defined: it cannot fail.
        nameAt = readText(nameAt)
      } else {
        p = readText(p)
        if (p === 0) return 0
      }
      field = fieldOf()
    }
    if (isUndefined(p)) {
      p += 3
      continue
    }
    if (field === 0 || ((seen >> field) & 1) !== 0) return 0
    seen |= 1 << field

    if (field === DIMS) {
      p = scanDims(p)
      if (p === 0) return 0
      continue
    }
    const next = readText(p)
    if (next !== 0) {
      if (!isClean(textAt, textEnd)) return 0
      p = next
      if (field === ID) put(H_ID)
      else if (field === TENANT) put(H_TENANT)
      else if (field === SOURCE) put(H_SOURCE)
      else if (field === METRIC) put(H_METRIC)
      else if (field === SUBJECT) put(H_SUBJECT)
      else if (field === TIME) {
        if (!parseTime(textAt, textEnd)) return 0
        store<f64>(HAND, parsedTime, H_TIME)
        kind &= ~KIND_UNTIMED
      } else if (field === VALUE) {
        put(H_VALUE)
        store<u32>(HAND, VALUE_TEXT, H_VALUE_WAY)
      } else if (textEnd - textAt === 4 && load<u32>(textAt) === 0x64696f76) kind |= KIND_VOID
      else if (textEnd - textAt !== 5 || load<u32>(textAt) !== 0x67617375 || load<u8>(textAt, 4) !== 0x65) return 0
      continue
    }
    if (field === VALUE) {
      const way = readNumber(p)
      if (way === 0) return 0
      p += numberBytes
      store<u32>(HAND, way, H_VALUE_WAY)
      if (way === VALUE_FIXED) store<i64>(HAND, integer, H_NUMBER)
      else store<f64>(HAND, double, H_NUMBER)
      store<u32>(HAND, 0, H_DECIMALS)
    } else if (field === TIME) {
      const way = readNumber(p)
      if (way !== 0) p += numberBytes
      else {
        p = readTimestamp(p)
        if (p === 0) return 0
      }
      if (way === VALUE_DOUBLE) {
        if (!(abs(double) < DOUBLE_MAX) || floor(double) !== double) return 0
        integer = double as i64
      }
      if (integer > TIME_MAX || integer < -TIME_MAX) return 0
      store<f64>(HAND, integer as f64, H_TIME)
      kind &= ~KIND_UNTIMED
    } else return 0
  }
  store<u32>(HAND, kind, H_KIND)
  if ((seen & NEEDED) !== NEEDED) return 0
  return settle() ? p : 0
}

function put(field: usize): void {
  store<u32>(HAND + field, textAt as u32)
  store<u32>(HAND + field, (textEnd - textAt) as u32, 4)
}

/** Reads `dims` into PAIRS. Returns the byte behind them, or 0. */
function scanDims(from: usize): usize {
  let p = enterMap(from)
  if (p === 0) return 0
  let nameAt = names
  const isRecord = nameAt !== 0
  let pairs: u32 = 0
  for (let left = members; left > 0; left -= 1) {
    if (isRecord) nameAt = readText(nameAt)
    else {
      p = readText(p)
      if (p === 0) return 0
    }
    if (isUndefined(p)) {
      p += 3
      continue
    }
    if (pairs === PAIRS_MAX) return 0
    const name = textAt
    const length = (textEnd - textAt) as u32
    if (length > 256 || !isClean(name, textEnd)) return 0
    if (isRecord) nameBytes += length + 8
    p = readText(p)
    if (p === 0 || !isClean(textAt, textEnd)) return 0
    setPair(pairs, name, length, textAt, (textEnd - textAt) as u32)
    pairs += 1
  }
  store<u32>(HAND, pairs, H_PAIRS)
  return p
}

let numberBytes: usize = 0

/** A number to `integer` or `double`, as the answer says; 0 when none is here as a whole, or not as an i64. */
function readNumber(p: usize): u32 {
  if (p >= end) return 0
  const first = load<u8>(p) as u32
  if (first < 0x40 || first >= 0xe0) {
    integer = load<i8>(p) as i64
    numberBytes = 1
    return VALUE_FIXED
  }
  if (first < 0x80) {
    // Also the number of a record, when there is one.
    if (load<u32>(recordOf(first)) !== 0) return 0
    integer = first as i64
    numberBytes = 1
    return VALUE_FIXED
  }
  if (first === 0xcc || first === 0xd0) {
    if (p + 2 > end) return 0
    integer = first === 0xcc ? (load<u8>(p, 1) as i64) : (load<i8>(p, 1) as i64)
    numberBytes = 2
    return VALUE_FIXED
  }
  if (first === 0xcd || first === 0xd1) {
    if (p + 3 > end) return 0
    const bits = bswap<u16>(load<u16>(p, 1))
    integer = first === 0xcd ? (bits as i64) : (bits as i16 as i64)
    numberBytes = 3
    return VALUE_FIXED
  }
  if (first === 0xce || first === 0xd2 || first === 0xca) {
    if (p + 5 > end) return 0
    const bits = bswap<u32>(load<u32>(p, 1))
    numberBytes = 5
    if (first === 0xca) {
      const single = reinterpret<f32>(bits) as f64
      // Below 2^24 a whole one is that integer; the shortest text of another one is the oracle's to find.
      if (!(abs(single) < 16_777_216) || floor(single) !== single) return 0
      integer = single as i64
    } else integer = first === 0xce ? (bits as i64) : (bits as i32 as i64)
    return VALUE_FIXED
  }
  if (first === 0xcf || first === 0xd3 || first === 0xcb) {
    if (p + 9 > end) return 0
    const bits = bswap<u64>(load<u64>(p, 1))
    numberBytes = 9
    if (first === 0xcb) {
      double = reinterpret<f64>(bits)
      return VALUE_DOUBLE
    }
    if (first === 0xcf && (bits as i64) < 0) return 0
    integer = bits as i64
    return VALUE_FIXED
  }
  return 0
}

/** A timestamp of four or eight bytes to `integer`, as milliseconds. Returns the byte behind it, or 0. */
function readTimestamp(p: usize): usize {
  if (p + 6 > end || load<u8>(p, 1) !== 0xff) return 0
  const first = load<u8>(p) as u32
  if (first === 0xd6) {
    integer = (bswap<u32>(load<u32>(p, 2)) as i64) * 1_000
    return p + 6
  }
  if (first !== 0xd7 || p + 10 > end) return 0
  const word = bswap<u64>(load<u64>(p, 2))
  const nanoseconds = word >> 34
  if (nanoseconds > 999_999_999) return 0
  integer = ((word & 0x3_ffff_ffff) as i64) * 1_000 + ((nanoseconds / 1_000_000) as i64)
  return p + 10
}
