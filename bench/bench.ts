/**
 * The benches in one table: what the whole road takes by format, batch and archive (the default, archive on, first), and what small
 * requests take against a fastify that only receives them. A wrong total ends it with exit code 1.
 *
 *     npm run bench                 about ten minutes on two cores
 *     npm run bench -- small        seconds: that it runs
 *     npm run bench -- large json   one format
 */
import { fileURLToPath } from 'node:url'
import { benchCanonical, type CanonicalResult, printCanonical, warmUpOf } from './canonical.bench.js'
import { type BenchFormat, sendByAutocannon } from './producer.js'
import { startReceiver } from './receiver.js'

interface Row {
  readonly format: BenchFormat
  readonly batch: number
  readonly archive: boolean
  readonly events: number
  readonly connections: number
}

const rows: readonly Row[] = [
  { format: 'json', batch: 1_000, archive: true, events: 5_000_000, connections: 32 },
  { format: 'json', batch: 100, archive: true, events: 1_000_000, connections: 32 },
  { format: 'json', batch: 10, archive: true, events: 300_000, connections: 64 },
  { format: 'json', batch: 1, archive: true, events: 80_000, connections: 64 },
  { format: 'msgpack', batch: 1_000, archive: true, events: 5_000_000, connections: 32 },
  { format: 'columnar', batch: 1_000, archive: true, events: 5_000_000, connections: 32 },
  { format: 'json', batch: 1_000, archive: false, events: 8_000_000, connections: 32 },
  { format: 'msgpack', batch: 1_000, archive: false, events: 8_000_000, connections: 32 },
  { format: 'columnar', batch: 1_000, archive: false, events: 8_000_000, connections: 32 },
]

/** What this table does not run: the question and the command. */
export const otherBenches: readonly (readonly [question: string, command: string])[] = [
  ['how far from memcpy, the log, a fastify that only receives or parses?', 'node dist/bench/limits.bench.js large'],
  ['what do the ways that others take cost, and are they right?', 'node dist/bench/peers.bench.js large'],
  ['what happens as series, ids, tenants, batches, the log, rollups grow?', 'node dist/bench/growth.bench.js large'],
  ['how much over NATS JetStream?', 'node dist/bench/nats.bench.js large'],
  ['these four, and their charts', 'node dist/bench/all.js'],
  ['from a crossing to the SSE message and the webhook?', 'node dist/bench/alerts.bench.js large'],
  ['how fast are periods closed?', 'node dist/bench/closing.bench.js large'],
  ['how long do checks and reservations take?', 'node dist/bench/reservations.bench.js large'],
  ['what does the invoice of a fleet cost?', 'node dist/bench/fleet.bench.js large'],
  ['how fast are files of usage data read?', 'node dist/bench/import.bench.js large'],
  ['what does an event cost from bytes to a frame, by format?', 'node dist/bench/decode.bench.js'],
  [
    'what does it cost to know an id, as ids become many?',
    'node dist/bench/dedupe.bench.js 1000000 10000000 100000000',
  ],
  ["what does an event cost in a shard's thread?", 'node dist/bench/shard.bench.js large'],
  ['what does it cost to add up?', 'node dist/bench/aggregate.bench.js'],
  ['how much does the group commit take?', 'node dist/bench/log.bench.js large'],
]

const number = (n: number): string => n.toLocaleString('en').padStart(9)

function line(r: CanonicalResult): string {
  const cpu = Object.values(r.cpuNs).reduce((sum, ns) => sum + ns, 0)
  return [
    `${r.format.padEnd(8)} ${String(r.batch).padStart(5)}  ${r.archive ? 'on ' : 'off'}`,
    `${number(r.ackedPerS)} ${number(r.flushedPerS)}`,
    `${String(r.p50Ms).padStart(6)} ${String(r.p99Ms).padStart(6)} ${String(r.p999Ms).padStart(6)}`,
    `${String(cpu).padStart(6)} ${String(r.loopP999Ms).padStart(6)} ${String(r.plainPercent).padStart(5)} %`,
    r.isTotalRight ? 'right' : 'WRONG',
  ].join('  ')
}

const HEAD =
  'format   batch  archive   acked/s flushed/s  ack p50    p99  p99.9 ms  CPU ns  loop ms  plain  totals (JSON by autocannon)'

/** One event a request, the same load on a fastify that only receives it; in one run. */
async function benchSmall(requests: number, connections: number): Promise<{ text: string; isRight: boolean }> {
  const receiver = await startReceiver()
  let received: { readonly seconds: number }
  try {
    const load = { url: receiver.url, key: 'none', batch: 1, connections }
    await sendByAutocannon({ ...load, requests: Math.max(connections, Math.ceil(requests / 4)) })
    received = await sendByAutocannon({ ...load, requests })
  } finally {
    await receiver.stop()
  }
  const warmUp = Math.max(connections, Math.ceil(requests / 4))
  const result = await benchCanonical({ events: requests, batch: 1, archive: true, connections, warmUp })
  const ceiling = requests / received.seconds
  return {
    text: `one event a request, ${connections} connections: ${Math.round(result.ackedPerS)} requests/s, a fastify that only receives ${Math.round(ceiling)}: ${(result.ackedPerS / ceiling).toFixed(2)} of it`,
    isRight: result.isTotalRight,
  }
}

/** Latency at half of what was acknowledged before. */
async function benchHalf(full: CanonicalResult, seconds: number, isLarge: boolean): Promise<CanonicalResult> {
  const perSecond = full.ackedPerS / full.batch / 2
  const events = Math.ceil(perSecond * seconds) * full.batch
  const { archive, batch } = full
  // A service that has just started compiles what it runs for a second, and that is another question.
  const warm = isLarge ? { warmUp: warmUpOf(batch) } : {}
  return benchCanonical({ events, batch, archive, connections: 16, sockets: true, perSecond, ...warm })
}

export async function bench(
  size: 'small' | 'large',
  format: BenchFormat | undefined,
  say: (line: string) => void,
): Promise<boolean> {
  const isLarge = size === 'large'
  let isRight = true
  const done: CanonicalResult[] = []
  say(HEAD)
  // A small run is for the tests: one of each kind.
  const chosen = rows.filter((row, i) => (format === undefined || row.format === format) && (isLarge || i % 4 === 0))
  for (const row of chosen) {
    const events = isLarge ? row.events : 8 * row.batch
    const warm = isLarge ? { warmUp: warmUpOf(row.batch) } : {}
    const result = await benchCanonical({ ...row, events, sockets: row.format !== 'json', ...warm })
    isRight &&= result.isTotalRight
    done.push(result)
    say(line(result))
  }
  say('\nat half of that load')
  for (const full of done.filter(({ batch }, i) => batch === 1_000 && (isLarge || i === 0))) {
    const half = await benchHalf(full, isLarge ? 8 : 0.2, isLarge)
    isRight &&= half.isTotalRight
    say(line(half))
  }
  if (format === undefined || format === 'json') {
    say('')
    for (const connections of [64, 256]) {
      const small = await benchSmall(isLarge ? 100_000 : 300, connections)
      isRight &&= small.isRight
      say(small.text)
    }
  }
  say('')
  for (const result of done) say(printCanonical(result))
  say('\nother questions')
  for (const [question, command] of otherBenches) say(`  ${question.padEnd(74)} ${command}`)
  return isRight
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const format = process.argv[3] as BenchFormat | undefined
  const isRight = await bench(process.argv[2] === 'small' ? 'small' : 'large', format, (text) => {
    process.stdout.write(`${text}\n`)
  })
  process.exitCode = isRight ? 0 : 1
}
