/**
 * The NATS side of the client. `request`: usage.req.<tenant>, the service answers with the verdicts. `stream`: usage.in.<tenant>,
 * the JetStream stream acknowledges, also while the service is away; the verdicts are the service's to keep.
 */
import {
  type ConnectionOptions,
  connect,
  ErrorCode,
  headers as makeHeaders,
  type NatsConnection,
  NatsError,
} from 'nats'
import { COLUMNAR_TYPE } from '../columnar.js'
import { limits } from '../limits.js'
import { IN, REQUEST, tokenOf } from '../nats/subjects.js'
import { outcomeOf, type Transport } from './transport.js'

export interface NatsTransportOptions {
  readonly url: string
  readonly key: string | undefined
  readonly tenant: string
  readonly via: 'request' | 'stream'
  /** More options of the connection: certificates, an nkey. */
  readonly options: Readonly<Record<string, unknown>> | undefined
  readonly gzip: ((body: Uint8Array) => Promise<Uint8Array>) | undefined
}

export function openNatsTransport({ url, key, tenant, via, options, gzip }: NatsTransportOptions): Transport {
  const subject = `${via === 'stream' ? IN : REQUEST}${tokenOf(tenant)}`
  const headers = makeHeaders()
  headers.set('content-type', COLUMNAR_TYPE)
  if (gzip !== undefined) headers.set('content-encoding', 'gzip')
  let connection: NatsConnection | undefined
  let connecting: Promise<NatsConnection> | undefined
  let closed = false

  const reach = async (): Promise<NatsConnection> => {
    if (connection !== undefined && !connection.isClosed()) return connection
    const { username, password, host, protocol } = new URL(url)
    const opening = {
      servers: `${protocol}//${host}`,
      ...(username === '' ? {} : { user: decodeURIComponent(username), pass: decodeURIComponent(password) }),
      ...(key === undefined ? {} : { token: key }),
      timeout: limits.natsTimeoutMs,
      pingInterval: limits.natsTimeoutMs,
      maxPingOut: 2,
      // A lost connection is made anew by the next try: one way to begin, whatever went wrong.
      reconnect: false,
      ...options,
    } as ConnectionOptions
    connecting ??= connect(opening).finally(() => {
      connecting = undefined
    })
    const made = await connecting
    if (closed) {
      await made.close()
      throw new Error('the client is closed')
    }
    connection = made
    return made
  }

  return {
    async send(body) {
      try {
        const packed = gzip === undefined ? body : await gzip(body)
        const current = await reach()
        if (via === 'stream') {
          await current.jetstream().publish(subject, packed, { headers, timeout: limits.clientTimeoutMs })
          return { kind: 'taken', answer: null }
        }
        const message = await current.request(subject, packed, { headers, timeout: limits.clientTimeoutMs })
        return outcomeOf(Number(message.headers?.get('status')), message.string())
      } catch (error) {
        if (error instanceof NatsError && error.code === ErrorCode.MaxPayloadExceeded) {
          return { kind: 'refused', why: 'the server takes no message as large as this batch: set batchBytes' }
        }
        return { kind: 'again', why: String(error) }
      }
    },
    async close() {
      closed = true
      await connection?.close()
    },
  }
}
