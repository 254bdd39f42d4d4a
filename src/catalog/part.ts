/**
 * Which part of a period an item or an add-on covers: items begin and end on calendar days of the contract's zone, and nothing
 * goes beyond the contract's own end. A change of plan is the end of one item and the beginning of another. Pure.
 */
import { DateTime } from 'luxon'
import { ReleveError } from '../errors.js'
import { billingPeriodOf, type Period } from '../period.js'
import type { Contract, ContractInput } from './contract.js'
import { lastDayOf } from './renewal.js'
import { midnightOf } from './schedule.js'

/** First and last day, inclusive; absent: as long as the contract. */
export interface Days {
  readonly from?: string
  readonly until?: string
}

/**
 * The covered part, or null when there is none. Nothing is covered before a contract begins, before a trial has become one that
 * pays, and while it is only provisioned.
 */
export function partOf(contract: Contract, days: Days, period: Period): Period | null {
  const { timeZone, start, state, trial, billedFrom } = contract
  if (state === 'provisioned' || state === 'trial' || (trial !== undefined && trial.convertedOn === undefined))
    return null
  const begins = [start, days.from, billedFrom].flatMap((date) =>
    date === undefined ? [] : [midnightOf(date, timeZone)],
  )
  const ends = [days.until, lastDayOf(contract)].flatMap((date) =>
    date === undefined ? [] : [dayAfter(date, timeZone)],
  )
  const from = Math.max(period.from, ...begins)
  const to = Math.min(period.to, ...ends)
  return from < to ? { from, to } : null
}

/** The parts of a range in which a contract was suspended, in their order; no day twice, however they were written. */
export function pausesIn({ pauses = [], timeZone }: Pick<Contract, 'pauses' | 'timeZone'>, range: Period): Period[] {
  const all = pauses.flatMap(({ from, until }) => {
    const begin = Math.max(range.from, midnightOf(from, timeZone))
    const end = until === undefined ? range.to : Math.min(range.to, dayAfter(until, timeZone))
    return begin < end ? [{ from: begin, to: end }] : []
  })
  let known = Number.NEGATIVE_INFINITY
  return all
    .sort((a, b) => a.from - b.from)
    .flatMap(({ from, to }) => {
      const begin = Math.max(from, known)
      known = Math.max(known, to)
      return begin < to ? [{ from: begin, to }] : []
    })
}

/**
 * Whether a period has anything to bill: it is covered, or, of a contract whose fees are due in advance, the next one is. So such a
 * contract has a period before its first, which bills the first fee and counts no usage.
 */
export function isBilled(contract: Contract, period: Period): boolean {
  if (partOf(contract, {}, period) !== null) return true
  return contract.fees === 'in_advance' && partOf(contract, {}, nextPeriodOf(contract, period)) !== null
}

export function periodAt(contract: Pick<Contract, 'start' | 'timeZone' | 'cycle'>, at: number): Period {
  const { start, timeZone, cycle } = contract
  return billingPeriodOf(at, midnightOf(start, timeZone), timeZone, cycle)
}

export function nextPeriodOf(contract: Pick<Contract, 'start' | 'timeZone' | 'cycle'>, period: Period): Period {
  return periodAt(contract, period.to)
}

function dayAfter(date: string, zone: string): number {
  return DateTime.fromMillis(midnightOf(date, zone), { zone }).plus({ days: 1 }).startOf('day').toMillis()
}

/** The contract with an item moved to another plan from a day on: the old item ends the day before. Put it to make it so. */
export function changePlan(
  contract: Contract,
  change: { readonly item: string; readonly plan: string; readonly planVersion?: number; readonly from: string },
): ContractInput {
  midnightOf(change.from, contract.timeZone, 'from')
  const before = DateTime.fromISO(change.from, { zone: 'utc' }).minus({ days: 1 }).toFormat('yyyy-MM-dd')
  const old = contract.items.find((item) => item.id === change.item)
  if (old === undefined) {
    const there = contract.items.map((item) => item.id).join(', ')
    throw new ReleveError('not_found', `item: ${contract.id} has no ${change.item}; its items are ${there}`)
  }
  const [first, last] = [old.from ?? contract.start, old.until ?? lastDayOf(contract)]
  if (change.from <= first)
    throw new ReleveError('unprocessable', `from: ${old.id} begins on ${first}, the change must be behind that day`)
  if (last !== undefined && change.from > last)
    throw new ReleveError(
      'unprocessable',
      `from: ${old.until === undefined ? contract.id : old.id} ends on ${last}${old.until === undefined ? '' : ', change the item that follows it'}`,
    )
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
      ...(item.subjects === undefined ? {} : { subjects: item.subjects }),
      ...(item.prepaid === undefined ? {} : { prepaid: item.prepaid }),
      ...(item.kind === undefined ? {} : { kind: item.kind }),
    }
    return [{ ...own, until: before }, next]
  })
  return { ...contract, items }
}
