/**
 * Aggregate against an oracle written the other way round: all accepted events in one list, grouped and recomputed from the
 * events, instead of accumulated. Then order, splitting into frames, and bounds.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type EpochRows, openAggregate } from '../../src/aggregate/aggregate.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { eventOf, frameOf, histories, metricOf, type TestEvent, type TestRecord, testMemberHash } from './event-list.js'

const START = Date.UTC(2026, 2, 10)
const metrics = [
  metricOf('calls', 'count'),
  metricOf('tokens', 'sum', 0),
  metricOf('tokens', 'sum', 9, 2),
  metricOf('gauge', 'latest', 3),
  metricOf('peak', 'max', 2),
  metricOf('low', 'min', 2),
  metricOf('mean', 'average', 4),
  metricOf('users', 'unique'),
]
const history = histories({
  metrics,
  start: START,
  stepMsMax: 90_000,
  lateMs: 150_000,
  aheadMs: 150_000,
  valueMax: 10n ** 18n,
})

function aggregate(records: readonly TestRecord[]): EpochRows {
  const room = openAggregate(testMemberHash)
  for (const record of records) {
    const { frame, verdicts } = frameOf(record)
    room.apply(frame, record.sequence, verdicts)
  }
  return room.drain()
}

interface Placed {
  readonly event: TestEvent
  readonly position: number
}

const accepted = (records: readonly TestRecord[]): Placed[] =>
  records.flatMap(({ sequence, events }) =>
    events.flatMap((event, i) => (event.verdict === 0 ? [{ event, position: sequence * 2 ** 14 + i }] : [])),
  )

function grouped<T>(items: readonly T[], key: (item: T) => unknown): T[][] {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const text = JSON.stringify(key(item))
    groups.set(text, [...(groups.get(text) ?? []), item])
  }
  return [...groups.values()]
}

const at9 = ({ value, metric }: TestEvent): bigint => value * 10n ** BigInt(9 - metric.scale)
const seriesOf = ({ tenant, metric, subject, dims }: TestEvent) => ({ tenant, metric: metric.key, subject, dims })
const sum = (values: readonly bigint[]): bigint => values.reduce((a, b) => a + b, 0n)

/** Groups come out in the order of their first event: the first-touch order. */
function oracle(records: readonly TestRecord[]) {
  const events = accepted(records)
  const window = ({ eventTime }: TestEvent): number => eventTime - (eventTime % 60_000)
  const bucket = ({ eventTime }: TestEvent): number => eventTime - (eventTime % 900_000)
  const sign = ({ kind }: TestEvent): bigint => (kind === 'void' ? -1n : 1n)
  const minutes = grouped(events, ({ event }) => [seriesOf(event), window(event)]).map((group) => {
    const usages = group.filter(({ event }) => event.kind === 'usage')
    const values = usages.map(({ event }) => at9(event)).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
    const newest = usages.toSorted((a, b) => a.event.eventTime - b.event.eventTime || a.position - b.position).at(-1)
    const first = group[0]!.event
    return {
      series: seriesOf(first),
      window: window(first),
      sum: sum(group.map(({ event }) => sign(event) * at9(event))),
      count: Number(sum(group.map(({ event }) => sign(event)))),
      samples: usages.length,
      min: values[0] ?? 0n,
      max: values.at(-1) ?? 0n,
      last: newest === undefined ? 0n : at9(newest.event),
      lastTime: newest?.event.eventTime ?? 0,
      lastPosition: newest?.position ?? 0,
      sumVt: sum(group.map(({ event }) => sign(event) * at9(event) * BigInt(event.eventTime % 60_000))),
      override: 0,
    }
  })
  const unique = events.filter(({ event }) => event.metric.aggregation === 'unique')
  const members = grouped(unique, ({ event }) => [seriesOf(event), event.member, bucket(event)]).map((group) => ({
    series: seriesOf(group[0]!.event),
    member: Buffer.from(testMemberHash(group[0]!.event.tenant, Buffer.from(group[0]!.event.member))).toString('hex'),
    bucket: bucket(group[0]!.event),
    n: Number(sum(group.map(({ event }) => sign(event)))),
  }))
  const extremes = new Set(['max', 'min', 'latest'])
  const voids = events.filter(({ event }) => event.kind === 'void' && extremes.has(event.metric.aggregation))
  const overrides = grouped(voids, ({ event }) => [seriesOf(event), window(event)]).map(([first]) => ({
    series: seriesOf(first!.event),
    window: window(first!.event),
  }))
  return { minutes, members, overrides }
}

const keyOf = ({ tenant, metric, subject, dims }: EpochRows['minutes'][number]['series']) => ({
  tenant,
  metric,
  subject,
  dims,
})

const plain = (rows: EpochRows) => ({
  minutes: rows.minutes.map((row) => ({ ...row, series: keyOf(row.series) })),
  members: rows.members.map((row) => ({
    ...row,
    series: keyOf(row.series),
    member: Buffer.from(row.member, 'latin1').toString('hex'),
  })),
  overrides: rows.overrides,
})

test('any history => the rows are those recomputed from the list of its events, in first-touch order', () => {
  fc.assert(
    fc.property(history, (records) => {
      expect(plain(aggregate(records))).toEqual(oracle(records))
    }),
    { numRuns: 400 },
  )
}, 60_000)

test('the same events in other frames => the same rows, but for positions', () => {
  const cut = fc.tuple(history, fc.infiniteStream(fc.integer({ min: 1, max: 5 })))
  fc.assert(
    fc.property(cut, ([records, sizes]) => {
      const events = records.flatMap((record) => record.events)
      const others: TestRecord[] = []
      for (let at = 0; at < events.length; ) {
        const size = sizes.next().value as number
        others.push({ sequence: others.length + 1, receivedAt: START, events: events.slice(at, at + size) })
        at += size
      }
      const unplaced = (rows: EpochRows) => {
        const { minutes, ...rest } = plain(rows)
        return { ...rest, minutes: minutes.map((row) => ({ ...row, lastPosition: 0 })) }
      }
      expect(unplaced(aggregate(others))).toEqual(unplaced(aggregate(records)))
    }),
    { numRuns: 200 },
  )
}, 60_000)

test('an epoch cut in two => the parts add up to the whole', () => {
  fc.assert(
    fc.property(history, fc.nat(12), (records, at) => {
      const room = openAggregate(testMemberHash)
      const parts = [records.slice(0, at), records.slice(at)].flatMap((part) => {
        for (const record of part) {
          const { frame, verdicts } = frameOf(record)
          room.apply(frame, record.sequence, verdicts)
        }
        return plain(room.drain()).minutes
      })
      const added = grouped(parts, ({ series, window }) => [series, window]).map((rows) => ({
        sum: sum(rows.map((row) => row.sum)),
        count: rows.reduce((n, row) => n + row.count, 0),
        samples: rows.reduce((n, row) => n + row.samples, 0),
        sumVt: sum(rows.map((row) => row.sumVt)),
      }))
      const whole = oracle(records).minutes.map(({ sum, count, samples, sumVt }) => ({ sum, count, samples, sumVt }))
      expect(added).toEqual(whole)
    }),
    { numRuns: 100 },
  )
}, 60_000)

test('the largest values at scale 0, a whole epoch of them at the end of a minute => exact, and within Decimal(38,9)', () => {
  const metric = metricOf('tokens', 'sum', 0)
  const eventTime = START + 59_999
  const events = Array.from({ length: 10_000 }, (_, i) => eventOf({ metric, id: `${i}`, eventTime, value: 10n ** 18n }))
  const room = openAggregate(testMemberHash)
  const { frame, verdicts } = frameOf({ sequence: 1, receivedAt: START, events })
  const frames = limits.epochEventsMax / events.length
  for (let sequence = 1; sequence <= frames; sequence += 1) room.apply(frame, sequence, verdicts)
  const [row] = room.drain().minutes
  expect(row!.sum).toBe(5n * 10n ** 32n)
  expect(row!.sumVt).toBe(5n * 10n ** 32n * 59_999n)
  expect(row!.sumVt < 10n ** 38n).toBe(true)
  expect(row!.count).toBe(limits.epochEventsMax)
})

test('two events of one millisecond, applied in any order of records => the later place in the log is the last', () => {
  const metric = metricOf('gauge', 'latest')
  const one = {
    sequence: 1,
    receivedAt: START,
    events: [eventOf({ metric, value: 1n }), eventOf({ metric, value: 2n })],
  }
  const two = { sequence: 2, receivedAt: START, events: [eventOf({ metric, value: 3n })] }
  expect(aggregate([one, two]).minutes[0]!.last).toBe(3_000_000_000n)
  expect(aggregate([two, one]).minutes[0]!.last).toBe(3_000_000_000n)
  expect(aggregate([one]).minutes[0]!.last).toBe(2_000_000_000n)
})

test('a version with another scale => the same row, at nine decimals', () => {
  const events = [
    eventOf({ metric: metricOf('tokens', 'sum', 0, 1), value: 2n }),
    eventOf({ metric: metricOf('tokens', 'sum', 3, 2), value: 500n }),
  ]
  const { minutes } = aggregate([{ sequence: 1, receivedAt: START, events }])
  expect(minutes.map((row) => row.sum)).toEqual([2_500_000_000n])
})

test(`drained => nothing is held, and the counters that bound an epoch begin at zero ${promises('system:bounded')}`, () => {
  const room = openAggregate(testMemberHash)
  const metric = metricOf('users', 'unique')
  const events = Array.from({ length: 50 }, (_, i) =>
    eventOf({ metric, subject: `${i % 10}`, member: `m${i}`, id: `${i}` }),
  )
  const { frame, verdicts } = frameOf({ sequence: 1, receivedAt: START, events })
  for (const sequence of [1, 2, 3]) {
    room.apply(frame, sequence, verdicts)
    expect([room.seriesTouched, room.rows]).toEqual([10, 60])
    room.drain()
    expect([room.seriesTouched, room.rows]).toEqual([0, 0])
    expect(room.drain()).toEqual({ minutes: [], members: [], overrides: [] })
  }
})

test('an epoch of overrides => their keys are plain and carry no rows to another thread', () => {
  const metric = metricOf('peak', 'max')
  const usage = eventOf({ metric, value: 5n })
  const { overrides } = aggregate([{ sequence: 1, receivedAt: START, events: [usage, { ...usage, kind: 'void' }] }])
  expect(structuredClone(overrides)).toStrictEqual([
    { series: { tenant: 'acme', metric: 'peak', subject: '', dims: '{}' }, window: Date.UTC(2026, 2, 10, 9, 15) },
  ])
})
