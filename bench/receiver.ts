/**
 * A fastify that only receives, or that only parses what it receives: ceilings of what an HTTP door in Node can take. A child process
 * of its own, so that it has a thread of its own as the service has; run as a script it listens and prints its address.
 */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import Fastify from 'fastify'
import { Unpackr } from 'msgpackr'
import { limits } from '../src/limits.js'

export interface Receiver {
  readonly url: string
  readonly pid: number
  stop(): Promise<void>
}

export async function startReceiver(does: 'receive' | 'parse' = 'receive'): Promise<Receiver> {
  const args = [fileURLToPath(import.meta.url), does]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const end = (): boolean => child.kill('SIGTERM')
  process.once('exit', end)
  const ended = new Promise<void>((resolve) => child.on('exit', () => resolve()))
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout!.once('data', (part: Buffer) => resolve(part.toString().trim()))
    child.once('exit', (code) => reject(new Error(`cannot bench: the receiver ended with ${code}`)))
  })
  return {
    url,
    pid: child.pid!,
    async stop() {
      process.off('exit', end)
      end()
      await ended
    },
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const app = Fastify({ bodyLimit: limits.bodyBytesMax })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_, body, done) => done(null, body))
  const unpackr = new Unpackr({ useRecords: true })
  app.post('/v1/events', async (request, reply) => {
    const body = request.body as Buffer
    let received: unknown
    if (process.argv[2] === 'parse') {
      received =
        request.headers['content-type'] === 'application/json'
          ? JSON.parse(body.toString('utf8'))
          : unpackr.unpack(body)
    }
    reply.status(202)
    return { received: Array.isArray(received) ? received.length : 1 }
  })
  process.stdout.write(`${await app.listen({ host: '127.0.0.1', port: 0 })}\n`)
}
