/**
 * E-mail: one message to one address through the configured SMTP server. The server's word decides: taken is delivered, a refusal
 * of the address or of the text for good (5xx) is a dead letter, everything else is tried again.
 *
 * Whatever comes from outside (names of metrics, tenants) is text: it enters headers only through the mail library, without line
 * ends. The Message-ID is made of the message's id, so that a mailbox can drop a double.
 */
import { readFileSync } from 'node:fs'
import { createTransport } from 'nodemailer'
import type { Language } from '../format.js'
import type { Attempt } from './delivery.js'
import { letterOf } from './letter.js'

export interface Mailer {
  send(mail: { to: string; language: Language; id: string; body: string }): Promise<Attempt>
  close(): void
}

/** `url` is smtp:// (with STARTTLS where the server has it; demanded when a password is sent) or smtps://. */
export function openMailer(options: {
  readonly url: string
  readonly from: string
  /** The authority that the server's certificate must be of, instead of the well-known ones. */
  readonly caFile: string | undefined
  readonly timeoutMs: number
}): Mailer {
  const { from, caFile, timeoutMs } = options
  const url = new URL(options.url)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const secure = url.protocol === 'smtps:'
  const auth =
    url.username === '' ? undefined : { user: decodeURIComponent(url.username), pass: decodeURIComponent(url.password) }
  const transport = createTransport({
    host,
    port: url.port === '' ? (secure ? 465 : 587) : Number(url.port),
    secure,
    ...(auth === undefined ? {} : { auth, requireTLS: !secure }),
    ...(caFile === undefined ? {} : { tls: { ca: readAuthority(caFile) } }),
    connectionTimeout: timeoutMs,
    greetingTimeout: timeoutMs,
    socketTimeout: timeoutMs,
    disableFileAccess: true,
    disableUrlAccess: true,
  })
  const domain = /@([A-Za-z0-9.-]+)>?$/.exec(from)?.[1] ?? 'releve.invalid'
  return {
    async send({ to, language, id, body }) {
      const { subject, text } = letterOf(JSON.parse(body), language)
      try {
        await transport.sendMail({
          from,
          to: { name: '', address: to },
          subject,
          text,
          messageId: `<${id.replaceAll(/[^A-Za-z0-9_.-]/g, '-')}@${domain}>`,
          headers: { 'Auto-Submitted': 'auto-generated' },
        })
        return { outcome: 'delivered' }
      } catch (error) {
        const { responseCode, command } = error as MailError
        const text = reasonOf(error as MailError, host)
          .replaceAll(/[\r\n]+/g, ' ')
          .slice(0, 300)
        const isFinal =
          responseCode !== undefined && responseCode >= 500 && (command === 'RCPT TO' || command === 'DATA')
        return { outcome: isFinal ? 'refused' : 'failed', error: text }
      }
    },
    close: () => transport.close(),
  }
}

type MailError = Error & { readonly code?: string; readonly responseCode?: number; readonly command?: string }

/** What an operator can act on: whose fault it is comes first. */
function reasonOf({ code, message }: MailError, host: string): string {
  if (code === 'EAUTH') return `the SMTP server ${host} refuses user or password of RELEVE_SMTP_URL: ${message}`
  if (/certificate|altnames|issuer/i.test(message))
    return `the certificate of the SMTP server ${host} is not trusted (RELEVE_SMTP_CA_FILE names another authority): ${message}`
  if (code === 'ETLS') return `the SMTP server ${host} has no TLS, without which no password is sent: ${message}`
  return message
}

function readAuthority(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new Error(`cannot start: RELEVE_SMTP_CA_FILE cannot be read: ${(cause as Error).message}`, { cause })
  }
}
