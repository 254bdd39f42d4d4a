import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { parseQuantity } from '../../src/amount.js'
import { canonicalDims, type UsageEvent } from '../../src/event.js'
import { decodeFrame, encodeFrame, frameRefusals } from '../../src/frame.js'
import { RefusalCode } from '../../src/ingest/verdict.js'
import { ask, eventAt, FLOOR_TIME, RECEIVED_AT, snapshot } from './door.js'

// Much data, on a machine that other tests use as well.
vi.setConfig({ testTimeout: 60_000 })

const text = fc.string({ unit: 'grapheme', maxLength: 20 })
const events: fc.Arbitrary<UsageEvent> = fc.record({
  tenant: fc.constantFrom('acme', 'banque', ''),
  source: fc.constantFrom('', 'gw', 'acme'),
  id: text,
  metric: fc.constantFrom(...snapshot.metrics),
  subject: fc.oneof(fc.constantFrom('', 's', 'é'), text),
  eventTime: fc.integer({ min: -8.64e15, max: 8.64e15 }),
  value: fc.bigInt({ min: -(10n ** 18n), max: 10n ** 18n }),
  dims: fc.array(fc.tuple(text, text), { maxLength: 3 }).map((dims) => canonicalDims(new Map(dims))),
  member: text,
  kind: fc.constantFrom('usage' as const, 'void' as const),
})
const refusals = fc.record({
  index: fc.nat(),
  code: fc.constantFrom(...RefusalCode),
  field: text,
  message: text,
  tenant: text,
  source: text,
  id: text,
  metric: text,
  raw: text,
})

test('any events and refusals => the frame gives them back, one for one', () => {
  const head = { receivedAt: RECEIVED_AT, floorTime: FLOOR_TIME, catalogVersion: 7 }
  fc.assert(
    fc.property(
      fc.array(events, { maxLength: 30 }),
      fc.array(refusals, { maxLength: 3 }),
      fc.nat(9),
      (all, bad, shift) => {
        const bytes = encodeFrame(head, all, bad)
        // Also from a place that is not aligned.
        const moved = new Uint8Array(bytes.length + shift)
        moved.set(bytes, shift)
        const frame = decodeFrame(moved.subarray(shift))
        expect(frame).toMatchObject({ ...head, events: all.length, refusals: bad.length })
        expect(frameRefusals(frame)).toEqual(bad)
        for (const [i, event] of all.entries()) {
          expect(eventAt(frame, i)).toEqual({ ...event, metric: event.metric.key, originTenant: event.tenant })
          const { key, version, scale, aggregation, archive } = event.metric
          expect(frame.metrics[frame.series[frame.seriesOf[i]!]!.metric]).toEqual({
            key,
            version,
            scale,
            aggregation,
            archive,
          })
        }
      },
    ),
  )
})

/** Text that the door lets in: short, not empty, no control characters, well formed. */
const name = fc
  .oneof(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 }), fc.stringMatching(/^[a-z0-9"\\/ -]{1,12}$/))
  .filter((one) => !/\p{Cc}/u.test(one))
const sent = fc.record(
  {
    id: name,
    source: name,
    tenant: fc.constantFrom('acme', 'banque', 'café-crème', 'd'),
    metric: fc.constantFrom('kyc', 'calls', 'users', 'live', 'wide'),
    subject: name,
    time: fc.integer({ min: FLOOR_TIME, max: RECEIVED_AT }),
    value: fc
      .tuple(fc.integer({ min: -1e9, max: 1e9 }), fc.integer({ min: 0, max: 999 }))
      .map(([a, b]) => `${a}.${String(b).padStart(3, '0')}`),
    region: name,
    plan: fc.oneof(name, fc.boolean(), fc.integer()),
    user: name,
    d03: name,
    d01: name,
    kind: fc.constantFrom('usage', 'void'),
  },
  { requiredKeys: ['id', 'source', 'tenant', 'metric', 'user'] },
)

test('the same event as native JSON and as a CloudEvent, its members in any order => the same frame', () => {
  fc.assert(
    fc.property(fc.array(sent, { minLength: 1, maxLength: 10 }), fc.infiniteStream(fc.nat()), (all, order) => {
      const shuffled = (object: Record<string, unknown>): Record<string, unknown> => {
        const entries = Object.entries(object).filter(([, value]) => value !== undefined)
        return Object.fromEntries(
          entries
            .map((entry) => [order.next().value as number, entry] as const)
            .sort(([a], [b]) => a - b)
            .map(([, entry]) => entry),
        )
      }
      const native: unknown[] = []
      const clouds: unknown[] = []
      for (const event of all) {
        const { id, source, tenant, metric, subject, value } = event
        const time = event.time === undefined ? undefined : new Date(event.time).toISOString()
        // A void is refused without an archive, and without a time.
        const kind = metric === 'live' || time === undefined ? undefined : event.kind
        const named: Record<string, unknown> = {}
        const known = snapshot.metrics.find((one) => one.key === metric)!
        for (const dim of [...known.dims, ...(known.uniqueBy === 'user' ? ['user'] : [])]) {
          named[dim] = (event as Record<string, unknown>)[dim]
        }
        native.push(
          shuffled({ id, source, tenant, metric, subject, time: event.time, value, kind, dims: shuffled(named) }),
        )
        const data = shuffled({ ...named, value, other: [1] })
        clouds.push(shuffled({ specversion: '1.0', id, source, type: metric, tenant, subject, time, kind, data }))
      }
      const one = ask(JSON.stringify(native), { tenant: null })
      const other = ask(JSON.stringify(clouds), { tenant: null, format: 'cloudevents-batch' })
      expect(one.refusals).toEqual([])
      expect(other.refusals).toEqual([])
      expect(other.parts).toEqual(one.parts)

      // And both are what the event says.
      for (const [p, part] of one.parts.entries()) {
        for (const [i, index] of part.indices.entries()) {
          const event = all[index]!
          const metric = snapshot.metrics.find((m) => m.key === event.metric)!
          const dims = metric.dims.flatMap((dim): [string, string][] => {
            const value = (event as Record<string, unknown>)[dim]
            return value === undefined ? [] : [[dim, String(value)]]
          })
          const counts = metric.aggregation === 'count' || metric.aggregation === 'unique'
          expect(eventAt(one.frames[p]!, i)).toEqual({
            tenant: event.tenant,
            originTenant: event.tenant,
            source: event.source,
            id: event.id,
            metric: event.metric,
            subject: event.subject ?? '',
            eventTime: event.time ?? RECEIVED_AT,
            value: counts ? 1n : parseQuantity(event.value ?? '1', metric.scale),
            dims: canonicalDims(dims),
            member: event.metric === 'users' ? event.user : '',
            kind: event.metric === 'live' || event.time === undefined ? 'usage' : (event.kind ?? 'usage'),
          })
        }
      }
    }),
    { numRuns: 500 },
  )
})
