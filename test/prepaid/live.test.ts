/**
 * What contract items have at present: live quotas, checks and reservations of metrics with packs behind the quota, and of metrics
 * that items share by subject. On real engines; what is told is held against what the closing then bills.
 */
import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildHttp } from '../../src/http/http.js'
import { MARCH, openTestService, type TestService } from '../invoicing/service.js'
import { promises } from '../promises.js'

const at = (day: number, hour = 0, month = 2): number => Date.UTC(2026, month, day, hour)
let service: TestService
let app: FastifyInstance

const PACKS = 'nsia-assurances'
const BLOCKS = 'bicici'
const SHARED = 'orange-ci'
const FLEET = 'bridge-bank'
const CHANGED = 'coris-bank'
const RUNG = 'moov-africa'

const ask = async (method: 'GET' | 'POST', url: string, body?: object) => {
  const headers = { authorization: `Bearer ${service.adminKey}`, 'content-type': 'application/json' }
  return (
    await app.inject({ method, url, headers, ...(body === undefined ? {} : { payload: JSON.stringify(body) }) })
  ).json()
}
/** Of a tenant by item: usage, limit, overage, status, how it was read, and packs. */
const quotas = async (tenant: string): Promise<Record<string, unknown[]>> => {
  const answer = await ask('GET', `/v1/quotas/${tenant}`)
  return Object.fromEntries(
    answer.quotas.map((line: Record<string, unknown> & { prepaid?: Record<string, string> }) => [
      line.item,
      [line.usage, line.limit, line.overage, line.status, line.state, ...Object.values(line.prepaid ?? {})],
    ]),
  )
}
const check = (tenant: string, n: string, subject?: string) =>
  ask('POST', '/v1/quotas/check', { tenant, metric: 'mcp_call', n, ...(subject === undefined ? {} : { subject }) })
const buy = (tenant: string, pack: object) =>
  service.system.prepaid.buy({ contract: tenant, item: `${tenant}/1`, metric: 'mcp_call', quantity: '1', ...pack })
async function send(
  tenant: string,
  subject: string,
  count: number,
  first: number,
  from: number,
  kind: 'usage' | 'void' = 'usage',
): Promise<void> {
  const events = Array.from({ length: count }, (_, i) => ({
    ...{
      id: `${subject}-${first + i}`,
      metric: 'mcp_call',
      subject,
      time: from + (first + i) * 60_000,
      value: '1',
      kind,
    },
  }))
  const body = Buffer.from(JSON.stringify(events))
  expect(await service.system.ingest({ body, format: 'json', tenant, wait: true })).toMatchObject({ stored: count })
}

beforeAll(async () => {
  service = await openTestService()
  app = await buildHttp(service.system)
  const { catalog } = service.system
  const rule = { rule_id: 'call', type: 'per_unit', metric: 'mcp_call', unit_price: '0.10', currency: 'EUR' }
  await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
  await catalog.putPlan({
    ...{ key: 'packs', product: 'OID', name: 'Packs', prorateIncluded: true },
    metrics: [{ metric: 'mcp_call', included: '10', rule: 'call' }],
  })
  const contract = (tenant: string, items: object[]) =>
    catalog.putContract({
      ...{ id: tenant, tenant, legalEntity: 'orbus-digital', start: '2026-01-01', timeZone: 'Africa/Abidjan' },
      items: items.map((item, i) => ({ id: `${tenant}/${i + 1}`, plan: 'packs', ...item })),
    })
  await contract(PACKS, [{}])
  await contract(BLOCKS, [{ prepaid: [{ metric: 'mcp_call', exhaustion: 'block' }] }])
  await contract(SHARED, [{ subjects: ['a', 'b'], prepaid: [{ metric: 'mcp_call', exhaustion: 'block' }] }, {}])
  await contract(FLEET, [{ fleet: { months: 12 } }, {}])
  await contract(RUNG, [{ subjects: ['a'] }, {}])
  await contract(CHANGED, [{ until: '2026-03-10' }, { from: '2026-03-11' }])
  await service.system.catalogSettled()
}, 120_000)
afterAll(async () => {
  await app?.close()
  await service?.close()
})

describe('packs behind the quota', () => {
  test('what was used before a pack was bought is not taken from it; the quota first, then packs, then nothing', async () => {
    await send(PACKS, 's', 15, 0, at(5))
    expect(await quotas(PACKS)).toEqual({ [`${PACKS}/1`]: ['15', '10', '5', 'over', 'live'] })
    await service.system.settle()
    await buy(PACKS, { id: 'L', quantity: '40' })
    const bought = ['40', '40', '0', '5', 'standard_price']
    expect(await quotas(PACKS)).toEqual({ [`${PACKS}/1`]: ['15', '10', '5', 'within', 'live', ...bought] })
    service.clock.set(at(11))
    await send(PACKS, 's', 30, 100, at(10, 12))
    expect(await quotas(PACKS)).toMatchObject({
      [`${PACKS}/1`]: ['45', '10', '5', 'within', 'live', '10', '10', '30', '5', 'standard_price'],
    })
    // Within an epoch as behind it.
    await service.system.settle()
    expect(await quotas(PACKS)).toMatchObject({
      [`${PACKS}/1`]: ['45', '10', '5', 'within', 'live', '10', '10', '30', '5', 'standard_price'],
    })
    expect(await check(PACKS, '10')).toMatchObject({ allowed: true, why: 'within', remaining: '10' })
    expect(await check(PACKS, '11')).toMatchObject({ allowed: true, why: 'over_soft_limit' })
    await send(PACKS, 's', 12, 200, at(10, 20))
    expect(await quotas(PACKS)).toMatchObject({
      [`${PACKS}/1`]: ['57', '10', '7', 'over', 'live', '0', '0', '40', '7', 'standard_price'],
    })
    // A preview waits for what is in no checkpoint yet.
    expect((await service.system.billing.previewInvoice(PACKS)).lines.map((line) => line.amount)).toEqual(['0.70'])
  })

  test('a pack that ends takes what it had with it, and another bought makes room at once', async () => {
    await buy(BLOCKS, { id: 'E', quantity: '20', expires: '2026-03-15' })
    service.clock.set(at(14))
    await send(BLOCKS, 's', 12, 0, at(12))
    await service.system.settle()
    expect(await check(BLOCKS, '18')).toMatchObject({ allowed: true, remaining: '18' })
    expect(await check(BLOCKS, '19')).toMatchObject({ allowed: false, why: 'blocked', remaining: '18' })
    service.clock.set(at(15, 1))
    expect(await check(BLOCKS, '1')).toMatchObject({ allowed: false, why: 'blocked', remaining: '0' })
    await buy(BLOCKS, { id: 'N', quantity: '5' })
    expect(await check(BLOCKS, '5')).toMatchObject({
      ...{ allowed: true, remaining: '5' },
      quotas: [{ usage: '12', prepaid: { left: '5', exhaustion: 'block' } }],
    })
  })

  test(`twenty that reserve at once never get more than packs have ${promises('limit:never-oversold')}`, async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        ask('POST', '/v1/reservations', { tenant: BLOCKS, metric: 'mcp_call', n: '1', key: `k${i}` }),
      ),
    )
    expect(answers.filter((one) => one.granted)).toHaveLength(5)
    expect(answers.find((one) => !one.granted)).toMatchObject({ granted: false, why: 'blocked', remaining: '0' })
    expect(await check(BLOCKS, '1')).toMatchObject({ allowed: false })
    for (const { granted, reservation } of answers)
      if (granted) await ask('POST', `/v1/reservations/${reservation.id}/release`, {})
    expect(await check(BLOCKS, '5')).toMatchObject({ allowed: true })
  })
})

describe('items that share a metric', () => {
  test('each has its own usage, packs and room; a subject is asked of the item that takes it', async () => {
    await buy(SHARED, { id: 'S', quantity: '7' })
    service.clock.set(at(16))
    await send(SHARED, 'a', 12, 0, at(15, 12))
    await send(SHARED, 'other', 33, 0, at(15, 12))
    await service.system.settle()
    expect(await quotas(SHARED)).toEqual({
      [`${SHARED}/1`]: ['12', '10', '0', 'within', 'counted', '5', '5', '2', '0', 'block'],
      [`${SHARED}/2`]: ['33', '10', '23', 'over', 'counted'],
    })
    expect(await check(SHARED, '5', 'b')).toMatchObject({
      ...{ allowed: true, remaining: '5' },
      quotas: [{ item: `${SHARED}/1`, usage: '12' }],
    })
    expect(await check(SHARED, '6', 'b')).toMatchObject({ allowed: false, why: 'blocked' })
    expect(await check(SHARED, '6', 'other')).toMatchObject({
      ...{ allowed: true, why: 'over_soft_limit' },
      quotas: [{ item: `${SHARED}/2`, usage: '33' }],
    })
    expect((await check(SHARED, '6')).quotas).toMatchObject([{ item: `${SHARED}/2` }])
    // What is not flushed counts for every item until it is known whose it is.
    await send(SHARED, 'b', 5, 0, at(15, 20))
    expect(await check(SHARED, '1', 'b')).toMatchObject({ allowed: false, remaining: '0' })
    await service.system.settle()
    expect((await quotas(SHARED))[`${SHARED}/1`]).toEqual([
      ...['17', '10', '0', 'at_limit', 'counted'],
      ...['0', '0', '7', '0', 'block'],
    ])
  })

  test('the objects of a fleet have theirs, who has the rest has the rest', async () => {
    const { objects } = service.system
    const place = { contract: FLEET, item: `${FLEET}/1` }
    await objects.create(['o1', 'o2'].map((id) => ({ id, ...place })))
    await objects.activate({ at: at(16), objects: ['o1', 'o2'] })
    service.clock.set(at(17))
    await send(FLEET, 'o1', 14, 0, at(16, 6))
    await send(FLEET, 'x', 6, 0, at(16, 6))
    await service.system.settle()
    expect(await quotas(FLEET)).toEqual({
      [`${FLEET}/1`]: ['14', null, null, 'unlimited', 'counted'],
      [`${FLEET}/2`]: ['6', '10', '0', 'within', 'counted'],
    })
    expect((await check(FLEET, '1', 'o1')).quotas).toMatchObject([{ item: `${FLEET}/1`, usage: '14' }])
    expect((await check(FLEET, '1', 'x')).quotas).toMatchObject([{ item: `${FLEET}/2`, usage: '6' }])
  })

  test('the quota of one object rings for no fleet, and packs are not sold behind it', async () => {
    // 20 of both together, and 10 is the quota of each object as of the rest.
    const alerts = (await service.system.alerts.list({ tenant: FLEET, after: 0, limit: 100 })).map(
      (alert) => alert.item,
    )
    expect(alerts).toEqual([])
    await expect(buy(FLEET, { quantity: '5' })).rejects.toThrow(/is a fleet, whose quotas are those of its objects/)
    const item = {
      ...service.system.catalog.book().contractOf(FLEET).items[0]!,
      prepaid: [{ metric: 'mcp_call', exhaustion: 'block' }],
    }
    const { entitlements: _, ...plain } = item
    await expect(
      service.system.catalog.putContract({ ...service.system.catalog.book().contractOf(FLEET), items: [plain] }),
    ).rejects.toThrow(/is a fleet, whose quotas are those of its objects one by one/)
  })

  test('a plan changed in the month: each part has its days and its part of the quota', async () => {
    await send(CHANGED, 's', 3, 0, at(10, 20))
    await send(CHANGED, 's', 9, 100, at(16, 20))
    await service.system.settle()
    // 10 of 31 days and 21 of 31.
    expect(await quotas(CHANGED)).toEqual({
      [`${CHANGED}/1`]: ['3', '3', '0', 'at_limit', 'counted'],
      [`${CHANGED}/2`]: ['9', '7', '2', 'over', 'counted'],
    })
    expect((await check(CHANGED, '1')).quotas).toMatchObject([{ item: `${CHANGED}/2`, usage: '9' }])
  })
})

test('what was told is what is billed; a month that is not closed yet is taken off the packs of the next', async () => {
  service.clock.set(at(2, 0, 3))
  await send(SHARED, 'a', 4, 500, at(1, 6, 3))
  await service.system.settle()
  await buy(SHARED, { id: 'S2', quantity: '3' })
  // March has used S up; April has 6 of its quota left, and the new pack.
  expect((await quotas(SHARED))[`${SHARED}/1`]).toEqual([
    ...['4', '10', '0', 'within', 'counted'],
    ...['9', '3', '0', '0', 'block'],
  ])
  const close = async (tenant: string) =>
    (await service.system.billing.closePeriod({ contract: tenant, at: MARCH.from })).invoice?.invoice
  const packs = await close(PACKS)
  expect(packs!.lines.map((line) => line.amount)).toEqual(['0.70'])
  const shared = await close(SHARED)
  expect(shared!.lines.map((line) => [line.item, line.amount])).toEqual([[`${SHARED}/2`, '2.30']])
  expect(shared!.usage.map((one) => [one.item, one.quantity, one.prepaid?.covered])).toEqual([
    [`${SHARED}/1`, '17', '7'],
    [`${SHARED}/2`, '33', undefined],
  ])
  for (const invoice of [packs, shared])
    expect(await service.system.billing.verifyInvoice(invoice!.id)).toMatchObject({ equal: true, document: [] })
  expect((await quotas(SHARED))[`${SHARED}/1`]).toEqual([
    ...['4', '10', '0', 'within', 'counted'],
    ...['9', '3', '0', '0', 'block'],
  ])
}, 60_000)

describe('alerts of items that share a metric', () => {
  test(`thresholds and steps ring by what an item has, once, and resolve by it; late usage rings in its own period ${promises('alert:once-per-crossing')}`, async () => {
    const rule = { tenant: RUNG, metric: 'mcp_call', kind: 'recurring', every: '15' }
    await ask('POST', '/v1/alert-rules', rule)
    await service.system.catalogSettled()
    const rings = async (): Promise<string[][]> => {
      await service.system.settle()
      // Looked at as often as one likes: nothing is told twice.
      for (let look = 0; look < 3; look += 1) await service.system.alerting.tick()
      const all = await service.system.alerts.list({ tenant: RUNG, after: 0, limit: 100 })
      return all.map((one) => [
        one.type.replace('alert.', ''),
        one.item.replace(`${RUNG}/`, ''),
        one.threshold.replace(/^rule_\w+\.1:/, 'step '),
        one.balance,
      ])
    }
    service.clock.set(at(16, 0, 4))
    await send(RUNG, 'other', 33, 0, at(15, 12, 4))
    const rest = [
      ['triggered', '2', '80%', '33'],
      ['triggered', '2', '100%', '33'],
      ['triggered', '2', 'step 15', '33'],
      ['triggered', '2', 'step 30', '33'],
    ]
    expect(await rings()).toEqual(rest)
    await send(RUNG, 'a', 7, 0, at(15, 12, 4))
    expect(await rings()).toEqual(rest)
    await send(RUNG, 'a', 1, 7, at(15, 12, 4))
    const told = [...rest, ['triggered', '1', '80%', '8']]
    expect(await rings()).toEqual(told)
    await send(RUNG, 'a', 1, 7, at(15, 12, 4), 'void')
    told.push(['resolved', '1', '80%', '7'])
    expect(await rings()).toEqual(told)
    service.clock.set(at(1, 0, 5) + 1_800_000)
    await send(RUNG, 'a', 4, 100, at(15, 12, 4))
    told.push(['triggered', '1', '100%', '11'])
    expect(await rings()).toEqual(told)
  })
})
