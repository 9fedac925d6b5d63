/**
 * Secrets of Fly.io apps, by the program `fly` (https://fly.io/docs/apps/secrets,
 * https://fly.io/docs/flyctl/secrets).
 *
 * Values go by stdin (`fly secrets import --stage`), never as an argument, and can't be
 * read back. Names and digests are listed, and a digest shows whether a value was
 * changed. A machine takes a secret up when it is updated. `fly secrets deploy` updates
 * each machine and waits for it; the API alone does not.
 *
 * This target was tested with a simulated `fly` only, never with Fly.io.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { plainText } from '../net/json-api.ts'
import { jsonOf, type Meaning, type Tool, toolOf } from '../net/tool.ts'
import { backsOf, missingIn, type Slot, standingOf } from './_places.ts'

const VENDOR = 'Fly.io'
/** Long, because machines are updated one after the other and each is waited for. */
const DEPLOY_LIMIT_MS = 30 * 60_000
/** `fly` reads stdin by Go's line scanner, which takes lines of up to 64 KiB. */
const MAX_LINE_BYTES = 60 * 1024

const Config = z.strictObject({
  apps: z
    .array(z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'is not the name of an app'))
    .min(1)
    .max(100)
    .meta({ description: 'Apps, by name' }),
  token: secretField(
    'Access token; fly tokens create deploy makes one for an app, fly tokens create org one ' +
      'for several',
  ),
  create: z
    .boolean()
    .default(false)
    .meta({ description: 'Also write where the secret does not exist yet' }),
  deploy: z.boolean().default(true).meta({
    description: 'Update the machines and wait for them; otherwise the secrets are staged only',
  }),
  program: z
    .string()
    .min(1)
    .default('fly')
    .meta({ description: 'The program fly; made absolute when set' }),
})
type Options = z.output<typeof Config>

export default defineTarget({
  id: 'fly',
  title: 'Fly.io secrets, by the program fly',
  notes: [
    "The vendor's program does the work, because only that updates the machines.",
    "Secrets can't be read back at Fly.io.",
    'Tried against a counterpart only, never against Fly.io.',
  ],
  example: { apps: ['shop'], token: { secret: 'infra/fly/TOKEN' } },
  config: Config,
  readable: false,
  deploys: ({ deploy }) => deploy,
  slots: ({ apps }, name) => apps.map((app) => `${app} ${name}`),
  nameFault,
  describe: ({ apps }) => `Fly.io ${apps.join(', ')}`,
  settleConfig: async (config, { spawn }) => ({
    ...config,
    program: (await spawn.resolve([config.program ?? 'fly']))[0],
  }),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const env = { FLY_API_TOKEN: config.token, FLY_NO_UPDATE_CHECK: '1', NO_COLOR: '1' }
  const fly = toolOf({ program: config.program, env, meaning: meaningOf }, context)
  const session: TargetSession = {
    probe: async () => {
      for (const app of config.apps) await secretsOf(fly, app)
    },
    put: (delivery) => put(fly, config, delivery, context),
    standing: async (names) => {
      const slots: Slot[] = []
      for (const app of config.apps) {
        const held = await secretsOf(fly, app)
        for (const name of names) {
          const sign = held.get(name)
          if (sign !== undefined) slots.push({ path: app, name, kept: { sign } })
          else if (config.create) slots.push({ path: app, name, kept: null })
        }
      }
      const missing = config.create ? undefined : missingIn(slots, names)
      if (missing !== undefined) throw nowhere(missing)
      return standingOf(slots, names)
    },
    restore: (prior, old, rest) => restore(fly, config, { prior, old, rest }, context),
    close: () => Promise.resolve(),
  }
  if (config.deploy)
    session.deploy = (delivery) => deploy(fly, config, Object.keys(delivery.entries), context)
  return session
}

// Versions of the program differ in how they spell the keys of their JSON: Name or name.
const Row = z
  .object({
    name: z.string().optional(),
    Name: z.string().optional(),
    digest: z.string().optional(),
    Digest: z.string().optional(),
  })
  .transform(({ name, Name, digest, Digest }) => ({ name: name ?? Name, digest: digest ?? Digest }))

/** The digest of each secret by name; `null` if none is listed. */
async function secretsOf(fly: Tool, app: string): Promise<ReadonlyMap<string, string | null>> {
  const rows = z
    .array(Row)
    .nullable()
    .safeParse(jsonOf(await fly.run(['secrets', 'list', '--app', app, '--json']), 'fly'))
  if (!rows.success || (rows.data ?? []).some(({ name }) => name === undefined))
    throw new AdapterError('bad-answer', 'fly listed the secrets in another shape than promised')
  return new Map(
    (rows.data ?? []).flatMap(({ name, digest }) =>
      name === undefined ? [] : [[name, digest || null] as const],
    ),
  )
}

function nowhere(name: string): AdapterError {
  return new AdapterError('misconfigured', `no chosen app on ${VENDOR} has the secret ${name}`, {
    hints: ['set it there once, or "create": true'],
  })
}

async function put(
  fly: Tool,
  config: Options,
  { entries }: Delivery,
  context: AdapterContext,
): Promise<void> {
  const lines = new Map(Object.entries(entries).map(([name, value]) => [name, lineOf(name, value)]))
  const held = new Map<string, ReadonlyMap<string, unknown>>()
  for (const app of config.apps) held.set(app, await secretsOf(fly, app))
  for (const name of lines.keys())
    if (!config.create && !config.apps.some((app) => held.get(app)?.has(name) === true))
      throw nowhere(name)
  const at = config.apps.filter(
    (app) => config.create || [...lines.keys()].some((name) => held.get(app)?.has(name) === true),
  )
  for (const [i, app] of at.entries()) {
    const names = [...lines.keys()].filter(
      (name) => config.create || held.get(app)?.has(name) === true,
    )
    await write(fly, app, names, lines, Object.values(entries))
    context.note(`${VENDOR}: ${names.join(', ')} in ${app} (${i + 1}/${at.length})`)
  }
}

async function write(
  fly: Tool,
  app: string,
  names: readonly string[],
  lines: ReadonlyMap<string, string>,
  hide: readonly Secret[],
): Promise<void> {
  const input = new Secret(names.map((name) => `${lines.get(name) ?? ''}\n`).join(''))
  await fly.run(['secrets', 'import', '--app', app, '--stage'], { input, writes: true, hide })
}

function nameFault(name: string): string | undefined {
  return /^[A-Za-z_]\w*$/.test(name)
    ? undefined
    : `${VENDOR} takes letters, digits and _ in a name, and no digit first`
}

/**
 * Writes a line as `fly secrets import` reads it: outer quotes are taken off, and three
 * quotes open a value of several lines, which three at the end of a line close.
 * https://github.com/superfly/flyctl/blob/master/internal/command/secrets/parser.go
 */
function lineOf(name: string, value: Secret): string {
  const fault = nameFault(name)
  if (fault !== undefined) throw new AdapterError('misconfigured', `${name}: ${fault}`)
  const text = plainText(value)
  const several = text.includes('\n')
  if (
    text === '' ||
    /[\r\0]/.test(text) ||
    (several ? text.includes('"""') : text.startsWith('""'))
  )
    throw new AdapterError(
      'misconfigured',
      `fly can't read the value of ${name} by stdin as it is`,
      {
        hints: [
          'it is empty, or has a carriage return, or three quotes in a row where they would end it',
        ],
      },
    )
  if (text.split('\n').some((line) => Buffer.byteLength(line) > MAX_LINE_BYTES))
    throw new AdapterError(
      'misconfigured',
      `the value of ${name} has a line of more than ${MAX_LINE_BYTES / 1024} KB, which fly ` +
        'does not read',
    )
  return several ? `${name}="""${text}"""` : `${name}="${text}"`
}

interface Known {
  readonly prior: Prior | undefined
  readonly old: Delivery | undefined
  readonly rest: Secret | undefined
}

/**
 * Writes what stood there before where it is known, removes what was made, and updates
 * the machines.
 */
async function restore(
  fly: Tool,
  config: Options,
  { prior, old, rest }: Known,
  context: AdapterContext,
): Promise<void> {
  const backs = backsOf(config.apps, prior, old, rest)
  if (rest === undefined && backs.length === 0)
    return context.note(
      `${VENDOR}: what was written stays, because nothing was noted of what stood there`,
    )
  for (const app of new Set(backs.map(({ path }) => path))) {
    const held = await secretsOf(fly, app)
    const lines = new Map<string, string>()
    const hide: Secret[] = []
    const made: string[] = []
    for (const { name, value, sign, stood } of backs.filter(({ path }) => path === app)) {
      const now = held.get(name)
      // An equal digest means that the value has not changed.
      if (sign !== undefined && now === sign) continue
      if (value === undefined)
        context.note(
          `${VENDOR}: what ${name} in ${app} held can not be read, so what was written to it stays`,
        )
      else if (value === null) made.push(...(now === undefined ? [] : [name]))
      else if (stood || now !== undefined) {
        lines.set(name, lineOf(name, value))
        hide.push(value)
      }
    }
    if (lines.size > 0) await write(fly, app, [...lines.keys()], lines, hide)
    if (made.length === 0) continue
    await fly.run(['secrets', 'unset', ...made, '--app', app, '--stage'], { writes: true })
    if (config.deploy) await update(fly, app)
  }
}

/**
 * Deploys every app that has one of the secrets, one after the other. Each machine is
 * updated and waited for until its health checks pass.
 */
async function deploy(
  fly: Tool,
  config: Options,
  names: readonly string[],
  context: AdapterContext,
): Promise<void> {
  const apps: string[] = []
  for (const app of config.apps) {
    const held = await secretsOf(fly, app)
    if (names.some((name) => held.has(name))) apps.push(app)
  }
  for (const [i, app] of apps.entries()) {
    await update(fly, app)
    context.note(`${VENDOR}: ${app} runs with it (${i + 1}/${apps.length})`)
  }
}

async function update(fly: Tool, app: string): Promise<void> {
  await fly.run(['secrets', 'deploy', '--app', app], { writes: true, timeoutMs: DEPLOY_LIMIT_MS })
}

/**
 * Recognises the texts of fly's source and of the API's answers; other texts are shown as
 * they are.
 */
function meaningOf(said: string): Meaning | undefined {
  if (/no access token available|not authenticated|unauthorized|must be authenticated/i.test(said))
    return {
      code: 'denied',
      message: `${VENDOR} does not accept the token, or it may not do this`,
      hints: ['check "token" in the configuration'],
    }
  if (/could not find app|app not found/i.test(said))
    return { code: 'missing', message: `${VENDOR} has no such app that the token can see` }
  if (/must first deploy your app/i.test(said))
    return {
      code: 'misconfigured',
      message: 'the app was never deployed',
      hints: ['fly deploy', 'or say "deploy": false'],
    }
  return undefined
}
