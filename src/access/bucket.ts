/**
 * A token bucket in whole thousandths, by a clock that is handed in. It holds at most `burst` tokens and gains `rate` a second.
 * Spending may go below zero: what was let in is paid afterwards, and the next waits until the debt is.
 */
export class Bucket {
  readonly rate: number
  readonly #full: number
  #milli: number
  #at: number

  /** Whole numbers from 1 on. */
  constructor(rate: number, burst: number, now: number) {
    this.rate = rate
    this.#full = burst * 1000
    this.#milli = this.#full
    this.#at = now
  }

  /** Milliseconds until there is a whole token; 0: now. */
  waitMs(now: number): number {
    this.#refill(now)
    return this.#milli >= 1000 ? 0 : Math.ceil((1000 - this.#milli) / this.rate)
  }

  spend(tokens: number, now: number): void {
    this.#refill(now)
    this.#milli -= tokens * 1000
  }

  /** Whole tokens; never below zero. */
  left(now: number): number {
    this.#refill(now)
    return Math.max(0, Math.floor(this.#milli / 1000))
  }

  #refill(now: number): void {
    // A clock that goes back gives nothing and takes nothing.
    if (now <= this.#at) return
    this.#milli = Math.min(this.#full, this.#milli + (now - this.#at) * this.rate)
    this.#at = now
  }
}
