/**
 * What the law wants printed on an invoice besides its figures, by the country of the seller: France, Côte d'Ivoire, Senegal. Pure.
 *
 * Only what the data has is printed: nothing is invented, and the catalogue's lint says what a seller still has to enter. The codes
 * are those of EN 16931 notes (UNTDID 4451), as the French reform asks for them.
 */
import type { MentionText } from '../catalog/definition.js'
import type { Language, Words } from '../format.js'
import type { Invoice } from './invoice.js'

export interface Mention {
  /** PMD: late penalty, PMT: recovery indemnity, AAB: discount; null for any other. */
  readonly code: 'PMD' | 'PMT' | 'AAB' | null
  readonly text: Words
}

/** Why a document has no tax, by the category of its customer (EN 16931). What the customer's own reason says comes first. */
const UNTAXED: Readonly<Record<string, { readonly [country: string]: Words } & { readonly other: Words }>> = {
  E: {
    other: { fr: 'Exonéré de TVA.', en: 'Exempt from VAT.' },
  },
  AE: {
    FR: { fr: 'Autoliquidation (art. 283-2 du CGI).', en: 'Reverse charge (art. 283-2, French tax code).' },
    other: { fr: 'Autoliquidation de la TVA par le preneur.', en: 'Reverse charge: VAT is due by the customer.' },
  },
  K: {
    FR: {
      fr: 'Exonération de TVA, livraison intracommunautaire (art. 262 ter I du CGI).',
      en: 'VAT exempt intra-community supply (art. 262 ter I, French tax code).',
    },
    other: { fr: 'Livraison intracommunautaire exonérée de TVA.', en: 'VAT exempt intra-community supply.' },
  },
  G: {
    FR: {
      fr: 'Exonération de TVA, exportation (art. 262 I du CGI).',
      en: 'VAT exempt export (art. 262 I, French tax code).',
    },
    other: { fr: 'Exportation, exonérée de TVA.', en: 'Export, exempt from VAT.' },
  },
  O: {
    FR: {
      fr: 'TVA non applicable (art. 259-1 du CGI).',
      en: 'Not subject to French VAT (art. 259-1, French tax code).',
    },
    other: { fr: 'Hors du champ de la TVA.', en: 'Not subject to VAT.' },
  },
}

const both = (text: MentionText): Words => (typeof text === 'string' ? { fr: text, en: text } : text)
const free = (text: MentionText): Mention => ({ code: null, text: both(text) })

/** Why there is no tax of a category; undefined for those that are taxed. */
export function reasonOf(
  category: string,
  customer: Pick<Invoice['customer'], 'registrations'>,
  seller: Pick<Invoice['seller'], 'country'>,
): Words | undefined {
  const untaxed = UNTAXED[category]
  if (untaxed === undefined) return undefined
  return both(customer.registrations.Exonération ?? untaxed[seller.country] ?? untaxed.other)
}

export function mentionsOf({ seller, customer, kind }: Invoice): Mention[] {
  const reason = reasonOf(customer.taxCategory, customer, seller)
  const tax = reason === undefined ? [] : [free(reason)]
  const own = [...tax, ...[...(seller.mentions ?? []), ...(customer.mentions ?? [])].map(free)]
  if (seller.country !== 'FR' || kind !== 'invoice') return own
  return [
    {
      code: 'PMD',
      text: {
        fr: 'Pénalités de retard : taux d’intérêt de la BCE majoré de 10 points, exigibles sans rappel (art. L441-10 du code de commerce).',
        en: 'Late payment: the ECB rate plus 10 points, due without a reminder (art. L441-10, French commercial code).',
      },
    },
    {
      code: 'PMT',
      text: {
        fr: 'Indemnité forfaitaire pour frais de recouvrement en cas de retard : 40 €.',
        en: 'Fixed compensation for recovery costs in case of late payment: EUR 40.',
      },
    },
    {
      code: 'AAB',
      text: { fr: 'Pas d’escompte pour paiement anticipé.', en: 'No discount for early payment.' },
    },
    { code: null, text: { fr: 'Nature : prestations de services.', en: 'Nature: services.' } },
    ...own,
  ]
}

/** Registrations whose names are words and not those of a register. Others are printed as they were entered. */
const NAMES: Readonly<Record<string, Words>> = {
  TVA: { fr: 'N° TVA', en: 'VAT no.' },
  VAT: { fr: 'N° TVA', en: 'VAT no.' },
  'Capital social': { fr: 'Capital social', en: 'Share capital' },
  'Régime d’imposition': { fr: 'Régime d’imposition', en: 'Tax regime' },
  'Centre des impôts': { fr: 'Centre des impôts', en: 'Tax office' },
}

/** «RCCM CI-ABJ-… · NCC …», in the order they were entered; each is one word, so that no line breaks within it. */
export function registrationsText(registrations: Readonly<Record<string, string>>, language: Language): string {
  return Object.entries(registrations)
    .map(([name, value]) => `${NAMES[name.replaceAll("'", '’')]?.[language] ?? name} ${value}`)
    .map((text) => (text.length > 60 ? text : text.replaceAll(' ', '\u00a0')))
    .join(' · ')
}
