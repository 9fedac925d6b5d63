/**
 * Changes of an account of MySQL or MariaDB, one session at a time.
 *
 * A statement that waits for a lock is carried out later even when its client has given
 * it up or died. So every session that changes an account first takes the server's own
 * lock by that account's name (GET_LOCK:
 * https://dev.mysql.com/doc/refman/8.4/en/locking-functions.html), which ends with the
 * session and not before. Whoever has that lock knows that nobody else of ours is still
 * at it; whoever does not get it ends the session that has it (KILL, for which no
 * privilege is needed among sessions of one user) and waits until it is gone.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import { read, type Server, translated } from './_mysql.ts'

/** The lock of an account. Both servers take names of 64 characters. */
export function turnOf(name: string, host: string): string {
  const plain = `rotate ${name}@${host}`.toLowerCase()
  return plain.length <= 64 ? plain : createHash('sha256').update(plain).digest('hex')
}

/**
 * Waits for the turn of this session and keeps it to its end. The session that has it is
 * ended if it takes longer than it should. `true`: no other session of ours can change
 * this account any more. `false`: this server has no such locks (some clusters refuse
 * them), so nothing is known.
 *
 * Throws `unavailable` where the other session can be neither waited for nor ended.
 */
export async function takeTurn(server: Server, turn: string): Promise<boolean> {
  const first = await locked(server, turn)
  if (first !== 'busy') return first === 'ours'
  const holder = await holderOf(server, turn)
  if (holder !== null) await end(server, holder)
  if ((await locked(server, turn)) === 'ours') return true
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
 * Ends a session of ours that has been given up, if it still has the turn; one of
 * somebody else that came after it is left alone. Whether it has gone, `takeTurn` tells
 * later.
 */
export async function endSession(
  server: Server,
  turn: string,
  connection: number | null,
): Promise<void> {
  if (connection !== null && (await holderOf(server, turn)) === connection)
    await end(server, connection)
}

async function locked(server: Server, turn: string): Promise<'ours' | 'busy' | 'no locks'> {
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

/** The connection that has the turn, as the server numbers it. */
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
 * That it is gone already, or may not be ended, is an answer and no error: the lock
 * tells.
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
 * One statement that changes an account. An answered error that is found before anything
 * is done has the effect `none`; of all else, an error of the server included, only
 * reading tells what became of it.
 */
export async function change({ client, patience }: Server, sql: string): Promise<void> {
  try {
    await client.query({ sql, timeout: patience.answerMs })
  } catch (thrown) {
    throw translated(thrown, 'unknown')
  }
}
