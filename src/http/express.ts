/**
 * The express way of POST /v1/events: what an ordinary sender sends, a body of stated length in a known type with a key without
 * limits, is answered by the server's own listener, past fastify's router, hooks and reply: they cost more than the event. Whatever is
 * unusual, and whatever would be refused before its body is read, goes to fastify untouched, so that only one place says no to it.
 *
 * Both ways give equal answers (test/http/express.test.ts sends the same requests to both).
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { contentTypes, formatOf } from '../ingest/content-type.js'
import { limits } from '../limits.js'
import type { System } from '../system.js'
import { collect, isAttribute, type Pieces } from './routes/events.js'

/** How a failed request is answered; counts it. */
export type Refuse = (
  error: Error,
  request: { readonly id: string; readonly method: string; readonly url: string },
) => { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: object }

export interface ExpressOptions {
  readonly system: System
  readonly isClosing: () => boolean
  readonly refuse: Refuse
}

/** Names as senders write them; anything else about a type is for fastify to judge. */
const plainTypes = new Set(contentTypes)

/** Puts the express way before the application's own listener. */
export function openExpressWay(app: FastifyInstance, options: ExpressOptions): void {
  const usual = app.server.listeners('request') as RequestListener[]
  app.server.removeAllListeners('request')
  app.server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (take(request, response, options)) return
    for (const listener of usual) listener.call(app.server, request, response)
  })
}

/** False: nothing was done about it, it is fastify's. */
function take(request: IncomingMessage, response: ServerResponse, options: ExpressOptions): boolean {
  const { system } = options
  if (request.url !== '/v1/events' || request.method !== 'POST' || options.isClosing()) return false
  const { headers } = request
  const contentType = headers['content-type'] ?? ''
  const bytes = Number(headers['content-length'])
  if (!(bytes > 0 && bytes <= limits.bodyBytesMax) || !plainTypes.has(contentType)) return false
  if (headers['content-encoding'] !== undefined || headers['transfer-encoding'] !== undefined) return false
  if (headers.expect !== undefined || headers.upgrade !== undefined || request.rawHeaders.some(isAttribute))
    return false
  const key = system.keys.check(headers.authorization)
  if (key === undefined || !key.scopes.includes('ingest') || system.keys.budgetOf(key.id) !== undefined) return false
  let release: () => void
  try {
    release = system.admit(bytes)
  } catch {
    // Fastify asks again, and says it.
    return false
  }
  // The room is held until the answer has gone and nobody reads the bytes any more.
  let holders = 1
  const letGo = (): void => {
    holders -= 1
    if (holders === 0) release()
  }
  response.once('close', letGo)
  const id = randomUUID()
  const fail = (error: Error): void => {
    const { status, headers, body } = options.refuse(error, { id, method: 'POST', url: '/v1/events' })
    answer(response, id, status, 'application/problem+json; charset=utf-8', body, headers)
  }
  const ingest = async ({ pieces }: Pieces): Promise<void> => {
    holders += 1
    try {
      const format = formatOf(contentType)!
      const taken = await system.ingest({ body: pieces, format, tenant: key.tenant, wait: false })
      const status = taken.stored > 0 || taken.received === 0 ? 202 : 422
      answer(response, id, status, 'application/json; charset=utf-8', taken)
    } catch (error) {
      fail(error as Error)
    } finally {
      letGo()
    }
  }
  collect(request, headers['content-length'], (error, body) => {
    if (error !== null) fail(error)
    else void ingest(body!)
  })
  return true
}

/** Head and body in one write. */
function answer(
  response: ServerResponse,
  id: string,
  status: number,
  type: string,
  body: object,
  more: Readonly<Record<string, string>> = {},
): void {
  // The sender has hung up.
  if (response.destroyed) return
  const text = JSON.stringify(body)
  const head = ['x-request-id', id, ...Object.entries(more).flat(), 'content-type', type]
  head.push('content-length', String(Buffer.byteLength(text)))
  response.writeHead(status, head)
  response.end(text)
}
