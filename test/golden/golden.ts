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
import { assertBillable, nextVersion } from '../../src/catalog/book.js'
import { lintCard } from '../../src/catalog/lint.js'
import { nextNumber } from '../../src/catalog/number-pattern.js'
import { type Price, parsePrice } from '../../src/catalog/price.js'
import { midnightOf, monthNamed, nextRenewal, schedule } from '../../src/catalog/schedule.js'
import { seedCustomers, seedLegalEntity, seedMetrics, seedPlans, seedPrices } from '../../src/catalog/seeds.js'
import { isSubscriptionState, SubscriptionMoves, trialFunnel, trialStatus } from '../../src/catalog/subscription.js'
import { convertUnit } from '../../src/catalog/unit.js'
import { HandClock } from '../../src/clock.js'
import { convertMoney, printMoney } from '../../src/currency.js'
import { Decimal, parseDecimal, RoundingMode, round } from '../../src/decimal.js'
import { Dedupe } from '../../src/dedupe/dedupe.js'
import { sign } from '../../src/delivery/sign.js'
import { ReleveError } from '../../src/errors.js'
import { dateIn, formatCompact, formatDate, formatMoney } from '../../src/format.js'
import { decodeFrame } from '../../src/frame.js'
import { buildDoor, judge } from '../../src/ingest/ingest.js'
import { ShardVerdict } from '../../src/ingest/verdict.js'
import { creditTotals, creditUnused } from '../../src/invoicing/credit.js'
import { draftInvoice } from '../../src/invoicing/draft.js'
import { toCsv, toXlsx } from '../../src/invoicing/extract.js'
import { groupLines } from '../../src/invoicing/group.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'
import { creditable, deletionOf, paymentStatus, totalsByStatus } from '../../src/invoicing/state.js'
import { collectUsage, lateUsageGoes, parseUsageData, usageRecordFault } from '../../src/invoicing/usage-record.js'
import { limits } from '../../src/limits.js'
import { rootDirectory } from '../../src/paths.js'
import { windowOf } from '../../src/period.js'
import { countOver, quotaStatus, thresholdState, thresholdsCrossed } from '../../src/quota/status.js'
import { applyCap, applyMinimum } from '../../src/rating/adjust.js'
import { comparePlans } from '../../src/rating/compare.js'
import { rateByVersions, rateDelta } from '../../src/rating/delta.js'
import { calculate } from '../../src/rating/formula.js'
import { burnDown, exhaust } from '../../src/rating/prepaid.js'
import { hoursOf, prorate, prorateChange, prorateRest } from '../../src/rating/prorate.js'
import { rate } from '../../src/rating/rating.js'
import { addTax, splitInclusive, taxByRate, taxWithCoupon } from '../../src/rating/tax.js'
import { openTestPostgres, type TestPostgres } from '../invoicing/postgres.js'

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
const day = (date: string): number => midnightOf(date, 'UTC')
const dates = (period: { from: number; to: number }): string[] => [dateIn(period.from, 'UTC'), dateIn(period.to, 'UTC')]

function tiered(type: 'tiered' | 'volume', given: Given): Price {
  return parsePrice({ rule_id: given.rule_id ?? 'case', type, metric: 'units', currency: EUR, tiers: given.tiers })
}

function packages(given: Given): Price {
  const { package_size, package_price, free_units = 0 } = given
  return parsePrice({
    rule_id: 'case',
    type: 'package',
    metric: 'units',
    currency: EUR,
    package_size,
    package_price,
    free_units,
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

function seedPrice(rule: string, changes: object = {}): Price {
  const found = seedPrices.find((price) => (price.rule as { rule_id: string }).rule_id === rule)
  if (found === undefined) throw new Error(`cannot find the rule ${rule}`)
  return parsePrice({ ...(found.rule as object), ...changes }, found.version)
}

/** Needs a real PostgreSQL; one is started for all cases of a run, when the first asks. */
interface World {
  postgres(): Promise<TestPostgres>
}

type Adapter = (given: Given, world: World, expected: Readonly<Record<string, unknown>>) => unknown

const adapters: Readonly<Record<string, Adapter>> = {
  // Quotas and alerts.
  quota_status: ({ usage, limit }) => quotaStatus(usage, limit),
  count_over: ({ metrics }) => ({
    over: countOver(metrics.map(([usage, limit]: [string, string | null]) => ({ usage, limit }))),
  }),
  threshold_state: ({ threshold, values }) => ({
    states: values.map((value: string) => thresholdState(value, threshold)),
  }),
  thresholds_crossed: ({ previous, value, limit, thresholds = [], thresholds_percent = [], recurring }) => ({
    fired: thresholdsCrossed({
      previous,
      value,
      limit: limit ?? null,
      thresholds: [
        ...thresholds.map((at: string) => ({ code: at, kind: 'absolute' as const, value: at })),
        ...thresholds_percent.map((at: string) => ({ code: at, kind: 'percent' as const, value: at })),
      ],
      ...(recurring === undefined ? {} : { recurring }),
    }),
  }),

  standard_webhook_sign: ({ secret, id, timestamp, body }) => ({ signature: sign({ id, timestamp, body }, [secret]) }),

  // Tax.
  split_inclusive: ({ ttc, rate: percent, currency }) => splitInclusive(ttc, percent, currency),
  add_tax: ({ ht, rate: percent, currency }) => addTax(ht, percent, currency),
  tax_total: ({ lines_ht, rate: percent }) =>
    taxByRate(
      lines_ht.map((ht: string) => ({ ht, rate: percent })),
      EUR,
    ),
  tax_with_coupon: ({ lines, coupon }) => {
    const taxed = taxWithCoupon(lines, coupon, EUR)
    return { ...taxed, coupon_by_line: taxed.couponByLine, tax_by_line: taxed.taxByLine, ht_after_coupon: taxed.ht }
  },

  // Rating.
  rate_graduated: (given) => {
    const rating = rate({ price: tiered('tiered', given), quantity: given.quantity })
    return {
      total: rating.total,
      lines: rating.lines.flatMap((line) => line.steps.map((step) => [step.quantity, step.unitPrice, step.amount])),
    }
  },
  rate_graduated_flat: (given) => rate({ price: tiered('tiered', given), quantity: given.quantity }),
  rate_volume: (given) => rate({ price: tiered('volume', given), quantity: given.quantity }),
  rate_graduated_delta: (given) => {
    // The case gives what comes on top; the sum is the quantity that the product is asked for.
    const quantity = collectUsage(
      [given.previous, given.quantity].map((value: string) => ({ at: 0, value, state: 'pending' as const })),
      { from: 0, to: 1 },
    ).quantity
    return { total: rateDelta({ price: tiered('tiered', given), billed: given.previous, quantity }).amount }
  },
  rate_package: (given) => rate({ price: packages(given), quantity: given.quantity }),
  rate_volume_package: (given) => {
    const rating = rate({ price: packages(given), quantity: given.quantity })
    return { total: rating.total, packages: Number(rating.lines[0]?.steps[0]?.quantity) }
  },
  rate_percentage: ({ amount, rate: percent, free_amount, events, free_events, fixed_per_event }) =>
    rate({
      price: parsePrice({
        rule_id: 'case',
        type: 'percentage',
        metric: 'amount',
        currency: EUR,
        rate: percent,
        free_amount,
        free_events,
        fixed_per_event,
      }),
      quantity: amount,
      events: String(events),
    }),
  apply_commitment: ({ charges, previous, minimum, last_of_period }) => ({
    true_up: applyMinimum({ charges, previous, minimum, lastOfPeriod: last_of_period, currency: EUR }).trueUp,
  }),
  apply_cap: ({ charges, previous, maximum, discount_percent }) => {
    const capped = applyCap({
      charges,
      previous,
      maximum,
      currency: EUR,
      ...(discount_percent ? { discountPercent: discount_percent } : {}),
    })
    return {
      discount: capped.capDiscount,
      percent_discount: capped.percentDiscount,
      cap_discount: capped.capDiscount,
      net: capped.net,
    }
  },
  rule_version: ({ rule, versions, usage }) => {
    const request = {
      versions: versions.map(({ v, from, price }: Given) => ({
        from: day(from),
        price: parsePrice({ rule_id: rule, type: 'per_unit', metric: 'units', currency: EUR, unit_price: price }, v),
      })),
      usage: usage.map(({ at, value }: Given) => ({ at: day(at), quantity: value })),
      periodStart: windowOf(day(usage[0].at), 'month', 'UTC').from,
    }
    return {
      pin_to_period_start: rateByVersions({ ...request, policy: 'period_start' }).total,
      by_event_time: rateByVersions({ ...request, policy: 'event_time' }).total,
    }
  },
  round: ({ value, places, mode }) => {
    if (!Object.hasOwn(RoundingMode, mode)) throw new Error(`cannot round ${mode}`)
    return { value: round(parseDecimal(value, 'value'), places, mode).toFixed(places) }
  },

  // Proration.
  prorate_days: ({ amount, used_days, period_days }) => ({ amount: prorate(amount, used_days, period_days, EUR) }),
  upgrade: ({ old, new: next, fraction_left }) =>
    prorateChange({ old, new: next, fractionLeft: fraction_left, currency: EUR }),
  prorate_window: ({ amount, start, period, zone }) => {
    const whole = { from: midnightOf(period[0], zone), to: midnightOf(period[1], zone) }
    const from = midnightOf(start, zone)
    const request = { amount, start: from, period: whole, zone, currency: EUR }
    return {
      by_second: prorateRest({ ...request, by: 'second' }),
      by_day: prorateRest({ ...request, by: 'day' }),
      hours_left: hoursOf({ from, to: whole.to }),
      hours_total: hoursOf(whole),
    }
  },
  credit_unused: ({ amount, unused_days, period_days, tax_rate }) =>
    creditUnused({ amount, unusedDays: unused_days, periodDays: period_days, taxRate: tax_rate, currency: EUR }),

  // Prepaid.
  burn_down: ({ grants, usage }) => burnDown(grants, [{ at: 0, quantity: usage }]),
  burn_down_timeline: ({ packs, usage }) =>
    burnDown(
      packs.map((pack: Given) => ({ ...pack, expires: day(pack.expires) })),
      usage.map(({ at, value }: Given) => ({ at: day(at), quantity: value })),
    ),
  exhaust: ({ pack, pack_price, usage, overage_unit_price, policy }) => {
    const done = exhaust({
      pack,
      packPrice: pack_price,
      usage,
      overageUnitPrice: overage_unit_price,
      policy,
      currency: EUR,
    })
    return { ...done, billed_overage: done.billedOverage }
  },

  // Windows and contracts.
  month_window: ({ zone, year, month: number }) => {
    const window = monthNamed(`${year}-${String(number).padStart(2, '0')}`, zone)
    return { from_utc: iso(window.from), to_utc: iso(window.to), hours: hoursOf(window) }
  },
  assign_period: ({ zone, event_at }) => ({ period: month(windowOf(Date.parse(event_at), 'month', zone).from, zone) }),
  anniversary_windows: ({ anchor, count }) => ({ windows: schedule(day(anchor), count, 'UTC').map(dates) }),
  next_renewal: ({ start, today }) => ({ next: dateIn(nextRenewal(day(start), day(today), 'UTC'), 'UTC') }),
  schedules: ({ start, months }) => {
    const periods = schedule(day(start), months, 'UTC')
    return { count: periods.length, first: dates(periods[0]!), last: dates(periods.at(-1)!) }
  },

  // Invoices.
  sum: ({ ttc, statuses }) =>
    totalsByStatus(
      ttc.map((amount: string, i: number) => ({ ttc: amount, status: statuses[i] })),
      EUR,
    ),
  build_invoice: ({ base, usage, rules, tax_rate }) => {
    const plan = seedPlans.find((one) => one.key === 'oid-business')!
    const used: Record<string, string> = { ...usage, user_active: usage.users ?? '0' }
    const invoice = draftInvoice(
      'case',
      {
        catalogVersion: 0,
        contract: {
          id: 'case',
          tenant: 'banque-atlantique',
          legalEntity: seedLegalEntity.key,
          name: 'OID Business',
          start: '2026-01-01',
          timeZone: 'Africa/Abidjan',
          cycle: 'monthly',
          state: 'active',
          items: [],
        },
        customer: { ...seedCustomers[0]!, taxRate: tax_rate },
        legalEntity: seedLegalEntity,
        items: [
          {
            item: 'case/1',
            product: { key: 'OID', name: 'OID' },
            plan: { key: plan.key, version: 1, name: plan.name },
            feeRule: plan.feeRule,
            fee: seedPrice(plan.feeRule!, { amount: base }),
            metrics: plan.metrics.map(({ metric, included, rule }) => ({
              metric,
              unit: seedMetrics.find((one) => one.key === metric)!.unit,
              limit: included,
              rule,
              price: rule !== null && rules.includes(rule) ? seedPrice(rule) : null,
            })),
          },
        ],
      },
      monthNamed('2026-03', 'Africa/Abidjan'),
      plan.metrics.map(({ metric }) => ({
        item: 'case/1',
        metric,
        quantity: used[metric] ?? '0',
        count: 0,
        digest: '',
        query: '',
        cut: {},
      })),
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
  next_number: ({ last, date }) => ({ number: nextNumber(seedLegalEntity.invoicePattern, last, date) }),
  finalize_concurrently: async ({ start, invoices }, world) => {
    const { ids, invoicing, counters } = await startSeries(world, start, invoices)
    const issued = await Promise.all(ids.map((id) => invoicing.finalise(id)))
    const numbers = new Map(issued.map(({ invoice }) => [invoice.number, invoice]))
    const taken = await counters()
    const byCounter = await Promise.all(
      [taken[0]!, taken.at(-1)!].map((counter) => invoicing.get(`FA-2026-${String(counter).padStart(4, '0')}`)),
    )
    return {
      first: byCounter[0]!.invoice.number,
      last: byCounter[1]!.invoice.number,
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
      const left = creditable({ ttc: invoice.ttc, alreadyCredited: already_credited, amount })
      return { error: left.exceeds ? 'exceeds_creditable' : null, creditable: left.creditable }
    }
    const date = `${/\d{4}/.exec(invoice.number)?.[0]}-12-31`
    return {
      ...creditTotals(invoice),
      number: nextNumber(seedLegalEntity.creditNotePattern, null, date),
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
  collect_usage: ({ usage, period }) => {
    const window = monthNamed(period, 'UTC')
    const records = usage.map((record: Given) => ({
      at: record.at === undefined ? window.from : day(record.at),
      value: record.value,
      state: record.state,
      doNotInvoice: record.do_not_invoice ?? false,
    }))
    const collected = collectUsage(records, window)
    return {
      quantity: collected.quantity,
      state_after: collected.records[0]?.state,
      invoice: nextNumber('INV/{YYYY}/{MM}/{NNNN}', null, dateIn(window.from, 'UTC')),
    }
  },
  ingest: ({ events }) => {
    const metric = {
      key: 'units',
      version: 1,
      aggregation: 'sum' as const,
      unit: 'unit',
      scale: 0,
      dims: [],
      uniqueBy: null,
      archive: true,
    }
    const door = buildDoor({ version: 1, metrics: [metric], tenants: ['case'] }, 1)
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
      conflicts: of(ShardVerdict.conflict),
      total: rows.length === 1 ? printQuantity(rows[0]!.sum, ROLLUP_SCALE) : null,
    }
  },
  calculate_json: ({ json, formula }) => ({ amount: printMoney(calculate(formula, json), EUR) }),
  parse_json: ({ text }) => ({ error: codeOf(() => parseUsageData(text)) }),
  validate_usage: ({ value, json }) => ({ error: usageRecordFault({ value, json }) }),
  late_usage: ({ event_period, invoice_state, policy }) => {
    const period = monthNamed(event_period, 'UTC')
    const { to, line } = lateUsageGoes({ period, zone: 'UTC', invoiceState: invoice_state, policy })
    const ascii = (line ?? '').normalize('NFD').replace(/\p{M}/gu, '')
    if (to === 'draft') return { goes_to: `${event_period} draft invoice` }
    if (to === 'next_invoice') return { goes_to: `${month(period.to, 'UTC')} invoice, line "${ascii}"` }
    return { goes_to: to }
  },
  late_usage_rating: (given) => {
    const quantity = collectUsage(
      [given.billed_quantity, given.late_quantity].map((value: string) => ({
        at: 0,
        value,
        state: 'pending' as const,
      })),
      { from: 0, to: 1 },
    ).quantity
    return rateDelta({ price: tiered('tiered', given), billed: given.billed_quantity, quantity })
  },

  // Catalogue, subscriptions, trials, simulation.
  rate_with: ({ rule, version, status }) => ({ error: codeOf(() => assertBillable(rule, version, status)) }),
  edit_rule: ({ version }) => {
    const next = nextVersion(version)
    return { creates: next.version, status: next.status }
  },
  trial_status: ({ start, length_days, extension_days, grace_days, converted_on, today }) => {
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
  compare_plans: ({ usage }) => {
    const keys = ['starter', 'business', 'enterprise']
    const compared = comparePlans({
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
      usage,
      held: 'business',
      currency: EUR,
    })
    return { ...compared.totals, cheapest: compared.cheapest }
  },
  lint_catalog: ({ plan, card_overage_kyc, rule_tiers }) => ({
    warning: lintCard(plan, card_overage_kyc, tiered('tiered', { tiers: rule_tiers }))?.message,
  }),
  format: ({ value, currency, locale, style }) => {
    if (style === 'compact') return { text: formatCompact(value) }
    const language = locale.startsWith('fr') ? 'fr' : 'en'
    return {
      text: plain(currency === undefined ? formatDate(value, language) : formatMoney(value, currency, language)),
    }
  },
}

/** Ops whose name means something else in another area. */
const byArea: Readonly<Record<string, Adapter>> = {
  'usage convert': ({ value, from_unit, to_unit }) => ({ value: convertUnit(value, from_unit, to_unit) }),
  'payment convert': ({ amount, rate: price, to }) => ({
    amount: printMoney(convertMoney(parseDecimal(amount, 'amount'), parseDecimal(price, 'rate'), to), to),
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

/** A series that stands at a number, and drafts that wait. */
async function startSeries(world: World, start: string, count: number) {
  const { pool } = await world.postgres()
  serial += 1
  const seller = { ...seedLegalEntity, key: `case-${serial}` }
  const clock = new HandClock('2026-03-11T09:00:00Z')
  const invoicing = new Invoicing({ postgres: pool, clock })
  const failing = new Invoicing({
    postgres: pool,
    clock,
    crashPoint: () => {
      throw new Error('fail')
    },
  })
  await pool.query('DELETE FROM invoices WHERE state = $1', ['draft'])
  await pool.query('INSERT INTO number_series (legal_entity, series, last, last_date) VALUES ($1, $2, $3, $4)', [
    seller.key,
    'FA-2026-{NNNN}',
    Number(start.split('-')[2]),
    '2026-03-08',
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
  return { ids, invoicing, failing, counters }
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
