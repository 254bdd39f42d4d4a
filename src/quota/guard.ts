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
 * States of a reservation: held → committed (its hold ends once the log is applied), or → released, or → expired.
 */
import { randomBytes } from 'node:crypto'
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
}

interface Reservation {
  readonly id: string
  readonly tenant: string
  readonly metric: string
  readonly subject: string | null
  readonly quantity: bigint
  readonly key: string
  readonly createdAt: number
  readonly expiresAt: number
  readonly quotas: readonly string[]
  state: ReservationState
  /** Counted against the quotas now. */
  held: bigint
  actual: bigint | undefined
  until: number
  endedAt: number
  /** Its first record in the journal; 0 until that is on disk. */
  sequence: number
  /** What is being written; an answer waits for it. */
  written: Promise<unknown>
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
  readonly #held = new Map<string, bigint>()
  /** In the order of their records in the journal. */
  readonly #byId = new Map<string, Reservation>()
  readonly #byKey = new Map<string, Reservation>()
  /** Held ones by the second after which their lease has ended. */
  readonly #leases = new Map<number, Set<Reservation>>()
  /** Committed ones by stream, rising by what they wait for. */
  readonly #settling: Reservation[][] = []
  /** Ended ones, the oldest first. */
  readonly #ended = new Set<Reservation>()
  #sweptSecond = 0
  #timer: NodeJS.Timeout | undefined
  #tidying = false

  constructor(options: GuardOptions) {
    this.#o = options
  }

  /** Reads the journal. What was granted holds again; leases that ended meanwhile have ended. */
  async open(): Promise<void> {
    for await (const { sequence, step } of this.#o.journal.steps()) this.#redo(step, sequence)
    this.#sweep(this.#o.clock.now())
  }

  start(streamOf: (tenant: string) => GuardedStream): void {
    this.#streamOf = streamOf
    const committed = [...this.#byId.values()].filter(({ state, held }) => state === 'committed' && held !== 0n)
    for (const reservation of committed.sort((a, b) => a.until - b.until)) {
      const { stream, position } = streamOf(reservation.tenant)
      if (reservation.until <= position.applied) this.#unhold(reservation)
      else this.#settleLater(stream, reservation)
    }
    this.#timer = setInterval(() => {
      this.#sweep(this.#o.clock.now())
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
    const settling = this.#settling[stream]
    while (settling !== undefined && settling.length > 0 && settling[0]!.until <= sequence) {
      const reservation = settling.shift()!
      if (reservation.state === 'committed') this.#unhold(reservation)
    }
  }

  // ---- Questions ---------------------------------------------------------------------------------------------------------

  async check(ask: QuotaAsk): Promise<QuotaAnswer> {
    const quantity = this.#amountOf(ask, ask.quantity, 'n')
    const now = this.#o.clock.now()
    const real = await this.#rooms(ask.tenant, ask.metric, ask.subject ?? null)
    await this.#learn(ask.tenant, ask.metric, now)
    const { why, answer } = this.#judge(ask, quantity, now, real)
    this.#o.metrics.quotaChecks.inc({ why })
    return answer()
  }

  async reserve(ask: ReserveAsk): Promise<{ reservation: ReservationView } | { refused: QuotaAnswer }> {
    const { clock, metrics, journal } = this.#o
    const answered = metrics.reserveSeconds.startTimer()
    const quantity = this.#amountOf(ask, ask.quantity, 'n')
    if (quantity === 0n) throw new ReleveError('unprocessable', 'n: must be above 0')
    const now = clock.now()
    const again = await this.#sameAs(ask, quantity)
    if (again !== undefined) return { reservation: again }
    const real = await this.#rooms(ask.tenant, ask.metric, ask.subject ?? null)
    await this.#learn(ask.tenant, ask.metric, now)
    // From here to the hold there is no wait; another with the same key may have come in the one before.
    if (this.#byKey.has(keyOfAsk(ask))) return { reservation: (await this.#sameAs(ask, quantity))! }
    this.#sweep(now)
    const { allowed, answer, quotas } = this.#judge(ask, quantity, now, real)
    if (!allowed) {
      metrics.reservations.inc({ outcome: 'refused' })
      return { refused: answer() }
    }
    this.#makeRoom()
    const step: Step = {
      step: 'reserve',
      id: `rsv_${randomBytes(12).toString('hex')}`,
      tenant: ask.tenant,
      metric: ask.metric,
      subject: ask.subject ?? null,
      quantity: quantity.toString(),
      key: ask.key,
      createdAt: now,
      expiresAt: now + ask.leaseSeconds * 1000,
      quotas,
    }
    const reservation = this.#redo(step, 0)!
    const written = journal.append(now, [step])
    reservation.written = written
    try {
      reservation.sequence = await written
    } catch (error) {
      this.#unhold(reservation)
      this.#drop(reservation)
      throw error
    }
    metrics.reservations.inc({ outcome: 'granted' })
    answered()
    return { reservation: viewOf(reservation) }
  }

  /** `actual` is what was really used; it may be less or more than what was reserved: usage that has happened is never refused. */
  async commit(id: string, tenant: string | null, actualText?: string): Promise<ReservationView> {
    const reservation = this.#find(id, tenant)
    const actual = actualText === undefined ? reservation.quantity : this.#amountOf(reservation, actualText, 'amount')
    await reservation.written
    const now = this.#o.clock.now()
    this.#sweep(now)
    if (reservation.state === 'committed' && reservation.actual === actual) {
      await reservation.written
      return viewOf(reservation)
    }
    this.#assertHeld(reservation, now)
    const { stream, position } = this.#streamOf(reservation.tenant)
    const step: Step = { step: 'commit', id, actual: actual.toString(), until: position.last, at: now }
    this.#redo(step, reservation.sequence)
    if (position.applied >= position.last) this.#unhold(reservation)
    else this.#settleLater(stream, reservation)
    await this.#write(reservation, step)
    this.#o.metrics.reservations.inc({ outcome: 'committed' })
    return viewOf(reservation)
  }

  async release(id: string, tenant: string | null): Promise<ReservationView> {
    const reservation = this.#find(id, tenant)
    await reservation.written
    const now = this.#o.clock.now()
    this.#sweep(now)
    if (reservation.state === 'released' || reservation.state === 'expired') return viewOf(reservation)
    this.#assertHeld(reservation, now)
    const step: Step = { step: 'release', id, at: now }
    // Room is given only when the release is on disk: a crash before it holds on.
    reservation.state = 'released'
    await this.#write(reservation, step)
    this.#redo(step, reservation.sequence)
    this.#o.metrics.reservations.inc({ outcome: 'released' })
    return viewOf(reservation)
  }

  get(id: string, tenant: string | null): ReservationView {
    this.#sweep(this.#o.clock.now())
    return viewOf(this.#find(id, tenant))
  }

  /** Those that hold something, the oldest first. */
  list(query: {
    readonly tenant: string | null
    readonly metric?: string | undefined
    readonly limit: number
  }): ReservationView[] {
    this.#sweep(this.#o.clock.now())
    const found: ReservationView[] = []
    for (const reservation of this.#byId.values()) {
      if (found.length >= query.limit) break
      if (reservation.held === 0n || (query.tenant !== null && reservation.tenant !== query.tenant)) continue
      if (query.metric === undefined || reservation.metric === query.metric) found.push(viewOf(reservation))
    }
    return found
  }

  get size(): number {
    return this.#byId.size
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
        held: this.#held.get(quota.key) ?? 0n,
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
    const known = this.#byKey.get(keyOfAsk(ask))
    if (known === undefined) return undefined
    if (known.metric !== ask.metric || known.quantity !== quantity || known.subject !== (ask.subject ?? null))
      throw new ReleveError('conflict', `key: ${known.id} has it already, with another metric, n or subject`)
    await known.written
    return viewOf(known)
  }

  #find(id: string, tenant: string | null): Reservation {
    const reservation = this.#byId.get(id)
    if (reservation === undefined || (tenant !== null && reservation.tenant !== tenant))
      throw new ReleveError('not_found', `there is no reservation ${id}`)
    return reservation
  }

  #assertHeld(reservation: Reservation, now: number): void {
    if (reservation.state === 'held' && reservation.expiresAt > now) return
    const ended = reservation.state === 'held' ? 'expired' : reservation.state
    throw new ReleveError(
      'conflict',
      `the reservation is ${ended}${ended === 'expired' ? ': its hold has ended; send the usage all the same' : ''}`,
    )
  }

  /** The end of a reservation onto disk. When that fails it goes on as it was: what is not on disk did not happen. */
  async #write(reservation: Reservation, step: Step): Promise<void> {
    const written = this.#o.journal.append(this.#o.clock.now(), [step])
    reservation.written = written
    try {
      await written
    } catch (error) {
      reservation.written = Promise.resolve()
      reservation.state = 'held'
      reservation.actual = undefined
      this.#ended.delete(reservation)
      this.#hold(reservation, reservation.quantity)
      this.#lease(reservation)
      throw error
    }
  }

  #lease(reservation: Reservation): void {
    const second = Math.ceil(reservation.expiresAt / 1000)
    const leases = this.#leases.get(second)
    if (leases === undefined) this.#leases.set(second, new Set([reservation]))
    else leases.add(reservation)
  }

  /** What a step does to the memory, at its first time as at every start. */
  #redo(step: Step, sequence: number): Reservation | undefined {
    if (step.step === 'reserve') {
      const { id, tenant, metric, subject, key, createdAt, expiresAt, quotas } = step
      const quantity = BigInt(step.quantity)
      // Written again by tidying: it is known, and lies further behind now.
      const before = this.#byId.get(id)
      if (before !== undefined) this.#forget(before)
      const fixed = { id, tenant, metric, subject, quantity, key, createdAt, expiresAt, quotas, sequence }
      const open = {
        state: 'held' as const,
        held: 0n,
        actual: undefined,
        until: 0,
        endedAt: 0,
        written: Promise.resolve(),
      }
      const reservation: Reservation = { ...fixed, ...open }
      this.#byId.set(id, reservation)
      this.#byKey.set(keyOfAsk(reservation), reservation)
      this.#hold(reservation, quantity)
      this.#lease(reservation)
      return reservation
    }
    const reservation = this.#byId.get(step.id)
    if (reservation === undefined) return undefined
    this.#leases.get(Math.ceil(reservation.expiresAt / 1000))?.delete(reservation)
    reservation.endedAt = step.at
    this.#ended.add(reservation)
    if (step.step === 'release') {
      reservation.state = 'released'
      this.#unhold(reservation)
    } else {
      reservation.state = 'committed'
      reservation.actual = BigInt(step.actual)
      reservation.until = step.until
      this.#hold(reservation, reservation.actual)
    }
    return reservation
  }

  #hold(reservation: Reservation, amount: bigint): void {
    const change = amount - reservation.held
    reservation.held = amount
    for (const quota of reservation.quotas) {
      const held = (this.#held.get(quota) ?? 0n) + change
      if (held === 0n) this.#held.delete(quota)
      else this.#held.set(quota, held)
    }
  }

  #unhold(reservation: Reservation): void {
    this.#hold(reservation, 0n)
  }

  #settleLater(stream: number, reservation: Reservation): void {
    const settling = this.#settling[stream] ?? []
    this.#settling[stream] = settling
    settling.push(reservation)
  }

  /** Ends leases: everything whose second is over. The hold of one lasts at most a second longer than its lease. */
  #sweep(now: number): void {
    const second = Math.floor(now / 1000)
    if (second === this.#sweptSecond) return
    this.#sweptSecond = second
    for (const [at, leases] of this.#leases) {
      if (at > second) continue
      this.#leases.delete(at)
      for (const reservation of leases) {
        if (reservation.state !== 'held') continue
        reservation.state = 'expired'
        reservation.endedAt = now
        this.#ended.add(reservation)
        this.#unhold(reservation)
        this.#o.metrics.reservations.inc({ outcome: 'expired' })
      }
    }
    for (const reservation of this.#ended) {
      if (reservation.endedAt + limits.reservationKeptMs > now) break
      this.#drop(reservation)
    }
  }

  /** An ended one is forgotten before its time when there is no other room. */
  #makeRoom(): void {
    if (this.#byId.size < limits.reservationsMax) return
    for (const reservation of this.#ended) {
      if (reservation.held !== 0n) continue
      this.#drop(reservation)
      return
    }
    throw new ReleveError('overloaded', `${this.#byId.size} reservations are held`, { retryAfterS: 1 })
  }

  #drop(reservation: Reservation): void {
    // What still holds stays until the log is applied.
    if (reservation.held === 0n) this.#forget(reservation)
  }

  #forget(reservation: Reservation): void {
    this.#unhold(reservation)
    this.#byId.delete(reservation.id)
    if (this.#byKey.get(keyOfAsk(reservation)) === reservation) this.#byKey.delete(keyOfAsk(reservation))
    this.#ended.delete(reservation)
    this.#leases.get(Math.ceil(reservation.expiresAt / 1000))?.delete(reservation)
  }

  /** Gives the journal's beginning back; long leases that lie far behind are written again, so that they do not keep it. */
  async #tidy(): Promise<void> {
    if (this.#tidying) return
    this.#tidying = true
    const { journal, clock, logger } = this.#o
    try {
      for (let written = 0; written < limits.reservationsRewrittenMax; written += 1) {
        const oldest = this.#byId.values().next().value
        const isFar =
          oldest !== undefined && oldest.sequence > 0 && journal.last - oldest.sequence > limits.reservationJournalSpan
        if (!isFar) break
        await oldest.written
        if (this.#byId.get(oldest.id) !== oldest) continue
        if (oldest.held === 0n) {
          this.#forget(oldest)
          continue
        }
        const steps = stepsOf(oldest)
        this.#byId.delete(oldest.id)
        this.#byId.set(oldest.id, oldest)
        oldest.sequence = 0
        oldest.written = journal.append(clock.now(), steps).then((sequence) => {
          oldest.sequence = sequence
        })
        await oldest.written
      }
      const first = this.#byId.values().next().value
      if (first === undefined) await journal.forget(journal.last + 1)
      else if (first.sequence > 0) await journal.forget(first.sequence)
    } catch (error) {
      logger.warn({ error: String(error) }, 'the journal of reservations is not tidied, done again')
    } finally {
      this.#tidying = false
    }
  }
}

const keyOfAsk = ({ tenant, key }: { readonly tenant: string; readonly key: string }): string =>
  `${tenant.length} ${tenant} ${key}`

/** Everything that a start must know of it. */
function stepsOf(reservation: Reservation): Step[] {
  const { id, tenant, metric, subject, quantity, key, createdAt, expiresAt, quotas, state, actual, until, endedAt } =
    reservation
  const fixed = { id, tenant, metric, subject, key, createdAt, expiresAt, quotas }
  const steps: Step[] = [{ step: 'reserve', ...fixed, quantity: quantity.toString() }]
  if (state === 'committed') steps.push({ step: 'commit', id, actual: actual!.toString(), until, at: endedAt })
  if (state === 'released') steps.push({ step: 'release', id, at: endedAt })
  return steps
}

function viewOf(reservation: Reservation): ReservationView {
  const { id, tenant, metric, subject, quantity, state, expiresAt, actual, held } = reservation
  return {
    id,
    tenant,
    metric,
    subject,
    quantity: print(quantity),
    state,
    expiresAt: iso(expiresAt),
    actual: actual === undefined ? null : print(actual),
    holds: held !== 0n,
  }
}
