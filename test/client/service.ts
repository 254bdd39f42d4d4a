/** A service in a process and a directory of its own, which can be killed and started again on the same port. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { UsageAnswer } from '../../src/answers.js'
import { rootDirectory } from '../../src/paths.js'
import { checkedArguments } from '../answers-met.js'
import { customer, kyc } from '../doors/door-system.js'
import { freePort, until } from '../nats/server.js'

export class ServiceProcess {
  readonly directory = mkdtempSync(join(tmpdir(), 'releve-client-'))
  readonly port: number
  readonly #env: Readonly<Record<string, string>>
  #child: ChildProcess | undefined

  constructor(port: number, env: Readonly<Record<string, string>> = {}) {
    this.port = port
    this.#env = env
  }

  static async open(env: Readonly<Record<string, string>> = {}): Promise<ServiceProcess> {
    const service = new ServiceProcess(await freePort(), env)
    await service.start()
    await service.call('PUT', '/v1/metrics-catalog', kyc)
    for (const tenant of ['acme', 'banque']) await service.call('PUT', '/v1/customers', customer(tenant))
    return service
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  get key(): string {
    return readFileSync(join(this.directory, 'admin.key'), 'utf8').trim()
  }

  async start(): Promise<void> {
    const child = spawn(process.execPath, [...checkedArguments, join(rootDirectory, 'dist/src/main.js'), 'serve'], {
      env: {
        ...process.env,
        RELEVE_DATA: this.directory,
        RELEVE_PORT: String(this.port),
        RELEVE_STREAMS: '2',
        RELEVE_EPOCH_MS: '300',
        RELEVE_LOG: 'error',
        ...this.#env,
      },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#child = child
    const said: string[] = []
    for await (const line of createInterface(child.stderr)) {
      said.push(line)
      if (!/ready at http/.test(line)) continue
      child.stderr.resume()
      return
    }
    throw new Error(`the service ended instead of starting:\n${said.join('\n')}`)
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }

  async close(): Promise<void> {
    await this.end('SIGTERM')
    rmSync(this.directory, { recursive: true, force: true })
  }

  async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await fetch(`${this.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.key}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    return (await answer.json()) as T
  }

  /** Events and their sum of a tenant, when everything that was stored is counted. */
  async total(tenant: string): Promise<{ count: number; value: string }> {
    await until(async () => (await this.call<{ onTheWay: number }>('GET', '/v1/books')).onTheWay === 0)
    const today = Math.floor(Date.now() / 86_400_000)
    const range = `from=${(today - 1) * 86_400_000}&to=${(today + 2) * 86_400_000}`
    const { windows } = await this.call<UsageAnswer>('GET', `/v1/usage?tenant=${tenant}&metric=kyc&${range}`)
    return { count: Number(windows[0]?.count ?? 0), value: windows[0]?.value ?? '0' }
  }
}
