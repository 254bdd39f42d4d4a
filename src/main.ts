#!/usr/bin/env node
/**
 * The process: command line → command. Nothing else exits. `releve` and `ods-billing` are the same binary.
 */
import { runCli } from './cli/cli.js'

process.exitCode = await runCli(process.argv.slice(2))
