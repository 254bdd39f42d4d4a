/**
 * `releve audit`: asks the service that was named, or the one that runs on the data directory, or opens the directory when none runs.
 * Exit code 6 when something differs.
 */
import { loadClientConfig, loadConfig } from '../../config.js'
import type { AuditReport } from '../../rollup/audit.js'
import { call, serviceOf, type TargetOptions, Unreachable } from '../call.js'
import { Exit } from '../exit.js'
import { withSystem } from '../open.js'

async function runAudit(options: TargetOptions): Promise<AuditReport> {
  const { url, dataDirectory } = loadClientConfig()
  const named = options.url ?? url
  if (named !== undefined || serviceOf(dataDirectory) !== undefined) {
    try {
      return (await call('POST', '/v1/audit', undefined, options)) as AuditReport
    } catch (error) {
      // A file that a killed service left behind: nobody listens, so the directory is opened here.
      if (named !== undefined || !(error instanceof Unreachable)) throw error
    }
  }
  return withSystem(loadConfig(), (system) => system.audit())
}

export async function auditCommand(options: TargetOptions): Promise<number> {
  const report = await runAudit(options)
  if (options.json === true) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
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
