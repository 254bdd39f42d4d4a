/**
 * A whole service for one test file: real engines in a directory of its own, a clock moved by hand, a small catalogue with every
 * aggregation, and the HTTP application. Epochs end when a test says so (`settle`), unless it asks for short ones.
 *
 * Closing it checks that nothing stays: no process of the engines, no listening socket, no worker thread, no byte of a body.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance, LightMyRequestResponse } from 'fastify'
import { afterAll, expect } from 'vitest'
import type { Scope } from '../src/access/keys.js'
import type { Catalog } from '../src/catalog/catalog.js'
import type { MetricInput } from '../src/catalog/definition.js'
import type { Aggregation } from '../src/catalog/metric.js'
import { HandClock } from '../src/clock.js'
import { type Config, parseConfig } from '../src/config.js'
import { buildHttp } from '../src/http/http.js'
import { type Logger, openLogger, silentLogger } from '../src/logger.js'
import { openSystem, type System } from '../src/system.js'
import { enginesIn } from './processes.js'

export const NOW = '2026-03-31T12:00:00Z'

const metric = (key: string, aggregation: Aggregation, archive = true): MetricInput => ({
  key,
  aggregation,
  unit: aggregation === 'unique' ? 'user' : 'piece',
  scale: aggregation === 'count' || aggregation === 'unique' ? 0 : 3,
  dims: ['plan', 'region'],
  uniqueBy: aggregation === 'unique' ? 'user' : null,
  archive,
})

/** One metric of each aggregation, and one without an archive. */
export const metrics: readonly MetricInput[] = [
  metric('data', 'sum'),
  metric('calls', 'count'),
  metric('users', 'unique'),
  metric('peak', 'max'),
  metric('low', 'min'),
  metric('level', 'latest'),
  metric('mean', 'average'),
  metric('raw', 'sum', false),
]

export const tenants = ['alpha', 'sigma', 'gamma'] as const

/** alpha has a quota of 1,000 on data and of 10 on users, sigma of 100 on calls; gamma has no contract. */
export async function loadCatalogue(catalog: Catalog): Promise<void> {
  for (const input of metrics) await catalog.putMetric(input)
  await catalog.putProduct({ key: 'P', name: 'Product' })
  await catalog.putPrice({
    rule: { rule_id: 'price-data', type: 'per_unit', metric: 'data', unit_price: '2.00', currency: 'EUR' },
    status: 'active',
    effectiveFrom: Date.UTC(2026, 0, 1),
  })
  await catalog.putPlan({
    key: 'plan',
    product: 'P',
    name: 'Plan',
    metrics: [
      { metric: 'data', included: '100', rule: 'price-data' },
      { metric: 'users', included: '10', rule: null },
      { metric: 'calls', included: '100', rule: null },
      { metric: 'peak', included: null, rule: null },
    ],
  })
  await catalog.putLegalEntity({ key: 'seller', name: 'Seller', country: 'CI' })
  for (const tenant of tenants) {
    await catalog.putCustomer({
      tenant,
      name: tenant,
      country: 'CI',
      taxRate: '18',
      currency: 'EUR',
      timeZone: 'Africa/Abidjan',
    })
  }
  const contract = (tenant: string, entitlements: unknown): unknown => ({
    id: `contract-${tenant}`,
    tenant,
    legalEntity: 'seller',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    items: [{ id: `item-${tenant}`, plan: 'plan', entitlements }],
  })
  await catalog.putContract(
    contract('alpha', [
      { metric: 'data', limit: '1000' },
      { metric: 'users', limit: '10' },
      { metric: 'peak', limit: '100' },
    ]),
  )
  await catalog.putContract(contract('sigma', [{ metric: 'calls', limit: '100' }]))
}

export interface EventInput {
  readonly id: string
  readonly metric: string
  readonly tenant?: string
  readonly source?: string
  readonly subject?: string
  readonly time?: string | number
  readonly value?: string
  readonly dims?: Readonly<Record<string, string>>
  readonly kind?: 'usage' | 'void'
}

interface Opened {
  readonly system: System
  readonly app: FastifyInstance
}

export interface TestSystem {
  /** The present ones: `reopen` replaces both. */
  readonly system: System
  readonly app: FastifyInstance
  readonly clock: HandClock
  readonly directory: string
  readonly config: Config
  /** Authorization header of the admin key. */
  readonly admin: { readonly authorization: string }
  /** Makes a key and gives its Authorization header. */
  key(tenant: string | null, scopes: readonly Scope[]): Promise<{ authorization: string }>
  /** Events through the door, with the admin key; answered when they are on disk, or refused. */
  post(events: readonly object[], query?: string): Promise<LightMyRequestResponse>
  /** The same, until they are applied; every one must be stored. */
  send(events: readonly EventInput[]): Promise<string[]>
  /** A clean stop and a new start on the same directory. `between` runs while nothing is open. */
  reopen(between?: () => Promise<void> | void): Promise<void>
  close(): Promise<void>
}

export interface TestSystemOptions {
  /** Environment as in .env.example. */
  readonly settings?: Readonly<Record<string, string>>
  /** Settings that have no name in the environment. */
  readonly config?: Partial<Config>
  readonly now?: string
  readonly logger?: Logger
  readonly onFatal?: (error: Error) => void
}

/** Kinds of things that keep a process alive and that a closed service must not leave. */
const watched = ['TCPServerWrap', 'ProcessWrap', 'MessagePort'] as const

function heldOpen(): Record<string, number> {
  const held = process.getActiveResourcesInfo()
  return Object.fromEntries(watched.map((kind) => [kind, held.filter((one) => one === kind).length]))
}

/** Opens it for a test file; it is closed after the file's last test. To be called in beforeAll. */
export async function openTestSystem(options: TestSystemOptions = {}): Promise<TestSystem> {
  const before = heldOpen()
  const directory = mkdtempSync(join(tmpdir(), 'releve-system-'))
  const clock = new HandClock(options.now ?? NOW)
  const config: Config = {
    ...parseConfig({
      RELEVE_DATA: directory,
      RELEVE_PORT: '0',
      RELEVE_STREAMS: '2',
      RELEVE_EPOCH_MS: '60000',
      ...options.settings,
    }),
    ...options.config,
  }
  const fatal: Error[] = []
  const open = async (): Promise<Opened> => {
    const system = await openSystem({
      config,
      clock,
      logger: options.logger ?? (process.env.TEST_LOG ? openLogger(process.env.TEST_LOG) : silentLogger),
      onFatal: options.onFatal ?? ((error) => void fatal.push(error)),
    })
    try {
      await loadCatalogue(system.catalog)
      await system.catalogSettled()
      return { system, app: await buildHttp(system) }
    } catch (error) {
      await system.close()
      throw error
    }
  }
  let opened: Opened | undefined = await open()
  const now = (): Opened => {
    if (opened === undefined) throw new Error('cannot use a test system that is closed')
    return opened
  }
  const stop = async (): Promise<void> => {
    const { system, app } = now()
    opened = undefined
    await app.close()
    await system.close()
    const { values } = await system.metrics.inflightBytes.get()
    expect(
      values.reduce((sum, { value }) => sum + value, 0),
      'bytes of bodies that were never given back',
    ).toBe(0)
  }
  const close = async (): Promise<void> => {
    if (opened === undefined) return
    try {
      await stop()
      // Ended processes and threads are told apart from held ones by waiting; the hook's own time-out is the bound.
      for (let i = 0; i < 200; i += 1) {
        const held = heldOpen()
        if (enginesIn(directory).length === 0 && watched.every((kind) => held[kind]! <= before[kind]!)) break
        await sleep(50)
      }
      expect(enginesIn(directory), 'processes of the engines that live on').toEqual([])
      const held = heldOpen()
      for (const kind of watched) expect(held[kind], `${kind} still open`).toBeLessThanOrEqual(before[kind]!)
      expect(fatal, 'fatal errors').toEqual([])
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }
  afterAll(close)

  const admin = (): { authorization: string } => ({
    authorization: `Bearer ${readFileSync(now().system.keys.adminKeyFile, 'utf8').trim()}`,
  })
  const post: TestSystem['post'] = (events, query = '') =>
    now().app.inject({
      method: 'POST',
      url: `/v1/events${query}`,
      headers: { ...admin(), 'content-type': 'application/json' },
      payload: JSON.stringify(events),
    })
  return {
    get system() {
      return now().system
    },
    get app() {
      return now().app
    },
    clock,
    directory,
    config,
    get admin() {
      return admin()
    },
    async key(tenant, scopes) {
      const { secret } = await now().system.keys.create({ name: `${tenant ?? 'platform'} ${scopes}`, tenant, scopes })
      return { authorization: `Bearer ${secret}` }
    },
    post,
    async send(events) {
      const answer = await post(events, '?wait=applied')
      const body = answer.json()
      expect(body.refusals, answer.body.slice(0, 500)).toEqual([])
      return body.applied.verdicts
    },
    async reopen(between) {
      await stop()
      await between?.()
      opened = await open()
    },
    close,
  }
}
