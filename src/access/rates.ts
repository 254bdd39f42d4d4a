/**
 * Rates of tenants, for the doors where no key comes along: NATS and MQTT. As with a key: messages, events and bytes a second
 * (budget.ts). Kept in PostgreSQL, one row a tenant and one for all others; a change acts at once. What a door does with a tenant
 * that is beyond them is the door's: a request is told to wait, a message of the stream waits.
 */
import type { Pool } from 'pg'
import type { Clock } from '../clock.js'
import { limits } from '../limits.js'
import { Budget, type KeyLimits } from './budget.js'

export interface RatesView {
  readonly tenant: string
  readonly limits: KeyLimits
  /** They are those of every tenant without its own. */
  readonly isDefault: boolean
}

/** A page of the rates that were set. */
export interface RatesList {
  /** Of every tenant without its own; null: nothing limits them. */
  readonly default: KeyLimits | null
  readonly tenants: readonly { readonly tenant: string; readonly limits: KeyLimits }[]
  /** The last tenant of a page that is full; null: there are no more. */
  readonly next: string | null
}

export class TenantRates {
  readonly #postgres: Pool
  readonly #clock: Clock
  #default: KeyLimits | undefined
  readonly #own = new Map<string, KeyLimits>()
  /** Of tenants that came, the latest last. */
  readonly #budgets = new Map<string, Budget>()

  private constructor(room: { postgres: Pool; clock: Clock }) {
    this.#postgres = room.postgres
    this.#clock = room.clock
  }

  static async open(room: { postgres: Pool; clock: Clock }): Promise<TenantRates> {
    const rates = new TenantRates(room)
    const { rows } = await room.postgres.query('SELECT tenant, limits FROM tenant_rates')
    for (const row of rows) rates.#remember(row.tenant, row.limits)
    return rates
  }

  /** What a tenant may still send; undefined: nothing limits it. */
  budgetOf(tenant: string): Budget | undefined {
    const of = this.#own.get(tenant) ?? this.#default
    if (of === undefined) return undefined
    const budget = this.#budgets.get(tenant) ?? new Budget(of, this.#clock.now(), 'this tenant')
    this.#budgets.delete(tenant)
    // A forgotten tenant comes back with a full second.
    if (this.#budgets.size >= limits.tenantBudgetsMax) this.#budgets.delete(this.#budgets.keys().next().value!)
    this.#budgets.set(tenant, budget)
    return budget
  }

  view(tenant: string): RatesView {
    const own = this.#own.get(tenant)
    return { tenant, limits: own ?? this.#default ?? {}, isDefault: own === undefined }
  }

  /** Tenants with rates of their own, by name, behind `after`. */
  async list({ after, limit }: { readonly after: string; readonly limit: number }): Promise<RatesList> {
    // The row of all others has the empty name, which is behind nothing.
    const { rows } = await this.#postgres.query<RatesList['tenants'][number]>(
      'SELECT tenant, limits FROM tenant_rates WHERE tenant > $1 ORDER BY tenant LIMIT $2',
      [after, limit],
    )
    const next = rows.length < limit ? null : (rows.at(-1)?.tenant ?? null)
    return { default: this.#default ?? null, tenants: rows, next }
  }

  /** `tenant` null: of all without their own. Without a rate in it, there is none. */
  async set(tenant: string | null, to: KeyLimits): Promise<void> {
    const name = tenant ?? ''
    const isNone = Object.keys(to).length === 0
    if (isNone) await this.#postgres.query('DELETE FROM tenant_rates WHERE tenant = $1', [name])
    else
      await this.#postgres.query(
        `INSERT INTO tenant_rates (tenant, limits, changed_at) VALUES ($1, $2, $3)
         ON CONFLICT (tenant) DO UPDATE SET limits = excluded.limits, changed_at = excluded.changed_at`,
        [name, JSON.stringify(to), this.#clock.now()],
      )
    this.#remember(name, isNone ? undefined : to)
    if (tenant === null) this.#budgets.clear()
    else this.#budgets.delete(tenant)
  }

  #remember(tenant: string, to: KeyLimits | undefined): void {
    if (tenant === '') this.#default = to
    else if (to === undefined) this.#own.delete(tenant)
    else this.#own.set(tenant, to)
  }
}
