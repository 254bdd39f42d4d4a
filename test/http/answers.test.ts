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

test('a text that is an amount, a quantity, a day or a time says so, and so does a number that is an instant', () => {
  const line = answers.components.InvoiceLine as Shape
  expect(line.properties).toMatchObject({
    no: { type: 'integer' },
    amount: { type: 'string', format: 'decimal' },
    exact: { format: 'decimal' },
    taxRate: { format: 'decimal' },
    label: { $ref: 'Words#' },
  })
  expect((answers.components.Invoice as Shape).properties).toMatchObject({
    issuedOn: { type: ['null', 'string'], format: 'date' },
    period: {
      properties: { from: { type: 'integer', format: 'int64', description: expect.stringContaining('epoch ms') } },
    },
  })
  expect((answers.components.QuotaLine as Shape).properties).toMatchObject({
    usage: { format: 'decimal' },
    limit: { type: ['null', 'string'], format: 'decimal' },
    period: { properties: { from: { format: 'date-time' }, to: { format: 'date-time' } } },
    asOf: { properties: { ageMs: { type: 'integer', description: 'milliseconds' } } },
  })
  // «included» is no decimal, and a threshold may be «80%».
  expect((answers.components.Policy as Shape).properties.hard).not.toHaveProperty('format')
  expect((answers.components.Alert as Shape).properties.threshold).not.toHaveProperty('format')
  // No member of an answer is a number with a fraction.
  const text = JSON.stringify(answers)
  expect(text.match(/"type":(?:"number"|\[[^\]]*"number")/g)).toBeNull()
})

interface Shape {
  readonly properties: Readonly<Record<string, unknown>>
}
