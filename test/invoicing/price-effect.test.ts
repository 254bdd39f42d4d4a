/**
 * A version of a price that takes effect within the period: usage before it at the old price, usage from it on at the new one,
 * continuing the tiers; and one that waits for the next period. On real engines, verified from the archive.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { measuredFor } from '../../src/invoicing/close.js'
import { FleetRating } from '../../src/invoicing/fleet.js'
import { promises } from '../promises.js'
import { MARCH, openTestService, type TestService } from './service.js'

const plain = (text: string): string => text.replaceAll('\u00a0', ' ')
const at = (day: number): number => Date.UTC(2026, 2, day)
let service: TestService

beforeAll(async () => {
  service = await openTestService()
  const { catalog } = service.system
  for (const rule of ['by-event', 'by-period']) {
    const price = (unit: string) => ({
      rule_id: rule,
      type: 'per_unit',
      metric: 'mcp_call',
      unit_price: unit,
      currency: 'EUR',
    })
    await catalog.putPrice({ rule: price('2.50'), version: '2.0', status: 'active', effectiveFrom: 0 })
    const takesEffect = rule === 'by-event' ? 'event_time' : 'next_period'
    await catalog.putPrice({
      rule: price('3.00'),
      version: '2.1',
      status: 'active',
      effectiveFrom: at(16),
      takesEffect,
    })
    const metrics = [{ metric: 'mcp_call', included: '0', rule }]
    await catalog.putPlan({ key: rule, product: 'OID', name: 'Appels', metrics })
  }
  for (const [tenant, plan, id = plan] of [
    ['bicici', 'by-event'],
    ['orange-ci', 'by-period'],
    ['bridge-bank', 'by-event', 'in-batch'],
  ])
    await catalog.putContract({
      id: id!,
      tenant: tenant!,
      legalEntity: 'orbus-digital',
      start: '2026-01-01',
      timeZone: 'Africa/Abidjan',
      items: [{ id: id!, plan: plan! }],
    })
  await service.system.catalogSettled()
  service.clock.set(at(21))
  for (const tenant of ['bicici', 'orange-ci', 'bridge-bank']) {
    await service.send({ tenant, metric: 'mcp_call', count: 12, from: at(10) })
    await service.send({ tenant, metric: 'mcp_call', count: 10, first: 100, from: at(20) })
  }
  await service.system.settle()
}, 120_000)
afterAll(async () => service?.close())

const shown = (lines: readonly { amount: string; price: { version: string } | null }[]) =>
  lines.map((line) => [line.amount, line.price?.version])

test('the preview tells it, the closing bills it, a line for each version, and the archive proves it', async () => {
  const expected = [
    ['30.00', '2.0'],
    ['30.00', '2.1'],
  ]
  expect(shown((await service.system.billing.previewInvoice('by-event')).lines)).toEqual(expected)
  service.endMarch()
  const { invoice } = (await service.system.billing.closePeriod({ contract: 'by-event', at: MARCH.from })).invoice!
  // 12 × 2.50, then 10 × 3.00: 60.00 by event time.
  expect([shown(invoice.lines), invoice.ht]).toEqual([expected, '60.00'])
  expect(plain(invoice.lines[1]!.explanation.fr)).toBe(
    '10 appels MCP de plus, 22 en tout, au prix v2.1 : 66,00 € − 36,00 € = 30,00 €',
  )
  const found = await service.system.billing.verifyInvoice(invoice.id)
  expect(found.lines.flatMap((line) => line.differences)).toEqual([])
  expect(found.equal).toBe(true)
})

test('a batch bills it in its chunk as one alone does', async () => {
  const { billing, invoicing, engines } = service.system
  const report = await billing.closeDuePeriods({ at: MARCH.from, tenant: 'bridge-bank' })
  expect([report.issued, report.failed]).toEqual([1, 0])
  const { invoice } = (await invoicing.list({ contract: 'in-batch' }))[0]!
  expect(shown(invoice.lines)).toEqual([
    ['30.00', '2.0'],
    ['30.00', '2.1'],
  ])
  const measured = (await measuredFor(engines.postgres, invoice))!
  // A chunk keeps no question twice.
  expect([measured.usage[0]!.query, measured.usage[0]!.parts]).toEqual([
    '',
    [{ period: { from: MARCH.from, to: at(16) }, quantity: '12' }],
  ])
  expect(await billing.verifyInvoice(invoice.id)).toMatchObject({ equal: true, document: [] })
})

test('by default a version waits for the next period', async () => {
  const { invoice } = (await service.system.billing.closePeriod({ contract: 'by-period', at: MARCH.from })).invoice!
  expect([shown(invoice.lines), invoice.ht]).toEqual([[['55.00', '2.0']], '55.00'])
  expect(
    service.system.catalog.terms('by-period', { from: MARCH.to, to: MARCH.to + 1 }).items[0]!.metrics[0]!.price,
  ).toMatchObject({
    version: '2.1',
  })
})

test(`an event moved across the instant in the archive => the invoice is not proved any more ${promises('invoice:explains-itself')}`, async () => {
  const { id } = (await service.system.invoicing.list({ contract: 'by-event' }))[0]!.invoice
  await service.system.engines.clickhouse.command({
    query: `ALTER TABLE usage_events UPDATE value = 3 WHERE id = 'mcp_call-3' AND tenant = 'bicici'`,
    clickhouse_settings: { mutations_sync: '2' },
  })
  expect((await service.system.billing.verifyInvoice(id)).equal).toBe(false)
})

test('objects of a fleet are charged by whole periods: such a version is refused, never billed at the old price in silence', () => {
  const terms = service.system.catalog.terms('by-event', MARCH)
  const [item] = terms.items
  expect(() => new FleetRating(terms, item!, MARCH)).toThrow(/the price of mcp_call changes within the period/)
  const [metric] = item!.metrics
  const { later: _, ...plain } = metric!
  expect(() => new FleetRating(terms, { ...item!, metrics: [plain] }, MARCH)).not.toThrow()
})

test('what cannot take effect by event time is refused, and the effect of an active version stays', async () => {
  const { catalog } = service.system
  const rule = { rule_id: 'by-event', type: 'per_unit', metric: 'mcp_call', unit_price: '3.00', currency: 'EUR' }
  const put = (input: object) => catalog.putPrice({ rule, version: '2.1', status: 'active', ...input })
  await expect(put({ effectiveFrom: at(16), takesEffect: 'next_period' })).rejects.toThrow(/cannot be changed/)
  await expect(put({ version: '2.2', effectiveFrom: at(17) + 1, takesEffect: 'event_time' })).rejects.toThrow(
    /whole minute/,
  )
  const fee = { rule_id: 'fee', type: 'flat_fee', amount: '1', currency: 'EUR' }
  await expect(put({ rule: fee, version: '1.0', takesEffect: 'event_time' })).rejects.toThrow(/flat price takes effect/)
  const { postgres } = service.system.engines
  await expect(
    postgres.query(
      `UPDATE catalog_prices SET takes_effect = 'next_period' WHERE rule = 'by-event' AND version = '2.1'`,
    ),
  ).rejects.toThrow(/cannot be changed/)
})
