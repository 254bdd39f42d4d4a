/**
 * A service that is there to be killed: opens the engines of a directory, says so in one JSON line on stdout, and waits. Run by
 * the tests as a process of its own; the directory is its argument.
 */
import { openEngines } from '../../src/engines/engines.js'
import { silentLogger } from '../../src/logger.js'

const engines = await openEngines({
  dataDirectory: process.argv[2]!,
  logger: silentLogger,
  onFatal: (error) => {
    console.error(error)
    process.exit(1)
  },
})
const { clickhouse, postgres } = engines.state()
console.log(JSON.stringify({ clickhouse: clickhouse.pid, postgres: postgres.pid }))
process.once('SIGTERM', () => void engines.close().then(() => process.exit(0)))
setInterval(() => {}, 60_000)
