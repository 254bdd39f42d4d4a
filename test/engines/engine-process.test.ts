/**
 * The life of an engine, with sleep(1) in its place: it starts and dies faster than a database, and the rules are the same.
 */
import { expect, test } from 'vitest'
import { EngineProcess } from '../../src/engines/engine-process.js'
import { silentLogger } from '../../src/logger.js'
import { promises } from '../promises.js'
import { ended, eventually, isAlive, makeDirectory } from './running.js'

interface Sleeper {
  engine: EngineProcess
  fatal: Error[]
  starts: number
}

function buildSleeper(command: string[], restartsMax: number, probe = async () => '1.0'): Sleeper {
  const sleeper: Sleeper = { fatal: [], starts: 0, engine: undefined as unknown as EngineProcess }
  sleeper.engine = new EngineProcess({
    name: 'sleeper',
    directory: makeDirectory(),
    prepare: async () => {
      sleeper.starts += 1
      return { command: command[0]!, args: command.slice(1), env: {} }
    },
    probe,
    stopSignal: 'SIGTERM',
    leashSignal: 'SIGKILL',
    restartsMax,
    logger: silentLogger,
    onFatal: (error) => sleeper.fatal.push(error),
  })
  return sleeper
}

test(`${promises('system:bounded')} an engine that keeps dying is started again as often as allowed, then onFatal is called once`, async () => {
  const sleeper = buildSleeper(['sleep', '600'], 2)
  const { engine } = sleeper
  await engine.start()
  for (let deaths = 1; deaths <= 3; deaths++) {
    await eventually(async () => expect(engine.up).toBe(true))
    process.kill(engine.pid!, 'SIGKILL')
    await ended([engine.pid!])
    await eventually(async () => expect(engine.up && engine.restarts < deaths).toBe(false))
  }
  await eventually(async () => expect(sleeper.fatal).toHaveLength(1))
  expect(sleeper.fatal[0]!.message).toMatch(/^FATAL: sleeper died 3 times within 5 minutes; it ended with SIGKILL/)
  expect([engine.up, engine.restarts, sleeper.starts]).toEqual([false, 2, 3])
  await engine.close()
  expect(sleeper.fatal).toHaveLength(1)
})

test('an engine that ends before it answers => start rejects with its last words and is not repeated', async () => {
  const sleeper = buildSleeper(['sh', '-c', 'echo no room on the disk >&2; exit 3'], 2, () =>
    Promise.reject(new Error('no')),
  )
  await expect(sleeper.engine.start()).rejects.toThrow('cannot start sleeper: it ended with 3: no room on the disk')
  expect(sleeper.starts).toBe(1)
  await sleeper.engine.close()
})

test('a command that does not exist => start rejects and names it', async () => {
  const sleeper = buildSleeper(['/nowhere/engine'], 2, () => Promise.reject(new Error('no')))
  await expect(sleeper.engine.start()).rejects.toThrow(/cannot start sleeper: .*\/nowhere\/engine/)
})

test('close during the start ends the process', async () => {
  const sleeper = buildSleeper(['sleep', '600'], 2, () => Promise.reject(new Error('not yet')))
  const starting = sleeper.engine.start()
  const refused = expect(starting).rejects.toThrow(/closing|ended with/)
  await eventually(async () => expect(sleeper.engine.pid).toBeGreaterThan(0))
  const pid = sleeper.engine.pid!
  await sleeper.engine.close()
  await refused
  expect(isAlive(pid)).toBe(false)
})

test('close while the back-off waits => nothing is started any more', async () => {
  const sleeper = buildSleeper(['sleep', '600'], 5)
  await sleeper.engine.start()
  process.kill(sleeper.engine.pid!, 'SIGKILL')
  await eventually(async () => expect(sleeper.engine.up).toBe(false))
  await sleeper.engine.close()
  const { starts } = sleeper
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect([sleeper.starts, sleeper.engine.up]).toEqual([starts, false])
})
