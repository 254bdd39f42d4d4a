/**
 * What a quantity would cost, without storing anything: the lines, and words for it also when nothing is due. Pure.
 *
 * With a rate of tax it also says HT, TVA and TTC: of a price with tax the total is the TTC, else the HT.
 *
 * The quantity is one of the metric, if there is one: rounded as it says and in its unit. Without a metric it is in the price's.
 */
import type { Price } from '../catalog/price.js'
import { convertUnit } from '../catalog/unit.js'
import { parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { formatMoney, formatNumber, type Words } from '../format.js'
import { pricedQuantity, type QuantityRounding } from './quantity.js'
import { type RateRequest, type Rating, rate } from './rating.js'
import { addTax, splitInclusive, type Totals } from './tax.js'

export interface Preview extends Rating {
  /** As it was priced: rounded, in the price's unit. */
  readonly quantity: string
  readonly explanation: Words
  /** Whether `total` holds the tax. */
  readonly taxBehavior: 'inclusive' | 'exclusive'
  readonly tax?: Totals & { readonly rate: string }
}

export function previewRating(
  request: RateRequest & {
    /** Percent, decimal text. */
    readonly taxRate?: string
    readonly metric?:
      | { readonly unit: string; readonly name?: Words; readonly rounding?: QuantityRounding | undefined }
      | undefined
  },
): Preview {
  const { metric, taxRate, ...asked } = request
  const { price } = asked
  const unit = metric?.unit ?? price.unit ?? ''
  const { quantity, words } = pricedQuantity(asked.quantity, { unit, rounding: metric?.rounding }, price)
  const included =
    asked.included === undefined ? {} : { included: convertUnit(asked.included, unit, price.unit ?? unit) }
  const named = asked.called ?? metric?.name
  const called = named === undefined || unit !== (price.unit ?? unit) ? {} : { called: named }
  const rating = rate({ ...asked, ...included, ...called, quantity })
  const [line] = rating.lines
  const said = line?.explanation ?? {
    fr: nothing(price, quantity, named, 'fr'),
    en: nothing(price, quantity, named, 'en'),
  }
  const explanation = words === null ? said : { fr: `${words.fr} ; ${said.fr}`, en: `${words.en}; ${said.en}` }
  const taxBehavior = price.taxBehavior ?? ('exclusive' as const)
  const preview: Preview = { ...rating, quantity, explanation, taxBehavior }
  if (taxRate === undefined) return preview
  const percent = parseDecimal(taxRate, 'taxRate')
  if (percent.lt(0) || percent.gt(100)) throw new ReleveError('invalid_request', 'taxRate: percent from 0 to 100')
  const split = taxBehavior === 'inclusive' ? splitInclusive : addTax
  return { ...preview, tax: { rate: printDecimal(percent), ...split(rating.total, taxRate, price.currency) } }
}

function nothing(price: Price, quantity: string, named: Words | undefined, language: 'fr' | 'en'): string {
  const metric = named?.[language] ?? ('metric' in price ? price.metric : '')
  const used = `${formatNumber(quantity, language)} ${metric}`.trim()
  const zero = formatMoney('0', price.currency, language)
  return language === 'fr'
    ? `${used} : rien au-delà de l’inclus = ${zero}`
    : `${used}: nothing above what is included = ${zero}`
}
