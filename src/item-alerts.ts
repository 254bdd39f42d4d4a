/**
 * Thresholds of contract items that share their metric with others. The balances of the shards count a customer's metric as a whole,
 * so what an item really has (live-items.ts) is looked at on the clock of the alerts: all that is flushed by then, this period and, for
 * its first hour, the one before. Their thresholds and steps are taken out of the entitlements that the shards get; forecasts stay there.
 *
 * Nothing is remembered here: what rang is read from the alerts, whose identity makes each of them once a period, also after a crash.
 */
import type { Catalog } from './catalog/catalog.js'
import { periodAt } from './catalog/part.js'
import type { Clock } from './clock.js'
import { Decimal, printDecimal } from './decimal.js'
import type { StreamFlow } from './flow.js'
import { limits } from './limits.js'
import type { LiveItem, LiveItems } from './live-items.js'
import { isShared, shareOf } from './objects/share.js'
import type { Period } from './period.js'
import type { Alerts } from './quota/alerts.js'
import type { Crossing, LiveEntitlement } from './quota/balance.js'
import { type Level, levelAt, levelsOf, parseFigure } from './quota/level.js'

/** Sharing that begins within so long is there from the start. */
const AHEAD_MS = 3_660 * 86_400_000

interface Watched {
  readonly entitlements: LiveEntitlement[]
  /** Of the epoch and the catalogue that were looked at last; nothing can have changed since. */
  seen: string
}

interface ItemAlertsOptions {
  readonly catalog: Catalog
  readonly clock: Clock
  readonly alerts: Alerts
}

export class ItemAlerts {
  readonly #o: ItemAlertsOptions
  #items: LiveItems | undefined
  /** By tenant and metric. */
  #watched = new Map<string, Watched>()
  /** Where the next look begins: many are looked at in turns. */
  #next = 0

  constructor(options: ItemAlertsOptions) {
    this.#o = options
  }

  start(items: LiveItems): void {
    this.#items = items
  }

  /** Keeps what shards cannot judge and answers the rest. */
  take(entitlements: readonly LiveEntitlement[]): LiveEntitlement[] {
    const watched = new Map<string, Watched>()
    const rest = entitlements.map((one) => {
      const { recurring = [] } = one
      if ((one.thresholds.length === 0 && recurring.length === 0) || !this.#isShared(one)) return one
      const key = JSON.stringify([one.tenant, one.metric])
      const known = watched.get(key) ?? { entitlements: [], seen: '' }
      known.entitlements.push(one)
      watched.set(key, known)
      return { ...one, thresholds: [], recurring: [] }
    })
    this.#watched = watched
    return rest
  }

  #isShared({ contract: id, item: itemId, tenant, metric }: LiveEntitlement): boolean {
    const book = this.#o.catalog.book()
    const contract = book.contracts.get(id)
    const item = contract?.items.find((one) => one.id === itemId)
    if (contract === undefined || item === undefined || contract.state !== 'active' || !isShared(book, contract))
      return false
    if (item.fleet !== undefined) return true
    const { from } = periodAt(contract, this.#o.clock.now())
    return shareOf(book, { contract: id, item: itemId }, tenant, metric, { from, to: from + AHEAD_MS }) !== null
  }

  /** One look at the items of a stream's tenants, up to limits.itemAlertsPerLook metrics of them. */
  async look(flow: StreamFlow, isMine: (tenant: string) => boolean): Promise<void> {
    const mine = [...this.#watched.values()].filter(({ entitlements }) => isMine(entitlements[0]!.tenant))
    if (mine.length === 0 || this.#items === undefined) return
    const now = this.#o.clock.now()
    const { checkpoint, epoch } = flow.position
    const crossings: Crossing[] = []
    const first = mine.length > limits.itemAlertsPerLook ? this.#next % mine.length : 0
    for (const one of [...mine.slice(first), ...mine.slice(0, first)].slice(0, limits.itemAlertsPerLook)) {
      const { tenant, metric } = one.entitlements[0]!
      const seen = `${epoch} ${this.#o.catalog.snapshot().version} ${Math.floor(now / limits.itemAlertsLastMs)}`
      if (one.seen === seen) continue
      const looked = await this.#items.at(tenant, metric, now)
      const earlier = looked.some(({ period }) => now - period.from < limits.itemAlertsLastMs)
        ? await this.#items.at(tenant, metric, Math.min(...looked.map(({ period }) => period.from)) - 1)
        : []
      const all = [...looked, ...earlier]
      const rung = await this.#rung(flow.stream, all)
      for (const entitlement of one.entitlements) {
        for (const item of all.filter((found) => found.item === entitlement.item))
          crossings.push(...judge(entitlement, item, rung, { sequence: checkpoint, receivedAt: now }))
      }
      one.seen = seen
    }
    this.#next += limits.itemAlertsPerLook
    flow.tell(crossings)
  }

  /** What rang and is not resolved, by identity. */
  async #rung(stream: number, items: readonly LiveItem[]): Promise<ReadonlySet<string>> {
    const ids = [...new Set(items.map(({ item }) => item))]
    const from = Math.min(...items.map(({ period }) => period.from))
    if (ids.length === 0) return new Set()
    const rows = await this.#o.alerts.unresolved(stream, ids, Number.MAX_SAFE_INTEGER, from)
    return new Set(rows.map((row) => identity(row.item, row.metric, row.periodFrom, row.threshold, row.limitVersion)))
  }
}

const identity = (item: string, metric: string, periodFrom: number, threshold: string, version: number): string =>
  JSON.stringify([item, metric, periodFrom, threshold, version])

/** What an item's usage rings that has not rung, and resolves that has. Pure. */
export function judge(
  entitlement: LiveEntitlement,
  { usage: text, period, limit }: Pick<LiveItem, 'usage' | 'limit'> & { readonly period: Period },
  rung: ReadonlySet<string>,
  cause: { readonly sequence: number; readonly receivedAt: number },
): Crossing[] {
  const { item, contract, tenant, product, metric, limitVersion } = entitlement
  const usage = parseFigure(new Decimal(text).toFixed(9))
  const isRung = (code: string): boolean => rung.has(identity(item, metric, period.from, code, limitVersion))
  const crossing = (type: Crossing['type'], kind: Crossing['kind'], { code, rule }: Level): Crossing => ({
    ...{ type, kind, rule, subject: null, forecast: null, item, contract, tenant, product, metric, period },
    ...{ threshold: code, limitVersion, limit, balance: printDecimal(new Decimal(text)) },
    ...{ position: null, eventTime: null, ...cause },
  })
  const crossings: Crossing[] = []
  // A quota of the part that the item covers; of a fleet none, since each object has its own.
  for (const level of levelsOf({ limit, thresholds: entitlement.thresholds })) {
    const isReached = usage >= level.least && usage !== 0n
    if (isReached && !isRung(level.code)) crossings.push(crossing('alert.triggered', 'threshold', level))
    if (!isReached && isRung(level.code)) crossings.push(crossing('alert.resolved', 'threshold', level))
  }
  for (const { code, rule, every, from } of entitlement.recurring ?? []) {
    const [step, start] = [parseFigure(every), parseFigure(from)]
    const reached = usage < start ? 0n : (usage - start) / step
    const least = reached > BigInt(limits.stepsToldMax) ? reached - BigInt(limits.stepsToldMax) : 0n
    for (let n = least + 1n; n <= reached; n += 1n) {
      const at = start + n * step
      const level = levelAt(`${code}:${printDecimal(new Decimal(at.toString()).div(1e9))}`, rule, at, 1n)
      if (!isRung(level.code)) crossings.push(crossing('alert.triggered', 'recurring', level))
    }
  }
  return crossings
}
