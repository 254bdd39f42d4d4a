/**
 * One run of the crash test: a fresh data directory, the world put in over the API, a driver, somebody who kills, and in the end
 * the comparison with the oracle. What is killed when is the caller's: `random` kills or a named crash point.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { NatsServer } from '../nats/server.js'
import { checkService, checkStores } from './check.js'
import type { Expected } from './oracle.js'
import { adminKey, freePort, leftAfter, runCommand, Service, type ServiceOptions } from './service.js'
import { buildWorld, worldCalls } from './world.js'

/** Where this project's dist/ lies. */
export const projectRoot: string = fileURLToPath(new URL('../../../', import.meta.url))
const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url))

export interface RunOptions {
  readonly name: string
  readonly seed: number
  readonly streams: number
  readonly root?: string
  readonly epochMs?: number
  /** A real nats-server beside it, which the driver sends through as well. */
  readonly nats?: boolean
  readonly say: (text: string) => void
}

export interface DriverOptions {
  readonly batches: number
  readonly closeAfter: number
  readonly spikes?: number
  readonly pauseMs?: number
}

/** A failed expectation; everything else that is thrown is a fault of the test or of the box. */
export class Difference extends Error {
  readonly differences: readonly string[]

  constructor(differences: readonly string[]) {
    super(differences.slice(0, 8).join('\n'))
    this.differences = differences
  }
}

export class Run {
  readonly directory: string
  readonly now = Date.now()
  readonly #options: RunOptions
  readonly #service: ServiceOptions
  readonly #nats: NatsServer | undefined
  #running: Service | undefined
  #driver: ChildProcess | undefined
  #driverEnded: Promise<number | null> | undefined

  private constructor(options: RunOptions, directory: string, port: number, nats: NatsServer | undefined) {
    this.#options = options
    this.#nats = nats
    this.directory = directory
    this.#service = {
      root: options.root ?? projectRoot,
      directory,
      port,
      env: {
        RELEVE_EPOCH_MS: String(options.epochMs ?? 300),
        RELEVE_GRACE_MS: '0',
        RELEVE_STREAMS: String(options.streams),
        RELEVE_LOG: 'info',
        ...(nats === undefined ? {} : { RELEVE_NATS_URL: nats.url }),
      },
    }
  }

  /** The service runs, and the world is in it. */
  static async open(options: RunOptions, env: Readonly<Record<string, string>> = {}): Promise<Run> {
    const directory = mkdtempSync(join(tmpdir(), `releve-crash-${options.name}-`))
    mkdirSync(join(directory, 'data'), { mode: 0o700 })
    const nats = options.nats === true ? new NatsServer(await freePort()) : undefined
    const run = new Run(options, directory, await freePort(), nats)
    try {
      await nats?.start()
      await run.start(env)
      for (const [path, body] of worldCalls(buildWorld(run.now))) await run.#put(path, body)
      return run
    } catch (error) {
      await run.discard(false)
      throw error
    }
  }

  get service(): Service {
    return this.#running!
  }
  get #api(): { url: string; key: string } {
    return { url: this.service.url, key: adminKey(this.directory) }
  }

  async #put(path: string, body: unknown): Promise<void> {
    const answer = await fetch(`${this.#api.url}${path}`, {
      method: path === '/v1/keys' ? 'POST' : 'PUT',
      headers: { authorization: `Bearer ${this.#api.key}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    if (!answer.ok) throw new Error(`cannot put ${path}: ${answer.status} ${await answer.text()}`)
  }

  /** SIGKILL of nats-server, and a new start on the same store. */
  async killNats(): Promise<void> {
    await this.#nats!.kill()
    await this.#nats!.start()
  }

  /** Starts the service, with more settings than usual. Resolves without waiting. */
  launch(env: Readonly<Record<string, string>> = {}): Service {
    this.#running = new Service(this.#service, env)
    return this.#running
  }

  /** Starts the service and waits until it is ready. */
  async start(env: Readonly<Record<string, string>> = {}): Promise<void> {
    const service = this.launch(env)
    if (!(await service.ready())) {
      const { code, signal } = await service.ended
      throw new Difference([`the service ended with ${signal ?? code} instead of starting: ${this.lastWords()}`])
    }
  }

  async startDriver(driver: DriverOptions): Promise<void> {
    const made = await fetch(`${this.#api.url}/v1/keys`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.#api.key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'driver', tenant: 'epsilon', scopes: ['ingest'] }),
    })
    const { secret } = (await made.json()) as { secret: string }
    const out = openSync(join(this.directory, 'driver.log'), 'a')
    const args = {
      url: this.#api.url,
      'admin-key': this.#api.key,
      'tenant-key': secret,
      seed: String(this.#options.seed),
      now: String(this.now),
      file: this.driverFile,
      batches: String(driver.batches),
      'close-after': String(driver.closeAfter),
      spikes: String(driver.spikes ?? 0.1),
      pause: String(driver.pauseMs ?? 120),
      ...(this.#nats === undefined ? {} : { nats: this.#nats.url }),
    }
    this.#driver = spawn(
      process.execPath,
      [here('./driver.js'), ...Object.entries(args).map(([name, value]) => `--${name}=${value}`)],
      { stdio: ['ignore', out, out] },
    )
    closeSync(out)
    this.#driverEnded = new Promise((resolve) => this.#driver!.once('exit', (code) => resolve(code)))
  }

  get driverFile(): string {
    return join(this.directory, 'driver.jsonl')
  }

  get driverRuns(): boolean {
    return this.#driver?.exitCode === null && this.#driver.signalCode === null
  }

  /** Resolves when the driver has sent everything and all of it is acknowledged. */
  async driverDone(endNow: boolean, boundMs = 300_000): Promise<void> {
    if (endNow) this.#driver!.kill('SIGTERM')
    const bound = new AbortController()
    const code = await Promise.race([
      this.#driverEnded!,
      sleep(boundMs, 'late' as const, { signal: bound.signal }).catch(() => 'late' as const),
    ])
    bound.abort()
    if (code !== 0)
      throw new Difference([
        `the driver ended with ${code}: ${readFileSync(join(this.directory, 'driver.log'), 'utf8').slice(-1_000)}; the service: ${this.lastWords()}`,
      ])
  }

  /** What the oracle makes of the driver's file. */
  expected(): Expected {
    const file = join(this.directory, 'expected.json')
    const out = openSync(file, 'w')
    execFileSync(process.execPath, ['--max-old-space-size=2048', here('./oracle.js'), this.driverFile], {
      stdio: ['ignore', out, 'inherit'],
      timeout: 120_000,
    })
    closeSync(out)
    return JSON.parse(readFileSync(file, 'utf8')) as Expected
  }

  /**
   * The service runs and the driver is done: does everything equal the oracle? Throws Difference.
   *   running  as it stands, nothing stopped (enough for what must fail)
   *   again    after a graceful stop and a start; then a rebuild that must find nothing, and the stores themselves
   *   full     both, and `releve audit`
   */
  async verify(depth: 'running' | 'again' | 'full'): Promise<Expected> {
    const expected = this.expected()
    const hashes = new Map<string, string>()
    const demand = (where: string, differences: readonly string[]): void => {
      if (differences.length > 0) throw new Difference(differences.map((one) => `${where}: ${one}`))
    }
    demand('driver', [...(expected.ended ? [] : ['its file has no end']), ...expected.faults])
    if (depth !== 'again') demand('running', await checkService(this.#api, expected, hashes, 'all'))
    if (depth === 'running') return expected

    const noneLeft = async (): Promise<void> =>
      demand(
        'stopped',
        (await leftAfter(join(this.directory, 'data'), 5_000)).map((pid) => `process ${pid} is left over`),
      )
    await this.service.stop()
    await noneLeft()
    await this.start()
    demand('started again', await checkService(this.#api, expected, hashes, depth === 'full' ? 'totals' : 'all'))
    if (depth === 'full') {
      const audit = runCommand(this.#service, ['audit', '--json'])
      demand('releve audit', audit.code === 0 ? [] : [`exit code ${audit.code}: ${audit.out.slice(-2_000)}`])
    }
    await this.service.stop()
    const rebuilt = runCommand(this.#service, ['rebuild', '--dry-run', '--json'])
    if (rebuilt.code !== 0) demand('releve rebuild', [`exit code ${rebuilt.code}: ${rebuilt.out.slice(-2_000)}`])
    const { tables } = JSON.parse(rebuilt.out) as { tables: { table: string; rows: number; differences: number }[] }
    demand(
      'releve rebuild',
      tables.filter((t) => t.differences > 0).map((t) => `${t.table}: ${t.differences} of ${t.rows} rows differ`),
    )
    demand('stores', await checkStores(this.directory, expected))
    await noneLeft()
    return expected
  }

  /** The end of the service's log: what it said before it died. */
  lastWords(): string {
    try {
      return readFileSync(join(this.directory, 'service.log'), 'utf8').slice(-1_500)
    } catch {
      return ''
    }
  }

  /** Ends whatever still runs; the directory goes when nothing failed. */
  async discard(keep: boolean): Promise<void> {
    this.#driver?.kill('SIGKILL')
    await this.#nats?.close()
    if (this.#running?.running) await this.#running.kill('all')
    const data = join(this.directory, 'data')
    // Leashes end the engines; what is left was orphaned by a kill of this test.
    for (const pid of await leftAfter(data, 15_000)) process.kill(pid, 'SIGKILL')
    if (keep) writeFileSync(join(this.directory, 'seed'), `${this.#options.seed}\n`)
    else rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 })
  }
}
