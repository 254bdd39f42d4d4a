/**
 * `ods-billing import usage-data FILE`: sends a file to the running service, shows its progress on stderr and the journal's entry on
 * stdout. Exit code 7 when rows were refused.
 */
import { createReadStream, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { loadConfig } from '../../config.js'
import { ErrorCode, ReleveError } from '../../errors.js'
import type { ImportReport } from '../../usage-data/import.js'
import { call, serviceFile } from '../call.js'

interface Options {
  readonly dryRun?: boolean
  readonly replay?: boolean
  readonly draft?: boolean
  readonly encoding?: string
  readonly separator?: string
  readonly decimal?: string
  readonly json?: boolean
}

export function importCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('import')
    .description('files for the running service')
    .command('usage-data <file>')
    .description('a CSV file of usage data; «-» reads standard input. Exit code 7 when rows are refused')
    .option('--dry-run', 'judge every row and keep nothing')
    .option('--replay', 'take a file again that was imported before')
    .option('--draft', 'rows without a state are drafts, not pending')
    .option('--encoding <encoding>', 'utf-8, utf-16le, utf-16be or windows-1252; by default found')
    .option('--separator <separator>', '«;», «,» or «tab»; by default found')
    .option('--decimal <mark>', 'comma or point; by default comma with «;»')
    .option('--json', 'machine-readable')
    .action(async (file: string, options: Options) => {
      let report = await send(file, options)
      while (report.state === 'running') {
        process.stderr.write(`\r${report.rowsRead} rows read, ${report.rowsRefused} refused`)
        await sleep(500)
        report = (await call('GET', `/v1/usage-data-imports/${report.id}`)) as ImportReport
      }
      if (report.id !== null) process.stderr.write('\n')
      process.stdout.write(options.json === true ? `${JSON.stringify(report, null, 2)}\n` : textOf(report))
      exit(report.state === 'failed' ? 1 : report.rowsRefused > 0 ? 7 : 0)
    })
}

async function send(file: string, options: Options): Promise<ImportReport> {
  const { dataDirectory } = loadConfig()
  let url: string
  try {
    url = (JSON.parse(readFileSync(serviceFile(dataDirectory), 'utf8')) as { url: string }).url
  } catch (cause) {
    throw new Error(`cannot reach the service: none runs on ${dataDirectory}. npm start runs one.`, { cause })
  }
  const key = readFileSync(join(dataDirectory, 'admin.key'), 'utf8').trim()
  const query = new URLSearchParams({
    name: file === '-' ? 'stdin' : basename(file),
    state: options.draft === true ? 'draft' : 'pending',
    ...(options.dryRun === true && { dry_run: 'true' }),
    ...(options.replay === true && { replay: 'true' }),
    ...(options.encoding !== undefined && { encoding: options.encoding }),
    ...(options.separator !== undefined && { separator: options.separator === 'tab' ? '\t' : options.separator }),
    ...(options.decimal !== undefined && { decimal: options.decimal }),
  })
  const body = Readable.toWeb(file === '-' ? process.stdin : createReadStream(file)) as ReadableStream
  const answer = await fetch(`${url}/v1/usage-data-imports?${query}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'text/csv' },
    body,
    duplex: 'half',
  } as RequestInit)
  const value = (await answer.json()) as ImportReport & { code?: string; detail?: string }
  if (answer.ok) return value
  const code = value.code !== undefined && value.code in ErrorCode ? (value.code as ErrorCode) : 'internal'
  throw new ReleveError(code, value.detail ?? `the service answers ${answer.status}`)
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
