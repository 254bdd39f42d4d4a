/** Invoices and the closing of periods. */
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { ReleveError } from '../../errors.js'
import { dateIn, Language } from '../../format.js'
import { customerNotices } from '../../invoicing/invoice.js'
import type { KeptInvoice } from '../../invoicing/invoicing.js'
import { assertPrintable, DocumentFormat, formatOf, printInvoice } from '../../invoicing/print.js'
import { InvoiceMoves, type InvoiceState, paymentOf, totalsByStatus } from '../../invoicing/state.js'
import { limits } from '../../limits.js'
import { parseMoment } from '../../period.js'
import type { System } from '../../system.js'
import { keyOf } from '../http.js'

export function invoiceRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['invoices']
    /** What is due is told by the calendar of the seller. */
    const paymentFor = ({ state, invoice }: KeptInvoice) =>
      paymentOf(state, invoice, dateIn(system.clock.now(), invoice.seller.timeZone))
    /** For a key of a tenant, what belongs to another is answered as if it were not there: in the same words. */
    const own = async <T>(tenant: string | null, find: () => Promise<T>, tenantOf: (found: T) => string) => {
      const found = await find().catch((error: unknown) => {
        if (error instanceof ReleveError && error.code === 'not_found') return undefined
        throw error
      })
      if (found === undefined || (tenant !== null && tenant !== tenantOf(found)))
        throw new ReleveError('not_found', 'there is no such invoice or contract')
      return found
    }

    app.get<{
      Querystring: { tenant?: string; contract?: string; state?: InvoiceState; after?: string; limit?: number }
    }>(
      '/v1/invoices',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Invoices, newest first, with their payment status, and the TTC of this page by status',
          querystring: {
            type: 'object',
            properties: {
              tenant: { type: 'string', maxLength: limits.nameBytesMax },
              contract: { type: 'string', maxLength: limits.nameBytesMax },
              state: { enum: Object.keys(InvoiceMoves) },
              after: { type: 'string', maxLength: 100, description: '`next` of the page before' },
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const key = keyOf(request)
        const { tenant: asked, contract, state, after, limit = 100 } = request.query
        if (key.tenant !== null && asked !== undefined && asked !== key.tenant) {
          throw new ReleveError('forbidden', 'the key belongs to another tenant')
        }
        const tenant = key.tenant ?? asked
        const found = await system.invoicing.list({
          ...(tenant === undefined ? {} : { tenant }),
          ...(contract === undefined ? {} : { contract }),
          ...(state === undefined ? {} : { state }),
          ...(after === undefined ? {} : { before: entryOf(after) }),
          limit,
          handedOut: key.tenant !== null,
        })
        const invoices = found.map((kept) => ({ ...kept, payment: paymentFor(kept) }))
        const currencies = [...new Set(invoices.map((one) => one.invoice.currency))]
        const totals = currencies.map((currency) => {
          const own = invoices.flatMap(({ invoice, payment }) =>
            payment === null || invoice.currency !== currency ? [] : [{ ttc: invoice.ttc, status: payment.status }],
          )
          return { currency, ...totalsByStatus(own, currency) }
        })
        const last = invoices.length < limit ? undefined : invoices.at(-1)
        return { invoices, totals, next: last === undefined ? null : `${last.createdAt}.${last.invoice.id}` }
      },
    )

    app.get<{ Params: { id: string }; Querystring: { format?: string; language?: Language } }>(
      '/v1/invoices/:id',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'An invoice, by id or number; each line with tiers, cut, query, count and digest',
          description: `As ${DocumentFormat.join(', ')}: by ?format=, by a suffix such as FA-2026-0001.pdf, or by Accept. JSON by default.`,
          querystring: {
            type: 'object',
            properties: {
              format: { enum: ['json', ...DocumentFormat] },
              language: { enum: Language, description: "of the printed text; the customer's by default" },
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const { id, format } = formatOf(request.params.id, request.query.format, request.headers.accept)
        const kept = await system.invoicing.get(id, keyOf(request).tenant)
        if (format === 'json') return { ...kept, payment: paymentFor(kept) }
        const certification = assertPrintable(kept.state, await system.certifications.of(kept.invoice.id))
        const { type, body } = await printInvoice(kept.invoice, format, request.query.language, certification)
        const name = (kept.invoice.number ?? kept.invoice.id).replaceAll(/[^A-Za-z0-9._-]+/g, '-')
        return reply
          .type(type)
          .header('content-disposition', `${format === 'txt' ? 'inline' : 'attachment'}; filename="${name}.${format}"`)
          .send(body)
      },
    )

    app.post<{ Params: { id: string } }>(
      '/v1/invoices/:id/verify',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Count the events of an invoice again, rate them by its pinned prices, and compare',
          description: 'Reads the archive, never the rollups; every figure that differs is named with both values.',
        },
      },
      async (request) => system.billing.verifyInvoice(request.params.id, keyOf(request).tenant),
    )

    type BehindLine = { Params: { id: string; no: number }; Querystring: { after?: string; limit?: number } }
    const behindLine = (summary: string) => ({
      config: { scope: 'read' as const },
      schema: {
        tags,
        summary,
        params: {
          type: 'object',
          properties: {
            id: { type: 'string' },
            no: { type: 'integer', minimum: 1, maximum: limits.invoiceLinesMax },
          },
        },
        querystring: {
          type: 'object',
          properties: {
            after: { type: 'string', pattern: '^[0-9]{1,19}$', description: '`next` of the page before' },
            limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
          },
          additionalProperties: false,
        },
      },
    })
    const asked = (request: FastifyRequest<BehindLine>) => ({
      invoice: request.params.id,
      tenant: keyOf(request).tenant,
      line: request.params.no,
      after: request.query.after ?? '0',
      limit: request.query.limit ?? 100,
    })
    app.get<BehindLine>(
      '/v1/invoices/:id/lines/:no/events',
      behindLine('The archived events behind a line, in the order of the log'),
      async (request) => system.billing.invoiceEvents(asked(request)),
    )
    app.get<BehindLine>(
      '/v1/invoices/:id/lines/:no/usage-data',
      behindLine('The usage data behind a line, with count and digest by calculator to hold against its proof'),
      async (request) => system.billing.invoiceData(asked(request)),
    )

    app.get<{ Params: { contract: string }; Querystring: { at?: string } }>(
      '/v1/contracts/:contract/invoice-preview',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'A period as an invoice, by the usage of now; nothing is kept',
          querystring: {
            type: 'object',
            properties: {
              at: {
                type: 'string',
                maxLength: 40,
                description: 'any instant of the period; the running one by default',
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        await own(
          keyOf(request).tenant,
          async () => system.catalog.book().contractOf(request.params.contract),
          (contract) => contract.tenant,
        )
        const { at } = request.query
        const invoice = await system.billing.previewInvoice(
          request.params.contract,
          ...(at === undefined ? [] : [parseMoment('at', at)]),
        )
        return keyOf(request).tenant === null ? invoice : { ...invoice, notices: customerNotices(invoice.notices) }
      },
    )

    app.post<{
      Body: { contract?: string; tenant?: string; at?: string; finalise?: boolean; early?: boolean; unproved?: boolean }
    }>(
      '/v1/periods/close',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Close a period of a contract: usage at a cut, rated, drafted, issued',
          description:
            'Idempotent: asked again, it goes on where it stopped, or answers the same invoice. Without a contract: all that are due (of the tenant, if one is named), each its latest ended period unless `at` names another; the answer counts them and names what failed.',
          body: {
            type: 'object',
            properties: {
              contract: { type: 'string', maxLength: limits.nameBytesMax },
              tenant: { type: 'string', maxLength: limits.nameBytesMax, description: 'without contract' },
              at: { type: 'string', maxLength: 40, description: 'any instant of the period, RFC 3339 or epoch ms' },
              finalise: { type: 'boolean', default: true, description: 'false leaves a draft' },
              early: {
                type: 'boolean',
                default: false,
                description: 'before the grace has ended, as drafts in grace that are counted again at the end',
              },
              unproved: {
                type: 'boolean',
                default: false,
                description:
                  'of a contract: a draft by the rollups even where the archive says otherwise; verify names what differs',
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { contract, tenant, at, finalise = true, early = false, unproved = false } = request.body
        if (contract === undefined) {
          const time = at === undefined ? null : parseMoment('at', at)
          return system.billing.closeDuePeriods({
            at: time,
            finalise,
            early,
            ...(tenant === undefined ? {} : { tenant }),
          })
        }
        if (at === undefined)
          throw new ReleveError('invalid_request', 'at: is needed with a contract: any instant of its period')
        return system.billing.closePeriod({ contract, at: parseMoment('at', at), finalise, early, unproved })
      },
    )

    app.post(
      '/v1/audit',
      {
        config: { scope: 'admin' },
        schema: { tags: ['usage'], summary: 'Hold books, checkpoints, rows and archive against each other' },
      },
      async () => system.audit(),
    )
  }
}

/** The last entry of a page, as its `next` names it. */
function entryOf(next: string): { createdAt: number; id: string } {
  const [, createdAt, id] = /^([0-9]{1,15})\.(.+)$/.exec(next) ?? []
  if (createdAt === undefined || id === undefined)
    throw new ReleveError('invalid_request', 'after: the `next` of the page before is expected')
  return { createdAt: Number(createdAt), id }
}
