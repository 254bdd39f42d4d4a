/**
 * The catalogue and the request that the tests of the door share, and short ways to ask it. Every metric is there for one rule:
 * its key says which.
 */
import type { CatalogSnapshot, Metric } from '../../src/catalog/metric.js'
import { decodeFrame, type Frame, frameRefusals } from '../../src/frame.js'
import { type BodyFormat, buildDoor, type IngestRequest, type Judged, judge } from '../../src/ingest/ingest.js'
import type { Refusal } from '../../src/ingest/verdict.js'

export const RECEIVED_AT = Date.UTC(2026, 2, 10, 12)
export const FLOOR_TIME = RECEIVED_AT - 34 * 86_400_000
export const AHEAD_MS = 86_400_000
export const STREAMS = 4

function metric(key: string, over: Partial<Metric> = {}): Metric {
  return {
    key,
    version: 1,
    aggregation: 'sum',
    unit: 'document',
    scale: 3,
    dims: ['plan', 'region'],
    uniqueBy: null,
    archive: true,
    ...over,
  }
}

export const snapshot: CatalogSnapshot = {
  version: 7,
  metrics: [
    metric('kyc'),
    metric('calls', { aggregation: 'count', scale: 0, dims: [] }),
    metric('users', { aggregation: 'unique', scale: 0, dims: ['region'], uniqueBy: 'user' }),
    metric('lines', { aggregation: 'unique', scale: 0, dims: [], uniqueBy: 'subject' }),
    metric('live', { archive: false, dims: [] }),
    metric('wide', { dims: Array.from({ length: 16 }, (_, i) => `d${String(i).padStart(2, '0')}`) }),
    metric('io.cloudevents.test', { dims: [] }),
  ],
  tenants: ['acme', 'banque', 'café-crème', 'd'],
}

export const door = buildDoor(snapshot, STREAMS)

export interface Asked extends Judged {
  /** The decoded frames, by part. */
  readonly frames: readonly Frame[]
}

export function ask(body: string | Uint8Array, over: Partial<IngestRequest> = {}): Asked {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  const request = {
    format: 'json' as BodyFormat,
    tenant: 'acme',
    receivedAt: RECEIVED_AT,
    floorTime: FLOOR_TIME,
    aheadMs: AHEAD_MS,
    ...over,
  }
  const judged = judge(door, bytes, request)
  return { ...judged, frames: judged.parts.map((part) => decodeFrame(part.frame)) }
}

/** The one refusal of a body with one event; it is in the frame as well. */
export function refusal(body: string | Uint8Array, over: Partial<IngestRequest> = {}): Refusal {
  const asked = ask(body, over)
  const first = asked.refusals[0]
  if (asked.received !== 1 || first === undefined) throw new Error(`${asked.stored} stored, ${asked.refused} refused`)
  const inFrame = frameRefusals(asked.frames[0]!)
  if (JSON.stringify(inFrame) !== JSON.stringify([first])) throw new Error('the frame has another refusal')
  return first
}

/** An event of a frame, spelled out. */
export function eventAt(frame: Frame, i: number) {
  const series = frame.series[frame.seriesOf[i]!]!
  const origin = frame.origins[frame.originOf[i]!]!
  const text = (bytes: Uint8Array, ends: Uint32Array): string =>
    Buffer.from(bytes.subarray(i === 0 ? 0 : ends[i - 1]!, ends[i]!)).toString()
  return {
    tenant: series.tenant,
    originTenant: origin.tenant,
    source: origin.source,
    id: text(frame.ids, frame.idEnds),
    metric: frame.metrics[series.metric]!.key,
    subject: series.subject,
    eventTime: frame.times[i]!,
    value: frame.values[i]!,
    dims: series.dims,
    member: text(frame.members, frame.memberEnds),
    kind: frame.kinds[i] === 1 ? 'void' : 'usage',
  }
}

/** The one stored event of a body with one event. */
export function stored(body: string | Uint8Array, over: Partial<IngestRequest> = {}) {
  const asked = ask(body, over)
  if (asked.received !== 1 || asked.stored !== 1) throw new Error(`refused: ${JSON.stringify(asked.refusals)}`)
  return eventAt(asked.frames[0]!, 0)
}
