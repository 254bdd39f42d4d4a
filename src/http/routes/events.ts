/**
 * POST /v1/events: native JSON, NDJSON, msgpack and CSV, CloudEvents 1.0 (one, a batch, or with its attributes in headers);
 * plain, gzip, or zstd where Node has it. 2xx only after the log has it on disk. One bad event never costs its neighbours: the
 * answer says which, which field, and why. src/ingest/README.md has the table of formats.
 */
import type { IncomingMessage } from 'node:http'
import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { ReleveError } from '../../errors.js'
import { contentEncodings, inflate } from '../../inflate.js'
import type { CloudEventHeaders } from '../../ingest/cloudevents-binary.js'
import { contentTypes, formatOf } from '../../ingest/content-type.js'
import { limits } from '../../limits.js'
import type { IngestAnswer, System } from '../../system.js'
import { keyOf } from '../http.js'

/** Whether it may be the name of an attribute. Values that look like one cost a second look. */
export const isAttribute = (text: string): boolean => text[2] === '-' && /^ce-/i.test(text)

/** The attributes of a CloudEvent in binary mode; undefined for a request that is none. */
function attributesOf(request: FastifyRequest): CloudEventHeaders | undefined {
  const { rawHeaders } = request.raw
  if (!rawHeaders.some(isAttribute)) return undefined
  const contentType = request.headers['content-type']
  if (contentType?.trimStart().toLowerCase().startsWith('application/cloudevents') === true) return undefined
  const attributes: [string, string][] = []
  // The raw list, because a header that comes twice must not be joined in silence.
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    if (name.startsWith('ce-')) attributes.push([name.slice(3), rawHeaders[i + 1]!])
  }
  if (attributes.length === 0) return undefined
  return contentType === undefined ? attributes : [...attributes, ['datacontenttype', contentType]]
}

/** A body as it came. It is copied once, into the memory that the shard sees. */
export interface Pieces {
  readonly pieces: Buffer[]
  readonly bytes: number
}

/** Reads a body to its end. Its stated length was checked against what was let in before (http.ts). */
export function collect(
  payload: IncomingMessage,
  stated: string | undefined,
  done: (error: Error | null, body?: Pieces) => void,
): void {
  const tooLarge = (): ReleveError =>
    new ReleveError('body_too_large', `a body has at most ${limits.bodyBytesMax} bytes`)
  if (Number(stated ?? 0) > limits.bodyBytesMax) {
    done(tooLarge())
    return
  }
  const pieces: Buffer[] = []
  let bytes = 0
  const take = (piece: Buffer): void => {
    bytes += piece.length
    if (bytes <= limits.bodyBytesMax) {
      pieces.push(piece)
      return
    }
    end(tooLarge())
  }
  const end = (error?: Error): void => {
    payload.off('data', take).off('end', end).off('error', end)
    if (error === undefined) done(null, { pieces, bytes })
    // The sender has hung up: nobody reads the answer.
    else done(error instanceof ReleveError ? error : new ReleveError('malformed_body', error.message, { cause: error }))
  }
  payload.on('data', take).on('end', end).on('error', end)
}

export function eventRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    // Bodies stay bytes: the shard thread reads them. Only this scope, so that other routes parse JSON as usual.
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', (request, payload, done) => collect(payload, request.headers['content-length'], done))

    app.post<{ Body: Pieces | undefined; Querystring: { wait?: string } }>(
      '/v1/events',
      {
        config: { scope: 'ingest' },
        schema: {
          tags: ['usage'],
          summary: 'Send events',
          description: `As ${contentTypes.join(', ')}, or a CloudEvent in ce-* headers; content-encoding ${contentEncodings.join(', ')} or none. 202 when at least one event is stored, 422 when all are refused.`,
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
        const raw = request.body ?? { pieces: [], bytes: 0 }
        if (raw.bytes === 0 && attributes === undefined) throw new ReleveError('malformed_body', 'the body is empty')
        const budget = system.keys.budgetOf(key.id)
        budget?.spend({ bytes: raw.bytes }, system.clock.now())
        const done = request.holdBody()
        let inflated = (): void => {}
        try {
          const encoding = request.headers['content-encoding']
          let body: Uint8Array | Buffer[] = raw.pieces
          if (encoding !== undefined) {
            body = await inflate(Buffer.concat(raw.pieces.splice(0), raw.bytes), encoding)
            inflated = system.admit(body.length)
          }
          const answer = await system.ingest({
            body,
            format,
            ...(attributes === undefined ? {} : { attributes }),
            tenant: key.tenant,
            wait: request.query.wait === 'applied',
          })
          budget?.spend({ events: answer.received }, system.clock.now())
          reply.status(answer.stored > 0 || answer.received === 0 ? 202 : 422)
          return answer
        } finally {
          inflated()
          done()
        }
      },
    )
  }
}
