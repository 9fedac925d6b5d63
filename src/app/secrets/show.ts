/** Reads everything about one secret but its value. */
import type { RunRecord, SecretRecord } from '../../core/model.ts'
import { checklist, type ChecklistItem } from '../runs/checklist.ts'
import type { Deps } from '../base/deps.ts'
import { lastRuns } from '../runs/history.ts'
import { findAny } from '../base/lookup.ts'
import { isInPlace } from '../adapters/in-place.ts'
import { openStandingOf, type SecretStanding, secretStanding } from '../base/standing.ts'

const RUNS_SHOWN = 5

export interface Shown {
  readonly secret: SecretRecord
  readonly standing: SecretStanding
  /** The old value dies with a rotation: there is no grace, whatever is configured. */
  readonly inPlace: boolean
  /** Names of the fields of the current value; `value` alone for a single one. */
  readonly fields: readonly string[]
  readonly runs: readonly RunRecord[]
  readonly checklist: readonly ChecklistItem[] | undefined
}

export async function showSecret(
  deps: Pick<Deps, 'vault' | 'clock'>,
  input: { readonly name: string; readonly checklist: boolean },
): Promise<Shown> {
  const found = await deps.vault.read(async (reader) => {
    const secret = await findAny(reader, input.name)
    const current = secret.versions.findLast((version) => version.labels.includes('current'))
    const value = current === undefined ? undefined : await reader.value(secret.id, current.n)
    return {
      secret,
      fields: Object.keys(value ?? {}),
      runs: await lastRuns(reader, input.name, RUNS_SHOWN),
    }
  })
  const { secret } = found
  const shown = {
    ...found,
    standing: secretStanding(secret, deps.clock.now(), await openStandingOf(deps.vault, secret)),
    inPlace: secret.schedule !== undefined && (await isInPlace(secret.schedule)),
  }
  if (!input.checklist) return { ...shown, checklist: undefined }
  const rotation = shown.runs.find((run) => run.kind === 'rotate')
  let rows = 0
  const filter = rotation === undefined ? { path: shown.secret.path } : { runId: rotation.id }
  for await (const _event of deps.vault.auditEvents(filter)) rows++
  return { ...shown, checklist: checklist(shown.secret, rotation, rows) }
}
