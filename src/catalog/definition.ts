/**
 * Metrics, products, plans, legal entities and customers as doors and seeds write them, and the checks that each must pass. Contracts
 * are in contract.ts, price rules in price.ts, thresholds in quota/entitlement.ts.
 *
 * Parse functions take plain JSON, refuse unknown members, and throw ReleveError `invalid_request` naming the field. Whether the
 * objects that a definition names exist is checked by the store (catalog.ts), under its lock.
 */
import { isCurrency } from '../currency.js'
import { parseDecimal, printDecimal, RoundingMode } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { Language, Words } from '../format.js'
import { limits } from '../limits.js'
import { Aggregation, type Metric } from './metric.js'
import { assertPattern, mayCollide } from './number-pattern.js'
import {
  assertOnce,
  country,
  type Fields,
  fieldsOf,
  flag,
  list,
  name,
  oneOf,
  quantity,
  texts,
  wholeNumber,
  zone,
} from './reading.js'
import { assertRegistrations } from './registration.js'
import { isExemption, TaxCategory, taxOf } from './tax-table.js'

export interface Product {
  readonly key: string
  readonly name: string
  /** Taxed at the rate of its category in the seller's country; absent: at the customer's rate. */
  readonly taxCategory?: TaxCategory
}

/** One metric of a plan. */
export interface PlanMetric {
  readonly metric: string
  /** Quantity per period that the plan includes; null is unlimited (and then nothing of it is ever billed). */
  readonly included: string | null
  /** The rule that prices what is above; null: overage has no price, is warned about, and is reported on the invoice. */
  readonly rule: string | null
  /** The price of a unit above that the plan's card prints; the lint holds it against the rule, nothing bills by it. */
  readonly cardPrice?: string
}

export interface Plan {
  readonly key: string
  /** From 1; given by the store. */
  readonly version: number
  readonly product: string
  readonly name: string
  /** The rule of the periodic fee; null: no fee. */
  readonly feeRule: string | null
  readonly metrics: readonly PlanMetric[]
  /** Whether an item that covers a part of a period has that part of the included quantities; default: all of them. */
  readonly prorateIncluded?: boolean
  /** Its price and quotas are agreed on with each customer. */
  readonly onQuote?: boolean
  readonly features: readonly string[]
}

/** Who issues invoices: numbers are gapless per legal entity and series. */
/** One text for both languages, or each. */
export type MentionText = string | Words

export interface LegalEntity {
  readonly key: string
  readonly name: string
  readonly country: string
  readonly address: readonly string[]
  /** Registrations to be printed, such as {RCCM: '…', NCC: '…'}. */
  readonly registrations: Readonly<Record<string, string>>
  readonly invoicePattern: string
  readonly creditNotePattern: string
  /** Texts for the foot of each document, besides what the law of the country gives. */
  readonly mentions?: readonly MentionText[]
  /** Whose calendar the issue dates follow, and with them the years of the numbers. */
  readonly timeZone: string
  /** The clearance system that has to take each document before it may be handed out. */
  readonly certification?: LegalCertification
}

/** Côte d'Ivoire's FNE; the address and the token of the service are settings. */
export interface LegalCertification {
  readonly system: 'fne'
  readonly pointOfSale: string
  readonly establishment: string
  readonly paymentMethod: (typeof PaymentMethod)[number]
}
const PaymentMethod = ['cash', 'card', 'check', 'mobile-money', 'transfer', 'deferred'] as const

/** A customer is a tenant. */
export interface Customer {
  readonly tenant: string
  readonly name: string
  /** ISO 3166-1 alpha-2. */
  readonly country: string
  readonly address: readonly string[]
  readonly registrations: Readonly<Record<string, string>>
  /** Percent, decimal text, and its category in words or code (EN 16931: S standard, Z zero, E exempt …). */
  readonly taxRate: string
  readonly taxCategory: string
  readonly currency: string
  readonly timeZone: string
  readonly language: Language
  /** Days from issue to due. */
  readonly termDays: number
  /** Texts for the foot of this customer's documents, such as an order number or the article of an exemption. */
  readonly mentions?: readonly MentionText[]
}

/** What callers give: the store fills in versions. */
export type PlanInput = Omit<Plan, 'version'>
export type MetricInput = Omit<Metric, 'version'>

const ROUNDING_MODES = Object.keys(RoundingMode) as RoundingMode[]

export function parseMetric(json: unknown): MetricInput {
  const fields = fieldsOf(json, 'metric', [
    'key',
    'name',
    'aggregation',
    'unit',
    'scale',
    'dims',
    'uniqueBy',
    'archive',
    'percentile',
    'rounding',
    'version',
  ])
  const aggregation = oneOf(fields.aggregation, Aggregation, 'aggregation')
  const scale = wholeNumber(fields.scale ?? 0, 'scale', 0, 9)
  const dims = [
    ...new Set(list(fields.dims ?? [], 'dims', limits.dimsMax).map((dim, i) => name(dim, `dims[${i}]`))),
  ].sort()
  const uniqueBy = fields.uniqueBy == null ? null : name(fields.uniqueBy, 'uniqueBy')
  if ((aggregation === 'unique') !== (uniqueBy !== null)) {
    throw new ReleveError('invalid_request', 'uniqueBy: is given exactly when the aggregation is unique')
  }
  if (uniqueBy !== null && dims.includes(uniqueBy))
    throw new ReleveError('invalid_request', `uniqueBy: ${uniqueBy} is also a dimension`)
  const archive = fields.archive === undefined ? true : flag(fields.archive, 'archive')
  if ((aggregation === 'percentile') !== (fields.percentile != null))
    throw new ReleveError('invalid_request', 'percentile: is given exactly when the aggregation is percentile')
  if (aggregation === 'percentile' && !archive)
    throw new ReleveError('invalid_request', 'archive: a percentile is counted from the archived events')
  return {
    key: name(fields.key, 'key'),
    ...(fields.name == null ? {} : { name: inWords(fields.name, 'name') }),
    aggregation,
    unit: name(fields.unit, 'unit'),
    scale,
    dims,
    uniqueBy,
    archive,
    ...(fields.percentile == null ? {} : { percentile: percentileOf(fields.percentile) }),
    ...(fields.rounding == null ? {} : { rounding: roundingOf(fields.rounding) }),
  }
}

function percentileOf(value: unknown): string {
  const percent = parseDecimal(quantity(value, 'percentile'), 'percentile')
  if (percent.isZero() || percent.gt(100) || percent.decimalPlaces() > 2)
    throw new ReleveError('invalid_request', 'percentile: above 0, at most 100, with at most two decimals')
  return printDecimal(percent)
}

function roundingOf(value: unknown): NonNullable<Metric['rounding']> {
  const fields = fieldsOf(value, 'rounding', ['mode', 'places'])
  return {
    mode: oneOf(fields.mode, ROUNDING_MODES, 'rounding.mode'),
    places: wholeNumber(fields.places ?? 0, 'rounding.places', 0, 9),
  }
}

export function parseProduct(json: unknown): Product {
  const fields = fieldsOf(json, 'product', ['key', 'name', 'taxCategory'])
  return {
    key: name(fields.key, 'key'),
    name: name(fields.name, 'name'),
    ...(fields.taxCategory === undefined ? {} : { taxCategory: oneOf(fields.taxCategory, TaxCategory, 'taxCategory') }),
  }
}

export function parsePlan(json: unknown): PlanInput {
  const fields = fieldsOf(json, 'plan', [
    'key',
    'product',
    'name',
    'feeRule',
    'metrics',
    'prorateIncluded',
    'onQuote',
    'features',
    'version',
  ])
  const metrics = list(fields.metrics ?? [], 'metrics', limits.planMetricsMax).map((entry, i) => {
    const at = fieldsOf(entry, `metrics[${i}]`, ['metric', 'included', 'rule', 'cardPrice'])
    return {
      metric: name(at.metric, `metrics[${i}].metric`),
      included: at.included === null ? null : quantity(at.included ?? '0', `metrics[${i}].included`),
      rule: at.rule == null ? null : name(at.rule, `metrics[${i}].rule`),
      ...(at.cardPrice === undefined ? {} : { cardPrice: quantity(at.cardPrice, `metrics[${i}].cardPrice`) }),
    }
  })
  assertOnce(
    metrics.map((metric) => metric.metric),
    'metrics',
  )
  return {
    key: name(fields.key, 'key'),
    product: name(fields.product, 'product'),
    name: name(fields.name, 'name'),
    feeRule: fields.feeRule == null ? null : name(fields.feeRule, 'feeRule'),
    metrics,
    ...(fields.prorateIncluded === undefined
      ? {}
      : { prorateIncluded: flag(fields.prorateIncluded, 'prorateIncluded') }),
    ...(fields.onQuote === undefined ? {} : { onQuote: flag(fields.onQuote, 'onQuote') }),
    features: list(fields.features ?? [], 'features', 100).map((feature, i) => name(feature, `features[${i}]`)),
  }
}

function parseCertification(json: unknown): LegalCertification {
  const fields = fieldsOf(json, 'certification', ['system', 'pointOfSale', 'establishment', 'paymentMethod'])
  if (fields.system !== 'fne')
    throw new ReleveError('invalid_request', 'certification.system: fne is the one that is known')
  const paymentMethod = PaymentMethod.find((one) => one === (fields.paymentMethod ?? 'transfer'))
  if (paymentMethod === undefined)
    throw new ReleveError('invalid_request', `certification.paymentMethod: one of ${PaymentMethod.join(', ')}`)
  return {
    system: 'fne',
    pointOfSale: name(fields.pointOfSale, 'certification.pointOfSale'),
    establishment: name(fields.establishment, 'certification.establishment'),
    paymentMethod,
  }
}

export function parseLegalEntity(json: unknown): LegalEntity {
  const fields = fieldsOf(json, 'legal entity', [
    'key',
    'name',
    'country',
    'address',
    'registrations',
    'invoicePattern',
    'creditNotePattern',
    'mentions',
    'timeZone',
    'certification',
  ])
  const invoicePattern = name(fields.invoicePattern ?? 'FA-{YYYY}-{NNNN}', 'invoicePattern')
  const creditNotePattern = name(fields.creditNotePattern ?? 'AV-{YYYY}-{NNNN}', 'creditNotePattern')
  assertPattern(invoicePattern)
  assertPattern(creditNotePattern)
  if (mayCollide(invoicePattern, creditNotePattern))
    throw new ReleveError('invalid_request', `creditNotePattern: may give a number that ${invoicePattern} gives`)
  return {
    key: name(fields.key, 'key'),
    name: name(fields.name, 'name'),
    country: country(fields.country),
    address: list(fields.address ?? [], 'address', 10).map((line, i) => name(line, `address[${i}]`)),
    registrations: texts(fields.registrations ?? {}, 'registrations'),
    invoicePattern,
    creditNotePattern,
    ...(fields.mentions === undefined ? {} : { mentions: mentions(fields.mentions) }),
    timeZone: zone(fields.timeZone ?? 'UTC'),
    ...(fields.certification === undefined ? {} : { certification: parseCertification(fields.certification) }),
  }
}

export function parseCustomer(json: unknown): Customer {
  const fields = fieldsOf(json, 'customer', [
    'tenant',
    'name',
    'country',
    'address',
    'registrations',
    'taxRate',
    'taxCategory',
    'taxReason',
    'currency',
    'timeZone',
    'language',
    'termDays',
    'mentions',
  ])
  const registrations = texts(fields.registrations ?? {}, 'registrations')
  assertRegistrations(registrations)
  const { taxRate, taxCategory, reason } = taxTerms(fields, registrations)
  if (parseDecimal(taxRate, 'taxRate').gt(100))
    throw new ReleveError('invalid_request', 'taxRate: percent from 0 to 100')
  const currency = name(fields.currency, 'currency')
  if (!isCurrency(currency)) throw new ReleveError('invalid_request', `currency: unknown ${currency}`)
  return {
    tenant: name(fields.tenant, 'tenant'),
    name: name(fields.name, 'name'),
    country: country(fields.country),
    address: list(fields.address ?? [], 'address', 10).map((line, i) => name(line, `address[${i}]`)),
    registrations: reason === null ? registrations : { ...registrations, Exonération: reason },
    taxRate,
    taxCategory,
    currency,
    timeZone: zone(fields.timeZone),
    language: oneOf(fields.language ?? 'fr', ['fr', 'en'] as const, 'language'),
    termDays: wholeNumber(fields.termDays ?? 30, 'termDays', 0, 365),
    ...(fields.mentions === undefined ? {} : { mentions: mentions(fields.mentions) }),
  }
}

/** A rate with its EN 16931 code as they are entered, or the rate of a category in the customer's country. */
function taxTerms(
  fields: Fields,
  registrations: Readonly<Record<string, string>>,
): { readonly taxRate: string; readonly taxCategory: string; readonly reason: string | null } {
  const reason = fields.taxReason === undefined ? null : name(fields.taxReason, 'taxReason')
  if (fields.taxRate !== undefined) {
    const taxRate = quantity(fields.taxRate, 'taxRate')
    const taxCategory = oneOf(fields.taxCategory ?? 'S', ['S', 'Z', 'E', 'AE', 'K', 'G', 'O'] as const, 'taxCategory')
    if (taxCategory !== 'S' && !parseDecimal(taxRate, 'taxRate').isZero())
      throw new ReleveError('invalid_request', `taxRate: what is of category ${taxCategory} has no tax, got ${taxRate}`)
    return { taxRate, taxCategory, reason }
  }
  const category = name(fields.taxCategory ?? 'standard', 'taxCategory')
  const { rate, code } = taxOf(country(fields.country), category)
  if (isExemption(category) && reason === null && registrations.Exonération === undefined)
    throw new ReleveError('invalid_request', `taxReason: ${category} needs the reason that is printed`)
  return { taxRate: rate, taxCategory: code, reason }
}

/** One text for both languages, or one for each. */
function inWords(value: unknown, field: string): Words {
  if (typeof value === 'string') return { fr: name(value, field), en: name(value, field) }
  const { fr, en } = fieldsOf(value, field, ['fr', 'en'])
  return { fr: name(fr, `${field}.fr`), en: name(en, `${field}.en`) }
}

function mentions(value: unknown): MentionText[] {
  const text = (one: unknown, field: string): string => {
    if (
      typeof one === 'string' &&
      one.trim() !== '' &&
      one.length <= limits.mentionCharactersMax &&
      !/\p{Cc}/u.test(one)
    )
      return one
    throw new ReleveError(
      'invalid_request',
      `${field}: a text of 1 to ${limits.mentionCharactersMax} characters is expected`,
    )
  }
  return list(value, 'mentions', 20).map((one, i): MentionText => {
    if (typeof one !== 'object' || one === null) return text(one, `mentions[${i}]`)
    const { fr, en } = fieldsOf(one, `mentions[${i}]`, ['fr', 'en'])
    return { fr: text(fr, `mentions[${i}].fr`), en: text(en, `mentions[${i}].en`) }
  })
}
