/**
 * Half-open ranges of time [from, to) in epoch milliseconds, windows and billing periods.
 *
 * A *window* is technical (minute, hour, day, month of a usage answer); a *period* is what is billed. Minutes and hours are
 * aligned on UTC; days, months and periods are aligned in an IANA time zone, by luxon, so that a day may have 23 or 25 hours.
 */
import { DateTime, IANAZone } from 'luxon'
import { assert } from './assert.js'
import { ReleveError } from './errors.js'

export interface Period {
  /** First millisecond inside. */
  readonly from: number
  /** First millisecond after. */
  readonly to: number
}

export const MINUTE_MS = 60_000
export const HOUR_MS = 3_600_000
export const DAY_MS = 86_400_000

export const WindowSize = ['minute', 'hour', 'day', 'month'] as const
export type WindowSize = (typeof WindowSize)[number]

export function isTimeZone(zone: string): boolean {
  return IANAZone.isValidZone(zone)
}

export function minuteOf(time: number): number {
  return Math.floor(time / MINUTE_MS) * MINUTE_MS
}

/**
 * The window of a size that holds `time`. Days and months in the zone; minutes and hours are the zone's wall-clock ones too. An
 * hour in which the clocks change by less than an hour (Lord Howe) is two windows, cut at the change.
 */
export function windowOf(time: number, size: WindowSize, zone: string): Period {
  if (size === 'minute' || size === 'hour') return clockWindowOf(time, size === 'minute' ? MINUTE_MS : HOUR_MS, zone)
  const at = DateTime.fromMillis(time, { zone })
  assert(at.isValid, `cannot place ${time} in zone ${zone}`)
  const from = at.startOf(size)
  return {
    from: from.toMillis(),
    to: from
      .plus({ [size]: 1 })
      .startOf(size)
      .toMillis(),
  }
}

function clockWindowOf(time: number, size: number, zone: string): Period {
  const offset = (ms: number): number => IANAZone.create(zone).offset(ms) * MINUTE_MS
  const own = offset(time)
  assert(Number.isFinite(own), `cannot place ${time} in zone ${zone}`)
  let from = Math.floor((time + own) / size) * size - own
  let to = from + size
  // Changes fall on whole minutes, so these find them.
  while (from < time && offset(from) !== own) from += MINUTE_MS
  while (to - 1 > time && offset(to - 1) !== own) to -= MINUTE_MS
  return { from, to }
}

/** How long a billing period is. */
export const Cycle = ['weekly', 'monthly', 'quarterly', 'yearly'] as const
export type Cycle = (typeof Cycle)[number]

const LENGTHS: Readonly<Record<Cycle, { readonly unit: 'weeks' | 'months'; readonly count: number }>> = {
  weekly: { unit: 'weeks', count: 1 },
  monthly: { unit: 'months', count: 1 },
  quarterly: { unit: 'months', count: 3 },
  yearly: { unit: 'months', count: 12 },
}

/**
 * The billing period that holds `time`, or the term of `times` periods, counted from an anchor in the zone. Each start is computed from the anchor itself, so
 * 31 January is followed by 28 or 29 February and then by 31 March again.
 */
export function billingPeriodOf(time: number, anchor: number, zone: string, cycle: Cycle, times = 1): Period {
  const origin = DateTime.fromMillis(anchor, { zone })
  assert(origin.isValid, `cannot place ${anchor} in zone ${zone}`)
  const { unit } = LENGTHS[cycle]
  const count = LENGTHS[cycle].count * times
  let index = Math.floor(DateTime.fromMillis(time, { zone }).diff(origin, unit)[unit] / count)
  const start = (i: number): number => origin.plus({ [unit]: i * count }).toMillis()
  while (start(index) > time) index -= 1
  while (start(index + 1) <= time) index += 1
  return { from: start(index), to: start(index + 1) }
}

export function contains(period: Period, time: number): boolean {
  return time >= period.from && time < period.to
}

/** RFC 3339 with a zone, or epoch milliseconds. */
export function parseMoment(name: string, text: string): number {
  if (/^[0-9]{1,15}$/.test(text)) return Number(text)
  const parsed = DateTime.fromISO(text, { setZone: true })
  if (!parsed.isValid || !/(Z|[+-][0-9]{2}:?[0-9]{2})$/i.test(text)) {
    throw new ReleveError(
      'invalid_request',
      `${name}: «${text}» is neither RFC 3339 with a zone nor epoch milliseconds`,
    )
  }
  return parsed.toMillis()
}
