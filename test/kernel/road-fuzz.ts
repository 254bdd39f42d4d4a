/**
 * Fuzz of the whole way through the kernel against the plain one: the same bodies, whole and broken, of all formats that the
 * kernel reads, through door, dedupe and
 * epoch of both. Compared are verdicts, frames, key blocks, states, and the bytes of every chunk. One seed says everything.
 *
 * Run by road.test.ts with few events, or: node dist/test/kernel/road-fuzz.js EVENTS [SEED]
 */
import { pathToFileURL } from 'node:url'
import { openAggregate } from '../../src/aggregate/aggregate.js'
import { openDedupe } from '../../src/dedupe/dedupe.js'
import { contentKeyBytes, MemberHash, memberHash } from '../../src/dedupe/identity.js'
import { decodeFrame } from '../../src/frame.js'
import type { BodyFormat } from '../../src/ingest/ingest.js'
import { PlainEpoch } from '../../src/rollup/epoch.js'
import { openKernelEpoch } from '../../src/rollup/kernel-epoch.js'
import { FLOOR_TIME, RECEIVED_AT } from '../ingest/door.js'
import { type FuzzFormat, formatBody, fuzzFormats } from '../ingest/format-fuzz.js'
import { compare, fuzzBody, mutate, openPair, random } from '../ingest/kernel-fuzz.js'

const SECRET = Uint8Array.from({ length: 16 }, (_, i) => (i * 13 + 5) % 256)
const STREAM = 0
const IDS_MAX = 400_000
const EPOCH_EVENTS = 5_000
const CHUNK_ROWS = 700

export interface RoadCounts {
  readonly events: number
  readonly stored: number
  readonly accepted: number
  readonly duplicate: number
  readonly conflict: number
  readonly epochs: number
  readonly dropped: number
  readonly voids: number
}

/** Compares at least so many events. Throws with the seed at the first difference. */
export function fuzzRoad(events: number, seed: number): RoadCounts {
  const next = random(seed)
  const pair = openPair(1)
  const dedupeOptions = { stream: STREAM, secret: SECRET, idsMax: IDS_MAX, generationMs: 50_000, aheadMs: 1_000 }
  const dedupes = [openDedupe({ ...dedupeOptions, plain: true }), openDedupe(dedupeOptions)] as const
  const members = new MemberHash(SECRET)
  const words = new Int32Array(4)
  const plainEpoch = new PlainEpoch(
    STREAM,
    openAggregate((tenant, member) => {
      memberHash(members.keyOf(tenant), member, 0, member.length, words, 0)
      return new Uint8Array(words.buffer)
    }),
    CHUNK_ROWS,
  )
  const kernelEpoch = openKernelEpoch(
    STREAM,
    { member: members.keyBytes, content: contentKeyBytes(SECRET) },
    CHUNK_ROWS,
  )
  if (kernelEpoch === null) throw new Error('cannot compare: the kernel is not built')
  const epochs = [plainEpoch, kernelEpoch] as const
  const done = { events: 0, stored: 0, accepted: 0, duplicate: 0, conflict: 0, epochs: 0, dropped: 0, voids: 0 }
  const check = (isSame: boolean, what: string): void => {
    if (!isSame) throw new Error(`seed ${seed}, events ${done.events}, epoch ${done.epochs}: ${what} differ`)
  }
  const same = (one: unknown, other: unknown, what: string): void =>
    check(JSON.stringify(one) === JSON.stringify(other), what)
  let receivedAt = RECEIVED_AT
  let sequence = 0
  let inEpoch = 0
  for (const epoch of epochs) epoch.open(0)

  const seal = (): void => {
    const [plain, kernel] = [epochs[0].drain(), epochs[1].drain()]
    same(plain.overrides, kernel.overrides, 'overrides')
    const heads = [plain, kernel].map(({ chunks }) => chunks.map(({ pieces: _, ...head }) => head))
    same(heads[0], heads[1], 'chunks')
    for (const [i, chunk] of plain.chunks.entries()) {
      check(Buffer.concat(chunk.pieces).equals(Buffer.concat(kernel.chunks[i]!.pieces)), 'bytes of a chunk')
    }
    const [block, kernelBlock] = dedupes.map((dedupe) => dedupe.takeBlock(done.epochs))
    check(Buffer.from(block ?? []).equals(Buffer.from(kernelBlock ?? [])), 'key blocks')
    const barrier = { epoch: done.epochs, receivedAt, floorTime: receivedAt - 1_000_000 }
    const [crossed, kernelCrossed] = dedupes.map((dedupe) => dedupe.barrier(barrier))
    same(crossed, kernelCrossed, 'states')
    done.dropped += crossed!.dropped.length
    done.epochs += 1
    inEpoch = 0
    for (const epoch of epochs) epoch.open(done.epochs)
  }

  /** Some bodies come again, so that there are duplicates, conflicts and voids of what is known. */
  const before: { format: BodyFormat; body: Buffer }[] = []
  while (done.events < events) {
    const size = 1 + next(60)
    const known = before.length > 0 && next(4) === 0 ? before[next(before.length)]! : undefined
    const format = known?.format ?? (next(2) === 0 ? 'json' : fuzzFormats[next(fuzzFormats.length)]!)
    let body =
      known?.body ??
      (format === 'json'
        ? fuzzBody(next, size)
        : formatBody(next, format as FuzzFormat, format === 'cloudevents' ? 1 : size))
    // The same events taken back; where they were sound, so are the voids.
    if (next(8) === 0 && (format === 'json' || format === 'ndjson')) {
      body = Buffer.from(body.toString('latin1').replaceAll('"id":', '"kind":"void","id":'), 'latin1')
    }
    if (next(3) === 0) body = mutate(next, body)
    if (before.length < 500) before.push({ format, body })
    else before[next(500)] = { format, body }
    receivedAt += next(1_000)
    const request = { format, receivedAt, floorTime: FLOOR_TIME - 40 * 86_400_000 }
    const { difference, judged } = compare(pair, body, request)
    check(difference === null, `doors, ${format}\n${body.toString('latin1')}\n${difference}`)
    done.events += size
    for (const { frame: bytes } of judged?.parts ?? []) {
      if (dedupes[0].full) break
      sequence += 1
      const answers = [0, 1].map((side) => {
        // Each side has its own frame: what one has decoded must not help the other.
        const frame = decodeFrame(bytes)
        const verdicts = new Uint8Array(frame.events)
        dedupes[side]!.judge(frame, verdicts, epochs[side]!.seriesKeys(frame))
        const books = epochs[side]!.apply(frame, sequence, verdicts)
        return { verdicts, books, series: epochs[side]!.seriesTouched, bytes: epochs[side]!.bytes }
      })
      const [plain, kernel] = answers
      check(Buffer.from(plain!.verdicts).equals(Buffer.from(kernel!.verdicts)), 'verdicts')
      same({ ...plain, verdicts: 0 }, { ...kernel, verdicts: 0 }, 'books')
      const { accepted, duplicate, conflict } = plain!.books
      done.stored += plain!.verdicts.length
      done.accepted += accepted
      done.duplicate += duplicate
      done.conflict += conflict
      done.voids += plain!.books.voids
      inEpoch += plain!.verdicts.length
    }
    if (inEpoch >= EPOCH_EVENTS || dedupes[0].full) seal()
  }
  seal()
  return done
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const seed = Number(process.argv[3] ?? Date.now() % 1_000_000_007)
  console.log(`seed ${seed}`)
  // A fresh stream every 400,000 events: beyond it the table of ids is full, and most verdicts are conflicts behind the window.
  const total: Record<string, number> = {}
  for (let left = Number(process.argv[2] ?? 10_000_000), round = seed; left > 0; left -= 400_000, round += 1) {
    for (const [name, count] of Object.entries(fuzzRoad(Math.min(left, 400_000), round))) {
      total[name] = (total[name] ?? 0) + count
    }
  }
  console.log(total)
}
