/**
 * Frame: the payload of a log record. One request's part for one stream, columnar, written once at the door and read by the
 * shard, by recovery and by replay. It needs nothing but itself: scale, aggregation and version of each metric travel in it,
 * so a replay does not depend on the catalogue of today.
 *
 * Little-endian; every section starts on a multiple of 8.
 *
 *   header, 72 bytes
 *     0 u32 magic «FRM1»     4 u32 events          8 u32 metrics      12 u32 origins     16 u32 series
 *    20 u32 metric bytes    24 u32 origin bytes   28 u32 series bytes  32 u32 id bytes   36 u32 member bytes
 *    40 u32 refusal bytes   44 u32 refusals       48 u32 catalogue version              52 u32 reserved, 0
 *    56 f64 receivedAt      64 f64 floorTime
 *   metric table   per metric: u8 scale, u8 aggregation, u8 archive, u8 0, u32 version, u16 length, key
 *   origin table   per (tenant, source): u16 length, tenant, u16 length, source
 *   series table   per (tenant, metric, subject, dims): u32 metric, u16 tenant length, tenant, u16 length, subject, u32 length, dims
 *   times          f64 per event: eventTime, a whole number of milliseconds
 *   values         i64 per event: value × 10^scale
 *   series         u32 per event
 *   origins        u32 per event
 *   id ends        u32 per event: end of its id in the id bytes
 *   member ends    u32 per event
 *   kinds          u8 per event: bit 0 a void, bit 1 the sender gave no time (eventTime is the receivedAt of the first try)
 *   ids, members   UTF-8, one after the other
 *   refusals       UTF-8 JSON, an array of Refusal
 *
 * The reader trusts the writer: a frame is only ever read behind the checksum of its log record. The bounds are asserted all
 * the same, once per section and not per event.
 */
import { assert } from './assert.js'
import { Aggregation, type Metric } from './catalog/metric.js'
import type { UsageEvent } from './event.js'
import type { Refusal } from './ingest/verdict.js'

export interface FrameHead {
  readonly receivedAt: number
  /** The oldest eventTime that the door let in: receivedAt − L, or later when the dedupe window has shrunk. */
  readonly floorTime: number
  readonly catalogVersion: number
}

export interface FrameMetric {
  readonly key: string
  readonly version: number
  readonly scale: number
  readonly aggregation: Aggregation
  readonly archive: boolean
}

export interface FrameSeries {
  readonly tenant: string
  /** Index into `metrics`. */
  readonly metric: number
  readonly subject: string
  readonly dims: string
}

export interface FrameOrigin {
  readonly tenant: string
  readonly source: string
}

export interface Frame extends FrameHead {
  /** The whole of it; every view below is a part of this one. */
  readonly bytes: Uint8Array
  readonly events: number
  readonly metrics: readonly FrameMetric[]
  /** Decoded when first asked for, as `series` is: the kernel reads the bytes, and strings are most of the cost. */
  readonly origins: readonly FrameOrigin[]
  readonly series: readonly FrameSeries[]
  /** Index into `metrics` of each series: all of `series` that a balance needs. Read when first asked for. */
  readonly metricOf: Uint32Array
  readonly times: Float64Array
  readonly values: BigInt64Array
  readonly seriesOf: Uint32Array
  readonly originOf: Uint32Array
  readonly idEnds: Uint32Array
  readonly memberEnds: Uint32Array
  /** KIND_VOID, KIND_UNTIMED. */
  readonly kinds: Uint8Array
  readonly ids: Uint8Array
  readonly members: Uint8Array
  readonly refusals: number
  readonly refusalBytes: Uint8Array
}

/** Bits of `kinds`. */
export const KIND_VOID = 1
export const KIND_UNTIMED = 2

const MAGIC = 0x314d5246
const HEADER_BYTES = 72

const pad8 = (n: number): number => (n + 7) & ~7

/**
 * One table row after the other, with interning by key: a row whose `find` says -1 is begun by `add` and then written.
 * Measured: with rows made of small buffers a frame of 1,000 series cost 1,100 ns an event, now 560.
 */
class Table {
  #rows = new Map<string, number>()
  #target = Buffer.allocUnsafe(4_096)
  bytes = 0

  get size(): number {
    return this.#rows.size
  }

  find(key: string): number {
    return this.#rows.get(key) ?? -1
  }

  add(key: string): number {
    const index = this.#rows.size
    this.#rows.set(key, index)
    return index
  }

  u32(value: number): void {
    this.#grow(4)
    this.#target.writeUInt32LE(value, this.bytes)
    this.bytes += 4
  }

  text16(value: string): void {
    this.#grow(2 + 3 * value.length)
    const length = writeText(this.#target, value, this.bytes + 2)
    assert(length < 65_536, `text of ${length} bytes in a frame`)
    this.#target.writeUInt16LE(length, this.bytes)
    this.bytes += 2 + length
  }

  text32(value: string): void {
    this.#grow(4 + 3 * value.length)
    const length = writeText(this.#target, value, this.bytes + 4)
    this.#target.writeUInt32LE(length, this.bytes)
    this.bytes += 4 + length
  }

  write(target: Buffer, at: number): void {
    this.#target.copy(target, at, 0, this.bytes)
  }

  #grow(room: number): void {
    if (this.bytes + room <= this.#target.length) return
    const larger = Buffer.allocUnsafe(2 * (this.bytes + room))
    this.#target.copy(larger, 0, 0, this.bytes)
    this.#target = larger
  }
}

/** Longer texts are faster with the native call. */
const LOOP_TEXT_MAX = 64

/** Bytes of a text in UTF-8. Short ASCII, the common case, is counted without a native call. */
function textBytes(text: string): number {
  const { length } = text
  if (length > LOOP_TEXT_MAX) return Buffer.byteLength(text)
  for (let i = 0; i < length; i += 1) if (text.charCodeAt(i) > 0x7f) return Buffer.byteLength(text)
  return length
}

/** Writes a text in UTF-8, for which there must be room, and returns its bytes. */
function writeText(target: Buffer, text: string, at: number): number {
  const { length } = text
  if (length > LOOP_TEXT_MAX) return target.write(text, at)
  for (let i = 0; i < length; i += 1) {
    const unit = text.charCodeAt(i)
    if (unit > 0x7f) return target.write(text, at)
    target[at + i] = unit
  }
  return length
}

/** Where each section of a frame begins, from the number of events and the bytes of its sections: the picture above, once. */
function layoutOf(
  n: number,
  bytes: { metrics: number; origins: number; series: number; ids: number; members: number; refusals: number },
) {
  const metricsAt = HEADER_BYTES
  const originsAt = metricsAt + pad8(bytes.metrics)
  const seriesAt = originsAt + pad8(bytes.origins)
  const timesAt = seriesAt + pad8(bytes.series)
  const valuesAt = timesAt + 8 * n
  const seriesOfAt = valuesAt + 8 * n
  const originOfAt = seriesOfAt + pad8(4 * n)
  const idEndsAt = originOfAt + pad8(4 * n)
  const memberEndsAt = idEndsAt + pad8(4 * n)
  const kindsAt = memberEndsAt + pad8(4 * n)
  const idsAt = kindsAt + pad8(n)
  const membersAt = idsAt + pad8(bytes.ids)
  const refusalsAt = membersAt + pad8(bytes.members)
  const length = refusalsAt + pad8(bytes.refusals)
  return {
    metricsAt,
    originsAt,
    seriesAt,
    timesAt,
    valuesAt,
    seriesOfAt,
    originOfAt,
    idEndsAt,
    memberEndsAt,
    kindsAt,
    idsAt,
    membersAt,
    refusalsAt,
    length,
  }
}

/** Events in the order of the request, and the refusals among them. Returns a fresh buffer of its own. */
export function encodeFrame(head: FrameHead, events: readonly UsageEvent[], refusals: readonly Refusal[]): Uint8Array {
  const n = events.length
  const metrics = new Table()
  const origins = new Table()
  const series = new Table()
  const seriesOf = new Uint32Array(n)
  const originOf = new Uint32Array(n)
  let idBytes = 0
  let memberBytes = 0
  // Neighbours mostly share their metric and origin: those are not looked up again.
  let metric: Metric | null = null
  let metricIndex = 0
  let tenant: string | null = null
  let source = ''
  let origin = 0
  for (let i = 0; i < n; i += 1) {
    const event = events[i]!
    if (event.metric !== metric) {
      metric = event.metric
      const key = `${metric.version}\0${metric.key}`
      metricIndex = metrics.find(key)
      if (metricIndex < 0) {
        metricIndex = metrics.add(key)
        metrics.u32(metric.scale | (Aggregation.indexOf(metric.aggregation) << 8) | (metric.archive ? 1 << 16 : 0))
        metrics.u32(metric.version)
        metrics.text16(metric.key)
      }
    }
    // Lengths in front, so that no two tuples share a key.
    if (event.tenant !== tenant || event.source !== source) {
      tenant = event.tenant
      source = event.source
      const key = `${tenant.length}\0${tenant}${source}`
      origin = origins.find(key)
      if (origin < 0) {
        origin = origins.add(key)
        origins.text16(tenant)
        origins.text16(source)
      }
    }
    originOf[i] = origin
    const { subject, dims } = event
    const key = `${metricIndex}\0${tenant.length}\0${subject.length}\0${tenant}${subject}${dims}`
    let index = series.find(key)
    if (index < 0) {
      index = series.add(key)
      series.u32(metricIndex)
      series.text16(tenant)
      series.text16(subject)
      series.text32(dims)
    }
    seriesOf[i] = index
    idBytes += textBytes(event.id)
    memberBytes += event.member === '' ? 0 : textBytes(event.member)
  }
  const refusalText = refusals.length === 0 ? Buffer.alloc(0) : Buffer.from(JSON.stringify(refusals))

  const sections = layoutOf(n, {
    metrics: metrics.bytes,
    origins: origins.bytes,
    series: series.bytes,
    ids: idBytes,
    members: memberBytes,
    refusals: refusalText.length,
  })
  const {
    metricsAt,
    originsAt,
    seriesAt,
    timesAt,
    valuesAt,
    seriesOfAt,
    originOfAt,
    idEndsAt,
    memberEndsAt,
    kindsAt,
    idsAt,
    membersAt,
    refusalsAt,
  } = sections
  // An ArrayBuffer of its own: aligned for the typed views, and transferable to the log and to a thread.
  const buffer = new ArrayBuffer(sections.length)
  const bytes = Buffer.from(buffer)

  bytes.writeUInt32LE(MAGIC, 0)
  bytes.writeUInt32LE(n, 4)
  bytes.writeUInt32LE(metrics.size, 8)
  bytes.writeUInt32LE(origins.size, 12)
  bytes.writeUInt32LE(series.size, 16)
  bytes.writeUInt32LE(metrics.bytes, 20)
  bytes.writeUInt32LE(origins.bytes, 24)
  bytes.writeUInt32LE(series.bytes, 28)
  bytes.writeUInt32LE(idBytes, 32)
  bytes.writeUInt32LE(memberBytes, 36)
  bytes.writeUInt32LE(refusalText.length, 40)
  bytes.writeUInt32LE(refusals.length, 44)
  bytes.writeUInt32LE(head.catalogVersion, 48)
  bytes.writeDoubleLE(head.receivedAt, 56)
  bytes.writeDoubleLE(head.floorTime, 64)
  metrics.write(bytes, metricsAt)
  origins.write(bytes, originsAt)
  series.write(bytes, seriesAt)
  const times = new Float64Array(buffer, timesAt, n)
  const values = new BigInt64Array(buffer, valuesAt, n)
  new Uint32Array(buffer, seriesOfAt, n).set(seriesOf)
  new Uint32Array(buffer, originOfAt, n).set(originOf)
  const idEnds = new Uint32Array(buffer, idEndsAt, n)
  const memberEnds = new Uint32Array(buffer, memberEndsAt, n)
  let idEnd = 0
  let memberEnd = 0
  for (let i = 0; i < n; i += 1) {
    const event = events[i]!
    times[i] = event.eventTime
    values[i] = event.value
    idEnd += writeText(bytes, event.id, idsAt + idEnd)
    idEnds[i] = idEnd
    if (event.member !== '') memberEnd += writeText(bytes, event.member, membersAt + memberEnd)
    memberEnds[i] = memberEnd
    bytes[kindsAt + i] = (event.kind === 'void' ? KIND_VOID : 0) | (event.untimed === true ? KIND_UNTIMED : 0)
  }
  refusalText.copy(bytes, refusalsAt)
  return bytes
}

/** Reads texts of a frame's tables one after the other. */
class TableReader {
  readonly #bytes: Buffer
  at: number

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes
    this.at = at
  }

  u32(): number {
    this.at += 4
    return this.#bytes.readUInt32LE(this.at - 4)
  }

  text16(): string {
    return this.#text(this.#bytes.readUInt16LE(this.at), 2)
  }

  text32(): string {
    return this.#text(this.#bytes.readUInt32LE(this.at), 4)
  }

  #text(length: number, prefix: number): string {
    this.at += prefix + length
    return this.#bytes.toString('utf8', this.at - length, this.at)
  }
}

function decodeOrigins(bytes: Buffer, at: number, count: number, length: number): FrameOrigin[] {
  const reading = new TableReader(bytes, at)
  const origins: FrameOrigin[] = []
  for (let i = 0; i < count; i += 1) origins.push({ tenant: reading.text16(), source: reading.text16() })
  assert(reading.at === at + length, 'the origin table of a frame has another length')
  return origins
}

function decodeSeries(bytes: Buffer, at: number, count: number, length: number): FrameSeries[] {
  const reading = new TableReader(bytes, at)
  const series: FrameSeries[] = []
  for (let i = 0; i < count; i += 1) {
    const metric = reading.u32()
    series.push({ metric, tenant: reading.text16(), subject: reading.text16(), dims: reading.text32() })
  }
  assert(reading.at === at + length, 'the series table of a frame has another length')
  return series
}

function readSeriesMetrics(bytes: Buffer, from: number, count: number, length: number): Uint32Array {
  const metricOf = new Uint32Array(count)
  let at = from
  for (let i = 0; i < count; i += 1) {
    // By bytes: the calls of Buffer cost four times as much, and this is done for every series of every frame.
    metricOf[i] = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    at += 4
    at += 2 + (bytes[at]! | (bytes[at + 1]! << 8))
    at += 2 + (bytes[at]! | (bytes[at + 1]! << 8))
    at += 4 + (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24))
  }
  assert(at === from + length, 'the series table of a frame has another length')
  return metricOf
}

/** Views over the bytes (copied once when they are not aligned). Throws «BUG:» on bytes that are not a whole frame. */
export function decodeFrame(payload: Uint8Array): Frame {
  const aligned = payload.byteOffset % 8 === 0 ? payload : new Uint8Array(payload)
  const { buffer, byteOffset: base } = aligned
  const bytes = Buffer.from(buffer, base, aligned.byteLength)
  assert(bytes.length >= HEADER_BYTES && bytes.readUInt32LE(0) === MAGIC, 'a record is not a frame')
  const n = bytes.readUInt32LE(4)
  const [metricCount, originCount, seriesCount] = [
    bytes.readUInt32LE(8),
    bytes.readUInt32LE(12),
    bytes.readUInt32LE(16),
  ]
  const [metricBytes, originBytes, seriesBytes] = [
    bytes.readUInt32LE(20),
    bytes.readUInt32LE(24),
    bytes.readUInt32LE(28),
  ]
  const [idBytes, memberBytes, refusalBytes] = [bytes.readUInt32LE(32), bytes.readUInt32LE(36), bytes.readUInt32LE(40)]

  const sections = layoutOf(n, {
    metrics: metricBytes,
    origins: originBytes,
    series: seriesBytes,
    ids: idBytes,
    members: memberBytes,
    refusals: refusalBytes,
  })
  const {
    metricsAt,
    originsAt,
    seriesAt,
    timesAt,
    valuesAt,
    seriesOfAt,
    originOfAt,
    idEndsAt,
    memberEndsAt,
    kindsAt,
    idsAt,
    membersAt,
    refusalsAt,
  } = sections
  assert(bytes.length === sections.length, `a frame of ${n} events has ${bytes.length} bytes`)

  const metrics: FrameMetric[] = []
  const reading = new TableReader(bytes, metricsAt)
  for (let i = 0; i < metricCount; i += 1) {
    const { at } = reading
    const aggregation = Aggregation[bytes[at + 1]!]
    assert(aggregation !== undefined, `aggregation ${bytes[at + 1]} in a frame`)
    const scale = bytes[at]!
    const archive = bytes[at + 2] === 1
    const version = bytes.readUInt32LE(at + 4)
    reading.at += 8
    metrics.push({ key: reading.text16(), version, scale, aggregation, archive })
  }
  assert(reading.at === metricsAt + metricBytes, 'the metric table of a frame has another length')
  let origins: FrameOrigin[] | undefined
  let series: FrameSeries[] | undefined
  let metricOf: Uint32Array | undefined

  return {
    bytes,
    receivedAt: bytes.readDoubleLE(56),
    floorTime: bytes.readDoubleLE(64),
    catalogVersion: bytes.readUInt32LE(48),
    events: n,
    metrics,
    get origins() {
      origins ??= decodeOrigins(bytes, originsAt, originCount, originBytes)
      return origins
    },
    get series() {
      series ??= decodeSeries(bytes, seriesAt, seriesCount, seriesBytes)
      return series
    },
    get metricOf() {
      metricOf ??= readSeriesMetrics(bytes, seriesAt, seriesCount, seriesBytes)
      return metricOf
    },
    times: new Float64Array(buffer, base + timesAt, n),
    values: new BigInt64Array(buffer, base + valuesAt, n),
    seriesOf: new Uint32Array(buffer, base + seriesOfAt, n),
    originOf: new Uint32Array(buffer, base + originOfAt, n),
    idEnds: new Uint32Array(buffer, base + idEndsAt, n),
    memberEnds: new Uint32Array(buffer, base + memberEndsAt, n),
    kinds: new Uint8Array(buffer, base + kindsAt, n),
    ids: new Uint8Array(buffer, base + idsAt, idBytes),
    members: new Uint8Array(buffer, base + membersAt, memberBytes),
    refusals: bytes.readUInt32LE(44),
    refusalBytes: new Uint8Array(buffer, base + refusalsAt, refusalBytes),
  }
}

/** The refusals of a frame, decoded. */
export function frameRefusals(frame: Frame): Refusal[] {
  return frame.refusals === 0 ? [] : (JSON.parse(Buffer.from(frame.refusalBytes).toString()) as Refusal[])
}
