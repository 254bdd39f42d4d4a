/** The system of a data directory for one command, with progress on stderr; the directory's lock keeps a running service out. */
import { systemClock } from '../clock.js'
import type { Config } from '../config.js'
import { openLogger } from '../logger.js'
import { openSystem, type System } from '../system.js'

/** Opens, runs, and always closes. */
export async function withSystem<Result>(config: Config, run: (system: System) => Promise<Result>): Promise<Result> {
  const system = await openSystem({
    config,
    clock: systemClock,
    logger: openLogger('warn'),
    onFatal: (error) => {
      process.stderr.write(`${error.message}\n`)
      process.exit(1)
    },
    onProgress: (step) => process.stderr.write(`opening: ${step}\n`),
  })
  try {
    return await run(system)
  } finally {
    await system.close()
  }
}
