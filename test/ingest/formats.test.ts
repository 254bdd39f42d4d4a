/**
 * One event, many clothes: the formats beside JSON. Whatever a body looks like, the door throws nothing but ReleveError.
 */
import fc from 'fast-check'
import { Packr } from 'msgpackr'
import { expect, test, vi } from 'vitest'
import { ReleveError } from '../../src/errors.js'
import type { CloudEventHeaders } from '../../src/ingest/cloudevents-binary.js'
import type { BodyFormat } from '../../src/ingest/ingest.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { type Asked, ask, FLOOR_TIME, RECEIVED_AT, refusal, stored } from './door.js'

vi.setConfig({ testTimeout: 60_000 })

const maps = new Packr({ useRecords: false })
const records = new Packr()

interface Sent {
  readonly id: string
  readonly source: string
  readonly subject?: string
  /** RFC 3339. */
  readonly time?: string
  /** Decimal text. */
  readonly value?: string
  readonly bare: boolean
  readonly kind?: 'usage' | 'void'
  readonly dims: Record<string, string>
}

const text = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 40 })
  .filter((s) => !/\p{Cc}/u.test(s) && !/\p{Cs}/u.test(s))

const sent: fc.Arbitrary<Sent> = fc
  .record(
    {
      id: text,
      source: text,
      subject: text,
      time: fc
        .date({ min: new Date(FLOOR_TIME), max: new Date(RECEIVED_AT), noInvalidDate: true })
        .map((date) => date.toISOString()),
      value: fc
        .tuple(fc.integer({ min: -1e9, max: 1e9 }), fc.integer({ min: 0, max: 999 }))
        .map(([whole, part]) => `${whole}.${String(part).padStart(3, '0')}`),
      bare: fc.boolean(),
      kind: fc.constantFrom<'usage' | 'void'>('usage', 'void'),
      dims: fc.dictionary(fc.constantFrom('plan', 'region'), text),
    },
    { requiredKeys: ['id', 'source', 'bare', 'dims'] },
  )
  .map((one) => (one.kind === 'void' && one.time === undefined ? { ...one, kind: 'usage' as const } : one))

/** The members of the native event; the value as text or as a number. */
function native({ bare, ...event }: Sent): Record<string, unknown> {
  return {
    ...event,
    metric: 'kyc',
    ...(bare && event.value !== undefined ? { value: Number(event.value) } : {}),
  }
}

/** JSON whose number keeps the digits of the text. */
function json(event: Sent): string {
  const members = native(event)
  if (!event.bare || event.value === undefined) return JSON.stringify(members)
  return JSON.stringify({ ...members, value: '@@' }).replace('"@@"', event.value)
}

function cloudEvent({ value, bare: _, dims, ...rest }: Sent): Record<string, unknown> {
  return {
    specversion: '1.0',
    type: 'kyc',
    ...rest,
    data: { ...dims, ...(value === undefined ? {} : { value }), other: [1, 2, { deep: null }] },
  }
}

function headersOf(event: Sent): CloudEventHeaders {
  const { data: _, ...attributes } = cloudEvent(event)
  const headers = Object.entries(attributes).map(([k, v]) => [k, encodeURIComponent(v as string)] as const)
  return [...headers, ['datacontenttype', 'application/json; charset=utf-8']]
}

function csv(events: readonly Sent[], separator: string, end: string): string {
  const columns = ['metric', 'value', 'id', 'dims.region', 'source', 'subject', 'time', 'dims.plan', 'kind']
  const cell = (value: string): string => (/[",;]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value)
  const rows = events.map((event) => {
    const members: Record<string, string | undefined> = {
      ...(event as unknown as Record<string, string>),
      metric: 'kyc',
      'dims.region': event.dims.region,
      'dims.plan': event.dims.plan,
    }
    return columns.map((name) => cell(members[name] ?? '')).join(separator)
  })
  return [columns.join(separator), ...rows, ''].join(end)
}

function framesOf(asked: Asked): string[] {
  expect(asked.refusals).toEqual([])
  return asked.parts.map((part) => `${part.stream}:${Buffer.from(part.frame).toString('base64')}`)
}

test('the same events in every format => the same bytes in the log', () => {
  fc.assert(
    fc.property(fc.array(sent, { minLength: 1, maxLength: 8 }), fc.constantFrom(',', ';'), (events, separator) => {
      const expected = framesOf(ask(`[${events.map(json).join(',')}]`))
      const bodies: [BodyFormat, string | Uint8Array][] = [
        ['ndjson', events.map(json).join('\n')],
        ['ndjson', `${events.map(json).join('\r\n\r\n')}\r\n`],
        ['msgpack', maps.pack(events.map(native))],
        ['msgpack', records.pack(events.map(native))],
        ['msgpack', Buffer.concat(events.map((event) => maps.pack(native(event))))],
        ['csv', csv(events, separator, '\n')],
        ['csv', `\ufeff${csv(events, separator, '\r\n')}`],
        ['cloudevents-batch', JSON.stringify(events.map(cloudEvent))],
      ]
      for (const [format, body] of bodies) expect(framesOf(ask(body, { format })), format).toEqual(expected)
      const [first] = events
      const alone = framesOf(ask(json(first!)))
      expect(framesOf(ask(JSON.stringify(cloudEvent(first!)), { format: 'cloudevents' }))).toEqual(alone)
      expect(framesOf(ask(maps.pack(native(first!)), { format: 'msgpack' }))).toEqual(alone)
      const data = JSON.stringify(cloudEvent(first!).data)
      const attributes = headersOf(first!)
      expect(framesOf(ask(data, { format: 'cloudevents-binary', attributes }))).toEqual(alone)
    }),
  )
})

test(`NDJSON: a line of broken syntax is refused alone, with its place and its text ${promises('ingest:verdict-per-event')}`, () => {
  const good = (id: string): string => `{"id":"${id}","metric":"kyc"}`
  const lines = [
    good('1'),
    '{"id":"2","metric"',
    good('3'),
    `${good('4')} x`,
    '[]',
    `${'['.repeat(40)}`,
    '\ufeff{}',
    good('8'),
  ]
  const asked = ask(lines.join('\n'), { format: 'ndjson' })
  expect(asked).toMatchObject({ received: 8, stored: 3, refused: 5 })
  expect(asked.refusals.map(({ index, code, id, raw }) => ({ index, code, id, raw }))).toEqual(
    [1, 3, 4, 5, 6].map((index) => ({
      index,
      code: 'malformed',
      id: index === 1 ? '2' : index === 3 ? '4' : '',
      // A byte order mark is left out of the text.
      raw: lines[index]!.replace('\ufeff', ''),
    })),
  )
  expect([...asked.parts[0]!.indices]).toEqual([0, 2, 7])
  expect(() => ask(' \n\r\n', { format: 'ndjson' })).toThrow('the body is empty')
})

test('msgpack: integers of every width are exact, and a float is its shortest decimal text', () => {
  const value = (packed: unknown): bigint =>
    stored(maps.pack({ id: '1', metric: 'kyc', value: packed }), { format: 'msgpack' }).value
  for (const n of [
    0,
    1,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    2 ** 32 - 1,
    2 ** 32,
    -1,
    -32,
    -33,
    -128,
    -129,
    -32_769,
    -(2 ** 31),
  ]) {
    expect(value(n)).toBe(BigInt(n) * 1000n)
  }
  expect(value(999_999_999_999_999n)).toBe(999_999_999_999_999_000n)
  expect(value(-999_999_999_999_999n)).toBe(-999_999_999_999_999_000n)
  expect([value(0.1), value(1.005), value(-0.25), value(1e-3), value(123456.789)]).toEqual([
    100n,
    1005n,
    -250n,
    1n,
    123_456_789n,
  ])
  const single = (n: number): Buffer => {
    const bytes = Buffer.from([
      0x83,
      0xa2,
      0x69,
      0x64,
      0xa1,
      0x31,
      0xa6,
      ...Buffer.from('metric'),
      0xa3,
      ...Buffer.from('kyc'),
    ])
    const float = Buffer.from([0xa5, ...Buffer.from('value'), 0xca, 0, 0, 0, 0])
    float.writeFloatBE(n, 7)
    return Buffer.concat([bytes, float])
  }
  expect(stored(single(0.1), { format: 'msgpack' }).value).toBe(100n)
  expect(stored(single(12.5), { format: 'msgpack' }).value).toBe(12_500n)
  expect(refusal(single(2 ** 24), { format: 'msgpack' })).toMatchObject({ code: 'malformed', field: 'value' })
})

test('msgpack: what could hide a rounding, and what is no JSON, is refused in its event alone and by its field', () => {
  const event = { id: '1', metric: 'kyc' }
  const cases: [unknown, string, string][] = [
    [{ ...event, value: 2 ** 53 }, 'malformed', 'value'],
    [{ ...event, value: Number.NaN }, 'malformed', 'value'],
    [{ ...event, value: Number.POSITIVE_INFINITY }, 'malformed', 'value'],
    [{ ...event, value: 2n ** 63n }, 'value_out_of_range', 'value'],
    [{ ...event, value: 0.1 + 0.2 }, 'value_too_precise', 'value'],
    [{ ...event, dims: { region: Buffer.from('ci') } }, 'malformed', 'dims.region'],
    [{ ...event, source: new Map([[1, 2]]) }, 'malformed', 'source'],
    [
      new Map<unknown, unknown>([
        [1, 'x'],
        ['id', '1'],
      ]),
      'malformed',
      '',
    ],
    [{ ...event, subject: null }, 'malformed', 'subject'],
    [{ ...event, vlaue: 1 }, 'unknown_field', 'vlaue'],
    [5, 'malformed', ''],
    [[event], 'malformed', ''],
  ]
  for (const [bad, code, field] of cases) {
    const asked = ask(maps.pack([event, bad, { ...event, id: '2' }]), { format: 'msgpack' })
    expect(asked.stored, JSON.stringify(asked.refusals)).toBe(2)
    expect(asked.refusals).toMatchObject([{ index: 1, code, field }])
  }
  const dated = { ...event, time: new Date(RECEIVED_AT - 1), subject: undefined }
  for (const packr of [maps, records]) {
    expect(stored(packr.pack(dated), { format: 'msgpack' })).toMatchObject({ eventTime: RECEIVED_AT - 1, subject: '' })
  }
})

test('msgpack: a body cut at any byte, a byte that begins nothing, too deep => refused as a whole', () => {
  const event = { id: '1', metric: 'kyc', dims: { region: 'ci' }, value: 1.5 }
  for (const packr of [maps, records]) {
    const whole = packr.pack([event, { ...event, id: '2' }])
    expect(ask(whole, { format: 'msgpack' }).stored).toBe(2)
    for (let end = 0; end < whole.length; end += 1) {
      expect(() => ask(whole.subarray(0, end), { format: 'msgpack' })).toThrow(ReleveError)
    }
  }
  const thrown = (body: Uint8Array): string => {
    try {
      ask(body, { format: 'msgpack' })
    } catch (error) {
      expect(error).toBeInstanceOf(ReleveError)
      return `${(error as ReleveError).code}: ${(error as Error).message}`
    }
    return 'nothing thrown'
  }
  expect(thrown(Buffer.from([0x91, 0xc1]))).toBe('malformed_body: byte 1: 0xc1 begins no value of msgpack')
  expect(thrown(Buffer.alloc(1_000_000, 0x91))).toContain('nested deeper')
  expect(thrown(Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]))).toContain('the body ends')
  expect(thrown(maps.pack(new Array(limits.batchEventsMax + 1).fill(0)))).toContain('body_too_large')
  expect(ask(maps.pack(new Array(limits.batchEventsMax).fill(0)), { format: 'msgpack' }).refused).toBe(
    limits.batchEventsMax,
  )
})

test(`msgpack: a short body that unfolds to a long text => stopped at the bound of a body ${promises('system:bounded')}`, () => {
  const name = 'n'.repeat(60_000)
  const body = Buffer.concat([
    Buffer.from([0xdc, 0x03, 0xe8, 0xd4, 0x72, 0x40, 0x91, 0xda, name.length >> 8, name.length & 255]),
    Buffer.from(name),
    Buffer.from([1]),
    Buffer.from(new Array(999).fill([0x40, 1]).flat()),
  ])
  expect(() => ask(body, { format: 'msgpack' })).toThrow('when written as JSON')
})

test(`CSV: a bad row is refused alone; the line is the boundary even within a quote ${promises('ingest:verdict-per-event')}`, () => {
  const rows = [
    '1,kyc,1.5,',
    '2,kyc,"1',
    '3,kyc,1,5,ci',
    '4,kyc',
    '5,kyc,"1"x,',
    '6,ky"c,1,',
    '7,kyc,1e3,"c""i"',
    '8,none,1,',
    '9,kyc,1,é',
  ]
  const asked = ask(['id,metric,value,dims.region', ...rows].join('\n'), { format: 'csv' })
  expect(asked.refusals.map(({ index, code, id }) => ({ index, code, id }))).toEqual([
    { index: 1, code: 'malformed', id: '2' },
    { index: 2, code: 'malformed', id: '3' },
    { index: 3, code: 'malformed', id: '4' },
    { index: 4, code: 'malformed', id: '5' },
    { index: 5, code: 'malformed', id: '6' },
    { index: 7, code: 'unknown_metric', id: '8' },
  ])
  expect(asked.stored).toBe(3)
  expect(refusal('id;metric;value\n1;kyc;1,5', { format: 'csv' })).toMatchObject({
    code: 'value_not_a_number',
    field: 'value',
    raw: '{"id":"1","metric":"kyc","value":"1,5"}',
  })
  const epoch = `id,metric,time\n1,kyc,${RECEIVED_AT}`
  expect(stored(epoch, { format: 'csv' }).eventTime).toBe(RECEIVED_AT)
  expect(ask('id,metric\n', { format: 'csv' })).toMatchObject({ received: 0, parts: [] })
  for (const head of [
    'id,metric,colour',
    'id,metric,id',
    'id,metric;value',
    '"id',
    '',
    'id,dims.',
    new Array(200).fill('').join(','),
  ]) {
    expect(() => ask(`${head}\n1,kyc,1`, { format: 'csv' }), head).toThrow(ReleveError)
  }
})

test('CloudEvents in headers: the body cannot reach out of data, and a header that comes twice is refused', () => {
  const attributes: CloudEventHeaders = [
    ['specversion', '1.0'],
    ['id', 'e%20%C3%A9'],
    ['source', '/gw'],
    ['type', 'kyc'],
    ['traceparent', '100%'],
  ]
  const over = { format: 'cloudevents-binary' as const, attributes }
  expect(stored('{"value":2,"region":"ci"}', over)).toMatchObject({ id: 'e é', value: 2000n, dims: '{"region":"ci"}' })
  expect(stored('', over)).toMatchObject({ value: 1000n })
  for (const body of ['{"value":2},"tenant":"banque"', '{}}', '{"a":', 'text', '{},{}']) {
    expect(() => ask(body, over), body).toThrow(ReleveError)
  }
  expect(refusal('"text"', over)).toMatchObject({ code: 'malformed', field: 'data' })
  const twice = [...attributes, ['id', 'other'] as const]
  expect(refusal('{}', { ...over, attributes: twice })).toMatchObject({ code: 'malformed', field: 'id' })
  for (const value of ['\u00e9', 'a%FF', 'a\tb']) {
    const wrong = [...attributes, ['subject', value] as const]
    expect(refusal('{}', { ...over, attributes: wrong })).toMatchObject({ code: 'malformed', field: 'subject' })
  }
  expect(refusal('{}', { ...over, attributes: [['id', '1']] })).toMatchObject({ code: 'missing_field' })
  expect(refusal('{}', { ...over, attributes: [...attributes, ['tenant', 'banque']] }).code).toBe('forbidden_tenant')
  expect(refusal('{}', { ...over, attributes: [...attributes, ['datacontenttype', 'text/xml']] }).field).toBe(
    'datacontenttype',
  )
})

test('anything at all in any format => verdicts that add up, or ReleveError, and the door is sound afterwards', () => {
  const seeds = [
    maps.pack([{ id: '1', metric: 'kyc', dims: { region: 'ci' }, value: 1.5, time: new Date() }]),
    records.pack([
      { id: '1', metric: 'kyc' },
      { id: '2', metric: 'kyc' },
      { id: '3', metric: 'kyc', dims: { region: 'x' } },
    ]),
    Buffer.from('id,metric,value\n1,kyc,2\n"2",kyc,"3"\n'),
    Buffer.from('{"id":"1","metric":"kyc"}\n{"id":"2","metric":"kyc","dims":{"region":"\\u00e9"}}\n'),
  ]
  const mutated = fc
    .tuple(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }))
    .map(([seed, changes]) => {
      const bytes = Buffer.from(seed)
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte
      return bytes
    })
  const format = fc.constantFrom<BodyFormat>('json', 'ndjson', 'msgpack', 'csv', 'cloudevents-binary')
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 64 })), format, (body, asFormat) => {
      try {
        const asked = ask(body, { format: asFormat, attributes: [['id', 'x']] })
        expect(asked.received).toBe(asked.stored + asked.refused)
        expect(asked.parts.reduce((n, part) => n + part.events, 0)).toBe(asked.stored)
      } catch (error) {
        if (!(error instanceof ReleveError)) throw error
        expect(['malformed_body', 'body_too_large']).toContain(error.code)
      }
      expect(ask('{"id":"1","metric":"kyc"}').stored).toBe(1)
    }),
    { numRuns: 3_000 },
  )
})
