/**
 * What the routes answer, read from the types of their handlers and written to answers.json as JSON Schema: the document of the API
 * cannot say anything else than the code does. Comments of the types become descriptions.
 *
 *     npm run answers
 *
 * Fails at what JSON does not hold (bigint, Map, a function's result of any kind). A type that is named in src/ becomes a component.
 */
import { readdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Project, ts } from 'ts-morph'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const METHODS = ['get', 'post', 'put', 'patch', 'delete']
const { TypeFlags, ObjectFlags, SymbolFlags } = ts

/**
 * What a text or a number is, by the name of its member; where a name means different things, by `Owner.member` (a component, or the
 * route of a shape without a name). The types say string and number: what is in them is held against real answers by test/answers-check.ts.
 * A name that no answer has any more fails.
 */
const TEXTS = {
  decimal: `actual after amount balance base before beyond billable billed blocked cardPrice conversionPercent count covered debited
    difference every exact factor flat forecast forfeited free freeAmount freeEvents hard held ht included left limit maximum
    maximumPerEvent minimum minimumPerEvent net now overage overdue packagePrice packs paid pending perEvent percent percentile quantity
    rate remaining RuleTerms.from size soft tax taxRate total ttc tva unitPrice unpriced upTo usage usagePercent value`,
  date: `billedFrom convertedOn dueOn end ends endsOn firstDay from issuedOn lastDay nextRenewal noticeBy on over start until validFrom
    validUntil`,
  'date-time': 'expiresAt receivedAt resentAt time to QuotaLine.from QuotaView.from UsageAnswer.from',
  // Besides a decimal they may be «included».
  '': 'Policy.hard Policy.soft',
}
const INSTANTS = `archivedAt at changedAt createdAt diedAt effectiveFrom end expires expiresAt failingSince from lastEvent madeAt period
  previousUntil raisedAt revokedAt rotatedAt since start to validFrom`
const formats = new Map(
  Object.entries(TEXTS).flatMap(([format, names]) => names.split(/\s+/).map((name) => [`text ${name}`, format])),
)
for (const name of INSTANTS.split(/\s+/)) formats.set(`number ${name}`, 'int64')

/** With its format, and the unit of a number that is a time, where the comment does not say it. */
function formatted(schema, owner, name, used) {
  const types = [schema.type].flat()
  const kind = types.includes('string') ? 'text' : types.includes('integer') ? 'number' : undefined
  if (kind === undefined || schema.enum !== undefined) return schema
  const key = [`${kind} ${owner}.${name}`, `${kind} ${name}`].find((one) => formats.has(one))
  if (key !== undefined) used.add(key)
  const format = key === undefined ? '' : formats.get(key)
  const unit = format === 'int64' ? 'epoch ms' : kind === 'number' && /Ms$/.test(name) ? 'milliseconds' : ''
  const said = schema.description ?? ''
  const isSaid = unit === '' || new RegExp(unit === 'epoch ms' ? 'epoch ms' : '\\bms\\b|milliseconds', 'i').test(said)
  return {
    ...schema,
    ...(format === '' ? {} : { format }),
    ...(isSaid ? {} : { description: said === '' ? unit : `${said.replace(/\.$/, '')}; ${unit}.` }),
  }
}

/** `{routes: {'GET /v1/…': {statuses, schema}}, components: {Name: schema}}`; a schema is null where no JSON is sent. */
export function readAnswers() {
  // The compiler that builds has no interface for programs yet; this one brings one.
  const project = new Project({ tsConfigFilePath: join(root, 'tsconfig.json'), skipAddingFilesFromTsConfig: true })
  project.addSourceFilesAtPaths(join(root, 'src', 'http', 'routes', '*.ts'))
  project.resolveSourceFileDependencies()
  const program = project.getProgram().compilerObject
  const checker = program.getTypeChecker()
  const files = readdirSync(join(root, 'src', 'http', 'routes'))
    .filter((name) => name.endsWith('.ts'))
    .sort()
    .map((name) => join(root, 'src', 'http', 'routes', name))
  const schemas = new Schemas(checker)
  const routes = {}
  for (const file of files) {
    const visit = (node) => {
      const method = routeMethodOf(checker, node)
      if (method !== undefined) {
        const answer = answerOf(checker, node.arguments.at(-1))
        for (const url of urlsOf(checker, node.arguments[0])) {
          const name = `${method} ${url}`
          try {
            routes[name] = { statuses: answer.statuses, schema: schemas.ofAny(answer.types, name) }
          } catch (error) {
            fail(`${name}: ${error.message}`)
          }
        }
      }
      ts.forEachChild(node, visit)
    }
    visit(program.getSourceFile(file))
  }
  const unused = [...formats.keys()].filter((key) => !schemas.used.has(key))
  if (unused.length > 0) fail(`no answer has ${unused.join(', ')} any more`)
  return { routes: sorted(routes), components: sorted(schemas.components) }
}

function fail(why) {
  throw new Error(`cannot read what the routes answer: ${why}`)
}

const sorted = (record) => Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)))

/** `GET` of `app.get(url, options, handler)`. */
function routeMethodOf(checker, node) {
  if (!ts.isCallExpression(node) || !ts.isPropertyAccessExpression(node.expression)) return undefined
  const { expression: on, name } = node.expression
  if (!METHODS.includes(name.text)) return undefined
  return checker.getTypeAtLocation(on).symbol?.name === 'FastifyInstance' ? name.text.toUpperCase() : undefined
}

/** The texts that a url can be: a literal, or a template of constants. */
function urlsOf(checker, node) {
  if (ts.isStringLiteralLike(node)) return [node.text]
  if (ts.isTemplateExpression(node))
    return node.templateSpans.reduce(
      (heads, { expression, literal }) =>
        heads.flatMap((head) => urlsOf(checker, expression).map((part) => head + part + literal.text)),
      [node.head.text],
    )
  const type = checker.getTypeAtLocation(node)
  const parts = type.isUnion() ? type.types : [type]
  if (!parts.every((part) => part.isStringLiteral())) fail(`${node.getText()} is not the text of a url`)
  return parts.map((part) => part.value)
}

/** What a handler resolves to, or hands to `reply.send`, and with which statuses (200 unless it sets others). */
function answerOf(checker, last) {
  // `app.get(url, {schema, handler})`.
  const member =
    ts.isObjectLiteralExpression(last) && last.properties.find((property) => property.name?.getText() === 'handler')
  const handler = member ? (member.initializer ?? member) : last
  const [signature] = checker.getTypeAtLocation(handler).getCallSignatures()
  if (signature === undefined) fail(`${last.getText().slice(0, 60)} is no handler`)
  const returned = checker.getReturnTypeOfSignature(signature)
  const types = [checker.getAwaitedType(returned) ?? returned]
  const statuses = new Set()
  let setsAlways = false
  const visit = (node) => {
    if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) {
      const { expression: on, name } = node.expression
      if (/^reply\b/.test(on.getText()) && name.text === 'send' && node.arguments.length > 0)
        types.push(checker.getTypeAtLocation(node.arguments[0]))
      if (on.getText() === 'reply' && name.text === 'status') {
        const found = []
        const literals = (part) => {
          if (ts.isNumericLiteral(part) && Number(part.text) >= 100) found.push(Number(part.text))
          ts.forEachChild(part, literals)
        }
        literals(node.arguments[0])
        for (const status of found) statuses.add(status)
        // In a branch of its own, or behind an answer, it is one of two.
        setsAlways ||= !isInBranch(node, handler) && !isBehindReturn(node, handler)
      }
    }
    ts.forEachChild(node, visit)
  }
  visit(handler)
  if (!setsAlways) statuses.add(200)
  return { statuses: [...statuses].sort(), types }
}

function isInBranch(node, handler) {
  for (let at = node.parent; at !== handler; at = at.parent) if (ts.isIfStatement(at)) return true
  return false
}

function isBehindReturn(node, handler) {
  let found = false
  const visit = (at) => {
    if (at.pos >= node.parent.pos || (ts.isFunctionLike(at) && at !== handler)) return
    found ||= ts.isReturnStatement(at) && at.end <= node.pos
    ts.forEachChild(at, visit)
  }
  visit(handler)
  return found
}

class Schemas {
  components = {}
  #checker
  /** Component's name by symbol, and the other way round. */
  #names = new Map()
  #symbols = new Map()
  /** Whose members are read just now. */
  #owner = ''
  /** Names of members that have given a format. */
  used = new Set()

  constructor(checker) {
    this.#checker = checker
  }

  /** Null when none of them is JSON. */
  ofAny(types, owner) {
    this.#owner = owner
    const found = types.flatMap((type) => (type.isUnion() ? type.types : [type])).filter((type) => isSent(type))
    return found.length === 0 ? null : this.#union(found)
  }

  #of(type) {
    if (type.flags & (TypeFlags.Any | TypeFlags.Unknown)) return {}
    if (type.isStringLiteral() || type.isNumberLiteral()) return { const: type.value }
    if (type.flags & TypeFlags.BooleanLiteral) return { const: this.#checker.typeToString(type) === 'true' }
    if (type.flags & (TypeFlags.String | TypeFlags.TemplateLiteral)) return { type: 'string' }
    // Whatever could have a fraction is text.
    if (type.flags & TypeFlags.Number) return { type: 'integer' }
    if (type.flags & TypeFlags.Null) return { type: 'null' }
    if (type.isUnion()) {
      const isOfObjects = type.types.some((part) => part.flags & (TypeFlags.Object | TypeFlags.Intersection))
      return isOfObjects && this.#isNamed(type, type.aliasSymbol)
        ? { $ref: `${this.#component(type, type.aliasSymbol)}#` }
        : this.#union(type.types)
    }
    if (type.flags & TypeFlags.NonPrimitive) return { type: 'object' }
    if (type.flags & TypeFlags.TypeParameter) return this.#of(this.#checker.getBaseConstraintOfType(type))
    if (!(type.flags & (TypeFlags.Object | TypeFlags.Intersection)))
      throw new Error(`${this.#checker.typeToString(type)} is not JSON`)
    const toJson = type.getProperty('toJSON')
    if (toJson !== undefined) {
      const [signature] = this.#checker.getTypeOfSymbol(toJson).getCallSignatures()
      return this.#of(this.#checker.getReturnTypeOfSignature(signature))
    }
    if (this.#checker.isTupleType(type)) {
      const parts = this.#checker.getTypeArguments(type)
      // A list of words that happens to be constant.
      if (parts.every((part) => part.isStringLiteral()))
        return { type: 'array', items: { type: 'string', enum: parts.map((part) => part.value).sort() } }
      const items = parts.map((item) => this.#of(item))
      const isOpen = type.target.hasRestElement || type.target.minLength !== items.length
      return isOpen
        ? { type: 'array', items: any(items) }
        : { type: 'array', prefixItems: items, minItems: items.length, maxItems: items.length }
    }
    if (this.#checker.isArrayType(type))
      return { type: 'array', items: this.#of(this.#checker.getTypeArguments(type)[0]) }
    const symbol = type.aliasSymbol ?? type.symbol
    if (/^(Readonly)?(Map|Set)$|^Uint8Array$|^Buffer$/.test(symbol?.name ?? ''))
      throw new Error(`${symbol.name} is not JSON`)
    if (this.#isNamed(type, symbol)) return { $ref: `${this.#component(type, symbol)}#` }
    return this.#object(type)
  }

  #isNamed(type, symbol) {
    if (symbol === undefined || !/^[A-Z]/.test(symbol.name)) return false
    if ((type.aliasTypeArguments ?? []).length > 0) return false
    if (type.aliasSymbol === undefined && (type.flags & TypeFlags.Intersection) !== 0) return false
    if (type.objectFlags & ObjectFlags.Reference && this.#checker.getTypeArguments(type).length > 0) return false
    return symbol.declarations?.some((one) => one.getSourceFile().fileName.startsWith(join(root, 'src'))) ?? false
  }

  #component(type, symbol) {
    const known = this.#names.get(symbol)
    if (known !== undefined) return known
    let name = symbol.name
    if (this.#symbols.has(name)) {
      const file = basename(symbol.declarations[0].getSourceFile().fileName, '.ts')
      name = file.replaceAll(/(^|-)([a-z])/g, (_, __, letter) => letter.toUpperCase()) + name
      if (this.#symbols.has(name)) throw new Error(`two types are named ${name}`)
    }
    this.#names.set(symbol, name)
    this.#symbols.set(name, symbol)
    this.components[name] = {}
    const description = this.#comment(symbol)
    const around = this.#owner
    this.#owner = name
    const schema = type.isUnion() ? this.#union(type.types) : this.#object(type)
    this.#owner = around
    this.components[name] = { ...(description === '' ? {} : { description }), ...schema }
    return name
  }

  #object(type) {
    const properties = {}
    const required = []
    for (const symbol of type.getProperties()) {
      const held = this.#checker.getTypeOfSymbol(symbol)
      if (symbol.name.startsWith('__') || held.getCallSignatures().length > 0) continue
      const parts = held.isUnion() ? held.types : [held]
      const sent = parts.filter((part) => !(part.flags & (TypeFlags.Undefined | TypeFlags.Never)))
      if (sent.length === 0) continue
      if (sent.length === parts.length && !(symbol.flags & SymbolFlags.Optional)) required.push(symbol.name)
      const description = this.#comment(symbol)
      const schema = sent.length === 1 ? this.#of(sent[0]) : this.#union(sent)
      const described = { ...schema, ...(description === '' ? {} : { description }) }
      properties[symbol.name] = formatted(described, this.#owner, symbol.name, this.used)
    }
    const index = this.#checker.getIndexInfoOfType(type, ts.IndexKind.String)
    return {
      type: 'object',
      ...(Object.keys(properties).length === 0 ? {} : { properties }),
      ...(required.length === 0 ? {} : { required }),
      ...(index === undefined ? {} : { additionalProperties: this.#of(index.type) }),
    }
  }

  #union(types) {
    const literals = types.filter((type) => type.isStringLiteral()).map((type) => type.value)
    const booleans = types.filter((type) => type.flags & TypeFlags.BooleanLiteral)
    const isBoolean = booleans.length === 2
    const others = types.filter((type) => !type.isStringLiteral() && !(isBoolean && booleans.includes(type)))
    const branches = [
      ...(literals.length === 0
        ? []
        : [literals.length === 1 ? { const: literals[0] } : { type: 'string', enum: literals.sort() }]),
      ...(isBoolean ? [{ type: 'boolean' }] : []),
      ...others.map((type) => this.#of(type)),
    ]
    return any(branches)
  }

  /** The first sentence or two, as one line. */
  #comment(symbol) {
    const text = ts.displayPartsToString(symbol.getDocumentationComment(this.#checker))
    return text.replaceAll(/\s+/g, ' ').trim()
  }
}

/** What a handler gives back that becomes a body of JSON. */
function isSent(type) {
  if (type.flags & (TypeFlags.Void | TypeFlags.Undefined | TypeFlags.Never | TypeFlags.String)) return false
  return !/^(FastifyReply|Readable|Buffer|AsyncGenerator|ReadableStream)$/.test(type.symbol?.name ?? '')
}

/** One of them; what is a plain type or null is said in one. */
function any(branches) {
  const unique = [...new Map(branches.map((one) => [JSON.stringify(one), one])).values()]
  if (unique.length === 1) return unique[0]
  const isPlain = ({ type, ...rest }) => typeof type === 'string' && Object.keys(rest).length === 0
  const isList = ({ type, items }) => type === 'array' && items?.enum !== undefined
  if (unique.every(isList)) {
    const words = [...new Set(unique.flatMap(({ items }) => items.enum))].sort()
    return { type: 'array', items: { type: 'string', enum: words } }
  }
  if (unique.every(isPlain)) return { type: unique.map(({ type }) => type).sort() }
  return { anyOf: unique.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)) }
}

export const answersFile = join(root, 'src', 'http', 'answers.json')
export const answersText = () => `${JSON.stringify(readAnswers(), null, 1)}\n`

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(answersFile, answersText())
