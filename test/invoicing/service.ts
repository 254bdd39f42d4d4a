/**
 * The whole system on real engines in a directory of a test's own, with the seeds and a clock moved by hand: 10 March 2026. For
 * the tests that need an invoice with events behind it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadSeeds } from '../../src/catalog/seeds.js'
import { HandClock } from '../../src/clock.js'
import { parseConfig } from '../../src/config.js'
import { silentLogger } from '../../src/logger.js'
import { openSystem, type System } from '../../src/system.js'

export const MARCH = { from: Date.UTC(2026, 2, 1), to: Date.UTC(2026, 3, 1) }

export interface TestService {
  readonly system: System
  readonly clock: HandClock
  readonly directory: string
  readonly adminKey: string
  /** `count` events of 1 each, one a minute from `from` on; ids are the metric and their number from `first`. */
  send(events: {
    readonly tenant: string
    readonly metric: string
    readonly count: number
    readonly first?: number
    readonly from?: number
    readonly value?: string
  }): Promise<void>
  /** Behind the grace of March. */
  endMarch(): void
  close(): Promise<void>
}

export async function openTestService(seeds = true): Promise<TestService> {
  const directory = mkdtempSync(join(tmpdir(), 'releve-service-'))
  const clock = new HandClock('2026-03-10T09:00:00Z')
  let system: System | undefined
  try {
    system = await openSystem({
      config: parseConfig({ RELEVE_DATA: directory, RELEVE_STREAMS: '2', RELEVE_LOG: 'silent', RELEVE_PORT: '0' }),
      clock,
      logger: silentLogger,
      onFatal: (error) => {
        throw error
      },
    })
    if (seeds) await loadSeeds(system.catalog)
    await system.catalogSettled()
  } catch (error) {
    await system?.close()
    rmSync(directory, { recursive: true, force: true })
    throw error
  }
  const running = system
  return {
    system: running,
    clock,
    directory,
    adminKey: readFileSync(running.keys.adminKeyFile, 'utf8').trim(),
    async send({ tenant, metric, count, first = 0, from = MARCH.from, value = '1' }) {
      for (let at = 0; at < count; at += 5_000) {
        const events = Array.from({ length: Math.min(5_000, count - at) }, (_, i) => ({
          id: `${metric}-${first + at + i}`,
          metric,
          subject: `agent-${i % 7}`,
          time: from + ((at + i) % 10_000) * 60_000,
          value,
        }))
        const answer = await running.ingest({
          body: Buffer.from(JSON.stringify(events)),
          format: 'json',
          tenant,
          wait: true,
        })
        if (answer.stored !== events.length)
          throw new Error(`cannot send: ${JSON.stringify(answer.refusals.slice(0, 3))}`)
      }
    },
    endMarch() {
      clock.set(MARCH.to + running.config.graceMs + 60_000)
    },
    async close() {
      await running.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
