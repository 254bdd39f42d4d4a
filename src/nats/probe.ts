/** Whether the NATS server lets releve in and has what the door needs. For the doctor: it looks, and makes nothing. */
import { connect } from 'nats'
import type { NatsConfig } from '../config.js'
import { optionsOf } from './nats.js'
import { findMisfits } from './stream.js'

/** What is there. Throws with the reason when the door could not open. */
export async function probeNats(config: NatsConfig): Promise<string> {
  const connection = await connect(optionsOf(config))
  try {
    const { version = 'unknown', jetstream } = connection.info ?? {}
    if (config.stream === undefined) return `nats-server ${version}, without JetStream`
    if (jetstream !== true) throw new Error('the server has no JetStream: enable it, or set RELEVE_NATS_JETSTREAM=off')
    const wrong = await findMisfits(connection, config.stream)
    if (wrong === undefined) return `nats-server ${version}, stream ${config.stream} is not there yet and will be made`
    if (wrong.length > 0) throw new Error(`stream ${config.stream} has ${wrong.join(', ')}`)
    return `nats-server ${version}, stream ${config.stream}`
  } finally {
    await connection.close()
  }
}
