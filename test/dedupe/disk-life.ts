/**
 * A stream's life whose ids exceed memory many times over, for the tests of the disk tier: seeded frames of new ids, repetitions of any
 * age, other contents and voids, behind a door that refuses by age. Dedupe, its files and their checkpoints are those of the shard;
 * only ClickHouse and the log are left out, since a frame can be made again from its number.
 *
 * A Map of identities, which knows no hash, no table and no file, says what the verdicts must be.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Dedupe, openDedupe } from '../../src/dedupe/dedupe.js'
import type { DedupeState } from '../../src/dedupe/generations.js'
import { IdFiles, type IdFilesOptions } from '../../src/dedupe/id-files.js'
import type { UsageEvent } from '../../src/event.js'
import { shardVerdictNames } from '../../src/ingest/verdict.js'
import { silentLogger } from '../../src/logger.js'
import { event, frameOf, SECRET } from './frames.js'

export const STREAM = 3
export const FRAMES = 4
export const EVENTS = 48
const EPOCH_MS = 1_000

/** mulberry32. */
export function random(seed: number): (below: number) => number {
  let state = seed | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000) * below)
  }
}

export interface LifeOptions {
  readonly seed: number
  readonly idsMax: number
  readonly diskIdsMax: number
  /** L; F is 100 ms. */
  readonly lateMs: number
  readonly plain?: boolean
  /** Epochs are always whole: a full memory is waited for inside of them. */
  readonly waits?: boolean
}

export const openFor = ({ idsMax, diskIdsMax, lateMs, plain = false }: LifeOptions): Dedupe =>
  openDedupe({
    stream: STREAM,
    secret: SECRET,
    idsMax,
    diskIdsMax,
    generationMs: 20 * EPOCH_MS,
    aheadMs: 100,
    windowMs: lateMs + 100,
    frameEventsMax: EVENTS,
    plain,
  })

/** The content of an id is a function of its number, so that a repetition needs no memory. */
function usage(number: number, receivedAt: number): UsageEvent {
  return event({
    tenant: ['a', 'ab'][number % 2]!,
    id: `${number}`,
    eventTime: receivedAt - (number % 900),
    value: BigInt(number % 7),
  })
}

const receivedAtOf = (epoch: number, frame: number): number =>
  1_000_000 + EPOCH_MS * epoch + Math.floor((EPOCH_MS * frame) / FRAMES)
const perFrame = Math.floor(EVENTS * 0.7)
const firstOfFrame = (epoch: number, frame: number): number => perFrame * (FRAMES * epoch + frame)
const receivedAtOfId = (number: number): number => {
  const frame = Math.floor(number / perFrame)
  return receivedAtOf(Math.floor(frame / FRAMES), frame % FRAMES)
}

/** The events of a frame that the door lets in, always the same for the same numbers. */
export function eventsOf(seed: number, epoch: number, frame: number, floor: number): UsageEvent[] {
  const next = random(seed * 1_000_003 + epoch * 1_009 + frame)
  const receivedAt = receivedAtOf(epoch, frame)
  const first = firstOfFrame(epoch, frame)
  const events = Array.from({ length: perFrame }, (_, i) => usage(first + i, receivedAt))
  while (events.length < EVENTS) {
    // Of any age, the near ones more often.
    const back = 1 + Math.floor(((first + perFrame) * next(1_000) * next(1_000)) / 1_000_000)
    const any = Math.max(0, first + perFrame - back)
    // Some ids are met again and again, so that they have several lives. Their voids come late, and so outlive the first of them.
    const isOften = next(2) === 0
    const number = isOften ? any - (any % 400) : any
    const isLate = receivedAt - receivedAtOfId(number) > 30 * EPOCH_MS
    const repeated = usage(number, receivedAtOfId(number))
    const roll = next(10)
    events.push({
      ...repeated,
      ...(roll < 3 && (isLate || !isOften) ? { kind: 'void' as const } : {}),
      ...(roll === 3 ? { value: repeated.value + 1n } : {}),
      // An id that comes again with a time of its own: another content while it is known, a life of its own afterwards.
      ...(roll >= 8 ? { eventTime: receivedAt } : {}),
    })
    // The void of that life; one of the earlier life means nothing to it.
    if (roll === 9) events.push({ ...events.at(-1)!, kind: 'void' })
  }
  events.length = EVENTS
  return events.filter(({ eventTime }) => eventTime >= floor && eventTime <= receivedAt + 100)
}

export interface Epoch {
  readonly verdicts: readonly string[]
  readonly state: DedupeState
}

/** What must come out: one Map of all that is known. */
export class Oracle {
  readonly #known = new Map<string, { content: string; generation: number; isVoided: boolean }>()

  judge(events: readonly UsageEvent[], generation: number): string[] {
    return events.map((one) => {
      const name = JSON.stringify([one.tenant, one.source, one.id])
      const content = `${one.eventTime}/${one.value}`
      const entry = this.#known.get(name)
      if (one.kind === 'void') {
        if (entry?.content !== content) return 'conflict'
        if (entry.isVoided) return 'duplicate'
        entry.isVoided = true
        return 'accepted'
      }
      if (entry !== undefined) return entry.content === content ? 'duplicate' : 'conflict'
      this.#known.set(name, { content, generation, isVoided: false })
      return 'accepted'
    })
  }

  barrier(dropped: readonly number[]): void {
    const through = Math.max(0, ...dropped)
    for (const [name, { generation }] of this.#known) if (generation <= through) this.#known.delete(name)
  }

  get size(): number {
    return this.#known.size
  }
}

/** One process's share of a life: dedupe with its files, from a checkpoint on. */
export class Life {
  readonly options: LifeOptions
  readonly dedupe: Dedupe
  readonly files: IdFiles
  state: DedupeState | null

  private constructor(options: LifeOptions, dedupe: Dedupe, files: IdFiles, state: DedupeState | null) {
    this.options = options
    this.dedupe = dedupe
    this.files = files
    this.state = state
  }

  static async open(
    options: LifeOptions,
    files: Pick<IdFilesOptions, 'directory' | 'pool'> & Partial<IdFilesOptions>,
    state: DedupeState | null,
  ): Promise<Life> {
    const dedupe = openFor(options)
    const ids = await IdFiles.open({
      stream: STREAM,
      attachRun: async (path) => dedupe.attachRun(path),
      logger: silentLogger,
      onFatal: (error) => {
        throw error
      },
      ...files,
    })
    if (state !== null) dedupe.beginRestore(state)
    for await (const block of ids.load(state)) dedupe.restoreBlock(block)
    if (state !== null) dedupe.endRestore()
    return new Life(options, dedupe, ids, state)
  }

  /** Judges an epoch, up to the key file; whoever calls it keeps the state and then says so with settle(). */
  async epoch(
    epoch: number,
    oracle?: Oracle,
  ): Promise<{ verdicts: string[]; expected: string[]; state: DedupeState; dropped: number[] }> {
    const verdicts: string[] = []
    const expected: string[] = []
    const { lateMs, seed } = this.options
    let [receivedAt, floor] = [0, 0]
    for (let frame = 0; frame < FRAMES; frame += 1) {
      receivedAt = receivedAtOf(epoch, frame)
      floor = Math.max(receivedAt - lateMs, this.state?.announcedFloor ?? 0)
      // As the stream does: the epoch ends here, and what comes waits in the log. A life that is compared with another waits.
      if (this.dedupe.full && frame > 0 && !this.options.waits) break
      while (this.dedupe.full) await sleep(1)
      const events = eventsOf(seed, epoch, frame, floor)
      const judged = new Uint8Array(events.length)
      this.dedupe.judge(frameOf(events, receivedAt, floor), judged)
      verdicts.push(...Array.from(judged, (verdict) => shardVerdictNames[verdict]!))
      if (oracle) expected.push(...oracle.judge(events, this.state?.generations.at(-1)?.number ?? 1))
    }
    const block = this.dedupe.takeBlock(epoch)
    if (block !== null) await this.files.append(block)
    const { state, dropped } = this.dedupe.barrier({ epoch, receivedAt, floorTime: floor })
    oracle?.barrier(dropped)
    return { verdicts, expected, state, dropped }
  }

  async settle(state: DedupeState, dropped: readonly number[]): Promise<void> {
    this.state = state
    await this.files.settled(state, dropped)
  }

  async close(): Promise<void> {
    await this.files.close()
    this.dedupe.close()
  }
}
