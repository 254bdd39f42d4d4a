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
