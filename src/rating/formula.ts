/**
 * The small formulas of usage calculators: names, decimal numbers, + − × ÷ and parentheses over a flat JSON object. Pure, exact
 * except for division (80 digits), bounded in length and depth. Not a language: no calls, no comparison, no access to anything.
 */
import { Decimal, parseDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'

const LENGTH_MAX = 1000
const DEPTH_MAX = 32
const TOKEN = /\s*(?:([A-Za-z_][A-Za-z0-9_]*)|([0-9]+(?:\.[0-9]+)?)|([-+*/()]))/y

/** Throws ReleveError `invalid_request` for what cannot be read and `unprocessable` for an unknown name or a division by zero. */
export function calculate(formula: string, values: Readonly<Record<string, unknown>>): Decimal {
  if (formula.length > LENGTH_MAX) throw new ReleveError('invalid_request', `formula: at most ${LENGTH_MAX} characters`)
  const tokens = tokenize(formula)
  let at = 0
  const result = addition(0)
  if (at < tokens.length) throw new ReleveError('invalid_request', `formula: unexpected ${tokens[at]}`)
  return result

  function addition(depth: number): Decimal {
    let left = multiplication(depth)
    while (tokens[at] === '+' || tokens[at] === '-') {
      const minus = tokens[at++] === '-'
      const right = multiplication(depth)
      left = minus ? left.minus(right) : left.plus(right)
    }
    return left
  }

  function multiplication(depth: number): Decimal {
    let left = factor(depth)
    while (tokens[at] === '*' || tokens[at] === '/') {
      const divide = tokens[at++] === '/'
      const right = factor(depth)
      if (divide && right.isZero()) throw new ReleveError('unprocessable', 'formula: division by zero')
      left = divide ? left.dividedBy(right) : left.times(right)
    }
    return left
  }

  function factor(depth: number): Decimal {
    if (depth > DEPTH_MAX) throw new ReleveError('invalid_request', `formula: nested deeper than ${DEPTH_MAX}`)
    const token = tokens[at++]
    if (token === '-') return factor(depth + 1).negated()
    if (token === '(') {
      const inner = addition(depth + 1)
      if (tokens[at++] !== ')') throw new ReleveError('invalid_request', 'formula: a closing parenthesis is missing')
      return inner
    }
    if (token === undefined || /^[-+*/)]$/.test(token))
      throw new ReleveError('invalid_request', 'formula: a value is missing')
    if (/^[0-9]/.test(token)) return new Decimal(token)
    if (!Object.hasOwn(values, token)) throw new ReleveError('unprocessable', `formula: ${token} is not in the data`)
    return parseDecimal(values[token], token)
  }
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
