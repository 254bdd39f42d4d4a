/** /v1/alert-rules: what a tenant is told of a metric, besides the thresholds of its contract. Changes act at once. */
import type { FastifyPluginAsync } from 'fastify'
import { limits } from '../../limits.js'
import { RuleKind, type RuleTerms } from '../../quota/rules.js'
import type { System } from '../../system.js'
import { keyOf, tenantFor } from '../http.js'

const name = { type: 'string', minLength: 1, maxLength: limits.nameBytesMax } as const
const decimal = { type: 'string', maxLength: 32 } as const
const idParams = { type: 'object', properties: { id: { type: 'string', maxLength: 64 } } } as const
const terms = {
  percent: { ...decimal, description: 'percent, forecast: of the limit; a forecast’s default is 100' },
  quantity: { ...decimal, description: 'absolute, forecast: in the metric’s unit' },
  every: { ...decimal, description: 'recurring: told at from + every, from + 2 × every …' },
  from: { ...decimal, description: 'recurring: default 0' },
  seconds: { type: 'integer', description: 'silence: no event for so long' },
  subject: {
    ...name,
    type: ['string', 'null'],
    description: 'silence: of one subject, of each (*), default of the metric as a whole',
  },
} as const
const common = {
  name: { type: 'string', maxLength: 256 },
  enabled: { type: 'boolean', description: 'default true' },
} as const

interface RuleBody extends RuleTerms {
  readonly tenant?: string
  readonly metric: string
  readonly kind: RuleKind
  readonly name?: string
  readonly enabled?: boolean
}

export function alertRuleRoutes(system: System): FastifyPluginAsync {
  const tags = ['alerts']
  return async (app) => {
    app.post<{ Body: RuleBody }>(
      '/v1/alert-rules',
      {
        config: { scope: 'manage' },
        schema: {
          tags,
          summary: 'Make a rule: percent, absolute, recurring, forecast or silence',
          body: {
            type: 'object',
            required: ['metric', 'kind'],
            properties: {
              tenant: name,
              metric: name,
              kind: { type: 'string', enum: [...RuleKind] },
              ...common,
              ...terms,
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { tenant: asked, metric, kind, name: text, enabled, ...given } = request.body
        const tenant = tenantFor(request, asked)
        const rule = await system.alerting.create({ tenant, metric, kind, name: text, enabled, terms: given })
        reply.status(201)
        return { rule }
      },
    )

    app.get<{ Querystring: { tenant?: string; metric?: string } }>(
      '/v1/alert-rules',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'The rules',
          querystring: { type: 'object', properties: { tenant: name, metric: name }, additionalProperties: false },
        },
      },
      async (request) => {
        const { tenant: asked, metric } = request.query
        const tenant = keyOf(request).tenant === null && asked === undefined ? null : tenantFor(request, asked)
        return { rules: system.alerting.list(tenant, metric) }
      },
    )

    app.get<{ Params: { id: string } }>(
      '/v1/alert-rules/:id',
      { config: { scope: 'read' }, schema: { tags, summary: 'One rule', params: idParams } },
      async (request) => ({ rule: system.alerting.get(request.params.id, keyOf(request).tenant) }),
    )

    app.patch<{ Params: { id: string }; Body: Omit<RuleBody, 'tenant' | 'metric' | 'kind'> }>(
      '/v1/alert-rules/:id',
      {
        config: { scope: 'manage' },
        schema: {
          tags,
          summary: 'Change what a rule says, or switch it off and on; what it says anew may ring anew',
          params: idParams,
          body: { type: 'object', minProperties: 1, properties: { ...common, ...terms }, additionalProperties: false },
        },
      },
      async (request) => {
        const { name: text, enabled, ...given } = request.body
        const change = { name: text, enabled, terms: given }
        return { rule: await system.alerting.change(request.params.id, keyOf(request).tenant, change) }
      },
    )

    app.delete<{ Params: { id: string } }>(
      '/v1/alert-rules/:id',
      { config: { scope: 'manage' }, schema: { tags, summary: 'Delete a rule; its alerts stay', params: idParams } },
      async (request) => ({ rule: await system.alerting.remove(request.params.id, keyOf(request).tenant) }),
    )
  }
}
