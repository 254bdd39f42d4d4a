/**
 * A period that was billed, counted again, and counted again, against the same period billed once when all was known: with discounts,
 * a cap, a minimum, fees by use, packs and packs bought again. The sums agree for each rate of tax, to the last unit.
 *
 * Packs are kept here by plain sums over the ledger that the steps make, as PostgreSQL does; prepaid/late.test.ts goes the whole road.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Terms } from '../../src/catalog/book.js'
import { parsePrice } from '../../src/catalog/price.js'
import { seedContracts } from '../../src/catalog/seeds.js'
import { Decimal, printDecimal } from '../../src/decimal.js'
import { draftCorrection, draftInvoice, type ItemUsage, type LatePart } from '../../src/invoicing/draft.js'
import type { Funding, FundingPack, LedgerStep, Refunding } from '../../src/invoicing/funding.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { fundedSteps, refundedSteps, soldBy, soldLate } from '../../src/invoicing/pack-ledger.js'
import { promises } from '../promises.js'
import { bank, ivorySeller, march } from './sample.js'

const DAY = 86_400_000
const HALF = march.from + 15 * DAY
const cents = (max: number) => fc.nat(max).map((n) => (n / 100).toFixed(2))
const optional = <T>(one: fc.Arbitrary<T>) => fc.option(one, { nil: undefined, freq: 1 })

const prices = fc.oneof(
  cents(300).map((unit_price) => ({ type: 'per_unit', unit_price })),
  fc.tuple(cents(200), cents(200), cents(900)).map(([a, b, flat_fee]) => ({
    type: 'tiered',
    tiers: [
      { from: 1, to: 40, unit_price: a },
      { from: 41, to: null, unit_price: b, flat_fee },
    ],
  })),
  fc.tuple(cents(200), cents(100)).map(([a, b]) => ({
    type: 'volume',
    tiers: [
      { from: 1, to: 60, unit_price: a },
      { from: 61, to: null, unit_price: b },
    ],
  })),
  fc.record({ type: fc.constant('package'), package_size: fc.constantFrom('3', '10'), package_price: cents(900) }),
  fc.record({ type: fc.constant('percentage'), rate: cents(2_000), fixed_per_event: cents(30) }),
)
const adjustments = fc
  .record({
    percent: optional(fc.integer({ min: 1, max: 60 })),
    amount: optional(cents(3_000).filter((text) => text !== '0.00')),
    minimum: optional(cents(9_000)),
    room: optional(cents(6_000)),
  })
  .map(({ percent, amount, minimum, room }) => ({
    discounts: [
      ...(percent === undefined ? [] : [{ name: 'P', kind: 'percent' as const, value: String(percent) }]),
      ...(amount === undefined ? [] : [{ name: 'A', kind: 'amount' as const, value: amount }]),
    ],
    ...(minimum === undefined ? {} : { minimum }),
    ...(room === undefined ? {} : { maximum: new Decimal(room).plus(minimum ?? 0).toFixed(2) }),
  }))
const packs = fc.array(
  fc.record({
    balance: fc.integer({ min: 1, max: 40 }),
    priority: fc.nat(2),
    ends: fc.boolean(),
    bought: fc.boolean(),
  }),
  { maxLength: 3 },
)
/** What is used in the halves of the month, of the metric with packs and of the other one, as it becomes known. */
const rounds = (least: number) =>
  fc.array(
    fc.tuple(
      fc.integer({ min: least, max: 60 }),
      fc.integer({ min: least, max: 60 }),
      fc.integer({ min: least, max: 60 }),
    ),
    {
      minLength: 2,
      maxLength: 4,
    },
  )
const cases = (recharges: boolean) =>
  fc.record({
    price: prices,
    other: prices,
    adjustments,
    packs,
    recharge: recharges
      ? fc.record({ quantity: fc.constantFrom('7', '50'), amount: fc.nat(900).map(String) })
      : fc.constant(null),
    limit: fc.constantFrom('0', '15'),
    exhaustion: recharges
      ? fc.constant('auto_recharge' as const)
      : fc.constantFrom('standard_price' as const, 'block' as const),
    currency: fc.constantFrom('EUR', 'XOF'),
    // What is bought again stays bought when usage is taken back.
    rounds: rounds(recharges ? 0 : -30),
    triggered: fc.boolean(),
  })

type Case = ReturnType<typeof cases> extends fc.Arbitrary<infer One> ? One : never

interface Known {
  readonly first: number
  readonly whole: number
  readonly other: number
}

function known(all: readonly (readonly [number, number, number])[], upTo: number): Known {
  let [first, second, other] = [0, 0, 0]
  for (const [a, b, c] of all.slice(0, upTo))
    [first, second, other] = [Math.max(0, first + a), Math.max(0, second + b), Math.max(0, other + c)]
  return { first, whole: first + second, other }
}

function termsOf(one: Case): Terms {
  const contract = seedContracts[1]!
  const rule = one.exhaustion === 'auto_recharge' ? { recharge: one.recharge } : {}
  const item = (id: string, metric: string, limit: string, price: object, product: object, fee: string | null) => ({
    item: id,
    product,
    plan: { key: id, version: 1, name: id },
    feeRule: fee,
    fee: fee === null ? null : parsePrice({ rule_id: fee, type: 'flat_fee', amount: '12', currency: one.currency }),
    metrics: [
      {
        metric,
        unit: 'call',
        limit,
        rule: metric,
        price: parsePrice({ rule_id: metric, metric, currency: one.currency, ...price }),
      },
    ],
  })
  return {
    catalogVersion: 1,
    contract: {
      ...contract,
      start: '2026-01-01',
      timeZone: 'UTC',
      adjustments: one.adjustments,
      items: [
        {
          id: 'a',
          plan: 'a',
          planVersion: 1,
          entitlements: [],
          prepaid: [{ metric: 'm', exhaustion: one.exhaustion, ...rule }],
        },
        { id: 'b', plan: 'b', planVersion: 1, entitlements: [], ...(one.triggered ? { kind: 'usage_triggered' } : {}) },
      ],
    },
    customer: { ...bank, currency: one.currency, taxRate: '18', taxCategory: 'S' },
    legalEntity: ivorySeller,
    items: [
      item('a', 'm', one.limit, one.price, { key: 'P', name: 'P' }, null),
      item('b', 'n', '0', one.other, { key: 'Q', name: 'Q', taxCategory: 'reduced' }, 'fee'),
    ],
  } as unknown as Terms
}

const usageOf = ({ whole, other }: Known): ItemUsage[] =>
  [
    ['a', 'm', whole],
    ['b', 'n', other],
  ].map(([item, metric, quantity]) => ({
    ...{ item: String(item), metric: String(metric), quantity: String(quantity) },
    ...{ count: Number(quantity), cut: {}, query: '', digest: '' },
  }))

/** All that was billed of the period, by rate of tax. */
function billed(documents: readonly Invoice[]): Record<string, string> {
  const sums: Record<string, string> = {}
  for (const { lines } of documents)
    for (const { taxRate, amount } of lines) sums[taxRate] = new Decimal(sums[taxRate] ?? 0).plus(amount).toFixed(2)
  return Object.fromEntries(Object.entries(sums).filter(([, sum]) => sum !== '0.00'))
}

/** Bills what is known at each of the times, the first as the closing does and the others as what came later. */
function run(one: Case, times: readonly number[]): { documents: Invoice[]; left: Record<string, string> } {
  const terms = termsOf(one)
  const bought: FundingPack[] = one.packs.map((pack, i) => ({
    id: `p${i}`,
    name: `p${i}`,
    balance: String(pack.balance),
    priority: pack.priority,
    createdAt: i,
    ...(pack.bought ? { validFrom: HALF } : {}),
    ...(pack.ends && !pack.bought ? { expires: HALF } : {}),
  }))
  const ledger: LedgerStep[] = bought.map(({ id, balance }) => ({ pack: id, kind: 'grant', quantity: balance, at: 0 }))
  const sum = (pack: string, kinds: readonly string[]): Decimal =>
    ledger
      .filter((step) => step.pack === pack && kinds.includes(step.kind))
      .reduce((all, step) => all.plus(step.quantity), new Decimal(0))
  const all = (): FundingPack[] => {
    const again = ledger.filter(({ pack, kind }) => kind === 'grant' && !bought.some(({ id }) => id === pack))
    return [
      ...bought,
      ...again.map(({ pack, at }) => ({
        id: pack,
        name: pack,
        balance: '0',
        validFrom: at,
        createdAt: at,
        again: true as const,
      })),
    ]
  }
  const documents: Invoice[] = []
  let sold: NonNullable<LatePart['sold']> = []
  let before: Known | null = null
  for (const [turn, upTo] of times.entries()) {
    const now = known(one.rounds, upTo)
    const usage = usageOf(now)
    const funding: Funding = {
      ...{ item: 'a', metric: 'm', exhaustion: one.exhaustion, packs: all() },
      ...(one.recharge === null ? {} : { recharge: { ...one.recharge, name: `r${turn}` } }),
      parts: [{ period: { from: march.from, to: HALF }, quantity: String(now.first) }],
    }
    let steps: readonly LedgerStep[]
    if (before === null) {
      const prepaid = { fundings: [funding], purchases: [] }
      documents.push(draftInvoice(`d${turn}`, terms, march, usage, [], [], prepaid))
      steps = fundedSteps(prepaid, terms, march, usage)
      sold = soldBy(prepaid, terms, march, usage)
    } else {
      const refunding: Refunding = {
        ...funding,
        packs: funding.packs.map((pack) => ({
          ...pack,
          balance: printDecimal(sum(pack.id, ['grant', 'debit', 'forfeit']).minus(sum(pack.id, ['debit', 'forfeit']))),
        })),
        debited: Object.fromEntries(all().map(({ id }) => [id, printDecimal(sum(id, ['debit']).negated())])),
        left: Object.fromEntries(all().map(({ id }) => [id, printDecimal(sum(id, ['grant', 'debit', 'forfeit']))])),
      }
      const part: LatePart = { terms, period: march, billed: usageOf(before), usage, prepaid: [refunding], sold }
      documents.push(draftCorrection(`d${turn}`, part, null))
      steps = refundedSteps(part)
      sold = [...sold, ...soldLate(part)]
    }
    ledger.push(...steps)
    before = now
  }
  const left = Object.fromEntries(bought.map(({ id }) => [id, printDecimal(sum(id, ['debit']).negated())]))
  for (const { id } of all())
    expect(sum(id, ['grant', 'debit', 'forfeit']).isNegative(), `${id} holds less than nothing`).toBe(false)
  return { documents, left }
}

test.each([
  ['packs that run out', false],
  ['packs that are bought again', true],
])(`%s: billed in parts is what is billed at once ${promises('rating:lines-sum-to-total')}`, (_, recharges) => {
  fc.assert(
    fc.property(cases(recharges), (one) => {
      const times = one.rounds.map((_, i) => i + 1)
      const parts = run(one, times)
      const once = run(one, times.slice(-1))
      expect(billed(parts.documents)).toEqual(billed(once.documents))
      expect(parts.left).toEqual(once.left)
    }),
    { numRuns: 500 },
  )
})
