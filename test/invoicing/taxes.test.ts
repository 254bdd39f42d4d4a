/** Taxes by country and category, and prices in one currency billed in another at the fixed parity. On a real PostgreSQL. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import { parseCustomer } from '../../src/catalog/definition.js'
import { loadSeeds, seedContracts, seedCustomers } from '../../src/catalog/seeds.js'
import { taxOf, taxTable } from '../../src/catalog/tax-table.js'
import { HandClock } from '../../src/clock.js'
import { type CloseOptions, closePeriod } from '../../src/invoicing/close.js'
import { type Invoice, Invoicing } from '../../src/invoicing/invoicing.js'
import { verifyInvoice } from '../../src/invoicing/verify.js'
import { marchQuantities, usageOf } from './march.js'
import { openTestPostgres, type TestPostgres } from './postgres.js'

const clock = new HandClock('2026-05-02T00:00:00Z')
const MARCH = Date.UTC(2026, 2, 10)
const plain = (text: string): string => text.replaceAll('\u00a0', ' ')
let postgres: TestPostgres
let catalog: Catalog
let options: CloseOptions

beforeAll(async () => {
  postgres = await openTestPostgres()
  catalog = await openCatalog({ postgres: postgres.pool, clock })
  await loadSeeds(catalog)
  const invoicing = new Invoicing({ postgres: postgres.pool, clock })
  options = { postgres: postgres.pool, clock, catalog, invoicing, usageAtCut: usageOf(marchQuantities) }
}, 120_000)
afterAll(async () => postgres?.close())

async function invoiceOf(tenant: string, customer: object, changes: object = {}): Promise<Invoice> {
  await catalog.putCustomer({ ...seedCustomers[0]!, tenant, ...customer })
  await catalog.putContract({
    ...seedContracts[1]!,
    id: tenant,
    tenant,
    items: [{ id: `${tenant}/1`, plan: 'oid-business' }],
    ...changes,
  })
  return (await closePeriod(options, { contract: tenant, at: MARCH })).invoice!.invoice
}

describe('the table', () => {
  test('rates of Côte d’Ivoire, Senegal and France, and what is not taxed', () => {
    const rates = (country: string): string[][] =>
      taxTable()
        .filter((row) => row.country === country && row.rate !== '0')
        .map(({ category, rate, code }) => [category, rate, code])
    expect(rates('CI')).toEqual([
      ['standard', '18', 'S'],
      ['reduced', '9', 'S'],
    ])
    expect(rates('SN')).toEqual([['standard', '18', 'S']])
    expect(rates('FR').map(([, rate]) => rate)).toEqual(['20', '10', '5.5', '2.1'])
    expect(taxOf('CI', 'export')).toEqual({ rate: '0', code: 'G' })
    expect(() => taxOf('SN', 'reduced')).toThrow(/no rate is known for reduced in SN/)
    expect(() => taxOf('constructor', 'standard')).toThrow(/no rate is known/)
  })

  test('a customer has the rate of its category; without tax it needs the reason', () => {
    const { taxRate: _, taxCategory: __, ...base } = seedCustomers[0]!
    const of = (changes: object) => parseCustomer({ ...base, ...changes })
    expect([of({}).taxRate, of({}).taxCategory]).toEqual(['18', 'S'])
    expect(of({ country: 'FR', taxCategory: 'super_reduced' }).taxRate).toBe('2.1')
    expect(of({ taxCategory: 'reverse_charge', taxReason: 'Autoliquidation' })).toMatchObject({
      taxRate: '0',
      taxCategory: 'AE',
      registrations: { Exonération: 'Autoliquidation' },
    })
    expect(() => of({ taxCategory: 'exempt' })).toThrow(/taxReason: exempt needs the reason/)
    expect(() => of({ country: 'TG' })).toThrow(/no rate is known for standard in TG/)
  })

  test('lint tells a rate that the country does not have', async () => {
    await catalog.putCustomer({ ...seedCustomers[0]!, tenant: 'odd', country: 'FR', taxRate: '18' })
    expect(catalog.lint()).toContainEqual({
      code: 'tax_rate_unknown',
      at: 'customer odd',
      message: '18 % is no rate of FR',
    })
  })
})

test('products of two categories: tax per rate, and a discount that comes off each by its share', async () => {
  await catalog.putProduct({ key: 'Presse', name: 'Presse', taxCategory: 'reduced' })
  await catalog.putPlan({
    key: 'presse',
    product: 'Presse',
    name: 'Presse',
    feeRule: 'pricing_oid_starter_base',
    metrics: [],
  })
  const two = {
    items: [
      { id: 'a', plan: 'oid-business', kind: 'fixed' },
      { id: 'b', plan: 'presse' },
    ],
    adjustments: { discounts: [{ name: 'AMI', kind: 'amount', value: '25' }] },
  }
  const invoice = await invoiceOf('two-rates', {}, two)
  expect(invoice.lines.map((line) => [line.type, line.amount, line.taxRate])).toEqual([
    ['fee', '200.00', '18'],
    ['fee', '50.00', '9'],
    ['discount', '-20.00', '18'],
    ['discount', '-5.00', '9'],
  ])
  expect(invoice.taxes).toEqual([
    { rate: '18', base: '180.00', tax: '32.40' },
    { rate: '9', base: '45.00', tax: '4.05' },
  ])
  const exempt = await invoiceOf('two-exempt', { taxRate: '0', taxCategory: 'E', taxReason: 'ONG' }, two)
  expect([exempt.tva, new Set(exempt.lines.map((line) => line.taxRate))]).toEqual(['0.00', new Set(['0'])])
})

describe('currencies', () => {
  test('prices in euro, billed in XOF at 655.957, each line converted once, said, and verified', async () => {
    const invoice = await invoiceOf('xof', { currency: 'XOF' })
    // 200, 30 and 17.50 EUR.
    expect(invoice.lines.map((line) => line.amount)).toEqual(['131191', '19679', '11479'])
    expect(plain(invoice.lines[1]!.explanation.fr)).toBe(
      '62 kyc_verification, dont 50 inclus : 12 × 2,50 € (tranche 51 à 100) = 30,00 € ; 1 EUR = 655.957 XOF : 19 679 F CFA',
    )
    expect([invoice.ht, invoice.tva, invoice.ttc]).toEqual(['162349', '29223', '191572'])
    const again = await verifyInvoice(
      {
        postgres: postgres.pool,
        invoicing: options.invoicing,
        book: catalog.book(),
        recountData: async ({ usage }) => usage,
        recountPart: async () => null,
        recount: async ({ metric }) => {
          const [found] = await options.usageAtCut({
            closing: '',
            tenant: '',
            contract: '',
            items: [{ item: 'xof/1', metrics: [metric] }],
            period: { from: 0, to: 1 },
          })
          return found!
        },
      },
      invoice.id,
    )
    expect(again.lines.flatMap((line) => line.differences)).toEqual([])
  })

  test('two currencies without a fixed parity are refused, and lint has said so', async () => {
    await expect(invoiceOf('usd', { currency: 'USD' })).rejects.toThrow(
      /pricing_oid_business_base is in EUR, the customer is billed in USD/,
    )
    const found = catalog.lint().filter((one) => one.at === 'contract usd')
    expect(found.map((one) => one.code)).toContain('currency_of_other_customer')
    expect(found[0]!.message).toMatch(/there is no fixed parity/)
  })
})

test('the plans of the screens with their quotas and features; the one on quote has neither price nor quota', () => {
  const plans = ['starter', 'business', 'enterprise', 'custom'].map((key) => catalog.book().planOf(`oid-${key}`))
  const quota = (metric: string) => plans.map((plan) => plan.metrics.find((one) => one.metric === metric)?.included)
  expect(quota('user_active')).toEqual(['5', '20', null, undefined])
  expect(quota('kyc_verification')).toEqual(['10', '50', '200', undefined])
  expect(quota('certificate_enrolled')).toEqual(['5', '20', '100', undefined])
  expect(quota('mcp_call')).toEqual(['100', '500', '2000', undefined])
  expect(plans.map((plan) => plan.features.length)).toEqual([1, 2, 3, 8])
  expect([plans[3]!.onQuote, plans[3]!.feeRule]).toEqual([true, null])
})
