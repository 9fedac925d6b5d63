import { resolve } from 'node:path'
import { Option } from 'commander'
import { guessFormat, type ImportFormat, importFormats } from '../../app/secrets/import-parse.ts'
import { usage } from '../../core/errors.ts'
import type { SecretType, Tier } from '../../core/model.ts'
import { parsePath } from '../../core/names.ts'
import { tierOption, typeOption } from '../options.ts'
import type { Register } from '../command.ts'
import { pickDefined } from '../../core/defined.ts'

/** Largest file that is taken in one go. */
const MAX_FILE = 256 * 1024 * 1024

interface Options {
  readonly format: ImportFormat | 'auto'
  readonly into?: string
  readonly allowEmpty?: boolean
  readonly type?: SecretType
  readonly tier?: Tier
}

export const importCommand: Register = (parent, run) => {
  parent
    .command('import')
    .helpGroup('Secrets:')
    .summary('store many values from a file')
    .description(
      'Stores all values of a file. Everything is checked first: a bad line or a name that ' +
        'comes twice refuses the whole file.\n\n' +
        'Examples:\n  rotate import .env --into production/app\n  rotate import - --format ' +
        'json < secrets.json',
    )
    .argument('<file>', 'the file, or - for stdin')
    .addOption(
      new Option('--format <format>', 'how it is written')
        .choices(['auto', ...importFormats])
        .default('auto'),
    )
    .option('--into <prefix>', 'put this in front of every name')
    .option('--allow-empty', 'accept empty values')
    .addOption(typeOption())
    .addOption(tierOption())
    .action(
      run(
        async (ctx, file: string, options: Options) => {
          const { dryRun } = ctx.globals
          const into = options.into === undefined ? undefined : parsePath(options.into)
          const source =
            file === '-'
              ? await ctx.input.stdin({
                  what: 'the file on stdin',
                  question: 'File to import',
                  extent: 'text',
                  limit: MAX_FILE,
                  otherwise: 'pipe it in, or name a file',
                })
              : await ctx.input.file(resolve(ctx.host.cwd, file), 'import', { limit: MAX_FILE })
          if (!source.isText()) throw usage('the file is not valid UTF-8')
          const text = source.reveal()
          const format = options.format === 'auto' ? guessFormat(file, text) : options.format
          const { parseImport } = await import('../../app/secrets/import-parse.ts')
          const entries = await parseImport(text, format, {
            into,
            allowEmpty: options.allowEmpty ?? false,
          })
          const { importSecrets } = await import('../../app/secrets/import.ts')
          const { type, tier } = options
          const counts = await importSecrets(await ctx.deps(), {
            entries,
            dryRun,
            ...pickDefined({ type, tier }),
          })
          if (dryRun) ctx.out.note('dry run: nothing was stored')
          ctx.out.data({ ...counts, ...(dryRun ? { dryRun } : {}) })
          ctx.out.line(
            `${dryRun ? 'would be: ' : ''}${counts.created} created, ${counts.updated} ` +
              `updated, ${counts.skipped} unchanged`,
          )
          if (file !== '-' && !dryRun && entries.length > 0)
            ctx.out.note(`the values still stand in ${file}; remove it when you no longer need it`)
        },
        { graceful: true },
      ),
    )
}
