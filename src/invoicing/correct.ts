/**
 * What becomes of usage that changes after its period was invoiced: late events, voids, corrections. The period is counted again;
 * the difference to what was billed, by the terms of its own period, decides by the contract's policy:
 *
 *   the invoice is still a draft      the draft is counted again (billing.ts)
 *   more is due                       next_invoice (a regularisation there) · complementary_invoice · reject (a notice says so)
 *   less is due                       next_invoice · credit_note, tied to the invoice and numbered in its own series
 *
 * A correction has a closing of its own beside that of its period (part 1, 2 …) which keeps what was counted, so that nothing is
 * billed twice and it can be verified. Its draft and that closing are one transaction; issuing follows, and is repeated harmlessly.
 * What a preview says is kept nowhere.
 */
import { randomUUID } from 'node:crypto'
import type { PoolClient } from 'pg'
import { assert } from '../assert.js'
import { Decimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { Period } from '../period.js'
import {
  type CloseOptions,
  countItems,
  lastCounted,
  type Measured,
  partsAt,
  periodOf,
  refunded,
  sameQuantities,
  soldOf,
} from './close.js'
import { assertCreditable, referenceTo } from './credit.js'
import { draftCorrection, type ItemUsage } from './draft.js'
import type { Invoice } from './invoice.js'
import type { KeptInvoice, Mover } from './invoicing.js'
import { packJson, unpackJson } from './pack.js'
import { opposite } from './state.js'

export type LateGoes = 'nothing' | 'draft' | 'next_invoice' | 'complementary_invoice' | 'credit_note' | 'rejected'

export interface LateFinding {
  readonly contract: string
  readonly period: Period
  /** The period's invoice; null when nothing was due. */
  readonly invoice: { readonly id: string; readonly number: string | null; readonly state: KeptInvoice['state'] } | null
  readonly goes: LateGoes
  readonly differences: readonly {
    readonly item: string
    readonly metric: string
    readonly billed: string
    readonly now: string
  }[]
  /** The correction as it would be; null when nothing is due or the draft is counted again. */
  readonly document: Invoice | null
}

interface Kept {
  id: string
  part: number
  state: string
  place: number | null
  period_from: string
  measured: Buffer | null
  invoice: string | null
}

/** How the period is counted, and parts of it: at a cut that is kept, or as it stands. */
export interface Count {
  whole(terms: Measured['terms'], period: Period): Promise<readonly ItemUsage[]>
  part(terms: Measured['terms']): (item: string, metric: string, part: Period) => Promise<string>
}

/** What has changed since the period was invoiced, and what would follow. Throws ReleveError `conflict` when it was not closed. */
export async function previewLate(
  options: CloseOptions,
  request: { readonly contract: string; readonly at: number },
  count: Count,
): Promise<LateFinding> {
  const { period } = periodOf(options, request)
  return (await find(options, request.contract, period, await rowsOf(options.postgres, request.contract), count))
    .finding
}

async function find(options: CloseOptions, contract: string, period: Period, rows: readonly Kept[], count: Count) {
  const base = rows.find((row) => Number(row.period_from) === period.from && row.part === 0)
  if (base?.measured === null || base === undefined)
    throw new ReleveError('conflict', `period: it was not closed yet, so that nothing of it is late`)
  const all = measuredIn(rows)
  const { terms } = unpackJson<Measured>(base.measured)
  const kept = base.invoice === null ? null : await options.invoicing.get(base.invoice)
  const usage = await count.whole(terms, period)
  const packs = await options.prepaid?.partsOf(terms, period, count.part(terms), true)
  const counted = { period, terms, billed: lastOf(all, period), usage, ...soldOf(all, period) }
  const part = await refunded(options, options.postgres, counted, packs)
  const same = sameQuantities(part.billed, part.usage)
  const { invoice, goes } = ((): { invoice: Invoice | null; goes: LateGoes } => {
    if (same) return { invoice: null, goes: 'nothing' }
    if (base.state !== 'done') return { invoice: null, goes: 'draft' }
    const draft = draftCorrection('preview', part, null)
    const due = new Decimal(draft.ht)
    const { usage = 'next_invoice', corrections = 'next_invoice' } =
      options.catalog.book().contractOf(contract).late ?? {}
    if (due.isZero()) return { invoice: draft.lines.length === 0 ? null : draft, goes: 'next_invoice' }
    if (due.gt(0)) return { invoice: draft, goes: usage === 'reject' ? 'rejected' : usage }
    // Without an invoice there is nothing to be credited.
    return { invoice: draft, goes: kept === null || isCredited(kept) ? 'next_invoice' : corrections }
  })()
  const finding: LateFinding = {
    contract,
    period,
    invoice: kept === null ? null : { id: kept.invoice.id, number: kept.invoice.number, state: kept.state },
    goes,
    differences: part.usage.flatMap((now) => {
      const before = part.billed.find((one) => one.item === now.item && one.metric === now.metric)
      return before?.quantity === now.quantity
        ? []
        : [{ item: now.item, metric: now.metric, billed: before?.quantity ?? '0', now: now.quantity }]
    }),
    document: invoice,
  }
  return { finding, part, packs, kept }
}

const isCredited = ({ state }: KeptInvoice): boolean =>
  state === 'credited' || state === 'certifying' || state === 'rejected'

/**
 * Does what the policy says of an invoiced period, if it is a document of its own: drafts it, and issues it unless told otherwise.
 * Goes on where an earlier attempt stopped. What goes to the next invoice waits for its closing.
 */
export async function settleLate(
  options: CloseOptions,
  request: { readonly contract: string; readonly at: number; readonly finalise?: boolean; readonly by?: Mover },
): Promise<LateFinding & { readonly made: KeptInvoice | null }> {
  const { postgres, invoicing } = options
  const { period } = periodOf(options, request)
  const rows = await rowsOf(postgres, request.contract)
  const own = rows.filter((row) => Number(row.period_from) === period.from)
  const begun = own.find((row) => row.part > 0 && row.state === 'drafted')
  if (begun !== undefined) {
    const nothing = { whole: async () => lastOf(measuredIn(rows), period), part: () => async () => '0' }
    const { prepaid: _, ...asMade } = options
    const { finding } = await find(asMade, request.contract, period, rows, nothing)
    return { ...finding, made: await issue(options, begun.id, begun.invoice!, request) }
  }
  const no = 1 + own.reduce((highest, row) => Math.max(highest, row.part), 0)
  const closing = `${request.contract}/${period.from}/${no}`
  const cut = await cutOf(postgres, closing)
  const { finding, part, packs, kept } = await find(options, request.contract, period, rows, {
    whole: (terms, part) => countItems(options, cut, terms, part),
    part: (terms) => partsAt(options, cut, terms),
  }).finally(() => options.releaseCut?.(cut))
  if (finding.goes !== 'complementary_invoice' && finding.goes !== 'credit_note') return { ...finding, made: null }

  const id = invoicing.newId()
  const client = await postgres.connect()
  let made: Invoice
  try {
    await client.query('BEGIN')
    const now = options.clock.now()
    const locked = await rowsOf(client, request.contract, true)
    const order = 1 + highest(locked)
    if (highest(locked) !== highest(rows))
      throw new ReleveError('conflict', 'contract: another closing was faster; ask again')
    const collected = await options.data?.collect(client, { closing, order, parts: [part], now })
    await options.prepaid?.lock(client, request.contract)
    const own = { id: closing, attempt: 1 }
    const late = await refunded(options, client, { ...part, usage: collected?.usage[0] ?? part.usage }, packs, own)
    const refersTo = finding.goes === 'credit_note' && kept !== null ? referenceTo(kept.invoice) : null
    made = draftCorrection(id, late, refersTo)
    if (refersTo !== null && kept !== null)
      assertCreditable(kept.invoice.ttc, (await invoicing.creditedOf(client, refersTo.id)).ttc, opposite(made.ttc))
    const measured: Measured = {
      order,
      terms: part.terms,
      usage: late.usage,
      late: [],
      corrected: {
        billed: late.billed,
        ...(late.prepaid === undefined ? {} : { prepaid: late.prepaid }),
        ...(late.sold === undefined ? {} : { sold: late.sold }),
      },
    }
    await client.query(
      `INSERT INTO closings (id, contract, period_from, period_to, part, state, place, measured, invoice, created_at, updated_at)
       VALUES ($1, $2, $3, $4, $5, 'drafted', $6, $7, $8, $9, $9)`,
      [closing, request.contract, period.from, period.to, no, order, packJson(JSON.stringify(measured)), id, now],
    )
    // The closing's row is there: what it writes into the ledger counts from now on.
    await options.prepaid?.settle(client, late, own)
    await invoicing.keepDraft(client, made, no)
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined)
    if ((error as { code?: string }).code === '23505')
      throw new ReleveError('conflict', 'contract: another correction was faster; ask again')
    throw error
  } finally {
    client.release()
  }
  await options.crashPoint?.('drafted')
  return { ...finding, document: made, made: await issue(options, closing, id, request) }
}

/** Each attempt counts anew; only a cut that a dead one has left open is taken over, so that it does not stay open. */
async function cutOf(postgres: CloseOptions['postgres'], closing: string): Promise<string> {
  const { rows } = await postgres.query<{ id: string }>(
    'SELECT id FROM cuts WHERE starts_with(id, $1) AND released_at IS NULL LIMIT 1',
    [`${closing}@`],
  )
  return rows[0]?.id ?? `${closing}@${randomUUID()}`
}

async function issue(
  { postgres, clock, invoicing }: CloseOptions,
  closing: string,
  invoice: string,
  { finalise, by }: { readonly finalise?: boolean; readonly by?: Mover },
): Promise<KeptInvoice> {
  if (finalise === false) return invoicing.get(invoice)
  const issued = await invoicing.finalise(invoice, by)
  await postgres.query(`UPDATE closings SET state = 'done', updated_at = $2 WHERE id = $1`, [closing, clock.now()])
  return issued
}

function measuredIn(rows: readonly Kept[]): ({ readonly from: number } & Measured)[] {
  return rows.flatMap((row) =>
    row.measured === null ? [] : [{ from: Number(row.period_from), ...unpackJson<Measured>(row.measured) }],
  )
}

/** What was counted last of a period, for any invoice. */
function lastOf(all: ReturnType<typeof measuredIn>, period: Period): readonly ItemUsage[] {
  const last = lastCounted(all, period.from)
  assert(last !== null, 'a measured period was counted')
  return last
}

const highest = (rows: readonly Kept[]): number => rows.reduce((most, row) => Math.max(most, row.place ?? 0), 0)

async function rowsOf(postgres: Pick<PoolClient, 'query'>, contract: string, lock = false): Promise<Kept[]> {
  const { rows } = await postgres.query<Kept>(
    `SELECT id, part, state, place, period_from, measured, invoice FROM closings WHERE contract = $1 ORDER BY id
     ${lock ? 'FOR UPDATE' : ''}`,
    [contract],
  )
  return rows
}
