/**
 * The journal of reservations: what was granted, committed and released, written before it is answered. A log of its own (one
 * stream), read once at the start. What comes while a record is being written is the next record: so a record has as many steps as
 * there are requests at once. What a lease's end does is known from the lease.
 *
 * It is kept short by the caller: `forget` gives back everything before a sequence, and what must stay is written again.
 */
import type { Log } from '../log/log.js'

export type Step =
  | {
      readonly step: 'reserve'
      readonly id: string
      readonly tenant: string
      readonly metric: string
      readonly subject: string | null
      /** At ROLLUP_SCALE, digits. */
      readonly quantity: string
      readonly key: string
      readonly createdAt: number
      readonly expiresAt: number
      /** The quotas that it counts against. */
      readonly quotas: readonly string[]
    }
  | {
      readonly step: 'commit'
      readonly id: string
      readonly actual: string
      /** The hold ends when the stream's records up to this one are in the balances. */
      readonly until: number
      readonly at: number
    }
  | { readonly step: 'release'; readonly id: string; readonly at: number }

interface Batch {
  at: number
  readonly steps: Step[]
  readonly promise: Promise<number>
  readonly resolve: (sequence: number) => void
  readonly reject: (error: unknown) => void
}

function newBatch(at: number): Batch {
  let settle!: Pick<Batch, 'resolve' | 'reject'>
  const promise = new Promise<number>((resolve, reject) => {
    settle = { resolve, reject }
  })
  return { at, steps: [], promise, ...settle }
}

const STREAM = 0
const READ_BYTES = 4 * 1024 * 1024

export class Journal {
  readonly #log: Log
  /** What the next record will hold. */
  #batch: Batch | undefined
  #isWriting = false

  constructor(log: Log) {
    this.#log = log
  }

  /** Resolves with the record's sequence when it is written. Steps get their order by the calls. */
  append(at: number, steps: readonly Step[]): Promise<number> {
    const batch = this.#batch ?? newBatch(at)
    if (this.#batch === undefined) {
      this.#batch = batch
      // Who asks in this same turn of the event loop is in it.
      if (!this.#isWriting) setImmediate(() => void this.#write())
    }
    batch.at = Math.max(batch.at, at)
    batch.steps.push(...steps)
    return batch.promise
  }

  async #write(): Promise<void> {
    this.#isWriting = true
    for (let batch = this.#batch; batch !== undefined; batch = this.#batch) {
      this.#batch = undefined
      try {
        const { sequence } = await this.#log.append(STREAM, batch.at, Buffer.from(JSON.stringify(batch.steps)))
        batch.resolve(sequence)
      } catch (error) {
        batch.reject(error)
      }
    }
    this.#isWriting = false
  }

  /** Every step that is kept, in order. */
  async *steps(): AsyncGenerator<{ sequence: number; step: Step }> {
    const { first, last } = this.#log.state(STREAM)
    for (let next = first; next <= last; ) {
      const records = await this.#log.read(STREAM, next, READ_BYTES)
      if (records.length === 0) return
      for (const { sequence, payload } of records)
        for (const step of JSON.parse(Buffer.from(payload).toString()) as Step[]) yield { sequence, step }
      next = records.at(-1)!.sequence + 1
    }
  }

  get last(): number {
    return this.#log.state(STREAM).last
  }

  /** Nothing before the sequence is needed any more. */
  async forget(sequence: number): Promise<void> {
    await this.#log.deleteBelow(STREAM, sequence)
  }
}
