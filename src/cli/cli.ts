/**
 * The command line: data on stdout, everything else on stderr. Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 key refused, 4 not
 * found, 5 conflict, 6 an audit or a verification found a difference, 7 an import refused rows.
 */
import { Command, CommanderError } from 'commander'
import { loadConfig } from '../config.js'
import { runDemo } from '../demo/demo.js'
import { ReleveError } from '../errors.js'
import { VERSION } from '../system.js'
import { auditCommand } from './commands/audit.js'
import { backupCommands } from './commands/backup.js'
import { importCommand } from './commands/import.js'
import { invoiceCommand } from './commands/invoice.js'
import { keysCommand } from './commands/keys.js'
import { rebuildCommand } from './commands/rebuild.js'
import { serveCommand } from './commands/serve.js'

const exitCodes: Readonly<Partial<Record<string, number>>> = {
  unauthorized: 3,
  forbidden: 3,
  not_found: 4,
  conflict: 5,
}

/** Returns the exit code; never throws. */
export async function runCli(args: readonly string[]): Promise<number> {
  let code = 0
  const program = new Command('releve')
    .description('releve counts what customers use and turns it into invoices that nobody can dispute.')
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError('(releve --help explains)')
    .addHelpText(
      'after',
      `
Settings come from the environment; .env.example lists them. Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 key refused,
4 not found, 5 conflict, 6 an audit or a verification found a difference, 7 an import refused rows.`,
    )
  program
    .command('serve')
    .description('run the service (npm start)')
    .action(async () => {
      code = await serveCommand(loadConfig())
    })
  program
    .command('demo')
    .description('the whole road on a fresh directory: a million events, live quotas, books, an invoice')
    .option('--exit', 'stop when done instead of serving on')
    .option('--events <n>', 'IoT events to send', '1000000')
    .option('--data <directory>', 'data directory', '.data/demo')
    .action(async (options: { exit?: boolean; events: string; data: string }) => {
      code = await runDemo({ exit: options.exit ?? false, events: Number(options.events), data: options.data })
    })
  program
    .command('audit')
    .description('hold books, checkpoints, rows and archive against each other')
    .option('--json', 'machine-readable')
    .action(async (options: { json?: boolean }) => {
      code = await auditCommand(loadConfig(), options.json ?? false)
    })
  program
    .command('rebuild')
    .description('make the rollups again from the archive, compare, and put them in place; the service must be stopped')
    .option('--dry-run', 'only compare')
    .option('--json', 'machine-readable')
    .action(async (options: { dryRun?: boolean; json?: boolean }) => {
      code = await rebuildCommand(loadConfig(), { dryRun: options.dryRun ?? false, json: options.json ?? false })
    })
  keysCommand(program, (n) => {
    code = n
  })
  backupCommands(program)
  invoiceCommand(program, (n) => {
    code = n
  })
  importCommand(program, (n) => {
    code = n
  })
  try {
    await program.parseAsync(args, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    return error instanceof ReleveError ? (exitCodes[error.code] ?? 1) : 1
  }
}
