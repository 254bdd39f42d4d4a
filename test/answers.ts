/**
 * In every test file: each JSON answer of a service that runs in the test's own process is held against the document of the API, where
 * no member may be missing and none may be more than it says. A test fails that met one that differs.
 */
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import type { FastifyInstance } from 'fastify'
import { afterEach, expect, vi } from 'vitest'
import { answers, noteMet } from './answers-met.js'

const faults: string[] = []
afterEach(() => expect(faults.splice(0), 'answers that the document of the API does not describe').toEqual([]))

/** The document lets clients meet members that come later; here nothing is let in. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed)
  if (typeof schema !== 'object' || schema === null) return schema
  const own = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]))
  const isOpen = own.type !== 'object' || own.properties === undefined || own.additionalProperties !== undefined
  return isOpen ? own : { ...own, additionalProperties: false }
}

const isDay = (text: string): boolean => {
  const time = Date.parse(`${text}T00:00:00Z`)
  // The thirtieth of February would be another day.
  return !Number.isNaN(time) && new Date(time).toISOString().slice(0, 10) === text
}
const ajv = new Ajv2020({
  strict: true,
  strictTypes: false,
  allErrors: true,
  // A format that is not here fails.
  formats: {
    decimal: /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$/,
    date: isDay,
    'date-time': (text) =>
      /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/.test(text) && isDay(text.slice(0, 10)),
    // Epoch ms.
    int64: { type: 'number', validate: (value) => Number.isSafeInteger(value) && value >= 0 },
  },
})
for (const [$id, schema] of Object.entries(answers.components)) ajv.addSchema({ ...(closed(schema) as object), $id })
const compiled = new Map<string, ValidateFunction>()

function check(route: string, status: number, body: string): void {
  const known = answers.routes[route]
  if (known === undefined || known.schema === null) {
    if (status < 300) faults.push(`${route}: answers JSON, of which the document knows nothing`)
    return
  }
  if (!known.statuses.includes(status)) {
    if (status < 300) faults.push(`${route}: answers ${status}, the document has ${known.statuses.join(', ')}`)
    return
  }
  let validate = compiled.get(route)
  if (validate === undefined) {
    validate = ajv.compile(closed(known.schema) as object)
    compiled.set(route, validate)
  }
  if (validate(JSON.parse(body))) noteMet(route)
  else {
    const said = validate.errors!.slice(0, 5).map((e) => `${e.instancePath} ${e.message} ${JSON.stringify(e.params)}`)
    faults.push(`${route} ${status}: ${said.join('; ')}`)
  }
}

vi.mock('fastify', async (importOriginal) => {
  const original = await importOriginal<typeof import('fastify')>()
  const make = original.default as unknown as (options: object) => FastifyInstance
  const watched = (options: object): FastifyInstance => {
    const app = make(options)
    app.addHook('onSend', (request, reply, payload, done) => {
      const { url, method } = request.routeOptions
      const type = String(reply.getHeader('content-type') ?? '')
      // The pages of the document itself are not in it.
      if (url?.startsWith('/docs') !== true && method !== 'HEAD' && request.method !== 'HEAD')
        if (typeof payload === 'string' && type.startsWith('application/json'))
          try {
            check(`${request.method} ${url}`, reply.statusCode, payload)
          } catch (error) {
            faults.push(`${request.method} ${url}: ${String(error)}`)
          }
      done()
    })
    return app
  }
  return { ...original, default: Object.assign(watched, original.default) }
})
