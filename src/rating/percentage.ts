/**
 * Percentage: a share of an amount (the quantity is money that passed through), plus a fee for each event. Pure.
 *
 * The first `freeAmount` and the first `freeEvents` cost nothing; minimum and maximum bound the whole line, and each appears as
 * a step of its own so that the steps still sum to the line.
 */
import type { PercentagePrice } from '../catalog/price.js'
import { Decimal, sum, ZERO } from '../decimal.js'
import type { ModelResult, ModelStep } from './line.js'

export function ratePercentage(
  price: PercentagePrice,
  amount: Decimal,
  included: Decimal,
  events: Decimal,
): ModelResult {
  const free = Decimal.max(included, price.freeAmount)
  const base = Decimal.max(amount.minus(free), 0)
  const counted = Decimal.max(events.minus(price.freeEvents), 0)
  const steps: ModelStep[] = []
  const push = (after: Decimal, quantity: Decimal, unitPrice: Decimal, flat: Decimal): void => {
    steps.push({ after, upTo: null, quantity, unitPrice, flat, amount: quantity.times(unitPrice).plus(flat) })
  }
  if (base.gt(0)) push(free, base, new Decimal(price.rate).dividedBy(100), ZERO)
  const perEvent = new Decimal(price.perEvent)
  if (counted.gt(0) && perEvent.gt(0)) push(new Decimal(price.freeEvents), counted, perEvent, ZERO)
  const charged = sum(steps.map((step) => step.amount))
  // At no usage there is nothing to bound: a minimum of a period is adjust.ts.
  if (steps.length > 0 && price.minimum !== null && charged.lt(price.minimum)) {
    push(ZERO, ZERO, ZERO, new Decimal(price.minimum).minus(charged))
  }
  if (price.maximum !== null && charged.gt(price.maximum))
    push(ZERO, ZERO, ZERO, new Decimal(price.maximum).minus(charged))
  return { free, steps }
}
