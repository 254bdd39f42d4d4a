/** The small pure parts: schedules, number patterns, units, trials and subscription moves, at their edges. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { nextVersion, versionOrder } from '../../src/catalog/book.js'
import { assertPattern, mayCollide, printNumber, seriesOf } from '../../src/catalog/number-pattern.js'
import { renewalOf } from '../../src/catalog/renewal.js'
import { midnightOf, schedule } from '../../src/catalog/schedule.js'
import { assertSubscriptionMove, isSubscriptionState, trialStatus } from '../../src/catalog/subscription.js'
import { convertsExactly, convertUnit, isKnownUnit } from '../../src/catalog/unit.js'
import { dateIn, formatCompact, formatMoney, formatNumber, formatPercent } from '../../src/format.js'
import { DAY_MS } from '../../src/period.js'

const plain = (text: string): string => text.replaceAll('\u00a0', ' ')

test('periods of a schedule touch, end in their renewals, and keep the day of the anchor where the month has it', () => {
  const zones = fc.constantFrom('Africa/Abidjan', 'Europe/Paris', 'America/New_York', 'Asia/Kolkata', 'Pacific/Apia')
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 1, max: 40 }), zones, (dayNumber, count, zone) => {
      const date = new Date(Date.UTC(2020, 0, 1) + dayNumber * DAY_MS).toISOString().slice(0, 10)
      const anchor = midnightOf(date, zone)
      const contract = { start: date, timeZone: zone, cycle: 'monthly', state: 'active' } as const
      const periods = schedule(contract, { from: anchor, to: anchor + (28 * count - 27) * DAY_MS })
      expect(periods[0]!.from).toBe(anchor)
      expect(periods.at(-1)!.to).toBeGreaterThanOrEqual(anchor + (28 * count - 27) * DAY_MS)
      for (const [i, period] of periods.entries()) {
        if (i > 0) expect(period.from).toBe(periods[i - 1]!.to)
        const next = dateIn(period.to, zone)
        expect(renewalOf(contract, period.from).nextRenewal).toBe(next)
        expect(renewalOf(contract, period.to - 1).nextRenewal).toBe(next)
        const day = Number(dateIn(period.from, zone).slice(8))
        expect(day === Number(date.slice(8)) || day >= 28 || zone === 'Pacific/Apia').toBe(true)
      }
    }),
  )
})

test('a date that is none, or is in no known zone, has no midnight', () => {
  for (const bad of ['2026-13-01', '2026-01', 'march', '2026-2-01'])
    expect(() => midnightOf(bad, 'UTC'), bad).toThrow(/YYYY-MM-DD/)
  expect(() => midnightOf('2026-02-29', 'UTC')).toThrow(/YYYY-MM-DD/)
  expect(() => midnightOf('2026-01-01', 'Mars/Olympus')).toThrow(/time zone/)
})

test('numbers follow their pattern; a change of series begins at 1; the width is a minimum', () => {
  expect(printNumber('INV/{YYYY}/{MM}/{NNNN}', '2022-05-01', 18)).toBe('INV/2022/05/0018')
  expect(printNumber('{NN}-{YY}', '2026-05-01', 100)).toBe('100-26')
  expect(printNumber('{YY}/{YYYY}/{YY}-{N}', '2026-05-01', 7)).toBe('26/2026/26-7')
  expect(printNumber('{NNNN}', '2026-01-01', 12)).toBe('0012')
  expect(seriesOf('FA-{YYYY}-{NNNN}', '2026-12-31')).toBe('FA-2026-{N}')
  expect(seriesOf('FA-{YYYY}-{NNNNN}', '2026-12-31')).toBe('FA-2026-{N}')
  for (const [a, b, collide] of [
    ['FA-{YYYY}-{NNNN}', 'AV-{YYYY}-{NNNN}', false],
    ['FA-{YYYY}-{NNNN}', 'FA-{YYYY}-{NNN}', true],
    ['FA-{YYYY}-{NNNN}', 'FA-{YYYY}-{MM}{NN}', true],
    ['FA{NNNN}', 'FA1{NNN}', true],
    ['FA.{NNNN}', 'FA-{NNNN}', false],
    ['INV/{YYYY}/{MM}/{NNNN}', 'INV/{YYYY}/{NNNN}', false],
  ] as const) {
    expect([mayCollide(a, b), mayCollide(b, a)], `${a} ${b}`).toEqual([collide, collide])
  }
  for (const bad of [
    'FA-{YYYY}',
    'FA',
    '{NN}{NN}',
    'FA-{MM}-{NNNN}',
    'FA-{YYYY}-{NNNN} ',
    '{X}{NN}',
    `${'F'.repeat(40)}{NN}`,
  ]) {
    expect(() => assertPattern(bad), bad).toThrow(/pattern/)
  }
})

test('versions are ordered by number, and an edit is the next draft', () => {
  expect(versionOrder('3.10')).toBeGreaterThan(versionOrder('3.9'))
  expect(nextVersion('3.9')).toEqual({ version: '3.10', status: 'draft' })
  for (const bad of ['3', 'v3.1', '3.1.2', '', '-1.0']) expect(() => versionOrder(bad), bad).toThrow(/X\.Y/)
})

test('units convert exactly within their kind and never across', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10 ** 9 }), fc.constantFrom('ko', 'Mo', 'Go', 'To'), (value, unit) => {
      expect(convertUnit(convertUnit(String(value), unit, 'o'), 'o', unit)).toBe(String(value))
    }),
  )
  expect(convertUnit('1536', 'Mio', 'Gio')).toBe('1.5')
  expect(convertUnit('100', 'min', 'h')).toBe(`1.${'6'.repeat(29)}7`)
  const exact = (from: string, to: string): boolean => convertsExactly(from, to)
  expect([exact('Mo', 'Go'), exact('Mio', 'Gio'), exact('h', 'min'), exact('min', 'h')]).toEqual([
    true,
    true,
    true,
    false,
  ])
  expect(() => convertUnit('1', 'Go', 'kWh')).toThrow(/does not convert/)
  expect(() => convertUnit('1', 'constructor', 'Go')).toThrow(/does not convert/)
  expect([isKnownUnit('Go'), isKnownUnit('document'), isKnownUnit('furlong')]).toEqual([true, true, false])
})

test('a trial ends on its day, extended by its extension, and grace counts from there', () => {
  const trial = { start: '2026-02-25', lengthDays: 14, graceDays: 7 }
  const on = (today: string): unknown[] => Object.values(trialStatus(trial, today))
  expect(on('2026-03-10')).toEqual(['2026-03-11', 1, '2026-03-18', 'active'])
  expect(on('2026-03-11')).toEqual(['2026-03-11', 0, '2026-03-18', 'grace'])
  expect(on('2026-03-17')).toEqual(['2026-03-11', 0, '2026-03-18', 'grace'])
  expect(on('2026-03-18')).toEqual(['2026-03-11', 0, '2026-03-18', 'expired'])
  expect(trialStatus({ ...trial, extensionDays: 7 }, '2026-03-10').daysLeft).toBe(8)
  expect(() => assertSubscriptionMove('cancelled', 'active')).toThrow(/cannot become/)
  expect([isSubscriptionState('active'), isSubscriptionState('toString')]).toEqual([true, false])
})

test('amounts and numbers are shown by their digits', () => {
  expect(plain(formatMoney('1059.32', 'EUR', 'fr'))).toBe('1 059,32 €')
  expect(plain(formatMoney('-1234567.5', 'EUR', 'en'))).toBe('-1,234,567.50 EUR')
  expect(plain(formatMoney('442771', 'XOF', 'fr'))).toBe('442 771 F CFA')
  expect(plain(formatMoney('0.005', 'EUR', 'fr'))).toBe('0,005 €')
  expect(plain(formatNumber('12345678901234567890.123456789', 'fr'))).toBe('12 345 678 901 234 567 890,123456789')
  expect(plain(formatPercent('84.7', 'fr'))).toBe('84,7 %')
  expect(['999', '1000', '2449999', '2400000', '-1500'].map(formatCompact)).toEqual([
    '999',
    '1k',
    '2.4M',
    '2.4M',
    '-1.5k',
  ])
})
