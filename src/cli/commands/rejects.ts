/** `ods-billing rejects`: what was refused, as a list or a file, and sent again after mending. */
import { createReadStream, createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import { limits } from '../../limits.js'
import type { Reject, ResendAnswer } from '../../refusals.js'
import { ask, call, query, type TargetOptions, targetOf, withTarget } from '../call.js'
import { Exit } from '../exit.js'
import { clean, say, sayJson, table, tell } from '../terminal.js'
import { linesOf } from './events.js'

interface FilterOptions extends TargetOptions {
  readonly tenant?: string
  readonly code?: string
  readonly metric?: string
  readonly from?: string
  readonly to?: string
  readonly state?: string
}

const filtered = (command: Command): Command =>
  withTarget(
    command
      .option('--tenant <tenant>', 'of one tenant')
      .option('--code <code>', 'one reason, unknown_metric for example')
      .option('--metric <metric>', 'as the event named it')
      .option('--from <time>', 'RFC 3339 or epoch ms; default: a week back')
      .option('--to <time>', 'exclusive')
      .option('--state <state>', 'open or resent'),
  )

const filterOf = ({ tenant, code, metric, from, to, state }: FilterOptions) => ({
  tenant,
  code,
  metric,
  from,
  to,
  state,
})

export function rejectsCommand(program: Command, exit: (code: number) => void): void {
  const rejects = program.command('rejects').description('refused events and conflicts')
  filtered(rejects.command('list').description('newest first'))
    .option('--limit <n>', `rows of a page, up to ${limits.pageMax}`, '100')
    .option('--after <reject>', '`next` of the page before')
    .action(async (options: FilterOptions & { limit: string; after?: string }) => {
      const path = `/v1/rejects${query({ ...filterOf(options), limit: options.limit, after: options.after })}`
      const page = (await call('GET', path, undefined, options)) as { rejects: Reject[]; next: string | null }
      if (options.json === true) sayJson(page)
      else {
        say(
          table<Reject>(
            [
              { title: 'REJECT', of: (row) => row.reject },
              { title: 'RECEIVED', of: (row) => row.receivedAt },
              { title: 'TENANT', of: (row) => row.tenant },
              { title: 'CODE', of: (row) => row.code },
              { title: 'ID', of: (row) => row.id },
              { title: 'STATE', of: (row) => (row.resentAt === null ? 'open' : 'resent') },
              { title: 'WHY', of: (row) => `${row.field} ${row.message}`.trim() },
            ],
            page.rejects,
          ),
        )
        if (page.next !== null) tell(`more: --after ${page.next}`)
      }
      exit(Exit.ok.code)
    })

  filtered(rejects.command('export').description('all of them as a file; a line of NDJSON is what resend reads'))
    .option('--format <format>', 'ndjson or csv', 'ndjson')
    .option('--output <file>', 'instead of stdout')
    .action(async (options: FilterOptions & { format: string; output?: string }) => {
      const path = `/v1/rejects/export${query({ ...filterOf(options), format: options.format })}`
      const answer = await ask(targetOf(options), 'GET', path)
      if (options.output === undefined)
        await pipeline(answer.body!, process.stdout, { end: false }).catch((error: NodeJS.ErrnoException) => {
          if (error.code !== 'EPIPE') throw error
        })
      else await pipeline(answer.body!, createWriteStream(options.output, { mode: 0o600 }))
      exit(Exit.ok.code)
    })

  withTarget(
    rejects
      .command('resend [file]')
      .description('send mended lines of an export, or of stdin; exit code 7 when some are refused again'),
  ).action(async (file: string | undefined, options: TargetOptions) => {
    const target = targetOf(options)
    const input = file === undefined || file === '-' ? process.stdin : createReadStream(file)
    const results: ResendAnswer['results'][number][] = []
    let resent = 0
    const send = async (lines: readonly Buffer[]): Promise<void> => {
      if (lines.length === 0) return
      const bytes = Buffer.concat(lines.flatMap((line) => [line, Buffer.from('\n')]))
      const raw = { type: 'application/x-ndjson', bytes }
      const answer = (await (await ask(target, 'POST', '/v1/rejects/resend', { raw })).json()) as ResendAnswer
      resent += answer.resent
      for (const one of answer.results) {
        if (options.json === true) results.push(one)
        else if (!['accepted', 'duplicate', 'already'].includes(one.outcome))
          tell(
            clean(
              `${one.reject}: ${one.outcome}${one.code === undefined ? '' : ` ${one.code}`} ${one.field ?? ''} ${one.message ?? ''}`.trim(),
            ),
          )
        counts.set(one.outcome, (counts.get(one.outcome) ?? 0) + 1)
      }
    }
    const counts = new Map<string, number>()
    let lines: Buffer[] = []
    for await (const { line } of linesOf(input)) {
      lines.push(line)
      if (lines.length < limits.resendMax) continue
      await send(lines)
      lines = []
    }
    await send(lines)
    if (options.json === true) sayJson({ resent, results })
    else say(`${resent} sent again${[...counts].map(([outcome, n]) => `, ${n} ${outcome}`).join('')}`)
    const bad = [...counts].some(([outcome]) => !['accepted', 'duplicate', 'already'].includes(outcome))
    exit(bad ? Exit.partial.code : Exit.ok.code)
  })
}
