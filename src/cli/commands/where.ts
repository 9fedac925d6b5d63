import { parseName } from '../../app/base/lookup.ts'
import type { Register } from '../command.ts'

export const where: Register = (parent, run) => {
  parent
    .command('where')
    .helpGroup('Looking back:')
    .summary('which target holds which version')
    .description(
      'Asks every target which version it holds, by fingerprint; values are never ' +
        'shown.\n\nExample:\n  rotate where production/aws/DEPLOY_KEY',
    )
    .argument('<path>', 'which secret')
    .action(
      run(async (ctx, path: string) => {
        const use = await import('../../app/delivery/where.ts')
        const { targets, stray } = await use.where(
          await ctx.deps({ readonly: true }),
          parseName(path),
        )
        ctx.out.data({
          targets: targets.map(({ name, version, state }) => ({ name, version, state })),
        })
        if (targets.length === 0) ctx.out.note('no targets are configured')
        else {
          await ctx.out.table(
            ['TARGET', 'VERSION', 'STATE', ''],
            targets.map((target) => [
              target.name,
              target.version === null ? '-' : String(target.version),
              target.state,
              target.detail,
            ]),
          )
          if (stray !== undefined) ctx.out.note(stray)
        }
      }),
    )
}
