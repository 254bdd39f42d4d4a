/**
 * The objects of the catalogue as doors and seeds write them, and the checks that each must pass. Metrics are in metric.ts, price
 * rules in price.ts, thresholds in quota/entitlement.ts.
 *
 * Parse functions take plain JSON, refuse unknown members, and throw ReleveError `invalid_request` naming the field. Whether the
 * objects that a definition names exist is checked by store.ts, under its lock.
 */
import { isCurrency } from '../currency.js'
import { parseDecimal, printDecimal, RoundingMode } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { Language, Words } from '../format.js'
import { limits } from '../limits.js'
import { Cycle, isTimeZone } from '../period.js'
import type { Threshold } from '../quota/entitlement.js'
import { type Calculator, parseCalculators } from './calculator.js'
import { Exhaustion } from './exhaustion.js'
import { Aggregation, type Metric } from './metric.js'
import { assertPattern, mayCollide } from './number-pattern.js'
import type { Days } from './part.js'
import { assertRegistrations } from './registration.js'
import type { Renewal } from './renewal.js'
import { midnightOf } from './schedule.js'
import { isSubscriptionState, type SubscriptionState, TRIAL_DAYS } from './subscription.js'
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

export interface ItemEntitlement {
  readonly metric: string
  readonly limit: string | null
  readonly limitVersion: number
  readonly thresholds: readonly Threshold[]
}

/** Something beside the plan: so many of a rule's price each period, or once. */
export interface AddOn extends Days {
  readonly name: string
  readonly rule: string
  /** Decimal text; 1 for a flat price. */
  readonly quantity: string
  /** Due once, in the period that holds `from`. */
  readonly once: boolean
}

/** What happens when the packs of a metric are used up. Without one: the standard price. */
export interface PrepaidRule {
  readonly metric: string
  readonly exhaustion: Exhaustion
  /** Exactly with auto_recharge: the pack that is bought again, the amount of each, and for how many days it pays. */
  readonly recharge?: {
    readonly quantity: string
    readonly amount: string
    readonly validDays?: number
    readonly priority?: number
  }
}

/** `from` and `until`: the days it covers when not those of the contract; then fees are due by the part. */
export interface ContractItem extends Days {
  readonly id: string
  readonly plan: string
  readonly planVersion: number
  readonly entitlements: readonly ItemEntitlement[]
  readonly addOns?: readonly AddOn[]
  /** What becomes of usage data that are handed in beside the stream. */
  readonly calculators?: readonly Calculator[]
  /** Whose usage it takes of the customer's; absent: what no other item takes (objects/share.ts). */
  readonly subjects?: readonly string[]
  /** An item for connected objects: fee and usage are due for each that is active, for so many periods. */
  readonly fleet?: { readonly months: number }
  readonly prepaid?: readonly PrepaidRule[]
  /** What of the plan it bills; absent: the fee each cycle, and usage. */
  readonly kind?: ItemKind
}

/**
 * fixed: the fee alone. usage: usage alone. usage_triggered: fee and usage, in periods with any usage. once: the fee once, in the
 * period in which the item begins.
 */
export const ItemKind = ['fixed', 'usage', 'usage_triggered', 'once'] as const
export type ItemKind = (typeof ItemKind)[number]

export interface Discount extends Days {
  readonly name: string
  readonly kind: 'percent' | 'amount'
  readonly value: string
}

/** What is agreed on for the charges of a period in all, in the customer's currency; `taxBehavior` of the contract says HT or TTC. */
export interface Adjustments {
  readonly discounts?: readonly Discount[]
  readonly minimum?: string
  readonly maximum?: string
}

/** A trial begins with the contract or on a day of its own; nothing of it is billed. */
export interface TrialTerms {
  readonly start: string
  readonly lengthDays: number
  readonly extensionDays?: number
  /** Days after the end with read-only access. */
  readonly graceDays?: number
  /** What becomes of one that nobody has decided on when its grace is over; absent: it stays listed as expired. */
  readonly atEnd?: 'convert' | 'cancel'
  readonly convertedOn?: string
}

export interface Contract {
  readonly id: string
  readonly tenant: string
  readonly legalEntity: string
  readonly name: string
  /** First day, in the time zone: periods are counted from its midnight. */
  readonly start: string
  readonly timeZone: string
  /** Of usage, quotas and invoices; a fee may have a cycle of its own. */
  readonly cycle: Cycle
  /** Whether the fees of a period are on the invoice of the period before it; absent: on its own. Usage is always billed after it. */
  readonly fees?: 'in_advance'
  readonly state: SubscriptionState
  readonly trial?: TrialTerms
  /** The first day that is billed, when a trial or a time of being provisioned came before. */
  readonly billedFrom?: string
  /** Days of suspension, first and last; the last is open while it lasts. */
  readonly pauses?: readonly { readonly from: string; readonly until?: string }[]
  /** Whether fees are due while it is suspended; absent: they are not. */
  readonly suspension?: 'bills_fees'
  readonly renewal?: Renewal
  /** Last day; absent: open. */
  readonly end?: string
  /** How a part of a period is measured; default by day. */
  readonly prorate?: 'day' | 'second'
  /**
   * Whether amounts that are agreed on here and not in the catalogue (discounts and coupons, minimum, cap, packs, what calculators
   * come to) are with tax. Absent: as the prices are, when all of them are with tax; else without.
   */
  readonly taxBehavior?: 'inclusive' | 'exclusive'
  readonly adjustments?: Adjustments
  readonly late?: LatePolicies
  readonly items: readonly ContractItem[]
}

/** What becomes of usage that changes after its period was issued; by default it is on the next invoice. */
export interface LatePolicies {
  /** More is due: on the next invoice, on an invoice of its own, or not at all (a notice says so). */
  readonly usage?: (typeof LateUsage)[number]
  /** Less is due, after voids: a negative line of the next invoice, or a credit note at once. */
  readonly corrections?: (typeof LateCorrections)[number]
}
const LateUsage = ['next_invoice', 'complementary_invoice', 'reject'] as const
const LateCorrections = ['next_invoice', 'credit_note'] as const

/** What callers give: the store fills in versions; a plan without a version means its latest. */
export type PlanInput = Omit<Plan, 'version'>
export interface ContractInput extends Omit<Contract, 'items'> {
  readonly items: readonly {
    readonly id: string
    readonly plan: string
    readonly planVersion?: number
    readonly from?: string
    readonly until?: string
    readonly addOns?: readonly AddOn[]
    readonly calculators?: readonly Calculator[]
    readonly subjects?: readonly string[]
    readonly fleet?: { readonly months: number }
    readonly prepaid?: readonly PrepaidRule[]
    readonly kind?: ItemKind
    /** Absent: the plan's metrics and quotas, with thresholds at 80 % and 100 %. */
    readonly entitlements?: readonly Omit<ItemEntitlement, 'limitVersion'>[]
  }[]
}
export type MetricInput = Omit<Metric, 'version'>

export const DEFAULT_THRESHOLDS: readonly Threshold[] = [
  { code: '80%', kind: 'percent', value: '80' },
  { code: '100%', kind: 'percent', value: '100' },
]

type Fields = Record<string, unknown>

const ROUNDING_MODES = Object.keys(RoundingMode) as RoundingMode[]

export function parseMetric(json: unknown): MetricInput {
  const fields = fieldsOf(json, 'metric', [
    'key',
    'aggregation',
    'unit',
    'scale',
    'dims',
    'uniqueBy',
    'archive',
    'percentile',
    'rounding',
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

function parseLate(json: unknown): LatePolicies {
  const fields = fieldsOf(json, 'late', ['usage', 'corrections'])
  return {
    ...(fields.usage === undefined ? {} : { usage: oneOf(fields.usage, LateUsage, 'late.usage') }),
    ...(fields.corrections === undefined
      ? {}
      : { corrections: oneOf(fields.corrections, LateCorrections, 'late.corrections') }),
  }
}

export function parseContract(json: unknown): ContractInput {
  const fields = fieldsOf(json, 'contract', [
    'id',
    'tenant',
    'legalEntity',
    'name',
    'start',
    'timeZone',
    'cycle',
    'fees',
    'state',
    'trial',
    'billedFrom',
    'pauses',
    'suspension',
    'renewal',
    'end',
    'prorate',
    'taxBehavior',
    'adjustments',
    'late',
    'items',
  ])
  const timeZone = zone(fields.timeZone)
  const start = name(fields.start, 'start')
  midnightOf(start, timeZone)
  const state = name(fields.state ?? 'active', 'state')
  if (!isSubscriptionState(state)) throw new ReleveError('invalid_request', `state: unknown ${state}`)
  const items = list(fields.items, 'items', limits.contractItemsMax).map((entry, i) => {
    const at = fieldsOf(entry, `items[${i}]`, [
      'id',
      'plan',
      'planVersion',
      'from',
      'until',
      'addOns',
      'calculators',
      'subjects',
      'fleet',
      'prepaid',
      'kind',
      'entitlements',
    ])
    const base = {
      id: name(at.id, `items[${i}].id`),
      plan: name(at.plan, `items[${i}].plan`),
      ...daysOf(at, timeZone, `items[${i}]`),
      ...(at.addOns === undefined ? {} : { addOns: addOns(at.addOns, timeZone, `items[${i}].addOns`) }),
      ...(at.calculators === undefined
        ? {}
        : { calculators: parseCalculators(at.calculators, `items[${i}].calculators`) }),
      ...(at.subjects === undefined ? {} : { subjects: subjects(at.subjects, `items[${i}].subjects`) }),
      ...(at.fleet === undefined ? {} : { fleet: fleet(at.fleet, `items[${i}].fleet`) }),
      ...(at.prepaid === undefined ? {} : { prepaid: prepaidRules(at.prepaid, `items[${i}].prepaid`) }),
      ...(at.kind === undefined ? {} : { kind: oneOf(at.kind, ItemKind, `items[${i}].kind`) }),
    }
    const planVersion =
      at.planVersion === undefined
        ? {}
        : { planVersion: wholeNumber(at.planVersion, `items[${i}].planVersion`, 1, 1_000_000) }
    if (at.entitlements === undefined) return { ...base, ...planVersion }
    const entitlements = list(at.entitlements, `items[${i}].entitlements`, limits.planMetricsMax).map((raw, j) =>
      parseEntitlement(raw, `items[${i}].entitlements[${j}]`),
    )
    assertOnce(
      entitlements.map((entitlement) => entitlement.metric),
      `items[${i}].entitlements`,
    )
    return { ...base, ...planVersion, entitlements }
  })
  assertOnce(
    items.map((item) => item.id),
    'items',
  )
  return {
    id: name(fields.id, 'id'),
    tenant: name(fields.tenant, 'tenant'),
    legalEntity: name(fields.legalEntity, 'legalEntity'),
    name: name(fields.name ?? fields.id, 'name'),
    start,
    timeZone,
    cycle: oneOf(fields.cycle ?? 'monthly', Cycle, 'cycle'),
    ...(fields.fees === undefined || fields.fees === 'in_arrears'
      ? {}
      : { fees: oneOf(fields.fees, ['in_advance'] as const, 'fees') }),
    state,
    ...(fields.trial === undefined && state !== 'trial' ? {} : { trial: trial(fields.trial ?? {}, start, timeZone) }),
    ...(fields.billedFrom === undefined ? {} : { billedFrom: date(fields.billedFrom, 'billedFrom', timeZone) }),
    ...(fields.pauses === undefined ? {} : { pauses: pauses(fields.pauses, timeZone) }),
    ...(fields.suspension === undefined || fields.suspension === 'pauses_fees'
      ? {}
      : { suspension: oneOf(fields.suspension, ['bills_fees'] as const, 'suspension') }),
    ...(fields.renewal === undefined ? {} : { renewal: renewal(fields.renewal) }),
    ...(fields.end === undefined ? {} : { end: lastDay(fields.end, start, timeZone) }),
    ...(fields.prorate === undefined ? {} : { prorate: oneOf(fields.prorate, ['day', 'second'] as const, 'prorate') }),
    ...(fields.taxBehavior === undefined
      ? {}
      : { taxBehavior: oneOf(fields.taxBehavior, ['inclusive', 'exclusive'] as const, 'taxBehavior') }),
    ...(fields.adjustments === undefined ? {} : { adjustments: adjustments(fields.adjustments, timeZone) }),
    ...(fields.late === undefined ? {} : { late: parseLate(fields.late) }),
    items,
  }
}

function subjects(value: unknown, at: string): string[] {
  const all = list(value, at, limits.itemSubjectsMax).map((one, i) => name(one, `${at}[${i}]`))
  if (all.length === 0) throw new ReleveError('invalid_request', `${at}: names at least one, or is left out`)
  assertOnce(all, at)
  return all
}

function fleet(value: unknown, at: string): { months: number } {
  const fields = fieldsOf(value, at, ['months'])
  return { months: wholeNumber(fields.months ?? 12, `${at}.months`, 1, limits.scheduleMonthsMax) }
}

function date(value: unknown, field: string, timeZone: string): string {
  const day = name(value, field)
  midnightOf(day, timeZone)
  return day
}

function trial(value: unknown, start: string, timeZone: string): TrialTerms {
  const fields = fieldsOf(value, 'trial', ['start', 'lengthDays', 'extensionDays', 'graceDays', 'atEnd', 'convertedOn'])
  const days = (one: unknown, field: string, least: number): number => wholeNumber(one, `trial.${field}`, least, 3_650)
  return {
    start: date(fields.start ?? start, 'trial.start', timeZone),
    lengthDays: days(fields.lengthDays ?? TRIAL_DAYS, 'lengthDays', 1),
    ...(fields.extensionDays === undefined ? {} : { extensionDays: days(fields.extensionDays, 'extensionDays', 0) }),
    ...(fields.graceDays === undefined ? {} : { graceDays: days(fields.graceDays, 'graceDays', 0) }),
    ...(fields.atEnd === undefined
      ? {}
      : { atEnd: oneOf(fields.atEnd, ['convert', 'cancel'] as const, 'trial.atEnd') }),
    ...(fields.convertedOn === undefined
      ? {}
      : { convertedOn: date(fields.convertedOn, 'trial.convertedOn', timeZone) }),
  }
}

function pauses(value: unknown, timeZone: string): NonNullable<Contract['pauses']> {
  return list(value, 'pauses', limits.contractItemsMax).map((entry, i) => {
    const { from, until } = daysOf(fieldsOf(entry, `pauses[${i}]`, ['from', 'until']), timeZone, `pauses[${i}]`)
    if (from === undefined) throw new ReleveError('invalid_request', `pauses[${i}].from: is needed`)
    return until === undefined ? { from } : { from, until }
  })
}

function renewal(value: unknown): Renewal {
  const fields = fieldsOf(value, 'renewal', ['periods', 'auto', 'noticeDays'])
  return {
    ...(fields.periods === undefined ? {} : { periods: wholeNumber(fields.periods, 'renewal.periods', 1, 1_000) }),
    auto: fields.auto === undefined ? true : flag(fields.auto, 'renewal.auto'),
    noticeDays: wholeNumber(fields.noticeDays ?? 0, 'renewal.noticeDays', 0, 3_650),
  }
}

function lastDay(value: unknown, start: string, timeZone: string): string {
  const end = name(value, 'end')
  if (midnightOf(end, timeZone) < midnightOf(start, timeZone))
    throw new ReleveError('invalid_request', 'end: lies before the start')
  return end
}

function daysOf(fields: Fields, timeZone: string, at: string): Days {
  const day = (value: unknown, field: string): string => {
    const date = name(value, field)
    midnightOf(date, timeZone)
    return date
  }
  const from = fields.from === undefined ? {} : { from: day(fields.from, `${at}.from`) }
  const until = fields.until === undefined ? {} : { until: day(fields.until, `${at}.until`) }
  if (from.from !== undefined && until.until !== undefined && until.until < from.from)
    throw new ReleveError('invalid_request', `${at}.until: lies before from`)
  return { ...from, ...until }
}

function addOns(value: unknown, timeZone: string, at: string): AddOn[] {
  return list(value, at, limits.planMetricsMax).map((entry, i) => {
    const fields = fieldsOf(entry, `${at}[${i}]`, ['name', 'rule', 'quantity', 'once', 'from', 'until'])
    const once = fields.once === undefined ? false : flag(fields.once, `${at}[${i}].once`)
    if (once && fields.from === undefined)
      throw new ReleveError('invalid_request', `${at}[${i}].from: says when what is billed once is due`)
    return {
      name: name(fields.name, `${at}[${i}].name`),
      rule: name(fields.rule, `${at}[${i}].rule`),
      quantity: quantity(fields.quantity ?? '1', `${at}[${i}].quantity`),
      once,
      ...daysOf(fields, timeZone, `${at}[${i}]`),
    }
  })
}

function prepaidRules(value: unknown, at: string): PrepaidRule[] {
  const rules = list(value, at, limits.planMetricsMax).map((entry, i): PrepaidRule => {
    const fields = fieldsOf(entry, `${at}[${i}]`, ['metric', 'exhaustion', 'recharge'])
    const exhaustion = oneOf(fields.exhaustion, Exhaustion, `${at}[${i}].exhaustion`)
    if ((exhaustion === 'auto_recharge') !== (fields.recharge !== undefined)) {
      const detail = `${at}[${i}].recharge: is given exactly when exhaustion is auto_recharge`
      throw new ReleveError('invalid_request', detail)
    }
    const metric = name(fields.metric, `${at}[${i}].metric`)
    if (fields.recharge === undefined) return { metric, exhaustion }
    const field = `${at}[${i}].recharge`
    const one = fieldsOf(fields.recharge, field, ['quantity', 'amount', 'validDays', 'priority'])
    const size = quantity(one.quantity, `${field}.quantity`)
    if (size === '0') throw new ReleveError('invalid_request', `${field}.quantity: must be above 0`)
    return {
      metric,
      exhaustion,
      recharge: {
        quantity: size,
        amount: quantity(one.amount, `${field}.amount`),
        ...(one.validDays === undefined
          ? {}
          : { validDays: wholeNumber(one.validDays, `${field}.validDays`, 1, 36_500) }),
        ...(one.priority === undefined
          ? {}
          : { priority: wholeNumber(one.priority, `${field}.priority`, 0, 1_000_000) }),
      },
    }
  })
  assertOnce(
    rules.map((rule) => rule.metric),
    at,
  )
  return rules
}

function adjustments(value: unknown, timeZone: string): Adjustments {
  const fields = fieldsOf(value, 'adjustments', ['discounts', 'minimum', 'maximum'])
  const discounts =
    fields.discounts === undefined
      ? undefined
      : list(fields.discounts, 'adjustments.discounts', 50).map((entry, i): Discount => {
          const at = `adjustments.discounts[${i}]`
          const one = fieldsOf(entry, at, ['name', 'kind', 'value', 'from', 'until'])
          const kind = oneOf(one.kind, ['percent', 'amount'] as const, `${at}.kind`)
          const discount = quantity(one.value, `${at}.value`)
          if (kind === 'percent' && parseDecimal(discount, at).gt(100))
            throw new ReleveError('invalid_request', `${at}.value: percent from 0 to 100`)
          return { name: name(one.name, `${at}.name`), kind, value: discount, ...daysOf(one, timeZone, at) }
        })
  assertOnce(
    (discounts ?? []).map((one) => one.name),
    'adjustments.discounts',
  )
  const minimum = fields.minimum === undefined ? undefined : quantity(fields.minimum, 'adjustments.minimum')
  const maximum = fields.maximum === undefined ? undefined : quantity(fields.maximum, 'adjustments.maximum')
  if (minimum !== undefined && maximum !== undefined && parseDecimal(minimum, 'minimum').gt(maximum))
    throw new ReleveError('invalid_request', 'adjustments.minimum: is above the maximum')
  return {
    ...(discounts === undefined ? {} : { discounts }),
    ...(minimum === undefined ? {} : { minimum }),
    ...(maximum === undefined ? {} : { maximum }),
  }
}

function parseEntitlement(json: unknown, at: string): Omit<ItemEntitlement, 'limitVersion'> {
  const fields = fieldsOf(json, at, ['metric', 'limit', 'thresholds'])
  const limit = fields.limit === null ? null : quantity(fields.limit, `${at}.limit`)
  const thresholds = list(fields.thresholds ?? DEFAULT_THRESHOLDS, `${at}.thresholds`, limits.thresholdsMax).map(
    (raw, i) => {
      const one = fieldsOf(raw, `${at}.thresholds[${i}]`, ['code', 'kind', 'value'])
      return {
        code: name(one.code, `${at}.thresholds[${i}].code`),
        kind: oneOf(one.kind, ['percent', 'absolute'] as const, `${at}.thresholds[${i}].kind`),
        value: quantity(one.value, `${at}.thresholds[${i}].value`),
      }
    },
  )
  assertOnce(
    thresholds.map((threshold) => threshold.code),
    `${at}.thresholds`,
  )
  return { metric: name(fields.metric, `${at}.metric`), limit, thresholds }
}

function fieldsOf(json: unknown, what: string, known: readonly string[]): Fields {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new ReleveError('invalid_request', `${what}: an object is expected`)
  for (const member of Object.keys(json)) {
    if (!known.includes(member))
      throw new ReleveError('invalid_request', `${what}: unknown member ${member}; known are ${known.join(', ')}`)
  }
  return json as Fields
}

function name(value: unknown, field: string): string {
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

function list(value: unknown, field: string, max: number): unknown[] {
  if (!Array.isArray(value) || value.length > max)
    throw new ReleveError('invalid_request', `${field}: a list of at most ${max} is expected`)
  return value
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

function texts(value: unknown, field: string): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || Object.keys(value).length > 50) {
    throw new ReleveError('invalid_request', `${field}: an object of at most 50 texts is expected`)
  }
  return Object.fromEntries(
    Object.entries(value).map(([key, text]) => [name(key, field), name(text, `${field}.${key}`)]),
  )
}

function wholeNumber(value: unknown, field: string, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw new ReleveError('invalid_request', `${field}: a whole number from ${min} to ${max} is expected`)
  }
  return value
}

function flag(value: unknown, field: string): boolean {
  if (typeof value !== 'boolean') throw new ReleveError('invalid_request', `${field}: true or false is expected`)
  return value
}

function oneOf<const T extends string>(value: unknown, known: readonly T[], field: string): T {
  if (typeof value !== 'string' || !(known as readonly string[]).includes(value)) {
    throw new ReleveError('invalid_request', `${field}: one of ${known.join(', ')} is expected`)
  }
  return value as T
}

function quantity(value: unknown, field: string): string {
  const number = parseDecimal(value, field)
  if (number.isNegative() && !number.isZero())
    throw new ReleveError('invalid_request', `${field}: must not be negative`)
  return printDecimal(number)
}

function country(value: unknown): string {
  const code = name(value, 'country')
  if (!/^[A-Z]{2}$/.test(code))
    throw new ReleveError('invalid_request', `country: two letters such as CI are expected, got ${code}`)
  return code
}

function zone(value: unknown): string {
  const text = name(value, 'timeZone')
  if (!isTimeZone(text)) throw new ReleveError('invalid_request', `timeZone: unknown ${text}`)
  return text
}

function assertOnce(names: readonly string[], field: string): void {
  const seen = new Set<string>()
  for (const one of names) {
    if (seen.has(one)) throw new ReleveError('invalid_request', `${field}: ${one} is there twice`)
    seen.add(one)
  }
}
