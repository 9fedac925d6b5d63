/** `rotate PATH…` and its alias `now`. */
import { parseDuration, parseInstant } from '../../core/duration.ts'
import { usage } from '../../core/errors.ts'
import { parseJsonObject } from '../../core/json.ts'
import { type Fields, Secret, single } from '../../core/secret.ts'
import { parseName } from '../../app/base/lookup.ts'
import type { Progress, RotateInput, RotateOutcome } from '../../app/rotation/rotate.ts'
import type { Context } from '../context.ts'
import { chomp } from '../input.ts'
import type { Register } from '../command.ts'
import { finish } from '../finish.ts'
import { addValueFlags, readValue, type ValueOptions } from '../value-flags.ts'
import { pickDefined } from '../../core/defined.ts'

interface Options extends ValueOptions {
  readonly input?: string
  readonly grace?: string
  readonly emergency?: true
  readonly revokeFirst?: true
  readonly leaked?: string
  readonly events?: true
  readonly force?: true
  readonly plan?: string
}

interface Supplied {
  readonly fields: Fields
  readonly merge?: boolean
  readonly expiresAt?: number
  readonly metadata?: Readonly<Record<string, string>>
}

export const rotate: Register = (parent, run) => {
  addValueFlags(
    parent
      .command('rotate')
      .alias('now')
      .helpGroup('Rotation:')
      .summary('rotate secrets now')
      .description(
        'Rotates now: creates the replacement at the provider (or takes the given value), ' +
          'delivers it to every target, checks it, makes it current, and ends the old one when ' +
          'its grace is over.\n\n' +
          'Examples:\n  rotate now production/gemini/GEMINI_API_KEY\n  ./make-key.sh | rotate ' +
          'now production/gemini/GEMINI_API_KEY -\n  rotate now production/aws/DEPLOY_KEY ' +
          '--emergency --reason "leaked in a log"',
      )
      .argument(
        '<path...>',
        'which secrets; a last word - reads the new value from stdin (a terminal asks, unseen)',
      ),
  )
    .option(
      '--input <file>',
      'JSON {"new_value":…} or {"newValue","expiresAt","metadata"} from a file, or - for stdin',
    )
    .option('--grace <duration>', 'how long the old value stays alive (a bare number is days)')
    .option('--emergency', 'grace 0, no last-used veto; deliveries and checks still count')
    .option(
      '--revoke-first',
      'an emergency that switches the old value off before anything else; consumers fail ' +
        'until they have the new one',
    )
    .option(
      '--leaked <source>',
      'the leaked value, read from stdin with -: only the version that holds it is ended',
    )
    .option('--force', 'accept a given value that was revoked before')
    .option(
      '--plan <hash>',
      'rotate only if this is still the plan (the hash that rotate plan prints)',
    )
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (ctx, words: readonly string[], options: Options) => {
          const stdin = words.at(-1) === '-'
          const paths = (stdin ? words.slice(0, -1) : words).map(parseName)
          if (paths.length === 0) throw usage('no secret was named')
          if (stdin && options.input !== undefined)
            throw usage('- and --input both read a value; use one')
          const supplied = await suppliedValue(ctx, stdin, options)
          if (supplied !== undefined && paths.length > 1)
            throw usage('a value can be given for one secret at a time only')
          const leaked =
            options.leaked === undefined
              ? undefined
              : await leakedValue(ctx, options, paths.length, supplied !== undefined)
          if (options.plan !== undefined) plainOnly(options, paths.length, supplied !== undefined)
          if (ctx.globals.dryRun) return showPlans(ctx, paths)
          const { Events, progressPrinter, showRuns } = await import('../render/run.ts')
          const events = options.events === true ? new Events(ctx) : undefined
          const { tellDropped } = await import('../overrides.ts')
          const dropped = await droppedFor(ctx, paths, options, {
            leaked: leaked !== undefined,
            supplied: supplied !== undefined,
          })
          tellDropped(ctx, dropped, 'before')
          const outcome = await rotateOrEnd(
            ctx,
            leaked,
            {
              paths,
              ...(options.revokeFirst === undefined ? {} : { revokeFirst: true }),
              ...pickDefined({ supplied }),
              ...(options.grace === undefined
                ? {}
                : { graceMs: parseDuration(options.grace, '--grace', 'days') }),
              ...(options.emergency === undefined ? {} : { emergency: true }),
              ...(options.force === undefined ? {} : { force: true }),
              ...pickDefined({ planHash: options.plan }),
            },
            progressPrinter(ctx, events),
          )
          const { runs } = outcome
          showRuns(ctx, events, runs, runs.length === 1 && paths.length === 1 ? runs[0] : { runs })
          // A rotation that failed before anything was switched off has dropped no
          // condition.
          if (
            outcome.runs.some(
              ({ success, steps }) => success || steps.some(({ step }) => step === 'suspend-old'),
            )
          )
            tellDropped(ctx, dropped, 'after')
          await finish(ctx, outcome.failure)
        },
        { graceful: true },
      ),
    )
}

/**
 * Which conditions these overrides will drop for these secrets. An open run is only
 * finished as it was begun: that is said, and overrides change nothing about it.
 */
async function droppedFor(
  ctx: Context,
  paths: readonly string[],
  options: Options,
  given: { readonly leaked: boolean; readonly supplied: boolean },
): Promise<readonly string[]> {
  const { droppedBy } = await import('../overrides.ts')
  const forceValue = options.force === true && given.supplied
  const emergency = options.emergency === true || options.revokeFirst === true
  if (!emergency && !given.leaked) return droppedBy({ forceValue })
  const { foresee } = await import('../../app/rotation/foresee.ts')
  const seen = await foresee(await ctx.deps(), paths)
  for (const { path, openRun } of seen)
    if (openRun !== undefined)
      ctx.out.note(
        `${path}: run ${openRun} is open and is finished as it was begun; then what is in ` +
          'grace is ended: once more for a new value',
      )
  const fresh = seen.filter(({ openRun }) => openRun === undefined)
  if (fresh.length === 0) return droppedBy({ forceValue })
  return droppedBy({
    emergency: options.emergency === true,
    revokeFirst: options.revokeFirst === true,
    leaked: given.leaked,
    forceValue,
    livesOn: fresh.filter(({ old }) => old === 'lives on').map(({ path }) => path),
    nothingEnds: fresh.every(({ old }) => old !== 'ends'),
  })
}

/**
 * Throws `usage` where `--plan` stands beside something that a plan does not cover: it is
 * the plan of one secret, rotated by its provider as its schedule says.
 */
function plainOnly(options: Options, paths: number, supplied: boolean): void {
  if (!/^[0-9a-f]{16}$/.test(options.plan ?? ''))
    throw usage('--plan takes the hash that rotate plan prints: 16 hex digits')
  if (paths > 1) throw usage('--plan is the hash of one plan; name one secret')
  const other =
    options.grace !== undefined
      ? '--grace'
      : options.emergency === true
        ? '--emergency'
        : options.revokeFirst === true
          ? '--revoke-first'
          : options.leaked !== undefined
            ? '--leaked'
            : supplied
              ? 'a given value'
              : undefined
  if (other !== undefined)
    throw usage(`${other} changes what is done, so it can not be combined with --plan`)
}

async function rotateOrEnd(
  ctx: Context,
  leaked: Secret | undefined,
  input: RotateInput,
  progress: (event: Progress) => void,
): Promise<RotateOutcome> {
  const deps = await ctx.deps()
  if (leaked === undefined)
    return (await import('../../app/rotation/rotate.ts')).rotate(deps, input, progress)
  const { endLeaked } = await import('../../app/rotation/leaked.ts')
  const [path = ''] = input.paths
  return endLeaked(
    deps,
    { path, value: leaked, ...(input.revokeFirst === true ? { revokeFirst: true } : {}) },
    progress,
  )
}

async function leakedValue(
  ctx: Context,
  options: Options,
  paths: number,
  supplied: boolean,
): Promise<Secret> {
  if (options.leaked !== '-')
    throw usage('--leaked reads the value from stdin only', 'rotate now PATH --leaked -')
  if (supplied || options.input !== undefined)
    throw usage('--leaked says which value leaked; a new one can not be given with it')
  if (paths > 1) throw usage('--leaked looks at one secret at a time')
  const wanted = {
    what: 'the leaked value on stdin',
    question: 'Leaked value',
    extent: 'line',
    otherwise: 'pipe it into --leaked -',
  } as const
  const value = chomp(await ctx.input.stdin(wanted))
  if (value.size === 0) throw usage('--leaked: the value is empty')
  return value
}

async function suppliedValue(
  ctx: Context,
  stdin: boolean,
  options: Options,
): Promise<Supplied | undefined> {
  if (options.input !== undefined) {
    const otherwise = 'pipe it in, or name a file: --input F'
    const text =
      options.input === '-'
        ? await ctx.input.stdin({
            what: 'the JSON on stdin',
            question: 'JSON for --input',
            extent: 'text',
            otherwise,
          })
        : await ctx.input.file(options.input, '--input')
    return fromJson(text)
  }
  const given = await readValue(ctx, stdin ? '-' : undefined, options, {
    piped: false,
    demand: false,
  })
  return given === undefined ? undefined : { fields: given.fields, merge: given.merge }
}

/**
 * Reads a given value in either of two forms: `{"new_value"}` alone, or
 * `{"newValue","expiresAt","metadata"}`, which is also what a web hook of the provider
 * `custom` answers.
 */
function fromJson(text: Secret): Supplied {
  const what = '--input'
  const body = parseJsonObject(text.reveal(), what)
  const { new_value, newValue, expiresAt, metadata, ...others } = body
  const unknown = Object.keys(others)[0]
  if (unknown !== undefined)
    throw usage(
      `${what}: unknown key in the JSON`,
      'allowed are new_value, or newValue with expiresAt and metadata',
    )
  if (new_value !== undefined && newValue !== undefined)
    throw usage(`${what}: give new_value or newValue, not both`)
  const value = new_value ?? newValue
  if (typeof value !== 'string' || value === '')
    throw usage(
      `${what}: "${new_value === undefined ? 'newValue' : 'new_value'}" must be a text that ` +
        'is not empty',
    )
  if (expiresAt !== undefined && typeof expiresAt !== 'string')
    throw usage(`${what}: "expiresAt" must be a date`)
  return {
    fields: single(new Secret(value)),
    ...(expiresAt === undefined
      ? {}
      : { expiresAt: parseInstant(expiresAt, `${what}: expiresAt`) }),
    ...(metadata === undefined ? {} : { metadata: texts(metadata, what) }),
  }
}

function texts(metadata: unknown, what: string): Readonly<Record<string, string>> {
  if (metadata === null || typeof metadata !== 'object' || Array.isArray(metadata))
    throw usage(`${what}: "metadata" must be an object of texts`)
  for (const item of Object.values(metadata))
    if (typeof item !== 'string') throw usage(`${what}: "metadata" must be an object of texts`)
  return metadata as Record<string, string>
}

async function showPlans(ctx: Context, paths: readonly string[]): Promise<void> {
  const { planOf } = await import('../../app/rotation/plan.ts')
  const { showPlan } = await import('../render/plan.ts')
  const deps = await ctx.deps({ readonly: true })
  const plans = []
  for (const path of paths) plans.push(await planOf(deps, path))
  ctx.out.data({ plan: plans })
  for (const plan of plans) await showPlan(ctx, plan)
}
