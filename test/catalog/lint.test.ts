/** Every finding of the catalogue's lint, each with the smallest catalogue that has it, and one that has none. Pure. */
import { describe, expect, test } from 'vitest'
import { Book, type BookParts } from '../../src/catalog/book.js'
import { lint, lintCard } from '../../src/catalog/lint.js'
import { parsePrice } from '../../src/catalog/price.js'

type Loose = Record<string, unknown>

const rule = (changes: Loose = {}): Loose => ({
  ...{ rule_id: 'r', type: 'per_unit', metric: 'm', unit_price: '0.10', currency: 'EUR' },
  ...changes,
})
const fee = (changes: Loose = {}): Loose => ({
  rule_id: 'fee',
  type: 'flat_fee',
  amount: '10',
  currency: 'EUR',
  ...changes,
})
const tiers = (...all: [number | null, string][]) => all.map(([up_to, unit_price]) => ({ up_to, unit_price }))

/** A catalogue in which nothing is to be found; `changes` break it. */
function codes(changes: {
  prices?: Loose[]
  metric?: Loose
  plan?: Loose
  customer?: Loose
  entitlements?: string[]
  addOns?: string[]
  status?: 'draft' | 'archived'
}): string[] {
  const prices = changes.prices ?? [fee(), rule()]
  const metric = {
    key: 'm',
    version: 1,
    aggregation: 'sum',
    unit: 'call',
    scale: 0,
    dims: [],
    uniqueBy: null,
    archive: true,
  }
  const plan = {
    ...{ key: 'p', version: 1, product: 'P', name: 'P', feeRule: 'fee', features: [] },
    metrics: [{ metric: 'm', included: '10', rule: 'r' }],
  }
  const customer = { tenant: 't', country: 'FR', currency: 'EUR', taxRate: '20', taxCategory: 'S' }
  const entitlements = (changes.entitlements ?? ['m']).map((one) => ({
    metric: one,
    limit: '10',
    limitVersion: 1,
    thresholds: [],
  }))
  const addOns = (changes.addOns ?? []).map((one) => ({ name: one, rule: one, quantity: '1', once: false }))
  const items = [{ id: 'i', plan: 'p', planVersion: 1, entitlements, addOns }]
  const contract = {
    id: 'c',
    tenant: 't',
    start: '2026-01-01',
    timeZone: 'UTC',
    cycle: 'monthly',
    state: 'active',
    items,
  }
  const parts = {
    version: 1,
    metrics: [{ ...metric, ...changes.metric }],
    products: [{ key: 'P', name: 'P' }],
    plans: [{ ...plan, ...changes.plan }],
    prices: prices.map((definition) => ({
      ...{
        rule: definition.rule_id,
        version: '1.0',
        status: changes.status ?? 'active',
        effectiveFrom: 0,
        definition,
        billed: false,
      },
    })),
    legalEntities: [],
    customers: [{ ...customer, ...changes.customer }],
    contracts: [contract],
  }
  return lint(new Book(parts as unknown as BookParts)).map((finding) => finding.code)
}

test('a catalogue that is meant as it stands has no finding', () => {
  expect(codes({})).toEqual([])
})

describe('each finding', () => {
  const withMetric = (included: string | null, of: string | null) => ({
    metrics: [{ metric: 'm', included, rule: of }],
  })
  const volume = (...all: [number | null, string][]): Loose[] => [
    fee(),
    { rule_id: 'r', type: 'volume', metric: 'm', currency: 'EUR', tiers: tiers(...all) },
  ]
  test.each<[string, Parameters<typeof codes>[0]]>([
    ['overage_without_price', { plan: withMetric('10', null) }],
    ['unlimited_with_price', { plan: withMetric(null, 'r') }],
    ['rule_missing', { plan: withMetric('10', 'nowhere') }],
    ['metric_unknown', { prices: [fee(), rule({ metric: 'other' })] }],
    ['rule_not_in_force', { status: 'draft' }],
    ['rule_not_in_force', { status: 'archived' }],
    ['rule_of_other_metric', { prices: [fee(), rule({ metric: 'other' })] }],
    [
      'tiers_do_not_meet_quota',
      {
        prices: [
          fee(),
          {
            ...{ rule_id: 'r', type: 'tiered', metric: 'm', currency: 'EUR' },
            tiers: [{ from: 21, to: null, unit_price: '1' }],
          },
        ],
      },
    ],
    ['volume_price_falls', { prices: volume([10, '1'], [null, '0.5']) }],
    ['price_is_zero', { prices: [fee(), rule({ unit_price: '0' })] }],
    ['price_finer_than_currency', { prices: [fee({ amount: '10.005' }), rule()] }],
    ['conversion_does_not_end', { metric: { unit: 'min' }, prices: [fee(), rule({ unit: 'h' })] }],
    ['currencies_differ', { prices: [fee(), rule({ currency: 'XOF' })] }],
    ['includes_differ', { prices: [fee({ includes: { m: 11 } }), rule()] }],
    ['tax_rate_unknown', { customer: { taxRate: '21' } }],
    ['currency_of_other_customer', { customer: { currency: 'XOF' } }],
    [
      'currency_of_other_customer',
      { addOns: ['option'], prices: [fee(), rule(), fee({ rule_id: 'option', currency: 'USD' })] },
    ],
    ['units_do_not_convert', { metric: { unit: 'h' }, prices: [fee(), rule({ unit: 'Go' })] }],
    ['metric_missing_from_plan', { entitlements: ['m', 'stray'] }],
    ['unit_unknown', { metric: { unit: 'fathom' } }],
  ])('%s', (code, changes) => {
    expect(codes(changes)).toContain(code)
  })

  test('a quota is held against the tiers in the unit that they are for', () => {
    const gigabytes = (from: number, included: string) => ({
      metric: { unit: 'Mo' },
      plan: withMetric(included, 'r'),
      prices: [
        fee(),
        {
          ...{ rule_id: 'r', type: 'tiered', metric: 'm', unit: 'Go', currency: 'EUR' },
          tiers: [{ from, to: null, unit_price: '1' }],
        },
      ],
    })
    // 1,000 Mo are 1 Go: what is between 1 and 50 Go has no price.
    expect(codes(gigabytes(51, '1000'))).toEqual(['tiers_do_not_meet_quota'])
    expect(codes(gigabytes(51, '49999'))).toEqual(['tiers_do_not_meet_quota'])
    expect(codes(gigabytes(51, '50000'))).toEqual([])
  })

  test('a volume price of which the first units are free falls or not by what is paid', () => {
    const free = (next: string, flat: string) => [
      fee(),
      {
        ...{ rule_id: 'r', type: 'volume', metric: 'm', currency: 'EUR' },
        tiers: [
          { from: 11, to: 20, unit_price: '1' },
          { from: 21, to: null, unit_price: next, flat_fee: flat },
        ],
      },
    ]
    // 20 units cost 10.00; behind that 10 paid units cost 5.00 and the fee.
    expect(codes({ prices: free('0.5', '5') })).toEqual([])
    expect(codes({ prices: free('0.5', '4.99') })).toEqual(['volume_price_falls'])
  })

  test('a volume price that falls, exactly at its boundary and not one cent before', () => {
    // 10 × 1 = 10 at the edge; behind it 10 units cost 10.00, then 9.99.
    expect(codes({ prices: volume([10, '1'], [null, '1']) })).toEqual([])
    expect(codes({ prices: volume([10, '1'], [null, '0.999']) })).toEqual(['volume_price_falls'])
    const flat = (amount: string) => [
      fee(),
      {
        ...{ rule_id: 'r', type: 'volume', metric: 'm', currency: 'EUR' },
        tiers: [
          { up_to: 10, unit_price: '1' },
          { up_to: null, unit_price: '0.9', flat_fee: amount },
        ],
      },
    ]
    expect(codes({ prices: flat('1') })).toEqual([])
    expect(codes({ prices: flat('0.99') })).toEqual(['volume_price_falls'])
  })

  test('a card that prints the first tier alone', () => {
    const tiered = parsePrice({
      rule_id: 'r',
      type: 'tiered',
      metric: 'm',
      currency: 'EUR',
      tiers: tiers([10, '1'], [null, '2']),
    })
    const shows = (cardPrice: string) => ({
      plan: { metrics: [{ metric: 'm', included: '10', rule: 'r', cardPrice }] },
      prices: [
        fee(),
        { rule_id: 'r', type: 'tiered', metric: 'm', currency: 'EUR', tiers: tiers([10, '1'], [null, '2']) },
      ],
    })
    expect([codes(shows('1')), codes(shows('2'))]).toEqual([['card_shows_first_tier'], []])
    expect(lintCard('p', '1', tiered)?.code).toBe('card_shows_first_tier')
    expect(lintCard('p', '2', tiered)).toBeNull()
    expect(lintCard('p', '0.10', parsePrice(rule()))).toBeNull()
  })
})
