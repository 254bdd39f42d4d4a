/**
 * Lines with and without tax to totals: against a second implementation in whole numbers that knows nothing of decimals, and the sums
 * that an invoice must have.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parsePrice } from '../../src/catalog/price.js'
import { comparePlans } from '../../src/rating/compare.js'
import { previewRating } from '../../src/rating/preview.js'
import { type TaxedLine, taxByRate, taxLines } from '../../src/rating/tax.js'
import { promises } from '../promises.js'

const DECIMALS: Readonly<Record<string, number>> = { EUR: 2, XOF: 0, TND: 3 }
const textOf = (units: bigint, currency: string): string => {
  const places = DECIMALS[currency]!
  const digits = String(units < 0n ? -units : units).padStart(places + 1, '0')
  const text = places === 0 ? digits : `${digits.slice(0, -places)}.${digits.slice(-places)}`
  return units < 0n ? `-${text}` : text
}
const unitsOf = (text: string): bigint => BigInt(text.replace('.', ''))
const sumOf = (all: readonly bigint[]): bigint => all.reduce((a, b) => a + b, 0n)

/** Half away from zero. */
function divided(a: bigint, b: bigint): bigint {
  const [size, less] = [a < 0n ? -a : a, a < 0n]
  const whole = (2n * size + b) / (2n * b)
  return less ? -whole : whole
}

interface Entry {
  readonly units: bigint
  /** Hundredths of a percent. */
  readonly rate: bigint
  readonly inclusive: boolean
}

/** By rate: base and tax; and each line without tax, a unit at a time to the line that is furthest below its share. */
function naive(lines: readonly Entry[]): { readonly rows: Map<bigint, [bigint, bigint]>; readonly nets: bigint[] } {
  const rows = new Map<bigint, [bigint, bigint]>()
  const nets = lines.map((line) => line.units)
  for (const { rate } of lines) {
    const own = lines.map((line, i) => ({ ...line, i })).filter((line) => line.rate === rate)
    const [plain, gross] = [false, true].map((kind) =>
      sumOf(own.filter((line) => line.inclusive === kind).map((line) => line.units)),
    ) as [bigint, bigint]
    const ht = divided(gross * 10_000n, 10_000n + rate)
    rows.set(rate, [plain + ht, divided(plain * rate, 10_000n) + gross - ht])
    const open = own.filter((line) => line.inclusive)
    // Shares in units of 1 / (10000 + rate) of the smallest amount; begun one below the least that a line can have.
    for (const { i, units } of open) nets[i] = (units * 10_000n - (units < 0n ? 9_999n + rate : 0n)) / (10_000n + rate)
    for (let left = ht - sumOf(open.map(({ i }) => nets[i]!)); left > 0n; left -= 1n) {
      const missing = open.map(({ i, units }) => ({ i, by: units * 10_000n - nets[i]! * (10_000n + rate) }))
      const most = missing.reduce((best, one) => (one.by > best.by ? one : best))
      nets[most.i] = nets[most.i]! + 1n
    }
  }
  return { rows, nets }
}

const RATES = [1800n, 2000n, 900n, 550n, 210n, 0n]
const entries = (inclusive: fc.Arbitrary<boolean>) =>
  fc.array(
    fc.record({
      units: fc.oneof(fc.bigInt(-500n, 5_000n), fc.bigInt(-1_000_000n, 100_000_000n)),
      rate: fc.constantFrom(...RATES),
      inclusive,
    }),
    { minLength: 1, maxLength: 12 },
  )
const lineOf = ({ units, rate, inclusive }: Entry, currency: string): TaxedLine => ({
  amount: textOf(units, currency),
  taxRate: String(Number(rate) / 100),
  ...(inclusive ? { taxBehavior: 'inclusive' } : {}),
})
const currencies = fc.constantFrom('EUR', 'XOF', 'TND')

test(`lines of either kind equal a second implementation, and sum to HT, TVA and TTC ${promises('rating:lines-sum-to-total')}`, () => {
  fc.assert(
    fc.property(entries(fc.boolean()), currencies, (lines, currency) => {
      const found = taxLines(
        lines.map((line) => lineOf(line, currency)),
        currency,
      )
      const { rows, nets } = naive(lines)
      expect(found.nets.map(unitsOf)).toEqual(nets)
      expect(found.taxes.map((row) => [row.rate, unitsOf(row.base), unitsOf(row.tax)])).toEqual(
        [...rows].map(([rate, [base, tax]]) => [String(Number(rate) / 100), base, tax]),
      )
      const [ht, tva, ttc] = [found.ht, found.tva, found.ttc].map(unitsOf) as [bigint, bigint, bigint]
      expect([ht, tva]).toEqual([sumOf(nets), sumOf(found.taxes.map((row) => unitsOf(row.tax)))])
      expect(ttc).toBe(ht + tva)
      for (const { rate, base, tax } of found.taxes) {
        const own = lines.filter((line) => String(Number(line.rate) / 100) === rate)
        const share = (i: number): bigint => nets[i]!
        expect(unitsOf(base)).toBe(sumOf(lines.flatMap((line, i) => (own.includes(line) ? [share(i)] : []))))
        // BR-CO-17 to the unit.
        const off = unitsOf(tax) - divided(unitsOf(base) * own[0]!.rate, 10_000n)
        expect(off >= -1n && off <= 1n, `${tax} on ${base} at ${rate}`).toBe(true)
      }
    }),
    { numRuns: 2_000 },
  )
})

test('what is paid is the sum of the amounts with tax, to the last unit, and no line has more tax than itself', () => {
  fc.assert(
    fc.property(entries(fc.constant(true)), currencies, (lines, currency) => {
      const found = taxLines(
        lines.map((line) => lineOf(line, currency)),
        currency,
      )
      expect(unitsOf(found.ttc)).toBe(sumOf(lines.map((line) => line.units)))
      for (const [i, { units, rate }] of lines.entries()) {
        const net = unitsOf(found.nets[i]!)
        expect(units < 0n ? net <= 0n && net >= units - 1n : net >= 0n && net <= units).toBe(true)
        const off = units * 10_000n - net * (10_000n + rate)
        expect(off > -(10_000n + rate) && off < 10_000n + rate, 'less than a unit from its share').toBe(true)
      }
    }),
    { numRuns: 1_000 },
  )
})

test('lines without tax are taxed as they were, and adding some moves nothing of those with tax', () => {
  fc.assert(
    fc.property(entries(fc.constant(false)), entries(fc.constant(true)), currencies, (plain, gross, currency) => {
      const [a, b] = [plain, gross].map((all) => all.map((line) => lineOf(line, currency))) as [
        TaxedLine[],
        TaxedLine[],
      ]
      const pairs = a.map(({ amount, taxRate }) => ({ ht: amount, rate: taxRate }))
      const alone = taxLines(a, currency)
      expect(alone).toEqual({ ...taxByRate(pairs, currency), nets: pairs.map(({ ht }) => ht) })
      const [other, both] = [taxLines(b, currency), taxLines([...a, ...b], currency)]
      for (const sum of ['ht', 'tva', 'ttc'] as const)
        expect(unitsOf(both[sum])).toBe(unitsOf(alone[sum]) + unitsOf(other[sum]))
      expect(both.nets).toEqual([...alone.nets, ...other.nets])
    }),
    { numRuns: 500 },
  )
})

describe('a price with tax', () => {
  const rule = { rule_id: 'r', type: 'per_unit', metric: 'kyc', unit_price: '2.95', currency: 'EUR' }

  test('says so in its normal form; without a word, or exclusive, it is the same as ever', () => {
    expect(parsePrice({ ...rule, tax_behavior: 'inclusive' })).toMatchObject({ taxBehavior: 'inclusive' })
    expect(parsePrice({ ...rule, tax_behavior: 'exclusive' })).toEqual(parsePrice(rule))
    expect(parsePrice(rule)).not.toHaveProperty('taxBehavior')
    for (const wrong of ['Inclusive', true, null, ''])
      expect(() => parsePrice({ ...rule, tax_behavior: wrong })).toThrow(/tax_behavior: inclusive or exclusive/)
  })

  test('is previewed with HT, TVA and TTC', () => {
    const price = parsePrice({ ...rule, tax_behavior: 'inclusive' })
    expect(previewRating({ price, quantity: '12', taxRate: '18' })).toMatchObject({
      total: '35.40',
      taxBehavior: 'inclusive',
      tax: { rate: '18', ht: '30.00', tva: '5.40', ttc: '35.40' },
    })
    expect(previewRating({ price: parsePrice(rule), quantity: '12', taxRate: '18' })).toMatchObject({
      taxBehavior: 'exclusive',
      tax: { rate: '18', ht: '35.40', tva: '6.37', ttc: '41.77' },
    })
    expect(previewRating({ price, quantity: '12' })).not.toHaveProperty('tax')
    expect(() => previewRating({ price, quantity: '12', taxRate: '-1' })).toThrow(/taxRate: percent from 0 to 100/)
  })

  test('is not compared with one without', () => {
    const plan = (key: string, tax: string) => ({
      key,
      fee: null,
      metrics: [{ metric: 'kyc', included: '0', price: parsePrice({ ...rule, rule_id: key, tax_behavior: tax }) }],
    })
    const asked = { usage: { kyc: '1' }, held: null, currency: 'EUR' }
    expect(() => comparePlans({ ...asked, plans: [plan('a', 'inclusive'), plan('b', 'exclusive')] })).toThrow(
      /plans: a is with tax and b without, which is not compared/,
    )
    expect(comparePlans({ ...asked, plans: [plan('a', 'inclusive'), plan('b', 'inclusive')] }).totals).toEqual({
      a: '2.95',
      b: '2.95',
    })
  })
})
