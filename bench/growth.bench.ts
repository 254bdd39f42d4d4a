/**
 * Question: what happens as things become many? Curves, each by itself, each at a point of time its own service or process:
 *
 *     series    events/s, CPU and memory as 1,000 to 1,000,000 series are touched, each as often as the others
 *     ids       cost and memory of an id in the table, 1 M to 100 M (dedupe.bench.ts, alone); and events/s through the service as
 *               ids come to live in it, as many as the time allows
 *     tenants   the same as series, with 10 to 100,000 tenants over 100,000 series
 *     batch     1 to 10,000 events a request
 *     start     the time from the start of the process until it is ready, and until it has applied all of a log that it must replay:
 *               ClickHouse is stopped (SIGSTOP) so that nothing is flushed, then all are killed (SIGKILL)
 *     usage     GET /v1/usage of one of 10,000 tenant's metrics over a month, settled and not, as the rollups grow to 100 M rows: 200 questions, for one
 *               that has 0.1 % of the rows and for an ordinary one, from hours and from minutes; and all of them at once as a
 *               closing asks. The rows are made in ClickHouse by INSERT … SELECT from numbers(), in the shape that releve writes:
 *               each insert a day of all of them, hours from minutes as a fold makes them. Only these rows never were events.
 *
 *     node dist/bench/growth.bench.js small              all of them, so little that it only shows that all works
 *     node dist/bench/growth.bench.js large              all of them, one JSON file a curve in bench/charts
 *     node dist/bench/growth.bench.js large usage        one of them
 *
 * Archive off where events/s are measured: the archive costs the same an event however many names there are. Totals are compared at the
 * end of every point: a wrong one ends the run with exit code 1.
 */
import { spawnSync } from 'node:child_process'
import { Agent, get } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import type { GrowthPoint } from './dedupe.bench.js'
import { Bodies, type Shape, sendBySockets } from './producer.js'
import { conditionsNow, quantileOf, writeResult } from './results.js'
import { type BenchService, freePort, nsPerEvent, startService } from './service.js'

type Say = (line: string) => void

export interface LoadPoint {
  /** What grows. */
  readonly x: number
  readonly events: number
  readonly ackedPerS: number
  readonly flushedPerS: number
  readonly cpuNs: Readonly<Record<string, number>>
  readonly memoryMb: Readonly<Record<string, number>>
}

export interface StartPoint {
  /** Events that lie in the log and in no checkpoint. */
  readonly events: number
  readonly logMb: number
  /** From the start of the process until it takes events, until the shard has applied the log, and until all is in a checkpoint. */
  readonly readyMs: number
  readonly appliedMs: number
  readonly flushedMs: number
}

export interface UsagePoint {
  /** Rows of usage_minute. */
  readonly rows: number
  readonly hourRows: number
  readonly parts: number
  /** ms of 200 questions, by what was asked. */
  readonly asked: readonly {
    readonly what: `${'large' | 'ordinary'}, ${'hours' | 'minutes'}${'' | ', unsettled'}`
    readonly rows: number
    readonly p50Ms: number
    readonly p99Ms: number
  }[]
  readonly allMs: number
}

class Wrong extends Error {}

const right = (found: number | string, expected: number | string, what: string): void => {
  if (String(found) !== String(expected)) throw new Wrong(`WRONG: ${what}: ${found} instead of ${expected}`)
}

const OFF = { key: 'bulk', aggregation: 'sum', unit: 'Mo', scale: 6, dims: ['region'], archive: false } as const

/** The sum over all tenants as it lies in ClickHouse. */
const sumOf = async (service: BenchService): Promise<string> =>
  service.clickhouse(`SELECT toString(toInt64(sum(sum))) FROM usage_minute WHERE metric = 'bulk'`)

async function loadPoint(options: {
  readonly x: number
  readonly events: number
  readonly batch: number
  readonly shape: Shape
  readonly isQuick: boolean
}): Promise<LoadPoint> {
  const { x, batch, shape } = options
  const { tenants = 10 } = shape
  const env = options.isQuick ? { RELEVE_EPOCH_MS: '200' } : {}
  const service = await startService({ archive: false, env, port: await freePort() })
  try {
    await service.call('PUT', '/v1/metrics-catalog', OFF)
    if (tenants > 10) await addTenants(service, tenants)
    const bodies = new Bodies(batch, 'json', { ...shape, metric: 'bulk' })
    const connections = batch >= 1_000 ? 8 : 64
    const requests = Math.max(connections, Math.ceil(options.events / batch))
    const load = { ...service, batch, connections, bodies }
    // The compilers', and every series once.
    await sendBySockets({ ...load, requests: Math.min(requests, Math.max(connections, Math.ceil(200_000 / batch))) })
    await service.flushed()
    const before = { cpu: service.cpu(), events: bodies.events }
    const began = performance.now()
    const { seconds } = await sendBySockets({ ...load, requests })
    const memoryMb = service.memory()
    await service.flushed()
    const flushed = (performance.now() - began) / 1000
    const events = bodies.events - before.events
    right(await sumOf(service), bodies.sum, `the sum at ${x}`)
    return {
      ...{ x, events, memoryMb },
      ackedPerS: Math.round(events / seconds),
      flushedPerS: Math.round(events / flushed),
      cpuNs: nsPerEvent(before.cpu, service.cpu(), events),
    }
  } finally {
    await service.stop()
  }
}

/** Customers straight into the catalogue's table, as one by one they would take an hour; read at the next start. */
async function addTenants(service: BenchService, tenants: number): Promise<void> {
  const client = new pg.Client({ host: '127.0.0.1', database: 'postgres', ...service.postgres() })
  await client.connect()
  try {
    await client.query(
      `INSERT INTO catalog_customers (tenant, definition, changed_in)
       SELECT 'bench-' || n, definition || jsonb_build_object('tenant', 'bench-' || n), changed_in
       FROM catalog_customers, generate_series(10, $1::int - 1) AS n WHERE tenant = 'bench-0'`,
      [tenants],
    )
  } finally {
    await client.end()
  }
  await service.restart()
}

function printPoint(name: string, point: LoadPoint): string {
  const cpu = Object.entries(point.cpuNs).map(([part, ns]) => `${part} ${ns}`)
  const number = (n: number): string => n.toLocaleString('en')
  return `${name} ${number(point.x)}: acknowledged ${number(point.ackedPerS)}/s, flushed ${number(point.flushedPerS)}/s, CPU ns/event ${cpu.join(', ')}, memory MB ${JSON.stringify(point.memoryMb)}`
}

async function growSeries(isLarge: boolean, say: Say): Promise<LoadPoint[]> {
  const points: LoadPoint[] = []
  for (const x of isLarge ? [1_000, 10_000, 100_000, 1_000_000] : [1_000]) {
    const events = isLarge ? 3_000_000 : 8_000
    points.push(await loadPoint({ x, events, batch: 1_000, shape: { series: x }, isQuick: !isLarge }))
    say(printPoint('series', points.at(-1)!))
  }
  return points
}

async function growTenants(isLarge: boolean, say: Say): Promise<LoadPoint[]> {
  const points: LoadPoint[] = []
  const series = isLarge ? 100_000 : 1_000
  for (const x of isLarge ? [10, 1_000, 10_000, 100_000] : [1_000]) {
    const events = isLarge ? 2_000_000 : 8_000
    points.push(await loadPoint({ x, events, batch: 1_000, shape: { series, tenants: x }, isQuick: !isLarge }))
    say(printPoint('tenants', points.at(-1)!))
  }
  return points
}

async function growBatch(isLarge: boolean, say: Say): Promise<LoadPoint[]> {
  const points: LoadPoint[] = []
  for (const x of isLarge ? [1, 10, 100, 300, 1_000, 10_000] : [100]) {
    // About four seconds each.
    const events = isLarge ? Math.min(2_500_000, 30_000 * Math.ceil(x ** 0.75)) : 8 * x
    points.push(await loadPoint({ x, events, batch: x, shape: {}, isQuick: !isLarge }))
    say(printPoint('batch', points.at(-1)!))
  }
  return points
}

/** Through one service, a slice of events after the other. */
async function growIds(isLarge: boolean, say: Say): Promise<{ table: GrowthPoint[]; service: LoadPoint[] }> {
  const table = (isLarge ? [1e6, 10e6, 30e6, 100e6] : [20_000]).map((ids) => {
    const script = fileURLToPath(new URL('./dedupe.bench.js', import.meta.url))
    const { stdout, status } = spawnSync(process.execPath, [script, String(ids), 'memory', 'json'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    if (status !== 0) throw new Wrong(`WRONG: the table with ${ids} ids`)
    say(`table: ${stdout.trim()}`)
    return JSON.parse(stdout) as GrowthPoint
  })
  const points: LoadPoint[] = []
  const service = await startService({ archive: false, env: isLarge ? {} : { RELEVE_EPOCH_MS: '200' } })
  try {
    await service.call('PUT', '/v1/metrics-catalog', OFF)
    const bodies = new Bodies(1_000, 'columnar', { metric: 'bulk' })
    const slice = isLarge ? 4_000 : 8
    for (let i = 0; i < (isLarge ? 6 : 2); i += 1) {
      const [cpu, began, before] = [service.cpu(), performance.now(), bodies.events]
      const load = { ...service, batch: 1_000, connections: 8, format: 'columnar', bodies } as const
      const { seconds } = await sendBySockets({ ...load, requests: slice })
      const memoryMb = service.memory()
      await service.flushed()
      const flushed = (performance.now() - began) / 1000
      const events = bodies.events - before
      points.push({
        ...{ x: bodies.events, events, memoryMb },
        ackedPerS: Math.round(events / seconds),
        flushedPerS: Math.round(events / flushed),
        cpuNs: nsPerEvent(cpu, service.cpu(), events),
      })
      say(printPoint('ids', points.at(-1)!))
    }
    right(await sumOf(service), bodies.sum, 'the sum of all ids')
  } finally {
    await service.stop()
  }
  return { table, service: points }
}

async function growStart(isLarge: boolean, say: Say): Promise<StartPoint[]> {
  const points: StartPoint[] = []
  for (const events of isLarge ? [0, 1_000_000, 5_000_000] : [20_000]) {
    const env = { RELEVE_EPOCH_MS: isLarge ? '1000' : '200' }
    const service = await startService({ archive: false, env, port: await freePort() })
    try {
      await service.call('PUT', '/v1/metrics-catalog', OFF)
      const bodies = new Bodies(1_000, 'columnar', { metric: 'bulk' })
      const load = { ...service, batch: 1_000, connections: 8, format: 'columnar', bodies } as const
      await sendBySockets({ ...load, requests: 8 })
      await service.flushed()
      const engine = service.pids('clickhouse')
      for (const pid of engine) process.kill(pid, 'SIGSTOP')
      if (events > 0) await sendBySockets({ ...load, requests: events / 1_000 })
      const logMb = (await service.metric('releve_log_bytes')) / 1e6
      // The engines of a killed service end by themselves; one that is stopped cannot.
      for (const pid of engine) process.kill(pid, 'SIGKILL')
      const began = performance.now()
      await service.restart()
      const after = (): number => Math.round(performance.now() - began)
      const readyMs = after()
      while ((await service.metric('releve_log_lag_records')) > 0) await sleep(20)
      const appliedMs = after()
      await service.flushed()
      points.push({ events, logMb: Math.round(logMb), readyMs, appliedMs, flushedMs: after() })
      right(await sumOf(service), bodies.sum, `the sum after the replay of ${events}`)
      say(
        `start, ${events.toLocaleString('en')} events in the log (${Math.round(logMb)} MB): ready after ${readyMs} ms, applied after ${appliedMs} ms, in a checkpoint after ${points.at(-1)!.flushedMs} ms`,
      )
    } finally {
      await service.stop()
    }
  }
  return points
}

/** Whose rows there are: `tenants` times `metrics`, of which `large` ones have 0.1 % of the rows each and the others the rest evenly. */
interface Fleet {
  readonly tenants: number
  readonly metrics: number
  readonly large: number
}
const DAYS = 30

/** Tenant and metric of a number. */
const nameOf = ({ tenants }: Fleet, n: number): readonly [string, string] => [
  `bench-${n % tenants}`,
  `m${Math.floor(n / tenants)}`,
]

/** A day of rows of all of them, about `perDay`, in the minutes and the order of an epoch's insert. */
export function insertDay(fleet: Fleet, day: { start: number; epoch: number; level: number }, perDay: number): string {
  const { tenants, metrics, large } = fleet
  const all = tenants * metrics
  const eachLarge = Math.max(1, Math.floor(perDay / 1_000))
  const eachOther = Math.max(1, Math.round((perDay - large * eachLarge) / (all - large)))
  const rows = (count: number, first: number, each: number, subjects: number): string =>
    `SELECT intDiv(number, ${each}) + ${first} AS n, number % ${each} AS k, ${subjects} AS subjects FROM numbers(${count * each})`
  return `INSERT INTO usage_minute
    (tenant, metric, subject, dims, window, sum, count, samples, min, max, last, last_time, last_position, sum_vt, override, stream, epoch, chunk)
    SELECT concat('bench-', toString(n % ${tenants})) AS tenant, concat('m', toString(intDiv(n, ${tenants}))) AS metric,
      concat('dev-', toString(k % subjects)), '{"region":"eu-west"}', toDateTime(${day.start} + 60 * (cityHash64(n, k, ${day.level}) % 1440), 'UTC') AS window,
      toDecimal128(k % 997 + 1, 9) AS value, 1, 1, value, value, value, toDateTime64(window, 3, 'UTC'), k, toDecimal128(0, 9), 0, 0, ${day.epoch}, ${day.level}
    FROM (${rows(large, 0, eachLarge, 20)} UNION ALL ${rows(all - large, large, eachOther, 2)})
    SETTINGS min_insert_block_size_rows = 4000000, min_insert_block_size_bytes = 2000000000`
}

/** What a fold writes of one epoch's minutes (rollup.ts), without the way of the rows through the service. */
export const foldDay = (epoch: number, level: number): string => `INSERT INTO usage_hour
  (tenant, metric, subject, dims, window, sum, count, samples, min, max, last, last_time, last_position, sum_vt, override, stream, epoch, chunk)
  SELECT tenant, metric, subject, dims, toStartOfHour(window) AS hour, sum(sum), sum(count), sum(samples), min(min), max(max),
    argMax(last, last_time), max(last_time), max(last_position), sum(sum_vt), 0, 0, ${epoch}, ${level}
  FROM usage_minute WHERE stream = 0 AND epoch = ${epoch} AND chunk = ${level} AND metric != 'data'
  GROUP BY tenant, metric, subject, dims, hour`

async function askMany(
  service: BenchService,
  questions: readonly string[],
): Promise<{ p50Ms: number; p99Ms: number; count: number }> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const headers = { authorization: `Bearer ${service.key}` }
  const ask = (path: string): Promise<string> =>
    new Promise((resolve, reject) => {
      get(`${service.url}${path}`, { agent, headers }, (answer) => {
        let text = ''
        answer.setEncoding('utf8')
        answer.on('data', (part: string) => {
          text += part
        })
        answer.on('end', () => (answer.statusCode === 200 ? resolve(text) : reject(new Error(`cannot bench: ${text}`))))
      }).on('error', reject)
    })
  try {
    for (const question of questions.slice(0, 5)) await ask(question)
    const times: number[] = []
    let count = 0
    for (const question of questions) {
      const began = performance.now()
      const text = await ask(question)
      times.push(performance.now() - began)
      const { windows } = JSON.parse(text) as { windows: { count: string }[] }
      for (const window of windows) count += Number(window.count)
    }
    const round = (ms: number): number => Math.round(ms * 10) / 10
    return { p50Ms: round(quantileOf(times, 0.5)), p99Ms: round(quantileOf(times, 0.99)), count }
  } finally {
    agent.destroy()
  }
}

/** Lets the month become one part of each table, as it does by itself when nothing came to it for hours (148_settled_months.sql). */
async function settle(service: BenchService, month: number): Promise<void> {
  const age = (table: string, seconds: number): Promise<string> =>
    service.clickhouse(`ALTER TABLE ${table} MODIFY SETTING min_age_to_force_merge_seconds = ${seconds}`)
  for (const [table, seconds] of [
    ['usage_hour', 3_600],
    ['usage_minute', 21_600],
  ] as const) {
    await age(table, 1)
    const parts = `SELECT count() FROM system.parts WHERE active AND table = '${table}' AND partition = toString(toYYYYMM(toDateTime(${month}, 'UTC')))`
    while ((await service.clickhouse(parts)) !== '1') await sleep(250)
    await age(table, seconds)
  }
}

async function growUsage(isLarge: boolean, say: Say): Promise<UsagePoint[]> {
  // Short epochs, of which some days' rows each are; folds come every twentieth.
  const service = await startService({ archive: false, env: { RELEVE_EPOCH_MS: '50' } })
  const points: UsagePoint[] = []
  try {
    const fleet: Fleet = isLarge ? { tenants: 100, metrics: 100, large: 100 } : { tenants: 10, metrics: 4, large: 10 }
    for (let i = 0; i < fleet.metrics; i += 1)
      await service.call('PUT', '/v1/metrics-catalog', { ...OFF, key: `m${i}`, unit: 'call' })
    for (let i = 10; i < fleet.tenants; i += 1) await putTenant(service, i)
    // Epochs of the stream, one a day of the month, and all of them folded.
    const client = new pg.Client({ host: '127.0.0.1', database: 'postgres', ...service.postgres() })
    await client.connect()
    try {
      for (let i = 0, folded = 0; folded < DAYS; i += 1) {
        await service.call('POST', '/v1/events', [{ id: `epoch-${i}`, tenant: 'bench-0', metric: 'data', value: '1' }])
        await sleep(60)
        const { rows } = await client.query('SELECT max(to_epoch)::int AS folded FROM folds WHERE done_at IS NOT NULL')
        folded = rows[0].folded ?? 0
      }
    } finally {
      await client.end()
    }
    // The month before, so that the range is whole.
    const now = new Date()
    const month = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - 1, 1) / 1000
    const count = async (table: string): Promise<number> =>
      Number(await service.clickhouse(`SELECT count() FROM ${table} WHERE metric != 'data'`))
    let there = 0
    for (const [level, target] of (isLarge ? [1_000_000, 10_000_000, 100_000_000] : [60_000]).entries()) {
      const perDay = Math.round((target - there) / DAYS)
      for (let day = 0; day < DAYS; day += 1) {
        const start = month + day * 86_400
        await service.clickhouse(insertDay(fleet, { start, epoch: day + 1, level }, perDay))
        await service.clickhouse(foldDay(day + 1, level))
      }
      there = await count('usage_minute')
      // What is being merged answers as well; this only waits so that a point is not of a moment.
      for (let i = 0; i < 120 && (await service.clickhouse('SELECT count() FROM system.merges')) !== '0'; i += 1)
        await sleep(250)
      const asked: UsagePoint['asked'][number][] = []
      const sizes = [
        ['large', 0, fleet.large],
        ['ordinary', fleet.large, fleet.tenants * fleet.metrics - fleet.large],
      ] as const
      const ask = async (rungs: readonly ('hours' | 'minutes')[], state: '' | ', unsettled'): Promise<void> => {
        for (const [size, first, span] of sizes)
          for (const rung of rungs) {
            const asks = isLarge ? 200 : 10
            const numbers = Array.from({ length: asks }, (_, i) => first + ((i * 7919) % span))
            // A range that does not begin on a whole hour is answered from minutes.
            const from = 1000 * (rung === 'hours' ? month : month - 60)
            const to = 1000 * (month + DAYS * 86_400)
            const questions = numbers.map((n) => {
              const [tenant, metric] = nameOf(fleet, n)
              return `/v1/usage?tenant=${tenant}&metric=${metric}&from=${from}&to=${to}`
            })
            const { p50Ms, p99Ms, count } = await askMany(service, questions)
            const names = [...new Set(numbers)].map((n) => `('${nameOf(fleet, n).join("', '")}')`)
            const rows = Number(
              await service.clickhouse(
                `SELECT sum(count) FROM usage_minute WHERE (tenant, metric) IN (${names.join(', ')})`,
              ),
            )
            // As many times as there are questions: numbers come again in the same order.
            if (asks % names.length === 0) right(count, (rows * asks) / names.length, `usage of ${size} ones, ${rung}`)
            asked.push({ what: `${size}, ${rung}${state}`, rows: Math.round(rows / names.length), p50Ms, p99Ms })
          }
      }
      await ask(['hours'], ', unsettled')
      await settle(service, month)
      await ask(['hours', 'minutes'], '')
      const began = performance.now()
      await service.clickhouse(
        `SELECT tenant, metric, sum(sum), sum(count) FROM usage_hour WHERE window >= toDateTime(${month}) AND window < toDateTime(${month + DAYS * 86_400}) GROUP BY tenant, metric FORMAT Null`,
      )
      const allMs = Math.round(performance.now() - began)
      const parts = Number(
        await service.clickhouse(
          `SELECT count() FROM system.parts WHERE active AND table IN ('usage_minute', 'usage_hour')`,
        ),
      )
      points.push({ rows: there, hourRows: await count('usage_hour'), parts, asked, allMs })
      const said = asked.map(({ what, rows, p50Ms, p99Ms }) => `${what} (${rows} rows) p50 ${p50Ms} p99 ${p99Ms} ms`)
      say(
        `usage, ${there.toLocaleString('en')} rows of minutes, ${points.at(-1)!.hourRows.toLocaleString('en')} of hours, ${parts} parts: ${said.join('; ')}; all at once ${allMs} ms`,
      )
    }
  } finally {
    await service.stop()
  }
  return points
}

const putTenant = (service: BenchService, i: number): Promise<unknown> =>
  service.call('PUT', '/v1/customers', {
    ...{ tenant: `bench-${i}`, name: `Bench ${i}`, country: 'CI', address: [], registrations: {} },
    ...{ taxRate: '18', taxCategory: 'S', currency: 'EUR', timeZone: 'Africa/Abidjan', language: 'fr', termDays: 30 },
  })

const curves = {
  series: growSeries,
  ids: growIds,
  tenants: growTenants,
  batch: growBatch,
  start: growStart,
  usage: growUsage,
} as const
export type Curve = keyof typeof curves

export async function benchGrowth(size: 'small' | 'large', only: readonly Curve[], say: Say): Promise<void> {
  for (const name of only.length > 0 ? only : (Object.keys(curves) as Curve[])) {
    const conditions = conditionsNow()
    const points = await curves[name](size === 'large', say)
    if (size === 'large') writeResult(`growth-${name}`, conditions, points)
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const only = process.argv.slice(3) as Curve[]
  for (const name of only) if (!(name in curves)) throw new Error(`cannot bench: there is no curve ${name}`)
  await benchGrowth(process.argv[2] === 'large' ? 'large' : 'small', only, (line) => process.stdout.write(`${line}\n`))
}
