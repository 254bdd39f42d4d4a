/** /v1/cardinality: how many metrics, subjects, series and dimension values a tenant may name in a month, and has named. */
import type { FastifyPluginAsync } from 'fastify'
import type { CardinalityLimits } from '../../ingest/cardinality.js'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'
import { tenantFor } from '../http.js'

const tags = ['keys']
const limit = (description: string) =>
  ({ type: ['integer', 'null'], minimum: 1, maximum: limits.cardinalityNamesMax, description }) as const

export function cardinalityRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    app.get<{ Querystring: { tenant?: string } }>(
      '/v1/cardinality',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'What a tenant has named this month, beside its limits',
          querystring: {
            type: 'object',
            properties: { tenant: { type: 'string', maxLength: limits.nameBytesMax } },
            additionalProperties: false,
          },
        },
      },
      async (request) => system.cardinality.view(tenantFor(request, request.query.tenant)),
    )

    app.put<{ Body: Partial<CardinalityLimits> & { tenant?: string } }>(
      '/v1/cardinality',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary:
            'Limit what a tenant may name in a calendar month (UTC); without a tenant, every tenant without its own',
          description:
            'What is absent or null has no limit. An event that would name something new beyond it is refused (too_many_metrics, too_many_subjects, too_many_series, too_many_dim_values); what is known goes on being counted.',
          body: {
            type: 'object',
            properties: {
              tenant: { type: 'string', minLength: 1, maxLength: limits.nameBytesMax },
              metrics: limit('metrics'),
              subjects: limit('subjects'),
              series: limit('combinations of metric, subject and dimensions'),
              dimValues: limit('values of one dimension of one metric'),
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant, metrics = null, subjects = null, series = null, dimValues = null } = request.body
        const to = { metrics, subjects, series, dimValues }
        await system.cardinality.set(tenant ?? null, to)
        return { tenant: tenant ?? null, limits: to }
      },
    )
  }
}
