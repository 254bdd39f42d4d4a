/** Connected objects on real engines: from creation to an invoice of a fleet, whose usage it is, the detail, and what is refused. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Decimal } from '../../src/decimal.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { ObjectMoves } from '../../src/objects/objects.js'
import { promises } from '../promises.js'
import { APRIL, type Fleet, fleetContract, MAY, openFleet } from '../usage-data/fleet.js'

let fleet: Fleet
beforeAll(async () => {
  fleet = await openFleet()
  await fleet.system.catalog.putContract({
    ...fleetContract,
    id: 'parc',
    name: 'Contrat flotte IOT',
    items: [
      {
        id: 'premium',
        plan: 'objet',
        fleet: { months: 12 },
        calculators: [{ name: 'mesures', reads: 'values', metric: 'mesures' }],
      },
    ],
  })
  // What the fleet's objects do not take of the same metric.
  await fleet.system.catalog.putContract({
    ...fleetContract,
    id: 'reste',
    items: [{ id: 'reste/1', plan: 'flotte-premium' }],
  })
  // It would be the first to have the rest; it ended before.
  await fleet.system.catalog.putContract({ ...fleetContract, end: '2022-03-31' })
  await fleet.system.catalogSettled()
}, 180_000)
afterAll(async () => fleet?.close())

const close = async (contract: string, at: number): Promise<Invoice | null> =>
  (await fleet.system.billing.closePeriod({ contract, at })).invoice?.invoice ?? null
const equal = async (invoice: Invoice) => {
  const found = await fleet.system.billing.verifyInvoice(invoice.id)
  expect([found.document, found.lines.flatMap((line) => line.differences), found.unchecked]).toEqual([[], [], []])
}
async function send(events: { id: string; subject: string; value: string; time: string; metric?: string }[]) {
  const answer = await fleet.system.ingest({
    body: Buffer.from(JSON.stringify(events.map((one) => ({ metric: 'mesures', ...one })))),
    format: 'json',
    tenant: 'agritech',
    wait: true,
  })
  expect(answer.refusals).toEqual([])
  await fleet.system.settle()
}

describe('a life', () => {
  test('pending by API, draft by hand; activation makes a contract item and twelve schedules; events are kept', async () => {
    expect(await fleet.ask('POST', '/v1/objects', { id: 'IOT_NS542', kind: 'capteur' })).toMatchObject({
      state: 'pending',
      subject: 'IOT_NS542',
      tenant: null,
    })
    expect(
      await fleet.ask('POST', '/v1/objects', { id: 'IOT_NS543', state: 'draft', tenant: 'agritech' }),
    ).toMatchObject({
      state: 'draft',
    })
    await fleet.ask('POST', '/v1/objects', { id: 'IOT_NS542', kind: 'capteur' }, 200)
    await fleet.ask('POST', '/v1/objects', { id: 'IOT_NS542', kind: 'autre' }, 409)
    await fleet.ask('POST', '/v1/objects/IOT_NS542/events', {
      type: 'installation',
      at: '2022-03-30T10:00:00Z',
      data: { par: 'Awa' },
    })
    const unplaced = await fleet.ask(
      'POST',
      '/v1/objects/IOT_NS542/events',
      { type: 'activation', at: '2022-04-01T00:00:00Z' },
      422,
    )
    expect(unplaced.detail).toContain('say which contract and fleet item IOT_NS542 belongs to')
    const activation = {
      type: 'activation',
      at: '2022-04-01T08:00:00Z',
      contract: 'parc',
      item: 'premium',
      data: { par: 'API' },
    }
    expect(await fleet.ask('POST', '/v1/objects/IOT_NS542/events', activation)).toMatchObject({
      state: 'active',
      tenant: 'agritech',
      contract: 'parc',
      item: 'premium',
    })
    await fleet.ask('POST', '/v1/objects/IOT_NS542/events', activation)
    const found = await fleet.ask('GET', '/v1/objects/IOT_NS542')
    expect(found.contractItem).toMatchObject({
      id: 'IOT_NS542',
      parent: 'premium',
      from: APRIL.from,
      to: Date.UTC(2023, 3, 1),
    })
    expect(found.invoicingSchedules).toHaveLength(12)
    expect(found.invoicingSchedules[0]).toMatchObject({
      ...APRIL,
      covers: APRIL,
      state: 'open',
      amount: null,
      usage: [],
    })
    expect(found.events.map((one: { type: string }) => one.type)).toEqual(['activation', 'installation'])
  })

  test('what cannot be is refused with the reason, and nothing of the list is done', async () => {
    await fleet.ask('POST', '/v1/objects', [
      { id: 'a1' },
      { id: 'a2', subject: 'IOT_NS542' },
      { id: 'a3', tenant: 'muppy' },
    ])
    const activate = (body: object, status: number) =>
      fleet.ask(
        'POST',
        '/v1/objects/activate',
        { at: '2022-04-02T00:00:00Z', contract: 'parc', item: 'premium', ...body },
        status,
      )
    const cases: [object, number, string][] = [
      [{ objects: ['a1', 'nobody'] }, 404, 'there is no nobody'],
      [{ objects: ['a1', 'a2'] }, 409, 'subject: IOT_NS542 is that of IOT_NS542 in these days'],
      [{ objects: ['a1', 'a3'] }, 422, 'parc is another customer'],
      [{ objects: ['a1'], item: 'reste/1' }, 422, 'parc has no fleet item reste/1'],
      [{ objects: ['a1'], contract: 'nobody' }, 422, 'there is no nobody'],
      [{ objects: ['a1'], at: '2021-12-31T00:00:00Z' }, 422, 'the contract begins on 2022-01-01'],
    ]
    for (const [body, status, detail] of cases) expect((await activate(body, status)).detail).toContain(detail)
    const states = (await fleet.ask('GET', '/v1/objects?search=a')).objects.map((one: { state: string }) => one.state)
    expect(states).toEqual(['pending', 'pending', 'pending'])
  })

  test(`a tenant's key sees its own objects and changes none ${promises('tenant:isolated')}`, async () => {
    const { secret } = await fleet.system.keys.create({ name: 'm', tenant: 'muppy', scopes: ['ingest', 'read'] })
    const { objects } = await fleet.ask('GET', '/v1/objects', undefined, 200, secret)
    expect(objects.map((one: { id: string }) => one.id)).toEqual(['a3'])
    await fleet.ask('GET', '/v1/objects/IOT_NS542', undefined, 404, secret)
    await fleet.ask('GET', '/v1/objects?tenant=agritech', undefined, 403, secret)
    await fleet.ask('POST', '/v1/objects', { id: 'x' }, 403, secret)
    await fleet.ask('POST', '/v1/objects/a3/events', { type: 'activation' }, 403, secret)
  })
})

describe('april', () => {
  const N = 120
  const id = (i: number) => `cap-${String(i).padStart(3, '0')}`

  test('a fleet in bulk: created, searched by pages, activated on two days', async () => {
    const all = Array.from({ length: N }, (_, i) => ({
      id: id(i),
      subject: `imei-${i}`,
      tenant: 'agritech',
      contract: 'parc',
    }))
    expect(await fleet.ask('POST', '/v1/objects', all)).toEqual({ created: N, known: 0 })
    const first = await fleet.ask('GET', '/v1/objects?search=imei-1&limit=20')
    const second = await fleet.ask('GET', `/v1/objects?search=imei-1&limit=20&after=${first.next}`)
    expect([first.objects.length, second.objects.length, second.next]).toEqual([20, 11, null])
    const activate = (from: number, to: number, at: string) =>
      fleet.ask('POST', '/v1/objects/activate', {
        objects: all.slice(from, to).map((one) => one.id),
        item: 'premium',
        at,
      })
    expect(await activate(0, 100, '2022-04-01T00:00:00Z')).toEqual({ activated: 100, known: 0 })
    // 16 to 30 April: half of the month.
    expect(await activate(100, N, '2022-04-16T09:00:00Z')).toEqual({ activated: 20, known: 0 })
    expect(await activate(0, 100, '2022-04-01T00:00:00Z')).toEqual({ activated: 0, known: 100 })
  })

  test(`the usage of each subject is billed once: by its object, or by who has the rest ${promises('rating:lines-sum-to-total')}`, async () => {
    await send([
      // 12 of which 10 are included, for each of 50 objects; 9 for one.
      ...Array.from({ length: 50 }, (_, i) => ({
        id: `e${i}`,
        subject: `imei-${i}`,
        value: '12',
        time: '2022-04-09T08:00:00Z',
      })),
      { id: 'n', subject: 'imei-60', value: '9', time: '2022-04-09T08:00:00Z' },
      // Not an object's at all; and an object's before it was active.
      { id: 'r1', subject: 'gateway', value: '100', time: '2022-04-09T09:00:00Z' },
      { id: 'r2', subject: 'imei-110', value: '7', time: '2022-04-10T01:00:00Z' },
    ])
    await fleet.ask('POST', '/v1/usage-data', {
      contract: 'parc',
      item: 'IOT_NS542',
      start: '2022-04-14',
      value: '12',
      state: 'pending',
    })
    await fleet.ask(
      'POST',
      '/v1/usage-data',
      { contract: 'parc', item: 'nobody', start: '2022-04-14', value: '1' },
      422,
    )
    fleet.clock.set('2022-04-20T10:00:00Z')
    await send([{ id: 'a', subject: 'imei-110', value: '15', time: '2022-04-20T09:00:00Z' }])
    const preview = await fleet.ask('GET', '/v1/contracts/parc/invoice-preview')
    fleet.clock.set('2022-05-01T02:00:00Z')
    const invoice = (await close('parc', APRIL.from))!
    expect(
      invoice.lines.map((line) => [line.type, line.objects, line.quantity, line.included, line.billable, line.amount]),
    ).toEqual([
      // IOT_NS542 and a hundred more.
      ['fee', 101, '101', '0', '101', '505.00'],
      ['fee', 20, '20', '0', '20', '50.00'],
      // 50 × 12, 9, 15 and 12; above 10 each: 50 × 2, 5 and 2 at 0.50.
      ['usage', 53, '636', '529', '107', '53.50'],
    ])
    expect(preview.lines.map((line: { amount: string }) => line.amount)).toEqual(['505.00', '50.00', '53.50'])
    expect(invoice.lines[2]!.proof).toMatchObject({ count: 52, data: { count: 1, quantity: '12' } })
    await equal(invoice)
    const rest = (await close('reste', APRIL.from))!
    expect(rest.lines.map((line) => [line.quantity, line.proof!.count, line.amount])).toEqual([['107', 2, '53.50']])
    await equal(rest)
    const { rows } = await fleet.system.rollup
      .rowsOf<{ s: string }>(`SELECT toString(sum(value)) AS s FROM usage_events WHERE tenant = 'agritech'`, {})
      .then((found) => ({ rows: found }))
    // All that came, and the datum beside it.
    expect(new Decimal(rows[0]!.s).plus(12).toFixed()).toBe(new Decimal(636).plus(107).toFixed())
  })

  test('the schedule of an object has its amount and its invoice', async () => {
    const found = await fleet.ask('GET', '/v1/objects/IOT_NS542')
    expect(found.invoicingSchedules[0]).toMatchObject({
      state: 'invoiced',
      amount: '6',
      invoice: 'INV/2022/05/0001',
      usage: [{ metric: 'mesures', quantity: '12', data: '12', included: '10', billable: '2', amount: '1' }],
    })
    expect(found.invoicingSchedules[1]).toMatchObject({ state: 'open', amount: null })
  })

  test('the detail as CSV and Excel: every object, and it sums to the lines', async () => {
    const url = `/v1/invoices/${encodeURIComponent('INV/2022/05/0001')}/objects`
    const csv: string = await fleet.ask('GET', url)
    const [head, ...lines] = csv.trimEnd().split('\r\n')
    expect(head!.split(',')).toContain('subject')
    const column = head!.split(',').indexOf('amount')
    expect(lines).toHaveLength(121 + 53)
    const total = lines.reduce((all, line) => all.plus(line.split(',')[column]!), new Decimal(0))
    expect(total.toFixed(2)).toBe('608.50')
    const answer = await fleet.app.inject({
      method: 'GET',
      url: `${url}?format=xlsx`,
      headers: { authorization: `Bearer ${fleet.adminKey}` },
    })
    const directory = mkdtempSync(join(tmpdir(), 'releve-sheet-'))
    try {
      writeFileSync(join(directory, 'x.zip'), answer.rawPayload)
      // Python's reader checks every CRC and size.
      const script = `import zipfile,sys; z=zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; sys.stdout.write(z.read('xl/worksheets/sheet1.xml').decode())`
      const sheet = execFileSync('python3', ['-c', script, join(directory, 'x.zip')]).toString()
      expect(sheet.match(/<row /g)).toHaveLength(1 + 121 + 53)
      expect(sheet).toContain('imei-110')
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
    const { secret } = await fleet.system.keys.create({ name: 'm', tenant: 'muppy', scopes: ['read'] })
    await fleet.ask('GET', url, undefined, 404, secret)
  })

  test(`an event deleted from the archive of one object => not equal ${promises('invoice:explains-itself')}`, async () => {
    const { clickhouse } = fleet.system.engines
    const run = (query: string) => clickhouse.command({ query, clickhouse_settings: { mutations_sync: '2' } })
    await run('CREATE TABLE kept AS usage_events ENGINE = Memory')
    await run(`INSERT INTO kept SELECT * FROM usage_events WHERE id = 'e7'`)
    await run(`DELETE FROM usage_events WHERE id = 'e7'`)
    const { invoice } = (await fleet.system.invoicing.ofPeriod('parc', APRIL.from))!
    const found = await fleet.system.billing.verifyInvoice(invoice.id)
    expect(found.equal).toBe(false)
    expect(found.lines[2]!.differences.map((one) => one.what)).toEqual(
      expect.arrayContaining(['quantity', 'amount', 'proof.count', 'proof.digest']),
    )
    await run('INSERT INTO usage_events SELECT * FROM kept')
    await run('DROP TABLE kept')
    await equal(invoice)
  })
})

describe('may', () => {
  test('the end of life ends what is due; inside a measured period nothing changes any more', async () => {
    const late = await fleet.ask(
      'POST',
      '/v1/objects/cap-000/events',
      { type: 'end_of_life', at: '2022-04-20T00:00:00Z' },
      409,
    )
    expect(late.detail).toContain('the first free moment is 2022-05-01T00:00:00.000Z')
    await fleet.ask(
      'POST',
      '/v1/objects/activate',
      { objects: ['a1'], contract: 'parc', item: 'premium', at: '2022-04-20T00:00:00Z' },
      409,
    )
    // 1 to 10 May: 10 days of 31.
    expect(
      await fleet.ask('POST', '/v1/objects/cap-000/events', { type: 'end_of_life', at: '2022-05-10T15:00:00Z' }),
    ).toMatchObject({
      state: 'ended',
    })
    const ended = await fleet.ask('GET', '/v1/objects/cap-000')
    expect(ended.invoicingSchedules.map((one: { covers: { to: number } }) => one.covers.to)).toEqual([
      MAY.from,
      Date.UTC(2022, 4, 11),
    ])
  })

  test(`late usage of an object is a regularisation of its own tiers ${promises('flow:late-is-correction')}`, async () => {
    fleet.clock.set('2022-05-03T09:00:00Z')
    await send([
      // 9 were used of 10 included: of these 3, two are above.
      { id: 'late', subject: 'imei-60', value: '3', time: '2022-04-28T08:00:00Z' },
      { id: 'later', subject: 'gateway', value: '2', time: '2022-04-28T08:00:00Z' },
    ])
    fleet.clock.set('2022-06-01T02:00:00Z')
    const report = await fleet.system.billing.closeDuePeriods({ at: null, tenant: 'agritech' })
    expect(report).toMatchObject({ failed: 0, issued: 2 })
    const { invoice } = (await fleet.system.invoicing.ofPeriod('parc', MAY.from))!
    expect(invoice.lines.map((line) => [line.type, line.quantity, line.amount])).toEqual([
      ['fee', '120', '600.00'],
      ['fee', '1', '1.61'],
      ['regularisation', '3', '1.00'],
    ])
    await equal(invoice)
    const rest = (await fleet.system.invoicing.ofPeriod('reste', MAY.from))!.invoice
    expect(rest.lines.map((line) => [line.type, line.quantity, line.amount])).toEqual([['regularisation', '2', '1.00']])
    // What is for the maker of a draft is not on the issued document.
    expect(rest.notices).toEqual([])
    await equal(rest)
  })
})

describe('silent meters', () => {
  test('who has stopped is listed, with the last event, and told on the draft', async () => {
    fleet.clock.set('2022-06-05T09:00:00Z')
    await send([
      { id: 's1', subject: 'imei-1', value: '1', time: '2022-06-05T08:00:00Z' },
      { id: 's2', subject: 'imei-2', value: '1', time: '2022-06-03T08:00:00Z' },
    ])
    const first = await fleet.ask('GET', '/v1/meters/silent?tenant=agritech&contract=parc&hours=24&limit=100')
    const second = await fleet.ask(
      'GET',
      `/v1/meters/silent?tenant=agritech&contract=parc&hours=24&after=${first.next}`,
    )
    const all = [...first.objects, ...second.objects]
    // 121 were activated, one has ended, one has just spoken.
    expect(all).toHaveLength(119)
    expect(second.next).toBe(null)
    const lastOf = (subject: string) => all.find((one: { subject: string }) => one.subject === subject)?.lastEvent
    expect([lastOf('imei-1'), lastOf('imei-2'), lastOf('imei-90')]).toEqual([undefined, Date.UTC(2022, 5, 3, 8), null])
    expect(first.metrics).toEqual([])
    const week = await fleet.ask('GET', '/v1/meters/silent?tenant=agritech&contract=parc&hours=72&limit=1000')
    expect(week.objects).toHaveLength(118)
    const { secret } = await fleet.system.keys.create({ name: 'm', tenant: 'muppy', scopes: ['read'] })
    await fleet.ask('GET', '/v1/meters/silent?tenant=agritech', undefined, 403, secret)
    expect((await fleet.ask('GET', '/v1/meters/silent', undefined, 200, secret)).objects).toEqual([])

    const { invoice } = (await fleet.system.invoicing.ofPeriod('parc', APRIL.from))!
    expect(invoice.notices).toEqual([])
    fleet.clock.set('2022-07-01T02:00:00Z')
    // The rest spoke in April and May's late events; in May it said nothing, and in June neither.
    const june = await fleet.system.billing.closeDuePeriods({ at: null, tenant: 'agritech', finalise: false })
    expect(june).toMatchObject({ failed: 0 })
    const draft = (await fleet.system.invoicing.ofPeriod('parc', Date.UTC(2022, 5, 1)))!.invoice
    expect(draft.notices.map((notice) => [notice.code, notice.quantity])).toEqual([['meter_silent', '118']])
    await equal(draft)
  })
})

test('shadow rating and previews of closed months => objects, the rest and usage data as they were billed, and other prices over them', async () => {
  const { catalog, billing, invoicing } = fleet.system
  const rule = { rule_id: 'mesure', type: 'per_unit', metric: 'mesures', unit_price: '1.50', currency: 'EUR' }
  await catalog.putPrice({ rule, version: '9.0', status: 'draft', effectiveFrom: 0 })
  const found = await billing.shadow({
    change: { prices: [{ rule: 'mesure', version: '9.0' }] },
    from: APRIL.from,
    to: MAY.to,
    contracts: ['parc', 'reste'],
    limit: 10,
  })
  expect(found.failed).toEqual([])
  for (const contract of ['parc', 'reste']) {
    const [april, may] = await Promise.all([APRIL, MAY].map(({ from }) => invoicing.ofPeriod(contract, from)))
    const billed = new Decimal(april?.invoice.ht ?? 0).plus(may?.invoice.ht ?? 0)
    // What came late was billed with May, and belongs to April.
    const own = found.contracts.find((one) => one.contract === contract)!
    expect([contract, new Decimal(own.before).toFixed(2)]).toEqual([contract, billed.toFixed(2)])
    // Every priced unit costs three times as much; fees stay.
    const fees = [april, may].flatMap((kept) => kept?.invoice.lines ?? []).filter((line) => line.type === 'fee')
    const usage = billed.minus(fees.reduce((all, line) => all.plus(line.amount), new Decimal(0)))
    expect(new Decimal(own.difference).toFixed(2)).toBe(usage.times(2).toFixed(2))
    expect(usage.gt(0)).toBe(true)
    const previews = await Promise.all([APRIL, MAY].map(({ from }) => billing.previewInvoice(contract, from)))
    expect(previews.reduce((all, one) => all.plus(one.ht), new Decimal(0)).toFixed(2)).toBe(billed.toFixed(2))
  }
})

describe('items that name subjects', () => {
  test('two items of one metric: one takes its subjects, the other the rest, before and after a change of plan', async () => {
    const { catalog } = fleet.system
    await catalog.putContract({
      ...fleetContract,
      id: 'partage',
      tenant: 'muppy',
      items: [
        { id: 'A', plan: 'flotte-premium', subjects: ['nord', 'sud'] },
        { id: 'B', plan: 'flotte-premium', until: '2022-06-14' },
        { id: 'C', plan: 'flotte-premium', from: '2022-06-15' },
        // Names one that A has already: A keeps it.
        { id: 'D', plan: 'flotte-premium', subjects: ['sud', 'est'] },
        // Another that names none, beside B and C, who come first.
        { id: 'E', plan: 'flotte-premium' },
      ],
    })
    await fleet.system.catalogSettled()
    const time = (day: number) => `2022-06-${String(day).padStart(2, '0')}T08:00:00Z`
    fleet.clock.set('2022-07-02T09:00:00Z')
    const events = [
      ['nord', 10, '1'],
      ['sud', 10, '2'],
      ['est', 10, '4'],
      ['ouest', 10, '8'],
      ['ouest', 20, '16'],
      ['', 21, '32'],
    ] as const
    const answer = await fleet.system.ingest({
      body: Buffer.from(
        JSON.stringify(
          events.map(([subject, day, value], i) => ({
            id: `p${i}`,
            metric: 'mesures',
            subject,
            value,
            time: time(day),
          })),
        ),
      ),
      format: 'json',
      tenant: 'muppy',
      wait: true,
    })
    expect(answer.refusals).toEqual([])
    await fleet.system.settle()
    await fleet.system.fold()
    const invoice = (await close('partage', Date.UTC(2022, 5, 1)))!
    const usage = Object.fromEntries(invoice.usage.map((entry) => [entry.item, entry.quantity]))
    expect(usage).toEqual({ A: '3', B: '8', C: '48', D: '4', E: '0' })
    await equal(invoice)
  })

  test(`every aggregation, and a price by the event, of the subjects that are an item's and of no others ${promises('rating:lines-sum-to-total')}`, async () => {
    const { catalog } = fleet.system
    const aggregations = [
      ...(['sum', 'count', 'unique', 'max', 'min', 'latest', 'average', 'percentile', 'weighted_sum'] as const),
    ]
    for (const aggregation of aggregations)
      await catalog.putMetric({
        key: `by_${aggregation}`,
        aggregation,
        unit: 'piece',
        scale: aggregation === 'count' || aggregation === 'unique' ? 0 : 3,
        dims: [],
        uniqueBy: aggregation === 'unique' ? 'who' : null,
        archive: true,
        ...(aggregation === 'percentile' ? { percentile: '90' } : {}),
      })
    const price = { version: '1.0', status: 'active', effectiveFrom: 0 } as const
    for (const aggregation of aggregations.slice(1)) {
      const rule = { rule_id: `rule_${aggregation}`, type: 'per_unit', metric: `by_${aggregation}`, currency: 'EUR' }
      await catalog.putPrice({ ...price, rule: { ...rule, unit_price: '0.10' } })
    }
    const bounds = {
      rate: '10',
      free_events: 2,
      free_amount: '7.5',
      minimum_per_event: '0.40',
      maximum_per_event: '0.70',
    }
    const byEvent = { rule_id: 'rule_sum', type: 'percentage', metric: 'by_sum', currency: 'EUR', ...bounds }
    await catalog.putPrice({ ...price, rule: byEvent })
    await catalog.putPlan({
      key: 'everything',
      product: 'IOT',
      name: 'E',
      metrics: aggregations.map((one) => ({ metric: `by_${one}`, included: '0', rule: `rule_${one}` })),
    })
    const items = [
      { id: 'a', subjects: ['s1', 's2'] },
      // Names one that a has already, and begins within the month.
      { id: 'b', subjects: ['s2', "s'3\\"], from: '2022-08-12' },
      { id: 'c', until: '2022-08-20' },
      { id: 'd' },
    ]
    const day = (n: number): number => Date.UTC(2022, 7, n)
    await catalog.putContract({
      ...fleetContract,
      id: 'partout',
      tenant: 'muppy',
      start: '2022-08-01',
      items: items.map((item) => ({ plan: 'everything', ...item })),
    })
    await fleet.system.catalogSettled()
    fleet.clock.set('2022-09-02T09:00:00Z')

    // The oracle: each event has one item, by the rule as a person would say it.
    const itemOf = (subject: string, time: number): string =>
      ['s1', 's2'].includes(subject) ? 'a' : subject === "s'3\\" && time >= day(12) ? 'b' : time < day(21) ? 'c' : 'd'
    const seed = Math.floor(Math.random() * 2 ** 31)
    let state = seed
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
      return Math.floor((state / 0x80000000) * below)
    }
    const subjects = ['s1', 's2', "s'3\\", 's4', '']
    const sent = aggregations.flatMap((aggregation) =>
      Array.from({ length: 60 }, (_, i) => ({
        id: `${aggregation}-${i}`,
        metric: `by_${aggregation}`,
        aggregation,
        subject: subjects[random(5)]!,
        time:
          (aggregation === 'weighted_sum' && i < 10 ? Date.UTC(2022, 6, 31) : day(1) + random(31) * 86_400_000) +
          random(86_400_000),
        value: aggregation === 'count' || aggregation === 'unique' ? '1' : `${random(90)}.${100 + random(900)}`,
        ...(aggregation === 'unique' ? { dims: { who: `u${random(12)}` } } : {}),
      })),
    )
    const voided = sent.filter((_, i) => i % 9 === 4)
    const send = async (list: readonly object[]): Promise<void> => {
      const answer = await fleet.system.ingest({
        body: Buffer.from(JSON.stringify(list)),
        format: 'json',
        tenant: 'muppy',
        wait: true,
      })
      expect(answer.refusals).toEqual([])
      await fleet.system.settle()
    }
    const plain = sent.map(({ aggregation: _, ...event }) => event)
    await send(plain.slice(0, 300))
    await send(plain.slice(300))
    await send(voided.map(({ aggregation: _, ...event }) => ({ ...event, kind: 'void' })))
    await fleet.system.fold()
    const counts = sent.filter((event) => !voided.includes(event))

    const figure = (item: string, aggregation: string): string => {
      const own = counts
        .filter((one) => one.aggregation === aggregation && itemOf(one.subject, one.time) === item)
        .sort((x, y) => x.time - y.time)
      const values = own.filter((one) => one.time >= day(1)).map((one) => new Decimal(one.value))
      const total = values.reduce((all, one) => all.plus(one), new Decimal(0))
      const rising = [...values].sort((x, y) => x.cmp(y))
      switch (aggregation) {
        case 'sum':
          return total.toFixed()
        case 'count':
          return String(values.length)
        case 'unique':
          return String(new Set(own.map((one) => (one as { dims?: { who: string } }).dims!.who)).size)
        case 'max':
          return rising.at(-1)?.toFixed() ?? '0'
        case 'min':
          return rising[0]?.toFixed() ?? '0'
        case 'latest':
          return values.at(-1)?.toFixed() ?? '0'
        case 'average':
          return values.length === 0 ? '0' : total.dividedBy(values.length).toDecimalPlaces(9).toFixed()
        case 'percentile':
          return rising[Math.ceil(values.length * 0.9) - 1]?.toFixed() ?? '0'
        default: {
          // Each subject's level, from each change on, while the subject is the item's.
          let area = new Decimal(0)
          for (const { subject, time, value } of counts.filter((one) => one.aggregation === 'weighted_sum')) {
            const cuts = [...new Set([day(1), time, day(12), day(21), day(32)])]
              .filter((at) => at >= time && at >= day(1))
              .sort((x, y) => x - y)
            for (const [i, from] of cuts.slice(0, -1).entries())
              if (itemOf(subject, from) === item) area = area.plus(new Decimal(value).times(cuts[i + 1]! - from))
          }
          return area.dividedBy(3_600_000).toFixed()
        }
      }
    }
    const byEventOf = (item: string): string => {
      let [passed, place, cost] = [new Decimal(0), 0, new Decimal(0)]
      const own = counts.filter((one) => one.aggregation === 'sum' && itemOf(one.subject, one.time) === item)
      for (const { value } of own.sort((x, y) => x.time - y.time)) {
        const charged = Decimal.max(Decimal.min(value, passed.plus(value).minus('7.5')), 0)
        const one = charged.times('0.1')
        if (!(charged.isZero() && place < 2)) cost = cost.plus(Decimal.min(Decimal.max(one, '0.40'), '0.70'))
        passed = passed.plus(value)
        place += 1
      }
      return cost.toFixed(2)
    }
    const invoice = (await close('partout', day(1)))!
    for (const { id } of items) {
      for (const aggregation of aggregations) {
        const found = invoice.usage.find((one) => one.item === id && one.metric === `by_${aggregation}`)!
        const meant = figure(id, aggregation)
        // The parts between days on which others come and go are rounded to nine decimals each, and there are at most four.
        const isNear =
          aggregation === 'weighted_sum' && new Decimal(found.quantity).minus(meant).abs().lessThanOrEqualTo('2e-9')
        expect(`${aggregation} of ${id}: ${isNear ? meant : found.quantity}`, `seed ${seed}`).toBe(
          `${aggregation} of ${id}: ${meant}`,
        )
      }
      const line = invoice.lines.find((one) => one.item === id && one.metric === 'by_sum')
      expect(`${id}: ${line?.amount ?? '0.00'}`, `seed ${seed}`).toBe(`${id}: ${byEventOf(id)}`)
    }
    await equal(invoice)
    // The question that a line shows is the one of its part, and can be asked by hand.
    const shown = invoice.lines.find((one) => one.item === 'b' && one.metric === 'by_max')!.proof!
    const asked = await fleet.system.rollup.rowsOf<{ events: string; value: string; digest: string }>(shown.query, {})
    expect([Number(asked[0]!.events), asked[0]!.digest.padStart(64, '0')]).toEqual([shown.count, shown.digest])
  }, 240_000)

  test('where the amounts of events cannot be had, a price by the event is refused with the reason', async () => {
    const { catalog } = fleet.system
    const put = (item: object, id = 'pointe') =>
      catalog.putContract({
        ...fleetContract,
        id,
        tenant: 'muppy',
        items: [{ id: `${id}/x`, plan: 'everything', ...item }],
      })
    const sum = [{ metric: 'by_sum', limit: '0' }]
    const bounds = { rate: '10', minimum_per_event: '0.40' }
    const rule = (more: object) => ({ rule_id: 'autre', type: 'percentage', currency: 'EUR', ...bounds, ...more })
    await expect(put({ fleet: {}, entitlements: sum })).rejects.toThrow('a fleet is rated by the sums of its objects')
    await expect(
      put({ entitlements: sum, calculators: [{ name: 'k', reads: 'values', metric: 'by_sum' }] }),
    ).rejects.toThrow('calculator k adds to its quantity without an event')
    await expect(put({ fleet: {}, entitlements: [{ metric: 'by_max', limit: '0' }] })).rejects.toThrow(
      'the objects of a fleet are summed',
    )
    await expect(catalog.putPrice({ rule: rule({ metric: 'by_max' }) })).rejects.toThrow('this is a max')
    const rounded = { key: 'by_sum', aggregation: 'sum', unit: 'piece', scale: 3 }
    await expect(catalog.putMetric({ ...rounded, rounding: { mode: 'up', places: 0 } })).rejects.toThrow('is rounded')
    await expect(catalog.putMetric({ ...rounded, archive: false })).rejects.toThrow('without an archive')
    // The price comes after the fleet that has the metric.
    await expect(catalog.putPrice({ rule: { ...rule({ metric: 'mesures' }), rule_id: 'mesure' } })).rejects.toThrow(
      'shares it with the fleet premium',
    )
    await expect(put({ fleet: {}, subjects: ['a'] })).rejects.toThrow('not both')
    await expect(put({ subjects: [] })).rejects.toThrow('names at least one')
  })
})

describe('moves', () => {
  test('each that the table does not have is refused; an ended one stays ended, and its subject may belong to a new one', async () => {
    expect(ObjectMoves).toEqual({
      draft: ['active', 'ended'],
      pending: ['active', 'ended'],
      active: ['ended'],
      ended: [],
    })
    const event = (id: string, type: string, at: string, status: number) =>
      fleet.ask('POST', `/v1/objects/${id}/events`, { type, at, contract: 'parc', item: 'premium' }, status)
    const make = (id: string, state: string) => fleet.ask('POST', '/v1/objects', { id, subject: 'revenant', state })
    for (const state of ['draft', 'pending']) {
      await make(`m-${state}`, state)
      expect(await event(`m-${state}`, 'end_of_life', '2022-09-02T08:00:00Z', 201)).toMatchObject({ state: 'ended' })
      const again = await event(`m-${state}`, 'activation', '2022-09-03T08:00:00Z', 409)
      expect(again.detail).toContain(`m-${state} is ended and cannot become active`)
    }
    await make('m-first', 'pending')
    await event('m-first', 'activation', '2022-09-01T08:00:00Z', 201)
    await event('m-first', 'activation', '2022-09-01T08:00:00Z', 201)
    await event('m-first', 'end_of_life', '2022-09-01T20:00:00Z', 201)
    await event('m-first', 'activation', '2022-09-02T08:00:00Z', 409)
    await make('m-second', 'pending')
    const taken = await event('m-second', 'activation', '2022-09-01T09:00:00Z', 409)
    expect(taken.detail).toContain('revenant is that of m-first in these days')
    expect(await event('m-second', 'activation', '2022-09-02T08:00:00Z', 201)).toMatchObject({ state: 'active' })
    await event('m-second', 'end_of_life', '2022-09-02T20:00:00Z', 201)
  })

  test('what is counted again keeps the objects that changed, and no others', async () => {
    const { rows } = await fleet.system.engines.postgres.query(
      `SELECT closing, period_from::text AS period, count(*)::int AS n FROM object_charges WHERE parent = 'premium'
       GROUP BY closing, period_from ORDER BY closing, period_from`,
    )
    const own = rows.filter((row) => row.closing.endsWith(row.period))
    const again = rows.filter((row) => !row.closing.endsWith(row.period))
    expect(own.length).toBeGreaterThan(1)
    // Late usage of April was that of one object.
    expect(again.map((row) => row.n)).toEqual([1])
  })
})
