/**
 * `releve backup`: the running service makes one; progress on stderr, the directory (on its machine) on stdout. `releve restore`: a backup becomes a
 * data directory, every file checked against its checksum first; no service is needed. `--check` only checks.
 */
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import type { BackupState } from '../../backup.js'
import { call, onlyHere, type TargetOptions, withTarget } from '../call.js'

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`

function progress(): (text: string, isLast?: boolean) => void {
  let shown = ''
  return (text, isLast = false) => {
    if (text === shown) return
    shown = text
    process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${text}${isLast ? '\n' : ''}` : `${text}\n`)
  }
}

export function backupCommands(program: Command): void {
  withTarget(
    program
      .command('backup')
      .description(
        'back up the running service, without stopping it; prints the directory, on the machine of the service',
      ),
  ).action(async (options: TargetOptions) => {
    const show = progress()
    let state = (await call('POST', '/v1/backups', undefined, options)) as BackupState
    while (state.state === 'running') {
      if (process.stderr.isTTY) show(`${state.step}: ${state.files} files, ${megabytes(state.bytes)}`)
      else show(state.step)
      await sleep(200)
      state = (await call('GET', '/v1/backups/current', undefined, options)) as BackupState
    }
    if (state.state === 'failed') throw new Error(state.error ?? 'the backup failed')
    show(`${state.files} files, ${megabytes(state.bytes)}; flushes were held for ${state.heldMs} ms`, true)
    process.stdout.write(options.json ? `${JSON.stringify(state, null, 2)}\n` : `${state.directory}\n`)
  })
  onlyHere(
    program
      .command('restore <backup>')
      .description('make a data directory of a backup; then: RELEVE_DATA=<directory> releve audit'),
    'run it on the machine that has the backup',
  )
    .option('--data <directory>', 'the new data directory; it must not be there, or be empty', '.data')
    .option('--check', 'only check every file of the backup')
    .option('--json', 'machine-readable')
    .action(async (backup: string, options: { data: string; check?: boolean; json?: boolean }) => {
      const { restoreBackup, verifyBackup } = await import('../../backup.js')
      const show = progress()
      let files = 0
      const onFile = (): void => {
        files += 1
        if (process.stderr.isTTY && files % 50 === 0) show(`${files} files`)
      }
      const directory = resolve(options.data)
      const { files: listed, ...manifest } = options.check
        ? await verifyBackup(resolve(backup), onFile)
        : await restoreBackup(resolve(backup), directory, onFile)
      show(`${listed.length} files are as they were at ${manifest.takenAt}`, true)
      const result = { ...manifest, files: listed.length, ...(options.check ? {} : { directory }) }
      process.stdout.write(
        options.json ? `${JSON.stringify(result, null, 2)}\n` : `${options.check ? resolve(backup) : directory}\n`,
      )
    })
}
