import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseQuantity, powerOfTen, printQuantity, SCALE_MAX, SCALED_MAX } from '../src/amount.js'

/** The same question answered slowly, with nothing but BigInt: undefined when the text is no decimal. */
function slowly(text: string, scale: number): bigint | string {
  const match = /^(-?)(0|[1-9]\d*)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text)
  if (match === null) return 'not_a_number'
  const fraction = match[3] ?? ''
  const digits = BigInt(match[2]! + fraction)
  if (digits === 0n) return 0n
  const shift = Number(match[4] ?? '0') - fraction.length + scale
  const scaled = shift >= 0 ? digits * 10n ** BigInt(shift) : digits / 10n ** BigInt(-shift)
  // A text may be both too large and too precise: far out of range is told first, then the decimals.
  if (scaled >= 10n ** 19n) return 'out_of_range'
  if (shift < 0 && digits % 10n ** BigInt(-shift) !== 0n) return 'too_many_decimals'
  if (scaled > SCALED_MAX) return 'out_of_range'
  return match[1] === '-' ? -scaled : scaled
}

const scales = fc.integer({ min: 0, max: SCALE_MAX })
const digits = (maxLength: number) => fc.stringMatching(new RegExp(`^\\d{0,${maxLength}}$`))

test('any decimal text at any scale => the integer that BigInt arithmetic gives, or the same refusal', () => {
  const text = fc
    .tuple(
      fc.constantFrom('', '-'),
      digits(20),
      fc.constantFrom('', '.'),
      digits(12),
      fc.constantFrom('', '', '', 'e', 'E'),
      fc.constantFrom('', '+', '-'),
      digits(2),
    )
    .map(([sign, whole, point, fraction, e, esign, exponent]) => {
      return sign + whole + point + (point === '' ? '' : fraction) + (e === '' ? '' : e + esign + exponent)
    })
  fc.assert(
    fc.property(text, scales, (one, scale) => {
      expect(parseQuantity(one, scale)).toBe(slowly(one, scale))
    }),
    { numRuns: 5_000 },
  )
})

test('any scaled integer => printed and read again it is the same, and the text is the shortest', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -SCALED_MAX, max: SCALED_MAX }), scales, (scaled, scale) => {
      const text = printQuantity(scaled, scale)
      expect(parseQuantity(text, scale)).toBe(scaled)
      if (text.includes('.')) expect(text).toMatch(/[1-9]$/)
      expect(text).toMatch(/^-?(0|[1-9]\d*)(\.\d+)?$/)
    }),
    { numRuns: 2_000 },
  )
})

test('edges of the range: 10^18 scaled is inside at every scale, one more is not', () => {
  for (let scale = 0; scale <= SCALE_MAX; scale += 1) {
    expect(parseQuantity(printQuantity(SCALED_MAX, scale), scale)).toBe(SCALED_MAX)
    expect(parseQuantity(printQuantity(-SCALED_MAX, scale), scale)).toBe(-SCALED_MAX)
    expect(parseQuantity(printQuantity(SCALED_MAX + 1n, scale), scale)).toBe('out_of_range')
    expect(parseQuantity('1', scale)).toBe(powerOfTen(scale))
  }
})

test('a text longer than a number may be => refused by what it is made of, however long', () => {
  expect(parseQuantity('9'.repeat(65), 0)).toBe('out_of_range')
  expect(parseQuantity('9'.repeat(1 << 20), 0)).toBe('out_of_range')
  expect(parseQuantity('x'.repeat(1 << 20), 0)).toBe('not_a_number')
  expect(parseQuantity(`${'9'.repeat(1 << 20)}x`, 0)).toBe('not_a_number')
})
