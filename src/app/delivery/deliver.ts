/**
 * `deliver`: brings the current value to targets that do not hold it, without making a
 * new credential.
 */
import { RotateError, usage } from '../../core/errors.ts'
import type { SecretRecord, VersionRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import { isGlob, selector } from '../../core/names.ts'
import {
  type Again,
  type AgainResult,
  type AgainWish,
  deliverAgain,
} from '../../engine/deliver-again.ts'
import type { EnginePorts, Progress } from '../../engine/ports.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from '../adapters/engine.ts'
import { findSecret } from '../base/find.ts'
import { combined } from '../runs/run-failure.ts'
import { type RunView, unchanged } from '../runs/run-view.ts'
import { isInStep, whereIs } from './where.ts'

export interface DeliverOutcome {
  readonly runs: readonly RunView[]
  readonly failure: RotateError | undefined
}

/**
 * The secrets that these words name: each path must exist; a glob selects what has
 * targets, and must find something.
 */
export async function findNamed(
  deps: Deps,
  words: readonly string[],
): Promise<readonly SecretRecord[]> {
  const found = new Map<string, SecretRecord>()
  for (const word of words) {
    if (!isGlob(word)) {
      const secret = await findSecret(deps.vault, word)
      found.set(secret.id, secret)
      continue
    }
    const matches = selector(word)
    const before = found.size
    for await (const secret of deps.vault.secrets()) {
      const targets = secret.schedule?.targets ?? []
      if (secret.deletedAt === undefined && targets.length > 0 && matches(secret.path))
        found.set(secret.id, secret)
    }
    if (found.size === before)
      throw new RotateError('not-found', `no secret with targets matches ${word}`, {
        hint: 'rotate list',
      })
  }
  return [...found.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1))
}

/**
 * Delivers the current value of each secret, to all targets or to those that are named. A
 * secret that fails does not stop the next.
 */
export async function deliver(
  deps: Deps,
  input: { readonly secrets: readonly SecretRecord[]; readonly targets?: readonly string[] },
  progress: (event: Progress) => void,
): Promise<DeliverOutcome> {
  for (const secret of input.secrets) mustBeDeliverable(secret, input.targets)
  return deliverEach(deps, input.secrets, progress, (secret) => ({
    targets: input.targets ?? keysOf(secret),
    action: 'delivered_again',
  }))
}

/** Delivers each secret as `wishOf` says, and puts the outcomes together. */
export async function deliverEach(
  deps: Deps,
  secrets: readonly SecretRecord[],
  progress: (event: Progress) => void,
  wishOf: (secret: SecretRecord) => AgainWish,
): Promise<DeliverOutcome> {
  const ports = await enginePorts(deps, progress)
  const runs: RunView[] = []
  const failures: (RotateError | undefined)[] = []
  for (const secret of secrets) {
    try {
      const { view, failure } = await deliverOne(deps, ports, secret.id, wishOf(secret))
      runs.push(view)
      failures.push(failure)
    } catch (thrown) {
      const stops = ['interrupted', 'tampered', 'unlock-failed', 'not-writable']
      if (secrets.length === 1 || !(thrown instanceof RotateError) || stops.includes(thrown.code))
        throw thrown
      failures.push(thrown)
    }
  }
  return { runs, failure: combined(failures, secrets.length) }
}

/**
 * Delivers a value that is current already to the targets that are not known to hold it.
 * `undefined` where every target holds it, or there is none.
 */
export async function deliverMissing(
  deps: Deps,
  ports: EnginePorts,
  secret: SecretRecord,
): Promise<{ readonly view: RunView; readonly failure: RotateError | undefined } | undefined> {
  const targets = (await whereIs(deps, secret))
    .filter((report) => !isInStep(secret, report))
    .map(({ name }) => name)
  return targets.length === 0
    ? undefined
    : deliverOne(deps, ports, secret.id, { targets, action: 'delivered_again' })
}

function keysOf(secret: SecretRecord): readonly string[] {
  return (secret.schedule?.targets ?? []).map(({ key }) => key)
}

/**
 * Throws unless the secret has a value and all of these targets. Called for every secret
 * before anything is written anywhere.
 */
function mustBeDeliverable(secret: SecretRecord, targets: readonly string[] | undefined): void {
  const keys = keysOf(secret)
  if (currentVersion(secret) === undefined)
    throw new RotateError('not-found', `${secret.path} has no value yet`, {
      hint: `rotate set ${secret.path}`,
    })
  if (keys.length === 0)
    throw new RotateError('not-found', `${secret.path} has no targets`, {
      hint: `rotate schedule set ${secret.path} --target …`,
    })
  const unknown = targets?.find((name) => !keys.includes(name))
  if (unknown !== undefined)
    throw usage(
      `--target ${unknown}: ${secret.path} has no target of that name; nothing was delivered`,
      `its targets are: ${keys.join(', ')}`,
    )
}

async function deliverOne(
  deps: Deps,
  ports: EnginePorts,
  secretId: string,
  wish: AgainWish,
): Promise<{ readonly view: RunView; readonly failure: RotateError | undefined }> {
  const again = await deliverAgain(ports, secretId, wish)
  const { secret, version, results, doubt } = again
  if (doubt !== undefined)
    deps.note(`warning: ${secret.path}: that version ${version.n} works is not proven: ${doubt}`)
  return { view: viewOfAgain(again), failure: failureOfAgain(secret, version, results) }
}

/** The *run* shape of a delivery without a run. */
function viewOfAgain({ secret, version, results }: Again): RunView {
  const success = results.every(({ status }) => status !== 'failed')
  const steps = results.map(({ target, status, ms }) => ({
    step: `deliver:${target.key}`,
    status: status === 'updated' ? 'done' : status,
    ms: Math.round(ms),
  }))
  return {
    ...unchanged(secret, version),
    success,
    status: success ? 'success' : 'failed',
    targets: results.map(({ target, status }) => ({ name: target.key, type: target.type, status })),
    steps,
  }
}

function failureOfAgain(
  secret: SecretRecord,
  version: VersionRecord,
  results: readonly AgainResult[],
): RotateError | undefined {
  const failed = results.filter(({ status }) => status === 'failed')
  const [first] = failed
  if (first === undefined) return undefined
  const names = failed.map(({ target }) => target.key).join(', ')
  const written = results
    .filter(({ status }) => status === 'updated')
    .map(({ target }) => target.key)
  // A write that was begun and failed may have had its effect.
  const clean = written.length === 0 && failed.every(({ begun }) => !begun)
  const truth = clean
    ? 'nothing was written'
    : [
        ...(written.length === 0 ? [] : [`${written.join(', ')} was given it`]),
        ...failed
          .filter(({ begun }) => begun)
          .map(({ target }) => `what ${target.key} holds now is not known`),
      ].join('; ')
  const hints = first.failure?.hints.join('; ') ?? ''
  return new RotateError(
    clean ? 'rolled-back' : 'partial',
    `${secret.path}: version ${version.n} (${version.hint}) is current and was not delivered ` +
      `to ${names}: ${first.failure?.message ?? ''}; ${truth}`,
    {
      hint: `${hints === '' ? '' : `${hints}; then: `}rotate deliver ${secret.path}`,
      details: {
        path: secret.path,
        version: version.n,
        failed: failed.map(({ target }) => target.key),
        written,
      },
    },
  )
}
