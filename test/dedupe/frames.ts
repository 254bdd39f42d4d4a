/**
 * Frames for the tests of dedupe: events with defaults, made into the bytes that travel and read back as the shard reads them.
 */
import type { Metric } from '../../src/catalog/metric.js'
import type { UsageEvent } from '../../src/event.js'
import { decodeFrame, encodeFrame, type Frame } from '../../src/frame.js'

export const SECRET = Uint8Array.from({ length: 16 }, (_, i) => (i * 29 + 7) % 256)

export const KYC: Metric = {
  key: 'kyc_verification',
  version: 1,
  aggregation: 'sum',
  unit: 'document',
  scale: 2,
  dims: ['region'],
  uniqueBy: null,
  archive: true,
}

export function event(fields: Partial<UsageEvent> = {}): UsageEvent {
  return {
    tenant: 'acme',
    source: '',
    id: 'id-1',
    metric: KYC,
    subject: 'line-1',
    eventTime: 1_000,
    value: 100n,
    dims: '{"region":"ci"}',
    member: '',
    kind: 'usage',
    ...fields,
  }
}

export function frameOf(events: readonly UsageEvent[], receivedAt = 1_000, floorTime = 0): Frame {
  return decodeFrame(encodeFrame({ receivedAt, floorTime, catalogVersion: 1 }, events, []))
}
