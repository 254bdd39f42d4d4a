/**
 * Builds a run from key files and older runs, in a thread of its own (workers/runs.ts): each key file is sorted, then all are merged.
 * Memory: two times 16 bytes for each id of the largest generation, a filter of 1.5 bytes for each id of the run, 256 KiB a source.
 *
 * It writes one file, synced, under the name it was given, and files beside it that it removes. Whether this becomes a run, and
 * what goes then, is id-files.ts' business; a death at any point leaves files that nobody reads.
 *
 * Needs the kernel. Without it no run is built, and what memory cannot hold waits in the log.
 */
import { closeSync, fdatasyncSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { growTo, type KernelConstant, type KernelMemory, openKernel } from '../kernel.js'
import { BLOCK_HEADER_BYTES, decodeKeyBlock, readKeyBlockHead } from './key-block.js'
import {
  ENTRY_BYTES,
  encodeRunHead,
  FILTER_BLOCK_BYTES,
  fencesAt,
  filterAt,
  filterBlocksFor,
  PAGE_BYTES,
  PAGE_ENTRIES,
  RunFile,
  sealPage,
} from './run-file.js'

export interface RunTask {
  readonly stream: number
  readonly first: number
  readonly last: number
  /** Oldest first: key files of one generation each, and runs. */
  readonly sources: readonly ({ readonly keys: string; readonly generation: number } | { readonly run: string })[]
  readonly target: string
}

export interface BuiltRun {
  readonly ids: number
  readonly marks: number
  /** Voids as the state counts them. */
  readonly voids: number
}

interface Exports {
  readonly memory: KernelMemory
  readonly RUN_FIXED_BYTES: KernelConstant
  readonly RUN_SOURCES: KernelConstant
  readonly RUN_SOURCES_MAX: KernelConstant
  runSort(at: number, to: number, count: number, buckets: number, bits: number): void
  runBegin(filter: number, blocks: number): void
  runOutput(at: number, end: number, used: number): void
  runMerge(sources: number): number
  runWritten(): number
  runIds(): number
  runMarks(): number
}

const BUFFER_PAGES = 64
const BUFFER_BYTES = PAGE_BYTES * BUFFER_PAGES
const OUTPUT_FULL = -1
const MERGED = -2

/** Entries in order, read piece by piece. */
interface Source {
  readonly entries: number
  readonly voids: number
  /** Up to a buffer's worth of entries into `bytes`; 0 at the end. Answers the bytes. */
  read(bytes: Buffer): number
  close(): void
}

export function buildRun(task: RunTask): BuiltRun {
  const sources: Source[] = []
  const sorted: string[] = []
  try {
    for (const source of task.sources) {
      if ('run' in source) sources.push(openRunSource(source.run, task.stream))
      else {
        const path = `${task.target}.${source.generation}`
        sorted.push(path)
        sources.push(sortKeys(source.keys, task.stream, source.generation, path))
      }
    }
    return mergeSources(task, sources)
  } finally {
    for (const source of sources) source.close()
    for (const path of sorted) rmSync(path, { force: true })
  }
}

function kernel(): Exports {
  const exports = openKernel<Exports>()
  if (exports === null) throw new Error('cannot build a run of ids: the kernel is not there (npm run build:kernel)')
  return exports
}

/** The entries of a key file, sorted into a file beside it. */
function sortKeys(path: string, stream: number, generation: number, target: string): Source {
  const file = openSync(path, 'r')
  const wasm = kernel()
  const at = wasm.RUN_FIXED_BYTES.value
  let count = 0
  let voids = 0
  try {
    const header = Buffer.alloc(BLOCK_HEADER_BYTES)
    for (let offset = 0; ; ) {
      const read = readSync(file, header, 0, BLOCK_HEADER_BYTES, offset)
      if (read === 0) break
      const head = read === BLOCK_HEADER_BYTES ? readKeyBlockHead(header) : null
      const bytes = Buffer.from(new ArrayBuffer(head?.bytes ?? 0))
      const block =
        head !== null && readSync(file, bytes, 0, head.bytes, offset) === head.bytes ? decodeKeyBlock(bytes) : null
      if (block === null || block.stream !== stream || block.generation !== generation) {
        throw new Error(`FATAL: ${path} is damaged at offset ${offset}`)
      }
      const entries = bytes.subarray(BLOCK_HEADER_BYTES)
      growTo(wasm.memory, at + ENTRY_BYTES * count + entries.length)
      new Uint8Array(wasm.memory.buffer).set(entries, at + ENTRY_BYTES * count)
      count += entries.length / ENTRY_BYTES
      voids += block.voids
      offset += block.bytes
    }
  } finally {
    closeSync(file)
  }
  // A page table over 16 entries a bucket, behind both copies.
  const bits = Math.max(1, Math.min(24, Math.ceil(Math.log2(Math.max(1, count / 16)))))
  const to = at + ENTRY_BYTES * count
  const buckets = to + ENTRY_BYTES * count
  growTo(wasm.memory, buckets + 4 * (2 ** bits + 1))
  wasm.runSort(at, to, count, buckets, bits)
  const out = openSync(target, 'w+')
  writeAll(out, new Uint8Array(wasm.memory.buffer, to, ENTRY_BYTES * count), 0)
  let position = 0
  return {
    entries: count,
    voids,
    read: (bytes) => {
      const read = readSync(out, bytes, 0, Math.min(bytes.length, ENTRY_BYTES * count - position), position)
      position += read
      return read
    },
    close: () => closeSync(out),
  }
}

function openRunSource(path: string, stream: number): Source {
  const run = new RunFile(path, stream)
  const pages = Buffer.alloc(BUFFER_BYTES)
  let next = 0
  return {
    entries: run.head.ids + run.head.marks,
    voids: run.head.voids,
    read: (bytes) => {
      const count = Math.min(BUFFER_PAGES, run.head.pages - next)
      if (count === 0) return 0
      const entries = run.readPages(pages, next, count)
      for (let page = 0; page < count; page += 1) {
        pages.copy(
          bytes,
          page * PAGE_ENTRIES * ENTRY_BYTES,
          page * PAGE_BYTES,
          page * PAGE_BYTES + PAGE_ENTRIES * ENTRY_BYTES,
        )
      }
      next += count
      return entries * ENTRY_BYTES
    },
    close: () => run.close(),
  }
}

function mergeSources(task: RunTask, sources: readonly Source[]): BuiltRun {
  const wasm = kernel()
  if (sources.length > wasm.RUN_SOURCES_MAX.value) throw new Error(`cannot merge ${sources.length} sources of ids`)
  const most = sources.reduce((sum, source) => sum + source.entries, 0)
  const blocks = filterBlocksFor(most)
  // An entry that was left of the last piece stands in front of the next one.
  const inputAt = (i: number): number => base + i * (BUFFER_BYTES + ENTRY_BYTES)
  const base = Math.ceil(wasm.RUN_FIXED_BYTES.value / 64) * 64
  const outputAt = Math.ceil(inputAt(sources.length) / 64) * 64
  const filter = outputAt + BUFFER_BYTES
  growTo(wasm.memory, filter + FILTER_BLOCK_BYTES * blocks)
  const memory = Buffer.from(wasm.memory.buffer)
  const table = new Uint32Array(wasm.memory.buffer, wasm.RUN_SOURCES.value, 4 * sources.length)

  const load = (i: number): void => {
    const [next, end] = [table[4 * i]!, table[4 * i + 1]!]
    const left = end - next
    memory.copyWithin(inputAt(i), next, end)
    const read = sources[i]!.read(memory.subarray(inputAt(i) + left, inputAt(i) + left + BUFFER_BYTES))
    table.set([inputAt(i), inputAt(i) + left + read, read === 0 ? 1 : 0, i], 4 * i)
  }
  for (let i = 0; i < sources.length; i += 1) table.set([inputAt(i), inputAt(i), 0, i], 4 * i)

  const out = openSync(task.target, 'w')
  try {
    const fences = new Uint32Array(Math.ceil(most / PAGE_ENTRIES))
    let pages = 0
    const flush = (last: boolean): void => {
      const written = wasm.runWritten() - outputAt
      const whole = Math.floor(written / PAGE_BYTES)
      const rest = written - whole * PAGE_BYTES
      const count = whole + (last && rest > 0 ? 1 : 0)
      for (let i = 0; i < count; i += 1) {
        const page = memory.subarray(outputAt + PAGE_BYTES * i, outputAt + PAGE_BYTES * (i + 1))
        const entries = i < whole ? PAGE_ENTRIES : rest / ENTRY_BYTES
        page.fill(0, ENTRY_BYTES * entries)
        fences[pages + i] = page.readUInt32LE(4)
        sealPage(page, pages + i, entries, task.last)
      }
      writeAll(out, memory.subarray(outputAt, outputAt + PAGE_BYTES * count), PAGE_BYTES * (1 + pages))
      pages += count
      memory.copyWithin(outputAt, outputAt + PAGE_BYTES * whole, outputAt + written)
      wasm.runOutput(outputAt, outputAt + BUFFER_BYTES, rest)
    }

    wasm.runBegin(filter, blocks)
    wasm.runOutput(outputAt, outputAt + BUFFER_BYTES, 0)
    for (;;) {
      const step = wasm.runMerge(sources.length)
      if (step === MERGED) break
      if (step === OUTPUT_FULL) flush(false)
      else if (step >= 0) load(step)
      else
        throw new Error(
          `FATAL: an id is twice in the generations ${task.first} to ${task.last} of stream ${task.stream}`,
        )
    }
    flush(true)

    const fenceBytes = Buffer.from(fences.buffer, 0, 4 * pages)
    const filterBytes = memory.subarray(filter, filter + FILTER_BLOCK_BYTES * blocks)
    const [ids, marks] = [wasm.runIds(), wasm.runMarks()]
    const voids = sources.reduce((sum, source) => sum + source.voids, 0)
    writeAll(out, fenceBytes, fencesAt(pages))
    writeAll(out, filterBytes, filterAt(pages))
    const head = {
      ...{ stream: task.stream, first: task.first, last: task.last, pages, filterBlocks: blocks, ids, marks, voids },
      ...{ fencesCrc: crc32(fenceBytes), filterCrc: crc32(filterBytes) },
    }
    writeAll(out, encodeRunHead(head), 0)
    fdatasyncSync(out)
    return { ids, marks, voids }
  } finally {
    closeSync(out)
  }
}

function writeAll(file: number, bytes: Uint8Array, at: number): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done, at + done)
}
