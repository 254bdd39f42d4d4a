/**
 * Encoder: events to a columnar body (src/ingest/columnar.md), one `add` each, no object kept. Synchronous and pure.
 *
 * What made it faster than JSON.stringify: ids and texts are gathered as one string each and encoded by one native call; a text
 * that repeats is looked up and not written; a row (tenant, source, metric, subject, dims) is found by its numbers and not by a
 * concatenated key; an i64 is two words of a double's halves and never a BigInt. bench/decode.bench.ts measures it.
 *
 * Memory: the columns of `eventsMax` events, the texts of one batch, and the table of texts, which keeps at most TEXTS_MAX.
 */
import { assert } from '../assert.js'
import {
  COLUMNAR_HEADER_BYTES,
  COLUMNAR_MAGIC,
  COLUMNAR_ROW_WORDS,
  COLUMNAR_TIME_TEXT,
  COLUMNAR_UNTIMED,
  COLUMNAR_VALUE_ABSENT,
  COLUMNAR_VALUE_TEXT,
  COLUMNAR_VERSION,
  COLUMNAR_VOID,
  columnarLayout,
} from '../columnar.js'
import { parseTime } from '../ingest/time.js'
import { limits } from '../limits.js'
import { type ClientEvent, EventError } from './event.js'

/** Texts that are remembered from batch to batch; all are forgotten at the bound. */
const TEXTS_MAX = 65_536
/** Longer ones are remembered within their batch only, so that the table is at most 16 MiB of them. */
const TEXT_LENGTH_MAX = 256
/** Digits that a double holds exactly, whatever they are. */
const EXACT_DIGITS = 15
const I64_MAX = 2n ** 63n - 1n
const HALF = 4_294_967_296
/** Of an event as JSON, beside its texts: names, punctuation, time and value. */
const JSON_OVERHEAD = 180
const JSON_PAIR_OVERHEAD = 8
const LONE_SURROGATE = /\p{Cs}/u
const LONE_SURROGATES = /\p{Cs}/gu
const DIGITS = /^-?(?:0|[1-9][0-9]*)(?:\.([0-9]+))?$/

export class BatchEncoder {
  readonly #eventsMax: number
  readonly #eventJsonMax: number
  #events = 0
  #voids = 0

  readonly #times: Float64Array
  readonly #values: Int32Array
  readonly #rowOf: Uint32Array
  readonly #idLengths: Uint16Array
  readonly #decimals: Uint8Array
  readonly #kinds: Uint8Array
  #ids = ''

  // Texts of this batch, and of all batches: place in the batch, valid where `batch` is the stamp.
  #text = ''
  #textCount = 0
  #textLengths = new Uint32Array(256)
  readonly #slots = new Map<string, number>()
  readonly #longTexts = new Map<string, number>()
  readonly #stamps = new Uint32Array(TEXTS_MAX)
  readonly #numbers = new Uint32Array(TEXTS_MAX)
  #batch = 1

  // Rows of this batch: words as they are written, pairs behind each other, and a table of them with linear probing.
  #rowCount = 0
  readonly #rows: Uint32Array
  #pairCount = 0
  #pairs = new Uint32Array(512)
  readonly #pairStarts: Uint32Array
  readonly #rowJson: Float64Array
  readonly #table: Uint32Array
  readonly #mask: number
  #jsonBytes = 0

  /** `eventJsonMax`: what one event may be as JSON, about. */
  constructor(eventsMax: number, eventJsonMax: number = limits.clientEventJsonMax) {
    this.#eventJsonMax = eventJsonMax
    assert(eventsMax >= 1 && eventsMax <= limits.batchEventsMax, 'a batch has 1 to limits.batchEventsMax events')
    this.#eventsMax = eventsMax
    this.#times = new Float64Array(eventsMax)
    this.#values = new Int32Array(2 * eventsMax)
    this.#rowOf = new Uint32Array(eventsMax)
    this.#idLengths = new Uint16Array(eventsMax)
    this.#decimals = new Uint8Array(eventsMax)
    this.#kinds = new Uint8Array(eventsMax)
    this.#rows = new Uint32Array(COLUMNAR_ROW_WORDS * eventsMax)
    this.#pairStarts = new Uint32Array(eventsMax + 1)
    this.#rowJson = new Float64Array(eventsMax)
    const slots = 2 ** Math.ceil(Math.log2(2 * eventsMax))
    this.#table = new Uint32Array(slots)
    this.#mask = slots - 1
  }

  get events(): number {
    return this.#events
  }

  get voids(): number {
    return this.#voids
  }

  get full(): boolean {
    return this.#events === this.#eventsMax
  }

  /** About what `take` will return, in bytes; exact when all texts are ASCII. */
  get bytes(): number {
    return (
      COLUMNAR_HEADER_BYTES +
      28 * this.#events +
      4 * (this.#textCount + COLUMNAR_ROW_WORDS * this.#rowCount + 2 * this.#pairCount) +
      this.#ids.length +
      this.#text.length
    )
  }

  /** About the same as JSON: the service bounds what a body says, not only how short it says it. */
  get jsonBytes(): number {
    return this.#jsonBytes
  }

  /** Throws EventError, and then the event is not in the batch. */
  add(event: ClientEvent): void {
    assert(this.#events < this.#eventsMax, 'the batch is full')
    const i = this.#events
    const { id, dims } = event
    if (typeof id !== 'string') throw new EventError('id must be a string')
    if (id.length > 4 * limits.idBytesMax) throw new EventError(`id has more than ${4 * limits.idBytesMax} characters`)
    // At the seam to its neighbour half of a pair would become a whole one.
    if ((id.charCodeAt(0) & 0xfc00) === 0xdc00 || (id.charCodeAt(id.length - 1) & 0xfc00) === 0xd800) {
      throw new EventError('id has half of a surrogate pair')
    }
    const { tenant, source, metric, subject, kind } = event
    if (kind !== undefined && kind !== 'usage' && kind !== 'void') throw new EventError('kind is «usage» or «void»')
    this.#decimals[i] = this.#putValue(i, event.value)
    const timed = this.#putTime(i, event.time)
    this.#kinds[i] = kind === 'void' ? timed | COLUMNAR_VOID : timed

    // The row: its pairs go behind those of the last one, and stay there when no row is the same.
    const firstPair = this.#pairCount
    let json = JSON_OVERHEAD
    let hash = 0
    const a = tenant === undefined ? 0 : this.#number(tenant, 'tenant')
    const b = source === undefined ? 0 : this.#number(source, 'source')
    const c = this.#number(metric, 'metric')
    const d = subject === undefined ? 0 : this.#number(subject, 'subject')
    hash = Math.imul(Math.imul(Math.imul(a + 31, 0x9e3779b1) ^ b, 0x85ebca6b) ^ c, 0xc2b2ae35) ^ d
    let pairs = firstPair
    if (dims !== undefined) {
      for (const name in dims) {
        const value = dims[name]
        if (value === undefined) continue
        const text = typeof value === 'string' ? value : dimText(value, name)
        if (2 * pairs + 2 > this.#pairs.length) this.#growPairs()
        const n = this.#number(name, 'dims')
        const v = this.#number(text, name)
        this.#pairs[2 * pairs] = n
        this.#pairs[2 * pairs + 1] = v
        hash = Math.imul(Math.imul(hash ^ n, 0x9e3779b1) ^ v, 0x85ebca6b)
        json += name.length + text.length + JSON_PAIR_OVERHEAD
        pairs += 1
      }
    }
    hash ^= hash >>> 15
    const row = this.#findRow(hash, a, b, c, d, firstPair, pairs - firstPair)
    if (row === this.#rowCount) {
      json += metric.length + (tenant?.length ?? 0) + (source?.length ?? 0) + (subject?.length ?? 0)
      if (json > this.#eventJsonMax) throw new EventError('the event is too large for a body')
      const words = COLUMNAR_ROW_WORDS * row
      this.#rows[words] = a
      this.#rows[words + 1] = b
      this.#rows[words + 2] = c
      this.#rows[words + 3] = d
      this.#rows[words + 4] = pairs - firstPair
      this.#rowJson[row] = json
      this.#pairCount = pairs
      this.#rowCount += 1
      this.#pairStarts[this.#rowCount] = pairs
    }
    this.#rowOf[i] = row
    this.#jsonBytes += this.#rowJson[row]! + id.length
    this.#idLengths[i] = id.length
    this.#ids += id
    this.#events += 1
    if (kind === 'void') this.#voids += 1
  }

  /** Forgets the batch. */
  clear(): void {
    this.#events = 0
    this.#voids = 0
    this.#ids = ''
    this.#text = ''
    this.#textCount = 0
    this.#rowCount = 0
    this.#pairCount = 0
    this.#jsonBytes = 0
    this.#table.fill(0)
    this.#longTexts.clear()
    this.#batch += 1
    // A text needs a slot at any time of a batch: so there is room for the texts of one.
    if (this.#slots.size > TEXTS_MAX / 2 || this.#batch === 0xffff_ffff) {
      this.#slots.clear()
      this.#stamps.fill(0)
      this.#batch = 1
    }
  }

  /** The body, in a buffer of its own; the encoder is empty afterwards. */
  take(): Uint8Array {
    const n = this.#events
    const ids = this.#ids
    const text = this.#text
    const idBytes = Buffer.byteLength(ids)
    const textBytes = Buffer.byteLength(text)
    // Lengths were counted in UTF-16 units: right where all of it is ASCII.
    if (idBytes !== ids.length) bytesOf(ids, this.#idLengths, n)
    if (textBytes !== text.length) bytesOf(text, this.#textLengths, this.#textCount)
    const counts = {
      events: n,
      texts: this.#textCount,
      textBytes,
      rows: this.#rowCount,
      pairs: this.#pairCount,
      idBytes,
    }
    const at = columnarLayout(counts)
    const bytes = Buffer.from(new ArrayBuffer(at.length))
    bytes.writeUInt32LE(COLUMNAR_MAGIC, 0)
    bytes.writeUInt16LE(COLUMNAR_VERSION, 4)
    for (const [i, count] of Object.values(counts).entries()) bytes.writeUInt32LE(count, 8 + 4 * i)
    const put = (from: number, column: Float64Array | Int32Array | Uint32Array | Uint16Array | Uint8Array): void => {
      bytes.set(new Uint8Array(column.buffer, column.byteOffset, column.byteLength), from)
    }
    put(at.timesAt, this.#times.subarray(0, n))
    put(at.valuesAt, this.#values.subarray(0, 2 * n))
    put(at.rowOfAt, this.#rowOf.subarray(0, n))
    const ends = new Uint32Array(bytes.buffer, at.textEndsAt, this.#textCount)
    let end = 0
    for (let i = 0; i < ends.length; i += 1) {
      end += this.#textLengths[i]!
      ends[i] = end
    }
    put(at.rowsAt, this.#rows.subarray(0, COLUMNAR_ROW_WORDS * this.#rowCount))
    put(at.pairsAt, this.#pairs.subarray(0, 2 * this.#pairCount))
    put(at.idLengthsAt, this.#idLengths.subarray(0, n))
    put(at.decimalsAt, this.#decimals.subarray(0, n))
    put(at.kindsAt, this.#kinds.subarray(0, n))
    if (textBytes === text.length) bytes.write(text, at.textsAt, 'latin1')
    else bytes.write(text, at.textsAt)
    if (idBytes === ids.length) bytes.write(ids, at.idsAt, 'latin1')
    else {
      bytes.write(ids, at.idsAt)
      spoil(bytes, at.idsAt, ids)
    }
    this.clear()
    return bytes
  }

  /** The number of a text in this batch, from 1 on. */
  #number(text: string, field: string): number {
    const slot = this.#slots.get(text)
    if (slot !== undefined && this.#stamps[slot] === this.#batch) return this.#numbers[slot]!
    return this.#addText(text, field, slot)
  }

  #addText(text: string, field: string, known: number | undefined): number {
    if (known === undefined) {
      const number = this.#longTexts.get(text)
      if (number !== undefined) return number
      if (typeof text !== 'string') throw new EventError(`${field} must be a string`)
      checkText(text, field)
    }
    if (this.#textCount === this.#textLengths.length) {
      const larger = new Uint32Array(2 * this.#textCount)
      larger.set(this.#textLengths)
      this.#textLengths = larger
    }
    this.#textLengths[this.#textCount] = text.length
    this.#textCount += 1
    this.#text += text
    const slot = known ?? this.#slots.size
    if (text.length <= TEXT_LENGTH_MAX && slot < TEXTS_MAX) {
      if (known === undefined) this.#slots.set(text, slot)
      this.#stamps[slot] = this.#batch
      this.#numbers[slot] = this.#textCount
    } else this.#longTexts.set(text, this.#textCount)
    return this.#textCount
  }

  #findRow(hash: number, a: number, b: number, c: number, d: number, firstPair: number, count: number): number {
    const rows = this.#rows
    const pairs = this.#pairs
    let slot = hash & this.#mask
    for (;;) {
      const entry = this.#table[slot]!
      if (entry === 0) {
        this.#table[slot] = this.#rowCount + 1
        return this.#rowCount
      }
      const at = COLUMNAR_ROW_WORDS * (entry - 1)
      if (rows[at] === a && rows[at + 1] === b && rows[at + 2] === c && rows[at + 3] === d && rows[at + 4] === count) {
        let i = 2 * count - 1
        const from = 2 * this.#pairStarts[entry - 1]!
        while (i >= 0 && pairs[from + i] === pairs[2 * firstPair + i]) i -= 1
        if (i < 0) return entry - 1
      }
      slot = (slot + 1) & this.#mask
    }
  }

  /** Writes the mantissa and returns the decimals. */
  #putValue(i: number, value: ClientEvent['value']): number {
    if (typeof value === 'string') return this.#putDecimal(i, value)
    if (value === undefined) {
      this.#putWords(i, 0)
      return COLUMNAR_VALUE_ABSENT
    }
    if (typeof value === 'number') {
      if (Number.isSafeInteger(value)) {
        this.#putWords(i, value)
        return 0
      }
      if (!Number.isFinite(value)) throw new EventError(`value is ${value}`)
      return this.#putDecimal(i, String(value))
    }
    if (typeof value === 'bigint') return this.#putDecimal(i, String(value))
    throw new EventError('value must be decimal text, a number or a bigint')
  }

  #putDecimal(i: number, text: string): number {
    const { length } = text
    const start = text.charCodeAt(0) === 0x2d ? 1 : 0
    let mantissa = 0
    let point = -1
    let at = start
    for (; at < length && length <= EXACT_DIGITS + 2; at += 1) {
      const code = text.charCodeAt(at)
      if (code >= 0x30 && code <= 0x39) mantissa = mantissa * 10 + (code - 0x30)
      else if (code === 0x2e && point < 0) point = at
      else break
    }
    const whole = (point < 0 ? length : point) - start
    const isPlain =
      at === length &&
      whole > 0 &&
      point !== length - 1 &&
      (whole === 1 || text.charCodeAt(start) !== 0x30) &&
      length - start - (point < 0 ? 0 : 1) <= EXACT_DIGITS
    if (isPlain) {
      this.#putWords(i, start === 1 ? -mantissa : mantissa)
      return point < 0 ? 0 : length - point - 1
    }
    return this.#putLongDecimal(i, text)
  }

  #putLongDecimal(i: number, text: string): number {
    const match = text.length <= 24 ? DIGITS.exec(text) : null
    const decimals = match?.[1]?.length ?? 0
    const mantissa = match === null ? null : BigInt(text.replace('.', ''))
    if (mantissa === null || decimals > 18 || mantissa > I64_MAX || mantissa < -I64_MAX) {
      this.#putWords(i, this.#number(text, 'value'))
      return COLUMNAR_VALUE_TEXT
    }
    this.#values[2 * i] = Number(BigInt.asIntN(32, mantissa))
    this.#values[2 * i + 1] = Number(mantissa >> 32n)
    return decimals
  }

  /** A whole double as an i64, by its halves. */
  #putWords(i: number, value: number): void {
    const high = Math.floor(value / HALF)
    this.#values[2 * i] = (value - high * HALF) | 0
    this.#values[2 * i + 1] = high
  }

  /** Writes the time and returns the bits of its kind. */
  #putTime(i: number, time: ClientEvent['time']): number {
    if (time === undefined) {
      this.#times[i] = 0
      return COLUMNAR_UNTIMED
    }
    if (typeof time === 'string') {
      const ms = parseTime(time)
      if (!Number.isNaN(ms)) {
        this.#times[i] = ms
        return 0
      }
      this.#times[i] = this.#number(time, 'time')
      return COLUMNAR_TIME_TEXT
    }
    const ms = typeof time === 'number' ? time : time instanceof Date ? time.getTime() : Number.NaN
    if (!Number.isFinite(ms)) throw new EventError('time must be RFC 3339 text, epoch milliseconds or a Date')
    this.#times[i] = ms
    return 0
  }

  #growPairs(): void {
    const larger = new Uint32Array(2 * this.#pairs.length)
    larger.set(this.#pairs)
    this.#pairs = larger
  }
}

function dimText(value: unknown, name: string): string {
  if (typeof value === 'boolean' || (typeof value === 'number' && Number.isFinite(value))) return String(value)
  throw new EventError(`dims.${name} must be a string, a number or a boolean`)
}

/** Half of a surrogate pair alone has no UTF-8; it would arrive as another character. */
function checkText(text: string, field: string): void {
  if (LONE_SURROGATE.test(text)) throw new EventError(`${field} has half of a surrogate pair`)
}

/**
 * Half of a surrogate pair was written as U+FFFD, and two ids would be one: its own three bytes instead, which are no UTF-8, so
 * that the service refuses the event as it does in JSON.
 */
function spoil(bytes: Buffer, idsAt: number, ids: string): void {
  let from = 0
  let at = idsAt
  for (const { 0: half, index } of ids.matchAll(LONE_SURROGATES)) {
    at += Buffer.byteLength(ids.slice(from, index))
    const unit = half.charCodeAt(0)
    bytes[at] = 0xe0 | (unit >> 12)
    bytes[at + 1] = 0x80 | ((unit >> 6) & 0x3f)
    bytes[at + 2] = 0x80 | (unit & 0x3f)
    from = index
  }
}

/** Lengths in UTF-16 units to lengths in UTF-8 bytes, of the parts of a text. */
function bytesOf(text: string, lengths: Uint16Array | Uint32Array, count: number): void {
  let from = 0
  for (let i = 0; i < count; i += 1) {
    const to = from + lengths[i]!
    lengths[i] = Buffer.byteLength(text.slice(from, to))
    from = to
  }
}
