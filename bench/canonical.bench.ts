/**
 * Question: how many events a second does the whole road take, from the socket to rows in ClickHouse, with the producer and both
 * engines on the same machine, and what does each part of it cost? Acknowledged = on disk in the log; flushed = in a checkpoint.
 * At the end the totals are compared with what was sent: a run with a wrong total is a failed run.
 *
 *     node dist/bench/canonical.bench.js                          small: 20 requests
 *     node dist/bench/canonical.bench.js large                    2 million events, 1,000 a batch, archive on and off
 *     node dist/bench/canonical.bench.js large 100 500000 off     batches of 100, 500,000 events, archive off
 *     … large 1000 2000000 off columnar                           another format, by plain sockets
 */
import { fileURLToPath } from 'node:url'
import { type BenchFormat, Bodies, sendByAutocannon, sendBySockets } from './producer.js'
import { metricOf, nsPerEvent, ownCpu, startService, totalOf } from './service.js'

export interface CanonicalResult {
  readonly format: BenchFormat
  readonly archive: boolean
  readonly batch: number
  readonly sent: number
  readonly ackedPerS: number
  readonly flushedPerS: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly p999Ms: number
  /** Delay of the main thread's event loop, and how much of each second it collects garbage. */
  readonly loopP999Ms: number
  readonly gcMsPerS: number
  readonly startMs: number
  /** From an event to its figure. */
  readonly figureMs: number
  readonly memoryMb: Readonly<Record<string, number>>
  /** CPU ns an event, by part of the machine. */
  readonly cpuNs: Readonly<Record<string, number>>
  /** Share of the events that took the plain path, percent. */
  readonly plainPercent: number
  readonly isTotalRight: boolean
}

export async function benchCanonical(options: {
  readonly events: number
  readonly batch: number
  readonly archive: boolean
  /** @default 'json' */
  readonly format?: BenchFormat
  /** Plain sockets instead of autocannon. */
  readonly sockets?: boolean
  /** Requests a second at most; latencies are counted from when a request was due. With sockets only. */
  readonly perSecond?: number
  readonly connections?: number
  /**
   * Requests before those that are measured; none by default. A service that has just started compiles its own code: its first 2,000
   * requests of 1,000 events cost 2,100 CPU ns an event in all, those behind the first 6,000 cost 1,550.
   */
  readonly warmUp?: number
  readonly env?: Readonly<Record<string, string>>
  readonly nodeArguments?: readonly string[]
}): Promise<CanonicalResult> {
  const service = await startService(options)
  try {
    // From an event to the figure: ?wait=applied answers when it is counted.
    const asked = performance.now()
    const second = { id: 'second', tenant: 'bench-0', metric: 'data', value: '1' }
    await service.call('POST', '/v1/events?wait=applied', [second])
    const figureMs = performance.now() - asked

    const send = options.sockets === true ? sendBySockets : sendByAutocannon
    const requests = Math.max(1, Math.round(options.events / options.batch))
    const bodies = new Bodies(options.batch, options.format)
    const load = {
      ...service,
      batch: options.batch,
      connections: Math.min(options.connections ?? 8, requests),
      bodies,
      ...(options.format === undefined ? {} : { format: options.format }),
      ...(options.perSecond === undefined ? {} : { perSecond: options.perSecond }),
    }
    let receivedBefore = 0
    if (options.warmUp !== undefined) {
      await send({ ...load, requests: options.warmUp })
      await service.flushed((received) => {
        receivedBefore = received
      })
    }

    // This scrape also begins the measuring of the main thread's delay.
    const textBefore = await service.metricsText()
    const before = { cpu: service.cpu(), own: ownCpu(), events: bodies.events, received: receivedBefore }
    const began = performance.now()
    const all = await send({ ...load, requests })
    const sent = { ...all, events: all.events - before.events }
    const producer = ownCpu() - before.own
    // What is left for the last epoch waits for its timer, which is no work: the rate at the last full one counts, if that is higher.
    let flushedPerS = 0
    await service.flushed((received) => {
      const seconds = (performance.now() - began) / 1000
      flushedPerS = Math.max(flushedPerS, (received - before.received) / seconds)
    })
    const flushed = (performance.now() - began) / 1000
    const cpuNs = nsPerEvent(before.cpu, service.cpu(), sent.events)
    const text = await service.metricsText()
    const since = (name: string): number => metricOf(text, name) - metricOf(textBefore, name)
    const plain = since('releve_events_plain_total')
    return {
      format: options.format ?? 'json',
      archive: options.archive,
      loopP999Ms: Math.round(metricOf(text, 'releve_event_loop_delay_seconds', 'quantile="0.999"') * 10_000) / 10,
      gcMsPerS: Math.round((since('releve_gc_pause_seconds_sum') / flushed) * 10_000) / 10,
      batch: options.batch,
      sent: sent.events,
      ackedPerS: Math.round(sent.events / sent.seconds),
      flushedPerS: Math.round(flushedPerS),
      p50Ms: sent.p50Ms,
      p99Ms: sent.p99Ms,
      p999Ms: sent.p999Ms,
      startMs: service.startMs,
      figureMs: Math.round(figureMs * 10) / 10,
      memoryMb: service.memory(),
      cpuNs: { ...cpuNs, producer: Math.round((producer * 1e9) / sent.events) },
      plainPercent: Math.round((plain / sent.events) * 10_000) / 100,
      // The two events before are 1 each.
      isTotalRight: (await totalOf(service)) === sent.sum + 2,
    }
  } finally {
    await service.stop()
  }
}

/** Requests after which the code that they run is compiled. */
export const warmUpOf = (batch: number): number => (batch < 100 ? 20_000 : 3_000)

export function printCanonical(r: CanonicalResult): string {
  const cpu = Object.entries(r.cpuNs).map(([name, ns]) => `${name} ${ns}`)
  return [
    `${r.format}  archive ${r.archive ? 'on ' : 'off'}  batch ${r.batch}  sent ${r.sent}  acknowledged ${r.ackedPerS} events/s  flushed ${r.flushedPerS} events/s`,
    `  ack p50 ${r.p50Ms} p99 ${r.p99Ms} p99.9 ${r.p999Ms} ms  start to first ack ${r.startMs} ms  event to figure ${r.figureMs} ms  plain ${r.plainPercent} %`,
    `  CPU ns/event ${cpu.join(', ')}`,
    `  main thread: delay p99.9 ${r.loopP999Ms} ms, garbage ${r.gcMsPerS} ms of each second`,
    `  memory MB ${JSON.stringify(r.memoryMb)}  totals ${r.isTotalRight ? 'right' : 'WRONG'}`,
  ].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const large = process.argv[2] === 'large'
  const batch = Number(process.argv[3] ?? 1000)
  const events = large ? Number(process.argv[4] ?? 2_000_000) : 20 * batch
  const only = process.argv[5]
  const format = (process.argv[6] ?? 'json') as BenchFormat
  for (const archive of only === undefined ? [true, false] : [only === 'on']) {
    const result = await benchCanonical({
      events,
      batch,
      archive,
      format,
      sockets: format !== 'json' || process.env.BENCH_SOCKETS !== undefined,
      connections: Number(process.env.BENCH_CONNECTIONS ?? 8),
      ...(large ? { warmUp: warmUpOf(batch) } : {}),
      nodeArguments: (process.env.BENCH_NODE ?? '').split(' ').filter((argument) => argument !== ''),
    })
    process.stdout.write(`${printCanonical(result)}\n`)
    if (!result.isTotalRight) process.exitCode = 1
  }
}
