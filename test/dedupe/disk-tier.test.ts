/**
 * The disk tier over whole lives: ids exceed memory many times over and go through all levels of runs. What is attacked:
 *
 *   the verdicts, against a Map, whenever runs are built, with the kernel and without it;
 *   restarts from any checkpoint, with whatever files there are;
 *   files that were damaged, cut, lost or left over; a disk that is full.
 */
import {
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { openDedupe } from '../../src/dedupe/dedupe.js'
import type { DedupeState } from '../../src/dedupe/generations.js'
import { IdFiles } from '../../src/dedupe/id-files.js'
import { Identity } from '../../src/dedupe/identity.js'
import { encodeKeyBlock } from '../../src/dedupe/key-block.js'
import { buildRun, type RunTask } from '../../src/dedupe/run-builder.js'
import { RunFile, runEntriesIn, runName } from '../../src/dedupe/run-file.js'
import { openRunPool, type RunPool } from '../../src/dedupe/run-pool.js'
import { Runs } from '../../src/dedupe/runs.js'
import type { UsageEvent } from '../../src/event.js'
import { shardVerdictNames } from '../../src/ingest/verdict.js'
import { silentLogger } from '../../src/logger.js'
import { promises } from '../promises.js'
import { Life, type LifeOptions, Oracle, random } from './disk-life.js'
import { event, frameOf, SECRET } from './frames.js'

vi.setConfig({ testTimeout: 120_000 })

/** The same work in this thread, so that a test says when it is done. */
const here: RunPool = { build: async (task) => buildRun(task), close: async () => {} }

const OPTIONS: LifeOptions = { seed: 1, idsMax: 1_024, diskIdsMax: 200_000, lateMs: 60_000 }

async function inDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'dedupe-disk-'))
  try {
    await run(directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

for (const plain of [false, true]) {
  test(`${promises('dedupe:first-only')} ids far beyond memory, ${plain ? 'plain' : 'kernel'} => the verdicts are those of a Map, whenever runs are built and whenever it restarts`, async () => {
    const levels = new Set<number>()
    let [runsMost, dropped, restarts] = [0, 0, 0]
    for (let seed = 1; seed <= (plain ? 1 : 4); seed += 1) {
      await inDirectory(async (directory) => {
        const options = { ...OPTIONS, seed, plain }
        const next = random(seed)
        const oracle = new Oracle()
        // Builds that wait for a while, so that memory holds what already belongs on disk.
        const waiting: (() => void)[] = []
        const pool: RunPool = {
          build: async (task) => {
            if (next(2) === 0) await new Promise<void>((resolve) => waiting.push(resolve))
            return buildRun(task)
          },
          close: async () => {},
        }
        let life = await Life.open(options, { directory, pool }, null)
        for (let epoch = 1; epoch <= 150; epoch += 1) {
          // A full memory waits for its run.
          const waker = setInterval(() => {
            if (life.dedupe.full) for (const wake of waiting.splice(0)) wake()
          }, 2)
          const done = await life.epoch(epoch, oracle)
          clearInterval(waker)
          expect(done.verdicts, `seed ${seed}, epoch ${epoch}`).toEqual(done.expected)
          dropped += done.dropped.length
          await life.settle(done.state, done.dropped)
          if (next(3) === 0) for (const wake of waiting.splice(0)) wake()
          for (const { level } of done.state.generations) levels.add(level ?? 0)
          const stats = life.dedupe.stats()
          expect(stats.memoryEntries).toBeLessThanOrEqual(options.idsMax)
          expect(stats.entries).toBe(oracle.size)
          runsMost = Math.max(runsMost, stats.runs)
          if (next(12) === 0) {
            restarts += 1
            for (const wake of waiting.splice(0)) wake()
            await life.close()
            life = await Life.open(options, { directory, pool }, JSON.parse(JSON.stringify(done.state)))
            expect(life.dedupe.stats().entries).toBe(oracle.size)
          }
        }
        for (const wake of waiting.splice(0)) wake()
        await life.close()
      })
    }
    // Everything has happened.
    expect([...levels].sort()).toEqual([0, 1, 2])
    expect(runsMost).toBeGreaterThan(5)
    expect(dropped).toBeGreaterThan(2)
    expect(restarts).toBeGreaterThan(3)
  })
}

test('an id is voided, forgotten, comes again and is voided again => the second void counts, wherever the first one lies', () =>
  inDirectory(async (directory) => {
    for (const plain of [false, true]) {
      for (const [before, after] of [
        [0, 0],
        [40, 0],
        [40, 40],
      ] as const) {
        await rm(directory, { recursive: true, force: true })
        const options = {
          stream: 3,
          secret: SECRET,
          idsMax: 256,
          diskIdsMax: 10_000,
          generationMs: 10,
          frameEventsMax: 16,
        }
        let dedupe = openDedupe({ ...options, aheadMs: 5, windowMs: 80, plain })
        const files = await IdFiles.open({
          directory,
          stream: 3,
          pool: here,
          attachRun: async (path) => dedupe.attachRun(path),
          logger: silentLogger,
          onFatal: (error) => {
            throw error
          },
        })
        for await (const _ of files.load(null)) expect.unreachable()
        let epoch = 0
        let state: DedupeState
        const run = async (receivedAt: number, floor: number, events: readonly UsageEvent[]): Promise<string[]> => {
          epoch += 1
          const verdicts = new Uint8Array(events.length)
          dedupe.judge(frameOf(events, receivedAt, floor), verdicts)
          const block = dedupe.takeBlock(epoch)
          if (block !== null) await files.append(block)
          const crossed = dedupe.barrier({ epoch, receivedAt, floorTime: floor })
          state = crossed.state
          await files.settled(crossed.state, crossed.dropped)
          await files.idle()
          return Array.from(verdicts, (verdict) => shardVerdictNames[verdict]!)
        }
        const others = (receivedAt: number, count = 10): UsageEvent[] =>
          Array.from({ length: count }, (_, i) => event({ id: `${epoch}-${i}`, eventTime: receivedAt }))
        const first = event({ id: 'x', eventTime: 100 })
        expect(await run(100, 0, [first])).toEqual(['accepted'])
        await run(115, 0, others(115))
        // In a later generation than the id's.
        expect(await run(130, 0, [{ ...first, kind: 'void' }])).toEqual(['accepted'])
        expect(await run(131, 0, [{ ...first, kind: 'void' }, first])).toEqual(['duplicate', 'duplicate'])
        for (let i = 0; i < before; i += 1) await run(150 + i, 0, others(150 + i))
        // The first generation goes, the void's stays, and the id has a second life.
        await run(300, 121, [])
        const second = event({ id: 'x', eventTime: 301 })
        expect(await run(301, 121, [second])).toEqual(['accepted'])
        for (let i = 0; i < after; i += 1) await run(310 + i, 121, others(310 + i))
        expect(dedupe.stats().runs > 0).toBe(before > 0)
        expect(await run(360, 121, [{ ...second, kind: 'void' }]), `${before}, ${after}, ${plain}`).toEqual([
          'accepted',
        ])
        const third = event({ id: 'y', eventTime: 361 })
        expect(await run(361, 121, [third, { ...second, kind: 'void' }])).toEqual(['accepted', 'duplicate'])
        // The same out of the files.
        await files.close()
        dedupe.close()
        dedupe = openDedupe({ ...options, aheadMs: 5, windowMs: 80, plain })
        const again = await IdFiles.open({
          directory,
          stream: 3,
          pool: here,
          attachRun: async (path) => dedupe.attachRun(path),
          logger: silentLogger,
          onFatal: () => {},
        })
        dedupe.beginRestore(state!)
        for await (const block of again.load(state!)) dedupe.restoreBlock(block)
        dedupe.endRestore()
        const verdicts = new Uint8Array(2)
        dedupe.judge(
          frameOf(
            [
              { ...second, kind: 'void' },
              { ...third, kind: 'void' },
            ],
            304,
            121,
          ),
          verdicts,
        )
        expect([...verdicts].map((verdict) => shardVerdictNames[verdict])).toEqual(['duplicate', 'accepted'])
        await again.close()
        dedupe.close()
      }
    }
  }))

test('a void of an earlier life beside the id in one merge => it goes; the void of this life and a void alone stay', () =>
  inDirectory(async (directory) => {
    const [a, b, c] = ['a', 'b', 'c'].map((id) => {
      const identity = new Identity(SECRET)
      identity.hash(frameOf([event({ id })]))
      return identity.entries.slice(0, 4)
    })
    const voidOf = (entry: Int32Array): Int32Array => entry.map((word, i) => (i === 2 ? word | 1 : word))
    const join32 = (...entries: Int32Array[]): Int32Array => Int32Array.from(entries.flatMap((one) => [...one]))
    const write = async (
      generation: number,
      keys: Int32Array,
      voids: Int32Array,
    ): Promise<RunTask['sources'][number]> => {
      const path = join(directory, `${generation}`)
      await writeFile(path, encodeKeyBlock({ stream: 3, epoch: generation, generation }, keys, voids))
      return { keys: path, generation }
    }
    // a: voided in 1, born again in 2. b: born in 1, voided in 1 and (a later life's, forgotten since) in 3. c: voided in 2, born before.
    const sources = [
      await write(1, join32(b!), join32(voidOf(a!), voidOf(b!))),
      await write(2, join32(a!), join32(voidOf(c!))),
      await write(3, join32(), join32(voidOf(b!))),
    ]
    const target = join(directory, runName(1, 3))
    expect(buildRun({ stream: 3, first: 1, last: 3, sources, target })).toEqual({ ids: 2, marks: 2, voids: 4 })
    const run = new RunFile(target, 3)
    expect([a!, b!, c!].map((entry) => run.find(entry, 0))).toEqual([1, 3, 2])
    run.close()
    // Two lives of one id cannot both be known.
    const twice = { stream: 3, first: 1, last: 2, sources: [sources[1]!, sources[1]!], target }
    expect(() => buildRun(twice)).toThrow('FATAL: an id is twice in the generations 1 to 2')
    expect((await readdir(directory)).sort()).toEqual(['0000000001-0000000003.run', '1', '2', '3'])
  }))

test('one of 100,000 ids => each is found on its page, with its tag, and no other', () =>
  inDirectory(async (directory) => {
    const count = 100_000
    const words = new Int32Array(4 * count)
    const next = random(9)
    // Also hashes that share their high 32 bits over more than a page.
    for (let i = 0; i < words.length; i += 4) {
      words[i] = next(2 ** 32) | 0
      words[i + 1] = i < 4_000 ? 0x7777_7777 : next(2 ** 32) | 0
      words[i + 2] = (next(2 ** 31) << 1) | 0
      words[i + 3] = i
    }
    const keys = join(directory, 'keys')
    const block = encodeKeyBlock({ stream: 3, epoch: 1, generation: 1 }, words, new Int32Array(0))
    await writeFile(keys, block)
    const target = join(directory, runName(1, 1))
    buildRun({ stream: 3, first: 1, last: 1, sources: [{ keys, generation: 1 }], target })
    const run = new RunFile(target, 3)
    let wrong = 0
    for (let i = 0; i < words.length; i += 4) if (run.find(words, i) !== 1 || run.tag !== i) wrong += 1
    expect(wrong).toBe(0)
    // The neighbours of each: one bit of the hash away.
    let found = 0
    for (let i = 0; i < words.length; i += 4) {
      const other = words.slice(i, i + 4)
      const bit = [0, 1, 31, 32, 33, 63, 65, 66, 95][(i / 4) % 9]!
      other[bit >> 5]! ^= 1 << (bit & 31)
      if (run.find(other, 0) !== 0) found += 1
    }
    expect(found).toBe(0)
    run.close()
    // And through the filter: all that are there, and about one in 250 of those that are not.
    const runs = new Runs(3, true)
    let open = runs.load(target)
    while (open === null) open = runs.load(target)
    runs.adopt(open)
    const known = new Uint8Array(10_000)
    const tags = new Int32Array(10_000)
    for (let from = 0; from < count; from += 10_000) {
      runs.find(words.subarray(4 * from, 4 * (from + 10_000)), 10_000, known, tags)
      expect(known.every((one) => one === 1)).toBe(true)
      expect(tags.every((tag, i) => tag === 4 * (from + i))).toBe(true)
    }
    const { filterHits } = runs.stats()
    for (let i = 0; i < words.length; i += 1) words[i] = next(2 ** 32) | 0
    for (let from = 0; from < count; from += 10_000) {
      runs.find(words.subarray(4 * from, 4 * (from + 10_000)), 10_000, known, tags)
      expect(known.every((one) => one === 0)).toBe(true)
    }
    expect((runs.stats().filterHits - filterHits) / count).toBeLessThan(1 / 150)
    expect(runs.stats().filterHits).toBeGreaterThan(filterHits)
    runs.close()
  }))

/** A life of so many epochs, with all its runs built. */
async function lived(
  directory: string,
  epochs: number,
  options = OPTIONS,
): Promise<{ life: Life; state: DedupeState; oracle: Oracle }> {
  const life = await Life.open(options, { directory, pool: here }, null)
  const oracle = new Oracle()
  let state: DedupeState | undefined
  for (let epoch = 1; epoch <= epochs; epoch += 1) {
    const done = await life.epoch(epoch, oracle)
    expect(done.verdicts).toEqual(done.expected)
    state = done.state
    await life.settle(done.state, done.dropped)
    await life.files.idle()
  }
  return { life, state: state!, oracle }
}

const reopened = (directory: string, state: DedupeState, options = OPTIONS): Promise<Life> =>
  Life.open(options, { directory, pool: here }, state)

test('files that a death left => the widest runs are taken, whatever else is there goes', () =>
  inDirectory(async (directory) => {
    const { life, state } = await lived(directory, 40)
    await life.close()
    const before = (await readdir(directory)).sort()
    const runs = before.filter((name) => name.endsWith('.run'))
    expect(runs.length).toBeGreaterThan(1)
    // As if the sources of the first run were still there, a run was being built, and a key file of a generation in a run was left.
    const [first] = runs
    const last = Number(first!.slice(11, 21))
    expect(last).toBeGreaterThan(2)
    await copyFile(join(directory, first!), join(directory, '0000000001-0000000002.run'))
    await writeFile(join(directory, '0000000001.keys'), 'x')
    await writeFile(join(directory, `${first}.tmp`), 'x')
    await writeFile(join(directory, `${first}.tmp.7`), 'x')
    const again = await reopened(directory, state)
    expect((await readdir(directory)).sort()).toEqual(before)
    await again.close()
  }))

test(`${promises('dedupe:first-only')} a run that is damaged, cut, lost or of another stream => it is named, and nothing counts twice`, () =>
  inDirectory(async (directory) => {
    const { life, state } = await lived(directory, 40)
    await life.close()
    const runs = (await readdir(directory)).filter((name) => name.endsWith('.run')).sort()
    const path = join(directory, runs[1]!)
    const bytes = await readFile(path)
    const attempt = async (): Promise<string> => {
      let opened: Life | undefined
      try {
        opened = await reopened(directory, state)
        // Repetitions of everything: each page is read.
        for (let epoch = 41; epoch < 60; epoch += 1) {
          const done = await opened.epoch(epoch)
          await opened.settle(done.state, done.dropped)
          await opened.files.idle()
        }
        return 'went on'
      } catch (error) {
        return (error as Error).message
      } finally {
        await opened?.close()
      }
    }
    const { size } = await stat(path)
    // Every part of the file: head, a page in front, in the middle and at the end, fences, filter.
    const pages = bytes.readUInt32LE(16)
    for (const at of [
      0,
      4,
      20,
      30,
      57,
      4_096,
      4_096 + 2_000,
      4_096 * pages + 100,
      4_096 * (pages + 1) + 1,
      size - 10,
    ]) {
      const turned = Buffer.from(bytes)
      turned[at]! ^= 0x10
      const copy = await mkdtemp(join(tmpdir(), 'dedupe-copy-'))
      for (const name of await readdir(directory)) await copyFile(join(directory, name), join(copy, name))
      await writeFile(path, turned)
      const answer = await attempt()
      expect(answer, `offset ${at}`).toMatch(new RegExp(`^FATAL: .*${runs[1]} is damaged at offset [0-9]+`))
      await rm(directory, { recursive: true })
      await copyDirectory(copy, directory)
      await rm(copy, { recursive: true })
    }
    await truncate(path, size - 1)
    expect(await attempt()).toContain(`${runs[1]} is damaged at offset 0`)
    await unlink(path)
    expect(await attempt()).toMatch(/^FATAL: .* has no run with the ids of the generations/)
    await writeFile(path, bytes)
    const last = join(directory, runs.at(-1)!)
    const lastBytes = await readFile(last)
    await unlink(last)
    expect(await attempt()).toMatch(/^FATAL: .*\.keys is missing/)
    await writeFile(last, lastBytes)
    // A run of ids that the checkpoint does not have.
    const [number] = [state.generations.at(-1)!.number]
    const name = `${String(number + 1).padStart(10, '0')}-${String(number + 2).padStart(10, '0')}.run`
    await copyFile(last, join(directory, name))
    expect(await attempt()).toMatch(/^FATAL: .*another checkpoint's file/)
  }))

async function copyDirectory(from: string, to: string): Promise<void> {
  await mkdir(to)
  for (const name of await readdir(from)) await copyFile(join(from, name), join(to, name))
}

test('a key file that is damaged before its run is built => the process is told to end, and the file is named', () =>
  inDirectory(async (directory) => {
    const fatal: string[] = []
    const life = await Life.open(
      OPTIONS,
      { directory, pool: here, onFatal: (error) => fatal.push(error.message) },
      null,
    )
    for (let epoch = 1; fatal.length === 0 && !life.dedupe.full; epoch += 1) {
      const done = await life.epoch(epoch)
      if (epoch === 2) {
        const handle = await open(join(directory, '0000000001.keys'), 'r+')
        await handle.write(Buffer.from([1, 2, 3]), 0, 3, 100)
        await handle.close()
      }
      await life.settle(done.state, done.dropped)
      await life.files.idle()
    }
    expect(fatal[0]).toMatch(/^FATAL: .*0000000001\.keys is damaged at offset/)
    await life.close()
  }))

test(`${promises('system:bounded')} a disk that is full => memory is held, the stream waits, and goes on when there is room`, () =>
  inDirectory(async (directory) => {
    let isFull = true
    const pool: RunPool = {
      build: async (task) => {
        // Answers each write as a full disk does.
        if (isFull) await symlink('/dev/full', task.target)
        return buildRun(task)
      },
      close: async () => {},
    }
    const life = await Life.open(OPTIONS, { directory, pool }, null)
    const oracle = new Oracle()
    let epoch = 1
    for (; !life.dedupe.full; epoch += 1) {
      const done = await life.epoch(epoch, oracle)
      expect(done.verdicts).toEqual(done.expected)
      await life.settle(done.state, done.dropped)
      await life.files.idle()
      expect(done.state.announcedFloor).toBeNull()
    }
    expect(life.files.fault).toMatch(/^ids cannot go to disk: ENOSPC/)
    expect((await readdir(directory)).filter((name) => !/^[0-9]{10}\.keys$/.test(name))).toEqual([])
    isFull = false
    // The next attempt comes by itself.
    for (; epoch < 40; epoch += 1) {
      const done = await life.epoch(epoch, oracle)
      expect(done.verdicts).toEqual(done.expected)
      await life.settle(done.state, done.dropped)
    }
    expect(life.files.fault).toBeNull()
    expect(life.dedupe.stats().runs).toBeGreaterThan(0)
    await life.close()
  }))

test(`${promises('dedupe:first-only')} the bound on disk is reached => the window shrinks by the floor, nothing counts twice, the files of what is forgotten go`, () =>
  inDirectory(async (directory) => {
    // No age limit of its own: only the bound forgets.
    const options = { ...OPTIONS, diskIdsMax: 4_000, lateMs: 10_000_000 }
    const { life, state } = await lived(directory, 120, options)
    expect(state.announcedFloor).not.toBeNull()
    expect(state.windowFrom).not.toBeNull()
    const stats = life.dedupe.stats()
    expect(stats.entries).toBeLessThanOrEqual(options.idsMax + options.diskIdsMax)
    expect(stats.behindWindow).toBe(0)
    const oldest = state.generations[0]!
    const names = await readdir(directory)
    expect(names.every((name) => Number(name.slice(0, 10)) >= (oldest.first ?? oldest.number))).toBe(true)
    const bytes = (await Promise.all(names.map((name) => stat(join(directory, name))))).reduce(
      (sum, one) => sum + one.size,
      0,
    )
    // Small files have their pages; large ones take what runEntriesIn() says.
    expect(bytes).toBeLessThan(40 * stats.entries + 3 * 4_096 * names.length)
    expect(runEntriesIn(16 * 2 ** 30)).toBeGreaterThan(700_000_000)
    await life.close()
  }))

test('runs are built in a thread of their own, and closing the pool in the middle leaves a directory that opens', () =>
  inDirectory(async (directory) => {
    const pool = openRunPool()
    const life = await Life.open(OPTIONS, { directory, pool }, null)
    const oracle = new Oracle()
    let state: DedupeState | null = null
    for (let epoch = 1; epoch < 60; epoch += 1) {
      const done = await life.epoch(epoch, oracle)
      expect(done.verdicts).toEqual(done.expected)
      state = done.state
      await life.settle(done.state, done.dropped)
    }
    await pool.close()
    await life.close()
    const again = await reopened(directory, state!)
    await again.files.idle()
    for (let epoch = 60; epoch < 90; epoch += 1) {
      const done = await again.epoch(epoch, oracle)
      expect(done.verdicts).toEqual(done.expected)
      await again.settle(done.state, done.dropped)
    }
    await again.close()
  }))
