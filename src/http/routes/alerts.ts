/**
 * GET /v1/alerts and /v1/alerts/stream (server-sent events). The stream begins behind Last-Event-ID, so that a reader that was
 * away misses nothing; a reader that is too slow is closed and resumes the same way.
 */
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { FastifyPluginAsync } from 'fastify'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import type { Alert } from '../../quota/alerts.js'
import type { System } from '../../system.js'
import { keyOf, tenantFor } from '../http.js'

const HEARTBEAT_MS = 15_000
/** A stream that was ended has this long to deliver what is written. */
const END_MS = 1_000

/** Resolves when the reader has taken what was written, or has gone. */
async function drained(raw: ServerResponse): Promise<void> {
  const over = new AbortController()
  const { signal } = over
  await Promise.race([once(raw, 'drain', { signal }), once(raw, 'close', { signal })]).finally(() => over.abort())
}

const frame = (alert: Alert): string => `id: ${alert.serial}\nevent: ${alert.type}\ndata: ${JSON.stringify(alert)}\n\n`

export function alertRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    /** What ends each open stream. */
    const open = new Set<() => void>()
    // A stop waits for open answers, and a stream has no end of its own.
    app.addHook('preClose', async () => {
      for (const end of open) end()
    })

    app.get<{ Querystring: { tenant?: string; after?: number; limit?: number } }>(
      '/v1/alerts',
      {
        config: { scope: 'read' },
        schema: {
          tags: ['quotas'],
          summary: 'Alerts, in order of recording',
          querystring: {
            type: 'object',
            properties: {
              tenant: { type: 'string', maxLength: limits.nameBytesMax },
              after: { type: 'integer', minimum: 0, default: 0, description: 'serial of the last one seen' },
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant: asked, after = 0, limit = 100 } = request.query
        const tenant = keyOf(request).tenant === null && asked === undefined ? null : tenantFor(request, asked)
        return { alerts: await system.alerts.list({ tenant, after, limit }) }
      },
    )

    app.get<{ Querystring: { tenant?: string } }>(
      '/v1/alerts/stream',
      {
        config: { scope: 'read' },
        exposeHeadRoute: false,
        schema: {
          tags: ['quotas'],
          summary: 'Alerts as server-sent events; resumes behind Last-Event-ID',
          querystring: {
            type: 'object',
            properties: { tenant: { type: 'string', maxLength: limits.nameBytesMax } },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        if (open.size >= limits.sseStreamsMax)
          throw new ReleveError('overloaded', 'too many alert streams are open', { retryAfterS: 5 })
        const asked = request.query.tenant
        const tenant = keyOf(request).tenant === null && asked === undefined ? null : tenantFor(request, asked)
        const lastId = String(request.headers['last-event-id'] ?? '')
        if (!/^[0-9]{0,15}$/.test(lastId)) throw new ReleveError('invalid_request', 'Last-Event-ID is not a serial')
        reply.hijack()
        const { raw } = reply
        raw.writeHead(200, {
          'content-type': 'text/event-stream',
          'cache-control': 'no-store',
          'x-request-id': request.id,
        })
        raw.write('retry: 1000\n\n')
        const end = (): void => {
          raw.end()
          // A reader that takes nothing must not hold the stop up; it resumes.
          setTimeout(() => raw.destroy(), END_MS).unref()
        }
        open.add(end)
        system.metrics.sseStreams.inc()

        // What comes while the past is read waits; then everything goes out in order, each once.
        let sent = lastId === '' ? 0 : Number(lastId)
        let backlog: Alert[] | null = []
        const isOver = (): boolean => raw.destroyed || raw.writableEnded
        const drop = (): void => {
          system.metrics.sseDropped.inc()
          raw.destroy()
        }
        const send = (alert: Alert): void => {
          if (alert.serial <= sent || isOver()) return
          // A key that is revoked ends its streams too.
          if (system.keys.check(request.headers.authorization) === undefined) {
            raw.destroy()
            return
          }
          sent = alert.serial
          raw.write(frame(alert))
          if (raw.writableLength > limits.sseBacklogMax * 1024) drop()
        }
        const unsubscribe = system.alerts.subscribe((alert) => {
          if (tenant !== null && alert.tenant !== tenant) return
          if (backlog === null) send(alert)
          else if (backlog.push(alert) > limits.sseBacklogMax) drop()
        })
        const heartbeat = setInterval(() => {
          if (!isOver()) raw.write(': here\n\n')
        }, HEARTBEAT_MS)
        raw.on('close', () => {
          clearInterval(heartbeat)
          unsubscribe()
          open.delete(end)
          system.metrics.sseStreams.dec()
        })
        try {
          // Without Last-Event-ID the stream begins now.
          while (lastId !== '' && !isOver()) {
            const past = await system.alerts.list({ tenant, after: sent, limit: limits.pageMax })
            for (const alert of past) {
              send(alert)
              // The past may be long: its reader sets the pace.
              if (raw.writableNeedDrain && !isOver()) await drained(raw)
            }
            if (past.length < limits.pageMax) break
          }
          const waiting = backlog
          backlog = null
          for (const alert of waiting) send(alert)
        } catch (error) {
          system.logger.warn({ error: String(error) }, 'an alert stream ends')
          raw.destroy()
        }
      },
    )
  }
}
