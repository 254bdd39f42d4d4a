import { expect, test, vi } from 'vitest'
import { streamOf } from '../../src/event.js'
import type { RefusalCode } from '../../src/ingest/verdict.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { AHEAD_MS, ask, FLOOR_TIME, RECEIVED_AT, refusal, STREAMS, stored } from './door.js'

// Much data, on a machine that other tests use as well.
vi.setConfig({ testTimeout: 60_000 })

/** One event alone: its code and the field that is named. */
function check(body: string | Uint8Array, code: RefusalCode, field: string, tenant: string | null = 'acme'): void {
  const found = refusal(body, { tenant })
  expect({ code: found.code, field: found.field }, JSON.stringify(found)).toEqual({ code, field })
  expect(found.message).not.toBe('')
}

const at = (time: number): string => new Date(time).toISOString()
const long = (length: number): string => 'x'.repeat(length)

test('a whole event => every field is in the frame as it was sent', () => {
  const event = stored(
    '{"id":"e1","tenant":"acme","source":"gw","metric":"kyc","subject":"s","time":"2026-03-10T09:15:00.123Z","value":"12.5","dims":{"region":"ci","plan":"pro"},"kind":"void"}',
  )
  expect(event).toEqual({
    tenant: 'acme',
    originTenant: 'acme',
    source: 'gw',
    id: 'e1',
    metric: 'kyc',
    subject: 's',
    eventTime: Date.UTC(2026, 2, 10, 9, 15, 0, 123),
    value: 12_500n,
    dims: '{"plan":"pro","region":"ci"}',
    member: '',
    kind: 'void',
  })
})

test('an event of id and metric alone => value 1, time of arrival, tenant of the key', () => {
  const event = stored('{"id":"e1","metric":"kyc"}')
  expect(event).toMatchObject({ tenant: 'acme', source: '', subject: '', value: 1_000n, dims: '{}', kind: 'usage' })
  expect(event.eventTime).toBe(RECEIVED_AT)
})

test('malformed: not an object, a wrong type, an empty name, a control character, a name twice', () => {
  for (const body of ['[1]', '["x"]', '[null]', '[[]]', '[true]']) check(body, 'malformed', '')
  for (const field of ['id', 'tenant', 'source', 'metric', 'subject', 'kind']) {
    for (const wrong of ['1', 'null', 'true', '{}', '["a"]']) {
      check(`{"${field}":${wrong},"x":1}`, 'malformed', field)
    }
  }
  check('{"id":"","metric":"kyc"}', 'malformed', 'id')
  check('{"id":"1","metric":""}', 'malformed', 'metric')
  check('{"id":"a\\u0000","metric":"kyc"}', 'malformed', 'id')
  check('{"id":"a\x7f","metric":"kyc"}', 'malformed', 'id')
  check('{"id":"1","metric":"kyc","subject":"a\\nb"}', 'malformed', 'subject')
  check('{"id":"1","metric":"kyc","dims":{"region":"a\\tb"}}', 'malformed', 'dims.region')
  check('{"id":"1","metric":"kyc","kind":"refund"}', 'malformed', 'kind')
  check('{"id":"1","metric":"kyc","id":"1"}', 'malformed', 'id')
  check('{"id":"1","metric":"kyc","i\\u0064":"2"}', 'malformed', 'id')
  check('{"id":"1","metric":"kyc","dims":[]}', 'malformed', 'dims')
  check('{"id":"1","metric":"kyc","dims":null}', 'malformed', 'dims')
  check('{"id":"1","metric":"kyc","dims":{"region":null}}', 'malformed', 'dims.region')
  check('{"id":"1","metric":"kyc","dims":{"region":{"a":1}}}', 'malformed', 'dims.region')
  check('{"id":"1","metric":"kyc","dims":{"region":"a","region":"a"}}', 'malformed', 'dims.region')
})

test('malformed: invalid UTF-8 and half a surrogate pair, wherever a text stands', () => {
  const broken = Buffer.from('{"id":"a?","metric":"kyc"}')
  for (const bad of [0x80, 0xc0, 0xc3, 0xe2, 0xf5, 0xff]) {
    broken[8] = bad
    check(broken, 'malformed', 'id')
  }
  check('{"id":"\\ud800","metric":"kyc"}', 'malformed', 'id')
  check('{"id":"\\udc00\\ud800","metric":"kyc"}', 'malformed', 'id')
  check('{"id":"1","metric":"kyc","dims":{"region":"\\ud83d"}}', 'malformed', 'dims.region')
  check('{"id":"1","metric":"kyc","x\\ud83d":1}', 'malformed', 'x\ufffd')
  expect(stored('{"id":"\\ud83d\\ude00é漢","metric":"kyc"}').id).toBe('😀é漢')
})

test('missing_field: id, metric, and the tenant under a key of the platform', () => {
  check('{}', 'missing_field', 'id')
  check('{"id":"1"}', 'missing_field', 'metric')
  check('{"id":"1","metric":"kyc"}', 'missing_field', 'tenant', null)
})

test('unknown_field: named as the sender spelled it', () => {
  check('{"id":"1","metric":"kyc","vlaue":3}', 'unknown_field', 'vlaue')
  check('{"id":"1","metric":"kyc","__proto__":{}}', 'unknown_field', '__proto__')
  check('{"id":"1","metric":"kyc","constructor":1}', 'unknown_field', 'constructor')
})

test('unknown_metric, unknown_tenant', () => {
  check('{"id":"1","metric":"kyb"}', 'unknown_metric', 'metric')
  check('{"id":"1","metric":"toString"}', 'unknown_metric', 'metric')
  check('{"id":"1","metric":"kyc","tenant":"nobody"}', 'unknown_tenant', 'tenant', null)
  check('{"id":"1","metric":"kyc","tenant":""}', 'unknown_tenant', 'tenant', null)
  check('{"id":"1","metric":"kyc"}', 'unknown_tenant', 'tenant', 'gone')
})

test(`an event of another tenant than the key's => forbidden, and nothing of it reaches that tenant ${promises('tenant:isolated')}`, () => {
  for (const other of ['banque', 'nobody', '']) {
    const asked = ask(`{"id":"1","metric":"kyc","tenant":"${other}"}`)
    expect(asked).toMatchObject({ received: 1, stored: 0, refused: 1 })
    expect(asked.refusals[0]).toMatchObject({ code: 'forbidden_tenant', field: 'tenant', tenant: 'acme' })
    // The refusal is kept under the tenant of the key and in its stream, and says the same whether the other exists or not.
    expect(asked.parts.map((part) => part.stream)).toEqual([streamOf('acme', STREAMS)])
    expect(asked.refusals[0]!.message.replace(`"${other}"`, '""')).toBe('"" is not the tenant of the key')
  }
  // Whatever else is wrong with the event, its refusal belongs to the tenant of the key.
  expect(refusal('{"tenant":"banque","vlaue":1}')).toMatchObject({ code: 'unknown_field', tenant: 'acme' })
  expect(stored('{"id":"1","metric":"kyc","tenant":"acme"}').tenant).toBe('acme')
})

test('unknown_dimension: the metric does not name it', () => {
  check('{"id":"1","metric":"kyc","dims":{"region":"ci","color":"red"}}', 'unknown_dimension', 'dims.color')
  check('{"id":"1","metric":"users","dims":{"user":"u","plan":"pro"}}', 'unknown_dimension', 'dims.plan')
})

test('too_many_dims: one more than the limit; at the limit it is stored', () => {
  const dims = (count: number): string =>
    Array.from({ length: count }, (_, i) => `"d${String(i).padStart(2, '0')}":"v"`).join(',')
  expect(stored(`{"id":"1","metric":"wide","dims":{${dims(limits.dimsMax)}}}`).dims).toBe(`{${dims(limits.dimsMax)}}`)
  check(`{"id":"1","metric":"wide","dims":{${dims(limits.dimsMax + 1)}}}`, 'too_many_dims', 'dims')
})

test('missing_member: what a unique metric counts is not there', () => {
  check('{"id":"1","metric":"users","dims":{"region":"ci"}}', 'missing_member', 'dims.user')
  check('{"id":"1","metric":"users","dims":{"user":""}}', 'missing_member', 'dims.user')
  check('{"id":"1","metric":"lines"}', 'missing_member', 'subject')
  expect(stored('{"id":"1","metric":"users","dims":{"user":"u1","region":"ci"}}')).toMatchObject({
    member: 'u1',
    dims: '{"region":"ci"}',
  })
  expect(stored('{"id":"1","metric":"lines","subject":"l9"}')).toMatchObject({
    member: 'l9',
    dims: '{}',
    subject: 'l9',
  })
})

test('value: not a number, too precise, out of range', () => {
  const value = (text: string): string => `{"id":"1","metric":"kyc","value":${text}}`
  for (const wrong of [
    '"NaN"',
    '"Infinity"',
    '""',
    '" 1"',
    '"1 "',
    '"+1"',
    '"01"',
    '".5"',
    '"1."',
    '"0x10"',
    '"1,5"',
    '"1_0"',
    '"١"',
    'null',
    'true',
    '[]',
    '{}',
  ]) {
    check(value(wrong), 'value_not_a_number', 'value')
  }
  for (const wrong of ['1.2345', '"0.0001"', '1e-4', '"1e-400"']) check(value(wrong), 'value_too_precise', 'value')
  for (const wrong of [
    '1e400',
    '-1e400',
    '1e15000',
    '1e999999999999',
    '1234567890123456789012345678901234567890',
    '1000000000000000.001',
    long(65).replace(/x/g, '9'),
  ]) {
    check(value(wrong), 'value_out_of_range', 'value')
  }
})

test('value: digits are read as they are written', () => {
  const value = (text: string): bigint => stored(`{"id":"1","metric":"kyc","value":${text}}`).value
  expect(value('0.1')).toBe(100n)
  expect(value('"0.1"')).toBe(100n)
  expect(value('-0')).toBe(0n)
  expect(value('-0.0')).toBe(0n)
  expect(value('"-0"')).toBe(0n)
  expect(value('1.500000')).toBe(1_500n)
  expect(value('15e-1')).toBe(1_500n)
  expect(value('1E3')).toBe(1_000_000n)
  expect(value('-12.345')).toBe(-12_345n)
  // Both are beyond 2^53 once scaled: a double would have changed them.
  expect(value('999999999999999.999')).toBe(999_999_999_999_999_999n)
  expect(value('9007199254740.993')).toBe(9_007_199_254_740_993n)
  expect(value('1000000000000000')).toBe(10n ** 18n)
})

test('a count ignores its value, which must be a number all the same', () => {
  expect(stored('{"id":"1","metric":"calls","value":"7.25"}').value).toBe(1n)
  expect(stored('{"id":"1","metric":"calls","value":1e400}').value).toBe(1n)
  expect(stored('{"id":"1","metric":"users","dims":{"user":"u"},"value":5}').value).toBe(1n)
  check('{"id":"1","metric":"calls","value":"many"}', 'value_not_a_number', 'value')
})

test('time: invalid, too old, too far ahead; the limits themselves are inside', () => {
  const time = (text: string): string => `{"id":"1","metric":"kyc","time":${text}}`
  for (const wrong of [
    '"lunchtime"',
    '""',
    '"2026-03-10"',
    '"2026-03-10T09:15:00"',
    '"2026-02-30T09:15:00Z"',
    '1.5',
    '1e12',
    '1773133200000.0',
    'null',
    'true',
    '{}',
    '99999999999999999999',
  ]) {
    check(time(wrong), 'invalid_time', 'time')
  }
  check(time(`"${at(FLOOR_TIME - 1)}"`), 'too_old', 'time')
  check(time(String(FLOOR_TIME - 1)), 'too_old', 'time')
  check(time('0'), 'too_old', 'time')
  check(time('-1'), 'too_old', 'time')
  check(time(`"${at(RECEIVED_AT + AHEAD_MS + 1)}"`), 'too_far_ahead', 'time')
  check(time('999999999999999'), 'too_far_ahead', 'time')
  for (const inside of [FLOOR_TIME, RECEIVED_AT, RECEIVED_AT + AHEAD_MS]) {
    expect(stored(time(`"${at(inside)}"`)).eventTime).toBe(inside)
    expect(stored(time(String(inside))).eventTime).toBe(inside)
  }
})

test('time: every year from 1970 to 9999 is read, and judged by its age', () => {
  const years = Array.from({ length: 8_030 }, (_, i) => 1970 + i)
  const asked = ask(
    `[${years.map((year) => `{"id":"${year}","metric":"kyc","time":"${year}-03-10T12:00:00Z"}`).join(',')}]`,
  )
  expect(asked.received).toBe(years.length)
  expect(asked.stored).toBe(1)
  for (const one of asked.refusals) {
    expect(one.code).toBe(years[one.index]! < 2026 ? 'too_old' : 'too_far_ahead')
  }
})

test('too_large: an id, a name or a value beyond its bytes; at the limit it is stored', () => {
  const max = limits.nameBytesMax
  const fields = ['id', 'source', 'metric', 'subject']
  for (const field of fields) {
    const event: Record<string, string> = { id: '1', metric: 'kyc' }
    check(JSON.stringify({ ...event, [field]: long(max + 1) }), 'too_large', field)
    check(JSON.stringify({ ...event, [field]: 'é'.repeat(max / 2 + 1) }), 'too_large', field)
    if (field !== 'metric')
      expect(stored(JSON.stringify({ ...event, [field]: 'é'.repeat(max / 2) }))).toMatchObject({
        [field]: 'é'.repeat(max / 2),
      })
  }
  check(`{"id":"1","metric":"kyc","dims":{"region":"${long(max + 1)}"}}`, 'too_large', 'dims.region')
  check(`{"id":"1","metric":"users","dims":{"user":"${long(max + 1)}"}}`, 'too_large', 'dims.user')
})

test('void_unavailable: the metric is not archived', () => {
  check('{"id":"1","metric":"live","kind":"void"}', 'void_unavailable', 'kind')
  expect(stored('{"id":"1","metric":"live"}').kind).toBe('usage')
})

test('several faults in one event => the first of the text is told, before any fault of meaning', () => {
  check('{"vlaue":1,"id":5}', 'unknown_field', 'vlaue')
  check('{"id":5,"vlaue":1}', 'malformed', 'id')
  check('{"metric":"nope","id":"\\ud800"}', 'malformed', 'id')
  check('{"metric":"nope","time":"x","value":"y"}', 'missing_field', 'id')
})

test('a refusal carries what could be read, and the beginning of the event as it came', () => {
  const body = `[ {"x":1,"id":"e7","source":"gw","metric":"kyc","subject":"${'é'.repeat(400)}"} ]`
  const found = refusal(body)
  expect(found).toMatchObject({
    index: 0,
    code: 'unknown_field',
    field: 'x',
    tenant: 'acme',
    source: 'gw',
    id: 'e7',
    metric: 'kyc',
  })
  expect(Buffer.byteLength(found.raw)).toBeLessThanOrEqual(limits.refusalRawBytesMax)
  expect(body.slice(2).startsWith(found.raw)).toBe(true)
})

test(`one bad event in 10,000 => it alone is refused, its neighbours are stored ${promises('ingest:verdict-per-event')}`, () => {
  const bads = [
    '7',
    '{"id":"x"}',
    '{"id":"x","metric":"kyc","value":"a"}',
    '{"id":"\\ud800","metric":"kyc"}',
    '{"id":"x","metric":"kyc","dims":{"a":{"b":[{}]}}}',
  ]
  for (const [turn, bad] of bads.entries()) {
    const place = [0, 1, 4_999, 9_998, 9_999][turn]!
    const events = Array.from({ length: 10_000 }, (_, i) =>
      i === place ? bad : `{"id":"${i}","metric":"kyc","value":"${i}.5"}`,
    )
    const asked = ask(`[${events.join(',')}]`)
    expect(asked).toMatchObject({ received: 10_000, stored: 9_999, refused: 1 })
    expect(asked.refusals[0]!.index).toBe(place)
    const [part] = asked.parts
    const [frame] = asked.frames
    const expected = Array.from({ length: 10_000 }, (_, i) => i).filter((i) => i !== place)
    expect(Array.from(part!.indices)).toEqual(expected)
    expect(Array.from(frame!.values)).toEqual(expected.map((i) => BigInt(i) * 1_000n + 500n))
    expect(Buffer.from(frame!.ids).toString()).toBe(expected.join(''))
  }
})

test('a key of the platform => each tenant goes to its stream, unknown ones with their refusals to stream 0', () => {
  const tenants = ['acme', 'banque', 'café-crème', 'd', 'nobody']
  const asked = ask(
    `[${tenants.map((tenant, i) => `{"id":"${i}","metric":"kyc","tenant":"${tenant}"}`).join(',')},{"id":"5","metric":"x","tenant":"d"}]`,
    { tenant: null },
  )
  expect(asked).toMatchObject({ received: 6, stored: 4, refused: 2 })
  expect(asked.refusals.map(({ index, code }) => [index, code])).toEqual([
    [4, 'unknown_tenant'],
    [5, 'unknown_metric'],
  ])
  let events = 0
  for (const [i, part] of asked.parts.entries()) {
    const frame = asked.frames[i]!
    expect(frame.events).toBe(part.events)
    expect(part.indices.length).toBe(part.events)
    for (const index of part.indices) expect(streamOf(tenants[index]!, STREAMS)).toBe(part.stream)
    events += part.events
  }
  expect(events).toBe(4)
  expect(asked.parts.map((part) => part.stream)).toEqual(
    [...new Set([0, ...tenants.slice(0, 4).map((t) => streamOf(t, STREAMS))])].sort(),
  )
})
