/**
 * Credit notes: the only way to correct an issued invoice. For the whole, amounts are copied from the invoice with the other
 * sign, never computed again; for a part, the amount includes tax and is split as an inclusive price. Pure.
 */

import { parseDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { splitInclusive, type Totals } from '../rating/tax.js'
import type { Invoice, InvoiceLine } from './invoice.js'
import { creditable, opposite } from './state.js'

/**
 * `amount` is TTC; null is the whole, and needs that nothing was credited before. Throws ReleveError `unprocessable` beginning
 * with «exceeds_creditable:» when more is asked than is left.
 */
export function draftCreditNote(id: string, invoice: Invoice, alreadyCredited: string, amount: string | null): Invoice {
  assertCreditable(invoice.ttc, alreadyCredited, amount)
  const { number } = invoice
  if (number === null) throw new ReleveError('conflict', 'invoice: a draft is changed or discarded, not credited')
  const base: Invoice = {
    ...invoice,
    id,
    kind: 'credit_note',
    number: null,
    issuedOn: null,
    dueOn: null,
    refersTo: { id: invoice.id, number },
    usage: [],
    notices: [],
  }
  if (amount === null && parseDecimal(alreadyCredited, 'alreadyCredited').isZero()) {
    return {
      ...base,
      lines: invoice.lines.map((line) => ({
        ...line,
        type: 'credit',
        exact: opposite(line.exact),
        amount: opposite(line.amount),
        steps: [],
        explanation: { fr: `avoir sur ${number}, ligne ${line.no}`, en: `credit on ${number}, line ${line.no}` },
      })),
      taxes: invoice.taxes.map((row) => ({ rate: row.rate, base: opposite(row.base), tax: opposite(row.tax) })),
      ...creditTotals(invoice),
    }
  }
  // A part of an invoice with several rates would need lines to say which; one rate is the rule here.
  const [row, ...others] = invoice.taxes
  if (row === undefined || others.length > 0) {
    throw new ReleveError('unprocessable', 'a part can be credited only of an invoice with one tax rate')
  }
  const part = splitInclusive(
    amount ?? creditable({ ttc: invoice.ttc, alreadyCredited, amount: null }).creditable,
    row.rate,
    invoice.currency,
  )
  const first = invoice.lines[0]
  if (first === undefined) throw new ReleveError('unprocessable', 'the invoice has no line')
  const text = { fr: `avoir partiel sur ${number}`, en: `partial credit on ${number}` }
  const line: InvoiceLine = {
    ...first,
    no: 1,
    type: 'credit',
    metric: null,
    unit: null,
    label: text,
    quantity: '1',
    included: '0',
    billable: '1',
    steps: [],
    exact: opposite(part.ht),
    amount: opposite(part.ht),
    explanation: text,
    price: null,
    proof: null,
  }
  return {
    ...base,
    lines: [line],
    taxes: [{ rate: row.rate, base: opposite(part.ht), tax: opposite(part.tva) }],
    ...creditTotals(part),
  }
}

/** Copied with the other sign. */
export function creditTotals(totals: Totals): Totals {
  return { ht: opposite(totals.ht), tva: opposite(totals.tva), ttc: opposite(totals.ttc) }
}

export function assertCreditable(ttc: string, alreadyCredited: string, amount: string | null): void {
  const left = creditable({ ttc, alreadyCredited, amount })
  if (left.exceeds || parseDecimal(left.creditable, 'creditable').lte(0)) {
    throw new ReleveError('unprocessable', `exceeds_creditable: ${left.creditable} of ${ttc} is left to credit`)
  }
}
