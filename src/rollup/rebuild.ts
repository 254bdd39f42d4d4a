/**
 * Rebuild: minutes, members and hours again from the archive alone, beside the live tables; compared with them, and then put in
 * their place by one exchange each. Metrics without an archive keep their rows, since nothing else tells them.
 *
 * Rebuilt rows carry the stream and epoch of their events, so cuts and folds mean the same as before. The exchange is atomic per
 * table; a crash between two tables leaves each of them whole, and the same content.
 */
import type { ClickHouseClient } from '@clickhouse/client'
import type { Metric } from '../catalog/metric.js'
import { limits } from '../limits.js'
import type { Rollup } from './rollup.js'

export interface RebuildReport {
  readonly tables: readonly { readonly table: string; readonly rows: number; readonly differences: number }[]
  readonly replaced: boolean
}

const SERIES = 'tenant, metric, subject, dims'

/** Rows of a table of windows, with whether each still says something of min, max and last: see the overrides in usage.ts. */
export const withKept = (from: string): string =>
  `SELECT *, max(if(override = 1, epoch, 0)) OVER (PARTITION BY ${SERIES}, window) AS overridden,
    epoch > overridden OR (override = 1 AND epoch = overridden) AS kept FROM ${from}`

/** Samples, min, max and last of rows that carry `kept`. */
export const KEPT_EXTREMES = `sumIf(samples, kept), minIf(min, kept AND samples > 0), maxIf(max, kept AND samples > 0),
  argMaxIf(last, (last_time, last_position), kept AND samples > 0)`

export async function rebuild(options: {
  readonly clickhouse: ClickHouseClient
  readonly rollup: Rollup
  readonly metrics: readonly Metric[]
  readonly streams: readonly { readonly stream: number; readonly folded: number }[]
  readonly dryRun: boolean
  readonly onProgress?: (step: string) => void
}): Promise<RebuildReport> {
  const { clickhouse, rollup, dryRun, onProgress = () => {} } = options
  const metrics = options.metrics.filter((m) => m.archive).map((m) => m.key)
  const extremes = options.metrics
    .filter((m) => m.archive && ['max', 'min', 'latest'].includes(m.aggregation))
    .map((m) => m.key)
  const command = (query: string, query_params: Record<string, unknown> = {}): Promise<unknown> =>
    clickhouse.command({
      query,
      query_params,
      clickhouse_settings: { insert_deduplicate: 0, prefer_column_name_to_alias: 1 },
    })

  for (const table of ['usage_minute', 'usage_members', 'usage_hour']) {
    await command(`DROP TABLE IF EXISTS ${table}_rebuilt`)
    await command(`CREATE TABLE ${table}_rebuilt AS ${table}`)
  }

  await command('DROP TABLE IF EXISTS usage_minute_unnumbered')
  await command('CREATE TABLE usage_minute_unnumbered AS usage_minute')
  onProgress('minutes')
  await command(
    `INSERT INTO usage_minute_unnumbered
SELECT ${SERIES}, toStartOfMinute(event_time) AS window, sum(value * kind), sum(kind), countIf(kind = 1),
  minIf(value, kind = 1), maxIf(value, kind = 1), argMaxIf(value, (event_time, position), kind = 1),
  maxIf(event_time, kind = 1), maxIf((event_time, position), kind = 1).2,
  sum(toDecimal128(value * kind, 9) * toDecimal128(toUnixTimestamp64Milli(event_time) - toUnixTimestamp(window) * 1000, 0)),
  0, stream, epoch, 0
FROM usage_events WHERE metric IN {metrics:Array(String)}
GROUP BY ${SERIES}, window, stream, epoch`,
    { metrics },
  )
  // What voids have touched: for each epoch with a void of a minute, the extremes as the archive has them up to that epoch, as the
  // road wrote them. So an older cut means the same as before.
  await command(
    `INSERT INTO usage_minute_unnumbered
SELECT ${SERIES}, window, 0, 0, countIf(valid), minIf(value, valid), maxIf(value, valid), argMaxIf(value, (event_time, position), valid),
  maxIf(event_time, valid), maxIf((event_time, position), valid).2, 0, 1, stream, void_epoch, 0
FROM (
  SELECT ${SERIES}, window, stream, void_epoch, event_time, position, value,
    kind = 1 AND epoch <= void_epoch AND (voided_in = 0 OR voided_in > void_epoch) AS valid
  FROM (
    SELECT ${SERIES}, toStartOfMinute(event_time) AS window, event_time, position, value, kind, stream, epoch,
      minIf(epoch, kind = -1) OVER (PARTITION BY tenant, source, id) AS voided_in
    FROM usage_events WHERE metric IN {extremes:Array(String)}
  ) AS event
  INNER JOIN (
    SELECT DISTINCT ${SERIES}, toStartOfMinute(event_time) AS window, stream, epoch AS void_epoch
    FROM usage_events WHERE metric IN {extremes:Array(String)} AND kind = -1
  ) AS void USING (${SERIES}, window, stream)
)
GROUP BY ${SERIES}, window, stream, void_epoch`,
    { extremes },
  )
  await command(
    'INSERT INTO usage_minute_unnumbered SELECT * FROM usage_minute WHERE metric NOT IN {metrics:Array(String)}',
    { metrics },
  )
  // Chunks as the road numbers them, so that rows and checkpoints can be held against each other as before: full ones first,
  // and the overrides of an epoch behind its other rows.
  await command(
    `INSERT INTO usage_minute_rebuilt
SELECT * EXCEPT (plain, place) REPLACE (toUInt16(override = 1 ? ceil(plain / {rows:UInt32}) : intDiv(place - 1, {rows:UInt32})) AS chunk)
FROM (
  SELECT *, countIf(override = 0) OVER (PARTITION BY stream, epoch) AS plain,
    row_number() OVER (PARTITION BY stream, epoch, override ORDER BY ${SERIES}, window) AS place
  FROM usage_minute_unnumbered
)`,
    { rows: limits.chunkRowsMax },
  )
  await command('DROP TABLE usage_minute_unnumbered')

  onProgress('members')
  // The hash of a member is keyed with the service's secret, which ClickHouse does not have: the live rows stay, and the audit
  // holds their counts against the archive.
  await command('INSERT INTO usage_members_rebuilt SELECT * FROM usage_members')

  onProgress('hours')
  for (const { stream, folded } of options.streams) {
    await command(
      `INSERT INTO usage_hour_rebuilt
SELECT ${SERIES}, toStartOfHour(window) AS hour, sum(sum), sum(count), sumIf(samples, kept), minIf(min, kept AND samples > 0),
  maxIf(max, kept AND samples > 0), argMaxIf(last, (last_time, last_position), kept AND samples > 0),
  maxIf(last_time, kept AND samples > 0), maxIf((last_time, last_position), kept AND samples > 0).2,
  sum(sum_vt + sum * toDecimal128(1000 * (toUInt32(window) - toUInt32(hour)), 0)), 0, stream, {folded:UInt64}, 0
FROM (
  SELECT *, max(if(override = 1, epoch, 0)) OVER (PARTITION BY ${SERIES}, window) AS overridden,
    epoch > overridden OR (override = 1 AND epoch = overridden) AS kept
  FROM usage_minute_rebuilt WHERE stream = {stream:UInt16} AND epoch <= {folded:UInt64}
)
GROUP BY ${SERIES}, hour, stream`,
      { stream, folded },
    )
  }

  onProgress('compare')
  const tables: RebuildReport['tables'][number][] = []
  for (const table of ['usage_minute', 'usage_members', 'usage_hour'] as const) {
    const key = `${SERIES}, ${table === 'usage_members' ? 'bucket, member' : 'window'}`
    const figures = (from: string): string =>
      table === 'usage_members'
        ? `SELECT ${key}, tuple(sum(n)) AS figures FROM ${from} GROUP BY ${key}`
        : `SELECT ${key}, (sum(sum), sum(count), sum(sum_vt), ${KEPT_EXTREMES}) AS figures FROM (${withKept(from)}) GROUP BY ${key}`
    const [differing] = await rollup.rowsOf<{ n: string }>(
      `SELECT count() AS n FROM (SELECT ${key}, groupArray(figures) AS found
  FROM (${figures(table)} UNION ALL ${figures(`${table}_rebuilt`)})
  GROUP BY ${key} HAVING length(found) != 2 OR found[1] != found[2])`,
      {},
    )
    const [made] = await rollup.rowsOf<{ n: string }>(`SELECT count() AS n FROM ${table}_rebuilt`, {})
    tables.push({ table, rows: Number(made!.n), differences: Number(differing!.n) })
  }

  if (!dryRun) {
    onProgress('replace')
    for (const { table } of tables) await command(`EXCHANGE TABLES ${table} AND ${table}_rebuilt`)
  }
  for (const { table } of tables) await command(`DROP TABLE ${table}_rebuilt`)
  return { tables, replaced: !dryRun }
}
