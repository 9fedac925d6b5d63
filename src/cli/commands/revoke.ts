/**
 * `revoke` ends old keys, `adopt` records a key at the provider, `check` tries the value.
 */
import { iso } from '../../core/duration.ts'
import { RotateError } from '../../core/errors.ts'
import { parseName, parseVersion } from '../../app/base/lookup.ts'
import type { Register } from '../command.ts'
import { finish } from '../finish.ts'
import { pickDefined } from '../../core/defined.ts'

export const revoke: Register = (parent, run) => {
  parent
    .command('revoke')
    .helpGroup('Rotation:')
    .summary('end the grace of an old value now')
    .description(
      'Ends old versions now instead of at the end of their grace. The current version is ' +
        'never touched, and must be proven to work first; --force leaves out only the check ' +
        'whether the old one is still in use.\n\nExample:\n  rotate revoke ' +
        'production/aws/DEPLOY_KEY',
    )
    .argument('<path>', 'which secret')
    .option('--version <n>', 'which version; default every old one that is still alive')
    .option('--force', 'also when the provider saw the old one in use since it was replaced')
    .action(
      run(async (ctx, path: string, options: { version?: string; force?: true }) => {
        const use = await import('../../app/rotation/revoke.ts')
        const version = options.version === undefined ? undefined : parseVersion(options.version)
        const { droppedBy, tellDropped } = await import('../overrides.ts')
        const dropped = droppedBy({ revoke: true, forceRevoke: options.force === true })
        tellDropped(ctx, dropped, 'before')
        const outcome = await use.revoke(await ctx.deps(), {
          path: parseName(path),
          force: options.force === true,
          ...pickDefined({ version }),
        })
        const ended = outcome.results.filter(
          (result) => result.state !== 'held' && result.state !== 'waiting',
        )
        ctx.out.data({
          revoked: ended.map((result) => ({
            version: result.version,
            hint: result.hint,
            at: iso(result.at),
            state: result.state,
          })),
        })
        for (const result of ended)
          ctx.out.line(
            `${outcome.path} version ${result.version} (${result.hint}) ${result.state}: ` +
              `${result.detail}`,
          )
        tellDropped(ctx, dropped, 'after')
        await finish(ctx, outcome.failure)
      }),
    )
}

export const adopt: Register = (parent, run) => {
  parent
    .command('adopt')
    .helpGroup('Rotation:')
    .summary('record that a key at the provider is ours')
    .description(
      'Records that a key at the provider belongs to a version of this secret, so that its ' +
        'end can be the provider’s. Only recorded keys are ever revoked.\n\nExample:\n  rotate ' +
        'adopt production/aws/DEPLOY_KEY --key-id AKIA…',
    )
    .argument('<path>', 'which secret')
    .requiredOption('--key-id <id>', 'the key as the provider names it')
    .action(
      run(async (ctx, path: string, options: { keyId: string }) => {
        const use = await import('../../app/rotation/revoke.ts')
        const keys = await use.adopt(await ctx.deps(), {
          path: parseName(path),
          keyId: options.keyId,
        })
        ctx.out.data({ keys })
        await ctx.out.table(
          ['KEY', 'WHOSE', 'STATE', 'WHAT HAPPENS TO IT'],
          keys.map((key) => [key.id, key.owner, key.state, key.action]),
        )
      }),
    )
}

export const check: Register = (parent, run) => {
  parent
    .command('check')
    .helpGroup('Rotation:')
    .summary('does the current value work?')
    .description(
      'Asks the provider and runs every configured check now, with the current value or ' +
        'another version. Changes nothing; exit 25 when one is red.\n\nExample:\n  rotate check ' +
        'production/aws/DEPLOY_KEY',
    )
    .argument('<path>', 'which secret')
    .option('--version <n>', 'another version')
    .action(
      run(async (ctx, path: string, options: { version?: string }) => {
        const use = await import('../../app/adapters/check.ts')
        const version = options.version === undefined ? undefined : parseVersion(options.version)
        const name = parseName(path)
        const report = await use.check(await ctx.deps({ readonly: true }), {
          path: name,
          ...pickDefined({ version }),
        })
        ctx.out.data(report)
        for (const result of report.checks)
          ctx.out.line(`${result.ok ? 'ok  ' : 'fail'} ${result.name}  ${result.detail}`)
        if (report.checks.length === 0)
          ctx.out.note('nothing to ask: no check is configured and the provider can not verify')
        if (!report.ok) {
          const red = report.checks.filter((result) => !result.ok)
          throw new RotateError(
            'unhealthy',
            `${red.length} of ${report.checks.length} checks are red: ${red[0]?.name ?? ''}: ` +
              `${red[0]?.detail ?? ''}`,
            { hint: `rotate show ${name}`, details: { red: red.map((result) => result.name) } },
          )
        }
      }),
    )
}
