/**
 * Rates of tenants over NATS, against the real server: a request beyond them is told to wait, a message of the stream waits for its
 * turn; none is refused, and others go on meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { connect, type JetStreamClient, headers as makeHeaders, type NatsConnection } from 'nats'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type RatesList, TenantRates } from '../../src/access/rates.js'
import { systemClock } from '../../src/clock.js'
import { limits } from '../../src/limits.js'
import { type NatsDoor, openNatsDoor } from '../../src/nats/nats.js'
import { Turns } from '../../src/nats/turns.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { promises } from '../promises.js'
import { freePort, NatsServer, until } from './server.js'

const server = new NatsServer(await freePort())
let doors: DoorSystem
let door: NatsDoor
let client: NatsConnection
let stream: JetStreamClient

beforeAll(async () => {
  await server.start()
  doors = await openDoorSystem({ RELEVE_NATS_URL: server.url })
  door = openNatsDoor(doors.system, doors.system.config.nats!)
  await until(() => door.state().up)
  client = await connect({ servers: server.url })
  stream = client.jetstream()
})
afterAll(async () => {
  await client?.close()
  await door?.close()
  await doors?.close()
  await server.close()
})
afterEach(async () => {
  for (const tenant of [{}, { tenant: 'acme' }]) await put(tenant)
})

async function put(rates: Record<string, unknown>): Promise<number> {
  const answer = await doors.app.inject({
    method: 'PUT',
    url: '/v1/rates',
    headers: { authorization: `Bearer ${doors.adminKey}` },
    payload: rates,
  })
  return answer.statusCode
}

let made = 0
const batch = (events: number): string =>
  JSON.stringify(
    Array.from({ length: events }, () => {
      made += 1
      return { id: `r${made}`, metric: 'kyc', time: Date.now() }
    }),
  )

async function ask(tenant: string): Promise<{ status: string; retryAfter: number; code: string | undefined }> {
  const message = await client.request(`usage.req.${tenant}`, batch(1), { timeout: 30_000 })
  return {
    status: message.headers!.get('status'),
    retryAfter: Number(message.headers!.get('retry-after')),
    code: message.json<{ code?: string }>().code,
  }
}

/** Events of a tenant that are counted now. */
async function counted(tenant: string): Promise<number> {
  await doors.system.settle()
  const day = 86_400_000
  const from = (Math.floor(Date.now() / day) - 1) * day
  const { windows } = await doors.system.answers.usage({
    tenant,
    metric: 'kyc',
    from: String(from),
    to: String(from + 3 * day),
    window: null,
    timeZone: 'UTC',
  })
  return Number(windows[0]?.count ?? 0)
}

async function outcomes(name: string): Promise<number> {
  const { values } = await doors.system.metrics.natsMessages.get()
  return values.find(({ labels }) => labels.via === 'stream' && labels.outcome === name)?.value ?? 0
}

test('requests beyond the rate => 429 with retry-after, and after that time they are let in; another tenant does not notice', async () => {
  expect(await put({ tenant: 'acme', requestsPerSecond: 3 })).toBe(200)
  const before = await counted('acme')
  const answers = await Promise.all(Array.from({ length: 30 }, () => ask('acme')))
  const refused = answers.filter(({ status }) => status !== '202')
  expect(refused.length).toBeGreaterThan(10)
  for (const { status, code, retryAfter } of refused) {
    expect({ status, code }).toEqual({ status: '429', code: 'too_many_requests' })
    expect(retryAfter).toBeGreaterThanOrEqual(1)
  }
  for (const { status } of await Promise.all(Array.from({ length: 10 }, () => ask('banque'))))
    expect(status).toBe('202')
  await sleep(refused[0]!.retryAfter * 1_000)
  expect((await ask('acme')).status).toBe('202')
  expect(await counted('acme')).toBe(before + 31 - refused.length)
})

test('a message without a reply subject, which nobody can tell to wait => taken all the same', async () => {
  await put({ requestsPerSecond: 1 })
  const before = await counted('banque')
  for (let i = 0; i < 20; i += 1) client.publish('usage.req.banque', batch(1))
  await client.flush()
  await until(async () => (await counted('banque')) === before + 20)
})

test.each([
  ['messages', { requestsPerSecond: 5 }, 40, 1],
  ['events', { eventsPerSecond: 50 }, 40, 10],
  ['bytes', { bytesPerSecond: 2_500 }, 40, 10],
] as const)(
  `%s of the stream beyond the rate => they wait, none faster than the rate, none refused and none twice; others go on ${promises('dedupe:first-only')}`,
  {
    timeout: 120_000,
  },
  async (_, rates, messages, events) => {
    await put({ tenant: 'acme', ...rates })
    const [acme, banque] = [await counted('acme'), await counted('banque')]
    const later = await outcomes('later')
    const { refused, duplicate } = doors.system.books().totals
    const began = performance.now()
    let bytes = 0
    for (let i = 0; i < messages; i += 1) {
      const body = batch(events)
      bytes += body.length
      await stream.publish('usage.in.acme', body)
    }
    for (let i = 0; i < 20; i += 1) await stream.publish('usage.in.banque', batch(1))
    await until(async () => (await counted('banque')) === banque + 20)
    const early = ((await counted('acme')) - acme) / events
    const seconds = (performance.now() - began) / 1_000
    const size = { requestsPerSecond: 1, eventsPerSecond: events, bytesPerSecond: bytes / messages }
    // A second's worth at once, the rate from then on, and one that goes into debt.
    for (const [name, rate] of Object.entries(rates)) {
      expect(early).toBeLessThanOrEqual((rate * (1 + seconds)) / size[name as keyof typeof size] + 1)
    }
    expect(await outcomes('later')).toBeGreaterThan(later)
    await until(async () => (await counted('acme')) === acme + messages * events)
    const { totals, balanced } = doors.system.books()
    expect(totals).toMatchObject({ refused, duplicate })
    expect(balanced).toBe(true)
  },
)

test('what waits when the door closes, and when the rate is taken away => comes, once', async () => {
  await put({ tenant: 'acme', requestsPerSecond: 1 })
  const before = await counted('acme')
  const { duplicate } = doors.system.books().totals
  for (let i = 0; i < 8; i += 1) await stream.publish('usage.in.acme', batch(1))
  await until(async () => (await outcomes('later')) > 0 && (await counted('acme')) > before)
  await door.close()
  door = openNatsDoor(doors.system, doors.system.config.nats!)
  await put({ tenant: 'acme' })
  await until(async () => (await counted('acme')) === before + 8)
  expect(doors.system.books().totals.duplicate).toBe(duplicate)
})

test('places: a tenant fills them => its next message is taken beyond the rate, and no other waits; what never comes again leaves its place', async () => {
  await put({ tenant: 'acme', requestsPerSecond: 2 })
  const turns = new Turns(doors.system.rates, 3)
  const now = Date.now() + 60_000
  const of = (sequence: number, at = now) => turns.of('acme', sequence, 100, at)
  const [taken, beyond] = [{ isBeyond: false }, { isBeyond: true }]
  expect([of(1), of(2)]).toMatchObject([taken, taken])
  expect([of(3), of(4), of(5)]).toEqual([500, 1_000, 1_500])
  expect(of(6)).toMatchObject(beyond)
  expect(turns.of('banque', 7, 100, now)).toMatchObject(taken)
  expect(turns.size).toBe(3)
  // Two were paid for, one went into debt.
  expect(of(3, now + 1_000)).toMatchObject(taken)
  expect(turns.size).toBe(2)
  const late = now + 1_500 + 2 * limits.natsAckWaitMs + 1
  expect(of(8, late)).toMatchObject(taken)
  expect(turns.size).toBe(0)
})

test('rates => for all without their own, kept over a restart, checked, shown to the tenant itself', async () => {
  expect(await put({ eventsPerSecond: 7 })).toBe(200)
  expect(await put({ tenant: 'acme', bytesPerSecond: 1_000 })).toBe(200)
  const again = await TenantRates.open({ postgres: doors.system.engines.postgres, clock: systemClock })
  for (const rates of [doors.system.rates, again]) {
    expect(rates.view('acme')).toEqual({ tenant: 'acme', limits: { bytesPerSecond: 1_000 }, isDefault: false })
    expect(rates.view('banque')).toEqual({ tenant: 'banque', limits: { eventsPerSecond: 7 }, isDefault: true })
  }
  const own = await doors.app.inject({ url: '/v1/rates', headers: { authorization: `Bearer ${doors.acmeKey}` } })
  expect(own.json()).toMatchObject({ tenant: 'acme', limits: { bytesPerSecond: 1_000 } })
  for (const wrong of [{ requestsPerSecond: 0 }, { eventsPerSecond: 1.5 }, { eventsPerMinute: 1 }, { tenant: '' }])
    expect(await put(wrong)).toBe(400)
  // All that were set, a page at a time: each once, by name, and never the row of all others among them.
  for (const tenant of ['zulu', 'Émile', 'a']) expect(await put({ tenant, requestsPerSecond: 2 })).toBe(200)
  const list = async (query: string) =>
    (
      await doors.app.inject({
        url: `/v1/rates/tenants${query}`,
        headers: { authorization: `Bearer ${doors.adminKey}` },
      })
    ).json<RatesList>()
  const all = await list('')
  expect(all).toMatchObject({ default: { eventsPerSecond: 7 }, next: null })
  expect(all.tenants.map(({ tenant }) => tenant).sort()).toEqual(['a', 'acme', 'zulu', 'Émile'])
  expect(all.tenants).toContainEqual({ tenant: 'acme', limits: { bytesPerSecond: 1_000 } })
  const paged: RatesList['tenants'][number][] = []
  let next: string | null = ''
  for (let pages = 0; next !== null && pages < 9; pages += 1) {
    const page: RatesList = await list(`?limit=2${next === '' ? '' : `&after=${encodeURIComponent(next)}`}`)
    expect(page.tenants.length).toBeLessThanOrEqual(2)
    paged.push(...page.tenants)
    next = page.next
  }
  expect(next).toBeNull()
  expect(paged).toEqual(all.tenants)
  for (const tenant of ['zulu', 'Émile', 'a', 'acme']) expect(await put({ tenant })).toBe(200)
  expect(await put({})).toBe(200)
  expect(await list('')).toEqual({ default: null, tenants: [], next: null })
})

test(`a small message that becomes a large body => its room is counted as of a body over HTTP ${promises('system:bounded')}`, async () => {
  const line = `${JSON.stringify({ id: 'same', metric: 'kyc', pad: 'x'.repeat(1_500) })}\n`
  const body = gzipSync(line.repeat(9_000))
  expect(body.length).toBeLessThan(limits.natsMessageBytesMax)
  const headers = makeHeaders()
  headers.set('content-type', 'application/x-ndjson')
  headers.set('content-encoding', 'gzip')
  let most = 0
  const watch = setInterval(() => {
    void doors.system.metrics.inflightBytes.get().then(({ values }) => {
      most = Math.max(most, values[0]?.value ?? 0)
    })
  }, 1)
  const answer = await client.request('usage.req.acme', body, { headers, timeout: 60_000 })
  clearInterval(watch)
  expect(answer.headers!.get('status')).toBe('422')
  expect(most).toBeGreaterThan(13_000_000)
  expect((await doors.system.metrics.inflightBytes.get()).values[0]!.value).toBe(0)
})
