/**
 * Is this the newest state of the vault, and may it be trusted about the world outside?
 * What a file can't say of itself is compared with the high-water records of this machine
 * (marks.ts).
 */
import { RotateError } from '../core/errors.ts'
import type { AuditEntry } from '../core/model.ts'
import type { VaultStanding } from '../core/ports.ts'
import { locate } from '../store/files.ts'
import { HEADER_KEY, type Store } from '../store/port.ts'
import { chain, openAudit } from './audit-row.ts'
import { equal, hex } from './bytes.ts'
import { parseHeader } from './header.ts'
import { type Highest, type Mark, Marks, markKey, markOf } from './marks.ts'
import { COPY, type Root } from './root.ts'
import type { Session } from './session.ts'
import type { State } from './snapshot.ts'
import type { OpenVaultOptions } from './types.ts'

/**
 * How many audit events are chained at most at each opening to prove that the state seen
 * earlier belongs to this vault's past. If more were added since, only the event at that
 * number is checked.
 */
const CHAINED = 256
/** Length in bytes of a pruned audit event's row. */
const STUB = 64

export type FreshnessOptions = Pick<OpenVaultOptions, 'freshness' | 'warn'>

type Verdict =
  | { readonly state: 'fresh' | 'unmarked' }
  | { readonly state: 'behind' | 'forked'; readonly detail: string; readonly mark: Mark }

/**
 * Loads the marks of the vault in this store. They are read before any of its state is,
 * because a mark is only written after its commit.
 */
export async function marksOf(store: Store, file: string, stateDir: string): Promise<Marks> {
  // The vault id is not authenticated yet. It only chooses the file of marks, whose
  // records are.
  const { rows } = await store.read({ keys: [{ table: 'head', key: HEADER_KEY }] })
  return new Marks(stateDir, parseHeader(rows[0]).vault, locate(file).path).load()
}

/** Watches the freshness of one open vault. */
export class Freshness {
  readonly #session: Session
  readonly #marks: Marks
  readonly #options: FreshnessOptions
  #trusted = false
  #warned = false
  #verdict: Verdict = { state: 'unmarked' }

  constructor(session: Session, marks: Marks, options: FreshnessOptions) {
    this.#session = session
    this.#marks = marks
    this.#options = options
    session.afterCommit = (state) => this.#raise(state)
  }

  /**
   * Compares the state that was just opened with what the marks said before. `tampered`
   * for an older vault or a fork.
   */
  async check(state: State): Promise<void> {
    const highest = this.#highest(state)
    this.#trusted = highest.trusted
    this.#verdict =
      highest.mark === undefined ? { state: 'unmarked' } : await this.#compare(state, highest.mark)
    if (this.#marks.problem !== undefined) this.#warn(`can't be read (${this.#marks.problem})`)
    else if (highest.damaged > 0)
      this.#warn(`holds ${highest.damaged} damaged record${highest.damaged === 1 ? '' : 's'}`)
    if (this.#options.freshness !== 'report' && 'detail' in this.#verdict)
      throw stale(this.#verdict.detail)
  }

  #highest(state: State): Highest {
    return this.#marks.highest(markKey(state.keys.ring))
  }

  #warn(what: string): void {
    if (this.#warned) return
    this.#warned = true
    this.#options.warn?.(
      `the state directory ${what}: ${this.#marks.file}; an older copy of the vault in place ` +
        'of this one would not be noticed from here',
    )
  }

  #raise({ root, keys }: State): void {
    const problem = this.#marks.raise(markKey(keys.ring), markOf(root, this.#trusted), this.#tag())
    if (problem !== undefined) this.#warn(`can't be written (${problem})`)
  }

  #tag(): string {
    return hex(this.#session.random.bytes(8))
  }

  /**
   * Makes this state the newest one that counts at this place, whatever was seen before.
   */
  pin(state: State, trusted: boolean): void {
    this.#trusted = trusted
    this.#verdict = { state: 'fresh' }
    const problem = this.#marks.replace(
      markKey(state.keys.ring),
      markOf(state.root, trusted),
      this.#tag(),
    )
    if (problem !== undefined) this.#warn(`can't be written (${problem})`)
  }

  async #compare(state: State, mark: Mark): Promise<Verdict> {
    const { root } = state
    const seen = `commit ${mark.commit} was seen here, the vault is at ${root.commit}`
    if (root.commit < mark.commit)
      return {
        state: 'behind',
        detail: `it is older than the state that was last seen here (${seen})`,
        mark,
      }
    const forked: Verdict = {
      state: 'forked',
      detail: `it has another past than the state that was last seen here (${seen})`,
      mark,
    }
    const tag = root.recent[root.commit - mark.commit]
    if (tag !== undefined && !equal(tag.subarray(0, 3), mark.tag)) return forked
    return (await this.#passesThrough(state, mark)) ? { state: 'fresh' } : forked
  }

  /** Tells whether the audit chain of this vault runs through the hash in the mark. */
  async #passesThrough({ root, keys }: State, mark: Mark): Promise<boolean> {
    const same = (h: Uint8Array): boolean => equal(h.subarray(0, 16), mark.auditHash)
    const n = mark.auditCount
    if (n > root.auditCount) return false
    if (n === root.auditCount) return same(root.auditHash)
    // The event was pruned since, so its row is not in the file any more.
    if (n < root.auditBase) return true
    if (n === root.auditBase) return same(root.auditBaseHash)
    const missing = Math.min(root.auditCount - n, CHAINED)
    const wanted = Array.from({ length: missing }, (_, i) => ({
      table: 'audit' as const,
      key: BigInt(n + 1 + i),
    }))
    const { rows } = await this.#session.store.read({ keys: wanted })
    const [first] = rows
    if (first === undefined || first.length === STUB) return this.#prunedMeanwhile(n)
    let h = openAudit(keys, n + 1, first).previous
    if (!same(h)) return false
    if (root.auditCount - n > CHAINED) return true
    for (const row of rows) if (row !== undefined) h = chain(h, row)
    return equal(h, root.auditHash)
  }

  async #prunedMeanwhile(n: number): Promise<boolean> {
    const now: Root = await this.#session.consistent((snapshot) => snapshot.root())
    return now.auditBase > n
  }

  /**
   * Tells whether this vault may be relied on for actions outside. It reads the newest
   * root and the marks again, because an operator may have accepted the state meanwhile.
   */
  async standing(): Promise<VaultStanding> {
    const state = await this.#session.consistent((snapshot) => snapshot.state())
    const before = this.#marks.load().problem
    const highest = this.#highest(state)
    if (highest.trusted) this.#trusted = true
    const copy = (state.root.flags & COPY) !== 0
    const verdict = this.#verdict
    const found =
      before !== undefined
        ? 'unusable'
        : highest.mark === undefined
          ? 'unmarked'
          : verdict.state === 'unmarked'
            ? 'fresh'
            : verdict.state
    return {
      trusted: !copy && highest.trusted && !('detail' in verdict),
      copy,
      mark: found,
      why: reason(copy, found, highest.trusted, verdict),
    }
  }
}

function reason(
  copy: boolean,
  mark: VaultStanding['mark'],
  trusted: boolean,
  verdict: Verdict,
): string | null {
  if ('detail' in verdict) return verdict.detail
  if (copy)
    return (
      'it was restored or copied from a backup, and nobody has looked since whether the ' +
      'credentials are as it says'
    )
  if (trusted) return null
  if (mark === 'unusable')
    return (
      "the state directory can't be used, so nothing tells whether this is the newest state " +
      'of the vault'
    )
  return (
    'this vault is not known here: it was copied or moved to this place, or made by another ' +
    'user or on another machine'
  )
}

/**
 * The standing of a vault that is opened without a state directory: it rests on the
 * vault's own flag alone.
 */
export async function standingAlone(session: Session): Promise<VaultStanding> {
  const { flags } = await session.consistent((snapshot) => snapshot.root())
  const copy = (flags & COPY) !== 0
  return {
    trusted: !copy,
    copy,
    mark: 'off',
    why: copy ? reason(copy, 'off', false, { state: 'fresh' }) : null,
  }
}

/** The error for a vault that is older than what was seen here, or forked. */
function stale(detail: string): RotateError {
  return new RotateError(
    'tampered',
    `freshness: the vault verifies, but ${detail}; nothing was done with it`,
    {
      hint:
        'look for the newer file; if this one was put back on purpose: rotate vault ' +
        'accept-rollback --reason "why"',
      details: { check: 'freshness' },
    },
  )
}

/**
 * Records that an operator accepts this state: one commit removes the flag and adds an
 * audit row, and the state is pinned.
 */
export async function acceptState(
  session: Session,
  freshness: Freshness | undefined,
  entry: AuditEntry,
): Promise<void> {
  const { administer } = await import('./administer.ts')
  await administer(session, entry, (root) => ({ flags: root.flags & ~COPY }))
  const state = await session.consistent((snapshot) => snapshot.state())
  freshness?.pin(state, true)
}
