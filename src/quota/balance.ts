/**
 * Balances: the live usage of every contract item of one stream, for the current period and for every period that an event may
 * still enter. Runs inside the shard's thread behind dedupe; pure: no clock, no I/O. Crossings of thresholds are returned to
 * the caller, who records them once (the store's unique key) and delivers them.
 *
 * A balance is keyed by (item, metric, start of the period) and has three states:
 *   pending  the usage of earlier epochs is not known yet. Figures are a delta since `epoch`. Left by `setBase`.
 *   live     figures are the whole usage of the period up to the last frame; thresholds are watched.
 *   stale    figures are not known here: the caller answers from ClickHouse and tells `observe` what it found.
 *            After a void of max, min or latest: asked for again at the next barrier, which makes it pending.
 *            With more members than fit the bound: for the rest of the period.
 * A period that begins after everything that could have come so far starts live at zero.
 *
 * A threshold rings once in a period and limit version (`rung`), may fall silent once (`resolved`), and does not ring again.
 * After a restart the marks are made again from base, replay and unresolved alerts, so the same crossing may be returned twice.
 */

import type { MemberHash } from '../aggregate/aggregate.js'
import { powerOfTen, printQuantity, ROLLUP_SCALE } from '../amount.js'
import { assert } from '../assert.js'
import type { Aggregation } from '../catalog/metric.js'
import { positionOf } from '../event.js'
import { type Frame, KIND_VOID } from '../frame.js'
import { ShardVerdict } from '../ingest/verdict.js'
import { limits } from '../limits.js'
import { billingPeriodOf, type Cycle, contains, type Period } from '../period.js'
import type { Entitlement } from './entitlement.js'
import { type BalanceBase, Figures } from './figures.js'
import { type Level, levelAt, levelsOf, parseFigure } from './level.js'

/** A contract item gives several metrics; together they name one quota. */
export type ItemMetric = Pick<Entitlement, 'item' | 'metric'>

const keyOf = ({ item, metric }: ItemMetric): string => `${item.length}:${item}${metric}`

/** An entitlement with the aggregation of its metric, which the catalogue knows. */
export interface LiveEntitlement extends Entitlement {
  readonly aggregation: Aggregation
}

/** A point between two epochs: `epoch` is open and empty, everything up to `sequence` lies before it. */
export interface Barrier {
  readonly epoch: number
  /** receivedAt of the last record before; never falls. */
  readonly receivedAt: number
  readonly sequence: number
}

/** Up to where a balance counts. */
export interface AsOf {
  readonly receivedAt: number
  readonly sequence: number
  readonly epoch: number
}

/** A threshold that rang and has not been resolved, as the alerts know it. */
export interface RungThreshold {
  readonly threshold: string
  readonly limitVersion: number
}

/** A balance that waits for its usage in epochs below `epoch`. */
export interface NeededBase {
  readonly item: string
  readonly tenant: string
  readonly metric: string
  readonly aggregation: Aggregation
  readonly period: Period
  readonly epoch: number
}

export type AlertKind = 'threshold' | 'recurring' | 'forecast' | 'silence'

export interface Crossing {
  readonly type: 'alert.triggered' | 'alert.resolved'
  readonly kind: AlertKind
  /** The alert rule behind it; null: a threshold of the contract item. */
  readonly rule: string | null
  /** Of a silence: whose, null for the metric as a whole. */
  readonly subject: string | null
  /** Of a forecast: usage at the period's end, decimal text. */
  readonly forecast: string | null
  readonly item: string
  readonly contract: string
  readonly tenant: string
  readonly product: string
  readonly metric: string
  readonly period: Period
  /** Code of the threshold. */
  readonly threshold: string
  readonly limitVersion: number
  readonly limit: string | null
  /** Usage at the crossing, decimal text. */
  readonly balance: string
  /** The record that crossed; when a base or new limits showed it, the last record before. */
  readonly sequence: number
  /** Position and time of the event that crossed; null when a base, an observation or new limits showed it. */
  readonly position: number | null
  readonly eventTime: number | null
  readonly receivedAt: number
}

export type BalanceState = 'pending' | 'live' | 'stale'

export interface BalanceView {
  readonly entitlement: LiveEntitlement
  readonly period: Period
  /** Decimal text; null when it is not known here. Of a stale balance: what was observed last. */
  readonly usage: string | null
  readonly state: BalanceState
  readonly asOf: AsOf
  /** Members counted, for unique metrics; 0 for others. */
  readonly members: number
}

/** Usage of one quota, for who grants or refuses by it. */
export interface GuardedUsage {
  readonly tenant: string
  readonly item: string
  readonly metric: string
  readonly periodFrom: number
  /** At ROLLUP_SCALE; null when it is not known here at present. */
  readonly usage: bigint | null
}

export interface BalanceOptions {
  readonly memberHash: MemberHash
  readonly membersMax?: number
  readonly balancesMax?: number
  readonly lateMs?: number
  readonly aheadMs?: number
  /** Counts every event by itself, also where a total of the frame would do: the oracle of the totals. @default false */
  readonly oneByOne?: boolean
}

export interface Balances {
  /**
   * The entitlements of this stream's tenants from now on; items that are not in the list lose their balances. A new
   * limitVersion keeps the figures and watches the new thresholds. Also does what `barrier` does.
   */
  setEntitlements(list: readonly LiveEntitlement[], at: Barrier): { needed: NeededBase[]; crossings: Crossing[] }
  /** Called whenever an epoch opens: opens and drops periods, and asks again for balances that a void made stale. */
  barrier(at: Barrier): { needed: NeededBase[] }
  /**
   * The answer to a NeededBase. One that nobody waits for any more is ignored. `rung` are the balance's unresolved alerts: what a
   * process that died had still to resolve, this one does.
   */
  setBase(
    need: Pick<NeededBase, 'item' | 'metric' | 'period' | 'epoch'>,
    base: BalanceBase,
    rung?: readonly RungThreshold[],
  ): Crossing[]
  /** Usage of a stale balance as ClickHouse answers it, decimal text, so that its thresholds ring too. Ignored in other states. */
  observe(of: ItemMetric, periodFrom: number, usage: string, asOf: AsOf): Crossing[]
  /** Adds the accepted events of the frame with this log sequence. Crossings in the order of the events. */
  apply(frame: Frame, sequence: number, verdicts: Uint8Array): Crossing[]
  /**
   * What will cross before its period ends, and what no longer will: usage so far, as if it went on evenly through the period.
   * Called on a clock; `now` is that clock's.
   */
  forecast(now: number): Crossing[]
  /** From now on `guarded` tells this tenant's usage; opens the balance of `now`. Up to limits.guardedTenantsMax, then the oldest goes. */
  guard(tenant: string, now: number): GuardedUsage[]
  readonly isGuarding: boolean
  /** Usage of a guarded tenant's live balances. */
  guarded(tenant: string): GuardedUsage[]
  /** Items in the order of setEntitlements, periods rising. */
  read(tenant: string): BalanceView[]
  readonly membersHeld: number
  readonly balancesHeld: number
  /** Times that a balance was not opened because balancesMax was reached; the quota is then answered from ClickHouse. */
  readonly balancesRefused: number
}

export function openBalances(options: BalanceOptions): Balances {
  return new StreamBalances(options)
}

const Mark = { quiet: 0, rung: 1, resolved: 2 } as const

interface Balance {
  readonly item: Item
  readonly period: Period
  state: BalanceState
  /** The delta of a pending balance begins here. */
  epoch: number
  figures: Figures
  /** A Mark per level. */
  marks: Uint8Array
  /** Levels below this index are reached. */
  next: number
  /** Steps told, per recurring rule. */
  steps: bigint[]
  /** The lowest step that was not told. */
  nextStep: Level | undefined
  /** A Mark per forecast. */
  forecastMarks: Uint8Array
  observed: { usage: bigint; asOf: AsOf } | undefined
  /** What the frame with this number adds, in a metric's own scale: usages, their positive and their negative values. */
  frame: number
  metric: number
  usages: number
  up: number
  down: number
}

/** Values beyond ±2^39 are counted one by one: 10,000 smaller ones have an exact sum in a double. */
const TOTAL_HIGH_MAX = 128
assert(limits.batchEventsMax * 2 ** 39 < Number.MAX_SAFE_INTEGER, 'the total of a frame must be exact')

interface Item {
  entitlement: LiveEntitlement
  levels: Level[]
  forecasts: Level[]
  /** Rising periods; two or three. */
  readonly balances: Balance[]
  /** A period that begins later has no event of an earlier epoch. */
  horizon: number
}

interface TenantItems {
  readonly all: Item[]
  readonly byMetric: Map<string, Item[]>
}

/** What showed a crossing. */
interface Cause {
  readonly sequence: number
  readonly position: number | null
  readonly eventTime: number | null
  readonly receivedAt: number
}

/** Aggregations whose figure is a total: the order of events does not matter to it. */
function hasTotal({ figures: { aggregation } }: Balance): boolean {
  return aggregation === 'sum' || aggregation === 'count'
}

class StreamBalances implements Balances {
  readonly #memberHash: MemberHash
  readonly #membersMax: number
  readonly #balancesMax: number
  readonly #lateMs: number
  readonly #aheadMs: number
  readonly #oneByOne: boolean
  /** Frames so far, to know which totals are of this one. */
  #frame = 0
  /** The last frame has events for balances without a total. */
  #hasOthers = false
  #items = new Map<string, Item>()
  #tenants = new Map<string, TenantItems>()
  /** Periods by anchor and zone, only within one barrier: many items share them, and the zone's arithmetic is slow. */
  #periods = new Map<string, Period[]>()
  /** receivedAt from which a barrier opens or drops a period: between, a barrier does not look at every item. */
  #periodsChangeAt = Number.NEGATIVE_INFINITY
  #refusedAtChange = 0
  /** Made stale by a void since the last barrier. */
  #voided = new Set<Balance>()
  /** Tenants whose usage is asked for after each frame, the oldest first. */
  readonly #guarded = new Set<string>()
  #asOf: AsOf = { receivedAt: 0, sequence: 0, epoch: 0 }
  membersHeld = 0
  balancesHeld = 0
  balancesRefused = 0

  constructor(options: BalanceOptions) {
    this.#memberHash = options.memberHash
    this.#membersMax = options.membersMax ?? limits.liveMembersMax
    this.#balancesMax = options.balancesMax ?? limits.liveBalancesMax
    this.#lateMs = options.lateMs ?? limits.lateMs
    this.#aheadMs = options.aheadMs ?? limits.aheadMs
    this.#oneByOne = options.oneByOne ?? false
  }

  setEntitlements(list: readonly LiveEntitlement[], at: Barrier): { needed: NeededBase[]; crossings: Crossing[] } {
    const before = this.#items
    this.#items = new Map()
    this.#tenants = new Map()
    this.#asOf = { ...at }
    const crossings: Crossing[] = []
    for (const entitlement of list) {
      const key = keyOf(entitlement)
      assert(!this.#items.has(key), `item ${entitlement.item} is listed twice with ${entitlement.metric}`)
      let item = before.get(key)
      if (item !== undefined && countsTheSame(item.entitlement, entitlement)) {
        before.delete(key)
        this.#changeLimit(item, entitlement, crossings)
      } else {
        item = {
          entitlement,
          levels: levelsOf(entitlement),
          forecasts: forecastsOf(entitlement),
          balances: [],
          horizon: Number.NEGATIVE_INFINITY,
        }
      }
      this.#items.set(key, item)
      this.#list(item)
    }
    for (const item of before.values()) for (const balance of item.balances) this.#drop(balance)
    this.#periodsChangeAt = Number.NEGATIVE_INFINITY
    return { ...this.barrier(at), crossings }
  }

  barrier(at: Barrier): { needed: NeededBase[] } {
    this.#asOf = { ...at }
    const needed: NeededBase[] = []
    for (const balance of this.#voided) {
      this.#empty(balance)
      balance.state = 'pending'
      balance.observed = undefined
      balance.epoch = at.epoch
      needed.push(neededBase(balance))
    }
    this.#voided.clear()
    if (at.receivedAt >= this.#periodsChangeAt || this.#isRoomAgain()) this.#changePeriods(at, needed)
    return { needed }
  }

  setBase(
    need: Pick<NeededBase, 'item' | 'metric' | 'period' | 'epoch'>,
    base: BalanceBase,
    rung: readonly RungThreshold[] = [],
  ): Crossing[] {
    const balance = this.#find(need, need.period.from)
    if (balance === undefined || balance.state !== 'pending' || balance.epoch !== need.epoch) return []
    const { figures } = balance
    if (figures.aggregation === 'unique') {
      // Checked before the merge, so that the bound holds at every moment; members on both sides count twice here.
      const more = base.members?.counts.length
      if (more === undefined || this.membersHeld + more > this.#membersMax) {
        this.#giveUp(balance)
        return []
      }
    }
    const heldBefore = figures.membersHeld
    figures.addBase(base)
    this.membersHeld += figures.membersHeld - heldBefore
    balance.state = 'live'
    for (const { threshold, limitVersion } of rung)
      if (limitVersion === balance.item.entitlement.limitVersion) this.#markRung(balance, threshold)
    const crossings: Crossing[] = []
    this.#evaluate(balance, this.#noEvent(), crossings)
    return crossings
  }

  observe(of: ItemMetric, periodFrom: number, usage: string, asOf: AsOf): Crossing[] {
    const balance = this.#find(of, periodFrom)
    if (balance === undefined || balance.state !== 'stale') return []
    balance.observed = { usage: parseFigure(usage), asOf: { ...asOf } }
    const crossings: Crossing[] = []
    const cause = { sequence: asOf.sequence, position: null, eventTime: null, receivedAt: asOf.receivedAt }
    this.#evaluate(balance, cause, crossings)
    return crossings
  }

  apply(frame: Frame, sequence: number, verdicts: Uint8Array): Crossing[] {
    assert(verdicts.length === frame.events, `${verdicts.length} verdicts for ${frame.events} events`)
    this.#asOf = { receivedAt: frame.receivedAt, sequence, epoch: this.#asOf.epoch }
    const crossings: Crossing[] = []
    if (this.#items.size === 0) return crossings
    const itemsOf = this.#itemsOfOrigins(frame)
    const { metricOf, seriesOf, originOf } = frame
    this.#frame += 1
    const totals = this.#oneByOne ? null : this.#gather(frame, verdicts, itemsOf)
    for (const balance of totals ?? []) {
      const factor = powerOfTen(ROLLUP_SCALE - frame.metrics[balance.metric]!.scale)
      balance.figures.addTotal(BigInt(balance.up - balance.down) * factor, balance.usages)
    }
    if (totals !== null && !this.#hasOthers) return crossings
    for (let i = 0; i < frame.events; i += 1) {
      if (verdicts[i] !== ShardVerdict.accepted) continue
      const items = itemsOf[originOf[i]!]![metricOf[seriesOf[i]!]!]
      if (items === undefined) continue
      for (const item of items) {
        const balance = this.#balanceAt(item, frame.times[i]!)
        if (balance === undefined || balance.state === 'stale') continue
        if (totals !== null && hasTotal(balance)) continue
        this.#count(balance, frame, i, positionOf(sequence, i))
        if (balance.state === 'live') this.#watch(balance, frame, i, sequence, crossings)
      }
    }
    return crossings
  }

  read(tenant: string): BalanceView[] {
    const views: BalanceView[] = []
    for (const item of this.#tenants.get(tenant)?.all ?? []) {
      for (const { period, state, figures, observed } of item.balances) {
        const usage = state === 'live' ? figures.usage() : state === 'stale' ? observed?.usage : undefined
        views.push({
          entitlement: item.entitlement,
          period,
          usage: usage === undefined ? null : printQuantity(usage, ROLLUP_SCALE),
          state,
          asOf: { ...(state === 'stale' ? (observed?.asOf ?? this.#asOf) : this.#asOf) },
          members: state === 'live' ? figures.membersPresent : 0,
        })
      }
    }
    return views
  }

  forecast(now: number): Crossing[] {
    const crossings: Crossing[] = []
    for (const item of this.#items.values()) {
      if (item.forecasts.length === 0) continue
      const balance = item.balances.find(({ period }) => contains(period, now))
      if (balance?.state === 'live') this.#foresee(balance, now, crossings)
    }
    return crossings
  }

  guard(tenant: string, now: number): GuardedUsage[] {
    // Again at the end of the order, which is that of the last use.
    this.#guarded.delete(tenant)
    this.#guarded.add(tenant)
    if (this.#guarded.size > limits.guardedTenantsMax) this.#guarded.delete(this.#guarded.values().next().value!)
    for (const item of this.#tenants.get(tenant)?.all ?? []) this.#balanceAt(item, now)
    return this.guarded(tenant)
  }

  get isGuarding(): boolean {
    return this.#guarded.size > 0
  }

  guarded(tenant: string): GuardedUsage[] {
    if (!this.#guarded.has(tenant)) return []
    return (this.#tenants.get(tenant)?.all ?? []).flatMap(({ entitlement: { item, metric }, balances }) =>
      balances.map(({ period, state, figures, observed }) => {
        const usage = state === 'live' ? figures.usage() : state === 'stale' ? (observed?.usage ?? null) : null
        return { tenant, item, metric, periodFrom: period.from, usage }
      }),
    )
  }

  #list(item: Item): void {
    const { tenant, metric } = item.entitlement
    let items = this.#tenants.get(tenant)
    if (items === undefined) {
      items = { all: [], byMetric: new Map() }
      this.#tenants.set(tenant, items)
    }
    items.all.push(item)
    const counting = items.byMetric.get(metric)
    if (counting === undefined) items.byMetric.set(metric, [item])
    else counting.push(item)
  }

  #find(of: ItemMetric, periodFrom: number): Balance | undefined {
    return this.#items.get(keyOf(of))?.balances.find((balance) => balance.period.from === periodFrom)
  }

  /**
   * Per origin of the frame, and per metric, the items that count it; undefined when none does. Origins name the tenants as the
   * series do and are far fewer; the names of series are not needed here, and so nobody decodes them.
   */
  #itemsOfOrigins(frame: Frame): (Item[] | undefined)[][] {
    const known = new Map<string, (Item[] | undefined)[]>()
    return frame.origins.map(({ tenant }) => {
      let byMetric = known.get(tenant)
      if (byMetric === undefined) {
        const items = this.#tenants.get(tenant)?.byMetric
        byMetric = frame.metrics.map(({ key }) => items?.get(key))
        known.set(tenant, byMetric)
      }
      return byMetric
    })
  }

  /**
   * The sums and counts that this frame adds to, each with its total, when none of them can cross a level on the way: then the
   * order of its events does not matter. Null when one of them might, or has a void, a very large value or two versions of a
   * metric; then every event is counted by itself.
   */
  #gather(frame: Frame, verdicts: Uint8Array, itemsOf: readonly (readonly (Item[] | undefined)[])[]): Balance[] | null {
    const { metricOf, seriesOf, originOf, times, kinds } = frame
    const words = new Int32Array(frame.values.buffer, frame.values.byteOffset, 2 * frame.events)
    const totals: Balance[] = []
    this.#hasOthers = false
    for (let i = 0; i < frame.events; i += 1) {
      if (verdicts[i] !== ShardVerdict.accepted) continue
      const metric = metricOf[seriesOf[i]!]!
      const items = itemsOf[originOf[i]!]![metric]
      if (items === undefined) continue
      for (const item of items) {
        const balance = this.#balanceAt(item, times[i]!)
        if (balance === undefined || balance.state === 'stale') continue
        if (!hasTotal(balance)) {
          this.#hasOthers = true
          continue
        }
        if (balance.frame !== this.#frame) {
          balance.frame = this.#frame
          balance.metric = metric
          balance.usages = 0
          balance.up = 0
          balance.down = 0
          totals.push(balance)
        }
        const high = words[2 * i + 1]!
        if ((kinds[i]! & KIND_VOID) !== 0 || balance.metric !== metric) return null
        if (high < -TOTAL_HIGH_MAX || high >= TOTAL_HIGH_MAX) return null
        const value = high * 0x1_0000_0000 + (words[2 * i]! >>> 0)
        balance.usages += 1
        if (value >= 0) balance.up += value
        else balance.down -= value
      }
    }
    for (const balance of totals) if (balance.state === 'live' && this.#mayCross(balance, frame)) return null
    return totals
  }

  /** Whether a level lies between the lowest and the highest figure that the frame's events can lead to in any order. */
  #mayCross({ item, next, nextStep, figures, metric, usages, up, down }: Balance, frame: Frame): boolean {
    if (item.levels.length === 0 && nextStep === undefined) return false
    // The first usage may cross what lies at zero.
    if (figures.empty) return true
    const above = item.levels[next]
    const below = item.levels[next - 1]
    const usage = figures.usage()
    const isCount = figures.aggregation === 'count'
    const factor = powerOfTen(ROLLUP_SCALE - (isCount ? 0 : frame.metrics[metric]!.scale))
    const highest = usage + BigInt(isCount ? usages : up) * factor
    if (above !== undefined && highest >= above.least) return true
    if (nextStep !== undefined && highest >= nextStep.least) return true
    return below !== undefined && usage - BigInt(isCount ? 0 : down) * factor < below.least
  }

  /** The balance whose period holds the time; a period later than all that were opened begins with this event. */
  #balanceAt(item: Item, time: number): Balance | undefined {
    const { balances, entitlement } = item
    for (let i = balances.length - 1; i >= 0; i -= 1) {
      if (contains(balances[i]!.period, time)) return balances[i]
    }
    if (time <= item.horizon || time < entitlement.anchor) return undefined
    const { anchor, timeZone, cycle = 'monthly' } = entitlement
    const period = billingPeriodOf(time, anchor, timeZone, cycle)
    if (period.from <= item.horizon) return undefined
    return this.#open(item, period, 'live', this.#asOf.epoch)
  }

  #count(balance: Balance, frame: Frame, i: number, position: number): void {
    const { figures } = balance
    const metric = frame.metrics[frame.metricOf[frame.seriesOf[i]!]!]!
    const isVoid = (frame.kinds[i]! & KIND_VOID) !== 0
    if (figures.aggregation === 'unique') {
      // A version of the metric that counts otherwise has no members.
      if (metric.aggregation !== 'unique') {
        this.#giveUp(balance)
        return
      }
      const member = frame.members.subarray(i === 0 ? 0 : frame.memberEnds[i - 1]!, frame.memberEnds[i]!)
      const hash = this.#memberHash(balance.item.entitlement.tenant, member)
      const text = Buffer.from(hash.buffer, hash.byteOffset, hash.byteLength).toString('latin1')
      const before = figures.membersHeld
      figures.addMember(text, isVoid ? -1 : 1)
      this.membersHeld += figures.membersHeld - before
      if (this.membersHeld > this.#membersMax) this.#giveUp(balance)
      return
    }
    const value = frame.values[i]! * powerOfTen(ROLLUP_SCALE - metric.scale)
    if (!isVoid) figures.addUsage(value, frame.times[i]!, position)
    else if (!figures.takeBack(value)) {
      balance.state = 'stale'
      balance.observed = undefined
      this.#voided.add(balance)
    }
  }

  /** The two comparisons that an event costs; everything else only happens at a crossing. */
  #watch(balance: Balance, frame: Frame, i: number, sequence: number, crossings: Crossing[]): void {
    const { item, next, nextStep, figures } = balance
    const above = item.levels[next]
    const below = item.levels[next - 1]
    const rises =
      (above !== undefined && figures.reaches(above)) || (nextStep !== undefined && figures.reaches(nextStep))
    const falls = below !== undefined && !figures.reaches(below)
    if (!rises && !falls) return
    const position = positionOf(sequence, i)
    const cause = { sequence, position, eventTime: frame.times[i]!, receivedAt: frame.receivedAt }
    this.#evaluate(balance, cause, crossings)
  }

  #evaluate(balance: Balance, cause: Cause, crossings: Crossing[]): void {
    const { item, marks } = balance
    const { levels } = item
    const usage = balance.state === 'stale' ? balance.observed!.usage : balance.figures.usage()
    // An observed 0 may be no usage at all, which reaches no level.
    const reaches = (level: Level): boolean =>
      balance.state === 'stale' ? usage >= level.least && usage !== 0n : balance.figures.reaches(level)
    const cross = (type: Crossing['type'], level: Level): void => {
      crossings.push({ type, kind: 'threshold', ...this.#about(balance, level, usage), forecast: null, ...cause })
    }
    while (balance.next < levels.length && reaches(levels[balance.next]!)) {
      if (marks[balance.next] === Mark.quiet) {
        marks[balance.next] = Mark.rung
        cross('alert.triggered', levels[balance.next]!)
      }
      balance.next += 1
    }
    while (balance.next > 0 && !reaches(levels[balance.next - 1]!)) balance.next -= 1
    // From the top: also what rang before this process began.
    for (let above = levels.length - 1; above >= balance.next; above -= 1) {
      if (marks[above] !== Mark.rung) continue
      marks[above] = Mark.resolved
      cross('alert.resolved', levels[above]!)
    }
    if (usage !== 0n) this.#climb(balance, usage, cause, crossings)
  }

  /** What an alert of a level says of its balance. */
  #about({ item: { entitlement }, period }: Balance, { code: threshold, rule }: Level, usage: bigint) {
    const { item, contract, tenant, product, metric, limitVersion, limit } = entitlement
    const balance = printQuantity(usage, ROLLUP_SCALE)
    return {
      rule,
      subject: null,
      item,
      contract,
      tenant,
      product,
      metric,
      period,
      threshold,
      limitVersion,
      limit,
      balance,
    }
  }

  /** Tells the steps of recurring rules that usage has reached; of a great many at once only the highest. */
  #climb(balance: Balance, usage: bigint, cause: Cause, crossings: Crossing[]): void {
    const { recurring = [] } = balance.item.entitlement
    for (const [i, { code, rule, every, from }] of recurring.entries()) {
      const [step, start] = [parseFigure(every), parseFigure(from)]
      const reached = usage < start ? 0n : (usage - start) / step
      let told = balance.steps[i]!
      if (reached <= told) continue
      const first = reached - BigInt(limits.stepsToldMax)
      if (told < first) told = first
      for (told += 1n; told <= reached; told += 1n) {
        const at = start + told * step
        const level = levelAt(`${code}:${printQuantity(at, ROLLUP_SCALE)}`, rule, at, 1n)
        const about = this.#about(balance, level, usage)
        crossings.push({ type: 'alert.triggered', kind: 'recurring', ...about, forecast: null, ...cause })
      }
      balance.steps[i] = reached
    }
    this.#findNextStep(balance)
  }

  #findNextStep(balance: Balance): void {
    const { recurring = [] } = balance.item.entitlement
    const next = recurring.map(
      ({ every, from }, i) => parseFigure(from) + (balance.steps[i]! + 1n) * parseFigure(every),
    )
    const least = next.reduce<bigint | undefined>((low, at) => (low === undefined || at < low ? at : low), undefined)
    balance.nextStep = least === undefined ? undefined : levelAt('', null, least, 1n)
  }

  /**
   * Usage goes on as it did on the whole since the period began: forecast = usage × length ÷ elapsed, compared as integers. Nothing
   * is foreseen in the first part of a period, nor of a level that is reached already. What was foreseen is resolved when the
   * forecast lies 5 % below the level, so that it does not come and go.
   */
  #foresee(balance: Balance, now: number, crossings: Crossing[]): void {
    const { item, period, figures, forecastMarks: marks } = balance
    const length = BigInt(period.to - period.from)
    const elapsed = BigInt(now - period.from)
    if (elapsed * BigInt(limits.forecastParts) < length) return
    const usage = figures.usage()
    for (const [i, level] of item.forecasts.entries()) {
      if (figures.reaches(level)) continue
      const ahead = usage * length * level.denominator
      const needed = level.numerator * elapsed
      const rises = marks[i] === Mark.quiet && ahead >= needed && !figures.empty
      const falls = marks[i] === Mark.rung && ahead * 100n < needed * 95n
      if (!rises && !falls) continue
      marks[i] = rises ? Mark.rung : Mark.resolved
      const type = rises ? 'alert.triggered' : 'alert.resolved'
      const forecast = printQuantity((2n * usage * length + elapsed) / (2n * elapsed), ROLLUP_SCALE)
      crossings.push({ type, kind: 'forecast', ...this.#about(balance, level, usage), forecast, ...this.#noEvent() })
    }
  }

  /** A threshold, step or forecast that rang before this process began. */
  #markRung(balance: Balance, threshold: string): void {
    const { levels, forecasts, entitlement } = balance.item
    const level = levels.findIndex(({ code }) => code === threshold)
    if (level !== -1 && balance.marks[level] === Mark.quiet) balance.marks[level] = Mark.rung
    const forecast = forecasts.findIndex(({ code }) => code === threshold)
    if (forecast !== -1) balance.forecastMarks[forecast] = Mark.rung
    for (const [i, { code, every, from }] of (entitlement.recurring ?? []).entries()) {
      if (!threshold.startsWith(`${code}:`)) continue
      const told = (parseFigure(threshold.slice(code.length + 1)) - parseFigure(from)) / parseFigure(every)
      if (told > balance.steps[i]!) balance.steps[i] = told
    }
    this.#findNextStep(balance)
  }

  #changeLimit(item: Item, entitlement: LiveEntitlement, crossings: Crossing[]): void {
    const before = item.entitlement
    item.entitlement = entitlement
    if (watchText(before) === watchText(entitlement)) return
    // With a new version of the limit everything may ring again; a rule that comes or goes leaves the others as they are.
    const isSame = before.limitVersion === entitlement.limitVersion
    const levelsBefore = item.levels
    const forecastsBefore = item.forecasts
    item.levels = levelsOf(entitlement)
    item.forecasts = forecastsOf(entitlement)
    for (const balance of item.balances) {
      const { marks, forecastMarks, steps } = balance
      const kept = (levels: readonly Level[], old: readonly Level[], oldMarks: Uint8Array): Uint8Array =>
        Uint8Array.from(levels, ({ code }) => {
          const at = isSame ? old.findIndex((level) => level.code === code) : -1
          return at === -1 ? Mark.quiet : oldMarks[at]!
        })
      balance.marks = kept(item.levels, levelsBefore, marks)
      balance.forecastMarks = kept(item.forecasts, forecastsBefore, forecastMarks)
      balance.steps = (entitlement.recurring ?? []).map(({ code }) => {
        const at = isSame ? (before.recurring ?? []).findIndex((step) => step.code === code) : -1
        return at === -1 ? 0n : steps[at]!
      })
      balance.next = 0
      this.#findNextStep(balance)
      const known = balance.state === 'live' || balance.observed !== undefined
      if (known) this.#evaluate(balance, this.#noEvent(), crossings)
    }
  }

  #isRoomAgain(): boolean {
    return this.balancesRefused > this.#refusedAtChange && this.balancesHeld < this.#balancesMax
  }

  #changePeriods(at: Barrier, needed: NeededBase[]): void {
    this.#refusedAtChange = this.balancesRefused
    this.#periodsChangeAt = Number.POSITIVE_INFINITY
    for (const item of this.#items.values()) {
      const { balances } = item
      while (balances.length > 0 && balances[0]!.period.to + this.#lateMs < at.receivedAt) this.#drop(balances.shift()!)
      const next = this.#openPeriods(item, at, needed)
      const dropAt = balances.length === 0 ? Number.POSITIVE_INFINITY : balances[0]!.period.to + this.#lateMs + 1
      this.#periodsChangeAt = Math.min(this.#periodsChangeAt, next - this.#aheadMs, dropAt)
    }
    this.#periods.clear()
  }

  /** Opens every period that an event received from now on may enter; returns the start of the first one that none may. */
  #openPeriods(item: Item, at: Barrier, needed: NeededBase[]): number {
    const { anchor, timeZone, cycle = 'monthly' } = item.entitlement
    const until = at.receivedAt + this.#aheadMs
    let from = Math.max(at.receivedAt - this.#lateMs, anchor)
    while (from <= until) {
      const opened = item.balances.find((balance) => contains(balance.period, from))
      if (opened !== undefined) {
        from = opened.period.to
        continue
      }
      const period = this.#periodOf(from, anchor, timeZone, cycle)
      const fresh = item.horizon !== Number.NEGATIVE_INFINITY && period.from > item.horizon
      const balance = this.#open(item, period, fresh ? 'live' : 'pending', at.epoch)
      if (balance?.state === 'pending') needed.push(neededBase(balance))
      from = period.to
    }
    item.horizon = Math.max(item.horizon, until)
    return from
  }

  #periodOf(time: number, anchor: number, timeZone: string, cycle: Cycle): Period {
    const key = `${anchor} ${timeZone} ${cycle}`
    let periods = this.#periods.get(key)
    if (periods === undefined) {
      periods = []
      this.#periods.set(key, periods)
    }
    let period = periods.find((known) => contains(known, time))
    if (period === undefined) {
      period = billingPeriodOf(time, anchor, timeZone, cycle)
      periods.push(period)
    }
    return period
  }

  #open(item: Item, period: Period, state: BalanceState, epoch: number): Balance | undefined {
    if (this.balancesHeld >= this.#balancesMax) {
      this.balancesRefused += 1
      // Its events are not counted and not looked at again; when there is room, it needs a base.
      item.horizon = Math.max(item.horizon, period.to - 1)
      return undefined
    }
    this.balancesHeld += 1
    const figures = new Figures(item.entitlement.aggregation)
    const marks = new Uint8Array(item.levels.length)
    const none = { frame: 0, metric: 0, usages: 0, up: 0, down: 0, next: 0, observed: undefined, nextStep: undefined }
    const forecastMarks = new Uint8Array(item.forecasts.length)
    const steps = (item.entitlement.recurring ?? []).map(() => 0n)
    const balance: Balance = { item, period, state, epoch, figures, marks, forecastMarks, steps, ...none }
    this.#findNextStep(balance)
    const after = item.balances.findIndex((other) => other.period.from > period.from)
    item.balances.splice(after === -1 ? item.balances.length : after, 0, balance)
    return balance
  }

  #drop(balance: Balance): void {
    this.#empty(balance)
    this.#voided.delete(balance)
    this.balancesHeld -= 1
  }

  #giveUp(balance: Balance): void {
    this.#empty(balance)
    balance.state = 'stale'
    balance.observed = undefined
  }

  #empty(balance: Balance): void {
    this.membersHeld -= balance.figures.membersHeld
    balance.figures = new Figures(balance.figures.aggregation)
  }

  #noEvent(): Cause {
    const { sequence, receivedAt } = this.#asOf
    return { sequence, position: null, eventTime: null, receivedAt }
  }
}

const forecastsOf = ({ limit, forecasts = [] }: LiveEntitlement): Level[] => levelsOf({ limit, thresholds: forecasts })

/** Everything that decides what rings. */
const watchText = ({ limit, limitVersion, thresholds, recurring, forecasts }: LiveEntitlement): string =>
  JSON.stringify([limit, limitVersion, thresholds, recurring ?? [], forecasts ?? []])

/** Whether the figures of one are those of the other: only limit, thresholds and names may differ. */
function countsTheSame(a: LiveEntitlement, b: LiveEntitlement): boolean {
  return (
    a.tenant === b.tenant &&
    a.metric === b.metric &&
    a.aggregation === b.aggregation &&
    a.anchor === b.anchor &&
    a.cycle === b.cycle &&
    a.timeZone === b.timeZone
  )
}

function neededBase({ item, period, epoch }: Balance): NeededBase {
  const { entitlement } = item
  const { item: id, tenant, metric, aggregation } = entitlement
  return { item: id, tenant, metric, aggregation, period, epoch }
}
