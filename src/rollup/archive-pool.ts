/** The thread in which rows of the archive become sorted columns (workers/archive.ts), one for all streams: it ends when idle. */
import { join } from 'node:path'
import { Piscina } from 'piscina'
import { limits } from '../limits.js'
import { workersDirectory } from '../paths.js'
import type { StoreChunk } from './rollup.js'

export interface ArchivePool {
  /** A chunk as it is to be sent, under its own token and digest. Of one that becomes columns the pieces are taken. */
  columns(chunk: StoreChunk): Promise<StoreChunk>
  close(): Promise<void>
}

export function openArchivePool(): ArchivePool {
  const pool = new Piscina({
    filename: join(workersDirectory, 'archive.js'),
    minThreads: 0,
    maxThreads: 1,
    idleTimeout: 30_000,
    // A stream flushes one epoch after the other.
    maxQueue: limits.streamsMax,
  })
  return {
    async columns(chunk) {
      const { table, rows, pieces } = chunk
      if (table !== 'usage_events') return chunk
      const transferList = pieces.map(({ buffer }) => buffer as ArrayBuffer)
      return { ...chunk, ...(await pool.run({ rows, pieces }, { transferList })) }
    },
    close: () => pool.destroy(),
  }
}
