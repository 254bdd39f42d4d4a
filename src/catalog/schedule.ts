/**
 * Billing periods of a contract as a list, and the midnight that they begin at. Each is computed from the contract's start, never
 * from the bound before: 31 January, 29 February, 31 March. Pure.
 */
import { DateTime } from 'luxon'
import { ReleveError } from '../errors.js'
import { billingPeriodOf, type Period } from '../period.js'
import type { Contract } from './contract.js'

/** Midnight of a calendar date (YYYY-MM-DD) in a zone, epoch ms. Throws ReleveError `invalid_request` naming the field. */
export function midnightOf(date: string, zone: string, field = 'date'): number {
  const key = `${date} ${zone}`
  const known = midnights.get(key)
  if (known !== undefined) return known
  const at = DateTime.fromISO(date, { zone })
  if (!/^\d{4}-\d{2}-\d{2}$/.test(date) || !at.isValid) {
    throw new ReleveError(
      'invalid_request',
      `${field}: YYYY-MM-DD in a known time zone is expected, got ${date} in ${zone}`,
    )
  }
  if (midnights.size >= MIDNIGHTS_MAX) midnights.clear()
  midnights.set(key, at.toMillis())
  return at.toMillis()
}

/** Contracts share their dates, and the calendar of a zone is slow. */
const midnights = new Map<string, number>()
const MIDNIGHTS_MAX = 10_000

/** The billing periods of a contract that a range touches, whole; the first is the one that holds the range's start. */
export function schedule(contract: Pick<Contract, 'start' | 'timeZone' | 'cycle'>, range: Period): Period[] {
  const { start, timeZone, cycle } = contract
  const anchor = midnightOf(start, timeZone)
  const periods: Period[] = []
  for (let at = range.from; at < range.to; at = periods.at(-1)!.to)
    periods.push(billingPeriodOf(at, anchor, timeZone, cycle))
  return periods
}
