/**
 * Numbers and dates for people, French first: «1 250,00 €», «12 450», «08/03/2026»; English beside it. From decimal text, by
 * its digits, so that what is shown is what is stored. Spaces inside a number are U+00A0, one kind everywhere.
 *
 * Compact numbers keep the dot of the screens («2.4M»), in both languages.
 */
import { DateTime } from 'luxon'
import { exponentOf } from './currency.js'
import { Decimal } from './decimal.js'

export const Language = ['fr', 'en'] as const
export type Language = (typeof Language)[number]

/** A text in both languages. */
export interface Words {
  readonly fr: string
  readonly en: string
}

const NBSP = '\u00a0'
const SIGNS: Readonly<Record<string, string>> = { EUR: '€', USD: '$', GBP: '£', XOF: 'F CFA', XAF: 'FCFA' }

/** Decimal text with grouped thousands; the decimals are kept as they are. */
export function formatNumber(value: string, language: Language): string {
  const negative = value.startsWith('-')
  const [whole = '0', fraction] = (negative ? value.slice(1) : value).split('.')
  const grouped = whole.replace(/\B(?=(?:[0-9]{3})+$)/g, language === 'fr' ? NBSP : ',')
  const point = language === 'fr' ? ',' : '.'
  return `${negative ? '-' : ''}${grouped}${fraction === undefined ? '' : point + fraction}`
}

/** An amount with at least the currency's decimals and its sign behind it (fr) or its code behind it (en). */
export function formatMoney(value: string, currency: string, language: Language): string {
  const exact = new Decimal(value)
  const text = exact.toFixed(Math.max(exponentOf(currency), exact.decimalPlaces()))
  const unit = language === 'fr' ? (SIGNS[currency] ?? currency) : currency
  return `${formatNumber(text, language)}${NBSP}${unit}`
}

/** Percent with the decimals it has: «18 %», «84,7 %». */
export function formatPercent(value: string, language: Language): string {
  return language === 'fr' ? `${formatNumber(value, 'fr')}${NBSP}%` : `${value}%`
}

/** A calendar date (YYYY-MM-DD) as 08/03/2026 (fr) or 2026-03-08 (en, the one order that nobody misreads). */
export function formatDate(date: string, language: Language): string {
  const [year, month, day] = date.split('-')
  return language === 'fr' ? `${day}/${month}/${year}` : date
}

/** The calendar date of an instant in a zone, YYYY-MM-DD. */
export function dateIn(time: number, zone: string): string {
  return remembered(`d ${time} ${zone}`, () => DateTime.fromMillis(time, { zone }).toFormat('yyyy-MM-dd'))
}

/** «mars 2026», «March 2026». */
export function formatMonth(time: number, zone: string, language: Language): string {
  return remembered(`${language} ${time} ${zone}`, () =>
    DateTime.fromMillis(time, { zone, locale: language }).toFormat('LLLL yyyy'),
  )
}

/** The bounds of periods are few and asked for by every contract; calendar arithmetic in a zone was a fifth of drafting. */
const texts = new Map<string, string>()
const TEXTS_MAX = 10_000

function remembered(key: string, make: () => string): string {
  let text = texts.get(key)
  if (text === undefined) {
    if (texts.size >= TEXTS_MAX) texts.clear()
    text = make()
    texts.set(key, text)
  }
  return text
}

/** 2400000 is «2.4M»: one decimal, cut (never rounded up to a figure that was not reached). */
export function formatCompact(value: string): string {
  const number = new Decimal(value)
  for (const [power, letter] of [
    [9, 'G'],
    [6, 'M'],
    [3, 'k'],
  ] as const) {
    const scaled = number.dividedBy(new Decimal(10).pow(power))
    if (scaled.abs().gte(1)) return `${scaled.toDecimalPlaces(1, Decimal.ROUND_DOWN).toFixed()}${letter}`
  }
  return number.toFixed()
}
