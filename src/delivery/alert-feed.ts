/**
 * Alerts to their endpoints, in the order of their recording, each at least once: how far the alerts have become deliveries is a
 * row in PostgreSQL, moved after the deliveries are rows. An alert's id is its message's.
 */
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import type { Alert, Alerts } from '../quota/alerts.js'
import type { Delivery } from './delivery.js'

const READER = 'delivery'

/** Runs until `close`. */
export function openAlertFeed(options: {
  readonly alerts: Pick<Alerts, 'subscribe' | 'list' | 'readerAt' | 'moveReader'>
  readonly delivery: Pick<Delivery, 'emit'>
  readonly logger: Logger
}): { close(): Promise<void> } {
  const { alerts, delivery, logger } = options
  let closed = false
  let wake: () => void = () => {}
  const unsubscribe = alerts.subscribe(() => wake())

  const tell = (alert: Alert): Promise<unknown> =>
    delivery.emit({
      id: alert.id,
      type: alert.type,
      tenant: alert.tenant,
      metric: alert.metric,
      rule: alert.rule,
      data: alert,
    })

  const run = async (): Promise<void> => {
    let serial: number | undefined
    while (!closed) {
      const news = new Promise<void>((resolve) => {
        wake = resolve
      })
      try {
        serial ??= await alerts.readerAt(READER)
        const page = await alerts.list({ tenant: null, after: serial, limit: limits.feedPageMax })
        for (const alert of page) await tell(alert)
        const last = page.at(-1)
        if (last === undefined) {
          if (!closed) await news
          continue
        }
        await alerts.moveReader(READER, last.serial)
        serial = last.serial
      } catch (error) {
        if (closed) return
        logger.warn({ error: String(error) }, 'alerts cannot be handed to their deliveries, done again')
        await Promise.race([news, new Promise((resolve) => setTimeout(resolve, 1_000))])
      }
    }
  }
  const done = run()
  return {
    async close() {
      closed = true
      unsubscribe()
      wake()
      await done
    },
  }
}
