/**
 * The only place that asks the time. Everything else is given a Clock, so that tests and the demo move time by hand and a
 * replay never depends on when it runs. Times are epoch milliseconds, UTC.
 *
 * Durations (time-outs, back-off, group commit) are not the Clock's business: they use timers and performance.now().
 */
export interface Clock {
  /** Epoch milliseconds. May stand still; callers that need a time that never falls keep their own maximum. */
  now(): number
}

export const systemClock: Clock = { now: () => Date.now() }

/** A clock that moves only when told. For tests and the demo. */
export class HandClock implements Clock {
  #now: number

  constructor(start: number | string) {
    this.#now = typeof start === 'string' ? Date.parse(start) : start
    if (!Number.isSafeInteger(this.#now)) throw new Error(`cannot start a clock at ${start}`)
  }

  now(): number {
    return this.#now
  }

  set(to: number | string): void {
    const at = typeof to === 'string' ? Date.parse(to) : to
    if (!Number.isSafeInteger(at)) throw new Error(`cannot set the clock to ${to}`)
    this.#now = at
  }

  advance(ms: number): void {
    this.#now += ms
  }
}
