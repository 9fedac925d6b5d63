/** The plan of a run that does not exist yet. */
import type { RunPlan, Schedule, SecretRecord } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import type { Traits } from '../../core/provider.ts'

/** What a rotation by the provider that began now would be made of. */
export function nextPlan(secret: SecretRecord, schedule: Schedule, traits: Traits): RunPlan {
  return {
    source: 'provider',
    provider: schedule.provider,
    overlap: traits.overlap,
    targets: schedule.targets,
    checks: schedule.checks,
    graceMs: schedule.graceMs,
    quarantineMs: schedule.quarantineMs,
    oldVersion: currentVersion(secret)?.n ?? null,
    newVersion: null,
    emergency: false,
  }
}
