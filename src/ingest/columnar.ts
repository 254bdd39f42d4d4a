/**
 * The columnar frame (columnar.md): the native event by columns. Checked as a whole first, because its tables are shared by all
 * events; then written down as JSON (transcript.ts) event by event, and read as that. The plain path of the format, and the
 * oracle of workers/kernel/columnar.as.ts.
 *
 * Whatever reaches outside of the body, or does not add up, is `malformed_body` with the byte; what an event says about itself
 * (a kind or a number of decimals that nobody knows) is a fault of that event alone.
 */
import {
  COLUMNAR_DECIMALS_MAX,
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
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { Transcript } from './transcript.js'

const COMMA = 0x2c
const KIND_BITS = COLUMNAR_VOID | COLUMNAR_UNTIMED | COLUMNAR_TIME_TEXT

/** Throws ReleveError only. */
export function readColumnar(body: Uint8Array): Transcript {
  const columns = new ColumnarBody(body)
  const out = new Transcript(body.byteLength)
  for (let i = 0; i < columns.events; i += 1) columns.write(out, i)
  return out
}

/** A body whose every reference has been checked. */
export class ColumnarBody {
  readonly events: number
  readonly #bytes: Buffer
  readonly #at: ReturnType<typeof columnarLayout>
  /** First pair of each row, and behind the last one. */
  readonly #pairStarts: Uint32Array
  /** First byte of each event's id, and behind the last one. */
  readonly #idStarts: Uint32Array
  readonly #texts: number

  /** Throws `malformed_body` or `body_too_large`. */
  constructor(body: Uint8Array) {
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    this.#bytes = bytes
    if (bytes.length === 0) throw fault(0, 'the body is empty')
    if (bytes.length < COLUMNAR_HEADER_BYTES) throw fault(bytes.length, 'the body ends within its header')
    if (bytes.readUInt32LE(0) !== COLUMNAR_MAGIC) throw fault(0, 'a columnar body begins with «RCOL»')
    const version = bytes.readUInt16LE(4)
    if (version !== COLUMNAR_VERSION) throw fault(4, `version ${version}: this release reads ${COLUMNAR_VERSION}`)
    if (bytes.readUInt16LE(6) !== 0) throw fault(6, 'a reserved field is not 0')
    const [events, texts, textBytes, rows, pairs, idBytes] = [8, 12, 16, 20, 24, 28].map((at) =>
      bytes.readUInt32LE(at),
    ) as [number, number, number, number, number, number]
    if (events > limits.batchEventsMax) {
      throw new ReleveError('body_too_large', `more than ${limits.batchEventsMax} events (limits.batchEventsMax)`)
    }
    if (rows > events) throw fault(20, `${rows} rows for ${events} events`)
    const at = columnarLayout({ events, texts, textBytes, rows, pairs, idBytes })
    // From here on no count is larger than what stands behind it.
    if (at.length !== bytes.length) {
      throw fault(bytes.length, `the header says ${at.length} bytes, the body has ${bytes.length}`)
    }
    this.events = events
    this.#at = at
    this.#texts = texts

    let end = 0
    for (let i = 0, p = at.textEndsAt; i < texts; i += 1, p += 4) {
      const next = bytes.readUInt32LE(p)
      if (next < end || next > textBytes) throw fault(p, `the end of text ${i} is out of order`)
      end = next
    }
    if (end !== textBytes) throw fault(16, `the texts have ${end} bytes, not ${textBytes}`)

    this.#pairStarts = new Uint32Array(rows + 1)
    let pair = 0
    for (let i = 0, p = at.rowsAt; i < rows; i += 1, p += 4 * COLUMNAR_ROW_WORDS) {
      for (let word = 0; word < 4; word += 1) {
        if (bytes.readUInt32LE(p + 4 * word) > texts)
          throw fault(p + 4 * word, `row ${i} names a text that is not there`)
      }
      pair += bytes.readUInt32LE(p + 16)
      if (pair > pairs) throw fault(p + 16, `the rows have more than ${pairs} pairs`)
      this.#pairStarts[i + 1] = pair
    }
    if (pair !== pairs) throw fault(24, `the rows have ${pair} pairs, not ${pairs}`)
    for (let i = 0, p = at.pairsAt; i < 2 * pairs; i += 1, p += 4) {
      const text = bytes.readUInt32LE(p)
      if (text === 0 || text > texts) throw fault(p, `pair ${i >> 1} names a text that is not there`)
    }

    this.#idStarts = new Uint32Array(events + 1)
    let id = 0
    for (let i = 0; i < events; i += 1) {
      if (bytes.readUInt32LE(at.rowOfAt + 4 * i) >= rows) {
        throw fault(at.rowOfAt + 4 * i, `event ${i} names a row that is not there`)
      }
      id += bytes.readUInt16LE(at.idLengthsAt + 2 * i)
      this.#idStarts[i + 1] = id
    }
    if (id !== idBytes) throw fault(28, `the ids have ${id} bytes, not ${idBytes}`)
  }

  /** Writes one event, and what is wrong with it. */
  write(out: Transcript, index: number): void {
    const bytes = this.#bytes
    const at = this.#at
    out.event()
    out.ascii('{"id":')
    out.string(bytes, at.idsAt + this.#idStarts[index]!, at.idsAt + this.#idStarts[index + 1]!)
    const row = bytes.readUInt32LE(at.rowOfAt + 4 * index)
    const words = at.rowsAt + 4 * COLUMNAR_ROW_WORDS * row
    for (const [word, name] of ['tenant', 'source', 'metric', 'subject'].entries()) {
      const text = bytes.readUInt32LE(words + 4 * word)
      if (text === 0) continue
      out.ascii(`,"${name}":`)
      this.#text(out, text)
    }
    const kind = bytes[at.kindsAt + index]!
    if (kind > KIND_BITS || (kind & (COLUMNAR_UNTIMED | COLUMNAR_TIME_TEXT)) > COLUMNAR_TIME_TEXT) {
      out.fault('kind', `is ${kind}, which is no kind`)
    }
    if ((kind & COLUMNAR_UNTIMED) === 0) {
      const time = bytes.readDoubleLE(at.timesAt + 8 * index)
      out.ascii(',"time":')
      if ((kind & COLUMNAR_TIME_TEXT) !== 0) this.#textOf(out, 'time', time)
      else if (Number.isFinite(time)) out.ascii(String(time))
      else {
        out.ascii('null')
        out.fault('time', `is ${time}`)
      }
    }
    const decimals = bytes[at.decimalsAt + index]!
    if (decimals !== COLUMNAR_VALUE_ABSENT) {
      const value = bytes.readBigInt64LE(at.valuesAt + 8 * index)
      out.ascii(',"value":')
      if (decimals === COLUMNAR_VALUE_TEXT) this.#textOf(out, 'value', Number(value))
      else if (decimals <= COLUMNAR_DECIMALS_MAX) out.ascii(`"${decimalText(value, decimals)}"`)
      else {
        out.ascii('null')
        out.fault('value', `has ${decimals} decimals; at most ${COLUMNAR_DECIMALS_MAX}`)
      }
    }
    const to = this.#pairStarts[row + 1]!
    if (to > this.#pairStarts[row]!) {
      out.ascii(',"dims":{')
      for (let pair = this.#pairStarts[row]!; pair < to; pair += 1) {
        if (pair > this.#pairStarts[row]!) out.byte(COMMA)
        this.#text(out, bytes.readUInt32LE(at.pairsAt + 8 * pair))
        out.byte(0x3a)
        this.#text(out, bytes.readUInt32LE(at.pairsAt + 8 * pair + 4))
      }
      out.byte(0x7d)
    }
    out.ascii((kind & COLUMNAR_VOID) !== 0 ? ',"kind":"void"}' : '}')
  }

  /** A text of the table, by its number from 1 on. */
  #text(out: Transcript, number: number): void {
    const { textEndsAt, textsAt } = this.#at
    const from = number === 1 ? 0 : this.#bytes.readUInt32LE(textEndsAt + 4 * (number - 2))
    out.string(this.#bytes, textsAt + from, textsAt + this.#bytes.readUInt32LE(textEndsAt + 4 * (number - 1)))
  }

  /** The same where the number stands in a column of the event's own. */
  #textOf(out: Transcript, field: string, number: number): void {
    if (Number.isInteger(number) && number >= 1 && number <= this.#texts) this.#text(out, number)
    else {
      out.ascii('null')
      out.fault(field, `names a text that is not there`)
    }
  }
}

/** 12500 with 3 decimals is «12.500». */
function decimalText(value: bigint, decimals: number): string {
  if (decimals === 0) return String(value)
  const digits = String(value < 0n ? -value : value).padStart(decimals + 1, '0')
  return `${value < 0n ? '-' : ''}${digits.slice(0, -decimals)}.${digits.slice(-decimals)}`
}

function fault(at: number, what: string): ReleveError {
  return new ReleveError('malformed_body', `byte ${at}: ${what}`)
}
