/** `releve audit`: asks the running service, or opens the data directory when none runs. Exit code 6 when something differs. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../../config.js'
import type { AuditReport } from '../../rollup/audit.js'
import { withSystem } from '../open.js'
import { serviceFile } from './serve.js'

async function runAudit(config: Config): Promise<AuditReport> {
  const file = serviceFile(config.dataDirectory)
  if (existsSync(file)) {
    const { url } = JSON.parse(readFileSync(file, 'utf8')) as { url: string }
    const key = readFileSync(join(config.dataDirectory, 'admin.key'), 'utf8').trim()
    const answer = await fetch(`${url}/v1/audit`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}` },
    }).catch(() => undefined)
    if (answer?.ok) return (await answer.json()) as AuditReport
    if (answer !== undefined)
      throw new Error(`cannot audit: the service answers ${answer.status}: ${await answer.text()}`)
    // A file that a killed service left behind: nobody listens, so the directory is opened here.
  }
  return withSystem(config, (system) => system.audit())
}

export async function auditCommand(config: Config, json: boolean): Promise<number> {
  const report = await runAudit(config)
  if (json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
  else {
    for (const check of report.checks)
      process.stdout.write(`${check.ok ? 'ok  ' : 'DIFF'} ${check.name.padEnd(24)} ${check.detail}\n`)
    process.stdout.write(
      report.ok
        ? 'The books balance, and the replay equals what is served.\n'
        : 'Something differs: releve rebuild --dry-run shows what a rebuild would change.\n',
    )
  }
  return report.ok ? 0 : 6
}
