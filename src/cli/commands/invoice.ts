/** `ods-billing invoice`: list, show, verify, preview, through the running service's API. Exit code 6 when a verification differs. */
import { writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { formatMoney, type Language } from '../../format.js'
import type { Invoice, KeptInvoice } from '../../invoicing/invoicing.js'
import { renderInvoice } from '../../invoicing/render.js'
import type { Verification } from '../../invoicing/verify.js'
import { call, fetchBytes, type TargetOptions, withTarget } from '../call.js'
import { invoiceMoveCommands } from './invoice-moves.js'

export function invoiceCommand(program: Command, exit: (code: number) => void): void {
  const invoice = program.command('invoice').description('invoices of the running service')
  invoiceMoveCommands(invoice, exit)
  const done = (value: unknown, json: boolean | undefined, text: () => string): void => {
    process.stdout.write(json === true ? `${JSON.stringify(value, null, 2)}\n` : text())
    exit(0)
  }
  const language = (value: string | undefined): { language?: Language } =>
    value === 'fr' || value === 'en' ? { language: value } : {}

  withTarget(invoice.command('list'))
    .description('newest first')
    .option('--tenant <tenant>', 'of one customer')
    .option('--contract <contract>', 'of one contract')
    .option('--state <state>', 'only those in this state, such as draft')
    .option('--after <next>', 'the page behind one before')
    .option('--limit <n>', 'at most so many', '100')
    .action(
      async (
        options: TargetOptions & { tenant?: string; contract?: string; state?: string; after?: string; limit: string },
      ) => {
        const { tenant, contract, state, after, limit } = options
        const asked = Object.entries({ tenant, contract, state, after, limit })
        const query = new URLSearchParams(
          asked.flatMap(([name, value]): [string, string][] => (value === undefined ? [] : [[name, value]])),
        )
        const answer = (await call('GET', `/v1/invoices?${query}`, undefined, options)) as {
          invoices: KeptInvoice[]
          next: string | null
        }
        if (answer.next !== null) process.stderr.write(`more: --after ${answer.next}\n`)
        done(answer, options.json, () => answer.invoices.map((kept) => `${row(kept)}\n`).join(''))
      },
    )
  withTarget(invoice.command('show <invoice>'))
    .description('by number or id, with its calculation and proofs')
    .option('--language <language>', 'fr or en')
    .option('--format <format>', 'another format, written to stdout or to --output')
    .option('--output <file>', 'where --format goes')
    .action(
      async (
        id: string,
        options: TargetOptions & { language?: string; format?: string; output?: string },
      ): Promise<void> => {
        const path = `/v1/invoices/${encodeURIComponent(id)}`
        if (options.format !== undefined) {
          const query = new URLSearchParams({ format: options.format, ...language(options.language) })
          const bytes = await fetchBytes('GET', `${path}?${query}`, undefined, options)
          if (options.output === undefined) process.stdout.write(bytes)
          else writeFileSync(options.output, bytes)
          return exit(0)
        }
        const kept = (await call('GET', path, undefined, options)) as KeptInvoice
        done(kept, options.json, () => renderInvoice(kept.invoice, language(options.language)))
      },
    )
  withTarget(invoice.command('preview <contract>'))
    .description('a period as an invoice, by the usage of now; nothing is kept')
    .option('--at <time>', 'any instant of the period; the running one by default')
    .option('--language <language>', 'fr or en')
    .action(async (contract: string, options: TargetOptions & { at?: string; language?: string }) => {
      const at = options.at === undefined ? '' : `?${new URLSearchParams({ at: options.at })}`
      const path = `/v1/contracts/${encodeURIComponent(contract)}/invoice-preview${at}`
      const preview = (await call('GET', path, undefined, options)) as Invoice
      done(preview, options.json, () => renderInvoice(preview, language(options.language)))
    })
  withTarget(invoice.command('verify <invoice>'))
    .description(
      'count the archived events again, rate them by the pinned prices, and compare; exit code 6 when not equal',
    )
    .action(async (id: string, options: TargetOptions) => {
      const found = (await call(
        'POST',
        `/v1/invoices/${encodeURIComponent(id)}/verify`,
        undefined,
        options,
      )) as Verification
      done(found, options.json, () => verificationText(found))
      exit(found.equal ? 0 : 6)
    })
}

function row({ state, invoice }: KeptInvoice): string {
  const amount = formatMoney(invoice.ttc, invoice.currency, 'en')
  return `${(invoice.number ?? invoice.id).padEnd(20)} ${(invoice.issuedOn ?? '').padEnd(10)}  ${state.padEnd(10)} ${amount.padStart(18)}  ${invoice.customer.name}`
}

function verificationText(found: Verification): string {
  const out: string[] = []
  const differs = (list: Verification['document'], indent: string): void => {
    for (const { what, stored, found: again } of list) {
      out.push(
        `${indent}${what}: the invoice says ${stored ?? 'nothing'}, the archive and the price book say ${again ?? 'nothing'}`,
      )
    }
  }
  for (const line of found.lines) {
    const events = line.events === null ? '' : `, ${line.events} archived events`
    out.push(
      `${line.equal ? 'equal    ' : 'NOT EQUAL'} line ${line.no}: ${line.type} ${line.metric ?? ''} ${line.amount}${events}`,
    )
    differs(line.differences, '            ')
  }
  out.push(`${found.document.length === 0 ? 'equal    ' : 'NOT EQUAL'} totals, taxes, statement and hash`)
  differs(found.document, '            ')
  for (const metric of found.unchecked) out.push(`not checked: ${metric} has no archive`)
  out.push(`${found.number ?? found.id} is ${found.equal ? 'equal to' : 'NOT EQUAL to'} what its events say.`)
  return `${out.join('\n')}\n`
}
