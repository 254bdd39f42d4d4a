/**
 * The bytes of chunks and archive, judged by ClickHouse itself: rows are encoded, inserted through the real insert into the
 * real tables, and read back as text. Nothing of ours decodes RowBinary.
 */
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openAggregate } from '../../src/aggregate/aggregate.js'
import { MEMBER_BUCKET_MS, type MemberRow, type MinuteRow } from '../../src/aggregate/row.js'
import { printQuantity } from '../../src/amount.js'
import { Aggregation } from '../../src/catalog/metric.js'
import { type Engines, openEngines } from '../../src/engines/engines.js'
import { migrate } from '../../src/engines/migrate.js'
import { decodeFrame, encodeFrame } from '../../src/frame.js'
import type { Refusal } from '../../src/ingest/verdict.js'
import { silentLogger } from '../../src/logger.js'
import { openArchive } from '../../src/rollup/archive.js'
import { type ArchivePool, openArchivePool } from '../../src/rollup/archive-pool.js'
import { type Chunk, encodeMembers, encodeMinutes } from '../../src/rollup/chunks.js'
import { openRollup, type Rollup } from '../../src/rollup/rollup.js'
import { eventOf, frameOf, histories, metricOf, testMemberHash } from '../aggregate/event-list.js'
import { promises } from '../promises.js'

const directory = mkdtempSync(join(tmpdir(), 'releve-bytes-'))
let engines: Engines
let rollup: Rollup
let archivePool: ArchivePool
const STREAM = 65_535
/** Every case has an epoch of its own, far above 2^32. */
let epoch = 2 ** 40

beforeAll(async () => {
  const onFatal = (error: Error): void => {
    throw error
  }
  engines = await openEngines({ dataDirectory: directory, logger: silentLogger, onFatal })
  await migrate({ clickhouse: engines.clickhouse, postgres: engines.postgres, logger: silentLogger })
  rollup = openRollup({ clickhouse: engines.clickhouse })
  archivePool = openArchivePool(engines.clickhouseHttp)
}, 120_000)

afterAll(async () => {
  await archivePool?.close()
  await engines?.close()
  rmSync(directory, { recursive: true, force: true })
}, 60_000)

async function insert(chunks: readonly Chunk[], id: { stream: number; epoch: number }): Promise<void> {
  for (const chunk of chunks) {
    const token = `${id.stream}/${id.epoch}/${chunk.table}/${chunk.chunk}`
    await (chunk.table === 'usage_events' ? archivePool : rollup).insert(chunk, token)
  }
}

const ask = <Row>(query: string, params: Record<string, unknown>): Promise<Row[]> => rollup.rowsOf<Row>(query, params)

const only = 'stream = {stream:UInt16} AND epoch = {epoch:UInt64}'
const decimal = (scaled: bigint): string => printQuantity(scaled, 9)

/** Around the lengths at which the encoder changes its way: 32 characters, 42, a varint of two and of three bytes. */
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 60 }).map((s) => Buffer.from(s).toString()),
  fc.constantFrom(
    '',
    '\0',
    '\n\t\\\'"',
    'été',
    '漢字',
    '👩‍🚀',
    'Ω'.repeat(42),
    'Ω'.repeat(43),
    'é'.repeat(32),
    'é'.repeat(33),
  ),
  fc
    .tuple(fc.constantFrom('a', 'é', '漢', '👍'), fc.constantFrom(31, 32, 33, 42, 43, 127, 128, 129, 16_383, 16_384))
    .map(([c, n]) => c.repeat(n)),
)
const DECIMAL_MAX = 10n ** 38n - 1n
const quantity = fc.oneof(
  fc.bigInt({ min: -DECIMAL_MAX, max: DECIMAL_MAX }),
  fc.bigInt({ min: -(2n ** 65n), max: 2n ** 65n }),
  fc.constantFrom(
    ...[0n, 1n, -1n, DECIMAL_MAX, -DECIMAL_MAX, 10n ** 18n, -(10n ** 18n), 10n ** 27n, -(10n ** 27n)],
    ...[2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n), -(2n ** 63n) - 1n, 2n ** 64n - 1n, 2n ** 64n, -(2n ** 64n), 2n ** 96n],
  ),
)
const safe = fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER))
const signed = fc.oneof(
  fc.maxSafeInteger(),
  fc.constantFrom(-1, -(2 ** 31), -(2 ** 32), -(2 ** 32) - 1, Number.MIN_SAFE_INTEGER),
)
/** DateTime: from 1970 to the last second before 2106-02-07 06:28:16. Few months, since an insert takes 100 partitions. */
const seconds = (step: number): fc.Arbitrary<number> =>
  fc
    .tuple(fc.constantFrom(0, 1_767_225_600, 4_294_967_295 - 86_400), fc.integer({ min: 0, max: 86_400 }))
    .map(([from, more]) => {
      const at = from + more
      return (at - (at % step)) * 1000
    })
/** DateTime64(3): from 1900 to 2299. */
const milliseconds = fc.oneof(
  fc.integer({ min: Date.UTC(1900, 0, 1), max: Date.UTC(2299, 11, 31, 23, 59, 59, 999) }),
  fc.constantFrom(0, -1, Date.UTC(1900, 0, 1), Date.UTC(2299, 11, 31, 23, 59, 59, 999)),
)
const series = fc.record({ tenant: text, metric: text, subject: text, dims: text })

const minuteRow: fc.Arbitrary<MinuteRow> = fc.record({
  series,
  window: seconds(60),
  sum: quantity,
  count: signed,
  samples: safe,
  min: quantity,
  max: quantity,
  last: quantity,
  lastTime: milliseconds,
  lastPosition: safe,
  sumVt: quantity,
  override: fc.constantFrom(0, 1),
})

const memberRow: fc.Arbitrary<MemberRow> = fc.record({
  series,
  member: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((hash) => Buffer.from(hash).toString('latin1')),
  bucket: seconds(MEMBER_BUCKET_MS / 1000),
  n: signed,
})

const bySelf = (a: unknown, b: unknown): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)

test('minute rows of any content, edges of every type => ClickHouse reads what was written', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(minuteRow, { maxLength: 60 }), async (rows) => {
      epoch += 1
      const id = { stream: STREAM, epoch }
      await insert(encodeMinutes(rows, id), id)
      const found = await ask<Record<string, unknown>>(
        `SELECT base64Encode(tenant) AS tenant, base64Encode(metric) AS metric, base64Encode(subject) AS subject, base64Encode(dims) AS dims,
          toUInt32(window) AS window, sum, count, samples, min, max, last, toUnixTimestamp64Milli(last_time) AS last_time,
          last_position, sum_vt, override, chunk FROM usage_minute WHERE ${only}`,
        id,
      )
      const base64 = (value: string): string => Buffer.from(value).toString('base64')
      const expected = rows.map((row) => ({
        tenant: base64(row.series.tenant),
        metric: base64(row.series.metric),
        subject: base64(row.series.subject),
        dims: base64(row.series.dims),
        window: row.window / 1000,
        sum: decimal(row.sum),
        count: `${row.count}`,
        samples: `${row.samples}`,
        min: decimal(row.min),
        max: decimal(row.max),
        last: decimal(row.last),
        last_time: `${row.lastTime}`,
        last_position: `${row.lastPosition}`,
        sum_vt: decimal(row.sumVt),
        override: row.override,
        chunk: 0,
      }))
      expect(found.sort(bySelf)).toEqual(expected.sort(bySelf))
    }),
    { numRuns: 25 },
  )
}, 120_000)

test('member rows of any content => ClickHouse reads what was written', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(memberRow, { maxLength: 60 }), async (rows) => {
      epoch += 1
      const id = { stream: 0, epoch }
      await insert(encodeMembers(rows, id), id)
      const found = await ask<Record<string, unknown>>(
        `SELECT tenant, metric, subject, dims, hex(member) AS member, toUInt32(bucket) AS bucket, n, chunk FROM usage_members WHERE ${only}`,
        id,
      )
      const expected = rows.map((row) => ({
        ...row.series,
        member: Buffer.from(row.member, 'latin1').toString('hex').toUpperCase(),
        bucket: row.bucket / 1000,
        n: `${row.n}`,
        chunk: 0,
      }))
      expect(found.sort(bySelf)).toEqual(expected.sort(bySelf))
    }),
    { numRuns: 10 },
  )
}, 120_000)

const metrics = Aggregation.map((aggregation, i) => metricOf(aggregation, aggregation, Math.min(i + 3, 9), i + 1))
const history = histories({
  metrics: [...metrics, metricOf('sum', 'sum', 0, 4_294_967_295), metricOf('unkept', 'sum', 0, 1, false)],
  start: Date.UTC(2026, 1, 28, 23, 59),
  stepMsMax: 90_000,
  lateMs: 120_000,
  aheadMs: 120_000,
  valueMax: 10n ** 18n,
})

const rejectsQuery = `SELECT tenant, code, field, message, source, id, metric, raw, toUnixTimestamp64Milli(received_at) AS received_at,
  position, chunk FROM ingest_rejects WHERE ${only} ORDER BY position`

test(`any history => the archive holds the accepted events of archived metrics, and they sum to the minutes ${promises('flow:books-balance')}`, async () => {
  await fc.assert(
    fc.asyncProperty(history, async (records) => {
      epoch += 1
      const id = { stream: 7, epoch }
      const archive = openArchive(id.stream)
      const aggregate = openAggregate(testMemberHash)
      archive.openEpoch(epoch)
      for (const record of records) {
        const { frame, verdicts } = frameOf(record)
        archive.apply(frame, record.sequence, verdicts)
        aggregate.apply(frame, record.sequence, verdicts)
      }
      const kept = records.flatMap(({ sequence, receivedAt, events }) =>
        events.flatMap((event, i) =>
          event.verdict === 0 && event.metric.archive ? [{ event, receivedAt, position: sequence * 2 ** 14 + i }] : [],
        ),
      )
      const conflicts = records.flatMap(({ events }) => events).filter(({ verdict }) => verdict === 2)
      expect([archive.events, archive.rejects]).toEqual([kept.length, conflicts.length])
      await insert([...archive.drain(), ...encodeMinutes(aggregate.drain().minutes, id)], id)
      const found = await ask<Record<string, unknown>>(
        `SELECT tenant, source, id, metric, metric_version, subject, toUnixTimestamp64Milli(event_time) AS event_time, value, dims, member,
          kind, toUnixTimestamp64Milli(received_at) AS received_at, position, chunk
        FROM usage_events WHERE ${only} ORDER BY position`,
        id,
      )
      expect(found).toEqual(
        kept.map(({ event, receivedAt, position }) => ({
          tenant: event.tenant,
          source: event.source,
          id: event.id,
          metric: event.metric.key,
          metric_version: event.metric.version,
          subject: event.subject,
          event_time: `${event.eventTime}`,
          value: printQuantity(event.value, event.metric.scale),
          dims: event.dims,
          member: event.member,
          kind: event.kind === 'void' ? -1 : 1,
          received_at: `${receivedAt}`,
          position: `${position}`,
          chunk: 0,
        })),
      )
      const sums = (table: string, sum: string, count: string, time: string) =>
        ask(
          `SELECT tenant, metric, subject, dims, toUInt32(toStartOfMinute(${time})) AS minute, ${sum} AS sum, ${count} AS count
          FROM ${table} WHERE ${only} AND metric != 'unkept' GROUP BY ALL ORDER BY ALL`,
          id,
        )
      const fromArchive = await sums('usage_events', 'sum(value * kind)', 'sum(toInt64(kind))', 'event_time')
      expect(await sums('usage_minute', 'sum(sum)', 'sum(count)', 'window')).toEqual(fromArchive)
      const rejected = await ask<{ code: string; field: string; id: string }>(rejectsQuery, id)
      expect(rejected.map((row) => [row.code, row.field, row.id])).toEqual(
        conflicts.map((event) => ['conflict', 'id', event.id]),
      )
    }),
    { numRuns: 15 },
  )
}, 120_000)

test('refusals and a conflict => rows that say what was wrong and what was not counted', async () => {
  epoch += 1
  const id = { stream: 3, epoch }
  const receivedAt = Date.UTC(2026, 2, 10, 9, 16)
  const event = eventOf({ metric: metricOf('tokens', 'sum', 2), value: -1250n, source: 'gw', id: 'é-1' })
  const refusal: Refusal = {
    ...{ index: 9_999, code: 'unknown_metric', field: 'metric', message: 'no metric «nope» — 漢字', tenant: 'acme' },
    ...{ source: '', id: 'r', metric: 'nope', raw: '{"metric":"nope"\0' },
  }
  const frame = decodeFrame(encodeFrame({ receivedAt, floorTime: 0, catalogVersion: 1 }, [event], [refusal]))
  const archive = openArchive(id.stream)
  archive.openEpoch(epoch)
  archive.apply(frame, 5, Uint8Array.of(2))
  await insert(archive.drain(), id)
  const shared = { received_at: `${receivedAt}`, chunk: 0, tenant: 'acme' }
  expect(await ask(rejectsQuery, id)).toEqual([
    {
      ...shared,
      code: 'conflict',
      field: 'id',
      message:
        'the same identity came with other content before; not counted: usage of -12.5 at 2026-03-10T09:15:00.123Z',
      source: 'gw',
      id: 'é-1',
      metric: 'tokens',
      raw: '',
      position: `${5 * 2 ** 14}`,
    },
    {
      ...shared,
      code: 'unknown_metric',
      field: 'metric',
      message: refusal.message,
      source: '',
      id: 'r',
      metric: 'nope',
      raw: refusal.raw,
      position: `${5 * 2 ** 14 + 9_999}`,
    },
  ])
})

test(`many chunks, sent twice => each landed once under its number ${promises('flow:exactly-once')}`, async () => {
  epoch += 1
  const id = { stream: 1, epoch }
  const aggregate = openAggregate(testMemberHash)
  const archive = openArchive(id.stream, 1000)
  archive.openEpoch(epoch)
  const metric = metricOf('tokens', 'sum', 9)
  const events = Array.from({ length: 2500 }, (_, i) =>
    eventOf({ metric, id: `${i}`, subject: `s${i}`, value: BigInt(i) }),
  )
  const { frame, verdicts } = frameOf({ sequence: 1, receivedAt: Date.UTC(2026, 2, 10, 9, 16), events })
  aggregate.apply(frame, 1, verdicts)
  archive.apply(frame, 1, verdicts)
  expect(archive.bytes).toBeGreaterThan(2500 * 80)
  const chunks = [...encodeMinutes(aggregate.drain().minutes, id, 1000), ...archive.drain()]
  expect(archive.bytes).toBe(0)
  expect(chunks.map(({ table, chunk, rows }) => [table, chunk, rows])).toEqual(
    ['usage_minute', 'usage_events'].flatMap((table) => [1000, 1000, 500].map((rows, chunk) => [table, chunk, rows])),
  )
  for (const { pieces, digest } of chunks) {
    expect(digest).toBe(createHash('sha256').update(Buffer.concat(pieces)).digest('hex'))
    for (const piece of pieces) expect(piece.byteLength).toBe(piece.buffer.byteLength)
  }
  await insert(chunks, id)
  await insert(chunks, id)
  expect(Object.fromEntries(await rollup.landed(id.stream, epoch, ['usage_minute', 'usage_events']))).toEqual({
    'usage_minute/0': 1000,
    'usage_minute/1': 1000,
    'usage_minute/2': 500,
    'usage_events/0': 1000,
    'usage_events/1': 1000,
    'usage_events/2': 500,
  })
  const [total] = await ask<{ sum: string }>(`SELECT sum(sum) AS sum FROM usage_minute WHERE ${only}`, id)
  expect(total!.sum).toBe('0.00312375')
})

test('exactly a chunk of rows, one less, one more, none => 1, 1, 2 and 0 chunks', () => {
  const row = fc.sample(memberRow, { numRuns: 1, seed: 1 })[0]!
  const check = (rows: number, expected: number[]): void => {
    const chunks = encodeMembers(Array(rows).fill(row), { stream: 1, epoch: 1 }, 10)
    expect(chunks.map((chunk) => chunk.rows)).toEqual(expected)
  }
  check(10, [10])
  check(9, [9])
  check(11, [10, 1])
  check(0, [])
})
