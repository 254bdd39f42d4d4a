/**
 * One embedded engine as a child process: started, watched, started again when it dies, stopped with the service.
 *
 * States:
 *   stopped   before start() and after close().
 *   starting  a process runs (or is about to) and does not answer yet.
 *   up        it answered with our password; left only by its death or close().
 *   waiting   it died; a timer holds the back-off before the next start.
 *   failed    it died more often than limits allow; onFatal was called once, nothing is started any more.
 *
 * No orphans: beside the engine runs a small shell process, the leash. It reads a pipe that only the service holds open, and
 * signals the engine when the pipe closes, so the engine ends however the service ended. What slips even through that (the
 * leash itself was killed, or the service was killed before it told the leash the pid) is found at the next start, see
 * leftovers.ts.
 *
 * The engine leads its own session: Ctrl-C in a terminal reaches the service alone, which stops the engines in its own order.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'

/** What to run; made anew before every start. */
export interface Launch {
  readonly command: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly uid?: number
  readonly gid?: number
  /** A command that the whole is started through, such as unshare. It must exec, so that the pid stays. */
  readonly through?: readonly string[]
}

export interface EngineProcessOptions {
  readonly name: string
  /** Working directory of the engine: an own folder of the data directory. */
  readonly directory: string
  /** Clears leftovers, writes configuration, chooses the port; `first` until the engine was up once: only then may the port change. */
  readonly prepare: (first: boolean) => Promise<Launch>
  /** Resolves with the version when the engine answers with our password, rejects while it does not. */
  readonly probe: () => Promise<string>
  /** Asks the engine to end gracefully. */
  readonly stopSignal: NodeJS.Signals
  /** What the engine gets when the service is gone. */
  readonly leashSignal: NodeJS.Signals
  /** Deaths within limits.engineRestartWindowMs that are answered with a new start; limits.engineRestartsMax by default. */
  readonly restartsMax?: number
  readonly logger: Logger
  readonly onFatal: (error: Error) => void
}

type State = 'stopped' | 'starting' | 'up' | 'waiting' | 'failed'

// First line: the pid to watch. A second line means «it has ended, go home»; the end of the pipe means «the service is gone».
const leashScript = `
read -r pid || exit 0
read -r word && exit 0
kill -s "$1" "$pid" || exit 0
i=0
while [ $i -lt 40 ]; do sleep 0.25; kill -0 "$pid" || exit 0; i=$((i+1)); done
kill -s KILL "$pid"
`
const startTriesMax = 5
const probeEveryMs = 40
const backOffMinMs = 100
const backOffMaxMs = 5_000
const tailCharsMax = 4_000

export class EngineProcess {
  readonly #options: EngineProcessOptions
  readonly #logger: Logger
  #state: State = 'stopped'
  #child: ChildProcess | undefined
  #closing = false
  #wasUp = false
  #version = ''
  #restarts = 0
  /** performance.now() of the deaths within limits.engineRestartWindowMs. */
  #deaths: number[] = []
  #timer: NodeJS.Timeout | undefined
  /** The end of the engine's last words, for the error when it does not start. */
  #tail = ''
  #starting: Promise<void> | undefined

  constructor(options: EngineProcessOptions) {
    this.#options = options
    this.#logger = options.logger.child({ engine: options.name })
  }

  get up(): boolean {
    return this.#state === 'up'
  }
  get pid(): number | undefined {
    return this.#child?.pid
  }
  get version(): string {
    return this.#version
  }
  /** Times that a running engine died and was started again. */
  get restarts(): number {
    return this.#restarts
  }

  /** First start. Resolves when the engine answers; rejects with the engine's last words when it cannot be started. */
  async start(): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        this.#starting = this.#startOnce()
        await this.#starting
        return
      } catch (error) {
        // A port may be taken between its choice and its use; other faults stay and come back on the last try.
        if (this.#closing || tries >= startTriesMax || !/in use|already bound|could not bind/i.test(String(error)))
          throw error
        this.#logger.warn({ err: error }, 'engine did not start, it is tried again')
      }
    }
  }

  /** Always finishes: asks, waits limits.engineStopMs, then kills. */
  async close(): Promise<void> {
    this.#closing = true
    clearTimeout(this.#timer)
    const starting = this.#starting?.catch(() => undefined)
    const child = this.#child
    if (child) await this.#stop(child)
    await starting
    // A start that was between two steps may have spawned meanwhile.
    if (this.#child) await this.#stop(this.#child)
    this.#state = 'stopped'
  }

  async #stop(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(this.#options.stopSignal)
    const kill = setTimeout(() => {
      this.#logger.warn('engine did not stop in time and is killed')
      child.kill('SIGKILL')
    }, limits.engineStopMs)
    try {
      await exited
    } finally {
      clearTimeout(kill)
    }
  }

  async #startOnce(): Promise<void> {
    this.#state = 'starting'
    const begun = performance.now()
    const launch = await this.#options.prepare(!this.#wasUp)
    if (this.#closing) throw new Error(`cannot start ${this.#options.name}: the service is closing`)
    const child = this.#spawn(launch)
    try {
      await this.#untilUp(child)
    } catch (error) {
      child.kill('SIGKILL')
      if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) await once(child, 'exit')
      throw error
    }
    this.#state = 'up'
    this.#wasUp = true
    const startMs = Math.round(performance.now() - begun)
    this.#logger.info({ version: this.#version, pid: child.pid, startMs }, 'engine is up')
    // It may have died between its answer and this line, when nobody was listening yet.
    const died = (): void => this.#onDeath(child)
    if (child.exitCode !== null || child.signalCode !== null) died()
    else child.once('exit', died)
  }

  #spawn(launch: Launch): ChildProcess {
    const { name, directory, leashSignal } = this.#options
    const argv = [...(launch.through ?? []), launch.command, ...launch.args]
    const env = { PATH: process.env.PATH ?? '/usr/bin:/bin', LANG: 'C', LC_ALL: 'C', TZ: 'UTC' }
    this.#tail = ''
    const leash = spawn('sh', ['-c', leashScript, `releve-leash-${name}`, leashSignal.slice('SIG'.length)], {
      cwd: '/',
      env,
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    leash.on('error', (error) => this.#logger.warn({ err: error }, 'no leash: the engine outlives a killed service'))
    leash.stdin.on('error', () => {}) // it is gone already
    const child = spawn(argv[0]!, argv.slice(1), {
      cwd: directory,
      env: { ...env, ...launch.env },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(launch.uid === undefined ? {} : { uid: launch.uid }),
      ...(launch.gid === undefined ? {} : { gid: launch.gid }),
    })
    this.#child = child
    if (child.pid === undefined) leash.stdin.end()
    else leash.stdin.write(`${child.pid}\n`)
    child.once('exit', () => leash.stdin.end('gone\n'))
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8')
      stream?.on('data', (text: string) => {
        this.#tail = (this.#tail + text).slice(-tailCharsMax)
        this.#logger.debug({ text: text.trimEnd().slice(0, tailCharsMax) }, 'engine says')
      })
    }
    child.on('error', (error) => {
      this.#tail += String(error)
    })
    return child
  }

  async #untilUp(child: ChildProcess): Promise<void> {
    const { name } = this.#options
    const deadline = performance.now() + limits.engineStartMs
    for (;;) {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) {
        await sleep(20) // its last words may still be in the pipe
        throw new Error(
          `cannot start ${name}: it ended with ${child.signalCode ?? child.exitCode ?? 'an error'}: ${this.#tail.trim()}`,
        )
      }
      try {
        this.#version = await this.#options.probe()
        return
      } catch (error) {
        if (this.#closing) throw new Error(`cannot start ${name}: the service is closing`)
        if (performance.now() > deadline) {
          throw new Error(`cannot start ${name}: no answer after ${limits.engineStartMs} ms: ${this.#tail.trim()}`, {
            cause: error,
          })
        }
        await sleep(probeEveryMs)
      }
    }
  }

  #onDeath(child: ChildProcess): void {
    if (this.#closing) return
    this.#died(`it ended with ${child.signalCode ?? child.exitCode}: ${this.#tail.trim()}`)
  }

  #died(reason: string): void {
    const now = performance.now()
    this.#deaths = this.#deaths.filter((at) => now - at < limits.engineRestartWindowMs)
    this.#deaths.push(now)
    if (this.#deaths.length > (this.#options.restartsMax ?? limits.engineRestartsMax)) {
      this.#state = 'failed'
      this.#options.onFatal(
        new Error(
          `FATAL: ${this.#options.name} died ${this.#deaths.length} times within ${limits.engineRestartWindowMs / 60_000} minutes; ${reason}`,
        ),
      )
      return
    }
    this.#state = 'waiting'
    const backOffMs = Math.min(backOffMaxMs, backOffMinMs * 2 ** (this.#deaths.length - 1))
    this.#logger.error({ reason, backOffMs }, 'engine died and is started again')
    this.#timer = setTimeout(() => {
      this.#restarts += 1
      this.#starting = this.#startOnce()
      this.#starting.catch((error: Error) => {
        if (!this.#closing) this.#died(error.message)
      })
    }, backOffMs)
  }
}
