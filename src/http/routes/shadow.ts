/** Other prices and plans over real usage. */
import type { FastifyPluginAsync } from 'fastify'
import { ReleveError } from '../../errors.js'
import type { ShadowChange } from '../../invoicing/shadow.js'
import { limits } from '../../limits.js'
import { parseMoment } from '../../period.js'
import type { System } from '../../system.js'

interface Body extends ShadowChange {
  readonly from: string
  readonly to: string
  readonly tenant?: string
  readonly contracts?: readonly string[]
  readonly after?: string
  readonly limit?: number
}

export function shadowRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const name = { type: 'string', minLength: 1, maxLength: limits.nameBytesMax } as const
    app.post<{ Body: Body }>(
      '/v1/rating/shadow',
      {
        config: { scope: 'admin' },
        schema: {
          tags: ['catalogue'],
          summary:
            'What other price versions (drafts too) or plans would have made of real usage, per customer; nothing is stored',
          description:
            'Both sides are rated from the same usage, by the terms in force when each period began. A page of contracts, by id; `next` continues behind it. Prepaid packs and late usage are left out.',
          body: {
            type: 'object',
            required: ['from', 'to'],
            properties: {
              prices: {
                type: 'array',
                maxItems: 100,
                items: {
                  type: 'object',
                  required: ['rule', 'version'],
                  properties: { rule: name, version: name },
                  additionalProperties: false,
                },
              },
              plans: {
                type: 'array',
                maxItems: 20,
                items: {
                  type: 'object',
                  required: ['from', 'to'],
                  properties: { from: name, to: name, version: { type: 'integer', minimum: 1 } },
                  additionalProperties: false,
                },
              },
              from: {
                type: 'string',
                maxLength: 40,
                description: 'periods that begin at or after it, RFC 3339 or epoch ms',
              },
              to: { type: 'string', maxLength: 40, description: 'and before it' },
              tenant: name,
              contracts: { type: 'array', maxItems: limits.shadowContractsMax, items: name },
              after: { type: 'string', maxLength: limits.nameBytesMax, description: '`next` of the page before' },
              limit: { type: 'integer', minimum: 1, maximum: limits.shadowContractsMax, default: 50 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { prices = [], plans = [], from, to, limit = 50, ...which } = request.body
        if (prices.length + plans.length === 0)
          throw new ReleveError('invalid_request', 'prices, plans: at least one change is needed')
        return system.billing.shadow({
          ...which,
          change: { prices, plans },
          from: parseMoment('from', from),
          to: parseMoment('to', to),
          limit,
        })
      },
    )
  }
}
