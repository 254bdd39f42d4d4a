/** The catalogue on a real PostgreSQL: versions grow with changes only, what billed is kept, and terms are what a period needs. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import { loadSeeds, seedContracts, seedPrices } from '../../src/catalog/seeds.js'
import { HandClock } from '../../src/clock.js'
import { openTestPostgres, type TestPostgres } from '../invoicing/postgres.js'

let postgres: TestPostgres
let catalog: Catalog
const clock = new HandClock('2026-03-10T09:00:00Z')
const march = { from: Date.UTC(2026, 2, 1), to: Date.UTC(2026, 3, 1) }

beforeAll(async () => {
  postgres = await openTestPostgres()
  catalog = await openCatalog({ postgres: postgres.pool, clock })
  await loadSeeds(catalog)
}, 120_000)
afterAll(async () => postgres?.close())

describe('versions', () => {
  test('the seeds loaded again change nothing, here and in a second process', async () => {
    const version = catalog.snapshot().version
    expect(version).toBeGreaterThan(30)
    expect(await loadSeeds(catalog)).toBe(0)
    const other = await openCatalog({ postgres: postgres.pool, clock })
    expect(await loadSeeds(other)).toBe(0)
    expect(other.snapshot().version).toBe(version)
    expect(other.entitlements()).toHaveLength(catalog.entitlements().length)
  })

  test('each change grows the version by one, is kept with before and after, and is told', async () => {
    const before = catalog.snapshot().version
    const seen: number[] = []
    const stop = catalog.onChange((snapshot) => seen.push(snapshot.version))
    const { changed, catalogVersion } = await catalog.putProduct({ key: 'Test', name: 'Essai' })
    await catalog.putProduct({ key: 'Test', name: 'Essai 2' })
    stop()
    expect([changed, catalogVersion, seen]).toEqual([true, before + 1, [before + 1, before + 2]])
    expect(await catalog.changes(before)).toEqual([
      {
        version: before + 1,
        at: clock.now(),
        kind: 'product',
        key: 'Test',
        change: { before: null, after: { key: 'Test', name: 'Essai' } },
      },
      {
        version: before + 2,
        at: clock.now(),
        kind: 'product',
        key: 'Test',
        change: { before: { key: 'Test', name: 'Essai' }, after: { key: 'Test', name: 'Essai 2' } },
      },
    ])
  })

  test('changes of two nodes at once have one order and lose nothing', async () => {
    const other = await openCatalog({ postgres: postgres.pool, clock })
    const before = catalog.snapshot().version
    await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        (i % 2 === 0 ? catalog : other).putProduct({ key: `P${i}`, name: `Produit ${i}` }),
      ),
    )
    await catalog.refresh()
    await other.refresh()
    expect(catalog.snapshot().version).toBe(before + 20)
    expect([...other.book().products.keys()].filter((key) => /^P\d/.test(key))).toHaveLength(20)
  })

  test('an import of customers is one transaction, a version each, and nothing the second time', async () => {
    const before = catalog.snapshot().version
    const one = catalog.book().customers.get('bicici')!
    const many = Array.from({ length: 3000 }, (_, i) => ({ ...one, tenant: `import-${i}` }))
    let told = 0
    const stop = catalog.onChange(() => {
      told += 1
    })
    expect(await catalog.putCustomers([...many, one])).toEqual({ changed: 3000, catalogVersion: before + 3000 })
    expect((await catalog.putCustomers(many)).changed).toBe(0)
    stop()
    await expect(
      catalog.putCustomers([
        { ...one, tenant: 'fresh' },
        { ...one, country: 'Nowhere' },
      ]),
    ).rejects.toThrow(/country/)
    expect([told, catalog.book().customers.has('fresh')]).toEqual([1, false])
    const other = await openCatalog({ postgres: postgres.pool, clock })
    expect([other.snapshot().version, other.book().customers.size]).toEqual([
      before + 3000,
      catalog.book().customers.size,
    ])
    expect((await catalog.changes(before + 2999)).map((change) => [change.kind, change.key])).toEqual([
      ['customer', 'import-2999'],
    ])
  })

  test('a change in memory is what another process reads', async () => {
    const other = await openCatalog({ postgres: postgres.pool, clock })
    const sorted = (entitlements: readonly object[]): string[] =>
      entitlements.map((entitlement) => JSON.stringify(entitlement)).sort()
    expect(sorted(catalog.entitlements())).toEqual(sorted(other.entitlements()))
    expect([...catalog.snapshot().tenants].sort()).toEqual([...other.snapshot().tenants].sort())
    expect([...catalog.snapshot().metrics].map((metric) => metric.key).sort()).toEqual(
      [...other.snapshot().metrics].map((metric) => metric.key).sort(),
    )
  })

  test('a metric has a name for documents, one for both languages or one for each', async () => {
    const metric = { key: 'eau', aggregation: 'sum', unit: 'm3', scale: 3 }
    const { value } = await catalog.putMetric({ ...metric, name: 'm³ d’eau' })
    expect(value.name).toEqual({ fr: 'm³ d’eau', en: 'm³ d’eau' })
    const again = await catalog.putMetric({ ...metric, name: { fr: 'm³ d’eau', en: 'm³ of water' } })
    expect(again.value).toMatchObject({ version: 2, name: { fr: 'm³ d’eau', en: 'm³ of water' } })
    await expect(catalog.putMetric({ ...metric, name: { fr: 'm³ d’eau' } })).rejects.toThrow(/^name\.en: /)
    await expect(catalog.putMetric({ ...metric, name: 7 })).rejects.toThrow(/^name: an object/)
  })

  test('a changed metric is a new version of it, and the database keeps the old one', async () => {
    const first = await catalog.putMetric({ key: 'gaz', aggregation: 'sum', unit: 'kWh', scale: 2 })
    const second = await catalog.putMetric({ key: 'gaz', aggregation: 'sum', unit: 'kWh', scale: 3 })
    expect([first.value.version, second.value.version]).toEqual([1, 2])
    expect(catalog.snapshot().metrics.filter((metric) => metric.key === 'gaz')).toEqual([second.value])
    await expect(postgres.pool.query(`UPDATE catalog_metrics SET version = 9 WHERE key = 'gaz'`)).rejects.toThrow(
      /never changed/,
    )
    await expect(postgres.pool.query('DELETE FROM catalog_versions')).rejects.toThrow(/never changed/)
    await expect(postgres.pool.query('TRUNCATE catalog_versions CASCADE')).rejects.toThrow(/never changed/)
  })
})

describe('prices', () => {
  const rule = (amount: string): unknown => ({ rule_id: 'essai', type: 'flat_fee', amount, currency: 'EUR' })

  test('a draft never bills, an active version is not edited, a later one takes the next period', async () => {
    await catalog.putPrice({ rule: rule('10.00'), effectiveFrom: Date.UTC(2026, 0, 1) })
    expect(catalog.book().priceInForce('essai', march.from)).toBeNull()
    await catalog.activatePrice('essai', '1.0', Date.UTC(2026, 0, 1))
    expect(catalog.book().priceInForce('essai', march.from)?.version).toBe('1.0')
    await expect(catalog.putPrice({ rule: rule('11.00'), version: '1.0', status: 'active' })).rejects.toThrow(
      /make 1\.1/,
    )
    const edited = await catalog.putPrice({ rule: rule('11.00') })
    expect([edited.value.version, edited.value.status]).toEqual(['1.1', 'draft'])
    await catalog.activatePrice('essai', '1.1', Date.UTC(2026, 2, 16))
    expect(catalog.book().priceInForce('essai', march.from)?.version).toBe('1.0')
    expect(catalog.book().priceInForce('essai', march.to)?.version).toBe('1.1')
    await catalog.archivePrice('essai', '1.0')
    expect(catalog.book().priceInForce('essai', march.from)?.version).toBe('1.0')
  })

  test('a draft made active without a day takes the next period, however old it is; archived, the one before it takes over', async () => {
    const inForce = (at: number) => catalog.book().priceInForce('vieux', at)?.version ?? null
    const old = (amount: string): unknown => ({ ...(rule(amount) as object), rule_id: 'vieux' })
    await catalog.putPrice({ rule: old('10.00'), status: 'active', effectiveFrom: Date.UTC(2026, 0, 1) })
    await catalog.putPrice({ rule: old('12.00'), effectiveFrom: Date.UTC(2026, 1, 1) })
    const { value } = await catalog.activatePrice('vieux', '1.1')
    expect([value.effectiveFrom, inForce(march.from), inForce(march.to)]).toEqual([clock.now(), '1.0', '1.1'])
    await catalog.archivePrice('vieux', '1.1')
    expect([inForce(march.from), inForce(march.to)]).toEqual(['1.0', '1.0'])
    await catalog.archivePrice('vieux', '1.0')
    expect([inForce(march.from), inForce(march.to)]).toEqual(['1.0', null])
    // As another process reads it, and for good.
    const other = await openCatalog({ postgres: postgres.pool, clock })
    expect(other.book().priceInForce('vieux', march.to)).toBeNull()
    await expect(
      postgres.pool.query(`UPDATE catalog_prices SET archived_at = NULL WHERE rule = 'vieux'`),
    ).rejects.toThrow(/archived and stays so/)
    const again = await catalog.putPrice({ rule: old('10.00'), version: '1.0', status: 'active' })
    expect([again.changed, again.value.status]).toEqual([false, 'archived'])
  })

  test('the database itself refuses to change an active price', async () => {
    await expect(
      postgres.pool.query(`UPDATE catalog_prices SET definition = '{}' WHERE rule = 'overage_oid_kyc'`),
    ).rejects.toThrow(/cannot be changed/)
    await expect(
      postgres.pool.query(`UPDATE catalog_prices SET status = 'draft' WHERE rule = 'overage_oid_kyc'`),
    ).rejects.toThrow(/cannot become/)
    await expect(postgres.pool.query(`DELETE FROM catalog_prices WHERE rule = 'overage_oid_kyc'`)).rejects.toThrow(
      /archived/,
    )
  })
})

describe('contracts', () => {
  test('entitlements reach the usage side as data, with anchor and zone', () => {
    const kyc = catalog
      .entitlements()
      .find((one) => one.contract === 'banque-atlantique-oid' && one.metric === 'kyc_verification')
    expect(kyc).toEqual({
      item: 'banque-atlantique-oid/1',
      contract: 'banque-atlantique-oid',
      tenant: 'banque-atlantique',
      product: 'OID',
      metric: 'kyc_verification',
      limit: '50',
      limitVersion: 1,
      thresholds: [
        { code: '80%', kind: 'percent', value: '80' },
        { code: '100%', kind: 'percent', value: '100' },
      ],
      anchor: Date.UTC(2026, 0, 1),
      timeZone: 'Africa/Abidjan',
    })
  })

  test('a changed limit gets a higher limit version, an unchanged one keeps its own', async () => {
    const clm = seedContracts[0]!
    const item = clm.items[0]!
    const entitlements = item.entitlements!.map((one) =>
      one.metric === 'ai_tokens' ? { ...one, limit: '300000' } : one,
    )
    const { value } = await catalog.putContract({ ...clm, items: [{ ...item, entitlements }] })
    expect(value.items[0]!.entitlements.map((one) => [one.metric, one.limitVersion])).toEqual([
      ['documents_processed', 1],
      ['ai_tokens', 2],
      ['user_active', 1],
    ])
    await catalog.putContract(clm)
  })

  test('terms of a period name every price in force and say where there is none', () => {
    const terms = catalog.terms('banque-atlantique-oid', march)
    expect(terms.items[0]!.fee).toMatchObject({ rule: 'pricing_oid_business_base', version: '3.1' })
    expect(
      terms.items[0]!.metrics.map((metric) => [metric.metric, metric.limit, metric.price?.version ?? null]),
    ).toEqual([
      ['auth_login', null, null],
      ['kyc_verification', '50', '2.0'],
      ['certificate_enrolled', '20', null],
      ['mcp_call', '500', '1.0'],
    ])
  })

  test('lint tells overage without a price, and a volume price that falls', () => {
    const findings = catalog.lint()
    expect(findings).toContainEqual(
      expect.objectContaining({
        code: 'overage_without_price',
        at: 'plan oid-business',
        message: expect.stringContaining('certificate_enrolled'),
      }),
    )
    expect(findings).toContainEqual(
      expect.objectContaining({ code: 'volume_price_falls', at: 'price pricing_iot_events' }),
    )
  })

  test('put again, a contract keeps what its moves have made of it; its state is moved, not put; null opens an end', async () => {
    const by = { reason: 'r', actor: 'a' }
    const definition = { ...seedContracts[1]!, id: 'vie', items: [{ id: 'vie/1', plan: 'oid-business' }] }
    const { state: _, ...written } = definition
    await catalog.putContract({ ...written, state: 'trial', trial: { start: '2026-03-01', graceDays: 3 } })
    await catalog.extendTrial('vie', 7, by)
    await catalog.moveContract('vie', 'active', { ...by, on: '2026-03-05' })
    await catalog.moveContract('vie', 'suspended', { ...by, on: '2026-03-09' })
    await catalog.putContract({ ...written, name: 'renamed', trial: { start: '2026-03-01', graceDays: 5 } })
    const expected = {
      name: 'renamed',
      state: 'suspended',
      billedFrom: '2026-03-05',
      pauses: [{ from: '2026-03-09' }],
      trial: { start: '2026-03-01', lengthDays: 14, graceDays: 5, extensionDays: 7, convertedOn: '2026-03-05' },
    }
    expect(catalog.book().contractOf('vie')).toMatchObject(expected)
    await expect(catalog.putContract({ ...written, state: 'active' })).rejects.toThrow(
      /^state: vie is suspended; .*\/move/,
    )
    // What is read can be put: nothing changes.
    expect((await catalog.putContract(catalog.book().contractOf('vie'))).changed).toBe(false)
    const { value } = await catalog.giveNotice('vie', by)
    expect(value.end).toBe('2026-03-31')
    expect((await catalog.putContract(written)).value.end).toBe('2026-03-31')
    expect((await catalog.putContract({ ...written, end: null })).value).not.toHaveProperty('end')
  })

  test('a plan or a metric is put as it was read, unless somebody changed it since', async () => {
    const plan = catalog.book().planOf('oid-starter')
    expect((await catalog.putPlan(plan)).changed).toBe(false)
    expect((await catalog.putPlan({ ...plan, name: 'Starter 2' })).value.version).toBe(plan.version + 1)
    await expect(catalog.putPlan({ ...plan, name: 'Starter 3' })).rejects.toThrow(/^version: plan oid-starter is at 2/)
    const metric = catalog.metric('iot_data')
    expect((await catalog.putMetric(metric)).changed).toBe(false)
    await expect(catalog.putMetric({ ...metric, version: 7 })).rejects.toThrow(/^version: metric iot_data is at 1/)
  })

  test('what does not exist, or is not allowed, is refused by name', async () => {
    const yearly = { rule_id: 'annual', type: 'flat_fee', amount: '120', currency: 'EUR', billing_cycle: 'annual' }
    await expect(catalog.putPrice({ rule: yearly })).rejects.toThrow(/^billing_cycle: one of weekly, monthly, /)
    const oid = seedContracts[1]!
    // Balances know an item by its id: two of one name would take the live quotas from all.
    await expect(catalog.putContract({ ...oid, id: 'x' })).rejects.toThrow(
      /^items: banque-atlantique-oid\/1 is an item of contract banque-atlantique-oid; .* such as x\//,
    )
    expect((await catalog.putContract(oid)).changed).toBe(false)
    await expect(catalog.putContract({ ...oid, id: 'x', tenant: 'nobody' })).rejects.toThrow(/no customer nobody/)
    await expect(catalog.putContract({ ...oid, start: '2026-02-01' })).rejects.toThrow(/make a new contract/)
    await expect(catalog.putContract({ ...oid, surprise: 1 })).rejects.toThrow(/unknown member surprise/)
    await expect(catalog.moveContract(oid.id, 'trial', { reason: 'r', actor: 'a' })).rejects.toThrow(
      /active cannot become trial/,
    )
    const far = { reason: 'r', actor: 'a', on: '2036-03-10' }
    await expect(catalog.moveContract(oid.id, 'suspended', far)).rejects.toThrow(/^on: .* more than a year ahead/)
    await expect(catalog.moveContract(oid.id, 'suspended', { ...far, on: '2026-02-30' })).rejects.toThrow(/^on: YYYY/)
    await expect(catalog.putContract({ ...oid, end: '2026-02-30' })).rejects.toThrow(/^end: YYYY-MM-DD/)
    await expect(
      catalog.putPlan({ key: 'p', product: 'OID', name: 'P', metrics: [{ metric: 'nope' }] }),
    ).rejects.toThrow(/no metric nope/)
    await expect(catalog.putPrice({ ...seedPrices[0]!, version: 'one' })).rejects.toThrow(/X\.Y/)
    const bad: unknown[] = [
      null,
      1,
      {},
      { rule: null },
      { rule: {} },
      { ...seedPrices[0], version: 3.1 },
      { ...seedPrices[0], more: 1 },
    ]
    bad.push({ rule: { ...(seedPrices[0]!.rule as object), tiers: [] } }, { ...seedPrices[0], status: 'live' })
    for (const input of bad) {
      await expect(catalog.putPrice(input as never), JSON.stringify(input)).rejects.toMatchObject({
        code: 'invalid_request',
      })
    }
    expect(() => catalog.terms('nope', march)).toThrow(/no nope/)
  })
})
