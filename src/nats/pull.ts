/**
 * Pulls: messages of a JetStream consumer, asked for in bounded batches. One request at a time, bounded in messages and in bytes;
 * it ends when it is filled, when the server says so, or when its time is over, and the next one waits until every message of it
 * has come to its end. So what is in memory is one pull, and a message that comes while a request waits is delivered at once.
 *
 * Spoken over the connection itself. The client's two ways were measured first: Consumer.fetch bounds messages or bytes but not
 * both, and bounded in bytes took 20 messages a second; the older one drops what has arrived when the server ends a request.
 */
import { createInbox, type Msg, type NatsConnection, nanos } from 'nats'
import { limits } from '../limits.js'

/** A message of the stream. Exactly one of `ack` and `again` ends it; neither throws. */
export interface StreamMessage {
  readonly message: Msg
  /** Its place in the stream. */
  readonly sequence: number
  ack(): void
  /** Delivered again after so many milliseconds. */
  again(afterMs: number): void
}

const HEARTBEAT = 100
const NO_RESPONDERS = 503
const BAD_REQUEST = 400

/** $JS.ACK.[domain.account.]stream.consumer.deliveries.sequence… */
function sequenceOf(reply: string): number {
  const tokens = reply.split('.')
  return Number(tokens.length === 9 ? tokens[5] : tokens[7])
}

function answer(message: Msg, text: string): void {
  try {
    message.respond(text)
  } catch {
    // Without a connection the server delivers it again by itself.
  }
}

export interface Puller {
  /** Makes one request and gives every message to `take`. Resolves with their number when all have come to their end. */
  next(take: (message: StreamMessage) => Promise<void>): Promise<number>
  /** Ends the request that waits; what has arrived still comes to its end. */
  stop(): void
}

export function openPuller(connection: NatsConnection, stream: string, consumer: string): Puller {
  const inbox = createInbox()
  let request = 0
  let onMessage: (message: Msg) => void = () => {}
  let onStatus: (code: number, text: string) => void = () => {}
  let end: () => void = () => {}

  connection.subscribe(`${inbox}.*`, {
    callback: (error, message) => {
      if (error !== null) onStatus(BAD_REQUEST, String(error))
      else if (!message.subject.startsWith(`${inbox}.`)) onMessage(message)
      else if (message.subject === `${inbox}.${request}` && message.headers?.code !== HEARTBEAT) {
        onStatus(message.headers?.code ?? BAD_REQUEST, message.headers?.description ?? 'no reason')
      }
    },
  })

  return {
    async next(take) {
      const open = new Set<Promise<void>>()
      let count = 0
      request += 1
      try {
        await new Promise<void>((resolve, reject) => {
          // A request that neither ends nor fails is what a stall looks like from here. But this process may have stood still, and
          // what the server has sent by now, or that it has hung up, is read first.
          const watchdog = setTimeout(() => {
            const stalled = (): void => reject(new Error('a pull did not end'))
            const late = setTimeout(stalled, limits.natsTimeoutMs)
            end = () => {
              clearTimeout(late)
              resolve()
            }
            connection.flush().then(
              () => {
                clearTimeout(late)
                stalled()
              },
              () => {},
            )
          }, limits.natsPullMs + limits.natsTimeoutMs)
          end = () => {
            clearTimeout(watchdog)
            resolve()
          }
          onMessage = (message) => {
            count += 1
            const done = take({
              message,
              sequence: sequenceOf(message.reply ?? ''),
              ack: () => answer(message, '+ACK'),
              again: (afterMs) => answer(message, `-NAK {"delay":${nanos(afterMs)}}`),
            })
            open.add(done)
            void done.finally(() => open.delete(done))
            if (count === limits.natsPullMessagesMax) end()
          }
          onStatus = (code, text) => {
            if (code !== NO_RESPONDERS && code !== BAD_REQUEST && !text.toLowerCase().includes('deleted')) end()
            else {
              clearTimeout(watchdog)
              reject(new Error(`the server refuses a pull: ${code} ${text}`))
            }
          }
          connection.publish(
            `$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`,
            JSON.stringify({
              batch: limits.natsPullMessagesMax,
              max_bytes: limits.natsPullBytesMax,
              expires: nanos(limits.natsPullMs),
            }),
            { reply: `${inbox}.${request}` },
          )
        })
      } finally {
        // A message that comes between two requests is not lost: without an acknowledgement it is delivered again.
        onMessage = () => {}
        onStatus = () => {}
        end = () => {}
        await Promise.all(open)
      }
      return count
    },
    stop: () => end(),
  }
}
