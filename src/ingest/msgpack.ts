/**
 * msgpack: the native event as a map, or as a record of msgpackr (a definition once, then a byte for each). A body is one event,
 * an array of them, or several values one after the other. Written down as JSON (transcript.ts) and read as that.
 *
 * Numbers: integers of every width, 64 bits too, by their digits. A double that is whole and below 2^53 is that integer; another
 * is its shortest decimal text, the one that reads back as the same double (0.1 is "0.1", as a sender of JSON would write it);
 * from 2^53 on its last digits are not known and it is refused: send an integer or text. A single-precision float likewise, by
 * its own shortest text and below 2^24. NaN and the infinities are refused. Nothing is rounded here.
 * A timestamp (extension -1) is epoch milliseconds, cut; `undefined` (extension 0) is a member that is absent; every other
 * extension and `bin` are refused, in their event alone.
 * A body that ends within a value, a byte that no value begins with, nesting above limits.jsonDepthMax: `malformed_body` with
 * the byte, because behind it nobody knows where the next event begins.
 */
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { Transcript } from './transcript.js'

const DOUBLE_MAX = 2 ** 53
const SINGLE_MAX = 2 ** 24
const COMMA = 0x2c
const RECORD = 0x72

/** A name, as it lies in the body. */
interface Key {
  readonly from: number
  readonly to: number
}

/** Throws ReleveError only. */
export function readMsgpack(body: Uint8Array): Transcript {
  const reader = new MsgpackReader(body)
  reader.readAll()
  return reader.out
}

/** One event of a body that somebody else has read up to it. */
export interface MsgpackEvent {
  readonly written: Transcript
  /** The byte behind it. */
  readonly next: number
  /** Records that it has defined, in their order: number, and the byte where the array of names begins. */
  readonly defined: readonly (readonly [number: number, at: number])[]
}

/** `recordAt`: where the array of names of a record begins that stands before the event, -1 for none. Throws ReleveError only. */
export function readMsgpackEvent(body: Uint8Array, at: number, recordAt: (number: number) => number): MsgpackEvent {
  const reader = new MsgpackReader(body, recordAt)
  return { written: reader.out, next: reader.readOne(at), defined: reader.defined }
}

class MsgpackReader {
  readonly out: Transcript
  readonly defined: [number: number, at: number][] = []
  readonly #bytes: Buffer
  readonly #recordAt: (number: number) => number
  readonly #records = new Map<number, readonly Key[]>()
  #at = 0
  /** Names that lead to the value in hand; spelled out only when a fault asks for them. */
  readonly #path: Key[] = []

  constructor(body: Uint8Array, recordAt?: (number: number) => number) {
    this.#bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    this.#recordAt = recordAt ?? (() => -1)
    this.out = new Transcript(recordAt === undefined ? body.byteLength : 0)
  }

  readOne(at: number): number {
    this.#at = at
    this.out.event()
    this.#value(2)
    return this.#at
  }

  readAll(): void {
    if (this.#bytes.length === 0) throw new ReleveError('malformed_body', 'byte 0: the body is empty')
    while (this.#at < this.#bytes.length) {
      const count = this.#arrayAhead()
      for (let i = 0; i < (count ?? 1); i += 1) {
        this.out.event()
        this.#value(2)
      }
    }
  }

  /** Elements of the array that begins here, which is entered; null when it is something else. */
  #arrayAhead(): number | null {
    const first = this.#bytes[this.#at]!
    if (first >= 0x90 && first <= 0x9f) {
      this.#at += 1
      return first & 15
    }
    if (first !== 0xdc && first !== 0xdd) return null
    this.#at += 1
    return this.#unsigned(first === 0xdc ? 2 : 4)
  }

  #value(depth: number): void {
    const { out } = this
    const start = this.#at
    const first = this.#unsigned(1)
    if (first < 0x80) {
      const names = first >= 0x40 ? (this.#records.get(first) ?? this.#namesAt(first)) : undefined
      if (names !== undefined) this.#record(names, depth)
      else out.ascii(String(first))
    } else if (first < 0x90) this.#map(first & 15, depth)
    else if (first < 0xa0) this.#array(first & 15, depth)
    else if (first < 0xc0) this.#text(first & 31)
    else if (first >= 0xe0) out.ascii(String(first - 256))
    else {
      switch (first) {
        case 0xc0:
          out.ascii('null')
          break
        case 0xc2:
          out.ascii('false')
          break
        case 0xc3:
          out.ascii('true')
          break
        case 0xc4:
        case 0xc5:
        case 0xc6:
          this.#skip(this.#unsigned(1 << (first - 0xc4)))
          this.#refuse('is binary: send text')
          break
        case 0xc7:
        case 0xc8:
        case 0xc9:
          this.#extension(this.#unsigned(1 << (first - 0xc7)))
          break
        case 0xca:
          this.#single(this.#bytes.readFloatBE(this.#take(4)))
          break
        case 0xcb:
          this.#double(this.#bytes.readDoubleBE(this.#take(8)))
          break
        case 0xcc:
        case 0xcd:
        case 0xce:
          out.ascii(String(this.#unsigned(1 << (first - 0xcc))))
          break
        case 0xcf:
          out.ascii(String(this.#bytes.readBigUInt64BE(this.#take(8))))
          break
        case 0xd0:
          out.ascii(String(this.#bytes.readInt8(this.#take(1))))
          break
        case 0xd1:
          out.ascii(String(this.#bytes.readInt16BE(this.#take(2))))
          break
        case 0xd2:
          out.ascii(String(this.#bytes.readInt32BE(this.#take(4))))
          break
        case 0xd3:
          out.ascii(String(this.#bytes.readBigInt64BE(this.#take(8))))
          break
        case 0xd4:
          if (this.#peek() === RECORD) this.#definition(depth)
          else this.#extension(1)
          break
        case 0xd5:
          if (this.#peek() === RECORD) {
            throw new ReleveError('malformed_body', `byte ${start}: records numbered with two bytes are not read`)
          }
          this.#extension(2)
          break
        case 0xd6:
        case 0xd7:
        case 0xd8:
          this.#extension(1 << (first - 0xd4))
          break
        case 0xd9:
        case 0xda:
        case 0xdb:
          this.#text(this.#unsigned(1 << (first - 0xd9)))
          break
        case 0xdc:
        case 0xdd:
          this.#array(this.#unsigned(first === 0xdc ? 2 : 4), depth)
          break
        case 0xde:
        case 0xdf:
          this.#map(this.#unsigned(first === 0xde ? 2 : 4), depth)
          break
        default:
          throw new ReleveError('malformed_body', `byte ${start}: 0x${first.toString(16)} begins no value of msgpack`)
      }
    }
  }

  #map(members: number, depth: number): void {
    this.#deeper(depth)
    this.out.byte(0x7b)
    let written = false
    for (let i = 0; i < members; i += 1) {
      const key = this.#key()
      written = this.#member(key, written, depth)
    }
    this.out.byte(0x7d)
  }

  /** A key's bytes; null, with a fault, when it is no text: its value is then left out. */
  #key(): Key | null {
    const start = this.#at
    const first = this.#unsigned(1)
    let length = -1
    if (first >= 0xa0 && first < 0xc0) length = first & 31
    else if (first >= 0xd9 && first <= 0xdb) length = this.#unsigned(1 << (first - 0xd9))
    if (length >= 0) {
      const from = this.#take(length)
      return { from, to: from + length }
    }
    this.#at = start
    // Keys of one byte to nine are numbers, nil or booleans; a deeper one cannot be skipped without being read.
    const numeric =
      first < 0x80 || first >= 0xe0 || (first >= 0xc0 && first <= 0xc3) || (first >= 0xca && first <= 0xd3)
    if (!numeric) throw new ReleveError('malformed_body', `byte ${start}: the key of a map is no text`)
    const widths: Record<number, number> = { 202: 4, 204: 1, 205: 2, 206: 4, 208: 1, 209: 2, 210: 4 }
    const width = first >= 0xca && first <= 0xd3 ? (widths[first] ?? 8) : 0
    this.#skip(1 + width)
    this.#refuse('has a key that is no text', false)
    return null
  }

  #record(names: readonly Key[], depth: number): void {
    this.#deeper(depth)
    this.out.byte(0x7b)
    let written = false
    for (const name of names) written = this.#member(name, written, depth)
    this.out.byte(0x7d)
  }

  /** fixext 1 of type «r»: the number of a record, the array of its names, and its first use. */
  #definition(depth: number): void {
    const start = this.#at
    this.#skip(1)
    const number = this.#unsigned(1)
    if (number < 0x40 || number > 0x7f) {
      throw new ReleveError('malformed_body', `byte ${start}: a record has a number from 64 to 127, this is ${number}`)
    }
    this.defined.push([number, this.#at])
    const names = this.#names()
    this.#records.set(number, names)
    this.#record(names, depth)
  }

  /** Names of a record that was defined before the event in hand. */
  #namesAt(number: number): readonly Key[] | undefined {
    const at = this.#recordAt(number)
    if (at < 0) return undefined
    const back = this.#at
    this.#at = at
    const names = this.#names()
    this.#at = back
    this.#records.set(number, names)
    return names
  }

  #names(): readonly Key[] {
    const count = this.#at < this.#bytes.length ? this.#arrayAhead() : null
    if (count === null) throw new ReleveError('malformed_body', `byte ${this.#at}: a record has an array of names`)
    const names: Key[] = []
    for (let i = 0; i < count; i += 1) {
      const name = this.#key()
      if (name === null) throw new ReleveError('malformed_body', `byte ${this.#at}: the name of a record is no text`)
      names.push(name)
    }
    return names
  }

  /** One member, unless its value is `undefined`. Returns whether the object now has any. */
  #member(key: Key | null, written: boolean, depth: number): boolean {
    if (this.#isUndefined()) {
      this.#skip(3)
      return written
    }
    if (written) this.out.byte(COMMA)
    if (key === null) {
      this.out.ascii('"":')
      this.#value(depth + 1)
      return true
    }
    this.out.string(this.#bytes, key.from, key.to)
    this.out.byte(0x3a)
    this.#path.push(key)
    this.#value(depth + 1)
    this.#path.pop()
    return true
  }

  #isUndefined(): boolean {
    const at = this.#at
    return at + 2 < this.#bytes.length && this.#bytes[at] === 0xd4 && this.#bytes[at + 1] === 0
  }

  #array(elements: number, depth: number): void {
    this.#deeper(depth)
    this.out.byte(0x5b)
    for (let i = 0; i < elements; i += 1) {
      if (i > 0) this.out.byte(COMMA)
      this.#value(depth + 1)
    }
    this.out.byte(0x5d)
  }

  #text(length: number): void {
    const from = this.#take(length)
    this.out.string(this.#bytes, from, from + length)
  }

  #double(value: number): void {
    if (!Number.isFinite(value)) this.#refuse(`is ${value}`)
    else if (Math.abs(value) >= DOUBLE_MAX) {
      this.#refuse('is a float of 2^53 or more, whose last digits are lost: send an integer or text')
    } else this.out.ascii(String(value))
  }

  #single(value: number): void {
    if (!Number.isFinite(value)) this.#refuse(`is ${value}`)
    else if (Math.abs(value) >= SINGLE_MAX) {
      this.#refuse(
        'is a float of single precision of 2^24 or more, whose last digits are lost: send an integer or text',
      )
    } else {
      // Nine digits always lead back to the same float; the fewest that do are what was meant.
      let digits = 1
      while (Math.fround(Number(value.toPrecision(digits))) !== value) digits += 1
      this.out.ascii(String(Number(value.toPrecision(digits))))
    }
  }

  /** Behind its marker stand a type of one byte and so many bytes. */
  #extension(length: number): void {
    const type = this.#bytes.readInt8(this.#take(1))
    const from = this.#take(length)
    if (type === 0 && length === 1) this.out.ascii('null')
    else if (type === -1 && (length === 4 || length === 8 || length === 12)) this.#timestamp(from, length)
    else this.#refuse(`is extension ${type} of msgpack: send text or a number`)
  }

  #timestamp(from: number, length: number): void {
    const bytes = this.#bytes
    let seconds: bigint
    let nanoseconds: number
    if (length === 4) {
      seconds = BigInt(bytes.readUInt32BE(from))
      nanoseconds = 0
    } else if (length === 8) {
      const word = bytes.readBigUInt64BE(from)
      seconds = word & 0x3_ffff_ffffn
      nanoseconds = Number(word >> 34n)
    } else {
      nanoseconds = bytes.readUInt32BE(from)
      seconds = bytes.readBigInt64BE(from + 4)
    }
    if (nanoseconds > 999_999_999) this.#refuse('is a timestamp of more than 999999999 nanoseconds')
    else this.out.ascii(String(seconds * 1_000n + BigInt(Math.floor(nanoseconds / 1_000_000))))
  }

  #refuse(why: string, isValue = true): void {
    const names = this.#path.map(({ from, to }) =>
      this.#bytes.toString('utf8', from, Math.min(to, from + limits.nameBytesMax)),
    )
    this.out.fault(names.join('.'), why)
    if (isValue) this.out.ascii('null')
  }

  #deeper(depth: number): void {
    if (depth > limits.jsonDepthMax) {
      throw new ReleveError('malformed_body', `byte ${this.#at}: nested deeper than ${limits.jsonDepthMax} levels`)
    }
  }

  #peek(): number {
    return this.#at < this.#bytes.length ? this.#bytes[this.#at]! : -1
  }

  #unsigned(width: number): number {
    return this.#bytes.readUIntBE(this.#take(width), width)
  }

  #skip(length: number): void {
    this.#take(length)
  }

  /** Moves behind so many bytes and returns where they begin. */
  #take(length: number): number {
    const at = this.#at
    if (at + length > this.#bytes.length) {
      throw new ReleveError('malformed_body', `byte ${this.#bytes.length}: the body ends within a value of msgpack`)
    }
    this.#at = at + length
    return at
  }
}
