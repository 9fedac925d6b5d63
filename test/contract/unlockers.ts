/** The `data` of `unlocker …` and `vault rekey`. */
import { z } from 'zod'
import { id, instant, path } from './common.ts'

const recipient = z.string().regex(/^rp1-[A-Za-z0-9_-]{48}$/)

const unlocker = z.strictObject({
  id: id('unl'),
  kind: z.enum(['passphrase', 'key-file', 'recipient', 'recovery']),
  createdAt: instant,
  inUse: z.boolean(),
  recipient: recipient.nullable(),
})

export const unlockers = z.strictObject({
  unlockers: z.array(unlocker),
  exposed: z.array(path),
  added: id('unl').optional(),
})

export const keygen = z.strictObject({ keyFile: z.string(), recipient })

export const rekey = z.strictObject({
  vaultId: id('vlt'),
  epoch: z.int().positive(),
  resumed: z.boolean(),
  commits: z.int().nonnegative(),
  rows: z.int().nonnegative(),
})
