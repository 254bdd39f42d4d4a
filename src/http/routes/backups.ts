/** /v1/backups: begin one, see how it goes, list them. Of the whole service, hence the scope admin, which is platform-wide. */
import type { FastifyPluginAsync } from 'fastify'
import { listBackups } from '../../backup.js'
import { ReleveError } from '../../errors.js'
import type { System } from '../../system.js'

export function backupRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const config = { scope: 'admin' } as const

    app.post(
      '/v1/backups',
      {
        config,
        schema: {
          tags: ['operators'],
          summary: 'Begin a backup of the data directory',
          description: 'Events are taken meanwhile. One at a time; GET /v1/backups/current tells how far it is.',
        },
      },
      async (_, reply) => {
        reply.status(202)
        return system.backups.begin()
      },
    )
    app.get(
      '/v1/backups/current',
      { config, schema: { tags: ['operators'], summary: 'The backup that runs, or ran last since the start' } },
      async () => {
        const state = system.backups.state()
        if (state === undefined) throw new ReleveError('not_found', 'no backup was begun since the service started')
        return state
      },
    )
    app.get(
      '/v1/backups',
      { config, schema: { tags: ['operators'], summary: 'Finished backups, oldest first' } },
      async () => ({
        directory: system.config.backupDirectory,
        backups: await listBackups(system.config.backupDirectory),
      }),
    )
  }
}
