/**
 * What the usage data of a contract's period come to: claimed by a closing in its own transaction, and counted anew from the rows
 * for a preview or a verification, with the same questions and other conditions.
 *
 * A datum is taken when a calculator of the contract reads it: of its item (or of any, when it names none), of its kind, its unit,
 * and, for JSON, with all the members of the formula as decimals. What nobody reads stays pending. The period of a datum is the
 * one that holds its start; what comes after that period was closed is claimed by the next closing for the earlier period, where
 * it becomes a regularisation.
 *
 * The digest is a sum over the rows, in four lanes of 64 bits of SHA-256: the same rows give the same one in any order.
 */
import type { ClientBase, Pool } from 'pg'
import type { Terms } from '../catalog/book.js'
import type { Calculator } from '../catalog/calculator.js'
import { Decimal, printDecimal, round } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { DataEntry, DataUsage, ItemUsage } from '../invoicing/draft.js'
import type { DataProof, Notice } from '../invoicing/invoice.js'
import { limits } from '../limits.js'
import type { Period } from '../period.js'
import { compileFormula, type Formula } from '../rating/formula.js'

type Queryable = Pick<ClientBase | Pool, 'query'>

/** Which rows count: those that wait, those that closings of the contract up to this one have collected, or both. */
export type Which = 'pending' | { readonly upTo: number } | 'all'

export interface Part {
  readonly terms: Terms
  readonly period: Period
  readonly usage: readonly ItemUsage[]
}

interface Rule {
  readonly item: string
  readonly calculator: Calculator
  readonly names: readonly string[]
  /** Its data are those of the objects of a fleet. */
  readonly fleet: boolean
}

function rulesOf({ items, contract }: Terms): Rule[] {
  return items.flatMap(({ item }) => {
    const own = contract.items.find((one) => one.id === item)
    return (own?.calculators ?? []).map((calculator) => ({
      item,
      calculator,
      names: compileFormula(calculator.formula).names,
      fleet: own?.fleet !== undefined,
    }))
  })
}

/** Rows of an unfinished import are not there yet. */
const WAITING = `state = 'pending' AND NOT do_not_invoice
  AND (import IS NULL OR EXISTS (SELECT 1 FROM usage_imports i WHERE i.id = import AND i.state = 'done'))`

class Conditions {
  readonly values: unknown[] = []

  add(value: unknown): string {
    this.values.push(value)
    return `$${this.values.length}`
  }

  /** `until`: only what starts before it. */
  rows(contract: string, period: Period, which: Which, until?: number): string {
    const before = until === undefined ? '' : ` AND starts_at < ${this.add(until)}`
    const own = `contract = ${this.add(contract)}${before}`
    const waiting = (): string =>
      `starts_at >= ${this.add(period.from)} AND starts_at < ${this.add(period.to)} AND ${WAITING}`
    const collected = (): string => `state = 'collected' AND period_from = ${this.add(period.from)}`
    if (which === 'pending') return `${own} AND ${waiting()}`
    if (which === 'all') return `${own} AND ((${waiting()}) OR (${collected()}))`
    return `${own} AND ${collected()} AND collected_order <= ${this.add(which.upTo)}`
  }

  rule({ item, calculator, names, fleet }: Rule): string {
    const own = [
      fleet
        ? `item IN (SELECT o.id FROM object_items o WHERE o.contract = usage_data.contract AND o.parent = ${this.add(item)})`
        : `(item IS NULL OR item = ${this.add(item)})`,
    ]
    if (calculator.qualifier !== undefined) own.push(`qualifier = ${this.add(calculator.qualifier)}`)
    own.push(calculator.reads === 'values' ? 'value IS NOT NULL' : 'data IS NOT NULL')
    if (calculator.reads === 'json') {
      for (const name of names) {
        const member = `(data #>> string_to_array(${this.add(name)}, '.'))`
        own.push(`coalesce(length(${member}) <= 64 AND ${member} ~ '^-?(0|[1-9][0-9]*)([.][0-9]+)?$', false)`)
      }
    }
    return `(${own.join(' AND ')})`
  }
}

/** From the commit of the client's transaction on, the data of a period that are read belong to a closing. */
export async function claim(
  client: ClientBase,
  request: {
    readonly closing: string
    readonly order: number
    readonly terms: Terms
    readonly period: Period
    readonly now: number
  },
): Promise<Notice[]> {
  const { terms, period } = request
  const rules = rulesOf(terms)
  if (rules.length > 0) {
    const where = new Conditions()
    const rows = where.rows(terms.contract.id, period, 'pending')
    const taken = rules.map((rule) => where.rule(rule)).join(' OR ')
    await client.query(
      `UPDATE usage_data SET state = 'collected', closing = ${where.add(request.closing)}, period_from = ${where.add(period.from)},
         collected_order = ${where.add(request.order)}, changed_at = ${where.add(request.now)}
       WHERE ${rows} AND (${taken})`,
      where.values,
    )
  }
  const left = await unread(client, terms.contract.id, period)
  return left > 0 ? [unreadNotice(terms, left)] : []
}

/** The usage of a part with what the rows say now. */
export async function withData(store: Queryable, part: Part, which: Which): Promise<readonly ItemUsage[]> {
  const found: { readonly rule: Rule; readonly data: DataUsage }[] = []
  for (const rule of rulesOf(part.terms)) {
    if (rule.fleet) continue
    const data = await reckon(store, part, rule, which)
    if (data !== null) found.push({ rule, data })
  }
  const usage: ItemUsage[] = []
  for (const one of part.usage) {
    const own = found.filter(({ rule }) => rule.item === one.item && rule.calculator.metric === one.metric)
    if (own.length === 0) {
      usage.push(one)
      continue
    }
    const data = own.map((entry) => entry.data).reduce(together)
    // Where a price changes within the period, a datum costs what it does at its start.
    const parts: NonNullable<ItemUsage['parts']>[number][] = []
    let before = new Decimal(0)
    for (const { period, quantity } of one.parts ?? []) {
      let until = new Decimal(0)
      for (const { rule } of own)
        until = until.plus((await reckon(store, part, rule, which, period.to))?.quantity ?? '0')
      parts.push({ period, quantity: printDecimal(new Decimal(quantity).plus(until).minus(before)) })
      before = until
    }
    const cut = one.parts === undefined ? {} : { parts }
    usage.push({ ...one, ...cut, quantity: printDecimal(new Decimal(one.quantity).plus(data.quantity)), data })
  }
  const charges = found
    .filter(({ rule }) => rule.calculator.metric === null)
    .map(
      ({ rule, data }): ItemUsage => ({
        item: rule.item,
        metric: rule.calculator.name,
        quantity: data.quantity,
        charge: true,
        cut: {},
        query: '',
        count: 0,
        digest: '0'.repeat(64),
        data,
      }),
    )
  return [...usage, ...charges]
}

/** What the data of a fleet's objects come to, by object and metric, and their proof by metric; of all, or of what starts before `until`. */
export async function dataByObject(
  store: Queryable,
  part: Part,
  item: string,
  which: Which,
  until?: number,
): Promise<{
  readonly objects: ReadonlyMap<string, ReadonlyMap<string, string>>
  readonly proofs: ReadonlyMap<string, DataProof>
}> {
  const objects = new Map<string, Map<string, string>>()
  const proofs = new Map<string, DataProof>()
  for (const rule of rulesOf(part.terms)) {
    const { metric, name } = rule.calculator
    if (rule.item !== item || metric === null) continue
    const where = new Conditions()
    const condition = `${where.rows(part.terms.contract.id, part.period, which, until)} AND ${where.rule(rule)}`
    let total = new Decimal(0)
    const add = (object: string, quantity: Decimal): void => {
      const own = objects.get(object) ?? new Map<string, string>()
      own.set(metric, printDecimal(round(new Decimal(own.get(metric) ?? 0).plus(quantity), 9)))
      objects.set(object, own)
      total = total.plus(quantity)
    }
    const { count, digest } = await figuresOf(store, condition, where.values)
    if (count === 0) continue
    if (rule.calculator.reads === 'values') await valuesByObject(store, rule, condition, where.values, add)
    else await eachRecord(store, rule, condition, where.values, count, add)
    const proof = { calculators: [name], quantity: printDecimal(round(total, 9)), count, digest }
    const old = proofs.get(metric)
    proofs.set(
      metric,
      old === undefined ? proof : withoutEntries(together({ ...old, entries: [] }, { ...proof, entries: [] })),
    )
  }
  return { objects, proofs }
}

const withoutEntries = ({ entries: _, ...proof }: DataUsage): DataProof => proof

async function valuesByObject(
  store: Queryable,
  { calculator, names }: Rule,
  condition: string,
  params: readonly unknown[],
  add: (object: string, quantity: Decimal) => void,
): Promise<void> {
  const formula = compileFormula(calculator.formula)
  const pick = (name: string, order: string): string =>
    names.includes(name) ? `, (array_agg(value::text ORDER BY starts_at ${order}, serial ${order}))[1] AS ${name}` : ''
  let after = ''
  for (;;) {
    const { rows } = await store.query<Record<string, string>>(
      `SELECT item, count(*)::text AS count, sum(value)::text AS sum, min(value)::text AS min, max(value)::text AS max
         ${pick('first', 'ASC')}${pick('last', 'DESC')}
       FROM usage_data WHERE ${condition} AND item > $${params.length + 1} GROUP BY item ORDER BY item LIMIT ${limits.pageMax}`,
      [...params, after],
    )
    for (const { item, ...found } of rows) {
      const values = Object.fromEntries(Object.entries(found).map(([name, value]) => [name, plain(value)]))
      const average = printDecimal(round(new Decimal(values.sum!).div(values.count!), 9))
      add(item!, runFor(item!, calculator, formula, { ...values, average }))
    }
    if (rows.length < limits.pageMax) return
    after = rows.at(-1)!.item!
  }
}

/** Pending data of a period that no calculator reads. */
async function unread(client: ClientBase, contract: string, period: Period): Promise<number> {
  const where = new Conditions()
  const { rows } = await client.query<{ n: string }>(
    `SELECT count(*) AS n FROM usage_data WHERE ${where.rows(contract, period, 'pending')}`,
    where.values,
  )
  return Number(rows[0]!.n)
}

/** What a closing would find unread, before it has claimed anything: pending, and of no calculator. */
export async function unreadNow(store: Queryable, terms: Terms, period: Period): Promise<Notice[]> {
  const where = new Conditions()
  const rows = where.rows(terms.contract.id, period, 'pending')
  const taken = rulesOf(terms).map((rule) => where.rule(rule))
  const { rows: found } = await store.query<{ n: string }>(
    `SELECT count(*) AS n FROM usage_data WHERE ${rows} AND NOT (${taken.length === 0 ? 'false' : taken.join(' OR ')})`,
    [...where.values],
  )
  const count = Number(found[0]!.n)
  return count > 0 ? [unreadNotice(terms, count)] : []
}

function unreadNotice({ contract }: Terms, count: number): Notice {
  return {
    code: 'usage_data_unread',
    item: contract.items[0]?.id ?? contract.id,
    metric: null,
    quantity: String(count),
    text: {
      fr: `${count} donnée(s) d’usage en attente qu’aucun calculateur ne lit, non facturée(s)`,
      en: `${count} pending usage data that no calculator reads, not billed`,
    },
  }
}

/** What calculators of an item have read in a period: the condition of their rows, and count and digest of each. */
export async function readBy(
  store: Queryable,
  request: {
    readonly terms: Terms
    readonly period: Period
    readonly item: string
    readonly calculators: readonly string[]
    readonly which: Which
  },
): Promise<{
  readonly condition: string
  readonly values: readonly unknown[]
  readonly calculators: readonly (Calculator & { readonly count: number; readonly digest: string })[]
}> {
  const { terms, period, which } = request
  const rules = rulesOf(terms).filter(
    (rule) => rule.item === request.item && request.calculators.includes(rule.calculator.name),
  )
  const calculators: (Calculator & { readonly count: number; readonly digest: string })[] = []
  for (const rule of rules) {
    const own = new Conditions()
    const condition = `${own.rows(terms.contract.id, period, which)} AND ${own.rule(rule)}`
    const { count, digest } = await figuresOf(store, condition, own.values)
    calculators.push({ ...rule.calculator, count, digest })
  }
  const where = new Conditions()
  const rows = where.rows(terms.contract.id, period, which)
  const any = rules.map((rule) => where.rule(rule)).join(' OR ')
  return { condition: `${rows} AND (${any === '' ? 'false' : any})`, values: where.values, calculators }
}

const LANES = [1, 17, 33, 49]
const ROW_HASH = `encode(sha256(convert_to(concat_ws(chr(31), id, contract, coalesce(item, ''), coalesce(external_reference, ''),
  starts_at, coalesce(ends_at::text, ''), coalesce(value::text, ''), coalesce(data::text, ''), coalesce(qualifier, '')), 'UTF8')), 'hex')`

async function figuresOf(
  store: Queryable,
  condition: string,
  params: readonly unknown[],
): Promise<{ count: number; sum: string; min: string; max: string; digest: string }> {
  const { rows } = await store.query<{
    count: string
    sum: string
    min: string
    max: string
    lanes: (string | null)[]
  }>(
    `SELECT count(*) AS count, sum(value)::text AS sum, min(value)::text AS min, max(value)::text AS max,
       ARRAY[${LANES.map((at) => `sum(('x' || substr(hash, ${at}, 16))::bit(64)::bigint::numeric)::text`).join(', ')}] AS lanes
     FROM (SELECT value, ${ROW_HASH} AS hash FROM usage_data WHERE ${condition}) AS own`,
    [...params],
  )
  const { lanes, count, ...found } = rows[0]!
  return { ...found, count: Number(count), digest: lanes.map((lane) => hexLane(BigInt(lane ?? 0))).join('') }
}

async function reckon(
  store: Queryable,
  part: Part,
  rule: Rule,
  which: Which,
  until?: number,
): Promise<DataUsage | null> {
  const { calculator } = rule
  const where = new Conditions()
  const condition = `${where.rows(part.terms.contract.id, part.period, which, until)} AND ${where.rule(rule)}`
  const found = await figuresOf(store, condition, where.values)
  if (found.count === 0) return null
  let quantity = new Decimal(0)
  if (calculator.reads === 'values') quantity = await ofValues(store, rule, condition, where.values, found)
  else
    await eachRecord(store, rule, condition, where.values, found.count, (_, result) => {
      quantity = quantity.plus(result)
    })
  return {
    calculators: [calculator.name],
    // A quantity is never finer than what the stream can hold; an amount is rounded as money later.
    quantity: printDecimal(round(quantity, 9)),
    count: found.count,
    digest: found.digest,
    entries: await entriesOf(store, condition, where.values),
  }
}

const hexLane = (lane: bigint): string => BigInt.asUintN(64, lane).toString(16).padStart(16, '0')

async function ofValues(
  store: Queryable,
  { item, calculator, names }: Rule,
  condition: string,
  params: readonly unknown[],
  found: Readonly<Record<string, unknown>>,
): Promise<Decimal> {
  const values: Record<string, unknown> = {
    ...Object.fromEntries(['sum', 'count', 'min', 'max'].map((name) => [name, plain(String(found[name]))])),
    average: printDecimal(round(new Decimal(String(found.sum)).div(String(found.count)), 9)),
  }
  for (const [name, order] of [
    ['first', 'ASC'],
    ['last', 'DESC'],
  ] as const) {
    if (!names.includes(name)) continue
    const { rows } = await store.query<{ value: string }>(
      `SELECT value::text AS value FROM usage_data WHERE ${condition} ORDER BY starts_at ${order}, serial ${order} LIMIT 1`,
      [...params],
    )
    values[name] = plain(rows[0]!.value)
  }
  return runFor(item, calculator, compileFormula(calculator.formula), values)
}

/** Whose data and which calculator, when the formula cannot be computed: a division by zero is found by a person. */
function runFor(
  whose: string,
  { name }: Pick<Calculator, 'name'>,
  formula: Formula,
  values: Readonly<Record<string, unknown>>,
): Decimal {
  try {
    return formula.run(values)
  } catch (error) {
    throw new ReleveError('unprocessable', `usage data: ${whose}: ${name}: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

/** Without the zeros that a sum of decimals of many lengths leaves. */
const plain = (text: string): string => printDecimal(new Decimal(text))

async function eachRecord(
  store: Queryable,
  { calculator, names }: Rule,
  condition: string,
  params: readonly unknown[],
  count: number,
  add: (item: string, result: Decimal) => void,
): Promise<void> {
  if (count > limits.usageDataJsonPerPeriodMax)
    throw new ReleveError(
      'unprocessable',
      `usage data: ${count} JSON records for ${calculator.name}; at most ${limits.usageDataJsonPerPeriodMax} in a period`,
    )
  const formula = compileFormula(calculator.formula)
  let after = '0'
  for (;;) {
    // The members as text: a JSON number of the store is exact, a JavaScript number is not.
    const n = params.length
    const { rows } = await store.query<{ serial: string; id: string; item: string | null; members: string[] }>(
      `SELECT serial, id, item, ARRAY(SELECT data #>> string_to_array(name, '.') FROM unnest($${n + 1}::text[]) WITH ORDINALITY AS n (name, place) ORDER BY place) AS members
       FROM usage_data WHERE ${condition} AND serial > $${n + 2} ORDER BY serial LIMIT ${limits.pageMax}`,
      [...params, names, after],
    )
    for (const row of rows) {
      const values = Object.fromEntries(names.map((name, i) => [name, row.members[i]]))
      add(row.item ?? '', runFor(row.id, calculator, formula, values))
    }
    if (rows.length < limits.pageMax) return
    after = rows.at(-1)!.serial
  }
}

/** The first of them, for the statement, those that were collected last before all others; all are behind the line. */
async function entriesOf(store: Queryable, condition: string, params: readonly unknown[]): Promise<DataEntry[]> {
  const { rows } = await store.query<{
    id: string
    item: string | null
    reference: string | null
    starts_at: string
    ends_at: string | null
    value: string | null
    data: string | null
    qualifier: string | null
    description: string | null
    notes: string | null
    collected_order: number | null
  }>(
    `SELECT id, item, external_reference AS reference, starts_at, ends_at, value::text AS value, left(data::text, 200) AS data, qualifier,
       description, notes, collected_order
     FROM usage_data WHERE ${condition} ORDER BY collected_order DESC, starts_at, serial LIMIT ${limits.statementDataMax}`,
    [...params],
  )
  return rows.map((row) => ({
    id: row.id,
    reference: row.reference,
    start: Number(row.starts_at),
    end: row.ends_at === null ? null : Number(row.ends_at),
    value: row.value,
    data: row.data,
    qualifier: row.qualifier,
    description: row.description,
    notes: row.notes,
    ...(row.collected_order === null ? {} : { order: row.collected_order }),
  }))
}

/** What several calculators of one metric come to. */
function together(a: DataUsage, b: DataUsage): DataUsage {
  const lane = (text: string, at: number): bigint => BigInt(`0x${text.slice(at, at + 16)}`)
  return {
    calculators: [...a.calculators, ...b.calculators],
    quantity: printDecimal(new Decimal(a.quantity).plus(b.quantity)),
    count: a.count + b.count,
    digest: [0, 16, 32, 48].map((at) => hexLane(lane(a.digest, at) + lane(b.digest, at))).join(''),
    entries: [...a.entries, ...b.entries].slice(0, limits.statementDataMax),
  }
}
