/**
 * A usage datum as somebody hands it in (page, API, a row of a file): which fields it has, what each may hold, and which states
 * follow each other. The rules are the same for all three. Pure; whether contract and item exist is asked of the book.
 */
import { DateTime } from 'luxon'
import type { Book } from '../catalog/book.js'
import { parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { DAY_MS, parseMoment } from '../period.js'

export const UsageDataMoves = {
  draft: ['pending', 'excluded'],
  pending: ['draft', 'excluded', 'collected'],
  excluded: ['draft'],
  // Back only with its closing, when the draft of the invoice is dropped.
  collected: [],
} as const satisfies Record<string, readonly string[]>
export type UsageDataState = keyof typeof UsageDataMoves

/** Throws ReleveError `conflict`. */
export function assertUsageDataMove(from: UsageDataState, to: UsageDataState): void {
  if (from !== to && !(UsageDataMoves[from] as readonly string[]).includes(to))
    throw new ReleveError('conflict', `usage data: ${from} cannot become ${to}`)
}

export interface Datum {
  readonly tenant: string
  readonly contract: string
  /** null: offered to the calculators of every item. */
  readonly item: string | null
  readonly externalReference: string | null
  /** Epoch ms; the billing period that holds it is the datum's. */
  readonly start: number
  readonly end: number | null
  /** Decimal text. */
  readonly value: string | null
  readonly data: Readonly<Record<string, unknown>> | null
  readonly qualifier: string | null
  readonly description: string | null
  readonly axis1: string | null
  readonly axis2: string | null
  readonly doNotInvoice: boolean
  readonly invoicingNotes: string | null
  /** Printed on the usage statement. */
  readonly notes: string | null
  readonly state: UsageDataState
}

export const DatumFields = [
  'contract',
  'item',
  'externalReference',
  'start',
  'end',
  'value',
  'data',
  'qualifier',
  'description',
  'axis1',
  'axis2',
  'doNotInvoice',
  'invoicingNotes',
  'notes',
  'state',
] as const

/** Which items a contract has besides those of the book: those of its objects. */
export type ItemOf = (contract: string, item: string) => boolean

/**
 * Reads one. `tenant` is the key's; a contract of another is answered as if it were not there. Throws ReleveError
 * `invalid_request` or `unprocessable`, naming the field.
 */
export function parseDatum(json: unknown, book: Book, tenant: string | null, hasItem: ItemOf = () => false): Datum {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new ReleveError('invalid_request', 'usage data: an object is expected')
  const fields = json as Record<string, unknown>
  for (const member of Object.keys(fields)) {
    if (!(DatumFields as readonly string[]).includes(member))
      throw new ReleveError(
        'invalid_request',
        `${member.slice(0, 80)}: no such field; known are ${DatumFields.join(', ')}`,
      )
  }
  const short = (name: string): string | null => textOf(fields[name], name, limits.nameBytesMax, false)
  const long = (name: string): string | null => textOf(fields[name], name, limits.usageDataTextMax, true)
  const contractId = short('contract')
  if (contractId === null) throw new ReleveError('invalid_request', 'contract: is needed')
  const contract = book.contracts.get(contractId)
  if (contract === undefined || (tenant !== null && contract.tenant !== tenant))
    throw new ReleveError('unprocessable', `contract: there is no ${contractId}`)
  const item = short('item')
  if (item !== null && !contract.items.some((one) => one.id === item) && !hasItem(contractId, item))
    throw new ReleveError('unprocessable', `item: ${contractId} has no ${item}`)
  const state = fields.state ?? 'draft'
  if (state !== 'draft' && state !== 'pending' && state !== 'excluded')
    throw new ReleveError('invalid_request', 'state: draft, pending or excluded')
  const start = momentOf(fields.start, 'start', contract.timeZone)
  if (start === null) throw new ReleveError('invalid_request', 'start: is needed')
  const end = momentOf(fields.end, 'end', contract.timeZone)
  if (end !== null && end < start) throw new ReleveError('invalid_request', 'end: lies before start')
  const value = isEmpty(fields.value) ? null : numberOf(fields.value)
  const data = isEmpty(fields.data) ? null : dataOf(fields.data)
  const fault = usageDataFault({ value, json: data })
  if (fault === 'value_and_json_exclusive')
    throw new ReleveError('invalid_request', `value: ${fault}: a datum has a value or data, not both`)
  if (fault === 'empty' && state !== 'draft')
    throw new ReleveError('invalid_request', `value: a datum that is ${state} has a value or data`)
  if (fields.doNotInvoice !== undefined && fields.doNotInvoice !== null && typeof fields.doNotInvoice !== 'boolean')
    throw new ReleveError('invalid_request', 'doNotInvoice: true or false is expected')
  return {
    tenant: contract.tenant,
    contract: contractId,
    item,
    externalReference: short('externalReference'),
    start,
    end,
    value,
    data,
    qualifier: short('qualifier'),
    description: long('description'),
    axis1: short('axis1'),
    axis2: short('axis2'),
    doNotInvoice: fields.doNotInvoice === true,
    invoicingNotes: long('invoicingNotes'),
    notes: long('notes'),
    state,
  }
}

/** What is wrong with the content of a datum, as a code, or null. A calculator reads a value or data, never both. */
export function usageDataFault(datum: {
  readonly value?: unknown
  readonly json?: unknown
}): 'value_and_json_exclusive' | 'empty' | null {
  const [value, json] = [!isEmpty(datum.value), !isEmpty(datum.json)]
  return value && json ? 'value_and_json_exclusive' : value || json ? null : 'empty'
}

const isEmpty = (value: unknown): boolean => value === undefined || value === null || value === ''

/** The bounds of an event's value: what fits one place fits the other. */
function numberOf(value: unknown): string {
  const number = parseDecimal(value, 'value')
  if (number.decimalPlaces() > 9 || number.abs().gte('1e29'))
    throw new ReleveError('invalid_request', 'value: at most 29 digits before the point and 9 behind it')
  return printDecimal(number)
}

function dataOf(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ReleveError('invalid_request', 'data: an object such as {"cpu":8} is expected')
  const text = JSON.stringify(value)
  if (Buffer.byteLength(text) > limits.usageDataJsonBytesMax)
    throw new ReleveError('invalid_request', `data: at most ${limits.usageDataJsonBytesMax} bytes`)
  if (text.includes('\\u0000')) throw new ReleveError('invalid_request', 'data: holds a NUL character')
  return value as Record<string, unknown>
}

function textOf(value: unknown, name: string, max: number, lines: boolean): string | null {
  if (isEmpty(value)) return null
  if (
    typeof value !== 'string' ||
    value.trim() === '' ||
    Buffer.byteLength(value) > max ||
    /\p{Surrogate}/u.test(value) ||
    (lines ? /[^\P{Cc}\n\r\t]/u : /\p{Cc}/u).test(value)
  )
    throw new ReleveError(
      'invalid_request',
      `${name}: a text of 1 to ${max} bytes without control characters is expected`,
    )
  return value
}

const DAY = /^(?:(\d{4})-(\d{2})-(\d{2})|(\d{2})\/(\d{2})\/(\d{4}))(?:[ T](\d{2}:\d{2}(?::\d{2})?))?$/

/** RFC 3339, epoch ms, or a day (2026-04-14 or 14/04/2026) with or without a time of day, in the contract's zone. */
function momentOf(value: unknown, name: string, zone: string): number | null {
  if (isEmpty(value)) return null
  const text = typeof value === 'number' ? String(value) : value
  if (typeof text !== 'string' || text.length > 40)
    throw new ReleveError('invalid_request', `${name}: a text such as 2026-04-14 or 2026-04-14T09:00:00Z is expected`)
  const day = DAY.exec(text)
  if (day === null) return parseMoment(name, text)
  const date = day[1] === undefined ? `${day[6]}-${day[5]}-${day[4]}` : `${day[1]}-${day[2]}-${day[3]}`
  const { midnight, even } = dayOf(date, zone)
  if (day[7] === undefined && !Number.isNaN(midnight)) return midnight
  const [hours = 99, minutes = 99, seconds = 0] = (day[7] ?? '').split(':').map(Number)
  if (even && hours < 24 && minutes < 60 && seconds < 60)
    return midnight + ((hours * 60 + minutes) * 60 + seconds) * 1000
  const at = DateTime.fromISO(`${date}T${day[7] ?? '00:00'}`, { zone })
  if (!at.isValid) throw new ReleveError('invalid_request', `${name}: there is no ${text}`)
  return at.toMillis()
}

const DAYS_MAX = 10_000
const days = new Map<string, { readonly midnight: number; readonly even: boolean }>()

/** A file names few days many times, and a zone's midnight costs fifty microseconds. `even`: no change of clocks on it. */
function dayOf(date: string, zone: string): { readonly midnight: number; readonly even: boolean } {
  const key = `${date} ${zone}`
  let known = days.get(key)
  if (known === undefined) {
    const at = DateTime.fromISO(date, { zone })
    const length = at.plus({ days: 1 }).toMillis() - at.toMillis()
    known = { midnight: at.toMillis(), even: at.isValid && length === DAY_MS }
    if (days.size >= DAYS_MAX) days.clear()
    days.set(key, known)
  }
  return known
}

/**
 * JSON whose numbers are exactly what was written: a number of more than 15 digits would go through a double and come out as
 * another, so it is refused, to be written as text.
 */
export function parseExactJson(text: string): unknown {
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g)) {
    if (token.startsWith('"')) continue
    if (token.replace(/[eE].*$/, '').replace(/^[-0.]+|[.]/g, '').length > 15)
      throw new ReleveError(
        'invalid_request',
        `number: write one of more than 15 digits as text, got ${token.slice(0, 40)}`,
      )
  }
  return JSON.parse(text)
}

/** The JSON of a datum as text, such as a cell of a file. Throws ReleveError `invalid_request`: 1,27 is not JSON. */
export function parseUsageData(text: string): unknown {
  try {
    return parseExactJson(text)
  } catch (error) {
    if (error instanceof ReleveError) throw error
    throw new ReleveError('invalid_request', 'invalid_json: data is no JSON; decimals take a point (1.27, not 1,27)', {
      cause: error,
    })
  }
}
