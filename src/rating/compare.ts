/**
 * What a usage would cost under several plans, and which is the cheapest. Pure: plans come in with their prices. Usage above a
 * quota that has no price is told per plan: such a plan looks cheap only because nobody priced it. Fees of different cycles, prices
 * of another currency, and prices with tax beside prices without are refused, not mixed.
 */
import type { Price } from '../catalog/price.js'
import { printMoney } from '../currency.js'
import { Decimal, parseDecimal, ZERO } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { quotaStatus } from '../quota/status.js'
import { previewRating } from './preview.js'
import type { QuantityRounding } from './quantity.js'
import { rate } from './rating.js'

export interface ComparedPlan {
  readonly key: string
  /** Rule of the fee, told when it has no price. */
  readonly feeRule?: string | null
  readonly fee: Price | null
  readonly metrics: readonly {
    readonly metric: string
    readonly included: string | null
    readonly price: Price | null
    /** Of the metric; absent: the quantity is one of the price. */
    readonly unit?: string
    readonly rounding?: QuantityRounding | undefined
  }[]
}

export interface Comparison {
  readonly totals: Readonly<Record<string, string>>
  /** The plan that is held wins a tie; then the first. Null when none covers the usage. */
  readonly cheapest: string | null
  /** By plan: its fee without a price, and metrics of which some usage has none. The plan does not cover this usage. */
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
  const used = Object.keys(usage).filter((metric) => parseDecimal(usage[metric]!, `usage.${metric}`).gt(0))
  assertComparable(plans, currency)
  for (const plan of plans) {
    let total: Decimal = plan.fee === null ? ZERO : new Decimal(rate({ price: plan.fee, quantity: '1' }).total)
    const missing = used.filter((metric) => !plan.metrics.some((one) => one.metric === metric))
    if (plan.fee === null && plan.feeRule != null) missing.unshift(plan.feeRule)
    for (const { metric, included, price, unit, rounding } of plan.metrics) {
      const quantity = usage[metric] ?? '0'
      if (included === null) continue
      if (price !== null) {
        const of = unit === undefined ? {} : { metric: { unit, rounding } }
        const rated = previewRating({ price, quantity, included, ...of })
        total = total.plus(rated.total)
        if (parseDecimal(rated.unpriced, 'unpriced').gt(0)) missing.push(metric)
      } else if (quotaStatus(quantity, included).status === 'over') missing.push(metric)
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

function assertComparable(plans: readonly ComparedPlan[], currency: string): void {
  const cycles = new Set(plans.flatMap(({ fee }) => (fee?.model === 'flat' ? [fee.billingCycle] : [])))
  if (cycles.size > 1)
    throw new ReleveError('unprocessable', `plans: their fees are ${[...cycles].join(' and ')}, which is not compared`)
  for (const { fee, metrics } of plans)
    for (const price of [fee, ...metrics.map((metric) => metric.price)])
      if (price !== null && price.currency !== currency)
        throw new ReleveError('unprocessable', `plans: ${price.rule} is in ${price.currency}, not ${currency}`)
  const prices = plans.flatMap(({ fee, metrics }) => [fee, ...metrics.map((metric) => metric.price)])
  const [one, other] = [true, false].map((inclusive) =>
    prices.find((price) => price !== null && (price.taxBehavior === 'inclusive') === inclusive),
  )
  if (one != null && other != null)
    throw new ReleveError(
      'unprocessable',
      `plans: ${one.rule} is with tax and ${other.rule} without, which is not compared`,
    )
}
