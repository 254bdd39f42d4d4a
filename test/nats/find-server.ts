/** Where nats-server is, and how to get it: Debian has it as a package, in a folder that an ordinary user's PATH may not name. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** The program's path; undefined when there is none. */
export function findNatsServer(): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/bin', '/usr/local/sbin']
  return folders.map((folder) => join(folder, 'nats-server')).find((path) => existsSync(path))
}

/** Installs it where this user may. Returns whether it is there now. */
export function installNatsServer(): boolean {
  if (process.getuid?.() !== 0) return false
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  for (const args of [['update'], ['install', '-y', '--no-install-recommends', 'nats-server']]) {
    spawnSync('apt-get', ['-q', ...args], { stdio: ['ignore', 'inherit', 'inherit'], env })
  }
  return findNatsServer() !== undefined
}
