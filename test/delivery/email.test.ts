/** E-mail through a real SMTP conversation on loopback: `smtp-server` is the other side. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { SMTPServer } from 'smtp-server'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DeadLetter } from '../../src/delivery/delivery.js'
import { letterOf } from '../../src/delivery/letter.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

interface Mail {
  readonly from: string
  readonly to: string[]
  readonly raw: string
}

const mails: Mail[] = []
/** How often the next messages are refused for now. */
let busy = 0
let t: TestSystem
let smtp: SMTPServer

beforeAll(async () => {
  smtp = new SMTPServer({
    disabledCommands: ['AUTH', 'STARTTLS'],
    onRcptTo({ address }, _session, done) {
      if (address.startsWith('nobody@')) return done(Object.assign(new Error('no such mailbox'), { responseCode: 550 }))
      if (address.startsWith('busy@') && busy > 0) {
        busy -= 1
        return done(Object.assign(new Error('try later'), { responseCode: 451 }))
      }
      done()
    },
    onData(stream, session, done) {
      let raw = ''
      stream.setEncoding('utf8').on('data', (text: string) => (raw += text))
      stream.on('end', () => {
        // The text is refused for good, not the address.
        if (raw.includes('unwelcome')) return done(Object.assign(new Error('spam'), { responseCode: 554 }))
        const { mailFrom, rcptTo } = session.envelope
        mails.push({ from: mailFrom === false ? '' : mailFrom.address, to: rcptTo.map(({ address }) => address), raw })
        done()
      })
    },
  })
  smtp.listen(0, '127.0.0.1')
  await once(smtp.server, 'listening')
  const { port } = smtp.server.address() as AddressInfo
  t = await openTestSystem({
    settings: { RELEVE_SMTP_URL: `smtp://127.0.0.1:${port}`, RELEVE_SMTP_FROM: 'Releve <releve@example.com>' },
    config: { deliveryRetryMs: [20, 20, 20] },
  })
})
afterAll(async () => {
  await new Promise<void>((resolve) => smtp.close(resolve))
})

async function call<T>(
  method: string,
  url: string,
  body?: unknown,
  headers = t.admin,
): Promise<{ status: number; body: T }> {
  const answer = await t.app.inject({
    method: method as 'GET',
    url,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  })
  return { status: answer.statusCode, body: answer.json() as T }
}

const recipient = (address: string, more: Record<string, unknown> = {}) =>
  call<{ endpoint: { id: string }; detail: string }>('POST', '/v1/email-recipients', {
    tenant: 'alpha',
    address,
    ...more,
  })

async function mailTo(address: string): Promise<Mail> {
  for (;;) {
    const found = mails.find(({ to }) => to.includes(address))
    if (found !== undefined) return found
    await sleep(10)
  }
}

/** The text of a message, decoded by its transfer encoding. */
function textOf({ raw }: Mail): string {
  const [head = '', ...body] = raw.split('\r\n\r\n')
  const text = body.join('\r\n\r\n')
  if (/transfer-encoding: base64/i.test(head)) return Buffer.from(text, 'base64').toString('utf8')
  const bytes = text
    .replaceAll('=\r\n', '')
    .replaceAll(/=([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
  return /transfer-encoding: quoted-printable/i.test(head) ? Buffer.from(bytes, 'latin1').toString('utf8') : text
}

test('a threshold is crossed => each recipient has one message of its own, in French or in English, with the alert’s id in it', async () => {
  await recipient('anna@example.com')
  await recipient('bob@example.com', { language: 'en' })
  await recipient('carl@example.com', { tenant: 'sigma' })
  await recipient('dora@example.com', { metrics: ['users'] })
  await t.send([{ id: 'm1', tenant: 'alpha', metric: 'data', value: '850.5' }])
  const [french, english] = [await mailTo('anna@example.com'), await mailTo('bob@example.com')]
  const { alerts } = (await call<{ alerts: { id: string }[] }>('GET', '/v1/alerts')).body
  expect(french.from).toBe('releve@example.com')
  expect(french.to).toEqual(['anna@example.com'])
  expect(french.raw).toContain(`Message-ID: <${alerts[0]!.id}@example.com>`)
  expect(textOf(french)).toContain('Seuil franchi.')
  expect(textOf(french)).toContain('Consommation\u00a0: 850,5')
  expect(textOf(english)).toContain('Threshold crossed.')
  expect(textOf(english)).toContain('Usage: 850.5')
  expect(mails).toHaveLength(2)
})

test('a server that is busy => tried again; an address that is refused for good => a dead letter at once', async () => {
  busy = 2
  await recipient('busy@example.com', { events: ['contract.moved'] })
  await recipient('nobody@example.com', { events: ['contract.moved'] })
  await t.system.delivery.emit({ id: 'busy', type: 'contract.moved', tenant: 'alpha', data: { text: 'hello' } })
  expect(textOf(await mailTo('busy@example.com'))).toContain('hello')
  expect(busy).toBe(0)
  for (;;) {
    const { deadLetters } = (await call<{ deadLetters: DeadLetter[] }>('GET', '/v1/webhooks/dead-letters')).body
    if (deadLetters.length === 0) {
      await sleep(10)
      continue
    }
    expect(deadLetters).toMatchObject([{ channel: 'email', attempts: 1, message: 'busy' }])
    expect(deadLetters[0]!.error).toContain('550')
    break
  }
})

test('a text that the server refuses for good => a dead letter at once', async () => {
  const { endpoint } = (await recipient('gina@example.com', { events: ['contract.trial_extended'] })).body
  await t.system.delivery.emit({
    id: 'spam',
    type: 'contract.trial_extended',
    tenant: 'alpha',
    data: { text: 'unwelcome' },
  })
  for (;;) {
    const { deadLetters } = (
      await call<{ deadLetters: DeadLetter[] }>('GET', `/v1/webhooks/dead-letters?endpoint=${endpoint.id}`)
    ).body
    if (deadLetters.length === 0) {
      await sleep(10)
      continue
    }
    expect(deadLetters).toMatchObject([{ attempts: 1, message: 'spam', error: expect.stringContaining('554') }])
    break
  }
})

test(`${promises('tenant:isolated')} line ends in names reach no header; what is no address is no recipient`, async () => {
  for (const address of [
    'a@example.com\r\nBcc: evil@example.com',
    'a@example.com,evil@example.com',
    'a b@example.com',
    '<a@example.com>',
    'a@',
    'x',
  ]) {
    expect((await recipient(address)).status, address).toBe(422)
  }
  await recipient('erin@example.com', { events: ['contract.notice_given'] })
  const evil = 'data\r\nBcc: evil@example.com\r\n\r\nforged'
  const data = { kind: 'threshold', tenant: evil, metric: evil, threshold: evil, id: 'x' }
  await t.system.delivery.emit({ id: 'evil\r\nX: y', type: 'contract.notice_given', tenant: 'alpha', data })
  const { raw, to } = await mailTo('erin@example.com')
  expect(to).toEqual(['erin@example.com'])
  expect(raw.slice(0, raw.indexOf('\r\n\r\n'))).not.toMatch(/^(bcc|x):/im)
  const { subject, text } = letterOf({ type: 'alert.triggered', timestamp: '', data }, 'fr')
  expect(subject).not.toMatch(/[\r\n]/)
  expect(text).not.toMatch(/^Bcc/m)
})

test('a test message to a recipient => sent at once, and its outcome is the answer', async () => {
  const answer = await recipient('frank@example.com')
  expect((await call('POST', `/v1/email-recipients/${answer.body.endpoint.id}/test`)).body).toEqual({
    outcome: 'delivered',
  })
  expect(textOf(await mailTo('frank@example.com'))).toContain('releve says hello')
  expect(t.system.health().notes).toEqual([])
})
