/**
 * The world of the crash test as plain data: metrics of every aggregation, tenants, prices and contracts, in the words of the
 * HTTP API. crash.ts puts it into the service; driver.ts writes it into its file, where the oracle reads it.
 *
 * `now` is the moment that the run begins at: the contracts began two months before, so that the previous month has ended and can
 * be closed while late events still come into it.
 */
export interface WorldMetric {
  readonly key: string
  readonly aggregation: 'sum' | 'count' | 'unique' | 'max' | 'min' | 'latest' | 'average'
  readonly unit: string
  readonly scale: number
  readonly dims: readonly string[]
  readonly uniqueBy: string | null
  readonly archive: boolean
}

export interface WorldThreshold {
  readonly code: string
  readonly kind: 'percent' | 'absolute'
  readonly value: string
}

export interface WorldContract {
  readonly id: string
  readonly tenant: string
  readonly legalEntity: string
  readonly name: string
  readonly start: string
  readonly timeZone: string
  readonly cycle: 'monthly'
  readonly state: 'active'
  readonly items: readonly {
    readonly id: string
    readonly plan: string
    readonly entitlements: readonly {
      readonly metric: string
      readonly limit: string | null
      readonly thresholds: readonly WorldThreshold[]
    }[]
  }[]
}

export interface WorldRule {
  readonly rule_id: string
  readonly type: string
  readonly currency: string
  readonly metric?: string
  readonly amount?: string
  readonly unit_price?: string
  readonly tiers?: readonly { readonly from: number; readonly to: number | null; readonly unit_price: string }[]
}

export interface World {
  readonly now: number
  readonly metrics: readonly WorldMetric[]
  readonly rules: readonly WorldRule[]
  readonly plans: readonly {
    readonly key: string
    readonly product: string
    readonly name: string
    readonly feeRule: string | null
    readonly metrics: readonly {
      readonly metric: string
      readonly included: string | null
      readonly rule: string | null
    }[]
  }[]
  readonly customers: readonly { readonly tenant: string; readonly timeZone: string }[]
  readonly contracts: readonly WorldContract[]
  readonly taxRate: string
  /** Minutes that the zones of this world are ahead of UTC, all year. */
  readonly zoneMinutes: Readonly<Record<string, number>>
}

/** Tenants by connection: each connection has its own, so that the order within a tenant is known. */
export const TENANTS: readonly (readonly string[])[] = [['alpha', 'beta'], ['gamma', 'delta'], ['epsilon']]

const metric = (
  key: string,
  aggregation: WorldMetric['aggregation'],
  scale: number,
  dims: readonly string[],
  more: Partial<WorldMetric> = {},
): WorldMetric => ({
  key,
  aggregation,
  unit: 'unit',
  scale,
  dims,
  uniqueBy: null,
  archive: true,
  ...more,
})

const METRICS: readonly WorldMetric[] = [
  metric('energy', 'sum', 3, ['region', 'tariff']),
  metric('requests', 'count', 0, ['region']),
  metric('users', 'unique', 0, ['region'], { uniqueBy: 'user' }),
  metric('devices', 'unique', 0, [], { uniqueBy: 'subject' }),
  metric('peak', 'max', 2, ['region']),
  metric('trough', 'min', 2, ['region']),
  metric('level', 'latest', 3, ['region']),
  metric('latency', 'average', 3, ['region']),
  metric('traffic', 'sum', 0, ['region'], { archive: false }),
  metric('tokens', 'sum', 9, []),
]

/** Levels over many orders of magnitude, so that short and long runs both cross some of them. */
const LADDER: readonly WorldThreshold[] = ['10', '50', '200', '1000', '5000', '20000', '100000', '1000000'].map(
  (value) => ({ code: value, kind: 'absolute', value }),
)
/** Reached by single spikes only, each of which is voided in the same batch: crossings that leave no trace in the final balance. */
export const SPIKES: readonly number[] = Array.from({ length: 12 }, (_, k) => 1_000_000_000 * 2 ** k)
const SPIKE_THRESHOLDS: readonly WorldThreshold[] = SPIKES.map((value) => ({
  code: `spike-${value}`,
  kind: 'absolute',
  value: String(value),
}))
const PERCENT: readonly WorldThreshold[] = ['80', '100', '33.3'].map((value) => ({
  code: `${value}%`,
  kind: 'percent',
  value,
}))

const entitlements = (): WorldContract['items'][number]['entitlements'] => [
  { metric: 'energy', limit: '100', thresholds: [...LADDER, ...SPIKE_THRESHOLDS, ...PERCENT] },
  { metric: 'requests', limit: '10', thresholds: [...LADDER, ...PERCENT] },
  { metric: 'users', limit: '20', thresholds: [...LADDER, ...PERCENT] },
  { metric: 'devices', limit: null, thresholds: LADDER },
  { metric: 'peak', limit: '500', thresholds: PERCENT },
  { metric: 'level', limit: null, thresholds: LADDER },
  { metric: 'latency', limit: '100', thresholds: PERCENT },
  { metric: 'traffic', limit: '1000', thresholds: [...LADDER, ...PERCENT] },
  { metric: 'tokens', limit: null, thresholds: [...LADDER, ...SPIKE_THRESHOLDS] },
]

const contract = (tenant: string, start: string, timeZone: string): WorldContract => ({
  id: `${tenant}-contract`,
  tenant,
  legalEntity: 'seller',
  name: `Contract of ${tenant}`,
  start,
  timeZone,
  cycle: 'monthly',
  state: 'active',
  items: [{ id: `${tenant}-contract/1`, plan: 'standard', entitlements: entitlements() }],
})

export function buildWorld(now: number): World {
  const today = new Date(now)
  const begin = new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth() - 2, 1)).toISOString().slice(0, 10)
  return {
    now,
    metrics: METRICS,
    rules: [
      { rule_id: 'fee', type: 'flat_fee', currency: 'EUR', amount: '200.00' },
      {
        rule_id: 'energy-price',
        type: 'tiered',
        currency: 'EUR',
        metric: 'energy',
        tiers: [
          { from: 101, to: 1000, unit_price: '0.25' },
          { from: 1001, to: null, unit_price: '0.1255' },
        ],
      },
      {
        rule_id: 'requests-price',
        type: 'volume',
        currency: 'EUR',
        metric: 'requests',
        tiers: [
          { from: 1, to: 200, unit_price: '0.035' },
          { from: 201, to: null, unit_price: '0.0155' },
        ],
      },
      { rule_id: 'traffic-price', type: 'per_unit', currency: 'EUR', metric: 'traffic', unit_price: '0.00125' },
    ],
    plans: [
      {
        key: 'standard',
        product: 'power',
        name: 'Standard',
        feeRule: 'fee',
        metrics: [
          { metric: 'energy', included: '100', rule: 'energy-price' },
          { metric: 'requests', included: '10', rule: 'requests-price' },
          { metric: 'users', included: '20', rule: null },
          { metric: 'devices', included: null, rule: null },
          { metric: 'peak', included: '500', rule: null },
          { metric: 'level', included: null, rule: null },
          { metric: 'latency', included: '100', rule: null },
          { metric: 'traffic', included: '1000', rule: 'traffic-price' },
          { metric: 'tokens', included: null, rule: null },
        ],
      },
    ],
    customers: [
      { tenant: 'alpha', timeZone: 'Africa/Abidjan' },
      { tenant: 'beta', timeZone: 'Africa/Abidjan' },
      { tenant: 'gamma', timeZone: 'Africa/Abidjan' },
      { tenant: 'delta', timeZone: 'Africa/Abidjan' },
      { tenant: 'epsilon', timeZone: 'Asia/Kolkata' },
    ],
    // delta has no contract: usage without quotas.
    contracts: [
      contract('alpha', begin, 'Africa/Abidjan'),
      contract('beta', begin, 'Africa/Abidjan'),
      contract('gamma', begin, 'Africa/Abidjan'),
      // Half an hour off: its periods and days are answered from minutes.
      contract('epsilon', begin, 'Asia/Kolkata'),
    ],
    taxRate: '18',
    zoneMinutes: { 'Africa/Abidjan': 0, 'Asia/Kolkata': 330 },
  }
}

/** Puts the world into a service: method, path and body of each call, in order. */
export function* worldCalls(world: World): Generator<readonly [path: string, body: unknown]> {
  for (const one of world.metrics) yield ['/v1/metrics-catalog', one]
  yield ['/v1/products', { key: 'power', name: 'Power' }]
  for (const rule of world.rules)
    yield ['/v1/prices', { rule, version: '1.0', status: 'active', effectiveFrom: Date.UTC(2020, 0, 1) }]
  for (const plan of world.plans) yield ['/v1/plans', { ...plan, features: [] }]
  yield ['/v1/legal-entities', { key: 'seller', name: 'Seller', country: 'CI' }]
  for (const { tenant, timeZone } of world.customers) {
    yield [
      '/v1/customers',
      { tenant, name: tenant, country: 'CI', taxRate: world.taxRate, currency: 'EUR', timeZone, language: 'en' },
    ]
  }
  for (const one of world.contracts) yield ['/v1/contracts', one]
}

/** A seeded source of randomness: xorshift-multiply over 32 bits (mulberry32). */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }

  /** A whole number, both ends included. */
  int(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1))
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(0, list.length - 1)]!
  }
}
