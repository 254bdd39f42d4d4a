/**
 * The door's fast way: bodies judged by the WASM kernel (workers/kernel/door.as.ts), with judge() of ingest.ts as the fallback
 * and the oracle. Same verdicts, same indices, same frame bytes, whoever judged. CSV and CloudEvents in headers are left to the
 * plain path.
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
import { ReleveError } from '../errors.js'
import { KIND_UNTIMED, KIND_VOID } from '../frame.js'
import { growTo, type KernelConstant, type KernelMemory, openKernel } from '../kernel.js'
import { limits } from '../limits.js'
import { readCloudEvent } from './cloudevents.js'
import { ColumnarBody } from './columnar.js'
import { type Door, EventJudge, type IngestRequest, type Judged, judge, type Part, readLine } from './ingest.js'
import { BRACE, BRACKET } from './json.js'
import { lineEnd } from './lines.js'
import { readMsgpackEvent } from './msgpack.js'
import { readNative } from './native.js'
import { Transcript } from './transcript.js'
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
    jsonMax: number,
    bytes: number,
  ): void
  beginNext(body: number, length: number, tenant: number): void
  runJson(cloud: number): number
  resumeJson(next: number): number
  runLines(): number
  resumeLines(next: number): number
  runMsgpack(): number
  resumeMsgpack(next: number, jsonBytes: number): number
  recordAt(number: number): number
  defineRecord(number: number, at: number): number
  runColumnar(): number
  resumeColumnar(jsonBytes: number): number
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

// Answers of run…() and resume…(), flags of addMetric, and layout: as in door.as.ts.
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

/** Memory for a frame: a buffer or its beginning, whatever its bytes are. */
export type Allocate = (bytes: number) => Uint8Array

assert(limits.batchEventsMax <= EVENTS_MAX, 'the kernel has room for EVENTS_MAX events')

/** Names with such a unit are left to the plain path: half of a pair alone has no UTF-8. */
const SURROGATE = /[\ud800-\udfff]/
const encoder = new TextEncoder()
const pad8 = (n: number): number => (n + 7) & ~7
/** The first byte that is not blank. */
const firstOf = (body: Uint8Array): number => body.find((byte) => byte > 0x20) ?? 0
const LF = 0x0a

/** How the kernel goes over a body of a format. */
interface Way {
  run(): number
  /** Judges by the plain path the event at which the kernel stands, and hands it back with take(): what resume() answers. */
  judgeOne(judging: EventJudge, index: number, at: number): number
}

/** What the plain path has found in the body in hand, or in several. */
class Found {
  readonly refusals: Refusal[] = []
  readonly byStream = new Map<number, Refusal[]>()
  plain = 0

  refuse(refusal: Refusal, stream: number): void {
    this.refusals.push(refusal)
    const list = this.byStream.get(stream)
    if (list === undefined) this.byStream.set(stream, [refusal])
    else list.push(refusal)
  }
}

const slotsFor = (records: number): number => 2 ** Math.ceil(Math.log2(2 * records + 2))

export class KernelDoor {
  readonly #kernel: Exports
  readonly #allocate: Allocate
  /** The catalogue in memory. */
  #door: Door | null = null
  #isUsable = false
  #metrics = new Map<string, number>()
  #tenantCapacity = 0
  /** Where the next text of the catalogue goes, and where its room ends. */
  #text = 0
  #textEnd = 0
  #bytes: Uint8Array
  // Of the body in hand.
  #bodyAt = 0
  #textsEnd = 0

  constructor(kernel: Exports, allocate: Allocate) {
    this.#kernel = kernel
    this.#allocate = allocate
    this.#bytes = new Uint8Array(kernel.memory.buffer)
  }

  /** Like judge() of ingest.ts, and with its errors. The body may lie in memory that other threads see. */
  judge(door: Door, body: Uint8Array, request: IngestRequest): KernelJudged {
    if (this.#door !== door) this.#load(door)
    const way =
      this.#isUsable && body.length > 0 && body.length <= limits.bodyBytesMax
        ? this.#wayOf(request, body, pad8(this.#textEnd + SLACK))
        : null
    const judged = way === null ? null : this.#judge(way, door, body, request)
    if (judged !== null) return judged
    const plain = judge(door, body.buffer instanceof SharedArrayBuffer ? new Uint8Array(body) : body, request)
    return { ...plain, plain: plain.received }
  }

  /** Null: the body is for the plain path. */
  #judge(way: Way, door: Door, body: Uint8Array, request: IngestRequest): KernelJudged | null {
    const kernel = this.#kernel
    const bodyAt = this.#bodyAt
    const textsAt = pad8(bodyAt + body.length + SLACK)
    // Canonical dimensions are longer than the written ones by the quotes of numbers; where names stand in a table, by those.
    // What a body may be as JSON bounds them too. When there is no room for them the body is given back.
    const isTabular = request.format === 'msgpack' || request.format === 'columnar'
    const textBytes = isTabular ? Math.min(4 * body.length, limits.bodyBytesMax) + 1_048_576 : body.length + 65_536
    const textsEnd = textsAt + textBytes
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
    const jsonMax = limits.bodyBytesMax
    const all = body.length
    kernel.begin(bodyAt, all, textsAt, textsEnd, tenant, receivedAt, floorTime, aheadMs, eventsMax, jsonMax, all)
    this.#textsEnd = textsEnd

    const found = new Found()
    return this.#drive(way, new EventJudge(door, request), found) ? this.#finish(door, found) : null
  }

  /**
   * Several bodies as one, so that they cost one frame. Null: one of them is not for the kernel as a whole (broken, of a format that
   * it does not read, or there are too many events), and then each must be judged alone. The bodies lie behind each other in a
   * buffer that is not changed meanwhile.
   */
  judgeTogether(door: Door, bodies: readonly Uint8Array[], requests: readonly IngestRequest[]): JudgedTogether | null {
    if (this.#door !== door) this.#load(door)
    if (!this.#isUsable) return null
    const kernel = this.#kernel
    const places: number[] = []
    let textsAt = pad8(this.#textEnd + SLACK)
    let bytes = 0
    for (const body of bodies) {
      places.push(textsAt)
      textsAt = pad8(textsAt + body.length + SLACK)
      bytes += body.length
    }
    const textsEnd = textsAt + bytes + 65_536
    this.#reserve(textsEnd + SLACK)
    this.#textsEnd = textsEnd
    for (const [i, body] of bodies.entries()) {
      this.#bytes.set(body, places[i]!)
      this.#bytes.fill(0, places[i]! + body.length, places[i]! + body.length + SLACK)
    }
    const found = new Found()
    const ends: number[] = []
    let tenant = -1
    for (const [i, body] of bodies.entries()) {
      const request = requests[i]!
      const at = places[i]!
      const way = body.length === 0 ? null : this.#wayOf(request, body, at)
      if (way === null) return null
      if (i === 0 || request.tenant !== requests[i - 1]!.tenant) {
        tenant = -1
        if (request.tenant !== null) {
          // Behind the texts that the bodies before have left there.
          const from = i === 0 ? textsAt : kernel.textsAt()
          const length = this.#write(request.tenant, from, textsEnd)
          if (length < 0) return null
          tenant = kernel.findTenant(from, length)
          if (tenant < 0) return null
        }
      }
      if (i === 0) {
        const { receivedAt, floorTime, aheadMs } = request
        const [eventsMax, jsonMax] = [limits.batchEventsMax, limits.bodyBytesMax]
        const { length } = body
        kernel.begin(at, length, textsAt, textsEnd, tenant, receivedAt, floorTime, aheadMs, eventsMax, jsonMax, bytes)
      } else {
        kernel.beginNext(at, body.length, tenant)
      }
      try {
        if (!this.#drive(way, new EventJudge(door, request), found)) return null
      } catch (error) {
        // The plain path has found that this body is broken; alone it says so to its sender.
        if (error instanceof ReleveError) return null
        throw error
      }
      ends.push(kernel.received())
    }
    return { ...this.#finish(door, found), ends }
  }

  /** Goes over the body that was begun. False: all of it is for the plain path. */
  #drive(way: Way, judging: EventJudge, found: Found): boolean {
    const kernel = this.#kernel
    let answer = way.run()
    if (answer === EVENT) {
      try {
        while (answer === EVENT) {
          found.plain += 1
          answer = way.judgeOne(judging, kernel.received(), kernel.eventAt() - this.#bodyAt)
          const { refusal, stream } = judging
          if (refusal !== null) found.refuse(refusal, stream)
        }
      } finally {
        this.#door!.reader.release()
      }
    }
    return answer !== BODY
  }

  /** The frames of what was read. */
  #finish(door: Door, { refusals, byStream, plain }: Found): KernelJudged {
    const kernel = this.#kernel
    const frameAt = this.#textsEnd + SLACK
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

  /** Null for a format that the kernel does not read. */
  #wayOf(request: IngestRequest, body: Uint8Array, bodyAt: number): Way | null {
    const kernel = this.#kernel
    const { reader, draft } = this.#door!
    this.#bodyAt = bodyAt
    /** The body where the kernel has it. */
    const mine = (): Uint8Array => this.#bytes.subarray(bodyAt, bodyAt + body.length)
    const json = (isArray: boolean, isCloud: boolean): Way => ({
      run: () => kernel.runJson(isCloud ? 1 : 0),
      judgeOne: (judging, index, at) => {
        const bytes = mine()
        reader.begin(bytes, at, isArray ? 1 : 0)
        judging.read(index, bytes, isCloud ? readCloudEvent : readNative)
        const next = reader.at
        return this.#take(judging) ? kernel.resumeJson(bodyAt + next) : BODY
      },
    })
    /** An event written down as JSON, alone in its array. */
    const readWritten = (judging: EventJudge, index: number, written: Transcript): number => {
      const text = written.finish()
      reader.begin(text, 1, 1)
      judging.read(index, text, readNative, written.faults.get(0))
      return text.length
    }
    switch (request.format) {
      case 'json':
        return json(firstOf(body) === BRACKET, false)
      case 'cloudevents':
        return firstOf(body) === BRACE ? json(false, true) : null
      case 'cloudevents-batch':
        return firstOf(body) === BRACKET ? json(true, true) : null
      case 'ndjson':
        return {
          run: () => kernel.runLines(),
          judgeOne: (judging, index, at) => {
            const bytes = mine()
            const end = bytes.indexOf(LF, at)
            const behind = end < 0 ? bytes.length : end
            readLine(reader, draft, bytes, at, lineEnd(bytes, at, behind))
            judging.settle(index, bytes, at, lineEnd(bytes, at, behind))
            return this.#take(judging) ? kernel.resumeLines(bodyAt + behind + 1) : BODY
          },
        }
      case 'msgpack':
        return {
          run: () => kernel.runMsgpack(),
          judgeOne: (judging, index, at) => {
            const { written, next, defined } = readMsgpackEvent(mine(), at, (number) => {
              const record = kernel.recordAt(number)
              return record === 0 ? -1 : record - bodyAt
            })
            for (const [number, names] of defined) {
              if (kernel.defineRecord(number, bodyAt + names) === 0) return BODY
            }
            const jsonBytes = readWritten(judging, index, written)
            return this.#take(judging) ? kernel.resumeMsgpack(bodyAt + next, jsonBytes) : BODY
          },
        }
      case 'columnar': {
        let columns: ColumnarBody | undefined
        return {
          run: () => kernel.runColumnar(),
          judgeOne: (judging, index) => {
            columns ??= new ColumnarBody(mine())
            const written = new Transcript(0)
            columns.write(written, index)
            const jsonBytes = readWritten(judging, index, written)
            return this.#take(judging) ? kernel.resumeColumnar(jsonBytes) : BODY
          },
        }
      }
      default:
        return null
    }
  }

  /** What the plain path has judged: a refusal is the host's, a sound event goes to the kernel, if that can take it. */
  #take(judging: EventJudge): boolean {
    return judging.refusal !== null || this.#push(judging, this.#textsEnd)
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
    if (refused === undefined) {
      const frame = this.#allocate(refusalsAt)
      frame.set(this.#bytes.subarray(at, indicesAt))
      return { stream, frame, indices, events }
    }
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

/** A KernelDoor for this thread, or null when the kernel was not built (`npm run build:kernel`). Its frames are its caller's. */
export function openKernelDoor(allocate: Allocate = (bytes) => Buffer.allocUnsafeSlow(bytes)): KernelDoor | null {
  const kernel = openKernel<Exports>()
  return kernel === null ? null : new KernelDoor(kernel, allocate)
}
