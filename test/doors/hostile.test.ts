/**
 * Bodies that are cut off, changed and mixed up, of every content type, through the HTTP door of a real service: always an answer
 * that says what is wrong with which event, never a 500, and the service goes on. RELEVE_TEST_SEED repeats a run.
 */
import { randomUUID } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { pack } from 'msgpackr'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { BatchEncoder } from '../../src/client/encoder.js'
import { contentTypes } from '../../src/ingest/content-type.js'
import { RefusalCode } from '../../src/ingest/verdict.js'
import { limits } from '../../src/limits.js'
import type { IngestAnswer } from '../../src/system.js'
import { mutate, random } from '../ingest/kernel-fuzz.js'
import { promises } from '../promises.js'
import { type DoorSystem, openDoorSystem } from './door-system.js'

const seed = Number(process.env.RELEVE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31))
const ROUNDS = 150

let doors: DoorSystem
beforeAll(async () => {
  doors = await openDoorSystem()
})
afterAll(() => doors.close())

interface Answer extends Partial<IngestAnswer> {
  readonly code?: string
  readonly detail?: string
}

async function send(body: Uint8Array, headers: Record<string, string>): Promise<{ status: number; answer: Answer }> {
  const got = await fetch(`${doors.url}/v1/events`, {
    method: 'POST',
    headers: { authorization: `Bearer ${doors.acmeKey}`, ...headers },
    body: new Uint8Array(body),
  })
  return { status: got.status, answer: (await got.json()) as Answer }
}

const event = (): Record<string, unknown> => ({
  id: randomUUID(),
  metric: 'kyc',
  subject: 'é\u{1f600} line',
  time: new Date().toISOString(),
  value: '2.5',
  dims: { region: 'ci', plan: 'p' },
})
const cloud = (): Record<string, unknown> => ({
  specversion: '1.0',
  id: randomUUID(),
  source: '/gw',
  type: 'kyc',
  time: new Date().toISOString(),
  data: { value: 2.5, region: 'ci' },
})
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

function columnar(): Buffer {
  const encoder = new BatchEncoder(3)
  for (let i = 0; i < 3; i += 1) encoder.add({ id: randomUUID(), metric: 'kyc', value: '2', dims: { region: 'ci' } })
  return Buffer.from(encoder.take())
}

const bodies: Readonly<Record<string, () => Buffer>> = {
  'application/json': () => json([event(), event(), event()]),
  'application/x-ndjson': () => Buffer.from([event(), event(), event()].map((one) => JSON.stringify(one)).join('\n')),
  'application/msgpack': () => Buffer.from(pack([event(), event(), event()])),
  'application/x-msgpack': () => Buffer.concat([pack(event()), pack(event())]),
  'application/vnd.releve.columnar': columnar,
  'text/csv': () =>
    Buffer.from(
      `id,metric,value,time,dims.region\n${randomUUID()},kyc,2.5,${Date.now()},ci\n"${randomUUID()}",kyc,1,,"c""i"\n`,
    ),
  'application/cloudevents+json': () => json(cloud()),
  'application/cloudevents-batch+json': () => json([cloud(), cloud()]),
}

/** Whatever came of it, it is said: which event, which field, why. */
function expectClear({ status, answer }: { status: number; answer: Answer }, what: string): void {
  const shown = `seed ${seed}: ${what}: ${status} ${JSON.stringify(answer).slice(0, 500)}`
  expect([202, 400, 413, 415, 422], shown).toContain(status)
  if (status === 202 || status === 422) {
    const { received = -1, stored = -1, refused = -1, refusals = [] } = answer
    expect(stored + refused, shown).toBe(received)
    expect(refusals.length, shown).toBe(Math.min(refused, limits.answerRefusalsMax))
    for (const { index, code, message, field } of refusals) {
      expect(index >= 0 && index < received, shown).toBe(true)
      expect(RefusalCode, shown).toContain(code)
      expect(message, shown).not.toBe('')
      expect(typeof field, shown).toBe('string')
    }
  } else {
    expect(answer.code, shown).toMatch(/^(malformed_body|body_too_large|unsupported_format)$/)
    expect(answer.detail ?? '', shown).not.toBe('')
  }
}

test('there is a body for every content type', () => {
  expect(Object.keys(bodies).sort()).toEqual([...contentTypes].sort())
})

test.each(Object.keys(bodies))(
  `%s, broken in every way => a clear answer, never a 500 ${promises('ingest:verdict-per-event')}`,
  async (type) => {
    const next = random(seed)
    const headers = { 'content-type': type }
    let wrong = 0
    for (let round = 0; round < ROUNDS; round += 1) {
      const sound = bodies[type]!()
      let body = Buffer.from(sound)
      const times = 1 + next(4)
      for (let i = 0; i < times; i += 1) {
        const how = next(4)
        if (how === 0) body = body.subarray(0, next(body.length + 1))
        else if (how === 1 && body.length > 0) body[next(body.length)] = next(256)
        else body = Buffer.from(mutate(next, body))
      }
      if (body.length === 0) continue
      const packed = next(4) === 0
      const got = await send(
        packed ? gzipSync(body) : body,
        packed ? { ...headers, 'content-encoding': 'gzip' } : headers,
      )
      expectClear(got, body.toString('latin1').slice(0, 300))
      if (got.status !== 202 || got.answer.refused! > 0) wrong += 1
    }
    // That they were broken.
    expect(wrong).toBeGreaterThan(ROUNDS / 4)
    expect((await send(bodies[type]!(), headers)).answer.refused).toBe(0)
  },
)

test('bytes of one type sent as another, and headers that are lies => a clear answer', async () => {
  for (const [type, make] of Object.entries(bodies)) {
    for (const other of Object.keys(bodies)) {
      if (other !== type) expectClear(await send(make(), { 'content-type': other }), `${type} as ${other}`)
    }
    for (const encoding of ['gzip', 'deflate', '']) {
      expectClear(await send(make(), { 'content-type': type, 'content-encoding': encoding }), `${type}, ${encoding}`)
    }
  }
})

test.each([
  ['ce-id', ['', 'x'.repeat(300), '%FF', '%', '%00', 'é']],
  ['ce-specversion', ['', '0.3', '1.0 ']],
  ['ce-source', ['', '/x'.repeat(300)]],
  ['ce-type', ['', 'none', 'k%79c']],
  ['ce-time', ['yesterday', '2026-02-30T00:00:00Z', '1', '9999-12-31T23:59:60Z']],
  ['ce-subject', ['', 's'.repeat(1_000)]],
  ['ce-tenant', ['banque', '', '*']],
  ['ce-kind', ['', 'other']],
  ['ce-', ['x']],
  ['ce-a.b', ['x']],
  ['content-type', ['text/xml', 'application/json; charset=latin1', 'application/json;', '/']],
] as const)('a CloudEvent in headers with a wrong %s => a clear answer', async (name, values) => {
  for (const value of values) {
    const headers = {
      'content-type': 'application/json',
      'ce-specversion': '1.0',
      'ce-id': randomUUID(),
      'ce-source': '/gw',
      'ce-type': 'kyc',
      [name]: value,
    }
    for (const body of ['{"value":2}', '{"value":', '[]', '"x"', '{"value":{"a":1}}', '{"value":1e400}'])
      expectClear(await send(Buffer.from(body), headers), `${name}: ${value}, ${body}`)
  }
})

test('after all of it => the books balance and the service is ready', async () => {
  await doors.system.settle()
  expect(doors.system.books().balanced).toBe(true)
  expect(doors.system.health()).toMatchObject({ ready: true, notes: [] })
})
