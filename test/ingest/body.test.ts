import { expect, test, vi } from 'vitest'
import { ReleveError } from '../../src/errors.js'
import { decodeFrame, frameRefusals } from '../../src/frame.js'
import { type BodyFormat, buildDoor, judge } from '../../src/ingest/ingest.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { AHEAD_MS, ask, door, FLOOR_TIME, RECEIVED_AT, refusal, STREAMS, snapshot, stored } from './door.js'

// Much data, on a machine that other tests use as well.
vi.setConfig({ testTimeout: 60_000 })

const event =
  '{"id":"e1","source":"gw","metric":"kyc","time":"2026-03-10T09:15:00Z","value":1.5,"dims":{"region":"\\u00e9é"}}'

function check(body: string | Uint8Array, message: string, format: BodyFormat = 'json', code = 'malformed_body'): void {
  let thrown: unknown
  try {
    ask(body, { format })
  } catch (error) {
    thrown = error
  }
  expect(thrown).toBeInstanceOf(ReleveError)
  expect((thrown as ReleveError).code).toBe(code)
  expect((thrown as ReleveError).message).toContain(message)
}

test('a body cut at any byte => refused as a whole, with the byte where it ends', () => {
  for (const whole of [`[${event},${event}]`, event]) {
    const bytes = Buffer.from(whole)
    for (let end = 1; end < bytes.length; end += 1) check(bytes.subarray(0, end), `byte ${end}: the body ends`)
    expect(ask(bytes).refused).toBe(0)
  }
})

test('a syntax error in any event => the whole body is refused, because nobody knows where the next event begins', () => {
  check(`[${event},{"id":NaN},${event}]`, '"N" where a value is expected')
  check(`[${event},{"id":"a"b},${event}]`, '"b" where "," or "}" is expected')
  check(`[${event},{"value":1e},${event}]`, '"}" where a digit is expected')
  check(`[${event}]x`, '"x" where the end of the body is expected')
  check(`${event}${event}`, '"{" where the end of the body is expected')
})

test('empty, blank, a wrong type at the top => says what it must be', () => {
  check('', 'the body is empty')
  check(' \n\t ', 'the body is empty')
  for (const format of ['json', 'cloudevents', 'cloudevents-batch'] as const) {
    check('"text"', 'is a string', format)
    check('null', 'is null', format)
    check('12', 'is a number', format)
  }
  check(`[${event}]`, 'must be an event, is an array', 'cloudevents')
  check(event, 'must be an array, is an object', 'cloudevents-batch')
})

test('an empty array => nothing received, no part', () => {
  expect(ask('[]')).toMatchObject({ received: 0, stored: 0, refused: 0, refusals: [], parts: [] })
  expect(ask(' [ ] ', { format: 'cloudevents-batch' }).parts).toEqual([])
})

test('events of a body: at the limit they are judged, one more is too large and names the limit', () => {
  const bodyOf = (count: number): string => `[${new Array(count).fill('0').join(',')}]`
  expect(ask(bodyOf(limits.batchEventsMax)).refused).toBe(limits.batchEventsMax)
  check(bodyOf(limits.batchEventsMax + 1), 'limits.batchEventsMax', 'json', 'body_too_large')
})

test('nesting: a member at the limit is a verdict, one deeper is the whole body', () => {
  const nested = (depth: number): string => `[{"x":${'['.repeat(depth)}${']'.repeat(depth)}},${event}]`
  expect(ask(nested(limits.jsonDepthMax - 2))).toMatchObject({ stored: 1, refused: 1 })
  check(nested(limits.jsonDepthMax - 1), 'nested deeper')
})

test(`bad text in one event => its neighbours are stored, and the door is sound for the next body ${promises('ingest:verdict-per-event')}`, () => {
  const bad = Buffer.from([0xff, 0xfe, 0xc0, 0x80])
  const body = Buffer.concat([Buffer.from(`[${event},{"id":"`), bad, Buffer.from(`","metric":"kyc"},${event}]`)])
  const asked = ask(body)
  expect(asked).toMatchObject({ received: 3, stored: 2, refused: 1 })
  expect(asked.refusals[0]).toMatchObject({ index: 1, code: 'malformed', field: 'id', message: 'has invalid UTF-8' })
  expect(() => ask('[{"id":"1","dims":{"a"')).toThrow(ReleveError)
  expect(stored(event).dims).toBe('{"region":"éé"}')
})

test('texts of 1 MiB, in every place => a verdict with short texts, and the neighbour is stored', () => {
  const long = 'x'.repeat(1 << 20)
  const bodies: [string, string][] = [
    [`{"id":"${long}","metric":"kyc"}`, 'too_large'],
    [`{"id":"1","metric":"${long}"}`, 'too_large'],
    [`{"id":"1","metric":"kyc","source":"${long}"}`, 'too_large'],
    [`{"id":"1","metric":"kyc","subject":"${'é'.repeat(1 << 19)}"}`, 'too_large'],
    [`{"id":"1","metric":"kyc","tenant":"${long}"}`, 'forbidden_tenant'],
    [`{"id":"1","metric":"kyc","kind":"${long}"}`, 'malformed'],
    [`{"id":"1","metric":"kyc","time":"${long}"}`, 'invalid_time'],
    [`{"id":"1","metric":"kyc","value":"${long}"}`, 'value_not_a_number'],
    [`{"id":"1","metric":"kyc","value":${'9'.repeat(1 << 20)}}`, 'value_out_of_range'],
    [`{"id":"1","metric":"kyc","time":${'9'.repeat(1 << 20)}}`, 'invalid_time'],
    [`{"id":"1","metric":"kyc","dims":{"region":"${long}"}}`, 'too_large'],
    [`{"id":"1","metric":"kyc","dims":{"${long}":"a"}}`, 'unknown_dimension'],
    [`{"id":"1","metric":"kyc","${long}":"a"}`, 'unknown_field'],
    [`{"id":"\\ud800${'\\u0041'.repeat(1 << 17)}","metric":"kyc"}`, 'malformed'],
  ]
  for (const [body, code] of bodies) {
    const asked = ask(`[${body},${event}]`)
    expect(asked.refusals.map((one) => one.code)).toEqual([code])
    expect(asked.stored).toBe(1)
    for (const text of Object.values(asked.refusals[0]!)) {
      if (typeof text === 'string') expect(Buffer.byteLength(text)).toBeLessThanOrEqual(limits.refusalRawBytesMax)
    }
  }
})

test(`the largest bodies of refusals alone => their record stays within its bound ${promises('system:bounded')}`, {
  timeout: 60_000,
}, () => {
  const room = Math.floor(limits.bodyBytesMax / limits.batchEventsMax) - 2
  const bodyOf = (one: Buffer): Buffer => {
    const parts: Buffer[] = []
    for (let i = 0; i < limits.batchEventsMax; i += 1) parts.push(Buffer.from(i === 0 ? '[' : ','), one)
    return Buffer.concat([...parts, Buffer.from(']')])
  }
  // Quotes double when they are written again; bytes that are no UTF-8 become three; blanks become escapes.
  const quotes = '\\"'.repeat(256)
  const wrong = Buffer.alloc(256, 0xff)
  const events = [
    Buffer.from(`{"id":"${quotes}","source":"${quotes}","metric":"${quotes.slice(0, 400)}"}`),
    Buffer.concat([
      Buffer.from('{"source":"'),
      wrong,
      Buffer.from('","metric":"'),
      wrong,
      Buffer.from('","subject":"'),
      wrong,
      Buffer.from('","tenant":"'),
      wrong,
      Buffer.from('","id":"'),
      wrong,
      Buffer.from('"}'),
    ]),
    Buffer.from(`{${'\n'.repeat(room - 2)}}`),
    Buffer.from(`{"x":"${'\\"'.repeat(300)}"}`),
  ]
  for (const one of events) {
    expect(one.length).toBeLessThanOrEqual(room)
    for (const tenant of ['acme', null]) {
      const asked = ask(bodyOf(one), { tenant })
      expect(asked.refused).toBe(limits.batchEventsMax)
      expect(asked.parts.length).toBe(1)
      expect(asked.parts[0]!.frame.length).toBeLessThan(limits.recordBytesMax)
      // As text: comparing 10,000 objects member by member takes longer than judging them.
      expect(JSON.stringify(frameRefusals(asked.frames[0]!)) === JSON.stringify(asked.refusals)).toBe(true)
    }
  }
})

test(`the largest body of events, each a series of its own => its record stays within its bound ${promises('system:bounded')}`, () => {
  const tenant = 't'.repeat(limits.nameBytesMax)
  const large = buildDoor({ ...snapshot, tenants: [tenant] }, STREAMS)
  const quotes = '\\"'.repeat(limits.nameBytesMax)
  const pad = (text: string): string => text + quotes.slice(0, 2 * (limits.nameBytesMax - text.length))
  const events = Array.from({ length: limits.batchEventsMax }, (_, i) => {
    return `{"id":"${pad(`i${i}`)}","source":"s${i}","subject":"${pad(`u${i}`)}","metric":"kyc","dims":{"region":"${pad('')}"}}`
  })
  const body = Buffer.from(`[${events.join(',')}]`)
  expect(body.length).toBeLessThanOrEqual(limits.bodyBytesMax)
  const request = { format: 'json' as const, tenant, receivedAt: RECEIVED_AT, floorTime: FLOOR_TIME, aheadMs: AHEAD_MS }
  const judged = judge(large, body, request)
  expect(judged.stored).toBe(limits.batchEventsMax)
  expect(judged.parts[0]!.frame.length).toBeLessThan(limits.recordBytesMax)
})

test('a frame is a buffer of its own, aligned, whatever the body was a view of', () => {
  const backing = Buffer.from(`xxx${event}yyy`)
  const asked = ask(backing.subarray(3, backing.length - 3))
  const { frame, indices } = asked.parts[0]!
  expect(frame.byteOffset).toBe(0)
  expect(frame.byteLength).toBe(frame.buffer.byteLength)
  expect(frame.buffer).not.toBe(backing.buffer)
  expect(indices.byteLength).toBe(indices.buffer.byteLength)
})

test('a new version of the catalogue => judged by it at once, and a version that only adds tenants keeps the index', () => {
  const first = buildDoor(snapshot, STREAMS)
  const request = {
    format: 'json' as const,
    tenant: null,
    receivedAt: RECEIVED_AT,
    floorTime: FLOOR_TIME,
    aheadMs: AHEAD_MS,
  }
  const bodyOf = (tenant: string, metric: string): Buffer =>
    Buffer.from(`{"id":"1","tenant":"${tenant}","metric":"${metric}"}`)
  const storedOf = (tenant: string, metric: string, at = first): number =>
    judge(at, bodyOf(tenant, metric), request).stored
  expect(storedOf('new', 'kyc')).toBe(0)

  const grown = buildDoor({ ...snapshot, version: 8, tenants: [...snapshot.tenants, 'new'] }, STREAMS, first)
  expect(grown.tenants).toBe(first.tenants)
  expect([storedOf('new', 'kyc', grown), storedOf('acme', 'kyc', grown)]).toEqual([1, 1])

  const shrunk = buildDoor({ version: 9, tenants: ['new'], metrics: snapshot.metrics.slice(1) }, STREAMS, grown)
  expect([storedOf('acme', 'calls', shrunk), storedOf('new', 'kyc', shrunk), storedOf('new', 'calls', shrunk)]).toEqual(
    [0, 0, 1],
  )

  const kyc = { ...snapshot.metrics[0]!, version: 2, scale: 0, dims: ['color'] }
  const changed = buildDoor({ version: 10, tenants: ['new'], metrics: [kyc] }, STREAMS, shrunk)
  const judged = judge(changed, Buffer.from('{"id":"1","tenant":"new","metric":"kyc","dims":{"color":"red"}}'), request)
  expect(judged.stored).toBe(1)
  expect(changed.metrics.get('kyc')!.metric.version).toBe(2)

  const moved = buildDoor({ version: 11, tenants: ['new', 'acme'], metrics: [kyc] }, 1, changed)
  expect([...moved.tenants.values()]).toEqual([0, 0])
})

test('a refusal under a key of the platform => in the stream of the tenant it names, when that is known', () => {
  const found = refusal('{"x":1,"tenant":"banque"}', { tenant: null })
  expect(found.tenant).toBe('banque')
  const asked = ask('{"x":1,"tenant":"banque"}', { tenant: null })
  expect(asked.parts[0]!.stream).toBe(door.tenants.get('banque'))
  expect(asked.parts[0]!.events).toBe(0)
  expect(ask('[3]', { tenant: null }).parts[0]!.stream).toBe(0)
})

test(`more dimension values than the door remembers => all are stored as they are, and the memory is bounded ${promises('system:bounded')}`, () => {
  const own = buildDoor(snapshot, STREAMS)
  const request = {
    format: 'json' as const,
    tenant: 'acme',
    receivedAt: RECEIVED_AT,
    floorTime: FLOOR_TIME,
    aheadMs: AHEAD_MS,
  }
  const per = 5_000
  const rounds = Math.ceil((2 * limits.dimTextsMax) / (2 * per)) + 1
  for (let round = 0; round < rounds; round += 1) {
    const values = Array.from({ length: per }, (_, i) => `v${round * per + i}`)
    const events = values.map(
      (value) => `{"id":"${value}","metric":"kyc","dims":{"region":"${value}","plan":"p${value}"}}`,
    )
    const { parts } = judge(own, Buffer.from(`[${events.join(',')}]`), request)
    const frame = decodeFrame(parts[0]!.frame)
    expect(Array.from(frame.seriesOf, (s) => frame.series[s]!.dims)).toEqual(
      values.map((value) => `{"plan":"p${value}","region":"${value}"}`),
    )
    const remembered = [...own.metrics.values()].flatMap(({ texts }) => texts.map((map) => map.size))
    expect(remembered.reduce((sum, size) => sum + size, 0)).toBe(own.dimTexts)
    expect(own.dimTexts).toBeLessThanOrEqual(limits.dimTextsMax)
  }
})
