/**
 * Quantities to be billed: what the rollups say, held against what the archive says, for many metrics of many tenants in a few
 * questions. A figure that cannot be proved is not billed; it comes back as a mismatch for an operator.
 *
 * Sums, counts and averages of all tenants of a chunk are two questions, one to the rollups and one to the archive. The other
 * aggregations (extremes with their overrides, unique members, levels over time, percentiles) are asked one by one.
 */

import type { Aggregation, Metric } from '../catalog/metric.js'
import { Decimal, printDecimal, round } from '../decimal.js'
import { limits } from '../limits.js'
import { HOUR_MS, type Period } from '../period.js'
import { type Only, onHours, onlyCondition, onlyParams, windowsBetween } from './only.js'
import {
  EVENT_DIGEST,
  type Heads,
  type ProofAnswer,
  prove,
  shownQuestion,
  type ValueCount,
  valuesBehind,
} from './proof.js'
import type { Rollup } from './rollup.js'
import type { UsageRow } from './usage.js'

export interface MeasureRequest {
  readonly tenant: string
  readonly metric: Pick<Metric, 'key' | 'aggregation' | 'archive' | 'percentile'>
  readonly period: Period
  /** The values of the events are wanted too, so many of the first ones by themselves. */
  readonly heads?: Heads | undefined
  /** Absent: all of the metric. */
  readonly only?: Only | undefined
}

export interface MeasuredUsage {
  /** Decimal text. */
  readonly quantity: string
  /** Of a weighted sum: the level that the period opened with. Kept with the closing. */
  readonly opening?: string
  /** Only with `heads`. */
  readonly amounts?: readonly ValueCount[]
  readonly count: number
  readonly digest: string
  readonly query: string
  /** What rollups and archive disagree about; then nothing may be billed. */
  readonly mismatch: string | null
}

/** The state of a stream that is counted. */
export interface StreamCut {
  readonly stream: number
  /** Events of epochs up to this one. */
  readonly epoch: number
  /** Epochs up to this one are in hour rows. */
  readonly folded: number
}

/** One answer per request, in their order. */
export async function measureMany(
  rollup: Rollup,
  requests: readonly MeasureRequest[],
  cut: StreamCut,
): Promise<MeasuredUsage[]> {
  const answers: MeasuredUsage[] = []
  const groups = new Map<string, number[]>()
  const single: number[] = []
  for (const [i, { metric, period, only }] of requests.entries()) {
    if (!isSummed(metric.aggregation) || only !== undefined) {
      single.push(i)
      continue
    }
    const key = `${period.from} ${period.to}`
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [i])
    else group.push(i)
  }
  for (const indices of groups.values()) {
    for (let at = 0; at < indices.length; at += limits.measureGroupMax) {
      const part = indices.slice(at, at + limits.measureGroupMax)
      const found = await measureSums(
        rollup,
        part.map((i) => requests[i]!),
        cut,
      )
      for (const [j, i] of part.entries()) answers[i] = found[j]!
    }
  }
  for (const i of single) answers[i] = await measureOne(rollup, requests[i]!, cut)
  for (const [i, request] of requests.entries()) {
    const { heads, tenant, metric, period, only } = request
    if (heads === undefined) continue
    const amounts = await valuesBehind(rollup, { tenant, metric: metric.key, period, only, ...cut }, heads)
    const tooMany = `${tenant} ${metric.key}: more than ${limits.eventValuesMax} different amounts, and its price is by the event`
    answers[i] = amounts === null ? { ...answers[i]!, mismatch: tooMany } : { ...answers[i]!, amounts }
  }
  return answers
}

const isSummed = (aggregation: Aggregation): boolean =>
  aggregation === 'sum' || aggregation === 'count' || aggregation === 'average'

async function measureSums(
  rollup: Rollup,
  requests: readonly MeasureRequest[],
  { stream, epoch, folded }: StreamCut,
): Promise<MeasuredUsage[]> {
  const { period } = requests[0]!
  const params = {
    tenants: [...new Set(requests.map((request) => request.tenant))],
    metrics: [...new Set(requests.map((request) => request.metric.key))],
    stream,
    epoch,
    folded,
  }
  const rows = (table: string, epochs: string): string =>
    `SELECT tenant, metric, sum, count FROM ${table}
  WHERE tenant IN {tenants:Array(String)} AND metric IN {metrics:Array(String)}
    AND window >= {from:DateTime('UTC')} AND window < {to:DateTime('UTC')} AND stream = {stream:UInt16} AND ${epochs}`
  const hours = folded > 0 && epoch >= folded && period.from % HOUR_MS === 0 && period.to % HOUR_MS === 0
  const source = hours
    ? `${rows('usage_hour', 'epoch <= {folded:UInt64}')}
  UNION ALL ${rows('usage_minute', 'epoch > {folded:UInt64} AND epoch <= {epoch:UInt64}')}`
    : rows('usage_minute', 'epoch <= {epoch:UInt64}')
  const [figures, proofs] = await Promise.all([
    rollup.rowsOf<{ tenant: string; metric: string; s: string; c: string }>(
      `SELECT tenant, metric, toString(sum(sum)) AS s, toString(sum(count)) AS c FROM (${source}) GROUP BY tenant, metric`,
      { ...params, from: period.from / 1000, to: period.to / 1000 },
    ),
    proveSums(rollup, { ...params, period }),
  ])
  const figureOfPair = new Map(figures.map((row) => [key(row.tenant, row.metric), row]))
  return requests.map(({ tenant, metric }) => {
    const row = figureOfPair.get(key(tenant, metric.key))
    const quantity = summed(metric.aggregation, row?.s ?? '0', row?.c ?? '0')
    const proof = proofs.get(key(tenant, metric.key)) ?? { events: 0, s: '0', c: '0', digest: '0'.repeat(64) }
    const archived = summed(metric.aggregation, proof.s, proof.c)
    return {
      quantity,
      count: proof.events,
      digest: proof.digest,
      query: shownQuestion({ tenant, metric: metric.key, aggregation: metric.aggregation, period, stream, epoch }),
      mismatch: metric.archive ? mismatchOf(tenant, metric.key, quantity, archived) : null,
    }
  })
}

async function proveSums(
  rollup: Rollup,
  request: {
    readonly tenants: readonly string[]
    readonly metrics: readonly string[]
    readonly period: Period
    readonly stream: number
    readonly epoch: number
  },
): Promise<Map<string, { readonly events: number; readonly s: string; readonly c: string; readonly digest: string }>> {
  const rows = await rollup.rowsOf<{ tenant: string; metric: string; n: string; s: string; c: string; digest: string }>(
    `SELECT tenant, metric, toString(count()) AS n, toString(sum(value * kind)) AS s, toString(sum(kind)) AS c,
  ${EVENT_DIGEST} AS digest
FROM usage_events
WHERE tenant IN {tenants:Array(String)} AND metric IN {metrics:Array(String)}
  AND event_time >= fromUnixTimestamp64Milli({from:Int64}) AND event_time < fromUnixTimestamp64Milli({to:Int64})
  AND stream = {stream:UInt16} AND epoch <= {epoch:UInt64}
GROUP BY tenant, metric`,
    {
      tenants: request.tenants,
      metrics: request.metrics,
      from: request.period.from,
      to: request.period.to,
      stream: request.stream,
      epoch: request.epoch,
    },
  )
  return new Map(
    rows.map((row) => [
      key(row.tenant, row.metric),
      { events: Number(row.n), s: row.s, c: row.c, digest: row.digest.padStart(64, '0') },
    ]),
  )
}

const key = (tenant: string, metric: string): string => `${tenant.length} ${tenant}${metric}`

async function measureOne(rollup: Rollup, request: MeasureRequest, cut: StreamCut): Promise<MeasuredUsage> {
  const { tenant, metric, period, only } = request
  const { aggregation, percentile } = metric
  const { stream, epoch } = cut
  const proof = await prove(rollup, {
    tenant,
    metric: metric.key,
    aggregation,
    percentile,
    period,
    stream,
    epoch,
    only,
  })
  const archived = archivedFigure(aggregation, period, proof)
  const { mismatch, ...figures } = await rolledUp(rollup, request, cut, proof.value, archived)
  return {
    ...figures,
    count: proof.events,
    digest: proof.digest,
    query: proof.query,
    mismatch: metric.archive ? mismatch : null,
  }
}

/**
 * A part of a metric, by the archive alone, as a verification asks, or by the rollups alone, for a figure that is not billed: what
 * the other says of it is left open.
 */
export async function measurePart(
  rollup: Rollup,
  request: MeasureRequest,
  cut: StreamCut,
  source: 'both' | 'archive' | 'rollups',
): Promise<MeasuredUsage> {
  const { tenant, metric, period, only, heads } = request
  if (source === 'both' || (source === 'archive' && !metric.archive))
    return (await measureMany(rollup, [request], cut))[0]!
  const { key, aggregation, percentile } = metric
  if (source === 'rollups' && aggregation !== 'percentile') {
    const { mismatch: _, ...figures } = await rolledUp(rollup, request, cut, null, '0')
    return { ...figures, count: 0, digest: '', query: '', mismatch: null }
  }
  const asked = { tenant, metric: key, aggregation, percentile, period, only, ...cut }
  const { events, digest, query, ...proof } = await prove(rollup, asked)
  return {
    quantity: archivedFigure(aggregation, period, proof),
    ...(aggregation === 'weighted_sum' ? { opening: new Decimal(proof.value?.split('/')[0] ?? '0').toFixed() } : {}),
    ...(heads === undefined ? {} : { amounts: (await valuesBehind(rollup, asked, heads)) ?? [] }),
    ...{ count: events, digest, query, mismatch: null },
  }
}

/** The figure of the rollups, and what is different in the archive. */
async function rolledUp(
  rollup: Rollup,
  { tenant, metric, period, only }: MeasureRequest,
  cut: StreamCut,
  value: string | null,
  archived: string,
): Promise<Pick<MeasuredUsage, 'quantity' | 'opening' | 'mismatch'>> {
  const { key, aggregation } = metric
  if (aggregation === 'weighted_sum') {
    const { quantity, opening } = await levelHours(rollup, { tenant, metric, period, only }, cut)
    return { quantity, opening, mismatch: mismatchOf(tenant, key, quantity, archived) }
  }
  const { rows } = await rollup.usage({
    tenant,
    metric: key,
    aggregation,
    from: period.from,
    to: period.to,
    window: null,
    timeZone: 'UTC',
    groupBy: [],
    only,
    ...cut,
  })
  // Rollups do not have every value: a percentile is the archive's, and the rollups say of how many events.
  if (aggregation === 'percentile') {
    const counts = [rows[0]?.count ?? '0', value?.split('/')[1] ?? '0'] as const
    return { quantity: archived, mismatch: mismatchOf(tenant, `${key} (events)`, ...counts) }
  }
  const quantity = (rows[0] === undefined ? null : figureOf(aggregation, rows[0])) ?? '0'
  return { quantity, mismatch: mismatchOf(tenant, key, quantity, archived) }
}

/** A level over a period, in units × hours: opening × (b − a) + b × Σv − Σv·t, the opening being all that came before. */
async function levelHours(
  rollup: Rollup,
  { tenant, metric, period, only }: MeasureRequest,
  { stream, epoch, folded }: StreamCut,
): Promise<{ readonly quantity: string; readonly opening: string }> {
  const rows = (table: string, epochs: string): string =>
    `SELECT window, sum, sum_vt FROM ${table}
  WHERE tenant = {tenant:String} AND metric = {metric:String} AND window < {to:DateTime('UTC')}
    AND stream = {stream:UInt16} AND ${epochs}${onlyCondition(only, windowsBetween('window'))}`
  const hours =
    folded > 0 && epoch >= folded && period.from % HOUR_MS === 0 && period.to % HOUR_MS === 0 && onHours(only, HOUR_MS)
  const source = hours
    ? `${rows('usage_hour', 'epoch <= {folded:UInt64}')}
  UNION ALL ${rows('usage_minute', 'epoch > {folded:UInt64} AND epoch <= {epoch:UInt64}')}`
    : rows('usage_minute', 'epoch <= {epoch:UInt64}')
  const [row] = await rollup.rowsOf<{ opening: string; area: string }>(
    `SELECT toString(sumIf(sum, window < {from:DateTime('UTC')})) AS opening,
  toString(sumIf(toDecimal256(sum, 9) * toInt256(1000 * (toInt64({toSeconds:UInt32}) - toUInt32(window))) - toDecimal256(sum_vt, 9),
    window >= {from:DateTime('UTC')})) AS area
FROM (${source})`,
    {
      tenant,
      metric: metric.key,
      stream,
      epoch,
      folded,
      from: period.from / 1000,
      to: period.to / 1000,
      toSeconds: period.to / 1000,
      ...onlyParams(only),
    },
  )
  const opening = new Decimal(row!.opening).toFixed()
  return { quantity: unitHours(period, opening, row!.area), opening }
}

/** Half up at nine decimals: an hour has 3,600,000 ms. */
function unitHours(period: Period, opening: string, area: string): string {
  const total = new Decimal(opening).times(period.to - period.from).plus(area)
  return printDecimal(round(total.dividedBy(HOUR_MS), 9))
}

function mismatchOf(tenant: string, metric: string, counted: string, archived: string): string | null {
  if (new Decimal(counted).eq(archived)) return null
  return `${tenant} ${metric}: the rollups say ${counted}, the archive says ${archived}: run releve audit, nothing is billed until they agree`
}

/** Rounded as live balances are. */
const averageOf = (total: string, count: string): string => new Decimal(total).div(count).toDecimalPlaces(9).toFixed()

function summed(aggregation: Aggregation, total: string, count: string): string {
  if (aggregation === 'count') return count
  if (aggregation === 'sum') return new Decimal(total).toFixed()
  return count === '0' ? '0' : averageOf(total, count)
}

/** What the archive says as decimal text; 0 for nothing. Parts of a figure come divided, so that it is rounded like the rollups'. */
export function archivedFigure(
  aggregation: Aggregation,
  period: Period,
  { value }: Pick<ProofAnswer, 'value'>,
): string {
  if (value === null) return '0'
  const [first = '0', second = '0'] = value.split('/')
  if (aggregation === 'average') return averageOf(first, second)
  if (aggregation === 'weighted_sum') return unitHours(period, first, second)
  return new Decimal(first).toFixed()
}

/** What a row says for an aggregation, as decimal text; null when nothing is there. */
export function figureOf(aggregation: Aggregation, row: UsageRow): string | null {
  switch (aggregation) {
    case 'sum':
      return new Decimal(row.sum).toFixed()
    case 'count':
      return row.count
    case 'unique':
      return row.members
    case 'average':
      return row.count === '0' ? null : averageOf(row.sum, row.count)
    case 'max':
      return row.samples === '0' ? null : new Decimal(row.max).toFixed()
    case 'min':
      return row.samples === '0' ? null : new Decimal(row.min).toFixed()
    case 'latest':
      return row.samples === '0' ? null : new Decimal(row.last).toFixed()
    // Not in a row: measureMany.
    case 'weighted_sum':
    case 'percentile':
      return null
  }
}
