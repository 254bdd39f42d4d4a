/**
 * Registrations that the law gives a form: SIREN and SIRET, the VAT number, NCC (Côte d'Ivoire), RCCM (OHADA), NINEA (Senegal); and
 * which of them a seller's invoices carry. Blanks, points and dashes are how people write them and are let be; digits that cannot be are refused. Others are text.
 * Pure.
 */
import { ReleveError } from '../errors.js'

const bare = (text: string): string => text.replaceAll(/[\s.-]/g, '').toUpperCase()

/** Luhn's sum, as SIREN and SIRET have it. */
function luhn(digits: string): boolean {
  let sum = 0
  for (let i = 0; i < digits.length; i += 1) {
    const digit = Number(digits[digits.length - 1 - i])
    const doubled = i % 2 === 1 ? digit * 2 : digit
    sum += doubled > 9 ? doubled - 9 : doubled
  }
  return sum % 10 === 0
}

/** A French number is two digits and the SIREN, and the digits follow from it; letters are allowed and have no key. */
function vat(text: string): boolean {
  const french = /^FR([0-9]{2})([0-9]{9})$/.exec(text)
  if (french !== null) return Number(french[1]) === (12 + 3 * (Number(french[2]) % 97)) % 97
  return /^[A-Z]{2}[0-9A-Z+*]{2,12}$/.test(text)
}

const FORMS: Readonly<Record<string, readonly [is: (text: string) => boolean, form: string]>> = {
  SIREN: [(text) => /^[0-9]{9}$/.test(text) && luhn(text), 'nine digits with their check digit'],
  SIRET: [(text) => /^[0-9]{14}$/.test(text) && luhn(text), 'fourteen digits with their check digit'],
  TVA: [vat, 'a country and up to twelve characters; in France the key and the SIREN'],
  VAT: [vat, 'a country and up to twelve characters; in France the key and the SIREN'],
  NCC: [(text) => /^[0-9]{7}[A-Z]$/.test(text), 'seven digits and a letter'],
  RCCM: [
    (text) => /^[A-Z]{2}[A-Z]{2,4}[0-9]{4}[0-9A-Z]{3,14}$/.test(text),
    'country, court, year, letter and number: CI-ABJ-2019-B-4321',
  ],
  NINEA: [
    (text) => /^[0-9]{7}([0-9][A-Z][0-9]|[0-9]{2})?$/.test(text),
    'seven or nine digits, or seven and a code such as 2G3',
  ],
}

/** What each country's invoices carry of their seller. One of the names of an entry is enough. */
const ON_INVOICES: Readonly<Record<string, readonly (readonly string[])[]>> = {
  FR: [['SIREN', 'SIRET'], ['TVA'], ['RCS', 'RM']],
  CI: [['NCC'], ['RCCM'], ['Régime d’imposition', "Régime d'imposition"], ['Centre des impôts']],
  SN: [['NINEA'], ['RCCM']],
}

/** Registrations that the country wants and the seller has not entered. */
export function missingRegistrations(seller: {
  readonly country: string
  readonly registrations: Readonly<Record<string, string>>
}): string[] {
  return (ON_INVOICES[seller.country] ?? [])
    .filter((names) => !names.some((name) => seller.registrations[name] !== undefined))
    .map((names) => names[0]!)
}

/** Throws ReleveError `invalid_request` naming the field and the form. */
export function assertRegistrations(registrations: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(registrations)) {
    const form = FORMS[name.toUpperCase()]
    if (form !== undefined && !form[0](bare(text)))
      throw new ReleveError('invalid_request', `registrations.${name}: ${form[1]} is expected, got ${text}`)
  }
}
