/**
 * Billing: road part two as the doors may call it: close a period, close all that are due, preview, verify, and what stands behind a
 * line. It hands the usage side (counting.ts) to invoicing, which asks for it through ports.
 */
import { availableParallelism } from 'node:os'
import type pg from 'pg'
import type { Catalog, Terms } from './catalog/catalog.js'
import { billsTheSame } from './catalog/invoiced.js'
import { midnightOf } from './catalog/schedule.js'
import type { Clock } from './clock.js'
import { Counting } from './counting.js'
import { ReleveError } from './errors.js'
import type { StreamFlow } from './flow.js'
import { dateIn } from './format.js'
import {
  type Closed,
  type CloseOptions,
  closePeriod,
  type DataPort,
  invoicedUntil,
  measuredFor,
  measuredOf,
  periodOf,
  termsOf,
  type UsageAtCut,
} from './invoicing/close.js'
import { type CloseManyReport, closeMany } from './invoicing/close-many.js'
import { type LateFinding, previewLate, settleLate } from './invoicing/correct.js'
import { draftInvoice, type ItemUsage } from './invoicing/draft.js'
import { type DraftPool, openDraftPool } from './invoicing/draft-batch.js'
import type { ObjectCharge } from './invoicing/fleet.js'
import type { Prepaid as Funds } from './invoicing/funding.js'
import type { DataProof, Invoice, InvoiceLine, Notice } from './invoicing/invoice.js'
import type { Invoicing, KeptInvoice, Mover } from './invoicing/invoicing.js'
import { invoiceSale } from './invoicing/sale.js'
import { isOpen } from './invoicing/state.js'
import { type Verification, verifyInvoice } from './invoicing/verify.js'
import { keepCharges } from './objects/charges.js'
import { isShared } from './objects/share.js'
import type { Period } from './period.js'
import type { PackInput, Prepaid } from './prepaid/prepaid.js'
import type { ArchivedEvent } from './rollup/proof.js'
import type { Rollup } from './rollup/rollup.js'
import { rateShadow, type ShadowAnswer, type ShadowRequest } from './shadow-rating.js'
import { completeUsage } from './shared-usage.js'
import { span } from './tracing.js'
import { claim, readBy, unreadNow } from './usage-data/collect.js'
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

export interface LineData {
  /** What the line says; null: no usage data are behind it. */
  readonly proof: DataProof | null
  readonly calculators: Awaited<ReturnType<typeof readBy>>['calculators']
  readonly usageData: readonly KeptDatum[]
  readonly next: string | null
}

/** A page of what stands behind a line. */
export interface LinePage {
  readonly invoice: string
  readonly tenant: string | null
  readonly line: number
  /** `next` of the page before, or empty. */
  readonly after: string
  readonly limit: number
}

export class Billing {
  readonly #postgres: pg.Pool
  readonly #clock: Clock
  readonly #catalog: Catalog
  readonly #invoicing: Invoicing
  readonly #usageData: UsageData
  readonly #prepaid: Prepaid
  readonly #counting: Counting
  readonly #graceMs: number
  #draftPool: DraftPool | undefined
  #batch = false

  constructor(options: BillingOptions) {
    this.#postgres = options.postgres
    this.#clock = options.clock
    this.#catalog = options.catalog
    this.#invoicing = options.invoicing
    this.#usageData = options.usageData
    this.#prepaid = options.prepaid
    this.#counting = new Counting(options)
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
    const usageAtCut: UsageAtCut = (asked) => this.#counting.atCut(asked, false)
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
    await this.#counting.fresh(this.#catalog.book().contractOf(request.contract).tenant)
    return this.#late(request)
  }

  async #late(request: { contract: string; at: number }): Promise<LateFinding> {
    return previewLate(this.#closing(), request, {
      // What closings have collected, up to the last there may be: their order is an int.
      whole: (terms, period) => this.#counting.now(terms, period, { upTo: 2 ** 31 - 1 }),
      part: (terms) => this.#counting.partNow(terms),
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
          { ...this.#closing(), pool, openCut: () => this.#counting.openBatchCut() },
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
    const counting = this.#counting
    return {
      postgres: this.#postgres,
      clock: this.#clock,
      catalog: this.#catalog,
      invoicing: this.#invoicing,
      usageAtCut: (asked) => counting.atCut(asked),
      partAtCut: (asked) => counting.partAtCut(asked),
      data: this.#data,
      prepaid: this.#prepaid,
      settleLate: (request) =>
        settleLate(this.#closing(), { ...request, by: { actor: 'system', reason: 'late usage' } }),
      isStale: async (request) => (await this.#late(request)).goes === 'draft',
      releaseCut: (closing) => counting.releaseCut(closing),
    }
  }

  /** What a closing adds to the figures of its tenant's metrics, in its own transaction. */
  readonly #data: DataPort = {
    collect: async (client, { closing, order, parts, now }) => {
      const usage: (readonly ItemUsage[])[] = []
      const notices: Notice[] = []
      for (const part of parts) {
        notices.push(...(await claim(client, { closing, order, terms: part.terms, period: part.period, now })))
        const completing = this.#counting.completing(part.terms.contract.tenant, this.#catalog.book(), { upTo: order })
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

  /**
   * What the invoice of a period (by default the running one) would be by the usage of now. Nothing is kept. Its notices are those of
   * a draft: for a customer, only `customerNotices` of them.
   */
  async previewInvoice(contract: string, at: number = this.#clock.now()): Promise<KeptInvoice['invoice']> {
    const { period } = periodOf({ catalog: this.#catalog }, { contract, at })
    const terms = await termsOf(this.#postgres, this.#catalog, contract, period)
    await this.#counting.fresh(terms.contract.tenant)
    const usage = await this.#counting.now(terms, period, 'all')
    const unread = await unreadNow(this.#postgres, terms, period)
    return draftInvoice('preview', terms, period, usage, [], unread, await this.#packsFor(terms, period, usage))
  }

  /** The packs of a period: as its closing found them, or as they are now. */
  async #packsFor(terms: Terms, period: Period, usage: readonly ItemUsage[]): Promise<Funds | undefined> {
    const measured = await measuredOf(this.#postgres, terms.contract.id, period.from)
    if (measured !== null) return measured.prepaid
    const parts = await this.#prepaid.partsOf(terms, period, this.#counting.partNow(terms))
    return this.#prepaid.fund(this.#postgres, { terms, period, usage, parts })
  }

  /** What changed prices or plans would have made of real usage. */
  async shadow(request: ShadowRequest): Promise<ShadowAnswer> {
    const options = { clock: this.#clock, catalog: this.#catalog, counting: this.#counting, prepaid: this.#prepaid }
    return rateShadow({ ...options, packsFor: (...part) => this.#packsFor(...part) }, request)
  }

  /** The first day of a contract that is not invoiced, YYYY-MM-DD in its zone; null when nothing is. */
  async openFrom(contract: string): Promise<string | null> {
    const until = await invoicedUntil(this.#postgres, contract)
    return until === null ? null : dateIn(until, this.#catalog.book().contractOf(contract).timeZone)
  }

  /** Throws ReleveError `conflict` for a day of a period that was invoiced: what changes then would be in no document. */
  async assertNotInvoiced(contract: string, day: string, field: string): Promise<void> {
    const { timeZone } = this.#catalog.book().contractOf(contract)
    const until = await invoicedUntil(this.#postgres, contract)
    if (until === null || midnightOf(day, timeZone, field) >= until) return
    const open = dateIn(until, timeZone)
    throw new ReleveError(
      'conflict',
      `${field}: ${contract} is invoiced up to ${open}; choose that day or a later one, and correct what was invoiced by a credit note`,
    )
  }

  /**
   * Throws ReleveError `conflict` for a draft whose contract has been changed since in what it bills; one that a later period was
   * counted on top of cannot be counted again, and stands.
   */
  async assertDraftStands(id: string): Promise<void> {
    const { invoice, state } = await this.#invoicing.get(id)
    const contract = this.#catalog.book().contracts.get(invoice.contract)
    if (!isOpen(state) || contract === undefined) return
    const measured = await measuredFor(this.#postgres, invoice)
    if (measured === null || measured.sale === true || measured.corrected !== undefined) return
    if (billsTheSame(this.#catalog.book(), measured.terms.contract, contract, invoice.period.to)) return
    const { rows } = await this.#postgres.query(
      'SELECT 1 FROM closings WHERE contract = $1 AND period_from > $2 AND measured IS NOT NULL LIMIT 1',
      [contract.id, invoice.period.from],
    )
    if (rows.length > 0) return
    throw new ReleveError(
      'conflict',
      `invoice: ${contract.id} was changed since this draft was made; count it again with POST /v1/invoices/${invoice.id}/refresh, look at it, and issue that one`,
    )
  }

  /** Whether an invoice is what its archived events and pinned prices say; nothing is changed. */
  async verifyInvoice(idOrNumber: string, tenant: string | null = null): Promise<Verification> {
    const counting = this.#counting
    return verifyInvoice(
      {
        postgres: this.#postgres,
        invoicing: this.#invoicing,
        book: this.#catalog.book(),
        recount: counting.recount,
        recountPart: counting.recountPart,
        recountData: (part, order) =>
          completeUsage(counting.completing(part.terms.contract.tenant, null, { upTo: order }), part),
      },
      idOrNumber,
      tenant,
    )
  }

  /** The archived events behind a line, in the order of the log, at most a page; `next` continues behind it. */
  async invoiceEvents(request: LinePage): Promise<{ events: ArchivedEvent[]; next: string | null }> {
    const { invoice } = await this.#invoicing.get(request.invoice, request.tenant)
    const { metric, proof, period, since } = lineOf(invoice, request)
    if (metric === null || proof === null) return { events: [], next: null }
    const { after, limit } = request
    const { tenant } = invoice
    const events = await this.#counting.eventsBehind({
      tenant,
      metric,
      period,
      cut: proof.cut,
      since: since ?? {},
      after,
      limit,
    })
    return { events, next: events.length < limit ? null : (events.at(-1)?.position ?? null) }
  }

  /**
   * The usage data behind a line: the rows that its calculators have read, with their count and digest counted anew to be held
   * against its proof, at most a page of rows; `next` continues behind it. Throws ReleveError `not_found`, and `conflict` when the
   * measure of a dropped draft is gone.
   */
  async invoiceData(request: LinePage): Promise<LineData> {
    const { invoice } = await this.#invoicing.get(request.invoice, request.tenant)
    const line = lineOf(invoice, request)
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
}

function lineOf(invoice: Invoice, { invoice: name, line: no }: LinePage): InvoiceLine {
  const line = invoice.lines.find((one) => one.no === no)
  if (line === undefined)
    throw new ReleveError('not_found', `${name} has no line ${no}; its lines are 1 to ${invoice.lines.length}`)
  return line
}
