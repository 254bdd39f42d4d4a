/**
 * nats-server and releve die by SIGKILL, in turn and at random, under publishers that send until they are told «taken». Then
 * every event that was acknowledged is counted, and none twice.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type NatsConnection } from 'nats'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { UsageAnswer } from '../../src/answers.js'
import { rootDirectory } from '../../src/paths.js'
import { checkedArguments } from '../answers-met.js'
import { customer, kyc } from '../doors/door-system.js'
import { promises } from '../promises.js'
import { freePort, NatsServer, until } from './server.js'

const EVENTS_PER_BATCH = 20
const ROUNDS = 4
/** RELEVE_TEST_SEED repeats a run, as far as two servers and a kernel let it. */
const seed = Number(process.env.RELEVE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31))

const data = mkdtempSync(join(tmpdir(), 'releve-nats-kill-'))
const server = new NatsServer(await freePort())
let service: ChildProcess
let url = ''

async function startService(): Promise<void> {
  service = spawn(process.execPath, [...checkedArguments, join(rootDirectory, 'dist/src/main.js'), 'serve'], {
    env: {
      ...process.env,
      RELEVE_DATA: data,
      RELEVE_PORT: '0',
      RELEVE_STREAMS: '2',
      RELEVE_EPOCH_MS: '300',
      RELEVE_LOG: 'error',
      RELEVE_NATS_URL: server.url,
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const said: string[] = []
  for await (const line of createInterface(service.stderr!)) {
    said.push(line)
    const ready = /ready at (http\S+)/.exec(line)
    if (ready === null) continue
    url = ready[1]!
    service.stderr!.resume()
    return
  }
  throw new Error(`the service ended instead of starting:\n${said.join('\n')}`)
}

async function endService(signal: NodeJS.Signals): Promise<void> {
  if (service.exitCode !== null || service.signalCode !== null) return
  const exited = once(service, 'exit')
  service.kill(signal)
  await exited
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const key = readFileSync(join(data, 'admin.key'), 'utf8').trim()
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
  return (await answer.json()) as T
}

beforeAll(async () => {
  await server.start()
  await startService()
  await call('PUT', '/v1/metrics-catalog', kyc)
  for (const tenant of ['acme', 'banque']) await call('PUT', '/v1/customers', customer(tenant))
})

afterAll(async () => {
  await endService('SIGTERM')
  await server.close()
  rmSync(data, { recursive: true, force: true })
})

test(`SIGKILL of nats-server and of releve => nothing acknowledged is lost, nothing is counted twice ${promises('ingest:ack-after-disk')} ${promises('flow:exactly-once')}`, {
  timeout: 300_000,
}, async () => {
  let stop = false
  const taken = { acme: 0, banque: 0 }
  let retries = 0
  const client: NatsConnection = await connect({
    servers: server.url,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 100,
    reconnectJitter: 0,
  })
  const stream = client.jetstream()

  /** Sends one batch after the other, each until it is acknowledged. */
  const publisher = async (tenant: 'acme' | 'banque', send: (body: string) => Promise<boolean>): Promise<void> => {
    for (let batch = 0; !stop; batch += 1) {
      const time = new Date().toISOString()
      const body = JSON.stringify(
        Array.from({ length: EVENTS_PER_BATCH }, (_, i) => ({
          id: `${tenant}-${batch}-${i}`,
          metric: 'kyc',
          time,
          value: '0.001',
        })),
      )
      while (!(await send(body).catch(() => false))) {
        retries += 1
        await sleep(50)
      }
      taken[tenant] += EVENTS_PER_BATCH
      await sleep(2)
    }
  }
  const publishers = [
    publisher('acme', async (body) => (await stream.publish('usage.in.acme', body, { timeout: 1_000 })).seq > 0),
    publisher('banque', async (body) => {
      const answer = await client.request('usage.req.banque', body, { timeout: 1_000 })
      return answer.headers?.get('status') === '202'
    }),
  ]

  for (let round = 0; round < ROUNDS; round += 1) {
    const before = { ...taken }
    // Both ways must be at work before something dies.
    await until(() => taken.acme > before.acme + 200 && taken.banque > before.banque + 200)
    await sleep(((seed * (round + 7919)) % 400) + 1)
    if (round % 2 === 0) {
      await server.kill()
      await server.start()
    } else {
      await endService('SIGKILL')
      await startService()
    }
  }
  const before = { ...taken }
  await until(() => taken.acme > before.acme && taken.banque > before.banque)
  stop = true
  await Promise.all(publishers)
  expect(retries).toBeGreaterThan(0)

  const manager = await client.jetstreamManager()
  await until(async () => (await manager.streams.info('RELEVE_USAGE')).state.messages === 0)
  await until(async () => (await call<{ onTheWay: number }>('GET', '/v1/books')).onTheWay === 0)
  const today = Math.floor(Date.now() / 86_400_000)
  for (const tenant of ['acme', 'banque'] as const) {
    const range = `from=${(today - 1) * 86_400_000}&to=${(today + 2) * 86_400_000}`
    const { windows } = await call<UsageAnswer>('GET', `/v1/usage?tenant=${tenant}&metric=kyc&${range}`)
    expect(windows[0], `seed ${seed}`).toMatchObject({ count: String(taken[tenant]) })
    expect(Number(windows[0]!.value)).toBe(taken[tenant] / 1_000)
  }
  await client.close()
})
