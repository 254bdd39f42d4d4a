/** Connected objects: /v1/objects, their events, activation in bulk, and the detail of an invoice object by object. */
import { Readable } from 'node:stream'
import type { FastifyPluginAsync } from 'fastify'
import { ReleveError } from '../../errors.js'
import { chargesTable } from '../../invoicing/object-detail.js'
import { streamCsv, streamXlsx } from '../../invoicing/sheet.js'
import { limits } from '../../limits.js'
import { chargesOf } from '../../objects/charges.js'
import type { Activation, ObjectInput } from '../../objects/objects.js'
import { parseMoment } from '../../period.js'
import type { System } from '../../system.js'
import { keyOf } from '../http.js'

const text = (description: string) =>
  ({
    type: 'string',
    minLength: 1,
    maxLength: limits.nameBytesMax,
    pattern: '^[^\\u0000-\\u001f\\u007f]+$',
    description,
  }) as const
const place = { contract: text('its contract'), item: text('the fleet item of the contract') } as const
const data = { type: 'object', maxProperties: 50, description: 'kept as it is' } as const
const at = {
  type: 'string',
  maxLength: 40,
  description: 'RFC 3339 or epoch ms; its day in the zone of the contract counts',
} as const
const object = {
  type: 'object',
  required: ['id'],
  properties: {
    id: text('its name, such as IOT_NS542'),
    subject: text('what its usage carries as subject: IMEI, line number, delivery point; the id by default'),
    kind: text('what it is'),
    attributes: data,
    tenant: text('the customer, when known'),
    ...place,
    state: { enum: ['draft', 'pending'], description: 'pending when absent' },
  },
  additionalProperties: false,
} as const
const objectsList = { type: 'array', items: object, minItems: 1, maxItems: limits.objectsBatchMax } as const

export function objectRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['objects']

    app.post<{ Body: ObjectInput | ObjectInput[] }>(
      '/v1/objects',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Create connected objects: one, or a list that is taken wholly or not at all',
          body: { anyOf: [object, objectsList] },
        },
      },
      async (request, reply) => {
        const input = Array.isArray(request.body) ? request.body : [request.body]
        const done = await system.objects.create(input)
        reply.status(done.created > 0 ? 201 : 200)
        return Array.isArray(request.body) ? done : system.objects.get(input[0]!.id, null)
      },
    )

    app.get<{
      Querystring: {
        tenant?: string
        contract?: string
        item?: string
        state?: string
        search?: string
        after?: string
        limit?: number
      }
    }>(
      '/v1/objects',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Objects in the order of their creation',
          querystring: {
            type: 'object',
            properties: {
              tenant: text('of one customer'),
              ...place,
              state: { enum: ['draft', 'pending', 'active', 'ended'] },
              search: text('the beginning of an id or a subject'),
              after: { type: 'string', pattern: '^[0-9]{1,18}$', description: '`next` of the page before' },
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant, limit = 100, ...filter } = request.query
        const key = keyOf(request)
        if (key.tenant !== null && tenant !== undefined && tenant !== key.tenant)
          throw new ReleveError('forbidden', 'the key belongs to another tenant')
        return system.objects.list({ ...filter, tenant: key.tenant ?? tenant ?? null, limit })
      },
    )

    app.get<{ Params: { id: string } }>(
      '/v1/objects/:id',
      {
        config: { scope: 'read' },
        schema: { tags, summary: 'An object with its events, its contract item and the invoicing schedules of that' },
      },
      async (request) => {
        const found = await system.objects.get(request.params.id, keyOf(request).tenant)
        const own = await system.objects.itemOf(found.id)
        return {
          ...found,
          contractItem: own?.item ?? null,
          invoicingSchedules: own?.schedules ?? [],
          events: await system.objects.events(found.id),
        }
      },
    )

    app.post<{ Body: Omit<Activation, 'at'> & { at: string } }>(
      '/v1/objects/activate',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'The activation event of many objects: each gets a contract item and its invoicing schedules',
          description: 'All or none. Asked again, what is active already is left as it is.',
          body: {
            type: 'object',
            required: ['objects', 'at'],
            properties: {
              objects: { type: 'array', items: text('an id'), minItems: 1, maxItems: limits.objectsBatchMax },
              ...place,
              at,
              months: { type: 'integer', minimum: 1, maximum: limits.scheduleMonthsMax },
              data,
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => system.objects.activate({ ...request.body, at: parseMoment('at', request.body.at) }),
    )

    app.post<{
      Params: { id: string }
      Body: {
        type: string
        at?: string
        contract?: string
        item?: string
        months?: number
        data?: Record<string, unknown>
      }
    }>(
      '/v1/objects/:id/events',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'An event of an object’s life: activation, end_of_life, or any other, which is kept',
          body: {
            type: 'object',
            required: ['type'],
            properties: {
              type: text('activation, end_of_life, or another'),
              at,
              ...place,
              months: { type: 'integer', minimum: 1, maximum: limits.scheduleMonthsMax },
              data,
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { id } = request.params
        const { type, at: when, data: kept = {}, ...others } = request.body
        const moment = when === undefined ? system.clock.now() : parseMoment('at', when)
        if (type === 'activation') await system.objects.activate({ ...others, objects: [id], at: moment, data: kept })
        else if (type === 'end_of_life') await system.objects.end(id, moment, kept)
        else await system.objects.addEvent(id, type, moment, kept)
        return reply.status(201).send(await system.objects.get(id, null))
      },
    )

    app.get<{ Params: { id: string }; Querystring: { format?: 'csv' | 'xlsx' } }>(
      '/v1/invoices/:id/objects',
      {
        config: { scope: 'read' },
        schema: {
          tags: ['invoices'],
          summary: 'The detail behind the grouped lines: one row per object and metric, streamed',
          querystring: {
            type: 'object',
            properties: { format: { enum: ['csv', 'xlsx'], default: 'csv' } },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { invoice } = await system.invoicing.get(request.params.id, keyOf(request).tenant)
        const closing = `${invoice.contract}/${invoice.period.from}`
        const table = chargesTable(invoice, chargesOf(system.engines.postgres, closing))
        const format = request.query.format ?? 'csv'
        const name = (invoice.number ?? invoice.id).replaceAll(/[^A-Za-z0-9._-]+/g, '-')
        reply
          .type(
            format === 'csv'
              ? 'text/csv; charset=utf-8'
              : 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
          )
          .header('content-disposition', `attachment; filename="${name}-objects.${format}"`)
        return reply.send(Readable.from(format === 'csv' ? streamCsv(table) : streamXlsx(table), { objectMode: false }))
      },
    )
  }
}
