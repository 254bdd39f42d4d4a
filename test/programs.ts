/** Programs that the tests need and npm does not have: where they are, and how to get them. Debian has all of them as packages. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** The program, its package, and the tests that need it. */
export const programs = {
  'nats-server': { package: 'nats-server', tests: 'dist/test/nats/**' },
  pdftotext: { package: 'poppler-utils', tests: 'dist/test/invoicing/pages.test.js' },
  promtool: { package: 'prometheus', tests: 'dist/test/monitoring/**' },
  chromium: { package: 'chromium', tests: 'dist/test/http/docs-page.test.js' },
  zsh: { package: 'zsh', tests: 'dist/test/cli/completion.test.js' },
} as const
export type Program = keyof typeof programs

/** The path; undefined when there is none. Debian puts servers into folders that an ordinary user's PATH may not name. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/bin', '/usr/local/sbin']
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}

/** Installs what is missing where this user may. Answers what is still missing. */
export function installPrograms(): Program[] {
  const missing = (): Program[] => (Object.keys(programs) as Program[]).filter((name) => !findProgram(name))
  const packages = [...new Set(missing().map((name) => programs[name].package))]
  if (packages.length === 0 || process.getuid?.() !== 0) return missing()
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  for (const args of [['update'], ['install', '-y', '--no-install-recommends', ...packages]]) {
    spawnSync('apt-get', ['-q', ...args], { stdio: ['ignore', 'inherit', 'inherit'], env })
  }
  return missing()
}
