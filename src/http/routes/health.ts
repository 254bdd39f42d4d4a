/** Health tells the truth: live = the process answers; ready = it can take events, engine by engine and stream by stream. */
import type { FastifyPluginAsync } from 'fastify'
import type { System } from '../../system.js'

export function healthRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const schema = (summary: string) => ({ tags: ['health'], summary })
    app.get(
      '/health/live',
      { config: { scope: 'public' }, schema: schema('Whether the process answers') },
      async () => ({ status: 'live' }),
    )
    app.get(
      '/health/ready',
      {
        config: { scope: 'public' },
        schema: schema('Whether events are taken, engine by engine and stream by stream'),
      },
      async (_, reply) => {
        const health = system.health()
        if (!health.ready) reply.status(503).header('retry-after', '1')
        return health
      },
    )
    app.get('/metrics', { config: { scope: 'admin' }, schema: schema('Metrics for Prometheus') }, async (_, reply) => {
      system.refreshGauges()
      reply.type(system.metrics.registry.contentType)
      return system.metrics.registry.metrics()
    })
  }
}
