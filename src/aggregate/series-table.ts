/**
 * Series of one epoch, found by (tenant, metric, subject, dims), each with its open rows. Lives as long as the epoch, so its
 * size is bounded by limits.epochSeriesMax and one frame: the caller seals the epoch when `size` reaches the limit.
 */
import type { MemberRow, MinuteRow, SeriesKey } from './row.js'

export interface Series extends SeriesKey {
  /** The row touched last: most events of a series come minute after minute. */
  row: MinuteRow | undefined
  /** Minutes since 1970 of `row`. */
  minute: number
  /** All rows by minute; only once there are two. */
  rows: Map<number, MinuteRow> | undefined
  /** By bucket, then by the hash as latin1 text; only for unique metrics. */
  members: Map<number, Map<string, MemberRow>> | undefined
}

type BySubject = Map<string, Series>
type ByDims = Map<string, BySubject>

/** Nested by name: joining four names into one key cost more than four lookups. Dims outside subjects, since they are fewer. */
export class SeriesTable {
  #metrics = new Map<string, Map<string, ByDims>>()
  size = 0

  find(tenant: string, metric: string, subject: string, dims: string): Series {
    const tenants = inner(this.#metrics, metric)
    const subjects = inner(inner(tenants, tenant), dims)
    let series = subjects.get(subject)
    if (series === undefined) {
      series = { tenant, metric, subject, dims, row: undefined, minute: 0, rows: undefined, members: undefined }
      subjects.set(subject, series)
      this.size += 1
    }
    return series
  }

  clear(): void {
    this.#metrics = new Map()
    this.size = 0
  }
}

function inner<Value>(outer: Map<string, Map<string, Value>>, key: string): Map<string, Value> {
  let map = outer.get(key)
  if (map === undefined) {
    map = new Map()
    outer.set(key, map)
  }
  return map
}
