/**
 * Rebuilt equals live. Given: a service with usage of every aggregation, voids, conflicts, refusals, alerts and a fold. Then the
 * audit is ok; whatever is altered behind its back, the audit names the check that differs; a rebuild mends what the archive
 * knows; a restart changes no balance, no quota, no alert and no key file.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { promises } from '../promises.js'
import { type EventInput, metrics, openTestSystem, type TestSystem, tenants } from '../system.js'

let t: TestSystem
/** What beforeAll made of events: stored in all, and voids accepted. */
let stored = 0
let voided = 0

const minute = (i: number): string => new Date(Date.parse('2026-03-20T10:00:00Z') + i * 60_000).toISOString()

function event(i: number, more: Partial<EventInput> = {}): EventInput {
  const metric = metrics[i % metrics.length]!
  return {
    id: `e${i}`,
    tenant: tenants[i % 3]!,
    metric: metric.key,
    subject: `s${i % 2}`,
    time: minute(Math.floor(i / 50)),
    ...(metric.aggregation === 'count' || metric.aggregation === 'unique' ? {} : { value: String((i * 37) % 101) }),
    dims: metric.aggregation === 'unique' ? { user: `u${i % 5}` } : { region: i % 5 === 0 ? 'dakar' : 'abidjan' },
    ...more,
  }
}

const isArchived = (i: number): boolean => metrics[i % metrics.length]!.archive

beforeAll(async () => {
  t = await openTestSystem()
  const send = async (events: readonly EventInput[]): Promise<void> => {
    const verdicts = await t.send(events)
    stored += events.length
    voided += events.filter(({ kind }, i) => kind === 'void' && verdicts[i] === 'accepted').length
  }
  const voids = (from: number): EventInput[] =>
    Array.from({ length: 40 }, (_, i) => from + i)
      .filter(isArchived)
      .map((i) => event(i, { kind: 'void' }))
  await send(Array.from({ length: 400 }, (_, i) => event(i)))
  await t.system.settle()
  // Voids of the same minutes in two epochs, so that overrides meet; one void twice, one of an unknown event.
  await send([...voids(0), event(0, { kind: 'void' }), event(1, { id: 'unknown', kind: 'void' })])
  await t.system.settle()
  await t.system.fold()
  await send([...voids(40), event(3, { value: '99.5' }), event(401), event(402), event(403)])
  await send([{ id: 'much', tenant: 'alpha', metric: 'data', value: '900', time: minute(2) }])
  await t.system.settle()
  // Everything of one window voided: nothing is left of it.
  const only = event(900, { metric: 'peak', value: '5', dims: {} })
  await send([only])
  await send([{ ...only, kind: 'void' }])
  await t.post([{ id: 'refused', tenant: 'alpha', metric: 'nothing' }])
  await t.system.settle()
})

const failing = async (): Promise<string[]> =>
  (await t.system.audit()).checks.filter((check) => !check.ok).map((check) => check.name)

const query = (text: string): Promise<unknown> =>
  t.system.engines.clickhouse.command({ query: text, clickhouse_settings: { mutations_sync: '2' } })

/** Every answer of usage that there is, to be held against a later one. */
async function everything(): Promise<unknown[]> {
  const answers: unknown[] = []
  for (const tenant of tenants) {
    for (const { key } of metrics) {
      for (const window of ['hour', null] as const) {
        const { windows } = await t.system.answers.usage({
          tenant,
          metric: key,
          from: '2026-03-01T00:00:00Z',
          to: '2026-04-01T00:00:00Z',
          window,
          timeZone: 'UTC',
          groupBy: ['subject'],
        })
        answers.push({ tenant, key, window, windows })
      }
    }
  }
  return answers
}

test(`${promises('flow:books-balance')} ${promises('flow:replay-equals-live')} duplicates, conflicts, voids and refusals => the books balance and the audit is ok`, async () => {
  const report = await t.system.audit()
  expect(report.checks.filter((check) => !check.ok)).toEqual([])
  expect(report.ok).toBe(true)
  expect(report.checks.length).toBeGreaterThan(12)
  const { totals, balanced, onTheWay } = t.system.books()
  expect({ balanced, onTheWay }).toEqual({ balanced: true, onTheWay: 0 })
  expect(totals).toMatchObject({
    received: stored + 1,
    stored,
    refused: 1,
    duplicate: 1,
    conflict: 2,
    accepted: stored - 3,
  })
  expect(totals.voids).toBe(voided)
  // Every eighth event is of the metric without an archive.
  expect(totals.archived).toBe(totals.accepted - 50)
})

const alterations: readonly [what: string, table: string, set: string, where: string, check: RegExp][] = [
  ['the sum of one minute', 'usage_minute', 'sum = sum + 0.001', "metric = 'data' AND count > 0", /^replay\/minutes$/],
  ['the count of one minute', 'usage_minute', 'count = count + 1', "metric = 'raw'", /^counted\//],
  [
    'the max of one minute',
    'usage_minute',
    'max = max + 1000',
    "metric = 'peak' AND samples > 1",
    /^replay\/extremes$/,
  ],
  ['the min of one minute', 'usage_minute', 'min = min - 1000', "metric = 'low' AND samples > 1", /^replay\/extremes$/],
  ['the sum of one hour', 'usage_hour', 'sum = sum + 1', "metric = 'data'", /^hours\/stream/],
  [
    'the max of one hour',
    'usage_hour',
    'max = max + 1000',
    "metric = 'peak' AND samples > 1 AND override = 1",
    /^hours\/extremes/,
  ],
  ['the count of one member', 'usage_members', 'n = n + 1', 'n > 0', /^replay\/members$/],
  ['the value of one event', 'usage_events', 'value = value + 1', "metric = 'data'", /^replay\/minutes$/],
  [
    'the member of one event',
    'usage_events',
    "member = concat(member, '!')",
    "member != '' AND kind = 1",
    /^replay\/distinct$/,
  ],
]

/** Puts a table back as it was, whatever `alter` and `look` do. */
async function restored<T>(table: string, alter: () => Promise<void>, look: () => Promise<T>): Promise<T> {
  await query(`CREATE TABLE kept AS ${table}`)
  await query(`INSERT INTO kept SELECT * FROM ${table}`)
  try {
    await alter()
    return await look()
  } finally {
    await query(`EXCHANGE TABLES kept AND ${table}`)
    await query('DROP TABLE kept')
  }
}

/** Picks one row out, so that it can be put back changed, twice, or not at all. */
async function withOne(table: string, where: string, put: string): Promise<void> {
  const identity = {
    usage_minute: '(tenant, metric, subject, dims, window, override, stream, epoch)',
    usage_hour: '(tenant, metric, subject, dims, window, override, stream, epoch)',
    usage_members: '(tenant, metric, subject, dims, bucket, member, stream, epoch)',
    usage_events: '(tenant, source, id, kind)',
  }[table]
  await query(`CREATE TABLE one AS ${table}`)
  await query(`INSERT INTO one SELECT * FROM ${table} WHERE ${where} ORDER BY tenant, epoch LIMIT 1`)
  await query(`ALTER TABLE ${table} DELETE WHERE ${identity} IN (SELECT ${identity} FROM one)`)
  if (put !== '') await query(put)
  await query('DROP TABLE one')
}

for (const [what, table, set, where, check] of alterations) {
  test(`${promises('flow:replay-equals-live')} ${what} is altered => the audit says which check differs`, async () => {
    const [column, value] = set.split(' = ')
    const found = await restored(
      table,
      () => withOne(table, where, `INSERT INTO ${table} SELECT * REPLACE (${value} AS ${column}) FROM one`),
      failing,
    )
    expect(found.filter((name) => check.test(name))).not.toEqual([])
  })
}

for (const [table, check] of [
  ['usage_minute', 'rows/usage_minute'],
  ['usage_members', 'rows/usage_members'],
  ['usage_events', 'rows/usage_events'],
  ['usage_hour', 'hours/stream-'],
] as const) {
  test(`${promises('flow:replay-equals-live')} a row of ${table} is gone, or there twice => the audit says which check differs`, async () => {
    const where = table === 'usage_hour' || table === 'usage_minute' ? "count > 0 AND metric = 'calls'" : '1'
    for (const put of ['', `INSERT INTO ${table} SELECT * FROM one UNION ALL SELECT * FROM one`]) {
      const found = await restored(table, () => withOne(table, where, put), failing)
      expect(
        found.some((name) => name.startsWith(check)),
        `${check} is not among ${found}`,
      ).toBe(true)
    }
    expect(await failing()).toEqual([])
  })
}

test(`${promises('flow:replay-equals-live')} a rebuild by way of trial => no difference, and nothing is replaced`, async () => {
  expect(await failing(), 'after all was put back').toEqual([])
  const report = await t.system.rebuild({ dryRun: true })
  expect(report.replaced).toBe(false)
  expect(report.tables.map(({ table, differences }) => [table, differences])).toEqual([
    ['usage_minute', 0],
    ['usage_members', 0],
    ['usage_hour', 0],
  ])
})

test(`${promises('flow:replay-equals-live')} an older cut of a rebuilt service => what it was before`, async () => {
  const usage = async (): Promise<unknown[]> => {
    const answers: unknown[] = []
    for (const stream of [0, 1]) {
      for (const epoch of [1, 2, 3, 4]) {
        for (const { key, aggregation } of metrics.filter((m) => ['data', 'peak', 'level'].includes(m.key))) {
          const { rows } = await t.system.rollup.usage({
            tenant: stream === 1 ? 'alpha' : 'gamma',
            metric: key,
            aggregation,
            from: Date.parse('2026-03-20T10:00:00Z'),
            to: Date.parse('2026-03-20T11:00:00Z'),
            window: 'minute',
            timeZone: 'UTC',
            groupBy: ['subject'],
            stream,
            epoch,
            folded: 0,
          })
          answers.push(rows)
        }
      }
    }
    return answers
  }
  const before = await usage()
  await t.system.rebuild({ dryRun: false })
  expect(await usage()).toEqual(before)
})

test(`${promises('flow:replay-equals-live')} altered minutes and hours => the trial counts them, the rebuild restores every answer, the audit is ok again`, async () => {
  const before = await everything()
  const quotas = await Promise.all(tenants.map((tenant) => t.system.answers.quotas(tenant)))
  await query("ALTER TABLE usage_minute UPDATE sum = sum + 7 WHERE metric = 'data' AND tenant = 'alpha'")
  await query("ALTER TABLE usage_minute UPDATE max = max + 7 WHERE metric = 'peak' AND samples > 0")
  await query("ALTER TABLE usage_hour UPDATE sum = sum + 7 WHERE metric = 'data' AND tenant = 'alpha'")
  expect(await everything()).not.toEqual(before)
  const trial = await t.system.rebuild({ dryRun: true })
  const differences = Object.fromEntries(trial.tables.map((table) => [table.table, table.differences]))
  expect(differences.usage_minute).toBeGreaterThan(5)
  expect(differences.usage_hour).toBeGreaterThan(0)
  const report = await t.system.rebuild({ dryRun: false })
  expect(report.replaced).toBe(true)
  expect(await everything()).toEqual(before)
  expect(await failing()).toEqual([])
  expect(await Promise.all(tenants.map((tenant) => t.system.answers.quotas(tenant)))).toEqual(quotas)
  // A closing counts every chunk against its checkpoint.
  await t.system.engines.postgres.query('UPDATE streams SET verified_epoch = 0')
  await t.system.billing.closePeriod({ contract: 'contract-alpha', at: Date.parse('2026-02-10T00:00:00Z') })
  // The road goes on over rebuilt tables: a fold, a void in a rebuilt minute, and the same answers from both rungs.
  await t.send([event(300, { kind: 'void' }), event(500), event(501)])
  await t.system.settle()
  await t.system.fold()
  expect(await failing()).toEqual([])
})

test(`${promises('alert:once-per-crossing')} ${promises('quota:bounded-staleness')} a restart => the same quotas with their age, the same alerts and no new one, the same key files`, async () => {
  const quotas = async () =>
    Promise.all(
      tenants.map(async (tenant) => {
        const answer = (await t.app.inject({ url: `/v1/quotas/${tenant}`, headers: t.admin })).json()
        for (const line of answer.quotas) {
          expect(line.asOf.ageMs).toBe(0)
          expect(line.asOf.sequence).toBeGreaterThanOrEqual(0)
        }
        return answer.quotas.map(({ asOf: _, state: __, ...line }: { asOf: object; state: string }) => line)
      }),
    )
  const alerts = () => t.system.alerts.list({ tenant: null, after: 0, limit: 1000 })
  const files = (): string[] =>
    readdirSync(join(t.directory, 'keys'), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.\w+$/.test(name))
      .sort()
      .map((name) => {
        const bytes = readFileSync(join(t.directory, 'keys', name))
        return `${name} ${bytes.length} ${createHash('sha256').update(bytes).digest('hex')}`
      })
  await t.system.settle()
  const before = { quotas: await quotas(), alerts: await alerts(), usage: await everything(), files: files() }
  expect(before.alerts.length).toBeGreaterThan(1)
  expect(before.files.length).toBeGreaterThan(1)
  expect(before.quotas.flat().map((line: { status: string }) => line.status)).toContain('over')
  const heard: string[] = []
  await t.reopen()
  t.system.alerts.subscribe((alert) => heard.push(alert.id))
  expect({ quotas: await quotas(), alerts: await alerts(), usage: await everything(), files: files() }).toEqual(before)
  // Sent again after the restart: all duplicates, and no alarm.
  expect(new Set(await t.send([event(401), event(402), event(403)]))).toEqual(new Set(['duplicate']))
  await t.system.settle()
  expect(await quotas()).toEqual(before.quotas)
  expect(await alerts()).toEqual(before.alerts)
  expect(heard).toEqual([])
  expect(await failing()).toEqual([])
})
