/**
 * Usage questions leave out the minutes of unfolded epochs where these have nothing to say: seen in what is asked of ClickHouse, and
 * the figures stay right for late events and voids, over folds, over very many epochs without a fold, and over a restart.
 */
import { beforeAll, expect, test, vi } from 'vitest'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { type EventInput, openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
let drawn = 0

beforeAll(async () => {
  t = await openTestSystem({ now: '2026-03-13T12:00:00Z' })
})

const event = (time: string, metric: string, value: string): EventInput => {
  drawn += 1
  return { id: `event-${drawn}`, tenant: 'alpha', metric, time, value }
}

async function sendEpoch(events: readonly EventInput[]): Promise<void> {
  await t.send(events)
  await t.system.settle()
}

/** The figure of a day, and which tables were asked, question by question. */
async function ask(metric: string, day: string, next: string): Promise<{ value: string | null; asked: string[][] }> {
  const seen = vi.spyOn(t.system.engines.clickhouse, 'query')
  try {
    const range = { from: `${day}T00:00:00Z`, to: `${next}T00:00:00Z` }
    const { windows } = await t.system.answers.usage({
      ...{ tenant: 'alpha', metric, window: null, timeZone: 'UTC' },
      ...range,
    })
    const asked = seen.mock.calls.map(([{ query }]) => query.match(/FROM (usage_\w+)/g)!.map((from) => from.slice(11)))
    return { value: windows[0]?.value ?? null, asked }
  } finally {
    seen.mockRestore()
  }
}
const tenth = (metric: string) => ask(metric, '2026-03-10', '2026-03-11')
const twelfth = (metric: string) => ask(metric, '2026-03-12', '2026-03-13')

test(`${promises('flow:late-is-correction')} minutes are asked where an epoch since the fold has some, and only there`, async () => {
  const top = event('2026-03-10T10:00:00Z', 'peak', '9')
  await sendEpoch([event('2026-03-10T10:00:00Z', 'data', '5'), top, event('2026-03-10T10:00:10Z', 'peak', '4')])
  expect(await tenth('data')).toEqual({ value: '5', asked: [['minute']] })
  await t.system.fold()
  expect(await tenth('data')).toEqual({ value: '5', asked: [['hour']] })
  expect(await tenth('peak')).toEqual({ value: '9', asked: [['hour']] })

  await sendEpoch([event('2026-03-12T23:59:59Z', 'data', '7'), event('2026-03-12T23:59:59Z', 'peak', '3')])
  expect(await tenth('data')).toEqual({ value: '5', asked: [['hour']] })
  expect(await twelfth('data')).toEqual({ value: '7', asked: [['hour', 'minute']] })
  expect(await ask('data', '2026-03-13', '2026-03-14')).toEqual({ value: null, asked: [['hour']] })
  expect(await tenth('peak')).toEqual({ value: '9', asked: [['hour']] })
  expect(await twelfth('peak')).toEqual({ value: '3', asked: [['minute'], ['hour', 'minute']] })

  // A late event, and the void of the largest, which hours cannot mend.
  await sendEpoch([event('2026-03-10T00:00:00Z', 'data', '1'), { ...top, kind: 'void' }])
  expect(await tenth('data')).toEqual({ value: '6', asked: [['hour', 'minute']] })
  expect(await tenth('peak')).toEqual({ value: '4', asked: [['minute'], ['minute']] })
  expect(await ask('data', '2026-03-09', '2026-03-10')).toEqual({ value: null, asked: [['hour']] })
  await t.system.fold()
  expect(await tenth('data')).toEqual({ value: '6', asked: [['hour']] })
  expect(await tenth('peak')).toEqual({ value: '4', asked: [['hour']] })
  expect(await twelfth('data')).toEqual({ value: '7', asked: [['hour']] })
})

test(`${promises('flow:exactly-once')} more epochs without a fold than are known one by one => nothing is left out`, async () => {
  await sendEpoch([event('2026-03-10T11:00:00Z', 'data', '10')])
  for (let i = 0; i < limits.unfoldedEpochsMax + 3; i += 1)
    await sendEpoch([event('2026-03-12T11:00:00Z', 'data', '1')])
  expect(await tenth('data')).toEqual({ value: '16', asked: [['hour', 'minute']] })
  const all = String(7 + limits.unfoldedEpochsMax + 3)
  expect(await twelfth('data')).toEqual({ value: all, asked: [['hour', 'minute']] })
  await t.system.fold()
  expect(await tenth('data')).toEqual({ value: '16', asked: [['hour']] })
  expect(await twelfth('data')).toEqual({ value: all, asked: [['hour']] })
})

test(`${promises('flow:exactly-once')} a restart => minutes are asked everywhere until the epochs before it are folded`, async () => {
  await sendEpoch([event('2026-03-10T12:00:00Z', 'data', '100')])
  await t.reopen()
  expect(await tenth('data')).toEqual({ value: '116', asked: [['hour', 'minute']] })
  await sendEpoch([event('2026-03-12T12:00:00Z', 'data', '1')])
  expect(await tenth('data')).toEqual({ value: '116', asked: [['hour', 'minute']] })
  await t.system.fold()
  expect(await tenth('data')).toEqual({ value: '116', asked: [['hour']] })
  await t.reopen()
  expect(await tenth('data')).toEqual({ value: '116', asked: [['hour']] })
})
