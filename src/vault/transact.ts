/** Optimistic commits: run the body on a snapshot, commit against its head, run again if another process was faster. */
import { RotateError } from '../core/errors.ts'
import type { VaultTx } from '../core/ports.ts'
import { CommitUnknown, HeadMoved } from '../store/port.ts'
import { equal } from './bytes.ts'
import { type Prepared, prepare } from './commit.ts'
import { PATIENCE_MS, type Session, busy, pause } from './session.ts'
import type { Snapshot } from './snapshot.ts'
import { Transaction } from './transaction.ts'

/** After so many lost races a writer keeps the others out while it runs its body once more. */
const RACES = 3

/** One queue per session: transactions of one process do not race each other. */
const queues = new WeakMap<Session, Promise<unknown>>()

/** `Vault.transact`. */
export function transact<T>(session: Session, body: (tx: VaultTx) => Promise<T>): Promise<T> {
  const before = queues.get(session) ?? Promise.resolve()
  const mine = before.then(() => attemptAll(session, body))
  queues.set(
    session,
    mine.catch(() => undefined),
  )
  return mine
}

async function attemptAll<T>(session: Session, body: (tx: VaultTx) => Promise<T>): Promise<T> {
  const deadline = session.clock.monotonic() + PATIENCE_MS
  let snapshot: Snapshot | undefined
  for (let attempt = 0; ; attempt++) {
    const release = attempt < RACES ? undefined : await session.store.turn()
    try {
      snapshot = session.snapshot(snapshot)
      return await attemptOnce(session, snapshot, body)
    } catch (error) {
      if (!(error instanceof HeadMoved) && snapshot?.moved !== true) throw error
    } finally {
      release?.()
    }
    if (session.clock.monotonic() > deadline) throw busy()
    await session.clock.sleep(pause(session.random, attempt))
  }
}

async function attemptOnce<T>(session: Session, snapshot: Snapshot, body: (tx: VaultTx) => Promise<T>): Promise<T> {
  const tx = new Transaction(snapshot)
  const result = await body(tx)
  const changes = tx.close()
  if (changes.length === 0 && tx.audits.length === 0) return result
  const prepared = await prepare(session, snapshot, changes, tx.audits, tx.runs)
  try {
    prepared.adopt(await session.store.commit(prepared.batch))
  } catch (error) {
    if (!(error instanceof CommitUnknown)) throw error
    await settle(session, prepared, error)
  }
  return result
}

/** COMMIT itself failed: the file, opened anew, says whether it was applied. */
async function settle(session: Session, prepared: Prepared, error: CommitUnknown): Promise<void> {
  let applied: boolean
  try {
    await session.store.reopen()
    const { root } = await session.snapshot().state()
    applied = root.recent.some((tag) => equal(tag, prepared.tag))
  } catch (second) {
    throw new RotateError(
      'not-writable',
      'the disk failed while a change was committed, and the vault can not be read now; whether the change was kept is not known',
      {
        hint: 'when the disk works again, look with: rotate vault check; an interrupted run is finished by: rotate run-due',
        cause: second,
      },
    )
  }
  if (!applied) throw error.cause instanceof Error ? error.cause : error
}
