/**
 * Structured logs, one JSON object a line on stderr. The variable is always `logger`: the word «log» belongs to the event log.
 * Secrets never reach a log line: keys, passwords and authorization headers are redacted here, once.
 */
import { destination, type Logger, pino } from 'pino'

export type { Logger }

export function openLogger(level: string): Logger {
  return pino(
    {
      level,
      base: null,
      redact: {
        paths: ['password', '*.password', 'key', '*.key', 'secret', '*.secret', 'req.headers.authorization'],
        censor: '[redacted]',
      },
    },
    destination({ fd: 2, sync: true }),
  )
}

/** A logger that says nothing, for tests. */
export const silentLogger: Logger = pino({ level: 'silent' })
