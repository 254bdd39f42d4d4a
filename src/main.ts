#!/usr/bin/env node
/**
 * The process: command line → command. Nothing else exits. `releve` and `ods-billing` are the same binary.
 */
import { runCli } from './cli/cli.js'
import { Exit } from './cli/exit.js'
import { tell, watchOutput } from './cli/terminal.js'

watchOutput((reason) => {
  tell(reason)
  process.exit(Exit.failed.code)
})

process.exitCode = await runCli(process.argv.slice(2))
