/**
 * Transcript: a body of another format written down as the JSON that says the same, so that one reader gives one meaning to
 * all of them: the same verdicts, the same field names, the same bytes in the log. Stands in front of json.ts.
 *
 *   msgpack.ts, csv.ts --> transcript --> json.ts --> native.ts --> ...
 *
 * What a format can say and JSON cannot (a NaN, a key that is no text, a row with a cell too many) is a fault, noted beside the
 * event it belongs to; its other members are written all the same, for the refusal to name. Texts are copied byte by byte:
 * what is no UTF-8 stays so, and is refused by the reader of JSON. A short body that unfolds to a long text (a table of names
 * used over and over) stops at limits.bodyBytesMax.
 */
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'

/** What is wrong with one event of a transcript, found before its text was read. */
export interface TranscriptFault {
  readonly field: string
  readonly message: string
}

const COMMA = 0x2c
const QUOTE = 0x22
const HEX = '0123456789abcdef'

export class Transcript {
  readonly faults = new Map<number, TranscriptFault>()
  #bytes: Buffer
  #length = 1
  #events = 0

  /** `hint`: bytes of the body; the text is about as long. */
  constructor(hint: number) {
    this.#bytes = Buffer.allocUnsafe(Math.max(256, hint + (hint >>> 1)))
    this.#bytes[0] = 0x5b
  }

  /** Begins the next event. Throws `body_too_large` when there are too many. */
  event(): void {
    if (this.#events === limits.batchEventsMax) {
      throw new ReleveError('body_too_large', `more than ${limits.batchEventsMax} events (limits.batchEventsMax)`)
    }
    if (this.#events > 0) this.byte(COMMA)
    this.#events += 1
  }

  /** Of several faults of one event the first is told. */
  fault(field: string, message: string): void {
    const index = this.#events - 1
    if (!this.faults.has(index)) this.faults.set(index, { field, message })
  }

  byte(value: number): void {
    this.#grow(1)
    this.#bytes[this.#length] = value
    this.#length += 1
  }

  /** Text of JSON's own: punctuation, numbers, literals. ASCII. */
  ascii(text: string): void {
    this.#grow(text.length)
    this.#length += this.#bytes.write(text, this.#length, 'latin1')
  }

  /** A value that is JSON already. */
  bytes(json: Uint8Array): void {
    this.#grow(json.length)
    this.#bytes.set(json, this.#length)
    this.#length += json.length
  }

  /** A string of JSON whose characters are these bytes, presumably UTF-8. */
  string(source: Uint8Array, from: number, to: number): void {
    this.#grow(6 * (to - from) + 2)
    const bytes = this.#bytes
    let length = this.#length
    bytes[length++] = QUOTE
    for (let at = from; at < to; at += 1) {
      const byte = source[at]!
      if (byte === QUOTE || byte === 0x5c) {
        bytes[length++] = 0x5c
        bytes[length++] = byte
      } else if (byte < 0x20) {
        length += bytes.write(`\\u00${HEX[byte >>> 4]}${HEX[byte & 15]}`, length, 'latin1')
      } else {
        bytes[length++] = byte
      }
    }
    bytes[length++] = QUOTE
    this.#length = length
  }

  /** The whole as JSON, an array. Throws `body_too_large` when that is more than a body may be. */
  finish(): Uint8Array {
    this.byte(0x5d)
    this.#check()
    return this.#bytes.subarray(0, this.#length)
  }

  #grow(room: number): void {
    const wanted = this.#length + room
    if (wanted <= this.#bytes.length) return
    // Room is asked for the worst case, six bytes for one: the bound is on what is written.
    this.#check()
    const larger = Buffer.allocUnsafe(Math.max(wanted, 2 * this.#bytes.length))
    this.#bytes.copy(larger, 0, 0, this.#length)
    this.#bytes = larger
  }

  #check(): void {
    if (this.#length > limits.bodyBytesMax) {
      throw new ReleveError('body_too_large', `the body is more than ${limits.bodyBytesMax} bytes when written as JSON`)
    }
  }
}
