/**
 * Invoices in PostgreSQL: draft, issue, send, pay, credit, discard, read. Front of the room; close.ts is the road that leads here.
 *
 * Issuing is one transaction: lock the invoice, take the next number under the lock of its series' row, write the final document
 * with its hash. A crash anywhere in it gives the number back, so series have no gap; the lock makes racers wait, so they have no
 * double. After it the row does not change any more: a trigger of the database refuses, whoever asks. Another trigger writes each move
 * down with its actor. An invoice whose seller is under a clearance system is numbered and waits for it (certification.ts).
 */
import { randomUUID } from 'node:crypto'
import { DateTime } from 'luxon'
import type { Pool, PoolClient } from 'pg'
import { assert } from '../assert.js'
import { assertPattern, printNumber, seriesOf } from '../catalog/number-pattern.js'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { dateIn } from '../format.js'
import { limits } from '../limits.js'
import { inTransaction } from '../transaction.js'
import { type Credited, creditedBy, draftCreditNote } from './credit.js'
import { customerNotices, hashOf, type Invoice, type Reference } from './invoice.js'
import { packJson, unpackJson } from './pack.js'
import { tellSilent } from './silent.js'
import { assertInvoiceMove, deletionOf, type InvoiceState, isOpen, isWithheld } from './state.js'

export type { Invoice, InvoiceLine, Notice, Proof, UsageStatement } from './invoice.js'
export type { InvoiceState } from './state.js'

/** An invoice with what is beside its document. */
export interface KeptInvoice {
  readonly state: InvoiceState
  /** SHA-256 of the issued document, hex; null for a draft. */
  readonly hash: string | null
  readonly createdAt: number
  readonly changedAt: number
  readonly invoice: Invoice
}

/** Who moves an invoice, for its journal. */
export interface Mover {
  readonly actor: string
  readonly reason?: string | undefined
}

export interface InvoiceMove {
  readonly from: InvoiceState
  readonly to: InvoiceState
  readonly actor: string
  readonly reason: string | null
  readonly at: number
}

export interface InvoicingOptions {
  readonly postgres: Pool
  readonly clock: Clock
  /** Called inside the issuing transaction, to mark the prices that the invoice used. */
  readonly markBilled?: (
    client: PoolClient,
    used: readonly { readonly rule: string; readonly version: string }[],
  ) => Promise<void>
  /** Refuses an invoice that its clearance system could not take, before it has a number. Throws ReleveError `unprocessable`. */
  readonly assertCertifiable?: (invoice: Invoice, original: { readonly details: unknown } | null) => void
  /** An invoice waits for its clearance system: called after the transaction that numbered it. */
  readonly onCertifying?: () => void
  /** Called at named points, so that a test can die there: `number-taken`. */
  readonly crashPoint?: (name: string) => void | Promise<void>
}

interface Row {
  state: InvoiceState
  hash: string | null
  created_at: string
  changed_at: string
  /** Of an issued one. */
  document: Invoice | null
  /** Of a draft: packed. */
  draft: Buffer | null
}
type Locked = Row & { readonly document: Invoice }
const COLUMNS = 'state, hash, created_at, changed_at, document, draft'

export class Invoicing {
  readonly #postgres: Pool
  readonly #clock: Clock
  readonly #markBilled: InvoicingOptions['markBilled']
  readonly #assertCertifiable: NonNullable<InvoicingOptions['assertCertifiable']>
  readonly #onCertifying: NonNullable<InvoicingOptions['onCertifying']>
  readonly #crashPoint: NonNullable<InvoicingOptions['crashPoint']>

  constructor(options: InvoicingOptions) {
    this.#postgres = options.postgres
    this.#clock = options.clock
    this.#markBilled = options.markBilled
    this.#assertCertifiable = options.assertCertifiable ?? (() => undefined)
    this.#onCertifying = options.onCertifying ?? (() => undefined)
    this.#crashPoint = options.crashPoint ?? (() => undefined)
  }

  /** A new id for a draft. */
  newId(): string {
    return `inv_${randomUUID()}`
  }

  /**
   * Keeps a draft. There is one invoice per contract and period: when it is there already, that one is returned and nothing is
   * written.
   */
  async draft(invoice: Invoice): Promise<KeptInvoice> {
    assert(invoice.number === null, 'a draft has no number')
    await this.#transaction(undefined, (client) => this.keepDraft(client, invoice))
    const kept =
      invoice.kind === 'invoice'
        ? await this.ofPeriod(invoice.contract, invoice.period.from)
        : await this.get(invoice.id)
    assert(kept !== null, 'a draft is there after it was written')
    return kept
  }

  /** The row of a draft; `part` is that of its closing. What is there already stays. */
  async keepDraft(client: Pick<PoolClient, 'query'>, invoice: Invoice, part = 0): Promise<void> {
    const { rowCount } = await client.query(
      `INSERT INTO invoices (id, kind, state, legal_entity, tenant, contract, period_from, period_to, currency, ht, tva, ttc,
         refers_to, draft, part, created_at, changed_at)
       VALUES ($1, $2, 'draft', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)
       ON CONFLICT DO NOTHING`,
      [
        invoice.id,
        invoice.kind,
        invoice.seller.key,
        invoice.tenant,
        invoice.contract,
        invoice.period.from,
        invoice.period.to,
        invoice.currency,
        invoice.ht,
        invoice.tva,
        invoice.ttc,
        invoice.refersTo?.id ?? null,
        packJson(JSON.stringify(invoice)),
        part,
        this.#clock.now(),
      ],
    )
    if (rowCount === 1) await tellSilent(client, invoice, this.#clock.now())
  }

  /** The invoice of a contract's period, or null. */
  async ofPeriod(contract: string, periodFrom: number): Promise<KeptInvoice | null> {
    const { rows } = await this.#postgres.query<Row>(
      `SELECT ${COLUMNS} FROM invoices
       WHERE contract = $1 AND period_from = $2 AND part = 0 AND kind = 'invoice' AND state <> 'discarded'`,
      [contract, periodFrom],
    )
    return rows[0] === undefined ? null : kept(rows[0])
  }

  /**
   * By id or by number (of any legal entity; the first issued if two have it), among those of a tenant when one is given: another's
   * is answered as if it were not there. Throws ReleveError `not_found`, and for a tenant `conflict` while it is withheld.
   */
  async get(idOrNumber: string, tenant: string | null = null): Promise<KeptInvoice> {
    const { rows } = await this.#postgres.query<Row>(
      `SELECT ${COLUMNS} FROM invoices
       WHERE (id = $1 OR number = $1) AND ($2::text IS NULL OR tenant = $2) ORDER BY created_at LIMIT 1`,
      [idOrNumber, tenant],
    )
    if (rows[0] === undefined) throw new ReleveError('not_found', `invoice: there is no ${idOrNumber}`)
    if (tenant !== null && isWithheld(rows[0].state))
      throw new ReleveError(
        'conflict',
        `invoice: ${idOrNumber} waits for its clearance system; it is handed out after that`,
      )
    return tenant === null ? kept(rows[0]) : forCustomer(kept(rows[0]))
  }

  /** Newest first, at most a page. `before` continues a list behind its last entry. */
  async list(
    filter: {
      readonly tenant?: string
      readonly contract?: string
      readonly state?: InvoiceState
      readonly before?: { readonly createdAt: number; readonly id: string }
      readonly limit?: number
      /** Leaves those out that wait for a clearance system: nothing of them is handed out before. */
      readonly handedOut?: boolean
    } = {},
  ): Promise<KeptInvoice[]> {
    const { rows } = await this.#postgres.query<Row>(
      `SELECT ${COLUMNS} FROM invoices
       WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR contract = $2) AND ($3::text IS NULL OR state = $3)
         AND ($4::bigint IS NULL OR (created_at, id) < ($4, $6::text))
         AND NOT ($7 AND state IN ('certifying', 'rejected'))
       ORDER BY created_at DESC, id DESC LIMIT $5`,
      [
        filter.tenant ?? null,
        filter.contract ?? null,
        filter.state ?? null,
        filter.before?.createdAt ?? null,
        Math.min(filter.limit ?? limits.pageMax, limits.pageMax),
        filter.before?.id ?? null,
        filter.handedOut === true,
      ],
    )
    return rows.map((row) => (filter.handedOut === true ? forCustomer(kept(row)) : kept(row)))
  }

  /**
   * Issues a draft: number, dates and hash. An invoice that is already issued is returned as it is, so that calling twice is
   * calling once. Throws ReleveError `not_found`, or `conflict` for a discarded one.
   */
  async finalise(id: string, by?: Mover): Promise<KeptInvoice> {
    return this.#told(await this.#transaction(by, async (client) => this.#issue(client, await lockInvoice(client, id))))
  }

  /** A draft of a period whose grace has not ended: it is counted again before it is issued. */
  async markGrace(id: string, by?: Mover): Promise<KeptInvoice> {
    return this.#moveTo(id, 'grace', by)
  }

  /** An issued invoice has gone out to its customer. */
  async markSent(id: string, by?: Mover): Promise<KeptInvoice> {
    return this.#moveTo(id, 'sent', by)
  }

  /** Records that an issued invoice was paid in full. Payments themselves are not kept here. */
  async markPaid(id: string, by?: Mover): Promise<KeptInvoice> {
    return this.#moveTo(id, 'paid', by)
  }

  async #moveTo(id: string, state: 'grace' | 'sent' | 'paid', by: Mover | undefined): Promise<KeptInvoice> {
    return this.#transaction(by, async (client) => {
      const row = await lockInvoice(client, id)
      if (row.state === state) return kept(row)
      assertInvoiceMove(row.state, state)
      return this.#move(client, row.document.id, state)
    })
  }

  /** What happened to an invoice, oldest first. Throws ReleveError `not_found`. */
  async moves(idOrNumber: string, tenant: string | null = null): Promise<InvoiceMove[]> {
    const { invoice } = await this.get(idOrNumber, tenant)
    const { rows } = await this.#postgres.query<InvoiceMove & { at: string }>(
      `SELECT from_state AS "from", to_state AS "to", actor, reason, at FROM invoice_moves WHERE invoice = $1 ORDER BY serial`,
      [invoice.id],
    )
    return rows.map((row) => ({ ...row, at: Number(row.at) }))
  }

  /**
   * Credits an issued invoice, in whole (amount null) or in part (TTC), and issues the credit note in its own series, all in
   * one transaction; a wholly credited invoice moves to `credited`.
   */
  async credit(id: string, amount: string | null = null, by?: Mover): Promise<KeptInvoice> {
    const note = await this.#transaction(by, async (client) => {
      const row = await lockInvoice(client, id)
      if (!['finalised', 'sent', 'paid', 'rejected'].includes(row.state))
        throw new ReleveError('conflict', `invoice: ${row.state} cannot be credited`)
      if (row.document.kind !== 'invoice') throw new ReleveError('conflict', 'invoice: a credit note is not credited')
      const credited = await this.creditedOf(client, row.document.id)
      return this.#credited(client, draftCreditNote(this.newId(), row.document, credited, amount))
    })
    return this.#told(note)
  }

  #told(kept: KeptInvoice): KeptInvoice {
    if (kept.state === 'certifying') this.#onCertifying()
    return kept
  }

  async #credited(client: PoolClient, note: Invoice): Promise<KeptInvoice> {
    await this.keepDraft(client, note)
    return this.#issue(client, await lockInvoice(client, note.id))
  }

  /** What credit notes take from an invoice, drafts of them included; `before` one of them: what the others took when it was made. */
  async creditedOf(client: Pick<PoolClient, 'query'>, invoice: string, before?: string): Promise<Credited> {
    const { rows } = await client.query<Row>(
      `WITH notes AS (
         SELECT n.*, (SELECT min(serial) FROM invoice_moves WHERE invoice = n.id) AS issued,
           (SELECT serial FROM invoice_moves WHERE invoice = n.id AND to_state = 'discarded') AS dropped
         FROM invoices n WHERE refers_to = $1 AND kind = 'credit_note')
       SELECT n.document, n.draft FROM notes n LEFT JOIN notes o ON o.id = $2
       WHERE CASE WHEN o.id IS NULL THEN n.dropped IS NULL
         ELSE (n.created_at, n.issued) < (o.created_at, o.issued) AND coalesce(n.dropped > o.issued, true) END`,
      [invoice, before ?? null],
    )
    return creditedBy(rows.map(documentOf))
  }

  /** The newest issued invoice of a contract, of a period before, that leaves so much (TTC) to credit; null when there is none. */
  async creditableBefore(contract: string, periodFrom: number, amount: string): Promise<Reference | null> {
    const { rows } = await this.#postgres.query<Reference>(
      `SELECT i.id, i.number, i.issued_on AS "issuedOn" FROM invoices i
       WHERE i.contract = $1 AND i.period_from < $2 AND i.kind = 'invoice' AND i.state IN ('finalised', 'sent', 'paid')
         AND i.ttc + coalesce((SELECT sum(n.ttc) FROM invoices n
           WHERE n.refers_to = i.id AND n.kind = 'credit_note' AND n.state <> 'discarded'), 0) >= $3
       ORDER BY i.period_from DESC, i.part LIMIT 1`,
      [contract, periodFrom, amount],
    )
    return rows[0] ?? null
  }

  /**
   * Drops a draft and opens its closing again, to be counted anew at a new cut. Throws ReleveError `conflict`: «immutable: …» for an
   * issued one, and when a later period of the contract was already counted on top of this one.
   */
  async discard(id: string, by?: Mover): Promise<KeptInvoice> {
    return this.#transaction(by, async (client) => {
      const row = await lockInvoice(client, id)
      if (row.state === 'discarded') return kept(row)
      const deletion = deletionOf(row.state)
      if (!deletion.allowed) {
        throw new ReleveError(
          'conflict',
          `${deletion.error}: ${row.document.number} is issued; the remedy is a ${deletion.remedy}`,
        )
      }
      const reopened = await client.query<{ contract: string; period_from: string }>(
        `UPDATE closings SET state = 'open', attempt = attempt + 1, measured = NULL, place = NULL, invoice = NULL, updated_at = $2
         WHERE contract = $1 AND period_from = $3 AND part = 0 AND state IN ('measured', 'drafted')
           AND (invoice = $4 OR (invoice IS NULL AND $5 AND (SELECT part = 0 FROM invoices WHERE id = $4)))
         RETURNING contract, period_from`,
        [
          row.document.contract,
          this.#clock.now(),
          row.document.period.from,
          row.document.id,
          row.document.kind === 'invoice',
        ],
      )
      // A correction that is dropped was never made: what it counted is late again.
      await client.query(
        `UPDATE closings SET state = 'done', attempt = attempt + 1, measured = NULL, place = NULL, invoice = NULL, updated_at = $2
         WHERE contract = $1 AND period_from = $3 AND part > 0 AND invoice = $4`,
        [row.document.contract, this.#clock.now(), row.document.period.from, row.document.id],
      )
      if (reopened.rows.length > 0) {
        const later = await client.query(
          'SELECT 1 FROM closings WHERE contract = $1 AND period_from > $2 AND measured IS NOT NULL LIMIT 1',
          [row.document.contract, row.document.period.from],
        )
        if (later.rows.length > 0)
          throw new ReleveError('conflict', 'invoice: a later period was counted on top of it; issue it instead')
      }
      return this.#move(client, row.document.id, 'discarded')
    })
  }

  /** Inside the caller's transaction, the invoice's row locked. */
  async #issue(client: PoolClient, row: Locked): Promise<KeptInvoice> {
    if (!isOpen(row.state) && row.state !== 'discarded') return kept(row)
    assertInvoiceMove(row.state, 'finalised')
    const draft = row.document
    const certification = await this.#certificationOf(client, draft)
    if (draft.kind === 'invoice' && draft.ttc.startsWith('-')) {
      throw new ReleveError(
        'unprocessable',
        `invoice: its total is ${draft.ttc} ${draft.currency}; an invoice is not negative, make a credit note`,
      )
    }
    const now = this.#clock.now()
    const pattern = draft.kind === 'invoice' ? draft.seller.invoicePattern : draft.seller.creditNotePattern
    assertPattern(pattern)
    const { counter, series, issuedOn } = await takeNumber(
      client,
      draft.seller.key,
      pattern,
      dateIn(now, draft.seller.timeZone),
    )
    await this.#crashPoint('number-taken')
    const number = printNumber(pattern, issuedOn, counter)
    await assertFree(client, draft.seller.key, number)
    const issued: Invoice = {
      ...draft,
      notices: customerNotices(draft.notices),
      number,
      issuedOn,
      dueOn: DateTime.fromISO(issuedOn, { zone: 'utc' }).plus({ days: draft.customer.termDays }).toFormat('yyyy-MM-dd'),
    }
    const updated = await client.query<Row>(
      `UPDATE invoices SET state = $10, series = $2, counter = $3, number = $4, issued_on = $5, due_on = $6,
         document = $7, draft = NULL, hash = $8, changed_at = $9
       WHERE id = $1 RETURNING ${COLUMNS}`,
      [
        draft.id,
        series,
        counter,
        issued.number,
        issued.issuedOn,
        issued.dueOn,
        issued,
        hashOf(issued),
        now,
        certification === null ? 'finalised' : 'certifying',
      ],
    )
    if (certification !== null) {
      await client.query(
        `INSERT INTO invoice_certifications (invoice, system, state, next_at, changed_at) VALUES ($1, $2, 'pending', $3, $3)`,
        [draft.id, certification, now],
      )
    }
    await this.#markBilled?.(
      client,
      issued.lines.flatMap((line) =>
        line.price === null ? [] : [{ rule: line.price.rule, version: line.price.version }],
      ),
    )
    if (issued.refersTo !== null) await this.#creditIfWhole(client, issued.refersTo.id)
    return kept(updated.rows[0]!)
  }

  /** An invoice is `credited` once its issued credit notes leave nothing of it. */
  async #creditIfWhole(client: PoolClient, invoice: string): Promise<void> {
    const { rows } = await client.query<{ state: InvoiceState }>(
      'SELECT state FROM invoices WHERE id = $1 FOR UPDATE',
      [invoice],
    )
    const whole = await client.query<{ done: boolean }>(
      `SELECT (i.ttc + (SELECT sum(n.ttc) FROM invoices n WHERE n.refers_to = i.id AND n.number IS NOT NULL)) = 0 AS done
       FROM invoices i WHERE i.id = $1`,
      [invoice],
    )
    if (whole.rows[0]?.done === true && rows[0]?.state !== 'credited') await this.#move(client, invoice, 'credited')
  }

  /**
   * The clearance system that has to take a document, or null. The credit note of an invoice that no system has taken (its state is
   * `rejected`) stays inside: it was never handed out.
   */
  async #certificationOf(client: PoolClient, draft: Invoice): Promise<string | null> {
    const system = draft.seller.certification?.system
    if (system === undefined) return null
    if (draft.refersTo === null) {
      this.#assertCertifiable(draft, null)
      return system
    }
    const { rows } = await client.query<{ state: string; details: unknown }>(
      'SELECT state, details FROM invoice_certifications WHERE invoice = $1',
      [draft.refersTo.id],
    )
    if (rows[0]?.state !== 'certified') return null
    this.#assertCertifiable(draft, { details: rows[0].details })
    return system
  }

  async #move(client: PoolClient, id: string, state: InvoiceState): Promise<KeptInvoice> {
    const { rows } = await client.query<Row>(
      `UPDATE invoices SET state = $2, changed_at = $3 WHERE id = $1 RETURNING ${COLUMNS}`,
      [id, state, this.#clock.now()],
    )
    return kept(rows[0]!)
  }

  /** The actor is a setting of the transaction, where the journal's trigger finds it. */
  #transaction<T>(by: Mover | undefined, work: (client: PoolClient) => Promise<T>): Promise<T> {
    return inTransaction(this.#postgres, async (client) => {
      if (by !== undefined) await setMover(client, by)
      return work(client)
    })
  }
}

/** The next counter of a series, its row locked until the transaction ends. Dates never fall within a legal entity's series. */
async function takeNumber(
  client: PoolClient,
  legalEntity: string,
  pattern: string,
  today: string,
): Promise<{ counter: number; series: string; issuedOn: string }> {
  const series = seriesOf(pattern, today)
  const { rows } = await client.query<{ last: string; last_date: string }>(
    `INSERT INTO number_series AS s (legal_entity, series, last, last_date) VALUES ($1, $2, 1, $3)
     ON CONFLICT (legal_entity, series) DO UPDATE SET last = s.last + 1, last_date = greatest(s.last_date, excluded.last_date)
     RETURNING last, last_date`,
    [legalEntity, series, today],
  )
  const row = rows[0]
  assert(row !== undefined, 'taking a number returns it')
  return { counter: Number(row.last), series, issuedOn: row.last_date }
}

/** A pattern that was changed may come to a number that the one before has given. Under the lock of the series. */
async function assertFree(client: PoolClient, legalEntity: string, number: string): Promise<void> {
  const { rows } = await client.query('SELECT 1 FROM invoices WHERE legal_entity = $1 AND number = $2', [
    legalEntity,
    number,
  ])
  if (rows.length > 0)
    throw new ReleveError(
      'conflict',
      `number: ${number} was given by an earlier pattern of ${legalEntity}; give it another pattern and refresh the draft`,
    )
}

/** For the journal, until the end of the transaction. */
export async function setMover(client: PoolClient, by: Mover): Promise<void> {
  await client.query(`SELECT set_config('releve.actor', $1, true), set_config('releve.reason', $2, true)`, [
    by.actor,
    by.reason ?? '',
  ])
}

async function lockInvoice(client: PoolClient, id: string): Promise<Locked> {
  const { rows } = await client.query<Row>(
    `SELECT ${COLUMNS} FROM invoices WHERE id = $1 OR number = $1 ORDER BY created_at LIMIT 1 FOR UPDATE`,
    [id],
  )
  if (rows[0] === undefined) throw new ReleveError('not_found', `invoice: there is no ${id}`)
  return { ...rows[0]!, document: documentOf(rows[0]!) }
}

function kept(row: Row): KeptInvoice {
  return {
    state: row.state,
    hash: row.hash,
    createdAt: Number(row.created_at),
    changedAt: Number(row.changed_at),
    invoice: documentOf(row),
  }
}

/** A draft without what is for its maker; an issued document as it is: its hash is over all of it. */
function forCustomer(one: KeptInvoice): KeptInvoice {
  if (one.hash !== null) return one
  return { ...one, invoice: { ...one.invoice, notices: customerNotices(one.invoice.notices) } }
}

function documentOf(row: Row): Invoice {
  if (row.document !== null) return row.document
  assert(row.draft !== null, 'an invoice has a document')
  return unpackJson<Invoice>(row.draft)
}
