/** `ods-billing invoice …`: what changes an invoice, its journal, and what other prices would have made; through the service's API. */
import type { Command } from 'commander'
import { formatMoney } from '../../format.js'
import type { LateFinding } from '../../invoicing/correct.js'
import type { InvoiceMove, KeptInvoice } from '../../invoicing/invoicing.js'
import { renderInvoice } from '../../invoicing/render.js'
import type { ShadowAnswer } from '../../shadow-rating.js'
import { call, type TargetOptions, withTarget } from '../call.js'

interface Options extends TargetOptions {
  readonly reason?: string
}

export function invoiceMoveCommands(invoice: Command, exit: (code: number) => void): void {
  const done = (value: unknown, { json }: Options, text: () => string): void => {
    process.stdout.write(json === true ? `${JSON.stringify(value, null, 2)}\n` : text())
    exit(0)
  }
  const of = (id: string, what: string): string => `/v1/invoices/${encodeURIComponent(id)}/${what}`
  const said = ({ state, invoice: { number, id, ttc, currency } }: KeptInvoice): string =>
    `${number ?? id}  ${state}  ${formatMoney(ttc, currency, 'en')}\n`

  for (const [name, to, description] of [
    ['issue', 'finalised', 'give a draft its number; under a clearance system it then waits for certification'],
    ['sent', 'sent', 'note that it went out to the customer'],
    ['paid', 'paid', 'note that it was paid in full'],
    ['discard', 'discarded', 'drop a draft; its period can be closed again'],
  ] as const) {
    withTarget(invoice.command(`${name} <invoice>`))
      .description(description)
      .option('--reason <text>', 'for the journal')
      .action(async (id: string, options: Options) => {
        const kept = (await call('POST', of(id, 'moves'), { to, ...reasonOf(options) }, options)) as KeptInvoice
        done(kept, options, () => said(kept))
      })
  }
  withTarget(invoice.command('journal <invoice>'))
    .description('every move with actor and time, and the certification')
    .action(async (id: string, options: Options) => {
      const found = (await call('GET', of(id, 'moves'), undefined, options)) as {
        moves: InvoiceMove[]
        state: string
        createdAt: number
      }
      done(found, options, () =>
        [
          `${new Date(found.createdAt).toISOString()}  made`,
          ...found.moves.map(
            ({ at, from, to, actor, reason }) =>
              `${new Date(at).toISOString()}  ${from} → ${to}  ${actor}${reason === null ? '' : `: ${reason}`}`,
          ),
        ]
          .map((line) => `${line}\n`)
          .join(''),
      )
    })
  withTarget(invoice.command('credit <invoice>'))
    .description('a credit note in its own series')
    .option('--amount <amount>', 'with tax; all that is left by default')
    .option('--reason <text>', 'for the journal')
    .action(async (id: string, options: Options & { amount?: string }) => {
      const { amount } = options
      const body = { ...(amount === undefined ? {} : { amount }), ...reasonOf(options) }
      const note = (await call('POST', of(id, 'credit'), body, options)) as KeptInvoice
      done(note, options, () => said(note))
    })
  withTarget(invoice.command('refresh <invoice>'))
    .description('count the period of a draft again')
    .action(async (id: string, options: Options) => {
      const closed = (await call('POST', of(id, 'refresh'), {}, options)) as { invoice: KeptInvoice | null }
      done(closed, options, () => (closed.invoice === null ? 'nothing is due\n' : said(closed.invoice)))
    })
  withTarget(invoice.command('late <invoice>'))
    .description('what changed of the usage since, and what would follow; --settle makes the document')
    .option('--settle', 'make the complementary invoice or the credit note that the contract asks for')
    .action(async (id: string, options: Options & { settle?: boolean }) => {
      const found = (await (options.settle === true
        ? call('POST', of(id, 'settle-late'), {}, options)
        : call('GET', of(id, 'late'), undefined, options))) as LateFinding & { made?: KeptInvoice | null }
      done(found, options, () =>
        [
          `${found.goes}\n`,
          ...found.differences.map((one) => `${one.item}  ${one.metric}: ${one.billed} billed, ${one.now} now\n`),
          ...(found.made ? [said(found.made)] : found.document === null ? [] : [renderInvoice(found.document)]),
        ].join(''),
      )
    })
  withTarget(invoice.command('shadow'))
    .description('what other price versions (drafts too) or plans would have made of real usage; nothing is stored')
    .requiredOption('--from <time>', 'periods that begin at or after it, such as 2026-01-01T00:00:00Z')
    .requiredOption('--to <time>', 'and before it')
    .option('--price <rule@version>', 'may be repeated', collect, [])
    .option('--plan <from:to>', 'with a version: from:to@2; may be repeated', collect, [])
    .option('--tenant <tenant>', 'of one customer')
    .option('--contract <contract>', 'may be repeated', collect, [])
    .action(
      async (
        options: Options & {
          from: string
          to: string
          price: string[]
          plan: string[]
          contract: string[]
          tenant?: string
        },
      ) => {
        const body = {
          from: options.from,
          to: options.to,
          prices: options.price.map((text) => {
            const at = text.lastIndexOf('@')
            return { rule: text.slice(0, at), version: text.slice(at + 1) }
          }),
          plans: options.plan.map((text) => {
            const [change = '', version] = text.split('@')
            const [from = '', to = ''] = change.split(':')
            return { from, to, ...(version === undefined ? {} : { version: Number(version) }) }
          }),
          ...(options.tenant === undefined ? {} : { tenant: options.tenant }),
          ...(options.contract.length === 0 ? {} : { contracts: options.contract }),
        }
        let after: string | null = null
        do {
          const asked = { ...body, ...(after === null ? {} : { after }) }
          const page = (await call('POST', '/v1/rating/shadow', asked, options)) as ShadowAnswer
          for (const one of page.contracts) {
            const money = (amount: string): string => formatMoney(amount, one.currency, 'en').padStart(16)
            process.stdout.write(
              options.json === true
                ? `${JSON.stringify(one)}\n`
                : `${one.contract.padEnd(32)}${money(one.before)}${money(one.after)}${money(one.difference)}\n`,
            )
          }
          for (const { contract, reason } of page.failed) process.stderr.write(`${contract}: ${reason}\n`)
          after = page.next
        } while (after !== null)
        exit(0)
      },
    )
}

const reasonOf = ({ reason }: Options) => (reason === undefined ? {} : { reason })

function collect(value: string, all: string[]): string[] {
  return [...all, value]
}
