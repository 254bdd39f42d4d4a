/**
 * Dynamic: every event says itself what it costs, so the quantity is the sum of these amounts; the price may multiply it (a margin
 * of 15 % is the factor 1.15). Amounts that the plan includes come off first. Pure.
 */
import type { DynamicPrice } from '../catalog/price.js'
import { Decimal, ZERO } from '../decimal.js'
import type { ModelResult } from './line.js'

export function rateDynamic(price: DynamicPrice, amount: Decimal, included: Decimal): ModelResult {
  const billable = amount.minus(included)
  if (billable.lte(0)) return { free: included, steps: [] }
  const factor = new Decimal(price.factor)
  return {
    free: included,
    steps: [
      {
        after: included,
        upTo: null,
        quantity: billable,
        unitPrice: factor,
        flat: ZERO,
        amount: billable.times(factor),
      },
    ],
  }
}
