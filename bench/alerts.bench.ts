/**
 * Question: how long after the acknowledgement of the event that crosses a threshold does the alert reach a reader of the event stream
 * (SSE) and the receiver of a signed webhook, while the service takes half of the load that it can bear?
 *
 * A recurring rule of step 1 makes every event of a metric of its own a crossing. Crossings come one at a time; the load beside
 * them is the canonical one, archive on, held down to half of what a short run at full load gave. The clock is that of this process, which also
 * sends the load, so what is measured holds its own delays as well.
 *
 *     node dist/bench/alerts.bench.js small      20 crossings
 *     node dist/bench/alerts.bench.js large      500 crossings
 */
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Bodies, sendBySockets } from './producer.js'
import { startService, totalOf } from './service.js'

export interface AlertResult {
  readonly crossings: number
  readonly loadPerS: number
  readonly sseMs: Quantiles
  readonly webhookMs: Quantiles
  readonly isTotalRight: boolean
}

interface Quantiles {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

const METRIC = 'crossings'

function quantiles(values: readonly number[]): Quantiles {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (q: number): number => Math.round(sorted[Math.floor((sorted.length - 1) * q)]! * 10) / 10
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}

export async function benchAlerts(options: {
  readonly crossings: number
  readonly peakRequests: number
}): Promise<AlertResult> {
  const arrivedBySse = new Map<number, number>()
  const arrivedByHook = new Map<number, number>()
  /** The balance at a crossing is the number of its event. */
  const note = (into: Map<number, number>, text: string): void => {
    const at = performance.now()
    const value = Number(/"balance":"([0-9]+)/.exec(text)?.[1] ?? Number.NaN)
    if (!Number.isNaN(value) && !into.has(value)) into.set(value, at)
  }
  const receiver = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (part: string) => {
      text += part
    })
    request.on('end', () => {
      note(arrivedByHook, text)
      response.writeHead(204).end()
    })
  })
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve))
  const { port } = receiver.address() as { port: number }
  const service = await startService({ archive: true, env: { RELEVE_WEBHOOK_ALLOW: '127.0.0.0/8' } })
  const hangUp = new AbortController()
  try {
    await service.call('PUT', '/v1/metrics-catalog', {
      key: METRIC,
      aggregation: 'count',
      unit: 'event',
      scale: 0,
      dims: [],
      archive: true,
    })
    await service.call('POST', '/v1/alert-rules', { tenant: 'bench-0', metric: METRIC, kind: 'recurring', every: '1' })
    await service.call('POST', '/v1/webhooks', { tenant: 'bench-0', url: `http://127.0.0.1:${port}/` })
    const stream = await fetch(`${service.url}/v1/alerts/stream?tenant=bench-0`, {
      headers: { authorization: `Bearer ${service.key}` },
      signal: hangUp.signal,
    })
    void (async () => {
      let text = ''
      for await (const part of stream.body!.pipeThrough(new TextDecoderStream())) {
        text += part
        const messages = text.split('\n\n')
        text = messages.pop()!
        for (const message of messages) note(arrivedBySse, message)
      }
    })().catch(() => {})

    const bodies = new Bodies(1_000)
    const load = { url: service.url, key: service.key, batch: 1_000, connections: 8, bodies }
    const peak = await sendBySockets({ ...load, requests: options.peakRequests })
    const perSecond = options.peakRequests / peak.seconds / 2
    await service.flushed()

    let over = false
    const acknowledged = new Map<number, number>()
    const cross = async (): Promise<void> => {
      for (let n = 1; n <= options.crossings; n += 1) {
        await service.call('POST', '/v1/events', [
          { id: `crossing-${n}`, tenant: 'bench-0', metric: METRIC, time: Date.now() },
        ])
        acknowledged.set(n, performance.now())
        await sleep(20)
      }
      over = true
    }
    const crossing = cross()
    // As many seconds of load as the crossings take.
    while (!over) await sendBySockets({ ...load, requests: Math.max(1, Math.round(perSecond)), perSecond })
    await crossing
    for (
      let i = 0;
      i < 300 && (arrivedBySse.size < options.crossings || arrivedByHook.size < options.crossings);
      i += 1
    )
      await sleep(100)
    const late = (arrived: ReadonlyMap<number, number>): number[] =>
      [...acknowledged].map(([n, at]) => {
        const came = arrived.get(n)
        if (came === undefined) throw new Error(`cannot bench: the alert of crossing ${n} never came`)
        return came - at
      })
    await service.flushed()
    return {
      crossings: options.crossings,
      loadPerS: Math.round(perSecond * load.batch),
      sseMs: quantiles(late(arrivedBySse)),
      webhookMs: quantiles(late(arrivedByHook)),
      isTotalRight: (await totalOf(service)) === bodies.sum + 1,
    }
  } finally {
    hangUp.abort()
    await service.stop()
    receiver.close()
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const isLarge = process.argv[2] === 'large'
  const result = await benchAlerts(
    isLarge ? { crossings: 500, peakRequests: 2_000 } : { crossings: 20, peakRequests: 20 },
  )
  const text = ({ p50, p99, max }: Quantiles): string => `p50 ${p50} ms  p99 ${p99} ms  max ${max} ms`
  process.stdout.write(
    `${result.crossings} crossings beside ${result.loadPerS} events/s  SSE ${text(result.sseMs)}  webhook ${text(result.webhookMs)}  totals ${result.isTotalRight ? 'right' : 'WRONG'}\n`,
  )
  if (!result.isTotalRight) process.exitCode = 1
}
