/**
 * Who is told «too much» or «not now» is told when to come again: Retry-After with every 429 and every 503, wherever it comes
 * from. Each place where the source can say so is either made to happen here or named with the test that does.
 */
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ErrorCode, ReleveError } from '../../src/errors.js'
import { buildHttp } from '../../src/http/http.js'
import { limits } from '../../src/limits.js'
import { rootDirectory } from '../../src/paths.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
let slow: Server
beforeAll(async () => {
  // Answers nobody until the end.
  slow = createServer(() => {}).listen(0, '127.0.0.1')
  await once(slow, 'listening')
  t = await openTestSystem({ settings: { RELEVE_WEBHOOK_ALLOW: '127.0.0.0/8' } })
})
afterAll(() => {
  slow.closeAllConnections()
  slow.close()
})

interface Told {
  readonly status: number
  readonly after: string
  readonly code: string
}

async function told(
  method: 'GET' | 'POST' | 'PUT',
  url: string,
  body?: unknown,
  headers: Record<string, string> = t.admin,
): Promise<Told> {
  const answer = await t.app.inject({
    method,
    url,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  })
  return {
    status: answer.statusCode,
    after: String(answer.headers['retry-after'] ?? ''),
    code: (answer.json() as { code?: string }).code ?? '',
  }
}

function expectTold({ status, after, code }: Told, wanted: { status: number; code: string }): void {
  expect({ status, code }).toEqual(wanted)
  expect(after).toMatch(/^[1-9][0-9]*$/)
}

const overloaded = { status: 503, code: 'overloaded' }
const unavailable = { status: 503, code: 'unavailable' }
const tooMany = { status: 429, code: 'too_many_requests' }

/** Where the source throws such an error, and what makes it happen: a test below, another file, or nothing but «any error» below. */
const places: Readonly<Record<string, string>> = {
  'access/attempts.ts': 'here',
  'access/budget.ts': 'here',
  'counting.ts': 'any error',
  'delivery/delivery.ts': 'here',
  'dedupe/key-files.ts': 'without a door: it stops the stream, whose door says so (flow.ts)',
  'flow.ts': 'test/flow/engines-away.test.ts',
  'http/http.ts': 'here',
  'http/routes/alerts.ts': 'here',
  'ingest/cardinality.ts': 'test/ingest/cardinality.test.ts',
  'intake.ts': 'test/intake.test.ts',
  'invoicing/close.ts': 'without a number: the closing names what is away',
  'log/stream.ts': 'test/log/failure.test.ts',
  'quota/guard.ts': 'any error',
  'system.ts': 'here',
  'usage-data/import.ts': 'here',
}

test('the list of places is whole', () => {
  const folder = join(rootDirectory, 'src')
  const names = (readdirSync(folder, { recursive: true }) as string[]).filter((name) => name.endsWith('.ts'))
  const found = names.filter((name) =>
    /ReleveError\(\s*'(overloaded|unavailable|too_many_requests)'/.test(readFileSync(join(folder, name), 'utf8')),
  )
  expect(found.sort()).toEqual(Object.keys(places).sort())
})

test('any error of these statuses, whoever threw it and whether or not it says how long => Retry-After', async () => {
  const app = await buildHttp(t.system)
  app.get<{ Params: { code: ErrorCode; seconds: string } }>('/throw/:code/:seconds', (request) => {
    const { code, seconds } = request.params
    throw new ReleveError(code, 'as asked', seconds === 'none' ? {} : { retryAfterS: Number(seconds) })
  })
  for (const [code, { status }] of Object.entries(ErrorCode)) {
    for (const [seconds, after] of [
      ['none', '1'],
      ['7', '7'],
    ]) {
      const answer = await app.inject({ url: `/throw/${code}/${seconds}`, headers: t.admin })
      expect(answer.statusCode).toBe(status)
      if (status === 429 || status === 503) expect(answer.headers['retry-after'], code).toBe(after)
    }
  }
  await app.close()
})

test(`too many attempts without a key; more than a key may ${promises('system:bounded')}`, async () => {
  const wrong = { authorization: 'Bearer nothing' }
  let last = await told('GET', '/v1/keys', undefined, wrong)
  for (let i = 0; i < 2 * limits.failedAttemptsMax && last.status === 401; i += 1)
    last = await told('GET', '/v1/keys', undefined, wrong)
  expectTold(last, tooMany)

  const { secret } = await t.system.keys.create({
    name: 'few',
    tenant: 'alpha',
    scopes: ['read', 'ingest'],
    limits: { requestsPerSecond: 1 },
  })
  const few = { authorization: `Bearer ${secret}` }
  expect((await told('GET', '/v1/alerts', undefined, few)).status).toBe(200)
  for (const [method, url, body] of [
    ['GET', '/v1/alerts', undefined],
    ['POST', '/v1/events', []],
    ['POST', '/v1/quotas/check', { metric: 'data', n: '1' }],
    ['GET', '/nothing', undefined],
  ] as const) {
    expectTold(await told(method, url, body, few), tooMany)
  }
})

test(`bodies beyond the room for them, on every route that takes one ${promises('system:bounded')}`, async () => {
  const release = t.system.admit(limits.inflightBytesMax)
  for (const [method, url] of [
    ['POST', '/v1/events'],
    ['POST', '/v1/rejects/resend'],
    ['POST', '/v1/quotas/check'],
    ['POST', '/v1/reservations'],
    ['PUT', '/v1/customers'],
    ['POST', '/v1/usage-data'],
    ['POST', '/v1/usage-data-imports'],
  ] as const) {
    expectTold(await told(method, url, {}), overloaded)
  }
  release()
  expect((await told('POST', '/v1/events', [])).status).toBe(202)
})

test('a second test of a webhook beside the first', async () => {
  const { port } = slow.address() as AddressInfo
  const made = await t.app.inject({
    method: 'POST',
    url: '/v1/webhooks',
    headers: t.admin,
    payload: { tenant: 'alpha', url: `http://127.0.0.1:${port}/` },
  })
  const { id } = made.json().endpoint as { id: string }
  const arrived = once(slow, 'request')
  const first = told('POST', `/v1/webhooks/${id}/test`)
  await arrived
  const second = await told('POST', `/v1/webhooks/${id}/test`)
  expectTold(second, tooMany)
  slow.closeAllConnections()
  await first
})

test(`an engine that is away ${promises('system:bounded')}`, async () => {
  let got: Told
  do {
    const { pid } = t.system.engines.state().postgres
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
    got = await told('GET', '/v1/webhooks/dead-letters')
  } while (got.status === 200)
  expectTold(got, unavailable)
  while (!t.system.engines.state().postgres.up) await sleep(50)
})

test('alert streams, and imports, beyond what may be open', async () => {
  const app = await buildHttp(t.system)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const { authorization } = t.admin
  const sockets: Socket[] = []
  const ask = (head: string, rest: string): Promise<[string]> => {
    const socket = connect(port, '127.0.0.1')
    sockets.push(socket)
    socket.write(`${head} HTTP/1.1\r\nhost: x\r\nauthorization: ${authorization}\r\n${rest}`)
    return once(socket.setEncoding('latin1'), 'data') as Promise<[string]>
  }
  const streams = await Promise.all(
    Array.from({ length: limits.sseStreamsMax + 1 }, () => ask('GET /v1/alerts/stream', '\r\n')),
  )
  const refused = streams.flat().filter((text) => !text.startsWith('HTTP/1.1 200'))
  expect(refused).toHaveLength(1)
  expect(refused[0]).toMatch(/^HTTP\/1\.1 503 [\s\S]*retry-after: 5\r\n/)

  // Each is open until its file has come whole.
  const open = (n: number): Promise<[string]> =>
    ask(`POST /v1/usage-data-imports?name=f${n}`, 'content-type: text/csv\r\ncontent-length: 1000\r\n\r\ncontract')
  const imports = Array.from({ length: limits.importsMax + 1 }, (_, n) => open(n))
  const [said] = await Promise.race(imports)
  expect(said).toMatch(/^HTTP\/1\.1 503 [\s\S]*retry-after: 5\r\n/)
  for (const socket of sockets) socket.destroy()
  await app.close()
})

test('a service that stops: readiness, and what comes while the door closes', async () => {
  const app = await buildHttp(t.system)
  const { authorization } = t.admin
  const heads: (number | string | null)[][] = []
  app.addHook('preClose', async () => {
    const answer = await fetch(`${url}/v1/alerts`, { headers: { authorization } })
    heads.push([answer.status, answer.headers.get('retry-after'), answer.headers.get('content-type')])
  })
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  await app.close()
  expect(heads).toEqual([[503, '1', 'application/problem+json; charset=utf-8']])

  const other = await buildHttp(t.system)
  await t.reopen(async () => {
    const headers = { authorization, 'content-type': 'application/json' }
    for (const [method, path] of [
      ['GET', '/health/ready'],
      ['POST', '/v1/events'],
    ] as const) {
      const answer = await other.inject({ method, url: path, headers, ...(method === 'POST' ? { payload: '[]' } : {}) })
      expect([answer.statusCode, answer.headers['retry-after']]).toEqual([503, '1'])
    }
    await other.close()
  })
  expect((await told('GET', '/health/ready')).status).toBe(200)
})
