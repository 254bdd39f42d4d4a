/** `releve audit`: asks the running service, or opens the data directory when none runs. Exit code 6 when something differs. */
import type { Config } from '../../config.js'
import type { AuditReport } from '../../rollup/audit.js'
import { call, serviceOf, Unreachable } from '../call.js'
import { Exit } from '../exit.js'
import { withSystem } from '../open.js'

async function runAudit(config: Config): Promise<AuditReport> {
  if (serviceOf(config.dataDirectory) !== undefined) {
    try {
      return (await call('POST', '/v1/audit')) as AuditReport
    } catch (error) {
      // A file that a killed service left behind: nobody listens, so the directory is opened here.
      if (!(error instanceof Unreachable)) throw error
    }
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
  return report.ok ? Exit.ok.code : Exit.differs.code
}
