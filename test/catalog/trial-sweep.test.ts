/** Trials that are over, on a real PostgreSQL: moved by their policy on the day that counts, once, with their line of the history. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import { loadSeeds, seedContracts, seedCustomers } from '../../src/catalog/seeds.js'
import { sweepTrials, watchTrials } from '../../src/catalog/trial-sweep.js'
import { trialsOf } from '../../src/catalog/trials.js'
import { HandClock } from '../../src/clock.js'
import { closePeriod } from '../../src/invoicing/close.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'
import { silentLogger } from '../../src/logger.js'
import { usageOf } from '../invoicing/march.js'
import { openTestPostgres, type TestPostgres } from '../invoicing/postgres.js'

let postgres: TestPostgres
let catalog: Catalog
const clock = new HandClock('2026-03-10T09:00:00Z')

const put = (id: string, trial: object | undefined, more: object = {}) =>
  catalog.putContract({
    ...seedContracts[1]!,
    id,
    tenant: seedCustomers[3]!.tenant,
    start: '2026-02-01',
    state: 'trial',
    items: [{ id: `${id}/1`, plan: 'oid-business' }],
    ...(trial === undefined ? {} : { trial }),
    ...more,
  } as Parameters<Catalog['putContract']>[0])
const stateOf = (id: string) => catalog.book().contractOf(id).state

beforeAll(async () => {
  postgres = await openTestPostgres()
  catalog = await openCatalog({ postgres: postgres.pool, clock })
  await loadSeeds(catalog)
  await catalog.putContract({ ...seedContracts[1]!, state: 'active' })
}, 120_000)
afterAll(async () => postgres?.close())

test('by its policy and not before its grace is over; without a policy it stays; what was decided stays decided', async () => {
  // The 14 days end on 8 March, the grace on the 15th.
  const trial = { start: '2026-02-22', graceDays: 7 }
  await put('pays', { ...trial, atEnd: 'convert' })
  await put('leaves', { ...trial, atEnd: 'cancel' })
  await put('waits', trial)
  await put('extended', { ...trial, atEnd: 'cancel', extensionDays: 7 })
  await put('decided', { ...trial, atEnd: 'cancel' })
  await catalog.moveContract('decided', 'active', { reason: 'signed', actor: 'key:ops' })
  await expect(put('wrong', { ...trial, atEnd: 'forget' })).rejects.toThrow(/trial.atEnd: /)

  expect(await sweepTrials(catalog, clock)).toEqual({ converted: 0, cancelled: 0, failed: [], left: 0 })
  expect(trialsOf(catalog.book(), clock.now(), null).funnel).toMatchObject({ converting: 3, converted: 1, active: 1 })

  // The service was away for some days: the day of the policy counts, not the day of the sweep.
  clock.set('2026-03-18T05:00:00Z')
  const before = trialsOf(catalog.book(), clock.now(), null)
  expect(before.funnel).toMatchObject({ started: 5, converting: 1, expired: 3, active: 0, converted: 1 })
  expect(before.trials.find((one) => one.contract === 'pays')).toMatchObject({ atEnd: 'convert', over: '2026-03-15' })
  const [one, other] = await Promise.all([
    sweepTrials(catalog, clock),
    openCatalog({ postgres: postgres.pool, clock }).then((second) => sweepTrials(second, clock)),
  ])
  expect([one.converted + other.converted, one.cancelled + other.cancelled]).toEqual([1, 1])
  expect([one.failed, other.failed]).toEqual([[], []])
  await catalog.refresh()
  expect(['pays', 'leaves', 'waits', 'extended', 'decided'].map(stateOf)).toEqual([
    'active',
    'cancelled',
    'trial',
    'trial',
    'active',
  ])
  expect(await catalog.history('pays')).toMatchObject([
    { kind: 'move', from: 'trial', to: 'active', on: '2026-03-15', actor: 'system', reason: 'trial over' },
  ])
  expect(await catalog.history('leaves')).toMatchObject([{ to: 'cancelled', on: '2026-03-15', actor: 'system' }])
  // The last of the trials that were decided on by themselves are in the funnel.
  expect(trialsOf(catalog.book(), clock.now(), null).funnel).toEqual({
    started: 5,
    active: 0,
    converting: 1,
    converted: 2,
    expired: 2,
    conversionPercent: '40.0',
  })
  expect(await sweepTrials(catalog, clock)).toEqual({ converted: 0, cancelled: 0, failed: [], left: 0 })
})

test('one that is converted by itself is billed from that day: 17 of 31 days', async () => {
  clock.set('2026-04-01T02:00:00Z')
  const options = {
    postgres: postgres.pool,
    clock,
    catalog,
    invoicing: new Invoicing({ postgres: postgres.pool, clock }),
  }
  const closed = await closePeriod(
    { ...options, usageAtCut: usageOf({}) },
    { contract: 'pays', at: Date.UTC(2026, 2, 1) },
  )
  expect(closed.invoice!.invoice.lines.map((line) => [line.type, line.amount])).toEqual([['fee', '109.68']])
})

test('at most so many at once, the oldest first; the next look takes the others', async () => {
  for (let i = 0; i < 5; i += 1) await put(`many-${i}`, { start: `2026-02-0${9 - i}`, atEnd: 'cancel' })
  expect(await sweepTrials(catalog, clock, 3)).toMatchObject({ cancelled: 3, left: 3 })
  expect(stateOf('many-0')).toBe('trial')
  expect(stateOf('many-4')).toBe('cancelled')
  // The watch of a running service looks at once.
  const watch = watchTrials(catalog, clock, silentLogger)
  await watch.close()
  expect(['many-0', 'many-1', 'extended'].map(stateOf)).toEqual(['cancelled', 'cancelled', 'cancelled'])
})
