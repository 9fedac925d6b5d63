/**
 * `rotate PATH --leaked -`: a value was seen where it must not be. It is looked for among
 * the versions, and only the one that leaked dies: the current one by an emergency
 * rotation, an older one at once, without its grace. The value itself is never shown.
 */
import { iso } from '../../core/duration.ts'
import { RotateError } from '../../core/errors.ts'
import { currentVersion, isAlive, type SecretRecord, type VersionRecord } from '../../core/model.ts'
import { type Secret, single } from '../../core/secret.ts'
import type { Progress } from '../../engine/ports.ts'
import type { Deps } from '../base/deps.ts'
import { endNow } from './end-now.ts'
import { opens } from '../adapters/ended.ts'
import { enginePorts } from '../adapters/engine.ts'
import { findSecret } from '../base/find.ts'
import { rotate, type RotateOutcome } from './rotate.ts'
import { cleanupFailure } from '../runs/run-failure.ts'
import { unchanged } from '../runs/run-view.ts'

/** Fields that identify and prove nothing: seeing them is no leak. */
const NAMES: ReadonlySet<string> = new Set(['accessKeyId', 'username', 'host', 'port', 'database'])

/**
 * Finds the version of that value and ends it. Throws `not-found` when no version holds
 * it.
 */
export async function endLeaked(
  deps: Deps,
  input: { readonly path: string; readonly value: Secret; readonly revokeFirst?: boolean },
  progress: (event: Progress) => void,
): Promise<RotateOutcome> {
  const secret = await findSecret(deps.vault, input.path)
  const version = await holder(deps, secret, input.value)
  const current = currentVersion(secret)
  if (version === undefined) {
    throw new RotateError(
      'not-found',
      `no version of ${secret.path} holds this value; nothing was changed`,
      {
        hint: `rotate versions ${secret.path}`,
      },
    )
  }
  if (version.n === current?.n) {
    deps.note(
      `${secret.path}: the leaked value is version ${version.n}, which is current: it is ` +
        'replaced now',
    )
    const first = input.revokeFirst === true ? { revokeFirst: true } : {}
    return rotate(deps, { paths: [secret.path], emergency: true, ...first }, progress)
  }
  const runs = current === undefined ? [] : [unchanged(secret, current)]
  const opened = isAlive(version) ? true : await stillWorks(deps, secret, version)
  if (opened !== true) {
    const what =
      opened === false
        ? 'it is refused, nothing to do'
        : 'nobody can be asked whether it still works; look at the provider'
    const since = version.endedAt === undefined ? '' : ` since ${iso(version.endedAt)}`
    deps.note(
      `${secret.path}: the leaked value is version ${version.n}, which is ` +
        `${version.state}${since}: ${what}`,
    )
    return { runs, ended: [], failure: undefined }
  }
  if (secret.openRun !== undefined) {
    throw new RotateError(
      'locked',
      `run ${secret.openRun} of ${secret.path} is not finished; version ${version.n} was not ended`,
      {
        hint: `rotate resume ${secret.openRun}`,
        runId: secret.openRun,
      },
    )
  }
  const ports = await enginePorts(deps, progress)
  const ended = await endNow(ports, secret.id, {
    versions: [version.n],
    force: true,
    why: 'its value has leaked',
  })
  for (const each of ended)
    deps.note(
      `${secret.path}: the leaked value is version ${each.version}: ${each.state} (${each.detail})`,
    )
  return { runs, ended, failure: cleanupFailure(secret.path, ended, undefined) }
}

/**
 * Is a version that is recorded as ended still accepted? `undefined` where that can't be
 * told.
 */
async function stillWorks(
  deps: Deps,
  secret: SecretRecord,
  version: VersionRecord,
): Promise<boolean | undefined> {
  return opens(await enginePorts(deps), secret, version)
}

async function holder(
  deps: Deps,
  secret: SecretRecord,
  value: Secret,
): Promise<VersionRecord | undefined> {
  const fingerprint = deps.vault.fingerprint(single(value))
  for (const version of secret.versions.toReversed()) {
    if (version.fingerprint === fingerprint) return version
    const fields = await deps.vault.read((reader) => reader.value(secret.id, version.n))
    for (const [name, field] of Object.entries(fields ?? {}))
      if (!NAMES.has(name) && field.equals(value)) return version
  }
  return undefined
}
