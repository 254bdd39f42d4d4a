/**
 * Exact decimals for money: decimal.js with enough digits that no sum or product of ours is ever rounded on the way, strict
 * parsing, the rounding modes by name, and printing without an exponent.
 *
 * Quantities travel as text (amount.ts); they become decimals only where they meet a price. A JavaScript number is accepted
 * from JSON rule files only, by its shortest digits, and only when those are what was written (at most 15 digits).
 */
import { Decimal as DecimalJs } from 'decimal.js'
import { ReleveError } from './errors.js'

/** Own constructor: 80 digits, half up away from zero, never an exponent in text, whatever other code does to the default one. */
export const Decimal = DecimalJs.clone({
  precision: 80,
  rounding: DecimalJs.ROUND_HALF_UP,
  toExpNeg: -9e15,
  toExpPos: 9e15,
  defaults: true,
})
export type Decimal = DecimalJs

/** Text longer than this is refused before the pattern sees it. */
const TEXT_MAX = 64
const PATTERN = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$/

export const ZERO = new Decimal(0)

/** Decimal text (or a short JSON number) to a decimal; `field` names it in the error. Throws ReleveError `invalid_request`. */
export function parseDecimal(value: unknown, field: string): Decimal {
  const text = typeof value === 'number' ? String(value) : value
  if (value === undefined)
    throw new ReleveError('invalid_request', `${field}: is missing; a decimal such as "12.50" is expected`)
  if (typeof text !== 'string' || text.length > TEXT_MAX || !PATTERN.test(text)) {
    throw new ReleveError('invalid_request', `${field}: a decimal such as "12.50" is expected, got ${show(value)}`)
  }
  if (typeof value === 'number' && text.replace(/[-.]/g, '').length > 15) {
    throw new ReleveError('invalid_request', `${field}: write a number of more than 15 digits as text, got ${text}`)
  }
  return new Decimal(text)
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}

/** The shortest exact text. `-0` is 0. */
export function printDecimal(value: Decimal): string {
  return value.isZero() ? '0' : value.toFixed()
}

/** Exact text with at least `places` decimals: 2.5 is "2.50", 0.005 stays "0.005". */
export function printAtLeast(value: Decimal, places: number): string {
  return (value.isZero() ? ZERO : value).toFixed(Math.max(places, value.decimalPlaces()))
}

/** `half_up` is away from zero, so that a credit mirrors its invoice; `down` is towards zero, `up` away from it. */
export const RoundingMode = {
  half_up: Decimal.ROUND_HALF_UP,
  half_even: Decimal.ROUND_HALF_EVEN,
  down: Decimal.ROUND_DOWN,
  up: Decimal.ROUND_UP,
} as const
export type RoundingMode = keyof typeof RoundingMode

/** To `places` decimals. */
export function round(value: Decimal, places: number, mode: RoundingMode = 'half_up'): Decimal {
  const rounded = value.toDecimalPlaces(places, RoundingMode[mode])
  return rounded.isZero() ? ZERO : rounded
}

export function sum(values: Iterable<Decimal>): Decimal {
  let total: Decimal = ZERO
  for (const value of values) total = total.plus(value)
  return total
}
