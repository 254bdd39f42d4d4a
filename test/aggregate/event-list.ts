/**
 * For tests of the shard's rooms: a short form of events, frames out of it, and fast-check's way to make histories of them.
 *
 * A history is what the log holds: records with rising sequences, each with events, receivedAt and a verdict per event. A void
 * follows the usage that it takes back and has its content, as the door and dedupe guarantee.
 */
import fc from 'fast-check'
import type { Aggregation, Metric } from '../../src/catalog/metric.js'
import type { UsageEvent } from '../../src/event.js'
import { decodeFrame, encodeFrame, type Frame } from '../../src/frame.js'
import { ShardVerdict } from '../../src/ingest/verdict.js'

export interface TestEvent {
  readonly tenant: string
  readonly source: string
  readonly id: string
  readonly metric: Metric
  readonly subject: string
  readonly eventTime: number
  readonly value: bigint
  readonly dims: string
  readonly member: string
  readonly kind: 'usage' | 'void'
  readonly verdict: ShardVerdict
}

export interface TestRecord {
  readonly sequence: number
  readonly receivedAt: number
  readonly events: readonly TestEvent[]
}

export function metricOf(key: string, aggregation: Aggregation, scale = 0, version = 1, archive = true): Metric {
  const uniqueBy = aggregation === 'unique' ? 'user' : null
  return { key, version, aggregation, unit: 'unit', scale, dims: [], uniqueBy, archive }
}

export function eventOf(part: Partial<TestEvent> & Pick<TestEvent, 'metric'>): TestEvent {
  return {
    tenant: 'acme',
    source: '',
    id: 'id',
    subject: '',
    eventTime: Date.UTC(2026, 2, 10, 9, 15, 0, 123),
    value: 1n,
    dims: '{}',
    member: '',
    kind: 'usage',
    verdict: ShardVerdict.accepted,
    ...part,
  }
}

export function frameOf(record: TestRecord): { frame: Frame; verdicts: Uint8Array } {
  const head = { receivedAt: record.receivedAt, floorTime: 0, catalogVersion: 1 }
  const events: UsageEvent[] = record.events.map(({ verdict: _, ...event }) => event)
  return {
    frame: decodeFrame(encodeFrame(head, events, [])),
    verdicts: Uint8Array.from(record.events, (event) => event.verdict),
  }
}

/** Not keyed and not good: the shard's real hash is dedupe's. Tenant and member both matter, as with the real one. */
export function testMemberHash(tenant: string, member: Uint8Array): Uint8Array {
  const hash = new Uint8Array(16)
  let state = 0x811c9dc5
  const mix = (byte: number, at: number): void => {
    state = Math.imul(state ^ byte, 0x01000193) >>> 0
    hash[at % 16]! ^= state >>> 11
  }
  Buffer.from(tenant).forEach(mix)
  Buffer.from(member).forEach((byte, at) => {
    mix(byte, at + 7)
  })
  for (let at = 0; at < 16; at += 1) mix(at, at)
  return hash
}

export interface HistoryOptions {
  readonly metrics: readonly Metric[]
  readonly tenants?: readonly string[]
  /** Times of the first record and between two. */
  readonly start: number
  readonly stepMsMax: number
  /** eventTime lies in [receivedAt − lateMs, receivedAt + aheadMs]. */
  readonly lateMs: number
  readonly aheadMs: number
  readonly valueMax: bigint
  readonly voids?: boolean
  readonly eventsMax?: number
}

/** Histories of up to a dozen records. Few names and values, so that series, windows and members meet. */
export function histories(options: HistoryOptions): fc.Arbitrary<TestRecord[]> {
  const { metrics, tenants = ['acme', 'zeta'], lateMs, aheadMs, valueMax, voids = true, eventsMax = 12 } = options
  const draft = fc.record({
    tenant: fc.constantFrom(...tenants),
    metric: fc.constantFrom(...metrics),
    subject: fc.constantFrom('', 'a', 'é', 'a\0{}'),
    dims: fc.constantFrom('{}', '{"a":"1"}', '{"a":"\\u0000"}'),
    age: fc.integer({ min: -aheadMs, max: lateMs }),
    value: fc.oneof(fc.bigInt({ min: -3n, max: 3n }), fc.bigInt({ min: -valueMax, max: valueMax })),
    member: fc.constantFrom('u1', 'u2', 'u3', 'ü'),
    verdict: fc.constantFrom(0, 0, 0, 0, 1, 2) as fc.Arbitrary<ShardVerdict>,
    // Takes back an earlier accepted usage instead of being one.
    takesBack: voids ? fc.option(fc.nat(1000), { freq: 5, nil: null }) : fc.constant(null),
  })
  return fc
    .array(fc.record({ step: fc.nat(options.stepMsMax), drafts: fc.array(draft, { maxLength: eventsMax }) }), {
      maxLength: 12,
    })
    .map((parts) => {
      let receivedAt = options.start
      let open: TestEvent[] = []
      return parts.map(({ step, drafts }, index): TestRecord => {
        receivedAt += step
        // The door refuses a void by its age, as any event.
        open = open.filter(({ eventTime }) => eventTime >= receivedAt - lateMs)
        const events = drafts.map((d, place): TestEvent => {
          if (d.takesBack !== null && open.length > 0 && d.verdict === ShardVerdict.accepted) {
            const [usage] = open.splice(d.takesBack % open.length, 1)
            return { ...usage!, kind: 'void' }
          }
          const { tenant, metric, subject, dims, verdict } = d
          const event: TestEvent = {
            ...{ tenant, metric, subject, dims, verdict, source: '', kind: 'usage' },
            id: `${index}-${place}`,
            eventTime: receivedAt - d.age,
            value: d.value,
            member: metric.aggregation === 'unique' ? d.member : '',
          }
          if (verdict === ShardVerdict.accepted && metric.archive) open.push(event)
          return event
        })
        return { sequence: index + 1, receivedAt, events }
      })
    })
}
