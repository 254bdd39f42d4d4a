/** Closing of all that is due at once: on real engines, against the single way, with faults in the middle. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import { loadSeeds, seedContracts, seedCustomers } from '../../src/catalog/seeds.js'
import { HandClock } from '../../src/clock.js'
import { buildHttp } from '../../src/http/http.js'
import { type CloseManyOptions, closeMany } from '../../src/invoicing/close-many.js'
import type { ItemUsage } from '../../src/invoicing/draft.js'
import { draftBatch } from '../../src/invoicing/draft-batch.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { openTestPostgres, type TestPostgres } from './postgres.js'
import { MARCH, openTestService, type TestService } from './service.js'

describe('on real engines', () => {
  let service: TestService
  const tenants = seedCustomers.map((customer) => customer.tenant).slice(0, 8)

  beforeAll(async () => {
    service = await openTestService()
    for (const tenant of tenants) {
      await service.system.catalog.putContract({
        ...seedContracts[1]!,
        id: `${tenant}-many`,
        tenant,
        items: [{ id: `${tenant}-many/1`, plan: 'oid-business' }],
      })
    }
    await service.system.catalogSettled()
    for (const [i, tenant] of tenants.entries()) {
      await service.send({ tenant, metric: 'kyc_verification', count: 50 + i })
      await service.send({ tenant, metric: 'mcp_call', count: 600 })
    }
    await service.system.settle()
    service.endMarch()
  }, 180_000)
  afterAll(async () => service?.close())

  test('one contract whose rollups are not its archive fails by name, the others are drafted; mended, only it is left', async () => {
    const alter = (by: number): Promise<unknown> =>
      service.system.engines.clickhouse.command({
        query: `ALTER TABLE usage_minute UPDATE sum = sum + ${by}, count = count + ${by}
          WHERE tenant = '${tenants[3]}' AND metric = 'mcp_call' AND window = toDateTime('2026-03-01 00:05:00', 'UTC')`,
        clickhouse_settings: { mutations_sync: '2' },
      })
    await alter(1)
    const first = await service.system.billing.closeDuePeriods({ at: null, finalise: false })
    // The seeds' own two contracts of Banque Atlantique are due as well.
    expect(first).toMatchObject({ due: 10, before: 0, failed: 1, issued: 0 })
    expect(first.failures).toEqual([
      { contract: `${tenants[3]}-many`, reason: expect.stringContaining('the rollups say 601, the archive says 600') },
    ])
    await alter(-1)
    const second = await service.system.billing.closeDuePeriods({ at: MARCH.from, finalise: false })
    expect(second).toMatchObject({ due: 10, drafted: 1, failed: 0, before: 9 })
  })

  test(`then issued => every invoice is that of the single way, and equal to its events ${promises('invoice:explains-itself')}`, async () => {
    const report = await service.system.billing.closeDuePeriods({ at: null })
    expect(report).toMatchObject({ due: 10, failed: 0, drafted: 0 })
    for (const [i, tenant] of tenants.entries()) {
      const { invoice, state } = (await service.system.invoicing.ofPeriod(`${tenant}-many`, MARCH.from))!
      expect(state).toBe('finalised')
      expect(invoice.lines.map((line) => [line.metric, line.amount])).toEqual([
        [null, '200.00'],
        ...(i === 0 ? [] : [['kyc_verification', (i * 2.5).toFixed(2)]]),
        ['mcp_call', '5.00'],
      ])
      const found = await service.system.billing.verifyInvoice(invoice.id)
      expect([found.equal, found.document, found.unchecked]).toEqual([true, [], []])
    }
    const numbers = (await service.system.invoicing.list()).flatMap(({ invoice }) => invoice.number ?? [])
    expect([...numbers].sort()).toEqual(numbers.map((_, i) => `FA-2026-${String(i + 1).padStart(4, '0')}`))
    const { rows } = await service.system.engines.postgres.query('SELECT 1 FROM cuts WHERE released_at IS NULL')
    expect(rows).toEqual([])
    expect(await service.system.billing.closeDuePeriods({ at: null })).toMatchObject({
      before: 10,
      issued: 0,
      drafted: 0,
    })
  })

  test('late usage of March is on the April invoice of its contract and on no other', async () => {
    service.clock.set('2026-04-03T09:00:00Z')
    await service.send({ tenant: tenants[5]!, metric: 'kyc_verification', count: 10, first: 5_000 })
    await service.system.settle()
    service.clock.set('2026-05-01T02:00:00Z')
    const report = await service.system.billing.closeDuePeriods({ at: null })
    expect(report).toMatchObject({ due: 10, failed: 0 })
    for (const tenant of tenants) {
      const { invoice } = (await service.system.invoicing.ofPeriod(`${tenant}-many`, MARCH.to))!
      expect(invoice.lines.map((line) => [line.type, line.amount])).toEqual([
        ['fee', '200.00'],
        ...(tenant === tenants[5] ? [['regularisation', '25.00']] : []),
      ])
    }
  })

  test(`through the door: only with the admin scope, and of one tenant when it is named ${promises('tenant:isolated')}`, async () => {
    const app = await buildHttp(service.system)
    const post = (key: string, payload: object) =>
      app.inject({ method: 'POST', url: '/v1/periods/close', headers: { authorization: `Bearer ${key}` }, payload })
    const reader = (await service.system.keys.create({ name: 'r', scopes: ['read'], tenant: tenants[1]! })).secret
    expect((await post(reader, {})).statusCode).toBe(403)
    expect((await post(service.adminKey, { tenant: tenants[1]! })).json()).toMatchObject({ due: 1, before: 1 })
    expect((await post(service.adminKey, { contract: `${tenants[1]}-many` })).statusCode).toBe(400)
    await app.close()
  })
})

describe('chunks', () => {
  const CONTRACTS = 2 * limits.closeChunkMax + 50
  const clock = new HandClock('2026-04-01T02:00:00Z')
  let postgres: TestPostgres
  let catalog: Catalog
  const counted = new Map<string, number>()

  const options = (draft: CloseManyOptions['pool']['draft'], asked?: () => void): CloseManyOptions => ({
    postgres: postgres.pool,
    clock,
    catalog,
    invoicing: new Invoicing({ postgres: postgres.pool, clock }),
    usageAtCut: () => Promise.reject(new Error('the single way was not expected')),
    pool: { draft, close: async () => {} },
    openCut: async () => ({
      release: async () => {},
      count: async (requests) => {
        asked?.()
        return requests.map(({ tenant, items }) => {
          counted.set(tenant, (counted.get(tenant) ?? 0) + 1)
          return items.flatMap(({ item, metrics }) =>
            metrics.map(
              (metric): ItemUsage => ({
                item,
                metric,
                quantity: '60',
                count: 60,
                cut: { 0: 1 },
                query: 'q',
                digest: '0'.repeat(64),
              }),
            ),
          )
        })
      },
    }),
  })

  beforeAll(async () => {
    postgres = await openTestPostgres()
    await loadSeeds(await openCatalog({ postgres: postgres.pool, clock }))
    await postgres.pool.query('DELETE FROM catalog_contracts')
    await postgres.pool.query(
      `INSERT INTO catalog_customers (tenant, definition, changed_in)
       SELECT 't' || n, $2::jsonb || jsonb_build_object('tenant', 't' || n), (SELECT version FROM catalog_head)
       FROM generate_series(1, $1::int) AS n`,
      [CONTRACTS, seedCustomers[0]],
    )
    await postgres.pool.query(
      `INSERT INTO catalog_contracts (id, tenant, definition, changed_in)
       SELECT 'c' || n, 't' || n, $2::jsonb || jsonb_build_object('id', 'c' || n, 'tenant', 't' || n),
         (SELECT version FROM catalog_head) FROM generate_series(1, $1::int) AS n`,
      [
        CONTRACTS,
        {
          ...seedContracts[1]!,
          items: [{ ...seedContracts[1]!.items[0]!, planVersion: 1 }],
        },
      ],
    )
    catalog = await openCatalog({ postgres: postgres.pool, clock })
  }, 120_000)
  afterAll(async () => postgres?.close())

  test('stopped after the first chunk, the next batch goes on where it was: one draft each, and none is counted twice', async () => {
    let tasks = 0
    const dying = options(async (batch) => {
      tasks += 1
      if (tasks > 1) throw new Error('the process died here')
      return draftBatch(batch)
    })
    await expect(closeMany(dying, { at: null, finalise: false })).rejects.toThrow(/died here/)
    const drafts = async (): Promise<number> =>
      (await postgres.pool.query('SELECT count(*)::int AS n FROM invoices')).rows[0].n
    // The chunk that was on its way ends in its own time; a rejected batch does not take it back.
    await expect.poll(drafts).toBe(limits.closeChunkMax)
    counted.clear()
    const report = await closeMany(
      options(async (batch) => draftBatch(batch)),
      { at: null, finalise: false },
    )
    expect(report).toMatchObject({
      due: CONTRACTS,
      before: limits.closeChunkMax,
      drafted: CONTRACTS - limits.closeChunkMax,
      failed: 0,
    })
    expect(await drafts()).toBe(CONTRACTS)
    expect([...counted.values()].every((times) => times === 1) && counted.size).toBe(CONTRACTS - limits.closeChunkMax)
  })

  test('two batches at once over the same contracts: one draft each', async () => {
    const time = new HandClock('2026-05-01T02:00:00Z')
    const batch = () =>
      closeMany({ ...options(async (tasks) => draftBatch(tasks)), clock: time }, { at: null, finalise: false })
    const reports = await Promise.all([batch(), batch()])
    expect(reports.map((report) => report.failed)).toEqual([0, 0])
    const { rows } = await postgres.pool.query(
      `SELECT count(*)::int AS n, count(DISTINCT contract)::int AS contracts FROM invoices WHERE period_from = $1`,
      [MARCH.to],
    )
    expect(rows[0]).toEqual({ n: CONTRACTS, contracts: CONTRACTS })
  })

  test('a contract that cannot be rated is named and its neighbours go on', async () => {
    const time = new HandClock('2026-06-01T02:00:00Z')
    await catalog.putCustomer({ ...seedCustomers[0]!, tenant: 't7', currency: 'USD' })
    const report = await closeMany(
      { ...options(async (tasks) => draftBatch(tasks)), clock: time },
      { at: null, finalise: false },
    )
    expect(report).toMatchObject({ drafted: CONTRACTS - 1, failed: 1 })
    expect(report.failures).toEqual([{ contract: 'c7', reason: expect.stringContaining('is in EUR') }])
  })
})
