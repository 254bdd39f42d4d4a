/**
 * What prepaid packs pay of a period's usage: units behind the quota, in the order of the parts of the period that purchases and
 * expiries cut it into. Pure: the closing keeps what it is a function of, and a verification does it again.
 *
 * Packs hold units of the metric, after its rounding. What an expired pack still held at the period's end is forfeited then.
 */
import type { TermsMetric } from '../catalog/book.js'
import type { Exhaustion } from '../catalog/exhaustion.js'
import { Decimal, parseDecimal, printDecimal, ZERO } from '../decimal.js'
import type { Period } from '../period.js'
import { type Burn, burnDown, type Pack } from '../rating/prepaid.js'
import { pricedQuantity } from '../rating/quantity.js'

export interface FundingPack extends Pack {
  readonly name: string
}

/** Packs of one metric of an item as a closing found them. */
export interface Funding {
  readonly item: string
  readonly metric: string
  readonly exhaustion: Exhaustion
  /** With auto_recharge: what is bought again, HT each. */
  readonly recharge?: {
    readonly quantity: string
    readonly amount: string
    readonly validMs?: number
    readonly priority?: number
    /** Names of the new packs begin with it. */
    readonly name: string
  }
  readonly packs: readonly FundingPack[]
  /** Usage of the parts of the period but the last, which has the rest; the parts meet. */
  readonly parts: readonly { readonly period: Period; readonly quantity: string }[]
}

/** A pack that the closing bills. */
export interface PackPurchase {
  readonly item: string
  readonly pack: string
  readonly name: string
  readonly amount: string
}

export interface Prepaid {
  readonly fundings: readonly Funding[]
  readonly purchases: readonly PackPurchase[]
}

/** Usage by the parts of a period, by item and metric; counted before the transaction that funds. */
export type PartsOf = ReadonlyMap<string, Funding['parts']>

export interface Funded extends Burn {
  /** Units behind the quota that packs paid. */
  readonly covered: string
}

/** `quantity` is the whole usage of the period, `limit` the quota. */
export function fund(
  funding: Funding,
  metric: Pick<TermsMetric, 'unit' | 'rounding'>,
  limit: string,
  quantity: string,
  period: Period,
): Funded {
  const parts: { at: number; quantity: string }[] = []
  let counted: Decimal = ZERO
  let beyond: Decimal = ZERO
  const add = (at: number, cumulated: Decimal): void => {
    const rounded = pricedQuantity(printDecimal(Decimal.max(cumulated, 0)), metric, null).quantity
    const above = Decimal.max(new Decimal(rounded).minus(limit), beyond)
    parts.push({ at, quantity: printDecimal(above.minus(beyond)) })
    beyond = above
  }
  for (const part of funding.parts) {
    counted = counted.plus(parseDecimal(part.quantity, 'quantity'))
    add(part.period.from, counted)
  }
  add(funding.parts.at(-1)?.period.to ?? period.from, parseDecimal(quantity, 'quantity'))
  // Nothing is used at the end, but what ends there or earlier is forfeited.
  parts.push({ at: period.to, quantity: '0' })
  const { recharge } = funding
  const burnt = burnDown(
    funding.packs,
    parts,
    funding.exhaustion !== 'auto_recharge' || recharge === undefined
      ? undefined
      : { ...recharge, idOf: (nth) => `${recharge.name}/${nth}` },
  )
  return { ...burnt, covered: printDecimal(beyond.minus(burnt.overage)) }
}
