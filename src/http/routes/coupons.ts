/** Coupons: /v1/coupons, and their redemption by a contract. */
import type { FastifyPluginAsync } from 'fastify'
import type { Coupon } from '../../catalog/coupons.js'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'

const text = (description: string) => ({ type: 'string', minLength: 1, maxLength: limits.nameBytesMax, description })
const count = { type: 'integer', minimum: 1, maximum: 1_000_000 }

export function couponRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['catalogue']
    app.get(
      '/v1/coupons',
      { config: { scope: 'admin' }, schema: { tags, summary: 'Coupons, with how often each was redeemed' } },
      async () => ({ coupons: await system.coupons.list() }),
    )

    app.post<{ Body: Coupon }>(
      '/v1/coupons',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Make a coupon: a percentage or an amount off, for some periods',
          body: {
            type: 'object',
            required: ['code', 'name', 'kind', 'value'],
            properties: {
              code: text('what is redeemed, and printed'),
              name: text('for the operator'),
              kind: { enum: ['percent', 'amount'] },
              value: text('decimal text'),
              currency: text('of an amount'),
              validFrom: text('first day of redemption, YYYY-MM-DD'),
              validUntil: text('last day of redemption'),
              periods: { ...count, description: 'billing periods it counts for; absent: all' },
              redemptionsMax: { ...count, description: 'contracts that may redeem it; absent: any number' },
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { created } = await system.coupons.create(request.body)
        return reply.status(created ? 201 : 200).send(request.body)
      },
    )

    app.post<{ Params: { contract: string }; Body: { code: string } }>(
      '/v1/contracts/:contract/coupons',
      {
        config: { scope: 'admin' },
        schema: {
          tags: ['contracts'],
          summary: 'Redeem a coupon: a discount of the contract from its running period on',
          body: {
            type: 'object',
            required: ['code'],
            properties: { code: text('the coupon') },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const contract = await system.coupons.redeem(request.body.code, request.params.contract)
        await system.catalogSettled()
        return contract
      },
    )
  }
}
