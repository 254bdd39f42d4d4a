/** A month that nothing comes to any more becomes one part by itself, so that a question about it reads one. */
import { expect, test, vi } from 'vitest'
import { openTestSystem } from '../system.js'

test('a month to which nothing came for the age of its table => one part, the same rows, and one that came later joins it', async () => {
  const { system, send } = await openTestSystem({ now: '2026-03-20T12:00:00Z' })
  const { clickhouse } = system.engines
  const ages = await system.rollup.rowsOf<{ name: string; age: string; whole: string }>(
    `SELECT name, extract(engine_full, 'min_age_to_force_merge_seconds = (\\\\d+)') AS age,
  extract(engine_full, 'min_age_to_force_merge_on_partition_only = (\\\\w+)') AS whole
FROM system.tables WHERE database = currentDatabase() AND age != '' ORDER BY name`,
    {},
  )
  expect(ages).toEqual([
    { name: 'usage_hour', age: '3600', whole: expect.stringMatching(/^(1|true)$/) },
    { name: 'usage_minute', age: '21600', whole: expect.stringMatching(/^(1|true)$/) },
  ])
  const parts = async (): Promise<{ parts: number; rows: number }> => {
    const [row] = await system.rollup.rowsOf<{ parts: string; rows: string }>(
      `SELECT count() AS parts, sum(rows) AS rows FROM system.parts WHERE active AND table = 'usage_minute' AND database = currentDatabase()`,
      {},
    )
    return { parts: Number(row!.parts), rows: Number(row!.rows) }
  }
  const sendOne = async (minute: number): Promise<void> => {
    await send([
      { id: `e${minute}`, tenant: 'alpha', metric: 'data', time: Date.UTC(2026, 2, 10, 10, minute), value: '1' },
    ])
    await system.settle()
  }
  for (let minute = 0; minute < 3; minute += 1) await sendOne(minute)
  expect(await parts()).toEqual({ parts: 3, rows: 3 })
  await clickhouse.command({ query: 'ALTER TABLE usage_minute MODIFY SETTING min_age_to_force_merge_seconds = 1' })
  const settled = { timeout: 90_000, interval: 200 }
  await vi.waitFor(async () => expect(await parts()).toEqual({ parts: 1, rows: 3 }), settled)
  await sendOne(3)
  await vi.waitFor(async () => expect(await parts()).toEqual({ parts: 1, rows: 4 }), settled)
}, 240_000)
