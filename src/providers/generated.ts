/**
 * Values that this program makes itself: passwords, tokens, session keys. No other system
 * is involved: nobody has to be asked, nothing can be revoked, and the prepared value is
 * the issued one, so that a repeated create gives the same value. For the same reason
 * nothing can take effect late, and nothing can be proven; only the consumers accept such
 * a value.
 *
 * The default alphabet has no character that needs quoting in a shell, a URL, a `.env`
 * file or a connection string.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Random } from '../core/ports.ts'
import { defineProvider, type Traits } from '../core/provider.ts'
import { single } from '../core/secret.ts'
import { encodeBytes, type Recipe, recipeFault, textFrom } from '../net/mint.ts'

const PLAIN = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-'
const DEFAULT_LENGTH = 32

const Config = z
  .strictObject({
    length: z.int().optional().meta({ description: 'Number of characters, 8 to 4096; default 32' }),
    alphabet: z
      .string()
      .optional()
      .meta({ description: 'Characters to choose from; default A-Z a-z 0-9 _ -' }),
    bytes: z
      .int()
      .optional()
      .meta({ description: 'Number of random bytes, 8 to 4096, instead of length and alphabet' }),
    encoding: z
      .enum(['base64url', 'base64', 'hex'])
      .optional()
      .meta({ description: 'How bytes are written; default base64url' }),
  })
  .superRefine((config, context) => {
    const fault = recipeFault(recipeOf(config), config)
    if (fault !== undefined) context.addIssue({ code: 'custom', message: fault })
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
  id: 'generated',
  title: 'Random value made here',
  notes: [
    'There is no far side: nobody can be asked whether a value works, and an old one is not ' +
      'revoked but retired when its grace ends.',
  ],
  example: { length: 40 },
  config: Config,
  traits: () => TRAITS,
  secretType: 'generic',
  open: (config) =>
    Promise.resolve({
      preflight: () => Promise.resolve(),
      prepare: (random: Random) =>
        single(
          config.bytes === undefined
            ? textFrom(recipeOf(config), random)
            : encodeBytes(config.bytes, config.encoding ?? 'base64url', random),
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

function recipeOf(config: { length?: number | undefined; alphabet?: string | undefined }): Recipe {
  return { length: config.length ?? DEFAULT_LENGTH, alphabet: config.alphabet ?? PLAIN }
}
