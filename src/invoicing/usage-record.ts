/**
 * Usage records as the contract people know them: one confirmed quantity of an item, with a state of its own. Which of them a
 * period's invoice collects, what is wrong with one, and where usage goes that comes after its period. Pure.
 *
 * Draft → pending (confirmed) → collected by an invoice; or excluded. Events of the road are not these: they need no state, the
 * cut of the closing says which of them were collected.
 */
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { formatMonth } from '../format.js'
import { contains, type Period } from '../period.js'

export interface UsageRecord {
  /** Epoch ms. */
  readonly at: number
  readonly value: string
  readonly state: 'draft' | 'pending' | 'collected' | 'excluded'
  readonly doNotInvoice?: boolean
}

/** Sums the pending records of a period and marks them collected; all others stay as they are. */
export function collectUsage(
  records: readonly UsageRecord[],
  period: Period,
): { readonly quantity: string; readonly records: readonly UsageRecord[] } {
  let quantity = new Decimal(0)
  const after = records.map((record) => {
    if (record.state !== 'pending' || record.doNotInvoice === true || !contains(period, record.at)) return record
    quantity = quantity.plus(parseDecimal(record.value, 'value'))
    return { ...record, state: 'collected' as const }
  })
  return { quantity: printDecimal(quantity), records: after }
}

/** What is wrong with a record, as a code, or null. A calculator reads a value or data, never both. */
export function usageRecordFault(record: {
  readonly value?: unknown
  readonly json?: unknown
}): 'value_and_json_exclusive' | 'empty' | null {
  const value = record.value !== undefined && record.value !== null
  const json = record.json !== undefined && record.json !== null
  return value && json ? 'value_and_json_exclusive' : value || json ? null : 'empty'
}

/** JSON data of a record. `1,27` is not JSON: ReleveError `malformed_body` with what to write instead. */
export function parseUsageData(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch (cause) {
    throw new ReleveError(
      'malformed_body',
      'invalid_json: the data cannot be read; decimals take a point (1.27, not 1,27)',
      { cause },
    )
  }
  throw new ReleveError('malformed_body', 'invalid_json: an object such as {"cpu":8} is expected')
}

export type LatePolicy = 'next_invoice' | 'complementary_invoice' | 'reject'

/**
 * Where usage of `period` goes when it arrives after the period's end. A draft takes it in; an issued invoice never changes, so
 * the difference becomes a line of the next one, a document of its own, or a refusal.
 */
export function lateUsageGoes(request: {
  readonly period: Period
  readonly zone: string
  readonly invoiceState: 'draft' | 'finalized'
  readonly policy: LatePolicy
}): { readonly to: 'draft' | 'next_invoice' | 'complementary_invoice' | 'rejected'; readonly line: string | null } {
  const { period, zone, invoiceState, policy } = request
  if (invoiceState === 'draft') return { to: 'draft', line: null }
  if (policy === 'reject') return { to: 'rejected', line: null }
  return { to: policy, line: `régularisation ${formatMonth(period.from, zone, 'fr')}` }
}
