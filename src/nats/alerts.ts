/**
 * Alerts to `usage.alerts.<tenant>`, in the order of their recording, each at least once: how far the server has been told is a
 * row in PostgreSQL, written after the server has confirmed. `Nats-Msg-Id` is the alert's id, for a stream that drops doubles.
 */
import { headers as makeHeaders, type NatsConnection } from 'nats'
import { limits } from '../limits.js'
import type { System } from '../system.js'
import { ALERTS, tokenOf } from './subjects.js'

const READER = 'nats'

/** Publishes until `stop` or the end of the connection. Rejects when the server or PostgreSQL fails. */
export function openAlertPublisher(
  system: System,
  connection: NatsConnection,
): { stop(): void; readonly done: Promise<void> } {
  let stopped = false
  let wake: () => void = () => {}
  const unsubscribe = system.alerts.subscribe(() => wake())

  const run = async (): Promise<void> => {
    try {
      let serial = await system.alerts.readerAt(READER)
      while (!stopped) {
        const news = new Promise<void>((resolve) => {
          wake = resolve
        })
        const alerts = await system.alerts.list({ tenant: null, after: serial, limit: limits.pageMax })
        for (const alert of alerts) {
          const headers = makeHeaders()
          headers.set('Nats-Msg-Id', alert.id)
          headers.set('content-type', 'application/json')
          connection.publish(ALERTS + tokenOf(alert.tenant), JSON.stringify(alert), { headers })
        }
        const last = alerts.at(-1)
        if (last === undefined) {
          if (!stopped) await news
          continue
        }
        await connection.flush()
        serial = last.serial
        await system.alerts.moveReader(READER, serial)
        system.metrics.natsAlerts.inc(alerts.length)
      }
    } finally {
      unsubscribe()
    }
  }
  return {
    done: run(),
    stop() {
      stopped = true
      wake()
    },
  }
}
