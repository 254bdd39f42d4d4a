/**
 * An invoice against its archived events, on real engines: equal as issued, and not equal after each way of tampering. The SQL
 * here changes the stores behind the service's back, as an attacker or a bug would.
 */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { changePlan } from '../../src/catalog/part.js'
import { seedContracts, seedCustomers, seedLegalEntity } from '../../src/catalog/seeds.js'
import { serviceFile } from '../../src/cli/call.js'
import { buildHttp } from '../../src/http/http.js'
import { hashOf, type Invoice, type InvoiceLine } from '../../src/invoicing/invoice.js'
import type { KeptInvoice } from '../../src/invoicing/invoicing.js'
import type { Verification } from '../../src/invoicing/verify.js'
import { promises } from '../promises.js'
import { all, checkRules, LINE, readXml, textAt } from './en16931.js'
import { faultsOf } from './published.js'
import { pagesOf } from './read-pdf.js'
import { MARCH, openTestService, type TestService } from './service.js'

const TENANT = 'banque-atlantique'
let service: TestService
let app: FastifyInstance
let issued: KeptInvoice

const clickhouse = (query: string): Promise<unknown> =>
  service.system.engines.clickhouse.command({ query, clickhouse_settings: { mutations_sync: '2' } })

const contractOf = (tenant: string): string => `${tenant}-oid`

/** An OID contract of a customer of its own, with its month of usage. The clock never goes back: all are sent before March ends. */
async function month(tenant: string): Promise<void> {
  await service.system.catalog.putContract({
    ...seedContracts[1]!,
    id: contractOf(tenant),
    tenant,
    items: [{ id: `${tenant}-oid/1`, plan: 'oid-business' }],
  })
  await service.system.catalogSettled()
  await service.send({ tenant, metric: 'kyc_verification', count: 62 })
  await service.send({ tenant, metric: 'mcp_call', count: 850 })
  await service.send({ tenant, metric: 'auth_login', count: 40 })
}

const RETAIL = 'boutique-baobab'

/** A shop's customer at prices that hold the tax, defined through the door, with a month of usage and a tenth off. */
async function retailMonth(): Promise<void> {
  const put = async (url: string, payload: object): Promise<void> => {
    const headers = { authorization: `Bearer ${service.adminKey}` }
    const answer = await app.inject({ method: 'PUT', url, payload, headers })
    if (answer.statusCode >= 300) throw new Error(`${url}: ${answer.body}`)
  }
  const inclusive = { currency: 'EUR', tax_behavior: 'inclusive' }
  for (const rule of [
    { rule_id: 'retail_fee', type: 'flat_fee', amount: '59.03', ...inclusive },
    { rule_id: 'retail_kyc', type: 'per_unit', metric: 'kyc_verification', unit_price: '2.95', ...inclusive },
  ])
    await put('/v1/prices', { rule, version: '1.0', status: 'active', effectiveFrom: 0 })
  await put('/v1/plans', {
    key: 'retail',
    product: 'OID',
    name: 'Boutique',
    feeRule: 'retail_fee',
    metrics: [{ metric: 'kyc_verification', included: '50', rule: 'retail_kyc' }],
  })
  await put('/v1/legal-entities', {
    ...seedLegalEntity,
    key: 'baobab',
    registrations: { RCCM: 'CI-ABJ-03-2019-B12-04321', NCC: '1912345 A' },
    invoicePattern: 'BB-{YYYY}-{NNNN}',
    creditNotePattern: 'BA-{YYYY}-{NNNN}',
  })
  await put('/v1/customers', { ...seedCustomers[0]!, tenant: RETAIL, name: 'Boutique Baobab' })
  await put('/v1/contracts', {
    ...seedContracts[1]!,
    id: contractOf(RETAIL),
    tenant: RETAIL,
    legalEntity: 'baobab',
    start: '2026-03-01',
    items: [{ id: `${contractOf(RETAIL)}/1`, plan: 'retail' }],
    adjustments: { discounts: [{ name: 'FID', kind: 'percent', value: '10' }] },
  })
  await service.system.catalogSettled()
  await service.send({ tenant: RETAIL, metric: 'kyc_verification', count: 62 })
}

/** Writes into issued documents as only somebody with the database in hand can; `hash` says whether he mends the hash as well. */
async function alter(id: string, change: (invoice: Invoice) => unknown, hash = false): Promise<() => Promise<void>> {
  const { postgres } = service.system.engines
  const { rows } = await postgres.query('SELECT document, hash FROM invoices WHERE id = $1', [id])
  const before = rows[0] as { document: Invoice; hash: string }
  const after = change(structuredClone(before.document)) as Invoice
  const write = async (document: Invoice, digest: string): Promise<void> => {
    const client = await postgres.connect()
    try {
      await client.query('BEGIN')
      await client.query('ALTER TABLE invoices DISABLE TRIGGER invoices_stay')
      await client.query('UPDATE invoices SET document = $2, hash = $3 WHERE id = $1', [id, document, digest])
      await client.query('ALTER TABLE invoices ENABLE TRIGGER invoices_stay')
      await client.query('COMMIT')
    } finally {
      client.release()
    }
  }
  await write(after, hash ? hashOf(after) : before.hash)
  return () => write(before.document, before.hash)
}

beforeAll(async () => {
  service = await openTestService()
  app = await buildHttp(service.system)
  for (const tenant of [TENANT, 'nsia-assurances', 'bicici', 'orange-ci', 'bridge-bank', 'coris-bank'])
    await month(tenant)
  await retailMonth()
  await service.system.settle()
  service.endMarch()
  const contract = contractOf(TENANT)
  issued = (await service.system.billing.closePeriod({ contract, at: MARCH.from })).invoice!
}, 180_000)
afterAll(async () => {
  await app?.close()
  await service?.close()
})

const differing = (found: Verification): string[] => [
  ...found.lines.flatMap((line) => line.differences.map((one) => `${line.no} ${one.what}`)),
  ...found.document.map((one) => one.what),
]

test(`as issued => equal, by number, with every event counted ${promises('invoice:explains-itself')}`, async () => {
  const found = await service.system.billing.verifyInvoice(issued.invoice.number!)
  expect(differing(found)).toEqual([])
  expect(found.equal).toBe(true)
  expect(found.lines.map((line) => [line.no, line.metric, line.events, line.amount])).toEqual([
    [1, null, null, '200.00'],
    [2, 'kyc_verification', 62, '30.00'],
    [3, 'mcp_call', 850, '17.50'],
  ])
})

test('its archive goes on growing after the cut => still equal', async () => {
  await service.send({ tenant: TENANT, metric: 'kyc_verification', count: 3, first: 1000 })
  await service.system.settle()
  expect((await service.system.billing.verifyInvoice(issued.invoice.id)).equal).toBe(true)
})

test(`one stored amount altered, whatever is done to the hash => not equal ${promises('invoice:explains-itself')}`, async () => {
  const kyc = (change: Record<string, unknown>) => (invoice: Invoice) => ({
    ...invoice,
    lines: invoice.lines.map((line) => (line.no === 2 ? { ...line, ...change } : line)),
  })
  const cases: [change: (invoice: Invoice) => unknown, named: string[]][] = [
    [kyc({ amount: '31.00' }), ['2 amount']],
    [kyc({ quantity: '63' }), ['2 quantity']],
    [kyc({ included: '49' }), ['2 included']],
    [(invoice) => ({ ...invoice, customer: { ...invoice.customer, name: 'Un autre' } }), ['customer']],
    [(invoice) => ({ ...invoice, seller: { ...invoice.seller, name: 'Un autre' } }), ['seller']],
    [(invoice) => ({ ...invoice, period: { ...invoice.period, to: invoice.period.to + 1 } }), ['1 period']],
    [(invoice) => ({ ...invoice, ttc: '292.06' }), ['column ttc', 'ttc']],
    [(invoice) => ({ ...invoice, lines: invoice.lines.slice(0, 2) }), ['3 line']],
    [(invoice) => ({ ...invoice, taxes: [{ rate: '18', base: '247.50', tax: '44.54' }] }), ['taxes']],
    [(invoice) => kyc({ price: { ...invoice.lines[1]!.price, tiers: [] } })(invoice), ['2 price']],
    [(invoice) => kyc({ proof: { ...invoice.lines[1]!.proof, digest: '0'.repeat(64) } })(invoice), ['2 proof.digest']],
  ]
  for (const [change, named] of cases) {
    for (const mended of [false, true]) {
      const undo = await alter(issued.invoice.id, change, mended)
      const found = await service.system.billing.verifyInvoice(issued.invoice.id)
      await undo()
      expect(found.equal).toBe(false)
      expect(differing(found)).toEqual(expect.arrayContaining(mended ? named : [...named, 'hash']))
    }
  }
  const words = await alter(issued.invoice.id, (invoice) => ({ ...invoice, issuedOn: '2026-04-02' }))
  expect(differing(await service.system.billing.verifyInvoice(issued.invoice.id))).toEqual(['hash'])
  await words()
  expect((await service.system.billing.verifyInvoice(issued.invoice.id)).equal).toBe(true)
})

test('a column beside the document altered => not equal', async () => {
  const { postgres } = service.system.engines
  for (const [column, value] of [
    ['ht', '1'],
    ['tva', '44.56'],
  ] as const) {
    const set = async (to: string): Promise<void> => {
      await postgres.query('ALTER TABLE invoices DISABLE TRIGGER invoices_stay')
      await postgres.query(`UPDATE invoices SET ${column} = $2 WHERE id = $1`, [issued.invoice.id, to])
      await postgres.query('ALTER TABLE invoices ENABLE TRIGGER invoices_stay')
    }
    await set(value)
    expect(differing(await service.system.billing.verifyInvoice(issued.invoice.id))).toEqual([`column ${column}`])
    await set(issued.invoice[column])
  }
})

test(`one archived event deleted => not equal, with quantity, count and digest ${promises('invoice:explains-itself')}`, async () => {
  const contract = contractOf('nsia-assurances')
  const { invoice } = (await service.system.billing.closePeriod({ contract, at: MARCH.from })).invoice!
  expect((await service.system.billing.verifyInvoice(invoice.id)).equal).toBe(true)
  await clickhouse(`ALTER TABLE usage_events DELETE WHERE tenant = 'nsia-assurances' AND id = 'kyc_verification-7'`)
  const found = await service.system.billing.verifyInvoice(invoice.id)
  expect(found.equal).toBe(false)
  const line = found.lines[1]!
  expect(line.differences.map((one) => one.what)).toEqual(
    expect.arrayContaining(['quantity', 'amount', 'proof.count', 'proof.digest']),
  )
  expect(line.differences.find((one) => one.what === 'amount')).toEqual({
    what: 'amount',
    stored: '30.00',
    found: '27.50',
  })
  // Also of a metric that no line bills: its entry in the statement of usage.
  await clickhouse(`ALTER TABLE usage_events DELETE WHERE tenant = 'nsia-assurances' AND id = 'auth_login-7'`)
  expect(differing(await service.system.billing.verifyInvoice(invoice.id))).toContain('usage of auth_login')
})

test('one archived event exchanged for another of the same value => the digest differs', async () => {
  const contract = contractOf('bicici')
  const { invoice } = (await service.system.billing.closePeriod({ contract, at: MARCH.from })).invoice!
  await clickhouse(`ALTER TABLE usage_events UPDATE subject = 'agent-x' WHERE tenant = 'bicici' AND id = 'mcp_call-9'`)
  const found = await service.system.billing.verifyInvoice(invoice.id)
  expect(found.lines[2]!.differences.map((one) => one.what)).toEqual(['proof.digest'])
})

test('one rollup row altered before the closing => the closing refuses and names the metric; mended, it closes and is equal', async () => {
  const contract = contractOf('orange-ci')
  const add = (by: number): Promise<unknown> =>
    clickhouse(
      `ALTER TABLE usage_minute UPDATE sum = sum + ${by}, count = count + ${by}
       WHERE tenant = 'orange-ci' AND metric = 'mcp_call' AND window = toDateTime('2026-03-01 00:05:00', 'UTC')`,
    )
  await add(1)
  await expect(service.system.billing.closePeriod({ contract, at: MARCH.from })).rejects.toThrow(
    /mcp_call: the rollups say 851, the archive says 850/,
  )
  expect(await service.system.invoicing.ofPeriod(contract, MARCH.from)).toBeNull()
  await add(-1)
  const { invoice } = (await service.system.billing.closePeriod({ contract, at: MARCH.from })).invoice!
  expect((await service.system.billing.verifyInvoice(invoice.id)).equal).toBe(true)
})

test('a plan changed in mid-month, an add-on, a discount and a minimum => equal on real usage by parts; tampered => not', async () => {
  const contract = contractOf('coris-bank')
  const { catalog } = service.system
  const rule = { rule_id: 'addon_support', type: 'flat_fee', amount: '31', currency: 'EUR' }
  await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
  const known = catalog.book().contractOf(contract)
  const changed = changePlan(known, { item: `${contract}/1`, plan: 'oid-enterprise', from: '2026-03-02' })
  await catalog.putContract({
    ...changed,
    adjustments: { discounts: [{ name: 'FID', kind: 'percent', value: '10' }], minimum: '600' },
    items: changed.items.map((item, i) =>
      i === 0 ? item : { ...item, addOns: [{ name: 'Support', rule: 'addon_support', quantity: '1', once: false }] },
    ),
  })
  const { invoice } = (await service.system.billing.closePeriod({ contract, at: MARCH.from })).invoice!
  expect(invoice.lines.map((line) => [line.type, line.metric, line.billable, line.amount])).toEqual([
    ['fee', null, '1', '6.45'],
    ['usage', 'kyc_verification', '12', '30.00'],
    ['usage', 'mcp_call', '350', '17.50'],
    ['fee', null, '1', '483.87'],
    ['add_on', null, '1', '30.00'],
    ['discount', null, '1', '-56.78'],
    ['minimum', null, '1', '88.96'],
  ])
  // All usage came on 1 March: the second part of the month has none.
  expect(invoice.usage.filter((entry) => entry.quantity !== '0')).toHaveLength(3)
  expect(differing(await service.system.billing.verifyInvoice(invoice.id))).toEqual([])
  const undo = await alter(
    invoice.id,
    (document) => ({
      ...document,
      lines: document.lines.map((line) => (line.type === 'discount' ? { ...line, amount: '-56.79' } : line)),
    }),
    true,
  )
  expect(differing(await service.system.billing.verifyInvoice(invoice.id))).toContain('6 amount')
  await undo()
  await clickhouse(`ALTER TABLE usage_events DELETE WHERE tenant = 'coris-bank' AND id = 'kyc_verification-3'`)
  const found = differing(await service.system.billing.verifyInvoice(invoice.id))
  expect(found).toEqual(expect.arrayContaining(['2 amount', '6 amount', '7 amount']))
})

test(`prices with tax, closed in a batch => the sum of the lines is paid, on paper and in XML; credited in parts up to the whole; verified ${promises('rating:lines-sum-to-total')}`, async () => {
  const report = await service.system.billing.closeDuePeriods({ at: null, tenant: RETAIL })
  expect(report).toMatchObject({ due: 1, failed: 0 })
  const { invoice } = (await service.system.invoicing.ofPeriod(contractOf(RETAIL), MARCH.from))!
  expect(invoice.lines.map((line) => [line.type, line.amount, line.net])).toEqual([
    ['fee', '59.03', '50.03'],
    ['usage', '35.40', '30.00'],
    ['discount', '-9.44', '-8.00'],
  ])
  // 18 % of 72.03 would be 12.97: no HT with its tax rounded comes to 84.99.
  expect([invoice.ht, invoice.tva, invoice.ttc]).toEqual(['72.03', '12.96', '84.99'])
  const own = (await service.system.keys.create({ name: 'retail', scopes: ['read'], tenant: RETAIL })).secret
  const get = async (url: string) =>
    app.inject({ method: 'GET', url: `/v1/invoices/${url}`, headers: { authorization: `Bearer ${own}` } })
  const page = (await pagesOf((await get(`${invoice.number}.pdf`)).rawPayload)).join('\n')
  for (const text of [
    'Les prix et les montants des lignes sont TTC',
    /Prix unit\. TTC +TVA +Montant TTC/,
    /12 +2,95 € +18 % +35,40 €/,
    /Total HT +72,03 €/,
    /TVA 18 % sur 72,03 € +12,96 €/,
    /Total TTC +84,99 €/,
  ])
    expect(page).toMatch(text)
  const root = readXml((await get(`${invoice.number}.xml`)).body)
  checkRules(root, { taxIncluded: true })
  expect(() => checkRules(root)).toThrow(/BR-CO-17/)
  expect(await faultsOf((await get(`${invoice.number}.xml`)).body, true)).toEqual([])
  const lineTotal = 'SpecifiedLineTradeSettlement/SpecifiedTradeSettlementLineMonetarySummation/LineTotalAmount'
  expect(all(root, LINE).map((line) => textAt(line, lineTotal))).toEqual(['50.03', '30.00', '-8.00'])
  const csv = (await get(`${invoice.number}.csv`)).body.split('\r\n')
  expect(csv[0]).toMatch(/,tax_behavior,net_amount,unit_price,invoice,invoice_date,explanation$/)
  expect(csv[2]).toMatch(/,35\.40,EUR,18,.*,inclusive,30\.00,2\.95,,,"62 vérifications KYC.* 30,00\s€ HT"$/)
  expect((await get(`${invoice.number}?format=txt`)).body).toMatch(
    /2\. Boutique — vérifications KYC, mars 2026 +35,40\s€ TTC/,
  )

  const verified = async (id: string): Promise<string[]> => differing(await service.system.billing.verifyInvoice(id))
  expect(await verified(invoice.id)).toEqual([])
  const line = (change: object) => (document: Invoice) => ({
    ...document,
    lines: document.lines.map((one) => (one.no === 2 ? { ...one, ...change } : one)),
  })
  for (const [change, named] of [
    [line({ net: '30.01' }), '2 net'],
    [line({ amount: '35.41' }), '2 amount'],
    [line({ taxBehavior: undefined }), '2 taxBehavior'],
    [(document: Invoice) => ({ ...document, tva: '12.97' }), 'tva'],
  ] as const) {
    const undo = await alter(invoice.id, change, true)
    expect(await verified(invoice.id)).toContain(named)
    await undo()
  }

  // What one line cost, some, and the rest: each is given back as it was paid, and in all it is the invoice.
  const notes: Invoice[] = []
  for (const amount of ['35.40', '0.10', null]) {
    const note = await service.system.invoicing.credit(invoice.id, amount)
    expect(note.invoice.lines).toMatchObject([
      { taxBehavior: 'inclusive', amount: note.invoice.ttc, net: note.invoice.ht },
    ])
    notes.push(note.invoice)
  }
  expect(notes.map(({ ht, tva, ttc }) => [ht, tva, ttc])).toEqual([
    ['-30.00', '-5.40', '-35.40'],
    ['-0.08', '-0.02', '-0.10'],
    ['-41.95', '-7.54', '-49.49'],
  ])
  for (const note of notes) {
    expect(await verified(note.id)).toEqual([])
    const xml = (await get(`${note.number}.xml`)).body
    checkRules(readXml(xml), { taxIncluded: true })
    expect(await faultsOf(xml, true)).toEqual([])
    const undo = await alter(note.id, (document) => ({ ...document, ht: '-1.00' }), true)
    expect(await verified(note.id)).toContain('ht')
    await undo()
  }
  expect((await service.system.invoicing.get(invoice.id)).state).toBe('credited')
  await clickhouse(`ALTER TABLE usage_events DELETE WHERE tenant = '${RETAIL}' AND id = 'kyc_verification-7'`)
  expect(await verified(invoice.id)).toEqual(expect.arrayContaining(['2 amount', '2 net', '3 amount', 'ttc']))
})

test('a regularisation and a credit note are verified too, and the events of a regularisation are those that came late', async () => {
  const contract = contractOf('bridge-bank')
  const march = (await service.system.billing.closePeriod({ contract, at: MARCH.from })).invoice!
  service.clock.set('2026-04-02T09:00:00Z')
  await service.send({ tenant: 'bridge-bank', metric: 'kyc_verification', count: 50, first: 500 })
  await service.system.settle()
  service.clock.set('2026-05-01T02:00:00Z')
  const april = (await service.system.billing.closePeriod({ contract, at: MARCH.to })).invoice!
  expect(april.invoice.lines.map((line) => [line.type, line.amount])).toEqual([
    ['fee', '200.00'],
    ['regularisation', '119.00'],
  ])
  const found = await service.system.billing.verifyInvoice(april.invoice.id)
  expect(differing(found)).toEqual([])
  const late = await service.system.billing.invoiceEvents({
    invoice: april.invoice.id,
    tenant: null,
    line: 2,
    after: '0',
    limit: 1000,
  })
  expect(late.events.map((event) => event.id).sort()).toEqual(
    Array.from({ length: 50 }, (_, i) => `kyc_verification-${500 + i}`).sort(),
  )
  const freed = (line: InvoiceLine): InvoiceLine => ({ ...line, included: '1' })
  for (const amount of [null, '10.00']) {
    const of = amount === null ? march : april
    const note = await service.system.invoicing.credit(of.invoice.id, amount)
    expect(differing(await service.system.billing.verifyInvoice(note.invoice.id))).toEqual([])
    // Credit notes of before had no steps.
    const older = (line: InvoiceLine): InvoiceLine => ({ ...line, steps: [] })
    for (const [change, equal] of [
      [(invoice: Invoice) => ({ ...invoice, ttc: '-1.00' }), false],
      [(invoice: Invoice) => ({ ...invoice, lines: invoice.lines.map(older) }), true],
      [(invoice: Invoice) => ({ ...invoice, lines: invoice.lines.map(older).map(freed) }), false],
    ] as const) {
      const undo = await alter(note.invoice.id, change, true)
      expect((await service.system.billing.verifyInvoice(note.invoice.id)).equal).toBe(equal)
      await undo()
    }
  }
  await clickhouse(`ALTER TABLE usage_events DELETE WHERE tenant = 'bridge-bank' AND id = 'kyc_verification-501'`)
  expect((await service.system.billing.verifyInvoice(april.invoice.id)).equal).toBe(false)
})

test(`through the door: verify, events by pages, formats; another tenant finds nothing ${promises('tenant:isolated')}`, async () => {
  const own = (await service.system.keys.create({ name: 'own', scopes: ['read'], tenant: TENANT })).secret
  const other = (await service.system.keys.create({ name: 'other', scopes: ['read'], tenant: 'moov-africa' })).secret
  const ask = (method: 'GET' | 'POST', url: string, key = own, headers: Record<string, string> = {}) =>
    app.inject({ method, url, headers: { authorization: `Bearer ${key}`, ...headers } })
  const path = `/v1/invoices/${issued.invoice.number}`

  expect((await ask('POST', `${path}/verify`)).json()).toMatchObject({ equal: true, number: issued.invoice.number })
  for (const [method, url] of [
    ['POST', `${path}/verify`],
    ['GET', `${path}/lines/2/events`],
    ['GET', `${path}.csv`],
    ['GET', path],
    ['POST', `/v1/invoices/${issued.invoice.id}/verify`],
  ] as const) {
    expect((await ask(method, url, other)).statusCode, url).toBe(404)
  }

  const seen: string[] = []
  let after = '0'
  for (let pages = 0; pages < 20; pages += 1) {
    const page = (await ask('GET', `${path}/lines/2/events?limit=10&after=${after}`)).json()
    expect(page.events.length).toBeLessThanOrEqual(10)
    seen.push(...page.events.map((event: { id: string }) => event.id))
    if (page.next === null) break
    after = page.next
  }
  // Those that came after the cut are not behind the line.
  expect(seen.sort()).toEqual(Array.from({ length: 62 }, (_, i) => `kyc_verification-${i}`).sort())
  expect((await ask('GET', `${path}/lines/1/events`)).json()).toEqual({ events: [], next: null })
  expect((await ask('GET', `${path}/lines/9/events`)).statusCode).toBe(404)

  const csv = await ask('GET', `${path}.csv`)
  expect(csv.headers['content-type']).toBe('text/csv; charset=utf-8')
  expect(csv.headers['content-disposition']).toBe(`attachment; filename="${issued.invoice.number}.csv"`)
  expect(csv.body.split('\r\n')).toHaveLength(5)
  const text = await ask('GET', path, own, { accept: 'text/plain, application/json;q=0.5' })
  expect(text.body).toContain(`FACTURE ${issued.invoice.number}`)
  const xlsx = await ask('GET', `${path}?format=xlsx`)
  expect(xlsx.rawPayload.subarray(0, 2).toString()).toBe('PK')
  const pdf = await ask('GET', `${path}.pdf?language=en`)
  expect(pdf.headers['content-type']).toBe('application/pdf')
  expect(pdf.rawPayload.subarray(0, 5).toString()).toBe('%PDF-')
  const xml = await ask('GET', path, own, { accept: 'application/xml' })
  expect(xml.body).toContain(`<ram:ID>${issued.invoice.number}</ram:ID>`)
  expect((await ask('GET', path)).json().hash).toBe(issued.hash)
})

test('invoices by contract and state, and page by page: each once, newest first', async () => {
  const { secret } = await service.system.keys.create({ name: 'clerk', scopes: ['read'], tenant: null })
  const list = async (query: string) => {
    const answer = await app.inject({
      method: 'GET',
      url: `/v1/invoices?${query}`,
      headers: { authorization: `Bearer ${secret}` },
    })
    return { status: answer.statusCode, ...answer.json() }
  }
  const idsOf = ({ invoices }: { invoices: KeptInvoice[] }): string[] => invoices.map(({ invoice }) => invoice.id)
  const all = await list('limit=100')
  expect([all.next, idsOf(all).length]).toEqual([null, expect.toSatisfy((count: number) => count > 3)])
  const seen: string[] = []
  let after = ''
  for (let pages = 0; pages <= idsOf(all).length; pages += 1) {
    const page = await list(`limit=2${after}`)
    seen.push(...idsOf(page))
    if (page.next === null) break
    after = `&after=${encodeURIComponent(page.next)}`
  }
  expect(seen).toEqual(idsOf(all))
  expect(idsOf(await list(`contract=${contractOf(TENANT)}&state=finalised`))).toContain(issued.invoice.id)
  expect(idsOf(await list(`contract=${contractOf(TENANT)}&state=discarded`))).toEqual([])
  expect(idsOf(await list('contract=nothing'))).toEqual([])
  expect(await list('after=soon')).toMatchObject({ status: 400, detail: expect.stringMatching(/^after: /) })
  expect(await list('state=lost')).toMatchObject({ status: 400, detail: expect.stringMatching(/^state: one of draft/) })
})

test('what is dated into an invoiced period is refused, with the first day that is open; nothing is changed', async () => {
  const { secret } = await service.system.keys.create({ name: 'boss', scopes: ['admin'], tenant: null })
  const contract = contractOf(TENANT)
  const act = async (path: string, body: object) => {
    const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' }
    const url = `/v1/contracts/${contract}/${path}`
    const answer = await app.inject({ method: 'POST', url, headers, payload: JSON.stringify(body) })
    return { status: answer.statusCode, detail: answer.json().detail as string | undefined }
  }
  const before = service.system.catalog.book().contractOf(contract)
  const item = before.items[0]!.id
  const refused = (field: string) => ({
    status: 409,
    detail: expect.stringMatching(`^${field}: ${contract} is invoiced up to 2026-04-01`),
  })
  const move = { state: 'suspended', reason: 'r' }
  expect(await act('move', { ...move, on: '2026-03-31' })).toEqual(refused('on'))
  const plan = { item, plan: 'oid-enterprise' }
  expect(await act('change-plan', { ...plan, from: '2026-03-15' })).toEqual(refused('from'))
  expect(service.system.catalog.book().contractOf(contract)).toEqual(before)
  expect((await act('change-plan', { ...plan, from: '2026-04-15' })).status).toBe(200)
  expect((await act('move', { ...move, on: '2026-04-01' })).status).toBe(200)
})

test('from the command line: exit code 0 when equal, 6 when not, 4 when there is none; show, list and preview print', async () => {
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  writeFileSync(serviceFile(service.directory), JSON.stringify({ url }))
  const main = fileURLToPath(new URL('../../src/main.js', import.meta.url))
  const cli = async (...args: string[]): Promise<{ code: number; stdout: string }> => {
    try {
      const env = { PATH: process.env.PATH, RELEVE_DATA: service.directory }
      const { stdout } = await promisify(execFile)(process.execPath, [main, 'invoice', ...args], { env })
      return { code: 0, stdout }
    } catch (error) {
      const { code, stdout } = error as { code: number; stdout: string }
      return { code, stdout }
    }
  }
  const number = issued.invoice.number!
  const equal = await cli('verify', number)
  expect([equal.code, equal.stdout]).toEqual([0, expect.stringContaining(`${number} is equal to what its events say.`)])
  const undo = await alter(issued.invoice.id, (invoice) => ({ ...invoice, ttc: '292.06' }))
  const differs = await cli('verify', number, '--json')
  await undo()
  expect(differs.code).toBe(6)
  expect(JSON.parse(differs.stdout)).toMatchObject({ number, equal: false })
  expect((await cli('verify', 'FA-1999-0001')).code).toBe(4)
  expect((await cli('show', number, '--language', 'en')).stdout).toContain(`INVOICE ${number}`)
  expect((await cli('show', number, '--format', 'csv')).stdout.split('\r\n')).toHaveLength(5)
  expect((await cli('list')).stdout).toContain(number)
  expect((await cli('preview', contractOf(TENANT), '--at', '2026-03-10T00:00:00Z')).stdout).toContain(
    'FACTURE BROUILLON',
  )
  expect((await cli('sent', number, '--reason', 'by post')).stdout).toContain(`${number}  sent`)
  const journal = await cli('journal', number)
  expect(journal.stdout).toMatch(/draft → finalised {2}system\n.*finalised → sent {2}key:.*: by post\n$/)
  expect(JSON.parse((await cli('late', number, '--json')).stdout)).toMatchObject({ contract: contractOf(TENANT) })
  const range = ['--from', '2026-03-01T00:00:00Z', '--to', '2026-04-01T00:00:00Z', '--contract', contractOf(TENANT)]
  const shadow = await cli('shadow', ...range, '--plan', 'oid-business:oid-enterprise', '--json')
  expect(JSON.parse(shadow.stdout)).toMatchObject({ contract: contractOf(TENANT), after: '500.00' })
  const note = await cli('credit', number, '--amount', '1.18', '--json')
  expect(JSON.parse(note.stdout)).toMatchObject({
    invoice: { kind: 'credit_note', ttc: '-1.18', refersTo: { number } },
  })
  expect((await cli('credit', number, '--amount', '9999')).code).toBe(1)
})

test('what is due is told from the due date: pending, then overdue by its days, and summed by status', async () => {
  const key = (await service.system.keys.create({ name: 'due', scopes: ['read'], tenant: TENANT })).secret
  const ask = async (url: string) =>
    (await app.inject({ method: 'GET', url, headers: { authorization: `Bearer ${key}` } })).json()
  const { number, dueOn, ttc } = issued.invoice
  expect(dueOn).toBe('2026-05-01')
  expect((await ask(`/v1/invoices/${number}`)).payment).toEqual({ status: 'pending', daysLate: 0 })
  service.clock.set('2026-06-10T09:00:00Z')
  expect((await ask(`/v1/invoices/${number}`)).payment).toEqual({ status: 'overdue', daysLate: 40 })
  await service.system.invoicing.markPaid(number!)
  const list = await ask('/v1/invoices')
  // The credit note beside it is no debt.
  expect(list.invoices.map((one: { payment: unknown }) => one.payment)).toEqual([null, { status: 'paid', daysLate: 0 }])
  expect(list.totals).toEqual([{ currency: 'EUR', ttc, paid: ttc, pending: '0.00', overdue: '0.00' }])
})
