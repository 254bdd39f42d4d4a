/**
 * Tax. Rounded once per rate on the invoice, not per line (EN 16931, BR-CO-17): three lines of 1.25 at 18 % owe 0.68, not 0.69.
 * With prices that include tax, TVA is TTC − HT: some totals are not reachable as HT + round(HT × rate). Pure.
 *
 * What lines with tax cost in all is the sum of what they say, to the last unit; of each rate HT is that sum without the tax, rounded
 * once, and TVA the rest. So the unit that rounding leaves is in the TVA, which is at most one unit from HT × rate (EN 16931 lets its
 * validators differ by one whole currency unit). Lines with and without tax of one rate are taxed each their own way and added: what
 * either kind comes to does not hang on the other.
 *
 * HT is without tax, TVA the tax, TTC with tax. Rates are percent as decimal text.
 */
import { minorUnit, printMoney } from '../currency.js'
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

/** A line as it is billed: rounded, with the tax in it when `taxBehavior` says so, else without. */
export interface TaxedLine {
  readonly amount: string
  readonly taxRate: string
  readonly taxBehavior?: 'inclusive'
}

/**
 * Lines of either kind to totals, a row per rate in order of first appearance, and what each line is without tax. The latter sum to
 * HT, also within a rate.
 */
export function taxLines(
  lines: readonly TaxedLine[],
  currency: string,
): Totals & { readonly taxes: readonly TaxRow[]; readonly nets: readonly string[] } {
  const nets = lines.map((line) => line.amount)
  const pairs = (all: readonly string[]) => lines.map((line, i) => ({ ht: all[i]!, rate: line.taxRate }))
  if (lines.every((line) => line.taxBehavior === undefined)) return { ...taxByRate(pairs(nets), currency), nets }
  const inclusive = new Map<string, number[]>()
  for (const [i, { taxBehavior, taxRate }] of lines.entries()) {
    if (taxBehavior === undefined) continue
    const rate = printDecimal(parseDecimal(taxRate, `lines[${i}].taxRate`))
    inclusive.set(rate, [...(inclusive.get(rate) ?? []), i])
  }
  const included = new Map<string, Totals>()
  for (const [rate, places] of inclusive) {
    const amounts = places.map((i) => parseDecimal(lines[i]!.amount, `lines[${i}].amount`))
    const totals = splitInclusive(printDecimal(sum(amounts)), rate, currency)
    included.set(rate, totals)
    for (const [n, net] of apportion(totals.ht, amounts, rate, currency).entries()) nets[places[n]!] = net
  }
  // The rows in their order; those of lines with tax have no share in what is taxed on top.
  const exclusive = taxByRate(
    lines.map((line) => ({ ht: line.taxBehavior === undefined ? line.amount : '0', rate: line.taxRate })),
    currency,
  )
  const taxes = exclusive.taxes.map(({ rate, base, tax }) => {
    const { ht = '0', tva = '0' } = included.get(rate) ?? {}
    return { rate, base: added(base, ht), tax: added(tax, tva) }
  })
  const [ht, tva] = [sum(taxes.map((row) => new Decimal(row.base))), sum(taxes.map((row) => new Decimal(row.tax)))]
  return {
    ht: printMoney(ht, currency),
    tva: printMoney(tva, currency),
    ttc: printMoney(ht.plus(tva), currency),
    taxes,
    nets,
  }

  function added(one: string, other: string): string {
    return printMoney(new Decimal(one).plus(other), currency)
  }
}

/**
 * HT of amounts that include tax of one rate, so that they sum to `ht`: each without its tax and cut to the last unit, and what is
 * left goes to the largest remainders, the earlier line first among equals.
 */
function apportion(ht: string, amounts: readonly Decimal[], rate: string, currency: string): string[] {
  const unit = minorUnit(currency)
  const factor = new Decimal(rate).dividedBy(100).plus(1).times(unit)
  const shares = amounts.map((amount, at) => {
    const units = amount.dividedBy(factor).floor()
    // With the tax in it: a quotient that does not end would make equals differ far behind the point.
    return { at, units, remainder: amount.minus(units.times(factor)) }
  })
  const left = new Decimal(ht)
    .dividedBy(unit)
    .minus(sum(shares.map((share) => share.units)))
    .toNumber()
  const raised = new Set(
    [...shares]
      .sort((a, b) => b.remainder.cmp(a.remainder) || a.at - b.at)
      .slice(0, left)
      .map((share) => share.at),
  )
  return shares.map(({ at, units }) => printMoney(units.plus(raised.has(at) ? 1 : 0).times(unit), currency))
}
