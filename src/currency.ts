/**
 * Currencies: how many decimals an amount has, and the fixed parity of the CFA francs with the euro.
 *
 * An amount is decimal text with exactly the currency's decimals ("247.50" EUR, "442771" XOF). No market rates here: a rate
 * other than the fixed parity is the caller's, with its own source.
 */
import { Decimal, printAtLeast, round } from './decimal.js'
import { ReleveError } from './errors.js'

/** ISO 4217 minor digits of the currencies that releve bills in. */
const EXPONENTS: Readonly<Record<string, number>> = {
  EUR: 2,
  XOF: 0,
  XAF: 0,
  USD: 2,
  GBP: 2,
  CHF: 2,
  CAD: 2,
  GHS: 2,
  NGN: 2,
  MAD: 2,
  GNF: 0,
  JPY: 0,
  TND: 3,
}

/** 1 EUR in XOF and in XAF, fixed by treaty. */
export const CFA_PARITY = '655.957'

export function isCurrency(code: string): boolean {
  return Object.hasOwn(EXPONENTS, code)
}

/** Decimals of an amount. Throws ReleveError `invalid_request` for an unknown currency. */
export function exponentOf(currency: string): number {
  const exponent = EXPONENTS[currency]
  if (exponent === undefined || !isCurrency(currency)) {
    throw new ReleveError(
      'invalid_request',
      `currency: unknown ${currency}; known are ${Object.keys(EXPONENTS).join(', ')}`,
    )
  }
  return exponent
}

/** The smallest amount: 0.01 EUR, 1 XOF. */
export function minorUnit(currency: string): Decimal {
  return new Decimal(10).pow(-exponentOf(currency))
}

/** Half up, away from zero, to the currency's decimals. */
export function roundMoney(value: Decimal, currency: string): Decimal {
  return round(value, exponentOf(currency))
}

/** Rounded and printed with exactly the currency's decimals. */
export function printMoney(value: Decimal, currency: string): string {
  return roundMoney(value, currency).toFixed(exponentOf(currency))
}

/** Exact, with at least the currency's decimals: a price of 0.005 EUR stays 0.005, 2.5 is 2.50. */
export function printPrice(value: Decimal, currency: string): string {
  return printAtLeast(value, exponentOf(currency))
}

/** Decimals behind which a difference can only come from a parity that does not divide. */
const PARITY_PLACES = 24

/**
 * At a rate, not yet rounded to money. Francs as euros do not end: what is far behind the point is cut, so that half a cent stays half
 * a cent.
 */
export function convertMoney(amount: Decimal, rate: Decimal): Decimal {
  return round(amount.times(rate), PARITY_PLACES)
}

/** The fixed rate between two currencies, or null when none is fixed. */
export function fixedRate(from: string, to: string): Decimal | null {
  const cfa = (code: string): boolean => code === 'XOF' || code === 'XAF'
  if (from === to || (cfa(from) && cfa(to))) return new Decimal(1)
  if (from === 'EUR' && cfa(to)) return new Decimal(CFA_PARITY)
  if (cfa(from) && to === 'EUR') return new Decimal(1).dividedBy(CFA_PARITY)
  return null
}
