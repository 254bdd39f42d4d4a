/**
 * Question: what does the same stream of events cost in the ways that others take (peers.ts), on the same engines and the same
 * machine, producer included? For each way: events a second that were acknowledged, time from the first event until all totals are
 * right, time of the live usage question (one tenant's month, and all), bytes on disk, and whether the totals are right, also when the
 * process that takes the events is killed in the middle and every batch without an answer is sent again.
 *
 * Why so and not otherwise: the engines are the very ones that releve embeds, with its settings (src/engines/) and fsync on, each way
 * on fresh ones; the tables are modelled on those of the products; ClickHouse gathers their inserts itself (async_insert)
 * and answers when they are written; Redis appends to its file every second, its durable default. Their application servers are left out, which
 * flatters them. releve gets the events over its public HTTP door, as JSON, 1,000 a request, archive on, and is killed as a
 * whole, engines included.
 *
 *     node dist/bench/peers.bench.js small                   5,000 events, 20,000 with the kill
 *     node dist/bench/peers.bench.js large                   5 million, medians of three; writes bench/charts/peers.json
 *     node dist/bench/peers.bench.js large releve postgres     only some of them
 *     node dist/bench/peers.bench.js large redis 500000        so many events
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Engines, openEngines } from '../src/engines/engines.js'
import { silentLogger } from '../src/logger.js'
import { expectedOf, type Month, question, type SinkOrder, schema, TENANTS, type Way } from './peers.js'
import { conditionsNow, medianOf, writeResult } from './results.js'
import { freePort, startService } from './service.js'

/** Requests at once: PostgreSQL's as the measurement of it has it, ClickHouse's so that blocks are gathered. */
const CONNECTIONS: Readonly<Record<Way, number>> = { releve: 16, postgres: 4, clickhouse: 16, redis: 16 }

export interface PeerResult {
  readonly way: string
  readonly batch: number
  readonly events: number
  readonly eventsPerS: number
  /** From the first event until count and sum of all tenants are what they must be. */
  readonly rightAfterS: number
  readonly oneTenantMs: number
  readonly allTenantsMs: number
  readonly diskMb: number
  readonly right: boolean
  /** Distinct events too many (+) or lost (−) when the taker is killed half-way. */
  readonly offAfterKill: number
}

export interface PeerFigures {
  readonly rows: readonly PeerResult[]
}

interface Total {
  readonly count: number
  readonly sum: number
}

const now = Date.now()
const minute = Math.floor(now / 60_000) * 60
const month: Month = [minute - 30 * 86_400, minute + 86_400]

function bytesOf(path: string): number {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return 0
  if (!stat.isDirectory()) return stat.blocks * 512
  return readdirSync(path).reduce((sum, name) => sum + bytesOf(join(path, name)), 0)
}

async function openRedisServer(directory: string, port: number): Promise<ChildProcess> {
  const child = spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--appendonly', 'yes', '--save', ''],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  for await (const line of createInterface(child.stdout!)) if (line.includes('Ready to accept')) break
  child.stdout!.resume()
  return child
}

export const hasRedis = (): boolean =>
  (process.env.PATH ?? '').split(':').some((folder) => existsSync(join(folder, 'redis-server')))

/** A way on fresh engines, ready to take: where a sink finds it, what it has counted, what it takes of the disk, how it is killed. */
interface Ready {
  readonly order: Pick<SinkOrder, 'postgres' | 'clickhouse' | 'redisPort' | 'releve'>
  total(tenant: string | null): Promise<Total>
  diskMb(): Promise<number>
  /** Null: the sink process itself is what takes the events, and is killed. */
  readonly kill: (() => Promise<void>) | null
  close(): Promise<void>
}

const nowhere = {
  postgres: { port: 0, user: '', password: '' },
  clickhouse: { url: '', user: '', password: '' },
  redisPort: 0,
  releve: { url: '', key: '' },
}

async function openDatabase(way: Exclude<Way, 'releve'>): Promise<Ready> {
  const directory = mkdtempSync(join(tmpdir(), 'releve-peers-'))
  const engines: Engines = await openEngines({
    dataDirectory: directory,
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
    // Ours are for a small database of money. These are what one would give a machine of 24 GB that takes events.
    ...(way === 'postgres' ? { postgresSettings: { shared_buffers: '4GB', max_wal_size: '16GB' } } : {}),
  })
  const redisPort = await freePort()
  const redis = way === 'redis' ? await openRedisServer(directory, redisPort) : undefined
  if (way === 'postgres') await engines.postgres.query(schema.postgres)
  else await engines.clickhouse.command({ query: schema[way] })
  const { port, user, password } = (engines.postgres as unknown as { options: SinkOrder['postgres'] }).options
  const { url, user: name, password: word } = engines.clickhouseHttp
  return {
    order: {
      ...nowhere,
      postgres: { port, user, password },
      clickhouse: { url, user: name, password: word },
      redisPort,
    },
    async total(tenant) {
      const text = question[way](month, tenant)
      const [row] =
        way === 'postgres'
          ? (await engines.postgres.query<{ count: string; sum: string }>(text)).rows
          : await engines.clickhouse
              .query({ query: text, format: 'JSONEachRow' })
              .then((answer) => answer.json<{ count: string; sum: string }>())
      return { count: Number(row!.count), sum: Number(row!.sum) }
    },
    async diskMb() {
      if (way !== 'postgres')
        return (bytesOf(join(directory, 'clickhouse/data/store')) + bytesOf(join(directory, 'appendonlydir'))) / 1e6
      const { rows } = await engines.postgres.query(`SELECT pg_total_relation_size('lago_events') AS bytes`)
      return Number(rows[0].bytes) / 1e6
    },
    kill: null,
    async close() {
      if (redis !== undefined) {
        redis.kill('SIGKILL')
        await once(redis, 'exit')
      }
      await engines.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

async function openReleve(): Promise<Ready> {
  const port = await freePort()
  const service = await startService({ archive: true, port })
  return {
    order: { ...nowhere, releve: { url: service.url, key: service.key } },
    async total(tenant) {
      let [count, sum] = [0, 0]
      for (let i = 0; i < TENANTS; i += 1) {
        if (tenant !== null && tenant !== `bench-${i}`) continue
        const { windows } = (await service.call(
          'GET',
          `/v1/usage?tenant=bench-${i}&metric=data&from=${month[0] * 1000}&to=${month[1] * 1000}`,
        )) as { windows: { value: string; count: string }[] }
        for (const window of windows) {
          count += Number(window.count)
          sum += Number(window.value)
        }
      }
      // The service's own first event, by which it was found ready.
      return tenant === null ? { count: count - 1, sum: sum - 1 } : { count, sum }
    },
    async diskMb() {
      const own = ['log', 'keys', 'clickhouse/data/store', 'postgres/data/base'].map((path) =>
        join(service.directory, path),
      )
      return own.reduce((bytes, path) => bytes + bytesOf(path), 0) / 1e6
    },
    kill: service.restart,
    close: service.stop,
  }
}

/** One way from the first event until the totals are right; killed once at half of the batches, when asked. */
async function take(way: Way, batches: number, batch: number, isKilled: boolean) {
  const ready = way === 'releve' ? await openReleve() : await openDatabase(way)
  try {
    const order = { ...ready.order, from: 0, to: batches, batch, now, connections: CONNECTIONS[way] }
    const acknowledged: number[] = []
    const begun = performance.now()
    const run = async (atHalf: ((sink: ChildProcess) => void) | null): Promise<void> => {
      const sink = spawn(
        process.execPath,
        [fileURLToPath(new URL('./peers.js', import.meta.url)), way, JSON.stringify({ ...order, skip: acknowledged })],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      )
      const ended = once(sink, 'exit') as Promise<[number | null, string | null]>
      for await (const line of createInterface(sink.stdout!)) {
        acknowledged.push(Number(line))
        if (acknowledged.length === Math.floor(batches / 2)) atHalf?.(sink)
      }
      const [code, signal] = await ended
      if (code !== 0 && signal !== 'SIGKILL') throw new Error(`cannot bench: the sink of ${way} ended with ${code}`)
    }
    if (isKilled && ready.kill === null) await run((sink) => sink.kill('SIGKILL'))
    // All batches may be answered before the kill comes: then the taker is asked only when it is back.
    let killed: Promise<unknown> | undefined
    const kill = (): void => {
      killed = ready.kill!()
    }
    await run(isKilled && ready.kill !== null ? kill : null)
    await killed
    const ingestS = (performance.now() - begun) / 1000
    const expected = expectedOf(batches, batch)
    let found = await ready.total(null)
    // What is behind comes within seconds; what is lost never does.
    for (let i = 0; i < 200 && found.count < expected.count && !(isKilled && i > 100); i += 1) {
      await sleep(100)
      found = await ready.total(null).catch(() => found)
    }
    const rightAfterS = (performance.now() - begun) / 1000
    const time = async (tenant: string | null): Promise<number> => {
      const times: number[] = []
      for (let i = 0; i < 5; i += 1) {
        const start = performance.now()
        await ready.total(tenant)
        times.push(performance.now() - start)
      }
      return times.sort((a, b) => a - b)[2]!
    }
    const [oneTenantMs, allTenantsMs] = [await time('bench-0'), await time(null)]
    return { expected, found, ingestS, rightAfterS, oneTenantMs, allTenantsMs, diskMb: await ready.diskMb() }
  } finally {
    await ready.close()
  }
}

async function benchWay(way: Way, events: number, batch: number, rounds: number): Promise<PeerResult> {
  const batches = Math.ceil(events / batch)
  const wholes: Awaited<ReturnType<typeof take>>[] = []
  for (let round = 0; round < rounds; round += 1) wholes.push(await take(way, batches, batch, false))
  const median = (of: (whole: (typeof wholes)[number]) => number): number => medianOf(wholes.map(of))
  // The kill needs no large stream: a tenth shows what it does.
  const broken = await take(way, Math.max(20, Math.ceil(batches / 10)), batch, true)
  return {
    way,
    batch,
    events: batches * batch,
    eventsPerS: Math.round((batches * batch) / median(({ ingestS }) => ingestS)),
    rightAfterS: median((whole) => whole.rightAfterS),
    oneTenantMs: median((whole) => whole.oneTenantMs),
    allTenantsMs: median((whole) => whole.allTenantsMs),
    diskMb: median((whole) => whole.diskMb),
    right: wholes.every(({ found, expected }) => found.count === expected.count && found.sum === expected.sum),
    offAfterKill: broken.found.count - broken.expected.count,
  }
}

async function main(): Promise<void> {
  const conditions = conditionsNow()
  const isLarge = process.argv[2] === 'large'
  const asked = process.argv.slice(3).filter((word) => !/^[0-9]+$/.test(word))
  const wanted = process.argv.slice(3).find((word) => /^[0-9]+$/.test(word))
  const events = wanted !== undefined ? Number(wanted) : isLarge ? 5_000_000 : 5_000
  // The table that is kept is of medians.
  const isKept = isLarge && asked.length === 0 && wanted === undefined
  const rounds = isKept ? 3 : 1
  const runs: [Way, number, number][] = [
    ['releve', events, 1_000],
    ['postgres', events, 1_000],
    ['postgres', events / 5, 100],
    ['clickhouse', events, 1_000],
    ...(hasRedis() ? [['redis', events, 1_000] as [Way, number, number]] : []),
  ]
  if (!hasRedis()) process.stdout.write('redis-server is not installed: its way is left out\n')
  process.stdout.write(
    `${['way', 'batch', 'events', 'events/s', 'right after', 'one tenant', 'all tenants', 'disk', 'totals', ' after SIGKILL'].map((name, i) => (i === 0 ? name.padEnd(11) : name.padStart(13))).join('')}\n`,
  )
  const results: PeerResult[] = []
  for (const [way, count, batch] of runs) {
    if (asked.length > 0 && !asked.includes(way)) continue
    const r = await benchWay(way, count, batch, rounds)
    results.push(r)
    const cells = [
      String(r.batch),
      String(r.events),
      String(r.eventsPerS),
      `${r.rightAfterS.toFixed(1)} s`,
      `${r.oneTenantMs.toFixed(1)} ms`,
      `${r.allTenantsMs.toFixed(1)} ms`,
      `${r.diskMb.toFixed(0)} MB`,
      r.right ? 'right' : 'WRONG',
      r.offAfterKill === 0 ? 'right' : `${r.offAfterKill > 0 ? '+' : ''}${r.offAfterKill} events`,
    ]
    process.stdout.write(`${way.padEnd(11)}${cells.map((cell) => cell.padStart(13)).join('')}\n`)
  }
  const own = results.find(({ way }) => way === 'releve')
  for (const r of results) {
    if (own === undefined || r === own) continue
    process.stdout.write(
      `releve against ${r.way}, ${r.batch} a batch: ${(own.eventsPerS / r.eventsPerS).toFixed(1)} x the events/s, ${(own.rightAfterS / r.rightAfterS / (own.events / r.events)).toFixed(2)} of the time until the totals are right\n`,
    )
  }
  if (isKept) writeResult<PeerFigures>('peers', conditions, { rows: results })
  // Only ours must be right: what becomes of the others is the answer to the question.
  if (own !== undefined && (!own.right || own.offAfterKill !== 0)) process.exitCode = 1
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main()
