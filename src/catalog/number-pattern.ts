/**
 * Invoice numbers: patterns, and what follows what. The counter itself is a row in PostgreSQL (invoicing/invoicing.ts), taken under
 * its lock in the finalising transaction, so that a number is used exactly when its invoice is issued.
 *
 * A pattern names the year, perhaps the month, and the counter: FA-{YYYY}-{NNNN}, INV/{YYYY}/{MM}/{NNNN}. The counter begins at 1
 * again when the year or month in it changes, and goes on when only its width does. The width is a minimum: 9999 is followed by
 * 10000. Sort by series and counter, never by the text.
 */
import { assert } from '../assert.js'
import { ReleveError } from '../errors.js'

const COUNTER = /\{(N+)\}/

/**
 * Throws ReleveError `invalid_request` unless every invoice gets a number of its own: exactly one counter, and a year if there is
 * a month, since the counter begins again with it.
 */
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

/** Whether two patterns can give the same number: FA-{YYYY}-{NNNN} and FA-{YYYY}-{MM}{NN} can. */
export function mayCollide(a: string, b: string): boolean {
  const digits = { '{YYYY}': '\\d{4}', '{YY}': '\\d{2}', '{MM}': '\\d{2}' } as Readonly<Record<string, string>>
  const numbersOf = (pattern: string): RegExp =>
    new RegExp(
      `^${pattern
        .split(/(\{[A-Z]+\})/)
        .map((part) => digits[part] ?? (COUNTER.test(part) ? `\\d{${part.length - 2},}` : part.replaceAll('.', '\\.')))
        .join('')}$`,
    )
  const given = (pattern: string, by: string): boolean =>
    Array.from({ length: 16 }, (_, i) => printNumber(pattern, '2026-11-11', 10 ** i)).some((one) =>
      numbersOf(by).test(one),
    )
  return given(a, b) || given(b, a)
}

/**
 * The series that a date belongs to: the pattern with its date parts filled in, whatever the width of the counter. A change of
 * series restarts the counter.
 */
export function seriesOf(pattern: string, date: string): string {
  return dated(pattern, date).replace(COUNTER, '{N}')
}

export function printNumber(pattern: string, date: string, counter: number): string {
  assert(Number.isSafeInteger(counter) && counter > 0, `an invoice counter is a positive integer, got ${counter}`)
  return dated(pattern, date).replace(COUNTER, (_, width: string) => String(counter).padStart(width.length, '0'))
}

function dated(pattern: string, date: string): string {
  const [year = '', month = ''] = date.split('-')
  return pattern.replaceAll('{YYYY}', year).replaceAll('{YY}', year.slice(-2)).replaceAll('{MM}', month)
}
