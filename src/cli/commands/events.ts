/**
 * `ods-billing events send`: a file or stdin, NDJSON or CSV, in batches. A line is an event, so what is in memory is a few batches
 * whatever the size of the file. A batch that finds the service away or overloaded is sent again as it is: duplicates cost
 * nothing, and so does sending the whole file again.
 */
import { createReadStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { ReleveError } from '../../errors.js'
import { limits } from '../../limits.js'
import type { IngestAnswer } from '../../system.js'
import { ask, type Target, type TargetOptions, targetOf, Unreachable, withTarget } from '../call.js'
import { Exit } from '../exit.js'
import { clean, paint, progressLine, say, sayJson, tell } from '../terminal.js'

type Format = 'ndjson' | 'csv'

interface SendOptions extends TargetOptions {
  readonly format?: Format
  readonly batch: number
  readonly concurrency: number
  readonly retries: number
  readonly wait: boolean
}

const NEWLINE = 0x0a
const types: Readonly<Record<Format, string>> = { ndjson: 'application/x-ndjson', csv: 'text/csv' }
/** Refusals that are told one by one; all are counted. */
const TOLD_MAX = 20

export interface SendSummary {
  sent: number
  stored: number
  refused: number
  accepted: number
  duplicate: number
  conflict: number
  refusals: Record<string, number>
  batches: number
  retries: number
}

interface Batch {
  readonly bytes: Buffer
  /** Line of the input that each event stands on, from 1. */
  readonly lines: readonly number[]
}

/** Lines of a stream that are not blank, with their numbers; never more than one chunk and one line in memory. */
export async function* linesOf(input: AsyncIterable<Buffer>): AsyncGenerator<{ line: Buffer; number: number }> {
  let rest: Buffer[] = []
  let restBytes = 0
  let number = 0
  const isBlank = (line: Buffer): boolean => line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)
  for await (const chunk of input) {
    let from = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      const line = Buffer.concat([...rest, chunk.subarray(from, end)])
      rest = []
      restBytes = 0
      from = end + 1
      number += 1
      if (!isBlank(line)) yield { line, number }
    }
    if (from < chunk.length) {
      rest.push(chunk.subarray(from))
      restBytes += chunk.length - from
      if (restBytes > limits.bodyBytesMax)
        throw new Error(`cannot read line ${number + 1}: it is longer than ${limits.bodyBytesMax} bytes`)
    }
  }
  const last = Buffer.concat(rest)
  if (!isBlank(last)) yield { line: last, number: number + 1 }
}

/** Batches of at most `max` events and half of the largest body. Each batch of a CSV begins with the first line of the file. */
async function* batchesOf(input: AsyncIterable<Buffer>, format: Format, max: number): AsyncGenerator<Batch> {
  let header: Buffer | undefined
  let parts: Buffer[] = []
  let lines: number[] = []
  let bytes = 0
  const take = (): Batch => {
    const all = header === undefined ? parts : [header, ...parts]
    const batch = { bytes: Buffer.concat(all.flatMap((part) => [part, Buffer.from('\n')])), lines }
    parts = []
    lines = []
    bytes = 0
    return batch
  }
  for await (const { line, number } of linesOf(input)) {
    if (format === 'csv' && header === undefined) {
      header = line
      continue
    }
    if (lines.length > 0 && bytes + line.length > limits.bodyBytesMax / 2) yield take()
    parts.push(line)
    lines.push(number)
    bytes += line.length + 1
    if (lines.length === max) yield take()
  }
  if (lines.length > 0) yield take()
}

/** Sends one batch until it has an answer. Throws when it may not be sent, or not within the retries. */
async function sendBatch(
  target: Target,
  batch: Batch,
  how: { format: Format; wait: boolean; retries: number; onRetry: (why: string) => void },
): Promise<IngestAnswer> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await ask(target, 'POST', `/v1/events${how.wait ? '?wait=applied' : ''}`, {
        raw: { type: types[how.format], bytes: batch.bytes },
        alsoOk: [422],
      })
      const body = (await answer.json()) as IngestAnswer & { detail?: string }
      // All refused is an answer with verdicts; another 422 is a problem.
      if (body.received === undefined) throw new ReleveError('unprocessable', body.detail ?? 'the batch is refused')
      return body
    } catch (error) {
      const again =
        error instanceof Unreachable || (error instanceof ReleveError && (error.status === 429 || error.status === 503))
      if (!again || attempt >= how.retries) throw error
      const waitS = (error instanceof ReleveError ? error.retryAfterS : undefined) ?? Math.min(30, 0.2 * 2 ** attempt)
      how.onRetry(error.message)
      await sleep(1000 * waitS)
    }
  }
}

async function send(input: AsyncIterable<Buffer>, format: Format, options: SendOptions): Promise<number> {
  const target = targetOf(options)
  const began = performance.now()
  const line = progressLine()
  const sum: SendSummary = {
    sent: 0,
    stored: 0,
    refused: 0,
    accepted: 0,
    duplicate: 0,
    conflict: 0,
    refusals: {},
    batches: 0,
    retries: 0,
  }
  let told = 0
  const count = (batch: Batch, answer: IngestAnswer): void => {
    sum.batches += 1
    sum.sent += answer.received
    sum.stored += answer.stored
    sum.refused += answer.refused
    sum.accepted += answer.applied?.accepted ?? 0
    sum.duplicate += answer.applied?.duplicate ?? 0
    sum.conflict += answer.applied?.conflict ?? 0
    for (const { code, index, field, message, id } of answer.refusals) {
      sum.refusals[code] = (sum.refusals[code] ?? 0) + 1
      told += 1
      if (told <= TOLD_MAX)
        tell(
          clean(
            `line ${batch.lines[index] ?? '?'}: ${code}: ${[field, message].filter(Boolean).join(' ')} (id ${id || 'none'})`,
          ),
        )
    }
    // An answer spells out a part of many refusals.
    const unspelled = answer.refused - answer.refusals.length
    if (unspelled > 0) sum.refusals.unspelled = (sum.refusals.unspelled ?? 0) + unspelled
    const rate = Math.round((1000 * sum.sent) / Math.max(1, performance.now() - began))
    line.show(`${sum.sent} events sent, ${sum.refused} refused, ${rate} events/s`)
  }

  const open = new Set<Promise<void>>()
  let failure: unknown
  const onRetry = (why: string): void => {
    sum.retries += 1
    tell(`again: ${why}`)
  }
  for await (const batch of batchesOf(input, format, options.batch)) {
    if (failure !== undefined) break
    const done = sendBatch(target, batch, { format, wait: options.wait, retries: options.retries, onRetry })
      .then((answer) => count(batch, answer))
      .catch((error: unknown) => {
        failure ??= error
      })
      .finally(() => open.delete(done))
    open.add(done)
    if (open.size >= options.concurrency) await Promise.race(open)
  }
  await Promise.all(open)
  line.end()

  if (options.json === true) sayJson({ ...sum, complete: failure === undefined })
  else {
    const verdicts = options.wait
      ? `: ${sum.accepted} counted, ${sum.duplicate} known already, ${sum.conflict} in conflict`
      : ''
    say(`${sum.sent} events sent, ${sum.stored} stored${verdicts}`)
    if (sum.refused > 0) {
      const codes = Object.entries(sum.refusals).map(([code, n]) => `${n} ${code}`)
      say(paint('yellow', `${sum.refused} refused: ${codes.join(', ')}`))
      say('ods-billing rejects list shows them, rejects export and resend mend them.')
    }
  }
  if (failure !== undefined) {
    tell('Not everything was sent. Send the same file again: what is stored already costs nothing.')
    throw failure
  }
  return sum.refused + sum.conflict > 0 ? Exit.partial.code : Exit.ok.code
}

const whole = (min: number, max: number) => (text: string) => {
  const value = /^[0-9]{1,9}$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= min && value <= max)) throw new InvalidArgumentError(`a whole number from ${min} to ${max}`)
  return value
}

export function eventsCommand(program: Command, exit: (code: number) => void): void {
  const events = program.command('events').description('usage events')
  withTarget(
    events
      .command('send [file]')
      .description('send a file, or stdin with - or without a name; exit code 7 when some events are refused')
      .option('--format <format>', 'ndjson or csv; by the ending of the name, else ndjson', (text) => {
        if (text !== 'ndjson' && text !== 'csv') throw new InvalidArgumentError('ndjson or csv')
        return text as Format
      })
      .option(
        '--batch <n>',
        `events of one request, up to ${limits.batchEventsMax}`,
        whole(1, limits.batchEventsMax),
        1_000,
      )
      .option('--concurrency <n>', 'requests at once', whole(1, 64), 4)
      .option('--retries <n>', 'tries again of one batch', whole(0, 1_000), 10)
      .option('--no-wait', 'do not wait until events are counted: no duplicates in the summary'),
  ).action(async (file: string | undefined, options: SendOptions) => {
    const isStdin = file === undefined || file === '-'
    const input: Readable = isStdin ? process.stdin : createReadStream(file)
    const format = options.format ?? (file?.toLowerCase().endsWith('.csv') === true ? 'csv' : 'ndjson')
    try {
      exit(await send(input, format, options))
    } finally {
      input.destroy()
    }
  })
}
