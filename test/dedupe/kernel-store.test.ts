import { expect, test, vi } from 'vitest'
import { type Dedupe, openDedupe } from '../../src/dedupe/dedupe.js'
import { PlainStore } from '../../src/dedupe/id-store.js'
import { contentKeyBytes } from '../../src/dedupe/identity.js'
import { openKernelStore } from '../../src/dedupe/kernel-store.js'
import type { UsageEvent } from '../../src/event.js'
import { openKernelEpoch } from '../../src/rollup/kernel-epoch.js'
import { promises } from '../promises.js'
import { event, frameOf, KYC, SECRET } from './frames.js'

// Much data, on a machine that other tests use as well.
vi.setConfig({ testTimeout: 120_000 })

/** mulberry32. */
function random(seed: number): (below: number) => number {
  let state = seed | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000) * below)
  }
}

const NO_RUNS = { length: 0, find: () => {} }

const metrics = [KYC, { ...KYC, version: 2 }, { ...KYC, key: 'é', aggregation: 'unique' as const, scale: 0 }]

function events(next: (below: number) => number, count: number, ids: number, time: number): UsageEvent[] {
  return Array.from({ length: count }, () => {
    const number = next(ids)
    // The content follows from the id, but for a few.
    const content = next(30) === 0 ? next(5) : number % 5
    const metric = metrics[number % 3]!
    return event({
      tenant: number % 7 === 0 ? 'banque' : 'acme',
      source: ['', 'gw', 'x'.repeat(256)][number % 3]!,
      id: `${'i'.repeat(number % 40)}${number}`,
      metric,
      subject: `${'s'.repeat(number % 20)}${number % 11}`,
      eventTime: next(50) === 0 ? time - next(5_000) : time - (number % 100),
      value: BigInt(content) - 2n,
      member: metric.key === 'é' ? `${'m'.repeat(content * 7)}é` : '',
      untimed: number % 13 === 0,
      kind: next(20) === 0 ? 'void' : 'usage',
    })
  })
}

/** Both, under the same bounds; the kernel is really there. */
function openBoth(idsMax: number): [plain: Dedupe, kernel: Dedupe] {
  if (openKernelStore(SECRET, idsMax) === null) throw new Error('cannot compare: the kernel is not built')
  const options = { stream: 3, secret: SECRET, idsMax, frameEventsMax: 64, generationMs: 5_000, aheadMs: 100 }
  return [openDedupe({ ...options, plain: true }), openDedupe(options)]
}

test(`${promises('dedupe:first-only')}: any events over many generations => kernel, keys of series from the epoch, and plain give the same verdicts, blocks and states`, () => {
  for (const [seed, idsMax, ids] of [
    [1, 1_024, 3_000],
    [2, 4_096, 6_000],
    [3, 60_000, 50_000],
    [4, 1_000_000, 200_000],
  ] as const) {
    const next = random(seed)
    const [plain, kernel] = openBoth(idsMax)
    // It keeps the content key of a series, which is another one for each version of the metric.
    const rows = openKernelEpoch(3, { member: new Uint8Array(16), content: contentKeyBytes(SECRET) })!
    let time = 100_000
    let floor = 0
    let conflicts = 0
    let dropped = 0
    for (let epoch = 0; epoch < 200; epoch += 1) {
      time += next(2_000)
      rows.open(epoch)
      for (let i = 0, n = 1 + next(8); i < n && !plain.full; i += 1) {
        time += next(300)
        const frame = frameOf(events(next, 1 + next(64), ids, time), time, floor)
        const one = new Uint8Array(frame.events)
        const other = new Uint8Array(frame.events)
        plain.judge(frame, one)
        kernel.judge(frame, other, rows.seriesKeys(frame))
        rows.apply(frame, i, other)
        expect(other, `seed ${seed}, epoch ${epoch}`).toEqual(one)
        conflicts += one.filter((verdict) => verdict === 2).length
      }
      rows.drain()
      expect(kernel.full).toBe(plain.full)
      const blocks = [plain.takeBlock(epoch), kernel.takeBlock(epoch)]
      expect(blocks[1], `seed ${seed}, epoch ${epoch}`).toEqual(blocks[0])
      const barrier = { epoch, receivedAt: time, floorTime: time - 20_000 - next(20_000) }
      const one = plain.barrier(barrier)
      expect(kernel.barrier(barrier), `seed ${seed}, epoch ${epoch}`).toEqual(one)
      floor = Math.max(floor, one.state.announcedFloor ?? 0)
      dropped += one.dropped.length
      expect(kernel.stats()).toMatchObject({ entries: plain.stats().entries, behindWindow: plain.stats().behindWindow })
    }
    // Everything has happened.
    expect(conflicts).toBeGreaterThan(100)
    expect(dropped).toBeGreaterThan(0)
  }
})

test('key blocks of the one side => the other goes on from them with the same verdicts', () => {
  const next = random(5)
  const [plain, kernel] = openBoth(100_000)
  const blocks: Uint8Array[] = []
  let state = plain.barrier({ epoch: 0, receivedAt: 1_000, floorTime: 0 }).state
  kernel.barrier({ epoch: 0, receivedAt: 1_000, floorTime: 0 })
  for (let epoch = 1; epoch < 40; epoch += 1) {
    for (let i = 0; i < 10; i += 1) {
      const frame = frameOf(events(next, 64, 20_000, 1_000 + epoch), 1_000 + epoch)
      plain.judge(frame, new Uint8Array(frame.events))
      kernel.judge(frame, new Uint8Array(frame.events))
    }
    const block = (epoch % 2 === 0 ? plain : kernel).takeBlock(epoch)
    ;(epoch % 2 === 0 ? kernel : plain).takeBlock(epoch)
    if (block !== null) blocks.push(block)
    state = plain.barrier({ epoch, receivedAt: 1_000 + epoch, floorTime: 0 }).state
    kernel.barrier({ epoch, receivedAt: 1_000 + epoch, floorTime: 0 })
  }
  const [first, second] = openBoth(100_000)
  first.restore(state, blocks)
  second.restore(state, blocks)
  for (let i = 0; i < 50; i += 1) {
    const frame = frameOf(events(next, 64, 30_000, 1_040), 1_040)
    const all = [plain, kernel, first, second].map((dedupe) => {
      const verdicts = new Uint8Array(frame.events)
      dedupe.judge(frame, verdicts)
      return verdicts
    })
    for (const verdicts of all) expect(verdicts).toEqual(all[0])
  }
})

test('ids up to the bound => every one is known again, at 21 bytes an id or less and 18.5 at the bound; a dropped generation is forgotten', () => {
  const idsMax = 3_000_000
  const kernel = openKernelStore(SECRET, idsMax)!
  const plain = new PlainStore(SECRET, idsMax)
  const CHUNK = 50_000
  const entries = (from: number, count: number): Int32Array => {
    const words = new Int32Array(4 * count)
    for (let i = 0; i < count; i += 1) {
      for (let w = 0; w < 4; w += 1) {
        let x = Math.imul(from + i + 1, [0x9e3779b1, 0x85ebca6b, 0xc2b2ae35, 0x27d4eb2f][w]!)
        x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d)
        words[4 * i + w] = (x ^ (x >>> 12)) & (w === 2 ? ~1 : -1)
      }
    }
    return words
  }
  for (let from = 0; from < idsMax; from += CHUNK) {
    const words = entries(from, CHUNK)
    const generation = 1 + ((from / CHUNK) % 3)
    expect(kernel.addKeys(words, generation)).toBe(CHUNK)
    expect(plain.addKeys(words, generation)).toBe(CHUNK)
    expect(kernel.held).toBe(from + CHUNK)
    if (from > 300_000) expect(kernel.bytes / kernel.held).toBeLessThanOrEqual(21)
  }
  expect(kernel.bytes / idsMax).toBeLessThanOrEqual(18.5)
  // Voids stand beside their ids; a second one goes to the later generation.
  const voids = entries(0, 1_000).map((word, i) => (i % 4 === 2 ? word | 1 : word))
  for (const store of [kernel, plain]) {
    store.drop(2)
    store.drop(3)
    store.addVoids(voids, 4)
    store.addVoids(voids, 5)
    expect(store.held).toBe(idsMax / 3 + 1_000)
    store.drop(4)
    expect(store.held).toBe(idsMax / 3 + 1_000)
    store.open(2)
  }
  const before = kernel.bytes
  for (let from = 0; from < idsMax; from += CHUNK) {
    const words = entries(from, CHUNK)
    const isHeld = (from / CHUNK) % 3 === 0
    expect(kernel.addKeys(words, 2)).toBe(isHeld ? 0 : CHUNK)
    expect(plain.addKeys(words, 2)).toBe(isHeld ? 0 : CHUNK)
  }
  // What the dropped ones took was used again.
  expect(kernel.bytes).toBeLessThan(1.02 * before)
})

test('bytes that are not a whole frame => the kernel says so, and nothing was counted', () => {
  const store = openKernelStore(SECRET, 10_000)!
  const good = frameOf([event(), event({ id: 'id-2' })])
  const verdicts = new Uint8Array(2)
  for (let at = 0; at < 72; at += 4) {
    // Not the reserved word, the catalogue version, the refusals' count and the two times.
    if (at >= 44) continue
    const bytes = Uint8Array.from(good.bytes)
    new DataView(bytes.buffer).setUint32(at, 0xffff_fff0, true)
    expect(() => store.judge({ ...good, bytes }, verdicts, 1, Number.NEGATIVE_INFINITY, NO_RUNS, null)).toThrow('BUG')
  }
  for (let at = 72; at < good.bytes.length; at += 1) {
    const bytes = Uint8Array.from(good.bytes)
    bytes[at] = 0xff
    try {
      store.judge({ ...good, bytes }, verdicts, 1, Number.NEGATIVE_INFINITY, NO_RUNS, null)
    } catch (error) {
      expect((error as Error).message).toContain('BUG')
    }
  }
  expect(
    openKernelStore(SECRET, 10_000)!.judge(good, verdicts, 1, Number.NEGATIVE_INFINITY, NO_RUNS, null).accepted,
  ).toBe(2)
})

test(`${promises('dedupe:first-only')}: so many ids that a partition has several pieces => each is new once, and known ever after`, () => {
  const store = openKernelStore(SECRET, 2_000_000)!
  const frame = frameOf(
    Array.from({ length: 1_000 }, (_, i) => event({ id: `00000000-${i.toString().padStart(4, '0')}` })),
  )
  const verdicts = new Uint8Array(frame.events)
  const judge = (number: number): { accepted: number; verdicts: Set<number> } => {
    const digits = Buffer.from(number.toString().padStart(8, '0'))
    for (let i = 0; i < frame.events; i += 1) frame.ids.set(digits, 13 * i)
    const { accepted } = store.judge(frame, verdicts, 1, Number.NEGATIVE_INFINITY, NO_RUNS, null)
    return { accepted, verdicts: new Set(verdicts) }
  }
  const frames = 900
  for (let n = 0; n < frames; n += 1) {
    expect(judge(n)).toEqual({ accepted: 1_000, verdicts: new Set([0]) })
    if (n % 400 === 399) store.clear()
    // One of those before, from other sizes of its partitions.
    if (n % 7 === 6) expect(judge((n * 37) % (n + 1)), `${n}`).toEqual({ accepted: 0, verdicts: new Set([1]) })
  }
  for (let n = 0; n < frames; n += 1) expect(judge(n), `${n}`).toEqual({ accepted: 0, verdicts: new Set([1]) })
  expect(store.held).toBe(1_000 * frames)
  // Groups of 16 slots that are nearly full: an entry that is looked for goes through several.
  expect(store.held / store.capacity).toBeGreaterThan(0.8)
})
