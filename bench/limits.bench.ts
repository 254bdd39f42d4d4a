/**
 * Question: how far is the whole road from what the parts of the machine can do? The same bodies, in one run and by turns: copied in
 * memory, appended to the log (group commit, fdatasync), given to a fastify that only receives them, to one that only parses them
 * (JSON.parse, msgpackr), and to releve with the archive off and on. For each way the median of the rounds, and releve as so many
 * times of it.
 *
 * What is compared is acknowledged events: releve's are judged, single, counted and on disk by then, and at the end of every round
 * everything is flushed and its total compared with what was sent. All HTTP ways get their load from the same plain sockets out of
 * the same process on the same machine; memory and log need no other process. CPU is that of the taker and its engines, sender left out.
 *
 *     node dist/bench/limits.bench.js small
 *     node dist/bench/limits.bench.js large              three rounds; writes bench/charts/limits.json
 *     node dist/bench/limits.bench.js large 5 json       so many rounds, one format only; writes nothing
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { openFileLog } from '../src/log/files.js'
import { silentLogger } from '../src/logger.js'
import { type BenchFormat, Bodies, sendBySockets } from './producer.js'
import { type Receiver, startReceiver } from './receiver.js'
import { conditionsNow, medianOf, writeResult } from './results.js'
import { allOf, type BenchService, cpuOfProcess, startService, totalOf } from './service.js'

export const ways = ['memcpy', 'log', 'receive', 'parse', 'releve off', 'releve on'] as const
export type LimitWay = (typeof ways)[number]

export interface LimitRow {
  readonly format: BenchFormat
  readonly batch: number
  readonly way: LimitWay
  /** Events a second: median, least and most of the rounds. */
  readonly perS: number
  readonly least: number
  readonly most: number
  /** CPU ns an event, of the taker; 0 where it is the bench itself. */
  readonly cpuNs: number
}

export interface LimitFigures {
  readonly rounds: number
  readonly rows: readonly LimitRow[]
  readonly isRight: boolean
}

interface Load {
  readonly format: BenchFormat
  readonly batch: number
  readonly connections: number
  /** Of one round, for the ways over HTTP; the others take ten times as many. */
  readonly requests: number
}

interface Taken {
  readonly perS: number
  readonly cpuNs: number
}

/** Into memory that is larger than the caches, as the network and the disk would. */
function copy(bodies: Bodies, requests: number, batch: number): Taken {
  const target = Buffer.allocUnsafeSlow(64 * 2 ** 20)
  let at = 0
  let ms = 0
  for (let i = 0; i < requests; i += 1) {
    const body = bodies.next()
    if (at + body.length > target.length) at = 0
    const from = performance.now()
    at += body.copy(target, at)
    ms += performance.now() - from
  }
  return { perS: (requests * batch * 1000) / ms, cpuNs: 0 }
}

/** The product's own log, as many appends at once as there are connections. */
async function append(bodies: Bodies, load: Load): Promise<Taken> {
  const directory = await mkdtemp(join(tmpdir(), 'releve-limits-'))
  const onFatal = (error: Error): void => {
    throw error
  }
  const log = await openFileLog({ directory, streams: 1, logger: silentLogger, preallocate: true, onFatal })
  try {
    let left = load.requests
    const began = performance.now()
    const lane = async (): Promise<void> => {
      while (left > 0) {
        left -= 1
        const { sequence } = await log.append(0, 0, Buffer.from(bodies.next()))
        if (sequence % 2_000 === 0) await log.deleteBelow(0, sequence - 1_000)
      }
    }
    await Promise.all(Array.from({ length: load.connections }, lane))
    return { perS: (load.requests * load.batch * 1000) / (performance.now() - began), cpuNs: 0 }
  } finally {
    await log.close()
    await rm(directory, { recursive: true })
  }
}

async function send(target: { url: string; key: string; pid: number }, load: Load, bodies: Bodies): Promise<Taken> {
  const before = { cpu: cpuOfProcess(target.pid), events: bodies.events }
  const { seconds } = await sendBySockets({ ...target, ...load, bodies })
  const events = bodies.events - before.events
  return { perS: events / seconds, cpuNs: ((cpuOfProcess(target.pid) - before.cpu) * 1e9) / events }
}

const METRIC = { 'releve off': 'bulk', 'releve on': 'data' } as const

/** The engines end what the round before has left to them, so that it does not count as the next one's. */
async function settle(service: BenchService): Promise<void> {
  for (let i = 0; i < 20; i += 1) {
    const before = allOf(service.cpu())
    await sleep(250)
    if (allOf(service.cpu()) - before < 0.03) return
  }
}

export async function benchLimits(options: {
  readonly loads: readonly Load[]
  readonly rounds: number
  /** Short epochs: for the tests. */
  readonly isQuick: boolean
  readonly say?: (line: string) => void
}): Promise<LimitFigures> {
  // At full load epochs are full before that; it shortens the waits at the end of a round.
  const service = await startService({ archive: true, env: { RELEVE_EPOCH_MS: options.isQuick ? '200' : '1000' } })
  const receivers: Receiver[] = []
  try {
    await service.call('PUT', '/v1/metrics-catalog', {
      ...{ key: 'bulk', aggregation: 'sum', unit: 'Mo', scale: 6, dims: ['region'], archive: false },
    })
    const [receiver, parser] = [await startReceiver('receive'), await startReceiver('parse')]
    receivers.push(receiver, parser)
    const rows: LimitRow[] = []
    let isRight = true
    let run = 0
    // The service's own first event.
    const sums = { 'releve off': 0, 'releve on': 1 }
    for (const load of options.loads) {
      const found = new Map<LimitWay, Taken[]>(ways.map((way) => [way, []]))
      const bodiesOf = (metric: string): Bodies => {
        run += 1
        return new Bodies(load.batch, load.format, { metric, run })
      }
      const others = bodiesOf('data')
      const own = { 'releve off': bodiesOf('bulk'), 'releve on': bodiesOf('data') }
      const take = async (way: LimitWay, requests: number): Promise<Taken | undefined> => {
        const part = { ...load, requests }
        if (way === 'memcpy') return copy(others, 10 * requests, load.batch)
        if (way === 'log') return append(others, { ...part, requests: load.batch === 1 ? requests : 4 * requests })
        // Nothing but releve reads the columnar frame.
        if (way === 'parse' && load.format === 'columnar') return undefined
        if (way === 'receive' || way === 'parse')
          return send({ ...(way === 'receive' ? receiver : parser), key: 'none' }, part, others)
        const cpu = allOf(service.cpu())
        const before = own[way].events
        const taken = await send(service, part, own[way])
        await service.flushed()
        const cpuNs = ((allOf(service.cpu()) - cpu) * 1e9) / (own[way].events - before)
        await settle(service)
        return { ...taken, cpuNs }
      }
      // The first one is the compilers'.
      for (const way of ways) await take(way, Math.max(load.connections, Math.ceil(load.requests / 4)))
      for (let round = 0; round < options.rounds; round += 1) {
        for (const way of ways) {
          const taken = await take(way, load.requests)
          if (taken !== undefined) found.get(way)!.push(taken)
        }
      }
      for (const way of ['releve off', 'releve on'] as const) {
        sums[way] += own[way].sum
        const total = await totalOf(service, METRIC[way])
        if (total !== sums[way]) {
          isRight = false
          options.say?.(`WRONG: ${way} counted ${total} of ${sums[way]}`)
        }
      }
      for (const [way, taken] of found) {
        if (taken.length === 0) continue
        const rates = taken.map(({ perS }) => perS)
        rows.push({
          ...{ format: load.format, batch: load.batch, way },
          perS: Math.round(medianOf(rates)),
          least: Math.round(Math.min(...rates)),
          most: Math.round(Math.max(...rates)),
          cpuNs: Math.round(medianOf(taken.map(({ cpuNs }) => cpuNs))),
        })
      }
      for (const line of printLimits(rows.filter((row) => row.format === load.format && row.batch === load.batch)))
        options.say?.(line)
    }
    return { rounds: options.rounds, rows, isRight }
  } finally {
    for (const receiver of receivers) await receiver.stop()
    await service.stop()
  }
}

const HEAD = 'format    batch  way            events/s   least       most        CPU ns  releve off / on is x of it'

function printLimits(rows: readonly LimitRow[]): string[] {
  const rateOf = (way: LimitWay): number => rows.find((row) => row.way === way)?.perS ?? Number.NaN
  const number = (n: number): string => n.toLocaleString('en').padStart(10)
  return rows.map((row) => {
    const times = (['releve off', 'releve on'] as const).map((way) => (rateOf(way) / row.perS).toFixed(2))
    return `${row.format.padEnd(9)} ${String(row.batch).padStart(5)}  ${row.way.padEnd(11)} ${number(row.perS)} ${number(row.least)} ${number(row.most)} ${String(row.cpuNs || '–').padStart(9)}  ${times.join(' / ')}`
  })
}

export async function main(args: readonly string[], say: (line: string) => void): Promise<boolean> {
  const isLarge = args[0] === 'large'
  const [rounds, only] = [Number(args[1] ?? 3), args[2]]
  const load = (format: BenchFormat, batch: number, connections: number, requests: number): Load =>
    isLarge ? { format, batch, connections, requests } : { format, batch, connections: 4, requests: 8 }
  const loads = [
    load('json', 1_000, 16, 1_200),
    load('msgpack', 1_000, 16, 1_200),
    load('columnar', 1_000, 16, 1_200),
    load('json', 1, 64, 20_000),
  ].filter(({ format }) => only === undefined || only === format)
  const conditions = conditionsNow()
  say(HEAD)
  const figures = await benchLimits({ loads, rounds: isLarge ? rounds : 1, isQuick: !isLarge, say })
  if (isLarge && only === undefined) writeResult('limits', conditions, figures)
  return figures.isRight
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const isRight = await main(process.argv.slice(2), (line) => process.stdout.write(`${line}\n`))
  process.exitCode = isRight ? 0 : 1
}
