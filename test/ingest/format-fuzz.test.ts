import { expect, test, vi } from 'vitest'
import { BatchEncoder } from '../../src/client/encoder.js'
import { COLUMNAR_HEADER_BYTES, columnarLayout } from '../../src/columnar.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { RECEIVED_AT } from './door.js'
import { type FuzzFormat, formatBody, fuzzFormat, fuzzFormats } from './format-fuzz.js'
import { compare, openPair, random } from './kernel-fuzz.js'

vi.setConfig({ testTimeout: 120_000 })

const pair = openPair(4)

/** The answer of both ways, which must be the same. */
function same(format: FuzzFormat, body: Uint8Array, tenant: string | null = null) {
  const { difference, judged } = compare(pair, body, { format, tenant })
  expect(difference, Buffer.from(body.subarray(0, 300)).toString('latin1')).toBeNull()
  return judged
}

test.each(fuzzFormats)(
  `${promises('ingest:verdict-per-event')} %s: 25,000 generated and broken events => the kernel and the plain door answer alike`,
  (format) => {
    const done = fuzzFormat(format, 25_000, 20_260_312)
    expect(done.byKernel).toBeGreaterThan(5_000)
    expect(done.stored).toBeGreaterThan(6_000)
    if (format !== 'ndjson') expect(done.broken).toBeGreaterThan(100)
  },
)

test.each(fuzzFormats)(
  '%s: a body cut off behind each of its bytes, each byte another => the same answer every time',
  (format) => {
    const next = random(11)
    for (let round = 0; round < 2; round += 1) {
      const body = formatBody(next, format, 3)
      for (let length = 0; length < body.length; length += 1) same(format, body.subarray(0, length))
      for (let at = 0; at < body.length; at += 1) {
        for (const value of [0, 0xff, 0x40, 0xd4, 0x7f, body[at]! ^ 1, body[at]! ^ 0x80, body[at]! + 1]) {
          const changed = Buffer.from(body)
          changed[at] = value
          same(format, changed)
        }
      }
    }
  },
)

const calls = (i: number) => ({
  id: `0190f3a0-7c1f-7cc4-9d2b-${String(i).padStart(12, '0')}`,
  tenant: 'acme',
  metric: 'kyc',
  subject: `s${i % 50}`,
  time: RECEIVED_AT - i,
  value: '12.5',
  dims: { region: `r${i % 3}`, plan: 'p' },
})

test('ordinary events of each format => the kernel alone judges them', async () => {
  const { Packr } = await import('msgpackr')
  const list = Array.from({ length: 1_000 }, (_, i) => calls(i))
  const encoder = new BatchEncoder(1_000)
  for (const event of list) encoder.add(event)
  const clouds = list.map(({ metric, value, dims, time, ...rest }) => ({
    ...rest,
    specversion: '1.0',
    source: '/gw',
    type: metric,
    time: new Date(time).toISOString(),
    datacontenttype: 'application/json',
    traceparent: '00-4bf9-00f0-01',
    data: { value, ...dims, unnamed: 5 },
  }))
  const numbers = list.map((event, i) => ({ ...event, value: i / 8, time: new Date(event.time) }))
  const bodies: [FuzzFormat, Uint8Array][] = [
    ['ndjson', Buffer.from(list.map((event) => JSON.stringify(event)).join('\n'))],
    ['cloudevents-batch', Buffer.from(JSON.stringify(clouds))],
    ['msgpack', new Packr({ useRecords: false }).pack(list)],
    ['msgpack', new Packr().pack(list)],
    ['msgpack', new Packr().pack(numbers)],
    ['msgpack', Buffer.concat(list.map((event) => new Packr({ useRecords: false }).pack(event)))],
    ['columnar', encoder.take()],
  ]
  for (const [format, body] of bodies) {
    expect(same(format, body), format).toMatchObject({ received: 1_000, stored: 1_000, plain: 0 })
  }
  expect(same('cloudevents', Buffer.from(JSON.stringify(clouds[0])))).toMatchObject({ stored: 1, plain: 0 })
})

test('records that the plain path reads and defines between those of the kernel => each keeps its names', () => {
  // 0x41 is defined, then defined anew by an event that is not for the kernel (a float as a dimension), then used again.
  const text = (value: string): string => (0xa0 | value.length).toString(16) + Buffer.from(value).toString('hex')
  const define = (...names: string[]): string =>
    `d47241${(0x90 | names.length).toString(16)}${names.map(text).join('')}`
  const body = Buffer.from(
    [
      '95',
      `${define('id', 'metric', 'tenant')}${text('a')}${text('kyc')}${text('acme')}`,
      `41${text('b')}${text('kyc')}${text('acme')}`,
      `${define('metric', 'id', 'tenant', 'dims')}${text('kyc')}${text('c')}${text('acme')}81${text('plan')}cb3fb999999999999a`,
      `41${text('kyc')}${text('d')}${text('acme')}80`,
      `81${text('dims')}${define('x')}${text('y')}`,
    ].join(''),
    'hex',
  )
  expect(same('msgpack', body)).toMatchObject({ received: 5, stored: 4, plain: 2 })
})

test(`a short body that says much, over and over => the same answer, and no more work than a long one ${promises('system:bounded')}`, () => {
  const long = 'x'.repeat(1_000_000)
  const encode = (events: number, event: object): Uint8Array => {
    const encoder = new BatchEncoder(events)
    for (let i = 0; i < events; i += 1) encoder.add({ ...calls(i), ...event })
    return encoder.take()
  }
  // Within what a body may be as JSON, and beyond.
  for (const size of [100, 2_000, 200_000]) {
    for (const events of [10, 10_000]) {
      same('columnar', encode(events, { subject: long.slice(0, size) }))
      same('columnar', encode(events, { dims: { region: long.slice(0, size) } }))
      same('columnar', encode(events, { dims: { plan: '"'.repeat(size / 10) } }))
      same('columnar', encode(events, { value: `1e${long.slice(0, size)}` }))
    }
  }
  const text32 = (text: string): Buffer => {
    const head = Buffer.alloc(5, 0xdb)
    head.writeUInt32BE(text.length, 1)
    return Buffer.concat([head, Buffer.from(text)])
  }
  // A record of one name of a megabyte, used by each of 10,000 events of two bytes.
  const head = Buffer.from('d4724191', 'hex')
  const used = Buffer.from('4101'.repeat(9_999), 'hex')
  same('msgpack', Buffer.concat([head, text32(long), Buffer.of(1), used]))
  same('msgpack', Buffer.concat([head, text32('metric'), text32(long), used]))
  // Counts that nothing stands behind.
  for (const hex of [
    'ddffffffff',
    'dfffffffff',
    'd47241ddffffffff',
    'dbffffffff',
    '91dbffffffff',
    '90'.repeat(5_000),
  ]) {
    same('msgpack', Buffer.from(hex, 'hex'))
  }
  same('ndjson', Buffer.from('{\n'.repeat(limits.batchEventsMax + 1)))
  same('ndjson', Buffer.from(`{"id":${' '.repeat(100_000)}\n`.repeat(20)))
  same('ndjson', Buffer.from('\n \r\n'.repeat(100_000)))
  same(
    'cloudevents-batch',
    Buffer.from(`[{"id":"1",${Array.from({ length: 20_000 }, (_, i) => `"e${i}":1`).join(',')}}]`),
  )
})

test('10,000 events, one more, none => the same answer in each format', () => {
  const next = random(3)
  for (const count of [limits.batchEventsMax, limits.batchEventsMax + 1, 0]) {
    for (const format of ['ndjson', 'cloudevents-batch', 'msgpack'] as const)
      same(format, formatBody(next, format, count))
  }
  const encoder = new BatchEncoder(limits.batchEventsMax)
  for (let i = 0; i < limits.batchEventsMax; i += 1) encoder.add(calls(i))
  const full = Buffer.from(encoder.take())
  expect(same('columnar', full)).toMatchObject({ stored: limits.batchEventsMax, plain: 0 })
  full.writeUInt32LE(limits.batchEventsMax + 1, 8)
  expect(same('columnar', full)).toBeNull()
  expect(same('columnar', new BatchEncoder(1).take())).toMatchObject({ received: 0, stored: 0, parts: [] })
})

test('a header that claims the largest counts, every count alone and together => the same answer', () => {
  const encoder = new BatchEncoder(10)
  for (let i = 0; i < 10; i += 1) encoder.add(calls(i))
  const body = Buffer.from(encoder.take())
  const claims = [0, 1, 9, 11, 0xffff, 0x1000_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, 0xffff_ffff]
  for (let at = 8; at < COLUMNAR_HEADER_BYTES; at += 4) {
    for (const claim of claims) {
      const changed = Buffer.from(body)
      changed.writeUInt32LE(claim, at)
      same('columnar', changed)
      for (let other = at + 4; other < COLUMNAR_HEADER_BYTES; other += 4) {
        changed.writeUInt32LE(claim, other)
        same('columnar', changed)
      }
    }
  }
  // Pairs of rows that add up only where the sum wraps at 32 bits; the first events are those of the second row.
  const two = new BatchEncoder(10)
  two.add({ id: 'a', tenant: 'acme', metric: 'kyc', dims: { plan: 'p' } })
  for (let i = 0; i < 9; i += 1) two.add({ id: `b${i}`, tenant: 'acme', metric: 'kyc', dims: { region: 'r' } })
  const wrapped = Buffer.from(two.take())
  const { rowOfAt, rowsAt } = columnarLayout({ events: 10, texts: 6, textBytes: 0, rows: 2, pairs: 2, idBytes: 0 })
  for (let i = 0; i < 10; i += 1) wrapped.writeUInt32LE(1, rowOfAt + 4 * i)
  expect(same('columnar', wrapped)).toMatchObject({ stored: 10, plain: 0 })
  for (const claim of [0xffff_ffff, 0xffff_fffe, 0x8000_0000]) {
    wrapped.writeUInt32LE(claim, rowsAt + 16)
    wrapped.writeUInt32LE((2 - claim) >>> 0, rowsAt + 36)
    expect(same('columnar', wrapped)).toBeNull()
  }
  // Lengths that are right only where a sum wraps at 32 bits.
  const counts = { events: 10, texts: 0x4000_0000, textBytes: 0, rows: 0, pairs: 0, idBytes: 0 }
  expect(columnarLayout(counts).length).toBeGreaterThan(2 ** 32)
})
