/**
 * Value added tax by country and category, one table. A rate is what the law of the country says for the category; what is taxed at 0
 * has a reason, which is printed and travels in the structured invoice. Countries beside these take the rate that is entered.
 *
 * Côte d'Ivoire: TVA 18 % and TVAB 9 %. Senegal: TVA 18 %. France: 20, 10, 5.5 and 2.1 %. The codes are those of EN 16931 (UNTDID
 * 5305); every rate above 0 is «S» there.
 */
import { ReleveError } from '../errors.js'

export const TaxCategory = ['standard', 'intermediate', 'reduced', 'super_reduced'] as const
export type TaxCategory = (typeof TaxCategory)[number]

const RATES: Readonly<Record<string, Readonly<Partial<Record<TaxCategory, string>>>>> = {
  CI: { standard: '18', reduced: '9' },
  SN: { standard: '18' },
  FR: { standard: '20', intermediate: '10', reduced: '5.5', super_reduced: '2.1' },
}

/** Categories without tax, and their codes. */
const EXEMPTIONS = {
  exempt: 'E',
  reverse_charge: 'AE',
  intra_community: 'K',
  export: 'G',
  outside_scope: 'O',
} as const

export interface Tax {
  /** Percent, decimal text. */
  readonly rate: string
  readonly code: string
}

export function isExemption(category: string): boolean {
  return Object.hasOwn(EXEMPTIONS, category)
}

/** Throws ReleveError `unprocessable` when the table has no rate for it. */
export function taxOf(country: string, category: string): Tax {
  if (isExemption(category)) return { rate: '0', code: EXEMPTIONS[category as keyof typeof EXEMPTIONS] }
  const rates = Object.hasOwn(RATES, country) ? RATES[country]! : {}
  const rate = Object.hasOwn(rates, category) ? rates[category as TaxCategory] : undefined
  if (rate === undefined) {
    const known = [...Object.keys(rates), ...Object.keys(EXEMPTIONS)].join(', ')
    throw new ReleveError('unprocessable', `tax: no rate is known for ${category} in ${country}; known are ${known}`)
  }
  return { rate, code: 'S' }
}

/** Whether a rate is one of the country's; true for a country that is not in the table. */
export function isRateOf(country: string, rate: string): boolean {
  return rate === '0' || !Object.hasOwn(RATES, country) || Object.values(RATES[country]!).includes(rate)
}

/** The whole table, for reading. */
export function taxTable(): { country: string; category: string; rate: string; code: string }[] {
  return Object.entries(RATES).flatMap(([country, rates]) =>
    [...Object.keys(rates), ...Object.keys(EXEMPTIONS)].map((category) => ({
      country,
      category,
      ...taxOf(country, category),
    })),
  )
}
