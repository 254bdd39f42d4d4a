/**
 * What one key, or one tenant where no key comes along, may ask for: requests, events and bytes a second, each a bucket that holds one second's worth. A request is let in
 * while every bucket holds something. What it costs in events is known only when its body has been judged, so that is taken
 * afterwards and may leave a debt: no batch is too large for a small rate, it only makes the next one wait longer.
 */
import { ReleveError } from '../errors.js'
import { Bucket } from './bucket.js'

export const Rate = ['requestsPerSecond', 'eventsPerSecond', 'bytesPerSecond'] as const
export type Rate = (typeof Rate)[number]
/** What is absent has no limit. */
export type KeyLimits = { readonly [name in Rate]?: number }

const words: Readonly<Record<Rate, string>> = {
  requestsPerSecond: 'requests',
  eventsPerSecond: 'events',
  bytesPerSecond: 'bytes',
}

export class Budget {
  readonly #buckets: readonly (readonly [name: Rate, bucket: Bucket])[]
  readonly #who: string

  constructor(limits: KeyLimits, now: number, who = 'this key') {
    this.#who = who
    this.#buckets = Rate.flatMap((name) => {
      const rate = limits[name]
      return rate === undefined ? [] : [[name, new Bucket(rate, rate, now)] as const]
    })
  }

  /** Lets one request in, or throws `too_many_requests` with the time to wait; a refused one costs nothing. */
  enter(now: number): void {
    for (const [name, bucket] of this.#buckets) {
      const waitMs = bucket.waitMs(now)
      if (waitMs === 0) continue
      throw new ReleveError('too_many_requests', `${words[name]}: ${this.#who} may send ${bucket.rate} a second`, {
        retryAfterS: Math.ceil(waitMs / 1000),
      })
    }
    this.#spend('requestsPerSecond', 1, now)
  }

  /** Milliseconds until the next is let in. */
  waitMs(now: number): number {
    return Math.max(0, ...this.#buckets.map(([, bucket]) => bucket.waitMs(now)))
  }

  /** How long it takes until the rates have made good for this. */
  costMs(cost: { requests: number; events: number; bytes: number }): number {
    const tokens = { requestsPerSecond: cost.requests, eventsPerSecond: cost.events, bytesPerSecond: cost.bytes }
    return Math.max(0, ...this.#buckets.map(([name, { rate }]) => (1000 * tokens[name]) / rate))
  }

  spend(cost: { requests?: number; events?: number; bytes?: number }, now: number): void {
    this.#spend('requestsPerSecond', cost.requests ?? 0, now)
    this.#spend('eventsPerSecond', cost.events ?? 0, now)
    this.#spend('bytesPerSecond', cost.bytes ?? 0, now)
  }

  /** As of the IETF's draft of RateLimit header fields: q a quota, w its seconds, r what remains, t the seconds until more. */
  headers(now: number): { 'ratelimit-policy': string; ratelimit: string } {
    const list = (text: (bucket: Bucket) => string): string =>
      this.#buckets.map(([name, bucket]) => `"${words[name]}";${text(bucket)}`).join(', ')
    return {
      'ratelimit-policy': list(({ rate }) => `q=${rate};w=1`),
      ratelimit: list((bucket) => `r=${bucket.left(now)};t=${Math.ceil(bucket.waitMs(now) / 1000)}`),
    }
  }

  #spend(wanted: Rate, tokens: number, now: number): void {
    for (const [name, bucket] of this.#buckets) if (name === wanted) bucket.spend(tokens, now)
  }
}
