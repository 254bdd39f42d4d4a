/**
 * Terms and usage become a draft. Pure: the same measured closing gives the same draft, on any machine, at any time.
 *
 * The fee of a period stands on the invoice of that period. A metric's line is there when something is due; what is above its
 * quota without a price becomes a notice, never a line of 0. Every metric of the contract has its entry in the statement.
 *
 * Usage of an earlier period that came after its invoice becomes a «régularisation» line: what the whole costs now by the terms of
 * its own period, less what was billed for it.
 */
import { assert } from '../assert.js'
import type { Terms, TermsMetric } from '../catalog/book.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { dateIn, formatMoney, formatMonth, formatNumber, type Words } from '../format.js'
import { limits } from '../limits.js'
import type { Period } from '../period.js'
import { quotaStatus } from '../quota/status.js'
import { rateDelta } from '../rating/delta.js'
import { type RatedLine, rate } from '../rating/rating.js'
import { taxByRate } from '../rating/tax.js'
import type { Invoice, InvoiceLine, Notice, Proof, UsageStatement } from './invoice.js'

/** Usage of one metric of one contract item over a period, as counted at a cut. */
export interface ItemUsage extends Proof {
  readonly item: string
  readonly metric: string
  /** Decimal text. */
  readonly quantity: string
}

/** An earlier period, counted again: `billed` is what its invoice and later regularisations were made from. */
export interface LatePart {
  readonly period: Period
  readonly terms: Terms
  readonly billed: readonly ItemUsage[]
  readonly usage: readonly ItemUsage[]
}

/** A draft has no number and no dates. Throws ReleveError `unprocessable` when a price is in another currency. */
export function draftInvoice(
  id: string,
  terms: Terms,
  period: Period,
  usage: readonly ItemUsage[],
  late: readonly LatePart[] = [],
): Invoice {
  const { contract, customer } = terms
  const lines: InvoiceLine[] = []
  const statement: UsageStatement[] = []
  const notices: Notice[] = []
  const month: Words = {
    fr: formatMonth(period.from, contract.timeZone, 'fr'),
    en: formatMonth(period.from, contract.timeZone, 'en'),
  }
  for (const item of terms.items) {
    const base = { item: item.item, product: item.product.key, plan: item.plan, taxRate: customer.taxRate }
    if (item.fee !== null) {
      assertCurrency(item.fee.currency, customer.currency, item.fee.rule)
      const line = rate({ price: item.fee, quantity: '1' }).lines[0]
      if (line !== undefined) {
        const label = {
          fr: `${item.plan.name} — abonnement, ${month.fr}`,
          en: `${item.plan.name} — subscription, ${month.en}`,
        }
        lines.push({
          ...base,
          no: lines.length + 1,
          type: 'fee',
          metric: null,
          unit: null,
          label,
          ...rated(line),
          price: item.fee,
          proof: null,
          period,
          since: null,
        })
      }
    } else if (item.feeRule !== null) {
      notices.push({
        code: 'fee_unpriced',
        item: item.item,
        metric: null,
        quantity: null,
        text: {
          fr: `abonnement sans prix en vigueur : ${item.feeRule}, non facturé`,
          en: `subscription without a price in force: ${item.feeRule}, not billed`,
        },
      })
    }
    for (const metric of item.metrics) {
      const measured = usageOf(usage, item.item, metric.metric)
      const proof: Proof = { cut: measured.cut, query: measured.query, count: measured.count, digest: measured.digest }
      const negative = parseDecimal(measured.quantity, 'quantity').lt(0)
      if (negative) notices.push(negativeUsage(item.item, metric, measured.quantity))
      const quantity = negative ? '0' : measured.quantity
      const status = quotaStatus(quantity, metric.limit)
      let no: number | null = null
      let unpriced = '0'
      // Unlimited means that nothing of it is billed, whatever rule stands beside it; the catalogue's lint says so.
      if (metric.limit !== null && metric.price !== null) {
        assertCurrency(metric.price.currency, customer.currency, metric.price.rule)
        const rating = rate({ price: metric.price, quantity, included: metric.limit, events: String(measured.count) })
        unpriced = rating.unpriced
        for (const line of rating.lines) {
          no = lines.length + 1
          const label = {
            fr: `${item.plan.name} — ${metric.metric}, ${month.fr}`,
            en: `${item.plan.name} — ${metric.metric}, ${month.en}`,
          }
          lines.push({
            ...base,
            no,
            type: 'usage',
            metric: metric.metric,
            unit: metric.unit,
            label,
            ...rated(line),
            price: metric.price,
            proof,
            period,
            since: null,
          })
        }
      } else if (metric.limit !== null) {
        unpriced = status.overage ?? '0'
      }
      if (new Decimal(unpriced).gt(0)) notices.push(unpricedOverage(item.item, metric, unpriced))
      statement.push({
        item: item.item,
        product: item.product.key,
        metric: metric.metric,
        unit: metric.unit,
        quantity: measured.quantity,
        limit: metric.limit,
        ...status,
        line: no,
        proof,
      })
    }
  }
  for (const part of late) {
    const found = regularise(part, customer.currency, lines.length)
    lines.push(...found.lines)
    notices.push(...found.notices)
  }
  if (lines.length > limits.invoiceLinesMax)
    throw new ReleveError('unprocessable', `an invoice has at most ${limits.invoiceLinesMax} lines`)
  const totals = taxByRate(
    lines.map((line) => ({ ht: line.amount, rate: line.taxRate })),
    customer.currency,
  )
  return {
    id,
    kind: 'invoice',
    number: null,
    contract: contract.id,
    contractName: contract.name,
    tenant: contract.tenant,
    catalogVersion: terms.catalogVersion,
    period: {
      from: period.from,
      to: period.to,
      timeZone: contract.timeZone,
      firstDay: dateIn(period.from, contract.timeZone),
      lastDay: dateIn(period.to - 1, contract.timeZone),
      label: month,
    },
    issuedOn: null,
    dueOn: null,
    currency: customer.currency,
    language: customer.language,
    seller: terms.legalEntity,
    customer,
    refersTo: null,
    lines,
    usage: statement,
    notices,
    ...totals,
  }
}

function regularise(
  part: LatePart,
  currency: string,
  before: number,
): { readonly lines: readonly InvoiceLine[]; readonly notices: readonly Notice[] } {
  const lines: InvoiceLine[] = []
  const notices: Notice[] = []
  const { contract, customer } = part.terms
  const month = (language: 'fr' | 'en'): string => formatMonth(part.period.from, contract.timeZone, language)
  for (const item of part.terms.items) {
    for (const metric of item.metrics) {
      const now = usageOf(part.usage, item.item, metric.metric)
      const billed = usageOf(part.billed, item.item, metric.metric)
      const [quantity, old] = [atLeastZero(now.quantity), atLeastZero(billed.quantity)]
      // The count of events matters only to a price that charges them.
      const same = quantity === old && (metric.price?.model !== 'percentage' || now.count === billed.count)
      if (metric.limit === null || same) continue
      if (metric.price === null) {
        const above = new Decimal(quotaStatus(quantity, metric.limit).overage ?? '0')
        const more = above.minus(quotaStatus(old, metric.limit).overage ?? '0')
        if (more.gt(0)) notices.push(unpricedOverage(item.item, metric, printDecimal(more)))
        continue
      }
      assertCurrency(metric.price.currency, currency, metric.price.rule)
      const delta = rateDelta({
        price: metric.price,
        included: metric.limit,
        quantity,
        billed: old,
        events: String(now.count),
        billedEvents: String(billed.count),
      })
      if (new Decimal(delta.amount).isZero()) continue
      const say = (language: 'fr' | 'en'): string => {
        const money = (amount: string): string => formatMoney(amount, currency, language)
        const counts = [formatNumber(quantity, language), formatNumber(old, language)]
        const sum = `${money(delta.after.total)} − ${money(delta.before.total)}`
        return language === 'fr'
          ? `${counts[0]} ${metric.metric} au lieu de ${counts[1]} : ${sum} déjà facturés = ${money(delta.amount)}`
          : `${counts[0]} ${metric.metric} instead of ${counts[1]}: ${sum} already billed = ${money(delta.amount)}`
      }
      lines.push({
        item: item.item,
        product: item.product.key,
        plan: item.plan,
        no: before + lines.length + 1,
        type: 'regularisation',
        metric: metric.metric,
        unit: metric.unit,
        label: {
          fr: `Régularisation ${month('fr')} — ${metric.metric}`,
          en: `Adjustment for ${month('en')} — ${metric.metric}`,
        },
        quantity: delta.quantity,
        included: '0',
        billable: delta.quantity,
        steps: delta.after.lines[0]?.steps ?? [],
        exact: delta.amount,
        amount: delta.amount,
        explanation: { fr: say('fr'), en: say('en') },
        taxRate: customer.taxRate,
        price: metric.price,
        proof: { cut: now.cut, query: now.query, count: now.count, digest: now.digest },
        period: part.period,
        since: billed.cut,
      })
    }
  }
  return { lines, notices }
}

function usageOf(usage: readonly ItemUsage[], item: string, metric: string): ItemUsage {
  const found = usage.find((one) => one.item === item && one.metric === metric)
  assert(found !== undefined, `no usage was measured for ${item} ${metric}`)
  return found
}

function atLeastZero(quantity: string): string {
  return parseDecimal(quantity, 'quantity').lt(0) ? '0' : quantity
}

function rated(
  line: RatedLine,
): Pick<InvoiceLine, 'quantity' | 'included' | 'billable' | 'steps' | 'exact' | 'amount' | 'explanation'> {
  const { quantity, free, billable, steps, exact, amount, explanation } = line
  return { quantity, included: free, billable, steps, exact, amount, explanation }
}

function assertCurrency(price: string, customer: string, rule: string): void {
  if (price !== customer)
    throw new ReleveError('unprocessable', `${rule} is in ${price}, the customer is billed in ${customer}`)
}

function unpricedOverage(item: string, metric: TermsMetric, quantity: string): Notice {
  const limit = metric.limit ?? '0'
  return {
    code: 'overage_unpriced',
    item,
    metric: metric.metric,
    quantity,
    text: {
      fr: `dépassement sans prix : ${formatNumber(quantity, 'fr')} ${metric.metric} au-delà de ${formatNumber(limit, 'fr')}, non facturé`,
      en: `overage without a price: ${formatNumber(quantity, 'en')} ${metric.metric} above ${formatNumber(limit, 'en')}, not billed`,
    },
  }
}

function negativeUsage(item: string, metric: TermsMetric, quantity: string): Notice {
  return {
    code: 'usage_negative',
    item,
    metric: metric.metric,
    quantity,
    text: {
      fr: `quantité négative : ${formatNumber(quantity, 'fr')} ${metric.metric}, comptée pour 0`,
      en: `negative quantity: ${formatNumber(quantity, 'en')} ${metric.metric}, billed as 0`,
    },
  }
}
