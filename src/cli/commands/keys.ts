/** `releve keys`: create, list, revoke, through the running service's API with the admin key of the data directory. */
import type { Command } from 'commander'
import { call } from '../call.js'

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
