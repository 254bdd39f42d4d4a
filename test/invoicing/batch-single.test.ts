/**
 * The closing of many contracts at once against the closing of each, on real engines: several hundred seeded random contracts with all
 * that a contract may have, drafted by the batch, dropped, and drafted again one by one. What is not the same to the byte is a defect
 * of one of the two ways. A contract with packs, usage data or a share of its customer's usage goes the single way in the batch too:
 * it is here so that the two ways are mixed.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seedCustomers, seedLegalEntity } from '../../src/catalog/seeds.js'
import type { Measured } from '../../src/invoicing/close.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { unpackJson } from '../../src/invoicing/pack.js'
import { DAY_MS, HOUR_MS } from '../../src/period.js'
import { promises } from '../promises.js'
import { openTestService, type TestService } from './service.js'

const CONTRACTS = 300
const CYCLES = ['monthly', 'monthly', 'monthly', 'weekly', 'quarterly'] as const
const ZONES = ['Africa/Abidjan', 'Europe/Paris', 'Asia/Kathmandu', 'Australia/Lord_Howe', 'America/Sao_Paulo'] as const

const METRICS = [
  { key: 'm_count', aggregation: 'count', unit: 'call' },
  { key: 'm_sum', aggregation: 'sum', unit: 'unit', scale: 3 },
  { key: 'm_rounded', aggregation: 'sum', unit: 'unit', scale: 3, rounding: { mode: 'half_even', places: 1 } },
  { key: 'm_data', aggregation: 'sum', unit: 'Mo', scale: 2 },
  { key: 'm_unique', aggregation: 'unique', unit: 'user', uniqueBy: 'subject' },
  { key: 'm_max', aggregation: 'max', unit: 'unit', scale: 1 },
  { key: 'm_average', aggregation: 'average', unit: 'unit', scale: 2 },
  { key: 'm_latest', aggregation: 'latest', unit: 'unit', scale: 1 },
  { key: 'm_level', aggregation: 'weighted_sum', unit: 'Go·h', scale: 1 },
  { key: 'm_p95', aggregation: 'percentile', percentile: '95', unit: 'ms', scale: 1 },
]

/** mulberry32: the same contracts each time. */
function numbers(seed: number): (below: number) => number {
  let a = seed
  return (below) => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4_294_967_296) * below)
  }
}
const random = numbers(20_261_201)
const pick = <T>(all: readonly T[]): T => all[random(all.length)]!
const chance = (percent: number): boolean => random(100) < percent
const decimal = (below: number, places: number): string => (random(below * 10 ** places) / 10 ** places).toFixed(places)
const dayOf = (first: string, within: number): string =>
  new Date(Date.parse(first) + random(within) * DAY_MS).toISOString().slice(0, 10)

/** A price of each model; some per event, some in another unit, some of several versions within the period. */
function rule(id: string, metric: string): object {
  const base = { rule_id: id, metric, currency: 'EUR', ...(chance(25) ? { tax_behavior: 'inclusive' } : {}) }
  const tiers = (cost: () => object): object[] => [
    { up_to: String(5 + random(30)), ...cost() },
    { up_to: String(60 + random(100)), ...cost() },
    { up_to: null, ...cost() },
  ]
  const unit = () => ({ unit_price: decimal(3, 4), flat_fee: chance(40) ? decimal(9, 2) : '0' })
  switch (random(9)) {
    case 0:
      return { ...base, type: 'per_unit', unit_price: decimal(4, 5), ...(metric === 'm_data' ? { unit: 'Go' } : {}) }
    case 1:
      return { ...base, type: 'tiered', tiers: tiers(unit) }
    case 2:
      return { ...base, type: 'volume', tiers: tiers(unit) }
    case 3:
      return {
        ...base,
        type: 'package',
        package_size: String(1 + random(20)),
        package_price: decimal(20, 2),
        free_units: String(random(10)),
        rounding: pick(['up', 'down']),
      }
    case 4:
      return {
        ...base,
        type: 'percentage',
        rate: decimal(9, 2),
        fixed_per_event: '0.013',
        free_events: '2',
        maximum: '90',
      }
    case 5:
      return {
        ...base,
        type: 'percentage',
        rate: decimal(9, 2),
        free_amount: '7',
        ...(metric === 'm_sum' ? { minimum_per_event: '0.10', maximum_per_event: '2' } : { minimum: '3' }),
      }
    case 6:
      return { ...base, type: 'graduated_percentage', tiers: tiers(() => ({ rate: decimal(20, 1), flat_fee: '1' })) }
    case 7:
      return { ...base, type: 'dynamic', factor: '1.15' }
    default:
      return { ...base, type: 'tiered', tiers: tiers(() => ({ unit_price: decimal(2, 3) })) }
  }
}

let service: TestService
const metricsOf = new Map<string, string[]>()
/** Contracts with packs or usage data, or that share their customer's usage. */
const single = new Set<string>()

async function define(): Promise<void> {
  const { catalog } = service.system
  for (const metric of METRICS) await catalog.putMetric(metric)
  await catalog.putProduct({ key: 'full', name: 'Plein' })
  await catalog.putProduct({ key: 'less', name: 'Réduit', taxCategory: 'reduced' })
  await catalog.putLegalEntity(seedLegalEntity)
  const active = { version: '1.0', status: 'active' as const, effectiveFrom: 0 }
  for (const [i, cycle] of ['monthly', 'monthly', 'weekly', 'quarterly', 'yearly'].entries()) {
    const tax = i === 1 ? { tax_behavior: 'inclusive' } : {}
    const fee = {
      rule_id: `fee_${i}`,
      type: 'flat_fee',
      amount: decimal(300, 2),
      currency: 'EUR',
      billing_cycle: cycle,
    }
    await catalog.putPrice({ rule: { ...fee, ...tax }, ...active })
  }
  await catalog.putPrice({ rule: { rule_id: 'seat', type: 'flat_fee', amount: '9.99', currency: 'EUR' }, ...active })
  for (let plan = 0; plan < 30; plan += 1) {
    const metrics: object[] = []
    for (const { key } of METRICS.filter(() => chance(35))) {
      const id = `p${plan}_${key}`
      const priced = chance(90)
      const written = rule(id, key) as { type: string; tax_behavior?: string; minimum_per_event?: string }
      if (priced) {
        await catalog.putPrice({ rule: written, ...active })
        const cut = { takesEffect: 'event_time' as const, effectiveFrom: Date.UTC(2026, 2, 17, 9, 30) }
        if (
          chance(25) &&
          ['tiered', 'volume', 'per_unit'].includes(written.type) &&
          ['m_sum', 'm_count', 'm_data'].includes(key)
        ) {
          const { tax_behavior: tax } = written
          const later = { rule_id: id, metric: key, type: 'per_unit', unit_price: '1.234', currency: 'EUR' }
          await catalog.putPrice({
            rule: tax === undefined ? later : { ...later, tax_behavior: tax },
            version: '2.0',
            status: 'active',
            ...cut,
          })
        }
      }
      metrics.push({ metric: key, included: chance(10) ? null : String(random(15)), rule: priced ? id : null })
    }
    await catalog.putPlan({
      key: `plan_${plan}`,
      product: chance(25) ? 'less' : 'full',
      name: `Formule ${plan}`,
      feeRule: chance(85) ? `fee_${random(5)}` : null,
      metrics,
      prorateIncluded: chance(40),
    })
  }
}

async function sign(): Promise<void> {
  const { catalog, prepaid, usageData } = service.system
  for (let n = 0; n < CONTRACTS; n += 1) {
    const tenant = `t${chance(5) && catalog.book().customers.has(`t${n - 1}`) ? n - 1 : n}`
    const timeZone = pick(ZONES)
    if (tenant === `t${n}`) {
      const currency = pick(['EUR', 'EUR', 'XOF'])
      const taxes = { taxRate: pick(['18', '18', '0']), currency, language: pick(['fr', 'en']) }
      await catalog.putCustomer({ ...seedCustomers[0]!, tenant, name: `Client ${n}`, ...taxes })
    } else {
      single.add(`c${n}`)
      single.add(`c${n - 1}`)
    }
    const start = chance(40) ? pick(['2026-01-01', '2026-01-31', '2026-02-01']) : dayOf('2025-12-20', 90)
    const plan = () => `plan_${random(30)}`
    const addOns = () =>
      chance(35)
        ? {
            addOns: [
              {
                name: 'Sièges',
                rule: 'seat',
                quantity: String(1 + random(4)),
                ...(chance(50) ? { from: dayOf('2026-03-01', 40) } : {}),
              },
              { name: 'Mise en service', rule: 'seat', quantity: '1', once: true, from: dayOf('2026-03-01', 50) },
            ],
          }
        : {}
    const kind = chance(20) ? { kind: pick(['fixed', 'usage', 'usage_triggered', 'once']) } : {}
    const first = { id: `c${n}/1`, plan: plan(), ...kind, ...addOns() }
    const change = dayOf('2026-03-03', 50)
    const last = new Date(Date.parse(change) - DAY_MS).toISOString().slice(0, 10)
    const items = chance(30)
      ? [
          { ...first, ...(last > start ? { until: last } : {}) },
          { ...first, id: `c${n}/2`, plan: plan(), from: [change, start].sort()[1]! },
        ]
      : [first]
    const pausedFrom = dayOf('2026-02-20', 60)
    const charges = {
      ...(chance(30)
        ? {
            discounts: [
              { name: 'FID', kind: 'percent', value: decimal(40, 1), ...(chance(50) ? { from: '2026-03-01' } : {}) },
              {
                name: 'AMI',
                kind: 'amount',
                value: String(1 + random(30)),
                ...(chance(50) ? { until: '2026-03-31' } : {}),
              },
            ],
          }
        : {}),
      ...(chance(25) ? { minimum: String(random(400)) } : {}),
      ...(chance(15) ? { maximum: String(400 + random(400)) } : {}),
    }
    await catalog.putContract({
      id: `c${n}`,
      tenant,
      legalEntity: seedLegalEntity.key,
      name: `Contrat ${n}`,
      start,
      timeZone,
      cycle: pick(CYCLES),
      ...(chance(20) ? { fees: 'in_advance' } : {}),
      ...(chance(20) ? { prorate: 'second' } : {}),
      ...(chance(20) ? { pauses: [{ from: pausedFrom, ...(chance(50) ? { until: pausedFrom } : {}) }] } : {}),
      ...(chance(15) ? { suspension: 'bills_fees' } : {}),
      ...(chance(15) ? { end: dayOf('2026-03-25', 40) } : {}),
      ...(chance(20) ? { taxBehavior: pick(['inclusive', 'exclusive']) } : {}),
      ...(chance(10) ? { late: { usage: pick(['complementary_invoice', 'reject']) } } : {}),
      adjustments: charges,
      items,
    })
    const known = catalog
      .book()
      .contractOf(`c${n}`)
      .items.flatMap((item) => item.entitlements.map(({ metric }) => metric))
    metricsOf.set(tenant, [...(metricsOf.get(tenant) ?? []), ...known])
    const summed = known.find((metric) => ['m_sum', 'm_count', 'm_data'].includes(metric))
    const beside = random(100)
    if (summed !== undefined && beside < 8) {
      single.add(`c${n}`)
      const pack = {
        contract: `c${n}`,
        item: `c${n}/1`,
        metric: summed,
        quantity: String(5 + random(40)),
        amount: '19',
      }
      if (
        catalog
          .book()
          .contractOf(`c${n}`)
          .items[0]!.entitlements.some(({ metric, limit }) => metric === summed && limit !== null)
      )
        await prepaid.buy({ ...pack, name: `Pack ${n}` })
    } else if (beside > 92) {
      single.add(`c${n}`)
      const contract = catalog.book().contractOf(`c${n}`)
      const calculators = [{ name: 'relevé', reads: 'values', metric: null, formula: 'sum * 1.5' }]
      await catalog.putContract({ ...contract, items: contract.items.map((one) => ({ ...one, calculators })) })
      const datum = { contract: `c${n}`, item: `c${n}/1`, value: String(1 + random(50)), state: 'pending' }
      await usageData.create([{ ...datum, start: dayOf('2026-03-05', 40) }], null)
    }
  }
  await service.system.catalogSettled()
}

/** Events of every customer, of its own metrics, at any time between two instants. */
async function send(round: string, from: number, to: number, share: number): Promise<void> {
  const events: object[] = []
  for (const [tenant, metrics] of metricsOf) {
    if (random(100) >= share) continue
    for (const metric of new Set(metrics)) {
      const { scale = 0, aggregation } = METRICS.find(({ key }) => key === metric)!
      const count = chance(10) ? 0 : 1 + random(12)
      for (let i = 0; i < count; i += 1) {
        const value = aggregation === 'count' ? '1' : decimal(40, scale)
        const time = from + random((to - from) / 1_000) * 1_000
        events.push({ id: `${round} ${metric} ${i}`, tenant, metric, subject: `s${random(6)}`, time, value })
      }
    }
  }
  for (let at = 0; at < events.length; at += 5_000) {
    const body = Buffer.from(JSON.stringify(events.slice(at, at + 5_000)))
    const { refusals } = await service.system.ingest({ body, format: 'json', tenant: null, wait: true })
    if (refusals.length > 0) throw new Error(JSON.stringify(refusals.slice(0, 3)))
  }
  await service.system.settle()
}

interface Found {
  readonly period: number
  readonly state: string
  readonly invoice: Omit<Invoice, 'id'> | null
  readonly measured: Pick<Measured, 'order' | 'terms' | 'usage' | 'late' | 'notices' | 'prepaid'>
}

/** Where two things differ, by their paths. */
function differences(a: unknown, b: unknown, at = ''): string[] {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null)
    return a === b ? [] : [`${at}: ${JSON.stringify(a)} is ${JSON.stringify(b)} alone`]
  const [left, right] = [a, b] as Record<string, unknown>[]
  return [...new Set([...Object.keys(left!), ...Object.keys(right!)])].flatMap((key) =>
    differences(left![key], right![key], `${at}.${key}`),
  )
}

const unlike = (batch: Map<string, Found>, alone: Map<string, Found>): string[] =>
  [...alone].flatMap(([id, found]) => differences(batch.get(id), found, id))

/**
 * What was made of each contract since an instant of the clock. Ids differ from attempt to attempt, and packs are debited by attempt.
 * The batch keeps the queries on the invoices alone (draft-batch.ts), and there they are compared.
 */
async function made(since: number): Promise<Map<string, Found>> {
  const { rows } = await service.system.engines.postgres.query(
    `SELECT c.contract, c.period_from, c.state, c.measured, c.invoice FROM closings c
     WHERE c.part = 0 AND c.measured IS NOT NULL AND c.updated_at >= $1 ORDER BY c.contract`,
    [since],
  )
  const found = new Map<string, Found>()
  for (const row of rows) {
    const { order, terms, usage: counted, late, notices = [], prepaid } = unpackJson<Measured>(row.measured)
    const usage = counted.map((one) => ({ ...one, query: '' }))
    const kept = row.invoice === null ? null : (await service.system.invoicing.get(row.invoice)).invoice
    const { id: _, ...invoice } = kept ?? { id: '' }
    found.set(row.contract, {
      period: Number(row.period_from),
      state: row.state,
      invoice: kept === null ? null : (invoice as Omit<Invoice, 'id'>),
      measured: JSON.parse(
        JSON.stringify({ order, terms, usage, late, notices, prepaid }).replaceAll(/(\/\d+)#\d+/g, '$1'),
      ),
    })
  }
  return found
}

/** Closes what is due at once, drops it (or each so-manieth), and closes each by itself. */
async function bothWays(now: string, each = 1): Promise<{ batch: Map<string, Found>; alone: Map<string, Found> }> {
  const { billing, invoicing, engines } = service.system
  service.clock.set(now)
  const since = service.clock.now()
  const report = await billing.closeDuePeriods({ at: null, finalise: false })
  expect(report.failures).toEqual([])
  const batch = await made(since)
  expect(batch.size).toBe(report.due - report.before)
  service.clock.set(new Date(since + 60_000).toISOString())
  const { rows } = await engines.postgres.query<{ contract: string; period_from: string; invoice: string | null }>(
    'SELECT contract, period_from, invoice FROM closings WHERE part = 0 AND measured IS NOT NULL AND updated_at >= $1 ORDER BY id',
    [since],
  )
  const dropped = rows.filter((_, i) => i % each === 0)
  for (const { contract, period_from: from, invoice } of dropped) {
    if (invoice !== null) await invoicing.discard(invoice)
    // Nothing was due: there is no draft to drop, and its closing is opened again as a dropped draft's is.
    else
      await engines.postgres.query(
        `UPDATE closings SET state = 'open', attempt = attempt + 1, measured = NULL, place = NULL WHERE contract = $1
         AND period_from = $2 AND part = 0`,
        [contract, from],
      )
  }
  const again = service.clock.now()
  for (const { contract, period_from: from } of dropped)
    await billing.closePeriod({ contract, at: Number(from), finalise: false })
  return { batch, alone: await made(again) }
}

beforeAll(async () => {
  service = await openTestService(false)
  await define()
  await sign()
}, 300_000)
afterAll(async () => service?.close())

test(`the first closing: every draft and every measure of the batch is that of the single way, to the byte ${promises('rating:pure')}`, async () => {
  service.clock.set('2026-04-02T12:00:00Z')
  await send('first', Date.UTC(2026, 2, 1), Date.UTC(2026, 3, 2), 100)
  const { batch, alone } = await bothWays('2026-04-05T06:00:00Z')
  expect(batch.size).toBeGreaterThan(230)
  const plain = [...batch.keys()].filter((id) => !single.has(id))
  expect(plain.length).toBeGreaterThan(150)
  expect([...alone.keys()]).toEqual([...batch.keys()])
  expect(unlike(batch, alone).slice(0, 40)).toEqual([])
  // What is compared is there: every kind of line, and both currencies.
  const lines = [...batch.values()].flatMap(({ invoice }) => invoice?.lines ?? [])
  expect(new Set(lines.map((line) => line.type))).toEqual(
    new Set(['fee', 'usage', 'add_on', 'discount', 'cap', 'minimum']),
  )
  const models = new Set(lines.map((line) => line.price?.model))
  for (const model of [
    'flat',
    'unit',
    'graduated',
    'volume',
    'package',
    'percentage',
    'graduated_percentage',
    'dynamic',
  ])
    expect([...models]).toContain(model)
  const invoices = [...batch.values()].flatMap(({ invoice }) => invoice ?? [])
  expect(new Set(invoices.map(({ currency }) => currency))).toEqual(new Set(['EUR', 'XOF']))
  expect(lines.some((line) => line.taxBehavior === 'inclusive' && line.net !== undefined)).toBe(true)
  expect(invoices.some(({ taxes }) => taxes.length === 2)).toBe(true)
  for (const words of ['suspendus', 'jours sur', 'heures sur', 'au prix v2.0'])
    expect(
      lines.some((line) => line.explanation.fr.includes(words)),
      words,
    ).toBe(true)
}, 600_000)

test('the next closing, with usage that came late and fees billed ahead: the same again; issued, they are equal to their events', async () => {
  service.clock.set('2026-04-05T12:00:00Z')
  await send('late', Date.UTC(2026, 2, 5), Date.UTC(2026, 2, 31), 15)
  service.clock.set('2026-05-04T00:00:00Z')
  await send('second', Date.UTC(2026, 3, 2), Date.UTC(2026, 4, 3), 100)
  const { batch, alone } = await bothWays('2026-05-06T06:00:00Z', 6)
  expect(batch.size).toBeGreaterThan(200)
  expect(unlike(batch, alone).slice(0, 40)).toEqual([])
  const lines = [...batch.values()].flatMap(({ invoice }) => invoice?.lines ?? [])
  expect(lines.some((line) => line.type === 'regularisation')).toBe(true)
  expect([...batch.values()].some(({ measured }) => measured.terms.billedAhead !== undefined)).toBe(true)
  service.clock.set(new Date(service.clock.now() + HOUR_MS).toISOString())
  // Less than nothing, with nothing issued to credit, is for a person.
  const due = [...batch].filter(([, { invoice }]) => invoice?.ttc.startsWith('-') === false).map(([id]) => id)
  for (const id of due.filter((_, i) => i % 25 === 0)) {
    const { invoice } = await service.system.billing.closePeriod({ contract: id, at: batch.get(id)!.period })
    const verified = await service.system.billing.verifyInvoice(invoice!.invoice.id)
    expect([id, invoice!.state, verified.equal]).toEqual([id, 'finalised', true])
  }
}, 600_000)
