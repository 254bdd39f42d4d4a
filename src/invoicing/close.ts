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
 * The usage side is reached through one function that is handed in; this file imports nothing of it.
 */
import type { Pool } from 'pg'
import { assert } from '../assert.js'
import type { Catalog, Terms } from '../catalog/catalog.js'
import { midnightOf } from '../catalog/schedule.js'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { monthlyPeriodOf, type Period } from '../period.js'
import { draftInvoice, type ItemUsage } from './draft.js'
import type { Invoicing, KeptInvoice } from './invoicing.js'

export type { ItemUsage } from './draft.js'

/**
 * Counts the usage of a period at a cut. `closing` names the cut: asked again with the same name, the same cut must be used. An
 * answer has one entry for every metric of every item that was asked, 0 included.
 */
export type UsageAtCut = (request: {
  readonly closing: string
  readonly tenant: string
  readonly contract: string
  readonly items: readonly { readonly item: string; readonly metrics: readonly string[] }[]
  readonly period: Period
}) => Promise<readonly ItemUsage[]>

export interface CloseOptions {
  readonly postgres: Pool
  readonly clock: Clock
  readonly catalog: Catalog
  readonly invoicing: Invoicing
  readonly usageAtCut: UsageAtCut
  /** The cut of a closing is needed no more: folds may cross it. Called again after a crash. */
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
}

export interface Closed {
  readonly closing: string
  readonly period: Period
  readonly state: ClosingState
  /** Null when nothing was due. */
  readonly invoice: KeptInvoice | null
}

type ClosingState = 'open' | 'measured' | 'drafted' | 'done'
interface Measured {
  readonly terms: Terms
  readonly usage: readonly ItemUsage[]
}
interface Row {
  id: string
  state: ClosingState
  measured: Measured | null
  invoice: string | null
}

/**
 * Closes a contract's period, or goes on where an earlier attempt stopped. Throws ReleveError `not_found` for an unknown contract
 * and `conflict` when the period has not ended or is still in grace.
 */
export async function closePeriod(options: CloseOptions, request: CloseRequest): Promise<Closed> {
  const { postgres, clock, catalog, invoicing } = options
  const contract = catalog.book().contractOf(request.contract)
  const anchor = midnightOf(contract.start, contract.timeZone)
  if (request.at < anchor) throw new ReleveError('unprocessable', `at: the contract begins on ${contract.start}`)
  const period = monthlyPeriodOf(request.at, anchor, contract.timeZone)
  const due = period.to + (request.graceMs ?? limits.graceMs)
  if (clock.now() < due) {
    throw new ReleveError('conflict', `period: it can be closed from ${new Date(due).toISOString()} on, with its grace`)
  }
  const closing = `${contract.id}/${period.from}`

  let row = await openClosing(postgres, clock, closing, contract.id, period)
  if (row.state === 'open') {
    row = await measure(options, closing, period)
    await options.crashPoint?.('measured')
  }
  if (row.state === 'measured') {
    row = await draft(options, row, period)
    await options.crashPoint?.('drafted')
  }
  if (row.state === 'drafted' && request.finalise !== false) {
    assert(row.invoice !== null, 'a drafted closing has an invoice')
    await invoicing.finalise(row.invoice)
    row = await advance(postgres, clock, closing, 'done', row.invoice)
  }
  if (row.state === 'done') await options.releaseCut?.(closing)
  return { closing, period, state: row.state, invoice: row.invoice === null ? null : await invoicing.get(row.invoice) }
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
async function measure(
  { postgres, clock, catalog, usageAtCut }: CloseOptions,
  closing: string,
  period: Period,
): Promise<Row> {
  const contract = closing.slice(0, closing.lastIndexOf('/'))
  const terms = catalog.terms(contract, period)
  const usage = await usageAtCut({
    closing,
    tenant: terms.contract.tenant,
    contract,
    items: terms.items.map((item) => ({ item: item.item, metrics: item.metrics.map((metric) => metric.metric) })),
    period,
  })
  for (const item of terms.items) {
    for (const { metric } of item.metrics) {
      if (!usage.some((one) => one.item === item.item && one.metric === metric)) {
        throw new ReleveError('unavailable', `usage: ${item.item} ${metric} was not counted`)
      }
    }
  }
  const measured: Measured = { terms, usage }
  await postgres.query(
    `UPDATE closings SET state = 'measured', measured = $2, updated_at = $3 WHERE id = $1 AND state = 'open'`,
    [closing, measured, clock.now()],
  )
  return read(postgres, closing)
}

async function draft({ postgres, clock, invoicing }: CloseOptions, row: Row, period: Period): Promise<Row> {
  assert(row.measured !== null, 'a measured closing holds its terms and usage')
  const invoice = draftInvoice(invoicing.newId(), row.measured.terms, period, row.measured.usage)
  if (invoice.lines.length === 0) return advance(postgres, clock, row.id, 'done', null)
  const kept = await invoicing.draft(invoice)
  return advance(postgres, clock, row.id, 'drafted', kept.invoice.id)
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
  const { rows } = await postgres.query<Row>('SELECT id, state, measured, invoice FROM closings WHERE id = $1', [id])
  assert(rows[0] !== undefined, `closing ${id} is there`)
  return rows[0]
}

/** The invoice as it would be, without keeping anything: for previews. Usage is counted as the caller likes. */
export function previewInvoice(
  catalog: Catalog,
  contract: string,
  period: Period,
  usage: readonly ItemUsage[],
): KeptInvoice['invoice'] {
  return draftInvoice('preview', catalog.terms(contract, period), period, usage)
}
