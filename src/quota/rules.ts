/**
 * Alert rules: what a tenant wants to be told of a metric, besides the thresholds of its contract. They are rows in PostgreSQL and
 * all in memory, and reach the shards as data with the entitlements. A rule that is changed gets a new version, and its alerts
 * ring anew; other rules and thresholds do not.
 */
import { randomBytes } from 'node:crypto'
import type { Pool } from 'pg'
import type { Aggregation } from '../catalog/metric.js'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { LiveEntitlement } from './balance.js'
import type { Recurring, Threshold } from './entitlement.js'

export const RuleKind = ['percent', 'absolute', 'recurring', 'forecast', 'silence'] as const
export type RuleKind = (typeof RuleKind)[number]

/** What a rule says; which members it has depends on its kind. Quantities are decimal text. */
export interface RuleTerms {
  /** percent, forecast: of the limit. */
  readonly percent?: string
  /** absolute, forecast: in the metric's unit. */
  readonly quantity?: string
  /** recurring: again and again, counted from `from`. */
  readonly every?: string
  readonly from?: string
  /** silence: no event for so long, of the metric, of one subject, or of each («*»). */
  readonly seconds?: number
  readonly subject?: string | null
}

export interface AlertRule {
  readonly id: string
  readonly version: number
  readonly tenant: string
  readonly metric: string
  readonly kind: RuleKind
  readonly name: string
  readonly terms: RuleTerms
  readonly enabled: boolean
  readonly createdAt: number
  readonly changedAt: number
}

/** In an alert's identity. */
export const codeOf = ({ id, version }: Pick<AlertRule, 'id' | 'version'>): string => `${id}.${version}`

const NUMBER = /^[0-9]{1,20}(?:\.[0-9]{1,9})?$/
const members: Readonly<Record<RuleKind, readonly (keyof RuleTerms)[]>> = {
  percent: ['percent'],
  absolute: ['quantity'],
  recurring: ['every', 'from'],
  forecast: ['percent', 'quantity'],
  silence: ['seconds', 'subject'],
}

/** Checked terms with nothing left open, or ReleveError naming the member and why. */
export function parseTerms(kind: RuleKind, given: RuleTerms, aggregation: Aggregation): RuleTerms {
  const wrong = (reason: string): never => {
    throw new ReleveError('unprocessable', reason)
  }
  for (const name of Object.keys(given) as (keyof RuleTerms)[])
    if (given[name] !== undefined && !members[kind].includes(name))
      wrong(`${name}: means nothing in a rule of kind ${kind}; it has ${members[kind].join(', ')}`)
  const number = (
    name: 'percent' | 'quantity' | 'every' | 'from',
    text: string | undefined,
    isZeroFine: boolean,
  ): string => {
    if (text === undefined || !NUMBER.test(text))
      return wrong(`${name}: is needed, a decimal text such as "80" with at most 9 decimals`)
    if (!isZeroFine && /^[0.]+$/.test(text)) wrong(`${name}: must be above 0`)
    return text
  }
  switch (kind) {
    case 'percent':
      return { percent: number('percent', given.percent, false) }
    case 'absolute':
      return { quantity: number('quantity', given.quantity, true) }
    case 'recurring':
      if (aggregation === 'average') wrong('kind: an average does not grow step by step')
      return { every: number('every', given.every, false), from: number('from', given.from ?? '0', true) }
    case 'forecast':
      if (aggregation !== 'sum' && aggregation !== 'count')
        wrong(`kind: a forecast needs a metric of sum or count, not of ${aggregation}`)
      if (given.quantity !== undefined && given.percent !== undefined) wrong('quantity: percent or quantity, not both')
      return given.quantity !== undefined
        ? { quantity: number('quantity', given.quantity, false) }
        : { percent: number('percent', given.percent ?? '100', false) }
    case 'silence': {
      const { seconds = Number.NaN, subject = null } = given
      const [least, most] = [limits.silenceMinMs / 1000, limits.silenceMaxMs / 1000]
      if (!Number.isInteger(seconds) || seconds < least || seconds > most)
        wrong(`seconds: is needed, a whole number from ${least} to ${most}`)
      if (subject === '') wrong('subject: name one, * for each, or leave it out')
      return { seconds, subject }
    }
  }
}

/**
 * The entitlements with what the rules ask for. A rule on a metric that no contract item gives stands on `bare`: an item of no
 * contract, unlimited, by calendar months.
 */
export function withRules(
  entitlements: readonly LiveEntitlement[],
  rules: readonly AlertRule[],
  bare: (tenant: string, metric: string) => LiveEntitlement | undefined,
): LiveEntitlement[] {
  const asked = new Map<string, AlertRule[]>()
  for (const rule of rules) {
    if (!rule.enabled || rule.kind === 'silence') continue
    const key = JSON.stringify([rule.tenant, rule.metric])
    asked.set(key, [...(asked.get(key) ?? []), rule])
  }
  if (asked.size === 0) return [...entitlements]
  const met = new Set<string>()
  const all = entitlements.map((entitlement) => {
    const key = JSON.stringify([entitlement.tenant, entitlement.metric])
    const mine = asked.get(key)
    if (mine === undefined) return entitlement
    met.add(key)
    return withThese(entitlement, mine)
  })
  for (const [key, mine] of asked) {
    if (met.has(key)) continue
    const alone = bare(mine[0]!.tenant, mine[0]!.metric)
    if (alone !== undefined) all.push(withThese(alone, mine))
  }
  return all
}

function withThese(entitlement: LiveEntitlement, rules: readonly AlertRule[]): LiveEntitlement {
  const thresholds: Threshold[] = [...entitlement.thresholds]
  const recurring: Recurring[] = []
  const forecasts: Threshold[] = []
  for (const rule of rules) {
    const { percent, quantity, every, from } = rule.terms
    const code = codeOf(rule)
    if (every !== undefined && from !== undefined) {
      recurring.push({ code, rule: rule.id, every, from })
      continue
    }
    const kind = percent === undefined ? 'absolute' : 'percent'
    const threshold: Threshold = { code, rule: rule.id, kind, value: percent ?? quantity! }
    ;(rule.kind === 'forecast' ? forecasts : thresholds).push(threshold)
  }
  return { ...entitlement, thresholds, recurring, forecasts }
}

function fromRow(row: Record<string, unknown>): AlertRule {
  return {
    id: row.id as string,
    version: row.version as number,
    tenant: row.tenant as string,
    metric: row.metric as string,
    kind: row.kind as RuleKind,
    name: row.name as string,
    terms: row.terms as RuleTerms,
    enabled: row.enabled as boolean,
    createdAt: Number(row.created_at),
    changedAt: Number(row.changed_at),
  }
}

export type Rules = Awaited<ReturnType<typeof openRules>>

export async function openRules({ postgres, clock }: { readonly postgres: Pool; readonly clock: Clock }) {
  const { rows: all } = await postgres.query('SELECT * FROM alert_rules ORDER BY created_at, id')
  const byId = new Map<string, AlertRule>(all.map((row) => [row.id as string, fromRow(row)]))

  const keep = (row: Record<string, unknown>): AlertRule => {
    const rule = fromRow(row)
    byId.set(rule.id, rule)
    return rule
  }

  /** Another tenant's rule is not found, like one that never was. */
  const get = (id: string, tenant: string | null): AlertRule => {
    const rule = byId.get(id)
    if (rule === undefined || (tenant !== null && rule.tenant !== tenant))
      throw new ReleveError('not_found', `there is no alert rule ${id}`)
    return rule
  }

  return {
    all: (): AlertRule[] => [...byId.values()],
    get,
    list: (tenant: string | null, metric?: string): AlertRule[] =>
      [...byId.values()].filter(
        (r) => (tenant === null || r.tenant === tenant) && (metric === undefined || r.metric === metric),
      ),
    /** `terms` are those of parseTerms. */
    async create(
      rule: Pick<AlertRule, 'tenant' | 'metric' | 'kind' | 'name' | 'terms' | 'enabled'>,
    ): Promise<AlertRule> {
      const { tenant, metric } = rule
      if (byId.size >= limits.alertRulesMax)
        throw new ReleveError('unprocessable', `there are ${limits.alertRulesMax} alert rules: delete one first`)
      if ([...byId.values()].filter((r) => r.tenant === tenant && r.metric === metric).length >= limits.thresholdsMax)
        throw new ReleveError(
          'unprocessable',
          `${tenant} has ${limits.thresholdsMax} rules on ${metric}: delete one first`,
        )
      const { rows } = await postgres.query(
        `INSERT INTO alert_rules (id, version, tenant, metric, kind, name, terms, enabled, created_at, changed_at)
         VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $8) RETURNING *`,
        [
          `rule_${randomBytes(9).toString('hex')}`,
          tenant,
          metric,
          rule.kind,
          rule.name,
          JSON.stringify(rule.terms),
          rule.enabled,
          clock.now(),
        ],
      )
      return keep(rows[0])
    },
    async change(id: string, to: { name: string; terms: RuleTerms; enabled: boolean }): Promise<AlertRule> {
      const { rows } = await postgres.query(
        `UPDATE alert_rules SET version = version + CASE WHEN terms = $3::jsonb THEN 0 ELSE 1 END, name = $2, terms = $3, enabled = $4,
           changed_at = $5 WHERE id = $1 RETURNING *`,
        [id, to.name, JSON.stringify(to.terms), to.enabled, clock.now()],
      )
      if (rows[0] === undefined) throw new ReleveError('not_found', `there is no alert rule ${id}`)
      return keep(rows[0])
    },
    async remove(id: string): Promise<void> {
      await postgres.query('DELETE FROM alert_rules WHERE id = $1', [id])
      byId.delete(id)
    },
  }
}
