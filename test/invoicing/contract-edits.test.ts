/**
 * Contracts that are changed after they were invoiced, through the door of a real service: what is read may be put back, what is
 * invoiced stays as it was, and every accepted change leaves the issued invoice equal to its events.
 */
import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ContractInput } from '../../src/catalog/catalog.js'
import type { Contract } from '../../src/catalog/contract.js'
import { alteredInvoiced } from '../../src/catalog/invoiced.js'
import { periodAt } from '../../src/catalog/part.js'
import { seedContracts } from '../../src/catalog/seeds.js'
import { buildHttp } from '../../src/http/http.js'
import { draftInvoice } from '../../src/invoicing/draft.js'
import { promises } from '../promises.js'
import { MARCH, openTestService, type TestService } from './service.js'

const TENANT = 'banque-atlantique'
const ID = 'riche'
let service: TestService
let app: FastifyInstance
let invoice: string

async function call(method: 'GET' | 'PUT' | 'POST', url: string, body?: unknown) {
  const headers = { authorization: `Bearer ${service.adminKey}`, 'content-type': 'application/json' }
  const payload = body === undefined ? {} : { payload: JSON.stringify(body) }
  const answer = await app.inject({ method, url, headers, ...payload })
  return { status: answer.statusCode, body: answer.json() }
}
const put = (contract: unknown) => call('PUT', '/v1/contracts', contract)
const read = async (): Promise<Record<string, unknown>> => (await call('GET', `/v1/contracts/${ID}`)).body

/** All that a contract may have beside a fleet, which has neither packs nor subjects. */
const rich = {
  ...seedContracts[1]!,
  id: ID,
  tenant: TENANT,
  name: 'Riche',
  start: '2026-02-01',
  renewal: { periods: 12, auto: true, noticeDays: 30 },
  suspension: 'bills_fees',
  prorate: 'second',
  taxBehavior: 'exclusive',
  late: { usage: 'complementary_invoice', corrections: 'credit_note' },
  adjustments: {
    discounts: [
      { name: 'FID', kind: 'percent', value: '10', from: '2026-03-01', until: '2026-12-31' },
      { name: 'AMI', kind: 'amount', value: '5' },
    ],
    minimum: '300',
    maximum: '9000',
  },
  items: [
    {
      id: 'base',
      plan: 'oid-business',
      addOns: [
        { name: 'Sièges', rule: 'addon_seats', quantity: '3' },
        { name: 'Mise en service', rule: 'addon_seats', quantity: '1', once: true, from: '2026-03-05' },
      ],
      calculators: [{ name: 'vérifications', reads: 'values', qualifier: 'piece', metric: 'kyc_verification' }],
      prepaid: [
        {
          metric: 'mcp_call',
          exhaustion: 'auto_recharge',
          recharge: { quantity: '1000', amount: '40', validDays: 90 },
        },
      ],
      entitlements: [
        { metric: 'kyc_verification', limit: '50', thresholds: [{ code: '50', kind: 'percent', value: '50' }] },
        { metric: 'mcp_call', limit: '500' },
        { metric: 'auth_login', limit: null, thresholds: [] },
      ],
    },
    { id: 'agents', plan: 'oid-starter', kind: 'usage', subjects: ['agent-1', 'agent-2'], until: '2026-03-20' },
    { id: 'installation', plan: 'oid-starter', kind: 'once', from: '2026-03-10', until: '2026-06-30' },
    { id: 'suite', plan: 'oid-enterprise', kind: 'fixed', from: '2026-06-01' },
  ],
}

beforeAll(async () => {
  service = await openTestService()
  app = await buildHttp(service.system)
  const rule = { rule_id: 'addon_seats', type: 'flat_fee', amount: '12', currency: 'EUR' }
  await service.system.catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
  const { state: _, ...written } = rich
  expect((await put({ ...written, state: 'trial', trial: { start: '2026-02-01', graceDays: 90 } })).status).toBe(200)
  const move = (state: string, on: string) =>
    call('POST', `/v1/contracts/${ID}/move`, { state, on, reason: 'test' }).then(({ status }) =>
      expect(status).toBe(200),
    )
  await move('active', '2026-03-02')
  await move('suspended', '2026-03-12')
  await move('active', '2026-03-15')
  const coupon = { code: 'PRINTEMPS', name: 'Printemps', kind: 'percent', value: '3', periods: 2 }
  expect((await call('POST', '/v1/coupons', coupon)).status).toBeLessThan(300)
  expect((await call('POST', `/v1/contracts/${ID}/coupons`, { code: 'PRINTEMPS' })).status).toBe(200)
  await service.send({ tenant: TENANT, metric: 'kyc_verification', count: 620 })
  await service.send({ tenant: TENANT, metric: 'mcp_call', count: 850 })
  await service.system.settle()
  service.endMarch()
  await call('POST', `/v1/contracts/${ID}/move`, { state: 'suspended', on: '2026-04-01', reason: 'test' })
  const closed = await service.system.billing.closePeriod({ contract: ID, at: MARCH.from })
  invoice = closed.invoice!.invoice.id
}, 180_000)
afterAll(async () => {
  await app?.close()
  await service?.close()
})

const equal = async (): Promise<void> => {
  const found = await service.system.billing.verifyInvoice(invoice)
  expect([found.equal, found.lines.flatMap((line) => line.differences), found.document]).toEqual([true, [], []])
}

test('a contract is put back as it was read, alone or out of the list => accepted, nothing is changed; the same for every contract there is', async () => {
  const before = await read()
  expect(before).toMatchObject({ state: 'suspended', moves: expect.any(Array), history: expect.any(Array) })
  expect((before.renewal as object) && Object.keys(before.renewal as object)).toContain('noticeBy')
  const version = service.system.catalog.book().version
  const answer = await put(before)
  expect([answer.status, answer.body.changed, answer.body.effectiveFrom]).toEqual([200, false, '2026-04-01'])
  const { contracts } = (await call('GET', '/v1/contracts')).body
  expect(contracts.map(({ id }: { id: string }) => id)).toContain(ID)
  for (const one of contracts) {
    for (const again of [one, (await call('GET', `/v1/contracts/${one.id}`)).body]) {
      const { status, body } = await put(again)
      expect([one.id, status, body.changed]).toEqual([one.id, 200, false])
    }
  }
  expect(await read()).toEqual(before)
  expect(service.system.catalog.book().version).toBe(version)
  await equal()
})

interface Item {
  id: string
  addOns: { name: string; quantity: string }[]
}
type Edit = (contract: ContractInput & { adjustments: { discounts: object[] }; items: Item[] }) => unknown

const item = (id: string, change: object): Edit => {
  return (c) => ({ ...c, items: c.items.map((one) => (one.id === id ? { ...one, ...change } : one)) })
}
const addOns = (change: (all: Item['addOns']) => object[]): Edit => {
  return (c) => item('base', { addOns: change(c.items[0]!.addOns) })(c)
}
const discounts = (change: (all: object[]) => object[]): Edit => {
  return (c) => ({ ...c, adjustments: { ...c.adjustments, discounts: change(c.adjustments.discounts) } })
}
const anItem = { id: 'new', plan: 'oid-starter', kind: 'fixed' }

test.each<[string, string, Edit]>([
  ['items.base.plan', 'another plan', item('base', { plan: 'oid-enterprise' })],
  ['items.base.kind', 'only its fee', item('base', { kind: 'fixed', calculators: [], prepaid: [] })],
  ['items.base.from', 'a later first day', item('base', { from: '2026-03-03' })],
  ['items.base.until', 'an end within what is invoiced', item('base', { until: '2026-03-30' })],
  ['items.agents.until', 'one that had ended goes on', item('agents', { until: undefined })],
  ['items.agents.subjects', 'whose usage it is', item('agents', { subjects: ['agent-3'] })],
  ['items.suite.from', 'one that was to come had come', item('suite', { from: '2026-03-31' })],
  ['items.agents', 'removed', (c) => ({ ...c, items: c.items.filter(({ id }) => id !== 'agents') })],
  ['items.new', 'added as of the beginning', (c) => ({ ...c, items: [...c.items, anItem] })],
  ['items.new', 'added', (c) => ({ ...c, items: [...c.items, { ...anItem, from: '2026-03-31' }] })],
  ['items.base.addOns', 'more of an add-on', addOns(([a, b]) => [{ ...a, quantity: '4' }, b!])],
  ['items.base.addOns', 'an add-on less', addOns(([a]) => [a!])],
  [
    'items.base.addOns',
    'an add-on more',
    addOns((all) => [...all, { name: 'x', rule: 'addon_seats', from: '2026-03-31' }]),
  ],
  ['end', 'an end within what is invoiced', (c) => ({ ...c, end: '2026-03-30' })],
  ['billedFrom', 'a day earlier', (c) => ({ ...c, billedFrom: '2026-03-01' })],
  ['pauses', 'a suspension that was', (c) => ({ ...c, pauses: [{ from: '2026-03-12', until: '2026-03-13' }] })],
  ['adjustments.discounts', 'another percentage', discounts(([a, ...more]) => [{ ...a, value: '20' }, ...more])],
  ['adjustments.discounts', 'taken away', discounts((all) => all.slice(1))],
  ['adjustments.discounts', 'given', discounts((all) => [...all, { name: 'x', kind: 'amount', value: '1' }])],
])(
  'refused: %s, %s => 409 that names the field, the period and the day from which it may be; nothing is changed',
  async (field, _, edit) => {
    const before = await read()
    const { status, body } = await put(edit(before as never))
    expect([status, body.detail]).toEqual([
      409,
      expect.stringMatching(
        new RegExp(
          `^${field.replaceAll('.', '\\.')}: the period from 2026-03-01 to 2026-03-31 is invoiced and stays .*${ID} may change from 2026-04-01 on: .+ credit note`,
        ),
      ),
    ])
    expect(await read()).toEqual(before)
  },
)

const until = { until: '2026-03-31' }
const from = { from: '2026-04-01' }
test.each<[string, Edit]>([
  ['a name', (c) => ({ ...c, name: 'renommé' })],
  ['an end to come', (c) => ({ ...c, end: '2026-03-31' })],
  [
    'an item ends with what is invoiced, and another begins',
    (c) => {
      return { ...c, items: [{ ...c.items[0]!, ...until }, ...c.items.slice(1), { ...anItem, ...from }] }
    },
  ],
  ['an item to come is dropped', (c) => ({ ...c, items: c.items.filter(({ id }) => id !== 'suite') })],
  ['an item to come has another plan', item('suite', { plan: 'oid-starter' })],
  ['more of an add-on from a day on', addOns(([a, b]) => [{ ...a, ...until }, b!, { ...a, quantity: '4', ...from }])],
  [
    'a discount that begins in mid-month counts from the next period',
    discounts((all) => [...all, { name: 'x', kind: 'amount', value: '1', from: '2026-03-02' }]),
  ],
  ['a discount ends with the last invoiced period', discounts((all) => all.map((one) => ({ ...one, ...until })))],
  ['quotas, without a day', item('base', { entitlements: [{ metric: 'kyc_verification', limit: '10' }], prepaid: [] })],
  ['minimum and cap, without a day', (c) => ({ ...c, adjustments: { ...c.adjustments, minimum: '1', maximum: '2' } })],
  ['policies', (c) => ({ ...c, suspension: 'pauses_fees', late: { usage: 'reject' }, taxBehavior: 'inclusive' })],
  ['calculators', item('base', { calculators: [] })],
])(
  `accepted: %s => its effect begins where nothing is invoiced, and the invoice is still equal ${promises('invoice:issued-never-changes')}`,
  async (_, edit) => {
    const before = await read()
    const { status, body } = await put(edit(before as never))
    expect([status, body.detail ?? body.changed, body.effectiveFrom]).toEqual([200, true, '2026-04-01'])
    await equal()
    // Back again: an open end and the absence of members must be said.
    expect((await put({ ...before, end: null })).status).toBe(200)
    const { renewal: _r, moves: _m, ...rest } = await read()
    expect(rest).toMatchObject({ name: before.name, items: (before.items as Item[]).map(({ id }) => ({ id })) })
  },
)

test('a notice whose term has been invoiced is refused as well: every way to change a contract keeps what is invoiced', async () => {
  const month = {
    ...seedContracts[1]!,
    id: 'mensuel',
    tenant: TENANT,
    items: [{ id: 'mensuel/1', plan: 'oid-starter' }],
  }
  expect((await put({ ...month, start: '2026-02-01' })).body.effectiveFrom).toBe(null)
  for (const at of [Date.UTC(2026, 1, 1), MARCH.from])
    await service.system.billing.closePeriod({ contract: 'mensuel', at })
  const notice = (on: string) => call('POST', '/v1/contracts/mensuel/notice', { on, reason: 'r' })
  const early = await notice('2026-02-10')
  expect([early.status, early.body.detail]).toEqual([
    409,
    expect.stringMatching(
      /^end: the period from 2026-03-01 to 2026-03-31 is invoiced .* choose 2026-03-31 or a later day/,
    ),
  ])
  const late = await notice('2026-04-02')
  expect([late.status, late.body.value?.end]).toEqual([200, '2026-04-30'])
  const { status, body } = await call('POST', '/v1/contracts/mensuel/move', {
    state: 'cancelled',
    reason: 'r',
    on: '2026-03-10',
  })
  expect([status, body.detail]).toEqual([409, expect.stringContaining('invoiced up to 2026-04-01')])
})

describe('a draft whose contract is changed', () => {
  const id = 'brouillon'
  const contract = (minimum: string) => ({
    ...seedContracts[1]!,
    id,
    tenant: TENANT,
    start: '2026-03-01',
    items: [{ id: `${id}/1`, plan: 'oid-starter' }],
    adjustments: { minimum },
  })
  const draft = async () =>
    (await service.system.billing.closePeriod({ contract: id, at: MARCH.from, finalise: false })).invoice!

  test('is not issued by hand before it was counted again; a change of what it does not bill does not matter', async () => {
    expect((await put(contract('100'))).status).toBe(200)
    const made = await draft()
    expect(made.invoice.ht).toBe('100.00')
    expect((await put(contract('250'))).body).toMatchObject({ changed: true, effectiveFrom: null })
    const issue = (invoice: string) => call('POST', `/v1/invoices/${invoice}/moves`, { to: 'finalised' })
    const refused = await issue(made.invoice.id)
    expect([refused.status, refused.body.detail]).toEqual([409, expect.stringContaining(`${id} was changed since`)])
    const again = (await call('POST', `/v1/invoices/${made.invoice.id}/refresh`, {})).body
    expect(again.invoice.invoice.ht).toBe('250.00')
    expect((await put({ ...contract('250'), name: 'autre', end: '2026-06-30' })).status).toBe(200)
    const issued = await issue(again.invoice.invoice.id)
    expect([issued.status, issued.body.state]).toEqual([200, 'finalised'])
    // Issued by a person, it is invoiced as what a closing has issued is.
    const { status, body } = await put({ ...contract('250'), end: '2026-03-30' })
    expect([status, body.detail]).toEqual([409, expect.stringMatching(/^end: the period from 2026-03-01/)])
  })

  test('is counted again by the closing that issues it', async () => {
    const other = { ...contract('100'), id: 'lot', items: [{ id: 'lot/1', plan: 'oid-starter' }] }
    await put(other)
    const made = await service.system.billing.closePeriod({ contract: 'lot', at: MARCH.from, finalise: false })
    await put({ ...other, adjustments: { minimum: '400' } })
    const report = await service.system.billing.closeDuePeriods({ at: MARCH.from, tenant: TENANT })
    expect(report.failures).toEqual([])
    const { invoice: issued, state } = (await service.system.invoicing.ofPeriod('lot', MARCH.from))!
    expect([state, issued.ht, issued.id === made.invoice!.invoice.id]).toEqual(['finalised', '400.00', false])
  })
})

/** mulberry32: the same numbers each time, so that what fails can be looked at. */
function numbers(seed: number): (below: number) => number {
  let a = seed
  return (below) => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4_294_967_296) * below)
  }
}

test('any two versions of a contract: what is accepted bills every invoiced period the same, to the byte; what is refused mostly does not', () => {
  const book = service.system.catalog.book()
  const parsed = book.contractOf(ID)
  const outcomes = { accepted: 0, refused: 0, needless: 0 }
  for (let seed = 1; seed <= 1_000; seed += 1) {
    const random = numbers(seed)
    const pick = <T>(...all: readonly T[]): T => all[random(all.length)]!
    const day = (): string => `2026-0${2 + random(4)}-${String(1 + random(28)).padStart(2, '0')}`
    const days = (): { from?: string; until?: string } => {
      const [a, b] = [day(), day()].sort()
      return { ...(random(2) === 0 ? { from: a! } : {}), ...(random(3) === 0 ? { until: b! } : {}) }
    }
    const { billedFrom: _b, trial: _t, pauses: _p, adjustments: _a, suspension: _s, ...base } = parsed
    const made = (): Contract['items'][number] => ({
      id: 'a',
      plan: pick('oid-business', 'oid-enterprise'),
      planVersion: 1,
      entitlements: [],
      ...days(),
      ...(random(3) === 0
        ? { addOns: [{ name: 's', rule: 'addon_seats', quantity: pick('1', '2'), once: false, ...days() }] }
        : {}),
    })
    const first: Contract = {
      ...base,
      cycle: pick('monthly' as const, 'weekly' as const),
      items: random(2) === 0 ? [made()] : [made(), { ...made(), id: 'b' }],
      ...(random(3) === 0 ? { pauses: [{ from: day(), until: '2026-06-01' }] } : {}),
      adjustments: { discounts: random(2) === 0 ? [] : [{ name: 'd', kind: 'percent', value: '10', ...days() }] },
    }
    const edited = ((): Contract => {
      switch (random(6)) {
        case 0:
          return { ...first, items: first.items.map((one, i) => (i === 0 ? { ...one, ...days() } : one)) }
        case 1:
          return { ...first, items: [...first.items, { ...made(), id: 'c' }] }
        case 2:
          return { ...first, items: first.items.slice(1) }
        case 3:
          return { ...first, adjustments: { discounts: [{ name: 'd', kind: 'percent', value: '10', ...days() }] } }
        case 4:
          return { ...first, ...pick({ end: day() }, { pauses: [{ from: day() }] }) }
        default:
          return { ...first, items: first.items.map((one, i) => (i === 0 ? { ...made(), id: one.id } : one)) }
      }
    })()
    const until = periodAt(first, Date.UTC(2026, 2 + random(3), 1 + random(28))).to
    const billed = (contract: Contract): string => {
      const all: unknown[] = []
      const with_ = book.with(book.version + 1, { contracts: [contract] })
      for (
        let period = periodAt(contract, Date.UTC(2026, 1, 1));
        period.to <= until;
        period = periodAt(contract, period.to)
      ) {
        const { lines, ht } = draftInvoice('i', with_.terms(ID, period), period, [])
        all.push([lines.map(({ item, label, amount, explanation }) => ({ item, label, amount, explanation })), ht])
      }
      return JSON.stringify(all)
    }
    const refused = alteredInvoiced(book, first, edited, until)
    outcomes[refused === null ? 'accepted' : 'refused'] += 1
    const changed = billed(first) !== billed(edited)
    // Of days for which nothing was due (suspended, without an item, in a week before the month's end) the contract alone says more.
    if (!changed && refused !== null) outcomes.needless += 1
    else expect([seed, changed, refused]).toEqual([seed, refused !== null, refused])
  }
  expect(Math.min(outcomes.accepted, outcomes.refused)).toBeGreaterThan(100)
  expect(outcomes.needless * 4).toBeLessThan(outcomes.refused)
})
