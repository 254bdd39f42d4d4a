/** `ods-billing usage` and `ods-billing quota`: what was counted, and where it stands against the limits, once or live. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import type { QuotaLine, UsageAnswer } from '../../answers.js'
import { systemClock } from '../../clock.js'
import { formatCompact } from '../../format.js'
import { countOver } from '../../quota/status.js'
import { ask, call, query, type TargetOptions, targetOf, withTarget } from '../call.js'
import { Exit } from '../exit.js'
import { paint, readerGone, say, sayJson, table } from '../terminal.js'

const BAR = 20

interface UsageOptions extends TargetOptions {
  readonly tenant?: string
  readonly from?: string
  readonly to?: string
  readonly window?: string
  readonly tz?: string
  readonly subject?: string
  readonly groupBy?: string
  readonly dim: readonly string[]
}

/** From the first of this month to the first of the next, UTC. */
function thisMonth(): { from: string; to: string } {
  const now = new Date(systemClock.now())
  const first = (months: number): string =>
    new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + months)).toISOString()
  return { from: first(0), to: first(1) }
}

/** «######----», with a mark when it is over. */
function bar(percent: string | null): string {
  if (percent === null) return ''
  const part = Math.min(BAR, Math.floor((Number(percent) * BAR) / 100))
  return '#'.repeat(part).padEnd(BAR, '-')
}

const colourOf = ({ status, percent }: QuotaLine): 'red' | 'yellow' | undefined =>
  status === 'over' ? 'red' : percent !== null && Number(percent) >= 80 ? 'yellow' : undefined

function quotaTable(quotas: readonly QuotaLine[], figure: (value: string) => string): string {
  return table(
    [
      { title: 'PRODUCT', of: (line: QuotaLine) => line.product },
      { title: 'METRIC', of: (line) => line.metric },
      { title: 'USED', of: (line) => figure(line.usage), right: true },
      { title: 'LIMIT', of: (line) => (line.limit === null ? 'none' : figure(line.limit)), right: true },
      { title: '%', of: (line) => line.percent ?? '-', right: true, style: colourOf },
      {
        title: 'OVER BY',
        of: (line) => (line.overage === null || line.overage === '0' ? '-' : figure(line.overage)),
        right: true,
      },
      { title: 'AGE', of: (line) => `${line.asOf.ageMs} ms`, right: true },
      { title: '', of: (line) => bar(line.percent), style: colourOf },
    ],
    quotas,
  )
}

export function usageCommands(program: Command, exit: (code: number) => void): void {
  withTarget(
    program
      .command('usage <metric>')
      .description('usage of a metric, by window and group')
      .option('--tenant <tenant>', 'needed with a platform-wide key')
      .option('--from <time>', 'RFC 3339 or epoch ms; default: the first of this month, UTC')
      .option('--to <time>', 'exclusive; default: the first of the next month')
      .option('--window <window>', 'minute, hour, day or month; default: one figure')
      .option('--tz <zone>', 'zone of days and months; default UTC')
      .option('--subject <subject>', 'only this one')
      .option('--group-by <names>', 'subject, or dimensions, with commas')
      .option(
        '--dim <name=value>',
        'only with this value; may be repeated',
        (text, all: string[]) => {
          if (!text.includes('=')) throw new InvalidArgumentError('name=value')
          return [...all, text]
        },
        [],
      ),
  ).action(async (metric: string, options: UsageOptions) => {
    const month = thisMonth()
    const dims = options.dim.map((text) => [
      `dims.${text.slice(0, text.indexOf('='))}`,
      text.slice(text.indexOf('=') + 1),
    ])
    const path = `/v1/usage${query({
      tenant: options.tenant,
      metric,
      from: options.from ?? month.from,
      to: options.to ?? month.to,
      window: options.window,
      tz: options.tz,
      subject: options.subject,
      group_by: options.groupBy,
      ...Object.fromEntries(dims),
    })}`
    const answer = (await call('GET', path, undefined, options)) as UsageAnswer
    if (options.json === true) sayJson(answer)
    else {
      const groups = Object.keys(answer.windows[0]?.groups ?? {})
      type Window = UsageAnswer['windows'][number]
      say(
        table<Window>(
          [
            { title: 'FROM', of: ({ from }) => from },
            ...groups.map((name) => ({ title: name.toUpperCase(), of: (window: Window) => window.groups[name] ?? '' })),
            { title: answer.unit.toUpperCase(), of: ({ value }) => value ?? '-', right: true },
            { title: 'EVENTS', of: ({ count }) => count, right: true },
          ],
          answer.windows,
        ),
      )
      say(
        `${answer.aggregation}, as of epoch ${answer.asOf.epoch} of stream ${answer.asOf.stream}, ${answer.asOf.lagMs} ms old`,
      )
    }
    exit(Exit.ok.code)
  })

  interface QuotaOptions extends TargetOptions {
    readonly watch?: boolean
    readonly interval: number
    readonly count?: number
    readonly compact?: boolean
    readonly failOver?: boolean
  }
  const positive = (text: string): number => {
    const value = Number(text)
    if (!(value > 0 && value <= 86_400)) throw new InvalidArgumentError('a number above 0')
    return value
  }
  withTarget(
    program
      .command('quota <tenant>')
      .description('live quotas of a tenant; --watch keeps the table up to date')
      .option('--watch', 'again and again, until Ctrl-C')
      .option('--interval <seconds>', 'between two readings of --watch', positive, 2)
      .option('--count <n>', 'readings of --watch, then end', positive)
      .option('--compact', 'large figures of the table cut short: 2.4M; --json has them whole')
      .option('--fail-over', 'exit code 6 when a quota is exceeded'),
  ).action(async (tenant: string, options: QuotaOptions) => {
    const target = targetOf(options)
    const readings = options.watch === true ? (options.count ?? Number.POSITIVE_INFINITY) : 1
    const redraws = options.watch === true && process.stdout.isTTY && options.json !== true
    let quotas: QuotaLine[] = []
    for (let n = 1; n <= readings && !readerGone.aborted; n += 1) {
      if (n > 1) await sleep(1000 * options.interval)
      const answer = await ask(target, 'GET', `/v1/quotas/${encodeURIComponent(tenant)}`)
      const body = (await answer.json()) as { tenant: string; quotas: QuotaLine[] }
      quotas = body.quotas
      // A line a reading for programs, a screen for people.
      if (options.json === true && options.watch === true) process.stdout.write(`${JSON.stringify(body)}\n`)
      else if (options.json === true) sayJson(body)
      else {
        const over = countOver(quotas)
        const foot =
          over > 0 ? paint('red', `${over} of ${quotas.length} over their limit`) : `${quotas.length} quotas, none over`
        const at = options.watch === true ? `, ${new Date(systemClock.now()).toISOString()}` : ''
        say(
          `${redraws ? '\x1b[H\x1b[2J' : ''}${quotaTable(quotas, options.compact === true ? formatCompact : String)}\n${foot}${at}`,
        )
      }
    }
    exit(options.failOver === true && countOver(quotas) > 0 ? Exit.differs.code : Exit.ok.code)
  })
}
