/** Rating against a naive oracle and against its own promises, on random prices and quantities; the printed seed re-runs one. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Price, parsePrice } from '../../src/catalog/price.js'
import { printMoney } from '../../src/currency.js'
import { Decimal } from '../../src/decimal.js'
import { spread } from '../../src/rating/adjust.js'
import { rateDelta } from '../../src/rating/delta.js'
import { rate } from '../../src/rating/rating.js'
import { addTax, splitInclusive, taxByRate } from '../../src/rating/tax.js'
import { promises } from '../promises.js'
import { cents, graduatedMicros, microsText, type PlainTier, packageMicros, volumeMicros } from './oracle.js'

const tiersOf: fc.Arbitrary<PlainTier[]> = fc
  .array(
    fc.record({
      width: fc.integer({ min: 1, max: 60 }),
      unit: fc.bigInt(0n, 9_999_999n),
      flat: fc.bigInt(0n, 50_000_000n),
    }),
    { minLength: 1, maxLength: 5 },
  )
  .map((parts) => {
    let upTo = 0
    return parts.map(({ width, unit, flat }, index) => {
      upTo += width
      return { upTo: index === parts.length - 1 ? null : upTo, unit, flat }
    })
  })

function tiered(type: 'tiered' | 'volume', tiers: readonly PlainTier[]): Price {
  return parsePrice(
    {
      rule_id: 'r',
      type,
      metric: 'm',
      currency: 'EUR',
      tiers: tiers.map((tier) => ({
        up_to: tier.upTo,
        unit_price: microsText(tier.unit),
        flat_fee: microsText(tier.flat),
      })),
    },
    '1.0',
  )
}
const quantity = fc.integer({ min: 0, max: 300 })
const included = fc.integer({ min: 0, max: 120 })

describe('against the oracle', () => {
  test(`graduated equals counting unit by unit ${promises('rating:pure')}`, () => {
    fc.assert(
      fc.property(tiersOf, quantity, included, (tiers, q, free) => {
        const rated = rate({ price: tiered('tiered', tiers), quantity: String(q), included: String(free) })
        expect(rated.total).toBe(cents(graduatedMicros(q, free, tiers)))
      }),
    )
  })

  test('volume equals the tier of the whole', () => {
    fc.assert(
      fc.property(tiersOf, quantity, included, (tiers, q, free) => {
        const rated = rate({ price: tiered('volume', tiers), quantity: String(q), included: String(free) })
        expect(rated.total).toBe(cents(volumeMicros(q, free, tiers)))
      }),
    )
  })

  test('package equals taking packages one by one', () => {
    fc.assert(
      fc.property(
        quantity,
        included,
        fc.integer({ min: 1, max: 40 }),
        fc.bigInt(0n, 99_999_999n),
        (q, free, size, price) => {
          const rule = {
            rule_id: 'r',
            type: 'package',
            metric: 'm',
            currency: 'EUR',
            package_size: size,
            package_price: microsText(price),
          }
          const rated = rate({ price: parsePrice(rule, '1.0'), quantity: String(q), included: String(free) })
          expect(rated.total).toBe(cents(packageMicros(q, free, size, price)))
        },
      ),
    )
  })
})

describe('promises of a rating', () => {
  const price = fc.oneof(
    tiersOf.map((tiers) => tiered('tiered', tiers)),
    tiersOf.map((tiers) => tiered('volume', tiers)),
  )
  const decimalQuantity = fc
    .tuple(fc.integer({ min: 0, max: 500 }), fc.integer({ min: 0, max: 999_999 }))
    .map(([whole, part]) => {
      const text = `${whole}.${String(part).padStart(6, '0')}`.replace(/\.?0+$/, '')
      return text === '' ? '0' : text
    })

  test(`steps sum to the exact amount, lines sum to the total, decimals included ${promises('rating:lines-sum-to-total')}`, () => {
    fc.assert(
      fc.property(price, decimalQuantity, included, (p, q, free) => {
        const rated = rate({ price: p, quantity: q, included: String(free) })
        let total = new Decimal(0)
        for (const line of rated.lines) {
          const steps = line.steps.reduce((all, step) => all.plus(step.amount), new Decimal(0))
          expect(steps.toFixed()).toBe(new Decimal(line.exact).toFixed())
          expect(new Decimal(line.exact).minus(line.amount).abs().lte('0.005')).toBe(true)
          total = total.plus(line.amount)
        }
        expect(total.toFixed(2)).toBe(rated.total)
      }),
    )
  })

  test(`the same request gives the same lines, and nothing of it is changed ${promises('rating:pure')}`, () => {
    fc.assert(
      fc.property(price, decimalQuantity, (p, q) => {
        const request = Object.freeze({ price: Object.freeze(p), quantity: q })
        expect(rate(request)).toEqual(rate(structuredClone(request)))
      }),
    )
  })

  test('graduated never costs less for more, and equals the sum of its parts', () => {
    fc.assert(
      fc.property(tiersOf, quantity, quantity, (tiers, a, b) => {
        const p = tiered('tiered', tiers)
        const [low, high] = a < b ? [a, b] : [b, a]
        const first = rate({ price: p, quantity: String(low) })
        const whole = rate({ price: p, quantity: String(high) })
        expect(new Decimal(whole.total).gte(first.total)).toBe(true)
      }),
    )
  })

  test(`usage billed in any parts costs what it costs at once ${promises('rating:lines-sum-to-total')}`, () => {
    fc.assert(
      fc.property(
        price,
        fc.array(fc.integer({ min: 0, max: 80 }), { minLength: 1, maxLength: 6 }),
        included,
        (p, parts, free) => {
          let counted = parts[0]!
          let total = new Decimal(rate({ price: p, quantity: String(counted), included: String(free) }).total)
          for (const part of parts.slice(1)) {
            const delta = rateDelta({
              price: p,
              billed: String(counted),
              quantity: String(counted + part),
              included: String(free),
            })
            total = total.plus(delta.amount)
            counted += part
          }
          expect(total.toFixed(2)).toBe(rate({ price: p, quantity: String(counted), included: String(free) }).total)
        },
      ),
    )
  })

  test('shares of a discount sum to the discount', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 100_000 }),
        fc.array(fc.integer({ min: 1, max: 100_000 }), { minLength: 1, maxLength: 9 }),
        (d, amounts) => {
          const text = (value: number): string => (value / 100).toFixed(2)
          const shares = spread(text(d), amounts.map(text), 'EUR')
          expect(shares.reduce((all, share) => all.plus(share), new Decimal(0)).toFixed(2)).toBe(text(d))
        },
      ),
    )
  })

  test('an inclusive price is split without a cent lost, at every cent', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 10_000_000 }),
        fc.constantFrom('18', '20', '9', '0', '5.5'),
        (total, taxRate) => {
          const split = splitInclusive((total / 100).toFixed(2), taxRate, 'EUR')
          expect(new Decimal(split.ht).plus(split.tva).toFixed(2)).toBe(split.ttc)
        },
      ),
    )
  })
})

describe('edges', () => {
  const kyc = parsePrice(
    {
      rule_id: 'overage_oid_kyc',
      type: 'per_unit',
      metric: 'kyc_verification',
      currency: 'EUR',
      tiers: [
        { from: 51, to: 100, unit_price: 2.5 },
        { from: 101, to: null, unit_price: 2.0 },
      ],
    },
    '2.0',
  )

  function check(quantityText: string, total: string, includedText = '50'): void {
    expect(rate({ price: kyc, quantity: quantityText, included: includedText }).total, quantityText).toBe(total)
  }

  test('exactly at an edge the next tier has no part', () => {
    check('0', '0.00')
    check('50', '0.00')
    check('50.000001', '0.00')
    check('51', '2.50')
    check('100', '125.00')
    check('100.5', '126.00')
    check('101', '127.00')
    check('100000000000000000000', '199999999999999999925.00')
  })

  test('volume: exactly at an edge the lower tier still prices, and just above it the whole is cheaper', () => {
    const volume = parsePrice({
      rule_id: 'r',
      type: 'volume',
      metric: 'm',
      currency: 'EUR',
      tiers: [
        { up_to: 100, unit_price: '2', flat_fee: '10' },
        { up_to: null, unit_price: '1' },
      ],
    })
    expect(rate({ price: volume, quantity: '100' }).total).toBe('210.00')
    expect(rate({ price: volume, quantity: '100.000000001' }).total).toBe('100.00')
    expect(rate({ price: volume, quantity: '101' }).total).toBe('101.00')
  })

  test('money is rounded half up, away from zero, once per line', () => {
    const halfCent = parsePrice({ rule_id: 'r', type: 'per_unit', metric: 'm', currency: 'EUR', unit_price: '0.005' })
    const totals = ['1', '2', '3', '5', '24.9', '25'].map((quantity) => rate({ price: halfCent, quantity }).total)
    expect(totals).toEqual(['0.01', '0.01', '0.02', '0.03', '0.12', '0.13'])
    expect(printMoney(new Decimal('-0.125'), 'EUR')).toBe('-0.13')
    expect(printMoney(new Decimal('-0.001'), 'EUR')).toBe('0.00')
    const francs = parsePrice({ rule_id: 'r', type: 'per_unit', metric: 'm', currency: 'XOF', unit_price: '0.5' })
    expect(rate({ price: francs, quantity: '5' }).lines[0]).toMatchObject({ exact: '2.5', amount: '3' })
  })

  test('what rounding leaves of a discount goes to the largest remainder, then to the earlier line', () => {
    expect(spread('0.01', ['1.00', '2.00'], 'EUR')).toEqual(['0.00', '0.01'])
    expect(spread('0.01', ['1.00', '1.00'], 'EUR')).toEqual(['0.01', '0.00'])
    expect(spread('1', ['10', '10', '10'], 'XOF')).toEqual(['1', '0', '0'])
    expect(spread('10.00', ['0.00', '0.00'], 'EUR')).toEqual(['0.00', '0.00'])
  })

  test('a larger included quantity frees the units of the first tiers without moving them', () => {
    check('120', '90.00', '80') // 81 to 100 at 2.50, 101 to 120 at 2.00
  })

  test('units between a smaller quota and the first tier are reported as unpriced', () => {
    const rated = rate({ price: kyc, quantity: '62', included: '30' })
    expect(rated.unpriced).toBe('20')
    expect(rated.total).toBe('30.00')
  })

  test('a line says in both languages what it counted', () => {
    const line = rate({ price: kyc, quantity: '62', included: '50' }).lines[0]!
    expect(line.explanation.fr.replaceAll('\u00a0', ' ')).toBe(
      '62 kyc_verification, dont 50 inclus : 12 × 2,50 € (tranche 51 à 100) = 30,00 €',
    )
    expect(line.explanation.en.replaceAll('\u00a0', ' ')).toBe(
      '62 kyc_verification, 50 included: 12 × 2.50 EUR (tier 51 to 100) = 30.00 EUR',
    )
  })

  test('what is included and what has no price are told apart, and the parts that are said add up to the quantity', () => {
    const line = rate({ price: kyc, quantity: '62', included: '10' }).lines[0]!
    expect(line.explanation.fr.replaceAll('\u00a0', ' ')).toBe(
      '62 kyc_verification, dont 10 inclus, 40 non facturés : 12 × 2,50 € (tranche 51 à 100) = 30,00 €',
    )
    let seed = 7
    const random = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
      return seed % below
    }
    for (let i = 0; i < 2_000; i += 1) {
      const [quantity, included] = [random(160), random(120)]
      const [said] = rate({ price: kyc, quantity: String(quantity), included: String(included) }).lines
      if (said === undefined) continue
      const { en } = said.explanation
      const of = (pattern: RegExp): number => [...en.matchAll(pattern)].reduce((sum, one) => sum + Number(one[1]), 0)
      const parts = of(/, (\d+) included/g) + of(/, (\d+) not billed/g) + of(/(\d+) × /g)
      expect(parts, en).toBe(quantity)
      expect(of(/, (\d+) included/g), en).toBe(Math.min(included, quantity))
    }
  })

  test('a metric is called by its name, and a fee that is due once is not a subscription', () => {
    const called = { fr: 'vérifications KYC', en: 'KYC verifications' }
    expect(rate({ price: kyc, quantity: '62', included: '50', called }).lines[0]!.explanation.en).toMatch(
      /^62 KYC verifications, 50 included/,
    )
    const flat = parsePrice({ rule_id: 'setup', type: 'flat_fee', amount: '30', currency: 'EUR' })
    expect(rate({ price: flat, quantity: '1', once: true }).lines[0]!.explanation).toEqual({
      fr: 'frais unique 30,00\u00a0€',
      en: 'one-time fee 30.00\u00a0EUR',
    })
  })

  test('a negative or unreadable quantity is refused, not rated', () => {
    for (const bad of ['-1', '1e5', 'NaN', '', '1,5', ' 1', '0x10']) {
      expect(() => rate({ price: kyc, quantity: bad }), bad).toThrow(/quantity/)
    }
  })

  test('tiers with a gap, an overlap, or no open end are refused', () => {
    const parse = (tiers: unknown): unknown =>
      parsePrice({ rule_id: 'r', type: 'volume', metric: 'm', currency: 'EUR', tiers })
    expect(() =>
      parse([
        { from: 1, to: 10, unit_price: '1' },
        { from: 12, to: null, unit_price: '1' },
      ]),
    ).toThrow(/gap/)
    expect(() =>
      parse([
        { from: 1, to: 10, unit_price: '1' },
        { from: 5, to: null, unit_price: '1' },
      ]),
    ).toThrow(/overlap/)
    expect(() => parse([{ from: 1, to: 10, unit_price: '1' }])).toThrow(/open/)
    expect(() =>
      parse([
        { up_to: null, unit_price: '1' },
        { up_to: 10, unit_price: '1' },
      ]),
    ).toThrow(/open tier/)
    expect(() =>
      parse([
        { up_to: 10, unit_price: '-1' },
        { up_to: null, unit_price: '1' },
      ]),
    ).toThrow(/negative/)
    expect(() => parse([])).toThrow(/at least one/)
  })

  test('tax is rounded once per rate, also in a currency without decimals', () => {
    expect(addTax('1059.32', '18', 'EUR')).toEqual({ ht: '1059.32', tva: '190.68', ttc: '1250.00' })
    expect(addTax('694915', '18', 'XOF')).toEqual({ ht: '694915', tva: '125085', ttc: '820000' })
    expect(splitInclusive('0.10', '18', 'EUR')).toEqual({ ht: '0.08', tva: '0.02', ttc: '0.10' })
    expect(
      taxByRate(
        [
          { ht: '1.25', rate: '18' },
          { ht: '1.25', rate: '18.0' },
        ],
        'EUR',
      ).taxes,
    ).toEqual([{ rate: '18', base: '2.50', tax: '0.45' }])
  })
})
