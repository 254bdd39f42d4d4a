/** Coupons on a real PostgreSQL: what a redemption gives, for how long, to how many, and once a contract whoever races. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import { Coupons } from '../../src/catalog/coupons.js'
import { loadSeeds, seedContracts } from '../../src/catalog/seeds.js'
import { HandClock } from '../../src/clock.js'
import { openTestPostgres, type TestPostgres } from '../invoicing/postgres.js'
import { previewInvoice } from '../invoicing/preview.js'

const clock = new HandClock('2026-03-10T09:00:00Z')
let postgres: TestPostgres
let catalog: Catalog
let coupons: Coupons

beforeAll(async () => {
  postgres = await openTestPostgres()
  catalog = await openCatalog({ postgres: postgres.pool, clock })
  await loadSeeds(catalog)
  coupons = new Coupons({ postgres: postgres.pool, catalog, clock })
}, 120_000)
afterAll(async () => postgres?.close())

const put = (id: string) =>
  catalog.putContract({ ...seedContracts[1]!, id, items: [{ id, plan: 'oid-starter', kind: 'fixed' }] })
const amounts = (id: string, month: number): string[] => {
  const period = { from: Date.UTC(2026, month, 1), to: Date.UTC(2026, month + 1, 1) }
  return previewInvoice(catalog, id, period, []).lines.map((line) => line.amount)
}

test('20 % for two periods: the running one and the next', async () => {
  await put('two')
  await coupons.create({ code: 'MARS20', name: 'Mars', kind: 'percent', value: '20', periods: 2 })
  await coupons.redeem('MARS20', 'two')
  const version = catalog.snapshot().version
  await coupons.redeem('MARS20', 'two')
  expect(catalog.snapshot().version).toBe(version)
  expect([1, 2, 3, 4].map((month) => amounts('two', month))).toEqual([
    ['50.00'],
    ['50.00', '-10.00'],
    ['50.00', '-10.00'],
    ['50.00'],
  ])
})

test('two may redeem it: of five at once two have it, and the others are told why', async () => {
  await coupons.create({ code: 'DEUX', name: 'Deux', kind: 'amount', value: '5', currency: 'EUR', redemptionsMax: 2 })
  const ids = ['r1', 'r2', 'r3', 'r4', 'r5']
  for (const id of ids) await put(id)
  const done = await Promise.allSettled(ids.map((id) => coupons.redeem('DEUX', id)))
  expect(done.filter((one) => one.status === 'fulfilled')).toHaveLength(2)
  for (const one of done) if (one.status === 'rejected') expect(String(one.reason)).toMatch(/may not be any more/)
  expect(ids.filter((id) => amounts(id, 2).includes('-5.00'))).toHaveLength(2)
  expect((await coupons.list()).find((one) => one.code === 'DEUX')).toMatchObject({ redemptions: 2 })
})

test('what may not be redeemed, or made, is refused with the reason', async () => {
  await put('late')
  const base = { name: 'n', kind: 'amount' as const, value: '5', currency: 'EUR' }
  await coupons.create({ ...base, code: 'PASSE', validUntil: '2026-03-09' })
  await coupons.create({ ...base, code: 'FRANCS', value: '500', currency: 'XOF' })
  await expect(coupons.redeem('PASSE', 'late')).rejects.toThrow(/was valid until 2026-03-09/)
  await expect(coupons.redeem('FRANCS', 'late')).rejects.toThrow(/is in XOF, the customer is billed in EUR/)
  await expect(coupons.redeem('NUL', 'late')).rejects.toThrow(/there is no NUL/)
  await expect(coupons.create({ ...base, code: 'PASSE' })).rejects.toThrow(/PASSE is another coupon/)
  expect(await coupons.create({ ...base, code: 'PASSE', value: '5.0', validUntil: '2026-03-09' })).toEqual({
    created: false,
  })
  await expect(coupons.create({ code: 'C', name: 'n', kind: 'percent', value: '101' })).rejects.toThrow(/at most 100/)
  await expect(coupons.create({ ...base, code: 'D', currency: 'XOF', value: '0.5' })).rejects.toThrow(
    /more decimals than XOF/,
  )
})
