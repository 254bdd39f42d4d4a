/**
 * A guard with room for few reservations: what it says when there is none, what it forgets for a new one, and what a start makes of a
 * journal that knows many more than fit. Journal and log are the real ones, the stream's place is moved by hand.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { HandClock } from '../../src/clock.js'
import { type FileLog, openFileLog } from '../../src/log/files.js'
import { silentLogger } from '../../src/logger.js'
import { openMetrics } from '../../src/metrics.js'
import { Guard } from '../../src/quota/guard.js'
import { Journal } from '../../src/quota/journal.js'
import type { Policies } from '../../src/quota/policy.js'
import { promises } from '../promises.js'

const ROWS = 100
const clock = new HandClock('2026-03-10T00:00:00Z')
const position = { applied: 0, last: 0 }
let folder: string
let log: FileLog
let guard: Guard

async function open(checkpoint: number): Promise<void> {
  log = await openFileLog({
    directory: join(folder, 'journal'),
    streams: 1,
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
  })
  guard = new Guard({
    clock,
    logger: silentLogger,
    metrics: openMetrics(),
    policies: { of: () => ({ soft: null, hard: '100000' }) } as unknown as Policies,
    journal: new Journal(log),
    streams: 1,
    rows: ROWS,
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
  await guard.open(() => checkpoint)
  guard.setEntitlements([
    {
      item: 'item',
      contract: 'contract',
      tenant: 'acme',
      product: 'P',
      metric: 'calls',
      aggregation: 'sum',
      limit: '100000',
      limitVersion: 1,
      thresholds: [],
      anchor: Date.UTC(2026, 0, 1),
      timeZone: 'UTC',
    },
  ])
  const told = { tenant: 'acme', item: 'item', metric: 'calls', periodFrom: Date.UTC(2026, 2, 1), usage: 0n }
  guard.start(() => ({
    stream: 0,
    position,
    guard: async () => ({ sequence: position.applied, usages: [told] }),
  }))
}

async function close(): Promise<void> {
  guard.close()
  await log.close()
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'releve-rows-'))
  Object.assign(position, { applied: 0, last: 0 })
  await open(0)
})
afterEach(async () => {
  await close()
  rmSync(folder, { recursive: true, force: true })
})

let next = 0
async function reserve(more: { quantity?: string; key?: string; leaseSeconds?: number } = {}): Promise<string> {
  next += 1
  const ask = { tenant: 'acme', metric: 'calls', quantity: '1', leaseSeconds: 3600, key: `key ${next}`, ...more }
  const granted = await guard.reserve(ask)
  if (!('reservation' in granted)) throw new Error('refused')
  return granted.reservation.id
}

async function held(): Promise<string> {
  const { quotas } = await guard.check({ tenant: 'acme', metric: 'calls', quantity: '0' })
  return quotas[0]!.held
}

const overloaded = { code: 'overloaded', retryAfterS: 1 }

test('as many held as there is room for => 503 with Retry-After, and nothing that is held is lost; whatever ends makes room again', async () => {
  const ids: string[] = []
  for (let i = 0; i < ROWS; i += 1) ids.push(await reserve())
  await expect(reserve()).rejects.toMatchObject(overloaded)
  expect(await held()).toBe(`${ROWS}`)
  // The same key needs no room.
  const last = await guard.reserve({
    tenant: 'acme',
    metric: 'calls',
    quantity: '1',
    leaseSeconds: 3600,
    key: `key ${next - 1}`,
  })
  expect(last).toMatchObject({ reservation: { id: ids.at(-1) } })
  // Known until its room is needed.
  await guard.release(ids[0]!, null)
  expect(guard.get(ids[0]!, null).state).toBe('released')
  await reserve()
  expect(() => guard.get(ids[0]!, null)).toThrow('there is no reservation')
  await expect(reserve()).rejects.toMatchObject(overloaded)
  // Committed and not yet counted still holds, and so keeps its room.
  position.last = 7
  await guard.commit(ids[1]!, null, '3')
  await expect(reserve()).rejects.toMatchObject(overloaded)
  expect(await held()).toBe(`${ROWS + 2}`)
  position.applied = 7
  guard.applied(0, 7, [])
  await reserve()
  expect(await held()).toBe(`${ROWS}`)
  // So do leases that end.
  clock.advance(3_601_000)
  await reserve({ quantity: '5' })
  expect(await held()).toBe('5')
})

test(`${promises('limit:never-oversold')} many at once where there is room for few => each has its room or 503, and what is held is what was granted`, async () => {
  const asked = await Promise.allSettled(Array.from({ length: 3 * ROWS }, () => reserve({ quantity: '7' })))
  const granted = asked.filter(({ status }) => status === 'fulfilled')
  expect(granted).toHaveLength(ROWS)
  for (const one of asked) if (one.status === 'rejected') expect(one.reason).toMatchObject(overloaded)
  expect(await held()).toBe(`${7 * ROWS}`)
})

test(`${promises('limit:never-oversold')} a start with a journal of many more than fit => what holds is held, to the unit, whatever the clock did`, async () => {
  const kept = [await reserve({ quantity: '11', leaseSeconds: 86_400 }), await reserve({ quantity: '13' })]
  const short = await reserve({ quantity: '1000', leaseSeconds: 10 })
  const use = async (from: number, to: number): Promise<string[]> => {
    const ids: string[] = []
    for (let i = from; i < to; i += 1) {
      const id = await reserve()
      ids.push(id)
      if (i % 2 === 0) await guard.release(id, null)
      else {
        position.last += 1
        await guard.commit(id, null, '2')
      }
      // Counted at once, but for the last ones.
      if (i >= 5 * ROWS) continue
      position.applied = position.last
      guard.applied(0, position.last, [])
    }
    return ids
  }
  await use(0, 5 * ROWS)
  const checkpoint = position.applied
  const unapplied = await use(5 * ROWS, 5 * ROWS + 10)
  expect(await held()).toBe(`${11 + 13 + 1000 + 5 * 2}`)
  await close()
  clock.advance(20_000)
  await open(checkpoint)
  expect(await held()).toBe(`${11 + 13 + 5 * 2}`)
  for (const id of kept) expect(guard.get(id, null)).toMatchObject({ state: 'held', holds: true })
  // Ended in the meantime, or forgotten since.
  await expect(guard.commit(short, null)).rejects.toThrow(/expired|no reservation/)
  expect(guard.get(unapplied.at(-1)!, null)).toMatchObject({ state: 'committed', actual: '2', holds: true })
  position.applied = position.last
  guard.applied(0, position.last, [])
  expect(await held()).toBe('24')
  // Back by an hour and once more from the journal: what has ended stays so as far as leases say, what is held is held.
  await close()
  clock.set(clock.now() - 3_600_000)
  await open(position.applied)
  for (const id of kept) expect(guard.get(id, null).holds).toBe(true)
  // Days ahead: the wheel has been round.
  clock.advance(5 * 86_400_000)
  expect(await held()).toBe('0')
  for (const id of kept) expect(guard.get(id, null)).toMatchObject({ state: 'expired', holds: false })
})

test('the disk takes nothing => a reservation holds nothing, and an end leaves it held as it was', async () => {
  const [a, b] = [await reserve({ quantity: '4' }), await reserve({ quantity: '5' })]
  await log.close()
  await expect(reserve({ quantity: '6', key: 'again' })).rejects.toMatchObject({ code: 'unavailable' })
  await expect(guard.commit(a, null, '9')).rejects.toMatchObject({ code: 'unavailable' })
  await expect(guard.release(b, null)).rejects.toMatchObject({ code: 'unavailable' })
  expect(await held()).toBe('9')
  expect(guard.get(a, null)).toMatchObject({ state: 'held', actual: null })
  guard.close()
  await open(0)
  expect(await held()).toBe('9')
  // Its key was never taken, and the ends may be said again.
  await reserve({ quantity: '6', key: 'again' })
  await guard.commit(a, null, '9')
  await guard.release(b, null)
  expect(await held()).toBe('6')
})
