/**
 * Engines that outlived their service. Each engine runs with its own folder of the data directory as working directory (and
 * PostgreSQL's backends inherit it), so what still works there, and is the engine's program, is ours: the caller holds the
 * lock of the data directory. A shell that merely stands in the folder runs another program and is left alone.
 *
 * Linux only, by way of /proc. Elsewhere nothing is found, and PostgreSQL's own pid file refuses the second start.
 */
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { sep } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../logger.js'

/** Processes that run one of `programs` (full paths) with their working directory in `directory`. */
export function findLeftovers(directory: string, programs: readonly string[]): number[] {
  let names: string[]
  try {
    names = readdirSync('/proc')
  } catch {
    return []
  }
  const root = realpathSync(directory)
  const wanted = new Set(programs.map((path) => realpathSync(path)))
  const found: number[] = []
  for (const name of names) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue
    try {
      const workingDirectory = readlinkSync(`/proc/${name}/cwd`)
      if (workingDirectory !== root && !workingDirectory.startsWith(root + sep)) continue
      if (!wanted.has(readlinkSync(`/proc/${name}/exe`))) continue
      if (readFileSync(`/proc/${name}/stat`, 'utf8').includes(') Z ')) continue
      found.push(Number(name))
    } catch {
      // It ended meanwhile, or belongs to someone whose processes we may not see: not ours.
    }
  }
  return found
}

/**
 * Ends what `findLeftovers` finds: `polite` first gets `signal`, and after `politeMs` everything that is left gets SIGKILL.
 * Resolves when nothing is left; throws when something survives SIGKILL for as long again.
 */
export async function stopLeftovers(
  directory: string,
  programs: readonly string[],
  options: { polite: number | undefined; signal: NodeJS.Signals; politeMs: number; logger: Logger },
): Promise<void> {
  const { polite, signal, politeMs, logger } = options
  let left = findLeftovers(directory, programs)
  if (left.length === 0) return
  logger.warn({ directory, processes: left }, 'an engine outlived its service; it is stopped before a new one starts')
  if (polite !== undefined && left.includes(polite)) {
    kill(polite, signal)
    left = await untilGone(directory, programs, politeMs)
  }
  for (const pid of left) kill(pid, 'SIGKILL')
  left = await untilGone(directory, programs, politeMs)
  if (left.length > 0) throw new Error(`cannot stop the processes ${left.join(', ')}, which still work in ${directory}`)
}

async function untilGone(directory: string, programs: readonly string[], boundMs: number): Promise<number[]> {
  const deadline = performance.now() + boundMs
  for (;;) {
    const left = findLeftovers(directory, programs)
    if (left.length === 0 || performance.now() > deadline) return left
    await sleep(25)
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
