/**
 * Whether an invoice is what its events say. The road is gone again from the archive: each usage is counted anew at the cut that
 * stands on the line, with a question of the archive's own; the price comes from the price book by the rule and version that the
 * line pins; the lines, taxes and totals are drafted from these, and every figure is held against the document. Nothing is read
 * from rollups, and no stored figure enters the calculation.
 *
 * The ledger of prepaid packs is compared too: what the closing wrote, and what packs held before it.
 *
 * What the terms were (plan, quotas, customer) is what the closing kept when it measured. Words are not compared: the hash of the
 * document covers them. Changes nothing.
 */
import type { Pool } from 'pg'
import { canonical } from '../canonical.js'
import type { Ahead, Book, Terms } from '../catalog/book.js'
import { Decimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import type { Period } from '../period.js'
import { measuredFor } from './close.js'
import { draftCreditNote, NOT_CREDITED } from './credit.js'
import { draftCorrection, draftInvoice, type ItemUsage, type LatePart } from './draft.js'
import type { Funding, LedgerStep, Refunding } from './funding.js'
import { customerNotices, type DataEntry, hashOf, type Invoice, type InvoiceLine } from './invoice.js'
import type { Invoicing, KeptInvoice } from './invoicing.js'
import { fundedSteps, refundedSteps } from './pack-ledger.js'
import { opposite } from './state.js'

/** Counts the archived events of a metric up to a cut; null when the metric has no archive. */
export type Recount = (request: {
  readonly tenant: string
  readonly metric: string
  readonly period: Period
  readonly cut: Readonly<Record<string, number>>
}) => Promise<Pick<ItemUsage, 'quantity' | 'count' | 'digest' | 'amounts'> | null>

export interface Difference {
  /** The figure, such as `amount` or `proof.digest`. */
  readonly what: string
  readonly stored: string | null
  /** What the archive and the price book say. */
  readonly found: string | null
}

export interface LineVerification {
  readonly no: number
  readonly type: InvoiceLine['type']
  readonly metric: string | null
  readonly amount: string
  /** Archived events counted anew. */
  readonly events: number | null
  readonly equal: boolean
  readonly differences: readonly Difference[]
}

export interface Verification {
  readonly id: string
  readonly number: string | null
  readonly equal: boolean
  readonly lines: readonly LineVerification[]
  /** Of the document as a whole: hash, totals, taxes, the statement of usage. */
  readonly document: readonly Difference[]
  /** Metrics without an archive: nothing can be said of their quantities. */
  readonly unchecked: readonly string[]
}

/** Adds what the rows of the usage data say that closings up to `order` have collected. */
export type RecountData = (
  part: { readonly terms: Terms; readonly period: Period; readonly usage: readonly ItemUsage[] },
  order: number,
) => Promise<readonly ItemUsage[]>

/** What an item has of a part of a period, from the archive, shared as it was; null without an archive. */
export type RecountPart = (one: ItemUsage, tenant: string, part: Period) => Promise<string | null>

export interface VerifyOptions {
  readonly recountPart: RecountPart
  readonly postgres: Pool
  readonly invoicing: Invoicing
  readonly book: Book
  readonly recount: Recount
  readonly recountData: RecountData
}

/** Throws ReleveError `not_found`, and `conflict` for a discarded draft, whose measure is gone. */
export async function verifyInvoice(
  options: VerifyOptions,
  idOrNumber: string,
  tenant: string | null = null,
): Promise<Verification> {
  const kept = await options.invoicing.get(idOrNumber, tenant)
  const { invoice } = kept
  const document = await compareRow(options.postgres, kept)
  const unchecked = new Set<string>()
  const again =
    invoice.kind === 'credit_note' && invoice.lines.every((line) => line.type === 'credit')
      ? await creditAgain(options, invoice)
      : await draftAgain(options, kept, document, unchecked)
  document.push(
    ...PARTIES.flatMap((name) => compare(name, invoice[name], again[name])),
    ...compare('ht', invoice.ht, again.ht),
    ...compare('tva', invoice.tva, again.tva),
    ...compare('ttc', invoice.ttc, again.ttc),
    ...compare('taxes', invoice.taxes, again.taxes),
    ...compare('notices', codesOf(invoice), codesOf(again)),
  )
  const statement = new Map(again.usage.map((entry) => [`${entry.item} ${entry.metric}`, entry]))
  for (const entry of invoice.usage) {
    const found = statement.get(`${entry.item} ${entry.metric}`)
    statement.delete(`${entry.item} ${entry.metric}`)
    const figures = (one: typeof entry | undefined) =>
      one === undefined
        ? null
        : [
            one.quantity,
            one.limit,
            one.percent,
            one.overage,
            one.status,
            one.proof.count,
            one.proof.digest,
            one.proof.data,
            entriesOf(one.data),
          ]
    document.push(...compare(`usage of ${entry.metric}`, figures(entry), figures(found)))
  }
  for (const name of statement.keys()) document.push({ what: `usage of ${name}`, stored: null, found: 'there' })

  const lines: LineVerification[] = []
  for (let i = 0; i < Math.max(invoice.lines.length, again.lines.length); i += 1) {
    const [stored, found] = [invoice.lines[i], again.lines[i]]
    const line = (stored ?? found)!
    const differences = compareLines(stored, found)
    lines.push({
      no: line.no,
      type: line.type,
      metric: line.metric,
      amount: line.amount,
      events: found?.proof?.count ?? null,
      equal: differences.length === 0,
      differences,
    })
  }
  return {
    id: invoice.id,
    number: invoice.number,
    equal: document.length === 0 && lines.every((line) => line.equal),
    lines,
    document,
    unchecked: [...unchecked],
  }
}

/** The columns beside the document, and its hash. */
async function compareRow(postgres: Pool, kept: KeptInvoice): Promise<Difference[]> {
  const { invoice, hash } = kept
  const { rows } = await postgres.query<Record<string, string | null>>(
    'SELECT number, currency, ht::text, tva::text, ttc::text, tenant, contract FROM invoices WHERE id = $1',
    [invoice.id],
  )
  const row = rows[0] ?? {}
  return [
    ...(['number', 'currency', 'ht', 'tva', 'ttc', 'tenant', 'contract'] as const).flatMap((column) =>
      compare(`column ${column}`, row[column] ?? null, invoice[column]),
    ),
    ...(hash === null ? [] : compare('hash', hash, hashOf(invoice))),
  ]
}

async function creditAgain({ invoicing, postgres }: VerifyOptions, note: Invoice): Promise<Invoice> {
  if (note.refersTo === null)
    throw new ReleveError('unprocessable', `${note.number}: a credit note names its invoice, this one does not`)
  const { invoice } = await invoicing.get(note.refersTo.id)
  // The whole copies the lines; a part is a line for each rate with an amount of its own.
  const whole =
    note.lines.length === invoice.lines.length &&
    opposite(note.ttc) === invoice.ttc &&
    note.lines.every((line, i) => line.label.fr === invoice.lines[i]!.label.fr)
  if (whole) {
    const again = draftCreditNote(note.id, invoice, NOT_CREDITED, null)
    // Those of before have no steps.
    const older = note.lines.every((line) => line.steps.length === 0)
    return older ? { ...again, lines: again.lines.map((line) => ({ ...line, steps: [] })) } : again
  }
  const before = await invoicing.creditedOf(postgres, invoice.id, note.id)
  return draftCreditNote(note.id, invoice, before, opposite(note.ttc))
}

async function draftAgain(
  { postgres, book, recount, recountData, recountPart }: VerifyOptions,
  kept: KeptInvoice,
  document: Difference[],
  unchecked: Set<string>,
): Promise<Invoice> {
  const { invoice } = kept
  const measured = await measuredFor(postgres, invoice)
  if (measured === null)
    throw new ReleveError(
      'conflict',
      `${invoice.id} is ${kept.state}: its period was measured again for another invoice`,
    )

  const recounted = async (
    usage: readonly ItemUsage[],
    terms: Terms,
    period: Period,
    order: number,
  ): Promise<readonly ItemUsage[]> => {
    const again: ItemUsage[] = []
    for (const { data, charge, parts, ...one } of usage) {
      if (charge === true) continue
      // Counted again by its objects.
      if (one.fleet !== undefined) {
        again.push(one)
        continue
      }
      const part = terms.items.find((item) => item.item === one.item)?.period ?? period
      const asked = { tenant: terms.contract.tenant, metric: one.metric, cut: one.cut }
      const found = await recount({ ...asked, period: part })
      const partsAgain: NonNullable<ItemUsage['parts']>[number][] = []
      for (const { period, quantity } of parts ?? [])
        partsAgain.push({ period, quantity: (await recountPart(one, asked.tenant, period)) ?? quantity })
      const cut = parts === undefined ? {} : { parts: partsAgain }
      if (found === null) unchecked.add(one.metric)
      if (found !== null) again.push({ ...one, ...found, ...cut })
      else
        again.push({ ...one, ...cut, quantity: printDecimal(new Decimal(one.quantity).minus(data?.quantity ?? '0')) })
    }
    return recountData({ terms, period, usage: again }, order)
  }
  /** Packs as the closing found them, with the usage of each part of the period counted anew. */
  const packsAgain = async <F extends Funding>(fundings: readonly F[], usage: readonly ItemUsage[]): Promise<F[]> => {
    const again: F[] = []
    for (const funding of fundings) {
      const one = usage.find(({ item, metric }) => item === funding.item && metric === funding.metric)
      const parts: Funding['parts'][number][] = []
      for (const { period, quantity } of funding.parts) {
        const found = one === undefined ? null : await recountPart(one, invoice.tenant, period)
        parts.push({ period, quantity: found ?? quantity })
      }
      again.push({ ...funding, parts })
    }
    return again
  }
  const late: LatePart[] = []
  for (const part of measured.late) {
    const billed = await recounted(part.billed, part.terms, part.period, measured.order - 1)
    const facts = (usage: ItemUsage | undefined) =>
      usage && [usage.quantity, usage.count, usage.digest, usage.data?.count ?? 0, usage.data?.digest ?? '']
    for (const one of part.billed) {
      const same = (other: ItemUsage) => other.item === one.item && other.metric === one.metric
      const found = billed.find((other) => same(other) && other.fleet?.kind === one.fleet?.kind)
      document.push(...compare(`billed before of ${one.metric}`, facts(one), facts(found)))
    }
    late.push({
      ...part,
      terms: pinned(part.terms, invoice, book, document),
      billed,
      usage: await recounted(part.usage, part.terms, part.period, measured.order),
      ...(part.prepaid === undefined ? {} : { prepaid: await packsAgain(part.prepaid, part.usage) }),
    })
  }
  const period = { from: invoice.period.from, to: invoice.period.to }
  const packs = measured.prepaid
  const prepaid = packs && { ...packs, fundings: await packsAgain(packs.fundings, measured.usage) }
  const usage = await recounted(measured.usage, measured.terms, period, measured.order)
  if (measured.corrected !== undefined) {
    const billed = await recounted(measured.corrected.billed, measured.terms, period, measured.order - 1)
    const terms = pinned(measured.terms, invoice, book, document)
    const own = measured.corrected.prepaid
    const again = own === undefined ? {} : { prepaid: await packsAgain(own, measured.usage) }
    const part: LatePart = { ...measured.corrected, period, terms, billed, usage, ...again }
    document.push(...(await compareLedger(postgres, invoice, refundedSteps(part), own ?? [])))
    return draftCorrection(invoice.id, part, invoice.refersTo)
  }
  const steps = [
    ...late.flatMap((part) => (part.refused === true ? [] : refundedSteps(part))),
    ...(prepaid === undefined ? [] : fundedSteps(prepaid, measured.terms, period, usage)),
  ]
  // Late periods go first: what they take is gone when the period itself is funded.
  const found = [...measured.late.flatMap((part) => part.prepaid ?? []), ...(packs?.fundings ?? [])]
  document.push(...(await compareLedger(postgres, invoice, steps, found)))
  return draftInvoice(
    invoice.id,
    pinned(measured.terms, invoice, book, document),
    period,
    usage,
    late,
    measured.notices,
    prepaid,
  )
}

/**
 * What the closing wrote into the ledger of packs against what it should have, and what packs held before it against what it found.
 */
async function compareLedger(
  postgres: Pool,
  invoice: Invoice,
  steps: readonly LedgerStep[],
  fundings: readonly (Funding | Refunding)[],
): Promise<Difference[]> {
  const { rows } = await postgres.query<LedgerStep & { serial: string }>(
    `SELECT e.serial, e.pack, e.kind, e.quantity::text AS quantity, e.at::float8 AS at
     FROM prepaid_entries e JOIN closings c ON c.id = e.closing AND c.attempt = e.attempt
     WHERE c.id = (SELECT id FROM closings WHERE contract = $1 AND period_from = $2 AND (part = 0 OR invoice = $3)
       ORDER BY (invoice = $3) DESC NULLS LAST LIMIT 1) ORDER BY e.serial`,
    [invoice.contract, invoice.period.from, invoice.id],
  )
  const byPack = (all: readonly LedgerStep[]): Map<string, string[][]> => {
    const packs = new Map<string, string[][]>()
    for (const { pack, kind, quantity, at } of all) {
      const own = packs.get(pack) ?? []
      packs.set(pack, own)
      own.push([kind, String(at), printDecimal(new Decimal(quantity))])
    }
    for (const own of packs.values()) own.sort()
    return packs
  }
  const [stored, found] = [byPack(rows), byPack(steps)]
  const differences = [...new Set([...stored.keys(), ...found.keys()])].flatMap((pack) =>
    compare(`ledger of pack ${pack}`, stored.get(pack), found.get(pack)),
  )
  const first = rows[0]?.serial
  if (first === undefined) return differences
  const before = await postgres.query<{ pack: string; balance: string }>(
    `SELECT e.pack, sum(e.quantity)::text AS balance FROM prepaid_entries e LEFT JOIN closings c ON c.id = e.closing
     WHERE e.serial < $1 AND e.pack = ANY($2) AND (e.closing IS NULL OR c.attempt = e.attempt) GROUP BY e.pack`,
    [first, [...stored.keys()]],
  )
  const held = new Map(before.rows.map((row) => [row.pack, printDecimal(new Decimal(row.balance))]))
  const seen = new Set<string>()
  for (const funding of fundings) {
    for (const { id, balance } of funding.packs) {
      if (seen.has(id) || !held.has(id)) continue
      seen.add(id)
      const was = 'left' in funding ? (funding.left[id] ?? balance) : balance
      differences.push(...compare(`balance of pack ${id}`, held.get(id), was))
    }
  }
  return differences
}

/** The terms with each price as the price book has it, in the version that the invoice's line names. */
function pinned(terms: Terms, invoice: Invoice, book: Book, document: Difference[]): Terms {
  const priced = <P extends Terms['items'][number]['fee']>(price: P, line: InvoiceLine | undefined): P => {
    if (price === null) return price
    const version = line?.price?.rule === price.rule ? line.price.version : price.version
    const found = book.priceAt(price.rule, version)
    if (found === null) document.push({ what: `price ${price.rule}`, stored: version, found: null })
    return (found ?? price) as P
  }
  const lineOf = (item: string, metric: string | null): InvoiceLine | undefined =>
    invoice.lines.find(
      (line) => line.item === item && line.metric === metric && line.price !== null && line.type !== 'add_on',
    )
  const ahead = (one: Ahead): Ahead => ({
    ...one,
    items: one.items.map((item) => ({ ...item, fee: priced(item.fee, undefined) })),
  })
  return {
    ...terms,
    ...(terms.ahead === undefined ? {} : { ahead: ahead(terms.ahead) }),
    ...(terms.billedAhead === undefined ? {} : { billedAhead: ahead(terms.billedAhead) }),
    items: terms.items.map((item) => ({
      ...item,
      fee: priced(item.fee, lineOf(item.item, null)),
      metrics: item.metrics.map((metric) => ({
        ...metric,
        // With versions that changed within the period each line has its own.
        price: priced(metric.price, metric.later === undefined ? lineOf(item.item, metric.metric) : undefined),
        ...(metric.later === undefined
          ? {}
          : { later: metric.later.map((one) => ({ ...one, price: priced(one.price, undefined) })) }),
      })),
      ...(item.addOns === undefined
        ? {}
        : {
            addOns: item.addOns.map((addOn) => {
              const line = invoice.lines.find((one) => one.item === item.item && one.price?.rule === addOn.rule)
              return { ...addOn, price: priced(addOn.price, line) }
            }),
          }),
    })),
  }
}

/** Between whom, and for what: as the closing had it. Words are not compared, for they follow the software. */
const PARTIES = ['kind', 'tenant', 'contract', 'contractName', 'currency', 'seller', 'customer', 'refersTo'] as const

const FIGURES = [
  'type',
  'item',
  'product',
  'plan',
  'metric',
  'unit',
  'quantity',
  'included',
  'billable',
  'steps',
  'exact',
  'amount',
  'taxRate',
  'taxBehavior',
  'net',
  'price',
  'period',
  'since',
  'objects',
] as const

function compareLines(stored: InvoiceLine | undefined, found: InvoiceLine | undefined): Difference[] {
  if (stored === undefined || found === undefined) return compare('line', stored?.amount ?? null, found?.amount ?? null)
  const proof = ({ proof }: InvoiceLine) => ({
    cut: proof?.cut,
    count: proof?.count,
    digest: proof?.digest,
    data: proof?.data,
  })
  return [
    ...FIGURES.flatMap((name) => compare(name, stored[name], found[name])),
    ...(['cut', 'count', 'digest', 'data'] as const).flatMap((name) =>
      compare(`proof.${name}`, proof(stored)[name] ?? null, proof(found)[name] ?? null),
    ),
    ...compare('usage data', entriesOf(stored.data), entriesOf(found.data)),
  ]
}

/** What a printed usage datum says of its row; its notes may be written later. */
function entriesOf(entries: readonly DataEntry[] | undefined): unknown {
  return entries?.map(({ notes: _, order: __, ...facts }) => facts)
}

function codesOf(invoice: Invoice): unknown {
  return customerNotices(invoice.notices).map((notice) => [notice.code, notice.item, notice.metric, notice.quantity])
}

function compare(what: string, stored: unknown, found: unknown): Difference[] {
  const [a, b] = [textOf(stored), textOf(found)]
  return a === b ? [] : [{ what, stored: a, found: b }]
}

const textOf = (value: unknown): string | null =>
  value === null || value === undefined ? null : typeof value === 'string' ? value : canonical(value)
