/**
 * From what was measured to what is priced: rounded as the metric says, then converted to the unit that the price is for. Pure.
 *
 * Rounding comes first and in the metric's own unit, so that a started minute is a minute whether it is sold by the minute or by
 * the hour. `up` and `down` are away from zero and towards it.
 */
import type { Price } from '../catalog/price.js'
import { convertUnit } from '../catalog/unit.js'
import { parseDecimal, printDecimal, type RoundingMode, round } from '../decimal.js'
import { formatNumber, type Words } from '../format.js'

export interface QuantityRounding {
  readonly mode: RoundingMode
  /** Decimals that are left. */
  readonly places: number
}

export interface PricedQuantity {
  readonly quantity: string
  /** How it came from the measured one; null when it is that. */
  readonly words: Words | null
}

const MODES: Readonly<Record<RoundingMode, Words>> = {
  up: { fr: 'arrondi au supérieur', en: 'rounded up' },
  down: { fr: 'arrondi à l’inférieur', en: 'rounded down' },
  half_up: { fr: 'arrondi au plus proche', en: 'rounded half up' },
  half_even: { fr: 'arrondi bancaire', en: 'rounded half to even' },
}

/** `unit` is the metric's. Throws ReleveError `unprocessable` when it does not convert to the price's. */
export function pricedQuantity(
  measured: string,
  { unit, rounding }: { readonly unit: string; readonly rounding?: QuantityRounding | undefined },
  price: Pick<Price, 'unit'> | null,
): PricedQuantity {
  const rounded =
    rounding === undefined
      ? measured
      : printDecimal(round(parseDecimal(measured, 'quantity'), rounding.places, rounding.mode))
  const to = price?.unit ?? unit
  const quantity = to === unit ? rounded : convertUnit(rounded, unit, to)
  const isRounded = !parseDecimal(measured, 'quantity').eq(rounded)
  if (!isRounded && to === unit) return { quantity, words: null }
  const say = (language: 'fr' | 'en'): string => {
    const steps = [`${formatNumber(measured, language)} ${unit}`]
    if (isRounded) steps.push(`${formatNumber(rounded, language)} ${unit} (${MODES[rounding!.mode][language]})`)
    if (to !== unit) steps.push(`${formatNumber(quantity, language)} ${to}`)
    // An arrow is in none of the fonts of the PDF, which would print a question mark.
    return steps.join(' = ')
  }
  return { quantity, words: { fr: say('fr'), en: say('en') } }
}
