/**
 * The express way of events against fastify's: the same bytes on plain sockets to both must come back as the same status, headers and
 * body, but for dates and request ids; and whether a request is fastify's or not is said of each.
 */
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildHttp } from '../../src/http/http.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

interface Door {
  readonly app: FastifyInstance
  readonly port: number
  /** Requests that fastify saw. */
  usual: number
}

let t: TestSystem
let express: Door
let usual: Door
const authorization: Record<string, string> = {}

async function openDoor(isExpress: boolean): Promise<Door> {
  const app = await buildHttp(t.system, { express: isExpress })
  const door = { app, port: 0, usual: 0 }
  // Runs for every answer of fastify's, refusals too.
  app.addHook('onSend', (_, __, payload, done) => {
    door.usual += 1
    done(null, payload)
  })
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  return {
    ...door,
    port: Number(new URL(url).port),
    get usual() {
      return door.usual
    },
    set usual(n) {
      door.usual = n
    },
  }
}

beforeAll(async () => {
  t = await openTestSystem()
  express = await openDoor(true)
  usual = await openDoor(false)
  authorization.admin = t.admin.authorization
  authorization.alpha = (await t.key('alpha', ['ingest'])).authorization
  authorization.reader = (await t.key('alpha', ['read'])).authorization
  const { secret, key } = await t.system.keys.create({ name: 'gone', tenant: 'alpha', scopes: ['ingest'] })
  authorization.revoked = `Bearer ${secret}`
  await t.system.keys.revoke(key.id)
  const ended = await t.system.keys.create({
    ...{ name: 'ended', tenant: 'alpha', scopes: ['ingest'], expiresAt: t.clock.now() + 1 },
  })
  authorization.ended = `Bearer ${ended.secret}`
  t.clock.advance(1)
  const limited = await t.system.keys.create({
    ...{ name: 'limited', tenant: 'alpha', scopes: ['ingest'], limits: { requestsPerSecond: 1_000_000 } },
  })
  authorization.limited = `Bearer ${limited.secret}`
})

afterAll(async () => {
  await express?.app.close()
  await usual?.app.close()
})

const event = (more: object = {}): object => ({ id: 'x1', tenant: 'alpha', metric: 'data', value: '1', ...more })

/** The bytes of a request. */
function bytesOf(
  body: string | Uint8Array,
  {
    line = 'POST /v1/events HTTP/1.1',
    key = 'alpha',
    type = 'application/json',
    more = [] as string[],
    stated = '',
  } = {},
): Buffer {
  const bytes = Buffer.from(body)
  const head = [line, 'host: here']
  if (key !== '') head.push(`authorization: ${authorization[key] ?? key}`)
  if (type !== '') head.push(`content-type: ${type}`)
  if (stated !== 'none') head.push(`content-length: ${stated || bytes.length}`)
  return Buffer.concat([Buffer.from(`${[...head, ...more].join('\r\n')}\r\n\r\n`), bytes])
}

interface Sending {
  /** Written one after the other, each when the one before has left. */
  readonly pieces: readonly Uint8Array[]
  /** Hangs up behind the last piece. */
  readonly isCut?: boolean
}

/** All that comes back until the service closes the connection, or says nothing more behind `answers` answers. */
function exchange(port: number, { pieces, isCut = false }: Sending, answers: number): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    const socket = connect(port, '127.0.0.1')
    socket.setNoDelay(true)
    socket.on('data', (part) => {
      text += part.toString('latin1')
      if (isWhole(text, answers)) socket.end()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(text))
    socket.on('connect', async () => {
      for (const piece of pieces) {
        await new Promise((sent) => socket.write(piece, sent))
        // Into a packet of its own.
        await new Promise(setImmediate)
      }
      if (isCut) socket.destroy()
    })
  })
}

function isWhole(text: string, answers: number): boolean {
  let at = 0
  for (let i = 0; i < answers; i += 1) {
    const end = text.indexOf('\r\n\r\n', at)
    if (end < 0) return false
    const head = text.slice(at, end)
    if (/^HTTP\/1.1 100/.test(head)) i -= 1
    at = end + 4 + Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
    if (text.length < at) return false
  }
  return true
}

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}/g

/** Headers in the order of their names. */
function normal(text: string): string {
  return text
    .replace(UUID, 'ID')
    .replace(/"requests";r=[0-9]+/, 'requests left')
    .replace(/^date: .*$/gim, 'date: DATE')
    .replace(/(HTTP\/1.1 [^\r]*\r\n)([\s\S]*?)\r\n\r\n/g, (_, status, head) => {
      return `${status}${String(head).split('\r\n').sort().join('\r\n')}\r\n\r\n`
    })
}

const one = JSON.stringify(event())
const single = (bytes: Buffer): Sending => ({ pieces: [bytes] })
const byByte = (bytes: Buffer): Sending => ({ pieces: [...bytes].map((byte) => Uint8Array.of(byte)) })

/** `way`: how many of its requests are fastify's. */
const table: readonly [name: string, sending: () => Sending, status: string, answers: number, way: number][] = [
  ['one event', () => single(bytesOf(one)), '202', 1, 0],
  ['of a platform-wide key', () => single(bytesOf(one, { key: 'admin' })), '202', 1, 0],
  ['an empty array', () => single(bytesOf('[]')), '202', 1, 0],
  ['NDJSON', () => single(bytesOf(`${one}\n${one}`, { type: 'application/x-ndjson' })), '202', 1, 0],
  ['CSV', () => single(bytesOf('id,metric,value\na,data,1\n', { type: 'text/csv' })), '202', 1, 0],
  ['some refused', () => single(bytesOf(JSON.stringify([event(), event({ value: 'é' })]))), '202', 1, 0],
  ['all refused', () => single(bytesOf(JSON.stringify(event({ metric: 'no «one»' })))), '422', 1, 0],
  ['another tenant', () => single(bytesOf(JSON.stringify(event({ tenant: 'gamma' })))), '422', 1, 0],
  ['truncated', () => single(bytesOf(one.slice(0, 20))), '400', 1, 0],
  ['no JSON', () => single(bytesOf('é')), '400', 1, 0],
  ['too many events', () => single(bytesOf(`[${`${one},`.repeat(limits.batchEventsMax)}${one}]`)), '', 1, 0],
  ['byte by byte', () => byByte(bytesOf(one)), '202', 1, 0],
  ['pipelined', () => single(Buffer.concat([bytesOf(one), bytesOf('{'), bytesOf(one)])), '202', 3, 0],
  [
    'pipelined with others',
    () => single(Buffer.concat([bytesOf(one), bytesOf(one, { key: 'x' }), bytesOf(one)])),
    '202',
    3,
    1,
  ],
  ['two on one connection', () => ({ pieces: [bytesOf(one), bytesOf('[]')] }), '202', 2, 0],
  ['connection: close', () => single(bytesOf(one, { more: ['connection: close'] })), '202', 1, 0],
  ['HTTP/1.0', () => single(bytesOf(one, { line: 'POST /v1/events HTTP/1.0' })), '202', 1, 0],
  [
    'HTTP/1.0, kept',
    () => single(bytesOf(one, { line: 'POST /v1/events HTTP/1.0', more: ['connection: keep-alive'] })),
    '202',
    1,
    0,
  ],
  ['cut in the body', () => ({ pieces: [bytesOf(one, { stated: '500' })], isCut: true }), '', 1, 0],
  ['cut in the head', () => ({ pieces: [bytesOf(one).subarray(0, 60)], isCut: true }), '', 1, 0],
  ['a key twice', () => single(bytesOf(one, { more: ['authorization: Bearer x'] })), '202', 1, 0],

  ['no key', () => single(bytesOf(one, { key: '' })), '401', 1, 1],
  ['a wrong key', () => single(bytesOf(one, { key: 'Bearer wrong' })), '401', 1, 1],
  ['a revoked key', () => single(bytesOf(one, { key: 'revoked' })), '401', 1, 1],
  ['a key that has ended', () => single(bytesOf(one, { key: 'ended' })), '401', 1, 1],
  ['a key without the scope', () => single(bytesOf(one, { key: 'reader' })), '403', 1, 1],
  ['a key with limits', () => single(bytesOf(one, { key: 'limited' })), '202', 1, 1],
  ['an unknown type', () => single(bytesOf(one, { type: 'text/html' })), '415', 1, 1],
  ['no type', () => single(bytesOf(one, { type: '' })), '415', 1, 1],
  ['a type with a charset', () => single(bytesOf(one, { type: 'application/json; charset=utf-8' })), '202', 1, 1],
  ['an empty body', () => single(bytesOf('')), '400', 1, 1],
  ['no length', () => single(bytesOf('', { stated: 'none' })), '400', 1, 1],
  [
    'chunks',
    () =>
      single(
        bytesOf(`${one.length.toString(16)}\r\n${one}\r\n0\r\n\r\n`, {
          stated: 'none',
          more: ['transfer-encoding: chunked'],
        }),
      ),
    '202',
    1,
    1,
  ],
  ['too long a body', () => single(bytesOf('', { stated: String(limits.bodyBytesMax + 1) })), '413', 1, 1],
  ['gzip', () => single(bytesOf(gzipSync(one), { more: ['content-encoding: gzip'] })), '202', 1, 1],
  ['an unknown encoding', () => single(bytesOf(one, { more: ['content-encoding: what'] })), '415', 1, 1],
  [
    'a CloudEvent in headers',
    () =>
      single(bytesOf('{"value":1}', { more: ['ce-id: 1', 'ce-source: /s', 'ce-type: data', 'ce-specversion: 1.0'] })),
    '202',
    1,
    1,
  ],
  ['expect', () => single(bytesOf(one, { more: ['expect: 100-continue'] })), '100', 1, 1],
  ['a query', () => single(bytesOf(one, { line: 'POST /v1/events?wait=applied HTTP/1.1' })), '202', 1, 1],
  ['a wrong query', () => single(bytesOf(one, { line: 'POST /v1/events?what=1 HTTP/1.1' })), '400', 1, 1],
  ['GET', () => single(bytesOf('', { line: 'GET /v1/events HTTP/1.1', stated: 'none' })), '404', 1, 1],
  ['PUT', () => single(bytesOf(one, { line: 'PUT /v1/events HTTP/1.1' })), '404', 1, 1],
  ['a length that is none', () => single(bytesOf(one, { stated: '1x' })), '400', 1, 0],
]

for (const [name, sending, status, answers, way] of table) {
  test(`${name} => the same on both ways`, async () => {
    const before = express.usual
    const mine = normal(await exchange(express.port, sending(), answers))
    expect(mine).toBe(normal(await exchange(usual.port, sending(), answers)))
    expect(mine.slice(9, 9 + status.length)).toBe(status)
    expect(express.usual - before).toBe(way)
  })
}

const refusedOnes = async (): Promise<number> =>
  (await t.system.metrics.requestsRefused.get()).values.reduce((sum, { value }) => sum + value, 0)
const inflight = async (): Promise<number> =>
  (await t.system.metrics.inflightBytes.get()).values.reduce((sum, { value }) => sum + value, 0)

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(5)
}

test('refusals are counted on both ways, also of a sender that hung up in the body', async () => {
  for (const { port } of [express, usual]) {
    for (const sending of [single(bytesOf('{')), { pieces: [bytesOf(one, { stated: '500' })], isCut: true }]) {
      const before = await refusedOnes()
      await exchange(port, sending, 1)
      await until(async () => (await refusedOnes()) === before + 1)
    }
  }
})

test(`a body takes its room before it comes, and gives it back when its sender hangs up ${promises('system:bounded')}`, async () => {
  const socket = connect(express.port, '127.0.0.1')
  socket.write(bytesOf(one, { stated: '5000' }))
  await until(async () => (await inflight()) === 5000)
  socket.destroy()
  await until(async () => (await inflight()) === 0)
})

test('no room => 503 with the time to wait on both ways; then served again', async () => {
  const release = t.system.admit(limits.inflightBytesMax)
  const mine = await exchange(express.port, single(bytesOf(one)), 1)
  const other = await exchange(usual.port, single(bytesOf(one)), 1)
  release()
  expect(normal(mine)).toBe(normal(other))
  expect(mine).toMatch(/^HTTP\/1.1 503[\s\S]*retry-after: 1\r\n/)
  expect(await exchange(express.port, single(bytesOf(one)), 1)).toMatch(/^HTTP\/1.1 202/)
})

test('the intake refuses => 503 with the time to wait, as on the other way', async () => {
  const { ingest } = t.system
  for (const error of [new Error('the secret of the house'), Object.assign(new Error('x'), { code: 'ECONNREFUSED' })]) {
    t.system.ingest = () => Promise.reject(error)
    const [mine, other] = await Promise.all([express, usual].map(({ port }) => exchange(port, single(bytesOf(one)), 1)))
    expect(normal(mine!)).toBe(normal(other!))
    expect(mine).toMatch(/^HTTP\/1.1 50[03]/)
    expect(mine).not.toContain('secret')
  }
  t.system.ingest = ingest
})

test('a revoked key is refused by the very next request of its connection', async () => {
  const { key, secret } = await t.system.keys.create({ name: 'short', tenant: 'alpha', scopes: ['ingest'] })
  const request = bytesOf(one, { key: `Bearer ${secret}` })
  expect(await exchange(express.port, single(request), 1)).toMatch(/^HTTP\/1.1 202/)
  await t.system.keys.revoke(key.id)
  expect(await exchange(express.port, single(request), 1)).toMatch(/^HTTP\/1.1 401/)
})

test('a stop: what is being answered is answered, and what comes then is told to come again', async () => {
  for (const isExpress of [true, false]) {
    const { app, port } = await openDoor(isExpress)
    const socket = connect(port, '127.0.0.1')
    let text = ''
    socket.on('data', (part) => {
      text += part.toString()
    })
    const closed = new Promise((resolve) => socket.once('close', resolve))
    const request = bytesOf(one)
    socket.write(request.subarray(0, -5))
    await until(async () => (await inflight()) > 0)
    const stopped = app.close()
    socket.write(Buffer.concat([request.subarray(-5), request]))
    await Promise.all([stopped, closed])
    expect([...text.matchAll(/^HTTP\/1.1 (\d+)/gm)].map(([, status]) => status)[0]).toBe('202')
    expect(await inflight()).toBe(0)
  }
})
