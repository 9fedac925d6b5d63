/** How a secret stands, in one word. */
import {
  currentVersion,
  type RunRecord,
  type Schedule,
  type SecretRecord,
  type VersionRecord,
} from '../../core/model.ts'
import type { Vault } from '../../core/ports.ts'
import { stateOf } from '../../engine/machine.ts'

export const scheduleStandings = [
  'active',
  'paused',
  'failed',
  'overdue',
  'disabled',
  'rotating',
  'needs-operator',
] as const
export type ScheduleStanding = (typeof scheduleStandings)[number]

/**
 * What a run that is open says of its secret: it goes on by itself, or it stands still
 * until a person decides.
 */
export type OpenStanding = 'rotating' | 'needs-operator'

/**
 * `failed`: the last automatic attempt failed, and no value has become current since.
 * `overdue`: its date has passed. An open run comes first, whatever the schedule says:
 * `open` is how it stands.
 */
export function scheduleStanding(
  schedule: Schedule,
  now: number,
  open?: OpenStanding,
): ScheduleStanding {
  if (open !== undefined) return open
  if (schedule.status !== 'active') return schedule.status
  if (schedule.failures > 0) return 'failed'
  return schedule.nextAt < now ? 'overdue' : 'active'
}

export const secretStandings = [...scheduleStandings, 'deleted', 'unscheduled'] as const
export type SecretStanding = (typeof secretStandings)[number]

/**
 * `rotating`: a run is open. `needs-operator`: it waits for a person. `unscheduled`: it
 * has no schedule, so nothing rotates it by itself.
 */
export function secretStanding(
  secret: SecretRecord,
  now: number,
  open?: OpenStanding,
): SecretStanding {
  if (secret.deletedAt !== undefined) return 'deleted'
  if (secret.openRun !== undefined) return open ?? 'rotating'
  return secret.schedule === undefined ? 'unscheduled' : scheduleStanding(secret.schedule, now)
}

/**
 * How a secret with this open run stands: a run that is parked without a date at which it
 * goes on by itself needs a person.
 */
function openStanding(run: RunRecord): OpenStanding {
  return run.status === 'unsafe' && !stateOf(run).waits ? 'needs-operator' : 'rotating'
}

/** How a secret with an open run stands; `undefined` where no run is open. */
export async function openStandingOf(
  vault: Vault,
  { openRun }: SecretRecord,
): Promise<OpenStanding | undefined> {
  if (openRun === undefined) return undefined
  const run = await vault.read((reader) => reader.run(openRun))
  return run === undefined ? 'rotating' : openStanding(run)
}

/** When the value that is current became so. */
export function lastRotatedAt(secret: SecretRecord): number | null {
  return currentVersion(secret)?.promotedAt ?? secret.schedule?.lastRotatedAt ?? null
}

/** When it is due next; `null` when nothing will happen by itself. */
export function nextRotationAt(secret: SecretRecord): number | null {
  return secret.schedule?.status === 'active' ? secret.schedule.nextAt : null
}

/**
 * What is to happen to a version that is on its way out, and what has come of it so far.
 */
export interface Ending {
  /**
   * `waiting`: its date has not come. `quarantine`: switched off, not deleted yet.
   * `overdue`: its date has passed, and it has not ended.
   */
  readonly state: 'waiting' | 'quarantine' | 'overdue'
  readonly at: number
  readonly lastError?: string
  readonly retryAt?: number
}

/** How the end of a version stands now; `undefined` where none is planned. */
export function endingOf({ retirement }: VersionRecord, now: number): Ending | undefined {
  if (retirement === undefined) return undefined
  const at = retirement.deleteAfter ?? retirement.notBefore
  const state = at <= now ? 'overdue' : retirement.step === 'suspended' ? 'quarantine' : 'waiting'
  return {
    state,
    at,
    ...(retirement.lastError === undefined || retirement.failures === 0
      ? {}
      : { lastError: retirement.lastError }),
    ...(retirement.retryAt === undefined || retirement.retryAt <= now
      ? {}
      : { retryAt: retirement.retryAt }),
  }
}
