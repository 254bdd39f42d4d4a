/**
 * Checks and reservations over HTTP: what a gateway waits for when it asks for room before it works. A service of its own, an even rate,
 * every reservation with a key of its own and in the journal before its answer. Four loads take turns, so that what else the machine does
 * meets all of them:
 *
 * - bare: a fastify that parses the same bodies and answers {"received":1}, in a process of its own. What it takes is HTTP, the machine
 *   and this process that sends and measures;
 * - check: POST /v1/quotas/check;
 * - reserve: reservations of an hour, so that what is held grows;
 * - mix: two reservations, a commit and a release, by turns; each ends one that the mix made before.
 *
 *     node dist/bench/reservations.bench.js large [connections] [soon|each] [requests/s] [rounds]      small is for the tests
 *
 * What was granted is compared with the limit. Not measured: reservations beside a full stream of events (canonical.bench.ts is that stream).
 */
import { type Asked, sendPaced } from './paced.js'
import { startReceiver } from './receiver.js'
import { metricOf, startService } from './service.js'

const large = process.argv[2] === 'large'
const connections = Number(process.argv[3] ?? 32)
const [rate, seconds, rounds] = large
  ? [Number(process.argv[5] ?? 5_000), 3, Number(process.argv[6] ?? 5)]
  : [200, 1, 1]
/** Ends of the mix begin when it has made so many. */
const MIXED = large ? 1_000 : 20
const TENANT = 'bench-0'

let isRight = false
const service = await startService({
  archive: false,
  env: { RELEVE_STREAMS: '1', RELEVE_RESERVATIONS_SYNC: process.argv[4] ?? 'soon' },
})
const bare = await startReceiver('parse')
try {
  // Less than what is asked for, so that the end is met too.
  const asked = rate * (seconds * rounds * 1.5 + (large ? 8 : 0))
  const limit = Math.floor(asked * 0.9)
  await service.call('PUT', '/v1/limits', { tenant: TENANT, metric: 'data', soft: null, hard: String(limit) })

  let next = 0
  const body = (more: object): string => JSON.stringify({ tenant: TENANT, metric: 'data', n: '1', ...more })
  const reservation = (): Asked => {
    next += 1
    return { method: 'POST', path: '/v1/reservations', body: body({ key: `key-${next}`, leaseSeconds: 3600 }) }
  }
  const made: string[] = []
  let turn = 0
  const mixed = (): Asked => {
    turn += 1
    const id = turn % 2 === 0 && made.length > MIXED ? made.shift() : undefined
    if (id !== undefined)
      return { method: 'POST', path: `/v1/reservations/${id}/${turn % 4 === 0 ? 'commit' : 'release'}`, body: '{}' }
    return {
      ...reservation(),
      onAnswer(status, answer) {
        const granted = status === 201 ? /"id":"(\w+)"/.exec(answer())?.[1] : undefined
        if (granted !== undefined) made.push(granted)
      },
    }
  }
  const loads: readonly (readonly [string, string, () => Asked])[] = [
    ['bare', bare.url, () => ({ ...reservation(), path: '/v1/events' })],
    ['check', service.url, () => ({ method: 'POST', path: '/v1/quotas/check', body: body({}) })],
    ['reserve', service.url, reservation],
    ['mix', service.url, mixed],
  ]
  const found = new Map(
    loads.map(([name]) => [name, { times: [] as number[], refused: 0, dropped: 0, main: 0, v8: 0 }]),
  )
  const run = async (name: string, url: string, of: () => Asked, forSeconds: number): Promise<void> => {
    const before = service.cpu()
    const done = await sendPaced({ url, key: service.key, rate, seconds: forSeconds, connections, next: of })
    const after = service.cpu()
    const all = found.get(name)!
    for (const time of done.times) all.times.push(time)
    all.refused += done.refused
    all.dropped += done.dropped
    all.main += (after.main ?? 0) - (before.main ?? 0)
    all.v8 += (after['v8 helpers'] ?? 0) - (before['v8 helpers'] ?? 0)
  }
  // A process that has just started compiles what it runs, for some seconds.
  if (large) for (const [name, url, of] of loads) await run(name, url, of, name === 'check' ? 1 : 4)
  for (const all of found.values()) Object.assign(all, { times: [], refused: 0, dropped: 0, main: 0, v8: 0 })
  const before = await service.metricsText()
  for (let round = 0; round < rounds; round += 1) for (const [name, url, of] of loads) await run(name, url, of, seconds)
  const after = await service.metricsText()
  const counted = (le: string): number =>
    metricOf(after, 'releve_reserve_seconds_bucket', `le="${le}"`) -
    metricOf(before, 'releve_reserve_seconds_bucket', `le="${le}"`)
  const within = ['0.0005', '0.001', '0.002', '0.005', '0.01'].map(
    (le) => `${((100 * counted(le)) / counted('+Inf')).toFixed(2)} % in ${Number(le) * 1000} ms`,
  )

  console.log(`${rate} requests/s at an even rate over ${connections} connections, ms from when each was due`)
  for (const [name, { times, refused, dropped, main, v8 }] of found) {
    const sorted = Float64Array.from(times).sort()
    const at = (part: number): string =>
      (sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0).toFixed(2)
    const cpu = (part: number): string => ((part * 1e6) / times.length).toFixed(0)
    console.log(
      `${name}: ${times.length} answers, p50 ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}, p99.9 ${at(0.999)}, max ${at(1)}; ` +
        `under 2 ms ${((100 * times.filter((time) => time < 2).length) / times.length).toFixed(2)} %; ` +
        (name === 'bare' ? '' : `CPU µs a request: main thread ${cpu(main)}, V8 helpers ${cpu(v8)}; `) +
        `not 2xx ${refused}, not sent ${dropped}`,
    )
  }
  const pauses = metricOf(after, 'releve_gc_pause_seconds_sum') - metricOf(before, 'releve_gc_pause_seconds_sum')
  const count = metricOf(after, 'releve_gc_pause_seconds_count') - metricOf(before, 'releve_gc_pause_seconds_count')
  console.log(
    `garbage collections of the service's main thread: ${count}, mean ${((pauses * 1000) / count).toFixed(2)} ms`,
  )
  console.log(`reservations within the service: ${within.join(', ')}`)
  const { quotas } = (await service.call('POST', '/v1/quotas/check', JSON.parse(body({ n: '0' })))) as {
    quotas: { held: string; usage: string; hard: string }[]
  }
  const { held, usage, hard } = quotas[0]!
  isRight = BigInt(held) + BigInt(usage) <= BigInt(hard)
  console.log(`held ${held} of ${hard}, used ${usage}: ${isRight ? 'right' : 'WRONG'}`)
} finally {
  await bare.stop()
  await service.stop()
}
process.exit(isRight ? 0 : 1)
