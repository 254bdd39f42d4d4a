/**
 * Text: what a scanner reads out of bytes: strings, numbers, decimals, times. Part of the kernel; knows no event and no format.
 *
 * Every function may read up to 16 bytes behind its text; SLACK bytes stand there. The functions without an end stop at a zero
 * byte at the latest, which is no byte of JSON outside of a broken one; those with an end never look at what is behind it.
 * They say no whenever they are not certain, and then the oracle reads the same bytes.
 */

/** 10^0 .. 10^18, i64. */
const POWERS: usize = 1_024

// Second results.
export let parsedValue: i64 = 0
export let parsedTime: f64 = 0
let lastDate: u64 = 0
let lastDateDay: u32 = 0
let lastDateDays: i64 = 0

const QUOTE: u32 = 0x22
/** No digits. */
const NONE: u32 = 0xffff_ffff

export function layOutText(): void {
  let power: i64 = 1
  for (let i: usize = 0; i < 19; i += 1) {
    store<i64>(POWERS + (i << 3), power)
    power *= 10
  }
}

/** 10^exponent, 0 to 18. */
export function power(exponent: u32): i64 {
  return load<i64>(POWERS + ((exponent as usize) << 3))
}

export function blanks(from: usize): usize {
  let byte = load<u8>(from) as u32
  while (byte <= 0x20 && (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09)) {
    from += 1
    byte = load<u8>(from) as u32
  }
  return from
}

/** Bytes that end a plain run: the quote, the backslash, control characters, and all from 0x7f on. */
function stopsOf(bytes: v128): i32 {
  // One more, signed: 0x7f and everything above wraps below zero, and with the control characters below 0x21.
  const odd = i8x16.lt_s(i8x16.add(bytes, i8x16.splat(1)), i8x16.splat(0x21))
  return i8x16.bitmask(v128.or(odd, v128.or(i8x16.eq(bytes, i8x16.splat(0x22)), i8x16.eq(bytes, i8x16.splat(0x5c)))))
}

/** Whether [from, to) would stand in JSON as it is: UTF-8 without quote, backslash and control characters. */
export function isClean(from: usize, to: usize): bool {
  while (from < to) {
    let stops = stopsOf(v128.load(from))
    const left = (to - from) as u32
    if (left < 16) stops &= (1 << left) - 1
    if (stops !== 0) return isCleanUnicode(from + ctz(stops), to)
    from += 16
  }
  return true
}

function isCleanUnicode(from: usize, to: usize): bool {
  while (from < to) {
    const a = load<u8>(from) as u32
    if (a < 0x80) {
      if (a < 0x20 || a === QUOTE || a === 0x5c || a === 0x7f) return false
      from += 1
      continue
    }
    const length = unicodeLength(from, a)
    if (length === 0) return false
    from += length
  }
  // A character that reaches behind the end was cut.
  return from === to
}

/**
 * The closing quote of a string whose first byte is here; 0 when it has an escape, a control character or invalid UTF-8, or
 * does not end.
 */
export function stringEnd(from: usize): usize {
  for (;;) {
    const stops = stopsOf(v128.load(from))
    if (stops !== 0) {
      from += ctz(stops)
      const byte = load<u8>(from) as u32
      if (byte === QUOTE) return from
      return byte >= 0x80 ? unicodeEnd(from) : 0
    }
    from += 16
  }
  return 0
}

/** stringEnd() from a byte above 0x7f on. */
function unicodeEnd(from: usize): usize {
  for (;;) {
    const a = load<u8>(from) as u32
    if (a < 0x80) {
      if (a === QUOTE) return from
      if (a < 0x20 || a === 0x5c || a === 0x7f) return 0
      from += 1
      continue
    }
    const length = unicodeLength(from, a)
    if (length === 0) return 0
    from += length
  }
  return 0
}

/** Bytes of the character that begins with `a`, which is above 0x7f; 0 for bad UTF-8 and for U+0080 to U+009F. */
function unicodeLength(from: usize, a: u32): usize {
  const b = load<u8>(from, 1) as u32
  if ((b & 0xc0) !== 0x80) return 0
  if (a < 0xe0) return a < 0xc2 || (a === 0xc2 && b < 0xa0) ? 0 : 2
  if ((load<u8>(from, 2) & 0xc0) !== 0x80) return 0
  if (a < 0xf0) return (a === 0xe0 && b < 0xa0) || (a === 0xed && b > 0x9f) ? 0 : 3
  if ((load<u8>(from, 3) & 0xc0) !== 0x80) return 0
  return a > 0xf4 || (a === 0xf0 && b < 0x90) || (a === 0xf4 && b > 0x8f) ? 0 : 4
}

export function isDigit(byte: u32): bool {
  return byte - 0x30 < 10
}

/** The byte behind a number by the grammar of JSON; 0 when it is none. */
export function numberEnd(from: usize): usize {
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
export function parseDecimal(from: usize, to: usize, scale: u32): bool {
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
  value *= power(scale - decimals)
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
export function parseTime(from: usize, to: usize): bool {
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
export function parseMillis(from: usize, to: usize): bool {
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

/** mantissa / 10^decimals to a scaled integer in parsedValue. False when it does not fit, or has more decimals than the scale. */
export function scaleFixed(mantissa: i64, decimals: u32, scale: u32): bool {
  if (decimals > scale) return false
  const most = power(18 - (scale - decimals))
  if (mantissa > most || mantissa < -most) return false
  parsedValue = mantissa * power(scale - decimals)
  return true
}

/**
 * A double to a scaled integer in parsedValue, by its shortest decimal text: two decimals of 15 digits or fewer are never the
 * same double, so one that leads back to it is that text. False when there is none within the scale and 15 digits.
 */
export function scaleDouble(value: f64, scale: u32): bool {
  let factor: f64 = 1
  for (let decimals: u32 = 0; decimals <= scale; decimals += 1) {
    const digits = nearest(value * factor)
    // False for NaN and the infinities as well.
    if (!(abs(digits) < 1e15)) return false
    if (digits / factor === value) return scaleFixed(digits as i64, decimals, scale)
    factor *= 10
  }
  return false
}
