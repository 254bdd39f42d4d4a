/**
 * Many drafts in one task: what a rating thread does (workers/draft.ts), and the pool of these threads. Rating is pure, so that a
 * task may run anywhere and again; documents come back as JSON text, ready to be stored, so that the main thread never walks them.
 */
import { join } from 'node:path'
import { Piscina } from 'piscina'
import type { Terms } from '../catalog/book.js'
import { limits } from '../limits.js'
import { workersDirectory } from '../paths.js'
import type { Period } from '../period.js'
import { draftInvoice, type ItemUsage } from './draft.js'

export interface DraftTask {
  readonly id: string
  /** Place of the measure among those of its contract (close.ts). */
  readonly order: number
  readonly terms: Terms
  readonly period: Period
  readonly usage: readonly ItemUsage[]
}

export interface Drafted {
  readonly id: string
  /** JSON of the document; null when nothing is due. */
  readonly document: string | null
  /** JSON of what it is a function of, as a closing keeps it. */
  readonly measured: string
  readonly legalEntity: string
  readonly currency: string
  readonly ht: string
  readonly tva: string
  readonly ttc: string
}
/** A task that cannot be drafted (a price in another currency, too many lines) does not stop its neighbours. */
export type DraftResult = Drafted | { readonly id: string; readonly failed: string }

export function draftBatch(tasks: readonly DraftTask[]): DraftResult[] {
  return tasks.map(({ id, order, terms, period, usage }) => {
    try {
      const invoice = draftInvoice(id, terms, period, usage)
      return {
        id,
        document: invoice.lines.length === 0 ? null : JSON.stringify(invoice),
        measured: JSON.stringify({ order, terms, usage, late: [] }),
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
}

export interface DraftPool {
  draft(tasks: readonly DraftTask[]): Promise<DraftResult[]>
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
      const parts: Promise<DraftResult[]>[] = []
      for (let at = 0; at < tasks.length; at += limits.draftTaskMax)
        parts.push(pool.run(tasks.slice(at, at + limits.draftTaskMax)) as Promise<DraftResult[]>)
      return (await Promise.all(parts)).flat()
    },
    close: () => pool.destroy(),
  }
}
