/**
 * Dedupe over whole lives of a stream. A sender repeats, voids and alters what it sent, a door refuses by age, epochs are
 * sealed, generations come and go, memory gets short. What is attacked:
 *
 *   the verdicts, against a Map that knows no hash and no table;
 *   the rule of forgetting: whatever the schedule, an identity with its content is accepted once in the life of the stream;
 *   the snapshot: a run that dies after any epoch and is restored from state and key files goes on with the same verdicts.
 */
import { mkdtemp, open, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Dedupe, openDedupe } from '../../src/dedupe/dedupe.js'
import type { DedupeState } from '../../src/dedupe/generations.js'
import { Identity } from '../../src/dedupe/identity.js'
import { KeyFiles } from '../../src/dedupe/key-files.js'
import type { UsageEvent } from '../../src/event.js'
import type { Frame } from '../../src/frame.js'
import { shardVerdictNames } from '../../src/ingest/verdict.js'
import { promises } from '../promises.js'
import { event, frameOf, SECRET } from './frames.js'

/** One event to be sent: a repetition of an earlier one, perhaps altered or as a void, or a new one. */
interface Send {
  readonly repeat: number | null
  readonly isVoid: boolean
  readonly isAltered: boolean
  readonly tenant: string
  readonly source: string
  readonly id: string
  /** eventTime as a share of what the door lets in, 0 the oldest and 1000 the furthest ahead. */
  readonly age: number
}

interface Life {
  readonly late: number
  readonly ahead: number
  readonly generationMs: number
  /** Epochs until the door learns of an announced floor. */
  readonly doorLag: number
  readonly idsMax: number
  readonly epochs: readonly (readonly { readonly elapsed: number; readonly sends: readonly Send[] }[])[]
}

const FRAME_EVENTS_MAX = 16
/** Only so that a busy machine does not end a test; nothing is measured. */
const TIMEOUT_MS = 120_000

const send: fc.Arbitrary<Send> = fc.record({
  repeat: fc.option(fc.nat(2_000), { freq: 2, nil: null }),
  isVoid: fc.nat(9).map((n) => n < 2),
  isAltered: fc.nat(9).map((n) => n < 1),
  tenant: fc.constantFrom('a', 'ab', 'abc'),
  source: fc.constantFrom('', 'b', 'bc', 'c'),
  id: fc.oneof(fc.constantFrom('b', 'bc', 'c', 'cc'), fc.nat(100_000).map(String)),
  age: fc.oneof(fc.constantFrom(0, 1_000), fc.nat(1_000)),
})

const life: fc.Arbitrary<Life> = fc.record({
  late: fc.constantFrom(10, 40, 1_000),
  ahead: fc.constantFrom(0, 5, 20),
  generationMs: fc.constantFrom(1, 7, 30),
  doorLag: fc.nat(2),
  idsMax: fc.constantFrom(256, 100_000),
  epochs: fc.array(
    fc.array(fc.record({ elapsed: fc.nat(12), sends: fc.array(send, { minLength: 1, maxLength: FRAME_EVENTS_MAX }) }), {
      minLength: 1,
      maxLength: 3,
    }),
    { minLength: 5, maxLength: 60 },
  ),
})

interface Epoch {
  readonly epoch: number
  readonly frames: readonly { readonly frame: Frame; readonly events: readonly UsageEvent[] }[]
  readonly verdicts: readonly string[]
  readonly block: Uint8Array | null
  readonly state: DedupeState
  readonly dropped: readonly number[]
}

const openFor = ({ ahead, generationMs, idsMax }: Life): Dedupe =>
  openDedupe({ stream: 3, secret: SECRET, idsMax, generationMs, aheadMs: ahead, frameEventsMax: FRAME_EVENTS_MAX })

function judge(dedupe: Dedupe, frame: Frame): string[] {
  const verdicts = new Uint8Array(frame.events)
  dedupe.judge(frame, verdicts)
  return Array.from(verdicts, (verdict) => shardVerdictNames[verdict]!)
}

function endEpoch(dedupe: Dedupe, epoch: number, last: Frame): Pick<Epoch, 'block' | 'state' | 'dropped'> {
  const block = dedupe.takeBlock(epoch)
  return { block, ...dedupe.barrier({ epoch, receivedAt: last.receivedAt, floorTime: last.floorTime }) }
}

/** Runs a life behind a door that refuses by age. Ends early when the table is full, as the shard would. */
function live(plan: Life): Epoch[] {
  const dedupe = openFor(plan)
  const epochs: Epoch[] = []
  const sent: UsageEvent[] = []
  let receivedAt = 100_000
  for (const [index, frames] of plan.epochs.entries()) {
    const announced = epochs.at(-1 - plan.doorLag)?.state.announcedFloor ?? null
    const judged: { frame: Frame; events: UsageEvent[] }[] = []
    const verdicts: string[] = []
    for (const { elapsed, sends } of frames) {
      if (dedupe.full) break
      receivedAt += elapsed
      const floor = Math.max(receivedAt - plan.late, announced ?? 0)
      const ceiling = receivedAt + plan.ahead
      const events: UsageEvent[] = []
      for (const one of sends) {
        const earlier = one.repeat === null || sent.length === 0 ? undefined : sent[one.repeat % sent.length]!
        const base =
          earlier ??
          event({
            tenant: one.tenant,
            source: one.source,
            id: one.id,
            eventTime: floor + Math.floor(((ceiling - floor) * one.age) / 1_000),
          })
        const asked: UsageEvent = {
          ...base,
          kind: one.isVoid ? 'void' : 'usage',
          value: one.isAltered ? base.value + 1n : base.value,
        }
        if (asked.eventTime < floor || asked.eventTime > ceiling) continue
        sent.push(asked)
        events.push(asked)
      }
      const frame = frameOf(events, receivedAt, floor)
      judged.push({ frame, events })
      verdicts.push(...judge(dedupe, frame))
    }
    const last = judged.at(-1)
    if (last === undefined) break
    const epoch = index + 1
    epochs.push({ epoch, frames: judged, verdicts, ...endEpoch(dedupe, epoch, last.frame) })
  }
  expect(dedupe.stats().behindWindow).toBe(0)
  return epochs
}

const identityOf = ({ tenant, source, id }: UsageEvent): string => JSON.stringify([tenant, source, id])
/** Everything in which the events of a life differ. */
const contentOf = ({ eventTime, value }: UsageEvent): string => `${eventTime}/${value}`

test(
  `${promises('dedupe:first-only')} over whole lives the verdicts are those of a Map of identities`,
  () => {
    fc.assert(
      fc.property(life, (plan) => {
        const known = new Map<string, { content: string; tag: number; generation: number; isVoided: boolean }>()
        const identity = new Identity(SECRET)
        let generation = 1
        for (const { frames, verdicts, state, dropped } of live(plan)) {
          const expected: string[] = []
          for (const { frame, events } of frames) {
            identity.hash(frame)
            for (const [i, one] of events.entries()) {
              const entry = known.get(identityOf(one))
              const tag = identity.entries[4 * i + 3]!
              // Contents are compared by 32 bits; two contents that meet there are the same to everyone.
              const isSame = entry !== undefined && (entry.content === contentOf(one) || entry.tag === tag)
              if (one.kind === 'void') {
                expected.push(!isSame ? 'conflict' : entry.isVoided ? 'duplicate' : 'accepted')
                if (isSame) entry.isVoided = true
              } else {
                expected.push(entry === undefined ? 'accepted' : isSame ? 'duplicate' : 'conflict')
                if (entry === undefined) {
                  known.set(identityOf(one), { content: contentOf(one), tag, generation, isVoided: false })
                }
              }
            }
          }
          expect(verdicts).toEqual(expected)
          for (const [name, entry] of known) if (dropped.includes(entry.generation)) known.delete(name)
          const entries = state.generations.reduce((sum, one) => sum + one.entries, 0)
          expect(entries).toBe(known.size)
          generation = state.generations.at(-1)!.number
        }
      }),
      { numRuns: 150 },
    )
  },
  TIMEOUT_MS,
)

test(
  `${promises('dedupe:first-only')} whatever is forgotten, nothing that the door lets in counts twice`,
  () => {
    let forgotten = 0
    let announced = 0
    fc.assert(
      fc.property(life, (plan) => {
        const accepted = new Set<string>()
        for (const { frames, verdicts, dropped, state } of live(plan)) {
          forgotten += dropped.length
          if (state.announcedFloor !== null) announced += 1
          for (const [i, one] of frames.flatMap(({ events }) => events).entries()) {
            if (verdicts[i] !== 'accepted') continue
            const name = `${one.kind} ${identityOf(one)} ${contentOf(one)}`
            expect(accepted.has(name), name).toBe(false)
            accepted.add(name)
          }
        }
      }),
      { numRuns: 300 },
    )
    // The lives were such that the rule had work to do.
    expect(forgotten).toBeGreaterThan(100)
    expect(announced).toBeGreaterThan(100)
  },
  TIMEOUT_MS,
)

test(
  'more than 255 generations go through the one byte of a slot',
  () => {
    const dedupe = openDedupe({ stream: 0, secret: SECRET, generationMs: 1, aheadMs: 2 })
    let receivedAt = 1_000
    for (let epoch = 1; epoch <= 1_000; epoch += 1) {
      receivedAt += 1
      const frame = frameOf([event({ id: `${epoch}`, eventTime: receivedAt })], receivedAt, receivedAt - 50)
      const earlier = frameOf([event({ id: `${epoch - 40}`, eventTime: receivedAt - 40 })], receivedAt, receivedAt - 50)
      expect(judge(dedupe, frame)).toEqual(['accepted'])
      expect(judge(dedupe, earlier)).toEqual([epoch > 40 ? 'duplicate' : 'accepted'])
      endEpoch(dedupe, epoch, frame)
    }
    expect(dedupe.stats().generations).toBeLessThan(60)
  },
  TIMEOUT_MS,
)

/** What one tenant sent, with the verdicts it got among the others and those it gets alone. */
function besideAndAlone(plan: Life, tenant: string): { one: UsageEvent; beside: string; alone: string }[] {
  const dedupe = openFor(plan)
  return live(plan).flatMap(({ epoch, frames, verdicts }) => {
    const all = frames.flatMap(({ events }) => events)
    const beside = verdicts.filter((_, i) => all[i]!.tenant === tenant)
    const own = frames.map(({ frame, events }) =>
      frameOf(
        events.filter((one) => one.tenant === tenant),
        frame.receivedAt,
        frame.floorTime,
      ),
    )
    const alone = own.flatMap((frame) => judge(dedupe, frame))
    endEpoch(dedupe, epoch, own.at(-1)!)
    return all.filter((one) => one.tenant === tenant).map((one, i) => ({ one, beside: beside[i]!, alone: alone[i]! }))
  })
}

test(
  `${promises('tenant:isolated')} while nothing is forgotten, a tenant's verdicts are the same with and without the others`,
  () => {
    fc.assert(
      fc.property(life, fc.constantFrom('a', 'ab', 'abc'), (plan, tenant) => {
        // No floor of such a life reaches a generation.
        for (const { beside, alone } of besideAndAlone({ ...plan, late: 90_000, idsMax: 100_000 }, tenant)) {
          expect(beside).toBe(alone)
        }
      }),
      { numRuns: 150 },
    )
  },
  TIMEOUT_MS,
)

test(
  `${promises('tenant:isolated')} other tenants move the end of a generation, and only an id reused with another content can tell`,
  () => {
    fc.assert(
      fc.property(life, fc.constantFrom('a', 'ab', 'abc'), (plan, tenant) => {
        const sent = besideAndAlone({ ...plan, idsMax: 100_000 }, tenant)
        const contents = new Map<string, Set<string>>()
        for (const { one } of sent) {
          const known = contents.get(identityOf(one)) ?? new Set()
          contents.set(identityOf(one), known.add(contentOf(one)))
        }
        for (const { one, beside, alone } of sent) {
          if (contents.get(identityOf(one))!.size === 1) expect(beside).toBe(alone)
        }
      }),
      { numRuns: 300 },
    )
  },
  TIMEOUT_MS,
)

/** A new process: what the state says, then what the key files hold of it. */
async function restored(
  plan: Life,
  directory: string,
  state: DedupeState | null,
): Promise<{ dedupe: Dedupe; files: KeyFiles }> {
  const dedupe = openFor(plan)
  const files = await KeyFiles.open(directory, 3)
  if (state === null) {
    for await (const _ of files.load(null)) expect.unreachable('a block without a checkpoint')
    return { dedupe, files }
  }
  // As it comes out of the database.
  dedupe.beginRestore(JSON.parse(JSON.stringify(state)))
  for await (const block of files.load(state)) dedupe.restoreBlock(block)
  dedupe.endRestore()
  return { dedupe, files }
}

test(
  `${promises('dedupe:first-only')} a run that dies after any append goes on from its key files with the same verdicts`,
  async () => {
    let voids = 0
    await fc.assert(
      fc.asyncProperty(
        life,
        // Where the process dies: before epoch n + 1 has a checkpoint, with so many of the bytes of its append on disk.
        fc.array(fc.record({ after: fc.nat(60), share: fc.constantFrom(0, 0.3, 0.7, 0.99, 1), ahead: fc.nat(1) }), {
          minLength: 1,
          maxLength: 4,
        }),
        async (plan, deaths) => {
          const directory = await mkdtemp(join(tmpdir(), 'dedupe-'))
          try {
            const epochs = live(plan)
            voids += epochs.reduce((sum, { state }) => sum + state.generations.at(-1)!.voids, 0)
            const pending = deaths.map((death) => ({ ...death, after: death.after % epochs.length }))
            let { dedupe, files } = await restored(plan, directory, null)
            let checkpoint: DedupeState | null = null
            for (let i = 0; i < epochs.length; ) {
              const { epoch, frames, verdicts, block, state, dropped } = epochs[i]!
              expect(frames.flatMap(({ frame }) => judge(dedupe, frame))).toEqual(verdicts)
              const end = endEpoch(dedupe, epoch, frames.at(-1)!.frame)
              expect(end).toEqual({ block, state, dropped })
              if (block !== null) await files.append(block)
              const death = pending.findIndex(({ after }) => after === i)
              if (death === -1) {
                checkpoint = state
                for (const number of dropped) await files.drop(number)
                i += 1
                continue
              }
              const { share, ahead } = pending.splice(death, 1)[0]!
              // Perhaps the next epoch was on its way already: two may be in flight.
              const next = epochs[i + ahead]
              if (ahead === 1 && next?.block) await files.append(next.block)
              await files.close()
              const torn = (ahead === 1 ? next?.block : null) ?? block
              const newest = (await readdir(directory)).sort().at(-1)
              if (torn !== null && newest !== undefined) {
                const handle = await open(join(directory, newest), 'r+')
                await handle.truncate((await handle.stat()).size - Math.floor(torn.length * (1 - share)))
                await handle.close()
              }
              ;({ dedupe, files } = await restored(plan, directory, checkpoint))
            }
            await files.close()
            // Disk is given back: one file a generation, nothing of what was dropped.
            const names = await readdir(directory)
            expect(names.length).toBeLessThanOrEqual(checkpoint!.generations.length)
            for (const name of names) expect((await stat(join(directory, name))).size % 16).toBe(0)
          } finally {
            await rm(directory, { recursive: true })
          }
        },
      ),
      { numRuns: 60 },
    )
    expect(voids).toBeGreaterThan(0)
  },
  TIMEOUT_MS,
)
