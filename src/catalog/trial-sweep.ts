/**
 * Trials that are over become what their policy says: looked at every hour, at most so many at once, each in a transaction of its own
 * that writes its line of the history. The day that counts is the one on which the grace was over, however late the sweep comes, so
 * that a service which was away bills from the same day. Asked again, or beside another node, it moves nothing twice.
 */
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import { type Sweep, sweepEvery } from '../sweep.js'
import type { Catalog } from './catalog.js'
import { endedTrials } from './trials.js'

export interface Swept {
  readonly converted: number
  readonly cancelled: number
  readonly failed: readonly { readonly contract: string; readonly reason: string }[]
  /** Trials that are over and wait for the next sweep. */
  readonly left: number
}

export async function sweepTrials(catalog: Catalog, clock: Clock, max: number = limits.trialSweepMax): Promise<Swept> {
  const ended = endedTrials(catalog.book(), clock.now())
  const [failed, counts]: [{ contract: string; reason: string }[], { active: number; cancelled: number }] = [
    [],
    { active: 0, cancelled: 0 },
  ]
  for (const contract of ended.slice(0, max)) {
    try {
      const { value } = await catalog.endTrial(contract, { actor: 'system', reason: 'trial over' })
      counts[value.state as keyof typeof counts] += 1
    } catch (error) {
      // Decided on meanwhile, by a person or another node.
      if (error instanceof ReleveError && error.code === 'conflict') continue
      failed.push({ contract, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  const left = Math.max(0, ended.length - max)
  return { converted: counts.active, cancelled: counts.cancelled, failed, left }
}

/** Sweeps now and every hour until it is closed. */
export function watchTrials(catalog: Catalog, clock: Clock, logger: Logger): Sweep {
  const look = async (): Promise<void> => {
    const swept = await sweepTrials(catalog, clock)
    if (swept.converted + swept.cancelled + swept.failed.length > 0) logger.info(swept, 'trials that were over')
  }
  return sweepEvery(limits.trialSweepMs, look, (error) =>
    logger.warn({ error: String(error) }, 'trials could not be looked at'),
  )
}
