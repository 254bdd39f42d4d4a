/**
 * Audit: is what ClickHouse holds what the checkpoints say, and do archive, minutes, members and hours say the same? Each check
 * has a name, an answer, and the first differences. Read-only; it reads everything, so it is for operators and for tests.
 */
import type { Pool } from 'pg'
import type { Metric } from '../catalog/metric.js'
import { withKept } from './rebuild.js'
import type { Rollup, UsageTable } from './rollup.js'

export interface AuditCheck {
  readonly name: string
  readonly ok: boolean
  /** What was compared, or the first differences. */
  readonly detail: string
}

export interface AuditReport {
  readonly ok: boolean
  readonly checks: readonly AuditCheck[]
}

export interface AuditOptions {
  readonly postgres: Pool
  readonly rollup: Rollup
  /** What each stream has in checkpoints and in folds. */
  readonly streams: readonly { readonly stream: number; readonly epoch: number; readonly folded: number }[]
  readonly metrics: readonly Metric[]
}

const SHOWN = 5
const EPOCH_TABLES: readonly UsageTable[] = ['usage_minute', 'usage_members', 'usage_events', 'ingest_rejects']

export async function audit(options: AuditOptions): Promise<AuditReport> {
  const checks = [
    ...(await bookChecks(options)),
    ...(await rowChecks(options)),
    ...(await archiveChecks(options)),
    ...(await hourChecks(options)),
  ]
  return { ok: checks.every((c) => c.ok), checks }
}

async function bookChecks({ postgres, rollup, streams }: AuditOptions): Promise<AuditCheck[]> {
  const { rows } = await postgres.query('SELECT stream, totals FROM streams ORDER BY stream')
  const { rows: sums } = await postgres.query(
    `SELECT stream, sum((counts->>'received')::bigint)::text AS received, sum((counts->>'stored')::bigint)::text AS stored,
       sum((counts->>'refused')::bigint)::text AS refused, sum((counts->>'accepted')::bigint)::text AS accepted,
       sum((counts->>'duplicate')::bigint)::text AS duplicate, sum((counts->>'conflict')::bigint)::text AS conflict,
       sum((counts->>'voids')::bigint)::text AS voids, sum((counts->>'archived')::bigint)::text AS archived
     FROM epoch_checkpoints GROUP BY stream`,
  )
  const checks: AuditCheck[] = []
  for (const { stream, totals: t } of rows) {
    const summed = sums.find((s) => Number(s.stream) === Number(stream))
    const wrong = Object.keys(summed ?? {}).filter((name) => name !== 'stream' && Number(summed[name]) !== t[name])
    checks.push({
      name: `books/stream-${stream}`,
      ok:
        t.received === t.stored + t.refused && t.stored === t.accepted + t.duplicate + t.conflict && wrong.length === 0,
      detail: `received ${t.received} = stored ${t.stored} + refused ${t.refused}; stored = accepted ${t.accepted} + duplicate ${t.duplicate} + conflict ${t.conflict}${wrong.length > 0 ? `; the checkpoints say otherwise of ${wrong.join(', ')}` : ''}`,
    })
    const epoch = streams.find((s) => s.stream === Number(stream))?.epoch ?? 0
    const [counted] = await rollup.rowsOf<{ n: string }>(
      'SELECT sum(count) AS n FROM usage_minute WHERE stream = {stream:UInt16} AND epoch <= {epoch:UInt64}',
      { stream: Number(stream), epoch },
    )
    // A void is accepted as an event of its own and counted −1.
    const expected = t.accepted - 2 * t.voids
    checks.push({
      name: `counted/stream-${stream}`,
      ok: Number(counted!.n) === expected,
      detail: `accepted ${t.accepted} with ${t.voids} voids make ${expected}; the rollups count ${counted!.n}`,
    })
    const [archived] = await rollup.rowsOf<{ n: string }>(
      'SELECT count() AS n FROM usage_events WHERE stream = {stream:UInt16} AND epoch <= {epoch:UInt64}',
      { stream: Number(stream), epoch },
    )
    checks.push({
      name: `archived/stream-${stream}`,
      ok: Number(archived!.n) === t.archived,
      detail: `${t.archived} accepted events of archived metrics; the archive holds ${archived!.n}`,
    })
  }
  return checks
}

/** Rows of each epoch and table against its checkpoint: nothing missing, nothing twice, nothing without a checkpoint. */
async function rowChecks({ postgres, rollup }: AuditOptions): Promise<AuditCheck[]> {
  const { rows } = await postgres.query(
    `SELECT stream, epoch, c->>'table' AS table, sum((c->>'rows')::bigint)::text AS rows
     FROM epoch_checkpoints, jsonb_array_elements(chunks) AS c GROUP BY 1, 2, 3`,
  )
  const expected = new Map<string, number>(rows.map((r) => [`${r.table}/${r.stream}/${r.epoch}`, Number(r.rows)]))
  const checks: AuditCheck[] = []
  for (const table of EPOCH_TABLES) {
    const found = await rollup.rowsOf<{ stream: number; epoch: string; n: string }>(
      `SELECT stream, epoch, count() AS n FROM ${table} GROUP BY stream, epoch`,
      {},
    )
    const seen = new Map(found.map((r) => [`${table}/${r.stream}/${r.epoch}`, Number(r.n)]))
    const keys = [...new Set([...seen.keys(), ...[...expected.keys()].filter((k) => k.startsWith(`${table}/`))])]
    const wrong = keys.filter((key) => (seen.get(key) ?? 0) !== (expected.get(key) ?? 0))
    checks.push({
      name: `rows/${table}`,
      ok: wrong.length === 0,
      detail:
        wrong.length === 0
          ? `${keys.length} epochs as their checkpoints say`
          : wrong
              .slice(0, SHOWN)
              .map((key) => `${key}: ${seen.get(key) ?? 0} instead of ${expected.get(key) ?? 0}`)
              .join('; '),
    })
  }
  return checks
}

/** The same question asked of two sources with opposite signs: what is left is a difference. */
async function difference(
  rollup: Rollup,
  name: string,
  query: string,
  params: Record<string, unknown>,
  what: string,
): Promise<AuditCheck> {
  const rows = await rollup.rowsOf<Record<string, unknown>>(`${query} LIMIT ${SHOWN}`, params)
  return {
    name,
    ok: rows.length === 0,
    detail: rows.length === 0 ? what : rows.map((r) => JSON.stringify(r)).join('; '),
  }
}

async function archiveChecks({ rollup, metrics }: AuditOptions): Promise<AuditCheck[]> {
  const archived = metrics.filter((m) => m.archive).map((m) => m.key)
  const extremes = metrics
    .filter((m) => m.archive && ['max', 'min', 'latest'].includes(m.aggregation))
    .map((m) => m.key)
  const window = 'toStartOfMinute(event_time)'
  return [
    await difference(
      rollup,
      'replay/minutes',
      `SELECT tenant, metric, subject, dims, window, sum(s) AS sum_difference, sum(c) AS count_difference FROM (
  SELECT tenant, metric, subject, dims, window, sum AS s, count AS c FROM usage_minute WHERE metric IN {metrics:Array(String)}
  UNION ALL
  SELECT tenant, metric, subject, dims, ${window} AS window, -(value * kind) AS s, -toInt64(kind) AS c FROM usage_events WHERE metric IN {metrics:Array(String)}
) GROUP BY tenant, metric, subject, dims, window HAVING sum_difference != 0 OR count_difference != 0`,
      { metrics: archived },
      'the archive gives the same sums and counts in every minute',
    ),
    await difference(
      rollup,
      'replay/members',
      `SELECT tenant, metric, subject, dims, bucket, groupArray((events, present)) AS answers FROM (
  SELECT tenant, metric, subject, dims, bucket, sum(c) AS events, countIf(c > 0) AS present FROM (
    SELECT tenant, metric, subject, dims, bucket, member, sum(n) AS c FROM (SELECT * FROM usage_members WHERE metric IN {metrics:Array(String)}) GROUP BY tenant, metric, subject, dims, bucket, member
  ) GROUP BY tenant, metric, subject, dims, bucket
  UNION ALL
  SELECT tenant, metric, subject, dims, bucket, sum(c) AS events, countIf(c > 0) AS present FROM (
    SELECT tenant, metric, subject, dims, bucket, member, sum(kind) AS c FROM (SELECT tenant, metric, subject, dims, toStartOfFifteenMinutes(event_time) AS bucket, member, toInt64(kind) AS kind FROM usage_events WHERE member != '' AND metric IN {metrics:Array(String)}) GROUP BY tenant, metric, subject, dims, bucket, member
  ) GROUP BY tenant, metric, subject, dims, bucket
) GROUP BY tenant, metric, subject, dims, bucket HAVING length(answers) != 2 OR answers[1] != answers[2]`,
      { metrics: archived },
      'the archive gives as many events and distinct members in every quarter of an hour',
    ),
    // Members are hashed with a secret that the store does not have: who one is shows only in how many there are in all.
    await difference(
      rollup,
      'replay/distinct',
      `SELECT tenant, metric, groupArray((events, present)) AS answers FROM (
  SELECT tenant, metric, sum(c) AS events, countIf(c > 0) AS present FROM (
    SELECT tenant, metric, member, sum(n) AS c FROM (SELECT * FROM usage_members WHERE metric IN {metrics:Array(String)}) GROUP BY tenant, metric, member
  ) GROUP BY tenant, metric
  UNION ALL
  SELECT tenant, metric, sum(c) AS events, countIf(c > 0) AS present FROM (
    SELECT tenant, metric, member, sum(kind) AS c FROM (SELECT tenant, metric, subject, dims, toStartOfFifteenMinutes(event_time) AS bucket, member, toInt64(kind) AS kind FROM usage_events WHERE member != '' AND metric IN {metrics:Array(String)}) GROUP BY tenant, metric, member
  ) GROUP BY tenant, metric
) GROUP BY tenant, metric HAVING length(answers) != 2 OR answers[1] != answers[2]`,
      { metrics: archived },
      'the archive gives as many distinct members of each tenant and metric in all',
    ),
    await difference(
      rollup,
      'replay/extremes',
      `SELECT tenant, metric, subject, dims, window, groupArray((max_value, min_value, last_value, n)) AS answers FROM (
  SELECT tenant, metric, subject, dims, window, maxIf(max, samples > 0) AS max_value, minIf(min, samples > 0) AS min_value,
    argMaxIf(last, (last_time, last_position), samples > 0) AS last_value, sum(samples) AS n
  FROM (SELECT *, max(if(override = 1, epoch, 0)) OVER (PARTITION BY tenant, metric, subject, dims, window) AS overridden
    FROM usage_minute WHERE metric IN {metrics:Array(String)})
  WHERE epoch > overridden OR (override = 1 AND epoch = overridden)
  GROUP BY tenant, metric, subject, dims, window HAVING n > 0
  UNION ALL
  SELECT tenant, metric, subject, dims, ${window} AS window, max(value), min(value), argMax(value, (event_time, position)), count()
  FROM usage_events WHERE metric IN {metrics:Array(String)} AND kind = 1
    AND (tenant, source, id) NOT IN (SELECT tenant, source, id FROM usage_events WHERE metric IN {metrics:Array(String)} AND kind = -1)
  GROUP BY tenant, metric, subject, dims, window
) GROUP BY tenant, metric, subject, dims, window HAVING length(answers) != 2 OR answers[1] != answers[2]`,
      { metrics: extremes },
      'the archive gives the same max, min and latest in every minute',
    ),
  ]
}

async function hourChecks({ rollup, streams, metrics }: AuditOptions): Promise<AuditCheck[]> {
  const checks: AuditCheck[] = []
  for (const { stream, folded } of streams) {
    checks.push(
      await difference(
        rollup,
        `hours/stream-${stream}`,
        `SELECT tenant, metric, subject, dims, hour, sum(s) AS sum_difference, sum(c) AS count_difference, sum(w) AS weighted_difference FROM (
  SELECT tenant, metric, subject, dims, window AS hour, sum AS s, count AS c, sum_vt AS w FROM usage_hour WHERE stream = {stream:UInt16} AND epoch <= {folded:UInt64}
  UNION ALL
  SELECT tenant, metric, subject, dims, toStartOfHour(window) AS hour, -sum AS s, -count AS c,
    -(sum_vt + sum * toDecimal128(1000 * (toUInt32(window) - toUInt32(hour)), 0)) AS w
  FROM usage_minute WHERE stream = {stream:UInt16} AND epoch <= {folded:UInt64}
) GROUP BY tenant, metric, subject, dims, hour HAVING sum_difference != 0 OR count_difference != 0 OR weighted_difference != 0`,
        { stream, folded },
        `hours are the sums of their minutes, up to epoch ${folded}`,
      ),
      await difference(
        rollup,
        `hours/extremes-${stream}`,
        `SELECT tenant, metric, subject, dims, hour, groupArray((n, min_value, max_value, last_value)) AS answers FROM (
  ${['usage_hour', 'usage_minute']
    .map(
      (table) => `SELECT tenant, metric, subject, dims, toStartOfHour(window) AS hour, sumIf(samples, kept) AS n,
    minIf(min, kept AND samples > 0) AS min_value, maxIf(max, kept AND samples > 0) AS max_value,
    argMaxIf(last, (last_time, last_position), kept AND samples > 0) AS last_value
  FROM (${withKept(table)} WHERE stream = {stream:UInt16} AND epoch <= {folded:UInt64} AND metric IN {metrics:Array(String)})
  GROUP BY tenant, metric, subject, dims, hour HAVING n > 0`,
    )
    .join(' UNION ALL ')}
) GROUP BY tenant, metric, subject, dims, hour HAVING length(answers) != 2 OR answers[1] != answers[2]`,
        {
          stream,
          folded,
          metrics: metrics.filter((m) => ['max', 'min', 'latest'].includes(m.aggregation)).map((m) => m.key),
        },
        `hours have the max, min and latest of their minutes, up to epoch ${folded}`,
      ),
    )
  }
  return checks
}
