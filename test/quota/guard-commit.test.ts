/**
 * A committed reservation holds until the shard has applied everything that the log had at the commit: the place of the stream is moved by
 * hand, so that the moment between the commit and the balance can be looked at. Journal and its log are the real ones.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { HandClock } from '../../src/clock.js'
import { type FileLog, openFileLog } from '../../src/log/files.js'
import { silentLogger } from '../../src/logger.js'
import { openMetrics } from '../../src/metrics.js'
import type { GuardedUsage } from '../../src/quota/balance.js'
import { Guard, type GuardedStream } from '../../src/quota/guard.js'
import { Journal } from '../../src/quota/journal.js'
import type { Policies } from '../../src/quota/policy.js'
import { promises } from '../promises.js'

let folder: string
let log: FileLog
let guard: Guard
const MARCH = Date.UTC(2026, 2, 1)
const ONE = 1_000_000_000n
const position = { applied: 4, last: 5 }
let usage = 0n
const told = (): GuardedUsage[] => [
  { tenant: 'acme', item: 'item', metric: 'calls', periodFrom: MARCH, usage: usage * ONE },
]
const stream: GuardedStream = {
  stream: 0,
  position,
  guard: async () => ({ sequence: position.applied, usages: told() }),
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'releve-guard-'))
  log = await openFileLog({
    directory: join(folder, 'journal'),
    streams: 1,
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
  })
  guard = new Guard({
    clock: new HandClock('2026-03-10T00:00:00Z'),
    logger: silentLogger,
    metrics: openMetrics(),
    policies: { of: () => ({ soft: null, hard: 'included' }) } as unknown as Policies,
    journal: new Journal(log),
    streams: 1,
    metricOf: (key) => ({
      key,
      version: 1,
      aggregation: 'sum',
      unit: 'call',
      scale: 0,
      dims: [],
      uniqueBy: null,
      archive: true,
    }),
  })
  await guard.open()
  guard.setEntitlements([
    {
      item: 'item',
      contract: 'contract',
      tenant: 'acme',
      product: 'P',
      metric: 'calls',
      aggregation: 'sum',
      limit: '10',
      limitVersion: 1,
      thresholds: [],
      anchor: Date.UTC(2026, 0, 1),
      timeZone: 'UTC',
    },
  ])
  guard.start(() => stream)
})
afterAll(async () => {
  guard.close()
  await log.close()
  rmSync(folder, { recursive: true, force: true })
})

const remaining = async (): Promise<string | null> =>
  (await guard.check({ tenant: 'acme', metric: 'calls', quantity: '1' })).remaining

test(`${promises('limit:never-oversold')} committed and not yet applied => the hold stays; applied => the usage counts instead, once`, async () => {
  const granted = await guard.reserve({ tenant: 'acme', metric: 'calls', quantity: '8', leaseSeconds: 60, key: 'k' })
  if (!('reservation' in granted)) throw new Error('refused')
  expect(await remaining()).toBe('2')
  // The event is record 5 of the log and is not in the balance yet.
  const committed = await guard.commit(granted.reservation.id, null, '5')
  expect([committed.state, committed.actual, committed.holds]).toEqual(['committed', '5', true])
  expect(await remaining()).toBe('5')
  // A record before it says nothing.
  guard.applied(0, 4, told())
  expect(await remaining()).toBe('5')
  // Now the shard has it.
  position.applied = 5
  usage = 5n
  guard.applied(0, 5, told())
  expect(await remaining()).toBe('5')
  const again = await guard.reserve({ tenant: 'acme', metric: 'calls', quantity: '6', leaseSeconds: 60, key: 'l' })
  expect('refused' in again).toBe(true)
})
