/**
 * releve/client: events to a releve service, from a process that must not stop for it.
 *
 *   send(event) --> batch (columnar, encoded as it fills) --> delivery --> HTTP or NATS
 *                                                                |
 *                                                              spool on disk, while the service is away
 *
 * Promises: an event is sent until the service has it on disk, with the same id each time, so it counts once; what is refused is
 * reported by event; memory and disk are bounded, and at the bound `send` waits or refuses. Without a spool a crash of this
 * process loses what has not been taken yet; with one it loses the batch that is being filled, and with `always` nothing else.
 *
 *   const client = openClient({ url: 'http://127.0.0.1:8484', key })
 *   await client.send({ id, metric: 'api_call', subject, time: Date.now(), value: '1', dims: { region: 'eu' } })
 *   await client.close()
 */
import { promisify } from 'node:util'
import { gzip as gzipWithCallback } from 'node:zlib'
import { limits } from '../limits.js'
import { Delivery } from './delivery.js'
import { BatchEncoder } from './encoder.js'
import type { ClientEvent } from './event.js'
import { openHttpTransport } from './http.js'
import { openNatsTransport } from './nats.js'
import { Spool, type SpooledBatch } from './spool.js'
import type { ClientRefusal, ServiceAnswer, Transport } from './transport.js'

export { type ClientEvent, EventError } from './event.js'
export type { ClientRefusal } from './transport.js'

export interface ClientOptions {
  /** http://, https://, nats:// or tls://; the last two with user:password@ where the server asks for it. */
  readonly url: string
  /** The API key; over NATS the token. */
  readonly key?: string
  /** NATS only, and needed there: the tenant that the subject speaks for. */
  readonly tenant?: string
  /** NATS only. `request` (default): the service answers. `stream`: JetStream takes it, also while the service is away. */
  readonly via?: 'request' | 'stream'
  /** NATS only: more options of the connection, certificates for example. */
  readonly nats?: Readonly<Record<string, unknown>>
  /** A batch is sent when it has so many events (1,000), so many bytes (1 MiB; NATS 156 KiB), or is so old (20 ms). */
  readonly batchEvents?: number
  readonly batchBytes?: number
  readonly lingerMs?: number
  readonly gzip?: boolean
  /** Requests at once (4). */
  readonly inFlight?: number
  /** Sealed batches in memory, bytes (64 MiB). */
  readonly memoryBytesMax?: number
  /** At the bound of memory (and of the spool): `send` waits (default), or throws ClientFullError. */
  readonly whenFull?: 'wait' | 'refuse'
  readonly spool?: {
    /** One client owns it. */
    readonly directory: string
    /** 1 GiB. */
    readonly bytesMax?: number
    /** Every batch goes to disk before it is sent, and not only while the service is away. */
    readonly always?: boolean
  }
  /** The refusals of a batch that the service spells out, the first hundred, and how many there were. */
  readonly onRefused?: (refusals: readonly ClientRefusal[], refused: number) => void
  /** A batch that will never be taken, damage in the spool, and each try that failed. */
  readonly onError?: (error: Error) => void
}

/** Events. sent + recovered = stored + refused + published + undeliverable + waiting + spooled. */
export interface ClientBooks {
  /** Taken by `send`. */
  readonly sent: number
  /** Found in the spool at the start. */
  readonly recovered: number
  readonly stored: number
  readonly refused: number
  /** Taken by the stream, which has no verdicts. */
  readonly published: number
  /** Of batches that the service will never take. */
  readonly undeliverable: number
  /** In memory. */
  readonly waiting: number
  /** On disk. */
  readonly spooled: number
}

/** The bound of memory is reached, and `send` was told not to wait, or too many calls wait already. */
export class ClientFullError extends Error {
  override readonly name = 'ClientFullError'
}

export interface Client {
  /**
   * Takes an event. Returns a promise only when there is no room: then wait for it. Throws EventError for what no event is, and
   * ClientFullError.
   */
  send(event: ClientEvent): void | Promise<void>
  /** Resolves when all that was sent has been taken, or lies in the spool. */
  flush(): Promise<void>
  /**
   * Sends what is left, for so long (10 s). What then still waits goes to the spool; without one it is lost, and `waiting` of the
   * books says how much. The last call.
   */
  close(timeoutMs?: number): Promise<ClientBooks>
  readonly books: ClientBooks
}

const gzipAsync = promisify(gzipWithCallback)
const CLOSE_MS = 10_000

/** Throws when an option is wrong, or another process has the spool. */
export function openClient(options: ClientOptions): Client {
  return new EventClient(options)
}

class EventClient implements Client {
  readonly #options: ClientOptions
  readonly #encoder: BatchEncoder
  readonly #batchBytes: number
  readonly #lingerMs: number
  readonly #memoryBytesMax: number
  readonly #spool: Spool | null
  readonly #delivery: Delivery
  #timer: NodeJS.Timeout | undefined
  #batch = 0
  #closed = false
  /** Calls that wait for something to leave the memory. */
  #waiting: (() => void)[] = []
  #sent = 0
  readonly #recovered: number
  #stored = 0
  #refused = 0
  #published = 0
  #undeliverable = 0

  constructor(options: ClientOptions) {
    this.#options = options
    const isNats = /^(nats|tls):/.test(options.url)
    if (!isNats && !/^https?:/.test(options.url)) throw new TypeError('url must be http, https, nats or tls')
    const number = (name: keyof ClientOptions, fallback: number, min: number, max: number): number => {
      const value = (options[name] as number | undefined) ?? fallback
      if (!(value >= min && value <= max)) throw new RangeError(`${name} must be ${min} to ${max}, is ${value}`)
      return value
    }
    const batchMax = isNats ? limits.clientNatsBatchBytesMax : limits.clientBatchBytesMax
    this.#encoder = new BatchEncoder(
      Math.floor(number('batchEvents', 1_000, 1, limits.batchEventsMax)),
      isNats ? limits.clientNatsEventJsonMax : limits.clientEventJsonMax,
    )
    this.#batchBytes = number('batchBytes', Math.min(1_048_576, batchMax), 1, batchMax)
    this.#lingerMs = number('lingerMs', 20, 0, 60_000)
    this.#memoryBytesMax = number('memoryBytesMax', limits.clientMemoryBytesMax, 1, 2 ** 40)
    const inFlight = Math.floor(number('inFlight', 4, 1, 64))
    const transport = this.#openTransport(isNats, inFlight)
    const { spool } = options
    this.#spool =
      spool === undefined
        ? null
        : new Spool(spool.directory, spool.bytesMax ?? limits.clientSpoolBytesMax, (what) => this.#report(what))
    this.#recovered = this.#spool?.events ?? 0
    this.#delivery = new Delivery({
      transport,
      spool: this.#spool,
      spoolAlways: spool?.always ?? false,
      inFlight,
      onTaken: (batch, answer) => this.#taken(batch, answer),
      onUndeliverable: ({ events }, why) => {
        this.#undeliverable += events
        this.#report(`${events} events will never be taken: ${why}`)
      },
      onTrouble: (why) => this.#report(why),
      onProgress: () => this.#wake(),
    })
  }

  get books(): ClientBooks {
    const spooled = this.#spool?.events ?? 0
    const settled = this.#stored + this.#refused + this.#published + this.#undeliverable
    return {
      sent: this.#sent,
      recovered: this.#recovered,
      stored: this.#stored,
      refused: this.#refused,
      published: this.#published,
      undeliverable: this.#undeliverable,
      waiting: this.#sent + this.#recovered - settled - spooled,
      spooled,
    }
  }

  send(event: ClientEvent): void | Promise<void> {
    if (this.#closed) throw new Error('the client is closed')
    if (this.#delivery.bytes >= this.#memoryBytesMax) return this.#sendLater(event)
    const encoder = this.#encoder
    try {
      encoder.add(event)
      this.#sent += 1
    } catch (error) {
      // Texts of the event may be in the batch already; without any event nobody would send them away.
      if (encoder.events === 0) encoder.clear()
      throw error
    }
    if (encoder.full || encoder.bytes >= this.#batchBytes || encoder.jsonBytes >= limits.clientEventJsonMax) {
      this.#seal()
    } else this.#timer ??= setTimeout(() => this.#seal(), this.#lingerMs)
  }

  async flush(): Promise<void> {
    this.#seal()
    while (!this.#delivery.isSafe) await this.#progress()
  }

  async close(timeoutMs = CLOSE_MS): Promise<ClientBooks> {
    if (this.#closed) return this.books
    this.#closed = true
    this.#seal()
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      this.#wake()
    }, timeoutMs)
    while (!this.#delivery.isIdle && !isLate) await this.#progress()
    clearTimeout(timer)
    await this.#delivery.stop()
    const { books } = this
    await this.#spool?.close()
    return books
  }

  #sendLater(event: ClientEvent): Promise<void> {
    if (this.#options.whenFull === 'refuse') throw new ClientFullError('the memory of the client is full')
    if (this.#waiting.length >= limits.clientWaitingMax) {
      throw new ClientFullError(`${limits.clientWaitingMax} calls of send wait already: await them`)
    }
    return this.#progress().then(() => this.send(event))
  }

  #seal(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const { events, voids } = this.#encoder
    if (events === 0) return
    this.#batch += 1
    this.#delivery.take({ body: this.#encoder.take(), events, voids: voids > 0, number: this.#batch })
  }

  #taken({ events }: SpooledBatch, answer: ServiceAnswer | null): void {
    if (answer === null) {
      this.#published += events
      return
    }
    this.#stored += answer.stored
    this.#refused += answer.refused
    if (answer.refused > 0) this.#guard(() => this.#options.onRefused?.(answer.refusals, answer.refused))
  }

  #progress(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #wake(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  #report(what: string): void {
    this.#guard(() => this.#options.onError?.(new Error(what)))
  }

  /** A caller's function that throws must not stop the delivery; the process hears of it all the same. */
  #guard(run: () => void): void {
    try {
      run()
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }

  #openTransport(isNats: boolean, inFlight: number): Transport {
    const { url, key, tenant, via = 'request', nats } = this.#options
    const gzip = this.#options.gzip === true ? (body: Uint8Array) => gzipAsync(body, { level: 1 }) : undefined
    if (!isNats) return openHttpTransport({ url, key, connections: inFlight, gzip })
    if (tenant === undefined || tenant === '') throw new TypeError('over NATS the client needs its tenant')
    return openNatsTransport({ url, key, tenant, via, options: nats, gzip })
  }
}
