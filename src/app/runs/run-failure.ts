/**
 * What a command ends with after runs that did not go well, in the operator's words: what
 * happened, what is true now, what to type next.
 */
import { pickDefined } from '../../core/defined.ts'
import { iso } from '../../core/duration.ts'
import { RotateError } from '../../core/errors.ts'
import type { RunRecord, SecretRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import { giveLine } from '../../core/give-line.ts'
import type { RetireResult } from '../../engine/ending.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import { fieldNames } from '../../engine/session.ts'
import {
  lastFailure,
  openConditions,
  REFUSED,
  type RunState,
  stateOf,
  stoppedBy,
} from '../../engine/machine.ts'

/** Why a run did not end well, in the operator's words; `undefined` when it did. */
export async function failureOf(
  ports: Pick<EnginePorts, 'vault'>,
  run: RunRecord,
  secret: SecretRecord,
): Promise<RotateError | undefined> {
  if (run.status === 'success') return undefined
  return failureWith(run, secret, giveLine(secret, await fieldNames(ports, secret)))
}

/** @param give the line by which a person hands over a value */
function failureWith(run: RunRecord, secret: SecretRecord, give: string): RotateError {
  const failure = lastFailure(run)
  const state = stateOf(run)
  const why = failure === undefined ? inWords(run, state) : `step ${failedSteps(run, failure)}`
  const current = currentVersion(secret)
  const hints = failure?.failure.hints.join('; ') ?? ''
  const details = {
    status: run.status,
    step: failure?.step ?? null,
    reason: failure?.failure.code ?? null,
    verified: state.oldProven ?? false,
    path: secret.path,
  }
  if ((run.status === 'failed' || run.status === 'rolled_back') && state.create === 'abandoned') {
    const dead = state.steps['prove-old']?.detail === REFUSED
    const kept =
      `the old value was kept by decision, and version ${current?.n ?? 0} ` +
      `(${current?.hint ?? ''}) is current`
    const truth = dead
      ? 'it is refused: the value that works is not in the vault'
      : state.oldProven === true
        ? 'it was proven to work'
        : 'nobody could say whether it works'
    return new RotateError(
      dead ? 'unsafe' : 'rolled-back',
      `${secret.path}: what the create call did is not known, and a credential may exist ` +
        `that nobody can name; ${kept}; ${truth}`,
      {
        hint: dead
          ? `give the value that works: ${give}`
          : `look at the provider; then, if it made one: ${give}`,
        details,
        runId: run.id,
      },
    )
  }
  if (run.status === 'failed' || run.status === 'rolled_back') {
    const truth =
      current === undefined
        ? 'there is still no value'
        : `version ${current.n} (${current.hint}) is ` +
          `current${state.oldProven === true ? ' and was proven to work' : ''}`
    const given = secret.versions.find(
      ({ n, retirement }) => n === state.newVersion && retirement?.why === 'discard',
    )?.retirement?.notBefore
    const again =
      given === undefined || run.plan.source !== 'supplied'
        ? []
        : [
            `the value that you gave stays alive until ${iso(given)}: mend the cause and ` +
              `give it again, ${give}`,
          ]
    return new RotateError(
      'rolled-back',
      `${secret.path} was not rotated: ${why}. ` +
        `${run.status === 'failed' ? 'Nothing was changed' : undone(run)}; ${truth}`,
      {
        hint: [
          hints,
          ...again,
          hints === '' && again.length === 0
            ? `rotate history ${run.id}`
            : `details: rotate history ${run.id}`,
        ]
          .filter((part) => part !== '')
          .join('; '),
        details,
        runId: run.id,
      },
    )
  }
  if (run.status === 'unsafe') {
    const early =
      state.settlesAt === undefined
        ? ''
        : ` (before ${iso(state.settlesAt)} the far side may still act: a decision is ` +
          'recorded, and carried out after that)'
    const decide =
      `if the old value still works: rotate resume ${run.id} --keep old; if it does not, do ` +
      `that too, then give the new value: ${give}${early}`
    const open = openConditions(run.plan, state)
    const giveUp =
      open.length === 0
        ? ''
        : "; what can't be mended is given up by name: rotate resume " +
          `${run.id}${state.direction === 'back' ? ' --keep old' : ''} --give-up ` +
          `${open[0] ?? ''}`
    const next =
      state.create === 'ambiguous'
        ? decide
        : state.create === 'unknown'
          ? `ask again: rotate resume ${run.id}; ${decide}`
          : `mend the cause, then: rotate resume ${run.id}${giveUp}`
    return new RotateError(
      'unsafe',
      `${secret.path}: the state outside is not what it should be and a person must look: ` +
        `${why}. Nothing more is revoked`,
      {
        hint: hints === '' ? next : `${hints}; ${next}`,
        details,
        runId: run.id,
      },
    )
  }
  if (state.waits && state.parkedUntil !== undefined) {
    const until = iso(state.parkedUntil)
    const decided =
      state.decided === undefined
        ? ''
        : `. That the ${state.decided} value is to be kept is recorded, and is carried out then`
    return new RotateError(
      'unsafe',
      `${secret.path}: ${state.parked ?? why}. What it did is known from ${until} on; until ` +
        `then nothing is given up and nothing is revoked${decided}`,
      {
        hint:
          `nothing to do: rotate run-due settles it after ${until} (or look again then: ` +
          `rotate resume ${run.id})`,
        details: { ...details, status: 'pending', until },
        runId: run.id,
      },
    )
  }
  return new RotateError('failed', `${secret.path}: run ${run.id} has not finished`, {
    hint: `rotate resume ${run.id}`,
    details,
    runId: run.id,
  })
}

/** The step that stopped a run, together with those of other targets that failed too. */
function failedSteps(
  run: RunRecord,
  { step, failure }: NonNullable<ReturnType<typeof lastFailure>>,
): string {
  const own = `${step}: ${failure.message}`
  const all = stoppedBy(run)
  return all?.endsWith(`; ${own}`) === true ? all : own
}

/**
 * Why a run was turned back or stopped although no step failed. Where the answer to the
 * create call is missing, its message is added.
 */
function inWords(run: RunRecord, state: RunState): string {
  const reason = stoppedBy(run) ?? state.cause ?? 'it did not finish'
  const create =
    state.create === 'ambiguous' || state.create === 'unknown'
      ? state.steps['create']?.failure
      : undefined
  return create === undefined ? reason : `${reason}; step create: ${create.message}`
}

/**
 * What may be said of an undo: at which targets the old value was put back, and at which
 * nobody could look whether it was.
 */
function undone(run: RunRecord): string {
  const { steps } = stateOf(run)
  const lists = {
    none: [] as string[],
    told: [] as string[],
    delivered: [] as string[],
    given: [] as string[],
  }
  for (const { key } of run.plan.targets) {
    const step =
      steps[`settle:${key}`]?.waived === true ? steps[`settle:${key}`] : steps[`restore:${key}`]
    if (step?.waived === true) lists.given.push(key)
    else if (step?.detail === 'told') lists.told.push(key)
    else if (step?.detail === 'told-none') lists.none.push(key)
    else if (step?.detail === 'delivered') lists.delivered.push(key)
  }
  const all =
    lists.given.length === 0 ? 'What this run wrote was undone' : 'What was not given up was undone'
  const parts = [
    ...(lists.told.length === 0 ? [] : [`${lists.told.join(', ')} was told the old version`]),
    ...(lists.none.length === 0
      ? []
      : [`${lists.none.join(', ')} was told that there is no old version`]),
    ...(lists.delivered.length === 0
      ? []
      : [
          `${lists.delivered.join(', ')} was given the old version, since what stood there ` +
            "can't be read",
        ]),
    ...(lists.given.length === 0
      ? []
      : [`${lists.given.join(', ')} was given up and may still hold the new value`]),
  ]
  return parts.length === 0 ? all : `${all} (${parts.join('; ')})`
}

/** A clean-up that was due and did not work: all is well, but an old key still lives. */
export function cleanupFailure(
  path: string,
  results: readonly RetireResult[],
  runId: string | undefined,
): RotateError | undefined {
  const held = results.filter((result) => result.state === 'held')
  if (held.length === 0) return undefined
  const first = held[0]
  return new RotateError(
    'cleanup-pending',
    `${path}: the old key ${first?.hint ?? ''} could not be ended yet: ` +
      `${first?.detail ?? ''}. It will be tried again`,
    {
      hint: [...(first?.hints ?? []), `rotate show ${path}`].join('; '),
      details: { held: held.map(({ version, hint, detail }) => ({ version, hint, detail })) },
      ...pickDefined({ runId }),
    },
  )
}

/**
 * The one exit for several runs: 21 if any is unsafe, 22 for some of each, 20 for none
 * that succeeded, 23 for clean-up only.
 */
export function combined(
  failures: readonly (RotateError | undefined)[],
  attempted: number,
): RotateError | undefined {
  const errors = failures.filter((error) => error !== undefined)
  if (errors.length === 0) return undefined
  const only = errors[0]
  if (attempted === 1 && only !== undefined) return only
  const unsafe = errors.filter((error) => error.code === 'unsafe')
  const cleanup = errors.filter((error) => error.code === 'cleanup-pending')
  const failed = errors.filter((error) => error.code !== 'cleanup-pending')
  const details = {
    errors: errors.map((error) => ({
      code: error.code,
      message: error.message,
      runId: error.runId ?? null,
    })),
  }
  if (unsafe.length > 0)
    return new RotateError(
      'unsafe',
      `${unsafe.length} of ${attempted} rotations need a person: ${unsafe[0]?.message ?? ''}`,
      {
        details,
        hint: unsafe[0]?.hint ?? 'rotate list',
      },
    )
  if (failed.length > 0 && failed.length < attempted)
    return new RotateError(
      'partial',
      `${failed.length} of ${attempted} rotations failed: ${failed[0]?.message ?? ''}`,
      {
        details,
        hint: failed[0]?.hint ?? 'rotate history',
      },
    )
  if (failed.length > 0) {
    const code = failed.every((error) => error.code === failed[0]?.code)
      ? (failed[0]?.code ?? 'rolled-back')
      : 'rolled-back'
    return new RotateError(
      code,
      `none of ${attempted} rotations succeeded: ${failed[0]?.message ?? ''}`,
      {
        details,
        hint: failed[0]?.hint ?? 'rotate history',
      },
    )
  }
  return new RotateError('cleanup-pending', cleanup[0]?.message ?? '', {
    details,
    hint: cleanup[0]?.hint ?? 'rotate list',
  })
}
