/** `ods-billing keys`: create, list, change, rotate, revoke, through the API of the running service. */
import { type Command, InvalidArgumentError } from 'commander'
import type { KeyLimits } from '../../access/budget.js'
import type { ApiKey } from '../../access/keys.js'
import { call, type TargetOptions, withTarget } from '../call.js'
import { Exit } from '../exit.js'
import { say, sayJson, table, tell } from '../terminal.js'

const moment = (time: number | null): string => (time === null ? '-' : new Date(time).toISOString())
const stateOf = (key: ApiKey): string => (key.revokedAt === null ? 'valid' : `revoked ${moment(key.revokedAt)}`)
/** Rates as a person reads them. */
export const limitsText = (of: KeyLimits): string =>
  Object.entries(of)
    .map(([name, value]) => `${name.replace('PerSecond', '')} ${value}/s`)
    .join(', ') || '-'

export interface RateOptions extends TargetOptions {
  readonly requestsPerSecond?: number
  readonly eventsPerSecond?: number
  readonly bytesPerSecond?: number
}
interface ChangeOptions extends RateOptions {
  readonly noLimits?: boolean
  readonly limits?: boolean
  readonly expires?: string
}

const rate = (text: string): number => {
  if (!/^[1-9][0-9]{0,9}$/.test(text)) throw new InvalidArgumentError('a whole number from 1 on')
  return Number(text)
}
/** The options of rates; what becomes of more than that is the caller's to say. */
export const rated = (command: Command, beyond: string): Command =>
  withTarget(
    command
      .option('--requests-per-second <n>', beyond, rate)
      .option('--events-per-second <n>', beyond, rate)
      .option('--bytes-per-second <n>', `of bodies as they come; ${beyond}`, rate),
  )
const limited = (command: Command): Command =>
  rated(command, 'beyond it 429').option('--expires <time>', 'RFC 3339 or epoch ms')

/** undefined: none was given. */
export function limitsOf(options: RateOptions): KeyLimits | undefined {
  const { requestsPerSecond, eventsPerSecond, bytesPerSecond } = options
  const of = {
    ...(requestsPerSecond === undefined ? {} : { requestsPerSecond }),
    ...(eventsPerSecond === undefined ? {} : { eventsPerSecond }),
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
  }
  return Object.keys(of).length === 0 ? undefined : of
}

export function keysCommand(program: Command, exit: (code: number) => void): void {
  const keys = program.command('keys').description('API keys')
  const path = (id: string): string => `/v1/keys/${encodeURIComponent(id)}`
  /** A secret goes to stdout alone, so that it can be piped into a file; what is said about it goes to stderr. */
  const made = (answer: unknown, json: boolean | undefined): void => {
    const { key, secret } = answer as { key: ApiKey; secret: string }
    if (json === true) sayJson(answer)
    else {
      const overlap =
        key.previousUntil === null ? '' : `, the secret before it is valid until ${moment(key.previousUntil)}`
      tell(
        `key ${key.id}, ${key.tenant ?? 'platform-wide'}, ${key.scopes.join(' ')}${overlap}; its secret is shown once:`,
      )
      say(secret)
    }
    exit(Exit.ok.code)
  }
  const changed = (answer: unknown, json: boolean | undefined): void => {
    const { key } = answer as { key: ApiKey }
    if (json === true) sayJson(answer)
    else say(`key ${key.id}: ${stateOf(key)}, expires ${moment(key.expiresAt)}, limits ${limitsText(key.limits)}`)
    exit(Exit.ok.code)
  }

  withTarget(keys.command('list').description('all keys, without secrets')).action(async (options: TargetOptions) => {
    const answer = (await call('GET', '/v1/keys', undefined, options)) as { keys: ApiKey[] }
    if (options.json === true) sayJson(answer)
    else
      say(
        table<ApiKey>(
          [
            { title: 'ID', of: (key) => key.id },
            { title: 'NAME', of: (key) => key.name },
            { title: 'TENANT', of: (key) => key.tenant ?? '(platform)' },
            { title: 'SCOPES', of: (key) => key.scopes.join(' ') },
            { title: 'STATE', of: stateOf },
            { title: 'EXPIRES', of: (key) => moment(key.expiresAt) },
            { title: 'LIMITS', of: (key) => limitsText(key.limits) },
          ],
          answer.keys,
        ),
      )
    exit(Exit.ok.code)
  })
  limited(
    keys
      .command('create <name>')
      .description('make a key; its secret is printed once')
      .requiredOption('--scopes <scopes>', 'ingest,read,admin')
      .option('--tenant <tenant>', 'bind it to one tenant; none: platform-wide'),
  ).action(async (name: string, options: ChangeOptions & { scopes: string; tenant?: string }) => {
    const of = limitsOf(options)
    const body = {
      name,
      scopes: options.scopes.split(','),
      ...(options.tenant === undefined ? {} : { tenant: options.tenant }),
      ...(of === undefined ? {} : { limits: of }),
      ...(options.expires === undefined ? {} : { expiresAt: options.expires }),
    }
    made(await call('POST', '/v1/keys', body, options), options.json)
  })
  limited(
    keys
      .command('change <id>')
      .description('other limits (all of them are replaced) or another end')
      .option('--no-limits', 'take all limits away')
      .option('--never', 'take the end away'),
  ).action(async (id: string, options: ChangeOptions & { never?: boolean }) => {
    const of = options.limits === false ? {} : limitsOf(options)
    const end = options.never === true ? null : options.expires
    const body = { ...(of === undefined ? {} : { limits: of }), ...(end === undefined ? {} : { expiresAt: end }) }
    changed(await call('PATCH', path(id), body, options), options.json)
  })
  withTarget(
    keys
      .command('rotate <id>')
      .description('a new secret, printed once; the one so far stays valid for a while')
      .option('--overlap <seconds>', 'how long; 0: it ends now', (text) => {
        if (!/^[0-9]{1,8}$/.test(text)) throw new InvalidArgumentError('whole seconds')
        return Number(text)
      }),
  ).action(async (id: string, options: TargetOptions & { overlap?: number }) => {
    const body = options.overlap === undefined ? {} : { overlapSeconds: options.overlap }
    made(await call('POST', `${path(id)}/rotate`, body, options), options.json)
  })
  withTarget(keys.command('revoke <id>').description('end a key at once')).action(
    async (id: string, options: TargetOptions) =>
      changed(await call('DELETE', path(id), undefined, options), options.json),
  )
}
