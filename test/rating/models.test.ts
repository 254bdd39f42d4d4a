/** The models beside tiers, against the naive oracle and at their edges; and from a measured quantity to a priced one. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parsePrice } from '../../src/catalog/price.js'
import { Decimal } from '../../src/decimal.js'
import { rateDelta } from '../../src/rating/delta.js'
import { pricedQuantity } from '../../src/rating/quantity.js'
import { rate } from '../../src/rating/rating.js'
import { promises } from '../promises.js'
import {
  cents,
  fullPackageMicros,
  graduatedPercentMicros,
  microsText,
  type PlainPercentage,
  percentageMicros,
} from './oracle.js'

const base = { rule_id: 'r', metric: 'm', currency: 'EUR' }
const centsText = (n: bigint | number): string => microsText(BigInt(n) * 10_000n)
const plain = (text: string): string => text.replaceAll('\u00a0', ' ')

describe('against the oracle', () => {
  const percentage: fc.Arbitrary<PlainPercentage> = fc.record({
    rate: fc.bigInt(0n, 1_000n),
    freeCents: fc.oneof(fc.constant(0n), fc.bigInt(0n, 3_000n)),
    freeEvents: fc.nat(3),
    perEvent: fc.bigInt(0n, 2_000_000n),
    least: fc.option(fc.bigInt(0n, 400_000n)),
    most: fc.option(fc.bigInt(400_000n, 3_000_000n)),
  })
  const percentagePrice = (p: PlainPercentage) =>
    parsePrice({
      ...base,
      type: 'percentage',
      rate: centsText(p.rate),
      free_amount: centsText(p.freeCents),
      free_events: p.freeEvents,
      fixed_per_event: microsText(p.perEvent),
      ...(p.least === null ? {} : { minimum_per_event: microsText(p.least) }),
      ...(p.most === null ? {} : { maximum_per_event: microsText(p.most) }),
    })

  test(`percentage, with and without bounds per event, equals going event by event ${promises('rating:pure')}`, () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt(0n, 1_500n), { maxLength: 8 }), percentage, (events, p) => {
        const amounts = events.map((one) => ({ amount: centsText(one), count: '1' }))
        const quantity = centsText(events.reduce((a, b) => a + b, 0n))
        const rated = rate({ price: percentagePrice(p), quantity, amounts })
        expect(rated.total).toBe(cents(percentageMicros(events, p)))
        const steps = (rated.lines[0]?.steps ?? []).reduce((all, step) => all.plus(step.amount), new Decimal(0))
        expect(steps.eq(rated.lines[0]?.exact ?? 0)).toBe(true)
      }),
    )
  })

  test('equal amounts as one entry with their count are the same events', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 900n), fc.integer({ min: 1, max: 9 }), percentage, (amount, count, p) => {
        const price = percentagePrice(p)
        const quantity = centsText(amount * BigInt(count))
        const one = { amount: centsText(amount), count: '1' }
        const apart = rate({ price, quantity, amounts: Array.from({ length: count }, () => one) })
        expect(rate({ price, quantity, amounts: [{ ...one, count: String(count) }] })).toEqual(apart)
      }),
    )
  })

  test('graduated percentage equals counting cent by cent, is monotone, and bills any parts like the whole', () => {
    const tiersOf = fc
      .array(
        fc.record({
          width: fc.integer({ min: 1, max: 900 }),
          rate: fc.bigInt(0n, 1_000n),
          flat: fc.bigInt(0n, 5_000_000n),
        }),
        { minLength: 1, maxLength: 4 },
      )
      .map((parts) => {
        let upTo = 0
        return parts.map(({ width, rate: percent, flat }, i) => {
          upTo += width
          return { upTo: i === parts.length - 1 ? null : upTo, rate: percent, flat }
        })
      })
    fc.assert(
      fc.property(tiersOf, fc.nat(3_000), fc.nat(3_000), (tiers, first, more) => {
        const price = parsePrice({
          ...base,
          type: 'graduated_percentage',
          tiers: tiers.map(({ upTo, rate: percent, flat }) => ({
            up_to: upTo === null ? null : centsText(upTo),
            rate: centsText(percent),
            flat_fee: microsText(flat),
          })),
        })
        const whole = rate({ price, quantity: centsText(first + more) })
        const part = rate({ price, quantity: centsText(first) })
        expect(whole.total).toBe(cents(graduatedPercentMicros(first + more, tiers)))
        expect(new Decimal(whole.total).gte(part.total)).toBe(true)
        const delta = rateDelta({ price, billed: centsText(first), quantity: centsText(first + more) })
        expect(new Decimal(part.total).plus(delta.amount).toFixed(2)).toBe(whole.total)
      }),
    )
  })

  test('a package that rounds down counts full ones alone', () => {
    fc.assert(
      fc.property(fc.nat(300), fc.nat(120), fc.integer({ min: 1, max: 40 }), (quantity, free, size) => {
        const rule = { ...base, type: 'package', package_size: size, package_price: '1.5', rounding: 'down' }
        const rated = rate({ price: parsePrice(rule), quantity: String(quantity), included: String(free) })
        expect(rated.total).toBe(cents(fullPackageMicros(quantity, free, size, 1_500_000n)))
      }),
    )
  })

  test('dynamic: the amounts that the events carry, times the factor', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 10n ** 9n), fc.bigInt(1n, 5_000_000n), (amount, factor) => {
        const price = parsePrice({ ...base, type: 'dynamic', factor: microsText(factor) })
        // Cents × millionths, to cents in one step: 0.2749995 is 0.27, not 0.275 and then 0.28.
        const whole = (amount * factor + 500_000n) / 1_000_000n
        expect(rate({ price, quantity: centsText(amount) }).total).toBe(cents(whole * 10_000n))
      }),
      { examples: [[6n, 4_583_325n]] },
    )
  })

  test('a flat amount per tier, with no price per unit, is the fee of every tier entered', () => {
    const tiers = [
      { up_to: 10, flat_fee: '5' },
      { up_to: 20, flat_fee: '7' },
      { up_to: null, flat_fee: '9' },
    ]
    const totals = (type: string): string[] =>
      ['0', '1', '10', '11', '20', '21', '1000'].map(
        (quantity) => rate({ price: parsePrice({ ...base, type, tiers }), quantity }).total,
      )
    expect(totals('tiered')).toEqual(['5.00', '5.00', '5.00', '12.00', '12.00', '21.00', '21.00'])
    expect(totals('volume')).toEqual(['5.00', '5.00', '5.00', '7.00', '7.00', '9.00', '9.00'])
  })
})

describe('edges', () => {
  test('a price by the event is not guessed from a sum', () => {
    const price = parsePrice({ ...base, type: 'percentage', rate: '1', minimum_per_event: '0.10' })
    expect(() => rate({ price, quantity: '100', events: '4' })).toThrow(/amounts must sum to 100, got 0/)
    const amounts = [
      { amount: '1', count: '2' },
      { amount: '98', count: '1' },
    ]
    expect(rate({ price, quantity: '100', amounts }).total).toBe('1.18')
  })

  test('words say what each model did', () => {
    const say = (rule: object, quantity: string, more: object = {}): string =>
      plain(rate({ price: parsePrice({ ...base, ...rule }), quantity, ...more }).lines[0]!.explanation.fr)
    expect(
      say({ type: 'percentage', rate: '1.3', free_amount: '250', fixed_per_event: '2' }, '800', { events: '2' }),
    ).toBe('800 m, dont 250 inclus : 550,00 € × 1,3 % + 2 événements × 2,00 € = 11,15 €')
    const tiers = [
      { up_to: '1000', rate: '2' },
      { up_to: null, rate: '1.5' },
    ]
    expect(say({ type: 'graduated_percentage', tiers }, '1500')).toBe(
      '1 500 m : 1 000,00 € × 2 % (au-delà de 0,00 €, jusqu’à 1 000,00 €) + 500,00 € × 1,5 % (au-delà de 1 000,00 €) = 27,50 €',
    )
    expect(say({ type: 'dynamic', factor: '1.15' }, '200.4')).toBe('200,4 m : 200,40 € × 1,15 = 230,46 €')
  })

  test('rules with a wrong member are refused by its name', () => {
    const check = (rule: object, pattern: RegExp): void => {
      expect(() => parsePrice({ ...base, ...rule }), JSON.stringify(rule)).toThrow(pattern)
    }
    check({ type: 'per_unit', unit_price: '1', rate: '2' }, /unknown member rate/)
    check(
      { type: 'percentage', rate: '1', minimum_per_event: '2', maximum_per_event: '1' },
      /minimum_per_event: is above/,
    )
    check({ type: 'package', package_size: 0, package_price: '1' }, /package_size: must be above 0/)
    check({ type: 'package', package_size: 5, package_price: '1', rounding: 'near' }, /rounding: up or down/)
    check({ type: 'dynamic', factor: '0' }, /factor: must be above 0/)
    check({ type: 'graduated_percentage', tiers: [{ up_to: '10', rate: '1' }] }, /last tier must be open/)
    check({ type: 'graduated_percentage', tiers: [{ up_to: null, unit_price: '1' }] }, /unknown member unit_price/)
    check({ type: 'toString' }, /type: one of/)
  })
})

describe('the quantity that is priced', () => {
  const minutes = { unit: 'min', rounding: { mode: 'up', places: 0 } } as const

  test('is rounded as the metric says, up, down, half to even or half up, before it is converted', () => {
    const round = (mode: 'up' | 'down' | 'half_even' | 'half_up', value: string): string =>
      pricedQuantity(value, { unit: 'kWh', rounding: { mode, places: 0 } }, null).quantity
    expect(['12.1', '12'].map((value) => round('up', value))).toEqual(['13', '12'])
    expect(round('down', '12.9')).toBe('12')
    expect(['2.5', '3.5'].map((value) => round('half_even', value))).toEqual(['2', '4'])
    expect(round('half_up', '2.5')).toBe('3')
    const priced = pricedQuantity('59.2', minutes, { unit: 'h' })
    expect(priced.quantity).toBe('1')
    expect(priced.words?.fr).toBe('59,2 min = 60 min (arrondi au supérieur) = 1 h')
    expect(pricedQuantity('60', minutes, null)).toEqual({ quantity: '60', words: null })
  })

  test('a price per Go of a metric in Mo is a thousandth, and Go is never kWh', () => {
    expect(pricedQuantity('1536', { unit: 'Mo' }, { unit: 'Go' }).quantity).toBe('1.536')
    expect(() => pricedQuantity('1', { unit: 'Mo' }, { unit: 'kWh' })).toThrow(/Mo does not convert to kWh/)
  })

  test('a tie stays a tie through a conversion that does not end', () => {
    // 5 minutes are 0.08333… hours; at 0.06 an hour that is exactly half a cent.
    const price = parsePrice({ ...base, type: 'per_unit', unit: 'h', unit_price: '0.06' })
    const { quantity } = pricedQuantity('5', { unit: 'min' }, price)
    expect(rate({ price, quantity }).total).toBe('0.01')
  })
})
