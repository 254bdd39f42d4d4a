/**
 * Metric: what is counted. Scale, aggregation and unit never change: a change is a new version of the metric.
 *
 * This is the part of the catalogue that the usage side reads. Prices, plans and contracts never come here.
 *
 * A weighted sum is a level over time: each value changes it, and the quantity is the level times the hours it stood (Go kept for
 * an hour are Go·h); the level with which a period opens is what all earlier events add up to. A percentile is the smallest value
 * that so many percent of the period's events do not exceed (nearest rank), from the archived events alone.
 */
import type { RoundingMode } from '../decimal.js'
import type { Words } from '../format.js'

export const Aggregation = [
  'sum',
  'count',
  'unique',
  'max',
  'min',
  'latest',
  'average',
  'weighted_sum',
  'percentile',
] as const
export type Aggregation = (typeof Aggregation)[number]

/** Whether a figure can be kept live, event by event. The others change with the time that passes, or need all values. */
export function isLive(aggregation: Aggregation): boolean {
  return aggregation !== 'weighted_sum' && aggregation !== 'percentile'
}

export interface Metric {
  /** The name in events, for example kyc_verification. */
  readonly key: string
  /** What documents call it, as in «62 vérifications KYC»; absent: its key. */
  readonly name?: Words
  /** From 1. */
  readonly version: number
  readonly aggregation: Aggregation
  /** Unit of the value, for example document, token, Go. Go is not Mo. */
  readonly unit: string
  /** Decimals of a value, 0 to 9. */
  readonly scale: number
  /** Members of `dims` (native) or `data` (CloudEvents) that are kept as dimensions, sorted. Others are refused. */
  readonly dims: readonly string[]
  /**
   * For `unique`: what is counted once. 'subject', or the name of a member of `dims`/`data`, which is then not a dimension.
   * null for every other aggregation.
   */
  readonly uniqueBy: string | null
  /** Whether accepted events are kept one by one; without it there is no replay, verify, percentile or void for the metric. */
  readonly archive: boolean
  /** Only for `percentile`: which one, percent as decimal text with at most two decimals, such as 95 or 99.9. */
  readonly percentile?: string
  /** How a period's quantity is rounded before it meets a price; absent: not at all. */
  readonly rounding?: { readonly mode: RoundingMode; readonly places: number }
}

/** What the door needs to judge an event. Immutable; a change of the catalogue makes a new one with a higher version. */
export interface CatalogSnapshot {
  readonly version: number
  /** The latest version of each metric. */
  readonly metrics: readonly Metric[]
  /** Tenants that may send usage. */
  readonly tenants: readonly string[]
}
