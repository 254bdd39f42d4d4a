/**
 * What a closing writes into the ledger of prepaid packs: a function of what it measured, so that writing and verifying ask the same
 * question. Pure; the rows are prepaid/prepaid.ts.
 */
import type { Terms } from '../catalog/book.js'
import { printMoney } from '../currency.js'
import { Decimal } from '../decimal.js'
import type { Period } from '../period.js'
import { type ItemUsage, type LatePart, limitOf } from './draft.js'
import {
  type Funding,
  fund,
  type LedgerStep,
  lateLedgerOf,
  ledgerOf,
  type PackPurchase,
  type Prepaid,
} from './funding.js'

/** A grant names the funding whose recharge it is. */
export interface FundedStep extends LedgerStep {
  readonly funding?: Funding
}

/** Of the period that is closed. */
export function fundedSteps(
  { fundings, purchases }: Prepaid,
  terms: Terms,
  period: Period,
  usage: readonly ItemUsage[],
): FundedStep[] {
  const billed = purchases.map(({ pack }): FundedStep => ({ pack, kind: 'billed', quantity: '0', at: period.to }))
  const funded = fundings.flatMap((funding) => {
    const found = fundedOf(funding, terms, period, usage)
    return ledgerOf(funding, found.funded, found.covers).map((step) => ({ ...step, funding }))
  })
  return [...billed, ...funded]
}

/** The packs that the closing of a period has billed: those bought, and those bought again. */
export function soldBy(
  { fundings, purchases }: Prepaid,
  terms: Terms,
  period: Period,
  usage: readonly ItemUsage[],
): PackPurchase[] {
  return [...purchases, ...fundings.flatMap((funding) => boughtAgain(funding, terms, period, usage))]
}

/** The packs that were bought again, and billed, by counting a period once more. */
export function soldLate({
  terms,
  period,
  usage,
  prepaid = [],
}: Pick<LatePart, 'terms' | 'period' | 'usage' | 'prepaid'>): PackPurchase[] {
  return prepaid.flatMap((funding) => boughtAgain(funding, terms, period, usage))
}

function boughtAgain(funding: Funding, terms: Terms, period: Period, usage: readonly ItemUsage[]): PackPurchase[] {
  return fundedOf(funding, terms, period, usage).funded.recharges.map(({ pack, packs }) => {
    const amount = printMoney(new Decimal(funding.recharge!.amount).times(packs), terms.customer.currency)
    return { item: funding.item, pack, name: 'recharge', amount }
  })
}

/** Of an earlier period that was counted again. */
export function refundedSteps({
  terms,
  period,
  usage,
  prepaid = [],
}: Pick<LatePart, 'terms' | 'period' | 'usage' | 'prepaid'>): FundedStep[] {
  return prepaid.flatMap((funding) => {
    const found = fundedOf(funding, terms, period, usage)
    return lateLedgerOf(funding, found.funded, found.covers).map((step) => ({ ...step, funding }))
  })
}

function fundedOf(funding: Funding, terms: Terms, period: Period, usage: readonly ItemUsage[]) {
  const item = terms.items.find((one) => one.item === funding.item)!
  const metric = item.metrics.find((one) => one.metric === funding.metric)!
  const counted = usage.find((one) => one.item === funding.item && one.metric === funding.metric)!
  const covers = item.period ?? period
  return { covers, funded: fund(funding, metric, limitOf(item, metric, terms, period)!, counted.quantity, covers) }
}
