/**
 * Webhooks end to end: events cross thresholds, and a receiver on a real socket is told. What it got is verified by the
 * `standardwebhooks` package, which knows nothing of releve.
 */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Webhook } from 'standardwebhooks'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DeadLetter } from '../../src/delivery/delivery.js'
import type { Endpoint } from '../../src/delivery/endpoints.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'
import { type Got, openReceiver, type Receiver } from './receiver.js'

let t: TestSystem
let receiver: Receiver
let next = 0

beforeAll(async () => {
  receiver = await openReceiver()
  t = await openTestSystem({
    settings: { RELEVE_WEBHOOK_ALLOW: '127.0.0.0/8' },
    config: { deliveryRetryMs: [20, 20, 20] },
  })
})
afterAll(() => receiver.close())

async function call<T>(
  method: string,
  url: string,
  body?: unknown,
  headers = t.admin,
): Promise<{ status: number; body: T }> {
  const answer = await t.app.inject({
    method: method as 'GET',
    url,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  })
  return { status: answer.statusCode, body: answer.json() as T }
}

interface Made {
  readonly endpoint: Endpoint
  readonly secret: string
}

async function webhook(path: string, more: Record<string, unknown> = {}): Promise<Made> {
  const { status, body } = await call<Made>('POST', '/v1/webhooks', {
    tenant: null,
    url: receiver.url + path,
    events: ['contract.moved'],
    ...more,
  })
  expect(status, JSON.stringify(body)).toBe(201)
  return body
}

/** Something of another room, told by the port that rooms use. */
async function emit(tenant: string | null = 'alpha', id = `msg_${next}`): Promise<string> {
  next += 1
  await t.system.delivery.emit({ id, type: 'contract.moved', tenant, data: { number: next }, metric: 'data' })
  return id
}

const deadLetters = async (endpoint: string): Promise<DeadLetter[]> =>
  (await call<{ deadLetters: DeadLetter[] }>('GET', `/v1/webhooks/dead-letters?endpoint=${endpoint}`)).body.deadLetters

async function until<T>(look: () => Promise<T>, isThere: (found: T) => boolean): Promise<T> {
  for (;;) {
    const found = await look()
    if (isThere(found)) return found
    await sleep(10)
  }
}

const verify = (secret: string, got: Got): unknown => new Webhook(secret).verify(got.body, got.headers)

test(`${promises('alert:once-per-crossing')} events cross two thresholds => each is told once, signed, under the id of its alert`, async () => {
  const { secret } = await webhook('/alerts', { events: ['alert.*'] })
  await t.send([{ id: 'w1', tenant: 'alpha', metric: 'data', value: '850' }])
  await t.send([{ id: 'w2', tenant: 'alpha', metric: 'data', value: '200' }])
  const got = await receiver.has('/alerts', 2)
  const { body } = await call<{ alerts: { id: string }[] }>('GET', '/v1/alerts?tenant=alpha')
  const told = got.map(
    (one) => verify(secret, one) as { type: string; timestamp: string; data: { id: string; metric: string } },
  )
  expect(told.map(({ data }) => data.id).sort()).toEqual(body.alerts.map(({ id }) => id).sort())
  expect(got.map(({ id }) => id)).toEqual(told.map(({ data }) => data.id))
  for (const { type, timestamp, data } of told) {
    expect(type).toBe('alert.triggered')
    expect(new Date(timestamp).toISOString()).toBe(timestamp)
    expect(data.metric).toBe('data')
  }
  // Nothing that was told may come again: a body that was changed on the way, or an old one, does not verify.
  expect(() => verify(secret, { ...got[0]!, body: `${got[0]!.body} ` })).toThrow()
})

test('a receiver that fails => the same id and the same bytes again, until 2xx; a redirect is a failure and is not followed', async () => {
  const { endpoint, secret } = await webhook('/fails')
  const answers = [500, { status: 302, headers: { location: `${receiver.url}/elsewhere` } }, 200] as const
  receiver.answers.set('/fails', () => answers[receiver.got.filter(({ path }) => path === '/fails').length - 1]!)
  const id = await emit()
  const got = await receiver.has('/fails', 3)
  expect(new Set(got.map((one) => one.id))).toEqual(new Set([id]))
  expect(new Set(got.map((one) => one.body)).size).toBe(1)
  for (const one of got) verify(secret, one)
  expect(receiver.got.some(({ path }) => path === '/elsewhere')).toBe(false)
  await until(
    () => t.system.engines.postgres.query('SELECT state FROM deliveries WHERE endpoint = $1', [endpoint.id]),
    ({ rows }) => rows[0].state === 'delivered',
  )
  // The same message again is none.
  await emit('alpha', id)
  const { rows } = await t.system.engines.postgres.query('SELECT attempts FROM deliveries WHERE endpoint = $1', [
    endpoint.id,
  ])
  expect(rows).toEqual([{ attempts: 3 }])
})

test('every attempt fails => a dead letter that says why; replayed => delivered', async () => {
  const { endpoint } = await webhook('/dead')
  receiver.answers.set('/dead', () => 500)
  const id = await emit()
  const [letter] = await until(
    () => deadLetters(endpoint.id),
    (letters) => letters.length > 0,
  )
  expect(letter).toMatchObject({
    message: id,
    attempts: 4,
    error: 'status 500',
    type: 'contract.moved',
    channel: 'webhook',
  })
  receiver.answers.delete('/dead')
  const replayed = await call('POST', '/v1/webhooks/dead-letters/replay', { ids: [letter!.id] })
  expect(replayed.body).toEqual({ replayed: 1 })
  expect((await receiver.has('/dead', 5)).at(-1)!.id).toBe(id)
  expect(await deadLetters(endpoint.id)).toEqual([])
})

test('Retry-After => the next attempt is not before', async () => {
  const { endpoint } = await webhook('/later')
  receiver.answers.set('/later', () => ({ status: 429, headers: { 'retry-after': '3600' } }))
  await emit()
  await receiver.has('/later', 1)
  const { rows } = await until(
    () =>
      t.system.engines.postgres.query(
        'SELECT next_at - changed_at AS wait, error FROM deliveries WHERE endpoint = $1',
        [endpoint.id],
      ),
    (found) => found.rows[0].error !== null,
  )
  expect(Number(rows[0].wait)).toBe(3_600_000)
})

test('410 => disabled, what waited is a dead letter, nothing new is queued; enabled and replayed => delivered', async () => {
  const { endpoint } = await webhook('/gone')
  receiver.answers.set('/gone', () => 410)
  const id = await emit()
  const seen = async (): Promise<Endpoint> =>
    (await call<{ endpoint: Endpoint }>('GET', `/v1/webhooks/${endpoint.id}`)).body.endpoint
  const disabled = await until(seen, ({ state }) => state === 'disabled')
  expect(disabled.reason).toContain('410')
  expect(t.system.health().notes.join()).toContain(endpoint.id)
  await emit()
  await until(
    () => deadLetters(endpoint.id),
    (letters) => letters.length === 1,
  )
  receiver.answers.delete('/gone')
  await call('PATCH', `/v1/webhooks/${endpoint.id}`, { state: 'enabled' })
  expect((await call('POST', '/v1/webhooks/dead-letters/replay', { endpoint: endpoint.id })).body).toEqual({
    replayed: 1,
  })
  expect((await receiver.has('/gone', 2)).map((one) => one.id)).toEqual([id, id])
})

test(`${promises('system:bounded')} a receiver that never answers holds its own lane alone; a full queue => a dead letter at once`, async () => {
  const { endpoint: slow } = await webhook('/slow')
  receiver.answers.set('/slow', () => 'never')
  await webhook('/quick')
  for (let i = 0; i < 20; i += 1) await emit()
  expect(await receiver.has('/quick', 20)).toHaveLength(20)
  expect((await receiver.has('/slow', limits.endpointInFlightMax)).length).toBe(limits.endpointInFlightMax)

  const { endpoint: full } = await webhook('/full')
  const { postgres } = t.system.engines
  await postgres.query(
    `WITH filler AS (INSERT INTO delivery_messages (id, type, body, created_at)
       SELECT 'filler_' || n, 'test.filler', '{}', 0 FROM generate_series(1, $2::int) n RETURNING id)
     INSERT INTO deliveries (message, endpoint, state, next_at, created_at, changed_at) SELECT id, $1, 'pending', 9e15, 0, 0 FROM filler`,
    [full.id, limits.endpointQueueMax],
  )
  const id = await emit()
  expect(await deadLetters(full.id)).toMatchObject([{ message: id, attempts: 0, error: 'the queue is full' }])
  await call('DELETE', `/v1/webhooks/${full.id}`)
  await call('DELETE', `/v1/webhooks/${slow.id}`)
})

test('a secret is rotated => both sign for a while, then the new one alone; it is shown once, sealed at rest, and signs after a restart', async () => {
  const { endpoint, secret: old } = await webhook('/rotate')
  const rotate = async (overlapSeconds: number): Promise<string> =>
    (await call<Made>('POST', `/v1/webhooks/${endpoint.id}/rotate-secret`, { overlapSeconds })).body.secret
  const fresh = await rotate(3600)
  await emit()
  const both = (await receiver.has('/rotate', 1))[0]!
  verify(old, both)
  verify(fresh, both)
  await t.reopen()
  expect(statSync(join(t.directory, 'delivery.key')).mode & 0o777).toBe(0o600)
  await emit()
  verify(old, (await receiver.has('/rotate', 2))[1]!)
  const last = await rotate(0)
  await emit()
  const alone = (await receiver.has('/rotate', 3))[2]!
  verify(last, alone)
  for (const secret of [old, fresh]) expect(() => verify(secret, alone)).toThrow()

  const { rows } = await t.system.engines.postgres.query('SELECT * FROM delivery_endpoints WHERE id = $1', [
    endpoint.id,
  ])
  const kept = [JSON.stringify(rows), Buffer.from(rows[0].secret).toString('latin1')].join()
  expect(kept).not.toContain(last.slice('whsec_'.length))
  for (const url of ['/v1/webhooks', `/v1/webhooks/${endpoint.id}`])
    expect(JSON.stringify((await call('GET', url)).body)).not.toMatch(/secret|whsec/i)
  expect(readFileSync(join(t.directory, 'delivery.key'), 'utf8')).toMatch(/^[0-9a-f]{64}\n$/)
})

test('an endpoint of some metrics, or of some rules => it is told of those alone', async () => {
  await webhook('/metric', { metrics: ['calls'] })
  await webhook('/rule', { rules: ['rule_1'] })
  await webhook('/family', { events: ['contract.*'] })
  await webhook('/none', { events: ['alert.*', 'invoice.finalized'] })
  const tell = (id: string, more: { metric?: string; rule?: string }) =>
    t.system.delivery.emit({ id, type: 'contract.moved', tenant: 'alpha', data: {}, ...more })
  await tell('chosen-1', { metric: 'data' })
  await tell('chosen-2', { metric: 'calls' })
  await tell('chosen-3', { rule: 'rule_1' })
  const idsAt = async (path: string, count: number): Promise<string[]> =>
    (await receiver.has(path, count)).map(({ id }) => id).sort()
  expect(await idsAt('/family', 3)).toEqual(['chosen-1', 'chosen-2', 'chosen-3'])
  expect(await idsAt('/metric', 1)).toEqual(['chosen-2'])
  expect(await idsAt('/rule', 1)).toEqual(['chosen-3'])
  expect(await idsAt('/none', 0)).toEqual([])
})

test('a test message => sent at once, signed, and its outcome is the answer', async () => {
  const { endpoint, secret } = await webhook('/ping')
  expect((await call('POST', `/v1/webhooks/${endpoint.id}/test`)).body).toEqual({ outcome: 'delivered' })
  expect(verify(secret, (await receiver.has('/ping', 1))[0]!)).toMatchObject({ type: 'webhook.test' })
  receiver.answers.set('/ping', () => 401)
  expect((await call('POST', `/v1/webhooks/${endpoint.id}/test`)).body).toEqual({
    outcome: 'failed',
    error: 'status 401',
  })
})

test('a webhook to an address of one’s own network, with a password, or by another scheme => 422 and why', async () => {
  for (const [url, why] of [
    ['http://10.1.2.3/', 'not a public address'],
    ['https://192.168.0.1/', 'not a public address'],
    ['https://169.254.169.254/latest/meta-data', 'not a public address'],
    ['https://[::1]/', 'not a public address'],
    ['https://[fe80::1]/', 'not a public address'],
    ['https://[::ffff:10.0.0.1]/', 'not a public address'],
    ['https://0xa000001/', 'not a public address'],
    ['http://8.8.8.8/', 'use https'],
    ['https://user:pass@example.com/', 'no password'],
    ['ftp://example.com/', 'https'],
    ['nothing', 'not a URL'],
  ]) {
    const { status, body } = await call<{ detail: string }>('POST', '/v1/webhooks', { tenant: null, url })
    expect(status, url).toBe(422)
    expect(body.detail, url).toContain(why)
  }
})

test(`${promises('tenant:isolated')} keys of tenants see, change, test and replay their own endpoints alone, and are told of their own tenant alone`, async () => {
  const mine = await t.key('alpha', ['read', 'manage'])
  const other = await t.key('sigma', ['read', 'manage'])
  const reader = await t.key('alpha', ['read'])
  const made = await call<Made>('POST', '/v1/webhooks', { url: `${receiver.url}/mine`, events: ['*'] }, mine)
  expect(made.body.endpoint.tenant).toBe('alpha')
  const { id } = made.body.endpoint
  const sees = async (key: typeof mine): Promise<string[]> =>
    (await call<{ endpoints: Endpoint[] }>('GET', '/v1/webhooks', undefined, key)).body.endpoints.map((one) => one.id)
  expect(await sees(mine)).toEqual([id])
  expect(await sees(reader)).toEqual([id])
  expect(await sees(other)).toEqual([])
  expect(await sees(t.admin)).toContain(id)
  const attempts: [string, string, unknown?][] = [
    ['GET', `/v1/webhooks/${id}`],
    ['PATCH', `/v1/webhooks/${id}`, { state: 'disabled' }],
    ['POST', `/v1/webhooks/${id}/test`],
    ['POST', `/v1/webhooks/${id}/rotate-secret`, {}],
    ['DELETE', `/v1/webhooks/${id}`],
  ]
  for (const [method, url, body] of attempts) {
    expect((await call(method, url, body, other)).status, `${method} ${url} by another tenant`).toBe(404)
    if (method !== 'GET')
      expect((await call(method, url, body, reader)).status, `${method} ${url} by a reader`).toBe(403)
    expect((await call(method, url, body, { authorization: 'Bearer no' })).status).toBe(401)
  }
  for (const tenant of [null, 'sigma'])
    expect((await call('POST', '/v1/webhooks', { tenant, url: `${receiver.url}/x` }, mine)).status).toBe(403)
  expect((await call('GET', '/v1/webhooks?tenant=alpha', undefined, other)).status).toBe(403)
  expect((await call('GET', '/v1/webhooks/dead-letters?tenant=alpha', undefined, other)).status).toBe(403)

  receiver.answers.set('/mine', () => 500)
  await emit('sigma')
  await emit(null)
  const told = await emit('alpha')
  await until(
    () => deadLetters(id),
    (letters) => letters.length > 0,
  )
  expect(new Set((await receiver.has('/mine', 4)).map((one) => one.id))).toEqual(new Set([told]))
  const letters = await call<{ deadLetters: unknown[] }>(
    'GET',
    `/v1/webhooks/dead-letters?endpoint=${id}`,
    undefined,
    other,
  )
  expect(letters.body.deadLetters).toEqual([])
  expect((await call('POST', '/v1/webhooks/dead-letters/replay', { endpoint: id }, other)).body).toEqual({
    replayed: 0,
  })
  receiver.answers.delete('/mine')
  expect((await call('POST', '/v1/webhooks/dead-letters/replay', { endpoint: id }, mine)).body).toEqual({ replayed: 1 })
})
