/**
 * Shadow rating: what other prices or another plan would have made of the usage that was really there. A period is drafted twice
 * from the same usage, once by the terms in force and once by changed ones, and the difference is told. Pure; nothing is kept.
 *
 * Price versions may be drafts: that is what the question is for. Prepaid packs pay on both sides what they can; late usage is in the
 * period that it belongs to.
 */
import type { Book, Terms } from '../catalog/book.js'
import type { Price } from '../catalog/price.js'
import { printMoney } from '../currency.js'
import { Decimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { Period } from '../period.js'
import { draftInvoice, type ItemUsage } from './draft.js'
import type { Prepaid } from './funding.js'
import { type Invoice, netOf } from './invoice.js'

export interface ShadowChange {
  /** These versions in the place of those in force, drafts and archived ones too. */
  readonly prices?: readonly { readonly rule: string; readonly version: string }[]
  /** Items on one plan as if they were on another, with its quotas; its latest version by default. */
  readonly plans?: readonly { readonly from: string; readonly to: string; readonly version?: number }[]
}

export interface ShadowPeriod {
  readonly period: Period
  /** HT by the terms in force, and by the changed ones. */
  readonly before: string
  readonly after: string
  readonly difference: string
  /** Lines that are not the same, by item and metric, HT. */
  readonly lines: readonly {
    readonly item: string
    readonly metric: string | null
    readonly before: string
    readonly after: string
  }[]
  /** Usage above a quota that nothing prices after the change. */
  readonly unpriced: readonly { readonly metric: string; readonly quantity: string }[]
}

/** Throws ReleveError `not_found` for a version or a plan that is not there. */
export function shadowTerms(book: Book, terms: Terms, period: Period, change: ShadowChange): Terms {
  const versions = new Map((change.prices ?? []).map((one) => [one.rule, one.version]))
  const priced = (rule: string | null, inForce: Price | null): Price | null => {
    const version = rule === null ? undefined : versions.get(rule)
    if (rule === null || version === undefined) return inForce
    const found = book.priceAt(rule, version)
    if (found === null) throw new ReleveError('not_found', `prices: there is no ${rule} v${version}`)
    return found
  }
  const inForce = (rule: string | null): Price | null => {
    const found = rule === null ? null : book.priceInForce(rule, period.from)
    return found === null ? null : book.priceAt(found.rule, found.version)
  }
  return {
    ...terms,
    items: terms.items.map((item) => {
      const addOns = item.addOns?.map((addOn) => ({ ...addOn, price: priced(addOn.rule, addOn.price) }))
      const moved = (change.plans ?? []).find((one) => one.from === item.plan.key)
      if (moved === undefined) {
        return {
          ...item,
          fee: priced(item.feeRule, item.fee),
          // A version that is asked for holds for the whole period.
          metrics: item.metrics.map(({ later, ...metric }) => ({
            ...metric,
            price: priced(metric.rule, metric.price),
            ...(later === undefined || (metric.rule !== null && versions.has(metric.rule)) ? {} : { later }),
          })),
          ...(addOns === undefined ? {} : { addOns }),
        }
      }
      const plan = book.planOf(moved.to, moved.version)
      return {
        ...item,
        plan: { key: plan.key, version: plan.version, name: plan.name },
        feeRule: plan.feeRule,
        fee: priced(plan.feeRule, inForce(plan.feeRule)),
        metrics: plan.metrics.map(({ metric, included, rule }) => {
          const { name, unit, rounding } = book.metricOf(metric)
          return {
            metric,
            ...(name === undefined ? {} : { name }),
            unit,
            ...(rounding === undefined ? {} : { rounding }),
            limit: included,
            rule,
            price: priced(rule, inForce(rule)),
          }
        }),
        ...(addOns === undefined ? {} : { addOns }),
      }
    }),
  }
}

/** Metrics of each item that either side counts. */
export function shadowItems(before: Terms, after: Terms) {
  return before.items.map((item, i) => ({
    item: item.item,
    metrics: [...new Set([...item.metrics, ...after.items[i]!.metrics].map((metric) => metric.metric))],
    ...(item.period === undefined ? {} : { period: item.period }),
  }))
}

/** Terms, and what was used by them. */
export interface ShadowSide {
  readonly terms: Terms
  readonly usage: readonly ItemUsage[]
  readonly prepaid?: Prepaid
}

export function shadowPeriod(before: ShadowSide, after: ShadowSide, period: Period): ShadowPeriod {
  const [old, fresh] = [before, after].map(({ terms, usage, prepaid }) =>
    draftInvoice('shadow', terms, period, usage, [], [], prepaid),
  ) as [Invoice, Invoice]
  const { currency } = before.terms.customer
  const amounts = (invoice: Invoice): Map<string, { item: string; metric: string | null; amount: Decimal }> => {
    const all = new Map<string, { item: string; metric: string | null; amount: Decimal }>()
    for (const line of invoice.lines) {
      const { item, metric, type } = line
      const key = JSON.stringify([item, metric, metric === null ? type : ''])
      all.set(key, { item, metric, amount: (all.get(key)?.amount ?? new Decimal(0)).plus(netOf(line)) })
    }
    return all
  }
  const [was, is] = [amounts(old), amounts(fresh)]
  return {
    period,
    before: old.ht,
    after: fresh.ht,
    difference: printMoney(new Decimal(fresh.ht).minus(old.ht), currency),
    lines: [...new Set([...was.keys(), ...is.keys()])].flatMap((key) => {
      const { item, metric } = (was.get(key) ?? is.get(key))!
      const [a, b] = [was, is].map((side) => printMoney(side.get(key)?.amount ?? new Decimal(0), currency))
      return a === b ? [] : [{ item, metric, before: a!, after: b! }]
    }),
    unpriced: fresh.notices.flatMap(({ code, metric, quantity }) =>
      code === 'overage_unpriced' && metric !== null ? [{ metric, quantity: quantity ?? '0' }] : [],
    ),
  }
}

export interface ShadowSums {
  readonly before: string
  readonly after: string
  readonly difference: string
}

export function shadowSums(all: readonly ShadowSums[], currency: string): ShadowSums {
  const sum = (of: (one: ShadowSums) => string): string =>
    printMoney(
      all.reduce((total, one) => total.plus(of(one)), new Decimal(0)),
      currency,
    )
  return { before: sum((one) => one.before), after: sum((one) => one.after), difference: sum((one) => one.difference) }
}

export function shadowTotals(contracts: readonly (ShadowSums & { readonly currency: string })[]) {
  return [...new Set(contracts.map((one) => one.currency))].map((currency) => {
    const own = contracts.filter((one) => one.currency === currency)
    const signs = own.map((one) => new Decimal(one.difference).cmp(0))
    const count = (sign: number): number => signs.filter((one) => one === sign).length
    return { currency, ...shadowSums(own, currency), more: count(1), less: count(-1), same: count(0) }
  })
}
