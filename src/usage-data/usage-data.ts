/**
 * Usage data in PostgreSQL: created, read, changed and confirmed. Front of the room; datum.ts has the rules, collect.ts what a
 * closing makes of them, import.ts the files.
 *
 * A datum with an external reference is named by contract, item, reference and start: sent again with the same content it is the
 * same one, with other content it is a conflict. Draft is ignored by billing; a confirmed one (pending) keeps all but its notes.
 */
import { randomUUID } from 'node:crypto'
import type { Pool } from 'pg'
import { canonical } from '../canonical.js'
import type { Book } from '../catalog/book.js'
import type { Catalog } from '../catalog/catalog.js'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { knownItems } from '../objects/objects.js'
import { assertUsageDataMove, type Datum, DatumFields, parseDatum, type UsageDataState } from './datum.js'

export interface KeptDatum extends Datum {
  readonly id: string
  readonly serial: string
  /** Where it was collected: the closing, and the invoice that came of it. */
  readonly invoicingSchedule: {
    readonly closing: string
    readonly period: number
    readonly invoice: string | null
  } | null
  readonly import: string | null
  readonly createdAt: number
  readonly changedAt: number
}

/** What became of one of many. */
export type Taken =
  | { readonly outcome: 'created' | 'known'; readonly id: string }
  | { readonly outcome: 'conflict' | 'refused'; readonly message: string }

export interface UsageDataFilter {
  readonly tenant: string | null
  readonly contract?: string | undefined
  readonly item?: string | undefined
  readonly state?: UsageDataState | undefined
  readonly externalReference?: string | undefined
  readonly import?: string | undefined
  readonly closing?: string | undefined
  readonly from?: number | undefined
  readonly to?: number | undefined
  /** Serial of the last one of the page before. */
  readonly before?: string | undefined
  readonly limit: number
}

interface Row {
  serial: number
  id: string
  tenant: string
  contract: string
  item: string | null
  external_reference: string | null
  starts_at: string
  ends_at: string | null
  value: string | null
  data: Record<string, unknown> | null
  qualifier: string | null
  description: string | null
  axis1: string | null
  axis2: string | null
  do_not_invoice: boolean
  invoicing_notes: string | null
  notes: string | null
  state: UsageDataState
  closing: string | null
  period_from: string | null
  invoice: string | null
  import: string | null
  created_at: string
  changed_at: string
}

const COLUMNS = `u.serial, u.id, u.tenant, u.contract, u.item, u.external_reference, u.starts_at, u.ends_at, u.value::text AS value, u.data,
  u.qualifier, u.description, u.axis1, u.axis2, u.do_not_invoice, u.invoicing_notes, u.notes, u.state, u.closing, u.period_from,
  c.invoice, u.import, u.created_at, u.changed_at`
const FROM = 'FROM usage_data u LEFT JOIN closings c ON c.id = u.closing'

export class UsageData {
  readonly #postgres: Pool
  readonly #clock: Clock
  readonly #catalog: Catalog

  constructor(options: { readonly postgres: Pool; readonly clock: Clock; readonly catalog: Catalog }) {
    this.#postgres = options.postgres
    this.#clock = options.clock
    this.#catalog = options.catalog
  }

  /** Many at once: all or none, but for those that were there. `json` as datum.ts reads it. */
  async create(json: readonly unknown[], tenant: string | null): Promise<Taken[]> {
    if (json.length > limits.usageDataBatchMax)
      throw new ReleveError('invalid_request', `usage data: at most ${limits.usageDataBatchMax} at once; import a file`)
    const data = json.map((one, i) => {
      try {
        return parseDatum(one, this.#catalog.book(), tenant, maybeObject)
      } catch (error) {
        if (json.length === 1 || !(error instanceof ReleveError)) throw error
        throw new ReleveError(error.code, `[${i}] ${error.message}`, { cause: error })
      }
    })
    const client = await this.#postgres.connect()
    try {
      await client.query('BEGIN')
      const taken = await insertData(client, this.#catalog.book(), data, null, this.#clock.now())
      const refused = taken.find((one) => one.outcome === 'refused')
      if (refused?.outcome === 'refused') throw new ReleveError('unprocessable', refused.message)
      await client.query('COMMIT')
      return taken
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    } finally {
      client.release()
    }
  }

  /** Throws ReleveError `not_found`, also for one of another tenant. */
  async get(id: string, tenant: string | null): Promise<KeptDatum> {
    const { rows } = await this.#postgres.query<Row>(
      `SELECT ${COLUMNS} ${FROM} WHERE u.id = $1 AND ($2::text IS NULL OR u.tenant = $2)`,
      [id, tenant],
    )
    if (rows[0] === undefined) throw new ReleveError('not_found', `usage data: there is no ${id}`)
    return kept(rows[0])
  }

  /** Newest first, a page at a time. */
  async list(filter: UsageDataFilter): Promise<{ readonly usageData: KeptDatum[]; readonly next: string | null }> {
    const { rows } = await this.#postgres.query<Row>(
      `SELECT ${COLUMNS} ${FROM}
       WHERE ($1::text IS NULL OR u.tenant = $1) AND ($2::text IS NULL OR u.contract = $2) AND ($3::text IS NULL OR u.item = $3)
         AND ($4::text IS NULL OR u.state = $4) AND ($5::text IS NULL OR u.external_reference = $5)
         AND ($6::text IS NULL OR u.import = $6) AND ($7::text IS NULL OR u.closing = $7)
         AND ($8::bigint IS NULL OR u.starts_at >= $8) AND ($9::bigint IS NULL OR u.starts_at < $9)
         AND ($10::bigint IS NULL OR u.serial < $10)
       ORDER BY u.serial DESC LIMIT $11`,
      [
        filter.tenant,
        filter.contract ?? null,
        filter.item ?? null,
        filter.state ?? null,
        filter.externalReference ?? null,
        filter.import ?? null,
        filter.closing ?? null,
        filter.from ?? null,
        filter.to ?? null,
        filter.before ?? null,
        filter.limit,
      ],
    )
    return { usageData: rows.map(kept), next: rows.length < filter.limit ? null : String(rows.at(-1)!.serial) }
  }

  /** The rows of a condition over usage_data, in the order they were handed in, a page at a time. */
  async rowsOf(
    { condition, values }: { readonly condition: string; readonly values: readonly unknown[] },
    page: { readonly after: string; readonly limit: number },
  ): Promise<{ readonly usageData: KeptDatum[]; readonly next: string | null }> {
    const n = values.length
    const { rows } = await this.#postgres.query<Row>(
      `SELECT ${COLUMNS} FROM (SELECT * FROM usage_data WHERE ${condition} AND serial > $${n + 1} ORDER BY serial LIMIT $${n + 2}) u
         LEFT JOIN closings c ON c.id = u.closing ORDER BY u.serial`,
      [...values, page.after, page.limit],
    )
    return { usageData: rows.map(kept), next: rows.length < page.limit ? null : String(rows.at(-1)!.serial) }
  }

  /**
   * Changes fields: all of a draft, of any other only the notes, and the state along its arrows. Throws ReleveError `conflict` for
   * what its state does not allow.
   */
  async change(id: string, changes: Readonly<Record<string, unknown>>, tenant: string | null): Promise<KeptDatum> {
    const client = await this.#postgres.connect()
    try {
      await client.query('BEGIN')
      const { rows } = await client.query<Row>(
        `SELECT ${COLUMNS} ${FROM} WHERE u.id = $1 AND ($2::text IS NULL OR u.tenant = $2) FOR UPDATE OF u`,
        [id, tenant],
      )
      if (rows[0] === undefined) throw new ReleveError('not_found', `usage data: there is no ${id}`)
      const before = kept(rows[0])
      const { state, ...others } = changes
      const to = (state ?? before.state) as UsageDataState
      if (!['draft', 'pending', 'excluded', before.state].includes(to))
        throw new ReleveError('invalid_request', 'state: draft, pending or excluded')
      assertUsageDataMove(before.state, to)
      const fields = Object.fromEntries(DatumFields.map((name) => [name, before[name]]))
      const after = parseDatum(
        { ...fields, ...others, state: to === 'collected' ? 'pending' : to },
        this.#catalog.book(),
        tenant,
        // An item that is there was good when it was written.
        (_, item) => item === before.item,
      )
      if (before.state !== 'draft') {
        const locked = DatumFields.filter(
          (name) => name !== 'notes' && name !== 'state' && canonical(before[name]) !== canonical(after[name]),
        )
        if (locked.length > 0)
          throw new ReleveError(
            'conflict',
            `usage data: ${id} is ${before.state}: only its notes may change, not ${locked.join(', ')}`,
          )
      }
      await client.query(
        `UPDATE usage_data SET contract = $2, item = $3, external_reference = $4, starts_at = $5, ends_at = $6, value = $7, data = $8,
           qualifier = $9, description = $10, axis1 = $11, axis2 = $12, do_not_invoice = $13, invoicing_notes = $14, notes = $15,
           state = $16, changed_at = $17, tenant = $18
         WHERE id = $1`,
        [id, ...NAMES.map((name) => after[FIELDS[name]]), to, this.#clock.now(), after.tenant],
      )
      await client.query('COMMIT')
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      if ((error as { constraint?: string }).constraint === 'usage_data_once')
        throw new ReleveError('conflict', 'externalReference: another datum of this contract, item and start has it')
      throw error
    } finally {
      client.release()
    }
    return this.get(id, tenant)
  }

  /** A draft may be thrown away. */
  async remove(id: string, tenant: string | null): Promise<void> {
    const datum = await this.get(id, tenant)
    const { rowCount } = await this.#postgres.query(`DELETE FROM usage_data WHERE id = $1 AND state = 'draft'`, [id])
    if (rowCount === 0) throw new ReleveError('conflict', `usage data: ${id} is ${datum.state}; exclude it instead`)
  }

  /** Of these contracts, those with pending data. */
  async waiting(contracts: readonly string[]): Promise<ReadonlySet<string>> {
    const { rows } = await this.#postgres.query<{ contract: string }>(
      `SELECT contract FROM unnest($1::text[]) AS asked (contract)
       WHERE EXISTS (SELECT 1 FROM usage_data u WHERE u.contract = asked.contract AND u.state = 'pending' AND NOT u.do_not_invoice)`,
      [contracts],
    )
    return new Set(rows.map((row) => row.contract))
  }

  /** Drafts of periods for which data wait that their closing has not collected. */
  async staleDrafts(
    contracts: readonly string[] | null,
  ): Promise<{ readonly contract: string; readonly periodFrom: number; readonly invoice: string }[]> {
    const { rows } = await this.#postgres.query<{ contract: string; period_from: string; invoice: string }>(
      `SELECT DISTINCT c.contract, c.period_from, c.invoice FROM usage_data u
         JOIN closings c ON c.contract = u.contract AND u.starts_at >= c.period_from AND u.starts_at < c.period_to
         JOIN invoices i ON i.id = c.invoice AND i.state IN ('draft', 'grace')
         LEFT JOIN usage_imports j ON j.id = u.import
       WHERE u.state = 'pending' AND NOT u.do_not_invoice AND ($1::text[] IS NULL OR u.contract = ANY($1)) AND c.state = 'drafted'
         AND greatest(u.changed_at, j.updated_at) >= c.updated_at AND (u.import IS NULL OR j.state = 'done')
       ORDER BY c.contract, c.period_from`,
      [contracts],
    )
    return rows.map((row) => ({ contract: row.contract, periodFrom: Number(row.period_from), invoice: row.invoice }))
  }
}

/** Whether an item that no contract names is an object's is asked of the store, for all at once. */
export const maybeObject = (): boolean => true

/** One statement for all; those that were there are told apart by what is kept. */
export async function insertData(
  client: Pick<Pool, 'query'>,
  book: Book,
  all: readonly Datum[],
  fromImport: string | null,
  now: number,
): Promise<Taken[]> {
  const isObject = ({ contract, item }: Datum): boolean =>
    item !== null && !book.contracts.get(contract)?.items.some((one) => one.id === item)
  const objects = all.filter(isObject)
  if (objects.length > 0) {
    const known = await knownItems(
      client,
      objects.map(({ contract, item }) => ({ contract, item: item! })),
    )
    const good = all.filter((one) => !isObject(one) || known.has(`${one.contract} ${one.item}`))
    if (good.length < all.length) {
      const taken = (await insertData(client, book, good, fromImport, now)).values()
      const there = new Set(good)
      return all.map((one) =>
        there.has(one)
          ? taken.next().value!
          : { outcome: 'refused', message: `item: ${one.contract} has no ${one.item}` },
      )
    }
  }
  const data = all
  const ids = data.map(() => `ud_${randomUUID()}`)
  const columns: (readonly unknown[])[] = [ids, data.map((one) => one.tenant), data.map((one) => one.state)]
  for (const name of NAMES) {
    const column = data.map((one) => one[FIELDS[name]])
    // A list that is shorter than the others is NULL from there on.
    if (column.every((value) => value === null)) columns.push([])
    else columns.push(name === 'data' ? column.map((value) => value && JSON.stringify(value)) : column)
  }
  const inserted = await client.query<{ id: string }>(
    `INSERT INTO usage_data (id, tenant, state, ${NAMES.join(', ')}, import, created_at, changed_at)
     SELECT v.*, $1, $2, $2 FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[],
       $10::bigint[], $11::numeric[], $12::jsonb[], $13::text[], $14::text[], $15::text[], $16::text[], $17::boolean[], $18::text[],
       $19::text[]) AS v
     ON CONFLICT DO NOTHING RETURNING id`,
    [fromImport, now, ...columns],
  )
  const created = new Set(inserted.rows.map((row) => row.id))
  const known = data.flatMap((one, i) => (created.has(ids[i]!) ? [] : [{ i, one }]))
  const taken: Taken[] = ids.map((id) => ({ outcome: 'created', id }))
  if (known.length === 0) return taken
  const { rows: there } = await client.query<Row & { place: string }>(
    `SELECT v.place, ${COLUMNS} FROM jsonb_to_recordset($1::jsonb) AS v (place int, contract text, item text, reference text, start bigint)
       JOIN usage_data u ON u.contract = v.contract AND coalesce(u.item, '') = coalesce(v.item, '')
         AND u.external_reference = v.reference AND u.starts_at = v.start
       LEFT JOIN closings c ON c.id = u.closing`,
    [
      JSON.stringify(
        known.map(({ i, one }) => ({
          place: i,
          contract: one.contract,
          item: one.item,
          reference: one.externalReference,
          start: one.start,
        })),
      ),
    ],
  )
  const content = ({ state: _, notes: __, ...one }: Datum): string =>
    canonical(
      Object.fromEntries(Object.entries(one).filter(([name]) => (DatumFields as readonly string[]).includes(name))),
    )
  for (const row of there) {
    const i = Number(row.place)
    const old = kept(row)
    taken[i] =
      content(old) === content(data[i]!)
        ? { outcome: 'known', id: old.id }
        : {
            outcome: 'conflict',
            message: `externalReference: ${old.externalReference} of this contract, item and start is there with other content (${old.id})`,
          }
  }
  return taken
}

/** The column of each field that a person hands in, but for its state. */
const FIELDS = {
  contract: 'contract',
  item: 'item',
  external_reference: 'externalReference',
  starts_at: 'start',
  ends_at: 'end',
  value: 'value',
  data: 'data',
  qualifier: 'qualifier',
  description: 'description',
  axis1: 'axis1',
  axis2: 'axis2',
  do_not_invoice: 'doNotInvoice',
  invoicing_notes: 'invoicingNotes',
  notes: 'notes',
} as const satisfies Record<string, keyof Datum>
const NAMES = Object.keys(FIELDS) as (keyof typeof FIELDS)[]

function kept(row: Row): KeptDatum {
  return {
    id: row.id,
    serial: String(row.serial),
    tenant: row.tenant,
    contract: row.contract,
    item: row.item,
    externalReference: row.external_reference,
    start: Number(row.starts_at),
    end: row.ends_at === null ? null : Number(row.ends_at),
    value: row.value,
    data: row.data,
    qualifier: row.qualifier,
    description: row.description,
    axis1: row.axis1,
    axis2: row.axis2,
    doNotInvoice: row.do_not_invoice,
    invoicingNotes: row.invoicing_notes,
    notes: row.notes,
    state: row.state,
    invoicingSchedule:
      row.closing === null ? null : { closing: row.closing, period: Number(row.period_from), invoice: row.invoice },
    import: row.import,
    createdAt: Number(row.created_at),
    changedAt: Number(row.changed_at),
  }
}
