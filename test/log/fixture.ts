/**
 * Directories and logs for the tests of this room: every directory goes away with its test, every log is closed, and a «crash»
 * is a copy of the directory taken while the log is open, so that nothing a close would tidy is tidy.
 */
import { cpSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { type FileLog, type FileLogOptions, openFileLog } from '../../src/log/files.js'
import type { LogRecord } from '../../src/log/log.js'
import { silentLogger } from '../../src/logger.js'
import { tinySegmentBytes } from './payload.js'

export function newDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'releve-log-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A log that fails the test when it says FATAL, closed at its end. */
export async function openTestLog(directory: string, options: Partial<FileLogOptions> = {}): Promise<FileLog> {
  const log = await openFileLog({
    directory,
    streams: 1,
    logger: silentLogger,
    segmentBytes: tinySegmentBytes,
    onFatal: (error) => {
      throw error
    },
    ...options,
  })
  onTestFinished(() => log.close())
  return log
}

/** Copies a directory as it lies there now. */
export function crashedCopy(directory: string): string {
  const copy = newDirectory()
  cpSync(directory, copy, { recursive: true })
  return copy
}

export function segmentFiles(directory: string, stream = 0): string[] {
  return readdirSync(join(directory, `stream-${stream}`))
    .filter((name) => name.endsWith('.log'))
    .sort()
    .map((name) => join(directory, `stream-${stream}`, name))
}

export function diskBytes(directory: string, stream = 0): number {
  let bytes = 0
  for (const name of readdirSync(join(directory, `stream-${stream}`))) {
    bytes += statSync(join(directory, `stream-${stream}`, name)).size
  }
  return bytes
}

export async function readAll(log: FileLog, from = 1, bytesMax = 5000, stream = 0): Promise<LogRecord[]> {
  const records: LogRecord[] = []
  let next = from
  while (true) {
    const read = await log.read(stream, next, bytesMax)
    if (read.length === 0) return records
    records.push(...read)
    next = read.at(-1)!.sequence + 1
  }
}

export function sequencesOf(records: readonly LogRecord[]): number[] {
  return records.map(({ sequence }) => sequence)
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index)
}
