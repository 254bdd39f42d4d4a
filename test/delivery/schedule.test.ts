/**
 * Deliveries over days, on a clock moved by hand: when the next attempt is due, when it is given up, when an endpoint is given up,
 * what a replay takes and what is swept. A delivery of its own works on the tables of a running system; that one looks at them only
 * for what it told itself.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { HandClock } from '../../src/clock.js'
import { type Delivery, openDelivery } from '../../src/delivery/delivery.js'
import { limits } from '../../src/limits.js'
import { silentLogger } from '../../src/logger.js'
import { openMetrics } from '../../src/metrics.js'
import { openTestSystem, type TestSystem } from '../system.js'
import { openReceiver, type Receiver } from './receiver.js'

const START = Date.UTC(2026, 2, 1)
const HOUR = 3_600_000
const DAY = 24 * HOUR

let t: TestSystem
let receiver: Receiver
let clock: HandClock
let delivery: Delivery
let next = 0

interface Row {
  readonly serial: string
  readonly message: string
  readonly state: string
  readonly attempts: number
  readonly wait: number
  readonly error: string | null
}

const open = async (allowedRanges = ['127.0.0.0/8']): Promise<void> => {
  delivery = await openDelivery({
    postgres: t.system.engines.postgres,
    clock,
    logger: silentLogger,
    metrics: openMetrics(),
    dataDirectory: t.directory,
    version: 'test',
    allowedRanges,
    smtp: undefined,
    retryMs: limits.deliveryRetryMs,
  })
}

/** A start finds what has become due meanwhile. */
async function reopen(allowedRanges?: string[]): Promise<void> {
  await delivery.close()
  await open(allowedRanges)
}

beforeAll(async () => {
  receiver = await openReceiver()
  t = await openTestSystem()
  clock = new HandClock(START)
  await open()
})
beforeEach(() => receiver.answers.clear())
afterAll(async () => {
  await delivery?.close()
  await receiver?.close()
})

/** Each endpoint is of a tenant of its own, so that none hears another's. */
async function webhook(path: string): Promise<string> {
  const made = await delivery.endpoints.create('webhook', {
    tenant: path,
    target: `${receiver.url}/${path}`,
    events: ['contract.moved'],
  })
  return made.endpoint.id
}

async function emit(path: string): Promise<string> {
  next += 1
  const id = `scheduled_${next}`
  await delivery.emit({ id, type: 'contract.moved', tenant: path, data: {} })
  return id
}

async function rows(endpoint: string): Promise<Row[]> {
  const found = await t.system.engines.postgres.query(
    `SELECT serial, message, state, attempts, next_at - changed_at AS wait, error FROM deliveries WHERE endpoint = $1 ORDER BY serial`,
    [endpoint],
  )
  return found.rows.map((row) => ({ ...row, serial: String(row.serial), wait: Number(row.wait) }))
}

async function until(endpoint: string, isThere: (found: Row[]) => boolean): Promise<Row[]> {
  for (;;) {
    const found = await rows(endpoint)
    if (isThere(found)) return found
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** Fails every attempt until the last; answers the waits that were between them. */
async function exhaust(endpoint: string, of = 0): Promise<number[]> {
  const waits: number[] = []
  for (let attempt = 1; ; attempt += 1) {
    const { state, wait } = (await until(endpoint, (found) => found[of]!.attempts === attempt))[of]!
    if (state === 'dead') return waits
    waits.push(wait)
    clock.advance(wait)
    await reopen()
  }
}

const fails = (path: string): void => void receiver.answers.set(`/${path}`, () => 500)

test('a receiver that is away for days => attempts after the waits of the table, give or take a fifth, over restarts; then a dead letter', async () => {
  fails('waits')
  const endpoint = await webhook('waits')
  await emit('waits')
  const waits = await exhaust(endpoint)
  expect(waits).toHaveLength(limits.deliveryRetryMs.length)
  for (const [i, wait] of waits.entries()) {
    const meant = limits.deliveryRetryMs[i]!
    expect(wait, `wait ${i + 1}`).toBeGreaterThanOrEqual(0.8 * meant)
    expect(wait, `wait ${i + 1}`).toBeLessThanOrEqual(1.2 * meant)
  }
  // What failed together does not come back together.
  expect(waits.some((wait, i) => wait !== limits.deliveryRetryMs[i])).toBe(true)
  expect(await rows(endpoint)).toMatchObject([{ state: 'dead', attempts: waits.length + 1, error: 'status 500' }])
  expect(receiver.got.filter(({ path }) => path === '/waits')).toHaveLength(waits.length + 1)

  // A replay begins anew: one more failure is not the end of it.
  expect(await delivery.replay({ tenant: null, endpoint })).toEqual({ replayed: 1 })
  const [again] = await until(endpoint, ([row]) => row!.error !== null && row!.state === 'pending' && row!.attempts > 0)
  expect(again).toMatchObject({ state: 'pending', attempts: 1 })
  expect(again!.wait).toBeLessThanOrEqual(1.2 * limits.deliveryRetryMs[0]!)
})

test('a receiver that asks for more time than there is => it gets the most there is', async () => {
  receiver.answers.set('/asks', () => ({ status: 503, headers: { 'retry-after': String(30 * 86_400) } }))
  const endpoint = await webhook('asks')
  await emit('asks')
  expect(await until(endpoint, ([row]) => row!.error !== null)).toMatchObject([
    { state: 'pending', attempts: 1, wait: limits.retryAfterMaxMs },
  ])
})

test('nothing was delivered for five days => disabled with the next dead letter, what waited is one too; a success between begins anew', async () => {
  const endpoint = await webhook('fades')
  const state = () => delivery.endpoints.get('webhook', endpoint, null)
  fails('fades')
  await emit('fades')
  const failingSince = clock.now()
  await exhaust(endpoint)
  // Three days are a dead letter, and no reason to give up the receiver.
  expect(state()).toMatchObject({ state: 'enabled', failingSince })
  receiver.answers.delete('/fades')
  await emit('fades')
  await until(endpoint, (found) => found[1]!.state === 'delivered')
  await reopen()
  expect(state()).toMatchObject({ state: 'enabled', failingSince: null })

  clock.advance(10 * DAY)
  fails('fades')
  await emit('fades')
  await exhaust(endpoint, 2)
  expect(state().state).toBe('enabled')
  await emit('fades')
  clock.advance(HOUR)
  receiver.answers.set('/fades', () => 500)
  const waiting = await emit('fades')
  await until(endpoint, (found) => found[3]!.attempts === 1 && found[4]!.attempts === 1)
  // The last of these attempts are made after five days without a success.
  await t.system.engines.postgres.query(
    'UPDATE deliveries SET attempts = $2, next_at = 0 WHERE endpoint = $1 AND serial = $3',
    [endpoint, limits.deliveryRetryMs.length, (await rows(endpoint))[3]!.serial],
  )
  clock.advance(limits.endpointFailingMs)
  await t.system.engines.postgres.query('UPDATE deliveries SET next_at = $2 WHERE message = $1', [
    waiting,
    clock.now() + DAY,
  ])
  await reopen()
  const found = await until(endpoint, (all) => all[4]!.state === 'dead')
  expect(state()).toMatchObject({
    state: 'disabled',
    reason: expect.stringContaining('nothing was delivered for 5 days, last: status 500'),
  })
  expect(found[3]).toMatchObject({ state: 'dead', error: 'status 500' })
  expect(found[4]).toMatchObject({ state: 'dead', attempts: 1 })
})

test('a replay => of these letters alone, of this tenant alone, and not to an endpoint that is disabled', async () => {
  const [mine, other] = [await webhook('mine'), await webhook('other')]
  for (const path of ['mine', 'other']) {
    // Refused for good at once, and then enabled again.
    receiver.answers.set(`/${path}`, () => 410)
    const endpoint = path === 'mine' ? mine : other
    for (let n = 1; n <= 2; n += 1) {
      await emit(path)
      await until(endpoint, (found) => found.length === n && found.every(({ state }) => state === 'dead'))
      while (delivery.endpoints.get('webhook', endpoint, null).state === 'enabled')
        await new Promise((resolve) => setTimeout(resolve, 5))
      await delivery.endpoints.change('webhook', endpoint, null, { state: 'enabled' })
    }
    receiver.answers.delete(`/${path}`)
  }
  const [first, second] = await rows(mine)
  const [foreign] = await rows(other)
  expect(await delivery.replay({ tenant: 'mine', ids: [foreign!.serial] })).toEqual({ replayed: 0 })
  expect(await delivery.replay({ tenant: 'mine', ids: [first!.serial] })).toEqual({ replayed: 1 })
  await until(mine, (found) => found[0]!.state === 'delivered')
  expect((await rows(mine))[1]!.state).toBe('dead')
  await delivery.endpoints.change('webhook', mine, null, { state: 'disabled' })
  expect(await delivery.replay({ tenant: null, endpoint: mine })).toEqual({ replayed: 0 })
  await delivery.endpoints.change('webhook', mine, null, { state: 'enabled' })
  expect(await delivery.replay({ tenant: null, ids: [second!.serial, foreign!.serial] })).toEqual({ replayed: 2 })
  await until(mine, (found) => found[1]!.state === 'delivered')
})

test('ranges that were narrowed after an endpoint was made => its address is refused at the attempt, and no byte reaches it', async () => {
  const endpoint = await webhook('narrowed')
  await reopen([])
  await emit('narrowed')
  const [row] = await until(endpoint, (found) => found[0]!.error !== null)
  expect(row!.error).toContain('RELEVE_WEBHOOK_ALLOW')
  expect(receiver.got.filter(({ path }) => path === '/narrowed')).toEqual([])
  await expect(delivery.endpoints.change('webhook', endpoint, null, { target: 'https://10.0.0.1/' })).rejects.toThrow(
    'not a public address',
  )
  await reopen()
})

test('a secret that was rotated => signs until the overlap ends and not longer; endpoints of one tenant have a bound', async () => {
  const endpoint = await webhook('rotated')
  const [old] = delivery.endpoints.secretsOf(endpoint)
  const { secret } = await delivery.endpoints.rotate(endpoint, null, HOUR)
  clock.advance(HOUR - 1)
  expect(delivery.endpoints.secretsOf(endpoint)).toEqual([secret, old])
  clock.advance(1)
  expect(delivery.endpoints.secretsOf(endpoint)).toEqual([secret])
  for (let n = 1; n < limits.tenantEndpointsMax; n += 1) await webhook('rotated')
  await expect(webhook('rotated')).rejects.toThrow('delete one first')
  await delivery.endpoints.remove('webhook', endpoint, null)
  await webhook('rotated')
})

test('a sweep => what was delivered goes after a week, dead letters after a month, what waits never', async () => {
  const endpoint = await webhook('swept')
  const [delivered, dead] = [await emit('swept'), await emit('swept')]
  await until(endpoint, (found) => found.every(({ state }) => state === 'delivered'))
  await t.system.engines.postgres.query(`UPDATE deliveries SET state = 'dead' WHERE message = $1`, [dead])
  fails('swept')
  const waits = await emit('swept')
  await until(endpoint, (found) => found[2]!.error !== null)
  const kept = async (): Promise<string[]> => {
    await delivery.prune()
    const { rows: messages } = await t.system.engines.postgres.query(
      'SELECT id FROM delivery_messages WHERE tenant = $1 ORDER BY id',
      ['swept'],
    )
    const left = (await rows(endpoint)).map(({ message }) => message)
    expect(messages.map(({ id }) => id)).toEqual(left.toSorted())
    return left
  }
  clock.advance(limits.deliveredKeptMs)
  expect(await kept()).toEqual([delivered, dead, waits])
  clock.advance(1)
  expect(await kept()).toEqual([dead, waits])
  clock.advance(limits.deadLettersKeptMs - limits.deliveredKeptMs - 1)
  expect(await kept()).toEqual([dead, waits])
  clock.advance(1)
  expect(await kept()).toEqual([waits])
})
