/** Usage data beside the stream: /v1/usage-data. Bodies are judged in usage-data/datum.ts, which names the field that is wrong. */
import type { FastifyPluginAsync } from 'fastify'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import { parseMoment } from '../../period.js'
import type { System } from '../../system.js'
import { DatumFields, parseExactJson, type UsageDataState } from '../../usage-data/datum.js'
import { keyOf } from '../http.js'

const text = (description: string) => ({ type: 'string', maxLength: limits.nameBytesMax, description }) as const
const datum = {
  type: 'object',
  description:
    'start and end: RFC 3339, epoch ms, or a day in the zone of the contract; value: decimal text, or data: an object',
  properties: Object.fromEntries(DatumFields.map((name) => [name, {}])),
  additionalProperties: false,
} as const

interface ListQuery {
  tenant?: string
  contract?: string
  item?: string
  state?: UsageDataState
  external_reference?: string
  import?: string
  closing?: string
  from?: string
  to?: string
  before?: string
  limit?: number
}

export function usageDataRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['usage data']
    app.removeContentTypeParser('application/json')
    app.addContentTypeParser('application/json', { parseAs: 'string' }, (_, body, done) => {
      try {
        done(null, parseExactJson(body as string))
      } catch (error) {
        done(error instanceof ReleveError ? error : new ReleveError('malformed_body', (error as Error).message))
      }
    })
    /** Drafts of the contracts are made again at once when there are few; the others are, before they are issued. */
    const settle = (contracts: readonly string[]): Promise<number> =>
      system.billing.redraft([...new Set(contracts)], limits.redraftMax)

    app.get<{ Querystring: ListQuery }>(
      '/v1/usage-data',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Usage data, newest first',
          querystring: {
            type: 'object',
            properties: {
              tenant: text('of one customer'),
              contract: text('of one contract'),
              item: text('of one contract item'),
              state: { enum: ['draft', 'pending', 'collected', 'excluded'] },
              external_reference: text('the key of a remote system'),
              import: text('of one imported file'),
              closing: text('of one invoicing schedule: what is behind its lines'),
              from: text('start, RFC 3339 or epoch ms'),
              to: text('exclusive'),
              before: { type: 'string', pattern: '^[0-9]{1,18}$', description: '`next` of the page before' },
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const key = keyOf(request)
        const q = request.query
        if (key.tenant !== null && q.tenant !== undefined && q.tenant !== key.tenant)
          throw new ReleveError('forbidden', 'the key belongs to another tenant')
        return system.usageData.list({
          tenant: key.tenant ?? q.tenant ?? null,
          contract: q.contract,
          item: q.item,
          state: q.state,
          externalReference: q.external_reference,
          import: q.import,
          closing: q.closing,
          from: q.from === undefined ? undefined : parseMoment('from', q.from),
          to: q.to === undefined ? undefined : parseMoment('to', q.to),
          before: q.before,
          limit: q.limit ?? 100,
        })
      },
    )

    app.post<{ Body: Record<string, unknown> | Record<string, unknown>[] }>(
      '/v1/usage-data',
      {
        config: { scope: 'ingest' },
        schema: {
          tags,
          summary: 'Hand in usage data: one, or a list that is taken wholly or not at all',
          description:
            'Draft unless `state` is pending. With an external reference, sent again with the same content: known, not a second one; with other content: conflict.',
          body: { anyOf: [datum, { type: 'array', items: datum, maxItems: limits.usageDataBatchMax }] },
        },
      },
      async (request, reply) => {
        const many = Array.isArray(request.body)
        const input = many ? (request.body as Record<string, unknown>[]) : [request.body as Record<string, unknown>]
        const { tenant } = keyOf(request)
        const results = await system.usageData.create(input, tenant)
        await settle(input.map((one) => String(one.contract)))
        if (many) return reply.status(201).send({ results })
        const [only] = results
        if (only === undefined || 'message' in only) throw new ReleveError('conflict', only?.message ?? '')
        return reply.status(only.outcome === 'created' ? 201 : 200).send(await system.usageData.get(only.id, tenant))
      },
    )

    app.get<{ Params: { id: string } }>(
      '/v1/usage-data/:id',
      { config: { scope: 'read' }, schema: { tags, summary: 'One, with the invoicing schedule that collected it' } },
      async (request) => system.usageData.get(request.params.id, keyOf(request).tenant),
    )

    app.patch<{ Params: { id: string }; Body: Record<string, unknown> }>(
      '/v1/usage-data/:id',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Change a draft, confirm it (state pending), exclude it, or write its notes',
          description:
            'A confirmed one keeps all but its notes; back to draft, it may be changed, as long as it is not collected.',
          body: datum,
        },
      },
      async (request) => {
        const { tenant } = keyOf(request)
        const changed = await system.usageData.change(request.params.id, request.body, tenant)
        await settle([changed.contract])
        return system.usageData.get(request.params.id, tenant)
      },
    )

    app.delete<{ Params: { id: string } }>(
      '/v1/usage-data/:id',
      { config: { scope: 'admin' }, schema: { tags, summary: 'Throw a draft away' } },
      async (request, reply) => {
        await system.usageData.remove(request.params.id, keyOf(request).tenant)
        return reply.status(204).send()
      },
    )
  }
}
