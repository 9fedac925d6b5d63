/**
 * What all `--json` documents are made of. The schemas of this folder say what scripts
 * may rely on, and tests hold the program's real output against them.
 */
import { z } from 'zod'

/** An instant as every document writes it: ISO-8601 in UTC. */
export const instant = z.string().regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/)

export const id = (prefix: string) => z.string().regex(new RegExp(`^${prefix}_[0-9A-Z]+$`))

export const path = z
  .string()
  .regex(/^[A-Za-z0-9._][A-Za-z0-9._-]*(\/[A-Za-z0-9._][A-Za-z0-9._-]*){0,7}$/)

export const texts = z.record(z.string(), z.string())

export const secretType = z.enum([
  'api_key',
  'aws_access_key',
  'stripe_key',
  'database_password',
  'jwt_secret',
  'token',
  'webhook_secret',
  'generic',
])
export const tier = z.enum(['standard', 'sensitive', 'critical'])
export const versionState = z.enum([
  'live',
  'suspended',
  'revoked',
  'retired',
  'discarded',
  'unknown',
])
export const label = z.enum(['pending', 'current', 'previous'])
export const trigger = z.enum(['manual', 'automatic', 'emergency'])
/** Keyed hash of a value; equality inside one vault only. */
export const fingerprint = z.string().regex(/^[0-9a-f]{32}$/)

/** `{"data": …}` on stdout. */
export function document<T extends z.ZodType>(data: T) {
  return z.strictObject({ data })
}

/** `{"error": …}` on stderr. */
export const errorDocument = z.strictObject({
  error: z.strictObject({
    code: z.string(),
    exit: z.int().positive(),
    message: z.string().min(1),
    hint: z.string().nullable(),
    details: z.record(z.string(), z.unknown()),
    runId: id('run').nullable(),
  }),
})
