/**
 * What holds of every price model alike, with any price of it: lines sum to the total, more never costs less where the model says so,
 * a period billed in parts costs what it costs at once. And tiers against an oracle that prices each tier by itself.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Price, parsePrice } from '../../src/catalog/price.js'
import { Decimal } from '../../src/decimal.js'
import { rateDelta } from '../../src/rating/delta.js'
import { rate } from '../../src/rating/rating.js'
import { promises } from '../promises.js'

const base = { rule_id: 'r', metric: 'm', currency: 'EUR' }
const money = fc.integer({ min: 0, max: 5_000_000 }).map((micros) => (micros / 1_000_000).toFixed(6))
const percent = fc.integer({ min: 0, max: 10_000 }).map((n) => (n / 100).toFixed(2))
/** The model's own members name what a tier costs. */
const tiersOf = <T extends Record<string, string>>(one: fc.Arbitrary<T>) =>
  fc.array(fc.tuple(fc.integer({ min: 1, max: 60 }), one), { minLength: 1, maxLength: 5 }).map((all) => {
    let upTo = 0
    return all.map(([width, price], i) => {
      upTo += width
      return { up_to: i === all.length - 1 ? null : upTo, ...price }
    })
  })
const unitTiers = tiersOf(fc.record({ unit_price: money, flat_fee: money }))

const MODELS: Readonly<Record<Price['model'], fc.Arbitrary<Price>>> = {
  flat: money.map((amount) => parsePrice({ rule_id: 'r', type: 'flat_fee', currency: 'EUR', amount })),
  unit: money.map((unit_price) => parsePrice({ ...base, type: 'per_unit', unit_price })),
  graduated: unitTiers.map((tiers) => parsePrice({ ...base, type: 'tiered', tiers })),
  volume: unitTiers.map((tiers) => parsePrice({ ...base, type: 'volume', tiers })),
  package: fc
    .tuple(fc.integer({ min: 1, max: 40 }), money, fc.constantFrom('up', 'down'))
    .map(([package_size, package_price, rounding]) =>
      parsePrice({ ...base, type: 'package', package_size, package_price, rounding }),
    ),
  percentage: fc
    .tuple(percent, money, fc.nat(100), fc.nat(3), fc.option(fc.nat(40)))
    .map(([of, fixed, freeAmount, freeEvents, least]) =>
      parsePrice({
        ...{ ...base, type: 'percentage', rate: of, fixed_per_event: fixed },
        ...{ free_amount: String(freeAmount), free_events: freeEvents },
        ...(least === null ? {} : { minimum: String(least) }),
      }),
    ),
  graduated_percentage: tiersOf(fc.record({ rate: percent, flat_fee: money })).map((tiers) =>
    parsePrice({ ...base, type: 'graduated_percentage', tiers }),
  ),
  dynamic: fc
    .integer({ min: 1, max: 3_000_000 })
    .map((micros) => parsePrice({ ...base, type: 'dynamic', factor: (micros / 1_000_000).toFixed(6) })),
}
const names = Object.keys(MODELS) as Price['model'][]
const quantity = fc
  .tuple(fc.nat(300), fc.nat(999))
  .map(([whole, part]) => new Decimal(`${whole}.${String(part).padStart(3, '0')}`).toFixed())
const included = fc.nat(80).map(String)
/** One event a whole unit of the quantity, so that more usage never has fewer events. */
const eventsOf = (text: string): string => new Decimal(text).ceil().toFixed()
const ask = (price: Price, of: string, free: string) => ({ price, quantity: of, included: free, events: eventsOf(of) })

describe.each(names)('%s', (model) => {
  test(`steps sum to the exact amount, lines to the total, and it is a function ${promises('rating:lines-sum-to-total')} ${promises('rating:pure')}`, () => {
    fc.assert(
      fc.property(MODELS[model], quantity, included, (price, q, free) => {
        const rated = rate(ask(price, q, free))
        const total = rated.lines.reduce((all, line) => all.plus(line.amount), new Decimal(0))
        expect(total.toFixed(2)).toBe(rated.total)
        for (const line of rated.lines) {
          const steps = line.steps.reduce((all, step) => all.plus(step.amount), new Decimal(0))
          expect(steps.eq(line.exact)).toBe(true)
          expect(new Decimal(line.exact).minus(line.amount).abs().lte('0.005')).toBe(true)
          expect(new Decimal(line.billable).plus(line.free).gte(0)).toBe(true)
        }
        expect(rate(structuredClone(ask(price, q, free)))).toEqual(rated)
      }),
    )
  })

  const isMonotone = model !== 'volume'
  if (isMonotone)
    test('more never costs less', () => {
      fc.assert(
        fc.property(MODELS[model], quantity, quantity, included, (price, a, b, free) => {
          const [low, high] = new Decimal(a).lte(b) ? [a, b] : [b, a]
          const [less, more] = [low, high].map((q) => rate(ask(price, q, free)).total)
          expect(new Decimal(more!).gte(less!), `${low}: ${less}, ${high}: ${more}`).toBe(true)
        }),
      )
    })

  test(`billed in any parts it costs what it costs at once ${promises('rating:lines-sum-to-total')}`, () => {
    fc.assert(
      fc.property(MODELS[model], fc.array(quantity, { minLength: 1, maxLength: 5 }), included, (price, parts, free) => {
        let counted = parts[0]!
        let total = new Decimal(rate(ask(price, counted, free)).total)
        for (const part of parts.slice(1)) {
          const whole = new Decimal(counted).plus(part).toFixed()
          const delta = rateDelta({ ...ask(price, whole, free), billed: counted, billedEvents: eventsOf(counted) })
          total = total.plus(delta.amount)
          counted = whole
        }
        expect(total.toFixed(2)).toBe(rate(ask(price, counted, free)).total)
      }),
    )
  })
})

test('volume may cost less for more: that is what it is, and nothing else does', () => {
  const price = parsePrice({
    ...{ ...base, type: 'volume' },
    tiers: [
      { up_to: 10, unit_price: '1' },
      { up_to: null, unit_price: '0.5' },
    ],
  })
  expect(['10', '11'].map((q) => rate({ price, quantity: q }).total)).toEqual(['10.00', '5.50'])
})

test('graduated is the sum of its parts: of each tier what lies in it, and its flat fee once it is entered', () => {
  fc.assert(
    fc.property(unitTiers, quantity, (tiers, q) => {
      const price = parsePrice({ ...base, type: 'tiered', tiers })
      let after = 0
      let sum = new Decimal(0)
      for (const [i, { up_to: upTo, unit_price, flat_fee }] of tiers.entries()) {
        const width = upTo === null ? new Decimal(1e9) : new Decimal(upTo).minus(after)
        const inside = Decimal.max(Decimal.min(new Decimal(q).minus(after), width), 0)
        // The tier as a price of its own, from 0.
        const own = parsePrice({ ...base, type: 'per_unit', unit_price: unit_price! })
        sum = sum.plus(rate({ price: own, quantity: inside.toFixed() }).lines[0]?.exact ?? 0)
        if (inside.gt(0) || i === 0) sum = sum.plus(flat_fee!)
        after = upTo ?? after
      }
      expect(new Decimal(rate({ price, quantity: q }).lines[0]?.exact ?? 0).toFixed()).toBe(sum.toFixed())
    }),
  )
})

/** «1,234.5», «12.50 EUR», «1.9%» as numbers; what is in brackets says where or how it was rounded. */
const said = (text: string): Decimal => {
  const number = new Decimal(text.replaceAll(',', '').replace(/EUR$/, '').replace(/%$/, ''))
  return text.endsWith('%') ? number.dividedBy(100) : number
}

test('what the words say adds up, of any price: the parts to the quantity, the products to the amount', () => {
  const seen = new Set<string>()
  const parts = fc
    .tuple(quantity, included, fc.nat(40), fc.nat(120))
    .map(([of, free, paid, first]) => ({ of, free, paid: String(paid), first }))
  // Tiers that begin behind what the plan includes, as a mistake of the catalogue may have it.
  const from = (price: Price, first: number): Price => {
    const moved = (bound: string | null) => bound && new Decimal(bound).plus(first).toFixed()
    if (price.model !== 'graduated' && price.model !== 'volume') return price
    return { ...price, tiers: price.tiers.map((one) => ({ ...one, after: moved(one.after)!, upTo: moved(one.upTo) })) }
  }
  for (const name of names.filter((one) => one !== 'flat')) {
    fc.assert(
      fc.property(MODELS[name], parts, (given, { of, free, paid, first }) => {
        const price = from(given, first)
        // Packs pay what is behind the quota, and no more than was used.
        const prepaid = Decimal.max(Decimal.min(new Decimal(of).minus(free), paid), 0).toFixed()
        const asked = ask(price, of, new Decimal(free).plus(prepaid).toFixed())
        const [line] = rate({ ...asked, prepaid }).lines
        if (line === undefined) return
        const en = line.explanation.en.replaceAll('\u00a0', '')
        const [, rest, sum, amount] = /^\S+ m((?:, [^:]+)?): (.+) = (\S+)(?: \(.+\))?$/.exec(en) ?? []
        expect(amount, en).toBeDefined()
        let counted = new Decimal(0)
        for (const [, number, kind] of (rest ?? '').matchAll(
          /, (\S+) (included|paid by packs|not billed|of a package)/g,
        )) {
          seen.add(kind!)
          counted = counted.plus(said(number!))
          if (kind === 'paid by packs') expect(said(number!).eq(prepaid), en).toBe(true)
          if (kind === 'included' && 'tiers' in price) expect(said(number!).eq(Decimal.min(free, of)), en).toBe(true)
        }
        let total = new Decimal(0)
        for (const step of sum!.split(' + ')) {
          const product = /^(\S+)( events?| packages? of (\S+))? × (\S+)(?: \(.+\))?$/.exec(step)
          if (product === null) {
            // A fee of a tier, a bound, an amount that is carried.
            const alone = said(/^(?:tier fee |bound )?(\S+)$/.exec(step)![1]!)
            total = total.plus(alone)
            if (name === 'dynamic') counted = counted.plus(alone)
            continue
          }
          const [, units, kind, size, unit] = product
          total = total.plus(said(units!).times(said(unit!)))
          if (kind?.startsWith(' event') === true) continue
          counted = counted.plus(said(units!).times(size ?? 1))
        }
        // A package that was begun is whole.
        if (price.model === 'package' && price.rounding !== 'down') {
          expect(counted.gte(of) && counted.minus(of).lt(price.size), en).toBe(true)
        } else if (price.model !== 'percentage' || counted.gt(0)) expect(counted.eq(of), `${en} of ${of}`).toBe(true)
        expect(total.toDecimalPlaces(2, Decimal.ROUND_HALF_UP).eq(said(amount!)), en).toBe(true)
        expect(said(amount!).eq(line.amount), en).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  }
  expect([...seen].sort()).toEqual(['included', 'not billed', 'of a package', 'paid by packs'])
})
