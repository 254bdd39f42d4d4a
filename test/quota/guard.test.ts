/**
 * Limits that act, on a running service: checks against live usage, reservations that never grant more than there is, and how a
 * reservation and its event meet.
 */
import { beforeAll, beforeEach, expect, test } from 'vitest'
import type { QuotaAnswer, ReservationView } from '../../src/quota/guard.js'
import type { Policy } from '../../src/quota/policy.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
let next = 0

beforeAll(async () => {
  t = await openTestSystem()
})

type Headers = TestSystem['admin']
async function call<T>(
  method: string,
  url: string,
  body?: unknown,
  headers: Headers = t.admin,
): Promise<{ status: number; body: T }> {
  const answer = await t.app.inject({
    method: method as 'GET',
    url,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  })
  return { status: answer.statusCode, body: answer.json() as T }
}

const check = async (metric: string, n: string, tenant = 'alpha'): Promise<QuotaAnswer> =>
  (await call<QuotaAnswer>('POST', '/v1/quotas/check', { tenant, metric, n })).body

interface Reserved extends Partial<QuotaAnswer> {
  readonly granted: boolean
  readonly reservation: ReservationView
}

async function reserve(n: string, more: Record<string, unknown> = {}): Promise<Reserved> {
  next += 1
  const { status, body } = await call<Reserved>('POST', '/v1/reservations', {
    tenant: 'alpha',
    metric: 'data',
    n,
    key: `key-${next}`,
    ...more,
  })
  expect(status, JSON.stringify(body)).toBe(body.granted ? 201 : 200)
  return body
}

const commit = (id: string, body?: unknown, headers = t.admin) =>
  call<{ reservation: ReservationView; detail: string }>('POST', `/v1/reservations/${id}/commit`, body, headers)
const release = (id: string, headers = t.admin) =>
  call<{ reservation: ReservationView; detail: string }>('POST', `/v1/reservations/${id}/release`, undefined, headers)
const limit = (body: Record<string, unknown>) =>
  call<{ limit: Policy; detail: string }>('PUT', '/v1/limits', { tenant: 'alpha', metric: 'data', ...body })

async function send(value: string, tenant = 'alpha', metric = 'data'): Promise<void> {
  next += 1
  await t.send([{ id: `g${next}`, tenant, metric, value, time: t.clock.now() }])
}

/** Usage and held of alpha's data. */
async function balance(): Promise<{ usage: string; held: string }> {
  const { quotas } = await check('data', '0')
  return { usage: quotas[0]!.usage, held: quotas[0]!.held }
}

// Each test begins in a month of its own: nothing used, nothing held.
beforeEach(() => {
  t.clock.advance(31 * 86_400_000)
})

test('a check => allowed or not, what is left and why; beyond a soft limit it is told, beyond a hard one refused, and it acts at once', async () => {
  await send('900')
  expect(await check('data', '100')).toMatchObject({
    allowed: true,
    why: 'within',
    remaining: '100',
    quotas: [{ usage: '900', held: '0', soft: '1000', hard: null }],
  })
  expect(await check('data', '100.001')).toMatchObject({ allowed: true, why: 'over_soft_limit', remaining: '100' })
  await limit({ hard: '950.5' })
  expect(await check('data', '50.5')).toMatchObject({ allowed: true, why: 'within', remaining: '50.5' })
  expect(await check('data', '50.501')).toMatchObject({ allowed: false, why: 'hard_limit', remaining: '50.5' })
  // What has happened is never refused.
  await send('500')
  expect(await check('data', '0.001')).toMatchObject({ allowed: false, why: 'hard_limit', remaining: '0' })
  await limit({ soft: '1200', hard: 'included' })
  expect((await check('data', '1')).quotas[0]).toMatchObject({ usage: '1400', soft: '1200', hard: '1000' })
  await limit({ soft: null, hard: null })
  expect(await check('data', '1000000')).toMatchObject({ allowed: true, why: 'unlimited', remaining: null })
  await call('DELETE', '/v1/limits?tenant=alpha&metric=data')
  expect((await check('data', '1')).why).toBe('over_soft_limit')
  // Members are counted whole; a metric that no contract gives stands alone.
  expect(await check('users', '10')).toMatchObject({ allowed: true, why: 'within', remaining: '10' })
  expect(await check('calls', '5', 'gamma')).toMatchObject({ why: 'unlimited', quotas: [] })
  await call('PUT', '/v1/limits', { tenant: 'gamma', metric: 'calls', soft: null, hard: '3' })
  await send('1', 'gamma', 'calls')
  expect(await check('calls', '3', 'gamma')).toMatchObject({ allowed: false, remaining: '2' })
})

test('what cannot be asked => 422 or 404, naming it', async () => {
  for (const [metric, n, status, why] of [
    ['peak', '1', 422, 'is a max'],
    ['data', '-1', 422, 'not negative'],
    ['data', '1.0001', 422, '3 decimals'],
    ['calls', '1.5', 422, '0 decimals'],
    ['data', 'x', 422, 'n:'],
    ['nothing', '1', 404, 'nothing'],
  ] as const) {
    const { status: got, body } = await call<{ detail: string }>('POST', '/v1/quotas/check', {
      tenant: 'alpha',
      metric,
      n,
    })
    expect(got, `${metric} ${n}`).toBe(status)
    expect(body.detail).toContain(why)
  }
  expect((await limit({ hard: '-5' })).status).toBe(422)
  // A JSON number has been a double on its way.
  expect((await call('POST', '/v1/quotas/check', { tenant: 'alpha', metric: 'data', n: 5 })).status).toBe(400)
  expect((await call('POST', '/v1/reservations', { tenant: 'alpha', metric: 'data', n: '1' })).status).toBe(400)
  expect((await call('POST', '/v1/reservations', { tenant: 'alpha', metric: 'data', n: '0', key: 'k' })).status).toBe(
    422,
  )
  expect(
    (await call('POST', '/v1/reservations', { tenant: 'alpha', metric: 'data', n: '1', key: 'k', leaseSeconds: 0 }))
      .status,
  ).toBe(400)
})

test(`${promises('limit:never-oversold')} 200 reservers at once => what is granted fits, to the last unit; events meanwhile take their part`, async () => {
  await limit({ hard: 'included' })
  await send('100')
  const results = await Promise.all(Array.from({ length: 200 }, () => reserve('7')))
  const granted = results.filter((one) => one.granted)
  expect(granted).toHaveLength(128)
  expect(results.find((one) => !one.granted)).toMatchObject({ why: 'hard_limit', remaining: '4', allowed: false })
  expect(await balance()).toEqual({ usage: '100', held: '896' })
  expect((await reserve('4')).granted).toBe(true)
  expect((await reserve('0.001')).granted).toBe(false)
  // An event that nobody reserved for is counted, and there is less than nothing left.
  await send('50')
  await release(granted[0]!.reservation.id)
  expect((await reserve('0.001')).granted).toBe(false)
  expect(await check('data', '0')).toMatchObject({ remaining: '0' })
})

test('the same key again, at once or later => the same reservation, held once; with another n => 409', async () => {
  await limit({ hard: 'included' })
  const all = await Promise.all(Array.from({ length: 20 }, () => reserve('300', { key: 'same' })))
  expect(new Set(all.map(({ reservation }) => reservation.id)).size).toBe(1)
  expect((await balance()).held).toBe('300')
  const other = await call('POST', '/v1/reservations', { tenant: 'alpha', metric: 'data', n: '301', key: 'same' })
  expect(other.status).toBe(409)
  const header = await t.app.inject({
    method: 'POST',
    url: '/v1/reservations',
    headers: { ...t.admin, 'content-type': 'application/json', 'idempotency-key': 'same' },
    payload: JSON.stringify({ tenant: 'alpha', metric: 'data', n: '300' }),
  })
  expect(header.json().reservation.id).toBe(all[0]!.reservation.id)
})

test(`${promises('limit:never-oversold')} event, then commit, many at once => in the end each amount is counted once, and nothing is held`, async () => {
  await limit({ hard: 'included' })
  // The moment between the two is looked at in guard-commit.test.ts.
  const use = async (): Promise<void> => {
    const { reservation } = await reserve('8')
    next += 1
    // Not waited for: the hold lasts until the shard has it.
    const answer = await t.post([{ id: `u${next}`, tenant: 'alpha', metric: 'data', value: '5', time: t.clock.now() }])
    expect(answer.statusCode).toBe(202)
    expect((await commit(reservation.id, { amount: '5' })).body.reservation).toMatchObject({
      state: 'committed',
      actual: '5',
    })
  }
  // A large batch keeps the shard busy, so that commits come before their events are in the balance.
  const busy = async (round: number): Promise<void> => {
    const time = t.clock.now()
    const batch = Array.from({ length: 5_000 }, (_, i) => ({
      id: `busy ${round} ${i}`,
      tenant: 'alpha',
      metric: 'level',
      time,
    }))
    await t.send(batch)
  }
  for (let round = 0; round < 5; round += 1) {
    await Promise.all([busy(round), ...Array.from({ length: 10 }, use)])
  }
  await t.system.settle()
  expect(await balance()).toEqual({ usage: '250', held: '0' })
})

test('a commit twice => once; with another amount, or after a release => 409; it may be more than was reserved; it may bring its event', async () => {
  await limit({ hard: 'included' })
  const { reservation: one } = await reserve('10')
  expect((await commit(one.id)).body.reservation).toMatchObject({ state: 'committed', actual: '10' })
  expect((await commit(one.id)).status).toBe(200)
  expect((await commit(one.id, { amount: '9' })).status).toBe(409)
  expect((await release(one.id)).status).toBe(409)
  const { reservation: two } = await reserve('10')
  expect((await release(two.id)).body.reservation).toMatchObject({ state: 'released', holds: false })
  expect((await release(two.id)).status).toBe(200)
  expect((await commit(two.id)).status).toBe(409)

  const { reservation: three } = await reserve('10', { subject: 'dev-1' })
  const event = { id: 'with-commit', time: t.clock.now(), dims: { region: 'ci' } }
  expect((await commit(three.id, { amount: '12.5', event })).body.reservation).toMatchObject({ actual: '12.5' })
  // The answer was lost, say: the same again changes nothing.
  expect((await commit(three.id, { amount: '12.5', event })).status).toBe(200)
  await t.system.settle()
  expect(await balance()).toEqual({ usage: '12.5', held: '0' })
  const { reservation: four } = await reserve('10')
  const wrong = await commit(four.id, { event: { id: 'x', dims: { nothing: '1' } } })
  expect(wrong.status).toBe(422)
  expect(wrong.body.detail).toContain('nothing')
  expect((await balance()).held).toBe('10')
})

test('a lease that ends => its room is free by itself, and a late commit is told so', async () => {
  await limit({ hard: 'included' })
  const { reservation } = await reserve('1000', { leaseSeconds: 30 })
  expect((await reserve('1')).granted).toBe(false)
  t.clock.advance(29_000)
  expect((await reserve('1')).granted).toBe(false)
  t.clock.advance(2_000)
  expect((await reserve('1')).granted).toBe(true)
  const late = await commit(reservation.id)
  expect(late.status).toBe(409)
  expect(late.body.detail).toContain('expired')
  expect(
    (await call<{ reservation: ReservationView }>('GET', `/v1/reservations/${reservation.id}`)).body.reservation,
  ).toMatchObject({ state: 'expired', holds: false })
})

test('a restart => what was held is held, what ended has ended, and keys are known', async () => {
  await limit({ hard: 'included' })
  await send('10')
  const kept = await reserve('100', { key: 'kept', leaseSeconds: 3600 })
  const short = await reserve('200', { leaseSeconds: 10 })
  const gone = await reserve('50')
  const used = await reserve('40')
  await release(gone.reservation.id)
  await send('30')
  await commit(used.reservation.id, { amount: '30' })
  await t.reopen(() => t.clock.advance(20_000))
  expect(await balance()).toEqual({ usage: '40', held: '100' })
  expect((await reserve('100', { key: 'kept' })).reservation.id).toBe(kept.reservation.id)
  expect((await commit(short.reservation.id)).status).toBe(409)
  expect((await commit(used.reservation.id, { amount: '30' })).status).toBe(200)
  expect(
    (await call<{ reservations: ReservationView[] }>('GET', '/v1/reservations?tenant=alpha')).body.reservations.map(
      ({ id }) => id,
    ),
  ).toEqual([kept.reservation.id])
  // Once more, from what the first restart left.
  await t.reopen()
  expect((await balance()).held).toBe('100')
})

test(`${promises('tenant:isolated')} keys of tenants ask, reserve and see for themselves alone`, async () => {
  const mine = await t.key('alpha', ['read', 'ingest', 'manage'])
  const other = await t.key('gamma', ['read', 'ingest', 'manage'])
  const reader = await t.key('alpha', ['read'])
  const body = { metric: 'data', n: '1', key: 'mine' }
  const made = await call<Reserved>('POST', '/v1/reservations', body, mine)
  expect(made.body.reservation.tenant).toBe('alpha')
  const { id } = made.body.reservation
  const url = `/v1/reservations/${id}`
  expect((await call('GET', url, undefined, other)).status).toBe(404)
  expect((await commit(id, undefined, other)).status).toBe(404)
  expect((await release(id, other)).status).toBe(404)
  expect((await commit(id, undefined, reader)).status).toBe(403)
  expect((await call('POST', '/v1/reservations', body, reader)).status).toBe(403)
  const list = await call<{ reservations: unknown[] }>('GET', '/v1/reservations', undefined, other)
  expect(list.body.reservations).toEqual([])
  for (const [method, path, of] of [
    ['POST', '/v1/reservations', { ...body, tenant: 'alpha' }],
    ['POST', '/v1/quotas/check', { metric: 'data', n: '1', tenant: 'alpha' }],
    ['PUT', '/v1/limits', { metric: 'data', hard: '1', tenant: 'alpha' }],
    ['DELETE', '/v1/limits?tenant=alpha&metric=data'],
    ['GET', '/v1/limits?tenant=alpha'],
    ['GET', '/v1/reservations?tenant=alpha'],
  ] as const) {
    expect((await call(method, path, of, other)).status, `${method} ${path}`).toBe(403)
  }
  // The same key of another tenant is another reservation.
  const theirs = await call<Reserved>('POST', '/v1/reservations', body, other)
  expect(theirs.body.reservation.id).not.toBe(id)
  expect((await call('PUT', '/v1/limits', { metric: 'data', hard: '1' }, reader)).status).toBe(403)
})
