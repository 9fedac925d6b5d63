/** One connection to a Redis server, and the meaning of its errors. */
import { isIP } from 'node:net'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'
import { pickDefined } from '../core/defined.ts'

const TIMEOUT_MS = 15_000

export interface Redis {
  /** Sends a command that changes nothing. */
  ask(...command: readonly string[]): Promise<unknown>
  /**
   * Sends a command that changes something. If the connection breaks, the effect is
   * `unknown`.
   */
  change(...command: readonly string[]): Promise<void>
}

export interface Server {
  readonly host: string
  readonly port: number
  readonly tls: boolean
  readonly ca?: string | undefined
}

/**
 * Logs in, runs `work` and disconnects. Throws `refused` for a wrong password and
 * `unreachable` where no server could be asked.
 */
export async function withConnection<T>(
  { host, port, tls, ca }: Server,
  username: string,
  password: Secret,
  work: (redis: Redis) => Promise<T>,
): Promise<T> {
  const { createClient, ErrorReply } = await import('@redis/client')
  const failure = (thrown: unknown, lost: 'none' | 'unknown'): AdapterError =>
    thrown instanceof ErrorReply ? answered(thrown.message) : broken(thrown, lost)
  const client = createClient({
    username,
    password: password.reveal(),
    RESP: 2,
    // The client neither names itself nor subscribes to notifications, because the user
    // may be allowed hardly any command.
    disableClientInfo: true,
    maintNotifications: 'disabled',
    socket: {
      host,
      port,
      connectTimeout: TIMEOUT_MS,
      socketTimeout: TIMEOUT_MS,
      reconnectStrategy: false,
      ...(tls
        ? {
            tls: true,
            rejectUnauthorized: true,
            ...(isIP(host) === 0 ? { servername: host } : {}),
            ...pickDefined({ ca }),
          }
        : {}),
    },
  })
  // A connection may break while no command runs, which must not end the process. A
  // command that runs fails by itself.
  client.on('error', () => undefined)
  const send = async (command: readonly string[], lost: 'none' | 'unknown'): Promise<unknown> => {
    try {
      return await client.sendCommand([...command])
    } catch (thrown) {
      throw failure(thrown, lost)
    }
  }
  try {
    await client.connect()
  } catch (thrown) {
    throw failure(thrown, 'none')
  }
  try {
    return await work({
      ask: (...command) => send(command, 'none'),
      change: async (...command) => void (await send(command, 'unknown')),
    })
  } finally {
    if (client.isOpen) client.destroy()
  }
}

export function replyOf<T extends z.ZodType>(shape: T, reply: unknown): z.output<T> {
  const parsed = shape.safeParse(reply)
  if (parsed.success) return parsed.data
  throw new AdapterError(
    'bad-answer',
    'the server describes itself in a way that is not known here',
    { retryable: false },
  )
}

const Failure = z.object({ code: z.string().regex(/^[A-Z][A-Z0-9_]{2,60}$/) }).partial()
/** Errors that say that the server carries out no commands for the moment. */
const BUSY = new Set(['LOADING', 'BUSY', 'MASTERDOWN', 'TRYAGAIN'])

/**
 * The meaning of an error, by its first word
 * (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors). The rest
 * of the error never goes into a message, because it may repeat the password that was
 * sent.
 */
function answered(message: string): AdapterError {
  const word = /^[A-Z]{3,20}\b/.exec(message)?.[0] ?? 'with an error'
  if (word === 'WRONGPASS' || word === 'NOAUTH')
    return new AdapterError('refused', `the server refuses the login (${word})`)
  if (word === 'NOPERM')
    return new AdapterError('denied', 'the user may not do that (NOPERM)', {
      hints: ['rotate provider test prints what it needs'],
    })
  if (message.startsWith('ERR max number of clients'))
    return new AdapterError('unavailable', 'the server has no free connection')
  if (BUSY.has(word))
    return new AdapterError('unavailable', `the server answers nothing for now (${word})`)
  return new AdapterError('failed', `the server answered ${word}`)
}

function broken(thrown: unknown, lost: 'none' | 'unknown'): AdapterError {
  const { code = 'connection lost' } = Failure.catch({}).parse(thrown)
  if (lost === 'none')
    return new AdapterError('unreachable', `can't reach the server: ${code}; nothing was changed`)
  return new AdapterError(
    'unavailable',
    `the connection broke before the server answered (${code})`,
    { effect: 'unknown' },
  )
}
