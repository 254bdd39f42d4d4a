/**
 * What a usage would cost under several plans, and which is the cheapest. Pure: plans come in with their prices. Usage above a
 * quota that has no price is told per plan: such a plan looks cheap only because nobody priced it.
 */
import type { Price } from '../catalog/price.js'
import { printMoney } from '../currency.js'
import { Decimal, ZERO } from '../decimal.js'
import { quotaStatus } from '../quota/status.js'
import { rate } from './rating.js'

export interface ComparedPlan {
  readonly key: string
  readonly fee: Price | null
  readonly metrics: readonly {
    readonly metric: string
    readonly included: string | null
    readonly price: Price | null
  }[]
}

export interface Comparison {
  readonly totals: Readonly<Record<string, string>>
  /** The plan that is held wins a tie; then the first. Null when none covers the usage. */
  readonly cheapest: string | null
  /** Metrics over their quota without a price, by plan: the plan does not cover this usage. */
  readonly unpriced: Readonly<Record<string, readonly string[]>>
}

export function comparePlans(request: {
  readonly plans: readonly ComparedPlan[]
  readonly usage: Readonly<Record<string, string>>
  readonly held: string | null
  readonly currency: string
  /** Whether a plan that does not cover the usage may be the cheapest; default true. */
  readonly beyondLimits?: boolean
}): Comparison {
  const { plans, usage, held, currency, beyondLimits = true } = request
  const totals: Record<string, string> = {}
  const unpriced: Record<string, string[]> = {}
  for (const plan of plans) {
    let total: Decimal = plan.fee === null ? ZERO : new Decimal(rate({ price: plan.fee, quantity: '1' }).total)
    const missing: string[] = []
    for (const { metric, included, price } of plan.metrics) {
      const quantity = usage[metric] ?? '0'
      if (included === null) continue
      if (price !== null) total = total.plus(rate({ price, quantity, included }).total)
      else if (quotaStatus(quantity, included).status === 'over') missing.push(metric)
    }
    totals[plan.key] = printMoney(total, currency)
    unpriced[plan.key] = missing
  }
  const eligible = plans.filter((plan) => beyondLimits || unpriced[plan.key]?.length === 0)
  const cheapest = eligible.reduce<ComparedPlan | undefined>((best, plan) => {
    if (best === undefined) return plan
    const order = new Decimal(totals[plan.key] ?? 0).cmp(totals[best.key] ?? 0)
    return order < 0 || (order === 0 && plan.key === held) ? plan : best
  }, undefined)
  return { totals, cheapest: cheapest?.key ?? null, unpriced }
}
