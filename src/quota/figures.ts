/**
 * Figures: what is known about the usage of one balance, for one aggregation. Only what that aggregation needs is kept.
 *
 * While a balance waits for its base, the figures are a delta: counts and members may be negative there, and become right when
 * the base is added. All quantities are bigints at ROLLUP_SCALE.
 */
import { powerOfTen, ROLLUP_SCALE } from '../amount.js'
import type { Aggregation } from '../catalog/metric.js'
import { type Level, parseFigure } from './level.js'

/** Usage of a balance in earlier epochs, as the store holds it. Decimal text with at most 9 decimals; whole numbers. */
export interface BalanceBase {
  readonly sum: string
  readonly count: number
  /** Usage events behind min, max and last; at 0 those say nothing. */
  readonly samples: number
  readonly min: string
  readonly max: string
  readonly last: string
  readonly lastTime: number
  readonly lastPosition: number
  /** Only for unique metrics: 16 bytes a hash, and for each the sum of its n. Left out when there are too many to hold. */
  readonly members?: { readonly hashes: Uint8Array; readonly counts: ArrayLike<number> }
}

const ONE = powerOfTen(ROLLUP_SCALE)

export class Figures {
  readonly aggregation: Aggregation
  #sum = 0n
  #count = 0
  #samples = 0
  /** The value of max, min or latest. */
  #value = 0n
  #lastTime = 0
  #lastPosition = 0
  /** Events by member hash (latin1), never 0. */
  #members = new Map<string, number>()
  #present = 0

  constructor(aggregation: Aggregation) {
    this.aggregation = aggregation
  }

  /** Entries held in memory. */
  get membersHeld(): number {
    return this.#members.size
  }

  /** Members that count: those with more usages than voids. */
  get membersPresent(): number {
    return this.#present
  }

  /** For every aggregation but unique. */
  addUsage(value: bigint, time: number, position: number): void {
    switch (this.aggregation) {
      case 'max':
      case 'min':
      case 'latest':
        this.#addSample(1, value, time, position)
        break
      default:
        this.#sum += value
        this.#count += 1
    }
  }

  /** So many usages at once, of a sum or a count. */
  addTotal(value: bigint, usages: number): void {
    this.#sum += value
    this.#count += usages
  }

  /** Whether the figures could take the event back; max, min and latest cannot, and only the archive knows. */
  takeBack(value: bigint): boolean {
    switch (this.aggregation) {
      case 'max':
      case 'min':
      case 'latest':
        return false
      default:
        this.#sum -= value
        this.#count -= 1
        return true
    }
  }

  addMember(member: string, n: number): void {
    const before = this.#members.get(member) ?? 0
    const after = before + n
    if (after === 0) this.#members.delete(member)
    else this.#members.set(member, after)
    if (before <= 0 && after > 0) this.#present += 1
    if (before > 0 && after <= 0) this.#present -= 1
  }

  /** Turns a delta into the whole. */
  addBase(base: BalanceBase): void {
    this.#sum += parseFigure(base.sum)
    this.#count += base.count
    if (base.samples > 0) {
      const { aggregation } = this
      const text = aggregation === 'max' ? base.max : aggregation === 'min' ? base.min : base.last
      this.#addSample(base.samples, parseFigure(text), base.lastTime, base.lastPosition)
    }
    if (base.members !== undefined) {
      const { hashes, counts } = base.members
      const text = Buffer.from(hashes.buffer, hashes.byteOffset, hashes.byteLength).toString('latin1')
      for (let i = 0; i < counts.length; i += 1) this.addMember(text.slice(16 * i, 16 * i + 16), counts[i]!)
    }
  }

  /** Whether nothing is counted: then no threshold is reached, not even one at 0. */
  get empty(): boolean {
    switch (this.aggregation) {
      case 'unique':
        return this.#present === 0
      case 'max':
      case 'min':
      case 'latest':
        return this.#samples === 0
      default:
        return this.#count === 0
    }
  }

  reaches(level: Level): boolean {
    if (this.empty) return false
    // An average is not on the grid of 9 decimals, so sum ≥ level × count is compared instead; its count is positive.
    if (this.aggregation === 'average') return this.#sum * level.denominator >= level.numerator * BigInt(this.#count)
    return this.#onGrid() >= level.least
  }

  /** At ROLLUP_SCALE. Only an average is rounded, half away from zero; 0 when nothing is counted. */
  usage(): bigint {
    if (this.empty) return 0n
    if (this.aggregation !== 'average') return this.#onGrid()
    const count = BigInt(this.#count)
    const sum = this.#sum < 0n ? -this.#sum : this.#sum
    const rounded = (2n * sum + count) / (2n * count)
    return this.#sum < 0n ? -rounded : rounded
  }

  #onGrid(): bigint {
    switch (this.aggregation) {
      case 'sum':
        return this.#sum
      case 'unique':
        return BigInt(this.#present) * ONE
      case 'max':
      case 'min':
      case 'latest':
        return this.#value
      default:
        return BigInt(this.#count) * ONE
    }
  }

  #addSample(samples: number, value: bigint, time: number, position: number): void {
    const first = this.#samples === 0
    this.#samples += samples
    if (this.aggregation === 'max') {
      if (first || value > this.#value) this.#value = value
    } else if (this.aggregation === 'min') {
      if (first || value < this.#value) this.#value = value
    } else if (first || time > this.#lastTime || (time === this.#lastTime && position > this.#lastPosition)) {
      this.#value = value
      this.#lastTime = time
      this.#lastPosition = position
    }
  }
}
