/**
 * Question: what does it cost to know an id, as the ids become many? In memory from a million to a hundred million; on disk beyond.
 *
 *     node dist/bench/dedupe.bench.js                            a million ids in memory, then four million of which most are on disk
 *     node dist/bench/dedupe.bench.js small                      so little that it only shows that all works
 *     node dist/bench/dedupe.bench.js 1000000 10000000 100000000      the curve: a line for each, a process for each
 *     node dist/bench/dedupe.bench.js disk 16000000 120000000    so many in memory at most, so many in all
 *     … json                                                     one JSON object a line instead, for charts
 *     … plain                                                    the plain TypeScript side
 *
 * Measured: nanoseconds per event of judge(), of which 25 are the hashes; memory per id; the longest frame of 1,000 events, which
 * shows rebuilds; the longest hand-over of an epoch's keys; the reload from key files and its longest slice, for nothing else can
 * happen in the thread meanwhile. The ids are made in place in one frame, so that the producer costs nothing.
 * Not measured: the door, the log, ClickHouse.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openDedupe } from '../src/dedupe/dedupe.js'
import type { DedupeState } from '../src/dedupe/generations.js'
import { IdFiles } from '../src/dedupe/id-files.js'
import { openRunPool } from '../src/dedupe/run-pool.js'
import { decodeFrame, encodeFrame, type Frame } from '../src/frame.js'
import { limits } from '../src/limits.js'
import type { Logger } from '../src/logger.js'

const FRAME_EVENTS = 1_000
const SECRET = new Uint8Array(16).fill(7)
/** Frames of each measured share. */
const SAMPLE = 500
const metric = {
  key: 'kyc_verification',
  version: 1,
  aggregation: 'sum',
  unit: 'document',
  scale: 2,
  dims: ['region'],
  uniqueBy: null,
  archive: true,
} as const

/** 36-byte ids, 100 series and 4 origins a frame. */
function template(): Frame {
  const events = Array.from({ length: FRAME_EVENTS }, (_, i) => ({
    tenant: `tenant-${i % 4}`,
    source: 'gateway-1',
    id: '5f0c3f6e-8d1b-4a57-9a3e-000000000000',
    metric,
    subject: `line-${i % 100}`,
    eventTime: 1_000_000 - i,
    value: BigInt(100 + i),
    dims: '{"region":"ci"}',
    member: '',
    kind: 'usage' as const,
  }))
  return decodeFrame(encodeFrame({ receivedAt: 1_000_000, floorTime: 0, catalogVersion: 1 }, events, []))
}

/** The ids of the frame become those of these numbers; a place in the frame and its number always go together. */
function stamp(frame: Frame, numberOf: (i: number) => number): void {
  const { ids } = frame
  for (let i = 0; i < FRAME_EVENTS; i += 1) {
    let number = numberOf(i)
    for (let at = 36 * i + 35; at > 36 * i + 24; at -= 1) {
      ids[at] = 48 + (number % 10)
      number = Math.floor(number / 10)
    }
  }
}

/** mulberry32. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

const rssMb = (): number => Math.round(process.memoryUsage.rss() / 2 ** 20)
const round = (value: number, digits = 1): number => Number(value.toFixed(digits))

class Bench {
  readonly frame = template()
  readonly verdicts = new Uint8Array(FRAME_EVENTS)
  readonly files: IdFiles
  readonly dedupe: ReturnType<typeof openDedupe>
  state: DedupeState | null = null
  epoch = 0
  sent = 0
  longestFrameMs = 0
  longestSealMs = 0
  waitedMs = 0
  inEpoch = 0

  readonly epochEvents: number

  constructor(dedupe: ReturnType<typeof openDedupe>, files: IdFiles, idsMax: number) {
    this.dedupe = dedupe
    this.files = files
    this.epochEvents = Math.min(limits.epochEventsMax, idsMax / 16)
  }

  /** Judges a frame of these numbers; every verdict must be the expected one. */
  judge(numberOf: (i: number) => number, expected: number): number {
    stamp(this.frame, numberOf)
    const start = performance.now()
    this.dedupe.judge(this.frame, this.verdicts)
    const ms = performance.now() - start
    if (ms > this.longestFrameMs) this.longestFrameMs = ms
    for (const verdict of this.verdicts) if (verdict !== expected) throw new Error(`WRONG verdict ${verdict}`)
    return ms
  }

  async fresh(frames: number): Promise<number> {
    let ms = 0
    for (let n = 0; n < frames; n += 1) {
      while (this.dedupe.full) {
        const start = performance.now()
        if (this.inEpoch > 0) await this.seal()
        await this.files.room()
        this.waitedMs += performance.now() - start
      }
      const first = this.sent
      ms += this.judge((i) => first + i, 0)
      this.sent += FRAME_EVENTS
      this.inEpoch += FRAME_EVENTS
      if (this.inEpoch >= this.epochEvents) await this.seal()
    }
    return (ms * 1e6) / (frames * FRAME_EVENTS)
  }

  /** Ids among the first or last so many. */
  known(frames: number, from: number, to: number): number {
    const next = random(from + to)
    const frameCount = Math.floor((to - from) / FRAME_EVENTS)
    let ms = 0
    for (let n = 0; n < frames; n += 1) {
      ms += this.judge((i) => from + FRAME_EVENTS * Math.floor(next() * frameCount) + i, 1)
    }
    return (ms * 1e6) / (frames * FRAME_EVENTS)
  }

  async seal(): Promise<void> {
    this.epoch += 1
    this.inEpoch = 0
    const start = performance.now()
    const block = this.dedupe.takeBlock(this.epoch)
    const { state, dropped } = this.dedupe.barrier({ epoch: this.epoch, receivedAt: 1_000_000, floorTime: 0 })
    this.longestSealMs = Math.max(this.longestSealMs, performance.now() - start)
    if (block !== null) await this.files.append(block)
    this.state = state
    await this.files.settled(state, dropped)
  }
}

interface Options {
  readonly idsMax: number
  readonly diskIdsMax: number
  readonly plain: boolean
}

async function open(directory: string, { idsMax, diskIdsMax, plain }: Options, logger: Pick<Logger, 'info' | 'warn'>) {
  const pool = openRunPool()
  let longestAttachMs = 0
  const bounds = { idsMax, diskIdsMax, frameEventsMax: FRAME_EVENTS }
  const dedupe = openDedupe({ stream: 0, secret: SECRET, plain, windowMs: 35 * 86_400_000, ...bounds })
  const files = await IdFiles.open({
    directory,
    stream: 0,
    pool,
    logger: logger as Logger,
    attachRun: async (path) => {
      const start = performance.now()
      const isIn = dedupe.attachRun(path)
      longestAttachMs = Math.max(longestAttachMs, performance.now() - start)
      return isIn
    },
    onFatal: (error) => {
      throw error
    },
  })
  return { dedupe, files, pool, longestAttachMs: () => longestAttachMs }
}

const quiet = { info: () => {}, warn: () => {} }

export interface GrowthPoint {
  readonly ids: number
  /** Nanoseconds per event with so many ids in memory. */
  readonly newNs: number
  readonly duplicateNs: number
  readonly tableBytesPerId: number
  readonly rssMb: number
  readonly longestFrameMs: number
  readonly longestSealMs: number
  readonly reloadMs: number
  readonly longestReloadSliceMs: number
}

async function growth(ids: number, plain: boolean): Promise<GrowthPoint> {
  const directory = mkdtempSync(join(tmpdir(), 'releve-bench-ids-'))
  try {
    const options = { idsMax: Math.max(ids, 16 * FRAME_EVENTS) + 2 * FRAME_EVENTS, diskIdsMax: 0, plain }
    const opened = await open(directory, options, quiet)
    const bench = new Bench(opened.dedupe, opened.files, options.idsMax)
    for await (const _ of opened.files.load(null)) throw new Error('WRONG: a block')
    const frames = Math.ceil(ids / FRAME_EVENTS)
    const sample = Math.min(SAMPLE, Math.ceil(frames / 2))
    // The first frames are the compiler's.
    await bench.fresh(frames - sample)
    if (frames > 1_000) bench.longestFrameMs = 0
    const newNs = await bench.fresh(sample)
    const duplicateNs = bench.known(sample, 0, bench.sent)
    await bench.seal()
    const { bytes, entries } = bench.dedupe.stats()
    const resident = rssMb()
    await opened.files.close()
    await opened.pool.close()

    const start = performance.now()
    const again = await open(directory, options, quiet)
    let longest = 0
    again.dedupe.beginRestore(bench.state!)
    for await (const block of again.files.load(bench.state)) {
      let from = performance.now()
      const step = (): void => {
        const now = performance.now()
        longest = Math.max(longest, now - from)
        from = now
      }
      again.dedupe.beginBlock(block)
      step()
      for (let isIn = false; !isIn; step()) isIn = again.dedupe.takeSlice()
    }
    again.dedupe.endRestore()
    const reloadMs = performance.now() - start
    if (again.dedupe.stats().entries !== entries) throw new Error('WRONG: ids were lost')
    await again.files.close()
    await again.pool.close()
    return {
      ...{ ids, newNs: round(newNs), duplicateNs: round(duplicateNs), tableBytesPerId: round(bytes / entries, 2) },
      ...{ rssMb: resident, longestFrameMs: round(bench.longestFrameMs, 2), longestSealMs: round(bench.longestSealMs) },
      ...{ reloadMs: Math.round(reloadMs), longestReloadSliceMs: round(longest) },
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

export interface DiskPoint {
  readonly idsInMemory: number
  readonly idsOnDisk: number
  readonly runs: number
  /** Nanoseconds per event. */
  readonly newNs: number
  readonly duplicateInMemoryNs: number
  readonly duplicateOnDiskNs: number
  readonly filterBytesPerId: number
  readonly diskBytesPerId: number
  /** One in so many new ids, a run, is let through by its filter. */
  readonly letThroughOneIn: number
  readonly buildNsPerId: number
  readonly longestAttachMs: number
  readonly longestFrameMs: number
  readonly waitedMs: number
  readonly reloadMs: number
  readonly rssMb: number
}

async function disk(memory: number, all: number, plain: boolean): Promise<DiskPoint> {
  const directory = mkdtempSync(join(tmpdir(), 'releve-bench-ids-'))
  try {
    const options = { idsMax: memory, diskIdsMax: 2 * all, plain }
    let [built, builtMs] = [0, 0]
    const opened = await open(directory, options, {
      ...quiet,
      info: ((line: { ids: number; ms: number }) => {
        built += line.ids
        builtMs += line.ms
      }) as Logger['info'],
    })
    const bench = new Bench(opened.dedupe, opened.files, options.idsMax)
    for await (const _ of opened.files.load(null)) throw new Error('WRONG: a block')
    const frames = Math.ceil(all / FRAME_EVENTS)
    const sample = Math.min(SAMPLE, Math.ceil(frames / 8))
    await bench.fresh(frames - sample)
    await bench.seal()
    await bench.files.idle()
    bench.longestFrameMs = 0
    const before = bench.dedupe.stats()
    const newNs = await bench.fresh(sample)
    const after = bench.dedupe.stats()
    const asked = after.filterAsked - before.filterAsked
    await bench.seal()
    await bench.files.idle()
    const duplicateInMemoryNs = bench.known(sample, bench.sent - Math.floor(memory / 4), bench.sent)
    const duplicateOnDiskNs = bench.known(Math.ceil(sample / 10), 0, Math.floor(before.diskEntries / 2))
    const { longestFrameMs, waitedMs } = bench
    await opened.files.close()
    await opened.pool.close()
    opened.dedupe.close()
    const runs = readdirSync(directory).filter((name) => name.endsWith('.run'))
    const bytes = runs.reduce((sum, name) => sum + statSync(join(directory, name)).size, 0)
    const resident = rssMb()

    const start = performance.now()
    const again = await open(directory, options, quiet)
    again.dedupe.beginRestore(bench.state!)
    for await (const block of again.files.load(bench.state)) again.dedupe.restoreBlock(block)
    again.dedupe.endRestore()
    const reloadMs = Math.round(performance.now() - start)
    const { memoryEntries, diskEntries, entries } = again.dedupe.stats()
    if (entries !== bench.sent) throw new Error('WRONG: ids were lost')
    await again.files.close()
    await again.pool.close()
    return {
      ...{ idsInMemory: memoryEntries, idsOnDisk: diskEntries, runs: runs.length },
      ...{ newNs: round(newNs), duplicateInMemoryNs: round(duplicateInMemoryNs) },
      duplicateOnDiskNs: round(duplicateOnDiskNs),
      filterBytesPerId: round(after.runBytes / Math.max(1, after.diskEntries), 2),
      diskBytesPerId: round(bytes / Math.max(1, diskEntries), 2),
      letThroughOneIn: Math.round(asked / Math.max(1, after.filterHits - before.filterHits)),
      ...{
        buildNsPerId: Math.round((builtMs * 1e6) / Math.max(1, built)),
        longestAttachMs: round(opened.longestAttachMs()),
      },
      ...{ longestFrameMs: round(longestFrameMs, 2), waitedMs: Math.round(waitedMs), reloadMs, rssMb: resident },
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function print(title: string, point: GrowthPoint | DiskPoint, isJson: boolean): void {
  if (isJson) console.log(JSON.stringify({ bench: 'dedupe', kind: title, ...point }))
  else
    console.log(
      `${title}: ${Object.entries(point)
        .map(([name, value]) => `${name} ${value.toLocaleString('en')}`)
        .join(', ')}`,
    )
}

const args = process.argv.slice(2)
const [isJson, plain] = [args.includes('json'), args.includes('plain')]
const numbers = args.filter((one) => /^[0-9]+$/.test(one)).map(Number)
if (args.includes('disk')) print('disk', await disk(numbers[0] ?? 1_000_000, numbers[1] ?? 4_000_000, plain), isJson)
else if (numbers.length > 1) {
  // A process each: what one has touched is not given back to the next.
  for (const ids of numbers) {
    const rest = args.filter((one) => !/^[0-9]+$/.test(one))
    const self = fileURLToPath(import.meta.url)
    const { status } = spawnSync(process.execPath, [self, String(ids), 'memory', ...rest], { stdio: 'inherit' })
    if (status !== 0) process.exitCode = 1
  }
} else {
  const ids = args.includes('small') ? 20_000 : (numbers[0] ?? 1_000_000)
  print('memory', await growth(ids, plain), isJson)
  if (!args.includes('memory'))
    print('disk', await disk(Math.max(16 * FRAME_EVENTS, ids), 4 * Math.max(16 * FRAME_EVENTS, ids), plain), isJson)
}
