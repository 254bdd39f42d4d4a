/**
 * The good answers in the document of the API: they are what the types of the handlers say today, every route has one, and every
 * component is used. That real answers are so is tested wherever a test meets one (test/answers.ts).
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { rootDirectory } from '../../src/paths.js'
import { answers } from '../answers-met.js'

test('answers.json is what the handlers answer by their types; `npm run answers` writes it anew', async () => {
  const { answersText, answersFile } = (await import(join(rootDirectory, 'src/http/build-answers.mjs'))) as {
    answersText: () => string
    answersFile: string
  }
  expect(answersText()).toBe(readFileSync(answersFile, 'utf8'))
})

test('every component is used, and every reference has its component', () => {
  const text = JSON.stringify(answers)
  const named = new Set([...text.matchAll(/"\$ref":"(\w+)#"/g)].map(([, name]) => name!))
  expect([...named].sort()).toEqual(Object.keys(answers.components).sort())
})
