/** Shapes of the commands about vaults and secrets. */
import { z } from 'zod'
import {
  fingerprint,
  id,
  instant,
  label,
  path,
  secretType,
  texts,
  tier,
  trigger,
  versionState,
} from './common.ts'

/** With `--dry-run`: nothing was done, and this is what would have been done. */
const dryRun = z.literal(true).optional()

export const versionCommand = z.strictObject({
  version: z.string(),
  node: z.string(),
  platform: z.string(),
})

export const init = z.strictObject({
  vault: z.string(),
  vaultId: id('vlt'),
  unlockers: z
    .array(
      z.strictObject({
        id: id('unl'),
        kind: z.enum(['passphrase', 'key-file', 'recipient', 'recovery']),
        createdAt: instant,
      }),
    )
    .min(1),
})

export const set = z.strictObject({
  id: id('sec'),
  path,
  version: z.int().positive(),
  previousVersion: z.int().positive().nullable(),
  type: secretType,
  tier,
  metadata: texts,
  tags: z.array(z.string()),
  fingerprint,
  createdAt: instant,
  dryRun,
})

export const get = z.strictObject({
  path,
  value: z.union([z.string(), texts]),
  encoding: z.literal('base64').optional(),
  version: z.int().positive(),
  label: label.nullable(),
  type: secretType,
  tier,
  expiresAt: instant.nullable(),
  updatedAt: instant,
})

const status = z.enum([
  'active',
  'paused',
  'failed',
  'overdue',
  'disabled',
  'deleted',
  'rotating',
  'needs-operator',
  'unscheduled',
])

export const list = z.strictObject({
  secrets: z.array(
    z.strictObject({
      id: id('sec'),
      path,
      version: z.int().positive().nullable(),
      type: secretType,
      tier,
      tags: z.array(z.string()),
      status,
      provider: z.string().nullable(),
      lastRotatedAt: instant.nullable(),
      nextRotationAt: instant.nullable(),
      versions: z.int().nonnegative(),
    }),
  ),
})

const version = z.strictObject({
  version: z.int().positive(),
  labels: z.array(label),
  state: versionState,
  createdAt: instant,
  createdBy: z.string(),
  source: z.string(),
  fingerprint,
  hint: z.string(),
  providerKeyId: z.string().nullable(),
  expiresAt: instant.nullable(),
  replacedAt: instant.nullable(),
  endedAt: instant.nullable(),
  endsAt: instant.nullable(),
  endFailures: z.int().nonnegative(),
  endError: z.string().nullable(),
  endRetryAt: instant.nullable(),
  note: z.string().nullable(),
  metadata: texts,
})

export const versions = z.strictObject({ versions: z.array(version) })

const historyItem = z.strictObject({
  id: id('hist'),
  runId: id('run'),
  path,
  action: z.enum(['rotated', 'rolled_back', 'failed', 'unsafe', 'started']),
  triggeredBy: trigger,
  status: z.enum(['success', 'failed', 'rolled_back', 'unsafe', 'pending']),
  rotatedAt: instant,
  metadata: z.record(z.string(), z.union([z.string(), z.number(), z.null()])),
})

export const history = z.strictObject({ history: z.array(historyItem) })

const schedule = z.strictObject({
  id: id('rot'),
  provider: z.string(),
  status: z.enum(['active', 'paused', 'disabled']),
  intervalDays: z.int().min(1).max(365).nullable(),
  cron: z.string().nullable(),
  graceSeconds: z.number(),
  quarantineSeconds: z.number(),
  nextRotationAt: instant.nullable(),
  lastRotatedAt: instant.nullable(),
  targets: z.array(
    z.strictObject({ name: z.string(), type: z.string(), phase: z.string(), names: texts }),
  ),
  checks: z.array(
    z.strictObject({ name: z.string(), type: z.string(), withinSeconds: z.number() }),
  ),
  failures: z.int(),
  lastError: z.string().nullable(),
  createdAt: instant,
})

export const show = z.strictObject({
  secret: z.strictObject({
    id: id('sec'),
    path,
    project: z.string(),
    envId: id('env'),
    envLabel: z.string().nullable(),
    secretKey: z.string(),
    type: secretType,
    tier,
    metadata: texts,
    tags: z.array(z.string()),
    status,
    version: z.int().positive().nullable(),
    fields: z.array(z.string()),
    createdAt: instant,
    updatedAt: instant,
    deletedAt: instant.nullable(),
    lastRotatedAt: instant.nullable(),
    nextRotationAt: instant.nullable(),
    grace: z.strictObject({ until: instant }).nullable(),
    versions: z.array(version),
    schedule: schedule.nullable(),
    openRun: id('run').nullable(),
    strays: z.array(z.strictObject({ id: z.string(), foundAt: instant, deleteAfter: instant })),
    runs: z.array(historyItem),
    checklist: z
      .array(
        z.strictObject({
          step: z.int().min(1).max(5),
          title: z.string(),
          status: z.enum(['yes', 'no', 'not-needed']),
          evidence: z.string(),
        }),
      )
      .length(5)
      .optional(),
  }),
})

export const removed = z.strictObject({ path, deletedAt: instant, purgeAt: instant, dryRun })
export const purged = z.strictObject({ path, purged: z.literal(true), dryRun })
export const restored = z.strictObject({
  id: id('sec'),
  path,
  version: z.int().positive().nullable(),
  updatedAt: instant,
  dryRun,
})
export const moved = z.strictObject({
  id: id('sec'),
  from: path,
  path,
  references: z.array(path),
  dryRun,
})
export const imported = z.strictObject({
  created: z.int(),
  updated: z.int(),
  skipped: z.int(),
  dryRun,
})

export const auditList = z.strictObject({
  events: z.array(
    z.strictObject({
      id: id('evt'),
      seq: z.int().positive(),
      at: instant,
      action: z.string(),
      path: path.nullable(),
      actor: z.string(),
      triggeredBy: trigger,
      status: z.enum(['success', 'failed', 'pending']),
      runId: id('run').nullable(),
      metadata: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
    }),
  ),
})

export const auditVerify = z.strictObject({
  ok: z.boolean(),
  rows: z.int().nonnegative(),
  head: z.string().regex(/^[0-9a-f]{64}$/),
  firstBad: z.int().positive().nullable(),
  anchored: z.boolean().nullable(),
  pruned: z.int().nonnegative(),
  checkpoint: z.string().nullable(),
  checkpointLine: z.string().nullable(),
})

export const auditPubkey = z.strictObject({ vaultId: z.string(), pubkey: z.string() })

export const auditExport = z.strictObject({
  file: z.string(),
  format: z.enum(['csv', 'jsonl']),
  rows: z.int().nonnegative(),
  withheld: z.int().nonnegative(),
  from: z.int().nonnegative(),
  to: z.int().nonnegative(),
  pruned: z.int().nonnegative(),
})

export const auditVerifyExport = z.strictObject({
  ok: z.literal(true),
  vaultId: z.string(),
  format: z.enum(['csv', 'jsonl']),
  from: z.int().nonnegative(),
  to: z.int().nonnegative(),
  shown: z.int().nonnegative(),
  withheld: z.int().nonnegative(),
  start: z.string(),
  end: z.string(),
  size: z.int().nonnegative(),
  head: z.string(),
  exportedAt: instant,
  filter: z.record(z.string(), z.string()),
})

export const auditPrune = z.strictObject({
  pruned: z.int().nonnegative(),
  first: z.int().positive().nullable(),
  last: z.int().positive().nullable(),
  before: instant,
  dryRun: z.boolean(),
})
