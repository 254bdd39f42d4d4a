/**
 * An invoice in the formats that people and machines ask for, by one name each, and which one a request means. What each looks
 * like is in the file of that format.
 */
import { ReleveError } from '../errors.js'
import type { Language } from '../format.js'
import type { Certification } from './certification.js'
import { toCii } from './cii.js'
import { tableOf, toCsv, toXlsx } from './extract.js'
import { type Invoice, printedNotices } from './invoice.js'
import { toPdf } from './pdf.js'
import { renderInvoice } from './render.js'
import { type InvoiceState, isWithheld } from './state.js'

export const DocumentFormat = ['pdf', 'xml', 'csv', 'xlsx', 'txt'] as const
export type DocumentFormat = (typeof DocumentFormat)[number]

export const DOCUMENT_TYPES: Readonly<Record<DocumentFormat, string>> = {
  pdf: 'application/pdf',
  xml: 'application/xml; charset=utf-8',
  csv: 'text/csv; charset=utf-8',
  xlsx: 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
  txt: 'text/plain; charset=utf-8',
}

/** What a clearance system gave for the printed page. */
export interface PrintedCertification {
  readonly system: string
  readonly reference: string
  /** The text of the QR code. */
  readonly token: string
}

/** Throws ReleveError `conflict` for a document that its clearance system has not taken: nothing is handed out before. */
export function assertPrintable(state: InvoiceState, found: Certification | null): PrintedCertification | null {
  if (isWithheld(state))
    throw new ReleveError(
      'conflict',
      `invoice: its certification is ${found?.state ?? 'missing'}; it is handed out after that`,
    )
  if (found?.state !== 'certified' || found.reference === null || found.token === null) return null
  return { system: found.system, reference: found.reference, token: found.token }
}

export async function printInvoice(
  invoice: Invoice,
  format: DocumentFormat,
  language: Language = invoice.language,
  certification: PrintedCertification | null = null,
): Promise<{ readonly type: string; readonly body: Buffer }> {
  const type = DOCUMENT_TYPES[format]
  // A draft says to its maker what is missing; an issued one is the customer's.
  const shown = invoice.number === null ? invoice : { ...invoice, notices: printedNotices(invoice.notices) }
  switch (format) {
    case 'pdf':
      return { type, body: await toPdf(shown, language, certification) }
    case 'xml':
      return { type, body: Buffer.from(toCii(invoice, language)) }
    case 'csv':
      return { type, body: Buffer.from(toCsv(tableOf(invoice))) }
    case 'xlsx':
      return { type, body: toXlsx(tableOf(invoice)) }
    case 'txt':
      return { type, body: Buffer.from(renderInvoice(shown, { language })) }
  }
}

/** `format` wins over a suffix of the id, and that over Accept; JSON when nobody says. */
export function formatOf(
  id: string,
  format: string | undefined,
  accept: string | undefined,
): { readonly id: string; readonly format: DocumentFormat | 'json' } {
  const suffix = DocumentFormat.find((one) => id.endsWith(`.${one}`))
  const name = suffix === undefined ? id : id.slice(0, -suffix.length - 1)
  if (format !== undefined) return { id: name, format: DocumentFormat.find((one) => one === format) ?? 'json' }
  if (suffix !== undefined) return { id: name, format: suffix }
  for (const part of accept?.split(',') ?? []) {
    const type = part.split(';')[0]!.trim()
    if (type === 'application/json' || type === '*/*') break
    const wanted = DocumentFormat.find((one) => DOCUMENT_TYPES[one].split(';')[0] === type)
    if (wanted !== undefined) return { id: name, format: wanted }
  }
  return { id: name, format: 'json' }
}
