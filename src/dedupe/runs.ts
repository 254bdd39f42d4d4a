/**
 * The runs of a stream as the shard's thread asks them: which of some ids are on disk. A filter in memory answers for nearly all of
 * those that are not; for the others one page is read, synchronously: the frame waits for it and nobody else does.
 *
 * Without the kernel there are no filters, and a page is read for each id and run: right, and very slow.
 */
import { crc32 } from 'node:zlib'
import { growTo, type KernelConstant, type KernelMemory, openKernel } from '../kernel.js'
import { limits } from '../limits.js'
import { ENTRY_WORDS } from './key-block.js'
import { FILTER_BLOCK_BYTES, filterAt, RunFile } from './run-file.js'

/** What the runs know of an id. */
export const Known = { nothing: 0, id: 1, voided: 3 } as const

interface Exports {
  readonly memory: KernelMemory
  readonly RUN_FIXED_BYTES: KernelConstant
  filterProbe(at: number, count: number, filter: number, blocks: number, hits: number): number
}

/** Read per call of load(): a few milliseconds. */
const SLICE_BYTES = 4 * 1024 * 1024
/** Entries asked at once. */
const PROBE_MAX = limits.batchEventsMax

/** The filter of one run, in a kernel memory of its own, which goes when the run goes. */
class Filter {
  readonly #kernel: Exports
  readonly #blocks: number
  readonly #wordsAt: number
  readonly #hitsAt: number
  readonly #at: number
  readonly #words: Int32Array
  readonly #hits: Uint32Array

  constructor(kernel: Exports, blocks: number) {
    this.#kernel = kernel
    this.#blocks = blocks
    this.#wordsAt = kernel.RUN_FIXED_BYTES.value
    this.#hitsAt = this.#wordsAt + 4 * ENTRY_WORDS * PROBE_MAX
    this.#at = Math.ceil((this.#hitsAt + 4 * (PROBE_MAX + 1)) / FILTER_BLOCK_BYTES) * FILTER_BLOCK_BYTES
    growTo(kernel.memory, this.#at + FILTER_BLOCK_BYTES * blocks)
    this.#words = new Int32Array(kernel.memory.buffer, this.#wordsAt, ENTRY_WORDS * PROBE_MAX)
    this.#hits = new Uint32Array(kernel.memory.buffer, this.#hitsAt, PROBE_MAX + 1)
  }

  get bytes(): number {
    return this.#kernel.memory.buffer.byteLength
  }

  /** Where the filter's bytes belong. */
  get target(): Uint8Array {
    return new Uint8Array(this.#kernel.memory.buffer, this.#at, FILTER_BLOCK_BYTES * this.#blocks)
  }

  /** Places, among the first `count` entries, of those that may be in the run. Valid until the next call. */
  probe(words: Int32Array, count: number): Uint32Array {
    this.#words.set(words.length === ENTRY_WORDS * count ? words : words.subarray(0, ENTRY_WORDS * count))
    return this.#hits.subarray(0, this.#kernel.filterProbe(this.#wordsAt, count, this.#at, this.#blocks, this.#hitsAt))
  }
}

export interface RunStats {
  /** Entries in runs on disk. */
  readonly diskEntries: number
  readonly runs: number
  /** Memory of the runs: filters and fences. */
  readonly runBytes: number
  /** Since the start: questions to a filter, those that it did not answer with no, and pages read for these. */
  readonly filterAsked: number
  readonly filterHits: number
  readonly pageReads: number
}

/** A run that is ready to be asked. */
export interface OpenRun {
  readonly head: RunFile['head']
  readonly file: RunFile
  readonly filter: Filter | null
}

export class Runs {
  readonly #stream: number
  readonly #useKernel: boolean
  /** Oldest first. */
  #runs: readonly OpenRun[] = []
  #loading: { readonly run: OpenRun; done: number; crc: number } | null = null
  /** Of each entry: the run of its id, and of its void, by last generation; −1 for none. */
  readonly #idAt = new Float64Array(PROBE_MAX)
  readonly #markAt = new Float64Array(PROBE_MAX)
  #filterAsked = 0
  #filterHits = 0
  /** Of runs that are closed. */
  #pageReads = 0

  constructor(stream: number, useKernel: boolean) {
    this.#stream = stream
    this.#useKernel = useKernel
  }

  get length(): number {
    return this.#runs.length
  }

  find(words: Int32Array, count: number, known: Uint8Array, tags: Int32Array): void {
    this.#idAt.fill(-1, 0, count)
    this.#markAt.fill(-1, 0, count)
    for (const run of this.#runs) {
      const hits = run.filter?.probe(words, count)
      const length = hits?.length ?? count
      this.#filterAsked += count
      this.#filterHits += length
      for (let i = 0; i < length; i += 1) {
        const entry = hits?.[i] ?? i
        const found = run.file.find(words, ENTRY_WORDS * entry)
        if ((found & 1) !== 0) {
          this.#idAt[entry] = run.head.last
          tags[entry] = run.file.tag
        }
        if ((found & 2) !== 0) this.#markAt[entry] = run.head.last
      }
    }
    for (let i = 0; i < count; i += 1) {
      known[i] = this.#idAt[i] === -1 ? Known.nothing : this.#markAt[i]! >= this.#idAt[i]! ? Known.voided : Known.id
    }
  }

  /** One slice of the opening of a run; the run when it is ready. Throws «FATAL: …» when it is damaged. */
  load(path: string): OpenRun | null {
    if (this.#loading?.run.file.path !== path) {
      this.#loading?.run.file.close()
      this.#loading = null
      const file = new RunFile(path, this.#stream)
      const kernel = this.#useKernel ? openKernel<Exports>() : null
      const filter = kernel === null ? null : new Filter(kernel, file.head.filterBlocks)
      this.#loading = { run: { head: file.head, file, filter }, done: 0, crc: 0 }
    }
    const loading = this.#loading
    const { file, filter, head } = loading.run
    if (filter !== null) {
      const target = filter.target
      const slice = target.subarray(loading.done, loading.done + SLICE_BYTES)
      file.readInto(slice, filterAt(head.pages) + loading.done)
      loading.crc = crc32(slice, loading.crc)
      loading.done += slice.length
      if (loading.done < target.length) return null
      if (loading.crc !== head.filterCrc) file.damaged(filterAt(head.pages))
    }
    this.#loading = null
    return loading.run
  }

  /** From now on the run is asked, in place of those whose generations it has. */
  adopt(run: OpenRun): void {
    const { first, last } = run.head
    const isInside = (one: OpenRun): boolean => first <= one.head.first && one.head.last <= last
    for (const one of this.#runs) if (isInside(one)) this.discard(one)
    this.#runs = [...this.#runs.filter((one) => !isInside(one)), run].sort((a, b) => a.head.first - b.head.first)
  }

  discard(run: OpenRun): void {
    this.#pageReads += run.file.reads
    run.file.close()
  }

  /** Forgets the runs whose generations are not younger than this one. */
  dropThrough(number: number): void {
    for (const run of this.#runs) if (run.head.last <= number) this.discard(run)
    this.#runs = this.#runs.filter((run) => run.head.last > number)
  }

  stats(): RunStats {
    let [diskEntries, runBytes, pageReads] = [0, 0, this.#pageReads]
    for (const { head, file, filter } of this.#runs) {
      diskEntries += head.ids + head.marks
      runBytes += (filter?.bytes ?? 0) + file.fences.byteLength
      pageReads += file.reads
    }
    return {
      diskEntries,
      runs: this.#runs.length,
      runBytes,
      filterAsked: this.#filterAsked,
      filterHits: this.#filterHits,
      pageReads,
    }
  }

  close(): void {
    for (const run of this.#runs) this.discard(run)
    this.#runs = []
    this.#loading?.run.file.close()
    this.#loading = null
  }
}
