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

test('a key with an end => valid until then, not from then on; the end can be moved and taken away', async () => {
  const end = t.clock.now() + 1000
  const { key, secret } = await t.system.keys.create({ name: 'guest', tenant: null, scopes: ['read'], expiresAt: end })
  t.clock.set(end - 1)
  expect(check(secret)).toMatchObject({ id: key.id, expiresAt: end })
  expect(await t.system.keys.change(key.id, { expiresAt: end + 1 })).toMatchObject({ expiresAt: end + 1 })
  t.clock.set(end)
  expect(check(secret)).toBeDefined()
  expect(await t.system.keys.change(key.id, { expiresAt: null })).toMatchObject({ expiresAt: null })
  t.clock.set(end + 1)
  expect(check(secret)).toBeDefined()
  await expect(t.system.keys.change(key.id, { expiresAt: t.clock.now() })).rejects.toMatchObject({
    code: 'unprocessable',
  })
  await t.system.keys.change(key.id, { expiresAt: t.clock.now() + 1 })
  t.clock.advance(1)
  expect(check(secret)).toBeUndefined()
  await expect(t.system.keys.change(key.id, { expiresAt: null })).rejects.toMatchObject({ code: 'conflict' })
  await expect(t.system.keys.rotate(key.id, 0)).rejects.toMatchObject({ code: 'conflict' })
})

test('a rotated key => the old secret is valid for the overlap and not longer, and of older ones none', async () => {
  const { key, secret: first } = await t.system.keys.create({ name: 'turned', tenant: 'alpha', scopes: ['ingest'] })
  const { secret: second, key: turned } = await t.system.keys.rotate(key.id, 1000)
  expect(turned).toMatchObject({ id: key.id, tenant: 'alpha', previousUntil: t.clock.now() + 1000 })
  expect(second).not.toBe(first)
  expect([check(first)?.id, check(second)?.id]).toEqual([key.id, key.id])
  await t.reopen()
  t.clock.advance(999)
  expect([check(first)?.id, check(second)?.id]).toEqual([key.id, key.id])
  t.clock.advance(1)
  expect([check(first)?.id, check(second)?.id]).toEqual([undefined, key.id])

  const { secret: third } = await t.system.keys.rotate(key.id, 60_000)
  const { secret: fourth } = await t.system.keys.rotate(key.id, 60_000)
  expect([first, second, third, fourth].map((secret) => check(secret)?.id)).toEqual([
    undefined,
    undefined,
    key.id,
    key.id,
  ])
  const { secret: fifth } = await t.system.keys.rotate(key.id, 0)
  expect([fourth, fifth].map((secret) => check(secret)?.id)).toEqual([undefined, key.id])
  await t.system.keys.revoke(key.id)
  expect(check(fifth)).toBeUndefined()
  await expect(t.system.keys.rotate(key.id, 0)).rejects.toMatchObject({ code: 'conflict' })
})

test('rotations at once => each that is answered has its turn, the others are told, and one secret is valid', async () => {
  const { key } = await t.system.keys.create({ name: 'raced', tenant: null, scopes: ['read'] })
  const all = await Promise.allSettled(Array.from({ length: 8 }, () => t.system.keys.rotate(key.id, 0)))
  const valid = all.filter((one) => one.status === 'fulfilled' && check(one.value.secret)?.id === key.id)
  expect(valid).toHaveLength(1)
  for (const one of all) if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'conflict' })
})

test('the admin key of the first start is rotated => its file has the new secret', async () => {
  const old = adminKey()
  const { secret } = await t.system.keys.rotate(check(old)!.id, 0)
  expect(adminKey()).toBe(secret)
  expect(statSync(t.system.keys.adminKeyFile).mode & 0o777).toBe(0o600)
  expect([check(old), check(secret)?.name]).toEqual([undefined, 'admin (first start)'])
})
