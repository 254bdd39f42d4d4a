/**
 * A document whose clearance system took it and never answered: over the API it waits, is seen in its journal, and a person says what
 * became of it.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { type FneServer, openFneServer } from '../invoicing/fne-server.js'
import { bank, ivorySeller } from '../invoicing/sample.js'

let door: DoorSystem
let fne: FneServer
const folder = mkdtempSync(join(tmpdir(), 'releve-certification-'))

beforeAll(async () => {
  fne = await openFneServer()
  const tokenFile = join(folder, 'token')
  writeFileSync(tokenFile, fne.token, { mode: 0o600 })
  door = await openDoorSystem({ RELEVE_FNE_URL: fne.base, RELEVE_FNE_TOKEN_FILE: tokenFile })
})
afterAll(async () => {
  await door?.close()
  await fne?.close()
  rmSync(folder, { recursive: true, force: true })
})

async function call<T>(method: string, path: string, body?: unknown, status = 200): Promise<T> {
  const answer = await fetch(`${door.url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${door.adminKey}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  expect(answer.status, text).toBe(status)
  return JSON.parse(text) as T
}

test('taken and never answered => certifying, unknown in the journal; told by a person, it is certified', async () => {
  const certification = { system: 'fne', pointOfSale: 'Plateau', establishment: 'Siège', paymentMethod: 'transfer' }
  const { key: _, ...seller } = ivorySeller
  await call('PUT', '/v1/legal-entities', { ...seller, key: 'fne', certification })
  await call('PUT', '/v1/customers', { ...bank, tenant: 'bank', currency: 'XOF' })
  const rule = { rule_id: 'fee', type: 'flat_fee', amount: '131191', currency: 'XOF', billing_cycle: 'monthly' }
  await call('PUT', '/v1/prices', { rule, version: '1.0', status: 'active', effectiveFrom: 0 })
  await call('PUT', '/v1/products', { key: 'oid', name: 'OID' })
  await call('PUT', '/v1/plans', { key: 'plan', product: 'oid', name: 'Plan', feeRule: 'fee', metrics: [] })
  // Well over, whatever day it is.
  const now = new Date()
  const from = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - 2, 1))
  await call('PUT', '/v1/contracts', {
    ...{ id: 'contract', tenant: 'bank', legalEntity: 'fne', start: from.toISOString().slice(0, 10) },
    ...{ timeZone: 'Africa/Abidjan', items: [{ id: 'item', plan: 'plan' }] },
  })
  fne.next({ taken: 'broken' })
  const closed = await call<{ invoice: { state: string; invoice: { id: string } } }>('POST', '/v1/periods/close', {
    contract: 'contract',
    at: String(from.getTime()),
  })
  expect(closed.invoice.state).toBe('certifying')
  const { id } = closed.invoice.invoice
  const journal = () =>
    call<{ state: string; certification: { state: string } | null }>('GET', `/v1/invoices/${id}/moves`)
  while ((await journal()).certification?.state !== 'unknown') await sleep(50)
  await call('POST', `/v1/invoices/${id}/certification`, { outcome: 'certified' }, 400)
  const told = {
    outcome: 'certified',
    reference: '9606123E26000000001',
    token: 'http://fne.ci/verify/1',
    reason: 'seen there',
  }
  const { certification: kept } = await call<{ certification: object }>(
    'POST',
    `/v1/invoices/${id}/certification`,
    told,
  )
  expect(kept).toMatchObject({ state: 'certified', reference: told.reference })
  expect(await journal()).toMatchObject({ state: 'finalised', certification: { state: 'certified' } })
  expect(fne.taken).toHaveLength(1)
})
