/**
 * A TCP connection, with TLS if asked for. It presents no value, so it shows only that
 * something accepts connections.
 */
import { connect } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { urlFault } from '../core/schema.ts'
import { type CheckOutcome, defineCheck } from '../core/target.ts'

const TIMEOUT_MS = 10_000

const Config = z.strictObject({
  host: z
    .string()
    .regex(/^[A-Za-z0-9.:_-]{1,253}$/, 'is not a host name or address')
    .refine(
      (host) => urlFault(`https://${host.includes(':') ? `[${host}]` : host}/`) === undefined,
      'is not a host that may be asked',
    )
    .meta({ description: 'Host name or address' }),
  port: z.int().min(1).max(65_535).meta({ description: 'Port' }),
  tls: z
    .boolean()
    .default(false)
    .meta({ description: 'Also shake hands over TLS, and check the certificate' }),
})
type Options = z.output<typeof Config>

export default defineCheck({
  id: 'tcp',
  title: 'TCP connection',
  config: Config,
  presents: () => false,
  describe: ({ host, port, tls }) => `connects to ${host}:${port}${tls ? ' over TLS' : ''}`,
  run: (config, _fields, context) => attempt(config, context),
})

async function attempt(
  { host, port, tls }: Options,
  context: AdapterContext,
): Promise<CheckOutcome> {
  if (context.signal.aborted) throw new AdapterError('failed', 'interrupted', { retryable: false })
  return new Promise((resolve) => {
    const socket = tls
      ? connectTls({ host, port, ...(/^[\d.:]+$/.test(host) ? {} : { servername: host }) })
      : connect({ host, port })
    const done = (ok: boolean, detail: string): void => {
      context.signal.removeEventListener('abort', stop)
      socket.destroy()
      resolve({ ok, detail })
    }
    const stop = (): void => done(false, 'interrupted')
    context.signal.addEventListener('abort', stop, { once: true })
    socket.setTimeout(TIMEOUT_MS, () => done(false, `no answer within ${TIMEOUT_MS / 1000} s`))
    socket.once(tls ? 'secureConnect' : 'connect', () =>
      done(true, tls ? 'accepted over TLS' : 'accepted'),
    )
    // Only the code is shown, because a message may quote anything.
    socket.once('error', (error: NodeJS.ErrnoException) => done(false, error.code ?? 'failed'))
  })
}
