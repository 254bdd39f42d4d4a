/** Usage data beside the stream on real engines: states, calculators, collecting once, drafts made again, late ones, proof. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { DataPort } from '../../src/invoicing/close.js'
import { closePeriod } from '../../src/invoicing/close.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { toPdf } from '../../src/invoicing/pdf.js'
import { renderInvoice } from '../../src/invoicing/render.js'
import { claim, withData } from '../../src/usage-data/collect.js'
import { pagesOf } from '../invoicing/read-pdf.js'
import { promises } from '../promises.js'
import { APRIL, type Fleet, fleetContract, MAY, openFleet } from './fleet.js'

let fleet: Fleet
/** As a reader of the PDF sees it. */
const textOf = async (invoice: Invoice, language?: 'fr' | 'en'): Promise<string> =>
  (await pagesOf(await toPdf(invoice, language))).join('\n')
beforeAll(async () => {
  fleet = await openFleet()
}, 180_000)
afterAll(async () => fleet?.close())

const create = (body: unknown, status = 201, key?: string) => fleet.ask('POST', '/v1/usage-data', body, status, key)
const datum = (fields: object) => ({ contract: 'flotte-iot', start: '2022-04-14', state: 'pending', ...fields })
const close = (contract: string, at: number, finalise = true) =>
  fleet.system.billing.closePeriod({ contract, at, finalise })

describe('states and fields', () => {
  test('a list is told which of its data has which wrong member, not that a list is no datum', async () => {
    const good = { contract: 'flotte-iot', start: '2022-04-03', value: '2' }
    const { detail } = await create([good, { ...good, valeur: '3' }], 400)
    expect(detail).toBe('[1].valeur: is not known here; /docs lists the members')
    expect((await create({ ...good, valeur: '3' }, 400)).detail).toMatch(/^valeur: is not known/)
  })

  test('a draft may be changed in all; a confirmed one only in its notes; back to draft it may again', async () => {
    const draft = await create({ contract: 'flotte-iot', start: '2022-04-02' })
    expect(draft).toMatchObject({ state: 'draft', value: null, data: null, item: null, tenant: 'agritech' })
    const url = `/v1/usage-data/${draft.id}`
    await fleet.ask('PATCH', url, { state: 'pending' }, 400)
    await fleet.ask('PATCH', url, { value: '3', qualifier: 'km', axis1: 'Nord', end: '2022-04-03' })
    const pending = await fleet.ask('PATCH', url, { state: 'pending' })
    expect(pending).toMatchObject({ state: 'pending', value: '3', qualifier: 'km', axis1: 'Nord' })
    const refused = await fleet.ask('PATCH', url, { value: '4', notes: 'x' }, 409)
    expect(refused.detail).toContain('only its notes may change, not value')
    await fleet.ask('PATCH', url, { doNotInvoice: true }, 409)
    expect(await fleet.ask('PATCH', url, { notes: 'relevé à pied' })).toMatchObject({
      notes: 'relevé à pied',
      value: '3',
    })
    await fleet.ask('DELETE', url, undefined, 409)
    await fleet.ask('PATCH', url, { state: 'draft' })
    await fleet.ask('PATCH', url, { value: '4' })
    await fleet.ask('PATCH', url, { state: 'excluded' })
    await fleet.ask('PATCH', url, { state: 'pending' }, 409)
    await fleet.ask('PATCH', url, { state: 'collected' }, 400)
  })

  test('what is wrong is named with its field', async () => {
    const cases: [object, number, string][] = [
      [{ value: '1', data: { cpu: 8 } }, 400, 'value_and_json_exclusive'],
      [{}, 400, 'value: a datum that is pending'],
      [{ value: '1,5' }, 400, 'value: a decimal'],
      [{ value: '1.0000000001' }, 400, '9 behind it'],
      [{ value: '1', start: '2022-02-30' }, 400, 'start: there is no'],
      [{ value: '1', end: '2022-04-13' }, 400, 'end: lies before start'],
      [{ value: '1', contract: 'nobody' }, 422, 'contract: there is no nobody'],
      [{ value: '1', item: 'nothing' }, 422, 'item: flotte-iot has no nothing'],
      [{ value: '1', state: 'collected' }, 400, 'state: draft, pending or excluded'],
      [{ data: [1] }, 400, 'data: an object'],
      [{ value: '1', notes: 'a\u0000b' }, 400, 'notes: a text'],
    ]
    for (const [fields, status, detail] of cases) expect((await create(datum(fields), status)).detail).toContain(detail)
    // A number that a double would change is refused before it is one.
    const long = '{"contract":"flotte-iot","start":"2022-04-14","state":"pending","data":{"x":0.1000000000000000055}}'
    expect((await create(long, 400)).detail).toContain('more than 15 digits')
    expect((await create('{"tarif": 1,27}', 400)).code).toBe('malformed_body')
  })

  test(`an external reference names one datum, however often it is sent ${promises('dedupe:first-only')}`, async () => {
    const one = datum({ externalReference: 'cdr-7', value: '2', state: 'draft' })
    const first = await create(one)
    expect((await create(one, 200)).id).toBe(first.id)
    expect((await create({ ...one, value: '3' }, 409)).detail).toContain('other content')
    expect((await create({ ...one, start: '2022-04-15' })).id).not.toBe(first.id)
    const found = await fleet.ask('GET', '/v1/usage-data?external_reference=cdr-7')
    expect(found.usageData).toHaveLength(2)
    const many = await create([one, { ...one, value: '9' }, datum({ value: '1', state: 'draft' })])
    expect(many.results.map((result: { outcome: string }) => result.outcome)).toEqual(['known', 'conflict', 'created'])
  })

  test(`a key of another tenant sees and writes nothing ${promises('tenant:isolated')}`, async () => {
    const { secret } = await fleet.system.keys.create({
      name: 'o',
      tenant: 'autre',
      scopes: ['ingest', 'read'],
    })
    const mine = await create(datum({ value: '1', state: 'draft' }))
    expect((await create(datum({ value: '1' }), 422, secret)).detail).toBe('contract: there is no flotte-iot')
    await fleet.ask('GET', `/v1/usage-data/${mine.id}`, undefined, 404, secret)
    await fleet.ask('PATCH', `/v1/usage-data/${mine.id}`, { notes: 'x' }, 403, secret)
    await fleet.ask('DELETE', `/v1/usage-data/${mine.id}`, undefined, 403, secret)
    await fleet.ask('GET', '/v1/usage-data?tenant=agritech', undefined, 403, secret)
    expect((await fleet.ask('GET', '/v1/usage-data', undefined, 200, secret)).usageData).toEqual([])
    const reader = (await fleet.system.keys.create({ name: 'r', tenant: 'agritech', scopes: ['read'] })).secret
    await create(datum({ value: '1' }), 403, reader)
  })
})

describe('april of the fleet', () => {
  let draft: Invoice

  test('12 on 14 April => the draft of April holds 12, and what is no matter of billing stays', async () => {
    const pending = await create(
      datum({
        item: 'IOT_NS542',
        value: '12',
        qualifier: 'mesures',
        notes: 'relevé du 14 avril',
        externalReference: 'R-14',
      }),
    )
    await create(datum({ value: '5', state: 'draft' }))
    await create(datum({ value: '9', state: 'excluded' }))
    await create(datum({ value: '4', doNotInvoice: true }))
    fleet.clock.set('2022-05-01T02:00:00Z')
    const closed = await close('flotte-iot', APRIL.from, false)
    draft = closed.invoice!.invoice
    expect(draft.lines.map((line) => [line.metric, line.quantity, line.amount])).toEqual([['mesures', '12', '6.00']])
    expect(draft.lines[0]!.proof!.data).toMatchObject({ count: 1, quantity: '12', calculators: ['mesures'] })
    expect(await fleet.ask('GET', `/v1/usage-data/${pending.id}`)).toMatchObject({
      state: 'collected',
      invoicingSchedule: { closing: closed.closing, invoice: draft.id },
    })
    const states = await fleet.ask('GET', '/v1/usage-data?from=2022-04-14T00:00:00Z&to=2022-04-15T00:00:00Z&limit=1000')
    const count = (state: string) => states.usageData.filter((one: { state: string }) => one.state === state).length
    expect([count('collected'), count('excluded'), count('pending')]).toEqual([1, 1, 1])
    expect(renderInvoice(draft)).toContain('14/04/2022 · 12 mesures · R-14 · relevé du 14 avril')
  })

  test('the printed statement has the datum with its notes, in both languages', async () => {
    expect(await textOf(draft)).toMatch(
      /Relevé de consommations[\s\S]*14\/04\/2022 · 12 mesures · R-14 · relevé du 14 avril/,
    )
    expect(await textOf(draft, 'en')).toContain('2022-04-14 · 12 mesures · R-14 · relevé du 14 avril')
  })

  test('more for April while it is a draft => the draft is made again with it', async () => {
    await create(datum({ value: '3', start: '2022-04-30T23:59:59Z' }))
    const again = (await fleet.system.invoicing.ofPeriod('flotte-iot', APRIL.from))!
    expect(again.state).toBe('draft')
    expect(again.invoice.id).not.toBe(draft.id)
    expect(again.invoice.lines.map((line) => [line.quantity, line.amount])).toEqual([['15', '7.50']])
    expect((await fleet.system.invoicing.get(draft.id)).state).toBe('discarded')
  })

  test(`issued with the first number of its series and equal to its rows ${promises('invoice:explains-itself')}`, async () => {
    const { invoice } = await close('flotte-iot', APRIL.from)
    // The month of a number is that of its issue: the period's end is 1 May.
    expect(invoice!.invoice.number).toBe('INV/2022/05/0001')
    const found = await fleet.system.billing.verifyInvoice(invoice!.invoice.id)
    expect([found.equal, found.document, found.lines.flatMap((line) => line.differences)]).toEqual([true, [], []])
    const behind = await fleet.ask('GET', `/v1/usage-data?closing=${encodeURIComponent(`flotte-iot/${APRIL.from}`)}`)
    expect(behind.usageData.map((one: { value: string }) => one.value)).toEqual(['3', '12'])
  })

  test(`a line opens into its rows: count and digest are those of its proof, page by page ${promises('invoice:explains-itself')}`, async () => {
    const { invoice } = (await fleet.system.invoicing.ofPeriod('flotte-iot', APRIL.from))!
    const url = `/v1/invoices/${invoice.id}/lines/1/usage-data`
    const first = await fleet.ask('GET', `${url}?limit=1`)
    const rest = await fleet.ask('GET', `${url}?limit=1&after=${first.next}`)
    expect([...first.usageData, ...rest.usageData].map((one: { value: string }) => one.value)).toEqual(['12', '3'])
    const { count, digest } = invoice.lines[0]!.proof!.data!
    expect(first).toMatchObject({
      proof: { count: 2, digest },
      calculators: [{ name: 'mesures', formula: 'sum', metric: 'mesures', count, digest }],
    })
    const { secret } = await fleet.system.keys.create({ name: 'x', tenant: 'autre', scopes: ['read'] })
    await fleet.ask('GET', url, undefined, 404, secret)
    await fleet.ask('GET', `/v1/invoices/${invoice.id}/lines/9/usage-data`, undefined, 404)
  })

  test('a collected row is kept by the database; altered or deleted behind its back => not equal', async () => {
    const { postgres } = fleet.system.engines
    const { invoice } = (await fleet.system.invoicing.ofPeriod('flotte-iot', APRIL.from))!
    for (const [sql, differs] of [
      [`UPDATE usage_data SET value = 11 WHERE external_reference = 'R-14'`, 'quantity'],
      [
        `UPDATE usage_data SET state = 'draft', closing = NULL, period_from = NULL, collected_order = NULL WHERE external_reference = 'R-14'`,
        'quantity',
      ],
      [`DELETE FROM usage_data WHERE external_reference = 'R-14'`, 'quantity'],
      // The same quantity by another row.
      [`UPDATE usage_data SET starts_at = starts_at + 1 WHERE external_reference = 'R-14'`, 'proof.data'],
      [`UPDATE usage_data SET id = 'ud_other' WHERE external_reference = 'R-14'`, 'proof.data'],
    ] as const) {
      await expect(postgres.query(sql)).rejects.toThrow(/collected|only its notes/)
      const client = await postgres.connect()
      try {
        await client.query('BEGIN')
        await client.query('ALTER TABLE usage_data DISABLE TRIGGER usage_data_stay')
        await client.query(`CREATE TEMP TABLE before AS SELECT * FROM usage_data WHERE external_reference = 'R-14'`)
        await client.query(sql)
        await client.query('ALTER TABLE usage_data ENABLE TRIGGER usage_data_stay')
        await client.query('COMMIT')
        const found = await fleet.system.billing.verifyInvoice(invoice.id)
        expect(found.equal).toBe(false)
        expect(found.lines[0]!.differences.map((one) => one.what)).toContain(differs)
      } finally {
        await client.query('BEGIN')
        await client.query('ALTER TABLE usage_data DISABLE TRIGGER usage_data_stay')
        await client.query(`DELETE FROM usage_data WHERE external_reference = 'R-14'`)
        await client.query('INSERT INTO usage_data OVERRIDING SYSTEM VALUE SELECT * FROM before')
        await client.query('ALTER TABLE usage_data ENABLE TRIGGER usage_data_stay')
        await client.query('DROP TABLE before')
        await client.query('COMMIT')
        client.release()
      }
    }
    expect((await fleet.system.billing.verifyInvoice(invoice.id)).equal).toBe(true)
  })

  test(`after it is issued, data of April go to May as a regularisation, once ${promises('flow:late-is-correction')}`, async () => {
    await create(datum({ value: '5', start: '2022-04-20' }))
    await create(datum({ value: '7', start: '2022-05-02' }))
    fleet.clock.set('2022-06-01T02:00:00Z')
    const report = await fleet.system.billing.closeDuePeriods({ at: null, tenant: 'agritech' })
    expect(report).toMatchObject({ due: 1, issued: 1, failed: 0 })
    const { invoice } = (await fleet.system.invoicing.ofPeriod('flotte-iot', MAY.from))!
    expect(invoice.lines.map((line) => [line.type, line.quantity, line.amount])).toEqual([
      ['usage', '7', '3.50'],
      ['regularisation', '5', '2.50'],
    ])
    const found = await fleet.system.billing.verifyInvoice(invoice.id)
    expect([found.equal, found.document, found.lines.flatMap((line) => line.differences)]).toEqual([true, [], []])
    // The statement prints May's datum, and of April only what came late; the line opens into all that its figure holds.
    expect(invoice.usage[0]!.data!.map((one) => one.value)).toEqual(['7'])
    expect(invoice.lines[1]!.data!.map((one) => one.value)).toEqual(['5'])
    expect(await textOf(invoice)).toMatch(/Régularisation avril 2022 — mesures\s+20\/04\/2022 · 5/)
    const behind = await fleet.ask('GET', `/v1/invoices/${invoice.id}/lines/2/usage-data`)
    expect(behind.usageData.map((one: { value: string }) => one.value)).toEqual(['12', '3', '5'])
    const { count, digest } = invoice.lines[1]!.proof!.data!
    expect(behind.calculators).toMatchObject([{ count, digest }])
    fleet.clock.set('2022-07-01T02:00:00Z')
    expect(await close('flotte-iot', MAY.to)).toMatchObject({ state: 'done', invoice: null })
  })
})

describe('calculators', () => {
  const contract = (id: string, items: unknown[]) => ({ ...fleetContract, id, tenant: 'muppy', items })

  test('one JSON record serves several items; a formula over values; an amount; units are told apart', async () => {
    await fleet.system.catalog.putContract(
      contract('devops', [
        {
          id: 'disque',
          plan: 'devops',
          calculators: [
            {
              name: 'espace',
              reads: 'json',
              formula: 'espace_disque_go + espace_disque_backup / 2 + reserve.disque.go',
              metric: 'data_go',
            },
            { name: 'Go relevés', reads: 'values', qualifier: 'Go', metric: 'data_go' },
            { name: 'Mo relevés', reads: 'values', qualifier: 'Mo', formula: 'sum / 1000', metric: 'data_go' },
            {
              name: 'Go supplémentaires',
              reads: 'json',
              formula: 'max(0, espace_disque_utilisee_go - espace_disque_inclu_go) * tarif_go_supplementaire_euro',
            },
          ],
        },
        { id: 'calcul', plan: 'devops', calculators: [{ name: 'cpu', reads: 'json', formula: 'cpu', metric: 'cpu' }] },
      ]),
    )
    const own = (fields: object) => ({ contract: 'devops', start: '2022-07-14', state: 'pending', ...fields })
    await create([
      own({ data: { espace_disque_go: 14, cpu: 8, espace_disque_backup: 13, reserve: { disque: { go: 1 } } } }),
      own({
        item: 'disque',
        data: {
          espace_disque_utilisee_go: 1599,
          espace_disque_inclu_go: 800,
          tarif_go_supplementaire_euro: '1.27',
        },
      }),
      own({ value: '2', qualifier: 'Go', item: 'disque' }),
      own({ value: '500', qualifier: 'Mo', item: 'disque' }),
      // Nobody reads these two: another unit, another shape.
      own({ value: '7', qualifier: 'kg' }),
      own({ data: { cup: 8 } }),
    ])
    const preview = await fleet.ask('GET', '/v1/contracts/devops/invoice-preview')
    fleet.clock.set('2022-08-01T02:00:00Z')
    const draft = (await close('devops', Date.UTC(2022, 6, 1), false)).invoice!.invoice
    const notices = draft.notices.map((notice) => [notice.code, notice.quantity])
    expect(await textOf(draft)).toContain('aucun calculateur ne lit')
    const reader = (await fleet.system.keys.create({ name: 'own', tenant: 'muppy', scopes: ['read'] })).secret
    expect((await fleet.ask('GET', `/v1/invoices/${draft.id}`, undefined, 200, reader)).invoice.notices).toEqual([])
    const { invoice } = (await close('devops', Date.UTC(2022, 6, 1))).invoice!
    const lines = invoice.lines.map((line) => [line.item, line.metric ?? line.label.fr, line.quantity, line.amount])
    // 14 + 13 / 2 + 1 + 2 + 500 / 1000 Go; 8 cpu; (1599 − 800) × 1.27.
    expect(lines).toEqual([
      ['disque', 'data_go', '24', '30.48'],
      ['disque', 'Plan devops — Go supplémentaires, juillet 2022', '1', '1014.73'],
      ['calcul', 'cpu', '8', '80.00'],
    ])
    expect(preview.lines.map((line: { amount: string }) => line.amount)).toEqual(['30.48', '1014.73', '80.00'])
    // What nobody reads is told on drafts; it is no matter of the customer's.
    expect([invoice.notices, notices]).toEqual([[], [['usage_data_unread', '2']]])
    expect(invoice.usage.find((entry) => entry.metric === 'data_go' && entry.item === 'disque')!.data).toHaveLength(3)
    const found = await fleet.system.billing.verifyInvoice(invoice.id)
    expect([found.equal, found.document, found.lines.flatMap((line) => line.differences)]).toEqual([true, [], []])
    // An amount has no entry in the table of metrics: its data are printed below.
    expect(invoice.lines[1]!.data!.map((one) => one.data)).toEqual([
      expect.stringContaining('"espace_disque_utilisee_go": 1599'),
    ])
    expect(await textOf(invoice)).toMatch(
      /Go supplémentaires, juillet 2022\s+14\/07\/2022 · espace_disque_inclu_go 800, espace_disque_utilisee_go 1 599, tarif_go_supplementaire_euro 1,27/,
    )
    const behind = await fleet.ask('GET', `/v1/invoices/${invoice.id}/lines/2/usage-data`)
    expect(behind.usageData).toHaveLength(1)
    expect(behind.calculators).toMatchObject([{ name: 'Go supplémentaires', reads: 'json', count: 1 }])
    const three = await fleet.ask('GET', `/v1/invoices/${invoice.id}/lines/1/usage-data`)
    expect([three.usageData.length, three.calculators.map((one: { count: number }) => one.count)]).toEqual([
      3,
      [1, 1, 1],
    ])
  })

  test(`a JSON record that is altered or deleted behind an amount => not equal, and the line is named ${promises('invoice:explains-itself')}`, async () => {
    const { invoice } = (await fleet.system.invoicing.ofPeriod('devops', Date.UTC(2022, 6, 1)))!
    const { postgres } = fleet.system.engines
    const [{ id }] = (await fleet.ask('GET', `/v1/invoices/${invoice.id}/lines/2/usage-data`)).usageData
    for (const [sql, differs] of [
      [`UPDATE usage_data SET data = data || '{"espace_disque_inclu_go": 801}' WHERE id = $1`, ['exact', 'amount']],
      [`UPDATE usage_data SET data = data || '{"remarque": "x"}' WHERE id = $1`, ['proof.data']],
      [`DELETE FROM usage_data WHERE id = $1`, ['line']],
    ] as const) {
      const client = await postgres.connect()
      const change = async (work: () => Promise<unknown>): Promise<void> => {
        await client.query('BEGIN')
        await client.query('ALTER TABLE usage_data DISABLE TRIGGER usage_data_stay')
        await work()
        await client.query('ALTER TABLE usage_data ENABLE TRIGGER usage_data_stay')
        await client.query('COMMIT')
      }
      try {
        await change(async () => {
          await client.query(`CREATE TEMP TABLE before AS SELECT * FROM usage_data WHERE id = '${id}'`)
          await client.query(sql, [id])
        })
        const found = await fleet.system.billing.verifyInvoice(invoice.id)
        expect(found.equal, sql).toBe(false)
        const named = found.lines.flatMap((line) => line.differences.map((one) => one.what))
        expect(named, sql).toEqual(expect.arrayContaining([...differs]))
      } finally {
        await change(async () => {
          await client.query('DELETE FROM usage_data WHERE id = $1', [id])
          await client.query('INSERT INTO usage_data OVERRIDING SYSTEM VALUE SELECT * FROM before')
          await client.query('DROP TABLE before')
        })
        client.release()
      }
    }
    expect((await fleet.system.billing.verifyInvoice(invoice.id)).equal).toBe(true)
  })

  test('late data of an amount calculator => the difference, as an amount', async () => {
    await create({
      contract: 'devops',
      item: 'disque',
      start: '2022-07-20',
      state: 'pending',
      data: { espace_disque_utilisee_go: 900, espace_disque_inclu_go: 800, tarif_go_supplementaire_euro: 1.27 },
    })
    fleet.clock.set('2022-09-01T02:00:00Z')
    const { invoice } = (await close('devops', Date.UTC(2022, 7, 1))).invoice!
    expect(invoice.lines.map((line) => [line.type, line.amount])).toEqual([['regularisation', '127.00']])
    expect((await fleet.system.billing.verifyInvoice(invoice.id)).equal).toBe(true)
  })

  test('a formula that cannot be computed => the datum or the item, the calculator and the reason; without it the contract goes on', async () => {
    fleet.clock.set('2022-08-10T09:00:00Z')
    await fleet.system.catalog.putContract(
      contract('geteilt', [
        {
          id: 'geteilt/1',
          plan: 'devops',
          calculators: [
            { name: 'Quotient', reads: 'json', formula: 'cpu / hours.used', metric: 'cpu' },
            { name: 'Potenz', reads: 'values', formula: 'sum * sum * sum * sum' },
          ],
        },
      ]),
    )
    const own = (fields: object) => ({ contract: 'geteilt', start: '2022-08-02', state: 'pending', ...fields })
    const preview = (status = 200) =>
      fleet.ask('GET', '/v1/contracts/geteilt/invoice-preview', undefined, status) as Promise<Record<string, unknown>>
    const put = (fields: object) => fleet.ask('POST', '/v1/usage-data', own(fields))
    await put({ data: { cpu: 8, hours: { used: 4 } } })
    // Neither is read: a way that leads nowhere, and one to something that is no decimal.
    await put({ data: { cpu: 8, hours: 2 } })
    await put({ data: { cpu: 8, hours: { used: [4] } } })
    const zero = await put({ data: { cpu: 8, hours: { used: 0 } } })
    expect((await preview(422)).detail).toBe(`usage data: ${zero.id}: Quotient: formula: division by zero`)
    await fleet.ask('PATCH', `/v1/usage-data/${zero.id}`, { state: 'excluded' })
    const large = await put({ value: '99999999999' })
    expect((await preview(422)).detail).toBe(
      'usage data: geteilt/1: Potenz: formula: the result has more than 38 digits',
    )
    await fleet.ask('PATCH', `/v1/usage-data/${large.id}`, { state: 'excluded' })
    const { lines, notices } = await preview()
    expect((lines as { quantity: string; amount: string }[]).map((line) => [line.quantity, line.amount])).toEqual([
      ['2', '20.00'],
    ])
    expect(notices).toMatchObject([{ code: 'usage_data_unread', quantity: '2' }])
    const reader = (await fleet.system.keys.create({ name: 'geteilt', tenant: 'muppy', scopes: ['read'] })).secret
    const shown = await fleet.ask('GET', '/v1/contracts/geteilt/invoice-preview', undefined, 200, reader)
    expect([shown.lines.length, shown.notices]).toEqual([1, []])
  })

  test('a calculator that cannot be, is refused when the contract is put, with the reason', async () => {
    const put = (calculators: unknown) =>
      fleet.system.catalog.putContract(contract('falsch', [{ id: 'a', plan: 'devops', calculators }]))
    const one = { name: 'x', reads: 'values', metric: 'cpu' }
    const cases: [unknown, string][] = [
      [[{ ...one, formula: 'total' }], 'total is none of sum, count'],
      [[{ ...one, reads: 'json' }], 'formula: is needed'],
      [[{ ...one, reads: 'json', formula: '1 + 1' }], 'names no member'],
      [[{ ...one, formula: 'process(1)' }], 'there is no process(…)'],
      [[{ ...one, formula: 'sum; sum' }], 'cannot read'],
      [[{ ...one, formula: `${'('.repeat(40)}sum${')'.repeat(40)}` }], 'nested deeper'],
      [[one, one], 'x is there twice'],
      [[{ ...one, metric: 'mesures' }], 'which a does not have'],
      [[{ ...one, code: 'rm' }], 'unknown member code'],
    ]
    for (const [calculators, reason] of cases) await expect(put(calculators)).rejects.toThrow(reason)
  })
})

test(`a closing killed at each of its steps collects every datum once ${promises('flow:exactly-once')}`, async () => {
  const { system, clock } = fleet
  const own = (value: string) => ({ contract: 'mort', start: '2022-09-14', state: 'pending', value })
  await system.catalog.putContract({ ...fleetContract, id: 'mort', items: [{ ...fleetContract.items[0], id: 'm' }] })
  await create([own('1'), own('2'), own('4')])
  clock.set('2022-10-01T02:00:00Z')
  const { postgres } = system.engines
  const options = {
    postgres,
    clock,
    catalog: system.catalog,
    invoicing: system.invoicing,
    usageAtCut: async (request: { items: readonly { item: string; metrics: readonly string[] }[] }) =>
      request.items.flatMap(({ item, metrics }) =>
        metrics.map((metric) => ({
          item,
          metric,
          quantity: '0',
          cut: {},
          query: '',
          count: 0,
          digest: '0'.repeat(64),
        })),
      ),
  }
  const waiting = async () => new Set<string>()
  const collect: DataPort['collect'] = async (client, { parts, ...request }) => {
    const usage = []
    for (const part of parts) {
      await claim(client, { ...request, ...part })
      usage.push(await withData(client, part, { upTo: request.order }))
    }
    return { usage, notices: [] }
  }
  const states = async () =>
    (await postgres.query(`SELECT state, count(*)::int AS n FROM usage_data WHERE contract = 'mort' GROUP BY state`))
      .rows
  // It dies after the rows are claimed, inside the transaction; then between the steps.
  const dying = {
    waiting,
    collect: async (...given: Parameters<typeof collect>) => {
      await collect(...given)
      throw new Error('killed')
    },
  }
  const request = { contract: 'mort', at: Date.UTC(2022, 8, 1), finalise: false }
  await expect(closePeriod({ ...options, data: dying }, request)).rejects.toThrow('killed')
  expect(await states()).toEqual([{ state: 'pending', n: 3 }])
  for (const point of ['measured', 'drafted']) {
    const crashPoint = (name: string): void => {
      if (name === point) throw new Error(`killed at ${name}`)
    }
    await expect(closePeriod({ ...options, data: { waiting, collect }, crashPoint }, request)).rejects.toThrow(point)
    expect(await states()).toEqual([{ state: 'collected', n: 3 }])
  }
  const closed = await Promise.all(
    [1, 2, 3, 4].map(() => closePeriod({ ...options, data: { waiting, collect } }, request)),
  )
  expect(new Set(closed.map((one) => one.invoice!.invoice.id)).size).toBe(1)
  expect(closed[0]!.invoice!.invoice.lines.map((line) => line.quantity)).toEqual(['7'])
})
