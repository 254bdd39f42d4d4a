/**
 * Whose usage it is: contract items of one customer that count the same metric share it by subject, and none of it is billed twice
 * or lost. First the objects of a fleet take the usage of their subjects while they are active; then items that name subjects take
 * theirs; all the rest belongs to the first item that names none (by the start of its contract, then by id and place).
 *
 * The rule of an item is kept with what it measured, so that a verification shares out as the closing did.
 */
import type { Book } from '../catalog/book.js'
import type { Contract } from '../catalog/contract.js'
import { partOf } from '../catalog/part.js'
import { midnightOf } from '../catalog/schedule.js'
import type { Period } from '../period.js'

/** Somebody who takes usage before the item of the rule does. */
export interface Other {
  readonly from: number
  readonly to: number
  /** Its subjects; null: everything. Of a fleet: those of its objects, while they are active. */
  readonly subjects: readonly string[] | null
  readonly fleet?: { readonly contract: string; readonly item: string }
}

export interface Share {
  /** What it takes of what the others leave; null: everything. */
  readonly subjects: readonly string[] | null
  readonly others: readonly Other[]
}

interface Candidate {
  readonly contract: Contract
  readonly item: Contract['items'][number]
  readonly place: number
}

function candidatesOf(book: Book, tenant: string, metric: string): Candidate[] {
  return book
    .contractsOf(tenant)
    .filter((contract) => contract.state !== 'provisioned')
    .flatMap((contract) =>
      contract.items
        .map((item, place) => ({ contract, item, place }))
        .filter(({ item }) => item.entitlements.some((entitlement) => entitlement.metric === metric)),
    )
    .sort((a, b) => (key(a) < key(b) ? -1 : 1))
}

const key = ({ contract, place }: Candidate): string =>
  `${contract.start} ${contract.id} ${String(place).padStart(4, '0')}`

/** The rule of an item for a metric over a part; null when it has all of the metric to itself. */
export function shareOf(
  book: Book,
  own: { readonly contract: string; readonly item: string },
  tenant: string,
  metric: string,
  part: Period,
): Share | null {
  const candidates = candidatesOf(book, tenant, metric)
  const at = candidates.findIndex(({ contract, item }) => contract.id === own.contract && item.id === own.item)
  const subjects = candidates[at]?.item.subjects ?? null
  if (at === -1 || (candidates.length === 1 && subjects === null)) return null
  const others = candidates.flatMap(({ contract, item }, place): Other[] => {
    if (place === at) return []
    const rank = item.fleet === undefined ? (item.subjects === undefined ? 2 : 1) : 0
    const ownRank = subjects === null ? 2 : 1
    if (rank > ownRank || (rank === ownRank && place > at)) return []
    const range = rangeOf(contract, item, part)
    if (range === null) return []
    if (rank === 0) return [{ ...range, subjects: null, fleet: { contract: contract.id, item: item.id } }]
    return [{ ...range, subjects: item.subjects ?? null }]
  })
  return subjects === null && others.length === 0 ? null : { subjects, others }
}

function rangeOf(contract: Contract, item: Contract['items'][number], part: Period): Period | null {
  const start = midnightOf(contract.start, contract.timeZone)
  if (start >= part.to) return null
  return partOf(contract, item, { from: Math.max(part.from, start), to: part.to })
}

/** Tenants of which an item's usage is not simply all of the tenant's: their contracts are closed one by one. */
export function isShared(book: Book, contract: Contract): boolean {
  if (contract.items.some((item) => item.fleet !== undefined || item.subjects !== undefined)) return true
  const all = book.contractsOf(contract.tenant)
  if (all.length === 1 && contract.items.length === 1) return false
  const seen = new Set<string>()
  for (const { items } of all) {
    for (const { entitlements } of items) {
      for (const { metric } of entitlements) {
        if (seen.has(metric)) return true
        seen.add(metric)
      }
    }
  }
  return false
}

/** Where a part is cut: at the bounds of all who take from it. */
export function startsOf(part: Period, ranges: Iterable<Period>): number[] {
  const starts = new Set([part.from])
  for (const { from, to } of ranges) for (const at of [from, to]) if (at > part.from && at < part.to) starts.add(at)
  return [...starts].sort((a, b) => a - b)
}

/** Whether the item of the rule takes the usage of a subject in a segment. `bound`: the objects of that subject. */
export function takes(
  share: Share,
  subject: string,
  segment: number,
  bound: readonly { readonly contract: string; readonly parent: string; readonly from: number; readonly to: number }[],
): boolean {
  if (share.subjects !== null && !share.subjects.includes(subject)) return false
  return !share.others.some((other) => {
    if (segment < other.from || segment >= other.to) return false
    if (other.fleet === undefined) return other.subjects === null || other.subjects.includes(subject)
    const { contract, item } = other.fleet
    return bound.some(
      (one) => one.contract === contract && one.parent === item && segment >= one.from && segment < one.to,
    )
  })
}

/** In the order of bytes, as ClickHouse and COLLATE "C" have it. */
export function compareSubjects(a: string, b: string): number {
  // Below the surrogates UTF-16 has the order of UTF-8.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the range of the plane that compares alike
  if (/^[\u0000-\ud7ff]*$/.test(a) && /^[\u0000-\ud7ff]*$/.test(b)) return a < b ? -1 : a > b ? 1 : 0
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
