/**
 * Reservations over HTTP: what a gateway waits for when it asks for room before it works. A service of its own, a fixed rate, each
 * request a reservation with a key of its own, every one on disk before its answer; the sum that was granted is compared with the limit.
 *
 *     node dist/bench/reservations.bench.js large      5,000 requests/s for 15 s; small is for the tests
 *
 * The load comes from autocannon in this process, so that two processors are the service's and the load's. Not measured: reservations
 * beside a full stream of events (canonical.bench.ts is that stream).
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import autocannon from 'autocannon'
import { rootDirectory } from '../src/paths.js'

const large = process.argv[2] === 'large'
const [rate, seconds] = large ? [5_000, 15] : [200, 1]
const connections = Number(process.argv[3] ?? 8)
const data = mkdtempSync(join(tmpdir(), 'releve-reservations-'))
const service = spawn(process.execPath, [join(rootDirectory, 'dist/src/main.js'), 'serve'], {
  env: {
    PATH: process.env.PATH,
    RELEVE_DATA: data,
    RELEVE_PORT: '0',
    RELEVE_STREAMS: '1',
    RELEVE_LOG: 'error',
    RELEVE_RESERVATIONS_SYNC: process.argv[4] ?? 'soon',
  },
  stdio: ['ignore', 'ignore', 'pipe'],
})
const ended = once(service, 'exit')
try {
  let url = ''
  for await (const line of createInterface(service.stderr!)) {
    const ready = /ready at (http\S+)/.exec(line)
    if (ready === null) continue
    url = ready[1]!
    break
  }
  service.stderr!.resume()
  const headers = {
    authorization: `Bearer ${readFileSync(join(data, 'admin.key'), 'utf8').trim()}`,
    'content-type': 'application/json',
  }
  const call = async <T>(method: string, path: string, body: unknown): Promise<T> => {
    const answer = await fetch(`${url}${path}`, { method, headers, body: JSON.stringify(body) })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    return (await answer.json()) as T
  }
  await call('PUT', '/v1/metrics-catalog', { key: 'calls', aggregation: 'count', unit: 'call', scale: 0, dims: [] })
  await call('PUT', '/v1/customers', {
    tenant: 'acme',
    name: 'Acme',
    country: 'CI',
    taxRate: '18',
    currency: 'EUR',
    timeZone: 'UTC',
  })
  /** Before what is timed: a process that has just started compiles what it runs, for some seconds. */
  const warmUpS = large ? 5 : 0
  // Less than what is asked for, so that the end is met too.
  const limit = Math.floor(rate * (warmUpS + seconds) * 0.9)
  await call('PUT', '/v1/limits', { tenant: 'acme', metric: 'calls', soft: null, hard: String(limit) })

  let next = 0
  /** Exact times of the answers, ms; autocannon's own are whole milliseconds. */
  let times: number[] = []
  const load = (
    path: string,
    bodyOf: (() => unknown) | null,
    of: { rate: number; seconds: number },
  ): Promise<autocannon.Result> => {
    times = []
    return new Promise((resolve, reject) => {
      const options: autocannon.Options = {
        url: `${url}${path}`,
        connections,
        overallRate: of.rate,
        duration: of.seconds,
        headers,
        requests: [
          bodyOf === null
            ? {}
            : { method: 'POST', setupRequest: (request) => ({ ...request, body: JSON.stringify(bodyOf()) }) },
        ],
      }
      const running = autocannon(options, (error, result) => (error ? reject(error) : resolve(result)))
      running.on('response', (_client, _status, _bytes, time) => times.push(time))
    })
  }
  const reserve = (): unknown => {
    next += 1
    return { tenant: 'acme', metric: 'calls', n: '1', key: `k${next}`, leaseSeconds: 3600 }
  }
  const check = (): unknown => ({ tenant: 'acme', metric: 'calls', n: '1' })
  const print = (what: string, { requests, non2xx, errors, latency }: autocannon.Result): void => {
    const sorted = Float64Array.from(times).sort()
    const at = (part: number): string =>
      (sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0).toFixed(2)
    console.log(
      `${what}: ${Math.round(requests.average)} requests/s, p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, p99 ${at(0.99)} ms, p99.9 ${at(0.999)} ms, ` +
        `max ${at(1)} ms; corrected for the rate p99 ${latency.p99} ms; not 2xx ${non2xx}, errors ${errors}`,
    )
  }
  const counts = async (): Promise<(bucket: string) => number> => {
    const metrics = await (await fetch(`${url}/metrics`, { headers })).text()
    return (bucket) =>
      Number(new RegExp(`^releve_reserve_seconds_bucket\\{le="${bucket}"\\} (\\d+)`, 'm').exec(metrics)?.[1] ?? 0)
  }
  // What the box, the HTTP server and the load generator take by themselves.
  if (large) await load('/health/live', null, { rate, seconds: warmUpS })
  print('GET /health/live', await load('/health/live', null, { rate, seconds: large ? 5 : seconds }))
  if (large) await load('/v1/quotas/check', check, { rate, seconds: warmUpS })
  print('check', await load('/v1/quotas/check', check, { rate, seconds: large ? 5 : seconds }))
  if (large) await load('/v1/reservations', reserve, { rate, seconds: warmUpS })
  const before = await counts()
  print('reserve', await load('/v1/reservations', reserve, { rate, seconds }))
  const { quotas } = await call<{ quotas: { held: string; hard: string }[] }>('POST', '/v1/quotas/check', {
    ...(check() as object),
    n: '0',
  })
  const { held, hard } = quotas[0]!
  const after = await counts()
  const counted = (bucket: string): number => after(bucket) - before(bucket)
  const all = counted('\\+Inf')
  console.log(
    `within the service: ${['0.0005', '0.001', '0.002', '0.005', '0.01'].map((le) => `${((100 * counted(le)) / all).toFixed(2)} % in ${Number(le) * 1000} ms`).join(', ')}`,
  )
  console.log(`held ${held} of ${hard}: ${BigInt(held) <= BigInt(hard) ? 'right' : 'WRONG'}`)
} finally {
  service.kill('SIGTERM')
  await ended
  rmSync(data, { recursive: true, force: true })
}
