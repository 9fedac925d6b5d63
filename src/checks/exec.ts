/**
 * A program that tries the new value. The value comes on stdin (one field as it is,
 * several as compact JSON), and exit 0 is green. The environment contains
 * `ROTATE_EVENT=verify` and `ROTATE_SECRET`.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import { defineCheck } from '../core/target.ts'
import { basenameOf, endOf, inputOf, isTimeout, timeoutOf } from '../net/hook.ts'

const Config = z.strictObject({
  run: z
    .array(z.string())
    .min(1)
    .meta({
      description:
        'Program and arguments; the value comes on its stdin, exit 0 is green; no shell, paths ' +
        'are made absolute when set',
    }),
  timeout: z
    .string()
    .refine(isTimeout, 'is not a duration from 1s to 1h, such as 30s or PT1M')
    .optional()
    .meta({ description: 'How long the program may run; default 60s' }),
})

export default defineCheck({
  id: 'exec',
  title: 'Program that tries the value',
  config: Config,
  presents: () => true,
  describe: (config) => config.run.join(' '),
  settleConfig: async (config, { spawn }) => ({ ...config, run: await spawn.resolve(config.run) }),
  run: async (config, fields, context) => {
    const argv = await context.spawn.resolve(config.run)
    const env = { ROTATE_EVENT: 'verify', ROTATE_SECRET: context.path }
    try {
      const result = await context.spawn.run({
        argv,
        input: inputOf(fields),
        env,
        timeoutMs: timeoutOf(config.timeout),
        signal: context.signal,
      })
      return {
        ok: result.code === 0 && !result.timedOut,
        detail: `${basenameOf(argv[0])} ${endOf(result)}`,
      }
    } catch (thrown) {
      if (thrown instanceof AdapterError && thrown.code === 'bad-answer')
        return { ok: false, detail: thrown.message }
      throw thrown
    }
  },
})
