/**
 * Contracts in their life: one with its renewal and history, moves, notices, changes of plan, renewals that come, and trials. Thin:
 * what is allowed is catalog/moves.ts, when it ends catalog/renewal.ts.
 */
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import type { Contract } from '../../catalog/contract.js'
import { changePlan } from '../../catalog/part.js'
import { lastDayOf, renewalOf } from '../../catalog/renewal.js'
import { SubscriptionMoves, type SubscriptionState } from '../../catalog/subscription.js'
import { trialsOf } from '../../catalog/trials.js'
import { ReleveError } from '../../errors.js'
import { dateIn } from '../../format.js'
import { limits } from '../../limits.js'
import { DAY_MS } from '../../period.js'
import type { System } from '../../system.js'
import { keyOf } from '../http.js'

const text = (description: string) => ({ type: 'string', minLength: 1, maxLength: limits.nameBytesMax, description })
const day = (description: string) => ({ type: 'string', maxLength: 10, description: `${description}, YYYY-MM-DD` })

interface Acted {
  reason: string
  on?: string
}
const acted = {
  reason: text('why, for the history'),
  on: day('the day from which it counts; default today, in the zone of the contract'),
}

export function contractRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['contracts']
    const book = () => system.catalog.book()
    const settled = async <T>(changed: Promise<T>): Promise<T> => {
      const value = await changed
      await system.catalogSettled()
      return value
    }
    /** Another tenant's contract is answered as one that is not there. */
    const contractFor = (request: FastifyRequest, id: string): Contract => {
      const contract = book().contracts.get(id)
      const { tenant } = keyOf(request)
      if (contract === undefined || (tenant !== null && contract.tenant !== tenant))
        throw new ReleveError('not_found', 'contract: there is none of this name')
      return contract
    }
    const open = async (contract: string, day: string | undefined, field: string): Promise<void> => {
      if (day !== undefined) await system.billing.assertNotInvoiced(contract, day, field)
    }
    const by = (request: FastifyRequest, { reason, on }: Acted) => ({
      reason,
      actor: keyOf(request).name,
      ...(on === undefined ? {} : { on }),
    })

    app.get<{ Params: { contract: string } }>(
      '/v1/contracts/:contract',
      {
        config: { scope: 'read' },
        schema: { tags, summary: 'A contract with its state, the moves it may make, its next renewal and its history' },
      },
      async (request) => {
        const contract = contractFor(request, request.params.contract)
        return {
          ...contract,
          customer: book().customers.get(contract.tenant)?.name ?? null,
          moves: SubscriptionMoves[contract.state],
          renewal: { ...contract.renewal, ...renewalOf(contract, system.clock.now()) },
          history: await system.catalog.history(contract.id),
        }
      },
    )

    app.post<{ Params: { contract: string }; Body: Acted & { state: SubscriptionState } }>(
      '/v1/contracts/:contract/move',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Move a subscription to another state; a trial that becomes active is converted',
          body: {
            type: 'object',
            required: ['state', 'reason'],
            properties: { state: { enum: Object.keys(SubscriptionMoves) }, ...acted },
            additionalProperties: false,
          },
        },
      },
      async (r) => {
        await open(r.params.contract, r.body.on, 'on')
        return settled(system.catalog.moveContract(r.params.contract, r.body.state, by(r, r.body)))
      },
    )

    app.post<{ Params: { contract: string }; Body: Acted }>(
      '/v1/contracts/:contract/notice',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Give notice: the contract ends with its term, or with the next one when it is too late for this',
          body: { type: 'object', required: ['reason'], properties: acted, additionalProperties: false },
        },
      },
      async (r) => {
        const changed = await settled(system.catalog.giveNotice(r.params.contract, by(r, r.body)))
        return { ...changed, renewal: renewalOf(changed.value, system.clock.now()) }
      },
    )

    app.get<{ Querystring: { days?: number } }>(
      '/v1/renewals',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Contracts whose term ends within some days, the next first, with the last day for a notice',
          querystring: {
            type: 'object',
            properties: { days: { type: 'integer', minimum: 1, maximum: 3_650, default: 30 } },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { tenant } = keyOf(request)
        const now = system.clock.now()
        const last = new Date(now + (request.query.days ?? 30) * DAY_MS).toISOString().slice(0, 10)
        const renewals = [...book().contracts.values()]
          .filter((one) => one.state !== 'cancelled' && (tenant ?? one.tenant) === one.tenant)
          .filter((one) => (lastDayOf(one) ?? '9') >= dateIn(now, one.timeZone))
          .map((one) => ({ contract: one.id, tenant: one.tenant, name: one.name, ...renewalOf(one, now) }))
          .filter((one) => one.term.until <= last)
          .sort((a, b) => (a.term.until < b.term.until ? -1 : a.term.until > b.term.until ? 1 : 0))
        return { renewals: renewals.slice(0, limits.pageMax) }
      },
    )

    app.get('/v1/trials', {
      config: { scope: 'read' },
      schema: { tags, summary: 'The funnel of trials, and each with its days left and the share of its quotas used' },
      handler: async (request) => {
        const { funnel, trials } = trialsOf(book(), system.clock.now(), keyOf(request).tenant)
        // Usage is asked of those that run; it is live and costs a message to their shard.
        const page = trials.slice(0, limits.pageMax)
        const shown = await Promise.all(
          page.map(async (trial) => {
            if (trial.status !== 'active' && trial.status !== 'grace') return { ...trial, usagePercent: null }
            const { quotas } = await system.answers.quotas(trial.tenant)
            const percents = quotas.flatMap(({ contract, percent }) =>
              contract === trial.contract && percent !== null ? [percent] : [],
            )
            const most = percents.reduce<string | null>((a, b) => (a === null || Number(b) > Number(a) ? b : a), null)
            return { ...trial, usagePercent: most }
          }),
        )
        return { funnel, trials: shown }
      },
    })

    app.post<{ Params: { contract: string }; Body: Acted & { days?: number } }>(
      '/v1/trials/:contract/extend',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Extend a trial that runs or is in its grace, by 7 days unless said otherwise',
          body: {
            type: 'object',
            required: ['reason'],
            properties: { days: { type: 'integer', minimum: 1, maximum: 365, default: 7 }, ...acted },
            additionalProperties: false,
          },
        },
      },
      async (r) => settled(system.catalog.extendTrial(r.params.contract, r.body.days ?? 7, by(r, r.body))),
    )

    app.post<{ Params: { contract: string }; Body: Acted }>(
      '/v1/trials/:contract/convert',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Convert a trial: the contract is active and billed from this day on',
          body: { type: 'object', required: ['reason'], properties: acted, additionalProperties: false },
        },
      },
      async (r) => {
        if (book().contractOf(r.params.contract).state !== 'trial')
          throw new ReleveError('conflict', `trial: ${r.params.contract} is not in a trial`)
        await open(r.params.contract, r.body.on, 'on')
        return settled(system.catalog.moveContract(r.params.contract, 'active', by(r, r.body)))
      },
    )

    app.post<{
      Params: { contract: string }
      Body: { item: string; plan: string; planVersion?: number; from: string }
    }>(
      '/v1/contracts/:contract/change-plan',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Move an item to another plan from a day on; both parts of the period are billed by their days',
          body: {
            type: 'object',
            required: ['item', 'plan', 'from'],
            properties: {
              item: text('the item'),
              plan: text('the new plan'),
              planVersion: { type: 'integer', minimum: 1 },
              from: day('first day of the new plan'),
            },
            additionalProperties: false,
          },
        },
      },
      async (r) => {
        await open(r.params.contract, r.body.from, 'from')
        return settled(system.catalog.putContract(changePlan(book().contractOf(r.params.contract), r.body)))
      },
    )
  }
}
