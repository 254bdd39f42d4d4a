/**
 * From what a tenant's metrics come to, to what each contract item is billed for: shared out by subject, object by object for a
 * fleet, and with the usage data that are handed in beside the stream. The same steps for a closing, a preview and a verification;
 * they differ in where figures are read, which data count, and whether the detail is kept.
 */
import type { ClientBase, Pool } from 'pg'
import { assert } from './assert.js'
import type { Book, Terms } from './catalog/book.js'
import type { Metric } from './catalog/metric.js'
import { Decimal, printDecimal, sum } from './decimal.js'
import { ReleveError } from './errors.js'
import type { ItemUsage } from './invoicing/draft.js'
import { FleetRating, type ObjectCharge } from './invoicing/fleet.js'
import { limits } from './limits.js'
import { boundsWithin, itemsWithin, type ObjectItem } from './objects/objects.js'
import { compareSubjects, type Share, shareOf, startsOf, takes } from './objects/share.js'
import type { Period } from './period.js'
import { type MeasuredUsage, measurePart } from './rollup/measure.js'
import type { Heads } from './rollup/proof.js'
import type { Rollup } from './rollup/rollup.js'
import { addDigests, printDigest, type SplitRow, splitBySubject } from './rollup/split.js'
import { dataByObject, type Part, type Which, withData } from './usage-data/collect.js'

export interface CompleteOptions {
  readonly store: Pick<ClientBase | Pool, 'query'>
  readonly rollup: Rollup
  readonly stream: number
  readonly folded: number
  readonly metricOf: (key: string) => Metric
  /** The values of a metric's events are wanted too: some price is by the event. */
  readonly headsOf: (metric: string) => Heads | null
  /** Who shares what, by the contracts as they are; null: as it was kept when it was measured, and from the archive alone. */
  readonly book: Book | null
  readonly which: Which
  /** A figure for a screen, which nothing is billed by, is that of the rollups. */
  readonly source?: 'rollups'
  /** Takes the detail of objects, a page at a time. */
  readonly keep?: (charges: readonly ObjectCharge[], item: string, period: Period) => Promise<void>
}

export async function completeUsage(options: CompleteOptions, part: Part): Promise<readonly ItemUsage[]> {
  const { terms, period } = part
  const { contract } = terms
  const fleets = new Set(contract.items.filter((item) => item.fleet !== undefined).map((item) => item.id))
  const usage: ItemUsage[] = []
  for (const one of part.usage) {
    if (fleets.has(one.item)) continue
    const covers = terms.items.find((item) => item.item === one.item)?.period ?? period
    usage.push(await itemUsage(options, one, { contract: contract.id, tenant: contract.tenant }, covers))
  }
  for (const item of terms.items) if (fleets.has(item.item)) usage.push(...(await fleetUsage(options, part, item)))
  return withData(options.store, { ...part, usage }, options.which)
}

/** What an item has of a metric over a part of a period, of all that its tenant has. */
export async function itemUsage(
  options: CompleteOptions,
  one: ItemUsage,
  { contract, tenant }: { readonly contract: string; readonly tenant: string },
  covers: Period,
): Promise<ItemUsage> {
  const share =
    options.book === null
      ? (one.share as Share | undefined)
      : shareOf(options.book, { contract, item: one.item }, tenant, one.metric, covers)
  return share == null ? one : sharedUsage(options, one, share, tenant, covers)
}

/** What an item has of a metric that it does not have alone. */
async function sharedUsage(
  options: CompleteOptions,
  one: ItemUsage,
  share: Share,
  tenant: string,
  covers: Period,
): Promise<ItemUsage> {
  const metric = options.metricOf(one.metric)
  const fleets = share.others.some((other) => other.fleet !== undefined)
  if (!fleets) return partUsage(options, one, share, tenant, covers)
  // Objects have sums and counts alone (catalog.ts).
  assert(isSplit(metric), `${one.metric} of a fleet is a sum or a count`)
  const starts = startsOf(covers, [...share.others, ...(await boundsWithin(options.store, tenant, covers))])
  let [quantity, count, digest] = [new Decimal(0), 0, 0n]
  const objects = new Objects(itemsWithin(options.store, { tenant, period: covers }))
  for await (const row of rowsOf(options, one, tenant, covers, starts)) {
    if (!takes(share, row.subject, row.segment, await objects.of(row.subject))) continue
    quantity = quantity.plus(row.quantity)
    count += row.count
    digest = addDigests(digest, row.digest)
  }
  const { subjects } = share
  const named = subjects?.slice(0, 20).map((subject) => `'${subject.replaceAll(/['\\]/g, '\\$&')}'`)
  return {
    ...one,
    quantity: printDecimal(quantity),
    count,
    digest: printDigest(digest),
    query: `${one.query}${named === undefined ? ' /* without what others name */' : ` AND subject IN (${named}${(subjects?.length ?? 0) > 20 ? ', …' : ''})`}`,
    share,
  }
}

/** What an item has of a metric that it shares with items alone: one question, whatever the metric makes of its events. */
async function partUsage(
  options: CompleteOptions,
  one: ItemUsage,
  share: Share,
  tenant: string,
  covers: Period,
): Promise<ItemUsage> {
  const { rollup, stream, folded, metricOf, book, source = book === null ? 'archive' : 'both' } = options
  const metric = metricOf(one.metric)
  const epoch = one.cut[String(stream)] ?? 0
  // A level goes on across the instants at which others come and go, and comes from before: it is asked between them, and whose
  // it is then is whose its past is.
  const isLevel = metric.aggregation === 'weighted_sum'
  const starts = isLevel ? startsOf(covers, share.others) : [covers.from]
  const parts: MeasuredUsage[] = []
  for (const [i, from] of starts.entries()) {
    const period = { from, to: starts[i + 1] ?? covers.to }
    const others = share.others
      .filter((other) => other.from < period.to && other.to > period.from)
      .map((other) => (isLevel ? { ...other, from: 0 } : other))
    const heads = options.headsOf(one.metric) ?? undefined
    const asked = { tenant, metric, period, heads, only: { subjects: share.subjects, others } }
    const found = await measurePart(rollup, asked, { stream, epoch, folded }, source)
    if (found.mismatch !== null) throw new ReleveError('conflict', found.mismatch)
    parts.push(found)
  }
  const { mismatch: _, ...first } = parts[0]!
  const quantity = printDecimal(sum(parts.map((part) => new Decimal(part.quantity))))
  const count = parts.reduce((all, part) => all + part.count, 0)
  const digest = printDigest(parts.reduce((all, part) => addDigests(all, BigInt(`0x${part.digest || '0'}`)), 0n))
  return { ...one, ...first, quantity, count, digest, share }
}

/** What the objects of a fleet have of a metric. */
export async function fleetQuantity(
  options: CompleteOptions,
  one: ItemUsage,
  { contract, tenant }: { readonly contract: string; readonly tenant: string },
  covers: Period,
): Promise<string> {
  if (!isSplit(options.metricOf(one.metric))) return '0'
  const starts = startsOf(covers, await boundsWithin(options.store, tenant, covers))
  const of = { tenant, contract, parent: one.item, period: covers }
  const objects = new Objects(itemsWithin(options.store, of))
  let quantity = new Decimal(0)
  for await (const row of rowsOf(options, one, tenant, covers, starts)) {
    const bound = await objects.of(row.subject)
    if (bound.some(({ from, to }) => row.segment >= from && row.segment < to)) quantity = quantity.plus(row.quantity)
  }
  return printDecimal(quantity)
}

/** A fleet, object by object in the order of their subjects, beside the usage in the same order. */
async function fleetUsage(options: CompleteOptions, part: Part, item: Terms['items'][number]): Promise<ItemUsage[]> {
  const { terms, period } = part
  const { contract } = terms
  const { tenant } = contract
  const covers = item.period ?? period
  const base = part.usage.filter((one) => one.item === item.item)
  const bounds = await boundsWithin(options.store, tenant, covers)
  const data = await dataByObject(options.store, part, item.item, options.which)
  // Data of before an instant at which a price changes within the period.
  const dataUntil = new Map<number, typeof data.objects>()
  for (const { from } of item.metrics.flatMap(({ later = [] }) => later))
    if (data.objects.size > 0 && !dataUntil.has(from))
      dataUntil.set(from, (await dataByObject(options.store, part, item.item, options.which, from)).objects)
  const readers = item.metrics.map(({ metric, later = [] }) => {
    const one = base.find((entry) => entry.metric === metric && entry.fleet?.kind !== 'fee')
    const starts = startsOf(covers, [...bounds, ...later.map(({ from }) => ({ from, to: covers.to }))])
    const rows = one === undefined ? nothing() : rowsOf(options, one, tenant, covers, starts)
    return { metric, later, one, subjects: new Subjects(rows), count: 0, digest: 0n }
  })
  const rating = new FleetRating(terms, item, period)
  let charges: ObjectCharge[] = []
  let [subject, rows]: [string | null, (readonly SplitRow[])[]] = [null, []]
  try {
    for await (const object of itemsWithin(options.store, {
      tenant,
      contract: contract.id,
      parent: item.item,
      period: covers,
    })) {
      if (object.subject !== subject) {
        subject = object.subject
        rows = []
        for (const reader of readers) rows.push(await reader.subjects.of(subject))
      }
      const own = { from: Math.max(object.from, covers.from), to: Math.min(object.to, covers.to) }
      const usage = new Map<string, { quantity: string; events: number; data: string | null; parts: string[] }>()
      for (const [i, reader] of readers.entries()) {
        const added = data.objects.get(object.id)?.get(reader.metric) ?? null
        let [quantity, events] = [new Decimal(added ?? 0), 0]
        const before = reader.later.map(
          ({ from }) => new Decimal(dataUntil.get(from)?.get(object.id)?.get(reader.metric) ?? 0),
        )
        for (const row of rows[i]!) {
          if (row.segment < own.from || row.segment >= own.to) continue
          quantity = quantity.plus(row.quantity)
          events += row.count
          for (const [at, { from }] of reader.later.entries())
            if (row.segment < from) before[at] = before[at]!.plus(row.quantity)
          reader.digest = addDigests(reader.digest, row.digest)
        }
        reader.count += events
        if (events > 0 || added !== null)
          usage.set(reader.metric, {
            quantity: printDecimal(quantity),
            events,
            data: added,
            parts: before.map((sum, at) => printDecimal(sum.minus(before[at - 1] ?? 0))),
          })
      }
      charges.push(rating.add({ id: object.id, subject: object.subject, covers: own, usage }))
      if (charges.length === limits.objectsPageMax) {
        await options.keep?.(charges, item.item, period)
        charges = []
      }
    }
  } finally {
    for (const reader of readers) await reader.subjects.close()
  }
  await options.keep?.(charges, item.item, period)
  return rating.charges().map(({ metric, quantity, fleet }): ItemUsage => {
    const reader = readers.find((entry) => fleet.kind === 'usage' && entry.metric === metric)
    const proof = data.proofs.get(metric)
    return {
      item: item.item,
      metric,
      quantity,
      cut: reader?.one?.cut ?? {},
      query:
        reader?.one === undefined ? '' : `${reader.one.query.split(' /*')[0]} /* of the objects of ${item.item} */`,
      count: reader?.count ?? 0,
      digest: printDigest(reader?.digest ?? 0n),
      ...(reader === undefined || proof === undefined ? {} : { data: { ...proof, entries: [] } }),
      fleet,
    }
  })
}

const isSplit = (metric: Metric): boolean => metric.aggregation === 'sum' || metric.aggregation === 'count'

function rowsOf(
  { rollup, stream, folded, metricOf, book, source: asked }: CompleteOptions,
  one: ItemUsage,
  tenant: string,
  period: Period,
  starts: readonly number[],
): AsyncGenerator<SplitRow> {
  const metric = metricOf(one.metric)
  const epoch = one.cut[String(stream)] ?? 0
  const source = asked ?? (book === null ? 'archive' : 'both')
  return splitBySubject(rollup, { tenant, metric, period, starts, stream, epoch, folded, source })
}

async function* nothing(): AsyncGenerator<SplitRow> {}

/** A list in the order of subjects, read forward: what there is of each subject that is asked, in the same order. */
class Subjects<T extends { readonly subject: string }> {
  readonly #all: AsyncGenerator<T>
  #next: T | null | undefined
  #last: { readonly subject: string; readonly found: readonly T[] } | undefined

  constructor(all: AsyncGenerator<T>) {
    this.#all = all
  }

  async of(subject: string): Promise<readonly T[]> {
    if (this.#last?.subject === subject) return this.#last.found
    const found: T[] = []
    for (;;) {
      if (this.#next === undefined) {
        const read = await this.#all.next()
        this.#next = read.done === true ? null : read.value
      }
      if (this.#next === null) break
      const order = compareSubjects(this.#next.subject, subject)
      if (order > 0) break
      if (order === 0) found.push(this.#next)
      this.#next = undefined
    }
    this.#last = { subject, found }
    return found
  }

  async close(): Promise<void> {
    await this.#all.return(undefined)
  }
}
const Objects = Subjects<ObjectItem>
