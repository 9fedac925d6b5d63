/**
 * Notices by e-mail over SMTP, in plain text. TLS is required (STARTTLS, or from the
 * start on port 465) unless the server is this machine. With TLS, certificates are always
 * checked. `Message-ID` is made from the id of the notice, so that receivers can drop
 * repetitions. nodemailer builds, folds and encodes the headers; line breaks never reach
 * it.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import { defineNotifier, type Notice } from '../core/notifier.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField } from '../core/schema.ts'
import { PATIENCE_MS } from './_status.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'

const address = z
  .string()
  .regex(
    /^(?:[^<>@\r\n]{0,100} <[^\s<>@]+@[^\s<>@]+>|[^\s<>@,;]+@[^\s<>@,;]+)$/,
    'is not an address such as ops@example.com or Ops <ops@example.com>',
  )

const Config = z.strictObject({
  smtp: z
    .strictObject({
      host: z
        .string()
        .regex(/^[A-Za-z0-9.:-]{1,253}$/, 'is not a host name')
        .meta({ description: 'Mail server' }),
      port: z
        .int()
        .min(1)
        .max(65_535)
        .default(587)
        .meta({ description: 'Its port; 465 is TLS from the start' }),
      user: z.string().min(1).optional().meta({ description: 'User name, if it asks for one' }),
      password: secretField('Password of that user').optional(),
      ca: z
        .string()
        .startsWith('-----BEGIN CERTIFICATE-----')
        .optional()
        .meta({ description: "Certificate of the server's own authority, PEM" }),
    })
    .refine(
      (smtp) => (smtp.user === undefined) === (smtp.password === undefined),
      'needs both "user" and "password", or neither',
    )
    .meta({ description: 'How it is sent' }),
  from: address.meta({ description: 'Sender' }),
  to: z.array(address).min(1).max(50).meta({ description: 'Receivers' }),
})
type Options = z.output<typeof Config>

export default defineNotifier({
  id: 'email',
  title: 'E-mail',
  config: Config,
  describe: (config) => config.to.join(', '),
  send: deliver,
})

async function deliver(
  { smtp, from, to }: Options,
  notice: Notice,
  context: AdapterContext,
): Promise<void> {
  throwIfInterrupted(context.signal, 'the mail was sent')
  const { createTransport } = await import('nodemailer')
  const local = /^(localhost|127(\.\d{1,3}){3}|::1)$/.test(smtp.host)
  const implicit = smtp.port === 465
  const transport = createTransport({
    host: smtp.host,
    port: smtp.port,
    secure: implicit,
    requireTLS: !implicit && (!local || smtp.ca !== undefined),
    // A server on this machine often has no certificate, or one for another name.
    ignoreTLS: local && smtp.ca === undefined,
    tls: smtp.ca === undefined ? {} : { ca: smtp.ca },
    ...(smtp.user === undefined
      ? {}
      : { auth: { user: smtp.user, pass: smtp.password?.reveal() ?? '' } }),
    connectionTimeout: PATIENCE_MS,
    greetingTimeout: PATIENCE_MS,
    socketTimeout: PATIENCE_MS,
    disableFileAccess: true,
    disableUrlAccess: true,
  })
  const stop = (): void => transport.close()
  context.signal.addEventListener('abort', stop, { once: true })
  try {
    await transport.sendMail({
      from,
      to: [...to],
      subject: oneLine(`${notice.urgent ? 'URGENT: ' : ''}${notice.title}`),
      text: textOf(notice),
      messageId: `<${notice.id.replaceAll(/[^A-Za-z0-9_.-]/g, '_')}@rotate.invalid>`,
      date: new Date(notice.at),
      headers: { 'Auto-Submitted': 'auto-generated' },
      ...(notice.urgent ? { priority: 'high' as const } : {}),
    })
  } catch (thrown) {
    throw translated(thrown, smtp.host)
  } finally {
    context.signal.removeEventListener('abort', stop)
    transport.close()
  }
}

/**
 * The error of a mail that was not accepted. The code is kept, the text is not, because a
 * server may quote what it was sent.
 */
function translated(thrown: unknown, host: string): AdapterError {
  const { code, responseCode } = thrown as {
    readonly code?: unknown
    readonly responseCode?: unknown
  }
  const what = [
    typeof code === 'string' ? code : 'error',
    typeof responseCode === 'number' ? String(responseCode) : '',
  ]
    .join(' ')
    .trim()
  const message = `the mail server ${host} did not take it: ${what}`
  if (code === 'EAUTH')
    return new AdapterError('denied', message, {
      retryable: false,
      hints: ['check "user" and "password"'],
    })
  if (code === 'ETLS')
    return new AdapterError('misconfigured', message, {
      retryable: false,
      hints: ['the server must offer STARTTLS with a certificate for its name'],
    })
  const refused = typeof responseCode === 'number' && responseCode >= 500
  return new AdapterError(refused ? 'failed' : 'unavailable', message, {
    effect: 'unknown',
    retryable: !refused,
  })
}

function textOf(notice: Notice): string {
  const width = Math.max(0, ...notice.facts.map(({ label }) => label.length))
  const lines = [
    notice.title,
    '',
    ...notice.facts.map(({ label, value }) => `${`${label}:`.padEnd(width + 2)}${value}`),
  ]
  if (notice.next !== null) lines.push('', `Next: ${notice.next}`)
  if (notice.command !== null) lines.push('', `  ${notice.command}`)
  return (
    `${lines.map((line) => (line === '' ? '' : oneLine(line))).join('\n')}\n\n-- ` +
    `\n${notice.id}\n`
  )
}

function oneLine(text: string): string {
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trimEnd()
}
