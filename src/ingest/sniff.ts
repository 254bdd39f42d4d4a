/**
 * What a body is, by its bytes, for doors whose messages say nothing about themselves: MQTT 3.1.1 has no headers. Exact where it
 * decides: no body of one format reads as a sound body of another. What nobody can place is called JSON, whose reader says why not.
 *
 *   1f 8b, 28 b5 2f fd     gzip, zstd: inflated first
 *   80 and above           msgpack: a map, an array or a record; no text begins so
 *   [ or {                 JSON; with `specversion` in its first event CloudEvents; objects on lines of their own are NDJSON
 *   RCOL                   a columnar frame
 *   a letter               CSV, whose first line names columns
 */
import { COLUMNAR_MAGIC } from '../columnar.js'
import { ReleveError } from '../errors.js'
import type { BodyFormat } from './ingest.js'
import { BRACE, BRACKET, JsonReader } from './json.js'

const COLUMNAR = [0, 8, 16, 24].map((shift) => (COLUMNAR_MAGIC >>> shift) & 0xff)

export function sniffEncoding(body: Uint8Array): 'gzip' | 'zstd' | undefined {
  if (body[0] === 0x1f && body[1] === 0x8b) return 'gzip'
  return body[0] === 0x28 && body[1] === 0xb5 && body[2] === 0x2f && body[3] === 0xfd ? 'zstd' : undefined
}

export function sniffFormat(body: Uint8Array): BodyFormat {
  const first = body.find((byte) => byte > 0x20)
  if (first === undefined) return 'json'
  if (body[0]! >= 0x80) return 'msgpack'
  if (COLUMNAR.every((byte, i) => body[i] === byte)) return 'columnar'
  if (first === BRACKET) return isCloudEvent(body, true) ? 'cloudevents-batch' : 'json'
  if (first === BRACE) {
    // Between two members or elements stands a comma: only two values have a line break alone between them.
    if (/\}[ \t\r]*\n\s*\{/.test(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('latin1')))
      return 'ndjson'
    return isCloudEvent(body, false) ? 'cloudevents' : 'json'
  }
  return (first >= 0x41 && first <= 0x5a) || (first >= 0x61 && first <= 0x7a) ? 'csv' : 'json'
}

/** Whether the first event has the member that every CloudEvent has and a native one never. */
function isCloudEvent(body: Uint8Array, inArray: boolean): boolean {
  const reader = new JsonReader()
  try {
    reader.begin(body)
    if (inArray) {
      reader.enterArray()
      if (!reader.nextElement()) return false
    }
    reader.enterObject()
    for (let name = reader.nextName(); name !== null; name = reader.nextName()) {
      if (name === 'specversion') return true
      reader.skip()
    }
  } catch (error) {
    if (!(error instanceof ReleveError)) throw error
  }
  return false
}
