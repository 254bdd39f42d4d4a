/**
 * The catalogue: front of the room and its PostgreSQL store. Read by all rooms, imports none of the road.
 *
 * Reads are from memory (book.ts) and never wait. A change is one transaction: lock the head row, compare with what is kept (the
 * same content again is no change and no new version), write the object, write the change to catalog_versions, grow the head.
 * Then memory is renewed and listeners are told. Another node's change is taken in by refresh(), and by every own change.
 *
 * Does not bill, and does not migrate: sql/postgres/002_catalog.sql must have been applied.
 */
import type { Pool, PoolClient } from 'pg'
import { assert } from '../assert.js'
import { canonical } from '../canonical.js'
import type { Clock } from '../clock.js'
import { exponentOf } from '../currency.js'
import { Decimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { dateIn } from '../format.js'
import { limits } from '../limits.js'
import { Cycle, MINUTE_MS, type Period } from '../period.js'
import type { Entitlement } from '../quota/entitlement.js'
import {
  Book,
  type BookParts,
  nextVersion,
  type PriceStatus,
  type PriceVersion,
  type Terms,
  versionOrder,
} from './book.js'
import { assertContractsByEvent, assertMetricByEvent, isByEvent } from './by-event.js'
import { assertMetricByEventTime } from './by-event-time.js'
import {
  type Contract,
  DEFAULT_THRESHOLDS,
  type ItemEntitlement,
  parseContract,
  withLife,
  withoutDerived,
} from './contract.js'
import {
  type Customer,
  type LegalEntity,
  type Plan,
  type Product,
  parseCustomer,
  parseLegalEntity,
  parseMetric,
  parsePlan,
  parseProduct,
} from './definition.js'
import { assertFleetCurrency } from './fleet-currency.js'
import { alteredInvoiced } from './invoiced.js'
import { type Finding, lint, lintMetric, lintPrice } from './lint.js'
import type { CatalogSnapshot, Metric } from './metric.js'
import { endTrial, extendTrial, giveNotice, type Move, type Moved, moveContract } from './moves.js'
import { type Price, parsePrice } from './price.js'
import { midnightOf } from './schedule.js'
import type { SubscriptionState } from './subscription.js'
import { convertUnit } from './unit.js'

export type { PriceStatus, PriceVersion, Terms } from './book.js'
export type { Contract, ContractInput } from './contract.js'
export type { Customer, LegalEntity, MetricInput, Plan, PlanInput, Product } from './definition.js'

/** What a change did: the catalogue's version after it, and whether there was anything to change. */
export interface Changed<T> {
  readonly value: T
  readonly changed: boolean
  readonly catalogVersion: number
}

export interface PriceInput {
  readonly rule: unknown
  /** Such as 3.1; absent: the next minor version of the rule, or 1.0. */
  readonly version?: string
  /** draft (default) or active. */
  readonly status?: PriceStatus
  /** Epoch ms; absent: now, so that the next period is the first with it. */
  readonly effectiveFrom?: number
  /** next_period (default), or event_time: then also usage of the running period, from `effectiveFrom` on. */
  readonly takesEffect?: 'next_period' | 'event_time'
}

/** Who does something with a contract and why, and from which day of its zone it counts. */
export interface By {
  readonly reason: string
  readonly actor: string
  readonly on?: string
}

export interface KeptMove extends Move {
  readonly reason: string
  readonly actor: string
  readonly at: number
}

/** The end of the last period of a contract that is invoiced, epoch ms; null when none is. Asked in the transaction of a change. */
export type InvoicedUntil = (client: Pick<PoolClient, 'query'>, contract: string) => Promise<number | null>

/**
 * Opens the catalogue of a database that has the tables. Nothing to close: the pool is the caller's. Without `invoicedUntil` nothing
 * counts as invoiced.
 */
export async function openCatalog(options: {
  postgres: Pool
  clock: Clock
  invoicedUntil?: InvoicedUntil
}): Promise<Catalog> {
  const catalog = new Catalog(options.postgres, options.clock, options.invoicedUntil)
  await catalog.refresh()
  return catalog
}

interface Write<T> {
  readonly value: T
  /** Where the value belongs in the book. */
  readonly part: keyof Omit<BookParts, 'version'>
  readonly before: unknown
  readonly after: unknown
  readonly sql: string
  readonly values: readonly unknown[]
}

export class Catalog {
  readonly #postgres: Pool
  readonly #clock: Clock
  readonly #invoicedUntil: InvoicedUntil
  #book: Book = new Book({
    version: -1,
    metrics: [],
    products: [],
    plans: [],
    prices: [],
    legalEntities: [],
    customers: [],
    contracts: [],
  })
  readonly #listeners = new Set<(snapshot: CatalogSnapshot) => void>()

  /** Use openCatalog: this one has nothing in it yet. */
  constructor(postgres: Pool, clock: Clock, invoicedUntil: InvoicedUntil = async () => null) {
    this.#postgres = postgres
    this.#clock = clock
    this.#invoicedUntil = invoicedUntil
  }

  /** The metric of a key, or `not_found`. */
  metric(key: string): Metric {
    return this.#book.metricOf(key)
  }

  /** What the usage side needs, immutable; the same object until the next change. */
  snapshot(): CatalogSnapshot {
    return this.#book.snapshot
  }

  entitlements(): readonly Entitlement[] {
    return this.#book.entitlements
  }

  /** Everything at its present version, for reading. */
  book(): Book {
    return this.#book
  }

  terms(contract: string, period: Period): Terms {
    return this.#book.terms(contract, period)
  }

  lint(): Finding[] {
    return lint(this.#book)
  }

  /** What is probably not meant in one price; a rule that cannot be read is refused with its reason. */
  lintPrice(rule: unknown): Finding[] {
    const price = parsePrice(rule)
    const unit = 'metric' in price ? this.#book.metrics.get(price.metric)?.at(-1)?.unit : undefined
    return [...lintPrice(price, unit), ...lintMetric(this.#book, price)]
  }

  /** Calls back after each change that this process made or took in. Returns the way to stop. */
  onChange(listener: (snapshot: CatalogSnapshot) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Takes in what other nodes changed; true if there was anything. */
  async refresh(): Promise<boolean> {
    const head = await this.#postgres.query<{ version: string }>('SELECT version FROM catalog_head')
    if (Number(head.rows[0]?.version ?? 0) === this.#book.version) return false
    const client = await this.#postgres.connect()
    try {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
      const book = await readBook(client)
      await client.query('COMMIT')
      this.#take(book)
    } finally {
      client.release()
    }
    return true
  }

  /**
   * A metric; a changed scale, rounding or anything else makes a new version of it. Unit and aggregation are locked: what was counted
   * in Mo would be added to what is counted in Go. JSON as MetricInput.
   */
  async putMetric(json: unknown): Promise<Changed<Metric>> {
    const input = parseMetric(json)
    return this.#change('metric', input.key, (book) => {
      const last = book.metrics.get(input.key)?.at(-1)
      assertLatest(json, last?.version ?? 0, `metric ${input.key}`)
      if (last !== undefined && same({ ...input, version: last.version }, last)) return last
      for (const locked of ['unit', 'aggregation', 'uniqueBy', 'percentile'] as const) {
        if (last !== undefined && last[locked] !== input[locked]) {
          const detail = `${locked}: ${input.key} counts in ${last[locked]} and stays so; make a metric with another key`
          throw new ReleveError('conflict', detail)
        }
      }
      const value = { ...input, version: (last?.version ?? 0) + 1 }
      if (book.pricedByEvent(value.key) !== null) assertMetricByEvent(value)
      if (book.pricedByEventTime(value.key)) assertMetricByEventTime(value)
      return {
        value,
        part: 'metrics',
        before: last ?? null,
        after: value,
        sql: 'INSERT INTO catalog_metrics (key, version, definition, changed_in) VALUES ($2, $3, $4, $1)',
        values: [value.key, value.version, value],
      }
    })
  }

  async putProduct(json: unknown): Promise<Changed<Product>> {
    const value = parseProduct(json)
    return this.#upsert('products', value.key, value, (book) => book.products.get(value.key))
  }

  async putLegalEntity(json: unknown): Promise<Changed<LegalEntity>> {
    const value = parseLegalEntity(json)
    return this.#upsert('legalEntities', value.key, value, (book) => book.legalEntities.get(value.key))
  }

  async putCustomer(json: unknown): Promise<Changed<Customer>> {
    const value = parseCustomer(json)
    return this.#upsert('customers', value.tenant, value, (book) => {
      assertOwnFleets(book, value)
      return book.customers.get(value.tenant)
    })
  }

  /**
   * Many customers as one transaction, for imports: all or none. Each that is new or different grows the version by one; listeners
   * are told once.
   */
  async putCustomers(json: readonly unknown[]): Promise<{ readonly changed: number; readonly catalogVersion: number }> {
    if (json.length > limits.customersBatchMax) {
      throw new ReleveError('invalid_request', `customers: at most ${limits.customersBatchMax} at once`)
    }
    const wanted = new Map(json.map((one) => parseCustomer(one)).map((customer) => [customer.tenant, customer]))
    return this.#locked(async (client, book) => {
      const fresh = [...wanted.values()].filter(
        (customer) => !same(book.customers.get(customer.tenant) ?? null, customer),
      )
      if (fresh.length === 0) return { result: { changed: 0, catalogVersion: book.version }, after: book }
      for (const customer of fresh) assertOwnFleets(book, customer)
      const changes = fresh.map((after) => ({ before: book.customers.get(after.tenant) ?? null, after }))
      await client.query(
        `INSERT INTO catalog_versions (version, at, kind, key, change)
         SELECT $1 + n, $2, 'customer', change -> 'after' ->> 'tenant', change
         FROM jsonb_array_elements($3::jsonb) WITH ORDINALITY AS all_changes (change, n)`,
        [book.version, this.#clock.now(), JSON.stringify(changes)],
      )
      await client.query(
        `INSERT INTO catalog_customers (tenant, definition, changed_in)
         SELECT definition ->> 'tenant', definition, $1 + n
         FROM jsonb_array_elements($2::jsonb) WITH ORDINALITY AS all_customers (definition, n)
         ON CONFLICT (tenant) DO UPDATE SET definition = excluded.definition, changed_in = excluded.changed_in`,
        [book.version, JSON.stringify(fresh)],
      )
      const catalogVersion = book.version + fresh.length
      await client.query('UPDATE catalog_head SET version = $1', [catalogVersion])
      return {
        result: { changed: fresh.length, catalogVersion },
        after: book.with(catalogVersion, { customers: fresh }),
      }
    })
  }

  /** A plan; changed contents make a new version, and contracts keep theirs. JSON as PlanInput. */
  async putPlan(json: unknown): Promise<Changed<Plan>> {
    const input = parsePlan(json)
    return this.#change('plan', input.key, (book) => {
      if (!book.products.has(input.product)) unprocessable(`product: there is no ${input.product}`)
      for (const { metric, rule } of input.metrics) {
        if (!book.metrics.has(metric)) unprocessable(`metrics: there is no metric ${metric}`)
        if (rule !== null && !book.prices.has(rule)) unprocessable(`metrics: there is no rule ${rule}`)
      }
      if (input.feeRule !== null && !book.prices.has(input.feeRule))
        unprocessable(`feeRule: there is no rule ${input.feeRule}`)
      const last = book.plans.get(input.key)?.at(-1)
      assertLatest(json, last?.version ?? 0, `plan ${input.key}`)
      if (last !== undefined && same({ ...input, version: last.version }, last)) return last
      const value = { ...input, version: (last?.version ?? 0) + 1 }
      return {
        value,
        part: 'plans',
        before: last ?? null,
        after: value,
        sql: 'INSERT INTO catalog_plans (key, version, definition, changed_in) VALUES ($2, $3, $4, $1)',
        values: [value.key, value.version, value],
      }
    })
  }

  /**
   * A version of a price rule. The same content under the same version is no change; other content replaces a draft and is
   * refused (`conflict`) for any other state. Without a version, content that the last version already has is no change either.
   */
  async putPrice(input: PriceInput): Promise<Changed<PriceVersion>> {
    assertPriceInput(input)
    const rule = parsePrice(input.rule).rule
    return this.#change('price', rule, (book) => {
      const all = book.prices.get(rule) ?? []
      const last = all.at(-1)
      if (input.version === undefined && last !== undefined && same(last.definition, input.rule)) return last
      const version = input.version ?? (last === undefined ? '1.0' : nextVersion(last.version).version)
      versionOrder(version)
      // The rule must be readable under its version, and its unit must fit the metric, before it is kept.
      const price = parsePrice(input.rule, version)
      assertCycle(price)
      const unit = 'metric' in price ? book.metrics.get(price.metric)?.at(-1)?.unit : undefined
      if (price.unit !== undefined && unit !== undefined) convertUnit('1', unit, price.unit)
      if (isByEvent(price)) assertByEvent(book, price)
      const kept = all.find((price) => price.version === version)
      const status = input.status ?? kept?.status ?? 'draft'
      if (status === 'archived' && kept === undefined) unprocessable('status: a new version is a draft or active')
      const now = this.#clock.now()
      // A draft may be old when it is made active: the period that runs then keeps its price.
      const since =
        kept?.status === 'draft' && status === 'active' ? Math.max(kept.effectiveFrom, now) : kept?.effectiveFrom
      const effectiveFrom = input.effectiveFrom ?? since ?? now
      const takesEffect = input.takesEffect ?? kept?.takesEffect ?? 'next_period'
      if (takesEffect === 'event_time') {
        assertByEventTime(price, effectiveFrom)
        const metric = 'metric' in price ? book.metrics.get(price.metric)?.at(-1) : undefined
        if (metric !== undefined) assertMetricByEventTime(metric)
        const before = book.priceInForce(rule, effectiveFrom - 1)
        if (before !== null && parsePrice(before.definition).model === 'percentage')
          unprocessable(
            `takesEffect: v${before.version} is a percentage price, whose events are those of a whole period: let it take effect with the next one`,
          )
        if (before !== null && parsePrice(before.definition).taxBehavior !== price.taxBehavior)
          unprocessable('takesEffect: tax_behavior changes with the next period, not within one')
      }
      const value: PriceVersion = {
        rule,
        version,
        status,
        effectiveFrom,
        ...(takesEffect === 'event_time' ? { takesEffect } : {}),
        ...(status === 'archived' ? { archivedAt: now } : {}),
        definition: input.rule,
        billed: kept?.billed ?? false,
      }
      if (status !== 'draft') assertFleetCurrency(book, book.contracts.values(), book.customers, 'rule', value)
      if (kept !== undefined) {
        if (same(kept, value)) return kept
        const content =
          same(kept.definition, value.definition) &&
          kept.effectiveFrom === effectiveFrom &&
          kept.takesEffect === value.takesEffect
        if (kept.status !== 'draft' && !content) {
          throw new ReleveError(
            'conflict',
            `price ${rule} v${version} is ${kept.status} and cannot be changed; make ${nextVersion(all.at(-1)!.version).version}`,
          )
        }
        // Loading the same definitions again must not bring an archived version back.
        if (kept.status === 'archived') return kept
        if (kept.status === 'active' && status === 'draft')
          throw new ReleveError('conflict', `price ${rule} v${version} is active`)
      }
      return {
        value,
        part: 'prices',
        before: kept ?? null,
        after: value,
        sql: `INSERT INTO catalog_prices (rule, version, status, effective_from, definition, takes_effect, archived_at, changed_in)
              VALUES ($2, $3, $4, $5, $6, $7, $8, $1)
              ON CONFLICT (rule, version) DO UPDATE SET status = excluded.status, effective_from = excluded.effective_from,
                definition = excluded.definition, takes_effect = excluded.takes_effect, archived_at = excluded.archived_at,
                changed_in = excluded.changed_in`,
        values: [
          rule,
          version,
          status,
          effectiveFrom,
          JSON.stringify(input.rule),
          takesEffect,
          value.archivedAt ?? null,
        ],
      }
    })
  }

  /**
   * Draft to active, from a time on (default: that of the draft, or now when it has passed); versions that were active stay in
   * force for periods that began before.
   */
  async activatePrice(rule: string, version: string, effectiveFrom?: number): Promise<Changed<PriceVersion>> {
    const { definition } = this.#priceVersion(rule, version)
    const from = effectiveFrom === undefined ? {} : { effectiveFrom }
    return this.putPrice({ rule: definition, version, status: 'active', ...from })
  }

  /**
   * An archived version takes no period that begins from now on: the version before it does, or nothing, which invoices say. What it
   * billed stays explained by it.
   */
  async archivePrice(rule: string, version: string): Promise<Changed<PriceVersion>> {
    const kept = this.#priceVersion(rule, version)
    return this.putPrice({ rule: kept.definition, version, status: 'archived' })
  }

  /**
   * A contract with its items. Entitlements that are not given are the plan's, with thresholds at 80 % and 100 %. A changed limit
   * or threshold gets a higher limitVersion, so that it may ring again. What moves have made of a contract that is there (its state,
   * suspensions, trial, last day) stays when it is left out. JSON as ContractInput. Throws ReleveError `conflict` for what would say
   * something else of a period that is invoiced (invoiced.ts).
   */
  async putContract(written: unknown): Promise<Changed<Contract>> {
    const json = withoutDerived(written)
    const { id } = parseContract(withLife(json, undefined))
    return this.#change('contract', id, async (book, client) => {
      const before = book.contracts.get(id)
      const input = parseContract(withLife(json, before))
      if (!book.customers.has(input.tenant)) unprocessable(`tenant: there is no customer ${input.tenant}`)
      if (!book.legalEntities.has(input.legalEntity)) unprocessable(`legalEntity: there is no ${input.legalEntity}`)
      if (before !== undefined && before.tenant !== input.tenant)
        unprocessable('tenant: a contract does not move to another customer')
      for (const fixed of ['start', 'timeZone', 'cycle'] as const)
        if (before !== undefined && before[fixed] !== input[fixed])
          unprocessable(`${fixed}: periods are counted from it; make a new contract`)
      if (before !== undefined && before.state !== input.state)
        throw new ReleveError(
          'conflict',
          `state: ${id} is ${before.state}; leave the state out, and move it with POST /v1/contracts/${id}/move, which keeps who did it and why`,
        )
      const items = input.items.map((item) => {
        const kept = before?.items.find((other) => other.id === item.id)
        // Balances, alerts and shares of usage know an item by its id alone.
        const owner = kept === undefined ? book.contractOfItem(item.id) : undefined
        if (owner !== undefined && owner !== id)
          throw new ReleveError(
            'conflict',
            `items: ${item.id} is an item of contract ${owner}; give it an id of its own, such as ${id}/${item.id}`,
          )
        const known = book.plans.get(item.plan)
        if (known === undefined) unprocessable(`items: there is no plan ${item.plan}`)
        // Loading the same definition again keeps the version that the item has.
        const planVersion = item.planVersion ?? (kept?.plan === item.plan ? kept.planVersion : known.at(-1)!.version)
        const plan = known.find((one) => one.version === planVersion)
        if (plan === undefined) unprocessable(`items: plan ${item.plan} has no version ${planVersion}`)
        const wanted =
          item.entitlements ??
          plan.metrics.map(({ metric, included }) => ({
            metric,
            limit: included,
            thresholds: included === null ? [] : DEFAULT_THRESHOLDS,
          }))
        const entitlements: ItemEntitlement[] = wanted.map((entitlement) => {
          if (!book.metrics.has(entitlement.metric)) unprocessable(`items: there is no metric ${entitlement.metric}`)
          const old = kept?.entitlements.find((other) => other.metric === entitlement.metric)
          const limitVersion =
            old === undefined
              ? 1
              : same({ ...entitlement, limitVersion: 0 }, { ...old, limitVersion: 0 })
                ? old.limitVersion
                : old.limitVersion + 1
          return { ...entitlement, limitVersion }
        })
        if (item.subjects !== undefined && item.fleet !== undefined)
          unprocessable(`items: ${item.id} has subjects or is a fleet, not both`)
        if (item.fleet !== undefined && item.prepaid !== undefined)
          unprocessable(
            `items: ${item.id} is a fleet, whose quotas are those of its objects one by one: packs stand behind one quota`,
          )
        const { currency } = book.customers.get(input.tenant)!
        for (const { metric, recharge } of item.prepaid ?? [])
          if (recharge !== undefined && new Decimal(recharge.amount).decimalPlaces() > exponentOf(currency))
            unprocessable(`items: the recharge of ${metric} costs ${recharge.amount}, which ${currency} does not have`)
        // Charged object by object, and shown as the sum of them.
        const other = entitlements.find(({ metric }) => !['sum', 'count'].includes(book.metricOf(metric).aggregation))
        if (item.fleet !== undefined && other !== undefined)
          unprocessable(
            `items: ${other.metric} of ${item.id} is neither a sum nor a count, and the objects of a fleet are summed: give it to an item that names its subjects`,
          )
        for (const { name, metric } of item.calculators ?? []) {
          if (metric === null && item.fleet !== undefined)
            unprocessable(`items: calculator ${name} of a fleet gives a quantity of a metric`)
          if (metric === null) continue
          if (!entitlements.some((one) => one.metric === metric))
            unprocessable(`items: calculator ${name} gives ${metric}, which ${item.id} does not have`)
          // A quantity is added to what the stream counted; an extreme or a count of members cannot be added to.
          if (!['sum', 'count'].includes(book.metricOf(metric).aggregation))
            unprocessable(`items: calculator ${name} gives ${metric}, which is neither a sum nor a count`)
        }
        for (const { rule } of item.addOns ?? [])
          if (!book.prices.has(rule)) unprocessable(`items: there is no price rule ${rule}`)
        return { ...item, planVersion, entitlements }
      })
      const value: Contract = { ...input, items }
      if (before !== undefined && same(before, value)) return before
      for (const item of value.items) {
        const kept = before?.items.find((one) => one.id === item.id)
        if (kept !== undefined && (kept.fleet === undefined) !== (item.fleet === undefined))
          unprocessable(
            `items: ${item.id} ${kept.fleet === undefined ? 'is no fleet and does not become one' : 'is a fleet and stays one'}; end it, and give the rest to an item of another id`,
          )
      }
      assertFleetCurrency(book, [value], book.customers, 'items')
      if (before !== undefined) await this.#assertInvoicedStays(client, book, before, value)
      if (value.items.some((item) => item.entitlements.some(({ metric }) => book.pricedByEvent(metric) !== null))) {
        const others = book.contractsOf(value.tenant).filter((one) => one.id !== value.id)
        assertContractsByEvent(book, [value, ...others], 'items')
      }
      return {
        value,
        part: 'contracts',
        before: before ?? null,
        after: value,
        sql: `INSERT INTO catalog_contracts (id, tenant, definition, changed_in) VALUES ($2, $3, $4, $1)
              ON CONFLICT (id) DO UPDATE SET definition = excluded.definition, changed_in = excluded.changed_in`,
        values: [value.id, value.tenant, value],
      }
    })
  }

  /** Moves a contract along its states, from a day on (default: today). Throws ReleveError `conflict` when it is not allowed. */
  moveContract(id: string, state: SubscriptionState, by: By): Promise<Changed<Contract>> {
    return this.#move(id, by, (contract, on) => moveContract(contract, state, on))
  }

  extendTrial(id: string, days: number, by: By): Promise<Changed<Contract>> {
    return this.#move(id, by, (contract, on) => extendTrial(contract, days, on))
  }

  giveNotice(id: string, by: By): Promise<Changed<Contract>> {
    return this.#move(id, by, giveNotice)
  }

  /** What a trial that is over comes to by its policy. Throws ReleveError `conflict` when nothing is to be done. */
  endTrial(id: string, by: Omit<By, 'on'>): Promise<Changed<Contract>> {
    return this.#move(id, by, endTrial)
  }

  #move(id: string, by: By, judge: (contract: Contract, on: string) => Moved): Promise<Changed<Contract>> {
    return this.#change('contract', id, async (book, client): Promise<Write<Contract>> => {
      const before = book.contractOf(id)
      const now = this.#clock.now()
      const on = by.on ?? dateIn(now, before.timeZone)
      // A mistyped year would leave a contract unbilled for so long.
      if (midnightOf(on, before.timeZone, 'on') > now + limits.moveAheadMs)
        unprocessable(`on: ${on} is more than a year ahead; say it when the day is nearer`)
      const { contract, move } = judge(before, on)
      await this.#assertInvoicedStays(client, book, before, contract)
      return {
        value: contract,
        part: 'contracts',
        before,
        after: contract,
        sql: `WITH kept AS (UPDATE catalog_contracts SET definition = $3, changed_in = $1 WHERE id = $2)
              INSERT INTO contract_moves (contract, kind, from_state, to_state, on_day, detail, reason, actor, made_at, changed_in)
              VALUES ($2, $4, $5, $6, $7, $8, $9, $10, $11, $1)`,
        values: [id, contract, move.kind, move.from, move.to, move.on, move.detail, by.reason, by.actor, now],
      }
    })
  }

  async #assertInvoicedStays(client: PoolClient, book: Book, before: Contract, after: Contract): Promise<void> {
    const until = await this.#invoicedUntil(client, before.id)
    const altered = until === null ? null : alteredInvoiced(book, before, after, until)
    if (altered !== null) throw new ReleveError('conflict', altered)
  }

  /** What became of a contract's subscription, oldest first, at most a page. */
  async history(contract: string): Promise<KeptMove[]> {
    const { rows } = await this.#postgres.query(
      'SELECT kind, from_state, to_state, on_day, detail, reason, actor, made_at FROM contract_moves WHERE contract = $1 ORDER BY serial LIMIT $2',
      [contract, limits.pageMax],
    )
    return rows.map((row) => ({
      kind: row.kind,
      from: row.from_state,
      to: row.to_state,
      on: row.on_day,
      detail: row.detail,
      reason: row.reason,
      actor: row.actor,
      at: Number(row.made_at),
    }))
  }

  /** Marks price versions as used by an issued invoice, inside the issuing transaction: no version grows by it. */
  async markBilled(
    client: PoolClient,
    used: readonly { readonly rule: string; readonly version: string }[],
  ): Promise<void> {
    // In one order, so that two issuing transactions never wait for each other's row.
    const ordered = [...used].sort((a, b) => (`${a.rule} ${a.version}` < `${b.rule} ${b.version}` ? -1 : 1))
    for (const { rule, version } of ordered) {
      await client.query('UPDATE catalog_prices SET billed = true WHERE rule = $1 AND version = $2 AND NOT billed', [
        rule,
        version,
      ])
    }
  }

  /** The changes behind a version, oldest first, at most one page. */
  async changes(
    afterVersion: number,
  ): Promise<{ version: number; at: number; kind: string; key: string; change: unknown }[]> {
    const { rows } = await this.#postgres.query(
      'SELECT version, at, kind, key, change FROM catalog_versions WHERE version > $1 ORDER BY version LIMIT $2',
      [afterVersion, limits.pageMax],
    )
    return rows.map((row) => ({ ...row, version: Number(row.version), at: Number(row.at) }))
  }

  #priceVersion(rule: string, version: string): PriceVersion {
    const kept = this.#book.prices.get(rule)?.find((price) => price.version === version)
    if (kept === undefined) throw new ReleveError('not_found', `price: there is no ${rule} v${version}`)
    return kept
  }

  #upsert<T extends object>(
    part: keyof typeof TABLES,
    key: string,
    value: T,
    keptIn: (book: Book) => T | undefined,
  ): Promise<Changed<T>> {
    const { kind, table, column } = TABLES[part]
    return this.#change(kind, key, (book) => {
      const before = keptIn(book)
      if (before !== undefined && same(before, value)) return before
      return {
        value,
        part,
        before: before ?? null,
        after: value,
        sql: `INSERT INTO ${table} (${column}, definition, changed_in) VALUES ($2, $3, $1)
              ON CONFLICT (${column}) DO UPDATE SET definition = excluded.definition, changed_in = excluded.changed_in`,
        values: [key, value],
      }
    })
  }

  /** One change, judged against the book as it is under the head's lock. */
  #change<T extends object>(
    kind: string,
    key: string,
    judge: (book: Book, client: PoolClient) => T | Write<T> | Promise<T | Write<T>>,
  ): Promise<Changed<T>> {
    return this.#locked<Changed<T>>(async (client, book) => {
      const judged = await judge(book, client)
      if (!isWrite(judged)) {
        return { result: { value: judged, changed: false, catalogVersion: book.version }, after: book }
      }
      const next = book.version + 1
      await client.query('INSERT INTO catalog_versions (version, at, kind, key, change) VALUES ($1, $2, $3, $4, $5)', [
        next,
        this.#clock.now(),
        kind,
        key,
        { before: judged.before, after: judged.after },
      ])
      await client.query(judged.sql, [next, ...judged.values])
      await client.query('UPDATE catalog_head SET version = $1', [next])
      const after = book.with(next, { [judged.part]: [judged.value] })
      return { result: { value: judged.value, changed: true, catalogVersion: next }, after }
    })
  }

  /** A transaction under the head's lock, with the book as it is then; memory takes what it leaves, after the commit. */
  async #locked<R>(work: (client: PoolClient, book: Book) => Promise<{ result: R; after: Book }>): Promise<R> {
    const client = await this.#postgres.connect()
    let done: { result: R; after: Book }
    try {
      await client.query('BEGIN')
      const head = await client.query<{ version: string }>('SELECT version FROM catalog_head FOR UPDATE')
      const version = Number(head.rows[0]?.version)
      assert(Number.isSafeInteger(version), 'catalog_head has one row')
      done = await work(client, version === this.#book.version ? this.#book : await readBook(client))
      if (done.after.largest > limits.catalogObjectsMax)
        unprocessable(`the catalogue holds at most ${limits.catalogObjectsMax} objects of a kind`)
      await client.query('COMMIT')
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    } finally {
      client.release()
    }
    this.#take(done.after)
    return done.result
  }

  #take(book: Book): void {
    // Two changes may end in either order; memory only moves forward.
    if (book.version <= this.#book.version) return
    this.#book = book
    for (const listener of this.#listeners) listener(book.snapshot)
  }
}

/** Objects that are one row each, written over. */
const TABLES = {
  products: { kind: 'product', table: 'catalog_products', column: 'key' },
  legalEntities: { kind: 'legal_entity', table: 'catalog_legal_entities', column: 'key' },
  customers: { kind: 'customer', table: 'catalog_customers', column: 'tenant' },
} as const

function isWrite<T extends object>(judged: T | Write<T>): judged is Write<T> {
  return 'sql' in judged && 'values' in judged
}

/** A definition that was read with its version and changed since by somebody else is not written over it. */
function assertLatest(json: unknown, latest: number, what: string): void {
  const { version } = json as { version?: unknown }
  if (version === undefined || version === latest) return
  throw new ReleveError(
    'conflict',
    `version: ${what} is at ${latest}; read it again, or leave the version out: the next one is given by the store`,
  )
}

/** Doors hand in what they were sent. */
function assertPriceInput(input: PriceInput): void {
  const wrong = (detail: string): never => {
    throw new ReleveError('invalid_request', detail)
  }
  if (typeof input !== 'object' || input === null)
    wrong('price: an object with rule, version, status, effectiveFrom, takesEffect is expected')
  const { rule: _, version, status, effectiveFrom, takesEffect, ...others } = input
  for (const member of Object.keys(others)) wrong(`price: unknown member ${member.slice(0, 80)}`)
  if (version !== undefined && typeof version !== 'string') wrong('version: a text such as "3.1" is expected')
  if (status !== undefined && !['draft', 'active', 'archived'].includes(status))
    wrong('status: draft, active or archived')
  if (effectiveFrom !== undefined && !Number.isSafeInteger(effectiveFrom)) wrong('effectiveFrom: epoch milliseconds')
  if (takesEffect !== undefined && takesEffect !== 'next_period' && takesEffect !== 'event_time')
    wrong('takesEffect: next_period or event_time')
}

/** A cycle that nobody knows would be that of the contract: a fee of a year each month. */
function assertCycle(price: Price): void {
  if (price.model !== 'flat' || Cycle.some((one) => one === price.billingCycle)) return
  throw new ReleveError('invalid_request', `billing_cycle: one of ${Cycle.join(', ')}, got ${price.billingCycle}`)
}

/** Throws ReleveError `unprocessable` where the amounts that a price asks for cannot be had. */
function assertByEvent(book: Book, price: Price): void {
  const metric = 'metric' in price ? book.metrics.get(price.metric)?.at(-1) : undefined
  if (metric !== undefined) assertMetricByEvent(metric)
  for (const { tenant, items } of book.contracts.values()) {
    const uses = items.some((item) =>
      book.planOf(item.plan, item.planVersion).metrics.some((one) => one.rule === price.rule),
    )
    if (uses) assertContractsByEvent(book, book.contractsOf(tenant), 'rule', (rule) => rule === price.rule)
  }
}

/** A customer's new currency reaches its fleets. Throws ReleveError `unprocessable`. */
function assertOwnFleets(book: Book, customer: Customer): void {
  const { tenant, currency } = customer
  if (book.customers.get(tenant)?.currency === currency) return
  assertFleetCurrency(book, book.contractsOf(tenant), new Map([[tenant, customer]]), 'currency')
}

/** Usage of the running period is cut at the instant, so it must be a quantity that can be, at a minute it is counted by. */
function assertByEventTime(price: Price, effectiveFrom: number): void {
  if (!('metric' in price) || price.model === 'percentage')
    unprocessable(`takesEffect: a ${price.model} price takes effect with the next period`)
  if (effectiveFrom % MINUTE_MS !== 0) unprocessable('effectiveFrom: by event time it must lie on a whole minute')
}

function same(a: unknown, b: unknown): boolean {
  return canonical(a) === canonical(b)
}

function unprocessable(detail: string): never {
  throw new ReleveError('unprocessable', detail)
}

async function readBook(client: PoolClient): Promise<Book> {
  const definitions = async <T>(table: string): Promise<T[]> => {
    const { rows } = await client.query<{ definition: T }>(`SELECT definition FROM ${table} LIMIT $1`, [
      limits.catalogObjectsMax + 1,
    ])
    if (rows.length > limits.catalogObjectsMax)
      throw new ReleveError('unprocessable', `${table}: more than ${limits.catalogObjectsMax} objects`)
    return rows.map((row) => row.definition)
  }
  const head = await client.query<{ version: string }>('SELECT version FROM catalog_head')
  const prices = await client.query<{
    rule: string
    version: string
    status: PriceStatus
    effective_from: string
    definition: unknown
    takes_effect: 'next_period' | 'event_time'
    archived_at: string | null
    billed: boolean
  }>('SELECT rule, version, status, effective_from, definition, takes_effect, archived_at, billed FROM catalog_prices')
  return new Book({
    version: Number(head.rows[0]?.version),
    metrics: await definitions<Metric>('catalog_metrics'),
    products: await definitions<Product>('catalog_products'),
    plans: await definitions<Plan>('catalog_plans'),
    prices: prices.rows.map((row) => ({
      rule: row.rule,
      version: row.version,
      status: row.status,
      effectiveFrom: Number(row.effective_from),
      ...(row.takes_effect === 'event_time' ? { takesEffect: row.takes_effect } : {}),
      ...(row.archived_at === null ? {} : { archivedAt: Number(row.archived_at) }),
      definition: row.definition,
      billed: row.billed,
    })),
    legalEntities: await definitions<LegalEntity>('catalog_legal_entities'),
    customers: await definitions<Customer>('catalog_customers'),
    contracts: await definitions<Contract>('catalog_contracts'),
  })
}
