/**
 * Rating of what came later: rate(all) − rate(already billed), so that late units continue the tiers of their own period. Pure.
 *
 * Both sides are rounded before they are subtracted: the first was billed rounded, so the sum of all parts is what one invoice
 * over the whole would have said, to the last unit. A delta may be negative (volume prices, or usage that was voided).
 */
import { printMoney } from '../currency.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
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
