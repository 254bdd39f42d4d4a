/**
 * Volume: all billable units at the price of the one tier that the whole usage falls in. Pure.
 *
 * Included units choose the tier but are not priced. A larger quantity may therefore cost less at a tier's edge; the catalogue's
 * lint and the simulator say so, rating just computes.
 */

import { assert } from '../assert.js'
import type { TieredPrice } from '../catalog/price.js'
import { Decimal } from '../decimal.js'
import type { ModelResult } from './line.js'

export function rateVolume(price: TieredPrice, quantity: Decimal, included: Decimal, flatAtZero: boolean): ModelResult {
  const free = Decimal.max(included, price.tiers[0]?.after ?? 0)
  const billable = Decimal.max(quantity.minus(free), 0)
  const tier = price.tiers.find((candidate) => candidate.upTo === null || quantity.lte(candidate.upTo))
  assert(tier !== undefined, 'the last tier is open')
  const flat = new Decimal(tier.flat)
  const entered = billable.gt(0) || (flatAtZero && flat.gt(0) && free.isZero())
  if (!entered) return { free, steps: [] }
  const unitPrice = new Decimal(tier.unitPrice)
  return {
    free,
    steps: [
      {
        after: new Decimal(tier.after),
        upTo: tier.upTo === null ? null : new Decimal(tier.upTo),
        quantity: billable,
        unitPrice,
        flat,
        amount: billable.times(unitPrice).plus(flat),
      },
    ],
  }
}
