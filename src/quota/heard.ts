/**
 * Heard: when each watched meter spoke last, a tenant's metric or one subject of it. Runs inside the shard's thread behind dedupe,
 * on accepted usage alone: a gateway that repeats itself says nothing new. Only what is watched costs anything.
 */
import { type Frame, KIND_VOID } from '../frame.js'
import { ShardVerdict } from '../ingest/verdict.js'
import { limits } from '../limits.js'

/** What a shard listens for. */
export interface Listening {
  readonly tenant: string
  readonly metric: string
  /** Also each subject by itself. */
  readonly bySubject: boolean
}

/** A meter that spoke since the last question. */
export interface HeardMeter {
  readonly tenant: string
  readonly metric: string
  /** '': the metric as a whole. */
  readonly subject: string
  /** receivedAt of the record. */
  readonly at: number
}

export class Heard {
  #watched = new Map<string, boolean>()
  #tenants = new Set<string>()
  #news = new Map<string, HeardMeter>()

  listen(list: readonly Listening[]): void {
    this.#watched = new Map(list.map(({ tenant, metric, bySubject }) => [keyOf(tenant, metric, ''), bySubject]))
    this.#tenants = new Set(list.map(({ tenant }) => tenant))
  }

  apply(frame: Frame, verdicts: Uint8Array): void {
    if (this.#tenants.size === 0) return
    if (!frame.origins.some(({ tenant }) => this.#tenants.has(tenant))) return
    const { series, metrics, seriesOf, kinds, receivedAt } = frame
    const seen = new Uint8Array(series.length)
    for (let i = 0; i < frame.events; i += 1) {
      const n = seriesOf[i]!
      if (seen[n] !== 0 || verdicts[i] !== ShardVerdict.accepted || (kinds[i]! & KIND_VOID) !== 0) continue
      seen[n] = 1
      const { tenant, metric: index, subject } = series[n]!
      const metric = metrics[index]!.key
      const bySubject = this.#watched.get(keyOf(tenant, metric, ''))
      if (bySubject === undefined) continue
      this.#note({ tenant, metric, subject: '', at: receivedAt })
      if (bySubject && subject !== '') this.#note({ tenant, metric, subject, at: receivedAt })
    }
  }

  /** Everything that spoke since the last call. */
  take(): HeardMeter[] {
    const news = [...this.#news.values()]
    this.#news.clear()
    return news
  }

  #note(meter: HeardMeter): void {
    const key = keyOf(meter.tenant, meter.metric, meter.subject)
    if (this.#news.size < limits.silentSubjectsMax || this.#news.has(key)) this.#news.set(key, meter)
  }
}

/** One key of the three names; their lengths keep them apart. */
export const keyOf = (tenant: string, metric: string, subject: string): string =>
  `${tenant.length}:${metric.length}:${tenant}${metric}${subject}`
