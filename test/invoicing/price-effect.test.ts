/**
 * A version of a price that takes effect within the period: usage before it at the old price, usage from it on at the new one,
 * continuing the tiers; and one that waits for the next period. On real engines, verified from the archive.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { measuredFor } from '../../src/invoicing/close.js'
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

const AGGREGATIONS = [
  'sum',
  'count',
  'weighted_sum',
  'unique',
  'max',
  'min',
  'latest',
  'average',
  'percentile',
] as const

test('each aggregation: what can be cut takes such a version, what cannot is refused with the reason, whichever is put first', async () => {
  const { catalog } = service.system
  const cut = ['sum', 'count', 'weighted_sum']
  for (const aggregation of AGGREGATIONS) {
    const metric = {
      key: `effect_${aggregation}`,
      aggregation,
      unit: 'piece',
      scale: aggregation === 'count' || aggregation === 'unique' ? 0 : 3,
      uniqueBy: aggregation === 'unique' ? 'who' : null,
      ...(aggregation === 'percentile' ? { percentile: '90' } : {}),
    }
    const rule = { rule_id: metric.key, type: 'per_unit', metric: metric.key, unit_price: '1', currency: 'EUR' }
    const version = { rule, version: '1.0', effectiveFrom: at(16), takesEffect: 'event_time' } as const
    const late = { ...metric, key: `late_${aggregation}` }
    const early = { ...version, rule: { ...rule, rule_id: late.key, metric: late.key } }
    await catalog.putMetric(metric)
    await catalog.putPrice(early)
    if (cut.includes(aggregation)) {
      await catalog.putPrice(version)
      expect((await catalog.activatePrice(metric.key, '1.0')).value.status, aggregation).toBe('active')
      await catalog.putMetric(late)
    } else {
      const reason = `is a ${aggregation}, and that of a period is not the sum of those of its parts`
      await expect(catalog.putPrice(version), aggregation).rejects.toThrow(reason)
      await expect(catalog.putMetric(late), aggregation).rejects.toThrow(reason)
      // With the next period it may.
      await catalog.putPrice({ ...version, takesEffect: 'next_period' })
      await expect(catalog.putPrice({ ...version, version: '1.1' }), aggregation).rejects.toThrow(reason)
    }
  }
})

test('behind a percentage, whose events are those of a whole period, a version waits for the next one', async () => {
  const { catalog } = service.system
  const base = { rule_id: 'share', metric: 'mcp_call', currency: 'EUR' }
  const share = { ...base, type: 'percentage', rate: '2', fixed_per_event: '0.10' }
  await catalog.putPrice({ rule: share, version: '1.0', status: 'active', effectiveFrom: 0 })
  const unit = { rule: { ...base, type: 'per_unit', unit_price: '1' }, version: '1.1', effectiveFrom: at(16) }
  await expect(catalog.putPrice({ ...unit, takesEffect: 'event_time' })).rejects.toThrow('v1.0 is a percentage price')
})

test('GB-hours, a rule that begins within the period, and usage data: each part at its own price, by hand', async () => {
  const { catalog, billing } = service.system
  service.clock.set(Date.UTC(2026, 3, 20))
  const april = (day: number, hour = 0): number => Date.UTC(2026, 3, day, hour)
  await catalog.putMetric({ key: 'go_heures', aggregation: 'weighted_sum', unit: 'Go', scale: 3 })
  const put = (id: string, metric: string, unitPrice: string, version: string, from: number, more = {}) =>
    catalog.putPrice({
      rule: { rule_id: id, type: 'per_unit', metric, unit_price: unitPrice, currency: 'EUR' },
      ...{ version, status: 'active', effectiveFrom: from, ...more },
    })
  const cut = { takesEffect: 'event_time' }
  await put('niveau', 'go_heures', '0.01', '1.0', 0)
  await put('niveau', 'go_heures', '0.03', '1.1', april(16), cut)
  await put('neuf', 'mcp_call', '2.00', '1.0', april(16), cut)
  await put('mesure-cut', 'mcp_call', '2.00', '1.0', 0)
  await put('mesure-cut', 'mcp_call', '3.00', '1.1', april(16), cut)
  for (const [plan, metric, included] of [
    ['niveau', 'go_heures', '0'],
    ['neuf', 'mcp_call', '3'],
    ['mesure-cut', 'mcp_call', '0'],
  ]) {
    const metrics = [{ metric, included, rule: plan }]
    await catalog.putPlan({ key: plan, product: 'OID', name: plan, metrics })
    await catalog.putCustomer({ ...catalog.book().customers.get('bicici')!, tenant: `t-${plan}`, name: plan })
    await catalog.putContract({
      id: plan,
      tenant: `t-${plan}`,
      legalEntity: 'orbus-digital',
      start: '2026-04-01',
      timeZone: 'Africa/Abidjan',
      items: [
        {
          id: plan,
          plan,
          ...(plan === 'mesure-cut'
            ? { calculators: [{ name: 'm', reads: 'values', metric, formula: 'sum + 1' }] }
            : {}),
        },
      ],
    })
  }
  await service.system.catalogSettled()
  const level = { tenant: 't-niveau', metric: 'go_heures', count: 1 }
  // 2 from 1 April on, 5 from the 11th on (+3): to the 16th 240 × 2 + 120 × 5 = 1080; to the end 360 × 5 = 1800.
  await service.send({ ...level, from: april(1), value: '2' })
  await service.send({ ...level, from: april(11), first: 1, value: '3' })
  // 2 before the rule begins, 4 after: of 3 included 2 are used, so that 3 of the 4 cost something.
  await service.send({ tenant: 't-neuf', metric: 'mcp_call', count: 2, from: april(10) })
  await service.send({ tenant: 't-neuf', metric: 'mcp_call', count: 4, first: 10, from: april(18) })
  // Data of 7 before the instant and 4 after it, plus one: 8 at 2.00, and 4 at 3.00.
  for (const [start, value] of [
    [april(14), '7'],
    [april(17), '4'],
  ] as const)
    await service.system.usageData.create([{ contract: 'mesure-cut', start, value, state: 'pending' }], null)
  service.clock.set(Date.UTC(2026, 4, 5))
  await service.system.settle()
  for (const [contract, expected] of [
    [
      'niveau',
      [
        ['1080', '10.80', '1.0'],
        ['1800', '54.00', '1.1'],
      ],
    ],
    ['neuf', [['4', '6.00', '1.0']]],
    [
      'mesure-cut',
      [
        ['8', '16.00', '1.0'],
        ['4', '12.00', '1.1'],
      ],
    ],
  ] as const) {
    const { invoice } = (await billing.closePeriod({ contract, at: april(1) })).invoice!
    expect(
      invoice.lines.map((line) => [line.quantity, line.amount, line.price?.version]),
      contract,
    ).toEqual(expected)
    const found = await billing.verifyInvoice(invoice.id)
    expect([found.equal, found.document, found.lines.flatMap((line) => line.differences)], contract).toEqual([
      true,
      [],
      [],
    ])
  }
})
