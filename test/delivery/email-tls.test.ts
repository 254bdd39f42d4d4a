/**
 * E-mail over TLS, by both ways, with user and password: a real SMTP server with a certificate of an authority that this test makes. What
 * is wrong is said so that an operator can act, and ends as a dead letter; no password ever goes over a line in the clear.
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { SMTPServer, type SMTPServerOptions } from 'smtp-server'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DeadLetter } from '../../src/delivery/delivery.js'
import { type Mailer, openMailer } from '../../src/delivery/email.js'
import { openTestSystem, type TestSystem } from '../system.js'

const folder = mkdtempSync(join(tmpdir(), 'releve-smtp-'))
const file = (name: string): string => join(folder, name)
const servers: SMTPServer[] = []
let accepted = 'right & proper'
/** Passwords that came to a server, and whether the line was encrypted. */
const logins: { readonly password: string; readonly secure: boolean }[] = []
const mails: { readonly secure: boolean; readonly raw: string }[] = []

async function serve(options: SMTPServerOptions): Promise<number> {
  const server = new SMTPServer({
    key: readFileSync(file('server.key')),
    cert: readFileSync(file('server.pem')),
    allowInsecureAuth: true,
    onAuth({ username, password }, session, done) {
      logins.push({ password: password ?? '', secure: session.secure })
      if (username === 'releve' && password === accepted) return done(null, { user: 'releve' })
      done(Object.assign(new Error('Authentication credentials invalid'), { responseCode: 535 }))
    },
    onData(stream, session, done) {
      let raw = ''
      stream.setEncoding('utf8').on('data', (text: string) => (raw += text))
      stream.on('end', () => {
        mails.push({ secure: session.secure, raw })
        done()
      })
    },
    ...options,
  })
  // A client that hangs up in the middle of a handshake is what some of these tests are about.
  server.on('error', () => {})
  server.listen(0, '127.0.0.1')
  servers.push(server)
  await once(server.server, 'listening')
  return (server.server.address() as AddressInfo).port
}

beforeAll(() => {
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' })
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  for (const authority of ['ca', 'stranger'])
    openssl(
      'req',
      '-x509',
      ...ec,
      '-keyout',
      `${authority}.key`,
      '-out',
      `${authority}.pem`,
      '-days',
      '2',
      '-subj',
      `/CN=${authority}`,
    )
  writeFileSync(file('server.ext'), 'subjectAltName=DNS:localhost\n')
  openssl('req', ...ec, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=server')
  openssl(
    'x509',
    '-req',
    '-in',
    'server.csr',
    '-CA',
    'ca.pem',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    'server.ext',
    '-out',
    'server.pem',
  )
})
afterAll(async () => {
  for (const server of servers) await new Promise<void>((resolve) => server.close(resolve))
  rmSync(folder, { recursive: true, force: true })
})

const USER = 'releve:right%20%26%20proper'
const body = JSON.stringify({ type: 'invoice.paid', timestamp: '', data: { number: 'FA-1' } })
const mail = { to: 'anna@example.com', language: 'fr', id: 'evt_1', body } as const
function mailer(url: string, authority: string | null = 'ca'): Mailer {
  const caFile = authority === null ? undefined : file(`${authority}.pem`)
  return openMailer({ url, from: 'Releve <releve@example.com>', caFile, timeoutMs: 5_000 })
}

test('implicit TLS and STARTTLS, with user and password => delivered, and everything after the greeting is encrypted', async () => {
  const implicit = await serve({ secure: true })
  const explicit = await serve({})
  for (const url of [
    `smtps://${USER}@localhost:${implicit}`,
    `smtp://${USER}@localhost:${explicit}`,
    `smtp://localhost:${await serve({ authOptional: true })}`,
  ]) {
    const before = mails.length
    expect(await mailer(url).send(mail), url).toEqual({ outcome: 'delivered' })
    expect(mails.slice(before), url).toMatchObject([{ secure: true, raw: expect.stringContaining('FA-1') }])
  }
  expect(logins.every(({ secure }) => secure)).toBe(true)
})

test('a wrong password, an authority nobody knows, another name, no TLS => each says what is wrong, and no password went in the clear', async () => {
  const implicit = await serve({ secure: true })
  const explicit = await serve({})
  const plain = await serve({ disabledCommands: ['STARTTLS'] })
  const known = logins.length
  for (const [url, authority, why] of [
    [
      `smtps://releve:wrong@localhost:${implicit}`,
      'ca',
      /^the SMTP server localhost refuses user or password of RELEVE_SMTP_URL: .*535/,
    ],
    [
      `smtp://releve:wrong@localhost:${explicit}`,
      'ca',
      /^the SMTP server localhost refuses user or password of RELEVE_SMTP_URL: .*535/,
    ],
    [
      `smtps://${USER}@localhost:${implicit}`,
      null,
      /^the certificate of the SMTP server localhost is not trusted \(RELEVE_SMTP_CA_FILE/,
    ],
    [
      `smtp://${USER}@localhost:${explicit}`,
      'stranger',
      /^the certificate of the SMTP server localhost is not trusted \(RELEVE_SMTP_CA_FILE/,
    ],
    [`smtp://${USER}@127.0.0.1:${explicit}`, 'ca', /^the certificate of the SMTP server 127.0.0.1 is not trusted/],
    [
      `smtp://${USER}@localhost:${plain}`,
      'ca',
      /^the SMTP server localhost has no TLS, without which no password is sent/,
    ],
  ] as const) {
    const attempt = await mailer(url, authority).send(mail)
    expect(attempt, url).toMatchObject({ outcome: 'failed', error: expect.stringMatching(why) })
    expect(JSON.stringify(attempt)).not.toContain('proper')
  }
  expect(logins.slice(known)).toEqual([
    { password: 'wrong', secure: true },
    { password: 'wrong', secure: true },
  ])
  expect(() => mailer('smtps://localhost', 'none')).toThrow(
    /^cannot start: RELEVE_SMTP_CA_FILE cannot be read: .*none.pem/,
  )
})

test('through the service: tried again, then a dead letter with the reason, which health tells meanwhile; mended and replayed => delivered', async () => {
  const port = await serve({ secure: true })
  const settings = (password: string) => ({
    RELEVE_SMTP_URL: `smtps://releve:${password}@localhost:${port}`,
    RELEVE_SMTP_FROM: 'releve@example.com',
    RELEVE_SMTP_CA_FILE: file('ca.pem'),
  })
  const t: TestSystem = await openTestSystem({ settings: settings('wrong'), config: { deliveryRetryMs: [20, 60_000] } })
  const call = async <T>(method: 'GET' | 'POST', url: string, payload?: unknown): Promise<T> => {
    const headers = { ...t.admin, 'content-type': 'application/json' }
    return (
      await t.app.inject({
        method,
        url,
        headers,
        ...(payload === undefined ? {} : { payload: JSON.stringify(payload) }),
      })
    ).json() as T
  }
  const { endpoint } = await call<{ endpoint: { id: string } }>('POST', '/v1/email-recipients', {
    tenant: null,
    address: 'anna@example.com',
    events: ['*'],
  })
  await t.system.delivery.emit({ id: 'tls', type: 'invoice.paid', tenant: 'alpha', data: { number: 'FA-7' } })
  const state = async () =>
    (await t.system.engines.postgres.query('SELECT state, attempts, error FROM deliveries')).rows[0]
  while ((await state()).attempts < 2) await sleep(10)
  // The second wait is the second of the list, give or take a fifth; it is kept, so that a restart waits on.
  const { rows } = await t.system.engines.postgres.query('SELECT next_at - changed_at AS wait FROM deliveries')
  expect(Math.round(Number(rows[0].wait) / 12_000)).toBeOneOf([4, 5, 6])
  await t.system.delivery.refresh()
  expect(t.system.health().notes.join('\n')).toMatch(
    new RegExp(
      `1 delivery fails and is tried again, ${endpoint.id}: the SMTP server localhost refuses user or password`,
    ),
  )
  // The last attempt, without the minute that lies before it.
  await t.system.engines.postgres.query('UPDATE deliveries SET next_at = 0')
  await t.reopen()
  let letters: DeadLetter[] = []
  while (letters.length === 0) {
    await sleep(10)
    letters = (await call<{ deadLetters: DeadLetter[] }>('GET', '/v1/webhooks/dead-letters')).deadLetters
  }
  expect(letters).toMatchObject([
    { attempts: 3, channel: 'email', error: expect.stringContaining('refuses user or password') },
  ])
  accepted = 'wrong'
  const before = mails.length
  expect(await call('POST', '/v1/webhooks/dead-letters/replay', { endpoint: endpoint.id })).toEqual({ replayed: 1 })
  while (mails.length === before) await sleep(10)
  expect(mails.at(-1)!.raw).toContain('FA-7')
  while ((await state()).state !== 'delivered') await sleep(10)
  await t.system.delivery.refresh()
  expect(t.system.health().notes).toEqual([])
})
