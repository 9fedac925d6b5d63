/**
 * Optimistic commits: run the body on a snapshot, commit against its head, run again if
 * another process was faster.
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
 * After one lost race a writer keeps other writers out while it runs its body, for that
 * transaction and so many more.
 */
const CAUTION = 16

interface Writing {
  /** One queue per session: transactions of one process do not race each other. */
  queue: Promise<unknown>
  /** How many transactions are still to begin by taking a turn. */
  caution: number
}

const writing = new WeakMap<Session, Writing>()

/** What one attempt has come to: its result, and what is to be committed, if anything. */
export interface Attempt<T> {
  readonly result: T
  readonly prepared: Prepared | undefined
}

/** `Vault.transact`. */
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
 * One commit, whatever it consists of: `attempt` prepares it from a snapshot, and does so
 * again when another process was faster.
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
  session.committed()
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
