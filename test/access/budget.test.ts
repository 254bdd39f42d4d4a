/** Limits of a key, and of an address without one: by the service's clock, told in headers, and bounded in memory. */
import { beforeAll, expect, test } from 'vitest'
import { Attempts, networkOf } from '../../src/access/attempts.js'
import { Bucket } from '../../src/access/bucket.js'
import type { KeyLimits } from '../../src/access/budget.js'
import { HandClock } from '../../src/clock.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
beforeAll(async () => {
  t = await openTestSystem({ settings: { RELEVE_TRUST_PROXY: '10.9.0.0/16' } })
})

async function keyWith(of: KeyLimits): Promise<{ id: string; headers: { authorization: string } }> {
  const { key, secret } = await t.system.keys.create({
    name: 'limited',
    tenant: 'alpha',
    scopes: ['ingest'],
    limits: of,
  })
  return { id: key.id, headers: { authorization: `Bearer ${secret}` } }
}

let made = 0
const send = (headers: Record<string, string>, events: number) =>
  t.app.inject({
    method: 'POST',
    url: '/v1/events',
    headers: { ...headers, 'content-type': 'application/json' },
    payload: JSON.stringify(
      Array.from({ length: events }, () => {
        made += 1
        return { id: `b${made}`, metric: 'data', value: '1' }
      }),
    ),
  })

test('a bucket: a burst of one second, then its rate; debt is paid first; a clock that goes back changes nothing', () => {
  const bucket = new Bucket(3, 3, 1000)
  expect([bucket.left(1000), bucket.waitMs(1000)]).toEqual([3, 0])
  bucket.spend(3, 1000)
  expect([bucket.left(1000), bucket.waitMs(1000)]).toEqual([0, 334])
  expect(bucket.waitMs(1333)).toBe(1)
  expect(bucket.waitMs(1334)).toBe(0)
  expect(bucket.waitMs(900)).toBe(0)
  bucket.spend(301, 1334)
  expect(bucket.waitMs(1334)).toBe(100_333)
  expect(bucket.left(1334 + 100_333)).toBe(1)
  expect(bucket.left(10_000_000)).toBe(3)
})

test(`requests a second => beyond it 429 with Retry-After and the state in headers, until the clock gives more ${promises('system:bounded')}`, async () => {
  const { headers, id } = await keyWith({ requestsPerSecond: 2 })
  const first = await send(headers, 1)
  expect(first.statusCode).toBe(202)
  expect(first.headers).toMatchObject({ 'ratelimit-policy': '"requests";q=2;w=1', ratelimit: '"requests";r=1;t=0' })
  expect((await send(headers, 1)).statusCode).toBe(202)
  const refused = await send(headers, 1)
  expect(refused.statusCode).toBe(429)
  expect(refused.headers).toMatchObject({ 'retry-after': '1', ratelimit: '"requests";r=0;t=1' })
  expect(refused.json()).toMatchObject({ code: 'too_many_requests', detail: 'requests: this key may send 2 a second' })
  // What was refused cost nothing, and other keys go on.
  t.clock.advance(500)
  expect((await send(headers, 1)).statusCode).toBe(202)
  expect((await send((await keyWith({})).headers, 1)).headers.ratelimit).toBeUndefined()
  // Reading the keys again gives no new tokens; another limit acts at once.
  await t.key(null, ['read'])
  expect((await send(headers, 1)).statusCode).toBe(429)
  await t.system.keys.change(id, { limits: {} })
  expect((await send(headers, 1)).statusCode).toBe(202)
})

test('events a second => a batch larger than the rate is taken, and paid for before the next', async () => {
  const { headers } = await keyWith({ eventsPerSecond: 10 })
  expect((await send(headers, 50)).statusCode).toBe(202)
  const refused = await send(headers, 1)
  expect(refused.statusCode).toBe(429)
  // 10 were there, 50 were spent: 40 in debt, and one is needed.
  expect(refused.headers['retry-after']).toBe('5')
  t.clock.advance(4_099)
  expect((await send(headers, 1)).statusCode).toBe(429)
  t.clock.advance(1)
  expect((await send(headers, 1)).statusCode).toBe(202)
})

test('bytes a second => counted as they come, also of a body that cannot be read', async () => {
  const { headers } = await keyWith({ bytesPerSecond: 100 })
  const broken = await t.app.inject({
    method: 'POST',
    url: '/v1/events',
    headers: { ...headers, 'content-type': 'application/json' },
    payload: `[${' '.repeat(998)}!`,
  })
  expect(broken.statusCode).toBe(400)
  const refused = await send(headers, 1)
  expect(refused.statusCode).toBe(429)
  expect(refused.headers['retry-after']).toBe('10')
  expect(refused.json().detail).toContain('bytes')
})

test('limits that are none => 400 with the field', async () => {
  for (const wrong of [{ eventsPerSecond: 0 }, { eventsPerSecond: 1.5 }, { bytesPerSecond: 1e10 }, { events: 1 }]) {
    const answer = await t.app.inject({
      method: 'POST',
      url: '/v1/keys',
      headers: t.admin,
      payload: { name: 'x', scopes: ['read'], limits: wrong },
    })
    expect(answer.statusCode, answer.body).toBe(400)
    expect(answer.json().detail).toMatch(/^limits\b/)
  }
})

test('attempts without a valid key => counted; from one address too many => 429, while a valid key from there is let in', async () => {
  const attempt = (remoteAddress: string, headers: Record<string, string> = {}) =>
    t.app.inject({ url: '/v1/plans', headers, remoteAddress })
  const count = async (): Promise<number> => (await t.system.metrics.authFailures.get()).values[0]!.value
  const before = await count()
  for (let i = 0; i < limits.failedAttemptsMax; i += 1) expect((await attempt('192.0.2.1')).statusCode).toBe(401)
  const throttled = await attempt('192.0.2.1')
  expect(throttled.statusCode).toBe(429)
  expect(throttled.headers['retry-after']).toBe('1')
  expect(throttled.json().code).toBe('too_many_requests')
  expect(await count()).toBe(before + limits.failedAttemptsMax + 1)
  expect((await t.system.metrics.authThrottled.get()).values[0]!.value).toBe(1)
  expect((await attempt('192.0.2.1', t.admin)).statusCode).toBe(200)
  expect((await attempt('192.0.2.2')).statusCode).toBe(401)
  t.clock.advance(1000)
  expect((await attempt('192.0.2.1')).statusCode).toBe(401)
  expect((await attempt('192.0.2.1')).statusCode).toBe(429)
})

test('behind a proxy that is named => the address is the one it tells; what another tells is not believed', async () => {
  const attempt = async (remoteAddress: string, told: string): Promise<number> =>
    (await t.app.inject({ url: '/v1/plans', remoteAddress, headers: { 'x-forwarded-for': told } })).statusCode
  for (let i = 0; i < limits.failedAttemptsMax; i += 1) expect(await attempt('10.9.0.1', '198.51.100.1')).toBe(401)
  expect(await attempt('10.9.0.1', '198.51.100.1')).toBe(429)
  expect(await attempt('10.9.0.1', '198.51.100.2')).toBe(401)
  for (let i = 0; i < limits.failedAttemptsMax; i += 1)
    expect(await attempt('203.0.113.1', `198.51.100.${10 + i}`)).toBe(401)
  expect(await attempt('203.0.113.1', '198.51.100.99')).toBe(429)
})

test(`addresses without end => no more are remembered than the bound ${promises('system:bounded')}`, () => {
  const attempts = new Attempts(new HandClock(0))
  for (let i = 0; i < limits.failedAddressesMax + 100; i += 1)
    attempts.fail(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`)
  expect(attempts.addresses).toBe(limits.failedAddressesMax)
  for (let i = 0; i < limits.failedAttemptsMax; i += 1) attempts.fail(`2001:db8::${i}`)
  expect(() => attempts.fail('2001:db8::ffff')).toThrow('2001:db8:0:0')
})

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '::ffff:192.0.2.1'],
  ['::1', '0:0:0:0'],
  ['2001:db8::1', '2001:db8:0:0'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
  ['fe80::1:2:3:4', 'fe80:0:0:0'],
])('the network of %s is %s', (address, network) => {
  expect(networkOf(address)).toBe(network)
})
