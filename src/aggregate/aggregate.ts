/**
 * Aggregate: accepted events of one stream into the rows of the open epoch. On the road behind dedupe and before rollup; runs
 * inside the shard's thread; pure: no clock, no I/O, no catalogue. What it makes depends on frames, sequences and verdicts
 * alone, and rows come out in the order in which they were first touched, so a replay makes the same bytes.
 *
 * Plain and exact: it is the oracle of any faster kernel. It does not encode (rollup does), keeps no event (rollup/archive.ts
 * does) and does not judge: range, age and names were judged at the door.
 *
 * A void takes its value from the sums. For max, min and latest that is not enough: the touched (series, window) is listed in
 * `overrides`, and the caller recomputes it from the archive when it flushes the epoch.
 */
import { powerOfTen, ROLLUP_SCALE } from '../amount.js'
import { assert } from '../assert.js'
import { positionOf } from '../event.js'
import { type Frame, type FrameMetric, KIND_VOID } from '../frame.js'
import { ShardVerdict } from '../ingest/verdict.js'
import { MINUTE_MS } from '../period.js'
import {
  addUsage,
  emptyMinuteRow,
  MEMBER_BUCKET_MS,
  type MemberRow,
  type MinuteRow,
  type SeriesKey,
  takeBack,
} from './row.js'
import { type Series, SeriesTable } from './series-table.js'

/** Keyed hash of (tenant, member), 16 bytes. The result may be a view that the next call overwrites. */
export type MemberHash = (tenant: string, member: Uint8Array) => Uint8Array

/** Minute windows whose min, max and last must be recomputed from the archive. */
export interface Override {
  readonly series: SeriesKey
  readonly window: number
}

/** The content of an epoch, each list in first-touch order. */
export interface EpochRows {
  readonly minutes: MinuteRow[]
  readonly members: MemberRow[]
  readonly overrides: Override[]
}

export interface Aggregate {
  /** Adds the accepted events of the frame with this log sequence. `verdicts` holds one ShardVerdict per event. */
  apply(frame: Frame, sequence: number, verdicts: Uint8Array): void
  /** Series of the open epoch; the caller seals at limits.epochSeriesMax. */
  readonly seriesTouched: number
  /** Rows of both tables in the open epoch. */
  readonly rows: number
  /** Returns the open epoch's rows, which then belong to the caller, and begins an empty epoch. */
  drain(): EpochRows
}

export function openAggregate(memberHash: MemberHash): Aggregate {
  return new EpochAggregate(memberHash)
}

/** Aggregations that a negative row cannot mend. */
function needsArchive(metric: FrameMetric): boolean {
  return metric.aggregation === 'max' || metric.aggregation === 'min' || metric.aggregation === 'latest'
}

class EpochAggregate implements Aggregate {
  readonly #memberHash: MemberHash
  readonly #table = new SeriesTable()
  #minutes: MinuteRow[] = []
  #members: MemberRow[] = []
  #overrides = new Set<MinuteRow>()

  constructor(memberHash: MemberHash) {
    this.#memberHash = memberHash
  }

  get seriesTouched(): number {
    return this.#table.size
  }

  get rows(): number {
    return this.#minutes.length + this.#members.length
  }

  apply(frame: Frame, sequence: number, verdicts: Uint8Array): void {
    assert(verdicts.length === frame.events, `${verdicts.length} verdicts for ${frame.events} events`)
    const factors = frame.metrics.map((metric) => powerOfTen(ROLLUP_SCALE - metric.scale))
    const isUnique = frame.metrics.map((metric) => metric.aggregation === 'unique')
    // By index in the frame, so that a series is looked up once a frame and not once an event.
    const known: (Series | undefined)[] = new Array(frame.series.length).fill(undefined)
    for (let i = 0; i < frame.events; i += 1) {
      if (verdicts[i] !== ShardVerdict.accepted) continue
      const seriesIndex = frame.seriesOf[i]!
      const { tenant, metric, subject, dims } = frame.series[seriesIndex]!
      let series = known[seriesIndex]
      if (series === undefined) {
        series = this.#table.find(tenant, frame.metrics[metric]!.key, subject, dims)
        known[seriesIndex] = series
      }
      const time = frame.times[i]!
      const value = frame.values[i]! * factors[metric]!
      const row = this.#rowOf(series, Math.floor(time / MINUTE_MS))
      const isVoid = (frame.kinds[i]! & KIND_VOID) !== 0
      if (isVoid) {
        takeBack(row, value, time)
        if (needsArchive(frame.metrics[metric]!)) this.#overrides.add(row)
      } else {
        addUsage(row, value, time, positionOf(sequence, i))
      }
      if (isUnique[metric]!) {
        const member = frame.members.subarray(i === 0 ? 0 : frame.memberEnds[i - 1]!, frame.memberEnds[i]!)
        this.#countMember(series, this.#memberHash(tenant, member), time, isVoid ? -1 : 1)
      }
    }
  }

  drain(): EpochRows {
    const rows = {
      minutes: this.#minutes,
      members: this.#members,
      // Plain keys: these cross to another thread, and a series drags its rows along.
      overrides: [...this.#overrides].map(({ series: { tenant, metric, subject, dims }, window }) => ({
        series: { tenant, metric, subject, dims },
        window,
      })),
    }
    this.#table.clear()
    this.#minutes = []
    this.#members = []
    this.#overrides = new Set()
    return rows
  }

  /** `minute` counts minutes since 1970: a small integer, where milliseconds would be a heap number for every look-up. */
  #rowOf(series: Series, minute: number): MinuteRow {
    if (series.row !== undefined && series.minute === minute) return series.row
    let row = series.rows?.get(minute)
    if (row === undefined) {
      row = emptyMinuteRow(series, minute * MINUTE_MS, 0)
      this.#minutes.push(row)
      if (series.row !== undefined) {
        series.rows ??= new Map([[series.minute, series.row]])
        series.rows.set(minute, row)
      }
    }
    series.row = row
    series.minute = minute
    return row
  }

  #countMember(series: Series, hash: Uint8Array, time: number, n: 1 | -1): void {
    const bucket = Math.floor(time / MEMBER_BUCKET_MS) * MEMBER_BUCKET_MS
    series.members ??= new Map()
    let members = series.members.get(bucket)
    if (members === undefined) {
      members = new Map()
      series.members.set(bucket, members)
    }
    const member = hashText(hash)
    const row = members.get(member)
    if (row !== undefined) {
      row.n += n
      return
    }
    const created = { series, member, bucket, n }
    members.set(member, created)
    this.#members.push(created)
  }
}

/** A hash as a map key: latin1 text, one character a byte. */
function hashText(hash: Uint8Array): string {
  return Buffer.from(hash.buffer, hash.byteOffset, hash.byteLength).toString('latin1')
}
