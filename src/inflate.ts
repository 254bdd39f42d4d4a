/**
 * Bodies that come compressed: gzip, and zstd where Node has it (zlib.zstdDecompress, 22.15 and 23.8). What a body may become is
 * bounded while it unfolds, so a bomb stops at limits.bodyBytesMax. Used by every door.
 */
import { promisify } from 'node:util'
import * as zlib from 'node:zlib'
import { ReleveError } from './errors.js'
import { limits } from './limits.js'

type Inflate = (body: Uint8Array, options: { maxOutputLength: number }) => Promise<Buffer>

const { zstdDecompress } = zlib as unknown as {
  zstdDecompress?: (
    body: Uint8Array,
    options: { maxOutputLength: number },
    done: (error: Error | null, result: Buffer) => void,
  ) => void
}

/** By content-encoding. */
const inflaters: Readonly<Record<string, Inflate>> = {
  gzip: promisify<Uint8Array, { maxOutputLength: number }, Buffer>(zlib.gunzip),
  ...(zstdDecompress === undefined ? {} : { zstd: promisify(zstdDecompress) }),
}

export const contentEncodings: readonly string[] = Object.keys(inflaters)

/** At most limits.inflatingMax bodies are inflated at once, for each may grow to limits.bodyBytesMax; the others wait. */
let inflating = 0
const waiting: (() => void)[] = []

async function inTurn(inflater: Inflate, body: Uint8Array): Promise<Uint8Array> {
  if (inflating === limits.inflatingMax) await new Promise<void>((resolve) => waiting.push(resolve))
  else inflating += 1
  try {
    return await inflater(body, { maxOutputLength: limits.bodyBytesMax })
  } finally {
    const next = waiting.shift()
    if (next === undefined) inflating -= 1
    else next()
  }
}

/** The body as it was before its content-encoding. Throws `unsupported_format`, `body_too_large` or `malformed_body`. */
export async function inflate(body: Uint8Array, encoding: string | undefined): Promise<Uint8Array> {
  if (encoding === undefined || encoding === 'identity' || encoding === '') return body
  const inflater = Object.hasOwn(inflaters, encoding) ? inflaters[encoding] : undefined
  if (inflater === undefined) {
    throw new ReleveError(
      'unsupported_format',
      `content-encoding ${encoding}: send ${contentEncodings.join(', ')} or none`,
    )
  }
  try {
    return await inTurn(inflater, body)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new ReleveError('body_too_large', `a body has at most ${limits.bodyBytesMax} bytes when inflated`)
    }
    throw new ReleveError('malformed_body', `the body is not whole ${encoding} data`, { cause: error })
  }
}
