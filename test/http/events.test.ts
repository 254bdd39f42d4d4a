/**
 * The events door over a real socket: every format, every way in which a body can be bad, and memory that stays flat meanwhile.
 * Each request gets a clear answer and the next one is served as before.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { beforeAll, expect, test } from 'vitest'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
let url: string

beforeAll(async () => {
  t = await openTestSystem()
  url = await t.app.listen({ host: '127.0.0.1', port: 0 })
})

interface Answer {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: the tests say what they expect of it.
  readonly body: any
}

async function post(
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
  query = '',
): Promise<Answer> {
  const answer = await fetch(`${url}/v1/events${query}`, {
    method: 'POST',
    headers: { ...t.admin, 'content-type': 'application/json', ...headers },
    body,
  })
  return { status: answer.status, headers: answer.headers, body: await answer.json() }
}

let next = 0
const event = (more: object = {}) => ({ id: `e${next++}`, tenant: 'alpha', metric: 'data', value: '1', ...more })
const cloud = (more: object = {}) => ({
  specversion: '1.0',
  id: `c${next++}`,
  source: '/gw',
  type: 'data',
  tenant: 'alpha',
  data: { value: 1 },
  ...more,
})

test('one event, an array, CloudEvents alone and in a batch, plain and gzip => stored', async () => {
  const bodies: [content: unknown, type: string, stored: number][] = [
    [event(), 'application/json', 1],
    [event(), 'application/json; charset=utf-8', 1],
    [[event(), event()], 'Application/JSON', 2],
    [cloud(), 'application/cloudevents+json', 1],
    [[cloud(), cloud(), cloud()], 'application/cloudevents-batch+json', 3],
    [[], 'application/json', 0],
  ]
  for (const [content, type, stored] of bodies) {
    const text = JSON.stringify(content)
    const plain = await post(text, { 'content-type': type })
    expect(plain.status, type).toBe(202)
    expect(plain.body).toEqual({ received: stored, stored, refused: 0, refusals: [] })
    // The same again is as welcome: the shard knows that they are duplicates.
    const packed = await post(gzipSync(text) as Uint8Array<ArrayBuffer>, {
      'content-type': type,
      'content-encoding': 'gzip',
    })
    expect(packed.body).toEqual(plain.body)
  }
})

test(`${promises('ingest:verdict-per-event')} ?wait=applied => a verdict per event, in the order of the request`, async () => {
  const first = event()
  const answer = await post(
    JSON.stringify([first, first, { ...first, value: '2' }, { ...first, value: 'x' }, { ...first, kind: 'void' }, 7]),
    {},
    '?wait=applied',
  )
  expect(answer.status).toBe(202)
  expect(answer.body.refusals).toMatchObject([
    { index: 3, code: 'value_not_a_number', field: 'value', id: first.id },
    { index: 4, code: 'missing_field', field: 'time', id: first.id },
    { index: 5, code: 'malformed', field: '' },
  ])
  expect(answer.body.applied).toEqual({
    accepted: 1,
    duplicate: 1,
    conflict: 1,
    verdicts: ['accepted', 'duplicate', 'conflict', 'refused', 'refused', 'refused'],
  })
})

test(`${promises('ingest:verdict-per-event')} all refused => 422, one of 10,000 refused => 202 and which it is`, async () => {
  const none = await post(JSON.stringify([event({ metric: 'nothing' }), event({ tenant: 'nobody' })]))
  expect(none.status).toBe(422)
  expect(none.body).toMatchObject({ received: 2, stored: 0, refused: 2 })
  expect(none.body.refusals.map((r: { code: string }) => r.code)).toEqual(['unknown_metric', 'unknown_tenant'])

  const many = Array.from({ length: 10_000 }, () => event())
  many[6_789] = event({ value: 'NaN' })
  const answer = await post(JSON.stringify(many))
  expect(answer.status).toBe(202)
  expect(answer.body).toMatchObject({ received: 10_000, stored: 9_999, refused: 1 })
  expect(answer.body.refusals).toMatchObject([{ index: 6_789, code: 'value_not_a_number', field: 'value' }])
})

const stored = async (): Promise<number> => (await t.system.metrics.stored.get()).values[0]?.value ?? 0

/** Bodies that are refused as a whole. */
const whole: readonly [name: string, body: () => string | Uint8Array, headers: object, status: number, code: string][] =
  [
    ['no body', () => '', {}, 400, 'malformed_body'],
    ['blanks', () => ' \n', {}, 400, 'malformed_body'],
    ['truncated JSON', () => '[{"id":"a","tenant":"al', {}, 400, 'malformed_body'],
    ['text behind the array', () => '[] x', {}, 400, 'malformed_body'],
    ['a number', () => '42', {}, 400, 'malformed_body'],
    ['NaN in the text', () => '[{"id":"a","value":NaN}]', {}, 400, 'malformed_body'],
    ['ten thousand brackets', () => '['.repeat(10_000), {}, 400, 'malformed_body'],
    ['10,001 events', () => `[${'{},'.repeat(10_000)}{}]`, {}, 413, 'body_too_large'],
    ['more than 16 MiB', () => new Uint8Array(limits.bodyBytesMax + 1).fill(32), {}, 413, 'body_too_large'],
    [
      'a batch as one CloudEvent',
      () => '[]',
      { 'content-type': 'application/cloudevents+json' },
      400,
      'malformed_body',
    ],
    ['no known type', () => '[]', { 'content-type': 'text/plain' }, 415, 'unsupported_format'],
    ['a form', () => 'a=b', { 'content-type': 'application/x-www-form-urlencoded' }, 415, 'unsupported_format'],
    ['another encoding', () => '[]', { 'content-encoding': 'br' }, 415, 'unsupported_format'],
    ['gzip that is none', () => '[]', { 'content-encoding': 'gzip' }, 400, 'malformed_body'],
    [
      'gzip cut short',
      () => gzipSync(JSON.stringify([event(), event()])).subarray(0, 40),
      { 'content-encoding': 'gzip' },
      400,
      'malformed_body',
    ],
    [
      'a gzip bomb: 64 MiB from 64 KiB',
      () => gzipSync(Buffer.alloc(64 * 1024 * 1024, 32)),
      { 'content-encoding': 'gzip' },
      413,
      'body_too_large',
    ],
  ]
for (const [name, body, headers, status, code] of whole) {
  test(`a body that is ${name} => ${status} ${code}, and nothing of it is stored`, async () => {
    const before = await stored()
    const answer = await post(body() as Uint8Array<ArrayBuffer>, headers as Record<string, string>)
    expect(answer.status).toBe(status)
    expect(answer.body).toMatchObject({ type: 'about:blank', status, code, instance: expect.stringMatching(/-/) })
    expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/)
    expect(answer.body.detail).toMatch(/./)
    expect(await stored()).toBe(before)
  })
}

test('a body of exactly 16 MiB => read to its end', async () => {
  const text = `[${JSON.stringify(event())}]`
  const body = Buffer.concat([Buffer.from(text), Buffer.alloc(limits.bodyBytesMax - text.length, 32)])
  expect((await post(body as Uint8Array<ArrayBuffer>)).body).toMatchObject({ stored: 1 })
})

/** One bad event each, as text, since most of these are not what JSON.stringify writes. */
const bad: readonly [fault: string, fields: string, code: string, field: string][] = [
  ['1e400', '"value":1e400', 'value_out_of_range', 'value'],
  ['40 digits', `"value":"${'9'.repeat(40)}"`, 'value_out_of_range', 'value'],
  ['more decimals than the metric', '"value":"0.0001"', 'value_too_precise', 'value'],
  ['a text of NaN', '"value":"NaN"', 'value_not_a_number', 'value'],
  ['Infinity', '"value":"Infinity"', 'value_not_a_number', 'value'],
  ['an object as value', '"value":{}', 'value_not_a_number', 'value'],
  ['a number as subject', '"subject":7', 'malformed', 'subject'],
  ['a list as dims', '"dims":[]', 'malformed', 'dims'],
  ['an unknown dimension', '"dims":{"colour":"red"}', 'unknown_dimension', 'dims.colour'],
  ['a 1 MiB subject', `"subject":"${'x'.repeat(1 << 20)}"`, 'too_large', 'subject'],
  ['a 1 MiB dimension', `"dims":{"region":"${'x'.repeat(1 << 20)}"}`, 'too_large', 'dims.region'],
  ['a name twice', '"subject":"a","subject":"b"', 'malformed', 'subject'],
  ['a dimension twice', '"dims":{"region":"a","region":"b"}', 'malformed', 'dims.region'],
  ['a misspelt name', '"vlaue":"1"', 'unknown_field', 'vlaue'],
  ['1970', '"time":"1970-01-01T00:00:00Z"', 'too_old', 'time'],
  ['9999', '"time":"9999-12-31T23:59:59Z"', 'too_far_ahead', 'time'],
  ['no zone', '"time":"2026-03-31T10:00:00"', 'invalid_time', 'time'],
  ['30 February', '"time":"2026-02-30T10:00:00Z"', 'invalid_time', 'time'],
  ['a lone surrogate', '"subject":"\\ud800"', 'malformed', 'subject'],
  ['a control character', '"subject":"\\u0000"', 'malformed', 'subject'],
  ['an unknown kind', '"kind":"undo"', 'malformed', 'kind'],
  ['31 levels of nesting', `"dims":${'{"region":'.repeat(28)}1${'}'.repeat(28)}`, 'malformed', 'dims.region'],
]

test(`${promises('ingest:verdict-per-event')} every bad event between good ones => its code and its field, and the good ones are counted`, async () => {
  for (const [fault, fields, code, field] of bad) {
    const good = [event(), event()]
    const text = `[${JSON.stringify(good[0])},{"id":"bad-${next++}","tenant":"alpha","metric":"data",${fields}},${JSON.stringify(good[1])}]`
    const answer = await post(text, {}, '?wait=applied')
    expect(answer.body.refusals, fault).toMatchObject([{ index: 1, code, field }])
    expect(answer.body.refusals[0].message, fault).toMatch(/./)
    expect(answer.body.applied.verdicts, fault).toEqual(['accepted', 'refused', 'accepted'])
  }
})

test('bytes that are no UTF-8 => that event is refused, its neighbour stored; negative zero is zero', async () => {
  const [head, tail] = [
    `[${JSON.stringify(event())},{"id":"u${next++}","tenant":"alpha","metric":"data","subject":"`,
    '"}]',
  ]
  const body = Buffer.concat([Buffer.from(head), Buffer.from([0xff, 0xc0]), Buffer.from(tail)])
  const answer = await post(body as Uint8Array<ArrayBuffer>)
  expect(answer.body).toMatchObject({ stored: 1, refusals: [{ index: 1, code: 'malformed', field: 'subject' }] })
  const zero = event({ value: '-0' })
  expect((await post(JSON.stringify(zero), {}, '?wait=applied')).body.applied.verdicts).toEqual(['accepted'])
  const again = JSON.stringify(zero).replace('"-0"', '0')
  expect((await post(again, {}, '?wait=applied')).body.applied.verdicts).toEqual(['duplicate'])
})

test(`${promises('system:bounded')} bad bodies by the hundred => memory stays flat`, async () => {
  const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024, 32)) as Uint8Array<ArrayBuffer>
  const wide = `[{"id":"w","tenant":"alpha","metric":"data","subject":"${'x'.repeat(1 << 20)}"}]`
  const deep = '['.repeat(100_000)
  const round = async (): Promise<void> => {
    await Promise.all(Array.from({ length: 6 }, () => post(bomb, { 'content-encoding': 'gzip' })))
    for (let i = 0; i < 3; i += 1) {
      await post(wide)
      await post(deep)
      await post(`[${'{},'.repeat(9_999)}{}]`)
    }
  }
  const used = (): number => {
    ;(globalThis as { gc?: () => void }).gc?.()
    return process.memoryUsage().rss
  }
  // The first rounds fill what is reused: pools, tables, the log's buffers.
  for (let i = 0; i < 2; i += 1) await round()
  await t.system.settle()
  const before = used()
  for (let i = 0; i < 4; i += 1) await round()
  await t.system.settle()
  // Four rounds would inflate to 1.5 GiB; what is kept of them may not be seen.
  expect(used() - before).toBeLessThan(256 * 1024 * 1024)
})

test(`${promises('system:bounded')} more bodies than there is room for => 503 with Retry-After before they are read, and the room comes back`, async () => {
  const { Agent, request } = await import('node:http')
  const agent = new Agent({ keepAlive: false })
  const bodies = Math.floor(limits.inflightBytesMax / limits.bodyBytesMax)
  // Senders that announce 16 MiB each and send nothing: room is taken by the announcement.
  const announce = (): ReturnType<typeof request> => {
    const sender = request(`${url}/v1/events`, {
      method: 'POST',
      agent,
      headers: { ...t.admin, 'content-type': 'application/json', 'content-length': limits.bodyBytesMax },
    })
    sender.on('error', () => {})
    sender.flushHeaders()
    return sender
  }
  const open = Array.from({ length: bodies }, announce)
  let refused: Answer
  do {
    // One that came while a small body had its room was refused: another one takes the room when that is gone.
    open.push(announce())
    await sleep(10)
    refused = await post(JSON.stringify([event()]))
  } while (refused.status === 202)
  expect(refused.status).toBe(503)
  expect(refused.body).toMatchObject({ code: 'overloaded', status: 503 })
  expect(refused.headers.get('retry-after')).toMatch(/^[1-9]/)
  for (const sender of open) sender.destroy()
  let answer: Answer
  do answer = await post(JSON.stringify([event()]))
  while (answer.status === 503)
  expect(answer.status).toBe(202)
})
