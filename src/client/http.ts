/** The HTTP side of the client: POST /v1/events with a columnar body, over connections that are kept. */
import { once } from 'node:events'
import { Agent as HttpAgent, type IncomingMessage, request as requestHttp } from 'node:http'
import { Agent as HttpsAgent, request as requestHttps } from 'node:https'
import { COLUMNAR_TYPE } from '../columnar.js'
import { limits } from '../limits.js'
import { type Outcome, outcomeOf, type Transport } from './transport.js'

export interface HttpTransportOptions {
  readonly url: string
  readonly key: string | undefined
  readonly connections: number
  /** Encodes a body, when it is to be compressed. */
  readonly gzip: ((body: Uint8Array) => Promise<Uint8Array>) | undefined
}

export function openHttpTransport({ url, key, connections, gzip }: HttpTransportOptions): Transport {
  const target = new URL('/v1/events', url)
  const isTls = target.protocol === 'https:'
  const request = isTls ? requestHttps : requestHttp
  const agent = new (isTls ? HttpsAgent : HttpAgent)({ keepAlive: true, maxSockets: connections })
  const headers = {
    'content-type': COLUMNAR_TYPE,
    ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
    ...(gzip === undefined ? {} : { 'content-encoding': 'gzip' }),
  }

  const post = async (body: Uint8Array): Promise<Outcome> => {
    const call = request(target, {
      method: 'POST',
      agent,
      headers: { ...headers, 'content-length': body.length },
      timeout: limits.clientTimeoutMs,
    })
    call.on('timeout', () => call.destroy(new Error('the service does not answer')))
    // What comes behind the first error, or behind the answer, concerns nobody.
    call.on('error', () => {})
    call.end(body)
    const [answer] = (await once(call, 'response')) as [IncomingMessage]
    const parts: Buffer[] = []
    let bytes = 0
    for await (const part of answer as AsyncIterable<Buffer>) {
      bytes += part.length
      if (bytes > limits.clientAnswerBytesMax) {
        answer.destroy()
        throw new Error('the answer is too long')
      }
      parts.push(part)
    }
    const seconds = Number(answer.headers['retry-after'])
    return outcomeOf(
      answer.statusCode ?? 0,
      Buffer.concat(parts).toString(),
      Number.isFinite(seconds) && seconds >= 0 ? seconds * 1_000 : undefined,
    )
  }

  return {
    async send(body) {
      try {
        return await post(gzip === undefined ? body : await gzip(body))
      } catch (error) {
        return { kind: 'again', why: String(error) }
      }
    },
    async close() {
      agent.destroy()
    },
  }
}
