/**
 * Rebuild: minutes, members and hours again from the archive alone, beside the live tables; compared with them, and then put in
 * their place by one exchange each. Metrics without an archive keep their rows, since nothing else tells them.
 *
 * Rebuilt rows carry the stream and epoch of their events, so cuts and folds mean the same as before. The exchange is atomic per
 * table; a crash between two tables leaves each of them whole, and the same content.
 */
import type { ClickHouseClient } from '@clickhouse/client'
import type { Metric } from '../catalog/metric.js'
import type { Rollup } from './rollup.js'

export interface RebuildReport {
  readonly tables: readonly { readonly table: string; readonly rows: number; readonly differences: number }[]
  readonly replaced: boolean
}

const SERIES = 'tenant, metric, subject, dims'

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

  onProgress('minutes')
  await command(
    `INSERT INTO usage_minute_rebuilt
SELECT ${SERIES}, toStartOfMinute(event_time) AS window, sum(value * kind), sum(kind), countIf(kind = 1),
  minIf(value, kind = 1), maxIf(value, kind = 1), argMaxIf(value, (event_time, position), kind = 1),
  maxIf(event_time, kind = 1), maxIf((event_time, position), kind = 1).2,
  sum(toDecimal128(value * kind, 9) * toDecimal128(toUnixTimestamp64Milli(event_time) - toUnixTimestamp(window) * 1000, 0)),
  0, stream, epoch, 0
FROM usage_events WHERE metric IN {metrics:Array(String)}
GROUP BY ${SERIES}, window, stream, epoch`,
    { metrics },
  )
  // What a void has touched: the extremes as the archive has them up to the last void of that minute.
  await command(
    `INSERT INTO usage_minute_rebuilt
SELECT ${SERIES}, window, 0, 0, countIf(valid), minIf(value, valid), maxIf(value, valid), argMaxIf(value, (event_time, position), valid),
  maxIf(event_time, valid), maxIf((event_time, position), valid).2, 0, 1, stream, last_void, 0
FROM (
  SELECT ${SERIES}, toStartOfMinute(event_time) AS window, event_time, position, value, kind, stream, epoch,
    max(if(kind = -1, epoch, 0)) OVER (PARTITION BY ${SERIES}, toStartOfMinute(event_time)) AS last_void,
    min(kind) OVER (PARTITION BY tenant, source, id) = 1 AND kind = 1 AND epoch <= last_void AS valid
  FROM usage_events WHERE metric IN {extremes:Array(String)}
) WHERE last_void > 0
GROUP BY ${SERIES}, window, stream, last_void`,
    { extremes },
  )
  await command(
    'INSERT INTO usage_minute_rebuilt SELECT * FROM usage_minute WHERE metric NOT IN {metrics:Array(String)}',
    { metrics },
  )

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
  for (const [table, window] of [
    ['usage_minute', 'window'],
    ['usage_members', 'bucket'],
    ['usage_hour', 'window'],
  ] as const) {
    const figures = table === 'usage_members' ? 'n' : 'sum, count, sum_vt'
    const negated = table === 'usage_members' ? '-n AS n' : '-sum AS sum, -count AS count, -sum_vt AS sum_vt'
    const zero = table === 'usage_members' ? 'sum(n) != 0' : 'sum(sum) != 0 OR sum(count) != 0 OR sum(sum_vt) != 0'
    const [differing] = await rollup.rowsOf<{ n: string }>(
      `SELECT count() AS n FROM (SELECT ${SERIES}, ${window} FROM (
  SELECT ${SERIES}, ${window}, ${figures} FROM ${table}_rebuilt UNION ALL SELECT ${SERIES}, ${window}, ${negated} FROM ${table}
) GROUP BY ${SERIES}, ${window} HAVING ${zero})`,
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
