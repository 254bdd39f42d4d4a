/**
 * UsageEvent: the one shape that travels from the door to the frame. Any format in gives the same event and the same identity.
 *
 * Identity is (tenant, source, id). Of the four times an event carries two: `eventTime` (happened) and, with its record,
 * `receivedAt` (reached us).
 */
import type { Metric } from './catalog/metric.js'

export interface UsageEvent {
  readonly tenant: string
  /** Default empty. */
  readonly source: string
  readonly id: string
  readonly metric: Metric
  /** Device, line, contract item; may be empty. */
  readonly subject: string
  /** Epoch milliseconds. */
  readonly eventTime: number
  /** value × 10^metric.scale, within ±SCALED_MAX. */
  readonly value: bigint
  /** Canonical: JSON with sorted names, no blanks, string values; `{}` when there are none. */
  readonly dims: string
  /** What a `unique` metric counts once; empty for every other metric. */
  readonly member: string
  /** The sender gave no time: eventTime is when it came, so a retry has another one and is a duplicate all the same. */
  readonly untimed?: boolean
  /** A void takes back the event of the same identity and content. */
  readonly kind: 'usage' | 'void'
}

/** Canonical text of dimensions: the same for every order in which they came. */
export function canonicalDims(dims: Iterable<readonly [name: string, value: string]>): string {
  const sorted = [...dims].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  return `{${sorted.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`
}

/**
 * The stream of a tenant: FNV-1a 32 over its UTF-8 bytes, modulo the streams. The same function as nats-server's
 * `{{partition(n,1)}}`, so that a broker may choose the stream.
 */
export function streamOf(tenant: string, streams: number): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < tenant.length; i += 1) {
    const unit = tenant.charCodeAt(i)
    // Bytes and UTF-16 units are the same in ASCII only; a buffer for each tenant costs four times as much.
    if (unit > 0x7f) return streamOfBytes(Buffer.from(tenant, 'utf8'), streams)
    hash = Math.imul(hash ^ unit, 0x01000193)
  }
  return (hash >>> 0) % streams
}

function streamOfBytes(bytes: Uint8Array, streams: number): number {
  let hash = 0x811c9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  return (hash >>> 0) % streams
}

/** Position of an event: exact as a number below 2^53. */
export function positionOf(sequence: number, index: number): number {
  return sequence * 16_384 + index
}
