import { Option } from 'commander'
import type { SecretType, Tier } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import {
  lastRotatedAt,
  nextRotationAt,
  type SecretStanding,
  secretStandings,
} from '../../app/base/standing.ts'
import { tierOption, typeOption } from '../options.ts'
import type { Register } from '../command.ts'
import { listItem } from '../render/shapes.ts'

interface Options {
  readonly type?: SecretType
  readonly tier?: Tier
  readonly tag?: string
  readonly status?: SecretStanding
}

export const list: Register = (parent, run) => {
  parent
    .command('list')
    .alias('ls')
    .helpGroup('Secrets:')
    .summary('what there is; never values')
    .description(
      'Lists secrets, never values.\n\nExamples:\n  rotate list production\n  rotate list ' +
        "'production/**' --tier critical --json",
    )
    .argument('[sel...]', "names, prefixes or globs such as 'production/**'")
    .addOption(typeOption())
    .addOption(tierOption())
    .option('--tag <tag>', 'only those with this tag')
    .addOption(new Option('--status <status>', 'only those that stand so').choices(secretStandings))
    .action(
      run(async (ctx, selectors: readonly string[], options: Options) => {
        const { listSecrets } = await import('../../app/secrets/list.ts')
        const secrets = await listSecrets(await ctx.deps({ readonly: true }), {
          selectors,
          ...options,
        })
        if (ctx.globals.json) {
          ctx.out.data({
            secrets: secrets.map(({ secret, standing }) => listItem(secret, standing)),
          })
          return
        }
        if (secrets.length === 0) {
          ctx.out.note(
            selectors.length === 0
              ? 'no secrets yet; store one with: rotate set PATH'
              : 'nothing matches',
          )
          return
        }
        await ctx.out.table(
          ['PATH', 'VERSION', 'TYPE', 'TIER', 'STATUS', 'CHANGED', 'NEXT ROTATION'],
          secrets.map(({ secret, standing }) => {
            const last = lastRotatedAt(secret)
            return [
              secret.path,
              String(currentVersion(secret)?.n ?? '-'),
              secret.type,
              secret.tier,
              standing,
              last === null ? '-' : ctx.times.relative(last),
              ctx.times.when(nextRotationAt(secret)),
            ]
          }),
        )
      }),
    )
}
