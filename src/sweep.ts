/** Sweep: work that is looked at now and again, one look after the other, until it is closed. A look that fails is told, and the next comes. */

export interface Sweep {
  /** Resolves when the look that is on its way has ended. */
  close(): Promise<void>
}

export function sweepEvery(ms: number, look: () => Promise<void>, onFailure: (error: unknown) => void): Sweep {
  let running: Promise<void> = Promise.resolve()
  const next = (): void => {
    running = running.then(look).catch(onFailure)
  }
  next()
  const timer = setInterval(next, ms)
  timer.unref()
  return {
    async close() {
      clearInterval(timer)
      await running
    },
  }
}
