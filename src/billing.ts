/**
 * Billing: road part two as the doors may call it: close a period, close all that are due, preview, verify, and the events behind a
 * line. It brings the usage side (a cut of a stream, quantities with their proof) to invoicing, which asks for it through ports.
 */
import { randomUUID } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type pg from 'pg'
import type { Book } from './catalog/book.js'
import type { Catalog, Terms } from './catalog/catalog.js'
import { midnightOf } from './catalog/schedule.js'
import type { Clock } from './clock.js'
import { ReleveError } from './errors.js'
import type { StreamFlow } from './flow.js'
import {
  type Closed,
  type CloseOptions,
  closePeriod,
  type DataPort,
  measuredFor,
  measuredOf,
  periodOf,
  previewInvoice,
  termsOf,
  type UsageAtCut,
  withPriceParts,
} from './invoicing/close.js'
import { type CloseManyOptions, type CloseManyReport, type CountRequest, closeMany } from './invoicing/close-many.js'
import { type LateFinding, previewLate, settleLate } from './invoicing/correct.js'
import type { ItemUsage } from './invoicing/draft.js'
import { type DraftPool, openDraftPool } from './invoicing/draft-batch.js'
import type { ObjectCharge } from './invoicing/fleet.js'
import type { Prepaid as Funds } from './invoicing/funding.js'
import type { DataProof, Notice } from './invoicing/invoice.js'
import type { Invoicing, KeptInvoice, Mover } from './invoicing/invoicing.js'
import { invoiceSale } from './invoicing/sale.js'
import {
  type ShadowChange,
  type ShadowPeriod,
  type ShadowSide,
  type ShadowSums,
  shadowItems,
  shadowPeriod,
  shadowSums,
  shadowTerms,
  shadowTotals,
} from './invoicing/shadow.js'
import { type Recount, type Verification, verifyInvoice } from './invoicing/verify.js'
import { limits } from './limits.js'
import { keepCharges } from './objects/charges.js'
import { isShared } from './objects/share.js'
import type { Period } from './period.js'
import type { PackInput, Prepaid } from './prepaid/prepaid.js'
import { archivedFigure, measureMany } from './rollup/measure.js'
import { type ArchivedEvent, eventsBehind, prove, valuesBehind } from './rollup/proof.js'
import type { Rollup } from './rollup/rollup.js'
import { type CompleteOptions, completeUsage, itemUsage } from './shared-usage.js'
import { span } from './tracing.js'
import { claim, readBy } from './usage-data/collect.js'
import type { KeptDatum, UsageData } from './usage-data/usage-data.js'

export interface BillingOptions {
  readonly postgres: pg.Pool
  readonly clock: Clock
  readonly catalog: Catalog
  readonly invoicing: Invoicing
  readonly rollup: Rollup
  readonly usageData: UsageData
  readonly prepaid: Prepaid
  /** All streams, by number. */
  readonly flows: readonly StreamFlow[]
  readonly flowOf: (tenant: string) => StreamFlow
  /** How long after the end of a period late events are still awaited, ms. */
  readonly graceMs: number
}

export interface ShadowRequest {
  readonly change: ShadowChange
  /** Epoch ms: periods that begin in [from, to). */
  readonly from: number
  readonly to: number
  readonly tenant?: string
  readonly contracts?: readonly string[]
  /** The last contract of the page before. */
  readonly after?: string
  readonly limit: number
}

export interface ShadowAnswer {
  readonly contracts: readonly (ShadowSums & {
    readonly contract: string
    readonly tenant: string
    readonly currency: string
    readonly periods: readonly ShadowPeriod[]
  })[]
  /** Of this page, by currency: how many pay more, less, the same. */
  readonly totals: readonly (ShadowSums & {
    readonly currency: string
    readonly more: number
    readonly less: number
    readonly same: number
  })[]
  readonly failed: readonly { readonly contract: string; readonly reason: string }[]
  readonly next: string | null
}

export interface LineData {
  /** What the line says; null: no usage data are behind it. */
  readonly proof: DataProof | null
  readonly calculators: Awaited<ReturnType<typeof readBy>>['calculators']
  readonly usageData: readonly KeptDatum[]
  readonly next: string | null
}

export class Billing {
  readonly #postgres: pg.Pool
  readonly #clock: Clock
  readonly #catalog: Catalog
  readonly #invoicing: Invoicing
  readonly #rollup: Rollup
  readonly #usageData: UsageData
  readonly #prepaid: Prepaid
  readonly #flows: readonly StreamFlow[]
  readonly #flowOf: BillingOptions['flowOf']
  readonly #graceMs: number
  #draftPool: DraftPool | undefined
  #batch = false

  constructor(options: BillingOptions) {
    this.#postgres = options.postgres
    this.#clock = options.clock
    this.#catalog = options.catalog
    this.#invoicing = options.invoicing
    this.#rollup = options.rollup
    this.#usageData = options.usageData
    this.#prepaid = options.prepaid
    this.#flows = options.flows
    this.#flowOf = options.flowOf
    this.#graceMs = options.graceMs
  }

  async close(): Promise<void> {
    await this.#draftPool?.close()
  }

  /** Closes the period of a contract that holds `at`: usage at a cut, rated, drafted and, unless told otherwise, issued. */
  async closePeriod(request: {
    contract: string
    at: number
    finalise?: boolean
    early?: boolean
    unproved?: boolean
  }): Promise<Closed> {
    if (request.finalise !== false) await this.redraft([request.contract])
    const options = this.#closing()
    if (request.unproved !== true) {
      return span('close period', { finalise: request.finalise ?? true }, () =>
        closePeriod(options, { ...request, graceMs: this.#graceMs }),
      )
    }
    // What the rollups say, for a person to look at: it is never issued by this.
    const usageAtCut: UsageAtCut = (asked) => this.#countAtCut(asked, false)
    return closePeriod({ ...options, usageAtCut }, { ...request, finalise: false, graceMs: this.#graceMs })
  }

  /** Drops a draft and counts its period again. Throws ReleveError `conflict` for an issued one, and below a later period. */
  async refreshInvoice(id: string, by: Mover): Promise<Closed> {
    const { invoice } = await this.#invoicing.get(id)
    await this.#invoicing.discard(invoice.id, { ...by, reason: by.reason ?? 'counted again' })
    return closePeriod(this.#closing(), {
      contract: invoice.contract,
      at: invoice.period.from,
      finalise: false,
      early: true,
      graceMs: this.#graceMs,
    })
  }

  /** What has changed since a period was invoiced, and what would follow of it. Nothing is kept. */
  async previewLate(request: { contract: string; at: number }): Promise<LateFinding> {
    return previewLate(this.#closing(), request, {
      whole: (terms, period) => this.#countNow(terms, period),
      part: (terms) => this.#partNow(terms),
    })
  }

  /** Makes the complementary invoice or the credit note that the contract's policy asks for. */
  async settleLate(request: {
    contract: string
    at: number
    finalise?: boolean
    by?: Mover
  }): Promise<Awaited<ReturnType<typeof settleLate>>> {
    return settleLate(this.#closing(), request)
  }

  /** Sells a pack, and bills it now on an invoice of its own or with its period. Sent again with its id it is sold once. */
  async sellPack(
    { billing, ...input }: PackInput & { readonly billing?: 'now' | 'with_period' },
    by: Mover,
  ): Promise<Awaited<ReturnType<Prepaid['buy']>> & { readonly invoice: KeptInvoice | null }> {
    if (billing === 'now' && input.amount === undefined)
      throw new ReleveError('invalid_request', 'amount: is needed for an invoice of the pack')
    const sold = await this.#prepaid.buy(input)
    if (billing !== 'now') return { ...sold, invoice: null }
    const options = { ...this.#closing(), packs: this.#prepaid }
    return { ...sold, invoice: await invoiceSale(options, sold.pack.id, by) }
  }

  /** As it stands, with the data that closings have collected. */
  async #countNow(terms: Terms, period: Period): Promise<readonly ItemUsage[]> {
    const { tenant } = terms.contract
    const flow = this.#flowOf(tenant)
    const items = terms.items.map(({ item, metrics, period: part }) => ({
      item,
      metrics: metrics.map((metric) => metric.metric),
      ...(part === undefined ? {} : { period: part }),
    }))
    const counted = await this.#measure(tenant, period, flow.stream, flow.position.epoch, items)
    const usage = await withPriceParts(terms, period, counted, this.#partNow(terms))
    // The order of a closing is an int.
    const completing = this.#completing(tenant, this.#catalog.book(), { upTo: 2 ** 31 - 1 })
    return completeUsage(completing, { terms, period, usage })
  }

  /** Parts of periods, as they stand. */
  #partNow({
    contract: { id: contract, tenant },
  }: Terms): (item: string, metric: string, part: Period) => Promise<string> {
    const { stream, position } = this.#flowOf(tenant)
    return async (item, metric, part) => {
      const asked = [{ item, metrics: [metric], period: part }]
      const [found] = await this.#measure(tenant, part, stream, position.epoch, asked)
      return (
        await itemUsage(this.#completing(tenant, this.#catalog.book(), 'pending'), found!, { contract, tenant }, part)
      ).quantity
    }
  }

  /** Closes all contracts that are due, or those of a tenant. One batch at a time; restarted, it goes on where it was. */
  async closeDuePeriods(request: {
    at: number | null
    finalise?: boolean
    early?: boolean
    tenant?: string
  }): Promise<CloseManyReport> {
    if (this.#batch) throw new ReleveError('conflict', 'a batch closing is running')
    this.#batch = true
    this.#draftPool ??= openDraftPool(availableParallelism())
    try {
      if (request.finalise !== false) await this.redraft(null)
      const pool = this.#draftPool
      return await span('close due periods', {}, () =>
        closeMany(
          { ...this.#closing(), pool, openCut: () => this.#openBatchCut() },
          { ...request, graceMs: this.#graceMs },
        ),
      )
    } finally {
      this.#batch = false
    }
  }

  /**
   * Makes the drafts again whose period has usage data that came after they were made: of these contracts, or of all. A draft on
   * which a later period was counted stays; its data go to the next invoice, as a regularisation. Returns how many were made.
   */
  async redraft(contracts: readonly string[] | null, max = Number.POSITIVE_INFINITY): Promise<number> {
    let made = 0
    for (const stale of await this.#usageData.staleDrafts(contracts)) {
      if (made >= max) break
      try {
        await this.#invoicing.discard(stale.invoice)
      } catch (error) {
        if (error instanceof ReleveError && error.code === 'conflict') continue
        throw error
      }
      await closePeriod(this.#closing(), {
        contract: stale.contract,
        at: stale.periodFrom,
        finalise: false,
        early: true,
        graceMs: this.#graceMs,
      })
      made += 1
    }
    return made
  }

  #closing(): CloseOptions {
    const postgres = this.#postgres
    return {
      postgres,
      clock: this.#clock,
      catalog: this.#catalog,
      invoicing: this.#invoicing,
      usageAtCut: this.#usageAtCut,
      partAtCut: async ({ closing, tenant, contract, item, metric, part }) => {
        const items = [{ item, metrics: [metric], period: part }]
        const [found] = await this.#countAtCut({ closing, tenant, contract, items, period: part }, true)
        const completing = this.#completing(tenant, this.#catalog.book(), 'pending')
        return (await itemUsage(completing, found!, { contract, tenant }, part)).quantity
      },
      data: this.#data,
      prepaid: this.#prepaid,
      settleLate: (request) =>
        settleLate(this.#closing(), { ...request, by: { actor: 'system', reason: 'late usage' } }),
      isStale: async (request) => (await this.previewLate(request)).goes === 'draft',
      releaseCut: async (closing) => {
        await postgres.query('UPDATE cuts SET released_at = coalesce(released_at, $2) WHERE id = $1', [
          closing,
          this.#clock.now(),
        ])
      },
    }
  }

  #completing(tenant: string, book: Book | null, which: CompleteOptions['which']): CompleteOptions {
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

  /** What a closing adds to the figures of its tenant's metrics, in its own transaction. */
  readonly #data: DataPort = {
    collect: async (client, { closing, order, parts, now }) => {
      const usage: (readonly ItemUsage[])[] = []
      const notices: Notice[] = []
      for (const part of parts) {
        notices.push(...(await claim(client, { closing, order, terms: part.terms, period: part.period, now })))
        const completing = this.#completing(part.terms.contract.tenant, this.#catalog.book(), { upTo: order })
        const keep = (charges: readonly ObjectCharge[], item: string, period: Period) =>
          keepCharges(client, closing, charges, item, period)
        usage.push(await completeUsage({ ...completing, store: client, keep }, part))
      }
      return { usage, notices }
    },
    waiting: async (contracts) => {
      const book = this.#catalog.book()
      const shared = contracts.filter((id) => isShared(book, book.contractOf(id)))
      return new Set([...shared, ...(await this.#usageData.waiting(contracts))])
    },
  }

  /** One cut of all streams. Those that a killed batch has left are released: nothing was kept from them. */
  async #openBatchCut(): Promise<Awaited<ReturnType<CloseManyOptions['openCut']>>> {
    const postgres = this.#postgres
    const release = async (): Promise<void> => {
      await postgres.query(`UPDATE cuts SET released_at = $1 WHERE released_at IS NULL AND starts_with(id, 'batch:')`, [
        this.#clock.now(),
      ])
    }
    await release()
    const epochs = Object.fromEntries(
      await Promise.all(this.#flows.map(async (flow) => [flow.stream, await flow.cut()] as const)),
    )
    await postgres.query('INSERT INTO cuts (id, epochs, created_at) VALUES ($1, $2, $3)', [
      `batch:${randomUUID()}`,
      JSON.stringify(epochs),
      this.#clock.now(),
    ])
    return { release, count: (requests) => this.#countMany(requests, epochs) }
  }

  /** Contracts of one stream together; an answer per request, in their order. */
  async #countMany(
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

  #question(tenant: string, key: string, period: Period) {
    const heads = this.#catalog.book().pricedByEvent(key) ?? undefined
    return { tenant, metric: this.#catalog.metric(key), period, heads }
  }

  /** What the invoice of a period (by default the running one) would be by the usage of now. Nothing is kept. */
  async previewInvoice(contract: string, at: number = this.#clock.now()): Promise<KeptInvoice['invoice']> {
    const terms = this.#catalog.book().contractOf(contract)
    const { period } = periodOf({ catalog: this.#catalog }, { contract, at })
    const flow = this.#flowOf(terms.tenant)
    const items = this.#catalog.terms(contract, period).items.map(({ item, metrics, period: part }) => ({
      item,
      metrics: metrics.map((metric) => metric.metric),
      ...(part === undefined ? {} : { period: part }),
    }))
    const usage = await this.#measure(terms.tenant, period, flow.stream, flow.position.epoch, items)
    const own = await termsOf(this.#postgres, this.#catalog, contract, period)
    const countPart = this.#partNow(own)
    const cut = await withPriceParts(own, period, usage, countPart)
    const completing = this.#completing(terms.tenant, this.#catalog.book(), 'all')
    const counted = await completeUsage(completing, { terms: own, period, usage: cut })
    const prepaid = await this.#packsFor(own, period, counted, countPart)
    return previewInvoice(this.#catalog, contract, period, counted, prepaid, own)
  }

  /** The packs of a period: as its closing found them, or as they are now. */
  async #packsFor(
    terms: Terms,
    period: Period,
    usage: readonly ItemUsage[],
    count: (item: string, metric: string, part: Period) => Promise<string>,
  ): Promise<Funds | undefined> {
    const measured = await measuredOf(this.#postgres, terms.contract.id, period.from)
    if (measured !== null) return measured.prepaid
    const parts = await this.#prepaid.partsOf(terms, period, count)
    return this.#prepaid.fund(this.#postgres, { terms, period, usage, parts })
  }

  /**
   * What changed prices or plans would have made of real usage: contracts in the order of their ids, a page at a time, each with
   * its ended and running periods that begin in the range. Counted as it stands; nothing is kept.
   */
  async shadow(request: ShadowRequest): Promise<ShadowAnswer> {
    const book = this.#catalog.book()
    const { from, to, change } = request
    const wanted = request.contracts === undefined ? null : new Set(request.contracts)
    const all = [...book.contracts.values()]
      .filter((one) => (wanted === null || wanted.has(one.id)) && (request.tenant ?? one.tenant) === one.tenant)
      .filter((one) => one.state !== 'provisioned' && one.id > (request.after ?? ''))
      .sort((a, b) => (a.id < b.id ? -1 : 1))
    const page = all.slice(0, request.limit)
    const failed: { contract: string; reason: string }[] = []
    const asked: { contract: (typeof page)[number]; period: Period; before: Terms; after: Terms }[] = []
    for (const contract of page) {
      const own: typeof asked = []
      try {
        for (const period of this.#periodsIn(contract.id, from, Math.min(to, this.#clock.now()))) {
          const before = this.#catalog.terms(contract.id, period)
          own.push({ contract, period, before, after: shadowTerms(book, before, period, change) })
        }
        asked.push(...own)
      } catch (error) {
        if (error instanceof ReleveError && error.code === 'not_found') throw error
        failed.push({ contract: contract.id, reason: error instanceof Error ? error.message : String(error) })
      }
    }
    const epochs = Object.fromEntries(this.#flows.map((flow) => [flow.stream, flow.position.epoch]))
    const counted = await this.#countMany(
      asked.map(({ contract, period, before, after }) => ({
        tenant: contract.tenant,
        period,
        items: shadowItems(before, after),
      })),
      epochs,
    )
    const withPacks = await this.#prepaid.everHad(page.map((one) => one.id))
    const contracts = new Map<string, { contract: string; tenant: string; currency: string; periods: ShadowPeriod[] }>()
    for (const [i, { contract, period, before, after }] of asked.entries()) {
      // Others have their turn in between.
      if (i % 50 === 49) await nextTurn()
      const usage = counted[i]!
      try {
        if ('mismatch' in usage) throw new ReleveError('conflict', usage.mismatch)
        const { id, tenant } = contract
        const own = contracts.get(id) ?? { contract: id, tenant, currency: before.customer.currency, periods: [] }
        const sides: ShadowSide[] = []
        for (const terms of [before, after]) sides.push(await this.#shadowSide(terms, period, usage, withPacks.has(id)))
        own.periods.push(shadowPeriod(sides[0]!, sides[1]!, period))
        contracts.set(id, own)
      } catch (error) {
        failed.push({ contract: contract.id, reason: error instanceof Error ? error.message : String(error) })
      }
    }
    const sums = [...contracts.values()].map((one) => ({ ...one, ...shadowSums(one.periods, one.currency) }))
    return {
      contracts: sums,
      totals: shadowTotals(sums),
      failed,
      next: page.length < all.length ? (page.at(-1)?.id ?? null) : null,
    }
  }

  /** Terms with what they make of usage: shared, with usage data, object by object, and what packs pay of it. */
  async #shadowSide(terms: Terms, period: Period, usage: readonly ItemUsage[], packs: boolean): Promise<ShadowSide> {
    const { contract } = terms
    const book = this.#catalog.book()
    const more = contract.items.some((item) => item.calculators !== undefined || item.fleet !== undefined)
    const completing = this.#completing(contract.tenant, book, 'all')
    const { stream, position } = this.#flowOf(contract.tenant)
    const count = async (item: string, metric: string, part: Period): Promise<string> => {
      const asked = [{ item, metrics: [metric], period: part }]
      return (await this.#measure(contract.tenant, part, stream, position.epoch, asked))[0]!.quantity
    }
    const cut = await withPriceParts(terms, period, usage, count)
    const counted =
      more || isShared(book, contract) ? await completeUsage(completing, { terms, period, usage: cut }) : cut
    if (!packs) return { terms, usage: counted }
    const prepaid = await this.#packsFor(terms, period, counted, count)
    return { terms, usage: counted, ...(prepaid === undefined ? {} : { prepaid }) }
  }

  /** Periods of a contract that begin in a range. */
  #periodsIn(contract: string, from: number, to: number): Period[] {
    const found: Period[] = []
    const { start, timeZone } = this.#catalog.book().contractOf(contract)
    let at = Math.max(from, midnightOf(start, timeZone))
    while (at < to) {
      const { period } = periodOf({ catalog: this.#catalog }, { contract, at })
      if (period.from >= from) found.push(period)
      if (found.length > limits.shadowPeriodsMax)
        throw new ReleveError('unprocessable', `from, to: at most ${limits.shadowPeriodsMax} periods of a contract`)
      at = period.to
    }
    return found
  }

  /** Whether an invoice is what its archived events and pinned prices say; nothing is changed. */
  async verifyInvoice(idOrNumber: string, tenant: string | null = null): Promise<Verification> {
    return verifyInvoice(
      {
        postgres: this.#postgres,
        invoicing: this.#invoicing,
        book: this.#catalog.book(),
        recountData: (part, order) =>
          completeUsage(this.#completing(part.terms.contract.tenant, null, { upTo: order }), part),
        recount: (request) => this.#recount(request),
        recountPart: async (one, tenant, part) => {
          const found = await this.#recount({ tenant, metric: one.metric, period: part, cut: one.cut })
          if (found === null) return null
          const of = { contract: '', tenant }
          return (await itemUsage(this.#completing(tenant, null, 'pending'), { ...one, ...found }, of, part)).quantity
        },
      },
      idOrNumber,
      tenant,
    )
  }

  /** From the archive alone. */
  readonly #recount: Recount = async ({ tenant, metric: key, period, cut }) => {
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

  /** The archived events behind a line, in the order of the log, at most a page; `next` continues behind it. */
  async invoiceEvents(request: {
    invoice: string
    tenant: string | null
    line: number
    after: string
    limit: number
  }): Promise<{ events: ArchivedEvent[]; next: string | null }> {
    const { invoice } = await this.#invoicing.get(request.invoice, request.tenant)
    const line = invoice.lines.find((one) => one.no === request.line)
    if (line === undefined) throw new ReleveError('not_found', `${request.invoice} has no line ${request.line}`)
    if (line.metric === null || line.proof === null) return { events: [], next: null }
    const { stream } = this.#flowOf(invoice.tenant)
    const events = await eventsBehind(this.#rollup, {
      tenant: invoice.tenant,
      metric: line.metric,
      period: line.period,
      stream,
      epoch: line.proof.cut[String(stream)] ?? 0,
      since: line.since?.[String(stream)] ?? 0,
      after: request.after,
      limit: request.limit,
    })
    return { events, next: events.length < request.limit ? null : (events.at(-1)?.position ?? null) }
  }

  /**
   * The usage data behind a line: the rows that its calculators have read, with their count and digest counted anew to be held
   * against its proof, at most a page of rows; `next` continues behind it. Throws ReleveError `not_found`, and `conflict` when the
   * measure of a dropped draft is gone.
   */
  async invoiceData(request: {
    invoice: string
    tenant: string | null
    line: number
    after: string
    limit: number
  }): Promise<LineData> {
    const { invoice } = await this.#invoicing.get(request.invoice, request.tenant)
    const line = invoice.lines.find((one) => one.no === request.line)
    if (line === undefined) throw new ReleveError('not_found', `${request.invoice} has no line ${request.line}`)
    const proof = line.proof?.data ?? null
    if (proof === null) return { proof, calculators: [], usageData: [], next: null }
    const corrects = line.type === 'regularisation'
    // A credit note copies the lines of its invoice.
    const of =
      invoice.refersTo === null || corrects ? invoice : (await this.#invoicing.get(invoice.refersTo.id)).invoice
    const measured = await measuredFor(this.#postgres, of)
    if (measured === null) throw new ReleveError('conflict', `${invoice.id}: its period was measured again`)
    const late = measured.late.find(({ period }) => line.period.from >= period.from && line.period.from < period.to)
    const part = corrects && late !== undefined ? late : { terms: measured.terms, period: of.period }
    const { condition, values, calculators } = await readBy(this.#postgres, {
      terms: part.terms,
      period: part.period,
      item: line.item,
      calculators: proof.calculators,
      which: { upTo: measured.order },
    })
    const page = await this.#usageData.rowsOf({ condition, values }, request)
    return { proof, calculators, ...page }
  }

  /** The cut of a closing is taken once and kept: asked again, the same events are counted. */
  #usageAtCut: UsageAtCut = (asked) => this.#countAtCut(asked, true)

  async #countAtCut(
    { closing, tenant, items, period }: Parameters<UsageAtCut>[0],
    proved: boolean,
  ): Promise<ItemUsage[]> {
    const postgres = this.#postgres
    const flow = this.#flowOf(tenant)
    const kept = await postgres.query('SELECT epochs FROM cuts WHERE id = $1', [closing])
    let epochs: Record<string, number> | undefined = kept.rows[0]?.epochs
    if (epochs === undefined) {
      epochs = { [flow.stream]: await flow.cut() }
      await flow.verify()
      await postgres.query('INSERT INTO cuts (id, epochs, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [
        closing,
        JSON.stringify(epochs),
        this.#clock.now(),
      ])
      // Two closers of one period take one cut: the row that is there.
      epochs = (await postgres.query('SELECT epochs FROM cuts WHERE id = $1', [closing])).rows[0].epochs as Record<
        string,
        number
      >
    }
    const epoch = epochs[String(flow.stream)]
    if (epoch === undefined)
      throw new ReleveError('conflict', `the cut of ${closing} does not name stream ${flow.stream}`)
    return this.#measure(tenant, period, flow.stream, epoch, items, proved)
  }

  /**
   * Quantities from the rollups, with their proof from the archive. Where the two disagree nothing is billed: a figure that
   * cannot be proved is for an operator first.
   */
  async #measure(
    tenant: string,
    period: Period,
    stream: number,
    epoch: number,
    items: readonly { readonly item: string; readonly metrics: readonly string[]; readonly period?: Period }[],
    proved = true,
  ): Promise<ItemUsage[]> {
    const { folded } = this.#flowOf(tenant).position
    const asked = items.flatMap(({ item, metrics, period: part = period }) =>
      metrics.map((key) => ({ item, ...this.#question(tenant, key, part) })),
    )
    const found = await measureMany(this.#rollup, asked, { stream, epoch, folded })
    return found.map(({ mismatch, ...usage }, i): ItemUsage => {
      if (mismatch !== null && proved) throw new ReleveError('conflict', mismatch)
      return { item: asked[i]!.item, metric: asked[i]!.metric.key, cut: { [stream]: epoch }, ...usage }
    })
  }
}
