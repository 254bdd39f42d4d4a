/**
 * The service of the crash test: `node dist/src/main.js serve` as a real child process on a data directory and a port of its own,
 * with its engines found through /proc, so that each of them can be killed by itself. Everything waits with a bound.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const START_MS = 90_000
const STOP_MS = 60_000

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => server.listen(0, '127.0.0.1', resolve).once('error', reject))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

export function isAlive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')
  } catch {
    return false
  }
}

/** Every process that works in the directory or names it in its command line, this one excepted. */
export function processesOf(directory: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => {
      try {
        const inside = readlinkSync(`/proc/${name}/cwd`).startsWith(directory)
        return (
          (inside || readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(`${directory}/`)) && isAlive(Number(name))
        )
      } catch {
        return false
      }
    })
    .map(Number)
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** `nats`: the server that is not the service's child; whoever runs it kills it (scenario.ts). */
export type Victim = 'service' | 'clickhouse' | 'postgres' | 'all' | 'service-and-leashes' | 'nats'

/** How a service process ended. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface ServiceOptions {
  /** Where dist/ lies: the project, or the copy of a mutant. */
  readonly root: string
  /** The directory of the run; the data directory is `data` in it. */
  readonly directory: string
  readonly port: number
  readonly env: Readonly<Record<string, string>>
}

export class Service {
  readonly #options: ServiceOptions
  readonly #child: ChildProcess
  readonly ended: Promise<Ended>
  #ended: Ended | undefined

  constructor(options: ServiceOptions, env: Readonly<Record<string, string>> = {}) {
    this.#options = options
    const out = openSync(join(options.directory, 'service.log'), 'a')
    this.#child = spawn(process.execPath, [join(options.root, 'dist/src/main.js'), 'serve'], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', ...serviceEnv(options), ...env },
      stdio: ['ignore', out, out],
    })
    closeSync(out)
    this.ended = new Promise((resolve) => {
      this.#child.once('exit', (code, signal) => {
        this.#ended = { code, signal }
        resolve(this.#ended)
      })
    })
  }

  get pid(): number {
    return this.#child.pid!
  }
  get url(): string {
    return `http://127.0.0.1:${this.#options.port}`
  }
  get running(): boolean {
    return this.#ended === undefined
  }

  /** True when it takes events; false when it ended before. */
  async ready(): Promise<boolean> {
    const deadline = performance.now() + START_MS
    while (performance.now() < deadline) {
      if (!this.running) return false
      const answer = await fetch(`${this.url}/health/ready`, { signal: AbortSignal.timeout(5_000) }).catch(
        () => undefined,
      )
      await answer?.arrayBuffer().catch(() => undefined)
      if (answer?.status === 200) return true
      await sleep(30)
    }
    throw new Error(`the service is not ready after ${START_MS} ms`)
  }

  /** How it ended, or undefined after the bound. */
  async endWithin(ms: number): Promise<Ended | undefined> {
    const bound = new AbortController()
    const ended = await Promise.race([
      this.ended,
      sleep(ms, undefined, { signal: bound.signal }).catch(() => undefined),
    ])
    bound.abort()
    return ended ?? undefined
  }

  /** Kills with SIGKILL. Returns false when the victim is not there (an engine that is just starting). */
  async kill(victim: Victim): Promise<boolean> {
    const children = this.#children()
    const engine = (name: string): number[] =>
      children
        .filter((child) => child.command.includes(name) && !child.command.includes('releve-leash'))
        .map((child) => child.pid)
    const leashes = children.filter((child) => child.command.includes('releve-leash')).map((child) => child.pid)
    const victims: readonly number[] = {
      service: [this.pid],
      clickhouse: engine('clickhouse-child'),
      postgres: engine('bin/postgres'),
      all: [this.pid, ...engine('clickhouse-child'), ...engine('bin/postgres')],
      'service-and-leashes': [...leashes, this.pid],
      nats: [],
    }[victim]
    for (const pid of victims) kill(pid)
    if (victims.includes(this.pid)) await this.ended
    return victims.length > 0
  }

  #children(): { readonly pid: number; readonly command: string }[] {
    try {
      return readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8')
        .trim()
        .split(' ')
        .filter((text) => text !== '')
        .map((text) => ({ pid: Number(text), command: readFileSync(`/proc/${text}/cmdline`, 'utf8') }))
    } catch {
      return []
    }
  }

  /** Asks it to end; throws when it does not, or not with code 0. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM')
    const ended = await this.endWithin(STOP_MS)
    if (ended === undefined) {
      await this.kill('all')
      throw new Error(`the service did not stop within ${STOP_MS} ms`)
    }
    if (ended.code !== 0) throw new Error(`the service stopped with ${ended.signal ?? ended.code}`)
  }
}

function serviceEnv(options: ServiceOptions): Record<string, string> {
  return {
    RELEVE_DATA: join(options.directory, 'data'),
    RELEVE_PORT: String(options.port),
    RELEVE_HOST: '127.0.0.1',
    ...options.env,
  }
}

/** A command of the product's command line on the same directory; its standard output. */
export function runCommand(
  options: ServiceOptions,
  args: readonly string[],
): { readonly code: number; readonly out: string } {
  try {
    const out = execFileSync(process.execPath, [join(options.root, 'dist/src/main.js'), ...args], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', ...serviceEnv(options) },
      timeout: 120_000,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    return { code: 0, out }
  } catch (error) {
    const { status, stdout, stderr } = error as { status: number | null; stdout: string; stderr: string }
    return { code: status ?? 1, out: `${stdout}${stderr}` }
  }
}

/** The key that the first start leaves in the data directory. */
export function adminKey(directory: string): string {
  const file = join(directory, 'data', 'admin.key')
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : ''
}

/** Waits for processes to end; those that are left after the bound. */
export async function leftAfter(directory: string, ms: number): Promise<number[]> {
  const deadline = performance.now() + ms
  for (;;) {
    const left = processesOf(directory)
    if (left.length === 0 || performance.now() > deadline) return left
    await sleep(50)
  }
}
