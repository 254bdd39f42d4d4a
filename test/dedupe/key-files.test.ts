/**
 * Key files against what disks and deaths do to them: files cut at every byte, every bit of a file turned, epochs appended again.
 * The goal each time: what a checkpoint counts is either given whole or refused with file and offset, and what is later is gone.
 */
import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openDedupe } from '../../src/dedupe/dedupe.js'
import type { DedupeState } from '../../src/dedupe/generations.js'
import { KeyFiles } from '../../src/dedupe/key-files.js'
import { shardVerdictNames } from '../../src/ingest/verdict.js'
import { promises } from '../promises.js'
import { event, frameOf, SECRET } from './frames.js'

interface Step {
  readonly block: Uint8Array
  readonly state: DedupeState
}

/** Five epochs: 1 and 2 in the first generation, 3 to 5 in the second; epoch 4 voids an id of epoch 1 and has no key. */
function steps(): Step[] {
  const dedupe = openDedupe({ stream: 3, secret: SECRET, generationMs: 20, aheadMs: 5 })
  const batches = [
    [event({ id: 'a' }), event({ id: 'b' })],
    [event({ id: 'c' })],
    [event({ id: 'd' }), event({ id: 'e' })],
    [event({ id: 'a', kind: 'void' })],
    [event({ id: 'f' }), event({ id: 'd', kind: 'void' })],
  ]
  return batches.map((events, i) => {
    const receivedAt = [1_010, 1_030, 1_035, 1_040, 1_045][i]!
    dedupe.judge(frameOf(events, receivedAt), new Uint8Array(events.length))
    const block = dedupe.takeBlock(i + 1)!
    return { block, state: dedupe.barrier({ epoch: i + 1, receivedAt, floorTime: 0 }).state }
  })
}

async function inDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'dedupe-files-'))
  try {
    await run(directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

async function loadAll(directory: string, state: DedupeState | null, stream = 3): Promise<Uint8Array[]> {
  const files = await KeyFiles.open(directory, stream)
  const blocks: Uint8Array[] = []
  for await (const block of files.load(state)) blocks.push(Uint8Array.from(block))
  await files.close()
  return blocks
}

async function writeAll(directory: string, all: readonly Step[]): Promise<void> {
  const files = await KeyFiles.open(directory, 3)
  for await (const _ of files.load(null)) expect.unreachable('a block in an empty directory')
  for (const { block } of all) await files.append(block)
  await files.close()
}

const blocksOf = (all: readonly Step[]): Uint8Array[] => all.map(({ block }) => Uint8Array.from(block))
const FIRST = '0000000001.keys'
const SECOND = '0000000002.keys'

test(
  'a checkpoint gets its blocks in order, and later ones are cut off for good',
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      for (let checkpoint = all.length; checkpoint >= 1; checkpoint -= 1) {
        await rm(directory, { recursive: true })
        await writeAll(directory, all)
        const upTo = all.slice(0, checkpoint)
        expect(await loadAll(directory, upTo.at(-1)!.state)).toEqual(blocksOf(upTo))
        const sizes = await Promise.all((await readdir(directory)).map((name) => stat(join(directory, name))))
        expect(sizes.reduce((sum, { size }) => sum + size, 0)).toBe(
          upTo.reduce((sum, { block }) => sum + block.length, 0),
        )
      }
      await writeAll(directory, all)
      expect(await loadAll(directory, null)).toEqual([])
      expect(await readdir(directory)).toEqual([])
    }),
  60_000,
)

test(
  `${promises('dedupe:first-only')} a file cut at any byte is whole for the checkpoint or refused by name`,
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      await writeAll(directory, all)
      const path = join(directory, SECOND)
      const bytes = await readFile(path)
      const needed = all[2]!.block.length + all[3]!.block.length
      for (let size = 0; size < bytes.length; size += 1) {
        await writeFile(path, bytes.subarray(0, size))
        if (size < needed) {
          // The offset is where the first block begins that is not there.
          const offset = size < all[2]!.block.length ? 0 : all[2]!.block.length
          await expect(loadAll(directory, all[3]!.state)).rejects.toThrow(
            `FATAL: ${path} is damaged at offset ${offset}`,
          )
          expect((await stat(path)).size).toBe(size)
        } else {
          expect(await loadAll(directory, all[3]!.state)).toEqual(blocksOf(all.slice(0, 4)))
          expect((await stat(path)).size).toBe(needed)
        }
      }
      await rm(path)
      await expect(loadAll(directory, all[3]!.state)).rejects.toThrow(`FATAL: ${path} is missing`)
    }),
  60_000,
)

test(
  'a turned bit at or below the checkpoint is refused with file and offset; behind it it costs nothing',
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      await writeAll(directory, all)
      const path = join(directory, SECOND)
      const bytes = await readFile(path)
      const ends = [all[2]!.block.length, all[2]!.block.length + all[3]!.block.length]
      for (let bit = 0; bit < 8 * bytes.length; bit += 1) {
        const at = bit >>> 3
        const turned = Buffer.from(bytes)
        turned[at]! ^= 1 << (bit & 7)
        await writeFile(path, turned)
        if (at < ends[1]!) {
          const offset = at < ends[0]! ? 0 : ends[0]!
          await expect(loadAll(directory, all[3]!.state)).rejects.toThrow(
            `FATAL: ${path} is damaged at offset ${offset}:`,
          )
        } else {
          expect(await loadAll(directory, all[3]!.state)).toEqual(blocksOf(all.slice(0, 4)))
        }
      }
    }),
  60_000,
)

test('key files of an earlier version are told apart from damaged ones', () =>
  inDirectory(async (directory) => {
    const all = steps()
    await writeAll(directory, all)
    const path = join(directory, FIRST)
    const bytes = await readFile(path)
    bytes.write('DKB1')
    await writeFile(path, bytes)
    await expect(loadAll(directory, all[4]!.state)).rejects.toThrow('FATAL: the key files are of an earlier version')
  }))

test(
  'files of another stream, or of a later life under the same checkpoint, are refused',
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      await writeAll(directory, all)
      await expect(loadAll(directory, all[4]!.state, 4)).rejects.toThrow('is damaged at offset 0')
      const { state } = all[4]!
      const fewer = { ...state, generations: state.generations.map((one) => ({ ...one, entries: 1, voids: 0 })) }
      await expect(loadAll(directory, fewer)).rejects.toThrow(`FATAL: ${join(directory, FIRST)} holds more at offset 0`)
    }),
  60_000,
)

test(
  'an epoch that is appended again replaces itself and whatever is later, in every file',
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      const files = await KeyFiles.open(directory, 3)
      for await (const _ of files.load(null)) expect.unreachable('a block in an empty directory')
      for (const { block } of all) await files.append(block)
      const [first, second] = await Promise.all([FIRST, SECOND].map((name) => readFile(join(directory, name))))
      await files.append(all[4]!.block)
      expect(await readFile(join(directory, SECOND))).toEqual(second)
      // Back to an epoch of the first generation: the second one's file is emptied.
      await files.append(all[1]!.block)
      expect(await readFile(join(directory, FIRST))).toEqual(first)
      expect((await stat(join(directory, SECOND))).size).toBe(0)
      for (const { block } of all.slice(2)) await files.append(block)
      expect(await readFile(join(directory, SECOND))).toEqual(second)
      await files.close()
      expect(await loadAll(directory, all[4]!.state)).toEqual(blocksOf(all))
    }),
  60_000,
)

test(
  'the rest of an append that a kill cut short is overwritten by the epoch done again',
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      const { block } = all[4]!
      for (let landed = 0; landed <= block.length; landed += 1) {
        await rm(directory, { recursive: true })
        await writeAll(directory, all)
        await truncate(join(directory, SECOND), all[2]!.block.length + all[3]!.block.length + landed)
        const files = await KeyFiles.open(directory, 3)
        const blocks: Uint8Array[] = []
        for await (const one of files.load(all[3]!.state)) blocks.push(Uint8Array.from(one))
        expect(blocks).toEqual(blocksOf(all.slice(0, 4)))
        await files.append(block)
        await files.close()
        expect(await loadAll(directory, all[4]!.state)).toEqual(blocksOf(all))
      }
    }),
  60_000,
)

test(
  'a dropped generation leaves with its file; dropping it again does nothing',
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      await writeAll(directory, all)
      const { state } = all[4]!
      const after = { ...state, generations: state.generations.slice(1) }
      const files = await KeyFiles.open(directory, 3)
      for await (const _ of files.load(state));
      await files.drop(1)
      await files.drop(1)
      await files.close()
      expect(await readdir(directory)).toEqual([SECOND])
      expect(await loadAll(directory, after)).toEqual(blocksOf(all.slice(2)))
    }),
  60_000,
)

test(
  'a drop that a death prevented is made up for at the next load',
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      await writeAll(directory, all)
      const { state } = all[4]!
      expect(await loadAll(directory, { ...state, generations: state.generations.slice(1) })).toEqual(
        blocksOf(all.slice(2)),
      )
      expect(await readdir(directory)).toEqual([SECOND])
    }),
  60_000,
)

test(
  'voids survive a restart, also of ids of an older generation, and of ids that are forgotten',
  () =>
    inDirectory(async (directory) => {
      const all = steps()
      await writeAll(directory, all)
      const { state } = all[4]!
      const verdictsAfter = (blocks: Uint8Array[], from: DedupeState): string[] => {
        const dedupe = openDedupe({ stream: 3, secret: SECRET })
        dedupe.restore(from, blocks)
        const events = ['a', 'b', 'd', 'e'].flatMap((id) => [event({ id, kind: 'void' }), event({ id })])
        const verdicts = new Uint8Array(events.length)
        dedupe.judge(frameOf(events, 2_000), verdicts)
        return Array.from(verdicts, (verdict) => shardVerdictNames[verdict]!)
      }
      expect(verdictsAfter(await loadAll(directory, state), state)).toEqual([
        ...['duplicate', 'duplicate'], // a, voided in the next generation
        ...['accepted', 'duplicate'], // b
        ...['duplicate', 'duplicate'], // d, voided
        ...['accepted', 'duplicate'], // e
      ])
      const after = { ...state, generations: state.generations.slice(1) }
      expect(verdictsAfter(await loadAll(directory, after), after).slice(0, 4)).toEqual([
        ...['conflict', 'accepted'], // a, gone with the first generation, void and all
        ...['conflict', 'accepted'],
      ])
    }),
  60_000,
)

test('a restore that is not given exactly the blocks of the state stops the process', () => {
  const all = steps()
  const { state } = all[4]!
  const given = (blocks: Uint8Array[], stream = 3) => {
    return () => openDedupe({ stream, secret: SECRET }).restore(state, blocks)
  }
  const blocks = blocksOf(all)
  expect(given(blocks)).not.toThrow()
  expect(given(blocks.slice(1))).toThrow('FATAL: generation 1 of stream 3 has 1 ids')
  expect(given(blocks.slice(0, 4))).toThrow('FATAL: generation 2 of stream 3 has 2 ids')
  expect(given(blocks.filter((_, i) => i !== 3))).toThrow(
    'FATAL: generation 2 of stream 3 has 3 ids and 1 voids instead of 3 and 2',
  )
  expect(given([blocks[0]!, ...blocks])).toThrow('holds an id twice')
  expect(given(blocks, 4)).toThrow('FATAL: a key block that does not belong to stream 4')
  expect(() => openDedupe({ stream: 3, secret: SECRET }).restore(all[1]!.state, blocks.slice(0, 3))).toThrow('FATAL')
})
