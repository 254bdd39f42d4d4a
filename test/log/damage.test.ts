/**
 * Damage to what was acknowledged: the exact range has a name, everything else stays readable, the log goes on. Found at opening
 * in the last segment, at the first read in the others.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { FileLog } from '../../src/log/files.js'
import { dataStart } from '../../src/log/segment.js'
import { promises } from '../promises.js'
import { crashedCopy, newDirectory, openTestLog, range, readAll, segmentFiles, sequencesOf } from './fixture.js'
import { payloadOf } from './payload.js'

const payloadBytes = 100
const recordSize = 144
const records = 250

/** 250 records of one size, each its own group, over several segments; taken as after a crash. */
async function makeLog(): Promise<string> {
  const directory = newDirectory()
  const log = await openTestLog(directory)
  for (const n of range(1, records)) await log.append(0, n, payloadOf(n, payloadBytes))
  const copy = crashedCopy(directory)
  await log.close()
  return copy
}

function firstOf(path: string): number {
  return Number(path.slice(-20, -4))
}

function flip(path: string, at: number, bytes = 1): void {
  const content = readFileSync(path)
  for (let index = at; index < at + bytes; index += 1) content[index] = content[index]! ^ 0x40
  writeFileSync(path, content)
}

async function checkLost(log: FileLog, lost: readonly number[], last = records): Promise<void> {
  const read = await readAll(log)
  expect(sequencesOf(read)).toEqual(range(1, last).filter((sequence) => !lost.includes(sequence)))
  for (const { sequence, payload } of read.slice(0, records)) {
    if (sequence <= records) expect(payload).toEqual(payloadOf(sequence, payloadBytes))
  }
  const named = log.lost().flatMap(({ from, to }) => range(from, to))
  expect(named).toEqual(lost)
}

test(`any damaged bytes in the last segment => exactly the records under them are lost ${promises('ingest:ack-after-disk')}`, async () => {
  const crashed = await makeLog()
  const path = segmentFiles(crashed).at(-1)!
  const first = firstOf(path)
  // The last record was acknowledged, but nothing on disk says so: the one before is the last that must never be cut.
  const damageable = (records - first) * recordSize
  expect(records - first).toBeGreaterThan(5)
  await fc.assert(
    fc.asyncProperty(fc.nat(damageable - 1), fc.integer({ min: 1, max: 700 }), async (at, wished) => {
      const bytes = Math.min(wished, damageable - at)
      const directory = crashedCopy(crashed)
      flip(segmentFiles(directory).at(-1)!, dataStart + at, bytes)
      const lost: number[] = []
      for (const [index, sequence] of range(first, records).entries()) {
        // Of each record 40 bytes of header and 100 of payload count, the 4 of padding do not.
        const begin = index * recordSize
        if (at < begin + 40 + payloadBytes && at + bytes > begin) lost.push(sequence)
      }
      const log = await openTestLog(directory)
      expect(log.state(0).last).toBe(records)
      expect(log.lost().flatMap(({ from, to }) => range(from, to))).toEqual(lost)
      await checkLost(log, lost)
      expect((await log.append(0, 1, payloadOf(1, 9))).sequence).toBe(records + 1)
      await log.close()
      // Opened once more, the damage lies in an earlier segment, and reading names it again.
      const again = await openTestLog(directory)
      await checkLost(again, lost, records + 1)
      await again.close()
    }),
    { numRuns: 30 },
  )
}, 60_000)

test('damage in an earlier segment => named at the first read of it, and reading goes on behind it', async () => {
  const directory = await makeLog()
  const [first, second] = segmentFiles(directory)
  flip(first!, dataStart + 2 * recordSize + 50)
  flip(first!, dataStart + 5 * recordSize, 2 * recordSize)
  const log = await openTestLog(directory)
  expect(log.state(0)).toMatchObject({ first: 1, last: records })
  expect(sequencesOf(await log.read(0, firstOf(second!), 500))[0]).toBe(firstOf(second!))
  expect(log.lost()).toEqual([])
  expect(sequencesOf(await log.read(0, 3, 100))).toEqual([4])
  expect(log.lost()).toMatchObject([
    { stream: 0, from: 3, to: 3 },
    { stream: 0, from: 6, to: 7 },
  ])
  await checkLost(log, [3, 6, 7])
})

test('bytes that go bad while the log is open => named when they are read, in the active segment as in others', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory)
  for (const n of range(1, records)) await log.append(0, n, payloadOf(n, payloadBytes))
  expect(await readAll(log)).toHaveLength(records)
  const files = segmentFiles(directory)
  const active = firstOf(files.at(-1)!)
  flip(files[1]!, dataStart + 60)
  flip(files.at(-1)!, dataStart + recordSize + 60)
  await checkLost(log, [firstOf(files[1]!), active + 1])
  await log.append(0, 1, payloadOf(records + 1, payloadBytes))
  await checkLost(log, [firstOf(files[1]!), active + 1], records + 1)
})

test('one header copy damaged => nothing is lost; both => the whole segment is, by name', async () => {
  for (const headers of [[0], [4096], [0, 4096]]) {
    const directory = await makeLog()
    const [, second, third] = segmentFiles(directory)
    for (const at of headers) flip(second!, at + 10)
    const log = await openTestLog(directory)
    const lost = headers.length === 2 ? range(firstOf(second!), firstOf(third!) - 1) : []
    expect(log.lost().flatMap(({ from, to }) => range(from, to))).toEqual(lost)
    await checkLost(log, lost)
  }
})

test('both headers of the last segment damaged => the file is put aside, what is known is lost by name, the log goes on', async () => {
  const directory = await makeLog()
  const last = segmentFiles(directory).at(-1)!
  const first = firstOf(last)
  for (const at of [0, 4096]) flip(last, at + 10)
  const log = await openTestLog(directory, { knownPositions: [records] })
  expect(log.lost()).toMatchObject([{ stream: 0, from: first, to: records }])
  expect((await log.append(0, 1, payloadOf(1, payloadBytes))).sequence).toBe(records + 1)
  await log.close()
  const again = await openTestLog(directory)
  expect(sequencesOf(await readAll(again))).toEqual([...range(1, first - 1), records + 1])
  expect(again.lost()).toMatchObject([{ from: first, to: records }])
})

test('a missing segment file => named at opening; the streams beside it know nothing of it', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory, { streams: 2 })
  for (const n of range(1, records)) {
    await Promise.all([0, 1].map((stream) => log.append(stream, n, payloadOf(n, payloadBytes))))
  }
  await log.close()
  const [, second, third, fourth] = segmentFiles(directory, 1)
  rmSync(second!)
  rmSync(third!)
  const reopened = await openTestLog(directory, { streams: 2 })
  expect(reopened.lost()).toMatchObject([{ stream: 1, from: firstOf(second!), to: firstOf(fourth!) - 1 }])
  expect(sequencesOf(await readAll(reopened, 1, 5000, 0))).toEqual(range(1, records))
  expect(sequencesOf(await readAll(reopened, 1, 5000, 1))).toEqual([
    ...range(1, firstOf(second!) - 1),
    ...range(firstOf(fourth!), records),
  ])
})

test('a payload that holds a copy of its own segment invents no record, even when its header is damaged', async () => {
  const directory = newDirectory()
  const log = await openTestLog(directory, { segmentBytes: 64 * 1024 })
  for (const n of range(1, 5)) await log.append(0, n, payloadOf(n, payloadBytes))
  const trap = readFileSync(segmentFiles(directory)[0]!).subarray(0, dataStart + 5 * recordSize)
  await log.append(0, 6, trap)
  for (const n of range(7, 9)) await log.append(0, n, payloadOf(n, payloadBytes))
  const crashed = crashedCopy(directory)
  flip(segmentFiles(crashed)[0]!, dataStart + 5 * recordSize + 20)
  const reopened = await openTestLog(crashed, { segmentBytes: 64 * 1024 })
  expect(reopened.lost()).toMatchObject([{ from: 6, to: 6 }])
  expect(sequencesOf(await readAll(reopened))).toEqual([1, 2, 3, 4, 5, 7, 8, 9])
})
