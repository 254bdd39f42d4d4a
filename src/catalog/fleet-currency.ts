/**
 * A fleet is billed in its customer's currency. Where nothing fixes what a price in another one comes to there, nothing could be billed
 * at the end of the period: so it is refused here, with the reason. Pure.
 */
import { fixedRate } from '../currency.js'
import { ReleveError } from '../errors.js'
import type { Book } from './book.js'
import type { Contract } from './contract.js'
import type { Customer } from './definition.js'
import { parsePrice } from './price.js'

/**
 * Active versions count, and `fresh` as if it were one. `customers`: those of the contracts. Throws ReleveError `unprocessable`.
 */
export function assertFleetCurrency(
  book: Pick<Book, 'planOf' | 'prices'>,
  contracts: Iterable<Contract>,
  customers: Pick<ReadonlyMap<string, Customer>, 'get'>,
  field: string,
  fresh?: { readonly rule: string; readonly version: string; readonly definition: unknown },
): void {
  for (const { tenant, items } of contracts) {
    for (const item of items) {
      if (item.fleet === undefined) continue
      const { currency } = customers.get(tenant)!
      const plan = book.planOf(item.plan, item.planVersion)
      const rules = [
        plan.feeRule,
        ...plan.metrics.map(({ rule }) => rule),
        ...(item.addOns ?? []).map(({ rule }) => rule),
      ]
      for (const rule of new Set(rules)) {
        if (rule === null) continue
        const active = (book.prices.get(rule) ?? []).filter((one) => one.status === 'active')
        for (const one of fresh === undefined ? active : fresh.rule === rule ? [fresh] : []) {
          const price = parsePrice(one.definition, one.version)
          if (fixedRate(price.currency, currency) === null)
            throw new ReleveError(
              'unprocessable',
              `${field}: ${rule} v${one.version} is in ${price.currency}, the objects of ${item.id} are billed in ${currency}, and there is no fixed parity between the two`,
            )
        }
      }
    }
  }
}
