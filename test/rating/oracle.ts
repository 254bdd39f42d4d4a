/**
 * A second, naive rating as the oracle: BigInt at nine decimals, unit by unit thinking, no decimal.js and no shared code. Only
 * for whole quantities; slow and plain on purpose.
 */
export interface PlainTier {
  readonly upTo: number | null
  /** In millionths of the currency unit. */
  readonly unit: bigint
  readonly flat: bigint
}

/** Each unit one by one at the price of the tier it falls in. */
export function graduatedMicros(quantity: number, included: number, tiers: readonly PlainTier[]): bigint {
  let total = 0n
  const entered = new Set<PlainTier>()
  for (let unit = 1; unit <= quantity; unit += 1) {
    if (unit <= included) continue
    const tier = tiers.find((candidate) => candidate.upTo === null || unit <= candidate.upTo)!
    total += tier.unit
    entered.add(tier)
  }
  if (quantity === 0 && included === 0) entered.add(tiers[0]!)
  for (const tier of entered) total += tier.flat
  return total
}

/** All billable units at the price of the tier of the whole. */
export function volumeMicros(quantity: number, included: number, tiers: readonly PlainTier[]): bigint {
  const tier = tiers.find((candidate) => candidate.upTo === null || quantity <= candidate.upTo)!
  const billable = Math.max(quantity - included, 0)
  const due = billable > 0 || included === 0
  return due ? BigInt(billable) * tier.unit + tier.flat : 0n
}

export function packageMicros(quantity: number, free: number, size: number, price: bigint): bigint {
  let packages = 0n
  for (let left = quantity - free; left > 0; left -= size) packages += 1n
  return packages * price
}

/** Full packages alone. */
export function fullPackageMicros(quantity: number, free: number, size: number, price: bigint): bigint {
  let packages = 0n
  for (let left = quantity - free; left >= size; left -= size) packages += 1n
  return packages * price
}

export interface PlainPercentage {
  /** In hundredths of a percent. */
  readonly rate: bigint
  readonly freeCents: bigint
  readonly freeEvents: number
  /** In millionths. */
  readonly perEvent: bigint
  readonly least: bigint | null
  readonly most: bigint | null
}

/** Event by event: its part above what is free, its fee if it is behind the free ones, within its bounds. */
export function percentageMicros(cents: readonly bigint[], price: PlainPercentage): bigint {
  let total = 0n
  let before = 0n
  for (const [i, amount] of cents.entries()) {
    let base = 0n
    for (let cent = 1n; cent <= amount; cent += 1n) if (before + cent > price.freeCents) base += 1n
    // cents × 10^4 millionths × rate / 10^4
    let cost = base * price.rate
    const free = base === 0n && i < price.freeEvents
    if (i >= price.freeEvents) cost += price.perEvent
    if (!free && price.least !== null && cost < price.least) cost = price.least
    if (!free && price.most !== null && cost > price.most) cost = price.most
    total += cost
    before += amount
  }
  return total
}

/** Cent by cent at the percentage of the tier it lies in. */
export function graduatedPercentMicros(
  cents: number,
  tiers: readonly { readonly upTo: number | null; readonly rate: bigint; readonly flat: bigint }[],
): bigint {
  let total = 0n
  const entered = new Set<(typeof tiers)[number]>()
  for (let cent = 1; cent <= cents; cent += 1) {
    const tier = tiers.find(({ upTo }) => upTo === null || cent <= upTo)!
    total += tier.rate
    entered.add(tier)
  }
  if (cents === 0) entered.add(tiers[0]!)
  for (const tier of entered) total += tier.flat
  return total
}

/** Millionths to an amount with two decimals, half up away from zero. */
export function cents(micros: bigint): string {
  const negative = micros < 0n
  const absolute = negative ? -micros : micros
  const rounded = (absolute + 5_000n) / 10_000n
  const text = rounded.toString().padStart(3, '0')
  return `${negative && rounded > 0n ? '-' : ''}${text.slice(0, -2)}.${text.slice(-2)}`
}

export function microsText(micros: bigint): string {
  const text = micros.toString().padStart(7, '0')
  return `${text.slice(0, -6)}.${text.slice(-6)}`
}
