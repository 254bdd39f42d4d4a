/**
 * Ingest: bytes from anyone to events we vouch for. The first room of the road: a body comes in, frames for the log go out,
 * and every event has a verdict. Pure and synchronous: no I/O, no clock, no other state than tables that make it fast.
 *
 *   body --> json.ts --> native.ts | cloudevents.ts --> draft.ts --> vouch --> frame, one for each stream
 *    msgpack, CSV, columnar, CloudEvents in headers: written down as JSON first (transcript.ts); NDJSON line by line
 *
 * Promises: an event is stored or refused with a code, a field and a reason; a bad one never costs its neighbours; two formats
 * of the same event give the same bytes; what does not fit is refused and never rounded. Only a body in which nobody can tell
 * where the next event begins, of another type at the top or with too many events is refused as a whole.
 *
 * Of several faults in one event the one told is: the first of its text and shape, in the order of the text; then tenant, id,
 * source, metric, subject, kind, time, dims, member, value, in this order.
 *
 * It does not know duplicates (the shard does), does not answer senders and does not write the log.
 */
import { parseQuantity, powerOfTen, type QuantityFault } from '../amount.js'
import type { CatalogSnapshot, Metric } from '../catalog/metric.js'
import { ReleveError } from '../errors.js'
import { streamOf, type UsageEvent } from '../event.js'
import { encodeFrame } from '../frame.js'
import { limits } from '../limits.js'
import { readCloudEvent } from './cloudevents.js'
import { type CloudEventHeaders, readBinaryCloudEvent } from './cloudevents-binary.js'
import { readColumnar } from './columnar.js'
import { readCsv } from './csv.js'
import { Draft } from './draft.js'
import { BRACE, BRACKET, JsonReader, kindName } from './json.js'
import { eachLine } from './lines.js'
import { readMsgpack } from './msgpack.js'
import { readNative } from './native.js'
import { parseEpochMs, parseTime } from './time.js'
import type { Transcript, TranscriptFault } from './transcript.js'
import type { Refusal } from './verdict.js'

/** `json` is the native event, one or an array of them; ndjson, msgpack, columnar and csv are the same event in other clothes. */
export type BodyFormat =
  | 'json'
  | 'ndjson'
  | 'msgpack'
  | 'columnar'
  | 'csv'
  | 'cloudevents'
  | 'cloudevents-batch'
  | 'cloudevents-binary'

export interface IngestRequest {
  readonly format: BodyFormat
  /** The attributes of `cloudevents-binary`; the body is then its data alone. */
  readonly attributes?: CloudEventHeaders
  /** The tenant of the key; null for a key of the whole platform, whose events name theirs. */
  readonly tenant: string | null
  /** Epoch milliseconds. */
  readonly receivedAt: number
  /** An event whose eventTime is below this is too_old. */
  readonly floorTime: number
  /** An event whose eventTime is more than this above receivedAt is too_far_ahead. */
  readonly aheadMs: number
}

/** What one stream gets of a request. */
export interface Part {
  readonly stream: number
  /** A buffer of its own, transferable. */
  readonly frame: Uint8Array
  /** Place in the request of each stored event, in the order of the frame. A buffer of its own. */
  readonly indices: Uint32Array
  /** Stored events in the frame; 0 when it has refusals alone. */
  readonly events: number
}

/** received = stored + refused. */
export interface Judged {
  readonly received: number
  readonly stored: number
  readonly refused: number
  /** All of them, in the order of the request. */
  readonly refusals: readonly Refusal[]
  /** By ascending stream; none when nothing was received. */
  readonly parts: readonly Part[]
}

/** A metric as the door needs it. */
interface DoorMetric {
  readonly metric: Metric
  /** Place of each dimension in the canonical order. */
  readonly slots: ReadonlyMap<string, number>
  /** `"name":` of each dimension, in canonical order. */
  readonly labels: readonly string[]
  /** Values of each dimension that were seen, as JSON text; all of a door together are bounded. */
  readonly texts: Map<string, string>[]
  /** 1 at the metric's scale. */
  readonly one: bigint
  readonly countsValue: boolean
}

/** One version of the catalogue, indexed for judging. Belongs to one thread. */
export interface Door {
  readonly snapshot: CatalogSnapshot
  readonly streams: number
  readonly metrics: ReadonlyMap<string, DoorMetric>
  /** Stream of each tenant. */
  readonly tenants: ReadonlyMap<string, number>
  readonly reader: JsonReader
  readonly draft: Draft
  /** The dimensions of the event in hand, by slot. */
  readonly slots: (string | undefined)[]
  /** Dimension values remembered in `metrics`, at most limits.dimTextsMax. */
  dimTexts: number
}

/**
 * Indexes a version of the catalogue. With the door of an earlier version its warm tables are kept, and its tenants too when
 * the list is the same or has only grown at its end: so a new tenant costs one entry and not a hundred thousand. The earlier
 * door must not be used afterwards.
 */
export function buildDoor(snapshot: CatalogSnapshot, streams: number, previous?: Door): Door {
  const metrics = new Map<string, DoorMetric>()
  for (const metric of snapshot.metrics) {
    const known = previous?.metrics.get(metric.key)
    const same = known !== undefined && JSON.stringify(known.metric) === JSON.stringify(metric)
    metrics.set(metric.key, same ? known : indexMetric(metric))
  }
  return {
    snapshot,
    streams,
    metrics,
    tenants: indexTenants(snapshot.tenants, streams, previous),
    reader: previous?.reader ?? new JsonReader(),
    draft: previous?.draft ?? new Draft(),
    slots: [],
    dimTexts: previous?.dimTexts ?? 0,
  }
}

function indexMetric(metric: Metric): DoorMetric {
  // The order of canonicalDims: by UTF-16 code units.
  const names = [...metric.dims].sort()
  return {
    metric,
    slots: new Map(names.map((name, slot) => [name, slot])),
    labels: names.map((name) => `${JSON.stringify(name)}:`),
    texts: names.map(() => new Map()),
    one: powerOfTen(metric.scale),
    countsValue: metric.aggregation !== 'count' && metric.aggregation !== 'unique',
  }
}

function indexTenants(tenants: readonly string[], streams: number, previous: Door | undefined): Map<string, number> {
  if (previous !== undefined && previous.streams === streams) {
    const before = previous.snapshot.tenants
    let same = 0
    while (same < before.length && before[same] === tenants[same]) same += 1
    if (same === before.length) {
      const map = previous.tenants as Map<string, number>
      for (let i = same; i < tenants.length; i += 1) map.set(tenants[i]!, streamOf(tenants[i]!, streams))
      return map
    }
  }
  const map = new Map<string, number>()
  for (const tenant of tenants) {
    map.set(
      tenant,
      previous?.streams === streams
        ? (previous.tenants.get(tenant) ?? streamOf(tenant, streams))
        : streamOf(tenant, streams),
    )
  }
  return map
}

/** What has come together for one stream. */
class PartDraft {
  readonly events: UsageEvent[] = []
  readonly indices: number[] = []
  readonly refusals: Refusal[] = []
}

/** Judges the events of one body one by one; the last answer stands in its fields. */
export class EventJudge {
  readonly #door: Door
  readonly #request: IngestRequest
  #rawLeft: number = limits.requestRawBytesMax
  /** Null when it is refused. */
  event: UsageEvent | null = null
  /** Null when it is sound. */
  refusal: Refusal | null = null
  stream = 0

  constructor(door: Door, request: IngestRequest) {
    this.#door = door
    this.#request = request
  }

  /**
   * Reads the JSON event at which the door's reader stands in `text`, and judges it. `fault` was found before the text was
   * written, so it comes before whatever the text is refused for. Throws ReleveError `malformed_body` when it is no JSON.
   */
  read(index: number, text: Uint8Array, readEvent: typeof readNative, fault?: TranscriptFault): void {
    const { reader, draft } = this.#door
    // Stands on the first byte of the event, for the raw text.
    reader.peek()
    const start = reader.at
    readEvent(reader, draft)
    if (fault !== undefined) {
      draft.code = null
      draft.fail('malformed', fault.field, fault.message)
    }
    this.settle(index, text, start, reader.at)
  }

  /** Judges the door's draft, which was read from these bytes. */
  settle(index: number, text: Uint8Array, start: number, end: number): void {
    const { draft, tenants, streams } = this.#door
    const request = this.#request
    this.event = draft.code === null ? vouch(this.#door, draft, request) : null
    this.refusal = null
    const tenant = request.tenant ?? draft.tenant ?? ''
    this.stream =
      request.tenant === null ? (tenants.get(tenant) ?? 0) : (tenants.get(tenant) ?? streamOf(tenant, streams))
    if (this.event !== null) return
    const raw = cut(utf8(text, start, Math.min(end, start + limits.refusalRawBytesMax)), limits.refusalRawBytesMax)
    const rawBytes = Buffer.byteLength(raw)
    this.refusal = refuse(draft, index, tenant, rawBytes <= this.#rawLeft ? raw : '')
    if (rawBytes <= this.#rawLeft) this.#rawLeft -= rawBytes
  }
}

/**
 * Judges every event of a body. Throws ReleveError `malformed_body` (with the byte offset) or `body_too_large`: then nothing of
 * the body counts.
 */
export function judge(door: Door, body: Uint8Array, request: IngestRequest): Judged {
  const { reader } = door
  const judging = new EventJudge(door, request)
  const parts: (PartDraft | undefined)[] = new Array(door.streams).fill(undefined)
  const refusals: Refusal[] = []
  let received = 0

  /** One event, judged by `run`, which is given its place. */
  const each = (run: (index: number) => void): void => {
    if (received === limits.batchEventsMax) {
      throw new ReleveError('body_too_large', `more than ${limits.batchEventsMax} events (limits.batchEventsMax)`)
    }
    const index = received
    received += 1
    run(index)
    const { event, refusal, stream } = judging
    let part = parts[stream]
    if (part === undefined) {
      part = new PartDraft()
      parts[stream] = part
    }
    if (event !== null) {
      part.events.push(event)
      part.indices.push(index)
    } else {
      part.refusals.push(refusal!)
      refusals.push(refusal!)
    }
  }

  try {
    switch (request.format) {
      case 'json':
      case 'cloudevents':
      case 'cloudevents-batch':
        judgeJson(door, judging, body, request.format, null, each)
        break
      case 'cloudevents-binary': {
        const written = readBinaryCloudEvent(reader, body, request.attributes ?? [])
        judgeJson(door, judging, written.finish(), 'cloudevents-batch', written, each)
        break
      }
      case 'msgpack':
      case 'columnar':
      case 'csv': {
        const written = transcribe[request.format](body)
        judgeJson(door, judging, written.finish(), 'json', written, each)
        break
      }
      case 'ndjson':
        judgeLines(door, judging, body, each)
        break
    }
  } finally {
    reader.release()
  }

  const head = {
    receivedAt: request.receivedAt,
    floorTime: request.floorTime,
    catalogVersion: door.snapshot.version,
  }
  const done: Part[] = []
  for (let stream = 0; stream < parts.length; stream += 1) {
    const part = parts[stream]
    if (part === undefined) continue
    done.push({
      stream,
      frame: encodeFrame(head, part.events, part.refusals),
      indices: Uint32Array.from(part.indices),
      events: part.events.length,
    })
  }
  return { received, stored: received - refusals.length, refused: refusals.length, refusals, parts: done }
}

const transcribe = { msgpack: readMsgpack, columnar: readColumnar, csv: readCsv }

type Each = (run: (index: number) => void) => void

/** A body of JSON, or of what another format was written down as, with the faults that the writing found. */
function judgeJson(
  door: Door,
  judging: EventJudge,
  text: Uint8Array,
  format: 'json' | 'cloudevents' | 'cloudevents-batch',
  written: Transcript | null,
  each: Each,
): void {
  const { reader } = door
  const readEvent = format === 'json' ? readNative : readCloudEvent
  const judgeNext = (): void => each((index) => judging.read(index, text, readEvent, written?.faults.get(index)))
  reader.begin(text)
  if (reader.isBlank()) throw new ReleveError('malformed_body', 'byte 0: the body is empty')
  const first = reader.peek()
  if (first === BRACKET && format !== 'cloudevents') {
    reader.enterArray()
    while (reader.nextElement()) judgeNext()
  } else if (first === BRACE && format !== 'cloudevents-batch') {
    judgeNext()
  } else {
    const wanted = { json: 'an event or an array of them', cloudevents: 'an event', 'cloudevents-batch': 'an array' }
    throw new ReleveError(
      'malformed_body',
      `byte ${reader.at}: the body must be ${wanted[format]}, is ${kindName(first)}`,
    )
  }
  reader.finish()
}

/** NDJSON: broken syntax refuses its line alone, because lines are boundaries. */
function judgeLines(door: Door, judging: EventJudge, body: Uint8Array, each: Each): void {
  const { reader, draft } = door
  let lines = 0
  eachLine(body, 0, (from, to) => {
    lines += 1
    each((index) => {
      readLine(reader, draft, body, from, to)
      judging.settle(index, body, from, to)
    })
  })
  if (lines === 0) throw new ReleveError('malformed_body', 'byte 0: the body is empty')
}

/** One line of NDJSON into the draft, which then says what is wrong with it, its syntax too. */
export function readLine(reader: JsonReader, draft: Draft, body: Uint8Array, from: number, to: number): void {
  try {
    reader.begin(body.subarray(from, to))
    readNative(reader, draft)
    reader.finish()
  } catch (error) {
    if (!(error instanceof ReleveError)) throw error
    draft.fail('malformed', '', `${error.message} (of this line)`)
  }
}

/** The meaning of a sound draft. Returns null when it is refused; the draft then says why. */
function vouch(door: Door, draft: Draft, request: IngestRequest): UsageEvent | null {
  // Tenant: a key bound to one never speaks for another, whether that one exists or not.
  if (request.tenant !== null && draft.tenant !== null && draft.tenant !== request.tenant) {
    return refused(draft, 'forbidden_tenant', 'tenant', `${quote(draft.tenant)} is not the tenant of the key`)
  }
  const tenant = request.tenant ?? draft.tenant
  if (tenant === null)
    return refused(draft, 'missing_field', 'tenant', 'this key has no tenant, so each event names its own')
  if (!door.tenants.has(tenant))
    return refused(draft, 'unknown_tenant', 'tenant', `${quote(tenant)} is not in the catalogue`)

  const { id } = draft
  if (id === null) return refused(draft, 'missing_field', 'id', 'an event has an id')
  if (id === '') return refused(draft, 'malformed', 'id', 'is empty')
  if (isLonger(id, limits.idBytesMax)) return tooLarge(draft, 'id', limits.idBytesMax)
  const source = draft.source ?? ''
  if (isLonger(source, limits.nameBytesMax)) return tooLarge(draft, 'source', limits.nameBytesMax)

  const key = draft.metric
  if (key === null) return refused(draft, 'missing_field', draft.names.metric, 'an event names its metric')
  if (key === '') return refused(draft, 'malformed', draft.names.metric, 'is empty')
  const found = door.metrics.get(key)
  if (found === undefined) {
    if (isLonger(key, limits.nameBytesMax)) return tooLarge(draft, draft.names.metric, limits.nameBytesMax)
    return refused(draft, 'unknown_metric', draft.names.metric, `${quote(key)} is not in the catalogue`)
  }
  const { metric } = found
  const subject = draft.subject ?? ''
  if (isLonger(subject, limits.nameBytesMax)) return tooLarge(draft, 'subject', limits.nameBytesMax)

  const kind = draft.kind ?? 'usage'
  if (kind !== 'usage' && kind !== 'void') {
    return refused(draft, 'malformed', 'kind', `must be "usage" or "void", is ${quote(kind)}`)
  }
  if (kind === 'void' && !metric.archive) {
    return refused(draft, 'void_unavailable', 'kind', `events of ${quote(key)} are not archived, so none can be voided`)
  }

  const untimed = draft.time === null
  if (kind === 'void' && untimed) {
    return refused(draft, 'missing_field', 'time', 'a void repeats the event that it takes back, with its time')
  }
  const eventTime = readEventTime(draft, request)
  if (eventTime === null) return null

  const dims = placeDims(door, found, draft, subject)
  if (dims === null) return null
  const value = readScaled(found, draft)
  if (value === null) return null
  return { tenant, source, id, metric, subject, eventTime, untimed, value, dims: dims.text, member: dims.member, kind }
}

function readEventTime(draft: Draft, request: IngestRequest): number | null {
  if (draft.time === null) return request.receivedAt
  const time = draft.timeIsNumber ? parseEpochMs(draft.time) : parseTime(draft.time)
  if (Number.isNaN(time)) {
    return refused(
      draft,
      'invalid_time',
      'time',
      `${quote(draft.time)} is no time: RFC 3339 with a zone, or whole epoch milliseconds`,
    )
  }
  if (time < request.floorTime) {
    return refused(draft, 'too_old', 'time', `${printTime(time)} is before ${printTime(request.floorTime)}`)
  }
  if (time > request.receivedAt + request.aheadMs) {
    return refused(
      draft,
      'too_far_ahead',
      'time',
      `${printTime(time)} is after ${printTime(request.receivedAt + request.aheadMs)}`,
    )
  }
  return time
}

const NO_DIMS = { text: '{}', member: '' }

/** Canonical dimensions, and the member that a unique metric counts. */
function placeDims(
  door: Door,
  found: DoorMetric,
  draft: Draft,
  subject: string,
): { text: string; member: string } | null {
  const { uniqueBy } = found.metric
  let member = uniqueBy === 'subject' ? subject : ''
  if (uniqueBy === null && draft.dimCount === 0) return NO_DIMS
  const { slots } = door
  const width = found.labels.length
  for (let slot = 0; slot < width; slot += 1) slots[slot] = undefined
  if (draft.strictDims && draft.dimCount - (uniqueBy === null || uniqueBy === 'subject' ? 0 : 1) > limits.dimsMax) {
    return refused(draft, 'too_many_dims', 'dims', `${draft.dimCount} members; at most ${limits.dimsMax}`)
  }
  for (let i = 0; i < draft.dimCount; i += 1) {
    const { name, text, trouble } = draft.dims[i]!
    const isMember = name === uniqueBy && uniqueBy !== 'subject'
    const slot = isMember ? -1 : found.slots.get(name)
    if (slot === undefined) {
      if (!draft.strictDims) continue
      return refused(
        draft,
        'unknown_dimension',
        draft.names.dims + name,
        `the metric ${quote(found.metric.key)} has no such dimension`,
      )
    }
    if (text === null) return refused(draft, 'malformed', draft.names.dims + name, trouble)
    if (isLonger(text, limits.nameBytesMax)) return tooLarge(draft, draft.names.dims + name, limits.nameBytesMax)
    if (isMember) member = text
    else slots[slot] = text
  }
  if (uniqueBy !== null && member === '') {
    const field = uniqueBy === 'subject' ? 'subject' : draft.names.dims + uniqueBy
    return refused(draft, 'missing_member', field, `the metric ${quote(found.metric.key)} counts it`)
  }
  let text = ''
  for (let slot = 0; slot < width; slot += 1) {
    const value = slots[slot]
    if (value !== undefined) text += `${text === '' ? '{' : ','}${dimText(door, found, slot, value)}`
  }
  return { text: text === '' ? '{}' : `${text}}`, member }
}

/** `"name":"value"`, remembered: writing JSON costs more than looking it up. */
function dimText(door: Door, found: DoorMetric, slot: number, value: string): string {
  const texts = found.texts[slot]!
  const known = texts.get(value)
  if (known !== undefined) return known
  if (door.dimTexts >= limits.dimTextsMax) {
    for (const one of door.metrics.values()) for (const map of one.texts) map.clear()
    door.dimTexts = 0
  }
  door.dimTexts += 1
  const text = found.labels[slot]! + JSON.stringify(value)
  texts.set(value, text)
  return text
}

const QUANTITY_CODES = {
  not_a_number: 'value_not_a_number',
  too_many_decimals: 'value_too_precise',
  out_of_range: 'value_out_of_range',
} as const satisfies Record<QuantityFault, Refusal['code']>

/**
 * The scaled value. A `count` counts events and a `unique` counts members: there the value means nothing, is stored as 1, and
 * a given one must be a number all the same.
 */
function readScaled(found: DoorMetric, draft: Draft): bigint | null {
  if (draft.value === null) return found.one
  const { scale } = found.metric
  const value = parseQuantity(draft.value, scale)
  if (typeof value === 'bigint') return found.countsValue ? value : found.one
  if (!found.countsValue && value !== 'not_a_number') return found.one
  const why = {
    not_a_number: 'is not a decimal number',
    too_many_decimals: `has more than the ${scale} decimals of the metric`,
    out_of_range: `is not within ±10^18 at ${scale} decimals, or has more than 64 characters`,
  }
  return refused(draft, QUANTITY_CODES[value], draft.names.value, `${quote(draft.value)} ${why[value]}`)
}

function refused(draft: Draft, code: Refusal['code'], field: string, message: string): null {
  draft.fail(code, field, message)
  return null
}

function tooLarge(draft: Draft, field: string, max: number): null {
  return refused(draft, 'too_large', field, `is longer than ${max} bytes`)
}

/** A refusal made of what could be read. It belongs to the tenant of the key, whatever tenant the event names. */
function refuse(draft: Draft, index: number, tenant: string, raw: string): Refusal {
  const max = limits.nameBytesMax
  return {
    index,
    code: draft.code!,
    field: cut(draft.field, max),
    message: draft.message,
    tenant: cut(tenant, max),
    source: cut(draft.source ?? '', max),
    id: cut(draft.id ?? '', max),
    metric: cut(draft.metric ?? '', max),
    raw,
  }
}

/** A UTF-16 unit is at most three bytes, so short texts are not counted. */
function isLonger(text: string, bytesMax: number): boolean {
  return text.length * 3 > bytesMax && Buffer.byteLength(text) > bytesMax
}

/** The beginning of a text, at most so many bytes, no character cut in two. */
function cut(text: string, bytesMax: number): string {
  if (!isLonger(text, bytesMax)) return text
  const bytes = Buffer.from(text.slice(0, bytesMax))
  let end = Math.min(bytes.length, bytesMax)
  while (end > 0 && end < bytes.length && (bytes[end]! & 0xc0) === 0x80) end -= 1
  return bytes.toString('utf8', 0, end)
}

/** Bytes as text; a character cut at the end is left out, a wrong byte is U+FFFD. */
function utf8(body: Uint8Array, start: number, end: number): string {
  return new TextDecoder().decode(body.subarray(start, end), { stream: true })
}

/** A value of the sender inside a message. */
function quote(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text)
}

function printTime(time: number): string {
  return Math.abs(time) <= 8.64e15 ? new Date(time).toISOString() : String(time)
}
