/**
 * Entry of the embedded ClickHouse: a Node process that becomes a ClickHouse server. libchdb's `query_stable_v2` runs
 * clickhouse-local, which can listen; the query starts the listener and then sleeps for years, so the call never returns.
 *
 * Arguments: path of libchdb, data directory, config file. The main thread sits inside the native call from here on: no timer,
 * no signal handler and no promise of this process runs any more. Signals keep their native meaning (SIGTERM ends it in about
 * two seconds); the leash of engine-process.ts ends it when the service is gone.
 *
 * The entry is not an official one: the package is pinned exactly, and test/engines/ holds a smoke test. ffi-rs calls on the
 * thread's own stack; koffi does not, and ClickHouse then refuses with TOO_DEEP_RECURSION.
 */
import { writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import { DataType, load, open } from 'ffi-rs'

const [libraryPath, dataPath, configPath] = process.argv.slice(2)
if (!libraryPath || !dataPath || !configPath)
  throw new Error('cannot start ClickHouse: expected library, data and config paths')

const forYears =
  'SELECT count() FROM numbers(100000000) WHERE NOT ignore(sleepEachRow(3)) ' +
  'SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0'
const argv = [
  'clickhouse',
  `--path=${dataPath}`,
  `--config-file=${configPath}`,
  '--query',
  `SYSTEM START LISTEN HTTP; ${forYears}`,
]

// Acknowledging events comes before merging those that are counted (rollup/README.md has what it gives and costs). Its threads inherit
// this one's niceness; where the kernel shares cores out by session first, the session has its own, or that of threads says nothing.
const NICE = 5
setPriority(NICE)
try {
  writeFileSync('/proc/self/autogroup', String(NICE))
} catch {
  // A kernel without them.
}

open({ library: 'chdb', path: libraryPath })
load({
  library: 'chdb',
  funcName: 'query_stable_v2',
  retType: DataType.External,
  paramsType: [DataType.I32, DataType.StringArray],
  paramsValue: [argv.length, argv],
})
// Only reached when the server could not start; the reason is on stderr.
process.exit(1)
