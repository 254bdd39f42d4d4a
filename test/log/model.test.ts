/**
 * The log against a plain list: whatever sequence of bursts, reads, deletions, clean and unclean reopenings, the log holds the
 * same records as the list from its first sequence on. Small segments, so that every step crosses files.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { FileLog } from '../../src/log/files.js'
import { promises } from '../promises.js'
import { crashedCopy, newDirectory, openTestLog } from './fixture.js'
import { payloadOf } from './payload.js'

interface Expected {
  readonly receivedAt: number
  readonly payload: Buffer
}

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('append' as const),
      sizes: fc.array(fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 3000, max: 30_000 })), {
        minLength: 1,
        maxLength: 12,
      }),
      receivedAt: fc.integer({ min: 0, max: 1_000_000 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      at: fc.double({ min: 0, max: 1.2, noNaN: true }),
      bytesMax: fc.integer({ min: 1, max: 60_000 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('delete' as const), at: fc.double({ min: 0, max: 1.1, noNaN: true }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('close' as const, 'crash' as const) }) },
)

test(`any history of appends, reads, deletions and reopenings equals a list ${promises('ingest:ack-after-disk')}`, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), fc.boolean(), async (steps, preallocate) => {
      let directory = newDirectory()
      let log: FileLog = await openTestLog(directory, { preallocate })
      const list: Expected[] = []
      let seed = 0
      for (const each of steps) {
        if (each.kind === 'append') {
          const payloads = each.sizes.map((size) => payloadOf(++seed, size))
          const stored = await Promise.all(payloads.map((payload) => log.append(0, each.receivedAt, payload)))
          for (const [index, payload] of payloads.entries()) {
            const receivedAt = Math.max(each.receivedAt, list.at(-1)?.receivedAt ?? 0)
            list.push({ receivedAt, payload })
            expect(stored[index]).toEqual({ sequence: list.length, receivedAt })
          }
        } else if (each.kind === 'read') {
          await checkRead(log, list, Math.max(1, Math.round(each.at * list.length)), each.bytesMax)
        } else if (each.kind === 'delete') {
          const below = Math.round(each.at * list.length)
          const before = log.state(0).first
          await log.deleteBelow(0, below)
          expect(log.state(0).first).toBeLessThanOrEqual(Math.max(before, below))
        } else {
          const next = each.kind === 'crash' ? crashedCopy(directory) : directory
          const { first } = log.state(0)
          await log.close()
          directory = next
          log = await openTestLog(directory, { preallocate })
          expect(log.state(0)).toMatchObject({ first, last: list.length })
        }
        expect(log.state(0).last).toBe(list.length)
        expect(log.lost()).toEqual([])
      }
      let next = log.state(0).first
      while (next <= list.length) next += await checkRead(log, list, next, 20_000)
      await log.close()
    }),
    { numRuns: 60 },
  )
}, 60_000)

/** What is read is what the list holds from there on, without a gap; answers how many records it was. */
async function checkRead(log: FileLog, list: readonly Expected[], from: number, bytesMax: number): Promise<number> {
  const records = await log.read(0, from, bytesMax)
  const begin = Math.max(from, log.state(0).first)
  expect(records.length > 0).toBe(begin <= list.length)
  for (const [index, { sequence, receivedAt, payload }] of records.entries()) {
    expect(sequence).toBe(begin + index)
    const expected = list[sequence - 1]!
    expect(receivedAt).toBe(expected.receivedAt)
    expect(Buffer.compare(payload, expected.payload)).toBe(0)
  }
  return records.length
}
