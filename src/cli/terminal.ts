/**
 * What commands write: tables and JSON on stdout, progress on stderr. Colour only on a terminal that has it, and never with
 * NO_COLOR. What came from elsewhere (names, ids, messages) is printed without control characters, so that no event can steer
 * a terminal.
 */
import { styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

/** NO_COLOR, TERM=dumb and a stdout that is no terminal are seen by Node. */
const coloured = process.stdout.isTTY && process.stdout.hasColors()

export function paint(style: Style, text: string): string {
  return coloured ? styleText(style, text, { validateStream: false }) : text
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g
export const clean = (text: string): string => text.replaceAll(CONTROL, '·')

const gone = new AbortController()
/** Nobody reads stdout any more. What would go on for ever, or for its output alone, ends by it. */
export const readerGone: AbortSignal = gone.signal

/**
 * A reader that leaves before the end (`… | head -1`) is no fault: the rest is written to nobody and the command comes to its end and
 * its exit code, for half of it may have been done. Any other failure to write, a disk that is full for example, ends it by `fail`.
 */
export function watchOutput(fail: (reason: string) => void): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') gone.abort()
    else fail(`cannot write the output: ${error.message}`)
  })
  // Progress and warnings that nobody sees are no reason to stop.
  process.stderr.on('error', () => {})
}

export function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

export function tell(text: string): void {
  process.stderr.write(`${text}\n`)
}

export function sayJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

export interface Column<Row> {
  readonly title: string
  readonly of: (row: Row) => string
  readonly right?: boolean
  readonly style?: (row: Row) => Style | undefined
}

/** Columns as wide as their widest cell; styles come on top of the widths. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cells = rows.map((row) => columns.map(({ of }) => clean(of(row))))
  const widths = columns.map(({ title }, i) => Math.max(title.length, ...cells.map((line) => line[i]!.length)))
  const pad = (text: string, i: number): string =>
    columns[i]!.right === true ? text.padStart(widths[i]!) : i === columns.length - 1 ? text : text.padEnd(widths[i]!)
  const head = columns.map(({ title }, i) => paint('bold', pad(title, i))).join('  ')
  const body = cells.map((line, n) =>
    line
      .map((text, i) => {
        const style = columns[i]!.style?.(rows[n]!)
        return style === undefined ? pad(text, i) : paint(style, pad(text, i))
      })
      .join('  '),
  )
  return [head, ...body].join('\n')
}

/** One line that is rewritten on a terminal; a line every two seconds elsewhere, and the last one always. */
export function progressLine(): { show(line: string): void; end(): void } {
  let shownAt = Number.NEGATIVE_INFINITY
  let last = ''
  return {
    show(line) {
      last = line
      if (process.stderr.isTTY) process.stderr.write(`\r\x1b[2K${line}`)
      else if (performance.now() - shownAt > 2_000) {
        shownAt = performance.now()
        tell(line)
      }
    },
    end() {
      process.stderr.write(process.stderr.isTTY ? '\n' : `${last}\n`)
    },
  }
}
