import { findAny, parseName } from '../../app/base/lookup.ts'
import { endingOf } from '../../app/base/standing.ts'
import type { VersionRecord } from '../../core/model.ts'
import type { Context } from '../context.ts'
import type { Register } from '../command.ts'
import { versionItem } from '../render/shapes.ts'

/**
 * What will happen to an old version, and what has come of it, in a few words. Nothing is
 * called done that is only due.
 */
export function fateOf(ctx: Pick<Context, 'times' | 'clock'>, version: VersionRecord): string {
  const { times, clock } = ctx
  const ending = endingOf(version, clock.now())
  if (ending !== undefined) {
    const { state, at, lastError, retryAt } = ending
    const tried = lastError === undefined ? '' : `, last try failed: ${lastError}`
    const again = retryAt === undefined ? '' : `; tried again ${times.when(retryAt)}`
    if (state === 'overdue') return `end due since ${times.when(at)}${tried}${again}`
    if (state === 'quarantine') return `switched off, to be deleted ${times.when(at)}${tried}`
    return `to be ${version.revocable ? 'revoked' : 'retired'} ${times.when(at)}${tried}`
  }
  if (version.endedAt !== undefined) return `ended ${times.when(version.endedAt)}`
  return version.expiresAt === undefined ? '' : `expires ${times.when(version.expiresAt)}`
}

export const versions: Register = (parent, run) => {
  parent
    .command('versions')
    .helpGroup('Secrets:')
    .summary('all versions of a secret')
    .description(
      'Lists the versions of a secret, newest first: where each came from, whether it is ' +
        'alive, and when it ends.',
    )
    .argument('<path>', 'name of the secret, or its id')
    .action(
      run(async (ctx, path: string) => {
        const name = parseName(path)
        const deps = await ctx.deps({ readonly: true })
        const secret = await deps.vault.read((reader) => findAny(reader, name))
        const newestFirst = secret.versions.toReversed()
        ctx.out.data({ versions: newestFirst.map(versionItem) })
        if (newestFirst.length === 0) {
          ctx.out.note(`${secret.path} has no value yet`)
          return
        }
        await ctx.out.table(
          ['VERSION', 'LABEL', 'STATE', 'KEY', 'CREATED', 'BY', 'FROM', 'FATE'],
          newestFirst.map((version) => [
            String(version.n),
            version.labels.join(' ') || '-',
            version.state,
            version.hint,
            ctx.times.when(version.createdAt),
            version.createdBy,
            version.source,
            fateOf(ctx, version),
          ]),
        )
      }),
    )
}
