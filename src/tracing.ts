/**
 * Traces, for those who have a collector: spans of requests, flushes, folds and closings, sent by OTLP over HTTP. Off unless
 * OTEL_EXPORTER_OTLP_ENDPOINT is set; then nothing of OpenTelemetry is loaded and `span` only calls its function.
 *
 * Never on the way of an event: a batch has one span, its events have none. Labels never hold a key, a body or an id of a customer.
 * The exporter's own variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_TIMEOUT …) hold as OpenTelemetry documents them.
 */
import type { Attributes, Span, Tracer } from '@opentelemetry/api'

export type { Attributes } from '@opentelemetry/api'

type Api = typeof import('@opentelemetry/api')

let tracer: { readonly api: Api; readonly tracer: Tracer } | undefined

export interface Tracing {
  /** Sends what waits. Always ends: the exporter has a time-out of its own. */
  close(): Promise<void>
}

/** Spans that wait for the exporter; beyond it new ones are dropped. */
const queueMax = 2_048

/**
 * @param endpoint such as http://127.0.0.1:4318; /v1/traces is appended.
 * @param version of the service.
 */
export async function openTracing(endpoint: string, version: string): Promise<Tracing> {
  const [api, sdk, { OTLPTraceExporter }, { resourceFromAttributes }, { W3CTraceContextPropagator }] =
    await Promise.all([
      import('@opentelemetry/api'),
      import('@opentelemetry/sdk-trace-base'),
      import('@opentelemetry/exporter-trace-otlp-http'),
      import('@opentelemetry/resources'),
      import('@opentelemetry/core'),
    ])
  const exporter = new OTLPTraceExporter({ url: `${endpoint.replace(/\/$/, '')}/v1/traces` })
  const provider = new sdk.BasicTracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'releve', 'service.version': version }),
    sampler: new sdk.ParentBasedSampler({ root: new sdk.AlwaysOnSampler() }),
    spanProcessors: [new sdk.BatchSpanProcessor(exporter, { maxQueueSize: queueMax, scheduledDelayMillis: 1_000 })],
  })
  api.propagation.setGlobalPropagator(new W3CTraceContextPropagator())
  tracer = { api, tracer: provider.getTracer('releve', version) }
  return {
    async close() {
      tracer = undefined
      await provider.shutdown().catch(() => {})
    },
  }
}

/** Runs it as a span of its own; a fault is told on the span and thrown on. */
export async function span<T>(name: string, attributes: Attributes, run: () => Promise<T>): Promise<T> {
  if (tracer === undefined) return run()
  const { SpanStatusCode } = tracer.api
  const started = tracer.tracer.startSpan(name, { attributes })
  try {
    return await run()
  } catch (error) {
    started.setStatus({ code: SpanStatusCode.ERROR, message: error instanceof Error ? error.message : String(error) })
    throw error
  } finally {
    started.end()
  }
}

/** A span of a request, below the caller's own when its headers name one; undefined when tracing is off. */
export function beginRequest(
  headers: Readonly<Record<string, unknown>>,
  attributes: Attributes,
): { end(name: string, status: number): void } | undefined {
  if (tracer === undefined) return undefined
  const { SpanKind, SpanStatusCode, ROOT_CONTEXT, propagation } = tracer.api
  const parent = propagation.extract(ROOT_CONTEXT, headers)
  const started: Span = tracer.tracer.startSpan('request', { kind: SpanKind.SERVER, attributes }, parent)
  return {
    end(name, status) {
      started.updateName(name)
      started.setAttribute('http.response.status_code', status)
      if (status >= 500) started.setStatus({ code: SpanStatusCode.ERROR })
      started.end()
    },
  }
}
