/**
 * Requests without a valid key, by the address that they come from. Beyond a few, an address is told to wait. A valid key is never
 * made to wait for it: a secret has 192 bits, so guessing is hopeless anyway, and a lock-out would let anybody lock out whoever
 * shares an address with them, behind one proxy for example.
 */
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { Bucket } from './bucket.js'

/** The part of an address that one sender cannot change at will: all of IPv4, the network of 64 bits of IPv6. */
export function networkOf(address: string): string {
  if (!address.includes(':') || address.includes('.')) return address
  const [head = '', tail] = address.split('::')
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'))
  const [front, back] = [groups(head), groups(tail ?? '')]
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length
  return [...front, ...new Array<string>(Math.max(0, zeros)).fill('0'), ...back].slice(0, 4).join(':')
}

export class Attempts {
  readonly #clock: Clock
  /** In the order of the last attempt. */
  readonly #buckets = new Map<string, Bucket>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get addresses(): number {
    return this.#buckets.size
  }

  /** Counts one failed attempt. Throws `too_many_requests` when there were too many. */
  fail(address: string): void {
    const network = networkOf(address)
    const now = this.#clock.now()
    const bucket = this.#buckets.get(network) ?? new Bucket(1, limits.failedAttemptsMax, now)
    this.#buckets.delete(network)
    if (this.#buckets.size >= limits.failedAddressesMax) this.#buckets.delete(this.#buckets.keys().next().value!)
    this.#buckets.set(network, bucket)
    const waitMs = bucket.waitMs(now)
    if (waitMs > 0) {
      throw new ReleveError('too_many_requests', `too many attempts without a valid key from ${network}`, {
        retryAfterS: Math.ceil(waitMs / 1000),
      })
    }
    bucket.spend(1, now)
  }
}
