/**
 * Package: units are sold by the package; free units come off first. A started package counts whole, or, when the price rounds
 * down, only full ones count. Pure.
 */
import type { PackagePrice } from '../catalog/price.js'
import { Decimal } from '../decimal.js'
import type { ModelResult } from './line.js'

export function ratePackage(price: PackagePrice, quantity: Decimal, included: Decimal): ModelResult {
  const free = Decimal.max(included, price.free)
  const billable = quantity.minus(free)
  if (billable.lte(0)) return { free, steps: [] }
  // Exact: divToInt and the remainder, never a rounded quotient.
  const size = new Decimal(price.size)
  const whole = billable.divToInt(size)
  const started = price.rounding !== 'down' && !billable.minus(whole.times(size)).isZero()
  const packages = started ? whole.plus(1) : whole
  if (packages.isZero()) return { free, steps: [] }
  const unitPrice = new Decimal(price.packagePrice)
  return {
    free,
    steps: [
      {
        after: free,
        upTo: null,
        quantity: packages,
        unitPrice,
        flat: new Decimal(0),
        amount: packages.times(unitPrice),
      },
    ],
  }
}
