/**
 * Credit notes: the only way to correct an issued invoice. For the whole, amounts are copied from the invoice with the other
 * sign, never computed again; for a part, the amount includes tax and is split as an inclusive price. Parts together have the HT and
 * the TVA of what they take in all, so that those that take the whole are the invoice to the last unit. Pure.
 */

import { printMoney } from '../currency.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { formatMoney, formatPercent } from '../format.js'
import { splitInclusive, type Totals } from '../rating/tax.js'
import type { Invoice, InvoiceLine } from './invoice.js'
import { creditable, opposite } from './state.js'

/** What credit notes took from an invoice before. */
export type Credited = Pick<Totals, 'ht' | 'ttc'>
export const NOT_CREDITED: Credited = { ht: '0', ttc: '0' }

/**
 * `amount` is TTC; null is the whole, and needs that nothing was credited before. Throws ReleveError `unprocessable` beginning
 * with «exceeds_creditable:» when more is asked than is left.
 */
export function draftCreditNote(id: string, invoice: Invoice, before: Credited, amount: string | null): Invoice {
  assertCreditable(invoice.ttc, before.ttc, amount)
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
  if (amount === null && parseDecimal(before.ttc, 'before').isZero()) {
    return {
      ...base,
      lines: invoice.lines.map((line) => ({
        ...line,
        type: 'credit',
        exact: opposite(line.exact),
        amount: opposite(line.amount),
        ...(line.net === undefined ? {} : { net: opposite(line.net) }),
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
  const part = partOf(invoice, before, amount, row.rate)
  const first = invoice.lines[0]
  if (first === undefined) throw new ReleveError('unprocessable', 'the invoice has no line')
  const inclusive = invoice.lines.every((one) => one.taxBehavior === 'inclusive')
  const { taxBehavior: _, net: __, ...shown } = first
  const off = opposite(inclusive ? part.ttc : part.ht)
  const text = { fr: `Avoir partiel sur ${number}`, en: `Partial credit on ${number}` }
  const words = (language: 'fr' | 'en'): string => {
    const [some, all, tax] = [part.ttc, invoice.ttc, part.tva].map((one) =>
      formatMoney(one, invoice.currency, language),
    )
    const percent = formatPercent(row.rate, language)
    return language === 'fr'
      ? `${some} TTC sur ${all} facturés, dont TVA ${percent} : ${tax}`
      : `${some} incl. VAT of ${all} billed, of which VAT ${percent}: ${tax}`
  }
  const line: InvoiceLine = {
    ...shown,
    no: 1,
    type: 'credit',
    metric: null,
    unit: null,
    label: text,
    quantity: '1',
    included: '0',
    billable: '1',
    steps: [],
    exact: off,
    amount: off,
    ...(inclusive ? { taxBehavior: 'inclusive', net: opposite(part.ht) } : {}),
    explanation: { fr: words('fr'), en: words('en') },
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

/** HT is that of all that is credited then, less what was credited before: no rounding is left over at the end. */
function partOf({ ht, ttc, currency }: Invoice, before: Credited, amount: string | null, rate: string): Totals {
  const part = amount ?? creditable({ ttc, alreadyCredited: before.ttc, amount: null }).creditable
  const all = new Decimal(before.ttc).plus(part)
  const allHt = all.eq(ttc) ? ht : splitInclusive(printDecimal(all), rate, currency).ht
  const own = new Decimal(allHt).minus(before.ht)
  const money = (value: Decimal): string => printMoney(value, currency)
  return { ht: money(own), tva: money(new Decimal(part).minus(own)), ttc: money(new Decimal(part)) }
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
