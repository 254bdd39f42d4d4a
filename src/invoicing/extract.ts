/**
 * The complete detail of an invoice as a table: CSV for machines, XLSX for people. One row per line, however many there are; the
 * printed invoice groups, this does not. Pure: the same rows give the same bytes.
 *
 * CSV: RFC 4180, UTF-8 with a byte order mark, decimals with a point; a text that a spreadsheet would run as a formula gets an
 * apostrophe before it. XLSX: one sheet, written here because it is little: an uncompressed ZIP of four small XML parts. Amounts
 * are numbers in the sheet (a spreadsheet's double; the CSV and the invoice hold the exact text), all else is text.
 */
import { crc32 } from 'node:zlib'
import { assert } from '../assert.js'
import { unitsOf } from './cii.js'
import { type Invoice, type InvoiceLine, netOf } from './invoice.js'

export interface Table {
  readonly columns: readonly string[]
  readonly rows: readonly (readonly string[])[]
  /** Columns that hold numbers. */
  readonly numeric: ReadonlySet<string>
}

const LINE_COLUMNS = [
  'number',
  'line',
  'type',
  'item',
  'product',
  'plan',
  'metric',
  'unit',
  'label',
  'quantity',
  'included',
  'billable',
  'amount',
  'currency',
  'tax_rate',
  'price',
  'price_version',
  'events',
  'digest',
  'tax_behavior',
  'net_amount',
  'unit_price',
  'invoice',
  'invoice_date',
  'explanation',
]
const NUMERIC = new Set([
  'line',
  'quantity',
  'included',
  'billable',
  'amount',
  'net_amount',
  'unit_price',
  'tax_rate',
  'events',
])

/** One row per line of an invoice. */
export function tableOf(invoice: Invoice): Table {
  return {
    columns: LINE_COLUMNS,
    numeric: NUMERIC,
    rows: invoice.lines.map((line) => [
      invoice.number ?? '',
      String(line.no),
      line.type,
      line.item,
      line.product,
      line.plan.name,
      line.metric ?? '',
      line.unit ?? '',
      line.label[invoice.language],
      line.quantity,
      line.included,
      line.billable,
      line.amount,
      invoice.currency,
      line.taxRate,
      line.price?.rule ?? '',
      line.price?.version ?? '',
      line.proof === null ? '' : String(line.proof.count),
      line.proof?.digest ?? '',
      line.taxBehavior ?? 'exclusive',
      netOf(line),
      priceText(line),
      invoice.refersTo?.number ?? '',
      invoice.refersTo?.issuedOn ?? '',
      line.explanation[invoice.language],
    ]),
  }
}

/** One price that was agreed on; empty where there are several, or none. */
function priceText(line: InvoiceLine): string {
  const { price, agreed } = unitsOf(line)
  return agreed ? price : ''
}

type Columns = Pick<Table, 'columns' | 'numeric'>

/** One row, without its line break. */
export function csvRow(table: Columns, row: readonly string[]): string {
  const field = (text: string, column: string): string => {
    const safe = /^[=+\-@\t\r]/.test(text) && !table.numeric.has(column) ? `'${text}` : text
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
  }
  return row.map((text, i) => field(text, table.columns[i] ?? '')).join(',')
}

export function toCsv(table: Table): string {
  return `\ufeff${[table.columns.join(','), ...table.rows.map((row) => csvRow(table, row))].join('\r\n')}\r\n`
}

/** The row at a place from 1; the first one holds the names. */
export function sheetRow(table: Columns, row: readonly string[], at: number): string {
  const cells = row.map((text, i) => {
    const numeric = at > 1 && table.numeric.has(table.columns[i] ?? '') && /^-?[0-9]+(?:\.[0-9]+)?$/.test(text)
    return numeric
      ? `<c><v>${text}</v></c>`
      : `<c t="inlineStr"><is><t xml:space="preserve">${escapeXml(text)}</t></is></c>`
  })
  return `<row r="${at}">${cells.join('')}</row>`
}

/** The files of a workbook of one sheet, and what stands before and after the sheet's rows. */
export function sheetParts(): {
  readonly files: readonly (readonly [name: string, content: string])[]
  readonly sheet: string
  readonly before: string
  readonly after: string
} {
  const main = 'http://schemas.openxmlformats.org/spreadsheetml/2006/main'
  const relations = 'http://schemas.openxmlformats.org/officeDocument/2006/relationships'
  const packages = 'http://schemas.openxmlformats.org/package/2006'
  const application = 'application/vnd.openxmlformats-officedocument.spreadsheetml'
  const head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
  return {
    sheet: 'xl/worksheets/sheet1.xml',
    before: `${head}<worksheet xmlns="${main}"><sheetData>`,
    after: '</sheetData></worksheet>',
    files: [
      [
        '[Content_Types].xml',
        `${head}<Types xmlns="${packages}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="${application}.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="${application}.worksheet+xml"/></Types>`,
      ],
      [
        '_rels/.rels',
        `${head}<Relationships xmlns="${packages}/relationships"><Relationship Id="rId1" Type="${relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>`,
      ],
      [
        'xl/workbook.xml',
        `${head}<workbook xmlns="${main}" xmlns:r="${relations}"><sheets><sheet name="detail" sheetId="1" r:id="rId1"/></sheets></workbook>`,
      ],
      [
        'xl/_rels/workbook.xml.rels',
        `${head}<Relationships xmlns="${packages}/relationships"><Relationship Id="rId1" Type="${relations}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>`,
      ],
    ],
  }
}

export function toXlsx(table: Table): Buffer {
  const { files, sheet, before, after } = sheetParts()
  const rows = [table.columns, ...table.rows].map((row, at) => sheetRow(table, row, at + 1))
  return zip([...files, [sheet, `${before}${rows.join('')}${after}`]])
}

/** XML 1.0 has no way to write most control characters; they are left out. */
function escapeXml(text: string): string {
  return text
    .replace(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, '')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}

/** Stored entries without compression; names are ASCII; the date is the ZIP epoch, so that equal content is equal bytes. */
function zip(files: readonly (readonly [name: string, content: string])[]): Buffer {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const [name, content] of files) {
    const data = Buffer.from(content)
    assert(data.length < 2 ** 32 - 1, 'a ZIP entry is below 4 GiB')
    const shared = Buffer.alloc(26)
    shared.writeUInt16LE(20, 0) // version needed
    shared.writeUInt16LE(0x21, 8) // 1 January 1980
    shared.writeUInt32LE(crc32(data), 10)
    shared.writeUInt32LE(data.length, 14)
    shared.writeUInt32LE(data.length, 18)
    shared.writeUInt16LE(name.length, 22)
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), shared, Buffer.from(name, 'latin1'), data])
    const tail = Buffer.alloc(14)
    tail.writeUInt32LE(offset, 10)
    directory.push(
      Buffer.concat([Buffer.from('PK\x01\x02\x14\x00', 'latin1'), shared, tail, Buffer.from(name, 'latin1')]),
    )
    parts.push(local)
    offset += local.length
  }
  const central = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06', 'latin1')
  end.writeUInt16LE(files.length, 8)
  end.writeUInt16LE(files.length, 10)
  end.writeUInt32LE(central.length, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...parts, central, end])
}
