/**
 * A program of the operator's own that issues the value, so that anything can be a
 * provider, in any language. The chapter for authors of programs is EXEC.md.
 *
 * Every call starts one program, without a shell and with a minimal environment:
 * `ROTATE_EVENT` (`create`, `settle`, `verify`, `revoke`), `ROTATE_SECRET` (the path),
 * `ROTATE_INTENT` (for create and settle: the same for every question about one attempt,
 * to be used as idempotency key or as a mark in a name) and `ROTATE_KEY_ID` (the handle
 * of the value in question, for create and settle that of the current value; empty
 * without one). Values come on stdin and go to stdout, nowhere else.
 *
 * - `output: "value"`: stdin is the bare value in question (for create the current one,
 *   empty without one). Create prints the new value, of which one trailing newline is
 *   removed.
 * - `output: "json"`: stdin is one object
 *   `{"event","path","intent"?,"keyId"?,"current"?|"value"?: text or object of fields}`.
 *   Create and settle print `{"value": text}` or `{"fields": {…}}`, with `"keyId"?`,
 *   `"expiresAt"?` and `"metadata"?` beside it. Settle may also print
 *   `{"outcome":"none"}` or `{"outcome":"ambiguous"}`.
 *
 * Exit 0 means done, 75 (EX_TEMPFAIL) "nothing was done, try again". A create that ends
 * with another code up to 128 and has printed nothing has made nothing: the program
 * promises that, and one that can't needs `settle`. A higher code, a signal or a time-out
 * leaves open what was made. Verify: 0 means accepted, 1 refused, any other code "can't
 * tell". Revoke: 0 means ended, or gone already.
 *
 * What a proof shows, and what ends with a value, depends on the program. With `verify`,
 * a current value that the program refuses stops a rotation before anything is done.
 * `revoke` gets the value, so it also ends a value that was issued before there was such
 * a program.
 *
 * A call whose time is over is ended with its whole process group, and judged only when
 * that group is gone (SIGTERM, five seconds later SIGKILL). What the program has called
 * over a network may still act, and so may a process that left the group (`setsid`), so
 * the end of the group proves nothing: `settlesAfter` says how long nobody may believe
 * that nothing was made.
 *
 * `rotate provider test ./program` tries a program against all of this, with the code of
 * this file.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Intent } from '../core/model.ts'
import type { SpawnResult } from '../core/ports.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type Issued,
  type ProviderSession,
  SETTLES_AFTER_MS,
  type Settlement,
} from '../core/provider.ts'
import { type Fields, Secret, single, singleValue } from '../core/secret.ts'
import { basenameOf, endOf, inputOf, isTimeout, timeoutOf } from '../net/hook.ts'
import { parseObject } from '../net/json.ts'
import { settlesAfterField, settlesAfterOf } from '../core/settles-after.ts'
import { pickDefined } from '../core/defined.ts'

const EX_TEMPFAIL = 75
const REFUSED = 1
const MAX_VALUE_BYTES = 1024 * 1024
/**
 * Room for the largest value with every character escaped, plus the rest of the answer.
 */
const MAX_ANSWER_BYTES = 7 * 1024 * 1024
/** Pauses, in milliseconds, while a new value spreads at the far side. */
const SPREAD_MS = [1000, 2000, 4000]

const program = (what: string): z.ZodType<string[], string[]> =>
  z
    .array(z.string())
    .min(1)
    .meta({
      description: `${what}; program and arguments, no shell, paths are made absolute when set`,
    })

const Config = z
  .strictObject({
    create: program('Makes a new value and prints it'),
    settle: program(
      'Asked after a create whose outcome is not known: prints what that attempt made',
    ).optional(),
    verify: program('Tries the value on its stdin: exit 0 accepted, 1 refused').optional(),
    revoke: program('Ends the value on its stdin; ending one that is gone succeeds').optional(),
    output: z
      .enum(['value', 'json'])
      .default('value')
      .meta({ description: 'What create prints: the bare value, or an object in JSON' }),
    fields: z
      .array(
        z
          .string()
          .regex(/^[A-Za-z][A-Za-z0-9_]{0,63}$/, 'has a name that is not letters, digits and _'),
      )
      .min(1)
      .optional()
      .meta({
        description: 'Names of the fields it issues, with "output": "json"; default: one value',
      }),
    overlap: z.boolean().default(true).meta({
      description: 'The old value keeps working beside the new one; false: it dies with the create',
    }),
    timeout: z
      .string()
      .refine(isTimeout, 'is not a duration from 1s to 1h, such as 30s or PT1M')
      .optional()
      .meta({ description: 'How long one call may run; default 60s' }),
    settlesAfter: settlesAfterField('program, or what it has called,', '60s more than "timeout"'),
  })
  .superRefine((config, context) => {
    if (config.fields !== undefined && config.output !== 'json')
      context.addIssue({ code: 'custom', path: ['fields'], message: 'needs "output": "json"' })
    if (config.settle !== undefined && config.output !== 'json')
      context.addIssue({
        code: 'custom',
        path: ['settle'],
        message: 'needs "output": "json", so that it can say that there is nothing',
      })
    if (config.fields !== undefined && new Set(config.fields).size !== config.fields.length)
      context.addIssue({ code: 'custom', path: ['fields'], message: 'names a field twice' })
  })
type Options = z.output<typeof Config>
type Event = 'create' | 'settle' | 'verify' | 'revoke'

export default defineProvider({
  id: 'exec',
  title: 'Program that makes the value',
  notes: [
    'A program that ends with a code below 129 and has printed nothing has made nothing, by ' +
      'contract. One that can\'t promise this names a "settle" program.',
    'A program that is killed, runs out of time or ends red with output may have made ' +
      'something: the rotation ends with 21 until that is settled.',
    'The whole protocol: rotate help programs. To try a program: rotate provider test ./program.',
  ],
  example: { create: ['./issue-token'], verify: ['./issue-token'], revoke: ['./issue-token'] },
  config: Config,
  traits: (config) => ({
    mints: 'service',
    overlap: config.overlap ? 'two-live' : 'in-place',
    maxLive: Number.POSITIVE_INFINITY,
    fields: fieldsOf(config),
    idempotency: config.settle === undefined ? 'none' : 'named',
    revoke: config.revoke === undefined ? 'none' : 'delete',
    suspend: false,
    lastUsed: false,
    // The time-out of the program is counted in, because nobody ends the program at its
    // time-out if rotate itself was killed.
    settlesAfterMs: settlesAfterOf(
      config.settlesAfter,
      timeoutOf(config.timeout) + SETTLES_AFTER_MS,
    ),
    verifies: config.verify !== undefined,
  }),
  secretType: 'generic',
  settleConfig: async (config, { spawn }) => ({
    ...config,
    create: await spawn.resolve(config.create),
    ...(config.settle === undefined ? {} : { settle: await spawn.resolve(config.settle) }),
    ...(config.verify === undefined ? {} : { verify: await spawn.resolve(config.verify) }),
    ...(config.revoke === undefined ? {} : { revoke: await spawn.resolve(config.revoke) }),
  }),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function fieldsOf(config: Options): readonly string[] {
  return config.fields ?? ['value']
}

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const { settle: toSettle, verify: toVerify, revoke: toRevoke } = config
  const session: ProviderSession = {
    // Without "verify" there is no call without an effect, so only the programs are
    // checked.
    preflight: async (current) => {
      for (const argv of [config.create, toSettle, toVerify, toRevoke])
        if (argv !== undefined) await context.spawn.resolve(argv)
      if (current !== undefined && toVerify !== undefined)
        await mustBeAccepted(config, toVerify, context, current)
    },
    create: (intent, current) => create(config, context, intent, current),
    settle: (intent, current) =>
      toSettle === undefined
        ? Promise.resolve({
            outcome: 'ambiguous',
            candidates: [],
            detail: 'the program can not be asked what it made (no "settle" is configured)',
          })
        : settle(config, toSettle, context, intent, current),
    close: () => Promise.resolve(),
  }
  if (toVerify !== undefined)
    session.verify = (credential, expect) => verify(config, toVerify, context, credential, expect)
  if (toRevoke !== undefined)
    session.revoke = (credential) => revoke(config, toRevoke, context, credential)
  return session
}

async function create(
  config: Options,
  context: AdapterContext,
  intent: Intent,
  current: Credential | undefined,
): Promise<Issued> {
  const { result, name } = await call(config, config.create, context, 'create', intent, current)
  if (result.code === 0) return issuedFrom(config, result, name)
  const message = `${name} ${endOf(result)}`
  // A shell reports a program that a signal has ended by a code above 128.
  if (result.timedOut || result.code === null || result.code > 128)
    throw new AdapterError('timeout', message, { effect: 'unknown', retryable: false })
  // The output may be a value that lives. It is not kept, because it can't be trusted.
  if (result.stdout.size > 0)
    throw new AdapterError(
      'bad-answer',
      `${name} ${endOf({ ...result, stderr: '' })}, after it had printed something`,
      {
        effect: 'unknown',
      },
    )
  if (result.code === EX_TEMPFAIL)
    throw new AdapterError('unavailable', `${message}; it says that nothing was done`)
  throw new AdapterError('failed', message, {
    effect: config.settle === undefined ? 'none' : 'unknown',
    retryable: false,
  })
}

async function settle(
  config: Options,
  argv: readonly string[],
  context: AdapterContext,
  intent: Intent,
  current: Credential | undefined,
): Promise<Settlement> {
  const { result, name } = await call(config, argv, context, 'settle', intent, current)
  if (result.code !== 0)
    throw new AdapterError('unavailable', `${name} ${endOf(result)}`, {
      retryable: result.code === EX_TEMPFAIL,
    })
  const outcome = parseObject(textIn(result))?.['outcome']
  if (outcome === 'none') return { outcome: 'none', detail: `${name} says that nothing was made` }
  if (outcome === 'ambiguous')
    return { outcome: 'ambiguous', candidates: [], detail: `${name} can not say what was made` }
  return {
    outcome: 'applied',
    issued: issuedFrom(config, result, name),
    detail: `${name} gave what was made`,
  }
}

async function verify(
  config: Options,
  argv: readonly string[],
  context: AdapterContext,
  credential: Credential,
  expect: 'live' | 'dead',
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const { result, name } = await call(config, argv, context, 'verify', undefined, credential)
    if (result.code === 0) return
    if (result.code !== REFUSED)
      throw new AdapterError(result.timedOut ? 'timeout' : 'failed', `${name} ${endOf(result)}`)
    const pause = SPREAD_MS[attempt]
    if (expect === 'dead' || pause === undefined)
      throw new AdapterError('refused', `${name} does not accept the value: ${endOf(result)}`)
    await context.clock.sleep(pause, context.signal)
  }
}

/**
 * Throws `refused` where the program does not accept the current value: somebody has
 * ended it, and a new value would open again what was shut. Asks once.
 */
async function mustBeAccepted(
  config: Options,
  argv: readonly string[],
  context: AdapterContext,
  current: Credential,
): Promise<void> {
  try {
    await verify(config, argv, context, current, 'dead')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'refused') throw thrown
    throw new AdapterError(
      'refused',
      `the current value is not accepted any more: ${thrown.message}`,
      {
        hints: ['find out who ended it; then store the value that is in use now with "rotate set"'],
      },
    )
  }
}

async function revoke(
  config: Options,
  argv: readonly string[],
  context: AdapterContext,
  credential: Credential,
): Promise<void> {
  const { result, name } = await call(config, argv, context, 'revoke', undefined, credential)
  if (result.code === 0) return
  const code = result.timedOut ? 'timeout' : result.code === EX_TEMPFAIL ? 'unavailable' : 'failed'
  throw new AdapterError(code, `${name} ${endOf(result)}`, { effect: 'unknown' })
}

/** Starts one of the programs. The environment contains names and ids, no values. */
async function call(
  config: Options,
  program: readonly string[],
  context: AdapterContext,
  event: Event,
  intent: Intent | undefined,
  credential: Credential | undefined,
): Promise<{ readonly result: SpawnResult; readonly name: string }> {
  const argv = await context.spawn.resolve(program)
  const result = await context.spawn.run({
    argv,
    input:
      config.output === 'json'
        ? question(context, event, intent, credential)
        : inputOf(credential?.fields ?? {}),
    // Of a question in JSON only the fields are secret. If its event and key id were
    // masked too, messages would be unreadable.
    secrets: Object.values(credential?.fields ?? {}),
    env: {
      ROTATE_EVENT: event,
      ROTATE_SECRET: context.path,
      ROTATE_INTENT: intent?.tag ?? '',
      ROTATE_KEY_ID: credential?.handle?.id ?? '',
    },
    timeoutMs: timeoutOf(config.timeout),
    maxBytes: MAX_ANSWER_BYTES,
    signal: context.signal,
  })
  return { result, name: basenameOf(argv[0]) }
}

function question(
  context: AdapterContext,
  event: Event,
  intent: Intent | undefined,
  credential: Credential | undefined,
): Secret {
  const value =
    credential === undefined || Object.keys(credential.fields).length === 0
      ? undefined
      : plain(credential.fields)
  return new Secret(
    JSON.stringify({
      event,
      path: context.path,
      ...(intent === undefined ? {} : { intent: intent.tag }),
      ...(credential?.handle === undefined ? {} : { keyId: credential.handle.id }),
      ...(value === undefined ? {} : { [intent === undefined ? 'value' : 'current']: value }),
    }),
  )
}

function plain(fields: Fields): string | Readonly<Record<string, string>> {
  for (const value of Object.values(fields))
    if (!value.isText())
      throw new AdapterError(
        'misconfigured',
        'the value is not UTF-8 text and can not be sent in JSON',
        {
          hints: ['use "output": "value"'],
        },
      )
  return (
    singleValue(fields)?.reveal() ??
    Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, value.reveal()]))
  )
}

function textIn(result: SpawnResult): string {
  return result.stdout.isText() ? result.stdout.reveal() : ''
}

/**
 * After exit 0 something may live at the far side, so an answer that can't be used has
 * the effect `unknown`.
 */
function issuedFrom(config: Options, result: SpawnResult, name: string): Issued {
  const unusable = (what: string): AdapterError =>
    new AdapterError('bad-answer', `${name} ended well, but ${what}`, { effect: 'unknown' })
  if (config.output === 'value') {
    const bytes = result.stdout.bytes()
    const value = new Secret(bytes.at(-1) === 10 ? bytes.subarray(0, -1) : bytes)
    if (value.size === 0) throw unusable('printed nothing')
    if (value.size > MAX_VALUE_BYTES) throw unusable('printed more than 1 MiB')
    return { fields: single(value) }
  }
  const answer = parseObject(textIn(result))
  if (answer === undefined) throw unusable('did not print one JSON object')
  const wanted = fieldsOf(config)
  const given = config.fields === undefined ? { value: answer['value'] } : answer['fields']
  if (typeof given !== 'object' || given === null) throw unusable('printed no "fields"')
  const fields: Record<string, Secret> = {}
  for (const field of wanted) {
    const text = (given as Readonly<Record<string, unknown>>)[field]
    if (typeof text !== 'string' || text === '' || !text.isWellFormed())
      throw unusable(`"${field}" is missing, empty or no text`)
    const value = new Secret(text)
    if (value.size > MAX_VALUE_BYTES) throw unusable(`"${field}" is longer than 1 MiB`)
    fields[field] = value
  }
  const { keyId, expiresAt, metadata } = answer
  const at =
    typeof expiresAt === 'string' && /^\d{4}-\d{2}-\d{2}T\S+(Z|[+-]\d{2}:\d{2})$/.test(expiresAt)
      ? Date.parse(expiresAt)
      : Number.NaN
  const facts = factsIn(metadata, Object.values(fields))
  return {
    fields,
    ...(typeof keyId === 'string' && /^[\x21-\x7e]{1,256}$/.test(keyId)
      ? { handle: { id: keyId, live: true } }
      : {}),
    ...(Number.isNaN(at) ? {} : { expiresAt: at }),
    ...pickDefined({ metadata: facts }),
  }
}

/** Metadata is shown and exported, so an entry that contains the value is dropped. */
function factsIn(
  raw: unknown,
  values: readonly Secret[],
): Readonly<Record<string, string>> | undefined {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return undefined
  const kept = Object.entries(raw as Readonly<Record<string, unknown>>).flatMap(([key, item]) => {
    const text =
      typeof item === 'string'
        ? item
        : typeof item === 'number' || typeof item === 'boolean'
          ? String(item)
          : undefined
    const fits =
      text !== undefined &&
      key.length + text.length <= 1024 &&
      !values.some((value) => `${key}\n${text}`.includes(value.reveal()))
    return fits ? [[key.toWellFormed(), text.toWellFormed()] as const] : []
  })
  return kept.length === 0 ? undefined : Object.fromEntries(kept.slice(0, 64))
}
