/**
 * Silence: a meter that has said nothing for as long as its rule allows is told once, and told again when it speaks. Judged on a
 * clock, from what the shards heard; nothing is asked of a store. A silence begins with the last event, by the time at which it
 * was received, or with the rule.
 *
 * When a meter was heard is written beside the clock's time: the time in which this service was away is nobody's silence, so it is
 * taken off at the next start. Which silences were told is known from the alerts themselves, so that a crash tells none twice.
 */
import type { Pool } from 'pg'
import { limits } from '../limits.js'
import type { Crossing } from './balance.js'
import { type HeardMeter, keyOf, type Listening } from './heard.js'
import { type AlertRule, codeOf } from './rules.js'

interface Meter {
  readonly tenant: string
  readonly metric: string
  readonly subject: string
  at: number
  changed: boolean
}

const EACH = '*'

export class Silences {
  readonly #postgres: Pool
  /** By keyOf. */
  readonly #meters = new Map<string, Meter>()
  /** Of each metric whose subjects are watched one by one. */
  readonly #subjects = new Map<string, Map<string, Meter>>()
  /** By code and subject: the silence that was told begins here. */
  readonly #told = new Map<string, number>()
  #rules: AlertRule[] = []
  /** Metrics whose subjects are watched as they come. */
  #each = new Set<string>()
  #refused = 0

  constructor(postgres: Pool) {
    this.#postgres = postgres
  }

  /** Times that a subject was not watched for lack of room. */
  get refused(): number {
    return this.#refused
  }

  async open(
    rules: readonly AlertRule[],
    silent: readonly { readonly threshold: string; readonly subject: string; readonly since: number }[],
    now: number,
  ): Promise<void> {
    for (const { threshold, subject, since } of silent) this.#told.set(`${threshold} ${subject}`, since)
    this.setRules(rules)
    const { rows: clocks } = await this.#postgres.query('SELECT as_of FROM meters_clock')
    const away = clocks[0] === undefined ? 0 : Math.max(0, now - Number(clocks[0].as_of))
    await this.#postgres.query(
      `DELETE FROM meters_heard h WHERE NOT EXISTS (
         SELECT 1 FROM alert_rules r WHERE r.kind = 'silence' AND (r.tenant, r.metric) = (h.tenant, h.metric))`,
    )
    const { rows } = await this.#postgres.query('SELECT * FROM meters_heard')
    for (const { tenant, metric, subject, heard_at } of rows)
      this.#hear({ tenant, metric, subject, at: Number(heard_at) + away })
  }

  setRules(rules: readonly AlertRule[]): void {
    this.#rules = rules.filter(({ kind, enabled }) => kind === 'silence' && enabled)
    const each = this.#rules.filter(({ terms }) => terms.subject === EACH)
    this.#each = new Set(each.map(({ tenant, metric }) => keyOf(tenant, metric, '')))
    const wanted = new Set(this.#rules.map(({ tenant, metric }) => keyOf(tenant, metric, '')))
    for (const [key, { tenant, metric }] of this.#meters)
      if (!wanted.has(keyOf(tenant, metric, ''))) this.#meters.delete(key)
    for (const key of this.#subjects.keys()) if (!wanted.has(key)) this.#subjects.delete(key)
    for (const { tenant, metric, terms, createdAt } of this.#rules) {
      const subject = terms.subject ?? ''
      if (subject !== EACH && !this.#meters.has(keyOf(tenant, metric, subject)))
        this.#hear({ tenant, metric, subject, at: createdAt })
    }
  }

  /** What the shards have to listen for. */
  listening(): Listening[] {
    const all = new Map<string, Listening>()
    for (const { tenant, metric, terms } of this.#rules) {
      const key = keyOf(tenant, metric, '')
      const bySubject = (terms.subject ?? null) !== null || all.get(key)?.bySubject === true
      all.set(key, { tenant, metric, bySubject })
    }
    return [...all.values()]
  }

  /** Takes in who spoke, and answers who fell silent or speaks again, among the tenants of one stream. */
  judge(options: {
    readonly heard: readonly HeardMeter[]
    readonly now: number
    readonly isMine: (tenant: string) => boolean
    readonly sequence: number
    /** Somebody may have spoken and not be heard yet. */
    readonly isBehind: boolean
  }): Crossing[] {
    const { heard, now, isMine, sequence, isBehind } = options
    for (const meter of heard) {
      const { tenant, metric, subject } = meter
      const isWatched = this.#meters.has(keyOf(tenant, metric, subject)) || this.#each.has(keyOf(tenant, metric, ''))
      if (isWatched) this.#hear(meter)
    }
    const crossings: Crossing[] = []
    for (const rule of this.#rules) {
      if (!isMine(rule.tenant)) continue
      for (const meter of this.#metersOf(rule)) {
        const code = codeOf(rule)
        const key = `${code} ${meter.subject}`
        const lastsMs = rule.terms.seconds! * 1000
        const since = this.#told.get(key)
        const isSilent = now - meter.at >= lastsMs
        if (isSilent === (since !== undefined) || (isSilent && isBehind)) continue
        const from = since ?? meter.at
        if (isSilent) this.#told.set(key, from)
        else this.#told.delete(key)
        crossings.push({
          type: isSilent ? 'alert.triggered' : 'alert.resolved',
          kind: 'silence',
          rule: rule.id,
          subject: meter.subject === '' ? null : meter.subject,
          forecast: null,
          item: meter.subject,
          contract: '',
          tenant: rule.tenant,
          product: '',
          metric: rule.metric,
          period: { from, to: from + lastsMs },
          threshold: code,
          limitVersion: 1,
          limit: null,
          balance: '0',
          sequence,
          position: null,
          eventTime: null,
          receivedAt: now,
        })
      }
    }
    return crossings
  }

  /** Writes who was heard since the last time; `now` is the moment that the rows then speak of. */
  async save(now: number): Promise<void> {
    const changed = [...this.#meters.values()].filter((meter) => meter.changed)
    if (this.#rules.length === 0 && changed.length === 0) return
    for (const meter of changed) meter.changed = false
    try {
      await this.#postgres.query(
        `WITH clock AS (INSERT INTO meters_clock (as_of) VALUES ($5) ON CONFLICT (one) DO UPDATE SET as_of = excluded.as_of)
         INSERT INTO meters_heard (tenant, metric, subject, heard_at)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
         ON CONFLICT (tenant, metric, subject) DO UPDATE SET heard_at = excluded.heard_at`,
        [
          changed.map(({ tenant }) => tenant),
          changed.map(({ metric }) => metric),
          changed.map(({ subject }) => subject),
          changed.map(({ at }) => at),
          now,
        ],
      )
    } catch (error) {
      for (const meter of changed) meter.changed = true
      throw error
    }
  }

  #metersOf({ tenant, metric, terms }: AlertRule): Iterable<Meter> {
    if (terms.subject === EACH) return this.#subjects.get(keyOf(tenant, metric, ''))?.values() ?? []
    const meter = this.#meters.get(keyOf(tenant, metric, terms.subject ?? ''))
    return meter === undefined ? [] : [meter]
  }

  #hear({ tenant, metric, subject, at }: HeardMeter): void {
    const key = keyOf(tenant, metric, subject)
    const known = this.#meters.get(key)
    if (known !== undefined) {
      if (at > known.at) {
        known.at = at
        known.changed = true
      }
      return
    }
    if (this.#meters.size >= limits.silentSubjectsMax) {
      this.#refused += 1
      return
    }
    const meter = { tenant, metric, subject, at, changed: true }
    this.#meters.set(key, meter)
    if (subject === '') return
    const all = keyOf(tenant, metric, '')
    const others = this.#subjects.get(all) ?? new Map<string, Meter>()
    this.#subjects.set(all, others.set(subject, meter))
  }
}
