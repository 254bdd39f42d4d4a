/**
 * A disk that is really full: a small file system under the log and the journal of reservations. What mounts it must be root
 * (test/run.ts leaves the file out for others, and says so).
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, expect, test } from 'vitest'
import { customer } from '../doors/door-system.js'
import { promises } from '../promises.js'
import { openService, type Service } from '../service-process.js'

const BATCH = 1_000
/** More than the small file system takes of either. */
const BATCHES = 400
const RESERVATIONS = 40_000

const mounted: string[] = []
const mount = (...args: string[]): void => void execFileSync('mount', args)
let service: Service | undefined

afterAll(async () => {
  await service?.kill()
  for (const path of mounted.toReversed()) execFileSync('umount', ['-l', path])
  await service?.close()
})

const batchOf = (number: number): object[] =>
  Array.from({ length: BATCH }, (_, i) => ({
    ...{ id: `batch-${number}-event-${i}-of-a-gateway-with-a-long-name`, tenant: 'fleet', metric: 'kyc', value: '1' },
    subject: `device-${number}-${i}`,
  }))

test(`${promises('ingest:ack-after-disk')} a full disk => 503 with Retry-After for events and reservations, nothing acknowledged is lost, and with room again all goes on`, async () => {
  let small = ''
  service = await openService({ RELEVE_EPOCH_MS: '60000' }, (data) => {
    small = join(data, 'small')
    mkdirSync(small)
    mount('-t', 'tmpfs', '-o', 'size=24m', 'none', small)
    mounted.push(small)
    for (const name of ['log', 'reservations']) {
      mkdirSync(join(small, name), { mode: 0o700 })
      mkdirSync(join(data, name), { mode: 0o700 })
      mount('--bind', join(small, name), join(data, name))
      mounted.push(join(data, name))
    }
  })
  const { url, adminKey, call } = service
  const post = (path: string, body: unknown): Promise<Response> =>
    fetch(`${url}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
  const expectFull = async (answer: Response): Promise<void> => {
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    const problem = (await answer.json()) as { status: number; code: string; detail: string }
    expect(problem).toMatchObject({ status: 503, code: 'overloaded' })
    expect(problem.detail).toContain('disk is full')
  }
  const counted = async (expected: number): Promise<void> => {
    for (;;) {
      const { quotas } = await service!.call<{ quotas: { usage: string }[] }>('POST', '/v1/quotas/check', {
        tenant: 'fleet',
        metric: 'kyc',
        n: '1',
      })
      const used = quotas[0]!.usage
      expect(Number(used)).toBeLessThanOrEqual(expected)
      if (Number(used) === expected) return
      await sleep(100)
    }
  }
  await call('PUT', '/v1/customers', customer('fleet'))
  await call('PUT', '/v1/limits', { tenant: 'fleet', metric: 'kyc', soft: null, hard: '10000000' })

  let taken = 0
  const refused: number[] = []
  for (let number = 0; number < BATCHES && refused.length < 3; number += 1) {
    const answer = await post('/v1/events', batchOf(number))
    if (answer.status === 202) {
      taken += 1
      await answer.body?.cancel()
      continue
    }
    await expectFull(answer)
    refused.push(number)
  }
  expect(taken).toBeGreaterThan(0)
  expect(refused).toHaveLength(3)
  await counted(taken * BATCH)

  const reserve = (n: number): Promise<Response> =>
    post('/v1/reservations', { tenant: 'fleet', metric: 'kyc', n: '1', key: `key-${n}`, leaseSeconds: 3_600 })
  const granted: string[] = []
  let isFull = false
  for (let n = 0; n < RESERVATIONS && !isFull; n += 1) {
    const answer = await reserve(n)
    isFull = answer.status !== 201
    if (isFull) await expectFull(answer)
    else granted.push(((await answer.json()) as { reservation: { id: string } }).reservation.id)
  }
  expect(isFull).toBe(true)
  expect((await fetch(`${url}/health/live`)).status).toBe(200)

  mount('-o', 'remount,size=400m', small)
  for (const number of refused) {
    let answer = await post('/v1/events', batchOf(number))
    while (answer.status === 503) {
      await sleep(100)
      answer = await post('/v1/events', batchOf(number))
    }
    expect(answer.status).toBe(202)
    expect(await answer.json()).toMatchObject({ stored: BATCH, refused: 0 })
  }
  await service.kill()
  await service.start()
  await counted((taken + refused.length) * BATCH)
  // What was granted holds, what was refused was not.
  for (const id of [granted[0]!, granted.at(-1)!])
    expect(await service.call('GET', `/v1/reservations/${id}`)).toMatchObject({ reservation: { id, state: 'held' } })
})
