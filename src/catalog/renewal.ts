/**
 * Terms and notices: a contract runs for terms of so many billing periods, and at the end of each it renews or ends. Pure; dates are
 * calendar dates in the contract's zone.
 *
 * Without anything agreed a term is one period and renews by itself. Notice given in time ends the contract with the running term;
 * given later, with the next one.
 */
import { DateTime } from 'luxon'
import { dateIn } from '../format.js'
import { billingPeriodOf } from '../period.js'
import type { Contract } from './contract.js'
import { midnightOf } from './schedule.js'

export interface Renewal {
  /** Billing periods of a term; default 1. */
  readonly periods?: number
  /** false: the contract ends with its first term. */
  readonly auto: boolean
  /** Days before the end of a term by which notice must be given. */
  readonly noticeDays: number
}

export interface RenewalState {
  /** First and last day of the term that runs now (or that begins with the contract). */
  readonly term: { readonly from: string; readonly until: string }
  /** The day on which the next term begins; null when there is none. */
  readonly nextRenewal: string | null
  /** The last day on which notice ends the contract with this term; null when it ends anyway. */
  readonly noticeBy: string | null
  /** The last day; null when it is open. */
  readonly endsOn: string | null
}

type Agreed = Pick<Contract, 'start' | 'timeZone' | 'cycle' | 'end' | 'renewal' | 'state'>

function termAt(contract: Agreed, time: number): { readonly from: number; readonly to: number } {
  const anchor = midnightOf(contract.start, contract.timeZone)
  const times = contract.renewal?.periods ?? 1
  return billingPeriodOf(Math.max(time, anchor), anchor, contract.timeZone, contract.cycle, times)
}

/** The last day of a contract: what was agreed, or the end of a term that does not renew. */
export function lastDayOf(contract: Agreed): string | undefined {
  if (contract.end !== undefined || contract.renewal?.auto !== false) return contract.end
  return dateIn(termAt(contract, 0).to - 1, contract.timeZone)
}

export function renewalOf(contract: Agreed, now: number): RenewalState {
  const { timeZone } = contract
  const end = lastDayOf(contract) ?? null
  // Of one that is over, the last term.
  const term = termAt(contract, end === null ? now : Math.min(now, midnightOf(end, timeZone)))
  const from = dateIn(term.from, timeZone)
  const until = dateIn(term.to - 1, timeZone)
  const next = dateIn(term.to, timeZone)
  const ends = contract.state === 'cancelled' || (end !== null && end <= until)
  return {
    term: { from, until: end !== null && end < until ? end : until },
    nextRenewal: ends ? null : next,
    noticeBy: ends ? null : before(next, noticeDaysOf(contract), timeZone),
    endsOn: end,
  }
}

/** The last day of a contract whose notice is given on a day. */
export function endAfterNotice(contract: Agreed, on: string): string {
  const { timeZone } = contract
  const given = midnightOf(on, timeZone)
  const term = termAt(contract, given)
  const next = dateIn(term.to, timeZone)
  const inTime = on <= before(next, noticeDaysOf(contract), timeZone)
  const ends = dateIn((inTime ? term : termAt(contract, term.to)).to - 1, timeZone)
  const agreed = lastDayOf(contract)
  return agreed !== undefined && agreed < ends ? agreed : ends
}

/** Without days of notice it is given on the last day of the term at the latest: the day behind it is of the next one. */
function noticeDaysOf({ renewal }: Agreed): number {
  return Math.max(renewal?.noticeDays ?? 0, 1)
}

function before(date: string, days: number, zone: string): string {
  return DateTime.fromISO(date, { zone }).minus({ days }).toFormat('yyyy-MM-dd')
}
