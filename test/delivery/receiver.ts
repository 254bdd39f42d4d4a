/** A receiver of webhooks on loopback: keeps what it got, and answers as the test says. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Got {
  readonly path: string
  readonly id: string
  readonly headers: Record<string, string>
  readonly body: string
}

export type Answer = number | { readonly status: number; readonly headers: Record<string, string> } | 'never'

export interface Receiver {
  readonly url: string
  readonly got: Got[]
  /** By path; the answer of every other path is 204. */
  readonly answers: Map<string, (got: Got) => Answer | Promise<Answer>>
  /** Resolves when `count` requests came to the path. */
  has(path: string, count: number): Promise<Got[]>
  close(): Promise<void>
}

export async function openReceiver(): Promise<Receiver> {
  const got: Got[] = []
  const answers = new Map<string, (got: Got) => Answer | Promise<Answer>>()
  let news: (() => void)[] = []
  const receive = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let body = ''
    for await (const part of request.setEncoding('utf8')) body += part
    const headers = request.headers as Record<string, string>
    const one: Got = { path: request.url ?? '', id: headers['webhook-id'] ?? '', headers, body }
    got.push(one)
    for (const tell of news) tell()
    news = []
    const answer = (await answers.get(one.path)?.(one)) ?? 204
    if (answer === 'never') return
    if (typeof answer === 'number') response.writeHead(answer)
    else response.writeHead(answer.status, answer.headers)
    response.end()
  }
  const server = createServer((request, response) => void receive(request, response).catch(() => response.destroy()))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    got,
    answers,
    async has(path, count) {
      for (;;) {
        const here = got.filter((one) => one.path === path)
        if (here.length >= count) return here
        await new Promise<void>((resolve) => news.push(resolve))
      }
    },
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
