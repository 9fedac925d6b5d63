/**
 * Copies of a vault: backups and what is restored from them. A copy is made from one
 * committed state under a temporary name, gets a state root of its own that says so, is
 * verified by the caller's `prove` (a fresh process, in the product), and only then gets
 * its name. A copy never replaces a file that exists.
 */
import { lstatSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { RotateError } from '../core/errors.ts'
import type { AuditEntry } from '../core/model.ts'
import type { Clock, ProveCopy, Random, VaultCopy } from '../core/ports.ts'
import { Secret } from '../core/secret.ts'
import { codeOf, damaged, writeFailure } from '../store/failures.ts'
import { discard, makeDirectory, publish, writeNew } from '../store/files.ts'
import type { Store } from '../store/port.ts'
import { openSqliteStore } from '../store/sqlite.ts'
import { administer } from './administer.ts'
import { hex } from './bytes.ts'
import { COPY } from './root.ts'
import { Session } from './session.ts'
import type { OpenRoot } from './unlockers.ts'
import { pickDefined } from '../core/defined.ts'

export interface CopyOptions {
  /** Absolute path at which nothing may exist yet. */
  readonly target: string
  readonly clock: Clock
  readonly random: Random
  readonly openRoot: OpenRoot
  readonly prove: ProveCopy
  /** An audit row that is written into the copy. */
  readonly entry?: AuditEntry
}

export async function copyVault(source: Store, options: CopyOptions): Promise<VaultCopy> {
  const { target, random, prove } = options
  refuseExisting(target)
  const temporary = join(
    dirname(target),
    `.${basename(target).slice(0, 100)}.new-${hex(random.bytes(8))}`,
  )
  try {
    makeDirectory(dirname(target))
    writeNew(temporary, new Uint8Array(0))
    if (source.upkeep === undefined) throw new Error('this store can not be copied')
    await source.upkeep.copyInto(temporary)
    const { commit, key } = await flagAsCopy(temporary, options)
    const report = await prove(temporary, key)
    if (!report.ok || report.commit !== commit) {
      const why = report.problems[0] ?? `it is at commit ${report.commit} instead of ${commit}`
      throw new RotateError(
        'tampered',
        `the copy for ${target} does not verify (${why}); it was thrown away`,
        {
          hint: 'look at the vault itself: rotate vault check --deep',
          details: { problems: report.problems },
        },
      )
    }
    const bytes = statSync(temporary).size
    publish(temporary, target)
    return { file: target, bytes, versions: report.versions, commit }
  } catch (error) {
    throw failure(target, error)
  } finally {
    discard(temporary)
    discard(`${temporary}-journal`)
  }
}

/**
 * Commits once in the copy, which also makes it durable: its root gets the flag of a copy
 * and the page counts that SQLite gave the file.
 */
async function flagAsCopy(
  temporary: string,
  { clock, random, openRoot, entry }: CopyOptions,
): Promise<{ readonly commit: number; readonly key: Secret }> {
  const store = await openSqliteStore(temporary, { clock, random })
  try {
    const session = new Session({ store, clock, random, openRoot })
    await session.open()
    const layout = await store.upkeep?.layout()
    await administer(session, entry, (root) => ({
      flags: root.flags | COPY,
      ...pickDefined({ layout }),
    }))
    const { commit } = await session.consistent((snapshot) => snapshot.root())
    return { commit, key: new Secret(hex(session.opened.root)) }
  } finally {
    store.close()
  }
}

/**
 * Throws `conflict` if anything lies at that path, or the journal of a vault that was
 * there.
 */
export function refuseExisting(target: string): void {
  const journal = statSync(`${target}-journal`, { throwIfNoEntry: false })
  if (journal !== undefined && journal.size > 0) {
    throw new RotateError(
      'conflict',
      `${target}-journal is left from an earlier vault of that name; nothing was written`,
      {
        hint: 'put it back beside its vault, or move it away',
      },
    )
  }
  if (lstatSync(target, { throwIfNoEntry: false }) === undefined) return
  throw new RotateError(
    'conflict',
    `there is something at ${target} already; it was left as it is`,
    {
      hint: 'name a file that does not exist',
    },
  )
}

function failure(target: string, error: unknown): unknown {
  if (error instanceof RotateError) return error
  if (codeOf(error) === 'EEXIST')
    return new RotateError(
      'conflict',
      `there is something at ${target} already; it was left as it is`,
      {
        hint: 'name a file that does not exist',
      },
    )
  const mapped = writeFailure(target, error)
  if (mapped?.code !== 'not-writable') return mapped ?? error
  return new RotateError(
    'not-writable',
    mapped.message.replace(/^the vault (.*) can't be written/, "the copy $1 can't be written"),
    {
      ...pickDefined({ hint: mapped.hint }),
      cause: error,
    },
  )
}

/**
 * Nobody else writes to the copy and nothing is sealed, so neither a clock nor randomness
 * is needed.
 */
const still = {
  clock: { now: () => 0, monotonic: () => 0, sleep: () => Promise.resolve() },
  random: { bytes: (count: number) => new Uint8Array(count) },
}

/** Verifies a copy in this process, with the root key that its maker handed over. */
export async function proveCopy(file: string, key: Secret): ReturnType<ProveCopy> {
  const root = Uint8Array.from(key.reveal().match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
  if (root.length !== 32) throw damaged(file, 'no root key was handed over')
  const store = await openSqliteStore(file)
  try {
    const { ready } = await import('./sodium.ts')
    await ready()
    const session = new Session({
      store,
      ...still,
      openRoot: async () => ({ root, rawId: new Uint8Array(16), weak: false }),
    })
    await session.open()
    const { verifyVault } = await import('./verify.ts')
    return await verifyVault(session, true, undefined)
  } finally {
    store.close()
  }
}
