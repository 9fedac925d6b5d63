/** `reconcile`: does the world agree with the vault? */
import { parseName } from '../../app/base/lookup.ts'
import type { Register } from '../command.ts'

export const reconcile: Register = (parent, run) => {
  parent
    .command('reconcile')
    .helpGroup('Rotation:')
    .summary('compare the vault with what exists at the providers')
    .description(
      'Lists the keys at each provider and says whose they are; where a provider can not ' +
        'list, the current value is verified. Reads only.\n' +
        'After a restore, copy or move of the vault nothing is revoked until this has looked ' +
        'at every scheduled secret: with --apply, and when nothing contradicts, the vault is ' +
        'trusted again.\n\n' +
        'Examples:\n  rotate reconcile production/aws/DEPLOY_KEY\n  rotate reconcile --apply',
    )
    .argument('[path]', 'only this secret')
    .option('--apply', 'when all agrees, trust this vault here from now on')
    .action(
      run(async (ctx, path: string | undefined, options: { readonly apply?: true }) => {
        const use = await import('../../app/rotation/reconcile.ts')
        const apply = options.apply === true && !ctx.globals.dryRun
        const deps = await ctx.deps(apply ? {} : { readonly: true })
        const outcome = await use.reconcile(deps, {
          apply,
          ...(path === undefined ? {} : { path: parseName(path) }),
        })
        ctx.out.data({
          keys: outcome.keys,
          looked: outcome.looked,
          open: outcome.open,
          trusted: outcome.trusted,
        })
        if (outcome.keys.length > 0)
          await ctx.out.table(
            ['SECRET', 'KEY', 'WHOSE', 'STATE', 'WHAT HAPPENS TO IT'],
            outcome.keys.map((key) => [key.path, key.id, key.owner, key.state, key.action]),
          )
        for (const line of outcome.open) ctx.out.line(`open: ${line}`)
        if (outcome.open.length > 0) throw use.disagreement(outcome)
        if (!outcome.before.trusted && outcome.trusted)
          ctx.out.line(`${outcome.looked} secrets agree: this vault is trusted here from now on`)
        else if (!outcome.trusted)
          ctx.out.note(
            path === undefined
              ? 'nothing contradicts; to trust this vault here: rotate reconcile --apply'
              : 'to trust this vault here, look at all of it: rotate reconcile --apply',
          )
      }),
    )
}
