/**
 * The trials of all contracts at a day, and the funnel: how many began, run, are to be decided on (in their grace), were converted,
 * and expired. Every trial is in one of the last four, so they sum to the first. Pure.
 */
import { dateIn } from '../format.js'
import type { Book } from './book.js'
import { type TrialStatus, trialFunnel, trialStatus } from './subscription.js'

export interface TrialEntry {
  readonly contract: string
  readonly tenant: string
  readonly customer: string
  /** Names of the plans that are tried. */
  readonly plans: readonly string[]
  readonly start: string
  readonly ends: string
  readonly daysLeft: number | null
  readonly status: TrialStatus['status']
  readonly extensionDays: number
  /** What becomes of it by itself, and from which day; null: a person decides. */
  readonly atEnd: 'convert' | 'cancel' | null
  readonly over: string
  readonly convertedOn: string | null
}

export interface Trials {
  readonly funnel: {
    readonly started: number
    readonly active: number
    readonly converting: number
    readonly converted: number
    readonly expired: number
    readonly conversionPercent: string | null
  }
  /** Those that end next first, then the others by their end. */
  readonly trials: readonly TrialEntry[]
}

/** Trials whose grace is over and that have a policy, those that ended first before all others. */
export function endedTrials(book: Book, now: number): string[] {
  const ended: { readonly id: string; readonly over: string }[] = []
  for (const { id, state, trial, timeZone } of book.contracts.values()) {
    if (state !== 'trial' || trial?.atEnd === undefined) continue
    const { status, over } = trialStatus(trial, dateIn(now, timeZone))
    if (status === 'expired') ended.push({ id, over })
  }
  return ended.sort((a, b) => (a.over < b.over ? -1 : a.over > b.over ? 1 : 0)).map((one) => one.id)
}

export function trialsOf(book: Book, now: number, tenant: string | null): Trials {
  const trials: TrialEntry[] = []
  for (const contract of book.contracts.values()) {
    const { trial } = contract
    if (trial === undefined || contract.state === 'provisioned' || (tenant ?? contract.tenant) !== contract.tenant)
      continue
    const found = trialStatus(trial, dateIn(now, contract.timeZone))
    // Cancelled before it was over: nothing is to be decided any more.
    const open = contract.state === 'cancelled' && found.status !== 'converted'
    trials.push({
      contract: contract.id,
      tenant: contract.tenant,
      customer: book.customers.get(contract.tenant)?.name ?? contract.tenant,
      plans: contract.items.map((item) => book.planOf(item.plan, item.planVersion).name),
      start: trial.start,
      ends: found.ends,
      daysLeft: open ? 0 : found.daysLeft,
      status: open ? 'expired' : found.status,
      extensionDays: trial.extensionDays ?? 0,
      atEnd: trial.atEnd ?? null,
      over: found.over,
      convertedOn: trial.convertedOn ?? null,
    })
  }
  const order = ['active', 'grace', 'expired', 'converted']
  trials.sort(
    (a, b) => order.indexOf(a.status) - order.indexOf(b.status) || (a.ends < b.ends ? -1 : a.ends > b.ends ? 1 : 0),
  )
  const count = (status: TrialStatus['status']): number => trials.filter((one) => one.status === status).length
  const counts = {
    started: trials.length,
    active: count('active'),
    converting: count('grace'),
    converted: count('converted'),
    expired: count('expired'),
  }
  return { funnel: { ...counts, conversionPercent: trialFunnel(counts).conversionPercent }, trials }
}
