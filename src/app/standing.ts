/** How a secret stands, in one word. */
import { currentVersion, type Schedule, type SecretRecord } from '../core/model.ts'

export const scheduleStandings = ['active', 'paused', 'failed', 'overdue', 'disabled'] as const
export type ScheduleStanding = (typeof scheduleStandings)[number]

/** `failed`: the last automatic attempt failed. `overdue`: its date has passed. */
export function scheduleStanding(schedule: Schedule, now: number): ScheduleStanding {
  if (schedule.status !== 'active') return schedule.status
  if (schedule.failures > 0) return 'failed'
  return schedule.nextAt < now ? 'overdue' : 'active'
}

export const secretStandings = [...scheduleStandings, 'deleted', 'rotating', 'unscheduled'] as const
export type SecretStanding = (typeof secretStandings)[number]

/** `rotating`: a run is open. `unscheduled`: nobody will rotate it by itself. */
export function secretStanding(secret: SecretRecord, now: number): SecretStanding {
  if (secret.deletedAt !== undefined) return 'deleted'
  if (secret.openRun !== undefined) return 'rotating'
  return secret.schedule === undefined ? 'unscheduled' : scheduleStanding(secret.schedule, now)
}

/** When the value that is current became so. */
export function lastRotatedAt(secret: SecretRecord): number | null {
  return currentVersion(secret)?.promotedAt ?? secret.schedule?.lastRotatedAt ?? null
}

/** When it is due next; `null` when nothing will happen by itself. */
export function nextRotationAt(secret: SecretRecord): number | null {
  return secret.schedule?.status === 'active' ? secret.schedule.nextAt : null
}
