/** Quota status and thresholds on random quantities, against plain BigInt arithmetic written another way. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { quotaStatus, thresholdQuantity, thresholdState, thresholdsCrossed } from '../../src/quota/status.js'

const micros = (value: bigint): string => {
  const text = value.toString().padStart(7, '0')
  return `${text.slice(0, -6)}.${text.slice(-6)}`
}

test('percent, overage and state follow from usage and limit, decimals included', () => {
  fc.assert(
    fc.property(fc.bigInt(0n, 10n ** 24n), fc.bigInt(1n, 10n ** 24n), (usage, limit) => {
      const status = quotaStatus(micros(usage), micros(limit))
      // Half up to a tenth of a percent: |tenths × limit − usage × 1000| is at most half a limit.
      const tenths = BigInt(status.percent!.replace('.', ''))
      const off = tenths * limit - usage * 1000n
      expect(2n * (off < 0n ? -off : off) <= limit).toBe(true)
      expect(status.status).toBe(usage > limit ? 'over' : usage === limit ? 'at_limit' : 'within')
      expect(Number(status.overage) > 0).toBe(usage > limit)
    }),
  )
})

test('a threshold fires in the step that reaches it and in no other, however the way is cut', () => {
  const thresholds = ['80', '100', '120'].map((value) => ({ code: `${value}%`, kind: 'percent' as const, value }))
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 20 }),
      fc.integer({ min: 1, max: 200 }),
      (steps, limit) => {
        let balance = 0
        const fired: string[] = []
        for (const step of steps) {
          const next = balance + step
          fired.push(
            ...thresholdsCrossed({ previous: String(balance), value: String(next), limit: String(limit), thresholds }),
          )
          balance = next
        }
        const reached = thresholds
          .filter(({ value }) => Number(value) * limit <= 100 * balance && balance > 0)
          .map(({ code }) => code)
        expect(fired).toEqual(reached)
      },
    ),
  )
})

test('percentages of no limit never fire; absolute ones do', () => {
  expect(thresholdQuantity({ kind: 'percent', value: '80' }, null)).toBeNull()
  expect(thresholdQuantity({ kind: 'percent', value: '87.5' }, '50')).toBe('43.75')
  expect(thresholdQuantity({ kind: 'absolute', value: '10000' }, null)).toBe('10000')
  expect(thresholdState('43.75', '43.75')).toBe('alarm')
  expect(thresholdState('43.749999', '43.75')).toBe('ok')
})
