import fc from 'fast-check'
import { expect, test } from 'vitest'
import { archiveColumns } from '../../src/rollup/archive-columns.js'
import { RowBinary } from '../../src/rollup/row-binary.js'

interface Row {
  readonly tenant: string
  readonly source: string
  readonly id: string
  readonly metric: string
  readonly version: number
  readonly subject: string
  readonly time: number
  readonly value: bigint
  readonly dims: string
  readonly member: string
  readonly kind: number
}

const RECEIVED_AT = Date.UTC(2026, 2, 10)

/** One function per column of usage_events, in its order. */
const columns: readonly [name: string, type: string, write: (to: RowBinary, row: Row, position: number) => void][] = [
  ['tenant', 'String', (to, row) => to.string(row.tenant)],
  ['source', 'String', (to, row) => to.string(row.source)],
  ['id', 'String', (to, row) => to.string(row.id)],
  ['metric', 'String', (to, row) => to.string(row.metric)],
  ['metric_version', 'UInt32', (to, row) => to.u32(row.version)],
  ['subject', 'String', (to, row) => to.string(row.subject)],
  ['event_time', "DateTime64(3, 'UTC')", (to, row) => to.i64(row.time)],
  ['value', 'Decimal(38, 9)', (to, row) => to.decimal(row.value)],
  ['dims', 'String', (to, row) => to.string(row.dims)],
  ['member', 'String', (to, row) => to.string(row.member)],
  ['kind', 'Int8', (to, row) => to.i8(row.kind)],
  ['received_at', "DateTime64(3, 'UTC')", (to) => to.i64(RECEIVED_AT)],
  ['position', 'UInt64', (to, _, position) => to.i64(position)],
  ['stream', 'UInt16', (to) => to.u16(3)],
  ['epoch', 'UInt64', (to) => to.i64(7)],
  ['chunk', 'UInt16', (to) => to.u16(0)],
]

function rowBinary(rows: readonly Row[]): Uint8Array {
  const to = new RowBinary()
  rows.forEach((row, position) => {
    for (const [, , write] of columns) write(to, row, position)
  })
  return to.take()
}

/** The plain way: the oracle. */
function native(rows: readonly Row[]): Uint8Array {
  const bytes = (text: string): Buffer => Buffer.from(text)
  const sorted = rows
    .map((row, position) => ({ row, position }))
    .sort(
      (a, b) =>
        Buffer.compare(bytes(a.row.tenant), bytes(b.row.tenant)) ||
        Buffer.compare(bytes(a.row.metric), bytes(b.row.metric)) ||
        a.row.time - b.row.time ||
        a.position - b.position,
    )
  const to = new RowBinary()
  to.u8(columns.length)
  // Lengths are written as a text of no bytes would be: one byte up to 127, then two.
  if (rows.length < 128) to.u8(rows.length)
  else for (const byte of [(rows.length & 127) | 128, rows.length >> 7]) to.u8(byte)
  for (const [name, type, write] of columns) {
    to.string(name)
    to.string(type)
    for (const { row, position } of sorted) write(to, row, position)
  }
  return to.take()
}

const name = fc.oneof(
  fc.constantFrom(
    '',
    'a',
    'b',
    'ab',
    'é',
    'tenant-1',
    'tenant-10',
    'x'.repeat(127),
    'x'.repeat(128),
    'y'.repeat(20_000),
  ),
  fc.string({ maxLength: 20 }),
)

const row: fc.Arbitrary<Row> = fc.record({
  tenant: name,
  source: name,
  id: name,
  metric: name,
  version: fc.nat(),
  subject: name,
  // Negative ones and whole centuries as well: every digit of the sort is used.
  time: fc.oneof(fc.integer({ min: -5, max: 5 }), fc.integer({ min: -4e12, max: 8e12 })),
  value: fc.bigInt({ min: -(2n ** 126n), max: 2n ** 126n }),
  dims: name,
  member: name,
  kind: fc.constantFrom(1, -1),
})

test('any rows, in pieces of any length => sorted columns, byte for byte as the plain way makes them', () => {
  fc.assert(
    fc.property(fc.array(row, { minLength: 1, maxLength: 300 }), fc.integer({ min: 1, max: 5_000 }), (rows, length) => {
      const all = rowBinary(rows)
      const pieces: Uint8Array[] = []
      for (let at = 0; at < all.length; at += length) pieces.push(all.slice(at, at + length))
      const made = [...archiveColumns({ rows: rows.length, pieces })!]
      // Blocks end after some megabytes; these are one.
      if (all.length < 8 * 1024 * 1024) expect(made).toHaveLength(1)
      expect(Buffer.compare(made[0]!, native(rows))).toBe(0)
    }),
    { numRuns: 150 },
  )
})

test('more rows than a block holds => blocks that together hold every row once, in order', () => {
  const rows = Array.from({ length: 150_000 }, (_, i): Row => {
    const n = (i * 7_919) % 150_000
    const names = { tenant: `t${n % 3}`, source: '', id: String(i), metric: 'm', subject: 's', dims: '{}', member: '' }
    return { ...names, version: 1, time: RECEIVED_AT + n, value: 1n, kind: 1 }
  })
  const blocks = [...archiveColumns({ rows: rows.length, pieces: [rowBinary(rows)] })!]
  expect(blocks.length).toBeGreaterThan(1)
  const seen: string[] = []
  for (const block of blocks) {
    const count = (block[1]! & 127) | ((block[2]! & 127) << 7) | (block[3]! << 14)
    const text = Buffer.from(block)
    let at = text.indexOf('id\x06String') + 9
    for (let i = 0; i < count; i += 1) {
      seen.push(text.toString('latin1', at + 1, at + 1 + block[at]!))
      at += 1 + block[at]!
    }
  }
  const expected = rows
    .toSorted((a, b) => Number(a.tenant > b.tenant) - Number(a.tenant < b.tenant) || a.time - b.time)
    .map(({ id }) => id)
  expect(seen).toEqual(expected)
})

test('bytes that are not as many rows as was said => refused, and nothing is made of them', () => {
  const all = rowBinary([
    {
      tenant: 't',
      source: '',
      id: '1',
      metric: 'm',
      version: 1,
      subject: '',
      time: 1,
      value: 1n,
      dims: '{}',
      member: '',
      kind: 1,
    },
  ])
  expect(() => archiveColumns({ rows: 2, pieces: [all] })).toThrow('rows of the archive')
  expect(() => archiveColumns({ rows: 1, pieces: [all, all] })).toThrow('rows of the archive')
})
