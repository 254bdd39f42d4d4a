/**
 * «Contrat flotte IOT» on real engines in April 2022, as the contract people tell it: a customer, plans, a contract with
 * calculators, and a clock moved by hand.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance, InjectOptions } from 'fastify'
import { HandClock } from '../../src/clock.js'
import { parseConfig } from '../../src/config.js'
import { buildHttp } from '../../src/http/http.js'
import { silentLogger } from '../../src/logger.js'
import { openSystem, type System } from '../../src/system.js'

export const APRIL = { from: Date.UTC(2022, 3, 1), to: Date.UTC(2022, 4, 1) }
export const MAY = { from: APRIL.to, to: Date.UTC(2022, 5, 1) }

export interface Fleet {
  readonly system: System
  readonly app: FastifyInstance
  readonly clock: HandClock
  readonly adminKey: string
  /** A request with the admin key; fails the test when the status is another. */
  ask(
    method: InjectOptions['method'] & string,
    url: string,
    body?: unknown,
    status?: number,
    key?: string,
  ): Promise<Any>
  close(): Promise<void>
}

// biome-ignore lint/suspicious/noExplicitAny: answers of the API, judged by the tests
type Any = any

export const fleetContract = {
  id: 'flotte-iot',
  tenant: 'agritech',
  legalEntity: 'orbus',
  name: 'Contrat flotte IOT',
  start: '2022-01-01',
  timeZone: 'Africa/Abidjan',
  items: [
    {
      id: 'IOT_NS542',
      plan: 'flotte-premium',
      calculators: [{ name: 'mesures', reads: 'values', metric: 'mesures' }],
    },
  ],
}

export async function openFleet(settings: Readonly<Record<string, string>> = {}): Promise<Fleet> {
  const directory = mkdtempSync(join(tmpdir(), 'releve-fleet-'))
  const clock = new HandClock('2022-04-10T09:00:00Z')
  const system = await openSystem({
    config: parseConfig({
      RELEVE_DATA: directory,
      RELEVE_STREAMS: '2',
      RELEVE_LOG: 'silent',
      RELEVE_PORT: '0',
      ...settings,
    }),
    clock,
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
  }).catch((error) => {
    rmSync(directory, { recursive: true, force: true })
    throw error
  })
  const { catalog } = system
  for (const [key, unit] of [
    ['mesures', 'mesure'],
    ['data_go', 'Go'],
    ['cpu', 'cpu'],
  ])
    await catalog.putMetric({ key, aggregation: 'sum', unit, scale: 3 })
  await catalog.putProduct({ key: 'IOT', name: 'Objets connectés' })
  const price = (rule: Record<string, unknown>) =>
    catalog.putPrice({ rule: { currency: 'EUR', ...rule }, status: 'active', effectiveFrom: Date.UTC(2022, 0, 1) })
  await price({ rule_id: 'mesure', type: 'per_unit', metric: 'mesures', unit_price: '0.50' })
  await price({ rule_id: 'go', type: 'per_unit', metric: 'data_go', unit_price: '1.27' })
  await price({ rule_id: 'cpu', type: 'per_unit', metric: 'cpu', unit_price: '10.00' })
  await price({ rule_id: 'abonnement', type: 'flat_fee', amount: '5.00' })
  const metric = (name: string, rule: string, included = '0') => ({ metric: name, included, rule })
  const plan = (key: string, metrics: unknown[], feeRule: string | null = null) =>
    catalog.putPlan({ key, product: 'IOT', name: `Plan ${key}`, feeRule, metrics })
  await plan('flotte-premium', [metric('mesures', 'mesure')])
  await plan('objet', [metric('mesures', 'mesure', '10')], 'abonnement')
  await plan('devops', [metric('data_go', 'go'), metric('cpu', 'cpu')])
  await catalog.putLegalEntity({ key: 'orbus', name: 'Orbus', country: 'CI', invoicePattern: 'INV/{YYYY}/{MM}/{NNNN}' })
  for (const tenant of ['agritech', 'muppy', 'autre']) {
    await catalog.putCustomer({
      tenant,
      name: tenant,
      country: 'CI',
      taxRate: '18',
      currency: 'EUR',
      timeZone: 'Africa/Abidjan',
    })
  }
  await catalog.putContract(fleetContract)
  await system.catalogSettled()
  const app = await buildHttp(system)
  const adminKey = readFileSync(system.keys.adminKeyFile, 'utf8').trim()
  return {
    system,
    app,
    clock,
    adminKey,
    async ask(method, url, body, status, key = adminKey) {
      const answer = await app.inject({
        method: method as 'GET',
        url,
        headers: {
          authorization: `Bearer ${key}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { payload: typeof body === 'string' ? body : JSON.stringify(body) }),
      })
      if (status === undefined ? answer.statusCode >= 300 : answer.statusCode !== status)
        throw new Error(`${method} ${url} answers ${answer.statusCode}: ${answer.body.slice(0, 800)}`)
      return answer.headers['content-type']?.toString().includes('json') ? answer.json() : answer.body
    },
    async close() {
      await app.close()
      await system.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
