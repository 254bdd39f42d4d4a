/** Which routes of the API's document a test run has met with a good answer, a line each in a file that all its processes write. */
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { rootDirectory } from '../src/paths.js'

export interface Answers {
  readonly routes: Readonly<Record<string, { readonly statuses: readonly number[]; readonly schema: object | null }>>
  readonly components: Readonly<Record<string, object>>
}
export const answers = JSON.parse(readFileSync(join(rootDirectory, 'src/http/answers.json'), 'utf8')) as Answers

const noted = new Set<string>()
export function noteMet(route: string): void {
  const file = process.env.ANSWERS_MET
  if (file === undefined || noted.has(route)) return
  noted.add(route)
  appendFileSync(file, `${route}\n`)
}

export function neverMet(file: string): string[] {
  const met = new Set(existsSync(file) ? readFileSync(file, 'utf8').split('\n') : [])
  return Object.keys(answers.routes).filter((route) => answers.routes[route]!.schema !== null && !met.has(route))
}

/** What a test starts a service with, as a process of its own, so that its answers are checked (answers-check.ts). */
export const checkedArguments = [`--import=${join(rootDirectory, 'dist/test/answers-watch.js')}`]
export const checkedEnvironment = (): Record<string, string> =>
  Object.fromEntries(
    ['ANSWERS_FAULTS', 'ANSWERS_MET'].flatMap((name) => {
      const file = process.env[name]
      return file === undefined ? [] : [[name, file]]
    }),
  )
