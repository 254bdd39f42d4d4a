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
 * All decisions are functions of the log's records and of the epoch's bounds, so a replay makes the same ones. No clock here.
 */
import { limits } from '../limits.js'

export interface Generation {
  /** From 1, never used twice in a stream. */
  readonly number: number
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
  readonly idsMax: number
  readonly generationMs: number
  readonly aheadMs: number
}

/** Above this share of idsMax the oldest generations are announced for dropping. */
const PRESSURE = 0.8
/** A generation is full at this share of idsMax, so that dropping one gives room in small steps. */
const GENERATION_SHARE = 1 / 16

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
  let entries = generations.reduce((sum, generation) => sum + generation.entries, 0)
  while (generations.length > 1) {
    const isShort = entries > PRESSURE * bounds.idsMax
    const repeatTime = isShort ? generations[0]!.lastEventTime : lastRepeatTime(generations[0]!, bounds)
    if (floorTime <= repeatTime) break
    const oldest = generations.shift()!
    entries -= oldest.entries
    dropped.push(oldest.number)
    windowFrom = later(windowFrom, oldest.toReceivedAt)
    forgottenTime = later(forgottenTime, oldest.lastEventTime)
    // What is forgotten stays shut out even if the operator makes L longer afterwards.
    announcedFloor = later(announcedFloor, repeatTime + 1)
  }

  const isOld = receivedAt - current.fromReceivedAt >= bounds.generationMs
  const isFull = current.entries > bounds.idsMax * GENERATION_SHARE
  const isUsed = current.entries > 0 || current.voids > 0
  if ((isOld || isFull) && isUsed && generations.length < limits.generationsMax) {
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
    if (entries <= PRESSURE * bounds.idsMax) break
    entries -= generation.entries
    announcedFloor = later(announcedFloor, generation.lastEventTime + 1)
  }
  return { state: { epoch: barrier.epoch, generations, announcedFloor, windowFrom, forgottenTime }, dropped }
}
