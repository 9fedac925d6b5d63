/**
 * Values that a person gets somewhere and hands over with `rotate PATH` and
 * `--value-file`, `--input -` and the like. With this provider such a secret has a
 * schedule, reminders, targets and checks like any other. The provider can never make a
 * value itself, so nothing can take effect late. It can neither say whether a value works
 * nor end one.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import { defineProvider, type Traits } from '../core/provider.ts'

const Config = z.strictObject({
  instructions: z
    .string()
    .max(2000)
    .optional()
    .meta({ description: 'Where and how to get the new value, shown when it is due' }),
})

const TRAITS: Traits = {
  mints: 'person',
  // Old and new are assumed to work side by side until the operator ends the old one
  // where it came from.
  overlap: 'two-live',
  maxLive: Number.POSITIVE_INFINITY,
  fields: ['value'],
  idempotency: 'none',
  revoke: 'none',
  suspend: false,
  lastUsed: false,
  settlesAfterMs: 0,
  verifies: false,
}

export default defineProvider({
  id: 'manual',
  title: 'Value given by a person',
  notes: [
    'When it is due, run-due asks for the value once a day and ends with 14; hand it over ' +
      'with rotate now PATH -.',
    'Nobody can be asked whether a value works, and an old one is ended by a person.',
  ],
  example: { instructions: 'Ask the bank for a new key: https://bank.example.com/keys' },
  config: Config,
  traits: () => TRAITS,
  secretType: 'generic',
  open: (config, context) => {
    const refuse = (): Promise<never> =>
      Promise.reject(
        new AdapterError(
          'by-hand',
          `the new value of ${context.path} has to be given by a person`,
          {
            hints: [
              ...(config.instructions === undefined ? [] : [config.instructions]),
              `rotate now ${context.path} --value-file FILE, or --input - to read it from stdin`,
            ],
          },
        ),
      )
    return Promise.resolve({
      preflight: refuse,
      create: refuse,
      settle: () =>
        Promise.resolve({
          outcome: 'none' as const,
          detail: 'a value given by a person is never made here',
        }),
      close: () => Promise.resolve(),
    })
  },
})
