/** A usage datum as the statement prints it, on paper and in terminals: when, how much, of what, and its notes. Pure. */
import { dateIn, formatDate, formatNumber, type Language } from '../format.js'
import type { DataEntry } from './invoice.js'

/** «14/04/2022 · 12 mesures · R-14 · relevé du 14 avril»; days are those of the zone. */
export function dataEntryText(
  { start, end, value, data, qualifier, reference, description, notes }: DataEntry,
  timeZone: string,
  language: Language,
): string {
  const day = (at: number): string => formatDate(dateIn(at, timeZone), language)
  const when = end === null || day(end) === day(start) ? day(start) : `${day(start)} – ${day(end)}`
  const what =
    value === null ? membersOf(data ?? '', language) : `${formatNumber(value, language)} ${qualifier ?? ''}`.trim()
  return [when, what, reference, description, notes]
    .filter((text) => text !== null && text !== '')
    .map((text) => text!.replaceAll(/\s*\n\s*/g, ' '))
    .join(' · ')
}

/** The members of a JSON datum, «cpu 8, zone Nord»; the text as it is when it was cut. */
function membersOf(data: string, language: Language): string {
  let members: unknown
  try {
    members = JSON.parse(data)
  } catch {
    return data
  }
  const say = (value: unknown): string => {
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    return /^-?[0-9]+([.][0-9]+)?$/.test(text) ? formatNumber(text, language) : text
  }
  return Object.entries(members as object)
    .map(([name, value]) => `${name} ${say(value)}`)
    .join(', ')
}
