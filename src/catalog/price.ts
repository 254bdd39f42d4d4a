/**
 * Price models as data: a rule as a person writes it (the JSON of the console and of the seeds) and its normal form, which is
 * all that rating reads.
 *
 * Normal form: tiers are half-open `(after, upTo]`, contiguous, the last one open. The inclusive unit numbers of a rule (`from`
 * 51 `to` 100) are the tier (50, 100]: a decimal that falls between 100 and 101 belongs to the next tier. `per_unit` with tiers
 * and `tiered` are both graduated (each unit at the price of its own tier); `volume` prices all units at one tier.
 *
 * Does not rate and does not know versions' states; see rating/ and store.ts.
 */
import { exponentOf } from '../currency.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'

/** Units above `after`, up to and including `upTo` (null: open). Prices per unit; `flat` once the tier is entered. */
export interface Tier {
  readonly after: string
  readonly upTo: string | null
  readonly unitPrice: string
  readonly flat: string
}

export interface FlatPrice {
  readonly model: 'flat'
  readonly amount: string
  readonly billingCycle: string
  /** Quantities that the fee includes, by metric. */
  readonly includes: Readonly<Record<string, string>>
}
export interface UnitPrice {
  readonly model: 'unit'
  readonly metric: string
  readonly unitPrice: string
}
export interface TieredPrice {
  readonly model: 'graduated' | 'volume'
  readonly metric: string
  readonly tiers: readonly Tier[]
}
export interface PackagePrice {
  readonly model: 'package'
  readonly metric: string
  /** Units of one package; a started package counts whole. */
  readonly size: string
  readonly packagePrice: string
  readonly free: string
}
export interface PercentagePrice {
  readonly model: 'percentage'
  readonly metric: string
  /** Percent of the amount behind `freeAmount`, plus `perEvent` for each event behind `freeEvents`. */
  readonly rate: string
  readonly freeAmount: string
  readonly freeEvents: string
  readonly perEvent: string
  readonly minimum: string | null
  readonly maximum: string | null
}

/** A rule in normal form. Amounts and quantities are decimal text. */
export type Price = {
  readonly rule: string
  /** Such as 3.1; «0.0» for a rule that is only tried. */
  readonly version: string
  readonly currency: string
} & (FlatPrice | UnitPrice | TieredPrice | PackagePrice | PercentagePrice)

type Fields = Readonly<Record<string, unknown>>

/** Members of a rule by its type, besides rule_id, type and currency. */
const MEMBERS = {
  flat_fee: ['amount', 'billing_cycle', 'includes'],
  per_unit: ['metric', 'unit_price', 'tiers'],
  tiered: ['metric', 'tiers'],
  volume: ['metric', 'tiers'],
  package: ['metric', 'package_size', 'package_price', 'free_units'],
  percentage: ['metric', 'rate', 'free_amount', 'free_events', 'fixed_per_event', 'minimum', 'maximum'],
} as const
const TIER_MEMBERS = ['from', 'to', 'up_to', 'unit_price', 'unit', 'flat_fee', 'flat'] as const

/**
 * A rule's JSON to its normal form:
 * `{rule_id, type: 'flat_fee'|'per_unit'|'tiered'|'volume'|'package'|'percentage', currency, …}` with
 * flat_fee: `amount`, `billing_cycle?`, `includes?`; per_unit: `metric` and `unit_price` or `tiers`; tiered and volume: `metric`,
 * `tiers`; package: `metric`, `package_size`, `package_price`, `free_units?`; percentage: `metric`, `rate`, `free_amount?`,
 * `free_events?`, `fixed_per_event?`, `minimum?`, `maximum?`. A tier is `{from, to, unit_price, flat_fee?}` (inclusive unit
 * numbers) or `{up_to, unit_price, flat_fee?}`; `to` or `up_to` of the last one is null.
 * Throws ReleveError `invalid_request` (a field) or `unprocessable` (tiers that leave a gap, no open tier …).
 */
export function parsePrice(rule: unknown, version = '0.0'): Price {
  const fields = asFields(rule, 'rule')
  const id = textOf(fields.rule_id, 'rule_id')
  const currency = textOf(fields.currency, 'currency')
  exponentOf(currency)
  const base = { rule: id, version, currency }
  const type = fields.type
  const known = typeof type === 'string' && Object.hasOwn(MEMBERS, type) ? MEMBERS[type as keyof typeof MEMBERS] : []
  if (known.length > 0) assertMembers(fields, ['rule_id', 'type', 'currency', ...known], 'rule')
  switch (type) {
    case 'flat_fee':
      return {
        ...base,
        model: 'flat',
        amount: positive(fields.amount, 'amount'),
        billingCycle: fields.billing_cycle === undefined ? 'monthly' : textOf(fields.billing_cycle, 'billing_cycle'),
        includes: Object.fromEntries(
          Object.entries(asFields(fields.includes ?? {}, 'includes')).map(([metric, quantity]) => [
            metric,
            positive(quantity, `includes.${metric}`),
          ]),
        ),
      }
    case 'per_unit':
      if (fields.tiers === undefined) {
        return {
          ...base,
          model: 'unit',
          metric: textOf(fields.metric, 'metric'),
          unitPrice: positive(fields.unit_price, 'unit_price'),
        }
      }
      return { ...base, model: 'graduated', metric: textOf(fields.metric, 'metric'), tiers: parseTiers(fields.tiers) }
    case 'tiered':
      return { ...base, model: 'graduated', metric: textOf(fields.metric, 'metric'), tiers: parseTiers(fields.tiers) }
    case 'volume':
      return { ...base, model: 'volume', metric: textOf(fields.metric, 'metric'), tiers: parseTiers(fields.tiers) }
    case 'package': {
      const size = positive(fields.package_size, 'package_size')
      if (new Decimal(size).isZero()) throw new ReleveError('invalid_request', 'package_size: must be above 0')
      return {
        ...base,
        model: 'package',
        metric: textOf(fields.metric, 'metric'),
        size,
        packagePrice: positive(fields.package_price, 'package_price'),
        free: positive(fields.free_units ?? '0', 'free_units'),
      }
    }
    case 'percentage': {
      const minimum = fields.minimum == null ? null : positive(fields.minimum, 'minimum')
      const maximum = fields.maximum == null ? null : positive(fields.maximum, 'maximum')
      if (minimum !== null && maximum !== null && new Decimal(minimum).gt(maximum)) {
        throw new ReleveError('unprocessable', 'minimum: is above the maximum')
      }
      return {
        ...base,
        model: 'percentage',
        metric: textOf(fields.metric, 'metric'),
        rate: positive(fields.rate, 'rate'),
        freeAmount: positive(fields.free_amount ?? '0', 'free_amount'),
        freeEvents: positive(fields.free_events ?? '0', 'free_events'),
        perEvent: positive(fields.fixed_per_event ?? '0', 'fixed_per_event'),
        minimum,
        maximum,
      }
    }
    default:
      throw new ReleveError(
        'invalid_request',
        `type: flat_fee, per_unit, tiered, volume, package or percentage is expected, got ${JSON.stringify(type)}`,
      )
  }
}

function parseTiers(value: unknown): Tier[] {
  if (!Array.isArray(value) || value.length === 0)
    throw new ReleveError('invalid_request', 'tiers: a list with at least one tier')
  if (value.length > limits.tiersMax) throw new ReleveError('invalid_request', `tiers: at most ${limits.tiersMax}`)
  const tiers: Tier[] = []
  for (const [index, entry] of value.entries()) {
    const at = `tiers[${index}]`
    const fields = asFields(entry, at)
    assertMembers(fields, TIER_MEMBERS, at)
    const previous = tiers.at(-1)
    if (previous !== undefined && previous.upTo === null) {
      throw new ReleveError('unprocessable', `${at}: follows an open tier; only the last tier is open`)
    }
    const bound = 'up_to' in fields ? fields.up_to : fields.to
    const upTo = bound == null ? null : positive(bound, `${at}.${'up_to' in fields ? 'up_to' : 'to'}`)
    let after = previous?.upTo ?? '0'
    if (fields.from !== undefined) {
      const from = parseDecimal(positive(fields.from, `${at}.from`), `${at}.from`)
      // Inclusive unit numbers: from 51 begins behind unit 50. From 0 is written by some for the first tier.
      const below = from.isZero() ? from : from.minus(1)
      if (previous === undefined) after = printDecimal(below)
      else if (!below.eq(after) && !from.eq(after)) {
        throw new ReleveError(
          'unprocessable',
          `${at}.from: ${printDecimal(from)} leaves a gap or an overlap behind ${after}`,
        )
      }
    }
    if (upTo !== null && new Decimal(upTo).lte(after)) {
      throw new ReleveError('unprocessable', `${at}: ends at ${upTo}, which is not above its beginning ${after}`)
    }
    tiers.push({
      after,
      upTo,
      unitPrice: positive(fields.unit_price ?? fields.unit ?? '0', `${at}.unit_price`),
      flat: positive(fields.flat_fee ?? fields.flat ?? '0', `${at}.flat_fee`),
    })
  }
  if (tiers.at(-1)?.upTo !== null)
    throw new ReleveError('unprocessable', 'tiers: the last tier must be open (to: null)')
  return tiers
}

function assertMembers(fields: Fields, known: readonly string[], field: string): void {
  for (const member of Object.keys(fields)) {
    if (!known.includes(member)) {
      throw new ReleveError(
        'invalid_request',
        `${field}: unknown member ${member.slice(0, 80)}; known are ${known.join(', ')}`,
      )
    }
  }
}

function asFields(value: unknown, field: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ReleveError('invalid_request', `${field}: an object is expected`)
  }
  return value as Fields
}

function textOf(value: unknown, field: string): string {
  if (typeof value !== 'string' || value === '' || Buffer.byteLength(value) > limits.nameBytesMax) {
    throw new ReleveError('invalid_request', `${field}: a text of 1 to ${limits.nameBytesMax} bytes is expected`)
  }
  return value
}

function positive(value: unknown, field: string): string {
  const number = parseDecimal(value, field)
  if (number.isNegative() && !number.isZero())
    throw new ReleveError('invalid_request', `${field}: must not be negative`)
  return printDecimal(number)
}
