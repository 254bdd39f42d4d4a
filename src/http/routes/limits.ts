/**
 * /v1/quotas/check, /v1/limits and /v1/reservations: whether a tenant may use more, what it may, and room that is held for a while.
 * A refusal is an answer and no error: 200 with what is left and why.
 */
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import type { Bound } from '../../quota/policy.js'
import type { ReservedEvent, System } from '../../system.js'
import { keyOf, tenantFor } from '../http.js'

const name = { type: 'string', minLength: 1, maxLength: limits.nameBytesMax } as const
const amount = { type: 'string', minLength: 1, maxLength: 32 } as const
const bound = {
  type: ['string', 'null'],
  maxLength: 32,
  description: 'decimal text, "included" (what the contract includes), or null',
} as const
const idParams = { type: 'object', properties: { id: { type: 'string', maxLength: 64 } } } as const
const asked = {
  tenant: { ...name, description: 'needed with a platform-wide key' },
  metric: name,
  n: { ...amount, description: 'how much more, decimal text' },
  subject: {
    ...name,
    description: 'whose usage it is: where contract items share a metric by subject, the quota is that of its item',
  },
} as const

interface AskBody {
  readonly tenant?: string
  readonly metric: string
  readonly n: string
  readonly subject?: string
}

interface ReserveBody extends AskBody {
  readonly leaseSeconds?: number
  readonly key?: string
}

/** In the body or in the header that other interfaces use. */
function idempotencyKeyOf(request: FastifyRequest<{ Body: ReserveBody }>): string {
  const header = request.headers['idempotency-key']
  const key = request.body.key ?? (typeof header === 'string' ? header : '')
  if (key === '' || key.length > limits.nameBytesMax)
    throw new ReleveError(
      'invalid_request',
      `key: is needed, up to ${limits.nameBytesMax} characters, in the body or as Idempotency-Key`,
    )
  return key
}

export function limitRoutes(system: System): FastifyPluginAsync {
  const tags = ['limits']
  return async (app) => {
    app.post<{ Body: AskBody }>(
      '/v1/quotas/check',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'May this tenant use n more? Whether, what is left, and why',
          body: { type: 'object', required: ['metric', 'n'], properties: asked, additionalProperties: false },
        },
      },
      async (request) => {
        const { tenant, metric, n, subject } = request.body
        return system.guard.check({ tenant: tenantFor(request, tenant), metric, quantity: n, subject })
      },
    )

    app.put<{ Body: { tenant?: string; metric: string; soft?: Bound; hard?: Bound } }>(
      '/v1/limits',
      {
        config: { scope: 'manage' },
        schema: {
          tags,
          summary: 'The soft limit of a metric (told) and its hard one (refused); acts at once',
          body: {
            type: 'object',
            required: ['metric'],
            properties: { tenant: asked.tenant, metric: name, soft: bound, hard: bound },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant: whose, metric, soft = 'included', hard = null } = request.body
        return { limit: await system.putLimit({ tenant: tenantFor(request, whose), metric, soft, hard }) }
      },
    )

    app.get<{ Querystring: { tenant?: string } }>(
      '/v1/limits',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Limits that were set; everywhere else what the contract includes is the soft one',
          querystring: { type: 'object', properties: { tenant: name }, additionalProperties: false },
        },
      },
      async (request) => ({ limits: system.limits.list(seenBy(request, request.query.tenant)) }),
    )

    app.delete<{ Querystring: { tenant?: string; metric: string } }>(
      '/v1/limits',
      {
        config: { scope: 'manage' },
        schema: {
          tags,
          summary: 'Back to what the contract says',
          querystring: {
            type: 'object',
            required: ['metric'],
            properties: { tenant: name, metric: name },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant, metric } = request.query
        return { limit: await system.removeLimit(tenantFor(request, tenant), metric) }
      },
    )

    app.post<{ Body: ReserveBody }>(
      '/v1/reservations',
      {
        config: { scope: 'ingest' },
        schema: {
          tags,
          summary: 'Hold n for a while: 201 when granted, 200 with granted false and why when not',
          body: {
            type: 'object',
            required: ['metric', 'n'],
            properties: {
              ...asked,
              leaseSeconds: { type: 'integer', minimum: 1, maximum: limits.leaseSecondsMax, default: 60 },
              key: { ...name, description: 'the same again is the same reservation; or the header Idempotency-Key' },
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { tenant, metric, n, subject, leaseSeconds = 60 } = request.body
        const key = idempotencyKeyOf(request)
        const done = await system.guard.reserve({
          tenant: tenantFor(request, tenant),
          metric,
          quantity: n,
          subject,
          leaseSeconds,
          key,
        })
        if ('refused' in done) return { granted: false, ...done.refused }
        reply.status(201)
        return { granted: true, reservation: done.reservation }
      },
    )

    app.get<{ Querystring: { tenant?: string; metric?: string; limit?: number } }>(
      '/v1/reservations',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Reservations that hold something, the oldest first',
          querystring: {
            type: 'object',
            properties: {
              tenant: name,
              metric: name,
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant, metric, limit = 100 } = request.query
        return { reservations: system.guard.list({ tenant: seenBy(request, tenant), metric, limit }) }
      },
    )

    app.get<{ Params: { id: string } }>(
      '/v1/reservations/:id',
      { config: { scope: 'read' }, schema: { tags, summary: 'One reservation', params: idParams } },
      async (request) => ({ reservation: system.guard.get(request.params.id, keyOf(request).tenant) }),
    )

    app.post<{ Params: { id: string }; Body: { amount?: string; event?: ReservedEvent } | null }>(
      '/v1/reservations/:id/commit',
      {
        config: { scope: 'ingest' },
        schema: {
          tags,
          summary: 'It was used: send the event first, then commit with what it says; or hand the event over here',
          description:
            'The hold becomes the amount, and ends when everything that was stored before the commit is counted. With `event` the service ' +
            'stores it first: tenant and metric are the reservation’s, its value is the amount.',
          params: idParams,
          body: {
            type: ['object', 'null'],
            properties: {
              amount: { ...amount, description: 'what was really used; default what was reserved' },
              event: {
                type: 'object',
                required: ['id'],
                properties: {
                  id: { type: 'string', minLength: 1, maxLength: limits.idBytesMax },
                  source: { type: 'string', maxLength: limits.nameBytesMax },
                  time: { anyOf: [{ type: 'string', maxLength: 64 }, { type: 'integer' }] },
                  dims: { type: 'object', additionalProperties: { type: 'string' }, maxProperties: limits.dimsMax },
                },
                additionalProperties: false,
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { amount: actual, event } = request.body ?? {}
        return { reservation: await system.commitReservation(request.params.id, keyOf(request).tenant, actual, event) }
      },
    )

    app.post<{ Params: { id: string } }>(
      '/v1/reservations/:id/release',
      {
        config: { scope: 'ingest' },
        schema: { tags, summary: 'It is not used: give the room back', params: idParams },
      },
      async (request) => ({ reservation: await system.guard.release(request.params.id, keyOf(request).tenant) }),
    )
  }
}

/** The tenant whose things the key may see; null: of all. */
function seenBy(request: FastifyRequest, whose?: string): string | null {
  return keyOf(request).tenant === null && whose === undefined ? null : tenantFor(request, whose)
}
