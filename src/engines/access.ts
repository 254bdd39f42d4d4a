/**
 * How the embedded engines are reached: a port and a random password each, made at the first start and kept in
 * `engines.json` of the data directory, mode 0600. A port that someone else has taken meanwhile is chosen anew; passwords
 * never change, for PostgreSQL keeps its side of it in the database.
 *
 * The file is written to a neighbour, synced and renamed: a crash leaves the old one or the new one.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'

export interface Access {
  readonly user: string
  readonly password: string
  /** 0 until one is chosen. */
  port: number
}

export interface AccessBook {
  readonly clickhouse: Access
  readonly postgres: Access
}

const user = 'releve'
// Below the range from which kernels take the ports of outgoing connections (32768 on Linux, 49152 elsewhere), so that a port
// that is kept is rarely taken by chance while the service is down.
const portMin = 20_000
const portMax = 32_000
const portTriesMax = 100

/** Reads the book of a data directory, or writes a new one. The directory must exist and be locked. */
export function openAccessBook(directory: string): AccessBook {
  let text: string
  try {
    text = readFileSync(join(directory, 'engines.json'), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    const fresh = (): Access => ({ user, password: randomBytes(24).toString('hex'), port: 0 })
    const book: AccessBook = { clickhouse: fresh(), postgres: fresh() }
    saveAccessBook(directory, book)
    return book
  }
  const book = parseBook(text)
  if (!book) {
    throw new Error(
      `cannot read ${join(directory, 'engines.json')}: it does not hold the ports and passwords of the engines; put it back from a backup`,
    )
  }
  return book
}

export function saveAccessBook(directory: string, book: AccessBook): void {
  const path = join(directory, 'engines.json')
  const fd = openSync(`${path}.new`, 'w', 0o600)
  try {
    writeSync(fd, `${JSON.stringify(book, null, 2)}\n`)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(`${path}.new`, path)
}

function parseBook(text: string): AccessBook | undefined {
  try {
    const book = JSON.parse(text) as AccessBook
    for (const access of [book.clickhouse, book.postgres]) {
      if (typeof access.user !== 'string' || typeof access.password !== 'string' || access.password === '')
        return undefined
      if (!Number.isInteger(access.port) || access.port < 0 || access.port > 65_535) return undefined
    }
    return book
  } catch {
    return undefined
  }
}

/** Whether 127.0.0.1:port can be listened on at this moment. Someone else may take it right after. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)))
  })
}

/** A port of 127.0.0.1 that is free at this moment. */
export async function chooseFreePort(): Promise<number> {
  for (let tries = 0; tries < portTriesMax; tries++) {
    const port = randomInt(portMin, portMax)
    if (await isPortFree(port)) return port
  }
  throw new Error(`cannot find a free port between ${portMin} and ${portMax} on 127.0.0.1`)
}
