/**
 * The HTTP door: buildHttp(system) gives a fastify application that does not listen, so that tests may inject. A door says
 * nothing of its own: it checks the key, translates, calls the system once, translates back.
 *
 * Every route but health answers only to a key. Errors are RFC 9457 problem details with a code from errors.ts.
 */
import { randomUUID } from 'node:crypto'
import AjvCompiler from '@fastify/ajv-compiler'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { Attempts } from '../access/attempts.js'
import type { ApiKey, Scope } from '../access/keys.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { System } from '../system.js'
import { answerSchemas, problemSchema, withAnswers } from './document.js'
import { openExpressWay, type Refuse } from './express.js'
import { alertRuleRoutes } from './routes/alert-rules.js'
import { alertRoutes } from './routes/alerts.js'
import { backupRoutes } from './routes/backups.js'
import { cardinalityRoutes } from './routes/cardinality.js'
import { catalogRoutes } from './routes/catalog.js'
import { contractRoutes } from './routes/contracts.js'
import { couponRoutes } from './routes/coupons.js'
import { eventRoutes } from './routes/events.js'
import { healthRoutes } from './routes/health.js'
import { importRoutes } from './routes/imports.js'
import { invoiceMoveRoutes } from './routes/invoice-moves.js'
import { invoiceRoutes } from './routes/invoices.js'
import { keyRoutes } from './routes/keys.js'

import { limitRoutes } from './routes/limits.js'

import { meterRoutes } from './routes/meters.js'

import { objectRoutes } from './routes/objects.js'
import { prepaidRoutes } from './routes/prepaid.js'
import { rateRoutes } from './routes/rates.js'
import { rejectRoutes } from './routes/rejects.js'
import { shadowRoutes } from './routes/shadow.js'
import { usageRoutes } from './routes/usage.js'
import { usageDataRoutes } from './routes/usage-data.js'
import { webhookRoutes } from './routes/webhooks.js'
import { endConnectionsAtStop } from './stop.js'
import { traceRequests } from './tracing.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the guard before any handler of /v1 runs. */
    apiKey: ApiKey | null
    /** Keeps the room that the body took for longer than the answer; gives what ends that. */
    holdBody: () => () => void
  }
  interface FastifyContextConfig {
    /** What the key must be allowed; `public` needs none. */
    scope?: Scope | 'public'
  }
}

/** The key of a guarded request. */
export function keyOf(request: FastifyRequest): ApiKey {
  if (request.apiKey === null) throw new ReleveError('unauthorized', 'this route needs a key')
  return request.apiKey
}

/** Who asks, for journals: the key by its name and id. */
export function actorOf(request: FastifyRequest): string {
  const { name, id } = keyOf(request)
  return `key:${name} (${id})`
}

/** The tenant that a request may speak of: the key's own, or for a platform-wide key the one that is asked. */
export function tenantFor(request: FastifyRequest, asked: string | undefined): string {
  const key = keyOf(request)
  if (key.tenant === null) {
    if (asked === undefined || asked === '')
      throw new ReleveError('invalid_request', 'tenant: a platform-wide key must name one')
    return asked
  }
  // The answer is the same whether the other tenant exists or not.
  if (asked !== undefined && asked !== key.tenant)
    throw new ReleveError('forbidden', 'the key belongs to another tenant')
  return key.tenant
}

/** Listens, and says what to do when the port is taken. Returns the address. */
export async function listen(app: FastifyInstance, host: string, port: number): Promise<string> {
  try {
    return await app.listen({ host, port })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    throw new Error(
      `cannot listen on ${host}:${port}: the port is taken. RELEVE_PORT chooses another, 0 any free one.`,
      {
        cause: error,
      },
    )
  }
}

/** Without `express` every request takes fastify's way: for the test that holds both against each other. */
export async function buildHttp(system: System, { express = true } = {}): Promise<FastifyInstance> {
  const app = Fastify({
    logger: false,
    bodyLimit: limits.bodyBytesMax,
    ...(system.config.trustProxy === undefined ? {} : { trustProxy: system.config.trustProxy }),
    connectionTimeout: 60_000,
    requestTimeout: 60_000,
    keepAliveTimeout: 75_000,
    routerOptions: { maxParamLength: 3 * limits.nameBytesMax },
    genReqId: () => randomUUID(),
    // Said by the guard below, with Retry-After.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
  })

  endConnectionsAtStop(app, system.logger)
  if (system.config.otlpEndpoint !== undefined) traceRequests(app)
  const attempts = new Attempts(system.clock)
  // Numbers and booleans in query strings; bodies are never coerced: a quantity that came as a JSON number has lost its digits.
  const compilers = AjvCompiler()
  const compilerOf = (coerceTypes: boolean) =>
    compilers({}, { customOptions: { coerceTypes, removeAdditional: false, allErrors: true } })
  const [ofBodies, ofQueries] = [compilerOf(false), compilerOf(true)]
  app.setValidatorCompiler((route) => (route.httpPart === 'body' ? ofBodies(route) : ofQueries(route)))

  app.decorateRequest('apiKey', null)
  app.decorateRequest('holdBody', () => () => {})
  let isClosing = false
  app.addHook('preClose', (done) => {
    isClosing = true
    done()
  })
  // Hooks of every request answer at once, without a promise.
  app.addHook('onRequest', (request, reply, done) => done(faultOf(() => guard(request, reply))))
  const guard = (request: FastifyRequest, reply: FastifyReply): void => {
    reply.header('x-request-id', request.id)
    const { scope } = request.routeOptions.config
    if (scope === 'public') return
    if (isClosing) throw new ReleveError('unavailable', 'the service is stopping', { retryAfterS: 1 })
    const key = system.keys.check(request.headers.authorization)
    if (key === undefined) {
      system.metrics.authFailures.inc()
      try {
        attempts.fail(request.ip)
      } catch (error) {
        system.metrics.authThrottled.inc()
        throw error
      }
      throw new ReleveError('unauthorized', 'the Authorization header carries no valid key')
    }
    const budget = system.keys.budgetOf(key.id)
    if (budget !== undefined) {
      const now = system.clock.now()
      try {
        budget.enter(now)
      } finally {
        reply.headers(budget.headers(now))
      }
    }
    const may =
      scope === undefined || key.scopes.includes(scope) || (scope === 'manage' && key.scopes.includes('admin'))
    if (!may) {
      throw new ReleveError('forbidden', `the key has not the scope ${scope}`)
    }
    request.apiKey = key
  }

  // Room for a body before the first byte of it is read: what is not let in never takes memory.
  app.addHook('preParsing', (request, reply, payload, done) =>
    done(
      faultOf(() => admit(request, reply)),
      payload,
    ),
  )
  const admit = (request: FastifyRequest, reply: FastifyReply): void => {
    const bytes = announcedBytes(request)
    if (bytes === 0) return
    const release = system.admit(bytes)
    let holders = 0
    request.holdBody = () => {
      holders += 1
      let held = true
      return () => {
        if (!held) return
        held = false
        holders -= 1
        if (holders === 0) release()
      }
    }
    // Comes once, after the answer as well as when the sender hangs up.
    reply.raw.once('close', request.holdBody())
  }

  const refuse: Refuse = (error, { id, method, url }) => {
    const known = toReleveError(error, system)
    if (known.code === 'internal') {
      system.logger.error({ request: id, method, url, error: error.stack ?? String(error) }, 'request failed')
    }
    system.metrics.requestsRefused.inc({ code: known.code })
    const { status } = known
    const headers: Record<string, string> = {}
    if (known.retryAfterS !== undefined || status === 429 || status === 503)
      headers['retry-after'] = String(known.retryAfterS ?? 1)
    if (status === 401) headers['www-authenticate'] = `${url.startsWith('/docs') ? 'Basic' : 'Bearer'} realm="releve"`
    return { status, headers, body: { ...known.problem, instance: id } }
  }
  app.setErrorHandler((error: Error, request, reply) => {
    const { status, headers, body } = refuse(error, request)
    reply.headers(headers).status(status).type('application/problem+json').send(body)
  })
  // A span of each request is begun and ended by fastify's hooks.
  if (express && system.config.otlpEndpoint === undefined)
    openExpressWay(app, { system, isClosing: () => isClosing, refuse })
  app.setNotFoundHandler({ preHandler: async () => {} }, (request) => {
    throw new ReleveError('not_found', `there is no ${request.method} ${request.url.split('?')[0]}`)
  })

  // Behind the handlers of errors and keys, so that these pages have them too: a browser is asked for the key, as the password
  // of any name.
  app.addSchema(problemSchema)
  for (const schema of answerSchemas) app.addSchema(schema)
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'releve',
        description: 'Usage metering and billing: an event goes to an invoice.',
        version: system.version,
      },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer', description: 'rlv_…' } } },
      security: [{ key: [] }],
    },
    refResolver: { buildLocalReference: (json) => String(json.$id) },
    transform: ({ schema, url, route }) => {
      const method = String([route.method].flat()[0])
      return { url, schema: withAnswers({ method, url, scope: route.config?.scope }, { ...schema }) }
    },
  })
  await app.register(swaggerUi, { routePrefix: '/docs' })

  await app.register(healthRoutes(system))
  await app.register(eventRoutes(system))
  await app.register(usageRoutes(system))
  await app.register(rejectRoutes(system))
  await app.register(cardinalityRoutes(system))
  await app.register(rateRoutes(system))
  await app.register(alertRoutes(system))
  await app.register(alertRuleRoutes(system))
  await app.register(limitRoutes(system))
  await app.register(webhookRoutes(system))
  await app.register(keyRoutes(system))
  await app.register(catalogRoutes(system))
  await app.register(contractRoutes(system))
  await app.register(couponRoutes(system))
  await app.register(invoiceRoutes(system))
  await app.register(invoiceMoveRoutes(system))
  await app.register(shadowRoutes(system))
  await app.register(backupRoutes(system))
  await app.register(usageDataRoutes(system))
  await app.register(prepaidRoutes(system))
  await app.register(importRoutes(system))
  await app.register(objectRoutes(system))
  await app.register(meterRoutes(system))
  return app
}

/** What a hook's work throws. */
function faultOf(run: () => void): Error | undefined {
  try {
    run()
    return undefined
  } catch (error) {
    return error as Error
  }
}

/** A body without a stated length may be as large as any. One that states too much is refused by its header alone. */
function announcedBytes({ method, headers }: FastifyRequest): number {
  if (method === 'GET' || method === 'HEAD') return 0
  if (headers['transfer-encoding'] !== undefined) return limits.bodyBytesMax
  const stated = Number(headers['content-length'] ?? 0)
  return stated > limits.bodyBytesMax ? 0 : stated
}

/** What a schema found, as ajv says it. */
interface Fault {
  readonly instancePath: string
  readonly keyword: string
  readonly params: Readonly<Record<string, unknown>>
  readonly message?: string
}

/** Of a body that may be one or a list, ajv tells first that a list is not one: what is wrong lies deepest. */
const depthOf = ({ instancePath }: Fault): number => instancePath.split('/').length

/** The member that is wrong, as it is written in the body, and why. */
function faultText({ instancePath, keyword, params, message = 'is wrong' }: Fault): string {
  const path = instancePath
    .slice(1)
    .split('/')
    .reduce((all, part) => (/^[0-9]+$/.test(part) ? `${all}[${part}]` : `${all}${all && '.'}${part}`), '')
  const member = (name: unknown): string => `${path}${path && '.'}${String(name).slice(0, 80)}`
  if (keyword === 'required') return `${member(params.missingProperty)}: is needed`
  if (keyword === 'additionalProperties')
    return `${member(params.additionalProperty)}: is not known here; /docs lists the members`
  const said = keyword === 'enum' ? `one of ${(params.allowedValues as unknown[]).join(', ')} is expected` : message
  return `${path || 'the request'}: ${said}`
}

function toReleveError(
  error: Error & { statusCode?: number; code?: string; validation?: Fault[] },
  system: System,
): ReleveError {
  if (error instanceof ReleveError) return error
  if (system.isAway(error))
    return new ReleveError('unavailable', 'an engine is away; events are taken, this needs it', {
      cause: error,
      retryAfterS: 1,
    })
  const fault = error.validation?.reduce((best, one) => (depthOf(one) > depthOf(best) ? one : best))
  if (fault !== undefined) return new ReleveError('invalid_request', faultText(fault), { cause: error })
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE' || error.statusCode === 413) {
    return new ReleveError('body_too_large', `a body has at most ${limits.bodyBytesMax} bytes`)
  }
  if (error.statusCode === 415)
    return new ReleveError('unsupported_format', 'the content type is none that this route reads')
  if (error.statusCode === 400) return new ReleveError('malformed_body', error.message, { cause: error })
  return new ReleveError('internal', error.message, { cause: error })
}
