/**
 * Generations: which ids are remembered together, when a new group begins and when an old one may be forgotten.
 *
 * A generation may be forgotten once a record carries a floorTime after every eventTime that its ids can have: the door lets
 * in no eventTime below the floor, so a repetition of one of its ids no longer gets in. No event lies further ahead than
 * receivedAt + aheadMs, so that time is at most toReceivedAt + aheadMs. «After», not «at»: an event exactly at the floor is
 * let in. Generations go oldest first, and only at epoch barriers.
 *
 * When memory is short (PRESSURE) a generation goes as soon as the floor is behind the latest eventTime that its ids really
 * have. With the bound of toReceivedAt + aheadMs the announced floor could lie in the future, and the door would refuse the
 * present: 1,000 events a second fill 64 M ids in 14 hours, and F is a day. What is given up: an id that comes again with a
 * later time of its own counts again once its generation is gone, which is what a shrunken window means.
 *
 * Where ids may go to disk, the oldest generations are joined when memory fills (level 1), and joined ones again (level 2), so that
 * few runs must be asked. A joined generation lives and dies as one. Joining says which ids shall lie together on disk; when
 * that is done (id-files.ts) changes no verdict.
 *
 * All decisions are functions of the log's records and of the epoch's bounds, so a replay makes the same ones. No clock here.
 */
import { limits } from '../limits.js'

export interface Generation {
  /** From 1, never used twice in a stream. Of a joined generation the last one. */
  readonly number: number
  /** The first number of a joined generation; absent when there is only one. */
  readonly first?: number
  /** How often it was joined; absent: never, its place is in memory. Others belong on disk. */
  readonly level?: 1 | 2
  /** receivedAt of the barrier that opened it; of the first record for the first one. */
  readonly fromReceivedAt: number
  /** receivedAt of the last record that could add to it. */
  readonly toReceivedAt: number
  /** Latest eventTime of its ids; 0 when it has none. */
  readonly lastEventTime: number
  /** Ids in it. */
  readonly entries: number
  /** Voids that were accepted during it. */
  readonly voids: number
}

/** What dedupe is after an epoch, apart from the ids. JSON; kept with the epoch's checkpoint. */
export interface DedupeState {
  /** The last epoch inside. */
  readonly epoch: number
  /** Oldest first; the last one is the current one. Never empty. */
  readonly generations: readonly Generation[]
  /** The door takes max(receivedAt − L, announcedFloor) as floorTime of later records; null: no such bound. Never falls. */
  readonly announcedFloor: number | null
  /** toReceivedAt of the newest generation that was dropped; null while nothing was ever forgotten. */
  readonly windowFrom: number | null
  /** Latest eventTime among all ids that were forgotten; null while nothing was. */
  readonly forgottenTime: number | null
}

export interface GenerationLimits {
  /** Entries in memory. */
  readonly idsMax: number
  /** Entries on disk, beyond those in memory; 0: none go there. */
  readonly diskIdsMax: number
  readonly generationMs: number
  readonly aheadMs: number
  /** L + F: joined generations span no more than an eighth of it, so that little is kept longer than needed. */
  readonly windowMs: number
}

export const firstOf = (generation: Generation): number => generation.first ?? generation.number
/** What a generation takes: a void is an entry like an id. */
const heldBy = (generation: Generation): number => generation.entries + generation.voids
const heldByAll = (generations: readonly Generation[]): number =>
  generations.reduce((sum, generation) => sum + heldBy(generation), 0)

/** Above this share of all entries that may be held the oldest generations are announced for dropping. */
const PRESSURE = 0.8
/** A generation is full at this share of idsMax, so that dropping one gives room in small steps. */
const GENERATION_SHARE = 1 / 16
/** Above this share of idsMax the oldest generations are to go to disk, until memory is at the other. */
const MEMORY_HIGH = 0.8
const MEMORY_LOW = 0.5
/** A joined generation holds no more than this share of all that may be held. */
const JOINED_SHARE = 1 / 8
/** Above so many generations of level 1 the oldest of them are joined to level 2. */
const LEVEL_1_MAX = 8

/** The latest eventTime that an event repeating an id of the generation can have. */
function lastRepeatTime(generation: Generation, { aheadMs }: GenerationLimits): number {
  // The second term matters only after aheadMs was made smaller.
  return Math.max(generation.toReceivedAt + aheadMs, generation.lastEventTime)
}

const later = (a: number | null, b: number): number => (a === null ? b : Math.max(a, b))

/**
 * The state after an epoch. `before.generations` is up to date in everything but toReceivedAt of the current one; receivedAt
 * and floorTime are those of the epoch's last record. Numbers of `dropped` are no longer in the state.
 */
export function crossBarrier(
  before: Omit<DedupeState, 'epoch'>,
  barrier: { readonly epoch: number; readonly receivedAt: number; readonly floorTime: number },
  bounds: GenerationLimits,
): { state: DedupeState; dropped: number[] } {
  const { receivedAt, floorTime } = barrier
  const last = before.generations.at(-1)!
  const current = { ...last, toReceivedAt: Math.max(last.toReceivedAt, receivedAt) }
  const generations = [...before.generations.slice(0, -1), current]
  let { announcedFloor, windowFrom, forgottenTime } = before

  const dropped: number[] = []
  let held = heldByAll(generations)
  const pressure = PRESSURE * (bounds.idsMax + bounds.diskIdsMax)
  while (generations.length > 1) {
    const isShort = held > pressure
    const repeatTime = isShort ? generations[0]!.lastEventTime : lastRepeatTime(generations[0]!, bounds)
    if (floorTime <= repeatTime) break
    const oldest = generations.shift()!
    held -= heldBy(oldest)
    dropped.push(oldest.number)
    windowFrom = later(windowFrom, oldest.toReceivedAt)
    forgottenTime = later(forgottenTime, oldest.lastEventTime)
    // What is forgotten stays shut out even if the operator makes L longer afterwards.
    announcedFloor = later(announcedFloor, repeatTime + 1)
  }

  const isOld = receivedAt - current.fromReceivedAt >= bounds.generationMs
  const isFull = heldBy(current) > bounds.idsMax * GENERATION_SHARE
  // A void tells its id's life by the generation: what comes again after this barrier must be younger than the void.
  const endsLives = dropped.length > 0 && current.voids > 0
  const isUsed = heldBy(current) > 0
  if ((isOld || isFull || endsLives) && isUsed && generations.length < limits.generationsMax) {
    generations.push({
      number: current.number + 1,
      fromReceivedAt: receivedAt,
      toReceivedAt: receivedAt,
      lastEventTime: 0,
      entries: 0,
      voids: 0,
    })
  }

  // As many of the oldest as bring the entries under the mark, though never the current one.
  for (const generation of generations.slice(0, -1)) {
    if (held <= pressure) break
    held -= heldBy(generation)
    announcedFloor = later(announcedFloor, generation.lastEventTime + 1)
  }
  const joined = bounds.diskIdsMax > 0 ? joinForDisk(generations, bounds) : generations
  return { state: { epoch: barrier.epoch, generations: joined, announcedFloor, windowFrom, forgottenTime }, dropped }
}

/** Generations, oldest first, of which those that shall lie on disk are joined. Levels only fall towards the present. */
function joinForDisk(generations: readonly Generation[], bounds: GenerationLimits): readonly Generation[] {
  const level = (wanted: 1 | 2 | undefined): Generation[] => generations.filter((one) => one.level === wanted)
  let [second, first, memory] = [level(2), level(1), level(undefined)]
  let held = heldByAll(memory)
  if (held > MEMORY_HIGH * bounds.idsMax) {
    // Never the current one.
    let going = 0
    while (going < memory.length - 1 && held > MEMORY_LOW * bounds.idsMax) {
      held -= heldBy(memory[going]!)
      going += 1
    }
    first = [...first, ...join(memory.slice(0, going), 1, bounds)]
    memory = memory.slice(going)
  }
  if (first.length > LEVEL_1_MAX) {
    second = [...second, ...join(first.slice(0, LEVEL_1_MAX), 2, bounds)]
    first = first.slice(LEVEL_1_MAX)
  }
  return [...second, ...first, ...memory]
}

/** Neighbours together, as far as a joined generation may reach. */
function join(generations: readonly Generation[], level: 1 | 2, bounds: GenerationLimits): Generation[] {
  const most = Math.min(JOINED_SHARE * (bounds.idsMax + bounds.diskIdsMax), limits.dedupeRunIdsMax)
  const joined: Generation[] = []
  for (const next of generations) {
    const last = joined.at(-1)
    const fits =
      last !== undefined &&
      heldBy(last) + heldBy(next) <= most &&
      next.toReceivedAt - last.fromReceivedAt <= bounds.windowMs / 8
    if (!fits) {
      joined.push({ ...next, first: firstOf(next), level })
      continue
    }
    joined[joined.length - 1] = {
      ...last,
      number: next.number,
      toReceivedAt: next.toReceivedAt,
      lastEventTime: Math.max(last.lastEventTime, next.lastEventTime),
      entries: last.entries + next.entries,
      voids: last.voids + next.voids,
    }
  }
  return joined
}
