/**
 * Thread entry of a shard: one Shard for the life of the thread, one task after the other. Large buffers of a reply are moved,
 * not copied.
 */
import { writeFileSync } from 'node:fs'
import { move, transferableSymbol, valueSymbol, workerData } from 'piscina'
import { ReleveError } from '../src/errors.js'
import type { Admitted } from '../src/ingest/cardinality.js'
import { type JudgedGroup, type SealedEpoch, Shard, type ShardOptions, type ShardTask } from '../src/shard.js'

const options = workerData as ShardOptions
const shard = new Shard(options)

// The thread's name for top, perf and the benches, where the system has a place for it.
try {
  writeFileSync('/proc/thread-self/comm', `shard-${options.stream}`)
} catch {}

function buffersOf(task: ShardTask, reply: unknown): ArrayBuffer[] {
  if (task.method === 'judge') {
    return (reply as JudgedGroup[]).flatMap(({ parts }) =>
      parts.flatMap(({ own, indices }) => [own, indices].flatMap((b) => (b === null ? [] : [b.buffer as ArrayBuffer]))),
    )
  }
  if (task.method === 'admit') {
    const admitted = reply as Admitted | null
    return admitted === null ? [] : [admitted.frame.buffer as ArrayBuffer, admitted.indices.buffer as ArrayBuffer]
  }
  if (task.method === 'seal') {
    const { chunks, keys } = reply as SealedEpoch
    // What is shared is not handed over: both sides see it.
    const buffers = chunks.flatMap(({ pieces }) =>
      pieces.flatMap(({ buffer }) => (buffer instanceof ArrayBuffer ? [buffer] : [])),
    )
    return keys === null ? buffers : [...buffers, keys.buffer as ArrayBuffer]
  }
  return []
}

export default function run(task: ShardTask): unknown {
  try {
    const method = shard[task.method] as (...args: readonly unknown[]) => unknown
    const reply = method.apply(shard, task.args as unknown[])
    const buffers = buffersOf(task, reply)
    return buffers.length === 0 ? reply : move({ [transferableSymbol]: buffers, [valueSymbol]: reply as object })
  } catch (error) {
    // An expected refusal keeps its code over the thread's border, where a class does not survive.
    if (error instanceof ReleveError) return { refused: { code: error.code, detail: error.message } }
    throw error
  }
}
