/**
 * The lock of the data directory: one service, one directory. It is a flock(2) on the file `lock`, so the kernel drops it when
 * the process dies, however it dies; there is no pid file to go stale. The pid inside the file is for the error message only.
 *
 * Node has no flock, so libc's is called through ffi-rs, which the ClickHouse child needs anyway. Files opened by Node are not
 * inherited by child processes: an orphaned engine cannot hold the lock. On network file systems flock is only as good as the
 * server; embedded engines do not belong there.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { DataType, load, open } from 'ffi-rs'

const LOCK_EX = 2
const LOCK_NB = 4
/** EAGAIN is 11 on Linux and 35 on macOS. */
const wouldBlock: readonly number[] = [11, 35]
const libraryPath = process.platform === 'darwin' ? '/usr/lib/libSystem.B.dylib' : 'libc.so.6'

let libraryOpened = false

function flock(fd: number): { value: number; errnoCode: number; errnoMessage: string } {
  if (!libraryOpened) {
    open({ library: 'releve-libc', path: libraryPath })
    libraryOpened = true
  }
  return load({
    library: 'releve-libc',
    funcName: 'flock',
    retType: DataType.I32,
    paramsType: [DataType.I32, DataType.I32],
    paramsValue: [fd, LOCK_EX | LOCK_NB],
    errno: true,
  }) as unknown as { value: number; errnoCode: number; errnoMessage: string }
}

/**
 * Makes the directory when it is missing (mode 0700) and locks it until `release` or the death of this process.
 *
 * @throws Error `the data directory X is in use by process N` when another process, or this one, holds it.
 */
export function lockDataDirectory(directory: string): { release(): void } {
  const path = join(directory, 'lock')
  let fd: number
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    fd = openSync(path, 'a+', 0o600)
  } catch (error) {
    throw new Error(`cannot use the data directory ${directory}: ${(error as Error).message}`, { cause: error })
  }
  const taken = flock(fd)
  if (taken.value !== 0) {
    closeSync(fd)
    if (!wouldBlock.includes(taken.errnoCode)) throw new Error(`cannot lock ${path}: ${taken.errnoMessage}`)
    const holder = readFileSync(path, 'utf8').trim() || 'unknown'
    throw new Error(`the data directory ${directory} is in use by process ${holder}`)
  }
  ftruncateSync(fd, 0)
  writeSync(fd, `${process.pid}\n`)
  let released = false
  return {
    release() {
      if (released) return
      released = true
      closeSync(fd)
    },
  }
}
