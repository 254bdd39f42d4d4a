/**
 * Answers: what a customer, an operator or an auditor may ask of the usage side. Read only: usage by window, live quotas, refusals.
 * An answer says which epoch or record it holds, so that two answers can be compared.
 */
import { DateTime } from 'luxon'
import type { Catalog } from './catalog/catalog.js'
import type { Clock } from './clock.js'
import { ReleveError } from './errors.js'
import type { StreamFlow } from './flow.js'
import { limits } from './limits.js'
import { DAY_MS, HOUR_MS, isTimeZone, parseMoment, type WindowSize } from './period.js'
import type { BalanceView } from './quota/balance.js'
import { quotaStatus } from './quota/status.js'
import { figureOf } from './rollup/measure.js'
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
  readonly status: string
  /** How the figure was read, and how old it is. */
  readonly state: BalanceView['state']
  readonly asOf: { readonly sequence: number; readonly ageMs: number }
}

export interface AnswersOptions {
  readonly catalog: Catalog
  readonly rollup: Rollup
  readonly clock: Clock
  /** The stream that counts a tenant. */
  readonly flowOf: (tenant: string) => StreamFlow
}

export class Answers {
  readonly #catalog: Catalog
  readonly #rollup: Rollup
  readonly #clock: Clock
  readonly #flowOf: AnswersOptions['flowOf']

  constructor({ catalog, rollup, clock, flowOf }: AnswersOptions) {
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
    const { epoch, folded } = flow.position
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
      asOf: { stream: flow.stream, epoch, lagMs: flow.flushLagMs() },
    }
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
        const { epoch, folded, checkpoint } = flow.position
        let usage = view.state === 'live' ? view.usage : null
        let sequence = view.asOf.sequence
        let asOfMs = view.asOf.receivedAt
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
          })
          usage = (rows[0] === undefined ? null : figureOf(entitlement.aggregation, rows[0])) ?? '0'
          sequence = checkpoint
          asOfMs = now - flow.flushLagMs()
          if (view.state === 'stale')
            await flow.observe(entitlement, period.from, usage, { receivedAt: asOfMs, sequence, epoch })
        }
        const status = quotaStatus(usage, entitlement.limit)
        return {
          contract: entitlement.contract,
          item: entitlement.item,
          product: entitlement.product,
          metric: entitlement.metric,
          period: { from: isoIn(period.from, entitlement.timeZone), to: isoIn(period.to, entitlement.timeZone) },
          usage,
          limit: entitlement.limit,
          percent: status.percent,
          overage: status.overage,
          status: status.status,
          state: view.state,
          // Nothing that came later is missing when the shard has applied all; else the age of what it has.
          asOf: { sequence, ageMs: flow.position.last > sequence ? Math.max(0, now - asOfMs) : 0 },
        }
      }),
    )
    return { tenant, quotas }
  }

  async rejects(query: {
    tenant: string | null
    code?: string | undefined
    from?: string | undefined
    to?: string | undefined
    limit: number
  }): Promise<unknown[]> {
    const now = this.#clock.now()
    const rows = await this.#rollup.rowsOf<Record<string, unknown>>(
      `SELECT tenant, code, field, message, source, id, metric, raw, toUnixTimestamp64Milli(received_at) AS received_at
FROM ingest_rejects
WHERE ({anyTenant:UInt8} = 1 OR tenant = {tenant:String}) AND ({code:String} = '' OR code = {code:String})
  AND received_at >= fromUnixTimestamp64Milli({from:Int64}) AND received_at < fromUnixTimestamp64Milli({to:Int64})
ORDER BY received_at DESC, position DESC LIMIT {limit:UInt32}`,
      {
        anyTenant: query.tenant === null ? 1 : 0,
        tenant: query.tenant ?? '',
        code: query.code ?? '',
        from: query.from === undefined ? now - 7 * DAY_MS : parseMoment('from', query.from),
        to: query.to === undefined ? now + DAY_MS : parseMoment('to', query.to),
        limit: query.limit,
      },
    )
    return rows.map(({ received_at, ...row }) => ({ ...row, receivedAt: new Date(Number(received_at)).toISOString() }))
  }
}

const isoIn = (time: number, zone: string): string =>
  DateTime.fromMillis(time, { zone }).toISO({ suppressMilliseconds: true })!
