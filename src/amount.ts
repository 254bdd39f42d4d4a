/**
 * Quantities: fixed-point integers, value = scaled / 10^scale, from the door to the rollup. No float carries a quantity.
 *
 * A metric fixes its scale (0 to 9 decimals) for ever. One event's scaled value stays within ±10^18, so that it fits an i64 in
 * the frame, and sums of it fit Decimal(38,9) in ClickHouse. Money is not here: rating and invoicing use decimal.js.
 */
import { assert } from './assert.js'

/** Decimals that a metric may have. */
export const SCALE_MAX = 9
/** Bound on one event's scaled value, both signs: 18 digits. Derivation: i64 holds 9.22 × 10^18. */
export const SCALED_MAX = 10n ** 18n
/** Decimals of the rollup columns, Decimal(38,9). */
export const ROLLUP_SCALE = 9

const POWERS = Array.from({ length: 39 }, (_, i) => 10n ** BigInt(i))

const SMALL_POWERS = Array.from({ length: SCALE_MAX + 1 }, (_, i) => 10 ** i)

export function powerOfTen(exponent: number): bigint {
  const power = POWERS[exponent]
  assert(power !== undefined, `power of ten out of range: ${exponent}`)
  return power
}

/** Why a decimal text is not a quantity of a scale. */
export type QuantityFault = 'not_a_number' | 'too_many_decimals' | 'out_of_range'

/** A JSON number or its quoted form: no leading plus, no leading zeros, no NaN, no Infinity, no blanks. */
const DECIMAL = /^(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/
/** A character that no number has. */
const FOREIGN = /[^0-9eE.+-]/
/** Longer texts are refused before the pattern sees them, as out of range when they have the characters of a number alone. */
const TEXT_MAX = 64
/** Digits that a double holds exactly, whatever they are. */
const EXACT_DIGITS = 15

/**
 * Decimal text to scaled integer, by its digits. `-0` is 0. An exponent is accepted when the result is exact; a digit behind
 * the scale must be zero (1.50 at scale 1 is fine, 1.55 is `too_many_decimals`): nothing is rounded in silence.
 */
export function parseQuantity(text: string, scale: number): bigint | QuantityFault {
  const plain = parsePlain(text, scale)
  if (plain !== undefined) return plain
  if (text.length > TEXT_MAX) return FOREIGN.test(text) ? 'not_a_number' : 'out_of_range'
  const match = DECIMAL.exec(text)
  if (match === null) return 'not_a_number'
  const [, sign, whole = '0', fraction = '', exponentText = '0'] = match
  // The digits as one integer, with its own exponent; trailing zeros dropped so that 1.500e1 and 15 are the same.
  let digits = (whole + fraction).replace(/^0+/, '')
  if (digits === '') return 0n
  if (exponentText.length > 4) return exponentText.startsWith('-') ? 'too_many_decimals' : 'out_of_range'
  let exponent = Number(exponentText) - fraction.length
  const trimmed = digits.replace(/0+$/, '')
  exponent += digits.length - trimmed.length
  digits = trimmed
  const shift = exponent + scale
  // The bound is checked on the count of digits before any scaling happens.
  if (digits.length + shift > 19) return 'out_of_range'
  if (shift < 0) return 'too_many_decimals'
  const scaled = BigInt(digits) * powerOfTen(shift)
  if (scaled > SCALED_MAX) return 'out_of_range'
  return sign === '-' ? -scaled : scaled
}

/**
 * The common case, digits with or without a point, as an exact integer below 10^15; undefined for everything else, which the
 * pattern then judges. Measured: 37 ns a text, against 310 ns by the pattern.
 */
function parsePlain(text: string, scale: number): bigint | undefined {
  const length = text.length
  if (length > EXACT_DIGITS + 2) return undefined
  const negative = text.charCodeAt(0) === 0x2d
  const start = negative ? 1 : 0
  let value = 0
  let point = -1
  for (let at = start; at < length; at += 1) {
    const code = text.charCodeAt(at)
    if (code >= 0x30 && code <= 0x39) value = value * 10 + (code - 0x30)
    else if (code === 0x2e && point < 0) point = at
    else return undefined
  }
  const wholeDigits = (point < 0 ? length : point) - start
  const decimals = point < 0 ? 0 : length - point - 1
  if (wholeDigits === 0 || (point >= 0 && decimals === 0)) return undefined
  if (wholeDigits > 1 && text.charCodeAt(start) === 0x30) return undefined
  if (decimals > scale || wholeDigits + scale > EXACT_DIGITS) return undefined
  const scaled = value * SMALL_POWERS[scale - decimals]!
  return BigInt(negative ? -scaled : scaled)
}

/** Scaled integer to the shortest decimal text: 12500 at scale 3 is "12.5". */
export function printQuantity(scaled: bigint, scale: number): string {
  if (scale === 0) return scaled.toString()
  const negative = scaled < 0n
  const digits = (negative ? -scaled : scaled).toString().padStart(scale + 1, '0')
  const fraction = digits.slice(-scale).replace(/0+$/, '')
  const whole = digits.slice(0, -scale)
  return `${negative ? '-' : ''}${whole}${fraction === '' ? '' : `.${fraction}`}`
}

/** To a larger scale, exactly. */
export function rescale(scaled: bigint, from: number, to: number): bigint {
  assert(to >= from, `cannot rescale from ${from} to ${to} without rounding`)
  return scaled * powerOfTen(to - from)
}
