/**
 * Units of quantities and the exact conversions between units of one kind. SI is SI: 1 Go = 1000 Mo; Gio and Mio are others.
 * A conversion between kinds is refused, never guessed. Units outside this table are fine as names; they convert to nothing.
 */
import { parseDecimal, printDecimal, round } from '../decimal.js'
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
  Tio: ['data', '1099511627776'],
  ms: ['time', '1'],
  s: ['time', '1000'],
  min: ['time', '60000'],
  h: ['time', '3600000'],
  Go·h: ['data-time', '1000'],
  Mo·h: ['data-time', '1'],
  Wh: ['energy', '1'],
  kWh: ['energy', '1000'],
  MWh: ['energy', '1000000'],
  g: ['mass', '1'],
  kg: ['mass', '1000'],
  t: ['mass', '1000000'],
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

/** Digits behind the point of a conversion that does not end, such as one minute in hours. */
const PLACES_MAX = 30

/** How many of `to` one of `from` is, as numerator and denominator. Throws ReleveError `unprocessable` between kinds. */
function ratio(from: string, to: string): readonly [string, string] {
  if (from === to) return ['1', '1']
  const source = Object.hasOwn(UNITS, from) ? UNITS[from] : undefined
  const target = Object.hasOwn(UNITS, to) ? UNITS[to] : undefined
  if (source === undefined || target === undefined || source[0] !== target[0]) {
    throw new ReleveError('unprocessable', `unit: ${from} does not convert to ${to}`)
  }
  return [source[1], target[1]]
}

/**
 * Conversion of a decimal text, exact wherever the result is a finite decimal; otherwise half up at 30 decimals. Throws ReleveError
 * `unprocessable` between kinds.
 */
export function convertUnit(value: string, from: string, to: string): string {
  const [times, by] = ratio(from, to)
  return printDecimal(round(parseDecimal(value, 'value').times(times).dividedBy(by), PLACES_MAX))
}

export function converts(from: string, to: string): boolean {
  try {
    ratio(from, to)
    return true
  } catch {
    return false
  }
}

/** Whether every quantity of `from` is a finite decimal in `to`: the denominator has no factors but 2 and 5. */
export function convertsExactly(from: string, to: string): boolean {
  const [times, by] = ratio(from, to)
  let rest = BigInt(by) / gcd(BigInt(by), BigInt(times))
  for (const factor of [2n, 5n]) while (rest % factor === 0n) rest /= factor
  return rest === 1n
}

function gcd(a: bigint, b: bigint): bigint {
  return b === 0n ? a : gcd(b, a % b)
}
