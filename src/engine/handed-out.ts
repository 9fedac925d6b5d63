/**
 * Makes sure that no target hands out an old key, right before that key is switched off
 * or ended (law 5). A neighbour who writes the same document from an older copy puts the
 * old value back long after our delivery was confirmed, and whoever reads it then would
 * get a dead key. Each target that can be read is read once more. A target whose values
 * are hidden is judged by the sign of our last write there.
 */
import { AdapterError, asAdapterError, RotateError } from '../core/errors.ts'
import type { Retirement, SecretRecord, TargetSpec, VersionRecord, Written } from '../core/model.ts'
import { currentVersion } from '../core/model.ts'
import type { Fields } from '../core/secret.ts'
import type { TargetSession } from '../core/target.ts'
import { stateOf, touchedTargets, wasGivenUp } from './machine.ts'
import { besideWithout, putCurrent } from './pair.ts'
import { inPlaceOf } from './places.ts'
import type { Edit } from './open-writes.ts'
import type { EnginePorts } from './ports.ts'
import { RememberedWrite } from './remembered.ts'
import { isCrash } from './crash.ts'
import { callAdapter, deliveryOf, valueAt } from './session.ts'

/**
 * Records in the retirement what is done at a target. Both methods resolve when the
 * record is durable.
 */
export interface Journal {
  /**
   * The current value is about to be delivered to this target once more, under this id.
   */
  intend(target: string, id: string, edit: Edit): Promise<void>
  /** What is known of that write when it failed. */
  failed(target: string, edit: Edit): Promise<void>
  /** The current value was delivered, and the consumers have taken it up. */
  done(target: string, written: Written | undefined, edit: Edit): Promise<void>
}

interface Candidate {
  /**
   * Is a name that is not there a loss? It is where the run delivered it, so that a
   * consumer has no value now.
   */
  readonly absentMatters?: boolean
  readonly secret: SecretRecord
  readonly dying: VersionRecord
  readonly value: Fields
  readonly current:
    | {
        readonly version: VersionRecord
        readonly fields: Fields
        readonly beside: Fields
        readonly besideN: number
      }
    | undefined
}

/**
 * Gives the current value to every target that still hands out this version, or that has
 * lost the current value. Returns one sentence for each target that was mended, and for
 * each that shows a value of neither version. Throws the first `AdapterError` that keeps
 * the version alive, because a target can't be read or not be written. Left out are
 * targets that were given up by name in the run that plans this end, and, for a version
 * that was never current, targets to which its run did not write.
 */
export async function stopHandingOut(
  ports: EnginePorts,
  secret: SecretRecord,
  version: VersionRecord,
  journal: Journal,
): Promise<readonly string[]> {
  const candidate = await candidateOf(ports, secret, version)
  const { leftOut, delivered } = await leftOutOf(ports, version.retirement)
  const notes: string[] = []
  let failure: AdapterError | undefined
  for (const spec of candidate === undefined ? [] : (secret.schedule?.targets ?? [])) {
    if (candidate === undefined || leftOut(spec.key)) continue
    try {
      const seen = await atTarget(
        ports,
        { ...candidate, absentMatters: delivered(spec.key) },
        spec,
        journal,
      )
      if (seen !== undefined) notes.push(seen)
    } catch (thrown) {
      if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
      failure ??= named(spec, asAdapterError(thrown))
    }
  }
  if (failure !== undefined) throw failure
  return notes
}

function missing(name: string, { code, message, retryable, hints }: AdapterError): AdapterError {
  const what = `has no ${name} any more, and could not be given the current value: ${message}`
  return new AdapterError(code, what, { retryable, hints, details: { absent: name } })
}

function named(
  spec: TargetSpec,
  { code, message, retryable, hints, details }: AdapterError,
): AdapterError {
  if (details['absent'] !== undefined)
    return new AdapterError(code, `target ${spec.key} ${message}`, { retryable, hints })
  return new AdapterError(
    code,
    `it is not known that target ${spec.key} no longer hands it out: ${message}`,
    { retryable, hints },
  )
}

/**
 * `undefined` where the vault does not hold the value of the version, so that nothing can
 * be compared.
 */
async function candidateOf(
  ports: EnginePorts,
  secret: SecretRecord,
  dying: VersionRecord,
): Promise<Candidate | undefined> {
  const valueOf = (n: number): Promise<Fields | undefined> =>
    ports.vault.read((reader) => reader.value(secret.id, n))
  const value = await valueOf(dying.n)
  if (value === undefined) return undefined
  const version = currentVersion(secret)
  const fields = version === undefined ? undefined : await valueOf(version.n)
  if (version === undefined || fields === undefined)
    return { secret, dying, value, current: undefined }
  const besideN = besideWithout(secret, version.n, dying.n)
  const beside = (await valueOf(besideN)) ?? fields
  return { secret, dying, value, current: { version, fields, beside, besideN } }
}

interface Judged {
  /** Is this target left out? */
  readonly leftOut: (key: string) => boolean
  /**
   * Did the run that replaced the version deliver there? Then a name that is missing
   * there was removed since.
   */
  readonly delivered: (key: string) => boolean
}

/** What the end of a version does not look at, and why it may not. */
export async function leftOutOf(
  ports: EnginePorts,
  retirement: Retirement | undefined,
): Promise<Judged> {
  const runId = retirement?.runId
  const run =
    runId === undefined ? undefined : await ports.vault.read((reader) => reader.run(runId))
  if (run === undefined) return { leftOut: () => false, delivered: () => false }
  const state = stateOf(run)
  const givenUp = (key: string): boolean => wasGivenUp(state, key)
  const touched = touchedTargets(run.plan, state)
  const undone = retirement?.why === 'discard'
  return {
    leftOut: (key) => givenUp(key) || (undone && !touched.includes(key)),
    // A name that an undo has removed is rightly absent.
    delivered: (key) => !undone && state.promoted && touched.includes(key),
  }
}

async function atTarget(
  ports: EnginePorts,
  candidate: Candidate,
  spec: TargetSpec,
  journal: Journal,
): Promise<string | undefined> {
  const { secret, dying, current } = candidate
  const session = await callAdapter(() => ports.adapters.openTarget(spec, secret.path))
  try {
    // An earlier process began this delivery and may have died before the deploy, so both
    // are repeated whatever stands there now.
    const begun = dying.retirement?.again?.[spec.key]
    const result = await inPlaceOf(ports, spec, async () => {
      const found: Found =
        begun === undefined ? await look(candidate, spec, session) : { dying: true }
      if (!found.dying) return { note: found.note }
      const why =
        found.absent === undefined ? 'still handed it out' : `had no ${found.absent} any more`
      if (current === undefined)
        throw new AdapterError(
          'failed',
          'it shows it, and there is no current value to take its place',
        )
      const id =
        begun ?? `${dying.retirement?.runId ?? secret.id}.${spec.key}.again.${ports.clock.now()}`
      const delivery = deliveryOf(
        spec,
        secret.path,
        current.version.n,
        current.fields,
        id,
        current.beside,
      )
      const remembered = await RememberedWrite.of(ports, spec, secret.path, {
        version: current.version.n,
        ...(spec.previous === undefined ? {} : { beside: current.besideN }),
      })
      if (begun === undefined || remembered.matters)
        await journal.intend(spec.key, id, remembered.intent)
      await ports.faults.at(`before:effect:again:${spec.key}`)
      try {
        return {
          delivery,
          written: await remembered.around(session, () =>
            putCurrent(session, spec, delivery, current.besideN),
          ),
          why,
          remembered,
        }
      } catch (thrown) {
        if (remembered.matters && thrown instanceof AdapterError)
          await journal.failed(spec.key, remembered.outcome(false))
        if (!(thrown instanceof AdapterError) || found.absent === undefined) throw thrown
        throw missing(found.absent, thrown)
      }
    })
    if (result.delivery === undefined) return result.note
    await session.deploy?.(result.delivery)
    await ports.faults.at(`after:effect:again:${spec.key}`)
    await journal.done(spec.key, result.written, result.remembered.outcome(true))
    const mended = `target ${spec.key} ${result.why}: it was given the current value once more`
    // People are told also where something else holds the end, since then no result says
    // it.
    ports.note(`${secret.path}: ${mended}`)
    return mended
  } finally {
    await session.close()
  }
}

interface Found {
  /** Must the target get the current value once more? */
  readonly dying: boolean
  /** The name that is not there any more. */
  readonly absent?: string
  readonly note?: string
}

const CLEAR: Found = { dying: false }

/**
 * Looks at what one target shows. Throws where that can't be told now, although it could
 * be once.
 */
async function look(
  candidate: Candidate,
  spec: TargetSpec,
  session: TargetSession,
): Promise<Found> {
  const fieldOf = new Map<string, { readonly field: string; readonly previous: boolean }>([
    ...Object.entries(spec.names).map(
      ([field, name]) => [name, { field, previous: false }] as const,
    ),
    ...Object.entries(spec.previous ?? {}).map(
      ([field, name]) => [name, { field, previous: true }] as const,
    ),
  ])
  const names = [...fieldOf.keys()]
  const { values, hidden } =
    session.current !== undefined
      ? { values: await session.current(names), hidden: {} }
      : session.standing !== undefined
        ? { hidden: {}, ...(await session.standing(names)) }
        : { values: {}, hidden: {} }
  const strange: string[] = []
  for (const [name, { field, previous }] of fieldOf) {
    const old = valueAt(candidate.value, field)
    const fresh =
      candidate.current === undefined
        ? undefined
        : valueAt(previous ? candidate.current.beside : candidate.current.fields, field)
    if (Object.hasOwn(hidden, name)) {
      const dies = old === undefined || fresh?.equals(old) !== true
      if (
        behind(candidate, spec, name, previous, hidden[name] ?? null) === candidate.dying.n &&
        dies
      )
        return { dying: true }
      continue
    }
    const shown = values[name] ?? null
    if (shown === null && candidate.absentMatters === true && Object.hasOwn(values, name))
      return { dying: true, absent: name }
    if (shown === null || fresh?.equals(shown) === true) continue
    if (old?.equals(shown) === true) return { dying: true }
    strange.push(name)
  }
  if (strange.length === 0) return CLEAR
  return {
    dying: false,
    note:
      `target ${spec.key} shows a value under ${strange.join(', ')} that is neither the old ` +
      'nor the current one',
  }
}

/**
 * Which of our versions stands under a name that can't be read. It is the version of our
 * last write there, if the target still shows the sign of that write. `undefined` where
 * no sign was ever recorded, which makes it like a target that can only be written.
 * Throws where somebody has written there since.
 */
function behind(
  { secret }: Candidate,
  spec: TargetSpec,
  name: string,
  previous: boolean,
  sign: string | null,
): number | undefined {
  const written = secret.written?.[spec.key]
  const known = written?.signs[name]
  if (written === undefined || known === undefined || sign === null) return undefined
  if (sign !== known)
    throw new AdapterError(
      'failed',
      `somebody has written ${name} there since, and it can't be read`,
      {
        retryable: false,
        hints: [
          'look at it there; if it may be overwritten, add "irreversible": true to this ' +
            `target, then: rotate now ${secret.path}`,
        ],
      },
    )
  return previous ? (written.beside ?? written.version) : written.version
}
