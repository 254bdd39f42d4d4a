/** Thread entry for the archive: the rows of a chunk come in, sorted columns go out. It keeps the kernel's memory, and no rows. */
import { writeFileSync } from 'node:fs'
import { move, transferableSymbol, valueSymbol } from 'piscina'
import { type ArchiveRows, archiveColumns } from '../src/rollup/archive-columns.js'

// The thread's name for top, perf and the benches, where the system has a place for it.
try {
  writeFileSync('/proc/thread-self/comm', 'archive')
} catch {}

export default function run(rows: ArchiveRows): unknown {
  const columns = archiveColumns(rows)
  // Without the kernel they stay as they are.
  const pieces = columns ?? rows.pieces
  const reply = { pieces, format: columns === null ? 'RowBinary' : 'Native' }
  return move({ [transferableSymbol]: pieces.map(({ buffer }) => buffer as ArrayBuffer), [valueSymbol]: reply })
}
