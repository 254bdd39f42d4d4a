/** /v1/rejects: what was refused, by page or as a file; and sent again, mended or as it came. */
import { Readable } from 'node:stream'
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import { exportLine, type Reject, type RejectQuery, readResends } from '../../refusals.js'
import type { System } from '../../system.js'
import { keyOf, tenantFor } from '../http.js'

const tags = ['usage']
const text = (description: string) => ({ type: 'string', maxLength: limits.nameBytesMax, description }) as const
const filters = {
  tenant: text('for a platform-wide key: one tenant; empty for events without a readable one'),
  code: text('one refusal code, or conflict'),
  metric: text('one metric, as the event named it'),
  from: text('receivedAt, RFC 3339 or epoch ms; a week back without one'),
  to: text('exclusive'),
  state: { type: 'string', enum: ['open', 'resent'], description: 'whether it has been sent again' },
} as const

interface Filters {
  tenant?: string
  code?: string
  metric?: string
  from?: string
  to?: string
  state?: 'open' | 'resent'
}

function queryOf(request: FastifyRequest, filter: Filters): Omit<RejectQuery, 'limit'> {
  const { tenant: asked, code, metric, from, to, state } = filter
  const tenant = keyOf(request).tenant === null ? (asked ?? null) : tenantFor(request, asked)
  return { tenant, code, metric, from, to, state }
}

const columns = [
  'reject',
  'receivedAt',
  'tenant',
  'code',
  'field',
  'message',
  'source',
  'id',
  'metric',
  'raw',
  'resentAt',
] as const satisfies readonly (keyof Reject)[]

/** A cell of CSV. A spreadsheet must not run what a stranger sent: a cell that begins like a formula gets an apostrophe. */
function cell(value: string | null): string {
  const safe = /^[=+\-@\t\r]/.test(value ?? '') ? `'${value}` : (value ?? '')
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

export function rejectRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    app.get<{ Querystring: Filters & { after?: string; limit?: number } }>(
      '/v1/rejects',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Refused events and conflicts, newest first',
          description: '`next` names the page behind; with `state` a page may be shorter than asked, or empty.',
          querystring: {
            type: 'object',
            properties: {
              ...filters,
              after: text('`next` of the page before'),
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { after, limit = 100, ...filter } = request.query
        return system.refusals.list({ ...queryOf(request, filter), after, limit })
      },
    )

    app.get<{ Querystring: Filters & { format?: 'ndjson' | 'csv' } }>(
      '/v1/rejects/export',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'The same as a file, of any size',
          description:
            'A line of NDJSON has `event` where the event was kept whole, else `raw`; mended, it is what /v1/rejects/resend reads.',
          querystring: {
            type: 'object',
            properties: { ...filters, format: { type: 'string', enum: ['ndjson', 'csv'], default: 'ndjson' } },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { format = 'ndjson', ...filter } = request.query
        const pages = system.refusals.pages(queryOf(request, filter))
        const lineOf =
          format === 'csv'
            ? (reject: Reject) => `${columns.map((name) => cell(reject[name])).join(',')}\r\n`
            : exportLine
        // The first page before the answer begins, so that what is wrong with the question is said with a status.
        const first = await pages.next()
        async function* chunks(): AsyncGenerator<string> {
          if (format === 'csv') yield `${columns.join(',')}\r\n`
          if (first.done !== true) yield first.value.map(lineOf).join('')
          for await (const page of pages) yield page.map(lineOf).join('')
        }
        return reply
          .type(format === 'csv' ? 'text/csv; charset=utf-8' : 'application/x-ndjson')
          .header('content-disposition', `attachment; filename="rejects.${format}"`)
          .send(Readable.from(chunks()))
      },
    )

    await app.register(async (bytes) => {
      // The events in it stay text: JSON.parse would turn their numbers into doubles.
      bytes.removeAllContentTypeParsers()
      bytes.addContentTypeParser(['application/json', 'application/x-ndjson'], { parseAs: 'buffer' }, (_, body, done) =>
        done(null, body),
      )
      bytes.post<{ Body: Buffer | undefined }>(
        '/v1/rejects/resend',
        {
          config: { scope: 'ingest' },
          schema: {
            tags,
            summary: 'Send refused events again, mended or as they came',
            description: `An array, or NDJSON, of at most ${limits.resendMax} {"reject", "event", "tenant"}. Without \`event\` it is what was kept of it, where that is the whole; an event without a time gets the time of its first arrival. What was sent again already is not sent twice. Outcomes: accepted and duplicate (both now marked as resent), conflict, refused, already, missing, incomplete.`,
          },
        },
        async (request) => {
          const key = keyOf(request)
          if (request.body === undefined) throw new ReleveError('malformed_body', 'the body is empty')
          const lines = request.headers['content-type']?.startsWith('application/x-ndjson') === true
          const items = readResends(request.body, lines)
          if (key.tenant !== null && items.some(({ tenant }) => tenant !== undefined && tenant !== key.tenant))
            throw new ReleveError('forbidden', 'the key belongs to another tenant')
          const answer = await system.refusals.resend(items, key.tenant)
          system.keys.budgetOf(key.id)?.spend({ events: items.length, bytes: request.body.length }, system.clock.now())
          return answer
        },
      )
    })
  }
}
