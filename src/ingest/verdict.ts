/**
 * What becomes of an event. The door says `stored` or refuses with one of these codes; the shard says later whether a stored
 * event was accepted, a duplicate or a conflict, and nothing else. A duplicate is a success for the sender.
 */
export const RefusalCode = [
  'malformed', // not an object, a field of the wrong type, invalid UTF-8, a duplicate key
  'missing_field', // id, metric, tenant (for a platform-wide key) or the time of a void is not there
  'unknown_field', // a member that no event has
  'unknown_metric',
  'unknown_tenant',
  'forbidden_tenant', // the key belongs to another tenant
  'unknown_dimension', // the metric does not name it
  'too_many_dims',
  'missing_member', // a unique metric without the member that it counts
  'value_not_a_number',
  'value_too_precise', // more decimals than the metric's scale; nothing is rounded in silence
  'value_out_of_range',
  'invalid_time',
  'too_old',
  'too_far_ahead',
  'too_large', // an id, a name or a value longer than limits.ts allows
  'too_many_metrics', // new beyond the tenant's limits of cardinality
  'too_many_subjects',
  'too_many_series',
  'too_many_dim_values',
  'void_unavailable', // the metric is not archived, so nothing can be voided
] as const
export type RefusalCode = (typeof RefusalCode)[number]

/** One refused event. Travels in the log record and reaches ingest_rejects through the epoch. */
export interface Refusal {
  /** Place in the request, from 0. */
  readonly index: number
  readonly code: RefusalCode
  /** The field that is wrong, as the sender named it; empty when it is the whole event. */
  readonly field: string
  /** Which value, and why: for people. */
  readonly message: string
  /** As far as they could be read; cut to limits.nameBytesMax. */
  readonly tenant: string
  readonly source: string
  readonly id: string
  readonly metric: string
  /** The beginning of the event as it came, at most limits.refusalRawBytesMax bytes. */
  readonly raw: string
}

/** The shard's verdict on a stored event, one byte each. */
export const ShardVerdict = { accepted: 0, duplicate: 1, conflict: 2 } as const
export type ShardVerdict = (typeof ShardVerdict)[keyof typeof ShardVerdict]
export const shardVerdictNames = ['accepted', 'duplicate', 'conflict'] as const
