/**
 * Graduated: each unit at the price of the tier that its own number falls in. Pure.
 *
 * A unit's number is counted over the whole usage, included units too: with 50 included and tiers (50, 100], (100, ∞), unit 51
 * is the first that costs. Units below the first tier, or included by the plan, are free, whichever is more. A tier's flat fee
 * is due once a billable unit enters it; the first tier's also at zero usage, unless the caller rates an interim line.
 */
import type { TieredPrice } from '../catalog/price.js'
import { Decimal } from '../decimal.js'
import type { ModelResult, ModelStep } from './line.js'

export function rateGraduated(
  price: Pick<TieredPrice, 'tiers'>,
  quantity: Decimal,
  included: Decimal,
  flatAtZero: boolean,
): ModelResult {
  const free = Decimal.max(included, price.tiers[0]?.after ?? 0)
  const steps: ModelStep[] = []
  for (const tier of price.tiers) {
    const after = new Decimal(tier.after)
    const upTo = tier.upTo === null ? null : new Decimal(tier.upTo)
    const lower = Decimal.max(after, free)
    const upper = upTo === null ? quantity : Decimal.min(upTo, quantity)
    const units = Decimal.max(upper.minus(lower), 0)
    const flat = new Decimal(tier.flat)
    const entered = units.gt(0) || (flatAtZero && flat.gt(0) && free.isZero() && after.isZero())
    if (!entered) continue
    const unitPrice = new Decimal(tier.unitPrice)
    steps.push({ after: lower, upTo, quantity: units, unitPrice, flat, amount: units.times(unitPrice).plus(flat) })
  }
  return { free, steps }
}
