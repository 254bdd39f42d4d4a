/**
 * Connected objects in PostgreSQL: created (draft by hand, pending by API), activated by an event, which makes a contract item of a
 * fleet for so many of the contract's periods, and ended. Events are kept. Front of the room; share.ts says whose usage it is.
 *
 * An object's item lies on whole days of its contract's zone. The term counts the period of the activation as its first, whatever is
 * left of it, so that twelve months are twelve invoicing schedules. Nothing may change inside a period that was measured for an
 * invoice: an activation or an end that comes so late is refused with the first day that is free.
 */
import { DateTime } from 'luxon'
import type { ClientBase, Pool } from 'pg'
import type { Catalog } from '../catalog/catalog.js'
import type { Contract, ContractItem } from '../catalog/contract.js'
import { periodAt } from '../catalog/part.js'
import { midnightOf, schedule } from '../catalog/schedule.js'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { Period } from '../period.js'
import { inTransaction } from '../transaction.js'

export interface ObjectInput {
  readonly id: string
  /** What its usage carries as subject; the id when absent. */
  readonly subject?: string
  readonly kind?: string
  readonly attributes?: Readonly<Record<string, unknown>>
  readonly tenant?: string
  readonly contract?: string
  readonly item?: string
  readonly state?: 'draft' | 'pending'
}

export interface KeptObject {
  readonly id: string
  readonly serial: string
  readonly subject: string
  readonly kind: string | null
  readonly attributes: Readonly<Record<string, unknown>>
  readonly tenant: string | null
  readonly contract: string | null
  readonly item: string | null
  readonly state: ObjectState
  readonly createdAt: number
  readonly changedAt: number
}

export interface Activation {
  readonly objects: readonly string[]
  /** Where they are not known yet. */
  readonly contract?: string
  readonly item?: string
  /** Epoch ms; its day is the first. */
  readonly at: number
  /** Periods of the term; the fleet's own when absent. */
  readonly months?: number
  readonly data?: Readonly<Record<string, unknown>>
}

/** The contract item of an object. */
export interface ObjectItem {
  readonly id: string
  readonly object: string
  readonly contract: string
  /** The fleet item whose plan it has. */
  readonly parent: string
  readonly subject: string
  readonly from: number
  readonly to: number
}

export interface Schedule extends Period {
  /** The part of it that the object covers. */
  readonly covers: Period
  readonly state: 'open' | 'drafted' | 'invoiced'
  /** Exact, once it was measured. */
  readonly amount: string | null
  readonly usage: readonly Record<string, unknown>[]
  readonly invoice: string | null
}

interface Row {
  serial: number
  id: string
  subject: string
  kind: string | null
  attributes: Record<string, unknown>
  tenant: string | null
  contract: string | null
  item: string | null
  state: KeptObject['state']
  created_at: string
  changed_at: string
}

const COLUMNS = 'serial, id, subject, kind, attributes, tenant, contract, item, state, created_at, changed_at'

/**
 * One is active once: an end is final, since its item has a place in invoices. A device that comes back is a new object; the same
 * subject may belong to it from the day after the end on.
 */
export const ObjectMoves = {
  draft: ['active', 'ended'],
  pending: ['active', 'ended'],
  active: ['ended'],
  ended: [],
} as const satisfies Record<string, readonly string[]>
export type ObjectState = keyof typeof ObjectMoves

/** Throws ReleveError `conflict`. */
function assertObjectMove(id: string, from: ObjectState, to: ObjectState): void {
  if (!(ObjectMoves[from] as readonly string[]).includes(to))
    throw new ReleveError('conflict', `object: ${id} is ${from} and cannot become ${to}`)
}

export class Objects {
  readonly #postgres: Pool
  readonly #clock: Clock
  readonly #catalog: Catalog

  constructor(options: { readonly postgres: Pool; readonly clock: Clock; readonly catalog: Catalog }) {
    this.#postgres = options.postgres
    this.#clock = options.clock
    this.#catalog = options.catalog
  }

  /** Many at once, all or none. Those that are there with the same content are known. */
  async create(input: readonly ObjectInput[]): Promise<{ readonly created: number; readonly known: number }> {
    if (input.length > limits.objectsBatchMax)
      throw new ReleveError('invalid_request', `objects: at most ${limits.objectsBatchMax} at once`)
    const wanted = new Map<string, Record<string, unknown>>()
    for (const one of input) {
      const place = this.#placeOf(one.contract, one.item, one.tenant ?? null)
      if (wanted.has(one.id)) throw new ReleveError('invalid_request', `objects: ${one.id} is there twice`)
      if (one.tenant !== undefined && !this.#catalog.book().customers.has(one.tenant))
        throw new ReleveError('unprocessable', `tenant: there is no ${one.tenant}`)
      wanted.set(one.id, {
        id: one.id,
        subject: one.subject ?? one.id,
        kind: one.kind ?? null,
        attributes: one.attributes ?? {},
        tenant: place?.contract.tenant ?? one.tenant ?? null,
        contract: one.contract ?? null,
        item: one.item ?? null,
        state: one.state ?? 'pending',
      })
    }
    return inTransaction(this.#postgres, async (client) => {
      const { rows } = await client.query<{ id: string }>(
        `INSERT INTO objects (id, subject, kind, attributes, tenant, contract, item, state, created_at, changed_at)
         SELECT id, subject, kind, attributes, tenant, contract, item, state, $2, $2
         FROM jsonb_to_recordset($1::jsonb) AS v (id text, subject text, kind text, attributes jsonb, tenant text, contract text,
           item text, state text)
         ON CONFLICT DO NOTHING RETURNING id`,
        [JSON.stringify([...wanted.values()]), this.#clock.now()],
      )
      for (const row of rows) wanted.delete(row.id)
      const other = await client.query<{ id: string }>(
        `SELECT v.id FROM jsonb_to_recordset($1::jsonb) AS v (id text, subject text, kind text, attributes jsonb)
           JOIN objects o ON o.id = v.id
         WHERE (o.subject, o.kind, o.attributes) IS DISTINCT FROM (v.subject, v.kind, v.attributes) LIMIT 1`,
        [JSON.stringify([...wanted.values()])],
      )
      if (other.rows[0] !== undefined)
        throw new ReleveError('conflict', `objects: ${other.rows[0].id} is there with other content`)
      return { created: rows.length, known: wanted.size }
    })
  }

  /** Throws ReleveError `not_found`, also for one of another tenant. */
  async get(id: string, tenant: string | null): Promise<KeptObject> {
    const { rows } = await this.#postgres.query<Row>(
      `SELECT ${COLUMNS} FROM objects WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)`,
      [id, tenant],
    )
    if (rows[0] === undefined) throw new ReleveError('not_found', `object: there is no ${id}`)
    return kept(rows[0])
  }

  /** In the order of creation, a page at a time. `search`: the beginning of an id or a subject. */
  async list(filter: {
    readonly tenant: string | null
    readonly contract?: string | undefined
    readonly item?: string | undefined
    readonly state?: string | undefined
    readonly search?: string | undefined
    readonly after?: string | undefined
    readonly limit: number
  }): Promise<{ readonly objects: KeptObject[]; readonly next: string | null }> {
    const prefix = filter.search === undefined ? null : `${filter.search.replaceAll(/[\\%_]/g, '\\$&')}%`
    const { rows } = await this.#postgres.query<Row>(
      `SELECT ${COLUMNS} FROM objects
       WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR contract = $2) AND ($3::text IS NULL OR item = $3)
         AND ($4::text IS NULL OR state = $4) AND ($5::text IS NULL OR id LIKE $5 OR subject LIKE $5)
         AND serial > $6 ORDER BY serial LIMIT $7`,
      [
        filter.tenant,
        filter.contract ?? null,
        filter.item ?? null,
        filter.state ?? null,
        prefix,
        filter.after ?? '0',
        filter.limit,
      ],
    )
    return { objects: rows.map(kept), next: rows.length < filter.limit ? null : String(rows.at(-1)!.serial) }
  }

  /**
   * The activation event of many objects, all or none: each gets a contract item. One that is active already with the same item is
   * left as it is, so that a repeated call is one call. Throws ReleveError `conflict` or `unprocessable` with the first that cannot.
   */
  async activate(request: Activation): Promise<{ readonly activated: number; readonly known: number }> {
    if (request.objects.length > limits.objectsBatchMax)
      throw new ReleveError('invalid_request', `objects: at most ${limits.objectsBatchMax} at once`)
    const now = this.#clock.now()
    return inTransaction(this.#postgres, async (client) => {
      const ids = [...new Set(request.objects)]
      const { rows } = await client.query<Row>(
        `SELECT ${COLUMNS} FROM objects WHERE id = ANY($1) ORDER BY id FOR UPDATE`,
        [ids],
      )
      if (rows.length < ids.length) {
        const there = new Set(rows.map((row) => row.id))
        throw new ReleveError('not_found', `object: there is no ${ids.find((id) => !there.has(id))}`)
      }
      const items: (ObjectItem & { tenant: string })[] = []
      const ranges = new Map<string, Period>()
      let known = 0
      for (const row of rows) {
        const contractId = row.contract ?? request.contract
        const itemId = row.item ?? request.item
        if (
          row.state === 'active' &&
          row.contract === (request.contract ?? row.contract) &&
          row.item === (request.item ?? row.item)
        ) {
          known += 1
          continue
        }
        assertObjectMove(row.id, row.state, 'active')
        const place = this.#placeOf(contractId, itemId, row.tenant)
        if (place === null || place.item === null)
          throw new ReleveError('unprocessable', `item: say which contract and fleet item ${row.id} belongs to`)
        if (
          (request.contract !== undefined && request.contract !== contractId) ||
          (request.item !== undefined && request.item !== itemId)
        )
          throw new ReleveError('conflict', `object: ${row.id} belongs to ${contractId} ${itemId}`)
        const rangeKey = `${contractId} ${itemId}`
        const range = ranges.get(rangeKey) ?? termOf(place.contract, place.item, request.at, request.months)
        if (!ranges.has(rangeKey)) {
          ranges.set(rangeKey, range)
          await assertOpen(client, place.contract.tenant, range.from, 'at')
        }
        items.push({
          id: row.id,
          object: row.id,
          contract: contractId!,
          parent: itemId!,
          subject: row.subject,
          tenant: place.contract.tenant,
          ...range,
        })
      }
      // Two activations of one subject must see each other.
      for (const tenant of [...new Set(items.map((item) => item.tenant))].sort())
        await client.query('SELECT pg_advisory_xact_lock(hashtext($1))', [`objects ${tenant}`])
      const double = new Set<string>()
      for (const { tenant, subject } of items) {
        if (double.has(`${tenant} ${subject}`))
          throw new ReleveError('conflict', `subject: ${subject} is that of two objects`)
        double.add(`${tenant} ${subject}`)
      }
      const text = JSON.stringify(items)
      const taken = await client.query<{ subject: string; id: string }>(
        `SELECT v.subject, i.id FROM jsonb_to_recordset($1::jsonb) AS v (tenant text, subject text, "from" bigint, "to" bigint)
           JOIN object_items i ON i.tenant = v.tenant AND i.subject = v.subject COLLATE "C" AND i.starts_at < v."to" AND i.ends_at > v."from"
         LIMIT 1`,
        [text],
      )
      if (taken.rows[0] !== undefined)
        throw new ReleveError(
          'conflict',
          `subject: ${taken.rows[0].subject} is that of ${taken.rows[0].id} in these days`,
        )
      await client.query(
        `INSERT INTO object_items (id, object, tenant, contract, parent, subject, starts_at, ends_at, created_at)
         SELECT id, object, tenant, contract, parent, subject, "from", "to", $2
         FROM jsonb_to_recordset($1::jsonb) AS v (id text, object text, tenant text, contract text, parent text, subject text,
           "from" bigint, "to" bigint)`,
        [text, now],
      )
      await client.query(
        `UPDATE objects o SET state = 'active', tenant = v.tenant, contract = v.contract, item = v.parent, changed_at = $2
         FROM jsonb_to_recordset($1::jsonb) AS v (object text, tenant text, contract text, parent text) WHERE o.id = v.object`,
        [text, now],
      )
      await this.#record(
        client,
        items.map((item) => item.object),
        'activation',
        request.at,
        { ...request.data, ...(request.months === undefined ? {} : { months: request.months }) },
      )
      return { activated: items.length, known }
    })
  }

  /** The end of an object's life: its item ends with that day. */
  async end(id: string, at: number, data: Readonly<Record<string, unknown>> = {}): Promise<KeptObject> {
    await inTransaction(this.#postgres, async (client) => {
      const { rows } = await client.query<Row>(`SELECT ${COLUMNS} FROM objects WHERE id = $1 FOR UPDATE`, [id])
      const row = rows[0]
      if (row === undefined) throw new ReleveError('not_found', `object: there is no ${id}`)
      if (row.state === 'ended') return
      assertObjectMove(id, row.state, 'ended')
      if (row.state === 'active') {
        const contract = this.#catalog.book().contractOf(row.contract!)
        const to = DateTime.fromMillis(at, { zone: contract.timeZone }).startOf('day').plus({ days: 1 }).toMillis()
        await assertOpen(client, contract.tenant, to, 'at')
        const moved = await client.query(
          'UPDATE object_items SET ends_at = least(ends_at, $2) WHERE object = $1 AND ends_at > $2 AND starts_at < $2',
          [id, to],
        )
        if (moved.rowCount === 0) {
          const { rows: own } = await client.query<{ starts_at: string }>(
            'SELECT starts_at FROM object_items WHERE object = $1 AND starts_at >= $2',
            [id, to],
          )
          if (own.length > 0) throw new ReleveError('unprocessable', `at: ${id} begins later`)
        }
      }
      await client.query(`UPDATE objects SET state = 'ended', changed_at = $2 WHERE id = $1`, [id, this.#clock.now()])
      await this.#record(client, [id], 'end_of_life', at, data)
    })
    return this.get(id, null)
  }

  /** Any other event of an object's life, to be kept. */
  async addEvent(id: string, type: string, at: number, data: Readonly<Record<string, unknown>>): Promise<void> {
    await this.get(id, null)
    await inTransaction(this.#postgres, (client) => this.#record(client, [id], type, at, data))
  }

  /** Newest first. */
  async events(id: string): Promise<{ type: string; at: number; data: unknown; createdAt: number }[]> {
    const { rows } = await this.#postgres.query(
      'SELECT type, at, data, created_at FROM object_events WHERE object = $1 ORDER BY serial DESC LIMIT $2',
      [id, limits.pageMax],
    )
    return rows.map((row) => ({
      type: row.type,
      at: Number(row.at),
      data: row.data,
      createdAt: Number(row.created_at),
    }))
  }

  /** The object's contract item with its invoicing schedules; null before its activation. */
  async itemOf(id: string): Promise<{ readonly item: ObjectItem; readonly schedules: readonly Schedule[] } | null> {
    const { rows } = await this.#postgres.query<ItemRow>(
      `SELECT ${ITEM_COLUMNS} FROM object_items WHERE object = $1 ORDER BY starts_at DESC LIMIT 1`,
      [id],
    )
    if (rows[0] === undefined) return null
    const item = itemOf(rows[0])
    const contract = this.#catalog.book().contractOf(item.contract)
    const { rows: charges } = await this.#postgres.query<{
      period_from: string
      amount: string
      usage: Record<string, unknown>[]
      state: string | null
      number: string | null
      invoice: string | null
    }>(
      `SELECT DISTINCT ON (h.period_from) h.period_from, h.amount::text AS amount, h.usage, i.state, i.number, c.invoice
       FROM object_charges h LEFT JOIN closings c ON c.id = h.closing LEFT JOIN invoices i ON i.id = c.invoice
       WHERE h.item = $1 ORDER BY h.period_from, c.period_from DESC`,
      [item.id],
    )
    const chargeOf = new Map(charges.map((charge) => [Number(charge.period_from), charge]))
    const schedules = schedule(contract, item).map((period): Schedule => {
      const charge = chargeOf.get(period.from)
      return {
        ...period,
        covers: { from: Math.max(item.from, period.from), to: Math.min(item.to, period.to) },
        state: charge === undefined ? 'open' : charge.number === null ? 'drafted' : 'invoiced',
        amount: charge?.amount ?? null,
        usage: charge?.usage ?? [],
        invoice: charge?.number ?? charge?.invoice ?? null,
      }
    })
    return { item, schedules }
  }

  /** Of a contract's period, by `(contract, item)`: whether the object items are there. */
  async known(items: readonly { readonly contract: string; readonly item: string }[]): Promise<ReadonlySet<string>> {
    return knownItems(this.#postgres, items)
  }

  /** A contract's fleet item, if both are there and it is one; the contract alone when no item is named. */
  #placeOf(
    contractId: string | undefined,
    itemId: string | undefined,
    tenant: string | null,
  ): { contract: Contract; item: ContractItem | null } | null {
    if (contractId === undefined) {
      if (itemId !== undefined) throw new ReleveError('invalid_request', 'contract: is needed with an item')
      return null
    }
    const contract = this.#catalog.book().contracts.get(contractId)
    if (contract === undefined) throw new ReleveError('unprocessable', `contract: there is no ${contractId}`)
    if (tenant !== null && contract.tenant !== tenant)
      throw new ReleveError('unprocessable', `contract: ${contractId} is another customer's`)
    if (itemId === undefined) return { contract, item: null }
    const item = contract.items.find((one) => one.id === itemId)
    if (item?.fleet === undefined)
      throw new ReleveError('unprocessable', `item: ${contractId} has no fleet item ${itemId}`)
    return { contract, item }
  }

  async #record(
    client: ClientBase,
    objects: readonly string[],
    type: string,
    at: number,
    data: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    await client.query(
      `INSERT INTO object_events (object, type, at, data, created_at) SELECT object, $2, $3, $4, $5 FROM unnest($1::text[]) AS o (object)`,
      [objects, type, at, data, this.#clock.now()],
    )
  }
}

/** Whole days from the activation's on, to the end of the last period of the term. */
export function termOf(
  contract: Pick<Contract, 'start' | 'timeZone' | 'cycle'>,
  item: Pick<ContractItem, 'fleet'>,
  at: number,
  months = item.fleet?.months ?? 12,
): Period {
  const { timeZone } = contract
  const from = DateTime.fromMillis(at, { zone: timeZone }).startOf('day').toMillis()
  if (from < midnightOf(contract.start, timeZone))
    throw new ReleveError('unprocessable', `at: the contract begins on ${contract.start}`)
  const first = periodAt(contract, from)
  const last = DateTime.fromMillis(first.from, { zone: timeZone }).plus({ months }).toMillis()
  return { from, to: schedule(contract, { from: first.from, to: last }).at(-1)!.to }
}

/** Nothing of the tenant that was measured reaches behind `from`. */
async function assertOpen(client: ClientBase, tenant: string, from: number, field: string): Promise<void> {
  const { rows } = await client.query<{ to: string }>(
    `SELECT max(c.period_to) AS to FROM closings c JOIN catalog_contracts k ON k.id = c.contract
     WHERE k.tenant = $1 AND c.measured IS NOT NULL`,
    [tenant],
  )
  const closed = rows[0]?.to ?? null
  if (closed !== null && Number(closed) > from)
    throw new ReleveError(
      'conflict',
      `${field}: lies in a period that was measured for an invoice; the first free moment is ${new Date(Number(closed)).toISOString()}`,
    )
}

type Queryable = Pick<ClientBase | Pool, 'query'>

interface ItemRow {
  id: string
  object: string
  contract: string
  parent: string
  subject: string
  starts_at: string
  ends_at: string
}
const ITEM_COLUMNS = 'id, object, contract, parent, subject, starts_at, ends_at'

const itemOf = (row: ItemRow): ObjectItem => ({
  id: row.id,
  object: row.object,
  contract: row.contract,
  parent: row.parent,
  subject: row.subject,
  from: Number(row.starts_at),
  to: Number(row.ends_at),
})

/** Object items that cover a part of a period, in the order of their subjects, a page in memory. */
export async function* itemsWithin(
  store: Queryable,
  of: {
    readonly tenant: string
    readonly contract?: string
    readonly parent?: string
    readonly after?: string
    readonly period: Period
  },
): AsyncGenerator<ObjectItem> {
  let after = { subject: of.after ?? '', from: of.after === undefined ? -1 : Number.MAX_SAFE_INTEGER }
  for (;;) {
    const { rows } = await store.query<ItemRow>(
      `SELECT ${ITEM_COLUMNS} FROM object_items
       WHERE tenant = $1 AND ($2::text IS NULL OR contract = $2) AND ($3::text IS NULL OR parent = $3) AND starts_at < $4 AND ends_at > $5
         AND (subject, starts_at) > ($6 COLLATE "C", $7)
       ORDER BY subject, starts_at LIMIT $8`,
      [
        of.tenant,
        of.contract ?? null,
        of.parent ?? null,
        of.period.to,
        of.period.from,
        after.subject,
        after.from,
        limits.objectsPageMax,
      ],
    )
    for (const row of rows) yield itemOf(row)
    if (rows.length < limits.objectsPageMax) return
    after = { subject: rows.at(-1)!.subject, from: Number(rows.at(-1)!.starts_at) }
  }
}

/** Object items of one subject at an instant. */
export async function boundTo(store: Queryable, tenant: string, subject: string, at: number): Promise<ObjectItem[]> {
  const { rows } = await store.query<ItemRow>(
    `SELECT ${ITEM_COLUMNS} FROM object_items WHERE tenant = $1 AND subject = $2 AND starts_at <= $3 AND ends_at > $3 LIMIT $4`,
    [tenant, subject, at, limits.pageMax],
  )
  return rows.map(itemOf)
}

/** Where object items of a tenant begin and end within a period: few days, however many objects. */
export async function boundsWithin(store: Queryable, tenant: string, period: Period): Promise<Period[]> {
  const { rows } = await store.query<{ starts_at: string; ends_at: string }>(
    'SELECT DISTINCT starts_at, ends_at FROM object_items WHERE tenant = $1 AND starts_at < $2 AND ends_at > $3',
    [tenant, period.to, period.from],
  )
  return rows.map((row) => ({ from: Number(row.starts_at), to: Number(row.ends_at) }))
}

export async function knownItems(
  store: Queryable,
  items: readonly { readonly contract: string; readonly item: string }[],
): Promise<ReadonlySet<string>> {
  if (items.length === 0) return new Set()
  const { rows } = await store.query<{ contract: string; id: string }>(
    `SELECT contract, id FROM object_items WHERE id = ANY($1)`,
    [[...new Set(items.map((one) => one.item))]],
  )
  return new Set(rows.map((row) => `${row.contract} ${row.id}`))
}

function kept(row: Row): KeptObject {
  return {
    id: row.id,
    serial: String(row.serial),
    subject: row.subject,
    kind: row.kind,
    attributes: row.attributes,
    tenant: row.tenant,
    contract: row.contract,
    item: row.item,
    state: row.state,
    createdAt: Number(row.created_at),
    changedAt: Number(row.changed_at),
  }
}
