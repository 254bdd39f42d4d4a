/**
 * Levels: the thresholds of an entitlement as exact numbers, in rising order, so that «has it been reached» is one comparison
 * of bigints. A percentage stays a fraction; no float, no rounding: 33.3 % of 10 is reached at 3.33 and not before.
 */
import { ROLLUP_SCALE } from '../amount.js'
import { assert } from '../assert.js'
import type { Entitlement } from './entitlement.js'

export interface Level {
  /** Code of the threshold. */
  readonly code: string
  /** The alert rule behind it. */
  readonly rule: string | null
  /** The level is numerator / denominator, at ROLLUP_SCALE. */
  readonly numerator: bigint
  readonly denominator: bigint
  /** The least whole number at ROLLUP_SCALE that reaches it. */
  readonly least: bigint
}

const FIGURE = /^(-?)([0-9]+)(?:\.([0-9]{1,9}))?$/

/** Decimal text with at most 9 decimals to an integer at ROLLUP_SCALE; of any size, as sums need. */
export function parseFigure(text: string): bigint {
  const match = FIGURE.exec(text)
  assert(match !== null, `«${text}» is not a decimal with at most ${ROLLUP_SCALE} decimals`)
  const [, sign, whole = '', fraction = ''] = match
  const scaled = BigInt(whole + fraction.padEnd(ROLLUP_SCALE, '0'))
  return sign === '-' ? -scaled : scaled
}

/** Rising; equal levels in the order of the entitlement. A percentage of an unlimited quantity is no level. */
export function levelsOf({ limit, thresholds }: Pick<Entitlement, 'limit' | 'thresholds'>): Level[] {
  const hundred = parseFigure('100')
  const levels: Level[] = []
  for (const { code, kind, value, rule = null } of thresholds) {
    if (kind === 'absolute') levels.push(levelAt(code, rule, parseFigure(value), 1n))
    else if (limit !== null) levels.push(levelAt(code, rule, parseFigure(limit) * parseFigure(value), hundred))
  }
  return levels.sort((a, b) => {
    const difference = a.numerator * b.denominator - b.numerator * a.denominator
    return difference < 0n ? -1 : difference > 0n ? 1 : 0
  })
}

export function levelAt(code: string, rule: string | null, numerator: bigint, denominator: bigint): Level {
  // bigint division rounds towards zero: up for negative numbers already.
  const least = numerator > 0n ? (numerator + denominator - 1n) / denominator : numerator / denominator
  return { code, rule, numerator, denominator, least }
}
