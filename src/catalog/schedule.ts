/**
 * Billing periods of a contract as a list: so many half-open periods from its start, and the next bound. Each is computed from the
 * anchor, never from the bound before: 31 January, 29 February, 31 March. Pure.
 */
import { DateTime } from 'luxon'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { billingPeriodOf, type Cycle, type Period } from '../period.js'

/** Midnight of a calendar date (YYYY-MM-DD) in a zone, epoch ms. Throws ReleveError `invalid_request`. */
export function midnightOf(date: string, zone: string): number {
  const key = `${date} ${zone}`
  const known = midnights.get(key)
  if (known !== undefined) return known
  const at = DateTime.fromISO(date, { zone })
  if (!/^\d{4}-\d{2}-\d{2}$/.test(date) || !at.isValid) {
    throw new ReleveError(
      'invalid_request',
      `date: YYYY-MM-DD in a known time zone is expected, got ${date} in ${zone}`,
    )
  }
  if (midnights.size >= MIDNIGHTS_MAX) midnights.clear()
  midnights.set(key, at.toMillis())
  return at.toMillis()
}

/** Contracts share their dates, and the calendar of a zone is slow. */
const midnights = new Map<string, number>()
const MIDNIGHTS_MAX = 10_000

/** The first `count` periods from the anchor. */
export function schedule(anchor: number, count: number, zone: string, cycle: Cycle = 'monthly'): Period[] {
  if (!Number.isInteger(count) || count < 1 || count > limits.scheduleMonthsMax) {
    throw new ReleveError('invalid_request', `months: 1 to ${limits.scheduleMonthsMax} is expected, got ${count}`)
  }
  const periods: Period[] = []
  let at = anchor
  for (let i = 0; i < count; i += 1) {
    const period = billingPeriodOf(at, anchor, zone, cycle)
    periods.push(period)
    at = period.to
  }
  return periods
}

/** The first bound of a contract's periods that lies after `now`. */
export function nextRenewal(anchor: number, now: number, zone: string, cycle: Cycle = 'monthly'): number {
  return now < anchor ? anchor : billingPeriodOf(now, anchor, zone, cycle).to
}

/** A calendar month of a zone by its name, YYYY-MM. Throws ReleveError `invalid_request`. */
export function monthNamed(name: string, zone: string): Period {
  const from = midnightOf(`${name}-01`, zone)
  return { from, to: DateTime.fromMillis(from, { zone }).plus({ months: 1 }).startOf('month').toMillis() }
}
