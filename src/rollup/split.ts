/**
 * The usage of a metric by subject, in the order of their bytes, each figure with its proof: what is shared out among contract items
 * that name their subjects, and among the objects of a fleet. One question reads rollups and archive; a subject on which they
 * disagree is for an operator, and nothing is billed. Sums and counts only: they can be added up again.
 */
import type { Metric } from '../catalog/metric.js'
import { Decimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { HOUR_MS, type Period } from '../period.js'
import type { StreamCut } from './measure.js'
import { EVENT_HASH } from './proof.js'
import type { Rollup } from './rollup.js'

export interface SplitRequest extends StreamCut {
  readonly tenant: string
  readonly metric: Pick<Metric, 'key' | 'aggregation' | 'archive'>
  readonly period: Period
  /** Where segments begin, epoch ms, rising; the first is the period's own beginning. */
  readonly starts: readonly number[]
  /** `archive` asks the archive alone, as a verification does; `rollups` these alone, for a figure that is not billed. */
  readonly source: 'both' | 'archive' | 'rollups'
}

export interface SplitRow {
  readonly subject: string
  /** Start of its segment, epoch ms. */
  readonly segment: number
  /** Decimal text. */
  readonly quantity: string
  readonly count: number
  readonly digest: bigint
}

const DIGEST_BITS = 256

/** Digests of groups are the sum of those of their parts. */
export function addDigests(a: bigint, b: bigint): bigint {
  return BigInt.asUintN(DIGEST_BITS, a + b)
}

export const printDigest = (digest: bigint): string => digest.toString(16).padStart(DIGEST_BITS / 4, '0')

interface Row {
  subject: string
  segment: string | number
  rs: string
  rc: string
  vs: string
  vc: string
  n: string
  d: string
}

export async function* splitBySubject(rollup: Rollup, request: SplitRequest): AsyncGenerator<SplitRow> {
  const { metric, period, starts } = request
  const archived = metric.archive && request.source !== 'rollups'
  const rollups = request.source !== 'archive' || !archived
  const { query, params } = splitQuestion(request, rollups, archived)
  for await (const row of rollup.streamOf<Row>(query, params)) {
    const [counted, proved] = metric.aggregation === 'count' ? [row.rc, row.vc] : [row.rs, row.vs]
    if (rollups && archived && !new Decimal(counted).eq(proved)) {
      throw new ReleveError(
        'conflict',
        `${request.tenant} ${metric.key} of ${row.subject}: the rollups say ${counted}, the archive says ${proved}: run releve audit, nothing is billed until they agree`,
      )
    }
    yield {
      subject: row.subject,
      segment: starts.length === 1 ? period.from : Number(row.segment) * 1000,
      quantity: new Decimal(archived ? proved : counted).toFixed(),
      count: Number(row.n),
      digest: BigInt(row.d),
    }
  }
}

function splitQuestion(
  request: SplitRequest,
  rollups: boolean,
  archived: boolean,
): { query: string; params: Record<string, unknown> } {
  const { tenant, metric, period, starts, stream, epoch, folded } = request
  const own = 'tenant = {tenant:String} AND metric = {metric:String} AND stream = {stream:UInt16}'
  const segment = (seconds: string): string => `roundDown(toUInt32(${seconds}), {starts:Array(UInt32)})`
  const table = (name: string, epochs: string): string =>
    `SELECT subject, window, sum, count FROM ${name}
     WHERE ${own} AND window >= {from:DateTime('UTC')} AND window < {to:DateTime('UTC')} AND ${epochs}`
  const hours = folded > 0 && epoch >= folded && [...starts, period.to].every((at) => at % HOUR_MS === 0)
  const source = hours
    ? `${table('usage_hour', 'epoch <= {folded:UInt64}')} UNION ALL ${table('usage_minute', 'epoch > {folded:UInt64} AND epoch <= {epoch:UInt64}')}`
    : table('usage_minute', 'epoch <= {epoch:UInt64}')
  const none = `toDecimal128(0, 9)`
  const parts = [
    ...(rollups
      ? [
          `SELECT subject, ${segment('window')} AS segment, sum(sum) AS rs, sum(count) AS rc, ${none} AS vs, toInt64(0) AS vc,
             toUInt64(0) AS n, toUInt256(0) AS d
           FROM (${source}) GROUP BY subject, segment`,
        ]
      : []),
    ...(archived
      ? [
          `SELECT subject, ${segment('intDiv(toUnixTimestamp64Milli(event_time), 1000)')} AS segment, ${none} AS rs, toInt64(0) AS rc,
             sum(value * kind) AS vs, toInt64(sum(kind)) AS vc, count() AS n, sumWithOverflow(${EVENT_HASH}) AS d
           FROM usage_events
           WHERE ${own} AND event_time >= fromUnixTimestamp64Milli({fromMs:Int64}) AND event_time < fromUnixTimestamp64Milli({toMs:Int64})
             AND epoch <= {epoch:UInt64}
           GROUP BY subject, segment`,
        ]
      : []),
  ]
  return {
    query: `SELECT subject, segment, toString(sum(rs)) AS rs, toString(sum(rc)) AS rc, toString(sum(vs)) AS vs, toString(sum(vc)) AS vc,
  toString(sum(n)) AS n, toString(sumWithOverflow(d)) AS d
FROM (${parts.join('\nUNION ALL\n')}) GROUP BY subject, segment ORDER BY subject, segment`,
    params: {
      tenant,
      metric: metric.key,
      stream,
      epoch,
      folded,
      from: Math.floor(period.from / 1000),
      to: Math.floor(period.to / 1000),
      fromMs: period.from,
      toMs: period.to,
      starts: starts.map((at) => Math.floor(at / 1000)),
    },
  }
}
