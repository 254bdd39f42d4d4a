/**
 * Many drafts in one task: what a rating thread does (workers/draft.ts), and the pool of these threads. Rating is pure, so that a
 * task may run anywhere and again; documents come back packed, all in one buffer that is moved, so that the main thread never walks
 * them.
 */
import { join } from 'node:path'
import { Piscina } from 'piscina'
import type { Terms } from '../catalog/book.js'
import { limits } from '../limits.js'
import { workersDirectory } from '../paths.js'
import type { Period } from '../period.js'
import { draftInvoice, type ItemUsage } from './draft.js'
import type { Notice } from './invoice.js'
import { packJson } from './pack.js'

export interface DraftTask {
  readonly id: string
  /** Place of the measure among those of its contract (close.ts). */
  readonly order: number
  readonly terms: Terms
  readonly period: Period
  readonly usage: readonly ItemUsage[]
  readonly notices: readonly Notice[]
}

export interface Drafted {
  readonly id: string
  /** What it is a function of, as a closing keeps it: packed, a range of the reply's bytes. */
  readonly measured: ByteRange
  /** The document, packed; null when nothing is due. */
  readonly document: ByteRange | null
  readonly legalEntity: string
  readonly currency: string
  readonly ht: string
  readonly tva: string
  readonly ttc: string
}
/** First byte and length. */
export type ByteRange = readonly [at: number, length: number]
/**
 * A task that cannot be drafted (a price in another currency, too many lines) does not stop its neighbours. What comes to less than
 * nothing is no invoice: it goes the single way.
 */
export type DraftResult =
  | Drafted
  | { readonly id: string; readonly failed: string }
  | { readonly id: string; readonly less: true }
export interface DraftReply {
  readonly results: readonly DraftResult[]
  readonly bytes: Uint8Array
}

export function draftBatch(tasks: readonly DraftTask[]): DraftReply {
  const parts: Buffer[] = []
  let length = 0
  const keep = (value: unknown): ByteRange => {
    const part = packJson(JSON.stringify(value))
    parts.push(part)
    length += part.length
    return [length - part.length, part.length]
  }
  const results = tasks.map(({ id, order, terms, period, usage, notices }): DraftResult => {
    try {
      const invoice = draftInvoice(id, terms, period, usage, [], notices)
      if (invoice.ttc.startsWith('-')) return { id, less: true }
      return {
        id,
        // The questions stand in the document, and are long.
        measured: keep({ order, terms, usage: usage.map((one) => ({ ...one, query: '' })), late: [], notices }),
        document: invoice.lines.length === 0 ? null : keep(invoice),
        legalEntity: invoice.seller.key,
        currency: invoice.currency,
        ht: invoice.ht,
        tva: invoice.tva,
        ttc: invoice.ttc,
      }
    } catch (error) {
      return { id, failed: error instanceof Error ? error.message : String(error) }
    }
  })
  // A buffer of its own: one of the pool could not be moved to another thread.
  const bytes = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return { results, bytes }
}

export interface DraftPool {
  draft(tasks: readonly DraftTask[]): Promise<DraftReply>
  close(): Promise<void>
}

/** Threads are started with the first task and end when idle for a while. */
export function openDraftPool(threads: number): DraftPool {
  const pool = new Piscina({
    filename: join(workersDirectory, 'draft.js'),
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: 10_000,
    maxQueue: (limits.closeChunksInFlightMax * limits.closeChunkMax) / limits.draftTaskMax + 1,
  })
  return {
    async draft(tasks) {
      const parts: Promise<DraftReply>[] = []
      for (let at = 0; at < tasks.length; at += limits.draftTaskMax)
        parts.push(pool.run(tasks.slice(at, at + limits.draftTaskMax)) as Promise<DraftReply>)
      return joined(await Promise.all(parts))
    },
    close: () => pool.destroy(),
  }
}

function joined(replies: readonly DraftReply[]): DraftReply {
  let before = 0
  const results = replies.flatMap((reply) => {
    const moved = (range: ByteRange): ByteRange => [range[0] + before, range[1]]
    const own = reply.results.map((one) =>
      'failed' in one || 'less' in one
        ? one
        : { ...one, measured: moved(one.measured), document: one.document === null ? null : moved(one.document) },
    )
    before += reply.bytes.length
    return own
  })
  return { results, bytes: Buffer.concat(replies.map((reply) => reply.bytes)) }
}
