/** The completion for zsh, in a real zsh on a terminal: what Tab puts on the line. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, expect, test } from 'vitest'
import { start } from './binary.js'

const folder = mkdtempSync(join(tmpdir(), 'releve-zsh-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test('zsh => Tab proposes commands, subcommands, options and files, as in bash', async () => {
  const made = start(['completion', 'zsh'], {}, '')
  expect(await made.ended).toBe(0)
  writeFileSync(join(folder, 'completion.zsh'), made.out())
  writeFileSync(join(folder, 'january.ndjson'), '')
  const shell = spawn('script', ['-qec', 'zsh -f -i', '/dev/null'], {
    cwd: folder,
    env: { PATH: process.env.PATH, TERM: 'vt100', HOME: folder },
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  try {
    let shown = ''
    shell.stdout.setEncoding('latin1').on('data', (text: string) => {
      // Padding, styles and steps back are how a line is drawn, not what stands on it.
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
      shown += text.replaceAll(/\u0000|\u001b\[[0-9;]*m|\u0008/g, '')
    })
    const shows = async (text: string): Promise<void> => {
      while (!shown.includes(text)) {
        if (shell.exitCode !== null) throw new Error(`zsh ended: ${shown}`)
        await sleep(20)
      }
      shown = ''
    }
    // The word is written in two parts, so that it is not found in the echo of the command.
    shell.stdin.write("PS1='> '; unsetopt BEEP; source ./completion.zsh; echo re''ady\n")
    await shows('ready')
    shell.stdin.write('ods-billing ev\t')
    await shows('ods-billing events')
    shell.stdin.write('se\t')
    await shows('send')
    shell.stdin.write('--form\t')
    await shows('--format')
    shell.stdin.write('ndjson jan\t')
    await shows('january.ndjson')
  } finally {
    // The terminal goes with it, and with the terminal the shell.
    shell.kill('SIGKILL')
    await once(shell, 'close')
  }
})
