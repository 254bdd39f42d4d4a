/**
 * Periods of contracts in zones with 30 and 45 minutes, over changes of clocks, month ends and a leap day: usage a millisecond
 * before and at each bound, on the real road. The bounds stand here in UTC, worked out by hand.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seedContracts, seedCustomers } from '../../src/catalog/seeds.js'
import { openTestService, type TestService } from './service.js'

const cases = [
  // No change of clocks, on three quarters and on half hours.
  { zone: 'Asia/Kathmandu', start: '2026-01-01', from: '2026-02-28T18:15:00Z', to: '2026-03-31T18:15:00Z', days: 31 },
  { zone: 'Asia/Kolkata', start: '2026-01-01', from: '2026-02-28T18:30:00Z', to: '2026-03-31T18:30:00Z', days: 31 },
  // The clock falls by half an hour on 5 April: the period is half an hour longer than its days.
  {
    zone: 'Australia/Lord_Howe',
    start: '2026-01-06',
    from: '2026-03-05T13:00:00Z',
    to: '2026-04-05T13:30:00Z',
    days: 31,
  },
  // An hour is lost on 29 March.
  { zone: 'Europe/Paris', start: '2026-01-01', from: '2026-02-28T23:00:00Z', to: '2026-03-31T22:00:00Z', days: 31 },
  // Begun on the 31st: February has no such day, March has.
  { zone: 'Africa/Abidjan', start: '2026-01-31', from: '2026-02-28T00:00:00Z', to: '2026-03-31T00:00:00Z', days: 31 },
  // In a leap year the period of the 31st ends on the 29th.
  { zone: 'Africa/Dakar', start: '2028-01-31', from: '2028-01-31T00:00:00Z', to: '2028-02-29T00:00:00Z', days: 29 },
] as const

let service: TestService
// The first customers have contracts of the seeds, which name the same usage.
const tenantOf = (i: number): string => seedCustomers[i + 2]!.tenant
/** Events of a metric that counts, `count` of them at one instant. */
async function at(i: number, time: number, count: number): Promise<void> {
  const events = Array.from({ length: count }, (_, n) => ({
    id: `${time}-${n}`,
    metric: 'kyc_verification',
    subject: 's',
    time,
    value: '1',
  }))
  const body = Buffer.from(JSON.stringify(events))
  const answer = await service.system.ingest({ body, format: 'json', tenant: tenantOf(i), wait: true })
  expect(answer.applied?.accepted).toBe(count)
}

beforeAll(async () => {
  service = await openTestService()
  for (const [i, { zone, start }] of cases.entries()) {
    await service.system.catalog.putContract({
      ...seedContracts[1]!,
      id: `zone-${i}`,
      tenant: tenantOf(i),
      timeZone: zone,
      start,
      items: [{ id: `zone-${i}/1`, plan: 'oid-business' }],
    })
  }
  await service.system.catalogSettled()
}, 120_000)
afterAll(async () => service?.close())

for (const year of [2026, 2028]) {
  test(`${year}: what lies in the period of its zone is billed, a millisecond outside is not`, async () => {
    const own = cases.map((one, i) => ({ ...one, i })).filter(({ from }) => from.startsWith(String(year)))
    service.clock.set(`${year}-03-10T09:00:00Z`)
    if (year === 2028) service.clock.set('2028-02-10T09:00:00Z')
    for (const { i, from } of own) {
      await at(i, Date.parse(from) - 1, 1)
      await at(i, Date.parse(from), 10)
    }
    service.clock.set(year === 2028 ? '2028-03-01T09:00:00Z' : '2026-04-06T09:00:00Z')
    for (const { i, to } of own) {
      await at(i, Date.parse(to) - 1, 100)
      await at(i, Date.parse(to), 1_000)
    }
    await service.system.settle()
    for (const { i, zone, from, to } of own) {
      const closed = await service.system.billing.closePeriod({ contract: `zone-${i}`, at: Date.parse(from) + 1 })
      expect([zone, new Date(closed.period.from).toISOString(), new Date(closed.period.to).toISOString()]).toEqual([
        zone,
        from.replace('Z', '.000Z'),
        to.replace('Z', '.000Z'),
      ])
      const { invoice } = closed.invoice!
      expect([zone, invoice.usage.find((one) => one.metric === 'kyc_verification')?.quantity]).toEqual([zone, '110'])
      expect(invoice.lines.map((line) => line.amount)).toEqual(['200.00', '145.00'])
      expect((await service.system.billing.verifyInvoice(invoice.id)).equal).toBe(true)
    }
  })
}

test('a fee of a part of such a period is by its days, not by its hours', async () => {
  for (const [i, { zone, from, days }] of cases.entries()) {
    const contract = service.system.catalog.book().contractOf(`zone-${i}`)
    const first = new Intl.DateTimeFormat('en-CA', { timeZone: zone }).format(
      Date.parse(from) + 9 * 86_400_000 + 43_200_000,
    )
    await service.system.catalog.putContract({
      ...contract,
      id: `part-${i}`,
      items: [{ id: `part-${i}/1`, plan: 'oid-business', from: first }],
    })
    await service.system.catalogSettled()
    const preview = await service.system.billing.previewInvoice(`part-${i}`, Date.parse(from) + 1)
    // The tenth day is the first that counts: nine days are not.
    expect([zone, preview.lines[0]?.amount]).toEqual([zone, ((200 * (days - 9)) / days).toFixed(2)])
  }
})
