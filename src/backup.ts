/**
 * Backup and restore of a data directory, while the service runs and takes events.
 *
 * A backup is itself a data directory, with `backup.json` (every file, its size and SHA-256) beside it. It holds everything that
 * was acknowledged before it began; restored, it is a service that was killed at that moment and starts again.
 *
 *   copy PostgreSQL's files (slow)  ►  hold all flushes and folds  ►  PostgreSQL's moment ► ClickHouse's moment ► key files linked
 *   ► records behind the checkpoints copied  ►  let go  ►  copy what was frozen and linked (slow)  ►  hash, sync, rename
 *
 * Why this is one state: while flushes are held, no checkpoint is written, no row inserted and no key file touched, so the
 * checkpoints in PostgreSQL, the rows in ClickHouse and the key files agree, and the log has all that lies behind them. Events are taken
 * meanwhile. A kill in the middle leaves a directory that ends in `.partial`, which the next backup removes.
 *
 * Not for outside engines: those have backups of their own, and nothing here makes two servers stand still at one moment.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { link, lstat, mkdir, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { Clock } from './clock.js'
import { copyOne, copyTree, dropFrozen, freezeClickHouse, type OnFile, PostgresCopy } from './engines/copy.js'
import { type Engines, lockDataDirectory } from './engines/engines.js'
import { ReleveError } from './errors.js'
import type { StreamFlow } from './flow.js'
import { copyRecords } from './log/copy.js'
import type { Log } from './log/log.js'

const MANIFEST = 'backup.json'
const PINS = 'backup-pins'
const NAME = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}Z$/
/** Of the data directory: made anew by a start, or copied in a way of their own. */
const ownWay = new Set(['lock', 'service.json', 'clickhouse', 'postgres', 'keys', 'log', 'backups', PINS])

export interface BackupFile {
  readonly path: string
  readonly bytes: number
  readonly sha256: string
}

export interface BackupManifest {
  readonly version: string
  /** ISO time of the moment that the backup shows. */
  readonly takenAt: string
  readonly streams: readonly { readonly stream: number; readonly checkpoint: number; readonly last: number }[]
  readonly files: readonly BackupFile[]
}

export interface BackupState {
  readonly name: string
  readonly directory: string
  readonly state: 'running' | 'done' | 'failed'
  readonly step: string
  readonly files: number
  readonly bytes: number
  /** How long flushes were held, ms; events were taken meanwhile. Null until then. */
  readonly heldMs: number | null
  readonly error: string | null
}

export interface BackupOptions {
  readonly dataDirectory: string
  /** Holds one directory per backup. */
  readonly backupDirectory: string
  readonly version: string
  readonly engines: Engines
  readonly flows: readonly StreamFlow[]
  readonly log: () => Log
  readonly clock: Clock
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

export class Backups {
  readonly #options: BackupOptions
  #last: Mutable<BackupState> | undefined
  #running: Promise<void> = Promise.resolve()

  constructor(options: BackupOptions) {
    this.#options = options
  }

  /** The one that runs, or ran last in this process. */
  state(): BackupState | undefined {
    return this.#last
  }

  /** Begins one; `conflict` while another runs or when an engine is outside. */
  begin(): BackupState {
    const { engines, clock, backupDirectory } = this.#options
    for (const [name, { kind }] of Object.entries(engines.state())) {
      if (kind === 'outside')
        throw new ReleveError(
          'conflict',
          `${name} is a server outside: back it up with its own means, with the service stopped, together with the data directory`,
        )
    }
    if (this.#last?.state === 'running') throw new ReleveError('conflict', `the backup ${this.#last.name} is running`)
    const name = new Date(clock.now()).toISOString().slice(0, 19).replaceAll(':', '-').concat('Z')
    const directory = join(backupDirectory, name)
    const state: Mutable<BackupState> = {
      name,
      directory,
      state: 'running',
      step: 'PostgreSQL',
      files: 0,
      bytes: 0,
      heldMs: null,
      error: null,
    }
    this.#last = state
    this.#running = this.#take(state).then(
      () => {
        state.state = 'done'
        state.step = 'done'
      },
      (error: unknown) => {
        state.state = 'failed'
        state.error = error instanceof Error ? error.message : String(error)
      },
    )
    return state
  }

  /** Resolves when none runs. */
  async settled(): Promise<void> {
    await this.#running
  }

  async #take(state: Mutable<BackupState>): Promise<void> {
    const { dataDirectory, backupDirectory, engines, flows, clock } = this.#options
    const partial = `${state.directory}.partial`
    await mkdir(backupDirectory, { recursive: true, mode: 0o700 })
    for (const name of await readdir(backupDirectory)) {
      if (name.endsWith('.partial')) await rm(join(backupDirectory, name), { recursive: true, force: true })
    }
    if ((await lstat(state.directory).catch(() => undefined)) !== undefined)
      throw new Error(`cannot back up: ${state.directory} is there already`)
    const pins = join(dataDirectory, PINS)
    await rm(pins, { recursive: true, force: true })
    await dropFrozen(dataDirectory)
    await mkdir(partial, { mode: 0o700 })
    const onFile: OnFile = (bytes) => {
      state.files += 1
      state.bytes += bytes
    }
    const postgres = await PostgresCopy.begin(engines.postgres, dataDirectory, join(partial, 'postgres', 'data'))
    try {
      await postgres.copyFiles(onFile)
      state.step = 'the moment'
      const moment = await this.#hold(state, async () => {
        const copyWal = await postgres.stop()
        const frozen = await freezeClickHouse(engines.clickhouse, dataDirectory)
        const keys = await pin(join(dataDirectory, 'keys'), pins)
        const streams: { stream: number; checkpoint: number; last: number }[] = []
        for (const { stream, position, checkpointAt } of flows) {
          const directory = join(partial, 'log', `stream-${stream}`)
          const last = await copyRecords(this.#options.log(), stream, position.checkpoint + 1, checkpointAt, directory)
          streams.push({ stream, checkpoint: position.checkpoint, last })
        }
        return { copyWal, frozen, keys, streams, takenAt: new Date(clock.now()).toISOString() }
      })
      state.step = 'ClickHouse'
      await moment.copyWal(onFile)
      await moment.frozen.copy(join(partial, 'clickhouse', 'data'), onFile)
      await moment.frozen.release()
      state.step = 'ids'
      await mkdir(join(partial, 'keys'), { recursive: true, mode: 0o700 })
      for (const { path, bytes } of moment.keys) {
        const target = join(partial, 'keys', path)
        await mkdir(dirname(target), { recursive: true, mode: 0o700 })
        await copyOne(join(pins, path), target)
        // A later epoch may have been appended to the linked file meanwhile.
        await truncate(target, bytes)
        onFile(bytes)
      }
      for (const name of await readdir(dataDirectory)) {
        if (ownWay.has(name) || resolve(dataDirectory, name) === resolve(backupDirectory)) continue
        const [source, target] = [join(dataDirectory, name), join(partial, name)]
        if ((await lstat(source)).isDirectory()) await copyTree(source, target, { onFile })
        else onFile(await copyOne(source, target))
      }
      state.step = 'checksums'
      const files: BackupFile[] = []
      for await (const path of filesOf(partial)) files.push({ path, ...(await syncAndHash(join(partial, path))) })
      const manifest: BackupManifest = {
        version: this.#options.version,
        takenAt: moment.takenAt,
        streams: moment.streams,
        files,
      }
      await writeFile(join(partial, MANIFEST), `${JSON.stringify(manifest, null, 1)}\n`, { mode: 0o600, flush: true })
      await rename(partial, state.directory)
      const parent = await open(backupDirectory, 'r')
      await parent.sync().finally(() => parent.close())
    } finally {
      postgres.close()
      await rm(pins, { recursive: true, force: true })
      await dropFrozen(dataDirectory)
      await rm(partial, { recursive: true, force: true })
    }
  }

  async #hold<T>(state: Mutable<BackupState>, run: () => Promise<T>): Promise<T> {
    const holds = await Promise.all(this.#options.flows.map((flow) => flow.holdWrites()))
    const begun = performance.now()
    try {
      return await run()
    } finally {
      for (const release of holds) release()
      state.heldMs = Math.round(performance.now() - begun)
    }
  }
}

/** Links every file of a tree, so that it stays as long as it is needed. Same file system, milliseconds. */
async function pin(from: string, to: string): Promise<{ path: string; bytes: number }[]> {
  const pinned: { path: string; bytes: number }[] = []
  for await (const path of filesOf(from)) {
    // A run of ids that is being built: nobody needs it.
    if (/\.tmp(\.[0-9]+)?$/.test(path)) continue
    const { size } = await lstat(join(from, path))
    await mkdir(dirname(join(to, path)), { recursive: true, mode: 0o700 })
    await link(join(from, path), join(to, path))
    pinned.push({ path, bytes: size })
  }
  return pinned
}

async function* filesOf(root: string, below = ''): AsyncGenerator<string> {
  const entries = await readdir(join(root, below), { withFileTypes: true })
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = below === '' ? entry.name : `${below}/${entry.name}`
    if (entry.isDirectory()) yield* filesOf(root, path)
    else if (entry.isFile()) yield path
  }
}

async function hashOf(path: string): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const part of createReadStream(path)) {
    hash.update(part)
    bytes += part.length
  }
  return { bytes, sha256: hash.digest('hex') }
}

async function syncAndHash(path: string): Promise<{ bytes: number; sha256: string }> {
  const file = await open(path, 'r')
  await file.datasync().finally(() => file.close())
  return hashOf(path)
}

/**
 * Checks every file of a backup against its manifest.
 * @throws Error with the first file that is missing, too much or not what it was.
 */
export async function verifyBackup(directory: string, onFile: OnFile = () => {}): Promise<BackupManifest> {
  const text = await readFile(join(directory, MANIFEST), 'utf8').catch(() => {
    throw new Error(`cannot restore: ${directory} is no finished backup, it has no ${MANIFEST}`)
  })
  const manifest = JSON.parse(text) as BackupManifest
  const known = new Set(manifest.files.map(({ path }) => path))
  for await (const path of filesOf(directory)) {
    if (path !== MANIFEST && !known.has(path)) throw new Error(`cannot restore: ${path} does not belong to the backup`)
  }
  for (const file of manifest.files) {
    const found = await hashOf(join(directory, file.path)).catch(() => undefined)
    if (found === undefined) throw new Error(`cannot restore: ${file.path} is missing from the backup`)
    if (found.sha256 !== file.sha256)
      throw new Error(`cannot restore: ${file.path} is damaged (${found.bytes} bytes, ${file.bytes} expected)`)
    onFile(found.bytes)
  }
  return manifest
}

/** Makes a data directory of a backup. It must not be there, or be empty; the backup stays as it is. */
export async function restoreBackup(
  backup: string,
  dataDirectory: string,
  onFile: OnFile = () => {},
): Promise<BackupManifest> {
  const there = (await readdir(dataDirectory).catch(() => [])).filter((name) => name !== 'lock')
  if (there.length > 0)
    throw new Error(
      `cannot restore into ${dataDirectory}: it holds ${there[0]} already. Name another directory, or move this one away.`,
    )
  const manifest = await verifyBackup(backup, onFile)
  await mkdir(dataDirectory, { recursive: true, mode: 0o700 })
  const lock = lockDataDirectory(dataDirectory)
  try {
    await copyTree(backup, dataDirectory, { onFile, leaveOut: (path) => path === MANIFEST })
  } finally {
    lock.release()
  }
  return manifest
}

/** The finished backups of a directory, oldest first. */
export async function listBackups(backupDirectory: string): Promise<string[]> {
  return (await readdir(backupDirectory).catch(() => [])).filter((name) => NAME.test(name)).sort()
}
