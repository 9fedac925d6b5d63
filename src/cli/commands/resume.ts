/** Runs that stand still, and the ways back: `resume`, `abort`, `rollback`. */
import type { RotateOutcome } from '../../app/rotate.ts'
import { isId } from '../../core/ids.ts'
import { usage } from '../../core/errors.ts'
import { visible } from '../../core/names.ts'
import { parseName, parseVersion } from '../../app/lookup.ts'
import type { Context } from '../context.ts'
import type { Register } from '../program.ts'
import { tell } from '../tell.ts'

export const resume: Register = (parent, run) => {
  parent
    .command('resume')
    .helpGroup('Rotation:')
    .summary('finish an interrupted run, or decide one that waits for you')
    .description(
      'Finishes a run that was interrupted. One whose outcome could not be learned waits for a decision: --keep old undoes it, --keep new accepts the new version as it is.\n\nExample:\n  rotate resume run_01KB… --keep old',
    )
    .argument('<run>', 'id of the run')
    .option('--keep <which>', 'new or old')
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (ctx, id: string, options: { keep?: string; events?: true }) => {
          const { keep } = options
          if (keep !== undefined && keep !== 'new' && keep !== 'old') throw usage('--keep must be new or old')
          const use = await import('../../app/rotate.ts')
          await show(ctx, options.events === true, async (progress) =>
            use.resume(await ctx.deps(), { runId: runId(id), ...(keep === undefined ? {} : { keep }) }, progress),
          )
        },
        { graceful: true },
      ),
    )
}

export const abort: Register = (parent, run) => {
  parent
    .command('abort')
    .helpGroup('Rotation:')
    .summary('undo an unfinished run')
    .description(
      'Undoes an unfinished run: targets get the old value back, the new one is ended. Not possible once the old value is dead.\n\nExample:\n  rotate abort run_01KB…',
    )
    .argument('<run>', 'id of the run')
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (ctx, id: string, options: { events?: true }) => {
          const use = await import('../../app/rotate.ts')
          await show(ctx, options.events === true, async (progress) =>
            use.resume(await ctx.deps(), { runId: runId(id), keep: 'old' }, progress),
          )
        },
        { graceful: true },
      ),
    )
}

export const rollback: Register = (parent, run) => {
  parent
    .command('rollback')
    .helpGroup('Rotation:')
    .summary('make the old value current again')
    .description(
      'Makes an earlier version that is still alive current again: delivered, checked and refreshed like a rotation.\n\nExamples:\n  rotate rollback production/aws/DEPLOY_KEY\n  rotate rollback production/aws/DEPLOY_KEY --to-version 3',
    )
    .argument('<path>', 'which secret')
    .option('--to-version <n>', 'which version; default the one before')
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (ctx, path: string, options: { toVersion?: string; events?: true }) => {
          const use = await import('../../app/rotate.ts')
          const toVersion = options.toVersion === undefined ? undefined : parseVersion(options.toVersion, '--to-version')
          await show(ctx, options.events === true, async (progress) =>
            use.rollback(await ctx.deps(), { path: parseName(path), ...(toVersion === undefined ? {} : { toVersion }) }, progress),
          )
        },
        { graceful: true },
      ),
    )
}

function runId(text: string): string {
  if (!isId('run', text))
    throw usage(
      `"${visible(text, 40)}" is not the id of a run`,
      'ids look like run_01KABX…; rotate show PATH names the open run of a secret',
    )
  return text
}

async function show(
  ctx: Context,
  asEvents: boolean,
  work: (progress: (event: import('../../app/rotate.ts').Progress) => void) => Promise<RotateOutcome>,
): Promise<void> {
  const { Events, progressPrinter, showRun } = await import('../render/run.ts')
  const events = asEvents ? new Events(ctx) : undefined
  const outcome = await work(progressPrinter(ctx, events))
  const [first] = outcome.runs
  if (events !== undefined) events.emit('summary', { data: first ?? null }, first?.runId ?? null)
  else if (first !== undefined) {
    ctx.out.data(first)
    showRun(ctx, first)
    if (!first.success && outcome.failure === undefined) ctx.out.line(`${first.path} version ${first.version ?? 0}`)
  }
  await tell(ctx)
  if (outcome.failure !== undefined) throw outcome.failure
}
