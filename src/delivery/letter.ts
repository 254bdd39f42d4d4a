/**
 * The text of an e-mail: what happened, in the reader's language, French by default. Only words; the figures are those of the
 * message. A type that has no text of its own is told with the plain members of its data.
 */
import { formatNumber, type Language, type Words } from '../format.js'
import { EventTypes } from './events.js'

export interface Letter {
  readonly subject: string
  readonly text: string
}

interface Told {
  readonly type: string
  readonly timestamp: string
  readonly data: Readonly<Record<string, unknown>>
}

/** No control character and no line end; bounded, for subjects. */
const oneLine = (text: string): string => text.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ').slice(0, 200)
const instant = (ms: unknown): string =>
  typeof ms === 'number' ? `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC` : ''

const what: Readonly<Record<string, Words>> = {
  'threshold alert.triggered': { fr: 'seuil franchi', en: 'threshold crossed' },
  'threshold alert.resolved': { fr: 'de nouveau sous le seuil', en: 'below the threshold again' },
  'recurring alert.triggered': { fr: 'palier franchi', en: 'another step reached' },
  'forecast alert.triggered': {
    fr: 'dépassement prévu avant la fin de la période',
    en: 'will cross before the period ends',
  },
  'forecast alert.resolved': { fr: 'dépassement plus prévu', en: 'no longer expected to cross' },
  'silence alert.triggered': { fr: 'plus aucun événement', en: 'no events any more' },
  'silence alert.resolved': { fr: 'les événements arrivent de nouveau', en: 'events come in again' },
}

const labels: readonly [member: string, label: Words][] = [
  ['tenant', { fr: 'Client', en: 'Customer' }],
  ['product', { fr: 'Produit', en: 'Product' }],
  ['metric', { fr: 'Métrique', en: 'Metric' }],
  ['subject', { fr: 'Sujet', en: 'Subject' }],
  ['threshold', { fr: 'Seuil', en: 'Threshold' }],
  ['balance', { fr: 'Consommation', en: 'Usage' }],
  ['limit', { fr: 'Quota', en: 'Quota' }],
]

export function letterOf(told: Told, language: Language): Letter {
  const { type, data } = told
  const text = (value: unknown): string => oneLine(String(value))
  const headline = what[`${String(data.kind ?? 'threshold')} ${type}`]?.[language]
  const lines: string[] = []
  const colon = language === 'fr' ? '\u00a0: ' : ': '
  if (headline === undefined) {
    for (const [name, value] of Object.entries(data).slice(0, 30)) {
      if (typeof value === 'string' || typeof value === 'number') lines.push(`${oneLine(name)}${colon}${text(value)}`)
    }
    const title = EventTypes[type]?.title[language] ?? type
    const name = data.number ?? data.contract ?? data.pack
    const about = typeof name === 'string' ? ` (${text(name)})` : ''
    return { subject: oneLine(`releve – ${title}${about}`), text: `${[`${title}${about}`, '', ...lines].join('\n')}\n` }
  }
  lines.push(`${headline.charAt(0).toUpperCase()}${headline.slice(1)}.`, '')
  for (const [member, label] of labels) {
    const value = data[member]
    if (value === undefined || value === null || value === '') continue
    const isFigure = member === 'balance' || member === 'limit'
    lines.push(`${label[language]}${colon}${isFigure ? formatNumber(text(value), language) : text(value)}`)
  }
  const period = data.period as { from?: unknown; to?: unknown } | undefined
  if (data.kind !== 'silence' && period !== undefined)
    lines.push(`${language === 'fr' ? 'Période' : 'Period'}${colon}${instant(period.from)} – ${instant(period.to)}`)
  if (typeof data.raisedAt === 'number')
    lines.push(`${language === 'fr' ? 'Constaté' : 'Seen'}${colon}${instant(data.raisedAt)}`)
  lines.push('', language === 'fr' ? `Référence de l’alerte : ${text(data.id)}` : `Alert reference: ${text(data.id)}`)
  const subject = oneLine(`releve – ${text(data.tenant)}, ${text(data.metric)}${colon}${headline}`)
  return { subject, text: `${lines.join('\n')}\n` }
}
