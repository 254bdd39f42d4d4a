/**
 * A part of a tenant's metric: what one contract item takes of it, as a condition of a question. Each question that has a subject
 * and a time can be asked of a part, whatever it makes of the events: an extreme of a part needs no sum to be right.
 */

export interface Only {
  /** Null: all that the others leave. */
  readonly subjects: readonly string[] | null
  /** Who takes before it, and when: epoch ms, on whole minutes. Null: everything of these times. */
  readonly others: readonly {
    readonly from: number
    readonly to: number
    readonly subjects: readonly string[] | null
  }[]
}

/** `between` makes the condition of a column of times for the parameters with these names (epoch ms). */
export function onlyCondition(only: Only | undefined, between: (from: string, to: string) => string): string {
  if (only === undefined) return ''
  const own = only.subjects === null ? [] : ['subject IN {onlySubjects:Array(String)}']
  const others = only.others.map(({ subjects }, i) => {
    const theirs = subjects === null ? '' : ` AND subject IN {otherSubjects${i}:Array(String)}`
    return `NOT (${between(`otherFrom${i}`, `otherTo${i}`)}${theirs})`
  })
  return [...own, ...others].map((condition) => ` AND ${condition}`).join('')
}

export function onlyParams(only: Only | undefined): Record<string, number | readonly string[]> {
  if (only === undefined) return {}
  return {
    ...(only.subjects === null ? {} : { onlySubjects: only.subjects }),
    ...Object.fromEntries(
      only.others.flatMap(({ from, to, subjects }, i) => [
        [`otherFrom${i}`, from],
        [`otherTo${i}`, to],
        ...(subjects === null ? [] : [[`otherSubjects${i}`, subjects]]),
      ]),
    ),
  }
}

/** Of rollup rows, whose windows are whole minutes. */
export const windowsBetween =
  (column: string) =>
  (from: string, to: string): string =>
    `${column} >= fromUnixTimestamp64Milli({${from}:Int64}) AND ${column} < fromUnixTimestamp64Milli({${to}:Int64})`

/** Whether a question of whole hours can tell the part from the rest. */
export function onHours(only: Only | undefined, hourMs: number): boolean {
  return (only?.others ?? []).every(({ from, to }) => from % hourMs === 0 && to % hourMs === 0)
}
