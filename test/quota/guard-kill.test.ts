/** The service dies by SIGKILL under many reservers: what it granted is held after the restart, and the sum never passes the limit. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { QuotaAnswer } from '../../src/quota/guard.js'
import { promises } from '../promises.js'
import { openService, type Service } from '../service-process.js'

const RESERVERS = 60

let service: Service

beforeAll(async () => {
  service = await openService({})
})
afterAll(() => service?.close())

interface Answer {
  readonly granted: boolean
  readonly reservation: { readonly id: string; readonly state: string; readonly holds: boolean }
}

test(`${promises('limit:never-oversold')} killed while it grants, again and again => everything granted is held, the same key finds it, and not a unit more is given`, async () => {
  await service.call('PUT', '/v1/limits', { tenant: 'acme', metric: 'kyc', hard: 'included' })
  const granted = new Map<string, string>()
  const refused = new Set<string>()
  const reserve = async (key: string): Promise<void> => {
    const answer = await service.call<Answer>('POST', '/v1/reservations', {
      tenant: 'acme',
      metric: 'kyc',
      n: '0.9',
      key,
      leaseSeconds: 3600,
    })
    if (answer.granted) granted.set(key, answer.reservation.id)
    else refused.add(key)
  }
  for (let round = 0; round < 4; round += 1) {
    const before = granted.size + refused.size
    const keys = Array.from({ length: RESERVERS }, (_, i) => `round ${round}, reserver ${i}`)
    const asked = keys.map((key) => reserve(key).catch(() => {}))
    while (granted.size + refused.size < before + 10) await new Promise((resolve) => setTimeout(resolve, 1))
    await service.kill()
    await Promise.all(asked)
    await service.start()
    for (const id of granted.values()) {
      const { reservation } = await service.call<Answer>('GET', `/v1/reservations/${id}`)
      expect(reservation).toMatchObject({ state: 'held', holds: true })
    }
    // Who had no answer asks again with its key, and who had one gets the same.
    const known = new Map(granted)
    await Promise.all(keys.map(reserve))
    for (const [key, id] of known) expect(granted.get(key)).toBe(id)
  }
  // 111 × 0.9 = 99.9
  expect(granted.size).toBe(111)
  expect(new Set(granted.values()).size).toBe(111)
  const check = await service.call<QuotaAnswer>('POST', '/v1/quotas/check', { tenant: 'acme', metric: 'kyc', n: '0.2' })
  expect(check).toMatchObject({ allowed: false, remaining: '0.1', quotas: [{ held: '99.9', usage: '0' }] })
})
