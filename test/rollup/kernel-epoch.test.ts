import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { openAggregate } from '../../src/aggregate/aggregate.js'
import { SCALED_MAX } from '../../src/amount.js'
import { Aggregation } from '../../src/catalog/metric.js'
import { contentKeyBytes, MemberHash, memberHash } from '../../src/dedupe/identity.js'
import { decodeFrame, encodeFrame } from '../../src/frame.js'
import { ShardVerdict } from '../../src/ingest/verdict.js'
import { type Epoch, PlainEpoch } from '../../src/rollup/epoch.js'
import { openKernelEpoch } from '../../src/rollup/kernel-epoch.js'
import { eventOf, frameOf, histories, metricOf, type TestEvent } from '../aggregate/event-list.js'
import { promises } from '../promises.js'

// Much data, on a machine that other tests use as well.
vi.setConfig({ testTimeout: 120_000 })

const SECRET = Uint8Array.from({ length: 16 }, (_, i) => (i * 31 + 3) % 256)
const STREAM = 3

function openBoth(rowsMax: number): [plain: Epoch, kernel: Epoch] {
  const members = new MemberHash(SECRET)
  const words = new Int32Array(4)
  const hash = (tenant: string, member: Uint8Array): Uint8Array => {
    memberHash(members.keyOf(tenant), member, 0, member.length, words, 0)
    return new Uint8Array(words.buffer)
  }
  const kernel = openKernelEpoch(STREAM, { member: members.keyBytes, content: contentKeyBytes(SECRET) }, rowsMax)
  if (kernel === null) throw new Error('cannot compare: the kernel is not built')
  return [new PlainEpoch(STREAM, openAggregate(hash), rowsMax), kernel]
}

const metrics = Aggregation.flatMap((aggregation, i) => [
  metricOf(`metric-${aggregation}`, aggregation, i),
  // The same series at another scale, not archived.
  metricOf(`metric-${aggregation}`, aggregation, 9 - i, 2, false),
  metricOf(`é-${aggregation}`, aggregation, 9),
])
const RECEIVED_AT = Date.UTC(2026, 2, 10, 12)

test(`${promises('flow:replay-equals-live')}: any history => the kernel makes the chunks of the plain side, byte for byte`, () => {
  const [plain, kernel] = openBoth(7)
  let epoch = 1
  const history = histories({
    metrics,
    tenants: ['acme', 'é', 'x'.repeat(300)],
    start: RECEIVED_AT,
    stepMsMax: 60_000,
    lateMs: 1_800_000,
    aheadMs: 60_000,
    valueMax: SCALED_MAX,
    eventsMax: 60,
  })
  fc.assert(
    fc.property(history, (records) => {
      for (const side of [plain, kernel]) side.open(epoch)
      for (const record of records) {
        const { frame, verdicts } = frameOf(record)
        expect(kernel.apply(frame, record.sequence, verdicts)).toEqual(plain.apply(frame, record.sequence, verdicts))
        expect(kernel.seriesTouched).toBe(plain.seriesTouched)
        expect(kernel.bytes).toBe(plain.bytes)
      }
      expect(kernel.drain()).toEqual(plain.drain())
      epoch += 1
    }),
    { numRuns: 1_000 },
  )
})

test('values and times at every bound => the same bytes', () => {
  const [plain, kernel] = openBoth(1_000)
  const values = [0n, 1n, -1n, 2n ** 32n, 2n ** 32n - 1n, -(2n ** 32n), 2n ** 33n, SCALED_MAX, -SCALED_MAX, 10n ** 9n]
  const minute = Math.floor(RECEIVED_AT / 60_000) * 60_000
  const times = [
    0,
    1,
    59_999,
    60_000,
    minute - 1,
    minute,
    minute + 1,
    minute + 59_999,
    minute + 899_999,
    4_102_444_800_000,
  ]
  const events: TestEvent[] = []
  for (const metric of metrics) {
    for (const value of values) {
      for (const eventTime of times) {
        for (const kind of ['usage', 'usage', 'void'] as const) {
          const member = metric.aggregation === 'unique' ? 'm'.repeat(1 + (events.length % 40)) : ''
          events.push(eventOf({ metric, value, eventTime, kind, member, id: `${events.length}` }))
        }
      }
    }
  }
  for (const side of [plain, kernel]) side.open(9)
  for (let i = 0; i < 20; i += 1) {
    // Large sums: the same values again and again, in another order.
    const all = i % 2 === 0 ? events : events.toReversed()
    const { frame, verdicts } = frameOf({ sequence: 2 ** 38 + i, receivedAt: RECEIVED_AT, events: all })
    for (const side of [plain, kernel]) side.apply(frame, 2 ** 38 + i, verdicts)
  }
  expect(kernel.drain()).toEqual(plain.drain())
})

test('many series, minutes and members over several epochs, chunks of many blocks => the same bytes', () => {
  const [plain, kernel] = openBoth(20_000)
  let state = 1
  const next = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const given = new Set<SharedArrayBuffer>()
  const lent: { buffer: SharedArrayBuffer; bytes: Uint8Array }[] = []
  for (let epoch = 1; epoch < 4; epoch += 1) {
    for (const side of [plain, kernel]) side.open(epoch)
    for (let sequence = 0; sequence < 30; sequence += 1) {
      const events = Array.from({ length: 2_000 }, (_, i) => {
        const metric = metrics[next(metrics.length)]!
        return eventOf({
          metric,
          tenant: `tenant-${next(20)}`,
          subject: `${'s'.repeat(next(60))}${next(500)}`,
          dims: `{"region":"${'r'.repeat(next(100))}"}`,
          source: next(3) === 0 ? 'gw' : '',
          id: `${sequence}-${i}`,
          eventTime: RECEIVED_AT - next(epoch * 10_000_000),
          value: BigInt(next(2 ** 31)),
          member: metric.aggregation === 'unique' ? `u${next(300)}` : '',
          verdict:
            next(10) === 0 ? ShardVerdict.duplicate : next(100) === 0 ? ShardVerdict.conflict : ShardVerdict.accepted,
        })
      })
      const { frame, verdicts } = frameOf({ sequence, receivedAt: RECEIVED_AT, events })
      expect(kernel.apply(frame, sequence, verdicts)).toEqual(plain.apply(frame, sequence, verdicts))
    }
    const [one, other] = [plain.drain(), kernel.drain()]
    expect(other.overrides).toEqual(one.overrides)
    expect(other.windows).toEqual(one.windows)
    expect(other.chunks.map(({ pieces: _, ...rest }) => rest)).toEqual(one.chunks.map(({ pieces: _, ...rest }) => rest))
    for (const [i, chunk] of one.chunks.entries()) {
      const { pieces } = other.chunks[i]!
      expect(Buffer.concat(chunk.pieces).equals(Buffer.concat(pieces))).toBe(true)
      const isShared = chunk.table === 'usage_events'
      for (const { buffer, byteOffset, length } of pieces) {
        expect([buffer instanceof SharedArrayBuffer, byteOffset]).toEqual([isShared, 0])
        if (!isShared) expect(buffer.byteLength).toBe(length)
      }
    }
    expect(one.chunks.length).toBeGreaterThan(6)
    // What the archive's thread still reads is not written again; what came back is.
    for (const { buffer, bytes } of lent) expect(Buffer.compare(new Uint8Array(buffer), bytes)).toBe(0)
    const buffers = other.chunks
      .filter(({ table }) => table === 'usage_events')
      .flatMap(({ pieces }) => pieces.map(({ buffer }) => buffer as SharedArrayBuffer))
    expect(buffers.length).toBeGreaterThan(4)
    const back = buffers.filter((_, i) => i % 2 === 0)
    if (epoch > 1) expect(buffers.filter((buffer) => given.has(buffer)).length).toBeGreaterThan(2)
    for (const buffer of buffers) given.delete(buffer)
    for (const buffer of back) given.add(buffer)
    lent.push(
      ...buffers
        .filter((_, i) => i % 2 === 1)
        .map((buffer) => ({ buffer, bytes: Buffer.from(new Uint8Array(buffer)) })),
    )
    kernel.giveBack(back)
  }
})

test('refusals, conflicts and empty epochs => the same bytes', () => {
  const [plain, kernel] = openBoth(2)
  const refusal = {
    index: 4,
    code: 'malformed',
    field: 'f',
    message: 'm',
    tenant: 't',
    source: '',
    id: 'é',
    metric: '',
    raw: '{',
  } as const
  for (let epoch = 1; epoch < 5; epoch += 1) {
    for (const side of [plain, kernel]) side.open(epoch)
    const head = { receivedAt: RECEIVED_AT, floorTime: 0, catalogVersion: 1 }
    const events = Array.from({ length: epoch - 1 }, (_, i) => eventOf({ metric: metrics[0]!, id: `${i}` }))
    const frame = decodeFrame(encodeFrame(head, events, epoch % 2 === 0 ? [refusal, refusal, refusal] : []))
    const verdicts = Uint8Array.from(events, (_, i) => (i === 0 ? ShardVerdict.conflict : ShardVerdict.accepted))
    for (const side of [plain, kernel]) side.apply(frame, epoch, verdicts)
    expect(kernel.drain()).toEqual(plain.drain())
  }
})

test('bytes that are not a whole frame => the kernel says so and goes on', () => {
  const [, kernel] = openBoth(100)
  kernel.open(1)
  const { frame, verdicts } = frameOf({
    sequence: 1,
    receivedAt: RECEIVED_AT,
    events: metrics.map((metric) => eventOf({ metric })),
  })
  for (let at = 0; at < frame.bytes.length; at += 1) {
    const bytes = Uint8Array.from(frame.bytes)
    bytes[at]! ^= 0xff
    try {
      kernel.apply({ ...frame, bytes }, 1, verdicts)
    } catch (error) {
      expect((error as Error).message).toContain('BUG')
    }
  }
  kernel.drain()
  const [plain] = openBoth(100)
  plain.open(2)
  kernel.open(2)
  plain.apply(frame, 1, verdicts)
  kernel.apply(frame, 1, verdicts)
  expect(kernel.drain()).toEqual(plain.drain())
})
