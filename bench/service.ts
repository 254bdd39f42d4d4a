/**
 * A releve service for a bench: a child process on a directory of its own, with a small catalogue; calls to its API; what it and its
 * engines take of the machine, by process and thread. It measures; it does not judge, and it sends no load (producer.ts).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rootDirectory } from '../src/paths.js'

/** Seconds of CPU since the start, by part of the machine. */
export type CpuSeconds = Readonly<Record<string, number>>

export interface BenchService {
  readonly url: string
  readonly key: string
  readonly pid: number
  readonly directory: string
  /** From the start of the process to the answer of the first event. */
  readonly startMs: number
  call(method: string, path: string, body?: unknown): Promise<Record<string, unknown>>
  /** Resolves when everything that was sent is in a checkpoint; tells each time how many events are, from the first one on. */
  flushed(onLook?: (received: number) => void): Promise<void>
  /** Sum of one metric over its labels; 0 when it has none yet. */
  metric(name: string): Promise<number>
  /** The whole of /metrics. */
  metricsText(): Promise<string>
  cpu(): CpuSeconds
  /** Resident memory, MB, shared pages shared out. */
  memory(): Readonly<Record<string, number>>
  /** Asks its ClickHouse, past it: for rows of the bench's own, and for totals over very many tenants. */
  clickhouse(sql: string): Promise<string>
  /** How its PostgreSQL is reached. */
  postgres(): { port: number; user: string; password: string }
  /** Of its processes; the engines and all that belongs to them by the engine's name. */
  pids(name: 'clickhouse' | 'postgres'): number[]
  /** kill -9, and a new start on the same directory and port; resolves when it is ready again. */
  restart(): Promise<void>
  stop(): Promise<void>
}

export const TENANTS = 10

for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1))

export const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

/** Starts a service with a metric `data` (a sum with one dimension, scale 6) and ten customers. */
export async function startService(options: {
  readonly archive: boolean
  /** Default: any free one, which a restart cannot keep. */
  readonly port?: number
  readonly env?: Readonly<Record<string, string>>
  /** Arguments of node, such as --cpu-prof. */
  readonly nodeArguments?: readonly string[]
}): Promise<BenchService> {
  const directory = mkdtempSync(join(tmpdir(), 'releve-bench-'))
  const started = performance.now()
  let service!: ChildProcess
  let ended!: Promise<void>
  let isStopping = false
  /** Resolves to its address when it is ready. */
  const begin = (): Promise<string> => {
    service = spawn(
      process.execPath,
      [...(options.nodeArguments ?? []), join(rootDirectory, 'dist', 'src', 'main.js'), 'serve'],
      {
        env: {
          ...process.env,
          RELEVE_DATA: directory,
          RELEVE_PORT: String(options.port ?? 0),
          RELEVE_LOG: 'error',
          ...options.env,
        },
        stdio: ['ignore', 'inherit', 'pipe'],
      },
    )
    const started = service
    let said = ''
    // A bench that is stopped, by a key or by a time limit, leaves no service behind.
    const kill = (): boolean => started.kill('SIGKILL')
    process.once('exit', kill)
    ended = new Promise<void>((resolve) =>
      started.on('exit', (code, signal) => {
        process.off('exit', kill)
        if (!isStopping) {
          process.stderr.write(`the service ended by itself: ${signal ?? code}: ${said.slice(-2_000)}\n`)
          // Nobody would tell a bench that waits for it.
          rmSync(directory, { recursive: true, force: true })
          process.exit(1)
        }
        resolve()
      }),
    )
    return new Promise<string>((resolve) => {
      started.stderr!.on('data', (part: Buffer) => {
        said = `${said}${part.toString()}`.slice(-20_000)
        const match = /ready at (http\S+)/.exec(said)
        if (match !== null) resolve(match[1]!)
      })
    })
  }
  const stop = async (signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> => {
    isStopping = true
    service.kill(signal)
    await ended
    isStopping = false
  }
  try {
    const url = await begin()
    const key = readFileSync(join(directory, 'admin.key'), 'utf8').trim()
    // Rarely asked: a socket that was kept may just be closed by the service.
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json', connection: 'close' }
    const call: BenchService['call'] = async (method, path, body) => {
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
    for (let i = 0; i < TENANTS; i += 1) {
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
    const startMs = Math.round(performance.now() - started)
    const metricsText = async (): Promise<string> => (await fetch(`${url}/metrics`, { headers })).text()
    return {
      url,
      key,
      get pid() {
        return service.pid!
      },
      directory,
      startMs,
      call,
      metricsText,
      async flushed(onLook) {
        for (;;) {
          const books = (await call('GET', '/v1/books')) as {
            onTheWay: number
            totals: { received: number }
          }
          onLook?.(books.totals.received)
          if (books.onTheWay === 0) return
          await new Promise((resolve) => setTimeout(resolve, 50))
        }
      },
      metric: async (name) => metricOf(await metricsText(), name),
      async clickhouse(sql) {
        const { user, password, port } = accessOf(directory).clickhouse
        const answer = await fetch(`http://127.0.0.1:${port}/`, {
          method: 'POST',
          headers: { 'x-clickhouse-user': user, 'x-clickhouse-key': password },
          body: sql,
        })
        const text = await answer.text()
        if (!answer.ok) throw new Error(`cannot bench: ClickHouse answers ${text.slice(0, 500)}`)
        return text.trim()
      },
      postgres: () => accessOf(directory).postgres,
      pids: (wanted) =>
        processes(service.pid!)
          .filter(({ name }) => name === wanted)
          .map(({ pid }) => pid),
      cpu: () => cpuOf(service.pid!),
      memory: () => memoryOf(service.pid!),
      async restart() {
        await stop('SIGKILL')
        await begin()
      },
      async stop() {
        await stop()
        rmSync(directory, { recursive: true, force: true })
      },
    }
  } catch (error) {
    await stop()
    rmSync(directory, { recursive: true, force: true })
    throw error
  }
}

interface EngineAccess {
  readonly port: number
  readonly user: string
  readonly password: string
}

const accessOf = (directory: string): { clickhouse: EngineAccess; postgres: EngineAccess } =>
  JSON.parse(readFileSync(join(directory, 'engines.json'), 'utf8')) as {
    clickhouse: EngineAccess
    postgres: EngineAccess
  }

/** One metric of a page of /metrics, summed over its labels, or those of them that say `label`. */
export function metricOf(text: string, name: string, label = ''): number {
  let sum = 0
  for (const [, labels, value] of text.matchAll(new RegExp(`^${name}(?:\\{([^}]*)\\})? (\\S+)$`, 'gm')))
    if ((labels ?? '').includes(label)) sum += Number(value)
  return sum
}

/** The sum of a metric over the bench's tenants, as the service answers it, over the three days around now. */
export async function totalOf(service: BenchService, metric = 'data'): Promise<number> {
  const day = 86_400_000
  const from = Math.floor((Date.now() - day) / day) * day
  let total = 0
  for (let i = 0; i < TENANTS; i += 1) {
    const usage = (await service.call(
      'GET',
      `/v1/usage?tenant=bench-${i}&metric=${metric}&from=${from}&to=${from + 3 * day}`,
    )) as { windows: { value: string }[] }
    for (const { value } of usage.windows) total += Number(value)
  }
  return total
}

/** What `after` took beyond `before`, in ns for each of `events`, largest first. */
export function nsPerEvent(before: CpuSeconds, after: CpuSeconds, events: number): Record<string, number> {
  const parts = Object.entries(after).map(
    ([name, seconds]) => [name, Math.round(((seconds - (before[name] ?? 0)) * 1e9) / events)] as const,
  )
  return Object.fromEntries(parts.filter(([, ns]) => ns > 0).sort((a, b) => b[1] - a[1]))
}

/** Seconds of this process, for a producer that runs in it. */
export function ownCpu(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

const TICKS = 100
/** Threads of V8 that Node starts before its first own one: they compile, and they collect garbage. */
const V8_THREADS = 5

function processes(root: number): { pid: number; name: string }[] {
  const parents = new Map<number, number>()
  const lines = new Map<number, string>()
  for (const entry of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(entry)) continue
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8')
      parents.set(Number(entry), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]))
      lines.set(Number(entry), readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' '))
    } catch {
      // It ended meanwhile.
    }
  }
  const found: { pid: number; name: string }[] = []
  for (const [pid] of parents) {
    let at: number | undefined = pid
    while (at !== undefined && at > 1 && at !== root) at = parents.get(at)
    if (at !== root) continue
    const line = lines.get(pid) ?? ''
    const name =
      pid === root
        ? 'service'
        : line.includes('clickhouse')
          ? 'clickhouse'
          : line.includes('postgres')
            ? 'postgres'
            : 'other'
    found.push({ pid, name })
  }
  return found
}

/** All CPU seconds together. */
export const allOf = (cpu: CpuSeconds): number => Object.values(cpu).reduce((sum, seconds) => sum + seconds, 0)

/** CPU of one process. */
export function cpuOfProcess(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS
}

/** The service by thread: main, each shard (they name themselves), V8's helpers, and the pool that writes and syncs. */
function cpuOf(root: number): CpuSeconds {
  const found: Record<string, number> = {}
  for (const { pid, name } of processes(root)) {
    let seen = 0
    let tasks: string[] = []
    try {
      tasks = readdirSync(`/proc/${pid}/task`)
    } catch {
      continue
    }
    for (const task of tasks.sort((a, b) => Number(a) - Number(b))) {
      let stat: string
      try {
        stat = readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8')
      } catch {
        continue
      }
      const thread = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'))
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      const seconds = (Number(fields[11]) + Number(fields[12])) / TICKS
      let part = name
      if (name === 'service') {
        if (Number(task) === pid) part = 'main'
        else if (thread.startsWith('shard')) part = 'shards'
        else if (thread === 'archive') part = 'archive'
        else part = seen <= V8_THREADS ? 'v8 helpers' : 'pool'
        seen += 1
      }
      found[part] = (found[part] ?? 0) + seconds
    }
  }
  return found
}

function memoryOf(root: number): Record<string, number> {
  const found: Record<string, number> = {}
  for (const { pid, name } of processes(root)) {
    try {
      const kb = Number(/^Pss:\s+([0-9]+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0)
      found[name] = (found[name] ?? 0) + kb / 1024
    } catch {
      // It ended meanwhile.
    }
  }
  return Object.fromEntries(Object.entries(found).map(([name, mb]) => [name, Math.round(mb)]))
}
