/** The counts of one stream alone: records of the log teach them, what is not known yet refuses nobody, and memory has a bound. */
import { expect, test } from 'vitest'
import type { Metric } from '../../src/catalog/metric.js'
import type { UsageEvent } from '../../src/event.js'
import { decodeFrame, encodeFrame, type Frame, frameRefusals } from '../../src/frame.js'
import { type Admitted, Cardinality, type CardinalityLimits } from '../../src/ingest/cardinality.js'
import { promises } from '../promises.js'

const metric: Metric = {
  key: 'data',
  version: 1,
  aggregation: 'sum',
  unit: 'piece',
  scale: 3,
  dims: ['region'],
  uniqueBy: null,
  archive: true,
}
const metrics = new Map([['data', { metric }]])
const MARCH = Date.UTC(2026, 2, 10)
const none: CardinalityLimits = { metrics: null, subjects: null, series: null, dimValues: null }

const event = (subject: string, over: Partial<UsageEvent> = {}): UsageEvent => ({
  tenant: 'acme',
  source: 'gw',
  id: `id ${subject}`,
  metric,
  subject,
  eventTime: MARCH,
  untimed: false,
  value: 1_500n,
  dims: '{}',
  member: '',
  kind: 'usage',
  ...over,
})
const frameOf = (events: readonly UsageEvent[], receivedAt = MARCH): Frame =>
  decodeFrame(encodeFrame({ receivedAt, floorTime: 0, catalogVersion: 1 }, events, []))
const admit = (of: Cardinality, events: readonly UsageEvent[], receivedAt = MARCH): Admitted | null =>
  of.admit(frameOf(events, receivedAt), Uint32Array.from(events.keys()), metrics)
const withLimits = (of: Partial<CardinalityLimits>, namesMax?: number): Cardinality => {
  const cardinality = new Cardinality(namesMax)
  cardinality.setLimits(null, new Map([['acme', { ...none, ...of }]]))
  return cardinality
}

test('a frame beyond the limit => the same frame without these events, which are refusals with their whole text', () => {
  const cardinality = withLimits({ subjects: 1 })
  cardinality.complete()
  const admitted = admit(cardinality, [
    event('a', { dims: '{"region":"x"}' }),
    event('b', { dims: '{"region":"x"}' }),
    event('a'),
  ])!
  expect([...admitted.indices]).toEqual([0, 2])
  const frame = decodeFrame(admitted.frame)
  expect(frame.events).toBe(2)
  expect(frameRefusals(frame)).toEqual(admitted.refusals)
  const [refusal] = admitted.refusals
  expect(refusal).toMatchObject({ index: 1, code: 'too_many_subjects', field: 'subject', tenant: 'acme', id: 'id b' })
  expect(JSON.parse(refusal!.raw)).toEqual({
    id: 'id b',
    tenant: 'acme',
    source: 'gw',
    metric: 'data',
    subject: 'b',
    time: '2026-03-10T00:00:00.000Z',
    value: '1.5',
    dims: { region: 'x' },
  })
  // Nothing of what was kept has changed.
  expect(encodeFrame(frame, [event('a', { dims: '{"region":"x"}' }), event('a')], admitted.refusals)).toEqual(
    admitted.frame,
  )
  expect(admit(cardinality, [event('a')])).toBeNull()
})

test('records of the log, replayed after a start => what they name is known; of another month it is not', () => {
  const cardinality = withLimits({ subjects: 2 })
  cardinality.learnFrame(frameOf([event('february')], Date.UTC(2026, 1, 27)))
  cardinality.learnFrame(frameOf([event('a'), event('b')]))
  cardinality.complete()
  expect(cardinality.state('acme')).toMatchObject({ counts: { subjects: 2 }, month: '2026-03' })
  expect(admit(cardinality, [event('a'), event('b')])).toBeNull()
  expect(admit(cardinality, [event('february')])!.refusals).toHaveLength(1)
  // A record that arrived before the month and is applied late counts no more.
  cardinality.learnFrame(frameOf([event('late')], Date.UTC(2026, 1, 28)))
  expect(cardinality.state('acme').counts.subjects).toBe(2)
})

test('before the names of the month are known => an unknown one is told to come again, below the limit too', () => {
  const cardinality = withLimits({ subjects: 2 })
  cardinality.learnFrame(frameOf([event('a')]))
  const come = expect.objectContaining({ code: 'overloaded', retryAfterS: 1 })
  expect(admit(cardinality, [event('a')])).toBeNull()
  // It would be the second that is known, and the third of the month.
  expect(() => admit(cardinality, [event('b')])).toThrow(come)
  // What no limit counts needs no count.
  expect(admit(cardinality, [event('a', { dims: '{"region":"x"}' })])).toBeNull()
  cardinality.learn([{ tenant: 'acme', metric: 'data', subject: 'c', dims: '{}' }], MARCH)
  expect(admit(cardinality, [event('c')])).toBeNull()
  expect(() => admit(cardinality, [event('b')])).toThrow(come)
  cardinality.complete()
  expect(admit(cardinality, [event('b')])!.refusals).toHaveLength(1)
  expect(cardinality.state('acme').counts.subjects).toBe(2)
})

test('a limit that changes, and one of another tenant => who was known stays known', () => {
  const cardinality = withLimits({ subjects: 2 })
  cardinality.complete()
  const other = (subject: string): UsageEvent => ({ ...event(subject), tenant: 'beta' })
  expect(admit(cardinality, [event('a')])).toBeNull()
  const own = { ...none, subjects: 3 }
  cardinality.setLimits(
    null,
    new Map([
      ['acme', own],
      ['beta', own],
    ]),
  )
  expect(admit(cardinality, [event('b'), event('c')])).toBeNull()
  expect(() => admit(cardinality, [other('a')])).toThrow(expect.objectContaining({ code: 'overloaded' }))
  expect(cardinality.state('acme').complete).toBe(true)
  expect(cardinality.state('beta').complete).toBe(false)
  cardinality.complete()
  // A limit for everybody else is new for them.
  cardinality.setLimits(own, new Map([['acme', own]]))
  expect(cardinality.state('gamma').complete).toBe(false)
  // Without any limit there is nothing to know.
  cardinality.setLimits(null, new Map())
  expect(cardinality.state('gamma').complete).toBe(true)
})

test(`names without end => no more are held than the bound, and those that are there go on ${promises('system:bounded')}`, () => {
  const cardinality = withLimits({ series: 1_000_000 }, 1_000)
  cardinality.complete()
  const known = Array.from({ length: 1_000 }, (_, i) => ({
    tenant: 'acme',
    metric: 'data',
    subject: '',
    dims: `{"region":"${i}"}`,
  }))
  cardinality.learn(known, MARCH)
  const { series } = cardinality.state('acme').counts
  // A series is remembered by itself, by its dimensions, and by the value in them.
  expect(series).toBeGreaterThan(250)
  expect(series).toBeLessThan(500)
  expect(admit(cardinality, [event('', { dims: '{"region":"0"}' })])).toBeNull()
  expect(admit(cardinality, [event('', { dims: '{"region":"another"}' })])!.refusals).toMatchObject([
    { code: 'too_many_series', message: expect.stringContaining('cardinalityNamesMax') },
  ])
})
