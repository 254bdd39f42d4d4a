/**
 * Delivery: sealed batches to the service, each until it is taken: the same body with the same ids, again and again, with growing
 * waits, as `Retry-After` says where the service says it. While the service is away, or always when so told, batches go through
 * the spool, in their order.
 *
 *   direct:   queue --> up to `inFlight` requests at once
 *   spooling: queue --> spool --> one request after the other; ends when the spool is empty
 *
 * It bounds nothing by itself: the client asks `bytes` before it makes another batch.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { limits } from '../limits.js'
import type { Spool, SpooledBatch } from './spool.js'
import type { Outcome, ServiceAnswer, Transport } from './transport.js'

export interface SealedBatch extends SpooledBatch {
  /** A void comes after what stands before it, so its batch waits for those under way. */
  readonly voids: boolean
  readonly number: number
}

export interface DeliveryOptions {
  readonly transport: Transport
  readonly spool: Spool | null
  /** Every batch goes to disk first, so that kill -9 of this process loses no sealed batch. */
  readonly spoolAlways: boolean
  readonly inFlight: number
  readonly onTaken: (batch: SpooledBatch, answer: ServiceAnswer | null) => void
  /** The service will never take it. */
  readonly onUndeliverable: (batch: SpooledBatch, why: string) => void
  /** A try that failed, and will be repeated; or the spool that could not be written. */
  readonly onTrouble: (why: string) => void
  /** Something has left the memory. */
  readonly onProgress: () => void
}

export class Delivery {
  readonly #options: DeliveryOptions
  readonly #queue: SealedBatch[] = []
  #bytes = 0
  #running = 0
  #spilling = false
  /** The spool had no room; until something of it was taken. */
  #isFull = false
  #draining = false
  /** The service is away: batches take the way through the spool. */
  #away = false
  /** The spool takes nothing, and is empty: until a batch is taken it is as if there were none. */
  #bypass = false
  #stopped = false
  #stopping: (() => void)[] = []

  constructor(options: DeliveryOptions) {
    this.#options = options
    this.#pump()
  }

  /** Bytes of batches in memory, waiting or under way. */
  get bytes(): number {
    return this.#bytes
  }

  /** Nothing is in memory any more: it was taken, or lies in the spool. */
  get isSafe(): boolean {
    return this.#queue.length === 0 && this.#running === 0 && !this.#spilling
  }

  /** Nothing is left to do. */
  get isIdle(): boolean {
    return this.isSafe && (this.#options.spool?.isEmpty ?? true)
  }

  /** Events of batches in memory. */
  get events(): number {
    return this.#queue.reduce((sum, { events }) => sum + events, 0)
  }

  take(batch: SealedBatch): void {
    this.#queue.push(batch)
    this.#bytes += batch.body.length
    this.#pump()
  }

  /** No more tries. What is in memory goes to the spool when there is one; resolves when all of it has come to rest. */
  async stop(): Promise<void> {
    this.#stopped = true
    if (this.#options.spool !== null) this.#away = true
    for (const wake of this.#stopping) wake()
    await this.#options.transport.close()
    while (this.#running > 0 || this.#draining || this.#spilling) await sleep(5)
    if (this.#options.spool !== null) await this.#spill(this.#options.spool)
  }

  #pump(): void {
    const { spool, spoolAlways, inFlight } = this.#options
    if (this.#stopped) return
    if (spool !== null && !this.#bypass && (spoolAlways || this.#away || this.#spilling || !spool.isEmpty)) {
      // Those under way end first: a batch that comes back takes its place before the later ones.
      if (!this.#draining && !spool.isEmpty) void this.#drain(spool)
      if (this.#queue.length > 0 && this.#running === 0 && !this.#spilling && !this.#isFull) void this.#spill(spool)
      return
    }
    while (this.#running < inFlight && this.#queue.length > 0) {
      if (this.#queue[0]!.voids && this.#running > 0) return
      this.#running += 1
      void this.#deliver(this.#queue.shift()!)
    }
  }

  async #deliver(batch: SealedBatch): Promise<void> {
    const { transport, spool } = this.#options
    for (let tries = 1; ; tries += 1) {
      const outcome = await transport.send(batch.body)
      if (outcome.kind !== 'again') {
        this.#away = false
        this.#bypass = false
        this.#bytes -= batch.body.length
        this.#settle(batch, outcome)
        break
      }
      if (!this.#stopped) this.#options.onTrouble(outcome.why)
      if (this.#stopped || (spool !== null && !this.#bypass && (this.#away || tries >= limits.clientTriesInMemory))) {
        this.#away = spool !== null
        this.#queue.push(batch)
        this.#queue.sort((a, b) => a.number - b.number)
        break
      }
      await this.#wait(tries, outcome.afterMs)
    }
    this.#running -= 1
    this.#pump()
    this.#options.onProgress()
  }

  /** What is in memory goes to disk, as far as that has room. */
  async #spill(spool: Spool): Promise<void> {
    this.#spilling = true
    try {
      while (this.#queue.length > 0) {
        const written = await spool.append(this.#queue)
        this.#isFull = written === 0
        if (written === 0) break
        for (const { body } of this.#queue.splice(0, written)) this.#bytes -= body.length
        this.#options.onProgress()
      }
    } catch (error) {
      this.#options.onTrouble(`the spool cannot be written: ${String(error)}`)
      await this.#wait(1)
    }
    this.#spilling = false
    if (this.#stopped) return
    this.#bypass = this.#queue.length > 0 && spool.isEmpty
    this.#pump()
    this.#options.onProgress()
  }

  async #drain(spool: Spool): Promise<void> {
    const { transport } = this.#options
    this.#draining = true
    try {
      for (let tries = 1; !this.#stopped; ) {
        const batch = await spool.peek()
        if (batch === null) break
        const outcome = await transport.send(batch.body)
        if (outcome.kind === 'again') {
          if (this.#stopped) break
          this.#options.onTrouble(outcome.why)
          await this.#wait(tries, outcome.afterMs)
          tries += 1
          continue
        }
        tries = 1
        this.#away = false
        await spool.shift(batch)
        this.#settle(batch, outcome)
        this.#isFull = false
        this.#pump()
        this.#options.onProgress()
      }
    } catch (error) {
      this.#options.onTrouble(`the spool cannot be read: ${String(error)}`)
      await this.#wait(limits.clientTriesInMemory)
    }
    this.#draining = false
    this.#pump()
    this.#options.onProgress()
  }

  #settle(batch: SpooledBatch, outcome: Exclude<Outcome, { kind: 'again' }>): void {
    if (outcome.kind === 'taken') this.#options.onTaken(batch, outcome.answer)
    else this.#options.onUndeliverable(batch, outcome.why)
  }

  /** Until the next try, give or take a quarter, so that many clients do not come back at once. */
  #wait(tries: number, afterMs?: number): Promise<void> {
    if (this.#stopped) return Promise.resolve()
    const grown = Math.min(limits.clientRetryLastMs, limits.clientRetryFirstMs * 2 ** Math.min(tries - 1, 20))
    const ms = Math.min(afterMs ?? grown, limits.clientRetryAfterMaxMs) * (0.75 + 0.5 * Math.random())
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        this.#stopping = this.#stopping.filter((other) => other !== wake)
        resolve()
      }
      const timer = setTimeout(wake, ms)
      this.#stopping.push(wake)
    })
  }
}
