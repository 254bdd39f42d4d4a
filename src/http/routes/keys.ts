/** /v1/keys: create, list, change, rotate, revoke. A secret is in the answer of the creation or the rotation and nowhere else. */
import type { FastifyPluginAsync } from 'fastify'
import { type KeyLimits, Rate } from '../../access/budget.js'
import { Scope } from '../../access/keys.js'
import { limits } from '../../limits.js'
import { parseMoment } from '../../period.js'
import type { System } from '../../system.js'

const tags = ['keys']
const rates = {
  type: 'object',
  description: 'what is absent has no limit; a request beyond it gets 429 with Retry-After',
  properties: Object.fromEntries(
    Rate.map((name) => [name, { type: 'integer', minimum: 1, maximum: limits.keyRateMax }]),
  ),
  additionalProperties: false,
} as const
const end = {
  type: ['string', 'null'],
  maxLength: 40,
  description: 'RFC 3339 or epoch ms; null: never',
} as const
const byId = {
  type: 'object',
  properties: { id: { type: 'string', maxLength: limits.nameBytesMax } },
} as const

/** undefined stays undefined, null stays null. */
const momentOf = <T extends null | undefined>(text: string | T): number | T =>
  typeof text === 'string' ? parseMoment('expiresAt', text) : text

export function keyRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    app.get(
      '/v1/keys',
      { config: { scope: 'admin' }, schema: { tags, summary: 'Keys, without secrets' } },
      async () => ({
        keys: system.keys.list(),
      }),
    )

    app.post<{
      Body: { name: string; tenant?: string; scopes: Scope[]; limits?: KeyLimits; expiresAt?: string | null }
    }>(
      '/v1/keys',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Make a key; its secret is shown once',
          body: {
            type: 'object',
            required: ['name', 'scopes'],
            properties: {
              name: { type: 'string', minLength: 1, maxLength: limits.nameBytesMax },
              tenant: {
                type: 'string',
                minLength: 1,
                maxLength: limits.nameBytesMax,
                description: 'none: platform-wide',
              },
              scopes: { type: 'array', minItems: 1, uniqueItems: true, items: { type: 'string', enum: [...Scope] } },
              limits: rates,
              expiresAt: end,
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { name, tenant, scopes, limits: of, expiresAt = null } = request.body
        const made = await system.keys.create({
          name,
          tenant: tenant ?? null,
          scopes,
          ...(of === undefined ? {} : { limits: of }),
          expiresAt: momentOf(expiresAt),
        })
        reply.status(201)
        return made
      },
    )

    app.patch<{ Params: { id: string }; Body: { limits?: KeyLimits; expiresAt?: string | null } }>(
      '/v1/keys/:id',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Change the limits or the end of a key; what is absent stays',
          params: byId,
          body: {
            type: 'object',
            minProperties: 1,
            properties: { limits: rates, expiresAt: end },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { limits: of, expiresAt } = request.body
        const to = {
          ...(of === undefined ? {} : { limits: of }),
          ...(expiresAt === undefined ? {} : { expiresAt: momentOf(expiresAt) }),
        }
        return { key: await system.keys.change(request.params.id, to) }
      },
    )

    app.post<{ Params: { id: string }; Body: { overlapSeconds?: number } }>(
      '/v1/keys/:id/rotate',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'A new secret for a key, shown once; the one so far stays valid for the overlap',
          params: byId,
          body: {
            type: 'object',
            properties: {
              overlapSeconds: {
                type: 'integer',
                minimum: 0,
                maximum: limits.keyOverlapMsMax / 1000,
                default: limits.keyOverlapMs / 1000,
                description: '0: the secret so far ends now. One that an earlier rotation left valid ends in any case.',
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) =>
        system.keys.rotate(request.params.id, 1000 * (request.body.overlapSeconds ?? limits.keyOverlapMs / 1000)),
    )

    app.delete<{ Params: { id: string } }>(
      '/v1/keys/:id',
      { config: { scope: 'admin' }, schema: { tags, summary: 'Revoke a key', params: byId } },
      async (request) => ({ key: await system.keys.revoke(request.params.id) }),
    )
  }
}
