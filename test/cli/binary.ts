/** The real program as a process of its own, against a service that a test names. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { rootDirectory } from '../../src/paths.js'

export interface Run {
  readonly child: ChildProcess
  out(): string
  err(): string
  /** The exit code; null when it was killed. */
  readonly ended: Promise<number | null>
}

/** Starts it; `env` is all of its environment beside PATH. */
export function start(args: readonly string[], env: Readonly<Record<string, string>>, input?: string): Run {
  const child = spawn(process.execPath, [join(rootDirectory, 'dist', 'src', 'main.js'), ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, ...env },
  })
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  // A program that has ended before it read everything closes the pipe.
  child.stdin.on('error', () => {})
  if (input !== undefined) child.stdin.end(input)
  const ended = once(child, 'close').then(([code]) => code as number | null)
  return { child, out: () => out, err: () => err, ended }
}
