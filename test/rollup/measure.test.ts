/**
 * Quantities that are not a sum: a level over time, a percentile, and the amounts of events one by one; on real engines, before and
 * after a fold, billed, and verified again from the archive. The expected figures are counted here in bigints.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { measuredFor } from '../../src/invoicing/close.js'
import type { KeptInvoice } from '../../src/invoicing/invoicing.js'
import { MARCH, openTestService, type TestService } from '../invoicing/service.js'
import { promises } from '../promises.js'

const TENANT = 'bicici'
const HOUR = 3_600_000
let service: TestService
let issued: KeptInvoice

interface Sent {
  readonly id: string
  readonly metric: string
  readonly time: number
  readonly value: number
  readonly kind?: 'void'
}

/** Deltas of stored Go: some before March (the opening level), some in it, one taken back. */
const level: Sent[] = [
  { id: 'l1', metric: 'stored', time: Date.UTC(2026, 1, 20, 6, 30), value: 40 },
  { id: 'l2', metric: 'stored', time: Date.UTC(2026, 1, 27, 23, 59, 59, 999), value: 2.5 },
  { id: 'l3', metric: 'stored', time: MARCH.from, value: 10 },
  { id: 'l4', metric: 'stored', time: Date.UTC(2026, 2, 5, 10, 15, 30, 123), value: -30 },
  { id: 'l5', metric: 'stored', time: Date.UTC(2026, 2, 6), value: 1000 },
  { id: 'l5', metric: 'stored', time: Date.UTC(2026, 2, 6), value: 1000, kind: 'void' },
  { id: 'l6', metric: 'stored', time: Date.UTC(2026, 2, 9, 23, 0), value: 7.125 },
]
const latencies: Sent[] = Array.from({ length: 203 }, (_, i) => ({
  id: `p${i}`,
  metric: 'latency',
  time: MARCH.from + i * 997_000,
  // Spread over 0 to 202, each once, in no order.
  value: (i * 71) % 203,
}))
const voided: Sent[] = [{ ...latencies[3]!, kind: 'void' }]
const payments: Sent[] = [500, 3, 3, 0.5, 900, 3, 12.25, 900].map((value, i) => ({
  id: `a${i}`,
  metric: 'paid',
  time: MARCH.from + i * HOUR,
  value,
}))

const thousandths = (value: number): bigint => BigInt(Math.round(value * 1000))

function levelHours(from: number, to: number): string {
  let area = 0n
  for (const { time, value, kind } of level) {
    if (time >= to) continue
    area += (kind === 'void' ? -1n : 1n) * thousandths(value) * BigInt(to - Math.max(time, from))
  }
  // Thousandths × ms, to nine decimals of units × hours, half up.
  const scaled = (area * 10n ** 6n * 2n + 3_600_000n) / (2n * 3_600_000n)
  const text = scaled.toString().padStart(10, '0')
  return `${text.slice(0, -9)}.${text.slice(-9)}`.replace(/\.?0+$/, '')
}

async function send(events: readonly Sent[]): Promise<void> {
  const body = Buffer.from(JSON.stringify(events.map((one) => ({ ...one, value: String(one.value) }))))
  const answer = await service.system.ingest({ body, format: 'json', tenant: TENANT, wait: true })
  expect(answer.refusals).toEqual([])
}

beforeAll(async () => {
  service = await openTestService()
  const { catalog } = service.system
  const metric = { scale: 3, dims: [], uniqueBy: null, archive: true }
  await catalog.putMetric({ ...metric, key: 'stored', aggregation: 'weighted_sum', unit: 'Go·h' })
  await catalog.putMetric({ ...metric, key: 'latency', aggregation: 'percentile', percentile: '95', unit: 'ms' })
  await catalog.putMetric({ ...metric, key: 'paid', aggregation: 'sum', unit: 'EUR' })
  const price = (rule: object) =>
    catalog.putPrice({ rule: { currency: 'EUR', ...rule }, version: '1.0', status: 'active', effectiveFrom: 0 })
  await price({ rule_id: 'per-level', type: 'per_unit', metric: 'stored', unit_price: '0.0001' })
  await price({ rule_id: 'per-ms', type: 'per_unit', metric: 'latency', unit_price: '0.01' })
  await price({
    rule_id: 'per-payment',
    type: 'percentage',
    metric: 'paid',
    rate: '1',
    free_events: 2,
    free_amount: '501',
    minimum_per_event: '0.10',
    maximum_per_event: '8',
  })
  await catalog.putPlan({
    key: 'measured',
    product: 'IoT',
    name: 'Measured',
    metrics: [
      { metric: 'stored', included: '0', rule: 'per-level' },
      { metric: 'latency', included: '0', rule: 'per-ms' },
      { metric: 'paid', included: '0', rule: 'per-payment' },
    ],
  })
  await catalog.putContract({
    id: 'measured',
    tenant: TENANT,
    legalEntity: 'orbus-digital',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    items: [{ id: 'measured/1', plan: 'measured' }],
  })
  await service.system.catalogSettled()
  for (const events of [level, latencies, voided, payments]) await send(events)
  await service.system.settle()
}, 120_000)
afterAll(async () => service?.close())

const ask = (metric: string, from: number, to: number) =>
  service.system.answers
    .usage({ tenant: TENANT, metric, from: String(from), to: String(to), window: null, timeZone: 'UTC' })
    .then(({ windows }) => windows[0]!.value)

/** Before and after the fold: hours answer like minutes. */
async function twice(check: () => Promise<void>): Promise<void> {
  await check()
  await service.system.fold()
  await check()
}

describe('asked', () => {
  test('a level over time: its opening, and each change from its own millisecond on', async () => {
    await twice(async () => {
      for (const [from, to] of [
        [MARCH.from, MARCH.to],
        [Date.UTC(2026, 2, 5, 10, 15), Date.UTC(2026, 2, 5, 10, 16)],
        [Date.UTC(2026, 1, 1), Date.UTC(2026, 2, 3, 7, 20)],
        [Date.UTC(2026, 2, 12), Date.UTC(2026, 2, 13)],
      ] as const)
        expect(await ask('stored', from, to), `${from} to ${to}`).toBe(levelHours(from, to))
    })
    expect(await ask('stored', Date.UTC(2026, 2, 12), Date.UTC(2026, 2, 13))).toBe('711')
  })

  test('a percentile is the value of its rank, without what was taken back', async () => {
    const left = latencies.filter((one) => one.id !== voided[0]!.id).map((one) => one.value)
    const ordered = left.sort((a, b) => a - b)
    const expected = String(ordered[Math.ceil((95 * ordered.length) / 100) - 1])
    await twice(async () => expect(await ask('latency', MARCH.from, MARCH.to)).toBe(expected))
    expect(await ask('latency', MARCH.to, MARCH.to + HOUR)).toBe('0')
  })

  test('neither has windows or groups, and that is said', async () => {
    const { answers } = service.system
    const base = { tenant: TENANT, from: String(MARCH.from), to: String(MARCH.to), timeZone: 'UTC' }
    await expect(answers.usage({ ...base, metric: 'stored', window: 'day' })).rejects.toThrow(/for a whole range/)
    await expect(answers.usage({ ...base, metric: 'latency', window: null, groupBy: ['subject'] })).rejects.toThrow(
      /for a whole range/,
    )
  })
})

describe('billed', () => {
  test('level, percentile and events within their bounds each make their line', async () => {
    service.endMarch()
    issued = (await service.system.billing.closePeriod({ contract: 'measured', at: MARCH.from })).invoice!
    const hours = levelHours(MARCH.from, MARCH.to)
    // 501 free: of the first two nothing is left but 2 of the second, which is free as an event too but not as an amount.
    // 500 | 3 → 2.00 × 1 % → 0.10 | 3 → 0.10 | 0.5 → 0.10 | 900 → 8 | 3 → 0.10 | 12.25 → 0.1225 | 900 → 8
    expect(issued.invoice.lines.map((line) => [line.metric, line.quantity, line.amount])).toEqual([
      ['stored', hours, (Math.round(Number(hours) / 100) / 100).toFixed(2)],
      ['latency', '192', '1.92'],
      ['paid', '2321.75', '16.52'],
    ])
    const found = await service.system.billing.verifyInvoice(issued.invoice.number!)
    expect([found.equal, found.unchecked]).toEqual([true, []])
    const measured = await measuredFor(service.system.engines.postgres, issued.invoice)
    expect(measured!.usage[0]!.opening).toBe('42.5')
  })

  test(`what comes late changes March by a regularisation and the opening of April, and April closes on it ${promises('flow:late-is-correction')}`, async () => {
    const april = { from: MARCH.to, to: Date.UTC(2026, 4, 1) }
    const before = levelHours(MARCH.from, MARCH.to)
    const more: Sent[] = [
      { id: 'l7', metric: 'stored', time: Date.UTC(2026, 2, 20, 12), value: 500 },
      { id: 'l8', metric: 'stored', time: april.from, value: 20 },
      { id: 'l9', metric: 'stored', time: Date.UTC(2026, 3, 9, 0, 0, 0, 1), value: -4.5 },
    ]
    level.push(...more)
    service.clock.set('2026-04-10T09:00:00Z')
    await send(more)
    await service.system.settle()
    service.clock.set(april.to + service.system.config.graceMs + 60_000)
    const { invoice } = (await service.system.billing.closePeriod({ contract: 'measured', at: april.from })).invoice!
    const line = (type: string) => invoice.lines.find((one) => one.metric === 'stored' && one.type === type)!
    const [usage, late] = [line('usage'), line('regularisation')]
    const after = levelHours(MARCH.from, MARCH.to)
    const cents = (hours: string): number => Math.round(Number(hours) / 100)
    expect(usage.quantity).toBe(levelHours(april.from, april.to))
    expect(usage.amount).toBe((cents(usage.quantity) / 100).toFixed(2))
    expect(late.period).toEqual(MARCH)
    // 500 Go for eleven and a half days more.
    expect(Number(after) - Number(before)).toBe(500 * 276)
    expect(late.amount).toBe(((cents(after) - cents(before)) / 100).toFixed(2))
    const measured = await measuredFor(service.system.engines.postgres, invoice)
    expect(measured!.usage.find(({ metric }) => metric === 'stored')!.opening).toBe('529.625')
    const found = await service.system.billing.verifyInvoice(invoice.number!)
    expect([found.equal, found.unchecked]).toEqual([true, []])
  })

  test(`an event before the period, deleted from the archive => the level is not proved any more ${promises('invoice:explains-itself')}`, async () => {
    await service.system.engines.clickhouse.command({
      query: `DELETE FROM usage_events WHERE id = 'l2'`,
      clickhouse_settings: { mutations_sync: '2' },
    })
    const found = await service.system.billing.verifyInvoice(issued.invoice.number!)
    expect(found.equal).toBe(false)
    const wrong = found.lines.filter((line) => !line.equal)
    expect(wrong.map((line) => line.metric)).toEqual(['stored'])
    expect(wrong[0]!.differences.map((one) => one.what)).toContain('quantity')
  })
})
