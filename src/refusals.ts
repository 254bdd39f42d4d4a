/**
 * Refusals: what the door refused and what the shard found in conflict, listed, taken out, mended and sent again. ClickHouse has the rows, which never
 * change; that one was sent again is a row in PostgreSQL, written after its event was counted. So a resend that dies in between,
 * or is made twice, costs a duplicate and nothing else.
 *
 * A reject is named by where it stands: receivedAt-position-stream, and c for a conflict or r for a refusal.
 */
import type { Pool } from 'pg'
import type { Clock } from './clock.js'
import { ReleveError } from './errors.js'
import type { BodyFormat } from './ingest/ingest.js'
import { BRACE, JsonReader } from './ingest/json.js'
import type { RefusalCode } from './ingest/verdict.js'
import { limits } from './limits.js'
import { DAY_MS, parseMoment } from './period.js'
import type { Rollup } from './rollup/rollup.js'

export interface RejectQuery {
  /** null: every tenant; empty: of events whose tenant nobody could read. */
  readonly tenant: string | null
  readonly code?: string | undefined
  readonly metric?: string | undefined
  /** RFC 3339 or epoch ms, of receivedAt; a week back without one. */
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly state?: 'open' | 'resent' | undefined
  /** `next` of the page before. */
  readonly after?: string | undefined
  /** Rows that are looked at; fewer come out when `state` leaves some out. */
  readonly limit: number
}

export interface Reject {
  readonly reject: string
  readonly receivedAt: string
  readonly tenant: string
  readonly code: RefusalCode | 'conflict'
  readonly field: string
  readonly message: string
  readonly source: string
  readonly id: string
  readonly metric: string
  /** The beginning of the event as it came, at most limits.refusalRawBytesMax bytes. */
  readonly raw: string
  readonly resentAt: string | null
}

/** One event to send again: mended, or as it came. */
export interface ResendItem {
  readonly reject: string
  /** Only with a platform-wide key: another tenant than the reject has. */
  readonly tenant?: string
  /** The JSON text of the event; as it came when there is none. */
  readonly event?: string
}

export type ResendOutcome = 'accepted' | 'duplicate' | 'conflict' | 'refused' | 'already' | 'missing' | 'incomplete'

export interface ResendAnswer {
  /** Counted now, or found to be counted already. */
  readonly resent: number
  readonly results: readonly {
    readonly reject: string
    readonly outcome: ResendOutcome
    readonly code?: string
    readonly field?: string
    readonly message?: string
  }[]
}

/** What resending needs of the door. */
export type IngestAgain = (request: {
  body: Uint8Array
  format: BodyFormat
  tenant: string | null
  wait: true
}) => Promise<{
  readonly refusals: readonly { index: number; code: string; field: string; message: string }[]
  readonly applied?: { readonly verdicts: readonly string[] }
}>

interface Place {
  readonly at: number
  readonly position: string
  readonly stream: number
  readonly conflict: number
}

function placeOf(name: string, field: string): Place {
  const match = /^([0-9]{1,15})-([0-9]{1,19})-([0-9]{1,5})([cr])$/.exec(name)
  if (match === null) throw new ReleveError('invalid_request', `${field}: «${name.slice(0, 64)}» names no reject`)
  return { at: Number(match[1]), position: match[2]!, stream: Number(match[3]), conflict: match[4] === 'c' ? 1 : 0 }
}

/** The members of one JSON object, or null when the text is anything else. */
export function membersOf(text: string): ReadonlySet<string> | null {
  const reader = new JsonReader()
  const names = new Set<string>()
  try {
    reader.begin(Buffer.from(text))
    if (reader.peek() !== BRACE) return null
    reader.enterObject()
    for (let name = reader.nextName(); name !== null; name = reader.nextName()) {
      names.add(name)
      reader.skip()
    }
    reader.finish()
    return names
  } catch (error) {
    if (error instanceof ReleveError) return null
    throw error
  }
}

/**
 * The items of a body: an array, or one a line. The lines of an export are such items too: what is not `reject`, `tenant` or
 * `event` is for people. Events stay text, since a number is read by its digits.
 */
export function readResends(body: Uint8Array, lines: boolean): ResendItem[] {
  const reader = new JsonReader()
  const items: ResendItem[] = []
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const readOne = (): void => {
    if (items.length === limits.resendMax)
      throw new ReleveError('body_too_large', `more than ${limits.resendMax} events to send again (limits.resendMax)`)
    const where = `item ${items.length}`
    const item: { reject?: string; tenant?: string; event?: string } = {}
    if (reader.peek() !== BRACE) throw new ReleveError('malformed_body', `${where} must be an object with a reject`)
    reader.enterObject()
    for (let name = reader.nextName(); name !== null; name = reader.nextName()) {
      reader.peek()
      const start = reader.at
      reader.skip()
      const text = bytes.toString('utf8', start, reader.at)
      if (name === 'event') {
        if (text !== 'null') item.event = text
      } else if (name === 'reject' || name === 'tenant') {
        const value: unknown = JSON.parse(text)
        if (typeof value !== 'string') throw new ReleveError('malformed_body', `${where}.${name} must be a string`)
        item[name] = value
      }
    }
    if (item.reject === undefined) throw new ReleveError('malformed_body', `${where}.reject is missing`)
    items.push({ ...item, reject: item.reject })
  }
  reader.begin(bytes)
  if (lines) {
    while (!reader.isBlank()) readOne()
    return items
  }
  reader.enterArray()
  while (reader.nextElement()) readOne()
  reader.finish()
  return items
}

/** A line of an export: the event as JSON where it is whole, its beginning as text where it is not. */
export function exportLine({ raw, ...reject }: Reject): string {
  const head = JSON.stringify(reject).slice(0, -1)
  // A line break of JSON stands between its tokens only, never inside a text.
  return membersOf(raw) === null
    ? `${head},"raw":${JSON.stringify(raw)}}\n`
    : `${head},"event":${raw.replaceAll(/[\r\n]/g, ' ')}}\n`
}

export class Refusals {
  readonly #rollup: Rollup
  readonly #postgres: Pool
  readonly #clock: Clock
  readonly #ingest: IngestAgain

  constructor(room: { rollup: Rollup; postgres: Pool; clock: Clock; ingest: IngestAgain }) {
    this.#rollup = room.rollup
    this.#postgres = room.postgres
    this.#clock = room.clock
    this.#ingest = room.ingest
  }

  /** Newest first. */
  async list(query: RejectQuery): Promise<{ rejects: Reject[]; next: string | null }> {
    const now = this.#clock.now()
    const after = query.after === undefined ? undefined : placeOf(query.after, 'after')
    const rows = await this.#rows(
      `({anyTenant:UInt8} = 1 OR tenant = {tenant:String}) AND ({code:String} = '' OR code = {code:String})
  AND ({metric:String} = '' OR metric = {metric:String})
  AND received_at >= fromUnixTimestamp64Milli({from:Int64}) AND received_at < fromUnixTimestamp64Milli({to:Int64})
  AND ({first:UInt8} = 1 OR (received_at, position, stream, code = 'conflict') <
    (fromUnixTimestamp64Milli({at:Int64}), {position:UInt64}, {stream:UInt16}, {conflict:UInt8}))`,
      {
        anyTenant: query.tenant === null ? 1 : 0,
        tenant: query.tenant ?? '',
        code: query.code ?? '',
        metric: query.metric ?? '',
        from: query.from === undefined ? now - 7 * DAY_MS : parseMoment('from', query.from),
        to: query.to === undefined ? now + DAY_MS : parseMoment('to', query.to),
        first: after === undefined ? 1 : 0,
        ...(after ?? { at: 0, position: '0', stream: 0, conflict: 0 }),
        limit: query.limit,
      },
    )
    const { state } = query
    return {
      rejects: rows.filter(({ resentAt }) => state === undefined || (state === 'resent') === (resentAt !== null)),
      next: rows.length < query.limit ? null : rows.at(-1)!.reject,
    }
  }

  /** Page after page, so that an export of any size is held one page at a time. */
  async *pages(query: Omit<RejectQuery, 'limit'>): AsyncGenerator<Reject[]> {
    let after = query.after
    for (;;) {
      const page = await this.list({ ...query, after, limit: limits.pageMax })
      if (page.rejects.length > 0) yield page.rejects
      if (page.next === null) return
      after = page.next
    }
  }

  /** `tenant`: the key's; null for a platform-wide one. */
  async resend(items: readonly ResendItem[], tenant: string | null): Promise<ResendAnswer> {
    const rows = await this.#named(
      items.map(({ reject }) => reject),
      tenant,
    )
    const results: { reject: string; outcome: ResendOutcome; code?: string; field?: string; message?: string }[] = []
    const groups = new Map<string, { tenant: string | null; format: BodyFormat; index: number[]; events: string[] }>()
    for (const [i, item] of items.entries()) {
      const row = rows.get(item.reject)
      results[i] = { reject: item.reject, outcome: row === undefined ? 'missing' : 'already' }
      if (row === undefined || row.resentAt !== null) continue
      const text = item.event ?? row.raw
      const members = membersOf(text)
      if (members === null) {
        const message =
          item.event === undefined
            ? 'what was kept of the event is not the whole of it: send the event'
            : 'the event is no JSON object'
        results[i] = { reject: item.reject, outcome: 'incomplete', message }
        continue
      }
      const format = members.has('specversion') ? 'cloudevents-batch' : 'json'
      const own = tenant ?? item.tenant ?? (row.tenant === '' ? null : row.tenant)
      const key = JSON.stringify([format, own])
      const group = groups.get(key) ?? { tenant: own, format, index: [], events: [] }
      groups.set(key, group)
      group.index.push(i)
      // An event without a time happened when it came first, not when it is sent again.
      group.events.push(
        members.has('time')
          ? text
          : text.replace(/\}\s*$/, `${members.size > 0 ? ',' : ''}"time":"${row.receivedAt}"}`),
      )
    }
    for (const { index, events, ...request } of groups.values()) {
      const body = Buffer.from(`[${events.join(',')}]`)
      const { refusals, applied } = await this.#ingest({ ...request, body, wait: true })
      for (const [n, verdict] of applied!.verdicts.entries()) {
        const i = index[n]!
        const why = refusals.find((refusal) => refusal.index === n)
        results[i] = {
          reject: items[i]!.reject,
          outcome: verdict as ResendOutcome,
          ...(why === undefined ? {} : { code: why.code, field: why.field, message: why.message }),
        }
      }
    }
    const counted = results.filter(({ outcome }) => outcome === 'accepted' || outcome === 'duplicate')
    await this.#postgres.query(
      'INSERT INTO reject_resends (reject, resent_at) SELECT unnest($1::text[]), $2 ON CONFLICT DO NOTHING',
      [counted.map(({ reject }) => reject), this.#clock.now()],
    )
    return { resent: counted.length, results }
  }

  async #named(names: readonly string[], tenant: string | null): Promise<Map<string, Reject>> {
    if (names.length === 0) return new Map()
    const places = names.map((name, i) => placeOf(name, `item ${i}.reject`))
    const times = places.map(({ at }) => at)
    const rows = await this.#rows(
      `({anyTenant:UInt8} = 1 OR tenant = {tenant:String})
  AND received_at >= fromUnixTimestamp64Milli({from:Int64}) AND received_at <= fromUnixTimestamp64Milli({to:Int64})
  AND concat(toString(toUnixTimestamp64Milli(received_at)), '-', toString(position), '-', toString(stream),
    if(code = 'conflict', 'c', 'r')) IN {names:Array(String)}`,
      {
        anyTenant: tenant === null ? 1 : 0,
        tenant: tenant ?? '',
        from: Math.min(...times),
        to: Math.max(...times),
        names,
        limit: names.length,
      },
    )
    return new Map(rows.map((row) => [row.reject, row]))
  }

  async #rows(where: string, params: Record<string, unknown>): Promise<Reject[]> {
    const rows = await this.#rollup.rowsOf<Omit<Reject, 'receivedAt' | 'resentAt'> & { at: string }>(
      `SELECT concat(toString(toUnixTimestamp64Milli(received_at)), '-', toString(position), '-', toString(stream),
  if(code = 'conflict', 'c', 'r')) AS reject, tenant, code, field, message, source, id, metric, raw,
  toString(toUnixTimestamp64Milli(received_at)) AS at
FROM ingest_rejects WHERE ${where}
ORDER BY received_at DESC, position DESC, stream DESC, code = 'conflict' DESC LIMIT {limit:UInt32}`,
      params,
    )
    const found = await this.#postgres.query('SELECT reject, resent_at FROM reject_resends WHERE reject = ANY($1)', [
      rows.map(({ reject }) => reject),
    ])
    const resent = new Map<string, number>(found.rows.map((row) => [row.reject, Number(row.resent_at)]))
    return rows.map(({ at, ...row }) => {
      const again = resent.get(row.reject)
      return {
        ...row,
        receivedAt: new Date(Number(at)).toISOString(),
        resentAt: again === undefined ? null : new Date(again).toISOString(),
      }
    })
  }
}
