/**
 * Reading what people write: the members of a definition's JSON, each checked, each refused with its name and what is expected
 * (ReleveError `invalid_request`).
 */
import { parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { isTimeZone } from '../period.js'
import type { Days } from './part.js'
import { midnightOf } from './schedule.js'

export type Fields = Record<string, unknown>

export function fieldsOf(json: unknown, what: string, known: readonly string[]): Fields {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new ReleveError('invalid_request', `${what}: an object is expected`)
  for (const member of Object.keys(json)) {
    if (!known.includes(member))
      throw new ReleveError('invalid_request', `${what}: unknown member ${member}; known are ${known.join(', ')}`)
  }
  return json as Fields
}

export function name(value: unknown, field: string): string {
  if (
    typeof value !== 'string' ||
    value.trim() === '' ||
    Buffer.byteLength(value) > limits.nameBytesMax ||
    /\p{Cc}/u.test(value)
  ) {
    throw new ReleveError(
      'invalid_request',
      `${field}: a text of 1 to ${limits.nameBytesMax} bytes without control characters is expected`,
    )
  }
  return value
}

export function list(value: unknown, field: string, max: number): unknown[] {
  if (!Array.isArray(value) || value.length > max)
    throw new ReleveError('invalid_request', `${field}: a list of at most ${max} is expected`)
  return value
}

export function texts(value: unknown, field: string): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || Object.keys(value).length > 50) {
    throw new ReleveError('invalid_request', `${field}: an object of at most 50 texts is expected`)
  }
  return Object.fromEntries(
    Object.entries(value).map(([key, text]) => [name(key, field), name(text, `${field}.${key}`)]),
  )
}

export function wholeNumber(value: unknown, field: string, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw new ReleveError('invalid_request', `${field}: a whole number from ${min} to ${max} is expected`)
  }
  return value
}

export function flag(value: unknown, field: string): boolean {
  if (typeof value !== 'boolean') throw new ReleveError('invalid_request', `${field}: true or false is expected`)
  return value
}

export function oneOf<const T extends string>(value: unknown, known: readonly T[], field: string): T {
  if (typeof value !== 'string' || !(known as readonly string[]).includes(value)) {
    throw new ReleveError('invalid_request', `${field}: one of ${known.join(', ')} is expected`)
  }
  return value as T
}

export function quantity(value: unknown, field: string): string {
  const number = parseDecimal(value, field)
  if (number.isNegative() && !number.isZero())
    throw new ReleveError('invalid_request', `${field}: must not be negative`)
  return printDecimal(number)
}

export function country(value: unknown): string {
  const code = name(value, 'country')
  if (!/^[A-Z]{2}$/.test(code))
    throw new ReleveError('invalid_request', `country: two letters such as CI are expected, got ${code}`)
  return code
}

export function zone(value: unknown): string {
  const text = name(value, 'timeZone')
  if (!isTimeZone(text)) throw new ReleveError('invalid_request', `timeZone: unknown ${text}`)
  return text
}

export function assertOnce(names: readonly string[], field: string): void {
  const seen = new Set<string>()
  for (const one of names) {
    if (seen.has(one)) throw new ReleveError('invalid_request', `${field}: ${one} is there twice`)
    seen.add(one)
  }
}

export function date(value: unknown, field: string, timeZone: string): string {
  const day = name(value, field)
  midnightOf(day, timeZone, field)
  return day
}

export function daysOf(fields: Fields, timeZone: string, at: string): Days {
  const from = fields.from === undefined ? {} : { from: date(fields.from, `${at}.from`, timeZone) }
  const until = fields.until === undefined ? {} : { until: date(fields.until, `${at}.until`, timeZone) }
  if (from.from !== undefined && until.until !== undefined && until.until < from.from)
    throw new ReleveError('invalid_request', `${at}.until: lies before from`)
  return { ...from, ...until }
}
