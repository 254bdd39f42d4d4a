/**
 * Units of quantities and the exact conversions between units of one kind. SI is SI: 1 Go = 1000 Mo; Gio and Mio are others.
 * A conversion between kinds is refused, never guessed. Units outside this table are fine as names; they convert to nothing.
 */
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'

/** Kind, and how many of the kind's smallest unit one is, as decimal text. */
const UNITS: Readonly<Record<string, readonly [kind: string, size: string]>> = {
  o: ['data', '1'],
  ko: ['data', '1000'],
  Mo: ['data', '1000000'],
  Go: ['data', '1000000000'],
  To: ['data', '1000000000000'],
  Kio: ['data', '1024'],
  Mio: ['data', '1048576'],
  Gio: ['data', '1073741824'],
  s: ['time', '1'],
  min: ['time', '60'],
  h: ['time', '3600'],
  Wh: ['energy', '1'],
  kWh: ['energy', '1000'],
  MWh: ['energy', '1000000'],
  g: ['mass', '1'],
  kg: ['mass', '1000'],
  m: ['length', '1'],
  km: ['length', '1000'],
}

/** Counted things; each converts to itself only. */
const COUNTED = new Set([
  'document',
  'token',
  'user',
  'login',
  'verification',
  'certificate',
  'call',
  'event',
  'message',
  'impression',
  'sms',
  'scan',
  'page',
  'credit',
  'click',
  'hit',
  'wash',
  'signature',
  'device',
  '°C',
  '%',
  'unit',
])

export function isKnownUnit(unit: string): boolean {
  return Object.hasOwn(UNITS, unit) || COUNTED.has(unit)
}

/** Exact conversion of a decimal text. Throws ReleveError `unprocessable` between kinds. */
export function convertUnit(value: string, from: string, to: string): string {
  const quantity = parseDecimal(value, 'value')
  if (from === to) return printDecimal(quantity)
  const source = Object.hasOwn(UNITS, from) ? UNITS[from] : undefined
  const target = Object.hasOwn(UNITS, to) ? UNITS[to] : undefined
  if (source === undefined || target === undefined || source[0] !== target[0]) {
    throw new ReleveError('unprocessable', `unit: ${from} does not convert to ${to}`)
  }
  return printDecimal(quantity.times(source[1]).dividedBy(new Decimal(target[1])))
}
