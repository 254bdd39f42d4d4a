/**
 * An invoice as text for terminals, French first: who, when, each line with its calculation and proof, taxes, totals, notices, and
 * the statement of all usage. Shows what the document holds and computes nothing.
 */
import { formatDate, formatMoney, formatNumber, formatPercent, type Language } from '../format.js'
import { dataEntryText } from './data-entry.js'
import { type DataEntry, type Invoice, type Proof, referenceText } from './invoice.js'
import { itemNames } from './item-names.js'

const WIDTH = 100

const words = {
  invoice: { fr: 'FACTURE', en: 'INVOICE' },
  credit_note: { fr: 'AVOIR', en: 'CREDIT NOTE' },
  draft: { fr: 'BROUILLON', en: 'DRAFT' },
  period: { fr: 'Période', en: 'Period' },
  to: { fr: 'au', en: 'to' },
  issued: { fr: 'Émise le', en: 'Issued' },
  issued_note: { fr: 'Émis le', en: 'Issued' },
  due: { fr: 'Échéance', en: 'Due' },
  refers: { fr: 'Sur la facture', en: 'On invoice' },
  billedTo: { fr: 'Client', en: 'Customer' },
  contract: { fr: 'Contrat', en: 'Contract' },
  price: { fr: 'prix', en: 'price' },
  proof: { fr: 'preuve', en: 'proof' },
  data: { fr: 'donnée(s) d’usage', en: 'usage data' },
  events: { fr: 'événement(s)', en: 'event(s)' },
  digest: { fr: 'empreinte', en: 'digest' },
  cut: { fr: 'coupe', en: 'cut' },
  total: { fr: 'Total HT', en: 'Total excl. tax' },
  vat: { fr: 'TVA', en: 'VAT' },
  on: { fr: 'sur', en: 'on' },
  due_total: { fr: 'Total TTC', en: 'Total incl. tax' },
  with_tax: { fr: 'TTC', en: 'incl. tax' },
  without_tax: { fr: 'HT', en: 'excl. tax' },
  statement: { fr: 'Relevé de consommations', en: 'Usage statement' },
  unlimited: { fr: 'illimité', en: 'unlimited' },
  over: { fr: 'dépassement', en: 'over' },
} as const

/** `proofs: false` leaves cut, digest and query out. */
export function renderInvoice(
  invoice: Invoice,
  options: { readonly language?: Language; readonly proofs?: boolean } = {},
): string {
  const language = options.language ?? invoice.language
  const say = (key: keyof typeof words): string => words[key][language]
  const money = (amount: string): string => formatMoney(amount, invoice.currency, language)
  const out: string[] = []
  const colon = language === 'fr' ? ' : ' : ': '
  const rule = '─'.repeat(WIDTH)
  const row = (left: string, right: string): void => {
    out.push(left + ' '.repeat(Math.max(1, WIDTH - left.length - right.length)) + right)
  }

  row(`${say(invoice.kind)} ${invoice.number ?? say('draft')}`, invoice.seller.name)
  out.push(rule)
  row(
    `${say('billedTo')}${colon}${invoice.customer.name} (${invoice.customer.country})`,
    `${say('contract')}${colon}${invoice.contractName}`,
  )
  row(
    `${say('period')}${colon}${formatDate(invoice.period.firstDay, language)} ${say('to')} ${formatDate(invoice.period.lastDay, language)} (${invoice.period.timeZone})`,
    invoice.issuedOn === null
      ? ''
      : `${say(invoice.kind === 'invoice' ? 'issued' : 'issued_note')} ${formatDate(invoice.issuedOn, language)}`,
  )
  if (invoice.dueOn !== null && invoice.kind === 'invoice')
    row('', `${say('due')} ${formatDate(invoice.dueOn, language)}`)
  if (invoice.refersTo !== null) out.push(`${say('refers')} ${referenceText(invoice.refersTo, language)}`)
  out.push(rule)

  const said = invoice.lines.some((line) => line.taxBehavior === 'inclusive')
  for (const line of invoice.lines) {
    const kind = said ? ` ${say(line.taxBehavior === 'inclusive' ? 'with_tax' : 'without_tax')}` : ''
    row(`${String(line.no).padStart(2)}. ${line.label[language]}`, `${money(line.amount)}${kind}`)
    out.push(`    ${line.explanation[language]}`)
    if (line.price !== null) {
      const proof = line.proof === null || options.proofs === false ? '' : ` · ${proofText(line.proof)}`
      out.push(`    ${say('price')} ${line.price.rule} v${line.price.version}${proof}`)
    }
  }
  out.push(rule)
  row(say('total'), money(invoice.ht))
  for (const tax of invoice.taxes)
    row(`${say('vat')} ${formatPercent(tax.rate, language)} ${say('on')} ${money(tax.base)}`, money(tax.tax))
  row(say('due_total'), money(invoice.ttc))
  if (invoice.notices.length > 0) {
    out.push('')
    for (const notice of invoice.notices) out.push(`⚠ ${notice.text[language]}`)
  }
  if (invoice.usage.length > 0) {
    out.push('', say('statement'))
    const names = itemNames(invoice, language)
    const several = new Set(invoice.usage.map((entry) => entry.item)).size > 1
    let item = ''
    for (const entry of invoice.usage) {
      if (several && entry.item !== item) out.push(`  ${names.get(entry.item)}`)
      item = entry.item
      const limit = entry.limit === null ? say('unlimited') : formatNumber(entry.limit, language)
      const percent = entry.percent === null ? '–' : formatPercent(entry.percent, language)
      const over = entry.status === 'over' ? `  ${say('over')} +${formatNumber(entry.overage ?? '0', language)}` : ''
      out.push(
        `  ${(entry.metricName?.[language] ?? entry.metric).padEnd(24)}${formatNumber(entry.quantity, language).padStart(14)} / ${limit.padEnd(12)}${percent.padStart(9)}${over}`,
      )
      entriesOf(entry.data)
    }
  }
  const dataLines = invoice.lines.filter((line) => line.data !== undefined)
  if (dataLines.length > 0 && invoice.usage.length === 0) out.push('', say('statement'))
  for (const line of dataLines) {
    out.push(`  ${line.label[language]}`)
    entriesOf(line.data)
  }
  return `${out.map((line) => line.trimEnd()).join('\n')}\n`

  function entriesOf(entries: readonly DataEntry[] = []): void {
    for (const one of entries) out.push(`    ${dataEntryText(one, invoice.period.timeZone, language)}`)
  }

  function dataProof({ data }: Proof): string {
    if (data === undefined) return ''
    return `, ${data.count} ${say('data')}, ${say('digest')} ${data.digest.slice(0, 16)}`
  }

  function proofText(proof: Proof): string {
    const cut = Object.entries(proof.cut)
      .map(([stream, epoch]) => `${stream}:${epoch}`)
      .join(' ')
    return `${say('proof')}${colon}${proof.count} ${say('events')}, ${say('cut')} ${cut}, ${say('digest')} ${proof.digest.slice(0, 16)}${dataProof(proof)}`
  }
}
