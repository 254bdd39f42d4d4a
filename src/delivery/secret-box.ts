/**
 * Secrets that must be usable again after a restart, as a webhook's must to sign: sealed with AES-256-GCM under a key that lies
 * beside the database and not in it (delivery.key of the data directory, mode 0600). A copy of the database alone tells nothing.
 *
 * Without the key's file a new one is made, and what the old one sealed cannot be opened: such secrets must be rotated. A backup
 * that is to sign again holds both.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'

export interface SecretBox {
  /** `place` is the row that the secret belongs to: it opens in no other. */
  seal(secret: string, place: string): Buffer
  /** Throws when the box was sealed with another key, or for another place. */
  open(box: Uint8Array, place: string): string
}

const IV_BYTES = 12
const TAG_BYTES = 16

function keyIn(file: string): Buffer {
  if (!existsSync(file)) {
    // Renamed when it is whole: a crash leaves no half of a key.
    const written = `${file}.new`
    const descriptor = openSync(written, 'w', 0o600)
    writeSync(descriptor, `${randomBytes(32).toString('hex')}\n`)
    fsyncSync(descriptor)
    closeSync(descriptor)
    renameSync(written, file)
  }
  const text = readFileSync(file, 'utf8').trim()
  if (!/^[0-9a-f]{64}$/.test(text)) throw new Error(`cannot start: ${file} is not a key of 64 hex digits`)
  return Buffer.from(text, 'hex')
}

export function openSecretBox(dataDirectory: string): SecretBox {
  const key = keyIn(join(dataDirectory, 'delivery.key'))
  return {
    seal(secret, place) {
      const iv = randomBytes(IV_BYTES)
      const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(place))
      const sealed = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final()])
      return Buffer.concat([iv, cipher.getAuthTag(), sealed])
    },
    open(box, place) {
      const bytes = Buffer.from(box)
      const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, IV_BYTES))
        .setAAD(Buffer.from(place))
        .setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES))
      try {
        return decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES), undefined, 'utf8') + decipher.final('utf8')
      } catch (cause) {
        throw new Error(`the secret of ${place} was sealed with another delivery.key: rotate it`, { cause })
      }
    },
  }
}
