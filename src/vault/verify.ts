/**
 * Verifies every row of the tree and the whole audit chain, in reads so short that other
 * processes can commit meanwhile.
 */
import { RotateError } from '../core/errors.ts'
import type { VaultReport } from '../core/ports.ts'
import { auditVerify } from './audit.ts'
import { decodeRecord, objects } from './codec.ts'
import { decoded } from './damage.ts'
import type { Freshness } from './freshness.ts'
import type { Session } from './session.ts'
import type { Snapshot } from './snapshot.ts'
import { MIDS } from './tree.ts'

/** How many problems are listed one by one at most. */
const LISTED = 100

interface Tally {
  objects: number
  versions: number
}

/**
 * Implements `VaultCare.verify`. Damage is reported and not thrown; it throws only if the
 * vault can't be read at all.
 */
export async function verifyVault(
  session: Session,
  deep: boolean,
  freshness: Freshness | undefined,
): Promise<VaultReport> {
  const problems: string[] = []
  const before = await session.consistent((snapshot) => snapshot.root())
  const standing = await freshness?.standing()
  if (standing !== undefined && (standing.mark === 'behind' || standing.mark === 'forked'))
    problems.push(`freshness: ${standing.why ?? standing.mark}`)
  const all: Tally = { objects: 0, versions: 0 }
  for (let mid = 0; mid < MIDS; mid++) {
    const found = await bucketGroup(session, mid, deep, problems)
    all.objects += found.objects
    all.versions += found.versions
  }
  const after = await session.consistent((snapshot) => snapshot.root())
  if (problems.length === 0 && before.commit === after.commit && all.objects !== after.objects)
    problems.push(`the tree names ${all.objects} objects, its root ${after.objects}`)
  const audit = await auditVerify(session)
  if (!audit.ok)
    problems.push(
      `audit event ${audit.firstBad ?? '?'} does not verify; the events before it are intact`,
    )
  if (deep)
    for (const line of (await session.store.upkeep?.quickCheck()) ?? [])
      problems.push(`SQLite: ${line}`)
  return {
    ok: problems.length === 0,
    problems: shortened(problems),
    commit: after.commit,
    ...all,
    auditRows: audit.rows,
  }
}

function shortened(problems: readonly string[]): readonly string[] {
  if (problems.length <= LISTED) return problems
  return [...problems.slice(0, LISTED), `and ${problems.length - LISTED} more`]
}

/**
 * Verifies everything below one mid. Where something is wrong it is verified again in
 * ever smaller parts, to find out how much is damaged.
 */
async function bucketGroup(
  session: Session,
  mid: number,
  deep: boolean,
  problems: string[],
): Promise<Tally> {
  const whole = await attempt(session, (snapshot) => look(snapshot, mid, undefined, deep))
  if (!('fault' in whole)) return whole
  const leaves = await attempt(session, (snapshot) => leavesOf(snapshot, mid))
  if ('fault' in leaves) {
    problems.push(`buckets ${mid * 128} to ${mid * 128 + 127}: ${leaves.fault}`)
    return { objects: 0, versions: 0 }
  }
  const tally: Tally = { objects: 0, versions: 0 }
  for (const leaf of leaves.numbers) {
    const part = await attempt(session, (snapshot) => look(snapshot, mid, leaf, deep))
    if ('fault' in part) problems.push(`bucket ${leaf}: ${part.fault}`)
    else {
      tally.objects += part.objects
      tally.versions += part.versions
    }
  }
  return tally
}

/**
 * Verifies one part and returns its tally, or what is wrong with it. Nodes that this
 * process has verified before are verified again.
 */
async function attempt<T extends object>(
  session: Session,
  work: (snapshot: Snapshot) => Promise<T>,
): Promise<T | { readonly fault: string }> {
  session.nodes.forget()
  try {
    return await session.consistent(work)
  } catch (error) {
    if (!(error instanceof RotateError) || error.code !== 'tampered') throw error
    return {
      fault:
        /^the vault does not verify: (.*?); it was changed/.exec(error.message)?.[1] ??
        error.message,
    }
  }
}

async function leavesOf(
  snapshot: Snapshot,
  mid: number,
): Promise<{ readonly numbers: readonly number[] }> {
  const root = await snapshot.root()
  if (!root.mids.has(mid)) return { numbers: [] }
  const children = (await snapshot.mids([mid])).get(mid)
  return { numbers: [...(children?.keys() ?? [])].map((position) => mid * 128 + position) }
}

async function look(
  snapshot: Snapshot,
  mid: number,
  leaf: number | undefined,
  deep: boolean,
): Promise<Tally> {
  const numbers = leaf === undefined ? (await leavesOf(snapshot, mid)).numbers : [leaf]
  const entries = [...(await snapshot.leaves(numbers)).values()].flat()
  if (deep) {
    for (const { body } of await snapshot.objects(entries))
      decoded('a record', () => decodeRecord(body))
  } else await snapshot.prove(entries)
  return {
    objects: entries.length,
    versions: entries.filter(({ kind }) => kind === objects.value).length,
  }
}
