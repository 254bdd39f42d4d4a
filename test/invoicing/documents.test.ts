/**
 * Invoices as XML and PDF, read by a small reader of the test's own. The rules are those of EN 16931 by their published numbers;
 * element paths are facts of its CII binding, held here as a list.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { inflateSync } from 'node:zlib'
import { Decimal } from 'decimal.js'
import { describe, expect, test } from 'vitest'
import { Book } from '../../src/catalog/book.js'
import { parseLegalEntity } from '../../src/catalog/definition.js'
import { lint } from '../../src/catalog/lint.js'
import { missingRegistrations } from '../../src/catalog/registration.js'
import { toCii } from '../../src/invoicing/cii.js'
import { draftCreditNote } from '../../src/invoicing/credit.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { mentionsOf } from '../../src/invoicing/mentions.js'
import { toPdf } from '../../src/invoicing/pdf.js'
import { formatOf } from '../../src/invoicing/print.js'
import { pagesOf } from './read-pdf.js'
import { bank, frenchSeller, ivorySeller, oidMetrics, sampleInvoice } from './sample.js'

interface Element {
  readonly name: string
  readonly attributes: Record<string, string>
  readonly children: Element[]
  text: string
}

/** Throws when a tag is not closed, an entity is unknown, or text stands outside. */
function readXml(source: string): Element {
  const body = source.replace(/^<\?xml version="1.0" encoding="UTF-8"\?>\s*/, '')
  expect(body.length, 'begins with an XML declaration').toBeLessThan(source.length)
  const root: Element = { name: '', attributes: {}, children: [], text: '' }
  const open = [root]
  const unquoted = (text: string): string =>
    text.replaceAll(/&(\w+);|&|</g, (all, name: string) => {
      const known: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"' }
      if (known[name] === undefined) throw new Error(`bad text ${all}`)
      return known[name]
    })
  let at = 0
  for (const match of body.matchAll(/<(\/?)([A-Za-z:]+)((?:\s+[A-Za-z:]+="[^"<]*")*)\s*(\/?)>/g)) {
    const text = body.slice(at, match.index)
    at = match.index + match[0].length
    open.at(-1)!.text += unquoted(text)
    const name = match[2]!.replace(/^\w+:/, '')
    if (match[1] === '/') {
      const closed = open.pop()!
      if (closed.name !== name) throw new Error(`</${name}> closes <${closed.name}>`)
      continue
    }
    const attributes = Object.fromEntries(
      [...match[3]!.matchAll(/([A-Za-z:]+)="([^"]*)"/g)].map(([, key, value]) => [key!, unquoted(value!)]),
    )
    const element: Element = { name, attributes, children: [], text: '' }
    open.at(-1)!.children.push(element)
    if (match[4] !== '/') open.push(element)
  }
  if (open.length !== 1 || body.slice(at).trim() !== '') throw new Error('not closed')
  return root.children[0]!
}

const all = (element: Element, path: string): Element[] =>
  path
    .split('/')
    .reduce<Element[]>((found, name) => found.flatMap((e) => e.children.filter((c) => c.name === name)), [element])
const textAt = (element: Element, path: string): string | undefined => all(element, path)[0]?.text.trim()
const amountAt = (element: Element, path: string): Decimal => {
  const text = textAt(element, path)
  expect(text, path).toMatch(/^-?[0-9]+(\.[0-9]+)?$/)
  return new Decimal(text!)
}
const LINE = 'SupplyChainTradeTransaction/IncludedSupplyChainTradeLineItem'
const SETTLEMENT = 'SupplyChainTradeTransaction/ApplicableHeaderTradeSettlement'
const AGREEMENT = 'SupplyChainTradeTransaction/ApplicableHeaderTradeAgreement'
const SUM = `${SETTLEMENT}/SpecifiedTradeSettlementHeaderMonetarySummation`

/** The paths that may occur, relative to their parent and in the order that the schema wants. */
const ORDER: Record<string, readonly string[]> = {
  CrossIndustryInvoice: ['ExchangedDocumentContext', 'ExchangedDocument', 'SupplyChainTradeTransaction'],
  ExchangedDocument: ['ID', 'TypeCode', 'IssueDateTime', 'IncludedNote'],
  IncludedNote: ['Content', 'SubjectCode'],
  SupplyChainTradeTransaction: [
    'IncludedSupplyChainTradeLineItem',
    'ApplicableHeaderTradeAgreement',
    'ApplicableHeaderTradeDelivery',
    'ApplicableHeaderTradeSettlement',
  ],
  IncludedSupplyChainTradeLineItem: [
    'AssociatedDocumentLineDocument',
    'SpecifiedTradeProduct',
    'SpecifiedLineTradeAgreement',
    'SpecifiedLineTradeDelivery',
    'SpecifiedLineTradeSettlement',
  ],
  AssociatedDocumentLineDocument: ['LineID', 'IncludedNote'],
  SpecifiedTradeProduct: ['GlobalID', 'SellerAssignedID', 'BuyerAssignedID', 'Name', 'Description'],
  SpecifiedLineTradeAgreement: ['NetPriceProductTradePrice'],
  NetPriceProductTradePrice: ['ChargeAmount', 'BasisQuantity'],
  SpecifiedLineTradeDelivery: ['BilledQuantity'],
  SpecifiedLineTradeSettlement: [
    'ApplicableTradeTax',
    'BillingSpecifiedPeriod',
    'SpecifiedTradeAllowanceCharge',
    'SpecifiedTradeSettlementLineMonetarySummation',
  ],
  ApplicableHeaderTradeAgreement: [
    'SellerTradeParty',
    'BuyerTradeParty',
    'BuyerOrderReferencedDocument',
    'ContractReferencedDocument',
  ],
  SellerTradeParty: [
    'ID',
    'GlobalID',
    'Name',
    'SpecifiedLegalOrganization',
    'DefinedTradeContact',
    'PostalTradeAddress',
    'SpecifiedTaxRegistration',
  ],
  PostalTradeAddress: ['PostcodeCode', 'LineOne', 'LineTwo', 'LineThree', 'CityName', 'CountryID'],
  ApplicableHeaderTradeDelivery: ['ShipToTradeParty', 'ActualDeliverySupplyChainEvent'],
  ApplicableHeaderTradeSettlement: [
    'PaymentReference',
    'InvoiceCurrencyCode',
    'PayeeTradeParty',
    'SpecifiedTradeSettlementPaymentMeans',
    'ApplicableTradeTax',
    'BillingSpecifiedPeriod',
    'SpecifiedTradeAllowanceCharge',
    'SpecifiedTradePaymentTerms',
    'SpecifiedTradeSettlementHeaderMonetarySummation',
    'InvoiceReferencedDocument',
  ],
  ApplicableTradeTax: [
    'CalculatedAmount',
    'TypeCode',
    'ExemptionReason',
    'BasisAmount',
    'CategoryCode',
    'RateApplicablePercent',
  ],
  SpecifiedTradeSettlementHeaderMonetarySummation: [
    'LineTotalAmount',
    'ChargeTotalAmount',
    'AllowanceTotalAmount',
    'TaxBasisTotalAmount',
    'TaxTotalAmount',
    'GrandTotalAmount',
    'TotalPrepaidAmount',
    'DuePayableAmount',
  ],
}
ORDER.BuyerTradeParty = ORDER.SellerTradeParty!

function checkOrder(element: Element): void {
  const order = ORDER[element.name]
  if (order !== undefined) {
    const places = element.children.map((child) => order.indexOf(child.name))
    expect(places, `${element.name}: ${element.children.map((c) => c.name)}`).toEqual([...places].sort((a, b) => a - b))
    expect(places, `${element.name}: ${element.children.map((c) => c.name)}`).not.toContain(-1)
  }
  expect(element.children.length > 0 || element.text.trim() !== '', `${element.name} is empty`).toBe(true)
  for (const child of element.children) checkOrder(child)
}

/** The published rules that an invoice of this kind can break, from the XML alone. */
function checkRules(root: Element): void {
  checkOrder(root)
  const one = (path: string): void => expect(all(root, path), path).toHaveLength(1)
  // BR-01 to BR-16: what must be there.
  expect(textAt(root, 'ExchangedDocumentContext/GuidelineSpecifiedDocumentContextParameter/ID')).toBe(
    'urn:cen.eu:en16931:2017',
  )
  for (const path of [
    'ExchangedDocument/ID',
    'ExchangedDocument/TypeCode',
    'ExchangedDocument/IssueDateTime/DateTimeString',
    `${SETTLEMENT}/InvoiceCurrencyCode`,
    `${AGREEMENT}/SellerTradeParty/Name`,
    `${AGREEMENT}/BuyerTradeParty/Name`,
    `${AGREEMENT}/SellerTradeParty/PostalTradeAddress/CountryID`,
    `${AGREEMENT}/BuyerTradeParty/PostalTradeAddress/CountryID`,
    `${SUM}/LineTotalAmount`,
    `${SUM}/TaxBasisTotalAmount`,
    `${SUM}/TaxTotalAmount`,
    `${SUM}/GrandTotalAmount`,
    `${SUM}/DuePayableAmount`,
  ])
    one(path)
  const lines = all(root, LINE)
  expect(lines.length).toBeGreaterThan(0)
  const decimals = textAt(root, `${SETTLEMENT}/InvoiceCurrencyCode`) === 'XOF' ? 0 : 2
  const unit = new Decimal(10).pow(-decimals)
  const ids = lines.map((line) => textAt(line, 'AssociatedDocumentLineDocument/LineID'))
  expect(new Set(ids).size).toBe(ids.length)
  for (const line of lines) {
    // BR-22 to BR-27, and quantity × price = amount to the cent.
    const price = amountAt(line, 'SpecifiedLineTradeAgreement/NetPriceProductTradePrice/ChargeAmount')
    expect(price.isNegative() && !price.isZero(), 'BR-27').toBe(false)
    const quantity = amountAt(line, 'SpecifiedLineTradeDelivery/BilledQuantity')
    expect(all(line, 'SpecifiedLineTradeDelivery/BilledQuantity')[0]!.attributes.unitCode).toMatch(/^[A-Z0-9]{2,3}$/)
    const amount = amountAt(
      line,
      'SpecifiedLineTradeSettlement/SpecifiedTradeSettlementLineMonetarySummation/LineTotalAmount',
    )
    expect(price.times(quantity).minus(amount).abs().lte(unit.div(2)), `${price} × ${quantity} = ${amount}`).toBe(true)
    expect(textAt(line, 'SpecifiedTradeProduct/Name')).toBeTruthy()
    // BR-30: a period does not end before it begins.
    const period = 'SpecifiedLineTradeSettlement/BillingSpecifiedPeriod'
    expect(Number(textAt(line, `${period}/EndDateTime/DateTimeString`))).toBeGreaterThanOrEqual(
      Number(textAt(line, `${period}/StartDateTime/DateTimeString`)),
    )
  }
  const sum = (elements: Element[], path: string): string =>
    elements.reduce((total, element) => total.plus(amountAt(element, path)), new Decimal(0)).toFixed(2)
  const total = (name: string): Decimal => amountAt(root, `${SUM}/${name}`)
  const taxes = all(root, `${SETTLEMENT}/ApplicableTradeTax`)
  const LINE_TOTAL = 'SpecifiedLineTradeSettlement/SpecifiedTradeSettlementLineMonetarySummation/LineTotalAmount'
  expect(total('LineTotalAmount').toFixed(2), 'BR-CO-10').toBe(sum(lines, LINE_TOTAL))
  expect(total('TaxBasisTotalAmount').toFixed(2), 'BR-CO-13').toBe(total('LineTotalAmount').toFixed(2))
  expect(total('TaxTotalAmount').toFixed(2), 'BR-CO-14').toBe(sum(taxes, 'CalculatedAmount'))
  expect(total('GrandTotalAmount').toFixed(2), 'BR-CO-15').toBe(
    total('TaxBasisTotalAmount').plus(total('TaxTotalAmount')).toFixed(2),
  )
  expect(total('DuePayableAmount').toFixed(2), 'BR-CO-16').toBe(total('GrandTotalAmount').toFixed(2))
  // A part of an invoice is credited by an amount that includes tax, and not every such amount is base + rounded tax.
  const tolerance = textAt(root, 'ExchangedDocument/TypeCode') === '381' ? unit : new Decimal(0)
  for (const tax of taxes) {
    const rate = new Decimal(textAt(tax, 'RateApplicablePercent') ?? '0')
    const base = amountAt(tax, 'BasisAmount')
    const computed = base.times(rate).div(100).toDecimalPlaces(decimals, Decimal.ROUND_HALF_UP)
    expect(amountAt(tax, 'CalculatedAmount').minus(computed).abs().lte(tolerance), 'BR-CO-17').toBe(true)
    const category = textAt(tax, 'CategoryCode')
    if (category === 'S') expect(rate.gt(0), 'BR-S-05').toBe(true)
    if (category === 'Z') expect(rate.isZero(), 'BR-Z-05').toBe(true)
    if (category === 'E' || category === 'AE') expect(textAt(tax, 'ExemptionReason'), 'BR-E-10').toBeTruthy()
    const own = lines.filter((line) => {
      const path = 'SpecifiedLineTradeSettlement/ApplicableTradeTax'
      return (
        textAt(line, `${path}/CategoryCode`) === category && rate.eq(textAt(line, `${path}/RateApplicablePercent`) ?? 0)
      )
    })
    // BR-S-08 and its kin: the base of a rate is the sum of its lines.
    expect(base.toFixed(2), 'BR-S-08').toBe(sum(own, LINE_TOTAL))
  }
  // BR-CO-18, BR-CO-25, BR-CO-26, BR-S-02.
  expect(taxes.length).toBeGreaterThan(0)
  one(`${SETTLEMENT}/SpecifiedTradePaymentTerms/DueDateDateTime/DateTimeString`)
  expect(textAt(root, `${AGREEMENT}/SellerTradeParty/ID`)).toBeTruthy()
  for (const vat of all(root, `${AGREEMENT}/SellerTradeParty/SpecifiedTaxRegistration/ID`)) {
    if (vat.attributes.schemeID === 'VA') expect(vat.text, 'BR-CO-09').toMatch(/^[A-Z]{2}/)
  }
  expect(all(root, `${AGREEMENT}/SellerTradeParty/SpecifiedTaxRegistration`).length, 'BR-S-02').toBeGreaterThan(0)
  // BR-DEC: at most two decimals in any amount of the document.
  for (const element of [...all(root, `${SUM}`)[0]!.children, ...taxes.flatMap((tax) => tax.children)]) {
    if (element.name.endsWith('Amount'))
      expect(element.text, `BR-DEC ${element.name}`).toMatch(/^-?[0-9]+(\.[0-9]{1,2})?$/)
  }
}

const creditNote = (invoice: Invoice, amount: string | null): Invoice => ({
  ...draftCreditNote('inv_credit', invoice, '0', amount),
  number: 'AV-2026-0001',
  issuedOn: '2026-04-10',
  dueOn: '2026-05-10',
})
const withRegularisation = (invoice: Invoice): Invoice => {
  const line = { ...invoice.lines[1]!, no: 4, type: 'regularisation' as const, amount: '-2.50', exact: '-2.5' }
  const ht = new Decimal(invoice.ht).minus('2.5')
  const tva = ht.times('0.18').toDecimalPlaces(2, Decimal.ROUND_HALF_UP)
  return {
    ...invoice,
    lines: [...invoice.lines, line],
    taxes: [{ rate: '18', base: ht.toFixed(2), tax: tva.toFixed(2) }],
    ht: ht.toFixed(2),
    tva: tva.toFixed(2),
    ttc: ht.plus(tva).toFixed(2),
  }
}

const cases: Record<string, Invoice> = {
  'Côte d’Ivoire in euro': sampleInvoice(),
  France: sampleInvoice({ seller: frenchSeller }),
  'whole CFA francs': sampleInvoice({ customer: { ...bank, currency: 'XOF' }, fee: '131191' }),
  'zero rated': sampleInvoice({ customer: { ...bank, taxRate: '0' } }),
  exempt: sampleInvoice({ customer: { ...bank, taxRate: '0', taxCategory: 'E' } }),
  'names that are markup': sampleInvoice({ customer: { ...bank, name: 'A <b>&amp; "C" ]]> \u0007' } }),
  'packages, percentages and tier fees': sampleInvoice({
    metrics: [
      {
        metric: 'a',
        limit: '0',
        quantity: '121',
        rule: { rule_id: 'a', type: 'package', package_size: '10', package_price: '100' },
      },
      {
        metric: 'b',
        limit: '0',
        quantity: '1234.56',
        rule: { rule_id: 'b', type: 'percentage', rate: '1.9', fixed_per_event: '0.007' },
      },
      {
        metric: 'c',
        limit: '0',
        quantity: '77',
        rule: { rule_id: 'c', type: 'volume', tiers: [{ from: 1, to: null, unit_price: '0.333', flat_fee: '5' }] },
      },
      { metric: 'd', limit: '0', quantity: '7', rule: { rule_id: 'd', type: 'per_unit', unit_price: '0.0033' } },
    ],
  }),
  'a negative line': withRegularisation(sampleInvoice()),
  'a credit note for the whole': creditNote(sampleInvoice(), null),
  'a credit note for a part': creditNote(sampleInvoice(), '10.00'),
  'a credit note after voids': corrected('credit_note', '-4', '-10.00', '-1.80', '-11.80'),
  'a complementary invoice': corrected('invoice', '10', '25.00', '4.50', '29.50'),
  'a fleet': sampleInvoice({ items: 300 }),
}

/** A correction of usage after the invoice: one regularisation, with its sign. */
function corrected(kind: Invoice['kind'], quantity: string, ht: string, tva: string, ttc: string): Invoice {
  const invoice = sampleInvoice()
  return {
    ...invoice,
    kind,
    refersTo: kind === 'invoice' ? null : { id: invoice.id, number: 'FA-2026-0142' },
    lines: [
      { ...invoice.lines[1]!, no: 1, type: 'regularisation', quantity, billable: quantity, exact: ht, amount: ht },
    ],
    usage: [],
    taxes: [{ rate: '18', base: ht, tax: tva }],
    ht,
    tva,
    ttc,
  }
}

describe('EN 16931 CII', () => {
  test.each(Object.entries(cases))(
    '%s => well-formed, in the order of the schema, and every rule holds',
    async (_, invoice) => {
      const xml = toCii(invoice)
      const root = readXml(xml)
      checkRules(root)
      expect(textAt(root, `${AGREEMENT}/BuyerTradeParty/Name`)).toBe(invoice.customer.name.replace('\u0007', '').trim())
      if (existsSync('/usr/bin/xmllint')) {
        const child = promisify(execFile)('/usr/bin/xmllint', ['--noout', '-'])
        child.child.stdin!.end(xml)
        await child
      }
    },
  )

  test('the reader of this test finds what is wrong: a changed amount, an unclosed tag', () => {
    const xml = toCii(sampleInvoice())
    expect(() =>
      checkRules(readXml(xml.replace('<ram:GrandTotalAmount>437.85', '<ram:GrandTotalAmount>437.86'))),
    ).toThrow(/BR-CO-15/)
    expect(() => checkRules(readXml(xml.replace('<ram:BasisAmount>371.06', '<ram:BasisAmount>371.05')))).toThrow(/BR-/)
    expect(() => readXml(xml.replace('</ram:ID>', ''))).toThrow(/closes/)
  })

  test('a credit note is type 381 with positive amounts and names its invoice; an invoice is 380', () => {
    const note = readXml(toCii(cases['a credit note for the whole']!))
    expect(textAt(note, 'ExchangedDocument/TypeCode')).toBe('381')
    expect(textAt(note, `${SUM}/GrandTotalAmount`)).toBe('437.85')
    expect(textAt(note, `${SETTLEMENT}/InvoiceReferencedDocument/IssuerAssignedID`)).toBe('FA-2026-0142')
    expect(textAt(readXml(toCii(sampleInvoice())), 'ExchangedDocument/TypeCode')).toBe('380')
  })

  test('a line of one price is quantity × price; a line of tiers is one unit with its calculation as a note', () => {
    const [, kyc, mcp] = all(readXml(toCii(sampleInvoice())), LINE)
    const figures = (line: Element) => [
      textAt(line, 'SpecifiedLineTradeDelivery/BilledQuantity'),
      textAt(line, 'SpecifiedLineTradeAgreement/NetPriceProductTradePrice/ChargeAmount'),
    ]
    expect(figures(mcp!)).toEqual(['350', '0.05'])
    expect(figures(kyc!)).toEqual(['1', '153.56'])
    expect(textAt(kyc!, 'AssociatedDocumentLineDocument/IncludedNote/Content')).toContain('50 × 2,50')
  })

  test('identifiers: SIREN and VAT of France, RCCM and NCC of Côte d’Ivoire', () => {
    const seller = (invoice: Invoice) => all(readXml(toCii(invoice)), `${AGREEMENT}/SellerTradeParty`)[0]!
    const french = seller(cases.France!)
    expect(all(french, 'SpecifiedLegalOrganization/ID')[0]).toMatchObject({
      text: '812345678',
      attributes: { schemeID: '0002' },
    })
    expect(all(french, 'SpecifiedTaxRegistration/ID').map((e) => [e.text, e.attributes.schemeID])).toEqual([
      ['FR40812345678', 'VA'],
    ])
    expect(all(french, 'PostalTradeAddress')[0]!.children.map((e) => e.text)).toEqual([
      '75002',
      '12 rue de la Paix',
      'Paris',
      'FR',
    ])
    const ivorian = seller(sampleInvoice())
    expect(textAt(ivorian, 'SpecifiedLegalOrganization/ID')).toBe('CI-ABJ-03-2019-B12-04321')
    expect(all(ivorian, 'SpecifiedTaxRegistration/ID').map((e) => [e.text, e.attributes.schemeID])).toEqual([
      ['1912345 A', 'FC'],
    ])
  })
})

describe('legal mentions', () => {
  test('France: penalties, 40 €, discount, nature, by their codes; other countries: their registrations and own texts', () => {
    expect(mentionsOf(cases.France!).map((mention) => mention.code)).toEqual(['PMD', 'PMT', 'AAB', null])
    expect(mentionsOf(sampleInvoice())).toEqual([])
    const own = sampleInvoice({ seller: { ...ivorySeller, mentions: ['Exonéré selon l’article 355.'] } })
    expect(mentionsOf(own)).toEqual([
      { code: null, text: { fr: 'Exonéré selon l’article 355.', en: 'Exonéré selon l’article 355.' } },
    ])
  })

  test('why there is no tax, in both languages and by country; the reason of the customer comes first; texts of seller and customer', async () => {
    const texts = (taxCategory: string, more: object = {}, seller = ivorySeller) =>
      mentionsOf(sampleInvoice({ seller, customer: { ...bank, taxRate: '0', taxCategory, ...more } })).map(
        ({ text }) => text.fr,
      )
    expect(texts('Z')).toEqual([])
    expect(texts('E')).toEqual(['Exonéré de TVA.'])
    expect(texts('AE')).toEqual(['Autoliquidation de la TVA par le preneur.'])
    expect(texts('AE', {}, frenchSeller)).toContain('Autoliquidation (art. 283-2 du CGI).')
    expect(texts('O', {}, frenchSeller)).toContain('TVA non applicable (art. 259-1 du CGI).')
    const reason = { registrations: { ...bank.registrations, Exonération: 'Zone franche, décret 2014-98' } }
    expect(texts('E', reason)).toEqual(['Zone franche, décret 2014-98'])
    const senegal = {
      ...ivorySeller,
      country: 'SN',
      registrations: { NINEA: '0051234562G3', RCCM: 'SN-DKR-2019-B-4321' },
      mentions: [{ fr: 'Facture à conserver dix ans.', en: 'Keep this invoice for ten years.' }],
    }
    const customer = {
      ...bank,
      mentions: ['Bon de commande 4711'],
      registrations: { ...bank.registrations, Exonération: 'Convention fiscale' },
      taxRate: '0',
      taxCategory: 'E',
    }
    const invoice = sampleInvoice({ seller: senegal, customer })
    for (const [language, said] of [
      ['fr', 'Facture à conserver dix ans.'],
      ['en', 'Keep this invoice for ten years.'],
    ] as const) {
      const [page] = await pagesOf(await toPdf(invoice, language))
      for (const text of [
        said,
        'Bon de commande 4711',
        'Convention fiscale',
        'NINEA 0051234562G3',
        'RCCM CI-ABJ-1978-B-31285',
      ])
        expect(page).toContain(text)
      // Once, at the foot.
      expect(page!.split('Convention fiscale')).toHaveLength(2)
      expect(toCii(invoice, language)).toContain(`<ram:Content>${said}</ram:Content>`)
    }
  })

  test('what a seller has not entered is named by the lint of the catalogue', () => {
    expect(missingRegistrations(frenchSeller)).toEqual([])
    expect(missingRegistrations(ivorySeller)).toEqual([])
    expect(missingRegistrations({ ...ivorySeller, registrations: { RCCM: 'x' } })).toEqual([
      'NCC',
      'Régime d’imposition',
      'Centre des impôts',
    ])
    const bare = parseLegalEntity({ key: 'dakar', name: 'Dakar', country: 'SN' })
    const parts = { metrics: [], products: [], plans: [], prices: [], customers: [], contracts: [] }
    expect(lint(new Book({ version: 1, legalEntities: [bare], ...parts }))).toEqual([
      {
        code: 'registrations_missing',
        at: 'legal entity dakar',
        message: 'invoices of SN carry NINEA, RCCM of their seller',
      },
    ])
    for (const mentions of [['x'.repeat(601)], [{ fr: 'a' }], [''], 'x', [{ fr: 'a', en: 'b', de: 'c' }]])
      expect(() => parseLegalEntity({ ...bare, mentions })).toThrow(/mentions/)
  })
})

/** Every stream of a PDF, decompressed where it is. */
function streamsOf(pdf: Buffer): { readonly head: string; readonly body: Buffer }[] {
  const text = pdf.toString('latin1')
  return [...text.matchAll(/<<((?:[^<>]|<<[^<>]*>>|<[^<>]*>)*)>>\s*stream\r?\n/g)].map((match) => {
    const from = match.index + match[0].length
    const raw = pdf.subarray(from, text.indexOf('\nendstream', from))
    return { head: match[1]!, body: match[1]!.includes('FlateDecode') ? inflateSync(raw) : raw }
  })
}

describe('PDF', () => {
  test.each(Object.entries(cases))('%s => PDF/A-3b with the same XML embedded as Factur-X', async (_, invoice) => {
    const pdf = await toPdf(invoice)
    const text = pdf.toString('latin1')
    expect(text.startsWith('%PDF-1.7')).toBe(true)
    const streams = streamsOf(pdf)
    const embedded = streams.find(({ head }) => head.includes('/Type /EmbeddedFile'))!
    expect(embedded.body.toString()).toBe(toCii(invoice))
    expect(embedded.head).toContain('/Subtype /text#2Fxml')
    expect(text).toContain('/AFRelationship /Alternative')
    expect(text).toContain('/UF (factur-x.xml)')
    expect(text).toMatch(/\/AF \[\d+ 0 R\]/)
    expect(text).toContain('/S /GTS_PDFA1')
    const xmp = streams.find(({ head }) => head.includes('/Subtype /XML'))!.body.toString()
    for (const part of [
      '<pdfaid:part>3</pdfaid:part>',
      '<pdfaid:conformance>B</pdfaid:conformance>',
      '<fx:DocumentFileName>factur-x.xml</fx:DocumentFileName>',
      '<fx:ConformanceLevel>EN 16931</fx:ConformanceLevel>',
      'urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#',
    ])
      expect(xmp).toContain(part)
    // Every font is in the file: PDF/A has no others, and no standard font is named.
    const fonts = [...text.matchAll(/\/Type \/FontDescriptor/g)].length
    expect(fonts).toBeGreaterThan(0)
    expect([...text.matchAll(/\/FontFile[23] /g)]).toHaveLength(fonts)
    expect(text).not.toMatch(/\/BaseFont \/(Helvetica|Times|Courier)/)
  })

  test('the same document gives the same bytes; another language others', async () => {
    const sha = async (language: 'fr' | 'en') =>
      createHash('sha256')
        .update(await toPdf(sampleInvoice(), language))
        .digest('hex')
    const [first, second, english] = [await sha('fr'), await sha('fr'), await sha('en')]
    expect(first).toBe(second)
    expect(english).not.toBe(first)
  })

  test('a fleet of 300 items is a few pages; every name is printed or replaced, never a fault', async () => {
    const pages = (pdf: Buffer): number => [...pdf.toString('latin1').matchAll(/\/Type \/Page\n/g)].length
    expect(pages(await toPdf(sampleInvoice()))).toBe(1)
    const one = oidMetrics.slice(1, 2)
    const fleet = await toPdf(sampleInvoice({ items: 300, metrics: one }))
    expect(pages(fleet)).toBeLessThanOrEqual(6)
    for (const name of ['شركة', '北京', 'Łódź Ελλάς Киев', 'x'.repeat(250), '\u202f\u200b\ud83d\ude00'])
      expect(pages(await toPdf(sampleInvoice({ customer: { ...bank, name } })))).toBeGreaterThan(0)
  })
})

test('the format of a request: ?format= before a suffix before Accept; JSON when nobody says', () => {
  expect(formatOf('FA-1.pdf', undefined, undefined)).toEqual({ id: 'FA-1', format: 'pdf' })
  expect(formatOf('FA-1.pdf', 'xml', undefined)).toEqual({ id: 'FA-1', format: 'xml' })
  expect(formatOf('FA-1', undefined, 'application/pdf')).toEqual({ id: 'FA-1', format: 'pdf' })
  expect(formatOf('FA-1', undefined, 'application/xml;q=0.9')).toEqual({ id: 'FA-1', format: 'xml' })
  expect(formatOf('FA-1', undefined, '*/*')).toEqual({ id: 'FA-1', format: 'json' })
  expect(formatOf('INV/2022/04/0001', undefined, undefined)).toEqual({ id: 'INV/2022/04/0001', format: 'json' })
})
