/**
 * The door's fast way: native-JSON bodies judged by the WASM kernel (workers/kernel/door.as.ts), with judge() of ingest.ts as
 * the fallback and the oracle. Same verdicts, same indices, same frame bytes, whoever judged.
 *
 * The kernel stores events that are beyond doubt. An event that it gives back is judged by the plain path where it stands, and
 * the kernel goes on behind it; a body that it gives back is judged by the plain path alone. So every refusal and every error
 * has the words of ingest.ts. `plain` in the answer counts the events that took the plain path.
 *
 * One KernelDoor belongs to one thread and to the catalogue that it was given last. Its memory is the catalogue's texts plus about
 * four times the largest body so far, which limits.bodyBytesMax bounds; it is never given back.
 */
import { randomBytes } from 'node:crypto'
import { assert } from '../assert.js'
import { Aggregation } from '../catalog/metric.js'
import { KIND_UNTIMED, KIND_VOID } from '../frame.js'
import { growTo, type KernelConstant, type KernelMemory, openKernel } from '../kernel.js'
import { limits } from '../limits.js'
import { type Door, EventJudge, type IngestRequest, type Judged, judge, type Part } from './ingest.js'
import { BRACKET } from './json.js'
import { readNative } from './native.js'
import type { Refusal } from './verdict.js'

export interface KernelJudged extends Judged {
  /** Events of the body that the plain path judged. */
  readonly plain: number
}

/** Several bodies as one: places count through all of them. */
export interface JudgedTogether extends KernelJudged {
  /** For each body, the events received up to its end. */
  readonly ends: readonly number[]
}

/** What kernel.as.ts exports for the door. Addresses and counts are below 2^31; -1 is «none». */
interface Exports {
  readonly memory: KernelMemory
  readonly FIXED_BYTES: KernelConstant
  readonly STREAMS_MAX: KernelConstant
  layOut(
    seed: bigint,
    streams: number,
    tenants: number,
    tenantSlots: number,
    tenantSlotCount: number,
    metrics: number,
    metricSlots: number,
    metricSlotCount: number,
  ): void
  addTenant(text: number, length: number, stream: number): number
  addMetric(
    text: number,
    length: number,
    row: number,
    rowLength: number,
    scale: number,
    flags: number,
    dims: number,
    member: number,
    memberLength: number,
  ): number
  addDim(name: number, nameLength: number, label: number, labelLength: number): void
  findTenant(text: number, length: number): number
  begin(
    body: number,
    length: number,
    texts: number,
    textsEnd: number,
    tenant: number,
    receivedAt: number,
    floorTime: number,
    aheadMs: number,
    eventsMax: number,
  ): number
  beginNext(body: number, length: number, tenant: number): number
  run(): number
  resume(next: number): number
  eventAt(): number
  received(): number
  textsAt(): number
  push(
    tenant: number,
    source: number,
    sourceLength: number,
    id: number,
    idLength: number,
    metric: number,
    subject: number,
    subjectLength: number,
    dims: number,
    dimsLength: number,
    member: number,
    memberLength: number,
    time: number,
    value: bigint,
    kind: number,
    textsFrom: number,
  ): number
  streamEvents(stream: number): number
  refusalsAt(stream: number): number
  frameBytes(stream: number): number
  writeFrame(stream: number, target: number, catalogVersion: number): void
}

// Answers of run() and resume(), flags of addMetric, and layout: as in door.as.ts.
const EVENT = 1
const BODY = 2
const FLAG_ARCHIVE = 1
const FLAG_COUNTS_VALUE = 2
const FLAG_UNIQUE_SUBJECT = 4
const FLAG_UNIQUE_DIM = 8
const SLACK = 64
const TENANT_BYTES = 32
const METRIC_BYTES = 80
const DIM_BYTES = 16
const EVENTS_MAX = 10_000

assert(limits.batchEventsMax <= EVENTS_MAX, 'the kernel has room for EVENTS_MAX events')

/** Names with such a unit are left to the plain path: half of a pair alone has no UTF-8. */
const SURROGATE = /[\ud800-\udfff]/
const encoder = new TextEncoder()
const pad8 = (n: number): number => (n + 7) & ~7
/** Whether the first byte that is not blank is a bracket. */
const isArray = (body: Uint8Array): boolean => body.find((byte) => byte > 0x20) === BRACKET
const slotsFor = (records: number): number => 2 ** Math.ceil(Math.log2(2 * records + 2))

export class KernelDoor {
  readonly #kernel: Exports
  /** The catalogue in memory. */
  #door: Door | null = null
  #isUsable = false
  #metrics = new Map<string, number>()
  #tenantCapacity = 0
  /** Where the next text of the catalogue goes, and where its room ends. */
  #text = 0
  #textEnd = 0
  #bytes: Uint8Array

  constructor(kernel: Exports) {
    this.#kernel = kernel
    this.#bytes = new Uint8Array(kernel.memory.buffer)
  }

  /** Like judge() of ingest.ts, and with its errors. */
  judge(door: Door, body: Uint8Array, request: IngestRequest): KernelJudged {
    if (this.#door !== door) this.#load(door)
    const judged =
      this.#isUsable && request.format === 'json' && body.length > 0 && body.length <= limits.bodyBytesMax
        ? this.#judge(door, body, request)
        : null
    if (judged !== null) return judged
    const plain = judge(door, body, request)
    return { ...plain, plain: plain.received }
  }

  /** Null: the body is for the plain path. */
  #judge(door: Door, body: Uint8Array, request: IngestRequest): KernelJudged | null {
    const kernel = this.#kernel
    const bodyAt = pad8(this.#textEnd + SLACK)
    const textsAt = pad8(bodyAt + body.length + SLACK)
    // Canonical dimensions are longer than the written ones by the quotes of numbers at most; a body of such is given back.
    const textsEnd = textsAt + body.length + 65_536
    this.#reserve(textsEnd + SLACK)
    this.#bytes.set(body, bodyAt)
    this.#bytes.fill(0, bodyAt + body.length, bodyAt + body.length + SLACK)
    let tenant = -1
    if (request.tenant !== null) {
      const length = this.#write(request.tenant, textsAt, textsEnd)
      if (length < 0) return null
      tenant = kernel.findTenant(textsAt, length)
      if (tenant < 0) return null
    }
    const { receivedAt, floorTime, aheadMs } = request
    const eventsMax = limits.batchEventsMax
    if (kernel.begin(bodyAt, body.length, textsAt, textsEnd, tenant, receivedAt, floorTime, aheadMs, eventsMax) === 0) {
      return null
    }

    const refusals: Refusal[] = []
    const byStream = new Map<number, Refusal[]>()
    const plain = this.#drive(door, new EventJudge(door, request), body, bodyAt, textsEnd, refusals, byStream)
    return plain < 0 ? null : this.#finish(door, textsEnd, refusals, byStream, plain)
  }

  /** Reads the body that was begun. The number of events that the plain path judged, or −1 when all of it must be its. */
  #drive(
    door: Door,
    judging: EventJudge,
    body: Uint8Array,
    bodyAt: number,
    textsEnd: number,
    refusals: Refusal[],
    byStream: Map<number, Refusal[]>,
  ): number {
    const kernel = this.#kernel
    let plain = 0
    let answer = kernel.run()
    if (answer === EVENT) {
      const depth = isArray(body) ? 1 : 0
      const { reader } = door
      try {
        while (answer === EVENT) {
          plain += 1
          reader.begin(body, kernel.eventAt() - bodyAt, depth)
          judging.read(kernel.received(), body, readNative)
          const { refusal, stream } = judging
          if (refusal !== null) {
            refusals.push(refusal)
            const list = byStream.get(stream)
            if (list === undefined) byStream.set(stream, [refusal])
            else list.push(refusal)
          } else if (!this.#push(judging, textsEnd)) return -1
          answer = kernel.resume(bodyAt + reader.at)
        }
      } finally {
        reader.release()
      }
    }
    return answer === BODY ? -1 : plain
  }

  /** The frames of what was read. */
  #finish(
    door: Door,
    textsEnd: number,
    refusals: readonly Refusal[],
    byStream: ReadonlyMap<number, readonly Refusal[]>,
    plain: number,
  ): KernelJudged {
    const kernel = this.#kernel
    const frameAt = textsEnd + SLACK
    const parts: Part[] = []
    for (let stream = 0; stream < door.streams; stream += 1) {
      const refused = byStream.get(stream)
      const events = kernel.streamEvents(stream)
      if (events === 0 && refused === undefined) continue
      parts.push(this.#takePart(pad8(frameAt), stream, events, refused, door.snapshot.version))
    }
    const received = kernel.received()
    return { received, stored: received - refusals.length, refused: refusals.length, refusals, parts, plain }
  }

  /**
   * Several small bodies of native JSON as one, so that they cost one frame. Null: one of them is not for the kernel as a whole
   * (broken, or there are too many events), and then each must be judged alone. `tenants` are those of their keys.
   */
  judgeTogether(
    door: Door,
    bodies: readonly Uint8Array[],
    tenants: readonly (string | null)[],
    request: Omit<IngestRequest, 'format' | 'tenant'>,
  ): JudgedTogether | null {
    if (this.#door !== door) this.#load(door)
    if (!this.#isUsable) return null
    const kernel = this.#kernel
    const places: number[] = []
    let at = pad8(this.#textEnd + SLACK)
    for (const body of bodies) {
      places.push(at)
      at = pad8(at + body.length + SLACK)
    }
    const textsAt = at
    const textsEnd = textsAt + (textsAt - places[0]!) + 65_536
    this.#reserve(textsEnd + SLACK)
    for (const [i, body] of bodies.entries()) {
      this.#bytes.set(body, places[i]!)
      this.#bytes.fill(0, places[i]! + body.length, places[i]! + body.length + SLACK)
    }
    const refusals: Refusal[] = []
    const byStream = new Map<number, Refusal[]>()
    const ends: number[] = []
    let plain = 0
    let tenant = -1
    for (const [i, body] of bodies.entries()) {
      const name = tenants[i]!
      if (i === 0 || name !== tenants[i - 1]) {
        tenant = -1
        if (name !== null) {
          // Behind the texts that the bodies before have left there.
          const from = i === 0 ? textsAt : kernel.textsAt()
          const length = this.#write(name, from, textsEnd)
          if (length < 0) return null
          tenant = kernel.findTenant(from, length)
          if (tenant < 0) return null
        }
      }
      const { receivedAt, floorTime, aheadMs } = request
      const max = limits.batchEventsMax
      const isForKernel =
        i === 0
          ? kernel.begin(places[i]!, body.length, textsAt, textsEnd, tenant, receivedAt, floorTime, aheadMs, max)
          : kernel.beginNext(places[i]!, body.length, tenant)
      if (isForKernel === 0) return null
      const judging = new EventJudge(door, { ...request, format: 'json', tenant: name })
      const judged = this.#drive(door, judging, body, places[i]!, textsEnd, refusals, byStream)
      if (judged < 0) return null
      plain += judged
      ends.push(kernel.received())
    }
    return { ...this.#finish(door, textsEnd, refusals, byStream, plain), ends }
  }

  #takePart(
    at: number,
    stream: number,
    events: number,
    refused: readonly Refusal[] | undefined,
    version: number,
  ): Part {
    const kernel = this.#kernel
    this.#reserve(at + kernel.frameBytes(stream))
    kernel.writeFrame(stream, at, version)
    const refusalsAt = kernel.refusalsAt(stream)
    const indicesAt = at + refusalsAt
    const indices = new Uint32Array(this.#bytes.buffer, indicesAt, events).slice()
    if (refused === undefined) return { stream, frame: this.#bytes.slice(at, indicesAt), indices, events }
    const text = encoder.encode(JSON.stringify(refused))
    const frame = new Uint8Array(refusalsAt + pad8(text.length))
    frame.set(this.#bytes.subarray(at, indicesAt))
    frame.set(text, refusalsAt)
    const view = new DataView(frame.buffer)
    view.setUint32(40, text.length, true)
    view.setUint32(44, refused.length, true)
    return { stream, frame, indices, events }
  }

  /** Hands a sound event of the plain path to the kernel; false when it cannot take it. */
  #push(judging: EventJudge, textsEnd: number): boolean {
    const event = judging.event!
    const metric = this.#metrics.get(event.metric.key)
    if (metric === undefined) return false
    const kernel = this.#kernel
    let at = kernel.textsAt()
    const lengths: number[] = []
    const places: number[] = []
    for (const text of [event.tenant, event.source, event.id, event.subject, event.dims, event.member]) {
      const length = this.#write(text, at, textsEnd)
      if (length < 0) return false
      places.push(at)
      lengths.push(length)
      at += length
    }
    const tenant = kernel.findTenant(places[0]!, lengths[0]!)
    if (tenant < 0) return false
    const kind = (event.kind === 'void' ? KIND_VOID : 0) | (event.untimed === true ? KIND_UNTIMED : 0)
    const [, source, id, subject, dims, member] = places as [number, number, number, number, number, number]
    return (
      kernel.push(
        tenant,
        source,
        lengths[1]!,
        id,
        lengths[2]!,
        metric,
        subject,
        lengths[3]!,
        dims,
        lengths[4]!,
        member,
        lengths[5]!,
        event.eventTime,
        event.value,
        kind,
        at,
      ) !== 0
    )
  }

  /** Writes a text and returns its bytes, or -1 when there is no room for it and the slack. */
  #write(text: string, at: number, end: number): number {
    if (at + 3 * text.length + SLACK > end) return -1
    return encoder.encodeInto(text, this.#bytes.subarray(at, at + 3 * text.length)).written
  }

  /** Memory up to `end`; new memory is zero. */
  #reserve(end: number): void {
    if (growTo(this.#kernel.memory, end)) this.#bytes = new Uint8Array(this.#kernel.memory.buffer)
  }

  /** Takes over a version of the catalogue: what has been added to the end of the tenants, or everything. */
  #load(door: Door): void {
    const before = this.#door
    this.#door = door
    if (before !== null && this.#isUsable && this.#isSameButTenants(before, door)) {
      const known = before.snapshot.tenants
      const { tenants } = door.snapshot
      if (
        tenants.length <= this.#tenantCapacity &&
        known.every((tenant, i) => tenant === tenants[i]) &&
        tenants.slice(known.length).every((tenant) => this.#addTenant(tenant, door.tenants.get(tenant)!))
      ) {
        return
      }
    }
    this.#reload(door)
  }

  #isSameButTenants(before: Door, door: Door): boolean {
    if (before.streams !== door.streams || before.metrics.size !== door.metrics.size) return false
    // buildDoor() keeps what has not changed.
    for (const [key, metric] of door.metrics) if (before.metrics.get(key) !== metric) return false
    return true
  }

  #reload(door: Door): void {
    const kernel = this.#kernel
    this.#isUsable = door.streams <= kernel.STREAMS_MAX.value
    if (!this.#isUsable) return
    const { tenants } = door.snapshot
    const metrics = [...door.metrics.values()]
    let textBytes = 0
    for (const tenant of tenants) textBytes += 3 * tenant.length
    let dimCount = 0
    for (const { metric, labels } of metrics) {
      textBytes += 9 * metric.key.length + 16 + 3 * (metric.uniqueBy?.length ?? 0)
      for (const label of labels) textBytes += 6 * label.length
      dimCount += labels.length
    }
    // Room for new tenants, so that one of them does not load the whole catalogue again.
    this.#tenantCapacity = Math.ceil(1.5 * tenants.length) + 256
    const tenantSlotCount = slotsFor(this.#tenantCapacity)
    const metricSlotCount = slotsFor(metrics.length)
    const tenantsAt = pad8(kernel.FIXED_BYTES.value)
    const tenantSlotsAt = tenantsAt + TENANT_BYTES * this.#tenantCapacity
    const metricsAt = tenantSlotsAt + 4 * tenantSlotCount
    const metricSlotsAt = metricsAt + METRIC_BYTES * metrics.length
    const dimsAt = pad8(metricSlotsAt + 4 * metricSlotCount)
    this.#text = dimsAt + DIM_BYTES * dimCount
    this.#textEnd = pad8(this.#text + Math.ceil(1.5 * textBytes) + 65_536)
    this.#reserve(this.#textEnd + SLACK)
    this.#bytes.fill(0, tenantsAt, this.#text)
    const seed = randomBytes(8).readBigInt64LE()
    kernel.layOut(
      seed,
      door.streams,
      tenantsAt,
      tenantSlotsAt,
      tenantSlotCount,
      metricsAt,
      metricSlotsAt,
      metricSlotCount,
    )
    // What the kernel does not know is for the plain path.
    for (const tenant of tenants) this.#addTenant(tenant, door.tenants.get(tenant)!)
    this.#metrics.clear()
    let dims = dimsAt
    for (const found of metrics) {
      if (this.#addMetric(found, dims)) this.#metrics.set(found.metric.key, this.#metrics.size)
      dims += DIM_BYTES * found.labels.length
    }
  }

  /** False when there is no room for its name. */
  #addTenant(tenant: string, stream: number): boolean {
    if (SURROGATE.test(tenant)) return true
    const length = this.#write(tenant, this.#text, this.#textEnd)
    if (length < 0) return false
    if (length > limits.nameBytesMax) return true
    if (this.#kernel.findTenant(this.#text, length) >= 0) return true
    if (this.#kernel.addTenant(this.#text, length, stream) !== 0) this.#text += length
    return true
  }

  #addMetric(found: ReturnType<Door['metrics']['get']> & object, dims: number): boolean {
    const { metric, slots, labels } = found
    const { key, uniqueBy, scale } = metric
    const names = [...slots.keys()]
    if (
      key.length > limits.nameBytesMax ||
      names.length > limits.dimsMax ||
      names.length !== metric.dims.length ||
      (uniqueBy !== null && uniqueBy !== 'subject' && slots.has(uniqueBy)) ||
      [key, uniqueBy ?? '', ...names].some((name) => SURROGATE.test(name)) ||
      scale < 0 ||
      scale > 9
    ) {
      return false
    }
    const text = (value: string): [number, number] => {
      const at = this.#text
      const length = this.#write(value, at, this.#textEnd)
      assert(length >= 0, 'the catalogue has no room in the kernel')
      this.#text += length
      return [at, length]
    }
    const [keyAt, keyLength] = text(key)
    const row = this.#text
    const view = new DataView(this.#bytes.buffer)
    view.setUint8(row, scale)
    view.setUint8(row + 1, Aggregation.indexOf(metric.aggregation))
    view.setUint8(row + 2, metric.archive ? 1 : 0)
    view.setUint8(row + 3, 0)
    view.setUint32(row + 4, metric.version, true)
    view.setUint16(row + 8, keyLength, true)
    this.#text += 10
    text(key)
    const rowLength = 10 + keyLength
    const [memberAt, memberLength] = text(uniqueBy ?? '')
    const flags =
      (metric.archive ? FLAG_ARCHIVE : 0) |
      (found.countsValue ? FLAG_COUNTS_VALUE : 0) |
      (uniqueBy === 'subject' ? FLAG_UNIQUE_SUBJECT : uniqueBy !== null ? FLAG_UNIQUE_DIM : 0)
    const isAdded = this.#kernel.addMetric(keyAt, keyLength, row, rowLength, scale, flags, dims, memberAt, memberLength)
    if (isAdded === 0) return false
    for (const [slot, name] of names.entries()) {
      const [nameAt, nameLength] = text(name)
      const [labelAt, labelLength] = text(labels[slot]!)
      this.#kernel.addDim(nameAt, nameLength, labelAt, labelLength)
    }
    return true
  }
}

/** A KernelDoor for this thread, or null when the kernel was not built (`npm run build:kernel`). */
export function openKernelDoor(): KernelDoor | null {
  const kernel = openKernel<Exports>()
  return kernel === null ? null : new KernelDoor(kernel)
}
