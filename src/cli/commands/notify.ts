/** `notify …`: who is told what happened. */
import type { NotifierView } from '../../app/notices/notifiers.ts'
import { usage } from '../../core/errors.ts'
import type { Context } from '../context.ts'
import type { Register } from '../command.ts'
import { jsonOption } from './schedule.ts'

export const notify: Register = (parent, run) => {
  const group = parent
    .command('notify')
    .helpGroup('Adapters:')
    .summary('who is told what happened')
    .description(
      'Notifiers tell people and programs what happened: warnings before a rotation, its ' +
        'start, success, failure, undoing, the end of the old key, and runs that wait for a ' +
        'person. Schedules name them with --notify. A notifier that is down never holds up a ' +
        'rotation; it is told later.',
    )

  group
    .command('set')
    .summary('create or replace a notifier')
    .description(
      'Creates a notifier, or replaces its configuration. Secrets in it are sealed at ' +
        'once.\n\nExamples:\n' +
        '  rotate notify set ops --config @slack.json          # ' +
        '{"type":"slack","url":"https://hooks.slack.com/services/…"}\n' +
        '  rotate notify set owners --config @email.json       # ' +
        '{"type":"email","smtp":{"host":"mail.example.com"},"from":"…","to":["…"]}\n' +
        '  rotate notify set hook --config @hook.json          # ' +
        '{"type":"webhook","url":"https://…","secret":"whsec_…"}',
    )
    .argument('<name>', 'its name, for schedule set --notify')
    .requiredOption('--config <json>', 'JSON with "type", @FILE, or - for stdin')
    .action(
      run(async (ctx, name: string, options: { readonly config: string }) => {
        const config = await jsonOption(ctx, options.config, '--config', true)
        const { setNotifier } = await import('../../app/notices/notifiers.ts')
        show(ctx, await setNotifier(await ctx.deps(), nameOf(name), config))
      }),
    )

  group
    .command('list')
    .alias('ls')
    .summary('all notifiers')
    .description(
      'All notifiers; where they tell, and what is wrong with one that can not be ' +
        'reached.\n\nExample:\n  rotate notify list',
    )
    .action(
      run(async (ctx) => {
        const { listNotifiers } = await import('../../app/notices/notifiers.ts')
        const notifiers = await listNotifiers(await ctx.deps({ readonly: true }))
        ctx.out.data({ notifiers })
        if (notifiers.length === 0)
          ctx.out.note('no notifiers; make one with: rotate notify set NAME --config …')
        else
          await ctx.out.table(
            ['NAME', 'TYPE', 'TO', 'STATE'],
            notifiers.map(({ name, type, to, lastError }) => [name, type, to, lastError ?? 'ok']),
          )
      }),
    )

  group
    .command('rm')
    .alias('remove')
    .summary('remove a notifier')
    .description(
      'Removes a notifier. One that schedules name is kept, unless --force takes it out of ' +
        'them.\n\nExample:\n  rotate notify rm ops',
    )
    .argument('<name>', 'which one')
    .option('--force', 'also take it out of the schedules that name it')
    .action(
      run(async (ctx, name: string, options: { readonly force?: true }) => {
        const { removeNotifier } = await import('../../app/notices/notifiers.ts')
        const schedules = await removeNotifier(
          await ctx.deps(),
          nameOf(name),
          options.force === true,
        )
        ctx.out.data({ name, removed: true, schedules })
        ctx.out.line(`${name} removed`)
      }),
    )

  group
    .command('test')
    .summary('send a test notice now')
    .description(
      'Sends a notice that says that it is a test. Exit 25 when it does not get ' +
        'through.\n\nExample:\n  rotate notify test ops',
    )
    .argument('<name>', 'which one')
    .action(
      run(async (ctx, name: string) => {
        const { testNotifier } = await import('../../app/notices/notifiers.ts')
        const notifier = await testNotifier(await ctx.deps({ readonly: true }), nameOf(name))
        ctx.out.data({ ...notifier, ok: true })
        ctx.out.line(`${notifier.name}: sent (${notifier.type}, ${notifier.to})`)
      }),
    )
}

function show(ctx: Context, notifier: NotifierView): void {
  ctx.out.data(notifier)
  ctx.out.line(`${notifier.name}  ${notifier.type}, ${notifier.to}`)
  ctx.out.note(`try it: rotate notify test ${notifier.name}`)
}

function nameOf(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(text) || text === 'none')
    throw usage(
      "a notifier's name has letters, digits and _ . -, begins with a letter or digit, and " +
        'is not "none"',
    )
  return text
}
