/**
 * Load for any running releve, and at its end one answer that counts: are the totals right? For load-testers; the project's own
 * figures come from the other benches.
 *
 *     npm run load                                     against the service on this machine (.data), profile platform, 10 s
 *     npm run load -- --profile gateway --seconds 60 --connections 64
 *     npm run load -- --url http://10.0.0.5:8484 --key rlv_… --metric load_events --tenants acme,globex
 *
 * Profiles: `gateway` many connections with batches of 100; `platform` few with batches of 1,000; `burst` full load for two seconds,
 * silence for two; `duplicates` every second batch is sent again, some after ten others; `single` one event a request.
 *
 * How it knows: each run has ids and a dimension value `run` of its own. Every batch is sent until it was answered 2xx (whatever
 * failed is sent again at the end, with the same ids), so each distinct event must count exactly once, and the sum and the count of this
 * run are known to the last digit. Exit code 1 when they differ.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import autocannon from 'autocannon'

interface Profile {
  readonly batch: number
  readonly connections: number
  /** Share of the batches that are sent again. */
  readonly again: number
  /** A batch comes again after so many others. */
  readonly lag: number
  /** Seconds of load and of silence; null: load all the time. */
  readonly rhythm: readonly [number, number] | null
}

export const profiles: Readonly<Record<string, Profile>> = {
  gateway: { batch: 100, connections: 50, again: 0.01, lag: 1, rhythm: null },
  platform: { batch: 1_000, connections: 8, again: 0.03, lag: 1, rhythm: null },
  burst: { batch: 1_000, connections: 16, again: 0.03, lag: 1, rhythm: [2, 2] },
  duplicates: { batch: 500, connections: 8, again: 0.5, lag: 10, rhythm: null },
  single: { batch: 1, connections: 100, again: 0.01, lag: 1, rhythm: null },
}

export interface LoadOptions {
  readonly url: string
  readonly key: string
  readonly profile: string
  readonly seconds: number
  readonly batch?: number
  readonly connections?: number
  /** Both must exist; null: made by this run, which needs a key with the scope admin. */
  readonly metric: string | null
  readonly tenants: readonly string[] | null
  readonly onProgress?: (line: string) => void
}

export interface LoadReport {
  readonly profile: string
  readonly seconds: number
  readonly requests: number
  readonly eventsSent: number
  readonly distinctEvents: number
  readonly eventsPerS: number
  readonly ackMs: { readonly p50: number; readonly p99: number; readonly p999: number }
  readonly refusedRequests: number
  readonly sentAgainAtEnd: number
  readonly expected: { readonly count: string; readonly sum: string }
  readonly found: { readonly count: string; readonly sum: string }
  readonly right: boolean
}

interface Batch {
  readonly body: string
  readonly events: number
  acknowledged: boolean
}

const OWN_METRIC = 'releve_load'

export async function runLoad(options: LoadOptions): Promise<LoadReport> {
  const profile = profiles[options.profile]
  if (profile === undefined)
    throw new Error(`cannot load: profile ${options.profile} is none of ${Object.keys(profiles).join(', ')}`)
  const batchEvents = options.batch ?? profile.batch
  const connections = options.connections ?? profile.connections
  const say = options.onProgress ?? (() => {})
  const call = async (method: string, path: string, body?: unknown): Promise<Record<string, unknown>> => {
    const answer = await fetch(`${options.url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${options.key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    if (!answer.ok) throw new Error(`cannot load: ${method} ${path} answers ${answer.status}: ${await answer.text()}`)
    return (await answer.json()) as Record<string, unknown>
  }

  const tenants = options.tenants ?? ['load-1', 'load-2', 'load-3', 'load-4']
  const metric = options.metric ?? OWN_METRIC
  if (options.metric === null) {
    const definition = { key: metric, aggregation: 'sum', unit: 'unit', scale: 3, dims: ['run'], archive: true }
    await call('PUT', '/v1/metrics-catalog', definition)
  }
  if (options.tenants === null) {
    for (const tenant of tenants) {
      await call('PUT', '/v1/customers', {
        tenant,
        name: `Load test ${tenant}`,
        country: 'CI',
        address: [],
        registrations: {},
        taxRate: '18',
        taxCategory: 'S',
        currency: 'EUR',
        timeZone: 'Africa/Abidjan',
        language: 'fr',
        termDays: 30,
      })
    }
  }

  const run = randomBytes(6).toString('hex')
  const startedAt = Date.now()
  let made = 0
  // In thousandths, so that nothing is lost in adding.
  let expectedSum = 0n
  let expectedCount = 0n
  const make = (): Batch => {
    const parts: string[] = []
    let sum = 0
    for (let i = 0; i < batchEvents; i += 1) {
      const n = made * batchEvents + i
      const thousandths = ((n * 7919) % 9_973) + 1
      sum += thousandths
      const value = `${Math.floor(thousandths / 1000)}.${String(thousandths % 1000).padStart(3, '0')}`
      parts.push(
        `{"id":"${run}-${n}","tenant":"${tenants[n % tenants.length]}","metric":"${metric}","subject":"device-${(n * 31) % 10_000}","time":${startedAt - (n % 60_000)},"value":"${value}","dims":{"run":"${run}"}}`,
      )
    }
    made += 1
    expectedSum += BigInt(sum)
    expectedCount += BigInt(batchEvents)
    return { body: `[${parts.join(',')}]`, events: batchEvents, acknowledged: false }
  }

  // What may still be needed: batches without an answer, and those that will come again.
  const open = new Set<Batch>()
  const recent: Batch[] = []
  let again = 0
  let events = 0
  let requests = 0
  const next = (): Batch => {
    again += profile.again
    let batch: Batch
    if (again >= 1 && recent.length > profile.lag) {
      again -= 1
      batch = recent[recent.length - 1 - profile.lag]!
    } else {
      batch = make()
      recent.push(batch)
      if (recent.length > profile.lag + 2) recent.shift()
    }
    if (!batch.acknowledged) open.add(batch)
    events += batch.events
    requests += 1
    return batch
  }

  let refused = 0
  const latencies: { p50: number; p99: number; p999: number }[] = []
  const shoot = async (seconds: number): Promise<void> => {
    const instance = autocannon({
      url: `${options.url}/v1/events`,
      method: 'POST',
      headers: { authorization: `Bearer ${options.key}`, 'content-type': 'application/json' },
      connections,
      duration: seconds,
      timeout: 30,
      requests: [
        {
          setupRequest: (request, context) => {
            const batch = next()
            ;(context as { batch?: Batch }).batch = batch
            return { ...request, body: batch.body }
          },
          onResponse: (status, _body, context) => {
            const { batch } = context as { batch?: Batch }
            if (status >= 200 && status < 300 && batch !== undefined) {
              batch.acknowledged = true
              open.delete(batch)
            } else refused += 1
          },
        },
      ],
    })
    const { latency } = await instance
    latencies.push({ p50: latency.p50, p99: latency.p99, p999: latency.p99_9 })
  }

  const began = performance.now()
  const ticker = setInterval(() => {
    const seconds = (performance.now() - began) / 1000
    say(`${seconds.toFixed(0)} s  ${events} events sent  ${Math.round(events / seconds)} /s  refused ${refused}`)
  }, 1_000)
  let loaded = 0
  try {
    if (profile.rhythm === null) {
      await shoot(options.seconds)
      loaded = options.seconds
    } else {
      const [on, off] = profile.rhythm
      while ((performance.now() - began) / 1000 < options.seconds) {
        await shoot(on)
        loaded += on
        await sleep(off * 1000)
      }
    }
  } finally {
    clearInterval(ticker)
  }
  const eventsInTime = events

  // The end of the run cut some requests off before their answer: nobody knows whether they were stored, so they are sent again.
  const left = [...open]
  for (const batch of left) {
    for (let tries = 1; ; tries += 1) {
      const answer = await fetch(`${options.url}/v1/events`, {
        method: 'POST',
        headers: { authorization: `Bearer ${options.key}`, 'content-type': 'application/json' },
        body: batch.body,
      })
      const text = await answer.text()
      if (answer.ok) break
      if (answer.status !== 429 && answer.status !== 503)
        throw new Error(`cannot load: an event batch is answered ${answer.status}: ${text.slice(0, 500)}`)
      if (tries === 60) throw new Error(`cannot load: the service refuses load for a minute: ${text.slice(0, 500)}`)
      await sleep(1000 * Number(answer.headers.get('retry-after') ?? 1))
    }
  }

  say('counting')
  const from = startedAt - 120_000
  const minute = 60_000
  const question = (tenant: string): string =>
    `/v1/usage?${new URLSearchParams({
      tenant,
      metric,
      from: String(Math.floor(from / minute) * minute),
      to: String(Math.ceil((startedAt + minute) / minute) * minute),
      'dims.run': run,
    })}`
  interface Found {
    readonly sum: bigint
    readonly count: bigint
  }
  const count = async (): Promise<Found> => {
    let found: Found = { sum: 0n, count: 0n }
    for (const tenant of tenants) {
      const { windows } = (await call('GET', question(tenant))) as { windows: { value: string; count: string }[] }
      for (const { value, count } of windows)
        found = { sum: found.sum + thousandths(value), count: found.count + BigInt(count) }
    }
    return found
  }
  let found = await count()
  // Usage answers lag by an epoch; a total above what was sent will not mend itself.
  for (let i = 0; i < 120 && (found.sum < expectedSum || found.count < expectedCount); i += 1) {
    await sleep(500)
    found = await count()
  }
  const worst = (name: 'p50' | 'p99' | 'p999'): number => Math.max(...latencies.map((l) => l[name]))
  return {
    profile: options.profile,
    seconds: loaded,
    requests,
    eventsSent: eventsInTime,
    distinctEvents: Number(expectedCount),
    eventsPerS: Math.round(eventsInTime / loaded),
    ackMs: { p50: worst('p50'), p99: worst('p99'), p999: worst('p999') },
    refusedRequests: refused,
    sentAgainAtEnd: left.length,
    expected: { count: String(expectedCount), sum: decimal(expectedSum) },
    found: { count: String(found.count), sum: decimal(found.sum) },
    right: found.sum === expectedSum && found.count === expectedCount,
  }
}

const thousandths = (text: string): bigint => {
  const [whole = '0', fraction = ''] = text.split('.')
  return BigInt(whole) * 1000n + BigInt(fraction.padEnd(3, '0'))
}
const decimal = (value: bigint): string => `${value / 1000n}.${String(value % 1000n).padStart(3, '0')}`

/** Where a service of this machine listens and its admin key, as its data directory tells. */
function localService(data: string): { url: string; key: string } {
  const file = join(data, 'service.json')
  if (!existsSync(file))
    throw new Error(`cannot load: no service runs on ${data}. npm start runs one, or give --url and --key.`)
  return {
    url: (JSON.parse(readFileSync(file, 'utf8')) as { url: string }).url,
    key: readFileSync(join(data, 'admin.key'), 'utf8').trim(),
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      url: { type: 'string' },
      key: { type: 'string' },
      data: { type: 'string', default: '.data' },
      profile: { type: 'string', default: 'platform' },
      seconds: { type: 'string', default: '10' },
      batch: { type: 'string' },
      connections: { type: 'string' },
      metric: { type: 'string' },
      tenants: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  })
  const whole = (name: string, text: string | undefined): number | undefined => {
    if (text === undefined) return undefined
    if (!/^[0-9]{1,6}$/.test(text) || Number(text) < 1) throw new Error(`cannot load: --${name} is not a whole number`)
    return Number(text)
  }
  const local = values.url === undefined || values.key === undefined ? localService(values.data) : undefined
  const [batch, connections] = [whole('batch', values.batch), whole('connections', values.connections)]
  const report = await runLoad({
    url: (values.url ?? local!.url).replace(/\/$/, ''),
    key: values.key ?? local!.key,
    profile: values.profile,
    seconds: whole('seconds', values.seconds)!,
    ...(batch === undefined ? {} : { batch }),
    ...(connections === undefined ? {} : { connections }),
    metric: values.metric ?? null,
    tenants: values.tenants?.split(',') ?? null,
    onProgress: (line) => process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${line}` : `${line}\n`),
  })
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  if (values.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
  else {
    const { ackMs, expected, found } = report
    process.stdout.write(`profile ${report.profile}: ${report.requests} requests in ${report.seconds} s
  sent          ${report.eventsSent} events, ${report.distinctEvents} distinct, ${report.eventsPerS} events/s
  acknowledged  p50 ${ackMs.p50} ms  p99 ${ackMs.p99} ms  p99.9 ${ackMs.p999} ms
  refused       ${report.refusedRequests} requests; ${report.sentAgainAtEnd} batches sent again at the end
  expected      ${expected.count} events, sum ${expected.sum}
  found         ${found.count} events, sum ${found.sum}
  ${report.right ? 'THE TOTALS ARE RIGHT' : 'THE TOTALS ARE WRONG'}
`)
  }
  return report.right ? 0 : 1
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exitCode = await main().catch((error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    return 2
  })
}
