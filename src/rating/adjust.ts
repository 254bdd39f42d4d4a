/**
 * What comes between the rated lines and the tax, in this order: percentage discount, cap, minimum. Pure.
 *
 * The minimum of a period is trued up once, on the last invoice of the period, as a line of its own. The cap counts what earlier
 * invoices of the period have billed. Amounts are decimal text; results are rounded to the currency.
 */
import { minorUnit, printMoney } from '../currency.js'
import { Decimal, parseDecimal } from '../decimal.js'

/** `charges` of this invoice, `previous` of earlier ones in the period. */
export function applyMinimum(request: {
  readonly charges: string
  readonly previous: string
  readonly minimum: string
  readonly lastOfPeriod: boolean
  readonly currency: string
}): { readonly trueUp: string } {
  const billed = parseDecimal(request.charges, 'charges').plus(parseDecimal(request.previous, 'previous'))
  const missing = Decimal.max(parseDecimal(request.minimum, 'minimum').minus(billed), 0)
  return { trueUp: printMoney(request.lastOfPeriod ? missing : new Decimal(0), request.currency) }
}

/** The percentage discount comes off first; the cap cuts what is left together with what was billed before. */
export function applyCap(request: {
  readonly charges: string
  readonly discountPercent?: string
  readonly previous: string
  readonly maximum: string
  readonly currency: string
}): { readonly percentDiscount: string; readonly capDiscount: string; readonly net: string } {
  const { currency } = request
  const charges = parseDecimal(request.charges, 'charges')
  const percent = parseDecimal(request.discountPercent ?? '0', 'discountPercent')
  const percentDiscount = new Decimal(printMoney(charges.times(percent).dividedBy(100), currency))
  const discounted = charges.minus(percentDiscount)
  const room = Decimal.max(
    parseDecimal(request.maximum, 'maximum').minus(parseDecimal(request.previous, 'previous')),
    0,
  )
  const net = Decimal.min(discounted, room)
  return {
    percentDiscount: printMoney(percentDiscount, currency),
    capDiscount: printMoney(discounted.minus(net), currency),
    net: printMoney(net, currency),
  }
}

/**
 * Spreads a discount over amounts in proportion, to the currency's last unit: the shares sum to the discount exactly. What the
 * rounding down leaves goes to the largest remainders, the earlier line first among equals. Amounts that sum to 0 take nothing.
 */
export function spread(discount: string, amounts: readonly string[], currency: string): string[] {
  const total = parseDecimal(discount, 'discount')
  const parts = amounts.map((amount, index) => parseDecimal(amount, `amounts[${index}]`))
  const whole = parts.reduce((a, b) => a.plus(b), new Decimal(0))
  if (whole.isZero()) return amounts.map(() => printMoney(new Decimal(0), currency))
  const step = minorUnit(currency)
  const shares = parts.map((part) => {
    const exact = total.times(part).dividedBy(whole)
    const units = exact.dividedBy(step).trunc()
    return { units, remainder: exact.minus(units.times(step)).abs() }
  })
  let left = total
    .minus(shares.reduce((a, b) => a.plus(b.units.times(step)), new Decimal(0)))
    .dividedBy(step)
    .round()
  const order = shares.map((_, index) => index).sort((a, b) => shares[b]!.remainder.cmp(shares[a]!.remainder) || a - b)
  const sign = left.isNegative() ? -1 : 1
  for (const index of order) {
    if (left.isZero()) break
    const share = shares[index]!
    shares[index] = { ...share, units: share.units.plus(sign) }
    left = left.minus(sign)
  }
  return shares.map((share) => printMoney(share.units.times(step), currency))
}
