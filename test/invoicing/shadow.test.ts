/** Other prices and plans over the usage that was really there: on real engines, against figures made by hand. */
import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seedContracts, seedCustomers } from '../../src/catalog/seeds.js'
import { buildHttp } from '../../src/http/http.js'
import type { ShadowAnswer } from '../../src/shadow-rating.js'
import { MARCH, openTestService, type TestService } from './service.js'

let service: TestService
let app: FastifyInstance
const tenants = seedCustomers.slice(2, 8).map((customer) => customer.tenant)
/** Verifications of each in March. */
const verifications = [40, 50, 62, 120, 205, 0]
const contracts = tenants.map((tenant) => `${tenant}-shadow`)

async function shadow(body: object): Promise<ShadowAnswer & { status: number; detail: string }> {
  const answer = await app.inject({
    method: 'POST',
    url: '/v1/rating/shadow',
    headers: { authorization: `Bearer ${service.adminKey}` },
    payload: { from: '2026-03-01T00:00:00Z', to: '2026-04-01T00:00:00Z', ...body },
  })
  return { status: answer.statusCode, ...answer.json() }
}
/** Graduated, by hand: a price to 100 and one above. */
const kyc = (n: number, low: number, high: number): number =>
  Math.max(0, Math.min(n, 100) - 50) * low + Math.max(0, n - 100) * high

beforeAll(async () => {
  service = await openTestService()
  app = await buildHttp(service.system)
  for (const [i, tenant] of tenants.entries()) {
    await service.system.catalog.putContract({
      ...seedContracts[1]!,
      id: contracts[i],
      tenant,
      items: [
        {
          id: `${contracts[i]}/1`,
          plan: 'oid-business',
          calculators: [{ name: 'papier', reads: 'values', metric: 'kyc_verification' }],
        },
      ],
    })
  }
  const rule = {
    rule_id: 'overage_oid_kyc',
    type: 'tiered',
    metric: 'kyc_verification',
    currency: 'EUR',
    tiers: [
      { from: 51, to: 100, unit_price: 3 },
      { from: 101, to: null, unit_price: 1 },
    ],
  }
  await service.system.catalog.putPrice({ rule, version: '2.9', status: 'draft', effectiveFrom: 0 })
  await service.system.catalogSettled()
  for (const [i, tenant] of tenants.entries())
    if (verifications[i]! > 0) await service.send({ tenant, metric: 'kyc_verification', count: verifications[i]! })
  await service.system.settle()
  const contract = contracts[5]!
  await service.system.prepaid.buy({ contract, item: `${contract}/1`, metric: 'kyc_verification', quantity: '15' })
  service.endMarch()
}, 120_000)
afterAll(async () => {
  await app?.close()
  await service?.close()
})

test('a draft version of a price => per customer what it would have been, and nothing is kept', async () => {
  const rows = async (): Promise<unknown> =>
    (
      await service.system.engines.postgres.query(
        `SELECT (SELECT count(*) FROM invoices) AS i, (SELECT count(*) FROM closings) AS c, (SELECT count(*) FROM cuts) AS cuts,
           (SELECT max(version) FROM catalog_versions) AS v`,
      )
    ).rows
  const before = await rows()
  const found = await shadow({ prices: [{ rule: 'overage_oid_kyc', version: '2.9' }], contracts })
  expect([found.status, found.failed, found.next]).toEqual([200, [], null])
  const expected = contracts
    .map((contract, i) => {
      const [was, is] = [200 + kyc(verifications[i]!, 2.5, 2), 200 + kyc(verifications[i]!, 3, 1)]
      return [contract, was.toFixed(2), is.toFixed(2), (is - was).toFixed(2)]
    })
    .sort()
  expect(found.contracts.map((one) => [one.contract, one.before, one.after, one.difference])).toEqual(expected)
  expect(found.totals).toEqual([expect.objectContaining({ currency: 'EUR', more: 2, less: 1, same: 3 })])
  const one = found.contracts.find((other) => other.contract === contracts[2])
  expect(one?.periods[0]?.lines).toEqual([
    { item: `${contracts[2]}/1`, metric: 'kyc_verification', before: '30.00', after: '36.00' },
  ])
  expect(await rows()).toEqual(before)
})

test('what is told as the present is what the closing then bills', async () => {
  const [found] = (await shadow({ prices: [{ rule: 'overage_oid_kyc', version: '2.0' }], contracts: [contracts[3]] }))
    .contracts
  expect(found?.difference).toBe('0.00')
  const closed = await service.system.billing.closePeriod({ contract: contracts[3]!, at: MARCH.from })
  expect(closed.invoice!.invoice.ht).toBe(found?.before)
})

test('another plan => its fee, quotas and prices over the same usage; what it leaves unpriced is named', async () => {
  const found = await shadow({ plans: [{ from: 'oid-business', to: 'oid-enterprise' }], tenant: tenants[4] })
  const [one] = found.contracts
  expect([one?.before, one?.after]).toEqual([(200 + kyc(205, 2.5, 2)).toFixed(2), (500 + 5 * 1.5).toFixed(2)])
  const to = await shadow({ plans: [{ from: 'oid-business', to: 'nothing' }] })
  expect([to.status, to.detail]).toEqual([404, 'plan: there is no nothing'])
  const version = await shadow({ prices: [{ rule: 'overage_oid_kyc', version: '9.9' }] })
  expect([version.status, version.detail]).toEqual([404, 'prices: there is no overage_oid_kyc v9.9'])
})

test('packs pay on both sides, before their period is closed and after it; usage data count as they do on the invoice', async () => {
  const { billing, usageData } = service.system
  const contract = contracts[5]!
  const item = `${contract}/1`
  // 70 on paper: 20 above the quota, of which the pack pays 15. Then 5 × 2.50, or 5 × 3.
  await usageData.create([{ contract, item, start: '2026-03-20', value: '70', state: 'pending' }], null)
  const told = async () =>
    (await shadow({ prices: [{ rule: 'overage_oid_kyc', version: '2.9' }], contracts: [contract] })).contracts.map(
      (one) => [one.before, one.after],
    )
  expect(await told()).toEqual([['212.50', '215.00']])
  expect((await billing.previewInvoice(contract, MARCH.from)).ht).toBe('212.50')
  const closed = await billing.closePeriod({ contract, at: MARCH.from })
  expect(closed.invoice!.invoice.ht).toBe('212.50')
  // The pack is empty now; what it paid in March it has paid.
  expect(await told()).toEqual([['212.50', '215.00']])
  expect((await billing.previewInvoice(contract, MARCH.from)).ht).toBe('212.50')
})

test('all customers by pages => the pages together are the whole; bounded in periods and contracts', async () => {
  const change = { prices: [{ rule: 'overage_oid_kyc', version: '2.9' }] }
  const whole = await shadow({ ...change, limit: 200 })
  const paged: ShadowAnswer['contracts'][number][] = []
  let after: string | undefined
  do {
    const page = await shadow({ ...change, limit: 3, ...(after === undefined ? {} : { after }) })
    expect(page.contracts.length).toBeLessThanOrEqual(3)
    paged.push(...page.contracts)
    after = page.next ?? undefined
  } while (after !== undefined)
  expect(paged).toEqual(whole.contracts)
  expect(whole.contracts.length).toBe(service.system.catalog.book().contracts.size)
  expect((await shadow({ ...change, limit: 201 })).status).toBe(400)
  expect((await shadow({})).detail).toMatch(/at least one change/)
  // The contracts begin in 2026: a year has the three months until now, each for itself.
  const year = await shadow({
    ...change,
    contracts: [contracts[2]],
    from: '2025-06-01T00:00:00Z',
    to: '2026-12-01T00:00:00Z',
  })
  expect(year.contracts[0]?.periods.map((one) => one.before)).toEqual(['200.00', '200.00', '230.00', '200.00'])
})
