/** Looks at processes of this machine, by /proc. A process counts as ended when it is gone or a zombie: reaping is init's part. */
import { readdirSync, readFileSync } from 'node:fs'

export function isAlive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')
  } catch {
    return false
  }
}

/** Every process, but this one, whose command line names the directory. */
export function enginesIn(directory: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => {
      try {
        return readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(`${directory}/`) && isAlive(Number(name))
      } catch {
        return false
      }
    })
    .map(Number)
}
