/**
 * What rating hands out: a line with the steps that made it, exact until the line is rounded once to the currency.
 *
 * The steps sum to `exact`, `amount` is `exact` rounded half up, and a rating's total is the sum of its lines' amounts.
 */
import type { Price } from '../catalog/price.js'
import type { Decimal } from '../decimal.js'
import type { Words } from '../format.js'

/** One tier used (or the only price of a model without tiers). Decimal texts; `amount` is exact, not rounded. */
export interface Step {
  /** Units above this … */
  readonly after: string
  /** … up to and including this; null is open. */
  readonly upTo: string | null
  /** Units, packages or events priced in this step. */
  readonly quantity: string
  readonly unitPrice: string
  /** Fee of the tier itself, due once. */
  readonly flat: string
  readonly amount: string
}

export interface RatedLine {
  readonly rule: string
  readonly version: string
  readonly model: Price['model']
  readonly metric: string | null
  readonly currency: string
  /** The whole usage. */
  readonly quantity: string
  /** Units of it that cost nothing: included by the plan, or below the first tier. */
  readonly free: string
  /** quantity − free, never below 0. */
  readonly billable: string
  readonly steps: readonly Step[]
  /** Sum of the steps, full precision. */
  readonly exact: string
  /** `exact` rounded half up to the currency's decimals. */
  readonly amount: string
  readonly explanation: Words
}

/** What a price model returns to rating.ts: its steps, still as decimals. */
export interface ModelStep {
  readonly after: Decimal
  readonly upTo: Decimal | null
  readonly quantity: Decimal
  readonly unitPrice: Decimal
  readonly flat: Decimal
  readonly amount: Decimal
}
export interface ModelResult {
  readonly free: Decimal
  readonly steps: readonly ModelStep[]
}
