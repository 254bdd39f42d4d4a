/**
 * Answers: what a customer, an operator or an auditor may ask of the usage side. Read only: usage by window, live quotas.
 * An answer says which epoch or record it holds, so that two answers can be compared.
 */
import { DateTime } from 'luxon'
import type { Catalog } from './catalog/catalog.js'
import { isLive, type Metric } from './catalog/metric.js'
import type { Clock } from './clock.js'
import { Decimal, printDecimal } from './decimal.js'
import { ReleveError } from './errors.js'
import type { StreamFlow } from './flow.js'
import { limits } from './limits.js'
import type { LiveItems, LivePacks } from './live-items.js'
import { HOUR_MS, isTimeZone, type Period, parseMoment, type WindowSize } from './period.js'
import type { PackState } from './prepaid/prepaid.js'
import type { BalanceView } from './quota/balance.js'
import { type QuotaState, type QuotaStatus, quotaStatus } from './quota/status.js'
import { figureOf, type MeasuredUsage, measureMany } from './rollup/measure.js'
import type { Rollup } from './rollup/rollup.js'
import { checkRange, type UsageQuery } from './rollup/usage.js'

export interface UsageAsk {
  readonly tenant: string
  readonly metric: string
  /** RFC 3339 or epoch ms, as text. */
  readonly from: string
  readonly to: string
  readonly window: WindowSize | null
  readonly timeZone: string
  readonly subject?: string | undefined
  readonly dims?: Readonly<Record<string, string>>
  readonly groupBy?: readonly string[]
}

export interface UsageAnswer {
  readonly tenant: string
  readonly metric: string
  readonly aggregation: string
  readonly unit: string
  readonly windows: readonly {
    readonly from: string
    readonly groups: Readonly<Record<string, string>>
    /** Decimal text; null when no event says anything (max of nothing). */
    readonly value: string | null
    /** Events, voids taken off. */
    readonly count: string
  }[]
  /** Epoch of the tenant's stream that the answer holds; what came later is not in it. */
  readonly asOf: { readonly stream: number; readonly epoch: number; readonly lagMs: number }
}

export interface QuotaLine {
  readonly contract: string
  readonly item: string
  readonly product: string
  readonly metric: string
  readonly period: { readonly from: string; readonly to: string }
  readonly usage: string
  /** null: unlimited. */
  readonly limit: string | null
  /** One decimal; null for unlimited or a limit of 0. */
  readonly percent: string | null
  readonly overage: string | null
  readonly status: QuotaState
  /** How the figure was read, and how old it is. */
  readonly state: BalanceView['state'] | 'counted'
  /** With packs behind the quota; then `overage` is what neither pays. */
  readonly prepaid?: PackState
  readonly asOf: { readonly sequence: number; readonly ageMs: number }
}

export interface AnswersOptions {
  readonly catalog: Catalog
  readonly rollup: Rollup
  readonly clock: Clock
  /** The stream that counts a tenant. */
  readonly flowOf: (tenant: string) => StreamFlow
  /** What items have that do not simply have all of a metric. */
  readonly items: LiveItems
}

export class Answers {
  readonly #catalog: Catalog
  readonly #rollup: Rollup
  readonly #clock: Clock
  readonly #flowOf: AnswersOptions['flowOf']
  readonly #items: LiveItems

  constructor({ catalog, rollup, clock, flowOf, items }: AnswersOptions) {
    this.#items = items
    this.#catalog = catalog
    this.#rollup = rollup
    this.#clock = clock
    this.#flowOf = flowOf
  }

  async usage(ask: UsageAsk): Promise<UsageAnswer> {
    const metric = this.#catalog.metric(ask.metric)
    if (!isTimeZone(ask.timeZone))
      throw new ReleveError('invalid_request', `tz: ${ask.timeZone} is not an IANA time zone`)
    const from = parseMoment('from', ask.from)
    const to = parseMoment('to', ask.to)
    checkRange(from, to)
    const groupBy = ask.groupBy ?? []
    for (const name of [...groupBy, ...Object.keys(ask.dims ?? {})]) {
      if (name !== 'subject' && !metric.dims.includes(name)) {
        throw new ReleveError(
          'invalid_request',
          `${metric.key} has no dimension ${name}: it has ${['subject', ...metric.dims].join(', ')}`,
        )
      }
    }
    const quarter = HOUR_MS / 4
    if (metric.aggregation === 'unique' && (ask.window === 'minute' || from % quarter !== 0 || to % quarter !== 0)) {
      throw new ReleveError(
        'invalid_request',
        'unique counts are kept by 15 minutes: choose window hour, day or month, and a range on quarters',
      )
    }
    const flow = this.#flowOf(ask.tenant)
    const { epoch, folded, unfolded } = flow.position
    const asOf = { stream: flow.stream, epoch, lagMs: flow.flushLagMs() }
    const { tenant } = ask
    if (!isLive(metric.aggregation)) {
      if (
        ask.window !== null ||
        ask.subject !== undefined ||
        groupBy.length > 0 ||
        Object.keys(ask.dims ?? {}).length > 0
      )
        throw new ReleveError(
          'unprocessable',
          `${metric.key}: a ${metric.aggregation} is answered for a whole range, without window, group or filter`,
        )
      const { quantity, count } = await this.#measured(tenant, metric, { from, to })
      const start = DateTime.fromMillis(from, { zone: ask.timeZone }).toISO({ suppressMilliseconds: true })!
      const windows = [{ from: start, groups: {}, value: quantity, count: String(count) }]
      return { tenant, metric: metric.key, aggregation: metric.aggregation, unit: metric.unit, windows, asOf }
    }
    const query = {
      tenant: ask.tenant,
      metric: metric.key,
      aggregation: metric.aggregation,
      from,
      to,
      window: ask.window,
      timeZone: ask.timeZone,
      subject: ask.subject,
      dims: ask.dims,
      groupBy,
      stream: flow.stream,
      epoch,
      folded,
      unfolded,
    } satisfies Omit<UsageQuery, 'minutesOnly'>
    const { rows } = await this.#rollup.usage(query)
    if (rows.length > limits.usageRowsMax) {
      throw new ReleveError(
        'invalid_request',
        `the answer has more than ${limits.usageRowsMax} rows: ask for less at a time`,
      )
    }
    return {
      tenant: ask.tenant,
      metric: metric.key,
      aggregation: metric.aggregation,
      unit: metric.unit,
      windows: rows.map((row) => ({
        from: DateTime.fromSeconds(row.bucket, { zone: ask.timeZone }).toISO({ suppressMilliseconds: true })!,
        groups: Object.fromEntries(groupBy.map((name, i) => [name, row.groups[i]!])),
        value: figureOf(metric.aggregation, row),
        count: row.count,
      })),
      asOf,
    }
  }

  /** What cannot be kept live is counted when it is asked for; what rollups and archive disagree about is not answered. */
  async #measured(tenant: string, metric: Metric, period: Period): Promise<MeasuredUsage> {
    const flow = this.#flowOf(tenant)
    const { epoch, folded } = flow.position
    const [found] = await measureMany(this.#rollup, [{ tenant, metric, period }], {
      stream: flow.stream,
      epoch,
      folded,
    })
    if (found!.mismatch !== null) throw new ReleveError('conflict', found!.mismatch)
    return found!
  }

  /** Live balances with the state of each quota. What the shard does not know live is read from ClickHouse, with its age. */
  async quotas(tenant: string): Promise<{ tenant: string; quotas: QuotaLine[] }> {
    const flow = this.#flowOf(tenant)
    const now = this.#clock.now()
    // Without a contract it is there for an alert rule alone.
    const views = (await flow.balances(tenant)).filter(
      ({ entitlement, period }) => entitlement.contract !== '' && period.from <= now && now < period.to,
    )
    const quotas = await Promise.all(
      views.map(async (view): Promise<QuotaLine> => {
        const { entitlement, period } = view
        const { epoch, folded, unfolded, checkpoint } = flow.position
        const counted = await this.#items.of(tenant, entitlement.metric)
        const own = counted?.find((one) => one.item === entitlement.item && one.contract === entitlement.contract)
        const limit = own === undefined ? entitlement.limit : own.limit
        let usage: string | null = own?.shared === true ? own.usage : view.state === 'live' ? view.usage : null
        let sequence = view.asOf.sequence
        let asOfMs = view.asOf.receivedAt
        if (own?.shared === true) {
          sequence = checkpoint
          asOfMs = now - flow.flushLagMs()
        }
        if (usage === null) {
          const { rows } = await this.#rollup.usage({
            tenant,
            metric: entitlement.metric,
            aggregation: entitlement.aggregation,
            from: period.from,
            to: period.to,
            window: null,
            timeZone: entitlement.timeZone,
            groupBy: [],
            stream: flow.stream,
            epoch,
            folded,
            unfolded,
          })
          usage = (rows[0] === undefined ? null : figureOf(entitlement.aggregation, rows[0])) ?? '0'
          sequence = checkpoint
          asOfMs = now - flow.flushLagMs()
          if (view.state === 'stale')
            await flow.observe(entitlement, period.from, usage, { receivedAt: asOfMs, sequence, epoch })
        }
        const packs = own?.prepaid == null ? null : packsAt(own.prepaid, usage)
        const status = packs === null ? quotaStatus(usage, limit) : withPacks(packs, usage, limit!)
        return {
          contract: entitlement.contract,
          item: entitlement.item,
          product: entitlement.product,
          metric: entitlement.metric,
          period: { from: isoIn(period.from, entitlement.timeZone), to: isoIn(period.to, entitlement.timeZone) },
          usage,
          limit,
          percent: status.percent,
          overage: status.overage,
          status: status.status,
          state: own?.shared === true ? 'counted' : view.state,
          ...(packs === null ? {} : { prepaid: packs }),
          // Nothing that came later is missing when the shard has applied all; else the age of what it has.
          asOf: { sequence, ageMs: flow.position.last > sequence ? Math.max(0, now - asOfMs) : 0 },
        }
      }),
    )
    return { tenant, quotas }
  }
}

/** The packs as they were counted, after what has been used since: the quota first, then they. */
function packsAt({ room, ...counted }: LivePacks, usage: string): PackState {
  const left = new Decimal(room).minus(usage)
  const since = new Decimal(counted.left).minus(left)
  const quota = Decimal.max(new Decimal(counted.left).minus(counted.packs).minus(since), 0)
  const packs = Decimal.max(left, 0).minus(quota)
  return {
    left: printDecimal(Decimal.max(left, 0)),
    packs: printDecimal(packs),
    covered: printDecimal(new Decimal(counted.covered).plus(counted.packs).minus(packs)),
    beyond: printDecimal(Decimal.max(left.negated(), 0).plus(counted.beyond)),
    exhaustion: counted.exhaustion,
  }
}

/** Where usage stands against all that the quota and packs give. */
function withPacks({ left, packs, covered, beyond }: PackState, usage: string, limit: string): QuotaStatus {
  const all = printDecimal(new Decimal(limit).plus(covered).plus(packs))
  const status = left !== '0' ? 'within' : beyond === '0' ? 'at_limit' : 'over'
  return { percent: quotaStatus(usage, all).percent, overage: beyond, status }
}

const isoIn = (time: number, zone: string): string =>
  DateTime.fromMillis(time, { zone }).toISO({ suppressMilliseconds: true })!
