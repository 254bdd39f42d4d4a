/** Flat: one fee a period, whatever was used. Pure. */
import type { FlatPrice } from '../catalog/price.js'
import { Decimal, ZERO } from '../decimal.js'
import type { ModelResult } from './line.js'

export function rateFlat(price: FlatPrice): ModelResult {
  const amount = new Decimal(price.amount)
  return {
    free: ZERO,
    steps: [{ after: ZERO, upTo: null, quantity: new Decimal(1), unitPrice: amount, flat: ZERO, amount }],
  }
}
