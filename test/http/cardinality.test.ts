/** Limits of cardinality: judged at the door for every way in, the same before and after a restart, by the month. */
import { beforeAll, expect, test } from 'vitest'
import type { CardinalityView } from '../../src/cardinality.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
beforeAll(async () => {
  t = await openTestSystem()
})

const put = async (limits: Record<string, unknown>): Promise<void> => {
  const answer = await t.app.inject({ method: 'PUT', url: '/v1/cardinality', headers: t.admin, payload: limits })
  expect(answer.statusCode, answer.body).toBe(200)
  await t.system.cardinality.settled()
}
const view = async (tenant: string): Promise<CardinalityView> =>
  (await t.app.inject({ url: `/v1/cardinality?tenant=${tenant}`, headers: t.admin })).json()

interface Sent {
  readonly verdicts: string[]
  readonly codes: string[]
  readonly refusals: { index: number; code: string; field: string; message: string }[]
}

let made = 0
/** As JSON, which the kernel judges, or as NDJSON, which the plain path does. */
async function send(
  events: readonly Record<string, unknown>[],
  how: { tenant?: string; ndjson?: boolean } = {},
): Promise<Sent> {
  const headers = how.tenant === undefined ? t.admin : await t.key(how.tenant, ['ingest'])
  const all = events.map((event) => {
    made += 1
    return { id: `c${made}`, metric: 'data', ...event }
  })
  const answer = await t.app.inject({
    method: 'POST',
    url: '/v1/events?wait=applied',
    headers: { ...headers, 'content-type': how.ndjson === true ? 'application/x-ndjson' : 'application/json' },
    payload: how.ndjson === true ? all.map((event) => JSON.stringify(event)).join('\n') : JSON.stringify(all),
  })
  expect([202, 422], answer.body).toContain(answer.statusCode)
  const { refusals, applied, received, stored, refused } = answer.json()
  expect(received).toBe(stored + refused)
  return {
    verdicts: applied.verdicts,
    refusals,
    codes: refusals.map(({ code }: { code: string }) => code),
  }
}

const subjects = (names: readonly string[], over: Record<string, unknown> = {}) =>
  names.map((subject) => ({ subject, ...over }))

test('no limits => nothing is counted and nothing refused', async () => {
  await send(subjects(['early'], { tenant: 'alpha' }))
  expect(await view('alpha')).toMatchObject({
    limits: { metrics: null, subjects: null, series: null, dimValues: null },
    counts: { series: 0 },
    complete: true,
  })
})

test(`subjects beyond the limit => refused with the field and the limit; what is known goes on ${promises('ingest:verdict-per-event')}`, async () => {
  await put({ tenant: 'alpha', subjects: 3 })
  // What was there before the limit counts.
  expect(await view('alpha')).toMatchObject({
    counts: { subjects: 1, series: 1, metrics: 1 },
    complete: true,
    month: '2026-03',
  })
  for (const how of [{ tenant: 'alpha' }, {}, { tenant: 'alpha', ndjson: true }, { ndjson: true }]) {
    const sent = await send(subjects(['early', 'a', 'b', 'c', 'a', 'd'], { tenant: 'alpha' }), how)
    expect(sent.verdicts, JSON.stringify(how)).toEqual([
      'accepted',
      'accepted',
      'accepted',
      'refused',
      'accepted',
      'refused',
    ])
    expect(sent.refusals).toMatchObject([
      {
        index: 3,
        code: 'too_many_subjects',
        field: 'subject',
        message: '"c" is new, and the tenant has 3 subjects this month, its limit',
      },
      { index: 5, code: 'too_many_subjects' },
    ])
  }
  // Others are not concerned, also in one body, whichever thread reads it.
  const mixed = [
    ...subjects(['x'], { tenant: 'alpha' }),
    ...subjects(['x', 'y', 'z', 'w'], { tenant: 'gamma' }),
    ...subjects(['s1'], { tenant: 'sigma' }),
  ]
  for (let i = 0; i < 3; i += 1)
    expect((await send(mixed)).verdicts).toEqual([
      'refused',
      'accepted',
      'accepted',
      'accepted',
      'accepted',
      'accepted',
    ])
  await t.system.settle()
  expect(t.system.books().balanced).toBe(true)
  expect((await t.system.audit()).ok).toBe(true)
})

test('metrics, series and values of a dimension => each has its code and names what is new', async () => {
  await put({ tenant: 'sigma', metrics: 2, series: 5, dimValues: 2 })
  const own = (metric: string, dims: Record<string, string> = {}) => ({ tenant: 'sigma', metric, dims })
  expect(
    (await send([own('data', { region: 'a' }), own('data', { region: 'b' }), own('data', { region: 'c' })])).refusals,
  ).toMatchObject([{ index: 2, code: 'too_many_dim_values', field: 'dims.region' }])
  // s1, a and b are there.
  expect((await send([own('calls'), own('peak')])).codes).toEqual(['too_many_metrics'])
  expect((await send([own('calls', { region: 'z' }), own('calls', { region: 'y' })])).codes).toEqual([
    'too_many_series',
  ])
  expect(await view('sigma')).toMatchObject({ counts: { metrics: 2, series: 5, dimValues: 2 } })
  const refused = (
    await t.app.inject({ url: '/v1/rejects?tenant=sigma&code=too_many_metrics', headers: t.admin })
  ).json()
  await t.system.settle()
  expect(refused).toBeDefined()
})

test('a refused event is kept whole and can be sent again when the limit is raised; a void is never refused', async () => {
  await t.system.settle()
  const { rejects } = (
    await t.app.inject({ url: '/v1/rejects?tenant=sigma&code=too_many_metrics', headers: t.admin })
  ).json()
  expect(rejects).toHaveLength(1)
  await put({ tenant: 'sigma', metrics: 3 })
  const answer = await t.app.inject({
    method: 'POST',
    url: '/v1/rejects/resend',
    headers: { ...t.admin, 'content-type': 'application/json' },
    payload: JSON.stringify([{ reject: rejects[0].reject }]),
  })
  expect(answer.json().results).toMatchObject([{ outcome: 'accepted' }])

  const time = t.clock.now()
  await send([{ id: 'old', tenant: 'gamma', subject: 'taken back', time, value: '4' }])
  await put({ tenant: 'gamma', subjects: 1 })
  const again = { id: 'old', tenant: 'gamma', subject: 'new name', time, value: '4', kind: 'void' }
  expect((await send([again])).verdicts).toEqual(['conflict'])
  expect((await send([{ ...again, subject: 'taken back' }])).verdicts).toEqual(['accepted'])
  expect((await send([{ tenant: 'gamma', subject: 'another' }])).codes).toEqual(['too_many_subjects'])
})

test(`a restart => known names go on, new ones are refused`, async () => {
  const before = await view('alpha')
  for (let i = 0; i < 2; i += 1) {
    await t.reopen()
    await t.system.cardinality.settled()
    expect(await view('alpha')).toEqual(before)
    expect((await send(subjects(['early', 'a', 'b', 'new'], { tenant: 'alpha' }))).verdicts).toEqual([
      'accepted',
      'accepted',
      'accepted',
      'refused',
    ])
  }
})

test('a default for all without their own; a limit taken away => everything is let in again', async () => {
  await put({ subjects: 2 })
  expect(await view('alpha')).toMatchObject({ isDefault: false, limits: { subjects: 3 } })
  await put({ tenant: 'sigma' })
  expect(await view('sigma')).toMatchObject({ isDefault: true, limits: { subjects: 2 } })
  expect((await send(subjects(['s1', 's2', 's3'], { tenant: 'sigma' }))).codes).toEqual(['too_many_subjects'])
  await put({})
  expect((await send(subjects(['s3', 's4'], { tenant: 'sigma' }))).codes).toEqual([])
  const own = await t.key('alpha', ['read'])
  expect((await t.app.inject({ url: '/v1/cardinality', headers: own })).json().tenant).toBe('alpha')
  for (const wrong of [{ subjects: 0 }, { series: 1.5 }, { names: 3 }, { subjects: 1e9 }]) {
    const answer = await t.app.inject({ method: 'PUT', url: '/v1/cardinality', headers: t.admin, payload: wrong })
    expect(answer.statusCode).toBe(400)
  }
})

test('a new month => the counts begin anew, and a restart in it knows that month alone', async () => {
  t.clock.set('2026-04-01T00:00:00Z')
  const april = ['april 1', 'april 2', 'april 3', 'april 4']
  expect((await send(subjects(april, { tenant: 'alpha' }))).codes).toEqual(['too_many_subjects'])
  expect(await view('alpha')).toMatchObject({ month: '2026-04', counts: { subjects: 3 } })
  await t.reopen()
  await t.system.cardinality.settled()
  expect(await view('alpha')).toMatchObject({ month: '2026-04', counts: { subjects: 3 }, complete: true })
  expect((await send(subjects([...april, 'early'], { tenant: 'alpha' }))).verdicts).toEqual([
    'accepted',
    'accepted',
    'accepted',
    'refused',
    'refused',
  ])
})
