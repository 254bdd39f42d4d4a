/**
 * The service that a command speaks to, and how it speaks. The address: --url, RELEVE_URL, or the service that runs on the data
 * directory. The key: --key, --key-file, RELEVE_KEY, RELEVE_KEY_FILE, or for the service of the data directory its admin key.
 * Throws ReleveError with the service's code, and an Error «cannot …» when no service answers.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, Option } from 'commander'
import { loadClientConfig } from '../config.js'
import { ErrorCode, ReleveError } from '../errors.js'

export interface TargetOptions {
  readonly url?: string
  readonly key?: string
  readonly keyFile?: string
  readonly json?: boolean
}

export interface Target {
  readonly url: string
  readonly key: string
}

/** The options that every command which asks the service has. */
export function withTarget(command: Command): Command {
  return command
    .option('--url <url>', 'the service (RELEVE_URL; default: the one that runs on RELEVE_DATA)')
    .option('--key <key>', 'API key; others on this machine may see it, so rather --key-file or RELEVE_KEY')
    .option('--key-file <file>', 'a file with the API key (RELEVE_KEY_FILE)')
    .option('--json', 'machine-readable')
}

/**
 * For a command that works on the data directory itself. A service elsewhere cannot be asked for it, and to work on another directory
 * than the one that was meant would be worse than to refuse.
 */
export function onlyHere(command: Command, why: string): Command {
  return command.addOption(new Option('--url <url>').hideHelp()).hook('preAction', (_, action) => {
    if (action.opts<{ url?: string }>().url !== undefined)
      action.error(`error: ${action.name()} cannot be asked of a service elsewhere: ${why}`)
  })
}

/** Where other commands find the running service of a data directory. */
export const serviceFile = (dataDirectory: string): string => join(dataDirectory, 'service.json')

/** The address of the service that runs, or ran, on a data directory; undefined when none does. */
export function serviceOf(dataDirectory: string): { url: string; pid: number } | undefined {
  const file = serviceFile(dataDirectory)
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { url: string; pid: number }) : undefined
}

export function targetOf(options: TargetOptions): Target {
  const client = loadClientConfig()
  const url = options.url ?? client.url
  const keyFile = options.keyFile ?? (options.key === undefined ? client.keyFile : undefined)
  const readKey = (file: string): string => {
    try {
      return readFileSync(file, 'utf8').trim()
    } catch (error) {
      throw new Error(`cannot read the key: ${(error as Error).message}`, { cause: error })
    }
  }
  const given = options.key ?? (keyFile === undefined ? client.key : readKey(keyFile))
  if (url !== undefined) {
    if (!URL.canParse(url)) throw new Error(`cannot reach «${url}»: it is no URL`)
    if (given === undefined)
      throw new ReleveError('unauthorized', 'there is no key: give --key-file, RELEVE_KEY_FILE or RELEVE_KEY')
    return { url: url.replace(/\/+$/, ''), key: given }
  }
  const service = serviceOf(client.dataDirectory)
  if (service === undefined)
    throw new Error(
      `cannot reach the service: none runs on ${client.dataDirectory}. npm start runs one; --url names another.`,
    )
  return { url: service.url, key: given ?? readKey(join(client.dataDirectory, 'admin.key')) }
}

export interface Ask {
  readonly body?: unknown
  /** A body that is text or bytes already, with its content type. */
  readonly raw?: { readonly type: string; readonly bytes: Uint8Array | string | ReadableStream }
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
  /** Statuses that are an answer as well. */
  readonly alsoOk?: readonly number[]
}

/** One request. The answer is of a status that says yes. */
export async function ask(target: Target, method: string, path: string, what: Ask = {}): Promise<Response> {
  const { body, raw, headers = {}, signal, alsoOk = [] } = what
  let answer: Response
  try {
    answer = await fetch(`${target.url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${target.key}`,
        ...(raw !== undefined
          ? { 'content-type': raw.type }
          : body === undefined
            ? {}
            : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(raw !== undefined
        ? { body: raw.bytes, duplex: 'half' }
        : body === undefined
          ? {}
          : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    } as RequestInit)
  } catch (error) {
    const { cause } = error as { cause?: { message?: string; code?: string } }
    throw new Unreachable(
      `cannot reach the service at ${target.url}: ${cause?.code ?? cause?.message ?? (error as Error).message}`,
      { cause: error },
    )
  }
  if (answer.ok || alsoOk.includes(answer.status)) return answer
  const text = await answer.text()
  let problem: { code?: string; detail?: string; title?: string } = {}
  try {
    problem = JSON.parse(text)
  } catch {
    // Something between us and the service answered.
  }
  const code = problem.code !== undefined && problem.code in ErrorCode ? (problem.code as ErrorCode) : 'internal'
  const retryAfter = Number(answer.headers.get('retry-after') ?? Number.NaN)
  throw new ReleveError(code, problem.detail ?? problem.title ?? `the service answers ${answer.status}`, {
    ...(Number.isNaN(retryAfter) ? {} : { retryAfterS: retryAfter }),
  })
}

/** No answer at all: the same may be asked again. */
export class Unreachable extends Error {}

/** The answer's bytes. */
export async function fetchBytes(
  method: string,
  path: string,
  body?: unknown,
  options: TargetOptions = {},
): Promise<Buffer> {
  const answer = await ask(targetOf(options), method, path, body === undefined ? {} : { body })
  return Buffer.from(await answer.arrayBuffer())
}

/** The answer's JSON. */
export async function call(
  method: string,
  path: string,
  body?: unknown,
  options: TargetOptions = {},
): Promise<unknown> {
  return JSON.parse((await fetchBytes(method, path, body, options)).toString())
}

/** A query string of what is there. */
export function query(of: Readonly<Record<string, string | undefined>>): string {
  const pairs = Object.entries(of).filter((pair): pair is [string, string] => pair[1] !== undefined)
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs)}`
}
