/**
 * Dedupe by examples: every verdict, what is content and what is identity, the bounds, the memory.
 */
import { expect, test } from 'vitest'
import { type Dedupe, openDedupe } from '../../src/dedupe/dedupe.js'
import { crossBarrier, type DedupeState, type Generation } from '../../src/dedupe/generations.js'
import { Identity, MemberHash, memberHash } from '../../src/dedupe/identity.js'
import { sipHex } from '../../src/dedupe/sip-hash.js'
import { IdTable } from '../../src/dedupe/table.js'
import type { UsageEvent } from '../../src/event.js'
import { shardVerdictNames } from '../../src/ingest/verdict.js'
import { promises } from '../promises.js'
import { event, frameOf, KYC, SECRET } from './frames.js'

function judge(dedupe: Dedupe, events: readonly UsageEvent[], receivedAt = 1_000, floorTime = 0): string[] {
  const verdicts = new Uint8Array(events.length)
  dedupe.judge(frameOf(events, receivedAt, floorTime), verdicts)
  return Array.from(verdicts, (verdict) => shardVerdictNames[verdict]!)
}

const open = (options: Partial<Parameters<typeof openDedupe>[0]> = {}): Dedupe =>
  openDedupe({ stream: 0, secret: SECRET, ...options })

test(`${promises('dedupe:first-only')} the first of an identity is accepted, its repetitions are duplicates, other contents conflicts`, () => {
  const dedupe = open()
  expect(judge(dedupe, [event(), event(), event({ value: 200n })])).toEqual(['accepted', 'duplicate', 'conflict'])
  // The conflict has not taken the place of the first.
  expect(judge(dedupe, [event(), event({ value: 200n })])).toEqual(['duplicate', 'conflict'])
})

test('every field of the content makes a conflict, and nothing else does', () => {
  const unique = event({ member: 'm' })
  const others: Partial<UsageEvent>[] = [
    { metric: { ...KYC, key: 'sms' } },
    { metric: { ...KYC, version: 2 } },
    { subject: 'line-2' },
    { subject: '' },
    { eventTime: 1_001 },
    { eventTime: 1_000 + 2 ** 33 },
    { value: -100n },
    { value: 100n + (1n << 40n) },
    { dims: '{}' },
    { member: 'n' },
    { member: '' },
    { member: 'm\0' },
  ]
  const dedupe = open()
  expect(judge(dedupe, [unique, ...others.map((fields) => ({ ...unique, ...fields }))])).toEqual([
    'accepted',
    ...others.map(() => 'conflict'),
  ])
  // Scale and unit belong to the metric's version and are not looked at again.
  expect(judge(dedupe, [{ ...unique, metric: { ...KYC, unit: 'page' } }])).toEqual(['duplicate'])
})

test('a subject and dims that join to the same text are different contents', () => {
  const dedupe = open()
  expect(judge(dedupe, [event({ subject: 'a', dims: '{}' }), event({ subject: 'a{', dims: '}' })])).toEqual([
    'accepted',
    'conflict',
  ])
})

test(`${promises('tenant:isolated')} names that join to the same text never meet`, () => {
  const names = ['', 'a', 'b', 'c', 'ab', 'bc', 'abc', '\0', 'a\0', '\u0001a']
  const events = names.flatMap((tenant) =>
    names.flatMap((source) => names.map((id) => event({ tenant, source, id: `${id}` }))),
  )
  const dedupe = open()
  expect(new Set(judge(dedupe, events))).toEqual(new Set(['accepted']))
  expect(new Set(judge(dedupe, events))).toEqual(new Set(['duplicate']))
  expect(dedupe.stats().entries).toBe(names.length ** 3)
})

test('a void takes back its event once; the id stays', () => {
  const voided = event({ kind: 'void' })
  const dedupe = open()
  expect(
    judge(dedupe, [event(), voided, voided, event(), event({ value: 1n }), event({ kind: 'void', value: 1n })]),
  ).toEqual(['accepted', 'accepted', 'duplicate', 'duplicate', 'conflict', 'conflict'])
})

test('a void of an unknown event or of another content is a conflict and leaves no trace', () => {
  const dedupe = open()
  expect(judge(dedupe, [event({ kind: 'void' })])).toEqual(['conflict'])
  expect(dedupe.takeBlock(1)).toBeNull()
  expect(judge(dedupe, [event(), event({ kind: 'void', subject: 'x' }), event({ kind: 'void' })])).toEqual([
    'accepted',
    'conflict',
    'accepted',
  ])
})

test('another secret gives other hashes, and an id does not tell another tenant its hash', () => {
  const events = [event(), event({ tenant: 'other' }), event({ source: 's' })]
  const hashesOf = (secret: Uint8Array): string[] => {
    const identity = new Identity(secret)
    identity.hash(frameOf(events))
    return events.map((_, i) => sipHex(identity.entries, 4 * i))
  }
  const all = [...hashesOf(SECRET), ...hashesOf(SECRET.map((byte) => byte ^ 1))]
  expect(new Set(all).size).toBe(6)
  const members = new MemberHash(SECRET)
  const member = Buffer.from('xx0612345678')
  const memberOf = (tenant: string, from: number): string => {
    const out = new Int32Array(6)
    memberHash(members.keyOf(tenant), member, from, member.length, out, 2)
    return sipHex(out, 2)
  }
  expect(memberOf('acme', 2)).toMatch(/^[0-9a-f]{32}$/)
  expect(memberOf('acme', 2)).toBe(memberOf('acme', 2))
  expect(memberOf('other', 2)).not.toBe(memberOf('acme', 2))
  expect(memberOf('acme', 1)).not.toBe(memberOf('acme', 2))
})

test('more origins than are kept change no verdict', () => {
  const dedupe = open()
  const events = Array.from({ length: 10_000 }, (_, i) => event({ tenant: `t${i % 9_999}`, source: `s${i}`, id: 'x' }))
  const others = events.map(({ source }, i) => event({ tenant: `u${i}`, source }))
  const third = others.map((one) => ({ ...one, tenant: `v${one.tenant}` }))
  for (const batch of [events, others, third]) expect(new Set(judge(dedupe, batch))).toEqual(new Set(['accepted']))
  for (const batch of [events, others, third]) expect(new Set(judge(dedupe, batch))).toEqual(new Set(['duplicate']))
}, 60_000)

test(`${promises('system:bounded')} a full table raises full and refuses to work instead of forgetting`, () => {
  const dedupe = open({ idsMax: 160, frameEventsMax: 10 })
  const ids = (from: number, count: number): UsageEvent[] =>
    Array.from({ length: count }, (_, i) => event({ id: `${from + i}` }))
  for (let i = 0; i < 15; i += 1) judge(dedupe, ids(10 * i, 10))
  expect(dedupe.full).toBe(false)
  judge(dedupe, ids(150, 1))
  expect(dedupe.full).toBe(true)
  expect(() => judge(dedupe, ids(0, 1))).toThrow('BUG: dedupe is full')
  dedupe.takeBlock(1)
  // One generation only: there is nothing that may be dropped, whatever the floor.
  expect(dedupe.barrier({ epoch: 1, receivedAt: 1_000, floorTime: 1e15 }).dropped).toEqual([])
  expect(dedupe.full).toBe(true)
  expect(() => open({ idsMax: 159, frameEventsMax: 10 })).toThrow('16 frames of 10 events must fit')
})

test('memory pressure announces a floor, and the oldest generation goes once a record carries it', () => {
  const dedupe = open({ idsMax: 1_600, frameEventsMax: 100, aheadMs: 10, generationMs: 1_000_000 })
  let epoch = 0
  const round = (floorTime: number) => {
    epoch += 1
    const receivedAt = 1_000 * epoch
    // 100 ids is not more than 1,600 / 16, so two rounds make a generation.
    judge(
      dedupe,
      Array.from({ length: 100 }, (_, i) => event({ id: `${epoch}-${i}`, eventTime: receivedAt })),
      receivedAt,
      floorTime,
    )
    dedupe.takeBlock(epoch)
    return dedupe.barrier({ epoch, receivedAt, floorTime })
  }
  for (let i = 0; i < 12; i += 1) expect(round(0).state.announcedFloor).toBeNull()
  // The 13th round has 1,300 of 1,600, more than 80 %. The first generation ended at 2,000, and so did the
  // times of its ids: the floor is behind these and not, by aheadMs, in the future.
  const { state, dropped } = round(0)
  expect(dropped).toEqual([])
  expect(state.announcedFloor).toBe(2_000 + 1)
  expect(round(2_000).dropped).toEqual([])
  const after = round(2_001)
  expect(after.dropped).toEqual([1])
  expect(after.state.windowFrom).toBe(2_000)
  expect(dedupe.stats()).toMatchObject({ entries: 1_300, windowFrom: 2_000 })
})

test('an unknown id whose time lies behind what was forgotten is never counted, and is seen in the stats', () => {
  const dedupe = open({ generationMs: 10, aheadMs: 5 })
  judge(dedupe, [event({ id: 'old', eventTime: 100 })], 100)
  dedupe.takeBlock(1)
  dedupe.barrier({ epoch: 1, receivedAt: 110, floorTime: 0 })
  judge(dedupe, [event({ id: 'new', eventTime: 150 })], 150)
  dedupe.takeBlock(2)
  expect(dedupe.barrier({ epoch: 2, receivedAt: 150, floorTime: 116 }).dropped).toEqual([1])
  // A door that let the floor fall again.
  expect(judge(dedupe, [event({ id: 'old', eventTime: 100 })], 151, 90)).toEqual(['conflict'])
  expect(judge(dedupe, [event({ id: 'old', eventTime: 101 }), event({ id: 'new', eventTime: 150 })], 151)).toEqual([
    'accepted',
    'duplicate',
  ])
  expect(dedupe.stats().behindWindow).toBe(1)
})

test('generations are joined for disk by what memory holds, by an eighth of the bound and of the window, and never the current one', () => {
  const bounds = { idsMax: 1_000, diskIdsMax: 19_000, generationMs: 1_000_000, aheadMs: 10, windowMs: 80_000 }
  let before: Omit<DedupeState, 'epoch'> = {
    generations: [],
    announcedFloor: null,
    windowFrom: null,
    forgottenTime: null,
  }
  const opened = (number: number, receivedAt: number): Generation => ({
    ...{ number, fromReceivedAt: receivedAt, toReceivedAt: receivedAt, lastEventTime: 0, entries: 0, voids: 0 },
  })
  const shapes: string[] = []
  for (let epoch = 1; epoch <= 200; epoch += 1) {
    const receivedAt = 1_000 * epoch
    const generations = before.generations.length === 0 ? [opened(1, receivedAt)] : before.generations
    const current = { ...generations.at(-1)!, lastEventTime: receivedAt, entries: 90, voids: 10 }
    before = { ...before, generations: [...generations.slice(0, -1), current] }
    const { state } = crossBarrier(before, { epoch, receivedAt, floorTime: 0 }, bounds)
    before = state
    // Without a gap, levels falling towards the present, the current one open.
    let next = 1
    for (const one of state.generations) {
      expect(one.first ?? one.number).toBe(next)
      next = one.number + 1
      if (one.level === undefined) continue
      expect(one.entries + one.voids).toBeLessThanOrEqual(20_000 / 8)
      expect(one.toReceivedAt - one.fromReceivedAt).toBeLessThanOrEqual(80_000 / 8)
    }
    expect(next).toBe(epoch + 2)
    const levels = state.generations.map(({ level }) => level ?? 0)
    expect(levels.toSorted((a, b) => (b || 0) - (a || 0))).toEqual(levels)
    expect(levels.at(-1)).toBe(0)
    const memory = state.generations.filter(({ level }) => level === undefined)
    expect(memory.reduce((sum, { entries, voids }) => sum + entries + voids, 0)).toBeLessThanOrEqual(800)
    expect(levels.filter((level) => level === 1).length).toBeLessThanOrEqual(8)
    shapes.push(levels.join(''))
  }
  expect(shapes[7]).toBe('000000000')
  expect(shapes[8]).toBe('1000000')
  expect(shapes.at(-1)).toMatch(/^2+1+0+$/)
  // The same without disk: nothing is joined.
  const { state } = crossBarrier(
    before,
    { epoch: 201, receivedAt: 201_000, floorTime: 0 },
    { ...bounds, diskIdsMax: 0 },
  )
  expect(state.generations.filter(({ level }) => level === undefined).length).toBeGreaterThan(0)
})

test('a generation in which something was voided ends when another is forgotten, so that a void tells the lives of its id', () => {
  const bounds = { idsMax: 100_000, diskIdsMax: 0, generationMs: 1_000_000, aheadMs: 10, windowMs: 80_000 }
  const old = { number: 1, fromReceivedAt: 0, toReceivedAt: 100, lastEventTime: 100, entries: 5, voids: 0 }
  const crossed = (voids: number, floorTime: number): { numbers: number[]; dropped: number[] } => {
    const current = { number: 2, fromReceivedAt: 100, toReceivedAt: 200, lastEventTime: 200, entries: 5, voids }
    const before = { generations: [old, current], announcedFloor: null, windowFrom: null, forgottenTime: null }
    const { state, dropped } = crossBarrier(before, { epoch: 9, receivedAt: 300, floorTime }, bounds)
    return { numbers: state.generations.map(({ number }) => number), dropped }
  }
  expect(crossed(1, 110)).toEqual({ numbers: [1, 2], dropped: [] })
  expect(crossed(0, 111)).toEqual({ numbers: [2], dropped: [1] })
  expect(crossed(1, 111)).toEqual({ numbers: [2, 3], dropped: [1] })
})

/** Deterministic pseudo-random words, so that the table is tested without the hash. */
function wordsOf(count: number): Int32Array {
  const words = new Int32Array(4 * count)
  let x = 0x9e3779b9 | 0
  for (let i = 0; i < words.length; i += 1) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    words[i] = i % 4 === 2 ? x & ~1 : x
  }
  return words
}

test('growth keeps every id with its tag and its generation, at 42 bytes an id or less', () => {
  const idsMax = 400_000
  const words = wordsOf(idsMax)
  const table = new IdTable(idsMax)
  let known = 0
  let worst = 0
  for (let i = 0; i < idsMax; i += 1) {
    if (!table.add(words, 4 * i, 0, 1 + (i % 3))) known += 1
    if (i >= 30_000) worst = Math.max(worst, table.bytes / (i + 1))
  }
  expect(known).toBe(0)
  expect(worst).toBeLessThanOrEqual(42)
  expect(table.count(1) + table.count(2) + table.count(3)).toBe(idsMax)
  expect(table.held).toBe(idsMax)
  let wrong = 0
  for (let i = 0; i < idsMax; i += 1) {
    const isThere = table.find(words, 4 * i, 0)
    if (!isThere || table.tag !== words[4 * i + 3] || table.generation !== 1 + (i % 3)) wrong += 1
  }
  expect(wrong).toBe(0)
}, 60_000)

test('a dropped generation is gone at once, its memory with the sweep, and its number can be used again', () => {
  const count = 200_000
  const words = wordsOf(count)
  const table = new IdTable(1_000_000)
  for (let i = 0; i < count; i += 1) table.add(words, 4 * i, 0, i % 4 === 0 ? 2 : 1)
  const before = table.bytes
  const found = (): number => {
    let sum = 0
    for (let i = 0; i < count; i += 1) if (table.find(words, 4 * i, 0)) sum += 1
    return sum
  }
  table.drop(1)
  expect(found()).toBe(count / 4)
  // Half swept: an id may come back with another generation beside its dead slot.
  table.sweep(100)
  for (let i = 1; i < count; i += 400) expect(table.add(words, 4 * i, 0, 3)).toBe(true)
  table.sweep(1_000)
  expect(table.bytes).toBeLessThan(before / 2)
  table.open(1)
  expect(found()).toBe(count / 4 + count / 400)
  expect(table.add(words, 4, 0, 1)).toBe(false)
  expect(table.generation).toBe(3)
  expect(table.add(words, 8, 0, 1)).toBe(true)
})

test('the entry of a void stands beside its id, and goes to the generation of the next void', () => {
  const words = wordsOf(2)
  const table = new IdTable(1_000)
  table.add(words, 0, 0, 1)
  expect(table.find(words, 0, 1)).toBe(false)
  table.set(words, 0, 1, 2)
  expect([table.find(words, 0, 0), table.generation]).toEqual([true, 1])
  expect([table.find(words, 0, 1), table.generation, table.tag]).toEqual([true, 2, words[3]])
  table.set(words, 0, 1, 5)
  expect([table.find(words, 0, 1), table.generation]).toEqual([true, 5])
  expect([table.count(1), table.count(2), table.count(5), table.held]).toEqual([1, 0, 1, 2])
})

test('without a time of the sender, a retry has another eventTime and is a duplicate all the same; another value is a conflict', () => {
  const dedupe = open()
  const untimed = (eventTime: number, value: bigint): UsageEvent => event({ id: 'u', eventTime, value, untimed: true })
  expect(judge(dedupe, [untimed(1, 5n), untimed(2, 5n), untimed(3, 6n)])).toEqual(['accepted', 'duplicate', 'conflict'])
  // With a time it is part of the content.
  expect(judge(dedupe, [event({ id: 't', eventTime: 1 }), event({ id: 't', eventTime: 2 })])).toEqual([
    'accepted',
    'conflict',
  ])
})

test('a restore takes the ids of a block in by slices, the first of them small', () => {
  const before = open()
  for (let n = 0; n < 4; n += 1) {
    judge(
      before,
      Array.from({ length: 5_000 }, (_, i) => event({ id: `${n}-${i}` })),
    )
  }
  const block = before.takeBlock(1)!
  const { state } = before.barrier({ epoch: 1, receivedAt: 1_000, floorTime: 0 })
  const dedupe = open()
  dedupe.beginRestore(state)
  dedupe.beginBlock(block)
  const held: number[] = []
  for (let isIn = false; !isIn; held.push(dedupe.stats().memoryEntries)) isIn = dedupe.takeSlice()
  dedupe.endRestore()
  expect(held.map((entries, i) => entries - (held[i - 1] ?? 0))).toEqual([1_000, 10_000, 9_000])
  expect(judge(dedupe, [event({ id: '3-4999' }), event({ id: '4-0' })])).toEqual(['duplicate', 'accepted'])
})
