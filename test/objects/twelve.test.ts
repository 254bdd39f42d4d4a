/** The twelve schedules of an object, each closed in its turn: a contract of the 31st in a zone with a clock change. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { promises } from '../promises.js'
import { type Fleet, fleetContract, openFleet } from '../usage-data/fleet.js'

let fleet: Fleet
beforeAll(async () => {
  fleet = await openFleet()
  await fleet.system.catalog.putPlan({
    key: 'objet-31',
    product: 'IOT',
    name: 'Objet',
    feeRule: 'abonnement',
    metrics: [{ metric: 'mesures', included: '10', rule: 'mesure' }],
  })
  await fleet.system.catalog.putContract({
    ...fleetContract,
    id: 'parc-31',
    start: '2022-03-31',
    timeZone: 'Europe/Paris',
    items: [{ id: 'objets', plan: 'objet-31', fleet: { months: 12 } }],
  })
  await fleet.system.catalogSettled()
}, 180_000)
afterAll(async () => fleet?.close())

/** Midnights in Paris of the last days of months, by hand: two hours from UTC in summer, one in winter. */
const BOUNDS = [
  '2022-04-29T22:00:00Z',
  '2022-05-30T22:00:00Z',
  '2022-06-29T22:00:00Z',
  '2022-07-30T22:00:00Z',
  '2022-08-30T22:00:00Z',
  '2022-09-29T22:00:00Z',
  '2022-10-30T23:00:00Z',
  '2022-11-29T23:00:00Z',
  '2022-12-30T23:00:00Z',
  '2023-01-30T23:00:00Z',
  '2023-02-27T23:00:00Z',
  '2023-03-30T22:00:00Z',
  '2023-04-29T22:00:00Z',
].map((at) => Date.parse(at))
const [FIRST] = BOUNDS as [number]

async function send(id: string, time: number, value: string): Promise<void> {
  fleet.clock.set(time + 1000)
  const event = { id, metric: 'mesures', subject: 'imei-31', value, time: new Date(time).toISOString() }
  const body = Buffer.from(JSON.stringify([event]))
  const answer = await fleet.system.ingest({ body, format: 'json', tenant: 'agritech', wait: true })
  expect(answer.refusals).toEqual([])
  await fleet.system.settle()
}

test(`activated for twelve months => each schedule has its own usage, amount and invoice, verified, and none follows ${promises('invoice:explains-itself')}`, async () => {
  fleet.clock.set(FIRST + 1000)
  await fleet.ask('POST', '/v1/objects', { id: 'object-31', subject: 'imei-31', tenant: 'agritech' })
  const at = new Date(FIRST).toISOString()
  const activation = { type: 'activation', at, contract: 'parc-31', item: 'objets' }
  await fleet.ask('POST', '/v1/objects/object-31/events', activation)
  const numbers: string[] = []
  for (let i = 0; i < 12; i += 1) {
    const [from, to] = [BOUNDS[i]!, BOUNDS[i + 1]!]
    // The first and the last millisecond are of this schedule: 1 and 9 + i, of which 10 are included.
    await send(`first-${i}`, from, '1')
    await send(`last-${i}`, to - 1, `${9 + i}`)
    fleet.clock.set(to + 2 * 3_600_000)
    const { invoice } = (await fleet.system.billing.closePeriod({ contract: 'parc-31', at: from })).invoice!
    numbers.push(invoice.number!)
    expect([invoice.period.from, invoice.period.to], `${i}`).toEqual([from, to])
    const found = await fleet.system.billing.verifyInvoice(invoice.id)
    expect([found.equal, found.lines.flatMap((line) => line.differences)], `${i}`).toEqual([true, []])
  }
  expect(new Set(numbers).size).toBe(12)
  const { invoicingSchedules: schedules } = await fleet.ask('GET', '/v1/objects/object-31')
  expect(schedules.map((one: { from: number; to: number }) => [one.from, one.to])).toEqual(
    Array.from({ length: 12 }, (_, i) => [BOUNDS[i], BOUNDS[i + 1]]),
  )
  for (const [i, schedule] of schedules.entries())
    expect(schedule, `${i}`).toMatchObject({
      state: 'invoiced',
      invoice: numbers[i],
      // 5.00 and 0.50 for each unit above the ten.
      amount: i % 2 === 0 ? `${5 + i / 2}` : `${5 + (i - 1) / 2}.5`,
      usage: [{ metric: 'mesures', quantity: `${10 + i}`, included: '10', billable: `${i}` }],
    })
  // The thirteenth month: nothing of the object, whatever its subject still sends.
  const after = BOUNDS[12]!
  await send('after', after, '100')
  const preview = await fleet.ask('GET', '/v1/contracts/parc-31/invoice-preview')
  expect(preview.lines).toEqual([])
}, 180_000)
