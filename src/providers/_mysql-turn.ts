/**
 * Makes the sessions that change an account of MySQL or MariaDB take turns.
 *
 * A statement that waits for a lock is carried out later even if its client has given up
 * or died. So every session that changes an account first takes a user-level lock of the
 * server whose name is made from the account (GET_LOCK:
 * https://dev.mysql.com/doc/refman/8.4/en/locking-functions.html). That lock ends with
 * the session and not before. Whoever holds it knows that no other session of this
 * program still works on the account. Whoever does not get it ends the session that holds
 * it (KILL, which needs no privilege among sessions of one user) and waits until that
 * session is gone.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import { read, type Server, translated } from './_mysql.ts'

/** The name of the lock of an account. Both servers accept names of 64 characters. */
export function turnOf(name: string, host: string): string {
  const plain = `rotate ${name}@${host}`.toLowerCase()
  return plain.length <= 64 ? plain : createHash('sha256').update(plain).digest('hex')
}

/**
 * Takes the lock for the rest of this session. A session that holds it for too long is
 * ended. Returns `true` when no other session of ours can change this account any more,
 * and `false` when the server has no such locks (some clusters refuse them), so that
 * nothing is known.
 *
 * Throws `unavailable` where the other session neither finishes nor can be ended.
 */
export async function takeTurn(server: Server, turn: string): Promise<boolean> {
  const first = await tryLock(server, turn)
  if (first !== 'busy') return first === 'ours'
  const holder = await holderOf(server, turn)
  if (holder !== null) await end(server, holder)
  if ((await tryLock(server, turn)) === 'ours') return true
  const connection = String(holder ?? 'ID')
  throw new AdapterError(
    'unavailable',
    'another session changes this account, and it could not be ended',
    {
      hints: [`look at it: SHOW PROCESSLIST; if it hangs: KILL ${connection}`],
    },
  )
}

/**
 * Ends a session that this program has given up, if it still holds the lock. A session
 * that took the lock after it is left alone. Whether the session is gone is found out
 * later, by `takeTurn`.
 */
export async function endSession(
  server: Server,
  turn: string,
  connection: number | null,
): Promise<void> {
  if (connection !== null && (await holderOf(server, turn)) === connection)
    await end(server, connection)
}

async function tryLock(server: Server, turn: string): Promise<'ours' | 'busy' | 'no locks'> {
  const row = z.object({ got: z.number().nullable() })
  try {
    const [answer] = await read(server, 'SELECT GET_LOCK(?, ?) AS got', row, [
      turn,
      server.patience.turnSeconds,
    ])
    return answer?.got === 1 ? 'ours' : 'busy'
  } catch (thrown) {
    const error = translated(thrown, 'none')
    if (error.code === 'failed' && error.answered) return 'no locks'
    throw error
  }
}

/** The number of the connection that holds the lock; `null` for none. */
export async function holderOf(server: Server, turn: string): Promise<number | null> {
  const [answer] = await read(
    server,
    'SELECT IS_USED_LOCK(?) AS holder',
    z.object({ holder: z.number().nullable() }),
    [turn],
  )
  return answer?.holder ?? null
}

/**
 * An answer that the connection is gone or may not be ended is no error here: the lock
 * shows what is true.
 */
async function end({ client, patience }: Server, connection: number): Promise<void> {
  try {
    await client.query({ sql: `KILL CONNECTION ${connection}`, timeout: patience.answerMs })
  } catch (thrown) {
    const error = translated(thrown, 'none')
    if (error.code === 'unreachable') throw error
  }
}

/**
 * Sends one statement that changes an account. An error that the server finds before it
 * does anything has the effect `none`. After all other errors, those of the server
 * included, only reading shows what was done.
 */
export async function change({ client, patience }: Server, sql: string): Promise<void> {
  try {
    await client.query({ sql, timeout: patience.answerMs })
  } catch (thrown) {
    throw translated(thrown, 'unknown')
  }
}
