/**
 * A backup taken while events come in, restored elsewhere, is the service as it was: the books balance, the audit agrees, every event
 * acknowledged before the backup is known, and sending everything again counts nothing twice. Promises: flow:exactly-once,
 * ingest:ack-after-disk.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { listBackups, restoreBackup, verifyBackup } from '../../src/backup.js'
import { systemClock } from '../../src/clock.js'
import { parseConfig } from '../../src/config.js'
import { silentLogger } from '../../src/logger.js'
import { openSystem, type System } from '../../src/system.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'

let door: DoorSystem
let root: string
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'releve-backup-'))
  door = await openDoorSystem({ RELEVE_BACKUPS: join(root, 'backups') })
})
afterAll(async () => {
  await door.close()
  rmSync(root, { recursive: true, force: true })
})

const at = Date.now()
/** Batch n: 50 events of two tenants, values that are all different powers of the batch's number. */
const batch = (n: number): string =>
  JSON.stringify(
    Array.from({ length: 50 }, (_, i) => ({
      id: `${n}-${i}`,
      tenant: i % 2 === 0 ? 'acme' : 'banque',
      metric: 'kyc',
      subject: `s${i % 7}`,
      time: at - n * 1000,
      value: `${n + 1}.${String(i).padStart(3, '0')}`,
      dims: { region: i % 3 === 0 ? 'ci' : 'sn' },
    })),
  )
/** In thousandths, both tenants together. */
const sumOf = (batches: Iterable<number>): bigint => {
  let sum = 0n
  for (const n of batches) for (let i = 0; i < 50; i += 1) sum += BigInt(n + 1) * 1000n + BigInt(i)
  return sum
}

async function post(url: string, key: string, body: string): Promise<{ accepted: number; duplicate: number }> {
  const answer = await fetch(`${url}/v1/events?wait=applied`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body,
  })
  expect(answer.status).toBe(202)
  return ((await answer.json()) as { applied: { accepted: number; duplicate: number } }).applied
}

async function usageOf(system: System): Promise<bigint> {
  await system.settle()
  const { rows } = await system.engines.clickhouse
    .query({ query: 'SELECT toString(sum(sum)) AS sum FROM usage_minute', format: 'JSON' })
    .then((answer) => answer.json<{ sum: string }>())
    .then(({ data }) => ({ rows: data }))
  const [whole = '0', fraction = ''] = rows[0]!.sum.split('.')
  return BigInt(whole) * 1000n + BigInt(fraction.padEnd(3, '0').slice(0, 3))
}

async function openRestored(directory: string): Promise<System> {
  return openSystem({
    config: parseConfig({ RELEVE_DATA: directory, RELEVE_STREAMS: '2', RELEVE_EPOCH_MS: '200' }),
    clock: systemClock,
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
  })
}

test('a backup under load, restored, has every event acknowledged before it, counts none twice and passes the audit', async () => {
  const acknowledged = new Set<number>()
  let next = 0
  let stop = false
  const send = async (): Promise<void> => {
    while (!stop) {
      const n = next
      next += 1
      await post(door.url, door.adminKey, batch(n))
      acknowledged.add(n)
    }
  }
  const senders = [send(), send(), send()]
  while (acknowledged.size < 40) await sleep(10)

  const before = new Set(acknowledged)
  const admin = { authorization: `Bearer ${door.adminKey}` }
  const begun = await fetch(`${door.url}/v1/backups`, { method: 'POST', headers: admin })
  expect(begun.status).toBe(202)
  // A second one meanwhile is refused.
  expect((await fetch(`${door.url}/v1/backups`, { method: 'POST', headers: admin })).status).toBe(409)
  await door.system.backups.settled()
  const during = acknowledged.size
  while (acknowledged.size < during + 10) await sleep(10)
  stop = true
  await Promise.all(senders)
  const state = door.system.backups.state()!
  expect(state.error).toBeNull()
  // Events were taken while it ran, and after it.
  expect(during).toBeGreaterThan(before.size)

  const manifest = await verifyBackup(state.directory)
  expect(await listBackups(join(root, 'backups'))).toEqual([state.name])
  expect(manifest.files.some(({ path }) => path === 'admin.key')).toBe(true)
  expect(manifest.files.some(({ path }) => path === 'lock' || path === 'service.json')).toBe(false)
  // The service has let go of everything, and is right itself.
  expect(readdirSync(door.system.config.dataDirectory)).not.toContain('backup-pins')
  expect((await door.system.audit()).checks.filter(({ ok }) => !ok)).toEqual([])
  expect(await usageOf(door.system)).toBe(sumOf(acknowledged))

  const restored = join(root, 'restored')
  await restoreBackup(state.directory, restored)
  const system = await openRestored(restored)
  try {
    expect((await system.audit()).checks.filter(({ ok }) => !ok)).toEqual([])
    expect(system.books().balanced).toBe(true)
    // Which batches the backup knows: everything acknowledged before it, and whole batches only.
    const known: number[] = []
    for (let n = 0; n < next; n += 1) {
      const answer = await system.ingest({ body: Buffer.from(batch(n)), format: 'json', tenant: null, wait: true })
      const { accepted, duplicate, conflict } = answer.applied!
      expect(conflict).toBe(0)
      expect(accepted + duplicate).toBe(50)
      if (before.has(n)) expect(duplicate, `batch ${n} was acknowledged before the backup`).toBe(50)
      if (duplicate === 50) known.push(n)
    }
    expect(known.length).toBeLessThan(next)
    // Everything is there now, once.
    expect(await usageOf(system)).toBe(sumOf(Array.from({ length: next }, (_, n) => n)))
    expect((await system.audit()).checks.filter(({ ok }) => !ok)).toEqual([])
    // The keys are the same.
    expect(system.keys.check(`Bearer ${door.acmeKey}`)?.tenant).toBe('acme')
  } finally {
    await system.close()
  }
})

test('a damaged, incomplete or foreign backup is refused with the file, and nothing is restored over something', async () => {
  const [name] = await listBackups(join(root, 'backups'))
  const backup = join(root, 'backups', name!)
  await expect(restoreBackup(backup, join(root, 'restored'))).rejects.toThrow(/holds .* already/)
  await expect(restoreBackup(join(root, 'nothing'), join(root, 'other'))).rejects.toThrow(/no finished backup/)

  const { files } = await verifyBackup(backup)
  const part = files.filter(({ path }) => path.endsWith('data.bin')).sort((a, b) => b.bytes - a.bytes)[0]!
  const path = join(backup, part.path)
  const bytes = readFileSync(path)
  const damaged = Buffer.from(bytes)
  damaged[damaged.length >> 1]! ^= 1
  writeFileSync(path, damaged)
  await expect(restoreBackup(backup, join(root, 'other'))).rejects.toThrow(part.path)
  rmSync(path)
  await expect(restoreBackup(backup, join(root, 'other'))).rejects.toThrow(`${part.path} is missing`)
  writeFileSync(path, bytes)
  writeFileSync(join(backup, 'extra'), '')
  await expect(restoreBackup(backup, join(root, 'other'))).rejects.toThrow('extra does not belong')
  rmSync(join(backup, 'extra'))
  await verifyBackup(backup)
  expect(statSync(backup).mode & 0o077).toBe(0)
})

test('a key bound to a tenant may neither make nor see backups', async () => {
  for (const [method, path] of [
    ['POST', '/v1/backups'],
    ['GET', '/v1/backups'],
    ['GET', '/v1/backups/current'],
  ] as const) {
    const answer = await fetch(`${door.url}${path}`, { method, headers: { authorization: `Bearer ${door.acmeKey}` } })
    expect(answer.status).toBe(403)
  }
})
