#!/usr/bin/env node
/**
 * The process: command line → command. Nothing else exits. `releve` and `ods-billing` are the same binary.
 *
 * Everything else is imported behind the look at Node's version: an older one ends in the middle of an import, with words that help nobody.
 */
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(
    `releve needs Node 20.19 or later, and this is ${process.versions.node}: install one (https://nodejs.org), or put it first in the PATH\n`,
  )
  process.exit(1)
}

const [{ runCli }, { Exit }, { tell, watchOutput }] = await Promise.all([
  import('./cli/cli.js'),
  import('./cli/exit.js'),
  import('./cli/terminal.js'),
])

watchOutput((reason) => {
  tell(reason)
  process.exit(Exit.failed.code)
})

process.exitCode = await runCli(process.argv.slice(2))
