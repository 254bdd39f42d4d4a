/**
 * Signatures of webhooks, by Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, base64, named v1. While a secret is being
 * rotated there are two signatures in the header, and a receiver that knows either secret finds its own.
 */
import { createHmac, randomBytes } from 'node:crypto'

const PREFIX = 'whsec_'

/** 32 random bytes; shown once, kept sealed. */
export function newSecret(): string {
  return PREFIX + randomBytes(32).toString('base64')
}

export interface Signed {
  /** The message's id, the same over all its deliveries. */
  readonly id: string
  /** Seconds since the epoch: receivers refuse what is old. */
  readonly timestamp: number
  readonly body: string
}

/** The value of `webhook-signature`: one signature for each secret, with blanks between. */
export function sign({ id, timestamp, body }: Signed, secrets: readonly string[]): string {
  return secrets
    .map((secret) => {
      const key = Buffer.from(secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret, 'base64')
      return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`
    })
    .join(' ')
}
