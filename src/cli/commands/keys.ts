/** `releve keys`: create, list, revoke, through the running service's API with the admin key of the data directory. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { loadConfig } from '../../config.js'
import { ErrorCode, ReleveError } from '../../errors.js'
import { serviceFile } from './serve.js'

async function call(method: string, path: string, body?: unknown): Promise<unknown> {
  const config = loadConfig()
  const file = serviceFile(config.dataDirectory)
  if (!existsSync(file))
    throw new Error(`cannot reach the service: none runs on ${config.dataDirectory}. npm start runs one.`)
  const { url } = JSON.parse(readFileSync(file, 'utf8')) as { url: string }
  const key = readFileSync(join(config.dataDirectory, 'admin.key'), 'utf8').trim()
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const value = (await answer.json()) as { code?: string; detail?: string }
  if (!answer.ok) {
    const code = value.code !== undefined && value.code in ErrorCode ? (value.code as ErrorCode) : 'internal'
    throw new ReleveError(code, value.detail ?? `the service answers ${answer.status}`)
  }
  return value
}

export function keysCommand(program: Command, exit: (code: number) => void): void {
  const print = (value: unknown): void => {
    process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
    exit(0)
  }
  const keys = program.command('keys').description('API keys of the running service')
  keys
    .command('list')
    .description('all keys, without secrets')
    .action(async () => print(await call('GET', '/v1/keys')))
  keys
    .command('create <name>')
    .description('make a key; its secret is printed once')
    .requiredOption('--scopes <scopes>', 'ingest,read,admin')
    .option('--tenant <tenant>', 'bind it to one tenant; none: platform-wide')
    .action(async (name: string, options: { scopes: string; tenant?: string }) =>
      print(
        await call('POST', '/v1/keys', {
          name,
          scopes: options.scopes.split(','),
          ...(options.tenant === undefined ? {} : { tenant: options.tenant }),
        }),
      ),
    )
  keys
    .command('revoke <id>')
    .description('end a key at once')
    .action(async (id: string) => print(await call('DELETE', `/v1/keys/${encodeURIComponent(id)}`)))
}
