/**
 * A fleet is charged object by object, each with its own fee, its own part of the period and its own included quantities, and shown
 * in a few lines: the fees of whole periods, those of parts, and the usage of each metric. Pure; one object at a time goes through,
 * so that a fleet may have as many as it likes.
 *
 * A line's exact amount is the sum of its objects' exact amounts (a fee of a part is rounded for itself, as it is for one item), and
 * is rounded once: what the detail lists sums to what the line says.
 */
import { assert } from '../assert.js'
import { calledOf, type Terms, type TermsMetric } from '../catalog/book.js'
import { printMoney, printPrice } from '../currency.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { formatMoney, formatNumber, type Words } from '../format.js'
import type { Period } from '../period.js'
import { lengthOf, prorate } from '../rating/prorate.js'
import { rate, type Step } from '../rating/rating.js'
import {
  askOf,
  behaviorOf,
  type DraftLine,
  type ItemUsage,
  limitOf,
  monthOf,
  namedOf,
  proofOf,
  taxRateOf,
} from './draft.js'

/** What the objects of a fleet come to, of one kind. */
export interface FleetCharge {
  readonly kind: 'fee' | 'part' | 'usage'
  /** Objects that are in it. */
  readonly objects: number
  readonly included: string
  readonly billable: string
  /** Units above what is included that no price covers. */
  readonly unpriced: string
  readonly steps: readonly Step[]
  readonly exact: string
  readonly amount: string
  /** Of usage: objects without any, of no metric. */
  readonly mute?: number
}

export interface FleetObject {
  readonly id: string
  readonly subject: string
  /** What it covers of the period. */
  readonly covers: Period
  readonly usage: ReadonlyMap<
    string,
    { readonly quantity: string; readonly events: number; readonly data: string | null }
  >
}

/** The detail of one object. */
export interface ObjectCharge {
  readonly item: string
  readonly subject: string
  readonly covers: Period
  readonly fee: string
  readonly usage: readonly {
    readonly metric: string
    readonly quantity: string
    /** What of it usage data came to. */
    readonly data: string | null
    readonly events: number
    readonly included: string
    readonly billable: string
    readonly amount: string
  }[]
  readonly amount: string
}

interface Sum {
  objects: number
  quantity: Decimal
  included: Decimal
  billable: Decimal
  unpriced: Decimal
  exact: Decimal
  steps: Map<string, Step>
}

const CACHE_MAX = 20_000

interface Priced {
  readonly quantity: Decimal
  readonly included: Decimal
  readonly billable: Decimal
  readonly unpriced: Decimal
  readonly exact: Decimal
  readonly steps: readonly Step[]
}

export class FleetRating {
  readonly #terms: Terms
  readonly #item: Terms['items'][number]
  readonly #period: Period
  #mute = 0
  readonly #sums = new Map<string, Sum>()
  /** Many objects have the same figures. */
  readonly #priced = new Map<string, Priced>()
  readonly #parts = new Map<string, { readonly fee: string; readonly limits: ReadonlyMap<string, string | null> }>()

  constructor(terms: Terms, item: Terms['items'][number], period: Period) {
    this.#terms = terms
    this.#item = item
    this.#period = period
    const currency = terms.customer.currency
    if (item.fee !== null) assertCurrency(item.fee.currency, currency, item.fee.rule)
    for (const { metric, price, later } of item.metrics) {
      if (price !== null) assertCurrency(price.currency, currency, price.rule)
      // The old price for all of the period would be wrong, and nobody would see it.
      if (later !== undefined)
        throw new ReleveError(
          'unprocessable',
          `${item.item}: the price of ${metric} changes within the period, and objects are charged by whole periods: let the version take effect with the next period`,
        )
    }
  }

  add(object: FleetObject): ObjectCharge {
    const { from, to } = object.covers
    const whole = from === this.#period.from && to === this.#period.to
    const part = this.#partOf(object.covers)
    const fee = new Decimal(part.fee)
    if (this.#item.fee !== null) {
      const sum = this.#sumOf(whole ? 'fee' : 'part', '')
      sum.objects += 1
      sum.exact = sum.exact.plus(fee)
    }
    if (object.usage.size === 0) this.#mute += 1
    let amount = fee
    const usage = this.#item.metrics.map((metric) => {
      const { quantity = '0', events = 0, data = null } = object.usage.get(metric.metric) ?? {}
      const priced = this.#price(metric, quantity, events, part.limits.get(metric.metric) ?? null)
      const sum = this.#sumOf('usage', metric.metric)
      if (!new Decimal(quantity).isZero() || events > 0) sum.objects += 1
      sum.quantity = sum.quantity.plus(quantity)
      sum.included = sum.included.plus(priced.included)
      sum.billable = sum.billable.plus(priced.billable)
      sum.unpriced = sum.unpriced.plus(priced.unpriced)
      sum.exact = sum.exact.plus(priced.exact)
      for (const step of priced.steps) {
        const key = `${step.after} ${step.upTo} ${step.unitPrice} ${step.flat}`
        const old = sum.steps.get(key)
        sum.steps.set(key, old === undefined ? step : together(old, step))
      }
      amount = amount.plus(priced.exact)
      return {
        metric: metric.metric,
        quantity,
        data,
        events,
        included: printDecimal(priced.included),
        billable: printDecimal(priced.billable),
        amount: printDecimal(priced.exact),
      }
    })
    return {
      item: object.id,
      subject: object.subject,
      covers: object.covers,
      fee: part.fee,
      usage,
      amount: printDecimal(amount),
    }
  }

  /** By kind, and by metric for usage; every metric of the fleet has its own, also without usage. */
  charges(): { readonly metric: string; readonly quantity: string; readonly fleet: FleetCharge }[] {
    for (const { metric } of this.#item.metrics) this.#sumOf('usage', metric)
    const { currency } = this.#terms.customer
    // Fees first, then metrics in the order of the plan, whichever object came first.
    const keys = [['fee', ''], ['part', ''], ...this.#item.metrics.map(({ metric }) => ['usage', metric])] as [
      FleetCharge['kind'],
      string,
    ][]
    return keys.flatMap(([kind, metric]) => {
      const sum = this.#sums.get(JSON.stringify([kind, metric]))
      if (sum === undefined) return []
      const steps =
        kind === 'fee' ? [feeStep(sum.objects, this.#item.fee!, sum.exact, currency)] : [...sum.steps.values()]
      const charge = {
        metric,
        quantity: printDecimal(kind === 'usage' ? sum.quantity : new Decimal(sum.objects)),
        fleet: {
          kind,
          objects: sum.objects,
          included: printDecimal(sum.included),
          billable: printDecimal(kind === 'usage' ? sum.billable : new Decimal(sum.objects)),
          unpriced: printDecimal(sum.unpriced),
          steps,
          exact: printDecimal(sum.exact),
          amount: printMoney(sum.exact, currency),
          ...(kind === 'usage' ? { mute: this.#mute } : {}),
        },
      }
      return [charge]
    })
  }

  #sumOf(kind: FleetCharge['kind'], metric: string): Sum {
    const key = JSON.stringify([kind, metric])
    let sum = this.#sums.get(key)
    if (sum === undefined) {
      const zero = new Decimal(0)
      sum = {
        objects: 0,
        quantity: zero,
        included: zero,
        billable: zero,
        unpriced: zero,
        exact: zero,
        steps: new Map(),
      }
      this.#sums.set(key, sum)
    }
    return sum
  }

  /** Fee and quotas of a part of the period: as many as there are first and last days. */
  #partOf(covers: Period): { readonly fee: string; readonly limits: ReadonlyMap<string, string | null> } {
    const key = `${covers.from} ${covers.to}`
    let part = this.#parts.get(key)
    if (part === undefined) {
      const whole = covers.from === this.#period.from && covers.to === this.#period.to
      const { contract, customer } = this.#terms
      const full =
        this.#item.fee === null ? '0' : (rate({ price: this.#item.fee, quantity: '1' }).lines[0]?.amount ?? '0')
      const count = (range: Period): number => lengthOf(range, contract.timeZone, contract.prorate)
      const item = { ...this.#item, ...(whole ? {} : { period: covers }) }
      part = {
        fee: whole ? full : prorate(full, count(covers), count(this.#period), customer.currency),
        limits: new Map(
          item.metrics.map((metric) => [metric.metric, limitOf(item, metric, this.#terms, this.#period)] as const),
        ),
      }
      this.#parts.set(key, part)
    }
    return part
  }

  #price(metric: TermsMetric, measured: string, events: number, limit: string | null): Priced {
    const key = `${metric.metric} ${measured} ${metric.price?.model === 'percentage' ? events : ''} ${limit}`
    const known = this.#priced.get(key)
    if (known !== undefined) return known
    const quantity = parseDecimal(measured, 'quantity').lt(0) ? '0' : measured
    const none = { quantity: new Decimal(quantity), billable: new Decimal(0), exact: new Decimal(0), steps: [] }
    let priced: Priced = { ...none, included: new Decimal(quantity), unpriced: new Decimal(0) }
    if (limit !== null) {
      const over = Decimal.max(new Decimal(quantity).minus(limit), 0)
      const included = Decimal.min(quantity, limit)
      if (metric.price === null) priced = { ...none, included, unpriced: over }
      else {
        const { words: _, ...asked } = askOf(metric, metric.price, limit)(quantity)
        const rating = rate({ ...asked, events: String(events) })
        const line = rating.lines[0]
        priced = {
          quantity: new Decimal(quantity),
          included: line === undefined ? included : new Decimal(line.free),
          billable: line === undefined ? new Decimal(0) : new Decimal(line.billable),
          unpriced: new Decimal(rating.unpriced),
          exact: line === undefined ? new Decimal(0) : new Decimal(line.exact),
          steps: line?.steps ?? [],
        }
      }
    }
    if (this.#priced.size >= CACHE_MAX) this.#priced.clear()
    this.#priced.set(key, priced)
    return priced
  }
}

function feeStep(
  objects: number,
  fee: NonNullable<Terms['items'][number]['fee']>,
  exact: Decimal,
  currency: string,
): Step {
  const each = rate({ price: fee, quantity: '1' }).lines[0]?.amount ?? '0'
  const money = (value: Decimal): string => printPrice(value, currency)
  return {
    after: '0',
    upTo: null,
    quantity: String(objects),
    unitPrice: money(new Decimal(each)),
    flat: money(new Decimal(0)),
    amount: money(exact),
  }
}

/** A fleet's exact sums stay in one currency: that of the customer. */
function assertCurrency(price: string, customer: string, rule: string): void {
  if (price !== customer)
    throw new ReleveError(
      'unprocessable',
      `${rule} is in ${price}, the customer is billed in ${customer}: a fleet is not converted`,
    )
}

/** The same tier of another object. A flat amount of a tier is due for each. */
function together(a: Step, b: Step): Step {
  const add = (one: string, other: string): string => printDecimal(new Decimal(one).plus(other))
  return { ...a, quantity: add(a.quantity, b.quantity), amount: add(a.amount, b.amount) }
}

/** The lines of a fleet item. */
export function fleetLines(
  terms: Terms,
  item: Terms['items'][number],
  usage: readonly ItemUsage[],
  period: Period,
): DraftLine[] {
  const { currency } = terms.customer
  const taxRate = taxRateOf(terms, item.product)
  const month = monthOf(terms, period)
  return usage.flatMap((one): DraftLine[] => {
    const { fleet } = one
    if (
      one.item !== item.item ||
      fleet === undefined ||
      (fleet.steps.length === 0 && new Decimal(fleet.amount).isZero())
    )
      return []
    const metric = item.metrics.find((entry) => entry.metric === one.metric)
    const what: Words =
      fleet.kind === 'usage'
        ? calledOf(metric ?? one)
        : fleet.kind === 'fee'
          ? { fr: 'abonnement des objets', en: 'subscription of the objects' }
          : { fr: 'abonnement des objets au prorata', en: 'subscription of the objects, by days' }
    const label = (language: 'fr' | 'en'): string => `${item.plan.name} — ${what[language]}, ${month[language]}`
    return [
      {
        item: item.item,
        product: item.product.key,
        plan: item.plan,
        type: fleet.kind === 'usage' ? 'usage' : 'fee',
        metric: fleet.kind === 'usage' ? one.metric : null,
        ...(fleet.kind === 'usage' && metric !== undefined ? namedOf(metric) : {}),
        unit: fleet.kind === 'usage' ? (metric?.price?.unit ?? metric?.unit ?? null) : null,
        label: { fr: label('fr'), en: label('en') },
        quantity: one.quantity,
        included: fleet.included,
        billable: fleet.billable,
        steps: fleet.kind === 'part' ? [] : fleet.steps,
        exact: fleet.exact,
        amount: fleet.amount,
        explanation: { fr: wordsOf(one, what.fr, currency, 'fr'), en: wordsOf(one, what.en, currency, 'en') },
        taxRate,
        ...behaviorOf(fleet.kind === 'usage' ? (metric?.price ?? null) : item.fee),
        price: fleet.kind === 'usage' ? (metric?.price ?? null) : item.fee,
        proof: fleet.kind === 'usage' ? proofOf(one) : null,
        period: item.period ?? period,
        since: null,
        objects: fleet.objects,
      },
    ]
  })
}

function wordsOf({ fleet, quantity }: ItemUsage, metric: string, currency: string, language: 'fr' | 'en'): string {
  assert(fleet !== undefined, 'a fleet entry has its charge')
  const n = (value: string): string => formatNumber(value, language)
  const [count, sum] = [n(String(fleet.objects)), formatMoney(fleet.amount, currency, language)]
  const french = language === 'fr'
  if (fleet.kind === 'fee') {
    const each = formatMoney(fleet.steps[0]?.unitPrice ?? '0', currency, language)
    return french ? `${count} objet(s) × ${each} = ${sum}` : `${count} object(s) × ${each} = ${sum}`
  }
  if (fleet.kind === 'part')
    return french
      ? `${count} objet(s) sur une partie de la période = ${sum}`
      : `${count} object(s) for a part of the period = ${sum}`
  return french
    ? `${count} objet(s), ${n(quantity)} ${metric} dont ${n(fleet.included)} inclus : ${n(fleet.billable)} facturés = ${sum}`
    : `${count} object(s), ${n(quantity)} ${metric} of which ${n(fleet.included)} included: ${n(fleet.billable)} billed = ${sum}`
}

/** What an earlier period of a fleet costs more or less now than was billed. */
export function fleetRegularisation(
  part: {
    readonly terms: Terms
    readonly period: Period
    readonly usage: readonly ItemUsage[]
    readonly billed: readonly ItemUsage[]
  },
  item: Terms['items'][number],
  currency: string,
): DraftLine[] {
  const month = monthOf(part.terms, part.period)
  const keyOf = (one: ItemUsage): string => `${one.item} ${one.fleet?.kind} ${one.metric}`
  return part.usage.flatMap((now): DraftLine[] => {
    if (now.item !== item.item || now.fleet === undefined) return []
    const old = part.billed.find((one) => one.fleet !== undefined && keyOf(one) === keyOf(now))
    const [is, was] = [now.fleet.amount, old?.fleet?.amount ?? '0']
    const amount = printMoney(new Decimal(is).minus(was), currency)
    if (new Decimal(amount).isZero()) return []
    const more = printDecimal(new Decimal(now.quantity).minus(old?.quantity ?? '0'))
    const metric = item.metrics.find((entry) => entry.metric === now.metric)
    const what = now.fleet.kind === 'usage' ? calledOf(metric ?? now) : { fr: item.plan.name, en: item.plan.name }
    const sum = (language: 'fr' | 'en'): string => {
      const money = (value: string): string => formatMoney(value, currency, language)
      return language === 'fr'
        ? `${money(is)} − ${money(was)} déjà facturés = ${money(amount)}`
        : `${money(is)} − ${money(was)} already billed = ${money(amount)}`
    }
    return [
      {
        item: item.item,
        product: item.product.key,
        plan: item.plan,
        type: 'regularisation',
        metric: now.fleet.kind === 'usage' ? now.metric : null,
        ...(now.fleet.kind === 'usage' && metric !== undefined ? namedOf(metric) : {}),
        unit: metric?.unit ?? null,
        label: { fr: `Régularisation ${month.fr} — ${what.fr}`, en: `Adjustment for ${month.en} — ${what.en}` },
        quantity: more,
        included: '0',
        billable: more,
        steps: [],
        exact: amount,
        amount,
        explanation: { fr: sum('fr'), en: sum('en') },
        taxRate: taxRateOf(part.terms, item.product),
        ...behaviorOf(now.fleet.kind === 'usage' ? (metric?.price ?? null) : item.fee),
        price: now.fleet.kind === 'usage' ? (metric?.price ?? null) : item.fee,
        proof: proofOf(now),
        period: item.period ?? part.period,
        since: old?.cut ?? {},
      },
    ]
  })
}
