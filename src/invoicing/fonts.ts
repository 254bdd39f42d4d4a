/**
 * The typeface of printed documents: IBM Plex Sans (SIL Open Font License 1.1), embedded, in two weights. It comes in one file per
 * script, so a text is cut into runs that one file can write: Latin with all its accents, Greek, Cyrillic, Vietnamese. What none of
 * them has (Arabic, Chinese …) is printed as «?»; the XML inside the document keeps the text as it is.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type PDFDocument from 'pdfkit'

export type Weight = 400 | 600

export interface Run {
  readonly font: string
  readonly text: string
}

const require = createRequire(import.meta.url)
const SCRIPTS = ['latin', 'latin-ext', 'greek', 'cyrillic', 'vietnamese'] as const
type Script = (typeof SCRIPTS)[number]

let loaded: { ranges: Map<Script, readonly (readonly [number, number])[]>; files: Map<string, Buffer> } | undefined

function load(): NonNullable<typeof loaded> {
  if (loaded !== undefined) return loaded
  const file = (name: string): Buffer => readFileSync(require.resolve(`@fontsource/ibm-plex-sans/${name}`))
  const unicode = JSON.parse(file('unicode.json').toString()) as Record<Script, string>
  const ranges = new Map(
    SCRIPTS.map((script) => [
      script,
      unicode[script].split(',').map((range): readonly [number, number] => {
        const [from, to] = range.replace('U+', '').split('-')
        return [Number.parseInt(from!, 16), Number.parseInt(to ?? from!, 16)]
      }),
    ]),
  )
  const files = new Map(
    SCRIPTS.flatMap((script) =>
      ([400, 600] as const).map((weight): [string, Buffer] => [
        `${script}-${weight}`,
        file(`files/ibm-plex-sans-${script}-${weight}-normal.woff`),
      ]),
    ),
  )
  loaded = { ranges, files }
  return loaded
}

/** Makes the fonts known to a document; only those that are used are embedded. */
export function registerFonts(document: InstanceType<typeof PDFDocument>): void {
  for (const [name, bytes] of load().files) document.registerFont(name, bytes)
}

/** A text as runs of one font each. Control characters become spaces. */
export function runsOf(text: string, weight: Weight): Run[] {
  const { ranges } = load()
  const runs: { font: string; text: string }[] = []
  for (const raw of text) {
    const code = raw.codePointAt(0)!
    const has = (script: Script): boolean => ranges.get(script)!.some(([from, to]) => from <= code && code <= to)
    const script = code < 0x20 || (code >= 0x7f && code < 0xa0) ? 'latin' : SCRIPTS.find(has)
    const character = code < 0x20 || (code >= 0x7f && code < 0xa0) ? ' ' : script === undefined ? '?' : raw
    const font = `${script ?? 'latin'}-${weight}`
    const last = runs.at(-1)
    if (last?.font === font) last.text += character
    else runs.push({ font, text: character })
  }
  return runs
}
