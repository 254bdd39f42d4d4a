/**
 * `ods-billing alerts`: a list, or `tail`, which follows the service's stream. A connection that ends is made again behind the last
 * alert that was printed, so that each is printed once, whatever happens to the service meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import type { Alert } from '../../quota/alerts.js'
import { ask, call, query, type TargetOptions, targetOf, Unreachable, withTarget } from '../call.js'
import { Exit } from '../exit.js'
import { clean, paint, readerGone, say, sayJson, tell } from '../terminal.js'

const RETRY_MS = 1_000
/** A server-sent event is one alert; a longer one is not from releve. */
const MESSAGE_MAX = 1024 * 1024

function lineOf(alert: Alert): string {
  const what = alert.type === 'alert.resolved' ? paint('green', 'resolved ') : paint('red', 'triggered')
  const limit = alert.limit === null ? '' : ` of ${alert.limit}`
  return `${new Date(alert.raisedAt).toISOString()}  ${what}  ${clean(`${alert.tenant}  ${alert.metric}  ${alert.threshold}  at ${alert.balance}${limit}  (${alert.serial})`)}`
}

/** The data of each message of a stream, with its id. */
async function* messagesOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<{ id: string; data: string }> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const part of body) {
    text += decoder.decode(part, { stream: true })
    if (text.length > MESSAGE_MAX) throw new Error('cannot follow the alerts: a message has no end')
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const lines = text.slice(0, end).split('\n')
      text = text.slice(end + 2)
      const field = (name: string): string =>
        lines
          .filter((line) => line.startsWith(`${name}: `))
          .map((line) => line.slice(name.length + 2))
          .join('\n')
      if (field('data') !== '') yield { id: field('id'), data: field('data') }
    }
  }
}

interface TailOptions extends TargetOptions {
  readonly tenant?: string
  readonly after?: string
  readonly count?: number
}

async function tail(options: TailOptions): Promise<number> {
  const path = `/v1/alerts/stream${query({ tenant: options.tenant })}`
  let after = options.after
  let left = options.count ?? Number.POSITIVE_INFINITY
  for (let connected = false; ; ) {
    const over = new AbortController()
    try {
      const answer = await ask(targetOf(options), 'GET', path, {
        signal: AbortSignal.any([over.signal, readerGone]),
        ...(after === undefined ? {} : { headers: { 'last-event-id': after } }),
      })
      connected = true
      tell(after === undefined ? 'following the alerts' : `following the alerts behind ${after}`)
      for await (const { id, data } of messagesOf(answer.body!)) {
        say(options.json === true ? data : lineOf(JSON.parse(data) as Alert))
        after = id
        left -= 1
        if (left <= 0) return Exit.ok.code
      }
    } catch (error) {
      if (readerGone.aborted) return Exit.ok.code
      const passes = error instanceof ReleveError && (error.status === 429 || error.status === 503)
      const isCut = error instanceof TypeError || error instanceof Unreachable
      // A service that was never there, or a key that is not let in, does not come by waiting.
      if (!passes && !(isCut && connected)) throw error
      tell(`again in a moment: ${error instanceof Error ? error.message : String(error)}`)
    } finally {
      over.abort()
    }
    // What was raised while we are away comes behind the last one; without one, behind the beginning of this command.
    await sleep(RETRY_MS)
  }
}

export function alertsCommand(program: Command, exit: (code: number) => void): void {
  const alerts = program.command('alerts').description('alerts of quotas')
  const serial = (text: string): string => {
    if (!/^[0-9]{1,15}$/.test(text)) throw new InvalidArgumentError('the serial of an alert, a whole number')
    return text
  }
  withTarget(
    alerts
      .command('list')
      .description('alerts in the order of their recording')
      .option('--tenant <tenant>', 'of one tenant')
      .option('--after <serial>', 'behind this one', serial)
      .option('--limit <n>', `at most so many, up to ${limits.pageMax}`, '100'),
  ).action(async (options: TailOptions & { limit: string }) => {
    const path = `/v1/alerts${query({ tenant: options.tenant, after: options.after, limit: options.limit })}`
    const answer = (await call('GET', path, undefined, options)) as { alerts: Alert[] }
    if (options.json === true) sayJson(answer)
    else for (const alert of answer.alerts) say(lineOf(alert))
    exit(Exit.ok.code)
  })
  withTarget(
    alerts
      .command('tail')
      .description('follow the alerts, until Ctrl-C; goes on behind the last one when the connection was cut')
      .option('--tenant <tenant>', 'of one tenant')
      .option('--after <serial>', 'begin behind this one; 0: all; default: from now on', serial)
      .option('--count <n>', 'end after so many', (text) => Number(serial(text))),
  ).action(async (options: TailOptions) => exit(await tail(options)))
}
