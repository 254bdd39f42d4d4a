/**
 * Proof: how many archived events stand behind a figure, what they add up to, and a digest over them. Read from the archive with
 * a query of its own, never from rollups, so that the two can be held against each other.
 *
 * The digest does not depend on order: the sum modulo 2^256 of SHA-256 over each event (an additive multiset hash). The same
 * events give the same digest wherever and in whatever order they are read; one event more, less or other gives another.
 */
import type { Aggregation } from '../catalog/metric.js'
import { Decimal } from '../decimal.js'
import { limits } from '../limits.js'
import type { Period } from '../period.js'
import { type Only, onlyCondition, onlyParams, windowsBetween } from './only.js'
import type { Rollup } from './rollup.js'

export interface ProofRequest {
  readonly tenant: string
  readonly metric: string
  readonly aggregation: Aggregation
  /** Of a percentile metric: which one, percent. */
  readonly percentile?: string | undefined
  readonly period: Period
  readonly stream: number
  /** Events of epochs up to this one. */
  readonly epoch: number
  /** Absent: all of the metric. */
  readonly only?: Only | undefined
}

export interface ProofAnswer {
  /** Events, usage and voids. */
  readonly events: number
  /** What the archive says, decimal text; null when no event says anything. */
  readonly value: string | null
  /** Hex, 64 digits. */
  readonly digest: string
  /** The question, ready to be asked again by hand. */
  readonly query: string
}

/** The archived events that count: those of which no void was accepted. For aggregations that a negative row cannot express. */
const unvoided = (where: string): string =>
  `kind = 1 AND (source, id) NOT IN (SELECT source, id FROM usage_events WHERE ${where} AND kind = -1)`

function valueExpression(aggregation: Aggregation, where: string, before: string): string {
  switch (aggregation) {
    case 'sum':
      return 'toString(sum(value * kind))'
    case 'count':
      return 'toString(sum(kind))'
    case 'average':
      return `sum(kind) = 0 ? NULL : concat(toString(sum(value * kind)), '/', toString(sum(kind)))`
    case 'unique':
      return `toString(uniqExactIf(member, ${unvoided(where)}))`
    case 'max':
      return `countIf(${unvoided(where)}) = 0 ? NULL : toString(maxIf(value, ${unvoided(where)}))`
    case 'min':
      return `countIf(${unvoided(where)}) = 0 ? NULL : toString(minIf(value, ${unvoided(where)}))`
    case 'latest':
      return `countIf(${unvoided(where)}) = 0 ? NULL : toString(argMaxIf(value, (event_time, position), ${unvoided(where)}))`
    // The level before the period, and what each change adds until its end, in value × milliseconds.
    case 'weighted_sum':
      return `concat(toString((SELECT sum(value * kind) FROM usage_events WHERE ${before})), '/',
    toString(sum(toDecimal256(value, 9) * toInt256(kind * ({to:Int64} - toUnixTimestamp64Milli(event_time))))))`
    // The smallest value that enough events do not exceed, and how many there are. A void has its event's value.
    case 'percentile':
      return `sum(kind) <= 0 ? NULL : concat(toString((SELECT min(v) FROM (
      SELECT v, sum(n) OVER (ORDER BY v) AS up_to, sum(n) OVER () AS n_all
      FROM (SELECT value AS v, sum(kind) AS n FROM usage_events WHERE ${where} GROUP BY v HAVING n > 0))
    WHERE up_to * 10000 >= n_all * {percent:UInt32})), '/', toString(sum(kind)))`
  }
}

const EVENT_TEXT = `arrayStringConcat([toString(kind), source, id, subject, toString(toUnixTimestamp64Milli(event_time)), toString(value), dims, member], '\\0')`

/** Of one event, to be summed. */
export const EVENT_HASH = `reinterpretAsUInt256(SHA256(${EVENT_TEXT}))`
/** Of the events of a group. */
export const EVENT_DIGEST = `lower(hex(sumWithOverflow(${EVENT_HASH})))`

/** An archived event as the reader of a line sees it. Decimal text; times RFC 3339. */
export interface ArchivedEvent {
  /** Its place in the log, as text: what the next page continues behind. */
  readonly position: string
  readonly source: string
  readonly id: string
  readonly subject: string
  readonly time: string
  readonly value: string
  readonly dims: string
  readonly kind: 'usage' | 'void'
  readonly receivedAt: string
  readonly epoch: string
}

/** The events of a proof in the order of the log, a page at a time. `since` leaves those of epochs up to it out. */
export async function eventsBehind(
  rollup: Rollup,
  request: Omit<ProofRequest, 'aggregation'> & {
    readonly since: number
    readonly after: string
    readonly limit: number
  },
): Promise<ArchivedEvent[]> {
  return rollup.rowsOf<ArchivedEvent>(
    `SELECT toString(position) AS position, source, id, subject, formatDateTime(event_time, '%Y-%m-%dT%H:%i:%S.%fZ') AS time,
  toString(value) AS value, dims, if(kind = 1, 'usage', 'void') AS kind,
  formatDateTime(received_at, '%Y-%m-%dT%H:%i:%S.%fZ') AS receivedAt, toString(epoch) AS epoch
FROM usage_events
WHERE ${EVENTS}${part(request.only)} AND epoch > {since:UInt64} AND usage_events.position > {after:UInt64}
ORDER BY usage_events.position LIMIT {limit:UInt32}`,
    { ...paramsOf(request), since: request.since, after: request.after, limit: request.limit },
  )
}

/** Values that follow each other in the order of the events, or, behind the heads, equal ones together. */
export interface ValueCount {
  readonly amount: string
  readonly count: string
}

/** How many of the first events are told one by one, in the order of their times: so many, and those before the sum is reached. */
export interface Heads {
  readonly events: number
  readonly sum: string
}

/** The values of the events that count; null when there are more different ones than limits.eventValuesMax. */
export async function valuesBehind(
  rollup: Rollup,
  request: Omit<ProofRequest, 'aggregation'>,
  heads: Heads,
): Promise<ValueCount[] | null> {
  const events = `${EVENTS}${part(request.only)}`
  const rows = await rollup.rowsOf<ValueCount>(
    `SELECT toString(amount) AS amount, toString(count()) AS count FROM (
  SELECT value AS amount, row_number() OVER w AS place, sum(value) OVER w - value AS passed,
    place <= {headEvents:UInt32} OR passed < {headSum:Decimal(38, 9)} AS head
  FROM usage_events WHERE ${events} AND ${unvoided(events)}
  WINDOW w AS (ORDER BY event_time, position ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))
GROUP BY head, if(head, place, 0) AS nth, amount ORDER BY head DESC, nth, amount LIMIT {most:UInt32}`,
    { ...paramsOf(request), headEvents: heads.events, headSum: heads.sum, most: limits.eventValuesMax + 1 },
  )
  if (rows.length > limits.eventValuesMax) return null
  return rows.map(({ amount, count }) => ({ amount: new Decimal(amount).toFixed(), count }))
}

/** A list is one of names. */
const literal = (value: string | number | readonly string[]): string =>
  typeof value === 'number'
    ? String(value)
    : typeof value === 'string'
      ? quote(value)
      : `[${value.map(quote).join(', ')}]`
const quote = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`

const OF_METRIC =
  'tenant = {tenant:String} AND metric = {metric:String} AND stream = {stream:UInt16} AND epoch <= {epoch:UInt64}'
const EVENTS = `${OF_METRIC} AND event_time >= fromUnixTimestamp64Milli({from:Int64}) AND event_time < fromUnixTimestamp64Milli({to:Int64})`
const BEFORE = `${OF_METRIC} AND event_time < fromUnixTimestamp64Milli({from:Int64})`

const part = (only: Only | undefined): string => onlyCondition(only, windowsBetween('event_time'))

function paramsOf(request: Omit<ProofRequest, 'aggregation'>): Record<string, string | number | readonly string[]> {
  return {
    // In hundredths of a percent, a whole number.
    ...(request.percentile === undefined ? {} : { percent: new Decimal(request.percentile).times(100).toNumber() }),
    tenant: request.tenant,
    metric: request.metric,
    from: request.period.from,
    to: request.period.to,
    stream: request.stream,
    epoch: request.epoch,
    ...onlyParams(request.only),
  }
}

function question(aggregation: Aggregation, only?: Only): string {
  const events = `${EVENTS}${part(only)}`
  return `SELECT count() AS events, ${valueExpression(aggregation, events, `${BEFORE}${part(only)}`)} AS value,
  ${EVENT_DIGEST} AS digest
FROM usage_events WHERE ${events}`
}

/** The question of an aggregation in pieces, cut at its parameters: for showing it with their values. */
const pieces = new Map<Aggregation, readonly string[]>()

/** The question as it would be asked by hand, on one line. */
export function shownQuestion(request: ProofRequest): string {
  const { aggregation, only } = request
  let parts = only === undefined ? pieces.get(aggregation) : undefined
  if (parts === undefined) {
    parts = question(aggregation, only)
      .replaceAll(/\s+/g, ' ')
      .split(/\{(\w+):[\w()]+\}/)
    if (only === undefined) pieces.set(aggregation, parts)
  }
  const params = paramsOf(request)
  return parts.map((part, i) => (i % 2 === 0 ? part : literal(params[part]!))).join('')
}

export async function prove(rollup: Rollup, request: ProofRequest): Promise<ProofAnswer> {
  const [row] = await rollup.rowsOf<{ events: string; value: string | null; digest: string }>(
    question(request.aggregation, request.only),
    paramsOf(request),
  )
  return {
    events: Number(row!.events),
    value: row!.value,
    digest: row!.digest.padStart(64, '0'),
    query: shownQuestion(request),
  }
}
