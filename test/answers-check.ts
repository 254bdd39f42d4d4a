/**
 * Each JSON answer of a service in this process is held against the document of the API, where no member may be missing and none may be
 * more than it says. It listens where fastify tells of new applications, so that no test asks for it and nothing in the service
 * knows of it. What differs is a line of the file that ANSWERS_FAULTS names: answers.ts fails the test that met it.
 */
import { subscribe } from 'node:diagnostics_channel'
import { appendFileSync } from 'node:fs'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import type { FastifyInstance } from 'fastify'
import { answers, noteMet } from './answers-met.js'

function noteFault(fault: string): void {
  const file = process.env.ANSWERS_FAULTS
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(fault)}\n`)
}

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
    if (status < 300) noteFault(`${route}: answers JSON, of which the document knows nothing`)
    return
  }
  if (!known.statuses.includes(status)) {
    if (status < 300) noteFault(`${route}: answers ${status}, the document has ${known.statuses.join(', ')}`)
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
    noteFault(`${route} ${status}: ${said.join('; ')}`)
  }
}

subscribe('fastify.initialization', (message) => {
  const { fastify: app } = message as { fastify: FastifyInstance }
  app.addHook('onSend', (request, reply, payload, done) => {
    // The answer first: a test that kills right behind it must not find the service later than it would be.
    done()
    const { url } = request.routeOptions
    const type = String(reply.getHeader('content-type') ?? '')
    // Applications that tests make for themselves have no document, and the pages of the document are not in it.
    const isOurs = typeof app.swagger === 'function' && url?.startsWith('/docs') !== true && request.method !== 'HEAD'
    if (isOurs && typeof payload === 'string' && type.startsWith('application/json'))
      try {
        check(`${request.method} ${url}`, reply.statusCode, payload)
      } catch (error) {
        noteFault(`${request.method} ${url}: ${String(error)}`)
      }
  })
})
