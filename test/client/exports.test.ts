/** `releve/client` as a program outside would have it: by the name of the package, with its types beside it. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { expect, test } from 'vitest'

test('releve/client is exported, with its types, and nothing else is', async () => {
  const require = createRequire(import.meta.url)
  const file = require.resolve('releve/client')
  expect(existsSync(file.replace(/\.js$/, '.d.ts'))).toBe(true)
  const { openClient } = (await import('releve/client' as string)) as { openClient: unknown }
  expect(openClient).toBeTypeOf('function')
  expect(() => require.resolve('releve/src/system.js')).toThrow('not defined by "exports"')
})
