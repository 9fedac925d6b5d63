/**
 * The standard Unix password manager, `pass` (https://www.passwordstore.org): one entry
 * per name, the value on its first line. The lines below it, in which people keep notes,
 * stay as they are. Values go in by stdin (`pass insert --multiline`), never as
 * arguments, and can be read back. `pass` has no conditional write, and two writers must
 * not commit to its Git repository at once, so all targets that use one store on this
 * machine take turns.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { SpawnResult } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget } from '../core/target.ts'
import { basenameOf, endOf } from '../net/hook.ts'
import { pickDefined } from '../core/defined.ts'

const TIMEOUT_MS = 60_000

const Config = z.strictObject({
  entry: z
    .string()
    .regex(/^(?!-)(?!.*\.\.)[A-Za-z0-9 ._@{}/-]{1,200}$/, 'is not the name of an entry')
    .default('{path}')
    .meta({
      description:
        'Name of the entry; {path} is the path of the secret, {name} the name under which a ' +
        'value is stored',
    }),
  program: z
    .string()
    .min(1)
    .default('pass')
    .meta({ description: 'The program; made absolute when set' }),
  storeDir: z
    .string()
    .startsWith('/', 'is not absolute')
    .optional()
    .meta({ description: 'PASSWORD_STORE_DIR, if it is not ~/.password-store' }),
  gnupgHome: z
    .string()
    .startsWith('/', 'is not absolute')
    .optional()
    .meta({ description: 'GNUPGHOME, if it is not ~/.gnupg' }),
})
type Options = z.output<typeof Config>

/**
 * What an undo needs besides the values: the names of entries that end right behind the
 * value, without a line end, and each whole entry, in base64, because it may not be text.
 */
const Rest = z.object({
  open: z.array(z.string()),
  whole: z.record(z.string(), z.string()).default({}),
})
type Rest = z.output<typeof Rest>

export default defineTarget({
  id: 'pass',
  title: 'pass, the standard Unix password manager',
  example: { entry: '{path}' },
  config: Config,
  readable: true,
  describe: ({ entry }) => `pass entry ${entry}`,
  settlesAfterMs: 0,
  place: ({ storeDir }) => storeDir ?? 'the store of this user',
  slots: ({ storeDir = '', entry }, name, path) => [
    `${storeDir} ${entry.replaceAll('{path}', path).replaceAll('{name}', name)}`,
  ],
  nameIn: 'entry',
  settleConfig: async (config, { spawn }) => ({
    ...config,
    program: (await spawn.resolve([config.program ?? 'pass']))[0],
  }),
  open: (config, context) =>
    Promise.resolve({
      probe: async () => {
        // `ls` reads only names, and fails if there is no store.
        const result = await run(config, context, ['ls'])
        if (result.code !== 0) throw failure(result)
      },
      current: async (names) =>
        Object.fromEntries(
          await Promise.all(
            names.map(
              async (name) => [name, (await read(config, context, name))?.value ?? null] as const,
            ),
          ),
        ),
      standing: async (names) => {
        const found = await Promise.all(
          names.map(async (name) => [name, await read(config, context, name)] as const),
        )
        const open = found.flatMap(([name, entry]) => (entry?.open === true ? [name] : []))
        const whole = Object.fromEntries(
          found.flatMap(([name, entry]) =>
            entry === undefined
              ? []
              : [[name, Buffer.from(entry.whole.bytes()).toString('base64')]],
          ),
        )
        return {
          values: Object.fromEntries(found.map(([name, entry]) => [name, entry?.value ?? null])),
          rest: new Secret(JSON.stringify({ open, whole } satisfies Rest)),
        }
      },
      put: async (delivery) => {
        for (const [name, value] of Object.entries(delivery.entries)) {
          if (value.isText() && !/[\r\n\0]/.test(value.reveal())) continue
          throw new AdapterError(
            'misconfigured',
            `the value of ${name} has line breaks or is no text; pass keeps a password on one line`,
          )
        }
        await write(config, context, delivery.entries)
      },
      restore: async (prior, old, rest) =>
        write(
          config,
          context,
          prior ?? old?.entries ?? {},
          rest === undefined ? undefined : Rest.parse(JSON.parse(rest.reveal())),
        ),
      close: () => Promise.resolve(),
    }),
})

/** @param stood what the entries held before the first write, for an undo */
async function write(
  config: Options,
  context: AdapterContext,
  entries: Prior,
  stood?: Rest,
): Promise<void> {
  if (Object.keys(entries).length > 1 && !config.entry.includes('{name}'))
    throw new AdapterError(
      'misconfigured',
      'the secret has several values, and all would go to one entry',
      {
        hints: ['put {name} into "entry"'],
      },
    )
  for (const [name, value] of Object.entries(entries)) {
    const before = await read(config, context, name)
    if (value === null) {
      if (before !== undefined && before.notes.length > 0)
        throw new AdapterError(
          'failed',
          `the entry ${entryOf(config, context, name)} was made for this, but has notes by ` +
            'now and stays',
          {
            retryable: false,
            hints: ['remove the entry, or its first line, by hand'],
          },
        )
      if (before !== undefined)
        await mustSucceed(run(config, context, ['rm', '--force', entryOf(config, context, name)]))
      continue
    }
    const notes = before?.notes ?? notesOf(stood?.whole[name])
    const end = notes.length === 0 && stood?.open.includes(name) === true ? '' : '\n'
    const text = new Secret(Buffer.concat([value.bytes(), Buffer.from(end), notes]))
    if (before?.whole.equals(text) === true) continue
    await mustSucceed(
      run(
        config,
        context,
        ['insert', '--multiline', '--force', entryOf(config, context, name)],
        text,
      ),
    )
    // Read again, because it is not certain that `pass` and `gpg` keep bytes that are not
    // text.
    if ((await read(config, context, name))?.whole.equals(text) !== true)
      throw new AdapterError(
        'bad-answer',
        `the entry ${entryOf(config, context, name)} does not hold what was written to it`,
        {
          effect: 'unknown',
          retryable: true,
        },
      )
  }
}

/**
 * An entry. Its value is the first line without the line feed but with a carriage return,
 * if it has one, as `pass -c` takes it.
 */
interface Entry {
  readonly whole: Secret
  readonly value: Secret
  /** Everything after the first line. */
  readonly notes: Uint8Array
  /** Whether the entry ends right behind the value, without a line end. */
  readonly open: boolean
}

function entryIn(whole: Secret): Entry {
  const bytes = whole.bytes()
  const end = bytes.indexOf(0x0a)
  return end < 0
    ? { whole, value: whole, notes: new Uint8Array(), open: true }
    : {
        whole,
        value: new Secret(bytes.subarray(0, end)),
        notes: bytes.subarray(end + 1),
        open: false,
      }
}

/**
 * The notes of an entry from before the run, for an entry that somebody has removed
 * meanwhile.
 */
function notesOf(whole: string | undefined): Uint8Array {
  return whole === undefined
    ? new Uint8Array()
    : entryIn(new Secret(Buffer.from(whole, 'base64'))).notes
}

/** Reads an entry; `undefined` if it does not exist. */
async function read(
  config: Options,
  context: AdapterContext,
  name: string,
): Promise<Entry | undefined> {
  const result = await run(config, context, ['show', entryOf(config, context, name)])
  if (result.code === 1 && /is not in the password store/.test(result.stderr)) return undefined
  if (result.code !== 0) throw failure(result)
  return entryIn(result.stdout)
}

function entryOf(config: Options, context: AdapterContext, name: string): string {
  return config.entry.replaceAll('{path}', context.path).replaceAll('{name}', name)
}

async function mustSucceed(call: Promise<SpawnResult>): Promise<void> {
  const result = await call
  if (result.code !== 0) throw failure(result)
}

async function run(
  config: Options,
  context: AdapterContext,
  args: readonly string[],
  input?: Secret,
): Promise<SpawnResult> {
  const argv = await context.spawn.resolve([config.program, ...args])
  return context.spawn.run({
    argv,
    input: input ?? new Secret(''),
    env: {
      // Without a terminal, an agent that has to ask for a pass phrase must fail instead
      // of waiting.
      PASSWORD_STORE_GPG_OPTS: '--batch --no-tty',
      ...pickDefined({ PASSWORD_STORE_DIR: config.storeDir, GNUPGHOME: config.gnupgHome }),
    },
    timeoutMs: TIMEOUT_MS,
    signal: context.signal,
  })
}

function failure(result: SpawnResult): AdapterError {
  return new AdapterError(
    result.timedOut ? 'timeout' : 'failed',
    `${basenameOf('pass')} ${endOf(result)}`,
    {
      effect: 'unknown',
      retryable: result.timedOut,
      hints: [
        'the key of the store must be usable without a question: gpg-agent, or a key without ' +
          'pass phrase',
      ],
    },
  )
}
