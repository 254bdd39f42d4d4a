/**
 * SipHash-c-d with 128 bits of output, keyed, in plain JavaScript: every 64-bit word as two signed 32-bit halves.
 *
 * Used for identities, content tags and members of unique counts. It is keyed because an unkeyed hash lets a customer craft
 * an id that meets another one. The default is 1-3, the variant of hash tables: nobody outside sees an output.
 *
 * Nothing is allocated per call; keys and results live in Int32Arrays of the caller. This file knows no events.
 */
import { assert } from '../assert.js'

/** 32-bit words of a key or of a result; a 16-byte text in little-endian order. */
export const SIP_WORDS = 4

/** A 16-byte key as four words. */
export function sipKey(bytes: Uint8Array): Int32Array {
  assert(bytes.length === 16, `a SipHash key has 16 bytes, not ${bytes.length}`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16)
  return Int32Array.of(view.getInt32(0, true), view.getInt32(4, true), view.getInt32(8, true), view.getInt32(12, true))
}

/** A result as 32 hexadecimal digits, in the byte order of the reference implementation. */
export function sipHex(words: Int32Array, at = 0): string {
  const bytes = Buffer.allocUnsafe(16)
  for (let i = 0; i < SIP_WORDS; i += 1) bytes.writeInt32LE(words[at + i]!, 4 * i)
  return bytes.toString('hex')
}

/**
 * Hashes bytes[from, to) under the key words key[keyAt .. keyAt + 4) into out[outAt .. outAt + 4). `key` and `out` may be the
 * same array and overlap. c compression rounds a block, d rounds for each half of the result.
 */
export function sipHash128(
  key: Int32Array,
  keyAt: number,
  bytes: Uint8Array,
  from: number,
  to: number,
  out: Int32Array,
  outAt: number,
  c = 1,
  d = 3,
): void {
  const k0l = key[keyAt]!
  const k0h = key[keyAt + 1]!
  const k1l = key[keyAt + 2]!
  const k1h = key[keyAt + 3]!
  // «somepseudorandomlygeneratedbytes»; v1 ^ 0xee says that the output has 128 bits.
  let v0l = k0l ^ 0x70736575
  let v0h = k0h ^ 0x736f6d65
  let v1l = k1l ^ 0x6e646f6d ^ 0xee
  let v1h = k1h ^ 0x646f7261
  let v2l = k0l ^ 0x6e657261
  let v2h = k0h ^ 0x6c796765
  let v3l = k1l ^ 0x79746573
  let v3h = k1h ^ 0x74656462

  const length = to - from
  // Whole blocks of 8 bytes and the last one, which carries the length; then one step for each half of the result. One loop
  // over all of them keeps a single copy of the round, so that its sixteen halves stay in registers.
  const last = length >>> 3
  let at = from
  for (let step = 0; step <= last + 2; step += 1) {
    let ml = 0
    let mh = 0
    let rounds = c
    if (step < last) {
      ml = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
      mh = bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24)
      at += 8
    } else if (step === last) {
      mh = length << 24
      for (let i = 0; at < to; i += 8, at += 1) {
        if (i < 32) ml |= bytes[at]! << i
        else mh |= bytes[at]! << (i - 32)
      }
    } else if (step === last + 1) {
      v2l ^= 0xee
      rounds = d
    } else {
      out[outAt] = v0l ^ v1l ^ v2l ^ v3l
      out[outAt + 1] = v0h ^ v1h ^ v2h ^ v3h
      v1l ^= 0xdd
      rounds = d
    }
    v3l ^= ml
    v3h ^= mh
    for (let round = 0; round < rounds; round += 1) {
      let low = (v0l + v1l) | 0
      v0h = (v0h + v1h + (low >>> 0 < v0l >>> 0 ? 1 : 0)) | 0
      v0l = low
      let high = (v1h << 13) | (v1l >>> 19)
      v1l = ((v1l << 13) | (v1h >>> 19)) ^ v0l
      v1h = high ^ v0h
      low = v0l
      v0l = v0h
      v0h = low

      low = (v2l + v3l) | 0
      v2h = (v2h + v3h + (low >>> 0 < v2l >>> 0 ? 1 : 0)) | 0
      v2l = low
      high = (v3h << 16) | (v3l >>> 16)
      v3l = ((v3l << 16) | (v3h >>> 16)) ^ v2l
      v3h = high ^ v2h

      low = (v0l + v3l) | 0
      v0h = (v0h + v3h + (low >>> 0 < v0l >>> 0 ? 1 : 0)) | 0
      v0l = low
      high = (v3h << 21) | (v3l >>> 11)
      v3l = ((v3l << 21) | (v3h >>> 11)) ^ v0l
      v3h = high ^ v0h

      low = (v2l + v1l) | 0
      v2h = (v2h + v1h + (low >>> 0 < v2l >>> 0 ? 1 : 0)) | 0
      v2l = low
      high = (v1h << 17) | (v1l >>> 15)
      v1l = ((v1l << 17) | (v1h >>> 15)) ^ v2l
      v1h = high ^ v2h
      low = v2l
      v2l = v2h
      v2h = low
    }
    v0l ^= ml
    v0h ^= mh
  }
  out[outAt + 2] = v0l ^ v1l ^ v2l ^ v3l
  out[outAt + 3] = v0h ^ v1h ^ v2h ^ v3h
}
