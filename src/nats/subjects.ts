/**
 * Subjects of the NATS door. A tenant is one token of a subject: characters that a token cannot have, and %, are percent-encoded.
 * The server's permissions bind a user to the subjects of its tenant; what comes in on them speaks for this tenant alone.
 */

/** Into the stream: the publisher's acknowledgement is the server's, and releve may be away. */
export const STREAM_SUBJECTS = 'usage.in.>'
export const IN = 'usage.in.'
/** Request and reply: the answer is releve's, with the verdicts, after the log has the batch on disk. */
export const REQUEST = 'usage.req.'
export const ALERTS = 'usage.alerts.'

/** The tenant as one token. */
export function tokenOf(tenant: string): string {
  return encodeURIComponent(tenant).replaceAll('.', '%2E').replaceAll('*', '%2A')
}

/** The tenant that a subject speaks for; null when it names none. */
export function tenantOf(subject: string, prefix: string): string | null {
  const token = subject.slice(prefix.length)
  if (!subject.startsWith(prefix) || token === '' || token.includes('.')) return null
  try {
    return decodeURIComponent(token)
  } catch {
    return null
  }
}
