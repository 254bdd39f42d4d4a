/**
 * Prepaid packs: in which order they are used up, what expiry forfeits, and what happens when nothing is left. Pure.
 *
 * Order: priority (lower first), earliest expiry, oldest, id. What an expired pack still held is forfeited and told, never lost
 * in silence; each debit says which pack paid it.
 */
import { printMoney } from '../currency.js'
import { Decimal, parseDecimal, printDecimal, ZERO } from '../decimal.js'

export interface Pack {
  readonly id: string
  readonly balance: string
  readonly priority?: number
  /** Instant at which it ends, epoch ms; absent: never. */
  readonly expires?: number
  readonly createdAt?: number
}

export interface Burn {
  readonly balances: Readonly<Record<string, string>>
  /** Units that no pack covered. */
  readonly overage: string
  readonly forfeited: Readonly<Record<string, string>>
  readonly debits: readonly { readonly at: number; readonly pack: string; readonly quantity: string }[]
}

/** Uses packs up for dated usage, in the order of its times. */
export function burnDown(
  packs: readonly Pack[],
  usage: readonly { readonly at: number; readonly quantity: string }[],
): Burn {
  const left = new Map(packs.map((pack) => [pack.id, parseDecimal(pack.balance, `balance of ${pack.id}`)]))
  const order = [...packs].sort(
    (a, b) =>
      (a.priority ?? 0) - (b.priority ?? 0) ||
      (a.expires ?? Number.MAX_SAFE_INTEGER) - (b.expires ?? Number.MAX_SAFE_INTEGER) ||
      (a.createdAt ?? 0) - (b.createdAt ?? 0) ||
      (a.id < b.id ? -1 : 1),
  )
  const forfeited: Record<string, string> = {}
  const debits: { at: number; pack: string; quantity: string }[] = []
  let overage: Decimal = ZERO
  const expire = (now: number): void => {
    for (const pack of order) {
      const balance = left.get(pack.id) ?? ZERO
      if (pack.expires === undefined || pack.expires > now || balance.isZero()) continue
      forfeited[pack.id] = printDecimal(balance)
      left.set(pack.id, ZERO)
    }
  }
  for (const part of [...usage].sort((a, b) => a.at - b.at)) {
    expire(part.at)
    let open: Decimal = parseDecimal(part.quantity, 'quantity')
    for (const pack of order) {
      const take = Decimal.min(open, left.get(pack.id) ?? ZERO)
      if (take.lte(0)) continue
      left.set(pack.id, (left.get(pack.id) ?? ZERO).minus(take))
      open = open.minus(take)
      debits.push({ at: part.at, pack: pack.id, quantity: printDecimal(take) })
    }
    overage = overage.plus(open)
  }
  const balances = Object.fromEntries([...left].map(([id, balance]) => [id, printDecimal(balance)]))
  return { balances, overage: printDecimal(overage), forfeited, debits }
}

export interface Exhaustion {
  readonly accepted: string
  readonly rejected: string
  readonly billedOverage: string
  /** Whole packs bought again by `auto_recharge`. */
  readonly recharges: number
  readonly amount: string
}

/** When a pack is used up: units at the standard price, another pack, or no more. */
export function exhaust(request: {
  readonly pack: string
  readonly packPrice: string
  readonly usage: string
  readonly overageUnitPrice: string
  readonly policy: 'standard_price' | 'auto_recharge' | 'block'
  readonly currency: string
}): Exhaustion {
  const { currency } = request
  const pack = parseDecimal(request.pack, 'pack')
  const usage = parseDecimal(request.usage, 'usage')
  const above = Decimal.max(usage.minus(pack), 0)
  const all = { accepted: printDecimal(usage), rejected: '0', recharges: 0 }
  if (request.policy === 'block') {
    return {
      ...all,
      accepted: printDecimal(usage.minus(above)),
      rejected: printDecimal(above),
      billedOverage: '0',
      amount: printMoney(ZERO, currency),
    }
  }
  if (request.policy === 'auto_recharge') {
    const recharges = above.dividedBy(pack).ceil()
    return {
      ...all,
      recharges: recharges.toNumber(),
      billedOverage: '0',
      amount: printMoney(recharges.times(parseDecimal(request.packPrice, 'packPrice')), currency),
    }
  }
  const amount = above.times(parseDecimal(request.overageUnitPrice, 'overageUnitPrice'))
  return { ...all, billedOverage: printDecimal(above), amount: printMoney(amount, currency) }
}
