/**
 * The ids of a stream on disk, on the main thread: key files of the generations that are in memory (key-files.ts), and runs of those
 * that are not (run-file.ts). It decides when a run is built, makes it known to the shard, and deletes what is no longer needed.
 *
 *   key files 1 2 3 4 ──► build ──► 1-4.run.tmp ──► rename: 1-4.run ──► the shard attaches it ──► key files 1 2 3 4 are deleted
 *   runs 1-4 5-8      ──► build ──► …
 *
 * What belongs together is said by the state of a checkpoint (joined generations, generations.ts), and only closed generations are
 * joined. So the files that go into a run never change again, and no epoch of theirs can be cut off.
 *
 * A death, step by step; each time the next load() finds one of the two, whole:
 *   while a run is built       its .tmp files are deleted; the sources are there and it is built again.
 *   after it is written        the same: only the rename makes it a run, and it is synced before.
 *   after the rename           the run is attached; sources that it covers are deleted. The directory is synced before any of them
 *                              goes, so that a power loss cannot keep the deletion and lose the rename.
 *   after it is attached       the same. The shard knew the ids from memory until then, and from the run since.
 *   while sources are deleted  the same.
 *   before a checkpoint        generations that it drops have their files still; after it they go, or at the next load.
 *
 * Nothing of this is seen in a verdict: an id is known when its generation lives, wherever it lies. A damaged or missing file at or
 * below the checkpoint is told with its name and stops the start; the ids in it would otherwise count again.
 *
 * A full disk: the build fails, is told in health, and is done again. Memory holds what it can; then the stream waits, and nothing
 * is forgotten for it. Only the bound on ids (limits.ts) forgets, through the floor that the door is told.
 */
import { readdir, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from '../logger.js'
import { type DedupeState, firstOf } from './generations.js'
import { KeyFiles, syncDirectory } from './key-files.js'
import type { RunTask } from './run-builder.js'
import { parseRunName, runName } from './run-file.js'
import type { RunPool } from './run-pool.js'

/** Steps of a run's way, where a test may let the process die. */
export type RunStep = 'written' | 'renamed' | 'attached' | 'cleared'

export interface IdFilesOptions {
  /** Belongs to this stream alone. */
  readonly directory: string
  readonly stream: number
  readonly pool: RunPool
  /** Dedupe.attachRun() of the stream's shard. */
  readonly attachRun: (path: string) => Promise<boolean>
  readonly logger: Logger
  readonly onFatal: (error: Error) => void
  readonly onStep?: (step: RunStep) => void
}

interface Range {
  readonly first: number
  readonly last: number
}

const ROOM_WAIT_MS = 200
const RETRY_MS = 1_000
const RETRY_MAX_MS = 30_000

const isInside = (inner: Range, outer: Range): boolean => outer.first <= inner.first && inner.last <= outer.last

export class IdFiles {
  readonly #o: IdFilesOptions
  readonly #keyFiles: KeyFiles
  /** Oldest first, without a gap. */
  #runs: Range[] = []
  /** Of the last checkpoint. */
  #state: DedupeState | null = null
  #working: Promise<void> | null = null
  #retry: NodeJS.Timeout | undefined
  #retryMs = RETRY_MS
  #waiting: (() => void)[] = []
  /** The placing of a run, or a hold: one after the other. */
  #placing: Promise<void> = Promise.resolve()
  #isClosed = false
  #fault: string | null = null

  private constructor(options: IdFilesOptions, keyFiles: KeyFiles) {
    this.#o = options
    this.#keyFiles = keyFiles
  }

  static async open(options: IdFilesOptions): Promise<IdFiles> {
    return new IdFiles(options, await KeyFiles.open(options.directory, options.stream))
  }

  /** What a build stumbles over at present; null when all is well. */
  get fault(): string | null {
    return this.#fault
  }

  /**
   * Attaches the runs of a checkpoint's state to the shard, which must have begun its restore, and gives the key blocks of what
   * is not in runs, in their order. Everything else is deleted. To be read to its end. Throws «FATAL: …» when a file that the
   * state needs is missing or damaged.
   */
  async *load(state: DedupeState | null): AsyncGenerator<Uint8Array, void, void> {
    const { directory, attachRun } = this.#o
    const generations = state?.generations ?? []
    const oldest = generations[0] === undefined ? Number.POSITIVE_INFINITY : firstOf(generations[0])
    const names = await readdir(directory)
    const found = names.flatMap((name) => parseRunName(name) ?? []).sort((a, b) => a.first - b.first || b.last - a.last)
    const kept = found.filter(
      (run) => run.last >= oldest && !found.some((other) => other !== run && isInside(run, other)),
    )
    const stale = found.filter((run) => !kept.includes(run)).map(({ first, last }) => runName(first, last))
    for (const name of [...names.filter((one) => /\.tmp(\.[0-9]+)?$/.test(one)), ...stale]) {
      await unlink(join(directory, name))
    }
    let next = oldest
    for (const run of kept) {
      const path = join(directory, runName(run.first, run.last))
      const of = generations.find((one) => isInside(run, { first: firstOf(one), last: one.number }))
      if (of === undefined) {
        throw new Error(`FATAL: ${path} is not of the checkpoint of epoch ${state!.epoch}: another checkpoint's file`)
      }
      if (run.first !== next) {
        throw new Error(`FATAL: ${directory} has no run with the ids of the generations ${next} to ${run.first - 1}`)
      }
      while (!(await attachRun(path)));
      next = run.last + 1
    }
    this.#runs = kept
    yield* this.#keyFiles.load(state, next)
    this.#state = state
    this.#work()
  }

  /** KeyFiles.append(). */
  append(block: Uint8Array): Promise<void> {
    return this.#keyFiles.append(block)
  }

  /** After a checkpoint with this state, which no longer has the `dropped` generations: their files go, and runs are built. */
  async settled(state: DedupeState, dropped: readonly number[]): Promise<void> {
    this.#state = state
    if (dropped.length > 0) await this.#dropThrough(Math.max(...dropped))
    this.#work()
  }

  /** Resolves when memory may have room again: a run was attached, or it is time to look. */
  async room(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ROOM_WAIT_MS)
      this.#waiting.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  /** Resolves when no run takes the place of its sources, and none does until what it answers is called. */
  async hold(): Promise<() => void> {
    let release = (): void => {}
    const before = this.#placing
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    this.#placing = before.then(() => held)
    await before
    return release
  }

  /** Resolves when nothing is being built. Of a build that failed another one may come. */
  async idle(): Promise<void> {
    while (this.#working !== null) await this.#working
  }

  /** Waits for what is being built: close the pool as well, at the same time. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#retry)
    await this.#working
    await this.#keyFiles.close()
  }

  #work(): void {
    if (this.#working !== null || this.#isClosed) return
    this.#working = this.#buildAll().finally(() => {
      this.#working = null
    })
  }

  async #buildAll(): Promise<void> {
    try {
      for (let task = this.#next(); task !== null && !this.#isClosed; task = this.#next()) await this.#build(task)
      this.#fault = null
      this.#retryMs = RETRY_MS
    } catch (error) {
      if (this.#isClosed) return
      const { stream, logger, onFatal } = this.#o
      const { message } = error as Error
      if (/^(BUG|FATAL):/.test(message)) return onFatal(error as Error)
      this.#fault = `ids cannot go to disk: ${message}`
      logger.warn({ stream, error: message }, 'a run of ids was not built, done again')
      clearTimeout(this.#retry)
      this.#retry = setTimeout(() => this.#work(), this.#retryMs)
      this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MAX_MS)
    }
  }

  /** The oldest generation that belongs on disk and is not one run there. */
  #next(): RunTask | null {
    const { directory, stream } = this.#o
    for (const generation of this.#state?.generations ?? []) {
      if (generation.level === undefined) return null
      const range = { first: firstOf(generation), last: generation.number }
      const runs = this.#runs.filter((run) => isInside(run, range))
      if (runs.length === 1 && isInside(range, runs[0]!)) continue
      const sources: RunTask['sources'][number][] = []
      for (let number = range.first; number <= range.last; number += 1) {
        const run = runs.find(({ first, last }) => first <= number && number <= last)
        if (run === undefined) sources.push({ keys: this.#keyFiles.pathOf(number), generation: number })
        else {
          sources.push({ run: join(directory, runName(run.first, run.last)) })
          number = run.last
        }
      }
      return { stream, ...range, sources, target: join(directory, `${runName(range.first, range.last)}.tmp`) }
    }
    return null
  }

  async #build(task: RunTask): Promise<void> {
    const { stream, pool, logger, onStep = () => {} } = this.#o
    const started = performance.now()
    let built: Awaited<ReturnType<RunPool['build']>>
    try {
      built = await pool.build(task)
    } catch (error) {
      await unlink(task.target).catch(() => {})
      throw error
    }
    onStep('written')
    const placed = this.#placing.then(() => this.#place(task))
    this.#placing = placed.catch(() => {})
    await placed
    logger.info(
      { stream, first: task.first, last: task.last, ...built, ms: Math.round(performance.now() - started) },
      'ids went to disk',
    )
  }

  /** Puts a run that is written in the place of its sources. */
  async #place(task: RunTask): Promise<void> {
    const { directory, attachRun, onStep = () => {} } = this.#o
    const path = join(directory, runName(task.first, task.last))
    await rename(task.target, path)
    await syncDirectory(directory)
    onStep('renamed')
    while (!(await attachRun(path)));
    onStep('attached')
    for (const wake of this.#waiting.splice(0)) wake()
    const run = { first: task.first, last: task.last }
    const replaced = this.#runs.filter((one) => isInside(one, run))
    this.#runs = [...this.#runs.filter((one) => !isInside(one, run)), run].sort((a, b) => a.first - b.first)
    for (let number = run.first; number <= run.last; number += 1) await this.#keyFiles.drop(number)
    for (const { first, last } of replaced) await unlink(join(directory, runName(first, last)))
    // Forgotten while it was built.
    const oldest = this.#state!.generations[0]!
    if (run.last < firstOf(oldest)) await this.#dropThrough(run.last)
    onStep('cleared')
  }

  /** Deletes what holds no generation younger than this one. */
  async #dropThrough(number: number): Promise<void> {
    for (const generation of this.#keyFiles.generations()) {
      if (generation <= number) await this.#keyFiles.drop(generation)
    }
    for (const { first, last } of this.#runs) {
      if (last <= number) await unlink(join(this.#o.directory, runName(first, last)))
    }
    this.#runs = this.#runs.filter(({ last }) => last > number)
  }
}
