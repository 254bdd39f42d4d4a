/**
 * Named places where a test lets the process die by SIGKILL, so that the crash test passes each of them once. `name` or
 * `name:n` for the n-th pass. Not set in production; then a pass is one comparison.
 */
export const CrashPoint = [
  'after-log-sync',
  'after-manifest',
  'after-key-file',
  'after-chunk',
  'before-checkpoint',
  'after-checkpoint',
  'after-alert-row',
  'after-fold-manifest',
  'after-fold-chunk',
  'after-number-taken',
] as const
export type CrashPoint = (typeof CrashPoint)[number]

export type Crash = (point: CrashPoint) => void

export const neverCrash: Crash = () => {}

export function openCrashPoints(spec: string): Crash {
  if (spec === '') return neverCrash
  const [name, count = '1'] = spec.split(':')
  if (!CrashPoint.includes(name as CrashPoint) || !/^[1-9][0-9]{0,6}$/.test(count)) {
    throw new Error(
      `cannot start: RELEVE_CRASH_AT is «${spec}», must be one of ${CrashPoint.join(', ')}, with «:n» for the n-th pass`,
    )
  }
  let left = Number(count)
  return (point) => {
    if (point !== name) return
    left -= 1
    if (left === 0) process.kill(process.pid, 'SIGKILL')
  }
}
