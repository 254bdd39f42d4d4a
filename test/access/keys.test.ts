/** API keys: made, used, revoked; the database holds no secret, and the admin key of the first start lies in a private file. */
import { createHash } from 'node:crypto'
import { chmodSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { beforeAll, expect, test } from 'vitest'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem

beforeAll(async () => {
  t = await openTestSystem()
})

const adminKey = (): string => readFileSync(t.system.keys.adminKeyFile, 'utf8').trim()
const check = (secret: string) => t.system.keys.check(`Bearer ${secret}`)

test('the first start => one admin key, in a file that only its owner reads', async () => {
  expect(statSync(t.system.keys.adminKeyFile).mode & 0o777).toBe(0o600)
  expect(check(adminKey())).toMatchObject({ tenant: null, scopes: ['ingest', 'read', 'admin'], revokedAt: null })
  expect(t.system.keys.list()).toHaveLength(1)
})

test('what the database holds is a hash: no part of a secret is in it', async () => {
  const { secret, key } = await t.system.keys.create({ name: 'gateway', tenant: 'alpha', scopes: ['ingest'] })
  const { rows } = await t.system.engines.postgres.query('SELECT * FROM api_keys WHERE id = $1', [key.id])
  expect(rows[0].secret_hash).toEqual(createHash('sha256').update(secret).digest())
  const text = JSON.stringify(rows)
  expect(text).not.toContain(secret.split('_').at(-1))
  expect(JSON.stringify(t.system.keys.list())).not.toContain(secret)
  expect(JSON.stringify(t.system.keys.list())).not.toContain('secretHash')
})

test('a made key works at once, a revoked one never again, and revoking twice keeps the first time', async () => {
  const { secret, key } = await t.system.keys.create({ name: 'short', tenant: null, scopes: ['read'] })
  expect(check(secret)).toMatchObject({ id: key.id, scopes: ['read'] })
  const revoked = await t.system.keys.revoke(key.id)
  expect(check(secret)).toBeUndefined()
  t.clock.advance(1000)
  expect(await t.system.keys.revoke(key.id)).toEqual(revoked)
  await expect(t.system.keys.revoke('nothing')).rejects.toMatchObject({ code: 'not_found' })
})

test('headers that are no key => nobody', () => {
  const secret = adminKey()
  for (const header of [
    undefined,
    '',
    'Bearer',
    'Bearer ',
    secret,
    `bearer ${secret}`,
    `Bearer  ${secret}`,
    `Bearer ${secret} `,
    `Bearer ${secret}x`,
    `Bearer ${secret.slice(0, -1)}`,
    `Bearer ${secret.slice(0, -1)}${secret.endsWith('A') ? 'B' : 'A'}`,
    `Bearer rlv_000000000000_${secret.split('_').slice(2).join('_')}`,
  ]) {
    expect(t.system.keys.check(header), header).toBeUndefined()
  }
})

test('an admin of one tenant cannot be made', async () => {
  await expect(t.system.keys.create({ name: 'x', tenant: 'alpha', scopes: ['read', 'admin'] })).rejects.toMatchObject({
    code: 'unprocessable',
  })
})

test('the admin key is rotated: a new one, the old one revoked => after a restart the new one alone, and no third is made', async () => {
  const old = adminKey()
  const { secret } = await t.system.keys.create({ name: 'operator', tenant: null, scopes: ['read', 'admin'] })
  const first = check(old)!
  await t.system.keys.revoke(first.id)
  const admins = (): string[] =>
    t.system.keys
      .list()
      .filter((k) => k.scopes.includes('admin') && k.revokedAt === null)
      .map((k) => k.name)
  expect(admins()).toEqual(['operator'])
  await t.reopen()
  expect(admins()).toEqual(['operator'])
  expect(check(secret)).toBeDefined()
  expect(check(old)).toBeUndefined()
})

test('nobody has an admin key any more => the next start makes one, and its file is private whatever it was', async () => {
  const operator = t.system.keys.list().find((k) => k.name === 'operator')!
  await t.system.keys.revoke(operator.id)
  await t.reopen(() => {
    rmSync(`${t.config.dataDirectory}/admin.key`)
    writeFileSync(`${t.config.dataDirectory}/admin.key`, 'rlv_nothing\n')
    chmodSync(`${t.config.dataDirectory}/admin.key`, 0o644)
  })
  expect(check(adminKey())).toMatchObject({ scopes: ['ingest', 'read', 'admin'] })
  expect(statSync(t.system.keys.adminKeyFile).mode & 0o777).toBe(0o600)
})
