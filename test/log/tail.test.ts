/**
 * A crash in the middle of a write, at every byte of the last group: three records written together, not yet known as synced to
 * anyone. Whatever is left of them, the records before are all there and nothing is invented; and when someone knows that they
 * were acknowledged, what is missing has a name.
 */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { beforeAll, expect, test } from 'vitest'
import { dataStart } from '../../src/log/segment.js'
import { promises } from '../promises.js'
import { crashedCopy, newDirectory, openTestLog, range, readAll, segmentFiles, sequencesOf } from './fixture.js'
import { payloadOf } from './payload.js'

const sizes = [20, 33, 8, 50, 11, 24, 40]
const acknowledged = 4
const recordSizes = sizes.map((size) => Math.ceil((40 + size) / 8) * 8)
const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0)
const tailBegin = dataStart + sum(recordSizes.slice(0, acknowledged))
const tailEnd = dataStart + sum(recordSizes)

const kinds = {
  truncated: (path: string, at: number) => truncateSync(path, at),
  zeroed: (path: string, at: number) => change(path, (bytes) => bytes.fill(0, at)),
  'garbage behind': (path: string, at: number) =>
    change(path, (bytes) => {
      for (let index = at; index < bytes.length; index += 1) bytes[index] = (bytes[index]! ^ (index * 167 + 13)) | 1
    }),
  'one byte wrong': (path: string, at: number) =>
    change(path, (bytes) => {
      bytes[at] = bytes[at]! ^ 0x10
    }),
}

function change(path: string, how: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path)
  how(bytes)
  writeFileSync(path, bytes)
}

async function makeLog(): Promise<string> {
  const directory = newDirectory()
  const log = await openTestLog(directory)
  for (const n of range(1, acknowledged)) await log.append(0, n, payloadOf(n, sizes[n - 1]!))
  await Promise.all(range(acknowledged + 1, sizes.length).map((n) => log.append(0, n, payloadOf(n, sizes[n - 1]!))))
  const copy = crashedCopy(directory)
  await log.close()
  return copy
}

beforeAll(() => {
  expect(sizes.length - acknowledged).toBe(3)
})

test.each(Object.keys(kinds) as (keyof typeof kinds)[])(
  `the last group %s at any byte => all before it is there, nothing invented ${promises('ingest:ack-after-disk')}`,
  async (kind) => {
    const crashed = await makeLog()
    expect(statSync(segmentFiles(crashed)[0]!).size).toBeGreaterThan(tailEnd)
    for (const at of range(tailBegin, tailEnd - 1)) {
      const directory = crashedCopy(crashed)
      kinds[kind](segmentFiles(directory)[0]!, at)
      const log = await openTestLog(directory)
      const { last } = log.state(0)
      expect(last).toBeGreaterThanOrEqual(acknowledged)
      expect(log.lost()).toEqual([])
      const records = await readAll(log)
      expect(sequencesOf(records)).toEqual(range(1, last))
      for (const { sequence, payload } of records) expect(payload).toEqual(payloadOf(sequence, sizes[sequence - 1]!))
      // The log goes on, and what it takes now is what it reads after the next crash.
      expect(await log.append(0, 9, payloadOf(77, 30))).toMatchObject({ sequence: last + 1 })
      const again = await openTestLog(crashedCopy(directory))
      const read = await readAll(again)
      expect(sequencesOf(read)).toEqual(range(1, last + 1))
      expect(read.at(-1)!.payload).toEqual(payloadOf(77, 30))
      await log.close()
      await again.close()
    }
  },
  60_000,
)

test('a torn tail up to a known position is lost by name, and the numbers go on behind it', async () => {
  const crashed = await makeLog()
  const inSixth = tailBegin + recordSizes[4]! + 3
  for (const known of [0, 4, 5, 6, 7, 9]) {
    const directory = crashedCopy(crashed)
    kinds.zeroed(segmentFiles(directory)[0]!, inSixth)
    const log = await openTestLog(directory, { knownPositions: [known] })
    const last = Math.max(5, known)
    expect(log.state(0).last).toBe(last)
    expect(log.lost()).toMatchObject(known > 5 ? [{ stream: 0, from: 6, to: known }] : [])
    expect(sequencesOf(await readAll(log))).toEqual(range(1, 5))
    expect((await log.append(0, 9, payloadOf(1, 9))).sequence).toBe(last + 1)
    expect(sequencesOf(await readAll(log))).toEqual([...range(1, 5), last + 1])
    await log.close()
  }
})

test('an emptied directory with a known position => all of it is lost by name, and no number is used twice', async () => {
  const log = await openTestLog(newDirectory(), { knownPositions: [41] })
  expect(log.lost()).toMatchObject([{ stream: 0, from: 1, to: 41 }])
  expect((await log.append(0, 1, payloadOf(1, 9))).sequence).toBe(42)
})
