/**
 * Cardinality: how many metrics, subjects, series and values of a dimension a tenant may name in a calendar month (UTC, by
 * receivedAt). Judged at the door of the tenant's stream and only there; a refusal travels in the record, so that a replay counts
 * nothing. It lives in the stream's thread and holds what limited tenants have named, as hashes of 53 bits.
 *
 * What is known is never refused, and nothing is let in beyond the limit. While the names of a tenant's month are still being read
 * (after a start, or when its limit is new) an unknown name is neither: it may be one of them, or the one too many. The batch is told
 * to come again.
 *
 * Exact but for two things. Hashes may meet: then one name more is let in. And what only duplicates or conflicts named is
 * forgotten at a restart, since the rollups do not have it.
 */
import { randomInt } from 'node:crypto'
import { printQuantity } from '../amount.js'
import type { Metric } from '../catalog/metric.js'
import { ReleveError } from '../errors.js'
import type { UsageEvent } from '../event.js'
import { encodeFrame, type Frame, frameRefusals, KIND_UNTIMED, KIND_VOID } from '../frame.js'
import { limits } from '../limits.js'
import type { Refusal, RefusalCode } from './verdict.js'

/** null: no limit. */
export interface CardinalityLimits {
  readonly metrics: number | null
  readonly subjects: number | null
  readonly series: number | null
  /** Values of one dimension of one metric. */
  readonly dimValues: number | null
}

export interface CardinalityCounts {
  readonly metrics: number
  readonly subjects: number
  readonly series: number
  /** Of the dimension that has most. */
  readonly dimValues: number
}

/** One name that a tenant has used, as it comes from the rollups. */
export interface KnownSeries {
  readonly tenant: string
  readonly metric: string
  readonly subject: string
  readonly dims: string
}

interface Denial {
  readonly code: RefusalCode
  readonly field: string
  readonly message: string
}

/** Unforeseeable, so that nobody can choose names that meet. */
const seed = randomInt(2 ** 31)

function hash(text: string): number {
  let a = seed ^ 0x9e3779b9
  let b = seed ^ 0x41c6ce57
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i)
    a = Math.imul(a ^ unit, 0x85ebca6b)
    b = Math.imul(b ^ unit, 0xc2b2ae35)
  }
  a = Math.imul(a ^ (a >>> 16), 0x21f0aaad) ^ Math.imul(b ^ (b >>> 15), 0x735a2d97)
  b = Math.imul(b ^ (b >>> 16), 0x21f0aaad) ^ Math.imul(a ^ (a >>> 15), 0x735a2d97)
  return (b >>> 11) * 2 ** 32 + (a >>> 0)
}

/** The names of one tenant in the month. */
class Names {
  readonly metrics = new Set<string>()
  readonly subjects = new Set<number>()
  readonly series = new Set<number>()
  readonly #dims = new Set<number>()
  readonly dimValues = new Map<string, Set<number>>()

  get counts(): CardinalityCounts {
    return {
      metrics: this.metrics.size,
      subjects: this.subjects.size,
      series: this.series.size,
      dimValues: Math.max(0, ...[...this.dimValues.values()].map((values) => values.size)),
    }
  }

  /** How many names are new with this series, or why it is not let in. Without limits none acts: what is there is there. */
  add(name: KnownSeries, of: CardinalityLimits | null, room: number, complete: boolean): Denial | 'known' | number {
    const { metric, subject, dims } = name
    const seriesHash = hash(`${metric}\0${subject}\0${dims}`)
    if (this.series.has(seriesHash)) return 'known'
    const dimsHash = hash(`${metric}\0${dims}`)
    const subjectHash = hash(subject)
    const isNewMetric = !this.metrics.has(metric)
    const isNewSubject = subject !== '' && !this.subjects.has(subjectHash)
    const values = this.#dims.has(dimsHash) ? [] : this.#newValues(metric, dims)
    const over = (limit: number | null | undefined, size: number): boolean =>
      typeof limit === 'number' && (!complete || size >= limit)
    if (isNewMetric && over(of?.metrics, this.metrics.size)) return denial('metrics', 'metric', metric, of!.metrics!)
    if (isNewSubject && over(of?.subjects, this.subjects.size))
      return denial('subjects', 'subject', subject, of!.subjects!)
    for (const { key, field, text } of values) {
      if (over(of?.dimValues, this.dimValues.get(key)?.size ?? 0))
        return denial('dim_values', field, text, of!.dimValues!)
    }
    if (over(of?.series, this.series.size)) return denial('series', '', `${metric} ${subject} ${dims}`, of!.series!)
    const added = 2 + (isNewMetric ? 1 : 0) + (isNewSubject ? 1 : 0) + values.length
    if (of !== null && added > room) {
      return {
        code: 'too_many_series',
        field: '',
        message: 'the service remembers no more names of limited tenants (limits.cardinalityNamesMax)',
      }
    }
    this.series.add(seriesHash)
    this.#dims.add(dimsHash)
    this.metrics.add(metric)
    if (isNewSubject) this.subjects.add(subjectHash)
    for (const { key, value } of values) {
      const known = this.dimValues.get(key)
      if (known === undefined) this.dimValues.set(key, new Set([value]))
      else known.add(value)
    }
    return added
  }

  #newValues(metric: string, dims: string): { key: string; field: string; text: string; value: number }[] {
    return Object.entries(JSON.parse(dims) as Record<string, string>).flatMap(([name, text]) => {
      const key = `${metric}\0${name}`
      const value = hash(text)
      return this.dimValues.get(key)?.has(value) === true ? [] : [{ key, field: `dims.${name}`, text, value }]
    })
  }
}

function denial(
  what: 'metrics' | 'subjects' | 'dim_values' | 'series',
  field: string,
  text: string,
  limit: number,
): Denial {
  const shown = JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text)
  const words = { metrics: 'metrics', subjects: 'subjects', dim_values: 'values of this dimension', series: 'series' }[
    what
  ]
  return {
    code: `too_many_${what}`,
    field,
    message: `${shown} is new, and the tenant has ${limit} ${words} this month, its limit`,
  }
}

const monthOf = (time: number): number => {
  const date = new Date(time)
  return date.getUTCFullYear() * 12 + date.getUTCMonth()
}

/** The refused events of a frame, taken out of it. `indices` are places in the request. */
export interface Admitted {
  readonly frame: Uint8Array
  readonly indices: Uint32Array
  readonly events: number
  readonly refusals: readonly Refusal[]
}

export class Cardinality {
  readonly #namesMax: number
  #default: CardinalityLimits | null = null
  #own: ReadonlyMap<string, CardinalityLimits> = new Map()
  #names = new Map<string, Names>()
  #size = 0
  #month = 0
  /** Whose names of the month are still to be learned: of all, or of some. */
  #allUnread = false
  readonly #unread = new Set<string>()

  constructor(namesMax: number = limits.cardinalityNamesMax) {
    this.#namesMax = namesMax
  }

  /** Nobody has a limit: nothing is held and nothing is looked at. */
  get isIdle(): boolean {
    return this.#default === null && this.#own.size === 0
  }

  /** Until `complete`, the names of whom had no limit before are not known. */
  setLimits(fallback: CardinalityLimits | null, own: ReadonlyMap<string, CardinalityLimits>): void {
    if (fallback !== null && this.#default === null) this.#allUnread = true
    for (const tenant of own.keys()) if (this.limitsOf(tenant) === null) this.#unread.add(tenant)
    this.#default = fallback
    this.#own = own
    if (this.isIdle) this.complete()
    for (const [tenant, names] of this.#names) {
      if (this.limitsOf(tenant) !== null) continue
      this.#names.delete(tenant)
      this.#size -= sizeOf(names)
    }
  }

  limitsOf(tenant: string): CardinalityLimits | null {
    return this.#own.get(tenant) ?? this.#default
  }

  /** What the rollups have of the month that `at` lies in. */
  learn(known: readonly KnownSeries[], at: number): void {
    this.#enterMonth(at)
    if (monthOf(at) !== this.#month) return
    for (const name of known) this.#add(name, null)
  }

  complete(): void {
    this.#allUnread = false
    this.#unread.clear()
  }

  /** A record of the log: what it has was let in. */
  learnFrame(frame: Frame): void {
    if (frame.metrics.length === 0) return
    this.#enterMonth(frame.receivedAt)
    if (monthOf(frame.receivedAt) !== this.#month) return
    for (const { tenant, metric, subject, dims } of frame.series) {
      if (this.limitsOf(tenant) !== null) this.#add({ tenant, metric: frame.metrics[metric]!.key, subject, dims }, null)
    }
  }

  /**
   * Lets a frame in whose events were vouched for. Null: all of it, as it is. Throws `overloaded` when that cannot be said yet.
   * A void is always let in: what it takes back was counted once.
   */
  admit(
    frame: Frame,
    indices: Uint32Array,
    metrics: ReadonlyMap<string, { readonly metric: Metric }>,
  ): Admitted | null {
    this.#enterMonth(frame.receivedAt)
    const usage = new Set<number>()
    for (let i = 0; i < frame.events; i += 1) if ((frame.kinds[i]! & KIND_VOID) === 0) usage.add(frame.seriesOf[i]!)
    const denied = new Map<number, Denial>()
    for (const index of usage) {
      const { tenant, metric, subject, dims } = frame.series[index]!
      const of = this.limitsOf(tenant)
      if (of === null) continue
      const answer = this.#add({ tenant, metric: frame.metrics[metric]!.key, subject, dims }, of)
      if (answer === null) continue
      if (!this.#isComplete(tenant)) {
        throw new ReleveError('overloaded', `the counts of ${tenant} are still being read: send the batch again`, {
          retryAfterS: 1,
        })
      }
      denied.set(index, answer)
    }
    return denied.size === 0 ? null : takeOut(frame, indices, denied, metrics)
  }

  state(tenant: string): { counts: CardinalityCounts; month: string; complete: boolean } {
    return {
      counts: (this.#names.get(tenant) ?? new Names()).counts,
      month: `${Math.floor(this.#month / 12)}-${String((this.#month % 12) + 1).padStart(2, '0')}`,
      complete: this.#isComplete(tenant),
    }
  }

  #isComplete(tenant: string): boolean {
    return !this.#allUnread && !this.#unread.has(tenant)
  }

  /** Null: it is known now. */
  #add(name: KnownSeries, of: CardinalityLimits | null): Denial | null {
    let names = this.#names.get(name.tenant)
    if (names === undefined) {
      names = new Names()
      this.#names.set(name.tenant, names)
    }
    const room = this.#namesMax - this.#size
    // What is there already is learned up to the bound; behind it nothing new is let in either.
    if (of === null && room <= 0) return null
    const answer = names.add(name, of, room, this.#isComplete(name.tenant))
    if (answer === 'known') return null
    if (typeof answer !== 'number') return answer
    this.#size += answer
    return null
  }

  /** Months only go on: a clock that is set back counts into the month that it was. */
  #enterMonth(at: number): void {
    const month = monthOf(at)
    if (month <= this.#month) return
    // The names of a new month begin with none, so there is nothing to read for it.
    if (this.#month !== 0) this.complete()
    this.#month = month
    this.#names.clear()
    this.#size = 0
  }
}

function sizeOf(names: Names): number {
  const { metrics, subjects, series } = names.counts
  return metrics + subjects + 2 * series
}

function takeOut(
  frame: Frame,
  indices: Uint32Array,
  denied: ReadonlyMap<number, Denial>,
  metrics: ReadonlyMap<string, { readonly metric: Metric }>,
): Admitted {
  const ids = Buffer.from(frame.ids.buffer, frame.ids.byteOffset, frame.ids.byteLength)
  const members = Buffer.from(frame.members.buffer, frame.members.byteOffset, frame.members.byteLength)
  const kept: UsageEvent[] = []
  const keptIndices: number[] = []
  const refusals: Refusal[] = []
  for (let i = 0; i < frame.events; i += 1) {
    const { metric: m, subject, dims } = frame.series[frame.seriesOf[i]!]!
    const { tenant, source } = frame.origins[frame.originOf[i]!]!
    const { metric } = metrics.get(frame.metrics[m]!.key)!
    const kind = (frame.kinds[i]! & KIND_VOID) === 0 ? 'usage' : 'void'
    const id = ids.toString('utf8', i === 0 ? 0 : frame.idEnds[i - 1]!, frame.idEnds[i]!)
    const member = members.toString('utf8', i === 0 ? 0 : frame.memberEnds[i - 1]!, frame.memberEnds[i]!)
    const eventTime = frame.times[i]!
    const value = frame.values[i]!
    const why = kind === 'usage' ? denied.get(frame.seriesOf[i]!) : undefined
    if (why === undefined) {
      const untimed = (frame.kinds[i]! & KIND_UNTIMED) !== 0
      kept.push({ tenant, source, id, metric, subject, eventTime, untimed, value, dims, member, kind })
      keptIndices.push(indices[i]!)
      continue
    }
    const named = JSON.parse(dims) as Record<string, string>
    if (metric.uniqueBy !== null && metric.uniqueBy !== 'subject') named[metric.uniqueBy] = member
    const raw = JSON.stringify({
      id,
      tenant,
      ...(source === '' ? {} : { source }),
      metric: metric.key,
      ...(subject === '' ? {} : { subject }),
      time: new Date(eventTime).toISOString(),
      value: printQuantity(value, metric.scale),
      ...(Object.keys(named).length === 0 ? {} : { dims: named }),
    })
    refusals.push({
      index: indices[i]!,
      ...why,
      tenant,
      source,
      id,
      metric: metric.key,
      // A part of it could not be sent again, and would look as if it could be mended.
      raw: Buffer.byteLength(raw) <= limits.refusalRawBytesMax ? raw : '',
    })
  }
  const all = [...(frame.refusals > 0 ? frameRefusals(frame) : []), ...refusals].sort((a, b) => a.index - b.index)
  return {
    frame: encodeFrame(frame, kept, all),
    indices: Uint32Array.from(keptIndices),
    events: kept.length,
    refusals,
  }
}
