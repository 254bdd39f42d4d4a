/** Which addresses a webhook may reach: what the text of a URL tells, and what its name stands for at the moment of connecting. */

import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { openAddressGuard } from '../../src/delivery/address.js'
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

test('Retry-After in seconds or as a date; nonsense is none', () => {
  expect(retryAfterMs('120', 0)).toBe(120_000)
  expect(retryAfterMs('Thu, 01 Jan 1970 00:01:00 GMT', 10_000)).toBe(50_000)
  expect(retryAfterMs('Thu, 01 Jan 1970 00:00:00 GMT', 10_000)).toBe(0)
  for (const text of [undefined, 'soon', '-1', '']) expect(retryAfterMs(text, 0), text).toBeUndefined()
})
