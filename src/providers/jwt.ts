/**
 * Secrets that sign JSON Web Tokens with an HMAC. By default they have as many random
 * bytes as the output of the hash (RFC 7518, 3.2 asks for a key that is at least that
 * long).
 *
 * Consumers must accept tokens that were signed with the previous secret until the
 * longest-lived of them has expired. So they need both secrets, `[current, previous]`,
 * and a grace of at least that lifetime. Nothing can be revoked here; the old secret dies
 * when the consumers drop it. No other system is called, so nothing can take effect late
 * and nothing can be proven.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Random } from '../core/ports.ts'
import { defineProvider, type Traits } from '../core/provider.ts'
import { single } from '../core/secret.ts'
import { encodeBytes } from '../net/mint.ts'

const BYTES = { HS256: 32, HS384: 48, HS512: 64 } as const

const Config = z
  .strictObject({
    algorithm: z
      .enum(['HS256', 'HS384', 'HS512'])
      .optional()
      .meta({ description: 'Signature algorithm, which sets the length; default HS256' }),
    bytes: z
      .int()
      .max(4096)
      .optional()
      .meta({ description: 'Number of random bytes; at least what the algorithm needs' }),
    encoding: z
      .enum(['base64url', 'base64', 'hex'])
      .optional()
      .meta({ description: 'How the bytes are written; default base64url' }),
  })
  .superRefine((config, context) => {
    const least = BYTES[config.algorithm ?? 'HS256']
    if (config.bytes !== undefined && config.bytes < least)
      context.addIssue({
        code: 'custom',
        path: ['bytes'],
        message: `must be at least ${least} for ${config.algorithm ?? 'HS256'}`,
      })
  })

const TRAITS: Traits = {
  mints: 'client',
  overlap: 'two-live',
  maxLive: Number.POSITIVE_INFINITY,
  fields: ['value'],
  idempotency: 'replay-key',
  revoke: 'none',
  suspend: false,
  lastUsed: false,
  settlesAfterMs: 0,
  verifies: false,
}

export default defineProvider({
  id: 'jwt',
  title: 'JWT signing secret made here',
  notes: [
    'Whoever verifies what is signed must accept the old secret as long as its tokens live: ' +
      'give the target "previous":true, and make the grace at least that long.',
    'Nothing can be revoked here: the old secret is retired when its grace ends.',
  ],
  example: {},
  config: Config,
  traits: () => TRAITS,
  secretType: 'jwt_secret',
  open: (config) =>
    Promise.resolve({
      preflight: () => Promise.resolve(),
      prepare: (random: Random) =>
        single(
          encodeBytes(
            config.bytes ?? BYTES[config.algorithm ?? 'HS256'],
            config.encoding ?? 'base64url',
            random,
          ),
        ),
      create: (intent) =>
        intent.material['value'] === undefined
          ? Promise.reject(new AdapterError('misconfigured', 'the value to issue was not prepared'))
          : Promise.resolve({ fields: intent.material }),
      settle: (intent) =>
        Promise.resolve(
          intent.material['value'] === undefined
            ? { outcome: 'none' as const, detail: 'nothing was prepared' }
            : {
                outcome: 'applied' as const,
                issued: { fields: intent.material },
                detail: 'the prepared value needs no far side',
              },
        ),
      close: () => Promise.resolve(),
    }),
})
