/** Thread entry for building runs of ids: a task names its files, the reply says what the run holds. Holds no state. */
import { setPriority } from 'node:os'
import { type BuiltRun, buildRun, type RunTask } from '../src/dedupe/run-builder.js'

// Of this thread alone, on Linux: events come first.
if (process.platform === 'linux') setPriority(5)

export default function run(task: RunTask): BuiltRun {
  return buildRun(task)
}
