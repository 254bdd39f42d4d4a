import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseEpochMs, parseTime } from '../../src/ingest/time.js'

const check = (text: string, expected: number): void => expect(parseTime(text), text).toBe(expected)
const refused = (text: string): void => expect(parseTime(text), text).toBeNaN()

test('any instant of the years 0000 to 9999, in any offset => its milliseconds', () => {
  const instant = fc.integer({ min: Date.parse('0000-01-02T00:00:00Z'), max: Date.parse('9999-12-30T00:00:00Z') })
  fc.assert(
    fc.property(instant, fc.integer({ min: -1439, max: 1439 }), (time, offset) => {
      check(new Date(time).toISOString(), time)
      const local = new Date(time + offset * 60_000).toISOString().slice(0, -1)
      const zone = `${String(Math.floor(Math.abs(offset) / 60)).padStart(2, '0')}:${String(Math.abs(offset) % 60).padStart(2, '0')}`
      check(`${local}${offset < 0 ? '-' : '+'}${zone}`, time)
    }),
    { numRuns: 3_000 },
  )
})

test('every day of 400 years, and the day before and behind each month => only real dates are read', () => {
  for (let year = 1900; year <= 2300; year += 1) {
    for (let month = 1; month <= 12; month += 1) {
      const days = new Date(Date.UTC(year, month, 0)).getUTCDate()
      const two = (n: number): string => String(n).padStart(2, '0')
      check(`${year}-${two(month)}-${two(days)}T00:00:00Z`, Date.UTC(year, month - 1, days))
      refused(`${year}-${two(month)}-${two(days + 1)}T00:00:00Z`)
      refused(`${year}-${two(month)}-00T00:00:00Z`)
    }
    refused(`${year}-00-01T00:00:00Z`)
    refused(`${year}-13-01T00:00:00Z`)
  }
})

test('decimals of a second => cut to milliseconds; ten of them are no time', () => {
  const base = Date.UTC(2026, 2, 10, 9, 15)
  check('2026-03-10T09:15:00Z', base)
  check('2026-03-10T09:15:00.1Z', base + 100)
  check('2026-03-10T09:15:00.12Z', base + 120)
  check('2026-03-10T09:15:00.123Z', base + 123)
  check('2026-03-10T09:15:00.123999999Z', base + 123)
  check('2026-03-10T09:15:00.000000001+00:00', base)
  refused('2026-03-10T09:15:00.1234567890Z')
  refused('2026-03-10T09:15:00.Z')
})

test('small letters and -00:00 are RFC 3339', () => {
  check('2026-03-10t09:15:00z', Date.UTC(2026, 2, 10, 9, 15))
  check('2026-03-10T09:15:00-00:00', Date.UTC(2026, 2, 10, 9, 15))
})

test('a leap second => the second behind it, when it is the last of a UTC day; elsewhere no time', () => {
  check('2016-12-31T23:59:60Z', Date.UTC(2017, 0, 1))
  check('2016-12-31T23:59:60.5Z', Date.UTC(2017, 0, 1) + 500)
  check('2017-01-01T00:59:60+01:00', Date.UTC(2017, 0, 1))
  refused('2016-12-31T23:58:60Z')
  refused('2016-12-31T23:59:60+01:00')
  refused('2016-12-31T23:59:61Z')
})

test('what looks like a time and is none => refused', () => {
  for (const text of [
    '',
    'now',
    '2026-03-10',
    '2026-03-10T09:15:00',
    '2026-03-10 09:15:00Z',
    '2026-03-10T09:15Z',
    '2026-03-10T24:00:00Z',
    '2026-03-10T09:60:00Z',
    '2026-03-10T09:15:00+24:00',
    '2026-03-10T09:15:00+01:60',
    '2026-03-10T09:15:00+0100',
    '2026-03-10T09:15:00+01',
    '2026-03-10T09:15:00Z ',
    ' 2026-03-10T09:15:00Z',
    '2026-03-10T09:15:00ZZ',
    '+2026-03-10T09:15:00Z',
    '-026-03-10T09:15:00Z',
    '20260310T091500.000Z',
    '2026-3-10T09:15:00.00Z',
    '٢٠٢٦-03-10T09:15:00Z',
    '10000-01-01T00:00:00Z',
  ]) {
    refused(text)
  }
})

test('epoch milliseconds => whole numbers only', () => {
  expect(parseEpochMs('0')).toBe(0)
  expect(parseEpochMs('-0')).toBe(0)
  expect(parseEpochMs('-1')).toBe(-1)
  expect(parseEpochMs('1773133200123')).toBe(1773133200123)
  expect(parseEpochMs('1000000000000000')).toBe(1e15)
  for (const text of ['1.0', '1e3', '1E3', '1000000000000001', '-1000000000000001', '99999999999999999']) {
    expect(parseEpochMs(text), text).toBeNaN()
  }
})
