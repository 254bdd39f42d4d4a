/**
 * Any invoice as a document: what the lines say sums to the totals, tax is reckoned on the sum of each rate, what is credited by an
 * amount with tax gives that amount back to the last unit; all recomputed from the XML by the independent reader.
 */
import { Decimal } from 'decimal.js'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Customer } from '../../src/catalog/definition.js'
import { toCii } from '../../src/invoicing/cii.js'
import { creditedBy, draftCreditNote } from '../../src/invoicing/credit.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { opposite } from '../../src/invoicing/state.js'
import { taxByRate } from '../../src/rating/tax.js'
import { promises } from '../promises.js'
import { all, amountAt, checkRules, LINE, readXml, SETTLEMENT, SUM } from './en16931.js'
import { faultsOf } from './published.js'
import { bank, frenchSeller, ivorySeller, sampleInvoice } from './sample.js'

const decimal = (max: number, places: number) =>
  fc.integer({ min: 0, max: max * 10 ** places }).map((n) => new Decimal(n).div(10 ** places).toFixed())
const price = decimal(900, 4)
const rules = fc.oneof(
  fc.record({ type: fc.constant('per_unit'), unit_price: price }),
  fc.record({
    type: fc.constant('package'),
    package_size: fc.constantFrom('1', '7', '10'),
    package_price: decimal(200, 2),
  }),
  fc.record({ type: fc.constant('percentage'), rate: decimal(30, 2), fixed_per_event: decimal(2, 3) }),
  fc.tuple(fc.constantFrom('tiered', 'volume'), price, price, price, decimal(20, 2)).map(([type, a, b, c, flat]) => ({
    type,
    tiers: [
      { from: 1, to: 10, unit_price: a },
      { from: 11, to: 500, unit_price: b, flat_fee: flat },
      { from: 501, to: null, unit_price: c },
    ],
  })),
)
const metrics = fc
  .array(fc.tuple(fc.constantFrom('0', '10', '500'), decimal(3_000, 3), rules), { minLength: 1, maxLength: 5 })
  .map((some) =>
    some.map(([limit, quantity, rule], i) => ({
      metric: `m${i}`,
      limit: 'tiers' in rule ? '0' : limit,
      quantity,
      rule: { rule_id: `r${i}`, ...rule },
    })),
  )
const customers = fc
  .record({
    currency: fc.constantFrom('EUR', 'XOF'),
    taxRate: fc.constantFrom('18', '9', '20', '5.5', '0'),
    language: fc.constantFrom('fr' as const, 'en' as const),
  })
  .map((one): Customer => ({ ...bank, ...one }))
const invoices = fc
  .record({
    customer: customers,
    seller: fc.constantFrom(ivorySeller, frenchSeller),
    metrics,
    fee: fc.integer({ min: 1, max: 99_999 }).map(String),
    items: fc.integer({ min: 1, max: 3 }),
  })
  .map((options) => sampleInvoice(options))

/** Rounded half away from zero, as money is. */
const money = (value: Decimal, { currency }: Invoice): Decimal =>
  value.toDecimalPlaces(currency === 'XOF' ? 0 : 2, Decimal.ROUND_HALF_UP)

test(`every rule holds of any invoice, and its sums are those of its lines ${promises('rating:lines-sum-to-total')}`, async () => {
  await fc.assert(
    fc.asyncProperty(invoices, async (invoice) => {
      const xml = toCii(invoice)
      const root = readXml(xml)
      checkRules(root)
      expect(await faultsOf(xml, invoice.currency === 'XOF')).toEqual([])
      const lines = all(root, LINE).map((line) =>
        amountAt(line, 'SpecifiedLineTradeSettlement/SpecifiedTradeSettlementLineMonetarySummation/LineTotalAmount'),
      )
      const ht = lines.reduce((sum, amount) => sum.plus(amount), new Decimal(0))
      expect(new Decimal(invoice.ht).eq(ht)).toBe(true)
      const taxes = all(root, `${SETTLEMENT}/ApplicableTradeTax`)
      const tva = taxes.reduce((sum, tax) => sum.plus(amountAt(tax, 'CalculatedAmount')), new Decimal(0))
      expect(money(ht.times(invoice.customer.taxRate).div(100), invoice).eq(tva)).toBe(true)
      expect(amountAt(root, `${SUM}/GrandTotalAmount`).eq(ht.plus(tva))).toBe(true)
      expect([invoice.tva, invoice.ttc].map(Number)).toEqual([tva.toNumber(), ht.plus(tva).toNumber()])
    }),
    { numRuns: 300 },
  )
})

test('credited by amounts with tax, in any parts => TVA is TTC − HT of each, and together they are the invoice', async () => {
  await fc.assert(
    fc.asyncProperty(
      invoices,
      fc.array(fc.double({ min: 0.01, max: 0.9, noNaN: true }), { maxLength: 4 }),
      async (invoice, parts) => {
        fc.pre(new Decimal(invoice.ttc).gte(10))
        let credited = new Decimal(0)
        const notes: Invoice[] = []
        const before = () => ({
          ht: notes.reduce((all, note) => all.minus(note.ht), new Decimal(0)).toFixed(),
          ttc: credited.toFixed(),
        })
        const credit = (amount: string | null): void => {
          const note = draftCreditNote('n', invoice, before(), amount)
          notes.push(note)
          credited = credited.minus(note.ttc)
        }
        for (const part of parts) {
          const amount = money(new Decimal(invoice.ttc).minus(credited).times(part), invoice)
          if (amount.gt(0)) credit(amount.toFixed(invoice.currency === 'XOF' ? 0 : 2))
        }
        const rest = new Decimal(invoice.ttc).minus(credited)
        if (rest.gt(0)) credit(null)
        for (const note of notes) {
          expect(new Decimal(note.ht).plus(note.tva).eq(note.ttc)).toBe(true)
          const xml = toCii({ ...note, number: 'AV-1', issuedOn: '2026-04-10', dueOn: '2026-05-10' })
          checkRules(readXml(xml))
          expect(await faultsOf(xml, true)).toEqual([])
        }
        const sum = notes.reduce((all, note) => all.plus(note.ttc), new Decimal(0))
        expect(sum.eq(opposite(invoice.ttc))).toBe(true)
        expect(new Decimal(before().ht).eq(invoice.ht)).toBe(true)
        expect(() => draftCreditNote('n', invoice, before(), '0.01')).toThrow(/exceeds_creditable/)
      },
    ),
    { numRuns: 200 },
  )
})

/** Lines of several rates, taxed by rate as an invoice is. */
const ofSeveralRates = invoices
  .filter(({ lines }) => lines.length > 1)
  .map((invoice): Invoice => {
    const lines = invoice.lines.map((line, i) => ({ ...line, taxRate: ['18', '9', '0'][i % 3]! }))
    const { taxes, ht, tva, ttc } = taxByRate(
      lines.map(({ amount, taxRate }) => ({ ht: amount, rate: taxRate })),
      invoice.currency,
    )
    // Of a customer who owes tax.
    return { ...invoice, customer: { ...invoice.customer, taxRate: '18' }, lines, taxes, ht, tva, ttc }
  })

test('credited in parts, of an invoice with several rates => each rate gets back what was billed, and never less than nothing', async () => {
  await fc.assert(
    fc.asyncProperty(
      ofSeveralRates,
      fc.array(fc.double({ min: 0.01, max: 0.9, noNaN: true }), { maxLength: 4 }),
      async (invoice, parts) => {
        fc.pre(new Decimal(invoice.ttc).gte(10))
        const notes: Invoice[] = []
        const left = (): Decimal => notes.reduce((all, { ttc }) => all.plus(ttc), new Decimal(invoice.ttc))
        const credit = (amount: string | null): void => {
          notes.push(draftCreditNote('n', invoice, creditedBy(notes), amount))
        }
        for (const part of parts) {
          const amount = money(left().times(part), invoice)
          if (amount.gt(0)) credit(amount.toFixed(invoice.currency === 'XOF' ? 0 : 2))
        }
        // What is left, by its amount: null with nothing before it would copy the invoice.
        if (left().gt(0)) credit(left().toFixed(invoice.currency === 'XOF' ? 0 : 2))
        for (const note of notes) {
          expect(new Decimal(note.ht).plus(note.tva).eq(note.ttc)).toBe(true)
          for (const { base, tax } of note.taxes) expect([Number(base) <= 0, Number(tax) <= 0]).toEqual([true, true])
          const xml = toCii({ ...note, number: 'AV-1', issuedOn: '2026-04-10', dueOn: '2026-05-10' })
          checkRules(readXml(xml))
          expect(await faultsOf(xml, true)).toEqual([])
        }
        for (const { rate, base, tax } of invoice.taxes) {
          const back = notes.flatMap((note) => note.taxes.filter((row) => row.rate === rate))
          const sum = (of: (row: { base: string; tax: string }) => string): number =>
            back.reduce((all, row) => all.minus(of(row)), new Decimal(0)).toNumber()
          expect([sum((row) => row.base), sum((row) => row.tax)], rate).toEqual([Number(base), Number(tax)])
        }
        expect(() => draftCreditNote('n', invoice, creditedBy(notes), '1')).toThrow(/exceeds_creditable/)
      },
    ),
    { numRuns: 200 },
  )
})
