/** GET /v1/meters/silent: meters that have stopped. */
import type { FastifyPluginAsync } from 'fastify'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'
import { tenantFor } from '../http.js'

const text = (description: string) => ({ type: 'string', maxLength: limits.nameBytesMax, description }) as const

export function meterRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    app.get<{ Querystring: { tenant?: string; contract?: string; hours?: number; after?: string; limit?: number } }>(
      '/v1/meters/silent',
      {
        config: { scope: 'read' },
        schema: {
          tags: ['objects'],
          summary: 'Active objects, and metrics of contract items, without an event for so many hours',
          querystring: {
            type: 'object',
            properties: {
              tenant: text('needed with a platform-wide key'),
              contract: text('of one contract'),
              hours: { type: 'integer', minimum: 1, maximum: limits.meterLookBackMs / 3_600_000, default: 24 },
              after: text('`next` of the page before'),
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant, contract, hours = 24, after, limit = 100 } = request.query
        return system.meters.silent({
          tenant: tenantFor(request, tenant),
          contract,
          silentMs: hours * 3_600_000,
          after,
          limit,
        })
      },
    )
  }
}
