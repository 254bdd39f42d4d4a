/** Closing and issuing on a real PostgreSQL, with racers and with processes that are killed in the middle. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import type { LegalEntity } from '../../src/catalog/definition.js'
import { loadSeeds, seedContracts, seedCustomers, seedLegalEntity } from '../../src/catalog/seeds.js'
import { HandClock } from '../../src/clock.js'
import { type CloseOptions, closePeriod, type UsageAtCut } from '../../src/invoicing/close.js'
import { hashOf, type Invoice } from '../../src/invoicing/invoice.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'
import { renderInvoice } from '../../src/invoicing/render.js'
import { promises } from '../promises.js'
import { marchQuantities, usageOf } from './march.js'
import { openTestPostgres, type TestPostgres } from './postgres.js'
import { previewInvoice } from './preview.js'

const run = promisify(execFile)
const finaliser = fileURLToPath(new URL('./finaliser.js', import.meta.url))
const march = { from: Date.UTC(2026, 2, 1), to: Date.UTC(2026, 3, 1) }

let postgres: TestPostgres
let catalog: Catalog
let invoicing: Invoicing
const clock = new HandClock('2026-04-01T02:00:00Z')

function closing(usageAtCut: UsageAtCut, extra: Partial<CloseOptions> = {}): CloseOptions {
  return { postgres: postgres.pool, clock, catalog, invoicing, usageAtCut, ...extra }
}

/** A legal entity of a test's own, so that its series starts at 1 and nobody else takes from it. */
async function drafts(key: string, count: number, seller: Partial<LegalEntity> = {}): Promise<string[]> {
  await catalog.putLegalEntity({ ...seedLegalEntity, ...seller, key })
  await catalog.putContract({
    ...seedContracts[1]!,
    id: `c-${key}`,
    legalEntity: key,
    items: [{ id: `c-${key}/1`, plan: 'oid-business' }],
  })
  const terms = catalog.terms(`c-${key}`, march)
  const usage = await usageOf(marchQuantities)({
    closing: key,
    tenant: '',
    contract: `c-${key}`,
    items: terms.items.map((item) => ({ item: item.item, metrics: item.metrics.map((metric) => metric.metric) })),
    period: march,
  })
  const ids: string[] = []
  for (let i = 0; i < count; i += 1) {
    const draft: Invoice = {
      ...previewInvoice(catalog, `c-${key}`, march, usage),
      id: invoicing.newId(),
      contract: `c-${key}-${i}-${invoicing.newId()}`,
    }
    ids.push((await invoicing.draft(draft)).invoice.id)
  }
  return ids
}

async function countersOf(legalEntity: string): Promise<number[]> {
  const { rows } = await postgres.pool.query(
    'SELECT counter FROM invoices WHERE legal_entity = $1 AND counter IS NOT NULL ORDER BY counter',
    [legalEntity],
  )
  return rows.map((row) => Number(row.counter))
}
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1)

beforeAll(async () => {
  postgres = await openTestPostgres()
  catalog = await openCatalog({ postgres: postgres.pool, clock })
  await loadSeeds(catalog)
  invoicing = new Invoicing({
    postgres: postgres.pool,
    clock,
    markBilled: (client, used) => catalog.markBilled(client, used),
  })
}, 120_000)
afterAll(async () => postgres?.close())

describe('closing a period', () => {
  test(`Banque Atlantique, OID, March 2026 => FA-2026-0001 over 292.05 EUR, every line explained ${promises('invoice:explains-itself')}`, async () => {
    const released: string[] = []
    const closed = await closePeriod(
      closing(usageOf(marchQuantities), {
        releaseCut: async (name) => {
          released.push(name)
        },
      }),
      { contract: 'banque-atlantique-oid', at: march.from },
    )
    const { invoice, hash } = closed.invoice!
    expect([closed.state, closed.period]).toEqual(['done', march])
    expect(released).toEqual([closed.closing])
    expect([invoice.number, invoice.issuedOn, invoice.dueOn]).toEqual(['FA-2026-0001', '2026-04-01', '2026-05-01'])
    expect(
      invoice.lines.map((line) => [line.type, line.metric, line.billable, line.amount, line.price?.version]),
    ).toEqual([
      ['fee', null, '1', '200.00', '3.1'],
      ['usage', 'kyc_verification', '12', '30.00', '2.0'],
      ['usage', 'mcp_call', '350', '17.50', '1.0'],
    ])
    expect([invoice.ht, invoice.tva, invoice.ttc]).toEqual(['247.50', '44.55', '292.05'])
    expect(invoice.taxes).toEqual([{ rate: '18', base: '247.50', tax: '44.55' }])
    expect(invoice.notices).toEqual([
      expect.objectContaining({ code: 'overage_unpriced', metric: 'certificate_enrolled', quantity: '5' }),
    ])
    expect(invoice.lines[1]!.steps).toEqual([
      { after: '50', upTo: '100', quantity: '12', unitPrice: '2.50', flat: '0.00', amount: '30.00' },
    ])
    for (const line of invoice.lines.slice(1)) {
      expect(line.proof).toEqual({
        cut: { 0: 41, 1: 40 },
        query: `usage of ${line.metric} at ${closed.closing}`,
        count: Number(line.quantity),
        digest: expect.stringMatching(/^[0-9a-f]{64}$/),
      })
      expect(line.price).toMatchObject({ model: 'graduated', metric: line.metric })
    }
    expect(
      invoice.usage.map((entry) => [entry.metric, entry.quantity, entry.percent, entry.overage, entry.line]),
    ).toEqual([
      ['auth_login', '12450', null, null, null],
      ['kyc_verification', '62', '124.0', '12', 2],
      ['certificate_enrolled', '25', '125.0', '5', null],
      ['mcp_call', '850', '170.0', '350', 3],
    ])
    expect(hash).toBe(hashOf(invoice))
    const text = renderInvoice(invoice).replaceAll('\u00a0', ' ')
    for (const part of [
      'FACTURE FA-2026-0001',
      'Total TTC',
      '292,05 €',
      'dépassement sans prix : 5 certificats enrôlés',
      '12 × 2,50 €',
      'TVA 18 %',
    ]) {
      expect(text).toContain(part)
    }
    await expect(
      postgres.pool.query(`UPDATE catalog_prices SET billed = false WHERE rule = 'overage_oid_kyc'`),
    ).rejects.toThrow(/has billed/)
  })

  test('closed again, or by twenty at once, it is the same one invoice', async () => {
    await catalog.putContract({ ...seedContracts[1]!, id: 'raced', items: [{ id: 'raced/1', plan: 'oid-business' }] })
    let asked = 0
    // Each closer counts something else: the first answer that is kept must decide.
    const usage: UsageAtCut = async (request) => {
      asked += 1
      return usageOf({ ...marchQuantities, kyc_verification: String(60 + asked) })(request)
    }
    const all = await Promise.all(
      Array.from({ length: 20 }, () => closePeriod(closing(usage), { contract: 'raced', at: march.from })),
    )
    const again = await closePeriod(closing(usage), { contract: 'raced', at: march.to - 1 })
    expect(new Set([...all, again].map((one) => one.invoice!.hash)).size).toBe(1)
    const { rows } = await postgres.pool.query(`SELECT count(*)::int AS count FROM invoices WHERE contract = 'raced'`)
    expect(rows[0].count).toBe(1)
  })

  test('stopped at any step, the next attempt ends in one invoice of what was measured first', async () => {
    for (const point of ['measured', 'drafted', 'number-taken']) {
      const id = `stopped-${point}`
      await catalog.putContract({ ...seedContracts[1]!, id, items: [{ id: `${id}/1`, plan: 'oid-business' }] })
      const stop = (name: string): void => {
        if (name === point) throw new Error('the process died here')
      }
      const dying = closing(usageOf(marchQuantities), {
        crashPoint: stop,
        invoicing: new Invoicing({ postgres: postgres.pool, clock, crashPoint: stop }),
      })
      await expect(closePeriod(dying, { contract: id, at: march.from })).rejects.toThrow(/died here/)
      const closed = await closePeriod(closing(usageOf({ ...marchQuantities, kyc_verification: '99' })), {
        contract: id,
        at: march.from,
      })
      expect([closed.state, closed.invoice!.invoice.ttc], point).toEqual(['done', '292.05'])
    }
    const counters = await countersOf('orbus-digital')
    expect(counters).toEqual(upTo(counters.length))
  })

  test('a changed price, customer or contract does not reach what was measured or issued', async () => {
    const id = 'moved'
    await catalog.putContract({ ...seedContracts[1]!, id, items: [{ id: `${id}/1`, plan: 'oid-business' }] })
    const left = await closePeriod(closing(usageOf(marchQuantities)), { contract: id, at: march.from, finalise: false })
    expect([left.state, left.invoice!.state, left.invoice!.invoice.number]).toEqual(['drafted', 'draft', null])
    await catalog.putCustomer({ ...seedCustomers[0]!, taxRate: '20', name: 'Autre nom' })
    const closed = await closePeriod(closing(usageOf(marchQuantities)), { contract: id, at: march.from })
    await catalog.putCustomer(seedCustomers[0]!)
    expect([closed.invoice!.invoice.customer.name, closed.invoice!.invoice.ttc]).toEqual([
      'Banque Atlantique',
      '292.05',
    ])
  })

  test('before the end and the grace of a period it is refused; without anything due there is no invoice', async () => {
    await expect(
      closePeriod(closing(usageOf({})), { contract: 'banque-atlantique-oid', at: Date.UTC(2026, 3, 1) }),
    ).rejects.toThrow(/can be closed from 2026-05-01T01:00:00/)
    const early = new HandClock('2026-04-01T00:59:59.999Z')
    await expect(
      closePeriod({ ...closing(usageOf({})), clock: early }, { contract: 'banque-atlantique-clm', at: march.from }),
    ).rejects.toThrow(/grace/)
    const closed = await closePeriod(closing(usageOf(marchQuantities)), {
      contract: 'banque-atlantique-clm',
      at: march.from,
    })
    expect([closed.state, closed.invoice]).toEqual(['done', null])
  })

  test('a metric that was not counted stops the closing, it is not billed as 0', async () => {
    await catalog.putContract({
      ...seedContracts[1]!,
      id: 'partial',
      items: [{ id: 'partial/1', plan: 'oid-business' }],
    })
    const partial: UsageAtCut = async (request) => (await usageOf(marchQuantities)(request)).slice(1)
    await expect(closePeriod(closing(partial), { contract: 'partial', at: march.from })).rejects.toThrow(
      /was not counted/,
    )
    expect(await invoicing.ofPeriod('partial', march.from)).toBeNull()
  })
})

describe('numbers', () => {
  test(`fifty finalisers at once => 1 to 50 without a gap or a double ${promises('invoice:numbers-have-no-gap')}`, async () => {
    const ids = await drafts('fifty', 50)
    const issued = await Promise.all(ids.map((id) => invoicing.finalise(id)))
    expect(await countersOf('fifty')).toEqual(upTo(50))
    expect(issued.map((one) => one.invoice.number).sort()).toEqual(
      upTo(50).map((n) => `FA-2026-${String(n).padStart(4, '0')}`),
    )
    const twice = await Promise.all(ids.map((id) => invoicing.finalise(id)))
    expect(twice.map((one) => one.hash)).toEqual(issued.map((one) => one.hash))
  })

  test(`processes killed with a number in hand => no gap ${promises('invoice:numbers-have-no-gap')}`, async () => {
    const ids = await drafts('killed', 12)
    for (const dieAt of [1, 3, 2]) {
      const child = run(process.execPath, [finaliser, postgres.url, '2026-04-01T08:00:00Z', String(dieAt), ...ids])
      await expect(child).rejects.toMatchObject({ signal: 'SIGKILL' })
    }
    // Two more at once, one of which dies while the other waits for its lock.
    const [dying, living] = await Promise.allSettled([
      run(process.execPath, [finaliser, postgres.url, '2026-04-01T08:00:00Z', '2', ...ids]),
      run(process.execPath, [finaliser, postgres.url, '2026-04-01T08:00:00Z', '0', ...[...ids].reverse()]),
    ])
    expect(living.status).toBe('fulfilled')
    expect(dying.status === 'rejected' || dying.value.stdout.split('\n').length > 1).toBe(true)
    expect(await countersOf('killed')).toEqual(upTo(12))
  }, 60_000)

  test('a finalising that fails gives its number to the next one', async () => {
    const [first, second, third] = await drafts('rolled', 3)
    await invoicing.finalise(first!)
    const failing = new Invoicing({
      postgres: postgres.pool,
      clock,
      crashPoint: () => {
        throw new Error('no')
      },
    })
    await expect(failing.finalise(second!)).rejects.toThrow(/^no$/)
    expect((await invoicing.finalise(third!)).invoice.number).toBe('FA-2026-0002')
    expect(await countersOf('rolled')).toEqual([1, 2])
  })

  test('a wider counter goes on; a pattern that comes to a number of the one before is refused, and nothing is lost', async () => {
    const [first] = await drafts('wider', 1)
    expect((await invoicing.finalise(first!)).invoice.number).toBe('FA-2026-0001')
    const [second, third] = await drafts('wider', 2, { invoicePattern: 'FA-{YYYY}-{NNNNNN}' })
    expect((await invoicing.finalise(second!)).invoice.number).toBe('FA-2026-000002')
    await postgres.pool.query(
      `INSERT INTO number_series (legal_entity, series, last, last_date) VALUES ('wider', 'FA-2026-00{N}', 1, '2026-04-01')`,
    )
    const [fourth] = await drafts('wider', 1, { invoicePattern: 'FA-{YYYY}-00{NNNN}' })
    await expect(invoicing.finalise(fourth!)).rejects.toThrow(/FA-2026-000002 was given by an earlier pattern of wider/)
    expect((await invoicing.finalise(third!)).invoice.number).toBe('FA-2026-000003')
    expect((await invoicing.get(fourth!)).state).toBe('draft')
    for (const creditNotePattern of ['FA-{YYYY}-{NNNN}', 'FA-{YYYY}-{MM}{NN}'])
      await expect(drafts('wider', 0, { creditNotePattern })).rejects.toThrow(/creditNotePattern: may give a number/)
  })

  test('a new year begins at 1 again, and a clock that falls does not make a date fall', async () => {
    const ids = await drafts('years', 3)
    const time = new HandClock('2026-12-31T12:00:00Z')
    const own = new Invoicing({ postgres: postgres.pool, clock: time })
    const first = await own.finalise(ids[0]!)
    time.set('2026-12-30T12:00:00Z')
    const second = await own.finalise(ids[1]!)
    time.set('2027-01-01T00:00:00Z')
    const third = await own.finalise(ids[2]!)
    expect([first, second, third].map((one) => [one.invoice.number, one.invoice.issuedOn])).toEqual([
      ['FA-2026-0001', '2026-12-31'],
      ['FA-2026-0002', '2026-12-31'],
      ['FA-2027-0001', '2027-01-01'],
    ])
  })
})

describe('issued documents', () => {
  test(`the database refuses every change but the state's own moves ${promises('invoice:issued-never-changes')}`, async () => {
    const [id] = await drafts('frozen', 1)
    const { hash } = await invoicing.finalise(id!)
    const attempts = [
      'DELETE FROM invoices WHERE id = $1',
      'UPDATE invoices SET ttc = 1 WHERE id = $1',
      `UPDATE invoices SET document = document || '{"ttc": "1.00"}' WHERE id = $1`,
      `UPDATE invoices SET number = 'FA-2026-9999' WHERE id = $1`,
      `UPDATE invoices SET hash = 'x' WHERE id = $1`,
      `UPDATE invoices SET state = 'draft' WHERE id = $1`,
      `UPDATE invoices SET state = 'discarded' WHERE id = $1`,
      `UPDATE invoices SET due_on = '2030-01-01', state = 'paid' WHERE id = $1`,
    ]
    for (const sql of attempts)
      await expect(postgres.pool.query(sql, [id]), sql).rejects.toThrow(/immutable|cannot become|violates/)
    await expect(postgres.pool.query('TRUNCATE invoices CASCADE')).rejects.toThrow(/never changed/)
    await expect(
      postgres.pool.query(`UPDATE number_series SET last = last + 2 WHERE legal_entity = 'frozen'`),
    ).rejects.toThrow(/by one/)
    await expect(postgres.pool.query(`DELETE FROM number_series WHERE legal_entity = 'frozen'`)).rejects.toThrow(
      /by one/,
    )
    const after = await invoicing.get(id!)
    expect([after.hash, hashOf(after.invoice)]).toEqual([hash, hash])
    await expect(invoicing.discard(id!)).rejects.toThrow(/^immutable: .*credit_note$/)
    expect((await invoicing.markPaid(id!)).hash).toBe(hash)
  })

  test(`a correction is a credit note of its own series; the invoice keeps its text ${promises('invoice:issued-never-changes')}`, async () => {
    const [whole, parts] = await drafts('credited', 2)
    const issued = await invoicing.finalise(whole!)
    const note = await invoicing.credit(whole!)
    expect(note.invoice).toMatchObject({
      kind: 'credit_note',
      number: 'AV-2026-0001',
      refersTo: { id: whole, number: 'FA-2026-0001' },
      ht: '-247.50',
      tva: '-44.55',
      ttc: '-292.05',
    })
    expect(await invoicing.get(whole!)).toMatchObject({ state: 'credited', hash: issued.hash })
    await expect(invoicing.credit(whole!)).rejects.toThrow(/credited cannot be credited/)

    await invoicing.finalise(parts!)
    expect((await invoicing.credit(parts!, '92.05')).invoice).toMatchObject({ number: 'AV-2026-0002', ttc: '-92.05' })
    await expect(invoicing.credit(parts!, '200.01')).rejects.toThrow(/exceeds_creditable: 200\.00/)
    const rest = await invoicing.credit(parts!)
    expect([rest.invoice.number, rest.invoice.ttc]).toEqual(['AV-2026-0003', '-200.00'])
    expect((await invoicing.get(parts!)).state).toBe('credited')
  })

  test('a draft may be discarded, and then its period drafted again', async () => {
    const [id] = await drafts('dropped', 1)
    const { invoice } = await invoicing.discard(id!)
    await expect(invoicing.finalise(id!)).rejects.toThrow(/discarded cannot become finalised/)
    const next = await invoicing.draft({ ...invoice, id: invoicing.newId() })
    expect([next.state, next.invoice.id === id]).toEqual(['draft', false])
    expect(await countersOf('dropped')).toEqual([])
  })
})

describe('late usage', () => {
  const april = { from: march.to, to: Date.UTC(2026, 4, 1) }
  const byPeriod =
    (quantities: Readonly<Record<number, Readonly<Record<string, string>>>>): UsageAtCut =>
    (request) =>
      usageOf(quantities[request.period.from] ?? {})(request)

  test('fifty verifications after the closing of March => April bills 119.00 more, by the tiers and prices of March', async () => {
    const id = 'late'
    await catalog.putContract({ ...seedContracts[1]!, id, items: [{ id: `${id}/1`, plan: 'oid-business' }] })
    const first = await closePeriod(closing(usageOf(marchQuantities)), { contract: id, at: march.from })
    const time = new HandClock(april.to + 3_600_000)
    const late = { ...marchQuantities, kyc_verification: '112', certificate_enrolled: '27' }
    const usage = byPeriod({ [march.from]: late, [april.from]: { kyc_verification: '51' } })
    const second = await closePeriod({ ...closing(usage), clock: time }, { contract: id, at: april.from })
    const { invoice } = second.invoice!
    expect(invoice.lines.map((line) => [line.type, line.metric, line.quantity, line.amount])).toEqual([
      ['fee', null, '1', '200.00'],
      ['usage', 'kyc_verification', '51', '2.50'],
      ['regularisation', 'kyc_verification', '50', '119.00'],
    ])
    expect(invoice.lines[2]!.label.fr).toBe('Régularisation mars 2026 — vérifications KYC')
    expect(invoice.lines[2]!.explanation.fr.replaceAll('\u00a0', ' ')).toBe(
      '112 vérifications KYC au lieu de 62 : 149,00 € − 30,00 € déjà facturés = 119,00 €',
    )
    const unpriced = invoice.notices.filter((notice) => notice.code === 'overage_unpriced')
    expect(unpriced.map((notice) => [notice.metric, notice.quantity])).toEqual([['certificate_enrolled', '2']])
    expect([invoice.ht, invoice.ttc]).toEqual(['321.50', '379.37'])
    expect((await invoicing.get(first.invoice!.invoice.id)).hash).toBe(first.invoice!.hash)

    // Counted again by May: nothing new of March, so nothing more is billed; one less of April comes back.
    const may = new HandClock(Date.UTC(2026, 5, 1, 1))
    const again = byPeriod({ [march.from]: late, [april.from]: { kyc_verification: '50' } })
    const third = await closePeriod({ ...closing(again), clock: may }, { contract: id, at: april.to })
    expect(third.invoice!.invoice.lines.map((line) => [line.type, line.amount])).toEqual([
      ['fee', '200.00'],
      ['regularisation', '-2.50'],
    ])
  })

  test('two later periods closed at once bill the late usage once', async () => {
    const id = 'late-raced'
    await catalog.putContract({ ...seedContracts[1]!, id, items: [{ id: `${id}/1`, plan: 'oid-business' }] })
    await closePeriod(closing(usageOf(marchQuantities)), { contract: id, at: march.from })
    const time = new HandClock(Date.UTC(2026, 5, 1, 1))
    const usage = byPeriod({ [march.from]: { ...marchQuantities, kyc_verification: '112' } })
    const both = await Promise.all(
      [april.from, april.to].map((at) => closePeriod({ ...closing(usage), clock: time }, { contract: id, at })),
    )
    const billed = both.flatMap((one) => one.invoice!.invoice.lines.filter((line) => line.type === 'regularisation'))
    expect(billed.map((line) => line.amount)).toEqual(['119.00'])
  })

  test('a discarded draft is counted anew under a new cut, unless a later period stands on it', async () => {
    const id = 'discarded'
    await catalog.putContract({ ...seedContracts[1]!, id, items: [{ id: `${id}/1`, plan: 'oid-business' }] })
    const names: string[] = []
    const noted =
      (quantities: Readonly<Record<string, string>>): UsageAtCut =>
      (request) => {
        names.push(request.closing)
        return usageOf(quantities)(request)
      }
    const draft = await closePeriod(closing(noted(marchQuantities)), { contract: id, at: march.from, finalise: false })
    await invoicing.discard(draft.invoice!.invoice.id)
    const more = { ...marchQuantities, kyc_verification: '63' }
    const redone = await closePeriod(closing(noted(more)), { contract: id, at: march.from, finalise: false })
    expect(redone.invoice!.invoice.ht).toBe('250.00')
    expect(names).toEqual([`${id}/${march.from}`, `${id}/${march.from}#2`])
    const time = new HandClock(april.to + 3_600_000)
    await closePeriod({ ...closing(usageOf(more)), clock: time }, { contract: id, at: april.from })
    await expect(invoicing.discard(redone.invoice!.invoice.id)).rejects.toThrow(/later period/)
    expect((await invoicing.finalise(redone.invoice!.invoice.id)).state).toBe('finalised')
  })
})
