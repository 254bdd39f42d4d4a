/** `releve rebuild`: rollups from the archive. The service must be stopped; the directory's lock sees to it. */
import type { Config } from '../../config.js'
import { withSystem } from '../open.js'

export async function rebuildCommand(config: Config, options: { dryRun: boolean; json: boolean }): Promise<number> {
  return withSystem(config, async (system) => {
    const report = await system.rebuild({
      dryRun: options.dryRun,
      onProgress: (step) => process.stderr.write(`rebuild: ${step}\n`),
    })
    if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
    else {
      for (const table of report.tables) {
        process.stdout.write(
          `${table.table.padEnd(14)} ${table.rows} rows made, ${table.differences} differ from what was served\n`,
        )
      }
      process.stdout.write(report.replaced ? 'The rebuilt rollups are in place.\n' : 'Nothing was replaced.\n')
    }
    return 0
  })
}
