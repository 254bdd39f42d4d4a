/**
 * The guides, run: every command of a guide in one shell, in its order, against a service that the guide itself starts, on a data
 * directory of its own. A command that fails fails the guide; what a guide prints below a command is compared with what came out.
 * «…» in a guide stands for anything. Port and data directory are put in, the rest is run as it stands.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { rootDirectory } from '../../src/paths.js'
import { checkedArguments, checkedEnvironment } from '../answers-met.js'
import { enginesIn } from '../processes.js'

const folder = join(rootDirectory, 'src', 'guides')
const guides = readdirSync(folder).filter((name) => name.endsWith('.md') && name !== 'README.md')

interface Block {
  readonly kind: string
  readonly text: string
}

function blocksOf(guide: string): Block[] {
  const text = readFileSync(join(folder, guide), 'utf8')
  return [...text.matchAll(/^```([^\n]*)\n([\s\S]*?)^```$/gm)].map(([, kind, body]) => ({ kind: kind!, text: body! }))
}

const undo: (() => Promise<unknown>)[] = []
afterEach(async () => {
  while (undo.length > 0) await undo.pop()!()
})

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

/** `npm start` builds first, which would pull the files away under the tests beside this one: what it then runs is run instead. */
const starts: Readonly<Record<string, readonly string[]>> = { 'npm start': ['dist/src/main.js', 'serve'] }

async function startService(env: NodeJS.ProcessEnv, command: string): Promise<ChildProcess> {
  const args = starts[command]
  if (args === undefined) throw new Error(`a guide starts the service by ${command}`)
  const child = spawn(process.execPath, [...checkedArguments, ...args], {
    cwd: rootDirectory,
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let told = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    told += text
  })
  undo.push(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM')
      await once(child, 'exit')
    }
    while (enginesIn(env.RELEVE_DATA!).length > 0) await sleep(50)
  })
  while (!told.includes('releve is ready')) {
    if (child.exitCode !== null) throw new Error(`the service ended instead of starting: ${told}`)
    await sleep(50)
  }
  return child
}

/** Each line of a guide stands for a line of the output; a line that is «…» alone for any number of them. */
function matches(printed: string, came: string): boolean {
  const quoted = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replaceAll('…', '[^\\n]*')
  const pattern = printed
    .trimEnd()
    .split('\n')
    .map((line) => (line === '…' ? '(?:[^\\n]*\\n?)*' : `${quoted(line.trimEnd())}\\s*(?:\\n|$)`))
    .join('')
  // Amounts in French hold spaces that do not break; in a guide they are ordinary ones.
  return new RegExp(`^${pattern}$`).test(came.trimEnd().replaceAll(/[\u00a0\u202f]/g, ' '))
}

for (const guide of guides) {
  test(`${guide}: every command works as it stands, and prints what the guide says`, async () => {
    const data = mkdtempSync(join(tmpdir(), 'releve-guide-'))
    undo.push(async () => rmSync(data, { recursive: true, force: true }))
    const port = String(await freePort())
    const env: NodeJS.ProcessEnv = {
      ...checkedEnvironment(),
      PATH: process.env.PATH,
      HOME: data,
      RELEVE_DATA: join(data, 'data'),
      RELEVE_PORT: port,
      RELEVE_STREAMS: '1',
      RELEVE_LOG: 'error',
      RELEVE_EPOCH_MS: '500',
      // The first hour of a month would be within the grace of the last one.
      RELEVE_GRACE_MS: '0',
    }
    const blocks = blocksOf(guide)
    const [start] = blocks
    expect(start?.kind).toBe('sh start')
    await startService(env, start!.text.trim())

    const runnable = blocks.flatMap((block, i) =>
      block.kind === 'sh'
        ? [{ text: block.text, printed: blocks[i + 1]?.kind === 'text' ? blocks[i + 1]!.text : null }]
        : [],
    )
    expect(runnable.length).toBeGreaterThan(1)
    const script = runnable.map(({ text }, i) => `${text}\nprintf '\\n@@%s\\n' ${i}\n`).join('')
    const shell = spawn('bash', ['-euo', 'pipefail', '-c', script.replaceAll('8484', port)], {
      cwd: rootDirectory,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [out, err] = ['', '']
    shell.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    shell.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
    const [code] = (await once(shell, 'close')) as [number]
    const parts = out.split(/\n@@\d+\n/)
    expect(
      code,
      `block ${parts.length - 1} failed:\n${runnable[parts.length - 1]?.text}\n${parts.at(-1)}\n${err}`,
    ).toBe(0)
    for (const [i, { text, printed }] of runnable.entries()) {
      if (printed === null) continue
      expect(
        matches(printed, parts[i]!),
        `below\n${text}\nthe guide prints\n${printed}\nand this came\n${parts[i]}`,
      ).toBe(true)
    }
  })
}

test('a guide whose text is not what comes out is noticed', () => {
  expect(matches('a …\nb', 'a 12\nb')).toBe(true)
  expect(matches('a …\nb', 'a 12\nc')).toBe(false)
  expect(matches('…\nb', 'x\ny\nb')).toBe(true)
  expect(matches('a', 'a\nb')).toBe(false)
})
