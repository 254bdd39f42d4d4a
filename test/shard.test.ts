/**
 * A shard, alone: what it does with more records in one call than its open epoch has room for.
 */
import { expect, test } from 'vitest'
import { buildDoor, judge } from '../src/ingest/ingest.js'
import { limits } from '../src/limits.js'
import { Shard } from '../src/shard.js'
import { promises } from './promises.js'

const RECEIVED_AT = Date.parse('2026-03-10T00:00:00Z')
const FRAME_EVENTS = limits.batchEventsMax
const metric = {
  key: 'units',
  version: 1,
  aggregation: 'sum' as const,
  unit: 'unit',
  scale: 0,
  dims: [],
  uniqueBy: null,
  archive: true,
}
const door = buildDoor({ version: 1, metrics: [metric], tenants: ['alpha'] }, 1)

function frameOf(record: number): Uint8Array {
  const events = Array.from({ length: FRAME_EVENTS }, (_, i) => ({ id: `${record}-${i}`, metric: 'units' }))
  const request = {
    format: 'json' as const,
    tenant: 'alpha',
    receivedAt: RECEIVED_AT,
    floorTime: RECEIVED_AT - limits.lateMs,
    aheadMs: limits.aheadMs,
  }
  return judge(door, Buffer.from(JSON.stringify(events)), request).parts[0]!.frame
}

test(`${promises('flow:exactly-once')} more records in one call than an epoch holds => it stops before its bound, and goes on after the seal`, () => {
  const shard = new Shard({
    stream: 0,
    streams: 1,
    secret: new Uint8Array(16),
    idsMax: 4_000_000,
    diskIdsMax: 0,
    aheadMs: limits.aheadMs,
    lateMs: limits.lateMs,
    slabs: [],
  })
  shard.setCatalog({ version: 1, metrics: [metric], tenants: ['alpha'] })
  shard.open({ epoch: 1, sequence: 0, receivedAt: 0, restored: false })
  const records = Array.from({ length: limits.epochEventsMax / FRAME_EVENTS + 5 }, (_, i) => ({
    sequence: i + 1,
    receivedAt: RECEIVED_AT,
    payload: frameOf(i),
  }))
  const first = shard.apply(records)
  expect(first.full).toBe(true)
  expect(first.done * FRAME_EVENTS).toBe(limits.epochEventsMax + limits.batchEventsMax)
  expect(first.counts).toMatchObject({ stored: first.done * FRAME_EVENTS, accepted: first.done * FRAME_EVENTS })
  expect(shard.seal().counts.accepted).toBe(first.done * FRAME_EVENTS)
  const rest = shard.apply(records.slice(first.done))
  expect(rest.done).toBe(records.length - first.done)
  expect(rest.counts.accepted).toBe(rest.done * FRAME_EVENTS)
})
