/**
 * Where a balance stands against its quota. Pure, on decimal texts, by integers: it is shown to people and to agents, and must be
 * what the invoice will say. Which thresholds it crosses is balance.ts's to tell.
 *
 * Exactly at the limit is not over it: the first unit above is. A quota of 0 has no percentage. Unlimited has neither.
 */

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

/** How many of these quotas are exceeded. */
export function countOver(quotas: readonly Pick<QuotaStatus, 'status'>[]): number {
  return quotas.filter(({ status }) => status === 'over').length
}

function percentOf(used: bigint, allowed: bigint): string {
  // In tenths of a percent, half up away from zero.
  const negative = used < 0n !== allowed < 0n && used !== 0n
  const numerator = (used < 0n ? -used : used) * 1000n
  const denominator = allowed < 0n ? -allowed : allowed
  const tenths = (numerator * 2n + denominator) / (denominator * 2n)
  return `${negative && tenths > 0n ? '-' : ''}${tenths / 10n}.${tenths % 10n}`
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
