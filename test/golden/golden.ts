/**
 * Golden cases: numbers that were printed, computed by others, or laid down by law, against the product's own functions.
 *
 *   npm run golden -- FILE        (default: test/golden/golden.json)
 *
 * An adapter turns a case's `given` into a call of the product and its answer into the case's words; it holds no arithmetic of
 * its own. Every member of `expect` must be equal; texts of cases without a currency are compared as decimals by value. Parts of
 * the product that do not exist yet print NOT BUILT and are counted apart; an op that nobody knows fails.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { openAggregate } from '../../src/aggregate/aggregate.js'
import { printQuantity, ROLLUP_SCALE } from '../../src/amount.js'
import { Book, nextVersion, type Terms } from '../../src/catalog/book.js'
import { lintCard } from '../../src/catalog/lint.js'
import { printNumber, seriesOf } from '../../src/catalog/number-pattern.js'
import { nextPeriodOf, periodAt } from '../../src/catalog/part.js'
import { type Price, parsePrice } from '../../src/catalog/price.js'
import { renewalOf } from '../../src/catalog/renewal.js'
import { midnightOf, schedule } from '../../src/catalog/schedule.js'
import { seedCustomers, seedLegalEntity, seedMetrics, seedPlans, seedPrices } from '../../src/catalog/seeds.js'
import {
  assertSubscriptionMove,
  isSubscriptionState,
  SubscriptionMoves,
  trialFunnel,
  trialStatus,
} from '../../src/catalog/subscription.js'
import { convertUnit } from '../../src/catalog/unit.js'
import { HandClock } from '../../src/clock.js'
import { convertMoney, fixedRate, printMoney } from '../../src/currency.js'
import { Decimal, parseDecimal, printDecimal, RoundingMode, round, sum } from '../../src/decimal.js'
import { Dedupe } from '../../src/dedupe/dedupe.js'
import { sign } from '../../src/delivery/sign.js'
import { ReleveError } from '../../src/errors.js'
import { dateIn, formatCompact, formatDate, formatMoney, formatNumber, formatPercent } from '../../src/format.js'
import { decodeFrame } from '../../src/frame.js'
import { buildDoor, judge } from '../../src/ingest/ingest.js'
import { ShardVerdict } from '../../src/ingest/verdict.js'
import { creditTotals } from '../../src/invoicing/credit.js'
import { draftInvoice, type ItemUsage } from '../../src/invoicing/draft.js'
import { toCsv, toXlsx } from '../../src/invoicing/extract.js'
import { groupLines } from '../../src/invoicing/group.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'
import { creditable, deletionOf, opposite, paymentStatus, totalsByStatus } from '../../src/invoicing/state.js'
import { limits } from '../../src/limits.js'
import { termOf } from '../../src/objects/objects.js'
import { rootDirectory } from '../../src/paths.js'
import { type Period, windowOf } from '../../src/period.js'
import { countOver, quotaStatus } from '../../src/quota/status.js'
import { applyCap, applyMinimum, spread } from '../../src/rating/adjust.js'
import { comparePlans } from '../../src/rating/compare.js'
import { rateDelta } from '../../src/rating/delta.js'
import { burnDown, type Pack } from '../../src/rating/prepaid.js'
import { hoursOf, lengthOf, prorate } from '../../src/rating/prorate.js'
import { rate } from '../../src/rating/rating.js'
import { addTax, splitInclusive, taxByRate } from '../../src/rating/tax.js'
import { parseUsageData, usageDataFault } from '../../src/usage-data/datum.js'
import { openTestPostgres, type TestPostgres } from '../invoicing/postgres.js'
import { watchValues } from './alert-world.js'
import { calculateThroughService, collectThroughService, lateThroughService, monthNamed } from './usage-world.js'

// biome-ignore lint/suspicious/noExplicitAny: a case's shape depends on its op
type Given = any
export interface GoldenCase {
  readonly id: string
  readonly area: string
  readonly op: string
  readonly given: Given
  readonly expect: Readonly<Record<string, unknown>>
}
export interface GoldenResult {
  readonly id: string
  readonly verdict: 'pass' | 'fail' | 'not_built'
  readonly detail: string
}

/** By «area op»: parts of the product that are not there yet. */
const NOT_BUILT = new Set([
  'dunning dunning_stage',
  'kpi growth_base',
  'kpi ratio_possible',
  'kpi arpu',
  'kpi overage_rate',
  'payment map_provider_status',
  'payment state_machine',
  'payment transition',
  'payment webhook',
  'payment allocate',
  'payment allocate_fx',
  'payment wave_signature',
  'payment creditor_reference',
  'payment check_creditor_reference',
  'payment reconcile',
  'payment import_statement',
  'payment validate_om_request',
  'security permissions',
  'security authorize',
  'security audit',
  'mcp tools_list',
  'mcp tools_call',
])

const EUR = 'EUR'
const plain = (text: string): string => text.replaceAll('\u00a0', ' ').replaceAll('\u202f', ' ')
const month = (time: number, zone: string): string => dateIn(time, zone).slice(0, 7)
const iso = (time: number): string => new Date(time).toISOString().replace('.000Z', 'Z')
/** A date as its midnight, or an instant. */
const day = (date: string, zone = 'UTC'): number => (date.includes('T') ? Date.parse(date) : midnightOf(date, zone))
const currencyOf = (given: Given): string => given.currency ?? EUR
const dates = (period: { from: number; to: number }): string[] => [dateIn(period.from, 'UTC'), dateIn(period.to, 'UTC')]

function tiered(type: 'tiered' | 'volume', given: Given): Price {
  const { rule_id = 'case', metric = 'units', tiers } = given
  return parsePrice({ rule_id, type, metric, currency: currencyOf(given), tiers })
}

/** A quantity and what stands beside it. */
function asked({ quantity, included }: Given): { quantity: string; included?: string } {
  return { quantity: String(quantity), ...(included === undefined ? {} : { included: String(included) }) }
}

const added = (...quantities: (string | number)[]): string =>
  printDecimal(sum(quantities.map((one) => new Decimal(one))))

function packages(given: Given): Price {
  const { package_size, package_price, free_units = 0, rounding = 'up' } = given
  return parsePrice({
    rule_id: 'case',
    type: 'package',
    metric: 'units',
    currency: currencyOf(given),
    package_size,
    package_price,
    free_units,
    rounding,
  })
}

/** The beginning of an expected error's detail is its code. */
function codeOf(work: () => unknown): string | null {
  try {
    work()
    return null
  } catch (error) {
    if (error instanceof ReleveError) return error.message.split(':')[0] ?? ''
    throw error
  }
}

function packOf({ expires, created, balance, ...pack }: Given): Pack {
  return {
    ...pack,
    balance: String(balance),
    ...(expires == null ? {} : { expires: day(expires) }),
    ...(created == null ? {} : { createdAt: day(created) }),
  }
}

function seedPrice(rule: string, changes: object = {}): Price {
  const found = seedPrices.find((price) => (price.rule as { rule_id: string }).rule_id === rule)
  if (found === undefined) throw new Error(`cannot find the rule ${rule}`)
  return parsePrice({ ...(found.rule as object), ...changes }, found.version)
}

const caseMetric = {
  key: 'units',
  version: 1,
  aggregation: 'sum' as const,
  unit: 'unit',
  scale: 9,
  dims: [],
  uniqueBy: null,
  archive: true,
}
const caseProduct = { key: 'case', name: 'case' }
const casePlan = { key: 'case', version: 1, name: 'case' }
const caseMonth = monthNamed('2026-03', 'Africa/Abidjan')
const caseContract = {
  id: 'case',
  tenant: seedCustomers[0]!.tenant,
  legalEntity: seedLegalEntity.key,
  name: 'case',
  start: '2026-01-01',
  timeZone: 'Africa/Abidjan',
  cycle: 'monthly' as const,
  state: 'active' as const,
}

/** Terms of one item, `case/1`. */
function caseTerms(given: {
  readonly currency: string
  readonly taxRate?: string
  readonly item: Omit<Terms['items'][number], 'item'>
}): Terms {
  const { currency, taxRate = seedCustomers[0]!.taxRate, item } = given
  return {
    catalogVersion: 0,
    contract: { ...caseContract, items: [] },
    customer: { ...seedCustomers[0]!, taxRate, currency },
    legalEntity: seedLegalEntity,
    items: [{ item: 'case/1', ...item }],
  }
}

function measuredAs(metric: string, quantity: string): ItemUsage {
  return { item: 'case/1', metric, quantity, count: 0, digest: '', query: '', cut: {} }
}

/** Needs a real PostgreSQL; one is started for all cases of a run, when the first asks. */
interface World {
  postgres(): Promise<TestPostgres>
}

type Adapter = (given: Given, world: World, expected: Readonly<Record<string, unknown>>) => unknown

/** The patterns of the screens and documents; a number says by its form which one it is of. */
function patternLike(number: string | null): string {
  if (number === null) return seedLegalEntity.invoicePattern
  const [prefix] = number.split(/[-/]/)
  if (/^[A-Z]+-\d{4}-\d+$/.test(number)) return `${prefix}-{YYYY}-{NNNN}`
  if (/^[A-Z]+\/\d{4}\/\d{2}\/\d+$/.test(number)) return `${prefix}/{YYYY}/{MM}/{NNNN}`
  throw new Error(`cannot tell the pattern of ${number}`)
}

const adapters: Readonly<Record<string, Adapter>> = {
  // Quotas and alerts.
  quota_status: ({ usage, limit = null }) => quotaStatus(String(usage), limit === null ? null : String(limit)),
  count_over: ({ metrics }) => ({
    over: countOver(
      metrics.map((one: Given) => {
        const [usage, limit = null] = Array.isArray(one) ? one : [one.usage, one.limit]
        return quotaStatus(String(usage), limit === null ? null : String(limit))
      }),
    ),
  }),
  threshold_state: ({ threshold, values }) => {
    const watched = { thresholds: [{ code: 'case', kind: 'absolute' as const, value: String(threshold) }] }
    const texts: string[] = values.map(String)
    const told = watchValues(watched, texts).map((crossings) => crossings.map(({ type }) => type))
    // Told once a period and resolved once; behind that, a balance that begins with a value says what state it is.
    const states = texts.map((value) => (watchValues(watched, [value])[0]!.length > 0 ? 'alarm' : 'ok'))
    const first = (type: string): number => told.findIndex((types) => types.includes(type as 'alert.resolved'))
    const agree = first('alert.triggered') === states.indexOf('alarm')
    const silent = states.indexOf('ok', Math.max(states.indexOf('alarm'), 0))
    const fell = states.includes('alarm') && silent !== -1
    return { states: agree && first('alert.resolved') === (fell ? silent : -1) ? states : told }
  },
  thresholds_crossed: ({ previous = '0', value, limit, thresholds = [], thresholds_percent = [], recurring }) => {
    const [absolute, percent]: string[][] = [thresholds.map(String), thresholds_percent.map(String)]
    // The steps go on from the highest threshold.
    const [from = '0'] = absolute!.toSorted((a, b) => new Decimal(b).cmp(a))
    const watched = {
      ...(limit == null ? {} : { limit: String(limit) }),
      thresholds: [
        ...absolute!.map((at) => ({ code: at, kind: 'absolute' as const, value: at })),
        ...percent!.map((at) => ({ code: at, kind: 'percent' as const, value: at })),
      ],
      recurring: recurring == null ? [] : [{ code: 'every', rule: 'every', every: String(recurring), from }],
    }
    const told = watchValues(watched, [String(previous), String(value)])[1]!
    return { fired: told.map(({ threshold }) => threshold.replace('every:', '')) }
  },

  standard_webhook_sign: ({ secret, id, timestamp, body }) => ({ signature: sign({ id, timestamp, body }, [secret]) }),

  // Tax.
  split_inclusive: (given) => splitInclusive(given.ttc, given.rate, currencyOf(given)),
  add_tax: (given) => addTax(given.ht, given.rate, currencyOf(given)),
  tax_total: (given) =>
    taxByRate(
      (given.lines ?? given.lines_ht.map((ht: string) => ({ ht }))).map((line: Given) => ({
        rate: given.rate,
        ...line,
      })),
      currencyOf(given),
      given.rounding,
    ),
  tax_with_coupon: (given) => {
    const currency = currencyOf(given)
    const shares = spread(
      given.coupon,
      given.lines.map((line: Given) => line.ht),
      currency,
    )
    // A discount stands beside what it comes off, as a line of the same rate.
    const pairs = given.lines.map((line: Given, i: number) => [line, { ht: opposite(shares[i]!), rate: line.rate }])
    const taxed = taxByRate(pairs.flat(), currency)
    const tax_by_line = pairs.map((pair: Given) => taxByRate(pair, currency).tva)
    return { ...taxed, coupon_by_line: shares, tax_by_line, ht_after_coupon: taxed.ht }
  },

  // Rating.
  rate_graduated: (given) => {
    const rating = rate({ price: tiered('tiered', given), ...asked(given) })
    return {
      total: rating.total,
      unpriced: rating.unpriced,
      lines: rating.lines.flatMap((line) => line.steps.map((step) => [step.quantity, step.unitPrice, step.amount])),
    }
  },
  rate_graduated_flat: (given) => rate({ price: tiered('tiered', given), ...asked(given) }),
  rate_volume: (given) => rate({ price: tiered('volume', given), ...asked(given) }),
  rate_graduated_delta: (given) => {
    // The case gives what comes on top; the sum is the quantity that the product is asked for.
    const quantity = added(given.previous, given.quantity)
    // An interim invoice of no usage has not billed the first tier's flat fee.
    const request = {
      price: tiered('tiered', given),
      ...asked({ ...given, quantity }),
      billed: String(given.previous),
      flatAtZero: false,
    }
    return { total: rateDelta(request).amount }
  },
  rate_package: (given) => rate({ price: packages(given), ...asked(given) }),
  rate_volume_package: (given) => {
    const rating = rate({ price: packages(given), ...asked(given) })
    return { total: rating.total, packages: Number(rating.lines[0]?.steps[0]?.quantity ?? 0) }
  },
  rate_percentage: (given) => {
    const { amount, events, amounts, ...rule } = given
    return rate({
      price: parsePrice({ rule_id: 'case', type: 'percentage', metric: 'amount', currency: EUR, ...rule }),
      quantity: String(amount),
      ...(events === undefined ? {} : { events: String(events) }),
      ...(amounts === undefined ? {} : { amounts: amounts.map((one: Given) => ({ amount: String(one), count: '1' })) }),
    })
  },
  apply_commitment: ({ charges, previous = '0', minimum, last_of_period = true, currency = EUR }) => ({
    true_up: applyMinimum({ charges, previous, minimum, lastOfPeriod: last_of_period, currency }).trueUp,
  }),
  apply_cap: ({ charges, previous = '0', maximum, discount_percent, currency = EUR }) => {
    const capped = applyCap({
      charges,
      previous,
      maximum,
      currency,
      ...(discount_percent ? { discountPercent: discount_percent } : {}),
    })
    return {
      discount: capped.capDiscount,
      percent_discount: capped.percentDiscount,
      cap_discount: capped.capDiscount,
      net: capped.net,
    }
  },
  rule_version: ({ rule = 'case', versions, usage, zone = 'UTC', currency = EUR }) => {
    const period = windowOf(day(usage[0].at, zone), 'month', zone)
    const total = (effect: { takesEffect?: 'event_time' }): string => {
      const entitlements = [{ metric: 'units', limit: '0', limitVersion: 1, thresholds: [] }]
      const book = new Book({
        version: 0,
        metrics: [caseMetric],
        products: [caseProduct],
        plans: [
          {
            ...casePlan,
            product: 'case',
            feeRule: null,
            metrics: [{ metric: 'units', included: '0', rule }],
            features: [],
          },
        ],
        prices: versions.map(({ v, from, price, tiers }: Given) => ({
          rule,
          version: v,
          status: 'active',
          effectiveFrom: day(from, zone),
          ...effect,
          definition: {
            rule_id: rule,
            type: 'per_unit',
            metric: 'units',
            currency,
            ...(tiers === undefined ? { unit_price: price } : { tiers }),
          },
          billed: false,
        })),
        legalEntities: [seedLegalEntity],
        customers: [{ ...seedCustomers[0]!, currency }],
        contracts: [
          {
            ...caseContract,
            start: dateIn(period.from, zone),
            timeZone: zone,
            items: [{ id: 'case/1', plan: 'case', planVersion: 1, entitlements }],
          },
        ],
      })
      const terms = book.terms('case', period)
      // What the archive counts: the usage of each part that the versions cut the period into.
      const edges = [period.from, ...(terms.items[0]!.metrics[0]!.later ?? []).map(({ from }) => from), period.to]
      const within = (range: Period): string =>
        added(
          ...usage
            .filter(({ at }: Given) => day(at, zone) >= range.from && day(at, zone) < range.to)
            .map(({ value }: Given) => String(value)),
        )
      const parts = edges.slice(1).map((to, i) => ({ from: edges[i]!, to }))
      const measured = {
        ...measuredAs('units', within(period)),
        parts: parts.map((part) => ({ period: part, quantity: within(part) })),
      }
      return draftInvoice('case', terms, period, [measured]).ht
    }
    return { pin_to_period_start: total({}), by_event_time: total({ takesEffect: 'event_time' }) }
  },
  round: ({ value, places = 0, mode = 'half_up' }) => {
    const named = mode.replaceAll('-', '_')
    if (!Object.hasOwn(RoundingMode, named)) throw new Error(`cannot round ${mode}`)
    return { value: round(parseDecimal(value, 'value'), places, named).toFixed(places) }
  },

  // Proration.
  prorate_days: ({ amount, used_days, period_days, currency = EUR }) => ({
    amount: prorate(amount, used_days, period_days, currency),
  }),
  upgrade: ({ old, new: next, fraction_left, days_left, period_days, currency = EUR }) => {
    const [left, whole] = [fraction_left ?? days_left, period_days ?? 1]
    const credit = opposite(prorate(old, left, whole, currency))
    const charge = prorate(next, left, whole, currency)
    const lines = [credit, charge].map((ht) => ({ ht, rate: '0' }))
    return { credit, charge, net: taxByRate(lines, currency).ht }
  },
  prorate_window: ({ amount, start, end, period, zone = 'UTC', currency = EUR }) => {
    const whole = { from: day(period[0], zone), to: day(period[1], zone) }
    const part = { from: day(start, zone), to: end === undefined ? whole.to : day(end, zone) }
    const by = (unit: 'day' | 'second'): string =>
      prorate(amount, lengthOf(part, zone, unit), lengthOf(whole, zone, unit), currency)
    return {
      by_second: by('second'),
      by_day: by('day'),
      hours_left: hoursOf(part),
      hours_total: hoursOf(whole),
    }
  },
  credit_unused: ({ amount, unused_days, period_days, tax_rate = '0', currency = EUR }) =>
    addTax(prorate(amount, unused_days, period_days, currency), tax_rate, currency),

  // Prepaid.
  burn_down: ({ grants, usage, at = '1970-01-01' }) =>
    burnDown(grants.map(packOf), [{ at: day(at), quantity: String(usage) }]),
  burn_down_timeline: ({ packs, usage }) =>
    burnDown(
      packs.map(packOf),
      usage.map(({ at, value }: Given) => ({ at: day(at), quantity: String(value) })),
    ),
  exhaust: ({ pack, pack_price = '0', usage, overage_unit_price = '0', policy, currency = EUR }) => {
    const price = parsePrice({
      rule_id: 'case',
      type: 'per_unit',
      metric: 'units',
      currency,
      unit_price: overage_unit_price,
    })
    const invoice = draftInvoice(
      'case',
      caseTerms({
        currency,
        item: {
          plan: casePlan,
          product: caseProduct,
          feeRule: null,
          fee: null,
          metrics: [{ metric: 'units', unit: 'unit', limit: '0', rule: 'case', price }],
        },
      }),
      caseMonth,
      [measuredAs('units', usage)],
      [],
      [],
      {
        fundings: [
          {
            item: 'case/1',
            metric: 'units',
            exhaustion: policy,
            recharge: { quantity: pack, amount: pack_price, name: 'recharge' },
            packs: [{ id: 'pack', name: 'pack', balance: pack }],
            parts: [],
          },
        ],
        purchases: [],
      },
    )
    const lineOf = (type: string) => invoice.lines.find((line) => line.type === type)
    const { blocked } = invoice.usage[0]!.prepaid!
    return {
      accepted: added(usage, opposite(blocked)),
      rejected: blocked,
      billed_overage: lineOf('usage')?.billable ?? '0',
      recharges: Number(lineOf('add_on')?.quantity ?? 0),
      amount: invoice.ht,
    }
  },

  // Windows and contracts.
  month_window: ({ zone, year, month: number }) => {
    const window = monthNamed(`${year}-${String(number).padStart(2, '0')}`, zone)
    return { from_utc: iso(window.from), to_utc: iso(window.to), hours: hoursOf(window) }
  },
  assign_period: ({ zone, event_at }) => ({ period: month(windowOf(Date.parse(event_at), 'month', zone).from, zone) }),
  anniversary_windows: ({ anchor, count, cycle = 'monthly' }) => {
    const contract = { start: anchor, timeZone: 'UTC', cycle }
    const windows = [periodAt(contract, day(anchor))]
    while (windows.length < count) windows.push(nextPeriodOf(contract, windows.at(-1)!))
    return { windows: windows.map(dates) }
  },
  next_renewal: ({ start, today, cycle = 'monthly' }) => ({
    next: renewalOf({ start, timeZone: 'UTC', cycle, state: 'active' }, day(today)).nextRenewal,
  }),
  schedules: ({ start, months, cycle = 'monthly' }) => {
    const contract = { start, timeZone: 'UTC', cycle }
    const periods = schedule(contract, termOf(contract, {}, day(start), months))
    return { count: periods.length, first: dates(periods[0]!), last: dates(periods.at(-1)!) }
  },

  // Invoices.
  sum: (given) =>
    totalsByStatus(
      given.ttc.map((ttc: string, i: number) => ({ ttc, status: given.statuses?.[i] ?? 'pending' })),
      currencyOf(given),
    ),
  build_invoice: ({ contract = 'OID Business', base, usage, rules, tax_rate = '18', currency = EUR }) => {
    const plan = seedPlans.find((one) => `${one.product} ${one.name}` === contract)
    if (plan === undefined) throw new Error(`cannot find the plan of ${contract}`)
    const { users, ...others } = usage
    const used: Record<string, string> = { user_active: users ?? '0', ...others }
    const feeRule = rules === undefined || rules.includes(plan.feeRule) ? plan.feeRule : null
    const invoice = draftInvoice(
      'case',
      caseTerms({
        currency,
        taxRate: tax_rate,
        item: {
          product: { key: 'OID', name: 'OID' },
          plan: { key: plan.key, version: 1, name: plan.name },
          feeRule,
          fee:
            feeRule === null ? null : seedPrice(feeRule, { currency, ...(base === undefined ? {} : { amount: base }) }),
          metrics: plan.metrics.map(({ metric, included, rule }) => ({
            metric,
            unit: seedMetrics.find((one) => one.key === metric)!.unit,
            limit: included,
            rule,
            price: rule !== null && (rules?.includes(rule) ?? true) ? seedPrice(rule, { currency }) : null,
          })),
        },
      }),
      caseMonth,
      plan.metrics.map(({ metric }) => measuredAs(metric, String(used[metric] ?? '0'))),
    )
    return {
      lines: invoice.lines.map((line) => line.amount),
      unpriced_overage: invoice.notices
        .filter((notice) => notice.code === 'overage_unpriced')
        .map(({ metric, quantity }) => ({ metric, quantity })),
      ht: invoice.ht,
      tva: invoice.tva,
      ttc: invoice.ttc,
    }
  },
  next_number: async ({ last, date, pattern }, world) => {
    const { ids, invoicing } = await startSeries(world, last, 1, { pattern, date })
    return { number: (await invoicing.finalise(ids[0]!)).invoice.number }
  },
  finalize_concurrently: async ({ start, invoices }, world) => {
    const { ids, invoicing, counters, numberOf } = await startSeries(world, start, invoices)
    const issued = await Promise.all(ids.map((id) => invoicing.finalise(id)))
    const numbers = new Map(issued.map(({ invoice }) => [invoice.number, invoice]))
    const taken = await counters()
    return {
      first: numbers.get(numberOf(taken[0]!))?.number,
      last: numbers.get(numberOf(taken.at(-1)!))?.number,
      gaps: taken.filter((counter, i) => i > 0 && counter !== taken[i - 1]! + 1).length,
      duplicates: issued.length - numbers.size,
    }
  },
  finalize_with_failure: async ({ start, outcomes }, world) => {
    const { ids, invoicing, failing, counters } = await startSeries(world, start, outcomes.length)
    const numbers: (string | null)[] = []
    for (const [i, outcome] of outcomes.entries()) {
      if (outcome === 'ok') numbers.push((await invoicing.finalise(ids[i]!)).invoice.number)
      else await failing.finalise(ids[i]!).catch(() => undefined)
    }
    const taken = await counters()
    return { numbers, gaps: taken.filter((counter, i) => i > 0 && counter !== taken[i - 1]! + 1).length }
  },
  delete_invoice: ({ state }) => deletionOf(state),
  credit_note: ({ invoice, scope, already_credited, amount }) => {
    if (scope !== 'full') {
      const left = creditable({ ttc: invoice.ttc, alreadyCredited: already_credited ?? '0', amount })
      return { error: left.exceeds ? 'exceeds_creditable' : null, creditable: left.creditable }
    }
    const date = `${/\d{4}/.exec(invoice.number)?.[0]}-12-31`
    return {
      ...creditTotals(invoice),
      number: printNumber(seedLegalEntity.creditNotePattern, date, 1),
      refers_to: invoice.number,
    }
  },
  invoice_status: ({ due_date, paid, total, today }) => {
    const { status, daysLate } = paymentStatus({ dueDate: due_date, paid, total, today })
    return { status, days_late: daysLate }
  },
  days_late: ({ due_date, today }) => ({
    days: paymentStatus({ dueDate: due_date, paid: '0', total: '1', today }).daysLate,
  }),

  // Usage records.
  collect_usage: async ({ usage, period }, world) => {
    const { pool } = await world.postgres()
    const collected = await collectThroughService(
      pool,
      period,
      usage.map(({ at, value, state, do_not_invoice = false }: Given) => ({
        ...(at === undefined ? {} : { at: day(at) }),
        value: String(value),
        state,
        doNotInvoice: do_not_invoice,
      })),
    )
    return { quantity: collected.quantity, state_after: collected.state, invoice: collected.number }
  },
  ingest: ({ events }) => {
    const door = buildDoor({ version: 1, metrics: [caseMetric], tenants: ['case'] }, 1)
    const receivedAt = day('2026-03-10')
    const body = JSON.stringify(events.map((event: object) => ({ ...event, metric: 'units', time: receivedAt })))
    const request = {
      format: 'json' as const,
      tenant: 'case',
      receivedAt,
      floorTime: receivedAt - limits.lateMs,
      aheadMs: limits.aheadMs,
    }
    const judged = judge(door, Buffer.from(body), request)
    const frame = decodeFrame(judged.parts[0]!.frame)
    const verdicts = new Uint8Array(frame.events)
    new Dedupe({ stream: 0, secret: new Uint8Array(16), idsMax: 16 * limits.batchEventsMax }).judge(frame, verdicts)
    const aggregate = openAggregate(() => new Uint8Array(16))
    aggregate.apply(frame, 1, verdicts)
    const of = (verdict: number): number => verdicts.filter((one) => one === verdict).length
    const rows = aggregate.drain().minutes
    return {
      accepted: of(ShardVerdict.accepted),
      duplicates: of(ShardVerdict.duplicate),
      conflicts: of(ShardVerdict.conflict),
      refused: judged.refused,
      total: rows.length === 1 ? printQuantity(rows[0]!.sum, ROLLUP_SCALE) : null,
    }
  },
  calculate_json: async ({ json, formula }, world) => ({
    amount: await calculateThroughService((await world.postgres()).pool, formula, json),
  }),
  parse_json: ({ text }) => ({ error: codeOf(() => parseUsageData(text)) }),
  validate_usage: ({ value, json }) => ({ error: usageDataFault({ value, json }) }),
  late_usage: async ({ event_period, invoice_state, policy = 'next_invoice' }, world) => {
    const { pool } = await world.postgres()
    const { goes, month, line } = await lateThroughService(pool, event_period, invoice_state, policy)
    const ascii = (line?.split(' — ')[0] ?? '').normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()
    if (goes === 'draft') return { goes_to: `${month} draft invoice` }
    return { goes_to: goes === 'next_invoice' ? `${month} invoice, line "${ascii}"` : goes }
  },
  late_usage_rating: (given) => {
    const quantity = added(given.billed_quantity, given.late_quantity)
    return rateDelta({
      price: tiered('tiered', given),
      billed: given.billed_quantity,
      ...asked({ ...given, quantity }),
    })
  },

  // Catalogue, subscriptions, trials, simulation.
  rate_with: ({ rule, version, status }) => {
    const definition = { rule_id: rule, type: 'flat_fee', amount: '1', currency: EUR }
    const archived = status === 'archived' ? { archivedAt: 0 } : {}
    const prices = [{ rule, version, status, effectiveFrom: 0, ...archived, definition, billed: false }]
    const none = { metrics: [], products: [], plans: [], legalEntities: [], customers: [], contracts: [] }
    const inForce = new Book({ version: 0, ...none, prices }).priceInForce(rule, 0)
    return { error: inForce === null ? 'not_active' : null }
  },
  edit_rule: ({ version, status }) => {
    // A draft is edited as it is.
    const next = status === 'draft' ? { version, status } : nextVersion(version)
    return { creates: next.version, status: next.status }
  },
  trial_status: ({ start, length_days = 14, extension_days, grace_days, converted_on, today }) => {
    const { ends, daysLeft, status } = trialStatus(
      {
        start,
        lengthDays: length_days,
        ...(extension_days === undefined ? {} : { extensionDays: extension_days }),
        ...(grace_days === undefined ? {} : { graceDays: grace_days }),
        ...(converted_on === undefined ? {} : { convertedOn: converted_on }),
      },
      today,
    )
    return { ends, days_left: daysLeft, status }
  },
  funnel: (given) => {
    const funnel = trialFunnel(given)
    return { sum_ok: funnel.sumOk, conversion_percent: funnel.conversionPercent }
  },
  compare_plans: ({ usage, include_limits = false, held = 'business', plans }) => {
    const keys: string[] = plans ?? ['starter', 'business', 'enterprise']
    const { users, ...others } = usage
    const compared = comparePlans({
      beyondLimits: !include_limits,
      plans: keys.map((key) => {
        const plan = seedPlans.find((one) => one.key === `oid-${key}`)!
        return {
          key,
          fee: seedPrice(plan.feeRule!),
          metrics: plan.metrics.map(({ metric, included, rule }) => ({
            metric,
            included,
            price: rule === null ? null : seedPrice(rule),
          })),
        }
      }),
      usage: { ...others, ...(users === undefined ? {} : { user_active: users }) },
      held,
      currency: EUR,
    })
    const eligible = keys.filter((key) => compared.unpriced[key]?.length === 0)
    return { ...compared.totals, cheapest: compared.cheapest, eligible }
  },
  lint_catalog: ({ plan, card_overage_kyc, rule_tiers }) => ({
    warning: lintCard(plan, card_overage_kyc, tiered('tiered', { tiers: rule_tiers }))?.message ?? null,
  }),
  format: ({ value, currency, locale = 'fr-FR', style }) => {
    if (style === 'compact') return { text: formatCompact(value) }
    const language = locale.startsWith('fr') ? 'fr' : 'en'
    if (style === 'percent') return { text: plain(formatPercent(value, language)) }
    if (currency !== undefined) return { text: plain(formatMoney(value, currency, language)) }
    const isDate = /^\d{4}-\d{2}-\d{2}$/.test(value)
    return { text: plain(isDate ? formatDate(value, language) : formatNumber(value, language)) }
  },
}

/** Ops whose name means something else in another area. */
const byArea: Readonly<Record<string, Adapter>> = {
  'usage convert': ({ value, from_unit, to_unit }) => ({ value: convertUnit(value, from_unit, to_unit) }),
  'payment convert': ({ amount, rate: price, from = EUR, to }) => {
    const parity = price === undefined ? fixedRate(from, to) : parseDecimal(price, 'rate')
    if (parity === null) throw new Error(`there is no fixed rate from ${from} to ${to}`)
    return { amount: printMoney(convertMoney(parseDecimal(amount, 'amount'), parity), to) }
  },
  'subscription transition': ({ from, to }) => ({
    error: codeOf(() => assertSubscriptionMove(from, to)) === null ? null : 'illegal_transition',
  }),
  'subscription state_machine': ({ states }) => ({
    allowed: Object.fromEntries(
      states.map((state: string) => [state, isSubscriptionState(state) ? SubscriptionMoves[state] : null]),
    ),
  }),
  'invoice group_lines': ({ objects }) => {
    // Seventy plans, more than a page shows.
    const lines = Array.from({ length: objects }, (_, i) => ({ amount: '1.00', plan: `plan ${i % 70}` }))
    const { groups, detail } = groupLines(lines, (line) => line.plan, EUR)
    const columns = ['plan', 'amount']
    const table = { columns, numeric: new Set(['amount']), rows: detail.map((line) => [line.plan, line.amount]) }
    const csv = toCsv(table).trimEnd().split('\r\n').slice(1)
    const xlsx = toXlsx(table).toString('utf8').match(/<row /g)?.slice(1) ?? []
    return {
      pdf_lines_max: Math.max(groups.length, limits.printedLinesMax),
      detail: csv.length === xlsx.length ? `csv/xlsx with ${csv.length} rows` : null,
    }
  },
}

/** Cases of these ops name no currency; their totals are compared by value. */
const BY_VALUE = new Set([
  'rate_graduated_flat',
  'rate_volume',
  'rate_graduated_delta',
  'rate_package',
  'rate_percentage',
  'rate_volume_package',
  'apply_commitment',
  'apply_cap',
])

let serial = 0

/** What a number has in the places of its pattern. */
function partsOf(pattern: string, number: string | null): { year?: string; month?: string; number?: string } {
  if (number === null) return {}
  const places = { '{YYYY}': '(?<year>\\d{4})', '{YY}': '(?<short>\\d{2})', '{MM}': '(?<month>\\d{2})' } as Record<
    string,
    string
  >
  const form = pattern
    .split(/(\{[A-Z]+\})/)
    .map((part) => places[part] ?? (part.startsWith('{N') ? '(?<number>\\d+)' : part.replaceAll('.', '\\.')))
  const found = new RegExp(`^${form.join('')}$`).exec(number)?.groups
  if (found === undefined) throw new Error(`${number} is not of the pattern ${pattern}`)
  const { year = found.short === undefined ? undefined : `20${found.short}`, month, number: counter } = found
  return { ...(year && { year }), ...(month && { month }), ...(counter && { number: counter }) }
}

/** A series that stands at a number (or at none), and drafts that wait for the ones behind it. */
async function startSeries(
  world: World,
  last: string | null,
  count: number,
  { pattern, date }: { readonly pattern?: string; readonly date?: string } = {},
) {
  const { pool } = await world.postgres()
  serial += 1
  const invoicePattern = pattern ?? patternLike(last)
  const seller = { ...seedLegalEntity, key: `case-${serial}`, invoicePattern }
  const { year = '2026', month = '03', number } = partsOf(invoicePattern, last)
  const today = date ?? `${year}-${month}-11`
  const clock = new HandClock(`${today}T09:00:00Z`)
  const invoicing = new Invoicing({ postgres: pool, clock })
  const failing = new Invoicing({
    postgres: pool,
    clock,
    crashPoint: () => {
      throw new Error('fail')
    },
  })
  await pool.query('DELETE FROM invoices WHERE state = $1', ['draft'])
  if (last !== null)
    await pool.query('INSERT INTO number_series (legal_entity, series, last, last_date) VALUES ($1, $2, $3, $4)', [
      seller.key,
      seriesOf(invoicePattern, `${year}-${month}-08`),
      Number(number),
      `${year}-${month}-08`,
    ])
  const ids: string[] = []
  for (let i = 0; i < count; i += 1) {
    const draft: Invoice = {
      id: invoicing.newId(),
      kind: 'invoice',
      number: null,
      contract: `${seller.key}-${i}`,
      contractName: 'case',
      tenant: 'banque-atlantique',
      catalogVersion: 0,
      period: {
        ...monthNamed('2026-02', 'UTC'),
        timeZone: 'UTC',
        firstDay: '2026-02-01',
        lastDay: '2026-02-28',
        label: { fr: '', en: '' },
      },
      issuedOn: null,
      dueOn: null,
      currency: EUR,
      language: 'fr',
      seller,
      customer: seedCustomers[0]!,
      refersTo: null,
      lines: [],
      usage: [],
      notices: [],
      taxes: [],
      ht: '1.00',
      tva: '0.18',
      ttc: '1.18',
    }
    ids.push((await invoicing.draft(draft)).invoice.id)
  }
  const counters = async (): Promise<number[]> => {
    const { rows } = await pool.query(
      'SELECT counter FROM invoices WHERE legal_entity = $1 AND counter IS NOT NULL ORDER BY counter',
      [seller.key],
    )
    return rows.map((row) => Number(row.counter))
  }
  const numberOf = (counter: number): string => printNumber(invoicePattern, today, counter)
  return { ids, invoicing, failing, counters, numberOf }
}

/** Runs every case; none is dropped: there is one result per case, in order. */
export async function runGolden(cases: readonly GoldenCase[]): Promise<GoldenResult[]> {
  let opened: Promise<TestPostgres> | undefined
  const world: World = {
    postgres: () => {
      opened ??= openTestPostgres()
      return opened
    },
  }
  try {
    const results: GoldenResult[] = []
    for (const one of cases) results.push(await runCase(one, world))
    return results
  } finally {
    await (await opened)?.close()
  }
}

async function runCase(one: GoldenCase, world: World): Promise<GoldenResult> {
  const adapter = byArea[`${one.area} ${one.op}`] ?? adapters[one.op]
  if (NOT_BUILT.has(`${one.area} ${one.op}`))
    return { id: one.id, verdict: 'not_built', detail: `${one.area} ${one.op}` }
  if (adapter === undefined) return { id: one.id, verdict: 'fail', detail: `unknown op ${one.op}` }
  try {
    const got = (await adapter(one.given, world, one.expect)) as Record<string, unknown>
    const wrong = Object.entries(one.expect).filter(([key, value]) => !equal(value, got[key], BY_VALUE.has(one.op)))
    if (wrong.length === 0 && Object.keys(one.expect).length > 0) return { id: one.id, verdict: 'pass', detail: '' }
    const detail = wrong.map(
      ([key, value]) => `${key}: expected ${JSON.stringify(value)}, got ${JSON.stringify(got[key])}`,
    )
    return { id: one.id, verdict: 'fail', detail: detail.join('; ') }
  } catch (error) {
    return { id: one.id, verdict: 'fail', detail: error instanceof Error ? error.message : String(error) }
  }
}

/** Deep equality; members of objects in any order. */
function equal(expected: unknown, got: unknown, byValue: boolean): boolean {
  if (expected === got) return true
  if (typeof expected === 'string' && typeof got === 'string') {
    const decimal = /^-?[0-9]+(?:\.[0-9]+)?$/
    return byValue && decimal.test(expected) && decimal.test(got) && new Decimal(expected).eq(got)
  }
  if (typeof expected !== 'object' || typeof got !== 'object' || expected === null || got === null) return false
  if (Array.isArray(expected) !== Array.isArray(got)) return false
  const keys = new Set([...Object.keys(expected), ...Object.keys(got)])
  return [...keys].every((key) =>
    equal((expected as Record<string, unknown>)[key], (got as Record<string, unknown>)[key], byValue),
  )
}

export function readCases(file: string): GoldenCase[] {
  const { cases } = JSON.parse(readFileSync(file, 'utf8')) as { cases: GoldenCase[] }
  return cases
}

export const goldenFile: string = join(rootDirectory, 'test/golden/golden.json')

async function main(): Promise<void> {
  const cases = readCases(process.argv[2] ?? goldenFile)
  const results = await runGolden(cases)
  const words = { pass: 'PASS     ', fail: 'FAIL     ', not_built: 'NOT BUILT' }
  for (const { id, verdict, detail } of results)
    console.log(`${words[verdict]} ${id}${verdict === 'fail' ? `  ${detail}` : ''}`)
  const count = (verdict: GoldenResult['verdict']): number =>
    results.filter((result) => result.verdict === verdict).length
  console.log(`\n${cases.length} cases: ${count('pass')} pass, ${count('fail')} fail, ${count('not_built')} not built`)
  process.exitCode = count('fail') > 0 || cases.length === 0 ? 1 : 0
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await main()
