/**
 * While an old version is still alive, every `run-due` checks what is current. A check
 * that is red with the new value and green with the old one proves that the new value is
 * at fault: the rotation is undone. A red sign of life proves nothing about the value; it
 * is reported, and holds the end of the old version.
 */
import { asAdapterError, RotateError } from '../../core/errors.ts'
import { DAY } from '../../core/duration.ts'
import type { CheckSpec, SecretRecord, VersionRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import type { Fields } from '../../core/secret.ts'
import { isCrash } from '../../engine/crash.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import type { Deps } from '../base/deps.ts'
import { rollBackOne } from './rotate.ts'
import type { RunView } from '../runs/run-view.ts'

/**
 * Tries before a red answer counts; the check's own window is for the time right after a
 * rotation.
 */
const TRIES = 3
const PAUSE_MS = 1500

export interface Watched {
  readonly lines: readonly string[]
  /** The rotation was undone, or undoing it failed. */
  readonly undone?: { readonly view: RunView; readonly failure: RotateError }
}

/**
 * Checks the current value of a secret with an old version in grace; undoes the rotation
 * when the new value is proven to be at fault.
 */
export async function watchGrace(
  deps: Deps,
  ports: EnginePorts,
  secret: SecretRecord,
): Promise<Watched> {
  const old = secret.versions.findLast(
    (version) =>
      version.retirement?.why === 'grace' &&
      version.retirement.notBefore > deps.clock.now() &&
      version.state === 'live',
  )
  const current = currentVersion(secret)
  if (old === undefined || current === undefined || secret.openRun !== undefined)
    return { lines: [] }
  const fields = await valueOf(deps, secret, current)
  const oldFields = await valueOf(deps, secret, old)
  const lines: string[] = []
  for (const check of secret.schedule?.checks ?? []) {
    if (check.type === 'provider' || fields === undefined) continue
    const red = await redAnswer(ports, check, fields, secret.path)
    if (red === undefined) continue
    const atFault =
      oldFields !== undefined &&
      (await ports.adapters.presents(check)) &&
      (await redAnswer(ports, check, oldFields, secret.path)) === undefined
    if (atFault)
      return undo(
        deps,
        ports,
        secret,
        old,
        `check ${check.key} is red with version ${current.n} (${red}) and green with version ` +
          `${old.n}`,
      )
    lines.push(
      `${secret.path}: check ${check.key} is red during grace: ${red}; undo with: rotate ` +
        `rollback ${secret.path}`,
    )
  }
  return { lines }
}

async function valueOf(
  deps: Deps,
  secret: SecretRecord,
  version: VersionRecord,
): Promise<Fields | undefined> {
  return deps.vault.read((reader) => reader.value(secret.id, version.n))
}

/** What the check said when it stayed red; `undefined` for green. */
async function redAnswer(
  ports: EnginePorts,
  check: CheckSpec,
  fields: Fields,
  path: string,
): Promise<string | undefined> {
  let detail = ''
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    try {
      const result = await ports.adapters.runCheck(check, fields, path)
      if (result.ok) return undefined
      detail = result.detail
    } catch (thrown) {
      if (thrown instanceof RotateError || isCrash(thrown)) throw thrown
      detail = asAdapterError(thrown).message
    }
    if (attempt < TRIES) await ports.clock.sleep(PAUSE_MS, ports.signal)
  }
  return detail
}

async function undo(
  deps: Deps,
  ports: EnginePorts,
  secret: SecretRecord,
  old: VersionRecord,
  why: string,
): Promise<Watched> {
  const result = await rollBackOne(ports, secret.id, old.n, 'automatic')
  if (!result.view.success)
    return {
      lines: [`${secret.path}: ${why}; undoing it failed`],
      undone: { view: result.view, failure: result.failure ?? failed(secret, why) },
    }
  // Tried again tomorrow: what went wrong today will hardly have mended itself in
  // minutes.
  await deps.vault.transact(async (tx) => {
    const fresh = await tx.secret(secret.id)
    if (fresh?.schedule === undefined) return
    const now = deps.clock.now()
    await tx.putSecret({
      ...fresh,
      schedule: {
        ...fresh.schedule,
        nextAt: Math.min(fresh.schedule.nextAt, now),
        retryAt: now + DAY,
        failures: fresh.schedule.failures + 1,
        lastError: why.slice(0, 300),
      },
    })
  })
  const view: RunView = { ...result.view, success: false, status: 'rolled_back' }
  return {
    lines: [`${secret.path}: undone during grace: ${why}`],
    undone: { view, failure: failed(secret, why) },
  }
}

function failed(secret: SecretRecord, why: string): RotateError {
  return new RotateError('rolled-back', `${secret.path}: ${why}; the old value is current again`, {
    hint: `rotate history ${secret.path}`,
    details: { path: secret.path, verified: true },
  })
}
