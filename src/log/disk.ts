/**
 * What the log asks of the disk, and nothing more: a dozen calls that either do all they say or fail. They stand apart so that
 * a test can put failures between the log and real files (a sync that fails, a full disk, a power cut).
 *
 * Nothing here retries: after a failed sync nobody knows what the disk holds, and only the caller knows what that means.
 */
import { writevSync } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, unlink } from 'node:fs/promises'

export interface LogFile {
  /** Writes all bytes at `position`, in order. */
  writev(buffers: readonly Uint8Array[], position: number): Promise<void>
  /** The same on the spot, for few bytes; answers how many of them the system took, and throws its error. */
  writevNow(buffers: readonly Uint8Array[], position: number): number
  /** Fills `target` from `position` on, as far as the file reaches; answers the bytes read. */
  read(target: Uint8Array, position: number): Promise<number>
  /** Data on disk, with what is needed to find it again (fdatasync). */
  sync(): Promise<void>
  truncate(bytes: number): Promise<void>
  size(): Promise<number>
  close(): Promise<void>
}

export interface Disk {
  /** `create` makes the file or empties it; `write` and `read` need it to be there. */
  open(path: string, mode: 'create' | 'write' | 'read'): Promise<LogFile>
  /** Replaces the target if it is there. Lasting only after syncDirectory. */
  rename(from: string, to: string): Promise<void>
  /** Lasting only after syncDirectory. */
  remove(path: string): Promise<void>
  list(directory: string): Promise<string[]>
  makeDirectory(path: string): Promise<void>
  syncDirectory(path: string): Promise<void>
}

class RealFile implements LogFile {
  readonly #handle: FileHandle

  constructor(handle: FileHandle) {
    this.#handle = handle
  }

  async writev(buffers: readonly Uint8Array[], position: number): Promise<void> {
    let { bytesWritten } = await this.#handle.writev(buffers as Uint8Array[], position)
    let bytes = 0
    for (const buffer of buffers) bytes += buffer.byteLength
    if (bytesWritten === bytes) return
    // A short write comes just before the error that explains it: writing the rest brings the error out.
    const all = Buffer.concat(buffers, bytes)
    while (bytesWritten < bytes) {
      const rest = await this.#handle.write(all, bytesWritten, bytes - bytesWritten, position + bytesWritten)
      if (rest.bytesWritten === 0) throw new Error('cannot write: the file takes no more bytes')
      bytesWritten += rest.bytesWritten
    }
  }

  writevNow(buffers: readonly Uint8Array[], position: number): number {
    return writevSync(this.#handle.fd, buffers, position)
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    let filled = 0
    while (filled < target.byteLength) {
      const { bytesRead } = await this.#handle.read(target, filled, target.byteLength - filled, position + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return filled
  }

  sync(): Promise<void> {
    return this.#handle.datasync()
  }

  truncate(bytes: number): Promise<void> {
    return this.#handle.truncate(bytes)
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

const flags = { create: 'w+', write: 'r+', read: 'r' } as const

export const realDisk: Disk = {
  open: async (path, mode) => new RealFile(await open(path, flags[mode], 0o600)),
  rename,
  remove: unlink,
  list: (directory) => readdir(directory),
  makeDirectory: async (path) => {
    await mkdir(path, { recursive: true, mode: 0o700 })
  },
  syncDirectory: async (path) => {
    const handle = await open(path, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
}

/** Up to so many bytes a write that is not synced is done on the spot: it is a copy into the kernel's memory. */
const nowBytesMax = 65_536

/**
 * The same disk with syncs that are begun within `ms` and not waited for. What was written survives the end of the process, also
 * kill -9, since the kernel has it; a power cut may take what the last `ms` wrote. For records whose worth is over in seconds.
 * Small writes do not go to the thread pool, whose way there and back costs more than they do: p50 and p99 of 512 bytes beside a
 * sync each 20 ms were 1 and 35 µs on the spot, 22 µs and 2.6 ms by the pool, on two cores with other work.
 * A sync that fails is told to `onFailure`.
 */
export function syncingSoon(disk: Disk, ms: number, onFailure: (error: Error) => void): Disk {
  return { ...disk, open: async (path, mode) => new SoonFile(await disk.open(path, mode), ms, onFailure) }
}

class SoonFile implements LogFile {
  readonly #file: LogFile
  readonly #ms: number
  readonly #onFailure: (error: Error) => void
  #timer: NodeJS.Timeout | undefined
  #syncing: Promise<void> = Promise.resolve()

  constructor(file: LogFile, ms: number, onFailure: (error: Error) => void) {
    this.#file = file
    this.#ms = ms
    this.#onFailure = onFailure
  }

  async writev(buffers: readonly Uint8Array[], position: number): Promise<void> {
    let bytes = 0
    for (const { byteLength } of buffers) bytes += byteLength
    // The first segment's zeros and the like are many bytes. A short write comes just before the error that explains it.
    if (bytes > nowBytesMax || this.#file.writevNow(buffers, position) < bytes)
      await this.#file.writev(buffers, position)
  }

  writevNow(buffers: readonly Uint8Array[], position: number): number {
    return this.#file.writevNow(buffers, position)
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return this.#file.read(target, position)
  }

  async sync(): Promise<void> {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#syncing = this.#syncing.then(() => this.#file.sync()).catch(this.#onFailure)
    }, this.#ms)
  }

  truncate(bytes: number): Promise<void> {
    return this.#file.truncate(bytes)
  }

  size(): Promise<number> {
    return this.#file.size()
  }

  async close(): Promise<void> {
    const isWritten = this.#timer !== undefined
    clearTimeout(this.#timer)
    await this.#syncing
    if (isWritten) await this.#file.sync()
    await this.#file.close()
  }
}

/** The errno name of a failed call, such as ENOSPC; undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** The disk is full: nothing is broken, and it passes when someone makes room. */
export function isDiskFull(error: unknown): boolean {
  const errno = errnoOf(error)
  return errno === 'ENOSPC' || errno === 'EDQUOT'
}
