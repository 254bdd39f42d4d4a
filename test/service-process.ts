/** The service as a process that a test may kill, with a small catalogue: tenant acme, metric kyc, a quota of 100. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { rootDirectory } from '../src/paths.js'
import { checkedArguments, checkedEnvironment } from './answers-met.js'
import { customer, kyc } from './doors/door-system.js'
import { enginesIn } from './processes.js'

export interface Service {
  readonly url: string
  readonly pid: number
  readonly adminKey: string
  start(): Promise<void>
  /** Resolves when the process is gone, whoever ended it. */
  readonly ended: Promise<void>
  kill(): Promise<void>
  call<T>(method: string, path: string, body?: unknown): Promise<T>
  /** An answer that is no JSON. */
  text(path: string): Promise<string>
  close(): Promise<void>
}

/** `prepare` is given the empty data directory before the first start. */
export async function openService(
  env: Record<string, string>,
  prepare: (data: string) => void = () => {},
): Promise<Service> {
  const data = mkdtempSync(join(tmpdir(), 'releve-service-'))
  prepare(data)
  let child: ChildProcess | undefined
  let ended: Promise<void> = Promise.resolve()
  let url = ''

  const start = async (): Promise<void> => {
    const started = spawn(process.execPath, [...checkedArguments, join(rootDirectory, 'dist/src/main.js'), 'serve'], {
      env: {
        ...checkedEnvironment(),
        PATH: process.env.PATH,
        RELEVE_DATA: data,
        RELEVE_PORT: '0',
        RELEVE_STREAMS: '1',
        RELEVE_EPOCH_MS: '300',
        RELEVE_LOG: 'error',
        ...env,
      },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    child = started
    ended = once(started, 'exit').then(() => {})
    const said: string[] = []
    for await (const line of createInterface(started.stderr!)) {
      said.push(line)
      const ready = /ready at (http\S+)/.exec(line)
      if (ready === null) continue
      url = ready[1]!
      started.stderr!.resume()
      return
    }
    throw new Error(`the service ended instead of starting:\n${said.join('\n')}`)
  }
  const ask = async (method: string, path: string, body?: unknown): Promise<Response> => {
    const key = readFileSync(join(data, 'admin.key'), 'utf8').trim()
    const answer = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    return answer
  }
  const call = async <T>(method: string, path: string, body?: unknown): Promise<T> =>
    (await (await ask(method, path, body)).json()) as T
  const kill = async (): Promise<void> => {
    child?.kill('SIGKILL')
    await ended
  }

  await start()
  await call('PUT', '/v1/metrics-catalog', kyc)
  await call('PUT', '/v1/customers', customer('acme'))
  await call('PUT', '/v1/products', { key: 'P', name: 'Product' })
  await call('PUT', '/v1/plans', {
    key: 'plan',
    product: 'P',
    name: 'Plan',
    metrics: [{ metric: 'kyc', included: '100', rule: null }],
  })
  await call('PUT', '/v1/legal-entities', { key: 'seller', name: 'Seller', country: 'CI' })
  await call('PUT', '/v1/contracts', {
    id: 'contract-acme',
    tenant: 'acme',
    legalEntity: 'seller',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    items: [{ id: 'item-acme', plan: 'plan', entitlements: [{ metric: 'kyc', limit: '100' }] }],
  })
  return {
    get url() {
      return url
    },
    get pid() {
      return child!.pid!
    },
    get ended() {
      return ended
    },
    get adminKey() {
      return readFileSync(join(data, 'admin.key'), 'utf8').trim()
    },
    start,
    kill,
    call,
    text: async (path) => (await ask('GET', path)).text(),
    async close() {
      await kill()
      while (enginesIn(data).length > 0) await sleep(50)
      rmSync(data, { recursive: true, force: true })
    },
  }
}
