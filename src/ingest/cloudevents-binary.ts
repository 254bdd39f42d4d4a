/**
 * CloudEvents over HTTP in binary mode: the attributes are headers that begin with `ce-`, the content type is `datacontenttype`,
 * the body is `data`. Written down as the structured event that says the same, and read as that (cloudevents.ts).
 *
 * A header's value is percent-encoded outside of printable ASCII, as the HTTP binding says; other characters, or an encoding
 * that is no UTF-8, are a fault of the event. A header that comes twice is an attribute that appears twice, and is refused so.
 * The body is one JSON value of its own: it is read to its end before it is put into the event, so it cannot reach out of `data`.
 */
import type { JsonReader } from './json.js'
import { Transcript } from './transcript.js'

/** Header names in small letters, without `ce-`, and values as they came; one entry for each time a header came. */
export type CloudEventHeaders = readonly (readonly [name: string, value: string])[]

const PRINTABLE = /^[\x20-\x7e]*$/

/** Throws ReleveError `malformed_body` when the data is not JSON. */
export function readBinaryCloudEvent(reader: JsonReader, body: Uint8Array, headers: CloudEventHeaders): Transcript {
  const out = new Transcript(body.byteLength + 1_024)
  out.event()
  out.byte(0x7b)
  let members = 0
  for (const [name, value] of headers) {
    if (members > 0) out.byte(0x2c)
    members += 1
    const key = Buffer.from(name)
    const text = Buffer.from(decodeValue(out, name, value))
    out.string(key, 0, key.length)
    out.byte(0x3a)
    out.string(text, 0, text.length)
  }
  if (body.byteLength > 0) {
    reader.begin(body)
    try {
      reader.peek()
      reader.skip()
      reader.finish()
    } finally {
      reader.release()
      reader.fault = null
    }
    out.ascii(members > 0 ? ',"data":' : '"data":')
    out.bytes(body)
  }
  out.byte(0x7d)
  return out
}

function decodeValue(out: Transcript, name: string, value: string): string {
  if (!PRINTABLE.test(value)) {
    out.fault(name, 'has characters that a header carries percent-encoded only')
    return ''
  }
  try {
    return decodeURIComponent(value)
  } catch {
    // A lone % stands for itself where two digits do not follow it; anything else is broken UTF-8.
    if (!/%[0-9a-fA-F]{2}/.test(value)) return value
    out.fault(name, 'is not percent-encoded UTF-8')
    return ''
  }
}
