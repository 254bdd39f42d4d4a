/**
 * Real files with failures in front of them. A `fault` is asked before every call and may throw what the disk would say; `cut`
 * takes the power away: of every write that was not synced each sector of 512 bytes is kept or undone at random, and of the
 * directory operations that were not synced a random number of the newest is undone. What was synced stays: that is all the
 * log may count on.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Disk, type LogFile, realDisk } from '../../src/log/disk.js'

export type DiskCall = 'open' | 'rename' | 'remove' | 'syncDirectory' | 'writev' | 'read' | 'sync' | 'truncate'

interface Unsynced {
  readonly position: number
  readonly before: Buffer
}

export function diskError(code: string): Error {
  return Object.assign(new Error(`${code}: made by the test`), { code })
}

export class FaultyDisk implements Disk {
  fault: (call: DiskCall, path: string) => void = () => {}
  readonly calls: Record<DiskCall, number> = {
    open: 0,
    rename: 0,
    remove: 0,
    syncDirectory: 0,
    writev: 0,
    read: 0,
    sync: 0,
    truncate: 0,
  }
  readonly writes = new Map<string, Unsynced[]>()
  readonly #operations = new Map<string, (() => void)[]>()

  before(call: DiskCall, path: string): void {
    this.calls[call] += 1
    this.fault(call, path)
  }

  async open(path: string, mode: 'create' | 'write' | 'read'): Promise<LogFile> {
    this.before('open', path)
    if (mode === 'create') {
      this.#journal(path, existsSync(path) ? restore(path) : () => rmSync(path, { force: true }))
      this.writes.delete(path)
    }
    return new FaultyFile(this, { path }, await realDisk.open(path, mode))
  }

  async rename(from: string, to: string): Promise<void> {
    this.before('rename', from)
    const undoTarget = existsSync(to) ? restore(to) : () => rmSync(to, { force: true })
    this.#journal(from, () => {
      const moved = readFileSync(to)
      undoTarget()
      writeFileSync(from, moved)
    })
    await realDisk.rename(from, to)
    this.writes.set(to, this.writes.get(from) ?? [])
    this.writes.delete(from)
    for (const file of this.files) if (file.path === from) file.path = to
  }

  async remove(path: string): Promise<void> {
    this.before('remove', path)
    if (existsSync(path)) this.#journal(path, restore(path))
    await realDisk.remove(path)
    this.writes.delete(path)
  }

  list(directory: string): Promise<string[]> {
    return realDisk.list(directory)
  }

  makeDirectory(path: string): Promise<void> {
    return realDisk.makeDirectory(path)
  }

  async syncDirectory(path: string): Promise<void> {
    this.before('syncDirectory', path)
    await realDisk.syncDirectory(path)
    this.#operations.delete(path)
  }

  /** Open files by their present name. */
  readonly files = new Set<{ path: string }>()

  /** Call when nothing uses the disk any more. `random(n)` answers an integer in [0, n). */
  cut(random: (below: number) => number): void {
    for (const [path, writes] of this.writes) {
      if (writes.length === 0 || !existsSync(path)) continue
      const bytes = readFileSync(path)
      for (const { position, before } of writes.toReversed()) {
        for (let at = 0; at < before.length; ) {
          const end = Math.min(before.length, at + 512 - ((position + at) % 512))
          if (random(2) === 0) before.copy(bytes, position + at, at, end)
          at = end
        }
      }
      writeFileSync(path, bytes)
    }
    for (const undos of this.#operations.values()) {
      for (const undo of undos.slice(random(undos.length + 1)).toReversed()) undo()
    }
  }

  #journal(path: string, undo: () => void): void {
    const directory = dirname(path)
    const undos = this.#operations.get(directory) ?? []
    undos.push(undo)
    this.#operations.set(directory, undos)
  }
}

function restore(path: string): () => void {
  const bytes = readFileSync(path)
  return () => writeFileSync(path, bytes)
}

class FaultyFile implements LogFile {
  readonly #disk: FaultyDisk
  readonly #name: { path: string }
  readonly #file: LogFile

  constructor(disk: FaultyDisk, name: { path: string }, file: LogFile) {
    this.#disk = disk
    this.#name = name
    this.#file = file
    disk.files.add(name)
  }

  async writev(buffers: readonly Uint8Array[], position: number): Promise<void> {
    this.#begin(buffers, position)
    await this.#file.writev(buffers, position)
  }

  writevNow(buffers: readonly Uint8Array[], position: number): number {
    this.#begin(buffers, position)
    return this.#file.writevNow(buffers, position)
  }

  #begin(buffers: readonly Uint8Array[], position: number): void {
    const { path } = this.#name
    this.#disk.before('writev', path)
    const length = buffers.reduce((total, buffer) => total + buffer.byteLength, 0)
    const before = Buffer.alloc(length)
    readFileSync(path).copy(before, 0, position, position + length)
    const writes = this.#disk.writes.get(path) ?? []
    writes.push({ position, before })
    this.#disk.writes.set(path, writes)
  }

  read(target: Uint8Array, position: number): Promise<number> {
    this.#disk.before('read', this.#name.path)
    return this.#file.read(target, position)
  }

  async sync(): Promise<void> {
    this.#disk.before('sync', this.#name.path)
    const writes = this.#disk.writes.get(this.#name.path)
    const count = writes?.length ?? 0
    await this.#file.sync()
    writes?.splice(0, count)
  }

  async truncate(bytes: number): Promise<void> {
    this.#disk.before('truncate', this.#name.path)
    await this.#file.truncate(bytes)
  }

  size(): Promise<number> {
    return this.#file.size()
  }

  close(): Promise<void> {
    this.#disk.files.delete(this.#name)
    return this.#file.close()
  }
}
