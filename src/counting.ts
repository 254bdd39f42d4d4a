/**
 * Usage as billing asks for it: at a cut that is kept, as it stands, or from the archive alone, with its proof. The one place where
 * billing reaches streams and rollups; prices and invoices are not known here.
 *
 * Quantities come from the rollups with their proof from the archive. Where the two disagree nothing is billed: a figure that
 * cannot be proved is for an operator first.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import type { Book, Terms } from './catalog/book.js'
import type { Catalog } from './catalog/catalog.js'
import type { Clock } from './clock.js'
import { ReleveError } from './errors.js'
import type { StreamFlow } from './flow.js'
import { type PartAtCut, type UsageAtCut, type Wanted, wantedOf, withPriceParts } from './invoicing/close.js'
import type { CloseManyOptions, CountRequest } from './invoicing/close-many.js'
import type { ItemUsage } from './invoicing/draft.js'
import type { Recount, RecountPart } from './invoicing/verify.js'
import { limits } from './limits.js'
import type { Period } from './period.js'
import { archivedFigure, measureMany } from './rollup/measure.js'
import { type ArchivedEvent, eventsBehind, prove, valuesBehind } from './rollup/proof.js'
import type { Rollup } from './rollup/rollup.js'
import { type CompleteOptions, completeUsage, itemUsage } from './shared-usage.js'

export interface CountingOptions {
  readonly postgres: pg.Pool
  readonly clock: Clock
  readonly catalog: Catalog
  readonly rollup: Rollup
  /** All streams, by number. */
  readonly flows: readonly StreamFlow[]
  readonly flowOf: (tenant: string) => StreamFlow
}

export class Counting {
  readonly #postgres: pg.Pool
  readonly #clock: Clock
  readonly #catalog: Catalog
  readonly #rollup: Rollup
  readonly #flows: readonly StreamFlow[]
  readonly #flowOf: CountingOptions['flowOf']
  /** Epochs that somebody waits for and that have not begun. */
  readonly #freshening = new Map<StreamFlow, Promise<void>>()
  readonly #freshAt = new Map<StreamFlow, number>()

  constructor(options: CountingOptions) {
    this.#postgres = options.postgres
    this.#clock = options.clock
    this.#catalog = options.catalog
    this.#rollup = options.rollup
    this.#flows = options.flows
    this.#flowOf = options.flowOf
  }

  /** The cut of a closing is taken once and kept: asked again, the same events are counted. */
  async atCut({ closing, tenant, items, period }: Parameters<UsageAtCut>[0], proved = true): Promise<ItemUsage[]> {
    const epochs = await this.#cutOf(closing, tenant)
    const { stream } = this.#flowOf(tenant)
    const epoch = epochs[String(stream)]
    if (epoch === undefined) throw new ReleveError('conflict', `the cut of ${closing} does not name stream ${stream}`)
    return this.#measure(tenant, period, epoch, items, proved)
  }

  async #cutOf(closing: string, tenant: string): Promise<Record<string, number>> {
    const kept = async (): Promise<Record<string, number> | undefined> =>
      (await this.#postgres.query('SELECT epochs FROM cuts WHERE id = $1', [closing])).rows[0]?.epochs
    const before = await kept()
    if (before !== undefined) return before
    const flow = this.#flowOf(tenant)
    const epochs = { [flow.stream]: await flow.cut() }
    await flow.verify()
    await this.#postgres.query('INSERT INTO cuts (id, epochs, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [
      closing,
      JSON.stringify(epochs),
      this.#clock.now(),
    ])
    // Two closers of one period take one cut: the row that is there.
    return (await kept()) as Record<string, number>
  }

  async releaseCut(closing: string): Promise<void> {
    await this.#postgres.query('UPDATE cuts SET released_at = coalesce(released_at, $2) WHERE id = $1', [
      closing,
      this.#clock.now(),
    ])
  }

  /** One cut of all streams. Those that a killed batch has left are released: nothing was kept from them. */
  async openBatchCut(): Promise<Awaited<ReturnType<CloseManyOptions['openCut']>>> {
    const release = async (): Promise<void> => {
      await this.#postgres.query(
        `UPDATE cuts SET released_at = $1 WHERE released_at IS NULL AND starts_with(id, 'batch:')`,
        [this.#clock.now()],
      )
    }
    await release()
    const epochs = Object.fromEntries(
      await Promise.all(this.#flows.map(async (flow) => [flow.stream, await flow.cut()] as const)),
    )
    await this.#postgres.query('INSERT INTO cuts (id, epochs, created_at) VALUES ($1, $2, $3)', [
      `batch:${randomUUID()}`,
      JSON.stringify(epochs),
      this.#clock.now(),
    ])
    return { release, count: (requests) => this.#many(requests, epochs) }
  }

  /**
   * Resolves when what the log has of a tenant by now is in what `now` reads. Those who ask meanwhile share an epoch, and a stream
   * makes at most one in limits.freshEveryMs for them. Throws ReleveError `overloaded` when the store is too far behind.
   */
  async fresh(tenant: string): Promise<void> {
    const flow = this.#flowOf(tenant)
    if (flow.isFlushed) return
    const ready = this.#freshening.get(flow) ?? this.#freshen(flow)
    this.#freshening.set(flow, ready)
    ready.catch(() => {})
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      const refuse = (): void => {
        const detail = 'what was stored is not counted yet: the store of usage is behind'
        reject(new ReleveError('overloaded', detail, { retryAfterS: 5 }))
      }
      timer = setTimeout(refuse, limits.freshWaitMs)
    })
    await Promise.race([ready, late]).finally(() => clearTimeout(timer))
  }

  async #freshen(flow: StreamFlow): Promise<void> {
    const wait = (this.#freshAt.get(flow) ?? Number.NEGATIVE_INFINITY) + limits.freshEveryMs - performance.now()
    await sleep(Math.max(0, wait))
    // Who asks from here on may have stored more than this one sees.
    this.#freshening.delete(flow)
    this.#freshAt.set(flow, performance.now())
    await flow.cut()
  }

  /** Many contracts as they stand. */
  manyNow(requests: readonly CountRequest[]): Promise<(ItemUsage[] | { mismatch: string })[]> {
    return this.#many(requests, Object.fromEntries(this.#flows.map((flow) => [flow.stream, flow.position.epoch])))
  }

  /** Contracts of one stream together; an answer per request, in their order. */
  async #many(
    requests: readonly CountRequest[],
    epochs: Readonly<Record<string, number>>,
  ): Promise<(ItemUsage[] | { mismatch: string })[]> {
    const answers: (ItemUsage[] | { mismatch: string })[] = requests.map(() => [])
    for (const flow of this.#flows) {
      const asked = requests.flatMap(({ tenant, items, period }, request) =>
        this.#flowOf(tenant) !== flow
          ? []
          : items.flatMap(({ item, metrics, period: part = period }) =>
              metrics.map((key) => ({ request, item, ...this.#question(tenant, key, part) })),
            ),
      )
      const epoch = epochs[String(flow.stream)]!
      const cut = { [flow.stream]: epoch }
      const { stream } = flow
      const found = await measureMany(this.#rollup, asked, { stream, epoch, folded: flow.position.folded })
      for (const [i, { mismatch, ...usage }] of found.entries()) {
        const { request, item, metric } = asked[i]!
        const answer = answers[request]!
        if (mismatch !== null) answers[request] = { mismatch }
        else if (Array.isArray(answer)) answer.push({ item, metric: metric.key, cut, ...usage })
      }
    }
    return answers
  }

  /** A period as it stands, with the usage data that `which` names. */
  async now(terms: Terms, period: Period, which: CompleteOptions['which']): Promise<readonly ItemUsage[]> {
    const { tenant } = terms.contract
    const counted = await this.#measure(tenant, period, this.#flowOf(tenant).position.epoch, wantedOf(terms))
    return this.complete(terms, period, counted, which)
  }

  /** What was counted of a tenant, as its items have it. */
  async complete(
    terms: Terms,
    period: Period,
    counted: readonly ItemUsage[],
    which: CompleteOptions['which'],
  ): Promise<readonly ItemUsage[]> {
    const usage = await withPriceParts(terms, period, counted, this.partNow(terms))
    return completeUsage(this.completing(terms.contract.tenant, this.#catalog.book(), which), { terms, period, usage })
  }

  /** Parts of periods as they stand. */
  partNow({
    contract: { id: contract, tenant },
  }: Terms): (item: string, metric: string, part: Period) => Promise<string> {
    const { epoch } = this.#flowOf(tenant).position
    return async (item, metric, part) => {
      const [found] = await this.#measure(tenant, part, epoch, [{ item, metrics: [metric], period: part }])
      return (await this.#ofItem(found!, { contract, tenant }, part)).quantity
    }
  }

  /** What an item has of a metric in a part of a period, at the cut of a closing. */
  async partAtCut({ closing, tenant, contract, item, metric, part }: Parameters<PartAtCut>[0]): Promise<string> {
    const items = [{ item, metrics: [metric], period: part }]
    const [found] = await this.atCut({ closing, tenant, contract, items, period: part })
    return (await this.#ofItem(found!, { contract, tenant }, part)).quantity
  }

  #ofItem(found: ItemUsage, of: { contract: string; tenant: string }, part: Period): Promise<ItemUsage> {
    return itemUsage(this.completing(of.tenant, this.#catalog.book(), 'pending'), found, of, part)
  }

  /** What makes of a tenant's usage that of its items; without a book from the archive alone. */
  completing(tenant: string, book: Book | null, which: CompleteOptions['which']): CompleteOptions {
    const { stream, position } = this.#flowOf(tenant)
    return {
      store: this.#postgres,
      rollup: this.#rollup,
      stream,
      folded: position.folded,
      metricOf: (key) => this.#catalog.metric(key),
      headsOf: (key) => this.#catalog.book().pricedByEvent(key),
      book,
      which,
    }
  }

  /** A metric of a period at a cut, from the archive alone. */
  readonly recount: Recount = async ({ tenant, metric: key, period, cut }) => {
    const metric = this.#catalog.metric(key)
    if (!metric.archive) return null
    const { stream } = this.#flowOf(tenant)
    const epoch = cut[String(stream)] ?? 0
    const { aggregation, percentile } = metric
    const proof = await prove(this.#rollup, { tenant, metric: key, aggregation, percentile, period, stream, epoch })
    const heads = this.#catalog.book().pricedByEvent(key)
    const values = { tenant, metric: key, period, stream, epoch }
    return {
      quantity: archivedFigure(aggregation, period, proof),
      count: proof.events,
      digest: proof.digest,
      ...(heads === null ? {} : { amounts: (await valuesBehind(this.#rollup, values, heads)) ?? [] }),
    }
  }

  /** The same, of what an item has. */
  readonly recountPart: RecountPart = async (one, tenant, part) => {
    const found = await this.recount({ tenant, metric: one.metric, period: part, cut: one.cut })
    if (found === null) return null
    const of = { contract: '', tenant }
    return (await itemUsage(this.completing(tenant, null, 'pending'), { ...one, ...found }, of, part)).quantity
  }

  /** The archived events of a metric of a period, in the order of the log, at most a page. */
  async eventsBehind(request: {
    tenant: string
    metric: string
    period: Period
    cut: Readonly<Record<string, number>>
    since: Readonly<Record<string, number>>
    after: string
    limit: number
  }): Promise<ArchivedEvent[]> {
    const { tenant, metric, period, cut, since, after, limit } = request
    const { stream } = this.#flowOf(tenant)
    const [epoch, from] = [cut[String(stream)] ?? 0, since[String(stream)] ?? 0]
    return eventsBehind(this.#rollup, { tenant, metric, period, stream, epoch, since: from, after, limit })
  }

  #question(tenant: string, key: string, period: Period) {
    const heads = this.#catalog.book().pricedByEvent(key) ?? undefined
    return { tenant, metric: this.#catalog.metric(key), period, heads }
  }

  async #measure(
    tenant: string,
    period: Period,
    epoch: number,
    items: readonly Wanted[],
    proved = true,
  ): Promise<ItemUsage[]> {
    const { stream, position } = this.#flowOf(tenant)
    const asked = items.flatMap(({ item, metrics, period: part = period }) =>
      metrics.map((key) => ({ item, ...this.#question(tenant, key, part) })),
    )
    const found = await measureMany(this.#rollup, asked, { stream, epoch, folded: position.folded })
    return found.map(({ mismatch, ...usage }, i): ItemUsage => {
      if (mismatch !== null && proved) throw new ReleveError('conflict', mismatch)
      return { item: asked[i]!.item, metric: asked[i]!.metric.key, cut: { [stream]: epoch }, ...usage }
    })
  }
}
