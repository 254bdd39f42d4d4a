/**
 * Which part of a period an item or an add-on covers: items begin and end on calendar days of the contract's zone, and nothing
 * goes beyond the contract's own end. A change of plan is the end of one item and the beginning of another. Pure.
 */
import { DateTime } from 'luxon'
import { ReleveError } from '../errors.js'
import type { Period } from '../period.js'
import type { Contract, ContractInput } from './definition.js'
import { midnightOf } from './schedule.js'

/** First and last day, inclusive; absent: as long as the contract. */
export interface Days {
  readonly from?: string
  readonly until?: string
}

/** The covered part, or null when there is none. */
export function partOf(contract: Pick<Contract, 'timeZone' | 'end'>, days: Days, period: Period): Period | null {
  const { timeZone } = contract
  const after = (date: string): number =>
    DateTime.fromMillis(midnightOf(date, timeZone), { zone: timeZone }).plus({ days: 1 }).startOf('day').toMillis()
  const from = days.from === undefined ? period.from : Math.max(period.from, midnightOf(days.from, timeZone))
  const ends = [days.until, contract.end].flatMap((date) => (date === undefined ? [] : [after(date)]))
  const to = Math.min(period.to, ...ends)
  return from < to ? { from, to } : null
}

/** The contract with an item moved to another plan from a day on: the old item ends the day before. Put it to make it so. */
export function changePlan(
  contract: Contract,
  change: { readonly item: string; readonly plan: string; readonly planVersion?: number; readonly from: string },
): ContractInput {
  const before = DateTime.fromISO(change.from, { zone: 'utc' }).minus({ days: 1 }).toFormat('yyyy-MM-dd')
  midnightOf(change.from, contract.timeZone)
  if (!contract.items.some((item) => item.id === change.item))
    throw new ReleveError('not_found', `item: ${contract.id} has no ${change.item}`)
  const items = contract.items.flatMap((item): ContractInput['items'][number][] => {
    const { entitlements, ...rest } = item
    const own = { ...rest, entitlements: entitlements.map(({ limitVersion: _, ...one }) => one) }
    if (item.id !== change.item) return [own]
    const next = {
      id: `${item.id}@${change.from}`,
      plan: change.plan,
      ...(change.planVersion === undefined ? {} : { planVersion: change.planVersion }),
      from: change.from,
      ...(item.until === undefined ? {} : { until: item.until }),
      ...(item.addOns === undefined ? {} : { addOns: item.addOns.filter((one) => !one.once) }),
      ...(item.calculators === undefined ? {} : { calculators: item.calculators }),
      ...(item.prepaid === undefined ? {} : { prepaid: item.prepaid }),
      ...(item.kind === undefined ? {} : { kind: item.kind }),
    }
    return [{ ...own, until: before }, next]
  })
  return { ...contract, items }
}
