/**
 * Fleets whose price changes within the month, in another currency than the customer's: the oracle walks each object unit by unit, in
 * whole cents and francs. And what no fleet can be billed by is refused when it is put.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Decimal } from '../../src/decimal.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { promises } from '../promises.js'
import { APRIL, type Fleet, fleetContract, MAY, openFleet } from '../usage-data/fleet.js'

let fleet: Fleet
const at = (day: number, hour = 0, minute = 0): number => Date.UTC(2022, 3, day, hour, minute)
const SECOND = at(11, 9, 30)
const THIRD = at(21)
const N = 24
const id = (i: number): string => `obj-${String(i).padStart(2, '0')}`

/** Version 1: units 11 to 15 at 0.50 €, then 0.30 €. Version 2: 0.75 € each. Version 3, in francs: 400 up to 25, then 151. */
const RULES = [
  {
    currency: 'EUR',
    type: 'tiered',
    tiers: [
      { from: 11, to: 15, unit_price: '0.50' },
      { from: 16, to: null, unit_price: '0.30' },
    ],
  },
  { currency: 'EUR', type: 'per_unit', unit_price: '0.75' },
  {
    currency: 'XOF',
    type: 'tiered',
    tiers: [
      { from: 11, to: 25, unit_price: '400' },
      { from: 26, to: null, unit_price: '151' },
    ],
  },
]
const costOf = [
  (unit: number): number => (unit <= 10 ? 0 : unit <= 15 ? 50 : 30),
  (unit: number): number => (unit <= 10 ? 0 : 75),
  (unit: number): number => (unit <= 10 ? 0 : unit <= 25 ? 400 : 151),
]
const versionAt = (time: number): number => (time < SECOND ? 0 : time < THIRD ? 1 : 2)

interface Used {
  readonly object: number
  readonly time: number
  readonly value: number
}

/** Units, and cents (for the third version francs), by version. */
function walk(used: readonly Used[]): { units: number[]; included: number[]; cost: number[] } {
  const [units, included, cost] = [
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
  ]
  for (let object = 0; object < N; object += 1) {
    let unit = 0
    const own = used.filter((one) => one.object === object).sort((a, b) => a.time - b.time)
    for (const { time, value } of own) {
      for (let i = 0; i < value; i += 1) {
        unit += 1
        const version = versionAt(time)
        units[version]! += 1
        if (unit <= 10) included[version]! += 1
        cost[version]! += costOf[version]!(unit)
      }
    }
  }
  return { units, included, cost }
}

/** Cents to francs, half up. */
const francs = (cents: number): string => String((BigInt(cents) * 655_957n * 2n + 100_000n) / 200_000n)

const used: Used[] = []
let state = Math.floor(Math.random() * 2 ** 31)
const seed = state
const random = (below: number): number => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
  return Math.floor((state / 0x80000000) * below)
}

async function send(all: readonly Used[], from: number): Promise<void> {
  const events = all.map(({ object, time, value }, i) => ({
    id: `e${from + i}`,
    metric: 'mesures',
    subject: `imei-${object}`,
    value: String(value),
    time: new Date(time).toISOString(),
  }))
  const body = Buffer.from(JSON.stringify(events))
  const answer = await fleet.system.ingest({ body, format: 'json', tenant: 'dakar', wait: true })
  expect(answer.refusals).toEqual([])
  await fleet.system.settle()
}

beforeAll(async () => {
  fleet = await openFleet()
  const { catalog } = fleet.system
  await catalog.putCustomer({
    tenant: 'dakar',
    name: 'Dakar Tech',
    country: 'SN',
    taxRate: '18',
    currency: 'XOF',
    timeZone: 'Africa/Dakar',
  })
  for (const [i, rule] of RULES.entries())
    await catalog.putPrice({
      rule: { rule_id: 'par-objet', metric: 'mesures', ...rule },
      version: `1.${i}`,
      status: 'active',
      effectiveFrom: [0, SECOND, THIRD][i]!,
      ...(i === 0 ? {} : { takesEffect: 'event_time' }),
    })
  await catalog.putPlan({
    key: 'par-objet',
    product: 'IOT',
    name: 'Objet',
    feeRule: 'abonnement',
    metrics: [{ metric: 'mesures', included: '10', rule: 'par-objet' }],
  })
  await catalog.putContract({
    ...fleetContract,
    id: 'parc-dakar',
    tenant: 'dakar',
    timeZone: 'Africa/Dakar',
    items: [
      {
        id: 'objets',
        plan: 'par-objet',
        fleet: { months: 12 },
        calculators: [{ name: 'mesures', reads: 'values', metric: 'mesures' }],
      },
    ],
  })
  await fleet.system.catalogSettled()
  await fleet.ask(
    'POST',
    '/v1/objects',
    Array.from({ length: N }, (_, i) => ({ id: id(i), subject: `imei-${i}`, tenant: 'dakar', contract: 'parc-dakar' })),
  )
  const activate = (objects: string[], on: string) =>
    fleet.ask('POST', '/v1/objects/activate', { objects, contract: 'parc-dakar', item: 'objets', at: on })
  const all = Array.from({ length: N }, (_, i) => id(i))
  await activate(all.slice(0, 20), '2022-04-01T00:00:00Z')
  // 16 to 30 April.
  await activate(all.slice(20), '2022-04-16T00:00:00Z')
}, 180_000)
afterAll(async () => fleet?.close())

const priced = (invoice: Pick<Invoice, 'lines'>) =>
  invoice.lines.map((line) => [line.type, line.objects, line.quantity, line.included, line.amount, line.price?.version])

function expected(of: readonly Used[]) {
  const { units, included, cost } = walk(of)
  const objects = new Set(of.map((one) => one.object)).size
  return [
    // 20 × 5.00 €, converted once; a part is half of 3 280 F.
    ['fee', 20, '20', '0', francs(10_000), '1.0'],
    ['fee', 4, '4', '0', String(4 * 1640), '1.0'],
    ...[0, 1, 2].map((i) => [
      'usage',
      objects,
      String(units[i]),
      String(included[i]),
      i === 2 ? String(cost[i]) : francs(cost[i]!),
      `1.${i}`,
    ]),
  ]
}

let april: Invoice
test(`each version of the price has what was used under it, object by object ${promises('rating:lines-sum-to-total')}`, async () => {
  for (let object = 0; object < N; object += 1) {
    const first = object < 20 ? 1 : 16
    for (let i = 0; i < 5; i += 1)
      used.push({ object, time: at(first + random(31 - first), random(24), random(60)), value: 1 + random(9) })
  }
  // The last millisecond of one price and the first of the next.
  used.push({ object: 0, time: SECOND - 1, value: 7 }, { object: 0, time: SECOND, value: 9 })
  used.push({ object: 1, time: THIRD - 1, value: 17 }, { object: 1, time: THIRD, value: 20 })
  fleet.clock.set('2022-04-30T23:59:59Z')
  await send(used, 0)
  for (const [object, day, value] of [
    [2, 4, 12],
    [2, 12, 6],
    [3, 22, 30],
  ] as const) {
    const start = `2022-04-${String(day).padStart(2, '0')}`
    await fleet.ask('POST', '/v1/usage-data', {
      ...{ contract: 'parc-dakar', item: id(object), start, value: String(value), state: 'pending' },
    })
    used.push({ object, time: at(day), value })
  }
  const preview = await fleet.ask('GET', '/v1/contracts/parc-dakar/invoice-preview')
  expect(priced(preview), `seed ${seed}`).toEqual(expected(used))
  fleet.clock.set('2022-05-01T02:00:00Z')
  april = (await fleet.system.billing.closePeriod({ contract: 'parc-dakar', at: APRIL.from })).invoice!.invoice
  expect(priced(april), `seed ${seed}`).toEqual(expected(used))
  const plain = (text: string): string => text.replaceAll(/[\u00a0\u202f]/g, ' ')
  expect(plain(april.lines[0]!.explanation.fr)).toBe(
    '20 objet(s) × 5,00 € = 100,00 € ; 1 EUR = 655,957 XOF : 65 596 F CFA',
  )
  const found = await fleet.system.billing.verifyInvoice(april.id)
  expect([found.equal, found.document, found.lines.flatMap((line) => line.differences)]).toEqual([true, [], []])
})

test(`the detail sums to the lines before they are rounded ${promises('invoice:explains-itself')}`, async () => {
  const csv: string = await fleet.ask('GET', `/v1/invoices/${encodeURIComponent(april.number!)}/objects`)
  const [head, ...rows] = csv
    .trimEnd()
    .split('\r\n')
    .map((row) => row.split(','))
  const [metric, amount] = [head!.indexOf('metric'), head!.indexOf('amount')]
  const of = (name: string): Decimal =>
    rows.filter((row) => row[metric] === name).reduce((all, row) => all.plus(row[amount]!), new Decimal(0))
  const { cost } = walk(used)
  const parity = new Decimal('6.55957')
  expect(of('mesures').toFixed()).toBe(
    parity
      .times(cost[0]! + cost[1]!)
      .plus(cost[2]!)
      .toFixed(),
  )
  expect(of('').toFixed()).toBe(
    parity
      .times(10_000)
      .plus(4 * 1640)
      .toFixed(),
  )
  const { invoicingSchedules } = await fleet.ask('GET', `/v1/objects/${id(0)}`)
  expect(invoicingSchedules[0]).toMatchObject({ state: 'invoiced', invoice: april.number })
})

test(`usage of before a change that comes after the invoice is what April costs more ${promises('flow:late-is-correction')}`, async () => {
  const billed = expected(used)
  const late = [{ object: 4, time: at(5), value: 13 }]
  await send(late, 1000)
  used.push(...late)
  fleet.clock.set('2022-06-01T02:00:00Z')
  const { invoice } = (await fleet.system.billing.closePeriod({ contract: 'parc-dakar', at: MAY.from })).invoice!
  const total = (lines: typeof billed): number => lines.slice(2).reduce((all, line) => all + Number(line[4]), 0)
  const [more] = invoice.lines.filter((line) => line.type === 'regularisation')
  expect(more?.amount, `seed ${seed}`).toBe(String(total(expected(used)) - total(billed)))
  const found = await fleet.system.billing.verifyInvoice(invoice.id)
  expect([found.equal, found.document]).toEqual([true, []])
})

test(`an event altered in the archive on one side of a change => not equal ${promises('invoice:explains-itself')}`, async () => {
  await fleet.system.engines.clickhouse.command({
    query: `ALTER TABLE usage_events UPDATE value = value + 40 WHERE tenant = 'dakar' AND id = 'e${5 * N}'`,
    clickhouse_settings: { mutations_sync: '2' },
  })
  expect((await fleet.system.billing.verifyInvoice(april.id)).equal).toBe(false)
})

test('what a fleet cannot be billed by is refused when it is put, with the reason, never when the period is closed', async () => {
  const { catalog } = fleet.system
  const item = { id: 'refus', plan: 'par-objet', fleet: { months: 12 } }
  const contract = (more: object, id = 'refus') =>
    catalog.putContract({
      ...fleetContract,
      id,
      tenant: 'dakar',
      timeZone: 'Africa/Dakar',
      items: [{ ...item, ...more }],
    })
  const dollars = { rule_id: 'dollars', type: 'per_unit', metric: 'mesures', unit_price: '1', currency: 'USD' }
  await catalog.putPrice({ rule: dollars, status: 'active', effectiveFrom: 0 })
  const metrics = [{ metric: 'mesures', included: '0', rule: 'dollars' }]
  await catalog.putPlan({ key: 'dollars', product: 'IOT', name: 'D', metrics })
  const reason = 'there is no fixed parity between the two'
  // The price is there first, then the fleet; the fleet first, then the price; the customer's currency.
  await expect(contract({ plan: 'dollars' })).rejects.toThrow(
    `dollars v1.0 is in USD, the objects of refus are billed in XOF`,
  )
  const later = { ...dollars, rule_id: 'par-objet' }
  await catalog.putPrice({ rule: later, version: '2.0', status: 'draft' })
  await expect(catalog.activatePrice('par-objet', '2.0')).rejects.toThrow(reason)
  const customer = { tenant: 'dakar', name: 'Dakar Tech', country: 'SN', taxRate: '18', timeZone: 'Africa/Dakar' }
  await expect(catalog.putCustomer({ ...customer, currency: 'USD' })).rejects.toThrow(reason)
  await expect(catalog.putCustomers([{ ...customer, currency: 'USD' }])).rejects.toThrow(reason)
  await expect(contract({ prepaid: [{ metric: 'mesures', exhaustion: 'block' }] })).rejects.toThrow(
    'packs stand behind one quota',
  )
  const pack = { name: 'Pack', quantity: '10' }
  const sold = await fleet.ask(
    'POST',
    '/v1/prepaid/packs',
    { contract: 'parc-dakar', item: 'objets', metric: 'mesures', ...pack },
    422,
  )
  expect(sold.detail).toContain('is a fleet')
  // Neither way: packs, schedules and objects of the one are not those of the other.
  await catalog.putPlan({
    key: 'seul',
    product: 'IOT',
    name: 'S',
    metrics: [{ metric: 'data_go', included: '0', rule: 'go' }],
  })
  await contract({ plan: 'seul', fleet: undefined }, 'seul')
  await expect(contract({ plan: 'seul' }, 'seul')).rejects.toThrow('is no fleet and does not become one')
  await expect(contract({ id: 'objets', fleet: undefined }, 'parc-dakar')).rejects.toThrow('is a fleet and stays one')
})
