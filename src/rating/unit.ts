/** Per unit: every unit behind the included ones at one price. Pure. */
import type { UnitPrice } from '../catalog/price.js'
import { Decimal } from '../decimal.js'
import type { ModelResult } from './line.js'

export function rateUnit(price: UnitPrice, quantity: Decimal, included: Decimal): ModelResult {
  const billable = quantity.minus(included)
  if (billable.lte(0)) return { free: included, steps: [] }
  const unitPrice = new Decimal(price.unitPrice)
  return {
    free: included,
    steps: [
      {
        after: included,
        upTo: null,
        quantity: billable,
        unitPrice,
        flat: new Decimal(0),
        amount: billable.times(unitPrice),
      },
    ],
  }
}
