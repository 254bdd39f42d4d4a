/**
 * JSON: the native event, one, an array or a line each, and the structured CloudEvent, one or an array. Part of the kernel; the
 * fast side of src/ingest/native.ts and cloudevents.ts, which are the oracle. It reads over the bytes once; whatever is unusual
 * (an escape, a name that it does not know, a nested value) is EVENT or BODY.
 */
import { equal } from './bytes.as'
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
  H_DIMS,
  H_DIMS_LENGTH,
  H_ID,
  H_KIND,
  H_LENIENT,
  H_METRIC,
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
  VALUE_TEXT,
} from './door.as'
import { blanks, isDigit, numberEnd, parsedTime, parseMillis, parseTime, stringEnd } from './text.as'

/** Extension attributes of the CloudEvent in hand: name at, name length. */
const EXTENSIONS: usize = SCRATCH
const EXTENSIONS_MAX: u32 = 8

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

const NAME_TYPE: u64 = 0x22_65_70_79_74
const NAME_DATA: u64 = 0x22_61_74_61_64
// The first eight bytes of longer ones.
const NAME_SPECVERS: u64 = 0x73_72_65_76_63_65_70_73
const NAME_DATACONT: u64 = 0x74_6e_6f_63_61_74_61_64
const NAME_DATASCHE: u64 = 0x65_68_63_73_61_74_61_64
const APPLICAT: u64 = 0x74_61_63_69_6c_70_70_61
const ION_JSON: u64 = 0x6e_6f_73_6a_2f_6e_6f_69

const QUOTE: u32 = 0x22
const COMMA: u32 = 0x2c
const COLON: u32 = 0x3a

let isCloud: bool = false
let isArray: bool = false

// Second results of scanDims.
let pairCount: u32 = 0
/** No blanks, strings only: canonical when the names are in order as well. */
let dimsTight: bool = false

/** The body of `begin`. `cloud`: CloudEvents. */
export function runJson(cloud: bool): i32 {
  isCloud = cloud
  const from = blanks(eventAt())
  const first = load<u8>(from) as u32
  isArray = first === 0x5b
  if (isArray) {
    const next = blanks(from + 1)
    if (load<u8>(next) === 0x5d) return finish(next + 1)
    moveTo(next)
    return scanEvents()
  }
  if (first !== 0x7b) return BODY
  moveTo(from)
  const next = scan(from)
  if (exhausted) return BODY
  return next === 0 ? EVENT : resumeJson(next)
}

/** The host has judged the event at eventAt(), which ends at `next`. */
export function resumeJson(next: usize): i32 {
  countOne()
  if (!isArray) return finish(next)
  let p = blanks(next)
  const byte = load<u8>(p) as u32
  if (byte === 0x5d) return finish(p + 1)
  if (byte !== COMMA) return BODY
  p = blanks(p + 1)
  if (load<u8>(p) === 0x5d) return BODY
  moveTo(p)
  return scanEvents()
}

function finish(behind: usize): i32 {
  return blanks(behind) === end ? DONE : BODY
}

/** Stands on the first byte of an element. */
function scanEvents(): i32 {
  let p = eventAt()
  for (;;) {
    if (count === eventsMax) return BODY
    moveTo(p)
    const next = scan(p)
    if (exhausted) return BODY
    if (next === 0) return EVENT
    countOne()
    p = next
    let byte = load<u8>(p) as u32
    if (byte <= 0x20) {
      p = blanks(p)
      byte = load<u8>(p) as u32
    }
    if (byte === COMMA) {
      p = blanks(p + 1)
      if (load<u8>(p) === 0x5d) return BODY
    } else {
      return byte === 0x5d ? finish(p + 1) : BODY
    }
  }
  return BODY
}

function scan(from: usize): usize {
  return isCloud ? scanCloud(from) : scanNative(from, 0)
}

/** NDJSON: the native event, a line each. A line that is not for the kernel is an EVENT, whatever stands on it. */
export function runLines(): i32 {
  return scanLines(eventAt())
}

/** `next`: behind the line that the host has judged. */
export function resumeLines(next: usize): i32 {
  countOne()
  return scanLines(next)
}

function scanLines(from: usize): i32 {
  let p = from
  for (;;) {
    // Blank lines are no lines.
    let start = p
    let byte = load<u8>(start) as u32
    while (byte === 0x20 || byte === 0x0d || byte === 0x09 || byte === 0x0a) {
      start += 1
      if (byte === 0x0a) p = start
      byte = load<u8>(start) as u32
    }
    // A body without any line is not empty as JSON is; the oracle has the words for it.
    if (start >= end) return count === 0 ? BODY : DONE
    if (count === eventsMax) return BODY
    moveTo(p)
    const behind = lineEnd(start)
    const next = scanNative(start, behind)
    if (exhausted) return BODY
    if (next === 0) return EVENT
    countOne()
    p = behind + 1
  }
  return BODY
}

/** The line feed that ends the line, or the end of the body. */
function lineEnd(from: usize): usize {
  while (from < end) {
    const mask = i8x16.bitmask(i8x16.eq(v128.load(from), i8x16.splat(0x0a)))
    if (mask !== 0) return min(from + ctz(mask), end)
    from += 16
  }
  return end
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
    const nameAt = p + 1
    const nameLength = (nameEnd - nameAt) as u32
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
      setPair(pairCount, nameAt, nameLength, p, (valueEnd - p) as u32)
      p = valueEnd + 1
    } else {
      tight = false
      if (first === 0x2d || isDigit(first)) valueEnd = numberEnd(p)
      else if (load<u32>(p) === 0x65757274) valueEnd = p + 4
      else if (first === 0x66 && load<u32>(p, 1) === 0x65736c61) valueEnd = p + 5
      else valueEnd = 0
      if (valueEnd === 0) return 0
      setPair(pairCount, nameAt, nameLength, p, (valueEnd - p) as u32)
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

/**
 * Reads the native event at `from` and keeps it. Returns the byte behind it, or 0 when it is for the oracle. With a `behind`
 * nothing but the event may stand before that.
 */
function scanNative(from: usize, behind: usize): usize {
  if (load<u8>(from) !== 0x7b) return 0
  let seen: u32 = 0
  newHand()
  let kind: u32 = KIND_UNTIMED
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
    if (load<u8>(p) !== COLON) {
      p = blanks(p)
      if (load<u8>(p) !== COLON) return 0
    }
    p += 1
    if (load<u8>(p) <= 0x20) p = blanks(p)

    if (bit === 128) {
      if (load<u8>(p) !== 0x7b) return 0
      const dims = p
      p = scanDims(p)
      if (p === 0) return 0
      store<u32>(HAND, pairCount, H_PAIRS)
      if (dimsTight) {
        store<u32>(HAND, dims as u32, H_DIMS)
        store<u32>(HAND, (p - dims) as u32, H_DIMS_LENGTH)
      }
    } else if (load<u8>(p) === QUOTE) {
      p += 1
      const stop = stringEnd(p)
      if (stop === 0) return 0
      if (bit === 1) put(H_ID, p, stop)
      else if (bit === 2) put(H_TENANT, p, stop)
      else if (bit === 8) put(H_METRIC, p, stop)
      else if (bit === 16) put(H_SUBJECT, p, stop)
      else if (bit === 32) {
        if (!parseTime(p, stop)) return 0
        store<f64>(HAND, parsedTime, H_TIME)
        kind &= ~KIND_UNTIMED
      } else if (bit === 64) {
        put(H_VALUE, p, stop)
        store<u32>(HAND, VALUE_TEXT, H_VALUE_WAY)
      } else if (bit === 4) put(H_SOURCE, p, stop)
      else {
        const bits = kindOf(p, stop)
        if (bits < 0) return 0
        kind |= bits
      }
      p = stop + 1
    } else if (bit === 64 || bit === 32) {
      const stop = numberEnd(p)
      if (stop === 0) return 0
      if (bit === 64) {
        put(H_VALUE, p, stop)
        store<u32>(HAND, VALUE_TEXT, H_VALUE_WAY)
      } else {
        if (!parseMillis(p, stop)) return 0
        store<f64>(HAND, parsedTime, H_TIME)
        kind &= ~KIND_UNTIMED
      }
      p = stop
    } else return 0

    let byte = load<u8>(p) as u32
    if (byte <= 0x20) {
      p = blanks(p)
      byte = load<u8>(p) as u32
    }
    if (byte === COMMA) {
      p += 1
      if (load<u8>(p) <= 0x20) p = blanks(p)
    } else if (byte === 0x7d) break
    else return 0
  }
  store<u32>(HAND, kind, H_KIND)
  if (behind !== 0 && (p >= behind || blanks(p + 1) < behind)) return 0
  return settle() ? p + 1 : 0
}

/** A text of the event in hand, and its length behind it. */
function put(field: usize, from: usize, to: usize): void {
  store<u32>(HAND + field, from as u32)
  store<u32>(HAND + field, (to - from) as u32, 4)
}

/** KIND_VOID, 0 for a usage, or -1. */
function kindOf(from: usize, to: usize): i32 {
  if (to - from === 4 && load<u32>(from) === 0x64696f76) return KIND_VOID
  return to - from === 5 && load<u32>(from) === 0x67617375 && load<u8>(from, 4) === 0x65 ? 0 : -1
}

/** Reads the CloudEvent at `from` and keeps it, as scanNative() does. */
function scanCloud(from: usize): usize {
  if (load<u8>(from) !== 0x7b) return 0
  newHand()
  store<u32>(HAND, 1, H_LENIENT)
  let seen: u32 = 0
  let extensions: u32 = 0
  let kind: u32 = KIND_UNTIMED
  let p = blanks(from + 1)
  for (;;) {
    if (load<u8>(p) !== QUOTE) return 0
    const nameAt = p + 1
    const name = load<u64>(nameAt)
    let bit: u32 = 0
    let length: usize = 0
    if ((name & MASK_24) === NAME_ID) {
      bit = 1
      length = 2
    } else if ((name & MASK_40) === NAME_TYPE) {
      bit = 8
      length = 4
    } else if ((name & MASK_40) === NAME_TIME) {
      bit = 32
      length = 4
    } else if ((name & MASK_40) === NAME_DATA) {
      bit = 64
      length = 4
    } else if ((name & MASK_56) === NAME_SOURCE) {
      bit = 2
      length = 6
    } else if (name === NAME_SUBJECT) {
      bit = 16
      length = 7
    } else if ((name & MASK_56) === NAME_TENANT) {
      bit = 1_024
      length = 6
    } else if ((name & MASK_40) === NAME_KIND) {
      bit = 2_048
      length = 4
    } else if (name === NAME_SPECVERS && (load<u32>(nameAt, 8) as u64) === (0x22_6e_6f_69 as u64)) {
      bit = 4
      length = 11
    } else if (name === NAME_DATACONT && load<u64>(nameAt, 8) === 0x22_65_70_79_74_74_6e_65) {
      bit = 256
      length = 15
    } else if (name === NAME_DATASCHE && (load<u32>(nameAt, 8) & 0xff_ffff) === 0x22_61_6d) {
      bit = 512
      length = 10
    } else {
      const stop = stringEnd(nameAt)
      if (stop === 0 || !isExtension(nameAt, stop, extensions)) return 0
      extensions += 1
      length = stop - nameAt
    }
    if ((seen & bit) !== 0) return 0
    seen |= bit
    p = nameAt + length + 1
    if (load<u8>(p) !== COLON) {
      p = blanks(p)
      if (load<u8>(p) !== COLON) return 0
    }
    p += 1
    if (load<u8>(p) <= 0x20) p = blanks(p)

    if (bit === 64) {
      if (load<u8>(p) !== 0x7b) return 0
      p = scanData(p)
      if (p === 0) return 0
    } else if (load<u8>(p) === QUOTE) {
      p += 1
      const stop = stringEnd(p)
      // An attribute that is empty is a fault, an extension is not read; the oracle knows which.
      if (stop === 0 || stop === p) return 0
      if (bit === 1) put(H_ID, p, stop)
      else if (bit === 2) put(H_SOURCE, p, stop)
      else if (bit === 4) {
        if (stop - p !== 3 || (load<u32>(p) & 0xff_ffff) !== 0x30_2e_31) return 0
      } else if (bit === 8) put(H_METRIC, p, stop)
      else if (bit === 16) put(H_SUBJECT, p, stop)
      else if (bit === 32) {
        if (!parseTime(p, stop)) return 0
        store<f64>(HAND, parsedTime, H_TIME)
        kind &= ~KIND_UNTIMED
      } else if (bit === 256) {
        // application/json; whatever else may be JSON is for the oracle.
        if (stop - p !== 16) return 0
        if (load<u64>(p) !== APPLICAT || load<u64>(p, 8) !== ION_JSON) return 0
      } else if (bit === 1_024) put(H_TENANT, p, stop)
      else if (bit === 2_048) {
        const bits = kindOf(p, stop)
        if (bits < 0) return 0
        kind |= bits
      }
      p = stop + 1
    } else if (bit === 0) {
      p = plainEnd(p)
      if (p === 0) return 0
    } else return 0

    let byte = load<u8>(p) as u32
    if (byte <= 0x20) {
      p = blanks(p)
      byte = load<u8>(p) as u32
    }
    if (byte === COMMA) {
      p += 1
      if (load<u8>(p) <= 0x20) p = blanks(p)
    } else if (byte === 0x7d) break
    else return 0
  }
  // id, source, specversion and type.
  if ((seen & 15) !== 15) return 0
  store<u32>(HAND, kind, H_KIND)
  return settle() ? p + 1 : 0
}

/** Whether this is a name of small letters and digits that the event did not have yet; then it is remembered. */
function isExtension(from: usize, to: usize, before: u32): bool {
  const length = (to - from) as u32
  if (length === 0 || length > 64 || before === EXTENSIONS_MAX) return false
  for (let p = from; p < to; p += 1) {
    const byte = load<u8>(p) as u32
    if (!isDigit(byte) && byte - 0x61 >= 26) return false
  }
  for (let i: u32 = 0; i < before; i += 1) {
    const known = EXTENSIONS + ((i as usize) << 3)
    if (load<u32>(known, 4) === length && equal(load<u32>(known) as usize, from, length)) return false
  }
  const entry = EXTENSIONS + ((before as usize) << 3)
  store<u32>(entry, from as u32)
  store<u32>(entry, length, 4)
  return true
}

/** The byte behind a boolean or a whole number; 0 for everything else. */
function plainEnd(from: usize): usize {
  if (load<u32>(from) === 0x65757274) return from + 4
  if (load<u8>(from) === 0x66 && load<u32>(from, 1) === 0x65736c61) return from + 5
  const stop = numberEnd(from)
  for (let p = from + 1; p < stop; p += 1) if (!isDigit(load<u8>(p))) return 0
  return stop
}

/** Reads `data` into PAIRS, but for its value, standing on its brace. Returns the byte behind it, or 0. */
function scanData(from: usize): usize {
  let pairs: u32 = 0
  let p = blanks(from + 1)
  if (load<u8>(p) === 0x7d) return p + 1
  for (;;) {
    if (load<u8>(p) !== QUOTE || pairs === PAIRS_MAX) return 0
    const nameAt = p + 1
    const nameEnd = stringEnd(nameAt)
    if (nameEnd === 0) return 0
    const nameLength = (nameEnd - nameAt) as u32
    p = nameEnd + 1
    if (load<u8>(p) !== COLON) {
      p = blanks(p)
      if (load<u8>(p) !== COLON) return 0
    }
    p += 1
    if (load<u8>(p) <= 0x20) p = blanks(p)
    const isValue = nameLength === 5 && (load<u64>(nameAt) & MASK_48) === NAME_VALUE
    let stop: usize
    let next: usize
    const first = load<u8>(p) as u32
    if (first === QUOTE) {
      p += 1
      stop = stringEnd(p)
      next = stop + 1
    } else if (first === 0x2d || isDigit(first)) {
      stop = numberEnd(p)
      next = stop
    } else {
      stop = isValue ? 0 : plainEnd(p)
      next = stop
    }
    if (stop === 0) return 0
    if (isValue) {
      if (load<u32>(HAND, H_VALUE_WAY) !== 0) return 0
      put(H_VALUE, p, stop)
      store<u32>(HAND, VALUE_TEXT, H_VALUE_WAY)
    } else {
      setPair(pairs, nameAt, nameLength, p, (stop - p) as u32)
      pairs += 1
    }
    p = next
    let byte = load<u8>(p) as u32
    if (byte <= 0x20) {
      p = blanks(p)
      byte = load<u8>(p) as u32
    }
    if (byte === 0x7d) {
      store<u32>(HAND, pairs, H_PAIRS)
      return p + 1
    }
    if (byte !== COMMA) return 0
    p += 1
    if (load<u8>(p) <= 0x20) p = blanks(p)
  }
  return 0
}
