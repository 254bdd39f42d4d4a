/**
 * Invoices as XML and PDF, read by a small reader of the test's own. The rules are those of EN 16931 by their published numbers;
 * element paths are facts of its CII binding, held here as a list.
 */
import { createHash } from 'node:crypto'
import { inflateSync } from 'node:zlib'
import { Decimal } from 'decimal.js'
import { describe, expect, test } from 'vitest'
import { Book } from '../../src/catalog/book.js'
import { type Customer, parseLegalEntity } from '../../src/catalog/definition.js'
import { lint } from '../../src/catalog/lint.js'
import { missingRegistrations } from '../../src/catalog/registration.js'
import { toCii } from '../../src/invoicing/cii.js'
import { draftCreditNote, NOT_CREDITED } from '../../src/invoicing/credit.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { mentionsOf } from '../../src/invoicing/mentions.js'
import { toPdf } from '../../src/invoicing/pdf.js'
import { formatOf, printInvoice } from '../../src/invoicing/print.js'
import { AGREEMENT, all, checkRules, type Element, LINE, readXml, SETTLEMENT, SUM, textAt } from './en16931.js'
import { faultsOf, faultsOfPdf } from './published.js'
import { pagesOf } from './read-pdf.js'
import { bank, frenchSeller, inclusiveMetrics, ivorySeller, oidMetrics, sampleInvoice } from './sample.js'

const creditNote = (invoice: Invoice, amount: string | null): Invoice => ({
  ...draftCreditNote('inv_credit', invoice, NOT_CREDITED, amount),
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

const german: Customer = {
  ...bank,
  name: 'Muster GmbH',
  country: 'DE',
  address: ['Hauptstraße 1', '10115 Berlin'],
  registrations: { TVA: 'DE123456789' },
  taxRate: '0',
}
const inclusive = { metrics: inclusiveMetrics, feeBehavior: 'inclusive' } as const
const withTax = sampleInvoice({ ...inclusive, fee: '199.97' })
const cases: Record<string, Invoice> = {
  'Côte d’Ivoire in euro': sampleInvoice(),
  France: sampleInvoice({ seller: frenchSeller }),
  'whole CFA francs': sampleInvoice({ customer: { ...bank, currency: 'XOF' }, fee: '131191' }),
  'zero rated': sampleInvoice({ customer: { ...bank, taxRate: '0' } }),
  exempt: sampleInvoice({ customer: { ...bank, taxRate: '0', taxCategory: 'E' } }),
  'reverse charge': sampleInvoice({ seller: frenchSeller, customer: { ...german, taxCategory: 'AE' } }),
  'intra-community': sampleInvoice({ seller: frenchSeller, customer: { ...german, taxCategory: 'K' } }),
  export: sampleInvoice({ seller: frenchSeller, customer: { ...bank, taxRate: '0', taxCategory: 'G' } }),
  'outside the scope': sampleInvoice({ seller: frenchSeller, customer: { ...german, taxCategory: 'O' } }),
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
  'prices with tax': withTax,
  'prices with tax in whole CFA francs': sampleInvoice({
    ...inclusive,
    customer: { ...bank, currency: 'XOF' },
    fee: '131191',
  }),
  'prices with tax, exempt': sampleInvoice({
    ...inclusive,
    customer: { ...bank, taxRate: '0', taxCategory: 'E' },
  }),
  'prices with tax and prices without': sampleInvoice({ feeBehavior: 'inclusive' }),
  'prices with tax, credited in whole': creditNote(withTax, null),
  'prices with tax, credited in part': creditNote(withTax, '0.10'),
  'a fleet at prices with tax': sampleInvoice({ ...inclusive, items: 300 }),
}
/** Those whose tax may be a unit from base × rate. */
const isTaxIncluded = (invoice: Invoice): boolean => invoice.lines.some((line) => line.taxBehavior === 'inclusive')

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

const isRounded = (invoice: Invoice): boolean =>
  isTaxIncluded(invoice) || invoice.kind === 'credit_note' || invoice.currency === 'XOF'

describe('EN 16931 CII', () => {
  test.each(Object.entries(cases))(
    '%s => well-formed, in the order of the schema, and every rule holds',
    async (_, invoice) => {
      const xml = toCii(invoice)
      const root = readXml(xml)
      checkRules(root, { taxIncluded: isTaxIncluded(invoice) })
      expect(textAt(root, `${AGREEMENT}/BuyerTradeParty/Name`)).toBe(invoice.customer.name.replace('\u0007', '').trim())
      expect(await faultsOf(xml, isRounded(invoice))).toEqual([])
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

  test('so do the published schema and the rules as others wrote them down', async () => {
    const xml = toCii(sampleInvoice())
    for (const [from, to, fault] of [
      ['<ram:GrandTotalAmount>437.85', '<ram:GrandTotalAmount>437.86', /BR-CO-15/],
      ['<ram:CalculatedAmount>66.79', '<ram:CalculatedAmount>66.80', /BR-CO-17/],
      [
        /(<ram:TypeCode>380<.ram:TypeCode>)\s*(<ram:IssueDateTime>[\s\S]*?<.ram:IssueDateTime>)/,
        '$2$1',
        /IssueDateTime/,
      ],
      ['<ram:InvoiceCurrencyCode>EUR</ram:InvoiceCurrencyCode>', '', /InvoiceCurrencyCode/],
    ] as const) {
      const wrong = xml.replace(from, to)
      expect(wrong).not.toBe(xml)
      expect((await faultsOf(wrong)).join('\n')).toMatch(fault)
    }
  })

  test('a credit note is type 381 with positive amounts and names its invoice; an invoice is 380', () => {
    const note = readXml(toCii(cases['a credit note for the whole']!))
    expect(textAt(note, 'ExchangedDocument/TypeCode')).toBe('381')
    expect(textAt(note, `${SUM}/GrandTotalAmount`)).toBe('437.85')
    expect(textAt(note, `${SETTLEMENT}/InvoiceReferencedDocument/IssuerAssignedID`)).toBe('FA-2026-0142')
    expect(textAt(readXml(toCii(sampleInvoice())), 'ExchangedDocument/TypeCode')).toBe('380')
  })

  test('a credit shows what is credited: quantity and unit price of each line, the invoice and its day, in XML, PDF and CSV', async () => {
    const original = sampleInvoice()
    const discount = {
      ...original.lines[0]!,
      no: 4,
      type: 'discount' as const,
      steps: [],
      exact: '-10',
      amount: '-10.00',
    }
    const note = creditNote({ ...original, lines: [...original.lines, discount] }, null)
    const figures = (root: Element) =>
      all(root, LINE).map((line) => [
        textAt(line, 'SpecifiedLineTradeDelivery/BilledQuantity'),
        textAt(line, 'SpecifiedLineTradeAgreement/NetPriceProductTradePrice/ChargeAmount'),
        textAt(line, 'SpecifiedLineTradeSettlement/ApplicableTradeTax/RateApplicablePercent'),
      ])
    const root = readXml(toCii(note))
    expect(figures(root)).toEqual([
      ['1', '200.00', '18'],
      ['1', '153.56', '18'],
      ['350', '0.05', '18'],
      ['-1', '10.00', '18'],
    ])
    const reference = `${SETTLEMENT}/InvoiceReferencedDocument`
    expect(textAt(root, `${reference}/IssuerAssignedID`)).toBe('FA-2026-0142')
    expect(textAt(root, `${reference}/FormattedIssueDateTime/DateTimeString`)).toBe('20260401')
    const page = (await pagesOf(await toPdf(note))).join('\n')
    for (const text of [
      /Sur la facture +FA-2026-0142 du 01\/04\/2026/,
      /abonnement, mars 2026 +1 +200,00 € +18 % +200,00 €/,
      /kyc_verification, mars 2026 +62 +selon détail +18 % +153,56 €/,
      /avoir sur FA-2026-0142, ligne 2 — 112 kyc_verification, dont 50 inclus : 50 × 2,50 €/,
      /mcp_call, mars 2026 +350 +0,05 € +18 % +17,50 €/,
      /abonnement, mars 2026 +1 +-10,00 € +18 % +-10,00 €/,
    ])
      expect(page).toMatch(text)
    const csv = (await printInvoice(note, 'csv')).body.toString().split('\r\n')
    expect(csv[0]).toMatch(/,unit_price,invoice,invoice_date,explanation$/)
    expect(csv[3]).toMatch(/,850,500,350,-17\.50,EUR,18,.*,-17\.50,0\.05,FA-2026-0142,2026-04-01,/)
    // What was voided later has its quantity, and the one price of it.
    const voided = corrected('credit_note', '-4', '-10.00', '-1.80', '-11.80')
    const since = voided.lines.map((line) => ({
      ...line,
      since: {},
      steps: [],
      price: { model: 'unit', metric: 'kyc_verification', unitPrice: '2.5' } as unknown as typeof line.price,
    }))
    expect(figures(readXml(toCii({ ...voided, lines: since })))).toEqual([['4', '2.5', '18']])
    expect(await pagesOf(await toPdf({ ...voided, lines: since }))).toMatchObject([
      expect.stringMatching(/ 4 +2,50 € +18 % +10,00 €/),
    ])
    expect(figures(readXml(toCii(voided)))).toEqual([['1', '10.00', '18']])
    expect(await pagesOf(await toPdf(voided))).toMatchObject([expect.stringMatching(/ 4 +selon détail +18 % +10,00 €/)])
  })

  test('no French is left in an English document, nor English in a French one', async () => {
    const ours = ['Régime', 'Centre des impôts', 'Capital', 'N° TVA', 'jours', 'Exonér', 'Total HT', 'événement', 'lot']
    const theirs = ['Tax', 'Share', 'VAT', 'days', 'Exempt', 'Total excl', 'event', 'package']
    for (const [name, invoice] of Object.entries(cases)) {
      const texts = {
        en: `${(await pagesOf(await toPdf(invoice, 'en'))).join('')}${toCii(invoice, 'en')}`,
        fr: (await pagesOf(await toPdf(invoice, 'fr'))).join(''),
      }
      for (const word of ours) expect(texts.en.includes(word), `${name}: ${word}`).toBe(false)
      for (const word of theirs) expect(texts.fr.includes(word), `${name}: ${word}`).toBe(false)
    }
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

  test.each(['pdf', 'txt'] as const)(
    'usage that has no price => said on the %s of the draft, not on that of the issued invoice, whose data keep it',
    async (format) => {
      const issued = sampleInvoice()
      expect(issued.notices.map((notice) => notice.code)).toContain('overage_unpriced')
      const textOf = async (invoice: Invoice): Promise<string> => {
        const { body } = await printInvoice(invoice, format, 'fr')
        return format === 'pdf' ? (await pagesOf(body)).join('\n') : body.toString()
      }
      expect(await textOf({ ...issued, number: null })).toContain('dépassement sans prix')
      const text = await textOf(issued)
      expect(text).toContain('FA-2026-0142')
      expect(text).not.toContain('sans prix')
      const kept: Invoice['notices'] = [
        { code: 'usage_blocked', item: 'a', metric: null, quantity: null, text: { fr: 'bloqué', en: 'blocked' } },
      ]
      expect(await textOf({ ...issued, notices: [...issued.notices, ...kept] })).toContain('bloqué')
    },
  )

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
    expect(await faultsOfPdf(pdf, isRounded(invoice))).toEqual([])
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
    // The colours have their profile in the file; it has an identity; nothing is locked, run or fetched.
    const profile = /\/DestOutputProfile (\d+) 0 R/.exec(text)![1]
    const at = text.indexOf(`\n${profile} 0 obj`)
    const icc = streams.find(({ head }) => text.indexOf(head) > at)!
    expect(icc.body.subarray(36, 40).toString()).toBe('acsp')
    expect(text.slice(text.lastIndexOf('trailer'))).toMatch(/\/ID \[<[0-9a-f]{32}> <[0-9a-f]{32}>\]/)
    expect(text).not.toMatch(/\/(Encrypt|JavaScript|JS|Launch|URI|SubmitForm|Movie|RichMedia)\b/)
    // What the old dictionary says, the metadata say too.
    const title = invoice.kind === 'invoice' ? 'Facture' : 'Avoir'
    expect(xmp).toContain(`${title} ${invoice.number}`)
    expect(xmp).toContain('<pdf:Producer>releve</pdf:Producer>')
  })

  test('the fields of a customer are on the page: language, tax numbers, currency, terms', async () => {
    const customer = { ...bank, language: 'en' as const, currency: 'XOF', termDays: 45 }
    const [page] = await pagesOf(await toPdf(sampleInvoice({ customer, fee: '131191' })))
    for (const text of [
      'Invoice',
      'Issue date',
      'NCC 7801234 B',
      'RCCM CI-ABJ-1978-B-31285',
      'Abidjan 04',
      '131,191 XOF',
    ])
      expect(page).toContain(text)
    expect(page).not.toContain('Facture')
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
