/** /v1/rates: what a tenant may send a second over NATS and MQTT, where no key comes along. A key has limits of its own (/v1/keys). */
import type { FastifyPluginAsync } from 'fastify'
import { type KeyLimits, Rate } from '../../access/budget.js'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'
import { tenantFor } from '../http.js'

const tags = ['keys']
const name = { type: 'string', minLength: 1, maxLength: limits.nameBytesMax } as const

export function rateRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    app.get<{ Querystring: { tenant?: string } }>(
      '/v1/rates',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'What a tenant may send a second over NATS and MQTT',
          querystring: { type: 'object', properties: { tenant: name }, additionalProperties: false },
        },
      },
      async (request) => system.rates.view(tenantFor(request, request.query.tenant)),
    )

    app.get<{ Querystring: { after?: string; limit?: number } }>(
      '/v1/rates/tenants',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Every tenant with rates of its own, by name, and those of all others',
          querystring: {
            type: 'object',
            properties: {
              after: { ...name, description: '`next` of the page before' },
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { after = '', limit = 100 } = request.query
        return system.rates.list({ after, limit })
      },
    )

    app.put<{ Body: KeyLimits & { tenant?: string } }>(
      '/v1/rates',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary:
            'Limit what a tenant may send a second over NATS and MQTT; without a tenant, every tenant without its own',
          description:
            'What is absent has no limit. Requests beyond it are answered 429 with retry-after; messages of the stream wait until their turn, and none is refused.',
          body: {
            type: 'object',
            properties: {
              tenant: name,
              ...Object.fromEntries(
                Rate.map((rate) => [rate, { type: 'integer', minimum: 1, maximum: limits.keyRateMax }]),
              ),
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant, ...to } = request.body
        await system.rates.set(tenant ?? null, to)
        return { tenant: tenant ?? null, limits: to }
      },
    )
  }
}
