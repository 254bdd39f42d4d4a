/**
 * Intake: the way of a body from a door to the log. One per shard, on the main thread. Bodies wait here until the shard can take
 * some; those that came meanwhile go to it together, and small ones of native JSON become one record of the log, with one sync.
 *
 *   take ──► waiting ──► slab ──► shard judges ──► append of each frame ──► the answer of each body
 *
 * No timer: what comes while nothing is on its way goes within this turn of the event loop, so that at low load nothing waits for
 * company. Small bodies wait for the small ones before them to be on disk, and then go together. Small and large bodies take turns, so neither holds the other: what a small one waits for is what the shard has in hand
 * (limits.judgeTasksMax tasks of a slab or one large body, and one of records) and at most one task of large bodies.
 *
 * It knows nothing of formats and verdicts, and keeps no promise of its own: a body's answer comes after every part of it is on disk.
 */

import { ReleveError } from './errors.js'
import type { Applied, StreamFlow } from './flow.js'
import type { Admitted } from './ingest/cardinality.js'
import type { CloudEventHeaders } from './ingest/cloudevents-binary.js'
import type { BodyFormat } from './ingest/ingest.js'
import type { Refusal, ShardVerdict } from './ingest/verdict.js'
import { limits } from './limits.js'
import { scavengeAfter } from './scavenge.js'
import type { JudgedGroup, JudgedPart, JudgeHead, JudgeJob, ShardThread } from './shard.js'

export interface Body {
  /** Its bytes, in pieces as they came. Taken out of the array as soon as they are copied. */
  readonly pieces: Uint8Array[]
  readonly format: BodyFormat
  /** Only with `cloudevents-binary`. */
  readonly attributes: CloudEventHeaders | undefined
  /** The tenant of the key; null for a key of the whole platform. */
  readonly tenant: string | null
  /** Whether the verdict of each event is wanted. */
  readonly wait: boolean
}

/** A body of which everything that is stored is on disk. */
export interface Taken {
  readonly received: number
  /** Their places count within the body. */
  readonly refusals: readonly Refusal[]
  /** With `wait`: resolves to one entry per event of the body, null where it was refused. */
  readonly applied: Promise<readonly (ShardVerdict | null)[]> | undefined
}

export interface IntakeOptions {
  readonly shard: Pick<ShardThread, 'judge' | 'slabs'>
  /** The flow of a stream. */
  readonly flowOf: (stream: number) => Pick<StreamFlow, 'append' | 'forget'>
  /** A frame of another stream within the limits of cardinality of its tenants; null when it is. */
  readonly admit: (stream: number, frame: Uint8Array, indices: Uint32Array) => Promise<Admitted | null>
  /** The stream of the shard: its frames are kept there. */
  readonly stream: number
  /** When a task of bodies begins: its time of arrival, and the bounds of age. */
  readonly head: () => JudgeHead
  /** For each task: seconds of judging, events of the plain path. */
  readonly onJudged: (seconds: number, plain: number) => void
}

interface Waiting {
  readonly body: Body
  readonly bytes: number
  readonly resolve: (taken: Taken) => void
  readonly reject: (error: unknown) => void
}

const pad8 = (n: number): number => (n + 7) & ~7
const BODY_BYTES = limits.slabBytes / 2

export class Intake {
  readonly #o: IntakeOptions
  readonly #small: Waiting[] = []
  readonly #large: Waiting[] = []
  readonly #free: number[]
  #judging = 0
  /** Tasks of small bodies alone that are not on disk yet. */
  #smallTasks = 0
  #isDue = false
  #isLargeTurn = false

  constructor(options: IntakeOptions) {
    this.#o = options
    this.#free = options.shard.slabs.map((_, slab) => slab)
  }

  /** Resolves when all parts of it are on disk. Rejects with what its bytes or the log are refused for. */
  take(body: Body): Promise<Taken> {
    return new Promise((resolve, reject) => {
      if (this.#small.length + this.#large.length >= limits.bodiesWaitingMax) {
        const detail = `${limits.bodiesWaitingMax} bodies wait to be judged`
        throw new ReleveError('overloaded', detail, { retryAfterS: 1 })
      }
      let bytes = 0
      for (const piece of body.pieces) bytes += piece.byteLength
      const isSmall = bytes <= limits.smallBodyBytes
      ;(isSmall ? this.#small : this.#large).push({ body, bytes, resolve, reject })
      if (this.#isDue || this.#judging >= limits.judgeTasksMax || this.#free.length === 0 || !this.#isWorthATask) return
      this.#isDue = true
      // Behind the other bodies of this turn.
      setImmediate(() => {
        this.#isDue = false
        this.#dispatch()
      })
    })
  }

  #dispatch(): void {
    while (this.#judging < limits.judgeTasksMax && this.#free.length > 0 && this.#isWorthATask) {
      void this.#judge(this.#free.pop()!)
    }
  }

  /**
   * A task of few small bodies costs the thread, the log and the disk as much as one of many. So they wait for the one before to be on
   * disk, unless they are many: at low load that is nothing, and at high load those who wait for an answer come together.
   */
  get #isWorthATask(): boolean {
    if (this.#large.length > 0) return true
    return this.#small.length >= (this.#smallTasks === 0 ? 1 : limits.smallBodiesTogether)
  }

  /** The bodies of the next task. Small and large ones take turns at the whole of it, and the others get what room is left. */
  #next(): Waiting[] {
    const isLarge = this.#large.length > 0 && (this.#small.length === 0 || this.#isLargeTurn)
    this.#isLargeTurn = !isLarge
    // One that no slab holds goes alone.
    if (isLarge && this.#large[0]!.bytes > BODY_BYTES) return this.#large.splice(0, 1)
    const taken: Waiting[] = []
    let room = BODY_BYTES
    for (const queue of isLarge ? [this.#large, this.#small] : [this.#small, this.#large]) {
      let count = 0
      while (count < queue.length && pad8(queue[count]!.bytes) <= room) {
        room -= pad8(queue[count]!.bytes)
        count += 1
      }
      for (const waiting of queue.splice(0, count)) taken.push(waiting)
    }
    return taken
  }

  async #judge(slab: number): Promise<void> {
    const waiting = this.#next()
    const isSmall = waiting.every(({ bytes }) => bytes <= limits.smallBodyBytes)
    if (isSmall) this.#smallTasks += 1
    const memory = this.#o.shard.slabs[slab]!
    let at = 0
    const jobs = waiting.map(({ body, bytes }): JudgeJob => {
      const { pieces, format, attributes, tenant, wait } = body
      const place = { at, length: bytes, format, attributes, tenant, wait }
      const own = bytes > BODY_BYTES ? new Uint8Array(bytes) : null
      join(own ?? memory, own === null ? at : 0, pieces)
      pieces.length = 0
      scavengeAfter(bytes)
      if (own === null) at += pad8(bytes)
      return { ...place, own }
    })
    this.#judging += 1
    const head = this.#o.head()
    const began = performance.now()
    let groups: JudgedGroup[]
    try {
      groups = await this.#o.shard.judge(slab, jobs, head)
    } catch (error) {
      for (const { reject } of waiting) reject(error)
      this.#judging -= 1
      if (isSmall) this.#smallTasks -= 1
      this.#free.push(slab)
      this.#dispatch()
      return
    }
    this.#judging -= 1
    let plain = 0
    for (const group of groups) plain += group.plain
    this.#o.onJudged((performance.now() - began) / 1000, plain)
    // Before the next task is begun, so that frames reach the log in the order of their groups.
    const writing: Promise<void>[] = []
    let first = 0
    for (const group of groups) {
      writing.push(this.#write(group, waiting.slice(first, first + group.ends.length), head, memory))
      first += group.ends.length
    }
    this.#dispatch()
    await Promise.all(writing)
    if (isSmall) this.#smallTasks -= 1
    this.#free.push(slab)
    this.#dispatch()
  }

  /** Never rejects: its bodies do. */
  async #write(group: JudgedGroup, bodies: readonly Waiting[], head: JudgeHead, memory: Uint8Array): Promise<void> {
    const { error, parts } = group
    const more: Refusal[] = []
    if (error !== null) {
      bodies[0]!.reject(new ReleveError(error.code, error.detail))
      return
    }
    const wait = bodies.some(({ body }) => body.wait)
    try {
      // All of them, also behind a failed one: the slab is in use until then.
      const settled = await Promise.allSettled(parts.map((part) => this.#append(part, head, memory, wait, more)))
      const written = settled.map((one) => {
        if (one.status === 'rejected') throw one.reason
        return one.value
      })
      const verdicts = wait ? verdictsOf(group, written) : undefined
      verdicts?.catch(() => {})
      const all = more.length === 0 ? group.refusals : [...group.refusals, ...more].sort((a, b) => a.index - b.index)
      let from = 0
      let refusal = 0
      for (const [i, { body, resolve }] of bodies.entries()) {
        const to = group.ends[i]!
        const refusals: Refusal[] = []
        for (; refusal < all.length && all[refusal]!.index < to; refusal += 1) {
          const refused = all[refusal]!
          refusals.push(from === 0 ? refused : { ...refused, index: refused.index - from })
        }
        const begin = from
        const applied = body.wait ? verdicts!.then((all) => all.slice(begin, to)) : undefined
        applied?.catch(() => {})
        resolve({ received: to - from, refusals, applied })
        from = to
      }
    } catch (failure) {
      for (const { reject } of bodies) reject(failure)
    }
  }

  async #append(
    part: JudgedPart,
    head: JudgeHead,
    memory: Uint8Array,
    wait: boolean,
    /** Gets what is refused here. */
    more: Refusal[],
  ): Promise<{ part: JudgedPart; applied: Promise<Applied> | undefined }> {
    const { stream, at, length, own, kept, unjudged } = part
    // Another shard's frame outlives the slab.
    const isMine = stream === this.#o.stream
    const frame = own ?? (isMine ? memory.subarray(at, at + length) : new Uint8Array(memory.subarray(at, at + length)))
    const flow = this.#o.flowOf(stream)
    try {
      const admitted = unjudged ? await this.#o.admit(stream, frame, part.indices!) : null
      if (admitted !== null) for (const refusal of admitted.refusals) more.push(refusal)
      const { applied } = await flow.append(head.receivedAt, head.floorTime, admitted?.frame ?? frame, wait, kept)
      return { part: admitted === null ? part : { ...part, indices: admitted.indices }, applied }
    } catch (error) {
      if (kept > 0) flow.forget(kept)
      throw error
    }
  }
}

function join(target: Uint8Array, at: number, pieces: readonly Uint8Array[]): void {
  let to = at
  for (const piece of pieces) {
    target.set(piece, to)
    to += piece.byteLength
  }
}

/** By place in the group. */
async function verdictsOf(
  group: JudgedGroup,
  written: readonly { part: JudgedPart; applied: Promise<Applied> | undefined }[],
): Promise<(ShardVerdict | null)[]> {
  const all: (ShardVerdict | null)[] = new Array(group.ends.at(-1)!).fill(null)
  for (const { part, applied } of written) {
    const { verdicts } = await applied!
    verdicts.forEach((verdict, i) => {
      all[part.indices![i]!] = verdict as ShardVerdict
    })
  }
  return all
}
