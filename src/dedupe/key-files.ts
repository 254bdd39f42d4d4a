/**
 * Key files: the ids of a stream on disk, on the main thread. One file per generation, key blocks one after the other in epoch
 * order; dropping a generation deletes its file. Together with the state of a checkpoint they are the snapshot of dedupe.
 *
 * append() comes back after fdatasync, before the epoch's rows are inserted. load() gives what lies at or below the
 * checkpoint and cuts off the rest: those epochs are applied again from the log, and an id of theirs left here would make an
 * event look like a duplicate of itself. The state counts the entries of each generation, so a lost or damaged block at or
 * below the checkpoint is always noticed and never taken for a torn tail. Repair is not done here: the caller can rebuild
 * from the archive.
 */
import { mkdir, open, readdir, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { assert } from '../assert.js'
import { ReleveError } from '../errors.js'
import { type DedupeState, firstOf, type Generation } from './generations.js'
import { BLOCK_HEADER_BYTES, decodeKeyBlock, type KeyBlockHead, readKeyBlockHead } from './key-block.js'

type FileHandle = Awaited<ReturnType<typeof open>>

const FILE_NAME = /^([0-9]{10})\.keys$/

interface KeyFile {
  readonly path: string
  /** Bytes of whole blocks; what lies behind them is the rest of a failed write. */
  bytes: number
  lastEpoch: number
}

export class KeyFiles {
  readonly #directory: string
  readonly #stream: number
  readonly #files = new Map<number, KeyFile>()
  /** The file that is written at present. */
  #current: { readonly generation: number; readonly handle: FileHandle } | null = null
  #isLoaded = false
  #isBusy = false
  /** A sync failed: what is on disk is unknown until the files are read again. */
  #isFailed = false

  private constructor(directory: string, stream: number) {
    this.#directory = directory
    this.#stream = stream
  }

  /** `directory` belongs to this stream alone; it is made when it is not there. Call load() before append(). */
  static async open(directory: string, stream: number): Promise<KeyFiles> {
    const created = await mkdir(directory, { recursive: true })
    if (created !== undefined) {
      // Every directory that was just made must survive a power loss: its entry stands in its parent.
      for (let made = directory; made.length >= created.length; made = dirname(made)) await syncDirectory(dirname(made))
    }
    return new KeyFiles(directory, stream)
  }

  /**
   * The blocks of the generations in `state`, up to its epoch, in the order for Dedupe.restore(). Later blocks and a torn tail
   * are cut off; files of other generations, whose deletion or whose checkpoint did not come about, are deleted. `null`: there
   * is no checkpoint, everything goes. Generations before `from` are in runs; their files go as well. To be read to its end.
   * Throws «FATAL: …» with file and offset when something is missing or damaged; then the file concerned has not been touched.
   */
  async *load(state: DedupeState | null, from = 0): AsyncGenerator<Uint8Array, void, void> {
    assert(!this.#isLoaded && !this.#isFailed, 'key files are loaded once')
    for (const generation of state?.generations ?? []) {
      const first = firstOf(generation)
      if (first === generation.number && from <= first) yield* this.#loadGeneration(generation, state!.epoch)
      // How many ids each part of a joined generation has nobody knows, but all of them are closed.
      else
        for (let number = Math.max(from, first); number <= generation.number; number += 1)
          yield* this.#loadClosed(number)
    }
    const names = await readdir(this.#directory)
    const stale = names.filter((name) => {
      const match = FILE_NAME.exec(name)
      return match !== null && !this.#files.has(Number(match[1]))
    })
    for (const name of stale) await unlink(join(this.#directory, name))
    if (stale.length > 0) await syncDirectory(this.#directory)
    this.#isLoaded = true
  }

  async *#loadGeneration(generation: Generation, epochMax: number): AsyncGenerator<Uint8Array, void, void> {
    const path = this.pathOf(generation.number)
    let handle: FileHandle
    try {
      handle = await open(path, 'r+')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      if (generation.entries === 0 && generation.voids === 0) return
      throw new Error(`FATAL: ${path} is missing; it should hold ${generation.entries} ids`)
    }
    try {
      const { size } = await handle.stat()
      let keys = 0
      let voids = 0
      let bytes = 0
      let lastEpoch = -1
      for (;;) {
        const isComplete = keys === generation.entries && voids === generation.voids
        if (isComplete && bytes === size) break
        const block = await readBlock(handle, bytes, size)
        const head = block === null ? null : this.#checkedHead(block, generation.number)
        if (isComplete && (head === null || head.epoch > epochMax)) break
        if (head === null || head.epoch > epochMax || head.epoch <= lastEpoch) {
          throw new Error(
            `FATAL: ${path} is damaged at offset ${bytes}: up to epoch ${epochMax} it should hold ${generation.entries} ` +
              `ids and ${generation.voids} voids, and only ${keys} and ${voids} can be read`,
          )
        }
        keys += head.keys
        voids += head.voids
        if (keys > generation.entries || voids > generation.voids) {
          throw new Error(
            `FATAL: ${path} holds more at offset ${bytes} than epoch ${epochMax} had: another checkpoint's file`,
          )
        }
        bytes += head.bytes
        lastEpoch = head.epoch
        yield block!
      }
      if (bytes < size) {
        await handle.truncate(bytes)
        await handle.datasync()
      }
      this.#files.set(generation.number, { path, bytes, lastEpoch })
    } finally {
      await handle.close()
    }
  }

  /** Every block of a file that the checkpoint has whole. */
  async *#loadClosed(generation: number): AsyncGenerator<Uint8Array, void, void> {
    const path = this.pathOf(generation)
    let handle: FileHandle
    try {
      handle = await open(path, 'r')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      throw new Error(`FATAL: ${path} is missing`)
    }
    try {
      const { size } = await handle.stat()
      let bytes = 0
      let lastEpoch = -1
      while (bytes < size) {
        const block = await readBlock(handle, bytes, size)
        const head = block === null ? null : this.#checkedHead(block, generation)
        if (head === null || head.epoch <= lastEpoch) throw new Error(`FATAL: ${path} is damaged at offset ${bytes}`)
        bytes += head.bytes
        lastEpoch = head.epoch
        yield block!
      }
      this.#files.set(generation, { path, bytes, lastEpoch })
    } finally {
      await handle.close()
    }
  }

  /** Generations that have a file. */
  generations(): number[] {
    return [...this.#files.keys()]
  }

  /**
   * Adds a block to the file of its generation; resolves when it is on disk. A block of an epoch that is there already, and
   * whatever is later, is replaced. One call at a time. Rejects with the system's error when the write failed (it may be
   * repeated), and with ReleveError `unavailable` after a failed sync, until the files are opened and loaded anew.
   */
  async append(block: Uint8Array): Promise<void> {
    assert(this.#isLoaded && !this.#isBusy, 'a key block is appended before the load or during another append')
    const head = this.#checkedHead(block)
    assert(head !== null, `a key block that does not belong to stream ${this.#stream}`)
    if (this.#isFailed) throw new ReleveError('unavailable', `the key files in ${this.#directory} failed to sync`)
    this.#isBusy = true
    try {
      for (const [generation, file] of this.#files) {
        if (file.lastEpoch >= head.epoch) await this.#cut(generation, file, head.epoch)
      }
      const { handle, file } = await this.#openForWrite(head.generation)
      if ((await handle.stat()).size !== file.bytes) await handle.truncate(file.bytes)
      await writeAll(handle, block, file.bytes)
      await this.#sync(handle)
      file.bytes += block.length
      file.lastEpoch = head.epoch
    } finally {
      this.#isBusy = false
    }
  }

  /** Deletes a generation's file, after the checkpoint that no longer has it. Does nothing when it is gone already. */
  async drop(generation: number): Promise<void> {
    if (this.#current?.generation === generation) await this.close()
    this.#files.delete(generation)
    try {
      await unlink(this.pathOf(generation))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      return
    }
    await syncDirectory(this.#directory)
  }

  async close(): Promise<void> {
    const current = this.#current
    this.#current = null
    await current?.handle.close()
  }

  pathOf(generation: number): string {
    return join(this.#directory, `${String(generation).padStart(10, '0')}.keys`)
  }

  /** The head of a sound block of this stream (and generation), or null. */
  #checkedHead(block: Uint8Array, generation?: number): KeyBlockHead | null {
    const decoded = decodeKeyBlock(block)
    if (decoded === null || decoded.stream !== this.#stream) return null
    return generation === undefined || decoded.generation === generation ? decoded : null
  }

  async #openForWrite(generation: number): Promise<{ handle: FileHandle; file: KeyFile }> {
    let file = this.#files.get(generation)
    if (this.#current?.generation === generation && file !== undefined) return { handle: this.#current.handle, file }
    await this.close()
    const path = this.pathOf(generation)
    const handle = await open(path, file === undefined ? 'w+' : 'r+')
    this.#current = { generation, handle }
    if (file === undefined) {
      await syncDirectory(this.#directory)
      file = { path, bytes: 0, lastEpoch: -1 }
      this.#files.set(generation, file)
    }
    return { handle, file }
  }

  /** Takes the blocks of `epoch` and later off a file. */
  async #cut(generation: number, file: KeyFile, epoch: number): Promise<void> {
    const { handle } = await this.#openForWrite(generation)
    let bytes = 0
    let lastEpoch = -1
    while (bytes < file.bytes) {
      const block = await readBlock(handle, bytes, file.bytes)
      const head = block === null ? null : this.#checkedHead(block, generation)
      if (head === null) throw new Error(`FATAL: ${file.path} is damaged at offset ${bytes}`)
      if (head.epoch >= epoch) break
      bytes += head.bytes
      lastEpoch = head.epoch
    }
    await handle.truncate(bytes)
    await this.#sync(handle)
    file.bytes = bytes
    file.lastEpoch = lastEpoch
  }

  async #sync(handle: FileHandle): Promise<void> {
    try {
      await handle.datasync()
    } catch (cause) {
      // After a failed sync the kernel may have let the pages go as if they were written.
      this.#isFailed = true
      throw new ReleveError('unavailable', `the key files in ${this.#directory} failed to sync`, { cause })
    }
  }
}

/** The bytes of the block at an offset, or null when no block can stand there. */
async function readBlock(handle: FileHandle, at: number, size: number): Promise<Uint8Array | null> {
  if (at + BLOCK_HEADER_BYTES > size) return null
  const head = readKeyBlockHead(await readAll(handle, at, BLOCK_HEADER_BYTES))
  if (head === null || at + head.bytes > size) return null
  return readAll(handle, at, head.bytes)
}

/** A buffer of its own each time, so that the block can be transferred to the shard's thread. */
async function readAll(handle: FileHandle, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.from(new ArrayBuffer(length))
  let done = 0
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, at + done)
    if (bytesRead === 0) throw new Error('cannot read a key file to the end that it had')
    done += bytesRead
  }
  return bytes
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at + done)
    done += bytesWritten
  }
}

export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
