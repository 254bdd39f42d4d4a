/**
 * An invoice as UN/CEFACT CII XML in the profile of EN 16931: the machine's half of a Factur-X document, and a file of its own.
 * Pure; computes nothing but signs: every amount is one of the document's.
 *
 * A line whose price is one number is quantity × price. A line of several tiers is one unit at the line's amount with its
 * calculation as a note, since the standard has no tiers. Prices are not negative there (BR-27): a negative line has a negative
 * quantity. A credit note has type 381 and positive amounts. Discounts are lines, so allowances at document level do not occur.
 *
 * All prices and lines are without tax there (BT-131, BT-146). Of a price with tax, the net price is that of the whole quantity
 * (BT-149), since that of one unit need not end.
 */
import { Decimal, parseDecimal } from '../decimal.js'
import { dateIn, type Language } from '../format.js'
import type { Period } from '../period.js'
import { type Invoice, type InvoiceLine, netOf } from './invoice.js'
import { mentionsOf, reasonOf } from './mentions.js'
import { opposite } from './state.js'

const NAMESPACES = {
  'xmlns:rsm': 'urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100',
  'xmlns:ram': 'urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100',
  'xmlns:qdt': 'urn:un:unece:uncefact:data:standard:QualifiedDataType:100',
  'xmlns:udt': 'urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100',
} as const
const PROFILE = 'urn:cen.eu:en16931:2017'

/** UN/ECE recommendation 20; one piece (C62) for anything that is counted. */
const UNIT_CODES: Readonly<Record<string, string>> = {
  Go: 'E34',
  GB: 'E34',
  Mo: '4L',
  MB: '4L',
  kWh: 'KWH',
  kg: 'KGM',
  km: 'KMT',
  h: 'HUR',
  min: 'MIN',
  minute: 'MIN',
  minutes: 'MIN',
}

/** How a credit note is shown to people and machines: its title says which way the money goes, so its amounts are positive. */
export function asShown(invoice: Invoice): Invoice {
  if (invoice.kind === 'invoice') return invoice
  return {
    ...invoice,
    lines: invoice.lines.map((line) => ({
      ...line,
      exact: opposite(line.exact),
      amount: opposite(line.amount),
      // Of a correction it is what came since, with its sign.
      ...(line.type === 'regularisation' ? { quantity: opposite(line.quantity) } : {}),
      ...(line.net === undefined ? {} : { net: opposite(line.net) }),
    })),
    taxes: invoice.taxes.map((row) => ({ rate: row.rate, base: opposite(row.base), tax: opposite(row.tax) })),
    ht: opposite(invoice.ht),
    tva: opposite(invoice.tva),
    ttc: opposite(invoice.ttc),
  }
}

/**
 * Quantity and price that multiply to the line's amount, the price not negative. A credit's are those of what is credited, and of
 * packages they are packages.
 */
export function unitsOf(line: InvoiceLine): {
  readonly quantity: string
  readonly price: string
  /** Whether it is the price that was agreed on, not the whole line as one. */
  readonly agreed: boolean
} {
  const [step, ...others] = line.steps
  const agreed = (quantity: string, price: string): ReturnType<typeof unitsOf> | null => {
    const exact = parseDecimal(quantity, 'quantity').times(price)
    if (exact.eq(line.exact)) return { quantity, price, agreed: true }
    return exact.negated().eq(line.exact) ? { quantity: opposite(quantity), price, agreed: true } : null
  }
  const plain = step !== undefined && others.length === 0 && parseDecimal(step.flat, 'flat').isZero()
  const found = line.type !== 'regularisation' && plain ? agreed(step.quantity, step.unitPrice) : null
  if (found !== null) return found
  // What came since its invoice, when all of it has one price.
  const { price } = line
  const unit = price?.model === 'unit' ? price.unitPrice : line.steps.at(-1)?.unitPrice
  if (line.since !== null && line.metric !== null && price?.model !== 'package' && unit !== undefined) {
    const since = agreed(line.quantity, unit)
    if (since !== null) return since
  }
  const negative = line.amount.startsWith('-')
  return { quantity: negative ? '-1' : '1', price: negative ? opposite(line.amount) : line.amount, agreed: false }
}

/** The same without tax: of a line with tax, `price` is that of `basis` units. */
function netUnitsOf(line: InvoiceLine): ReturnType<typeof unitsOf> & { readonly basis?: string } {
  const { net, ...rest } = line
  if (net === undefined) return unitsOf(line)
  const units = unitsOf(line)
  if (!units.agreed || parseDecimal(units.quantity, 'quantity').lte(0))
    return unitsOf({ ...rest, steps: [], amount: net })
  return { ...units, price: net, basis: units.quantity }
}

/** A sub-tree as text. Members that are undefined or empty are left out. */
type Node = string | undefined | false
const escaped = (text: string): string =>
  text
    .replace(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, '')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')

function el(name: string, children: readonly Node[], attributes: Readonly<Record<string, string>> = {}): string {
  const inner = children.filter((child): child is string => typeof child === 'string' && child !== '')
  const head = Object.entries(attributes).map(([key, value]) => ` ${key}="${escaped(value)}"`)
  if (inner.length === 0) return `<${name}${head.join('')}/>`
  return `<${name}${head.join('')}>\n${inner.join('\n').replaceAll(/^/gm, '  ')}\n</${name}>`
}

function leaf(name: string, text: string | null | undefined, attributes: Readonly<Record<string, string>> = {}): Node {
  if (text === null || text === undefined || text === '') return undefined
  const head = Object.entries(attributes).map(([key, value]) => ` ${key}="${escaped(value)}"`)
  // One line: a note with line breaks would be moved by the indentation.
  return `<${name}${head.join('')}>${escaped(text).replaceAll(/\s*\n\s*/g, ' ')}</${name}>`
}

const date = (name: string, day: string | null): Node =>
  day === null ? undefined : el(name, [leaf('udt:DateTimeString', day.replaceAll('-', ''), { format: '102' })])

/** Throws ReleveError for a document whose figures are no decimals; a draft has neither number nor date and gives a draft's XML. */
export function toCii(document: Invoice, language: Language = document.language): string {
  const invoice = asShown(document)
  const { seller, customer } = invoice
  const category = categoryOf(customer.taxCategory, customer.taxRate)
  const lines = invoice.lines.map((line) => lineXml(invoice, line, category, language))
  const root = el(
    'rsm:CrossIndustryInvoice',
    [
      el('rsm:ExchangedDocumentContext', [
        el('ram:GuidelineSpecifiedDocumentContextParameter', [leaf('ram:ID', PROFILE)]),
      ]),
      el('rsm:ExchangedDocument', [
        leaf('ram:ID', invoice.number ?? invoice.id),
        leaf('ram:TypeCode', invoice.kind === 'invoice' ? '380' : '381'),
        date('ram:IssueDateTime', invoice.issuedOn ?? invoice.period.lastDay),
        ...mentionsOf(invoice).map((mention) =>
          el('ram:IncludedNote', [
            leaf('ram:Content', mention.text[language]),
            mention.code !== null && leaf('ram:SubjectCode', mention.code),
          ]),
        ),
      ]),
      el('rsm:SupplyChainTradeTransaction', [
        ...lines,
        el('ram:ApplicableHeaderTradeAgreement', [
          party('ram:SellerTradeParty', seller.key, seller, category),
          party('ram:BuyerTradeParty', customer.tenant, customer, category),
          el('ram:ContractReferencedDocument', [leaf('ram:IssuerAssignedID', invoice.contract)]),
        ]),
        el('ram:ApplicableHeaderTradeDelivery', [
          // A supply within the Union says where it went (BR-IC-12).
          category === 'K' && el('ram:ShipToTradeParty', [leaf('ram:Name', customer.name), postalXml(customer)]),
          el('ram:ActualDeliverySupplyChainEvent', [date('ram:OccurrenceDateTime', invoice.period.lastDay)]),
        ]),
        settlement(invoice, category, language),
      ]),
    ],
    NAMESPACES,
  )
  return `<?xml version="1.0" encoding="UTF-8"?>\n${root}\n`
}

function lineXml(invoice: Invoice, line: InvoiceLine, category: string, language: Language): string {
  const { quantity, price, agreed, basis } = netUnitsOf(line)
  const counted = agreed && line.price?.model !== 'package' ? line.unit : null
  const unitCode = (counted !== null && UNIT_CODES[counted]) || 'C62'
  return el('ram:IncludedSupplyChainTradeLineItem', [
    el('ram:AssociatedDocumentLineDocument', [
      leaf('ram:LineID', String(line.no)),
      el('ram:IncludedNote', [leaf('ram:Content', line.explanation[language])]),
    ]),
    el('ram:SpecifiedTradeProduct', [
      leaf('ram:SellerAssignedID', line.metric ?? line.plan.key),
      leaf('ram:Name', line.label[language]),
    ]),
    el('ram:SpecifiedLineTradeAgreement', [
      el('ram:NetPriceProductTradePrice', [
        leaf('ram:ChargeAmount', price),
        leaf('ram:BasisQuantity', basis, { unitCode }),
      ]),
    ]),
    el('ram:SpecifiedLineTradeDelivery', [leaf('ram:BilledQuantity', quantity, { unitCode })]),
    el('ram:SpecifiedLineTradeSettlement', [
      el('ram:ApplicableTradeTax', [
        leaf('ram:TypeCode', 'VAT'),
        leaf('ram:CategoryCode', categoryOf(category, line.taxRate)),
        category !== 'O' && leaf('ram:RateApplicablePercent', line.taxRate),
      ]),
      periodXml(line.period, invoice.period.timeZone),
      el('ram:SpecifiedTradeSettlementLineMonetarySummation', [leaf('ram:LineTotalAmount', netOf(line))]),
    ]),
  ])
}

function termsText({ customer }: Invoice, language: Language): string {
  return `${customer.termDays} ${language === 'fr' ? 'jours' : 'days'}`
}

function settlement(invoice: Invoice, category: string, language: Language): string {
  const { seller, currency } = invoice
  const iban = seller.registrations.IBAN?.replaceAll(' ', '')
  return el('ram:ApplicableHeaderTradeSettlement', [
    leaf('ram:PaymentReference', invoice.number),
    leaf('ram:InvoiceCurrencyCode', currency),
    iban !== undefined &&
      el('ram:SpecifiedTradeSettlementPaymentMeans', [
        leaf('ram:TypeCode', '30'),
        el('ram:PayeePartyCreditorFinancialAccount', [leaf('ram:IBANID', iban)]),
        seller.registrations.BIC !== undefined &&
          el('ram:PayeeSpecifiedCreditorFinancialInstitution', [leaf('ram:BICID', seller.registrations.BIC)]),
      ]),
    ...invoice.taxes.map((row) => {
      const code = categoryOf(category, row.rate)
      return el('ram:ApplicableTradeTax', [
        leaf('ram:CalculatedAmount', row.tax),
        leaf('ram:TypeCode', 'VAT'),
        leaf('ram:ExemptionReason', exemption(invoice, code, language)),
        leaf('ram:BasisAmount', row.base),
        leaf('ram:CategoryCode', code),
        code !== 'O' && leaf('ram:RateApplicablePercent', row.rate),
      ])
    }),
    periodXml(invoice.period, invoice.period.timeZone),
    el('ram:SpecifiedTradePaymentTerms', [
      leaf('ram:Description', invoice.dueOn === null ? termsText(invoice, language) : undefined),
      date('ram:DueDateDateTime', invoice.dueOn),
    ]),
    el('ram:SpecifiedTradeSettlementHeaderMonetarySummation', [
      leaf('ram:LineTotalAmount', invoice.ht),
      leaf('ram:TaxBasisTotalAmount', invoice.ht),
      leaf('ram:TaxTotalAmount', invoice.tva, { currencyID: currency }),
      leaf('ram:GrandTotalAmount', invoice.ttc),
      leaf('ram:DuePayableAmount', invoice.ttc),
    ]),
    invoice.refersTo !== null &&
      el('ram:InvoiceReferencedDocument', [
        leaf('ram:IssuerAssignedID', invoice.refersTo.number),
        invoice.refersTo.issuedOn !== undefined &&
          el('ram:FormattedIssueDateTime', [
            leaf('qdt:DateTimeString', invoice.refersTo.issuedOn.replaceAll('-', ''), { format: '102' }),
          ]),
      ]),
  ])
}

function periodXml(period: Period, zone: string): string {
  return el('ram:BillingSpecifiedPeriod', [
    date('ram:StartDateTime', dateIn(period.from, zone)),
    date('ram:EndDateTime', dateIn(period.to - 1, zone)),
  ])
}

interface Party {
  readonly name: string
  readonly country: string
  readonly address: readonly string[]
  readonly registrations: Readonly<Record<string, string>>
}

function party(name: string, id: string, who: Party, category: string): string {
  const { registrations: given } = who
  // SIREN and SIRET have their scheme; the RCCM of the OHADA countries has none that the standard lists.
  const legal =
    given.SIREN !== undefined
      ? leaf('ram:ID', given.SIREN.replaceAll(' ', ''), { schemeID: '0002' })
      : given.SIRET !== undefined
        ? leaf('ram:ID', given.SIRET.replaceAll(' ', ''), { schemeID: '0009' })
        : leaf('ram:ID', given.RCCM)
  const vat = given.TVA?.replaceAll(' ', '')
  // A VAT identifier begins with the country (BR-CO-09); what does not is a local tax number.
  const isVat = vat !== undefined && /^[A-Z]{2}/.test(vat)
  const local = given.NCC ?? given.NINEA ?? given.IFU ?? (isVat ? undefined : vat)
  // What is not subject to VAT names no VAT identifier (BR-O-02).
  const named = isVat && category !== 'O'
  return el(name, [
    leaf('ram:ID', id),
    leaf('ram:Name', who.name),
    legal && el('ram:SpecifiedLegalOrganization', [legal]),
    postalXml(who),
    named && el('ram:SpecifiedTaxRegistration', [leaf('ram:ID', vat, { schemeID: 'VA' })]),
    local !== undefined && el('ram:SpecifiedTaxRegistration', [leaf('ram:ID', local, { schemeID: 'FC' })]),
  ])
}

function postalXml(who: Party): string {
  const last = who.address.length > 1 ? who.address.at(-1)! : undefined
  const [, postcode, city] = /^([0-9]{4,6}) +(.+)$/.exec(last ?? '') ?? [undefined, undefined, last]
  const [one, two, three] = last === undefined ? who.address : who.address.slice(0, -1)
  return el('ram:PostalTradeAddress', [
    leaf('ram:PostcodeCode', postcode),
    leaf('ram:LineOne', one),
    leaf('ram:LineTwo', two),
    leaf('ram:LineThree', three),
    leaf('ram:CityName', city),
    leaf('ram:CountryID', who.country),
  ])
}

/** The standard rate is above 0 (BR-S-05): a rate of 0 without another word is «zero rated». */
function categoryOf(category: string, rate: string): string {
  return category === 'S' && new Decimal(rate).isZero() ? 'Z' : category
}

/** As the foot of the page says it. */
function exemption({ customer, seller }: Invoice, category: string, language: Language): string | undefined {
  return reasonOf(category, customer, seller)?.[language]
}
