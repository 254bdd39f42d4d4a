/**
 * Request and reply: a batch comes with a reply subject, the verdicts go back, after the log has the batch on disk. The answer
 * is that of POST /v1/events; its header `status` is the HTTP status, and an error is the same problem object. A batch without a
 * reply subject is taken all the same. `wait: applied` as a header answers with the shard's verdicts.
 * Bounded: what the system has no room for is answered with 503 at once, a tenant beyond its rates with 429, each with the header
 * `retry-after` in seconds, and nothing waits here.
 */
import { type Msg, headers as makeHeaders, type NatsConnection, type Subscription } from 'nats'
import { ReleveError } from '../errors.js'
import type { System } from '../system.js'
import { headerOf, ingestMessage } from './message.js'
import { tenantOf } from './subjects.js'

/** Of several nodes one answers. */
const QUEUE = 'releve'

/** `idle` resolves when every request that came has its answer. */
export function openRequests(
  system: System,
  connection: NatsConnection,
  prefixes: readonly string[],
): { idle(): Promise<void>; subscriptions: readonly Subscription[] } {
  const open = new Set<Promise<void>>()

  const answer = async (message: Msg, prefix: string): Promise<void> => {
    const reply = (status: number, body: unknown, retryAfterS?: number): void => {
      system.metrics.natsMessages.inc({ via: 'request', outcome: status < 300 ? 'taken' : 'refused' })
      const headers = makeHeaders()
      headers.set('status', String(status))
      headers.set('content-type', status < 300 || status === 422 ? 'application/json' : 'application/problem+json')
      if (status === 429 || status === 503) headers.set('retry-after', String(retryAfterS ?? 1))
      try {
        message.respond(JSON.stringify(body), { headers })
      } catch (error) {
        // The connection went away: the requester sends again, and gets duplicates for its trouble.
        system.logger.debug({ error: String(error) }, 'an answer found no connection')
      }
    }
    try {
      const tenant = tenantOf(message.subject, prefix)
      if (tenant === null) throw new ReleveError('invalid_request', `subject ${message.subject} names no tenant`)
      const wait = headerOf(message.headers, 'wait') === 'applied'
      const { headers, data } = message
      const budget = system.rates.budgetOf(tenant)
      const now = system.clock.now()
      // Who cannot be told to wait is not refused either.
      if (message.reply === undefined || message.reply === '') budget?.spend({ requests: 1 }, now)
      else budget?.enter(now)
      budget?.spend({ bytes: data.length }, now)
      const judged = await ingestMessage(system, { tenant, headers, data, wait })
      budget?.spend({ events: judged.received }, system.clock.now())
      reply(judged.stored > 0 || judged.received === 0 ? 202 : 422, judged)
    } catch (error) {
      const known = error instanceof ReleveError ? error : new ReleveError('internal', String(error))
      if (known.code === 'internal') system.logger.error({ error: String(error) }, 'a NATS request failed')
      system.metrics.requestsRefused.inc({ code: known.code })
      reply(known.status, known.problem, known.retryAfterS)
    }
  }

  const subscriptions = prefixes.map((prefix) =>
    connection.subscribe(`${prefix}*`, {
      queue: QUEUE,
      callback: (error, message) => {
        if (error !== null) {
          system.logger.error({ error: String(error), prefix }, 'the server refuses a subscription')
          return
        }
        const done = answer(message, prefix)
        open.add(done)
        void done.finally(() => open.delete(done))
      },
    }),
  )
  return {
    subscriptions,
    async idle() {
      while (open.size > 0) await Promise.all(open)
    },
  }
}
