/**
 * API keys: who may do what. A key is `rlv_<id>_<secret>`; PostgreSQL holds the SHA-256 of the secret, never the secret. A key
 * is bound to one tenant or is platform-wide, has scopes, may end at a time, and may have limits (budget.ts). Rotation gives it
 * a new secret; the one before stays valid for an overlap, and no other does.
 *
 * The keys live in memory (there are few), so that a request costs no query, and no hash but the first time; a change is read again at once here
 * and within a minute by other processes.
 */
import { hash as hashOnce, randomBytes, timingSafeEqual } from 'node:crypto'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Pool } from 'pg'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { Budget, type KeyLimits } from './budget.js'

/** `manage`: a tenant's own webhooks, recipients, alert rules and limits; `admin` includes it, for every tenant. */
export const Scope = ['ingest', 'read', 'manage', 'admin'] as const
export type Scope = (typeof Scope)[number]

export interface ApiKey {
  readonly id: string
  readonly name: string
  /** null: platform-wide. */
  readonly tenant: string | null
  readonly scopes: readonly Scope[]
  readonly limits: KeyLimits
  readonly createdAt: number
  /** null: never. */
  readonly expiresAt: number | null
  readonly rotatedAt: number | null
  /** Until then the secret before the rotation is valid too. */
  readonly previousUntil: number | null
  readonly revokedAt: number | null
}

interface StoredKey extends ApiKey {
  readonly secretHash: Buffer
  readonly previousHash: Buffer | null
  /** Undefined for a key without limits. */
  readonly budget: Budget | undefined
  /** What others get to see of it. */
  readonly shown: ApiKey
}

export interface NewKey {
  readonly name: string
  readonly tenant: string | null
  readonly scopes: readonly Scope[]
  readonly limits?: KeyLimits
  readonly expiresAt?: number | null
}

export interface Keys {
  /** The key of an Authorization header, or undefined: unknown, revoked, expired, wrong, absent. Same work whatever is wrong. */
  check(authorization: string | undefined): ApiKey | undefined
  /** What a key may still spend; undefined for one without limits. */
  budgetOf(id: string): Budget | undefined
  create(input: NewKey): Promise<{ key: ApiKey; secret: string }>
  list(): readonly ApiKey[]
  /** Other limits or another end, at once. What is absent stays. */
  change(id: string, to: { limits?: KeyLimits; expiresAt?: number | null }): Promise<ApiKey>
  /** A new secret; the one so far stays valid for `overlapMs`, and one that was before it ends now. */
  rotate(id: string, overlapMs: number): Promise<{ key: ApiKey; secret: string }>
  revoke(id: string): Promise<ApiKey>
  /** Where the admin key of the first start lies. */
  readonly adminKeyFile: string
  close(): void
}

const REFRESH_MS = 60_000
/** At once, not with an object to update: a third of the time, and every request does it. */
const hash = (secret: string): Buffer => hashOnce('sha256', secret, 'buffer')
const nobody = hash('nobody')

/** A browser can only send Basic: the key is the password, the name is anything. */
function bearer(authorization: string): string {
  const basic = /^Basic ([A-Za-z0-9+/=]{1,400})$/.exec(authorization)
  if (basic === null) return authorization
  const text = Buffer.from(basic[1]!, 'base64').toString()
  return `Bearer ${text.slice(text.indexOf(':') + 1)}`
}

/** Makes the admin key at first start, in a file with mode 0600. */
export async function openKeys(options: { postgres: Pool; clock: Clock; dataDirectory: string }): Promise<Keys> {
  const { postgres, clock } = options
  const adminKeyFile = join(options.dataDirectory, 'admin.key')
  let byId = new Map<string, StoredKey>()

  /** A budget lives on while its limits are the same: reading the keys again gives nobody new tokens. */
  const budgetFor = (id: string, of: KeyLimits): Budget | undefined => {
    const known = byId.get(id)
    if (known !== undefined && JSON.stringify(known.limits) === JSON.stringify(of)) return known.budget
    return Object.keys(of).length === 0 ? undefined : new Budget(of, clock.now())
  }
  const time = (value: unknown): number | null => (value === null ? null : Number(value))

  const refresh = async (): Promise<void> => {
    // Live keys are bounded by `create`; of the revoked ones the latest are enough to be listed.
    const { rows } = await postgres.query(
      'SELECT * FROM api_keys ORDER BY revoked_at DESC NULLS FIRST, created_at DESC LIMIT $1',
      [2 * limits.keysMax],
    )
    byId = new Map(
      rows.map((row): [string, StoredKey] => {
        const shown: ApiKey = {
          id: row.id,
          name: row.name,
          tenant: row.tenant,
          scopes: row.scopes,
          limits: row.limits,
          createdAt: Number(row.created_at),
          expiresAt: time(row.expires_at),
          rotatedAt: time(row.rotated_at),
          previousUntil: time(row.previous_until),
          revokedAt: time(row.revoked_at),
        }
        const { secret_hash: secretHash, previous_hash: previousHash } = row
        return [shown.id, { ...shown, secretHash, previousHash, budget: budgetFor(shown.id, row.limits), shown }]
      }),
    )
  }

  const newSecret = (id: string): string => `rlv_${id}_${randomBytes(24).toString('base64url')}`
  const endOf = (expiresAt: number | null | undefined): number | null => {
    if (expiresAt !== undefined && expiresAt !== null && expiresAt <= clock.now())
      throw new ReleveError('unprocessable', 'expiresAt: lies in the past; DELETE ends a key now')
    return expiresAt ?? null
  }

  const insert = async (input: NewKey): Promise<{ id: string; secret: string }> => {
    const id = randomBytes(6).toString('hex')
    const secret = newSecret(id)
    await postgres.query(
      `INSERT INTO api_keys (id, name, secret_hash, tenant, scopes, limits, expires_at, created_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
      [
        id,
        input.name,
        hash(secret),
        input.tenant,
        input.scopes,
        JSON.stringify(input.limits ?? {}),
        endOf(input.expiresAt),
        clock.now(),
      ],
    )
    await refresh()
    return { id, secret }
  }

  const view = ({ shown }: StoredKey): ApiKey => shown
  const isLive = (key: ApiKey): boolean =>
    key.revokedAt === null && (key.expiresAt === null || clock.now() < key.expiresAt)

  /** Of keys that were right before: only their hash is taken from here, everything else is judged again. */
  const hashes = new Map<string, Buffer>()
  const find = (authorization: string | undefined): StoredKey | undefined => {
    const match = /^Bearer (rlv_([0-9a-f]{12})_[A-Za-z0-9_-]{32})$/.exec(bearer(authorization ?? ''))
    const stored = byId.get(match?.[2] ?? '')
    const secret = match?.[1] ?? ''
    const given = hashes.get(secret) ?? hash(secret)
    const isCurrent = timingSafeEqual(given, stored?.secretHash ?? nobody)
    const isPrevious = timingSafeEqual(given, stored?.previousHash ?? nobody)
    if (stored === undefined || !isLive(stored)) return undefined
    if (!isCurrent && !(isPrevious && clock.now() < (stored.previousUntil ?? 0))) return undefined
    if (!hashes.has(secret)) {
      if (hashes.size >= limits.keysMax) hashes.clear()
      hashes.set(secret, given)
    }
    return stored
  }

  /** The key as it is now in the database, which another process may have changed. Throws `not_found`. */
  const liveKey = async (id: string): Promise<StoredKey> => {
    await refresh()
    const stored = byId.get(id)
    if (stored === undefined) throw new ReleveError('not_found', `there is no key ${id}`)
    if (!isLive(stored)) throw new ReleveError('conflict', `the key ${id} has ended: make a new one`)
    return stored
  }

  const writeAdminKey = (secret: string): void => {
    writeFileSync(adminKeyFile, `${secret}\n`, { mode: 0o600 })
    chmodSync(adminKeyFile, 0o600)
  }

  await refresh()
  // A crash between the file and the row leaves a file whose key is not known: made again.
  const written = existsSync(adminKeyFile) ? readFileSync(adminKeyFile, 'utf8').trim() : ''
  if (
    find(`Bearer ${written}`) === undefined &&
    ![...byId.values()].some(
      (k) => k.scopes.includes('admin') && k.tenant === null && isLive(k) && k.name !== 'admin (first start)',
    )
  ) {
    const { secret } = await insert({
      name: 'admin (first start)',
      tenant: null,
      scopes: ['ingest', 'read', 'admin'],
    })
    writeAdminKey(secret)
  }
  const timer = setInterval(() => void refresh().catch(() => {}), REFRESH_MS)
  timer.unref()

  return {
    adminKeyFile,
    check: (authorization) => {
      const stored = find(authorization)
      return stored === undefined ? undefined : view(stored)
    },
    list: () => [...byId.values()].map(view).sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1)),
    budgetOf: (id) => byId.get(id)?.budget,
    async create(input) {
      if (input.tenant !== null && input.scopes.includes('admin')) {
        throw new ReleveError(
          'unprocessable',
          'the scope admin is for platform-wide keys: leave tenant out, or choose ingest, read and manage',
        )
      }
      if ([...byId.values()].filter((key) => key.revokedAt === null).length >= limits.keysMax)
        throw new ReleveError('conflict', `there are ${limits.keysMax} keys: revoke some first`)
      const { id, secret } = await insert(input)
      return { key: view(byId.get(id)!), secret }
    },
    async change(id, to) {
      const { limits: present, expiresAt: end } = await liveKey(id)
      await postgres.query('UPDATE api_keys SET limits = $2, expires_at = $3 WHERE id = $1', [
        id,
        JSON.stringify(to.limits ?? present),
        to.expiresAt === undefined ? end : endOf(to.expiresAt),
      ])
      await refresh()
      return view(byId.get(id)!)
    },
    async rotate(id, overlapMs) {
      const before = await liveKey(id)
      const secret = newSecret(id)
      const now = clock.now()
      const { rowCount } = await postgres.query(
        `UPDATE api_keys SET secret_hash = $2, previous_hash = secret_hash, previous_until = $3, rotated_at = $4
         WHERE id = $1 AND secret_hash = $5`,
        [id, hash(secret), now + overlapMs, now, before.secretHash],
      )
      if (rowCount === 0) throw new ReleveError('conflict', `the key ${id} was rotated by somebody else just now`)
      // The command line works with this file: it follows its key.
      const written = existsSync(adminKeyFile) ? readFileSync(adminKeyFile, 'utf8').trim() : ''
      if (hash(written).equals(before.secretHash)) writeAdminKey(secret)
      await refresh()
      return { key: view(byId.get(id)!), secret }
    },
    async revoke(id) {
      const { rowCount } = await postgres.query(
        'UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1',
        [id, clock.now()],
      )
      if (rowCount === 0) throw new ReleveError('not_found', `there is no key ${id}`)
      await refresh()
      return view(byId.get(id)!)
    },
    close: () => clearInterval(timer),
  }
}
