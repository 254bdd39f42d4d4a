/**
 * kill -9 at random moments: a real child process appends and says what was acknowledged; it is killed, and the log is opened
 * here, read, closed or left as it is, and given to the next child. Round after round on the same directory.
 */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { promises } from '../promises.js'
import { crashedCopy, newDirectory, openTestLog, range, readAll, sequencesOf } from './fixture.js'
import { payloadOf } from './payload.js'

const appender = fileURLToPath(new URL('./appender.js', import.meta.url))
const rounds = 8

interface Round {
  readonly opened: number
  readonly acknowledged: Map<number, number>
  readonly deletedBelow: number
}

/** Lets the child acknowledge `acks` records, waits a moment more, kills it. */
function runAndKill(directory: string, seed: number, acks: number, delayMs: number): Promise<Round> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [appender, directory, String(seed)], { stdio: ['ignore', 'pipe', 'inherit'] })
    const acknowledged = new Map<number, number>()
    let opened = -1
    let deletedBelow = 0
    let text = ''
    let killing = false
    child.stdout.setEncoding('utf8')
    child.stdout.on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n')
      text = lines.pop()!
      for (const line of lines) {
        const [word, first, second] = line.split(' ')
        if (word === 'open') opened = Number(first)
        else if (word === 'ack') acknowledged.set(Number(first), Number(second))
        else if (word === 'delete') deletedBelow = Number(first)
      }
      if (killing || acknowledged.size < acks) return
      killing = true
      setTimeout(() => child.kill('SIGKILL'), delayMs)
    })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (signal === 'SIGKILL') resolve({ opened, acknowledged, deletedBelow })
      else reject(new Error(`the appender ended by itself with ${code}`))
    })
  })
}

test(`killed with -9 at random moments => every acknowledged record is there ${promises('ingest:ack-after-disk')}`, async () => {
  const seed = Number(process.env.RELEVE_TEST_SEED ?? Date.now() % 1_000_000)
  let state = seed
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return (state >>> 8) % below
  }
  const directory = newDirectory()
  const all = new Map<number, number>()
  let lastBefore = 0
  let deletedBelow = 0
  for (const round of range(1, rounds)) {
    const killed = await runAndKill(directory, round * 1_000_000, random(300), random(20))
    const say = `seed ${seed}, round ${round}`
    expect(killed.opened, say).toBeGreaterThanOrEqual(lastBefore)
    for (const [sequence, mine] of killed.acknowledged) {
      expect(all.has(sequence), `${say}: ${sequence} was acknowledged twice`).toBe(false)
      all.set(sequence, mine)
    }
    deletedBelow = Math.max(deletedBelow, killed.deletedBelow)
    // Every other round the next child finds the directory exactly as the dead one left it.
    const log = await openTestLog(round % 2 === 0 ? directory : crashedCopy(directory))
    const { first, last } = log.state(0)
    expect(log.lost(), say).toEqual([])
    expect(first, say).toBeLessThanOrEqual(Math.max(1, deletedBelow))
    const records = await readAll(log, first, 100_000)
    expect(sequencesOf(records), say).toEqual(range(first, last))
    const held = new Map(records.map(({ sequence, payload }) => [sequence, payload]))
    for (const [sequence, mine] of all) {
      if (sequence < first) continue
      const expected = payloadOf(mine, 8 + ((mine * 7919) % 2500))
      expect(Buffer.compare(held.get(sequence)!, expected), `${say}: record ${sequence}`).toBe(0)
    }
    lastBefore = Math.max(0, ...all.keys())
    expect(last, say).toBeGreaterThanOrEqual(lastBefore)
    await log.close()
  }
  expect(all.size, `seed ${seed}`).toBeGreaterThan(0)
}, 120_000)
