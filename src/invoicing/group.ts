/**
 * Many lines of one kind (a fleet of devices) become few on the printed page; the detail stays complete beside it. Pure. The
 * document keeps all its lines: grouping is only for paper and screens.
 */
import { printMoney } from '../currency.js'
import { Decimal, sum } from '../decimal.js'
import { limits } from '../limits.js'

export interface GroupedLine {
  readonly key: string
  readonly lines: number
  readonly amount: string
}

/**
 * At most `max` lines: one per key; when there are more keys than that, the last one holds the rest under the key «…». The detail
 * is the lines themselves. The amounts of the groups sum to those of the lines.
 */
export function groupLines<T extends { readonly amount: string }>(
  lines: readonly T[],
  keyOf: (line: T) => string,
  currency: string,
  max: number = limits.printedLinesMax,
): { readonly groups: readonly GroupedLine[]; readonly detail: readonly T[] } {
  const groups = new Map<string, T[]>()
  for (const line of lines) {
    const key = keyOf(line)
    const own = groups.get(key) ?? groups.get(groups.size >= max - 1 && !groups.has(key) ? '…' : key)
    if (own !== undefined) own.push(line)
    else groups.set(groups.size >= max - 1 ? '…' : key, [line])
  }
  return {
    groups: [...groups].map(([key, own]) => ({
      key,
      lines: own.length,
      amount: printMoney(sum(own.map((line) => new Decimal(line.amount))), currency),
    })),
    detail: lines,
  }
}
