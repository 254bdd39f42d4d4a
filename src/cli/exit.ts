/** Exit codes of every command, in one table: scripts decide by them. `help exit-codes` prints it. */
import { ReleveError } from '../errors.js'

export const Exit = {
  ok: { code: 0, when: 'done' },
  failed: { code: 1, when: 'it could not be done; the reason is on stderr' },
  usage: { code: 2, when: 'the command line is wrong' },
  key: { code: 3, when: 'there is no valid key, or it has not the right' },
  missing: { code: 4, when: 'what was named is not there' },
  conflict: { code: 5, when: 'the present state does not allow it' },
  differs: { code: 6, when: 'an audit or a verification found a difference; a quota is exceeded (quota --fail-over)' },
  partial: { code: 7, when: 'some events or rows were refused or in conflict; the others are stored' },
} as const

const byError: Readonly<Partial<Record<string, number>>> = {
  // A parameter, and those of a command are all from its command line.
  invalid_request: Exit.usage.code,
  unauthorized: Exit.key.code,
  forbidden: Exit.key.code,
  not_found: Exit.missing.code,
  conflict: Exit.conflict.code,
}

export function exitCodeOf(error: unknown): number {
  return error instanceof ReleveError ? (byError[error.code] ?? Exit.failed.code) : Exit.failed.code
}

export const exitTable: string = Object.values(Exit)
  .map(({ code, when }) => `  ${code}  ${when}`)
  .join('\n')
