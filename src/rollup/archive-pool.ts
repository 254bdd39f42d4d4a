/**
 * The threads in which chunks of the archive are sorted and sent to ClickHouse (workers/archive.ts): one for each stream that flushes,
 * up to limits.archiveThreadsMax. They end when idle. The main thread hands over where the rows lie and hears that they have landed.
 */
import { join } from 'node:path'
import { Piscina } from 'piscina'
import type { ClickHouseHttp } from '../engines/engines.js'
import { limits } from '../limits.js'
import { workersDirectory } from '../paths.js'
import type { ArchiveInsert } from './archive-send.js'
import type { StoreChunk } from './rollup.js'

export interface ArchivePool {
  /**
   * A chunk of usage_events under this token. Resolves when all its rows have landed; rejects when that is not known, and the
   * caller, who still has the rows, may try again. Nobody reads the rows any more when it has settled.
   */
  insert(chunk: StoreChunk, token: string): Promise<void>
  close(): Promise<void>
}

export function openArchivePool(http: ClickHouseHttp): ArchivePool {
  const pool = new Piscina({
    filename: join(workersDirectory, 'archive.js'),
    minThreads: 0,
    maxThreads: limits.archiveThreadsMax,
    idleTimeout: 30_000,
    // A stream flushes one epoch after the other.
    maxQueue: limits.streamsMax,
  })
  return {
    insert: ({ rows, pieces }, token) => pool.run({ rows, pieces, token, http } satisfies ArchiveInsert),
    close: () => pool.destroy(),
  }
}
