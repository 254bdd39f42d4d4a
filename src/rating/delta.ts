/**
 * Rating of what came later: rate(all) − rate(already billed), so that late units continue the tiers of their own period. Pure.
 *
 * Both sides are rounded before they are subtracted: the first was billed rounded, so the sum of all parts is what one invoice
 * over the whole would have said, to the last unit. A delta may be negative (volume prices, or usage that was voided).
 * Also here: usage under two versions of a rule, by the version of the period's start or by the time of each event.
 */
import type { Price } from '../catalog/price.js'
import { printMoney } from '../currency.js'
import { Decimal, parseDecimal, printDecimal, ZERO } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { type RateRequest, type Rating, rate } from './rating.js'

export interface Delta {
  readonly amount: string
  readonly currency: string
  /** quantity − billed. */
  readonly quantity: string
  readonly before: Rating
  readonly after: Rating
}

/**
 * `billed` is the quantity that earlier invoices of the period have covered, `quantity` the whole as it is known now; likewise
 * `billedEvents` and `events`, `billedAmounts` and `amounts`, for prices that ask for them.
 */
export function rateDelta(
  request: RateRequest & {
    readonly billed: string
    readonly billedEvents?: string
    readonly billedAmounts?: NonNullable<RateRequest['amounts']>
  },
): Delta {
  const { billed, billedEvents, billedAmounts, ...whole } = request
  const before = rate({
    ...whole,
    quantity: billed,
    ...(billedEvents === undefined ? {} : { events: billedEvents }),
    ...(billedAmounts === undefined ? {} : { amounts: billedAmounts }),
  })
  const after = rate(whole)
  return {
    amount: printMoney(new Decimal(after.total).minus(before.total), request.price.currency),
    currency: request.price.currency,
    quantity: printDecimal(parseDecimal(request.quantity, 'quantity').minus(parseDecimal(billed, 'billed'))),
    before,
    after,
  }
}

export interface PriceInForce {
  /** Epoch ms from which this version holds, until the next one. */
  readonly from: number
  readonly price: Price
}

/**
 * Rates dated usage under versions of one rule. `period_start` (the default everywhere): the version in force when the period
 * began prices all of it. `event_time`: each part at the version of its own time, continuing the tiers.
 */
export function rateByVersions(request: {
  readonly versions: readonly PriceInForce[]
  readonly usage: readonly { readonly at: number; readonly quantity: string }[]
  readonly periodStart: number
  readonly policy: 'period_start' | 'event_time'
  readonly included?: string
}): { readonly total: string; readonly versions: readonly string[] } {
  const inForce = (time: number): Price => {
    const found = request.versions.filter((version) => version.from <= time).sort((a, b) => b.from - a.from)[0]
    if (found === undefined) throw new ReleveError('unprocessable', 'versions: no version is in force at the time')
    return found.price
  }
  const parts = [...request.usage].sort((a, b) => a.at - b.at)
  const included = request.included === undefined ? {} : { included: request.included }
  let counted: Decimal = ZERO
  let total: Decimal = ZERO
  const used = new Set<string>()
  for (const part of parts) {
    const price = inForce(request.policy === 'period_start' ? request.periodStart : part.at)
    const quantity = counted.plus(parseDecimal(part.quantity, 'quantity'))
    // The first part takes the whole rating, with a flat fee of the first tier; the others continue it.
    const amount =
      part === parts[0]
        ? rate({ price, quantity: printDecimal(quantity), ...included }).total
        : rateDelta({ price, quantity: printDecimal(quantity), billed: printDecimal(counted), ...included }).amount
    total = total.plus(amount)
    counted = quantity
    used.add(price.version)
  }
  const currency = request.versions[0]?.price.currency ?? 'EUR'
  return { total: printMoney(total, currency), versions: [...used] }
}
