/** A rated line in words, French and English: what was used, what was included, each step, and the rounding if there was one. */
import type { Price } from '../catalog/price.js'
import { exponentOf } from '../currency.js'
import { Decimal, printDecimal, sum, ZERO } from '../decimal.js'
import { formatMoney, formatNumber, formatPercent, type Language, type Words } from '../format.js'
import type { ModelResult, ModelStep } from './line.js'

interface Facts {
  readonly price: Price
  /** The metric, in words; undefined: by its key. */
  readonly called: Words | undefined
  /** Of a flat price: due once, whatever its cycle. */
  readonly once: boolean
  readonly quantity: Decimal
  /** Of the units that cost nothing: those that are not included but have no price. */
  readonly unpriced: Decimal
  /** Of the units that cost nothing: those that prepaid packs have paid. */
  readonly prepaid: Decimal
  readonly result: ModelResult
  readonly exact: Decimal
  readonly amount: string
}

export function explain(facts: Facts): Words {
  return { fr: inLanguage(facts, 'fr'), en: inLanguage(facts, 'en') }
}

function inLanguage(
  { price, called, once, quantity, unpriced, prepaid, result, exact, amount }: Facts,
  language: Language,
): string {
  const french = language === 'fr'
  const number = (value: Decimal): string => formatNumber(printDecimal(value), language)
  const money = (value: Decimal | string): string => formatMoney(String(value), price.currency, language)
  if (price.model === 'flat') {
    if (once) return `${french ? 'frais unique' : 'one-time fee'} ${money(price.amount)}`
    const cycle = french ? `abonnement ${cycleFr(price.billingCycle)}` : `${price.billingCycle} fee`
    return `${cycle} ${money(price.amount)}`
  }
  const used = `${number(quantity)} ${called?.[language] ?? price.metric}`
  const included = Decimal.max(Decimal.min(result.free, quantity).minus(unpriced).minus(prepaid), 0)
  // Where only full packages count.
  const packed = price.model === 'package' ? sum(result.steps.map((step) => step.quantity.times(price.size))) : ZERO
  const unfilled =
    price.model === 'package' && price.rounding === 'down' ? quantity.minus(result.free).minus(packed) : ZERO
  const free = [
    ...(included.isZero() ? [] : [french ? `dont ${number(included)} inclus` : `${number(included)} included`]),
    ...(prepaid.isZero() ? [] : [french ? `${number(prepaid)} payés par packs` : `${number(prepaid)} paid by packs`]),
    ...(unfilled.isZero()
      ? []
      : [french ? `${number(unfilled)} d’un lot incomplet` : `${number(unfilled)} of a package that is not full`]),
    ...(unpriced.isZero() ? [] : [french ? `${number(unpriced)} non facturés` : `${number(unpriced)} not billed`]),
  ]
    .map((part) => `, ${part}`)
    .join('')
  const steps = result.steps.map((step) => stepText(step)).join(' + ')
  const rounding =
    exact.decimalPlaces() > exponentOf(price.currency)
      ? french
        ? ` (${money(printDecimal(exact))} arrondi au plus proche)`
        : ` (${money(printDecimal(exact))} rounded half up)`
      : ''
  return `${used}${free}${french ? ' : ' : ': '}${steps} = ${money(amount)}${rounding}`

  function stepText(step: ModelStep): string {
    const flat = money(printDecimal(step.flat))
    if (price.model === 'dynamic') {
      const carried = money(printDecimal(step.quantity))
      return step.unitPrice.eq(1) ? carried : `${carried} × ${number(step.unitPrice)}`
    }
    if (step.quantity.isZero()) {
      if (price.model === 'percentage') return french ? `ajustement au minimum ou au maximum ${flat}` : `bound ${flat}`
      return french ? `forfait de tranche ${flat}` : `tier fee ${flat}`
    }
    const rate = isShare(step)
      ? formatPercent(printDecimal(step.unitPrice.times(100)), language)
      : money(printDecimal(step.unitPrice))
    const what =
      price.model === 'package'
        ? french
          ? ` ${many(step.quantity, 'lot')} de ${number(new Decimal(price.size))}`
          : ` ${many(step.quantity, 'package')} of ${number(new Decimal(price.size))}`
        : ''
    const where = 'tiers' in price ? ` (${range(step)})` : ''
    const fee = step.flat.isZero() ? '' : french ? ` + forfait ${flat}` : ` + tier fee ${flat}`
    const counted = isShare(step)
      ? money(printDecimal(step.quantity))
      : price.model === 'percentage'
        ? `${number(step.quantity)} ${many(step.quantity, french ? 'événement' : 'event')}`
        : `${number(step.quantity)}${what}`
    return `${counted} × ${rate}${where}${fee}`
  }

  /** The share of an amount; the other step of a percentage counts events. */
  function isShare(step: ModelStep): boolean {
    if (price.model === 'graduated_percentage') return true
    return price.model === 'percentage' && step === result.steps[0] && quantity.gt(result.free)
  }

  function amountRange(step: ModelStep): string {
    const from = money(printDecimal(step.after))
    const above = french ? `au-delà de ${from}` : `above ${from}`
    if (step.upTo === null) return above
    const to = money(printDecimal(step.upTo))
    return french ? `${above}, jusqu’à ${to}` : `${above}, up to ${to}`
  }

  function range(step: ModelStep): string {
    if (price.model === 'graduated_percentage') return amountRange(step)
    const whole = step.after.isInteger() && (step.upTo?.isInteger() ?? true) && quantity.isInteger()
    const from = whole ? number(step.after.plus(1)) : number(step.after)
    if (step.upTo === null)
      return french ? (whole ? `à partir de ${from}` : `au-delà de ${from}`) : whole ? `from ${from}` : `above ${from}`
    const to = number(step.upTo)
    if (whole) return french ? `tranche ${from} à ${to}` : `tier ${from} to ${to}`
    return french ? `au-delà de ${from}, jusqu’à ${to}` : `above ${from}, up to ${to}`
  }
}

const many = (count: Decimal, word: string): string => (count.lt(2) ? word : `${word}s`)

function cycleFr(cycle: string): string {
  return (
    { monthly: 'mensuel', yearly: 'annuel', quarterly: 'trimestriel', weekly: 'hebdomadaire', daily: 'quotidien' }[
      cycle
    ] ?? cycle
  )
}
