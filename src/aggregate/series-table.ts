/**
 * Series of one epoch, found by (tenant, metric, subject, dims), each with its open rows. Lives as long as the epoch, so its
 * size is bounded by limits.epochSeriesMax and one frame: the caller seals the epoch when `size` reaches the limit.
 */
import type { MemberRow, MinuteRow, SeriesKey } from './row.js'

export interface Series extends SeriesKey {
  /** The row touched last: most events of a series come minute after minute. */
  row: MinuteRow | undefined
  /** All rows by window; only once there are two. */
  rows: Map<number, MinuteRow> | undefined
  /** By bucket, then by the hash as latin1 text; only for unique metrics. */
  members: Map<number, Map<string, MemberRow>> | undefined
}

export class SeriesTable {
  #tenants = new Map<string, Map<string, Map<string, Series>>>()
  size = 0

  find(tenant: string, metric: string, subject: string, dims: string): Series {
    let metrics = this.#tenants.get(tenant)
    if (metrics === undefined) {
      metrics = new Map()
      this.#tenants.set(tenant, metrics)
    }
    let entries = metrics.get(metric)
    if (entries === undefined) {
      entries = new Map()
      metrics.set(metric, entries)
    }
    // Canonical JSON escapes control characters, so the first NUL is ours and no two pairs share a key.
    const key = `${dims}\0${subject}`
    let series = entries.get(key)
    if (series === undefined) {
      series = { tenant, metric, subject, dims, row: undefined, rows: undefined, members: undefined }
      entries.set(key, series)
      this.size += 1
    }
    return series
  }

  clear(): void {
    this.#tenants = new Map()
    this.size = 0
  }
}
