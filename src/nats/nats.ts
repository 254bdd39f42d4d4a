/**
 * The NATS door: batches in by request and reply and from a JetStream stream, alerts out. It says nothing of its own: it
 * translates, calls the system, translates back.
 *
 *   usage.req.<tenant>     request and reply: the verdicts, after the log has the batch on disk
 *   usage.in.<tenant>      the stream: the server acknowledges at once, releve takes it when it can
 *   usage.alerts.<tenant>  out
 *
 * A stream answers every request on its subjects itself, with its own acknowledgement and before any verdict: that is why
 * request and reply has a subject of its own. Without a stream (RELEVE_NATS_JETSTREAM=off) usage.in.<tenant> is request and
 * reply as well.
 *
 * States: connecting → running → connecting …, with a reason; `misfit` when a stream or consumer of our name is another thing;
 * closed. Everything that fails ends the connection and begins with a new one; what was not acknowledged comes again. A server
 * that is away never stops the service: health says so, and the other doors take events.
 */
import { readFileSync } from 'node:fs'
import {
  type ConnectionOptions,
  connect,
  type NatsConnection,
  NatsError,
  nkeyAuthenticator,
  type Status,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
} from 'nats'
import type { NatsConfig } from '../config.js'
import { limits } from '../limits.js'
import type { DoorState, System } from '../system.js'
import { openAlertPublisher } from './alerts.js'
import { openRequests } from './requests.js'
import { openStream, pull, StreamMisfit } from './stream.js'
import { IN, REQUEST } from './subjects.js'

export interface NatsDoor {
  state(): DoorState
  /** Ends the pulls, lets what was taken come to its end, answers what was asked, and disconnects. */
  close(): Promise<void>
}

const SLOW =
  'the server cut the connection off without a word, as it does with a slow consumer: raise its max_pending, or see what holds the main thread'

/** Files are read at each connection, so that renewed certificates need no restart. */
export function optionsOf(config: NatsConfig): ConnectionOptions {
  const { protocol, host, username, password } = new URL(config.url)
  const [user, pass] = [decodeURIComponent(username), decodeURIComponent(password)]
  const tls = protocol === 'tls:' || config.caFile !== undefined || config.certificateFile !== undefined
  const authenticator =
    config.nkeyFile !== undefined
      ? nkeyAuthenticator(Buffer.from(readFileSync(config.nkeyFile, 'utf8').trim()))
      : user !== '' && pass !== ''
        ? usernamePasswordAuthenticator(user, pass)
        : user !== ''
          ? tokenAuthenticator(user)
          : undefined
  return {
    servers: host,
    name: 'releve',
    ...(authenticator === undefined ? {} : { authenticator }),
    ...(tls
      ? {
          tls: {
            ...(config.caFile === undefined ? {} : { caFile: config.caFile }),
            ...(config.certificateFile === undefined ? {} : { certFile: config.certificateFile }),
            ...(config.keyFile === undefined ? {} : { keyFile: config.keyFile }),
          },
        }
      : {}),
    timeout: limits.natsTimeoutMs,
    pingInterval: limits.natsTimeoutMs,
    maxPingOut: 2,
    // A lost connection is given up at once and made anew here: one way to begin, whatever went wrong.
    reconnect: false,
  }
}

/** Begins to connect and returns at once. Throws when a file of the configuration cannot be read. */
export function openNatsDoor(system: System, config: NatsConfig): NatsDoor {
  const { logger, metrics } = system
  optionsOf(config)
  let state = 'connecting'
  let reason: string | undefined
  let fullness: string | undefined
  /** The server whose connection ended without an error; what a server does to a slow consumer looks like this. */
  let cutOffBy: string | undefined
  let slow = { times: 0, at: Number.NEGATIVE_INFINITY }
  let closing = false
  let connection: NatsConnection | undefined
  let stopPull: () => void = () => {}
  let wakeWait: () => void = () => {}

  const watch = async (status: AsyncIterable<Status>): Promise<void> => {
    for await (const { type, data } of status) logger.warn({ type, data: String(data) }, 'NATS connection')
  }

  /** One connection, from its beginning to its end. Rejects with what ended it, unless that is `close`. */
  const serve = async (): Promise<void> => {
    const current = await connect(optionsOf(config))
    connection = current
    let alerts: ReturnType<typeof openAlertPublisher> | undefined
    let requests: ReturnType<typeof openRequests> | undefined
    const server = current.info?.server_id
    if (cutOffBy !== undefined && cutOffBy === server) {
      // The same process still runs and lets us in again: it was not its end that ended the connection.
      slow = { times: slow.times + 1, at: performance.now() }
      metrics.natsSlow.inc()
      logger.warn({ times: slow.times }, SLOW)
    }
    cutOffBy = undefined
    let ending = false
    const lost = current.closed().then((error) => {
      if (closing) return
      // A reset socket is no word of the server's.
      if (!ending && !(error instanceof NatsError)) cutOffBy = server
      throw error ?? new Error('the server closed the connection')
    })
    // The race below may end by another reason first.
    lost.catch(() => {})
    void watch(current.status())
    try {
      metrics.natsConnections.inc()
      const stream =
        config.stream === undefined ? undefined : await openStream(current, config.stream, config.streamBytes)
      requests = openRequests(system, current, stream === undefined ? [IN, REQUEST] : [REQUEST])
      await current.flush()
      alerts = openAlertPublisher(system, current)
      state = 'running'
      reason = undefined
      metrics.natsUp.set(1)
      logger.info({ server: current.getServer(), stream: config.stream }, 'the NATS door is open')
      const pulling =
        stream === undefined
          ? new Promise<void>((resolve) => {
              stopPull = resolve
            })
          : pull(system, stream, {
              stopped: () => closing || current.isClosed(),
              onPull: (stop) => {
                stopPull = stop
              },
              onFullness: (now) => {
                if (now !== undefined && now !== fullness) logger.warn({ warning: now }, 'NATS stream')
                fullness = now
              },
              stallMs: config.stallMs,
            }).catch((error: unknown) => {
              if (!current.isClosed()) metrics.natsStalls.inc()
              throw error
            })
      pulling.catch(() => {})
      alerts.done.catch(() => {})
      await Promise.race([pulling, lost, alerts.done.then(() => pulling)])
      await pulling
      for (const subscription of requests.subscriptions) await subscription.drain()
      await requests.idle()
      alerts.stop()
      await alerts.done
      await current.drain()
    } finally {
      ending = !current.isClosed()
      metrics.natsUp.set(0)
      alerts?.stop()
      stopPull()
      await requests?.idle()
      await current.close()
      connection = undefined
    }
  }

  const run = async (): Promise<void> => {
    while (!closing) {
      try {
        await serve()
      } catch (error) {
        state = error instanceof StreamMisfit ? 'misfit' : 'connecting'
        reason = error instanceof Error ? error.message : String(error)
        logger.warn({ reason }, 'the NATS door is away and connects again')
      }
      if (closing) break
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, limits.natsReconnectMs)
        wakeWait = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    state = 'closed'
  }
  const running = run()

  const warnings = (): string[] => [
    ...(fullness === undefined ? [] : [fullness]),
    ...(performance.now() - slow.at > limits.natsSlowToldMs ? [] : [`${SLOW} (${slow.times} since the start)`]),
  ]
  const door: NatsDoor = {
    state: () => {
      const told = warnings()
      return {
        up: state === 'running',
        state,
        ...(reason === undefined ? {} : { reason }),
        ...(told.length === 0 ? {} : { warning: told.join('; ') }),
      }
    },
    async close() {
      closing = true
      stopPull()
      wakeWait()
      const timer = setTimeout(() => void connection?.close(), limits.stopMs / 3)
      await running
      clearTimeout(timer)
    },
  }
  system.addDoor('nats', door.state)
  return door
}
