/** In every test file: a test fails that met an answer which the document of the API does not describe (answers-check.ts). */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, expect } from 'vitest'
import './answers-check.js'

const folder = mkdtempSync(join(tmpdir(), 'releve-answers-'))
const file = join(folder, 'faults')
writeFileSync(file, '')
// Services that are processes of their own write to it too.
process.env.ANSWERS_FAULTS = file

let told = 0
function look(): void {
  const lines = readFileSync(file, 'utf8').split('\n').slice(told, -1)
  told += lines.length
  const faults = [...new Set(lines)].map((line) => JSON.parse(line) as string)
  expect(faults, 'answers that the document of the API does not describe').toEqual([])
}
afterEach(look)
// What came between the tests, or while the file ended.
afterAll(() => {
  try {
    look()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
