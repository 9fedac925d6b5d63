/** `rm`, `restore` and `mv`. */
import { parseName } from '../../app/base/lookup.ts'
import { iso, isoOrNull } from '../../core/duration.ts'
import { currentVersion } from '../../core/model.ts'
import { parsePath } from '../../core/names.ts'
import type { Register } from '../command.ts'

interface RemoveOptions {
  readonly purge?: boolean
  readonly force?: boolean
}

export const rm: Register = (parent, run) => {
  parent
    .command('rm')
    .helpGroup('Secrets:')
    .summary('delete a secret; it can be restored for 30 days')
    .description(
      'Deletes a secret. It can be brought back for 30 days with: rotate restore. --purge ' +
        'removes it and its values for good.',
    )
    .argument('<path>', 'name of the secret, or its id')
    .option('--purge', 'for good; asks, or needs --yes')
    .option('--force', 'even if other secrets refer to it or it has live keys')
    .action(
      run(async (ctx, path: string, options: RemoveOptions) => {
        const { dryRun } = ctx.globals
        const input = { name: parseName(path), force: options.force ?? false, dryRun }
        const { droppedBy, tellDropped } = await import('../overrides.ts')
        const purge = options.purge === true && !dryRun
        const dropped = droppedBy({ purge, forcePurge: purge && options.force === true })
        tellDropped(ctx, dropped, 'before')
        if (purge) await ctx.input.confirm(`Remove ${path} and all its values for good?`, true)
        const deps = await ctx.deps()
        const { purgeAt, purgeSecret, removeSecret } = await import('../../app/secrets/remove.ts')
        if (dryRun) ctx.out.note('dry run: nothing was deleted')
        if (options.purge === true) {
          const secret = await purgeSecret(deps, input)
          ctx.out.data({ path: secret.path, purged: true, ...(dryRun ? { dryRun } : {}) })
          ctx.out.line(`${secret.path} ${dryRun ? 'would be purged' : 'purged'}`)
          tellDropped(ctx, dropped, 'after')
          return
        }
        const { secret, already } = await removeSecret(deps, input)
        const until = purgeAt(secret)
        ctx.out.data({
          path: secret.path,
          deletedAt: isoOrNull(secret.deletedAt),
          purgeAt: isoOrNull(until),
          ...(dryRun ? { dryRun } : {}),
        })
        if (dryRun && !already)
          ctx.out.line(`${secret.path} would be deleted, and could be restored for thirty days`)
        else
          ctx.out.line(
            `${secret.path} ${already ? 'was deleted already' : 'deleted'}; until ` +
              `${ctx.times.when(until)}: rotate restore ${secret.path}`,
          )
      }),
    )
}

export const restore: Register = (parent, run) => {
  parent
    .command('restore')
    .helpGroup('Secrets:')
    .summary('bring a deleted secret back')
    .description('Brings a deleted secret back with its versions and its schedule.')
    .argument('<path>', 'name of the secret, or its id')
    .action(
      run(async (ctx, path: string) => {
        const name = parseName(path)
        const deps = await ctx.deps()
        const { restoreSecret } = await import('../../app/secrets/remove.ts')
        const { secret, already } = await restoreSecret(deps, { name, dryRun: ctx.globals.dryRun })
        if (ctx.globals.dryRun) ctx.out.note('dry run: nothing was restored')
        const version = currentVersion(secret)?.n ?? null
        const { dryRun } = ctx.globals
        ctx.out.data({
          id: secret.id,
          path: secret.path,
          version,
          updatedAt: iso(secret.updatedAt),
          ...(dryRun ? { dryRun } : {}),
        })
        const done = dryRun ? 'would be restored' : 'restored'
        ctx.out.line(
          already
            ? `${secret.path} is not deleted`
            : `${secret.path} ${done}, version ${version ?? 'none yet'}`,
        )
      }),
    )
}

export const mv: Register = (parent, run) => {
  parent
    .command('mv')
    .helpGroup('Secrets:')
    .summary('rename a secret')
    .description(
      'Renames a secret. Versions, schedule and id stay; configurations that name it follow. ' +
        'Names at targets do not change.',
    )
    .argument('<from>', 'name of the secret, or its id')
    .argument('<to>', 'its new name')
    .action(
      run(async (ctx, from: string, to: string) => {
        const input = { from: parseName(from), to: parsePath(to), dryRun: ctx.globals.dryRun }
        const deps = await ctx.deps()
        const { moveSecret } = await import('../../app/secrets/remove.ts')
        const moved = await moveSecret(deps, input)
        if (ctx.globals.dryRun) ctx.out.note('dry run: nothing was renamed')
        const { dryRun } = input
        ctx.out.data({
          id: moved.secret.id,
          from: moved.from,
          path: moved.secret.path,
          references: moved.followed,
          ...(dryRun ? { dryRun } : {}),
        })
        if (moved.followed.length > 0)
          ctx.out.note(
            `references ${dryRun ? 'would follow' : 'followed'} in ${moved.followed.join(', ')}`,
          )
        ctx.out.line(`${moved.from} ${dryRun ? 'would become' : 'is now'} ${moved.secret.path}`)
      }),
    )
}
