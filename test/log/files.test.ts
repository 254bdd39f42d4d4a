/** The log as its callers see it: order, sharing of syncs, reading, deleting, bounds. */
import { expect, test } from 'vitest'
import { benchLog } from '../../bench/log.bench.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import {
  crashedCopy,
  diskBytes,
  newDirectory,
  openTestLog,
  range,
  readAll,
  segmentFiles,
  sequencesOf,
} from './fixture.js'
import { payloadOf, tinySegmentBytes } from './payload.js'

test('a fresh log is empty, and its first record is number 1', async () => {
  const log = await openTestLog(newDirectory())
  expect(log.state(0)).toMatchObject({ first: 1, last: 0 })
  expect(await log.read(0, 1, 1000)).toEqual([])
  expect(await log.append(0, 1000, payloadOf(1, 10))).toEqual({ sequence: 1, receivedAt: 1000 })
  expect(await log.read(0, 1, 1000)).toEqual([{ sequence: 1, receivedAt: 1000, payload: payloadOf(1, 10) }])
  expect(await log.read(0, 2, 1000)).toEqual([])
  expect(log.state(0)).toMatchObject({ first: 1, last: 1 })
  expect(log.lost()).toEqual([])
})

test('receivedAt that falls is raised, also across reopening', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory)
  expect((await log.append(0, 5000, payloadOf(1, 9))).receivedAt).toBe(5000)
  expect((await log.append(0, 4000, payloadOf(2, 9))).receivedAt).toBe(5000)
  const crashed = await openTestLog(crashedCopy(directory))
  expect((await crashed.append(0, 3000, payloadOf(3, 9))).receivedAt).toBe(5000)
  await log.close()
  const closed = await openTestLog(directory)
  expect((await closed.append(0, 3000, payloadOf(3, 9))).receivedAt).toBe(5000)
})

test('payloads from 0 bytes to the largest come back, each view at a multiple of 8', async () => {
  const directory = newDirectory()
  const sizes = [0, 1, 7, 8, 9, 4095, 4096, 4097, 20_000, 100_000, limits.recordBytesMax, 3]
  const log = await openTestLog(directory)
  await Promise.all(sizes.map((size, index) => log.append(0, index, payloadOf(index, size))))
  await log.close()
  const reopened = await openTestLog(directory)
  const records = await readAll(reopened, 1, 50_000)
  expect(records.map(({ payload }) => payload.byteLength)).toEqual(sizes)
  for (const [index, { payload }] of records.entries()) {
    expect(payload.byteOffset % 8).toBe(0)
    expect(Buffer.compare(payload, payloadOf(index, sizes[index]!))).toBe(0)
  }
})

test('a thousand appends in one turn share a handful of syncs and keep call order', async () => {
  const log = await openTestLog(newDirectory(), { segmentBytes: 1024 * 1024 })
  const stored = await Promise.all(range(1, 1000).map((n) => log.append(0, n, payloadOf(n, 100))))
  expect(stored.map(({ sequence }) => sequence)).toEqual(range(1, 1000))
  expect(log.stats().records).toBe(1000)
  expect(log.stats().syncs).toBe(1)
})

test('appends that come while a sync runs go together into the next group', async () => {
  const log = await openTestLog(newDirectory(), { segmentBytes: 1024 * 1024 })
  let left = 800
  const appendOneByOne = async (): Promise<void> => {
    while (left > 0) {
      left -= 1
      await log.append(0, 1, payloadOf(left, 100))
    }
  }
  await Promise.all(range(1, 16).map(appendOneByOne))
  expect(log.stats().records).toBe(800)
  expect(log.stats().syncs).toBeLessThanOrEqual(800 / 8)
})

test('reading shows nothing that is not yet on disk', async () => {
  const log = await openTestLog(newDirectory())
  await log.append(0, 1, payloadOf(1, 100))
  const second = log.append(0, 1, payloadOf(2, 100))
  expect(log.state(0).last).toBe(1)
  expect(sequencesOf(await log.read(0, 1, 1000))).toEqual([1])
  await second
  expect(sequencesOf(await log.read(0, 1, 1000))).toEqual([1, 2])
})

test('a read takes about the bytes asked for and at least one record', async () => {
  const log = await openTestLog(newDirectory())
  await Promise.all(range(1, 60).map((n) => log.append(0, n, payloadOf(n, 1000))))
  expect(sequencesOf(await log.read(0, 7, 1))).toEqual([7])
  expect(sequencesOf(await log.read(0, 1, 1_000_000))).toEqual(range(1, 60))
  const some = await log.read(0, 10, 10_000)
  expect(some.length).toBeGreaterThanOrEqual(9)
  expect(some.length).toBeLessThanOrEqual(10)
})

test('a reader that follows the tail sees every record once while appends and deletions go on', async () => {
  const log = await openTestLog(newDirectory())
  const seen: number[] = []
  let writing = true
  const follow = async (): Promise<void> => {
    while (true) {
      const ended = !writing
      const read = await log.read(0, seen.length + 1, 3000)
      for (const { sequence, payload } of read) {
        expect(Buffer.compare(payload, payloadOf(sequence, 300))).toBe(0)
        seen.push(sequence)
      }
      if (read.length === 0) {
        if (ended) return
        await new Promise((resolve) => setImmediate(resolve))
      } else await log.deleteBelow(0, seen.length - 50)
    }
  }
  const reader = follow()
  for (const burst of range(0, 99)) {
    await Promise.all(range(1, 10).map((n) => log.append(0, 1, payloadOf(burst * 10 + n, 300))))
  }
  writing = false
  await reader
  expect(seen).toEqual(range(1, 1000))
  expect(log.lost()).toEqual([])
})

test('deleteBelow takes whole segments, never the active one, and the numbers go on after reopening', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory)
  for (const n of range(1, 100)) await log.append(0, n, payloadOf(n, 1000))
  expect(segmentFiles(directory).length).toBeGreaterThan(5)
  await log.deleteBelow(0, 50)
  const { first } = log.state(0)
  expect(first).toBeGreaterThan(30)
  expect(first).toBeLessThanOrEqual(50)
  expect(sequencesOf(await readAll(log, 1))).toEqual(range(first, 100))
  await log.deleteBelow(0, 101)
  expect(segmentFiles(directory)).toHaveLength(1)
  await log.close()
  const reopened = await openTestLog(directory)
  await reopened.deleteBelow(0, 101)
  expect(reopened.state(0)).toMatchObject({ first: 101, last: 100 })
  await reopened.close()
  const again = await openTestLog(directory)
  expect(again.state(0)).toMatchObject({ first: 101, last: 100 })
  expect((await again.append(0, 1, payloadOf(1, 10))).sequence).toBe(101)
})

test(`a log that is deleted as fast as it is written uses its files again and does not grow ${promises('system:bounded')}`, async () => {
  const directory = newDirectory()
  const bytesMax = 16 * tinySegmentBytes
  const log = await openTestLog(directory, { bytesMax })
  for (const round of range(1, 20)) {
    const stored = await Promise.all(range(1, 40).map((n) => log.append(0, round, payloadOf(n, 1500))))
    await log.deleteBelow(0, stored.at(-1)!.sequence)
    expect(diskBytes(directory)).toBeLessThanOrEqual(bytesMax)
  }
  const { first, last, bytes } = log.state(0)
  expect(last).toBe(800)
  expect(bytes).toBe(diskBytes(directory))
  const crashed = await openTestLog(crashedCopy(directory), { bytesMax })
  expect(sequencesOf(await readAll(crashed))).toEqual(range(first, 800))
  expect(crashed.lost()).toEqual([])
})

test('a first record too large for the empty segment replaces it, and a deletion does not take it', async () => {
  for (const preallocate of [true, false]) {
    const directory = newDirectory()
    const log = await openTestLog(directory, { preallocate })
    await log.append(0, 1, payloadOf(1, 20_000))
    await log.deleteBelow(0, 1)
    expect(sequencesOf(await readAll(log))).toEqual([1])
    // A segment that is made ready beside counts before its file is there.
    await expect.poll(() => log.state(0).bytes - diskBytes(directory), { timeout: 30_000 }).toBe(0)
    await log.close()
    expect(sequencesOf(await readAll(await openTestLog(directory)))).toEqual([1])
  }
})

test('streams are apart', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory, { streams: 3 })
  await log.append(1, 10, payloadOf(1, 10))
  await log.append(2, 20, payloadOf(2, 10))
  await log.append(2, 20, payloadOf(3, 10))
  expect([0, 1, 2].map((stream) => log.state(stream).last)).toEqual([0, 1, 2])
  await log.close()
  const reopened = await openTestLog(directory, { streams: 3 })
  expect(sequencesOf(await readAll(reopened, 1, 100, 2))).toEqual([1, 2])
})

test('close waits for what is queued, then refuses; a second close is no error', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory)
  const appends = range(1, 50).map((n) => log.append(0, n, payloadOf(n, 500)))
  await log.close()
  expect((await Promise.all(appends)).map(({ sequence }) => sequence)).toEqual(range(1, 50))
  await expect(log.append(0, 1, payloadOf(1, 10))).rejects.toMatchObject({ code: 'unavailable' })
  await expect(log.read(0, 1, 10)).rejects.toMatchObject({ code: 'unavailable' })
  await log.close()
  expect(sequencesOf(await readAll(await openTestLog(directory)))).toEqual(range(1, 50))
})

test('a small log takes little disk, and a closed one no more than its records', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory, { segmentBytes: limits.segmentBytes })
  await log.append(0, 1, payloadOf(1, 100))
  expect(diskBytes(directory)).toBeLessThanOrEqual(limits.segmentFirstBytes)
  expect(log.state(0).bytes).toBe(diskBytes(directory))
  await log.close()
  expect(diskBytes(directory)).toBeLessThan(10_000)
})

test(`a full queue refuses with Retry-After and keeps what it took ${promises('system:bounded')}`, async () => {
  const log = await openTestLog(newDirectory(), { segmentBytes: limits.segmentBytes })
  const payload = Buffer.alloc(limits.recordBytesMax - 40)
  const appends = range(1, 6).map((n) => log.append(0, n, payload))
  const settled = await Promise.allSettled(appends)
  const fit = Math.floor(limits.logQueueBytesMax / limits.recordBytesMax)
  expect(settled.map(({ status }) => status)).toEqual(range(1, 6).map((n) => (n <= fit ? 'fulfilled' : 'rejected')))
  await expect(appends.at(-1)).rejects.toMatchObject({ code: 'overloaded', retryAfterS: expect.any(Number) })
  expect((await log.append(0, 1, payloadOf(1, 10))).sequence).toBe(fit + 1)
})

test(`a full log refuses new records, drops no old one, and takes more after a deletion ${promises('system:bounded')}`, async () => {
  const directory = newDirectory()
  const bytesMax = 6 * tinySegmentBytes
  const log = await openTestLog(directory, { bytesMax })
  let stored = 0
  let refusals = 0
  for (const burst of range(1, 40)) {
    const settled = await Promise.allSettled(range(1, 5).map(() => log.append(0, burst, payloadOf(burst, 900))))
    for (const result of settled) {
      if (result.status === 'fulfilled') stored += 1
      else {
        refusals += 1
        expect(result.reason).toMatchObject({ code: 'overloaded', retryAfterS: expect.any(Number) })
      }
    }
    expect(diskBytes(directory)).toBeLessThanOrEqual(bytesMax)
  }
  expect(refusals).toBeGreaterThan(0)
  expect(stored).toBeGreaterThan(50)
  expect(sequencesOf(await readAll(log))).toEqual(range(1, stored))
  await log.deleteBelow(0, 40)
  expect((await log.append(0, 50, payloadOf(1, 900))).sequence).toBe(stored + 1)
  await log.close()
  expect(diskBytes(directory)).toBeLessThanOrEqual(bytesMax)
})

test.each([true, false])('the bench runs with its small size, preallocated: %s', async (preallocate) => {
  const result = await benchLog({ records: 64, recordBytes: 50_000, outstanding: 16, preallocate, recycle: true })
  expect(result.recordsPerSync).toBeGreaterThan(1)
  expect(result.recordsPerSync).toBeLessThanOrEqual(64)
})
