/**
 * One attempt at a webhook: a signed POST to a checked address. Only 2xx counts; a redirect is an answer like any other and is
 * not followed; 410 says that nobody is there any more. What the receiver answers is not read and not kept.
 */
import { type ClientRequest, request as plainRequest } from 'node:http'
import { request as secureRequest } from 'node:https'
import { isIP } from 'node:net'
import type { AddressGuard } from './address.js'
import type { Attempt } from './delivery.js'
import { type Signed, sign } from './sign.js'

/** `retry-after` in seconds or as a date; undefined when it says neither. */
export function retryAfterMs(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  if (/^[0-9]{1,9}$/.test(header.trim())) return Number(header) * 1000
  // Date.parse reads almost anything; a date of HTTP ends so.
  const at = header.endsWith(' GMT') ? Date.parse(header) : Number.NaN
  return Number.isNaN(at) ? undefined : Math.max(0, at - now)
}

export async function postWebhook(options: {
  readonly url: string
  readonly message: Signed
  readonly secrets: readonly string[]
  readonly guard: AddressGuard
  readonly timeoutMs: number
  readonly userAgent: string
  /** The service stops. */
  readonly stop: AbortSignal
}): Promise<Attempt> {
  const { message, secrets, guard, timeoutMs, stop } = options
  const url = new URL(options.url)
  try {
    // The ranges may have been narrowed since the endpoint was made; a literal address is not looked up.
    guard.check(url)
  } catch (error) {
    return { outcome: 'failed', error: (error as Error).message }
  }
  const send = url.protocol === 'http:' ? plainRequest : secureRequest
  return new Promise<Attempt>((resolve) => {
    const late = AbortSignal.timeout(timeoutMs)
    const signal = AbortSignal.any([late, stop])
    const fail = (error: Error): void => {
      const reason = late.aborted ? `no answer within ${timeoutMs} ms` : error.message || error.name
      resolve({ outcome: 'failed', error: reason.slice(0, 300) })
    }
    let request: ClientRequest
    try {
      request = send(url, {
        method: 'POST',
        agent: false,
        signal,
        ...(isIP(url.hostname.replace(/^\[|\]$/g, '')) === 0 ? { lookup: guard.lookupFor(url) } : {}),
        headers: {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(message.body),
          'user-agent': options.userAgent,
          'webhook-id': message.id,
          'webhook-timestamp': String(message.timestamp),
          'webhook-signature': sign(message, secrets),
        },
      })
    } catch (error) {
      fail(error as Error)
      return
    }
    request.on('error', fail)
    request.on('response', (response) => {
      const { statusCode = 0 } = response
      const wait = retryAfterMs(response.headers['retry-after'], message.timestamp * 1000)
      response.on('error', () => {})
      response.destroy()
      if (statusCode >= 200 && statusCode < 300) resolve({ outcome: 'delivered' })
      else if (statusCode === 410) resolve({ outcome: 'gone', error: 'status 410: nobody wants these any more' })
      else {
        const hint = statusCode >= 300 && statusCode < 400 ? ': redirects are not followed' : ''
        const retry = wait === undefined ? {} : { retryAfterMs: wait }
        resolve({ outcome: 'failed', error: `status ${statusCode}${hint}`, ...retry })
      }
    })
    request.end(message.body)
  })
}
