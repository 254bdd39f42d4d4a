/**
 * Invoice numbers: patterns, and what follows what. The counter itself is a row in PostgreSQL (store.ts), taken under its lock
 * in the finalising transaction, so that a number is used exactly when its invoice is issued.
 *
 * A pattern names the year, perhaps the month, and the counter: FA-{YYYY}-{NNNN}, INV/{YYYY}/{MM}/{NNNN}. The counter begins at 1
 * again when the part before it changes. Its width is a minimum: 9999 is followed by 10000. Sort by series and counter, never by
 * the text.
 */
import { assert } from '../assert.js'
import { ReleveError } from '../errors.js'

const COUNTER = /\{(N+)\}/

/** Throws ReleveError `invalid_request` unless the pattern has exactly one counter, and a year if it has a month. */
export function assertPattern(pattern: string): void {
  const counters = pattern.match(/\{N+\}/g)?.length ?? 0
  const known = pattern.replace(/\{(?:N+|YYYY|YY|MM)\}/g, '')
  if (counters !== 1 || /[{}]/.test(known) || !/^[A-Za-z0-9/._-]*$/.test(known) || pattern.length > 40) {
    throw new ReleveError('invalid_request', `pattern: such as FA-{YYYY}-{NNNN} is expected, got ${pattern}`)
  }
  if (/\{MM\}/.test(pattern) && !/\{YY(?:YY)?\}/.test(pattern)) {
    throw new ReleveError('invalid_request', 'pattern: a month without a year would repeat numbers')
  }
}

/** The series that a date belongs to: the pattern with its date parts filled in. A change of series restarts the counter. */
export function seriesOf(pattern: string, date: string): string {
  const [year = '', month = ''] = date.split('-')
  return pattern.replace('{YYYY}', year).replace('{YY}', year.slice(-2)).replace('{MM}', month)
}

export function printNumber(pattern: string, date: string, counter: number): string {
  assert(Number.isSafeInteger(counter) && counter > 0, `an invoice counter is a positive integer, got ${counter}`)
  return seriesOf(pattern, date).replace(COUNTER, (_, width: string) => String(counter).padStart(width.length, '0'))
}

/** The number that follows `last` at `date` (YYYY-MM-DD). */
export function nextNumber(pattern: string, last: string | null, date: string): string {
  assertPattern(pattern)
  const series = seriesOf(pattern, date)
  const counter = last === null ? null : counterIn(series, last)
  return printNumber(pattern, date, (counter ?? 0) + 1)
}

/** The counter of a number of this series; null for a number of another one. */
function counterIn(series: string, number: string): number | null {
  const [before = '', after = ''] = series.split(/\{N+\}/)
  const digits =
    number.startsWith(before) && number.endsWith(after) ? number.slice(before.length, number.length - after.length) : ''
  return /^[0-9]+$/.test(digits) ? Number(digits) : null
}
