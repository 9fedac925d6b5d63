/**
 * Finding a secret by what the operator typed, and saying clearly why it is not there.
 */
import { RotateError, usage } from '../../core/errors.ts'
import { isId } from '../../core/ids.ts'
import { type Label, type SecretRecord, type VersionRecord, versionOf } from '../../core/model.ts'
import { parsePath } from '../../core/names.ts'
import type { VaultReader } from '../../core/ports.ts'

/** How long a deleted secret can be restored. */
export const KEEP_DELETED_DAYS = 30

/** A path, or an id (`sec_…`, `rot_…`), checked. */
export function parseName(text: string): string {
  return isId('sec', text) || isId('rot', text) ? text : parsePath(text)
}

/** The secret of that name, deleted or not. */
export async function findAny(reader: VaultReader, name: string): Promise<SecretRecord> {
  const secret = await reader.resolve(name)
  if (secret !== undefined) return secret
  throw new RotateError('not-found', `there is no secret ${name}`, {
    hint: 'rotate list shows what there is',
    details: { path: name },
  })
}

/** The live secret of that name. */
export async function findSecret(reader: VaultReader, name: string): Promise<SecretRecord> {
  const secret = await findAny(reader, name)
  if (secret.deletedAt === undefined) return secret
  throw new RotateError('not-found', `${secret.path} was deleted`, {
    hint: `rotate restore ${secret.path}`,
    details: { path: secret.path },
  })
}

/** Which version of a secret is meant. */
export interface Which {
  readonly version?: number
  readonly label?: Label
}

/** The version that is meant: the current one unless told otherwise. */
export function pickVersion(secret: SecretRecord, which: Which): VersionRecord {
  if (which.version !== undefined) {
    const found = versionOf(secret, which.version)
    if (found !== undefined) return found
    throw new RotateError('not-found', `${secret.path} has no version ${which.version}`, {
      hint: `rotate versions ${secret.path}`,
    })
  }
  const label = which.label ?? 'current'
  const found = secret.versions.findLast((version) => version.labels.includes(label))
  if (found !== undefined) return found
  if (label !== 'current')
    throw new RotateError('not-found', `${secret.path} has no ${label} version`, {
      hint: `rotate versions ${secret.path}`,
    })
  throw new RotateError('not-found', `${secret.path} has no value yet`, {
    hint:
      secret.schedule === undefined
        ? `rotate set ${secret.path}`
        : `rotate now ${secret.path} issues version 1; so does the next run-due`,
  })
}

/** `--version N` as a number. */
export function parseVersion(text: string, flag = '--version'): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw usage(`${flag} must be a version number such as 3`)
  return Number(text)
}

/** Nothing but the run itself may change a secret while one is open (exit 11). */
export function refuseOpenRun(secret: SecretRecord): void {
  if (secret.openRun === undefined) return
  const claim = secret.claim
  const who = claim === undefined ? 'an unfinished run' : `process ${claim.pid} (${claim.command})`
  throw new RotateError('locked', `${secret.path} is being rotated by ${who}`, {
    runId: secret.openRun,
    hint: `wait for it, or finish it with: rotate resume ${secret.openRun}`,
    details: {
      path: secret.path,
      ...(claim === undefined ? {} : { pid: claim.pid, command: claim.command }),
    },
  })
}
