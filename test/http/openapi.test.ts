/**
 * The API page and its document: OpenAPI 3.1, generated from the schemas of the routes, valid by an outside validator; every
 * operation has a tag, a summary and its parameters; nothing on the page comes from another host.
 */
import { Validator } from '@seriousme/openapi-schema-validator'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ErrorCode } from '../../src/errors.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'

let door: DoorSystem
let basic: string
beforeAll(async () => {
  door = await openDoorSystem()
  basic = `Basic ${Buffer.from(`x:${door.adminKey}`).toString('base64')}`
})
afterAll(() => door.close())

interface Operation {
  readonly summary?: string
  readonly tags?: readonly string[]
  readonly requestBody?: unknown
  readonly responses: Record<string, { description: string; content?: Record<string, { schema: unknown }> }>
  readonly parameters?: readonly { readonly in: string; readonly name: string; readonly required?: boolean }[]
}
type Paths = Record<string, Record<string, Operation>>

async function document(): Promise<{ openapi: string; paths: Paths; components: unknown; security: unknown }> {
  const answer = await fetch(`${door.url}/docs/json`, { headers: { authorization: basic } })
  expect(answer.status).toBe(200)
  return (await answer.json()) as Awaited<ReturnType<typeof document>>
}

test('the document is valid OpenAPI 3.1, and needs a key', async () => {
  const found = await document()
  expect(found.openapi).toBe('3.1.0')
  const result = await new Validator().validate(structuredClone(found))
  expect(result.errors ?? []).toEqual([])
  expect(result.valid).toBe(true)
  expect((await fetch(`${door.url}/docs/json`)).status).toBe(401)
})

test('every operation has a tag, a summary and the parameters of its path', async () => {
  const { paths } = await document()
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ name: `${method.toUpperCase()} ${path}`, ...operation })),
  )
  expect(operations.length).toBeGreaterThan(30)
  expect(operations.filter(({ tags }) => (tags ?? []).length === 0).map(({ name }) => name)).toEqual([])
  expect(operations.filter(({ summary }) => (summary ?? '') === '').map(({ name }) => name)).toEqual([])
  // Each parameter in a path is declared.
  for (const [path, methods] of Object.entries(paths)) {
    const names = [...path.matchAll(/\{([^}]+)\}/g)].map(([, name]) => name!)
    for (const [method, { parameters = [] }] of Object.entries(methods)) {
      const declared = parameters.filter((p) => p.in === 'path').map((p) => p.name)
      expect(declared.sort(), `${method} ${path}`).toEqual(names.sort())
    }
  }
})

test('every operation says how it answers, well and otherwise; what it answers to nobody and to nonsense is in its document', async () => {
  const { paths, components } = await document()
  const problem = (components as { schemas: Record<string, { properties: { code: { enum: string[] } } }> }).schemas
    .Problem!
  expect(problem.properties.code.enum).toEqual(Object.keys(ErrorCode))
  let asked = 0
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { responses, requestBody }] of Object.entries(methods)) {
      const name = `${method.toUpperCase()} ${path}`
      const statuses = Object.keys(responses)
      expect(
        statuses.some((status) => status.startsWith('2')),
        name,
      ).toBe(true)
      expect(statuses, name).toContain('500')
      if (path.includes('{')) expect(statuses, name).toContain('404')
      if (requestBody !== undefined)
        expect(statuses, name).toEqual(expect.arrayContaining(['400', '413', '415', '422', '409', '503']))
      for (const status of statuses.filter((one) => /^[45]/.test(one))) {
        const { description, content } = responses[status]!
        expect(description, `${name} ${status}`).not.toBe('')
        // Two routes say in their own answer what is wrong.
        if (content?.['application/json'] === undefined)
          expect(content?.['application/problem+json']?.schema, `${name} ${status}`).toEqual({
            $ref: '#/components/schemas/Problem',
          })
        else expect([`POST /v1/events 422`, `GET /health/ready 503`]).toContain(`${name} ${status}`)
      }
      // A body that is none, for the keys of all rights and of none.
      const url = `${door.url}${path.replaceAll(/\{[^}]+\}/g, 'nothing')}`
      const body = ['post', 'put', 'patch'].includes(method)
        ? { body: '{', headers: { 'content-type': 'application/json' } }
        : {}
      for (const authorization of ['Bearer rlv_nothing', `Bearer ${door.adminKey}`]) {
        if (method === 'get' && authorization.includes(door.adminKey)) continue
        const answer = await fetch(url, {
          method: method.toUpperCase(),
          ...body,
          headers: { ...body.headers, authorization },
        })
        await answer.arrayBuffer()
        if (answer.ok) continue
        asked += 1
        expect(statuses, `${name} answers ${answer.status}`).toContain(String(answer.status))
        expect(answer.headers.get('content-type'), name).toContain('application/problem+json')
      }
    }
  }
  expect(asked).toBeGreaterThan(150)
})

test('the page is there for a key and takes nothing from another host', async () => {
  const page = await fetch(`${door.url}/docs/`, { headers: { authorization: basic } })
  expect(page.status).toBe(200)
  const html = await page.text()
  const sources = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, source]) => source!)
  expect(sources.length).toBeGreaterThan(2)
  for (const source of sources) {
    expect(source).not.toMatch(/^(https?:)?\/\//)
    const asset = await fetch(new URL(source, `${door.url}/docs/`), { headers: { authorization: basic } })
    expect(asset.status, source).toBe(200)
  }
})
