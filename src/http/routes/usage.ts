/** GET /v1/usage, /v1/quotas/{tenant}, /v1/books: what was counted, live and by window. */
import type { FastifyPluginAsync } from 'fastify'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'
import { tenantFor } from '../http.js'

const text = (description: string) => ({ type: 'string', maxLength: limits.nameBytesMax, description }) as const

interface UsageQuerystring {
  tenant?: string
  metric: string
  from: string
  to: string
  window?: 'minute' | 'hour' | 'day' | 'month'
  tz?: string
  subject?: string
  group_by?: string
  [dimension: `dims.${string}`]: string
}

export function usageRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    app.get<{ Querystring: UsageQuerystring }>(
      '/v1/usage',
      {
        config: { scope: 'read' },
        schema: {
          tags: ['usage'],
          summary: 'Usage of one metric',
          description: 'Figures are decimal text. `asOf` names the epoch of each stream that the answer holds.',
          querystring: {
            type: 'object',
            required: ['metric', 'from', 'to'],
            properties: {
              tenant: text('needed with a platform-wide key'),
              metric: text('the metric'),
              from: text('RFC 3339 or epoch ms, on a whole minute'),
              to: text('exclusive'),
              window: { type: 'string', enum: ['minute', 'hour', 'day', 'month'], description: 'none: one figure' },
              tz: text('IANA zone of days and months; default UTC'),
              subject: text('only this subject'),
              group_by: text('subject, or names of dimensions, with commas'),
            },
            patternProperties: { '^dims\\.': text('only series with this dimension value, as dims.NAME=VALUE') },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const q = request.query
        const dims: Record<string, string> = {}
        for (const [name, value] of Object.entries(q)) if (name.startsWith('dims.')) dims[name.slice(5)] = String(value)
        return system.answers.usage({
          tenant: tenantFor(request, q.tenant),
          metric: q.metric,
          from: q.from,
          to: q.to,
          window: q.window ?? null,
          timeZone: q.tz ?? 'UTC',
          subject: q.subject,
          dims,
          groupBy: q.group_by === undefined || q.group_by === '' ? [] : q.group_by.split(','),
        })
      },
    )

    app.get<{ Params: { tenant: string } }>(
      '/v1/quotas/:tenant',
      {
        config: { scope: 'read' },
        schema: {
          tags: ['quotas'],
          summary: 'Live quotas of a tenant',
          params: { type: 'object', properties: { tenant: text('the tenant') } },
        },
      },
      async (request) => system.answers.quotas(tenantFor(request, request.params.tenant)),
    )

    app.get(
      '/v1/books',
      {
        config: { scope: 'admin' },
        schema: {
          tags: ['usage'],
          summary: 'The books: received, stored, refused, accepted, duplicate, conflict, archived',
        },
      },
      async () => system.books(),
    )
  }
}
