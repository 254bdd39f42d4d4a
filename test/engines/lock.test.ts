/**
 * The lock of the data directory. Goal: two services never share a directory, and no death of any kind leaves it locked.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { lockDataDirectory } from '../../src/engines/lock.js'
import { makeDirectory } from './running.js'

const lockModule = new URL('../../src/engines/lock.js', import.meta.url).href

test('a directory locked in this process is refused a second time, and free again after release', () => {
  const directory = join(makeDirectory(), 'new')
  const lock = lockDataDirectory(directory)
  expect(statSync(directory).mode & 0o777).toBe(0o700)
  expect(() => lockDataDirectory(directory)).toThrow(
    `the data directory ${directory} is in use by process ${process.pid}`,
  )
  lock.release()
  lock.release()
  lockDataDirectory(directory).release()
})

test('SIGKILL of the holder frees the directory, although a child of the holder lives on', async () => {
  const directory = makeDirectory()
  const script = `
    const { lockDataDirectory } = await import(${JSON.stringify(lockModule)})
    lockDataDirectory(${JSON.stringify(directory)})
    const { spawn } = await import('node:child_process')
    const child = spawn('sleep', ['600'], { stdio: 'ignore' })
    console.log(child.pid)
    setInterval(() => {}, 1000)`
  const holder = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(holder, 'exit')
  const [printed] = (await once(holder.stdout.setEncoding('utf8'), 'data')) as [string]
  try {
    expect(() => lockDataDirectory(directory)).toThrow(`is in use by process ${holder.pid}`)
    holder.kill('SIGKILL')
    await exited
    process.kill(Number(printed), 0)
    lockDataDirectory(directory).release()
  } finally {
    process.kill(Number(printed), 'SIGKILL')
    holder.kill('SIGKILL')
  }
})

test('a directory that cannot be made is named in the error', () => {
  const file = join(makeDirectory(), 'file')
  writeFileSync(file, '')
  expect(() => lockDataDirectory(join(file, 'data'))).toThrow(`cannot use the data directory ${join(file, 'data')}`)
})
