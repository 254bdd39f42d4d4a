/**
 * Prepaid packs: in which order they are used up, what expiry forfeits, and what is bought again. Pure.
 *
 * Order: priority (lower first), earliest expiry, oldest, id. What an expired pack still held is forfeited and told, never lost
 * in silence; each debit says which pack paid it. A pack pays for usage from its beginning on, never for what was before; only one
 * that was bought again because nothing was left would have been bought earlier, had the usage been known.
 */
import { Decimal, parseDecimal, printDecimal, ZERO } from '../decimal.js'

export interface Pack {
  readonly id: string
  readonly balance: string
  readonly priority?: number
  /** Instant from which it pays, epoch ms; absent: always. */
  readonly validFrom?: number
  /** Instant at which it ends, epoch ms; absent: never. */
  readonly expires?: number
  readonly createdAt?: number
  /** Was bought again within the usage that is looked at, because nothing was left: it pays any of it, behind all others. */
  readonly again?: true
}

/** The pack that is bought again when nothing is left, as often as it takes. */
export interface Recharge {
  readonly quantity: string
  readonly priority?: number
  /** How long it pays, ms; absent: for ever. */
  readonly validMs?: number
  /** Name of the nth one. */
  readonly idOf: (nth: number) => string
}

export interface Burn {
  readonly balances: Readonly<Record<string, string>>
  /** Units that no pack covered. */
  readonly overage: string
  readonly forfeited: Readonly<Record<string, string>>
  readonly debits: readonly { readonly at: number; readonly pack: string; readonly quantity: string }[]
  /** Bought again: each `packs` times the recharge's quantity. */
  readonly recharges: readonly { readonly at: number; readonly pack: string; readonly packs: string }[]
}

/** Uses packs up for dated usage, in the order of its times. */
export function burnDown(
  packs: readonly Pack[],
  usage: readonly { readonly at: number; readonly quantity: string }[],
  recharge?: Recharge,
): Burn {
  const left = new Map(packs.map((pack) => [pack.id, parseDecimal(pack.balance, `balance of ${pack.id}`)]))
  const order = [...packs].sort(
    (a, b) =>
      Number(a.again ?? false) - Number(b.again ?? false) ||
      (a.priority ?? 0) - (b.priority ?? 0) ||
      (a.expires ?? Number.MAX_SAFE_INTEGER) - (b.expires ?? Number.MAX_SAFE_INTEGER) ||
      (a.createdAt ?? 0) - (b.createdAt ?? 0) ||
      (a.id < b.id ? -1 : 1),
  )
  const forfeited: Record<string, string> = {}
  const debits: { at: number; pack: string; quantity: string }[] = []
  const recharges: { at: number; pack: string; packs: string }[] = []
  let overage: Decimal = ZERO
  const expire = (now: number): void => {
    for (const pack of order) {
      const balance = left.get(pack.id) ?? ZERO
      if (pack.expires === undefined || pack.expires > now || balance.isZero()) continue
      forfeited[pack.id] = printDecimal(balance)
      left.set(pack.id, ZERO)
    }
  }
  const take = (pack: Pack, at: number, open: Decimal): Decimal => {
    const part = Decimal.min(open, left.get(pack.id) ?? ZERO)
    if (part.lte(0) || (pack.again !== true && (pack.validFrom ?? at) > at)) return ZERO
    left.set(pack.id, (left.get(pack.id) ?? ZERO).minus(part))
    debits.push({ at, pack: pack.id, quantity: printDecimal(part) })
    return part
  }
  for (const { at, quantity } of [...usage].sort((a, b) => a.at - b.at)) {
    expire(at)
    let open: Decimal = parseDecimal(quantity, 'quantity')
    for (const pack of order) open = open.minus(take(pack, at, open))
    if (recharge !== undefined && open.gt(0)) {
      const size = parseDecimal(recharge.quantity, 'recharge')
      const count = open.dividedBy(size).ceil()
      const pack: Pack = {
        id: recharge.idOf(recharges.length + 1),
        balance: printDecimal(size.times(count)),
        priority: recharge.priority ?? 0,
        ...(recharge.validMs === undefined ? {} : { expires: at + recharge.validMs }),
      }
      order.push(pack)
      left.set(pack.id, new Decimal(pack.balance))
      recharges.push({ at, pack: pack.id, packs: printDecimal(count) })
      open = open.minus(take(pack, at, open))
    }
    overage = overage.plus(open)
  }
  const balances = Object.fromEntries([...left].map(([id, balance]) => [id, printDecimal(balance)]))
  return { balances, overage: printDecimal(overage), forfeited, debits, recharges }
}
