/**
 * The good answers in the document of the API: they are what the types of the handlers say today, every route has one, and every
 * component is used. That real answers are so is tested wherever a test meets one (test/answers-check.ts).
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify from 'fastify'
import { expect, test } from 'vitest'
import { rootDirectory } from '../../src/paths.js'
import { answers, checkedArguments, checkedEnvironment } from '../answers-met.js'

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

test('an answer that is not as the document says is found, in this process and in one of its own', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'releve-faults-'))
  const before = process.env.ANSWERS_FAULTS
  const file = join(folder, 'faults')
  /** What is found of a service that answers so on /health/live, asked by GET and by HEAD. */
  const faultsOf = async (body: string, apart: boolean): Promise<string[]> => {
    rmSync(file, { force: true })
    process.env.ANSWERS_FAULTS = file
    if (apart) {
      const script = `
        import Fastify from 'fastify'
        const app = Fastify()
        app.decorate('swagger', () => '')
        app.get('/health/live', async () => (${body}))
        await app.inject('/health/live')`
      const args = [...checkedArguments, '--input-type=module', '-e', script]
      execFileSync(process.execPath, args, { cwd: rootDirectory, env: { ...process.env, ...checkedEnvironment() } })
    } else {
      const app = Fastify()
      app.decorate('swagger', () => '')
      app.get('/health/live', async () => JSON.parse(body))
      app.get('/health/dead', async (_, reply) => reply.status(404).send({ nothing: true }))
      for (const method of ['GET', 'HEAD'] as const) await app.inject({ method, url: '/health/live' })
      await app.inject('/health/dead')
      await app.close()
    }
    const text = existsSync(file) ? readFileSync(file, 'utf8') : ''
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as string)
  }
  try {
    for (const apart of [false, true]) {
      expect(await faultsOf('{"status":"live"}', apart)).toEqual([])
      expect(await faultsOf('{"status":"live","more":1}', apart)).toEqual([
        expect.stringMatching(/^GET \/health\/live 200: .*must NOT have additional properties .*more/),
      ])
      expect(await faultsOf('{}', apart)).toEqual([expect.stringContaining("must have required property 'status'")])
      expect(await faultsOf('{"status":null}', apart)).toEqual([expect.stringContaining('/status must be string')])
    }
  } finally {
    if (before === undefined) delete process.env.ANSWERS_FAULTS
    else process.env.ANSWERS_FAULTS = before
    rmSync(folder, { recursive: true, force: true })
  }
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
