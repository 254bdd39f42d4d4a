/**
 * The JetStream stream of usage.in.> and its one consumer: created, or checked, when the door connects. The stream is a queue: a
 * message stays until releve has it in its log and says so. When it is full the server refuses publishers; nothing is dropped.
 *
 * `pull` is the road from it into the log. Pulls are bounded in bytes, and a few are under way at once. A message is acknowledged
 * after its batch is on disk, or after it is kept as a refusal when nobody can read it; what cannot be taken now comes again. A
 * message that comes twice costs a duplicate. A tenant that is beyond its rates waits (turns.ts).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import {
  AckPolicy,
  DeliverPolicy,
  DiscardPolicy,
  type JetStreamManager,
  type NatsConnection,
  NatsError,
  nanos,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from 'nats'
import { limits } from '../limits.js'
import type { System } from '../system.js'
import { ingestMessage, isHopeless } from './message.js'
import { openPuller, type Puller, type StreamMessage } from './pull.js'
import { IN, STREAM_SUBJECTS, tenantOf } from './subjects.js'
import { Turns } from './turns.js'

const DURABLE = 'releve'
/** Headers count as part of a message. */
const HEADERS_MAX = 16 * 1024

/** Wrong in a way that only an operator can mend. */
export class StreamMisfit extends Error {}

async function orMissing<T>(question: Promise<T>): Promise<T | undefined> {
  try {
    return await question
  } catch (error) {
    if (error instanceof NatsError && error.jsError()?.code === 404) return undefined
    throw error
  }
}

/** Names what a stream that is there has otherwise than the door needs. */
function misfits(found: StreamConfig): string[] {
  const wrong: string[] = []
  if (!found.subjects?.includes(STREAM_SUBJECTS) || found.subjects.length !== 1)
    wrong.push(`subjects ${found.subjects}`)
  if (found.storage !== StorageType.File) wrong.push(`storage ${found.storage}`)
  if (found.retention !== RetentionPolicy.Workqueue) wrong.push(`retention ${found.retention}`)
  if (found.discard !== DiscardPolicy.New) wrong.push(`discard ${found.discard}`)
  if (found.max_age !== 0) wrong.push(`max_age ${found.max_age}`)
  const { max_msg_size: largest = -1 } = found
  if (largest < limits.natsMessageBytesMax || largest > limits.natsPullBytesMax) wrong.push(`max_msg_size ${largest}`)
  return wrong
}

/** What is wrong with the stream of this name; undefined when there is none. */
export async function findMisfits(connection: NatsConnection, name: string): Promise<string[] | undefined> {
  const manager = await connection.jetstreamManager({ timeout: limits.natsTimeoutMs })
  const there = await orMissing(manager.streams.info(name))
  return there === undefined ? undefined : misfits(there.config)
}

/** The stream with its consumer, once both are as they must be. */
export interface OpenStream {
  readonly name: string
  readonly connection: NatsConnection
  readonly manager: JetStreamManager
}

/** Creates what is missing, checks what is there. Throws StreamMisfit when a stream of that name is another thing. */
export async function openStream(connection: NatsConnection, name: string, bytesMax: number): Promise<OpenStream> {
  const manager = await connection.jetstreamManager({ timeout: limits.natsTimeoutMs }).catch((error: unknown) => {
    throw new Error(`no JetStream answers (${String(error)}): enable it, or set RELEVE_NATS_JETSTREAM=off`)
  })
  const there = await orMissing(manager.streams.info(name))
  if (there === undefined) {
    await manager.streams.add({
      name,
      subjects: [STREAM_SUBJECTS],
      storage: StorageType.File,
      retention: RetentionPolicy.Workqueue,
      discard: DiscardPolicy.New,
      max_bytes: bytesMax,
      max_msg_size: limits.natsMessageBytesMax + HEADERS_MAX,
    })
  } else {
    const wrong = misfits(there.config)
    if (wrong.length > 0) {
      throw new StreamMisfit(
        `stream ${name} has ${wrong.join(', ')}: it must be a file work queue over ${STREAM_SUBJECTS} that discards new messages, without an age`,
      )
    }
  }
  const settings = {
    ack_wait: nanos(limits.natsAckWaitMs),
    max_ack_pending: limits.natsAckPendingMax,
  }
  const open = { name, manager, connection }
  const known = await orMissing(manager.consumers.info(name, DURABLE))
  if (known !== undefined) {
    const { config } = known
    if (config.ack_policy !== AckPolicy.Explicit || config.deliver_subject || (config.max_deliver ?? -1) > 0) {
      throw new StreamMisfit(
        `consumer ${DURABLE} of ${name} must be a pull consumer with explicit acknowledgement and no limit of deliveries`,
      )
    }
    if ((await forgotten(open)) === 0) {
      await manager.consumers.update(name, DURABLE, settings)
      return open
    }
    // Delivered again from the first: what is in the log already is a duplicate there, and then leaves the stream.
    await manager.consumers.delete(name, DURABLE)
  }
  await manager.consumers.add(name, {
    durable_name: DURABLE,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    ...settings,
  })
  return open
}

/**
 * Messages that lie in the stream and will not come any more. Seen with nats-server 2.9.10: after SIGKILL the consumer knows of
 * acknowledgements whose messages are still there, and they would stay until the stream is full.
 */
async function forgotten({ manager, name }: OpenStream): Promise<number> {
  // In this order: what is published in between is waiting for the consumer and makes the number too small, never too large.
  const { state } = await manager.streams.info(name)
  const { num_pending, num_ack_pending } = await manager.consumers.info(name, DURABLE)
  return Math.max(0, state.messages - num_pending - num_ack_pending)
}

/** Takes one message to its end. Never throws. */
async function take(system: System, turns: Turns, { message, sequence, ack, again }: StreamMessage): Promise<void> {
  const { metrics, logger, clock } = system
  const outcome = (name: string): void => metrics.natsMessages.inc({ via: 'stream', outcome: name })
  const subjectTenant = tenantOf(message.subject, IN)
  const tenant = subjectTenant ?? ''
  try {
    try {
      if (subjectTenant === null) throw new NoTenant(`the subject ${message.subject} names no tenant`)
      const { headers, data } = message
      const turn = turns.of(tenant, sequence, data.length, clock.now())
      metrics.natsWaiting.set(turns.size)
      if (typeof turn === 'number') {
        outcome('later')
        again(turn)
        return
      }
      const { received } = await ingestMessage(system, { tenant, headers, data, wait: false })
      turns.took(tenant, turn, { bytes: data.length, events: received }, clock.now())
      outcome(turn.isBeyond ? 'beyond_rate' : 'taken')
    } catch (error) {
      if (!(error instanceof NoTenant) && !isHopeless(error)) throw error
      await system.refuseBody({
        tenant,
        message: `message ${sequence} on ${message.subject}: ${error.message}`,
        body: message.data,
      })
      outcome('refused')
    }
    ack()
  } catch (error) {
    outcome('again')
    logger.warn({ sequence, error: String(error) }, 'a NATS message is taken again later')
    again(limits.natsRetryMs)
  }
}

class NoTenant extends Error {}

/** Pulls until `stopped` or until the connection should be given up, which it says by rejecting. */
export async function pull(
  system: System,
  stream: OpenStream,
  control: {
    readonly stopped: () => boolean
    readonly onPull: (stop: () => void) => void
    /** Silence after which the server is asked whether anything waits. */
    readonly stallMs: number
    /** Told now and then: undefined when there is room. */
    readonly onFullness: (warning: string | undefined) => void
  },
): Promise<void> {
  const pullers = Array.from({ length: limits.natsPullsMax }, () => openPuller(stream.connection, stream.name, DURABLE))
  const stop = (): void => {
    for (const puller of pullers) puller.stop()
  }
  control.onPull(stop)
  const turns = new Turns(system.rates)
  let isEnded = false
  let silentSince = performance.now()
  let lookedAt = Number.NEGATIVE_INFINITY
  const look = async (): Promise<void> => {
    if (performance.now() - lookedAt > limits.natsStreamLookMs) {
      lookedAt = performance.now()
      const { config, state } = await stream.manager.streams.info(stream.name)
      system.metrics.natsStreamBytes.set(state.bytes)
      const percent = config.max_bytes > 0 ? Math.floor((100 * state.bytes) / config.max_bytes) : 0
      control.onFullness(
        percent < limits.natsStreamWarnPercent
          ? undefined
          : `the stream ${stream.name} is ${percent} % full; when it is full, publishers are refused, and those over MQTT are not told`,
      )
    }
  }
  const lane = async (puller: Puller): Promise<void> => {
    while (!isEnded && !control.stopped()) {
      await look()
      const asked = performance.now()
      const count = await puller.next((message) => take(system, turns, message))
      if (count > 0) silentSince = performance.now()
      else if (isEnded || control.stopped()) return
      else if (performance.now() - silentSince > control.stallMs) {
        silentSince = performance.now()
        const { num_pending: waiting } = await stream.manager.consumers.info(stream.name, DURABLE)
        if (waiting > 0) throw new Error(`nothing came for ${control.stallMs} ms though ${waiting} messages wait`)
        if ((await forgotten(stream)) > 0) throw new Error('messages lie in the stream that the consumer has forgotten')
      } else if (performance.now() - asked < limits.natsPullPauseMs) await sleep(limits.natsPullPauseMs)
    }
  }
  try {
    await Promise.all(pullers.map(lane))
  } finally {
    isEnded = true
    stop()
  }
}
