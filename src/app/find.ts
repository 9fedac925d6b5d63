/** Finding the secret or the run that an operator names. */
import { RotateError } from '../core/errors.ts'
import type { RunRecord, SecretRecord } from '../core/model.ts'
import type { Vault, VaultReader } from '../core/ports.ts'

/** The secret with this path or `rot_` id. Throws `not-found` (13), also for a deleted one, naming how to bring it back. */
export async function findIn(reader: VaultReader, name: string): Promise<SecretRecord> {
  const secret = await reader.resolve(name)
  if (secret === undefined) throw new RotateError('not-found', `there is no secret ${name}`, { hint: 'rotate list' })
  if (secret.deletedAt !== undefined) throw new RotateError('not-found', `the secret ${name} was deleted`, { hint: `rotate restore ${name}` })
  return secret
}

/** See `findIn`. */
export async function findSecret(vault: Vault, name: string): Promise<SecretRecord> {
  return vault.read((reader) => findIn(reader, name))
}

/** The run with this id and its secret. Throws `not-found`. */
export async function findRun(vault: Vault, id: string): Promise<{ readonly run: RunRecord; readonly secret: SecretRecord }> {
  return vault.read(async (reader) => {
    const run = await reader.run(id)
    const secret = run === undefined ? undefined : await reader.secret(run.secretId)
    if (run === undefined || secret === undefined) throw new RotateError('not-found', `there is no run ${id}`, { hint: 'rotate history' })
    return { run, secret }
  })
}
