/** The `data` of `show --json`. */
import type { Shown } from '../../app/secrets/show.ts'
import { lastRotatedAt, nextRotationAt } from '../../app/base/standing.ts'
import { iso, isoOrNull } from '../../core/duration.ts'
import { envId } from '../../core/ids.ts'
import { currentVersion, type Schedule } from '../../core/model.ts'
import { partsOf } from '../../core/names.ts'
import { historyItem } from './history.ts'
import { versionItem } from './shapes.ts'
import { pickDefined } from '../../core/defined.ts'

function scheduleData(schedule: Schedule) {
  return {
    id: schedule.id,
    provider: schedule.provider.id,
    status: schedule.status,
    intervalDays: schedule.intervalDays,
    cron: schedule.cron ?? null,
    graceSeconds: schedule.graceMs / 1000,
    quarantineSeconds: schedule.quarantineMs / 1000,
    nextRotationAt: schedule.status === 'active' ? iso(schedule.nextAt) : null,
    lastRotatedAt: isoOrNull(schedule.lastRotatedAt),
    targets: schedule.targets.map(({ key, type, phase, names }) => ({
      name: key,
      type,
      phase,
      names,
    })),
    checks: schedule.checks.map(({ key, type, withinMs }) => ({
      name: key,
      type,
      withinSeconds: withinMs / 1000,
    })),
    failures: schedule.failures,
    lastError: schedule.lastError ?? null,
    createdAt: iso(schedule.createdAt),
  }
}

export function showData({ secret, standing, fields, runs, checklist }: Shown) {
  const { project, envLabel, secretKey } = partsOf(secret.path)
  const previous = secret.versions.findLast((version) => version.labels.includes('previous'))
  const until = previous?.retirement?.notBefore
  return {
    id: secret.id,
    path: secret.path,
    project,
    envId: envId(project, envLabel),
    envLabel,
    secretKey,
    type: secret.type,
    tier: secret.tier,
    metadata: secret.metadata,
    tags: secret.tags,
    status: standing,
    version: currentVersion(secret)?.n ?? null,
    fields,
    createdAt: iso(secret.createdAt),
    updatedAt: iso(secret.updatedAt),
    deletedAt: isoOrNull(secret.deletedAt),
    lastRotatedAt: isoOrNull(lastRotatedAt(secret)),
    nextRotationAt: isoOrNull(nextRotationAt(secret)),
    grace: until === undefined ? null : { until: iso(until) },
    versions: secret.versions.toReversed().map(versionItem),
    schedule: secret.schedule === undefined ? null : scheduleData(secret.schedule),
    openRun: secret.openRun ?? null,
    strays: secret.strays.map((stray) => ({
      id: stray.handle.id,
      foundAt: iso(stray.foundAt),
      deleteAfter: iso(stray.deleteAfter),
    })),
    runs: runs.map(historyItem),
    ...pickDefined({ checklist }),
  }
}
