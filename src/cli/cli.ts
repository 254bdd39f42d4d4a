/**
 * The command line: data on stdout, everything else on stderr, and an exit code of the table in exit.ts. `releve` and
 * `ods-billing` are the same program. What needs the whole service is loaded when it is called, so that the others start at once.
 */
import { basename } from 'node:path'
import { Command, CommanderError } from 'commander'
import { loadConfig } from '../config.js'
import { VERSION } from '../version.js'
import { onlyHere, type TargetOptions, withTarget } from './call.js'
import { alertsCommand } from './commands/alerts.js'
import { backupCommands } from './commands/backup.js'
import { completionCommand } from './commands/completion.js'
import { eventsCommand } from './commands/events.js'
import { importCommand } from './commands/import.js'
import { invoiceCommand } from './commands/invoice.js'
import { keysCommand } from './commands/keys.js'
import { ratesCommand } from './commands/rates.js'
import { rejectsCommand } from './commands/rejects.js'
import { usageCommands } from './commands/usage.js'
import { Exit, exitCodeOf, exitTable } from './exit.js'

/** Returns the exit code; never throws. */
export async function runCli(args: readonly string[]): Promise<number> {
  let code = 0
  const exit = (to: number): void => {
    code = to
  }
  const program = new Command(basename(process.argv[1] ?? '') === 'ods-billing' ? 'ods-billing' : 'releve')
    .description('releve counts what customers use and turns it into invoices that nobody can dispute.')
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError('(releve --help explains)')
    .addHelpText('after', `\nSettings come from the environment; .env.example lists them.\n\nExit codes:\n${exitTable}`)
  program
    .command('serve')
    .description('run the service (npm start)')
    .action(async () => {
      const { serveCommand } = await import('./commands/serve.js')
      code = await serveCommand(loadConfig())
    })
  program
    .command('demo')
    .description('the whole road on a fresh directory: a million events, live quotas, books, an invoice')
    .option('--exit', 'stop when done instead of serving on')
    .option('--events <n>', 'IoT events to send', '1000000')
    .option('--data <directory>', 'data directory', '.data/demo')
    .action(async (options: { exit?: boolean; events: string; data: string }) => {
      const { runDemo } = await import('../demo/demo.js')
      code = await runDemo({ exit: options.exit ?? false, events: Number(options.events), data: options.data })
    })
  withTarget(
    program
      .command('audit')
      .description('hold books, checkpoints, rows and archive against each other; exit code 6 when something differs'),
  ).action(async (options: TargetOptions) => {
    const { auditCommand } = await import('./commands/audit.js')
    code = await auditCommand(options)
  })
  onlyHere(
    program
      .command('rebuild')
      .description(
        'make the rollups again from the archive, compare, and put them in place; the service must be stopped',
      ),
    'run it on the machine of the data directory, with the service stopped',
  )
    .option('--dry-run', 'only compare')
    .option('--json', 'machine-readable')
    .action(async (options: { dryRun?: boolean; json?: boolean }) => {
      const { rebuildCommand } = await import('./commands/rebuild.js')
      code = await rebuildCommand(loadConfig(), { dryRun: options.dryRun ?? false, json: options.json ?? false })
    })
  eventsCommand(program, exit)
  usageCommands(program, exit)
  alertsCommand(program, exit)
  rejectsCommand(program, exit)
  keysCommand(program, exit)
  ratesCommand(program, exit)
  backupCommands(program)
  invoiceCommand(program, exit)
  importCommand(program, exit)
  onlyHere(
    program.command('doctor').description('what is wrong here, and what to do; exit code 1 when something is'),
    'it looks at the machine it runs on; GET /health/ready tells how a service is',
  )
    .option('--json', 'machine-readable')
    .action(async (options: { json?: boolean }) => {
      const { doctorCommand } = await import('./commands/doctor.js')
      code = await doctorCommand(options.json ?? false)
    })
  completionCommand(program)
  const codes = program.command('exit-codes').description('what the exit codes mean')
  codes.helpInformation = () => `${exitTable}\n`
  codes.action(() => void process.stdout.write(codes.helpInformation()))
  try {
    await program.parseAsync(args, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? Exit.ok.code : Exit.usage.code
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    return exitCodeOf(error)
  }
}
