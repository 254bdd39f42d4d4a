/**
 * RowBinary: the bytes that ClickHouse reads without parsing. A growing buffer with one method per column type.
 *
 * Nothing is validated inside the loop. Preconditions, kept by the callers: numbers are whole and within the column's range
 * (a u64 or i64 given as a number is a safe integer), a decimal fits 127 bits and comes at the column's scale, text is well
 * formed (it came out of UTF-8). The order of calls is the order of the columns in sql/clickhouse.
 */
import { assert } from '../assert.js'

const BYTES_MIN = 64 * 1024
/** A buffer that grew beyond this is not kept for the next chunk. */
const BYTES_KEPT_MAX = 16 * 1024 * 1024
/** Below this many characters a loop is faster than the call into the engine's encoder; measured in bench/aggregate.bench.ts. */
const LOOP_CHARS_MAX = 32
const I64_MAX = 2n ** 63n - 1n
const I64_MIN = -(2n ** 63n)

export class RowBinary {
  #bytes = Buffer.allocUnsafeSlow(BYTES_MIN)
  #view = new DataView(this.#bytes.buffer)
  #at = 0

  /** Bytes written since the last `take`. */
  get length(): number {
    return this.#at
  }

  /** What was written, in an ArrayBuffer of its own, so that it can be transferred; the writer is empty afterwards. */
  take(): Uint8Array<ArrayBuffer> {
    const taken = new Uint8Array(this.#bytes.buffer.slice(0, this.#at) as ArrayBuffer)
    this.#at = 0
    if (this.#bytes.length > BYTES_KEPT_MAX) this.#replace(Buffer.allocUnsafeSlow(BYTES_MIN))
    return taken
  }

  u8(value: number): void {
    this.#reserve(1)
    this.#bytes[this.#at] = value
    this.#at += 1
  }

  i8(value: number): void {
    this.u8(value & 0xff)
  }

  u16(value: number): void {
    this.#reserve(2)
    this.#view.setUint16(this.#at, value, true)
    this.#at += 2
  }

  u32(value: number): void {
    this.#reserve(4)
    this.#view.setUint32(this.#at, value, true)
    this.#at += 4
  }

  /** UInt64 or Int64 from a safe integer: the low half is taken modulo 2^32, the high half rounds down, so negatives work. */
  i64(value: number): void {
    this.#reserve(8)
    this.#view.setInt32(this.#at, value | 0, true)
    this.#view.setInt32(this.#at + 4, Math.floor(value / 0x1_0000_0000), true)
    this.#at += 8
  }

  /** Decimal(38, s): the value × 10^s as Int128. */
  decimal(scaled: bigint): void {
    this.#reserve(16)
    const view = this.#view
    const at = this.#at
    // setBigInt64 keeps the low 64 bits of whatever it is given.
    view.setBigInt64(at, scaled, true)
    if (scaled <= I64_MAX && scaled >= I64_MIN) {
      const sign = scaled < 0n ? -1 : 0
      view.setInt32(at + 8, sign, true)
      view.setInt32(at + 12, sign, true)
    } else {
      view.setBigInt64(at + 8, scaled >> 64n, true)
    }
    this.#at += 16
  }

  /** DateTime from epoch milliseconds: whole seconds since 1970, until 2106. */
  seconds(time: number): void {
    this.u32(Math.floor(time / 1000))
  }

  /** String and LowCardinality(String). */
  string(text: string): void {
    const chars = text.length
    this.#reserve(5 + 3 * chars)
    if (chars <= LOOP_CHARS_MAX && this.#ascii(text)) return
    if (chars * 3 < 0x80) {
      // The length fits one byte whatever the characters are, so it can be filled in afterwards.
      const written = this.#bytes.write(text, this.#at + 1)
      this.#bytes[this.#at] = written
      this.#at += 1 + written
      return
    }
    this.#varint(Buffer.byteLength(text))
    this.#at += this.#bytes.write(text, this.#at)
  }

  /** A String whose UTF-8 bytes are at hand. */
  stringBytes(source: Uint8Array, from: number, to: number): void {
    this.#reserve(5 + to - from)
    this.#varint(to - from)
    this.#copy(source, from, to)
  }

  /** Bytes as they are: columns that were encoded before. */
  raw(source: Uint8Array, from: number, to: number): void {
    this.#reserve(to - from)
    this.#copy(source, from, to)
  }

  /** FixedString from latin1 text, one character a byte. */
  latin1(text: string): void {
    this.#reserve(text.length)
    for (let i = 0; i < text.length; i += 1) this.#bytes[this.#at + i] = text.charCodeAt(i)
    this.#at += text.length
  }

  #ascii(text: string): boolean {
    const bytes = this.#bytes
    const start = this.#at + 1
    const chars = text.length
    for (let i = 0; i < chars; i += 1) {
      const code = text.charCodeAt(i)
      if (code > 0x7f) return false
      bytes[start + i] = code
    }
    bytes[this.#at] = chars
    this.#at = start + chars
    return true
  }

  #varint(value: number): void {
    while (value > 0x7f) {
      this.#bytes[this.#at] = (value & 0x7f) | 0x80
      this.#at += 1
      value >>>= 7
    }
    this.#bytes[this.#at] = value
    this.#at += 1
  }

  #copy(source: Uint8Array, from: number, to: number): void {
    const bytes = this.#bytes
    const start = this.#at - from
    if (to - from <= 2 * LOOP_CHARS_MAX) {
      for (let i = from; i < to; i += 1) bytes[start + i] = source[i]!
    } else {
      bytes.set(source.subarray(from, to), this.#at)
    }
    this.#at += to - from
  }

  #reserve(more: number): void {
    if (this.#at + more > this.#bytes.length) this.#grow(more)
  }

  #grow(more: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.max(2 * this.#bytes.length, this.#at + more))
    assert(this.#bytes.copy(grown, 0, 0, this.#at) === this.#at, 'a growing buffer lost bytes')
    this.#replace(grown)
  }

  #replace(bytes: Buffer<ArrayBuffer>): void {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer)
  }
}
