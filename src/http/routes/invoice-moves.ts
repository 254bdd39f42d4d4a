/** What may be done to an invoice, one move at a time, and its journal. */
import type { FastifyPluginAsync } from 'fastify'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'
import { actorOf, keyOf } from '../http.js'

const reason = { type: 'string', maxLength: 500, description: 'kept in the journal' } as const

export function invoiceMoveRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['invoices']

    app.get<{ Params: { id: string } }>(
      '/v1/invoices/:id/moves',
      {
        config: { scope: 'read' },
        schema: { tags, summary: 'The journal of an invoice: every move with actor and time, and its certification' },
      },
      async (request) => {
        const { tenant } = keyOf(request)
        const { state, createdAt, invoice } = await system.invoicing.get(request.params.id, tenant)
        return {
          invoice: invoice.id,
          number: invoice.number,
          state,
          createdAt,
          moves: await system.invoicing.moves(invoice.id, tenant),
          certification: await system.certifications.of(invoice.id),
        }
      },
    )

    app.post<{ Params: { id: string }; Body: { to: 'finalised' | 'sent' | 'paid' | 'discarded'; reason?: string } }>(
      '/v1/invoices/:id/moves',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Move an invoice: issue or discard a draft, note that it was sent or paid',
          description:
            'Idempotent. A document whose legal entity is under a clearance system is numbered and waits in `certifying`. An issued one never changes: the remedy is a credit note.',
          body: {
            type: 'object',
            required: ['to'],
            properties: { to: { enum: ['finalised', 'sent', 'paid', 'discarded'] }, reason },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const by = { actor: actorOf(request), reason: request.body.reason }
        const { id } = request.params
        switch (request.body.to) {
          case 'finalised':
            await system.billing.assertDraftStands(id)
            return system.invoicing.finalise(id, by)
          case 'sent':
            return system.invoicing.markSent(id, by)
          case 'paid':
            return system.invoicing.markPaid(id, by)
          case 'discarded':
            return system.invoicing.discard(id, by)
        }
      },
    )

    app.post<{ Params: { id: string }; Body: { reason?: string } }>(
      '/v1/invoices/:id/refresh',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Count the period of a draft again; the new draft takes its place',
          body: { type: 'object', properties: { reason }, additionalProperties: false },
        },
      },
      async (request) =>
        system.billing.refreshInvoice(request.params.id, { actor: actorOf(request), reason: request.body.reason }),
    )

    const lateOf = async (id: string, tenant: string | null) => {
      const { invoice } = await system.invoicing.get(id, tenant)
      return { contract: invoice.contract, at: invoice.period.from }
    }
    app.get<{ Params: { id: string } }>(
      '/v1/invoices/:id/late',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'What has changed of the usage since this invoice, and what would follow; nothing is kept',
          description:
            'By the policy of the contract: on the next invoice, a complementary invoice, a credit note, or not billed. Of a draft: it would be counted again.',
        },
      },
      async (request) => system.billing.previewLate(await lateOf(request.params.id, keyOf(request).tenant)),
    )
    app.post<{ Params: { id: string }; Body: { finalise?: boolean; reason?: string } }>(
      '/v1/invoices/:id/settle-late',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Make the complementary invoice or the credit note of what has changed, if the policy asks for one',
          description: 'The next closing of the contract does the same by itself.',
          body: {
            type: 'object',
            properties: { finalise: { type: 'boolean', default: true }, reason },
            additionalProperties: false,
          },
        },
      },
      async (request) =>
        system.billing.settleLate({
          ...(await lateOf(request.params.id, null)),
          finalise: request.body.finalise !== false,
          by: { actor: actorOf(request), reason: request.body.reason },
        }),
    )

    app.post<{ Params: { id: string }; Body: { amount?: string; reason?: string } }>(
      '/v1/invoices/:id/credit',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Credit an issued invoice, in whole or in part: a credit note in its own series',
          body: {
            type: 'object',
            properties: {
              amount: { type: 'string', maxLength: 40, description: 'with tax; absent: all that is left' },
              reason,
            },
            additionalProperties: false,
          },
        },
      },
      async (request) =>
        system.invoicing.credit(request.params.id, request.body.amount ?? null, {
          actor: actorOf(request),
          reason: request.body.reason,
        }),
    )

    app.post<{
      Params: { id: string }
      Body: { outcome: 'certified' | 'not_taken'; reference?: string; token?: string; reason?: string }
    }>(
      '/v1/invoices/:id/certification',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Say what became of a certification whose outcome is unknown, or send a rejected document again',
          description:
            'releve never sends a document again by itself when it may have been taken. Look it up in the clearance system, then say `certified` with its reference and token, or `not_taken`.',
          body: {
            type: 'object',
            required: ['outcome'],
            properties: {
              outcome: { enum: ['certified', 'not_taken'] },
              reference: { type: 'string', minLength: 1, maxLength: limits.nameBytesMax },
              token: { type: 'string', minLength: 1, maxLength: 2_000 },
              reason,
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { outcome, reference, token } = request.body
        const { invoice } = await system.invoicing.get(request.params.id)
        const by = { actor: actorOf(request), reason: request.body.reason }
        if (outcome === 'not_taken') await system.certifications.resolve(invoice.id, { outcome }, by)
        else if (reference === undefined || token === undefined)
          throw new ReleveError('invalid_request', 'reference, token: as the clearance system shows them')
        else await system.certifications.resolve(invoice.id, { outcome, reference, token }, by)
        return { certification: await system.certifications.of(invoice.id) }
      },
    )
  }
}
