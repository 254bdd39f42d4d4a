/**
 * Meters that have stopped: subjects of active objects, and metrics of contract items, whose last event lies further back than a
 * person allows. Read from the rollups at the moment of the question; alert rules of kind silence tell it by themselves.
 */
import type { Pool } from 'pg'
import type { Catalog } from './catalog/catalog.js'
import type { Clock } from './clock.js'
import type { StreamFlow } from './flow.js'
import { limits } from './limits.js'
import { itemsWithin } from './objects/objects.js'
import { compareSubjects } from './objects/share.js'
import type { Rollup } from './rollup/rollup.js'

export interface SilentMeter {
  /** null: the metric as a whole. */
  readonly object: string | null
  readonly subject: string | null
  readonly metric: string | null
  readonly contract: string
  readonly item: string
  /** Start of the minute or hour of its last event, epoch ms; null: none within the days that are looked at. */
  readonly lastEvent: number | null
}

export interface SilentMeters {
  readonly tenant: string
  /** Silent since then. */
  readonly since: number
  readonly metrics: readonly SilentMeter[]
  readonly objects: readonly SilentMeter[]
  /** Subject behind which the next page of objects begins. */
  readonly next: string | null
}

export interface MetersOptions {
  readonly postgres: Pool
  readonly clock: Clock
  readonly catalog: Catalog
  readonly rollup: Rollup
  readonly flowOf: (tenant: string) => StreamFlow
}

export class Meters {
  readonly #options: MetersOptions

  constructor(options: MetersOptions) {
    this.#options = options
  }

  async silent(request: {
    readonly tenant: string
    readonly silentMs: number
    readonly contract?: string | undefined
    readonly after?: string | undefined
    readonly limit: number
  }): Promise<SilentMeters> {
    const { postgres, clock, catalog, rollup, flowOf } = this.#options
    const { tenant, contract: only, limit } = request
    const now = clock.now()
    const since = now - request.silentMs
    const params = { tenant, stream: flowOf(tenant).stream, from: Math.floor((now - limits.meterLookBackMs) / 1000) }
    const from = `FROM (SELECT metric, subject, window FROM usage_minute WHERE tenant = {tenant:String} AND stream = {stream:UInt16}
        AND window >= toDateTime({from:UInt32}, 'UTC')
      UNION ALL SELECT metric, subject, window FROM usage_hour WHERE tenant = {tenant:String} AND stream = {stream:UInt16}
        AND window >= toDateTime({from:UInt32}, 'UTC'))`
    const last = new Map(
      (
        await rollup.rowsOf<{ metric: string; at: string }>(
          `SELECT metric, toString(toUInt32(max(window))) AS at ${from} GROUP BY metric`,
          params,
        )
      ).map((row) => [row.metric, Number(row.at) * 1000]),
    )
    const metrics: SilentMeter[] = []
    for (const { id, state, items, ...one } of catalog.book().contracts.values()) {
      if (one.tenant !== tenant || (only !== undefined && only !== id) || (state !== 'active' && state !== 'trial'))
        continue
      for (const item of items) {
        for (const { metric } of item.entitlements) {
          const lastEvent = last.get(metric) ?? null
          if (lastEvent !== null && lastEvent >= since) continue
          metrics.push({ object: null, subject: null, metric, contract: id, item: item.id, lastEvent })
        }
      }
    }
    const objects: SilentMeter[] = []
    const heard = rollup.streamOf<{ subject: string; at: string }>(
      `SELECT subject, toString(toUInt32(max(window))) AS at ${from} WHERE subject > {after:String} GROUP BY subject ORDER BY subject`,
      { ...params, after: request.after ?? '' },
    )
    try {
      let row = await heard.next()
      const active = itemsWithin(postgres, {
        tenant,
        ...(only === undefined ? {} : { contract: only }),
        ...(request.after === undefined ? {} : { after: request.after }),
        period: { from: now, to: now + 1 },
      })
      for await (const { object, subject, contract, parent, from: began } of active) {
        while (row.done !== true && compareSubjects(row.value.subject, subject) < 0) row = await heard.next()
        const lastEvent = row.done !== true && row.value.subject === subject ? Number(row.value.at) * 1000 : null
        // One that has just begun has had no time to speak.
        if ((lastEvent !== null && lastEvent >= since) || began >= since) continue
        objects.push({ object, subject, metric: null, contract, item: parent, lastEvent })
        if (objects.length === limit) break
      }
    } finally {
      await heard.return(undefined)
    }
    return { tenant, since, metrics, objects, next: objects.length < limit ? null : objects.at(-1)!.subject }
  }
}
