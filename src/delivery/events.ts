/**
 * What there is to be told of: the types of events, with what each says and its words for people. README.md of this room has the
 * same table, held against this one by a test. Alerts come from the shards (alert-feed.ts), everything else from the outbox.
 */
import type { Words } from '../format.js'

export interface EventType {
  /** When it is told. */
  readonly when: string
  readonly title: Words
}

/** Members of `data` of every event of an invoice or a credit note. */
export const INVOICE_DATA =
  'invoice, number, kind, state, tenant, contract, period, currency, ht, tva, ttc, issuedOn, dueOn, refersTo'

export const EventTypes: Readonly<Record<string, EventType>> = {
  'alert.triggered': {
    when: 'a threshold, a step, a forecast or a silence rang',
    title: { fr: 'alerte', en: 'alert' },
  },
  'alert.resolved': {
    when: 'usage is below the threshold again, or heard again',
    title: { fr: 'alerte levée', en: 'alert resolved' },
  },
  'invoice.drafted': { when: 'a closing made a draft', title: { fr: 'brouillon de facture', en: 'invoice drafted' } },
  'invoice.discarded': { when: 'a draft was dropped', title: { fr: 'brouillon abandonné', en: 'draft discarded' } },
  'invoice.finalized': {
    when: 'an invoice has its number and never changes',
    title: { fr: 'facture émise', en: 'invoice issued' },
  },
  'invoice.certified': {
    when: 'the clearance system took it; told beside invoice.finalized',
    title: { fr: 'facture certifiée', en: 'invoice certified' },
  },
  'invoice.rejected': {
    when: 'the clearance system refused it',
    title: { fr: 'facture refusée à la certification', en: 'invoice refused by the clearance system' },
  },
  'invoice.sent': { when: 'it was marked as sent', title: { fr: 'facture envoyée', en: 'invoice sent' } },
  'invoice.paid': { when: 'it was marked as paid', title: { fr: 'facture payée', en: 'invoice paid' } },
  'invoice.voided': {
    when: 'credit notes took back the whole of it',
    title: { fr: 'facture annulée par avoir', en: 'invoice voided by credit note' },
  },
  'credit_note.issued': { when: 'a credit note has its number', title: { fr: 'avoir émis', en: 'credit note issued' } },
  'contract.moved': {
    when: 'a subscription changed its state',
    title: { fr: 'contrat : changement d’état', en: 'contract moved' },
  },
  'contract.notice_given': { when: 'it was given notice', title: { fr: 'contrat résilié', en: 'notice given' } },
  'contract.trial_extended': {
    when: 'its trial was made longer',
    title: { fr: 'essai prolongé', en: 'trial extended' },
  },
  'prepaid.exhausted': {
    when: 'a closing used up the rest of a pack',
    title: { fr: 'forfait prépayé épuisé', en: 'prepaid pack exhausted' },
  },
  'prepaid.forfeited': {
    when: 'a pack ended with something left',
    title: { fr: 'forfait prépayé échu, reste perdu', en: 'prepaid pack ended, rest forfeited' },
  },
  'meter.silent': {
    when: 'a draft has a meter that spoke in the period before and not in this one',
    title: { fr: 'compteur muet', en: 'silent meter' },
  },
  'closing.failed': {
    when: 'a batch closing could not close a contract',
    title: { fr: 'clôture en échec', en: 'closing failed' },
  },
}

/** Whether anything can ever be told under it: a type, «invoice.*» or «*». */
export function isTold(pattern: string): boolean {
  if (pattern === '*') return true
  const types = Object.keys(EventTypes)
  return pattern.endsWith('.*') ? types.some((type) => type.startsWith(pattern.slice(0, -1))) : types.includes(pattern)
}
