/** The spool by itself: what append has resolved for is there again, in order, whatever happened to the end of the files. */
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { Spool, type SpooledBatch } from '../../src/client/spool.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'

const root = mkdtempSync(join(tmpdir(), 'releve-spool-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))
let directories = 0
const newDirectory = (): string => {
  directories += 1
  return join(root, String(directories))
}
const batch = (i: number, bytes = 100): SpooledBatch => ({ body: Buffer.alloc(bytes, i), events: i })
const files = (directory: string): string[] =>
  readdirSync(directory)
    .filter((name) => name.endsWith('.spool'))
    .sort()

async function drain(spool: Spool): Promise<number[]> {
  const seen: number[] = []
  for (let next = await spool.peek(); next !== null; next = await spool.peek()) {
    expect(next.body.every((byte) => byte === next!.events % 256)).toBe(true)
    seen.push(next.events)
    await spool.shift(next)
  }
  return seen
}

function openSpool(directory: string, bytesMax = 2 ** 30): { spool: Spool; damage: string[] } {
  const damage: string[] = []
  return { spool: new Spool(directory, bytesMax, (what) => damage.push(what)), damage }
}

test('batches through several segments and two processes => first in, first out, and nothing stays on disk', async () => {
  const directory = newDirectory()
  const { spool } = openSpool(directory)
  const size = limits.clientSegmentBytes / 3
  for (let i = 1; i <= 8; i += 1) expect(await spool.append([batch(i, size)])).toBe(1)
  expect(files(directory).length).toBeGreaterThan(2)
  expect(spool.events).toBe(36)
  const first = (await spool.peek())!
  await spool.shift(first)
  await spool.close()

  const { spool: next, damage } = openSpool(directory)
  // The segment of the batch that was taken is there as a whole: what it has is sent again.
  expect(await next.append([batch(9), batch(10)])).toBe(2)
  expect(await drain(next)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  expect(next).toMatchObject({ isEmpty: true, events: 0, bytes: 0 })
  expect(files(directory)).toEqual([])
  expect(damage).toEqual([])
  await next.close()
})

test(`a file cut off behind each of its bytes, with anything behind that => the whole batches in front of it ${promises('ingest:ack-after-disk')}`, async () => {
  const directory = newDirectory()
  const { spool } = openSpool(directory)
  await spool.append([batch(1, 40), batch(2, 40), batch(3, 40)])
  await spool.close()
  const file = join(directory, files(directory)[0]!)
  const whole = readFileSync(file)
  for (let length = 0; length <= whole.length; length += 1) {
    for (const tail of ['', '\u0000'.repeat(50), 'x'.repeat(50)]) {
      writeFileSync(file, whole)
      truncateSync(file, length)
      appendFileSync(file, tail)
      const { spool: again, damage } = openSpool(directory)
      const sound = length < 8 ? 0 : Math.min(3, Math.floor((length - 8) / 56))
      const seen = await drain(again)
      expect(seen.slice(0, sound)).toEqual([1, 2, 3].slice(0, sound))
      expect(seen.length).toBe(sound)
      if (tail !== '' && length >= 8) expect(damage.length).toBeGreaterThan(0)
      await again.close()
      rmSync(file, { force: true })
    }
  }
})

test('a byte of a batch that changed => that one is told and left out, its neighbours come', async () => {
  const directory = newDirectory()
  const { spool } = openSpool(directory)
  await spool.append([batch(1), batch(2), batch(3)])
  await spool.close()
  const file = join(directory, files(directory)[0]!)
  const bytes = readFileSync(file)
  bytes[8 + 116 + 16 + 50]! ^= 1
  writeFileSync(file, bytes)
  const { spool: again, damage } = openSpool(directory)
  expect(await drain(again)).toEqual([1, 3])
  expect(damage).toEqual([expect.stringContaining('does not match its checksum')])
  await again.close()
})

test(`a full spool => it takes what fits and no more; room comes back with what is taken ${promises('system:bounded')}`, async () => {
  const { spool } = openSpool(newDirectory(), 1_000)
  expect(await spool.append([batch(1, 400), batch(2, 400), batch(3, 400)])).toBe(2)
  expect(await spool.append([batch(3, 400)])).toBe(0)
  expect(spool.bytes).toBeLessThanOrEqual(1_000)
  expect(await drain(spool)).toEqual([1, 2])
  expect(await spool.append([batch(3, 400)])).toBe(1)
  expect(await spool.append([batch(4, 2_000)])).toBe(0)
  await spool.close()
})

test('one owner: a second one of the same directory is refused, and may have it afterwards', async () => {
  const directory = newDirectory()
  const { spool } = openSpool(directory)
  expect(() => openSpool(directory)).toThrow('in use by process')
  await spool.close()
  await openSpool(directory).spool.close()
})
