/**
 * Logins of the provider `mysql`: as the admin, to read or to change accounts, and as an
 * account, to prove its password.
 */
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { asAdminOf, usesTls } from './_login.ts'
import { accountBehind, withConnection, identify, type Patience, type Server } from './_mysql.ts'
import { type Account, called } from './_mysql-accounts.ts'
import type { Options } from './_mysql-config.ts'
import { endSession, holderOf, takeTurn, turnOf } from './_mysql-turn.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'

/** Everything that the functions of one session need. */
export interface Job {
  readonly config: Options
  readonly context: AdapterContext
  readonly patience: Patience
}

/**
 * Changes an account while this session holds its lock. If the outcome of a change is
 * unknown, the session that sent it is ended at once where that is possible; `settle`
 * makes sure of it later.
 */
export async function asWriter(
  job: Job,
  name: string,
  work: (server: Server) => Promise<void>,
): Promise<void> {
  const turn = turnOf(name, job.config.accountHost)
  let connection: number | null = null
  try {
    await asAdmin(job, async (server) => {
      await takeTurn(server, turn)
      connection = await holderOf(server, turn)
      await work(server)
    })
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.effect === 'unknown')
      await asAdmin(job, (server) => endSession(server, turn, connection)).catch(() => undefined)
    throw thrown
  }
}

export function asAdmin<T>(job: Job, work: (server: Server) => Promise<T>): Promise<T> {
  const { user, password } = job.config.admin
  return asAdminOf(
    user,
    login(job, user, password, async (client) => work(await identify(client, job.patience))),
  )
}

function login<T>(
  job: Job,
  user: string,
  password: Secret,
  work: Parameters<typeof withConnection<T>>[3],
): Promise<T> {
  const { config, context, patience } = job
  throwIfInterrupted(context.signal, 'the server was called')
  const { host, port, ca } = config
  return withConnection({ host, port, tls: usesTls(config), ca, patience }, user, password, work)
}

/**
 * Proves by a login that the account is reached with this password, which it is known to
 * have.
 */
export async function proveLogin(job: Job, found: Account, password: Secret): Promise<void> {
  try {
    await logInTo(job, found, password)
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'refused')) throw thrown
    throw new AdapterError(
      'misconfigured',
      `${called(found)} has the current password, but can't log in from here with it`,
      {
        hints: [
          'another account comes first for this machine, or "accountHost" leaves it out: ' +
            'SELECT User, Host FROM mysql.user',
          'or it is locked for a time, after too many logins that failed',
        ],
      },
    )
  }
}

export async function logInTo(job: Job, found: Account, password: Secret): Promise<void> {
  const behind = await login(job, found.name, password, (client) =>
    accountBehind(client, job.patience),
  )
  if (behind.toLowerCase() === `${found.name}@${found.host}`.toLowerCase()) return
  throw new AdapterError(
    'misconfigured',
    `a login from here leads to another account than ${called(found)}, so that it proves nothing`,
    {
      hints: ['another account comes first for this machine: SELECT User, Host FROM mysql.user'],
    },
  )
}
