/**
 * One NATS message into the system. The body is as at POST /v1/events, its format in the header `content-type`, `content-encoding`
 * too; a CloudEvent in binary mode has its attributes in `ce-` headers, as its NATS binding says. What says nothing, as every message
 * that came over MQTT, is read by its bytes (ingest/sniff.ts).
 */
import type { MsgHdrs } from 'nats'
import { ReleveError } from '../errors.js'
import { inflate } from '../inflate.js'
import type { CloudEventHeaders } from '../ingest/cloudevents-binary.js'
import { contentTypes, formatOf } from '../ingest/content-type.js'
import { sniffEncoding, sniffFormat } from '../ingest/sniff.js'
import { limits } from '../limits.js'
import type { IngestAnswer, System } from '../system.js'

/** A header by its name, whatever its letters' case; undefined when it is absent. */
export function headerOf(headers: MsgHdrs | undefined, wanted: string): string | undefined {
  for (const name of headers?.keys() ?? []) if (name.toLowerCase() === wanted) return headers!.get(name)
  return undefined
}

function attributesOf(headers: MsgHdrs | undefined, contentType: string | undefined): CloudEventHeaders | undefined {
  if (headers === undefined || contentType?.startsWith('application/cloudevents') === true) return undefined
  const attributes: [string, string][] = []
  for (const name of headers.keys()) {
    if (!name.toLowerCase().startsWith('ce-')) continue
    for (const value of headers.values(name)) attributes.push([name.slice(3).toLowerCase(), value])
  }
  if (attributes.length === 0) return undefined
  return contentType === undefined ? attributes : [...attributes, ['datacontenttype', contentType]]
}

/** Resolves when what is stored is on disk. Throws ReleveError. */
export async function ingestMessage(
  system: System,
  message: { readonly tenant: string; readonly headers: MsgHdrs | undefined; readonly data: Uint8Array; wait: boolean },
): Promise<IngestAnswer> {
  const { tenant, headers, data, wait } = message
  if (data.length > limits.natsMessageBytesMax) {
    throw new ReleveError('body_too_large', `a message has at most ${limits.natsMessageBytesMax} bytes`)
  }
  const contentType = headerOf(headers, 'content-type')?.trim().toLowerCase()
  const attributes = attributesOf(headers, contentType)
  const named =
    attributes !== undefined ? 'cloudevents-binary' : contentType === undefined ? undefined : formatOf(contentType)
  if (named === undefined && contentType !== undefined) {
    throw new ReleveError('unsupported_format', `content-type «${contentType}»: send ${contentTypes.join(', ')}`)
  }
  const release = system.admit(data.length)
  let inflated = (): void => {}
  try {
    const encoding = headerOf(headers, 'content-encoding') ?? sniffEncoding(data)
    // No copy: the client never writes into what it has delivered, and the intake copies it into the memory that the shard sees.
    const body = await inflate(data, encoding)
    // A small message may become a large body.
    if (encoding !== undefined) inflated = system.admit(body.length)
    const format = named ?? sniffFormat(body)
    return await system.ingest({
      body,
      format,
      ...(attributes === undefined ? {} : { attributes }),
      tenant,
      wait,
    })
  } finally {
    inflated()
    release()
  }
}

/** Whether sending the same again will never help. */
export function isHopeless(error: unknown): error is ReleveError {
  return error instanceof ReleveError && error.status >= 400 && error.status < 500 && error.status !== 429
}
