/**
 * What is invoiced stays as it was: which change of a contract would say something else of a period that has its invoice. Pure.
 *
 * An issued invoice keeps the terms it was made from, so such a change could not reach it: it would be in no document, and the contract
 * would tell another story than the invoices. So what has days (items, add-ons, discounts, suspensions, the end) may be changed from
 * the first day that is not invoiced on, and not before. What has none (minimum, cap, quotas, calculators, policies) counts from
 * that day by itself.
 */
import { canonical } from '../canonical.js'
import { dateIn } from '../format.js'
import type { Period } from '../period.js'
import type { Book } from './book.js'
import type { Contract, ContractItem } from './contract.js'
import { type Days, partOf, pausesIn, periodAt } from './part.js'
import { lastDayOf } from './renewal.js'
import { midnightOf } from './schedule.js'

/** When fees are due, which prices say: they may have a cycle of their own. */
type Fees = Pick<Book, 'feesDue'>

interface Alteration {
  readonly field: string
  /** The first instant of which the contract would say something else. */
  readonly from: number
  readonly instead: string
}

/** Before every contract. */
const BEGINNING = Date.UTC(1900, 0, 1)

/** Why a change is not taken, in words that name the field, the period and the way; null when it leaves what is invoiced alone. */
export function alteredInvoiced(fees: Fees, before: Contract, after: Contract, invoicedUntil: number): string | null {
  const found = alterationOf(fees, before, after, { from: BEGINNING, to: invoicedUntil })
  if (found === null) return null
  const { timeZone } = before
  const period = periodAt(before, Math.max(found.from, midnightOf(before.start, timeZone)))
  const [first, last, open] = [period.from, period.to - 1, invoicedUntil].map((at) => dateIn(at, timeZone))
  return `${found.field}: the period from ${first} to ${last} is invoiced and stays as it was; ${before.id} may change from ${open} on: ${found.instead}, and correct what was invoiced by a credit note`
}

/** Whether everything up to an instant is billed by one of two versions of a contract as by the other. */
export function billsTheSame(fees: Fees, before: Contract, after: Contract, until: number): boolean {
  const all = { from: BEGINNING, to: until }
  const undated = (contract: Contract): string => {
    const { fees, suspension, prorate, taxBehavior, legalEntity, adjustments: { minimum, maximum } = {} } = contract
    const items = contract.items.flatMap((item) => {
      const { id, calculators, prepaid } = item
      const limits = item.entitlements.map(({ metric, limit }) => ({ metric, limit }))
      return partOf(contract, item, all) === null ? [] : [{ id, calculators, prepaid, limits }]
    })
    return canonical({ fees, suspension, prorate, taxBehavior, legalEntity, minimum, maximum, items })
  }
  return alterationOf(fees, before, after, all) === null && undated(before) === undated(after)
}

function alterationOf(fees: Fees, before: Contract, after: Contract, invoiced: Period): Alteration | null {
  const open = dateIn(invoiced.to, before.timeZone)
  const last = dateIn(invoiced.to - 1, before.timeZone)
  const [was, is] = [before, after].map((one) => partOf(one, {}, invoiced))
  const moved = difference(was!, is!)
  if (moved !== null) {
    const field =
      lastDayOf(before) === lastDayOf(after)
        ? before.billedFrom === after.billedFrom
          ? 'trial'
          : 'billedFrom'
        : before.end === after.end
          ? 'renewal'
          : 'end'
    return { field, from: moved, instead: `choose ${field === 'end' ? last : open} or a later day` }
  }
  if (was === null || was === undefined) return null
  const [pausesBefore, pausesNow] = [before, after].map((one) => pausesIn(one, was))
  const paused = firstDifference(pausesBefore!, pausesNow!)
  if (paused !== null)
    return { field: 'pauses', from: paused, instead: `let a suspension begin or end on ${open} or later` }
  for (const item of before.items) {
    const found = itemAlteration(fees, before, after, item, invoiced)
    if (found !== null) return found
  }
  for (const item of after.items) {
    const part = before.items.some((one) => one.id === item.id) ? null : partOf(after, item, invoiced)
    if (part !== null)
      return { field: `items.${item.id}`, from: part.from, instead: `let it begin ("from") on ${open} or later` }
  }
  const discounts = firstChanged(discountsIn(before, was), discountsIn(after, was))
  if (discounts === null) return null
  return {
    field: 'adjustments.discounts',
    from: discounts,
    instead: `let a discount begin ("from") on ${open} or later, or end ("until") on ${last} or later`,
  }
}

function itemAlteration(
  fees: Fees,
  before: Contract,
  after: Contract,
  item: ContractItem,
  invoiced: Period,
): Alteration | null {
  const [open, last] = [invoiced.to, invoiced.to - 1].map((at) => dateIn(at, before.timeZone))
  const was = partOf(before, item, invoiced)
  const field = `items.${item.id}`
  const next = after.items.find((one) => one.id === item.id)
  const ended = `end it ("until") on ${last} or later`
  if (next === undefined) return was === null ? null : { field, from: was.from, instead: `keep it, and ${ended}` }
  const moved = difference(was, partOf(after, next, invoiced))
  if (moved !== null) {
    const starts = was === null || item.until === next.until
    return starts
      ? { field: `${field}.from`, from: moved, instead: `let it begin on ${open} or later` }
      : { field: `${field}.until`, from: moved, instead: ended }
  }
  if (was === null) return null
  for (const member of ['plan', 'planVersion', 'kind', 'subjects', 'fleet'] as const) {
    if (same(item[member], next[member])) continue
    const another =
      member === 'plan' || member === 'planVersion'
        ? `let POST /v1/contracts/${before.id}/change-plan end it and begin another, with "from": "${open}" or later`
        : `${ended}, and let another item begin the day after`
    return { field: `${field}.${member}`, from: was.from, instead: another }
  }
  // A fee of a longer cycle is due when the part that the item covers ends: ended with what is invoiced it would be in no document,
  // and gone on behind that it would be due twice.
  const window = periodAt(before, invoiced.to - 1)
  const dueOf = (contract: Contract, one: ContractItem): object[] =>
    fees.feesDue(contract, one, window).map(({ period, part }) => ({ period, part }))
  if (before.fees === after.fees && !same(dueOf(before, item), dueOf(after, next)))
    return {
      field: item.until === next.until ? 'end' : `${field}.until`,
      from: window.from,
      instead: `choose ${open} or later for the end, for its fee is that of a longer cycle`,
    }
  const addOns = firstChanged(addOnsIn(before, item, was, invoiced), addOnsIn(after, next, was, invoiced))
  if (addOns === null) return null
  return {
    field: `${field}.addOns`,
    from: addOns,
    instead: `end an add-on ("until") on ${last} or later, and let one begin ("from") on ${open} or later`,
  }
}

/** Something of a contract, and the part of the invoiced time that it counts for. */
interface Counted {
  readonly what: string
  readonly period: Period
}

function addOnsIn(contract: Contract, item: ContractItem, part: Period, invoiced: Period): Counted[] {
  return (item.addOns ?? []).flatMap(({ from, until, ...what }): Counted[] => {
    // What is billed once has its day, whatever the item covers (Book.terms).
    const days: Days = what.once ? { from: from!, until: from! } : { ...(from && { from }), ...(until && { until }) }
    const period = partOf(contract, days, what.once ? invoiced : part)
    return period === null ? [] : [{ what: canonical(what), period }]
  })
}

/** A discount counts for the periods that begin within its days. */
function discountsIn(contract: Contract, invoiced: Period): Counted[] {
  return (contract.adjustments?.discounts ?? []).flatMap(({ from, until, ...what }): Counted[] => {
    const begins = from === undefined ? invoiced.from : nextStart(contract, midnightOf(from, contract.timeZone))
    const ends = until === undefined ? invoiced.to : periodAt(contract, midnightOf(until, contract.timeZone)).to
    const period = { from: Math.max(begins, invoiced.from), to: Math.min(ends, invoiced.to) }
    return period.from < period.to ? [{ what: canonical(what), period }] : []
  })
}

function nextStart(contract: Contract, at: number): number {
  const period = periodAt(contract, at)
  return period.from === at ? at : period.to
}

/** The first instant that counts in one list and not in the other. */
function firstChanged(before: readonly Counted[], after: readonly Counted[]): number | null {
  const names = new Set([...before, ...after].map((one) => one.what))
  const all = [...names].flatMap((name) => {
    const [was, is] = [before, after].map((list) => list.filter((one) => one.what === name).map((one) => one.period))
    return firstDifference(was!, is!) ?? []
  })
  return all.length === 0 ? null : Math.min(...all)
}

function firstDifference(before: readonly Period[], after: readonly Period[]): number | null {
  const [was, is] = [before, after].map((all) => [...all].sort((a, b) => a.from - b.from || a.to - b.to))
  for (let i = 0; i < Math.max(was!.length, is!.length); i += 1) {
    const found = difference(was![i] ?? null, is![i] ?? null)
    if (found !== null) return found
  }
  return null
}

/** The first instant that is in one of two ranges and not in the other; null when they are the same. */
function difference(a: Period | null, b: Period | null): number | null {
  if (a === null || b === null) return a?.from ?? b?.from ?? null
  if (a.from !== b.from) return Math.min(a.from, b.from)
  return a.to === b.to ? null : Math.min(a.to, b.to)
}

function same(a: unknown, b: unknown): boolean {
  return canonical(a ?? null) === canonical(b ?? null)
}
