/**
 * `check`: asks the provider and every configured check whether a value works now, and
 * whether a version that is recorded as ended is still accepted. Changes nothing.
 */
import { AdapterError, RotateError } from '../../core/errors.ts'
import { currentVersion, type SecretRecord, versionOf } from '../../core/model.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import { providerOfVersion } from '../../engine/session.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from './engine.ts'
import { endedThatOpen, stillOpens } from './ended.ts'
import { findSecret } from '../base/find.ts'

export interface CheckReport {
  readonly ok: boolean
  readonly checks: readonly {
    readonly name: string
    readonly type: string
    readonly ok: boolean
    readonly ms: number
    readonly detail: string
  }[]
}

/**
 * Asks the provider, then runs every check once. Unless one version was named, the
 * provider is also asked about the newest ended versions: each that it still accepts is a
 * red check of type `ended`. A secret with neither a provider nor a check is `ok` with no
 * checks.
 */
export async function check(
  deps: Deps,
  input: { readonly path: string; readonly version?: number },
): Promise<CheckReport> {
  const ports = await enginePorts(deps)
  const secret = await findSecret(deps.vault, input.path)
  const version =
    input.version === undefined ? currentVersion(secret) : versionOf(secret, input.version)
  if (version === undefined) {
    throw new RotateError(
      'not-found',
      input.version === undefined
        ? `${secret.path} has no value yet`
        : `${secret.path} has no version ${input.version}`,
      { hint: `rotate versions ${secret.path}` },
    )
  }
  const fields = await deps.vault.read((reader) => reader.value(secret.id, version.n))
  if (fields === undefined)
    throw new RotateError('not-found', `the value of version ${version.n} is gone`)
  const results: CheckReport['checks'][number][] = []
  const timed = async (
    name: string,
    type: string,
    ask: () => Promise<{ ok: boolean; detail: string }>,
  ): Promise<void> => {
    const started = deps.clock.monotonic()
    let answer: { ok: boolean; detail: string }
    try {
      answer = await ask()
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      answer = { ok: false, detail: thrown.message }
    }
    results.push({ name, type, ...answer, ms: Math.round(deps.clock.monotonic() - started) })
  }
  const provider = providerOfVersion(secret, version) ?? secret.schedule?.provider
  if (provider !== undefined) {
    const session = await ports.adapters.openProvider(provider, secret.path)
    try {
      if (session.verify !== undefined) {
        const credential =
          version.handle === undefined ? { fields } : { fields, handle: version.handle }
        await timed('provider', 'provider', async () => {
          await session.verify?.(credential, 'live')
          return { ok: true, detail: 'accepted' }
        })
      }
    } finally {
      await session.close()
    }
  }
  for (const spec of secret.schedule?.checks ?? []) {
    if (spec.type !== 'provider')
      await timed(spec.key, spec.type, () => ports.adapters.runCheck(spec, fields, secret.path))
  }
  if (input.version === undefined) results.push(...(await endedOnes(deps, ports, secret)))
  return { ok: results.every((result) => result.ok), checks: results }
}

/** A row for each ended version that is still accepted. */
async function endedOnes(
  deps: Deps,
  ports: EnginePorts,
  secret: SecretRecord,
): Promise<CheckReport['checks']> {
  const started = deps.clock.monotonic()
  const open = await endedThatOpen(ports, secret)
  const ms = Math.round(deps.clock.monotonic() - started)
  return open.map((version) => ({
    name: `ended:${version.n}`,
    type: 'ended',
    ok: false,
    ms,
    detail: stillOpens(secret, version),
  }))
}
