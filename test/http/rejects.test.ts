/** Refused events: found by tenant, code, metric and time, page by page; taken out as a file; mended and sent again, once. */
import { parse } from 'csv-parse/sync'
import { beforeAll, expect, test } from 'vitest'
import type { Reject, ResendAnswer } from '../../src/refusals.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
let alpha: { authorization: string }

const post = (url: string, payload: string, headers: Record<string, string>, type = 'application/json') =>
  t.app.inject({ method: 'POST', url, headers: { ...headers, 'content-type': type }, payload })
const list = async (query: string, headers = t.admin): Promise<{ rejects: Reject[]; next: string | null }> => {
  const answer = await t.app.inject({ url: `/v1/rejects?${query}`, headers })
  expect(answer.statusCode, answer.body).toBe(200)
  return answer.json()
}
const resend = async (items: unknown, headers = alpha): Promise<ResendAnswer> => {
  const answer = await post('/v1/rejects/resend', typeof items === 'string' ? items : JSON.stringify(items), headers)
  expect(answer.statusCode, answer.body).toBe(200)
  return answer.json()
}
const usage = async (): Promise<[value: string, count: string]> => {
  await t.system.settle()
  const url = '/v1/usage?tenant=alpha&metric=data&from=2026-03-01T00:00:00Z&to=2026-05-01T00:00:00Z'
  const [window] = (await t.app.inject({ url, headers: t.admin })).json().windows
  return [window?.value ?? '0', window?.count ?? '0']
}

beforeAll(async () => {
  t = await openTestSystem()
  alpha = await t.key('alpha', ['ingest', 'read'])
  // Five records, a minute apart, with refusals of two tenants and a conflict.
  for (let i = 0; i < 5; i += 1) {
    await post(
      '/v1/events',
      JSON.stringify([
        { id: `m${i}`, metric: 'dta', value: '1' },
        { id: `v${i}`, metric: 'data', value: '1.2345' },
        { id: `good${i}`, metric: 'data', value: '1' },
      ]),
      alpha,
    )
    await post('/v1/events', `{"id":"g${i}","tenant":"gamma","metric":"none"}\n{"id":`, t.admin, 'application/x-ndjson')
    t.clock.advance(60_000)
  }
  await post('/v1/events', JSON.stringify({ id: 'good0', metric: 'data', value: '7' }), alpha)
  await t.system.settle()
})

test('by tenant, code, metric and time; page after page gives each once, newest first', async () => {
  expect((await list('tenant=alpha&limit=1000')).rejects).toHaveLength(11)
  expect((await list('tenant=gamma')).rejects).toHaveLength(5)
  expect((await list('tenant=')).rejects).toHaveLength(5)
  expect((await list('limit=1000')).rejects).toHaveLength(21)
  expect((await list('tenant=alpha&code=unknown_metric')).rejects.map(({ id }) => id)).toEqual([
    'm4',
    'm3',
    'm2',
    'm1',
    'm0',
  ])
  expect((await list('tenant=alpha&metric=data&code=value_too_precise')).rejects).toHaveLength(5)
  expect((await list('code=conflict')).rejects).toMatchObject([{ id: 'good0', tenant: 'alpha', raw: '' }])
  const from = '2026-03-31T12:01:00Z'
  expect((await list(`tenant=gamma&from=${from}&to=2026-03-31T12:03:00Z`)).rejects.map(({ id }) => id)).toEqual([
    'g2',
    'g1',
  ])

  const { rejects: whole } = await list('limit=1000')
  for (const limit of [1, 2, 7, 21]) {
    const pages: Reject[] = []
    let after: string | null = ''
    while (after !== null) {
      const page: { rejects: Reject[]; next: string | null } = await list(`limit=${limit}${after && `&after=${after}`}`)
      expect(page.rejects.length).toBeLessThanOrEqual(limit)
      pages.push(...page.rejects)
      after = page.next
    }
    expect(pages, `pages of ${limit}`).toEqual(whole)
  }
  for (const wrong of ['after=x', 'after=1-2-3', 'state=all', 'limit=0', 'from=now']) {
    const answer = await t.app.inject({ url: `/v1/rejects?${wrong}`, headers: t.admin })
    expect(answer.statusCode, wrong).toBe(400)
  }
})

test('a customer sees and sends again its own alone', async () => {
  expect((await list('limit=1000', alpha)).rejects.every(({ tenant }) => tenant === 'alpha')).toBe(true)
  const { rejects } = await list('tenant=gamma')
  const { resent, results } = await resend(
    rejects.map(({ reject }) => ({ reject, event: { id: 'x', metric: 'data' } })),
  )
  expect(resent).toBe(0)
  expect(results.map(({ outcome }) => outcome)).toEqual(new Array(5).fill('missing'))
  const forbidden = await post(
    '/v1/rejects/resend',
    JSON.stringify([{ reject: rejects[0]!.reject, tenant: 'gamma' }]),
    alpha,
  )
  expect(forbidden.statusCode).toBe(403)
})

test('as NDJSON and CSV => every reject once; what looks like a formula does not become one', async () => {
  await post('/v1/events', JSON.stringify({ id: '=HYPERLINK("x")', metric: 'no,ne' }), alpha)
  await t.system.settle()
  const { rejects } = await list('tenant=alpha&limit=1000')
  const ndjson = await t.app.inject({ url: '/v1/rejects/export', headers: alpha })
  expect(ndjson.headers['content-type']).toBe('application/x-ndjson')
  const lines = ndjson.body
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(lines.map(({ reject }) => reject)).toEqual(rejects.map(({ reject }) => reject))
  expect(lines[0]).toMatchObject({ code: 'unknown_metric', event: { id: '=HYPERLINK("x")', metric: 'no,ne' } })

  const csv = await t.app.inject({ url: '/v1/rejects/export?format=csv&code=unknown_metric', headers: alpha })
  const rows = parse(csv.body, { columns: true }) as Record<string, string>[]
  expect(rows.map(({ id }) => id)).toEqual([`'=HYPERLINK("x")`, 'm4', 'm3', 'm2', 'm1', 'm0'])
  expect(rows[0]).toMatchObject({ metric: 'no,ne', raw: '{"id":"=HYPERLINK(\\"x\\")","metric":"no,ne"}' })
  expect((await t.app.inject({ url: '/v1/rejects/export?after=1', headers: alpha })).statusCode).toBe(400)
})

test(`the lines of an export, mended => counted once, at the time of their first arrival, however often they are sent ${promises('flow:books-balance')}`, async () => {
  const before = await usage()
  const file = (await t.app.inject({ url: '/v1/rejects/export?code=value_too_precise&state=open', headers: alpha }))
    .body
  expect(file.trimEnd().split('\n')).toHaveLength(5)
  // A number is read by its digits: 1.234 as it stands, and 900719925474099.317, which a double cannot hold.
  const mended = file.replaceAll('"1.2345"', '1.234').replace('"value":1.234', '"value":900719925474099.317')
  t.clock.advance(3_600_000)
  const send = () => post('/v1/rejects/resend', mended, alpha, 'application/x-ndjson')
  // Two at once, and one more: dedupe and the mark see to it that each counts once.
  const [first, second] = await Promise.all([send(), send()])
  const outcomes = [...first.json().results, ...second.json().results].map(({ outcome }) => outcome)
  expect(outcomes.filter((outcome) => outcome === 'accepted')).toHaveLength(5)
  expect(outcomes.every((outcome) => ['accepted', 'duplicate', 'already'].includes(outcome))).toBe(true)
  const third = (await send()).json() as ResendAnswer
  expect(third).toMatchObject({ resent: 0 })
  expect(third.results.map(({ outcome }) => outcome)).toEqual(new Array(5).fill('already'))

  const [value, count] = await usage()
  expect(Number(count) - Number(before[1])).toBe(5)
  expect([before[0], value]).toEqual(['5', '900719925474109.253'])
  // Counted where they arrived first: in 12:00 to 12:04, not an hour later.
  const url = '/v1/usage?metric=data&from=2026-03-31T13:00:00Z&to=2026-03-31T15:00:00Z'
  expect((await t.app.inject({ url, headers: alpha })).json().windows[0]?.count ?? '0').toBe('0')
  expect((await list('tenant=alpha&code=value_too_precise&state=resent')).rejects).toHaveLength(5)
  expect((await list('tenant=alpha&code=value_too_precise&state=open')).rejects).toHaveLength(0)
  expect(t.system.books().balanced).toBe(true)
})

test('as they came, once the catalogue knows their metric => counted; still wrong => refused again, and still open', async () => {
  const { rejects } = await list('tenant=alpha&code=unknown_metric&limit=5')
  const open = rejects.filter(({ metric }) => metric === 'dta').map(({ reject }) => ({ reject }))
  const refused = await resend(open)
  expect(refused.resent).toBe(0)
  expect(refused.results[0]).toMatchObject({ outcome: 'refused', code: 'unknown_metric', field: 'metric' })
  await t.system.catalog.putMetric({ key: 'dta', aggregation: 'sum', unit: 'piece', scale: 0, dims: [] })
  await t.system.catalogSettled()
  expect((await resend(open)).results.map(({ outcome }) => outcome)).toEqual(open.map(() => 'accepted'))
  expect((await resend(open)).results.map(({ outcome }) => outcome)).toEqual(open.map(() => 'already'))
})

test('a conflict needs another id; what nobody could read needs the event, and a platform-wide key its tenant', async () => {
  const [conflict] = (await list('code=conflict')).rejects
  expect((await resend([{ reject: conflict!.reject }])).results).toMatchObject([{ outcome: 'incomplete' }])
  const same = { reject: conflict!.reject, event: { id: 'good0', metric: 'data', value: '7' } }
  expect((await resend([same])).results).toMatchObject([{ outcome: 'conflict' }])
  const other = { reject: conflict!.reject, event: { id: 'good0b', metric: 'data', value: '7' } }
  expect((await resend([other])).results).toMatchObject([{ outcome: 'accepted' }])

  const [unread] = (await list('tenant=')).rejects
  const event = { id: 'unread', metric: 'data', value: '2' }
  expect((await resend([{ reject: unread!.reject, event }], t.admin)).results).toMatchObject([
    { outcome: 'refused', code: 'missing_field', field: 'tenant' },
  ])
  const named = [{ reject: unread!.reject, tenant: 'alpha', event }]
  expect((await resend(named, t.admin)).results).toMatchObject([{ outcome: 'accepted' }])
})

test('a CloudEvent as it came => read as one', async () => {
  const event = { specversion: '1.0', id: 'ce', source: '/x', type: 'later', data: { value: '3' } }
  await post('/v1/events', JSON.stringify(event), alpha, 'application/cloudevents+json')
  await t.system.settle()
  const [reject] = (await list('tenant=alpha&metric=later')).rejects
  await t.system.catalog.putMetric({ key: 'later', aggregation: 'sum', unit: 'piece', scale: 0, dims: [] })
  await t.system.catalogSettled()
  expect((await resend([{ reject: reject!.reject }])).results).toMatchObject([{ outcome: 'accepted' }])
})

test.each([
  ['[{"event":{}}]', 'item 0.reject is missing'],
  ['[{"reject":3}]', 'item 0.reject must be a string'],
  ['[3]', 'item 0 must be an object'],
  ['{"reject":"x"}', 'expected'],
  ['[{"reject":"x"}]', 'names no reject'],
  ['[', 'the body ends'],
])('a body that is no list of rejects, %s => it says why', async (body, why) => {
  const answer = await post('/v1/rejects/resend', body, alpha)
  expect(answer.statusCode).toBe(400)
  expect(answer.json().detail).toContain(why)
})

test('more than the bound at once => 413', async () => {
  const answer = await post('/v1/rejects/resend', '{"reject":"1-1-0r"}\n'.repeat(1_001), alpha, 'application/x-ndjson')
  expect(answer.statusCode).toBe(413)
  expect(answer.json().detail).toContain('more than 1000')
})
