/**
 * Whose turn it is: messages of the stream whose tenant is beyond its rates come again later, each with a time of its own, so that
 * others' go on and none is refused. A time is a guess by what the tenant's last message cost; the budget decides when it comes.
 *
 * Bounded: the server counts what comes again as under way, and gives out no more than limits.natsAckPendingMax. When the places
 * are taken, a message is taken beyond the rate: others must not wait for a tenant that sends too much.
 */
import type { TenantRates } from '../access/rates.js'
import { limits } from '../limits.js'

interface Line {
  /** When each message comes again, by its place in the stream, the earliest first or nearly so. */
  readonly due: Map<number, number>
  /** When the next one comes. */
  next: number
}

/** A message that is taken. */
export interface Turn {
  /** It was not its turn. */
  readonly isBeyond: boolean
  /** Events that it was taken for, until it is judged. */
  readonly events: number
}

/** Events of a byte of a tenant that is not known yet: rather too many, so that not too many are let in. */
const EVENTS_PER_BYTE = 1 / 50

export class Turns {
  readonly #rates: TenantRates
  readonly #max: number
  readonly #lines = new Map<string, Line>()
  /** What the last message of a tenant had, the latest tenant last. */
  readonly #eventsPerByte = new Map<string, number>()
  #size = 0

  constructor(rates: TenantRates, max: number = limits.natsWaitingMax) {
    this.#rates = rates
    this.#max = max
  }

  /** Messages that come again. */
  get size(): number {
    return this.#size
  }

  /** A turn: it is taken, and paid for. A number: milliseconds until it comes again. */
  of(tenant: string, sequence: number, bytes: number, now: number): Turn | number {
    const budget = this.#rates.budgetOf(tenant)
    const line = this.#lines.get(tenant)
    if (line !== undefined) this.#forgetLost(tenant, line, now)
    if (budget === undefined) {
      this.#leave(tenant, sequence)
      return { isBeyond: false, events: 0 }
    }
    const perByte = this.#eventsPerByte.get(tenant) ?? EVENTS_PER_BYTE
    const cost = { requests: 1, bytes, events: Math.max(1, Math.round(bytes * perByte)) }
    const came = line?.due.has(sequence) === true
    const waitMs = budget.waitMs(now)
    // A new one goes behind those that wait.
    const isTurn = waitMs === 0 && (came || (line?.due.size ?? 0) === 0)
    if (isTurn || (!came && this.#size >= this.#max)) {
      this.#leave(tenant, sequence)
      budget.spend(cost, now)
      return { isBeyond: !isTurn, events: cost.events }
    }
    const waiting = line ?? { due: new Map<number, number>(), next: 0 }
    this.#lines.set(tenant, waiting)
    const horizon = now + limits.natsWaitMsMax
    const at = Math.min(Math.max(now + waitMs, waiting.next), horizon)
    waiting.next = Math.min(at + budget.costMs(cost), horizon)
    if (waiting.due.delete(sequence)) this.#size -= 1
    waiting.due.set(sequence, at)
    this.#size += 1
    return Math.max(1, Math.ceil(at - now))
  }

  /** What a message that was taken turned out to have. */
  took(tenant: string, turn: Turn, message: { readonly bytes: number; readonly events: number }, now: number): void {
    const budget = this.#rates.budgetOf(tenant)
    if (budget === undefined) return
    budget.spend({ events: message.events - turn.events }, now)
    this.#eventsPerByte.delete(tenant)
    if (this.#eventsPerByte.size >= limits.tenantBudgetsMax)
      this.#eventsPerByte.delete(this.#eventsPerByte.keys().next().value!)
    this.#eventsPerByte.set(tenant, message.events / Math.max(1, message.bytes))
  }

  #leave(tenant: string, sequence: number): void {
    const line = this.#lines.get(tenant)
    if (line?.due.delete(sequence) !== true) return
    this.#size -= 1
    if (line.due.size === 0) this.#lines.delete(tenant)
  }

  /** What should have come long ago has been taken out of the stream by somebody else. */
  #forgetLost(tenant: string, { due }: Line, now: number): void {
    for (const [sequence, at] of due) {
      if (at + 2 * limits.natsAckWaitMs > now) return
      this.#leave(tenant, sequence)
    }
  }
}
