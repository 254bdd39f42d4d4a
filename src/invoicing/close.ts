/**
 * THE ROAD, part two: a period has ended → read usage at a cut → rate → draft → issue.
 *
 * A closing is a job with a row of its own; its states say what is already true, and each step is repeated harmlessly:
 *
 *   open ──measure──► measured ──draft──► drafted ──issue──► done
 *                     terms and usage     one invoice per     numbered; nothing is left to do
 *                     kept, once          contract + period
 *
 * `measured` is written once, by whoever is first; everything behind it is a function of what it holds. So a crash anywhere and a
 * second closer beside the first end in the same single invoice. Nothing due (no line) ends in done without an invoice.
 *
 * Usage that came after its period was closed is found by the closings of the next periods: they count the last few periods again
 * at their own cut, and what differs from what was billed is a regularisation on their invoice. What was billed is read under the
 * lock of all the contract's closings, so two closings never bill the same late usage.
 *
 * The usage side is reached through one function that is handed in; this file imports nothing of it.
 */
import { createHash } from 'node:crypto'
import type { Pool, PoolClient } from 'pg'
import { assert } from '../assert.js'
import type { Catalog, Terms } from '../catalog/catalog.js'
import { billsTheSame } from '../catalog/invoiced.js'
import { isBilled, periodAt } from '../catalog/part.js'
import { midnightOf } from '../catalog/schedule.js'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { Period } from '../period.js'
import { draftCorrection, draftInvoice, type ItemUsage, type LatePart } from './draft.js'
import type { PartsOf, Prepaid, Refunding } from './funding.js'
import type { Invoice, Notice } from './invoice.js'
import type { Invoicing, KeptInvoice } from './invoicing.js'
import { packJson, unpackJson } from './pack.js'
import { soldBy, soldLate } from './pack-ledger.js'
import { silentMeters } from './silent.js'
import { opposite } from './state.js'

export type { ItemUsage } from './draft.js'

/**
 * Counts the usage of a period at a cut. `closing` names the cut: asked again with the same name, the same cut must be used, for
 * any period. An answer has one entry for every metric of every item that was asked, 0 included.
 */
export type UsageAtCut = (request: {
  readonly closing: string
  readonly tenant: string
  readonly contract: string
  readonly items: readonly Wanted[]
  readonly period: Period
}) => Promise<readonly ItemUsage[]>

/** What is to be counted of an item. */
export interface Wanted {
  readonly item: string
  readonly metrics: readonly string[]
  /** Absent: the whole period. */
  readonly period?: Period
}

export function wantedOf({ items }: Pick<Terms, 'items'>): Wanted[] {
  return items.map(({ item, metrics, period }) => ({
    item,
    metrics: metrics.map((metric) => metric.metric),
    ...(period === undefined ? {} : { period }),
  }))
}

/** Counts what an item has of one metric in a part of a period, shared with others as the whole is. */
export type PartAtCut = (request: {
  readonly closing: string
  readonly tenant: string
  readonly contract: string
  readonly item: string
  readonly metric: string
  readonly part: Period
}) => Promise<string>

/** Usage data beside the stream, which are collected with the measure. */
export interface DataPort {
  /**
   * Their quantities are added to what was counted of each part (the period itself, then the earlier ones), and they belong to
   * this closing from the commit of its transaction on. One list per part, in their order.
   */
  collect(
    client: PoolClient,
    request: {
      readonly closing: string
      readonly order: number
      readonly parts: readonly {
        readonly terms: Terms
        readonly period: Period
        readonly usage: readonly ItemUsage[]
      }[]
      readonly now: number
    },
  ): Promise<{ readonly usage: readonly (readonly ItemUsage[])[]; readonly notices: readonly Notice[] }>
  /** Of these contracts, those that have any waiting. */
  waiting(contracts: readonly string[]): Promise<ReadonlySet<string>>
}

/** Prepaid packs, which are debited with the measure. */
export interface PrepaidPort {
  partsOf(
    terms: Terms,
    period: Period,
    count: (item: string, metric: string, part: Period) => Promise<string>,
    late?: boolean,
  ): Promise<PartsOf>
  /** They are debited from the commit of its transaction on. */
  fund(
    client: PoolClient,
    request: {
      readonly terms: Terms
      readonly period: Period
      readonly usage: readonly ItemUsage[]
      readonly parts: PartsOf
      readonly closing: { readonly id: string; readonly attempt: number }
    },
  ): Promise<Prepaid | undefined>
  /** What they could pay of a period that is counted again; `settle` writes it, in the transaction of its client. */
  refund(
    client: Pool | PoolClient,
    request: { readonly terms: Terms; readonly period: Period; readonly parts: PartsOf; readonly name?: string },
  ): Promise<readonly Refunding[]>
  settle(
    client: PoolClient,
    part: Pick<LatePart, 'terms' | 'period' | 'usage' | 'prepaid'>,
    closing: { readonly id: string; readonly attempt: number },
  ): Promise<void>
  lock(client: PoolClient, contract: string): Promise<void>
  /** Of these contracts, those that have any. */
  waiting(contracts: readonly string[]): Promise<ReadonlySet<string>>
}

export interface CloseOptions {
  readonly postgres: Pool
  readonly clock: Clock
  readonly catalog: Catalog
  readonly invoicing: Invoicing
  readonly usageAtCut: UsageAtCut
  /** What an item has of a metric in a part of a period, at the same cut; absent: all that the tenant uses. */
  readonly partAtCut?: PartAtCut
  readonly data?: DataPort
  readonly prepaid?: PrepaidPort
  /** Before a period is measured: makes the corrections of an earlier one that are documents of their own (correct.ts). */
  readonly settleLate?: (request: { contract: string; at: number; finalise: boolean }) => Promise<unknown>
  /** Whether usage has changed since a draft was made: then it is counted again before it is issued, as when its contract has. */
  readonly isStale?: (request: { contract: string; at: number }) => Promise<boolean>
  /** The cut of a closing is needed no more (its counts are kept): folds may cross it. May be called again. */
  readonly releaseCut?: (closing: string) => Promise<void>
  /** Called at named points, so that a test can die there: `measured`, `drafted` (and `number-taken`, in Invoicing). */
  readonly crashPoint?: (name: string) => void | Promise<void>
}

export interface CloseRequest {
  readonly contract: string
  /** Any instant inside the period, epoch ms. */
  readonly at: number
  /** Time that late events have after the period's end; default limits.graceMs. */
  readonly graceMs?: number
  /** false leaves a draft for a person to issue; default true. */
  readonly finalise?: boolean
  /** Drafts a period that has ended before its grace has: the draft is in `grace` until then, and is not issued. */
  readonly early?: boolean
}

export interface Closed {
  readonly closing: string
  readonly period: Period
  readonly state: ClosingState
  /** Null when nothing was due. */
  readonly invoice: KeptInvoice | null
}

type ClosingState = 'open' | 'measured' | 'drafted' | 'done'
/** What an invoice is a function of, as its closing keeps it. */
export interface Measured {
  /** Grows with each measuring of the contract's closings: the highest one that counted a period is what was billed of it. */
  readonly order: number
  readonly terms: Terms
  readonly usage: readonly ItemUsage[]
  /** Earlier periods whose usage has changed. */
  readonly late: readonly LatePart[]
  /** What was noticed while measuring. */
  readonly notices?: readonly Notice[]
  /** What prepaid packs there were. */
  readonly prepaid?: Prepaid
  /** Of a pack that is billed by itself: nothing of the period was counted. */
  readonly sale?: true
  /** Of a correction: what was billed of the period before it, and its packs. */
  readonly corrected?: Pick<LatePart, 'billed' | 'prepaid' | 'sold'>
}
interface Row {
  id: string
  state: ClosingState
  attempt: number
  measured: Measured | null
  invoice: string | null
}
/** As PostgreSQL has it. */
type Kept = Omit<Row, 'measured'> & { measured: Buffer | null }

/**
 * Closes a contract's period, or goes on where an earlier attempt stopped. Throws ReleveError `not_found` for an unknown contract
 * and `conflict` when the period has not ended or is still in grace.
 */
export async function closePeriod(options: CloseOptions, request: CloseRequest): Promise<Closed> {
  const { postgres, clock, invoicing } = options
  const { contract, period } = periodOf(options, request)
  const due = period.to + (request.graceMs ?? limits.graceMs)
  const inGrace = clock.now() < due
  if (inGrace && !(request.early === true && clock.now() >= period.to)) {
    throw new ReleveError('conflict', `period: it can be closed from ${new Date(due).toISOString()} on, with its grace`)
  }
  const closing = `${contract.id}/${period.from}`

  let row = await openClosing(postgres, clock, closing, contract.id, period)
  if (row.state === 'drafted' && row.invoice !== null && request.finalise !== false && !inGrace) {
    const changed =
      row.measured !== null && !billsTheSame(options.catalog.book(), row.measured.terms.contract, contract, period.to)
    const stale = changed || (await options.isStale?.({ contract: contract.id, at: period.from })) === true
    if (stale && (await discarded(invoicing, row.invoice))) row = await read(postgres, closing)
  }
  const cut = row.attempt === 1 ? closing : `${closing}#${row.attempt}`
  if (row.state === 'open') {
    const { late } = contract
    if (options.settleLate !== undefined && late !== undefined) {
      for (const earlier of await earlierClosings(postgres, contract.id, period))
        await options.settleLate({
          contract: contract.id,
          at: earlier.period.from,
          finalise: request.finalise !== false,
        })
    }
    row = await measure(options, row, cut, contract.id, period)
    await options.crashPoint?.('measured')
  }
  await options.releaseCut?.(cut)
  if (row.state === 'measured') {
    row = await draft(options, row, period)
    await options.crashPoint?.('drafted')
  }
  if (row.state === 'drafted' && inGrace) await invoicing.markGrace(row.invoice!)
  if (row.state === 'drafted' && request.finalise !== false && !inGrace) {
    assert(row.invoice !== null, 'a drafted closing has an invoice')
    await invoicing.finalise(row.invoice)
    row = await advance(postgres, clock, closing, 'done', row.invoice)
  }
  return { closing, period, state: row.state, invoice: row.invoice === null ? null : await invoicing.get(row.invoice) }
}

/** False when the draft has to stay: a later period was counted on top of it, and takes what came after. */
async function discarded(invoicing: Invoicing, invoice: string): Promise<boolean> {
  try {
    await invoicing.discard(invoice, { actor: 'system', reason: 'usage or the contract has changed: counted again' })
    return true
  } catch (error) {
    if (error instanceof ReleveError && error.code === 'conflict') return false
    throw error
  }
}

/** The contract and the period of it that a request means. Throws ReleveError `not_found` and `unprocessable`. */
export function periodOf(
  { catalog }: Pick<CloseOptions, 'catalog'>,
  request: { readonly contract: string; readonly at: number },
) {
  const contract = catalog.book().contractOf(request.contract)
  const period = periodAt(contract, request.at)
  if (isBilled(contract, period)) return { contract, period }
  const why =
    request.at < midnightOf(contract.start, contract.timeZone)
      ? `the contract begins on ${contract.start}`
      : contract.end === undefined
        ? `the contract is ${contract.state}, nothing of this period is billed`
        : `the contract ended on ${contract.end}`
  throw new ReleveError('unprocessable', `at: ${why}`)
}

async function openClosing(postgres: Pool, clock: Clock, id: string, contract: string, period: Period): Promise<Row> {
  await postgres.query(
    `INSERT INTO closings (id, contract, period_from, period_to, state, created_at, updated_at)
     VALUES ($1, $2, $3, $4, 'open', $5, $5) ON CONFLICT DO NOTHING`,
    [id, contract, period.from, period.to, clock.now()],
  )
  return read(postgres, id)
}

/** Terms and usage are kept by the first who has them; a second closer takes what is there. */
async function measure(options: CloseOptions, row: Row, cut: string, contract: string, period: Period): Promise<Row> {
  const { postgres, clock, catalog } = options
  const earlierOnes = await earlierClosings(postgres, contract, period)
  const terms = withBilledAhead(catalog.terms(contract, period), period, earlierOnes)
  let usage: readonly ItemUsage[]
  let packParts: PartsOf | undefined
  const recounted: (Omit<LatePart, 'billed'> & { readonly packs: PartsOf | undefined })[] = []
  const countPart = partsAt(options, cut, terms)
  try {
    usage = await countItems(options, cut, terms, period)
    packParts = await options.prepaid?.partsOf(terms, period, countPart)
    for (const earlier of earlierOnes) {
      const again = await countItems(options, cut, earlier.terms, earlier.period)
      const packs = await options.prepaid?.partsOf(earlier.terms, earlier.period, countPart, true)
      recounted.push({ ...earlier, usage: again, packs })
    }
  } catch (error) {
    // Another closer may have been faster and has released the cut: then what it kept is what counts.
    const now = await read(postgres, row.id)
    if (now.state === 'open') throw error
    return now
  }
  const client = await postgres.connect()
  try {
    await client.query('BEGIN')
    const all = await lockClosings(client, contract)
    const own = all.find((one) => one.id === row.id)
    if (own?.state === 'open' && own.attempt === row.attempt) {
      const measured = all.flatMap((one) => (one.measured === null ? [] : [{ from: one.periodFrom, ...one.measured }]))
      const order = 1 + measured.reduce((highest, one) => Math.max(highest, one.order), 0)
      const parts = [{ terms, period, usage }, ...recounted]
      const now = clock.now()
      const withData = await options.data?.collect(client, { closing: row.id, order, parts, now })
      const closing = { id: row.id, attempt: row.attempt }
      await options.prepaid?.lock(client, contract)
      const late: LatePart[] = []
      for (const [i, { packs, ...counted }] of recounted.entries()) {
        const billed = lastCounted(measured, counted.period.from)
        const again = withData?.usage[i + 1] ?? counted.usage
        if (billed === null || sameQuantities(billed, again)) continue
        const part = { ...counted, usage: again, billed, ...soldOf(measured, counted.period) }
        const whole = await refunded(options, client, part, packs, closing)
        const one = policed(whole, terms)
        // Packs pay before anything of the period that is closed now: what was used first is paid first.
        if (one.refused !== true) await options.prepaid?.settle(client, one, closing)
        late.push(one)
      }
      const counted = withData?.usage[0] ?? usage
      const before =
        earlierOnes.at(-1) === undefined ? [] : (lastCounted(measured, earlierOnes.at(-1)!.period.from) ?? [])
      const noticed = [...(withData?.notices ?? []), ...silentMeters(terms, counted, before)]
      const notices = noticed.length === 0 ? {} : { notices: noticed }
      const prepaid =
        packParts && (await options.prepaid?.fund(client, { terms, period, usage: counted, parts: packParts, closing }))
      const funded = prepaid === undefined ? {} : { prepaid }
      const value: Measured = { order, terms, usage: counted, late, ...notices, ...funded }
      await client.query(
        `UPDATE closings SET state = 'measured', measured = $2, place = $3, updated_at = $4 WHERE id = $1`,
        [row.id, packJson(JSON.stringify(value)), order, now],
      )
    }
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined)
    throw error
  } finally {
    client.release()
  }
  return read(postgres, row.id)
}

/** Counts an item's metric over a part of a period, at a cut. */
export function partsAt(
  { usageAtCut, partAtCut }: CloseOptions,
  cut: string,
  { contract: { id: contract, tenant } }: Terms,
): (item: string, metric: string, part: Period) => Promise<string> {
  return async (item, metric, part) => {
    if (partAtCut !== undefined) return partAtCut({ closing: cut, tenant, contract, item, metric, part })
    const items = [{ item, metrics: [metric], period: part }]
    return (await usageAtCut({ closing: cut, tenant, contract, items, period: part }))[0]!.quantity
  }
}

/** A period that was counted again, with what packs pay of it now. */
export async function refunded(
  { prepaid }: Pick<CloseOptions, 'prepaid'>,
  client: Pool | PoolClient,
  part: LatePart,
  parts: PartsOf | undefined,
  closing?: { readonly id: string; readonly attempt: number },
): Promise<LatePart> {
  if (prepaid === undefined || parts === undefined) return part
  const { terms, period } = part
  const name = closing === undefined ? {} : { name: `${closing.id}#${closing.attempt}` }
  const found = await prepaid.refund(client, { terms, period, parts, ...name })
  return found.length === 0 ? part : { ...part, prepaid: found }
}

export async function countItems(
  options: CloseOptions,
  cut: string,
  terms: Terms,
  period: Period,
): Promise<readonly ItemUsage[]> {
  const { contract } = terms
  const items = wantedOf(terms)
  const asked = { closing: cut, tenant: contract.tenant, contract: contract.id }
  const counted = await options.usageAtCut({ ...asked, items, period })
  const usage = await withPriceParts(terms, period, counted, partsAt(options, cut, terms))
  for (const { item, metrics } of items) {
    for (const metric of metrics) {
      if (!usage.some((one) => one.item === item && one.metric === metric)) {
        throw new ReleveError('unavailable', `usage: ${item} ${metric} was not counted`)
      }
    }
  }
  return usage
}

/** A part of a period, up to an instant at which a price changes within it. */
export interface PricePart {
  readonly item: string
  readonly metric: string
  readonly period: Period
}

export function pricePartsOf(terms: Terms, period: Period): PricePart[] {
  // Objects have their own parts, each with its own tiers.
  const fleets = new Set(terms.contract.items.filter((one) => one.fleet !== undefined).map((one) => one.id))
  return terms.items.flatMap((item) =>
    (fleets.has(item.item) ? [] : item.metrics).flatMap(({ metric, later = [] }) =>
      later.map(({ from: to }, i): PricePart => {
        const from = later[i - 1]?.from ?? item.period?.from ?? period.from
        return { item: item.item, metric, period: { from, to } }
      }),
    ),
  )
}

/** With the usage of the parts that prices which change within the period cut it into. */
export async function withPriceParts(
  terms: Terms,
  period: Period,
  usage: readonly ItemUsage[],
  count: (item: string, metric: string, part: Period) => Promise<string>,
): Promise<readonly ItemUsage[]> {
  const all = pricePartsOf(terms, period)
  if (all.length === 0) return usage
  const whole: ItemUsage[] = []
  for (const one of usage) {
    const parts: { period: Period; quantity: string }[] = []
    for (const { item, metric, period: part } of all)
      if (item === one.item && metric === one.metric)
        parts.push({ period: part, quantity: await count(item, metric, part) })
    whole.push(parts.length === 0 ? one : { ...one, parts })
  }
  return whole
}

/** The last few periods before this one that were measured, with the terms they are billed by. */
async function earlierClosings(
  postgres: Pool,
  contract: string,
  period: Period,
): Promise<Pick<LatePart, 'period' | 'terms'>[]> {
  const { rows } = await postgres.query<{ period_from: string; period_to: string; measured: Buffer }>(
    `SELECT period_from, period_to, measured FROM closings
     WHERE contract = $1 AND period_to <= $2 AND part = 0 AND measured IS NOT NULL ORDER BY period_from DESC LIMIT $3`,
    [contract, period.from, limits.latePeriodsMax],
  )
  return rows
    .map((row) => ({
      period: { from: Number(row.period_from), to: Number(row.period_to) },
      terms: unpackJson<Measured>(row.measured).terms,
    }))
    .reverse()
}

/** The packs of a period that were billed so far: by its closing, and by all that counted it again. */
export function soldOf(all: readonly ({ readonly from: number } & Measured)[], period: Period): Pick<LatePart, 'sold'> {
  const sold = all.flatMap((one) => {
    const again = one.late.filter((part) => part.period.from === period.from && part.refused !== true).flatMap(soldLate)
    if (one.from !== period.from || one.sale === true) return again
    const { prepaid, corrected, terms, usage } = one
    if (corrected !== undefined) return [...again, ...soldLate({ ...corrected, terms, period, usage })]
    return [...again, ...(prepaid === undefined ? [] : soldBy(prepaid, terms, period, usage))]
  })
  return sold.length === 0 ? {} : { sold }
}

/** The terms of a period as its closing would take them. */
export async function termsOf(postgres: Pool, catalog: Catalog, contract: string, period: Period): Promise<Terms> {
  return withBilledAhead(catalog.terms(contract, period), period, await earlierClosings(postgres, contract, period))
}

/** What the invoice of the period before has billed of this one, which may have changed since. */
export function withBilledAhead(
  terms: Terms,
  period: Period,
  earlier: readonly { readonly period: Period; readonly terms: Terms }[],
): Terms {
  const ahead = earlier.find((one) => one.period.to === period.from)?.terms.ahead
  return ahead === undefined ? terms : { ...terms, billedAhead: ahead }
}

async function lockClosings(
  client: PoolClient,
  contract: string,
): Promise<{ id: string; state: ClosingState; attempt: number; periodFrom: number; measured: Measured | null }[]> {
  const { rows } = await client.query<Kept & { period_from: string }>(
    'SELECT id, state, attempt, period_from, measured, invoice FROM closings WHERE contract = $1 ORDER BY id FOR UPDATE',
    [contract],
  )
  return rows.map((row) => ({ ...rowOf(row), periodFrom: Number(row.period_from) }))
}

/** What the contract does not bill is counted all the same, so that it is told once. */
function policed(part: LatePart, { contract }: Terms): LatePart {
  if (contract.late?.usage !== 'reject') return part
  return draftCorrection('policy', part, null).ht.startsWith('-') ? part : { ...part, refused: true }
}

/** What a period's usage was when it was last counted for an invoice. */
export function lastCounted(
  measured: readonly ({ readonly from: number } & Measured)[],
  from: number,
): readonly ItemUsage[] | null {
  let last: { order: number; usage: readonly ItemUsage[] } | null = null
  for (const one of measured) {
    if (one.sale === true) continue
    const usage = one.from === from ? one.usage : one.late.find((part) => part.period.from === from)?.usage
    if (usage !== undefined && (last === null || one.order > last.order)) last = { order: one.order, usage }
  }
  return last === null ? null : last.usage
}

/** Whether two countings of a period say the same. */
export function sameQuantities(a: readonly ItemUsage[], b: readonly ItemUsage[]): boolean {
  const text = (usage: readonly ItemUsage[]): string =>
    usage
      .map((one) =>
        JSON.stringify([
          one.item,
          one.metric,
          one.quantity,
          one.count,
          one.data?.count,
          one.data?.digest,
          one.fleet?.exact,
          one.fleet?.later,
        ]),
      )
      .sort()
      .join()
  return text(a) === text(b)
}

async function draft({ postgres, clock, invoicing }: CloseOptions, row: Row, period: Period): Promise<Row> {
  assert(row.measured !== null, 'a measured closing holds its terms and usage')
  const { terms, usage, late, notices, prepaid } = row.measured
  const invoice = draftInvoice(invoicing.newId(), terms, period, usage, late, notices, prepaid)
  // Nothing due: the closing itself keeps what was counted.
  if (invoice.lines.length === 0) return advance(postgres, clock, row.id, 'done', null)
  const kept = await invoicing.draft((await asCredit(invoicing, row, invoice)) ?? invoice)
  return advance(postgres, clock, row.id, 'drafted', kept.invoice.id)
}

/**
 * A period that comes to less than nothing (fees were billed in advance, then the contract was cancelled or became smaller) is a
 * credit note on the last invoice that leaves so much to credit. Null when there is none: then the draft is for a person.
 */
async function asCredit(invoicing: Invoicing, { id, attempt }: Row, invoice: Invoice): Promise<Invoice | null> {
  if (!invoice.ttc.startsWith('-')) return null
  const refersTo = await invoicing.creditableBefore(invoice.contract, invoice.period.from, opposite(invoice.ttc))
  if (refersTo === null) return null
  // Two closers make one: the id is that of the attempt.
  const own = createHash('sha256').update(`${id}#${attempt}`).digest('hex').slice(0, 32)
  return { ...invoice, id: `inv_${own}`, kind: 'credit_note', refersTo }
}

/** States only move forward, whoever comes late. */
async function advance(
  postgres: Pool,
  clock: Clock,
  id: string,
  state: ClosingState,
  invoice: string | null,
): Promise<Row> {
  await postgres.query(
    `UPDATE closings SET state = $2, invoice = $3, updated_at = $4
     WHERE id = $1 AND array_position(ARRAY['open', 'measured', 'drafted', 'done'], state)
                       < array_position(ARRAY['open', 'measured', 'drafted', 'done'], $2)`,
    [id, state, invoice, clock.now()],
  )
  return read(postgres, id)
}

async function read(postgres: Pool, id: string): Promise<Row> {
  const { rows } = await postgres.query<Kept>(
    'SELECT id, state, attempt, measured, invoice FROM closings WHERE id = $1',
    [id],
  )
  assert(rows[0] !== undefined, `closing ${id} is there`)
  return rowOf(rows[0])
}

function rowOf(kept: Kept): Row {
  return { ...kept, measured: kept.measured === null ? null : unpackJson<Measured>(kept.measured) }
}

/** What was measured for the invoice of a contract's period; null when the closing now stands for another one. */
export async function measuredFor(postgres: Pool, invoice: KeptInvoice['invoice']): Promise<Measured | null> {
  const { rows } = await postgres.query<Kept>(
    `SELECT id, state, attempt, measured, invoice FROM closings
     WHERE contract = $1 AND period_from = $2 AND (part = 0 OR invoice = $3) ORDER BY (invoice = $3) DESC NULLS LAST LIMIT 1`,
    [invoice.contract, invoice.period.from, invoice.id],
  )
  const row = rows[0]
  return row === undefined || (row.invoice !== null && row.invoice !== invoice.id) ? null : rowOf(row).measured
}

/** The end of the last period that is closed for good, also by a person who has issued its draft; null when there is none. */
export async function invoicedUntil(postgres: Pick<Pool, 'query'>, contract: string): Promise<number | null> {
  const { rows } = await postgres.query<{ until: string | null }>(
    `SELECT max(c.period_to) AS until FROM closings c LEFT JOIN invoices i ON i.id = c.invoice
     WHERE c.contract = $1 AND c.part = 0 AND (c.state = 'done' OR i.number IS NOT NULL)`,
    [contract],
  )
  return rows[0]?.until == null ? null : Number(rows[0].until)
}

/** What the closing of a period has counted; null when it was not closed. */
export async function measuredOf(postgres: Pool, contract: string, periodFrom: number): Promise<Measured | null> {
  const { rows } = await postgres.query<{ measured: Buffer | null }>(
    'SELECT measured FROM closings WHERE contract = $1 AND period_from = $2 AND part = 0',
    [contract, periodFrom],
  )
  const measured = rows[0]?.measured
  return measured == null ? null : unpackJson<Measured>(measured)
}
