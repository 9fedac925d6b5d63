/**
 * Shapes of the commands about the vault file. Those that are loose may get further
 * fields.
 */
import { z } from 'zod'
import { path } from './common.ts'

export const vaultCopy = z.strictObject({
  file: z.string(),
  bytes: z.int().positive(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  versions: z.int().min(0),
})

export const vaultCheck = z.looseObject({ ok: z.boolean(), problems: z.array(z.string()) })

export const vaultInfo = z.looseObject({
  file: z.string(),
  vaultId: z.string(),
  format: z.int(),
  standing: z.strictObject({
    trusted: z.boolean(),
    copy: z.boolean(),
    mark: z.string(),
    why: z.string().nullable(),
  }),
})

export const vaultSalvage = z.looseObject({
  file: z.string(),
  secrets: z.int(),
  versions: z.int(),
  lost: z.array(z.string()),
})

export const reconcile = z.looseObject({
  keys: z.array(
    z.looseObject({
      path,
      id: z.string(),
      owner: z.string(),
      state: z.string(),
      action: z.string(),
    }),
  ),
})
