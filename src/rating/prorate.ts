/**
 * Part periods. By day is the default for people: inclusive days over the days of the full period, so that a clock change never
 * moves an amount. By second is offered for those who need it. Pure: the times come in, nobody asks a clock.
 *
 * A change of plan is two lines, a credit for what is left of the old one and a charge for the new one, each rounded by itself.
 * Usage is never prorated.
 */
import { printMoney } from '../currency.js'
import { Decimal, parseDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { dateIn } from '../format.js'
import { DAY_MS, HOUR_MS, type Period } from '../period.js'

/** amount × part / whole, rounded half up. Both parts are counts of the same thing (days, seconds). */
export function prorate(amount: string, part: number | string, whole: number | string, currency: string): string {
  const denominator = new Decimal(whole)
  if (denominator.lte(0)) throw new ReleveError('unprocessable', 'the full period is empty')
  return printMoney(parseDecimal(amount, 'amount').times(part).dividedBy(denominator), currency)
}

/** Calendar days of a range in a zone; a day of 23 hours is a day. Between the two dates, which are remembered: every line asks. */
export function daysOf(range: Period, zone: string): number {
  return (Date.parse(dateIn(range.to, zone)) - Date.parse(dateIn(range.from, zone))) / DAY_MS
}

/** Hours of a range; a month with a clock change has one more or one less. */
export function hoursOf(range: Period): number {
  return (range.to - range.from) / HOUR_MS
}

/** The part of a period from `start` on, to its end or to `end`, by day or by second. */
export function prorateRest(request: {
  readonly amount: string
  readonly start: number
  readonly end?: number
  readonly period: Period
  readonly zone: string
  readonly by: 'day' | 'second'
  readonly currency: string
}): string {
  const { amount, start, period, zone, by, currency, end = period.to } = request
  if (start < period.from || start >= period.to)
    throw new ReleveError('unprocessable', 'start: lies outside the period')
  if (end <= start || end > period.to)
    throw new ReleveError('unprocessable', 'end: lies outside the rest of the period')
  const part = { from: start, to: end }
  return by === 'day'
    ? prorate(amount, daysOf(part, zone), daysOf(period, zone), currency)
    : prorate(amount, end - start, period.to - period.from, currency)
}

/** A change of plan with `left` of `whole` to go (days, seconds, or a fraction of 1): `{credit ≤ 0, charge ≥ 0, net}`. */
export function prorateChange(request: {
  readonly old: string
  readonly new: string
  readonly left: number | string
  readonly whole: number | string
  readonly currency: string
}): { readonly credit: string; readonly charge: string; readonly net: string } {
  const { left, whole, currency } = request
  const credit = new Decimal(prorate(request.old, left, whole, currency)).negated()
  const charge = new Decimal(prorate(request.new, left, whole, currency))
  return {
    credit: printMoney(credit, currency),
    charge: printMoney(charge, currency),
    net: printMoney(credit.plus(charge), currency),
  }
}
