/**
 * Shapes of the commands about rotation and schedules. They are loose: further fields may
 * stand beside these.
 */
import { z } from 'zod'
import { id, instant, path, trigger } from './common.ts'

const key = z.looseObject({ hint: z.string(), version: z.int().positive() }).nullable()

export const run = z.looseObject({
  success: z.boolean(),
  runId: id('run').nullable(),
  path,
  secretKey: z.string(),
  version: z.int().positive().nullable(),
  previousVersion: z.int().positive().nullable(),
  provider: z.string().nullable(),
  triggeredBy: trigger,
  status: z.enum(['success', 'failed', 'rolled_back', 'unsafe', 'pending']),
  rotatedAt: instant.nullable(),
  nextRotationAt: instant.nullable(),
  grace: z.looseObject({ until: instant }).nullable(),
  old: key,
  new: key,
  targets: z.array(z.looseObject({ name: z.string(), type: z.string(), status: z.string() })),
  checks: z.array(
    z.looseObject({ name: z.string(), type: z.string(), ok: z.boolean(), ms: z.number() }),
  ),
  steps: z.array(z.looseObject({ step: z.string(), status: z.string(), ms: z.number() })),
})

export const scheduleSet = z.looseObject({
  id: id('rot'),
  secretKey: z.string(),
  path,
  intervalDays: z.int().min(1).max(365).nullable(),
  provider: z.string(),
  status: z.string(),
  nextRotationAt: instant.nullable(),
  createdAt: instant,
})

export const scheduleList = z.looseObject({
  rotations: z.array(
    z.looseObject({
      id: id('rot'),
      envId: id('env'),
      envLabel: z.string().nullable(),
      secretKey: z.string(),
      path,
      intervalDays: z.int().min(1).max(365).nullable(),
      provider: z.string(),
      status: z.string(),
      lastRotatedAt: instant.nullable(),
      nextRotationAt: instant.nullable(),
    }),
  ),
})

export const runDue = z.looseObject({
  runId: id('run').nullable(),
  startedAt: instant,
  finishedAt: instant,
  rotated: z.array(run),
  failed: z.array(run),
  revoked: z.array(z.unknown()),
  resumed: z.array(z.unknown()),
  skipped: z.array(z.looseObject({ path, reason: z.string() })),
  notified: z.array(z.unknown()),
  broughtBack: z.array(z.string()),
  refusals: z.array(z.looseObject({ path, why: z.string(), hint: z.string() })),
  nextDueAt: instant.nullable(),
})

export const drift = z.looseObject({
  drift: z.array(
    z.looseObject({
      path,
      place: z.string(),
      holds: z.int().positive().nullable(),
      state: z.string(),
    }),
  ),
})
