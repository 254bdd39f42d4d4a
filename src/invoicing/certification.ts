/**
 * Certification: an issued document waits until a clearance system has taken it. The systems are ports (fne.ts is the first); this
 * file decides when one is called and what follows from its answer.
 *
 *   pending ──► sending ──► certified   the invoice becomes finalised, with the system's reference and token beside it
 *      ▲           ├──────► rejected    the invoice becomes rejected: mended and tried again by a person, or credited
 *      └───────────┤                    it was surely not taken (busy, not reached): again, later and later
 *                  └──────► unknown     nobody knows: never sent again by itself; a person looks it up and says
 *
 * `sending` is on disk before the call leaves. Who finds it after a start finds a call whose answer nobody heard: unknown.
 */
import type { Pool, PoolClient } from 'pg'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import type { Invoice } from './invoice.js'
import { type Mover, setMover } from './invoicing.js'
import { assertInvoiceMove, type InvoiceState } from './state.js'

/** What a clearance system knows a document by. */
export interface Certified {
  readonly reference: string
  /** What the printed document carries as a QR code. */
  readonly token: string
  /** What crediting it later needs. */
  readonly details: unknown
}

export type CertifyOutcome =
  | ({ readonly outcome: 'certified' } & Certified)
  | { readonly outcome: 'rejected'; readonly reason: string }
  /** Surely not taken; may be sent again. */
  | { readonly outcome: 'not_taken'; readonly reason: string; readonly retryAfterMs?: number }
  | { readonly outcome: 'unknown'; readonly reason: string }

/** One clearance system. */
export interface Certifier {
  /** Throws ReleveError `unprocessable` for a document that the system could not take. `original` is that of a credit note. */
  assertCertifiable(invoice: Invoice, original: { readonly details: unknown } | null): void
  /** One call; never throws, never repeats it. */
  certify(invoice: Invoice, original: { readonly details: unknown } | null): Promise<CertifyOutcome>
}

export interface Certification {
  readonly system: string
  readonly state: 'pending' | 'sending' | 'unknown' | 'rejected' | 'certified'
  readonly attempts: number
  readonly reason: string | null
  readonly reference: string | null
  readonly token: string | null
}

export interface CertificationsOptions {
  readonly postgres: Pool
  readonly clock: Clock
  readonly certifiers: Readonly<Record<string, Certifier>>
  readonly logger: Logger
}

interface Claimed {
  invoice: string
  system: string
  attempts: number
  document: Invoice
  original: { details: unknown } | null
}

export class Certifications {
  readonly #options: CertificationsOptions
  #running: Promise<void> | undefined
  #again = false
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(options: CertificationsOptions) {
    this.#options = options
  }

  /** At the start of the service: calls whose answer was lost are named, and what waits is sent. */
  async open(): Promise<void> {
    const { postgres, clock, logger } = this.#options
    const { rows } = await postgres.query<{ invoice: string }>(
      `UPDATE invoice_certifications SET state = 'unknown', reason = 'the service stopped before the answer came', changed_at = $1
       WHERE state = 'sending' RETURNING invoice`,
      [clock.now()],
    )
    if (rows.length > 0)
      logger.error({ invoices: rows.map((row) => row.invoice) }, 'certification: the outcome is unknown')
    this.kick()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#running
  }

  /** Something waits, perhaps. Returns at once. */
  kick(): void {
    this.#again = true
    if (this.#closed || this.#running !== undefined) return
    this.#running = (async () => {
      while (this.#again && !this.#closed) {
        this.#again = false
        await this.sendDue()
      }
    })()
      .catch((error: unknown) => this.#options.logger.warn({ error }, 'certification: stopped, and goes on later'))
      .finally(() => {
        this.#running = undefined
        if (!this.#closed) void this.#wait()
      })
  }

  /** Sends all that is due, one after the other. */
  async sendDue(): Promise<void> {
    for (let claimed = await this.#claim(); claimed !== null && !this.#closed; claimed = await this.#claim())
      await this.#send(claimed)
  }

  async of(invoice: string): Promise<Certification | null> {
    const { rows } = await this.#options.postgres.query<Certification>(
      'SELECT system, state, attempts, reason, reference, token FROM invoice_certifications WHERE invoice = $1',
      [invoice],
    )
    return rows[0] ?? null
  }

  /**
   * What a person found out about an unknown outcome, or that a rejected document may be tried again. Throws ReleveError `conflict`
   * when nothing is open.
   */
  async resolve(
    invoice: string,
    found:
      | { readonly outcome: 'certified'; readonly reference: string; readonly token: string }
      | { readonly outcome: 'not_taken' },
    by: Mover,
  ): Promise<void> {
    await this.#transaction(by, async (client) => {
      const { rows } = await client.query<{ state: Certification['state'] }>(
        'SELECT state FROM invoice_certifications WHERE invoice = $1 FOR UPDATE',
        [invoice],
      )
      const state = rows[0]?.state
      if (state !== 'unknown' && !(state === 'rejected' && found.outcome === 'not_taken'))
        throw new ReleveError(
          'conflict',
          `invoice: its certification is ${state ?? 'not asked for'}; nothing is to be resolved`,
        )
      if (found.outcome === 'certified') await this.#keep(client, invoice, { ...found, details: null }, by.actor)
      else {
        await this.#record(client, invoice, 'pending', 'to be sent again', by.actor, 0)
        if (state === 'rejected') await this.#move(client, invoice, 'certifying')
      }
    })
    this.kick()
  }

  async #wait(): Promise<void> {
    const { postgres, clock } = this.#options
    try {
      const { rows } = await postgres.query<{ at: string | null }>(
        `SELECT min(next_at) AS at FROM invoice_certifications WHERE state = 'pending'`,
      )
      const at = rows[0]?.at
      if (at === null || at === undefined || this.#closed) return
      const wait = Math.min(Math.max(Number(at) - clock.now(), 100), limits.certifyWaitMaxMs)
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.kick(), wait)
      this.#timer.unref()
    } catch (error) {
      this.#options.logger.warn({ error }, 'certification: the next time could not be read')
    }
  }

  /** The oldest that is due, marked as being sent before anything leaves. */
  async #claim(): Promise<Claimed | null> {
    const { postgres, clock } = this.#options
    const { rows } = await postgres.query<Claimed & { original_details: unknown; refers_to: string | null }>(
      `WITH due AS (
         SELECT invoice FROM invoice_certifications WHERE state = 'pending' AND next_at <= $1
         ORDER BY next_at, invoice LIMIT 1 FOR UPDATE SKIP LOCKED
       ), claimed AS (
         UPDATE invoice_certifications c SET state = 'sending', attempts = c.attempts + 1, changed_at = $1
         FROM due WHERE c.invoice = due.invoice RETURNING c.invoice, c.system, c.attempts
       )
       SELECT claimed.*, i.document, i.refers_to, o.details AS original_details FROM claimed
       JOIN invoices i ON i.id = claimed.invoice LEFT JOIN invoice_certifications o ON o.invoice = i.refers_to`,
      [clock.now()],
    )
    const row = rows[0]
    if (row === undefined) return null
    return { ...row, original: row.refers_to === null ? null : { details: row.original_details } }
  }

  async #send({ invoice, system, attempts, document, original }: Claimed): Promise<void> {
    const certifier = this.#options.certifiers[system]
    const found: CertifyOutcome =
      certifier === undefined
        ? { outcome: 'not_taken', reason: `${system} is not configured`, retryAfterMs: limits.certifyRetryMaxMs }
        : await certifier.certify(document, original)
    const actor = `system:${system}`
    await this.#transaction({ actor }, async (client) => {
      switch (found.outcome) {
        case 'certified':
          return this.#keep(client, invoice, found, actor)
        case 'rejected':
          await this.#record(client, invoice, 'rejected', found.reason, actor, 0)
          return this.#move(client, invoice, 'rejected')
        case 'unknown':
          return this.#record(client, invoice, 'unknown', found.reason, actor, 0)
        case 'not_taken': {
          const wait = found.retryAfterMs ?? limits.certifyRetryMs * 2 ** Math.min(attempts - 1, 20)
          return this.#record(client, invoice, 'pending', found.reason, actor, Math.min(wait, limits.certifyRetryMaxMs))
        }
      }
    })
    if (found.outcome === 'unknown' || found.outcome === 'rejected')
      this.#options.logger.error({ invoice, system, ...found }, 'certification: a person has to look')
  }

  async #keep(client: PoolClient, invoice: string, found: Certified, actor: string): Promise<void> {
    await client.query(
      `UPDATE invoice_certifications SET state = 'certified', reference = $2, token = $3, details = $4, reason = NULL, changed_at = $5
       WHERE invoice = $1`,
      [invoice, found.reference, found.token, JSON.stringify(found.details), this.#options.clock.now()],
    )
    await this.#attempt(client, invoice, 'certified', found.reference, actor)
    await this.#move(client, invoice, 'finalised')
  }

  async #record(
    client: PoolClient,
    invoice: string,
    state: 'pending' | 'rejected' | 'unknown',
    reason: string,
    actor: string,
    waitMs: number,
  ): Promise<void> {
    const now = this.#options.clock.now()
    await client.query(
      'UPDATE invoice_certifications SET state = $2, reason = $3, next_at = $4, changed_at = $5 WHERE invoice = $1',
      [invoice, state, reason, now + waitMs, now],
    )
    await this.#attempt(client, invoice, state === 'pending' ? 'not_taken' : state, reason, actor)
  }

  async #attempt(client: PoolClient, invoice: string, outcome: string, reason: string, actor: string): Promise<void> {
    await client.query(
      'INSERT INTO invoice_certification_attempts (invoice, outcome, reason, actor, at) VALUES ($1, $2, $3, $4, $5)',
      [invoice, outcome, reason, actor, this.#options.clock.now()],
    )
  }

  async #move(client: PoolClient, invoice: string, to: InvoiceState): Promise<void> {
    const { rows } = await client.query<{ state: InvoiceState }>(
      'SELECT state FROM invoices WHERE id = $1 FOR UPDATE',
      [invoice],
    )
    assertInvoiceMove(rows[0]!.state, to)
    await client.query('UPDATE invoices SET state = $2, changed_at = $3 WHERE id = $1', [
      invoice,
      to,
      this.#options.clock.now(),
    ])
  }

  async #transaction(by: Mover, work: (client: PoolClient) => Promise<void>): Promise<void> {
    const client = await this.#options.postgres.connect()
    try {
      await client.query('BEGIN')
      await setMover(client, by)
      await work(client)
      await client.query('COMMIT')
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    } finally {
      client.release()
    }
  }
}
