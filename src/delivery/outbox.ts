/**
 * From the outbox to deliveries: the database writes there what happens (085_outbox.sql), and a row leaves it in the transaction
 * that makes its deliveries. So each is told to every endpoint that wants it at least once and under one id, whatever dies meanwhile.
 *
 * It looks every so often, and at once while there is more: the other side is a transaction of any room, which does not know us.
 */
import type { Pool } from 'pg'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import type { Delivery } from './delivery.js'

export interface OutboxFeed {
  /** Everything that is in the outbox now; for tests and for the end. */
  look(): Promise<void>
  close(): Promise<void>
}

/** Runs until `close`. */
export function openOutboxFeed(options: {
  readonly postgres: Pool
  readonly delivery: Pick<Delivery, 'emit'>
  readonly logger: Logger
}): OutboxFeed {
  const { postgres, delivery, logger } = options

  /** How many were told. */
  const tell = async (): Promise<number> => {
    const client = await postgres.connect()
    try {
      await client.query('BEGIN')
      const { rows } = await client.query(
        'SELECT serial, id, type, tenant, metric, data, at FROM outbox ORDER BY serial LIMIT $1 FOR UPDATE SKIP LOCKED',
        [limits.feedPageMax],
      )
      const told: { sent(): void }[] = []
      for (const { id, type, tenant, metric, data, at } of rows)
        told.push(
          await delivery.emit(
            { id, type, tenant, data: { ...data, at: Number(at) }, ...(metric === null ? {} : { metric }) },
            client,
          ),
        )
      await client.query('DELETE FROM outbox WHERE serial = ANY ($1)', [rows.map(({ serial }) => serial)])
      await client.query('COMMIT')
      for (const one of told) one.sent()
      return rows.length
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    } finally {
      client.release()
    }
  }

  let running: Promise<void> = Promise.resolve()
  const look = (): Promise<void> => {
    const done = running.then(async () => {
      while ((await tell()) === limits.feedPageMax) if (closed) return
    })
    running = done.catch(() => {})
    return done
  }
  let closed = false
  let timer: NodeJS.Timeout | undefined
  const later = (): void => {
    timer = setTimeout(async () => {
      try {
        // Most of the time there is nothing, and one small question says so.
        const { rows } = await postgres.query('SELECT 1 FROM outbox LIMIT 1')
        if (rows.length > 0) await look()
      } catch (error) {
        if (!closed)
          logger.warn({ error: String(error) }, 'what happened cannot be handed to its deliveries, done again')
      }
      if (!closed) later()
    }, limits.outboxLookMs)
    timer.unref()
  }
  later()
  return {
    look,
    async close() {
      closed = true
      clearTimeout(timer)
      await running
    },
  }
}
