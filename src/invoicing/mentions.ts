/**
 * What the law wants printed on an invoice besides its figures, by the country of the seller: France, Côte d'Ivoire, Senegal. Pure.
 *
 * Only what the data has is printed: nothing is invented, and `missingMentions` says what a seller still has to enter. The codes
 * are those of EN 16931 notes (UNTDID 4451), as the French reform asks for them.
 */
import type { LegalEntity } from '../catalog/definition.js'
import type { Words } from '../format.js'
import type { Invoice } from './invoice.js'

export interface Mention {
  /** PMD: late penalty, PMT: recovery indemnity, AAB: discount; null for any other. */
  readonly code: 'PMD' | 'PMT' | 'AAB' | null
  readonly text: Words
}

/** Registrations that each country's invoices carry. One of the names of an entry is enough. */
const REGISTRATIONS: Readonly<Record<string, readonly (readonly string[])[]>> = {
  FR: [['SIREN', 'SIRET'], ['TVA'], ['RCS', 'RM']],
  CI: [['NCC'], ['RCCM'], ['Régime d’imposition', "Régime d'imposition"], ['Centre des impôts']],
  SN: [['NINEA'], ['RCCM']],
}

const same = (text: string): Words => ({ fr: text, en: text })

export function mentionsOf({ seller, kind }: Invoice): Mention[] {
  const own = (seller.mentions ?? []).map((text): Mention => ({ code: null, text: same(text) }))
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

/** «RCCM CI-ABJ-… · NCC …», in the order they were entered. */
export function registrationsText(registrations: Readonly<Record<string, string>>): string {
  return Object.entries(registrations)
    .map(([name, value]) => `${name} ${value}`)
    .join(' · ')
}

/** Registrations that the country wants and the seller has not entered. */
export function missingMentions(seller: LegalEntity): string[] {
  return (REGISTRATIONS[seller.country] ?? [])
    .filter((names) => !names.some((name) => seller.registrations[name] !== undefined))
    .map((names) => names[0]!)
}
