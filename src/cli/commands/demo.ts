/** `demo`: the whole loop with nothing external. */
import type { Shown } from '../../app/demo/demo.ts'
import { RotateError, usage } from '../../core/errors.ts'
import type { Context } from '../context.ts'
import type { Register } from '../command.ts'

export const demo: Register = (parent, run) => {
  parent
    .command('demo')
    .helpGroup('Start:')
    .summary('a complete rotation, nothing external needed')
    .description(
      'Plays a complete rotation against a small service on this machine that really refuses ' +
        'a revoked key, in a throw-away vault. It runs the same commands that you would and ' +
        'prints each.\n\nExamples:\n  rotate demo\n  rotate demo --break check      # a check ' +
        'fails: everything is undone, exit 20\n  rotate demo --keep ./demo      # leaves the ' +
        'vault and the files to play with',
    )
    .option('--break <what>', 'let something fail: check')
    .option('--keep <dir>', 'put everything there and leave it')
    .option('--serve <dir>', 'only start the service of a demo that was kept')
    .action(
      run(
        async (ctx, options: { break?: string; keep?: string; serve?: string }) => {
          if (options.break !== undefined && options.break !== 'check')
            throw usage('--break knows only: check')
          if (options.serve !== undefined) return serve(ctx, options.serve)
          const { demo: play } = await import('../../app/demo/demo.ts')
          const { host } = ctx
          const result = await play(
            {
              breakCheck: options.break === 'check',
              keep: options.keep,
              self: host.self,
              path: host.env['PATH'] ?? '/usr/bin:/bin',
              clock: ctx.clock,
              random: host.random,
              signal: ctx.signal,
            },
            (shown) => print(ctx, shown),
          )
          ctx.out.data(result.run)
          if (!result.ok)
            throw new RotateError(
              'failed',
              `the demo did not go as it should: ${result.faults.join('; ')}`,
              {
                hint: 'please report this with the output above',
              },
            )
          if (options.break === 'check') {
            throw new RotateError(
              'rolled-back',
              'the check was red, so everything was undone, as it should be: the old key is ' +
                'current and works',
              {
                hint: 'rotate demo shows the rotation that succeeds',
                ...(result.run.runId === null ? {} : { runId: result.run.runId }),
              },
            )
          }
          ctx.out.line(
            'The old key is refused, the new one is accepted, nothing was down in between.',
          )
        },
        { graceful: true },
      ),
    )
}

function print(ctx: Context, shown: Shown): void {
  const { out } = ctx
  switch (shown.kind) {
    case 'heading':
      out.line()
      out.line({ text: shown.text, style: 'bold' })
      return
    case 'command':
      out.line({ text: `$ ${shown.text}`, style: 'cyan' })
      return
    case 'fact':
      out.line(`  ${shown.text}`)
      return
    case 'output':
      out.line(`  ${shown.text}`)
      return
    default:
      shown satisfies never
  }
}

async function serve(ctx: Context, dir: string): Promise<void> {
  const { startService } = await import('../../app/demo/service.ts')
  const { existsSync } = await import('node:fs')
  if (!existsSync(`${dir}/service.json`))
    throw usage(
      '--serve: there is no kept demo in this directory',
      'make one with: rotate demo --keep DIR',
    )
  const service = await startService(dir, ctx.host.random, {})
  ctx.out.line(`listening on ${service.url}; Ctrl-C ends it`)
  await new Promise<void>((resolve) => {
    ctx.signal.addEventListener('abort', () => resolve(), { once: true })
  })
  await service.close()
}
