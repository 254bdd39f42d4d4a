/** A real nats-server on a port and in a directory of its own, which can be killed and started again on both. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectSocket, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findProgram } from '../programs.js'

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

export class NatsServer {
  readonly directory: string
  readonly port: number
  /** The end of what it has said. */
  log = ''
  #child: ChildProcess | undefined

  constructor(port: number) {
    this.port = port
    this.directory = mkdtempSync(join(tmpdir(), 'releve-nats-'))
  }

  get url(): string {
    return `nats://127.0.0.1:${this.port}`
  }

  get pid(): number {
    return this.#child!.pid!
  }

  /** `extra`: more lines of its configuration file. */
  async start(extra = '', jetStream = true): Promise<void> {
    const file = join(this.directory, 'server.conf')
    const store = jetStream ? `jetstream { store_dir: "${join(this.directory, 'js')}" }` : ''
    writeFileSync(file, `listen: 127.0.0.1:${this.port}\n${store}\n${extra}\n`)
    const program = findProgram('nats-server')
    if (program === undefined) throw new Error('cannot test NATS: there is no nats-server')
    const child = spawn(program, ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#child = child
    this.log = ''
    child.stderr.on('data', (part: Buffer) => {
      this.log = `${this.log}${part}`.slice(-4_000)
    })
    for (;;) {
      if (child.exitCode !== null) throw new Error(`nats-server ended instead of starting: ${this.log}`)
      const socket = connectSocket(this.port, '127.0.0.1')
      const up = await Promise.race([
        once(socket, 'connect').then(() => true),
        once(socket, 'error').then(() => false),
      ]).catch(() => false)
      socket.destroy()
      if (up && this.log.includes('Server is ready')) return
      await sleep(20)
    }
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }

  async close(): Promise<void> {
    await this.kill()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** Repeats until it is true; the test's own time-out is the bound. */
export async function until(question: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await question())) await sleep(20)
}
