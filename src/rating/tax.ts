/**
 * Tax. Rounded once per rate on the invoice, not per line (EN 16931, BR-CO-17): three lines of 1.25 at 18 % owe 0.68, not 0.69.
 * With prices that include tax, TVA is TTC − HT: some totals are not reachable as HT + round(HT × rate). Pure.
 *
 * HT is without tax, TVA the tax, TTC with tax. Rates are percent as decimal text.
 */
import { printMoney } from '../currency.js'
import { Decimal, parseDecimal, printDecimal, sum, ZERO } from '../decimal.js'

export interface Totals {
  readonly ht: string
  readonly tva: string
  readonly ttc: string
}

/** Tax of one rate. */
export interface TaxRow {
  readonly rate: string
  readonly base: string
  readonly tax: string
}

export function addTax(ht: string, rate: string, currency: string): Totals {
  const base = new Decimal(printMoney(parseDecimal(ht, 'ht'), currency))
  const tva = new Decimal(printMoney(base.times(parseDecimal(rate, 'rate')).dividedBy(100), currency))
  return { ht: printMoney(base, currency), tva: printMoney(tva, currency), ttc: printMoney(base.plus(tva), currency) }
}

/** From an amount that includes tax. */
export function splitInclusive(ttc: string, rate: string, currency: string): Totals {
  const total = new Decimal(printMoney(parseDecimal(ttc, 'ttc'), currency))
  const ht = new Decimal(printMoney(total.dividedBy(parseDecimal(rate, 'rate').dividedBy(100).plus(1)), currency))
  return { ht: printMoney(ht, currency), tva: printMoney(total.minus(ht), currency), ttc: printMoney(total, currency) }
}

/**
 * Lines (already rounded HT amounts, each with its rate) to totals and one row per rate, in order of first appearance. `per_line`
 * rounds the tax of each line instead, for comparison with systems that do: no invoice of ours is made so.
 */
export function taxByRate(
  lines: readonly { readonly ht: string; readonly rate: string }[],
  currency: string,
  rounding: 'per_tax_rate' | 'per_line' = 'per_tax_rate',
): Totals & { readonly taxes: readonly TaxRow[] } {
  const byRate = new Map<string, { base: Decimal; tax: Decimal }>()
  for (const [index, line] of lines.entries()) {
    const rate = printDecimal(parseDecimal(line.rate, `lines[${index}].rate`))
    const known = byRate.get(rate) ?? { base: ZERO, tax: ZERO }
    const base = known.base.plus(parseDecimal(line.ht, `lines[${index}].ht`))
    byRate.set(rate, { base, tax: known.tax.plus(addTax(line.ht, rate, currency).tva) })
  }
  const taxes = [...byRate].map(([rate, { base, tax }]) => {
    const totals = addTax(printDecimal(base), rate, currency)
    return { rate, base: totals.ht, tax: rounding === 'per_line' ? printMoney(tax, currency) : totals.tva }
  })
  const ht = sum(taxes.map((row) => new Decimal(row.base)))
  const tva = sum(taxes.map((row) => new Decimal(row.tax)))
  return {
    ht: printMoney(ht, currency),
    tva: printMoney(tva, currency),
    ttc: printMoney(ht.plus(tva), currency),
    taxes,
  }
}
