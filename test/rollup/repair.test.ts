/**
 * A chunk that is in ClickHouse twice, as an owner leaves it that was stopped for longer than the token window: found by counting
 * before a closing, taken out, alarmed. And a repair that dies half-way: the next start ends it.
 */
import { beforeAll, expect, test } from 'vitest'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let opened: TestSystem
beforeAll(async () => {
  opened = await openTestSystem()
})

const MARCH = Date.UTC(2026, 2, 15)

async function command(query: string): Promise<void> {
  await opened.system.engines.clickhouse.command({
    query,
    clickhouse_settings: { insert_deduplicate: 0, mutations_sync: '2' },
  })
}

async function total(table: string): Promise<number> {
  const [row] = await opened.system.rollup.rowsOf<{ n: string }>(`SELECT count() AS n FROM ${table}`, {})
  return Number(row!.n)
}

const surplusCounted = async (): Promise<number> =>
  (await opened.system.metrics.surplus.get()).values.reduce((sum, { value }) => sum + value, 0)

test(`chunks that landed twice => a closing counts them once, repairs and alarms ${promises('flow:exactly-once')}`, async () => {
  const { clock } = opened
  clock.set(MARCH)
  const events = Array.from({ length: 50 }, (_, i) => ({
    id: `r${i}`,
    tenant: 'alpha',
    metric: i % 2 === 0 ? 'data' : 'users',
    subject: `s${i % 7}`,
    time: MARCH - i * 60_000,
    ...(i % 2 === 0 ? { value: '100' } : { dims: { user: `u${i % 5}` } }),
  }))
  await opened.send(events)
  await opened.system.settle()
  const tables = ['usage_minute', 'usage_members', 'usage_events'] as const
  const before = await Promise.all(tables.map(total))
  for (const table of tables) await command(`INSERT INTO ${table} SELECT * FROM ${table}`)
  expect(await Promise.all(tables.map(total))).toEqual(before.map((n) => 2 * n))
  expect((await opened.system.audit()).ok).toBe(false)

  clock.set(Date.UTC(2026, 3, 2))
  const closed = await opened.system.billing.closePeriod({ contract: 'contract-alpha', at: MARCH })
  expect(closed.invoice!.invoice.usage.map(({ metric, quantity }) => [metric, quantity])).toEqual(
    expect.arrayContaining([
      ['data', '2500'],
      ['users', '5'],
    ]),
  )
  expect(await Promise.all(tables.map(total))).toEqual(before)
  expect(await surplusCounted()).toBe(before.reduce((a, b) => a + b, 0))
  const audit = await opened.system.audit()
  expect(audit.checks.filter((check) => !check.ok)).toEqual([])
})

test('rows that no checkpoint knows, or that are missing => nothing is billed', async () => {
  const { clock } = opened
  clock.set(Date.UTC(2026, 3, 10))
  await opened.send([{ id: 'm1', tenant: 'alpha', metric: 'data', value: '3' }])
  await opened.system.settle()
  await command(`INSERT INTO usage_minute SELECT * REPLACE (epoch + 1000 AS epoch) FROM usage_minute LIMIT 1`)
  await command(`ALTER TABLE usage_events DELETE WHERE id = 'm1'`)
  clock.set(Date.UTC(2026, 4, 3))
  await expect(
    opened.system.billing.closePeriod({ contract: 'contract-alpha', at: Date.UTC(2026, 3, 15) }),
  ).rejects.toThrow(/usage_events holds 0 rows|no checkpoint has/)
  expect(await opened.system.invoicing.list({ contract: 'contract-alpha' })).toHaveLength(1)
})

test(`a repair that died after its rows were deleted => the next start puts them back ${promises('flow:replay-equals-live')}`, async () => {
  const { rollup, engines } = opened.system
  const [key] = await rollup.rowsOf<{ stream: number; epoch: string; chunk: number; found: string }>(
    'SELECT stream, epoch, chunk, count() AS found FROM usage_members GROUP BY stream, epoch, chunk ORDER BY found DESC LIMIT 1',
    {},
  )
  const { stream, epoch, chunk, found: n } = key!
  const where = `stream = ${stream} AND epoch = ${epoch} AND chunk = ${chunk}`
  await command('CREATE TABLE usage_members_repair AS usage_members')
  await command(`INSERT INTO usage_members_repair SELECT * FROM usage_members WHERE ${where}`)
  await engines.postgres.query(
    `INSERT INTO repairs (table_name, stream, epoch, chunk, rows, started_at) VALUES ('usage_members', $1, $2, $3, $4, 0)`,
    [stream, epoch, chunk, n],
  )
  await command(`ALTER TABLE usage_members DELETE WHERE ${where}`)
  await opened.reopen()
  const [after] = await opened.system.rollup.rowsOf<{ n: string }>(
    `SELECT count() AS n FROM usage_members WHERE ${where}`,
    {},
  )
  expect(after!.n).toBe(n)
  expect((await opened.system.engines.postgres.query('SELECT * FROM repairs')).rows).toEqual([])
})
