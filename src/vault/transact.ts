/**
 * Optimistic commits: the body runs on a snapshot and its changes are committed against
 * that snapshot's head; if another process has committed first, the body runs again.
 */
import { RotateError } from '../core/errors.ts'
import type { VaultTx } from '../core/ports.ts'
import { CommitUnknown, HeadMoved } from '../store/port.ts'
import { equal } from './bytes.ts'
import { type Prepared, prepare } from './commit.ts'
import { PATIENCE_MS, type Session, busy, pause } from './session.ts'
import type { Snapshot } from './snapshot.ts'
import { Transaction } from './transaction.ts'

/**
 * After one lost race a session keeps other writers out while it runs a body. It does so
 * for the rest of that transaction, and stops with the sixteenth transaction after it.
 */
const CAUTION = 16

interface Writing {
  /**
   * The transactions of one session run one after the other, so that they do not race
   * each other.
   */
  queue: Promise<unknown>
  /**
   * While above zero, a transaction keeps other writers out. Each new transaction counts
   * it down.
   */
  caution: number
}

const writing = new WeakMap<Session, Writing>()

/** The outcome of one attempt: its result, and what is to be committed, if anything. */
export interface Attempt<T> {
  readonly result: T
  readonly prepared: Prepared | undefined
}

/** Implements `Vault.transact`. */
export function transact<T>(session: Session, body: (tx: VaultTx) => Promise<T>): Promise<T> {
  return committing(session, async (snapshot) => {
    const tx = new Transaction(snapshot)
    const result = await body(tx)
    const changes = tx.close()
    if (snapshot.moved) throw new HeadMoved('the vault changed while it was read')
    if (changes.length === 0 && tx.audits.length === 0) return { result, prepared: undefined }
    return {
      result,
      prepared: await prepare(session, snapshot, { changes, audits: tx.audits, runs: tx.runs }),
    }
  })
}

/**
 * Makes one commit of any kind. `attempt` prepares it from a snapshot, and is called
 * again when another process has committed first.
 */
export function committing<T>(
  session: Session,
  attempt: (snapshot: Snapshot) => Promise<Attempt<T>>,
): Promise<T> {
  const state = writing.get(session) ?? { queue: Promise.resolve(), caution: 0 }
  writing.set(session, state)
  const mine = state.queue.then(() => attemptAll(session, state, attempt))
  state.queue = mine.catch(() => undefined)
  return mine
}

async function attemptAll<T>(
  session: Session,
  state: Writing,
  attempt: (snapshot: Snapshot) => Promise<Attempt<T>>,
): Promise<T> {
  const deadline = session.clock.monotonic() + PATIENCE_MS
  let snapshot: Snapshot | undefined
  if (state.caution > 0) state.caution--
  for (let failures = 0; ; failures++) {
    const release = state.caution > 0 ? await session.store.turn() : undefined
    try {
      snapshot = session.snapshot(snapshot)
      return await attemptOnce(session, snapshot, attempt)
    } catch (error) {
      if (!(error instanceof HeadMoved) && snapshot?.moved !== true) throw error
    } finally {
      release?.()
    }
    state.caution = CAUTION
    if (session.clock.monotonic() > deadline) throw busy()
    await session.clock.sleep(pause(session.random, failures))
  }
}

async function attemptOnce<T>(
  session: Session,
  snapshot: Snapshot,
  attempt: (snapshot: Snapshot) => Promise<Attempt<T>>,
): Promise<T> {
  const { result, prepared } = await attempt(snapshot)
  if (snapshot.moved) throw new HeadMoved('the vault changed while it was read')
  if (prepared === undefined) return result
  try {
    prepared.adopt(await session.store.commit(prepared.batch))
  } catch (error) {
    if (!(error instanceof CommitUnknown)) throw error
    await settle(session, prepared, error)
  }
  session.announceCommit()
  return result
}

/**
 * Handles an error of COMMIT itself: opens the file anew and looks whether the commit was
 * applied.
 */
async function settle(session: Session, prepared: Prepared, error: CommitUnknown): Promise<void> {
  let applied: boolean
  try {
    await session.store.reopen()
    const { root } = await session.snapshot().state()
    applied = root.recent.some((tag) => equal(tag, prepared.tag))
  } catch (second) {
    throw new RotateError(
      'not-writable',
      'the disk failed while a change was committed, and the vault can not be read now; ' +
        'whether the change was kept is not known',
      {
        hint:
          'when the disk works again, look with: rotate vault check; an interrupted run is ' +
          'finished by: rotate run-due',
        cause: second,
      },
    )
  }
  if (!applied) throw error.cause instanceof Error ? error.cause : error
}
