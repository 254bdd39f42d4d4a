/**
 * One request to the running service with the admin key of the data directory: what most commands are made of. Throws ReleveError
 * with the service's code, and an Error «cannot …» when no service runs there.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadConfig } from '../config.js'
import { ErrorCode, ReleveError } from '../errors.js'
import { serviceFile } from './commands/serve.js'

/** The answer's bytes. */
export async function fetchBytes(method: string, path: string, body?: unknown): Promise<Buffer> {
  const config = loadConfig()
  const file = serviceFile(config.dataDirectory)
  if (!existsSync(file))
    throw new Error(`cannot reach the service: none runs on ${config.dataDirectory}. npm start runs one.`)
  const { url } = JSON.parse(readFileSync(file, 'utf8')) as { url: string }
  const key = readFileSync(join(config.dataDirectory, 'admin.key'), 'utf8').trim()
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const bytes = Buffer.from(await answer.arrayBuffer())
  if (!answer.ok) {
    const value = JSON.parse(bytes.toString()) as { code?: string; detail?: string }
    const code = value.code !== undefined && value.code in ErrorCode ? (value.code as ErrorCode) : 'internal'
    throw new ReleveError(code, value.detail ?? `the service answers ${answer.status}`)
  }
  return bytes
}

/** The answer's JSON. */
export async function call(method: string, path: string, body?: unknown): Promise<unknown> {
  return JSON.parse((await fetchBytes(method, path, body)).toString())
}
