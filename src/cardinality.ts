/**
 * Limits of cardinality: kept in PostgreSQL, one row a tenant and one for all others, handed to the shards, which judge by them
 * (ingest/cardinality.ts). After a start and after a change the shards are told what the rollups have of this month.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Pool } from 'pg'
import type { Clock } from './clock.js'
import { streamOf } from './event.js'
import type { StreamFlow } from './flow.js'
import type { CardinalityCounts, CardinalityLimits, KnownSeries } from './ingest/cardinality.js'
import { limits } from './limits.js'
import type { Logger } from './logger.js'
import type { Rollup } from './rollup/rollup.js'
import type { ShardThread } from './shard.js'

export interface CardinalityView {
  readonly tenant: string
  readonly limits: CardinalityLimits
  /** The limits are those of every tenant without its own. */
  readonly isDefault: boolean
  /** YYYY-MM, UTC. */
  readonly month: string
  readonly counts: CardinalityCounts
  /** False while the counts of the month are still being read. */
  readonly complete: boolean
}

const NONE: CardinalityLimits = { metrics: null, subjects: null, series: null, dimValues: null }
const CHUNK = 10_000
const RETRY_MS = 1_000

export class CardinalityRules {
  readonly #postgres: Pool
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #shards: readonly ShardThread[]
  #rollup: Rollup | undefined
  #flows: readonly StreamFlow[] = []
  #default: CardinalityLimits | null = null
  #own = new Map<string, CardinalityLimits>()
  #generation = 0
  #loading: Promise<void> = Promise.resolve()
  #closed = false

  constructor(room: { postgres: Pool; clock: Clock; logger: Logger; shards: readonly ShardThread[] }) {
    this.#postgres = room.postgres
    this.#clock = room.clock
    this.#logger = room.logger
    this.#shards = room.shards
  }

  async open(): Promise<void> {
    const { rows } = await this.#postgres.query('SELECT * FROM cardinality_limits')
    for (const row of rows) this.#remember(row.tenant, row.limits)
  }

  /** To a shard before it has seen a record, so that it learns from all of them. */
  async introduce(shard: ShardThread): Promise<void> {
    await shard.setCardinality(this.#default, [...this.#own])
  }

  /** Tells the shards what this month has so far, in the background. */
  start(flows: readonly StreamFlow[], rollup: Rollup): void {
    this.#flows = flows
    this.#rollup = rollup
    this.#load()
  }

  /** `tenant` null: of all without their own. Without a limit in it, there is none. Acts at once. */
  async set(tenant: string | null, to: CardinalityLimits): Promise<void> {
    const isNone = Object.values(to).every((limit) => limit === null)
    if (isNone) await this.#postgres.query('DELETE FROM cardinality_limits WHERE tenant = $1', [tenant ?? ''])
    else
      await this.#postgres.query(
        `INSERT INTO cardinality_limits (tenant, limits, changed_at) VALUES ($1, $2, $3)
         ON CONFLICT (tenant) DO UPDATE SET limits = excluded.limits, changed_at = excluded.changed_at`,
        [tenant ?? '', JSON.stringify(to), this.#clock.now()],
      )
    this.#remember(tenant ?? '', isNone ? null : to)
    await Promise.all(this.#shards.map((shard) => this.introduce(shard)))
    this.#load()
  }

  async view(tenant: string): Promise<CardinalityView> {
    const own = this.#own.get(tenant)
    const state = await this.#shards[streamOf(tenant, this.#shards.length)]!.cardinality(tenant)
    return { tenant, limits: own ?? this.#default ?? NONE, isDefault: own === undefined, ...state }
  }

  /** Resolves when the counts of this month are known. */
  async settled(): Promise<void> {
    await this.#loading
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#loading
  }

  #remember(tenant: string, to: CardinalityLimits | null): void {
    if (tenant === '') this.#default = to
    else if (to === null) this.#own.delete(tenant)
    else this.#own.set(tenant, to)
  }

  #load(): void {
    this.#generation += 1
    const generation = this.#generation
    if (this.#default === null && this.#own.size === 0) return
    this.#loading = this.#loading.then(async () => {
      await Promise.all(this.#flows.map((flow) => this.#loadStream(flow, generation)))
    })
  }

  async #loadStream(flow: StreamFlow, generation: number): Promise<void> {
    const shard = this.#shards[flow.stream]!
    while (!this.#closed && generation === this.#generation) {
      try {
        // What was let in without being learned is in a checkpoint afterwards, and so in the rollups.
        await flow.cut()
        const now = new Date(this.#clock.now())
        const { rows } = await this.#postgres.query(
          'SELECT coalesce(max(epoch), 0) AS epoch FROM epoch_checkpoints WHERE stream = $1 AND received_at < $2',
          [flow.stream, Date.UTC(now.getUTCFullYear(), now.getUTCMonth())],
        )
        const known = await this.#rollup!.rowsOf<KnownSeries>(
          `SELECT DISTINCT tenant, metric, subject, dims FROM usage_minute
WHERE stream = {stream:UInt16} AND epoch > {epoch:UInt64} AND ({all:UInt8} = 1 OR tenant IN {tenants:Array(String)})
LIMIT {most:UInt32}`,
          {
            stream: flow.stream,
            epoch: Number(rows[0].epoch),
            all: this.#default === null ? 0 : 1,
            tenants: [...this.#own.keys()],
            most: limits.cardinalityNamesMax,
          },
        )
        for (let from = 0; from < known.length; from += CHUNK)
          await shard.learnSeries(known.slice(from, from + CHUNK), now.getTime())
        if (generation === this.#generation) await shard.cardinalityComplete()
        return
      } catch (error) {
        if (this.#closed) return
        this.#logger.warn({ stream: flow.stream, error: String(error) }, 'the counts of cardinality are read again')
        await sleep(RETRY_MS)
      }
    }
  }
}
