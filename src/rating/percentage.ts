/**
 * Percentage: a share of an amount (the quantity is money that passed through), plus a fee for each event. Pure.
 *
 * The first `freeAmount` and the first `freeEvents` cost nothing. What one event costs may have bounds; then the amounts must be
 * known one by one, in the order of the events, and an event that is free in both ways is not lifted to the minimum. Minimum and
 * maximum of the price bound the whole line. Each bound that acts is a step of its own, so that the steps still sum to the line.
 */
import type { PercentagePrice } from '../catalog/price.js'
import { Decimal, sum, ZERO } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { ModelResult, ModelStep } from './line.js'

/** Events with equal amounts that follow each other. */
export interface EventAmount {
  readonly amount: Decimal
  readonly count: Decimal
}

export function ratePercentage(
  price: PercentagePrice,
  amount: Decimal,
  included: Decimal,
  events: Decimal,
  amounts: readonly EventAmount[] | undefined,
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
  const charged = (): Decimal => sum(steps.map((step) => step.amount))
  if (price.minimumPerEvent !== undefined || price.maximumPerEvent !== undefined) {
    const bounded = boundedEvents(price, free, amounts, amount)
    if (!bounded.eq(charged())) push(ZERO, ZERO, ZERO, bounded.minus(charged()))
  }
  // At no usage there is nothing to bound: a minimum of a period is adjust.ts.
  if (steps.length > 0 && price.minimum !== null && charged().lt(price.minimum)) {
    push(ZERO, ZERO, ZERO, new Decimal(price.minimum).minus(charged()))
  }
  if (price.maximum !== null && charged().gt(price.maximum))
    push(ZERO, ZERO, ZERO, new Decimal(price.maximum).minus(charged()))
  return { free, steps }
}

/** What the events cost together, each within its bounds. */
function boundedEvents(
  price: PercentagePrice,
  free: Decimal,
  amounts: readonly EventAmount[] | undefined,
  amount: Decimal,
): Decimal {
  const known = sum((amounts ?? []).map((one) => one.amount.times(one.count)))
  if (!known.eq(amount)) {
    const detail = `amounts: ${price.metric} is priced by the event, so the amounts must sum to ${amount}, got ${known}`
    throw new ReleveError('unprocessable', detail)
  }
  let total: Decimal = ZERO
  let passed: Decimal = ZERO
  let place: Decimal = ZERO
  const add = (one: Decimal, count: Decimal): void => {
    const base = Decimal.max(Decimal.min(one, passed.plus(one).minus(free)), 0)
    const fee = place.gte(price.freeEvents) ? price.perEvent : '0'
    const cost = base.times(price.rate).dividedBy(100).plus(fee)
    const isFree = base.isZero() && place.lt(price.freeEvents)
    const least = isFree ? cost : Decimal.max(cost, price.minimumPerEvent ?? cost)
    total = total.plus(Decimal.min(least, isFree ? least : (price.maximumPerEvent ?? least)).times(count))
    passed = passed.plus(one.times(count))
    place = place.plus(count)
  }
  for (const { amount: one, count } of amounts ?? []) {
    let left = count
    // Within what is free each event is looked at by itself; behind it equal ones cost the same.
    while (left.gt(0) && (passed.lt(free) || place.lt(price.freeEvents))) {
      add(one, new Decimal(1))
      left = left.minus(1)
    }
    if (left.gt(0)) add(one, left)
  }
  return total
}
