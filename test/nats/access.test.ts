/** How the NATS door gets in: user and password, token, nkey, TLS; and the door without JetStream. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, nkeys } from 'nats'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type NatsConfig, parseConfig } from '../../src/config.js'
import { openNatsDoor } from '../../src/nats/nats.js'
import type { IngestAnswer } from '../../src/system.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { freePort, NatsServer, until } from './server.js'

let doors: DoorSystem
const folder = mkdtempSync(join(tmpdir(), 'releve-nats-access-'))
beforeAll(async () => {
  doors = await openDoorSystem()
})
afterAll(async () => {
  await doors?.close()
  rmSync(folder, { recursive: true, force: true })
})

const configOf = (env: Record<string, string>): NatsConfig => parseConfig(env).nats!

/** Runs a server with these lines, opens the door with `right`, which must be let in, and with `wrong`, which must not. */
async function check(
  lines: string,
  right: (url: string) => NatsConfig,
  wrong: (url: string) => NatsConfig,
): Promise<void> {
  const server = new NatsServer(await freePort())
  try {
    await server.start(lines)
    const refused = openNatsDoor(doors.system, wrong(server.url))
    await until(() => refused.state().reason !== undefined)
    expect(refused.state()).toMatchObject({ up: false, state: 'connecting' })
    await refused.close()
    const door = openNatsDoor(doors.system, right(server.url))
    await until(() => door.state().up)
    await door.close()
    expect(door.state()).toMatchObject({ up: false, state: 'closed' })
  } finally {
    await server.close()
  }
}

test('user and password, or a token, in the URL => let in; others are refused, and the door says why', async () => {
  const withUser = (url: string, user: string): NatsConfig =>
    configOf({ RELEVE_NATS_URL: url.replace('//', `//${user}@`) })
  await check(
    'authorization { user: "releve", password: "p@ss:word" }',
    (url) => withUser(url, 'releve:p%40ss%3Aword'),
    (url) => withUser(url, 'releve:other'),
  )
  await check(
    'authorization { token: "t0ken" }',
    (url) => withUser(url, 't0ken'),
    (url) => configOf({ RELEVE_NATS_URL: url }),
  )
})

test('an nkey => let in by its seed', async () => {
  const [own, other] = [nkeys.createUser(), nkeys.createUser()]
  const seedFile = (name: string, pair: typeof own): string => {
    const file = join(folder, name)
    writeFileSync(file, `${Buffer.from(pair.getSeed()).toString()}\n`, { mode: 0o600 })
    return file
  }
  const [ownFile, otherFile] = [seedFile('own.nk', own), seedFile('other.nk', other)]
  await check(
    `authorization { users: [ { nkey: ${own.getPublicKey()} } ] }`,
    (url) => configOf({ RELEVE_NATS_URL: url, RELEVE_NATS_NKEY_FILE: ownFile }),
    (url) => configOf({ RELEVE_NATS_URL: url, RELEVE_NATS_NKEY_FILE: otherFile }),
  )
  const missing = configOf({ RELEVE_NATS_URL: 'nats://127.0.0.1:1', RELEVE_NATS_NKEY_FILE: join(folder, 'none.nk') })
  expect(() => openNatsDoor(doors.system, missing)).toThrow('none.nk')
})

test('TLS with certificates on both sides => let in; without the authority, or without its own, not', async () => {
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' })
  }
  openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-days',
    '2',
    '-subj',
    '/CN=test authority',
  )
  for (const name of ['server', 'client']) {
    writeFileSync(join(folder, `${name}.ext`), 'subjectAltName=IP:127.0.0.1,DNS:localhost\n')
    openssl(
      'req',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${name}`,
    )
    openssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      `${name}.ext`,
      '-out',
      `${name}.pem`,
    )
  }
  const file = (name: string): string => join(folder, name)
  const lines = `tls { cert_file: "${file('server.pem')}", key_file: "${file('server.key')}", ca_file: "${file('ca.pem')}", verify: true }`
  const own = { RELEVE_NATS_CERT_FILE: file('client.pem'), RELEVE_NATS_KEY_FILE: file('client.key') }
  const tls = (url: string): string => url.replace('nats:', 'tls:')
  const right = (url: string): NatsConfig =>
    configOf({ RELEVE_NATS_URL: tls(url), RELEVE_NATS_CA_FILE: file('ca.pem'), ...own })
  await check(lines, right, (url) => configOf({ RELEVE_NATS_URL: tls(url), ...own }))
  await check(lines, right, (url) => configOf({ RELEVE_NATS_URL: tls(url), RELEVE_NATS_CA_FILE: file('ca.pem') }))
})

test('without JetStream => usage.in.<tenant> answers with the verdicts itself; with it asked for, the door says what to do', async () => {
  const server = new NatsServer(await freePort())
  try {
    await server.start('', false)
    const asked = openNatsDoor(doors.system, configOf({ RELEVE_NATS_URL: server.url }))
    await until(() => asked.state().reason !== undefined)
    expect(asked.state().reason).toContain('RELEVE_NATS_JETSTREAM=off')
    await asked.close()

    const door = openNatsDoor(doors.system, configOf({ RELEVE_NATS_URL: server.url, RELEVE_NATS_JETSTREAM: 'off' }))
    await until(() => door.state().up)
    const client = await connect({ servers: server.url })
    for (const prefix of ['usage.in.', 'usage.req.']) {
      const answer = await client.request(`${prefix}acme`, JSON.stringify({ id: prefix, metric: 'kyc' }), {
        timeout: 30_000,
      })
      expect(answer.json<IngestAnswer>()).toMatchObject({ received: 1, stored: 1 })
    }
    await client.close()
    await door.close()
  } finally {
    await server.close()
  }
})

test('settings that are wrong => named, and a password is not shown', () => {
  const faults = (env: Record<string, string>): string => {
    try {
      parseConfig(env)
    } catch (error) {
      return (error as Error).message
    }
    return 'none'
  }
  expect(parseConfig({}).nats).toBe(undefined)
  expect(faults({ RELEVE_NATS_URL: 'http://user:secret@host' })).toContain('RELEVE_NATS_URL is not a URL')
  expect(faults({ RELEVE_NATS_URL: 'http://user:secret@host' })).not.toContain('secret')
  expect(faults({ RELEVE_NATS_CA_FILE: 'x' })).toContain('RELEVE_NATS_CA_FILE means nothing without RELEVE_NATS_URL')
  const url = { RELEVE_NATS_URL: 'nats://host' }
  expect(faults({ ...url, RELEVE_NATS_KEY_FILE: 'x' })).toContain('given together')
  expect(faults({ ...url, RELEVE_NATS_STREAM: 'a.b' })).toContain('RELEVE_NATS_STREAM')
  expect(faults({ ...url, RELEVE_NATS_JETSTREAM: 'yes' })).toContain('RELEVE_NATS_JETSTREAM')
  expect(faults({ ...url, RELEVE_NATS_STREAM_BYTES: '5' })).toContain('RELEVE_NATS_STREAM_BYTES')
})
