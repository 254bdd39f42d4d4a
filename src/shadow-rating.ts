/**
 * Shadow rating of what really happened: a page of contracts, each with its ended and running periods of a range, by the terms in
 * force and by changed ones (invoicing/shadow.ts is the difference of one period). Counted as it stands; nothing is kept.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Catalog, Terms } from './catalog/catalog.js'
import { midnightOf } from './catalog/schedule.js'
import type { Clock } from './clock.js'
import type { Counting } from './counting.js'
import { ReleveError } from './errors.js'
import { periodOf, withPriceParts } from './invoicing/close.js'
import type { ItemUsage } from './invoicing/draft.js'
import type { Prepaid as Funds } from './invoicing/funding.js'
import {
  type ShadowChange,
  type ShadowPeriod,
  type ShadowSide,
  type ShadowSums,
  shadowItems,
  shadowPeriod,
  shadowSums,
  shadowTerms,
  shadowTotals,
} from './invoicing/shadow.js'
import { limits } from './limits.js'
import { isShared } from './objects/share.js'
import type { Period } from './period.js'
import type { Prepaid } from './prepaid/prepaid.js'

export interface ShadowOptions {
  readonly clock: Clock
  readonly catalog: Catalog
  readonly counting: Counting
  readonly prepaid: Prepaid
  /** The packs of a period: as its closing found them, or as they are now. */
  readonly packsFor: (terms: Terms, period: Period, usage: readonly ItemUsage[]) => Promise<Funds | undefined>
}

export interface ShadowRequest {
  readonly change: ShadowChange
  /** Epoch ms: periods that begin in [from, to). */
  readonly from: number
  readonly to: number
  readonly tenant?: string
  readonly contracts?: readonly string[]
  /** The last contract of the page before. */
  readonly after?: string
  readonly limit: number
}

export interface ShadowAnswer {
  readonly contracts: readonly (ShadowSums & {
    readonly contract: string
    readonly tenant: string
    readonly currency: string
    readonly periods: readonly ShadowPeriod[]
  })[]
  /** Of this page, by currency: how many pay more, less, the same. */
  readonly totals: readonly (ShadowSums & {
    readonly currency: string
    readonly more: number
    readonly less: number
    readonly same: number
  })[]
  readonly failed: readonly { readonly contract: string; readonly reason: string }[]
  readonly next: string | null
}

/**
 * What changed prices or plans would have made of real usage: contracts in the order of their ids, a page at a time, each with
 * its ended and running periods that begin in the range. Counted as it stands; nothing is kept.
 */
export async function rateShadow(options: ShadowOptions, request: ShadowRequest): Promise<ShadowAnswer> {
  const { clock, catalog, counting, prepaid } = options
  const book = catalog.book()
  const { from, to, change } = request
  const wanted = request.contracts === undefined ? null : new Set(request.contracts)
  const all = [...book.contracts.values()]
    .filter((one) => (wanted === null || wanted.has(one.id)) && (request.tenant ?? one.tenant) === one.tenant)
    .filter((one) => one.state !== 'provisioned' && one.id > (request.after ?? ''))
    .sort((a, b) => (a.id < b.id ? -1 : 1))
  const page = all.slice(0, request.limit)
  const failed: { contract: string; reason: string }[] = []
  const asked: { contract: (typeof page)[number]; period: Period; before: Terms; after: Terms }[] = []
  for (const contract of page) {
    const own: typeof asked = []
    try {
      for (const period of periodsIn(catalog, contract.id, from, Math.min(to, clock.now()))) {
        const before = catalog.terms(contract.id, period)
        own.push({ contract, period, before, after: shadowTerms(book, before, period, change) })
      }
      asked.push(...own)
    } catch (error) {
      if (error instanceof ReleveError && error.code === 'not_found') throw error
      failed.push({ contract: contract.id, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  const counted = await counting.manyNow(
    asked.map(({ contract, period, before, after }) => ({
      tenant: contract.tenant,
      period,
      items: shadowItems(before, after),
    })),
  )
  const withPacks = await prepaid.everHad(page.map((one) => one.id))
  const contracts = new Map<string, { contract: string; tenant: string; currency: string; periods: ShadowPeriod[] }>()
  for (const [i, { contract, period, before, after }] of asked.entries()) {
    // Others have their turn in between.
    if (i % 50 === 49) await nextTurn()
    const usage = counted[i]!
    try {
      if ('mismatch' in usage) throw new ReleveError('conflict', usage.mismatch)
      const { id, tenant } = contract
      const own = contracts.get(id) ?? { contract: id, tenant, currency: before.customer.currency, periods: [] }
      const sides: ShadowSide[] = []
      for (const terms of [before, after]) sides.push(await sideOf(options, terms, period, usage, withPacks.has(id)))
      own.periods.push(shadowPeriod(sides[0]!, sides[1]!, period))
      contracts.set(id, own)
    } catch (error) {
      failed.push({ contract: contract.id, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  const sums = [...contracts.values()].map((one) => ({ ...one, ...shadowSums(one.periods, one.currency) }))
  return {
    contracts: sums,
    totals: shadowTotals(sums),
    failed,
    next: page.length < all.length ? (page.at(-1)?.id ?? null) : null,
  }
}

/** Terms with what they make of usage: shared, with usage data, object by object, and what packs pay of it. */
async function sideOf(
  { catalog, counting, packsFor }: ShadowOptions,
  terms: Terms,
  period: Period,
  usage: readonly ItemUsage[],
  packs: boolean,
): Promise<ShadowSide> {
  const { contract } = terms
  const book = catalog.book()
  const more = contract.items.some((item) => item.calculators !== undefined || item.fleet !== undefined)
  const counted =
    more || isShared(book, contract)
      ? await counting.complete(terms, period, usage, 'all')
      : await withPriceParts(terms, period, usage, counting.partNow(terms))
  if (!packs) return { terms, usage: counted }
  const funds = await packsFor(terms, period, counted)
  return { terms, usage: counted, ...(funds === undefined ? {} : { prepaid: funds }) }
}

/** Periods of a contract that begin in a range. */
function periodsIn(catalog: Catalog, contract: string, from: number, to: number): Period[] {
  const found: Period[] = []
  const { start, timeZone } = catalog.book().contractOf(contract)
  let at = Math.max(from, midnightOf(start, timeZone))
  while (at < to) {
    const { period } = periodOf({ catalog }, { contract, at })
    if (period.from >= from) found.push(period)
    if (found.length > limits.shadowPeriodsMax)
      throw new ReleveError('unprocessable', `from, to: at most ${limits.shadowPeriodsMax} periods of a contract`)
    at = period.to
  }
  return found
}
