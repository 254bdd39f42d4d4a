/**
 * Guard: may this tenant use n more? Checks answer from the live balance and what is reserved; a reservation holds an amount for
 * as long as its lease. It runs on the main thread, in memory and in one step between two waits, so that two reservations never
 * count on the same room; each is in the journal on disk before it is answered.
 *
 * The usage itself never passes here: ingest refuses nothing that has happened. How the two meet: who reserves uses, sends the
 * event, and then commits with what was really used. From the commit on, the hold is that amount, and it ends when every record
 * that the log had at the commit is in the balances: then the balance holds the event, and no moment counted it neither or twice.
 * (Committed before its event was sent, the amount is counted by nobody until the event comes. A commit may carry its event.)
 *
 * The usage of each tenant that asks is told by its shard after every hand-over (flow.guard); the copy here is never older than
 * what the shard has applied. Held amounts are by quota: item, metric and period.
 *
 * States of a reservation: held → committed (its hold ends once the log is applied), or → released, or → expired. They are rows of
 * ledger.ts; a row whose step is being written is not forgotten, and after any other wait the row is looked up again.
 */
import { parseQuantity, powerOfTen, printQuantity, ROLLUP_SCALE } from '../amount.js'
import { assert } from '../assert.js'
import type { Metric } from '../catalog/metric.js'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import type { Metrics } from '../metrics.js'
import { billingPeriodOf, contains, type Period } from '../period.js'
import type { GuardedUsage, LiveEntitlement } from './balance.js'
import type { Journal, Step } from './journal.js'
import { COMMITTED, EXPIRED, HELD, Ledger, type NewReservation, RELEASED } from './ledger.js'
import { parseFigure } from './level.js'
import type { Bound, Policies } from './policy.js'

export interface QuotaAsk {
  readonly tenant: string
  readonly metric: string
  /** How much more, decimal text. */
  readonly quantity: string
  /** Told back; limits are of the tenant's metric as a whole. */
  readonly subject?: string | null | undefined
}

export type Why = 'unlimited' | 'within' | 'over_soft_limit' | 'hard_limit' | 'blocked'

/** One quota that the answer stands on; quantities are decimal text. */
export interface QuotaView {
  readonly contract: string
  readonly item: string
  readonly period: { readonly from: string; readonly to: string }
  readonly usage: string
  readonly held: string
  readonly soft: string | null
  readonly hard: string | null
  /** With packs behind it: what quota and packs have left, and what happens behind them. */
  readonly prepaid?: { readonly left: string; readonly exhaustion: string }
}

export interface QuotaAnswer {
  readonly tenant: string
  readonly metric: string
  readonly subject: string | null
  readonly quantity: string
  readonly allowed: boolean
  readonly why: Why
  /** In words, for a person. */
  readonly detail: string
  /** Until the hard limit, or where there is none until the soft one; null: unlimited. */
  readonly remaining: string | null
  readonly quotas: readonly QuotaView[]
}

export interface ReserveAsk extends QuotaAsk {
  readonly leaseSeconds: number
  /** The same key again is the same reservation. */
  readonly key: string
}

export type ReservationState = 'held' | 'committed' | 'released' | 'expired'

export interface ReservationView {
  readonly id: string
  readonly tenant: string
  readonly metric: string
  readonly subject: string | null
  readonly quantity: string
  readonly state: ReservationState
  readonly expiresAt: string
  /** What was really used, from the commit on. */
  readonly actual: string | null
  /** Whether it still counts against the quotas. */
  readonly holds: boolean
}

/** What an item really has, where that is not simply all that its customer uses: shared by subject, or with packs behind it. */
export interface RealRoom {
  /** Of the customer's usage, what is known to be others': at ROLLUP_SCALE, as all here. */
  readonly others: bigint
  /** What the contract includes with all that was bought ahead; null: unlimited. */
  readonly included: bigint | null
  /** Behind it nothing more may be used. */
  readonly blocks: boolean
  readonly exhaustion: string | null
}

/** By item, those that the usage of a subject is of; undefined when every item simply has all of it. */
export type Rooms = (
  tenant: string,
  metric: string,
  subject: string | null,
) => Promise<ReadonlyMap<string, RealRoom>> | undefined

/** What the guard needs of the stream that counts a tenant. */
export interface GuardedStream {
  readonly stream: number
  readonly position: { readonly applied: number; readonly last: number }
  guard(tenant: string, now: number): Promise<{ readonly sequence: number; readonly usages: readonly GuardedUsage[] }>
}

export interface GuardOptions {
  readonly clock: Clock
  readonly logger: Logger
  readonly metrics: Metrics
  readonly policies: Policies
  readonly journal: Journal
  readonly metricOf: (key: string) => Metric
  readonly streams: number
  /** Reservations that are known at once. @default limits.reservationsMax */
  readonly rows?: number
}

interface Quota {
  readonly entitlement: LiveEntitlement
  period: Period | undefined
  key: string
}

interface Room {
  readonly quota: Quota
  readonly usage: bigint
  readonly held: bigint
  readonly soft: bigint | null
  readonly hard: bigint | null
  /** Until packs that block have nothing left. */
  readonly ahead: bigint | null
  readonly real: RealRoom | undefined
}

const quotaKey = (item: string, metric: string, periodFrom: number): string =>
  `${periodFrom} ${item.length} ${item} ${metric}`
const print = (scaled: bigint): string => printQuantity(scaled, ROLLUP_SCALE)
const atLeastZero = (amount: bigint): bigint => (amount < 0n ? 0n : amount)
const iso = (time: number): string => new Date(time).toISOString()
const SWEEP_MS = 1_000
/** Ended ones that are forgotten at once when their time is over: by a request, which others wait behind, and by the timer. */
const FORGOTTEN_BY_REQUEST = 4
const FORGOTTEN_BY_TIMER = 2_000
/** Of long texts, one new one takes the room of so many at most. */
const FORGOTTEN_FOR_ROOM = 64
const STATES: Readonly<Record<number, ReservationState>> = {
  [HELD]: 'held',
  [COMMITTED]: 'committed',
  [RELEASED]: 'released',
  [EXPIRED]: 'expired',
}

export class Guard {
  readonly #o: GuardOptions
  #rooms: Rooms = () => undefined
  #streamOf: (tenant: string) => GuardedStream = () => {
    throw new ReleveError('unavailable', 'the service is starting', { retryAfterS: 1 })
  }
  /** By tenant and metric. */
  #quotas = new Map<string, Map<string, Quota[]>>()
  /** Usage by quota, of tenants that asked; the one whose question is the oldest goes first. */
  readonly #usage = new Map<string, Map<string, bigint | null>>()
  /** Last sequence of each stream whose usage was told. */
  readonly #applied: number[] = []
  readonly #ledger: Ledger
  /** Rows of which something is being written; answers about them wait for it. */
  readonly #writing = new Map<number, Promise<number>>()
  #timer: NodeJS.Timeout | undefined
  #tidying = false

  constructor(options: GuardOptions) {
    this.#o = options
    const { streams, rows = limits.reservationsMax } = options
    this.#ledger = new Ledger({ rows, streams, nameBytesMax: limits.nameBytesMax })
  }

  /**
   * Reads the journal. What was granted holds again; leases that ended meanwhile have ended, and so has the hold of what was committed
   * up to where the tenant's stream has its checkpoint.
   */
  async open(checkpointOf: (tenant: string) => number = () => 0): Promise<void> {
    const { journal, clock } = this.#o
    const now = clock.now()
    for await (const { sequence, step } of journal.steps()) this.#redo(step, sequence, now, checkpointOf)
    this.#sweep(now)
  }

  start(streamOf: (tenant: string) => GuardedStream): void {
    this.#streamOf = streamOf
    const ledger = this.#ledger
    const committed: number[] = []
    for (let row = ledger.oldest; row >= 0; row = ledger.after(row))
      if (ledger.state[row] === COMMITTED && ledger.counts[row] === 1) committed.push(row)
    for (const row of committed.sort((a, b) => ledger.until[a]! - ledger.until[b]!)) this.#settle(row)
    this.#timer = setInterval(() => {
      const now = this.#o.clock.now()
      this.#sweep(now)
      this.#forgetOld(now, FORGOTTEN_BY_TIMER)
      void this.#tidy()
    }, SWEEP_MS)
    this.#timer.unref()
  }

  close(): void {
    clearInterval(this.#timer)
  }

  /** Who knows what items really have. */
  setRooms(rooms: Rooms): void {
    this.#rooms = rooms
  }

  /** The quotas that there are from now on. Called when the shards have them. */
  setEntitlements(list: readonly LiveEntitlement[]): void {
    this.#quotas = new Map()
    for (const entitlement of list) {
      const { tenant, metric } = entitlement
      const byMetric = this.#quotas.get(tenant) ?? new Map<string, Quota[]>()
      this.#quotas.set(tenant, byMetric)
      byMetric.set(metric, [...(byMetric.get(metric) ?? []), { entitlement, period: undefined, key: '' }])
    }
    // Asked for again: a quota may be another one under the same name.
    this.#usage.clear()
  }

  /** What a hand-over to a shard made of the usage of guarded tenants. */
  applied(stream: number, sequence: number, usages: readonly GuardedUsage[]): void {
    this.#applied[stream] = sequence
    for (const { tenant, item, metric, periodFrom, usage } of usages)
      this.#usage.get(tenant)?.set(quotaKey(item, metric, periodFrom), usage)
    const ledger = this.#ledger
    for (let row = ledger.settling(stream); row >= 0; row = ledger.settling(stream)) {
      if (ledger.until[row]! > sequence) break
      ledger.unhold(row)
      ledger.end(row)
    }
  }

  // ---- Questions ---------------------------------------------------------------------------------------------------------

  async check(ask: QuotaAsk): Promise<QuotaAnswer> {
    const quantity = this.#amountOf(ask, ask.quantity, 'n')
    const now = this.#o.clock.now()
    const real = await this.#rooms(ask.tenant, ask.metric, ask.subject ?? null)
    await this.#learn(ask.tenant, ask.metric, now)
    this.#sweep(now)
    const { why, answer } = this.#judge(ask, quantity, now, real)
    this.#o.metrics.quotaChecks.inc({ why })
    return answer()
  }

  async reserve(ask: ReserveAsk): Promise<{ reservation: ReservationView } | { refused: QuotaAnswer }> {
    const { clock, metrics } = this.#o
    const answered = metrics.reserveSeconds.startTimer()
    const quantity = this.#amountOf(ask, ask.quantity, 'n')
    if (quantity === 0n) throw new ReleveError('unprocessable', 'n: must be above 0')
    const now = clock.now()
    const again = await this.#sameAs(ask, quantity)
    if (again !== undefined) return { reservation: again }
    const real = await this.#rooms(ask.tenant, ask.metric, ask.subject ?? null)
    await this.#learn(ask.tenant, ask.metric, now)
    // From here to the hold there is no wait; another with the same key may have come in the one before.
    if (this.#ledger.byKey(ask.tenant, ask.key) >= 0) return this.reserve(ask)
    this.#sweep(now)
    const { allowed, answer, quotas } = this.#judge(ask, quantity, now, real)
    if (!allowed) {
      metrics.reservations.inc({ outcome: 'refused' })
      return { refused: answer() }
    }
    this.#makeRoom()
    const ledger = this.#ledger
    const { tenant, metric, key, subject = null } = ask
    const [id, createdAt, expiresAt] = [ledger.newId(), now, now + ask.leaseSeconds * 1000]
    // Written out twice: an object made by spreading leaves 250 bytes behind that only a marking of the whole heap gives back, and every
    // collection of the young until then copies them.
    const row = this.#grant({ id, tenant, metric, subject, key, createdAt, expiresAt, quotas, quantity })
    const step: Step = {
      step: 'reserve',
      id,
      tenant,
      metric,
      subject,
      key,
      createdAt,
      expiresAt,
      quotas,
      quantity: quantity.toString(),
    }
    const onDisk = (sequence: number): ReservationView => {
      ledger.sequence[row] = sequence
      return this.#view(row)
    }
    const reservation = await this.#write(row, [step], onDisk, () => {
      ledger.unhold(row)
      ledger.remove(row)
    })
    metrics.reservations.inc({ outcome: 'granted' })
    answered()
    return { reservation }
  }

  /** `actual` is what was really used; it may be less or more than what was reserved: usage that has happened is never refused. */
  async commit(id: string, tenant: string | null, actualText?: string): Promise<ReservationView> {
    const ledger = this.#ledger
    let row = this.#find(id, tenant)
    for (let writing = this.#writing.get(row); writing !== undefined; writing = this.#writing.get(row)) {
      await writing
      row = this.#find(id, tenant)
    }
    const actual =
      actualText === undefined ? ledger.quantity(row) : this.#amountOf(ledger.account(row), actualText, 'amount')
    const now = this.#o.clock.now()
    this.#sweep(now)
    if (ledger.state[row] === COMMITTED && ledger.actual(row) === actual) return this.#view(row)
    this.#assertHeld(row, now)
    const { position } = this.#streamOf(ledger.account(row).tenant)
    const until = position.last
    this.#used(row, actual, until, now)
    this.#settle(row)
    const step: Step = { step: 'commit', id, actual: actual.toString(), until, at: now }
    const onDisk = (): ReservationView => this.#view(row)
    const reservation = await this.#write(row, [step], onDisk, () => {
      // What is not on disk did not happen.
      ledger.unhold(row)
      this.#holdAgain(row)
    })
    this.#o.metrics.reservations.inc({ outcome: 'committed' })
    return reservation
  }

  async release(id: string, tenant: string | null): Promise<ReservationView> {
    const ledger = this.#ledger
    let row = this.#find(id, tenant)
    for (let writing = this.#writing.get(row); writing !== undefined; writing = this.#writing.get(row)) {
      await writing
      row = this.#find(id, tenant)
    }
    const now = this.#o.clock.now()
    this.#sweep(now)
    if (ledger.state[row] === RELEASED || ledger.state[row] === EXPIRED) return this.#view(row)
    this.#assertHeld(row, now)
    // Room is given only when the release is on disk: a crash before it holds on.
    ledger.state[row] = RELEASED
    ledger.endedAt[row] = now
    ledger.pause(row)
    const onDisk = (): ReservationView => {
      ledger.unhold(row)
      ledger.end(row)
      return this.#view(row)
    }
    const reservation = await this.#write(row, [{ step: 'release', id, at: now }], onDisk, () => this.#holdAgain(row))
    this.#o.metrics.reservations.inc({ outcome: 'released' })
    return reservation
  }

  get(id: string, tenant: string | null): ReservationView {
    this.#sweep(this.#o.clock.now())
    return this.#view(this.#find(id, tenant))
  }

  /** Those that hold something, the oldest first. */
  list(query: {
    readonly tenant: string | null
    readonly metric?: string | undefined
    readonly limit: number
  }): ReservationView[] {
    this.#sweep(this.#o.clock.now())
    const ledger = this.#ledger
    const found: ReservationView[] = []
    for (let row = ledger.oldest; row >= 0 && found.length < query.limit; row = ledger.after(row)) {
      if (ledger.counts[row] === 0) continue
      const { tenant, metric } = ledger.account(row)
      if (query.tenant !== null && tenant !== query.tenant) continue
      if (query.metric === undefined || metric === query.metric) found.push(this.#view(row))
    }
    return found
  }

  get size(): number {
    return this.#ledger.size
  }

  // ---- Judging -----------------------------------------------------------------------------------------------------------

  #amountOf({ metric: key }: { readonly metric: string }, text: string, name: string): bigint {
    const metric = this.#o.metricOf(key)
    const { aggregation } = metric
    if (aggregation !== 'sum' && aggregation !== 'count' && aggregation !== 'unique')
      throw new ReleveError('unprocessable', `metric: ${key} is a ${aggregation}, and «n more» says nothing of it`)
    const scale = aggregation === 'sum' ? metric.scale : 0
    const amount = parseQuantity(text, scale)
    if (typeof amount !== 'bigint' || amount < 0n)
      throw new ReleveError(
        'unprocessable',
        `${name}: is a decimal text such as "12", not negative, with at most ${scale} decimals`,
      )
    return amount * powerOfTen(ROLLUP_SCALE - scale)
  }

  #current(tenant: string, metric: string, now: number): readonly Quota[] {
    const quotas = this.#quotas.get(tenant)?.get(metric) ?? []
    for (const quota of quotas) {
      if (quota.period !== undefined && contains(quota.period, now)) continue
      const { item, anchor, timeZone, cycle = 'monthly' } = quota.entitlement
      quota.period = billingPeriodOf(Math.max(now, anchor), anchor, timeZone, cycle)
      quota.key = quotaKey(item, metric, quota.period.from)
    }
    return quotas
  }

  /** Resolves when the usage of the current quotas is known here; it costs nothing when it is. */
  async #learn(tenant: string, metric: string, now: number): Promise<void> {
    const isKnown = (): boolean => {
      const usage = this.#usage.get(tenant)
      return this.#current(tenant, metric, now).every(({ key }) => typeof usage?.get(key) === 'bigint')
    }
    if (isKnown()) return
    const { stream, guard } = this.#bound(tenant)
    const { sequence, usages } = await guard(tenant, now)
    // In the order of the questions to the shards, which forget in the same order and later: what is known here is told there.
    const before = this.#usage.get(tenant)
    this.#usage.delete(tenant)
    const known = before ?? new Map<string, bigint | null>()
    this.#usage.set(tenant, known)
    if (this.#usage.size > limits.guardedTenantsMax / 2) this.#usage.delete(this.#usage.keys().next().value!)
    // A hand-over that was told meanwhile is newer.
    const isOld = sequence < (this.#applied[stream] ?? 0)
    for (const { item, metric: of, periodFrom, usage } of usages) {
      const key = quotaKey(item, of, periodFrom)
      if (!isOld || typeof known.get(key) !== 'bigint') known.set(key, usage)
    }
    if (!isKnown()) throw new ReleveError('unavailable', `the usage of ${metric} is being counted`, { retryAfterS: 1 })
  }

  #bound(tenant: string): { stream: number; guard: GuardedStream['guard'] } {
    const stream = this.#streamOf(tenant)
    return { stream: stream.stream, guard: (...args) => stream.guard(...args) }
  }

  #judge(
    ask: QuotaAsk,
    quantity: bigint,
    now: number,
    reals: ReadonlyMap<string, RealRoom> | undefined,
  ): { why: Why; allowed: boolean; answer: () => QuotaAnswer; quotas: string[] } {
    const { tenant, metric, subject = null } = ask
    const policy = this.#o.policies.of(tenant, metric)
    const usage = this.#usage.get(tenant)
    const current = this.#current(tenant, metric, now)
    // Where items share a metric, those that this usage is of.
    const own = reals === undefined ? current : current.filter(({ entitlement }) => reals.has(entitlement.item))
    const rooms = (own.length === 0 ? current : own).map((quota): Room => {
      const used = usage?.get(quota.key)
      assert(typeof used === 'bigint', 'a quota is judged by a usage that is not known')
      const real = reals?.get(quota.entitlement.item)
      const included = quota.entitlement.limit
      const bound = (of: Bound): bigint | null => {
        if (of === 'included' && real !== undefined) return real.included
        const text = of === 'included' ? included : of
        return text === null ? null : parseFigure(text)
      }
      return {
        quota,
        usage: used - (real?.others ?? 0n),
        held: this.#ledger.heldOf(quota.key),
        soft: bound(policy.soft),
        hard: bound(policy.hard),
        ahead: real?.blocks === true ? real.included : null,
        real,
      }
    })
    const least = (by: 'soft' | 'hard' | 'ahead'): bigint | null =>
      rooms.reduce<bigint | null>((low, room) => {
        const limit = room[by]
        if (limit === null) return low
        const left = limit - room.usage - room.held
        return low === null || left < low ? left : low
      }, null)
    const [toPolicy, toSoft, toAhead] = [least('hard'), least('soft'), least('ahead')]
    const toHard = toPolicy === null || (toAhead !== null && toAhead < toPolicy) ? toAhead : toPolicy
    const blocked =
      toAhead !== null && quantity > toAhead
        ? `quota and packs have ${print(atLeastZero(toAhead))} left, and nothing more may be used behind them`
        : undefined
    const remaining = toHard ?? toSoft
    const why: Why =
      blocked !== undefined
        ? 'blocked'
        : toHard !== null && quantity > toHard
          ? 'hard_limit'
          : toSoft !== null && quantity > toSoft
            ? 'over_soft_limit'
            : remaining === null
              ? 'unlimited'
              : 'within'
    const allowed = why !== 'blocked' && why !== 'hard_limit'
    const left = remaining === null ? null : print(remaining < 0n ? 0n : remaining)
    const details: Readonly<Record<Why, string>> = {
      unlimited: 'nothing limits it',
      within: `${left} are left`,
      over_soft_limit: `allowed, and above the soft limit: ${print(toSoft === null || toSoft < 0n ? 0n : toSoft)} were left`,
      hard_limit: `${left} are left until the hard limit`,
      blocked: blocked ?? '',
    }
    // Only who is refused or asks is shown all of it.
    const answer = (): QuotaAnswer => ({
      tenant,
      metric,
      subject,
      quantity: print(quantity),
      allowed,
      why,
      detail: details[why],
      remaining: left,
      quotas: rooms.map(({ quota: { entitlement, period }, usage: used, held, soft, hard, real }) => ({
        contract: entitlement.contract,
        item: entitlement.item,
        period: { from: iso(period!.from), to: iso(period!.to) },
        usage: print(used),
        held: print(held),
        soft: soft === null ? null : print(soft),
        hard: hard === null ? null : print(hard),
        ...(real?.included == null || real.exhaustion === null
          ? {}
          : { prepaid: { left: print(atLeastZero(real.included - used - held)), exhaustion: real.exhaustion } }),
      })),
    })
    return { why, allowed, answer, quotas: rooms.map(({ quota }) => quota.key) }
  }

  // ---- Reservations ------------------------------------------------------------------------------------------------------

  /** The reservation of the same key, when it is on disk. */
  async #sameAs(ask: ReserveAsk, quantity: bigint): Promise<ReservationView | undefined> {
    const ledger = this.#ledger
    for (;;) {
      const row = ledger.byKey(ask.tenant, ask.key)
      if (row < 0) return undefined
      if (
        ledger.account(row).metric !== ask.metric ||
        ledger.quantity(row) !== quantity ||
        ledger.subject(row) !== (ask.subject ?? null)
      )
        throw new ReleveError('conflict', `key: ${ledger.id(row)} has it already, with another metric, n or subject`)
      const writing = this.#writing.get(row)
      if (writing === undefined) return this.#view(row)
      await writing
    }
  }

  #find(id: string, tenant: string | null): number {
    const row = this.#ledger.byId(id)
    if (row < 0 || (tenant !== null && this.#ledger.account(row).tenant !== tenant))
      throw new ReleveError('not_found', `there is no reservation ${id}`)
    return row
  }

  #assertHeld(row: number, now: number): void {
    const { state, expiresAt } = this.#ledger
    const isHeld = state[row] === HELD
    if (isHeld && expiresAt[row]! > now) return
    const ended = isHeld ? 'expired' : STATES[state[row]!]!
    throw new ReleveError(
      'conflict',
      `the reservation is ${ended}${ended === 'expired' ? ': its hold has ended; send the usage all the same' : ''}`,
    )
  }

  /** Steps of one reservation onto disk. What follows from it is done before anyone else sees the row, and answers. */
  async #write<T>(
    row: number,
    steps: readonly Step[],
    onDisk: (sequence: number) => T,
    onFailure: () => void,
  ): Promise<T> {
    const written = this.#o.journal.append(this.#o.clock.now(), steps)
    this.#writing.set(row, written)
    try {
      return onDisk(await written)
    } catch (error) {
      onFailure()
      throw error
    } finally {
      this.#writing.delete(row)
    }
  }

  #grant(fixed: NewReservation): number {
    const row = this.#ledger.add(fixed)
    this.#ledger.hold(row)
    this.#ledger.lease(row)
    return row
  }

  /** Committed: the hold is what was really used. */
  #used(row: number, actual: bigint, until: number, at: number): void {
    const ledger = this.#ledger
    ledger.unhold(row)
    ledger.state[row] = COMMITTED
    ledger.setActual(row, actual)
    ledger.until[row] = until
    ledger.endedAt[row] = at
    ledger.hold(row)
  }

  /** The hold of a committed one ends when its stream is there. */
  #settle(row: number): void {
    const ledger = this.#ledger
    const { stream, position } = this.#streamOf(ledger.account(row).tenant)
    if (position.applied < ledger.until[row]!) ledger.settle(row, stream)
    else {
      ledger.unhold(row)
      ledger.end(row)
    }
  }

  /** Its end came to nothing: it goes on as it was. */
  #holdAgain(row: number): void {
    const ledger = this.#ledger
    ledger.state[row] = HELD
    ledger.endedAt[row] = 0
    ledger.hold(row)
    ledger.lease(row)
  }

  /** What a step of the journal did to the memory. */
  #redo(step: Step, sequence: number, now: number, checkpointOf: (tenant: string) => number): void {
    const ledger = this.#ledger
    const known = ledger.byId(step.id)
    if (step.step === 'reserve') {
      // Written again by tidying: it is known, and lies further behind now.
      if (known >= 0) {
        ledger.unhold(known)
        ledger.remove(known)
      }
      // The journal may know more than the memory ever did at once.
      if (!ledger.hasRoom) this.#sweep(now)
      this.#makeRoom()
      const row = this.#grant({ ...step, quantity: BigInt(step.quantity) })
      ledger.sequence[row] = sequence
      return
    }
    if (known < 0) return
    if (step.step === 'commit') {
      this.#used(known, BigInt(step.actual), step.until, step.at)
      ledger.pause(known)
      if (step.until > checkpointOf(ledger.account(known).tenant)) return
    } else {
      ledger.state[known] = RELEASED
      ledger.endedAt[known] = step.at
    }
    ledger.unhold(known)
    ledger.end(known)
  }

  /** Ends leases. The hold of one lasts at most a quarter of a second longer than its lease. */
  #sweep(now: number): void {
    const ledger = this.#ledger
    let expired = 0
    ledger.sweep(now, (row) => {
      expired += 1
      ledger.state[row] = EXPIRED
      ledger.endedAt[row] = now
      ledger.unhold(row)
      ledger.end(row)
    })
    if (expired > 0) this.#o.metrics.reservations.inc({ outcome: 'expired' }, expired)
    this.#forgetOld(now, FORGOTTEN_BY_REQUEST)
  }

  #forgetOld(now: number, most: number): void {
    const ledger = this.#ledger
    for (let forgotten = 0; forgotten < most; forgotten += 1) {
      const row = ledger.firstEnded
      if (row < 0 || ledger.endedAt[row]! + limits.reservationKeptMs > now || this.#writing.has(row)) return
      ledger.remove(row)
    }
  }

  /** Ended ones are forgotten before their time when there is no other room. */
  #makeRoom(): void {
    const ledger = this.#ledger
    for (let forgotten = 0; !ledger.hasRoom; forgotten += 1) {
      const row = ledger.firstEnded
      if (row < 0 || forgotten === FORGOTTEN_FOR_ROOM || this.#writing.has(row))
        throw new ReleveError('overloaded', `${ledger.size} reservations are held`, { retryAfterS: 1 })
      ledger.remove(row)
    }
  }

  /** Gives the journal's beginning back; long leases that lie far behind are written again, so that they do not keep it. */
  async #tidy(): Promise<void> {
    if (this.#tidying) return
    this.#tidying = true
    const { journal, logger } = this.#o
    const ledger = this.#ledger
    try {
      for (let written = 0; written < limits.reservationsRewrittenMax; written += 1) {
        const row = ledger.oldest
        if (row < 0) break
        const before = ledger.sequence[row]!
        if (before === 0 || journal.last - before <= limits.reservationJournalSpan) break
        const writing = this.#writing.get(row)
        if (writing !== undefined) {
          await writing
          continue
        }
        if (ledger.counts[row] === 0) {
          ledger.remove(row)
          continue
        }
        ledger.moveToEnd(row)
        ledger.sequence[row] = 0
        const onDisk = (sequence: number): void => {
          ledger.sequence[row] = sequence
        }
        await this.#write(row, this.#stepsOf(row), onDisk, () => {
          ledger.moveToBeginning(row)
          ledger.sequence[row] = before
        })
      }
      const first = ledger.oldest
      if (first < 0) await journal.forget(journal.last + 1)
      else if (ledger.sequence[first]! > 0) await journal.forget(ledger.sequence[first]!)
    } catch (error) {
      logger.warn({ error: String(error) }, 'the journal of reservations is not tidied, done again')
    } finally {
      this.#tidying = false
    }
  }

  /** Everything that a start must know of one that counts. */
  #stepsOf(row: number): Step[] {
    const ledger = this.#ledger
    const { tenant, metric, quotas } = ledger.account(row)
    const id = ledger.id(row)
    const quantity = ledger.quantity(row).toString()
    const [createdAt, expiresAt] = [ledger.createdAt[row]!, ledger.expiresAt[row]!]
    const fixed = {
      id,
      tenant,
      metric,
      subject: ledger.subject(row),
      key: ledger.key(row),
      createdAt,
      expiresAt,
      quotas,
    }
    const steps: Step[] = [{ step: 'reserve', ...fixed, quantity }]
    if (ledger.state[row] === COMMITTED)
      steps.push({
        step: 'commit',
        id,
        actual: ledger.actual(row).toString(),
        until: ledger.until[row]!,
        at: ledger.endedAt[row]!,
      })
    return steps
  }

  #view(row: number): ReservationView {
    const ledger = this.#ledger
    const { tenant, metric } = ledger.account(row)
    const state = STATES[ledger.state[row]!]!
    return {
      id: ledger.id(row),
      tenant,
      metric,
      subject: ledger.subject(row),
      quantity: print(ledger.quantity(row)),
      state,
      expiresAt: iso(ledger.expiresAt[row]!),
      actual: state === 'committed' ? print(ledger.actual(row)) : null,
      holds: ledger.counts[row] === 1,
    }
  }
}
