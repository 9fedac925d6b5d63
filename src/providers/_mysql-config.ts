/** The configuration of the provider `mysql`. */
import { isIP } from 'node:net'
import { z } from 'zod'
import {
  checkLogins,
  hostField,
  isLocal,
  namesIn,
  tlsFields,
  adminField,
  userFields,
} from './_login.ts'

// Single quotes, backslashes and backticks are refused, so that a name means the same in
// every sql_mode of the server.
const account = z.string().regex(/^[^\0-\x1f\x7f'\\`]{1,80}$/, 'is not the name of an account')

export const Config = z
  .strictObject({
    host: hostField,
    port: z.int().min(1).max(65_535).default(3306).meta({ description: 'Its port' }),
    database: z
      .string()
      .min(1)
      .max(64)
      .optional()
      .meta({ description: 'Database that is named in what is issued' }),
    admin: adminField(account, 'Account that may change the others'),
    ...userFields(
      account,
      'Two accounts with the same rights that take turns',
      'The one account, with "strategy": "dual" or "single"',
    ),
    accountHost: z
      .string()
      .regex(/^[A-Za-z0-9.:_%/-]{1,255}$/, 'is not the host of an account')
      .default('%')
      .meta({ description: "Host in the accounts' names, the part behind the @" }),
    strategy: z
      .enum(['two-users', 'dual', 'single'])
      .optional()
      .meta({ description: 'Default: two-users' }),
    ...tlsFields,
  })
  .superRefine((config, context) => {
    const { strategy, host } = config
    checkLogins(
      config,
      strategy === 'single' || strategy === 'dual' ? strategy : undefined,
      'account',
      '"dual" or "single"',
      context,
    )
    if (!isLocal(host) && isIP(host) !== 0)
      context.addIssue({
        code: 'custom',
        path: ['host'],
        message: "must be a name, which the server's certificate is checked for",
      })
  })
export type Options = z.output<typeof Config>

/** The configured accounts and their server as one text, which is compared later. */
export function placeOf({ host, port, accountHost, ...users }: Options): string {
  return `${host}:${port} ${namesIn(users).join(' ')} @${accountHost}`
}
