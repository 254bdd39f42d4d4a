/**
 * Rating: a quantity and a price give lines. Pure: no clock, no I/O, no randomness; the same input gives the same lines for ever.
 *
 * Full precision until the line, one rounding per line (half up, to the currency), and the total is the sum of the rounded lines.
 * Nothing here is prorated or taxed: prorate.ts, adjust.ts and tax.ts work on amounts. One price model a file.
 */
import { assert } from '../assert.js'
import type { Price } from '../catalog/price.js'
import { printMoney, printPrice } from '../currency.js'
import { Decimal, parseDecimal, printDecimal, round, sum, ZERO } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { Words } from '../format.js'
import { rateDynamic } from './dynamic.js'
import { explain } from './explain.js'
import { rateFlat } from './flat.js'
import { rateGraduated } from './graduated.js'
import { rateGraduatedPercentage } from './graduated-percentage.js'
import type { ModelResult, RatedLine } from './line.js'
import { ratePackage } from './package.js'
import { type EventAmount, ratePercentage } from './percentage.js'
import { rateUnit } from './unit.js'
import { rateVolume } from './volume.js'

export type { RatedLine, Step } from './line.js'

/** Decimals behind which a difference can only come from a conversion that does not end. */
const TIE_PLACES = 24

export interface RateRequest {
  readonly price: Price
  /** The whole usage of the period, decimal text, not negative. Ignored by a flat price. For percentages: the amount. */
  readonly quantity: string
  /** Units that the plan includes; they cost nothing. Default 0 (tiers may still begin higher). */
  readonly included?: string
  /** Number of events, for `percentage`. */
  readonly events?: string
  /** The amounts of the events in their order, for `percentage` with bounds per event; equal neighbours may be one entry. */
  readonly amounts?: readonly { readonly amount: string; readonly count: string }[]
  /** Whether the first tier's flat fee is due at zero usage; default true. Interim lines say false. */
  readonly flatAtZero?: boolean
  /** Of the included units those that prepaid packs have paid: only the words differ. Default 0. */
  readonly prepaid?: string
  /** What the words call the metric. Default its key. */
  readonly called?: Words
  /** Of a flat price that is due once and not each period: only the words differ. */
  readonly once?: boolean
}

export interface Rating {
  /** None when nothing is due; otherwise one. */
  readonly lines: readonly RatedLine[]
  readonly total: string
  readonly currency: string
  /** Units above the included ones and below the first tier: no price covers them, and they are never billed as 0 in silence. */
  readonly unpriced: string
}

/** Throws ReleveError `invalid_request` for text that is not a decimal and `unprocessable` for a negative quantity. */
export function rate(request: RateRequest): Rating {
  const { price } = request
  const quantity = notNegative(request.quantity, 'quantity')
  const included = notNegative(request.included ?? '0', 'included')
  const result = applyModel(request, quantity, included)
  const exact = sum(result.steps.map((step) => step.amount))
  const unpriced =
    request.included === undefined || !('tiers' in price)
      ? ZERO
      : Decimal.max(Decimal.min(quantity, price.tiers[0]?.after ?? 0).minus(included), 0)
  // A converted quantity (minutes as hours) may be cut far behind the point; a tie must stay a tie.
  const amount = printMoney(round(exact, TIE_PLACES), price.currency)
  const lines: RatedLine[] = []
  if (result.steps.length > 0) {
    const money = (value: Decimal): string => printPrice(value, price.currency)
    lines.push({
      rule: price.rule,
      version: price.version,
      model: price.model,
      metric: price.model === 'flat' ? null : price.metric,
      currency: price.currency,
      quantity: printDecimal(price.model === 'flat' ? new Decimal(1) : quantity),
      free: printDecimal(Decimal.min(result.free, quantity)),
      billable: printDecimal(price.model === 'flat' ? new Decimal(1) : Decimal.max(quantity.minus(result.free), 0)),
      steps: result.steps.map((step) => ({
        after: printDecimal(step.after),
        upTo: step.upTo === null ? null : printDecimal(step.upTo),
        quantity: printDecimal(step.quantity),
        unitPrice: money(step.unitPrice),
        flat: money(step.flat),
        amount: money(step.amount),
      })),
      exact: printDecimal(exact),
      amount,
      explanation: explain({
        price,
        called: request.called,
        once: request.once ?? false,
        quantity,
        unpriced,
        prepaid: notNegative(request.prepaid ?? '0', 'prepaid'),
        result,
        exact,
        amount,
      }),
    })
  }
  const total = sum(lines.map((line) => new Decimal(line.amount)))
  assert(total.eq(lines.length === 0 ? 0 : amount), 'the lines must sum to the total')
  return {
    lines,
    total: printMoney(total, price.currency),
    currency: price.currency,
    unpriced: printDecimal(unpriced),
  }
}

function applyModel(request: RateRequest, quantity: Decimal, included: Decimal): ModelResult {
  const { price, flatAtZero = true } = request
  switch (price.model) {
    case 'flat':
      return rateFlat(price)
    case 'unit':
      return rateUnit(price, quantity, included)
    case 'graduated':
      return rateGraduated(price, quantity, included, flatAtZero)
    case 'volume':
      return rateVolume(price, quantity, included, flatAtZero)
    case 'package':
      return ratePackage(price, quantity, included)
    case 'percentage':
      return ratePercentage(price, quantity, included, eventsOf(request), amountsOf(request))
    case 'graduated_percentage':
      return rateGraduatedPercentage(price, quantity, included, flatAtZero)
    case 'dynamic':
      return rateDynamic(price, quantity, included)
  }
}

/** Whoever gives the amounts need not count them. */
function eventsOf({ events, amounts }: RateRequest): Decimal {
  if (events !== undefined) return notNegative(events, 'events')
  return sum((amounts ?? []).map(({ count }, i) => notNegative(count, `amounts[${i}].count`)))
}

function amountsOf({ amounts }: RateRequest): EventAmount[] | undefined {
  return amounts?.map(({ amount, count }, i) => ({
    amount: notNegative(amount, `amounts[${i}].amount`),
    count: notNegative(count, `amounts[${i}].count`),
  }))
}

function notNegative(text: string, field: string): Decimal {
  const value = parseDecimal(text, field)
  if (value.isNegative() && !value.isZero())
    throw new ReleveError('unprocessable', `${field}: ${text} is negative and cannot be rated`)
  return value
}
