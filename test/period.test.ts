/** Windows where clocks change, held against Intl's wall clock. */
import { expect, test } from 'vitest'
import { HOUR_MS, MINUTE_MS, windowOf } from '../src/period.js'
import { windowLabel } from './flow/oracle.js'

const changes = [
  ['Europe/Paris', '2026-03-29T01:00:00Z'],
  ['Europe/Paris', '2026-10-25T01:00:00Z'],
  ['America/New_York', '2026-11-01T06:00:00Z'],
  ['Australia/Lord_Howe', '2026-04-04T15:00:00Z'],
  ['Australia/Lord_Howe', '2026-10-03T15:30:00Z'],
  ['Asia/Kathmandu', '2026-06-01T00:00:00Z'],
] as const

for (const size of ['hour', 'day', 'month'] as const) {
  test(`the ${size}s around every change of clocks => they meet without a gap, hold their time and carry one label each`, () => {
    for (const [zone, change] of changes) {
      const span = size === 'hour' ? 4 * HOUR_MS : size === 'day' ? 60 * HOUR_MS : 2_000 * HOUR_MS
      const step = size === 'hour' ? MINUTE_MS : size === 'day' ? 15 * MINUTE_MS : 7 * HOUR_MS
      const around = Date.parse(change)
      for (let at = around - span; at < around + span; at += step) {
        const { from, to } = windowOf(at, size, zone)
        expect(from, `${zone} ${at}`).toBeLessThanOrEqual(at)
        expect(to, `${zone} ${at}`).toBeGreaterThan(at)
        const label = windowLabel(at, size, zone)
        expect(windowLabel(from, size, zone)).toBe(label)
        expect(windowLabel(to - 1, size, zone)).toBe(label)
        expect(windowLabel(from - 1, size, zone)).not.toBe(label)
        expect(windowLabel(to, size, zone)).not.toBe(label)
      }
    }
  })
}
