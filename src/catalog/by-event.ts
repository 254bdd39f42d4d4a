/**
 * A price with bounds per event asks for the amounts of the events one by one. Where they cannot be had, or would not sum to the
 * quantity that is priced, nothing could be billed at the end of the period: so it is refused here, with the reason. Pure.
 */
import { ReleveError } from '../errors.js'
import type { Book } from './book.js'
import type { Contract } from './contract.js'
import type { Metric } from './metric.js'
import { type Price, parsePrice } from './price.js'

export function isByEvent(price: Price): boolean {
  return price.model === 'percentage' && (price.minimumPerEvent !== undefined || price.maximumPerEvent !== undefined)
}

/** Throws ReleveError `unprocessable`. */
export function assertMetricByEvent(metric: Metric): void {
  const refuse = (why: string): never => {
    throw new ReleveError('unprocessable', `metric: ${metric.key} is priced with bounds per event, and ${why}`)
  }
  if (metric.aggregation !== 'sum')
    refuse(`only the events of a sum have amounts that make it, this is a ${metric.aggregation}`)
  if (!metric.archive) refuse('without an archive the amounts of its events are not kept')
  if (metric.rounding !== undefined) refuse('its quantity is rounded, so that the amounts of its events do not make it')
}

/** `contracts`: all of one customer; `has`: whether a rule has such bounds. Throws ReleveError `unprocessable`. */
export function assertContractsByEvent(
  book: Book,
  contracts: readonly Contract[],
  field: string,
  has: (rule: string) => boolean = (rule) =>
    (book.prices.get(rule) ?? []).some((one) => isByEvent(parsePrice(one.definition, one.version))),
): void {
  const items = contracts.flatMap((contract) => contract.items)
  for (const item of items) {
    for (const { metric, rule } of book.planOf(item.plan, item.planVersion).metrics) {
      if (rule === null || !has(rule) || !item.entitlements.some((one) => one.metric === metric)) continue
      const refuse = (why: string): never => {
        const priced = `${field}: ${item.id} prices ${metric} with bounds per event (${rule})`
        throw new ReleveError('unprocessable', `${priced}, and ${why}`)
      }
      if (item.fleet !== undefined) refuse('a fleet is rated by the sums of its objects')
      const fleet = items.find((one) => one.fleet !== undefined && one.entitlements.some((of) => of.metric === metric))
      if (fleet !== undefined) refuse(`shares it with the fleet ${fleet.id}, whose objects are known by their sums`)
      const calculator = item.calculators?.find((one) => one.metric === metric)
      if (calculator !== undefined) refuse(`calculator ${calculator.name} adds to its quantity without an event`)
    }
  }
}
