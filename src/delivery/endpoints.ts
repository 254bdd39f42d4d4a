/**
 * Endpoints: who is told, by webhook or by e-mail, for one tenant or for the whole platform. All of them are held in memory (their
 * number is bounded), and PostgreSQL has them; only this process changes them.
 *
 * A secret is in the answer that made it and nowhere else. After a rotation the old one signs beside the new one for a while.
 */
import { randomBytes } from 'node:crypto'
import type { Pool } from 'pg'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import type { Language } from '../format.js'
import { limits } from '../limits.js'
import type { AddressGuard } from './address.js'
import { isTold } from './events.js'
import type { SecretBox } from './secret-box.js'
import { newSecret } from './sign.js'

export type Channel = 'webhook' | 'email'

export interface Endpoint {
  readonly id: string
  readonly channel: Channel
  /** null: platform-wide, told of every tenant. */
  readonly tenant: string | null
  /** URL or address. */
  readonly target: string
  readonly language: Language
  readonly description: string
  /** Types of events: «alert.triggered», «alert.*» or «*». */
  readonly events: readonly string[]
  /** null: of every metric, of every rule. */
  readonly metrics: readonly string[] | null
  readonly rules: readonly string[] | null
  readonly state: 'enabled' | 'disabled'
  /** Why it is disabled. */
  readonly reason: string | null
  /** First failure since the last success, epoch ms. */
  readonly failingSince: number | null
  /** Until when the secret before the last rotation signs too. */
  readonly previousUntil: number | null
  readonly createdAt: number
  readonly changedAt: number
}

export interface EndpointInput {
  readonly tenant: string | null
  readonly target: string
  readonly language?: Language | undefined
  readonly description?: string | undefined
  readonly events?: readonly string[] | undefined
  readonly metrics?: readonly string[] | null | undefined
  readonly rules?: readonly string[] | null | undefined
}

export interface EndpointChange extends Partial<Omit<EndpointInput, 'tenant'>> {
  readonly state?: 'enabled' | 'disabled' | undefined
}

interface Stored extends Endpoint {
  readonly secret: Buffer | null
  readonly previousSecret: Buffer | null
}

/** Letters, digits and the marks of an address; no blank, no line end: it goes into a header. */
const ADDRESS =
  /^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$/

const numberOrNull = (value: unknown): number | null => (value === null ? null : Number(value))

function fromRow(row: Record<string, unknown>): Stored {
  return {
    id: row.id as string,
    channel: row.channel as Channel,
    tenant: row.tenant as string | null,
    target: row.target as string,
    language: row.language as Language,
    description: row.description as string,
    events: row.events as string[],
    metrics: row.metrics as string[] | null,
    rules: row.rules as string[] | null,
    state: row.state as Endpoint['state'],
    reason: row.reason as string | null,
    failingSince: numberOrNull(row.failing_since),
    previousUntil: numberOrNull(row.previous_until),
    createdAt: Number(row.created_at),
    changedAt: Number(row.changed_at),
    secret: row.secret as Buffer | null,
    previousSecret: row.previous_secret as Buffer | null,
  }
}

/** What an API may show. */
const view = ({ secret: _, previousSecret: __, ...endpoint }: Stored): Endpoint => endpoint

export type Endpoints = Awaited<ReturnType<typeof openEndpoints>>

export async function openEndpoints(options: {
  readonly postgres: Pool
  readonly clock: Clock
  readonly box: SecretBox
  readonly guard: AddressGuard
}) {
  const { postgres, clock, box, guard } = options
  const { rows: all } = await postgres.query('SELECT * FROM delivery_endpoints ORDER BY created_at, id')
  const byId = new Map<string, Stored>(all.map((row) => [row.id as string, fromRow(row)]))

  const keep = (row: Record<string, unknown>): Stored => {
    const stored = fromRow(row)
    byId.set(stored.id, stored)
    return stored
  }

  /** The endpoint, when this tenant may speak of it (null: any). Another tenant's is not found, like one that never was. */
  const find = (channel: Channel, id: string, tenant: string | null): Stored => {
    const stored = byId.get(id)
    if (stored === undefined || stored.channel !== channel || (tenant !== null && stored.tenant !== tenant))
      throw new ReleveError('not_found', `there is no ${channel} ${id}`)
    return stored
  }

  const checkTarget = async (channel: Channel, target: string): Promise<string> => {
    if (channel === 'email') {
      if (!ADDRESS.test(target)) throw new ReleveError('unprocessable', 'address: is not an e-mail address')
      return target
    }
    if (!URL.canParse(target)) throw new ReleveError('unprocessable', 'url: is not a URL')
    const url = new URL(target)
    url.hash = ''
    await guard.checkResolved(url)
    return url.href
  }

  const checkEvents = (events: readonly string[]): void => {
    const wrong = events.find((event) => !isTold(event))
    if (wrong !== undefined)
      throw new ReleveError(
        'unprocessable',
        `events: «${wrong}» is none; write a type of GET /v1/webhooks/event-types, a family such as alert.*, or *`,
      )
  }

  const list = (channel: Channel, tenant: string | null): Endpoint[] =>
    [...byId.values()].filter((e) => e.channel === channel && (tenant === null || e.tenant === tenant)).map(view)

  async function create(
    channel: Channel,
    input: EndpointInput,
  ): Promise<{ endpoint: Endpoint; secret: string | null }> {
    const events = input.events ?? ['alert.*']
    checkEvents(events)
    const target = await checkTarget(channel, input.target)
    // The bounds are asked after the last wait, so that two creations do not pass them together.
    const mine = [...byId.values()].filter((e) => e.tenant === input.tenant)
    if (byId.size >= limits.endpointsMax)
      throw new ReleveError('unprocessable', `there are ${limits.endpointsMax} endpoints: delete one first`)
    if (mine.length >= limits.tenantEndpointsMax)
      throw new ReleveError(
        'unprocessable',
        `${input.tenant ?? 'the platform'} has ${mine.length} endpoints: delete one first`,
      )
    const id = `${channel === 'webhook' ? 'wh' : 'em'}_${randomBytes(9).toString('hex')}`
    const secret = channel === 'webhook' ? newSecret() : null
    const { rows } = await postgres.query(
      `INSERT INTO delivery_endpoints (id, channel, tenant, target, language, description, events, metrics, rules, state, secret,
         created_at, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'enabled', $10, $11, $11) RETURNING *`,
      [
        id,
        channel,
        input.tenant,
        target,
        input.language ?? 'fr',
        input.description ?? '',
        events,
        input.metrics ?? null,
        input.rules ?? null,
        secret === null ? null : box.seal(secret, id),
        clock.now(),
      ],
    )
    return { endpoint: view(keep(rows[0])), secret }
  }

  async function change(channel: Channel, id: string, tenant: string | null, to: EndpointChange): Promise<Endpoint> {
    const before = find(channel, id, tenant)
    if (to.events !== undefined) checkEvents(to.events)
    const target = to.target === undefined ? before.target : await checkTarget(channel, to.target)
    const state = to.state ?? before.state
    const reason = state === 'enabled' ? null : before.state === 'disabled' ? before.reason : 'by request'
    const { rows } = await postgres.query(
      `UPDATE delivery_endpoints SET target = $2, language = $3, description = $4, events = $5, metrics = $6, rules = $7, state = $8,
         reason = $9, failing_since = CASE WHEN $8 = 'enabled' AND state = 'disabled' THEN NULL ELSE failing_since END, changed_at = $10
       WHERE id = $1 RETURNING *`,
      [
        id,
        target,
        to.language ?? before.language,
        to.description ?? before.description,
        to.events ?? before.events,
        to.metrics === undefined ? before.metrics : to.metrics,
        to.rules === undefined ? before.rules : to.rules,
        state,
        reason,
        clock.now(),
      ],
    )
    if (rows[0] === undefined) throw new ReleveError('not_found', `there is no ${channel} ${id}`)
    return view(keep(rows[0]))
  }

  /** Does nothing to one that is not there any more. */
  async function disable(id: string, reason: string): Promise<void> {
    const { rows } = await postgres.query(
      `UPDATE delivery_endpoints SET state = 'disabled', reason = $2, changed_at = $3 WHERE id = $1 RETURNING *`,
      [id, reason, clock.now()],
    )
    if (rows[0] !== undefined) keep(rows[0])
  }

  async function markFailing(id: string, since: number | null): Promise<void> {
    const { rows } = await postgres.query(
      `UPDATE delivery_endpoints SET failing_since = CASE WHEN $2::bigint IS NULL THEN NULL ELSE coalesce(failing_since, $2) END
       WHERE id = $1 RETURNING *`,
      [id, since],
    )
    if (rows[0] !== undefined) keep(rows[0])
  }

  /** The new secret. The old one signs too for `overlapMs`; one that was still signing from an earlier rotation ends now. */
  async function rotate(
    id: string,
    tenant: string | null,
    overlapMs: number,
  ): Promise<{ endpoint: Endpoint; secret: string }> {
    find('webhook', id, tenant)
    const secret = newSecret()
    const now = clock.now()
    const { rows } = await postgres.query(
      `UPDATE delivery_endpoints SET previous_secret = CASE WHEN $3 > 0 THEN secret END,
         previous_until = CASE WHEN $3 > 0 THEN $4::bigint + $3 END, secret = $2, changed_at = $4 WHERE id = $1 RETURNING *`,
      [id, box.seal(secret, id), overlapMs, now],
    )
    if (rows[0] === undefined) throw new ReleveError('not_found', `there is no webhook ${id}`)
    return { endpoint: view(keep(rows[0])), secret }
  }

  /** With it go its deliveries and its dead letters. */
  async function remove(channel: Channel, id: string, tenant: string | null): Promise<Endpoint> {
    const gone = find(channel, id, tenant)
    await postgres.query('DELETE FROM delivery_endpoints WHERE id = $1', [id])
    byId.delete(id)
    return view(gone)
  }

  /** Those that sign now, the newest first. */
  function secretsOf(id: string): string[] {
    const stored = byId.get(id)
    if (stored === undefined || stored.secret === null) return []
    const secrets = [box.open(stored.secret, id)]
    if (stored.previousSecret !== null && clock.now() < (stored.previousUntil ?? 0))
      secrets.push(box.open(stored.previousSecret, id))
    return secrets
  }

  return {
    list,
    get: (channel: Channel, id: string, tenant: string | null): Endpoint => view(find(channel, id, tenant)),
    /** For deliveries: of any channel, undefined when it is gone. */
    peek: (id: string): Endpoint | undefined => {
      const stored = byId.get(id)
      return stored === undefined ? undefined : view(stored)
    },
    all: (): Endpoint[] => [...byId.values()].map(view),
    create,
    change,
    disable,
    markFailing,
    rotate,
    remove,
    secretsOf,
  }
}
