/** `ods-billing rates`: what tenants may send a second over NATS and MQTT, through the API of the running service. */
import type { Command } from 'commander'
import type { KeyLimits } from '../../access/budget.js'
import type { RatesList } from '../../access/rates.js'
import { limits } from '../../limits.js'
import { call, query, type TargetOptions, withTarget } from '../call.js'
import { Exit } from '../exit.js'
import { clean, say, sayJson, table } from '../terminal.js'
import { limitsOf, limitsText, type RateOptions, rated } from './keys.js'

interface WhoseOptions {
  readonly default?: boolean
}
const whose = (command: Command): Command => command.option('--default', 'of every tenant without its own')

export function ratesCommand(program: Command, exit: (code: number) => void): void {
  const rates = program.command('rates').description('what tenants may send a second over NATS and MQTT')

  /** One tenant, or all others: it must be said which, so that a name that came out empty does not limit everybody. */
  const bodyOf = (tenant: string | undefined, options: WhoseOptions, command: Command): { tenant?: string } => {
    if ((tenant === undefined) !== (options.default === true) || tenant === '')
      command.error('error: name a tenant, or --default for every tenant without its own')
    return tenant === undefined ? {} : { tenant }
  }
  const put = async (body: KeyLimits & { tenant?: string }, options: TargetOptions): Promise<void> => {
    const answer = (await call('PUT', '/v1/rates', body, options)) as { tenant: string | null; limits: KeyLimits }
    if (options.json === true) sayJson(answer)
    else {
      const gone = answer.tenant === null ? 'none' : 'none of its own'
      const now = Object.keys(answer.limits).length === 0 ? gone : limitsText(answer.limits)
      say(`${answer.tenant === null ? 'every tenant without its own' : clean(answer.tenant)}: ${now}`)
    }
    exit(Exit.ok.code)
  }

  withTarget(rates.command('list').description('every tenant with rates of its own, and those of all others')).action(
    async (options: TargetOptions) => {
      const tenants: RatesList['tenants'][number][] = []
      let after: string | undefined
      let page: RatesList
      do {
        const asked = query({ after, limit: String(limits.pageMax) })
        page = (await call('GET', `/v1/rates/tenants${asked}`, undefined, options)) as RatesList
        tenants.push(...page.tenants)
        after = page.next ?? undefined
      } while (after !== undefined)
      if (options.json === true) sayJson({ default: page.default, tenants })
      else
        say(
          table<{ tenant: string; limits: KeyLimits }>(
            [
              { title: 'TENANT', of: ({ tenant }) => tenant },
              { title: 'RATES', of: (row) => limitsText(row.limits) },
            ],
            [...tenants, { tenant: '(every other)', limits: page.default ?? {} }],
          ),
        )
      exit(Exit.ok.code)
    },
  )
  whose(
    rated(
      rates
        .command('set [tenant]')
        .description('the rates of a tenant, all of them: what is not given has no limit; they act at once'),
      'beyond it requests get 429, and messages of the stream wait',
    ),
  ).action(async (tenant: string | undefined, options: RateOptions & WhoseOptions, command: Command) => {
    const to = limitsOf(options)
    if (to === undefined) command.error('error: give at least one rate; rates delete takes them away')
    await put({ ...bodyOf(tenant, options, command), ...to }, options)
  })
  whose(
    withTarget(
      rates
        .command('delete [tenant]')
        .description('take the rates of a tenant away; those of every tenant count for it'),
    ),
  ).action(async (tenant: string | undefined, options: TargetOptions & WhoseOptions, command: Command) =>
    put(bodyOf(tenant, options, command), options),
  )
}
