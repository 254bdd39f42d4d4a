/** Files of usage data: POST /v1/usage-data-imports with the file as its body, streamed; and the journal. */
import type { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import type { FastifyPluginAsync } from 'fastify'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import type { System } from '../../system.js'
import { type Encoding, Encodings, type Separator, Separators } from '../../usage-data/columns.js'
import { keyOf } from '../http.js'

interface ImportQuery {
  name?: string
  encoding?: Encoding
  separator?: Separator
  decimal?: 'comma' | 'point'
  state?: 'draft' | 'pending'
  dry_run?: boolean
  replay?: boolean
  wait?: boolean
}

export function importRoutes(system: System): FastifyPluginAsync {
  return async (app) => {
    const tags = ['usage data']
    // The body stays a stream: a file goes to disk as it comes, and its size is bounded there.
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', (_, payload, done) => done(null, payload))

    app.post<{ Body: Readable | undefined; Querystring: ImportQuery }>(
      '/v1/usage-data-imports',
      {
        config: { scope: 'ingest' },
        bodyLimit: limits.importBytesMax,
        schema: {
          tags,
          summary: 'Import a CSV file of usage data; the same file is refused a second time',
          description: `Columns as the fields of /v1/usage-data (contract and start are needed), in English or French, and data.NAME. Answers 202 as soon as the file is here; GET the import for its progress. At most ${limits.importBytesMax} bytes, plain or gzip.`,
          querystring: {
            type: 'object',
            properties: {
              name: { type: 'string', maxLength: limits.nameBytesMax, description: 'of the file, for the journal' },
              encoding: { enum: Encodings, description: 'by default found: mark, UTF-8, else windows-1252' },
              separator: { enum: Separators, description: 'by default the one that the first line has' },
              decimal: { enum: ['comma', 'point'], description: 'by default comma with ;' },
              state: { enum: ['draft', 'pending'], default: 'pending', description: 'of rows that name none' },
              dry_run: { type: 'boolean', default: false, description: 'judge every row and keep nothing' },
              replay: { type: 'boolean', default: false, description: 'take a file again that was imported before' },
              wait: { type: 'boolean', default: false, description: 'answer when all rows are read' },
            },
            additionalProperties: false,
          },
        },
      },
      async (request, reply) => {
        const q = request.query
        const { tenant } = keyOf(request)
        const encoded = request.headers['content-encoding']
        if (encoded !== undefined && encoded !== 'gzip' && encoded !== 'identity')
          throw new ReleveError('unsupported_format', 'content-encoding: gzip or none')
        if (request.body === undefined || request.body === null)
          throw new ReleveError('malformed_body', 'the body is empty: send the file')
        const report = await system.imports.receive({
          body: encoded === 'gzip' ? inflated(request.body) : request.body,
          name: q.name ?? 'import.csv',
          tenant,
          encoding: q.encoding,
          separator: q.separator,
          decimal: q.decimal,
          state: q.state ?? 'pending',
          dryRun: q.dry_run ?? false,
          replay: q.replay ?? false,
        })
        if (report.id === null) return report
        if (q.wait !== true) return reply.status(202).send(report)
        await system.imports.ended(report.id)
        return system.imports.get(report.id, tenant)
      },
    )

    app.get<{ Querystring: { limit?: number } }>(
      '/v1/usage-data-imports',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'The journal of imports, newest first',
          querystring: {
            type: 'object',
            properties: { limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 } },
            additionalProperties: false,
          },
        },
      },
      async (request) => ({ imports: await system.imports.list(keyOf(request).tenant, request.query.limit ?? 100) }),
    )

    app.get<{ Params: { id: string } }>(
      '/v1/usage-data-imports/:id',
      { config: { scope: 'read' }, schema: { tags, summary: 'An import: its progress, and its first refused rows' } },
      async (request) => system.imports.get(request.params.id, keyOf(request).tenant),
    )

    app.get<{ Params: { id: string }; Querystring: { after?: number; limit?: number } }>(
      '/v1/usage-data-imports/:id/rejects',
      {
        config: { scope: 'read' },
        schema: {
          tags,
          summary: 'Every refused row with its line and reason, in the order of the file',
          querystring: {
            type: 'object',
            properties: {
              after: { type: 'integer', minimum: 0, default: 0, description: 'line behind which the page begins' },
              limit: { type: 'integer', minimum: 1, maximum: limits.pageMax, default: 100 },
            },
            additionalProperties: false,
          },
        },
      },
      async (request) => {
        const { after = 0, limit = 100 } = request.query
        return { rejects: await system.imports.rejects(request.params.id, keyOf(request).tenant, after, limit) }
      },
    )

    app.post<{ Params: { id: string } }>(
      '/v1/usage-data-imports/:id/undo',
      {
        config: { scope: 'admin' },
        schema: { tags, summary: 'Take an import back, as long as no invoice has collected a row of it' },
      },
      async (request) => system.imports.undo(request.params.id),
    )
  }
}

/** A fault of the sender's stream ends the inflating one too. */
function inflated(body: Readable): Readable {
  const gunzip = createGunzip()
  body.on('error', (error) => gunzip.destroy(error))
  return body.pipe(gunzip)
}
