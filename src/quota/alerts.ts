/**
 * Alerts: crossings of thresholds, recorded once in PostgreSQL and delivered at least once, with an id that stays the same over
 * every delivery. Identity: (type, tenant, contract item, metric, period, threshold, limit version).
 *
 * A crossing is recorded alone, before its epoch's checkpoint, under the stream's fence; the checkpoint waits for it. A replay
 * after a crash crosses again and finds its row: no second alarm. Readers of the stream resume behind the last id they saw.
 */
import { createHash } from 'node:crypto'
import type { Pool, PoolClient } from 'pg'
import type { Clock } from '../clock.js'
import type { Crash } from '../crash-points.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import type { Metrics } from '../metrics.js'
import type { AlertKind, Crossing } from './balance.js'

export interface Alert {
  readonly id: string
  /** Order of recording: what Last-Event-ID names. */
  readonly serial: number
  readonly type: 'alert.triggered' | 'alert.resolved'
  readonly kind: AlertKind
  /** The alert rule behind it; null: a threshold of the contract item. */
  readonly rule: string | null
  readonly tenant: string
  readonly contract: string
  readonly item: string
  readonly product: string
  readonly metric: string
  /** Of a silence: whose, null for the metric as a whole. */
  readonly subject: string | null
  /** Of a silence: from the last event to when it had lasted long enough. */
  readonly period: { readonly from: number; readonly to: number }
  readonly threshold: string
  readonly limitVersion: number
  readonly limit: string | null
  /** Quantity at the crossing, decimal text. */
  readonly balance: string
  /** Of a forecast: usage at the period's end, decimal text. */
  readonly forecast: string | null
  /** receivedAt of the record that crossed, epoch ms. */
  readonly raisedAt: number
}

export type AlertListener = (alert: Alert) => void

export type Alerts = ReturnType<typeof openAlerts>

/** Stable over replays and deliveries; lengths are kept apart by JSON. */
function idOf(crossing: Crossing): string {
  const identity = [
    crossing.type,
    crossing.tenant,
    crossing.item,
    crossing.metric,
    crossing.period.from,
    crossing.threshold,
    crossing.limitVersion,
  ]
  return `alert_${createHash('sha256').update(JSON.stringify(identity)).digest('hex').slice(0, 32)}`
}

function alertFromRow(row: Record<string, unknown>): Alert {
  return {
    id: row.id as string,
    serial: Number(row.serial),
    type: row.type as Alert['type'],
    kind: row.kind as AlertKind,
    rule: row.rule as string | null,
    tenant: row.tenant as string,
    contract: row.contract as string,
    item: row.item as string,
    product: row.product as string,
    metric: row.metric as string,
    subject: row.subject as string | null,
    period: { from: Number(row.period_from), to: Number(row.period_to) },
    threshold: row.threshold as string,
    limitVersion: Number(row.limit_version),
    limit: row.limit_value as string | null,
    balance: row.balance as string,
    forecast: row.forecast as string | null,
    raisedAt: Number(row.raised_at),
  }
}

export function openAlerts(options: { postgres: Pool; clock: Clock; crash: Crash; metrics: Metrics; logger: Logger }) {
  const { postgres, clock, crash, metrics, logger } = options
  const listeners = new Set<AlertListener>()
  // One writer after the other, so that serials become visible in their order.
  let queue: Promise<void> = Promise.resolve()
  let closed = false

  function deliver(alerts: readonly Alert[]): void {
    for (const alert of alerts) for (const listener of listeners) listener(alert)
  }

  async function markSent(alerts: readonly Alert[]): Promise<void> {
    if (alerts.length === 0) return
    await postgres.query('UPDATE alerts SET sent_at = $2 WHERE id = ANY($1) AND sent_at IS NULL', [
      alerts.map((a) => a.id),
      clock.now(),
    ])
  }

  async function insert(client: PoolClient, stream: number, crossing: Crossing): Promise<Alert | undefined> {
    const { rows } = await client.query(
      `INSERT INTO alerts (id, type, tenant, contract, item, product, metric, period_from, period_to, threshold, limit_version,
         limit_value, balance, stream, position, raised_at, kind, rule, subject, forecast)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
       ON CONFLICT DO NOTHING RETURNING *`,
      [
        idOf(crossing),
        crossing.type,
        crossing.tenant,
        crossing.contract,
        crossing.item,
        crossing.product,
        crossing.metric,
        crossing.period.from,
        crossing.period.to,
        crossing.threshold,
        crossing.limitVersion,
        crossing.limit,
        crossing.balance,
        stream,
        crossing.sequence,
        crossing.receivedAt,
        crossing.kind,
        crossing.rule,
        crossing.subject,
        crossing.forecast,
      ],
    )
    return rows[0] === undefined ? undefined : alertFromRow(rows[0])
  }

  async function recordOnce(stream: number, fence: number, crossings: readonly Crossing[]): Promise<Alert[]> {
    const client = await postgres.connect()
    try {
      await client.query('BEGIN')
      const { rows } = await client.query('SELECT 1 FROM streams WHERE stream = $1 AND fence = $2 FOR SHARE', [
        stream,
        fence,
      ])
      if (rows.length !== 1)
        throw new Error(`FATAL: stream ${stream} has another owner: its alerts are not recorded here`)
      const recorded: Alert[] = []
      for (const crossing of crossings) {
        const alert = await insert(client, stream, crossing)
        if (alert !== undefined) recorded.push(alert)
      }
      await client.query('COMMIT')
      return recorded
    } catch (error) {
      await client.query('ROLLBACK').catch(() => {})
      throw error
    } finally {
      client.release()
    }
  }

  /** Resolves when every crossing has its row. Tried again while PostgreSQL is away; rejects only when the fence is lost. */
  function record(stream: number, fence: number, crossings: readonly Crossing[]): Promise<void> {
    const run = async (): Promise<void> => {
      for (let delay = 50; ; delay = Math.min(2 * delay, 2_000)) {
        try {
          const recorded = await recordOnce(stream, fence, crossings)
          if (recorded.length === 0) return
          crash('after-alert-row')
          for (const alert of recorded) metrics.alerts.inc({ type: alert.type })
          deliver(recorded)
          await markSent(recorded)
          return
        } catch (error) {
          if ((error instanceof Error && error.message.startsWith('FATAL:')) || closed) throw error
          metrics.flushRetries.inc({ step: 'alert' })
          logger.warn({ stream, error: String(error) }, 'cannot record an alert, done again')
          await new Promise((resolve) => setTimeout(resolve, delay))
        }
      }
    }
    const done = queue.then(run)
    queue = done.catch(() => {})
    return done
  }

  /** Alerts behind a serial, in order; all tenants for null. */
  async function list(query: { tenant: string | null; after: number; limit: number }): Promise<Alert[]> {
    const { rows } = await postgres.query(
      'SELECT * FROM alerts WHERE serial > $1 AND ($2::text IS NULL OR tenant = $2) ORDER BY serial LIMIT $3',
      [query.after, query.tenant, Math.min(query.limit, limits.pageMax)],
    )
    return rows.map(alertFromRow)
  }

  /** Thresholds of these items that rang up to a log sequence and were not resolved, of every period that begins at `from` or later. */
  async function unresolved(
    stream: number,
    items: readonly string[],
    until: number,
    from: number,
  ): Promise<
    readonly {
      readonly item: string
      readonly metric: string
      readonly periodFrom: number
      readonly threshold: string
      readonly limitVersion: number
    }[]
  > {
    const { rows } = await postgres.query(
      `SELECT item, metric, period_from, threshold, limit_version FROM alerts t
       WHERE stream = $1 AND type = 'alert.triggered' AND item = ANY($2) AND position <= $3 AND period_from >= $4 AND NOT EXISTS (
         SELECT 1 FROM alerts r WHERE r.type = 'alert.resolved' AND (r.tenant, r.item, r.metric, r.period_from, r.threshold, r.limit_version)
           = (t.tenant, t.item, t.metric, t.period_from, t.threshold, t.limit_version))`,
      [stream, items, until, from],
    )
    return rows.map((row) => ({
      item: row.item as string,
      metric: row.metric as string,
      periodFrom: Number(row.period_from),
      threshold: row.threshold as string,
      limitVersion: Number(row.limit_version),
    }))
  }

  /** Silences that were told and are not over. */
  async function silent(): Promise<
    readonly { readonly threshold: string; readonly subject: string; readonly since: number }[]
  > {
    const { rows } = await postgres.query(
      `SELECT threshold, item, period_from FROM alerts t WHERE kind = 'silence' AND type = 'alert.triggered' AND NOT EXISTS (
         SELECT 1 FROM alerts r WHERE r.type = 'alert.resolved' AND (r.tenant, r.item, r.metric, r.period_from, r.threshold, r.limit_version)
           = (t.tenant, t.item, t.metric, t.period_from, t.threshold, t.limit_version))`,
    )
    return rows.map((row) => ({ threshold: row.threshold, subject: row.item, since: Number(row.period_from) }))
  }

  /** Rows that a crash left between recording and sending. */
  async function sendUnsent(): Promise<void> {
    const { rows } = await postgres.query('SELECT * FROM alerts WHERE sent_at IS NULL ORDER BY serial')
    const unsent = rows.map(alertFromRow)
    deliver(unsent)
    await markSent(unsent)
  }

  /** Serial of the last alert that a reader was handed; a new reader begins with what is recorded from now on. */
  async function readerAt(name: string): Promise<number> {
    await postgres.query(
      'INSERT INTO alert_readers (name, serial) SELECT $1, coalesce(max(serial), 0) FROM alerts ON CONFLICT DO NOTHING',
      [name],
    )
    const { rows } = await postgres.query('SELECT serial FROM alert_readers WHERE name = $1', [name])
    return Number(rows[0].serial)
  }

  /** Never goes back. */
  async function moveReader(name: string, serial: number): Promise<void> {
    await postgres.query('UPDATE alert_readers SET serial = $2 WHERE name = $1 AND serial < $2', [name, serial])
  }

  /** The listener must not throw and must not wait. Returns what ends the subscription. */
  function subscribe(listener: AlertListener): () => void {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }

  /** Resolves when everything that was raised so far has its row. */
  async function settled(): Promise<void> {
    await queue
  }

  async function close(): Promise<void> {
    closed = true
    await queue
    listeners.clear()
  }

  return { record, list, unresolved, silent, sendUnsent, readerAt, moveReader, subscribe, settled, close }
}
