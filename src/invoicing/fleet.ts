/**
 * A fleet is charged object by object, each with its own fee, its own part of the period and its own included quantities, and shown
 * in a few lines: the fees of whole periods, those of parts, and the usage of each metric. Pure; one object at a time goes through,
 * so that a fleet may have as many as it likes.
 *
 * A line's exact amount is the sum of its objects' exact amounts (a fee of a part is rounded for itself, as it is for one item), and
 * is rounded once: what the detail lists sums to what the line says. A price in another currency is summed in that and converted once.
 *
 * Where a version of a price takes effect within the period, the usage of each object is cut there: what came before costs the old
 * price, what came from then on the new one, continuing the object's own tiers, and each version has its line.
 */
import { assert } from '../assert.js'
import { calledOf, type Terms, type TermsMetric } from '../catalog/book.js'
import type { Price } from '../catalog/price.js'
import { printMoney, printPrice } from '../currency.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { formatMoney, formatNumber, type Words } from '../format.js'
import type { Period } from '../period.js'
import { lengthOf, prorate } from '../rating/prorate.js'
import { type Rating, rate, type Step } from '../rating/rating.js'
import {
  askOf,
  behaviorOf,
  type DraftLine,
  exactIn,
  type ItemUsage,
  limitOf,
  monthOf,
  namedOf,
  parityWords,
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
  /** Of a fee and of usage in a currency other than the customer's: what it comes to there, exact. */
  readonly inPrice?: string
  readonly exact: string
  readonly amount: string
  /** Of usage: objects without any, of no metric. */
  readonly mute?: number
  /** Of usage: what came under each version of the price that took effect within the period, in their order. */
  readonly later?: readonly FleetPart[]
}

/** Usage under a version of the price that took effect within the period; not in the figures of the charge beside it. */
export interface FleetPart {
  readonly quantity: string
  readonly included: string
  readonly billable: string
  readonly inPrice?: string
  readonly exact: string
  readonly amount: string
}

export interface FleetObject {
  readonly id: string
  readonly subject: string
  /** What it covers of the period. */
  readonly covers: Period
  readonly usage: ReadonlyMap<
    string,
    {
      readonly quantity: string
      readonly events: number
      readonly data: string | null
      /** Usage before each instant at which the price changes within the period, from the instant before on. */
      readonly parts?: readonly string[]
    }
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
  later: { quantity: Decimal; included: Decimal; billable: Decimal; exact: Decimal }[]
}

const CACHE_MAX = 20_000

interface Priced {
  readonly included: Decimal
  readonly billable: Decimal
  readonly unpriced: Decimal
  readonly exact: Decimal
  readonly steps: readonly Step[]
  readonly later: readonly { readonly included: Decimal; readonly billable: Decimal; readonly exact: Decimal }[]
}

export class FleetRating {
  readonly #terms: Terms
  readonly #item: Terms['items'][number]
  readonly #period: Period
  #mute = 0
  readonly #sums = new Map<string, Sum>()
  /** Many objects have the same figures. */
  readonly #priced = new Map<string, Priced>()
  readonly #parts = new Map<string, PartOf>()

  constructor(terms: Terms, item: Terms['items'][number], period: Period) {
    this.#terms = terms
    this.#item = item
    this.#period = period
  }

  add(object: FleetObject): ObjectCharge {
    const { from, to } = object.covers
    const whole = from === this.#period.from && to === this.#period.to
    const part = this.#partOf(object.covers)
    const fee = new Decimal(part.fee)
    if (this.#item.fee !== null) {
      const sum = this.#sumOf(whole ? 'fee' : 'part', '')
      sum.objects += 1
      sum.exact = sum.exact.plus(part.inPrice)
    }
    if (object.usage.size === 0) this.#mute += 1
    let amount = fee
    const usage = this.#item.metrics.map((metric) => {
      const { quantity = '0', events = 0, data = null, parts = [] } = object.usage.get(metric.metric) ?? {}
      const priced = this.#price(metric, { quantity, events, parts }, part.limits.get(metric.metric) ?? null)
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
      let [included, billable, exact] = [priced.included, priced.billable, this.#billed(priced.exact, metric.price)]
      let rest = new Decimal(quantity)
      for (const [i, { price }] of (metric.later ?? []).entries()) {
        rest = rest.minus(parts[i] ?? 0)
        const [own, to] = [priced.later[i]!, sum.later[i]!]
        const used = i + 1 === metric.later!.length ? rest : new Decimal(parts[i + 1] ?? 0)
        to.quantity = to.quantity.plus(used)
        to.included = to.included.plus(own.included)
        to.billable = to.billable.plus(own.billable)
        to.exact = to.exact.plus(own.exact)
        included = included.plus(own.included)
        billable = billable.plus(own.billable)
        exact = exact.plus(this.#billed(own.exact, price))
      }
      amount = amount.plus(exact)
      return {
        metric: metric.metric,
        quantity,
        data,
        events,
        included: printDecimal(included),
        billable: printDecimal(billable),
        amount: printDecimal(exact),
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
    // Fees first, then metrics in the order of the plan, whichever object came first.
    const keys = [['fee', ''], ['part', ''], ...this.#item.metrics.map(({ metric }) => ['usage', metric])] as [
      FleetCharge['kind'],
      string,
    ][]
    return keys.flatMap(([kind, metric]) => {
      const sum = this.#sums.get(JSON.stringify([kind, metric]))
      if (sum === undefined) return []
      const price = kind === 'part' ? null : kind === 'fee' ? this.#item.fee : this.#priceOf(metric)
      const later = sum.later.map((one, i): FleetPart => {
        const { price } = this.#item.metrics.find((entry) => entry.metric === metric)!.later![i]!
        const [quantity, included, billable] = [one.quantity, one.included, one.billable].map(printDecimal) as [
          string,
          string,
          string,
        ]
        return { quantity, included, billable, ...this.#amounts(one.exact, price) }
      })
      const steps = kind === 'fee' ? [feeStep(sum.objects, this.#item.fee!, sum.exact)] : [...sum.steps.values()]
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
          ...this.#amounts(sum.exact, price),
          ...(kind === 'usage' ? { mute: this.#mute } : {}),
          ...(later.length === 0 ? {} : { later }),
        },
      }
      return [charge]
    })
  }

  #priceOf(metric: string): Price | null {
    return this.#item.metrics.find((one) => one.metric === metric)?.price ?? null
  }

  /** An exact amount of a price in the customer's currency, not rounded. */
  #billed(exact: Decimal, price: Price | null): Decimal {
    return price === null ? exact : exactIn(this.#terms.customer.currency, price, exact)
  }

  #amounts(exact: Decimal, price: Price | null): Pick<FleetPart, 'inPrice' | 'exact' | 'amount'> {
    const { currency } = this.#terms.customer
    if (price === null || price.currency === currency)
      return { exact: printDecimal(exact), amount: printMoney(exact, currency) }
    const amount = printMoney(this.#billed(exact, price), currency)
    return { inPrice: printDecimal(exact), exact: amount, amount }
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
        later: (this.#item.metrics.find((one) => kind === 'usage' && one.metric === metric)?.later ?? []).map(() => ({
          quantity: zero,
          included: zero,
          billable: zero,
          exact: zero,
        })),
      }
      this.#sums.set(key, sum)
    }
    return sum
  }

  /** Fee and quotas of a part of the period: as many as there are first and last days. */
  #partOf(covers: Period): PartOf {
    const key = `${covers.from} ${covers.to}`
    let part = this.#parts.get(key)
    if (part === undefined) {
      const whole = covers.from === this.#period.from && covers.to === this.#period.to
      const { contract, customer } = this.#terms
      const full =
        this.#item.fee === null ? '0' : (rate({ price: this.#item.fee, quantity: '1' }).lines[0]?.amount ?? '0')
      const billed = this.#billed(new Decimal(full), this.#item.fee)
      const count = (range: Period): number => lengthOf(range, contract.timeZone, contract.prorate)
      const item = { ...this.#item, ...(whole ? {} : { period: covers }) }
      // A part is that of the fee as the customer is billed, as it is for one item.
      const own = whole
        ? full
        : prorate(printMoney(billed, customer.currency), count(covers), count(this.#period), customer.currency)
      part = {
        fee: whole ? printDecimal(billed) : own,
        inPrice: own,
        limits: new Map(
          item.metrics.map((metric) => [metric.metric, limitOf(item, metric, this.#terms, this.#period)] as const),
        ),
      }
      this.#parts.set(key, part)
    }
    return part
  }

  #price(
    metric: TermsMetric,
    {
      quantity,
      events,
      parts,
    }: { readonly quantity: string; readonly events: number; readonly parts: readonly string[] },
    limit: string | null,
  ): Priced {
    const later = metric.later ?? []
    const key = `${metric.metric} ${quantity} ${metric.price?.model === 'percentage' ? events : ''} ${later.length === 0 ? '' : parts} ${limit}`
    const known = this.#priced.get(key)
    if (known !== undefined) return known
    // What there was in all at each instant at which the price changes, and at the end.
    const sums: string[] = []
    let [counted, unpriced] = [new Decimal(0), new Decimal(0)]
    for (const [i] of later.entries()) {
      counted = counted.plus(parts[i] ?? 0)
      sums.push(atLeastZero(printDecimal(counted)))
    }
    sums.push(atLeastZero(quantity))
    const begun = figuresAt(metric, metric.price, sums[0]!, limit, events)
    unpriced = begun.unpriced
    const priced = {
      ...begun,
      later: later.map(({ price }, i) => {
        const [before, after] = [sums[i]!, sums[i + 1]!].map((sum) => figuresAt(metric, price, sum, limit, 0))
        unpriced = unpriced.plus(after!.unpriced.minus(before!.unpriced))
        return {
          included: after!.included.minus(before!.included),
          billable: after!.billable.minus(before!.billable),
          exact: after!.exact.minus(before!.exact),
        }
      }),
    }
    if (this.#priced.size >= CACHE_MAX) this.#priced.clear()
    this.#priced.set(key, { ...priced, unpriced })
    return { ...priced, unpriced }
  }
}

interface PartOf {
  /** As the customer is billed, exact. */
  readonly fee: string
  /** What is summed: of a whole period in the price's currency, of a part as it is billed. */
  readonly inPrice: string
  readonly limits: ReadonlyMap<string, string | null>
}

/** What a quantity of one object comes to by one price. */
function figuresAt(
  metric: TermsMetric,
  price: Price | null,
  quantity: string,
  limit: string | null,
  events: number,
): Omit<Priced, 'later'> {
  const none = { billable: new Decimal(0), exact: new Decimal(0), steps: [] }
  if (limit === null) return { ...none, included: new Decimal(quantity), unpriced: new Decimal(0) }
  const included = Decimal.min(quantity, limit)
  if (price === null) return { ...none, included, unpriced: Decimal.max(new Decimal(quantity).minus(limit), 0) }
  const { words: _, ...asked } = askOf(metric, price, limit)(quantity)
  const rating: Rating = rate({ ...asked, events: String(events) })
  const line = rating.lines[0]
  if (line === undefined) return { ...none, included, unpriced: new Decimal(rating.unpriced) }
  return {
    included: new Decimal(line.free),
    billable: new Decimal(line.billable),
    unpriced: new Decimal(rating.unpriced),
    exact: new Decimal(line.exact),
    steps: line.steps,
  }
}

const atLeastZero = (quantity: string): string => (parseDecimal(quantity, 'quantity').lt(0) ? '0' : quantity)

function feeStep(objects: number, fee: NonNullable<Terms['items'][number]['fee']>, exact: Decimal): Step {
  const each = rate({ price: fee, quantity: '1' }).lines[0]?.amount ?? '0'
  const money = (value: Decimal): string => printPrice(value, fee.currency)
  return {
    after: '0',
    upTo: null,
    quantity: String(objects),
    unitPrice: money(new Decimal(each)),
    flat: money(new Decimal(0)),
    amount: money(exact),
  }
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
    if (one.item !== item.item || fleet === undefined) return []
    const metric = item.metrics.find((entry) => entry.metric === one.metric)
    const price = fleet.kind === 'usage' ? (metric?.price ?? null) : item.fee
    const { later = [] } = fleet
    const begun = later.reduce((rest, part) => rest.minus(part.quantity), new Decimal(one.quantity))
    const what: Words =
      fleet.kind === 'usage'
        ? calledOf(metric ?? one)
        : fleet.kind === 'fee'
          ? { fr: 'abonnement des objets', en: 'subscription of the objects' }
          : { fr: 'abonnement des objets au prorata', en: 'subscription of the objects, by days' }
    const label = (language: 'fr' | 'en'): string => `${item.plan.name} — ${what[language]}, ${month[language]}`
    const base = {
      item: item.item,
      product: item.product.key,
      plan: item.plan,
      type: fleet.kind === 'usage' ? ('usage' as const) : ('fee' as const),
      metric: fleet.kind === 'usage' ? one.metric : null,
      ...(fleet.kind === 'usage' && metric !== undefined ? namedOf(metric) : {}),
      label: { fr: label('fr'), en: label('en') },
      taxRate,
      proof: fleet.kind === 'usage' ? proofOf(one) : null,
      period: item.period ?? period,
      since: null,
      objects: fleet.objects,
    }
    const quantity = printDecimal(begun)
    const say = (language: 'fr' | 'en'): string =>
      wordsOf({ ...one, quantity }, what[language], price, currency, language)
    const first: DraftLine = {
      ...base,
      unit: fleet.kind === 'usage' ? (price?.unit ?? metric?.unit ?? null) : null,
      quantity,
      included: fleet.included,
      billable: fleet.billable,
      steps: fleet.kind === 'part' ? [] : fleet.steps,
      exact: fleet.exact,
      amount: fleet.amount,
      explanation: { fr: say('fr'), en: say('en') },
      ...behaviorOf(price),
      price,
    }
    const none = fleet.steps.length === 0 && new Decimal(fleet.amount).isZero()
    return [
      ...(none ? [] : [first]),
      ...later.flatMap((part, i): DraftLine[] => {
        const { price } = metric!.later![i]!
        if (new Decimal(part.amount).isZero()) return []
        const { quantity, included, billable, exact, amount } = part
        const words = (language: 'fr' | 'en'): string => partWords(what[language], part, price, currency, language)
        return [
          {
            ...base,
            unit: price.unit ?? metric!.unit,
            ...{ quantity, included, billable, steps: [], exact, amount },
            explanation: { fr: words('fr'), en: words('en') },
            ...behaviorOf(price),
            price,
          },
        ]
      }),
    ]
  })
}

function wordsOf(
  { fleet, quantity }: ItemUsage,
  metric: string,
  price: Price | null,
  currency: string,
  language: 'fr' | 'en',
): string {
  assert(fleet !== undefined, 'a fleet entry has its charge')
  const n = (value: string): string => formatNumber(value, language)
  const [count, sum] = [n(String(fleet.objects)), sumWords(fleet, price, currency, language)]
  const french = language === 'fr'
  if (fleet.kind === 'fee') {
    const each = formatMoney(fleet.steps[0]?.unitPrice ?? '0', price?.currency ?? currency, language)
    return french ? `${count} objet(s) × ${each} = ${sum}` : `${count} object(s) × ${each} = ${sum}`
  }
  if (fleet.kind === 'part')
    return french
      ? `${count} objet(s) sur une partie de la période = ${sum}`
      : `${count} object(s) for a part of the period = ${sum}`
  const free = includedWords(fleet.included, language)
  return french
    ? `${count} objet(s), ${n(quantity)} ${metric}${free} : ${n(fleet.billable)} facturés = ${sum}`
    : `${count} object(s), ${n(quantity)} ${metric}${free}: ${n(fleet.billable)} billed = ${sum}`
}

/** What a charge comes to, with the parity when its price is in another currency. */
function sumWords(
  { inPrice, amount }: Pick<FleetPart, 'inPrice' | 'amount'>,
  price: Price | null,
  currency: string,
  language: 'fr' | 'en',
): string {
  const billed = formatMoney(amount, currency, language)
  if (inPrice === undefined || price === null) return billed
  const exact = formatMoney(printMoney(new Decimal(inPrice), price.currency), price.currency, language)
  return `${exact} ; ${parityWords(price.currency, currency, language)} : ${billed}`
}

function includedWords(included: string, language: 'fr' | 'en'): string {
  if (new Decimal(included).isZero()) return ''
  const units = formatNumber(included, language)
  return language === 'fr' ? `, dont ${units} inclus` : `, ${units} included`
}

function partWords(metric: string, part: FleetPart, price: Price, currency: string, language: 'fr' | 'en'): string {
  const [quantity, billable] = [part.quantity, part.billable].map((value) => formatNumber(value, language))
  const free = includedWords(part.included, language)
  const sum = sumWords(part, price, currency, language)
  return language === 'fr'
    ? `${quantity} ${metric} de plus au prix v${price.version}${free} : ${billable} facturés = ${sum}`
    : `${quantity} ${metric} more at price v${price.version}${free}: ${billable} billed = ${sum}`
}

/** Of a charge with all versions of its price. */
function totalOf(fleet: FleetCharge | undefined): string {
  const parts = fleet?.later ?? []
  return printDecimal(parts.reduce((all, part) => all.plus(part.amount), new Decimal(fleet?.amount ?? 0)))
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
    const [is, was] = [totalOf(now.fleet), totalOf(old?.fleet)].map((total) =>
      printMoney(new Decimal(total), currency),
    ) as [string, string]
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
