/**
 * The invoice as a document: plain JSON that holds all it needs to be read, checked and printed years later. Customer, legal
 * entity and prices are copies (snapshots); nothing is looked up again.
 *
 * Shape (amounts and quantities are decimal text, dates YYYY-MM-DD, instants epoch ms):
 *
 *   {id, kind: 'invoice'|'credit_note', number|null, contract, contractName, tenant, catalogVersion,
 *    period: {from, to, timeZone, firstDay, lastDay, label: {fr, en}}, issuedOn|null, dueOn|null, currency, language,
 *    seller: LegalEntity, customer: Customer, refersTo: null | {id, number, issuedOn?},
 *    lines: [{no, type: 'fee'|'add_on'|'usage'|'regularisation'|'discount'|'cap'|'minimum'|'credit', item, product, plan: {key, version, name}, metric|null, unit|null, label: {fr, en},
 *             quantity, included, billable, steps: [{after, upTo|null, quantity, unitPrice, flat, amount}], exact, amount,
 *             explanation: {fr, en}, taxRate, taxBehavior?, net?, price: Price|null, proof: Proof|null, period: {from, to}, since: cut|null}],
 *    usage: [{item, itemName?, product, metric, unit, quantity, limit|null, percent|null, overage|null, status, line|null, proof}],
 *    notices: [{code, item, metric|null, quantity|null, text: {fr, en}}],
 *    taxes: [{rate, base, tax}], ht, tva, ttc}
 *
 * The state (draft, finalised …) is beside the document, not in it: it may move when the document may not.
 */
import { createHash } from 'node:crypto'
import { canonical } from '../canonical.js'
import type { Customer, LegalEntity } from '../catalog/definition.js'
import type { Price } from '../catalog/price.js'
import { formatDate, type Language, type Words } from '../format.js'
import type { Period } from '../period.js'
import type { QuotaState } from '../quota/status.js'
import type { Step } from '../rating/rating.js'
import type { TaxRow } from '../rating/tax.js'

/** Usage data beside the stream that a figure holds: counted from their rows (usage-data/collect.ts). */
export interface DataProof {
  /** Those that made it, by name. */
  readonly calculators: readonly string[]
  /** What they came to, decimal text; the rest of the figure is the stream's. */
  readonly quantity: string
  readonly count: number
  /** Digest over the rows, hex. */
  readonly digest: string
}

/** A usage datum as the statement prints it. */
export interface DataEntry {
  readonly id: string
  readonly reference: string | null
  /** Epoch ms. */
  readonly start: number
  readonly end: number | null
  readonly value: string | null
  /** The beginning of a JSON datum. */
  readonly data: string | null
  readonly qualifier: string | null
  readonly description: string | null
  readonly notes: string | null
  /** Of the closing that collected it, among those of its contract; absent while it waits. */
  readonly order?: number
}

/** From a line to the events behind it: what was asked, of which state of the usage, and what came back. */
export interface Proof {
  /** Last epoch per stream that is counted. */
  readonly cut: Readonly<Record<string, number>>
  readonly query: string
  /** Events counted. */
  readonly count: number
  /** Digest over them, hex. */
  readonly digest: string
  readonly data?: DataProof
}

export interface InvoiceLine {
  readonly no: number
  readonly type: 'fee' | 'add_on' | 'usage' | 'regularisation' | 'discount' | 'cap' | 'minimum' | 'credit'
  readonly item: string
  readonly product: string
  readonly plan: { readonly key: string; readonly version: number; readonly name: string }
  readonly metric: string | null
  /** What the metric is called, when that is not its key. */
  readonly metricName?: Words
  readonly unit: string | null
  readonly label: Words
  readonly quantity: string
  /** Units of the quantity that cost nothing. */
  readonly included: string
  readonly billable: string
  /**
   * They sum to `exact`; of a regularisation they are those of its whole period, billed part included; of a credit for the whole
   * they are the invoice's, so that they sum to its opposite.
   */
  readonly steps: readonly Step[]
  readonly exact: string
  /** Rounded to the currency: HT, or TTC when `taxBehavior` says so. */
  readonly amount: string
  readonly explanation: Words
  readonly taxRate: string
  /** The amount, and with it the steps, hold the tax; absent: they are without. */
  readonly taxBehavior?: 'inclusive'
  /** HT, rounded to the currency, exactly of a line with tax: those of a rate sum to its base. */
  readonly net?: string
  readonly price: Price | null
  readonly proof: Proof | null
  /** What the line covers, half-open, epoch ms: of a regularisation the earlier period, of an item that began or ended its part. */
  readonly period: Period
  /** Of a grouped line: the objects that are in it. The detail of each is beside the invoice. */
  readonly objects?: number
  /** The first of the usage data of a line that has no entry of its own in the statement: of an amount, or of an earlier period. */
  readonly data?: readonly DataEntry[]
  /** Of a regularisation: the cut up to which earlier invoices had counted. The events behind the line are those since. */
  readonly since: Readonly<Record<string, number>> | null
}

/** Every metric of the contract, billed or not: the «relevé de consommation». */
export interface UsageStatement {
  readonly item: string
  /** Of the item's plan; absent in documents of before. */
  readonly itemName?: string
  readonly product: string
  readonly metric: string
  /** What the metric is called, when that is not its key. */
  readonly metricName?: Words
  readonly unit: string
  readonly quantity: string
  readonly limit: string | null
  readonly percent: string | null
  readonly overage: string | null
  readonly status: QuotaState
  /** The line that bills it. */
  readonly line: number | null
  readonly proof: Proof
  /** The first of the usage data in it. */
  readonly data?: readonly DataEntry[]
  /** What prepaid packs paid of it: each debit names its pack. */
  readonly prepaid?: {
    readonly covered: string
    readonly blocked: string
    readonly packs: readonly {
      readonly id: string
      readonly name: string
      readonly debited: string
      readonly left: string
      readonly forfeited: string
    }[]
  }
}

export interface Notice {
  readonly code:
    | 'late_refused'
    | 'overage_unpriced'
    | 'fee_unpriced'
    | 'add_on_unpriced'
    | 'usage_negative'
    | 'usage_data_unread'
    | 'meter_silent'
    | 'prepaid_used'
    | 'usage_blocked'
  readonly item: string
  readonly metric: string | null
  readonly quantity: string | null
  readonly text: Words
}

/**
 * Notices for the person who looks at a draft: what is wrong with meters and with data is no matter of the customer's. An issued
 * document does not carry them; the measure of its closing keeps them.
 */
const INTERNAL: ReadonlySet<Notice['code']> = new Set(['meter_silent', 'usage_data_unread'])

export function customerNotices(notices: readonly Notice[]): readonly Notice[] {
  return notices.some((notice) => INTERNAL.has(notice.code))
    ? notices.filter((notice) => !INTERNAL.has(notice.code))
    : notices
}

/** What the seller has yet to price: said by the document's data, by its draft and by `verify`, and no matter of the paper that a customer gets. */
const UNPRICED: ReadonlySet<Notice['code']> = new Set(['overage_unpriced', 'fee_unpriced', 'add_on_unpriced'])

export function printedNotices(notices: readonly Notice[]): readonly Notice[] {
  return customerNotices(notices).filter((notice) => !UNPRICED.has(notice.code))
}

/** The invoice that a credit note names. */
export interface Reference {
  readonly id: string
  readonly number: string
  /** Absent in credit notes of before. */
  readonly issuedOn?: string
}

export interface Invoice {
  readonly id: string
  readonly kind: 'invoice' | 'credit_note'
  readonly number: string | null
  readonly contract: string
  readonly contractName: string
  readonly tenant: string
  /** Version of the catalogue that the terms were read at. */
  readonly catalogVersion: number
  readonly period: {
    readonly from: number
    readonly to: number
    readonly timeZone: string
    readonly firstDay: string
    readonly lastDay: string
    readonly label: Words
  }
  readonly issuedOn: string | null
  readonly dueOn: string | null
  readonly currency: string
  readonly language: Language
  readonly seller: LegalEntity
  readonly customer: Customer
  readonly refersTo: Reference | null
  readonly lines: readonly InvoiceLine[]
  readonly usage: readonly UsageStatement[]
  readonly notices: readonly Notice[]
  readonly taxes: readonly TaxRow[]
  readonly ht: string
  readonly tva: string
  readonly ttc: string
}

/** What a line is without tax. The lines of a document sum to its HT. */
export function netOf(line: Pick<InvoiceLine, 'amount' | 'net'>): string {
  return line.net ?? line.amount
}

/** «FA-2026-0142 du 01/04/2026». */
export function referenceText({ number, issuedOn }: Reference, language: Language): string {
  if (issuedOn === undefined) return number
  return `${number} ${language === 'fr' ? 'du' : 'of'} ${formatDate(issuedOn, language)}`
}

/** SHA-256 of the document's canonical text, hex: kept beside an issued invoice, and comparable by anybody. */
export function hashOf(invoice: Invoice): string {
  return createHash('sha256').update(canonical(invoice)).digest('hex')
}
