/**
 * Times as senders write them, to epoch milliseconds.
 *
 * RFC 3339 with a zone: 2026-03-10T09:15:00.123Z, any offset up to ±23:59 (-00:00 is UTC), `t` and `z` in small letters too.
 * One to nine decimals of a second, cut to milliseconds (an event is dated by its millisecond; nothing is counted by it).
 * Years 0000 to 9999: whether a time is too old or too far ahead is not judged here. A leap second, 23:59:60 in UTC, is the
 * second behind it, as POSIX counts; :60 anywhere else is no time. No blanks, no local times, no dates alone.
 */

/** Days before each month, of a year that is not a leap year. */
const DAYS_BEFORE = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365] as const
const DAY_MS = 86_400_000
/** Days from 0000-01-01 to 1970-01-01. */
const EPOCH_DAY = 719_528

/** Epoch milliseconds of an RFC 3339 text, or NaN. */
export function parseTime(text: string): number {
  const length = text.length
  if (length < 20 || length > 35) return Number.NaN
  const year = two(text, 0) * 100 + two(text, 2)
  const month = two(text, 5)
  const day = two(text, 8)
  const hour = two(text, 11)
  const minute = two(text, 14)
  let second = two(text, 17)
  const letter = text.charCodeAt(10)
  if (
    text.charCodeAt(4) !== 0x2d ||
    text.charCodeAt(7) !== 0x2d ||
    (letter !== 0x54 && letter !== 0x74) ||
    text.charCodeAt(13) !== 0x3a ||
    text.charCodeAt(16) !== 0x3a
  ) {
    return Number.NaN
  }
  // NaN fails every one of these comparisons.
  if (!(year >= 0 && month >= 1 && month <= 12 && day >= 1 && hour <= 23 && minute <= 59 && second <= 60)) {
    return Number.NaN
  }
  const leap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0
  const monthDays = DAYS_BEFORE[month]! - DAYS_BEFORE[month - 1]! + (leap && month === 2 ? 1 : 0)
  if (day > monthDays) return Number.NaN

  let at = 19
  let ms = 0
  if (text.charCodeAt(at) === 0x2e) {
    at += 1
    const start = at
    for (; at < length; at += 1) {
      const digit = text.charCodeAt(at) - 0x30
      if (digit < 0 || digit > 9) break
      if (at - start < 3) ms = ms * 10 + digit
    }
    const decimals = at - start
    if (decimals === 0 || decimals > 9) return Number.NaN
    if (decimals === 1) ms *= 100
    else if (decimals === 2) ms *= 10
  }

  let offset = 0
  const zone = text.charCodeAt(at)
  if (zone === 0x5a || zone === 0x7a) {
    if (at + 1 !== length) return Number.NaN
  } else if (zone === 0x2b || zone === 0x2d) {
    const hours = two(text, at + 1)
    const minutes = two(text, at + 4)
    if (at + 6 !== length || text.charCodeAt(at + 3) !== 0x3a || !(hours <= 23 && minutes <= 59)) return Number.NaN
    offset = (hours * 60 + minutes) * (zone === 0x2b ? 60_000 : -60_000)
  } else {
    return Number.NaN
  }

  const leapSecond = second === 60
  if (leapSecond) second = 59
  // Leap days of the years before this one: year 0 is a leap year of the proleptic calendar.
  const before = year - 1
  const leapDays = year === 0 ? 0 : Math.floor(before / 4) - Math.floor(before / 100) + Math.floor(before / 400) + 1
  const days = year * 365 + leapDays + DAYS_BEFORE[month - 1]! + (leap && month > 2 ? 1 : 0) + day - 1 - EPOCH_DAY
  const time = days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + ms - offset
  if (!leapSecond) return time
  const ofDay = (((time - ms) % DAY_MS) + DAY_MS) % DAY_MS
  return ofDay === DAY_MS - 1_000 ? time + 1_000 : Number.NaN
}

/** Epoch milliseconds of a JSON number: whole, without fraction or exponent, within ±10^15. NaN otherwise. */
export function parseEpochMs(text: string): number {
  if (text.length > 16) return Number.NaN
  for (let i = text.charCodeAt(0) === 0x2d ? 1 : 0; i < text.length; i += 1) {
    const digit = text.charCodeAt(i) - 0x30
    if (digit < 0 || digit > 9) return Number.NaN
  }
  const time = Number(text)
  return Math.abs(time) <= 1e15 ? time + 0 : Number.NaN
}

/** Two digits as a number, NaN when they are not. */
function two(text: string, at: number): number {
  const tens = text.charCodeAt(at) - 0x30
  const ones = text.charCodeAt(at + 1) - 0x30
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : Number.NaN
}
