/**
 * Closing of all contracts that are due, in chunks: one cut for all, usage in a few questions per chunk, rating in threads, and one
 * transaction per chunk that keeps the measure and the draft together. For each contract the result is that of close.ts.
 *
 * A chunk is there wholly or not at all, so that a killed batch goes on where it was: contracts that have their draft are not
 * counted again. A contract that needs more than the plain case (late usage of an earlier period, usage data beside the stream, a
 * closing that another attempt has begun) goes the single way of close.ts. What fails is named and does not stop the others.
 */
import { randomUUID } from 'node:crypto'
import type { PoolClient } from 'pg'
import type { Contract } from '../catalog/contract.js'
import { isBilled, periodAt } from '../catalog/part.js'
import { limits } from '../limits.js'
import type { Period } from '../period.js'
import {
  type Closed,
  type CloseOptions,
  closePeriod,
  type Measured,
  type PricePart,
  pricePartsOf,
  sameQuantities,
  withBilledAhead,
} from './close.js'
import type { ItemUsage } from './draft.js'
import type { Drafted, DraftPool } from './draft-batch.js'
import type { Notice } from './invoice.js'
import { unpackJson } from './pack.js'
import { silentMeters, tellSilent } from './silent.js'
import { isOpen } from './state.js'

/** What is counted for one contract: all its items over a period. */
export interface CountRequest {
  readonly tenant: string
  readonly items: readonly { readonly item: string; readonly metrics: readonly string[]; readonly period?: Period }[]
  readonly period: Period
}

export interface CloseManyOptions extends CloseOptions {
  readonly pool: DraftPool
  /** Takes one cut for all that follows; the function counts many contracts at it, and `release` gives it back. */
  readonly openCut: () => Promise<{
    count(requests: readonly CountRequest[]): Promise<(readonly ItemUsage[] | { readonly mismatch: string })[]>
    release(): Promise<void>
  }>
}

export interface CloseManyRequest {
  /** An instant inside the periods to close; null: of each contract the latest that has ended with its grace. */
  readonly at: number | null
  readonly graceMs?: number
  /** false leaves drafts; default true. */
  readonly finalise?: boolean
  /** Also periods whose grace has not ended: their drafts are in `grace`, and are counted again before they are issued. */
  readonly early?: boolean
  /** Only this customer's contracts. */
  readonly tenant?: string
}

export interface CloseManyReport {
  /** Contracts with a period that is due. */
  readonly due: number
  /** Of them: closed before this call. */
  readonly before: number
  readonly drafted: number
  readonly issued: number
  /** Nothing was due of them. */
  readonly empty: number
  readonly failed: number
  /** The first limits.closeFailuresMax of them. */
  readonly failures: readonly { readonly contract: string; readonly reason: string }[]
}

interface Due {
  readonly contract: string
  readonly tenant: string
  readonly period: Period
  readonly id: string
}

export async function closeMany(options: CloseManyOptions, request: CloseManyRequest): Promise<CloseManyReport> {
  const due = dueContracts(options, request)
  const report = { due: due.length, before: 0, drafted: 0, issued: 0, empty: 0, failed: 0 }
  const failures: { contract: string; reason: string }[] = []
  const fail = async (entry: Due, reason: string): Promise<void> => {
    const { contract, tenant, period } = entry
    report.failed += 1
    if (failures.length < limits.closeFailuresMax) failures.push({ contract, reason })
    // Each of them is told, also where the report is full.
    await options.postgres.query(`SELECT tell('closing.failed', NULL, NULL, $1, $2)`, [
      { contract, tenant, period, reason },
      options.clock.now(),
    ])
  }
  const one = async (entry: Due): Promise<void> => {
    try {
      const { graceMs, finalise = true } = request
      const closed: Closed = await closePeriod(options, {
        contract: entry.contract,
        at: entry.period.from,
        finalise: finalise && !inGrace(entry),
        early: request.early === true,
        ...(graceMs === undefined ? {} : { graceMs }),
      })
      if (closed.invoice === null) report.empty += 1
      else if (isOpen(closed.invoice.state)) report.drafted += 1
      else report.issued += 1
    } catch (error) {
      await fail(entry, error instanceof Error ? error.message : String(error))
    }
  }
  /** What was drafted a moment ago needs no more than its number; what fails stays a draft. */
  const issue = async (drafted: ChunkResult['drafted']): Promise<void> => {
    const done: string[] = []
    for (const { entry, invoice } of drafted) {
      try {
        await options.invoicing.finalise(invoice)
        done.push(entry.id)
        report.issued += 1
      } catch (error) {
        await fail(entry, error instanceof Error ? error.message : String(error))
      }
    }
    await options.postgres.query(
      `UPDATE closings SET state = 'done', updated_at = $2 WHERE id = ANY($1) AND state = 'drafted'`,
      [done, options.clock.now()],
    )
  }
  const inGrace = ({ period }: Due): boolean => period.to + (request.graceMs ?? limits.graceMs) > options.clock.now()
  if (due.length === 0) return { ...report, failures }
  const cut = await options.openCut()
  try {
    let at = 0
    const work = async (): Promise<void> => {
      while (at < due.length) {
        const chunk = due.slice(at, at + limits.closeChunkMax)
        at += chunk.length
        const result = await closeChunk(options, chunk, cut)
        report.before += result.before
        // Drafts of an earlier attempt are issued, if that is asked.
        for (const entry of result.waiting) {
          if (request.finalise === false || inGrace(entry)) report.before += 1
          else await one(entry)
        }
        report.empty += result.empty
        for (const { entry, reason } of result.failures) await fail(entry, reason)
        for (const entry of result.single) await one(entry)
        const waits = (one: { readonly entry: Due }): boolean => request.finalise === false || inGrace(one.entry)
        report.drafted += result.drafted.filter(waits).length
        for (const { entry, invoice } of result.drafted) if (inGrace(entry)) await options.invoicing.markGrace(invoice)
        await issue(result.drafted.filter((one) => !waits(one)))
      }
    }
    // The cut is held until every chunk has ended, also when one of them fails.
    const ended = await Promise.allSettled(Array.from({ length: limits.closeChunksInFlightMax }, work))
    for (const one of ended) if (one.status === 'rejected') throw one.reason
  } finally {
    await cut.release()
  }
  return { ...report, failures }
}

/** By tenant, so that the questions of a chunk read neighbours. */
function dueContracts({ catalog, clock }: CloseManyOptions, request: CloseManyRequest): Due[] {
  const ended = clock.now() - (request.early === true ? 0 : (request.graceMs ?? limits.graceMs))
  // Most contracts share a start and a zone; a period's bounds cost more than a look-up.
  const periods = new Map<string, Period | null>()
  const endedPeriodOf = (contract: Contract): Period | null => {
    const key = `${contract.start} ${contract.timeZone} ${contract.cycle}`
    let period = periods.get(key)
    if (period === undefined) {
      period = periodAt(contract, request.at ?? periodAt(contract, ended).from - 1)
      if (period.to > ended) period = null
      periods.set(key, period)
    }
    return period
  }
  const due: Due[] = []
  for (const contract of catalog.book().contracts.values()) {
    if ((request.tenant ?? contract.tenant) !== contract.tenant) continue
    const period = endedPeriodOf(contract)
    if (period === null || !isBilled(contract, period)) continue
    due.push({ contract: contract.id, tenant: contract.tenant, period, id: `${contract.id}/${period.from}` })
  }
  return due.sort((a, b) => (a.tenant < b.tenant ? -1 : a.tenant > b.tenant ? 1 : 0))
}

interface ChunkResult {
  readonly before: number
  /** Drafted before. */
  readonly waiting: readonly Due[]
  readonly empty: number
  readonly drafted: readonly { readonly entry: Due; readonly invoice: string }[]
  readonly single: readonly Due[]
  readonly failures: readonly { readonly entry: Due; readonly reason: string }[]
}

async function closeChunk(
  { postgres, clock, catalog, pool, data, prepaid }: CloseManyOptions,
  chunk: readonly Due[],
  cut: Awaited<ReturnType<CloseManyOptions['openCut']>>,
): Promise<ChunkResult> {
  const failures: { entry: Due; reason: string }[] = []
  const single: Due[] = []
  const waiting: Due[] = []
  const states = await statesOf(postgres, chunk)
  const earlier = await earlierOf(postgres, chunk)
  const contracts = chunk.map((entry) => entry.contract)
  const withData = await data?.waiting(contracts)
  const withPacks = await prepaid?.waiting(contracts)
  let before = 0
  const open = chunk.filter((entry) => {
    const state = states.get(entry.id)
    const more = withData?.has(entry.contract) === true || withPacks?.has(entry.contract) === true
    const plain = (state === undefined || state === 'open attempt 1') && !more
    if (state === 'done') before += 1
    else if (state === 'drafted') waiting.push(entry)
    else if (!plain) single.push(entry)
    return plain
  })

  // One question for the period of each and for the earlier ones that are counted again.
  const asked: CountRequest[] = []
  const tasks = open.flatMap((entry) => {
    try {
      const own = (earlier.get(entry.contract) ?? []).map(({ period, measured }) => ({ period, terms: measured.terms }))
      const terms = withBilledAhead(catalog.terms(entry.contract, entry.period), entry.period, own)
      const recounts = (earlier.get(entry.contract) ?? []).map((one) => ({
        at: asked.push(requestOf(one.measured.terms, one.period)) - 1,
        billed: one.billed,
      }))
      // Where a price changes within the period, its parts too.
      const parts = pricePartsOf(terms, entry.period).map((part) => ({
        ...part,
        at: asked.push(partRequest(terms, part)) - 1,
      }))
      return [{ entry, terms, recounts, parts, at: asked.push(requestOf(terms, entry.period)) - 1 }]
    } catch (error) {
      failures.push({ entry, reason: error instanceof Error ? error.message : String(error) })
      return []
    }
  })
  const counted = await cut.count(asked)
  const plain = tasks.filter(({ entry, at, recounts, parts }) => {
    for (const index of [at, ...recounts.map((one) => one.at), ...parts.map((one) => one.at)]) {
      const answer = counted[index]!
      if ('mismatch' in answer) {
        failures.push({ entry, reason: answer.mismatch })
        return false
      }
    }
    const late = recounts.some((one) => !sameQuantities(one.billed, counted[one.at] as readonly ItemUsage[]))
    if (late) single.push(entry)
    return !late
  })
  const byId = new Map(
    plain.map((task) => {
      const usage = withParts(counted[task.at] as readonly ItemUsage[], task.parts, counted)
      const notices = silentMeters(task.terms, usage, lastOf(earlier.get(task.entry.contract)))
      return [`inv_${randomUUID()}`, { ...task, usage, notices }]
    }),
  )
  const { results, bytes } = await pool.draft(
    [...byId].map(([id, { entry, terms, usage, notices }]) => ({
      id,
      order: 1 + (earlier.get(entry.contract) ?? []).reduce((most, one) => Math.max(most, one.order), 0),
      terms,
      period: entry.period,
      usage,
      notices,
    })),
  )
  const good: Good[] = []
  for (const draft of results) {
    const { entry, notices } = byId.get(draft.id)!
    if ('failed' in draft) failures.push({ entry, reason: draft.failed })
    else if ('less' in draft) single.push(entry)
    else good.push({ entry, draft, notices })
  }
  const kept = await keepChunk(postgres, clock.now(), good, bytes, earlier)
  const due = good.filter(({ entry, draft }) => kept.has(entry.id) && draft.document !== null)
  // Somebody else was faster with the others: their way is to go on from what is there.
  for (const { entry } of good) if (!kept.has(entry.id)) single.push(entry)
  return {
    before,
    waiting,
    empty: kept.size - due.length,
    drafted: due.map(({ entry, draft }) => ({ entry, invoice: draft.id })),
    single,
    failures,
  }
}

function partRequest({ contract: { tenant } }: Measured['terms'], { item, metric, period }: PricePart): CountRequest {
  return { tenant, period, items: [{ item, metrics: [metric], period }] }
}

/** Usage with that of the parts that prices cut the period into. */
function withParts(
  usage: readonly ItemUsage[],
  parts: readonly (PricePart & { readonly at: number })[],
  counted: readonly unknown[],
): readonly ItemUsage[] {
  if (parts.length === 0) return usage
  return usage.map((one) => {
    const own = parts.filter(({ item, metric }) => item === one.item && metric === one.metric)
    if (own.length === 0) return one
    const quantityAt = (at: number): string => (counted[at] as readonly ItemUsage[])[0]!.quantity
    return { ...one, parts: own.map(({ period, at }) => ({ period, quantity: quantityAt(at) })) }
  })
}

function requestOf(terms: Measured['terms'], period: Period): CountRequest {
  return {
    tenant: terms.contract.tenant,
    period,
    items: terms.items.map((item) => ({
      item: item.item,
      metrics: item.metrics.map((metric) => metric.metric),
      ...(item.period === undefined ? {} : { period: item.period }),
    })),
  }
}

async function statesOf(postgres: CloseOptions['postgres'], chunk: readonly Due[]): Promise<Map<string, string>> {
  const { rows } = await postgres.query<{ id: string; state: string }>(
    `SELECT id, CASE WHEN state = 'open' THEN 'open attempt ' || attempt ELSE state END AS state
     FROM closings WHERE id = ANY($1)`,
    [chunk.map((entry) => entry.id)],
  )
  return new Map(rows.map((row) => [row.id, row.state]))
}

interface Earlier {
  readonly period: Period
  readonly order: number
  readonly measured: Measured
  /** What this period's usage was when it was last counted for an invoice. */
  readonly billed: readonly ItemUsage[]
}

/** The measured closings of the contracts of a chunk; those of the last few periods before the one that is closed now. */
async function earlierOf(postgres: CloseOptions['postgres'], chunk: readonly Due[]): Promise<Map<string, Earlier[]>> {
  const { rows } = await postgres.query<{
    contract: string
    period_from: string
    period_to: string
    measured: Buffer
  }>(
    // A look-up for each: joined, the planner sorts all closings there are, for every chunk.
    `SELECT c.contract, c.period_from, c.period_to, c.measured
     FROM unnest($1::text[], $2::bigint[]) AS due (contract, period_from) CROSS JOIN LATERAL (
       SELECT * FROM closings
       WHERE contract = due.contract AND part = 0 AND period_to <= due.period_from AND measured IS NOT NULL
       ORDER BY period_from DESC LIMIT $3) AS c`,
    [chunk.map((entry) => entry.contract), chunk.map((entry) => entry.period.from), limits.latePeriodsMax],
  )
  const all = new Map<string, Earlier[]>()
  for (const row of rows) {
    const own = all.get(row.contract) ?? []
    const measured = unpackJson<Measured>(row.measured)
    own.push({
      period: { from: Number(row.period_from), to: Number(row.period_to) },
      order: measured.order,
      measured,
      billed: measured.usage,
    })
    all.set(row.contract, own)
  }
  // A later closing that counted a period again is what was billed of it.
  for (const own of all.values()) {
    for (const [i, one] of own.entries()) {
      let newest = one.order
      for (const other of own) {
        const again = other.measured.late.find((part) => part.period.from === one.period.from)
        if (again === undefined || other.order < newest) continue
        newest = other.order
        own[i] = { ...own[i]!, billed: again.usage }
      }
    }
  }
  return all
}

/** A contract with its draft, and what a person should look at. */
interface Good {
  readonly entry: Due
  readonly draft: Drafted
  readonly notices: readonly Notice[]
}

/** The usage of the latest of them. */
function lastOf(earlier: readonly Earlier[] = []): readonly ItemUsage[] {
  const last = earlier.reduce<Earlier | null>(
    (latest, one) => (latest === null || one.period.from > latest.period.from ? one : latest),
    null,
  )
  return last?.billed ?? []
}

/**
 * Measures and drafts in one transaction. Returns the closings that were not begun, or open at their first attempt, until now. All
 * that was packed goes as one parameter, of which each row takes its range.
 */
async function keepChunk(
  postgres: CloseOptions['postgres'],
  now: number,
  chunk: readonly Good[],
  bytes: Uint8Array,
  earlier: ReadonlyMap<string, readonly Earlier[]>,
): Promise<Set<string>> {
  if (chunk.length === 0) return new Set()
  const client: PoolClient = await postgres.connect()
  try {
    await client.query('BEGIN')
    // The same locks in the same order as close.ts takes them: all closings of a contract.
    const { rows } = await client.query<{ contract: string; place: number }>(
      `SELECT contract, coalesce(place, 0) AS place FROM closings WHERE contract = ANY($1) ORDER BY id FOR UPDATE`,
      [chunk.map(({ entry }) => entry.contract)],
    )
    const highest = new Map<string, number>()
    for (const row of rows) highest.set(row.contract, Math.max(highest.get(row.contract) ?? 0, row.place))
    const placeOf = ({ contract }: Due): number =>
      (earlier.get(contract) ?? []).reduce((most, one) => Math.max(most, one.order), 0)
    const kept = chunk
      .filter(({ entry }) => (highest.get(entry.contract) ?? 0) === placeOf(entry))
      .sort((a, b) => (a.entry.id < b.entry.id ? -1 : 1))
    const column = <T>(of: (one: (typeof kept)[number]) => T): T[] => kept.map(of)
    const done = await client.query<{ id: string }>(
      `WITH fresh AS (
         SELECT * FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::int[], $8::int[], $9::int[], $10::text[],
           $11::int[], $12::int[], $13::text[], $14::text[], $15::text[], $16::numeric[], $17::numeric[], $18::numeric[])
         AS v (id, contract, period_from, period_to, place, measured_at, measured_length, invoice, draft_at, draft_length,
           tenant, legal_entity, currency, ht, tva, ttc)
       ), closed AS (
         INSERT INTO closings AS c (id, contract, period_from, period_to, state, place, measured, invoice, created_at, updated_at)
         SELECT id, contract, period_from, period_to, CASE WHEN draft_at IS NULL THEN 'done' ELSE 'drafted' END, place,
           substring($1::bytea FROM measured_at FOR measured_length), CASE WHEN draft_at IS NOT NULL THEN invoice END, $2, $2
         FROM fresh
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, place = excluded.place, measured = excluded.measured,
           invoice = excluded.invoice, updated_at = excluded.updated_at
         WHERE c.state = 'open' AND c.attempt = 1
         RETURNING c.id
       ), drafted AS (
         INSERT INTO invoices (id, kind, state, legal_entity, tenant, contract, period_from, period_to, currency, ht, tva, ttc,
           draft, created_at, changed_at)
         SELECT invoice, 'invoice', 'draft', legal_entity, tenant, contract, period_from, period_to, currency, ht, tva, ttc,
           substring($1::bytea FROM draft_at FOR draft_length), $2, $2
         FROM fresh JOIN closed USING (id) WHERE draft_at IS NOT NULL
       )
       SELECT id FROM closed`,
      [
        bytes,
        now,
        column(({ entry }) => entry.id),
        column(({ entry }) => entry.contract),
        column(({ entry }) => entry.period.from),
        column(({ entry }) => entry.period.to),
        column(({ entry }) => placeOf(entry) + 1),
        column(({ draft }) => draft.measured[0] + 1),
        column(({ draft }) => draft.measured[1]),
        column(({ draft }) => draft.id),
        column(({ draft }) => (draft.document === null ? null : draft.document[0] + 1)),
        column(({ draft }) => (draft.document === null ? null : draft.document[1])),
        column(({ entry }) => entry.tenant),
        column(({ draft }) => draft.legalEntity),
        column(({ draft }) => draft.currency),
        column(({ draft }) => draft.ht),
        column(({ draft }) => draft.tva),
        column(({ draft }) => draft.ttc),
      ],
    )
    const drafted = new Set(done.rows.map((row) => row.id))
    for (const { entry, draft, notices } of kept)
      if (notices.length > 0 && draft.document !== null && drafted.has(entry.id))
        await tellSilent(client, { ...entry, id: draft.id, notices }, now)
    await client.query('COMMIT')
    return drafted
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined)
    throw error
  } finally {
    client.release()
  }
}
