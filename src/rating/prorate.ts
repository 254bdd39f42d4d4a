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

/** What a range counts in a proration: days of its zone, or seconds. */
export function lengthOf(range: Period, zone: string, by: 'day' | 'second' = 'day'): number {
  return by === 'second' ? (range.to - range.from) / 1000 : daysOf(range, zone)
}
