/**
 * Question: how many events a second does the whole road take over NATS JetStream, nats-server, publisher and both engines on the
 * same machine, beside a plain publish-and-pull of the same bytes through the same server? A message is a batch of 1,000 events of
 * one tenant, msgpack or columnar, published with the server's acknowledgement, file store.
 *
 * *Taken*: until every message is in releve's log and acknowledged; *flushed*: until all is in a checkpoint; both from the first
 * publish. The totals are compared with what was sent. The plain one is the client's own consumer in a process of its own, which
 * reads, acknowledges and forgets.
 *
 *     node dist/bench/nats.bench.js small
 *     node dist/bench/nats.bench.js large            3 million events each, three rounds; writes bench/charts/nats.json
 *     node dist/bench/nats.bench.js large columnar 5000000 off     one format, so many, archive off; one round, writes nothing
 *
 * Needs nats-server (Debian has it).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { AckPolicy, connect, headers as makeHeaders, nanos, RetentionPolicy, StorageType } from 'nats'
import { type BenchFormat, Bodies, CONTENT_TYPE } from './producer.js'
import { conditionsNow, medianOf, writeResult } from './results.js'
import { type BenchService, cpuOfProcess, freePort, nsPerEvent, ownCpu, startService, totalOf } from './service.js'

const BATCH = 1_000
/** Publishes without an answer; fewer than there are bodies, so that none is written anew under way. */
const IN_FLIGHT = 32
const RAW = { stream: 'RAW', subject: 'raw.in', consumer: 'raw' } as const

export interface NatsRow {
  readonly format: BenchFormat
  readonly way: 'plain' | 'releve off' | 'releve on'
  readonly events: number
  /** Events a second, medians of the rounds. For the plain one both are the same. */
  readonly takenPerS: number
  readonly flushedPerS: number
  /** CPU ns an event, by part of the machine. */
  readonly cpuNs: Readonly<Record<string, number>>
}

export interface NatsFigures {
  readonly rounds: number
  readonly rows: readonly NatsRow[]
  readonly isRight: boolean
}

interface Server {
  readonly url: string
  readonly pid: number
  stop(): Promise<void>
}

async function startServer(): Promise<Server> {
  const directory = mkdtempSync(join(tmpdir(), 'releve-bench-nats-'))
  const port = await freePort()
  const file = join(directory, 'server.conf')
  writeFileSync(file, `listen: 127.0.0.1:${port}\njetstream { store_dir: "${join(directory, 'js')}" }\n`)
  // Debian puts it where an ordinary user's PATH may not look.
  const PATH = `${process.env.PATH ?? ''}${delimiter}/usr/sbin`
  const child = spawn('nats-server', ['-c', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, PATH },
  })
  await once(child, 'spawn')
  const end = (): boolean => child.kill('SIGKILL')
  process.once('exit', end)
  for await (const line of createInterface(child.stderr!)) if (line.includes('Server is ready')) break
  child.stderr!.resume()
  return {
    url: `nats://127.0.0.1:${port}`,
    pid: child.pid!,
    async stop() {
      process.off('exit', end)
      end()
      await once(child, 'exit')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Publishes so many bodies, each acknowledged by the server. */
async function publish(
  url: string,
  bodies: Bodies,
  format: BenchFormat,
  messages: number,
  subject?: string,
): Promise<void> {
  const connection = await connect({ servers: url })
  const stream = connection.jetstream()
  const headers = makeHeaders()
  headers.set('content-type', CONTENT_TYPE[format])
  let left = messages
  const lane = async (): Promise<void> => {
    while (left > 0) {
      left -= 1
      const body = bodies.next()
      await stream.publish(subject ?? `usage.in.${bodies.tenant}`, body, { headers })
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane))
  await connection.close()
}

async function makeRawStream(url: string): Promise<void> {
  const connection = await connect({ servers: url })
  const manager = await connection.jetstreamManager()
  await manager.streams.add({
    ...{ name: RAW.stream, subjects: [RAW.subject], storage: StorageType.File, retention: RetentionPolicy.Workqueue },
    max_bytes: 2 ** 30,
  })
  await manager.consumers.add(RAW.stream, {
    ...{ durable_name: RAW.consumer, ack_policy: AckPolicy.Explicit, ack_wait: nanos(30_000), max_ack_pending: 2_048 },
  })
  await connection.close()
}

/** As a process of its own: pulls so many messages, acknowledges each, prints `ready` and `done`. */
async function pullRaw(url: string, messages: number): Promise<void> {
  const connection = await connect({ servers: url })
  const consumer = await connection.jetstream().consumers.get(RAW.stream, RAW.consumer)
  let count = 0
  process.stdout.write('ready\n')
  const incoming = await consumer.consume({ max_messages: 128 })
  for await (const message of incoming) {
    message.ack()
    count += 1
    if (count === messages) break
  }
  await connection.flush()
  process.stdout.write('done\n')
  await connection.drain()
}

interface Taken {
  readonly takenPerS: number
  readonly flushedPerS: number
  readonly cpuNs: Record<string, number>
}

async function plain(server: Server, bodies: Bodies, format: BenchFormat, messages: number): Promise<Taken> {
  const args = [fileURLToPath(import.meta.url), 'pull', server.url, String(messages)]
  const child: ChildProcess = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = createInterface(child.stdout!)[Symbol.asyncIterator]()
  await lines.next()
  const before = { server: cpuOfProcess(server.pid), puller: cpuOfProcess(child.pid!), own: ownCpu() }
  const began = performance.now()
  await publish(server.url, bodies, format, messages, RAW.subject)
  if ((await lines.next()).value !== 'done') throw new Error('cannot bench: the puller ended early')
  const seconds = (performance.now() - began) / 1000
  const events = messages * BATCH
  const cpuNs = nsPerEvent(
    { 'nats-server': before.server, puller: before.puller, publisher: before.own },
    { 'nats-server': cpuOfProcess(server.pid), puller: cpuOfProcess(child.pid!), publisher: ownCpu() },
    events,
  )
  await once(child, 'exit')
  return { takenPerS: events / seconds, flushedPerS: events / seconds, cpuNs }
}

async function road(
  service: BenchService,
  server: Server,
  bodies: Bodies,
  format: BenchFormat,
  messages: number,
): Promise<Taken> {
  let receivedBefore = 0
  await service.flushed((received) => {
    receivedBefore = received
  })
  const before = { cpu: service.cpu(), server: cpuOfProcess(server.pid), own: ownCpu() }
  const began = performance.now()
  await publish(server.url, bodies, format, messages)
  // A message leaves the work queue when it is acknowledged.
  const connection = await connect({ servers: server.url })
  const manager = await connection.jetstreamManager()
  while ((await manager.streams.info('RELEVE_USAGE')).state.messages > 0) await sleep(10)
  await connection.close()
  const taken = (performance.now() - began) / 1000
  // As in canonical.bench.ts: what is left for the last epoch waits for its timer, which is no work.
  let flushedPerS = 0
  await service.flushed((received) => {
    flushedPerS = Math.max(flushedPerS, ((received - receivedBefore) * 1000) / (performance.now() - began))
  })
  const events = messages * BATCH
  const cpuNs = nsPerEvent(
    { ...before.cpu, 'nats-server': before.server, publisher: before.own },
    { ...service.cpu(), 'nats-server': cpuOfProcess(server.pid), publisher: ownCpu() },
    events,
  )
  return { takenPerS: events / taken, flushedPerS, cpuNs }
}

const MERGES_REST_MS = 60_000

/** Resolves when ClickHouse merges nothing, or is not done with it within a minute. */
async function mergesAtRest(service: BenchService): Promise<void> {
  const until = performance.now() + MERGES_REST_MS
  while (Number(await service.clickhouse('SELECT count() FROM system.merges')) > 0 && performance.now() < until)
    await sleep(50)
}

export async function benchNats(options: {
  readonly formats: readonly BenchFormat[]
  readonly events: number
  readonly rounds: number
  readonly ways: readonly NatsRow['way'][]
  readonly isQuick?: boolean
  readonly say: (line: string) => void
}): Promise<NatsFigures> {
  const server = await startServer()
  try {
    await makeRawStream(server.url)
    const env = { RELEVE_NATS_URL: server.url, RELEVE_EPOCH_MS: options.isQuick === true ? '200' : '1000' }
    const nodeArguments = (process.env.BENCH_NODE ?? '').split(' ').filter((argument) => argument !== '')
    const service = await startService({ archive: true, env, nodeArguments })
    try {
      await service.call('PUT', '/v1/metrics-catalog', {
        ...{ key: 'bulk', aggregation: 'sum', unit: 'Mo', scale: 6, dims: ['region'], archive: false },
      })
      const messages = Math.ceil(options.events / BATCH)
      const sums = { data: 1, bulk: 0 }
      const rows: NatsRow[] = []
      let isRight = true
      let run = 0
      for (const format of options.formats) {
        const bodiesOf = (metric: string): Bodies => {
          run += 1
          return new Bodies(BATCH, format, { metric, run, isTenantOnly: true })
        }
        const bodies = { plain: bodiesOf('data'), 'releve off': bodiesOf('bulk'), 'releve on': bodiesOf('data') }
        const found = new Map<NatsRow['way'], Taken[]>(options.ways.map((way) => [way, []]))
        for (let round = 0; round < options.rounds; round += 1) {
          for (const way of options.ways) {
            // What the archive of the turn before left to merge is of no other turn.
            await mergesAtRest(service)
            const taken =
              way === 'plain'
                ? await plain(server, bodies[way], format, messages)
                : await road(service, server, bodies[way], format, messages)
            found.get(way)!.push(taken)
          }
        }
        sums.bulk += bodies['releve off'].sum
        sums.data += bodies['releve on'].sum
        for (const metric of ['bulk', 'data'] as const) {
          const total = await totalOf(service, metric)
          if (total === sums[metric]) continue
          isRight = false
          options.say(`WRONG: ${format}, ${metric} counted ${total} of ${sums[metric]}`)
        }
        for (const [way, taken] of found) {
          const row: NatsRow = {
            ...{ format, way, events: messages * BATCH },
            takenPerS: Math.round(medianOf(taken.map(({ takenPerS }) => takenPerS))),
            flushedPerS: Math.round(medianOf(taken.map(({ flushedPerS }) => flushedPerS))),
            cpuNs: taken.at(-1)!.cpuNs,
          }
          rows.push(row)
          const cpu = Object.entries(row.cpuNs).map(([name, ns]) => `${name} ${ns}`)
          options.say(
            `${format.padEnd(9)} ${way.padEnd(11)} taken ${row.takenPerS.toLocaleString('en')}/s  flushed ${row.flushedPerS.toLocaleString('en')}/s  CPU ns/event ${cpu.join(', ')}`,
          )
        }
      }
      return { rounds: options.rounds, rows, isRight }
    } finally {
      await service.stop()
    }
  } finally {
    await server.stop()
  }
}

async function main(args: readonly string[]): Promise<void> {
  const isLarge = args[0] === 'large'
  const only = args[1] as BenchFormat | undefined
  const say = (line: string): void => {
    process.stdout.write(`${line}\n`)
  }
  const conditions = conditionsNow()
  const figures = await benchNats({
    formats: only === undefined ? ['msgpack', 'columnar'] : [only],
    events: isLarge ? Number(args[2] ?? 3_000_000) : 20_000,
    rounds: isLarge && only === undefined ? 3 : 1,
    ways: args[3] === undefined ? ['plain', 'releve off', 'releve on'] : ['plain', `releve ${args[3] as 'on' | 'off'}`],
    isQuick: !isLarge,
    say,
  })
  if (isLarge && only === undefined) writeResult('nats', conditions, figures)
  say(`totals ${figures.isRight ? 'right' : 'WRONG'}`)
  if (!figures.isRight) process.exitCode = 1
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === 'pull') await pullRaw(process.argv[3]!, Number(process.argv[4]))
  else await main(process.argv.slice(2))
}
