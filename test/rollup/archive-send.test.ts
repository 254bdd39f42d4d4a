/**
 * The sending of a chunk as the archive's thread does it, against servers that misbehave. What it must never do is say that rows have
 * landed when that is not known: flow.ts counts after every failure, and after none of its successes.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { archiveColumns } from '../../src/rollup/archive-columns.js'
import { sendArchive } from '../../src/rollup/archive-send.js'
import { RowBinary } from '../../src/rollup/row-binary.js'

const servers: Server[] = []

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

/** Rows of about 200 bytes, in memory that all threads see. */
function rowsOf(count: number): { rows: number; pieces: Uint8Array[] } {
  const to = new RowBinary()
  for (let i = 0; i < count; i += 1) {
    for (const text of ['acme', 'gw', `${'i'.repeat(120)}${i}`, 'data']) to.string(text)
    to.u32(1)
    to.string('subject')
    to.i64(1_774_000_000_000 + i)
    to.decimal(1n)
    to.string('{}')
    to.string('')
    to.i8(1)
    to.i64(1_774_000_000_000)
    to.i64(i)
    to.u16(1)
    to.i64(7)
    to.u16(0)
  }
  const bytes = to.take()
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length))
  shared.set(bytes)
  return { rows: count, pieces: [shared] }
}

type Behaviour = (request: IncomingMessage, response: ServerResponse) => void

async function send(behaviour: Behaviour, rows = rowsOf(10), timeoutMs = 30_000): Promise<void> {
  const server = createServer(behaviour)
  servers.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const http = {
    url: `http://127.0.0.1:${port}`,
    user: 'me',
    password: 'p/w',
    database: 'usage',
    settings: { async_insert: '0', max_execution_time: '30' },
  }
  await sendArchive({ ...rows, token: '1/7/usage_events/0', http, timeoutMs })
}

/** More than sockets hold, so that the sender is in the middle of its body. */
const MANY = 300_000

test('an answer of 200 => all blocks came, under the token, with every setting of an insert', async () => {
  const rows = rowsOf(70_000)
  const parts: Buffer[] = []
  let url = ''
  let headers: IncomingMessage['headers'] = {}
  await send((request, response) => {
    url = request.url!
    headers = request.headers
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => response.end())
  }, rows)
  const expected = [...archiveColumns(rows)!]
  expect(expected.length).toBeGreaterThan(1)
  expect(Buffer.concat(parts).equals(Buffer.concat(expected))).toBe(true)
  expect(Object.fromEntries(new URL(url, 'http://x').searchParams)).toMatchObject({
    query: 'INSERT INTO usage_events FORMAT Native',
    database: 'usage',
    insert_deduplication_token: '1/7/usage_events/0',
    insert_deduplicate: '1',
    async_insert: '0',
    max_execution_time: '30',
    max_insert_block_size: '2000000',
    min_insert_block_size_rows: '2000000',
    input_format_parallel_parsing: '0',
  })
  expect(headers).toMatchObject({ 'x-clickhouse-user': 'me', 'x-clickhouse-key': 'p/w' })
})

test('a refusal, before and behind the body => failed, with what ClickHouse says', async () => {
  const refuse = (response: ServerResponse): void => {
    response.writeHead(500).end('Code: 252. DB::Exception: Too many parts')
  }
  await expect(send((_, response) => refuse(response), rowsOf(10))).rejects.toThrow('500: Code: 252')
  const behind: Behaviour = (request, response) => {
    request.resume()
    request.on('end', () => refuse(response))
  }
  await expect(send(behind)).rejects.toThrow('500: Code: 252')
})

test('a 200 whose insert has failed after its head was sent => failed', async () => {
  const drained = (then: (response: ServerResponse) => void): Behaviour => {
    return (request, response) => {
      request.resume()
      request.on('end', () => then(response))
    }
  }
  const inHeader = drained((response) => response.writeHead(200, { 'x-clickhouse-exception-code': '241' }).end())
  await expect(send(inHeader)).rejects.toThrow('241')
  const inText = drained((response) => response.end('Code: 241. DB::Exception: Memory limit'))
  await expect(send(inText)).rejects.toThrow('Memory limit')
})

test('a 200 before all rows were read => failed', async () => {
  await expect(send((_, response) => response.end(), rowsOf(MANY))).rejects.toThrow('before it had all rows')
})

test('the connection ends in the body, before the answer, or in it => failed', async () => {
  const inBody: Behaviour = (request) => request.once('data', () => request.destroy())
  await expect(send(inBody, rowsOf(MANY))).rejects.toThrow(/EPIPE|ECONNRESET|socket hang up/)
  const beforeAnswer: Behaviour = (request) => {
    request.resume()
    request.on('end', () => request.socket.destroy())
  }
  await expect(send(beforeAnswer)).rejects.toThrow(/ECONNRESET|socket hang up/)
  const inAnswer: Behaviour = (request, response) => {
    request.resume()
    request.on('end', () => {
      response.writeHead(200, { 'content-length': '100' })
      response.write(' ', () => response.destroy())
    })
  }
  await expect(send(inAnswer)).rejects.toThrow(/aborted|ECONNRESET|closed before/)
})

test('a server that does not read, and one that does not answer => failed when the time is over', async () => {
  await expect(send(() => {}, rowsOf(MANY), 300)).rejects.toThrow('no answer within 300 ms')
  await expect(send((request) => request.resume(), rowsOf(10), 300)).rejects.toThrow('no answer within 300 ms')
})

test('nobody listens => failed', async () => {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  const http = { url: `http://127.0.0.1:${port}`, user: 'me', password: '', database: 'default', settings: {} }
  await expect(sendArchive({ ...rowsOf(10), token: 't', http })).rejects.toThrow('ECONNREFUSED')
})

test('after a failed one the same rows => the same bytes', async () => {
  const rows = rowsOf(1_000)
  const bodies: Buffer[][] = []
  const take: (status: number) => Behaviour = (status) => (request, response) => {
    const body: Buffer[] = []
    bodies.push(body)
    request.on('data', (part: Buffer) => body.push(part))
    request.on('end', () => response.writeHead(status).end())
  }
  await expect(send(take(503), rows)).rejects.toThrow('503')
  await send(take(200), rows)
  expect(Buffer.concat(bodies[1]!).equals(Buffer.concat(bodies[0]!))).toBe(true)
})
