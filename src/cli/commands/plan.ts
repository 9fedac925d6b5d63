import { RotateError } from '../../core/errors.ts'
import { isGlob, selector } from '../../core/names.ts'
import { parseName } from '../../app/base/lookup.ts'
import type { Register } from '../command.ts'

export const plan: Register = (parent, run) => {
  parent
    .command('plan')
    .helpGroup('Rotation:')
    .summary('what a rotation would do; changes nothing')
    .description(
      'Every step, call, target and outage that a rotation would make. Reads ' +
        'only.\n\nExamples:\n  rotate plan production/aws/DEPLOY_KEY\n  rotate plan ' +
        "'production/**'",
    )
    .argument('[sel...]', 'paths or globs; without one every scheduled secret')
    .action(
      run(async (ctx, words: readonly string[]) => {
        const { planOf } = await import('../../app/rotation/plan.ts')
        const { showPlan } = await import('../render/plan.ts')
        const deps = await ctx.deps({ readonly: true })
        const paths: string[] = []
        const globs = words.filter(isGlob).map(selector)
        for (const word of words) if (!isGlob(word)) paths.push(parseName(word))
        if (globs.length > 0 || words.length === 0) {
          for await (const secret of deps.vault.secrets()) {
            if (
              secret.deletedAt === undefined &&
              secret.schedule !== undefined &&
              (words.length === 0 || globs.some((matches) => matches(secret.path)))
            )
              paths.push(secret.path)
          }
          if (paths.length === 0 && words.length > 0)
            throw new RotateError('not-found', 'no scheduled secret matches', {
              hint: 'rotate schedule list',
            })
        }
        const plans = []
        for (const path of paths.toSorted()) plans.push(await planOf(deps, path))
        ctx.out.data({ plan: plans })
        for (const each of plans) await showPlan(ctx, each)
      }),
    )
}
