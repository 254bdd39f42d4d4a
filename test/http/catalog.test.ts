/** Prices and contracts over HTTP: what a change answers, what is refused and why, and rating without storing. */
import { beforeAll, describe, expect, test } from 'vitest'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
beforeAll(async () => {
  t = await openTestSystem()
}, 120_000)

const plain = (text: string): string => text.replaceAll('\u00a0', ' ')

async function call(method: 'GET' | 'PUT' | 'POST', url: string, body?: object, headers = t.admin) {
  const answer = await t.app.inject({
    method,
    url,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  })
  return { status: answer.statusCode, body: answer.json() }
}

const kyc = {
  rule_id: 'overage_oid_kyc',
  type: 'per_unit',
  metric: 'kyc_verification',
  tiers: [
    { from: 51, to: 100, unit_price: 2.5 },
    { from: 101, to: null, unit_price: 2.0 },
  ],
  currency: 'EUR',
}

describe('POST /v1/rating/preview', () => {
  const preview = (body: object, headers = t.admin) => call('POST', '/v1/rating/preview', body, headers)

  test("the seed's rule as it is printed: lines, tiers used, amount and words", async () => {
    const { status, body } = await preview({ price: kyc, quantity: '120', included: '50' })
    expect([status, body.total, body.currency, body.unpriced]).toEqual([200, '165.00', 'EUR', '0'])
    expect(body.lines[0].steps.map((s: Record<string, string>) => [s.after, s.upTo, s.quantity, s.amount])).toEqual([
      ['50', '100', '50', '125.00'],
      ['100', null, '20', '40.00'],
    ])
    expect(plain(body.explanation.fr)).toBe(
      '120 kyc_verification, dont 50 inclus : 50 × 2,50 € (tranche 51 à 100) + 20 × 2,00 € (à partir de 101) = 165,00 €',
    )
    const taxed = { price: { ...kyc, tax_behavior: 'inclusive' }, quantity: '120', included: '50', taxRate: '18' }
    expect((await preview(taxed)).body).toMatchObject({
      taxBehavior: 'inclusive',
      tax: { rate: '18', ttc: body.total },
    })
    expect((await preview({ ...taxed, taxRate: '101' })).status).toBe(400)
    const none = await preview({ price: kyc, quantity: '50' })
    expect([none.body.total, none.body.lines, plain(none.body.explanation.en)]).toEqual([
      '0.00',
      [],
      '50 kyc_verification: nothing above what is included = 0.00 EUR',
    ])
  })

  test('a metric that has a name is called by it, whether something is due or not', async () => {
    const name = { fr: 'scans de quai', en: 'dock scans' }
    await call('PUT', '/v1/metrics-catalog', { key: 'dock', name, aggregation: 'sum', unit: 'scan', scale: 0 })
    const price = { rule_id: 'dock', type: 'per_unit', metric: 'dock', unit_price: '2', currency: 'EUR' }
    const words = async (quantity: string) =>
      plain((await preview({ price, quantity, included: '5' })).body.explanation.en)
    expect(await words('8')).toBe('8 dock scans, 5 included: 3 × 2.00 EUR = 6.00 EUR')
    expect(await words('4')).toBe('4 dock scans: nothing above what is included = 0.00 EUR')
  })

  test('a stored price by its rule, and a quantity in the unit and rounding of its metric', async () => {
    await call('PUT', '/v1/metrics-catalog', {
      key: 'talk',
      aggregation: 'sum',
      unit: 'min',
      scale: 3,
      rounding: { mode: 'up', places: 0 },
    })
    const rule = {
      rule_id: 'price-talk',
      type: 'per_unit',
      metric: 'talk',
      unit: 'h',
      unit_price: '6',
      currency: 'EUR',
    }
    await call('POST', '/v1/prices', { rule, version: '1.0', status: 'active', effectiveFrom: 0 })
    const { body } = await preview({ price: { rule: 'price-talk' }, quantity: '89.2', included: '30' })
    expect([body.total, body.quantity]).toEqual(['6.00', '1.5'])
    expect(plain(body.explanation.fr)).toBe(
      '89,2 min = 90 min (arrondi au supérieur) = 1,5 h ; 1,5 talk, dont 0,5 inclus : 1 × 6,00 € = 6,00 €',
    )
  })

  test(`a tenant's key previews the stored prices of its contracts alone ${promises('tenant:isolated')}`, async () => {
    const body = { price: { rule: 'price-data', version: '1.0' }, quantity: '3' }
    expect((await preview(body, await t.key('alpha', ['read']))).body.total).toBe('6.00')
    expect((await preview(body, await t.key('gamma', ['read']))).status).toBe(404)
  })

  test('what cannot be rated is refused with its field', async () => {
    const refused = async (body: object): Promise<[number, string]> => {
      const answer = await preview(body)
      return [answer.status, answer.body.detail]
    }
    expect(await refused({ price: kyc, quantity: '-1' })).toEqual([
      422,
      expect.stringMatching(/^quantity: -1 is negative/),
    ])
    expect(await refused({ price: kyc, quantity: '1,5' })).toEqual([400, expect.stringMatching(/^quantity: a decimal/)])
    expect(await refused({ price: { ...kyc, type: 'magic' }, quantity: '1' })).toEqual([
      400,
      expect.stringMatching(/^type: one of/),
    ])
    expect(await refused({ price: { rule: 'nowhere' }, quantity: '1' })).toEqual([404, 'price: there is no nowhere'])
  })
})

describe('POST /v1/rating/compare', () => {
  const compare = (body: object, headers = t.admin) =>
    call('POST', '/v1/rating/compare', { currency: 'EUR', ...body }, headers)
  const price = (rule: object) =>
    call('POST', '/v1/prices', {
      rule: { currency: 'EUR', ...rule },
      version: '1.0',
      status: 'active',
      effectiveFrom: 0,
    })
  beforeAll(async () => {
    await price({ rule_id: 'fee-large', type: 'flat_fee', amount: '100' })
    await price({ rule_id: 'fee-yearly', type: 'flat_fee', amount: '900', billing_cycle: 'yearly' })
    await price({ rule_id: 'price-franc', type: 'per_unit', metric: 'data', unit_price: '1', currency: 'XOF' })
    const plan = (key: string, feeRule: string | null, metrics: object[]) =>
      call('PUT', '/v1/plans', { key, product: 'P', name: key, feeRule, metrics })
    await plan('large', 'fee-large', [
      { metric: 'data', included: '1000', rule: 'price-data' },
      { metric: 'users', included: null, rule: null },
    ])
    await plan('yearly', 'fee-yearly', [])
    await plan('franc', null, [{ metric: 'data', included: '0', rule: 'price-franc' }])
  })
  const both = [{ key: 'plan' }, { key: 'large' }]
  const plans = (body: { plans: { plan: string; total: string; unpriced: string[] }[] }) =>
    body.plans.map((one) => [one.plan, one.total, one.unpriced])

  test('totals by plan, what has no price, and the cheapest that prices all of it', async () => {
    // 150 of 100 included at 2.00, or 100.00 with 1000 included: a tie, that the held plan wins.
    const tie = await compare({ plans: both, usage: { data: '150' } })
    expect([tie.status, plans(tie.body), tie.body.cheapest]).toEqual([
      200,
      [
        ['plan', '100.00', []],
        ['large', '100.00', []],
      ],
      { plan: 'plan', version: 1 },
    ])
    expect((await compare({ plans: both, usage: { data: '150' }, held: 'large' })).body.cheapest.plan).toBe('large')
    const over = await compare({ plans: both, usage: { data: '50', users: '11' } })
    expect([plans(over.body), over.body.cheapest.plan]).toEqual([
      [
        ['plan', '0.00', ['users']],
        ['large', '100.00', []],
      ],
      'large',
    ])
    // A metric that the plan does not know has no price in it.
    const none = await compare({ plans: [{ key: 'large' }], usage: { calls: '1' } })
    expect([plans(none.body), none.body.cheapest]).toEqual([[['large', '100.00', ['calls']]], null])
  })

  test('what cannot be compared is refused with its reason', async () => {
    const refused = async (body: object): Promise<[number, string]> => {
      const answer = await compare(body)
      return [answer.status, answer.body.detail]
    }
    const usage = { data: '1' }
    expect(await refused({ plans: [{ key: 'large' }, { key: 'yearly' }], usage })).toEqual([
      422,
      expect.stringMatching(/^plans: their fees are monthly and yearly/),
    ])
    expect(await refused({ plans: [{ key: 'franc' }], usage })).toEqual([422, 'plans: price-franc is in XOF, not EUR'])
    expect(await refused({ plans: [{ key: 'nowhere' }], usage })).toEqual([404, 'plan: there is no nowhere'])
    expect(await refused({ plans: both, usage: { nothing: '1' } })).toEqual([404, 'metric: there is no nothing'])
    expect(await refused({ plans: both, usage: { peak: '1,5' } })).toEqual([
      400,
      expect.stringMatching(/^usage.peak: /),
    ])
  })

  test(`a tenant's key compares the plans of its contracts alone ${promises('tenant:isolated')}`, async () => {
    const key = await t.key('alpha', ['read'])
    expect((await compare({ plans: [{ key: 'plan' }], usage: {} }, key)).status).toBe(200)
    expect((await compare({ plans: [{ key: 'large' }], usage: {} }, key)).status).toBe(404)
  })
})

describe('POST /v1/prices', () => {
  const post = async (rule: object) => {
    const { status, body } = await call('POST', '/v1/prices', { rule: { currency: 'EUR', metric: 'data', ...rule } })
    return {
      status,
      detail: body.detail as string,
      codes: (body.findings ?? []).map((one: { code: string }) => one.code),
    }
  }

  test('answers what is probably not meant', async () => {
    const tiers = [
      { up_to: 100, unit_price: '2' },
      { up_to: null, unit_price: '1' },
    ]
    expect((await post({ rule_id: 'falls', type: 'volume', tiers })).codes).toEqual(['volume_price_falls'])
    expect((await post({ rule_id: 'rises', type: 'tiered', tiers })).codes).toEqual([])
    expect((await post({ rule_id: 'free', type: 'per_unit', unit_price: '0' })).codes).toEqual(['price_is_zero'])
    const fee = { rule_id: 'fine', type: 'flat_fee', amount: '9.999' }
    expect((await post({ ...fee, metric: undefined })).codes).toEqual(['price_finer_than_currency'])
    const hours = { rule_id: 'hours', type: 'per_unit', metric: 'talk', unit: 'h', unit_price: '1' }
    expect((await post(hours)).codes).toEqual(['conversion_does_not_end'])
  })

  test('refuses gaps, a last tier that is not open, and a unit that does not match, with the reason', async () => {
    const gap = [
      { from: 1, to: 10, unit_price: '1' },
      { from: 12, to: null, unit_price: '1' },
    ]
    const refused = async (rule: object, reason: RegExp): Promise<void> => {
      const { status, detail } = await post(rule)
      expect([status, detail]).toEqual([422, expect.stringMatching(reason)])
    }
    await refused({ rule_id: 'gap', type: 'tiered', tiers: gap }, /12 leaves a gap or an overlap behind 10/)
    await refused({ rule_id: 'shut', type: 'tiered', tiers: [gap[0]] }, /the last tier must be open/)
    await refused(
      { rule_id: 'kwh', type: 'per_unit', metric: 'talk', unit: 'kWh', unit_price: '1' },
      /min does not convert to kWh/,
    )
  })
})

describe('GET /v1/catalog/lint', () => {
  test('a plan whose card prints the first tier alone', async () => {
    const tiers = [
      { up_to: 10, unit_price: '2' },
      { up_to: null, unit_price: '1' },
    ]
    const rule = { rule_id: 'two-tiers', type: 'tiered', metric: 'data', currency: 'EUR', tiers }
    await call('POST', '/v1/prices', { rule, version: '1.0', status: 'active', effectiveFrom: 0 })
    const put = async (cardPrice: string) => {
      const metrics = [{ metric: 'data', included: '0', rule: 'two-tiers', cardPrice }]
      return (await call('PUT', '/v1/plans', { key: 'card', product: 'P', name: 'card', metrics })).status
    }
    const found = async () => {
      const { findings } = (await call('GET', '/v1/catalog/lint')).body
      return findings.filter((one: { at: string }) => one.at === 'plan card').map((one: { code: string }) => one.code)
    }
    expect([await put('2'), await found()]).toEqual([200, ['card_shows_first_tier']])
    expect([await put('1.5'), await found()]).toEqual([200, []])
    expect(await put('two')).toBe(400)
  })

  test('overage without a price, units that nothing converts, currencies that differ', async () => {
    const { body } = await call('GET', '/v1/catalog/lint')
    const codes = new Set(body.findings.map((one: { code: string }) => one.code))
    expect([...codes]).toEqual(expect.arrayContaining(['overage_without_price', 'unit_unknown']))
  })
})

test("a metric's unit is locked: Go is not Mo", async () => {
  const metric = { key: 'volume', aggregation: 'sum', unit: 'Mo', scale: 3 }
  expect((await call('PUT', '/v1/metrics-catalog', metric)).status).toBe(200)
  const changed = await call('PUT', '/v1/metrics-catalog', { ...metric, unit: 'Go' })
  expect([changed.status, changed.body.detail]).toEqual([
    409,
    'unit: volume counts in Mo and stays so; make a metric with another key',
  ])
  expect((await call('PUT', '/v1/metrics-catalog', { ...metric, scale: 6 })).body.value.version).toBe(2)
})

describe('a price is made active and archived by its name', () => {
  const of = (version: string, move: string, body?: object) =>
    call('POST', `/v1/prices/by-name/${version}/${move}`, body)

  test('a draft with a finding, active from now on, archived; what is not there or cannot be is told', async () => {
    const rule = { rule_id: 'by-name', type: 'per_unit', metric: 'nobody-counts', unit_price: '1', currency: 'EUR' }
    const made = (await call('POST', '/v1/prices', { rule, effectiveFrom: 0 })).body
    expect([made.value.status, made.findings]).toEqual([
      'draft',
      [{ code: 'metric_unknown', at: 'price by-name', message: expect.stringContaining('there is no metric') }],
    ])
    const active = (await of('1.0', 'activate', {})).body.value
    expect([active.status, active.effectiveFrom]).toEqual(['active', t.clock.now()])
    expect((await of('1.0', 'activate', { from: 1 })).body.detail).toMatch(/^from: is not known here/)
    expect((await of('1.0', 'archive')).body.value).toMatchObject({ status: 'archived', archivedAt: t.clock.now() })
    expect((await of('1.9', 'archive')).status).toBe(404)
  })
})

test('a body that is wrong is answered with the member that is wrong, wherever it lies', async () => {
  const detail = async (url: string, body: object) => (await call('POST', url, body)).body.detail
  expect(await detail('/v1/rating/preview', { price: kyc })).toBe('quantity: is needed')
  expect(await detail('/v1/rating/preview', { price: kyc, quantity: '1', qty: '2' })).toMatch(/^qty: is not known here/)
  expect(await detail('/v1/rating/preview', { price: kyc, quantity: '1', amounts: [{ amount: '1' }] })).toBe(
    'amounts[0].count: is needed',
  )
  expect(await detail('/v1/contracts/x/move', { state: 'gone', reason: 'r' })).toBe(
    'state: one of provisioned, trial, active, suspended, cancelled is expected',
  )
  expect(await detail('/v1/contracts/x/move', { state: 'active', reason: '' })).toMatch(/^reason: must NOT have fewer/)
})

describe('a trial, from its beginning to a contract that renews', () => {
  const by = { reason: 'demande du client' }
  const url = '/v1/contracts/contract-gamma'

  test('extended, converted, suspended and lifted, each with its reason in the history; the funnel follows', async () => {
    const trial = { start: '2026-03-20', graceDays: 7 }
    const contract = {
      id: 'contract-gamma',
      tenant: 'gamma',
      legalEntity: 'seller',
      start: '2026-03-20',
      timeZone: 'UTC',
      state: 'trial',
      trial,
      items: [{ id: 'item-gamma', plan: 'plan' }],
    }
    expect((await call('PUT', '/v1/contracts', contract)).status).toBe(200)
    await t.send([{ id: 'g1', tenant: 'gamma', metric: 'data', value: '42' }])
    const running = (await call('GET', '/v1/trials')).body
    expect(running.trials).toMatchObject([
      { tenant: 'gamma', plans: ['Plan'], ends: '2026-04-03', daysLeft: 3, status: 'active', usagePercent: '42.0' },
    ])
    expect((await call('POST', '/v1/trials/contract-gamma/extend', by)).body.value.trial.extensionDays).toBe(7)
    expect((await call('GET', '/v1/trials')).body.trials[0]).toMatchObject({ ends: '2026-04-10', daysLeft: 10 })
    expect((await call('POST', '/v1/trials/contract-gamma/convert', { ...by, on: '2026-03-31' })).status).toBe(200)
    const { funnel } = (await call('GET', '/v1/trials', undefined, await t.key('gamma', ['read']))).body
    expect(funnel).toMatchObject({ started: 1, active: 0, converted: 1, conversionPercent: '100.0' })

    expect((await call('POST', `${url}/move`, { state: 'trial', ...by })).status).toBe(409)
    expect((await call('POST', `${url}/move`, { state: 'suspended' })).status).toBe(400)
    await call('POST', `${url}/move`, { state: 'suspended', ...by })
    await call('POST', `${url}/move`, { state: 'active', ...by })
    const { body } = await call('GET', url)
    expect(
      body.history.map((one: Record<string, string>) => [one.kind, one.from, one.to, one.detail, one.reason]),
    ).toEqual([
      ['trial_extended', 'trial', 'trial', '+7 d', by.reason],
      ['move', 'trial', 'active', null, by.reason],
      ['move', 'active', 'suspended', null, by.reason],
      ['move', 'suspended', 'active', null, by.reason],
    ])
    expect([body.state, body.moves, body.billedFrom]).toEqual(['active', ['suspended', 'cancelled'], '2026-03-31'])
    expect(body.renewal).toMatchObject({ nextRenewal: '2026-04-20', noticeBy: '2026-04-19', endsOn: null })
  })

  test('renewals that come are listed, and notice ends the contract with its term', async () => {
    const ended = {
      ...{ id: 'contract-ended', tenant: 'gamma', legalEntity: 'seller', timeZone: 'UTC' },
      ...{ start: '2026-01-01', end: '2026-03-30', items: [] },
    }
    expect((await call('PUT', '/v1/contracts', ended)).status).toBe(200)
    const due = (await call('GET', '/v1/renewals?days=20')).body.renewals
    expect(due.map((one: Record<string, string>) => [one.contract, one.nextRenewal])).toEqual([
      ['contract-alpha', '2026-04-01'],
      ['contract-sigma', '2026-04-01'],
      ['contract-gamma', '2026-04-20'],
    ])
    const noticed = (await call('POST', `${url}/notice`, by)).body
    expect(noticed.renewal).toMatchObject({ nextRenewal: null, endsOn: '2026-04-19' })
  })
})
