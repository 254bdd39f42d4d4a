/**
 * The encoder of the client: whatever an event says, its columnar body means what its JSON means: the same verdicts, and the
 * same bytes in the log.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BatchEncoder } from '../../src/client/encoder.js'
import { type ClientEvent, EventError } from '../../src/client/event.js'
import { limits } from '../../src/limits.js'
import { type Asked, ask, FLOOR_TIME, RECEIVED_AT, refusal } from '../ingest/door.js'

function columnar(events: readonly ClientEvent[], encoder = new BatchEncoder(1_000)): Uint8Array {
  for (const event of events) encoder.add(event)
  return encoder.take()
}

/** As JSON.stringify writes it; a bigint by its digits. */
const json = (events: readonly ClientEvent[]): string =>
  JSON.stringify(events, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value))

/** All that two answers have in common: the raw text of a refusal is each format's own. */
function meaning({ received, stored, refusals, parts }: Asked): unknown {
  return {
    received,
    stored,
    refusals: refusals.map(({ raw: _, ...refusal }) => refusal),
    parts: parts.map(({ stream, events, indices, frame }) => ({
      stream,
      events,
      indices: [...indices],
      frame: refusals.length > 0 ? '' : Buffer.from(frame).toString('base64'),
    })),
  }
}

const text = fc.oneof(
  { weight: 5, arbitrary: fc.string({ maxLength: 20 }) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 20 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('é'.repeat(128), 'é'.repeat(129), 'x'.repeat(300), 'a"b\\c', '\u0000', '😀'),
  },
)
const value: fc.Arbitrary<string | number | bigint> = fc.oneof(
  fc.integer({ min: -1e6, max: 1e6 }).map((n) => (n / 1_000).toString()),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }),
  fc.constantFrom('0', '-0', '', '-', '1.', '.5', '01', '1e3', '1.50', '00', '9'.repeat(70), -0, 0.1, 1e-7, 1e21),
  fc.constantFrom('1000000000000000000', '999999999999999.999', '-9223372036854775808', '9223372036854775808'),
  fc.constantFrom('0.000000000000000001', '0.0000000000000000001', '123456789012345', '-1234567890123.45'),
)
const time: fc.Arbitrary<string | number | Date> = fc.oneof(
  fc.date({ min: new Date(FLOOR_TIME - 1e9), max: new Date(RECEIVED_AT + 1e8), noInvalidDate: true }),
  fc.integer({ min: FLOOR_TIME, max: RECEIVED_AT }),
  fc.integer({ min: FLOOR_TIME, max: RECEIVED_AT }).map((ms) => new Date(ms).toISOString()),
  fc.constantFrom('', 'yesterday', '2026-03-10T09:15:00.123456789+01:00', '2026-02-29T00:00:00Z', 1.5, -1, 1e16, 1e300),
)
const event: fc.Arbitrary<ClientEvent> = fc.record(
  {
    id: fc.oneof(fc.uuid(), text),
    metric: fc.constantFrom('kyc', 'calls', 'users', 'lines', 'live', 'unknown'),
    tenant: fc.constantFrom('acme', 'banque', 'nobody', 'café-crème'),
    source: text,
    subject: text,
    time,
    value,
    dims: fc.dictionary(
      fc.oneof({ weight: 20, arbitrary: fc.constantFrom('plan', 'region', 'user') }, text),
      fc.oneof(text, fc.boolean(), fc.integer(), fc.constant(undefined)),
      { maxKeys: 4 },
    ),
    kind: fc.constantFrom('usage', 'void'),
  },
  { requiredKeys: ['id', 'metric'] },
)

test('any events => the meaning of their JSON, to the byte', () => {
  const encoder = new BatchEncoder(1_000)
  fc.assert(
    fc.property(fc.array(event, { maxLength: 30 }), fc.constantFrom('acme', null), (events, tenant) => {
      // Half of a surrogate pair is refused before it is sent, wherever it would become another character.
      const sent = events.filter((one) => {
        try {
          new BatchEncoder(1).add(one)
          return true
        } catch (error) {
          expect(error).toBeInstanceOf(EventError)
          return false
        }
      })
      const over = { tenant }
      const asked = ask(columnar(sent, encoder), { ...over, format: 'columnar' })
      const expected = ask(json(sent), over)
      expect(meaning(asked)).toEqual(meaning(expected))
      // What was refused can be mended and sent as JSON: its raw text says the same.
      for (const [i, { raw, code }] of asked.refusals.entries()) {
        if (raw.length < limits.refusalRawBytesMax / 4 && code !== 'malformed') {
          expect(ask(raw, over).refusals[0]).toMatchObject({ code, field: asked.refusals[i]!.field })
        }
      }
    }),
    { numRuns: 400 },
  )
})

test('a batch behind a batch, with texts that come again and many rows => nothing of the first is left', () => {
  const encoder = new BatchEncoder(500)
  for (let round = 0; round < 5; round += 1) {
    const events = Array.from({ length: 500 }, (_, i) => ({
      id: `${round}-${i}`,
      tenant: ['acme', 'banque'][i % 2]!,
      metric: 'kyc',
      subject: `s${(i * (round + 1)) % 300}`,
      time: RECEIVED_AT - i,
      value: i,
      dims: { region: `r${i % 7}`, plan: `p${round}` },
    }))
    const asked = ask(columnar(events, encoder), { format: 'columnar', tenant: null })
    expect(meaning(asked)).toEqual(meaning(ask(json(events), { tenant: null })))
    expect(asked.stored).toBe(500)
  }
})

test('what no event may be => EventError, and the batch goes on without it', () => {
  const encoder = new BatchEncoder(10)
  const good = { id: 'a', metric: 'kyc' }
  encoder.add(good)
  const wrong: unknown[] = [
    { metric: 'kyc' },
    { id: 1, metric: 'kyc' },
    { id: 'x' },
    { ...good, metric: 5 },
    { ...good, subject: null },
    { ...good, kind: 'other' },
    { ...good, value: Number.NaN },
    { ...good, value: true },
    { ...good, time: new Date(Number.NaN) },
    { ...good, time: true },
    { ...good, dims: { region: null } },
    { ...good, dims: { region: ['r'] } },
    { ...good, id: '\ud83d' },
    { ...good, id: '\ude00x' },
    { ...good, subject: 'a\ud83db' },
    { ...good, id: 'x'.repeat(2_000) },
    { ...good, subject: 'x'.repeat(3_000_000) },
  ]
  for (const one of wrong)
    expect(() => encoder.add(one as ClientEvent), JSON.stringify(one)?.slice(0, 80)).toThrow(EventError)
  encoder.add({ ...good, id: 'b' })
  expect(encoder.events).toBe(2)
  expect(ask(encoder.take(), { format: 'columnar' })).toMatchObject({ received: 2, stored: 2 })
})

test('half of a surrogate pair within an id => refused as in JSON, and no neighbour is touched', () => {
  const events = ['a\ud83db', 'é\ude00é', 'a\ud83d\ude00b', 'plain'].map((id) => ({ id, metric: 'kyc' }))
  const asked = ask(columnar(events), { format: 'columnar' })
  expect(asked).toMatchObject({ stored: 2, refused: 2 })
  expect(asked.refusals.map(({ index, code, field }) => ({ index, code, field }))).toEqual([
    { index: 0, code: 'malformed', field: 'id' },
    { index: 1, code: 'malformed', field: 'id' },
  ])
})

/** A sound body with a u32 changed. */
function broken(at: number, value: number): Uint8Array {
  const body = columnar([
    { id: 'abcd', metric: 'kyc', dims: { plan: 'p' } },
    { id: 'efgh', metric: 'kyc', value: '1.5', time: RECEIVED_AT },
  ])
  const bytes = Buffer.from(body)
  bytes.writeUInt32LE(value, at)
  return bytes
}

test('whatever reaches outside of the body or does not add up => malformed_body with the byte', () => {
  const rowOf = 32 + 32
  const ends = rowOf + 8
  const rows = ends + 16
  const pairs = rows + 40
  const idLengths = pairs + 8
  const faults: [at: number, value: number, message: string][] = [
    [0, 0, 'byte 0: a columnar body begins with «RCOL»'],
    [4, 2, 'byte 4: version 2: this release reads 1'],
    [4, 0x1_0001, 'byte 6: a reserved field is not 0'],
    [8, 10_001, 'more than 10000 events (limits.batchEventsMax)'],
    [8, 1, 'byte 20: 2 rows for 1 events'],
    [12, 0xffff_ffff, 'bytes, the body has'],
    [16, 0xffff_ffff, 'bytes, the body has'],
    [20, 0xffff_ffff, 'byte 20: 4294967295 rows for 2 events'],
    [24, 0xffff_ffff, 'bytes, the body has'],
    [28, 0xffff_ffff, 'bytes, the body has'],
    [16, 7, `byte ${ends + 8}: the end of text 2 is out of order`],
    [28, 7, 'byte 28: the ids have 8 bytes, not 7'],
    [24, 0, 'bytes, the body has'],
    [rowOf, 2, `byte ${rowOf}: event 0 names a row that is not there`],
    [rowOf + 4, 0xffff_ffff, `byte ${rowOf + 4}: event 1 names a row that is not there`],
    [ends, 8, `byte ${ends + 4}: the end of text 1 is out of order`],
    [ends + 8, 7, 'byte 16: the texts have 7 bytes, not 8'],
    [rows, 4, `byte ${rows}: row 0 names a text that is not there`],
    [rows + 20 + 12, 0xffff_ffff, `byte ${rows + 32}: row 1 names a text that is not there`],
    [rows + 16, 2, `byte ${rows + 16}: the rows have more than 1 pairs`],
    [rows + 16, 0, 'byte 24: the rows have 0 pairs, not 1'],
    [pairs, 0, `byte ${pairs}: pair 0 names a text that is not there`],
    [pairs + 4, 4, `byte ${pairs + 4}: pair 0 names a text that is not there`],
    [idLengths, 0x0004_0005, 'byte 28: the ids have 9 bytes, not 8'],
  ]
  for (const [at, value, message] of faults) {
    const code = at === 8 && value > 2 ? 'body_too_large' : 'malformed_body'
    expect(() => ask(broken(at, value), { format: 'columnar' }), `${at} ${value}`).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    )
  }
})

test('what an event says wrong of itself => that event alone is refused, with its field', () => {
  const of = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(
      columnar([
        { id: 'abcd', metric: 'kyc', value: '1.5', time: RECEIVED_AT },
        { id: 'efgh', metric: 'kyc', value: '1.5', time: RECEIVED_AT },
      ]),
    )
    change(bytes)
    const asked = ask(bytes, { format: 'columnar' })
    expect(asked).toMatchObject({ stored: 1, refused: 1 })
    return asked.refusals[0]!
  }
  const decimals = 32 + 32 + 8 + 8 + 24 + 8
  const kinds = decimals + 8
  expect(of((b) => b.writeUInt8(8, kinds))).toMatchObject({ code: 'malformed', field: 'kind' })
  expect(of((b) => b.writeUInt8(6, kinds))).toMatchObject({ code: 'malformed', field: 'kind' })
  expect(of((b) => b.writeUInt8(19, decimals))).toMatchObject({ code: 'malformed', field: 'value' })
  expect(of((b) => b.writeUInt8(255, decimals))).toMatchObject({ code: 'malformed', field: 'value' })
  expect(of((b) => b.writeUInt8(4, kinds))).toMatchObject({ code: 'malformed', field: 'time' })
  expect(of((b) => b.writeDoubleLE(Number.NaN, 32))).toMatchObject({ code: 'malformed', field: 'time' })
  expect(of((b) => b.writeDoubleLE(Number.POSITIVE_INFINITY, 32))).toMatchObject({ code: 'malformed', field: 'time' })
  expect(of((b) => b.writeDoubleLE(RECEIVED_AT + 0.5, 32))).toMatchObject({ code: 'invalid_time', field: 'time' })
})

test('the same as JSON: a wrong member is named with its code', () => {
  const { code, field } = refusal(JSON.stringify({ id: 'x', metric: 'kyc', dims: { nope: 'x' } }))
  const asked = ask(columnar([{ id: 'x', metric: 'kyc', dims: { nope: 'x' } }]), { format: 'columnar' })
  expect(asked.refusals[0]).toMatchObject({ code, field, index: 0, id: 'x' })
})
