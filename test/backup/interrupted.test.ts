/** A backup that is cut off by SIGKILL: the service goes on as if it had never been begun, and the next backup clears what is left. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type BackupState, listBackups, restoreBackup, verifyBackup } from '../../src/backup.js'
import { openService, type Service } from '../service-process.js'

const root = mkdtempSync(join(tmpdir(), 'releve-interrupted-'))
const backups = join(root, 'backups')
let service: Service
beforeAll(async () => {
  service = await openService({ RELEVE_BACKUPS: backups })
})
afterAll(async () => {
  await service?.close()
  rmSync(root, { recursive: true, force: true })
})

test('killed in the middle of a backup => nothing that looks like one; the service is right, and the next backup is whole', async () => {
  const events = Array.from({ length: 500 }, (_, i) => ({ id: `b${i}`, tenant: 'acme', metric: 'kyc' }))
  await service.call('POST', '/v1/events?wait=applied', events)
  await service.call('POST', '/v1/backups')
  // As soon as there is a directory of it.
  for (;;) {
    let made: string[] = []
    try {
      made = readdirSync(backups)
    } catch {
      // Not yet.
    }
    if (made.length > 0) break
    await sleep(1)
  }
  await service.kill()
  const left = readdirSync(backups)
  expect(left).toEqual([expect.stringMatching(/\.partial$/)])
  expect(await listBackups(backups)).toEqual([])
  await expect(restoreBackup(join(backups, left[0]!), join(root, 'restored'))).rejects.toThrow(/no finished backup/)

  await service.start()
  expect(await service.call('POST', '/v1/events?wait=applied', events)).toMatchObject({
    applied: { accepted: 0, duplicate: 500 },
  })
  await service.call('POST', '/v1/backups')
  let state = await service.call<BackupState>('GET', '/v1/backups/current')
  while (state.state === 'running') {
    await sleep(50)
    state = await service.call<BackupState>('GET', '/v1/backups/current')
  }
  expect(state).toMatchObject({ state: 'done', error: null })
  expect(readdirSync(backups)).toEqual(await listBackups(backups))
  await verifyBackup(state.directory)
  expect(await service.call('POST', '/v1/audit')).toMatchObject({ ok: true })
})
