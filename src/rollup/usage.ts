/**
 * A usage question → SQL with parameters. Pure: the text is tested as text, the figures against an oracle.
 *
 * Which rung answers: hour rows of folded epochs plus minute rows of later ones, when every boundary lies on a whole UTC hour and
 * the cut is not older than the fold; minute rows alone otherwise. Windows are computed by luxon and handed over as a list of
 * boundaries, so that a day of 23 or 25 hours and a zone on a half hour come from the library and not from SQL.
 *
 * Overrides (after a void of a max, min or latest metric): for those aggregations a row counts when its epoch is above the last
 * override of its (series, window), or when it is that override.
 */
import type { Aggregation } from '../catalog/metric.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { HOUR_MS, MINUTE_MS, type Period, type WindowSize, windowOf } from '../period.js'
import { type Only, onHours, onlyCondition, onlyParams, windowsBetween } from './only.js'

export interface UsageQuery {
  readonly tenant: string
  readonly metric: string
  readonly aggregation: Aggregation
  /** Half-open, epoch ms. On whole minutes. */
  readonly from: number
  readonly to: number
  /** null: one figure for the whole range. */
  readonly window: WindowSize | null
  /** IANA zone of days and months. */
  readonly timeZone: string
  readonly subject?: string | undefined
  /** What an item takes of the metric. */
  readonly only?: Only | undefined
  /** Only series with these dimension values. */
  readonly dims?: Readonly<Record<string, string>> | undefined
  /** «subject» or names of dimensions. */
  readonly groupBy: readonly string[]
  readonly stream: number
  /** Rows of epochs up to this one. */
  readonly epoch: number
  /** Epochs up to this one are in hour rows. */
  readonly folded: number
  /** All windows of epochs in (folded, epoch] lie in it; null: they have none; absent: they may lie anywhere. */
  readonly unfolded?: Period | null | undefined
  /** An override that is not folded yet touches the range: then minutes answer. */
  readonly minutesOnly: boolean
}

export interface Statement {
  readonly query: string
  readonly params: Record<string, unknown>
}

/** One row of the answer, as ClickHouse gives it: decimals and 64-bit integers as text. */
export interface UsageRow {
  /** Start of the window, epoch seconds. */
  readonly bucket: number
  readonly groups: readonly string[]
  readonly sum: string
  readonly count: string
  readonly samples: string
  readonly min: string
  readonly max: string
  readonly last: string
  /** Distinct members; only for unique metrics. */
  readonly members: string
}

const seconds = (ms: number): number => Math.floor(ms / 1000)

/** A question with the starts of its windows, which are computed once: they cost microseconds each. */
export interface PreparedQuery extends UsageQuery {
  readonly starts: readonly number[]
}

/** The starts of the windows that touch [from, to), the first one cut to `from`. Minutes are their own and have none here. */
export function windowStarts(query: Pick<UsageQuery, 'from' | 'to' | 'window' | 'timeZone'>): number[] {
  const { from, to, window, timeZone } = query
  if (window === null) return [from]
  const tooMany = (max: number): ReleveError =>
    new ReleveError(
      'invalid_request',
      `the range has more than ${max} windows: choose a larger window or a shorter range`,
    )
  if (window === 'minute') {
    if ((to - from) / MINUTE_MS > limits.usageRowsMax) throw tooMany(limits.usageRowsMax)
    return []
  }
  const starts: number[] = []
  for (let at = from; at < to; at = windowOf(at, window, timeZone).to) {
    if (starts.length === limits.usageWindowsMax) throw tooMany(limits.usageWindowsMax)
    starts.push(at)
  }
  return starts
}

export function readsHours(query: PreparedQuery): boolean {
  if (query.minutesOnly || query.window === 'minute' || query.epoch < query.folded || query.folded === 0) return false
  const aligned = (ms: number): boolean => ms % HOUR_MS === 0
  return aligned(query.from) && aligned(query.to) && query.starts.every(aligned) && onHours(query.only, HOUR_MS)
}

/** Whether epochs that are not in hours yet may have something in the hours that the range touches. */
export function touchesUnfolded({ from, to, unfolded }: Pick<UsageQuery, 'from' | 'to' | 'unfolded'>): boolean {
  if (unfolded == null) return unfolded === undefined
  return unfolded.from < Math.ceil(to / HOUR_MS) * HOUR_MS && unfolded.to > Math.floor(from / HOUR_MS) * HOUR_MS
}

/** Whether min, max and last say something for an aggregation, so that overrides matter. */
export function hasExtremes(aggregation: Aggregation): boolean {
  return aggregation === 'max' || aggregation === 'min' || aggregation === 'latest'
}

function conditions(
  query: PreparedQuery,
  column: 'window' | 'bucket',
): { where: string; params: Record<string, unknown> } {
  const where = [
    'tenant = {tenant:String}',
    'metric = {metric:String}',
    `${column} >= {from:DateTime('UTC')}`,
    `${column} < {to:DateTime('UTC')}`,
    'stream = {stream:UInt16}',
  ]
  const params: Record<string, unknown> = {
    tenant: query.tenant,
    metric: query.metric,
    from: seconds(query.from),
    to: seconds(query.to),
    stream: query.stream,
    epoch: query.epoch,
    folded: query.folded,
    starts: query.starts.map(seconds),
  }
  if (query.subject !== undefined) {
    where.push('subject = {subject:String}')
    params.subject = query.subject
  }
  Object.entries(query.dims ?? {}).forEach(([name, value], i) => {
    where.push(`JSONExtractString(dims, {dim${i}:String}) = {dimValue${i}:String}`)
    params[`dim${i}`] = name
    params[`dimValue${i}`] = value
  })
  const only = onlyCondition(query.only, windowsBetween(column))
  return { where: `${where.join(' AND ')}${only}`, params: { ...params, ...onlyParams(query.only) } }
}

function groupColumns(query: PreparedQuery, params: Record<string, unknown>): string {
  const columns = query.groupBy.map((name, i) => {
    if (name === 'subject') return 'subject'
    params[`group${i}`] = name
    return `JSONExtractString(dims, {group${i}:String})`
  })
  return `[${columns.join(', ')}]::Array(String)`
}

/** The window's start, by the boundaries. Minutes are their own. */
function bucketColumn(query: PreparedQuery, column: 'window' | 'bucket'): string {
  if (query.window === 'minute') return `toUInt32(${column})`
  return `roundDown(toUInt32(${column}), {starts:Array(UInt32)})`
}

export function buildUsageQuery(query: PreparedQuery): Statement {
  return query.aggregation === 'unique' ? membersQuery(query) : figuresQuery(query)
}

function figuresQuery(query: PreparedQuery): Statement {
  const { where, params } = conditions(query, 'window')
  const columns =
    'window, subject, dims, sum, count, samples, min, max, last, last_time, last_position, override, epoch'
  const hours = `SELECT ${columns} FROM usage_hour WHERE ${where} AND epoch <= {folded:UInt64}`
  const minutes = `SELECT ${columns} FROM usage_minute WHERE ${where} AND epoch <= {epoch:UInt64}`
  // Each branch costs ClickHouse 5 ms before it has read a row, so one that has nothing is left out.
  const both = touchesUnfolded(query) ? `${hours}\n    UNION ALL\n    ${minutes} AND epoch > {folded:UInt64}` : hours
  const rows = readsHours(query) ? both : minutes
  const groups = groupColumns(query, params)
  const extremes = hasExtremes(query.aggregation)
    ? `countIf(kept) > 0 ? sumIf(samples, kept) : 0 AS n,
  minIf(min, kept AND samples > 0) AS min_value,
  maxIf(max, kept AND samples > 0) AS max_value,
  argMaxIf(last, (last_time, last_position), kept AND samples > 0) AS last_value`
    : `0 AS n, 0::Decimal(38, 9) AS min_value, 0::Decimal(38, 9) AS max_value, 0::Decimal(38, 9) AS last_value`
  // `overridden` is the epoch of the last override of the row's (series, window); only asked for when it can matter.
  const source = hasExtremes(query.aggregation)
    ? `SELECT *, max(if(override = 1, epoch, 0)) OVER (PARTITION BY subject, dims, window) AS overridden,
      epoch > overridden OR (override = 1 AND epoch = overridden) AS kept
    FROM (${rows})`
    : rows
  return {
    query: `SELECT ${bucketColumn(query, 'window')} AS bucket, ${groups} AS groups,
  sum(sum) AS sum_value, sum(count) AS count_value,
  ${extremes}, 0 AS members
FROM (
    ${source}
)
GROUP BY bucket, groups
ORDER BY bucket, groups
LIMIT ${limits.usageRowsMax + 1}`,
    params,
  }
}

function membersQuery(query: PreparedQuery): Statement {
  const { where, params } = conditions(query, 'bucket')
  const groups = groupColumns(query, params)
  return {
    query: `SELECT bucket_start AS bucket, groups, 0 AS sum_value, sum(events) AS count_value, 0 AS n,
  0 AS min_value, 0 AS max_value, 0 AS last_value, countIf(events > 0) AS members
FROM (
  SELECT ${bucketColumn(query, 'bucket')} AS bucket_start, ${groups} AS groups, member, sum(n) AS events
  FROM usage_members WHERE ${where} AND epoch <= {epoch:UInt64}
  GROUP BY bucket_start, groups, member
)
GROUP BY bucket_start, groups
ORDER BY bucket, groups
LIMIT ${limits.usageRowsMax + 1}`,
    params,
  }
}

/** Throws ReleveError for a range that cannot be asked. */
export function checkRange(from: number, to: number): void {
  if (from >= to) throw new ReleveError('invalid_request', 'from must lie before to')
  if (from % MINUTE_MS !== 0 || to % MINUTE_MS !== 0) {
    throw new ReleveError('invalid_request', 'from and to must lie on whole minutes')
  }
}
