/** Which addresses a webhook may reach: what the text of a URL tells, and what its name stands for at the moment of connecting. */

import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, isIP } from 'node:net'
import { expect, test } from 'vitest'
import { type AddressGuard, openAddressGuard } from '../../src/delivery/address.js'
import { postWebhook, retryAfterMs } from '../../src/delivery/webhook.js'

const refused = (url: string, allowed: string[] = []): boolean => {
  try {
    openAddressGuard(allowed).check(new URL(url))
    return false
  } catch {
    return true
  }
}

test('literal addresses: public ones pass, every private, local, mapped or reserved one is refused, a range that is allowed passes', () => {
  for (const host of ['8.8.8.8', '1.1.1.1', '172.32.0.1', '11.0.0.1', '[2606:4700::1111]', '[2a00:1450::1]'])
    expect(refused(`https://${host}/`), host).toBe(false)
  const bad =
    '0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.168.1.1 198.18.0.1 224.0.0.1 ' +
    '240.0.0.1 255.255.255.255 2130706433 0x7f000001 017700000001 127.1 [::] [::1] [fe80::1] [fc00::1] [fd12::1] [ff02::1] [::ffff:127.0.0.1] ' +
    '[::ffff:7f00:1] [64:ff9b::7f00:1] [2002:7f00:1::] [2001::1] [2001:db8::1]'
  for (const host of bad.split(' ')) expect(refused(`https://${host}/`), host).toBe(true)
  expect(refused('http://10.1.2.3/', ['10.0.0.0/8'])).toBe(false)
  expect(refused('http://8.8.8.8/', ['10.0.0.0/8'])).toBe(true)
  expect(refused('https://[fd12::1]/', ['fd00::/8'])).toBe(false)
})

test('a name that stands for a private address at the moment of connecting => no byte reaches it', async () => {
  let connections = 0
  const server = createServer((_, response) => response.end())
  server.on('connection', () => (connections += 1))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const post = (allowed: string[]) =>
    postWebhook({
      url: `http://localhost:${(server.address() as AddressInfo).port}/`,
      message: { id: 'm', timestamp: 1, body: '{}' },
      secrets: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
      guard: openAddressGuard(allowed),
      timeoutMs: 10_000,
      userAgent: 'test',
      stop: new AbortController().signal,
    })
  expect(await post([])).toMatchObject({ outcome: 'failed', error: expect.stringContaining('not a public address') })
  expect(connections).toBe(0)
  expect(await post(['127.0.0.0/8', '::1/128'])).toEqual({ outcome: 'delivered' })
  server.close()
})

test('a name that changes its mind between the check and the connection, or has one bad address among good ones => no byte reaches it', async () => {
  let connections = 0
  const server = createServer((_, response) => response.end())
  server.on('connection', () => (connections += 1))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  /** The answers of a name server, one after the other; the last one stays. */
  const rebinding = (...answers: string[][]) => {
    const asked: string[] = []
    const guard = (allowed: string[]) =>
      openAddressGuard(allowed, (hostname, _, callback) => {
        const answer = answers[Math.min(asked.length, answers.length - 1)]!
        asked.push(hostname)
        callback(
          null,
          answer.map((address) => ({ address, family: isIP(address) })),
        )
      })
    return { asked, guard }
  }
  const post = (guard: AddressGuard, scheme: string) =>
    postWebhook({
      url: `${scheme}://rebind.example:${port}/`,
      message: { id: 'm', timestamp: 1, body: '{}' },
      secrets: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
      guard,
      timeoutMs: 10_000,
      userAgent: 'test',
      stop: new AbortController().signal,
    })
  // Public when the endpoint is made, our own network when it is used.
  const turned = rebinding(['8.8.8.8'], ['127.0.0.1'])
  const guard = turned.guard([])
  await guard.checkResolved(new URL(`https://rebind.example:${port}/`))
  expect(await post(guard, 'https')).toMatchObject({
    outcome: 'failed',
    error: expect.stringContaining('rebind.example is not a public address'),
  })
  for (const answer of [
    ['8.8.8.8', '127.0.0.1'],
    ['2606:4700::1111', '::1'],
    ['::ffff:127.0.0.1'],
    ['169.254.169.254'],
  ])
    expect((await post(rebinding(answer).guard([]), 'https')).outcome, answer.join()).toBe('failed')
  expect(connections).toBe(0)
  // One question an attempt: the address that was judged is the one that is connected to, and a second answer is never asked for.
  const pinned = rebinding(['127.0.0.1'], ['127.0.0.2'])
  expect(await post(pinned.guard(['127.0.0.1/32']), 'http')).toEqual({ outcome: 'delivered' })
  expect(pinned.asked).toEqual(['rebind.example'])
  expect(connections).toBe(1)
  server.close()
})

test('a receiver that takes the message and never answers => given up after the time there is', async () => {
  const server = createServer(() => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const attempt = await postWebhook({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    message: { id: 'm', timestamp: 1, body: '{}' },
    secrets: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
    guard: openAddressGuard(['127.0.0.0/8']),
    timeoutMs: 50,
    userAgent: 'test',
    stop: new AbortController().signal,
  })
  expect(attempt).toEqual({ outcome: 'failed', error: 'no answer within 50 ms' })
  server.closeAllConnections()
  server.close()
})

test('Retry-After in seconds or as a date; nonsense is none', () => {
  expect(retryAfterMs('120', 0)).toBe(120_000)
  expect(retryAfterMs('Thu, 01 Jan 1970 00:01:00 GMT', 10_000)).toBe(50_000)
  expect(retryAfterMs('Thu, 01 Jan 1970 00:00:00 GMT', 10_000)).toBe(0)
  for (const text of [undefined, 'soon', '-1', '']) expect(retryAfterMs(text, 0), text).toBeUndefined()
})
