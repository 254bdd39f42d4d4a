/**
 * What a person does with a subscription: moves it along its states, extends a trial, gives notice. Each gives the contract as it is
 * then and a line for its history; the catalogue keeps both in one transaction. Pure; `on` is a calendar day of the contract's zone.
 *
 * What the states mean for billing: provisioned and an unconverted trial are not billed; a suspended contract pays its usage and, by
 * its policy, no fee, add-on or minimum for the days of suspension; a cancelled one is billed up to its last day.
 */
import { DateTime } from 'luxon'
import { ReleveError } from '../errors.js'
import type { Contract } from './contract.js'
import { endAfterNotice, lastDayOf } from './renewal.js'
import { assertSubscriptionMove, type SubscriptionState, TRIAL_DAYS, trialStatus } from './subscription.js'

/** A line of the history, without who and when it was written. */
export interface Move {
  readonly kind: 'move' | 'trial_extended' | 'notice'
  readonly from: SubscriptionState
  readonly to: SubscriptionState
  readonly on: string
  readonly detail: string | null
}

export interface Moved {
  readonly contract: Contract
  readonly move: Move
}

/** Throws ReleveError `conflict` when the move is not allowed, `unprocessable` for a day that cannot be. */
export function moveContract(contract: Contract, to: SubscriptionState, on: string): Moved {
  const { state: from } = contract
  assertSubscriptionMove(from, to)
  if (on < contract.start) throw new ReleveError('unprocessable', `on: the contract begins on ${contract.start}`)
  const move: Move = { kind: 'move', from, to, on, detail: null }
  const next: Contract = { ...contract, state: to }
  if (to === 'trial') {
    const { trial = { start: on, lengthDays: TRIAL_DAYS } } = contract
    return { contract: { ...next, trial: { ...trial, start: on } }, move }
  }
  if (to === 'cancelled') {
    const agreed = lastDayOf(contract)
    const end = agreed !== undefined && agreed < on ? agreed : on
    // What never became active is billed from behind its last day, which is not at all.
    const never = from === 'provisioned' ? { billedFrom: dayAfter(end) } : {}
    return { contract: { ...next, ...never, end }, move: { ...move, detail: `last day ${end}` } }
  }
  if (to === 'suspended') return { contract: { ...next, pauses: [...(contract.pauses ?? []), { from: on }] }, move }
  // Active from now on: a trial is converted, what was provisioned begins, a suspension ends the day before.
  if (from === 'trial' || (contract.trial !== undefined && contract.trial.convertedOn === undefined)) {
    const trial = { ...contract.trial!, convertedOn: on }
    return { contract: { ...resumed(next, on), trial, billedFrom: on }, move }
  }
  if (from === 'provisioned') return { contract: { ...next, billedFrom: on }, move }
  return { contract: resumed(next, on), move }
}

function dayAfter(date: string): string {
  return DateTime.fromISO(date, { zone: 'utc' }).plus({ days: 1 }).toFormat('yyyy-MM-dd')
}

/** The open suspension ends the day before; one that would end before it began is none. */
function resumed(contract: Contract, on: string): Contract {
  if (contract.pauses === undefined) return contract
  const until = DateTime.fromISO(on, { zone: 'utc' }).minus({ days: 1 }).toFormat('yyyy-MM-dd')
  const pauses = contract.pauses
    .map((pause) => ({ from: pause.from, until: pause.until ?? until }))
    .filter((pause) => pause.from <= pause.until)
  const { pauses: _, ...rest } = contract
  return pauses.length === 0 ? rest : { ...rest, pauses }
}

/** More days for a trial that runs or is in its grace. */
export function extendTrial(contract: Contract, days: number, on: string): Moved {
  const { trial, state } = contract
  if (state !== 'trial' || trial === undefined) throw new ReleveError('conflict', `trial: ${contract.id} is ${state}`)
  if (trialStatus(trial, on).status === 'expired')
    throw new ReleveError('conflict', `trial: that of ${contract.id} has expired`)
  const extended = { ...trial, extensionDays: (trial.extensionDays ?? 0) + days }
  const move: Move = { kind: 'trial_extended', from: state, to: state, on, detail: `+${days} d` }
  return { contract: { ...contract, trial: extended }, move }
}

/**
 * What a trial comes to by its policy, on the day on which its grace is over, however late somebody looks. Throws ReleveError
 * `conflict` when there is nothing to do: it runs, or was decided on.
 */
export function endTrial(contract: Contract, today: string): Moved {
  const { trial, state } = contract
  if (state !== 'trial' || trial?.atEnd === undefined || trialStatus(trial, today).status !== 'expired')
    throw new ReleveError('conflict', `trial: nothing is to be done with that of ${contract.id}`)
  const { over } = trialStatus(trial, today)
  const { contract: next, move } = moveContract(contract, trial.atEnd === 'convert' ? 'active' : 'cancelled', over)
  return { contract: next, move: { ...move, detail: `trial over${move.detail === null ? '' : `, ${move.detail}`}` } }
}

/** The contract ends with its term, or with the next one when the notice comes too late for it. */
export function giveNotice(contract: Contract, on: string): Moved {
  const { state } = contract
  if (state === 'cancelled') throw new ReleveError('conflict', `contract: ${contract.id} is cancelled`)
  const end = endAfterNotice(contract, on)
  const move: Move = { kind: 'notice', from: state, to: state, on, detail: `last day ${end}` }
  return { contract: { ...contract, end }, move }
}
