/**
 * Where a balance stands against its quota, and which thresholds a step of the balance crosses. Pure, on decimal texts, by
 * integers: it is shown to people and to agents, and must be what the invoice will say.
 *
 * Exactly at the limit is not over it: the first unit above is. A quota of 0 has no percentage. Unlimited has neither.
 */
import type { Threshold } from './entitlement.js'

export type QuotaState = 'within' | 'at_limit' | 'over' | 'unlimited'

export interface QuotaStatus {
  /** Percent of the limit with one decimal, half up; null when unlimited or when the limit is 0. */
  readonly percent: string | null
  /** Units above the limit; null when unlimited. */
  readonly overage: string | null
  readonly status: QuotaState
}

/** `usage` and `limit` are decimal texts; a null limit is unlimited. */
export function quotaStatus(usage: string, limit: string | null): QuotaStatus {
  if (limit === null) return { percent: null, overage: null, status: 'unlimited' }
  const places = Math.max(placesOf(usage), placesOf(limit))
  const used = toInteger(usage, places)
  const allowed = toInteger(limit, places)
  const over = used > allowed
  return {
    percent: allowed === 0n ? null : percentOf(used, allowed),
    overage: over ? toText(used - allowed, places) : '0',
    status: over ? 'over' : used === allowed ? 'at_limit' : 'within',
  }
}

/** How many of these metrics are over their quota. */
export function countOver(metrics: readonly { readonly usage: string; readonly limit: string | null }[]): number {
  return metrics.filter((metric) => quotaStatus(metric.usage, metric.limit).status === 'over').length
}

/** What a threshold means in units: a percentage of the limit, or the quantity itself; null for a percentage of no limit. */
export function thresholdQuantity(threshold: Pick<Threshold, 'kind' | 'value'>, limit: string | null): string | null {
  if (threshold.kind === 'absolute') return threshold.value
  if (limit === null) return null
  const places = placesOf(threshold.value) + placesOf(limit)
  return toText(toInteger(threshold.value, placesOf(threshold.value)) * toInteger(limit, placesOf(limit)), places + 2)
}

/**
 * The thresholds that lie in (previous, value], lowest first, as their codes. `recurring` is a step that rings again and again
 * above the highest absolute threshold (500, 1000 and recurring 200: 1200, 1400 …); at most `recurringMax` of them are told.
 */
export function thresholdsCrossed(request: {
  readonly previous: string
  readonly value: string
  readonly limit: string | null
  readonly thresholds: readonly Pick<Threshold, 'code' | 'kind' | 'value'>[]
  readonly recurring?: string
  readonly recurringMax?: number
}): string[] {
  const { previous, value, limit, thresholds, recurring, recurringMax = 1000 } = request
  const at = thresholds.flatMap((threshold) => {
    const quantity = thresholdQuantity(threshold, limit)
    return quantity === null ? [] : [{ code: threshold.code, quantity }]
  })
  const fired = at.filter(({ quantity }) => compare(quantity, previous) > 0 && compare(quantity, value) <= 0)
  if (recurring !== undefined && compare(recurring, '0') > 0) {
    const base = at.reduce((highest, { quantity }) => (compare(quantity, highest) > 0 ? quantity : highest), '0')
    const places = Math.max(placesOf(base), placesOf(recurring), placesOf(value), placesOf(previous))
    const step = toInteger(recurring, places)
    const start = toInteger(base, places)
    const from = toInteger(previous, places)
    let mark = from > start ? start + ((from - start) / step + 1n) * step : start + step
    const last = toInteger(value, places)
    for (let count = 0; mark <= last && count < recurringMax; count += 1, mark += step) {
      fired.push({ code: toText(mark, places), quantity: toText(mark, places) })
    }
  }
  return fired.sort((a, b) => compare(a.quantity, b.quantity)).map(({ code }) => code)
}

/** In alarm at or above the threshold, resolved strictly below it. */
export function thresholdState(value: string, threshold: string): 'ok' | 'alarm' {
  return compare(value, threshold) >= 0 ? 'alarm' : 'ok'
}

function percentOf(used: bigint, allowed: bigint): string {
  // In tenths of a percent, half up away from zero.
  const negative = used < 0n !== allowed < 0n && used !== 0n
  const numerator = (used < 0n ? -used : used) * 1000n
  const denominator = allowed < 0n ? -allowed : allowed
  const tenths = (numerator * 2n + denominator) / (denominator * 2n)
  return `${negative && tenths > 0n ? '-' : ''}${tenths / 10n}.${tenths % 10n}`
}

function compare(a: string, b: string): number {
  const places = Math.max(placesOf(a), placesOf(b))
  const left = toInteger(a, places)
  const right = toInteger(b, places)
  return left < right ? -1 : left > right ? 1 : 0
}

function placesOf(text: string): number {
  const point = text.indexOf('.')
  return point === -1 ? 0 : text.length - point - 1
}

function toInteger(text: string, places: number): bigint {
  if (!/^-?[0-9]{1,60}(?:\.[0-9]{1,60})?$/.test(text))
    throw new Error(`cannot read ${JSON.stringify(text.slice(0, 80))} as a quantity`)
  const [whole = '0', fraction = ''] = text.split('.')
  return BigInt(whole + fraction.padEnd(places, '0'))
}

function toText(value: bigint, places: number): string {
  if (places === 0) return value.toString()
  const negative = value < 0n
  const digits = (negative ? -value : value).toString().padStart(places + 1, '0')
  const fraction = digits.slice(-places).replace(/0+$/, '')
  return `${negative ? '-' : ''}${digits.slice(0, -places)}${fraction === '' ? '' : `.${fraction}`}`
}
