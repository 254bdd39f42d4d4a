/**
 * The price book in memory: all objects of the catalogue at one version, immutable, with the questions that are asked of it. Pure:
 * store.ts reads it from PostgreSQL and makes the next one after each change.
 */

import { Decimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { Words } from '../format.js'
import { Cycle, type Period } from '../period.js'
import type { Entitlement } from '../quota/entitlement.js'
import type { Contract, ContractItem } from './contract.js'
import type { Customer, LegalEntity, Plan, Product } from './definition.js'
import type { CatalogSnapshot, Metric } from './metric.js'
import { nextPeriodOf, partOf, pausesIn } from './part.js'
import { type Price, parsePrice } from './price.js'
import { midnightOf, schedule } from './schedule.js'

export type PriceStatus = 'draft' | 'active' | 'archived'

/** A version of a rule, as it is kept. */
export interface PriceVersion {
  readonly rule: string
  /** Such as 3.1. */
  readonly version: string
  readonly status: PriceStatus
  /** In force for periods that begin at or after it, epoch ms, until a later version is. */
  readonly effectiveFrom: number
  /** Whether it holds within the period that `effectiveFrom` lies in, for usage from then on; absent: from the next period on. */
  readonly takesEffect?: 'event_time'
  /** Epoch ms: takes no period that begins, and no usage that happens, from then on. */
  readonly archivedAt?: number
  /** The rule's JSON as a person wrote it. */
  readonly definition: unknown
  /** Whether an issued invoice used it: then it is never changed. */
  readonly billed: boolean
}

/** Everything that a period's invoice is a function of, besides the usage: copied, so that later changes do not reach it. */
export interface Terms {
  readonly catalogVersion: number
  readonly contract: Contract
  readonly customer: Customer
  readonly legalEntity: LegalEntity
  readonly items: readonly {
    readonly item: string
    readonly product: Product
    readonly plan: { readonly key: string; readonly version: number; readonly name: string }
    readonly feeRule: string | null
    readonly fee: Price | null
    readonly metrics: readonly TermsMetric[]
    /** The part of the period that the item covers; absent: all of it. */
    readonly period?: Period
    /** What the fee is due for; absent: the part of the period. */
    readonly fees?: readonly FeePart[]
    readonly prorateIncluded?: boolean
    readonly addOns?: readonly TermsAddOn[]
  }[]
  /** Fees of the next period, when they are due in advance. */
  readonly ahead?: Ahead
  /** Of the same contract: what the invoice of the period before has billed of this one. */
  readonly billedAhead?: Ahead
}

export interface Ahead {
  readonly period: Period
  readonly items: readonly Pick<Terms['items'][number], 'item' | 'product' | 'plan' | 'fee' | 'fees'>[]
}

/** A period of the fee's own cycle, the part of it that the item covers, and the suspensions in that part. */
export interface FeePart {
  readonly period: Period
  readonly part: Period
  readonly paused?: readonly Period[]
}

export interface TermsAddOn {
  readonly name: string
  readonly rule: string
  readonly quantity: string
  readonly once: boolean
  readonly period: Period
  /** Suspensions within it, for which it is not due. */
  readonly paused?: readonly Period[]
  readonly price: Price | null
}

export interface TermsMetric {
  readonly metric: string
  readonly name?: Words
  readonly unit: string
  readonly rounding?: Metric['rounding']
  /** Quantity that is included; null is unlimited. */
  readonly limit: string | null
  readonly rule: string | null
  /** The version in force when the period began; null when no rule or no active version prices it. */
  readonly price: Price | null
  /** Versions that take effect within the period, for usage from their instant on, in their order. */
  readonly later?: readonly { readonly from: number; readonly price: Price }[]
}

/** What documents call a metric. */
export function calledOf({ metric, name }: Pick<TermsMetric, 'metric' | 'name'>): Words {
  return name ?? { fr: metric, en: metric }
}

export interface BookParts {
  readonly version: number
  readonly metrics: readonly Metric[]
  readonly products: readonly Product[]
  readonly plans: readonly Plan[]
  readonly prices: readonly PriceVersion[]
  readonly legalEntities: readonly LegalEntity[]
  readonly customers: readonly Customer[]
  readonly contracts: readonly Contract[]
}

/** The entitlements of a contract, computed once per object: a book of many contracts is rebuilt at each change. */
const entitlementsOf = new WeakMap<Contract, readonly Entitlement[]>()

export class Book {
  readonly version: number
  readonly metrics: ReadonlyMap<string, readonly Metric[]>
  readonly products: ReadonlyMap<string, Product>
  readonly plans: ReadonlyMap<string, readonly Plan[]>
  readonly prices: ReadonlyMap<string, readonly PriceVersion[]>
  readonly legalEntities: ReadonlyMap<string, LegalEntity>
  readonly customers: ReadonlyMap<string, Customer>
  readonly contracts: ReadonlyMap<string, Contract>
  readonly snapshot: CatalogSnapshot
  readonly entitlements: readonly Entitlement[]

  readonly #parts: BookParts
  #contractsByItem: ReadonlyMap<string, string> | undefined
  #byTenant: ReadonlyMap<string, readonly Contract[]> | undefined
  #pricedByEvent: ReadonlyMap<string, { readonly events: number; readonly sum: string }> | undefined

  constructor(parts: BookParts) {
    this.#parts = parts
    this.version = parts.version
    this.metrics = versions(
      parts.metrics,
      (metric) => metric.key,
      (metric) => metric.version,
    )
    this.products = new Map(parts.products.map((product) => [product.key, product]))
    this.plans = versions(
      parts.plans,
      (plan) => plan.key,
      (plan) => plan.version,
    )
    this.prices = versions(
      parts.prices,
      (price) => price.rule,
      (price) => versionOrder(price.version),
    )
    this.legalEntities = new Map(parts.legalEntities.map((entity) => [entity.key, entity]))
    this.customers = new Map(parts.customers.map((customer) => [customer.tenant, customer]))
    this.contracts = new Map(parts.contracts.map((contract) => [contract.id, contract]))
    this.snapshot = Object.freeze({
      version: parts.version,
      metrics: [...this.metrics.values()].map((all) => all.at(-1)!),
      tenants: [...this.customers.keys()],
    })
    this.entitlements = parts.contracts
      .filter((contract) => contract.state === 'active' || contract.state === 'trial')
      .flatMap((contract) => this.#entitlementsOf(contract))
  }

  /** The next book: objects put in the place of those with their key (and version), or added at the end. */
  with(version: number, changes: { readonly [K in keyof Omit<BookParts, 'version'>]?: BookParts[K] }): Book {
    const parts = this.#parts
    return new Book({
      version,
      metrics: merge(parts.metrics, changes.metrics, (one) => `${one.key} ${one.version}`),
      products: merge(parts.products, changes.products, (one) => one.key),
      plans: merge(parts.plans, changes.plans, (one) => `${one.key} ${one.version}`),
      prices: merge(parts.prices, changes.prices, (one) => `${one.rule} ${one.version}`),
      legalEntities: merge(parts.legalEntities, changes.legalEntities, (one) => one.key),
      customers: merge(parts.customers, changes.customers, (one) => one.tenant),
      contracts: merge(parts.contracts, changes.contracts, (one) => one.id),
    })
  }

  /** Objects of the kind that has most of them. */
  get largest(): number {
    const { version: _, ...lists } = this.#parts
    return Math.max(...Object.values(lists).map((list) => list.length))
  }

  #entitlementsOf(contract: Contract): readonly Entitlement[] {
    const known = entitlementsOf.get(contract)
    if (known !== undefined) return known
    const anchor = midnightOf(contract.start, contract.timeZone)
    const entitlements = contract.items.flatMap((item) => {
      const { product } = this.planOf(item.plan, item.planVersion)
      return item.entitlements.map(({ metric, limit, limitVersion, thresholds }) => ({
        item: item.id,
        contract: contract.id,
        tenant: contract.tenant,
        product,
        metric,
        // Each object of a fleet has its own quota; the fleet has none.
        limit: item.fleet === undefined ? limit : null,
        limitVersion,
        thresholds: item.fleet === undefined ? thresholds : [],
        anchor,
        timeZone: contract.timeZone,
        ...(contract.cycle === 'monthly' ? {} : { cycle: contract.cycle }),
      }))
    })
    entitlementsOf.set(contract, entitlements)
    return entitlements
  }

  metricOf(key: string): Metric {
    return this.metrics.get(key)?.at(-1) ?? missing('metric', key)
  }

  planOf(key: string, version?: number): Plan {
    const all = this.plans.get(key) ?? []
    return (version === undefined ? all.at(-1) : all.find((plan) => plan.version === version)) ?? missing('plan', key)
  }

  contractsOf(tenant: string): readonly Contract[] {
    this.#byTenant ??= groupsOf(this.#parts.contracts, (contract) => contract.tenant)
    return this.#byTenant.get(tenant) ?? []
  }

  /** The contract that has an item of this id. */
  contractOfItem(item: string): string | undefined {
    this.#contractsByItem ??= new Map(
      this.#parts.contracts.flatMap(({ id, items }) => items.map((one): [string, string] => [one.id, id])),
    )
    return this.#contractsByItem.get(item)
  }

  contractOf(id: string): Contract {
    return this.contracts.get(id) ?? missing('contract', id)
  }

  /** The version of a rule that a period beginning at `at` is billed with: never a draft. Null when there is none yet. */
  priceInForce(rule: string, at: number): PriceVersion | null {
    const candidates = (this.prices.get(rule) ?? []).filter(
      (price) => price.status !== 'draft' && price.effectiveFrom <= at && at < (price.archivedAt ?? Infinity),
    )
    return candidates.reduce<PriceVersion | null>(
      (best, price) => (best === null || price.effectiveFrom >= best.effectiveFrom ? price : best),
      null,
    )
  }

  /**
   * How many of a metric's first events must be known one by one, because some version of a price has bounds per event and gives the
   * first ones free; null when no price asks for the amounts.
   */
  pricedByEvent(metric: string): { readonly events: number; readonly sum: string } | null {
    this.#pricedByEvent ??= headsByMetric([...this.prices.values()].flat().map(normalForm))
    return this.#pricedByEvent.get(metric) ?? null
  }

  /** Whether some version of a price of a metric takes effect within a period. */
  pricedByEventTime(metric: string): boolean {
    return [...this.prices.values()].flat().some((version) => {
      if (version.takesEffect !== 'event_time') return false
      const price = normalForm(version)
      return 'metric' in price && price.metric === metric
    })
  }

  /** Versions that hold from an instant within the range on. Of one instant the last one counts. */
  versionsWithin(rule: string, range: Period): { from: number; price: Price }[] {
    const within = (this.prices.get(rule) ?? []).filter(
      ({ status, takesEffect, effectiveFrom: at, archivedAt = Infinity }) =>
        status !== 'draft' && takesEffect === 'event_time' && at > range.from && at < range.to && at < archivedAt,
    )
    const byTime = new Map(within.map((version) => [version.effectiveFrom, version]))
    return [...byTime.values()]
      .sort((a, b) => a.effectiveFrom - b.effectiveFrom)
      .map((version) => ({ from: version.effectiveFrom, price: normalForm(version) }))
  }

  /** One version of a rule in normal form, whatever its status; null when there is none. */
  priceAt(rule: string, version: string): Price | null {
    const found = this.prices.get(rule)?.find((price) => price.version === version)
    return found === undefined ? null : normalForm(found)
  }

  /** The fee parts of an item that are due in a period, in arrears; none of a contract that pays in advance, which is settled period by period. */
  feesDue(contract: Contract, item: ContractItem, period: Period): FeePart[] {
    const { feeRule } = this.planOf(item.plan, item.planVersion)
    if (contract.fees !== undefined || feeRule === null || item.kind === 'usage' || item.kind === 'once') return []
    const found = this.priceInForce(feeRule, period.from)
    return found === null ? [] : feeParts(contract, item, normalForm(found), period)
  }

  /** What a contract's period is billed by. Throws ReleveError `not_found`. */
  terms(contractId: string, period: Period): Terms {
    const contract = this.contractOf(contractId)
    const priceAt = (rule: string | null, at: number): Price | null => {
      const found = rule === null ? null : this.priceInForce(rule, at)
      return found === null ? null : normalForm(found)
    }
    const price = (rule: string | null): Price | null => priceAt(rule, period.from)
    const inAdvance = contract.fees === 'in_advance'
    const next = inAdvance ? nextPeriodOf(contract, period) : period
    const ahead = contract.items.flatMap((item): Ahead['items'][number][] => {
      if (!inAdvance || item.kind === 'usage' || item.kind === 'once' || item.kind === 'usage_triggered') return []
      const plan = this.planOf(item.plan, item.planVersion)
      const fee = priceAt(plan.feeRule, next.from)
      const fees = feeParts(contract, item, fee, next)
      if (fee === null || fees.length === 0) return []
      const product = this.products.get(plan.product) ?? missing('product', plan.product)
      return [{ item: item.id, product, plan: { key: plan.key, version: plan.version, name: plan.name }, fee, fees }]
    })
    return {
      ...(inAdvance ? { ahead: { period: next, items: ahead } } : {}),
      catalogVersion: this.version,
      contract,
      customer: this.customers.get(contract.tenant) ?? missing('customer', contract.tenant),
      legalEntity: this.legalEntities.get(contract.legalEntity) ?? missing('legal entity', contract.legalEntity),
      items: contract.items.flatMap((item) => {
        const part = partOf(contract, item, period)
        if (part === null) return []
        const addOns = (item.addOns ?? []).flatMap((addOn): TermsAddOn[] => {
          const { name, rule, quantity, once } = addOn
          // What is billed once has its day; the rest goes with the item.
          const days = once ? { from: addOn.from!, until: addOn.from! } : addOn
          const own = partOf(contract, days, once ? period : part)
          if (own === null) return []
          const paused = once ? [] : pausedIn(contract, own)
          const off = paused.length === 0 ? {} : { paused }
          return [{ name, rule, quantity, once, period: own, ...off, price: price(rule) }]
        })
        const plan = this.planOf(item.plan, item.planVersion)
        const { kind } = item
        const feeRule = kind === 'usage' || kind === 'once' ? null : plan.feeRule
        const fee = price(feeRule)
        const fees = isPlainFee(contract, fee) ? null : feeParts(contract, item, fee, period)
        if (kind === 'once' && plan.feeRule !== null) {
          const from = item.from ?? contract.billedFrom ?? contract.start
          const day = partOf(contract, { from, until: from }, period)
          const once = { name: plan.name, rule: plan.feeRule, quantity: '1', once: true, price: price(plan.feeRule) }
          if (day !== null) addOns.push({ ...once, period: day })
        }
        const own = {
          item: item.id,
          product: this.products.get(plan.product) ?? missing('product', plan.product),
          plan: { key: plan.key, version: plan.version, name: plan.name },
          feeRule,
          fee,
          metrics: (kind === 'fixed' || kind === 'once' ? [] : item.entitlements).map((entitlement) => {
            const rule = plan.metrics.find((entry) => entry.metric === entitlement.metric)?.rule ?? null
            const { name, unit, rounding } = this.metricOf(entitlement.metric)
            const later = rule === null ? [] : this.versionsWithin(rule, part)
            return {
              metric: entitlement.metric,
              ...(name === undefined ? {} : { name }),
              unit,
              ...(rounding === undefined ? {} : { rounding }),
              limit: entitlement.limit,
              rule,
              price: price(rule),
              ...(later.length === 0 ? {} : { later }),
            }
          }),
        }
        return [
          {
            ...own,
            ...(part.from === period.from && part.to === period.to ? {} : { period: part }),
            ...(fees === null ? {} : { fees }),
            ...(plan.prorateIncluded === true ? { prorateIncluded: true } : {}),
            ...(addOns.length === 0 ? {} : { addOns }),
          },
        ]
      }),
    }
  }
}

/** The fee of the period, as most are: of the period's own cycle, due after it, with nothing suspended. */
function isPlainFee(contract: Contract, fee: Price | null): boolean {
  return contract.fees === undefined && contract.pauses === undefined && feeCycle(contract, fee) === contract.cycle
}

function feeCycle(contract: Contract, fee: Price | null): Cycle {
  return Cycle.find((one) => fee?.model === 'flat' && one === fee.billingCycle) ?? contract.cycle
}

/**
 * What a fee is due for within a period: in arrears the parts of its own cycle that end in it, in advance those that begin in it. A
 * yearly fee is due once a year on a monthly contract, a monthly one three times on a quarterly one.
 */
function feeParts(contract: Contract, item: ContractItem, fee: Price | null, window: Period): FeePart[] {
  const parts: FeePart[] = []
  for (const period of schedule({ ...contract, cycle: feeCycle(contract, fee) }, window)) {
    const part = partOf(contract, item, period)
    if (part === null) continue
    const isDue =
      contract.fees === 'in_advance'
        ? part.from >= window.from && part.from < window.to
        : part.to > window.from && part.to <= window.to
    if (!isDue) continue
    const paused = pausedIn(contract, part)
    parts.push({ period, part, ...(paused.length === 0 ? {} : { paused }) })
  }
  return parts
}

/** The suspensions within a range for which no fee is due. */
function pausedIn(contract: Contract, range: Period): Period[] {
  return contract.suspension === 'bills_fees' ? [] : pausesIn(contract, range)
}

function headsByMetric(prices: readonly Price[]): Map<string, { events: number; sum: string }> {
  const heads = new Map<string, { events: number; sum: string }>()
  for (const price of prices) {
    if (price.model !== 'percentage') continue
    if (price.minimumPerEvent === undefined && price.maximumPerEvent === undefined) continue
    const known = heads.get(price.metric) ?? { events: 0, sum: '0' }
    heads.set(price.metric, {
      events: Math.max(known.events, Math.ceil(Number(price.freeEvents))),
      sum: Decimal.max(known.sum, price.freeAmount).toFixed(),
    })
  }
  return heads
}

/** Parsed once per version: the terms of many contracts share one object. */
const normalForms = new WeakMap<PriceVersion, Price>()

function normalForm(version: PriceVersion): Price {
  let price = normalForms.get(version)
  if (price === undefined) {
    price = parsePrice(version.definition, version.version)
    normalForms.set(version, price)
  }
  return price
}

function missing(what: string, key: string): never {
  throw new ReleveError('not_found', `${what}: there is no ${key}`)
}

function merge<T>(all: readonly T[], changes: readonly T[] | undefined, key: (one: T) => string): readonly T[] {
  if (changes === undefined) return all
  const fresh = new Map(changes.map((one) => [key(one), one]))
  const merged = all.map((one) => {
    const changed = fresh.get(key(one))
    fresh.delete(key(one))
    return changed ?? one
  })
  return [...merged, ...fresh.values()]
}

/** Grouped by key, versions rising. */
function versions<T>(all: readonly T[], key: (one: T) => string, order: (one: T) => number): Map<string, T[]> {
  const groups = groupsOf(all, key)
  for (const group of groups.values()) group.sort((a, b) => order(a) - order(b))
  return groups
}

function groupsOf<T>(all: readonly T[], key: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const one of all) {
    const group = groups.get(key(one))
    if (group === undefined) groups.set(key(one), [one])
    else group.push(one)
  }
  return groups
}

const VERSION = /^([0-9]{1,6})\.([0-9]{1,6})$/

/** 3.10 comes after 3.9. Throws ReleveError `invalid_request` when it is not of the form X.Y. */
export function versionOrder(version: string): number {
  const match = VERSION.exec(version)
  if (match === null) throw new ReleveError('invalid_request', `version: X.Y such as 3.1 is expected, got ${version}`)
  return Number(match[1]) * 1_000_000 + Number(match[2])
}

/** The version that an edit of `version` makes, always a draft: 3.1 gives 3.2. */
export function nextVersion(version: string): { readonly version: string; readonly status: PriceStatus } {
  versionOrder(version)
  const [major, minor] = version.split('.')
  return { version: `${major}.${Number(minor) + 1}`, status: 'draft' }
}
