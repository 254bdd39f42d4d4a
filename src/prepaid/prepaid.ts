/**
 * Prepaid packs in PostgreSQL: bought, debited by closings, forfeited at their end, and their ledger. Front of the room; how packs
 * are used up is rating/prepaid.ts, and invoicing/funding.ts for a period.
 *
 * A closing debits in the transaction that keeps its measure, so that repeated or killed it debits once. Usage is counted by the
 * parts of the period that purchases and expiries cut it into: a pack pays from the minute it was bought in until it ends. Forfeits
 * are written by the closing of the period in which the pack ended: until then usage from before its end may still come
 * (forfeit-sweep.ts has those that no closing comes for).
 */
import { randomUUID } from 'node:crypto'
import type { ClientBase, Pool } from 'pg'
import type { Terms } from '../catalog/book.js'
import type { Catalog } from '../catalog/catalog.js'
import type { Contract } from '../catalog/contract.js'
import type { Exhaustion } from '../catalog/exhaustion.js'
import { midnightOf } from '../catalog/schedule.js'
import type { Clock } from '../clock.js'
import { exponentOf, printMoney } from '../currency.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { type ItemUsage, type LatePart, limitOf } from '../invoicing/draft.js'
import {
  type Funded,
  type Funding,
  type FundingPack,
  type Prepaid as Funds,
  fund,
  type PackPurchase,
  type PartsOf,
  type Refunding,
} from '../invoicing/funding.js'
import { type FundedStep, fundedSteps, refundedSteps } from '../invoicing/pack-ledger.js'
import { limits } from '../limits.js'
import { MINUTE_MS, type Period, parseMoment } from '../period.js'

type Queryable = Pick<ClientBase | Pool, 'query'>

export interface PackInput {
  /** Sent again with the same one, a purchase is made once; absent: a new one. */
  readonly id?: string
  readonly contract: string
  readonly item: string
  readonly metric: string
  readonly name?: string
  readonly quantity: string
  /** HT in the customer's currency, billed with the period it is bought in; absent: billed elsewhere. */
  readonly amount?: string
  readonly priority?: number
  /** The day on which it is over, in the zone of the contract, or an instant. */
  readonly expires?: string
}

export interface KeptPack {
  readonly id: string
  readonly tenant: string
  readonly contract: string
  readonly item: string
  readonly metric: string
  readonly unit: string
  readonly name: string
  readonly quantity: string
  readonly amount: string | null
  readonly priority: number
  readonly validFrom: number
  readonly expires: number | null
  readonly recharge: boolean
  readonly state: 'active' | 'exhausted' | 'expired'
  /** By the closings so far: usage of periods that are not closed comes off it then. */
  readonly balance: string
  readonly debited: string
  readonly forfeited: string
}

export interface PackState {
  /** What quota and packs have left. */
  readonly left: string
  readonly packs: string
  /** Of the running period: what packs have paid, and what nobody has. */
  readonly covered: string
  readonly beyond: string
  readonly exhaustion: Exhaustion
}

export interface LedgerEntry {
  readonly pack: string
  readonly kind: 'grant' | 'debit' | 'forfeit' | 'billed'
  /** Signed. */
  readonly quantity: string
  readonly at: number
  readonly closing: string | null
  readonly madeAt: number
  /** false: of an attempt whose draft was discarded. */
  readonly stands: boolean
}

interface PackRow {
  id: string
  contract: string
  item: string
  metric: string
  name: string
  quantity: string
  amount: string | null
  priority: number
  valid_from: string
  expires: string | null
  closing: string | null
  created_at: string
  balance: string
  debited: string
  forfeited: string
  billed: boolean
}

const PACKS = `SELECT p.*, b.balance, b.debited, b.forfeited, b.billed
  FROM prepaid_packs p JOIN prepaid_balances b ON b.pack = p.id`

export class Prepaid {
  readonly #postgres: Pool
  readonly #catalog: Catalog
  readonly #clock: Clock
  #version = 0
  /** Items and metrics with packs. */
  readonly #bought = new Set<string>()

  constructor(options: { readonly postgres: Pool; readonly catalog: Catalog; readonly clock: Clock }) {
    this.#postgres = options.postgres
    this.#catalog = options.catalog
    this.#clock = options.clock
  }

  /** Throws ReleveError `not_found`, `unprocessable`, and `conflict` for an id that was used for another pack. */
  async buy(input: PackInput): Promise<{ readonly pack: KeptPack; readonly created: boolean }> {
    const contract = this.#catalog.book().contractOf(input.contract)
    const item = contract.items.find((one) => one.id === input.item)
    if (item === undefined) throw new ReleveError('not_found', `item: ${contract.id} has no ${input.item}`)
    if (item.fleet !== undefined)
      throw new ReleveError('unprocessable', `item: ${item.id} is a fleet, whose quotas are those of its objects`)
    const entitlement = item.entitlements.find((one) => one.metric === input.metric)
    if (entitlement === undefined) throw new ReleveError('unprocessable', `metric: ${item.id} has no ${input.metric}`)
    if (entitlement.limit === null)
      throw new ReleveError('unprocessable', `metric: ${input.metric} is unlimited, a pack would never be used`)
    const metric = this.#catalog.metric(input.metric)
    if (!['sum', 'count'].includes(metric.aggregation))
      throw new ReleveError(
        'unprocessable',
        `metric: a pack is used up by a sum or a count, ${metric.key} is a ${metric.aggregation}`,
      )
    const quantity = parseDecimal(input.quantity, 'quantity')
    if (quantity.lte(0) || quantity.decimalPlaces() > 9 || quantity.gte(1e18))
      throw new ReleveError('invalid_request', 'quantity: above 0, below 10^18, with at most 9 decimals')
    const { currency } = this.#catalog.book().customers.get(contract.tenant)!
    const amount = input.amount === undefined ? null : parseDecimal(input.amount, 'amount')
    if (amount !== null && (amount.lt(0) || amount.decimalPlaces() > exponentOf(currency) || amount.gte(1e15)))
      throw new ReleveError('invalid_request', `amount: not negative, with the decimals of ${currency}`)
    const now = this.#clock.now()
    const validFrom = Math.floor(now / MINUTE_MS) * MINUTE_MS
    const expires = input.expires === undefined ? null : instantOf(input.expires, contract.timeZone)
    if (expires !== null && expires <= validFrom) throw new ReleveError('unprocessable', 'expires: lies in the past')
    if (expires !== null && expires % MINUTE_MS !== 0)
      throw new ReleveError('invalid_request', 'expires: must lie on a whole minute')
    const id = input.id ?? `pack_${randomUUID()}`
    const wanted = [
      contract.id,
      item.id,
      metric.key,
      input.name ?? `${printDecimal(quantity)} ${metric.unit}`,
      printDecimal(quantity),
      amount === null ? null : printMoney(amount, currency),
      input.priority ?? 0,
    ]
    const client = await this.#postgres.connect()
    try {
      await client.query('BEGIN')
      const made = await client.query(
        `INSERT INTO prepaid_packs (id, contract, item, metric, name, quantity, amount, priority, valid_from, expires, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`,
        [id, ...wanted, validFrom, expires, now],
      )
      const created = made.rowCount === 1
      if (created) {
        await client.query(
          `INSERT INTO prepaid_entries (pack, kind, quantity, at, made_at) VALUES ($1, 'grant', $2, $3, $4)`,
          [id, printDecimal(quantity), validFrom, now],
        )
      } else {
        // numeric is compared by value.
        const same = await client.query(
          `SELECT 1 FROM prepaid_packs WHERE id = $1 AND contract = $2 AND item = $3 AND metric = $4 AND name = $5
             AND quantity = $6::numeric AND amount IS NOT DISTINCT FROM $7::numeric AND priority = $8
             AND expires IS NOT DISTINCT FROM $9::bigint`,
          [id, ...wanted, expires],
        )
        if (same.rowCount === 0) throw new ReleveError('conflict', `id: ${id} is another pack`)
      }
      await client.query('COMMIT')
      this.#bought.add(JSON.stringify([contract.id, item.id, metric.key]))
      this.changed()
      return { pack: (await this.#packs('p.id = $1', [id]))[0]!, created }
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    } finally {
      client.release()
    }
  }

  /** Of a tenant or a contract, those that still pay first; at most a page. */
  async list(filter: { readonly tenant: string | null; readonly contract?: string | undefined }): Promise<KeptPack[]> {
    return this.#packs(`($1::text IS NULL OR c.tenant = $1) AND ($2::text IS NULL OR p.contract = $2)`, [
      filter.tenant,
      filter.contract ?? null,
    ])
  }

  /** What became of a pack, oldest first, at most a page. Throws ReleveError `not_found`. */
  async ledger(pack: string, tenant: string | null): Promise<LedgerEntry[]> {
    const [known] = await this.#packs('p.id = $1 AND ($2::text IS NULL OR c.tenant = $2)', [pack, tenant])
    if (known === undefined) throw new ReleveError('not_found', `pack: there is no ${pack}`)
    const { rows } = await this.#postgres.query(
      `SELECT e.*, e.closing IS NULL OR c.attempt = e.attempt AS stands FROM prepaid_entries e
       LEFT JOIN closings c ON c.id = e.closing WHERE pack = $1 ORDER BY serial LIMIT $2`,
      [pack, limits.pageMax],
    )
    return rows.map((row) => ({
      pack,
      kind: row.kind,
      quantity: printDecimal(new Decimal(row.quantity)),
      at: Number(row.at),
      closing: row.closing,
      madeAt: Number(row.made_at),
      stands: row.stands,
    }))
  }

  /** Grows whenever a balance or a pack changes here. */
  get version(): number {
    return this.#version
  }

  /** Whether an item sells a metric ahead, by its contract or by packs that were bought: a look into memory. */
  has({ id, items }: Contract, item: string, metric: string): boolean {
    if (items.find((one) => one.id === item)?.prepaid?.some((one) => one.metric === metric) === true) return true
    return this.#bought.has(JSON.stringify([id, item, metric]))
  }

  /** Which items have packs: known from the start on. */
  async open(): Promise<void> {
    const { rows } = await this.#postgres.query<{ contract: string; item: string; metric: string }>(
      'SELECT DISTINCT contract, item, metric FROM prepaid_packs',
    )
    for (const { contract, item, metric } of rows) this.#bought.add(JSON.stringify([contract, item, metric]))
  }

  /**
   * What packs have at present: after the usage of the running period, and of the one before it while no closing has debited that.
   * `count` counts the item's usage over a part of either.
   */
  async state(request: {
    readonly terms: Terms
    readonly item: string
    readonly metric: string
    readonly period: Period
    readonly usage: string
    readonly before: { readonly terms: Terms; readonly period: Period; readonly usage: string } | null
    readonly count: (part: Period) => Promise<string>
    readonly now: number
  }): Promise<PackState> {
    const { terms, item, metric, before, now } = request
    const rows = await packsOf(this.#postgres, terms.contract.id, { from: 0, to: now + 1 })
    const own = rows.filter((row) => row.item === item && row.metric === metric)
    const balances = new Map(own.map((row) => [row.id, printDecimal(new Decimal(row.balance))]))
    const expiry = new Map(own.map((row) => [row.id, row.expires === null ? null : Number(row.expires)]))
    let funded: Funded | null = null
    let exhaustion: Exhaustion = 'standard_price'
    let limit = '0'
    for (const one of before === null ? [request] : [before, request]) {
      const termsItem = one.terms.items.find((other) => other.item === item)!
      const termsMetric = termsItem.metrics.find((other) => other.metric === metric)!
      const covers = termsItem.period ?? one.period
      const parts: Funding['parts'][number][] = []
      const cuts = cutsOf(own, { from: covers.from, to: Math.min(covers.to, now) })
      for (const [i, to] of cuts.slice(0, limits.packCutsMax).entries()) {
        const period = { from: cuts[i - 1] ?? covers.from, to }
        parts.push({ period, quantity: await request.count(period) })
      }
      const found = this.#fundingsOf(one.terms, own, new Map([[key(item, metric), parts]]), 'now')
      const funding = found.find((other) => other.item === item && other.metric === metric)
      if (funding === undefined) continue
      const packs = funding.packs
        .filter((pack) => (pack.validFrom ?? 0) < covers.to)
        .map((pack) => ({ ...pack, balance: balances.get(pack.id) ?? '0' }))
      exhaustion = funding.exhaustion
      limit = limitOf(termsItem, termsMetric, one.terms, one.period)!
      funded = fund({ ...funding, packs }, termsMetric, limit, one.usage, covers, Math.min(covers.to, now))
      for (const [id, balance] of Object.entries(funded.balances)) balances.set(id, balance)
    }
    const held = [...balances].filter(([id]) => (expiry.get(id) ?? now + 1) > now)
    const packs = held.reduce((all, [, balance]) => all.plus(balance), new Decimal(0))
    const left = packs.plus(Decimal.max(new Decimal(limit).minus(request.usage), 0))
    return {
      left: printDecimal(left),
      packs: printDecimal(packs),
      covered: funded?.covered ?? '0',
      beyond: funded?.overage ?? '0',
      exhaustion,
    }
  }

  // ---- For closings and previews -----------------------------------------------------------------------------------------

  /** Of these contracts, those that have packs or buy them again. */
  async waiting(contracts: readonly string[]): Promise<ReadonlySet<string>> {
    const book = this.#catalog.book()
    const rule = contracts.filter((id) => book.contracts.get(id)?.items.some((item) => item.prepaid !== undefined))
    const { rows } = await this.#postgres.query<{ contract: string }>(
      `SELECT DISTINCT p.contract FROM prepaid_packs p JOIN prepaid_balances b ON b.pack = p.id
       WHERE p.contract = ANY($1) AND (b.balance > 0 OR (p.amount IS NOT NULL AND NOT b.billed))`,
      [contracts],
    )
    return new Set([...rule, ...rows.map((row) => row.contract)])
  }

  /** Of these contracts, those that ever had packs, or would buy one. */
  async everHad(contracts: readonly string[]): Promise<ReadonlySet<string>> {
    const book = this.#catalog.book()
    const rule = contracts.filter((id) => book.contracts.get(id)?.items.some((item) => item.prepaid !== undefined))
    const { rows } = await this.#postgres.query<{ contract: string }>(
      'SELECT DISTINCT contract FROM prepaid_packs WHERE contract = ANY($1)',
      [contracts],
    )
    return new Set([...rule, ...rows.map((row) => row.contract)])
  }

  /**
   * Counts the parts of the period; `count` counts one metric of an item over a part, at the closing's cut. `late`: for a period
   * that was settled before.
   */
  async partsOf(
    terms: Terms,
    period: Period,
    count: (item: string, metric: string, part: Period) => Promise<string>,
    late = false,
  ): Promise<PartsOf> {
    const parts = new Map<string, Funding['parts']>()
    const all = await (late ? settledPacks : packsOf)(this.#postgres, terms.contract.id, period)
    for (const rows of byMetric(all).values()) {
      const { item, metric } = rows[0]!
      const own = terms.items.find((one) => one.item === item)
      if (own === undefined) continue
      const cuts = cutsOf(rows, own.period ?? period)
      if (cuts.length > limits.packCutsMax)
        throw new ReleveError(
          'unprocessable',
          `${item} ${metric}: packs cut the period into more than ${limits.packCutsMax} parts`,
        )
      const counted: { period: Period; quantity: string }[] = []
      for (const [i, to] of cuts.entries()) {
        const part = { from: cuts[i - 1] ?? (own.period ?? period).from, to }
        counted.push({ period: part, quantity: await count(item, metric, part) })
      }
      parts.set(key(item, metric), counted)
    }
    return parts
  }

  /** What packs there are for a period; with `closing` they are debited, and it is the caller's transaction that commits it. */
  async fund(
    client: Queryable,
    request: {
      readonly terms: Terms
      readonly period: Period
      readonly usage: readonly ItemUsage[]
      readonly parts: PartsOf
      readonly closing?: ClosingAttempt
    },
  ): Promise<Funds | undefined> {
    const { terms, period, usage, parts, closing } = request
    if (closing !== undefined) await lockPacks(client, terms.contract.id)
    const all = await packsOf(client, terms.contract.id, period)
    const fundings = this.#fundingsOf(terms, all, parts, nameOf(closing))
    // A pack of a metric that is not priced any more is still billed.
    const purchases = all
      .filter((row) => row.amount !== null && !row.billed && row.closing === null)
      .map((row) => purchaseOf(row, terms))
    if (fundings.length === 0 && purchases.length === 0) return undefined
    const funds = { fundings, purchases }
    if (closing !== undefined) await this.#write(client, terms, closing, fundedSteps(funds, terms, period, usage))
    return funds
  }

  /** What packs could pay of a period that is counted again. Nothing is written: `settle` does that. */
  async refund(
    client: Queryable,
    request: { readonly terms: Terms; readonly period: Period; readonly parts: PartsOf; readonly name?: string },
  ): Promise<Refunding[]> {
    const { terms, period, parts, name = 'preview' } = request
    const rows = await settledPacks(client, terms.contract.id, period)
    const known = new Map(rows.map((row) => [row.id, row]))
    // What the contract does not bill is not paid by packs either: they only take back.
    const rejects = terms.contract.late?.usage === 'reject'
    return this.#fundingsOf(terms, rows, parts, `${name}/late/${period.from}`).map((funding) => {
      const own = funding.packs.map(({ id }) => known.get(id)!)
      const again = ({ debited_here, balance, forfeited }: SettledRow): Decimal =>
        new Decimal(debited_here).plus(rejects ? 0 : new Decimal(balance).plus(forfeited))
      const record = (of: (row: SettledRow) => string) =>
        Object.fromEntries(own.map((row) => [row.id, printDecimal(new Decimal(of(row)))]))
      return {
        ...funding,
        packs: funding.packs.map((pack) => {
          const row = known.get(pack.id)!
          const bought = row.closing !== null && Number(row.valid_from) >= period.from
          return { ...pack, balance: printDecimal(again(row)), ...(bought ? { again: true as const } : {}) }
        }),
        debited: record((row) => row.debited_here),
        left: record((row) => row.balance),
      }
    })
  }

  /** Writes what a period that was counted again takes from packs or gives back; the caller's transaction commits it. */
  async settle(
    client: Queryable,
    part: Pick<LatePart, 'terms' | 'period' | 'usage' | 'prepaid'>,
    closing: ClosingAttempt,
  ): Promise<void> {
    await this.#write(client, part.terms, closing, refundedSteps(part))
  }

  /** A pack that is to be billed here, locked; null without an amount. Throws ReleveError `not_found`. */
  async sale(
    client: Queryable,
    pack: string,
  ): Promise<{ contract: string; purchase: PackPurchase; billedBy: string | null } | null> {
    const locked = await client.query<{ contract: string }>(
      'SELECT contract FROM prepaid_packs WHERE id = $1 FOR UPDATE',
      [pack],
    )
    const contract = locked.rows[0]?.contract
    if (contract === undefined) throw new ReleveError('not_found', `pack: there is no ${pack}`)
    const { rows } = await client.query<PackRow & { billed_by: string | null }>(
      `SELECT own.*, (SELECT e.closing FROM prepaid_entries e JOIN closings c ON c.id = e.closing AND c.attempt = e.attempt
         WHERE e.pack = own.id AND e.kind = 'billed') AS billed_by FROM (${PACKS} WHERE p.id = $1) AS own`,
      [pack],
    )
    const row = rows[0]!
    if (row.amount === null || row.closing !== null) return null
    const customer = this.#catalog.book().customers.get(this.#catalog.book().contractOf(contract).tenant)!
    return { contract, purchase: purchaseOf(row, { customer }), billedBy: row.billed_by }
  }

  async settleSale(
    client: Queryable,
    pack: string,
    terms: Terms,
    closing: ClosingAttempt & { at: number },
  ): Promise<void> {
    await this.#write(client, terms, closing, [{ pack, kind: 'billed', quantity: '0', at: closing.at }])
  }

  /** Before balances are read for what will be written. */
  lock(client: Queryable, contract: string): Promise<void> {
    return lockPacks(client, contract)
  }

  #fundingsOf(terms: Terms, rows: readonly PackRow[], parts: PartsOf, name: string): Funding[] {
    const packs = byMetric(rows)
    return terms.items.flatMap(({ item, metrics }) =>
      metrics.flatMap(({ metric, limit }): Funding[] => {
        const rule = terms.contract.items.find((one) => one.id === item)?.prepaid?.find((one) => one.metric === metric)
        const own = packs.get(key(item, metric)) ?? []
        if (limit === null || (rule === undefined && own.length === 0)) return []
        const { quantity, amount, validDays, priority } = rule?.recharge ?? {}
        return [
          {
            item,
            metric,
            exhaustion: rule?.exhaustion ?? 'standard_price',
            ...(quantity === undefined || amount === undefined
              ? {}
              : {
                  recharge: {
                    quantity,
                    amount,
                    name: `${name}/${item}/${metric}`,
                    ...(validDays === undefined ? {} : { validMs: validDays * 24 * 60 * MINUTE_MS }),
                    ...(priority === undefined ? {} : { priority }),
                  },
                }),
            packs: own.map(packOf),
            parts: parts.get(key(item, metric)) ?? [],
          },
        ]
      }),
    )
  }

  async #write(client: Queryable, terms: Terms, closing: ClosingAttempt, steps: readonly FundedStep[]): Promise<void> {
    const now = this.#clock.now()
    for (const { pack, kind, quantity, at, funding } of steps) {
      // What is bought again is a pack from then on.
      if (kind === 'grant') {
        const { unit } = terms.items
          .find((one) => one.item === funding!.item)!
          .metrics.find((one) => one.metric === funding!.metric)!
        const { validMs, priority = 0 } = funding!.recharge!
        await client.query(
          `INSERT INTO prepaid_packs (id, contract, item, metric, name, quantity, priority, valid_from, expires, closing, attempt, created_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
          [
            ...[pack, terms.contract.id, funding!.item, funding!.metric, `${quantity} ${unit}`, quantity, priority, at],
            ...[validMs === undefined ? null : at + validMs, closing.id, closing.attempt, now],
          ],
        )
      }
      await client.query(
        `INSERT INTO prepaid_entries (pack, kind, quantity, at, closing, attempt, made_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
        [pack, kind, quantity, at, closing.id, closing.attempt, now],
      )
    }
    this.changed()
  }

  /** Balances are others now. */
  changed(): void {
    this.#version += 1
  }

  async #packs(where: string, values: readonly unknown[]): Promise<KeptPack[]> {
    const now = this.#clock.now()
    const { rows } = await this.#postgres.query<PackRow & { tenant: string }>(
      `SELECT p.*, b.balance, b.debited, b.forfeited, b.billed, c.tenant
       FROM prepaid_packs p JOIN prepaid_balances b ON b.pack = p.id JOIN catalog_contracts c ON c.id = p.contract
       LEFT JOIN closings k ON k.id = p.closing
       WHERE ${where} AND (p.closing IS NULL OR k.attempt = p.attempt)
       ORDER BY b.balance = 0, p.priority, p.expires NULLS LAST, p.created_at, p.id LIMIT ${limits.pageMax}`,
      [...values],
    )
    return rows.map((row) => {
      const balance = new Decimal(row.balance)
      const expired = row.expires !== null && Number(row.expires) <= now
      return {
        id: row.id,
        tenant: row.tenant,
        contract: row.contract,
        item: row.item,
        metric: row.metric,
        unit: this.#catalog.metric(row.metric).unit,
        name: row.name,
        quantity: printDecimal(new Decimal(row.quantity)),
        amount: row.amount,
        priority: row.priority,
        validFrom: Number(row.valid_from),
        expires: row.expires === null ? null : Number(row.expires),
        recharge: row.closing !== null,
        state: expired ? 'expired' : balance.isZero() ? 'exhausted' : 'active',
        balance: printDecimal(balance),
        debited: printDecimal(new Decimal(row.debited)),
        forfeited: printDecimal(new Decimal(row.forfeited)),
      }
    })
  }
}

/** Of a closing the attempt that stands. */
export interface ClosingAttempt {
  readonly id: string
  readonly attempt: number
}

const nameOf = (closing: ClosingAttempt | undefined): string =>
  closing === undefined ? 'preview' : `${closing.id}#${closing.attempt}`

async function lockPacks(client: Queryable, contract: string): Promise<void> {
  await client.query('SELECT 1 FROM prepaid_packs WHERE contract = $1 ORDER BY id FOR UPDATE', [contract])
}

function purchaseOf(row: PackRow, { customer }: Pick<Terms, 'customer'>): PackPurchase {
  const amount = printMoney(new Decimal(row.amount!), customer.currency)
  return { item: row.item, pack: row.id, name: row.name, amount }
}

/** Instants within a period at which packs of a metric begin or end. */
function cutsOf(rows: readonly PackRow[], whole: Period): number[] {
  const times = rows.flatMap((row) => [Number(row.valid_from), ...(row.expires === null ? [] : [Number(row.expires)])])
  return [...new Set(times)].filter((at) => at > whole.from && at < whole.to).sort((a, b) => a - b)
}

interface SettledRow extends PackRow {
  /** By usage of the period. */
  debited_here: string
}

/** Those that have paid of a period that was settled, or could have. */
async function settledPacks(client: Queryable, contract: string, period: Period): Promise<SettledRow[]> {
  const { rows } = await client.query<SettledRow>(
    `SELECT * FROM (
       SELECT own.*, coalesce((SELECT -sum(e.quantity) FROM prepaid_entries e LEFT JOIN closings c ON c.id = e.closing
           WHERE e.pack = own.id AND e.kind = 'debit' AND e.at >= $3 AND e.at < $2 AND (e.closing IS NULL OR c.attempt = e.attempt)), 0)
         AS debited_here
       FROM (${PACKS} WHERE p.contract = $1 AND p.valid_from < $2 AND (p.expires IS NULL OR p.expires > $3)) AS own
       LEFT JOIN closings k ON k.id = own.closing WHERE own.closing IS NULL OR k.attempt = own.attempt) AS of_period
     WHERE balance > 0 OR forfeited > 0 OR debited_here <> 0 OR valid_from >= $3 OR expires < $2
     ORDER BY id LIMIT $4`,
    [contract, period.to, period.from, limits.packsMax + 1],
  )
  if (rows.length > limits.packsMax)
    throw new ReleveError('unprocessable', `${contract}: more than ${limits.packsMax} packs hold something`)
  return rows
}

/** Those bought before the period's end that hold something or are still to be billed. */
async function packsOf(client: Queryable, contract: string, period: Period): Promise<PackRow[]> {
  const { rows } = await client.query<PackRow>(
    `${PACKS} WHERE p.contract = $1 AND p.valid_from < $2 AND (b.balance > 0 OR (p.amount IS NOT NULL AND NOT b.billed))
     ORDER BY p.id LIMIT $3`,
    [contract, period.to, limits.packsMax + 1],
  )
  if (rows.length > limits.packsMax)
    throw new ReleveError('unprocessable', `${contract}: more than ${limits.packsMax} packs hold something`)
  return rows
}

function packOf(row: PackRow): FundingPack {
  return {
    id: row.id,
    name: row.name,
    balance: printDecimal(new Decimal(row.balance)),
    priority: row.priority,
    validFrom: Number(row.valid_from),
    ...(row.expires === null ? {} : { expires: Number(row.expires) }),
    createdAt: Number(row.created_at),
  }
}

const key = (item: string, metric: string): string => JSON.stringify([item, metric])

function byMetric(rows: readonly PackRow[]): Map<string, PackRow[]> {
  const groups = new Map<string, PackRow[]>()
  for (const row of rows) {
    const group = groups.get(key(row.item, row.metric))
    if (group === undefined) groups.set(key(row.item, row.metric), [row])
    else group.push(row)
  }
  return groups
}

function instantOf(text: string, zone: string): number {
  return /^\d{4}-\d{2}-\d{2}$/.test(text) ? midnightOf(text, zone) : parseMoment('expires', text)
}
