/** The NATS door against the real nats-server and the real engines, in this process. */
import { gzipSync } from 'node:zlib'
import { pack } from 'msgpackr'
import { connect, type JetStreamClient, headers as makeHeaders, type NatsConnection } from 'nats'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { BatchEncoder } from '../../src/client/encoder.js'
import { COLUMNAR_TYPE } from '../../src/columnar.js'
import { limits } from '../../src/limits.js'
import { type NatsDoor, openNatsDoor } from '../../src/nats/nats.js'
import { ALERTS, tenantOf, tokenOf } from '../../src/nats/subjects.js'
import type { IngestAnswer } from '../../src/system.js'
import { crossThreshold, type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { promises } from '../promises.js'
import { freePort, NatsServer, until } from './server.js'

const server = new NatsServer(await freePort())
let doors: DoorSystem
let door: NatsDoor
let client: NatsConnection
let stream: JetStreamClient

async function openDoor(): Promise<void> {
  door = openNatsDoor(doors.system, doors.system.config.nats!)
  await until(() => door.state().up)
}

beforeAll(async () => {
  await server.start()
  doors = await openDoorSystem({ RELEVE_NATS_URL: server.url })
  await openDoor()
  client = await connect({ servers: server.url })
  stream = client.jetstream()
})

afterAll(async () => {
  await client?.close()
  await door?.close()
  await doors?.close()
  await server.close()
})

let made = 0
const event = (over: Record<string, unknown> = {}): Record<string, unknown> => {
  made += 1
  return { id: `e${made}`, metric: 'kyc', value: '1', ...over }
}

function headersOf(entries: Record<string, string>) {
  const headers = makeHeaders()
  for (const [name, value] of Object.entries(entries)) headers.set(name, value)
  return headers
}

interface Reply extends IngestAnswer {
  readonly status: number
  readonly code?: string
  readonly detail?: string
}

async function ask(subject: string, body: Uint8Array | string, entries: Record<string, string> = {}): Promise<Reply> {
  const message = await client.request(subject, body, { headers: headersOf(entries), timeout: 30_000 })
  return { ...message.json<Reply>(), status: Number(message.headers!.get('status')) }
}

/** The figure of a tenant once everything in the stream and in the log is counted. */
async function total(tenant: string): Promise<{ value: string; count: string }> {
  await until(async () => {
    const { state } = await (await client.jetstreamManager()).streams.info('RELEVE_USAGE')
    return state.messages === 0
  })
  await doors.system.settle()
  const today = Math.floor(Date.now() / 86_400_000)
  const [from, to] = [String((today - 2) * 86_400_000), String((today + 2) * 86_400_000)]
  const ask = { tenant, metric: 'kyc', from, to, window: null, timeZone: 'UTC' }
  const { windows } = await doors.system.answers.usage(ask)
  return { value: windows[0]?.value ?? '0', count: windows[0]?.count ?? '0' }
}

const accepted = async (): Promise<number> => {
  await total('acme')
  return doors.system.books().totals.accepted
}

test(`a request in every format => the verdicts, after the log has it; and its events are counted ${promises('ingest:ack-after-disk')}`, async () => {
  const before = await accepted()
  expect(await ask('usage.req.acme', JSON.stringify([event(), event({ metric: 'none' })]))).toMatchObject({
    status: 202,
    received: 2,
    stored: 1,
    refusals: [{ index: 1, code: 'unknown_metric' }],
  })
  const ndjson = `${JSON.stringify(event())}\n{"id":\n${JSON.stringify(event())}`
  const asNdjson = { 'Content-Type': 'application/x-ndjson' }
  expect(await ask('usage.req.acme', ndjson, asNdjson)).toMatchObject({ stored: 2, refused: 1 })
  expect(await ask('usage.req.acme', pack([event()]), { 'content-type': 'application/msgpack' })).toMatchObject({
    stored: 1,
  })
  const encoder = new BatchEncoder(10)
  encoder.add({ id: 'columnar1', metric: 'kyc' })
  encoder.add({ id: 'columnar2', metric: 'none' })
  const asColumnar = { 'content-type': COLUMNAR_TYPE }
  expect(await ask('usage.req.acme', encoder.take(), asColumnar)).toMatchObject({ stored: 1, refused: 1 })
  const zipped = { 'content-type': 'text/csv', 'content-encoding': 'gzip' }
  expect(await ask('usage.req.acme', gzipSync('id,metric\ncsv1,kyc\n'), zipped)).toMatchObject({ stored: 1 })
  const ce = { 'ce-specversion': '1.0', 'ce-id': 'ce1', 'ce-source': '/x', 'ce-type': 'kyc', wait: 'applied' }
  expect(await ask('usage.req.acme', '{"value":1}', ce)).toMatchObject({ applied: { accepted: 1 } })
  expect(await ask('usage.req.acme', '{"value":1}', ce)).toMatchObject({ applied: { duplicate: 1 } })
  expect(await accepted()).toBe(before + 7)
})

test('a request that cannot be read, is too large, or names no format => the problem, with its status', async () => {
  expect(await ask('usage.req.acme', '{"id":')).toMatchObject({ status: 400, code: 'malformed_body' })
  expect(await ask('usage.req.acme', 'x', { 'content-type': 'application/xml' })).toMatchObject({ status: 415 })
  const large = JSON.stringify({ id: 'x'.repeat(limits.natsMessageBytesMax) })
  expect(await ask('usage.req.acme', large)).toMatchObject({ status: 413, code: 'body_too_large' })
  const room = limits.natsMessageBytesMax - JSON.stringify([event(), '']).length
  const full = JSON.stringify([event(), 'x'.repeat(room)])
  expect(await ask('usage.req.acme', full)).toMatchObject({ status: 202, stored: 1, refused: 1 })
})

test(`a tenant in the body other than in the subject => that event is refused, on both subjects ${promises('tenant:isolated')}`, async () => {
  const before = await total('banque')
  const body = JSON.stringify([event({ tenant: 'banque' }), event({ tenant: 'acme' })])
  const answer = await ask('usage.req.acme', body)
  expect(answer).toMatchObject({ stored: 1, refusals: [{ index: 0, code: 'forbidden_tenant', field: 'tenant' }] })
  await stream.publish('usage.in.acme', JSON.stringify([event({ tenant: 'banque' })]))
  expect(await ask('usage.req.nobody', JSON.stringify([event()]))).toMatchObject({
    status: 422,
    refusals: [{ code: 'unknown_tenant' }],
  })
  expect(await total('banque')).toEqual(before)
})

test('published while releve is away => counted when it is back; the same message again is a duplicate', async () => {
  const before = await accepted()
  const duplicates = doors.system.books().totals.duplicate
  await door.close()
  expect(doors.system.health().doors.nats).toMatchObject({ up: false, state: 'closed' })
  const batches = Array.from({ length: 20 }, () => JSON.stringify([event(), event()]))
  for (const batch of [...batches, ...batches]) await stream.publish('usage.in.acme', batch)
  await openDoor()
  expect(await accepted()).toBe(before + 40)
  expect(doors.system.books().totals.duplicate).toBe(duplicates + 40)
})

test(`a message that nobody can read => a refusal with its place in the stream, and what stands behind it is counted ${promises('ingest:verdict-per-event')}`, async () => {
  const before = await accepted()
  const { seq } = await stream.publish('usage.in.acme', 'no json at all')
  await stream.publish('usage.in.acme', 'x', { headers: headersOf({ 'content-type': 'application/xml' }) })
  await stream.publish('usage.in.acme.too.deep', JSON.stringify([event()]))
  await stream.publish('usage.in.acme', pack([event()]), {
    headers: headersOf({ 'content-type': 'application/msgpack' }),
  })
  expect(await accepted()).toBe(before + 1)
  const { rejects } = await doors.system.refusals.list({ tenant: 'acme', limit: 1_000 })
  expect(rejects.find(({ message }) => message.startsWith(`message ${seq} on usage.in.acme:`))).toMatchObject({
    code: 'malformed',
    raw: 'no json at all',
  })
  expect(rejects.some(({ message }) => message.includes('application/xml'))).toBe(true)
  const { rejects: nobodys } = await doors.system.refusals.list({ tenant: null, limit: 1_000 })
  expect(nobodys.some(({ tenant, message }) => tenant === '' && message.includes('names no tenant'))).toBe(true)
  const { totals, balanced } = doors.system.books()
  expect(balanced, JSON.stringify(totals)).toBe(true)
})

test('many small messages at once => all counted, and none waits for the end of a pull', {
  timeout: 60_000,
}, async () => {
  const before = await accepted()
  const bodies = Array.from({ length: 3_000 }, () => JSON.stringify(event()))
  await Promise.all(bodies.map((body) => stream.publish('usage.in.acme', body, { timeout: 30_000 })))
  expect(await accepted()).toBe(before + 3_000)
})

test('many large messages at once => pulled within the bound, all counted', { timeout: 120_000 }, async () => {
  const before = await accepted()
  const pad = 'p'.repeat(180)
  const bodies = Array.from({ length: 60 }, () =>
    JSON.stringify(Array.from({ length: 1_000 }, () => event({ dims: { region: pad } }))),
  )
  expect(bodies[0]!.length).toBeGreaterThan(200_000)
  await Promise.all(bodies.map((body) => stream.publish('usage.in.acme', body, { timeout: 30_000 })))
  expect(await accepted()).toBe(before + 60_000)
})

test(`alerts => on usage.alerts.<tenant>, once each, those recorded while the door was away too ${promises('alert:once-per-crossing')}`, async () => {
  const got: { id: string; tenant: string; threshold: string }[] = []
  const ids: string[] = []
  client.subscribe(`${ALERTS}*`, {
    callback: (_, message) => {
      got.push(message.json())
      ids.push(message.headers!.get('Nats-Msg-Id'))
      expect(tenantOf(message.subject, ALERTS)).toBe('acme')
    },
  })
  await client.flush()
  const cross = (threshold: string): Promise<void> => crossThreshold(doors, threshold)
  await cross('80')
  await until(() => got.length === 1)
  await door.close()
  await cross('90')
  await openDoor()
  await until(() => got.length === 2)
  await cross('100')
  await until(() => got.length === 3)
  expect(got.map(({ threshold }) => threshold)).toEqual(['80', '90', '100'])
  expect(ids).toEqual(got.map(({ id }) => id))
})

test('a stream of our name that is something else => the door says what is wrong, and HTTP takes events', async () => {
  await door.close()
  const manager = await client.jetstreamManager()
  await manager.streams.delete('RELEVE_USAGE')
  await manager.streams.add({ name: 'RELEVE_USAGE', subjects: ['usage.in.>'], max_age: 3_600_000_000_000 })
  door = openNatsDoor(doors.system, doors.system.config.nats!)
  await until(() => door.state().state === 'misfit')
  expect(door.state().reason).toContain('retention limits, discard old, max_age 3600000000000, max_msg_size -1')
  const { ready, notes } = doors.system.health()
  expect(ready).toBe(true)
  expect(notes.join()).toContain('the nats door is misfit: stream RELEVE_USAGE')
  await manager.streams.delete('RELEVE_USAGE')
  await until(() => door.state().up)
})

test('a server that stops answering, and one that is killed => the door connects again and takes what waits', {
  timeout: 120_000,
}, async () => {
  const before = await accepted()
  process.kill(server.pid, 'SIGSTOP')
  await until(() => !door.state().up)
  process.kill(server.pid, 'SIGCONT')
  await until(() => door.state().up)
  await client.close()
  await server.kill()
  await until(() => !door.state().up)
  await server.start()
  await until(() => door.state().up)
  client = await connect({ servers: server.url })
  stream = client.jetstream()
  await stream.publish('usage.in.acme', JSON.stringify([event()]))
  expect(await accepted()).toBe(before + 1)
})

test('any tenant => one token of a subject, and back', () => {
  for (const tenant of ['acme', 'a.b', 'a b', '*', '>', 'café', '100%', 'a%2Eb', '日本']) {
    expect(tokenOf(tenant)).toMatch(/^[^\s.*>]+$/)
    expect(tenantOf(`usage.in.${tokenOf(tenant)}`, 'usage.in.')).toBe(tenant)
  }
  for (const subject of ['usage.in.', 'usage.in.a.b', 'other.a', 'usage.in.%FF']) {
    expect(tenantOf(subject, 'usage.in.')).toBe(null)
  }
})
