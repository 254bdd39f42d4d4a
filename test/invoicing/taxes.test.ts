/** Taxes by country and category, and prices in one currency billed in another at the fixed parity. On a real PostgreSQL. */
import { Decimal } from 'decimal.js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import { Coupons } from '../../src/catalog/coupons.js'
import { parseCustomer } from '../../src/catalog/definition.js'
import { loadSeeds, seedContracts, seedCustomers } from '../../src/catalog/seeds.js'
import { taxOf, taxTable } from '../../src/catalog/tax-table.js'
import { HandClock } from '../../src/clock.js'
import { type CloseOptions, closePeriod } from '../../src/invoicing/close.js'
import { draftInvoice } from '../../src/invoicing/draft.js'
import { type Drafted, draftBatch } from '../../src/invoicing/draft-batch.js'
import { FleetRating } from '../../src/invoicing/fleet.js'
import { type Invoice, Invoicing } from '../../src/invoicing/invoicing.js'
import { unpackJson } from '../../src/invoicing/pack.js'
import { shadowPeriod } from '../../src/invoicing/shadow.js'
import { verifyInvoice } from '../../src/invoicing/verify.js'
import { marchQuantities, usageOf } from './march.js'
import { openTestPostgres, type TestPostgres } from './postgres.js'
import { previewInvoice } from './preview.js'
import { bank, march, sampleInvoice } from './sample.js'

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
  const two = (id: string) => ({
    items: [
      { id: `${id}/a`, plan: 'oid-business', kind: 'fixed' },
      { id: `${id}/b`, plan: 'presse' },
    ],
    adjustments: { discounts: [{ name: 'AMI', kind: 'amount', value: '25' }] },
  })
  const invoice = await invoiceOf('two-rates', {}, two('two-rates'))
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
  const exempt = await invoiceOf('two-exempt', { taxRate: '0', taxCategory: 'E', taxReason: 'ONG' }, two('two-exempt'))
  expect([exempt.tva, new Set(exempt.lines.map((line) => line.taxRate))]).toEqual(['0.00', new Set(['0'])])
})

describe('prices that include tax', () => {
  const kyc = { metric: 'kyc_verification', currency: 'EUR' }
  const inclusive = { tax_behavior: 'inclusive' }

  /** Plans with tax, without, and of either kind; a reduced one with tax. */
  beforeAll(async () => {
    const rules = [
      { rule_id: 'ttc_fee', type: 'flat_fee', amount: '59', currency: 'EUR', ...inclusive },
      { rule_id: 'ttc_kyc', type: 'per_unit', unit_price: '2.95', ...kyc, ...inclusive },
      { rule_id: 'ht_kyc', type: 'per_unit', unit_price: '2.50', ...kyc },
      { rule_id: 'ttc_option', type: 'flat_fee', amount: '10', currency: 'EUR', ...inclusive },
      { rule_id: 'ttc_press', type: 'flat_fee', amount: '9.99', currency: 'EUR', ...inclusive },
      { rule_id: 'ttc_xof', type: 'flat_fee', amount: '820000', currency: 'XOF', ...inclusive },
    ]
    for (const rule of rules) await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
    await catalog.putProduct({ key: 'Presse TTC', name: 'Presse TTC', taxCategory: 'reduced' })
    const plan = (key: string, feeRule: string | null, rule: string | null, product = 'OID') =>
      catalog.putPlan({
        key,
        product,
        name: key,
        feeRule,
        metrics: rule === null ? [] : [{ metric: 'kyc_verification', included: '50', rule }],
      })
    await plan('ttc', 'ttc_fee', 'ttc_kyc')
    await plan('mixte', 'ttc_fee', 'ht_kyc')
    await plan('presse-ttc', 'ttc_press', null, 'Presse TTC')
    await plan('ttc-xof', 'ttc_xof', null)
  }, 60_000)

  const of = (id: string, plan: string, changes: object = {}, customer: object = {}): Promise<Invoice> =>
    invoiceOf(id, customer, { items: [{ id: `${id}/1`, plan }], ...changes })
  const shown = ({ lines }: Invoice) => lines.map(({ type, amount, net, taxRate }) => [type, amount, net, taxRate])
  const totals = ({ ht, tva, ttc }: Invoice) => [ht, tva, ttc]

  test('what is paid is what the prices say; HT and TVA are in it, said per line and in words', async () => {
    const invoice = await of('ttc-1', 'ttc')
    expect(shown(invoice)).toEqual([
      ['fee', '59.00', '50.00', '18'],
      ['usage', '35.40', '30.00', '18'],
    ])
    expect(totals(invoice)).toEqual(['80.00', '14.40', '94.40'])
    expect(plain(invoice.lines[1]!.explanation.fr)).toBe(
      '62 vérifications KYC, dont 50 inclus : 12 × 2,95 € = 35,40 € ; TTC, soit 30,00 € HT',
    )
    expect(plain(invoice.lines[1]!.explanation.en)).toMatch(/ = 35.40 EUR; tax included, 30.00 EUR without it$/)
  })

  test('a discount, a coupon, the cap and the minimum are with tax like the prices, unless the contract says not', async () => {
    const adjustments = {
      discounts: [
        { name: 'fidélité', kind: 'percent', value: '10' },
        { name: 'AMI', kind: 'amount', value: '5' },
      ],
      maximum: '70',
    }
    const capped = await of('ttc-cap', 'ttc', { adjustments })
    expect(shown(capped).slice(2)).toEqual([
      ['discount', '-9.44', '-8.00', '18'],
      ['discount', '-5.00', '-4.24', '18'],
      ['cap', '-9.96', '-8.44', '18'],
    ])
    expect(totals(capped)).toEqual(['59.32', '10.68', '70.00'])
    const least = await of('ttc-least', 'ttc', { adjustments: { minimum: '1000' } })
    expect([least.lines.at(-1)!.amount, ...totals(least)]).toEqual(['905.60', '847.46', '152.54', '1000.00'])
    // The cap is without tax: the line that brings down to it is too, and the sum is exact in its terms.
    const ht = await of('ttc-cap-ht', 'ttc', { taxBehavior: 'exclusive', adjustments: { maximum: '70' } })
    expect(shown(ht).at(-1)).toEqual(['cap', '-10.00', undefined, '18'])
    expect(totals(ht)).toEqual(['70.00', '12.60', '82.60'])
    await expect(of('ttc-odd', 'ttc', { taxBehavior: 'net' })).rejects.toThrow(
      /taxBehavior: one of inclusive, exclusive/,
    )
  })

  test('a coupon that is redeemed comes off what the customer sees', async () => {
    await of('ttc-coupon', 'ttc', { state: 'active' })
    const coupons = new Coupons({ postgres: postgres.pool, catalog, clock })
    await coupons.create({ code: 'DIX', name: 'Dix euros', kind: 'amount', value: '10', currency: 'EUR' })
    await coupons.redeem('DIX', 'ttc-coupon')
    const may = previewInvoice(catalog, 'ttc-coupon', { from: Date.UTC(2026, 4, 1), to: Date.UTC(2026, 5, 1) }, [
      { item: 'ttc-coupon/1', metric: 'kyc_verification', quantity: '0', cut: {}, query: '', count: 0, digest: '' },
    ])
    expect(shown(may)).toEqual([
      ['fee', '59.00', '50.00', '18'],
      ['discount', '-10.00', '-8.47', '18'],
    ])
    expect(totals(may)).toEqual(['41.53', '7.47', '49.00'])
  })

  test('with and without tax on one invoice, of one rate and of two: each its own way, one row per rate', async () => {
    const both = await of('mixed', 'mixte')
    expect(shown(both)).toEqual([
      ['fee', '59.00', '50.00', '18'],
      ['usage', '30.00', undefined, '18'],
    ])
    expect([both.taxes, ...totals(both)]).toEqual([
      [{ rate: '18', base: '80.00', tax: '14.40' }],
      '80.00',
      '14.40',
      '94.40',
    ])
    const items = (id: string) => [
      { id: `${id}/a`, plan: 'ttc', kind: 'fixed' },
      { id: `${id}/b`, plan: 'presse-ttc' },
      { id: `${id}/c`, plan: 'presse' },
    ]
    // 5 of 59 + 9.99 + 54.50 with tax; the amounts of a contract with prices of either kind are without, if it says nothing.
    const adjustments = { discounts: [{ name: 'AMI', kind: 'amount', value: '5' }] }
    const rates = await of('mixed-rates', 'ttc', { items: items('mixed-rates'), adjustments, taxBehavior: 'inclusive' })
    expect(shown(rates)).toEqual([
      ['fee', '59.00', '50.00', '18'],
      ['fee', '9.99', '9.16', '9'],
      ['fee', '50.00', undefined, '9'],
      ['discount', '-2.39', '-2.03', '18'],
      ['discount', '-2.61', '-2.39', '9'],
    ])
    expect(rates.taxes).toEqual([
      { rate: '18', base: '47.97', tax: '8.64' },
      { rate: '9', base: '56.77', tax: '5.11' },
    ])
    expect(rates.ttc).toBe('118.49')
    const unsaid = await of('mixed-unsaid', 'ttc', { items: items('mixed-unsaid'), adjustments })
    expect(shown(unsaid).slice(3)).toEqual([
      ['discount', '-2.29', undefined, '18'],
      ['discount', '-2.71', undefined, '9'],
    ])
    expect(catalog.lint()).toContainEqual({
      code: 'tax_behavior_unsaid',
      at: 'contract mixed-unsaid',
      message: expect.stringContaining('they are without'),
    })
    expect(catalog.lint()).toContainEqual({
      code: 'tax_behaviors_differ',
      at: 'plan mixte',
      message: expect.stringContaining('some of its prices are with tax'),
    })
    expect(catalog.lint().filter(({ at }) => at === 'plan ttc' || at === 'contract mixed-rates')).toEqual([])
  })

  test('who owes no tax pays the same price, all of it HT', async () => {
    for (const [id, customer] of [
      ['ttc-exempt', { taxRate: '0', taxCategory: 'E', taxReason: 'ONG' }],
      ['ttc-export', { country: 'DE', taxRate: '0', taxCategory: 'G' }],
    ] as const)
      expect(totals(await of(id, 'ttc', {}, customer))).toEqual(['94.40', '0.00', '94.40'])
  })

  test('whole francs; a price in euro with tax is converted with its tax', async () => {
    expect(totals(await of('ttc-xof-1', 'ttc-xof', {}, { currency: 'XOF' }))).toEqual(['694915', '125085', '820000'])
    // 59.00 and 35.40 EUR.
    expect(shown(await of('ttc-xof-2', 'ttc', {}, { currency: 'XOF' }))).toEqual([
      ['fee', '38701', '32797', '18'],
      ['usage', '23221', '19679', '18'],
    ])
  })

  test('parts of a period, an option, a fee of another plan that was billed ahead', async () => {
    const items = [
      {
        id: 'ttc-part',
        plan: 'ttc',
        from: '2026-03-20',
        addOns: [{ name: 'Option', rule: 'ttc_option', quantity: '1', once: false }],
      },
    ]
    expect(shown(await of('ttc-part', 'ttc', { items }))).toEqual([
      ['fee', '22.84', '19.36', '18'],
      ['add_on', '3.87', '3.28', '18'],
      ['usage', '35.40', '30.00', '18'],
    ])
    const ahead = await of('ttc-ahead', 'oid-business', { fees: 'in_advance' })
    expect(shown(ahead)[0]).toEqual(['fee', '200.00', undefined, '18'])
    const terms = catalog.terms('ttc-ahead', march)
    const billed = {
      period: march,
      items: terms.items.map((item) => ({ ...item, fees: [{ period: march, part: march }] })),
    }
    const plan = catalog.terms('ttc-1', march).items[0]!
    const now = {
      ...terms,
      items: [{ ...terms.items[0]!, plan: plan.plan, fee: plan.fee, metrics: [] }],
      billedAhead: billed,
    }
    const { ahead: _, ...moved } = now
    // With tax is not subtracted from without: the old fee is given back, the new one charged.
    expect(shown(draftInvoice('x', moved, march, []))).toEqual([
      ['fee', '-200.00', undefined, '18'],
      ['fee', '59.00', '50.00', '18'],
    ])
  })

  test('late usage: the difference of two ratings with tax; invoice and regularisation are what one invoice would be', async () => {
    const id = 'ttc-late'
    await of(id, 'ttc', { adjustments: { maximum: '120' } })
    const terms = catalog.terms(id, march)
    const used = (quantity: string) => [
      {
        item: `${id}/1`,
        metric: 'kyc_verification',
        quantity,
        cut: {},
        query: '',
        count: Number(quantity),
        digest: '',
      },
    ]
    for (const [first, then] of [
      ['62', '70'],
      ['70', '62'],
      ['62', '300'],
    ] as const) {
      const april = { from: march.to, to: Date.UTC(2026, 4, 1) }
      const late = [{ period: march, terms, billed: used(first), usage: used(then) }]
      const next = draftInvoice('n', terms, april, used('0'), late)
      expect(new Set(next.lines.map((line) => line.taxBehavior))).toEqual(new Set(['inclusive']))
      const paid = new Decimal(draftInvoice('i', terms, march, used(first)).ttc).plus(next.ttc).minus('59.00')
      expect(paid.toFixed(2)).toBe(draftInvoice('w', terms, march, used(then)).ttc)
    }
  })

  test('a version with tax follows one without with the next period, never within one', async () => {
    const rule = { rule_id: 'ht_kyc', type: 'per_unit', unit_price: '2.95', ...kyc, ...inclusive }
    const at = { version: '2.0', status: 'active' as const, effectiveFrom: Date.UTC(2026, 5, 11) }
    await expect(catalog.putPrice({ rule, ...at, takesEffect: 'event_time' })).rejects.toThrow(
      /takesEffect: tax_behavior changes with the next period/,
    )
    await catalog.putPrice({ rule, ...at })
    expect(catalog.terms('mixed', march).items[0]!.metrics[0]!.price!.taxBehavior).toBeUndefined()
    const july = { from: Date.UTC(2026, 6, 1), to: Date.UTC(2026, 7, 1) }
    expect(catalog.terms('mixed', july).items[0]!.metrics[0]!.price!.taxBehavior).toBe('inclusive')
  })

  test('drafted many at a time it is the same document', async () => {
    await of('ttc-batch', 'ttc', { adjustments: { maximum: '70' } })
    const terms = catalog.terms('ttc-batch', march)
    const usage = [
      { item: 'ttc-batch/1', metric: 'kyc_verification', quantity: '62', cut: {}, query: '', count: 62, digest: '' },
    ]
    const { results, bytes } = draftBatch([{ id: 'b', order: 1, terms, period: march, usage, notices: [] }])
    const drafted = results[0] as Drafted
    const [from, length] = drafted.document!
    const document = unpackJson(Buffer.from(bytes.subarray(from, from + length)))
    expect(document).toEqual(draftInvoice('b', terms, march, usage))
    expect([drafted.ht, drafted.tva, drafted.ttc]).toEqual(['59.32', '10.68', '70.00'])
  })

  test('a fleet, packs and calculated amounts are with tax as the prices are', async () => {
    await of('ttc-fleet', 'ttc')
    const base = catalog.terms('ttc-fleet', march)
    const [item] = base.items
    const items = base.contract.items.map((one) => ({ ...one, fleet: { months: 12 } }))
    const terms = { ...base, contract: { ...base.contract, items } }
    const fleet = new FleetRating(terms, item!, march)
    const used = new Map([['kyc_verification', { quantity: '62', events: 62, data: null }]])
    for (const id of ['o1', 'o2', 'o3']) fleet.add({ id, subject: id, covers: march, usage: used })
    const proof = { item: item!.item, cut: {}, query: '', count: 0, digest: '' }
    const invoice = draftInvoice('f', terms, march, [
      ...fleet.charges().map((charge) => ({ ...proof, ...charge })),
      { ...proof, metric: 'forfait', quantity: '11.80', charge: true as const },
    ])
    expect(shown(invoice)).toEqual([
      ['fee', '177.00', '150.00', '18'],
      ['usage', '106.20', '90.00', '18'],
      ['usage', '11.80', '10.00', '18'],
    ])
    const purchases = [{ item: item!.item, pack: 'p', name: 'Pack', amount: '23.60' }]
    const sold = draftInvoice('p', { ...base, items: [{ ...item!, metrics: [] }] }, march, [], [], [], {
      fundings: [],
      purchases,
    })
    expect(shown(sold)).toEqual([
      ['fee', '59.00', '50.00', '18'],
      ['add_on', '23.60', '20.00', '18'],
    ])
  })

  test('a plan with tax against one without, over the same usage: both HT', async () => {
    const [before, after] = ['mixed', 'ttc-1'].map((id) => catalog.terms(id, march).items[0]!)
    const terms = catalog.terms('mixed', march)
    const usage = [
      { item: 'mixed/1', metric: 'kyc_verification', quantity: '62', cut: {}, query: '', count: 62, digest: '' },
    ]
    const side = (item: typeof before) => ({ terms: { ...terms, items: [{ ...item!, item: 'mixed/1' }] }, usage })
    expect(shadowPeriod(side(before), side(after), march)).toMatchObject({ difference: '0.00', lines: [] })
  })
})

describe('currencies', () => {
  test('a price in euro below the cent, billed in XOF => the exact amount is converted, and rounded once', () => {
    const price = {
      metric: 'sms',
      limit: '0',
      quantity: '1345',
      rule: { rule_id: 'sms', type: 'per_unit', unit_price: '0.0035' },
    }
    const of = (currency: string) =>
      sampleInvoice({ customer: { ...bank, currency }, priceCurrency: 'EUR', metrics: [price] }).lines[1]!
    expect(of('EUR')).toMatchObject({ exact: '4.7075', amount: '4.71' })
    // 4.7075 × 655.957 = 3 087.92; from 4.71 it would be 3 089.56.
    expect(of('XOF').amount).toBe('3088')
    expect(plain(of('XOF').explanation.fr)).toMatch(
      /= 4,71 € \(4,7075 € arrondi au plus proche\) ; 1 EUR = 655,957 XOF : 3 088 F CFA$/,
    )
  })

  test('prices in euro, billed in XOF at 655.957, each line converted once, said, and verified', async () => {
    const invoice = await invoiceOf('xof', { currency: 'XOF' })
    // 200, 30 and 17.50 EUR.
    expect(invoice.lines.map((line) => line.amount)).toEqual(['131191', '19679', '11479'])
    expect(plain(invoice.lines[1]!.explanation.fr)).toBe(
      '62 vérifications KYC, dont 50 inclus : 12 × 2,50 € (tranche 51 à 100) = 30,00 € ; 1 EUR = 655,957 XOF : 19 679 F CFA',
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
