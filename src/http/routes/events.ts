/**
 * POST /v1/events: native JSON, NDJSON, msgpack and CSV, CloudEvents 1.0 (one, a batch, or with its attributes in headers);
 * plain, gzip, or zstd where Node has it. 2xx only after the log has it on disk. One bad event never costs its neighbours: the
 * answer says which, which field, and why. src/ingest/README.md has the table of formats.
 */
import { promisify } from 'node:util'
import * as zlib from 'node:zlib'
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { ReleveError } from '../../errors.js'
import type { CloudEventHeaders } from '../../ingest/cloudevents-binary.js'
import { contentTypes, formatOf } from '../../ingest/content-type.js'
import { limits } from '../../limits.js'
import type { IngestAnswer, System } from '../../system.js'
import { keyOf } from '../http.js'

type Inflate = (body: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>

// zlib.zstdDecompress came with Node 22.15; Node 20 has none.
const { zstdDecompress } = zlib as unknown as {
  zstdDecompress?: (
    body: Buffer,
    options: { maxOutputLength: number },
    done: (error: Error | null, result: Buffer) => void,
  ) => void
}

/** By content-encoding. */
const inflaters: Readonly<Record<string, Inflate>> = {
  gzip: promisify<Buffer, { maxOutputLength: number }, Buffer>(zlib.gunzip),
  ...(zstdDecompress === undefined ? {} : { zstd: promisify(zstdDecompress) }),
}

async function inflate(body: Buffer, encoding: string | undefined): Promise<Buffer> {
  if (encoding === undefined || encoding === 'identity' || encoding === '') return body
  const inflater = Object.hasOwn(inflaters, encoding) ? inflaters[encoding] : undefined
  if (inflater === undefined) {
    throw new ReleveError(
      'unsupported_format',
      `content-encoding ${encoding}: send ${Object.keys(inflaters).join(', ')} or none`,
    )
  }
  try {
    return await inflater(body, { maxOutputLength: limits.bodyBytesMax })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new ReleveError('body_too_large', `a body has at most ${limits.bodyBytesMax} bytes when inflated`)
    }
    throw new ReleveError('malformed_body', `the body is not whole ${encoding} data`, { cause: error })
  }
}

/** The attributes of a CloudEvent in binary mode; undefined for a request that is none. */
function attributesOf(request: FastifyRequest): CloudEventHeaders | undefined {
  const contentType = request.headers['content-type']
  if (contentType?.trimStart().toLowerCase().startsWith('application/cloudevents') === true) return undefined
  const attributes: [string, string][] = []
  // The raw list, because a header that comes twice must not be joined in silence.
  const { rawHeaders } = request.raw
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    if (name.startsWith('ce-')) attributes.push([name.slice(3), rawHeaders[i + 1]!])
  }
  if (attributes.length === 0) return undefined
  return contentType === undefined ? attributes : [...attributes, ['datacontenttype', contentType]]
}

export function eventRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    // Bodies stay bytes: the shard thread reads them. Only this scope, so that other routes parse JSON as usual.
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', { parseAs: 'buffer' }, (_, body, done) => done(null, body))

    app.post<{ Body: Buffer | undefined; Querystring: { wait?: string } }>(
      '/v1/events',
      {
        config: { scope: 'ingest' },
        schema: {
          tags: ['usage'],
          summary: 'Send events',
          description: `As ${contentTypes.join(', ')}, or a CloudEvent in ce-* headers; content-encoding ${Object.keys(inflaters).join(', ')} or none. 202 when at least one event is stored, 422 when all are refused.`,
          querystring: {
            type: 'object',
            properties: {
              wait: {
                type: 'string',
                enum: ['applied'],
                description: 'Answer only when counted; says accepted, duplicate or conflict per event',
              },
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply): Promise<IngestAnswer> => {
        const key = keyOf(request)
        const attributes = attributesOf(request)
        const format = attributes === undefined ? formatOf(request.headers['content-type'] ?? '') : 'cloudevents-binary'
        if (format === undefined) {
          throw new ReleveError(
            'unsupported_format',
            `content-type «${request.headers['content-type'] ?? ''}»: send ${contentTypes.join(', ')}, or CloudEvents in headers`,
          )
        }
        // A CloudEvent in headers may have no data; every other body has something.
        const raw = request.body ?? Buffer.alloc(0)
        if (raw.length === 0 && attributes === undefined) throw new ReleveError('malformed_body', 'the body is empty')
        const release = system.admit(raw.length)
        try {
          const body = await inflate(raw, request.headers['content-encoding'])
          const answer = await system.ingest({
            body,
            format,
            ...(attributes === undefined ? {} : { attributes }),
            tenant: key.tenant,
            wait: request.query.wait === 'applied',
          })
          reply.status(answer.stored > 0 || answer.received === 0 ? 202 : 422)
          return answer
        } finally {
          release()
        }
      },
    )
  }
}
