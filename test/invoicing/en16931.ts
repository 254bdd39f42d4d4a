/**
 * An independent reader of EN 16931 invoices in CII: a small XML reader, the order that the schema wants, and the published rules by
 * their numbers, recomputed from the XML alone. Knows nothing of the product.
 */
import { Decimal } from 'decimal.js'
import { expect } from 'vitest'

export interface Element {
  readonly name: string
  readonly attributes: Record<string, string>
  readonly children: Element[]
  text: string
}

/** Throws when a tag is not closed, an entity is unknown, or text stands outside. */
export function readXml(source: string): Element {
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

export const all = (element: Element, path: string): Element[] =>
  path
    .split('/')
    .reduce<Element[]>((found, name) => found.flatMap((e) => e.children.filter((c) => c.name === name)), [element])
export const textAt = (element: Element, path: string): string | undefined => all(element, path)[0]?.text.trim()
export const amountAt = (element: Element, path: string): Decimal => {
  const text = textAt(element, path)
  expect(text, path).toMatch(/^-?[0-9]+(\.[0-9]+)?$/)
  return new Decimal(text!)
}
export const LINE = 'SupplyChainTradeTransaction/IncludedSupplyChainTradeLineItem'
export const SETTLEMENT = 'SupplyChainTradeTransaction/ApplicableHeaderTradeSettlement'
export const AGREEMENT = 'SupplyChainTradeTransaction/ApplicableHeaderTradeAgreement'
export const SUM = `${SETTLEMENT}/SpecifiedTradeSettlementHeaderMonetarySummation`

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
  InvoiceReferencedDocument: ['IssuerAssignedID', 'FormattedIssueDateTime'],
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

/**
 * The published rules that an invoice of this kind can break, from the XML alone. `taxIncluded`: its prices hold the tax, so that the
 * tax of a rate may be one unit from base × rate; the published checks of BR-CO-17 and BR-S-09 let it differ by one euro.
 */
export function checkRules(root: Element, { taxIncluded = false }: { readonly taxIncluded?: boolean } = {}): void {
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
    // BT-149: the price may be that of so many units, in the unit of the quantity.
    const basis = all(line, 'SpecifiedLineTradeAgreement/NetPriceProductTradePrice/BasisQuantity')[0]
    const units = new Decimal(basis?.text ?? '1')
    expect(units.gt(0), 'BR-DEC').toBe(true)
    const code = all(line, 'SpecifiedLineTradeDelivery/BilledQuantity')[0]!.attributes.unitCode
    if (basis !== undefined) expect(basis.attributes.unitCode, 'BT-150').toBe(code)
    const product = price.times(quantity).div(units)
    expect(product.minus(amount).abs().lte(unit.div(2)), `${price} × ${quantity} / ${units} = ${amount}`).toBe(true)
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
  const tolerance = taxIncluded || textAt(root, 'ExchangedDocument/TypeCode') === '381' ? unit : new Decimal(0)
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
  // BR-CO-18, BR-CO-25, BR-CO-26.
  expect(taxes.length).toBeGreaterThan(0)
  one(`${SETTLEMENT}/SpecifiedTradePaymentTerms/DueDateDateTime/DateTimeString`)
  expect(textAt(root, `${AGREEMENT}/SellerTradeParty/ID`)).toBeTruthy()
  for (const vat of all(root, `${AGREEMENT}/SellerTradeParty/SpecifiedTaxRegistration/ID`)) {
    if (vat.attributes.schemeID === 'VA') expect(vat.text, 'BR-CO-09').toMatch(/^[A-Z]{2}/)
  }
  // BR-DEC: at most two decimals in any amount of the document.
  for (const element of [...all(root, `${SUM}`)[0]!.children, ...taxes.flatMap((tax) => tax.children)]) {
    if (element.name.endsWith('Amount'))
      expect(element.text, `BR-DEC ${element.name}`).toMatch(/^-?[0-9]+(\.[0-9]{1,2})?$/)
  }
  checkCategories(root, lines, taxes)
  checkTerms(root)
}

const TAX = 'SpecifiedLineTradeSettlement/ApplicableTradeTax'
/** Rules of a category by its code and the name that the rules give it. */
const CATEGORIES: Readonly<Record<string, string>> = { S: 'S', Z: 'Z', E: 'E', AE: 'AE', K: 'IC', G: 'G', O: 'O' }

/** BR-S-*, BR-Z-*, BR-E-*, BR-AE-*, BR-IC-*, BR-G-*, BR-O-*: what each category of tax asks of the document. */
function checkCategories(root: Element, lines: readonly Element[], taxes: readonly Element[]): void {
  const codeOf = (tax: Element): string => textAt(tax, 'CategoryCode') ?? ''
  const onLines = lines.map((line) => textAt(line, `${TAX}/CategoryCode`) ?? '')
  const registrations = (party: string): Element[] => all(root, `${AGREEMENT}/${party}/SpecifiedTaxRegistration/ID`)
  const vatOf = (party: string): string | undefined =>
    registrations(party).find((one) => one.attributes.schemeID === 'VA')?.text
  for (const code of new Set([...onLines, ...taxes.map(codeOf)])) {
    const name = CATEGORIES[code]
    expect(name, `BR-CL-17: category ${code}`).toBeDefined()
    const own = taxes.filter((tax) => codeOf(tax) === code)
    // -01: exactly one breakdown of it (at least one of S), and none that no line has.
    if (code === 'S') expect(own.length, 'BR-S-01').toBeGreaterThan(0)
    else expect(own.length, `BR-${name}-01`).toBe(1)
    expect(onLines, `BR-${name}-08`).toContain(code)
    for (const line of lines.filter((_, i) => onLines[i] === code)) {
      const rate = textAt(line, `${TAX}/RateApplicablePercent`)
      if (code === 'O') expect(rate, 'BR-O-05').toBeUndefined()
      else if (code === 'S') expect(new Decimal(rate!).gt(0), 'BR-S-05').toBe(true)
      else expect(new Decimal(rate!).isZero(), `BR-${name}-05`).toBe(true)
    }
    for (const tax of own) {
      if (code !== 'S') expect(amountAt(tax, 'CalculatedAmount').isZero(), `BR-${name}-09`).toBe(true)
      const reason = textAt(tax, 'ExemptionReason')
      if (code === 'S' || code === 'Z') expect(reason, `BR-${name}-10`).toBeUndefined()
      else expect(reason, `BR-${name}-10`).toBeTruthy()
      expect(textAt(tax, 'RateApplicablePercent') === undefined, 'BR-48').toBe(code === 'O')
    }
    const [seller, buyer] = [vatOf('SellerTradeParty'), vatOf('BuyerTradeParty')]
    const legal = textAt(root, `${AGREEMENT}/BuyerTradeParty/SpecifiedLegalOrganization/ID`)
    if (code === 'O') {
      expect([seller, buyer], 'BR-O-02').toEqual([undefined, undefined])
      expect(taxes.map(codeOf), 'BR-O-11').toEqual(['O'])
      expect(new Set(onLines), 'BR-O-12').toEqual(new Set(['O']))
    } else if (code === 'K' || code === 'G') expect(seller, `BR-${name}-02`).toBeTruthy()
    else expect(registrations('SellerTradeParty').length, `BR-${name}-02`).toBeGreaterThan(0)
    if (code === 'AE') expect(buyer ?? legal, 'BR-AE-02').toBeTruthy()
    if (code === 'K') {
      expect(buyer, 'BR-IC-02').toBeTruthy()
      const delivery = 'SupplyChainTradeTransaction/ApplicableHeaderTradeDelivery'
      const day = textAt(root, `${delivery}/ActualDeliverySupplyChainEvent/OccurrenceDateTime/DateTimeString`)
      const period = textAt(root, `${SETTLEMENT}/BillingSpecifiedPeriod/StartDateTime/DateTimeString`)
      expect(day ?? period, 'BR-IC-11').toBeTruthy()
      const country = textAt(root, `${delivery}/ShipToTradeParty/PostalTradeAddress/CountryID`)
      expect(country, 'BR-IC-12').toBeTruthy()
    }
  }
}

/** Codes, dates, identifiers and what refers to other documents. */
function checkTerms(root: Element): void {
  expect(['380', '381'], 'BR-CL-01').toContain(textAt(root, 'ExchangedDocument/TypeCode'))
  expect(textAt(root, `${SETTLEMENT}/InvoiceCurrencyCode`), 'BR-CL-04').toMatch(/^[A-Z]{3}$/)
  for (const party of ['SellerTradeParty', 'BuyerTradeParty']) {
    expect(textAt(root, `${AGREEMENT}/${party}/PostalTradeAddress/CountryID`), 'BR-CL-14').toMatch(/^[A-Z]{2}$/)
    for (const vat of all(root, `${AGREEMENT}/${party}/SpecifiedTaxRegistration/ID`))
      if (vat.attributes.schemeID === 'VA') expect(vat.text, 'BR-CO-09').toMatch(/^[A-Z]{2}[0-9A-Z+*]+$/)
    for (const id of all(root, `${AGREEMENT}/${party}/SpecifiedLegalOrganization/ID`))
      if (id.attributes.schemeID !== undefined) expect(id.attributes.schemeID, 'BR-CL-11').toMatch(/^[0-9]{4}$/)
  }
  const walk = (element: Element): void => {
    if (element.name === 'DateTimeString') {
      expect(element.attributes.format, 'BR-CL-date').toBe('102')
      expect(element.text).toMatch(/^[0-9]{8}$/)
    }
    if (element.name === 'TaxTotalAmount')
      expect(element.attributes.currencyID, 'BT-110').toBe(textAt(root, `${SETTLEMENT}/InvoiceCurrencyCode`))
    for (const child of element.children) walk(child)
  }
  walk(root)
  const period = `${SETTLEMENT}/BillingSpecifiedPeriod`
  expect(Number(textAt(root, `${period}/EndDateTime/DateTimeString`)), 'BR-29').toBeGreaterThanOrEqual(
    Number(textAt(root, `${period}/StartDateTime/DateTimeString`)),
  )
  for (const note of all(root, 'ExchangedDocument/IncludedNote')) expect(textAt(note, 'Content'), 'BG-1').toBeTruthy()
  for (const means of all(root, `${SETTLEMENT}/SpecifiedTradeSettlementPaymentMeans`)) {
    expect(textAt(means, 'TypeCode'), 'BR-49').toMatch(/^[0-9]{1,3}$/)
    if (textAt(means, 'TypeCode') === '30')
      expect(all(means, 'PayeePartyCreditorFinancialAccount'), 'BR-61').toHaveLength(1)
    const iban = textAt(means, 'PayeePartyCreditorFinancialAccount/IBANID')
    if (iban !== undefined) expect(iban, 'BR-50').toMatch(/^[A-Z]{2}[0-9A-Z]+$/)
  }
  for (const reference of all(root, `${SETTLEMENT}/InvoiceReferencedDocument`))
    expect(textAt(reference, 'IssuerAssignedID'), 'BR-55').toBeTruthy()
  // A credit note may stand alone, but ours names its invoice.
  if (textAt(root, 'ExchangedDocument/TypeCode') === '381')
    expect(all(root, `${SETTLEMENT}/InvoiceReferencedDocument`), 'BG-3').toHaveLength(1)
}
