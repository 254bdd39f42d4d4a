/**
 * `ods-billing import usage-data FILE`: sends a file to the service, shows its progress on stderr and the journal's entry on
 * stdout. Exit code 7 when rows were refused.
 */
import { accessSync, constants, createReadStream } from 'node:fs'
import { basename } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import type { ImportReport } from '../../usage-data/import.js'
import { ask, call, type TargetOptions, targetOf, withTarget } from '../call.js'

interface Options extends TargetOptions {
  readonly dryRun?: boolean
  readonly replay?: boolean
  readonly draft?: boolean
  readonly encoding?: string
  readonly separator?: string
  readonly decimal?: string
}

export function importCommand(program: Command, exit: (code: number) => void): void {
  withTarget(program.command('import').description('files for the running service').command('usage-data <file>'))
    .description('a CSV file of usage data; «-» reads standard input. Exit code 7 when rows are refused')
    .option('--dry-run', 'judge every row and keep nothing')
    .option('--replay', 'take a file again that was imported before')
    .option('--draft', 'rows without a state are drafts, not pending')
    .option('--encoding <encoding>', 'utf-8, utf-16le, utf-16be or windows-1252; by default found')
    .option('--separator <separator>', '«;», «,» or «tab»; by default found')
    .option('--decimal <mark>', 'comma or point; by default comma with «;»')
    .action(async (file: string, options: Options) => {
      let report = await send(file, options)
      while (report.state === 'running') {
        process.stderr.write(`\r${report.rowsRead} rows read, ${report.rowsRefused} refused`)
        await sleep(500)
        report = (await call('GET', `/v1/usage-data-imports/${report.id}`, undefined, options)) as ImportReport
      }
      if (report.id !== null) process.stderr.write('\n')
      process.stdout.write(options.json === true ? `${JSON.stringify(report, null, 2)}\n` : textOf(report))
      exit(report.state === 'failed' ? 1 : report.rowsRefused > 0 ? 7 : 0)
    })
}

async function send(file: string, options: Options): Promise<ImportReport> {
  const query = new URLSearchParams({
    name: file === '-' ? 'stdin' : basename(file),
    state: options.draft === true ? 'draft' : 'pending',
    ...(options.dryRun === true && { dry_run: 'true' }),
    ...(options.replay === true && { replay: 'true' }),
    ...(options.encoding !== undefined && { encoding: options.encoding }),
    ...(options.separator !== undefined && { separator: options.separator === 'tab' ? '\t' : options.separator }),
    ...(options.decimal !== undefined && { decimal: options.decimal }),
  })
  // Said as it is, before a request that would only break.
  if (file !== '-') accessSync(file, constants.R_OK)
  const bytes = Readable.toWeb(file === '-' ? process.stdin : createReadStream(file)) as ReadableStream
  const raw = { type: 'text/csv', bytes }
  return (await (
    await ask(targetOf(options), 'POST', `/v1/usage-data-imports?${query}`, { raw })
  ).json()) as ImportReport
}

function textOf(report: ImportReport): string {
  const { name, state, writing, rowsRead, rowsTaken, rowsKnown, rowsRefused } = report
  return [
    `${name}: ${state}${report.reason === null ? '' : `: ${report.reason}`}${report.id === null ? '' : ` (${report.id})`}`,
    `${writing.encoding}, separator ${JSON.stringify(writing.separator)}, decimal ${writing.decimalComma ? 'comma' : 'point'}`,
    `${rowsRead} rows read: ${rowsTaken} taken, ${rowsKnown} known, ${rowsRefused} refused`,
    ...report.rejects.map((one) => `  line ${one.row}: ${one.message}`),
    ...(rowsRefused > report.rejects.length ? [`  … ${rowsRefused - report.rejects.length} more`] : []),
    '',
  ].join('\n')
}
