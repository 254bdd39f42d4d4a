/** A PDF as its readers see it: the text of each page (pdftotext), and what is drawn. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { inflateSync } from 'node:zlib'
import { findProgram } from '../programs.js'

/** What is drawn, uncompressed. */
export function contentsOf(pdf: Buffer): string[] {
  const found: string[] = []
  for (let at = pdf.indexOf('\nstream\n'); at !== -1; at = pdf.indexOf('\nstream\n', at + 1)) {
    const end = pdf.indexOf('\nendstream', at)
    try {
      found.push(inflateSync(pdf.subarray(at + 8, end)).toString('latin1'))
    } catch {
      // Not a compressed stream.
    }
  }
  return found
}

/** The text of each page, as a reader of PDF sees it. */
export const pagesOf = async (pdf: Buffer): Promise<string[]> => {
  const child = promisify(execFile)(findProgram('pdftotext')!, ['-layout', '-', '-'])
  child.child.stdin!.end(pdf)
  return (await child).stdout.replaceAll('\u00a0', ' ').split('\f').slice(0, -1)
}
