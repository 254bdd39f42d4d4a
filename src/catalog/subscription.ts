/**
 * States of a subscription and the allowed moves, and trials: when one ends, what is left of it, and the funnel. Pure; dates are
 * calendar dates (YYYY-MM-DD), and today is the caller's.
 */
import { DateTime } from 'luxon'
import { Decimal } from '../decimal.js'
import { ReleveError } from '../errors.js'

export const SubscriptionMoves = {
  provisioned: ['trial', 'active', 'cancelled'],
  trial: ['active', 'suspended', 'cancelled'],
  active: ['suspended', 'cancelled'],
  suspended: ['active', 'cancelled'],
  cancelled: [],
} as const satisfies Record<string, readonly string[]>
export type SubscriptionState = keyof typeof SubscriptionMoves

export function isSubscriptionState(text: string): text is SubscriptionState {
  return Object.hasOwn(SubscriptionMoves, text)
}

/** Throws ReleveError `conflict` when the move is not allowed. */
export function assertSubscriptionMove(from: SubscriptionState, to: SubscriptionState): void {
  if (!Object.hasOwn(SubscriptionMoves, from) || !(SubscriptionMoves[from] as readonly string[]).includes(to)) {
    throw new ReleveError('conflict', `subscription: ${from} cannot become ${to}`)
  }
}

/** Length of a trial when nothing else is agreed. */
export const TRIAL_DAYS = 14

export interface Trial {
  /** First day. */
  readonly start: string
  readonly lengthDays: number
  readonly extensionDays?: number
  /** Days after the end with read-only access. */
  readonly graceDays?: number
  readonly convertedOn?: string
}

export interface TrialStatus {
  /** The day on which it is over; for a converted one, the day of its conversion. */
  readonly ends: string
  readonly daysLeft: number | null
  /** The first day on which neither it nor its grace runs. */
  readonly over: string
  readonly status: 'active' | 'grace' | 'expired' | 'converted'
}

export function trialStatus(trial: Trial, today: string): TrialStatus {
  if (trial.convertedOn !== undefined)
    return { ends: trial.convertedOn, daysLeft: null, over: trial.convertedOn, status: 'converted' }
  const end = dayOf(trial.start).plus({ days: trial.lengthDays + (trial.extensionDays ?? 0) })
  const left = Math.round(end.diff(dayOf(today), 'days').days)
  const status = left > 0 ? 'active' : -left < (trial.graceDays ?? 0) ? 'grace' : 'expired'
  const over = end.plus({ days: trial.graceDays ?? 0 }).toFormat('yyyy-MM-dd')
  return { ends: end.toFormat('yyyy-MM-dd'), daysLeft: Math.max(left, 0), over, status }
}

/** Whether the parts sum to the trials started, and the share that converted, percent with one decimal. */
export function trialFunnel(funnel: {
  started: number
  active: number
  converting: number
  converted: number
  expired?: number
}): {
  readonly sumOk: boolean
  readonly conversionPercent: string | null
} {
  const { started, active, converting, converted, expired = 0 } = funnel
  return {
    sumOk: active + converting + converted + expired === started,
    conversionPercent: started === 0 ? null : new Decimal(converted).times(100).dividedBy(started).toFixed(1),
  }
}

function dayOf(date: string): DateTime {
  const day = DateTime.fromISO(date, { zone: 'utc' })
  if (!day.isValid) throw new ReleveError('invalid_request', `date: YYYY-MM-DD is expected, got ${date}`)
  return day
}
