/**
 * Opening a stream after whatever happened to it: finds its segments, reads the last one whole, and decides what of it counts.
 *
 * The synced position S is the highest of: what the name of the last segment says (everything before it), the highest
 * syncedSequence in its valid records, and the position that the caller knows (a checkpoint). Up to S everything was
 * acknowledged, so what is missing is lost and is named. Behind S records may be whole, because their sync had not ended or had
 * not been answered: they are the tail. The tail counts up to its first damaged byte, and the rest is cut.
 *
 * Nothing is ever written into the old segment again. After a failed sync the page cache may show records that the disk does not
 * have, so the stream copies the tail into a new segment, synced, that begins at S + 1 and so ends the old one there.
 * Earlier segments are only checked for being there; their records are verified when they are read.
 */
import type { Logger } from '../logger.js'
import type { Disk } from './disk.js'
import {
  gapsOf,
  parseSegmentName,
  type Run,
  readHeader,
  type Segment,
  type SegmentHeader,
  scanSegment,
  withFile,
} from './segment.js'

/** A range that is gone, and the segment that had to hold it: a later scan of that segment speaks again for all of it. */
export interface LostInSegment {
  readonly segmentFirst: number
  readonly from: number
  readonly to: number
  readonly reason: string
}

export interface Recovered {
  /** Oldest first; none of them is written any more. */
  readonly segments: Segment[]
  readonly lost: LostInSegment[]
  /** S: the next segment begins right behind it. */
  readonly syncedSequence: number
  /** S, or more when there is a tail: records S + 1 … last. */
  readonly lastSequence: number
  /** Where the tail is read from. */
  readonly tail: { readonly path: string; readonly header: SegmentHeader; readonly runs: readonly Run[] } | undefined
  readonly receivedAt: number
}

/** Reads the directory of a stream; it must exist. Rejects with «cannot …» when it cannot be read at all. */
export async function recoverStream(
  disk: Disk,
  directory: string,
  stream: number,
  knownPosition: number,
  logger: Logger,
): Promise<Recovered> {
  const segments = await listSegments(disk, directory, stream)
  const lost: LostInSegment[] = []
  let known = knownPosition
  // Without its id nothing in the last segment can be read, and it may not be taken for an empty one.
  while (segments.length > 0 && segments.at(-1)!.header === undefined) {
    const damaged = segments.pop()!
    known = Math.max(known, damaged.first)
    await disk.rename(damaged.path, `${damaged.path}.damaged`)
    logger.error(
      { stream, path: damaged.path },
      'the last log segment has no readable header: it was put aside as .damaged',
    )
  }
  const last = segments.pop()
  if (last === undefined) {
    if (known > 0) lost.push({ segmentFirst: 0, from: 1, to: known, reason: 'no segment holds them' })
    return { segments, lost, syncedSequence: known, lastSequence: known, tail: undefined, receivedAt: 0 }
  }
  await checkContinuity(disk, [...segments, last], lost)

  const header = last.header!
  const scan = await withFile(disk, last.path, (file) =>
    scanSegment(file, header, Number.MAX_SAFE_INTEGER, last.fileBytes),
  )
  const syncedSequence = Math.max(scan.syncedSequence, known)
  const { kept, lastSequence, gaps } = keepRuns(scan.runs, last.first, syncedSequence)
  for (const gap of gaps)
    lost.push({ segmentFirst: last.first, ...gap, reason: 'damaged or missing in the last segment' })
  const cut = scan.runs.length - kept.length
  if (cut > 0) logger.warn({ stream, path: last.path, behind: lastSequence }, 'cut the torn tail of the log')

  const tailRuns = kept.filter((run) => run.last > syncedSequence).map((run) => ({ ...run }))
  if (last.first <= syncedSequence) {
    last.runs = kept.filter((run) => run.first <= syncedSequence)
    for (const run of last.runs) run.last = Math.min(run.last, syncedSequence)
    segments.push(last)
  }
  return {
    segments,
    lost,
    syncedSequence,
    lastSequence,
    tail: tailRuns.length > 0 ? { path: last.path, header, runs: tailRuns } : undefined,
    receivedAt: Math.max(header.receivedAt, scan.receivedAt),
  }
}

/** Which runs of the last segment count: all up to the first gap that reaches behind the synced position. */
function keepRuns(
  runs: readonly Run[],
  first: number,
  syncedSequence: number,
): { kept: Run[]; lastSequence: number; gaps: { from: number; to: number }[] } {
  const kept: Run[] = []
  let expected = first
  for (const run of runs) {
    if (run.first > expected && run.first - 1 > syncedSequence) break
    kept.push(run)
    expected = run.last + 1
  }
  const lastSequence = Math.max(expected - 1, syncedSequence)
  return { kept, lastSequence, gaps: gapsOf(kept, first, syncedSequence) }
}

async function listSegments(disk: Disk, directory: string, stream: number): Promise<Segment[]> {
  const firsts: [number, string][] = []
  for (const name of await disk.list(directory)) {
    const path = `${directory}/${name}`
    const first = parseSegmentName(name)
    if (first !== undefined) firsts.push([first, path])
    else if (/^spare(-\d+)?$/.test(name)) await disk.remove(path)
  }
  firsts.sort(([a], [b]) => a - b)
  const segments: Segment[] = []
  for (const [first, path] of firsts) {
    segments.push(
      await withFile(disk, path, async (file) => ({
        first,
        path,
        header: await readHeader(file, stream, first),
        fileBytes: await file.size(),
        runs: undefined,
        readers: 0,
        file: undefined,
      })),
    )
  }
  return segments
}

/** A segment that does not know the one before it follows a missing file: the one before is then read to say what is missing. */
async function checkContinuity(disk: Disk, segments: readonly Segment[], lost: LostInSegment[]): Promise<void> {
  for (const [index, segment] of segments.entries()) {
    const next = segments[index + 1]
    if (next === undefined) return
    if (segment.header === undefined) {
      segment.runs = []
      const reason = 'the header of their segment is damaged'
      lost.push({ segmentFirst: segment.first, from: segment.first, to: next.first - 1, reason })
    } else if (next.header !== undefined && next.header.previousFirst !== segment.first) {
      const header = segment.header
      const scan = await withFile(disk, segment.path, (file) =>
        scanSegment(file, header, next.first - 1, segment.fileBytes),
      )
      segment.runs = scan.runs
      for (const gap of gapsOf(scan.runs, segment.first, next.first - 1)) {
        lost.push({ segmentFirst: segment.first, ...gap, reason: 'damaged, or a segment file is missing' })
      }
    }
  }
}
