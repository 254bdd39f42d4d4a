/** Quota status on random quantities, against plain BigInt arithmetic written another way. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { quotaStatus } from '../../src/quota/status.js'

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
