/** /v1/keys: create, list, revoke. The secret is in the answer of the creation and nowhere else. */
import type { FastifyPluginAsync } from 'fastify'
import { Scope } from '../../access/keys.js'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'

export function keyRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    app.get(
      '/v1/keys',
      { config: { scope: 'admin' }, schema: { tags: ['keys'], summary: 'Keys, without secrets' } },
      async () => ({
        keys: system.keys.list(),
      }),
    )

    app.post<{ Body: { name: string; tenant?: string; scopes: Scope[] } }>(
      '/v1/keys',
      {
        config: { scope: 'admin' },
        schema: {
          tags: ['keys'],
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
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { name, tenant, scopes } = request.body
        const made = await system.keys.create({ name, tenant: tenant ?? null, scopes })
        reply.status(201)
        return made
      },
    )

    app.delete<{ Params: { id: string } }>(
      '/v1/keys/:id',
      { config: { scope: 'admin' }, schema: { tags: ['keys'], summary: 'Revoke a key' } },
      async (request) => ({ key: await system.keys.revoke(request.params.id) }),
    )
  }
}
