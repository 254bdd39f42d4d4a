/**
 * What contract items have of their metrics at present, where that is not simply all that the customer uses of it: others take a
 * part of it (objects/share.ts), the item covers a part of the period, or packs stand behind its quota. Counted as a closing would,
 * from what is flushed; the live balances say what came since, so that an answer is never less than what was used.
 */
import type pg from 'pg'
import { ROLLUP_SCALE } from './amount.js'
import type { Book } from './catalog/book.js'
import type { Catalog, Terms } from './catalog/catalog.js'
import type { Contract } from './catalog/contract.js'
import { isBilled, partOf, periodAt } from './catalog/part.js'
import type { Clock } from './clock.js'
import { Decimal, printDecimal } from './decimal.js'
import type { StreamFlow } from './flow.js'
import { type ItemUsage, limitOf } from './invoicing/draft.js'
import { limits } from './limits.js'
import { boundTo } from './objects/objects.js'
import { shareOf, takes } from './objects/share.js'
import type { Period } from './period.js'
import type { PackState, Prepaid } from './prepaid/prepaid.js'
import type { RealRoom, Rooms } from './quota/guard.js'
import { figureOf } from './rollup/measure.js'
import type { Rollup } from './rollup/rollup.js'
import { type CompleteOptions, fleetQuantity, itemUsage } from './shared-usage.js'

export interface LiveItem {
  readonly contract: string
  readonly item: string
  readonly period: Period
  /** What it has of the period, and what all of its customer is; decimal texts. */
  readonly usage: string
  readonly total: string
  /** Of the part that it covers; null: unlimited, also of a fleet, whose objects have their own. */
  readonly limit: string | null
  /** Whether others have a part of the metric, or the rest of the period. */
  readonly shared: boolean
  readonly prepaid: LivePacks | null
}

export interface LivePacks extends PackState {
  /** Usage at which quota and packs have nothing left. */
  readonly room: string
}

interface Kept {
  readonly book: Book
  readonly epoch: number
  readonly packs: number
  readonly until: number
  readonly items: Promise<readonly LiveItem[]>
}

export interface LiveItemsOptions {
  readonly postgres: pg.Pool
  readonly catalog: Catalog
  readonly clock: Clock
  readonly rollup: Rollup
  readonly prepaid: Prepaid
  readonly flowOf: (tenant: string) => StreamFlow
}

export class LiveItems {
  readonly #o: LiveItemsOptions
  /** By tenant and metric; the one asked for the longest ago goes first. */
  readonly #kept = new Map<string, Kept>()
  /** Those whose items simply have all of it: nearly all, and each check asks. */
  #plain: { readonly book: Book | null; readonly packs: number; readonly until: number; readonly keys: Set<string> } = {
    book: null,
    packs: 0,
    until: 0,
    keys: new Set(),
  }

  constructor(options: LiveItemsOptions) {
    this.#o = options
  }

  /** Items of a customer that have a metric, when any of them does not simply have all of it; else undefined, from memory. */
  of(tenant: string, metric: string): Promise<readonly LiveItem[]> | undefined {
    const { catalog, clock, prepaid, flowOf } = this.#o
    const book = catalog.book()
    const now = clock.now()
    const key = `${tenant.length} ${tenant}${metric}`
    const { epoch } = flowOf(tenant).position
    const kept = this.#kept.get(key)
    const isFresh = kept?.book === book && kept.epoch === epoch && kept.packs === prepaid.version && now < kept.until
    if (isFresh) return kept!.items
    const plain = this.#plain
    if (
      plain.book !== book ||
      plain.packs !== prepaid.version ||
      now >= plain.until ||
      plain.keys.size > limits.livePlainMax
    )
      this.#plain = { book, packs: prepaid.version, until: now + limits.liveItemsMs, keys: new Set() }
    else if (plain.keys.has(key)) return undefined
    const own = itemsOf(book, tenant, metric, now)
    if (!own.some((one) => one.shared) && !own.some((one) => prepaid.has(one.contract, one.item.id, metric))) {
      this.#plain.keys.add(key)
      return undefined
    }
    const items = Promise.all(own.map((one) => this.#count(book, tenant, metric, one, epoch, now)))
    this.#kept.delete(key)
    this.#kept.set(key, { book, epoch, packs: prepaid.version, until: now + limits.liveItemsMs, items })
    if (this.#kept.size > limits.liveItemsMax) this.#kept.delete(this.#kept.keys().next().value!)
    items.catch(() => this.#kept.delete(key))
    return items
  }

  /** The same at any instant, whoever has all of it or not; counted anew. */
  at(tenant: string, metric: string, instant: number): Promise<readonly LiveItem[]> {
    const { catalog, flowOf } = this.#o
    const book = catalog.book()
    const { epoch } = flowOf(tenant).position
    const own = itemsOf(book, tenant, metric, instant)
    return Promise.all(own.map((one) => this.#count(book, tenant, metric, one, epoch, instant)))
  }

  /** Of these items, those that take the usage of a subject at present; of none in particular: those that name none. */
  async taking(tenant: string, metric: string, subject: string | null): Promise<ReadonlySet<string>> {
    const { catalog, clock, postgres } = this.#o
    const book = catalog.book()
    const now = clock.now()
    const bound = subject === null ? [] : await boundTo(postgres, tenant, subject, now)
    const taking = itemsOf(book, tenant, metric, now).filter(({ contract, item, covers }) => {
      if (covers === null || now < covers.from || now >= covers.to) return false
      if (item.fleet !== undefined) return bound.some((one) => one.contract === contract.id && one.parent === item.id)
      const share = shareOf(book, { contract: contract.id, item: item.id }, tenant, metric, covers)
      return share === null || takes(share, subject ?? '', now, bound)
    })
    return new Set(taking.map(({ item }) => item.id))
  }

  async #count(
    book: Book,
    tenant: string,
    metric: string,
    { contract, item, period, covers, shared }: Own,
    epoch: number,
    now: number,
  ): Promise<LiveItem> {
    const { prepaid, catalog } = this.#o
    const count = (part: Period): Promise<string> => this.#all(tenant, metric, part, epoch)
    const total = await count(period)
    const known = { contract: contract.id, item: item.id, period, shared, total, limit: null, prepaid: null }
    if (covers === null) return { ...known, usage: '0' }
    const share = async (part: Period, quantity: string): Promise<string> =>
      this.#share(book, { contract, item }, tenant, metric, part, quantity, epoch)
    const whole = covers.from === period.from && covers.to === period.to
    const usage = shared ? await share(covers, whole ? total : await count(covers)) : total
    if (item.fleet !== undefined) return { ...known, usage }
    const terms = catalog.terms(contract.id, period)
    const limit = limitIn(terms, item.id, metric, period)
    if (limit === null || !prepaid.has(contract, item.id, metric)) return { ...known, usage, limit }
    const part = async (range: Period): Promise<string> => {
      const quantity = await count(range)
      return shared ? share(range, quantity) : quantity
    }
    const before = await this.#unclosed(contract, item, metric, period, part)
    const state = await prepaid.state({ terms, item: item.id, metric, period, usage, before, count: part, now })
    const room = printDecimal(new Decimal(usage).plus(state.left))
    return { ...known, usage, limit, prepaid: { ...state, room } }
  }

  /** The period before, while its closing has not debited it. */
  async #unclosed(
    contract: Contract,
    item: Own['item'],
    metric: string,
    period: Period,
    count: (part: Period) => Promise<string>,
  ): Promise<{ terms: Terms; period: Period; usage: string } | null> {
    const { postgres, catalog } = this.#o
    const before = periodAt(contract, period.from - 1)
    if (!isBilled(contract, before)) return null
    const covers = partOf(contract, item, before)
    if (covers === null) return null
    const { rows } = await postgres.query(
      'SELECT 1 FROM closings WHERE contract = $1 AND period_from = $2 AND part = 0 AND measured IS NOT NULL',
      [contract.id, before.from],
    )
    if (rows.length > 0) return null
    const terms = catalog.terms(contract.id, before)
    if (limitIn(terms, item.id, metric, before) === null) return null
    return { terms, period: before, usage: await count(covers) }
  }

  /** All that a tenant has of a metric, up to an epoch. */
  async #all(tenant: string, metric: string, { from, to }: Period, epoch: number): Promise<string> {
    const { catalog, rollup, flowOf } = this.#o
    const { aggregation } = catalog.metric(metric)
    const { stream, position } = flowOf(tenant)
    const { rows } = await rollup.usage({
      ...{ tenant, metric, aggregation, from, to, window: null, timeZone: 'UTC', groupBy: [], stream, epoch },
      folded: position.folded,
      unfolded: position.unfolded,
    })
    return (rows[0] === undefined ? null : figureOf(aggregation, rows[0])) ?? '0'
  }

  async #share(
    book: Book,
    { contract, item }: Pick<Own, 'contract' | 'item'>,
    tenant: string,
    metric: string,
    part: Period,
    quantity: string,
    epoch: number,
  ): Promise<string> {
    const { postgres, rollup, catalog, flowOf } = this.#o
    const { stream, position } = flowOf(tenant)
    const one: ItemUsage = {
      ...{ item: item.id, metric, quantity, count: 0, digest: '', query: '' },
      cut: { [stream]: epoch },
    }
    const options: CompleteOptions = {
      store: postgres,
      rollup,
      stream,
      folded: position.folded,
      metricOf: (key) => catalog.metric(key),
      headsOf: () => null,
      book,
      which: 'all',
      source: 'rollups',
    }
    const of = { contract: contract.id, tenant }
    if (item.fleet !== undefined) return fleetQuantity(options, one, of, part)
    return (await itemUsage(options, one, of, part)).quantity
  }
}

interface Own {
  readonly contract: Contract
  readonly item: Contract['items'][number]
  readonly period: Period
  /** Null: nothing of the period. */
  readonly covers: Period | null
  readonly shared: boolean
}

/** Items that give a metric at present. Those of a trial, of which nothing is billed, have all of it. */
function itemsOf(book: Book, tenant: string, metric: string, now: number): Own[] {
  return book.contractsOf(tenant).flatMap((contract): Own[] =>
    contract.state !== 'active'
      ? []
      : contract.items.flatMap((item): Own[] => {
          if (!item.entitlements.some((one) => one.metric === metric)) return []
          const period = periodAt(contract, now)
          const covers = partOf(contract, item, period)
          const whole = covers !== null && covers.from === period.from && covers.to === period.to
          const own = { contract: contract.id, item: item.id }
          const shared =
            !whole || item.fleet !== undefined || shareOf(book, own, tenant, metric, covers ?? period) !== null
          return [{ contract, item, period, covers, shared }]
        }),
  )
}

function limitIn(terms: Terms, id: string, key: string, period: Period): string | null {
  const item = terms.items.find((one) => one.item === id)
  const metric = item?.metrics.find((one) => one.metric === key)
  return item === undefined || metric === undefined ? null : limitOf(item, metric, terms, period)
}

/** What the guard asks of them. */
export function roomsOf(items: LiveItems): Rooms {
  return (tenant, metric, subject) => {
    const found = items.of(tenant, metric)
    if (found === undefined) return undefined
    return (async () => {
      const taking = await items.taking(tenant, metric, subject)
      const own = (await found).filter(({ item }) => taking.has(item))
      return new Map(
        own.map(({ item, usage, total, limit, prepaid }): [string, RealRoom] => {
          const included = prepaid?.room ?? limit
          return [
            item,
            {
              others: scaled(new Decimal(total).minus(usage)),
              included: included === null ? null : scaled(new Decimal(included)),
              blocks: prepaid?.exhaustion === 'block',
              exhaustion: prepaid?.exhaustion ?? null,
            },
          ]
        }),
      )
    })()
  }
}

const scaled = (value: Decimal): bigint => BigInt(value.times(10 ** ROLLUP_SCALE).toFixed(0))
