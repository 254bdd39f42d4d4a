/** The service dies by SIGKILL while a receiver has its message: after the restart the same message comes again, and it is the only one. */
import { Webhook } from 'standardwebhooks'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { promises } from '../promises.js'
import { openService, type Service } from '../service-process.js'
import { openReceiver, type Receiver } from './receiver.js'

let service: Service
let receiver: Receiver

beforeAll(async () => {
  receiver = await openReceiver()
  service = await openService({ RELEVE_WEBHOOK_ALLOW: '127.0.0.0/8' })
})
afterAll(async () => {
  await service?.close()
  await receiver?.close()
})

test(`${promises('alert:once-per-crossing')} killed between the receiver's answer and the row => delivered again under the same id and signature key, once in the books`, async () => {
  const { secret } = await service.call<{ secret: string }>('POST', '/v1/webhooks', {
    tenant: null,
    url: `${receiver.url}/hook`,
  })
  let kills = 0
  receiver.answers.set('/hook', () => {
    // The receiver has it, and the service never learns so.
    if (kills < 2) process.kill(service.pid, 'SIGKILL')
    kills += 1
    return 204
  })
  // Crosses 80 % at its own end; the answer comes before the alert's delivery, or the connection breaks.
  await service.call('POST', '/v1/events', [{ id: 'k1', tenant: 'acme', metric: 'kyc', value: '85' }]).catch(() => {})
  await service.ended
  // What waits is sent while it starts, so the second kill may come before it is ready.
  await service.start().catch(() => {})
  await service.ended
  await service.start()
  const got = await receiver.has('/hook', 3)
  expect(new Set(got.map(({ id }) => id)).size).toBe(1)
  expect(new Set(got.map(({ body }) => body)).size).toBe(1)
  expect(new Webhook(secret).verify(got[2]!.body, got[2]!.headers)).toMatchObject({
    data: { metric: 'kyc', threshold: '80%' },
  })
  const { alerts } = await service.call<{ alerts: { id: string }[] }>('GET', '/v1/alerts')
  expect(alerts.map(({ id }) => id)).toEqual([got[0]!.id])
})

test('killed right after a change was answered, and again while its receiver has it => told under one id, and the change stands', async () => {
  await service.call('POST', '/v1/webhooks', {
    tenant: 'acme',
    url: `${receiver.url}/moves`,
    events: ['contract.moved'],
  })
  let kills = 0
  receiver.answers.set('/moves', () => {
    if (kills < 1) process.kill(service.pid, 'SIGKILL')
    kills += 1
    return 204
  })
  await service.call('POST', '/v1/contracts/contract-acme/move', { state: 'suspended', reason: 'unpaid' })
  // Before anything looked at the outbox, as far as a kill can be aimed; the receiver's is the second one.
  await service.kill()
  expect(receiver.got.filter(({ path }) => path === '/moves')).toEqual([])
  await service.start().catch(() => {})
  await service.ended
  await service.start()
  const got = await receiver.has('/moves', 2)
  expect(new Set(got.map(({ id }) => id)).size).toBe(1)
  expect(new Set(got.map(({ body }) => body)).size).toBe(1)
  expect(JSON.parse(got[0]!.body)).toMatchObject({
    type: 'contract.moved',
    data: { contract: 'contract-acme', to: 'suspended', reason: 'unpaid' },
  })
  const { state } = await service.call<{ state: string }>('GET', '/v1/contracts/contract-acme')
  expect(state).toBe('suspended')
})
