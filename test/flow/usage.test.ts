/**
 * Usage as served against an oracle that knows neither rows nor rungs. Given: seeded events of every aggregation, with late
 * ones, duplicates, conflicts and voids, over many epochs and folds, around both changes of the clocks of 2026. Then every question, in
 * zones on whole, half and quarter hours, has the oracle's figures.
 */
import { DateTime } from 'luxon'
import { beforeAll, expect, test } from 'vitest'
import { limits } from '../../src/limits.js'
import { figureOf } from '../../src/rollup/measure.js'
import { promises } from '../promises.js'
import { type EventInput, metrics, openTestSystem, type TestSystem } from '../system.js'
import { type Figure, Oracle, type Question, windowLabel } from './oracle.js'

const SEED = Number(process.env.SEED ?? 20_260_329)
const DAY = 86_400_000

/** mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
const random = randomOf(SEED)
const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!

let t: TestSystem
const oracle = new Oracle()
/** What may be sent again or voided: ids are numbered over all of it. */
let sent: EventInput[] = []
let drawn = 0

function draw(now: number): EventInput {
  const fate = random()
  if (sent.length > 0 && fate < 0.06) return pick(sent)
  if (sent.length > 0 && fate < 0.16) return { ...pick(sent), kind: 'void' }
  if (sent.length > 0 && fate < 0.18) return { ...pick(sent), subject: 'another' }
  const metric = pick(metrics.filter((m) => m.archive))
  // Few minutes and few series, so that rows, voids and ties of time meet; one in ten is days late.
  const age = random() < 0.1 ? Math.floor(random() * 5 * DAY) : Math.floor(random() * 2 * DAY)
  const time = now - Math.floor(age / 900_000) * 900_000 - Math.floor(random() * 3) * 20_000
  const dims: Record<string, string> = {}
  if (random() < 0.7) dims.region = pick(['abidjan', 'dakar', '', 'l\'été "\\'])
  if (random() < 0.3) dims.plan = pick(['basic', 'pro'])
  if (metric.aggregation === 'unique') dims.user = `user-${Math.floor(random() * 12)}`
  const hasValue = metric.aggregation !== 'unique' && metric.aggregation !== 'count'
  return {
    id: `event-${drawn++}`,
    tenant: pick(['alpha', 'alpha', 'sigma']),
    source: pick(['gw-1', 'gw-2']),
    metric: metric.key,
    subject: pick(['', 'dev-1', 'dev-2', 'dév 3']),
    time: new Date(time).toISOString(),
    ...(hasValue ? { value: (Math.floor(random() * 200_000 - 60_000) / 1000).toFixed(3) } : {}),
    dims,
  }
}

async function sendRound(events: number): Promise<void> {
  const batch = Array.from({ length: events }, () => {
    const event = draw(t.clock.now())
    if (event.kind !== 'void') sent.push(event)
    return event
  })
  const expected = batch.map((event) => oracle.take(event))
  expect(await t.send(batch), `seed ${SEED}`).toEqual(expected)
}

beforeAll(async () => {
  // Summer begins in Paris on 29 March, winter on 25 October: days of 23 and of 25 hours.
  t = await openTestSystem({ now: '2026-03-30T09:00:00Z' })
  for (let round = 0; round < 16; round += 1) {
    if (round === 8) {
      t.clock.set('2026-10-26T09:00:00Z')
      sent = []
    } else t.clock.advance(3_600_000)
    await sendRound(150)
    await t.system.settle()
    if (round % 5 === 4) await t.system.fold()
  }
})

const seasons = [
  ['2026-03-25T00:00', '2026-04-01T00:00'],
  ['2026-10-20T00:00', '2026-10-28T00:00'],
  ['2026-03-01T00:00', '2026-11-01T00:00'],
] as const

async function ask(question: Question): Promise<Figure[]> {
  const query = new URLSearchParams({
    tenant: question.tenant,
    metric: question.metric,
    from: String(question.from),
    to: String(question.to),
    tz: question.timeZone,
  })
  if (question.window !== null) query.set('window', question.window)
  if (question.groupBy.length > 0) query.set('group_by', question.groupBy.join(','))
  if (question.subject !== undefined) query.set('subject', question.subject)
  for (const [name, value] of Object.entries(question.dims ?? {})) query.set(`dims.${name}`, value)
  const answer = await t.app.inject({ url: `/v1/usage?${query}`, headers: t.admin })
  expect(answer.statusCode, answer.body).toBe(200)
  return answer.json().windows.map((row: { from: string; groups: object; value: string | null; count: string }) => ({
    window: windowLabel(Date.parse(row.from), question.window, question.timeZone),
    groups: row.groups,
    value: row.value,
    count: row.count,
  }))
}

const inOrder = (figures: readonly Figure[]): Figure[] =>
  [...figures].sort((a, b) => (JSON.stringify([a.window, a.groups]) < JSON.stringify([b.window, b.groups]) ? -1 : 1))

async function check(question: Question): Promise<void> {
  expect(inOrder(await ask(question)), JSON.stringify({ seed: SEED, ...question })).toEqual(oracle.answer(question))
}

for (const zone of ['UTC', 'Africa/Abidjan', 'Europe/Paris', 'Asia/Kolkata', 'Asia/Kathmandu', 'Australia/Lord_Howe']) {
  test(`usage in ${zone}, by every window, group and filter => the figures of the oracle`, async () => {
    const range = (season: readonly [string, string]): { from: number; to: number } => ({
      from: DateTime.fromISO(season[0], { zone }).toMillis(),
      to: DateTime.fromISO(season[1], { zone }).toMillis(),
    })
    for (const { key, aggregation } of metrics) {
      const base = { tenant: pick(['alpha', 'sigma']), metric: key, aggregation, timeZone: zone, groupBy: [] }
      await check({ ...base, ...range(pick(seasons)), window: null, groupBy: pick([[], ['region']]) })
      await check({ ...base, ...range(pick(seasons)), window: 'day', groupBy: ['region'] })
      await check({ ...base, ...range(pick(seasons)), window: 'hour', subject: pick(['', 'dev-1', 'dév 3']) })
      await check({
        ...base,
        ...range(seasons[2]),
        window: 'month',
        groupBy: ['subject', 'plan'],
        dims: { region: 'l\'été "\\' },
      })
      if (aggregation === 'unique') continue
      await check({ ...base, ...range(pick(seasons.slice(0, 2))), window: 'minute', groupBy: ['plan', 'subject'] })
    }
  })
}

test('a range that begins inside an hour and a day => only what lies in it', async () => {
  for (const { key, aggregation } of metrics) {
    const from = Date.parse('2026-03-28T10:15:00Z')
    const to = Date.parse('2026-03-29T13:45:00Z')
    for (const window of [null, 'day', 'hour'] as const) {
      await check({
        tenant: 'alpha',
        metric: key,
        aggregation,
        from,
        to,
        window,
        timeZone: 'Europe/Paris',
        groupBy: [],
      })
    }
  }
})

test('as many windows as an answer may have => the figures; one more => a refusal that says so', async () => {
  const question = {
    tenant: 'alpha',
    metric: 'data',
    aggregation: 'sum',
    timeZone: 'Asia/Kolkata',
    groupBy: [],
  } as const
  const from = Date.parse('2026-02-01T00:30:00Z')
  for (const [window, ms, max] of [
    ['minute', 60_000, limits.usageRowsMax],
    ['hour', 3_600_000, limits.usageWindowsMax],
  ] as const) {
    await check({ ...question, window, from, to: from + max * ms })
    const refused = await t.app.inject({
      url: `/v1/usage?tenant=alpha&metric=data&window=${window}&from=${from}&to=${from + (max + 1) * ms}&tz=Asia/Kolkata`,
      headers: t.admin,
    })
    expect(refused.statusCode).toBe(400)
    expect(refused.json()).toMatchObject({ code: 'invalid_request', detail: expect.stringContaining(`${max} windows`) })
  }
})

test('hours with the minutes behind them equal minutes alone, and an older cut equals itself', async () => {
  const { rows } = await t.system.engines.postgres.query(
    'SELECT stream, max(to_epoch)::int AS folded FROM folds GROUP BY 1',
  )
  expect(rows).toHaveLength(2)
  let hours = 0
  for (const { key, aggregation } of metrics.filter((m) => m.archive)) {
    for (const tenant of [pick(['alpha', 'sigma'])]) {
      const { asOf } = await t.system.answers.usage({
        tenant,
        metric: key,
        from: '2026-03-01T00:00:00Z',
        to: '2026-11-01T00:00:00Z',
        window: null,
        timeZone: 'UTC',
      })
      const folded = rows.find(({ stream }) => stream === asOf.stream)!.folded as number
      expect(folded).toBeGreaterThan(1)
      const question = {
        tenant,
        metric: key,
        aggregation,
        from: Date.parse('2026-03-01T00:00:00Z'),
        to: Date.parse('2026-11-01T00:00:00Z'),
        window: 'hour',
        timeZone: 'UTC',
        groupBy: ['region'],
        stream: asOf.stream,
      } as const
      const figures = async (epoch: number, upTo: number) => {
        const { rows: found, rung } = await t.system.rollup.usage({ ...question, epoch, folded: upTo })
        return { rung, found: found.map((row) => [row.bucket, row.groups, figureOf(aggregation, row), row.count]) }
      }
      const mixed = await figures(asOf.epoch, folded)
      if (mixed.rung === 'hour') hours += 1
      expect(mixed.found).toEqual((await figures(asOf.epoch, 0)).found)
      const older = await figures(folded - 1, folded)
      expect(older.rung).toBe('minute')
      expect(older.found).toEqual((await figures(folded - 1, 0)).found)
    }
  }
  expect(hours, 'questions that hours answered').toBeGreaterThan(2)
})

test(`${promises('flow:late-is-correction')} a late event changes the figure of its window and asOf tells; one that is too late is refused with the limit`, async () => {
  t.clock.set('2026-11-10T12:00:00Z')
  const ask = () =>
    t.system.answers.usage({
      tenant: 'gamma',
      metric: 'data',
      from: '2026-10-11T00:00:00Z',
      to: '2026-10-13T00:00:00Z',
      window: 'day',
      timeZone: 'UTC',
    })
  const event = (id: string, time: string): EventInput => ({ id, tenant: 'gamma', metric: 'data', time, value: '5' })
  await t.send([event('on-time', '2026-10-12T10:00:00Z')])
  await t.system.settle()
  await t.system.fold()
  const before = await ask()
  expect(before.windows.map((w) => w.value)).toEqual(['5'])
  await t.send([event('late', '2026-10-12T10:00:30Z')])
  await t.system.settle()
  const after = await ask()
  expect(after.windows.map((w) => w.value)).toEqual(['10'])
  expect(after.asOf.epoch).toBeGreaterThan(before.asOf.epoch)
  await t.system.fold()
  expect((await ask()).windows.map((w) => w.value)).toEqual(['10'])

  const refused = await t.post([event('too-late', '2026-10-07T11:59:59Z')])
  expect(refused.statusCode).toBe(422)
  expect(refused.json().refusals).toMatchObject([{ code: 'too_old', field: 'time', id: 'too-late' }])
  expect(refused.json().refusals[0].message).toContain('2026-10-07T12:00:00.000Z')
  await t.system.settle()
  const rejects = await t.app.inject({ url: '/v1/rejects?tenant=gamma', headers: t.admin })
  expect(rejects.json().rejects).toMatchObject([{ code: 'too_old', id: 'too-late', tenant: 'gamma' }])
})

test('a day of 23 and one of 25 hours => as many windows, and they add up to the day', async () => {
  for (const [day, hours] of [
    ['2026-10-25', 25],
    ['2027-03-28', 23],
  ] as const) {
    const start = DateTime.fromISO(day, { zone: 'Europe/Paris' })
    const range = { from: start.toMillis(), to: start.plus({ days: 1 }).toMillis() }
    const events = Array.from({ length: hours * 2 }, (_, i) => ({
      id: `${day}-${i}`,
      tenant: 'gamma',
      metric: 'calls',
      time: new Date(range.from + i * 1_800_000).toISOString(),
    }))
    t.clock.set(range.to + 30 * DAY)
    for (const event of events) expect(oracle.take(event)).toBe('accepted')
    await t.send(events)
    await t.system.settle()
    const question = {
      tenant: 'gamma',
      metric: 'calls',
      aggregation: 'count',
      timeZone: 'Europe/Paris',
      groupBy: [],
      ...range,
    } as const
    const byHour = await ask({ ...question, window: 'hour' })
    expect(byHour).toHaveLength(hours)
    expect(byHour.every(({ value }) => value === '2')).toBe(true)
    await check({ ...question, window: 'hour' })
    expect((await ask({ ...question, window: 'day' })).map(({ value }) => value)).toEqual([String(hours * 2)])
  }
})

test('the audit of all this finds no difference', async () => {
  const report = await t.system.audit()
  expect(report.checks.filter((check) => !check.ok)).toEqual([])
})
