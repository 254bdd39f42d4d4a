/**
 * kill -9 of a real process while ids go to disk: at each step of a run's way, for first runs and for runs of runs, and at any time.
 * Given the same life without a kill, the verdicts of all epochs are the same, and so are the files that are left.
 */
import { spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, expect, test, vi } from 'vitest'
import { rootDirectory } from '../../src/paths.js'
import { promises } from '../promises.js'
import { random } from './disk-life.js'

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 })

const EPOCHS = 120
const victim = join(rootDirectory, 'dist/test/dedupe/disk-victim.js')

/** Runs the victim; with `killAfterMs` it dies so long after it has opened. Answers its signal. */
async function run(directory: string, death: string, killAfterMs: number | null = null): Promise<string | null> {
  const child = spawn(process.execPath, [victim, directory, String(EPOCHS), death], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', (data) => {
    said += data
  })
  if (killAfterMs !== null) {
    child.stdout.once('data', async () => {
      await sleep(killAfterMs)
      child.kill('SIGKILL')
    })
  } else child.stdout.resume()
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) =>
    child.once('close', (...ended) => resolve(ended)),
  )
  expect(said).toBe('')
  if (signal === null) expect(code).toBe(0)
  return signal
}

interface End {
  readonly checkpoint: unknown
  readonly files: Readonly<Record<string, string>>
}

async function endOf(directory: string): Promise<End> {
  const files: Record<string, string> = {}
  for (const name of (await readdir(join(directory, 'keys'))).sort()) {
    files[name] = (await readFile(join(directory, 'keys', name))).toString('base64')
  }
  return { checkpoint: JSON.parse(await readFile(join(directory, 'checkpoint.json'), 'utf8')), files }
}

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'dedupe-kill-'))
  try {
    await body(directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

let undisturbed: End
beforeAll(() =>
  inDirectory(async (directory) => {
    expect(await run(directory, '')).toBeNull()
    undisturbed = await endOf(directory)
    const names = Object.keys(undisturbed.files)
    expect(names.filter((name) => name.endsWith('.run')).length).toBeGreaterThan(5)
    expect(names.filter((name) => !/\.(run|keys)$/.test(name))).toEqual([])
  }),
)

for (const step of ['written', 'renamed', 'attached', 'cleared'] as const) {
  test(`${promises('flow:exactly-once')} ${promises('dedupe:first-only')} killed when a run is ${step} => the same verdicts and the same files`, () =>
    inDirectory(async (directory) => {
      // The first run, and later ones of which some are joined of runs: the second life's count begins anew.
      for (const nth of [1, 6, 4]) expect(await run(directory, `${step}:${nth}`), `${step}:${nth}`).toBe('SIGKILL')
      expect(await run(directory, '')).toBeNull()
      expect(await endOf(directory)).toEqual(undisturbed)
    }))
}

test(`${promises('flow:exactly-once')} killed at any time, again and again => the same verdicts and the same files`, () =>
  inDirectory(async (directory) => {
    const next = random(11)
    let kills = 0
    for (let tries = 0; tries < 12; tries += 1) {
      if ((await run(directory, '', next(250))) === null) break
      kills += 1
    }
    expect(kills).toBeGreaterThan(2)
    expect(await run(directory, '')).toBeNull()
    expect(await endOf(directory)).toEqual(undisturbed)
  }))
