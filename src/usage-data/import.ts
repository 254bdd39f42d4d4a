/**
 * Files of usage data, with a journal: a file is taken in whole (spooled to disk, with its hash), then read row by row in batches
 * of one transaction each. Its rows are there for billing only when all of it is done.
 *
 * The same file is refused a second time, by its hash, unless the caller says that it is a replay; then what has an external
 * reference is known, not doubled. An import that was killed goes on behind its last batch: at the next start of the service, or
 * when the file is sent again. Each refused row is kept with its line, the reason and its beginning. A dry run goes the same way
 * and rolls every batch back.
 *
 * Memory holds two batches, whatever the file's size: one that is read and one that is written.
 */
import { createHash, randomUUID } from 'node:crypto'
import { createReadStream, createWriteStream, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { parse } from 'csv-parse'
import type { Pool } from 'pg'
import type { Catalog } from '../catalog/catalog.js'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import {
  type Column,
  columnsOf,
  type Encoding,
  encodingOf,
  fieldsOf,
  type Separator,
  separatorOf,
  type Writing,
} from './columns.js'
import { type Datum, parseDatum } from './datum.js'
import { insertData, maybeObject } from './usage-data.js'

export interface ImportRequest {
  readonly body: Readable
  /** Of the file, as its sender calls it. */
  readonly name: string
  /** Of the key; null: platform-wide. */
  readonly tenant: string | null
  readonly encoding?: Encoding | undefined
  readonly separator?: Separator | undefined
  readonly decimal?: 'comma' | 'point' | undefined
  /** Of rows that name none. */
  readonly state: 'draft' | 'pending'
  readonly dryRun: boolean
  readonly replay: boolean
}

export interface Reject {
  /** Line of the file, from 1. */
  readonly row: number
  readonly code: string
  readonly message: string
  readonly raw: string
}

export interface ImportReport {
  /** null for a dry run. */
  readonly id: string | null
  readonly name: string
  readonly tenant: string | null
  readonly sha256: string
  readonly bytes: number
  readonly state: 'running' | 'done' | 'failed' | 'undone' | 'dry run'
  readonly writing: Writing & { readonly state: string }
  readonly rowsRead: number
  readonly rowsTaken: number
  /** There already, with the same content. */
  readonly rowsKnown: number
  readonly rowsRefused: number
  /** The first limits.answerRefusalsMax; all are in the journal, but for a dry run. */
  readonly rejects: readonly Reject[]
  readonly reason: string | null
  readonly createdAt: number
}

export interface ImportsOptions {
  readonly postgres: Pool
  readonly clock: Clock
  readonly catalog: Catalog
  readonly logger: Logger
  /** Where files wait. */
  readonly directory: string
  /** Called when all rows of a file are there for billing. */
  readonly onDone?: () => Promise<unknown>
}

interface Job {
  readonly id: string | null
  readonly tenant: string | null
  readonly file: string
  readonly writing: Writing & { readonly state: 'draft' | 'pending' }
  /** Line up to which an earlier attempt came. */
  readonly from: number
}

interface Line {
  /** Of the file, from 1: the one that its row ends on. */
  readonly line: number
  readonly datum: Datum
}

interface Counts {
  taken: number
  known: number
  refused: number
}

export class Imports {
  readonly #options: ImportsOptions
  readonly #running = new Map<string, Promise<void>>()
  #spooling = 0
  #closed = false

  constructor(options: ImportsOptions) {
    this.#options = options
    mkdirSync(options.directory, { recursive: true, mode: 0o700 })
  }

  /** Goes on with what was running, and throws away what never became an import. */
  async resume(): Promise<void> {
    const { postgres, directory } = this.#options
    const { rows } = await postgres.query<Row>(`${SELECT} WHERE state = 'running' ORDER BY serial`)
    const alive = new Set(rows.map((row) => `${row.id}.csv`))
    for (const file of readdirSync(directory)) if (!alive.has(file)) rmSync(join(directory, file), { force: true })
    for (const row of rows) if (existsSync(this.#fileOf(row.id))) this.#start(row)
  }

  /** Running imports stop behind their batch; they go on at the next start. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.allSettled(this.#running.values())
  }

  /**
   * Takes a file in. A dry run answers when it has read all of it; an import is answered as soon as its file is here, and goes on
   * by itself. Throws ReleveError: `conflict` for a file that was imported, `unprocessable` for one that cannot be read as such.
   */
  async receive(request: ImportRequest): Promise<ImportReport> {
    const { postgres, clock } = this.#options
    if (this.#spooling + this.#running.size >= limits.importsMax)
      throw new ReleveError('overloaded', `${limits.importsMax} imports are running`, { retryAfterS: 5 })
    this.#spooling += 1
    const id = `imp_${randomUUID()}`
    const file = this.#fileOf(id)
    let keep = false
    try {
      const { sha256, bytes, utf8 } = await spool(request.body, file)
      const start = await beginOf(file)
      const encoding = request.encoding ?? encodingOf(start, utf8)
      const separator = request.separator ?? separatorOf(new TextDecoder(encoding).decode(start))
      const decimalComma = request.decimal === undefined ? separator === ';' : request.decimal === 'comma'
      const writing = { encoding, separator, decimalComma, state: request.state }
      const base = { name: request.name, tenant: request.tenant, sha256, bytes, writing, createdAt: clock.now() }
      if (request.dryRun) {
        const first: Reject[] = []
        const counts = await this.#read({ id: null, tenant: request.tenant, file, writing, from: 0 }, first)
        return { ...base, id: null, state: 'dry run', ...shown(counts), rejects: first, reason: null }
      }
      const before = await this.#earlier(request.tenant, sha256)
      if (before?.state === 'running') {
        if (this.#running.has(before.id))
          throw new ReleveError('conflict', `the file is being imported as ${before.id}`)
        // Killed, and its spooled file is gone or on another node: this one is the same.
        rmSync(this.#fileOf(before.id), { force: true })
        renameSync(file, this.#fileOf(before.id))
        this.#start(before)
        return this.get(before.id, request.tenant)
      }
      if (before !== undefined && !request.replay)
        throw new ReleveError(
          'conflict',
          `the same file was imported on ${new Date(Number(before.created_at)).toISOString()} as ${before.id}; replay=true takes it again`,
        )
      const { rows } = await postgres.query<Row>(
        `INSERT INTO usage_imports (id, tenant, name, sha256, bytes, options, state, replay_of, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'running', $7, $8, $8) ON CONFLICT DO NOTHING RETURNING id, tenant, options, line_reached`,
        [id, request.tenant, request.name, sha256, bytes, writing, before?.id ?? null, clock.now()],
      )
      if (rows[0] === undefined) throw new ReleveError('conflict', 'the same file is being imported')
      keep = true
      this.#start(rows[0])
      return await this.get(id, request.tenant)
    } finally {
      this.#spooling -= 1
      if (!keep) rmSync(file, { force: true })
    }
  }

  /** Resolves when it has ended, well or not. */
  async ended(id: string): Promise<void> {
    await this.#running.get(id)
  }

  async get(id: string, tenant: string | null): Promise<ImportReport> {
    const { rows } = await this.#options.postgres.query<Row>(
      `${SELECT} WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)`,
      [id, tenant],
    )
    if (rows[0] === undefined) throw new ReleveError('not_found', `import: there is no ${id}`)
    const rejects = await this.rejects(id, tenant, 0, limits.answerRefusalsMax)
    return reportOf(rows[0], rejects)
  }

  /** The journal, newest first. */
  async list(tenant: string | null, limit: number): Promise<ImportReport[]> {
    const { rows } = await this.#options.postgres.query<Row>(
      `${SELECT} WHERE $1::text IS NULL OR tenant = $1 ORDER BY serial DESC LIMIT $2`,
      [tenant, limit],
    )
    return rows.map((row) => reportOf(row, []))
  }

  /** Refused rows in the order of the file, behind a line. */
  async rejects(id: string, tenant: string | null, after: number, limit: number): Promise<Reject[]> {
    const { rows } = await this.#options.postgres.query<Reject & { row: string }>(
      `SELECT r.row, r.code, r.message, r.raw FROM usage_import_rejects r JOIN usage_imports i ON i.id = r.import
       WHERE r.import = $1 AND ($2::text IS NULL OR i.tenant = $2) AND r.row > $3 ORDER BY r.row LIMIT $4`,
      [id, tenant, after, limit],
    )
    return rows.map((row) => ({ ...row, row: Number(row.row) }))
  }

  /** Takes an import back: none of its rows may be collected. The file may then be imported again. */
  async undo(id: string): Promise<ImportReport> {
    const { postgres, clock } = this.#options
    const client = await postgres.connect()
    try {
      await client.query('BEGIN')
      const { rows } = await client.query<Row>(`${SELECT} WHERE id = $1 FOR UPDATE`, [id])
      if (rows[0] === undefined) throw new ReleveError('not_found', `import: there is no ${id}`)
      if (rows[0].state === 'running') throw new ReleveError('conflict', `import: ${id} is running`)
      const collected = await client.query(
        `SELECT 1 FROM usage_data WHERE import = $1 AND state = 'collected' LIMIT 1`,
        [id],
      )
      if (collected.rows.length > 0)
        throw new ReleveError(
          'conflict',
          `import: rows of ${id} are collected by an invoice; exclude the others one by one`,
        )
      // From here on its rows are not there for any closing; they are deleted below, in any number of steps.
      await client.query(`UPDATE usage_imports SET state = 'undone', updated_at = $2 WHERE id = $1`, [id, clock.now()])
      await client.query('COMMIT')
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    } finally {
      client.release()
    }
    await this.#removeRows(id)
    return this.get(id, null)
  }

  /** Of an import that is not done: no closing has seen them. */
  async #removeRows(id: string): Promise<void> {
    for (;;) {
      const { rowCount } = await this.#options.postgres.query(
        'DELETE FROM usage_data WHERE serial IN (SELECT serial FROM usage_data WHERE import = $1 LIMIT $2)',
        [id, limits.importBatchRows],
      )
      if ((rowCount ?? 0) === 0) return
    }
  }

  #fileOf(id: string): string {
    return join(this.#options.directory, `${id}.csv`)
  }

  async #earlier(tenant: string | null, sha256: string): Promise<Row | undefined> {
    const { rows } = await this.#options.postgres.query<Row>(
      `${SELECT} WHERE coalesce(tenant, '') = coalesce($1, '') AND sha256 = $2 AND state IN ('running', 'done') AND replay_of IS NULL`,
      [tenant, sha256],
    )
    return rows[0]
  }

  #start(row: Row): void {
    const { postgres, clock, logger, onDone } = this.#options
    const file = this.#fileOf(row.id)
    const end = async (state: 'done' | 'failed', reason: string | null): Promise<void> => {
      await postgres.query('UPDATE usage_imports SET state = $2, reason = $3, updated_at = $4 WHERE id = $1', [
        row.id,
        state,
        reason,
        clock.now(),
      ])
      if (state === 'failed') await this.#removeRows(row.id)
      rmSync(file, { force: true })
    }
    const job = { id: row.id, tenant: row.tenant, file, writing: row.options, from: Number(row.line_reached) }
    const run = async (): Promise<void> => {
      try {
        await this.#read(job, [])
        if (this.#closed) return
        await end('done', null)
        await onDone?.()
      } catch (error) {
        if (this.#closed) return
        logger.warn({ import: row.id, error: String(error) }, 'an import of usage data stopped')
        // What the file itself is to blame for ends it; anything else (an engine away) leaves it to be gone on with.
        if (error instanceof ReleveError && error.code === 'unprocessable')
          await end('failed', error.message).catch(() => undefined)
      }
    }
    this.#running.set(
      row.id,
      run().finally(() => this.#running.delete(row.id)),
    )
  }

  /** Reads a file to its end, in batches. The first rejects of all go to `first`. */
  async #read(job: Job, first: Reject[]): Promise<Counts> {
    const counts: Counts = { taken: 0, known: 0, refused: 0 }
    const { catalog } = this.#options
    let batch: Line[] = []
    let rejects: Reject[] = []
    let columns: Column[] | undefined
    let [reached, line] = [job.from, job.from]
    const reject = (row: number, code: string, message: string, raw: string): void => {
      rejects.push({ row, code, message: clean(message, 1_000), raw: clean(raw, limits.importRawCharactersMax) })
    }
    let writing: Promise<void> = Promise.resolve()
    const write = async (lines: { readonly from: number; readonly to: number }, data: Line[], bad: Reject[]) => {
      const { taken, known, refused } = await this.#write(job, lines, data, bad)
      counts.taken += taken
      counts.known += known
      counts.refused += refused.length
      first.push(...refused.slice(0, limits.answerRefusalsMax - first.length))
    }
    // The next batch is read while this one is written; the fault of one comes out at the next, which is not begun.
    const flush = async (): Promise<void> => {
      await writing
      writing = write({ from: reached, to: line }, batch, rejects)
      writing.catch(() => undefined)
      reached = line
      batch = []
      rejects = []
    }
    let broken: ReleveError | undefined
    const parser = parse({
      delimiter: job.writing.separator,
      info: true,
      relax_column_count: true,
      skip_empty_lines: true,
      skip_records_with_error: true,
      max_record_size: limits.importRowBytesMax,
      // Text behind a closing quote is text: the row is refused for what it says, and costs no other.
      relax_quotes: true,
      // Where a quote stays open nobody knows where rows begin any more.
      on_skip: (error) => {
        broken ??= new ReleveError(
          'unprocessable',
          `line ${Number(error?.lines ?? 0)}: ${error?.message ?? 'cannot be read'}`,
        )
      },
    })
    const reading = pipeline(createReadStream(job.file), decoder(job.writing.encoding), parser)
    // Its fault comes out of the loop below as well.
    reading.catch(() => undefined)
    try {
      for await (const { record, info } of parser as AsyncIterable<{ record: string[]; info: { lines: number } }>) {
        if (broken !== undefined) break
        if (columns === undefined) {
          columns = columnsOf(record)
          continue
        }
        if (info.lines <= job.from) continue
        line = info.lines
        try {
          const fields = fieldsOf(columns, record, job.writing, job.writing.state)
          batch.push({ line, datum: parseDatum(fields, catalog.book(), job.tenant, maybeObject) })
        } catch (error) {
          if (!(error instanceof ReleveError)) throw error
          reject(line, error.code, error.message, record.join(job.writing.separator))
        }
        if (batch.length + rejects.length >= limits.importBatchRows) {
          await flush()
          if (this.#closed) break
        }
      }
    } finally {
      // Whatever ends the reading, nothing is written behind its back.
      await writing.catch(() => undefined)
    }
    await writing
    if (this.#closed) return counts
    if (broken !== undefined) throw broken
    if (columns === undefined)
      throw new ReleveError('unprocessable', 'line 1: the file is empty, not even column names')
    await flush()
    await writing
    return counts
  }

  /** One batch and the journal's progress in one transaction; what contradicts a datum that is there is refused as well. */
  async #write(
    { id }: Job,
    lines: { readonly from: number; readonly to: number },
    batch: readonly Line[],
    rejects: readonly Reject[],
  ): Promise<{ readonly taken: number; readonly known: number; readonly refused: readonly Reject[] }> {
    const { postgres, clock } = this.#options
    const client = await postgres.connect()
    try {
      await client.query('BEGIN')
      const data = batch.map((one) => one.datum)
      const outcomes =
        data.length === 0 ? [] : await insertData(client, this.#options.catalog.book(), data, id, clock.now())
      const refused = [
        ...rejects,
        ...outcomes.flatMap((one, i) =>
          one.outcome === 'conflict' || one.outcome === 'refused'
            ? [
                {
                  row: batch[i]!.line,
                  code: one.outcome === 'conflict' ? 'conflict' : 'unprocessable',
                  message: clean(one.message, 1_000),
                  raw: '',
                },
              ]
            : [],
        ),
      ]
      const count = (outcome: string): number => outcomes.filter((one) => one.outcome === outcome).length
      const [taken, known] = [count('created'), count('known')]
      if (id === null) await client.query('ROLLBACK')
      else {
        const kept = await client.query(
          `INSERT INTO usage_import_rejects (import, row, code, message, raw)
           SELECT $1, v.row, v.code, v.message, v.raw FROM jsonb_to_recordset($2::jsonb) AS v (row bigint, code text, message text, raw text)
           ON CONFLICT DO NOTHING`,
          [id, JSON.stringify(refused)],
        )
        // Two readers of one import cannot both go on: the progress of the other is another.
        const moved = await client.query(
          `UPDATE usage_imports SET line_reached = $2, rows_taken = rows_taken + $3, rows_known = rows_known + $4,
             rows_refused = rows_refused + $5, updated_at = $6
           WHERE id = $1 AND state = 'running' AND line_reached = $7`,
          [id, lines.to, taken, known, kept.rowCount ?? 0, clock.now(), lines.from],
        )
        if (moved.rowCount !== 1) throw new ReleveError('conflict', `import: ${id} is read by another process`)
        await client.query('COMMIT')
      }
      return { taken, known, refused }
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    } finally {
      client.release()
    }
  }
}

interface Row {
  id: string
  tenant: string | null
  name: string
  sha256: string
  bytes: string
  options: Job['writing']
  state: 'running' | 'done' | 'failed' | 'undone'
  line_reached: string
  rows_taken: string
  rows_known: string
  rows_refused: string
  reason: string | null
  created_at: string
}

const SELECT = `SELECT id, tenant, name, sha256, bytes, options, state, line_reached, rows_taken, rows_known, rows_refused, reason, created_at
  FROM usage_imports`

function reportOf(row: Row, rejects: readonly Reject[]): ImportReport {
  const counts = { taken: Number(row.rows_taken), known: Number(row.rows_known), refused: Number(row.rows_refused) }
  return {
    id: row.id,
    name: row.name,
    tenant: row.tenant,
    sha256: row.sha256,
    bytes: Number(row.bytes),
    state: row.state,
    writing: row.options,
    ...shown(counts),
    rejects,
    reason: row.reason,
    createdAt: Number(row.created_at),
  }
}

const shown = ({ taken, known, refused }: Counts) => ({
  rowsRead: taken + known + refused,
  rowsTaken: taken,
  rowsKnown: known,
  rowsRefused: refused,
})

/** To disk, with its hash, and whether all of it is UTF-8. */
async function spool(body: Readable, file: string): Promise<{ sha256: string; bytes: number; utf8: boolean }> {
  const hash = createHash('sha256')
  const text = new TextDecoder('utf-8', { fatal: true })
  let [bytes, utf8] = [0, true]
  const watch = new Transform({
    transform(chunk: Buffer, _, done) {
      bytes += chunk.length
      if (bytes > limits.importBytesMax) {
        done(new ReleveError('body_too_large', `a file has at most ${limits.importBytesMax} bytes`))
        return
      }
      hash.update(chunk)
      try {
        if (utf8) text.decode(chunk, { stream: true })
      } catch {
        utf8 = false
      }
      done(null, chunk)
    },
  })
  await pipeline(body, watch, createWriteStream(file, { mode: 0o600 }))
  try {
    if (utf8) text.decode()
  } catch {
    utf8 = false
  }
  return { sha256: hash.digest('hex'), bytes, utf8 }
}

async function beginOf(file: string): Promise<Uint8Array> {
  const handle = await open(file)
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(64 * 1024), 0, 64 * 1024, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await handle.close()
  }
}

/** Bytes to text, without the mark at the beginning. */
function decoder(encoding: Encoding): Transform {
  const decode = new TextDecoder(encoding)
  return new Transform({
    encoding: 'utf8',
    transform(chunk: Buffer, _, done) {
      done(null, decode.decode(chunk, { stream: true }))
    },
    flush(done) {
      done(null, decode.decode())
    },
  })
}

/** For the database: no NUL, no half of a surrogate pair. */
const clean = (text: string, max: number): string => text.slice(0, max).replaceAll(/\0|\p{Surrogate}/gu, '\ufffd')
