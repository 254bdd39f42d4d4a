/**
 * What happens to invoices, contracts and packs is told as well: written by the database with the change itself, and under an id that
 * stays. A receiver on a real socket sees a contract's life go by.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Webhook } from 'standardwebhooks'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { EventTypes } from '../../src/delivery/events.js'
import { letterOf } from '../../src/delivery/letter.js'
import { openOutboxFeed } from '../../src/delivery/outbox.js'
import { Certifications } from '../../src/invoicing/certification.js'
import { openFne } from '../../src/invoicing/fne.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'
import { silentLogger } from '../../src/logger.js'
import { rootDirectory } from '../../src/paths.js'
import { openFneServer } from '../invoicing/fne-server.js'
import { bank, ivorySeller, sampleInvoice } from '../invoicing/sample.js'
import { openTestSystem, type TestSystem } from '../system.js'
import { openReceiver, type Receiver } from './receiver.js'

let t: TestSystem
let receiver: Receiver

beforeAll(async () => {
  receiver = await openReceiver()
  t = await openTestSystem({ settings: { RELEVE_WEBHOOK_ALLOW: '127.0.0.0/8' }, config: { deliveryRetryMs: [20, 20] } })
})
afterAll(() => receiver.close())

async function call<T>(method: string, url: string, body?: unknown, status = 200): Promise<T> {
  const answer = await t.app.inject({
    method: method as 'GET',
    url,
    headers: { ...t.admin, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  })
  expect(answer.statusCode, answer.body).toBe(status)
  return answer.json() as T
}

const secrets = new Map<string, string>()
async function webhook(path: string, events: readonly string[], tenant: string | null = null): Promise<void> {
  const made = await call<{ secret: string }>('POST', '/v1/webhooks', { tenant, url: receiver.url + path, events }, 201)
  secrets.set(path, made.secret)
}

interface Told {
  readonly type: string
  readonly data: Readonly<Record<string, unknown>>
}
/** What came to a path so far, each once, as it verifies. */
async function told(path: string, count: number): Promise<Told[]> {
  const got = await receiver.has(path, count)
  const first = new Map(
    got.map((one) => [one.id, new Webhook(secrets.get(path)!).verify(one.body, one.headers) as Told]),
  )
  return [...first.values()]
}
const typesOf = (all: readonly Told[]): string[] => all.map(({ type }) => type).sort()

interface Listed {
  readonly invoices: readonly { readonly state: string; readonly invoice: { readonly id: string } }[]
}

test('the life of a contract and its invoice => each step is told to those who asked for it, and to nobody else', async () => {
  await webhook('/all', ['*'])
  await webhook('/invoices', ['invoice.*', 'credit_note.issued'], 'alpha')
  await webhook('/paid', ['invoice.paid'])
  await webhook('/other', ['*'], 'sigma')
  const { catalog } = t.system
  await catalog.putCustomer({
    tenant: 'gamma',
    name: 'gamma',
    country: 'CI',
    taxRate: '18',
    currency: 'USD',
    timeZone: 'Africa/Abidjan',
  })
  await catalog.putContract({
    id: 'contract-gamma',
    tenant: 'gamma',
    legalEntity: 'seller',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    items: [{ id: 'item-gamma', plan: 'plan', entitlements: [{ metric: 'data', limit: '1' }] }],
  })
  await t.system.catalogSettled()
  await call(
    'POST',
    '/v1/prepaid/packs',
    { id: 'pack', contract: 'contract-alpha', item: 'item-alpha', metric: 'data', quantity: '100' },
    201,
  )
  const unused = { id: 'unused', contract: 'contract-alpha', item: 'item-alpha', metric: 'data', quantity: '5' }
  await call('POST', '/v1/prepaid/packs', { ...unused, expires: '2026-03-31T12:30:00Z' }, 201)
  t.clock.set(Date.UTC(2026, 2, 31, 13))
  const time = '2026-03-31T12:30:00Z'
  await t.send([
    { id: 'm1', tenant: 'alpha', metric: 'data', value: '1500', time },
    { id: 'm2', tenant: 'alpha', metric: 'users', time, dims: { user: 'u1' } },
    { id: 'm3', tenant: 'gamma', metric: 'data', value: '20', time },
  ])
  t.clock.set(Date.UTC(2026, 3, 1, 2))
  // The price is in euros, and gamma pays in dollars.
  const report = await call<{ drafted: number; failed: number }>('POST', '/v1/periods/close', { finalise: false })
  expect(report).toMatchObject({ drafted: 1, failed: 1 })
  const { invoices } = await call<Listed>('GET', '/v1/invoices?tenant=alpha')
  const { id } = invoices[0]!.invoice
  for (const to of ['finalised', 'sent', 'paid'])
    await call('POST', `/v1/invoices/${id}/moves`, { to, reason: 'as agreed' })
  await call('POST', `/v1/invoices/${id}/credit`, { reason: 'all of it' })

  // April: data goes on, users are silent.
  t.clock.set(Date.UTC(2026, 3, 20))
  await t.send([{ id: 'm4', tenant: 'alpha', metric: 'data', value: '1300', time: '2026-04-19T00:00:00Z' }])
  t.clock.set(Date.UTC(2026, 4, 1, 2))
  await call('POST', '/v1/periods/close', { finalise: false, tenant: 'alpha' })
  const second = await call<Listed>('GET', '/v1/invoices?tenant=alpha')
  const draft = second.invoices.find(({ state }) => state === 'draft')!.invoice
  await call('POST', `/v1/invoices/${draft.id}/moves`, { to: 'discarded' })
  await call('POST', '/v1/contracts/contract-alpha/move', { state: 'suspended', reason: 'unpaid' })
  await call('POST', '/v1/contracts/contract-alpha/move', { state: 'active', reason: 'paid' })
  await call('POST', '/v1/contracts/contract-alpha/notice', { reason: 'leaves' })

  const ofInvoices = [
    'invoice.drafted',
    'invoice.finalized',
    'invoice.sent',
    'invoice.paid',
    'invoice.voided',
    'credit_note.issued',
    'invoice.drafted',
    'invoice.discarded',
  ]
  const mine = await told('/invoices', ofInvoices.length)
  expect(typesOf(mine)).toEqual([...ofInvoices].sort())
  const finalized = mine.find(({ type }) => type === 'invoice.finalized')!.data
  // 1,500 of 1,000 included, 100 from the pack: 400 at 2.00, and 18 %.
  expect(finalized).toMatchObject({
    invoice: id,
    number: expect.stringMatching(/-0001$/),
    tenant: 'alpha',
    contract: 'contract-alpha',
    from: 'draft',
    state: 'finalised',
    currency: 'EUR',
    ht: '800.00',
    tva: '144.00',
    ttc: '944.00',
    period: { from: Date.UTC(2026, 2, 1), to: Date.UTC(2026, 3, 1) },
    actor: expect.stringContaining('key'),
    reason: 'as agreed',
    at: Date.UTC(2026, 3, 1, 2),
  })
  expect(typesOf(await told('/paid', 1))).toEqual(['invoice.paid'])
  const more = [
    'prepaid.exhausted',
    'prepaid.forfeited',
    'closing.failed',
    'meter.silent',
    'contract.moved',
    'contract.moved',
    'contract.notice_given',
  ]
  const alerts = (await call<{ alerts: { type: string }[] }>('GET', '/v1/alerts')).alerts.map(({ type }) => type)
  const everything = await told('/all', ofInvoices.length + more.length + alerts.length)
  expect(typesOf(everything)).toEqual([...ofInvoices, ...more, ...alerts].sort())
  const dataOf = (type: string) => everything.find((one) => one.type === type)!.data
  expect(dataOf('prepaid.exhausted')).toMatchObject({
    pack: 'pack',
    contract: 'contract-alpha',
    metric: 'data',
    quantity: '100',
  })
  expect(dataOf('prepaid.forfeited')).toMatchObject({
    pack: 'unused',
    quantity: '5',
    expires: Date.UTC(2026, 2, 31, 12, 30),
  })
  expect(dataOf('closing.failed')).toMatchObject({
    contract: 'contract-gamma',
    tenant: 'gamma',
    reason: expect.stringMatching(/USD|EUR/),
  })
  expect(dataOf('meter.silent')).toMatchObject({ invoice: draft.id, contract: 'contract-alpha', metric: 'users' })
  expect(dataOf('contract.moved')).toMatchObject({ contract: 'contract-alpha', reason: expect.stringMatching(/paid/) })
  expect(dataOf('contract.notice_given')).toMatchObject({ contract: 'contract-alpha', reason: 'leaves' })
  expect(await told('/other', 0)).toEqual([])
  const { rows } = await t.system.engines.postgres.query('SELECT count(*)::int AS left FROM outbox')
  expect(rows).toEqual([{ left: 0 }])
})

test('a clearance system refuses a document, then takes it => rejected, certified, finalized', async () => {
  await webhook('/certified', ['invoice.certified', 'invoice.rejected', 'invoice.finalized'])
  const server = await openFneServer()
  try {
    const { postgres } = t.system.engines
    const fne = openFne({ base: server.base, token: server.token, timeoutMs: 5_000 })
    const certifications = new Certifications({ postgres, clock: t.clock, certifiers: { fne }, logger: silentLogger })
    const invoicing = new Invoicing({
      postgres,
      clock: t.clock,
      assertCertifiable: (a, b) => fne.assertCertifiable(a, b),
    })
    const seller = {
      ...ivorySeller,
      key: 'fne',
      certification: { system: 'fne', pointOfSale: 'P', establishment: 'S', paymentMethod: 'transfer' },
    } as const
    const sample = sampleInvoice({ seller, customer: { ...bank, currency: 'XOF' }, fee: '50000', number: null })
    const { invoice } = await invoicing.draft({ ...sample, id: invoicing.newId(), contract: 'certified' })
    await invoicing.finalise(invoice.id)
    await certifications.sendDue()
    const all = await told('/certified', 2)
    expect(typesOf(all)).toEqual(['invoice.certified', 'invoice.finalized'])
    expect(all.every(({ data }) => data.invoice === invoice.id && data.from === 'certifying')).toBe(true)
    const other = await invoicing.draft({ ...sample, id: invoicing.newId(), contract: 'refused' })
    await invoicing.finalise(other.invoice.id)
    await postgres.query(`UPDATE invoices SET state = 'rejected' WHERE id = $1`, [other.invoice.id])
    expect((await told('/certified', 3)).at(-1)).toMatchObject({
      type: 'invoice.rejected',
      data: { invoice: other.invoice.id },
    })
  } finally {
    await server.close()
  }
})

test('a change that is rolled back is not told, one that is committed is told once by two feeds, and nobody who listens => no row', async () => {
  const { postgres } = t.system.engines
  await webhook('/rolled', ['contract.trial_extended'])
  const write = (client: { query(text: string): Promise<unknown> }): Promise<unknown> =>
    client.query(`SELECT tell('contract.trial_extended', 'alpha', NULL, '{"contract":"x"}', 1)`)
  const client = await postgres.connect()
  await client.query('BEGIN')
  await write(client)
  await client.query('ROLLBACK')
  client.release()
  await Promise.all(Array.from({ length: 30 }, () => write(postgres)))
  const feed = openOutboxFeed({ postgres, delivery: t.system.delivery, logger: silentLogger })
  await Promise.all([feed.look(), feed.look()])
  await feed.close()
  expect(new Set((await receiver.has('/rolled', 30)).map(({ id }) => id)).size).toBe(30)
  const { rows } = await postgres.query(
    `SELECT count(*)::int AS made FROM delivery_messages WHERE type = 'contract.trial_extended'`,
  )
  expect(rows).toEqual([{ made: 30 }])

  await postgres.query(`UPDATE delivery_endpoints SET state = 'disabled'`)
  await write(postgres)
  expect((await postgres.query('SELECT * FROM outbox')).rows).toEqual([])
})

test('a type that is never told => 422 that says where the types stand; the answer, README and the letters have all of them', async () => {
  const body = { tenant: null, url: `${receiver.url}/x`, events: ['invoice.finalised'] }
  expect((await call<{ detail: string }>('POST', '/v1/webhooks', body, 422)).detail).toContain(
    '«invoice.finalised» is none',
  )
  const { types } = await call<{ types: { type: string; when: string }[] }>('GET', '/v1/webhooks/event-types')
  const readme = readFileSync(join(rootDirectory, 'src/delivery/README.md'), 'utf8')
  expect(types.map(({ type }) => type)).toEqual(Object.keys(EventTypes))
  expect([...readme.matchAll(/^\| `([a-z_.]+)` +\|/gm)].map(([, type]) => type)).toEqual(Object.keys(EventTypes))
  for (const { type, when } of types) expect(readme.replaceAll(/ +/g, ' ')).toContain(`| \`${type}\` | ${when} |`)
  const { subject, text } = letterOf(
    { type: 'invoice.paid', timestamp: '', data: { number: 'FA-1', ttc: '12.00' } },
    'fr',
  )
  expect([subject, text]).toEqual([
    'releve – facture payée (FA-1)',
    'facture payée (FA-1)\n\nnumber\u00a0: FA-1\nttc\u00a0: 12.00\n',
  ])
})
