/** Packs, formulas and parts of a period: nothing is created and nothing is lost. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Decimal } from '../../src/decimal.js'
import { compileFormula } from '../../src/rating/formula.js'
import { burnDown } from '../../src/rating/prepaid.js'
import { lengthOf, prorate } from '../../src/rating/prorate.js'

const add = (texts: readonly string[]): number => texts.reduce((all, text) => all + Number(text), 0)

test('used + forfeited + left is what was bought, debits + overage is what was used, and no expired pack pays', () => {
  const pack = fc.record({
    balance: fc.nat(100),
    priority: fc.nat(2),
    expires: fc.option(fc.nat(50), { nil: undefined }),
  })
  fc.assert(
    fc.property(
      fc.array(pack, { maxLength: 6 }),
      fc.array(fc.record({ at: fc.nat(60), quantity: fc.nat(60) }), { maxLength: 12 }),
      (raw, use) => {
        const packs = raw.map(({ balance, priority, expires }, i) => ({
          id: `p${i}`,
          balance: String(balance),
          priority,
          ...(expires === undefined ? {} : { expires }),
        }))
        const burnt = burnDown(
          packs,
          use.map(({ at, quantity }) => ({ at, quantity: String(quantity) })),
        )
        const debited = add(burnt.debits.map((debit) => debit.quantity))
        expect(debited + add(Object.values(burnt.forfeited)) + add(Object.values(burnt.balances))).toBe(
          add(packs.map((one) => one.balance)),
        )
        expect(debited + Number(burnt.overage)).toBe(use.reduce((all, one) => all + one.quantity, 0))
        for (const debit of burnt.debits) {
          const { expires } = packs.find((one) => one.id === debit.pack)!
          expect(expires === undefined || expires > debit.at).toBe(true)
        }
      },
    ),
  )
})

test('a formula computes what it says and refuses everything else', () => {
  const check = (formula: string, expected: string): void => {
    expect(compileFormula(formula).run({ a: 10, b: '2.5', c: 0 }).toFixed(), formula).toBe(expected)
  }
  check('a', '10')
  check('a - b - b', '5')
  check('a / b * 2', '8')
  check('-(a + -b) * 2', '-15')
  check(' ( a ) ', '10')
  expect(compileFormula('disk.used - disk.free').names).toEqual(['disk.used', 'disk.free'])
  expect(compileFormula('disk.used * 2').run({ 'disk.used': '1.5' }).toFixed()).toBe('3')
  for (const bad of [
    '',
    'a +',
    '(a',
    'a)',
    'a b',
    'a / c',
    'd',
    'a ** b',
    'a.b',
    'a.',
    '.a',
    'a..b',
    'a.1',
    'constructor',
    'a.constructor',
    '__proto__',
    'toString',
    // Powers by repetition: cheap to write, and no number that an invoice could print.
    Array(400).fill('a').join(' * '),
    `-${Array(40).fill('a').join('*')}`,
    '1e3',
    'a;b',
    '('.repeat(50),
    'a'.repeat(2000),
  ]) {
    expect(() => compileFormula(bad).run({ a: 10, b: '2.5', c: 0 }), bad).toThrow(/formula/)
  }
})

test('days do not feel the clock change, and the parts of a fee are within a cent of the whole', () => {
  const zone = 'Europe/Paris'
  const march = { from: Date.parse('2026-02-28T23:00:00Z'), to: Date.parse('2026-03-31T22:00:00Z') }
  expect([lengthOf(march, zone), lengthOf(march, zone, 'second')]).toEqual([31, 743 * 3600])
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 100_000 }), fc.integer({ min: 1, max: 30 }), (amountCents, used) => {
      const amount = (amountCents / 100).toFixed(2)
      const parts = new Decimal(prorate(amount, used, 31, 'EUR')).plus(prorate(amount, 31 - used, 31, 'EUR'))
      expect(parts.minus(amount).abs().lte('0.01')).toBe(true)
    }),
  )
  expect(() => prorate('1', 1, 0, 'EUR')).toThrow(/empty/)
})
