/**
 * What an operator reads at three in the morning: for each thing that can be away or full, health names it, says what it means for the
 * events and where to look; and says nothing any more when it is over.
 */
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { roomIn } from '../../src/room.js'
import { openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
let next = 0
const stopped = new Set<number>()

beforeAll(async () => {
  t = await openTestSystem({
    settings: { RELEVE_STREAMS: '1', RELEVE_EPOCH_MS: '200' },
    config: { tailBytesMax: 64 * 1024, segmentBytes: 256 * 1024, logBytesMax: 4 * 1024 * 1024 },
  })
})
afterEach(() => {
  for (const pid of stopped) process.kill(pid, 'SIGCONT')
  stopped.clear()
})

const stop = (engine: 'clickhouse' | 'postgres'): void => {
  const { pid } = t.system.engines.state()[engine]
  stopped.add(pid!)
  process.kill(pid!, 'SIGSTOP')
}
const goOn = async (): Promise<void> => {
  for (const pid of stopped) process.kill(pid, 'SIGCONT')
  stopped.clear()
  await t.system.settle()
}
async function send(width = 0): Promise<number> {
  next += 1
  const event = { id: `n${next}`, tenant: 'alpha', metric: 'calls', subject: 'x'.repeat(width) }
  const answer = await t.post(Array.from({ length: 100 }, (_, i) => ({ ...event, id: `${event.id}-${i}` })))
  return answer.statusCode
}
interface Health {
  readonly ready: boolean
  readonly notes: readonly string[]
}
const health = async (): Promise<Health> => (await t.app.inject({ url: '/health/ready' })).json() as Health

test('a store that stands still: the flush is late, in which step and for which store; over => nothing is said', async () => {
  expect((await health()).notes).toEqual([])
  stop('clickhouse')
  expect(await send()).toBe(202)
  // Until the flush waits for it; then the clock goes on.
  while (t.system.health().streams[0]!.lagRecords > 0) await sleep(20)
  await sleep(500)
  expect((await health()).notes).toEqual([])
  t.clock.advance(45_000)
  const found = await health()
  expect(found.ready).toBe(true)
  expect(found.notes.join('\n')).toMatch(
    /^stream 0: nothing was flushed for 45 s, it waits in «(count|insert)» for ClickHouse; events are taken into the log$/m,
  )
  await goOn()
  expect((await health()).notes).toEqual([])
})

test('a log that fills => told before events are refused, with the setting', async () => {
  stop('clickhouse')
  let told = ''
  while (told === '') {
    const status = await send(100)
    told = (await health()).notes.find((note) => note.includes('RELEVE_LOG_BYTES')) ?? ''
    // Told first: a sender that was already refused would be the alarm.
    if (told === '') expect(status).toBe(202)
  }
  expect(told).toMatch(/^stream 0: the log takes \d+ % of RELEVE_LOG_BYTES; at 100 % events are answered 503/)
  await goOn()
})

test('a disk without room, and one with', () => {
  expect(roomIn('/proc', 1)).toMatchObject({ state: 'none', detail: '0.0 GB free on the disk of /proc' })
  expect(roomIn(tmpdir(), 0)).toMatchObject({ state: 'ok' })
})
