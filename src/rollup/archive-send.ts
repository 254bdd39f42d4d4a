/**
 * Archive send: a chunk of usage_events from rows to ClickHouse's answer, all of it in the archive's own thread (archive-pool.ts), so
 * that none of its bytes passes through the main thread's heap. The rows come in memory that all threads see, or as copies.
 *
 * It sends once and says what became of it: everything else is a doubt that flow.ts resolves, which tries again under the same token
 * and counts. An insert that was not answered with 200 to its end, within the time limit, has failed, whatever has landed of it.
 *
 * Memory: what archive-columns.ts keeps, and the block that is on its way; the next one is made when the socket has room.
 */
import { once } from 'node:events'
import { type ClientRequest, type IncomingMessage, request as plainRequest } from 'node:http'
import { request as tlsRequest } from 'node:https'
import type { ClickHouseHttp } from '../engines/engines.js'
import { limits } from '../limits.js'
import { type ArchiveRows, archiveColumns } from './archive-columns.js'
import { insertSettings } from './insert-settings.js'

export interface ArchiveInsert extends ArchiveRows {
  readonly token: string
  readonly http: ClickHouseHttp
  /** Milliseconds until it has failed. @default limits.insertTimeoutMs */
  readonly timeoutMs?: number
}

/** Bytes of an answer that are kept: an error says at its beginning what it is. */
const ANSWER_BYTES_MAX = 2_000

/** Resolves when ClickHouse has answered that all rows are in the table. */
export async function sendArchive(insert: ArchiveInsert): Promise<void> {
  // Sorted before a connection is there: its time limit is ClickHouse's.
  const columns = archiveColumns(insert)
  const format = columns === null ? 'RowBinary' : 'Native'
  const { http, token, timeoutMs = limits.insertTimeoutMs } = insert
  const url = new URL(`${http.url}/`)
  url.search = new URLSearchParams({
    ...http.settings,
    ...insertSettings(token),
    database: http.database,
    query: `INSERT INTO usage_events FORMAT ${format}`,
  }).toString()
  const request = (url.protocol === 'https:' ? tlsRequest : plainRequest)(url, {
    method: 'POST',
    // One a second at most: a connection that was kept may just be closed by the server.
    agent: false,
    headers: {
      'x-clickhouse-user': http.user,
      'x-clickhouse-key': http.password,
      'content-type': 'application/octet-stream',
      'user-agent': 'releve',
    },
  })
  const timer = setTimeout(() => request.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)
  try {
    const answer = answerOf(request)
    // The body may break off because of an answer, and that one says why.
    const [said, isWhole] = await Promise.all([answer, write(request, columns ?? insert.pieces, answer)])
    if (said.status !== 200) throw new Error(`ClickHouse answers ${said.status}: ${said.text}`)
    if (!isWhole) throw new Error('ClickHouse has answered before it had all rows')
  } finally {
    clearTimeout(timer)
    request.destroy()
  }
}

/** Whether all of it was written; an answer, or its failure, ends it early. */
async function write(request: ClientRequest, blocks: Iterable<Uint8Array>, answer: Promise<unknown>): Promise<boolean> {
  let isAnswered = false
  const answered = answer.then(
    () => (isAnswered = true),
    () => (isAnswered = true),
  )
  for (const block of blocks) {
    if (isAnswered) return false
    if (!request.write(block)) await Promise.race([once(request, 'drain').catch(() => {}), answered])
  }
  if (isAnswered) return false
  request.end()
  return true
}

/** The whole answer. Rejects when the connection fails or ends before it is complete. */
function answerOf(request: ClientRequest): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    request.on('error', reject)
    request.on('close', () => reject(new Error('the connection was closed before the answer was complete')))
    request.on('response', (response: IncomingMessage) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        if (text.length < ANSWER_BYTES_MAX) text += part.slice(0, ANSWER_BYTES_MAX)
      })
      response.on('error', reject)
      response.on('end', () => {
        // An error that came up behind the head of a 200 is told in another header, or as text where nothing should be.
        const code = response.headers['x-clickhouse-exception-code']
        const isRight = response.statusCode === 200 && code === undefined && text === ''
        if (response.statusCode === 200 && !isRight) reject(new Error(`ClickHouse answers ${code ?? ''}: ${text}`))
        else resolve({ status: response.statusCode ?? 0, text })
      })
    })
  })
}
