/**
 * API keys: who may do what. A key is `rlv_<id>_<secret>`; PostgreSQL holds the SHA-256 of the secret, never the secret. A key
 * is bound to one tenant or is platform-wide, and has scopes.
 *
 * The keys live in memory (there are few), so that a request costs one hash and no query; a change is read again at once here
 * and within a minute by other processes.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Pool } from 'pg'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'

/** `manage`: a tenant's own webhooks, recipients, alert rules and limits; `admin` includes it, for every tenant. */
export const Scope = ['ingest', 'read', 'manage', 'admin'] as const
export type Scope = (typeof Scope)[number]

export interface ApiKey {
  readonly id: string
  readonly name: string
  /** null: platform-wide. */
  readonly tenant: string | null
  readonly scopes: readonly Scope[]
  readonly createdAt: number
  readonly revokedAt: number | null
}

interface StoredKey extends ApiKey {
  readonly secretHash: Buffer
}

export interface Keys {
  /** The key of an Authorization header, or undefined: unknown, revoked, wrong, absent. Same work whatever is wrong. */
  check(authorization: string | undefined): ApiKey | undefined
  create(input: {
    name: string
    tenant: string | null
    scopes: readonly Scope[]
  }): Promise<{ key: ApiKey; secret: string }>
  list(): readonly ApiKey[]
  revoke(id: string): Promise<ApiKey>
  /** Where the admin key of the first start lies. */
  readonly adminKeyFile: string
  close(): void
}

const REFRESH_MS = 60_000
const hash = (secret: string): Buffer => createHash('sha256').update(secret).digest()
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

  const refresh = async (): Promise<void> => {
    const { rows } = await postgres.query(
      'SELECT id, name, secret_hash, tenant, scopes, created_at, revoked_at FROM api_keys',
    )
    byId = new Map(
      rows.map((row) => [
        row.id as string,
        {
          id: row.id,
          name: row.name,
          tenant: row.tenant,
          scopes: row.scopes,
          createdAt: Number(row.created_at),
          revokedAt: row.revoked_at === null ? null : Number(row.revoked_at),
          secretHash: row.secret_hash,
        },
      ]),
    )
  }

  const insert = async (
    name: string,
    tenant: string | null,
    scopes: readonly Scope[],
  ): Promise<{ id: string; secret: string }> => {
    const id = randomBytes(6).toString('hex')
    const secret = `rlv_${id}_${randomBytes(24).toString('base64url')}`
    await postgres.query(
      'INSERT INTO api_keys (id, name, secret_hash, tenant, scopes, created_at) VALUES ($1, $2, $3, $4, $5, $6)',
      [id, name, hash(secret), tenant, scopes, clock.now()],
    )
    await refresh()
    return { id, secret }
  }

  const view = ({ secretHash: _, ...key }: StoredKey): ApiKey => key

  const find = (authorization: string | undefined): StoredKey | undefined => {
    const match = /^Bearer (rlv_([0-9a-f]{12})_[A-Za-z0-9_-]{32})$/.exec(bearer(authorization ?? ''))
    const stored = byId.get(match?.[2] ?? '')
    const equal = timingSafeEqual(hash(match?.[1] ?? ''), stored?.secretHash ?? nobody)
    return equal && stored !== undefined && stored.revokedAt === null ? stored : undefined
  }

  await refresh()
  // A crash between the file and the row leaves a file whose key is not known: made again.
  const written = existsSync(adminKeyFile) ? readFileSync(adminKeyFile, 'utf8').trim() : ''
  if (
    find(`Bearer ${written}`) === undefined &&
    ![...byId.values()].some(
      (k) =>
        k.scopes.includes('admin') && k.tenant === null && k.revokedAt === null && k.name !== 'admin (first start)',
    )
  ) {
    const { secret } = await insert('admin (first start)', null, ['ingest', 'read', 'admin'])
    writeFileSync(adminKeyFile, `${secret}\n`, { mode: 0o600 })
    chmodSync(adminKeyFile, 0o600)
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
    async create({ name, tenant, scopes }) {
      if (tenant !== null && scopes.includes('admin')) {
        throw new ReleveError(
          'unprocessable',
          'the scope admin is for platform-wide keys: leave tenant out, or choose ingest, read and manage',
        )
      }
      const { id, secret } = await insert(name, tenant, scopes)
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
