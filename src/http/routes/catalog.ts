/**
 * The catalogue: metrics, plans, prices, customers, contracts; and rating without storing. Thin: bodies are judged in
 * catalog/definition.ts and catalog/price.ts, which name the field that is wrong.
 */
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import type { PriceInput } from '../../catalog/catalog.js'
import { type Price, parsePrice } from '../../catalog/price.js'
import { taxTable } from '../../catalog/tax-table.js'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import { comparePlans } from '../../rating/compare.js'
import { previewRating } from '../../rating/preview.js'
import type { RateRequest } from '../../rating/rating.js'
import type { System } from '../../system.js'
import { keyOf } from '../http.js'

export function catalogRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['catalogue']
    const read = (summary: string) => ({ config: { scope: 'read' as const }, schema: { tags, summary } })
    const write = (summary: string) => ({
      config: { scope: 'admin' as const },
      schema: { tags, summary, body: { type: 'object' } },
    })
    const book = () => system.catalog.book()
    /** Whoever changes the catalogue may use it at once. */
    const settled = async <T>(changed: Promise<T>): Promise<T> => {
      const value = await changed
      await system.catalogSettled()
      return value
    }

    app.get('/v1/metrics-catalog', read('Metrics, latest versions'), async () => ({ metrics: book().snapshot.metrics }))
    app.put('/v1/metrics-catalog', write('Define a metric; a changed one is a new version'), async (r) =>
      settled(system.catalog.putMetric(r.body)),
    )

    /** What another customer pays is nobody's business: a tenant's key sees the plans of its contracts and their prices. */
    const ownOf = (request: FastifyRequest): { plans: Set<string>; rules: Set<string> } | null => {
      const { tenant } = keyOf(request)
      if (tenant === null) return null
      const items = [...book().contracts.values()].filter((c) => c.tenant === tenant).flatMap((c) => c.items)
      const plans = new Set(items.map((item) => item.plan))
      const versions = [...plans].flatMap((plan) => book().plans.get(plan) ?? [])
      const rules = [
        ...versions.flatMap((plan) => [plan.feeRule, ...plan.metrics.map((metric) => metric.rule)]),
        ...items.flatMap((item) => (item.addOns ?? []).map((addOn) => addOn.rule)),
      ]
      return { plans, rules: new Set(rules.filter((rule) => rule !== null)) }
    }

    app.get('/v1/plans', read('Products and plans, latest versions'), async (request) => {
      const own = ownOf(request)
      return {
        products: [...book().products.values()],
        plans: [...book().plans.values()]
          .map((versions) => versions.at(-1)!)
          .filter((plan) => own === null || own.plans.has(plan.key)),
      }
    })
    app.put('/v1/plans', write('Define a plan'), async (r) => settled(system.catalog.putPlan(r.body)))
    app.put('/v1/products', write('Define a product'), async (r) => settled(system.catalog.putProduct(r.body)))
    app.put('/v1/legal-entities', write('Define a legal entity, the seller'), async (r) =>
      settled(system.catalog.putLegalEntity(r.body)),
    )

    app.get('/v1/prices', read('Price rules, all versions'), async (request) => {
      const own = ownOf(request)
      return { prices: [...book().prices.values()].flat().filter((price) => own === null || own.rules.has(price.rule)) }
    })
    const putPrice = async (r: FastifyRequest<{ Body: PriceInput }>) => ({
      ...(await settled(system.catalog.putPrice(r.body))),
      findings: system.catalog.lintPrice(r.body.rule),
    })
    const pricing = write('Define a version of a price rule; what is probably not meant comes back as findings')
    app.put<{ Body: PriceInput }>('/v1/prices', pricing, putPrice)
    app.post<{ Body: PriceInput }>('/v1/prices', pricing, putPrice)
    type OfVersion = { Params: { rule: string; version: string } }
    app.post<OfVersion & { Body: { effectiveFrom?: number } }>(
      '/v1/prices/:rule/:version/activate',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Make a draft active: it bills the periods that begin from then on',
          body: {
            type: 'object',
            properties: {
              effectiveFrom: {
                type: 'integer',
                minimum: 0,
                maximum: Number.MAX_SAFE_INTEGER,
                description: 'epoch ms; absent: when the draft says, or now when that has passed',
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (r) => settled(system.catalog.activatePrice(r.params.rule, r.params.version, r.body.effectiveFrom)),
    )
    app.post<OfVersion>(
      '/v1/prices/:rule/:version/archive',
      {
        config: { scope: 'admin' },
        schema: { tags, summary: 'Archive a version: it takes no period that begins from now on' },
      },
      async (r) => settled(system.catalog.archivePrice(r.params.rule, r.params.version)),
    )
    app.get(
      '/v1/catalog/lint',
      { ...read('What the catalogue allows but is probably not meant'), config: { scope: 'admin' } },
      async () => ({
        findings: system.catalog.lint(),
      }),
    )

    app.get('/v1/taxes', read('Tax rates by country and category'), async () => ({ taxes: taxTable() }))

    app.get('/v1/customers', read('Customers: the tenants'), async (request) => {
      const { tenant } = keyOf(request)
      return { customers: [...book().customers.values()].filter((c) => tenant === null || c.tenant === tenant) }
    })
    app.put('/v1/customers', write('Define a customer'), async (r) => settled(system.catalog.putCustomer(r.body)))

    app.get('/v1/contracts', read('Contracts'), async (request) => {
      const { tenant } = keyOf(request)
      return { contracts: [...book().contracts.values()].filter((c) => tenant === null || c.tenant === tenant) }
    })
    app.put(
      '/v1/contracts',
      {
        config: { scope: 'admin' },
        schema: {
          tags,
          summary: 'Define a contract; its quotas act from the next epoch',
          description:
            'A contract as it is read may be put back: what the answer adds to it (customer, moves, history, the dates of its renewal) is not read. What is invoiced stays as it was: a change of what has days (items and their plans, add-ons, discounts, suspensions, the end) is refused with 409 when it reaches into an invoiced period, and names the field, the period and the way. What has no days (minimum, maximum, quotas, calculators, policies) counts from `effectiveFrom` on, the first day that is not invoiced; null: nothing is.',
          body: { type: 'object' },
        },
      },
      async (r) => {
        const changed = await settled(system.catalog.putContract(r.body))
        return { ...changed, effectiveFrom: await system.billing.openFrom(changed.value.id) }
      },
    )

    app.post<{ Body: PreviewBody }>(
      '/v1/rating/preview',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Rate a quantity without storing anything: lines, tiers used, amount, and words that explain it',
          body: {
            type: 'object',
            required: ['price', 'quantity'],
            properties: {
              price: {
                type: 'object',
                description:
                  'a rule as the seeds write it, a price as PUT /v1/prices takes it, or {"rule": its name, "version"?}',
              },
              quantity: text('decimal text, in the unit of the metric'),
              included: text('decimal text: what the plan includes'),
              events: text('how many events, for prices that count them'),
              taxRate: text('percent, decimal text: the answer says HT, TVA and TTC'),
              amounts: {
                type: 'array',
                maxItems: limits.eventValuesMax,
                description: 'the amounts of the events in their order, for prices with bounds per event',
                items: {
                  type: 'object',
                  required: ['amount', 'count'],
                  properties: { amount: text('decimal text'), count: text('how many events in a row have it') },
                  additionalProperties: false,
                },
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { price: given, ...asked } = request.body
        const price = priceOf(given, ownOf(request)?.rules ?? null)
        const metric = 'metric' in price ? book().metrics.get(price.metric)?.at(-1) : undefined
        return previewRating({ ...asked, price, metric })
      },
    )

    app.post<{ Body: CompareBody }>(
      '/v1/rating/compare',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary:
            'What a usage would cost under several plans, what of it has no price, and the cheapest that prices all',
          description: 'By the prices in force now, without tax, a whole period of the fee. Nothing is stored.',
          body: {
            type: 'object',
            required: ['plans', 'usage', 'currency'],
            properties: {
              plans: {
                type: 'array',
                minItems: 1,
                maxItems: limits.comparedPlansMax,
                items: {
                  type: 'object',
                  required: ['key'],
                  properties: {
                    key: text('a plan of the catalogue'),
                    version: { type: 'integer', minimum: 1, description: 'absent: the latest' },
                  },
                  additionalProperties: false,
                },
              },
              usage: {
                type: 'object',
                maxProperties: limits.planMetricsMax,
                description: 'by metric, decimal text in its unit',
                additionalProperties: text('decimal text'),
              },
              currency: { type: 'string', pattern: '^[A-Z]{3}$' },
              held: text('the plan that is held: it wins a tie'),
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { plans, usage, currency, held } = request.body
        const own = ownOf(request)
        for (const metric of Object.keys(usage)) book().metricOf(metric)
        const compared = plans.map(({ key, version }) => {
          if (own !== null && !own.plans.has(key)) throw new ReleveError('not_found', `plan: there is no ${key}`)
          const plan = book().planOf(key, version)
          return { key: `${key} ${plan.version}`, plan }
        })
        const inForce = (rule: string | null): Price | null => {
          const found = rule === null ? null : book().priceInForce(rule, system.clock.now())
          return found === null ? null : parsePrice(found.definition, found.version)
        }
        const { totals, unpriced, cheapest } = comparePlans({
          plans: compared.map(({ key, plan }) => ({
            key,
            feeRule: plan.feeRule,
            fee: inForce(plan.feeRule),
            metrics: plan.metrics.map(({ metric, included, rule }) => {
              const { unit, rounding } = book().metricOf(metric)
              return { metric, included, price: inForce(rule), unit, rounding }
            }),
          })),
          usage,
          held: compared.find(({ plan }) => plan.key === held)?.key ?? null,
          currency,
          beyondLimits: false,
        })
        const named = compared.map(({ key, plan }) => ({ key, plan: plan.key, version: plan.version }))
        const best = named.find(({ key }) => key === cheapest)
        return {
          currency,
          plans: named.map(({ key, ...plan }) => ({ ...plan, total: totals[key], unpriced: unpriced[key] })),
          cheapest: best === undefined ? null : { plan: best.plan, version: best.version },
        }
      },
    )

    /** Any version of a stored rule, drafts too: nothing is billed here. A tenant's key sees the rules of its own contracts. */
    const priceOf = (given: PreviewBody['price'], own: ReadonlySet<string> | null): Price => {
      if (typeof given !== 'object' || given === null)
        throw new ReleveError('invalid_request', 'price: must be an object')
      const { rule, version } = given
      if (typeof rule !== 'string') return parsePrice(rule ?? given)
      const versions = own === null || own.has(rule) ? book().prices.get(rule) : undefined
      const found =
        version === undefined
          ? (book().priceInForce(rule, system.clock.now()) ?? versions?.at(-1))
          : versions?.find((one) => one.version === version)
      if (versions === undefined || found === undefined)
        throw new ReleveError('not_found', `price: there is no ${rule}${version === undefined ? '' : ` v${version}`}`)
      return parsePrice(found.definition, found.version)
    }
  }
}

interface CompareBody {
  readonly plans: readonly { readonly key: string; readonly version?: number }[]
  readonly usage: Readonly<Record<string, string>>
  readonly currency: string
  readonly held?: string
}

interface PreviewBody extends Omit<RateRequest, 'price'> {
  readonly taxRate?: string
  readonly price: { readonly rule?: unknown; readonly version?: string }
}

const text = (description: string) => ({ type: 'string', maxLength: limits.nameBytesMax, description })
