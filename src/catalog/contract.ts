/**
 * A contract as doors and seeds write it: items, trial, renewal, what is agreed on, and the checks that each must pass. Plans and
 * customers are in definition.ts. Whether what it names exists is checked by the store, under its lock.
 */
import { parseDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { Cycle } from '../period.js'
import type { Threshold } from '../quota/entitlement.js'
import { type Calculator, parseCalculators } from './calculator.js'
import { Exhaustion } from './exhaustion.js'
import type { Days } from './part.js'
import {
  assertOnce,
  date,
  daysOf,
  type Fields,
  fieldsOf,
  flag,
  list,
  name,
  oneOf,
  quantity,
  wholeNumber,
  zone,
} from './reading.js'
import type { Renewal } from './renewal.js'
import { midnightOf } from './schedule.js'
import { isSubscriptionState, type SubscriptionState, TRIAL_DAYS } from './subscription.js'

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
  /** Decimal text; of a flat price, how many times it is due. */
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
export interface ContractInput extends Omit<Contract, 'items'> {
  readonly items: readonly (Omit<ContractItem, 'planVersion' | 'entitlements'> & {
    readonly planVersion?: number
    /** Absent: the plan's metrics and quotas, with thresholds at 80 % and 100 %. */
    readonly entitlements?: readonly Omit<ItemEntitlement, 'limitVersion'>[]
  })[]
}

export const DEFAULT_THRESHOLDS: readonly Threshold[] = [
  { code: '80%', kind: 'percent', value: '80' },
  { code: '100%', kind: 'percent', value: '100' },
]

function parseLate(json: unknown): LatePolicies {
  const fields = fieldsOf(json, 'late', ['usage', 'corrections'])
  return {
    ...(fields.usage === undefined ? {} : { usage: oneOf(fields.usage, LateUsage, 'late.usage') }),
    ...(fields.corrections === undefined
      ? {}
      : { corrections: oneOf(fields.corrections, LateCorrections, 'late.corrections') }),
  }
}

/**
 * A contract as it is answered, without what the answer adds to it (its customer's name, its moves and history, when its term ends),
 * so that what was read may be put back.
 */
export function withoutDerived(json: unknown): unknown {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return json
  const { customer: _c, moves: _m, history: _h, ...fields } = json as Fields
  if (typeof fields.renewal !== 'object' || fields.renewal === null) return fields
  const { term, nextRenewal: _n, noticeBy: _b, endsOn: _e, ...renewal } = fields.renewal as Fields
  // A contract on which nothing was agreed has its running term in the answer all the same.
  if (term !== undefined && Object.keys(renewal).length === 0) delete fields.renewal
  else fields.renewal = renewal
  return fields
}

/**
 * A definition with what moves have made of the contract since, where it says nothing of it: to put a contract again is not to take
 * back its suspension. null says that there is none (any more).
 */
export function withLife(json: unknown, before: Contract | undefined): unknown {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return json
  const fields: Fields = { ...(before === undefined ? {} : { state: before.state }), ...json }
  for (const member of ['trial', 'billedFrom', 'pauses', 'end'] as const) {
    if (fields[member] === null) delete fields[member]
    else if (before?.[member] !== undefined) fields[member] ??= before[member]
  }
  const { convertedOn, extensionDays } = before?.trial ?? {}
  if (typeof fields.trial === 'object' && fields.trial !== null)
    fields.trial = {
      ...(convertedOn === undefined ? {} : { convertedOn }),
      ...(extensionDays === undefined ? {} : { extensionDays }),
      ...fields.trial,
    }
  return fields
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
  midnightOf(start, timeZone, 'start')
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
    // One that is made suspended has been so from its start, as moves would have written it.
    ...(fields.pauses === undefined && state !== 'suspended'
      ? {}
      : { pauses: pauses(fields.pauses ?? [{ from: start }], timeZone) }),
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
  if (midnightOf(end, timeZone, 'end') < midnightOf(start, timeZone))
    throw new ReleveError('invalid_request', 'end: lies before the start')
  return end
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
  // As it is read: the version is given by the store.
  const fields = fieldsOf(json, at, ['metric', 'limit', 'thresholds', 'limitVersion'])
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
