/**
 * Question: how many events a second does the whole road take, from the socket to rows in ClickHouse, with the producer and both
 * engines on the same machine? Acknowledged = on disk in the log; flushed = in a checkpoint. At the end the totals are compared
 * with what was sent: a run with a wrong total is a failed run.
 *
 * Events of about 180 bytes, 36-byte ids, 10,000 series with a skew, 3 % of the batches sent twice. Bodies are made ahead and
 * only their ids are written anew, so that the producer costs little.
 *
 *     node dist/bench/canonical.bench.js              small: 20 requests
 *     node dist/bench/canonical.bench.js large        2,000 requests of 1,000 events, archive on and off
 *     node dist/bench/canonical.bench.js large 100    batches of 100
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import autocannon from 'autocannon'
import { rootDirectory } from '../src/paths.js'

export interface CanonicalResult {
  readonly archive: boolean
  readonly batch: number
  readonly sent: number
  readonly ackedPerS: number
  readonly flushedPerS: number
  readonly ackP50Ms: number
  readonly ackP99Ms: number
  readonly startMs: number
  readonly quotaMs: number
  readonly rssMb: Readonly<Record<string, number>>
  readonly totalsRight: boolean
}

const BODIES = 64
const RETRIED = 33

/** A body of `batch` events whose ids can be written over: 24 fixed characters and 12 digits of a counter. */
function makeBody(batch: number, seed: number, metric: string): { bytes: Buffer; ids: number[]; sum: number } {
  const ids: number[] = []
  const parts: string[] = []
  let at = 1
  let sum = 0
  const now = Date.now()
  for (let i = 0; i < batch; i += 1) {
    // A square spreads the series unevenly: a tenth of them gets a third of the events.
    const r = (seed * 7919 + i * 104_729) % 100_000
    const series = Math.floor((r * r) / 1_000_000)
    const value = (r % 997) + 1
    sum += value
    const head = `{"id":"`
    const text = `${head}5f0c3f6e-8d1b-4a57-9a3e-000000000000","tenant":"bench-${series % 10}","metric":"${metric}","subject":"dev-${series}","time":${now - (r % 600_000)},"value":"${value}","dims":{"region":"eu-west"}}`
    ids.push(at + head.length + 24)
    parts.push(text)
    at += text.length + 1
  }
  return { bytes: Buffer.from(`[${parts.join(',')}]`), ids, sum }
}

function stamp(body: { bytes: Buffer; ids: number[] }, first: number): void {
  for (let i = 0; i < body.ids.length; i += 1) {
    let n = first + i
    for (let at = body.ids[i]! + 11; n > 0; at -= 1) {
      body.bytes[at] = 48 + (n % 10)
      n = Math.floor(n / 10)
    }
  }
}

async function rss(pid: number): Promise<Record<string, number>> {
  const found: Record<string, number> = {}
  const parents = new Map<number, number>()
  const names = new Map<number, string>()
  for (const entry of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(entry)) continue
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8')
      parents.set(Number(entry), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]))
      names.set(Number(entry), readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' '))
    } catch {
      // It ended meanwhile.
    }
  }
  for (const [child] of parents) {
    let at: number | undefined = child
    while (at !== undefined && at > 1 && at !== pid) at = parents.get(at)
    if (at !== pid) continue
    const cmd = names.get(child) ?? ''
    const name =
      child === pid
        ? 'service'
        : cmd.includes('clickhouse')
          ? 'clickhouse'
          : cmd.includes('postgres')
            ? 'postgres'
            : 'other'
    const kb = Number(/^Pss:\s+([0-9]+)/m.exec(readFileSync(`/proc/${child}/smaps_rollup`, 'utf8'))?.[1] ?? 0)
    found[name] = Math.round(((found[name] ?? 0) * 1024 + kb) / 1024)
  }
  return found
}

export async function benchCanonical(options: {
  requests: number
  batch: number
  archive: boolean
}): Promise<CanonicalResult> {
  const data = mkdtempSync(join(tmpdir(), 'releve-bench-'))
  const started = performance.now()
  const service: ChildProcess = spawn(process.execPath, [join(rootDirectory, 'dist', 'src', 'main.js'), 'serve'], {
    env: { ...process.env, RELEVE_DATA: data, RELEVE_PORT: '0', RELEVE_LOG: 'error' },
    stdio: ['ignore', 'inherit', 'pipe'],
  })
  const ended = new Promise<void>((resolve) => service.on('exit', () => resolve()))
  try {
    const url = await new Promise<string>((resolve, reject) => {
      let text = ''
      service.stderr!.on('data', (part: Buffer) => {
        text += part.toString()
        const match = /ready at (http\S+)/.exec(text)
        if (match !== null) resolve(match[1]!)
      })
      service.on('exit', (code) => reject(new Error(`cannot bench: the service ended with ${code}: ${text}`)))
    })
    const key = readFileSync(join(data, 'admin.key'), 'utf8').trim()
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
    const call = async (method: string, path: string, body?: unknown): Promise<Record<string, unknown>> => {
      const answer = await fetch(`${url}${path}`, {
        method,
        headers,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      if (!answer.ok) throw new Error(`cannot bench: ${method} ${path} answers ${answer.status} ${await answer.text()}`)
      return (await answer.json()) as Record<string, unknown>
    }
    const metric = { key: 'data', aggregation: 'sum', unit: 'Mo', scale: 6, dims: ['region'], archive: options.archive }
    await call('PUT', '/v1/metrics-catalog', metric)
    for (let i = 0; i < 10; i += 1) {
      await call('PUT', '/v1/customers', {
        tenant: `bench-${i}`,
        name: `Bench ${i}`,
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
    await call('POST', '/v1/events', [{ id: 'first', tenant: 'bench-0', metric: 'data', value: '1' }])
    const startMs = performance.now() - started

    // From an event to the figure: ?wait=applied answers when it is counted.
    const asked = performance.now()
    await call('POST', '/v1/events?wait=applied', [{ id: 'second', tenant: 'bench-0', metric: 'data', value: '1' }])
    const quotaMs = performance.now() - asked

    const bodies = Array.from({ length: BODIES }, (_, i) => makeBody(options.batch, i + 1, 'data'))
    let made = 0
    let counter = 1
    let expected = 2
    let sent = 0
    const began = performance.now()
    const result = await autocannon({
      url: `${url}/v1/events`,
      method: 'POST',
      headers,
      connections: 8,
      amount: options.requests,
      // One body is in flight at most once: 64 of them and 8 connections.
      requests: [
        {
          setupRequest: (request) => {
            const body = bodies[made % BODIES]!
            const again = made % RETRIED === RETRIED - 1
            if (again) {
              // The batch before, once more.
              const before = bodies[(made - 1) % BODIES]!
              made += 1
              sent += options.batch
              return { ...request, body: before.bytes }
            }
            stamp(body, counter)
            counter += options.batch
            made += 1
            sent += options.batch
            expected += body.sum
            return { ...request, body: body.bytes }
          },
        },
      ],
    })
    const acked = performance.now() - began
    if (result.non2xx > 0 || result.errors > 0)
      throw new Error(`cannot bench: ${result.non2xx} refused, ${result.errors} failed`)
    for (;;) {
      const books = (await call('GET', '/v1/books')) as { onTheWay: number }
      if (books.onTheWay === 0) break
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const flushed = performance.now() - began
    const day = 86_400_000
    const from = Math.floor((Date.now() - day) / day) * day
    let total = 0
    for (let i = 0; i < 10; i += 1) {
      const usage = (await call(
        'GET',
        `/v1/usage?tenant=bench-${i}&metric=data&from=${from}&to=${from + 3 * day}`,
      )) as {
        windows: { value: string }[]
      }
      total += Number(usage.windows[0]?.value ?? 0)
    }
    return {
      archive: options.archive,
      batch: options.batch,
      sent,
      ackedPerS: Math.round((sent / acked) * 1000),
      flushedPerS: Math.round((sent / flushed) * 1000),
      ackP50Ms: result.latency.p50,
      ackP99Ms: result.latency.p99,
      startMs: Math.round(startMs),
      quotaMs: Math.round(quotaMs * 10) / 10,
      rssMb: await rss(service.pid!),
      totalsRight: total === expected,
    }
  } finally {
    service.kill('SIGTERM')
    await ended
    rmSync(data, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const large = process.argv[2] === 'large'
  const batch = Number(process.argv[3] ?? 1000)
  for (const archive of [true, false]) {
    const r = await benchCanonical({
      requests: large ? Math.round(Number(process.argv[4] ?? 2_000_000) / batch) : 20,
      batch,
      archive,
    })
    process.stdout.write(
      `archive ${archive ? 'on ' : 'off'}  batch ${r.batch}  sent ${r.sent}  acknowledged ${r.ackedPerS} events/s  flushed ${r.flushedPerS} events/s  ack p50 ${r.ackP50Ms} ms p99 ${r.ackP99Ms} ms  start to first ack ${r.startMs} ms  event to figure ${r.quotaMs} ms  memory MB ${JSON.stringify(r.rssMb)}  totals ${r.totalsRight ? 'right' : 'WRONG'}\n`,
    )
    if (!r.totalsRight) process.exitCode = 1
  }
}
