/** The thread in which runs are built (workers/runs.ts), one for all streams: it starts with the first run and ends when idle. */
import { join } from 'node:path'
import { Piscina } from 'piscina'
import { limits } from '../limits.js'
import { workersDirectory } from '../paths.js'
import type { BuiltRun, RunTask } from './run-builder.js'

export interface RunPool {
  build(task: RunTask): Promise<BuiltRun>
  /** Ends what is being built. */
  close(): Promise<void>
}

export function openRunPool(): RunPool {
  const pool = new Piscina({
    filename: join(workersDirectory, 'runs.js'),
    minThreads: 0,
    maxThreads: 1,
    idleTimeout: 10_000,
    // One of each stream.
    maxQueue: limits.streamsMax,
  })
  return {
    build: (task) => pool.run(task) as Promise<BuiltRun>,
    close: () => pool.destroy(),
  }
}
