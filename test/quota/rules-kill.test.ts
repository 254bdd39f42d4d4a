/** The service dies by SIGKILL right after events crossed thresholds and steps: each alert is there once, whatever was done again. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Alert } from '../../src/quota/alerts.js'
import { promises } from '../promises.js'
import { openService, type Service } from '../service-process.js'

let service: Service

beforeAll(async () => {
  service = await openService({})
})
afterAll(() => service?.close())

test(`${promises('alert:once-per-crossing')} killed after each event => every step and threshold of the rules once, none missing`, async () => {
  const base = { tenant: 'acme', metric: 'kyc' }
  await service.call('POST', '/v1/alert-rules', { ...base, kind: 'recurring', every: '10' })
  await service.call('POST', '/v1/alert-rules', { ...base, kind: 'absolute', quantity: '50' })
  await service.call('POST', '/v1/alert-rules', { ...base, kind: 'percent', percent: '60' })
  for (const [id, value] of [
    ['r1', '35'],
    ['r2', '30'],
    ['r3', '-10'],
    ['r4', '46'],
  ]) {
    // Acknowledged is on disk; whether its alerts have their rows is for the next start.
    await service.call('POST', '/v1/events', [{ ...base, id, value }])
    await service.kill()
    await service.start()
  }
  const expected = [
    ...['10', '20', '30', '40', '50', '60', '70', '80', '90', '100'].map(
      (step) => `alert.triggered recurring :${step}`,
    ),
    'alert.triggered threshold 80%',
    'alert.triggered threshold 100%',
    'alert.triggered threshold 50',
    'alert.triggered threshold 60',
    'alert.resolved threshold 60',
  ]
  const { rules } = await service.call<{ rules: { id: string; terms: Record<string, string> }[] }>(
    'GET',
    '/v1/alert-rules',
  )
  const nameOf = ({ type, kind, rule, threshold }: Alert): string => {
    const terms = rules.find(({ id }) => id === rule)?.terms
    const what =
      kind === 'recurring' ? threshold.slice(threshold.indexOf(':')) : (terms?.quantity ?? terms?.percent ?? threshold)
    return `${type} ${kind} ${what}`
  }
  let found: string[] = []
  while (found.length < expected.length) {
    found = (await service.call<{ alerts: Alert[] }>('GET', '/v1/alerts')).alerts.map(nameOf)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  expect(found.sort()).toEqual(expected.sort())
})
