import type { SetInput } from '../../app/secrets/set.ts'
import type { SecretType, Tier } from '../../core/model.ts'
import { parseName } from '../../app/base/lookup.ts'
import { usage } from '../../core/errors.ts'
import { collect, parseCount, parsePairs, parseTags, tierOption, typeOption } from '../options.ts'
import type { Register } from '../command.ts'
import { setData } from '../render/shapes.ts'
import { addValueFlags, readValue, type ValueOptions } from '../value-flags.ts'
import { pickDefined } from '../../core/defined.ts'

interface Options extends ValueOptions {
  readonly type?: SecretType
  readonly tier?: Tier
  readonly meta?: readonly string[]
  readonly tag?: readonly string[]
  readonly ifVersion?: string
  readonly note?: string
  readonly force?: boolean
}

export const set: Register = (parent, run) => {
  const command = parent
    .command('set')
    .helpGroup('Secrets:')
    .summary('store a value: a new secret, or a new version of one')
    .description(
      'Stores a value as a new version and makes it current. Nothing is delivered, checked or ' +
        'revoked: rotate deliver hands it to the targets, rotate now does all of it.\n\n' +
        'Examples:\n' +
        '  printf %s "$KEY" | rotate set production/gemini/GEMINI_API_KEY --type api_key\n' +
        '  rotate set production/db/APP_PASSWORD --generate\n' +
        '  rotate set production/aws/DEPLOY --type aws_access_key --field accessKeyId=AKIA… ' +
        '--field secretAccessKey=@-',
    )
    .argument('<path>', 'name of the secret, such as production/gemini/GEMINI_API_KEY')
    .argument(
      '[value]',
      '- for stdin (a terminal asks, unseen); a value here can be seen by other processes, so ' +
        'it warns',
    )
  addValueFlags(command)
    .addOption(typeOption())
    .addOption(tierOption())
    .option('--meta <key=value>', 'a note to keep beside it; KEY= removes one', collect)
    .option('--tag <tag>', 'a word to find it by', collect)
    .option(
      '--if-version <n>',
      'only if N is the current version; 0: only if there is no value yet',
    )
    .option('--note <text>', 'why this version exists')
    .option('--force', 'store a value that was revoked, or one value where there were fields')
    .action(
      run(async (ctx, path: string, positional: string | undefined, options: Options) => {
        const name = parseName(path)
        const settings = toInput(options)
        const given = await readValue(ctx, positional, options, { piped: true, demand: true })
        if (given === undefined) throw usage('no value was given')
        const deps = await ctx.deps()
        const { setSecret } = await import('../../app/secrets/set.ts')
        const dryRun = ctx.globals.dryRun
        const result = await setSecret(deps, { ...settings, name, ...given, dryRun })
        if (dryRun) ctx.out.note('dry run: nothing was stored')
        if (result.outcome === 'unchanged')
          ctx.out.note(
            `already so: ${result.secret.path} has this value since version ${result.version.n}`,
          )
        if (result.restored) ctx.out.note(`${result.secret.path} had been deleted and is back`)
        if (result.secret.schedule !== undefined && !dryRun) {
          const { scheduleFault } = await import('../../app/schedules/schedule-faults.ts')
          const fault = await scheduleFault(deps, result.secret)
          if (fault !== undefined)
            ctx.out.warn(`the next rotation will be refused: ${fault.why}; ${fault.hint}`)
        }
        const targets = result.secret.schedule?.targets ?? []
        if (targets.length > 0 && !dryRun)
          ctx.out.note(
            'nothing was delivered; ' +
              `${targets.length === 1 ? 'its target' : `its ${targets.length} targets`}: ` +
              `rotate where ${result.secret.path}, and then: rotate deliver ` +
              `${result.secret.path}`,
          )
        ctx.out.data({ ...setData(result), ...(dryRun ? { dryRun } : {}) })
        ctx.out.line(`${result.secret.path} version ${result.version.n}`)
      }),
    )
}

function toInput(options: Options): Omit<SetInput, 'name' | 'fields' | 'merge' | 'source'> {
  const { type, tier, note } = options
  if (note !== undefined && (note.length > 500 || /[\0-\x1f\x7f]/.test(note)))
    throw usage('--note must be at most 500 characters without control characters')
  return {
    metadata: parsePairs(options.meta, '--meta'),
    tags: parseTags(options.tag),
    force: options.force ?? false,
    ...pickDefined({ type, tier, note }),
    ...(options.ifVersion === undefined
      ? {}
      : { ifVersion: parseCount(options.ifVersion, '--if-version', 0, 999_999_999) }),
  }
}
