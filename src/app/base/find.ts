/** Finding in one read of its own what `lookup.ts` finds inside a read. */
import { RotateError } from '../../core/errors.ts'
import type { RunRecord, SecretRecord } from '../../core/model.ts'
import type { Vault } from '../../core/ports.ts'
import { findSecret as findIn } from './lookup.ts'

/** The live secret with this path or id. Throws `not-found`. */
export async function findSecret(vault: Vault, name: string): Promise<SecretRecord> {
  return vault.read((reader) => findIn(reader, name))
}

/** The run with this id and its secret. Throws `not-found`. */
export async function findRun(
  vault: Vault,
  id: string,
): Promise<{ readonly run: RunRecord; readonly secret: SecretRecord }> {
  return vault.read(async (reader) => {
    const run = await reader.run(id)
    const secret = run === undefined ? undefined : await reader.secret(run.secretId)
    if (run === undefined || secret === undefined)
      throw new RotateError('not-found', `there is no run ${id}`, { hint: 'rotate history' })
    return { run, secret }
  })
}
