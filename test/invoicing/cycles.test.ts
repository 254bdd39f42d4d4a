/**
 * What of a contract stands on which invoice: cycles of contract and fee, fees in advance with a change of plan behind them,
 * suspensions, trials, and kinds of items. On a real PostgreSQL; the usage is given.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import { changePlan } from '../../src/catalog/part.js'
import { loadSeeds, seedContracts } from '../../src/catalog/seeds.js'
import { HandClock } from '../../src/clock.js'
import { type CloseOptions, closePeriod } from '../../src/invoicing/close.js'
import { type CountRequest, closeMany } from '../../src/invoicing/close-many.js'
import { openDraftPool } from '../../src/invoicing/draft-batch.js'
import { type Invoice, Invoicing } from '../../src/invoicing/invoicing.js'
import { usageOf } from './march.js'
import { openTestPostgres, type TestPostgres } from './postgres.js'

const clock = new HandClock('2028-06-01T00:00:00Z')
const plain = (text: string): string => text.replaceAll('\u00a0', ' ')
let postgres: TestPostgres
let catalog: Catalog
let options: CloseOptions

beforeAll(async () => {
  postgres = await openTestPostgres()
  catalog = await openCatalog({ postgres: postgres.pool, clock })
  await loadSeeds(catalog)
  for (const cycle of ['monthly', 'quarterly', 'yearly', 'weekly']) {
    const rule = { rule_id: `fee-${cycle}`, type: 'flat_fee', amount: '120', currency: 'EUR', billing_cycle: cycle }
    await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
    await catalog.putPlan({ key: cycle, product: 'OID', name: 'Accès', feeRule: `fee-${cycle}`, metrics: [] })
  }
  const invoicing = new Invoicing({ postgres: postgres.pool, clock })
  options = { postgres: postgres.pool, clock, catalog, invoicing, usageAtCut: usageOf({ kyc_verification: '62' }) }
}, 120_000)
afterAll(async () => postgres?.close())

const put = (id: string, plan: string, changes: object = {}) =>
  catalog.putContract({ ...seedContracts[1]!, id, items: [{ id, plan }], ...changes })
const close = async (contract: string, at: number, finalise = true): Promise<Invoice | null> =>
  (await closePeriod(options, { contract, at, finalise })).invoice?.invoice ?? null
const shown = (invoice: Invoice | null): string[][] =>
  (invoice?.lines ?? []).map((line) => [plain(line.label.fr), line.amount])
const day = (text: string): number => Date.parse(`${text}T00:00:00Z`)
const by = { reason: 'essai', actor: 'test' }

describe('cycles', () => {
  test('a quarter with a monthly fee has three, with a quarterly one it has its days as its name', async () => {
    await put('q-months', 'monthly', { cycle: 'quarterly' })
    expect(shown(await close('q-months', day('2026-02-10')))).toEqual([
      ['Accès — abonnement, janvier 2026', '120.00'],
      ['Accès — abonnement, février 2026', '120.00'],
      ['Accès — abonnement, mars 2026', '120.00'],
    ])
    await put('q', 'quarterly', { cycle: 'quarterly' })
    expect(shown(await close('q', day('2026-02-10')))).toEqual([
      ['Accès — abonnement, du 01/01/2026 au 31/03/2026', '120.00'],
    ])
    await put('w', 'weekly', { cycle: 'weekly' })
    expect(shown(await close('w', day('2026-01-10')))).toEqual([
      ['Accès — abonnement, du 08/01/2026 au 14/01/2026', '120.00'],
    ])
  })

  test('a yearly fee on a monthly contract is due once a year: with its last month, or ahead of its first', async () => {
    await put('y', 'yearly')
    const year: string[][] = []
    for (let month = 0; month < 12; month += 1) year.push(...shown(await close('y', Date.UTC(2026, month, 10))))
    expect(year).toEqual([['Accès — abonnement, du 01/01/2026 au 31/12/2026', '120.00']])
    await put('y-ahead', 'yearly', { fees: 'in_advance' })
    expect(shown(await close('y-ahead', day('2025-12-10')))).toEqual(year)
    expect(shown(await close('y-ahead', day('2026-01-10')))).toEqual([])
    // One that ends before its year is over pays the part with its last month.
    await put('y-ended', 'yearly', { end: '2026-03-31' })
    const ended = [0, 1, 2].map((month) => close('y-ended', Date.UTC(2026, month, 10)))
    expect((await Promise.all(ended)).flatMap(shown).map(([, amount]) => amount)).toEqual(['29.59'])
  })

  test('anchored on 31 January: periods clamp to the month and come back', async () => {
    await put('anchor', 'monthly', { start: '2026-01-31' })
    const first = await close('anchor', day('2026-02-10'))
    expect([first!.period.firstDay, first!.period.lastDay, first!.ht]).toEqual(['2026-01-31', '2026-02-27', '120.00'])
    const second = await close('anchor', day('2026-03-10'))
    expect([second!.period.firstDay, second!.period.lastDay]).toEqual(['2026-02-28', '2026-03-30'])
    // What is no month of the calendar has no month's name.
    expect(shown(second)).toEqual([['Accès — abonnement, du 28/02/2026 au 30/03/2026', '120.00']])
  })
})

describe('fees in advance', () => {
  test('the first invoice is before the first day, usage follows, and an upgrade is a credit and a charge', async () => {
    await put('ahead', 'oid-business', { fees: 'in_advance' })
    const opening = await close('ahead', day('2025-12-10'))
    expect([shown(opening), opening!.usage]).toEqual([[['Business — abonnement, janvier 2026', '200.00']], []])
    expect(shown(await close('ahead', day('2026-01-10')))).toEqual([
      ['Business — vérifications KYC, janvier 2026', '30.00'],
      ['Business — abonnement, février 2026', '200.00'],
    ])
    await close('ahead', day('2026-02-10'))
    // 16 of 31 days are left.
    await catalog.putContract(
      changePlan(catalog.book().contractOf('ahead'), { item: 'ahead', plan: 'oid-enterprise', from: '2026-03-16' }),
    )
    const march = await close('ahead', day('2026-03-10'))
    expect(shown(march).filter(([label]) => label!.includes('abonnement'))).toEqual([
      ['Business — abonnement, mars 2026 (correction)', '-103.23'],
      ['Enterprise — abonnement, mars 2026', '258.06'],
      ['Enterprise — abonnement, avril 2026', '500.00'],
    ])
    expect(plain(march!.lines.find((line) => line.amount === '-103.23')!.explanation.fr)).toBe(
      'du 01/03/2026 au 15/03/2026 : 200,00 € × 15 jours sur 31 = 96,77 €, au lieu de 200,00 € facturés d’avance : -103,23 €',
    )
  })

  test('cancelled after it was billed ahead: a credit note on the invoice that billed it, in words, once, and nothing follows', async () => {
    await put('gone', 'monthly', { fees: 'in_advance' })
    await put('gone-batch', 'monthly', { fees: 'in_advance', tenant: 'bicici' })
    const ahead = await close('gone', day('2025-12-10'))
    await close('gone-batch', day('2025-12-10'))
    for (const id of ['gone', 'gone-batch']) await catalog.moveContract(id, 'cancelled', { ...by, on: '2026-01-21' })
    const draft = (await close('gone', day('2026-01-10'), false))!
    expect([draft.kind, draft.refersTo]).toEqual([
      'credit_note',
      { id: ahead!.id, number: ahead!.number, issuedOn: ahead!.issuedOn },
    ])
    // Dropped and made again it is another; two at once make one.
    await options.invoicing.discard(draft.id)
    const notes = await Promise.all([0, 1, 2].map(() => close('gone', day('2026-01-10'))))
    expect(new Set(notes.map((note) => note!.number)).size).toBe(1)
    const note = notes[0]!
    expect(note.number).toMatch(/^AV-/)
    expect(shown(note)).toEqual([['Accès — abonnement, janvier 2026 (correction)', '-38.71']])
    expect(plain(note.lines[0]!.explanation.fr)).toBe(
      'du 01/01/2026 au 21/01/2026 : 120,00 € × 21 jours sur 31 = 81,29 €, au lieu de 120,00 € facturés d’avance : -38,71 €',
    )
    expect((await options.invoicing.list({ contract: 'gone' })).map(({ state }) => state).sort()).toEqual([
      'discarded',
      'finalised',
      'finalised',
    ])
    await expect(close('gone', day('2026-02-10'))).rejects.toThrow(/ended on 2026-01-21/)
  })

  test('the batch makes the credit note too; with nothing to credit it stays a draft for a person', async () => {
    const pool = openDraftPool(1)
    const count = async (requests: readonly CountRequest[]) =>
      Promise.all(
        requests.map(({ tenant, items, period }) =>
          options.usageAtCut({ closing: 'batch', contract: '', tenant, items, period }),
        ),
      )
    const openCut = async () => ({ count, release: async () => undefined })
    // A customer of its own each.
    const batch = (tenant: string) => closeMany({ ...options, pool, openCut }, { at: day('2026-01-10'), tenant })
    try {
      expect(await batch('bicici')).toMatchObject({ due: 1, issued: 1, failed: 0 })
      const all = await options.invoicing.list({ contract: 'gone-batch' })
      expect(all.map(({ invoice }) => [invoice.kind, invoice.ht]).sort()).toEqual([
        ['credit_note', '-38.71'],
        ['invoice', '120.00'],
      ])
      await put('credited', 'monthly', { fees: 'in_advance', tenant: 'nsia-assurances' })
      const ahead = await close('credited', day('2025-12-10'))
      await options.invoicing.credit(ahead!.id)
      await catalog.moveContract('credited', 'cancelled', { ...by, on: '2026-01-21' })
      expect(await batch('nsia-assurances')).toMatchObject({ due: 1, failed: 1 })
      expect((await close('credited', day('2026-01-10'), false))!.kind).toBe('invoice')
    } finally {
      await pool.close()
    }
  })
})

describe('states', () => {
  test('suspended for 10 days: the fee without them, in words, or whole by policy; usage is billed', async () => {
    for (const suspension of ['pauses_fees', 'bills_fees']) {
      await put(suspension, 'oid-business', { suspension })
      await catalog.moveContract(suspension, 'suspended', { ...by, on: '2026-03-10' })
      await catalog.moveContract(suspension, 'active', { ...by, on: '2026-03-20' })
    }
    const paused = await close('pauses_fees', day('2026-03-10'))
    expect(shown(paused)).toEqual([
      ['Business — abonnement, mars 2026', '135.48'],
      ['Business — vérifications KYC, mars 2026', '30.00'],
    ])
    expect(plain(paused!.lines[0]!.explanation.fr)).toBe(
      'du 01/03/2026 au 31/03/2026 : 200,00 € × 21 jours sur 31 (sans 10 suspendus) = 135,48 €',
    )
    expect((await close('bills_fees', day('2026-03-10')))!.lines[0]!.amount).toBe('200.00')
    expect((await catalog.history('pauses_fees')).map((one) => [one.from, one.to, one.on, one.reason])).toEqual([
      ['active', 'suspended', '2026-03-10', 'essai'],
      ['suspended', 'active', '2026-03-20', 'essai'],
    ])
  })

  test('an option is not due either while its contract is suspended, unless its policy says so', async () => {
    const rule = { rule_id: 'option', type: 'flat_fee', amount: '31', currency: 'EUR' }
    await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
    const addOns = [
      { name: 'option', rule: 'option' },
      { name: 'second half', rule: 'option', from: '2026-03-16' },
      { name: 'all of it suspended', rule: 'option', from: '2026-03-11', until: '2026-03-12' },
      { name: 'set up', rule: 'option', once: true, from: '2026-03-12' },
    ]
    const amounts = async (suspension: string) => {
      const id = `option-${suspension}`
      await put(id, 'monthly', { suspension, items: [{ id, plan: 'monthly', addOns }] })
      await catalog.moveContract(id, 'suspended', { ...by, on: '2026-03-10' })
      await catalog.moveContract(id, 'active', { ...by, on: '2026-03-20' })
      return (await close(id, day('2026-03-10')))!.lines.filter((line) => line.type === 'add_on')
    }
    const paused = await amounts('pauses_fees')
    expect(paused.map((line) => line.amount)).toEqual(['21.00', '12.00', '31.00'])
    expect(plain(paused[0]!.explanation.fr)).toBe(
      'du 01/03/2026 au 31/03/2026 : 31,00 € × 21 jours sur 31 (sans 10 suspendus) = 21,00 €',
    )
    expect((await amounts('bills_fees')).map((line) => line.amount)).toEqual(['31.00', '16.00', '2.00', '31.00'])
  })

  test('a part of a fee in euro is billed in francs by one rounding', async () => {
    const rule = { rule_id: 'cents', type: 'flat_fee', amount: '0.98', currency: 'EUR' }
    await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
    await catalog.putPlan({ key: 'cents', product: 'OID', name: 'Accès', feeRule: 'cents', metrics: [] })
    await catalog.putCustomer({
      ...catalog.book().customers.get(seedContracts[1]!.tenant)!,
      tenant: 'francs',
      currency: 'XOF',
    })
    const items = [
      { id: 'half', plan: 'cents', from: '2026-04-16', addOns: [{ name: 'option', rule: 'cents', quantity: '3' }] },
    ]
    await catalog.putContract({ ...seedContracts[1]!, id: 'half', tenant: 'francs', items })
    const invoice = await close('half', day('2026-04-20'))
    // 0.49 × 655.957 = 321.42, where half of 643 would be 321.5; 1.47 × 655.957 = 964.26, half of 1,929 is 964.5.
    expect(invoice!.lines.map((line) => line.amount)).toEqual(['321', '964'])
    expect(plain(invoice!.lines[0]!.explanation.fr)).toMatch(
      /^du 16\/04\/2026 au 30\/04\/2026 : 0,98 € × 15 jours sur 30 ; 1 EUR = 655,957 XOF : 321 /,
    )
  })

  test('a trial is free; converted on the 11th it pays 21 of 31 days', async () => {
    await put('tried', 'oid-business', { state: 'trial', trial: { start: '2026-02-25', graceDays: 7 } })
    await expect(close('tried', day('2026-02-10'))).rejects.toThrow(/is trial, nothing of this period is billed/)
    await catalog.moveContract('tried', 'active', { ...by, on: '2026-03-11' })
    await expect(close('tried', day('2026-02-10'))).rejects.toThrow(/nothing of this period/)
    const march = await close('tried', day('2026-03-10'))
    expect(march!.lines[0]!.amount).toBe('135.48')
    expect(march!.lines[1]!.period.from).toBe(day('2026-03-11'))
  })
})

test('kinds of items: the fee alone, usage alone, both when there is usage, the fee once', async () => {
  const amounts = async (kind: string, at: string, usage = '62') => {
    options = { ...options, usageAtCut: usageOf({ kyc_verification: usage }) }
    return (await close(kind, day(at)))?.lines.map((line) => [line.type, line.amount]) ?? null
  }
  for (const kind of ['fixed', 'usage', 'usage_triggered', 'once'])
    await put(kind, 'oid-business', { items: [{ id: kind, plan: 'oid-business', kind, from: '2026-03-01' }] })
  await put('unused', 'oid-business', { items: [{ id: 'unused', plan: 'oid-business', kind: 'usage_triggered' }] })
  expect(await amounts('fixed', '2026-03-10')).toEqual([['fee', '200.00']])
  expect(await amounts('usage', '2026-03-10')).toEqual([['usage', '30.00']])
  expect(await amounts('usage_triggered', '2026-03-10')).toEqual([
    ['fee', '200.00'],
    ['usage', '30.00'],
  ])
  expect(await amounts('unused', '2026-03-10', '0')).toBeNull()
  expect(await amounts('once', '2026-03-10')).toEqual([['add_on', '200.00']])
  expect(await amounts('once', '2026-04-10')).toBeNull()
})
