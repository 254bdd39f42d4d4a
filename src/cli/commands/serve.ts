/**
 * `releve serve`: opens the system, listens, and stops gracefully on SIGTERM or SIGINT: no new requests, drain, seal,
 * checkpoint. A second signal ends it at once; the log replays.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { systemClock } from '../../clock.js'
import type { Config } from '../../config.js'
import { buildHttp, listen } from '../../http/http.js'
import { openLogger } from '../../logger.js'
import { openNatsDoor } from '../../nats/nats.js'
import { openSystem } from '../../system.js'
import { serviceFile } from '../call.js'

export async function serveCommand(config: Config): Promise<number> {
  const logger = openLogger(config.logLevel)
  let end!: (code: number) => void
  const ended = new Promise<number>((resolve) => {
    end = resolve
  })
  mkdirSync(config.dataDirectory, { recursive: true, mode: 0o700 })
  const started = performance.now()
  const system = await openSystem({
    config,
    clock: systemClock,
    logger,
    onFatal: (error) => {
      logger.fatal({ error: error.message }, 'FATAL: the process ends; start it again and the log replays')
      // Nothing more may be written by this process, so nothing is drained.
      process.exit(1)
    },
  })
  const app = await buildHttp(system)
  const nats = config.nats === undefined ? undefined : openNatsDoor(system, config.nats)
  try {
    const address = await listen(app, config.host, config.port)
    writeFileSync(serviceFile(config.dataDirectory), JSON.stringify({ url: address, pid: process.pid }), {
      mode: 0o600,
    })
    logger.info({ address, startMs: Math.round(performance.now() - started) }, 'releve is ready')
    process.stderr.write(
      `releve is ready at ${address} (API page: ${address}/docs)\nThe admin key is in ${system.keys.adminKeyFile}\n`,
    )
  } catch (error) {
    // A port that is taken, for example: the engines must not keep the process.
    await Promise.all([nats?.close(), app.close()])
    await system.close()
    throw error
  }

  let signals = 0
  const stop = (signal: NodeJS.Signals): void => {
    signals += 1
    if (signals > 1) process.exit(1)
    logger.info({ signal }, 'stopping: drain, seal, checkpoint')
    rmSync(serviceFile(config.dataDirectory), { force: true })
    Promise.all([nats?.close(), app.close()])
      .then(() => system.close())
      .then(
        () => end(0),
        (error: unknown) => {
          logger.error({ error: String(error) }, 'cannot stop cleanly; the log replays at the next start')
          end(1)
        },
      )
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  return ended
}
