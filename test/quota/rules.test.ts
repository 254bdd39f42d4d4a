/** Alert rules through the API on a running service: what each kind tells, once, and that a change acts at once and on nothing else. */
import { beforeAll, expect, test } from 'vitest'
import { limits } from '../../src/limits.js'
import type { Alert } from '../../src/quota/alerts.js'
import type { AlertRule } from '../../src/quota/rules.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

const START = '2026-03-11T00:00:00Z'
const HOUR = 3_600_000
const DAY = 24 * HOUR

let t: TestSystem
let next = 0

beforeAll(async () => {
  t = await openTestSystem({ now: START })
})

async function call<T>(
  method: string,
  url: string,
  body?: unknown,
  headers = t.admin,
): Promise<{ status: number; body: T }> {
  const answer = await t.app.inject({
    method: method as 'GET',
    url,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  })
  return { status: answer.statusCode, body: answer.json() as T }
}

async function rule(body: Record<string, unknown>): Promise<AlertRule> {
  const made = await call<{ rule: AlertRule }>('POST', '/v1/alert-rules', body)
  expect(made.status, JSON.stringify(made.body)).toBe(201)
  return made.body.rule
}

const send = (tenant: string, metric: string, value?: string, subject?: string): Promise<string[]> => {
  next += 1
  const id = `r${next}`
  const event = {
    id,
    tenant,
    metric,
    ...(value === undefined ? {} : { value }),
    ...(subject === undefined ? {} : { subject }),
  }
  return t.send([{ ...event, time: t.clock.now() }])
}

/** What was told of a rule: type, the part of the threshold behind the rule's code, figure. */
async function told({ id, version }: AlertRule): Promise<string[]> {
  await t.system.alerts.settled()
  const alerts = await t.system.alerts.list({ tenant: null, after: 0, limit: 1000 })
  return alerts
    .filter((alert) => alert.rule === id)
    .map(({ type, threshold, balance }) =>
      `${type.slice(6)} ${threshold.replace(`${id}.${version}`, '')} ${balance}`.replaceAll('  ', ' '),
    )
}

async function alertsOf({ id }: AlertRule): Promise<Alert[]> {
  await t.system.alerts.settled()
  return (await t.system.alerts.list({ tenant: null, after: 0, limit: 1000 })).filter((alert) => alert.rule === id)
}

test(`${promises('alert:once-per-crossing')} rules come, change and go while it runs => each rings for itself, at once when it is reached already, and once over restarts`, async () => {
  await send('alpha', 'data', '90')
  const half = await rule({ tenant: 'alpha', metric: 'data', kind: 'percent', percent: '50' })
  const low = await rule({ tenant: 'alpha', metric: 'data', kind: 'absolute', quantity: '80.5' })
  expect(await told(low)).toEqual(['triggered 90'])
  expect(await told(half)).toEqual([])
  await send('alpha', 'data', '410')
  expect(await told(half)).toEqual(['triggered 500'])
  // A changed rule is another one; the rest says nothing again.
  const { body } = await call<{ rule: AlertRule }>('PATCH', `/v1/alert-rules/${low.id}`, {
    quantity: '100',
    name: 'a hundred',
  })
  expect(body.rule).toMatchObject({ version: 2, name: 'a hundred', terms: { quantity: '100' } })
  expect(await told(body.rule)).toEqual([`triggered ${low.id}.1 90`, 'triggered 500'])
  // A name is no change of what it says.
  const renamed = await call<{ rule: AlertRule }>('PATCH', `/v1/alert-rules/${low.id}`, { name: 'again' })
  expect(renamed.body.rule.version).toBe(2)
  await call('DELETE', `/v1/alert-rules/${low.id}`)
  expect(await told(half)).toEqual(['triggered 500'])
  await t.reopen()
  await send('alpha', 'data', '-10')
  expect(await told(half)).toEqual(['triggered 500', 'resolved 490'])
  await send('alpha', 'data', '10')
  expect(await told(half)).toEqual(['triggered 500', 'resolved 490'])
  expect(await told({ ...low, version: 2 })).toHaveLength(2)
})

test('a recurring rule => every step once, several at one event, from where it was after a restart', async () => {
  const steps = await rule({ tenant: 'gamma', metric: 'data', kind: 'recurring', every: '200', from: '1000' })
  await send('gamma', 'data', '90')
  await send('gamma', 'data', '1360')
  expect(await told(steps)).toEqual(['triggered :1200 1450', 'triggered :1400 1450'])
  await t.reopen()
  await send('gamma', 'data', '100')
  expect(await told(steps)).toHaveLength(2)
  await send('gamma', 'data', '50')
  expect((await told(steps)).slice(2)).toEqual(['triggered :1600 1600'])
  // The next ones too, without a restart between them.
  await send('gamma', 'data', '199')
  await send('gamma', 'data', '1')
  await send('gamma', 'data', '250')
  expect((await told(steps)).slice(3)).toEqual(['triggered :1800 1800', 'triggered :2000 2050'])
  // No contract gives this metric, so it is no quota.
  expect((await call<{ quotas: unknown[] }>('GET', '/v1/quotas/gamma')).body.quotas).toEqual([])
})

test('a step far too small => of the many steps of one event the highest, as many as there may be', async () => {
  const tiny = await rule({ tenant: 'sigma', metric: 'calls', kind: 'recurring', every: '0.001' })
  await send('sigma', 'calls')
  const all = await told(tiny)
  expect(all).toHaveLength(limits.stepsToldMax)
  expect([all[0], all.at(-1)]).toEqual(['triggered :0.901 1', 'triggered :1 1'])
  await call('DELETE', `/v1/alert-rules/${tiny.id}`)
})

test('a forecast => told when the pace of the period leads over the level, exactly; resolved 5 % below it, and not told again', async () => {
  // Ten of 31 days: 10 forecast 31.
  const exact = await rule({ tenant: 'sigma', metric: 'data', kind: 'forecast', quantity: '31' })
  const above = await rule({ tenant: 'sigma', metric: 'data', kind: 'forecast', quantity: '31.000000001' })
  await send('sigma', 'data', '9.999')
  await t.system.alerting.tick()
  expect(await told(exact)).toEqual([])
  await send('sigma', 'data', '0.001')
  await t.system.alerting.tick()
  await t.system.alerting.tick()
  expect(await alertsOf(exact)).toMatchObject([
    { type: 'alert.triggered', kind: 'forecast', balance: '10', forecast: '31' },
  ])
  expect(await told(above)).toEqual([])
  // What is reached already is no forecast any more.
  const past = await rule({ tenant: 'sigma', metric: 'data', kind: 'forecast', quantity: '10' })
  await t.system.alerting.tick()
  expect(await told(past)).toEqual([])
  await t.reopen()
  // 29.5 is 5 % below 31; half a day is not enough.
  t.clock.advance(DAY / 3)
  await t.system.alerting.tick()
  expect(await told(exact)).toHaveLength(1)
  t.clock.advance(DAY)
  await t.system.alerting.tick()
  expect(await told(exact)).toEqual(['triggered 10', 'resolved 10'])
  await send('sigma', 'data', '20')
  await t.system.alerting.tick()
  expect(await told(exact)).toHaveLength(2)
  // A percentage is of the limit: 100 calls a month.
  const calls = await rule({ tenant: 'sigma', metric: 'calls', kind: 'forecast' })
  expect(calls.terms).toEqual({ percent: '100' })
})

test('nothing is foreseen in the first twentieth of a period', async () => {
  const early = await rule({ tenant: 'sigma', metric: 'raw', kind: 'forecast', quantity: '1' })
  t.clock.set('2026-04-02T11:59:00Z')
  await send('sigma', 'raw', '0.9')
  await t.system.alerting.tick()
  expect(await told(early)).toEqual([])
  t.clock.set('2026-04-02T12:00:00Z')
  await t.system.alerting.tick()
  expect(await alertsOf(early)).toMatchObject([{ balance: '0.9' }])
})

test('a silence => told once, of the metric, of one subject and of each; resolved when it speaks; the time the service is away is none', async () => {
  const whole = await rule({ tenant: 'gamma', metric: 'calls', kind: 'silence', seconds: 3600 })
  const one = await rule({ tenant: 'gamma', metric: 'calls', kind: 'silence', seconds: 7200, subject: 'pump-1' })
  const each = await rule({ tenant: 'gamma', metric: 'calls', kind: 'silence', seconds: 7200, subject: '*' })
  await send('gamma', 'calls', undefined, 'pump-1')
  const firstId = `r${next}`
  await send('gamma', 'calls', undefined, 'pump-2')
  const heardAt = t.clock.now()
  t.clock.advance(HOUR - 1)
  await t.system.alerting.tick()
  expect(await told(whole)).toEqual([])
  t.clock.advance(1)
  for (let i = 0; i < 3; i += 1) await t.system.alerting.tick()
  expect(await alertsOf(whole)).toMatchObject([
    {
      type: 'alert.triggered',
      kind: 'silence',
      subject: null,
      tenant: 'gamma',
      metric: 'calls',
      period: { from: heardAt, to: heardAt + HOUR },
    },
  ])
  // Away for a day: nobody could speak to it.
  await t.reopen(() => t.clock.advance(DAY))
  await t.system.alerting.tick()
  expect(await told(whole)).toHaveLength(1)
  expect(await told(each)).toEqual([])
  t.clock.advance(HOUR / 2)
  await send('gamma', 'calls', undefined, 'pump-2')
  await t.system.alerting.tick()
  expect(await told(whole)).toEqual(['triggered 0', 'resolved 0'])
  t.clock.advance(HOUR / 2)
  await t.system.alerting.tick()
  expect((await alertsOf(each)).map(({ subject, type }) => `${subject} ${type}`)).toEqual(['pump-1 alert.triggered'])
  expect(await told(one)).toEqual(['triggered 0'])
  // A repetition is no news, nor is taking it back; the next event is.
  const first = { id: firstId, tenant: 'gamma', metric: 'calls', subject: 'pump-1', time: heardAt }
  expect(await t.send([first])).toEqual(['duplicate'])
  expect(await t.send([{ ...first, kind: 'void' }])).toEqual(['accepted'])
  await t.system.alerting.tick()
  expect((await alertsOf(each)).map(({ subject, type }) => `${subject} ${type}`)).toEqual(['pump-1 alert.triggered'])
  await send('gamma', 'calls', undefined, 'pump-1')
  await t.system.alerting.tick()
  expect((await alertsOf(each)).map(({ subject, type }) => `${subject} ${type}`)).toEqual([
    'pump-1 alert.triggered',
    'pump-1 alert.resolved',
  ])
  // The next silence is another one.
  t.clock.advance(HOUR)
  await t.system.alerting.tick()
  expect((await told(whole)).slice(2)).toEqual(['triggered 0'])
  await call('PATCH', `/v1/alert-rules/${whole.id}`, { enabled: false })
  await send('gamma', 'calls')
  await t.system.alerting.tick()
  expect(await told(whole)).toHaveLength(3)
})

test('a rule that cannot be => 422 naming the member and why', async () => {
  const base = { tenant: 'alpha', metric: 'data' }
  for (const [body, why] of [
    [{ ...base, kind: 'percent' }, 'percent: is needed'],
    [{ ...base, kind: 'percent', percent: '-1' }, 'percent'],
    [{ ...base, kind: 'percent', percent: '0.0' }, 'above 0'],
    [{ ...base, kind: 'percent', percent: '80', every: '1' }, 'every: means nothing'],
    [{ ...base, kind: 'absolute', quantity: '1.0000000001' }, '9 decimals'],
    [{ ...base, kind: 'recurring', every: '0' }, 'above 0'],
    [{ ...base, kind: 'forecast', percent: '80', quantity: '1' }, 'not both'],
    [{ ...base, metric: 'peak', kind: 'forecast' }, 'sum or count'],
    [{ ...base, metric: 'mean', kind: 'recurring', every: '1' }, 'average'],
    [{ ...base, kind: 'silence', seconds: 10 }, 'seconds'],
    [{ ...base, tenant: 'nobody', kind: 'percent', percent: '80' }, 'no customer'],
  ] as const) {
    const { status, body: answer } = await call<{ detail: string }>('POST', '/v1/alert-rules', body)
    expect(status, why).toBe(422)
    expect(answer.detail).toContain(why)
  }
  expect(
    (await call('POST', '/v1/alert-rules', { ...base, metric: 'nothing', kind: 'percent', percent: '80' })).status,
  ).toBe(404)
})

test(`${promises('tenant:isolated')} keys of tenants see and change their own rules alone, and only with the scope manage`, async () => {
  const mine = await t.key('alpha', ['read', 'manage'])
  const other = await t.key('sigma', ['read', 'manage'])
  const reader = await t.key('alpha', ['read'])
  const made = await call<{ rule: AlertRule }>(
    'POST',
    '/v1/alert-rules',
    { metric: 'data', kind: 'percent', percent: '99' },
    mine,
  )
  expect(made.body.rule.tenant).toBe('alpha')
  const { id } = made.body.rule
  const url = `/v1/alert-rules/${id}`
  const sees = async (key: typeof mine): Promise<string[]> =>
    (await call<{ rules: AlertRule[] }>('GET', '/v1/alert-rules', undefined, key)).body.rules.map((one) => one.tenant)
  expect(new Set(await sees(mine))).toEqual(new Set(['alpha']))
  expect(new Set(await sees(other))).toEqual(new Set(['sigma']))
  for (const [method, body] of [['GET'], ['PATCH', { enabled: false }], ['DELETE']] as const) {
    expect((await call(method, url, body, other)).status, method).toBe(404)
    if (method !== 'GET') expect((await call(method, url, body, reader)).status, method).toBe(403)
  }
  const foreign = { tenant: 'alpha', metric: 'data', kind: 'percent', percent: '99' }
  expect((await call('POST', '/v1/alert-rules', foreign, other)).status).toBe(403)
  expect((await call('GET', '/v1/alert-rules?tenant=alpha', undefined, other)).status).toBe(403)
  expect((await call('DELETE', url, undefined, mine)).status).toBe(200)
})
