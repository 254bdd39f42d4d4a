/**
 * What a stop does with connections: those on which nothing is being asked end at once, a request that is being answered has
 * `limits.stopRequestsMs`. Without it a peer that opened a connection and says nothing, or sends half a body, holds the stop up until a
 * timeout of its own, and the service manager kills what should have been drained.
 */
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'

/** An answer that ends while the stop is on its way leaves an idle connection behind. */
const LOOK_MS = 100

export function endConnectionsAtStop(app: FastifyInstance, logger: Logger): void {
  // Node counts a connection as idle only behind its first request.
  const open = new Set<Socket>()
  app.server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  let silent = 0
  let looking: NodeJS.Timeout | undefined
  let ending: NodeJS.Timeout | undefined
  app.addHook('preClose', (done) => {
    const look = (): void => {
      for (const socket of open) {
        if (socket.bytesRead > 0 || socket.destroyed) continue
        socket.destroy()
        silent += 1
      }
      app.server.closeIdleConnections()
    }
    look()
    looking = setInterval(look, LOOK_MS)
    ending = setTimeout(() => {
      logger.warn({ requests: open.size, silent }, 'requests that did not end are cut at the stop')
      app.server.closeAllConnections()
    }, limits.stopRequestsMs)
    done()
  })
  app.addHook('onClose', (_, done) => {
    clearInterval(looking)
    clearTimeout(ending)
    done()
  })
}
