/**
 * Rollup: what ClickHouse holds of usage. Front of the room and the only place that writes to it.
 *
 * Writing is exactly once by token: a chunk is the same bytes every time it is made, and its token names stream, epoch, table
 * and chunk. After a crash the rows that landed are counted first (the token window is bounded, the count is not); what is
 * missing is sent again with the same token, and counted again: ClickHouse notes a token before the rows are in their place, so a
 * kill between the two leaves a token that stands for nothing.
 *
 * It does not decide when: epochs, manifests and checkpoints are flow.ts.
 */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type { ClickHouseClient, ClickHouseSettings } from '@clickhouse/client'
import { TupleParam } from '@clickhouse/client'
import type { Aggregation } from '../catalog/metric.js'
import { limits } from '../limits.js'
import { HOUR_MS, type Period } from '../period.js'
import type { BalanceBase } from '../quota/figures.js'
import { insertSettings } from './insert-settings.js'
import {
  buildUsageQuery,
  hasExtremes,
  readsHours,
  touchesUnfolded,
  type UsageQuery,
  type UsageRow,
  windowStarts,
} from './usage.js'

export type UsageTable = 'usage_minute' | 'usage_hour' | 'usage_members' | 'usage_events' | 'ingest_rejects'

/** Rows of one insert, in their final bytes. */
export interface StoreChunk {
  readonly table: UsageTable
  /** From 0 within (stream, epoch, table). */
  readonly chunk: number
  readonly rows: number
  readonly pieces: readonly Uint8Array[]
  /** SHA-256 of the bytes, hex. */
  readonly digest: string
  readonly format?: 'RowBinary' | 'JSONEachRow'
}

export type ChunkRecord = Pick<StoreChunk, 'table' | 'chunk' | 'rows' | 'digest'>

/** A (series, window) whose extremes a void has touched: epoch seconds of the minute. */
export interface Override {
  readonly tenant: string
  readonly metric: string
  readonly subject: string
  readonly dims: string
  readonly window: number
}

/** Whose base is asked for: usage in epochs below `epoch`. */
export interface BaseNeed {
  readonly tenant: string
  readonly metric: string
  readonly aggregation: Aggregation
  readonly period: Period
  readonly epoch: number
}

const EMPTY_BASE: BalanceBase = {
  sum: '0',
  count: 0,
  samples: 0,
  min: '0',
  max: '0',
  last: '0',
  lastTime: 0,
  lastPosition: 0,
  members: { hashes: new Uint8Array(0), counts: [] },
}

const nameOf = (tenant: string, metric: string): string => `${tenant.length}:${tenant}${metric}`

export type Rollup = ReturnType<typeof openRollup>

/** `sum(sum) AS sum` means the column inside: without this, ClickHouse puts the alias there. */
const COLUMNS_FIRST = { prefer_column_name_to_alias: 1 } as const

/** Calendar text: ClickHouse does not read a number of few digits, such as the 0 of a window without samples, as a time. */
const dateTime64 = (ms: number): string => new Date(ms).toISOString().slice(0, 23).replace('T', ' ')

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export function openRollup({ clickhouse }: { clickhouse: ClickHouseClient }) {
  async function rowsOf<Row>(query: string, params: Record<string, unknown>): Promise<Row[]> {
    const result = await clickhouse.query({
      query,
      query_params: params,
      format: 'JSONEachRow',
      clickhouse_settings: COLUMNS_FIRST,
    })
    return result.json<Row>()
  }

  /** The rows of a long answer as they come; memory holds a block of them. */
  async function* streamOf<Row>(query: string, params: Record<string, unknown>): AsyncGenerator<Row> {
    const result = await clickhouse.query({
      query,
      query_params: params,
      format: 'JSONEachRow',
      clickhouse_settings: COLUMNS_FIRST,
    })
    for await (const rows of result.stream<Row>()) for (const row of rows) yield row.json() as Row
  }

  /** A chunk of any table but usage_events, whose rows are too many for the main thread (archive-pool.ts). */
  async function insert(chunk: StoreChunk, token: string): Promise<void> {
    await clickhouse
      .exec({
        query: `INSERT INTO ${chunk.table} FORMAT ${chunk.format ?? 'RowBinary'}`,
        values: Readable.from(
          chunk.pieces.map((piece) => Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength)),
          { objectMode: false },
        ),
        // Written down for both senders, so text.
        clickhouse_settings: insertSettings(token) as unknown as ClickHouseSettings,
      })
      .then(({ stream }) => stream.resume())
  }

  /** Takes back what has landed of a chunk, so that it can be inserted anew. Resolves when it is gone. */
  async function remove(table: UsageTable, stream: number, epoch: number, chunk: number): Promise<void> {
    await clickhouse.command({
      query: `ALTER TABLE ${table} DELETE WHERE stream = {stream:UInt16} AND epoch = {epoch:UInt64} AND chunk = {chunk:UInt16}`,
      query_params: { stream, epoch, chunk },
      clickhouse_settings: { mutations_sync: '2' },
    })
  }

  /** Rows that are there, by table and chunk, of one epoch. */
  async function landed(stream: number, epoch: number, tables: readonly UsageTable[]): Promise<Map<string, number>> {
    const found = new Map<string, number>()
    for (const table of new Set(tables)) {
      const rows = await rowsOf<{ chunk: number; rows: string }>(
        `SELECT chunk, count() AS rows FROM ${table} WHERE stream = {stream:UInt16} AND epoch = {epoch:UInt64} GROUP BY chunk`,
        { stream, epoch },
      )
      for (const row of rows) found.set(`${table}/${row.chunk}`, Number(row.rows))
    }
    return found
  }

  /** Rows that are there of the epochs (from, to], by `epoch/chunk`. */
  async function rowsByChunk(
    table: UsageTable,
    stream: number,
    from: number,
    to: number,
  ): Promise<Map<string, number>> {
    const rows = await rowsOf<{ epoch: string; chunk: number; n: string }>(
      `SELECT epoch, chunk, count() AS n FROM ${table}
WHERE stream = {stream:UInt16} AND epoch > {from:UInt64} AND epoch <= {to:UInt64} GROUP BY epoch, chunk`,
      { stream, from, to },
    )
    return new Map(rows.map((row) => [`${row.epoch}/${row.chunk}`, Number(row.n)]))
  }

  /**
   * The rows of the overrides of an epoch, recomputed from the archive up to that epoch, as a chunk of usage_minute. The same
   * archive gives the same bytes, so that the step can be done again after a crash.
   */
  async function overrideChunk(
    stream: number,
    epoch: number,
    chunk: number,
    overrides: readonly Override[],
  ): Promise<StoreChunk> {
    const lines: string[] = []
    for (let from = 0; from < overrides.length; from += 100) {
      const part = overrides.slice(from, from + 100)
      const keys = part.map((o) => new TupleParam([o.tenant, o.metric, o.subject, o.dims, o.window]))
      const rows = await rowsOf<Record<string, string | number>>(
        `SELECT tenant, metric, subject, dims, toUInt32(toStartOfMinute(event_time)) AS minute, count() AS samples,
  min(value) AS min, max(value) AS max, argMax(value, (event_time, position)) AS last,
  max((toUnixTimestamp64Milli(event_time), position)) AS newest
FROM usage_events
WHERE tenant IN {tenants:Array(String)} AND metric IN {metrics:Array(String)} AND stream = {stream:UInt16} AND epoch <= {epoch:UInt64} AND kind = 1
  AND (tenant, metric, subject, dims, toUInt32(toStartOfMinute(event_time))) IN {keys:Array(Tuple(String, String, String, String, UInt32))}
  AND (tenant, source, id) NOT IN (
    SELECT tenant, source, id FROM usage_events
    WHERE tenant IN {tenants:Array(String)} AND metric IN {metrics:Array(String)} AND stream = {stream:UInt16} AND epoch <= {epoch:UInt64} AND kind = -1)
GROUP BY tenant, metric, subject, dims, minute`,
        {
          tenants: [...new Set(part.map((o) => o.tenant))],
          metrics: [...new Set(part.map((o) => o.metric))],
          stream,
          epoch,
          keys,
        },
      )
      const found = new Map(
        rows.map((r) => [JSON.stringify([r.tenant, r.metric, r.subject, r.dims, Number(r.minute)]), r]),
      )
      for (const o of part) {
        const row = found.get(JSON.stringify([o.tenant, o.metric, o.subject, o.dims, o.window]))
        const [lastTime, lastPosition] = (row?.newest as unknown as [string, string] | undefined) ?? ['0', '0']
        lines.push(
          JSON.stringify({
            tenant: o.tenant,
            metric: o.metric,
            subject: o.subject,
            dims: o.dims,
            window: o.window,
            sum: '0',
            count: '0',
            samples: row?.samples ?? '0',
            min: row?.min ?? '0',
            max: row?.max ?? '0',
            last: row?.last ?? '0',
            last_time: dateTime64(Number(lastTime)),
            last_position: lastPosition,
            sum_vt: '0',
            override: 1,
            stream,
            epoch,
            chunk,
          }),
        )
      }
    }
    const bytes = Buffer.from(lines.join('\n'))
    return {
      table: 'usage_minute',
      chunk,
      rows: lines.length,
      pieces: [bytes],
      digest: sha256(bytes),
      format: 'JSONEachRow',
    }
  }

  /**
   * The hour rows of the epochs (from, to], in a fixed order and in fixed chunks. Extremes of an hour that an override of these
   * epochs touches are taken again from all its minutes, as an override of the hour.
   */
  async function* foldChunks(stream: number, from: number, to: number): AsyncGenerator<StoreChunk> {
    const columns = (override: 0 | 1, sums: string, source: string, shift: string): string => `
  SELECT tenant, metric, subject, dims, toUInt32(hour) AS window, ${sums},
    sum(samples) AS samples, minIf(min, samples > 0) AS min, maxIf(max, samples > 0) AS max,
    argMaxIf(last, (last_time, last_position), samples > 0) AS last,
    max(if(samples > 0, toUnixTimestamp64Milli(last_time), 0)) AS last_ms,
    maxIf((last_time, last_position), samples > 0).2 AS last_position,
    ${shift} AS sum_vt, ${override} AS override
  FROM (${source})
  GROUP BY tenant, metric, subject, dims, hour`
    const inner = `SELECT tenant, metric, subject, dims, toStartOfHour(window) AS hour, window, sum, count, samples, min, max, last, last_time, last_position, sum_vt, override, epoch`
    // A later minute's values stand further from the start of the hour by its distance in milliseconds.
    const shift = `sum(sum_vt + sum * toDecimal128(1000 * (toUInt32(window) - toUInt32(hour)), 0))`
    const plain = columns(
      0,
      'sum(sum) AS sum, sum(count) AS count',
      `${inner} FROM usage_minute WHERE stream = {stream:UInt16} AND epoch > {from:UInt64} AND epoch <= {to:UInt64} AND override = 0`,
      shift,
    )
    const touched = `SELECT tenant, metric, subject, dims, toStartOfHour(window) FROM usage_minute
      WHERE stream = {stream:UInt16} AND epoch > {from:UInt64} AND epoch <= {to:UInt64} AND override = 1`
    const again = columns(
      1,
      `toDecimal128(0, 9) AS sum, 0 AS count`,
      `SELECT * FROM (
        SELECT *, max(if(override = 1, epoch, 0)) OVER (PARTITION BY tenant, metric, subject, dims, window) AS overridden
        FROM (${inner} FROM usage_minute WHERE stream = {stream:UInt16} AND epoch <= {to:UInt64}
          AND (tenant, metric, subject, dims, toStartOfHour(window)) IN (${touched}))
      ) WHERE epoch > overridden OR (override = 1 AND epoch = overridden)`,
      'toDecimal128(0, 9)',
    )
    const result = await clickhouse.query({
      query: `SELECT * FROM (${plain} UNION ALL ${again}) ORDER BY tenant, metric, subject, dims, window, override`,
      query_params: { stream, from, to },
      format: 'JSONEachRow',
      clickhouse_settings: COLUMNS_FIRST,
    })
    let lines: string[] = []
    let chunk = 0
    const make = (): StoreChunk => {
      const bytes = Buffer.from(lines.join('\n'))
      const made: StoreChunk = {
        table: 'usage_hour',
        chunk,
        rows: lines.length,
        pieces: [bytes],
        digest: sha256(bytes),
        format: 'JSONEachRow',
      }
      lines = []
      chunk += 1
      return made
    }
    for await (const batch of result.stream<Record<string, unknown>>()) {
      for (const row of batch) {
        const { last_ms, ...rest } = row.json() as Record<string, unknown>
        lines.push(JSON.stringify({ ...rest, last_time: dateTime64(Number(last_ms)), stream, epoch: to, chunk }))
        if (lines.length === limits.chunkRowsMax) yield make()
      }
    }
    if (lines.length > 0) yield make()
  }

  /** Whether an override that is not in hours yet touches the range: then the hours' extremes are not the truth. */
  async function hasOpenOverride(query: Omit<UsageQuery, 'minutesOnly'>): Promise<boolean> {
    if (!hasExtremes(query.aggregation) || !touchesUnfolded(query)) return false
    const rows = await rowsOf(
      `SELECT 1 FROM usage_minute WHERE tenant = {tenant:String} AND metric = {metric:String}
  AND window >= {from:DateTime('UTC')} AND window < {to:DateTime('UTC')}
  AND stream = {stream:UInt16} AND epoch > {folded:UInt64} AND override = 1 LIMIT 1`,
      {
        tenant: query.tenant,
        metric: query.metric,
        from: Math.floor(query.from / HOUR_MS) * (HOUR_MS / 1000),
        to: Math.ceil(query.to / HOUR_MS) * (HOUR_MS / 1000),
        stream: query.stream,
        folded: query.folded,
      },
    )
    return rows.length > 0
  }

  async function usage(
    question: Omit<UsageQuery, 'minutesOnly'>,
  ): Promise<{ rows: UsageRow[]; query: string; params: Record<string, unknown>; rung: 'hour' | 'minute' }> {
    // First the windows: a question that has too many costs no query.
    const starts = windowStarts(question)
    const query = { ...question, starts, minutesOnly: await hasOpenOverride(question) }
    const statement = buildUsageQuery(query)
    const found = await rowsOf<{
      bucket: number
      groups: string[]
      sum_value: string
      count_value: string
      n: string
      min_value: string
      max_value: string
      last_value: string
      members: string
    }>(statement.query, statement.params)
    return {
      rows: found.map((r) => ({
        bucket: Number(r.bucket),
        groups: r.groups,
        sum: String(r.sum_value),
        count: String(r.count_value),
        samples: String(r.n),
        min: String(r.min_value),
        max: String(r.max_value),
        last: String(r.last_value),
        members: String(r.members),
      })),
      query: statement.query,
      params: statement.params,
      rung: query.aggregation !== 'unique' && readsHours(query) ? 'hour' : 'minute',
    }
  }

  /**
   * What balances start from: everything of a tenant's metric in a period, up to an epoch. Many at once, in few queries: one for
   * each period, epoch and kind of aggregation, by limits.basesMax. A base without `members` has more of them than `membersMax`.
   */
  async function* bases<Need extends BaseNeed>(
    stream: number,
    needed: readonly Need[],
    membersMax: number,
  ): AsyncGenerator<{ need: Need; base: BalanceBase }> {
    const groups = new Map<string, Need[]>()
    for (const need of needed) {
      const key = `${need.period.from}/${need.period.to}/${need.epoch}/${need.aggregation === 'unique'}`
      const group = groups.get(key)
      if (group === undefined) groups.set(key, [need])
      else group.push(need)
    }
    for (const group of groups.values()) {
      for (let from = 0; from < group.length; from += limits.basesMax) {
        const part = group.slice(from, from + limits.basesMax)
        const found = await basesOf(stream, part, membersMax)
        for (const need of part) yield { need, base: found.get(nameOf(need.tenant, need.metric)) ?? EMPTY_BASE }
      }
    }
  }

  /** One query for needs of the same period and epoch, and a second one for members. */
  async function basesOf(
    stream: number,
    part: readonly BaseNeed[],
    membersMax: number,
  ): Promise<Map<string, BalanceBase>> {
    const { period, epoch, aggregation } = part[0]!
    const where = `tenant IN {tenants:Array(String)} AND metric IN {metrics:Array(String)}
    AND (tenant, metric) IN {pairs:Array(Tuple(String, String))} AND stream = {stream:UInt16} AND epoch < {epoch:UInt64}`
    const params = {
      tenants: [...new Set(part.map((need) => need.tenant))],
      metrics: [...new Set(part.map((need) => need.metric))],
      pairs: part.map((need) => new TupleParam([need.tenant, need.metric])),
      from: period.from / 1000,
      to: period.to / 1000,
      stream,
      epoch,
    }
    const rows = await rowsOf<Record<string, string>>(
      `SELECT tenant, metric, sum(sum) AS sum_value, sum(count) AS count_value, sumIf(samples, kept) AS n,
  minIf(min, kept AND samples > 0) AS min_value, maxIf(max, kept AND samples > 0) AS max_value,
  argMaxIf(last, (last_time, last_position), kept AND samples > 0) AS last_value,
  maxIf(toUnixTimestamp64Milli(last_time), kept AND samples > 0) AS newest,
  argMaxIf(last_position, (last_time, last_position), kept AND samples > 0) AS newest_position
FROM (
  SELECT *, max(if(override = 1, epoch, 0)) OVER (PARTITION BY tenant, metric, subject, dims, window) AS overridden,
    epoch > overridden OR (override = 1 AND epoch = overridden) AS kept
  FROM usage_minute WHERE ${where} AND window >= {from:DateTime('UTC')} AND window < {to:DateTime('UTC')}
) GROUP BY tenant, metric`,
      params,
    )
    const found = new Map<string, BalanceBase>()
    for (const row of rows) {
      found.set(nameOf(row.tenant!, row.metric!), {
        sum: row.sum_value!,
        count: Number(row.count_value),
        samples: Number(row.n),
        min: row.min_value!,
        max: row.max_value!,
        last: row.last_value!,
        lastTime: Number(row.newest),
        lastPosition: Number(row.newest_position),
        ...(aggregation === 'unique' ? { members: { hashes: Buffer.alloc(0), counts: [] } } : {}),
      })
    }
    if (aggregation !== 'unique') return found
    const members = await rowsOf<{ tenant: string; metric: string; members: string; counts: string[] }>(
      `SELECT tenant, metric, arrayStringConcat(groupArray(hex(member))) AS members, groupArray(events) AS counts FROM (
  SELECT tenant, metric, member, sum(n) AS events FROM usage_members
  WHERE ${where} AND bucket >= {from:DateTime('UTC')} AND bucket < {to:DateTime('UTC')}
  GROUP BY tenant, metric, member HAVING events != 0
) GROUP BY tenant, metric HAVING length(counts) <= {limit:UInt32}`,
      { ...params, limit: membersMax },
    )
    for (const [name, base] of found) {
      const own = members.find((row) => nameOf(row.tenant, row.metric) === name)
      if (own === undefined) {
        // Too many to hold; a metric whose members were all voided has usage 0 all the same, and is asked for again.
        const { members: _, ...figures } = base
        found.set(name, figures.count === 0 ? base : figures)
      } else {
        found.set(name, {
          ...base,
          members: { hashes: Buffer.from(own.members, 'hex'), counts: own.counts.map(Number) },
        })
      }
    }
    return found
  }

  return { insert, remove, landed, rowsByChunk, overrideChunk, foldChunks, usage, bases, rowsOf, streamOf }
}
