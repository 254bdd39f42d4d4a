/**
 * States of an invoice, the allowed moves, and what is derived from them: overdue is computed from the due date, never stored.
 * Pure. The database keeps the same table (071_life_cycle.sql) and writes a journal of every move.
 *
 *   draft ◄─► grace ──► certifying ──► finalised ──► sent ──► paid
 *     │  └───────┘          │ ▲            └──────────┴────────┴──► credited   (by credit notes for the whole amount)
 *     └─► discarded         ▼ │
 *                        rejected ──► credited
 *
 * A draft has no number, so that nothing is missing when it is discarded; `grace` is a draft that is counted again when its grace
 * ends. From certifying or finalised on the document never changes; only the state does. `certifying`: numbered, and waiting for a
 * clearance system; nothing is handed out before it has answered. `rejected`: the system refused it.
 */
import { DateTime } from 'luxon'
import { printMoney } from '../currency.js'
import { Decimal, parseDecimal, printAtLeast } from '../decimal.js'
import { ReleveError } from '../errors.js'

export const InvoiceMoves = {
  draft: ['grace', 'certifying', 'finalised', 'discarded'],
  grace: ['draft', 'certifying', 'finalised', 'discarded'],
  certifying: ['finalised', 'rejected'],
  rejected: ['certifying', 'credited'],
  finalised: ['sent', 'paid', 'credited'],
  sent: ['paid', 'credited'],
  paid: ['credited'],
  credited: [],
  discarded: [],
} as const satisfies Record<string, readonly string[]>
export type InvoiceState = keyof typeof InvoiceMoves

/** Throws ReleveError `conflict` when the move is not allowed. */
export function assertInvoiceMove(from: InvoiceState, to: InvoiceState): void {
  if (!(InvoiceMoves[from] as readonly string[]).includes(to)) {
    throw new ReleveError('conflict', `invoice: ${from} cannot become ${to}`)
  }
}

/** Without a number: it may still change. */
export function isOpen(state: InvoiceState): boolean {
  return state === 'draft' || state === 'grace'
}

/** Numbered, but not to be handed out: a clearance system has not taken it. */
export function isWithheld(state: InvoiceState): boolean {
  return state === 'certifying' || state === 'rejected'
}

/** Whether an invoice may be deleted, and if not, what to do instead. */
export function deletionOf(
  state: InvoiceState,
):
  | { readonly allowed: true }
  | { readonly allowed: false; readonly error: 'immutable'; readonly remedy: 'credit_note' } {
  return isOpen(state) || state === 'discarded'
    ? { allowed: true }
    : { allowed: false, error: 'immutable', remedy: 'credit_note' }
}

export interface PaymentStatus {
  readonly status: 'paid' | 'pending' | 'overdue'
  readonly daysLate: number
}

/** What the list shows for an issued invoice: dates are calendar dates, amounts decimal texts. */
export function paymentStatus(request: {
  readonly dueDate: string
  readonly paid: string
  readonly total: string
  readonly today: string
}): PaymentStatus {
  if (parseDecimal(request.paid, 'paid').gte(parseDecimal(request.total, 'total')))
    return { status: 'paid', daysLate: 0 }
  const day = (date: string): DateTime => DateTime.fromISO(date, { zone: 'utc' })
  const late = Math.round(day(request.today).diff(day(request.dueDate), 'days').days)
  return late > 0 ? { status: 'overdue', daysLate: late } : { status: 'pending', daysLate: 0 }
}

/** Of an issued invoice; null for a draft, a credit note, and what was credited or is not handed out. Payments in part are not kept here. */
export function paymentOf(
  state: InvoiceState,
  invoice: { readonly kind: 'invoice' | 'credit_note'; readonly dueOn: string | null; readonly ttc: string },
  today: string,
): PaymentStatus | null {
  const { kind, dueOn, ttc } = invoice
  if (kind !== 'invoice' || dueOn === null || !['finalised', 'sent', 'paid'].includes(state)) return null
  return paymentStatus({ dueDate: dueOn, paid: state === 'paid' ? ttc : '0', total: ttc, today })
}

/** Sums of TTC by status, and of all. */
export function totalsByStatus(
  invoices: readonly { readonly ttc: string; readonly status: PaymentStatus['status'] }[],
  currency: string,
): { readonly ttc: string } & Record<PaymentStatus['status'], string> {
  const total = (status: PaymentStatus['status'] | null): string =>
    printMoney(
      invoices.reduce(
        (all, invoice) => (status === null || invoice.status === status ? all.plus(invoice.ttc) : all),
        new Decimal(0),
      ),
      currency,
    )
  return { ttc: total(null), paid: total('paid'), pending: total('pending'), overdue: total('overdue') }
}

/**
 * What is left to credit of an invoice, and whether an amount (null: the whole rest) exceeds it.
 */
export function creditable(request: {
  readonly ttc: string
  readonly alreadyCredited: string
  readonly amount: string | null
}): {
  readonly creditable: string
  readonly exceeds: boolean
} {
  const left = parseDecimal(request.ttc, 'ttc').minus(parseDecimal(request.alreadyCredited, 'alreadyCredited'))
  const asked = request.amount === null ? left : parseDecimal(request.amount, 'amount')
  return { creditable: printAtLeast(left, decimals(request.ttc)), exceeds: asked.gt(left) }
}

/** The opposite of an amount, with its decimals kept: copied, not recomputed. */
export function opposite(amount: string): string {
  if (parseDecimal(amount, 'amount').isZero()) return amount
  return amount.startsWith('-') ? amount.slice(1) : `-${amount}`
}

function decimals(text: string): number {
  const point = text.indexOf('.')
  return point === -1 ? 0 : text.length - point - 1
}
