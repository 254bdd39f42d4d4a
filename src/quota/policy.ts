/**
 * Policies: the limits that act, per tenant and metric. Beyond the soft one a check says so and allows; beyond the hard one it
 * refuses. Either is a quantity, or what the contract includes, whatever that is at the time. Without a policy the contract's
 * quantity is a soft limit: usage above it is overage.
 */
import type { Pool } from 'pg'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'

/** Decimal text, the contract's included quantity, or none. */
export type Bound = string | 'included' | null

export interface Policy {
  readonly tenant: string
  readonly metric: string
  readonly soft: Bound
  readonly hard: Bound
  readonly changedAt: number
}

export const DEFAULT_POLICY: Pick<Policy, 'soft' | 'hard'> = { soft: 'included', hard: null }

const NUMBER = /^[0-9]{1,20}(?:\.[0-9]{1,9})?$/

export type Policies = Awaited<ReturnType<typeof openPolicies>>

export async function openPolicies({ postgres, clock }: { readonly postgres: Pool; readonly clock: Clock }) {
  const keyOf = (tenant: string, metric: string): string => JSON.stringify([tenant, metric])
  const { rows: all } = await postgres.query('SELECT * FROM usage_limits')
  const policies = new Map<string, Policy>()
  const keep = ({ tenant, metric, soft, hard, changed_at }: Record<string, unknown>): Policy => {
    const policy = { tenant, metric, soft, hard, changedAt: Number(changed_at) } as Policy
    policies.set(keyOf(policy.tenant, policy.metric), policy)
    return policy
  }
  for (const row of all) keep(row)

  return {
    of: (tenant: string, metric: string): Pick<Policy, 'soft' | 'hard'> =>
      policies.get(keyOf(tenant, metric)) ?? DEFAULT_POLICY,
    list: (tenant: string | null): Policy[] =>
      [...policies.values()].filter((p) => tenant === null || p.tenant === tenant),
    async put({ tenant, metric, soft, hard }: Omit<Policy, 'changedAt'>): Promise<Policy> {
      for (const [name, bound] of [
        ['soft', soft],
        ['hard', hard],
      ] as const)
        if (bound !== null && bound !== 'included' && !NUMBER.test(bound))
          throw new ReleveError('unprocessable', `${name}: is a decimal text such as "1000", "included", or null`)
      if (policies.size >= limits.usageLimitsMax && !policies.has(keyOf(tenant, metric)))
        throw new ReleveError('unprocessable', `there are ${limits.usageLimitsMax} limits: delete one first`)
      const { rows } = await postgres.query(
        `INSERT INTO usage_limits (tenant, metric, soft, hard, changed_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant, metric) DO UPDATE SET soft = excluded.soft, hard = excluded.hard, changed_at = excluded.changed_at RETURNING *`,
        [tenant, metric, soft, hard, clock.now()],
      )
      return keep(rows[0])
    },
    async remove(tenant: string, metric: string): Promise<Policy> {
      const gone = policies.get(keyOf(tenant, metric))
      if (gone === undefined) throw new ReleveError('not_found', `${tenant} has no limit of its own on ${metric}`)
      await postgres.query('DELETE FROM usage_limits WHERE tenant = $1 AND metric = $2', [tenant, metric])
      policies.delete(keyOf(tenant, metric))
      return gone
    },
  }
}
