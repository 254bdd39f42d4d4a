/** One span a request, named by its method and route, when traces are on. */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { beginRequest } from '../tracing.js'

export function traceRequests(app: FastifyInstance): void {
  const open = new WeakMap<FastifyRequest, NonNullable<ReturnType<typeof beginRequest>>>()
  app.addHook('onRequest', async (request) => {
    const begun = beginRequest(request.headers, {
      'http.request.method': request.method,
      'http.route': request.routeOptions.url ?? '',
      'releve.request_id': request.id,
    })
    if (begun !== undefined) open.set(request, begun)
  })
  app.addHook('onResponse', async (request, reply) => {
    open.get(request)?.end(`${request.method} ${request.routeOptions.url ?? 'unknown'}`, reply.statusCode)
  })
}
