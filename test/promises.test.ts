/** Every promise is cited by the title of a test that attacks it, and the map in src/README.md lists the same ones. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { rootDirectory } from '../src/paths.js'
import { Promises } from './promises.js'

const names = Object.keys(Promises).sort()

test('every promise is cited by a test', () => {
  const folder = join(rootDirectory, 'test')
  const cited = new Set<string>()
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts') || file === 'promises.ts') continue
    for (const [, name] of readFileSync(join(folder, file), 'utf8').matchAll(/promises\('([a-z:-]+)'\)/g))
      cited.add(name!)
  }
  expect([...cited].sort()).toEqual(names)
})

test('src/README.md lists the same promises', () => {
  const text = readFileSync(join(rootDirectory, 'src', 'README.md'), 'utf8')
  const listed = [...text.matchAll(/`([a-z]+:[a-z-]+)`/g)].map(([, name]) => name!)
  expect([...new Set(listed)].sort()).toEqual(names)
})
