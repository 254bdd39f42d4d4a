/**
 * The ways that others take, each as one small sink that a bench can kill: events come as batches of a number, and a batch is
 * acknowledged on stdout once its way says that it is safe. Run by peers.bench.ts as a process of its own:
 *
 *     node dist/bench/peers.js WAY '{"from":0,"to":100,"skip":[…],…}'
 *
 * postgres    the way of Lago's default store: one row an event, a unique index, ON CONFLICT DO NOTHING, unnest.
 * clickhouse  the way of Flexprice: raw rows into a ReplacingMergeTree, made single at query time (FINAL), server-side batching.
 * releve      its HTTP door: JSON, the batch again until it was answered.
 * redis       SET NX for each event, pipelined; what is new goes as a raw row into a MergeTree. Table and keys are as OpenMeter has
 *             them, the order is not: its sink asks first and sets the keys once the event is stored.
 *
 * Every batch is the same bytes whoever sends it, so a batch that was not acknowledged before a kill is sent again as it was.
 */
import { Agent, request } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { Redis } from 'ioredis'
import pg from 'pg'

const ways = ['releve', 'postgres', 'clickhouse', 'redis'] as const
export type Way = (typeof ways)[number]

export interface SinkOrder {
  readonly from: number
  readonly to: number
  /** Batches that were acknowledged before. */
  readonly skip: readonly number[]
  readonly batch: number
  /** Events are of the ten minutes before it. */
  readonly now: number
  readonly connections: number
  readonly postgres: { readonly port: number; readonly user: string; readonly password: string }
  readonly clickhouse: { readonly url: string; readonly user: string; readonly password: string }
  readonly redisPort: number
  readonly releve: { readonly url: string; readonly key: string }
}

export interface PeerEvent {
  readonly id: string
  readonly tenant: string
  readonly metric: string
  readonly subject: string
  readonly time: number
  readonly value: number
}

export const TENANTS = 10
/** Every 33rd batch is the one before again: 3 %. */
const RETRIED = 33
/** Batches of different contents; only the ids of later ones differ. */
const TEMPLATES = 64

/** Events of a batch, the same whenever they are asked for. */
export function eventsOf(batch: number, size: number, now: number): PeerEvent[] {
  const b = batch % RETRIED === RETRIED - 1 ? batch - 1 : batch
  return Array.from({ length: size }, (_, i) => {
    // A square spreads the series unevenly: a tenth of them gets a third of the events.
    const r = (((b % TEMPLATES) + 1) * 7919 + i * 104_729) % 100_000
    const series = Math.floor((r * r) / 1_000_000)
    return {
      id: `5f0c3f6e-8d1b-4a57-9a3e-${b.toString(16).padStart(8, '0')}${i.toString(16).padStart(4, '0')}`,
      tenant: `bench-${series % TENANTS}`,
      metric: 'data',
      subject: `dev-${series}`,
      time: now - (r % 600_000),
      value: (r % 997) + 1,
    }
  })
}

/** What must come out: distinct events and their sum. */
export function expectedOf(batches: number, size: number): { count: number; sum: number } {
  const sums = Array.from({ length: TEMPLATES }, (_, b) =>
    eventsOf(b === RETRIED - 1 ? b + TEMPLATES : b, size, 0).reduce((sum, { value }) => sum + value, 0),
  )
  const expected = { count: 0, sum: 0 }
  for (let b = 0; b < batches; b += 1) {
    if (b % RETRIED === RETRIED - 1) continue
    expected.count += size
    expected.sum += sums[b % TEMPLATES]!
  }
  return expected
}

/** Of the ways that ask a database; releve answers /v1/usage. */
export const schema = {
  postgres: `
    CREATE TABLE lago_events (
      id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
      organization_id text NOT NULL, external_subscription_id text NOT NULL, transaction_id text NOT NULL,
      code text NOT NULL, "timestamp" timestamptz NOT NULL, properties jsonb NOT NULL,
      created_at timestamptz NOT NULL DEFAULT now());
    CREATE UNIQUE INDEX ON lago_events (organization_id, external_subscription_id, transaction_id);
    CREATE INDEX ON lago_events (organization_id, code, "timestamp")`,
  clickhouse: `
    CREATE TABLE flex_events (
      tenant_id String, id String, event_name LowCardinality(String), customer_id String,
      timestamp DateTime64(3), properties String, ingested_at DateTime64(3) DEFAULT now64(3))
    ENGINE = ReplacingMergeTree(ingested_at) PARTITION BY toYYYYMM(timestamp)
    ORDER BY (tenant_id, event_name, customer_id, timestamp, id)`,
  redis: `
    CREATE TABLE om_events (
      namespace String, id String, type LowCardinality(String), subject String, source String,
      time DateTime, data String, ingested_at DateTime64(3) DEFAULT now64(3))
    ENGINE = MergeTree PARTITION BY toYYYYMM(time) ORDER BY (namespace, type, subject, toStartOfHour(time))`,
} as const

/** From and to, in seconds. */
export type Month = readonly [number, number]

/** The usage of a month: of all tenants, and of one. `{tenant}` is put in for the latter. */
export const question = {
  postgres: (month: Month, tenant: string | null): string =>
    `SELECT count(*)::text AS count, coalesce(sum((properties->>'value')::numeric), 0)::text AS sum FROM lago_events
     WHERE code = 'data' AND "timestamp" >= to_timestamp(${month[0]}) AND "timestamp" < to_timestamp(${month[1]})
     ${tenant === null ? '' : `AND organization_id = '${tenant}'`}`,
  clickhouse: (month: Month, tenant: string | null): string =>
    `SELECT toString(count()) AS count, toString(sum(JSONExtract(properties, 'value', 'Decimal(38, 9)'))) AS sum FROM flex_events FINAL
     WHERE event_name = 'data' AND timestamp >= toDateTime(${month[0]}) AND timestamp < toDateTime(${month[1]})
     ${tenant === null ? '' : `AND tenant_id = '${tenant}'`}`,
  redis: (month: Month, tenant: string | null): string =>
    `SELECT toString(count()) AS count, toString(sum(JSONExtract(data, 'value', 'Decimal(38, 9)'))) AS sum FROM om_events
     WHERE type = 'data' AND time >= toDateTime(${month[0]}) AND time < toDateTime(${month[1]})
     ${tenant === null ? '' : `AND namespace = '${tenant}'`}`,
} as const

/** Resolves when the batch of a number is safe. */
type Send = (batch: number) => Promise<void>

/**
 * No way pays for making its rows under way: each has them ready, once for each template, and a batch is one of these with ids of
 * its own.
 */
function ready<T>(order: SinkOrder, make: (events: PeerEvent[]) => T): (batch: number) => { made: T; ids: string[] } {
  const templates = Array.from({ length: TEMPLATES }, (_, t) =>
    make(eventsOf(t === RETRIED - 1 ? t + TEMPLATES : t, order.batch, order.now)),
  )
  const places = Array.from({ length: order.batch }, (_, i) => i.toString(16).padStart(4, '0'))
  return (batch) => {
    const b = batch % RETRIED === RETRIED - 1 ? batch - 1 : batch
    const head = `5f0c3f6e-8d1b-4a57-9a3e-${b.toString(16).padStart(8, '0')}`
    return { made: templates[b % TEMPLATES]!, ids: places.map((place) => head + place) }
  }
}

const properties = (e: PeerEvent): string => `{"value":"${e.value}","region":"eu-west"}`

/** A batch as bytes: rows of JSON, of which the first member is the id, without its value. */
const insertRows = async (client: ReturnType<typeof openClickHouse>, table: string, rows: string[]): Promise<void> => {
  const { stream } = await client.exec({
    query: `INSERT INTO ${table} FORMAT JSONEachRow`,
    values: Readable.from([Buffer.from(rows.join('\n'))], { objectMode: false }),
  })
  for await (const _ of stream);
}

function openPostgres(order: SinkOrder): { send: Send; close(): Promise<void> } {
  const pool = new pg.Pool({
    host: '127.0.0.1',
    database: 'postgres',
    ...order.postgres,
    max: order.connections,
  })
  const rows = ready(order, (events) => ({
    tenants: events.map((e) => e.tenant),
    subjects: events.map((e) => e.subject),
    codes: events.map((e) => e.metric),
    times: events.map((e) => new Date(e.time).toISOString()),
    properties: events.map(properties),
  }))
  return {
    async send(batch) {
      const { made, ids } = rows(batch)
      await pool.query({
        name: 'insert',
        text: `INSERT INTO lago_events (organization_id, external_subscription_id, transaction_id, code, "timestamp", properties)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::jsonb[])
               ON CONFLICT DO NOTHING`,
        values: [made.tenants, made.subjects, ids, made.codes, made.times, made.properties],
      })
    },
    close: () => pool.end(),
  }
}

function openClickHouse(order: SinkOrder) {
  return createClient({
    url: order.clickhouse.url,
    username: order.clickhouse.user,
    password: order.clickhouse.password,
    database: 'default',
    max_open_connections: order.connections,
    request_timeout: 30_000,
    log: { level: ClickHouseLogLevel.OFF },
    // The server gathers the batches of all connections into one block, and answers when it is in the table.
    clickhouse_settings: { async_insert: 1, wait_for_async_insert: 1, async_insert_busy_timeout_ms: 200 },
  })
}

function openRaw(order: SinkOrder): { send: Send; close(): Promise<void> } {
  const client = openClickHouse(order)
  const rows = ready(order, (events) =>
    events.map((e) => {
      const timestamp = new Date(e.time).toISOString().replace('T', ' ').replace('Z', '')
      const rest = { tenant_id: e.tenant, event_name: e.metric, customer_id: e.subject, timestamp }
      return `",${JSON.stringify({ ...rest, properties: properties(e) }).slice(1)}`
    }),
  )
  return {
    async send(batch) {
      const { made, ids } = rows(batch)
      await insertRows(
        client,
        'flex_events',
        made.map((rest, i) => `{"id":"${ids[i]}${rest}`),
      )
    },
    close: () => client.close(),
  }
}

function openRedis(order: SinkOrder): { send: Send; close(): Promise<void> } {
  const client = openClickHouse(order)
  const redis = new Redis({ host: '127.0.0.1', port: order.redisPort })
  const rows = ready(order, (events) =>
    events.map((e) => {
      const rest = {
        namespace: e.tenant,
        type: e.metric,
        subject: e.subject,
        source: 'gw',
        time: Math.floor(e.time / 1000),
      }
      return { key: `${e.tenant}:gw:`, rest: `",${JSON.stringify({ ...rest, data: properties(e) }).slice(1)}` }
    }),
  )
  return {
    async send(batch) {
      const { made, ids } = rows(batch)
      const pipeline = redis.pipeline()
      // A day, as their default has it.
      made.forEach(({ key }, i) => {
        pipeline.set(`${key}${ids[i]}`, '', 'EX', 86_400, 'NX')
      })
      const answers = (await pipeline.exec())!
      const fresh = made.map(({ rest }, i) => `{"id":"${ids[i]}${rest}`).filter((_, i) => answers[i]![1] === 'OK')
      if (fresh.length > 0) await insertRows(client, 'om_events', fresh)
    },
    async close() {
      await client.close()
      redis.disconnect()
    },
  }
}

/** Bodies are made once for each template; a batch is a copy with its own ids, as a producer that costs little would do. */
function openReleve(order: SinkOrder): { send: Send; close(): Promise<void> } {
  const { url, key } = order.releve
  const agent = new Agent({ keepAlive: true, maxSockets: order.connections })
  const templates = Array.from({ length: TEMPLATES }, (_, t) => {
    const events = eventsOf(t === RETRIED - 1 ? t + TEMPLATES : t, order.batch, order.now)
    const ids: number[] = []
    let text = ''
    for (const e of events) {
      text += text === '' ? '[' : ','
      ids.push(text.length + '{"id":"'.length + 24)
      text += `{"id":"${e.id}","tenant":"${e.tenant}","metric":"${e.metric}","subject":"${e.subject}","time":${e.time},"value":"${e.value}","dims":{"region":"eu-west"}}`
    }
    return { bytes: Buffer.from(`${text}]`), ids }
  })
  const post = (body: Buffer): Promise<number> =>
    new Promise((resolve, reject) => {
      const headers = {
        authorization: `Bearer ${key}`,
        'content-type': 'application/json',
        'content-length': body.length,
      }
      request(`${url}/v1/events`, { method: 'POST', agent, headers }, (answer) => {
        answer.resume()
        answer.on('end', () => resolve(answer.statusCode!))
        answer.on('error', reject)
      })
        .on('error', reject)
        .end(body)
    })
  return {
    async send(batch) {
      const b = batch % RETRIED === RETRIED - 1 ? batch - 1 : batch
      const { bytes, ids } = templates[b % TEMPLATES]!
      const body = Buffer.from(bytes)
      const digits = Buffer.from(b.toString(16).padStart(8, '0'), 'latin1')
      for (const at of ids) digits.copy(body, at)
      for (;;) {
        const status = await post(body).catch(() => 0)
        if (status === 202) return
        if (status !== 0 && status !== 503) throw new Error(`the service answers ${status}`)
        await sleep(100)
      }
    },
    async close() {
      agent.destroy()
    },
  }
}

const open = { releve: openReleve, postgres: openPostgres, clickhouse: openRaw, redis: openRedis } as const

async function main(way: Way, order: SinkOrder): Promise<void> {
  const sink = open[way](order)
  const skip = new Set(order.skip)
  let next = order.from
  const lane = async (): Promise<void> => {
    for (;;) {
      while (skip.has(next)) next += 1
      if (next >= order.to) return
      const batch = next
      next += 1
      await sink.send(batch)
      process.stdout.write(`${batch}\n`)
    }
  }
  await Promise.all(Array.from({ length: order.connections }, lane))
  await sink.close()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv[2] as Way, JSON.parse(process.argv[3]!))
