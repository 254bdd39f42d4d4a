/**
 * An invoice on paper: PDF/A-3b with the EN 16931 XML embedded (Factur-X), in French or English. Shows what the document holds and
 * computes nothing; the same document gives the same bytes.
 *
 * Every line is printed with its calculation in words while there are at most limits.printedLinesMax; more are grouped by plan and
 * metric, and the foot says that the detail is in the CSV and Excel extracts. Names and texts wrap, tables go on over pages, each
 * page names the document. The typeface and its limits are in fonts.ts.
 */
import PDFDocument from 'pdfkit'
import QRCode from 'qrcode'
import { printMoney } from '../currency.js'
import { Decimal, printDecimal, sum } from '../decimal.js'
import { formatDate, formatMoney, formatNumber, formatPercent, type Language } from '../format.js'
import { limits } from '../limits.js'
import { asShown, toCii, unitsOf } from './cii.js'
import { dataEntryText } from './data-entry.js'
import { registerFonts, runsOf, type Weight } from './fonts.js'
import { groupLines } from './group.js'
import { type DataEntry, type Invoice, type InvoiceLine, netOf, referenceText, type UsageStatement } from './invoice.js'
import { itemNames } from './item-names.js'
import { mentionsOf, registrationsText } from './mentions.js'
import type { PrintedCertification } from './print.js'

const PAGE = { width: 595.28, height: 841.89 }
const LEFT = 50
const RIGHT = PAGE.width - 50
const TOP = 48
const BOTTOM = PAGE.height - 64
const INK = '#17212b'
const GRAY = '#5c6875'
const RULE = '#d5dce1'
const TINT = '#f2f5f6'
const ACCENT = '#0a5c63'
const WARN = '#9a3412'

const words = {
  invoice: { fr: 'Facture', en: 'Invoice' },
  credit_note: { fr: 'Avoir', en: 'Credit note' },
  draft: { fr: 'Brouillon, sans valeur comptable', en: 'Draft, not an accounting document' },
  issued: { fr: 'Date d’émission', en: 'Issue date' },
  due: { fr: 'Échéance', en: 'Due date' },
  period: { fr: 'Période', en: 'Period' },
  contract: { fr: 'Contrat', en: 'Contract' },
  refers: { fr: 'Sur la facture', en: 'On invoice' },
  billedTo: { fr: 'Facturé à', en: 'Billed to' },
  description: { fr: 'Désignation', en: 'Description' },
  quantity: { fr: 'Quantité', en: 'Quantity' },
  price: { fr: 'Prix unitaire HT', en: 'Price excl. VAT' },
  price_of_either: { fr: 'Prix unitaire', en: 'Unit price' },
  price_with_tax: { fr: 'Prix unit. TTC', en: 'Price incl. VAT' },
  detailed: { fr: 'selon détail', en: 'as detailed' },
  rate: { fr: 'TVA', en: 'VAT' },
  amount: { fr: 'Montant HT', en: 'Amount excl. VAT' },
  amount_with_tax: { fr: 'Montant TTC', en: 'Amount incl. VAT' },
  with_tax: { fr: 'TTC', en: 'incl. VAT' },
  prices_with_tax: {
    fr: 'Les prix et les montants des lignes sont TTC ; la TVA comprise est détaillée par taux ci-dessous.',
    en: 'Prices and amounts of the lines include VAT; the VAT in them is stated by rate below.',
  },
  prices_mixed: {
    fr: 'Les prix marqués TTC comprennent la TVA ; les montants des lignes sont tous HT.',
    en: 'Prices marked incl. VAT hold the tax; all amounts of the lines are without it.',
  },
  total: { fr: 'Total HT', en: 'Total excl. VAT' },
  vat: { fr: 'TVA', en: 'VAT' },
  on: { fr: 'sur', en: 'on' },
  grand: { fr: 'Total TTC', en: 'Total incl. VAT' },
  credited: { fr: 'Total à votre crédit', en: 'Total to your credit' },
  pay: { fr: 'À régler avant le', en: 'Payable by' },
  pay_to: { fr: 'Règlement', en: 'Payment' },
  reference: { fr: 'référence', en: 'reference' },
  notices: { fr: 'À noter', en: 'Please note' },
  statement: { fr: 'Relevé de consommations', en: 'Usage statement' },
  metric: { fr: 'Métrique', en: 'Metric' },
  used: { fr: 'Consommé', en: 'Used' },
  included: { fr: 'Inclus', en: 'Included' },
  used_part: { fr: 'Utilisé', en: 'Used part' },
  over: { fr: 'Dépassement', en: 'Above' },
  unlimited: { fr: 'illimité', en: 'unlimited' },
  lines: { fr: 'lignes', en: 'lines' },
  grouped: {
    fr: 'Lignes regroupées : le détail complet est dans les extraits CSV et Excel de ce document.',
    en: 'Lines are grouped: the CSV and Excel extracts of this document have the full detail.',
  },
  proof: {
    fr: 'Chaque quantité est comptée sur des événements archivés et peut être vérifiée :',
    en: 'Every quantity is counted from archived events and can be verified:',
  },
  more: { fr: 'autres, dans le document JSON', en: 'more, in the JSON document' },
  more_data: { fr: 'autre(s) donnée(s) d’usage', en: 'more usage data' },
  certified: { fr: 'Facture certifiée', en: 'Certified by' },
  carry: { fr: 'À reporter', en: 'Carried forward' },
  carried: { fr: 'Report', en: 'Brought forward' },
  fee: { fr: 'abonnement', en: 'subscription' },
  page: { fr: 'page', en: 'page' },
} as const

/** Side of the QR code, in points: 26 mm. */
const SEAL = 74
/** Title and head of the statement's table, in points. */
const STATEMENT_HEAD = 47

interface Style {
  readonly size?: number
  readonly weight?: Weight
  readonly color?: string
  readonly align?: 'left' | 'right'
}
const USAGE_NAME: Style = { size: 8.5, weight: 600 }
const FOOT: Style = { size: 7.2, color: GRAY }

/** Writing on pages: text with wrapping and alignment, and a place `y` that moves down. */
class Sheet {
  readonly pdf: InstanceType<typeof PDFDocument>
  y = TOP
  readonly #onPage: (sheet: Sheet) => void

  constructor(pdf: InstanceType<typeof PDFDocument>, onPage: (sheet: Sheet) => void) {
    this.pdf = pdf
    this.#onPage = onPage
  }

  width(text: string, { size = 9, weight = 400 }: Style = {}): number {
    return runsOf(text, weight).reduce(
      (all, run) => all + this.pdf.font(run.font).fontSize(size).widthOfString(run.text),
      0,
    )
  }

  /** Lines of a text within a width; a word that is longer is cut. */
  wrap(text: string, width: number, style: Style): string[] {
    const lines: string[] = []
    let line = ''
    const push = (): void => {
      // What stands between two parts is not left at the end of a line.
      if (line !== '') lines.push(line.replace(/ ·$/, ''))
      line = ''
    }
    for (const word of text.split(' ')) {
      // Nor at the beginning of the next.
      if (line === '' && lines.length > 0 && word === '·') continue
      const longer = line === '' ? word : `${line} ${word}`
      if (this.width(longer, style) <= width) {
        line = longer
        continue
      }
      push()
      if (word === '·') continue
      for (const character of word) {
        if (line !== '' && this.width(line + character, style) > width) push()
        line += character
      }
    }
    push()
    return lines.length === 0 ? [''] : lines
  }

  line(text: string, x: number, y: number, width: number, style: Style = {}): void {
    const { size = 9, weight = 400, color = INK, align = 'left' } = style
    let at = align === 'right' ? x + width - this.width(text, style) : x
    for (const run of runsOf(text, weight)) {
      const pdf = this.pdf.font(run.font).fontSize(size).fillColor(color)
      pdf.text(run.text, at, y, { lineBreak: false })
      at += pdf.widthOfString(run.text)
    }
  }

  /** Returns the height that the text takes. */
  text(text: string, x: number, y: number, width: number, style: Style = {}): number {
    const height = (style.size ?? 9) * 1.38
    const lines = this.wrap(text, width, style)
    for (const [i, line] of lines.entries()) this.line(line, x, y + i * height, width, style)
    return lines.length * height
  }

  height(text: string, width: number, style: Style = {}): number {
    return this.wrap(text, width, style).length * (style.size ?? 9) * 1.38
  }

  rule(y: number, color = RULE, thickness = 0.7): void {
    this.pdf.moveTo(LEFT, y).lineTo(RIGHT, y).lineWidth(thickness).strokeColor(color).stroke()
  }

  box(x: number, y: number, width: number, height: number, color: string): void {
    this.pdf.rect(x, y, width, height).fillColor(color).fill()
  }

  /** A new page when less than `height` is left; says whether there was one. */
  need(height: number): boolean {
    if (this.y + height <= BOTTOM) return false
    this.pdf.addPage()
    this.y = TOP
    this.#onPage(this)
    return true
  }
}

interface Column {
  readonly title: string
  readonly x: number
  readonly width: number
  readonly align: 'left' | 'right'
}

/** The document's bytes. `language` is that of the printed text. */
export async function toPdf(
  document: Invoice,
  language: Language = document.language,
  certification: PrintedCertification | null = null,
): Promise<Buffer> {
  const invoice = asShown(document)
  const say = (key: keyof typeof words): string => words[key][language]
  const money = (amount: string): string => formatMoney(amount, invoice.currency, language)
  const name = `${say(invoice.kind)} ${invoice.number ?? ''}`.trim()
  const created = new Date(`${invoice.issuedOn ?? invoice.period.lastDay}T00:00:00Z`)
  // The library writes these into its XMP without escaping.
  const plain = (text: string): string => text.replaceAll(/[<>&]/g, ' ')
  const pdf = new PDFDocument({
    size: 'A4',
    // The sheet keeps its own margins: the library must never break a page by itself.
    margins: { top: 0, bottom: 0, left: 0, right: 0 },
    autoFirstPage: true,
    bufferPages: true,
    pdfVersion: '1.7',
    subset: 'PDF/A-3b',
    lang: language === 'fr' ? 'fr-FR' : 'en-GB',
    displayTitle: true,
    info: {
      Title: plain(name),
      Author: plain(invoice.seller.name),
      Subject: plain(invoice.contractName),
      Creator: 'releve',
      Producer: 'releve',
      CreationDate: created,
    },
  } as PDFKit.PDFDocumentOptions)
  const chunks: Buffer[] = []
  pdf.on('data', (chunk: Buffer) => chunks.push(chunk))
  const ended = new Promise<void>((resolve, reject) => {
    pdf.on('end', resolve)
    pdf.on('error', reject)
  })
  registerFonts(pdf)
  const sheet = new Sheet(pdf, (page) => {
    page.line(name, LEFT, page.y, 300, { size: 8, weight: 600, color: ACCENT })
    page.line(invoice.seller.name, LEFT, page.y, RIGHT - LEFT, { size: 8, color: GRAY, align: 'right' })
    page.y += 22
  })

  const names = itemNames(invoice, language)
  head()
  parties()
  lineTable()
  totals()
  payment()
  notices()
  statement()
  foot()
  pages()
  pdf.file(Buffer.from(toCii(document, language)), {
    name: 'factur-x.xml',
    type: 'text/xml',
    description: 'Factur-X, EN 16931',
    creationDate: created,
    modifiedDate: created,
    relationship: 'Alternative',
  } as PDFKit.Mixins.PDFAttachmentOptions)
  ;(pdf as unknown as { appendXML(xml: string): void }).appendXML(facturXmp())
  pdf.end()
  await ended
  return Buffer.concat(chunks)

  function head(): void {
    sheet.box(0, 0, PAGE.width, 6, ACCENT)
    const left = sheet.text(invoice.seller.name, LEFT, TOP, 270, { size: 15, weight: 600 })
    let y = TOP + left + 3
    for (const line of [...invoice.seller.address, registrationsText(shownRegistrations(), language)]) {
      if (line !== '') y += sheet.text(line, LEFT, y, 270, { size: 8, color: GRAY })
    }
    sheet.line(say(invoice.kind), LEFT, TOP - 4, RIGHT - LEFT, {
      size: 22,
      weight: 600,
      color: ACCENT,
      align: 'right',
    })
    const sub = invoice.number ?? say('draft')
    sheet.line(sub, LEFT, TOP + 25, RIGHT - LEFT, {
      size: invoice.number === null ? 9 : 12,
      color: invoice.number === null ? WARN : INK,
      align: 'right',
    })
    sheet.y = Math.max(y, TOP + 46) + 22
  }

  function shownRegistrations(): Record<string, string> {
    const { IBAN: _, BIC: __, ...rest } = invoice.seller.registrations
    return rest
  }

  function parties(): void {
    const { customer, period } = invoice
    const from = sheet.y
    const middle = LEFT + 265
    const small: Style = { size: 8, color: GRAY }
    const bold: Style = { size: 8.5, weight: 600 }
    // Why there is no tax stands at the foot.
    const { Exonération: _, ...registrations } = customer.registrations
    const address = [...customer.address, registrationsText(registrations, language)].filter((line) => line !== '')
    if (address.length === 0) address.push(customer.country)
    const facts: (readonly [string, string])[] = [
      [say('issued'), invoice.issuedOn === null ? '—' : formatDate(invoice.issuedOn, language)],
      ...(invoice.dueOn === null || invoice.kind === 'credit_note'
        ? []
        : [[say('due'), formatDate(invoice.dueOn, language)] as const]),
      [say('period'), `${formatDate(period.firstDay, language)} – ${formatDate(period.lastDay, language)}`],
      [say('contract'), invoice.contractName],
      ...(invoice.refersTo === null ? [] : [[say('refers'), referenceText(invoice.refersTo, language)] as const]),
    ]
    const factWidth = RIGHT - middle - 96
    const heights = [
      25 +
        sheet.height(customer.name, 228, { size: 11, weight: 600 }) +
        address.reduce((all, line) => all + sheet.height(line, 228, small), 0),
      12 + facts.reduce((all, [, value]) => all + sheet.height(value, factWidth, bold) + 3, 0),
    ]
    const height = Math.max(...heights) + 10
    sheet.box(LEFT, from, RIGHT - LEFT, height, TINT)
    let y = from + 12
    sheet.line(say('billedTo').toUpperCase(), LEFT + 12, y, 220, { size: 7, weight: 600, color: GRAY })
    y += 13
    y += sheet.text(customer.name, LEFT + 12, y, 228, { size: 11, weight: 600 })
    for (const line of address) y += sheet.text(line, LEFT + 12, y, 228, small)
    y = from + 12
    for (const [label, value] of facts) {
      sheet.line(label, middle, y, 80, small)
      y += sheet.text(value, middle + 84, y - 0.5, factWidth, bold) + 3
    }
    sheet.y = from + height + 20
  }

  function tableHead(columns: readonly Column[]): void {
    for (const { title, x, width, align } of columns)
      sheet.line(title, x, sheet.y, width, { size: 7.5, weight: 600, color: GRAY, align })
    sheet.y += 14
    sheet.rule(sheet.y, INK, 0.9)
    sheet.y += 7
  }

  function lineTable(): void {
    // One column of amounts sums to one total: TTC when all lines are with tax, else HT.
    const inclusive = invoice.lines.length > 0 && invoice.lines.every((line) => line.taxBehavior === 'inclusive')
    const mixed = !inclusive && invoice.lines.some((line) => line.taxBehavior === 'inclusive')
    const printed = (line: InvoiceLine): string => (inclusive ? line.amount : netOf(line))
    const columns: Column[] = [
      { title: say('description'), x: LEFT, width: 252, align: 'left' },
      { title: say('quantity'), x: LEFT + 258, width: 58, align: 'right' },
      {
        title: say(inclusive ? 'price_with_tax' : mixed ? 'price_of_either' : 'price'),
        x: LEFT + 318,
        width: 70,
        align: 'right',
      },
      { title: say('rate'), x: LEFT + 390, width: 34, align: 'right' },
      {
        title: say(inclusive ? 'amount_with_tax' : 'amount'),
        x: LEFT + 426,
        width: RIGHT - LEFT - 426,
        align: 'right',
      },
    ]
    if (inclusive || mixed)
      sheet.y +=
        sheet.text(say(inclusive ? 'prices_with_tax' : 'prices_mixed'), LEFT, sheet.y - 8, RIGHT - LEFT, {
          size: 8,
          color: GRAY,
        }) + 4
    const [description, ...figures] = columns
    let sum = new Decimal(0)
    const carry = (label: string): void => {
      const { x, width, align } = figures[3]!
      const style: Style = { size: 8.5, color: GRAY }
      sheet.line(label, LEFT, sheet.y, x - LEFT - 10, { ...style, align: 'right' })
      sheet.line(money(printMoney(sum, invoice.currency)), x, sheet.y, width, { ...style, align })
      sheet.y += 14
    }
    const row = (title: string, words: string, cells: readonly string[], amount: string, last: boolean): void => {
      const [label, note] = [title.replace(/ ([0-9]{4})$/, '\u00a0$1'), glued(words)]
      const titleStyle: Style = { size: 9, weight: 600 }
      const noteStyle: Style = { size: 7.6, color: GRAY }
      // The calculation runs under the figures, which take one line.
      const noteWidth = RIGHT - LEFT
      const height =
        sheet.height(label, description!.width, titleStyle) +
        (note === '' ? 0 : 2 + sheet.height(note, noteWidth, noteStyle))
      // The sum so far closes the page and opens the next one; totals never stand on a page without a line.
      if (sheet.y + height + 14 + (last ? totalsHeight() : 18) > BOTTOM) {
        if (!sum.isZero()) carry(say('carry'))
        sheet.need(PAGE.height)
        tableHead(columns)
        if (!sum.isZero()) {
          carry(say('carried'))
          sheet.rule(sheet.y)
          sheet.y += 7
        }
      }
      sum = sum.plus(amount)
      const y = sheet.y
      const used = sheet.text(label, description!.x, y, description!.width, titleStyle)
      if (note !== '') sheet.text(note, description!.x, y + used + 2, noteWidth, noteStyle)
      for (const [i, cell] of cells.entries()) {
        const { x, width, align } = figures[i]!
        const style: Style = { size: 9, align, weight: i === 3 ? 600 : 400 }
        // A figure that is wider than its column is printed smaller, never over its neighbour.
        const size = Math.min(9, (9 * (width - 3)) / Math.max(1, sheet.width(cell, style)))
        sheet.line(cell, x, y + (9 - size) * 0.9, width, { ...style, size })
      }
      sheet.y = y + height + 7
      sheet.rule(sheet.y)
      sheet.y += 7
    }
    tableHead(columns)
    if (invoice.lines.length > limits.printedLinesMax) {
      const { groups } = groupLines(
        invoice.lines.map((line) => ({ ...line, amount: printed(line) })),
        (line) => groupKey(line, language, say('fee')),
        invoice.currency,
        limits.printedLinesMax,
      )
      const lines = new Map<string, InvoiceLine[]>()
      for (const line of invoice.lines) {
        const key = groupKey(line, language, say('fee'))
        const own = lines.get(key) ?? []
        lines.set(key, own)
        own.push(line)
      }
      for (const [i, group] of groups.entries()) {
        const count = `${formatNumber(String(group.lines), language)} ${say('lines')}`
        const figures = groupCells(lines.get(group.key) ?? [])
        row(group.key, count, [...figures, money(group.amount)], group.amount, i === groups.length - 1)
      }
      return
    }
    for (const [i, line] of invoice.lines.entries()) {
      row(
        line.label[language],
        `${itemOf(line)}${line.explanation[language]}`,
        [
          ...unitCells(line, mixed && line.net !== undefined ? ` ${say('with_tax')}` : ''),
          formatPercent(line.taxRate, language),
          money(printed(line)),
        ],
        printed(line),
        i === invoice.lines.length - 1,
      )
    }
  }

  /** Which item of its plan a line is of, when there are several; the label names the plan. */
  function itemOf({ type, item, plan }: InvoiceLine): string {
    const [name, prefix] = [names.get(item)!, `${plan.name} — `]
    return name.startsWith(prefix) && !['discount', 'cap', 'minimum'].includes(type)
      ? `${name.slice(prefix.length)} · `
      : ''
  }

  /**
   * Quantity and unit price. Where prices are several (tiers, a fee beside them), the units that are billed, and the words say how; what
   * is no quantity is one at its amount.
   */
  function unitCells(line: InvoiceLine, taxed: string): readonly [string, string] {
    const { price, agreed } = unitsOf(line)
    const units = formatNumber(shownUnits(line), language)
    if (isShare(line) && agreed && line.price?.model === 'percentage')
      return [units, formatPercent(printDecimal(new Decimal(price).times(100)), language)]
    if (isShare(line) || (!agreed && line.metric !== null)) return [units, say('detailed')]
    return [units, `${money(agreed ? price : line.amount)}${taxed}`]
  }

  /** Quantity, unit price and tax rate of lines that are printed as one, each where it is the same for all. */
  function groupCells(lines: readonly InvoiceLine[]): readonly [string, string, string] {
    const units = lines.map((line) => unitCells(line, ''))
    const [prices, rates] = [new Set(units.map(([, price]) => price)), new Set(lines.map((line) => line.taxRate))]
    const price = prices.size === 1 && !lines.some((line) => line.taxBehavior === 'inclusive') ? units[0]![1] : ''
    const whole = sum(lines.map((line) => new Decimal(shownUnits(line))))
    return [
      lines.length === 0 ? '' : formatNumber(printDecimal(whole), language),
      price,
      rates.size === 1 ? formatPercent(lines[0]!.taxRate, language) : '',
    ]
  }

  function totals(): void {
    const x = LEFT + 250
    // The box ends at the margin as the table does; what stands in it and above it keeps its padding, so that amounts are one column.
    const pad = 10
    const width = RIGHT - pad - x
    const rows: [string, string][] = [
      [say('total'), money(invoice.ht)],
      ...invoice.taxes.map((tax): [string, string] => [
        `${say('vat')} ${formatPercent(tax.rate, language)} ${say('on')} ${money(tax.base)}`,
        money(tax.tax),
      ]),
    ]
    sheet.need(totalsHeight())
    sheet.y += 4
    const seal = sheet.y
    if (certification !== null) certified(certification, seal + 2)
    for (const [label, value] of rows) {
      sheet.line(label, x, sheet.y, width - 90, { size: 9, color: GRAY })
      sheet.line(value, x, sheet.y, width, { size: 9, align: 'right' })
      sheet.y += 17
    }
    sheet.box(x - pad, sheet.y, RIGHT - x + pad, 30, ACCENT)
    const label = say(invoice.kind === 'invoice' ? 'grand' : 'credited')
    sheet.line(label, x, sheet.y + 9, width, { size: 10, weight: 600, color: '#ffffff' })
    sheet.line(money(invoice.ttc), x, sheet.y + 8, width, {
      size: 12,
      weight: 600,
      color: '#ffffff',
      align: 'right',
    })
    sheet.y = Math.max(sheet.y + 44, certification === null ? 0 : seal + SEAL + 14)
  }

  function totalsHeight(): number {
    const table = (invoice.taxes.length + 1) * 17 + 50
    return certification === null ? table : Math.max(table, SEAL + 20)
  }

  function payment(): void {
    if (invoice.kind !== 'invoice' || invoice.number === null || invoice.dueOn === null) return
    const { IBAN, BIC } = invoice.seller.registrations
    const texts = [
      `${say('pay')} ${formatDate(invoice.dueOn, language)}, ${say('reference')} ${invoice.number}`,
      ...(IBAN === undefined ? [] : [`IBAN ${IBAN}${BIC === undefined ? '' : ` · BIC ${BIC}`}`]),
    ]
    sheet.need(36)
    sheet.line(say('pay_to'), LEFT, sheet.y, 90, { size: 8.5, weight: 600 })
    for (const text of texts) sheet.y += sheet.text(text, LEFT + 78, sheet.y, RIGHT - LEFT - 78, { size: 8.5 })
    sheet.y += 12
  }

  /** The clearance system's reference, and its token as a QR code drawn by modules, beside the totals. */
  function certified({ system, reference, token }: PrintedCertification, y: number): void {
    const { modules } = QRCode.create(token, { errorCorrectionLevel: 'M' })
    const module = SEAL / modules.size
    for (let row = 0; row < modules.size; row += 1) {
      // A run of dark modules is one rectangle.
      for (let from = 0; from < modules.size; from += 1) {
        if (!modules.get(row, from)) continue
        let to = from
        while (to < modules.size && modules.get(row, to)) to += 1
        sheet.pdf.rect(LEFT + from * module, y + row * module, (to - from) * module, module)
        from = to
      }
    }
    sheet.pdf.fillColor('#000000').fill()
    const [x, width] = [LEFT + SEAL + 12, 140]
    let at = y + 2
    at += sheet.text(`${say('certified')} ${system.toUpperCase()}`, x, at, width, { size: 8.5, weight: 600 }) + 2
    at += sheet.text(reference, x, at, width, { size: 8 }) + 2
    sheet.text(token, x, at, width, { size: 6.2, color: GRAY })
  }

  function notices(): void {
    if (invoice.notices.length === 0) return
    sheet.need(30)
    sheet.line(say('notices'), LEFT, sheet.y, 90, { size: 8.5, weight: 600, color: WARN })
    const counts = new Map<string, number>()
    for (const { text } of invoice.notices) counts.set(text[language], (counts.get(text[language]) ?? 0) + 1)
    for (const [text, count] of [...counts].slice(0, limits.printedLinesMax)) {
      sheet.need(14)
      sheet.y +=
        sheet.text(count === 1 ? text : `${text} (${count} ×)`, LEFT + 78, sheet.y, RIGHT - LEFT - 78, { size: 8.5 }) +
        2
    }
    sheet.y += 10
  }

  /** Lines whose usage data have no entry of their own in the statement. */
  function dataLines(): InvoiceLine[] {
    return invoice.lines.filter((line) => line.data !== undefined)
  }

  function statement(): void {
    if (invoice.usage.length === 0 && dataLines().length === 0) return
    const columns: Column[] = [
      { title: say('metric'), x: LEFT, width: 150, align: 'left' },
      { title: say('used'), x: LEFT + 150, width: 70, align: 'right' },
      { title: say('included'), x: LEFT + 224, width: 66, align: 'right' },
      { title: say('used_part'), x: LEFT + 306, width: 110, align: 'left' },
      { title: say('over'), x: LEFT + 420, width: RIGHT - LEFT - 420, align: 'right' },
    ]
    const rows = statementRows(columns)
    const foot = footHeight()
    const heightOf = (from: number, count: number): number =>
      rows.slice(from, from + count).reduce((all, row) => all + row.height, 0)
    // A title keeps the rows below it, and the last rows go with the foot, which never has a page of its own.
    const roomOf = (i: number): number => {
      const { keep } = rows[i]!
      const last = rows.length - i <= Math.max(3, keep)
      return 1 + (last ? heightOf(i, rows.length) + foot + 26 : heightOf(i, keep))
    }
    sheet.need(STATEMENT_HEAD + roomOf(0))
    sheet.y += 6
    sheet.line(say('statement'), LEFT, sheet.y, 300, { size: 11, weight: 600, color: ACCENT })
    sheet.y += 20
    if (invoice.usage.length > 0) tableHead(columns)
    for (const [i, { height, draw }] of rows.entries()) {
      if (sheet.need(roomOf(i)) && invoice.usage.length > 0) tableHead(columns)
      draw(sheet.y)
      sheet.y += height
    }
    sheet.y += 4
  }

  interface StatementRow {
    readonly height: number
    /** Rows from this one on that stay together. */
    readonly keep: number
    draw(y: number): void
  }

  function statementRows(columns: readonly Column[]): StatementRow[] {
    const rows: StatementRow[] = []
    const small: Style = { size: 7.6, color: GRAY }
    let printed = 0
    const dataRows = (entries: readonly DataEntry[], count: number): void => {
      const shown = entries.slice(0, Math.max(0, limits.printedDataMax - printed))
      printed += shown.length
      for (const entry of shown) {
        const text = dataEntryText(entry, invoice.period.timeZone, language)
        for (const [i, line] of sheet.wrap(text, RIGHT - LEFT - 22, small).entries())
          rows.push({
            height: 10.8,
            keep: 1,
            draw: (y) => sheet.line(line, LEFT + (i === 0 ? 10 : 18), y, RIGHT - LEFT - 18, small),
          })
      }
      if (count > shown.length) {
        const more = `… ${formatNumber(String(count - shown.length), language)} ${say('more_data')}`
        rows.push({ height: 10.8, keep: 1, draw: (y) => sheet.line(more, LEFT + 10, y, RIGHT - LEFT, small) })
      }
      if (count > 0) rows.push({ height: 3, keep: 1, draw: () => undefined })
    }
    const items = new Set(invoice.usage.map((entry) => entry.item))
    const shown = invoice.usage.slice(0, limits.printedLinesMax)
    let item = items.size > 1 ? '' : (shown[0]?.item ?? '')
    for (const entry of shown) {
      if (entry.item !== item) {
        item = entry.item
        const own = Math.min(8, shown.filter((one) => one.item === entry.item).length)
        rows.push({
          height: 17,
          keep: 1 + own,
          draw: (y) => sheet.line(names.get(entry.item)!, LEFT, y + 3, RIGHT - LEFT, { ...small, weight: 600 }),
        })
      }
      const { data = [] } = entry
      const called = sheet.height(calledIn(entry), columns[0]!.width, USAGE_NAME)
      const height = called + 15 - sheet.height('', columns[0]!.width, USAGE_NAME)
      rows.push({ height, keep: data.length > 0 ? 2 : 1, draw: (y) => usageRow(columns, entry, y) })
      dataRows(data, data.length === 0 ? 0 : (entry.proof.data?.count ?? data.length))
    }
    if (invoice.usage.length > shown.length) {
      const more = `… ${formatNumber(String(invoice.usage.length - shown.length), language)} ${say('more')}`
      rows.push({ height: 12, keep: 1, draw: (y) => sheet.line(more, LEFT, y, RIGHT - LEFT, { size: 8, color: GRAY }) })
    }
    for (const { label, data = [], proof, type } of dataLines().slice(0, limits.printedLinesMax)) {
      const title: Style = { size: 8.5, weight: 600 }
      rows.push({ height: 15, keep: 2, draw: (y) => sheet.line(label[language], LEFT, y, RIGHT - LEFT, title) })
      // Of an earlier period only what is new is printed.
      dataRows(data, type === 'regularisation' ? data.length : (proof?.data?.count ?? data.length))
    }
    return rows
  }

  function calledIn({ metric, metricName }: UsageStatement): string {
    return metricName?.[language] ?? metric
  }

  function usageRow(columns: readonly Column[], entry: UsageStatement, y: number): void {
    const cell = (i: number, text: string, style: Style = {}): void => {
      const { x, width, align } = columns[i]!
      sheet.line(text, x, y, width, { size: 8.5, align, ...style })
    }
    sheet.text(calledIn(entry), columns[0]!.x, y, columns[0]!.width, USAGE_NAME)
    cell(1, formatNumber(entry.quantity, language))
    cell(2, entry.limit === null ? say('unlimited') : formatNumber(entry.limit, language), { color: GRAY })
    if (entry.percent === null) return
    const { x } = columns[3]!
    const part = Math.min(1, Math.max(0, Number(entry.percent) / 100))
    const over = entry.status === 'over'
    sheet.box(x, y + 3.4, 60, 4.6, RULE)
    if (part > 0) sheet.box(x, y + 3.4, 60 * part, 4.6, over ? WARN : ACCENT)
    sheet.line(formatPercent(entry.percent, language), x + 66, y, 50, { size: 8, color: GRAY })
    if (over) cell(4, `+${formatNumber(entry.overage ?? '0', language)}`, { color: WARN, weight: 600 })
  }

  function footTexts(): string[] {
    const proofs = invoice.lines.some((line) => line.proof !== null)
    return [
      ...(invoice.lines.length > limits.printedLinesMax ? [say('grouped')] : []),
      ...(proofs && invoice.number !== null ? [`${say('proof')} ods-billing invoice verify ${invoice.number}.`] : []),
      ...mentionsOf(invoice).map((mention) => mention.text[language]),
    ]
  }

  function footHeight(): number {
    return footTexts().reduce((all, text) => all + sheet.height(text, RIGHT - LEFT, FOOT) + 1.5, 0)
  }

  function foot(): void {
    const texts = footTexts()
    if (texts.length === 0) return
    const height = footHeight()
    sheet.need(height + 14)
    sheet.y = Math.max(sheet.y + 8, BOTTOM - height)
    sheet.rule(sheet.y - 6)
    for (const text of texts) sheet.y += sheet.text(text, LEFT, sheet.y, RIGHT - LEFT, FOOT) + 1.5
  }

  function pages(): void {
    const { count } = pdf.bufferedPageRange()
    const [identity = ''] = sheet.wrap(`${invoice.seller.name} · ${name}`, RIGHT - LEFT - 80, { size: 7 })
    for (let page = 0; page < count; page += 1) {
      pdf.switchToPage(page)
      const y = PAGE.height - 44
      sheet.rule(y - 6)
      sheet.line(identity, LEFT, y, RIGHT - LEFT - 80, { size: 7, color: GRAY })
      const text = `${say('page')} ${page + 1} / ${count}`
      sheet.line(text, LEFT, y, RIGHT - LEFT, { size: 7, color: GRAY, align: 'right' })
    }
  }
}

/** A calculation breaks between its parts, not within one. */
function glued(words: string): string {
  return words
    .replaceAll(/\([^()]{1,48}\)/g, (part) => part.replaceAll(' ', '\u00a0'))
    .replaceAll(/ ([:;×])/g, '\u00a0$1')
    .replaceAll(/([×=+]) /g, '$1\u00a0')
}

/** Of an amount that passed through: its quantity is money. */
function isShare({ price }: InvoiceLine): boolean {
  return price?.model === 'percentage' || price?.model === 'graduated_percentage' || price?.model === 'dynamic'
}

/** Units that a price was asked for; of what is no quantity, one. */
function shownUnits(line: InvoiceLine): string {
  const { quantity, agreed } = unitsOf(line)
  if (agreed && !isShare(line)) return quantity
  if (line.metric === null) return '1'
  if (line.type === 'regularisation' || isShare(line)) return line.quantity
  if (line.steps.length === 0) return line.billable
  return printDecimal(sum(line.steps.map((step) => new Decimal(step.quantity))))
}

/** Lines of one kind: the fees of a plan, a metric of a plan, or lines with the same label. */
function groupKey(line: InvoiceLine, language: Language, fee: string): string {
  if (line.type === 'fee') return `${line.plan.name} — ${fee}`
  return line.metric === null || line.type === 'regularisation'
    ? line.label[language]
    : `${line.plan.name} — ${line.metricName?.[language] ?? line.metric}`
}

/** What a reader of Factur-X looks for in the metadata, and the schema that PDF/A wants of every property of its own. */
function facturXmp(): string {
  const properties = [
    ['DocumentFileName', 'The name of the embedded XML document'],
    ['DocumentType', 'The type of the hybrid document in capital letters, e.g. INVOICE or ORDER'],
    ['Version', 'The actual version of the standard applying to the embedded XML document'],
    ['ConformanceLevel', 'The conformance level of the embedded XML document'],
  ]
  return `<rdf:Description rdf:about="" xmlns:pdfaExtension="http://www.aiim.org/pdfa/ns/extension/" xmlns:pdfaSchema="http://www.aiim.org/pdfa/ns/schema#" xmlns:pdfaProperty="http://www.aiim.org/pdfa/ns/property#">
<pdfaExtension:schemas><rdf:Bag><rdf:li rdf:parseType="Resource">
<pdfaSchema:schema>Factur-X PDFA Extension Schema</pdfaSchema:schema>
<pdfaSchema:namespaceURI>urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#</pdfaSchema:namespaceURI>
<pdfaSchema:prefix>fx</pdfaSchema:prefix>
<pdfaSchema:property><rdf:Seq>
${properties
  .map(
    ([property, text]) =>
      `<rdf:li rdf:parseType="Resource"><pdfaProperty:name>${property}</pdfaProperty:name><pdfaProperty:valueType>Text</pdfaProperty:valueType><pdfaProperty:category>external</pdfaProperty:category><pdfaProperty:description>${text}</pdfaProperty:description></rdf:li>`,
  )
  .join('\n')}
</rdf:Seq></pdfaSchema:property>
</rdf:li></rdf:Bag></pdfaExtension:schemas>
</rdf:Description>
<rdf:Description rdf:about="" xmlns:fx="urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#">
<fx:DocumentType>INVOICE</fx:DocumentType>
<fx:DocumentFileName>factur-x.xml</fx:DocumentFileName>
<fx:Version>1.0</fx:Version>
<fx:ConformanceLevel>EN 16931</fx:ConformanceLevel>
</rdf:Description>`
}
