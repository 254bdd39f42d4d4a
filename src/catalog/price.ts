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
  readonly size: string
  readonly packagePrice: string
  readonly free: string
  /** A started package counts whole; with «down» only full ones count. */
  readonly rounding?: 'down'
}
export interface PercentagePrice {
  readonly model: 'percentage'
  readonly metric: string
  /** Percent of the amount behind `freeAmount`, plus `perEvent` for each event behind `freeEvents`. */
  readonly rate: string
  readonly freeAmount: string
  readonly freeEvents: string
  readonly perEvent: string
  /** Bounds of the whole line. */
  readonly minimum: string | null
  readonly maximum: string | null
  /** Bounds of what one event costs; then the amounts of the events must be known one by one. */
  readonly minimumPerEvent?: string
  readonly maximumPerEvent?: string
}
export interface PercentTier {
  readonly after: string
  readonly upTo: string | null
  /** Percent of the part of the amount that lies in the tier. */
  readonly rate: string
  readonly flat: string
}
export interface GraduatedPercentagePrice {
  readonly model: 'graduated_percentage'
  readonly metric: string
  readonly tiers: readonly PercentTier[]
}
export interface DynamicPrice {
  readonly model: 'dynamic'
  /** Its values are money: what each event says it costs. */
  readonly metric: string
  /** What the amounts are multiplied with, such as 1.15 for a margin. */
  readonly factor: string
}

/** A rule in normal form. Amounts and quantities are decimal text. */
export type Price = {
  readonly rule: string
  /** Such as 3.1; «0.0» for a rule that is only tried. */
  readonly version: string
  readonly currency: string
  /** Its amounts hold the tax (TTC); absent: they are without it (HT). */
  readonly taxBehavior?: 'inclusive'
  /** What the quantity is priced in, when not in the metric's own unit: a price per Go of a metric in Mo. */
  readonly unit?: string
} & (FlatPrice | UnitPrice | TieredPrice | PackagePrice | PercentagePrice | GraduatedPercentagePrice | DynamicPrice)

type Fields = Readonly<Record<string, unknown>>

/** Members of a rule by its type, besides rule_id, type, currency and tax_behavior. */
const MEMBERS = {
  flat_fee: ['amount', 'billing_cycle', 'includes'],
  per_unit: ['metric', 'unit', 'unit_price', 'tiers'],
  tiered: ['metric', 'unit', 'tiers'],
  volume: ['metric', 'unit', 'tiers'],
  package: ['metric', 'unit', 'package_size', 'package_price', 'free_units', 'rounding'],
  percentage: [
    'metric',
    'rate',
    'free_amount',
    'free_events',
    'fixed_per_event',
    'minimum',
    'maximum',
    'minimum_per_event',
    'maximum_per_event',
  ],
  graduated_percentage: ['metric', 'tiers'],
  dynamic: ['metric', 'factor'],
} as const
type RuleType = keyof typeof MEMBERS
const TIER_MEMBERS = ['from', 'to', 'up_to', 'unit_price', 'unit', 'flat_fee', 'flat'] as const
const PERCENT_TIER_MEMBERS = ['from', 'to', 'up_to', 'rate', 'flat_fee', 'flat'] as const

/**
 * A rule's JSON to its normal form: `{rule_id, type, currency, tax_behavior?, …}` with the members of MEMBERS; amounts are without tax
 * unless `tax_behavior` is inclusive. A tier is `{from, to, unit_price,
 * flat_fee?}` (inclusive unit numbers) or `{up_to, unit_price, flat_fee?}`, with `rate` in the place of `unit_price` for
 * graduated_percentage; `to` or `up_to` of the last one is null. `unit` is the unit that the price is for, when the metric is
 * counted in another one of the same kind.
 * Throws ReleveError `invalid_request` (a field) or `unprocessable` (tiers that leave a gap, no open tier …).
 */
export function parsePrice(rule: unknown, version = '0.0'): Price {
  const fields = asFields(rule, 'rule')
  const id = textOf(fields.rule_id, 'rule_id')
  const currency = textOf(fields.currency, 'currency')
  exponentOf(currency)
  const { type } = fields
  if (typeof type !== 'string' || !Object.hasOwn(MEMBERS, type)) {
    const known = Object.keys(MEMBERS).join(', ')
    const wrong = type === undefined ? `is missing; one of ${known} is expected` : undefined
    throw new ReleveError(
      'invalid_request',
      `type: ${wrong ?? `one of ${known} is expected, got ${JSON.stringify(type)}`}`,
    )
  }
  assertMembers(fields, ['rule_id', 'type', 'currency', 'tax_behavior', ...MEMBERS[type as RuleType]], 'rule')
  const { tax_behavior: behavior = 'exclusive' } = fields
  if (behavior !== 'inclusive' && behavior !== 'exclusive')
    throw new ReleveError('invalid_request', 'tax_behavior: inclusive or exclusive is expected')
  const unit = fields.unit === undefined ? {} : { unit: textOf(fields.unit, 'unit') }
  const tax = behavior === 'inclusive' ? ({ taxBehavior: 'inclusive' } as const) : {}
  return { rule: id, version, currency, ...tax, ...unit, ...parsers[type as RuleType](fields) }
}

type Model<P = Price> = P extends Price ? Omit<P, 'rule' | 'version' | 'currency' | 'taxBehavior' | 'unit'> : never

const metricOf = (fields: Fields): { metric: string } => ({ metric: textOf(fields.metric, 'metric') })

const parsers: Readonly<Record<RuleType, (fields: Fields) => Model>> = {
  flat_fee: (fields) => ({
    model: 'flat',
    amount: positive(fields.amount, 'amount'),
    billingCycle: fields.billing_cycle === undefined ? 'monthly' : textOf(fields.billing_cycle, 'billing_cycle'),
    includes: Object.fromEntries(
      Object.entries(asFields(fields.includes ?? {}, 'includes')).map(([metric, quantity]) => [
        metric,
        positive(quantity, `includes.${metric}`),
      ]),
    ),
  }),
  per_unit: (fields) => {
    if (fields.tiers !== undefined) return parsers.tiered(fields)
    return { model: 'unit', ...metricOf(fields), unitPrice: positive(fields.unit_price, 'unit_price') }
  },
  tiered: (fields) => ({ model: 'graduated', ...metricOf(fields), tiers: parseTiers(fields.tiers) }),
  volume: (fields) => ({ model: 'volume', ...metricOf(fields), tiers: parseTiers(fields.tiers) }),
  package: (fields) => {
    const { rounding = 'up' } = fields
    if (rounding !== 'up' && rounding !== 'down')
      throw new ReleveError('invalid_request', 'rounding: up or down is expected')
    return {
      model: 'package',
      ...metricOf(fields),
      size: aboveZero(fields.package_size, 'package_size'),
      packagePrice: positive(fields.package_price, 'package_price'),
      free: positive(fields.free_units ?? '0', 'free_units'),
      ...(rounding === 'down' ? { rounding } : {}),
    }
  },
  percentage: (fields) => {
    const [minimum, maximum] = bounds(fields, 'minimum', 'maximum')
    const [least, most] = bounds(fields, 'minimum_per_event', 'maximum_per_event')
    return {
      model: 'percentage',
      ...metricOf(fields),
      rate: positive(fields.rate, 'rate'),
      freeAmount: positive(fields.free_amount ?? '0', 'free_amount'),
      freeEvents: positive(fields.free_events ?? '0', 'free_events'),
      perEvent: positive(fields.fixed_per_event ?? '0', 'fixed_per_event'),
      minimum,
      maximum,
      ...(least === null ? {} : { minimumPerEvent: least }),
      ...(most === null ? {} : { maximumPerEvent: most }),
    }
  },
  graduated_percentage: (fields) => ({
    model: 'graduated_percentage',
    ...metricOf(fields),
    tiers: parseBounds(fields.tiers, PERCENT_TIER_MEMBERS, (tier, at) => ({
      rate: positive(tier.rate ?? '0', `${at}.rate`),
      flat: positive(tier.flat_fee ?? tier.flat ?? '0', `${at}.flat_fee`),
    })),
  }),
  dynamic: (fields) => ({
    model: 'dynamic',
    ...metricOf(fields),
    factor: fields.factor === undefined ? '1' : aboveZero(fields.factor, 'factor'),
  }),
}

function bounds(fields: Fields, lower: string, upper: string): readonly [string | null, string | null] {
  const minimum = fields[lower] == null ? null : positive(fields[lower], lower)
  const maximum = fields[upper] == null ? null : positive(fields[upper], upper)
  if (minimum !== null && maximum !== null && new Decimal(minimum).gt(maximum))
    throw new ReleveError('unprocessable', `${lower}: is above ${upper}`)
  return [minimum, maximum]
}

function parseTiers(value: unknown): Tier[] {
  return parseBounds(value, TIER_MEMBERS, (fields, at) => ({
    unitPrice: positive(fields.unit_price ?? fields.unit ?? '0', `${at}.unit_price`),
    flat: positive(fields.flat_fee ?? fields.flat ?? '0', `${at}.flat_fee`),
  }))
}

/** Contiguous bounds, the last one open, with what each tier costs. */
function parseBounds<P>(
  value: unknown,
  members: readonly string[],
  priceOf: (fields: Fields, at: string) => P,
): ({ readonly after: string; readonly upTo: string | null } & P)[] {
  if (!Array.isArray(value) || value.length === 0)
    throw new ReleveError('invalid_request', 'tiers: a list with at least one tier')
  if (value.length > limits.tiersMax) throw new ReleveError('invalid_request', `tiers: at most ${limits.tiersMax}`)
  const tiers: ({ readonly after: string; readonly upTo: string | null } & P)[] = []
  for (const [index, entry] of value.entries()) {
    const at = `tiers[${index}]`
    const fields = asFields(entry, at)
    assertMembers(fields, members, at)
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
      const below = from.lt(1) ? from : from.minus(1)
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
    tiers.push({ after, upTo, ...priceOf(fields, at) })
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

function aboveZero(value: unknown, field: string): string {
  const text = positive(value, field)
  if (new Decimal(text).isZero()) throw new ReleveError('invalid_request', `${field}: must be above 0`)
  return text
}
