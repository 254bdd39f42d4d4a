/**
 * Terms and usage become a draft. Pure: the same measured closing gives the same draft, on any machine, at any time.
 *
 * The fee of a period stands on the invoice of that period. A metric's line is there when something is due; what is above its
 * quota without a price becomes a notice, never a line of 0. Every metric of the contract has its entry in the statement.
 *
 * An item that covers a part of the period pays its fee by that part, and its usage is that of the part. What the contract adds to
 * the charges in all (adjustments.ts) follows them as lines.
 *
 * Usage of an earlier period that came after its invoice becomes a «régularisation» line: what the whole costs now by the terms of
 * its own period, less what was billed for it; and the same for that period's discounts, cap and minimum.
 */
import { assert } from '../assert.js'
import { type Ahead, calledOf, type FeePart, type Terms, type TermsMetric } from '../catalog/book.js'
import type { Product } from '../catalog/definition.js'
import type { Price } from '../catalog/price.js'
import { taxOf } from '../catalog/tax-table.js'
import { convertUnit } from '../catalog/unit.js'
import { CFA_PARITY, convertMoney, fixedRate, printMoney, printPrice } from '../currency.js'
import { Decimal, parseDecimal, printDecimal, round } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { dateIn, formatDate, formatMoney, formatMonth, formatNumber, type Words } from '../format.js'
import { limits } from '../limits.js'
import type { Period } from '../period.js'
import { quotaStatus } from '../quota/status.js'
import { spread } from '../rating/adjust.js'
import { rateDelta } from '../rating/delta.js'
import { daysOf, hoursOf, lengthOf, prorate } from '../rating/prorate.js'
import { pricedQuantity } from '../rating/quantity.js'
import { type RatedLine, type Rating, rate } from '../rating/rating.js'
import { type Totals, taxLines } from '../rating/tax.js'
import { type Adjustment, adjust } from './adjustments.js'
import { type FleetCharge, fleetLines, fleetRegularisation } from './fleet.js'
import {
  coveredBefore,
  type Funded,
  type Funding,
  fund,
  lateLedgerOf,
  type PackPurchase,
  type Prepaid,
  type Refunding,
} from './funding.js'
import type { DataEntry, DataProof, Invoice, InvoiceLine, Notice, Proof, UsageStatement } from './invoice.js'
import { opposite } from './state.js'

export type { DataEntry } from './invoice.js'

/** Usage of one metric of one contract item over a period, as counted at a cut. */
export interface ItemUsage extends Proof {
  readonly item: string
  readonly metric: string
  /** Decimal text; what usage data came to is in it. */
  readonly quantity: string
  /** Usage of the parts of the period up to the instants at which prices change within it; the last part has the rest. */
  readonly parts?: readonly { readonly period: Period; readonly quantity: string }[]
  /** Of a level over time: what it was when the period began. */
  readonly opening?: string
  /** The amounts of the events, when a price is by the event. */
  readonly amounts?: readonly { readonly amount: string; readonly count: string }[]
  readonly data?: DataUsage
  /** By which rule it was shared with other items of the customer (objects/share.ts); absent: all of it is the item's. */
  readonly share?: unknown
  /** Of a fleet: what its objects come to, of one kind. */
  readonly fleet?: FleetCharge
  /** Not a quantity but an amount, made of usage data alone; `metric` is the name of its calculator. */
  readonly charge?: true
}

/** What usage data beside the stream came to. */
export interface DataUsage extends DataProof {
  readonly entries: readonly DataEntry[]
}

/** An earlier period, counted again: `billed` is what its invoice and later regularisations were made from. */
export interface LatePart {
  readonly period: Period
  readonly terms: Terms
  readonly billed: readonly ItemUsage[]
  readonly usage: readonly ItemUsage[]
  /** The contract does not bill what is late: a notice says what it was. */
  readonly refused?: true
  /** What prepaid packs pay of it now that it is counted again, and the packs that its invoice billed. */
  readonly prepaid?: readonly Refunding[]
  readonly sold?: readonly PackPurchase[]
}

/** A draft has no number and no dates. Throws ReleveError `unprocessable` when a price is in another currency. */
export function draftInvoice(
  id: string,
  terms: Terms,
  period: Period,
  usage: readonly ItemUsage[],
  late: readonly LatePart[] = [],
  noticed: readonly Notice[] = [],
  prepaid: Prepaid = { fundings: [], purchases: [] },
): Invoice {
  const { contract, customer } = terms
  const charged = chargesOf(terms, period, usage, prepaid)
  const lines = [...charged.lines, ...adjustmentLines(terms, period, charged.lines, [])]
  const notices = [...charged.notices, ...noticed]
  for (const part of late) {
    const found = part.refused === true ? { lines: [], notices: refusals(part) } : regularise(part, customer.currency)
    lines.push(...found.lines)
    notices.push(...found.notices)
  }
  if (lines.length > limits.invoiceLinesMax)
    throw new ReleveError('unprocessable', `an invoice has at most ${limits.invoiceLinesMax} lines`)
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
      label: monthOf(terms, period),
    },
    issuedOn: null,
    dueOn: null,
    currency: customer.currency,
    language: customer.language,
    seller: terms.legalEntity,
    customer,
    refersTo: null,
    usage: charged.statement,
    notices,
    ...totalled(lines, customer.currency),
  }
}

/**
 * The difference of an earlier period as a document of its own: a complementary invoice, or with `refersTo` a credit note. Amounts
 * keep their sign, so that a credit note's are negative.
 */
export function draftCorrection(id: string, part: LatePart, refersTo: Invoice['refersTo']): Invoice {
  const { terms, period } = part
  const { lines, notices } = regularise(part, terms.customer.currency)
  return {
    ...draftInvoice(id, { ...terms, items: [] }, period, []),
    kind: refersTo === null ? 'invoice' : 'credit_note',
    refersTo,
    notices,
    ...totalled(lines, terms.customer.currency),
  }
}

/** Lines numbered, those with tax also without it and saying so, and what they come to. */
function totalled(lines: readonly DraftLine[], currency: string): Totals & Pick<Invoice, 'lines' | 'taxes'> {
  const { nets, ...totals } = taxLines(lines, currency)
  return {
    lines: lines.map((line, i): InvoiceLine => {
      const no = i + 1
      if (line.taxBehavior === undefined) return { ...line, no }
      const net = nets[i]!
      const { fr, en } = line.explanation
      const explanation = {
        fr: `${fr} ; TTC, soit ${formatMoney(net, currency, 'fr')} HT`,
        en: `${en}; tax included, ${formatMoney(net, currency, 'en')} without it`,
      }
      return { ...line, no, net, explanation }
    }),
    ...totals,
  }
}

/** Whether the amount of a line holds the tax: as its price says. */
export function behaviorOf(price: Price | null): Pick<InvoiceLine, 'taxBehavior'> {
  return price?.taxBehavior === undefined ? {} : { taxBehavior: price.taxBehavior }
}

/** The same of an amount that the contract says and no price of the catalogue. */
export function contractBehaviorOf({ contract, items }: Terms): Pick<InvoiceLine, 'taxBehavior'> {
  const prices = items.flatMap(({ fee, metrics, addOns = [] }) => [
    fee,
    ...[...metrics, ...addOns].map((one) => one.price),
  ])
  const known = prices.filter((price) => price !== null)
  const asPrices = known.length > 0 && known.every((price) => price.taxBehavior === 'inclusive')
  const inclusive = contract.taxBehavior === undefined ? asPrices : contract.taxBehavior === 'inclusive'
  return inclusive ? { taxBehavior: 'inclusive' } : {}
}

/** Late usage that the contract does not bill, for the reader of the next invoice. */
function refusals({ terms, period, billed, usage }: LatePart): Notice[] {
  const month = monthOf(terms, period)
  return usage.flatMap((now): Notice[] => {
    const before = billed.find((one) => one.item === now.item && one.metric === now.metric)
    const more = new Decimal(now.quantity).minus(before?.quantity ?? 0)
    if (more.isZero()) return []
    const quantity = printDecimal(more)
    const metrics = terms.items.find(({ item }) => item === now.item)?.metrics
    const called = calledOf(metrics?.find(({ metric }) => metric === now.metric) ?? now)
    return [
      {
        code: 'late_refused',
        item: now.item,
        metric: now.metric,
        quantity,
        text: {
          fr: `usage arrivé après la facture de ${month.fr}, non facturé : ${formatNumber(quantity, 'fr')} ${called.fr}`,
          en: `usage that came after the invoice of ${month.en}, not billed: ${formatNumber(quantity, 'en')} ${called.en}`,
        },
      },
    ]
  })
}

export type DraftLine = Omit<InvoiceLine, 'no' | 'net'>

interface Charges {
  readonly lines: readonly DraftLine[]
  readonly statement: readonly UsageStatement[]
  readonly notices: readonly Notice[]
}

/** Fees, add-ons and usage of a period, each rounded; before anything that the contract adds to them in all. */
function chargesOf(
  terms: Terms,
  period: Period,
  usage: readonly ItemUsage[],
  prepaid: Prepaid = { fundings: [], purchases: [] },
): Charges {
  const { customer } = terms
  const lines: DraftLine[] = []
  const statement: UsageStatement[] = []
  const notices: Notice[] = []
  const month = monthOf(terms, period)
  const agreed = contractBehaviorOf(terms)
  for (const item of terms.items) {
    const part = item.period ?? period
    const taxRate = taxRateOf(terms, item.product)
    const base = { item: item.item, product: item.product.key, plan: item.plan, taxRate, since: null }
    const fleet = terms.contract.items.some((one) => one.id === item.item && one.fleet !== undefined)
    if (fleet) {
      const first = lines.length
      lines.push(...fleetLines(terms, item, usage, period))
      for (const one of usage.filter((entry) => entry.item === item.item && entry.fleet?.kind === 'usage')) {
        const metric = item.metrics.find((entry) => entry.metric === one.metric)
        const at = lines.findIndex((line, i) => i >= first && line.metric === one.metric)
        if (metric === undefined) continue
        if (new Decimal(one.fleet?.unpriced ?? '0').gt(0))
          notices.push(unpricedOverage(item.item, metric, one.fleet!.included, one.fleet!.unpriced))
        statement.push({
          item: item.item,
          itemName: item.plan.name,
          product: item.product.key,
          metric: one.metric,
          ...namedOf(metric),
          unit: metric.unit,
          quantity: one.quantity,
          // Each object has its own quota; the fleet has none.
          limit: null,
          ...quotaStatus(one.quantity, null),
          line: at === -1 ? null : at + 1,
          proof: proofOf(one),
        })
      }
    } else if (item.fee !== null) {
      // What was billed in advance is corrected below.
      if (terms.billedAhead === undefined && isTriggered(terms, item.item, usage))
        lines.push(...feeLines(terms, item, item.fees ?? [{ period, part }]))
    } else if (item.feeRule !== null) notices.push(unpricedRule('fee_unpriced', item.item, item.feeRule))
    for (const addOn of item.addOns ?? []) {
      if (addOn.price === null) {
        notices.push(unpricedRule('add_on_unpriced', item.item, addOn.rule))
        continue
      }
      const line = rateAddOn(addOn.price, addOn.quantity, addOn.once)
      if (line === undefined) continue
      const label = `${item.plan.name} — ${addOn.name}`
      const { paused } = addOn
      const amounts = addOn.once
        ? rated(line, customer.currency)
        : byPart(line, terms, { period, part: addOn.period, ...(paused === undefined ? {} : { paused }) })
      // Suspended all the time.
      if (new Decimal(amounts.amount).isZero() && paused !== undefined) continue
      lines.push({
        ...base,
        type: 'add_on',
        metric: null,
        unit: null,
        label: { fr: `${label}, ${month.fr}`, en: `${label}, ${month.en}` },
        ...amounts,
        ...behaviorOf(addOn.price),
        price: addOn.price,
        proof: null,
        period: addOn.period,
      })
    }
    for (const metric of fleet ? [] : item.metrics) {
      const measured = usageOf(usage, item.item, metric.metric)
      const called = calledOf(metric)
      const proof = proofOf(measured)
      const limit = limitOf(item, metric, terms, period)
      const negative = parseDecimal(measured.quantity, 'quantity').lt(0)
      if (negative) notices.push(negativeUsage(item.item, metric, measured.quantity))
      const quantity = negative ? '0' : measured.quantity
      const status = quotaStatus(quantity, limit)
      let no: number | null = null
      let unpriced = '0'
      const funding = prepaid.fundings.find((one) => one.item === item.item && one.metric === metric.metric)
      const funded = funding === undefined || limit === null ? null : fund(funding, metric, limit, quantity, part)
      const blocked = funding?.exhaustion === 'block' ? (funded?.overage ?? '0') : '0'
      // Unlimited means that nothing of it is billed, whatever rule stands beside it; the catalogue's lint says so.
      if (new Decimal(blocked).gt(0)) notices.push(usageBlocked(item.item, metric, blocked))
      else if (limit !== null && (metric.price !== null || metric.later !== undefined)) {
        const included = printDecimal(new Decimal(limit).plus(funded?.covered ?? '0'))
        const rated = rateMetric(metric, { ...measured, quantity }, included, customer.currency, funded?.covered)
        unpriced = rated.unpriced
        for (const { price, ...line } of rated.lines) {
          no ??= lines.length + 1
          lines.push({
            ...base,
            type: 'usage',
            metric: metric.metric,
            ...namedOf(metric),
            unit: price.unit ?? metric.unit,
            label: {
              fr: `${item.plan.name} — ${called.fr}, ${month.fr}`,
              en: `${item.plan.name} — ${called.en}, ${month.en}`,
            },
            ...line,
            ...behaviorOf(price),
            price,
            proof,
            period: part,
          })
        }
      } else if (limit !== null) {
        unpriced = funded?.overage ?? status.overage ?? '0'
      }
      if (funding !== undefined && funded !== null) {
        notices.push(...packNotices(funding, funded, metric))
        for (const { packs } of funded.recharges) lines.push(rechargeLine(terms, period, funding, packs, metric))
      }
      if (new Decimal(unpriced).gt(0)) notices.push(unpricedOverage(item.item, metric, limit ?? '0', unpriced))
      statement.push({
        item: item.item,
        itemName: item.plan.name,
        product: item.product.key,
        metric: metric.metric,
        ...namedOf(metric),
        unit: metric.unit,
        quantity: measured.quantity,
        limit,
        ...status,
        line: no,
        proof,
        ...(measured.data === undefined ? {} : { data: measured.data.entries }),
        ...(funding === undefined || funded === null ? {} : { prepaid: packsUsed(funding, funded, blocked) }),
      })
    }
    for (const { name, amount } of prepaid.purchases.filter((one) => one.item === item.item)) {
      const label = { fr: `Pack prépayé — ${name}`, en: `Prepaid pack — ${name}` }
      lines.push({ ...packLine({ ...base, ...agreed }, part, label, '1', amount), explanation: label })
    }
    for (const charge of usage.filter((one) => one.item === item.item && one.charge === true)) {
      const amount = printMoney(new Decimal(charge.quantity), customer.currency)
      lines.push({
        ...base,
        type: 'usage',
        metric: null,
        unit: null,
        label: {
          fr: `${item.plan.name} — ${charge.metric}, ${month.fr}`,
          en: `${item.plan.name} — ${charge.metric}, ${month.en}`,
        },
        quantity: '1',
        included: '0',
        billable: '1',
        steps: [],
        exact: charge.quantity,
        amount,
        explanation: chargeWords(charge, amount, customer.currency),
        ...agreed,
        price: null,
        proof: proofOf(charge),
        period: part,
        ...dataOf(charge, undefined),
      })
    }
  }
  if (terms.billedAhead !== undefined) lines.push(...feeCorrections(terms, period, terms.billedAhead))
  for (const item of terms.ahead?.items ?? []) lines.push(...feeLines(terms, item, item.fees ?? []))
  return { lines, statement, notices }
}

/** A pack that was bought again because nothing was left. */
function rechargeLine(
  terms: Terms,
  period: Period,
  { item: id, recharge }: Funding,
  packs: string,
  { unit }: TermsMetric,
): DraftLine {
  const { currency } = terms.customer
  const item = terms.items.find((one) => one.item === id)!
  const { quantity, amount } = recharge!
  const total = printMoney(new Decimal(amount).times(packs), currency)
  const taxRate = taxRateOf(terms, item.product)
  const base = {
    item: id,
    product: item.product.key,
    plan: item.plan,
    taxRate,
    ...contractBehaviorOf(terms),
    since: null,
  }
  const name = (language: 'fr' | 'en'): string => `${formatNumber(quantity, language)} ${unit}`
  const label = { fr: `Recharge automatique — ${name('fr')}`, en: `Automatic recharge — ${name('en')}` }
  const say = (language: 'fr' | 'en'): string => {
    const money = (value: string): string => formatMoney(value, currency, language)
    return `${formatNumber(packs, language)} × ${money(amount)} = ${money(total)}`
  }
  return {
    ...packLine(base, item.period ?? period, label, packs, total),
    explanation: { fr: say('fr'), en: say('en') },
  }
}

/** An item that is invoiced when it is used has its fee in periods with any usage. */
function isTriggered({ contract }: Terms, item: string, usage: readonly ItemUsage[]): boolean {
  if (contract.items.find((one) => one.id === item)?.kind !== 'usage_triggered') return true
  return usage.some((one) => one.item === item && !new Decimal(one.quantity).isZero())
}

/** A line for each part that the fee is due for. */
function feeLines(terms: Terms, item: Ahead['items'][number], parts: readonly FeePart[]): DraftLine[] {
  const { fee } = item
  if (fee === null) return []
  const line = rate({ price: fee, quantity: '1' }).lines[0]
  if (line === undefined) return []
  return parts.flatMap((one): DraftLine[] => {
    const month = monthOf(terms, one.period)
    const amounts = byPart(line, terms, one)
    // Suspended all the time.
    if (new Decimal(amounts.amount).isZero() && one.paused !== undefined) return []
    return [
      {
        item: item.item,
        product: item.product.key,
        plan: item.plan,
        taxRate: taxRateOf(terms, item.product),
        since: null,
        type: 'fee',
        metric: null,
        unit: null,
        label: {
          fr: `${item.plan.name} — abonnement, ${month.fr}`,
          en: `${item.plan.name} — subscription, ${month.en}`,
        },
        ...amounts,
        ...behaviorOf(fee),
        price: fee,
        proof: null,
        period: one.part,
      },
    ]
  })
}

/**
 * Fees of the period that were billed in advance, where they are others now: after a change of plan a credit for the rest of the old
 * one and a charge for the new one, a line each.
 */
function feeCorrections(terms: Terms, period: Period, billed: Ahead): DraftLine[] {
  const { currency } = terms.customer
  const linesOf = (items: Ahead['items']): Map<string, DraftLine> =>
    new Map(
      items.flatMap((item) =>
        feeLines(terms, item, item.fees ?? [{ period, part: period }]).map((line, i) => [`${item.item} ${i}`, line]),
      ),
    )
  const before = linesOf(billed.items)
  const now = linesOf(terms.items.filter((item) => item.fee !== null))
  return [...new Set([...before.keys(), ...now.keys()])].flatMap((key): DraftLine[] => {
    const [was, is] = [before.get(key), now.get(key)]
    // With tax and without it are not subtracted from each other: the old fee is given back, the new one charged.
    return was !== undefined && is !== undefined && was.taxBehavior !== is.taxBehavior
      ? [...corrected(was, undefined), is]
      : corrected(was, is)
  })

  function corrected(was: DraftLine | undefined, is: DraftLine | undefined): DraftLine[] {
    const line = (is ?? was)!
    const amount = printMoney(new Decimal(is?.amount ?? '0').minus(was?.amount ?? '0'), currency)
    if (new Decimal(amount).isZero()) return []
    if (was === undefined) return [line]
    const say = (language: 'fr' | 'en'): string => {
      const money = (value: string): string => formatMoney(value, currency, language)
      const due = is === undefined ? money('0') : is.explanation[language]
      return language === 'fr'
        ? `${due}, au lieu de ${money(was.amount)} facturés d’avance : ${money(amount)}`
        : `${due}, instead of ${money(was.amount)} billed in advance: ${money(amount)}`
    }
    const of = (language: 'fr' | 'en'): string =>
      `${line.label[language]} (${language === 'fr' ? 'correction' : 'corrected'})`
    return [
      {
        ...line,
        label: { fr: of('fr'), en: of('en') },
        steps: [],
        exact: amount,
        amount,
        explanation: { fr: say('fr'), en: say('en') },
      },
    ]
  }
}

/**
 * A fee of a part as the customer is billed: the exact amount by days (or seconds), without those of a suspension, with the days in
 * words. One rounding, also of what is converted.
 */
function byPart(line: RatedLine, terms: Terms, { period, part, paused = [] }: FeePart): Rated {
  const { timeZone, prorate: by } = terms.contract
  const { currency } = terms.customer
  const whole = rated(line, currency)
  if (part.from === period.from && part.to === period.to && paused.length === 0) return whole
  const count = (range: Period): number => lengthOf(range, timeZone, by)
  const off = paused.reduce((all, one) => all + count(one), 0)
  const [due, of] = [count(part) - off, count(period)]
  const isConverted = line.currency !== currency
  const amount = isConverted
    ? billedIn(currency, line, printDecimal(new Decimal(line.exact).times(due).dividedBy(of)))
    : prorate(line.exact, due, of, currency)
  // People read 71 hours of 743 where it is that, not 255,600 seconds; a clock change shows in them.
  const inHours = by === 'second' && [part, period, ...paused].every((range) => Number.isInteger(hoursOf(range)))
  const units = inHours
    ? { fr: 'heures', en: 'hours' }
    : by === 'second'
      ? { fr: 'secondes', en: 'seconds' }
      : { fr: 'jours', en: 'days' }
  const shown = inHours ? hoursOf : count
  const unpaid = paused.reduce((all, one) => all + shown(one), 0)
  const say = (language: 'fr' | 'en'): string => {
    const price = formatMoney(printPrice(new Decimal(line.exact), line.currency), line.currency, language)
    const result = `${isConverted ? parityIn(line.currency, currency, language) : ' ='} ${formatMoney(amount, currency, language)}`
    const [some, all, without] = [shown(part) - unpaid, shown(period), unpaid].map((n) =>
      formatNumber(String(n), language),
    )
    const unit = units[language]
    const days = [part.from, part.to - 1].map((at) => formatDate(dateIn(at, timeZone), language))
    const left = off === 0 ? '' : language === 'fr' ? ` (sans ${without} suspendus)` : ` (without ${without} suspended)`
    return language === 'fr'
      ? `du ${days[0]} au ${days[1]} : ${price} × ${some} ${unit} sur ${all}${left}${result}`
      : `${days[0]} to ${days[1]}: ${price} × ${some} of ${all} ${unit}${left}${result}`
  }
  return { ...whole, steps: [], exact: amount, amount, explanation: { fr: say('fr'), en: say('en') } }
}

function packLine(
  base: Pick<DraftLine, 'item' | 'product' | 'plan' | 'taxRate' | 'taxBehavior' | 'since'>,
  period: Period,
  label: Words,
  quantity: string,
  amount: string,
): Omit<DraftLine, 'explanation'> {
  const figures = { quantity, included: '0', billable: quantity, steps: [], exact: amount, amount }
  return { ...base, type: 'add_on', metric: null, unit: null, label, ...figures, price: null, proof: null, period }
}

/** Of each pack that was touched: what was used, what is left, what was forfeited. */
function packsUsed({ packs }: Funding, { debits, balances, forfeited, covered, recharges }: Funded, blocked: string) {
  const used = new Map<string, Decimal>()
  for (const { pack, quantity } of debits) used.set(pack, (used.get(pack) ?? new Decimal(0)).plus(quantity))
  const names = [...packs, ...recharges.map(({ pack }) => ({ id: pack, name: 'recharge' }))]
  return {
    covered,
    blocked,
    packs: names
      .filter(({ id }) => used.has(id) || forfeited[id] !== undefined)
      .map(({ id, name }) => ({
        id,
        name,
        debited: printDecimal(used.get(id) ?? new Decimal(0)),
        left: balances[id] ?? '0',
        forfeited: forfeited[id] ?? '0',
      })),
  }
}

function packNotices(funding: Funding, funded: Funded, metric: TermsMetric): Notice[] {
  return packsUsed(funding, funded, '0').packs.map(({ name, debited, left, forfeited }) => {
    const say = (language: 'fr' | 'en'): string => {
      const [used, rest, lost] = [debited, left, forfeited].map((quantity) => formatNumber(quantity, language))
      const words = {
        fr: ['utilisés', 'restants', 'perdus à l’échéance'],
        en: ['used', 'left', 'forfeited at its end'],
      }
      const [usedWord, leftWord, lostWord] = words[language]
      const tail = forfeited === '0' ? '' : `, ${lost} ${lostWord}`
      return `pack ${name}${language === 'fr' ? ' :' : ':'} ${used} ${usedWord}, ${rest} ${leftWord}${tail}`
    }
    return {
      code: 'prepaid_used',
      item: funding.item,
      metric: metric.metric,
      quantity: debited,
      text: { fr: say('fr'), en: say('en') },
    }
  })
}

/** Stands for all that packs have paid. */
const paidPack = (balance: string) => ({ id: 'paid', name: '', balance })

/** What packs pay more of an earlier period, or have back, by usage that was counted after its invoice. */
function lateNotices(funding: Refunding, funded: Funded, metric: TermsMetric, { terms, period }: LatePart): Notice[] {
  const month = monthOf(terms, period)
  const names = new Map(funding.packs.map(({ id, name }) => [id, name]))
  return lateLedgerOf(funding, funded, period)
    .filter((step) => step.kind === 'debit')
    .map(({ pack, quantity }) => {
      const more = opposite(quantity)
      const back = more.startsWith('-')
      const say = (language: 'fr' | 'en'): string => {
        const [units, name] = [formatNumber(back ? quantity : more, language), names.get(pack) ?? 'recharge']
        if (language === 'fr')
          return `pack ${name} : ${units} ${back ? 'rendus' : 'de plus utilisés'} pour ${month.fr}, après sa facture`
        return `pack ${name}: ${units} ${back ? 'given back' : 'more used'} for ${month.en}, after its invoice`
      }
      return {
        code: 'prepaid_used',
        item: funding.item,
        metric: metric.metric,
        quantity: more,
        text: { fr: say('fr'), en: say('en') },
      }
    })
}

function usageBlocked(item: string, metric: TermsMetric, quantity: string): Notice {
  return {
    code: 'usage_blocked',
    item,
    metric: metric.metric,
    quantity,
    text: {
      fr: `packs épuisés : ${formatNumber(quantity, 'fr')} ${calledOf(metric).fr} au-delà, bloqués et non facturés`,
      en: `packs used up: ${formatNumber(quantity, 'en')} ${calledOf(metric).en} beyond, blocked and not billed`,
    },
  }
}

/** The quota of an item: a part of it for a part of the period, in whole units, only if the plan says so. */
export function limitOf(
  item: Terms['items'][number],
  metric: TermsMetric,
  { contract }: Terms,
  period: Period,
): string | null {
  if (metric.limit === null || item.prorateIncluded !== true || item.period === undefined) return metric.limit
  const days = (range: Period): number => daysOf(range, contract.timeZone)
  const part = new Decimal(metric.limit).times(days(item.period)).dividedBy(days(period))
  return printDecimal(round(part, 0))
}

/** A period by its name: the month that it is, or its days when it is none. */
export function monthOf({ contract }: Terms, period: Period): Words {
  const { timeZone } = contract
  const say = (language: 'fr' | 'en'): string => {
    if (isMonth(period, timeZone)) return formatMonth(period.from, timeZone, language)
    const [first, last] = [period.from, period.to - 1].map((at) => formatDate(dateIn(at, timeZone), language))
    return language === 'fr' ? `du ${first} au ${last}` : `${first} to ${last}`
  }
  return { fr: say('fr'), en: say('en') }
}

/** A month of the calendar: what begins on the 24th has no name. */
function isMonth(period: Period, zone: string): boolean {
  const [first, behind] = [dateIn(period.from, zone), dateIn(period.to, zone)]
  return first.endsWith('-01') && behind.endsWith('-01') && daysOf(period, zone) <= 31
}

/**
 * Discounts, cap and minimum over the charges of a period. With `before` (the charges as they were billed) only what changed is
 * due, as one line for each kind.
 */
function adjustmentLines(
  terms: Terms,
  period: Period,
  charges: readonly DraftLine[],
  before: readonly DraftLine[],
  regularised = false,
): DraftLine[] {
  const [item] = terms.items
  if (item === undefined || terms.contract.adjustments === undefined) return []
  const { currency } = terms.customer
  const agreed = contractBehaviorOf(terms)
  const kind = agreed.taxBehavior === undefined ? 'ht' : 'ttc'
  const total = (lines: readonly DraftLine[]): string => printDecimal(new Decimal(taxLines(lines, currency)[kind]))
  const old = new Map<string, Adjustment>()
  if (regularised) for (const one of adjust(terms, period, total(before))) old.set(one.label.fr, one)
  const now = new Map(adjust(terms, period, total(charges)).map((one) => [one.label.fr, one]))
  // It comes off each rate of tax by its share of the charges.
  const byRate = (amount: string, lines: readonly DraftLine[]): Map<string, Decimal> => {
    const { taxes } = taxLines(lines, currency)
    if (taxes.length < 2) return new Map([[taxes[0]?.rate ?? terms.customer.taxRate, new Decimal(amount)]])
    const weights = taxes.map(({ base, tax }) => (kind === 'ht' ? base : printDecimal(new Decimal(base).plus(tax))))
    const shares = spread(amount, weights, currency)
    return new Map(taxes.map(({ rate }, i) => [rate, new Decimal(shares[i]!)]))
  }
  return [...new Set([...now.keys(), ...old.keys()])].flatMap((key): DraftLine[] => {
    const one = (now.get(key) ?? old.get(key))!
    const [is, was] = [now.get(key)?.amount ?? '0', old.get(key)?.amount ?? '0']
    const [share, shareBefore] = [byRate(is, charges), byRate(was, before)]
    const amount = printMoney(new Decimal(is).minus(was), currency)
    const month = monthOf(terms, period)
    const say = (language: 'fr' | 'en'): string => {
      const money = (value: string): string => formatMoney(value, currency, language)
      if (!regularised) return one.explanation[language]
      return language === 'fr'
        ? `${money(is)} au lieu de ${money(was)} = ${money(amount)}`
        : `${money(is)} instead of ${money(was)} = ${money(amount)}`
    }
    return [...new Set([...share.keys(), ...shareBefore.keys()])].flatMap((taxRate): DraftLine[] => {
      const due = new Decimal(share.get(taxRate) ?? 0).minus(shareBefore.get(taxRate) ?? 0)
      if (due.isZero()) return []
      const amount = printMoney(due, currency)
      return [
        {
          item: item.item,
          product: item.product.key,
          plan: item.plan,
          type: regularised ? 'regularisation' : one.type,
          metric: null,
          unit: null,
          label: regularised
            ? { fr: `Régularisation ${month.fr} — ${one.label.fr}`, en: `Adjustment for ${month.en} — ${one.label.en}` }
            : one.label,
          quantity: '1',
          included: '0',
          billable: '1',
          steps: [],
          exact: amount,
          amount,
          explanation: { fr: say('fr'), en: say('en') },
          taxRate,
          ...agreed,
          price: null,
          proof: null,
          period,
          since: null,
        },
      ]
    })
  })
}

function regularise(
  part: LatePart,
  currency: string,
): { readonly lines: readonly DraftLine[]; readonly notices: readonly Notice[] } {
  const lines: DraftLine[] = []
  const notices: Notice[] = []
  const { terms } = part
  const { contract } = terms
  const month = (language: 'fr' | 'en'): string => formatMonth(part.period.from, contract.timeZone, language)
  for (const item of terms.items) {
    if (contract.items.some((one) => one.id === item.item && one.fleet !== undefined)) {
      lines.push(...fleetRegularisation(part, item, currency))
      continue
    }
    // The fee of an item that is invoiced when it is used, by usage that nobody knew of, or of which nothing is left.
    const [used, usedBefore] = [part.usage, part.billed].map((usage) => isTriggered(terms, item.item, usage))
    if (item.fee !== null && terms.billedAhead === undefined && used !== usedBefore)
      for (const line of feeLines(
        terms,
        item,
        item.fees ?? [{ period: part.period, part: item.period ?? part.period }],
      ))
        lines.push(asRegularisation(line, used === true ? line.amount : opposite(line.amount)))
    for (const metric of item.metrics) {
      const now = usageOf(part.usage, item.item, metric.metric)
      const billed = usageOf(part.billed, item.item, metric.metric)
      const limit = limitOf(item, metric, terms, part.period)
      const [quantity, old] = [atLeastZero(now.quantity), atLeastZero(billed.quantity)]
      const funding = part.prepaid?.find((one) => one.item === item.item && one.metric === metric.metric)
      const covers = item.period ?? part.period
      const funded = funding === undefined || limit === null ? null : fund(funding, metric, limit, quantity, covers)
      const [paid, paidBefore] = funded === null ? ['0', '0'] : [funded.covered, coveredBefore(funding!)]
      if (funded !== null) {
        notices.push(...lateNotices(funding!, funded, metric, part))
        for (const { packs } of funded.recharges) lines.push(rechargeLine(terms, part.period, funding!, packs, metric))
      }
      // The count of events matters only to a price that charges them.
      const partsOf = ({ parts = [] }: ItemUsage): string => parts.map((one) => one.quantity).join()
      const same =
        quantity === old &&
        (metric.price?.model !== 'percentage' || now.count === billed.count) &&
        (metric.later === undefined || partsOf(now) === partsOf(billed))
      if (limit === null || (same && paid === paidBefore)) continue
      // Behind packs that block nothing is billed, early or late.
      const isBlocked = (used: string, by: string): boolean =>
        funding?.exhaustion === 'block' &&
        new Decimal(pricedQuantity(used, metric, null).quantity).gt(new Decimal(limit).plus(by))
      const [blocked, blockedBefore] = [isBlocked(quantity, paid), isBlocked(old, paidBefore)]
      const included = printDecimal(new Decimal(limit).plus(paid))
      const includedBefore = printDecimal(new Decimal(limit).plus(paidBefore))
      // Prices that changed within the period, each counting by its own parts.
      const isCut = metric.later !== undefined && now.parts !== undefined && billed.parts !== undefined
      const price = metric.price ?? (isCut ? metric.later[0]!.price : null)
      if (price === null) {
        const above = new Decimal(quotaStatus(quantity, included).overage ?? '0')
        const more = above.minus(quotaStatus(old, includedBefore).overage ?? '0')
        if (more.gt(0)) notices.push(unpricedOverage(item.item, metric, limit, printDecimal(more)))
        continue
      }
      const asked = askOf(metric, price, limit)
      const { words: _, ...priced } = asked(quantity)
      // Packs pay more or less of it.
      const changed = funded !== null || isCut
      const delta = rateDelta({
        ...priced,
        billed: asked(old).quantity,
        events: String(now.count),
        billedEvents: String(billed.count),
        ...amountsOf(now),
        ...(billed.amounts === undefined ? {} : { billedAmounts: billed.amounts }),
      })
      const [after, before] = changed
        ? [
            { ...now, quantity, limit: included },
            { ...billed, quantity: old, limit: includedBefore },
          ].map((one, i) => ([blocked, blockedBefore][i] ? '0' : rateMetric(metric, one, one.limit, currency).total))
        : [delta.after, delta.before].map((rating) => billedIn(currency, price, exactOf(rating)))
      const amount = printMoney(new Decimal(after!).minus(before!), currency)
      if (new Decimal(amount).isZero()) continue
      const say = (language: 'fr' | 'en'): string => {
        const money = (amount: string): string => formatMoney(amount, currency, language)
        const counts = [formatNumber(quantity, language), formatNumber(old, language)]
        const sum = `${money(after!)} − ${money(before!)}`
        const [more, less] = [paid, paidBefore].map((text) => formatNumber(text, language))
        const packs =
          paid === paidBefore
            ? ''
            : language === 'fr'
              ? `, dont ${more} payés par des packs au lieu de ${less}`
              : `, ${more} of them paid by packs instead of ${less}`
        return language === 'fr'
          ? `${counts[0]} ${calledOf(metric).fr} au lieu de ${counts[1]}${packs} : ${sum} déjà facturés = ${money(amount)}`
          : `${counts[0]} ${calledOf(metric).en} instead of ${counts[1]}${packs}: ${sum} already billed = ${money(amount)}`
      }
      lines.push({
        item: item.item,
        product: item.product.key,
        plan: item.plan,
        type: 'regularisation',
        metric: metric.metric,
        ...namedOf(metric),
        unit: price.unit ?? metric.unit,
        label: {
          fr: `Régularisation ${month('fr')} — ${calledOf(metric).fr}`,
          en: `Adjustment for ${month('en')} — ${calledOf(metric).en}`,
        },
        quantity: delta.quantity,
        included: '0',
        billable: delta.quantity,
        steps: changed ? [] : (delta.after.lines[0]?.steps ?? []),
        exact: amount,
        amount,
        explanation: { fr: say('fr'), en: say('en') },
        taxRate: taxRateOf(terms, item.product),
        ...behaviorOf(price),
        price,
        proof: proofOf(now),
        period: item.period ?? part.period,
        since: billed.cut,
        ...dataOf(now, billed),
      })
    }
    const isCharge = (one: ItemUsage): boolean => one.item === item.item && one.charge === true
    const gone = part.billed.filter(
      (old) => isCharge(old) && !part.usage.some((one) => isCharge(one) && one.metric === old.metric),
    )
    for (const now of [...part.usage.filter(isCharge), ...gone.map((old) => ({ ...old, quantity: '0' }))]) {
      const old = part.billed.find((one) => one.item === now.item && one.metric === now.metric && one.charge === true)
      const money = (text: string): string => printMoney(new Decimal(text), currency)
      const amount = money(printDecimal(new Decimal(money(now.quantity)).minus(money(old?.quantity ?? '0'))))
      if (new Decimal(amount).isZero()) continue
      lines.push({
        item: item.item,
        product: item.product.key,
        plan: item.plan,
        type: 'regularisation',
        metric: null,
        unit: null,
        label: {
          fr: `Régularisation ${month('fr')} — ${now.metric}`,
          en: `Adjustment for ${month('en')} — ${now.metric}`,
        },
        quantity: '1',
        included: '0',
        billable: '1',
        steps: [],
        exact: amount,
        amount,
        explanation: chargeWords(now, amount, currency),
        taxRate: taxRateOf(terms, item.product),
        ...contractBehaviorOf(terms),
        price: null,
        proof: proofOf(now),
        period: item.period ?? part.period,
        since: {},
        ...dataOf(now, old),
      })
    }
  }
  if (contract.adjustments !== undefined) {
    const { prepaid = [], sold = [] } = part
    const charges = (usage: readonly ItemUsage[], fundings: readonly Funding[]): readonly DraftLine[] =>
      chargesOf(terms, part.period, usage, { fundings, purchases: sold }).lines
    const before = prepaid.map((funding) => ({ ...funding, parts: [], packs: [paidPack(coveredBefore(funding))] }))
    lines.push(...adjustmentLines(terms, part.period, charges(part.usage, prepaid), charges(part.billed, before), true))
  }
  return { lines, notices }
}

function asRegularisation(line: DraftLine, amount: string): DraftLine {
  const label = { fr: `Régularisation — ${line.label.fr}`, en: `Adjustment — ${line.label.en}` }
  return { ...line, type: 'regularisation', label, steps: [], exact: amount, amount, since: {} }
}

type MetricLine = Rated & { readonly price: Price }

/**
 * The lines of a metric: one, or one for each version of the price that held within the period, which continue each other's tiers.
 * `total` is in the customer's currency, `unpriced` in the metric's unit.
 */
function rateMetric(
  metric: TermsMetric,
  measured: ItemUsage,
  included: string,
  currency: string,
  covered = '0',
): { readonly lines: readonly MetricLine[]; readonly total: string; readonly unpriced: string } {
  const first = metric.price
  const parts = metric.later === undefined ? [] : (measured.parts ?? [])
  const begun = printDecimal(parts[0] === undefined ? new Decimal(measured.quantity) : new Decimal(parts[0].quantity))
  const lines: MetricLine[] = []
  let unpriced = new Decimal(0)
  if (first === null) {
    // A rule that begins within the period prices nothing before.
    const { quantity } = pricedQuantity(atLeastZero(begun), metric, null)
    unpriced = Decimal.max(new Decimal(quantity).minus(included), 0)
  } else {
    const { words, ...priced } = askOf(metric, first, included)(atLeastZero(begun))
    const prepaid = convertUnit(covered, metric.unit, first.unit ?? metric.unit)
    const rating = rate({ ...priced, prepaid, events: String(measured.count), ...amountsOf(measured) })
    lines.push(...rating.lines.map((line) => ({ ...rated(line, currency, words), price: first })))
    unpriced = new Decimal(convertUnit(rating.unpriced, first.unit ?? metric.unit, metric.unit))
  }
  let counted = atLeastZero(begun)
  for (const [i, { price }] of (parts.length === 0 ? [] : metric.later!).entries()) {
    if (first !== null && price.taxBehavior !== first.taxBehavior)
      throw new ReleveError(
        'unprocessable',
        `${price.rule} v${price.version}: tax_behavior changes within the period; let it take effect with the next one`,
      )
    const part = parts[i + 1]?.quantity
    const whole = part === undefined ? measured.quantity : atLeastZero(printDecimal(new Decimal(counted).plus(part)))
    const asked = askOf(metric, price, included)
    const { words: _, ...now } = asked(whole)
    const before = asked(counted)
    const delta = rateDelta({ ...now, billed: before.quantity })
    counted = whole
    const more = printDecimal(new Decimal(delta.after.unpriced).minus(delta.before.unpriced))
    unpriced = unpriced.plus(convertUnit(more, price.unit ?? metric.unit, metric.unit))
    if (new Decimal(delta.amount).isZero()) continue
    const amount =
      price.currency === currency
        ? delta.amount
        : billedIn(currency, price, printDecimal(new Decimal(exactOf(delta.after)).minus(exactOf(delta.before))))
    const say = (language: 'fr' | 'en'): string => {
      const money = (text: string): string => formatMoney(text, price.currency, language)
      const sum = `${money(delta.after.total)} − ${money(delta.before.total)} = ${money(delta.amount)}`
      const [more, of] = [delta.quantity, now.quantity].map((text) => formatNumber(text, language))
      return language === 'fr'
        ? `${more} ${calledOf(metric).fr} de plus, ${of} en tout, au prix v${price.version} : ${sum}`
        : `${more} ${calledOf(metric).en} more, ${of} in all, at price v${price.version}: ${sum}`
    }
    const figures = {
      quantity: delta.quantity,
      included: '0',
      billable: delta.quantity,
      steps: [],
      exact: amount,
      amount,
    }
    lines.push({ ...figures, explanation: { fr: say('fr'), en: say('en') }, price })
  }
  const total = lines.reduce((all, line) => all.plus(line.amount), new Decimal(0))
  return {
    lines,
    total: printMoney(total, currency),
    unpriced: printDecimal(unpriced),
  }
}

/** How a quantity of a metric is asked of a price: rounded, and both it and the quota in the price's unit. */
export function askOf(metric: TermsMetric, price: Price, limit: string) {
  const included = convertUnit(limit, metric.unit, price.unit ?? metric.unit)
  const { fr, en } = calledOf(metric)
  // A name may hold the metric's own unit, as «Mo transférés» does.
  const own = price.unit === undefined || price.unit === metric.unit
  const called = own ? { fr, en } : { fr: `${price.unit} (${fr})`, en: `${price.unit} (${en})` }
  return (measured: string) => ({ price, included, called, ...pricedQuantity(measured, metric, price) })
}

/** The name of a metric on a line or an entry. */
export function namedOf({ name }: TermsMetric): Pick<InvoiceLine, 'metricName'> {
  return name === undefined ? {} : { metricName: name }
}

function amountsOf({ amounts }: ItemUsage): Pick<ItemUsage, 'amounts'> {
  return amounts === undefined ? {} : { amounts }
}

function both(before: Words | null, words: Words): Words {
  return before === null ? words : { fr: `${before.fr} ; ${words.fr}`, en: `${before.en}; ${words.en}` }
}

export function proofOf({ cut, query, count, digest, data }: ItemUsage): Proof {
  if (data === undefined) return { cut, query, count, digest }
  const { entries: _, ...own } = data
  return { cut, query, count, digest, data: own }
}

/** The usage data that a line prints itself: those that were not billed before. */
function dataOf(now: ItemUsage, billed: ItemUsage | undefined): Pick<InvoiceLine, 'data'> {
  const before = billed?.data?.entries ?? []
  const ids = new Set(before.map((entry) => entry.id))
  const last = Math.max(0, ...before.map((entry) => entry.order ?? 0))
  // A list is cut at its maximum, so that one of an earlier closing may be there without having been in the earlier list.
  const entries = now.data?.entries.filter((entry) => !ids.has(entry.id) && (entry.order ?? 1) > last) ?? []
  return entries.length === 0 ? {} : { data: entries }
}

function chargeWords(charge: ItemUsage, amount: string, currency: string): Words {
  const count = String(charge.data?.count ?? 0)
  return {
    fr: `calculé sur ${formatNumber(count, 'fr')} donnée(s) d’usage = ${formatMoney(amount, currency, 'fr')}`,
    en: `calculated from ${formatNumber(count, 'en')} usage data = ${formatMoney(amount, currency, 'en')}`,
  }
}

function usageOf(usage: readonly ItemUsage[], item: string, metric: string): ItemUsage {
  const found = usage.find((one) => one.item === item && one.metric === metric)
  assert(found !== undefined, `no usage was measured for ${item} ${metric}`)
  return found
}

function atLeastZero(quantity: string): string {
  return parseDecimal(quantity, 'quantity').lt(0) ? '0' : quantity
}

type Rated = Pick<InvoiceLine, 'quantity' | 'included' | 'billable' | 'steps' | 'exact' | 'amount' | 'explanation'>

/** So many of an add-on. A flat price is that of one, and three seats are three fees: rating alone takes a fee as due once. */
function rateAddOn(price: Price, quantity: string, once: boolean): RatedLine | undefined {
  const line = rate({ price, quantity, once }).lines[0]
  const many = parseDecimal(quantity, 'quantity')
  if (line === undefined || price.model !== 'flat' || many.eq(1)) return line
  if (many.isZero()) return undefined
  const exact = many.times(price.amount)
  const amount = printMoney(exact, price.currency)
  const say = (language: 'fr' | 'en'): string =>
    `${formatNumber(quantity, language)} × ${line.explanation[language]} = ${formatMoney(amount, price.currency, language)}`
  return {
    ...line,
    quantity,
    billable: quantity,
    steps: line.steps.map((step) => ({ ...step, quantity, amount: printMoney(exact, price.currency) })),
    exact: printDecimal(exact),
    amount,
    explanation: { fr: say('fr'), en: say('en') },
  }
}

/**
 * A line as the customer is billed. A price in another currency is converted at the fixed parity, and that is said: the exact amount, so
 * that it is rounded once.
 */
function rated(line: RatedLine, currency: string, before: Words | null = null): Rated {
  const { quantity, free, billable, steps, exact, amount } = line
  const explanation = both(before, line.explanation)
  if (line.currency === currency) return { quantity, included: free, billable, steps, exact, amount, explanation }
  const converted = billedIn(currency, line, exact)
  const say = (language: 'fr' | 'en'): string =>
    `${explanation[language]}${parityIn(line.currency, currency, language)} ${formatMoney(converted, currency, language)}`
  return {
    ...{ quantity, included: free, billable, steps, exact: converted, amount: converted },
    explanation: { fr: say('fr'), en: say('en') },
  }
}

/** Between an amount and the same in another currency. */
function parityIn(from: string, to: string, language: 'fr' | 'en'): string {
  const parity = parityWords(from, to, language)
  return language === 'fr' ? ` ; ${parity} :` : `; ${parity}:`
}

export function parityWords(from: string, to: string, language: 'fr' | 'en'): string {
  const francs = formatNumber(CFA_PARITY, language)
  return from === 'EUR' ? `1 EUR = ${francs} ${to}` : `${francs} ${from} = 1 EUR`
}

/** Before rounding; what is billed in the price's own currency is rounded there. */
function exactOf({ lines: [line] }: Rating): string {
  return line?.exact ?? '0'
}

/** An amount of a price in the customer's currency, rounded to it. Throws ReleveError `unprocessable` when the two have no fixed parity. */
function billedIn(
  currency: string,
  price: { readonly currency: string; readonly rule: string },
  amount: string,
): string {
  return printMoney(exactIn(currency, price, new Decimal(amount)), currency)
}

/** An amount of a price in the customer's currency, not rounded. Throws ReleveError `unprocessable` as billedIn. */
export function exactIn(
  currency: string,
  price: { readonly currency: string; readonly rule: string },
  amount: Decimal,
): Decimal {
  if (price.currency === currency) return amount
  const parity = fixedRate(price.currency, currency)
  if (parity === null)
    throw new ReleveError(
      'unprocessable',
      `${price.rule} is in ${price.currency}, the customer is billed in ${currency}`,
    )
  return convertMoney(amount, parity)
}

/** A product of a category of its own is taxed by it in the seller's country, unless the customer owes no tax at all. */
export function taxRateOf({ customer, legalEntity }: Terms, { taxCategory }: Product): string {
  if (taxCategory === undefined || customer.taxCategory !== 'S' || new Decimal(customer.taxRate).isZero())
    return customer.taxRate
  return taxOf(legalEntity.country, taxCategory).rate
}

function unpricedRule(code: 'fee_unpriced' | 'add_on_unpriced', item: string, rule: string): Notice {
  const [fr, en] = code === 'fee_unpriced' ? ['abonnement', 'subscription'] : ['option', 'add-on']
  return {
    code,
    item,
    metric: null,
    quantity: null,
    text: {
      fr: `${fr} sans prix en vigueur : ${rule}, non facturé`,
      en: `${en} without a price in force: ${rule}, not billed`,
    },
  }
}

function unpricedOverage(item: string, metric: TermsMetric, limit: string, quantity: string): Notice {
  return {
    code: 'overage_unpriced',
    item,
    metric: metric.metric,
    quantity,
    text: {
      fr: `dépassement sans prix : ${formatNumber(quantity, 'fr')} ${calledOf(metric).fr} au-delà de ${formatNumber(limit, 'fr')}, non facturé`,
      en: `overage without a price: ${formatNumber(quantity, 'en')} ${calledOf(metric).en} above ${formatNumber(limit, 'en')}, not billed`,
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
      fr: `quantité négative : ${formatNumber(quantity, 'fr')} ${calledOf(metric).fr}, comptée pour 0`,
      en: `negative quantity: ${formatNumber(quantity, 'en')} ${calledOf(metric).en}, billed as 0`,
    },
  }
}
