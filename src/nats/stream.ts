/**
 * The JetStream stream of usage.in.> and its one consumer: created, or checked, when the door connects. The stream is a queue: a
 * message stays until releve has it in its log and says so. When it is full the server refuses publishers; nothing is dropped.
 *
 * `pull` is the road from it into the log. A pull is bounded in bytes. A message is acknowledged after its batch is on disk, or
 * after it is kept as a refusal when nobody can read it; what cannot be taken now comes again. A message that comes twice costs
 * a duplicate.
 */
import {
  AckPolicy,
  type Consumer,
  DeliverPolicy,
  DiscardPolicy,
  type JetStreamManager,
  type JsMsg,
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
import { IN, STREAM_SUBJECTS, tenantOf } from './subjects.js'

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
  if (found.max_msg_size !== -1 && found.max_msg_size < limits.natsMessageBytesMax)
    wrong.push(`max_msg_size ${found.max_msg_size}`)
  return wrong
}

/** Creates what is missing, checks what is there. Throws StreamMisfit when a stream of that name is another thing. */
export async function openStream(
  connection: NatsConnection,
  name: string,
  bytesMax: number,
): Promise<{ consumer: Consumer; manager: JetStreamManager }> {
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
  const known = await orMissing(manager.consumers.info(name, DURABLE))
  if (known === undefined) {
    await manager.consumers.add(name, {
      durable_name: DURABLE,
      ack_policy: AckPolicy.Explicit,
      deliver_policy: DeliverPolicy.All,
      ...settings,
    })
  } else {
    const { config } = known
    if (config.ack_policy !== AckPolicy.Explicit || config.deliver_subject || (config.max_deliver ?? -1) > 0) {
      throw new StreamMisfit(
        `consumer ${DURABLE} of ${name} must be a pull consumer with explicit acknowledgement and no limit of deliveries`,
      )
    }
    await manager.consumers.update(name, DURABLE, settings)
  }
  const consumer = await connection.jetstream({ timeout: limits.natsTimeoutMs }).consumers.get(name, DURABLE)
  return { consumer, manager }
}

/** Takes one message to its end. Never throws. */
async function take(system: System, message: JsMsg): Promise<void> {
  const { metrics, logger } = system
  const outcome = (name: string): void => metrics.natsMessages.inc({ via: 'stream', outcome: name })
  const subjectTenant = tenantOf(message.subject, IN)
  const tenant = subjectTenant ?? ''
  try {
    try {
      if (subjectTenant === null) throw new NoTenant(`the subject ${message.subject} names no tenant`)
      const { headers, data } = message
      await ingestMessage(system, { tenant, headers, data, wait: false })
      outcome('taken')
    } catch (error) {
      if (!(error instanceof NoTenant) && !isHopeless(error)) throw error
      await system.refuseBody({
        tenant,
        message: `message ${message.seq} on ${message.subject}: ${error.message}`,
        body: message.data,
      })
      outcome('refused')
    }
    message.ack()
  } catch (error) {
    outcome('again')
    logger.warn({ sequence: message.seq, error: String(error) }, 'a NATS message is taken again later')
    try {
      message.nak(limits.natsRetryMs)
    } catch {
      // Without a connection the server delivers it again by itself.
    }
  }
}

class NoTenant extends Error {}

/** Pulls until `stopped` or until the connection should be given up, which it says by rejecting. */
export async function pull(
  system: System,
  consumer: Consumer,
  control: { readonly stopped: () => boolean; readonly onPull: (stop: () => void) => void },
): Promise<void> {
  let silentSince = performance.now()
  while (!control.stopped()) {
    const messages = await consumer.fetch({ max_bytes: limits.natsPullBytesMax, expires: limits.natsPullMs })
    control.onPull(() => messages.stop())
    // A pull that neither ends nor fails is what a stall looks like from here.
    let hangs = false
    const watchdog = setTimeout(() => {
      hangs = true
      messages.stop()
    }, limits.natsPullMs + limits.natsStallMs)
    const open = new Set<Promise<void>>()
    let count = 0
    try {
      for await (const message of messages) {
        count += 1
        const done = take(system, message)
        open.add(done)
        void done.finally(() => open.delete(done))
      }
    } finally {
      clearTimeout(watchdog)
      await Promise.all(open)
    }
    if (hangs) throw new Error('a pull did not end')
    if (count > 0) silentSince = performance.now()
    else if (performance.now() - silentSince > limits.natsStallMs && !control.stopped()) {
      const { num_pending: waiting } = await consumer.info()
      if (waiting > 0) throw new Error(`nothing came for ${limits.natsStallMs} ms though ${waiting} messages wait`)
      silentSince = performance.now()
    }
  }
}
