/**
 * Packs that are over and that no closing comes for: the sweep forfeits what they hold, once, however many look at the same time, and
 * leaves to a closing what is its own. Of every pack, at every step: grant − debits − forfeits is what it has.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { forfeitEnded } from '../../src/prepaid/forfeit-sweep.js'
import { MARCH, openTestService, type TestService } from '../invoicing/service.js'

const at = (day: number, hour = 0, month = 2): number => Date.UTC(2026, month, day, hour)
/** Its contract ends on the 20th, its packs later. */
const ENDED = 'nsia-assurances'
/** Its contract goes on. */
const RUNS = 'bicici'
/** Its item ends on the 20th, its contract goes on. */
const MOVED = 'bridge-bank'
let service: TestService

const buy = (tenant: string, pack: object) =>
  service.system.prepaid.buy({ contract: tenant, item: `${tenant}/1`, metric: 'mcp_call', quantity: '1', ...pack })
const calls = async (tenant: string, count: number, first: number, from: number): Promise<void> => {
  await service.send({ tenant, metric: 'mcp_call', count, first, from })
  await service.system.settle()
}
const sweep = (page?: number) => {
  const { catalog, engines } = service.system
  return forfeitEnded({ postgres: engines.postgres, catalog, clock: service.clock }, page)
}
/** Quantity, debited, forfeited and balance of the packs; the books of each hold. */
async function packsOf(tenant: string): Promise<string[][]> {
  const packs = await service.system.prepaid.list({ tenant })
  for (const { id, balance } of packs) {
    const entries = await service.system.prepaid.ledger(id, tenant)
    const sum = entries.filter(({ stands }) => stands).reduce((all, { quantity }) => all + Number(quantity), 0)
    expect(String(sum), id).toBe(balance)
  }
  return packs
    .map(({ id, quantity, debited, forfeited, balance }) => [id, quantity, debited, forfeited, balance])
    .sort(([a], [b]) => (a! < b! ? -1 : 1))
}
beforeAll(async () => {
  service = await openTestService()
  const { catalog } = service.system
  const rule = { rule_id: 'call', type: 'per_unit', metric: 'mcp_call', unit_price: '0.10', currency: 'EUR' }
  await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
  const metrics = [{ metric: 'mcp_call', included: '10', rule: 'call' }]
  await catalog.putPlan({ key: 'packs', product: 'OID', name: 'Packs', metrics })
  await catalog.putPlan({ key: 'more', product: 'OID', name: 'More', metrics })
  for (const tenant of [ENDED, RUNS, MOVED]) {
    await catalog.putContract({
      ...{ id: tenant, tenant, legalEntity: 'orbus-digital', start: '2026-01-01', timeZone: 'Africa/Abidjan' },
      ...(tenant === ENDED ? { end: '2026-03-20' } : {}),
      late: { usage: 'complementary_invoice', corrections: 'credit_note' },
      items: [
        { id: `${tenant}/1`, plan: 'packs', ...(tenant === MOVED ? { until: '2026-03-20' } : {}) },
        ...(tenant === MOVED ? [{ id: `${tenant}/2`, plan: 'more', from: '2026-03-21' }] : []),
      ],
    })
    // 10 March, 9:00.
    await buy(tenant, { id: `${tenant} A`, quantity: '40', expires: '2026-03-15', priority: 1 })
    await buy(tenant, { id: `${tenant} B`, quantity: '30', expires: '2026-04-05', priority: 2 })
    await buy(tenant, { id: `${tenant} C`, quantity: '7', priority: 3 })
  }
  await service.system.catalogSettled()
  service.clock.set(at(16))
  for (const tenant of [ENDED, RUNS, MOVED]) await calls(tenant, 40, 0, at(12))
}, 180_000)
afterAll(async () => service?.close())

test('over, and its period is not closed => left to the closing, which forfeits it with its own name', async () => {
  expect(await sweep()).toEqual({ packs: 0, waiting: 3 })
  service.endMarch()
  for (const tenant of [ENDED, RUNS, MOVED]) {
    const { invoice } = await service.system.billing.closePeriod({ contract: tenant, at: MARCH.from })
    expect(invoice?.state).not.toBe('draft')
    // 40 used, 10 included: A pays 30 and loses 10.
    expect(await packsOf(tenant)).toEqual([
      [`${tenant} A`, '40', '30', '10', '0'],
      [`${tenant} B`, '30', '0', '0', '30'],
      [`${tenant} C`, '7', '0', '0', '7'],
    ])
  }
  expect(await sweep()).toEqual({ packs: 0, waiting: 0 })
})

test('no closing comes any more => forfeited at its end, once, by however many sweeps; a pack without an end stays', async () => {
  service.clock.set(at(6, 12, 3))
  // B of the contract that goes on ended in April, which is not closed.
  const swept = await Promise.all([sweep(), sweep(1), sweep(2)])
  expect(swept.reduce((all, { packs }) => all + packs, 0)).toBeGreaterThanOrEqual(1)
  for (const { waiting } of swept) expect(waiting).toBeGreaterThanOrEqual(2)
  expect(await packsOf(ENDED)).toEqual([
    [`${ENDED} A`, '40', '30', '10', '0'],
    [`${ENDED} B`, '30', '0', '30', '0'],
    [`${ENDED} C`, '7', '0', '0', '7'],
  ])
  expect((await packsOf(RUNS))[1]).toEqual([`${RUNS} B`, '30', '0', '0', '30'])
  const entries = await service.system.prepaid.ledger(`${ENDED} B`, ENDED)
  expect(entries.filter(({ kind }) => kind === 'forfeit')).toMatchObject([
    { quantity: '-30', at: Date.UTC(2026, 3, 5), closing: null, stands: true },
  ])
  expect(await sweep()).toEqual({ packs: 0, waiting: 2 })
})

test('usage of a settled period that comes later takes back what the sweep forfeited, and the rest is billed', async () => {
  await calls(ENDED, 60, 200, at(19))
  const { made } = await service.system.billing.settleLate({ contract: ENDED, at: MARCH.from })
  // 100 used, 10 included: A has paid 30; B pays the 30 that were forfeited, C its 7, and 23 are nobody's.
  expect(made?.invoice.ht).toBe('2.30')
  expect(await packsOf(ENDED)).toEqual([
    [`${ENDED} A`, '40', '30', '10', '0'],
    [`${ENDED} B`, '30', '30', '0', '0'],
    [`${ENDED} C`, '7', '7', '0', '0'],
  ])
  const found = await service.system.billing.verifyInvoice(made!.invoice.id)
  expect([found.document, found.lines.flatMap((line) => line.differences), found.equal]).toEqual([[], [], true])
  expect(await sweep()).toEqual({ packs: 0, waiting: 2 })
})

test('what is given back to a pack that is over => forfeited too, as of that moment', async () => {
  const events = Array.from({ length: 20 }, (_, i) => ({
    ...{ id: `mcp_call-${200 + i}`, metric: 'mcp_call', subject: `agent-${i % 7}`, time: at(19) + i * 60_000 },
    ...{ value: '1', kind: 'void' },
  }))
  const body = Buffer.from(JSON.stringify(events))
  expect((await service.system.ingest({ body, format: 'json', tenant: ENDED, wait: true })).applied).toMatchObject({
    accepted: 20,
  })
  await service.system.settle()
  await service.system.billing.settleLate({ contract: ENDED, at: MARCH.from })
  const before = await packsOf(ENDED)
  await sweep()
  for (const [id, quantity, debited, forfeited, balance] of await packsOf(ENDED)) {
    const was = before.find((pack) => pack[0] === id)!
    expect([quantity, debited], id).toEqual([was[1], was[2]])
    if (id!.endsWith('C')) expect(balance, id).toBe(was[4])
    else expect([Number(forfeited), balance], id).toEqual([Number(was[3]) + Number(was[4]), '0'])
  }
})

test('an item that ended before its pack => forfeited when the closing of that time is done', async () => {
  service.clock.set(Date.UTC(2026, 4, 3))
  for (const tenant of [RUNS, MOVED])
    await service.system.billing.closePeriod({ contract: tenant, at: Date.UTC(2026, 3, 1) })
  expect((await packsOf(RUNS))[1]).toEqual([`${RUNS} B`, '30', '0', '30', '0'])
  await sweep()
  expect((await packsOf(MOVED))[1]).toEqual([`${MOVED} B`, '30', '0', '30', '0'])
  expect((await packsOf(MOVED))[2]).toEqual([`${MOVED} C`, '7', '0', '0', '7'])
  expect(await sweep()).toEqual({ packs: 0, waiting: 0 })
})
