/**
 * JSON that releve keeps for itself, in few bytes: a byte for the form, then the text or its raw deflate. PostgreSQL neither parses
 * nor compresses it, which was most of the cost of a draft there.
 *
 * Level 1 with a small window: most of what repeats lies near, and setting the compressor up costs more than running it.
 */
import { deflateRawSync, inflateRawSync } from 'node:zlib'

const PLAIN = 0
const DEFLATED = 1
const HOW = { level: 1, windowBits: 13, memLevel: 6, chunkSize: 4096 }

export function packJson(text: string): Buffer {
  const deflated = deflateRawSync(text, HOW)
  const packed = Buffer.allocUnsafe(deflated.length + 1)
  packed[0] = DEFLATED
  packed.set(deflated, 1)
  return packed
}

export function unpackJson<T>(packed: Uint8Array): T {
  const body = packed.subarray(1)
  if (packed[0] === DEFLATED) return JSON.parse(inflateRawSync(body).toString()) as T
  if (packed[0] === PLAIN) return JSON.parse(Buffer.from(body).toString()) as T
  throw new Error(`cannot unpack: form ${packed[0]} is not known`)
}
