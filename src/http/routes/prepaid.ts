/** Prepaid packs: /v1/prepaid/packs. Bought by an operator; their balance and ledger are seen by the customer too. */
import type { FastifyPluginAsync } from 'fastify'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import type { PackInput } from '../../prepaid/prepaid.js'
import type { System } from '../../system.js'
import { actorOf, keyOf } from '../http.js'

const text = (description: string) => ({ type: 'string', minLength: 1, maxLength: limits.nameBytesMax, description })

export function prepaidRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['prepaid packs']
    app.post<{ Body: PackInput & { readonly billing?: 'now' | 'with_period' } }>(
      '/v1/prepaid/packs',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Buy a pack for a metric of a contract item',
          description:
            'It pays for usage behind the quota from now on: the lowest priority first, then the earliest expiry, the oldest, the id. With an amount it is a line of the invoice of its period. Sent again with the same id it is the same pack.',
          body: {
            type: 'object',
            required: ['contract', 'item', 'metric', 'quantity'],
            properties: {
              id: text('of the purchase; absent: a new one'),
              contract: text('the contract'),
              item: text('the contract item'),
              metric: text('a sum or a count'),
              name: text('as it is printed'),
              quantity: text('decimal text, in the unit of the metric'),
              amount: text('decimal text, HT in the currency of the customer; absent: billed elsewhere'),
              priority: { type: 'integer', minimum: 0, maximum: 1_000_000, description: 'lower pays first; default 0' },
              billing: {
                enum: ['now', 'with_period'],
                description: 'with an amount: on an invoice of its own at once, or with its period (default)',
              },
              expires: text('YYYY-MM-DD, the day on which it is over, or an instant on a whole minute'),
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const by = { actor: actorOf(request) }
        const { pack, created, invoice } = await system.billing.sellPack(request.body, by)
        const billed = invoice === null ? {} : { invoice: { id: invoice.invoice.id, number: invoice.invoice.number } }
        return reply.status(created ? 201 : 200).send({ ...pack, ...billed })
      },
    )

    app.get<{ Querystring: { tenant?: string; contract?: string } }>(
      '/v1/prepaid/packs',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Packs with their balances, those that still pay first',
          querystring: {
            type: 'object',
            properties: { tenant: text('of one customer'), contract: text('of one contract') },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const key = keyOf(request)
        const { tenant, contract } = request.query
        if (key.tenant !== null && tenant !== undefined && tenant !== key.tenant)
          throw new ReleveError('forbidden', 'the key belongs to another tenant')
        return { packs: await system.prepaid.list({ tenant: key.tenant ?? tenant ?? null, contract }) }
      },
    )

    app.get<{ Params: { id: string } }>(
      '/v1/prepaid/packs/:id/ledger',
      {
        config: { scope: 'read' },
        schema: { tags, summary: 'What became of a pack: grant, debits with their closing, forfeits' },
      },
      async (request) => ({ entries: await system.prepaid.ledger(request.params.id, keyOf(request).tenant) }),
    )
  }
}
