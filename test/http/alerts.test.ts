/**
 * The stream of alerts over a real socket. Alerts are recorded as the road records them, under the fence of their stream, so that
 * their number and size are the test's; what is held to account is the delivery.
 */
import { get, type IncomingMessage } from 'node:http'
import { createInterface } from 'node:readline'
import { beforeAll, expect, test } from 'vitest'
import type { Crossing } from '../../src/quota/balance.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
let url: string
let next = 0

beforeAll(async () => {
  t = await openTestSystem()
  url = await t.app.listen({ host: '127.0.0.1', port: 0 })
})

async function record(tenants: readonly string[], product = 'P'): Promise<void> {
  const { rows } = await t.system.engines.postgres.query('SELECT fence FROM streams WHERE stream = 0')
  const crossings = tenants.map(
    (tenant): Crossing => ({
      type: 'alert.triggered',
      kind: 'threshold',
      rule: null,
      subject: null,
      forecast: null,
      item: `item-${next++}`,
      contract: `contract-${tenant}`,
      tenant,
      product,
      metric: 'data',
      period: { from: 0, to: 1 },
      threshold: '80%',
      limitVersion: 1,
      limit: '10',
      balance: '8',
      sequence: 1,
      position: null,
      eventTime: null,
      receivedAt: 0,
    }),
  )
  await t.system.alerts.record(0, Number(rows[0].fence), crossings)
}

interface Reader {
  readonly message: IncomingMessage
  /** Alerts as they come; the last one of an ended stream is undefined. */
  next(): Promise<{ id: string; event: string; data: { tenant: string; serial: number; item: string } } | undefined>
  close(): void
}

async function read(path: string, headers: Record<string, string>): Promise<Reader> {
  const message = await new Promise<IncomingMessage>((resolve, reject) => {
    get(`${url}${path}`, { headers, agent: false }, resolve).on('error', reject)
  })
  message.on('error', () => {})
  expect(message.statusCode).toBe(200)
  expect(message.headers['content-type']).toBe('text/event-stream')
  const lines = createInterface(message)[Symbol.asyncIterator]()
  return {
    message,
    close: () => void message.destroy(),
    async next() {
      const fields: Record<string, string> = {}
      for (;;) {
        const line = await lines.next()
        if (line.done) return undefined
        if (line.value === '') {
          if (fields.data !== undefined) {
            return { id: fields.id!, event: fields.event!, data: JSON.parse(fields.data) }
          }
          continue
        }
        const at = line.value.indexOf(': ')
        fields[line.value.slice(0, at)] = line.value.slice(at + 2)
      }
    },
  }
}

const items = async (reader: Reader, count: number): Promise<string[]> => {
  const found: string[] = []
  while (found.length < count) found.push((await reader.next())!.data.item)
  return found
}

test(`${promises('alert:once-per-crossing')} a reader that was away resumes behind its last id => nothing lost, nothing twice, while more comes in`, async () => {
  const live = await read('/v1/alerts/stream', t.admin)
  const from = next
  await record(['alpha', 'sigma', 'gamma'])
  const first = await live.next()
  expect(first).toMatchObject({ event: 'alert.triggered', data: { tenant: 'alpha' } })
  expect(first!.id).toBe(String(first!.data.serial))
  live.close()
  // More than a page while it is away, and more while it comes back.
  for (let i = 0; i < 3; i += 1) await record(Array.from({ length: 500 }, () => 'alpha'))
  const resumed = read('/v1/alerts/stream', { ...t.admin, 'last-event-id': first!.id })
  for (let i = 0; i < 5; i += 1) await record(['sigma'])
  const reader = await resumed
  await record(['gamma'])
  const got = await items(reader, next - from - 1)
  expect(got).toEqual(Array.from({ length: next - from - 1 }, (_, i) => `item-${from + 1 + i}`))
  reader.close()
})

test(`${promises('tenant:isolated')} a key of a tenant => its own alerts alone, live and resumed`, async () => {
  const key = await t.key('sigma', ['read'])
  const before = (await t.system.alerts.list({ tenant: null, after: 0, limit: 1000 })).at(0)!.serial - 1
  const live = await read('/v1/alerts/stream', key)
  const from = next
  await record(['alpha', 'sigma', 'gamma', 'sigma'])
  expect(await items(live, 2)).toEqual([`item-${from + 1}`, `item-${from + 3}`])
  live.close()
  const resumed = await read('/v1/alerts/stream', { ...key, 'last-event-id': String(before) })
  for (let i = 0; i < 5; i += 1) expect((await resumed.next())!.data.tenant).toBe('sigma')
  resumed.close()
})

test('a key that is revoked => its stream ends with the next alert, which it does not get', async () => {
  const { key, secret } = await t.system.keys.create({ name: 'short', tenant: null, scopes: ['read'] })
  const reader = await read('/v1/alerts/stream', { authorization: `Bearer ${secret}` })
  await t.system.keys.revoke(key.id)
  await record(['alpha'])
  expect(await reader.next().catch(() => undefined)).toBeUndefined()
})

test(`${promises('system:bounded')} a reader that takes nothing => its stream is closed, others go on, and it may resume`, async () => {
  const slow = await read('/v1/alerts/stream', t.admin)
  slow.message.pause()
  const quick = await read('/v1/alerts/stream', t.admin)
  const from = next
  const dropped = async (): Promise<number> => (await t.system.metrics.sseDropped.get()).values[0]?.value ?? 0
  const received: string[] = []
  while ((await dropped()) === 0) {
    // Large enough that the sockets' own buffers do not take it all.
    await record(
      Array.from({ length: 10 }, () => 'alpha'),
      'x'.repeat(50_000),
    )
    received.push(...(await items(quick, 10)))
  }
  expect(received).toEqual(Array.from({ length: next - from }, (_, i) => `item-${from + i}`))
  quick.close()
  slow.close()
  const serial = (await t.system.alerts.list({ tenant: null, after: 0, limit: 1 }))[0]!.serial
  const resumed = await read('/v1/alerts/stream', { ...t.admin, 'last-event-id': String(serial) })
  const all = await items(resumed, next - 1)
  expect(all).toHaveLength(new Set(all).size)
  resumed.close()
})

test('an id that is no serial => 400; the service stops with open streams => they end', async () => {
  const answer = await fetch(`${url}/v1/alerts/stream`, { headers: { ...t.admin, 'last-event-id': 'x' } })
  expect(answer.status).toBe(400)
  const reader = await read('/v1/alerts/stream', t.admin)
  const ended = reader.next()
  await t.close()
  expect(await ended.catch(() => undefined)).toBeUndefined()
})
