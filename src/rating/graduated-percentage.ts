/**
 * Graduated percentage: of each part of an amount the percentage of the tier that it lies in. Pure.
 *
 * It is the graduated model with a hundredth of the percentage as the price of one unit of money.
 */
import type { GraduatedPercentagePrice } from '../catalog/price.js'
import { Decimal, printDecimal } from '../decimal.js'
import { rateGraduated } from './graduated.js'
import type { ModelResult } from './line.js'

export function rateGraduatedPercentage(
  price: GraduatedPercentagePrice,
  amount: Decimal,
  included: Decimal,
  flatAtZero: boolean,
): ModelResult {
  const tiers = price.tiers.map(({ after, upTo, rate, flat }) => ({
    after,
    upTo,
    unitPrice: printDecimal(new Decimal(rate).dividedBy(100)),
    flat,
  }))
  return rateGraduated({ tiers }, amount, included, flatAtZero)
}
