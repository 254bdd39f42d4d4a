/**
 * Rows of an epoch before they are encoded: one per (series, minute window), one per (series, member, 15-minute bucket).
 *
 * Quantities are bigints at ROLLUP_SCALE, so that versions of a metric with different scales meet in one row. Bounds: one
 * event is at most 10^27 at that scale, an epoch has at most limits.epochEventsMax events and one batch, and a window has
 * 60,000 ms, so the weighted sum stays below 10^38 and fits Decimal(38,9); asserted below.
 */
import { ROLLUP_SCALE, SCALED_MAX } from '../amount.js'
import { assert } from '../assert.js'
import { limits } from '../limits.js'
import { MINUTE_MS } from '../period.js'

assert(
  SCALED_MAX * 10n ** BigInt(ROLLUP_SCALE) * BigInt(MINUTE_MS * (limits.epochEventsMax + limits.batchEventsMax)) <
    10n ** 38n,
  'the weighted sum of an epoch must fit Decimal(38,9)',
)

/** Every zone in use is on a multiple of 15 minutes, so unique counts can be asked for in each of them. */
export const MEMBER_BUCKET_MS = 900_000

/** What a row is about. Versions of a metric share a series. */
export interface SeriesKey {
  readonly tenant: string
  readonly metric: string
  readonly subject: string
  /** Canonical JSON. */
  readonly dims: string
}

/** A row of usage_minute. */
export interface MinuteRow {
  readonly series: SeriesKey
  /** Epoch ms, a whole minute. */
  readonly window: number
  /** Voids counted negative. */
  sum: bigint
  /** Voids counted negative. */
  count: number
  /** Usage events behind min, max and last, which are 0 as long as this is 0. */
  samples: number
  min: bigint
  max: bigint
  last: bigint
  lastTime: number
  lastPosition: number
  /** Sum of value × milliseconds since the window began. */
  sumVt: bigint
  /** 1: samples, min, max and last were recomputed from the archive and win over rows of this and lower epochs. */
  readonly override: 0 | 1
}

/** A row of usage_members. */
export interface MemberRow {
  readonly series: SeriesKey
  /** The 16 bytes of the member's hash as latin1 text: one character a byte. */
  readonly member: string
  /** Epoch ms, a multiple of MEMBER_BUCKET_MS. */
  readonly bucket: number
  /** Events, voids counted negative. */
  n: number
}

export function emptyMinuteRow(series: SeriesKey, window: number, override: 0 | 1): MinuteRow {
  return {
    series,
    window,
    sum: 0n,
    count: 0,
    samples: 0,
    min: 0n,
    max: 0n,
    last: 0n,
    lastTime: 0,
    lastPosition: 0,
    sumVt: 0n,
    override,
  }
}

/** `value` at ROLLUP_SCALE; `time` lies in the row's window. */
export function addUsage(row: MinuteRow, value: bigint, time: number, position: number): void {
  row.sum += value
  row.count += 1
  row.sumVt += value * BigInt(time - row.window)
  if (row.samples === 0) {
    row.min = value
    row.max = value
    row.last = value
    row.lastTime = time
    row.lastPosition = position
  } else {
    if (value < row.min) row.min = value
    if (value > row.max) row.max = value
    // Two events of one millisecond: the later place in the log is the later one, whatever order they are applied in.
    if (time > row.lastTime || (time === row.lastTime && position > row.lastPosition)) {
      row.last = value
      row.lastTime = time
      row.lastPosition = position
    }
  }
  row.samples += 1
}

/** Takes the event back from the sums. What it was to min, max and last only the archive can tell. */
export function takeBack(row: MinuteRow, value: bigint, time: number): void {
  row.sum -= value
  row.count -= 1
  row.sumVt -= value * BigInt(time - row.window)
}
