/**
 * Usage data calculators: how a contract item turns the usage data of a period (usage-data/) into a quantity of one of its metrics
 * or into an amount. A calculator reads simple values or JSON records, never both. Data as a person writes them, and the checks.
 *
 * Over values the formula knows sum, count, min, max, average, first and last, and is run once; over JSON it knows the members of
 * a record (`disk.used`: a member of a member), is run for each record that has all of them as decimals, and the results are added up.
 */
import { ReleveError } from '../errors.js'
import { compileFormula } from '../rating/formula.js'

export interface Calculator {
  /** Its own within the item; the label of the line when it gives an amount. */
  readonly name: string
  readonly reads: 'values' | 'json'
  /** Only data with this unit: Go is not Mo. Absent: any. */
  readonly qualifier?: string
  readonly formula: string
  /** The metric of the item that the quantity is of; null: the result is an amount in the customer's currency. */
  readonly metric: string | null
}

/** Of a list of values. */
export const ValueNames = ['sum', 'count', 'min', 'max', 'average', 'first', 'last'] as const

const CALCULATORS_MAX = 20

/** Throws ReleveError `invalid_request` naming the field. */
export function parseCalculators(json: unknown, at: string): Calculator[] {
  const wrong = (field: string, why: string): never => {
    throw new ReleveError('invalid_request', `${at}${field}: ${why}`)
  }
  if (!Array.isArray(json) || json.length > CALCULATORS_MAX) return wrong('', `a list of at most ${CALCULATORS_MAX}`)
  const names = new Set<string>()
  return json.map((entry: unknown, i): Calculator => {
    if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) return wrong(`[${i}]`, 'an object')
    const { name, reads, qualifier, formula, metric, ...others } = entry as Record<string, unknown>
    for (const member of Object.keys(others)) wrong(`[${i}]`, `unknown member ${member.slice(0, 80)}`)
    const text = (value: unknown, field: string): string =>
      typeof value === 'string' && value.trim() !== '' && value.length <= 256 && !/\p{Cc}/u.test(value)
        ? value
        : wrong(`[${i}].${field}`, 'a text of 1 to 256 characters is expected')
    if (reads !== 'values' && reads !== 'json') return wrong(`[${i}].reads`, 'values or json')
    const own = text(name, 'name')
    if (names.has(own)) wrong(`[${i}].name`, `${own} is there twice`)
    names.add(own)
    if (typeof (formula ?? '') !== 'string') return wrong(`[${i}].formula`, 'a text is expected')
    const written =
      (formula as string | undefined) ?? (reads === 'values' ? 'sum' : wrong(`[${i}].formula`, 'is needed'))
    const compiled = compileFormula(written)
    if (reads === 'json' && compiled.names.length === 0) wrong(`[${i}].formula`, 'names no member of the data')
    const unknown = compiled.names.find((one) => !(ValueNames as readonly string[]).includes(one))
    if (reads === 'values' && unknown !== undefined)
      wrong(`[${i}].formula`, `${unknown} is none of ${ValueNames.join(', ')}`)
    return {
      name: own,
      reads,
      ...(qualifier === undefined || qualifier === null ? {} : { qualifier: text(qualifier, 'qualifier') }),
      formula: written,
      metric: metric === undefined || metric === null ? null : text(metric, 'metric'),
    }
  })
}
