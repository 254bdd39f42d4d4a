/**
 * Traces reach a collector that speaks OTLP over HTTP: a request below the caller's own span, a flush with its epoch, and nothing of a
 * key, a body or a customer in any of it. Without a collector's address nothing is sent and nothing of OpenTelemetry is loaded.
 */
import { createServer, type Server } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DoorSystem, openDoorSystem } from './doors/door-system.js'

interface Span {
  readonly name: string
  readonly traceId: string
  readonly parentSpanId?: string
  readonly attributes: readonly { readonly key: string; readonly value: Record<string, unknown> }[]
}

let collector: Server
let door: DoorSystem
const bodies: string[] = []
const spans = (): Span[] =>
  bodies.flatMap((body) =>
    (JSON.parse(body) as { resourceSpans: { scopeSpans: { spans: Span[] }[] }[] }).resourceSpans.flatMap((resource) =>
      resource.scopeSpans.flatMap((scope) => scope.spans),
    ),
  )

beforeAll(async () => {
  collector = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (part: string) => {
      text += part
    })
    request.on('end', () => {
      if (request.url === '/v1/traces') bodies.push(text)
      response.setHeader('content-type', 'application/json').end('{}')
    })
  })
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve))
  const { port } = collector.address() as { port: number }
  door = await openDoorSystem({ OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` })
})
afterAll(async () => {
  await door.close()
  await new Promise((resolve) => collector.close(resolve))
})

test('a request and the flush of its events are spans; the request is below the one that the caller names', async () => {
  const traceId = '0af7651916cd43dd8448eb211c80319c'
  const answer = await fetch(`${door.url}/v1/events`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${door.adminKey}`,
      'content-type': 'application/json',
      traceparent: `00-${traceId}-b7ad6b7169203331-01`,
    },
    body: JSON.stringify([{ id: 'secret-id', tenant: 'acme', metric: 'kyc', subject: 'secret-subject' }]),
  })
  expect(answer.status).toBe(202)
  expect((await fetch(`${door.url}/v1/nothing`)).status).toBe(401)
  const named = (name: string): Span | undefined => spans().find((one) => one.name === name)
  while (named('POST /v1/events') === undefined || named('flush') === undefined) await sleep(50)
  expect(named('POST /v1/events')).toMatchObject({ traceId, parentSpanId: 'b7ad6b7169203331' })
  const attributes = named('flush')!.attributes
  expect(attributes.map(({ key }) => key).sort()).toEqual(['epoch', 'stream'])
  const all = bodies.join('\n')
  for (const word of ['secret-id', 'secret-subject', door.adminKey, 'acme']) expect(all).not.toContain(word)
})
