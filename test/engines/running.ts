/**
 * What the tests of the engines share: data directories that are removed again, the killable service as a child process, and
 * looks at processes. A process counts as ended when it is gone or a zombie: reaping is the init process's part.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, vi } from 'vitest'
import { type Engines, openEngines } from '../../src/engines/engines.js'
import { silentLogger } from '../../src/logger.js'
import { enginesIn, isAlive } from '../processes.js'

export { enginesIn, isAlive }

// The bound of every wait in these tests; starting an engine on a loaded machine takes seconds.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

export interface Service {
  readonly child: ChildProcess
  readonly clickhouse: number
  readonly postgres: number
}

const undo: (() => unknown)[] = []

afterEach(async () => {
  while (undo.length > 0) await undo.pop()!()
})

/** A new directory under the system's temporary one; removed after the test, behind everything opened later. */
export function makeDirectory(owner?: { uid: number; gid: number }): string {
  const directory = mkdtempSync(join(tmpdir(), 'releve-engines-'))
  if (owner) chownSync(directory, owner.uid, owner.gid)
  undo.push(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export async function open(
  directory: string,
  options: { clickhouseUrl?: string; postgresUrl?: string; onFatal?: (error: Error) => void } = {},
): Promise<Engines> {
  const fail = (error: Error): void => {
    throw error
  }
  const engines = await openEngines({ dataDirectory: directory, logger: silentLogger, onFatal: fail, ...options })
  undo.push(() => engines.close())
  return engines
}

/** The service of service.ts in a process of its own, once it is ready. */
export async function startService(directory: string, owner?: { uid: number; gid: number }): Promise<Service> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./service.js', import.meta.url)), directory], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: '/',
    ...owner,
  })
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  const exited = once(child, 'exit')
  undo.push(async () => {
    child.kill('SIGKILL')
    await exited
    await ended(enginesIn(directory))
  })
  const line = await Promise.race([once(createInterface(child.stdout), 'line'), exited.then(() => undefined)])
  if (!line) throw new Error(`the service ended instead of starting: ${errors}`)
  return { child, ...(JSON.parse(line[0] as string) as { clickhouse: number; postgres: number }) }
}

export async function kill(service: Service): Promise<void> {
  const exited = once(service.child, 'exit')
  service.child.kill('SIGKILL')
  await exited
}

/** The leashes that a service has started. */
export function leashesOf(service: Service): number[] {
  const children = readFileSync(`/proc/${service.child.pid}/task/${service.child.pid}/children`, 'utf8')
  return children
    .trim()
    .split(' ')
    .map(Number)
    .filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('releve-leash-'))
}

/** Resolves when all have ended; the test's own time-out is the bound. */
export async function ended(pids: readonly number[]): Promise<void> {
  while (pids.some(isAlive)) await sleep(20)
}

/** Repeats until it does not throw; the test's own time-out is the bound. */
export async function eventually<T>(attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await attempt()
    } catch {
      await sleep(50)
    }
  }
}

export async function rows(engines: Engines, query: string): Promise<unknown[]> {
  const answer = await engines.clickhouse.query({ query, format: 'JSONCompactEachRow' })
  return await answer.json()
}
