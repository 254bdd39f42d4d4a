/**
 * Loop: how late the main thread comes to its work, and how much of that is collecting garbage. A native timer looks at the event
 * loop every few milliseconds; what it is late by is the delay that a request, a timer or an answer would have had.
 *
 * It measures this thread alone. What shard threads do shows in their own times (judging, applying).
 */
import { constants, monitorEventLoopDelay, PerformanceObserver } from 'node:perf_hooks'

const RESOLUTION_MS = 5

/** Seconds, by quantile. */
export type LoopDelay = Readonly<Record<'0.5' | '0.99' | '0.999' | '1', number>>

export interface Loop {
  /** Since the last call. */
  delay(): LoopDelay
  close(): void
}

const kinds = new Map<number, string>([
  [constants.NODE_PERFORMANCE_GC_MINOR, 'minor'],
  [constants.NODE_PERFORMANCE_GC_MAJOR, 'major'],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, 'incremental'],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, 'weak'],
])

/** `onPause`: each stop of this thread for its garbage. */
export function watchLoop(onPause: (kind: string, seconds: number) => void): Loop {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  histogram.enable()
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { kind } = (entry as unknown as { detail: { kind: number } }).detail
      onPause(kinds.get(kind) ?? 'other', entry.duration / 1000)
    }
  })
  observer.observe({ entryTypes: ['gc'] })
  return {
    delay() {
      // The histogram has whole intervals: what is beyond the resolution is the delay.
      const at = (percentile: number): number =>
        histogram.count === 0 ? 0 : Math.max(0, histogram.percentile(percentile) / 1e9 - RESOLUTION_MS / 1000)
      const delay = { '0.5': at(50), '0.99': at(99), '0.999': at(99.9), '1': at(100) }
      histogram.reset()
      return delay
    },
    close() {
      histogram.disable()
      observer.disconnect()
    },
  }
}
