/** Thread entry for the archive: the rows of a chunk come in and go to ClickHouse. It keeps the kernel's memory, and no rows. */
import { writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import { type ArchiveInsert, sendArchive } from '../src/rollup/archive-send.js'

// The thread's name for top, perf and the benches, where the system has a place for it.
try {
  writeFileSync('/proc/thread-self/comm', 'archive')
} catch {}
// Of this thread alone, where the system has it for threads: what is counted can wait for what comes in.
try {
  setPriority(10)
} catch {}

export default function run(insert: ArchiveInsert): Promise<void> {
  return sendArchive(insert)
}
