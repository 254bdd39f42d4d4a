/**
 * /v1/webhooks and /v1/email-recipients: who is told what, and what could not be told. A tenant's key manages its tenant's own; a
 * platform-wide one manages all, and names the tenant, or null for endpoints that are told of every tenant.
 */
import type { FastifyInstance, FastifyPluginAsync, FastifyRequest } from 'fastify'
import type { Channel, EndpointChange } from '../../delivery/endpoints.js'
import { EventTypes } from '../../delivery/events.js'
import { ReleveError } from '../../errors.js'
import { Language } from '../../format.js'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'
import { keyOf, tenantFor } from '../http.js'

const name = { type: 'string', minLength: 1, maxLength: limits.nameBytesMax } as const
const names = {
  type: 'array',
  minItems: 1,
  maxItems: limits.endpointFiltersMax,
  uniqueItems: true,
  items: name,
} as const
const chosen = {
  description: { type: 'string', maxLength: 256 },
  events: {
    ...names,
    description:
      'types such as alert.triggered, families such as alert.* (the default), or *; GET /v1/webhooks/event-types lists them',
  },
  metrics: { ...names, type: ['array', 'null'], description: 'only of these metrics; null: of all' },
  rules: { ...names, type: ['array', 'null'], description: 'only of these alert rules; null: of all' },
} as const
const tenantOfNew = {
  ...name,
  type: ['string', 'null'],
  description: 'with a platform-wide key: a tenant, or null for all',
} as const
const state = { type: 'string', enum: ['enabled', 'disabled'] } as const
const language = { type: 'string', enum: [...Language], description: 'default fr' } as const
const idParams = { type: 'object', properties: { id: { type: 'string', maxLength: 64 } } } as const
const tenantQuery = {
  type: 'object',
  properties: { tenant: { ...name, description: 'only of this tenant; needed by nobody' } },
  additionalProperties: false,
} as const

interface EndpointBody extends Omit<EndpointChange, 'target'> {
  readonly tenant?: string | null
  readonly url?: string
  readonly address?: string
}

/** The tenant whose endpoints the key may see; null: of all. */
export function seenBy(request: FastifyRequest, asked?: string): string | null {
  return keyOf(request).tenant === null && asked === undefined ? null : tenantFor(request, asked)
}

/** The tenant that a new endpoint belongs to; null: the platform. */
function ownerOf(request: FastifyRequest, asked: string | null | undefined): string | null {
  const { tenant } = keyOf(request)
  if (tenant !== null) {
    if (asked === null) throw new ReleveError('forbidden', 'the key belongs to a tenant')
    return tenantFor(request, asked)
  }
  if (asked === undefined)
    throw new ReleveError('invalid_request', 'tenant: name one, or null to be told of all tenants')
  return asked
}

/** What both channels have: create, list, read, change, delete, test. */
function endpointRoutes(
  app: FastifyInstance,
  system: System,
  path: '/v1/webhooks' | '/v1/email-recipients',
  channel: Channel,
  target: string,
): void {
  const { endpoints } = system.delivery
  const tags = ['delivery']
  const member =
    channel === 'webhook'
      ? { url: { type: 'string', minLength: 1, maxLength: limits.urlMax } }
      : { address: name, language }
  const inputOf = ({ tenant: _, url, address, ...rest }: EndpointBody): EndpointChange => {
    const to = url ?? address
    return to === undefined ? rest : { ...rest, target: to }
  }

  app.post<{ Body: EndpointBody }>(
    path,
    {
      config: { scope: 'manage' },
      schema: {
        tags,
        summary:
          channel === 'webhook' ? 'Make a webhook; its secret is shown once' : 'Send alerts to an e-mail address',
        body: {
          type: 'object',
          required: [target],
          properties: { tenant: tenantOfNew, ...member, ...chosen },
          additionalProperties: false,
        },
      },
    },
    async (request, reply) => {
      const tenant = ownerOf(request, request.body.tenant)
      if (tenant !== null && !system.catalog.book().customers.has(tenant))
        throw new ReleveError('unprocessable', `tenant: there is no customer ${tenant}`)
      const { target: to = '', ...rest } = inputOf(request.body)
      const made = await endpoints.create(channel, { ...rest, target: to, tenant })
      reply.status(201)
      return made.secret === null ? { endpoint: made.endpoint } : made
    },
  )

  app.get<{ Querystring: { tenant?: string } }>(
    path,
    { config: { scope: 'read' }, schema: { tags, summary: 'List them, without secrets', querystring: tenantQuery } },
    async (request) => ({ endpoints: endpoints.list(channel, seenBy(request, request.query.tenant)) }),
  )

  app.get<{ Params: { id: string } }>(
    `${path}/:id`,
    { config: { scope: 'read' }, schema: { tags, summary: 'One of them', params: idParams } },
    async (request) => ({ endpoint: endpoints.get(channel, request.params.id, keyOf(request).tenant) }),
  )

  app.patch<{ Params: { id: string }; Body: EndpointBody }>(
    `${path}/:id`,
    {
      config: { scope: 'manage' },
      schema: {
        tags,
        summary: 'Change, disable or enable; what waits for a disabled one becomes dead letters',
        params: idParams,
        body: {
          type: 'object',
          minProperties: 1,
          properties: { ...member, ...chosen, state },
          additionalProperties: false,
        },
      },
    },
    async (request) => {
      const { id } = request.params
      const endpoint = await endpoints.change(channel, id, keyOf(request).tenant, inputOf(request.body))
      if (endpoint.state === 'disabled') await system.delivery.buryPending(id, `disabled: ${endpoint.reason}`)
      return { endpoint }
    },
  )

  app.delete<{ Params: { id: string } }>(
    `${path}/:id`,
    {
      config: { scope: 'manage' },
      schema: { tags, summary: 'Delete it, its deliveries and its dead letters', params: idParams },
    },
    async (request) => ({ endpoint: await endpoints.remove(channel, request.params.id, keyOf(request).tenant) }),
  )

  app.post<{ Params: { id: string } }>(
    `${path}/:id/test`,
    {
      config: { scope: 'manage' },
      schema: { tags, summary: 'One test message now, and what became of it', params: idParams },
    },
    async (request) => system.delivery.ping(channel, request.params.id, keyOf(request).tenant),
  )
}

export function webhookRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    endpointRoutes(app, system, '/v1/webhooks', 'webhook', 'url')
    endpointRoutes(app, system, '/v1/email-recipients', 'email', 'address')

    app.post<{ Params: { id: string }; Body: { overlapSeconds?: number } | null }>(
      '/v1/webhooks/:id/rotate-secret',
      {
        config: { scope: 'manage' },
        schema: {
          tags: ['delivery'],
          summary: 'A new secret, shown once; the old one signs too for a while',
          params: idParams,
          body: {
            type: ['object', 'null'],
            properties: {
              overlapSeconds: {
                type: 'integer',
                minimum: 0,
                maximum: limits.secretOverlapMaxMs / 1000,
                description: 'default a day',
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const overlapMs = (request.body?.overlapSeconds ?? 86_400) * 1000
        return system.delivery.endpoints.rotate(request.params.id, keyOf(request).tenant, overlapMs)
      },
    )

    app.get(
      '/v1/webhooks/event-types',
      {
        config: { scope: 'read' },
        schema: {
          tags: ['delivery'],
          summary: 'The types of events that an endpoint may ask for, and when each is told',
        },
      },
      async () => ({ types: Object.entries(EventTypes).map(([type, { when }]) => ({ type, when })) }),
    )

    const endpointId = { type: 'string', maxLength: 64, description: 'of one webhook or recipient' } as const
    app.get<{ Querystring: { tenant?: string; endpoint?: string; after?: string; limit?: number } }>(
      '/v1/webhooks/dead-letters',
      {
        config: { scope: 'read' },
        schema: {
          tags: ['delivery'],
          summary: 'What could not be delivered, by webhook or by e-mail, oldest first',
          querystring: {
            type: 'object',
            properties: {
              tenant: name,
              endpoint: endpointId,
              after: { type: 'string', pattern: '^[0-9]{1,18}$', default: '0', description: 'id of the last one seen' },
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant, endpoint, after = '0', limit = 100 } = request.query
        return {
          deadLetters: await system.delivery.deadLetters({ tenant: seenBy(request, tenant), endpoint, after, limit }),
        }
      },
    )

    app.post<{ Body: { tenant?: string; endpoint?: string; ids?: string[] } }>(
      '/v1/webhooks/dead-letters/replay',
      {
        config: { scope: 'manage' },
        schema: {
          tags: ['delivery'],
          summary: 'Deliver dead letters again: some by id, those of an endpoint, or all; at most a page at a time',
          body: {
            type: 'object',
            properties: {
              tenant: name,
              endpoint: endpointId,
              ids: {
                type: 'array',
                minItems: 1,
                maxItems: limits.pageMax,
                items: { type: 'string', pattern: '^[0-9]{1,18}$' },
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant, endpoint, ids } = request.body
        return system.delivery.replay({ tenant: seenBy(request, tenant), endpoint, ids })
      },
    )
  }
}
