/**
 * POST /v1/events: native JSON (one event or an array) and CloudEvents 1.0 (one or a batch), plain or gzip. 2xx only after the
 * log has it on disk. One bad event never costs its neighbours: the answer says which, which field, and why.
 */
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import type { FastifyPluginAsync } from 'fastify'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import type { EventFormat, IngestAnswer, System } from '../../system.js'
import { keyOf } from '../http.js'

const gunzipAsync = promisify(gunzip)

/** At most limits.inflatingMax bodies are inflated at once, for each may grow to limits.bodyBytesMax; the others wait. */
let inflating = 0
const waiting: (() => void)[] = []

async function gunzipInTurn(body: Buffer): Promise<Buffer> {
  if (inflating === limits.inflatingMax) await new Promise<void>((resolve) => waiting.push(resolve))
  else inflating += 1
  try {
    return await gunzipAsync(body, { maxOutputLength: limits.bodyBytesMax })
  } finally {
    const next = waiting.shift()
    if (next === undefined) inflating -= 1
    else next()
  }
}

const formats: Readonly<Record<string, EventFormat>> = {
  'application/json': 'json',
  'application/cloudevents+json': 'cloudevents',
  'application/cloudevents-batch+json': 'cloudevents-batch',
}

async function inflate(body: Buffer, encoding: string | undefined): Promise<Buffer> {
  if (encoding === undefined || encoding === 'identity' || encoding === '') return body
  if (encoding !== 'gzip')
    throw new ReleveError('unsupported_format', `content-encoding ${encoding}: send gzip or none`)
  try {
    return await gunzipInTurn(body)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new ReleveError('body_too_large', `a body has at most ${limits.bodyBytesMax} bytes when inflated`)
    }
    throw new ReleveError('malformed_body', 'the body is not whole gzip data', { cause: error })
  }
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
          description:
            'One event or an array, as application/json, or CloudEvents 1.0 as application/cloudevents+json and application/cloudevents-batch+json; content-encoding gzip or none. 202 when at least one event is stored, 422 when all are refused.',
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
        const type = (request.headers['content-type'] ?? '').split(';')[0]!.trim().toLowerCase()
        const format = formats[type]
        if (format === undefined) {
          throw new ReleveError('unsupported_format', `content-type «${type}»: send ${Object.keys(formats).join(', ')}`)
        }
        const raw = request.body
        if (raw === undefined || raw === null || raw.length === 0)
          throw new ReleveError('malformed_body', 'the body is empty')
        const done = request.holdBody()
        let inflated = (): void => {}
        try {
          const body = await inflate(raw, request.headers['content-encoding'])
          if (body !== raw) inflated = system.admit(body.length)
          const answer = await system.ingest({
            body,
            format,
            tenant: key.tenant,
            wait: request.query.wait === 'applied',
          })
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
