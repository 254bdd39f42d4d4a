/**
 * Credit notes: the only way to correct an issued invoice. For the whole, amounts are copied from the invoice with the other
 * sign, never computed again; for a part, the amount includes tax and is split as an inclusive price. Parts together have the HT and
 * the TVA of what they take in all, so that those that take the whole are the invoice to the last unit. Of an invoice with several
 * rates a part comes off each by its share of what is left of it, one line and one row of tax a rate (EN 16931 BG-23). Pure.
 */

import { assert } from '../assert.js'
import { printMoney } from '../currency.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { formatMoney, formatPercent } from '../format.js'
import { spread } from '../rating/adjust.js'
import { splitInclusive, type TaxRow, type Totals } from '../rating/tax.js'
import type { Invoice, InvoiceLine, Reference } from './invoice.js'
import { creditable, opposite } from './state.js'

/** What credit notes took from an invoice before. */
export interface Credited extends Pick<Totals, 'ht' | 'ttc'> {
  /** By rate; needed where the invoice has several. */
  readonly taxes?: readonly TaxRow[]
}
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
    refersTo: referenceTo(invoice),
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
        explanation: {
          fr: `avoir sur ${number}, ligne ${line.no} — ${line.explanation.fr}`,
          en: `credit on ${number}, line ${line.no} — ${line.explanation.en}`,
        },
      })),
      taxes: invoice.taxes.map((row) => ({ rate: row.rate, base: opposite(row.base), tax: opposite(row.tax) })),
      ...creditTotals(invoice),
    }
  }
  const parts = partsOf(invoice, before, amount)
  const lines = parts.map(({ rate, part }, i) => partLine(invoice, number, rate, part, i + 1))
  const sum = (of: (part: Totals) => string): string =>
    printMoney(
      parts.reduce((all, { part }) => all.plus(of(part)), new Decimal(0)),
      invoice.currency,
    )
  return {
    ...base,
    lines,
    taxes: parts.map(({ rate, part }) => ({ rate, base: opposite(part.ht), tax: opposite(part.tva) })),
    ...creditTotals({ ht: sum(({ ht }) => ht), tva: sum(({ tva }) => tva), ttc: sum(({ ttc }) => ttc) }),
  }
}

/** How a credit note names an issued invoice. */
export function referenceTo({ id, number, issuedOn }: Invoice): Reference {
  assert(number !== null, 'a credit note names an issued invoice')
  return { id, number, ...(issuedOn === null ? {} : { issuedOn }) }
}

function partLine(invoice: Invoice, number: string, rate: string, part: Totals, no: number): InvoiceLine {
  const own = invoice.lines.filter((line) => line.taxRate === rate)
  const first = own[0] ?? invoice.lines[0]
  if (first === undefined) throw new ReleveError('unprocessable', 'the invoice has no line')
  const inclusive = own.every((one) => one.taxBehavior === 'inclusive')
  const { taxBehavior: _, net: __, ...shown } = first
  const off = opposite(inclusive ? part.ttc : part.ht)
  const row = invoice.taxes.find((one) => one.rate === rate)!
  const several = invoice.taxes.length > 1
  const billed = several ? printMoney(new Decimal(row.base).plus(row.tax), invoice.currency) : invoice.ttc
  const of = (language: 'fr' | 'en'): string => {
    const percent = formatPercent(rate, language)
    return several ? (language === 'fr' ? `, part à ${percent}` : `, the part at ${percent}`) : ''
  }
  const words = (language: 'fr' | 'en'): string => {
    const [some, all, tax] = [part.ttc, billed, part.tva].map((one) => formatMoney(one, invoice.currency, language))
    const percent = formatPercent(rate, language)
    return language === 'fr'
      ? `${some} TTC sur ${all} facturés, dont TVA ${percent} : ${tax}`
      : `${some} incl. VAT of ${all} billed, of which VAT ${percent}: ${tax}`
  }
  return {
    ...shown,
    no,
    type: 'credit',
    metric: null,
    unit: null,
    label: { fr: `Avoir partiel sur ${number}${of('fr')}`, en: `Partial credit on ${number}${of('en')}` },
    quantity: '1',
    included: '0',
    billable: '1',
    steps: [],
    exact: off,
    amount: off,
    taxRate: rate,
    ...(inclusive ? { taxBehavior: 'inclusive', net: opposite(part.ht) } : {}),
    explanation: { fr: words('fr'), en: words('en') },
    price: null,
    proof: null,
  }
}

/**
 * By rate. HT is that of all that is credited of a rate then, less what was credited before: no rounding is left over at the end.
 */
function partsOf(
  { taxes, ttc, currency }: Invoice,
  before: Credited,
  amount: string | null,
): { readonly rate: string; readonly part: Totals }[] {
  const whole = amount ?? creditable({ ttc, alreadyCredited: before.ttc, amount: null }).creditable
  const money = (value: Decimal): string => printMoney(value, currency)
  const rows = taxes.map(({ rate, base, tax }) => {
    const known = before.taxes?.find((one) => one.rate === rate)
    const only = taxes.length === 1 && before.taxes === undefined
    const ht = new Decimal(only ? before.ht : (known?.base ?? 0))
    const taken = only ? new Decimal(before.ttc) : ht.plus(known?.tax ?? 0)
    const all = new Decimal(base).plus(tax)
    return { rate, base, all, ht, taken, left: Decimal.max(all.minus(taken), 0) }
  })
  const shares =
    rows.length === 1
      ? [whole]
      : spread(
          whole,
          rows.map(({ left }) => money(left)),
          currency,
        )
  return rows.flatMap(({ rate, base, all, ht, taken }, i) => {
    const share = new Decimal(shares[i]!)
    if (share.isZero()) return []
    const then = taken.plus(share)
    const allHt = then.eq(all) ? base : splitInclusive(printDecimal(then), rate, currency).ht
    const own = new Decimal(allHt).minus(ht)
    return [{ rate, part: { ht: money(own), tva: money(share.minus(own)), ttc: money(share) } }]
  })
}

/** What notes have taken of their invoice, positive. */
export function creditedBy(notes: readonly Invoice[]): Credited {
  const sum = (of: (note: Invoice) => string): string =>
    printDecimal(notes.reduce((all, note) => all.minus(of(note)), new Decimal(0)))
  const taxes = new Map<string, { base: Decimal; tax: Decimal }>()
  for (const { rate, base, tax } of notes.flatMap((note) => note.taxes)) {
    const known = taxes.get(rate) ?? { base: new Decimal(0), tax: new Decimal(0) }
    taxes.set(rate, { base: known.base.minus(base), tax: known.tax.minus(tax) })
  }
  return {
    ht: sum(({ ht }) => ht),
    ttc: sum(({ ttc }) => ttc),
    taxes: [...taxes].map(([rate, { base, tax }]) => ({ rate, base: printDecimal(base), tax: printDecimal(tax) })),
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
