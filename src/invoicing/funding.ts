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

/**
 * Packs of a metric for a period that was settled before and is counted again. Their balances hold again what the period has taken
 * so far, and what was forfeited although it could have paid: funding anew says what they pay in all, the difference is settled.
 */
export interface Refunding extends Funding {
  /** What each pack has paid of the period so far. */
  readonly debited: Readonly<Record<string, string>>
  /** What each pack really has at present. */
  readonly left: Readonly<Record<string, string>>
}

/** A line of the ledger; the quantity is signed. */
export interface LedgerStep {
  readonly pack: string
  readonly kind: 'grant' | 'debit' | 'forfeit' | 'billed'
  readonly quantity: string
  readonly at: number
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

/** `quantity` is the whole usage of the period, `limit` the quota. Packs that end after `until` still have what they have. */
export function fund(
  funding: Funding,
  metric: Pick<TermsMetric, 'unit' | 'rounding'>,
  limit: string,
  quantity: string,
  period: Period,
  until: number = period.to,
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
  parts.push({ at: until, quantity: '0' })
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

/** What funding a period writes into the ledger, in the order of packs and times; a time has one line of a kind for a pack. */
export function ledgerOf(funding: Funding, funded: Funded, period: Period): LedgerStep[] {
  const steps: LedgerStep[] = funded.recharges.map(({ at, pack, packs }) => ({
    pack,
    kind: 'grant',
    quantity: printDecimal(new Decimal(funding.recharge!.quantity).times(packs)),
    at,
  }))
  const debits = new Map<string, { pack: string; at: number; quantity: Decimal }>()
  for (const { pack, at, quantity } of funded.debits) {
    const known = debits.get(`${at} ${pack}`)?.quantity ?? ZERO
    debits.set(`${at} ${pack}`, { pack, at, quantity: known.plus(quantity) })
  }
  for (const { pack, at, quantity } of debits.values())
    steps.push({ pack, kind: 'debit', quantity: printDecimal(quantity.negated()), at })
  for (const [pack, quantity] of Object.entries(funded.forfeited)) {
    const { expires } = funding.packs.find((one) => one.id === pack) ?? { expires: undefined }
    const lost = printDecimal(new Decimal(quantity).negated())
    steps.push({ pack, kind: 'forfeit', quantity: lost, at: expires ?? period.to })
  }
  return steps
}

/**
 * What counting a period again writes: for each pack the difference of what it pays, at its last use in the period. Where it has no
 * more but had forfeited some, that is taken back first. What comes back to a pack that has ended is forfeited by the next closing.
 */
export function lateLedgerOf(funding: Refunding, funded: Funded, period: Period): LedgerStep[] {
  const paid = new Map<string, { quantity: Decimal; at: number }>()
  for (const { pack, at, quantity } of funded.debits)
    paid.set(pack, { quantity: (paid.get(pack)?.quantity ?? ZERO).plus(quantity), at })
  const steps: LedgerStep[] = funded.recharges.map(({ at, pack, packs }) => ({
    pack,
    kind: 'grant',
    quantity: printDecimal(new Decimal(funding.recharge!.quantity).times(packs)),
    at,
  }))
  for (const pack of new Set([...paid.keys(), ...Object.keys(funding.debited)])) {
    const { quantity, at } = paid.get(pack) ?? { quantity: ZERO, at: period.from }
    const more = quantity.minus(funding.debited[pack] ?? '0')
    if (more.isZero()) continue
    const has = new Decimal(funding.left[pack] ?? '0')
    const back = Decimal.max(more.minus(has), 0)
    if (back.gt(0) && funding.left[pack] !== undefined)
      steps.push({ pack, kind: 'forfeit', quantity: printDecimal(back), at })
    steps.push({ pack, kind: 'debit', quantity: printDecimal(more.negated()), at })
  }
  return steps
}

/** Units that packs have paid of a period before it was counted again. */
export function coveredBefore({ debited }: Refunding): string {
  return printDecimal(Object.values(debited).reduce((all, one) => all.plus(one), ZERO))
}
