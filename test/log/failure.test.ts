/** What the disk can do to the log while it is open: fail a write, fail a sync, be full, lose its power at any call. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { openFileLog } from '../../src/log/files.js'
import { silentLogger } from '../../src/logger.js'
import { promises } from '../promises.js'
import { type DiskCall, diskError, FaultyDisk } from './faulty-disk.js'
import { diskBytes, newDirectory, openTestLog, range, readAll, sequencesOf } from './fixture.js'
import { payloadOf, tinySegmentBytes } from './payload.js'

test.each(['writev', 'sync'] as const)(
  `a %s that fails with EIO => its group and all that wait are refused, nothing is written again, onFatal is told ${promises('ingest:ack-after-disk')}`,
  async (call) => {
    const directory = newDirectory()
    const disk = new FaultyDisk()
    const fatal: [string, number][] = []
    const log = await openTestLog(directory, {
      disk,
      streams: 2,
      onFatal: (error, stream) => fatal.push([error.message, stream]),
    })
    for (const n of range(1, 5)) await log.append(0, n, payloadOf(n, 100))
    disk.fault = (at, path) => {
      if (at === call && path.includes('stream-0')) throw diskError('EIO')
    }
    const group = range(6, 9).map((n) => log.append(0, n, payloadOf(n, 100)))
    // Enough to wait for a second segment behind the failing group.
    const waiting = range(10, 40).map((n) => log.append(0, n, payloadOf(n, 900)))
    for (const result of await Promise.allSettled([...group, ...waiting])) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'unavailable' } })
    }
    expect(fatal).toEqual([[expect.stringMatching(/^FATAL: /), 0]])
    const { writev, sync } = disk.calls
    disk.fault = () => {}
    await expect(log.append(0, 1, payloadOf(1, 10))).rejects.toMatchObject({ code: 'unavailable' })
    expect(sequencesOf(await readAll(log))).toEqual(range(1, 5))
    expect(log.state(0).last).toBe(5)
    expect([disk.calls.writev, disk.calls.sync]).toEqual([writev, sync])
    // The other stream goes on.
    expect((await log.append(1, 1, payloadOf(1, 10))).sequence).toBe(1)
    await log.close()
    const reopened = await openTestLog(directory, { streams: 2 })
    const records = await readAll(reopened)
    expect(sequencesOf(records).slice(0, 5)).toEqual(range(1, 5))
    for (const { sequence, payload } of records) {
      expect(Buffer.compare(payload, payloadOf(sequence, sequence < 10 ? 100 : 900))).toBe(0)
    }
    expect((await reopened.append(0, 1, payloadOf(1, 10))).sequence).toBe(records.length + 1)
  },
)

test(`a disk that is full at the next segment => overloaded, nothing lost, and on it goes when there is room ${promises('system:bounded')}`, async () => {
  const disk = new FaultyDisk()
  const directory = newDirectory()
  const log = await openTestLog(directory, { disk })
  for (const n of range(1, 3)) await log.append(0, n, payloadOf(n, 1000))
  disk.fault = (call, path) => {
    if (call === 'writev' && path.endsWith('spare')) throw diskError('ENOSPC')
  }
  const results = await Promise.allSettled(range(4, 30).map((n) => log.append(0, n, payloadOf(n, 1000))))
  const stored = results.filter(({ status }) => status === 'fulfilled').length
  expect(stored).toBeGreaterThan(0)
  expect(stored).toBeLessThan(27)
  for (const result of results.slice(stored)) {
    expect(result).toMatchObject({
      status: 'rejected',
      reason: { code: 'overloaded', retryAfterS: expect.any(Number) },
    })
  }
  await expect(log.append(0, 1, payloadOf(1, 5000))).rejects.toMatchObject({ code: 'overloaded' })
  // While it counts as full, nobody fills the rest of it again and again.
  const { writev } = disk.calls
  for (const n of range(1, 20)) {
    await expect(log.append(0, n, payloadOf(1, 5000))).rejects.toMatchObject({ code: 'overloaded' })
  }
  expect(disk.calls.writev).toBe(writev)
  disk.fault = () => {}
  const last = 3 + stored
  while (log.state(0).last === last) {
    await log.append(0, 1, payloadOf(last + 1, 1000)).catch(() => new Promise((resolve) => setTimeout(resolve, 50)))
  }
  const more = await Promise.all(range(2, 30).map((n) => log.append(0, n, payloadOf(last + n, 1000))))
  expect(more.map(({ sequence }) => sequence)).toEqual(range(last + 2, last + 30))
  for (const { sequence, payload } of await readAll(log)) expect(payload).toEqual(payloadOf(sequence, 1000))
  // A segment that is made ready beside counts before its file is there.
  await expect.poll(() => log.state(0).bytes - diskBytes(directory), { timeout: 30_000 }).toBe(0)
})

test('a directory that cannot be used => opening rejects with «cannot open» and leaves no file open', async () => {
  const disk = new FaultyDisk()
  disk.fault = (call) => {
    if (call === 'rename') throw diskError('EROFS')
  }
  await expect(openTestLog(newDirectory(), { disk })).rejects.toThrow(/^cannot open the log stream/)
  expect(disk.files.size).toBe(0)
})

test('an unreadable sector under acknowledged records => those are lost by name, the rest is read', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory)
  for (const n of range(1, 40)) await log.append(0, n, payloadOf(n, 1000))
  await log.close()
  const disk = new FaultyDisk()
  const reopened = await openTestLog(directory, { disk })
  // Every large read fails; of the single pages the second one of the file does.
  const { open } = disk
  disk.open = async (path, mode) => {
    const file = await open.call(disk, path, mode)
    const read = file.read.bind(file)
    file.read = (target, position) => {
      if (path.endsWith('0001.log') && position <= 8192 && position + target.byteLength > 8192) throw diskError('EIO')
      return read(target, position)
    }
    return file
  }
  const sequences = sequencesOf(await readAll(reopened))
  const lost = reopened.lost().flatMap(({ from, to }) => range(from, to))
  expect(lost).toEqual(range(4, 8))
  expect(sequences).toEqual(range(1, 40).filter((sequence) => !lost.includes(sequence)))
})

test(`power lost at any call to the disk => every acknowledged record is there, nothing invented ${promises('ingest:ack-after-disk')}`, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ calls: fc.integer({ min: 1, max: 120 }), seed: fc.nat() }), { minLength: 1, maxLength: 4 }),
      async (rounds) => {
        const directory = newDirectory()
        const written = new Map<number, Set<string>>()
        const acknowledged = new Map<number, string>()
        for (const { calls, seed } of rounds) {
          let state = seed | 1
          const random = (below: number): number => {
            state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
            return (state >>> 8) % below
          }
          const disk = new FaultyDisk()
          let left = calls
          disk.fault = (_call: DiskCall) => {
            left -= 1
            if (left < 0) throw diskError('EIO')
          }
          await runUntilCut(directory, disk, random, written, acknowledged)
          expect(disk.files.size).toBe(0)
          disk.cut(random)
          const log = await openTestLog(directory)
          expect(log.lost()).toEqual([])
          const { first, last } = log.state(0)
          const records = await readAll(log, first)
          expect(sequencesOf(records)).toEqual(range(first, last))
          const held = new Map(
            records.map(({ sequence, payload }) => [sequence, Buffer.from(payload).toString('base64')]),
          )
          for (const [sequence, text] of held) expect(written.get(sequence)?.has(text)).toBe(true)
          for (const [sequence, text] of acknowledged) if (sequence >= first) expect(held.get(sequence)).toBe(text)
          expect(last).toBeGreaterThanOrEqual(Math.max(0, ...acknowledged.keys()))
          // A record that opening found is as good as acknowledged: it must not go away any more.
          for (const [sequence, text] of held) acknowledged.set(sequence, text)
          expect(log.lost()).toEqual([])
          await log.close()
        }
      },
    ),
    { numRuns: 60 },
  )
}, 120_000)

/** Appends bursts and deletes what is old until the disk fails; every byte that was handed over is in `written`. */
async function runUntilCut(
  directory: string,
  disk: FaultyDisk,
  random: (below: number) => number,
  written: Map<number, Set<string>>,
  acknowledged: Map<number, string>,
): Promise<void> {
  const log = await openFileLog({
    directory,
    streams: 1,
    logger: silentLogger,
    segmentBytes: tinySegmentBytes,
    disk,
    onFatal: () => {},
  }).catch(() => undefined)
  if (log === undefined) return
  try {
    while (true) {
      let next = log.state(0).last
      const burst = range(1, 1 + random(6)).map(() => {
        const payload = payloadOf(random(1 << 30), random(2500))
        const text = payload.toString('base64')
        next += 1
        written.set(next, (written.get(next) ?? new Set()).add(text))
        return log.append(0, next, payload).then(({ sequence }) => acknowledged.set(sequence, text))
      })
      const results = await Promise.allSettled(burst)
      if (results.some(({ status }) => status === 'rejected')) return
      if (random(4) === 0) await log.deleteBelow(0, log.state(0).last - 20)
    }
  } catch {
    // A deletion met the cut.
  } finally {
    await log.close()
  }
}
