/**
 * The small formulas of usage calculators: names, decimal numbers, + − × ÷, parentheses, and min(…) and max(…), over a JSON
 * object, where `disk.used` is a member of a member. Pure, exact except for division (80 digits), bounded in length, depth and
 * result. Not a language: a formula is read once into a tree of these operations; there is no comparison, no loop, no code, and
 * no access to anything but the values.
 */
import { Decimal, parseDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'

const LENGTH_MAX = 1000
const DEPTH_MAX = 32
const ARGUMENTS_MAX = 20
/** Digits before the point, more than any sum of the stream's has: a row of products must not become a number of pages. */
const RESULT_DIGITS_MAX = 38
const TOKEN = /\s*(?:([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)|([0-9]+(?:\.[0-9]+)?)|([-+*/(),]))/y

export interface Formula {
  /** What it reads, in the order of first use; with points the way to a member of a member. */
  readonly names: readonly string[]
  /**
   * `values` are by these names, ways and all. Throws ReleveError `unprocessable` for a name that is not there, what is no decimal,
   * a division by zero, or a result of more than 38 digits before the point.
   */
  run(values: Readonly<Record<string, unknown>>): Decimal
}

type Values = Readonly<Record<string, unknown>>
type Node = (values: Values) => Decimal

/** Throws ReleveError `invalid_request` for what cannot be read. */
export function compileFormula(formula: string): Formula {
  if (formula.length > LENGTH_MAX) throw new ReleveError('invalid_request', `formula: at most ${LENGTH_MAX} characters`)
  const tokens = tokenize(formula)
  const names = new Set<string>()
  let at = 0
  const run = addition(0)
  if (at < tokens.length) throw new ReleveError('invalid_request', `formula: unexpected ${tokens[at]}`)
  return { names: [...names], run: (values) => bounded(run(values)) }

  function addition(depth: number): Node {
    let left = multiplication(depth)
    while (tokens[at] === '+' || tokens[at] === '-') {
      const minus = tokens[at++] === '-'
      const [a, b] = [left, multiplication(depth)]
      left = minus ? (values) => a(values).minus(b(values)) : (values) => a(values).plus(b(values))
    }
    return left
  }

  function multiplication(depth: number): Node {
    let left = factor(depth)
    while (tokens[at] === '*' || tokens[at] === '/') {
      const divide = tokens[at++] === '/'
      const [a, b] = [left, factor(depth)]
      left = divide ? (values) => quotient(a(values), b(values)) : (values) => a(values).times(b(values))
    }
    return left
  }

  function factor(depth: number): Node {
    if (depth > DEPTH_MAX) throw new ReleveError('invalid_request', `formula: nested deeper than ${DEPTH_MAX}`)
    const token = tokens[at++]
    if (token === '-') {
      const inner = factor(depth + 1)
      return (values) => inner(values).negated()
    }
    if (token === '(') {
      const inner = addition(depth + 1)
      closing()
      return inner
    }
    if (token === undefined || /^[-+*/),]$/.test(token))
      throw new ReleveError('invalid_request', 'formula: a value is missing')
    if (/^[0-9]/.test(token)) {
      const number = new Decimal(token)
      return () => number
    }
    if (tokens[at] === '(') return call(token, depth)
    names.add(token)
    return (values) => {
      if (!Object.hasOwn(values, token)) throw new ReleveError('unprocessable', `formula: ${token} is not in the data`)
      return parseDecimal(values[token], token)
    }
  }

  function call(name: string, depth: number): Node {
    if (name !== 'min' && name !== 'max')
      throw new ReleveError('invalid_request', `formula: there is no ${name}(…); there are min and max`)
    const parts: Node[] = []
    do {
      at += 1
      if (parts.length === ARGUMENTS_MAX)
        throw new ReleveError('invalid_request', `formula: at most ${ARGUMENTS_MAX} values in ${name}(…)`)
      parts.push(addition(depth + 1))
    } while (tokens[at] === ',')
    closing()
    return (values) => Decimal[name](...parts.map((part) => part(values)))
  }

  function closing(): void {
    if (tokens[at++] !== ')') throw new ReleveError('invalid_request', 'formula: a closing parenthesis is missing')
  }
}

function bounded(result: Decimal): Decimal {
  if (!result.isFinite() || result.e >= RESULT_DIGITS_MAX)
    throw new ReleveError('unprocessable', `formula: the result has more than ${RESULT_DIGITS_MAX} digits`)
  return result
}

function quotient(a: Decimal, b: Decimal): Decimal {
  if (b.isZero()) throw new ReleveError('unprocessable', 'formula: division by zero')
  return a.dividedBy(b)
}

function tokenize(formula: string): string[] {
  const tokens: string[] = []
  const text = formula.trimEnd()
  TOKEN.lastIndex = 0
  while (TOKEN.lastIndex < text.length) {
    const from = TOKEN.lastIndex
    const match = TOKEN.exec(text)
    if (match === null)
      throw new ReleveError('invalid_request', `formula: cannot read «${text.slice(from, from + 20)}»`)
    tokens.push(match[1] ?? match[2] ?? match[3] ?? '')
  }
  return tokens
}
