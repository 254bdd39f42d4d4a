/**
 * Entitlement: how much of a metric a contract item gives per period, and where alarms ring. It reaches the shards as data;
 * nothing on the usage side knows plans or prices.
 */
import type { Cycle } from '../period.js'

export interface Threshold {
  /** Stable name, part of the alert's identity: for example «80%» or «1000». */
  readonly code: string
  /** Percent of the limit, or an absolute quantity in the metric's unit; both as decimal text. */
  readonly kind: 'percent' | 'absolute'
  readonly value: string
  /** The alert rule that asks for it; none: the contract item itself. */
  readonly rule?: string
}

/** Rings at `from` + `every`, `from` + 2 × `every` … for as long as usage grows. A step is a milestone: it is not resolved. */
export interface Recurring {
  readonly code: string
  readonly rule: string
  readonly every: string
  readonly from: string
}

export interface Entitlement {
  /** The contract item. */
  readonly item: string
  readonly contract: string
  readonly tenant: string
  readonly product: string
  readonly metric: string
  /** Quantity per period as decimal text; null is unlimited. */
  readonly limit: string | null
  /** Version of limit and thresholds: a changed limit may ring again. */
  readonly limitVersion: number
  readonly thresholds: readonly Threshold[]
  /** Start of the contract, epoch ms: periods are counted from here, in the zone. */
  readonly anchor: number
  /** Absent: monthly. */
  readonly cycle?: Cycle
  readonly timeZone: string
  /** What alert rules ask for besides. */
  readonly recurring?: readonly Recurring[]
  /** Rings when the level will be crossed before the period ends, as usage goes. */
  readonly forecasts?: readonly Threshold[]
}
