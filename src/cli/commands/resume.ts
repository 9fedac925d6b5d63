/** Runs that stand still, and the ways back: `resume`, `abort`, `rollback`. */
import type { Decision, RotateOutcome } from '../../app/rotation/rotate.ts'
import { isId } from '../../core/ids.ts'
import { RotateError, usage } from '../../core/errors.ts'
import { parseName, parseVersion } from '../../app/base/lookup.ts'
import type { Context } from '../context.ts'
import type { Register } from '../command.ts'
import { finish } from '../finish.ts'
import { pickDefined } from '../../core/defined.ts'

export const resume: Register = (parent, run) => {
  parent
    .command('resume')
    .helpGroup('Rotation:')
    .summary('finish an interrupted run, or decide one that waits for you')
    .description(
      'Finishes a run that was interrupted. One that can not go on by itself waits for a ' +
        'decision: --keep old undoes it, --keep new goes on with the new version. ' +
        'Everything that is still open is tried again; what fails again keeps the run open ' +
        '(21), unless it is given up by name. ' +
        'While a call that was given up may still be carried out, a decision is recorded and ' +
        'carried out later.\n\n' +
        'Examples:\n  rotate resume run_01KB… --keep old\n  rotate resume production/db/LOGIN ' +
        '--keep old --give-up exec',
    )
    .argument('<run>', 'id of the run, or the secret whose run is open')
    .option('--keep <which>', 'new or old')
    .option(
      '--give-up <name...>',
      'targets or checks that may stay as they are, should they fail once more',
    )
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (ctx, name: string, options: { keep?: string; giveUp?: string[]; events?: true }) => {
          const { keep, giveUp } = options
          if (keep !== undefined && keep !== 'new' && keep !== 'old')
            throw usage('--keep must be new or old')
          await decide(ctx, name, pickDefined({ keep, giveUp }), options.events)
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
      'Undoes an unfinished run: targets get back what they held, the new value is ended. Not ' +
        'possible once the old value is dead. ' +
        'A target that can not be put back keeps the run open (21), unless it is given up by ' +
        'name.\n\n' +
        'Examples:\n  rotate abort run_01KB…\n  rotate abort production/db/LOGIN --give-up exec',
    )
    .argument('<run>', 'id of the run, or the secret whose run is open')
    .option(
      '--give-up <name...>',
      'targets that may keep the new value, should they fail once more',
    )
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (ctx, name: string, options: { giveUp?: string[]; events?: true }) =>
          decide(
            ctx,
            name,
            { keep: 'old', ...pickDefined({ giveUp: options.giveUp }) },
            options.events,
          ),
        { graceful: true },
      ),
    )
}

/** Carries out a decision, and says before and after which conditions it drops. */
async function decide(
  ctx: Context,
  name: string,
  decision: Decision,
  events: true | undefined,
): Promise<void> {
  const use = await import('../../app/rotation/rotate.ts')
  const { droppedBy, tellDropped, tellGivenUp } = await import('../overrides.ts')
  const deps = await ctx.deps()
  const runId = await use.openRunOf(deps, isId('run', name) ? name : parseName(name))
  // A name that is not open, or a decision that is not possible, is refused before
  // anything else is said.
  const given = await use.decisionOf(deps, runId, decision)
  const dropped = droppedBy({ giveUp: given })
  tellDropped(ctx, dropped, 'before')
  if (dropped.length > 0) await ctx.input.confirm(`Give up ${given.join(', ')}?`, true)
  let begun = true
  try {
    await show(ctx, events === true, (progress) =>
      use.resume(deps, { runId, ...decision }, progress),
    )
  } catch (thrown) {
    begun = !(
      thrown instanceof RotateError &&
      ['usage', 'conflict', 'locked', 'not-found'].includes(thrown.code)
    )
    throw thrown
  } finally {
    if (begun && dropped.length > 0) tellGivenUp(ctx, await use.givenUpIn(deps, runId))
  }
}

export const rollback: Register = (parent, run) => {
  parent
    .command('rollback')
    .helpGroup('Rotation:')
    .summary('make the old value current again')
    .description(
      'Makes an earlier version that is still alive current again: delivered, checked and ' +
        'refreshed like a rotation. --skip-checks (with --reason) leaves the checks out, for an ' +
        'hour in which they are red for another cause.\n\nExamples:\n  rotate rollback ' +
        'production/aws/DEPLOY_KEY\n  rotate rollback production/aws/DEPLOY_KEY --to-version 3',
    )
    .argument('<path>', 'which secret')
    .option('--to-version <n>', 'which version; default the one before')
    .option('--skip-checks', 'make it current without the checks; needs --reason')
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (
          ctx,
          path: string,
          options: { toVersion?: string; skipChecks?: true; events?: true },
        ) => {
          const { droppedBy, tellDropped } = await import('../overrides.ts')
          const dropped = droppedBy({ skipChecks: options.skipChecks === true })
          tellDropped(ctx, dropped, 'before')
          const use = await import('../../app/rotation/rotate.ts')
          const toVersion =
            options.toVersion === undefined
              ? undefined
              : parseVersion(options.toVersion, '--to-version')
          const skip = options.skipChecks === true ? { skipChecks: true } : {}
          await show(ctx, options.events === true, async (progress) =>
            use.rollback(
              await ctx.deps(),
              { path: parseName(path), ...pickDefined({ toVersion }), ...skip },
              progress,
            ),
          )
          tellDropped(ctx, dropped, 'after')
        },
        { graceful: true },
      ),
    )
}

async function show(
  ctx: Context,
  asEvents: boolean,
  work: (
    progress: (event: import('../../app/rotation/rotate.ts').Progress) => void,
  ) => Promise<RotateOutcome>,
): Promise<void> {
  const { Events, progressPrinter, showRuns } = await import('../render/run.ts')
  const events = asEvents ? new Events(ctx) : undefined
  const outcome = await work(progressPrinter(ctx, events))
  const [first] = outcome.runs
  showRuns(ctx, events, outcome.runs, first)
  // A run that was undone by decision is no success, and its end is what was asked for.
  if (events === undefined && first?.success === false && outcome.failure === undefined)
    ctx.out.line(`${first.path} version ${first.version ?? 0}`)
  await finish(ctx, outcome.failure)
}
