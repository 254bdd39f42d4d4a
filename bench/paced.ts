/**
 * Requests at an even rate over plain sockets, whatever becomes of the answers: each millisecond sends those that are due, on
 * connections that are free. A request's time runs from that moment, so that waiting for a free connection is in it; and so is every
 * delay of this process itself, which is why a bench sends the same to something empty beside it. autocannon has no such mode: its
 * rate is a second's requests one after the other as fast as they go, and then a pause.
 */
import { connect, type Socket } from 'node:net'

export interface Asked {
  readonly method: 'GET' | 'POST'
  readonly path: string
  /** JSON. */
  readonly body?: string
  /** Told of the answer. */
  readonly onAnswer?: (status: number, body: () => string) => void
}

export interface Paced {
  /** What each took, ms, in the order of the answers. */
  readonly times: Float64Array
  /** Answers that are not 2xx. */
  readonly refused: number
  /** Not sent because too many waited for a connection. */
  readonly dropped: number
  readonly seconds: number
}

interface Connection {
  readonly socket: Socket
  asked: Asked | undefined
  due: number
  answer: Buffer | undefined
}

/** Requests that wait for a connection; beyond it the service does not keep up, and a longer queue says nothing more. */
const WAITING_MAX = 20_000

export async function sendPaced(options: {
  readonly url: string
  readonly key?: string
  readonly rate: number
  readonly seconds: number
  readonly connections: number
  /** The next request; undefined: there is none now. */
  readonly next: () => Asked | undefined
}): Promise<Paced> {
  const { hostname, port, host } = new URL(options.url)
  const authorization = options.key === undefined ? '' : `authorization: Bearer ${options.key}\r\n`
  const times = new Float64Array(Math.ceil(options.rate * options.seconds))
  const free: Connection[] = []
  const waiting: { asked: Asked; due: number }[] = []
  let [answered, refused, dropped, open] = [0, 0, 0, 0]
  let onIdle = (): void => {}

  const send = (connection: Connection, asked: Asked, due: number): void => {
    connection.asked = asked
    connection.due = due
    open += 1
    const { method, path, body } = asked
    const head = `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\n${authorization}`
    connection.socket.write(
      body === undefined
        ? `${head}\r\n`
        : `${head}content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      'latin1',
    )
  }
  const onData = (connection: Connection, part: Buffer): void => {
    const bytes = connection.answer === undefined ? part : Buffer.concat([connection.answer, part])
    const end = bytes.indexOf('\r\n\r\n')
    const length = end < 0 ? -1 : Number(/content-length: (\d+)/i.exec(bytes.toString('latin1', 0, end))?.[1] ?? 0)
    if (length < 0 || bytes.length < end + 4 + length) {
      connection.answer = bytes
      return
    }
    const { asked, due } = connection
    connection.answer = undefined
    connection.asked = undefined
    open -= 1
    times[answered] = performance.now() - due
    answered += 1
    const status = Number(bytes.toString('latin1', 9, 12))
    if (status < 200 || status > 299) refused += 1
    asked!.onAnswer?.(status, () => bytes.toString('utf8', end + 4))
    const first = waiting.shift()
    if (first !== undefined) send(connection, first.asked, first.due)
    else free.push(connection)
    if (open === 0) onIdle()
  }
  await Promise.all(
    Array.from(
      { length: options.connections },
      () =>
        new Promise<void>((resolve, reject) => {
          const socket = connect(Number(port), hostname, resolve)
          socket.setNoDelay(true)
          const connection: Connection = { socket, asked: undefined, due: 0, answer: undefined }
          free.push(connection)
          socket.on('data', (part) => onData(connection, part))
          socket.on('error', reject)
        }),
    ),
  )
  const started = performance.now()
  await new Promise<void>((resolve) => {
    let due = 0
    const tick = (): void => {
      const now = performance.now()
      const end = Math.min(times.length, Math.floor(((now - started) * options.rate) / 1000))
      for (; due < end; due += 1) {
        const asked = options.next()
        if (asked === undefined) continue
        // The oldest first: each connection is used.
        const connection = free.shift()
        if (connection !== undefined) send(connection, asked, now)
        else if (waiting.length < WAITING_MAX) waiting.push({ asked, due: now })
        else dropped += 1
      }
      if (due < times.length) setTimeout(tick, 1)
      else resolve()
    }
    tick()
  })
  const seconds = (performance.now() - started) / 1000
  if (open > 0) await new Promise<void>((resolve) => (onIdle = resolve))
  for (const { socket } of free) socket.destroy()
  return { times: times.subarray(0, answered), refused, dropped, seconds }
}
