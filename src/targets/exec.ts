/**
 * A program of the operator's own that hands the value to its consumers.
 *
 * The value is passed on stdin and nowhere else: a single value raw and without a
 * newline, several as compact JSON by name. The environment carries `ROTATE_EVENT`
 * (`push`, `rollback`), `ROTATE_SECRET` (the path), `ROTATE_VERSION` and
 * `ROTATE_DELIVERY_ID` (`ROTATE_RUN_ID` as its older name), the same for every repetition
 * of one delivery. Exit 0 means done, 75 (EX_TEMPFAIL) means try again, and everything
 * else means failed. The value can't be read back.
 *
 * Only the program knows what stood there before. An undo (`rollback`) gives it the old
 * version. If there is none, or if it lacks a value that the target has, stdin,
 * `ROTATE_VERSION` and `ROTATE_DELIVERY_ID` are empty. By contract a repetition is
 * harmless: one event may come several times, also after it ended with 0.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { SpawnResult } from '../core/ports.ts'
import { type AdapterContext, SETTLES_AFTER_MS } from '../core/provider.ts'
import type { Fields, Secret } from '../core/secret.ts'
import { defineTarget, type Delivery } from '../core/target.ts'
import { settlesAfterField, settlesAfterOf } from '../core/settles-after.ts'
import { basenameOf, endOf, inputOf, isTimeout, timeoutOf } from '../net/hook.ts'

const EX_TEMPFAIL = 75

const Config = z.strictObject({
  run: z
    .array(z.string())
    .min(1)
    .meta({
      description:
        'Program and arguments; the value comes on its stdin; no shell, paths are made absolute ' +
        'when set',
    }),
  timeout: z
    .string()
    .refine(isTimeout, 'is not a duration from 1s to 1h, such as 30s or PT1M')
    .optional()
    .meta({ description: 'How long the program may run; default 60s' }),
  settlesAfter: settlesAfterField('program, or what it has called,', '60s more than "timeout"'),
})
type Options = z.output<typeof Config>

export default defineTarget({
  id: 'exec',
  title: 'Program that delivers the value',
  notes: ["It is told what to deliver and can't be asked what stands there."],
  example: { run: ['./deliver'] },
  config: Config,
  readable: false,
  told: true,
  // The program goes on if this process is killed, and then nobody stops it.
  settlesAfterMs: ({ settlesAfter, timeout }) =>
    settlesAfterOf(settlesAfter, timeoutOf(timeout) + SETTLES_AFTER_MS),
  describe: (config) => config.run.join(' '),
  settleConfig: async (config, { spawn }) => ({ ...config, run: await spawn.resolve(config.run) }),
  open: (config, context) =>
    Promise.resolve({
      probe: async () => void (await context.spawn.resolve(config.run)),
      put: (delivery) => deliver(config, context, 'push', delivery.entries, delivery),
      restore: async (prior, old) => {
        // If nothing is known of what stood there, the program gets an empty input and no
        // version.
        const back = old?.entries ?? withoutNulls(prior ?? {})
        await deliver(config, context, 'rollback', back, old)
      },
      close: () => Promise.resolve(),
    }),
})

function withoutNulls(prior: Readonly<Record<string, Secret | null>>): Fields {
  return Object.fromEntries(
    Object.entries(prior).flatMap(([name, value]) =>
      value === null ? [] : [[name, value] as const],
    ),
  )
}

async function deliver(
  config: Options,
  context: AdapterContext,
  event: 'push' | 'rollback',
  entries: Fields,
  delivery: Delivery | undefined,
): Promise<void> {
  const env = {
    ROTATE_EVENT: event,
    ROTATE_SECRET: context.path,
    ROTATE_VERSION: delivery === undefined ? '' : String(delivery.version),
    ROTATE_DELIVERY_ID: delivery?.id ?? '',
    ROTATE_RUN_ID: delivery?.id ?? '',
  }
  const argv = await context.spawn.resolve(config.run)
  const result = await context.spawn.run({
    argv,
    input: inputOf(entries),
    env,
    timeoutMs: timeoutOf(config.timeout),
    signal: context.signal,
  })
  if (result.code !== 0) throw failure(argv[0], result)
}

/**
 * However the program ended, it may have delivered the value; repeating it is harmless by
 * contract. A program that ended by itself does nothing more. What one that was stopped
 * has set going is unknown.
 */
function failure(program: string, result: SpawnResult): AdapterError {
  const message = `${basenameOf(program)} ${endOf(result)}`
  if (result.timedOut) return new AdapterError('timeout', message, { effect: 'unknown' })
  // A shell in between reports a signal as 128 plus its number.
  const answered = result.code !== null && result.code < 128
  if (result.code === EX_TEMPFAIL)
    return new AdapterError('unavailable', message, {
      effect: 'unknown',
      retryable: true,
      answered,
    })
  return new AdapterError('failed', message, { effect: 'unknown', retryable: false, answered })
}
