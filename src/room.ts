/** Room on the disk of a data directory: enough, little, or less than the log needs. For health and the doctor. */
import { statfsSync } from 'node:fs'
import { limits } from './limits.js'

export interface Room {
  readonly state: 'ok' | 'little' | 'none'
  /** «12.3 GB free on the disk of /srv/releve» */
  readonly detail: string
  /** What the log takes before it is cut. */
  readonly wanted: number
}

export function roomIn(directory: string, streams: number): Room {
  const { bavail, bsize } = statfsSync(directory)
  const free = bavail * bsize
  const wanted = 2 * limits.segmentBytes * streams
  const state = free < wanted ? 'none' : free < limits.diskLowBytes ? 'little' : 'ok'
  return { state, detail: `${(free / 1e9).toFixed(1)} GB free on the disk of ${directory}`, wanted }
}
