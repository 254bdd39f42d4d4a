/** Engines that are not this process's own: whether they are there is found by asking, and told like the death of an embedded one. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { type Engines, openEngines } from '../../src/engines/engines.js'
import { silentLogger } from '../../src/logger.js'
import { rootDirectory } from '../../src/paths.js'

const undo: (() => Promise<unknown>)[] = []
afterEach(async () => {
  while (undo.length > 0) await undo.pop()!()
})

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'releve-outside-'))
  undo.push(async () => rmSync(made, { recursive: true, force: true }))
  return made
}

const states = (engines: Engines) => {
  const { clickhouse, postgres } = engines.state()
  return [clickhouse.up, postgres.up]
}

test('servers outside end, and come back => state says so, each time', async () => {
  const theirs = folder()
  const start = async () => {
    const child = spawn(process.execPath, [join(rootDirectory, 'dist/test/engines/service.js'), theirs], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(child.stdout, 'data')
    return async () => {
      if (child.exitCode !== null) return
      child.kill('SIGTERM')
      await once(child, 'exit')
    }
  }
  const stop = await start()
  undo.push(stop)
  const { clickhouse, postgres } = JSON.parse(readFileSync(join(theirs, 'engines.json'), 'utf8')) as Record<
    'clickhouse' | 'postgres',
    { user: string; password: string; port: number }
  >
  const engines = await openEngines({
    dataDirectory: folder(),
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
    clickhouseUrl: `http://${clickhouse.user}:${clickhouse.password}@127.0.0.1:${clickhouse.port}/default`,
    postgresUrl: `postgres://${postgres.user}:${postgres.password}@127.0.0.1:${postgres.port}/postgres`,
  })
  undo.push(() => engines.close())
  expect(states(engines)).toEqual([true, true])
  await stop()
  while (states(engines).some(Boolean)) await sleep(50)
  // The embedded engines of that service keep their ports.
  undo.push(await start())
  while (!states(engines).every(Boolean)) await sleep(50)
})
