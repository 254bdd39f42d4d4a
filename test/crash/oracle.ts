/**
 * The oracle of the crash test: a program of its own that reads only the driver's file and says what must be true in the end. It
 * shares no code with the product: wire texts are read with JSON.parse, quantities are BigInts at nine decimals, and everything is
 * a plain list or Map, gone through from the first line to the last.
 *
 *   node oracle.js FILE > expected.json
 *
 * It also judges the driver (a batch judged twice must change nothing) and every answer that the driver got: counts, refusal
 * codes, and the verdicts of `?wait=applied`. What is not determined by the file is given as a range: how many duplicates,
 * conflicts and refusals were logged by requests that were sent again, and the alerts that may ring after a void of a max or latest
 * value, while the balance is read again from the archive.
 */
import { readFileSync } from 'node:fs'
import type { World, WorldMetric, WorldThreshold } from './world.js'

type Verdict = 'accepted' | 'duplicate' | 'conflict' | 'refused'

/** An accepted usage event. */
interface Kept {
  readonly tenant: string
  readonly source: string
  readonly id: string
  readonly metric: string
  readonly subject: string
  readonly dims: Readonly<Record<string, string>>
  readonly dimsText: string
  readonly member: string
  readonly time: number
  /** At nine decimals. */
  readonly value: bigint
  readonly content: string
  /** Rising in the order in which the tenant's events were judged. */
  readonly order: number
  voided: boolean
}

export interface Question {
  /** Of GET /v1/usage. */
  readonly query: string
  /** One figure for the whole range. */
  readonly isTotal: boolean
  readonly rows: readonly {
    readonly from: number
    readonly groups: Readonly<Record<string, string>>
    readonly value: string | null
    readonly count: string
  }[]
}

export interface ExpectedAlert {
  readonly type: 'alert.triggered' | 'alert.resolved'
  readonly tenant: string
  readonly item: string
  readonly metric: string
  readonly periodFrom: number
  readonly threshold: string
  /** Balance at the crossing; null when it is not determined. */
  readonly balance: string | null
  /** Must be there, or may be there; a resolved one must be when the triggered one is and the balance is below in the end. */
  readonly must: boolean
  readonly mustIfTriggered: boolean
}

export interface ExpectedInvoice {
  readonly contract: string
  readonly lines: readonly {
    readonly type: string
    readonly metric: string | null
    readonly quantity: string
    readonly amount: string
    readonly count: number | null
  }[]
  readonly statement: readonly { readonly metric: string; readonly quantity: string; readonly count: number }[]
  readonly notices: readonly {
    readonly metric: string | null
    readonly quantity: string | null
    readonly code: string
  }[]
  readonly ht: string
  readonly tva: string
  readonly ttc: string
}

export interface Expected {
  /** The whole file was there. */
  readonly ended: boolean
  /** What the driver or its answers got wrong. */
  readonly faults: readonly string[]
  readonly batches: number
  readonly events: number
  readonly retries: number
  readonly questions: readonly Question[]
  readonly quotas: readonly {
    readonly tenant: string
    readonly item: string
    readonly metric: string
    readonly usage: string
  }[]
  readonly alerts: readonly ExpectedAlert[]
  /** JSON text of [tenant, source, id, kind, metric, subject, dims, member, time, value], sorted. */
  readonly archive: readonly string[]
  readonly books: Readonly<
    Record<
      'received' | 'stored' | 'refused' | 'accepted' | 'duplicate' | 'conflict' | 'voids' | 'archived',
      readonly [min: number, max: number]
    >
  >
  readonly invoices: readonly ExpectedInvoice[]
}

const NINE = 10n ** 9n
const MINUTE = 60_000
const HOUR = 3_600_000
const DAY = 86_400_000

/** Decimal text, not checked: the driver writes plain decimals with or without trailing zeros. */
function scaled(text: string): bigint {
  const [, sign, whole, fraction = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text)!
  const digits = BigInt(whole! + fraction.slice(0, 9).padEnd(9, '0'))
  return sign === '-' ? -digits : digits
}

function decimal(value: bigint, places = 9): string {
  const negative = value < 0n
  const digits = (negative ? -value : value).toString().padStart(places + 1, '0')
  const fraction = digits.slice(digits.length - places).replace(/0+$/, '')
  return `${negative ? '-' : ''}${digits.slice(0, digits.length - places)}${fraction === '' ? '' : `.${fraction}`}`
}

/** Half away from zero. */
function divide(numerator: bigint, denominator: bigint): bigint {
  const negative = numerator < 0n
  const n = negative ? -numerator : numerator
  const rounded = (2n * n + denominator) / (2n * denominator)
  return negative ? -rounded : rounded
}

const head = (line: Record<string, unknown>): World => line.world as World
const lines = readFileSync(process.argv[2]!, 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => JSON.parse(line) as Record<string, unknown>)
const world = head(lines[0]!)
const metrics = new Map<string, WorldMetric>(world.metrics.map((m) => [m.key, m]))
const tenants = new Set(world.customers.map((c) => c.tenant))

const faults: string[] = []
const kept: Kept[] = []
const byIdentity = new Map<string, Kept>()
const voids: Kept[] = []
const first = { received: 0, refused: 0, accepted: 0, duplicate: 0, conflict: 0, voids: 0, archived: 0 }
const REDELIVERIES_MAX = 10
const again = { received: 0, refused: 0, duplicate: 0, conflict: 0 }

// ---- What the door says ----------------------------------------------------------------------------------------------------

type Judged = { readonly code: string } | { readonly event: Omit<Kept, 'order' | 'voided'>; readonly isVoid: boolean }

/** The faults that the driver makes, and no others. */
function read(text: string, isCloud: boolean, keyTenant: string | null): Judged {
  const wire = JSON.parse(text) as Record<string, unknown>
  if (typeof wire !== 'object') return { code: 'malformed' }
  const data = (isCloud ? wire.data : wire.dims) as Record<string, string> | undefined
  const tenant = (wire.tenant ?? keyTenant) as string
  if (keyTenant !== null && tenant !== keyTenant) return { code: 'forbidden_tenant' }
  if (!tenants.has(tenant)) return { code: 'unknown_tenant' }
  if (wire.id === undefined) return { code: 'missing_field' }
  const metric = metrics.get((isCloud ? wire.type : wire.metric) as string)
  if (metric === undefined) return { code: 'unknown_metric' }
  const kind = wire.kind ?? 'usage'
  if (kind !== 'usage' && kind !== 'void') return { code: 'malformed' }
  if (kind === 'void' && !metric.archive) return { code: 'void_unavailable' }
  const time = typeof wire.time === 'number' ? wire.time : Date.parse(wire.time as string)
  if (time < world.now - 50 * DAY) return { code: 'too_old' }
  if (time > world.now + 3 * DAY) return { code: 'too_far_ahead' }
  const text9 = (isCloud ? data?.value : wire.value) as string | undefined
  const countsValue = metric.aggregation !== 'count' && metric.aggregation !== 'unique'
  if (text9 !== undefined && !/^-?\d+(\.\d+)?$/.test(text9)) return { code: 'value_not_a_number' }
  if (text9 !== undefined && countsValue && (text9.split('.')[1] ?? '').replace(/0+$/, '').length > metric.scale)
    return { code: 'value_too_precise' }
  const value = text9 === undefined || !countsValue ? NINE : scaled(text9)
  const dims = Object.fromEntries(
    metric.dims.flatMap((name) => (data?.[name] === undefined ? [] : [[name, data[name]]])),
  ) as Record<string, string>
  const dimsText = `{${Object.keys(dims)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${JSON.stringify(dims[name])}`)
    .join(',')}}`
  const subject = (wire.subject ?? '') as string
  const member = metric.uniqueBy === null ? '' : metric.uniqueBy === 'subject' ? subject : data![metric.uniqueBy]!
  const content = JSON.stringify([metric.key, subject, dimsText, time, value.toString(), member])
  return {
    event: {
      tenant,
      source: (wire.source ?? '') as string,
      id: wire.id as string,
      metric: metric.key,
      subject,
      dims,
      dimsText,
      member,
      time,
      value,
      content,
    },
    isVoid: kind === 'void',
  }
}

/** What the shard says; `commit` false asks what it would say. */
function judge(judged: Judged, commit: boolean): Verdict {
  if ('code' in judged) return 'refused'
  const { event, isVoid } = judged
  const identity = JSON.stringify([event.tenant, event.source, event.id])
  const known = byIdentity.get(identity)
  if (isVoid) {
    if (known === undefined || known.content !== event.content) return 'conflict'
    if (known.voided) return 'duplicate'
    if (commit) {
      known.voided = true
      voids.push(known)
      watch(known, true)
    }
    return 'accepted'
  }
  if (known !== undefined) return known.content === event.content ? 'duplicate' : 'conflict'
  if (commit) {
    const added: Kept = { ...event, order: kept.length, voided: false }
    kept.push(added)
    byIdentity.set(identity, added)
    watch(added, false)
  }
  return 'accepted'
}

// ---- Balances and alerts ---------------------------------------------------------------------------------------------------

interface Balance {
  readonly tenant: string
  readonly item: string
  readonly metric: WorldMetric
  readonly periodFrom: number
  readonly levels: readonly { readonly code: string; readonly level: bigint; state: 'quiet' | 'rung' | 'resolved' }[]
  readonly events: Kept[]
  sum: bigint
  count: number
  readonly members: Map<string, number>
  /** Until a void of max, min or latest, every crossing is determined. */
  exact: boolean
}

const balances = new Map<string, Balance>()
const alerts = new Map<string, ExpectedAlert>()

/** Start of the local month that holds `time`, epoch ms; `plus` months later. */
function monthStart(time: number, zone: string, plus = 0): number {
  const offset = world.zoneMinutes[zone]! * MINUTE
  const local = new Date(time + offset)
  return Date.UTC(local.getUTCFullYear(), local.getUTCMonth() + plus, 1) - offset
}

/** At nine decimals times 100 × 10^9, so that percentages are whole. */
function levelOf(threshold: WorldThreshold, limit: string | null): bigint | null {
  if (threshold.kind === 'absolute') return scaled(threshold.value) * 100n * NINE
  return limit === null ? null : scaled(limit) * scaled(threshold.value)
}

function watch(event: Kept, isVoid: boolean): void {
  const metric = metrics.get(event.metric)!
  for (const contract of world.contracts) {
    if (contract.tenant !== event.tenant) continue
    const periodFrom = monthStart(event.time, contract.timeZone)
    for (const item of contract.items) {
      const entitlement = item.entitlements.find((e) => e.metric === event.metric)
      if (entitlement === undefined) continue
      const key = JSON.stringify([item.id, event.metric, periodFrom])
      let balance = balances.get(key)
      if (balance === undefined) {
        const levels = entitlement.thresholds.flatMap((threshold) => {
          const level = levelOf(threshold, entitlement.limit)
          return level === null ? [] : [{ code: threshold.code, level, state: 'quiet' as const }]
        })
        balance = {
          tenant: event.tenant,
          item: item.id,
          metric,
          periodFrom,
          levels,
          events: [],
          sum: 0n,
          count: 0,
          members: new Map(),
          exact: true,
        }
        balances.set(key, balance)
      }
      count(balance, event, isVoid)
      ring(balance)
    }
  }
}

function count(balance: Balance, event: Kept, isVoid: boolean): void {
  const sign = isVoid ? -1 : 1
  balance.sum += isVoid ? -event.value : event.value
  balance.count += sign
  if (balance.metric.uniqueBy !== null)
    balance.members.set(event.member, (balance.members.get(event.member) ?? 0) + sign)
  if (!isVoid) balance.events.push(event)
  else if (['max', 'min', 'latest'].includes(balance.metric.aggregation)) balance.exact = false
}

/** Usage as a fraction; null when nothing is counted. */
function usageOf(
  aggregation: WorldMetric['aggregation'],
  figures: { sum: bigint; count: number; present: number; samples: readonly Kept[] },
): readonly [bigint, bigint] | null {
  switch (aggregation) {
    case 'sum':
      return figures.count === 0 ? null : [figures.sum, 1n]
    case 'count':
      return figures.count === 0 ? null : [BigInt(figures.count) * NINE, 1n]
    case 'unique':
      return figures.present === 0 ? null : [BigInt(figures.present) * NINE, 1n]
    case 'average':
      return figures.count === 0 ? null : [figures.sum, BigInt(figures.count)]
    default: {
      const best = extreme(aggregation, figures.samples)
      return best === null ? null : [best.value, 1n]
    }
  }
}

function extreme(aggregation: 'max' | 'min' | 'latest', samples: readonly Kept[]): Kept | null {
  let best: Kept | null = null
  for (const one of samples) {
    if (one.voided) continue
    if (best === null) best = one
    else if (
      aggregation === 'max'
        ? one.value > best.value
        : aggregation === 'min'
          ? one.value < best.value
          : one.time > best.time || (one.time === best.time && one.order > best.order)
    )
      best = one
  }
  return best
}

function usageNow(balance: Balance): readonly [bigint, bigint] | null {
  const present = [...balance.members.values()].filter((n) => n > 0).length
  return usageOf(balance.metric.aggregation, {
    sum: balance.sum,
    count: balance.count,
    present,
    samples: balance.events,
  })
}

function isReached(balance: Balance, level: bigint, usage = usageNow(balance)): boolean {
  return usage !== null && usage[0] * 100n * NINE >= level * usage[1]
}

function ring(balance: Balance): void {
  const usage = usageNow(balance)
  for (const level of balance.levels) {
    const reached = isReached(balance, level.level, usage)
    const text = usage === null ? '0' : decimal(divide(usage[0], usage[1]))
    if (reached && level.state === 'quiet') {
      level.state = 'rung'
      expectAlert('alert.triggered', balance, level.code, text)
    } else if (!reached && level.state === 'rung') {
      level.state = 'resolved'
      expectAlert('alert.resolved', balance, level.code, text)
    }
  }
}

function expectAlert(type: ExpectedAlert['type'], balance: Balance, threshold: string, text: string): void {
  const { tenant, item, metric, periodFrom, exact } = balance
  alerts.set(JSON.stringify([type, item, metric.key, periodFrom, threshold]), {
    type,
    tenant,
    item,
    metric: metric.key,
    periodFrom,
    threshold,
    balance: exact ? text : null,
    must: exact,
    mustIfTriggered: false,
  })
}

// ---- Figures ---------------------------------------------------------------------------------------------------------------

interface Group {
  readonly from: number
  readonly groups: Record<string, string>
  sum: bigint
  count: number
  readonly events: Kept[]
}

/** Every group that an accepted event ever touched, also when voids took all of it away. */
function figures(events: readonly Kept[], bucketOf: (time: number) => number, groupBy: readonly string[]): Group[] {
  const groups = new Map<string, Group>()
  for (const event of events) {
    const names = Object.fromEntries(
      groupBy.map((name) => [name, name === 'subject' ? event.subject : (event.dims[name] ?? '')]),
    )
    const from = bucketOf(event.time)
    const key = JSON.stringify([from, names])
    let group = groups.get(key)
    if (group === undefined) {
      group = { from, groups: names, sum: 0n, count: 0, events: [] }
      groups.set(key, group)
    }
    group.events.push(event)
    if (event.voided) continue
    group.sum += event.value
    group.count += 1
  }
  return [...groups.values()]
}

function figureOf(
  aggregation: WorldMetric['aggregation'],
  group: { sum: bigint; count: number; events: readonly Kept[] },
): string | null {
  const present = new Set(group.events.filter((e) => !e.voided).map((e) => e.member)).size
  const usage = usageOf(aggregation, { sum: group.sum, count: group.count, present, samples: group.events })
  if (usage !== null) return decimal(divide(usage[0], usage[1]))
  return aggregation === 'sum' || aggregation === 'count' || aggregation === 'unique' ? '0' : null
}

function* questions(): Generator<Question> {
  // Whole UTC hours, and half hours for the zone that needs them.
  const from = Math.floor(world.now / DAY) * DAY - 40 * DAY
  const to = from + 45 * DAY
  const aheadMinutes = world.zoneMinutes['Asia/Kolkata']! * MINUTE
  for (const [i, tenant] of [...tenants].entries()) {
    for (const [j, metric] of world.metrics.entries()) {
      const mine = kept.filter((e) => e.tenant === tenant && e.metric === metric.key && e.time >= from && e.time < to)
      const ask = (
        query: string,
        bucketOf: (time: number) => number,
        groupBy: readonly string[],
        events = mine,
        range: readonly [number, number] = [from, to],
      ): Question => {
        const params = new URLSearchParams({ tenant, metric: metric.key, from: String(range[0]), to: String(range[1]) })
        if (groupBy.length > 0) params.set('group_by', groupBy.join(','))
        const rows = figures(events, bucketOf, groupBy).map((group) => ({
          from: group.from,
          groups: group.groups,
          value: figureOf(metric.aggregation, group),
          count: String(group.count),
        }))
        return { query: `${params}${query}`, isTotal: query === '' && groupBy.length === 0, rows }
      }
      const all = ['subject', ...metric.dims]
      const unique = metric.aggregation === 'unique'
      yield ask('', () => from, [])
      yield ask('', () => from, all)
      // Of the windows each metric of each tenant asks two, in turn.
      const subject = 'device-3'
      const dayInKolkata = (time: number): number =>
        Math.max(from, Math.floor((time + aheadMinutes) / DAY) * DAY - aheadMinutes)
      const month = (time: number): number => Math.max(from, monthStart(time, 'Africa/Abidjan'))
      // Three days by the minute: today, and the days in which the driver is densest.
      const dense = [Math.floor(world.now / DAY) * DAY - 2 * DAY, Math.floor(world.now / DAY) * DAY + DAY] as const
      const minute = (time: number): number => Math.floor(time / MINUTE) * MINUTE
      const windows = [
        () => ask('&window=hour', (time) => Math.floor(time / HOUR) * HOUR, []),
        () => ask('&window=day&tz=Asia%2FKolkata', dayInKolkata, metric.dims),
        // Unique counts are not kept by the minute.
        () =>
          unique
            ? ask('&window=hour', (time) => Math.floor(time / HOUR) * HOUR, metric.dims)
            : ask(
                '&window=minute',
                minute,
                all,
                mine.filter((e) => e.time >= dense[0] && e.time < dense[1]),
                dense,
              ),
        () =>
          ask(
            `&window=month&subject=${subject}`,
            month,
            [],
            mine.filter((e) => e.subject === subject),
          ),
      ]
      const turn = i + j
      yield windows[turn % 2]!()
      yield windows[2 + (Math.floor(turn / 2) % 2)]!()
    }
  }
}

// ---- Invoices --------------------------------------------------------------------------------------------------------------

/** An amount in euros as a fraction of 10^-18 units, to cents, half up. */
function cents(amount: bigint): bigint {
  return divide(amount, 10n ** 16n)
}

const money = (value: bigint): string =>
  `${value < 0n ? '-' : ''}${(value < 0n ? -value : value) / 100n}.${String((value < 0n ? -value : value) % 100n).padStart(2, '0')}`

const larger = (a: bigint, b: bigint): bigint => [a, b].reduce((x, y) => (y > x ? y : x))

/** Quantity and prices at nine decimals each; the product has eighteen. Null: nothing is due. */
function price(ruleId: string, quantity: bigint, included: bigint): bigint | null {
  const rule = world.rules.find((r) => r.rule_id === ruleId)!
  if (rule.type === 'per_unit') {
    return quantity > included ? (quantity - included) * scaled(rule.unit_price!) : null
  }
  // Inclusive unit numbers: 101 to 1000 is everything behind 100 up to 1000.
  const tiers = rule.tiers!.map((t) => ({
    after: BigInt(t.from - 1) * NINE,
    upTo: t.to === null ? null : BigInt(t.to) * NINE,
    unit: scaled(t.unit_price),
  }))
  const free = larger(included, tiers[0]!.after)
  if (quantity <= free) return null
  if (rule.type === 'volume') {
    const tier = tiers.find((t) => t.upTo === null || quantity <= t.upTo)!
    return (quantity - free) * tier.unit
  }
  return tiers.reduce((sum, tier) => {
    const lower = larger(tier.after, free)
    const upper = tier.upTo === null || quantity < tier.upTo ? quantity : tier.upTo
    return upper > lower ? sum + (upper - lower) * tier.unit : sum
  }, 0n)
}

function invoice(contractId: string): ExpectedInvoice {
  const contract = world.contracts.find((c) => c.id === contractId)!
  const from = monthStart(world.now, contract.timeZone, -1)
  const to = monthStart(world.now, contract.timeZone)
  const out = {
    lines: [] as ExpectedInvoice['lines'][number][],
    statement: [] as ExpectedInvoice['statement'][number][],
    notices: [] as ExpectedInvoice['notices'][number][],
  }
  let ht = 0n
  for (const item of contract.items) {
    const plan = world.plans.find((p) => p.key === item.plan)!
    const fee = scaled(world.rules.find((r) => r.rule_id === plan.feeRule)!.amount!) * NINE
    ht += cents(fee)
    out.lines.push({ type: 'fee', metric: null, quantity: '1', amount: money(cents(fee)), count: null })
    for (const entitlement of item.entitlements) {
      const metric = metrics.get(entitlement.metric)!
      const mine = kept.filter(
        (e) => e.tenant === contract.tenant && e.metric === metric.key && e.time >= from && e.time < to,
      )
      const group = figures(mine, () => from, [])[0] ?? { sum: 0n, count: 0, events: [] }
      const quantity = figureOf(metric.aggregation, group) ?? '0'
      // Every archived event stands behind it, usage and voids.
      const events = metric.archive ? mine.length + mine.filter((e) => e.voided).length : 0
      out.statement.push({ metric: metric.key, quantity, count: events })
      const billed = scaled(quantity) < 0n ? 0n : scaled(quantity)
      if (scaled(quantity) < 0n) out.notices.push({ code: 'usage_negative', metric: metric.key, quantity })
      const rule = plan.metrics.find((m) => m.metric === metric.key)?.rule ?? null
      if (entitlement.limit === null) continue
      const included = scaled(entitlement.limit)
      if (rule === null) {
        if (billed > included)
          out.notices.push({ code: 'overage_unpriced', metric: metric.key, quantity: decimal(billed - included) })
        continue
      }
      const exact = price(rule, billed, included)
      if (exact === null) continue
      ht += cents(exact)
      out.lines.push({
        type: 'usage',
        metric: metric.key,
        quantity: decimal(billed),
        amount: money(cents(exact)),
        count: events,
      })
    }
  }
  const tva = divide(ht * scaled(world.taxRate), 100n * NINE)
  return { contract: contractId, ...out, ht: money(ht), tva: money(tva), ttc: money(ht + tva) }
}

// ---- The file, from the first line to the last -------------------------------------------------------------------------------

interface Open {
  readonly verdicts: readonly Verdict[]
  readonly repeated: readonly Verdict[]
  readonly judged: readonly Judged[]
  readonly wait: boolean
}

const open = new Map<string, Open>()
const invoices: ExpectedInvoice[] = []
let ended = false
let batches = 0
let retries = 0

function checkAnswer(name: string, batch: Open, line: Record<string, unknown>): void {
  const answer = line.answer as {
    received: number
    stored: number
    refused: number
    refusals: { index: number; code: string }[]
    applied?: { verdicts: string[] }
  }
  const refused = batch.judged.flatMap((j, index) => ('code' in j ? [{ index, code: j.code }] : []))
  const told = answer.refusals.map(({ index, code }) => ({ index, code }))
  if (
    answer.received !== batch.judged.length ||
    answer.refused !== refused.length ||
    answer.stored !== batch.judged.length - refused.length
  ) {
    faults.push(
      `${name}: answered ${answer.received}/${answer.stored}/${answer.refused}, expected ${batch.judged.length} with ${refused.length} refused`,
    )
  }
  if (JSON.stringify(told) !== JSON.stringify(refused.slice(0, 100)))
    faults.push(`${name}: refusals ${JSON.stringify(told)}, expected ${JSON.stringify(refused)}`)
  if (!batch.wait) return
  const verdicts = answer.applied?.verdicts
  if (verdicts === undefined) {
    faults.push(`${name}: no verdicts`)
    return
  }
  for (const [i, verdict] of batch.verdicts.entries()) {
    // A batch that was sent again may have been judged before, event by event.
    const allowed = Number(line.tries) === 1 ? [verdict] : [verdict, batch.repeated[i]!]
    if (!allowed.includes(verdicts[i] as Verdict))
      faults.push(`${name} event ${i}: ${verdicts[i]}, expected ${allowed.join(' or ')}`)
  }
}

for (const line of lines) {
  const name = `batch ${line.c}/${line.n}`
  switch (line.type) {
    case 'send': {
      const texts = line.events as string[]
      const judged = texts.map((text) => read(text, line.format !== 'json', line.key as string | null))
      const verdicts = judged.map((one) => judge(one, true))
      const repeated = judged.map((one) => judge(one, false))
      if (repeated.includes('accepted'))
        faults.push(`${name}: the driver made a batch that counts more when it is judged twice`)
      for (const [i, verdict] of verdicts.entries()) {
        first.received += 1
        first[verdict] += 1
        const one = judged[i]!
        if (verdict !== 'accepted' || 'code' in one) continue
        if (one.isVoid) first.voids += 1
        if (metrics.get(one.event.metric)!.archive) first.archived += 1
      }
      batches += 1
      open.set(name, { verdicts, repeated, judged, wait: line.wait as boolean })
      break
    }
    case 'ack': {
      const batch = open.get(name)!
      open.delete(name)
      retries += Number(line.tries) - 1
      // A stream may deliver a message again after its server was killed.
      const more = Number(line.tries) - 1 + (line.answer === null ? REDELIVERIES_MAX : 0)
      again.received += more * batch.judged.length
      for (const verdict of batch.repeated) if (verdict !== 'accepted') again[verdict] += more
      // Without verdicts it came through the stream.
      if (line.answer !== null) checkAnswer(name, batch, line)
      break
    }
    case 'close':
      invoices.push(invoice(line.contract as string))
      break
    case 'closed':
      retries += Number(line.tries) - 1
      break
    case 'end':
      ended = true
      break
  }
}
for (const name of open.keys()) faults.push(`${name} was never acknowledged`)

// What is reached in the end must have rung, and what rang and is below must be resolved, however the balance got there.
for (const balance of balances.values()) {
  for (const level of balance.levels) {
    const key = JSON.stringify(['alert.triggered', balance.item, balance.metric.key, balance.periodFrom, level.code])
    const alert = alerts.get(key)
    if (level.state === 'rung' && alert !== undefined && !alert.must) alerts.set(key, { ...alert, must: true })
    const resolvedKey = JSON.stringify([
      'alert.resolved',
      balance.item,
      balance.metric.key,
      balance.periodFrom,
      level.code,
    ])
    const resolved = alerts.get(resolvedKey)
    if (resolved !== undefined && !isReached(balance, level.level))
      alerts.set(resolvedKey, { ...resolved, mustIfTriggered: true })
  }
}

const quotas: Expected['quotas'][number][] = []
for (const contract of world.contracts) {
  const from = monthStart(world.now, contract.timeZone)
  const to = monthStart(world.now, contract.timeZone, 1)
  for (const item of contract.items) {
    for (const { metric: key } of item.entitlements) {
      const mine = kept.filter((e) => e.tenant === contract.tenant && e.metric === key && e.time >= from && e.time < to)
      const group = figures(mine, () => from, [])[0] ?? { sum: 0n, count: 0, events: [] }
      quotas.push({
        tenant: contract.tenant,
        item: item.id,
        metric: key,
        usage: figureOf(metrics.get(key)!.aggregation, group) ?? '0',
      })
    }
  }
}

const archive = [...kept.map((e) => ({ e, kind: 1 })), ...voids.map((e) => ({ e, kind: -1 }))]
  .filter(({ e }) => metrics.get(e.metric)!.archive)
  .map(({ e, kind }) =>
    JSON.stringify([
      e.tenant,
      e.source,
      e.id,
      kind,
      e.metric,
      e.subject,
      e.dimsText,
      e.member,
      e.time,
      decimal(e.value),
    ]),
  )
  .sort()

const range = (from: number, more: number): readonly [number, number] => [from, from + more]
const expected: Expected = {
  ended,
  faults,
  batches,
  events: first.received,
  retries,
  questions: [...questions()],
  quotas,
  alerts: [...alerts.values()],
  archive,
  books: {
    received: range(first.received, again.received),
    refused: range(first.refused, again.refused),
    stored: range(first.received - first.refused, again.received - again.refused),
    accepted: range(first.accepted, 0),
    duplicate: range(first.duplicate, again.duplicate),
    conflict: range(first.conflict, again.conflict),
    voids: range(first.voids, 0),
    archived: range(first.archived, 0),
  },
  invoices,
}
process.stdout.write(JSON.stringify(expected))
